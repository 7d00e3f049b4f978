"""The page of the indicators: every row as the table has it, every link leads somewhere, and it reads on a phone."""
import ast
import csv
import json
import os
import re
import shutil
import subprocess
from html.parser import HTMLParser
from itertools import chain
from pathlib import Path
from urllib.parse import unquote

import pytest
from chromium import needs_browser

from croissant.fmti.index import DISCLOSED, DOMAINS, PROOF_CLASSES, load_indicators
from croissant.fmti.page import FIGURES, LATER, LIMITS, PAGE, ROOT, STORED, SUMS, TABLE, TONES, WHY, evidence_list, fmti_page, gathered, limits, paper_figure, unproved, write_fmti_page
from croissant.fmti.records import load_records
from croissant.params import BadInput, root
from croissant.provenance import load_json, load_table, save_json, save_table
from croissant.report import _STYLE, PALETTE
from test_report import digits_in

VOID = {"meta", "br", "img", "link", "input", "hr", "source", "base"}
WORDS = {"disclosed": "Disclosed", "machine_proved": "Machine-proved", "structural": "Structural", "asserted": "Asserted"}


class Node:
    "An element: its tag, attributes, and children, which are elements or text."
    def __init__(self, tag, attributes=()): self.tag, self.at, self.children = tag, dict(attributes), []
    def all(self, tag="", **at):
        for c in self.children:
            if isinstance(c, str): continue
            if (not tag or c.tag == tag) and all(c.at.get(k.rstrip("_").replace("_", "-")) == v for k, v in at.items()): yield c
            yield from c.all(tag, **at)
    def one(self, tag="", **at):
        found = list(self.all(tag, **at))
        assert len(found) == 1, (tag, at, len(found))
        return found[0]
    @property
    def text(self): return " ".join("".join(c if isinstance(c, str) else f" {c.text} " for c in self.children).split())


class Tree(HTMLParser):
    "The page as a tree; a tag that closes another than the last one opened is an error."
    def __init__(self, page):
        super().__init__()
        self.open = [Node("page")]
        self.feed(page); self.close()
        assert [n.tag for n in self.open] == ["page"], "an element is left open"
    def handle_starttag(self, tag, attributes):
        assert len({k for k, _ in attributes}) == len(attributes), f"<{tag}> has an attribute twice"
        self.open[-1].children.append(n := Node(tag, attributes))
        if tag not in VOID: self.open.append(n)
    def handle_endtag(self, tag): assert self.open.pop().tag == tag, f"</{tag}> closes another element"
    def handle_data(self, text): self.open[-1].children.append(text)


def table(path):
    with (root()/path).open(encoding="utf-8", newline="") as f: return list(csv.DictReader(f))


def flat(text): return " ".join(text.split())


ROWS, ASKED, RECORDS = table(TABLE), load_indicators(), {r["number"]: r for r in load_records()}


@pytest.fixture(scope="module")
def text(): return fmti_page()


@pytest.fixture(scope="module")
def page(text): return Tree(text).open[0]


@pytest.fixture
def copy(tmp_path):
    "The files that the page is a function of, to be spoilt."
    for name in ("fmti", "reports/fmti", "reports/paper"): shutil.copytree(root()/name, tmp_path/name)
    for name in (TABLE, LATER, SUMS, ROOT, LIMITS): (tmp_path/name).parent.mkdir(parents=True, exist_ok=True); shutil.copy(root()/name, tmp_path/name)
    return tmp_path


def section(page, title):
    "The section under a heading that begins so."
    return next(s for s in page.all("section") if next(s.all("h2")).text.startswith(title))


# --- form

def test_landmarks_language_and_order_of_headings(page):
    html = page.one("html")
    assert html.at["lang"] == "en" and page.one("title").text and any(m.at.get("name") == "viewport" and "width=device-width" in m.at["content"] for m in page.all("meta"))
    assert [len(list(page.all(t))) for t in ("header", "nav", "main", "footer", "h1")] == [1] * 5 and page.one("nav").at["aria-label"]
    levels = [int(n.tag[1]) for n in page.all() if re.fullmatch("h[1-6]", n.tag)]
    assert levels[0] == 1 and all(b <= a + 1 for a, b in zip(levels, levels[1:])), "a level of headings is jumped over"
    ids = [n.at["id"] for n in page.all() if "id" in n.at]
    assert len(ids) == len(set(ids)) and {a.at["href"][1:] for a in page.all("a") if a.at["href"].startswith("#")} <= set(ids)
    assert next(page.one("body").all("a")).at["href"] == "#main", "the first thing that a keyboard reaches skips to the content"
    assert all(s.at["aria-labelledby"] in ids for s in page.all("section"))
    for t in page.all("table"):
        assert list(t.all("caption")) and t.at["role"] == "table" and all(r.at["role"] == "row" for r in t.all("tr"))
        heads = [h.text for h in t.all("th", scope="col")]
        for r in (r for r in t.one("tbody").all("tr") if r.at.get("class") != "group"): assert len(r.children) == len(heads) and [c.tag for c in r.children] == ["th"] + ["td"] * (len(heads) - 1) and all(c.at["data-label"] for c in r.all("td"))


def test_nothing_is_loaded_and_nothing_runs(text, page):
    assert not [n.tag for n in page.all() if n.tag in ("script", "link", "img", "iframe", "object", "embed", "base", "form", "svg") or "src" in n.at or any(k.startswith("on") for k in n.at)]
    assert not re.search(r"@import|url\(|image-set|expression\(", text) and "default-src 'none'" in text
    outside = {a.at["href"] for a in page.all("a") if ":" in a.at["href"]}
    assert outside == {"https://creativecommons.org/licenses/by/4.0/"} and outside.pop() in (root()/"reports/fmti/README.md").read_text(encoding="utf-8")
    assert len(text.encode()) < 500_000 and str(root()) not in text


def test_sections_come_in_this_order(page):
    assert [h.text.split(",")[0] for h in page.all("h2")] == ["What we could not prove", "Figures 8 and 9 of the paper", "Every indicator", "From the edition of 2025", "What an owner could still forge"]


def test_every_link_leads_to_a_tracked_file_and_the_rest_is_stored(page):
    if not (root()/".git").exists(): pytest.skip("no git here to say what is tracked; un-skip by testing in a clone")
    tracked = subprocess.run(["git", "ls-files", "-co", "--exclude-standard"], cwd=root(), capture_output=True, text=True, check=True).stdout.splitlines()
    known = {p.as_posix() for f in tracked for p in (Path(f), *Path(f).parents)}
    paths = [os.path.normpath(Path(PAGE).parent/unquote(a.at["href"])) for a in page.all("a") if ":" not in a.at["href"] and not a.at["href"].startswith("#")]
    assert len(paths) > 100 and not sorted(set(paths) - known)
    stored = {n.text for li in page.all("li") if not list(li.all("a")) for n in li.all("code") if "class" not in n.at}
    declared = chain(RECORDS.values(), load_records(edition="2025"))
    assert stored and all(p.startswith(STORED) and p not in known for p in stored) and stored <= {e["path"] for r in declared for e in r["evidence"]} | {p for r in ROWS for p in r["evidence"].split("; ")}


# --- the numbers and words are the table's

def test_a_hundred_rows_as_the_table_has_them(page):
    rows = [r for r in section(page, "Every indicator").all("tr") if re.fullmatch(r"i\d+", r.at.get("id", ""))]
    assert len(rows) == len(ROWS) == 100
    for shown, r, asked in zip(rows, ROWS, ASKED):
        name, lab, ground, paper = shown.children
        assert shown.at["id"] == f"i{r['number']}" and name.text == f"{r['number']} {flat(r['name'])} {flat(asked['requirement'])}"
        pill = lab.one("span")
        assert pill.text == r["status"] and pill.at["class"] == f"pill {TONES.get(r['status'], 'soft')}"
        assert lab.text == flat(f"{r['status']} {r['value']} {r['reason']}")
        assert ground.text.startswith(f"{r['proof_class']} {PROOF_CLASSES[r['proof_class']]}") and f"croissant fmti explain {r['number']}" in ground.text
        files = list(ground.all("li"))
        assert [next(f.all("code")).text for f in files] == [p for p in r["evidence"].split("; ") if p]
        assert [f.one("code", class_="sha").text for f in files] == [s[:12] for s in r["sha256"].split("; ") if s]
        record = RECORDS[int(r["number"])]
        assert all(f"{record[k]}" in [c.text for c in ground.all("code")] for k in ("check", "counter_check", "clause") if k in record)
        assert paper.text == asked["croissantllm_reading"] and paper.at["data-label"].startswith("The paper") and lab.at["data-label"].startswith("The lab")


def test_rows_stand_under_their_domain_and_subdomain(page):
    found, domain, group = [], "", ""
    for n in section(page, "Every indicator").all():
        if n.tag == "h3": domain = n.text.split()[0]
        if n.tag == "h4": group = n.text
        if re.fullmatch(r"i\d+", n.at.get("id", "")): found.append((domain, group))
    assert found == [(r["domain"], r["subdomain"]) for r in ROWS]


def test_sums_stand_side_by_side(page):
    said = {k: m["value"] for k, m in load_json(SUMS)["metrics"].items()}
    tiles = {d.one("dt").text: next(d.all("dd")).text for d in page.all("div") if d.at.get("class", "").startswith("tile")}
    assert tiles == {WORDS[k]: str(said[k]) for k in WORDS}
    before = page.one("main").text.split("What we could not prove")[0]
    assert load_json(ROOT)["root"] in before and f"{said['not_met']} not met" in before
    numbers = set(re.findall(r"(?<![\w.-])\d+(?![\w.-]*\d)(?!\w)", before.replace(load_json(ROOT)["root"], "").replace("version 1.0", "").replace("SHA-256", "")))
    assert numbers <= {str(v) for v in said.values()}, "a number that is no sum"


def test_what_nothing_proves_is_complete_and_has_reasons(page):
    part = section(page, "What we could not prove")
    shown = {h.at["id"]: h for h in part.all("h3")}
    assert list(shown) == list(WHY)
    listed = []
    for r in part.all("tr"):
        for n in r.all("span", class_="no"): listed.append((n.text, r.children[1].text, r.children[2].text))
    want = {r["number"]: (r["status"], flat(f"{r['value']} {r['reason']}")) for r in ROWS if r["status"] not in DISCLOSED or r["status"] in ("asserted", "estimated")}
    assert {n: (s, why) for n, s, why in listed} == want and len(listed) == len(want) and all(why for _, _, why in listed)
    assert {k: int(h.one("span").text) for k, h in shown.items()} == {k: len(v) for k, v in unproved(ROWS).items()}
    assert {h.at["id"] for h in shown.values() if h.one("span").text == "0"} == {k for k, v in unproved(ROWS).items() if not v} and part.text.count("None.") == sum(not v for v in unproved(ROWS).values())


@pytest.mark.parametrize("name", FIGURES)
def test_figures_have_two_labelled_blocks(page, name):
    path, by, ending = FIGURES[name]
    t = next(t for t in page.all("table") if t.one("caption").text.startswith(name))
    spans = [(h.text, int(h.at["colspan"])) for h in t.all("th", scope="colgroup")]
    assert [s.split(":")[0] for s, _ in spans] == ["The lab", "The paper"] and name in spans[1][0]
    rows, printed = list(t.one("tbody").all("tr")), load_table(path)
    assert [r.one("th").text for r in rows] == [p[by] for p in printed]
    for shown, p in zip(rows, printed):
        cells = {c.at["data-label"]: c for c in shown.all("td")}
        mine = [r["status"] for r in ROWS if r[by] == p[by]]
        for kind, statuses in (("machine-proved", ("reproduced", "recomputed")), ("structural", ("consistent", "estimated")), ("asserted", ("asserted",))):
            n = sum(s in statuses for s in mine)
            assert cells[f"Lab: {kind}"].text == f"{n} of {p['n']}"
            assert float(cells[f"Lab: {kind}"].one("span", class_=f"bar {dict(zip(('machine-proved', 'structural', 'asserted'), ('good', 'fr', 'wait')))[kind]}").at["style"][4:-1]) == pytest.approx(100 * n / p["n"], abs=.1)
        theirs = {k: c.text for k, c in cells.items() if k.startswith("Paper")}
        assert list(theirs.values()) == [f"{v} %" for k, v in p.items() if k.endswith(ending) and k not in (by, "domain", "n")]
    assert len(rows) == (len(DOMAINS) if by == "domain" else 23)


def test_supplement_and_limits(page):
    rows = list(section(page, "From the edition").one("tbody").all("tr"))
    later = table(LATER)
    assert [(r.children[0].text, r.children[1].text) for r in rows] == [(f"{r['number']} {r['name']}", flat(f"{r['status']} {r['value']} {r['reason']}")) for r in later]
    assert [[next(li.all("code")).text for li in r.all("li")] for r in rows] == [[p for p in r["evidence"].split("; ") if p] for r in later]
    checks = {r["number"]: r.get("check") for r in RECORDS.values()}
    for r, record in zip(rows, load_records(edition="2025")):
        if m := re.search(r"explain (\d+)", r.text): assert checks[int(m[1])] == record["check"]
    cell = next(s for c in json.loads((root()/LIMITS).read_text(encoding="utf-8"))["cells"] if (s := "".join(c["source"])).startswith("## Limits"))
    told = section(page, "What an owner").text.lower()
    assert all(flat(w.strip().replace("`", "").lower()) in told.replace(" ;", ";") for line in cell.splitlines()[4:] if line.startswith("|") and "---" not in line for w in line.strip("|").split("|"))


def test_prose_types_no_number():
    tree = ast.parse((root()/"croissant/fmti/page.py").read_text(encoding="utf-8"))
    held = {t.id: n.value for n in tree.body if isinstance(n, (ast.Assign, ast.AnnAssign)) for t in (n.targets if isinstance(n, ast.Assign) else [n.target]) if isinstance(t, ast.Name)}
    prose = [c.value for k in ("_PROSE", "_SUMS", "_OTHERS", "WHY", "_HEADS") for c in ast.walk(held[k]) if isinstance(c, ast.Constant) and isinstance(c.value, str)]
    assert len(prose) > 40 and not [d for t in prose for d in digits_in(t)]


# --- spoilt inputs

def test_the_same_files_give_the_same_bytes(text, copy, tmp_path):
    assert fmti_page(copy) == text
    a, b = (write_fmti_page(tmp_path/n, copy).read_bytes() for n in ("a.html", "b.html"))
    assert a == b == text.encode()


def test_markup_in_a_claim_is_text(copy):
    rows = table(TABLE)
    bad = '<script>alert("1")</script> & <b>\'pain\'</b> {x}'
    rows[0] |= {"value": bad, "reason": bad, "evidence": '"><img src=x>.csv', "sha256": "<i>" + "0" * 61}
    save_table(rows, copy/TABLE)
    made = fmti_page(copy)
    tree = Tree(made).open[0]
    assert "<script" not in made and "<img" not in made and "<i>" not in made
    row = tree.one("tr", id="i1")
    assert row.children[1].text == flat(f"{rows[0]['status']} {bad} {bad}") and [c.text for c in row.one("li").all("code")] == ['"><img src=x>.csv', "<i>000000000"]


def test_a_broken_and_a_skipped_row_are_shown_first(copy):
    rows = table(TABLE)
    rows[0] |= {"status": "tampered", "value": "", "reason": "levain: other bytes"}
    rows[1] |= {"status": "skipped", "value": "", "reason": "four: is not on this disk"}
    save_table(rows, copy/TABLE)
    with pytest.raises(BadInput, match="dvc repro score_fmti"): fmti_page(copy)                    # the sums still say otherwise
    from croissant.fmti.index import sums
    said = load_json(copy/SUMS)
    for k, v in sums(rows).items(): said["metrics"][k]["value"] = v
    save_json(said, copy/SUMS)
    part = section(Tree(fmti_page(copy)).open[0], "What we could not prove").text
    assert "Broken 1" in part and "levain: other bytes" in part and "Not looked at 1" in part and "four: is not on this disk" in part


@pytest.mark.parametrize("spoil,word", [
    (lambda b: (b/TABLE).unlink(), "no such table"), (lambda b: (b/SUMS).unlink(), "no such file"), (lambda b: (b/ROOT).unlink(), "no such file"),
    (lambda b: save_table(table(TABLE)[1:], b/TABLE), "once each and in order"), (lambda b: save_table([r | {"status": "perfect"} for r in table(TABLE)], b/TABLE), "no word of the vocabulary"),
    (lambda b: save_table([r | {"number": 99} for r in table(LATER)], b/LATER), "no record of indicator 99"),
    (lambda b: save_table([r | {"n": 1} for r in table(FIGURES["Figure 8"][0])], b/FIGURES["Figure 8"][0]), "mend the transcription"),
    (lambda b: (b/LIMITS).write_text('{"cells": []}', encoding="utf-8"), "no section Limits")])
def test_files_that_disagree_give_no_page(copy, spoil, word):
    spoil(copy)
    with pytest.raises(BadInput, match=word): write_fmti_page(copy/"page.html", copy)
    assert not (copy/"page.html").exists()


def test_pieces():
    with pytest.raises(BadInput, match="2 pieces of evidence, 1 hashes"): evidence_list({"number": 1, "evidence": "a; b", "sha256": "0"}, {})
    many = Tree(evidence_list({"number": 1, "evidence": "; ".join(f"{c}.csv" for c in "abcde")}, {})).open[0]
    assert len(list(many.all("li"))) == 5 and many.one("summary").text == "and 2 more" and len(list(many.one("details").all("li"))) == 2
    assert "no evidence" in evidence_list({"number": 1, "evidence": "", "sha256": ""}, {})
    assert limits() and paper_figure("Figure 8", ROWS, root()).count("Lab: attested") == 0
    won = [r | {"status": "attested-by-third-party"} if r["number"] == "46" else r for r in ROWS]
    assert paper_figure("Figure 8", won, root()).count("Lab: attested") == 23
    assert gathered()["rows"][0]["number"] == 1


def test_the_tracked_page_is_fresh(text):
    assert (root()/PAGE).read_text(encoding="utf-8") == text, "run `dvc repro fmti_page`"


# --- colours

def luminance(colour):
    "Of sRGB, as WCAG defines it."
    part = [int(colour[i:i + 2], 16) / 255 for i in (1, 3, 5)]
    return sum(w * (c / 12.92 if c <= .04045 else ((c + .055) / 1.055) ** 2.4) for w, c in zip((.2126, .7152, .0722), part))


def contrast(a, b):
    light, dark = sorted((luminance(a), luminance(b)), reverse=True)
    return (light + .05) / (dark + .05)


def test_contrast_of_every_colour_that_the_style_uses(text):
    assert contrast("#000000", "#ffffff") == pytest.approx(21) and contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=.01)
    style = re.search(r"<style>(.*?)</style>", text, re.S)[1]
    rules = style.split("}", 3)[3]                                                                  # after the palette
    assert not re.findall(r"#[0-9a-fA-F]{3,8}\b|\brgba?\(|\bhsla?\(|opacity", rules), "a colour outside the palette"
    written = set(re.findall(r"(?<![-\w])color:var\(--(\w+)\)", rules))
    grounds = set(re.findall(r"background:var\(--(\w+)\)", rules))
    assert grounds == {"paper"} and {"ink", "soft", "fr", "good", "wait", "bad"} <= written
    for screen, colours in PALETTE.items():
        assert {k: v for k, v in colours.items() if f"--{k}:{v}" in style} == colours
        for name in written: assert contrast(colours[name], colours["paper"]) >= 4.5, (screen, name)
        for name in re.findall(r"--tone:var\(--(\w+)\)", rules): assert contrast(colours[name], colours["paper"]) >= 3, (screen, name)
    assert PALETTE["light"]["fr"] == "#0055A4" and all(f"--{k}:{v}" in _STYLE for k, v in PALETTE["light"].items())


# --- a browser

@needs_browser
@pytest.mark.parametrize("width,scheme", [(320, "light"), (390, "light"), (768, "dark"), (1101, "dark"), (1280, "light")])
def test_in_a_browser(browser, text, tmp_path, width, scheme):
    "Nothing complains, nothing is asked for, nothing sticks out. Set FMTI_PICTURES to a folder to look at it."
    (tmp_path/"fmti.html").write_text(text, encoding="utf-8")
    w = browser.new_page(viewport={"width": width, "height": 844}, color_scheme=scheme)
    asked, complaints = [], []
    w.on("request", lambda r: asked.append(r.url)); w.on("pageerror", lambda e: complaints.append(str(e))); w.on("console", lambda m: complaints.append(m.text))
    w.goto((tmp_path/"fmti.html").as_uri())
    w.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
    assert asked == [(tmp_path/"fmti.html").as_uri()] and not complaints
    assert w.evaluate("document.documentElement.scrollWidth") <= width
    out = w.evaluate("w => [...document.querySelectorAll('main *')].filter(e => !e.closest('.hidden, thead') && e.getBoundingClientRect().right > w + 1).map(e => e.outerHTML.slice(0, 120))", width)
    assert not out
    cards = w.evaluate("getComputedStyle(document.querySelector('#i1')).display")
    assert cards == ("table-row" if width > 1100 else "block")
    if folder := os.environ.get("FMTI_PICTURES"):
        w.evaluate("document.querySelectorAll('details').forEach(d => d.open = false)")
        w.screenshot(path=f"{folder}/fmti_{width}_{scheme}.png", full_page=True)
    w.close()


@needs_browser
def test_by_keyboard(browser, text, tmp_path):
    (tmp_path/"fmti.html").write_text(text, encoding="utf-8")
    w = browser.new_page(viewport={"width": 1280, "height": 844})
    w.goto((tmp_path/"fmti.html").as_uri())
    w.keyboard.press("Tab")
    where = "(({x, y, width, height}) => [x, y, width, height])(document.activeElement.getBoundingClientRect())"
    x, y, width, height = w.evaluate(where)
    assert w.evaluate("document.activeElement.className") == "skip" and x >= 0 and y >= 0 and width > 20 and height > 10   # it shows itself
    assert w.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    seen = []
    for _ in range(8): w.keyboard.press("Tab"); seen.append(w.evaluate("document.activeElement.textContent"))
    assert "What we could not prove" in seen and "Every indicator" in seen
    w.focus("summary"); w.keyboard.press("Enter")
    assert w.evaluate("document.querySelector('details').open")
    w.close()
