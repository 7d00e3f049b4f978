"""A whole model in GGUF: llama.cpp writes the text that transformers and we write, its own packer agrees with ours, and the folder has one set of end marks."""
import ctypes
import json
from dataclasses import replace
from importlib.util import find_spec

import gguf
import numpy as np
import pytest
import torch
from conftest import EXHAUSTIVE
from gguf import GGMLQuantizationType as Q, dequantize
from hypothesis import given, settings, strategies as st

from croissant import export
from croissant.checkpoint import load_checkpoint, save_model
from croissant.export import (KINDS, LlamaCpp, beginnings, bits_per_weight, check_out, complete_folder, ends_turns, llama_cpp_agreement, model_card, pack, packing, quantize_q4_k, quantize_q6_k, tensor_types, transformers_agreement,
                              write_gguf)
from croissant.gguf_vocabulary import read_vocabulary, vocabulary_fields
from croissant.model import Llama, ModelConfig
from croissant.outside import llama_from_gguf, read_gguf
from croissant.packing import Shards
from croissant.params import BadInput, root
from croissant.provenance import check_manifest, save_json
from croissant.tokenizer import paper_tokenizer, toy_tokenizer
from croissant.toy import toy_texts

MISSING = "llama.cpp is not here; its wheel compiles nothing: `python -m pip install --no-deps xllamacpp==2026.10.11549`"
FLAGSHIP, SHARDS = "artifacts/checkpoints/flagship", "artifacts/shards/lab8k"
WIDE = ModelConfig(600, 256, 512, 2, 4, 2, 128, initializer_range=.1)      # every packing of q4_k_m occurs
SHAPES = {"wide": WIDE, "tied": replace(WIDE, tie_word_embeddings=True, rope_theta=50000.0, rms_norm_eps=1e-6), "narrow": replace(WIDE, hidden_size=64, intermediate_size=176, num_key_value_heads=4)}
engine = pytest.mark.skipif(find_spec("xllamacpp") is None, reason=MISSING)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    "Checkpoints with random, not too small weights: their greedy text is nonsense, and sure of itself."
    here = tmp_path_factory.mktemp("checkpoints")
    return {name: save_model(Llama(shape, seed=1), toy_tokenizer(), here/name, step=7) for name, shape in SHAPES.items()}


@pytest.fixture(scope="module")
def files(folders, tmp_path_factory):
    here = tmp_path_factory.mktemp("gguf")
    return {(name, kind): write_gguf(folder, here/f"{name}-{kind}.gguf", kind) for name, folder in folders.items() for kind in KINDS}


def theirs(x, kind):
    "llama.cpp's own packer, called in its library."
    import xllamacpp
    call = ctypes.CDLL(xllamacpp.xllamacpp.__file__).ggml_quantize_chunk
    call.restype, call.argtypes = ctypes.c_size_t, [ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64, ctypes.c_int64, ctypes.c_void_p]
    block, size = gguf.GGML_QUANT_SIZES[kind]
    out = np.zeros((len(x), x.shape[1] // block * size), np.uint8)
    assert call(int(kind), x.ctypes.data, out.ctypes.data, 0, *x.shape, None) == out.nbytes
    return out


DRAWS = {"normal": lambda r: r.normal(0, .02, (64, 512)), "heavy tails": lambda r: r.standard_t(3, (64, 512)), "one sign": lambda r: abs(r.normal(0, 1, (64, 512))), "uniform": lambda r: r.uniform(-1, 1, (64, 512))}


@engine
@pytest.mark.parametrize("draw", DRAWS)
def test_our_blocks_are_as_good_as_those_of_llama_cpp(draw):
    x = DRAWS[draw](np.random.default_rng(0)).astype(np.float32)
    for kind in (Q.Q4_K, Q.Q6_K):
        ours, other = (np.sqrt(((dequantize(packed, kind) - x) ** 2).mean()) for packed in (pack(x, kind), theirs(x, kind)))
        assert ours <= other, (kind, ours, other)
    for kind in (Q.Q8_0, Q.Q5_0): assert (pack(x, kind) == theirs(x, kind)).all()


@settings(max_examples=60 if EXHAUSTIVE else 25)
@given(st.integers(0, 10**6), st.sampled_from([1e-3, .02, 1., 100.]), st.sampled_from(["noise", "zeros", "constant", "negative", "one"]))
def test_an_error_is_never_larger_than_a_step(seed, scale, form):
    "Half a step of the widest part, plus what rounding the steps themselves to six or eight bits may cost; far smaller weights meet the end of 16-bit floats."
    r = np.random.default_rng(seed)
    x = {"noise": r.normal(0, 1, (2, 512)), "zeros": np.zeros((2, 512)), "constant": np.full((2, 512), .7), "negative": -abs(r.normal(0, 1, (2, 512))), "one": np.eye(2, 512, 300)}[form].astype(np.float32) * np.float32(scale)
    for packer, kind, levels in ((quantize_q4_k, Q.Q4_K, 15), (quantize_q6_k, Q.Q6_K, 31)):
        packed = packer(x)
        back = dequantize(packed, kind)
        assert packed.dtype == np.uint8 and packed.shape == (2, 512 // 256 * gguf.GGML_QUANT_SIZES[kind][1]) and np.isfinite(back).all()
        assert abs(back - x).max() <= abs(x).max() * (4 / levels) + 1e-6, (form, scale)


def test_bits_and_fallbacks():
    wide, narrow = tensor_types(WIDE, "q4_k_m"), tensor_types(SHAPES["narrow"], "q4_k_m")
    assert wide["output.weight"] == Q.Q6_K and wide["token_embd.weight"] == Q.Q4_K and wide["blk.0.attn_v.weight"] == Q.Q4_K and wide["blk.1.attn_v.weight"] == wide["blk.1.ffn_down.weight"] == Q.Q6_K
    assert tensor_types(SHAPES["tied"], "q4_k_m")["token_embd.weight"] == Q.Q6_K and "output.weight" not in tensor_types(SHAPES["tied"], "q4_k_m")
    assert narrow["blk.0.attn_q.weight"] == Q.Q5_0 and narrow["output.weight"] == Q.Q8_0 and narrow["blk.0.ffn_down.weight"] == Q.F16                # rows of 64, and of 176
    assert {t for n, t in wide.items() if "norm" in n} == {Q.F32} and set(tensor_types(WIDE, "f16").values()) == {Q.F32, Q.F16}
    more = [int(n.split(".")[1]) for n, t in tensor_types(replace(WIDE, num_hidden_layers=16), "q4_k_m").items() if "ffn_down" in n and t == Q.Q6_K]
    assert more == [0, 1, 4, 7, 10, 13, 14, 15]                                                                                                     # first and last eighth, and every third


@pytest.mark.parametrize("name", SHAPES)
def test_every_weight_comes_back(folders, files, name):
    model = load_checkpoint(folders[name])[0]
    for kind, bound in {"f32": 0, "f16": 1e-3, "q8_0": 5e-3, "q4_k_m": .2}.items():
        back = llama_from_gguf(read_gguf(files[name, kind]))
        assert back.config == replace(model.config, initializer_range=back.config.initializer_range)
        for (k, a), b in zip(model.state_dict().items(), back.state_dict().values()): assert (a - b).abs().max() <= bound * a.abs().max(), (kind, k)
    counted = packing(files[name, "q4_k_m"])
    assert sum(r["weights"] for r in counted) == sum(w.numel() for k, w in model.state_dict().items() if not (model.config.tie_word_embeddings and k == "lm_head.weight"))
    assert 4.5 < bits_per_weight(files[name, "q4_k_m"]) < bits_per_weight(files[name, "q8_0"]) < bits_per_weight(files[name, "f16"]) < bits_per_weight(files[name, "f32"]) == 32


def test_the_file_says_what_it_is(folders, files):
    f = read_gguf(files["wide", "q4_k_m"]).fields
    assert (f["general.architecture"], f["general.name"], f["general.license"], f["general.languages"], f["general.file_type"], f["general.quantization_version"]) == ("llama", "wide", "apache-2.0", ["fr", "en"], 15, 2)
    assert (f["llama.context_length"], f["llama.attention.head_count"], f["llama.attention.head_count_kv"], f["llama.rope.dimension_count"], f["llama.vocab_size"]) == (128, 4, 2, 64, 600)
    assert f[export.SOURCE] == check_manifest(folders["wide"])["files"]["model.safetensors"]["sha256"]
    assert read_vocabulary(files["wide", "q4_k_m"]).fields == vocabulary_fields(toy_tokenizer())                                                     # with its digest, template, </s> and <|im_end|>
    assert write_gguf(folders["wide"], files["wide", "f16"].with_name("twice.gguf"), "f16").read_bytes() == files["wide", "f16"].read_bytes()


def starts(count, length=8): return [toy_tokenizer().encode(t, bos=True)[:length] for t in [*toy_texts("fr", seed=5)[:count // 2], *toy_texts("en", seed=5)[:count - count // 2]]]


BOUNDS = {"f32": (5e-4, 5e-4), "f16": (.05, .05), "q8_0": (1., 1.), "q4_k_m": (20., 1.5)}    # of a log-probability, with the folder and with the unpacked weights; these random weights are ten times as touchy as trained ones


@engine
@pytest.mark.parametrize("name", ["wide", "tied", pytest.param("narrow", marks=pytest.mark.exhaustive)])
def test_llama_cpp_writes_our_text(folders, files, name):
    "Many beginnings in 32 bits; in fewer bits the probabilities are within stated bounds."
    seen = llama_cpp_agreement(files[name, "f32"], folders[name], starts(N := 50 if EXHAUSTIVE else 20), 12, scored=4, positions=4)
    assert seen["same_as_transformers"] == seen["same_as_ours"] == seen["prompts"] == N and seen["same_choice"] == seen["positions"] >= 12
    for kind, (folder_bound, engine_bound) in BOUNDS.items():
        seen = llama_cpp_agreement(files[name, kind], folders[name], starts(4), 6, scored=4, positions=3)
        assert seen["max"] < folder_bound and seen["engine_max"] < engine_bound, (kind, seen)


@engine
def test_wrong_rows_are_noticed(folders, tmp_path, monkeypatch):
    "The comparison can fail: keys left in our order."
    monkeypatch.setattr(export, "permute", lambda x, heads: x)
    seen = llama_cpp_agreement(write_gguf(folders["wide"], tmp_path/"wrong.gguf", "f32"), folders["wide"], starts(6), 12, scored=2, positions=4)
    assert seen["same_as_transformers"] < 6 and seen["max"] > .1


@engine
def test_llama_cpp_refuses_in_words(files, tmp_path):
    with LlamaCpp(files["wide", "f32"]) as llama:
        p = llama.log_probabilities([1])
        assert p.shape == (600,) and abs(np.exp(p).sum() - 1) < 1e-4 and p.argmax() == llama.greedy([1], 1)[0]
        with pytest.raises(BadInput, match="200 tokens"): llama.greedy(200 * [1], 1)
        with pytest.raises(BadInput, match="invalid tokens"): llama.greedy([600], 1)


@engine
def test_the_released_model_writes_the_same_text_in_llama_cpp(tmp_path):
    "Fifty real beginnings, French and English, held out; 16 bits within a hundredth at all eight thousand candidates, 8 bits within 0.4 at the hundred likeliest (llama.cpp rounds activations to 8 bits, too)."
    if not all((root()/p/"manifest.json").is_file() for p in (FLAGSHIP, SHARDS)): pytest.skip(f"{FLAGSHIP} or {SHARDS} is not here; restore the model (`dvc pull`) and make the shards (`dvc repro tokenize`)")
    tokenizer = load_checkpoint(root()/FLAGSHIP)[1]
    prompts = beginnings(Shards(root()/SHARDS, "validation", tokenizer), tokenizer.bos_id, 50)
    seen = llama_cpp_agreement(write_gguf(root()/FLAGSHIP, tmp_path/"f32.gguf", "f32"), root()/FLAGSHIP, prompts, 24, scored=6)
    assert seen["same_as_transformers"] == seen["same_as_ours"] == 50 and seen["max"] < 1e-3
    for kind, which, bound in (("f16", "max", .01), ("q8_0", "top", .4)):
        assert llama_cpp_agreement(write_gguf(root()/FLAGSHIP, tmp_path/f"{kind}.gguf", kind), root()/FLAGSHIP, prompts[:6], 24, scored=6)[which] < bound


@pytest.mark.parametrize("chat", [True, False])
def test_the_folder_has_one_set_of_end_marks(folders, tmp_path, chat):
    whole = complete_folder(folders["wide"], tmp_path/"whole", {"temperature": .3, "top_p": .9, "repetition_penalty": 1.2}, chat, "# Une carte\n")
    config, settings_, tokenizer = (json.loads((whole/name).read_text()) for name in ("config.json", "generation_config.json", "tokenizer_config.json"))
    assert config["eos_token_id"] == settings_["eos_token_id"] == ([2, 5] if chat else 2) and config["pad_token_id"] == settings_["pad_token_id"] == 3 and config["bos_token_id"] == 1
    assert settings_["do_sample"] and settings_["temperature"] == .3 and "<|im_start|>" in tokenizer["chat_template"] and (whole/"README.md").read_text() == "# Une carte\n"
    seen = transformers_agreement(whole, [*toy_texts("fr")[:4], "<|im_end|> n'est pas une marque"])
    assert seen["same_ids"] == 5 and seen["same_chats"] == 4 and seen["max_difference"] < 1e-4 and seen["eos"] == 2 * [[2, 5] if chat else 2]   # a mark typed into a template is taken for one: see 26_gguf
    assert check_manifest(whole)["step"] == 7 and torch.equal(load_checkpoint(whole)[0].lm_head.weight, load_checkpoint(folders["wide"])[0].lm_head.weight)


def test_greedy_settings_hold_no_temperature(folders, tmp_path):
    found = json.loads((complete_folder(folders["narrow"], tmp_path/"greedy", {"temperature": 0, "top_k": 40})/"generation_config.json").read_text())
    assert found["do_sample"] is False and not {"temperature", "top_k"} & set(found)


def test_what_cannot_be_written_is_refused(folders, tmp_path):
    for kind in ("q2_k", "F16", ""):
        with pytest.raises(BadInput, match="choose one of f32"): write_gguf(folders["wide"], tmp_path/"x.gguf", kind)
    huge = load_checkpoint(folders["narrow"])[0]
    huge.model.norm.weight.data[0] = huge.lm_head.weight.data[0, 0] = 1e6
    folder = save_model(huge, toy_tokenizer(), tmp_path/"huge")
    with pytest.raises(BadInput, match="lm_head.weight: holds 1e.06, too large"): write_gguf(folder, tmp_path/"x.gguf", "f16")
    assert llama_from_gguf(read_gguf(write_gguf(folder, tmp_path/"y.gguf", "f32"))).lm_head.weight[0, 0] == 1e6
    old = paper_tokenizer(toy_texts("fr"), 500)
    with pytest.raises(BadInput, match="no SentencePiece model"): write_gguf(save_model(Llama(replace(WIDE, vocab_size=old.vocab_size)), old, tmp_path/"paper"), tmp_path/"x.gguf", "f32")
    with pytest.raises(BadInput, match="'mirostat'"): complete_folder(folders["wide"], tmp_path/"x", {"mirostat": 2})
    assert not (tmp_path/"x").exists() and not (tmp_path/"x.gguf").exists() and not list(tmp_path.glob(".x*"))


def test_a_card_holds_tracked_numbers_only(folders, files, tmp_path):
    save_json({"metrics": {"bpb_fr": {"value": 1.208941, "unit": "bits per byte", "n": 144380, "interval": [1.1, 1.3], "floors": {"uniform_bytes": 8.0}}}}, tmp_path/"training.json")
    facts = {"name": "croissant-lab", "summary": "Un petit modèle bilingue.", "checkpoint": folders["wide"], "metrics": tmp_path, "data": {"text": "French and English."}, "training": {"text": "From scratch."},
             "evaluation": {"numbers": {"French": "training/bpb_fr"}}, "limits": ["It invents facts."], "files": [files["wide", "q8_0"]], "chat": True}
    card = model_card(facts)
    front = card.split("---")[1]
    assert all(line in front for line in ("- fr\n- en\n", "license: apache-2.0\n", "library_name: transformers\n", "pipeline_tag: text-generation\n"))
    assert "| French | 1.209 bits per byte | 1.1 to 1.3 | 144,380 | uniform bytes 8 | `training/bpb_fr` |" in card and "apply_chat_template" in card and "wide-q8_0.gguf" in card
    for change, message in (({"limits": ["Beware after 512 tokens."]}, "'512'"), ({"summary": ""}, "no 'summary'"), ({"evaluation": {"numbers": {"French": "training/bpb_de"}}}, "no metric 'bpb_de'")):
        with pytest.raises(BadInput, match=message): model_card(facts | change)


def test_beginnings_take_turns(tmp_path):
    from croissant.packing import toy_shards
    shards = Shards(toy_shards(), "validation")
    found = beginnings(shards, 1, 6, 5)
    assert len(found) == 6 and all(len(ids) == 5 and ids[0] == 1 and 1 not in ids[1:] for ids in found) and len({tuple(ids) for ids in found}) > 3
    with pytest.raises(BadInput, match="ask for fewer"): beginnings(shards, 1, 10**6)


# --- what an export may replace

def everything(folder): return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.mark.parametrize("out, left, said", [
    (".", {}, "current directory"), ("..", {}, "current directory"), ("../..", {}, "current directory"), ("theses", {"theses/these.tex": "x"}, "earlier export"), ("theses", {"theses/manifest.json": '{"files": {}}'}, "earlier export"),
    ("these", {"these": "x"}, "a file"), ("neuf", {"neuf.old/these.tex": "x"}, "in the way"), ("neuf", {"neuf.old": "x"}, "in the way"), ("neuf", {"neuf.partial/these.tex": "x"}, "in the way")])
def test_an_export_takes_nothing_of_others(folders, tmp_path, monkeypatch, out, left, said):
    here = tmp_path/"haut"/"ici"
    here.mkdir(parents=True); monkeypatch.chdir(here)
    for name, text in left.items(): (here/name).parent.mkdir(exist_ok=True); (here/name).write_text(text)
    before = everything(tmp_path)
    with pytest.raises(BadInput, match=said): complete_folder(folders["narrow"], out)
    assert everything(tmp_path) == before


def test_an_earlier_export_is_replaced_and_a_checkpoint_is_not(folders, tmp_path):
    (tmp_path/"vide").mkdir()
    out = complete_folder(folders["narrow"], tmp_path/"vide")
    (tmp_path/"vide.partial").mkdir(); (tmp_path/"vide.partial"/"config.json").write_text("{")             # an export was killed here
    complete_folder(folders["wide"], out.rename(tmp_path/"vide.old").with_name("vide"))                    # and here, between its two renames
    assert everything(out)["model.safetensors"] == (folders["wide"]/"model.safetensors").read_bytes() and [p.name for p in tmp_path.iterdir()] == ["vide"]
    with pytest.raises(BadInput, match="earlier export"): check_out(folders["narrow"])
    (out/"notes.txt").write_text("à moi")
    with pytest.raises(BadInput, match="earlier export"): check_out(out)
    (tmp_path/"lien").symlink_to(out)
    with pytest.raises(BadInput, match="a link"): check_out(tmp_path/"lien")


@pytest.mark.parametrize("facts, turns", [({}, None), ({"step": 7}, None), ({"method": "lora"}, True), ({"run": {"examples": "ab"}}, True), ({"run": {"train_shards": "ab"}}, False),
                                          ({"run": {"train_shards": "ab", "initial_weights": "cd"}}, None)])
def test_the_manifest_tells_whether_turns_end(tmp_path, facts, turns):
    from croissant.provenance import write_manifest
    assert ends_turns(tmp_path) is None
    write_manifest(tmp_path, **facts)
    assert ends_turns(tmp_path) is turns
