"""benchmarks/training.py: its sides are trained on the same batches from the same weights, and what it records follows."""
import json
import sys

import pytest

from croissant.model import flops_per_token
from croissant.params import root

RECORD = json.loads((root()/"reports/benchmarks/training.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def script(load_benchmark):
    module = load_benchmark("training")
    module.SIZES = {"tiny": dict(layers=1, hidden=32, ffn=48, heads=1, vocab=64, batch=2, length=16)}
    return module


def turns(script, sides, weights, n):
    "All sides in this process, one after the other, instead of one each in a process of its own."
    def losses(way):
        told = []
        train, how = script.SIDES[way]
        train("tiny", how, weights, n, told.append, str(weights.parent/"peer"))
        return [x for x in told if x is not None]
    return {way: losses(way) for way in sides}


def test_our_two_precisions_follow_the_same_curve(script, tmp_path):
    script.same_weights("tiny", weights := tmp_path/"w.safetensors")
    found = turns(script, ("float32", "bfloat16"), weights, 20)
    assert len(found["float32"]) == 20 and found["float32"][-1] < found["float32"][0] - .1
    assert max(abs(a - b) for a, b in zip(*found.values())) < .05


def test_the_peer_trains_on_the_same_batches_from_the_same_weights(script, tmp_path):
    script.same_weights("tiny", weights := tmp_path/"w.safetensors")
    found = turns(script, ("float32", "transformers Trainer, float32"), weights, 20)
    assert max(abs(a - b) for a, b in zip(*found.values())) < 1e-3 and abs(found["float32"][0] - found["transformers Trainer, float32"][0]) < 1e-5


def test_rows_are_made_of_paired_steps(script):
    "By hand: behind two warming steps ours takes 1, 2 and 3 seconds, the peer 4 times as long and once 5 times."
    flops = 32*flops_per_token(script.shape_of("tiny"), 16)   # of a step of 2 sequences
    found = {way: ([9, 9, 1, 2, 3], [5., 4., 3., 2., 1.]) for way in script.OURS} | {way: ([9, 9, 4, 10, 12], [5., 4., 3., 2., 1.]) for way in script.PEERS} | {script.PEAK: ([], [1., 1., flops, 2*flops, 4*flops])}
    rows = script.compared("tiny", found, dict.fromkeys(script.OURS, 100.) | dict.fromkeys(script.PEERS, 200.), block=1)
    assert len(rows) == 9 and all((r["ratio"], r["ratio_low"], r["ratio_high"], r["repeats"], r["memory_ratio"]) == (4, 4, 5, 3, .5) for r in rows)
    assert all(r["our_tokens_per_second"] == 16 and (r["our_share_of_peak"], r["peer_share_of_peak"]) == pytest.approx((1/4, 1/20)) and r["first_loss_difference"] == 0 for r in rows)


def test_a_turn_is_a_block_of_steps(script):
    "The parent says go once a block, and hears of each of its steps."
    class Pipe:
        gone, heard = 0, []
        def recv(self): self.gone += 1
        def send(self, x): self.heard.append(list(x) if isinstance(x, list) else x)
    def run(size, how, weights, n, turn, folder):
        for k in range(n): turn(None); turn(float(k))
    script.worker(pipe := Pipe(), run, "tiny", {}, None, 3, 1, 2)
    assert pipe.gone == 3 and [[loss for _, loss in block] for block in pipe.heard[:-1]] == [[0, 1], [2, 3], [4, 5]] and pipe.heard[-1] > 1


def test_the_record_holds_every_size_and_way(load_benchmark):
    "Weights and batches were the same: in float32 the first losses agree, and in bfloat16 the curves on average."
    plain = load_benchmark("training")
    assert {(r["size"], r["peer"], r["ours"]) for r in RECORD["rows"]} == {(s, p, o) for s in plain.SIZES for p in plain.PEERS for o in plain.OURS}
    for r in RECORD["rows"]:
        assert r["repeats"] == plain.REPEATS and 0 < r["our_share_of_peak"] < 1 and r["memory_ratio"] > 0
        if (r["peer"], r["ours"]) == ("transformers Trainer, float32", "float32"): assert r["first_loss_difference"] < 1e-5
    assert RECORD["curve"]["steps"] == 150 and RECORD["curve"]["mean_difference"] < .01


@pytest.fixture(scope="module")
def ladder(load_benchmark, script):
    module = load_benchmark("ladder")
    module.training.SIZES = script.SIZES
    yield module
    for name in ("training", "corpus"): sys.modules.pop(name, None)   # they were imported under names that anybody might use


def test_the_rungs_that_are_not_compiled_take_the_same_steps(ladder, tmp_path):
    "In float32 the three rungs are one computation in another order; bfloat16 follows."
    ladder.training.same_weights("tiny", weights := tmp_path/"w.safetensors")
    found = {}
    for name, how in ladder.RUNGS.items():
        if how["parts"]: continue
        told = []
        ladder.steps("tiny", how, weights, 12, told.append)
        found[name] = [x for x in told if x is not None]
    first, *others = found.values()
    assert len(found) == 4 and len(first) == 12 and first[-1] < first[0] - .05
    for losses, near in zip(others, (1e-5, 1e-5, .05)): assert max(abs(a - b) for a, b in zip(first, losses)) < near


def test_a_rung_adds_one_choice():
    rungs = list(json.loads((root()/"reports/benchmarks/ladder.json").read_text(encoding="utf-8"))["rows"])
    kept = [r for r in rungs if r["kept"]]
    assert [r["peer"] for r in kept[1:]] == [r["rung"] for r in kept[:-1]] and {r["peer"] for r in rungs if not r["kept"]} == {kept[-1]["rung"]}
    for r in rungs: assert 0 < r["share_of_peak"] < 1 and abs(r["first_loss"] - rungs[0]["first_loss"]) < .01


def test_every_choice_of_the_ladder_differs_from_its_neighbour_in_one_thing(ladder):
    rungs = [*ladder.RUNGS.values()]
    for a, b in (*zip(rungs, rungs[1:]), *((ladder.TOP, o) for o in ladder.OTHERWISE.values())):
        changed = {k for k in a.keys() | b.keys() if a.get(k) != b.get(k)}
        assert len(changed) == 1 or changed == {"dtype", "autocast"}   # autocast is what float32 weights compute with


def test_ladder_rows_are_made_of_paired_steps(ladder):
    "By hand: the peer takes 8 seconds a step, each rung half of the one below, and everything that was not kept as long as the peer."
    names = [ladder.PEER, *ladder.RUNGS]
    seconds = {n: 8/2**i for i, n in enumerate(names)} | dict.fromkeys(ladder.OTHERWISE, 8.)
    found = {n: ([99., 99., s, s, s], [3., 2., 1., 1., 1.]) for n, s in seconds.items()} | {ladder.training.PEAK: ([], [0., 1., 0., 1., 0., 1000., 0., 1000., 0., 1000.])}   # two steps a turn
    rows = ladder.climbed(found, dict.fromkeys(seconds, 5.), 16, 10, lambda n: 0, 2)
    assert [r["ratio"] for r in rows[:len(names)]] == [1, *[2]*(len(names) - 1)] and rows[len(names) - 1]["against_the_trainer"]["ratio"] == 2**(len(names) - 1)
    assert {r["ratio"] for r in rows[len(names):]} == {2**-(len(names) - 1)} and rows[0]["tokens_per_second"] == 2 and rows[0]["share_of_peak"] == pytest.approx(.02)
