"""The documentation site: complete, without dead ends, loads nothing from elsewhere, and reads on a phone.

Set SITE_PICTURES to a folder to look at it, and SITE_BUILT to a site that stands already to save the build."""

import html
import http.server
import importlib.util
import inspect
import io
import json
import os
import re
import subprocess
import sys
import threading
from pathlib import Path
from urllib.parse import unquote, urlsplit

import lxml.html
import pytest
from chromium import needs_browser
import yaml
from fastcore.docments import docments

from croissant.params import root
from croissant.provenance import load_json, load_table

sys.path.insert(0, str(root()/"tools"))
from site_api import exported, reference  # noqa: E402
from site_build import OWN, WHOLE  # noqa: E402
from site_contents import CHAPTERS, chapter, sources  # noqa: E402
from site_graph import FAST, edges, layered, part_of, pipeline, reduced, short  # noqa: E402
from site_pages import Site, mathml  # noqa: E402
from site_paper import mentioned, sections  # noqa: E402

SEEN = ["index.html", "nbs/30_model.html", "nbs/stages/50_evaluate.html", "nbs/figures/fig_loss.html", "nbs/tutorials/01_bonjour.html", "paper.html", "graph.html", "glossary.html", "reports/discrepancies.html"]


class Page:
    "What a page holds: ids, links, pictures, what it loads, titles, words outside code."

    def __init__(self, path):
        tree = lxml.html.document_fromstring(path.read_bytes(), parser=lxml.html.HTMLParser(encoding="utf-8", huge_tree=True))
        self.lang, self.titles = tree.get("lang"), len(tree.findall(".//h1"))
        self.ours = bool(tree.find_class("md-container"))      # the rest are reports and exports, taken as they are
        self.ids, self.links = tree.xpath("//@id"), tree.xpath("//a/@href")
        self.images = [(e.get("src"), e.get("alt")) for e in tree.iter("img")]
        self.loads = tree.xpath("//@src") + tree.xpath("//link[not(contains('canonical next prev', @rel))]/@href")
        self.words = tree.xpath("//body//text()[not(ancestor::code or ancestor::pre or ancestor::script or ancestor::style or ancestor::svg)]")


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    if built := os.environ.get("SITE_BUILT"): return Path(built)
    out = tmp_path_factory.mktemp("site")/"docs"
    done = subprocess.run([sys.executable, str(root()/"tools/site.py"), "build", str(out)], capture_output=True, text=True, cwd=root())
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    assert "No issues found" in done.stdout + done.stderr, (done.stdout + done.stderr)[-2000:]
    print(done.stdout)
    return out


@pytest.fixture(scope="module")
def pages(site): return {p.relative_to(site).as_posix(): Page(p) for p in sorted(site.rglob("*.html")) if p.name != "404.html"}


@pytest.fixture
def blank(tmp_path): return Site(tmp_path)


def plain(text):
    "Words without markup or spaces."
    return re.sub(r"[`*\s]", "", html.unescape(re.sub(r"<[a-z/][^>]*>", "", text)))


def cells(tmp_path, *markdown):
    "A notebook with these cells of prose."
    (tmp_path/"n.ipynb").write_text(json.dumps({"nbformat": 4, "nbformat_minor": 5, "metadata": {}, "cells": [{"cell_type": "markdown", "id": f"c{i}", "metadata": {}, "source": [m]} for i, m in enumerate(markdown)]}), encoding="utf-8")
    return str(tmp_path/"n.ipynb")


# --- form

def test_every_notebook_is_a_page_in_one_chapter(site, pages):
    notebooks = {p.relative_to(root()).as_posix() for p in (root()/"nbs").rglob("*.ipynb") if ".ipynb_checkpoints" not in p.parts} - {"nbs/index.ipynb", "nbs/results.ipynb"}
    assert notebooks <= set(sources()) and {str(Path(n).with_suffix(".html")) for n in notebooks} | {f"{n}.html" for n in OWN} | {"index.html", *WHOLE} <= set(pages)
    assert {chapter(n) for n in notebooks} == {t for t, _, _ in CHAPTERS} | {"Stages", "Figures", "Tutorials"}
    linked = {os.path.normpath(urlsplit(link).path) for link in pages["contents.html"].links}
    assert {str(Path(n).with_suffix(".html")) for n in notebooks} <= linked


def test_no_link_anchor_or_picture_is_dead(site, pages):
    dead, n, anchors = [], 0, {name: set(page.ids) for name, page in pages.items()}
    for name, page in pages.items():
        for link in [*page.links, *(src for src, _ in page.images), *page.loads]:
            u = urlsplit(link)
            if u.scheme or u.netloc: continue
            n += 1
            target = os.path.normpath(Path(name).parent/unquote(u.path)) if u.path else name
            if target == ".": target = "index.html"
            if not (site/target).is_file(): dead.append((name, link))
            elif u.fragment and target in pages and unquote(u.fragment) not in anchors[target]: dead.append((name, link))
    assert n > 20_000 and not dead, dead[:20]
    print(f"{len(pages)} pages, {n} links")


def test_one_title_a_language_and_words_for_every_picture(pages):
    assert not [n for n, p in pages.items() if p.titles != 1]
    assert not [n for n, p in pages.items() if p.lang != "en"]
    assert not [(n, src) for n, p in pages.items() for src, alt in p.images if not (alt or "").strip()]
    assert not [(n, i) for n, p in pages.items() if p.ours and len(set(p.ids)) < len(p.ids) for i in set(p.ids) if p.ids.count(i) > 1]


def test_nothing_is_loaded_from_elsewhere(site, pages):
    assert not [(n, u) for n, p in pages.items() for u in p.loads if urlsplit(u).scheme not in ("", "data") or urlsplit(u).netloc]
    assert not [(p.name, u) for p in site.rglob("*.css") for u in re.findall(r"url\([\"']?(https?:|//)", p.read_text(encoding="utf-8"))]


def test_no_directive_or_template_is_left(pages):
    marks = re.compile(r"\{\{|\}\}|^:{3,}|^#\||\$\$|\\(?:frac|text|sum|log|times)\b|[\ue000-\ue1ff]|</?details", re.M)
    assert not [(n, w) for n, p in pages.items() if p.ours for w in p.words if marks.search(w.strip())]


def test_search_knows_every_chapter(site, pages):
    index = json.loads((site/"search.json").read_text(encoding="utf-8"))
    found = {urlsplit(item["location"]).path for item in index["items"]}
    assert {n for n, p in pages.items() if p.ours} == found
    said = " ".join(item.get("text", "") + item["title"] for item in index["items"])
    assert all(w in said for w in ("MinHash", "rééchantillonnage", "trigram", "fig_loss"))


# --- prose, mathematics, reference

def test_solutions_are_hidden_and_rendered(blank, tmp_path):
    source = cells(tmp_path, "# T\n\n> one line", "## Exercises\n\n1. Combien font $1+1$ ?\n\n<details><summary>Solutions</summary>\n\n### One\n\n**Deux**, as `1 + 1` says, $\\sqrt{4}$:\n\n```python\nassert 1 + 1 == 2\n```\n\n</details>\n\nAfter.")
    blank.sources[source] = ("n.html", "T")
    made = blank.notebook(source)
    assert "## Exercises {#exercises}" in made and made.count("##") == 1 and "one line" not in made
    hidden = re.search(r"<details><summary>Solutions</summary>(.*)</details>", made, re.S)[1]
    assert "<h3>One</h3>" in hidden and "<strong>Deux</strong>" in hidden and "<msqrt>" in hidden and '<div class="highlight">' in hidden and "<p>After.</p>" in made.split("</details>")[1]


def test_mathematics_is_mathml_and_what_cannot_be_is_an_error():
    assert "<msub><mi>x</mi><mi>i</mi></msub>" in mathml("x_i") and 'display="block"' in mathml("x", True)
    assert "&lt;s&gt;" in mathml(r"\texttt{<s>}") and "acc_norm" in mathml(r"\text{acc\_norm}") and ">arg<" in mathml(r"\arg\max_a f(a)")
    with pytest.raises(ValueError, match="no MathML"): mathml(r"x + \nosuchcommand{y} + x + x + x + x + x + x + x + x")


def test_money_and_code_are_no_mathematics(blank, tmp_path):
    source = cells(tmp_path, "# T", "It costs 5 $ and `$x$` stays code.")
    blank.sources[source] = ("n.html", "T")
    assert "<math" not in blank.notebook(source)


def test_a_dead_link_stops_the_build(blank, tmp_path):
    source = cells(tmp_path, "# T", "See [this](nowhere.md).")
    blank.sources[source] = ("n.html", "T")
    with pytest.raises(FileNotFoundError, match="nowhere.md"): blank.notebook(source)


@pytest.mark.parametrize("source,module", [("nbs/00_params.ipynb", "params"), ("nbs/01_provenance.ipynb", "provenance"), ("nbs/31_optim.ipynb", "optim"), ("nbs/72_plan.ipynb", "plan")])
def test_reference_says_what_docments_says(source, module):
    "The comments that our reading of the source finds are those that fastcore finds in the running function."
    text, names = reference(source)
    rows = 0
    for node, _, _ in exported(source):
        found = getattr(importlib.import_module(f"croissant.{module}"), node.name, None)
        if not inspect.isfunction(found): continue
        shown = plain(re.search(rf"^.### `{node.name}` .*?(?=^.### |\Z)", text, re.S | re.M)[0])
        for name, said in docments(found).items():
            if said:
                assert plain(html.escape(said)) in shown, (node.name, name, said)
                rows += 1
    assert rows and names


@pytest.mark.parametrize("source,name,of_its_base", [("nbs/33_train_config.ipynb", "TrainConfig", "max_steps"), ("nbs/30_model.ipynb", "Llama", "body")])
def test_reference_of_a_class_that_goes_on_from_another(source, name, of_its_base):
    "Fields and methods of the private class before it count as its own; the private one is not named."
    text, _ = reference(source)
    shown = plain(re.search(rf"^.### `{name}` .*?(?=^.### |\Z)", text, re.S | re.M)[0])
    public = getattr(importlib.import_module(f"croissant.{source.split('_', 1)[1].removesuffix('.ipynb')}"), name)
    assert of_its_base in shown and public.__base__.__name__.startswith("_") and public.__base__.__name__ not in shown


# --- the pipeline

def test_graph_has_every_stage_once_with_its_hashes(site, pages):
    stages = yaml.load((root()/"dvc.yaml").read_text(encoding="utf-8"), FAST)["stages"]
    lock = yaml.load((root()/"dvc.lock").read_text(encoding="utf-8"), FAST)["stages"]
    made, text = pipeline(), (site/"graph.html").read_text(encoding="utf-8")
    assert set(made) == set(stages)
    own = re.findall(r'<a class="own" href="([^"]+)">.*?<text[^>]*>([^<]+)</text>.*?<text class="hash"[^>]*>([^<]+)</text>', text)
    assert sorted(n for _, n, _ in own) == sorted(stages)
    for href, name, hashes in own:
        assert href == f"{Path(made[name]['notebook']).with_suffix('.html')}#stage-{name}"
        known = {o["md5"].removesuffix(".dir")[:7] for o in lock[name].get("outs", [])} if name in lock else set()
        assert set(hashes.split()) <= known or hashes == "made anew"
    for name, stage in lock.items():
        for e in [*stage.get("deps", []), *stage.get("outs", [])]:
            if not e["path"].startswith("croissant/") and not e["path"].endswith(".ipynb") and e["path"] in {**made[name]["in"], **made[name]["out"]}: assert f'<code>{e["path"]}</code> <code class="hash">{e["md5"].removesuffix(".dir")[:7]}' in text, (name, e["path"])


def test_edges_lead_from_left_to_right():
    made = pipeline()
    links = edges(made)
    assert ("build_corpus", "train_tokenizer") in links and ("train_tokenizer", "build_corpus") not in links
    place = layered(list(made), links)
    assert all(place[a][0] < place[b][0] for a, b in links) and len(set(place.values())) == len(made)
    assert {part_of(s) for s in made.values()} >= {"Corpus", "Figures and tables"} and short({"a": "", "b": "0123456789.dir"}) == "0123456"
    assert reduced([("a", "b"), ("b", "c"), ("a", "c")]) == [("a", "b"), ("b", "c")]


# --- the paper's structure

@pytest.mark.parametrize("text,found", [("section 3.6; Figure 5", ["3.6"]), ("sections 3.5 to 3.7", ["3.5", "3.6", "3.7"]), ("Tables 9 to 12", ["2.1", "2.2", "2.3", "2.4"]), ("Tables 4 and 5", ["4.2"]),
                                        ("(sections 2 and 3)", ["2", "3"]), ("Appendix F", ["Appendix F"]), ("abstract; section 1.1", ["Abstract", "1.1"]), ("hub card of a released checkpoint", [])])
def test_locators(text, found): assert mentioned(text) == found


def test_paper_shows_every_claim_once_with_its_verdict(site):
    text, claims = (site/"paper.html").read_text(encoding="utf-8"), load_table("reports/tables/claims_checked.csv")
    assert {c["id"] for c in claims} <= {r["id"] for r in load_table("reports/claims.csv")}
    rows = dict(re.findall(r'<tr id="([\w-]+)">.*?<span class="verdict [\w-]+">([^<]+)</span></td></tr>', text))
    assert rows == {c["id"]: c["verdict"] for c in claims}
    cards = [load_json(p.relative_to(root())) for p in (root()/"reports/figures").glob("*.json")]
    assert all(f'href="{Path(c["stage"]).with_suffix(".html")}"' in text for c in cards)
    shown = [i.strip() for s in sections() for i in s["shows"].split(";") if i.strip()]
    assert len(shown) == len(set(shown)) and {f"Table {n}" for n in range(1, 16)} | {f"Figure {n}" for n in range(1, 15)} == set(shown)


def test_glossary_has_the_words_of_the_notebooks():
    words = load_table("nbs/glossary.csv")
    assert len(words) >= 50 and all(all(r.values()) for r in words) and len({r["english"] for r in words}) == len(words)
    prose = {r["notebook"]: "\n".join("".join(c["source"]) for c in load_json(r["notebook"])["cells"] if c["cell_type"] == "markdown").lower() for r in words}
    assert not [r["english"] for r in words if not all(w in prose[r["notebook"]] for w in r["english"].lower().split(", "))]
    table = (root()/"reports/results.md").read_text(encoding="utf-8").split("## Words")[1].split("\n## ")[0]
    said = {r["english"]: (r["français"], r["meaning"]) for r in words}
    rows = [tuple(c.strip() for c in line.strip("|").split("|")) for line in table.splitlines() if line.startswith("|")][2:]
    assert rows and all(said.get(e) == (f, m) for e, f, m in rows), [r for r in rows if said.get(r[0]) != r[1:]]


# --- a browser

CONTRAST = """() => {
  const parse = c => { const m = c.match(/[\\d.]+/g).map(Number); return c.startsWith('color(') ? [m[0] * 255, m[1] * 255, m[2] * 255, m[3] ?? 1] : [m[0], m[1], m[2], m[3] ?? 1] };
  const over = (f, b) => [0, 1, 2].map(i => f[i] * f[3] + b[i] * (1 - f[3])).concat(1);
  const light = c => { const [r, g, b] = c.slice(0, 3).map(v => (v /= 255) <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4); return .2126 * r + .7152 * g + .0722 * b };
  const ground = e => { const stack = []; for (; e; e = e.parentElement) { const c = parse(getComputedStyle(e).backgroundColor); if (c[3]) stack.push(c); if (c[3] === 1) break } return stack.reverse().reduce((b, f) => over(f, b), [255, 255, 255, 1]) };
  const walk = document.createTreeWalker(document.querySelector('.md-container, main, body'), NodeFilter.SHOW_TEXT), seen = new Set(), bad = []; let n = 0;
  while (walk.nextNode()) {
    const e = walk.currentNode.parentElement;
    if (seen.has(e) || !walk.currentNode.textContent.trim() || e.closest('script,style,svg,.headerlink,.md-search,[hidden]') || !e.checkVisibility({opacityProperty: true, visibilityProperty: true}) || !e.getBoundingClientRect().width) continue;
    seen.add(e); if (++n > 1500) break;
    const b = ground(e), f = over(parse(getComputedStyle(e).color), b), [hi, lo] = [light(f), light(b)].sort((x, y) => y - x), ratio = (hi + .05) / (lo + .05);
    if (ratio < 4.5) bad.push([Math.round(ratio * 100) / 100, getComputedStyle(e).color, e.outerHTML.slice(0, 100)]);
  }
  return [n, bad];
}"""


@pytest.fixture(scope="module")
def served(site):
    

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), type("Quiet", (http.server.SimpleHTTPRequestHandler,), {"log_message": lambda *a: None, "__init__": lambda self, *a, **k: http.server.SimpleHTTPRequestHandler.__init__(self, *a, directory=str(site), **k)})) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def window(browser, width, scheme):
    w = browser.new_page(viewport={"width": width, "height": 844}, color_scheme=scheme)
    w.set_default_timeout(60_000)
    w.asked, w.complaints = [], []
    w.on("request", lambda r: w.asked.append(r.url)); w.on("pageerror", lambda e: w.complaints.append(str(e)))
    w.on("console", lambda m: w.complaints.append(m.text) if m.type in ("error", "warning") else None)
    return w


@needs_browser
@pytest.mark.parametrize("width,scheme", [(390, "light"), (1280, "dark")])
def test_pages_in_a_browser(browser, served, width, scheme):
    "Nothing complains, nothing is asked of others, nothing sticks out, everything can be read."
    from PIL import Image
    w = window(browser, width, scheme)
    for name in SEEN:
        w.goto(f"{served}/{name}")
        w.evaluate("document.querySelectorAll('main details').forEach(d => d.open = true)")
        assert w.evaluate("document.documentElement.scrollWidth") <= width, name
        n, bad = w.evaluate(CONTRAST)
        assert n > 20 and not bad, (name, bad[:5])
        w.evaluate("document.querySelector('h1').insertAdjacentHTML('afterend', '<p id=faint style=\"color:#777\">pâle</p>')")
        assert any("pâle" in b[2] for b in w.evaluate(CONTRAST)[1]), "the check sees no faint text"
        w.evaluate("document.getElementById('faint').remove()")
        w.evaluate("document.querySelectorAll('main details').forEach(d => d.open = false)")
        shot = w.screenshot(**({"path": f"{folder}/{name.replace('/', '_')}_{width}.png"} if (folder := os.environ.get("SITE_PICTURES")) else {}))
        colours = Image.open(io.BytesIO(shot)).convert("RGB").getcolors(1 << 24)
        assert len(colours) > 50 and max(c for c, _ in colours) < .97 * sum(c for c, _ in colours), f"{name} is blank"
    assert {urlsplit(u).netloc for u in w.asked if not u.startswith(("data:", "blob:"))} == {urlsplit(served).netloc} and not w.complaints
    w.close()


@needs_browser
def test_search_finds_a_chapter(browser, served):
    w = window(browser, 1280, "light")
    w.goto(f"{served}/index.html")
    w.wait_for_load_state("networkidle")
    w.get_by_role("button", name="Search").locator("visible=true").first.click()
    w.wait_for_timeout(500)
    w.keyboard.type("near-duplicate")
    w.locator("a[href*='13_dedup']").locator("visible=true").first.wait_for()
    assert not w.complaints
    w.close()
