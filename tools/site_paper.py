"""The paper's structure as a second way in: section -> chapters -> stages -> figures and tables -> claims, from tracked files alone."""
import re
from pathlib import Path

from site_pages import ROOT, esc, heading, read_csv, read_json, rel

SECTIONS = "nbs/paper_sections.csv"
REF = re.compile(r"\b(?:paper )?sections? (\d(?:\.\d)*)(?:(,| and| to) (\d(?:\.\d)*))?(?:(?:,| and) (\d(?:\.\d)*))?|\bappendix ([A-F])|\b(table|figure)s? (\d+)(?:( and| to|,) (\d+))?|\b(abstract)\b", re.I)


def sections(): return read_csv(SECTIONS)


def mentioned(text, known=None):
    "The sections that a text names, itself or by a table or figure, in order; `sections 3.5 to 3.7` is three."
    known = sections() if known is None else known
    order = [s["section"] for s in known]
    shows = {item.strip(): s["section"] for s in known for item in s["shows"].split(";") if item.strip()}
    named, by_item = [], []
    for m in REF.finditer(text):
        first, joint, second, third, appendix, kind, number, also, last, abstract = m.groups()
        if first: named += order[order.index(first):order.index(second) + 1] if joint == " to" and {first, second} <= set(order) else [s for s in (first, second, third) if s in order]
        elif appendix: named += [f"Appendix {appendix.upper()}"] * (f"Appendix {appendix.upper()}" in order)
        elif abstract: named.append("Abstract")
        else:
            numbers = range(int(number), int(last) + 1) if also == " to" else [int(n) for n in (number, last) if n]
            by_item += [shows[f"{kind.title()} {n}"] for n in numbers if f"{kind.title()} {n}" in shows]
    return list(dict.fromkeys(named)) or list(dict.fromkeys(by_item))


def name(section): return section if section[0].isalpha() else f"Section {section}"


def anchor(section): return re.sub(r"[^a-z0-9]+", "-", name(section).lower())


def prose_of(source): return "\n".join("".join(c["source"]) for c in read_json(source)["cells"] if c["cell_type"] == "markdown")


def gathered(site, stages):
    "Section -> its chapters, stages, figures and claims."
    known = sections()
    found = {s["section"]: {"chapters": [], "stages": [], "figures": [], "claims": []} for s in known}
    for source in site.sources:
        if re.fullmatch(r"nbs/\d\d_[^/]*\.ipynb", source):
            for s in mentioned(re.sub(r"```.*?```", "", prose_of(source), flags=re.S), known): found[s]["chapters"].append(source)
    makers = {path: name for name, stage in stages.items() for path in stage["out"]}
    for card in (read_json(p.relative_to(ROOT)) for p in sorted((ROOT/"reports/figures").glob("*.json"))):
        for s in mentioned(card["paper"], known) or ["Released files"]:
            found[s]["figures"].append(card)
            found[s]["stages"] += [makers[i] for i in card["inputs"] if i in makers and not makers[i].startswith(("fig_", "tbl_"))]
    for name, stage in stages.items():
        if "/stages/" in stage["notebook"]:
            for s in mentioned(prose_of(stage["notebook"]), known): found[s]["stages"].append(name)
    for claim in read_csv("reports/tables/claims_checked.csv"): found[(mentioned(claim["locator"], known) or ["Released files"])[0]]["claims"].append(claim)
    return known, {k: v | {"stages": list(dict.fromkeys(v["stages"]))} for k, v in found.items()}


def verdicts(claims):
    counts = {}
    for c in claims: counts[c["verdict"]] = counts.get(c["verdict"], 0) + 1
    return " ".join(f'<span class="verdict {slugged(v)}">{n} {esc(v)}</span>' for v, n in sorted(counts.items(), key=lambda e: -e[1]))


def slugged(verdict): return verdict.replace(" ", "-")


def claims_table(claims):
    rows = "".join(f'<tr id="{esc(c["id"])}"><td>{esc(c["locator"])}</td><td>{esc(c["claim"])}</td><td class="num">{esc(c["reported_value"])}</td><td class="num">{esc(c["recomputed"])[:12]}</td>'
                   f'<td>{esc(c["status"])}</td><td><span class="verdict {slugged(c["verdict"])}">{esc(c["verdict"])}</span></td></tr>\n' for c in claims)
    return f'<div class="scroll" tabindex="0"><table class="claims"><thead><tr><th>where</th><th>claim</th><th>printed</th><th>computed</th><th>how</th><th>verdict</th></tr></thead><tbody>\n{rows}</tbody></table></div>'


def paper(site, stages, where, page):
    "The page: an overview, then a part for each section of the paper that something here speaks of."
    known, found = gathered(site, stages)
    link = lambda target, text: f'<a href="{rel(target, page)}">{text}</a>'
    head = "".join(f'<tr><th scope="row"><a href="#{anchor(s["section"])}">{name(s["section"])}</a></th><td>{esc(s["subject"])}</td><td class="num">{len(f["chapters"])}</td><td class="num">{len(f["stages"])}</td><td class="num">{len(f["figures"])}</td><td>{verdicts(f["claims"])}</td></tr>\n'
                   for s in known if any((f := found[s["section"]]).values()))
    out = [f'<div class="scroll" tabindex="0"><table><thead><tr><th>paper</th><th>subject, in our words</th><th>chapters</th><th>stages</th><th>figures</th><th>claims</th></tr></thead><tbody>\n{head}</tbody></table></div>']
    for s in known:
        f = found[s["section"]]
        if not any(f.values()): continue
        out.append(heading(2, f'{name(s["section"])}: {s["subject"]}', anchor(s["section"])))
        lines = []
        if s["shows"]: lines.append(f'<dt>the paper shows</dt><dd>{esc(s["shows"])}</dd>')
        if f["chapters"]: lines.append("<dt>chapters</dt><dd><ul>" + "".join(f"<li>{link(site.page(c), f'<code>{esc(Path(c).stem)}</code> {esc(site.sources[c][1])}')}</li>" for c in f["chapters"]) + "</ul></dd>")
        if f["stages"]: lines.append("<dt>stages</dt><dd>" + " · ".join(link(where(n), f"<code>{esc(n)}</code>") for n in f["stages"]) + "</dd>")
        if f["figures"]: lines.append("<dt>figures and tables</dt><dd><ul>" + "".join(f'<li>{link(site.page(c["stage"]), esc(c["title"]))} <span class="soft">{esc(c["paper"])}; numbers of: {esc(c["scope"])}</span></li>' for c in f["figures"]) + "</ul></dd>")
        if f["claims"]: lines.append(f'<dt>claims</dt><dd>{verdicts(f["claims"])}</dd>')
        out.append(f'<dl class="section">{"".join(lines)}</dl>' + (f'<details><summary>{len(f["claims"])} claims, one by one</summary>{claims_table(f["claims"])}</details>' if f["claims"] else ""))
    return "\n\n".join(out)
