"""Tables 3, 4, 5 and 15: averages follow from cells, intervals from items, and a changed cell is noticed."""
import json
import math
import re
from fractions import Fraction
from pathlib import Path

import pytest
from pictures import leave_out

from croissant.frenchbench import published as P
from croissant.params import BadInput
from croissant.provenance import fact, load_table, save_json, save_table
from croissant.stage import run_stage

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = {"english": "tbl_english_benchmarks", "french_mc": "tbl_frenchbench_mc", "french_gen": "tbl_frenchbench_gen", "crows": "tbl_crows_pairs"}
Z = 1.959963984540054


@pytest.fixture(scope="module", params=P.TABLES)
def table(request): return request.param, P.TABLES[request.param]


def altered(table, folder, model, column, value):
    "The table with one cell changed, as a file."
    rows = load_table(table.path)
    assert any(r["model"] == model for r in rows) and column in rows[0]
    return save_table([dict(r, **{column: value}) if r["model"] == model else r for r in rows], folder/"altered.csv")


def test_averages_follow_from_the_printed_cells(table):
    "By hand, in hundredths: the mean of the cells, rounded, or one that rounded cells allow."
    name, t = table
    rounded = 0
    for row, found in zip(load_table(t.path), P.averages(t, P.read_printed(t))):
        cells = [round(100 * row[c.key]) for c in t.columns if row[c.key] != ""]
        off = abs(Fraction(sum(cells), len(cells)) - round(100 * row["average"]))
        assert off <= 1, row["model"]
        assert found["verdict"] == ("equal" if off <= Fraction(1, 2) else "within rounding")
        rounded += off <= Fraction(1, 2)
    assert rounded >= len(load_table(t.path)) - 2, f"{name}: more rows than expected need the rounding of their cells"


def test_a_changed_cell_is_found(table, tmp_path):
    "In every column: moved by more than rounding can hide, its row and no other is impossible."
    _, t = table
    for c in t.columns:
        old = next(r[c.key] for r in load_table(t.path) if r["model"] == "Llama2 7B")
        moved = float(old) + .021 * len(t.columns) * (1 if t.metric == "nats" or old < .5 else -1)
        wrong = [r["model"] for r in P.averages(t, P.read_printed(t, altered(t, tmp_path, "Llama2 7B", c.key, moved))) if r["verdict"] == "impossible"]
        assert wrong == ["Llama2 7B"], c.key
    assert "Llama2 7B" in P.averages_sentence(P.points(t, tmp_path/"altered.csv")) and "cannot be" in P.averages_sentence(P.points(t, tmp_path/"altered.csv"))


def test_a_changed_average_is_found(tmp_path):
    t = P.TABLES["french_mc"]
    assert [r["model"] for r in P.averages(t, P.read_printed(t, altered(t, tmp_path, "OPT 1.3B", "average", .39))) if r["verdict"] == "impossible"] == ["OPT 1.3B"]


def test_a_copy_that_contradicts_the_rerun_table_is_found(tmp_path):
    "The re-run's table repeats four cells: a slip too small for the average is caught there."
    t = P.TABLES["french_mc"]
    with pytest.raises(BadInput, match=r"grammar: says that Table 4 prints 0\.8"): P.rerun_points(t, P.points(t, altered(t, tmp_path, "CroissantLLM", "grammar", .81)))


@pytest.mark.parametrize("column,value", [("vocab", "0,75"), ("vocab", 1.2), ("vocab", -.1), ("average", "half"), ("vocab", "nan")])
def test_what_is_no_score_is_refused(column, value, tmp_path):
    t = P.TABLES["french_mc"]
    with pytest.raises(BadInput, match=f"OPT 1.3B, {column}"): P.read_printed(t, altered(t, tmp_path, "OPT 1.3B", column, value))


def test_incomplete_tables_are_refused(tmp_path):
    t = P.TABLES["crows"]
    rows = load_table(t.path)
    for bad, word in (([{k: v for k, v in r.items() if k != "french"} for r in rows], "no column french"), ([*rows, rows[0]], "two rows"),
                      ([r for r in rows if r["model"] != P.SUBJECT], "no row CroissantLLM"), ([dict(r, french="", english="") for r in rows], "has no score")):
        with pytest.raises(BadInput, match=word): P.read_printed(t, save_table(bad, tmp_path/"bad.csv"))
    with pytest.raises(BadInput, match="no row Brioche 2B"): P.points(t, save_table([*rows, dict(rows[0], model="Brioche 2B")], tmp_path/"new.csv"))


def test_intervals_are_wilsons_by_hand():
    "Grammar of the paper's model: .80 of 119 items."
    cell = next(r for r in P.points(P.TABLES["french_mc"]) if r["model"] == "CroissantLLM" and r["task"] == "grammar")
    n, k = 119, 95
    p = k / n
    middle, half = (p + Z**2 / (2 * n)) / (1 + Z**2 / n), Z / (1 + Z**2 / n) * math.sqrt(p * (1 - p) / n + Z**2 / (4 * n**2))
    assert cell["n"] == n and cell["low"] == pytest.approx(middle - half, abs=1e-12) and cell["high"] == pytest.approx(middle + half, abs=1e-12)
    assert .07 < (cell["high"] - cell["low"]) / 2 < .075


def test_the_limit_cuts_large_tests_only():
    at = {(c.key): c.n for t in P.TABLES.values() for c in t.columns}
    assert at["hellaswag"] == at["hellaswag_fr"] == fact("frenchbench.sample_limit") < fact("english.hellaswag_items")
    assert at["arc_c_fr"] == fact("frenchbench.arc_c_fr_items") and at["vocab"] == at["grammar"] == 119


def test_every_interval_holds_its_value(table):
    for r in P.points(table[1]):
        assert r["low"] - .005 <= r["value"] <= r["high"] + .005 and r["high"] > r["low"], (r["model"], r["task"])


def test_difference_is_newcombes_by_hand():
    "56 of 70 against 48 of 80, the worked example of the method: .2000 [.0524, .3339]."
    d, low, high, verdict = P.difference(56 / 70, P.wilson(56, 70), 48 / 80, P.wilson(48, 80))
    assert (round(d, 4), round(low, 4), round(high, 4), verdict) == (.2, .0524, .3339, "higher")
    assert P.difference(.6, P.wilson(48, 80), .8, P.wilson(56, 70))[3] == "lower"


def test_rounding_is_part_of_the_verdict():
    "Intervals that clear zero by less than a unit of print decide nothing."
    assert P.difference(.515, (.505, .525), .496, (.486, .506))[1] > 0
    assert P.difference(.515, (.505, .525), .496, (.486, .506))[3] == "inside noise"


@pytest.mark.parametrize("n,chance", [(119, .25), (178, .5), (380, .25), (900, .25), (5000, .25)])
def test_threshold_is_the_binomial_tail(n, chance):
    k = round(P.chance_threshold(n, chance) * n)
    a, b = Fraction(chance).as_integer_ratio()
    tail = lambda k: float(Fraction(sum(math.comb(n, i) * a**i * (b - a)**(n - i) for i in range(k, min(n, k + 400) + 1)), b**n))
    assert tail(k) < P.CHANCE_LEVEL <= tail(k - 1)


@pytest.mark.parametrize("task", ["grammar", "vocab"])
def test_small_columns_rank_no_french_model(task):
    e = P.extremes(P.points(P.TABLES["french_mc"]), task)
    assert e["models"] == 7 and e["verdict"] == "inside noise" and e["difference"] > 0


def test_large_columns_do():
    assert P.extremes(P.points(P.TABLES["french_mc"]), "hellaswag_fr")["verdict"] == "higher"
    with pytest.raises(BadInput): P.extremes(P.points(P.TABLES["french_mc"]), "cuisine")


def test_the_paper_prints_plain_accuracy(tmp_path):
    "And a re-run in which the two columns are exchanged says the opposite."
    t = P.TABLES["french_mc"]
    rows = P.points(t)
    assert set(P.which_accuracy(P.rerun_points(t, rows)).values()) == {"acc"}
    swap = {"acc": "acc_norm", "acc_norm": "acc"}
    other = save_table([dict(r, metric=swap[r["metric"]] if r["task"] in ("arc_c_fr", "hellaswag_fr") else r["metric"]) for r in load_table(P.RERUN)], tmp_path/"r.csv")
    again = P.rerun_points(t, rows, other)
    assert set(P.which_accuracy(again).values()) == {"acc_norm"} and "does not settle" in P.rerun_sentence(t, again)


def test_other_tasks_are_not_compared():
    rows = {r["model"]: r for r in P.points(P.TABLES["french_gen"]) if r["task"] == "average"}
    assert {m for m, r in rows.items() if r["verdict"] == "other tasks"} == {"GPT-fr 1B", "Pagnol-XL 1.5B"}


@pytest.mark.parametrize("patterns,kept", [("*", {"accord", "accord_en", "rouge"}), ("*,!*_en", {"accord", "rouge"}), ("*rouge*", {"rouge"}), ("crows*", set())])
def test_lab_metrics_are_chosen_by_pattern(patterns, kept, tmp_path):
    one = {"value": .7, "unit": "accuracy", "n": 10, "interval": [.5, .9], "floors": {"chance": .5}}
    path = save_json({"metrics": {"accord": one, "accord_en": one, "rouge": one, "seed": {"value": 1, "unit": "1"}}}, tmp_path/"m.json")
    assert {r["task"] for r in P.lab_points(path, patterns)} == kept and P.lab_points("", patterns) == []
    with pytest.raises(BadInput, match="no metrics"): P.lab_points(save_json([1], tmp_path/"n.json"))


def test_lab_and_paper_share_no_axis_and_no_column(tmp_path):
    t = P.TABLES["french_mc"]
    rows = P.points(t)
    lab = P.lab_points(save_json({"metrics": {"accord": {"value": .7, "unit": "accuracy", "n": 10, "interval": [.5, .9]}, "nats": {"value": 2, "unit": "nats", "interval": [1, 3]}}}, tmp_path/"m.json"))
    fig = P.draw_published(t, rows, lab=lab)
    upper, lower = fig.subfigs
    assert len(upper.axes) == len(t.columns) + 1 and len(lower.axes) == 2 and not set(upper.axes) & set(lower.axes)   # accuracy and nats apart, too
    marks = [x for ax in upper.axes for line in ax.lines if line.get_marker() not in ("None", "") for x in line.get_xdata()]
    assert sorted(x for x in marks) == sorted(r["value"] for r in rows if r["panel"] == "paper")
    assert "Lab" in lower._suptitle.get_text() and "Paper" in upper._suptitle.get_text()
    for r in P.table_rows(rows, lab): assert (r["value"] == "") == (r["panel"] == "lab") and (r["lab_value"] == "") == (r["panel"] != "lab")
    none = P.draw_published(t, rows, note=P.lab_sentence([], ""))
    assert not none.subfigs[1].axes and "not there" in none.subfigs[1].texts[0].get_text()


@pytest.mark.parametrize("key", NOTEBOOKS)
def test_notebook_draws_captions_from_numbers(key, tmp_path, monkeypatch):
    "The two widest are rendered by tests/test_notebooks_figures.py only."
    name, rendered = NOTEBOOKS[key], key not in ("english", "french_gen")
    if not rendered: leave_out(monkeypatch)
    run_stage(f"nbs/figures/{name}.ipynb", tmp_path/"out.ipynb", {"figures": str(tmp_path), "tables": str(tmp_path)}, log=False)
    card = json.loads((tmp_path/f"{name}.json").read_text(encoding="utf-8"))
    assert card["paper"] == P.TABLES[key].name and card["scope"] == "paper" and P.TABLES[key].path in card["inputs"]
    for text in (card["caption"], card["alt"]): assert len(text) > 200 and not re.search(r"\b(nan|None|inf)\b|\{|\}", text) and "not there" in text
    assert f"Of {len(load_table(P.TABLES[key].path))} printed averages" in card["caption"] and "Not separable from CroissantLLM" in card["caption"]
    assert ((tmp_path/f"{name}.png").stat().st_size > 20_000) == rendered and len(load_table(tmp_path/f"{name}.csv")) >= len(load_table(P.TABLES[key].path)) * (len(P.TABLES[key].columns) + 1) - 2
