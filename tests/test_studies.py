"""What the studies found, read from their tracked tables and records: do they agree with one another, and is a verdict what its interval says?"""
from collections import Counter

import pytest

from croissant.frenchbench.arms import VERDICTS
from croissant.params import root
from croissant.provenance import load_json, load_table, metric, sha256
from croissant.scaling import TAKES

LADDER, HELD_OUT, FORETOLD = (load_table(f"reports/tables/{name}.csv") for name in ("ladder", "ladder_held_out", "foretold"))
ARMS = {name: load_json(f"reports/metrics/{name}.json")["metrics"] for name in ("ablations", "compare_schedules")}


def test_the_size_was_foretold_from_the_ladder_alone():
    "The prediction names the table that it was made from, and that table knows no model as large."
    told = load_json("reports/metrics/foretell.json")
    assert told["inputs"]["reports/tables/ladder.csv"] == sha256(root()/"reports/tables/ladder.csv")
    counts = {r["takes"] for r in FORETOLD if r["counts"]}
    assert counts == {min(TAKES, key=lambda takes: told["metrics"][f"misses.{takes}"]["value"])} and metric("scaling/held_out.mixtures")["takes"] in counts
    assert {r["parameters"] for r in FORETOLD} == {r["parameters"] for r in HELD_OUT} and max(r["parameters"] for r in LADDER) < min(r["parameters"] for r in HELD_OUT)


def test_the_verdict_on_the_foretold_size_is_that_of_its_intervals():
    measured = {(r["language"], r["mix"]): r["bits_per_byte"] for r in HELD_OUT if r["domain"] == "all"}
    inside = {(r["language"], r["mix"]): r["low"] <= measured[r["language"], r["mix"]] <= r["high"] for r in FORETOLD if r["counts"]}
    told = {(r["language"], r["mix"]): bool(r["inside"]) for r in load_table("reports/tables/scaling_held_out.csv") if r["counts"]}
    held = [mix for mix in ("equal", "frplus", "enplus") if inside["fr", mix] and inside["en", mix]]
    assert told == inside and metric("scaling/held_out.mixtures")["value"] == len(held)
    assert metric("scaling/held_out.verdict")["value"] == (len(held) >= metric("scaling/held_out.needed")["value"])


def test_the_ladder_has_every_size_on_every_mixture():
    runs = {(r["size"], r["mix"]) for r in [*LADDER, *HELD_OUT]}
    sizes, mixes = {s for s, _ in runs}, {m for _, m in runs}
    assert len(sizes) >= 5 and mixes == {"equal", "frplus", "enplus", "fronly", "enonly"} and len(runs) == len(sizes) * len(mixes)
    assert not any(r["diverged"] for r in [*LADDER, *HELD_OUT])


@pytest.mark.parametrize("language, order", [("fr", ("fronly", "frplus", "equal", "enplus", "enonly")), ("en", ("enonly", "enplus", "equal", "frplus", "fronly"))])
def test_more_of_a_language_is_better_for_it(language, order):
    "At every size, and farther apart than the seeds that were run (the largest sizes have one)."
    for size in {r["size"] for r in LADDER}:
        means = [metric(f"ladder/bpb.{size}.{mix}.{language}") for mix in order]
        assert all(max(a["seeds"]) < min(b["seeds"]) for a, b in zip(means, means[1:])), size


def test_the_verdict_on_the_equal_ratio_is_that_of_its_intervals():
    found = [metric(f"scaling/joint.{mix}")["interval"] for mix in ("frplus", "enplus")]
    want = 1 if all(high < 0 for _, high in found) else -1 if any(low > 0 for low, _ in found) else 0
    assert metric("scaling/joint.verdict")["value"] == want


@pytest.mark.parametrize("study", ARMS)
def test_no_run_of_a_study_diverged_or_read_a_part_twice(study):
    assert all(m["value"] == 0 for name, m in ARMS[study].items() if name.startswith("diverged."))
    assert all(m["value"] < 1 for name, m in ARMS[study].items() if name.startswith("epochs."))
    assert all(m["value"] < m["floors"]["random_weights"] for name, m in ARMS[study].items() if name.startswith("bpb."))
    rows = load_table(f"reports/tables/{study}.csv")
    assert set(Counter((r["study"], r["arm"], r["seed"]) for r in rows).values()) == {len({(r["language"], r["domain"]) for r in rows})}


@pytest.mark.parametrize("study", ARMS)
def test_a_verdict_is_never_bolder_than_its_interval(study):
    found = {name: m for name, m in ARMS[study].items() if "verdict" in m}
    assert found and {m["verdict"] for m in found.values()} <= set(VERDICTS)
    for name, m in found.items():
        low, high = m["interval"]
        if m["verdict"] == "better": assert high < 0, name
        if m["verdict"] == "worse": assert low > 0, name


def test_the_flagship_is_seen_along_its_training():
    "A dozen checkpoints or more, spread over powers of ten of tokens; the last is the released model, and what it is beyond is counted after a correction."
    rows = load_table("reports/tables/evaluate_checkpoints.csv")
    steps = sorted({r["step"] for r in rows})
    assert metric("evaluate_checkpoints/checkpoints")["value"] == len(steps) >= 12 and steps[0] == 0
    assert steps[-1] == load_table("reports/tables/training_curve.csv")[-1]["step"] and steps[-1] > 100 * steps[1]
    for r in rows: assert r["low"] <= r["value"] <= r["high"] and (not r["beyond_floor"] or float(r["p_holm"]) < metric("evaluate_checkpoints/level")["value"])
    for p in ("fr", "en"):
        m = metric(f"evaluate_checkpoints/bits_per_byte.validation.{p}")
        assert m["value"] < m["floors"]["trigram"] < m["floors"]["untrained"] and m["beyond_floor_since"] > 0
