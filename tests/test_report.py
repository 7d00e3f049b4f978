"""Numbers in prose are rendered from tracked files, and everything rendered is fresh."""
import ast
import html
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote
from xml.etree import ElementTree

import pytest

from croissant import badges, report
from croissant.params import BadInput
from croissant.provenance import load_table, metric

ROOT = Path(__file__).resolve().parents[1]
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


@pytest.mark.parametrize("page,source", report.NOTEBOOK_PAGES.items())
def test_pages_from_notebooks_type_no_number(page, source):
    assert not digits_in("\n".join(cells(ROOT/source, "markdown"))), "render the number with {{metric}} instead of typing it"
    assert not cells(ROOT/source, "code"), "a page of prose has no cells of code"


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


def test_pages_and_badges_are_what_the_notebooks_render():
    done = subprocess.run([sys.executable, "tools/site.py", "readme", "--check"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("page", ["README.md", "reports/results.md", "reports/badges/claims.svg"])
def test_the_check_names_what_is_stale(page, tmp_path):
    "On copies of the generated files; everything else is the repository's own."
    for p in ROOT.iterdir():
        if p.name not in ("README.md", "reports", ".git"): (tmp_path/p.name).symlink_to(p)
    (tmp_path/"reports").mkdir()
    for p in (ROOT/"reports").iterdir():
        if p.name not in ("results.md", "badges"): (tmp_path/"reports"/p.name).symlink_to(p)
    for p in ("README.md", "reports/results.md"): shutil.copy(ROOT/p, tmp_path/p)
    shutil.copytree(ROOT/"reports/badges", tmp_path/"reports/badges")
    (tmp_path/"tools").unlink()
    shutil.copytree(ROOT/"tools", tmp_path/"tools", ignore=shutil.ignore_patterns("__pycache__"))   # the tool takes its own place for the root
    check = lambda: subprocess.run([sys.executable, "tools/site.py", "readme", "--check"], cwd=tmp_path, capture_output=True, text=True, env=os.environ | {"CROISSANT_ROOT": str(tmp_path), "PYTHONPATH": str(ROOT)})
    assert (done := check()).returncode == 0, done.stderr
    text = (tmp_path/page).read_text(encoding="utf-8")
    at = max(m.start() for m in re.finditer(r"\d", text))
    (tmp_path/page).write_text(f"{text[:at]}{(int(text[at]) + 1) % 10}{text[at + 1:]}", encoding="utf-8")
    done = check()
    assert done.returncode == 1 and done.stderr.startswith(f"{page}: stale")


# ---- the front page
FRONT = (ROOT/"README.md").read_text(encoding="utf-8")


def test_readme_is_short_and_begins_with_what_a_newcomer_needs():
    assert 5_000 < len(FRONT.encode()) < 9_500
    assert re.findall(r"^## (.*)", FRONT, re.M) == ["Two commands", "Three entrances", "What is not shown", "What is shown", "The house", "Licence, data, citation"]
    assert len(re.findall(r"^!\[[^\]]+\]\(reports/figures/", FRONT, re.M)) == 1 and all(w in FRONT for w in ("make repro", "make test", "croissant chat", "croissant generate", "reports/results.md"))
    rows = re.search(r"^\| lab, on held-out items .*\n\|[-|]+\n((?:\|.*\n)+)", FRONT, re.M)[1].splitlines()
    for value, n, floor in ([c.strip() for c in r.strip("|").split("|")][1:] for r in rows):
        assert re.search(r"\[[^\]]+\]", value) and re.match(r"[\d,]+ \w", n) and floor
    assert (ROOT/"reports/results.md").stat().st_size > 15_000


@pytest.mark.parametrize("page", report.NOTEBOOK_PAGES)
def test_links_of_pages_lead_somewhere(page):
    text = re.sub(r"```.*?```|`[^`\n]*`", "", (ROOT/page).read_text(encoding="utf-8"), flags=re.S)
    links = [t for t in re.findall(r"\]\(([^)]+)\)", text) if "//" not in t]
    assert len(links) > 10 and not [t for t in links if not ((ROOT/page).parent/t.partition("#")[0]).resolve().exists()]
    source = ROOT/report.NOTEBOOK_PAGES[page]
    assert not [t for t in re.findall(r"\]\(([^)]+)\)", "\n".join(cells(source, "markdown"))) if "//" not in t and not (source.parent/t.partition("#")[0]).resolve().exists()], "a link of the notebook starts where the notebook lies"
    for where in re.findall(r"report\.html#([\w-]+)", text): assert f'id="{where}"' in (ROOT/"reports/report.html").read_text(encoding="utf-8")


def test_badges_say_what_the_metrics_say():
    shown = dict(re.findall(r"!\[([^\]]+)\]\(reports/badges/(\w+)\.svg\)", FRONT))
    assert {name: alt for alt, name in shown.items()} == {name: report.render(f"{label}: {value}") for name, (label, value) in badges.BADGES.items()}
    assert {p.name for p in (ROOT/"reports/badges").iterdir()} == {f"{name}.svg" for name in badges.BADGES}
    for alt, name in shown.items():
        svg = ElementTree.fromstring((ROOT/f"reports/badges/{name}.svg").read_text(encoding="utf-8"))
        said = ": ".join(t.text for t in svg.iter("{http://www.w3.org/2000/svg}text"))
        assert svg.get("aria-label") == alt == said == svg.find("{http://www.w3.org/2000/svg}title").text
    n = lambda key: f"{metric(key)['value']:.0f}"
    alts = " ".join(shown)
    assert f"{n('claims/verified')} of {n('claims/total')}" in alts and f"{n('fmti/disclosed')} of {n('fmti/indicators')}" in alts
    pyproject = tomllib.loads((ROOT/"pyproject.toml").read_text(encoding="utf-8"))
    assert f"Python: {pyproject['project']['requires-python'].strip('>=')}" in alts
    assert "licence: Apache-2.0" in alts and "Apache License" in (ROOT/"LICENSE").read_text(encoding="utf-8")[:400]


def test_badges_follow_the_metrics_and_ask_no_host(monkeypatch):
    before = badges.badges()
    monkeypatch.setattr(report, "metric", lambda key: metric(key) | {"value": 7} if key == "claims/verified" else metric(key))
    changed = {p for p, svg in badges.badges().items() if svg != before[p]}
    assert changed == {"reports/badges/claims.svg"} and "7 of" in badges.badges()["reports/badges/claims.svg"]
    assert not [p for p, svg in before.items() if re.search(r"(?:href|src|url)\b", svg) or "//" in svg.replace("http://www.w3.org/2000/svg", "")]
    assert "shields.io" not in FRONT and "&lt;b&gt;" in badges.badge("<b>", "x")
    with pytest.raises(BadInput, match="label and a value"): badges.badge("claims", " ")


def test_a_setting_is_read_from_its_file():
    assert report.render("{{setting:CITATION.cff#license}}") == "Apache-2.0" and report.setting("settings.ini", "min_python") == "3.11"
    with pytest.raises(BadInput, match="no such word"): report.setting("settings.ini", "croissants")
    with pytest.raises(BadInput, match="no such file"): report.render("{{setting:nowhere.ini#version}}")


def test_a_page_of_prose_keeps_its_links_and_refuses_code():
    page = lambda *c: report.notebook_page({"cells": list(c)}, "nbs/a.ipynb", "reports/b.md")
    assert page({"cell_type": "markdown", "source": ["[x](../reports/figures/x.png) [y](tutorials/y.ipynb#z) [w](https://example.org/a) [h](#h)"]}).endswith(
        "\n\n[x](figures/x.png) [y](../nbs/tutorials/y.ipynb#z) [w](https://example.org/a) [h](#h)\n")
    with pytest.raises(BadInput, match="no prose"): page({"cell_type": "code", "id": "pain", "source": ["1"], "outputs": []})


def test_report_is_what_the_tracked_files_render():
    assert (ROOT/"reports/report.html").read_text(encoding="utf-8") == report.report_html(), "run `croissant report`"


PAGE = (ROOT/"reports/report.html").read_text(encoding="utf-8")
CARDS = [json.loads(p.read_text(encoding="utf-8")) for p in sorted((ROOT/"reports/figures").glob("*.json"))]
OUTSIDE = {"https://arxiv.org/abs/2402.00786"}   # where a reader may go; nothing is loaded from there


class Tags(HTMLParser):
    "Every tag with its attributes, and the text of each figure's caption."
    def __init__(self, page):
        super().__init__()
        self.tags, self.captions, self.inside, self.hidden = [], [], False, False
        self.feed(page)
    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag == "figcaption": self.inside = True; self.captions.append("")
        if tag == "summary": self.hidden = True
    def handle_endtag(self, tag):
        if tag == "figcaption": self.inside = False
        if tag == "summary": self.hidden = False
    def handle_data(self, data):
        if self.inside and not self.hidden: self.captions[-1] += data


TAGS = Tags(PAGE)
IDS = [a["id"] for _, a in TAGS.tags if "id" in a]


def test_report_is_light_and_asks_for_nothing_outside():
    assert len(PAGE.encode()) < 5_000_000
    for tag, a in TAGS.tags:
        assert tag not in ("script", "link", "iframe", "object", "embed", "base", "form", "video", "audio"), tag
        for k in ("src", "href", "srcset", "poster", "action", "data", "style", "background"):
            if k in a: assert a[k].startswith("data:image/svg+xml,") if (tag, k) == ("img", "src") else a[k].startswith("#") or (tag == "a" and a[k] in OUTSIDE), (tag, k, a[k][:80])
        if "http-equiv" in a: raise AssertionError(a)
    assert not re.search(r"url\(|@import|expression\(", PAGE[PAGE.index("<style>"):PAGE.index("</style>")])
    for _, a in (t for t in TAGS.tags if t[0] == "img"):
        drawing = unquote(a["src"].removeprefix("data:image/svg+xml,"))
        assert not re.search(r"<(?:script|foreignObject)|\son\w+=", drawing) and not re.findall(r"https?://(?!www\.w3\.org/2000/svg)", drawing)
        tree = ElementTree.fromstring(drawing)
        ids = {e.get("id") for e in tree.iter() if e.get("id")}
        assert ids and not [h for e in tree.iter() if (h := e.get("href")) and h[1:] not in ids and not h.startswith("data:image/png;base64,")] and not set(re.findall(r"url\(#([^)]+)\)", drawing)) - ids


def test_report_has_one_title_a_language_and_headings_in_order():
    kinds = [t for t, _ in TAGS.tags]
    assert kinds.count("h1") == kinds.count("title") == kinds.count("nav") == 1 and ("html", {"lang": "en"}) in TAGS.tags
    assert {"name": "viewport", "content": "width=device-width,initial-scale=1"} in [a for t, a in TAGS.tags if t == "meta"]
    levels = [int(t[1]) for t in kinds if re.fullmatch(r"h[1-6]", t)]
    assert levels[0] == 1 and all(b <= a + 1 for a, b in zip(levels, levels[1:]))
    assert all(a.get("scope") == "col" for t, a in TAGS.tags if t == "th")


def test_contents_lead_to_every_section_and_links_resolve():
    inside = [a["href"][1:] for t, a in TAGS.tags if t == "a" and a["href"].startswith("#")]
    assert len(IDS) == len(set(IDS)) and inside and set(inside) <= set(IDS)
    contents = re.findall(r'href="#([^"]+)"', PAGE[PAGE.index("<nav"):PAGE.index("</nav>")])
    sections = re.findall(r"<section><h2 id=\"?([\w-]+)", PAGE)
    assert sections[0] == "abstract" and sections[1:] == [c for c in contents if c in sections] and {c["name"] for c in CARDS} <= set(inside)


def test_limits_come_before_results():
    order = [PAGE.index(x) for x in ('id=abstract', "<nav", 'id="limits"', 'id="results"', 'id="claims"', 'id="figures"', "<img ")]
    assert order == sorted(order)
    limits = PAGE[PAGE.index('id="limits"'):PAGE.index('id="results"')]
    told = [report.render(x) for x in ("{{frenchbench_lab/below_trigram_fr|.0f}} of", "{{chat/right.all.drawn±|.1%}}", "{{translation/chrf.software.fr.above_draft±|+.1f}}", "{{twins/declines.harmless.mitigated±|.0%}}")]
    assert all(x in limits for x in told) and "None of its scores may be read beside the paper's" in limits
    abstract = PAGE[PAGE.index("id=abstract"):PAGE.index("<nav")]
    assert "Not reproduced:" in abstract and report.render("{{claims/discrepant|.0f}} are discrepant") in abstract


def test_every_claim_stands_with_its_verdict():
    rows = re.findall(r"<tr>(.*?)</tr>", PAGE[PAGE.index('id="claims"'):PAGE.index('id="figures"')], re.S)
    cell = lambda row, k: html.unescape(m[1]) if (m := re.search(rf'<td data-h="{k}"[^>]*>(.*?)</td>', row, re.S)) else ""
    shown = {cell(r, "name"): r for r in rows if "<td" in r}
    claims = load_table("reports/tables/claims_checked.csv")
    assert set(shown) == {c["id"] for c in claims} and len(claims) == len([r for r in rows if "<td" in r])
    for c in claims: assert cell(shown[c["id"]], "verdict") == c["verdict"] and cell(shown[c["id"]], "claim") == c["claim"] and (c["verdict"] != "discrepant" or cell(shown[c["id"]], "note"))
    found = [m[1] for m in re.finditer(r'<h3 id="claims-([\w-]+)"', PAGE)]
    assert found == ["discrepant", "not-reproducible", "verified", "transcribed"]
    with pytest.raises(BadInput, match="perhaps"): report.claims_html([{"verdict": "perhaps"}])


def test_every_figure_is_in_a_chapter_and_says_whose_numbers_it_shows():
    images = [a["alt"] for t, a in TAGS.tags if t == "img"]
    assert sorted(images) == sorted(c["alt"] for c in CARDS) and all(images)
    assert sorted(n for c in report._CHAPTERS.values() for n in c) == sorted(c["name"] for c in CARDS), "name a new figure in a chapter of nbs/90_report.ipynb"
    for c in CARDS:
        figure = PAGE[(at := PAGE.index(f'<figure id="{c["name"]}">')):PAGE.index("<img", at)]
        assert f"beside {html.escape(c['paper'])} of the paper" in figure and ("scales of their own: not to be compared" in figure) == (c["scope"] == "lab and paper")
    flat = lambda text: re.sub(r"\s", "", text)
    assert sorted(map(flat, TAGS.captions)) == sorted(flat(c["caption"]) for c in CARDS), "a caption is whole, if in two parts"


def test_report_can_be_printed():
    css = PAGE[PAGE.index("<style>"):PAGE.index("</style>")]
    paper = css[css.index("@media print{"):]
    for rule in ("break-before:page", "break-inside:avoid", "break-after:avoid", "table-header-group", "overflow:visible", "details::details-content{content-visibility:visible", "attr(href)", "orphans"): assert rule in paper, rule
    assert "@page{" in css and "@media(max-width:40rem)" in css and "overflow-x:auto" in css


def test_a_slim_drawing_is_the_same_drawing():
    path = ROOT/"reports/figures/fig_loss.svg"
    text = path.read_text(encoding="utf-8")
    slim = report.slim_svg(text)
    assert len(slim) < .6 * len(text) and slim == report.slim_svg(text) and report.slim_svg(slim) == slim
    assert unquote(html.unescape(report.data_uri(slim))).removeprefix("data:image/svg+xml,").replace("'", '"') == slim
    name = "{http://www.w3.org/2000/svg}"
    points = lambda drawing: [[float(x) for x in re.findall(r"-?\d*\.?\d+", e.get("d") or "")] for e in ElementTree.fromstring(drawing).iter(f"{name}path")]
    before, after = points(text), points(slim)
    assert len(before) == len(after) > 50 and all(len(a) == len(b) and all(abs(x - y) <= .00501 for x, y in zip(a, b)) for a, b in zip(before, after))
    scales = lambda drawing: re.findall(r"scale\([^)]*\)", drawing)
    assert scales(text) == scales(slim) and len(scales(slim)) > 20 and len(re.findall("<use ", text)) == len(re.findall("<use ", slim))
    with pytest.raises(BadInput, match="drawing"): report.slim_svg("<p>pain</p>")
    with pytest.raises(BadInput, match="single quotes"): report.data_uri("<svg font='x'/>")


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
