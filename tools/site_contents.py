"""What the pages are called and in which chapter they stand; and the pages that only list: contents, glossary, names."""
from pathlib import Path

from site_api import module_of
from site_pages import ROOT, esc, heading, read_csv, rel, title_of

CHAPTERS = [("Foundations", 0, 9), ("Corpus", 10, 19), ("Tokenizer and order", 20, 29), ("Model and trainer", 30, 39), ("After training", 40, 49), ("Scaling, translation, twins", 50, 59),
            ("FrenchBench", 60, 69), ("Claims and indicators", 70, 89), ("Report and command line", 90, 99)]
PROSE = ["CHANGELOG.md", "POLICY.md", "reports/LOG.md", "reports/data_card.md", "reports/full/data_card.md", "reports/discrepancies.md", "reports/exports/eu_model_documentation.md", "reports/model_card.md", "reports/results.md", "reports/training_content_summary.md"]


def sources():
    found = sorted(str(p.relative_to(ROOT)) for p in (ROOT/"nbs").rglob("*.ipynb") if not any(w.startswith((".", "_")) for w in p.relative_to(ROOT).parts))
    rendered = ("nbs/index.ipynb", "nbs/results.ipynb")   # as README.md and reports/results.md
    return [s for s in found if s not in rendered] + [p for p in PROSE if (ROOT/p).is_file()]


def chapter(source):
    "The part of the navigation that a notebook belongs to."
    name, folder = Path(source).name, Path(source).parent.name
    if folder in ("stages", "figures", "tutorials"): return folder.title()
    if source.endswith(".md"): return "Reports"
    return next((title for title, first, last in CHAPTERS if name[:2].isdigit() and first <= int(name[:2]) <= last), "Foundations")


def number(source): return name[:2] if (name := Path(source).name)[:2].isdigit() else ""


def label(source, title): return f"{number(source)} · {title}" if number(source) else title


def glossary(site, page):
    rows = "".join(f'<tr><td>{esc(r["english"])}</td><td lang="fr">{esc(r["français"])}</td><td>{esc(r["meaning"])}</td><td><a href="{rel(site.page(r["notebook"]), page)}">{esc(site.sources[r["notebook"]][1])}</a></td></tr>\n'
                   for r in sorted(read_csv("nbs/glossary.csv"), key=lambda r: r["english"].lower()))
    return f'<div class="scroll" tabindex="0"><table class="words"><thead><tr><th>English</th><th>français</th><th>meaning here</th><th>chapter</th></tr></thead><tbody>\n{rows}</tbody></table></div>'


def contents(site, page):
    "Every notebook with its one line, by chapter."
    out = []
    for title in [*(t for t, _, _ in CHAPTERS), "Stages", "Figures", "Tutorials"]:
        rows = "".join(f'<tr><td class="num">{number(s)}</td><td><a href="{rel(site.page(s), page)}">{esc(t)}</a></td><td>{esc(title_of(s)[1])}</td></tr>\n' for s, (_, t) in site.sources.items() if chapter(s) == title)
        if rows: out.append(heading(2, title) + f'<div class="scroll" tabindex="0"><table><thead><tr><th>no.</th><th>chapter</th><th>in one line</th></tr></thead><tbody>\n{rows}</tbody></table></div>')
    return "\n\n".join(out)


def names_page(site, names, page):
    out = []
    for source, found in names.items():
        rows = "".join(f'<tr><td><a href="{rel(site.page(source) + "#" + n, page)}"><code>{esc(n)}</code></a></td><td>{esc(d.splitlines()[0]) if d else ""}</td></tr>\n' for n, d in found)
        if found: out.append(heading(2, f"croissant.{module_of(source)}") + f'<div class="scroll" tabindex="0"><table><thead><tr><th>name</th><th>what it does</th></tr></thead><tbody>\n{rows}</tbody></table></div>')
    return "\n\n".join(out)
