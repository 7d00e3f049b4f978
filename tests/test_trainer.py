"""Runs that are equal to the last bit, runs that are stopped, and runs that must not begin."""
import dataclasses, json, math, shutil, signal, threading

import numpy as np
import pytest
import torch

import croissant.trainer as trainer
from croissant.checkpoint import load_checkpoint
from croissant.model import PRESETS, Llama
from croissant.packing import Shards, toy_shards
from croissant.params import BadInput, from_dict
from croissant.provenance import load_table
from croissant.tokenizer import toy_tokenizer, train_tokenizer
from croissant.toy import toy_texts
from croissant.trainer import Diverged, TrainConfig, asked_to_stop, evaluate_bpb, is_due, train, validation_stream

SHAPE = dataclasses.replace(PRESETS["toy"], vocab_size=toy_tokenizer().vocab_size)
CONFIG = TrainConfig(max_steps=8, batch_size=4, seq_len=32, warmup_steps=2, eval_tokens=1000, state_interval=3, seed=911)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    return toy_tokenizer().save(tmp_path_factory.mktemp("tokenizer"))


@pytest.fixture(scope="module")
def finished(tmp_path_factory, tokenizer):
    out = tmp_path_factory.mktemp("runs")/"whole"
    return out, train(SHAPE, toy_shards(), tokenizer, CONFIG, out, progress=False)


def weights(out): return (out/"checkpoint/model.safetensors").read_bytes()


def interrupt(monkeypatch, at):
    "Press Ctrl-C during step `at`."
    real = trainer.batch
    def pressed(shards, step, *rest):
        if step == at - 1: signal.raise_signal(signal.SIGINT)
        return real(shards, step, *rest)
    monkeypatch.setattr(trainer, "batch", pressed)


def test_golden_losses(finished):
    losses = [r["loss"] for r in finished[1]["losses"]]
    golden = [6.421164, 6.308979, 6.141909, 6.013495, 5.798119, 5.532766]
    assert losses[:len(golden)] == pytest.approx(golden, abs=1e-4)
    assert losses[0] == pytest.approx(math.log(SHAPE.vocab_size), abs=.1)   # an untrained model guesses evenly


def test_two_runs_are_equal(finished, tokenizer, tmp_path):
    train(SHAPE, toy_shards(), tokenizer, CONFIG, tmp_path/"again", progress=False)
    for name in ("checkpoint/model.safetensors", "record.json", "training_curve.csv", "validation_curve.csv", "checkpoint/manifest.json"):
        assert (finished[0]/name).read_bytes() == (tmp_path/"again"/name).read_bytes(), name


@pytest.mark.parametrize("dtype,optimizer", [("float32", "adamw"), ("bfloat16", "adamw"), ("bfloat16", "muon")])
@pytest.mark.parametrize("at", [1, 5])
def test_interrupted_equals_uninterrupted(finished, tokenizer, tmp_path, monkeypatch, dtype, optimizer, at):
    config, whole = dataclasses.replace(CONFIG, dtype=dtype, optimizer=optimizer), finished[0]
    if config != CONFIG:
        whole = tmp_path/"whole"
        train(SHAPE, toy_shards(), tokenizer, config, whole, progress=False)
    with monkeypatch.context() as m:
        interrupt(m, at)
        with pytest.raises(KeyboardInterrupt, match=f"after step {at} of 8.*resume=True"): train(SHAPE, toy_shards(), tokenizer, config, tmp_path/"cut", progress=False)
    assert not (tmp_path/"cut/checkpoint").exists()
    with pytest.raises(BadInput, match="unfinished run"): train(SHAPE, toy_shards(), tokenizer, config, tmp_path/"cut", progress=False)
    train(SHAPE, toy_shards(), tokenizer, config, tmp_path/"cut", resume=True, progress=False)
    assert weights(tmp_path/"cut") == weights(whole)
    assert (tmp_path/"cut/training_curve.csv").read_bytes() == (whole/"training_curve.csv").read_bytes()
    assert not (tmp_path/"cut/state").exists()


def test_killed_without_warning_continues_from_the_last_state(finished, tokenizer, tmp_path, monkeypatch):
    real = trainer.batch
    def dies(shards, step, *rest):
        if step == 7: raise MemoryError("killed")
        return real(shards, step, *rest)
    with monkeypatch.context() as m:
        m.setattr(trainer, "batch", dies)
        with pytest.raises(MemoryError): train(SHAPE, toy_shards(), tokenizer, CONFIG, tmp_path/"run", progress=False)
    assert sorted(p.name for p in (tmp_path/"run/state").iterdir()) == ["step-00000003", "step-00000006"]
    train(SHAPE, toy_shards(), tokenizer, CONFIG, tmp_path/"run", resume=True, progress=False)
    assert weights(tmp_path/"run") == weights(finished[0])


def test_pause_after_max_minutes(finished, tokenizer, tmp_path):
    config, n = dataclasses.replace(CONFIG, max_minutes=1e-9), 0
    while not (record := train(SHAPE, toy_shards(), tokenizer, config, tmp_path/"run", resume=True, progress=False))["finished"]:
        n += 1
        assert record["step"] == n
    assert n == CONFIG.max_steps - 1 and weights(tmp_path/"run") == weights(finished[0])   # the time limit is no part of a run's identity


def test_ended_run_gives_its_record_and_is_not_overwritten(finished, tokenizer):
    out, record = finished
    before = weights(out)
    with pytest.raises(BadInput, match="has ended"): train(SHAPE, toy_shards(), tokenizer, CONFIG, out, progress=False)
    assert train(SHAPE, toy_shards(), tokenizer, CONFIG, out, resume=True, progress=False) == record
    with pytest.raises(BadInput, match="train.seed"): train(SHAPE, toy_shards(), tokenizer, dataclasses.replace(CONFIG, seed=1), out, resume=True, progress=False)
    assert weights(out) == before


def test_a_damaged_shard_is_not_trained_on(tokenizer, tmp_path):
    shutil.copytree(toy_shards(), tmp_path/"shards")
    raw = bytearray((tmp_path/"shards/train/fr.bin").read_bytes()); raw[100] ^= 1
    (tmp_path/"shards/train/fr.bin").write_bytes(raw)
    with pytest.raises(BadInput, match="fr.bin: SHA-256"): train(SHAPE, tmp_path/"shards", tokenizer, CONFIG, tmp_path/"run", progress=False)


@pytest.mark.parametrize("change", [{"seed": 1}, {"learning_rate": .01}, {"dtype": "bfloat16"}, {"optimizer": "muon"}, {"mixture": "equal"}, {"threads": 2}])
def test_other_settings_are_not_resumed(tokenizer, tmp_path, monkeypatch, change):
    with monkeypatch.context() as m:
        interrupt(m, 2)
        with pytest.raises(KeyboardInterrupt): train(SHAPE, toy_shards(), tokenizer, CONFIG, tmp_path, progress=False)
    with pytest.raises(BadInput, match=f"train.{next(iter(change))} ="):
        train(SHAPE, toy_shards(), tokenizer, dataclasses.replace(CONFIG, **change), tmp_path, resume=True, progress=False)
    torch.set_num_threads(1)


def test_nan_stops_and_names_the_state(tokenizer, tmp_path, monkeypatch):
    real, calls = Llama.loss, []
    def loss(self, x, y):
        calls.append(1)
        return real(self, x, y)*(float("nan") if len(calls) == 5 else 1.)
    monkeypatch.setattr(Llama, "loss", loss)
    with pytest.raises(Diverged, match=r"step 5: loss nan.*step-00000003"): train(SHAPE, toy_shards(), tokenizer, CONFIG, tmp_path, progress=False)
    assert not (tmp_path/"checkpoint").exists()


def test_published_steps_and_record(tokenizer, tmp_path):
    config = dataclasses.replace(CONFIG, publish=True, eval_interval=4, max_steps=5)
    record = train(SHAPE, toy_shards(), tokenizer, config, tmp_path, keep_state=True)
    assert sorted(p.name for p in (tmp_path/"steps").iterdir()) == ["step-0", "step-1", "step-2", "step-4"]
    model, own = load_checkpoint(tmp_path/"steps/step-4")
    assert own.fingerprint == toy_tokenizer().fingerprint and (tmp_path/"state").is_dir()
    model, _ = load_checkpoint(tmp_path/"checkpoint", torch.bfloat16)
    found = evaluate_bpb(model, Shards(toy_shards(), "validation"), own, 32, 4, 1000)
    assert {p: round(v["bpb"], 3) for p, v in found.items()} == pytest.approx({p: round(record["last"][f"bpb_{p}"], 3) for p in found}, abs=.02)
    assert [r["step"] for r in load_table((tmp_path/"validation_curve.csv").resolve())] == [0, 4, 5]
    text = (tmp_path/"record.json").read_text()
    assert json.loads(text)["tokens_seen"] == 5*4*32 and "max_minutes" not in text and "second" not in text


@pytest.mark.parametrize("wrong", [{"max_steps": 0}, {"batch_size": -1}, {"seq_len": 0}, {"learning_rate": 0.}, {"learning_rate": float("nan")}, {"dtype": "float16"}, {"optimizer": "sgd"},
    {"warmup_steps": 8, "max_steps": 8}, {"beta2": 1.}, {"min_learning_rate": 1.}, {"grad_clip": -1.}, {"batch_size": 2.5}, {"batchsize": 4}, {"eval_tokens": 1}, {"seed": -1}])
def test_wrong_settings(wrong):
    with pytest.raises(BadInput, match=next(iter(wrong)).split("_")[0]): from_dict(TrainConfig, {"max_steps": 8, **wrong}, "test")


def test_settings_that_do_not_fit_the_model_or_the_data(tokenizer, tmp_path):
    with pytest.raises(BadInput, match="seq_len 512"): train(SHAPE, toy_shards(), tokenizer, dataclasses.replace(CONFIG, seq_len=512), tmp_path/"a")
    with pytest.raises(BadInput, match="vocab_size"): train(PRESETS["toy"], toy_shards(), tokenizer, CONFIG, tmp_path/"b")
    with pytest.raises(BadInput, match="no mixture"): train(SHAPE, toy_shards(), tokenizer, dataclasses.replace(CONFIG, mixture="breton"), tmp_path/"c")
    other = train_tokenizer(toy_texts("fr"), SHAPE.vocab_size)
    with pytest.raises(BadInput, match="made with tokenizer"): train(SHAPE, toy_shards(), other.save(tmp_path/"other"), CONFIG, tmp_path/"d")
    assert not any((tmp_path/x).exists() for x in "abcd")


def test_bits_count_the_bytes_of_the_text():
    validation, own = Shards(toy_shards(), "validation"), toy_tokenizer()
    model = Llama(SHAPE, seed=0)
    whole = evaluate_bpb(model, validation, own, 32, max_tokens=10**9)
    for part, v in whole.items():
        assert v["bytes"] == validation.num_bytes(part) and v["tokens"] == validation.num_tokens(part) - 2*validation.num_documents(part)
        assert v["bpb"] == pytest.approx(v["loss"]*v["tokens"]/math.log(2)/v["bytes"])
    some = evaluate_bpb(model, validation, own, 32, max_tokens=300)
    stream = validation_stream(validation.tokens("fr"), own.bos_id, 300)
    assert some["fr"]["bytes"] == len(own.decode(stream.tolist()).encode()) and len(stream) == 300
    small = evaluate_bpb(model, validation, own, 32, batch_size=3, max_tokens=300)
    assert small["fr"]["bpb"] == pytest.approx(some["fr"]["bpb"], abs=1e-6)


def test_stream_limits():
    flow = np.array([1, 7, 7, 7, 2, 1, 7, 2], dtype=np.uint16)
    assert len(validation_stream(flow, 1, 100)) == 8 and validation_stream(flow, 1, 7).tolist() == [1, 7, 7, 7, 2, 1, 7] and len(validation_stream(flow, 1, 3)) == 3
    with pytest.raises(BadInput, match="nothing to evaluate"): validation_stream(flow[:1], 1, 5)


def test_second_interrupt_stops_at_once_and_other_threads_are_left_alone():
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt), asked_to_stop():
        signal.raise_signal(signal.SIGINT); signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) == before
    seen = []
    def work():
        with asked_to_stop() as asked: seen.append(asked.is_set())
    thread = threading.Thread(target=work); thread.start(); thread.join()
    assert seen == [False]


def test_validation_comes_from_all_over_the_file():
    flow = np.concatenate([[1, 10 + d, 2] for d in range(1000)]).astype(np.uint16)
    chosen = validation_stream(flow, 1, 60)[1::3] - 10
    assert len(chosen) == 20 and list(chosen) == sorted(chosen)
    assert np.diff(np.concatenate([[0], chosen, [1000]])).max() < 2 * 1000 / 20   # no gap of two shares


def test_due_at_multiples(): assert [s for s in range(10) if is_due(s, 3)] == [0, 3, 6, 9]
