"""Numbers in prose are rendered from tracked files, and everything rendered is fresh."""
import ast
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from croissant import report
from croissant.params import BadInput
from croissant.provenance import load_table, metric

ROOT = Path(__file__).resolve().parents[1]
INDEX = json.loads((ROOT/"nbs/index.ipynb").read_text(encoding="utf-8"))
# What may hold a digit in prose: code, links, references, places in the paper, names of things (a model size, a format, a paper), and a formula, which has a variable.
NAMES = re.compile(r"""```.*?```|`[^`]*`|\$(?=[^$\n]*[a-zA-Z])[^$\n]*\$|\{\{.*?\}\}|\]\([^)]*\)|<[^>]*>|&\w+;
    |arXiv:?\s?[\d.]+v?\d*|Apache-2\.0|Python\ 3\.11|UTF-8|SHA-256|MD5|\bT\d\b|CC\ BY(-SA)?\ 4\.0|Llama\ ?[23]|SmolLM2|Qwen2\.5|Mistral\ 7B|GPT-[24]o?|PaLM\ 2|October\ 2023|v1\.0|ROUGE-1|\bL2\b
    |\b([Ss]ections?|[Tt]ables?|[Ff]igures?|[Aa]ppendix)\ [\dA-F][\d.]*(?:(?:,|\ and|\ to)\ \d+)*|\b\d\d_[a-z]+|\b95\ %|\b8\ bits\b""", re.S | re.X)


def digits_in(text):
    return re.findall(r"[^\n]*\d[^\n]*", NAMES.sub("", text))


def test_a_formula_may_hold_a_digit_and_a_result_may_not():
    assert not digits_in("with probability $2^{1-n}$") and digits_in("with probability $0.66$") and digits_in("$n$ seeds, of which 3 agree, and $m$ others")


def cells(path, kind):
    return ["".join(c["source"]) for c in json.loads(Path(path).read_text(encoding="utf-8"))["cells"] if c["cell_type"] == kind]


def literals(node):
    "The typed parts of a string expression: constants and what stands between the braces of an f-string, without formats."
    if isinstance(node, ast.Constant): return [node.value] if isinstance(node.value, str) else []
    if isinstance(node, ast.FormattedValue): return literals(node.value) if isinstance(node.value, ast.Constant) else []
    if isinstance(node, (ast.Subscript, ast.Compare)): return []          # keys of records are no prose
    return [t for child in ast.iter_child_nodes(node) for t in literals(child)]


def said(path):
    "Everything that a figure notebook says in its card or writes on its axes."
    found = []
    for node in ast.walk(ast.parse("\n".join(cells(path, "code")))):
        if isinstance(node, ast.Assign) and any(getattr(t, "id", "") in ("caption", "alt") for t in node.targets): found += literals(node.value)
        if not isinstance(node, ast.Call): continue
        name = getattr(node.func, "id", getattr(node.func, "attr", ""))
        if name == "save_figure": found += [t for a in [*node.args[2:6], *(k.value for k in node.keywords if k.arg in ("title", "caption", "alt"))] for t in literals(a)]
        if name in ("set_title", "set_xlabel", "set_ylabel", "suptitle"): found += literals(node.args[0])
        if name == "set": found += [t for k in node.keywords if k.arg in ("xlabel", "ylabel", "title") for t in literals(k.value)]
    return found


def test_readme_source_types_no_number():
    prose = "\n".join("".join(c["source"]) for c in INDEX["cells"] if c["cell_type"] == "markdown")
    assert not digits_in(prose), "render the number with {{metric}} instead of typing it"


def test_report_prose_types_no_number():
    tree = ast.parse((ROOT/"croissant/report.py").read_text(encoding="utf-8"))
    prose = {t.id: n.value.value for n in tree.body if isinstance(n, ast.Assign) and isinstance(n.value, ast.Constant) and isinstance(n.value.value, str) for t in n.targets}
    assert {"_LIMITS", "_RESULTS", "_CLAIMS", "_FMTI"} <= set(prose)
    for name, text in prose.items():
        assert name == "_STYLE" or not digits_in(text), f"{name}: render the number with {{{{metric}}}} instead of typing it"
    page = next(n for n in tree.body if isinstance(n, ast.FunctionDef) and n.name == "report_html")
    tags = re.compile(r"<[^>]*(>|$)|^[^<>]*>")   # an f-string may cut a tag in two
    assert not [d for t in literals(page) for d in digits_in(tags.sub("", t))], "report_html types a number"


def test_claims_type_no_number():
    from croissant.claims import read_ledger, typed_numbers
    assert not {r["id"]: found for r in read_ledger(ROOT) if (found := typed_numbers(r["claim"]) + typed_numbers(r["note"], words=True))}


@pytest.mark.parametrize("path", sorted(p for d in ("stages", "figures") for p in (ROOT/"nbs"/d).glob("*.ipynb")), ids=lambda p: p.stem)
def test_prose_of_stages_and_figures_types_no_number(path):
    found = [d for text in cells(path, "markdown") for d in digits_in(text)]
    assert not found, "render the number, or say it without one"


@pytest.mark.parametrize("path", sorted((ROOT/"nbs/figures").glob("*.ipynb")), ids=lambda p: p.stem)
def test_captions_type_no_number(path):
    texts = said(path)
    assert texts, "a figure says something"
    assert not [d for t in texts for d in digits_in(t)], "render the number from the rows that are drawn"


def test_the_lint_can_fail(tmp_path):
    assert digits_in("accuracy is 0.84") and digits_in("we trained 3 models") and not digits_in("see `x[0]`, Tables 3 and 4, and {{a/b|.2f}}")
    nb = {"cells": [{"cell_type": "code", "source": ["caption = (f'{n:,} of 12 pairs' + f'{x:.2f}')\n", "save_figure(fig, 'a', 'Top 5', 'Table 4', caption, alt=f'{y[0]:.1f} bits')\n", "ax.set(xlabel='tokens / 1000')"]}]}
    (tmp_path/"fig.ipynb").write_text(json.dumps(nb), encoding="utf-8")
    assert [d for t in said(tmp_path/"fig.ipynb") for d in digits_in(t)] == [" of 12 pairs", "Top 5", "tokens / 1000"]


def test_log_entries_are_whole():
    head, *entries = re.split(r"^## ", (ROOT/"reports/LOG.md").read_text(encoding="utf-8"), flags=re.M)
    dates = [e[:10] for e in entries]
    assert entries and dates == sorted(dates, reverse=True) and all(re.fullmatch(r"\d{4}-\d\d-\d\d", d) for d in dates)
    for e in entries:
        assert [p for p in re.findall(r"^\*\*(\w+)\.\*\* \S", e, re.M)] == ["Question", "Change", "Command", "Result", "Verdict"], e.splitlines()[0]


def test_readme_is_what_the_index_renders():
    done = subprocess.run([sys.executable, "tools/site.py", "readme", "--check"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_report_is_what_the_tracked_files_render():
    assert (ROOT/"reports/report.html").read_text(encoding="utf-8") == report.report_html(), "run `croissant report`"


def test_report_is_self_contained():
    page = (ROOT/"reports/report.html").read_text(encoding="utf-8")
    assert len(page.encode()) < 8_000_000
    assert not re.search(r"""(?:src|href)=(?!["']?(?:data:|#))""", page), "nothing may be loaded from elsewhere"
    assert page.count("<img ") == page.count('<img alt="') and 'alt=""' not in page


def test_a_reference_to_nothing_is_an_error():
    with pytest.raises(BadInput): report.render("{{training/croissants}}")
    with pytest.raises(BadInput): report.render("{{training/bpb_fr.floors.coin}}")
    with pytest.raises(BadInput): report.render("{{corpus:klingon}}")


def test_corpus_is_described_from_its_table():
    rows = load_table("reports/tables/corpus.csv")
    kinds = {r["category"] for r in rows if r["language"] == "fr"}
    assert all(k in report.corpus_words("fr") for k in kinds) and report.corpus_words("fr").count("%") == len(kinds)
    share_alike = report.corpus_words("share-alike")
    assert all((r["source"] in share_alike) == ("CC-BY-SA" in r["licence"]) for r in rows)
    readme = (ROOT/"README.md").read_text(encoding="utf-8")
    assert share_alike in readme and report.corpus_words("copyleft") in readme


def test_pages_speak_only_of_verified_claims_as_verified():
    n = lambda key: f"{metric(f'claims/{key}')['value']:.0f}"
    readme = (ROOT/"README.md").read_text(encoding="utf-8")
    assert f"{n('verified')} are verified" in readme and f"the other {n('transcribed')} only compare" in readme
    assert f"{n('transcribed')} transcribed" in (ROOT/"reports/report.html").read_text(encoding="utf-8")


def test_figures_say_whose_numbers_they_show():
    for path in (ROOT/"reports/figures").glob("*.json"):
        card = json.loads(path.read_text(encoding="utf-8"))
        assert card["scope"] in ("lab", "paper", "lab and paper"), path.stem
        if "and" in card["scope"]: assert all(re.search(w, card["caption"] + card["alt"], re.I) for w in (r"\b(lab|our|this repository)", r"\bpaper")), path.stem


def test_figures_are_drawn_from_the_tracked_inputs():
    changed = [r for r in report.provenance_rows() if r["state"] != "unchanged" and r["sha256"] != "absent"]
    assert not changed


@pytest.mark.parametrize("card", sorted((ROOT/"reports/figures").glob("*.json")), ids=lambda p: p.stem)
def test_every_figure_has_image_caption_and_source(card):
    c = json.loads(card.read_text(encoding="utf-8"))
    assert all(c[k] for k in ("title", "paper", "caption", "alt", "scope", "inputs"))
    assert card.with_suffix(".svg").is_file() and card.with_suffix(".png").is_file()
    assert (ROOT/f"nbs/figures/{card.stem}.ipynb").is_file(), "every figure has its own notebook"
