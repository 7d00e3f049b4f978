"Every number on our pages has a source, is what the source says, and is missed where it does not."
import csv
import json
import re
import shutil

import pytest
import yaml

from croissant import own_numbers as O
from croissant import report as R
from croissant.params import BadInput, root

HERE = root()
README, RESULTS = ((HERE/p).read_text(encoding="utf-8") for p in ("README.md", "reports/results.md"))
RENDERED = [n for n in O.PAGES if n != "reports/model_card.md" or (HERE/"artifacts/checkpoints/flagship/manifest.json").is_file()]   # without the released model its card cannot be rendered


@pytest.fixture(scope="module")
def honest():
    return O.examine(["README.md", "reports/results.md"])


# ---- traced numbers
def test_a_traced_number_is_a_number():
    record = O.trace({"a": 3, "b": 1.5, "c": "4 cups", "d": True, "e": [1, 2], "f": None}, "toy.json#")
    assert record == {"a": 3, "b": 1.5, "c": "4 cups", "d": True, "e": [1, 2], "f": None} and record["d"] is True and isinstance(record["a"], int)
    assert json.loads(json.dumps(record)) == record and {record["c"]: 1}["4 cups"] == 1 and sorted([record["a"], 2]) == [2, 3]
    assert O.plain_text(f"{record['a']:,d} {record['b']:.2f} {record['c']}") == "3 1.50 4 cups"


@pytest.mark.parametrize("make,value", [(lambda a, b: a + b, 5), (lambda a, b: 7 - a, 4), (lambda a, b: a / b, 1.5), (lambda a, b: 2 * a, 6), (lambda a, b: 100 * a / b, 150), (lambda a, b: sum([a, b]), 5),
                                        (lambda a, b: -a, -3), (lambda a, b: round(a / b, 1), 1.5), (lambda a, b: 6 // a, 2), (lambda a, b: a % b, 1), (lambda a, b: 1e6 / (a / 1), 1e6 / 3), (lambda a, b: a - 1.5, 1.5)])
def test_arithmetic_keeps_origins(make, value):
    made = make(O.trace(3, "t#a"), O.trace(2, "t#b"))
    assert made == value and made.origin and made.origin <= {"t#a", "t#b"}


def test_pieces_of_a_text_keep_its_origin():
    text = O.trace("CC-BY-SA-4.0; package: MIT", "t#1.licence")
    assert str(text).split("; ")[0].origin == text.origin and text.replace("MIT", "GPL").origin == text.origin and text.partition("; ")[0].removesuffix("4.0").origin == text.origin


def test_tracing_puts_the_loaders_back():
    before = {n: getattr(R, n) for n in ("load_json", "load_table", "metric", "fact")}
    with pytest.raises(BadInput), O.tracing(R): R.render("{{training/nothing}}")
    assert {n: getattr(R, n) for n in before} == before


# ---- pages
@pytest.mark.parametrize("name", RENDERED)
def test_marks_change_nothing_but_themselves(name):
    module, renderer, others = O.PAGES[name]
    marked = O.marked_page(name)
    assert len(O._MARKED.findall(marked)) > 20
    with pytest.MonkeyPatch.context() as m:
        for k, f in others.items(): m.setattr(module, k, f)
        assert O.plain_text(marked) == renderer()


def test_our_pages_are_what_their_sources_say():
    assert O.examine(RENDERED)["wrong"] == []


@pytest.mark.parametrize("page", ["README.md", "reports/results.md"])
def test_prose_has_nothing_typed_and_every_reference_has_its_row(honest, page):
    assert honest["wrong"] == [] and not honest["absent"]
    keys = {r["key"] for r in honest["rows"] if r["document"] == page}
    cells = json.loads((HERE/R.NOTEBOOK_PAGES[page]).read_text(encoding="utf-8"))["cells"]
    asked = set(re.findall(r"\{\{([\w/.]+?)±?\|", "".join("".join(c["source"]) for c in cells)))
    assert len(asked) > (30 if page == "README.md" else 100)
    for key in asked:   # words such as `no difference seen` hold no digit
        file, _, metric = key.partition("/")
        assert f"reports/metrics/{file}.json#{metric}" in keys or metric.endswith((".verdict", ".takes")), key
    if page == "README.md": assert {"settings.ini#min_python"} <= keys


def digit_runs(text):
    return [m for m in re.finditer(r"\d+", text)]


CHANGED = [(page, n) for page, text, what in (("README.md", README, r"\| French, bits per byte|claims in the ledger|tests cover"), ("reports/results.md", RESULTS, r"\| translation pairs|chrF into French|`q8_0`"))
           for n, line in enumerate(text.split("\n")) if re.search(what, line) and re.search(r"\d", line)]


@pytest.mark.parametrize("page,line", CHANGED)
def test_a_changed_digit_in_prose_is_named(page, line):
    lines, marked = (HERE/page).read_text(encoding="utf-8").split("\n"), O.marked_page(page).split("\n")[line]
    m = [m for m in O._MARKED.finditer(marked) if re.search(r"\d", m[2])][-1]
    at = len(O.plain_text(marked[:m.start()])) + re.search(r"\d", m[2]).start()
    lines[line] = lines[line][:at] + str((int(lines[line][at]) + 1) % 10) + lines[line][at + 1:]
    wrong = O.examine([page], {page: "\n".join(lines)})["wrong"]
    key = "; ".join(O.short(O._origins[int(m[1])]))
    assert len(wrong) == 1 and wrong[0].startswith(f"{page} line {line + 1}: {key} renders {m[2]}")


def test_a_sentence_added_to_the_readme_is_named():
    lines = README.split("\n")
    wrong = O.examine(["README.md"], {"README.md": "\n".join([*lines[:20], "It knows 12 verbs.", *lines[20:]])})["wrong"]
    assert "README.md line 21" in wrong[0] and "It knows 12 verbs."[:8] in wrong[0]


def test_a_number_typed_into_the_index_is_named(tmp_path, monkeypatch):
    index = json.loads((HERE/"nbs/index.ipynb").read_text(encoding="utf-8"))
    index["cells"][2]["source"] = ["It scores -0.84 on 12 tasks of Table 8, see `x[1]`."]
    monkeypatch.setattr(O, "load_json", lambda path, load=O.load_json: index if path == "nbs/index.ipynb" else load(path))
    line = O.plain_text(O.marked_page("README.md")).split("It scores -0.84")[0].count("\n") + 1
    typed = [w for w in O.examine(["README.md"])["wrong"] if "comes from no record" in w]
    assert [(f"README.md line {line}" in w, n in w) for w, n in zip(typed, ("0.84", "12"))] == [(True, True)] * 2 and len(typed) == 2
    with pytest.raises(BadInput, match="0.84.*render it"): O.own_numbers(["README.md"])


def test_a_number_typed_into_a_template_of_the_report_is_named(monkeypatch):
    monkeypatch.setattr(O, "_said", lambda module, said=O._said: said(module) + ["on 9 of 10 days"])
    monkeypatch.setattr(R, "_FMTI", R._FMTI + "<p>It rains on 9 of 10 days.</p>")
    assert any("on 9 of 10 days" in w for w in O.examine(["reports/report.html"])["wrong"])


# ---- sources
@pytest.fixture
def changed(tmp_path, monkeypatch):
    "A copy of the records in which a metric may be changed; the released model is not in it."
    for part in ("reports/metrics", "reports/tables", "reports/paper"): shutil.copytree(HERE/part, tmp_path/part)
    for part in ("README.md", "reports/results.md", "nbs/index.ipynb", "nbs/results.ipynb", "Makefile", "settings.ini", "params.yaml", "sources.csv", "CITATION.cff", *(f"reports/{n}" for n in ("stages.csv", "source_facts.csv", "data_card.md", "report.html"))):
        (tmp_path/part).parent.mkdir(parents=True, exist_ok=True); shutil.copy(HERE/part, tmp_path/part)
    monkeypatch.setenv("CROISSANT_ROOT", str(tmp_path))
    def set_value(file, metric, value):
        path = tmp_path/f"reports/metrics/{file}.json"
        record = json.loads(path.read_text(encoding="utf-8")); record["metrics"][metric]["value"] = value
        path.write_text(json.dumps(record), encoding="utf-8")
    return set_value


def test_a_changed_metric_is_caught_on_the_page_and_in_the_table(changed, tmp_path):
    before = O.examine(["README.md"])
    assert before["wrong"] == []
    changed("training", "tokens_seen", 7)
    found = O.examine(["README.md"])
    assert found["wrong"] and "training.json#tokens_seen renders 7" in found["wrong"][0] and "README.md line" in found["wrong"][0]
    row = lambda rows: next(r for r in rows if r["key"].endswith("training.json#tokens_seen"))
    assert row(found["rows"])["sha256"] != row(before["rows"])["sha256"] and row(found["rows"])["rendered"] == "7"
    state, reason = O.check_own_numbers()
    assert state == "failed" and "tokens_seen renders 7" in reason


def test_a_forged_row_of_the_table_is_caught(changed, tmp_path):
    path = tmp_path/O.TABLE
    text = path.read_text(encoding="utf-8")
    with path.open(encoding="utf-8", newline="") as f: row = next(r for r in csv.DictReader(f) if r["key"].endswith("training.json#tokens_seen"))
    state, reason = O.check_own_numbers()
    assert state == "skipped" and "numbers of 4 pages" in reason and "not rendered here: reports/model_card.md" in reason
    path.write_text(text.replace(row["sha256"], "0" * 16, 1), encoding="utf-8")
    state, reason = O.check_own_numbers()
    assert state == "failed" and "recorded otherwise" in reason
    path.unlink()
    assert O.check_own_numbers()[0] == "skipped"


# ---- the table
def test_the_tracked_table_is_fresh_and_whole():
    with (HERE/O.TABLE).open(encoding="utf-8", newline="") as f: stored = list(csv.DictReader(f))
    assert tuple(stored[0]) == O.COLUMNS and {r["document"] for r in stored} == set(O.PAGES)
    now = O.examine(RENDERED)["rows"]
    assert [r for r in stored if r["document"] in RENDERED] == [{k: str(v) for k, v in r.items()} for r in now]
    for r in stored:
        assert r["key"] and r["stage"] and all(re.fullmatch(r"[0-9a-f]{16}", s) for s in r["sha256"].split("; ")) and len(r["source"].split("; ")) == len(r["sha256"].split("; "))
    fr = next(r for r in stored if r["document"] == "README.md" and r["key"] == "reports/metrics/bits_per_byte.json#fr")
    record = json.loads((HERE/"reports/metrics/bits_per_byte.json").read_text(encoding="utf-8"))["metrics"]["fr"]
    assert fr["rendered"] == f"{record['value']:.2f}" and fr["n"] == str(record["n"]) and fr["stage"] == "evaluate" and fr["interval"] == " to ".join(f"{x:.6g}" for x in record["interval"])


def test_every_source_is_a_dependency_of_the_stage():
    stage = yaml.safe_load((HERE/"dvc.yaml").read_text(encoding="utf-8"))["stages"]["own_numbers"]
    with (HERE/O.TABLE).open(encoding="utf-8", newline="") as f: sources = {s for r in csv.DictReader(f) for s in r["source"].split("; ")}
    assert len(sources) > 20 and not [s for s in sorted(sources) if not any(s == d or s.startswith(d + "/") for d in stage["deps"])]


def test_unknown_pages_are_refused():
    with pytest.raises(BadInput, match="not a page"): O.marked_page("POLICY.md")
