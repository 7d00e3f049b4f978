"""A notebook, run from top to bottom with its default (tiny) parameters in this process: it ends, and writes over nothing that is tracked.

`make outputs` asks, too, whether it prints what the file in git says. What a model says that was trained in a cell depends on the processor,
so that this is a question about the machine on which the outputs were made, and not a test for every machine."""
import json
import os
import re
import sys
from pathlib import Path

from execnb.nbio import dict2nb
from execnb.shell import CaptureShell
from pictures import leave_out

ROOT = Path(__file__).resolve().parents[1]
KINDS = {"library": (".",), "stages": ("stages",), "figures": ("figures", "tutorials")}
SKIPPED = re.compile(r"^#\|\s*(notest|slow|eval:\s*false)\b", re.M)
# What may differ between two machines or two moments: numbers with a point (clocks, the last digits of sums), digests, addresses, folders that are temporary.
VARIES = [(re.compile(p), "…") for p in (r"(/[\w.-]+)*/(tmp|T|var)[\w./-]*", r"0x[0-9a-f]{6,}", r"-?\d[\d,]*\.\d+(e[-+]?\d+)?|-?\d+e[-+]?\d+", r"\b[0-9a-f]{12,64}\b", r"(?<=\"created\":)\d+|chatcmpl-\w+")]
MORE_HERE = {("67_frenchbench.lexical.ipynb", "samples"), ("67_frenchbench.lexical.ipynb", "betray")}   # show more where the corpus and the lexicons are at hand


def notebooks(kind):
    "The notebooks of a kind, of which each is in exactly one."
    return sorted(p for folder in KINDS[kind] for p in (ROOT/"nbs"/folder).glob("*.ipynb"))


def name(path): return path.relative_to(ROOT/"nbs").as_posix()


def said(outputs):
    "What a cell printed and showed as text, without what varies; pictures count by being there."
    text = "".join("".join(o.get("text") or "") if o["output_type"] == "stream" and o["name"] == "stdout" else
                   "<picture>\n" if "image/png" in o.get("data", {}) or "image/svg+xml" in o.get("data", {}) else "".join(o.get("data", {}).get("text/plain", "")) + "\n" for o in outputs)
    for pattern, sign in VARIES: text = pattern.sub(sign, text)
    return " ".join(text.split())


def run(path, monkeypatch):
    monkeypatch.setenv("MPLBACKEND", "agg")
    monkeypatch.setenv("IN_TEST", "1")
    if path.parent.name == "figures": leave_out(monkeypatch, ("svg",))
    monkeypatch.chdir(path.parent)
    monkeypatch.setattr(sys, "path", [str(ROOT), *sys.path])
    before = {p: p.stat().st_mtime_ns for p in (ROOT/"reports").rglob("*") if p.is_file()}
    nb = dict2nb(json.loads(path.read_text(encoding="utf-8")))
    kept = [said(c.get("outputs", [])) for c in nb.cells]
    shell, other = CaptureShell(path, mpl_format=None if path.parent.name in ("stages", "figures") else "png"), []   # those draw what they save; what is shown besides is the same picture
    for cell, old in zip(nb.cells, kept):
        if cell.cell_type != "code" or SKIPPED.search(cell.source) or "nbdev_export(" in cell.source: continue
        cell.outputs = []
        shell.cell(cell)
        if shell.exc: raise AssertionError(f"{path.name}, cell {cell.id}:\n{shell.prettytb(fname=path)}")
        if old and (path.name, cell.id) not in MORE_HERE and (new := said(cell.outputs)) != old: other.append(f"{cell.id}: {old[:300]!r} in git, {new[:300]!r} now")
    os.chdir(ROOT)
    changed = [str(p.relative_to(ROOT)) for p in (ROOT/"reports").rglob("*") if p.is_file() and before.get(p) != p.stat().st_mtime_ns]
    assert not changed, f"run with its defaults, {path.name} wrote over {changed}"
    assert not (other and os.environ.get("CROISSANT_OUTPUTS")), f"{path.name} prints something else than the file in git says; look at it, then `python tools/nb.py run nbs/{name(path)}`:\n" + "\n".join(other)
