"The benchmark of the scorer: what it asks, how it finds the peer's best batch, and what its record says."
import json

import pytest

from croissant.params import root

RECORD = json.loads((root()/"reports/benchmarks/frenchbench.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def script(load_benchmark):
    return load_benchmark("frenchbench")


def rows(script, shape):
    "Against the harness as it comes, with the products that are the quicker ones on the machine of the record."
    found = [r for r in RECORD["rows"] if r["shape"] == shape and r["peer"] == "lm_eval, hf"]
    assert {r["ours"] for r in found} == {"default products", "oneDNN products"} and {r["items"] for r in found} == {script.ITEMS[shape]}
    return found


def test_the_record_answers_as_the_harness_does(script):
    assert {r["shape"] for r in RECORD["rows"]} == set(script.ITEMS) and script.ITEMS["mixed"] >= 500
    for r in RECORD["rows"]: assert r["equal_acc"] and r["equal_acc_norm"] and r["equal_greedy"] and r["max_score_difference"] < 1e-4 and r["repeats"] == script.PARTS


def test_the_record_tried_every_batch_size(script):
    for shape in script.ITEMS:
        tried = [str(b) for b in script.BATCHES if b not in script.TOO_LARGE.get(shape, ())]
        for r in rows(script, shape): assert set(r["peer_batch_seconds"]) == set(tried) and r["peer_batch_size"] == min(tried, key=lambda b: r["peer_batch_seconds"][b])


@pytest.mark.parametrize("shape, least", [("mixed", 5.5), ("short", 3), ("continuation", 3), ("passage", 3), ("five examples", 10)])
def test_the_record_is_as_fast_as_was_promised(shape, least, script):
    ways = {r["ours"]: r["ratio"] for r in rows(script, shape)}
    assert ways["default products" if "Intel" in RECORD["machine"] else "oneDNN products"] >= least


def test_items_have_their_shape(script):
    "The same each time; four choices; and behind five examples the same beginning for all."
    assert script.items("mixed", 6) == script.items("mixed", 6) != script.items("mixed", 6, seed=1)
    for shape in script.ITEMS:
        found = script.items(shape, 30)
        assert all(len(choices) == script.CHOICES and all(c.startswith(" ") for c in choices) for _, choices in found)
    context, choice = script.SHAPES["passage"]
    assert sum(len(c.split()) for c, _ in script.items("passage", 60)) / 60 == pytest.approx(context + 3, rel=.1)
    first, *others = (c.rpartition("Question: ")[0] for c, _ in script.items("five examples", 9))
    assert len(first.split()) > 5 * 130 and all(o == first for o in others)


def test_the_best_batch_is_the_quickest_one_warm(script, monkeypatch):
    "A slow first time does not count, and a size that asks for too much memory is left out."
    times, asked = {1: 5., 4: 2., 8: 3., 16: 4., 32: 9., "auto": 6.}, []
    def scores(size, part): asked.append(size)
    def timed(run, size, part):
        run(size, part)
        if size == 32: raise RuntimeError("not enough memory")
        return None, times[size] + 50 * (asked.count(size) == 1)
    monkeypatch.setattr(script, "harness", lambda model, tokenizer, size: size)
    monkeypatch.setattr(script, "their_scores", scores)
    monkeypatch.setattr(script, "timed", timed)
    best, seconds = script.best_batch("short", None, None, [1, 2, 3])
    assert best == 4 and seconds == {str(k): v for k, v in times.items() if k != 32} | {"1": 5.}
