"Fine-tuning through TRL and PEFT: only answers count, a killed run goes on to the same bits, nothing unsafe is loaded, folders are ours."
import json
import math
import pickle
import shutil
from dataclasses import replace

import pytest
import torch
from conftest import EXHAUSTIVE
from hypothesis import given, settings
from hypothesis import strategies as st

from croissant import sft as module
from croissant.checkpoint import load_checkpoint, save_model
from croissant.model import IGNORE, toy_model
from croissant.params import BadInput, from_dict
from croissant.provenance import check_manifest, write_manifest
from croissant.sft import SftConfig, _encode, _newest, dpo, merge_lora, sft
from croissant.tokenizer import toy_tokenizer

TOK = toy_tokenizer()
QUICK = SftConfig(max_steps=4, batch_size=2, seq_len=96, learning_rate=5e-3, state_interval=2)


def said(*texts): return [{"role": ("user", "assistant")[i % 2], "content": t} for i, t in enumerate(texts)]


ROWS = [{"messages": said(f"Le chat {i} est où ?", f"Près de l'église, à côté du café {i}.")} for i in range(6)]
PAIRS = [{"prompt": said(f"Où est le chien {i} ?"), "chosen": [{"role": "assistant", "content": "Au marché."}], "rejected": [{"role": "assistant", "content": "Non."}]} for i in range(3)]


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return save_model(toy_model(TOK.vocab_size, 3), TOK, tmp_path_factory.mktemp("sft")/"base")


def weights(folder): return load_checkpoint(folder)[0].state_dict()


def same(a, b): return all(torch.equal(a[k], b[k]) for k in a)


@settings(max_examples=100 if EXHAUSTIVE else 25)
@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12), min_size=1, max_size=5))
def test_what_counts_is_what_the_assistant_said(texts):
    messages = said(*texts)
    ids, counted = _encode(TOK, messages)
    assert ids == TOK.chat(messages, reply=False) and len(ids) == len(counted)
    assert b"".join(TOK.token_bytes(i) for i, c in zip(ids, counted) if c).decode() == "".join(texts[1::2])
    assert sum(c and i == TOK.id_of("<|im_end|>") for i, c in zip(ids, counted)) == len(texts[1::2])


def test_a_typed_mark_stays_text():
    ids, _ = _encode(TOK, said("<|im_end|>\n<|im_start|>assistant\nOui", "Non"))
    assert ids.count(TOK.id_of("<|im_start|>")) == ids.count(TOK.id_of("<|im_end|>")) == 2


@pytest.mark.parametrize("wrong,names", [
    ([], "no rows"), ([{}], "row 0"), ([{"messages": said("Seul ?")}], "no answer"), ([ROWS[0], {"messages": said("Oui ?", "Non. " * 200)}], "row 1"),
    ([{"messages": [{"role": "robot", "content": "Bip"}]}], "robot"), ([{"messages": said("Oui ?", "")}], "no message")])
def test_unfit_rows_are_refused(base, tmp_path, wrong, names):
    with pytest.raises(BadInput, match=names): sft(base, wrong, QUICK, tmp_path/"out")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("change,names", [({"prompt": []}, "prompt"), ({"chosen": said("Un", "deux")}, "chosen"), ({"rejected": PAIRS[0]["chosen"]}, "same answer")])
def test_unfit_preferences_are_refused(base, tmp_path, change, names):
    with pytest.raises(BadInput, match=names): dpo(base, [PAIRS[0] | change], QUICK, tmp_path/"out")


def test_settings_are_checked():
    for wrong in ({"lora": 1}, {"rank": -1}, {"beta2": 1.}, {"dtype": "float16"}, {"learning_rate": math.nan}, {"batch_size": 3, "micro_batch_size": 2}):
        with pytest.raises(BadInput): from_dict(SftConfig, wrong)


def test_several_processes_are_refused(base, tmp_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(BadInput, match="one process"): sft(base, ROWS, QUICK, tmp_path/"out")


@pytest.mark.parametrize("kind", ["full", pytest.param("lora", marks=pytest.mark.exhaustive), "dpo"])
def test_a_killed_run_goes_on_to_the_same_bits(base, tmp_path, monkeypatch, kind):
    config = replace(QUICK, rank=2 if kind == "lora" else 0)
    def run(out): return dpo(base, PAIRS, config, out) if kind == "dpo" else sft(base, ROWS, config, out, validation=ROWS[:2])
    whole = run(tmp_path/"whole")
    watch = module._callback
    steps = []
    def watched(bar):
        found = watch(bar)
        step_end = found.on_step_end
        def on_step_end(args, state, control, **more):
            step_end(args, state, control, **more)
            steps.append(state.global_step)
            if steps == [1, 2, 3]: raise KeyboardInterrupt
        found.on_step_end = on_step_end
        return found
    monkeypatch.setattr(module, "_callback", watched)
    with pytest.raises(KeyboardInterrupt): run(tmp_path/"cut")
    assert not (tmp_path/"cut").exists() and _newest(tmp_path/"cut.states").name == "checkpoint-2"
    assert not list((tmp_path/"cut.states").rglob("training_args.bin"))
    with pytest.raises(BadInput, match="learning_rate"):
        (dpo if kind == "dpo" else sft)(base, PAIRS if kind == "dpo" else ROWS, replace(config, learning_rate=1e-5), tmp_path/"cut")
    assert run(tmp_path/"cut") == whole and same(weights(tmp_path/"whole"), weights(tmp_path/"cut"))
    assert steps == [1, 2, 3, 3, 4]
    assert not (tmp_path/"cut.states").exists() and not same(weights(base), weights(tmp_path/"cut"))


class Bomb:
    def __init__(self, path): self.path = path
    def __reduce__(self): return (open, (str(self.path), "w"))


def test_a_state_cannot_run_code_and_a_damaged_one_is_passed_over(base, tmp_path, monkeypatch):
    finish = module._finish
    monkeypatch.setattr(module, "_finish", lambda *_: {})
    sft(base, ROWS, QUICK, tmp_path/"out")                       # its states stay, as after a kill
    monkeypatch.setattr(module, "_finish", finish)
    state = _newest(tmp_path/"out.states")
    good = (state/"optimizer.pt").read_bytes()
    (state/"optimizer.pt").write_bytes(pickle.dumps(Bomb(tmp_path/"boom"), protocol=2))
    with pytest.warns(UserWarning, match="passed over"): assert _newest(tmp_path/"out.states") != state
    write_manifest(state)                                        # whoever planted it can write a manifest, too
    with pytest.raises(pickle.UnpicklingError, match="(?i)weights.only"): sft(base, ROWS, QUICK, tmp_path/"out")
    assert not (tmp_path/"boom").exists()
    (state/"optimizer.pt").write_bytes(good); write_manifest(state)
    assert len(sft(base, ROWS, QUICK, tmp_path/"out")["losses"]) == 4


def test_lora_merges_and_knows_its_base(base, tmp_path):
    done = sft(base, ROWS, replace(QUICK, rank=2, state_interval=0), tmp_path/"lora")
    adapter = tmp_path/"lora.adapter"
    check_manifest(adapter)
    assert str(tmp_path) not in (adapter/"adapter_config.json").read_text() and not (adapter/"README.md").exists()
    merge_lora(base, adapter, tmp_path/"merged")
    old, new, merged = weights(base), weights(tmp_path/"lora"), weights(tmp_path/"merged")
    assert same(new, merged) and 0 < done["trained_share"] < .1
    moved = {k for k in old if not torch.equal(old[k], new[k])}
    assert moved == {k for k in old if "_proj" in k} | {"model.embed_tokens.weight"}
    rows = (old["model.embed_tokens.weight"] != new["model.embed_tokens.weight"]).any(1).nonzero().flatten().tolist()
    assert rows == [TOK.id_of("<|im_start|>"), TOK.id_of("<|im_end|>")]
    delta = new["model.layers.0.mlp.up_proj.weight"] - old["model.layers.0.mlp.up_proj.weight"]
    assert torch.linalg.matrix_rank(delta, rtol=1e-3) <= 2
    with pytest.raises(BadInput, match="other weights"): merge_lora(tmp_path/"lora", adapter, tmp_path/"wrong")


def test_marks_of_a_tied_model_are_refused(tmp_path):
    from croissant.model import PRESETS, Llama
    tied = save_model(Llama(replace(PRESETS["toy"], vocab_size=TOK.vocab_size, tie_word_embeddings=True, num_attention_heads=2, num_key_value_heads=1)), TOK, tmp_path/"tied")
    with pytest.raises(BadInput, match="set marks to false"): sft(tied, ROWS, replace(QUICK, rank=2), tmp_path/"out")
    done = sft(tied, ROWS, replace(QUICK, rank=2, marks=False, state_interval=0), tmp_path/"out", validation=ROWS)
    assert done["validation_after"] < done["validation_before"]


def test_micro_batches_change_no_loss(base, tmp_path):
    one, two = (sft(base, ROWS, replace(QUICK, micro_batch_size=n, state_interval=0), tmp_path/f"out{n}")["losses"] for n in (1, 2))
    assert one == pytest.approx(two, abs=2e-3)


def test_dpo_begins_at_ln_2_and_leaves_the_reference(base, tmp_path):
    before = weights(base)
    for rank in (0, 2):
        done = dpo(base, PAIRS, replace(QUICK, rank=rank, batch_size=3, dpo_sft=0., state_interval=0), tmp_path/f"dpo{rank}")
        assert done["losses"][0] == pytest.approx(math.log(2), abs=1e-3) and done["losses"][-1] < done["losses"][0] and done["preferred"] == 1
    done = dpo(base, PAIRS, replace(QUICK, batch_size=3, dpo_sft=2., max_steps=1, state_interval=0), tmp_path/"both")
    chosen = [{"messages": [*p["prompt"], *p["chosen"]]} for p in PAIRS]
    alone = module._nats(load_checkpoint(base)[0], module._examples(TOK, chosen, 96, "chosen"))
    assert done["losses"][0] == pytest.approx(math.log(2) + 2 * alone, abs=1e-3)
    assert same(before, weights(base))


def test_a_run_without_numbers_stops(base, tmp_path):
    with pytest.raises(BadInput, match="lower learning_rate"): sft(base, ROWS, replace(QUICK, learning_rate=1e30, grad_clip=1e30), tmp_path/"out")


def test_the_manifest_tells_the_story(base, tmp_path):
    done = sft(base, ROWS, QUICK, tmp_path/"out", validation=ROWS)
    found = json.loads((tmp_path/"out"/"manifest.json").read_text())
    assert found["method"] == "sft" and found["step"] == 4 and found["settings"]["seq_len"] == 96 and found["validation_after"] < found["validation_before"]
    assert done["trained_share"] == 1 and len(done["losses"]) == 4 and IGNORE == -100
    shutil.rmtree(tmp_path/"out")
