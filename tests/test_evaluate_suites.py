"The stage that asks the lab's suites, on the toy: every number is computed again from the answers that it kept."
import json

import pytest

from croissant.checkpoint import save_model
from croissant.frenchbench.lexical import SUITES, Materials
from croissant.frenchbench.runner import lab_suites, suite_credits
from croissant.model import toy_model
from croissant.packing import Shards, toy_shards
from croissant.params import load_params
from croissant.provenance import load_json, load_table, save_table
from croissant.stage import main, run_stage
from croissant.tokenizer import toy_tokenizer

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
        assert set(m["floors"]) == {"chance", "trigram", "random_weights", "majority", "longest", "word_overlap"} and m["floors"]["chance"] == .5 and m["interval"][0] <= m["value"] <= m["interval"][1]


def test_sums_count_where_the_model_stands(made):
    "Nothing was searched for in the toy corpus, so all items count, and intervals that overlap are between."
    record, table = load_json(made/"metrics/frenchbench_lab.json")["metrics"], {r["suite"]: r for r in load_table(made/"tables/frenchbench_lab.csv")}
    for language in ("fr", "en"):
        mine = {k[6:]: m for k, m in record.items() if k.startswith("suite.") and SUITES[k[6:]].language == language}
        for name, m in mine.items():
            new = m["not_in_training"]
            apart = {"above": m["interval"][0] > m["trigram_interval"][1], "below": m["interval"][1] < m["trigram_interval"][0]}
            assert new["n"] == m["n"] and new["model"]["value"] == m["value"] and (new["standing"] == "between" or apart[new["standing"]] and new["p_holm"] < .05)
            assert table[name]["standing"] == new["standing"] and table[name]["new_accuracy"] == pytest.approx(m["value"], abs=1e-4)
        for where in ("above", "below"):
            assert record[f"{where}_trigram_{language}"]["value"] == sum(m["not_in_training"]["standing"] == where for m in mine.values()) and record[f"{where}_trigram_{language}"]["n"] == len(mine)


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
    for language, code in (("French", "fr"), ("English", "en")):   # on the toy, sums only, and enough items everywhere
        mine = [r for r in rows if r["language"] == code]
        above, below = (sum(r["standing"] == where for r in mine) for where in ("above", "below"))
        assert f"{language}, most probable answer: above the trigram on {above}" in card["caption"] and f"below the trigram on {below}" in card["caption"] and f", of {len(mine)}." in card["caption"]


def test_the_figure_counts_as_the_record_does(made, tmp_path):
    "Sums apart from centred rows, a suite of both languages in a panel of its own, one with too few new items in no sum."
    rows = load_table(made/"tables/frenchbench_lab.csv")
    few, both = {"standing": "too few items", "new_n": 9, "p_holm": ""}, {"suite": "language", "language": "fr en", "standing": "above"}
    rows = [rows[0] | {"suite": "fr_accord", "standing": "above"}, rows[0] | few | {"suite": "fr_peu"}, rows[0] | both, rows[0] | {"suite": "fr_accord_centred", "score": "centred", "standing": "below"}, rows[-1] | {"language": "en", "standing": "between"}]
    save_table(rows, tmp_path/"frenchbench_lab.csv")
    run_stage(FIGURE, tmp_path/"figure.ipynb", {"data": str(tmp_path), "metrics": str(made/"metrics"), "figures": str(tmp_path), "tables": str(tmp_path/"tables")}, log=False)
    caption = load_json(tmp_path/"fig_lab_suites.json")["caption"]
    assert "French, most probable answer: above the trigram on 1 (accord" in caption and "below the trigram on 0, of 1." in caption and "Too few such items to judge: peu." in caption
    assert "French, answer favoured by its prompt: above the trigram on 0 and below the trigram on 1 (accord" in caption and "Both languages, most probable answer: above the trigram on 1 (language" in caption
    assert "English, most probable answer: above the trigram on 0 and below the trigram on 0, of 1." in caption


@pytest.mark.parametrize("wrong, named", [({"outside_items": 6}, "outside_items 6"), ({"items": 2}, "items 2"), ({"corpus": "nulle/part"}, "nulle/part")])
def test_impossible_settings_are_named(wrong, named, tmp_path, capsys):
    words = [x for k, v in wrong.items() for x in ("-p", k, str(v))]
    assert main([STAGE, str(tmp_path/"out.ipynb"), "-q", *words]) == 2 and named in capsys.readouterr().err


@pytest.mark.parametrize("made_with, named", [({"train.tail_mixture": "fr=1"}, "54_evaluate_checkpoints"), ({"train.sampling": "without_replacement"}, "train.sampling")])
def test_text_that_the_trigram_would_not_count_is_refused(made_with, named, tmp_path, capsys):
    run = {"train.batch_size": 8, "train.seq_len": 64, "train.mixture": "paper", "train.seed": 911, "train_shards": Shards(toy_shards(), "train").fingerprint} | made_with
    model = save_model(toy_model(toy_tokenizer().vocab_size), toy_tokenizer(), tmp_path/"m", step=20, tokens_seen=20*8*64, run=run)
    assert main([STAGE, str(tmp_path/"out.ipynb"), "-q", "-p", "checkpoint", str(model), "-p", "out_reports", str(tmp_path/"reports")]) == 2
    assert named in capsys.readouterr().err and not (tmp_path/"reports").exists()
