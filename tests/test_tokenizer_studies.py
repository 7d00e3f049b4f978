"The two studies behind the tokenizer, run on toys: what they compare is comparable, and what they draw is what they wrote."
import json
import shutil

import pytest

from croissant.params import load_params
from croissant.provenance import load_json, load_table
from croissant.stage import main, run_stage

BALANCE, SIZE = "nbs/stages/23_language_balance.ipynb", "nbs/stages/24_vocabulary_size.ipynb"
SMOKE = {name: load_params(name, "params.smoke.yaml") for name in ("language_balance", "vocabulary_size")}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    "Both studies with the parameters of their cells, and their figures."
    here = tmp_path_factory.mktemp("studies")
    for nb, name in ((BALANCE, "language_balance"), (SIZE, "vocabulary_size")):
        run_stage(nb, here/f"{name}.ipynb", {"tables": str(here), "metrics": str(here)}, log=False)
        run_stage(f"nbs/figures/fig_{name}.ipynb", here/f"fig_{name}.ipynb", {"data": str(here), "metrics": str(here), "figures": str(here), "tables": str(here)}, log=False)
    return here


@pytest.fixture(scope="module")
def balance(made):
    return {(r["tokenizer"], r["language"]): r for r in load_table(made/"language_balance.csv")}


@pytest.fixture(scope="module")
def sizes(made):
    return load_table(made/"vocabulary_size.csv")


def test_a_language_that_was_not_read_costs_more(balance):
    "Apart from what the intervals allow: French without French, English without English."
    assert balance["fr000", "fr"]["tokens_per_word_low"] > balance["fr050", "fr"]["tokens_per_word_high"]
    assert balance["fr100", "en"]["tokens_per_word_low"] > balance["fr050", "en"]["tokens_per_word_high"]
    assert balance["fr000", "en"]["ratio_high"] < 1 < balance["fr000", "fr"]["ratio_low"] and balance["fr050", "fr"]["ratio"] == 1


def test_only_the_share_of_french_differs(balance):
    s = SMOKE["language_balance"]
    assert sorted({r["french_share"] for r in balance.values()}) == s["french_shares"]
    for r in balance.values():
        prose = r["training_bytes_fr"] + r["training_bytes_en"]
        assert .98 * s["prose_bytes"] < prose <= s["prose_bytes"] and r["training_bytes_fr"] == pytest.approx(prose * r["french_share"] / 100, abs=.01 * prose)
        assert r["vocabulary"] == s["vocab_size"] and r["training_bytes_code"] == balance["fr050", "fr"]["training_bytes_code"] > 0


def test_records_of_the_balance_say_what_the_table_says(made, balance):
    record = load_json(made/"language_balance.json")["metrics"]
    for language in ("fr", "en", "code"):
        least = min((r for (_, p), r in balance.items() if p == language), key=lambda r: r["tokens_per_word"])
        assert record[f"cheapest.{language}"]["value"] == least["french_share"]
        m = record[f"price_of_even.{language}"]
        assert m["value"] == pytest.approx(balance["fr050", language]["tokens"] / least["tokens"], abs=1e-4) and m["interval"][0] <= m["value"] <= m["interval"][1]


def test_equal_text_is_equal_to_within_a_batch(sizes):
    s = SMOKE["vocabulary_size"]
    last = [r for r in sizes if r["last"] and r["language"] == "fr"]
    assert len(last) == len(s["vocabularies"]) * len(s["seeds"])
    for r in last: assert s["text_bytes"] <= r["bytes"] < s["text_bytes"] + 1.5 * r["bytes"] / r["step"]     # a batch, some are larger than the mean
    assert len({r["step"] for r in last}) > 2                                                              # and the steps are not equal


def test_a_larger_vocabulary_reads_fewer_tokens_and_has_more_weights(made):
    record, names = load_json(made/"vocabulary_size.json")["metrics"], list(SMOKE["vocabulary_size"]["vocabularies"])
    column = lambda key: [record[f"{key}.{name}"]["value"] for name in names]
    assert column("bytes_per_token") == sorted(column("bytes_per_token")) and column("parameters") == sorted(column("parameters"))
    assert len(set(column("parameters_body"))) == 1 and column("tokens")[0] > column("tokens")[-1]


def test_training_helped_and_the_curves_are_whole(made, sizes):
    s, record = SMOKE["vocabulary_size"], load_json(made/"vocabulary_size.json")["metrics"]
    assert len(sizes) == len(s["vocabularies"]) * len(s["seeds"]) * 3 * (s["points"] + 1)
    for name in s["vocabularies"]:
        for p in ("fr", "en", "code"):
            mine = [r for r in sizes if (r["tokenizer"], r["language"]) == (name, p)]
            m = record[f"bpb.{name}.{p}"]
            assert m["value"] < m["floors"]["random_weights"] and m["interval"][0] < m["value"] < m["interval"][1]
            assert m["value"] == pytest.approx(sum(m["seeds"]) / len(m["seeds"]), abs=1e-5) and sorted(m["seeds"]) == sorted(r["bits_per_byte"] for r in mine if r["last"])
            equal = record[f"equal_compute.{name}.{p}"]
            for k, found in zip(s["seeds"], equal["seeds"]):                                              # read off between two points of its own curve
                curve = [r for r in mine if r["seed"] == k and r["step"]]
                near = [next(r for r in reversed(curve) if r["flops"] <= record["compute"]["value"]), next(r for r in curve if r["flops"] >= record["compute"]["value"])]
                low, high = sorted(r["bits_per_byte"] for r in near)
                assert low - 1e-5 <= found <= high + 1e-5
    assert all(record[f"above_reference.{s['reference']}.{p}"]["value"] == 0 for p in ("fr", "en", "code"))


def test_two_runs_give_the_same_table(made, tmp_path):
    run_stage(BALANCE, tmp_path/"out.ipynb", {"tables": str(tmp_path), "metrics": str(tmp_path)}, log=False)
    assert (tmp_path/"language_balance.csv").read_bytes() == (made/"language_balance.csv").read_bytes()


@pytest.mark.exhaustive   # as the other studies do, in tests/test_ablations.py and tests/test_ladder.py
def test_a_stopped_study_goes_on_to_the_same_table(made, tmp_path, capsys):
    "The first call cannot write its table; of what it leaves, one run is taken away, so that the second trains that one and finds the others ended."
    (tmp_path/"fichier").write_text("ceci n'est pas un dossier")
    words = ["-q", "-p", "out", str(tmp_path/"work"), "-p", "metrics", str(tmp_path)]
    assert main([SIZE, str(tmp_path/"out.ipynb"), *words, "-p", "tables", str(tmp_path/"fichier")]) == 1
    ended = sorted(p.parent.name for p in (tmp_path/"work/runs").glob("*/record.json"))
    assert len(ended) == 8
    shutil.rmtree(tmp_path/"work/runs"/ended[0])
    assert main([SIZE, str(tmp_path/"out.ipynb"), *words, "-p", "tables", str(tmp_path)]) == 0
    assert (tmp_path/"vocabulary_size.csv").read_bytes() == (made/"vocabulary_size.csv").read_bytes() and not (tmp_path/"work").exists()


@pytest.mark.parametrize("name", ["language_balance", "vocabulary_size"])
def test_a_figure_has_a_row_for_all_it_draws(made, name):
    drawn = load_table(made/f"fig_{name}.csv")
    source = [r for r in load_table(made/f"{name}.csv") if r.get("step", 1)]
    assert [tuple(r[k] for k in drawn[0]) for r in source] == [tuple(r.values()) for r in drawn] and len(drawn) > 20
    card = load_json(made/f"fig_{name}.json")
    assert len(card["inputs"]) == 2 and not any(word in card["caption"] + card["alt"] for word in ("nan", "inf ", "{", "}"))
    assert all((made/f"fig_{name}.{kind}").stat().st_size > 10_000 for kind in ("svg", "png"))


def test_the_caption_names_the_best_of_the_records(made):
    record, caption = load_json(made/"vocabulary_size.json")["metrics"], load_json(made/"fig_vocabulary_size.json")["caption"]
    top, bottom = caption.split("Bottom, equal compute")
    for p, language in (("fr", "French"), ("en", "English"), ("code", "code")):
        assert f"{record[f'best.{p}']['value']:,} pieces in {language} (" in top and f"{record[f'best_equal_compute.{p}']['value']:,} pieces in {language} (" in bottom
    assert ("Languages disagree at equal text" in caption) == (len({record[f"best.{p}"]["value"] for p in ("fr", "en", "code")}) > 1)


@pytest.mark.parametrize("nb, wrong, named", [(BALANCE, {"french_shares": [0, 100]}, "even split"), (SIZE, {"reference": "lab1k"}, "lab1k"), (SIZE, {"preset": "huge"}, "huge"), (SIZE, {"text_bytes": 100}, "text_bytes")])
def test_impossible_settings_are_named(nb, wrong, named, tmp_path, capsys):
    words = [x for k, v in wrong.items() for x in ("-p", k, json.dumps(v))]
    assert main([nb, str(tmp_path/"out.ipynb"), "-q", *words]) == 2 and named in capsys.readouterr().err
