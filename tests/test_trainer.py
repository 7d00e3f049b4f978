"""Runs that are equal to the last bit, runs that are stopped, and runs that must not begin."""
import dataclasses, hashlib, json, math, shutil, signal, threading
from contextlib import contextmanager

import numpy as np
import pytest
import torch

import croissant.order as order
import croissant.trainer as trainer
from croissant.bits_per_byte import validation_stream
from croissant.checkpoint import load_checkpoint, save_model
from croissant.model import PRESETS, Llama
from croissant.packing import Shards, toy_shards
from croissant.params import BadInput, from_dict
from croissant.provenance import load_json, load_table
from croissant.tokenizer import toy_tokenizer, train_tokenizer
from croissant.toy import toy_texts
from croissant.tracking import read_metrics
from croissant.train_config import run_identity
from croissant.trainer import Diverged, TrainConfig, asked_to_stop, evaluate_bpb, is_due, is_spike, train

SHAPE = dataclasses.replace(PRESETS["toy"], vocab_size=toy_tokenizer().vocab_size)
CONFIG = TrainConfig(max_steps=8, batch_size=4, seq_len=32, warmup_steps=2, eval_tokens=200, state_interval=3, seed=911)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    return toy_tokenizer().save(tmp_path_factory.mktemp("tokenizer"))


@pytest.fixture(scope="module")
def finished(tmp_path_factory, tokenizer):
    out = tmp_path_factory.mktemp("runs")/"whole"
    return out, train(SHAPE, toy_shards(), tokenizer, CONFIG, out, progress=False)


@pytest.fixture(scope="module")
def begun(tmp_path_factory, tokenizer):
    "A run that was interrupted after its second step; to be read, not changed."
    out = tmp_path_factory.mktemp("runs")/"begun"
    with pytest.MonkeyPatch.context() as m:
        interrupt(m, 2)
        with pytest.raises(KeyboardInterrupt): train(SHAPE, toy_shards(), tokenizer, CONFIG, out, progress=False)
    return out


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory, tokenizer, finished):
    "The folder of a whole run for each numeric type and optimiser, made when it is first asked for."
    made = {CONFIG: finished[0]}
    def find(config):
        if config not in made:
            made[config] = tmp_path_factory.mktemp("runs")/"whole"
            train(SHAPE, toy_shards(), tokenizer, config, made[config], progress=False)
        return made[config]
    return find


def weights(out): return (out/"checkpoint/model.safetensors").read_bytes()


def interrupt(monkeypatch, at):
    "Press Ctrl-C during step `at`."
    real = order.batch
    def pressed(shards, step, *rest):
        if step == at - 1: signal.raise_signal(signal.SIGINT)
        return real(shards, step, *rest)
    monkeypatch.setattr(order, "batch", pressed)


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
def test_interrupted_equals_uninterrupted(uninterrupted, tokenizer, tmp_path, monkeypatch, dtype, optimizer, at):
    config = dataclasses.replace(CONFIG, dtype=dtype, optimizer=optimizer)
    whole = uninterrupted(config)
    with monkeypatch.context() as m:
        interrupt(m, at)
        with pytest.raises(KeyboardInterrupt, match=f"after step {at} of 8.*resume=True"): train(SHAPE, toy_shards(), tokenizer, config, tmp_path/"cut", progress=False)
    assert not (tmp_path/"cut/checkpoint").exists()
    with pytest.raises(BadInput, match="unfinished run"): train(SHAPE, toy_shards(), tokenizer, config, tmp_path/"cut", progress=False)
    train(SHAPE, toy_shards(), tokenizer, config, tmp_path/"cut", resume=True, progress=False)
    assert weights(tmp_path/"cut") == weights(whole)
    assert (tmp_path/"cut/training_curve.csv").read_bytes() == (whole/"training_curve.csv").read_bytes()
    assert not (tmp_path/"cut/state").exists()


@contextmanager
def dying_at(step, monkeypatch):
    "A run inside dies while it reads this step's batch."
    real = order.batch
    def dies(shards, at, *rest):
        if at == step: raise MemoryError("killed")
        return real(shards, at, *rest)
    with monkeypatch.context() as m:
        m.setattr(order, "batch", dies)
        with pytest.raises(MemoryError): yield


def test_killed_without_warning_continues_from_the_last_state(finished, tokenizer, tmp_path, monkeypatch):
    with dying_at(7, monkeypatch): train(SHAPE, toy_shards(), tokenizer, CONFIG, tmp_path/"run", progress=False)
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
def test_other_settings_are_not_resumed(tokenizer, begun, change):
    with pytest.raises(BadInput, match=f"train.{next(iter(change))} ="):
        train(SHAPE, toy_shards(), tokenizer, dataclasses.replace(CONFIG, **change), begun, resume=True, progress=False)
    torch.set_num_threads(1)


def test_nan_stops_and_names_the_state(tokenizer, tmp_path, monkeypatch):
    real, calls = Llama.loss, []
    def loss(self, x, y):
        calls.append(1)
        return real(self, x, y)*(float("nan") if len(calls) == 5 else 1.)
    monkeypatch.setattr(Llama, "loss", loss)
    with pytest.raises(Diverged, match=r"step 5: loss nan.*step-00000003"): train(SHAPE, toy_shards(), tokenizer, CONFIG, tmp_path, progress=False)
    assert not (tmp_path/"checkpoint").exists()


def test_weights_lost_in_the_last_step_are_not_published(tokenizer, tmp_path):
    "No later loss could tell; the last evaluation does."
    config = dataclasses.replace(CONFIG, max_steps=1, warmup_steps=0, learning_rate=1e20, min_learning_rate=1e20)
    with pytest.raises(Diverged, match="step 1: the bits per byte of .*fr.* are no finite number"): train(SHAPE, toy_shards(), tokenizer, config, tmp_path, progress=False)
    assert not (tmp_path/"checkpoint").exists() and not (tmp_path/"record.json").exists()


def test_a_setting_of_many_digits_is_the_same_setting_later(tokenizer, tmp_path):
    config = dataclasses.replace(CONFIG, max_steps=1, warmup_steps=0, min_learning_rate=.1*.1*.1)
    assert len(repr(config.min_learning_rate)) > 12
    record = train(SHAPE, toy_shards(), tokenizer, config, tmp_path, progress=False)
    assert train(SHAPE, toy_shards(), tokenizer, config, tmp_path, resume=True, progress=False) == record


def test_published_steps_and_record(tokenizer, tmp_path):
    config = dataclasses.replace(CONFIG, publish=True, eval_interval=4, max_steps=5)
    record = train(SHAPE, toy_shards(), tokenizer, config, tmp_path, keep_state=True)
    assert sorted(p.name for p in (tmp_path/"steps").iterdir()) == ["step-0", "step-1", "step-2", "step-4"]
    model, own = load_checkpoint(tmp_path/"steps/step-4")
    assert own.fingerprint == toy_tokenizer().fingerprint and (tmp_path/"state").is_dir()
    model, _ = load_checkpoint(tmp_path/"checkpoint", torch.bfloat16)
    found = evaluate_bpb(model, Shards(toy_shards(), "validation"), own, 32, 4, config.eval_tokens)
    assert {p: round(v["bpb"], 3) for p, v in found.items()} == pytest.approx({p: round(record["last"][f"bpb_{p}"], 3) for p in found}, abs=.02)
    assert [r["step"] for r in load_table((tmp_path/"validation_curve.csv").resolve())] == [0, 4, 5]
    text = (tmp_path/"record.json").read_text()
    assert json.loads(text)["tokens_seen"] == 5*4*32 and "max_minutes" not in text and "second" not in text


@pytest.mark.parametrize("wrong", [{"max_steps": 0}, {"batch_size": -1}, {"seq_len": 0}, {"learning_rate": 0.}, {"learning_rate": float("nan")}, {"dtype": "float16"}, {"optimizer": "sgd"},
    {"warmup_steps": 8, "max_steps": 8}, {"beta2": 1.}, {"min_learning_rate": 1.}, {"grad_clip": -1.}, {"batch_size": 2.5}, {"batchsize": 4}, {"eval_tokens": 1}, {"seed": -1}, {"micro_batch_size": 3}, {"schedule": "linear"}, {"sampling": "shuffled"}, {"decay_share": 0.}, {"keep_states": 0}, {"z_loss": -1.}, {"spike_sigmas": float("inf")},
    {"max_tokens": -1}, {"loader_workers": -1}, {"embedding_decay": -.1}, {"deterministic": 1}])
def test_wrong_settings(wrong):
    with pytest.raises(BadInput, match=next(iter(wrong)).split("_")[0]): from_dict(TrainConfig, {"max_steps": 8, **wrong}, "test")


def test_settings_that_do_not_fit_the_model_or_the_data(tokenizer, tmp_path):
    with pytest.raises(BadInput, match="seq_len 512"): train(SHAPE, toy_shards(), tokenizer, dataclasses.replace(CONFIG, seq_len=512), tmp_path/"a")
    with pytest.raises(BadInput, match="warmup_steps 2 leave nothing of the 1 steps"): dataclasses.replace(CONFIG, max_tokens=1)
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


# What a run may be asked beyond the plain recipe

def losses(tokenizer, out, **more):
    return train(SHAPE, toy_shards(), tokenizer, dataclasses.replace(CONFIG, **more), out, progress=False)


def close(a, b): return max(abs(x["loss"] - y["loss"]) for x, y in zip(a["losses"], b["losses"], strict=True))


@pytest.mark.parametrize("dtype,near", [("float32", 1e-6), ("bfloat16", 5e-3)])
def test_accumulated_is_the_big_batch(tokenizer, tmp_path, dtype, near):
    found = []
    for micro in (0, 1, 2):
        run = trainer._start(SHAPE, toy_shards(), tokenizer, dataclasses.replace(CONFIG, dtype=dtype, micro_batch_size=micro), tmp_path)
        gradients, loss = trainer._gradients(run, torch.from_numpy(run.order.batch(0, 4)), trainer._objective(run))
        found.append((torch.cat([g.flatten() for g in gradients]).clone(), loss))
    for gradient, loss in found[1:]:
        assert (gradient - found[0][0]).abs().max() < near and abs(loss - found[0][1]) < near and gradient.dtype == torch.float32
    assert found[0][0].abs().max() > 20*near


def test_accumulated_runs_end_alike(finished, tokenizer, tmp_path):
    pieces = losses(tokenizer, tmp_path/"run", micro_batch_size=2)
    assert close(pieces, finished[1]) < 1e-3   # Adam's first steps have the sign of the gradient: tiny ones may turn
    assert pieces["identity"]["train.micro_batch_size"] == 2 and "train.micro_batch_size" not in finished[1]["identity"]


@pytest.mark.parametrize("more", [{"recompute": True}, {"loader_workers": 2}, {"deterministic": False}, {"keep_states": 1, "keep_every": 4}], ids=str)
def test_these_change_no_bit(finished, tokenizer, tmp_path, more):
    losses(tokenizer, tmp_path/"run", **more)
    assert weights(tmp_path/"run") == weights(finished[0])
    assert torch.are_deterministic_algorithms_enabled() == more.get("deterministic", True)


@pytest.mark.parametrize("more", [{"micro_batch_size": 2}, {"z_loss": 1e-2}, {"schedule": "wsd"}, *({"schedule": "wsd", "decay_share": s, "tail_mixture": "fr=1,en=3", "loader_workers": n} for s, n in ((.25, 0), (.5, 2))),
                                  pytest.param({"schedule": "wsd", "decay_share": .375, "tail_mixture": "fr=1,en=3", "loader_workers": 0}, marks=pytest.mark.exhaustive),
                                  {"spike_sigmas": 6.}, {"embedding_decay": 0.}, {"vector_decay": .5}, {"dtype": "bfloat16", "micro_batch_size": 2},
                                  {"loader_workers": 1}, pytest.param({"sampling": "without_replacement"}, marks=pytest.mark.skipif(not __import__("importlib.util").util.find_spec("grain"), reason="grain is not installed"))], ids=str)
def test_resumed_is_uninterrupted_with_everything(finished, tokenizer, tmp_path, monkeypatch, more):
    whole = losses(tokenizer, tmp_path/"whole", **more)
    if "tail_mixture" in more or "loader_workers" not in more and "spike_sigmas" not in more: assert weights(tmp_path/"whole") != weights(finished[0]), "the setting has no effect"
    real, steps = trainer._advance, []
    def advance(run, *rest):
        real(run, *rest); steps.append(run.step)
        if run.step == 5 and len(steps) == 5: signal.raise_signal(signal.SIGTERM)   # what a scheduler sends
    monkeypatch.setattr(trainer, "_advance", advance)
    with pytest.raises(KeyboardInterrupt, match="after step 5"): losses(tokenizer, tmp_path/"cut", **more)
    assert train(SHAPE, toy_shards(), tokenizer, dataclasses.replace(CONFIG, **more), tmp_path/"cut", resume=True, progress=False) == whole
    assert weights(tmp_path/"cut") == weights(tmp_path/"whole") and steps == list(range(1, 9))


def test_a_run_goes_on_from_a_trained_model(finished, tokenizer, tmp_path, monkeypatch):
    "It starts where that model ended, resumes to the bit, and wants the same shape, tokenizer and first weights."
    more = {"init_from": str(finished[0]/"checkpoint"), "seed": 5, "mixture": "fr=1"}
    whole = losses(tokenizer, tmp_path/"whole", **more)
    assert whole["first"]["bpb_fr"] == pytest.approx(finished[1]["last"]["bpb_fr"], abs=2e-3) and whole["last"]["bpb_fr"] < whole["first"]["bpb_fr"] < losses(tokenizer, tmp_path/"fresh", seed=5)["first"]["bpb_fr"] - .2
    assert whole["identity"]["initial_weights"] == hashlib.sha256(weights(finished[0])).hexdigest() and "initial_weights" not in finished[1]["identity"]
    with monkeypatch.context() as m:
        interrupt(m, 5)
        with pytest.raises(KeyboardInterrupt): losses(tokenizer, tmp_path/"cut", **more)
    shutil.copytree(finished[0]/"checkpoint", tmp_path/"moved")                     # the same weights elsewhere
    assert train(SHAPE, toy_shards(), tokenizer, dataclasses.replace(CONFIG, **more | {"init_from": str(tmp_path/"moved")}), tmp_path/"cut", resume=True, progress=False) == whole
    assert weights(tmp_path/"cut") == weights(tmp_path/"whole")
    with pytest.raises(BadInput, match="begun with initial_weights"): train(SHAPE, toy_shards(), tokenizer, dataclasses.replace(CONFIG, **more | {"init_from": str(tmp_path/"fresh/checkpoint")}), tmp_path/"cut", resume=True, progress=False)
    with pytest.raises(BadInput, match="give the run that shape"): train(dataclasses.replace(SHAPE, num_hidden_layers=1), toy_shards(), tokenizer, dataclasses.replace(CONFIG, **more), tmp_path/"other", progress=False)
    other = train_tokenizer([t[::-1] for t in toy_texts("fr")], SHAPE.vocab_size)
    save_model(Llama(SHAPE), other, tmp_path/"stranger")
    with pytest.raises(BadInput, match="reads with another tokenizer"): losses(tokenizer, tmp_path/"other", init_from=str(tmp_path/"stranger"))


def test_other_numbers_of_readers_continue_a_run(finished, tokenizer, tmp_path, monkeypatch):
    with monkeypatch.context() as m:
        interrupt(m, 3)
        with pytest.raises(KeyboardInterrupt): losses(tokenizer, tmp_path, loader_workers=0)
    train(SHAPE, toy_shards(), tokenizer, dataclasses.replace(CONFIG, loader_workers=2), tmp_path, resume=True, progress=False)
    assert weights(tmp_path) == weights(finished[0])


@pytest.mark.parametrize("max_tokens,steps", [(0, 8), (1, 1), (4*32*5, 5), (4*32*5 + 1, 6), (10**9, 8)])
def test_max_tokens(max_tokens, steps):
    assert dataclasses.replace(CONFIG, max_tokens=max_tokens, warmup_steps=0).total_steps == steps


def test_a_run_of_tokens_ends_on_the_floor(tokenizer, tmp_path):
    record = losses(tokenizer, tmp_path, max_tokens=4*32*5)
    assert record["step"] == 5 and record["tokens_seen"] == 640 and record["losses"][-1]["learning_rate"] == CONFIG.min_learning_rate and record["evaluations"][-1]["step"] == 5


def test_states_that_stay(tokenizer, tmp_path):
    train(SHAPE, toy_shards(), tokenizer, dataclasses.replace(CONFIG, state_interval=1, keep_states=1, keep_every=3), tmp_path, keep_state=True, progress=False)
    assert sorted(p.name for p in (tmp_path/"state").iterdir()) == ["step-00000003", "step-00000006", "step-00000008"]


def test_a_state_of_another_order_is_refused(tokenizer, begun, monkeypatch):
    monkeypatch.setattr(order.DataOrder, "fingerprint", property(lambda self: "another"))
    with pytest.raises(BadInput, match="its step counts batches of another data order"): train(SHAPE, toy_shards(), tokenizer, CONFIG, begun, resume=True, progress=False)


def test_z_loss_pulls_the_level_and_is_not_logged(tokenizer, tmp_path):
    "An untrained model's log-normaliser is far above zero; a strong pull brings it down, and the logged loss starts where it always does."
    plain, pulled = losses(tokenizer, tmp_path/"a"), losses(tokenizer, tmp_path/"b", z_loss=10.)
    assert plain["losses"][0]["loss"] == pytest.approx(pulled["losses"][0]["loss"], abs=1e-5)
    ids = torch.from_numpy(order.batch(Shards(toy_shards()), 99, 8, 32, {"fr": 1.}, 0))[:, :-1]
    with torch.no_grad(): a, b = (load_checkpoint(tmp_path/x/"checkpoint")[0](ids).logsumexp(-1).square().mean() for x in "ab")
    assert b < .9*a


def test_z_loss_gradients_are_those_of_the_formula():
    model = Llama(SHAPE, seed=0)
    ids = torch.randint(SHAPE.vocab_size, (3, 200), generator=torch.Generator().manual_seed(0))   # more rows than a piece has
    def gradients(f):
        model.zero_grad(); f().backward()
        return [p.grad.clone() for p in model.parameters()]
    def formula():
        z = model(ids[:, :-1])
        return torch.nn.functional.cross_entropy(z.flatten(0, 1), ids[:, 1:].flatten()) + .01*z.logsumexp(-1).square().mean()
    ours = gradients(lambda: trainer.z_regularised(model, .01, ids[:, :-1], ids[:, 1:])[1])
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(ours, gradients(formula)))


def test_a_spike_is_skipped_and_recorded(tokenizer, tmp_path, monkeypatch):
    "At step 70 the loss is made a hundred times as large; with the guard the weights do not move then, and the run ends near the one without the accident."
    config = dataclasses.replace(CONFIG, max_steps=76, batch_size=2, seq_len=16, eval_tokens=100, state_interval=20, spike_sigmas=6.)
    calm = train(SHAPE, toy_shards(), tokenizer, config, tmp_path/"calm", progress=False)
    assert [r["skipped"] for r in calm["losses"]] == [0]*76
    real, seen = trainer._gradients, []
    def accident(run, ids, objective):
        found, value = real(run, ids, objective)
        seen.append(run.step)
        if run.step == 70: torch._foreach_mul_(found, 100.); value *= 100
        return found, value
    with monkeypatch.context() as m:
        m.setattr(trainer, "_gradients", accident)
        hit = train(SHAPE, toy_shards(), tokenizer, config, tmp_path/"hit", progress=False)
    assert [r["step"] for r in hit["losses"] if r["skipped"]] == [71] and hit["losses"][:70] == calm["losses"][:70] and hit["step"] == 76
    assert [e for e in read_metrics(tmp_path/"hit/metrics.jsonl") if e["kind"] == "skipped"][0]["step"] == 71
    def disaster(run, ids, objective):
        found, value = real(run, ids, objective)
        return found, value*(100 if run.step >= 64 else 1)
    monkeypatch.setattr(trainer, "_gradients", disaster)
    with pytest.raises(Diverged, match="step 75: .*10 steps before it were skipped.*last good state is"): train(SHAPE, toy_shards(), tokenizer, config, tmp_path/"lost", progress=False)


def test_spikes():
    history = [{"loss": 2 + .1*(-1)**k, "gradient_norm": 1.} for k in range(200)]
    assert is_spike(history, 2.7, 1., 6.) and not is_spike(history, 2.5, 1., 6.)
    outliers = history + [{"loss": 50., "gradient_norm": 9., "skipped": 1}]*60
    assert is_spike(outliers, 2.7, 1., 6.)   # what was skipped teaches nothing
    assert not is_spike([], 99., 99., 6.) and not is_spike(outliers, 99., 99., 0.)


def test_the_diary_of_a_run_that_was_killed_has_every_step_once(tokenizer, tmp_path, monkeypatch):
    with dying_at(7, monkeypatch): losses(tokenizer, tmp_path)
    assert [e["step"] for e in read_metrics(tmp_path/"metrics.jsonl") if e["kind"] == "step"] == [1, 2, 3, 4, 5, 6, 7]
    record = train(SHAPE, toy_shards(), tokenizer, CONFIG, tmp_path, resume=True, progress=False)
    diary = [e for e in read_metrics(tmp_path/"metrics.jsonl") if e["kind"] == "step"]
    assert [(e["step"], e["loss"]) for e in diary] == [(r["step"], r["loss"]) for r in record["losses"]]
    assert all(e["tokens_per_second"] > 0 and 0 < e["bpb"] < 12 for e in diary)


def test_bits_per_byte_of_a_batch_fall_like_the_loss(finished):
    diary = [e for e in read_metrics(finished[0]/"metrics.jsonl") if e["kind"] == "step"]
    assert diary[-1]["bpb"] < diary[0]["bpb"] and all(1 < e["loss"]/math.log(2)/e["bpb"] < 4 for e in diary)   # bytes per token


def test_trackers_hear_everything_and_are_closed(tokenizer, tmp_path, capsys):
    class Ear:
        heard, closed = [], False
        def log(self, event): self.heard.append((event["kind"], event["step"]))
        def close(self): self.closed = True
    ear = Ear()
    train(SHAPE, toy_shards(), tokenizer, dataclasses.replace(CONFIG, max_steps=4, publish=True), tmp_path, trackers=[ear])
    assert ear.closed and {("evaluation", 0), ("checkpoint", 2), ("state", 3), ("step", 4), ("evaluation", 4)} <= set(ear.heard)
    assert "MFU" in capsys.readouterr().err


def test_tensorboard_is_asked_for_by_name(tokenizer, tmp_path, monkeypatch):
    import sys
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(BadInput, match="pip install tensorboard"): losses(tokenizer, tmp_path/"run", tensorboard=True)
    assert not (tmp_path/"run").exists()


def test_settings_at_rest_leave_no_trace_in_the_identity():
    identity = run_identity(CONFIG, SHAPE)
    assert set(identity) == {f"train.{k}" for k in OLD} | {f"model.{f.name}" for f in dataclasses.fields(SHAPE)}
    for more in ({"max_tokens": 5*4*32}, {"micro_batch_size": 2}, {"schedule": "wsd"}, {"z_loss": 1e-4}, {"spike_sigmas": 6.}, {"sampling": "without_replacement"}, {"deterministic": False}, {"recompute": True},
                 {"embedding_decay": 0.}, {"vector_decay": .1}):
        assert run_identity(dataclasses.replace(CONFIG, **more), SHAPE) != identity, more
    for more in ({"max_minutes": 1.}, {"keep_states": 5}, {"keep_every": 5}, {"loader_workers": 2}, {"tensorboard": True}, {"decay_share": .5}):
        assert run_identity(dataclasses.replace(CONFIG, **more), SHAPE) == identity, more
    for more in ({"decay_share": .5, "schedule": "wsd"}, ): assert run_identity(dataclasses.replace(CONFIG, **more), SHAPE) != run_identity(dataclasses.replace(CONFIG, schedule="wsd"), SHAPE)


OLD = ("max_steps", "batch_size", "seq_len", "optimizer", "learning_rate", "min_learning_rate", "warmup_steps", "weight_decay", "beta1", "beta2", "grad_clip", "dtype", "mixture", "eval_interval", "eval_tokens",
       "publish", "checkpoint_interval", "state_interval", "seed", "threads", "compile")   # the settings of the version that made the released model


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_step_left_out_leaves_nothing_for_the_next(tokenizer, tmp_path, monkeypatch, dtype):
    "The weights stay as they were, and the next gradient is not added to the one that was refused."
    config, seen, real = dataclasses.replace(CONFIG, max_steps=3, warmup_steps=0, spike_sigmas=9., dtype=dtype, micro_batch_size=0), [], trainer._gradients
    def watched(run, *rest):
        assert all(p.grad is None for p in (*run.weights.working, *run.weights.masters))
        seen.append(run.step); return real(run, *rest)
    monkeypatch.setattr(trainer, "_gradients", watched)
    monkeypatch.setattr(trainer, "is_spike", lambda history, *rest: len(history) == 1)
    record = train(SHAPE, toy_shards(), tokenizer, config, tmp_path, progress=False)
    assert seen == [0, 1, 2] and [r["skipped"] for r in record["losses"]] == [0, 1, 0]


@pytest.mark.parametrize("lost", [float("nan"), float("inf")])
def test_bits_that_are_no_number_end_a_run(tokenizer, tmp_path, monkeypatch, lost):
    real = trainer.evaluate_bpb
    def found(*a): return {p: v | {"bpb": lost if p == "en" else v["bpb"]} for p, v in real(*a).items()}
    monkeypatch.setattr(trainer, "evaluate_bpb", found)
    with pytest.raises(Diverged, match="step 0: the bits per byte of en are no finite"): train(SHAPE, toy_shards(), tokenizer, CONFIG, tmp_path, progress=False)


def test_a_tail_reads_another_mixture_and_is_counted(tokenizer, tmp_path):
    more = {"schedule": "wsd", "decay_share": .25, "mixture": "fr=1,en=1"}
    plain, tail = losses(tokenizer, tmp_path/"plain", **more), losses(tokenizer, tmp_path/"tail", **more, tail_mixture="fr=1")
    assert [a["loss"] == b["loss"] for a, b in zip(plain["losses"], tail["losses"])] == [True]*6 + [False]*2   # 8 steps, a quarter of them down
    assert tail["shares"] == {"fr": .625, "en": .375} and plain["shares"] == {"fr": .5, "en": .5}
    assert "train.tail_mixture" not in plain["identity"] and tail["identity"]["train.tail_mixture"] == "fr=1"
    with pytest.raises(BadInput, match="schedule cosine has no tail"): dataclasses.replace(CONFIG, tail_mixture="fr=1")
    with pytest.raises(BadInput, match="would begin its epoch again"): dataclasses.replace(CONFIG, schedule="wsd", tail_mixture="fr=1", sampling="without_replacement")


def test_a_compiled_run_asks_for_its_compiler_first(tokenizer, tmp_path, monkeypatch):
    from torch._inductor import config
    monkeypatch.setattr(config.cpp, "cxx", ("no-such-compiler",))
    monkeypatch.setattr(trainer, "Shards", lambda *a: pytest.fail("read before the compiler was asked for"))
    with pytest.raises(BadInput, match="no C\\+\\+ compiler.*install one"): train(SHAPE, toy_shards(), tokenizer, dataclasses.replace(CONFIG, compile=True), tmp_path, progress=False)


def test_a_record_keeps_every_digit(tokenizer, tmp_path):
    rate = 1.2345678901234567e-21   # a smaller one than twenty decimals can hold
    record = losses(tokenizer, tmp_path, min_learning_rate=rate)
    assert load_json((tmp_path/"record.json").resolve())["identity"]["train.min_learning_rate"] == rate == record["identity"]["train.min_learning_rate"]
    assert train(SHAPE, toy_shards(), tokenizer, dataclasses.replace(CONFIG, min_learning_rate=rate), tmp_path, resume=True, progress=False) == record
