"""Bad days, many of them: processes killed while they save, bits that flip, files that change places, disks that are full.

`CROISSANT_KILLS=40 python -m pytest tests/test_crash.py` kills more often than the suite has time for."""
import json
import os
import random
import shutil
import subprocess
import sys

import pytest
import torch
from conftest import EXHAUSTIVE

from croissant import checkpoint
from croissant.checkpoint import check_state, latest_state, load_checkpoint, load_model, load_state, save_model, save_state
from croissant.model import toy_model
from croissant.params import BadInput
from croissant.tokenizer import toy_tokenizer

KILLS = int(os.environ.get("CROISSANT_KILLS", 6 if EXHAUSTIVE else 3))

# A process of its own, with one thread, forks a child for every trial: Python and torch are imported once.
SAVING = """
import os, random, signal, sys, time, warnings
from pathlib import Path
import torch
from croissant.checkpoint import latest_state, load_state, retain_states, save_state
torch.set_num_threads(1); warnings.simplefilter("ignore")
top, kills, chance, said = Path(sys.argv[1]), int(sys.argv[2]), random.Random(7), []
def state(step): return {f"t{i}": torch.full((1 << 16,), float(step*100 + i)) for i in range(8)}   # two megabytes
for trial in range(kills):
    here = top/str(trial); here.mkdir()
    child = os.fork()
    if child == 0:
        step = 0
        while True:
            step += 1
            save_state(here/f"step-{step:06d}", state(step), {"step": step})
            with open(here/"done.new", "w") as f: f.write(str(step))
            os.replace(here/"done.new", here/"done")
            retain_states(here, keep=2)
    while not (here/"done").exists(): time.sleep(.005)
    time.sleep(chance.uniform(0, .25))
    os.kill(child, signal.SIGKILL); os.waitpid(child, 0)
    acknowledged, last = int((here/"done").read_text()), latest_state(here)
    assert last is not None, "every state is lost"
    tensors, facts = load_state(last)
    assert facts["step"] >= acknowledged, f"step {acknowledged} was acknowledged, {facts['step']} is the newest"
    assert all((v == facts["step"]*100 + int(k[1:])).all() for k, v in tensors.items()), "a mix of two steps"
    said.append(len(list(here.glob("*.partial"))))
print("traces", sum(said))
"""

TRAINING = """
import json, os, random, signal, sys, time, warnings
from dataclasses import replace
from pathlib import Path
import torch
from croissant.model import PRESETS
from croissant.trainer import TrainConfig, train
from croissant.provenance import load_json
torch.set_num_threads(1); warnings.simplefilter("ignore")
top, kills, extra, chance = Path(sys.argv[1]), int(sys.argv[2]), json.loads(sys.argv[3]), random.Random(11)
tokenizer, shards = top/"tokenizer", top/"shards"
shape = replace(PRESETS["toy"], vocab_size=load_json(tokenizer/"facts.json")["pieces"])
config = TrainConfig(max_steps=24, batch_size=4, seq_len=16, warmup_steps=2, eval_tokens=200, state_interval=2, publish=True, seed=911, **extra)
def run(name): return train(shape, shards, tokenizer, config, top/name, resume=True, progress=False)
begun = time.monotonic(); run("whole"); length = time.monotonic() - begun
def weights(name): return (top/name/"checkpoint/model.safetensors").read_bytes(), (top/name/"training_curve.csv").read_bytes()
killed, trial, resumed = 0, 0, 0
while killed < kills:
    name, trial = f"run{trial}", trial + 1
    while not (top/name/"record.json").exists():
        resumed += bool(list((top/name/"state").glob("step-????????"))) if (top/name/"state").exists() else 0
        child = os.fork()
        if child == 0: run(name); os._exit(0)
        time.sleep(chance.uniform(0, .7*length))
        if killed < kills: os.kill(child, signal.SIGKILL); killed += 1
        status = os.waitpid(child, 0)[1]
        assert os.WIFSIGNALED(status) or status == 0, f"the run failed by itself: {status}"
    assert weights(name) == weights("whole"), f"{name} differs from the run that was left alone"
print("killed", killed, "runs", trial, "resumed", resumed)
"""


def alone(code, *arguments):
    done = subprocess.run([sys.executable, "-c", code, *map(str, arguments)], capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"}, timeout=1800)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout.split()


def test_killed_while_saving(tmp_path):
    assert alone(SAVING, tmp_path, KILLS)[0] == "traces"


@pytest.mark.parametrize("extra", [{}, pytest.param({"dtype": "bfloat16", "optimizer": "muon"}, marks=pytest.mark.exhaustive)], ids=["float32", "bfloat16-muon"])
def test_killed_while_training(tmp_path, extra):
    from croissant.packing import toy_shards
    toy_tokenizer().save(tmp_path/"tokenizer"); shutil.copytree(toy_shards(), tmp_path/"shards")
    (tmp_path/"tokenizer/facts.json").write_text(json.dumps({"pieces": toy_tokenizer().vocab_size}))
    said = alone(TRAINING, tmp_path, KILLS, json.dumps(extra))
    assert int(said[1]) == KILLS


@pytest.fixture(scope="module")
def state(tmp_path_factory):
    return save_state(tmp_path_factory.mktemp("state")/"step-7", {k: torch.randn(7, 5, generator=torch.Generator().manual_seed(3)) for k in ("master.a", "exp_avg.a")}, {"step": 7, "losses": [1/3]})


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return save_model(toy_model(toy_tokenizer().vocab_size), toy_tokenizer(), tmp_path_factory.mktemp("model")/"m", step=7)


def flips(folder, n, names=None):
    "Flip one bit after another, evenly drawn over the bytes of all files; each is mended before the next."
    chance = random.Random(5)
    files = [p for p in sorted(folder.iterdir()) if not names or p.name in names]
    for _ in range(n):
        path = chance.choices(files, [p.stat().st_size for p in files])[0] if chance.random() < .5 else chance.choice(files)   # small files get their share
        sound = path.read_bytes()
        bad = bytearray(sound); bad[chance.randrange(len(bad))] ^= 1 << chance.randrange(8)
        path.write_bytes(bad)
        yield path
        path.write_bytes(sound)


def test_many_flips_in_a_state(state):
    for path in flips(state, 200 if EXHAUSTIVE else 80):
        with pytest.raises(BadInput, match="remove the folder|manifest.json") as e: load_state(state)
        assert str(state) in str(e.value) and (path.name in str(e.value) or path.name == "manifest.json")
        with pytest.warns(UserWarning, match="passed over"): assert latest_state(state.parent) is None
    load_state(state)


def test_many_flips_in_a_model(model):
    sound = {k: v.clone() for k, v in load_model(model).state_dict().items()}
    names = [p.name for p in model.iterdir() if p.name != "manifest.json"]
    assert len(names) >= 5
    for path in flips(model, 200 if EXHAUSTIVE else 80, names):
        with pytest.raises(BadInput, match=path.name): load_checkpoint(model)
    for _ in flips(model, 60 if EXHAUSTIVE else 25, ["manifest.json"]):   # either refused, or one of the facts that nothing computes with
        try: found = load_checkpoint(model)[0].state_dict()
        except BadInput: continue
        assert all(torch.equal(found[k], v) for k, v in sound.items())


@pytest.mark.parametrize("damage", ["truncate", "zero", "swap", "empty", "missing", "other step"])
def test_other_damage(state, tmp_path, damage):
    shutil.copytree(state, tmp_path/"step-7")
    tensors, facts = tmp_path/"step-7/state.safetensors", tmp_path/"step-7/state.json"
    if damage == "truncate":
        with tensors.open("rb+") as f: f.truncate(tensors.stat().st_size - 1)
    elif damage == "zero":
        data = tensors.read_bytes(); tensors.write_bytes(data[:-64] + bytes(64))
    elif damage == "swap": a, b = tensors.read_bytes(), facts.read_bytes(); tensors.write_bytes(b); facts.write_bytes(a)
    elif damage == "empty": facts.write_bytes(b"")
    elif damage == "missing": tensors.unlink()
    else:   # whole, and of another step: no file is damaged, and yet they do not belong together
        other = save_state(tmp_path/"step-8", {k: torch.zeros(7, 5) for k in ("master.a", "exp_avg.a")}, {"step": 8})
        shutil.copy(other/"state.safetensors", tensors); shutil.rmtree(other)
    with pytest.raises(BadInput, match="step-7/state.(safetensors|json): .*(SHA-256|truncated|missing).*remove the folder"): load_state(tmp_path/"step-7")
    with pytest.warns(UserWarning, match="passed over"): assert latest_state(tmp_path) is None


def test_nothing_is_read_before_all_is_verified(state, monkeypatch):
    "The last file is damaged; the first must not have been opened by a parser."
    for name in ("load_file", "read_header", "load_json"): monkeypatch.setattr(checkpoint, name, lambda *a, **k: pytest.fail("read before it was verified"))
    for _ in flips(state, 20):
        with pytest.raises(BadInput): load_state(state)


def fill(folder):
    "Save until nothing more fits; the last message."
    for step in range(1, 100):
        try: save_state(folder/f"step-{step:04d}", {"x": torch.full((100_000,), float(step))}, {"step": step})
        except BadInput as e: return step, str(e)


def check_full(folder, step, message):
    assert step > 1 and "untouched: free some space" in message and not list(folder.glob("*.partial"))
    for p in folder.iterdir(): check_state(p)
    tensors, facts = load_state(latest_state(folder))
    assert facts["step"] == step - 1 and (tensors["x"] == step - 1).all()


@pytest.mark.parametrize("guarded", [True, False], ids=["space checked", "check disabled"])
def test_a_disk_that_is_really_full(tmp_path, monkeypatch, guarded):
    disk = tmp_path/"disk"; disk.mkdir()
    if os.name != "posix" or os.geteuid() != 0 or not shutil.which("mount") or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", disk], capture_output=True).returncode:
        pytest.skip("only root may mount a small disk; the injected error below is tried everywhere")
    try:
        if not guarded: monkeypatch.setattr(checkpoint, "check_space", lambda *a: None)
        step, message = fill(disk)
        check_full(disk, step, message)
        assert ("MB are free" in message) == guarded
    finally: subprocess.run(["umount", disk], check=True)


@pytest.mark.parametrize("at", ["save_file", "write_facts", "write_manifest", "_sync", "_seal"])
def test_a_disk_that_fills_at_any_moment(tmp_path, monkeypatch, at):
    save_state(tmp_path/"step-0001", {"x": torch.ones(100_000)}, {"step": 1})
    def full(*a, **k): raise OSError(28, "No space left on device")
    monkeypatch.setattr(checkpoint, at, full)
    with pytest.raises(BadInput) as e: save_state(tmp_path/"step-0002", {"x": torch.ones(100_000)}, {"step": 2})
    check_full(tmp_path, 2, str(e.value))
    assert "No space left on device" in str(e.value)


def test_a_trainer_on_a_full_disk_names_what_is_left(tmp_path, monkeypatch):
    from dataclasses import replace
    from croissant.model import PRESETS
    from croissant.packing import toy_shards
    from croissant.trainer import TrainConfig, train
    shape, config = replace(PRESETS["toy"], vocab_size=toy_tokenizer().vocab_size), TrainConfig(max_steps=6, batch_size=2, seq_len=16, eval_tokens=100, state_interval=2)
    def run(name): return train(shape, toy_shards(), toy_tokenizer().save(tmp_path/"tokenizer"), config, tmp_path/name, resume=True, progress=False)
    real, saved = checkpoint.save_file, []
    def second_time_full(*a, **k):
        saved.append(1)
        if len(saved) == 2: raise OSError(28, "No space left on device")
        return real(*a, **k)
    run("whole")
    with monkeypatch.context() as m:
        m.setattr(checkpoint, "save_file", second_time_full)
        with pytest.raises(BadInput, match="step-00000004: cannot be written.*No space left.*untouched: free some space"): run("full")
    assert latest_state(tmp_path/"full/state").name == "step-00000002"
    run("full")
    assert (tmp_path/"full/checkpoint/model.safetensors").read_bytes() == (tmp_path/"whole/checkpoint/model.safetensors").read_bytes()
