"""The statistics of the evaluation: equal to scipy where scipy has them, and intervals and tests that keep their word in simulation."""
import importlib
import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from croissant.frenchbench.metrics import (accuracy, average, bootstrap, bpb, clusters, compare, compare_tasks, holm, mcnemar, mean_accuracy, p_above_chance,
                                           paired, sign_flip, smallest_difference, threshold, wilson)
from croissant.params import BadInput

stats = importlib.import_module("scipy.stats")


# ---- what stages already use keeps its last digit

def first_bootstrap(above, below, resamples=2000, seed=0):
    "All draws at once, as the function was first written."
    a, b = np.asarray(above, dtype=float), np.asarray(below, dtype=float)
    draws = np.random.Generator(np.random.Philox(seed)).multinomial(len(a), np.full(len(a), 1 / len(a)), size=resamples).astype(float)
    low, high = np.quantile((draws @ a) / np.maximum(draws @ b, 1e-12), (.025, .975))
    return float(low), float(high)


def test_draws_in_parts_are_the_same_draws():
    random = np.random.default_rng(0)
    for groups in (1, 7, 800, 4001):
        a, b = random.random(groups), random.integers(1, 9, groups)
        assert bootstrap(a, b, seed=3) == first_bootstrap(a, b, seed=3)
    a, b = random.random(60_000), random.integers(1, 9, 60_000)                     # more than is held in memory at a time
    assert bootstrap(a, b, resamples=400) == pytest.approx(first_bootstrap(a, b, resamples=400), rel=1e-12)


def test_what_the_evaluation_stage_prints_is_unchanged():
    random = np.random.default_rng(1)
    x, y = (random.random(300) < p for p in (.7, .6))
    verdict, d = compare(x, y), x.astype(float) - y
    wins, losses = int((d > 0).sum()), int((d < 0).sum())
    assert verdict["p"] == min(1., 2 * sum(math.comb(wins + losses, k) for k in range(min(wins, losses) + 1)) / 2**(wins + losses))
    assert verdict == {"difference": float(d.mean()), "interval": list(first_bootstrap(d, np.ones(300))), "p": verdict["p"], "n": 300, "wins": wins, "losses": losses}
    assert accuracy(x, chance=.5) == {"value": float(x.mean()), "unit": "accuracy", "n": 300, "interval": list(wilson(int(x.sum()), 300)), "floors": {"chance": .5}}
    low, high = first_bootstrap(np.add.reduceat(x, np.arange(0, 300, 2)), np.full(150, 2))
    half, value = (high - low) / 2, float(np.mean(x))
    assert mean_accuracy({"a": x}, {"a": [f"{i // 2:03}" for i in range(300)]})["interval"] == pytest.approx([value - half, value + half], abs=1e-15)
    nats, sizes = random.random(50) * 100, random.integers(50, 99, 50)
    assert bpb(nats, sizes)["interval"] == list(first_bootstrap(nats / math.log(2), sizes))


# ---- McNemar

@pytest.mark.parametrize("wins, losses", [*itertools.product(range(12), repeat=2), (150, 171), (4000, 4200), (0, 9338)])
def test_mcnemar_is_the_binomial_test(wins, losses):
    want = stats.binomtest(wins, wins + losses).pvalue if wins + losses else 1.
    assert mcnemar(wins, losses) == pytest.approx(want, rel=1e-9, abs=1e-300) and mcnemar(wins, losses) == mcnemar(losses, wins)


# ---- sign flips

@given(st.lists(st.integers(-4, 4), min_size=1, max_size=8))
def test_few_sign_flips_are_all_tried(differences):
    d = np.array(differences) / 4
    patterns = [abs(np.dot(s, d)) >= abs(d.sum()) - 1e-9 for s in itertools.product((-1, 1), repeat=len(d))]
    assert sign_flip(d) == pytest.approx(np.mean(patterns))
    if len(d) > 1: assert sign_flip(d) == pytest.approx(stats.permutation_test((d, np.zeros(len(d))), lambda x, y, axis: (x - y).sum(axis), permutation_type="samples", n_resamples=np.inf, vectorized=True).pvalue)


def test_sign_flips_of_right_and_wrong_are_mcnemar():
    for wins, losses in itertools.product(range(6), repeat=2):
        d = [1.] * wins + [-1.] * losses + [0.] * 9
        assert sign_flip(d) == pytest.approx(mcnemar(wins, losses), rel=1e-12)
    d = np.repeat([1., -1., 0.], (60, 35, 200))                                    # too many patterns to try them all
    assert abs(sign_flip(d, flips=40_000) - mcnemar(60, 35)) < .003 and sign_flip(d) == sign_flip(d) != sign_flip(d, seed=1)
    assert sign_flip(np.ones(40), flips=999) == 1 / 1000                            # never zero


def test_groups_change_sign_together():
    d = np.tile([.5, .25, .25], 6)
    names = [str(i // 3) for i in range(18)]
    assert sign_flip(d, names) == 2 / 2**6 and sign_flip(d[::3] + .5) == 2 / 2**6
    assert sign_flip(d, [""] * 18, flips=10**6) == sign_flip(d, flips=10**6)


def test_paired_chooses_the_test():
    x, y = np.tile([1, 1, 0, 1], 20), np.tile([1, 0, 0, 1], 20)
    alone, together = paired(x, y), paired(x, y, [str(i // 4) for i in range(80)])
    assert alone["test"] == "McNemar, exact" and alone["p"] == mcnemar(20, 0) == compare(x, y)["p"] and alone["interval"] == compare(x, y)["interval"]
    assert together["test"] == "sign flips" and together["groups"] == 20 and together["difference"] == alone["difference"] == .25
    assert together["interval"] == [.25, .25] and paired(x / 2, y)["test"] == "sign flips" and paired(x, y, [""] * 80)["test"] == "McNemar, exact"
    for bad in (lambda: paired([1, 0], [1]), lambda: paired([], []), lambda: paired([1, 0], [1, 1], ["a"]), lambda: mcnemar(-1, 3)):
        with pytest.raises(BadInput): bad()


# ---- simulations: tests that are wrong as seldom as they say, intervals that cover

def siblings(random, groups, size, share=0.):
    "Normal scores, of which half the variance is common to a group."
    return share + (np.repeat(random.normal(size=groups), size) + random.normal(size=groups * size)) / 2


def test_the_interval_over_groups_covers():
    random, names = np.random.default_rng(2), [str(i // 6) for i in range(300)]
    inside, trials = {"groups": 0, "items": 0}, 300
    for trial in range(trials):
        scores = siblings(random, 50, 6, .3)
        for kind, groups in (("groups", names), ("items", None)):
            low, high = average(scores, "points", groups, resamples=400, seed=trial)["interval"]
            inside[kind] += low <= .3 <= high
    assert .90 < inside["groups"] / trials < .985 and inside["items"] / trials < .8


def test_the_paired_interval_covers_and_the_test_keeps_its_level():
    random, names = np.random.default_rng(3), [str(i // 4) for i in range(160)]
    inside, alarms, naive, trials = 0, 0, 0, 300
    for trial in range(trials):
        common = siblings(random, 40, 4)                                             # hard for both models
        ours, theirs = common + siblings(random, 40, 4), common + siblings(random, 40, 4)
        verdict = paired(ours, theirs, names, resamples=400, flips=400, seed=trial)
        inside += verdict["interval"][0] <= 0 <= verdict["interval"][1]; alarms += verdict["p"] < .05
        naive += sign_flip(ours - theirs, flips=400, seed=trial) < .05
    assert .90 < inside / trials < .985 and .015 < alarms / trials < .09 < .12 < naive / trials


def test_binary_intervals_cover():
    "Two models with a common difficulty; the truth is the difference of their shares."
    random, inside, trials = np.random.default_rng(4), 0, 400
    bars = [stats.norm.ppf(p) for p in (.82, .75)]
    for trial in range(trials):
        difficulty = random.normal(size=119)
        x, y = (difficulty + random.normal(size=119) < b * 2**.5 for b in bars)
        low, high = paired(x, y, resamples=400, seed=trial)["interval"]
        inside += low <= .07 <= high
    assert .90 < inside / trials < .985


# ---- Holm

def test_holm_by_the_book():
    assert holm({"a": .01, "b": .04, "c": .03, "d": .005}) == pytest.approx({"a": .03, "b": .06, "c": .06, "d": .02})
    assert holm({}) == {} and holm({"a": .4}) == {"a": .4} and holm({"a": .6, "b": .7}) == {"a": 1., "b": 1.}
    with pytest.raises(BadInput, match="b has p = nan"): holm({"a": .1, "b": math.nan})


@given(st.lists(st.floats(0, 1), max_size=12))
def test_holm_keeps_the_order(p):
    named = {str(i): v for i, v in enumerate(p)}
    corrected = holm(named)
    assert list(corrected) == list(named) and all(v <= corrected[k] <= 1 for k, v in named.items())
    by_p = sorted(named, key=lambda k: named[k])
    assert all(corrected[a] <= corrected[b] for a, b in itertools.pairwise(by_p))
    assert not p or corrected[by_p[0]] == min(1., len(p) * min(p))


def test_holm_holds_the_family_to_its_level():
    random, bare, families = np.random.default_rng(5), 0, 0
    for _ in range(1000):
        p = {str(i): v for i, v in enumerate(random.random(10))}
        bare += min(p.values()) < .05; families += min(holm(p).values()) < .05
    assert families / 1000 < .07 < .3 < bare / 1000


def test_tasks_are_corrected_together():
    random = np.random.default_rng(6)
    ours = {t: (random.random(80) < .7).astype(float) for t in ("grammaire", "vocabulaire", "lecture")}
    theirs = {t: np.where(random.random(80) < .3, 0, s) for t, s in ours.items()} | {"lecture": ours["lecture"]}
    rows = compare_tasks(ours, theirs, {"grammaire": [str(i // 2) for i in range(80)]})
    assert {t: r["p_holm"] for t, r in rows.items()} == holm({t: r["p"] for t, r in rows.items()})
    assert rows["grammaire"]["test"] == "sign flips" and rows["vocabulaire"]["test"] == "McNemar, exact" and rows["lecture"]["p"] == 1
    with pytest.raises(BadInput, match="vocabulaire"): compare_tasks({"a": [1]}, {"a": [1], "vocabulaire": [0]})


# ---- thresholds and sizes

@pytest.mark.parametrize("n, chance, level", [(119, .25, .01), (178, .5, .01), (600, .25, .01), (1404, .5, .01), (9338, .25, .01), (71, 1/3, .05), (1, .5, .01), (10, .05, .01)])
def test_threshold_is_where_scipy_puts_it(n, chance, level):
    tails = [1 - stats.binom.cdf(k - 1, n, chance) if k < n / 2 else stats.binom.sf(k - 1, n, chance) for k in range(n + 1)]
    want = next((k / n for k, tail in enumerate(tails) if tail < level), None)
    assert threshold(n, chance, level) == want
    for k in range(0, n + 1, max(1, n // 7)): assert p_above_chance(k, n, chance) == pytest.approx(stats.binomtest(k, n, chance, alternative="greater").pvalue, rel=1e-8, abs=1e-280)


def test_thresholds_and_sizes_of_known_tests():
    "Computed apart from this code, rounded."
    assert [round(threshold(n, c), 3) for n, c in ((119, .25), (178, .5), (380, .25), (600, .25), (1404, .5), (3355, .5))] == [.353, .590, .305, .293, .532, .520]
    assert threshold(3, .5) is None
    assert [round(smallest_difference(n, p), 3) for n, p in ((119, .78), (900, .26))] == [.150, .058]
    assert smallest_difference(400, .5, correlation=.75) == pytest.approx(smallest_difference(400, .5) / 2)
    for bad in (lambda: threshold(0, .5), lambda: threshold(9, 1.), lambda: p_above_chance(4, 3, .5), lambda: smallest_difference(0, .5), lambda: smallest_difference(9, 1.2)):
        with pytest.raises(BadInput): bad()


def test_the_smallest_difference_is_found_four_times_in_five():
    random, n, p = np.random.default_rng(7), 400, .6
    delta = smallest_difference(n, p)
    hits = random.binomial(n, [p + delta / 2, p - delta / 2], size=(4000, 2)) / n
    pooled = hits.mean(1)
    z = (hits[:, 0] - hits[:, 1]) / np.sqrt(2 * pooled * (1 - pooled) / n)
    assert abs((z > 1.96).mean() - .8) < .025


def test_guessing_passes_the_threshold_as_seldom_as_promised():
    for n, chance in ((119, .25), (800, .5)):
        guessed = np.random.default_rng(8).binomial(n, chance, 100_000) / n
        assert .003 < (guessed >= threshold(n, chance)).mean() < .012


# ---- groups and means

def test_clusters_number_names():
    where = clusters(["b", "", "a", "b", ""], 5)
    assert where[0] == where[3] and len(set(where.tolist())) == 4 and clusters(None, 3).tolist() == [0, 1, 2] and len(clusters(None, 0)) == 0
    with pytest.raises(BadInput, match="1 names for 2 items"): clusters(["a"], 2)
    with pytest.raises(BadInput): average([], "F1")
    assert average([.25, .75], "F1", trigram=.1) == {"value": .5, "unit": "F1", "n": 2, "interval": [.25, .75], "floors": {"trigram": .1}}


def test_partial_credit_has_an_interval():
    assert wilson(2.5, 5)[0] < .5 < wilson(2.5, 5)[1] and wilson(2.0, 5) == wilson(2, 5)
