"The order of the data: a function of seed and sample number, whoever asks and however often the run was stopped."
import hashlib
import pickle
import subprocess
import sys

import numpy as np
import pytest
from conftest import EXHAUSTIVE
from hypothesis import given, settings, strategies as st

from croissant import order as module
from croissant.mixture import sampler_weights, weights
from croissant.order import SAMPLING, DataOrder, TwoOrders, load_batches, mix_windows
from croissant.packing import Shards, batch, toy_shards
from croissant.params import BadInput

PAPER = weights("paper")
needs_grain = pytest.mark.skipif(not __import__("importlib.util").util.find_spec("grain"), reason="grain is not installed")
BOTH = [SAMPLING[0], pytest.param(SAMPLING[1], marks=needs_grain)]


def made(sampling, seed=911, shares=PAPER): return DataOrder(Shards(toy_shards(), "train"), 16, shares, seed, sampling)


def stream(order, start, stop, world, workers, size=8):
    "A digest of every step's global batch."
    each = [list(load_batches(order, start, stop, size, r, world, workers)) for r in range(world)]
    return [hashlib.sha256(np.concatenate([s.numpy() for s in slices]).tobytes()).hexdigest() for slices in zip(*each)]


@pytest.mark.parametrize("sampling", BOTH)
@pytest.mark.parametrize("world, workers", [(1, 0), (2, 0), (4, 0), (1, 1), (2, 2), *(pytest.param(*p, marks=pytest.mark.exhaustive) for p in ((1, 2), (2, 1), (4, 1), (4, 2)))])
def test_one_global_stream(sampling, world, workers):
    order = made(sampling)
    whole = [hashlib.sha256(order.batch(s, 8).tobytes()).hexdigest() for s in range(10)]
    assert stream(order, 0, 10, world, workers) == whole and stream(order, 7, 10, world, workers) == whole[7:] and len(set(whole)) == 10


@pytest.mark.parametrize("sampling", BOTH)
def test_a_batch_is_its_samples(sampling):
    order = made(sampling)
    assert (order.batch(3, 8) == np.stack([order[24 + i] for i in range(8)])).all() and order.batch(3, 8).dtype == np.int64
    assert (order.batch(0, 8) != made(sampling, 912).batch(0, 8)).any()


def test_with_replacement_is_what_21_packing_draws():
    order = made("with_replacement")
    assert all((order.batch(s, 8) == batch(order.shards, s, 8, 16, PAPER, 911)).all() for s in (0, 5, 10**9))


@needs_grain
def test_golden_order():
    "Another version of Grain must not change the order of a run that was begun with this one."
    order = mix_windows({"fr": 5, "en": 4, "code": 2}, {"fr": .4, "en": .4, "code": .2}, 911)
    assert "".join(f"{p[0]}{w} " for p, w in (order[i] for i in range(15))) == GOLDEN


GOLDEN = "f1 e2 f0 e3 c1 f3 e0 f2 e1 c0 f4 e2 f1 e3 c0 "


@needs_grain
def test_every_epoch_is_a_new_permutation():
    order = mix_windows({"fr": 7, "en": 30}, {"fr": 3, "en": 1}, 5)
    read = [w for p, w in (order[i] for i in range(400)) if p == "fr"]
    epochs = [read[7*e:7*e + 7] for e in range(len(read)//7)]
    assert len(epochs) > 40 and all(sorted(e) == list(range(7)) for e in epochs) and len({tuple(e) for e in epochs}) > 35


@needs_grain
def test_the_papers_weights():
    shares = sampler_weights()
    integers = np.array([round(w*10_001) for w in shares.values()])
    assert integers.sum() == 10_001 and sorted(integers) == sorted([146, 2025, 1980, 606, 881, 880, 536, 529, 719, 732, 967])
    order, place = mix_windows({k: 10**7 for k in shares}, shares, 911), {k: i for i, k in enumerate(shares)}
    counts = np.zeros(11)
    for i in range(20_002):
        counts[place[order[i][0]]] += 1
        assert np.abs(counts - (i + 1)*integers/10_001).max() < 3
    assert np.abs(counts - 2*integers).max() <= 2


def test_the_papers_weights_with_replacement():
    "Independent draws keep the same weights on average: five standard deviations."
    from croissant.packing import draw
    w = np.array(list(sampler_weights().values()))
    n = 20_000
    counts = np.bincount([draw(np.cumsum(w), 911, j)[0] for j in range(n)], minlength=11)
    assert (np.abs(counts - n*w) < 5*np.sqrt(n*w*(1 - w))).all()


@needs_grain
@settings(max_examples=100 if EXHAUSTIVE else 8)
@given(st.dictionaries(st.sampled_from("abcdef"), st.tuples(st.integers(1, 20), st.floats(.05, 1)), min_size=1), st.integers(0, 2**32 - 1), st.integers(0, 10**12))
def test_mixing_any_parts(parts, seed, start):
    order = mix_windows({p: n for p, (n, _) in parts.items()}, {p: w for p, (_, w) in parts.items()}, seed)
    first = [order[i] for i in range(60)]
    assert all(0 <= w < parts[p][0] for p, w in first) and order[start] == order[start]
    total = sum(w for _, w in parts.values())
    for p, (_, w) in parts.items(): assert abs(sum(q == p for q, _ in first) - 60*w/total) < 3


@needs_grain
def test_windows_cover_the_text_once():
    order = made("without_replacement", shares={"fr": 1.})
    z = order.shards.tokens("fr")
    n = (len(z) - 1)//16
    inputs = np.sort(np.concatenate([order[i][:16] for i in range(n)]))
    assert (inputs == np.sort(z[:16*n])).all()


@pytest.mark.parametrize("sampling", BOTH)
def test_fingerprint_says_what_the_order_depends_on(sampling):
    one = made(sampling)
    assert one.fingerprint == made(sampling).fingerprint == pickle.loads(pickle.dumps(one)).fingerprint
    others = [made(sampling, 912), made(sampling, shares=weights("equal")), DataOrder(one.shards, 15, PAPER, 911, sampling), DataOrder(Shards(toy_shards(), "validation"), 16, PAPER, 911, sampling)]
    assert len({o.fingerprint for o in (one, *others)}) == 5
    assert (pickle.loads(pickle.dumps(one)).batch(2, 4) == one.batch(2, 4)).all()


def test_refusals(monkeypatch):
    shards = Shards(toy_shards(), "train")
    with pytest.raises(BadInput, match="sampling is 'shuffled'"): made("shuffled")
    with pytest.raises(BadInput, match="cannot be shared among 3"): made("with_replacement").batch(0, 8, 0, 3)
    monkeypatch.setitem(sys.modules, "grain", None)
    with pytest.raises(BadInput, match="pip install grain"): made("without_replacement")
    monkeypatch.undo()
    if not module.__spec__ or not __import__("importlib.util").util.find_spec("grain"): return
    with pytest.raises(BadInput, match="part 'breton' has 0 windows"): made("without_replacement", shares={"breton": 1.})
    with pytest.raises(BadInput, match="has 0 windows"): DataOrder(shards, 10**9, PAPER, 0, "without_replacement")


def test_grain_is_imported_only_when_used():
    code = "import sys, croissant.order; assert not any(m.split('.')[0] == 'grain' for m in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_two_orders_share_a_run():
    one, two = made("with_replacement", shares={"fr": 1.}), made("with_replacement", shares={"fr": 1., "en": 3.})
    run = TwoOrders(one, two, start=3, total=4)
    for step in range(4): assert (run.batch(step, 4) == (one if step < 3 else two).batch(step, 4)).all()
    whole = [x.numpy() for x in load_batches(run, 0, 4, 4)]
    assert all((a == b).all() for world in (1, 2) for workers in (0, 1)
               for a, b in zip(whole, (np.concatenate(x) for x in zip(*([y.numpy() for y in load_batches(run, 0, 4, 4, r, world, workers)] for r in range(world))))))
    assert run.weights == pytest.approx({"fr": .8125, "en": .1875}) and sum(run.weights.values()) == pytest.approx(1)
    assert len({x.fingerprint for x in (one, two, run, TwoOrders(one, two, 2, 4), TwoOrders(two, one, 3, 4))}) == 5
