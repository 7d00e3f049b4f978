"""A notebook, run from top to bottom with its default (tiny) parameters in this process, must not write over what is tracked."""
from pathlib import Path

from nbdev.test import test_nb as run_nb

run_nb.__test__ = False
ROOT = Path(__file__).resolve().parents[1]
KINDS = {"library": (".",), "stages": ("stages",), "figures": ("figures", "tutorials")}


def notebooks(kind):
    "The notebooks of a kind, of which each is in exactly one."
    return sorted(p for folder in KINDS[kind] for p in (ROOT/"nbs"/folder).glob("*.ipynb"))


def name(path): return path.relative_to(ROOT/"nbs").as_posix()


def run(path, monkeypatch):
    monkeypatch.setenv("MPLBACKEND", "agg")
    before = {p: p.stat().st_mtime_ns for p in (ROOT/"reports").rglob("*") if p.is_file()}
    ok, _ = run_nb(path, skip_flags=["notest", "slow"], basepath=ROOT)
    assert ok, f"{path.name} failed; its traceback is above"
    changed = [str(p.relative_to(ROOT)) for p in (ROOT/"reports").rglob("*") if p.is_file() and before.get(p) != p.stat().st_mtime_ns]
    assert not changed, f"run with its defaults, {path.name} wrote over {changed}"
