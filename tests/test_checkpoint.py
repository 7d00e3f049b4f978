"Checkpoints: what other software sees, and what happens to them on a bad day."
import json
import os
import shutil
import struct
import warnings

import pytest
import torch
from safetensors.torch import load_file, save_file

from croissant import checkpoint
from croissant.checkpoint import (check_space, check_state, check_tokenizer, describe, hf_config, latest_state, load_checkpoint, load_model, load_state, model_config,
                                  read_header, replacing_folder, retain_states, save_model, save_state)
from croissant.model import Llama, ModelConfig, toy_model
from croissant.params import BadInput
from croissant.provenance import load_json, write_manifest
from croissant.tokenizer import toy_tokenizer

GROUPED = ModelConfig(80, 128, 96, 2, 4, 2, 64, rope_theta=2e4)
TIED = ModelConfig(80, 128, 96, 2, 2, 1, 64, tie_word_embeddings=True)
IDS = torch.randint(80, (2, 40), generator=torch.Generator().manual_seed(0))


@pytest.fixture
def saved(tmp_path):
    return save_model(Llama(GROUPED, 1), None, tmp_path/"modèle", step=5)


@pytest.mark.parametrize("config", [GROUPED, TIED])
def test_transformers_loads_it(config, tmp_path):
    from transformers import LlamaForCausalLM
    model = Llama(config, 2)
    theirs, info = LlamaForCausalLM.from_pretrained(save_model(model, None, tmp_path/"m"), dtype=torch.float32, output_loading_info=True)
    assert not any(info[k] for k in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    with torch.no_grad():
        ours = load_model(tmp_path/"m")
        assert torch.equal(ours(IDS), model(IDS))
        assert (theirs(IDS).logits - ours(IDS)).abs().max() < 1e-5
    assert (ours.lm_head.weight is ours.model.embed_tokens.weight) == config.tie_word_embeddings


def test_we_load_what_transformers_writes(tmp_path):
    from transformers import LlamaConfig, LlamaForCausalLM
    theirs = LlamaForCausalLM(LlamaConfig(**hf_config(GROUPED))).eval()
    theirs.save_pretrained(tmp_path/"m")
    with pytest.warns(UserWarning, match="nothing could be verified") as caught: ours = load_model(tmp_path/"m")
    assert ours.config == GROUPED and len(caught) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load_model(tmp_path/"m", verify=False)
    with torch.no_grad(): assert (theirs(IDS).logits - ours(IDS)).abs().max() < 1e-5


def elsewhere(tmp_path, tokenizer_json=None):
    "A model and its tokenizer as `transformers` writes them: no manifest."
    from transformers import AutoModelForCausalLM, AutoTokenizer
    tokenizer = toy_tokenizer()
    ours = save_model(toy_model(tokenizer.vocab_size), tokenizer, tmp_path/"ours")
    AutoModelForCausalLM.from_pretrained(ours, dtype=torch.float32).save_pretrained(tmp_path/"theirs")
    AutoTokenizer.from_pretrained(ours).save_pretrained(tmp_path/"theirs")
    if tokenizer_json: (tmp_path/"theirs"/"tokenizer.json").write_text(tokenizer_json, encoding="utf-8")
    return ours, tmp_path/"theirs"


def test_a_checkpoint_from_elsewhere_is_read_with_one_warning(tmp_path):
    ours, theirs = elsewhere(tmp_path)
    with pytest.warns(UserWarning) as caught: model, tokenizer = load_checkpoint(theirs)
    assert [str(w.message).split(", ")[0] for w in caught] == [f"{theirs}: no manifest.json"]
    same, _ = load_checkpoint(ours)
    text = "L'été, ça va ? 🥐"
    ids = toy_tokenizer().encode(text)
    assert tokenizer.encode(text) == ids and torch.equal(model(torch.tensor([ids])), same(torch.tensor([ids])))


def foreign_tokenizers():
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    byte_level = Tokenizer(models.BPE({"<unk>": 0, "<s>": 1, "</s>": 2, **{c: i for i, c in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()), 3)}}, []))
    byte_level.pre_tokenizer, byte_level.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    no_marks = Tokenizer(models.BPE({"a": 0}, []))
    return {"of another kind": byte_level.to_str(), "no piece '<s>'": no_marks.to_str(), "not a tokenizer": "{}"}


@pytest.mark.parametrize("message", ["of another kind", "no piece '<s>'", "not a tokenizer"])
@pytest.mark.filterwarnings("ignore:.*nothing could be verified")
def test_a_tokenizer_that_we_cannot_read(tmp_path, message):
    _, theirs = elsewhere(tmp_path, foreign_tokenizers()[message])
    with pytest.raises(BadInput, match=f"tokenizer.json: .*{message}"): load_checkpoint(theirs)


@pytest.mark.parametrize("content", ["{}", "[]", '"fichiers"', '{"files": []}', '{"files": {"config.json": 3}}', '{"files": {"config.json": {"octets": 3}}}'])
def test_a_manifest_of_another_form(saved, content):
    (saved/"manifest.json").write_text(content)
    with pytest.raises(BadInput, match="lists no files"): load_model(saved)
    shutil.copytree(saved, saved.parent/"states"/"step-1")
    with pytest.warns(UserWarning, match="lists no files"): assert latest_state(saved.parent/"states") is None
    with pytest.raises(BadInput, match="lists no files"): load_state(saved)
    assert describe(saved)["dtypes"] == ["F32"]


def test_with_tokenizer(tmp_path):
    from transformers import AutoTokenizer, GenerationConfig
    tokenizer = toy_tokenizer()
    folder = save_model(toy_model(tokenizer.vocab_size), tokenizer, tmp_path/"m", dtype=torch.bfloat16, step=7)
    model, back = load_checkpoint(folder)
    assert back.fingerprint == tokenizer.fingerprint == load_json(folder/"manifest.json")["tokenizer"]
    assert next(model.parameters()).dtype == torch.float32 and next(iter(load_file(folder/"model.safetensors").values())).dtype == torch.bfloat16
    config, generation = load_json(folder/"config.json"), GenerationConfig.from_pretrained(folder)
    assert config["eos_token_id"] == generation.eos_token_id == tokenizer.eos_id == AutoTokenizer.from_pretrained(folder).eos_token_id
    assert config["bos_token_id"] == generation.bos_token_id == tokenizer.bos_id
    assert not list(tmp_path.glob("*.partial")) and not list(folder.glob("tokenizer.new*"))


def test_wrong_tokenizer(tmp_path):
    tokenizer = toy_tokenizer()
    with pytest.raises(BadInput, match="wrong checkpoint for this tokenizer"): save_model(toy_model(99), tokenizer, tmp_path/"m")
    assert not list(tmp_path.iterdir())
    folder = save_model(toy_model(99), None, tmp_path/"m")
    with pytest.raises(BadInput, match="no tokenizer.json"): load_checkpoint(folder)
    tokenizer.save(folder); write_manifest(folder)
    with pytest.raises(BadInput, match="99 pieces"): load_checkpoint(folder)
    check_tokenizer(toy_model(tokenizer.vocab_size).config, tokenizer)


def test_replaces_an_older_one(saved):
    save_model(Llama(GROUPED, 9), None, saved, step=6)
    assert describe(saved)["step"] == 6 and torch.equal(load_model(saved).lm_head.weight, Llama(GROUPED, 9).lm_head.weight)
    assert [p.name for p in saved.parent.iterdir()] == [saved.name]


def test_saving_twice_gives_the_same_bytes(saved, tmp_path):
    other = save_model(Llama(GROUPED, 1), None, tmp_path/"again", step=5)
    assert {p.name: p.read_bytes() for p in saved.iterdir()} == {p.name: p.read_bytes() for p in other.iterdir()}


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "generation_config.json"])
def test_every_file_is_guarded(saved, name):
    data = (saved/name).read_bytes()
    for bad, message in ((bytes([data[0] ^ 1]) + data[1:], "SHA-256"), (data[:-1], "truncated"), (None, "missing")):
        if bad is None: (saved/name).unlink()
        else: (saved/name).write_bytes(bad)
        with pytest.raises(BadInput, match=message): load_model(saved)


@pytest.mark.parametrize("position", [0.3, 0.7, 1.0])
def test_one_bit(saved, position):
    path = saved/"model.safetensors"
    data = bytearray(path.read_bytes())
    data[int((len(data) - 1) * position)] ^= 1
    path.write_bytes(data)
    with pytest.raises(BadInput, match="SHA-256"): load_model(saved)


@pytest.mark.parametrize("change, message", [
    ({"architectures": ["MistralForCausalLM"]}, "unknown"), ({"model_type": "gpt2"}, "unknown"), ({"hidden_act": "gelu"}, "hidden_act"), ({"mlp_bias": True}, "mlp_bias"),
    ({"rope_parameters": {"rope_type": "llama3", "rope_theta": 1e4}}, "scaled positions"), ({"head_dim": 16}, "head_dim"), ({"hidden_size": None, "vocab_size": None}, None)])
def test_foreign_configurations(change, message):
    found = {k: v for k, v in (hf_config(GROUPED) | change).items() if v is not None}
    with pytest.raises(BadInput, match=message or "hidden_size, vocab_size missing"): model_config(found)


@pytest.mark.parametrize("found, message", [([], "no names and values"), ({"hidden_size": "128"}, "'hidden_size' should be int"), ({"vocab_size": 80.5}, "'vocab_size' should be int"),
                                            ({"rope_parameters": "default"}, "rope_parameters"), ({"tie_word_embeddings": "non"}, "'tie_word_embeddings' should be bool")])
def test_configurations_of_the_wrong_type(found, message):
    with pytest.raises(BadInput, match=f"modèle/config.json: {message}"): model_config(hf_config(GROUPED) | found if isinstance(found, dict) else found, "modèle/config.json")


def test_weights_of_another_shape(saved):
    config = load_json(saved/"config.json")
    (saved/"config.json").write_text(json.dumps(config | {"num_hidden_layers": 3})); write_manifest(saved)
    with pytest.raises(BadInput, match=r"model.layers.2.*\(9 such\)"): load_model(saved)


def _file(path, header, data=b""):
    header = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(header)) + header + data)
    return path


def test_weight_headers(tmp_path):
    p = tmp_path/"w.safetensors"
    one = b'"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}'
    assert set(read_header(_file(p, b"{" + one + b"}", b"\0"))) == {"a"}
    with pytest.raises(BadInput, match="'a' occurs twice"): read_header(_file(p, b"{" + one + b"," + one + b"}", b"\0"))
    with pytest.raises(BadInput, match="'shape' occurs twice"): read_header(_file(p, b'{"a":{"dtype":"U8","shape":[1],"shape":[1],"data_offsets":[0,1]}}', b"\0"))
    with pytest.raises(BadInput, match="not a sound"): read_header(_file(p, b"{oops", b""))
    for odd in ([], {"a": 3}, {"a": {"dtype": "U8"}}):
        with pytest.raises(BadInput, match="no list of tensors"): read_header(_file(p, odd))
    with pytest.raises(BadInput, match="no such file"): read_header(tmp_path/"none")
    (tmp_path/"none.index.json").write_text("{}")
    with pytest.raises(BadInput, match="several files"): read_header(tmp_path/"none")
    p.write_bytes(b"123")
    with pytest.raises(BadInput, match="not a sound"): read_header(p)
    p.write_bytes(struct.pack("<Q", 1 << 60) + b"{}")
    with pytest.raises(BadInput, match="a header of"): read_header(p)


def test_unsound_offsets_behind_a_fresh_manifest(saved):
    path = saved/"model.safetensors"
    with path.open("rb+") as f: f.truncate(path.stat().st_size - 8)
    write_manifest(saved)
    with pytest.raises(BadInput, match="not a sound safetensors file"): load_model(saved)


def test_unwritable(tmp_path):
    (tmp_path/"fichier").write_text("ceci n'est pas un dossier")
    with pytest.raises(BadInput, match="cannot be written"): save_model(toy_model(20), None, tmp_path/"fichier"/"m")
    with pytest.raises(BadInput, match="cannot be written"): save_state(tmp_path/"fichier"/"s", {}, {"step": 1})


def test_full_disk_keeps_the_old_one(saved, monkeypatch):
    def full(*args, **kwargs): raise OSError(28, "No space left on device")
    monkeypatch.setattr(checkpoint, "save_file", full)
    with pytest.raises(BadInput, match="untouched: free some space"): save_model(Llama(GROUPED, 9), None, saved)
    assert [p.name for p in saved.parent.iterdir()] == [saved.name]   # the half-written one takes no room
    assert torch.equal(load_model(saved).lm_head.weight, Llama(GROUPED, 1).lm_head.weight)


def test_killed_between_the_two_renames(saved):
    shutil.copytree(saved, saved.with_name("modèle.partial")); saved.rename(saved.with_name("modèle.old"))
    with pytest.raises(BadInput, match="no manifest"): load_model(saved)
    with pytest.raises(RuntimeError):
        with replacing_folder(saved): raise RuntimeError("and once more")
    load_model(saved)


def test_state_is_exact(tmp_path):
    g = torch.Generator().manual_seed(3)
    tensors = {"poids": torch.randn(5, 3, generator=g).T, "bf16": torch.randn(4, generator=g).bfloat16(), "rng": g.get_state(), "step": torch.tensor(7.)}
    tensors["same memory"] = tensors["bf16"]
    facts = {"step": 7, "lr": 1 / 3e7, "loss": 2 ** -60 + 1.0, "langue": "français", "seen": [2 ** 53 + 1]}
    back, found = load_state(save_state(tmp_path/"s", tensors, facts))
    assert found == facts and all(torch.equal(back[k], v) and back[k].dtype == v.dtype for k, v in tensors.items()) and back.keys() == tensors.keys()
    with pytest.raises(BadInput, match="facts lack 'step'"): save_state(tmp_path/"t", {}, {})


def test_latest_is_the_newest_whole_one(tmp_path):
    assert latest_state(tmp_path) is None and latest_state(tmp_path/"none") is None
    for step in (9, 10, 200): save_state(tmp_path/f"step-{step}", {"x": torch.zeros(3)}, {"step": step})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert latest_state(tmp_path).name == "step-200"
    shutil.copytree(tmp_path/"step-200", tmp_path/"step-300.partial")
    with pytest.warns(UserWarning, match="step-300.partial: passed over: unfinished"): assert latest_state(tmp_path).name == "step-200"
    shutil.rmtree(tmp_path/"step-300.partial")
    (tmp_path/"step-200"/"manifest.json").unlink()
    with pytest.warns(UserWarning, match="step-200: passed over: .*no manifest"): assert latest_state(tmp_path).name == "step-10"
    (tmp_path/"step-10"/"state.json").write_text("{}")
    (tmp_path/"step-200"/"manifest.json").write_text("pas du JSON")
    with pytest.warns(UserWarning, match="passed over"): assert latest_state(tmp_path).name == "step-9"
    with pytest.raises(BadInput, match="remove the folder: `--resume auto` continues"): load_state(tmp_path/"step-10")


def test_a_state_that_was_being_replaced_is_put_back(tmp_path):
    save_state(tmp_path/"step-3", {"x": torch.zeros(3)}, {"step": 3})
    (tmp_path/"step-3").rename(tmp_path/"step-3.old")
    assert latest_state(tmp_path) == tmp_path/"step-3" and [p.name for p in tmp_path.iterdir()] == ["step-3"]


def test_the_seal_covers_the_facts_and_the_spelling(tmp_path):
    folder = save_state(tmp_path/"step-5", {"x": torch.zeros(3)}, {"step": 5})
    sound = (folder/"manifest.json").read_text()
    assert check_state(folder)["step"] == 5
    for wrong in (sound.replace('"step": 5', '"step": 6'), sound + "\n", sound.replace('"seal"', '"sael"'), sound.replace('"step": 5', '"step": 5,\n "step": 5')):
        (folder/"manifest.json").write_text(wrong)
        with pytest.raises(BadInput, match="manifest.json: its seal does not fit"): load_state(folder)
    write_manifest(folder, step=5)   # whole, but not sealed
    with pytest.raises(BadInput, match="seal"): load_state(folder)


def test_retention(tmp_path):
    def names(): return sorted(p.name for p in tmp_path.iterdir())
    for step in (2, 4, 6, 8, 10): save_state(tmp_path/f"step-{step:02}", {"x": torch.zeros(1)}, {"step": step})
    for name in ("step-07.partial", "step-12.partial", "notes"): (tmp_path/name).mkdir()
    assert [p.name for p in retain_states(tmp_path, keep=2, every=4)] == ["step-02", "step-06", "step-07.partial"]
    assert names() == ["notes", "step-04", "step-08", "step-10", "step-12.partial"]   # 12 may be in the making
    retain_states(tmp_path, keep=1)
    assert names() == ["notes", "step-10", "step-12.partial"] and retain_states(tmp_path/"none") == []
    with pytest.raises(BadInput, match="keep_states"): retain_states(tmp_path, keep=0)


def test_no_room_is_noticed_before_anything_is_written(tmp_path, monkeypatch):
    save_state(tmp_path/"step-1", {"x": torch.ones(3)}, {"step": 1})
    check_space(tmp_path/"not"/"yet"/"there", 1)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10**9, 10**9 - 1000, 1000))
    for save in (lambda: save_state(tmp_path/"step-2", {"x": torch.ones(3)}, {"step": 2}), lambda: save_model(toy_model(20), None, tmp_path/"m")):
        with pytest.raises(BadInput, match="MB are needed and 0 MB are free.*untouched.*free some space"): save()
    assert [p.name for p in tmp_path.iterdir()] == ["step-1"]


def test_others_may_read_what_is_saved(saved, tmp_path):
    for folder in (saved, save_state(tmp_path/"step-1", {"x": torch.ones(3)}, {"step": 1})):
        assert {oct(p.stat().st_mode & 0o777) for p in folder.iterdir()} == {"0o644"}


@pytest.mark.parametrize("at", ["save_file", "write_facts", "publish_folder", "write_manifest", "_seal", "_sync", "rename"])
def test_killed_at_any_moment(tmp_path, at):
    save_state(tmp_path/"step-1", {"x": torch.ones(3)}, {"step": 1})
    child = os.fork()
    if child == 0:  # a process of its own, which ends without any clean-up when it reaches `at`
        setattr(os if at == "rename" else checkpoint, at, lambda *a, **k: os._exit(9))
        save_state(tmp_path/"step-2", {"x": torch.ones(3)}, {"step": 2})
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
    with pytest.warns(UserWarning, match="step-2.partial: passed over"): assert latest_state(tmp_path).name == "step-1"
    save_state(tmp_path/"step-2", {"x": torch.ones(3)}, {"step": 2})
    assert sorted(p.name for p in tmp_path.iterdir()) == ["step-1", "step-2"] and latest_state(tmp_path).name == "step-2"


def test_nothing_is_pickled(saved):
    assert not [p for p in saved.iterdir() if p.suffix in (".bin", ".pt", ".pth", ".pkl")]
    save_file({"x": torch.zeros(1)}, saved/"extra.safetensors")
    with pytest.raises(BadInput, match="extra.safetensors not listed"): load_model(saved)
