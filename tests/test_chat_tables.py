"""Tables 6, 7, 13 and 14: averages follow from cells, cells from grades, and the lab's records stand apart."""
import json
import re
from fractions import Fraction
from pathlib import Path

import pytest
from pictures import leave_out

from croissant import chat_tables as C
from croissant.frenchbench.metrics import wilson
from croissant.params import BadInput
from croissant.provenance import load_table, save_json, save_table
from croissant.stage import run_stage

ROOT = Path(__file__).resolve().parents[1]
TRANSLATIONS = {"results": {f"{d}.{l}.{s}": {"chrf": {"value": v, "interval": [v - 3, v + 3], "n": 90}, "bleu": {"value": v / 3, "interval": [v / 3 - 1, v / 3 + 1], "n": 90}}
                            for d in ("software", "contes") for l in ("fr", "en") for s, v in (("copy", 20.), ("dictionary", 30. if d == "software" else 41.), ("translator", 44.))}}
CHAT = {"in_language": {"fr": {"value": .9, "interval": [.8, .95], "n": 60}}, "stops": {"value": .7, "interval": [.6, .8], "n": 60}}


def altered(table, folder, of, /, **cells):
    "The table with some cells changed, as a file."
    rows = load_table(table.path)
    assert any(r["model"] == of for r in rows) and set(cells) <= set(rows[0])
    return save_table([r | cells if r["model"] == of else r for r in rows], folder/"altered.csv")


@pytest.mark.parametrize("language,with_cells", [("fr", 4), ("en", 2)])
def test_averages_follow_from_the_printed_cells(language, with_cells):
    "By hand, in hundredths."
    table = C.GRADED[language]
    counted = 0
    for row in load_table(table.path):
        cells = [Fraction(str(row[c.key])) for c in table.columns if row[c.key] != ""]
        if not cells: continue
        counted += 1
        assert len(cells) == C.chat_test("mtbench.categories") and abs(sum(cells) / len(cells) - Fraction(str(row["average"]))) <= Fraction(1, 200), row["model"]
    assert counted == with_cells == sum(r["check"] == "equal" for r in C.grade_points(language))


@pytest.mark.parametrize("category", [c.key for c in C.GRADED["fr"].columns])
def test_a_changed_cell_is_found(category, tmp_path):
    "By its digits, since no twenty grades have such a mean, and by its average."
    table = C.GRADED["fr"]
    old = next(r[category] for r in load_table(table.path) if r["model"] == "TinyLlamaChat")
    rows = {r["task"]: r for r in C.grade_points("fr", altered(table, tmp_path, "TinyLlamaChat", **{category: old + .21})) if r["model"] == "TinyLlamaChat"}
    assert rows[category]["check"] not in ("whole grades", "half grades") and rows["average"]["check"] == "impossible"


def test_possible_means_by_enumeration():
    "All sums of few grades, counted out."
    for n in (2, 3, 7):
        reached = {k for total in range(n, 10 * n + 1) for k in range(100, 1001) if 2 * abs(100 * total - k * n) <= n}   # |total/n - k/100| <= 1/200
        assert {k for k in range(100, 1001) if C.possible_mean(f"{k / 100:.2f}", n)} == reached
    assert C.possible_mean("2.50", 1, Fraction(1, 2)) and not C.possible_mean("2.50", 1)


def test_digits_of_the_copied_cells():
    "One cell of both tables is no mean of twenty grades; listings by others show that halves and gaps occur."
    rows = [r for l in C.GRADED for r in C.grade_points(l) if r["task"] != "average"]
    odd = [(r["model"], r["language"], r["task"]) for r in rows if r["check"] not in ("whole grades", "half grades")]
    assert len(rows) == 48 and odd == [("CroissantLLMChat", "fr", "math")] and "CroissantLLMChat, math (fr) 1.16" in C.digits_sentence(rows)
    n = C.chat_test("mtbench.categories") * C.chat_test("mtbench.questions") * C.chat_test("mtbench.turns")
    assert C.chat_test("mtbench.listed_gpt4") * n == 1438.5 and round(C.chat_test("mtbench.listed_claude") * (n - 1), 3) == 1257


@pytest.mark.parametrize("model,id", [("GPT-4", "mtbench.listed_gpt4"), ("GPT-3.5", "mtbench.listed_gpt35")])
def test_larger_models_are_printed_as_others_list_them(model, id):
    printed = next(r["average"] for r in load_table(C.GRADED["en"].path) if r["model"] == model)
    assert round(C.chat_test(id), 2) == printed


def test_intervals_are_wilsons_on_the_scale():
    rows = {(r["model"], r["task"]): r for r in C.grade_points("en")}
    r = rows[C.CHAT, "stem"]
    assert (r["low"], r["high"]) == pytest.approx([1 + 9 * x for x in wilson(4 / 9 * 10, 10)]) and r["n"] == 10
    assert rows[C.CHAT, "average"]["n"] == 80 and rows["TinyLlamaChat", "average"]["verdict"] == "inside noise" and rows["GPT-4", "average"]["verdict"] == "higher"
    with pytest.raises(BadInput, match="off the scale"): C.grade_interval(11, 10, 1, 10)


@pytest.mark.parametrize("cells,word", [({"math": "1,45"}, "TinyLlamaChat, math"), ({"math": 0.5}, "no grade"), ({"math": ""}, "some categories only"), ({"average": ""}, "average"), ({"model": C.CHAT}, "two rows")])
def test_what_is_no_table_of_grades_is_refused(cells, word, tmp_path):
    with pytest.raises(BadInput, match=word): C.read_grades(C.GRADED["fr"], altered(C.GRADED["fr"], tmp_path, "TinyLlamaChat", **cells))


def test_summaries_and_translations_are_whole():
    "Table 7 has three models and five scores; Table 6 leaves out what the chat models were tuned on, and nothing else."
    summaries = load_table("reports/paper/table7_summarisation.csv")
    assert [r["model"] for r in summaries] == ["CroissantLLM", "Bloom 1.7B", "Mistral 7B"] and all(1 <= r[k] <= C.chat_test("summaries.highest") for r in summaries for k in ("coherence", "consistency", "fluidity", "relevance"))
    for r in load_table("reports/paper/table6_translation.csv"):
        empty = {k for k, v in r.items() if v == ""}
        assert empty == ({k for k in r if k.startswith("wmt14")} if "Chat" in r["model"] else set()), r["model"]


def test_a_record_of_translations_is_read_and_compared_with_its_floors():
    rows = C.lab_translations(TRANSLATIONS)
    assert len(rows) == 2 * len(TRANSLATIONS["results"]) and {r["metric"] for r in rows} == {"chrF", "BLEU"}
    assert C.above_floors(rows) == {("software", "fr"): True, ("contes", "fr"): False, ("software", "en"): True, ("contes", "en"): False}
    said = C.translation_sentence(rows)
    assert "messages of programs into French 44.0 [41.0, 47.0], n = 90 (word by word 30.0, source copied 20.0)" in said and "in 2 of 4" in said and "not there" in C.translation_sentence([])


@pytest.mark.parametrize("record,word", [({}, "no results"), ({"results": {"software.translator": {}}}, "domain.language.system"), ({"results": {"software.de.copy": {}}}, "domain.language.system"),
                                         ({"results": {"software.fr.copy": {"chrf": {"value": None}}}}, "no value"), ({"results": {"software.fr.copy": {"chrf": {"value": 2, "interval": [3, 4]}}}}, "outside its interval")])
def test_another_record_of_translations_is_refused(record, word, tmp_path):
    for given in (record, save_json(record, tmp_path/"translation.json")):
        with pytest.raises(BadInput, match=word): C.lab_translations(given)


@pytest.mark.parametrize("record,word", [({}, "neither"), ({"stops": {"fr": {"value": 70, "interval": [60, 80]}}}, "no share"), ({"stops": {"value": "often"}}, "no value")])
def test_another_record_of_chat_is_refused(record, word):
    with pytest.raises(BadInput, match=word): C.lab_shares(record)


def test_shares_are_found_at_any_depth():
    deep = {"in_language": {"flagship": {"fr": CHAT["stops"], "en": CHAT["stops"]}}, "other": {"value": 3}}
    assert [(r["share"], r["name"]) for r in C.lab_shares(deep)] == [("in_language", "flagship fr"), ("in_language", "flagship en")]


def test_lab_and_paper_share_no_column():
    paper = C.grade_points("fr")
    for r in C.flat_rows(paper, C.lab_translations(TRANSLATIONS)): assert (r["value"] == "") == (r["panel"] == "lab") and (r["lab_value"] == "") == (r["panel"] == "paper")


@pytest.mark.parametrize("name,table,given", [("tbl_mt_bench", C.GRADED["fr"].path, CHAT), ("tbl_translation", "reports/paper/table6_translation.csv", TRANSLATIONS), ("tbl_summaries", "reports/paper/table7_summarisation.csv", None)])
def test_notebook_draws_captions_from_numbers(name, table, given, tmp_path):
    for lab in ([""] if given is None else ["", str(save_json(given, tmp_path/"record.json"))]):
        rendered = bool(lab) or given is None     # once for each table
        with pytest.MonkeyPatch.context() as patch:
            if not rendered: leave_out(patch)
            run_stage(f"nbs/figures/{name}.ipynb", tmp_path/"out.ipynb", {"figures": str(tmp_path), "tables": str(tmp_path)} | ({} if given is None else {"lab": lab}), log=False)
        card = json.loads((tmp_path/f"{name}.json").read_text(encoding="utf-8"))
        assert card["scope"] == ("lab and paper" if lab else "paper") and table in card["inputs"] and (lab in card["inputs"] if lab else True)
        for text in (card["caption"], card["alt"]): assert len(text) > 200 and not re.search(r"\b(nan|None|inf)\b|\{|\}|TOY", text)
        assert "reproducible here" in card["caption"] and (given is None or ("not there" in card["caption"]) == (not lab))
        assert ((tmp_path/f"{name}.png").stat().st_size > 20_000) == rendered
        assert any(r["panel"] == "lab" for r in load_table(tmp_path/f"{name}.csv")) == bool(lab)
