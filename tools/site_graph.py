"""The pipeline as a picture: stages of dvc.yaml, who reads whose outputs, and the first digits of the hashes that dvc.lock records.

One plain layered drawing for each part of the pipeline: a stage stands to the right of everything that it reads. No Graphviz is needed.
"""
from pathlib import Path

import yaml
from site_pages import ROOT, esc, heading, rel

PARTS = [  # Title, first and last number of the stage notebooks
    ("Corpus", 10, 19), ("Tokenizer", 20, 29), ("Training and its studies", 30, 39), ("Reading the model", 40, 59),
    ("Chat, translation, twins, export", 60, 69), ("Indicators, claims, numbers, report", 70, 99)]
FAST = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # ten times as fast, the same result
WIDE, TALL, GAP_X, GAP_Y, PAD = 196, 46, 56, 14, 12


def pipeline():
    "Stage -> notebook, inputs and outputs, as path -> hash; code and parameters apart."
    made, locked = {}, yaml.load((ROOT/"dvc.lock").read_text(encoding="utf-8"), FAST)["stages"]
    for name, spec in yaml.load((ROOT/"dvc.yaml").read_text(encoding="utf-8"), FAST)["stages"].items():
        lock = locked.get(name, {})
        known = {e["path"]: e.get("md5", "") for e in [*lock.get("deps", []), *lock.get("outs", [])]}
        names = lambda kind, spec=spec: [next(iter(o)) if isinstance(o, dict) else o for o in spec.get(kind, [])]
        code = [d for d in names("deps") if d.startswith("croissant/") or d.endswith(".ipynb")]
        made[name] = {"notebook": next(w for w in spec["cmd"].split() if w.endswith(".ipynb")), "code": {d: known.get(d, "") for d in code},
                      "in": {d: known.get(d, "") for d in names("deps") if d not in code},
                      "out": {o: known.get(o, "") for kind in ("outs", "metrics", "plots") for o in names(kind)}}
    return made


def within(path, folder): return path == folder or path.startswith(folder + "/") or folder.startswith(path + "/")


def edges(stages):
    "Pairs of stages: one makes what the other reads."
    return [(a, b) for a, s in stages.items() for b, t in stages.items() if a != b and any(within(i, o) for o in s["out"] for i in t["in"])]


def part_of(stage):
    "The part of the pipeline that a stage belongs to."
    name = Path(stage["notebook"])
    if name.parent.name == "figures": return "Figures and tables"
    return next(title for title, first, last in PARTS if first <= int(name.name[:2]) <= last)


def layered(nodes, links):
    "Node -> column and row: a column right of everything read; rows by the mean row of what is read, so that lines cross little."
    column = {}
    def depth(n, seen=()):
        if n not in column: column[n] = max([depth(a, (*seen, n)) + 1 for a, b in links if b == n and a not in seen], default=0)
        return column[n]
    for n in nodes: depth(n)
    for n in nodes:  # what only feeds later columns moves next to its first reader
        if not any(b == n for _, b in links): column[n] = max(0, min([column[b] for a, b in links if a == n], default=1) - 1)
    row = {}
    for c in range(max(column.values(), default=0) + 1):
        here = [n for n in nodes if column[n] == c]
        mean = lambda n: sum(found) / len(found) if (found := [row[a] for a, b in links if b == n and a in row]) else len(row)
        for i, n in enumerate(sorted(here, key=mean) if c else here): row[n] = i
    return {n: (column[n], row[n]) for n in nodes}


def reduced(links):
    "Without the lines that a longer way implies."
    after = {}
    for a, b in links: after.setdefault(a, set()).add(b)
    def reach(n, seen): return seen if n in seen else set().union({n}, *(reach(m, seen) for m in after.get(n, ())))
    return [(a, b) for a, b in links if not any(b in reach(m, set()) for m in after[a] if m != b)]


def short(hashes): return " ".join(sorted({h.removesuffix(".dir")[:7] for h in hashes.values() if h})[:2])


def drawing(title, stages, links, where, page):
    "The SVG of one part: its stages in boxes that are links, and in pale boxes what comes from elsewhere."
    own = [n for n, s in stages.items() if part_of(s) == title]
    outer = [n for n in stages if n not in own and any(a == n and b in own for a, b in links)]
    raw = sorted({i for n in own for i in stages[n]["in"] if i in ("data", "peers", "exams")})
    inner = [(a, b) for a, b in links if b in own and (a in own or a in outer)] + [(i, n) for i in raw for n in own if i in stages[n]["in"]]
    if title == "Figures and tables": inner = [e for e in inner if e[0] not in own]
    inner = reduced(inner)
    place = layered([*raw, *outer, *own], inner)
    x = lambda n: PAD + place[n][0] * (WIDE + GAP_X)
    y = lambda n: PAD + place[n][1] * (TALL + GAP_Y)
    width, height = max(map(x, place)) + WIDE + PAD, max(map(y, place)) + TALL + PAD
    parts = [f'<svg class="dag" role="img" aria-label="{esc(title)}: {len(own)} stages; the table below lists every input and output" xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}">']
    for a, b in inner:
        ax, ay, bx, by = x(a) + WIDE, y(a) + TALL / 2, x(b), y(b) + TALL / 2
        bend = max(28, (bx - ax) / 2)
        parts.append(f'<path class="edge" d="M{ax} {ay}C{ax + bend} {ay} {bx - bend} {by} {bx} {by}"><title>{esc(a)} → {esc(b)}</title></path><circle class="tip" cx="{bx}" cy="{by}" r="3"/>')
    for n in place:
        s, kind = stages.get(n), "raw" if n in raw else "own" if n in own else "outer"
        under = short(s["out"]) if s else short({n: next(t["in"][n] for t in stages.values() if n in t["in"])})
        box = (f'<rect x="{x(n)}" y="{y(n)}" width="{WIDE}" height="{TALL}" rx="7"/><text x="{x(n) + 12}" y="{y(n) + 19}">{esc(n)}</text>'
               f'<text class="hash" x="{x(n) + 12}" y="{y(n) + 36}">{esc(under or "made anew")}</text>')
        parts.append(f'<a class="{kind}" href="{rel(where(n), page)}">{box}</a>' if s else f'<g class="{kind}">{box}</g>')
    return "".join(parts) + "</svg>"


def ledger(name, stage):
    "Inputs and outputs of a stage with the first digits of their hashes, in words."
    cell = lambda kind: "".join(f"<li><code>{esc(p)}</code> <code class=\"hash\">{esc(h.removesuffix('.dir')[:7]) or '–'}</code></li>" for p, h in stage[kind].items())
    code = " ".join(f"<code>{esc(p)}</code>" for p in stage["code"])
    return f'<div class="ledger"><div><strong>reads</strong><ul>{cell("in") or "<li>nothing but code</li>"}</ul></div><div><strong>makes</strong><ul>{cell("out")}</ul></div></div><details><summary>code it depends on: {len(stage["code"])} files</summary><p>{code}</p></details>'


def graph(stages, where, page):
    "The page: a drawing and a list for each part."
    links, out = edges(stages), []
    for title in [*(t for t, _, _ in PARTS), "Figures and tables"]:
        own = {n: s for n, s in stages.items() if part_of(s) == title}
        if not own: continue
        out.append(heading(2, title) + f'<div class="scroll dagbox" tabindex="0">{drawing(title, stages, links, where, page)}</div>\n\n<details class="list"><summary>The same in words: {len(own)} stages</summary>' + "".join(
            f'<h4 id="{esc(n)}"><a href="{rel(where(n), page)}">{esc(n)}</a></h4>{ledger(n, s)}' for n, s in own.items()) + "</details>")
    return "\n\n".join(out)
