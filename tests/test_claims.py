"The ledger of claims: its form, its verdicts, and that a changed number changes them."
import csv, re, shutil
from functools import cache
from pathlib import Path

import pytest

from croissant import claims as C
from croissant import findings as F
from croissant.params import BadInput, root

HERE = root()
LEDGER = C.read_ledger(HERE)
CHECKED = [r for r in LEDGER if r["check"]]
ARITHMETIC = [r for r in CHECKED if "metric:" not in r["check"] + r["reported"]]
PRINTED = [r for r in ARITHMETIC if re.fullmatch(r"\{(facts|table):[^{}]*\}", r["reported"])]
HOLDS = {"verified", "transcribed"}
name = lambda r: r["id"]


@cache
def judged(): return C.verify_claims(HERE)


@cache
def page(): return F.discrepancies_page(HERE)


@pytest.fixture(scope="module")
def numbers(tmp_path_factory):
    "A copy of the paper's numbers that tests may falsify (and restore)."
    base = tmp_path_factory.mktemp("claims")
    shutil.copytree(HERE/"reports/paper", base/"reports/paper")
    shutil.copytree(HERE/"reports/metrics", base/"reports/metrics")
    shutil.copy(HERE/"reports/claims.csv", base/"reports/claims.csv")
    return base


def falsify(base, address, change):
    "Rewrite the cells at an address; returns a function that restores the file."
    kind, _, rest = address.partition(":")
    if kind == "facts": rest = f"facts.csv#{rest}/value"
    file, _, where = rest.partition("#")
    key, _, column = where.rpartition("/")
    path = base/"reports/paper"/file
    before = path.read_text(encoding="utf-8")
    with path.open(encoding="utf-8", newline="") as f: rows = list(csv.DictReader(f))
    names = list(rows[0])
    first, _, last = column.partition(":")
    for r in C._chosen(rows, key):
        for c in names[names.index(first):names.index(last or first) + 1]:
            if r[c] != "": r[c] = repr(change(float(r[c])))
    with path.open("w", encoding="utf-8", newline="") as f:
        w = csv.DictWriter(f, names, lineterminator="\n"); w.writeheader(); w.writerows(rows)
    return lambda: path.write_text(before, encoding="utf-8")


def write_ledger(base, rows):
    path = Path(base)/"reports/claims.csv"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as f:
        w = csv.DictWriter(f, C.COLUMNS, lineterminator="\n"); w.writeheader(); w.writerows(rows)
    return base


# ---- the ledger's form
def test_ledger_is_large_and_well_formed():
    assert len(LEDGER) >= 60 and len({r["id"] for r in LEDGER}) == len(LEDGER)
    assert all(r["locator"].strip() and r["status"] in C.STATUSES for r in LEDGER)
    assert {r["status"] for r in LEDGER} == set(C.STATUSES)


def test_every_expectation_holds():
    rows = judged()
    assert [r["id"] for r in rows if r["changed"]] == []
    assert all("{" not in r["claim"] for r in rows)


def test_evidence_names_files_and_digests():
    for r in judged():
        if r["recomputed"] == "": continue
        for e in r["evidence"].split("; "): assert re.fullmatch(r"[\w./]+@[0-9a-f]{64}", e), r["id"]


def test_two_copies_of_one_number_verify_nothing():
    counts = C.count_claims(judged())
    assert counts["total"] == len(LEDGER) == sum(counts[v.replace(" ", "_")] for v in C.VERDICTS)
    assert counts["transcribed"] == counts["status_transcription"] > 0
    computed = [r for r in LEDGER if r["expected"] == "verified"]
    assert counts["verified"] == len(computed)
    for r in computed:   # arithmetic on what the paper prints, an independent run, a count from a shape, or a record of ours
        addresses = C.references(r["check"])
        bare = r["check"].strip() == "{" + addresses[0] + "}" and r["relation"] == "="
        files = {a.partition(":")[2].partition("#")[0] for a in [*addresses, *C.references(r["reported"])]}
        assert not bare or len(files) == 1 or "independent_rerun.csv" in files, r["id"]


def test_notes_are_computed(numbers):
    row = next(r for r in LEDGER if r["id"] == "fmti-total")
    assert "smaller by 1." in C.judge(row, numbers)["note"] and "fmti_figure8.csv@" in C.judge(row, numbers)["evidence"]
    restore = falsify(numbers, "facts:fmti.claimed", lambda x: x + 4)
    try: assert "smaller by 5." in C.judge(row, numbers)["note"]
    finally: restore()
    with pytest.raises(BadInput, match="fmti-total"): C.judge(row | {"note": "[[open('x')]]"}, numbers)


@pytest.mark.parametrize("text,words,found", [("17 days", False, ["17"]), ("half of Table 9", True, ["half"]), ("half of it", False, []), ("Two of them", True, ["Two"]),
    ("a Llama2 7B of 3B, section 3.4, Tables 3 and 4, 4-bit, WMT14", True, []), ("[[1 + 1|.2f]] and {facts:a2}", True, []), ("about 4.5 per cent", True, ["4.5"])])
def test_typed_numbers(text, words, found):
    assert C.typed_numbers(text, words) == found


def test_reason_for_everything_left_out():
    assert all(len(r["note"]) > 15 for r in LEDGER if r["status"] == "not reproducible here")


@pytest.mark.parametrize("change,message", [
    ({"status": "true"}, "status"), ({"expected": "fine"}, "expected verdict"), ({"locator": " "}, "no locator"),
    ({"status": "not reproducible here"}, "disagree"), ({"relation": "~"}, "relation"), ({"check": ""}, "no check"),
    ({"claim": "It takes 17 days."}, "typed"), ({"note": "Off by two thirds."}, "typed in the note"), ({"expected": "transcribed"}, "disagree"), ({"status": "transcription"}, "disagree"),
    ({"reported": "{facts:train.tokens_total_b}", "check": "{table:mix_total.csv#tokens_seen_b/value}"}, "verifies nothing"), ({"status": "not reproducible here", "expected": "not reproducible", "note": ""}, "no reason")])
def test_malformed_rows_are_named(tmp_path, change, message):
    with pytest.raises(BadInput, match=message) as e: C.read_ledger(write_ledger(tmp_path, [dict(ARITHMETIC[0]) | {"note": ""} | change]))
    assert ARITHMETIC[0]["id"] in str(e.value)


def test_ledger_files_that_are_not_ledgers(tmp_path):
    with pytest.raises(BadInput, match="no ledger"): C.read_ledger(tmp_path)
    with pytest.raises(BadInput, match="twice"): C.read_ledger(write_ledger(tmp_path, [ARITHMETIC[0]]*2))
    with pytest.raises(BadInput, match="columns"): C.read_ledger(write_ledger(tmp_path, []))
    (tmp_path/"reports/claims.csv").write_text(",".join(C.COLUMNS) + "\na,b\n", encoding="utf-8")
    with pytest.raises(BadInput, match="cells"): C.read_ledger(tmp_path)


# ---- mutation: falsify a number, and the verdict must follow
@pytest.mark.parametrize("row", PRINTED, ids=name)
def test_a_changed_report_flips_the_verdict(numbers, row):
    "A verified number is moved away from the recomputed one; a discrepant one is moved onto it."
    before = C.judge(row, numbers)
    reported, within = float(before["reported_value"]), before["allowed"]
    away = {"=": 1, "<": -1, "<=": -1, ">": 1, ">=": 1}[row["relation"]]   # the direction that breaks the relation
    moved = before["recomputed"]
    if before["verdict"] in HOLDS: moved += away*(4*within + 0.5*abs(reported) + 1) if not row["tolerance"].startswith("=") else -0.5*moved
    restore = falsify(numbers, C.references(row["reported"])[0], lambda x: moved)
    try: after = C.judge(row, numbers)
    finally: restore()
    assert len({before["verdict"], after["verdict"]} & HOLDS) == 1 and "discrepant" in (before["verdict"], after["verdict"])
    assert C.judge(row, numbers)["verdict"] == row["expected"] and after["changed"]


@pytest.mark.parametrize("row", ARITHMETIC, ids=name)
def test_every_input_counts(numbers, row):
    "Each address in a check takes part: changing what it names changes the result, or is refused."
    before = C.judge(row, numbers)["recomputed"]
    for address in dict.fromkeys(C.references(row["check"])):
        if address.startswith("model:") or row["check"].startswith(("max(", "count(")): continue
        restore = falsify(numbers, address, lambda x: 1.7*x + 1)
        try: assert C.judge(row, numbers)["recomputed"] != before, address
        finally: restore()


def test_main_fails_when_a_verdict_changes(numbers, capsys):
    assert C.main([str(numbers)]) == 0
    restore = falsify(numbers, "facts:compute.energy_mwh", lambda x: x + 1)
    try: assert C.main([str(numbers)]) == 1
    finally: restore()
    out = capsys.readouterr().out
    assert "CHANGED compute-energy: discrepant" in out and "50.2" in out and "CHANGED compute-co2:" in out


def test_main_reports_wrong_input(tmp_path, capsys):
    assert C.main([str(tmp_path)]) == 2
    assert "no ledger" in capsys.readouterr().err


# ---- addresses
def test_addresses(numbers):
    assert C.printed("facts:compute.co2_t", numbers) == "2.80"
    assert C.lookup("table:table8_inference.csv#CroissantLLM,en/words_per_second", numbers) == 111.41
    assert C.lookup("table:table5_frenchbench_gen.csv#GPT-fr 1B/fgenq:trivia", numbers) == [0.04, 0.02, 0.05, 0.11]   # empty cells are skipped
    assert len(C.lookup("table:french_sources.csv#*/tokens_m", numbers)) == 25                                        # without the total
    assert C.lookup("model:base.total", numbers) == C.count_parameters(C.PRESETS["base"])["total"]


@pytest.mark.parametrize("address", [
    "facts:nothing", "table:none.csv#a/b", "table:mix.csv#Klingon/gb", "table:mix.csv#French/parsecs", "table:mix.csv#part=Klingon/gb",
    "model:huge.total", "model:base.soul", "web:page", "facts:train.steps:x", "table:mix.csv#French/part"])
def test_addresses_that_lead_nowhere(numbers, address):
    with pytest.raises(BadInput): C.lookup(address, numbers)
    row = dict(ARITHMETIC[0]) | {"check": f"{{{address}}}"}
    with pytest.raises(BadInput, match=row["id"]): C.judge(row, numbers)


def test_a_column_is_not_a_printed_number(numbers):
    with pytest.raises(BadInput, match="names 4 cells"): C.printed("table:mix.csv#*/gb", numbers)
    with pytest.raises(BadInput, match="only facts and table"): C.printed("model:base.total", numbers)


# ---- our own records
def test_lab_rows_wait_for_their_records(tmp_path, numbers):
    from croissant.provenance import measured, save_json
    lab = dict(ARITHMETIC[0]) | {"id": "lab", "claim": "Better than {value}.", "status": "reproduced at lab scale", "reported": "{metric:toy/acc@chance}",
                                 "relation": ">", "check": "{metric:toy/acc}", "tolerance": "0"}
    base = write_ledger(tmp_path, [lab])
    row, = C.verify_claims(base)
    assert row["verdict"] == "not run" and not row["changed"] and "toy.json" in row["note"]
    assert C.verify_claims(base, strict=True)[0]["changed"]
    save_json({"metrics": {"acc": measured(0.7, "accuracy", chance=0.5)}}, tmp_path/"reports/metrics/toy.json")
    row, = C.verify_claims(base)
    assert row["verdict"] == "verified" and row["claim"] == "Better than 0.5." and "toy.json@" in row["evidence"]
    save_json({"metrics": {"acc": measured(0.4, "accuracy", chance=0.5)}}, tmp_path/"reports/metrics/toy.json")
    assert C.verify_claims(base)[0]["changed"]
    assert C.judge(lab | {"check": "{metric:toy/f1}"}, base)["verdict"] == "not run"
    assert C.judge(lab | {"reported": "{metric:toy/acc@trigram}"}, base)["verdict"] == "not run"
    assert C.judge(lab | {"check": "{metric:toy/acc@low}"}, base)["verdict"] == "not run"
    save_json({"metrics": {"acc": measured(0.6, "accuracy", interval=(0.45, 0.7), chance=0.5)}}, tmp_path/"reports/metrics/toy.json")
    assert C.judge(lab | {"check": "{metric:toy/acc}"}, base)["verdict"] == "verified"
    assert C.judge(lab | {"check": "{metric:toy/acc@low}"}, base)["verdict"] == "discrepant"   # noise is no evidence
    assert C.lookup("metric:toy/acc@high", base) == 0.7


# ---- the evaluator
def test_arithmetic():
    find = {"facts:a": 2.0, "table:t#*/c": [1.0, 2.0, 6.0]}.__getitem__
    for text, value in [("1 + 2*3", 7), ("-{facts:a} ** 2", -4), ("(8 - 2) / 4", 1.5), ("sum({table:t#*/c})", 9), ("mean({table:t#*/c})", 3),
                        ("count({table:t#*/c}) + 1e3", 1003), ("max({table:t#*/c}, 7) - min({table:t#*/c})", 6), ("4 ** 0.5", 2)]:
        assert C.evaluate(text, find) == value, text
    assert C.references("{facts:a} + {table:t#*/c}") == ["facts:a", "table:t#*/c"]


@pytest.mark.parametrize("text", [
    "x", "_0", "__import__('os')", "open('f')", "(1).real", "[1, 2]", "{1: 2}", "1 if 1 else 2", "1 < 2", "True", "'a'", "lambda: 1", "1 // 2", "1 % 2",
    "1 @ 2", "~1", "not 1", "1 and 2", "sum", "sum()", "sum(x=1)", "sum(*[1])", "eval(1)", "1 +", "", "1; 2", "9**9**9", "1/0", "1e308*10**60", "{table:t#*/c}",
    "{table:t#*/c} + 1", "(1, 2)", "f'{1}'", "[i for i in (1,)]", "a := 1", "1j"])
def test_anything_but_arithmetic_is_refused(text):
    with pytest.raises(BadInput): C.evaluate(text, lambda a: [1.0, 2.0])


def test_tolerances():
    find = {"facts:n": 100.0}.__getitem__
    assert C.tolerance("printed", 2.8, "2.80", find) == 0.005 and C.tolerance("printed", 190000, "190000", find) == 0.5
    assert C.tolerance("2%", -50, "", find) == 1 and C.tolerance("", 1, "1", find) == 0
    assert C.tolerance("=1/{facts:n}", 1, "1", find) == 0.01
    for rule, text in [("about", "1"), ("x%", "1"), ("printed", "")]:
        with pytest.raises(BadInput, match="tolerance"): C.tolerance(rule, 1, text, find)
    with pytest.raises(BadInput, match="Call"): C.tolerance("=open(1)", 1, "1", find)


def test_derived_fertility_follows_from_table_8():
    "`fertility.csv` is derived, not printed: tokens a second over words a second."
    names = {"Llama2-7B": "Llama2 7B", "Llama2-13B": "Llama2 13B", "TinyLlama": "TinyLlama 1.1B"}
    with (HERE/"reports/paper/fertility.csv").open(encoding="utf-8", newline="") as f:
        for r in csv.DictReader(f):
            cell = f"table:table8_inference.csv#{names.get(r['model'], r['model'])},{r['language'][:2].lower()}"
            ratio = C.lookup(f"{cell}/tokens_per_second", HERE) / C.lookup(f"{cell}/words_per_second", HERE)
            assert abs(ratio - float(r["tokens_per_word"])) <= 0.0005001


# ---- what does not add up
FINDINGS = [r for r in F.read_findings(HERE) if r["kind"] == "finding"]
SUBJECTS = ["Figure 8", "Table 10", "extrapolated", "Byte fallback", "held-out text of the web", "test set", "language-ratio", "plain accuracy", "vocabulary test", "lead their class", "hours times rate", "stop tokens"]


@pytest.fixture
def found(tmp_path, numbers):
    "A copy of everything that the page is made of."
    shutil.copytree(numbers/"reports", tmp_path/"reports")
    shutil.copy(HERE/F.FINDINGS, tmp_path/F.FINDINGS)
    return tmp_path


def test_the_findings_are_those_a_reviewer_should_see_first():
    assert [next((s for s in SUBJECTS if s in r["title"]), r["title"]) for r in FINDINGS] == SUBJECTS


@pytest.mark.parametrize("finding", FINDINGS, ids=name)
def test_each_finding_is_on_the_page_with_its_arithmetic(finding):
    verdicts = {r["id"]: r for r in judged()}
    part = page().partition(f'<a id="{finding["id"]}"></a>')[2].partition("<a id=")[0]
    assert finding["title"] in part and "A reading that would reconcile it" in part
    ids = finding["claims"].split()
    assert any(verdicts[i]["verdict"] in ("discrepant", "not reproducible") or i == "rerun-hellaswag-fr-normalised" for i in ids), "no row of the ledger says so"
    for i in ids:
        rows = part.partition(f"**`{i}`**")[2].partition("**`")[0]
        assert verdicts[i]["locator"] in rows and f"| verdict | {verdicts[i]['verdict']} |" in rows and f"croissant verify --claim {i}" in rows
        if verdicts[i]["recomputed"] != "": assert re.search(rf"\| (printed|from printed numbers|compared with) \| {re.escape(verdicts[i]['reported_value'])}", rows) and "| formula |" in rows and "| apart |" in rows
        else: assert "| note |" in rows


def test_every_discrepant_claim_is_on_the_page(found):
    text = F.discrepancies_page(found)
    assert text == page() == (HERE/F.PAGE).read_text(encoding="utf-8"), "run `dvc repro discrepancies`"
    assert all(f"**`{r['id']}`**" in text for r in LEDGER if r["expected"] == "discrepant") and str(found) not in text
    findings = (found/F.FINDINGS).read_text(encoding="utf-8")
    (found/F.FINDINGS).write_text("\n".join(r for r in findings.splitlines() if not r.startswith("gutenberg")) + "\n", encoding="utf-8")
    with pytest.raises(BadInput, match="french-gutenberg"): F.discrepancies_page(found)


@pytest.mark.parametrize("change,message", [(("gutenberg,other", "gutenberg,rumour"), "kind"), (("french-gutenberg", "french-hugo"), "no claim 'french-hugo'"), (("An earlier count", "A count of 1900"), "1900 is typed"),
                                            (("An earlier count may", "Two counts may"), "Two is typed"), (("An earlier count may stay", ""), None), ((",french-gutenberg,", ",,"), "no claims")])
def test_malformed_findings_are_named(found, change, message):
    text = (found/F.FINDINGS).read_text(encoding="utf-8")
    if message is None: (found/F.FINDINGS).unlink(); message = "no such file"
    else: assert change[0] in text; (found/F.FINDINGS).write_text(text.replace(*change, 1), encoding="utf-8")
    with pytest.raises(BadInput, match=message): F.read_findings(found)


def test_the_page_follows_the_numbers(numbers, found):
    restore = falsify(found, "facts:fmti.claimed", lambda x: x + 4)
    text = F.discrepancies_page(found)
    restore()
    assert "| printed | 85.0 percent |" in text and "| printed | 81 percent |" not in text and "| printed | 81 percent |" in F.discrepancies_page(found)


@pytest.mark.parametrize("row", CHECKED, ids=name)
def test_formulas_are_spelled_out(row):
    "Words and numbers hold no address any more, and the numbers give the computed value where no long column is summed."
    words, shown = F.in_words(row["check"], HERE), F.in_numbers(row["check"], HERE)
    assert "{" not in words + shown and words.count("[") == len(C.references(row["check"]))
    if " numbers" not in shown:
        again = C.evaluate(shown.replace(" × ", " * ").replace(" ÷ ", " / ").replace(" − ", " - "), lambda a: 0.)
        assert again == pytest.approx(C.judge(row, HERE)["recomputed"], rel=1e-6)


def test_words_come_from_the_tables():
    assert F.in_words("{facts:compute.energy_mwh} / {table:mix.csv#French/epochs}", HERE) == "[energy of the whole project] ÷ [epochs of French (mix.csv)]"
    assert F.in_words("sum({table:french_sources.csv#kind=web/tokens_m})", HERE) == "sum([tokens in millions of the rows with kind web (french_sources.csv)])"
    assert "items of our fertility/changed.paper32k" in F.in_words("{metric:fertility/changed.paper32k@n}", HERE)


def test_one_claim_on_the_command_line(capsys):
    from croissant import cli
    assert cli.main(["verify", "--claim", "fmti-total"]) == 0
    out = capsys.readouterr().out
    assert "computed again" in out and "80" in out and "discrepant" in out and "100 × sum([" in out
    assert cli.main(["verify", "--claim", "fmti-sum"]) == 2 and "near it: fmti-total" in capsys.readouterr().err


@pytest.mark.parametrize("id,what", [("fmti-total", "printed"), ("compute-utilisation", "from printed numbers"), ("lab-byte-fallback", "compared with"), ("tokenizer-byte-fallback", "compared with"), ("ratio-capacity", "printed")])
def test_only_what_the_paper_prints_is_called_printed(id, what):
    lines = dict(F.claim_lines(next(r for r in LEDGER if r["id"] == id), HERE))
    assert [k for k in ("printed", "from printed numbers", "compared with") if k in lines] == [what]
