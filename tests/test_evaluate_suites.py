"The stage that asks the lab's suites, on the toy: every number is computed again from the answers that it kept."
import json

import pytest

from croissant.frenchbench.lexical import SUITES, Materials
from croissant.frenchbench.runner import lab_suites, suite_credits
from croissant.params import load_params
from croissant.provenance import load_json, load_table
from croissant.stage import main, run_stage

STAGE, FIGURE = "nbs/stages/52_evaluate_suites.ipynb", "nbs/figures/fig_lab_suites.ipynb"
SMOKE = load_params("evaluate_suites", "params.smoke.yaml")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    here = tmp_path_factory.mktemp("suites")
    run_stage(STAGE, here/"stage.ipynb", {"out_reports": str(here), "out_answers": str(here/"answers")}, log=False)
    return here


@pytest.fixture(scope="module")
def suites():
    return lab_suites(Materials("nowhere", "nowhere", "nowhere"), SMOKE["items"], SMOKE["seed"])[0]


def test_values_come_from_the_answers(made, suites):
    record, table = load_json(made/"metrics/frenchbench_lab.json")["metrics"], {r["suite"]: r for r in load_table(made/"tables/frenchbench_lab.csv")}
    assert set(table) == set(suites) and all(s.startswith(("fr_", "en_")) for s in suites)
    for name, items in suites.items():
        _, *lines = (made/f"answers/model/{name}.jsonl").read_text(encoding="utf-8").splitlines()
        rows = {r["id"]: r for r in map(json.loads, lines)}
        credit = suite_credits([rows[i.id]["log_probs"] for i in items], items)
        m = record[f"suite.{name}"]
        assert m["n"] == len(items) == SMOKE["items"] and m["value"] == pytest.approx(credit.mean(), abs=1e-6) and table[name]["accuracy"] == pytest.approx(credit.mean(), abs=1e-4)
        assert set(m["floors"]) == {"chance", "trigram", "random_weights"} and m["floors"]["chance"] == .5 and m["interval"][0] <= m["value"] <= m["interval"][1]


def test_sums_count_intervals_that_do_not_overlap(made):
    record = load_json(made/"metrics/frenchbench_lab.json")["metrics"]
    for language in ("fr", "en"):
        mine = [m for k, m in record.items() if k.startswith("suite.") and SUITES[k[6:]].language == language]
        assert record[f"above_trigram_{language}"]["value"] == sum(m["interval"][0] > m["trigram_interval"][1] for m in mine) and record[f"above_trigram_{language}"]["n"] == len(mine)


def test_the_outside_model_answers_the_first_items(made, suites):
    "On the toy it is the model itself, so nothing differs."
    record = load_json(made/"metrics/frenchbench_lab.json")["metrics"]
    for name in suites:
        m = record[f"outside.{name}"]
        assert m["n"] == SMOKE["outside_items"] and m["value"] == pytest.approx(m["floors"]["flagship"]) and (made/f"answers/outside/{name}.jsonl").read_text().count("\n") == 1 + SMOKE["outside_items"]


def test_the_figure_reads_the_table(made, tmp_path):
    run_stage(FIGURE, tmp_path/"figure.ipynb", {"data": str(made/"tables"), "metrics": str(made/"metrics"), "figures": str(tmp_path), "tables": str(tmp_path)}, log=False)
    card, rows = load_json(tmp_path/"fig_lab_suites.json"), load_table(made/"tables/frenchbench_lab.csv")
    assert load_table(tmp_path/"fig_lab_suites.csv") == rows and "nan" not in card["caption"] and f"in {len(rows)} suites" in card["caption"]
    for r in rows: assert f"{r['suite']} model {r['accuracy']:.2f}, trigram {r['trigram']:.2f}" in card["alt"]
    above = sum(r["low"] > r["trigram_high"] for r in rows if r["language"] == "fr")
    assert f"French, above the trigram with intervals that do not overlap, {above} of" in card["caption"]


@pytest.mark.parametrize("wrong, named", [({"outside_items": 6}, "outside_items 6"), ({"items": 2}, "items 2"), ({"corpus": "nulle/part"}, "nulle/part")])
def test_impossible_settings_are_named(wrong, named, tmp_path, capsys):
    words = [x for k, v in wrong.items() for x in ("-p", k, str(v))]
    assert main([STAGE, str(tmp_path/"out.ipynb"), "-q", *words]) == 2 and named in capsys.readouterr().err
