"""The site: which pages there are, in which chapters, what stands on each; then Zensical adds navigation and search."""
import json, os, re, shutil, subprocess, sys, tempfile
from html.parser import HTMLParser
from pathlib import Path

from site_api import module_of, reference
from site_contents import CHAPTERS, PROSE, chapter, contents, glossary, label, names_page, sources
from site_graph import graph, ledger, pipeline
from site_pages import ROOT, Site, esc, heading, read_csv, read_json, rel, table, title_of
from site_paper import anchor, mentioned, paper, prose_of

WHOLE = ["reports/report.html", "reports/fmti.html"]  # pages of their own, taken as they are
OWN = {"contents": "All chapters", "paper": "By the paper’s sections", "graph": "The pipeline, with its hashes", "glossary": "Glossary, français et anglais", "api": "All names", "reports": "Reports and records"}
WAYS = [("contents.html", "Read in order", "from bytes to claims, one notebook a chapter"), ("paper.html", "By the paper’s sections", "section, chapter, stage, figure, verdict"),
        ("graph.html", "The pipeline", "every stage, with the hashes of what it read and made"), ("glossary.html", "Glossaire", "the words of the trade in French and English"),
        ("api.html", "All names", "functions and classes of the package"), ("reports.html", "Reports", "claims, indicators, data card, the log of what was tried")]
MOST = 30  # rows of a table that a page shows


def figure(site, card, page):
    "A figure with caption and provenance: what it was drawn from."
    site.files |= {(svg := f"reports/figures/{card['name']}.svg")} | {csv_ for csv_ in [f"reports/tables/{card['name']}.csv"] if (ROOT/csv_).is_file()}
    rows = [{"file": path, "SHA-256": sha[:12], "as": kind} for kind in ("inputs", "code") for path, sha in card[kind].items()]
    points = f"reports/tables/{card['name']}.csv"
    data = f'<details><summary>The points as a table</summary>{table(read_csv(points), most=MOST)}<p><a href="{rel(points, page)}">{esc(points)}</a></p></details>' if points in site.files else ""
    return (f'<figure class="tracked"><a href="{rel(svg, page)}"><img alt="{esc(card["alt"])}" src="{rel(svg, page)}" loading="lazy"></a><figcaption><strong>{esc(card["title"])}</strong> <span class="tag">{esc(card["paper"])}</span> '
            f'<span class="tag">numbers of: {esc(card["scope"])}</span><br>{esc(card["caption"])}</figcaption></figure>{data}<details><summary>Drawn from {len(card["inputs"])} files</summary>{table(rows)}</details>')


def metrics(path):
    "A record of measurements as rows."
    values = read_json(path).get("metrics", {})
    shown = lambda v: "" if v is None else f"{v:.6g}" if isinstance(v, float) else str(v)
    return [{"name": k, "value": shown(v.get("value")), "unit": v.get("unit", ""), "n": shown(v.get("n")), "95 % interval": " to ".join(map(shown, v["interval"])) if v.get("interval") else ""} for k, v in values.items()]


def made(site, source, stages, page):
    "What the stages of a notebook leave in git: figures, records, tables; and the ledger of hashes."
    out = []
    for name, stage in stages.items():
        if stage["notebook"] != source: continue
        shown = []
        for path in stage["out"]:
            if not (ROOT/path).is_file() or "reports/nb/" in path: continue
            if path.startswith("reports/figures/"):
                if path.endswith(".json"): shown.append(figure(site, read_json(path), page))
                continue
            if path.endswith(".csv") and "/figures/" in source: continue                     # shown with the figure
            rows = metrics(path) if path.startswith("reports/metrics/") else read_csv(path) if path.endswith(".csv") else []
            site.files.add(path)
            if path in site.sources: shown.append(f'<p><a href="{rel(site.page(path), page)}">{esc(site.sources[path][1])}</a></p>')
            elif rows: shown.append(f'<details><summary><code>{esc(path)}</code>: {len(rows)} rows</summary>{table(rows, most=MOST)}<p><a href="{rel(path, page)}">the file</a></p></details>')
            else: shown.append(f'<p><a href="{rel(path, page)}"><code>{esc(path)}</code></a></p>')
        more = f'<details><summary>Stage <code>{esc(name)}</code>: what it reads and makes</summary>{ledger(name, stage)}</details>'
        out.append(f'<section class="made" id="stage-{esc(name)}">{"".join(shown)}{more}</section>')
    return (heading(2, "What it makes", "what-it-makes") if "/stages/" in source else "") + "\n\n".join(out) + "\n\n" if out else ""


def facts(site, source, page):
    "Module, sections of the paper, and the notebook itself."
    items, known = [], mentioned(prose_of(source)) if re.fullmatch(r"nbs/(figures/|stages/|tutorials/)?[^/]+\.ipynb", source) else []
    if module := module_of(source): items.append(f"module <code>croissant.{esc(module)}</code>")
    if known: items.append("paper: " + ", ".join(f'<a href="{rel("paper.html#" + anchor(s), page)}">{s}</a>' for s in known[:4]))
    site.files.add(source)
    items.append(f'<a href="{rel(source, page)}">the notebook</a>')
    return f'<p class="facts">{" · ".join(items)}</p>\n\n'


class Links(HTMLParser):
    def __init__(self, text): super().__init__(); self.found = []; self.feed(text)
    def handle_starttag(self, tag, attributes): self.found += [v for k, v in attributes if k in ("href", "src") and v]


def whole(site, source, out):
    "A page that is complete already: its links to files lead to copies, those to folders are undone."
    site.sources.setdefault(source, (source, Path(source).stem))
    text = (ROOT/source).read_text(encoding="utf-8")
    for link in sorted(set(Links(text).found), key=len, reverse=True):
        if ":" in link or link.startswith("#"): continue
        where = site.href(link, source)
        text = re.sub(rf'href="?{re.escape(link)}"?(?=[\s>])', f'href="{where}"' if where else 'class="folder"', text)
    (out/source).write_text(text, encoding="utf-8")


def write(site):
    "Every page; gives the navigation back."
    stages = pipeline()
    for source in sources(): site.add(source, title_of(source)[0])
    site.add("README.md", "croissant", "index.html")
    for source in WHOLE: site.sources[source] = (source, Path(source).stem)
    refs, names = {}, {}
    for source in site.sources:
        if source.endswith(".ipynb") and chapter(source) not in ("Stages", "Figures", "Tutorials"):
            refs[source], names[source] = reference(source)
            site.names |= {Path(source).stem: site.page(source)} | {n: f"{site.page(source)}#{n}" for n, _ in names[source] if len(n) > 3 and n not in site.names}
    where = lambda stage: f"{site.page(stages[stage]['notebook'])}#stage-{stage}"
    for name in stages: site.names.setdefault(name if "_" in name else f"dvc repro {name}", where(name))
    for source, (page, title) in site.sources.items():
        if source.endswith(".ipynb"):
            line = title_of(source)[1]
            site.write(page, title, facts(site, source, page) + made(site, source, stages, page) + site.notebook(source, [n for n, _ in names.get(source, [])]) + "\n\n" + refs.get(source, ""), lead=site.inline(line, source))
        elif source not in ("README.md", *WHOLE): site.write(page, title, site.prose(re.sub(r"\A.*?^# .*?\n", "", (ROOT/source).read_text(encoding="utf-8"), count=1, flags=re.S | re.M), source))
    readme = (ROOT/"README.md").read_text(encoding="utf-8").split("\n> ", 1)[1]
    lead, text = readme.split("\n", 1)
    ways = "".join(f'<a href="{p}"><strong>{t}</strong><span>{d}</span></a>' for p, t, d in WAYS)
    site.write("index.html", "croissant", f'<nav class="ways" aria-label="Ways in">{ways}</nav>\n\n' + site.prose(text, "README.md"), lead=lead)
    records = "".join(f'<li><a href="{rel(site.page(s), "reports.html")}">{esc(t)}</a></li>' for s, t in [(WHOLE[0], "The report: figures, claims, provenance on one page"), (WHOLE[1], "The transparency indicators, the unproved ones first"), *((p, site.sources[p][1]) for p in PROSE if p in site.sources)])
    bodies = {"contents": contents(site, "contents.html"), "paper": paper(site, stages, where, "paper.html"), "graph": graph(stages, where, "graph.html"), "glossary": glossary(site, "glossary.html"),
              "api": names_page(site, names, "api.html"), "reports": f"<ul>{records}</ul>"}
    leads = {"paper": "For each section of CroissantLLM: the chapters that treat it, the stages and figures that answer it, and the verdict on each of its claims. Made from the ledger of claims, the pipeline and what the notebooks say; tables of the appendix stand with the section whose subject they carry.",
             "graph": "Who reads whose outputs, as DVC has it. Under each name: the first digits of the hashes of what the stage made. Every box leads to its notebook; pale boxes belong to another part, and a line that a longer way implies is left out.",
             "glossary": "The words that the notebooks use, in the language of the paper’s subject and of this site."}
    for name, title in OWN.items(): site.write(f"{name}.html", title, bodies[name], lead=leads.get(name, ""))
    groups = {title: [(label(s, t), p) for s, (p, t) in site.sources.items() if chapter(s) == title and s not in ("README.md", *WHOLE)] for title in [*(t for t, _, _ in CHAPTERS), "Stages", "Figures", "Tutorials", "Reports"]}
    groups["Reports"].insert(0, (OWN["reports"], "reports.html"))
    return [("croissant", "index.html"), *((OWN[k], f"{k}.html") for k in ("contents", "paper", "graph", "glossary", "api"))], groups


def config(cfg, top, groups):
    toml = lambda text: json.dumps(text, ensure_ascii=False)
    entry = lambda title, page: f"{{{toml(title.replace('`', ''))} = {toml(str(Path(page).with_suffix('.md')))}}}"
    nav = [entry(*e) for e in top] + [f"{{{toml(title)} = [{', '.join(entry(*e) for e in pages)}]}}" for title, pages in groups.items() if pages]
    return f"""[project]
site_name = {toml(cfg["title"])}
site_description = {toml(cfg["description"])}
site_author = {toml(cfg["author"])}
docs_dir = "docs"
site_dir = "site"
use_directory_urls = false
extra_css = ["site.css"]
copyright = "Apache-2.0. Every number is rendered from a tracked file."
nav = [{", ".join(nav)}]
[project.theme]
variant = "modern"
language = "en"
font = false
features = ["navigation.footer", "navigation.prune", "navigation.top", "content.code.copy", "search.highlight", "toc.follow"]
[[project.theme.palette]]
media = "(prefers-color-scheme: light)"
scheme = "default"
toggle.icon = "lucide/sun"
toggle.name = "Dark"
[[project.theme.palette]]
media = "(prefers-color-scheme: dark)"
scheme = "slate"
toggle.icon = "lucide/moon"
toggle.name = "Light"
[project.markdown_extensions.site_islands]
[project.markdown_extensions.attr_list]
[project.markdown_extensions.toc]
permalink = true
toc_depth = 3
"""


def build(cfg, out):
    "The site in a folder; gives the number of its pages back."
    out = Path(out)
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        site = Site(work/"docs")
        top, groups = write(site)
        shutil.copy(ROOT/"tools"/"site.css", site.docs/"site.css")
        (work/"zensical.toml").write_text(config(cfg, top, groups), encoding="utf-8")
        done = subprocess.run([sys.executable, "-m", "zensical", "build", "--clean"], cwd=work, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                              env=os.environ | {"NO_COLOR": "1", "PYTHONPATH": os.pathsep.join([str(ROOT/"tools"), os.environ.get("PYTHONPATH", "")])})
        said = re.sub(r"\x1b\[[0-9;]*m", "", done.stdout)
        print(said, end="")
        if done.returncode or "No issues found" not in said: raise SystemExit("the site has dead links, named above: mend the page that holds them")
        shutil.rmtree(out, ignore_errors=True)
        shutil.copytree(work/"site", out)
    done = set()
    while todo := sorted((site.files | set(WHOLE)) - done):  # a linked page may link to more
        for path in todo:
            (out/path).parent.mkdir(parents=True, exist_ok=True)
            if path.endswith(".html"): whole(site, path, out)
            else: shutil.copy(ROOT/path, out/path)
        done |= set(todo)
    return sum(1 for _ in out.rglob("*.html"))
