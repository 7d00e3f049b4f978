"""Steps on ranks that do not exist: what they hold is exact, and what they need is what real ranks need."""
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch.distributed as dist

from croissant.model import PRESETS, ModelConfig, count_parameters
from croissant.params import BadInput, root
from croissant.plan import load_run, local_parameters, memory_per_rank, parameter_shapes
from croissant.simulate import TRACKER_ERROR, alternatives, process_group, simulate, simulate_plans, simulation_text

TWO, RUN = PRESETS["toy"], load_run()
TOY = replace(TWO, num_hidden_layers=1)   # half the seconds
FOUR = replace(RUN.profile, micro_batch_size=2, sharding="hsdp", shards=2)
SMALL = ModelConfig(2048, 512, 1376, 2, 4, max_position_embeddings=512)   # the real comparison: large enough that its tensors dwarf the allocator's rounding


@pytest.mark.parametrize("sharding, accumulation, recompute", [("none", 1, True), ("hsdp", 2, False), ("fsdp", 4, True)])
def test_four_ranks_hold_what_the_rows_say(sharding, accumulation, recompute):
    profile = replace(FOUR, sharding=sharding, accumulation=accumulation, recompute=recompute)
    over = profile.copies_over(4)
    for config, rank in ((TWO, 0), (TOY, 3)):
        seen = simulate(config, profile, ranks=4, seq_len=32, rank=rank)
        n = local_parameters(config, over, rank)
        assert seen["local_parameters"] == n
        assert seen["resting_bytes"] == (16 if accumulation > 1 else 12) * n + 4 * len(parameter_shapes(config)) + 8 * 2 * 2*32   # without accumulation no gradient lies between steps
        assert seen["peak_bytes"] > seen["resting_bytes"]


def test_rows_that_do_not_come_out_even():
    config = replace(TOY, vocab_size=10, hidden_size=24, intermediate_size=10, num_attention_heads=2)
    held = [simulate(config, replace(FOUR, sharding="fsdp"), ranks=16, seq_len=8, rank=r)["local_parameters"] for r in (0, 11, 12, 15)]
    assert held == [local_parameters(config, 16, r) for r in (0, 11, 12, 15)] and held[0] > held[1] > 0 and held[2] == held[3] == 0   # 24 rows are gone after twelve ranks


def test_recomputation_and_sharding_save_what_they_promise():
    peak = lambda **change: simulate(TOY, replace(FOUR, **change), ranks=4, seq_len=128)["peak_bytes"]
    plain = peak()
    assert plain < peak(recompute=False) and peak(sharding="fsdp") < plain < peak(sharding="none") and plain < peak(micro_batch_size=4)


def test_the_first_step_would_count_stand_ins():
    config = replace(TOY, hidden_size=192, num_attention_heads=6)   # a shape of this test alone
    cold, warm = (simulate(config, replace(FOUR, accumulation=1), ranks=4, seq_len=32, warm=w)["peak_bytes"] for w in (False, True))
    assert cold > warm + 2 * 4 * count_parameters(config)["total"]


def test_one_process_group_at_a_time_and_none_left_behind():
    with process_group("gloo"):
        with pytest.raises(BadInput, match="process group already"): simulate(TOY, FOUR, ranks=4, seq_len=32)
        assert dist.is_initialized()
    for wrong in (dict(rank=4), dict(rank=-1)):
        with pytest.raises(BadInput, match="simulate: rank"): simulate(TOY, FOUR, ranks=4, seq_len=32, **wrong)
    with pytest.raises(BadInput, match="groups of 2"): simulate(TOY, FOUR, ranks=3, seq_len=32)
    with pytest.raises(BadInput, match="positions"): simulate(TOY, FOUR, ranks=4, seq_len=10_000)
    assert not dist.is_initialized()


def test_a_table_of_plans(capsys, monkeypatch):
    rows = simulate_plans(TOY, FOUR, ranks=4, seq_len=64, memory_gib=1)
    assert [r["layout"] for r in rows] == [p.words(4) for p in alternatives(FOUR)] and len(rows) == 4 and all(r["fits"] for r in rows)
    text, err = simulation_text(rows), capsys.readouterr().err
    assert f"{rows[0]['local_parameters']:,}" in text and f"{TRACKER_ERROR:.0%}" in text and "16/16" in err
    monkeypatch.setattr("croissant.simulate.alternatives", lambda profile: [profile])
    assert "DOES NOT FIT" in simulation_text(simulate_plans(TOY, FOUR, ranks=4, seq_len=64, memory_gib=.001, progress=False))


REAL = '''
import gc, json, sys
import torch, torch.distributed as dist
from croissant.optim import adamw
from croissant.simulate import mesh_of, sharded_loss, watched_step
from tests.test_simulate import SMALL, T, B, PROFILES
torch.set_num_threads(1)
def status(key): return next(int(line.split()[1]) * 1024 for line in open("/proc/self/status") if line.startswith(key))
def risen(step):                                              # the same step again, now with the eyes of the operating system
    for _ in range(2):
        gc.collect(); open("/proc/self/clear_refs", "w").write("5")
        before, _held = status("VmRSS"), step()
    return status("VmHWM") - before
a, b = torch.randn(B * T, SMALL.hidden_size), torch.randn(SMALL.hidden_size, SMALL.vocab_size)
scratch = {}                                                  # what the processor's kernels take beside their tensors: the largest product shows it
for name, x, y in (("float32", a, b), ("mixed", a.bfloat16(), b.bfloat16())): scratch[name] = max(0, risen(lambda: x @ y) - B * T * SMALL.vocab_size * x.itemsize)
dist.init_process_group("gloo")
found = []
for p in PROFILES:
    loss = sharded_loss(SMALL, mesh_of(2, 2), p.recompute, p.precision)
    with torch.no_grad():
        for q in loss.parameters(): q.fill_(.01)
    seen = watched_step(loss, SMALL.vocab_size, B, T)
    optimiser, ids = adamw(loss.parameters()), torch.randint(0, SMALL.vocab_size, (2, B, T))
    def step(): loss(*ids).backward(); optimiser.step()
    found.append(seen | {"process_bytes": risen(step), "scratch_bytes": scratch[p.precision]})
    del loss, optimiser, q
open(f"{sys.argv[1]}/{dist.get_rank()}.json", "w").write(json.dumps(found))
'''
B, T = 4, 256
PROFILES = [replace(RUN.profile, micro_batch_size=B, sharding="fsdp", recompute=r, precision=p) for r, p in ((True, "mixed"), (False, "mixed"), (True, "float32"))]


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="un-skip where the system tells a process its peak memory (Linux)")
@pytest.mark.exhaustive
def test_real_ranks_need_what_imagined_ones_do(tmp_path):
    "Two real ranks: equal to the byte by the tracker, and within the stated error by what the process really takes."
    env = os.environ | {"PYTHONPATH": str(root()), "OMP_NUM_THREADS": "1", "MALLOC_MMAP_THRESHOLD_": "65536", "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"}   # memory goes back at once, so that the peak is one
    done = subprocess.run([sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "--no-python", sys.executable, "-c", REAL, str(tmp_path)],
                          cwd=root(), env=env, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    for rank in range(2):
        for profile, real in zip(PROFILES, json.loads((tmp_path/f"{rank}.json").read_text())):
            imagined = simulate(SMALL, profile, ranks=2, seq_len=T, rank=rank)
            assert all(imagined[k] == real[k] for k in ("resting_bytes", "peak_bytes"))
            beside, error = real["process_bytes"] - (imagined["peak_bytes"] - imagined["resting_bytes"]), TRACKER_ERROR * imagined["peak_bytes"]
            assert -error < beside < error + real["scratch_bytes"], (profile, real)
            assert profile.precision == "mixed" or real["scratch_bytes"] < error / 2     # fp32 takes none anywhere, so there the bound is one per cent on every machine


@pytest.mark.exhaustive
def test_the_papers_plan_by_the_command():
    "The whole command on a laptop: the paper's model on 240 ranks that do not exist."
    done = subprocess.run([sys.executable, "-m", "croissant.cli", "plan", "--preset", "base", "--cluster", "paper", "--simulate", "--json"], cwd=root(), capture_output=True, text=True, timeout=1200)
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout)["simulation"]
    base, seq_len = PRESETS["base"], RUN.train.seq_len
    assert "16/16" in done.stderr and rows[0]["layout"].startswith("HSDP 30 x 8") and rows[0]["local_parameters"] * 8 == count_parameters(base)["total"]
    for row, profile in zip(rows, alternatives(RUN.profile)):
        n = local_parameters(base, profile.copies_over(240))
        assert row["local_parameters"] == n and row["resting_bytes"] == 16 * n + 4 * len(parameter_shapes(base)) + 8 * 2 * 8*2048 and row["fits"]
        assert memory_per_rank(base, profile, 240, seq_len)["total"] == pytest.approx(row["peak_bytes"], rel=.05 if profile.sharding != "none" else .15)
    flat = next(r for r in rows if r["layout"].startswith("FSDP"))
    assert flat["last_rank_parameters"] < .2 * flat["local_parameters"]
