"""One process and two: the same bits, for whole runs, for runs that change hands, and for runs of which a process is killed.

Every launch of torchrun costs seconds, so most ranks here are forks of one process that has imported everything; torchrun itself restarts killed processes and runs the command."""
import dataclasses
import json
import os
import re
import shutil
import subprocess
import sys

import pytest
from conftest import EXHAUSTIVE

from croissant.checkpoint import check_state, latest_state, load_state
from croissant.model import PRESETS
from croissant.packing import toy_shards
from croissant.params import BadInput
from croissant.tokenizer import toy_tokenizer
from croissant.tracking import read_metrics
from croissant.trainer import TrainConfig, train

SHAPE = dataclasses.replace(PRESETS["toy"], vocab_size=toy_tokenizer().vocab_size)
SETTINGS = {"max_steps": 8, "batch_size": 4, "micro_batch_size": 2, "seq_len": 32, "warmup_steps": 2, "eval_tokens": 500, "state_interval": 2, "seed": 911, "threads": 1, "grad_clip": .5}
STOP = 5 # Steps that a run does before it is stopped

WORKER = """
import dataclasses, json, os, shutil, signal, sys, traceback, warnings
from pathlib import Path
import torch
import torch.distributed as dist
import croissant.trainer as trainer
from croissant import distributed
from croissant.distributed import Distributed
from croissant.model import PRESETS
from croissant.params import BadInput
from croissant.train_config import TrainConfig
from croissant.trainer import train
warnings.simplefilter("ignore")
top, settings, vocab, forked, groups = Path(sys.argv[1]), *map(json.loads, sys.argv[2:6])
real, publish = trainer._advance, distributed.publish_folder
def work(jobs):
    for job in jobs:
        w = Distributed(job.get("replicas", 1), asynchronous=job.get("asynchronous", False), timeout=60)
        stop, die = job.get("stop"), job.get("die", {})
        def advance(run, *rest):
            real(run, *rest)
            if run.step == die.get(os.environ.get("TORCHELASTIC_RESTART_COUNT")) and w.rank == w.world - 1: os.kill(os.getpid(), signal.SIGKILL)
            if stop and run.step == stop and w.rank == w.world - 1: signal.raise_signal(signal.SIGINT)   # one process is asked; all must stop
        def full(*a, **k): raise OSError(28, "No space left on device")
        trainer._advance, distributed.publish_folder = advance, full if "broken" in job else publish   # what one process alone cannot write fails for all
        config = TrainConfig(**settings | job.get("more", {}))
        shape = dataclasses.replace(PRESETS["toy"], vocab_size=vocab)
        try: record = train(shape, top/"shards", top/"tokenizer", config, top/job["name"], resume=True, progress=False, keep_state=True, runtime=w)
        except KeyboardInterrupt as e: said = str(e)
        except BadInput as e: said = f"refused: {e}"
        else: said = f"finished {record['step']}"
        if w.rank == 0 and "said" in job: (top/job["said"]).write_text(said)
        assert said.startswith(job.get("expect", "stopped after step 5" if stop else "finished 8")), said
    w.close()
def fork(number, rank, world, jobs):
    pid = os.fork()
    if pid: return pid
    code = 1
    try:
        os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(world), "LOCAL_RANK": str(rank)}
        dist.init_process_group("gloo", init_method=f"file://{top}/store{number}", rank=rank, world_size=world)
        work(jobs); code = 0
    except BaseException: traceback.print_exc()
    finally: sys.stderr.flush(); os._exit(code)
if not forked: work(groups[0]["jobs"])
else:
    torch.set_num_threads(1)
    for number, group in enumerate(groups):
        for job in group["jobs"]:
            if "of" in job: shutil.copytree(top/job["of"], top/job["name"])   # to be continued
        pids = [fork(number, rank, group["processes"], group["jobs"]) for rank in range(group["processes"])]
        codes = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids]
        assert not any(codes), (group, codes)
"""


@pytest.fixture(scope="module")
def top(tmp_path_factory):
    "Shards, a tokenizer, and runs of one plain process: whole, and stopped after five steps."
    import torch
    torch.set_num_threads(1)
    here = tmp_path_factory.mktemp("distributed")
    shutil.copytree(toy_shards(), here/"shards"); toy_tokenizer().save(here/"tokenizer")
    plain(here, "plain")
    train(SHAPE, here/"shards", here/"tokenizer", TrainConfig(**SETTINGS, max_minutes=1e-9), here/"half-plain", progress=False)
    while len(read_state(here/"half-plain")[1]["losses"]) < STOP: train(SHAPE, here/"shards", here/"tokenizer", TrainConfig(**SETTINGS, max_minutes=1e-9), here/"half-plain", resume=True, progress=False)
    return here


def plain(here, name, **more): return train(SHAPE, here/"shards", here/"tokenizer", TrainConfig(**SETTINGS | more), here/name, resume=True, progress=False, keep_state=True)


def read_state(out): return load_state(latest_state(out/"state"))


def launch(here, *command, forked, groups):
    env = os.environ | {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1", "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"}
    (here/"worker.py").write_text(WORKER)
    done = subprocess.run([sys.executable, *command, str(here/"worker.py"), str(here), *map(json.dumps, (SETTINGS, SHAPE.vocab_size, forked, groups))], capture_output=True, text=True, env=env, timeout=1800)
    assert done.returncode == 0, done.stderr[-4000:]
    return done


def weights(here, name): return (here/name/"checkpoint/model.safetensors").read_bytes()


def same(here, name):
    "Are the weights, the curves and the record those of the plain run?"
    assert weights(here, name) == weights(here, "plain"), name
    for file in ("training_curve.csv", "validation_curve.csv"): assert (here/name/file).read_bytes() == (here/"plain"/file).read_bytes(), (name, file)


@pytest.fixture(scope="module")
def runs(top):
    """FSDP2 over one process (whole, stopped, and continued from what a plain process left), then over two:
    whole, in the background, stopped, in bfloat16, and continued from what others left."""
    launch(top, forked=True, groups=[
        {"processes": 1, "jobs": [{"name": "one"}, {"name": "half-one", "stop": STOP}, {"name": "plain-one", "of": "half-plain"}]},
        {"processes": 2, "jobs": [{"name": "two"}, {"name": "two-async", "asynchronous": True}, {"name": "half-two", "stop": STOP, "asynchronous": True}, {"name": "plain-two", "of": "half-plain"}, {"name": "one-two", "of": "half-one"},
           {"name": "two-replicas", "replicas": 2}, {"name": "two-more", "more": {"z_loss": .01, "recompute": True, "dtype": "bfloat16"}},
           {"name": "muon", "more": {"optimizer": "muon"}, "expect": "refused: training: optimizer muon needs whole matrices"},
           {"name": "odd", "more": {"batch_size": 2}, "expect": "refused: training: batch_size 2 cannot be shared by 2 processes"},
           {"name": "three", "more": {"micro_batch_size": 1}}]},
        {"processes": 2, "jobs": [{"name": "two-two", "of": "half-two", "asynchronous": True}, {"name": "full", "broken": True, "expect": "refused: ", "said": "full.txt"}]}])
    return top


def test_one_sharded_process_is_a_plain_one(runs): same(runs, "one")


@pytest.mark.parametrize("name", ["two", "two-async", "two-replicas"])
def test_two_processes_are_one(runs, name): same(runs, name)


@pytest.mark.parametrize("name", ["plain-one", "plain-two", "one-two", "two-two"])
def test_continued_by_others(runs, name): same(runs, name)


@pytest.mark.parametrize("name", ["half-one", "half-two"])
def test_continued_by_a_plain_process(runs, name):
    shutil.copytree(runs/name, runs/f"{name}-plain")
    plain(runs, f"{name}-plain")
    same(runs, f"{name}-plain")


def test_the_command_behind_torchrun_continues_two_as_one(runs):
    import yaml
    shutil.copytree(runs/"half-two", runs/"two-one")
    (runs/"config.yaml").write_text(yaml.safe_dump({"train": {"preset": "toy", **SETTINGS}}))
    command = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "1", "-m", "croissant.cli", "train", "--config", runs/"config.yaml", "--out", runs/"two-one",
               "--shards", runs/"shards", "--tokenizer", runs/"tokenizer", "--resume", "auto", "--json"]
    done = subprocess.run([sys.executable, *map(str, command)], capture_output=True, text=True, env=os.environ | {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}, timeout=1800)
    assert done.returncode == 0, done.stderr[-3000:]
    assert json.loads(done.stdout)["step"] == 8 and "8/8" in done.stderr
    same(runs, "two-one")


def test_a_state_of_two_is_sealed_and_has_the_names_of_one(runs):
    a, b = runs/"two/state/step-00000008", runs/"plain/state/step-00000008"
    files = [*check_state(a)["files"]]
    assert sum(f.endswith(".distcp") for f in files) == 2 and "state.json" in files and "shards/.metadata" in files
    (ours, facts), (theirs, others) = load_state(a), load_state(b)
    assert ours.keys() == theirs.keys() and all((ours[k] == theirs[k]).all() for k in ours)
    assert facts == others and facts["data"]["step"] == 8


def test_a_state_written_in_the_background_is_of_its_own_step(runs):
    "The run went on while it was written."
    (ours, facts), (theirs, others) = (load_state(runs/name/"state/step-00000006") for name in ("two-async", "plain"))
    assert facts == others and ours.keys() == theirs.keys() and all((ours[k] == theirs[k]).all() for k in ours)


def test_bits_that_flip_in_a_state_of_two(runs, tmp_path):
    import random
    chance, folder = random.Random(3), tmp_path/"step-00000008"
    shutil.copytree(runs/"two/state/step-00000008", folder)
    files = [p for p in sorted(folder.rglob("*")) if p.is_file()]
    for _ in range(100):
        path = chance.choice(files)
        sound = path.read_bytes(); bad = bytearray(sound); bad[chance.randrange(len(bad))] ^= 1 << chance.randrange(8)
        path.write_bytes(bad)
        with pytest.raises(BadInput, match="remove the folder"): load_state(folder)
        path.write_bytes(sound)
    load_state(folder)


def test_the_diary_is_kept_by_the_first_process(runs):
    diary = read_metrics(runs/"two-two/metrics.jsonl")
    assert [e["step"] for e in diary if e["kind"] == "step"] == list(range(1, 9))


def test_more_micro_batches_are_close_and_not_equal_bit_for_bit(runs):
    "Four terms are summed in another order."
    close = plain(runs, "three-plain", micro_batch_size=1)
    other = json.loads((runs/"three/record.json").read_text())
    assert other["train_loss"] == pytest.approx(close["train_loss"], abs=1e-3)


def test_bfloat16_with_z_loss_and_recomputation_is_close_to_one_process(runs):
    close = plain(runs, "more-plain", z_loss=.01, recompute=True, dtype="bfloat16")
    other = json.loads((runs/"two-more/record.json").read_text())
    assert other["train_loss"] == pytest.approx(close["train_loss"], abs=.02) and other["last"]["bpb_fr"] == pytest.approx(close["last"]["bpb_fr"], abs=.02)


def test_a_full_disk_stops_all_and_leaves_nothing_half(runs):
    said = (runs/"full.txt").read_text()
    assert "No space left on device" in said and "untouched: free some space" in said and list((runs/"full/state").iterdir()) == []


def test_a_killed_process_is_restarted_and_the_end_is_the_same(top):
    "By torchrun: once here, three times in `make exhaustive`."
    job = {"name": "killed", "asynchronous": True, "die": {"0": 3, "1": 5, "2": 7} if EXHAUSTIVE else {"0": 5}}
    done = launch(top, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "--max-restarts", "5", forked=False, groups=[{"jobs": [job]}])
    same(top, "killed")
    assert done.stderr.count("Signal 9") + done.stderr.count("SIGKILL") + done.stderr.count("exitcode: -9") > 0


# A process of its own imports torch once and forks both ranks for every trial.
KILLING = """
import dataclasses, json, os, random, signal, sys, time, warnings
from pathlib import Path
import torch
import torch.distributed as dist
from croissant.distributed import Distributed
from croissant.model import PRESETS
from croissant.train_config import TrainConfig
from croissant.trainer import train
warnings.simplefilter("ignore"); torch.set_num_threads(1)
top, settings, kills, vocab = Path(sys.argv[1]), json.loads(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
chance, config, shape = random.Random(13), TrainConfig(**settings | {"state_interval": 1}), dataclasses.replace(PRESETS["toy"], vocab_size=vocab)
def rank(r, world, out, asynchronous, store):
    os.environ |= {"RANK": str(r), "WORLD_SIZE": str(world), "LOCAL_RANK": str(r)}
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=r, world_size=world)
    w = Distributed(asynchronous=asynchronous, timeout=60)
    train(shape, top/"shards", top/"tokenizer", config, out, resume=True, progress=False, runtime=w)
    w.close()
def start(*arguments, world):
    pids = []
    for r in range(world):
        pid = os.fork()
        if pid == 0:
            code = 1
            try: rank(r, world, *arguments); code = 0
            except BaseException as e: print(type(e).__name__, e, file=sys.stderr)
            finally: sys.stderr.flush(); os._exit(code)
        pids.append(pid)
    return pids
killed, launches, done, length = 0, 0, 0, 3.
while killed < kills or not done:
    done += 1
    out = top/f"random{done}"
    while not (out/"record.json").exists():
        launches += 1
        world = chance.choice((1, 2)) if launches > 1 else 2
        begun, pids = time.monotonic(), start(out, launches % 2 == 0, top/f"store{launches}", world=world)
        if killed < kills and launches > 1:
            time.sleep(chance.uniform(.1, length))
            for pid in pids if chance.random() < .5 else pids[-1:]: os.kill(pid, signal.SIGKILL)   # all, or one whose peer must notice
            killed += 1
        codes = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids]
        if launches == 1: length = time.monotonic() - begun
        assert -9 in codes or set(codes) == {0}, codes
    assert (out/"checkpoint/model.safetensors").read_bytes() == (top/"plain/checkpoint/model.safetensors").read_bytes(), out
    assert (out/"training_curve.csv").read_bytes() == (top/"plain/training_curve.csv").read_bytes(), out
print(killed, launches, done)
"""


@pytest.mark.exhaustive
def test_killed_at_random_on_one_or_two_processes(top):
    "Each launch takes one or two processes and saves in the background or not; `CROISSANT_KILLS` says how often it is killed."
    kills = int(os.environ.get("CROISSANT_KILLS", 4))
    done = subprocess.run([sys.executable, "-c", KILLING, *map(str, (top, json.dumps(SETTINGS), kills, SHAPE.vocab_size))], capture_output=True, text=True, env=os.environ | {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}, timeout=3600)
    assert done.returncode == 0, done.stderr[-4000:]
    assert int(re.match(r"\d+", done.stdout)[0]) == kills
