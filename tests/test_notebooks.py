"""Every notebook keeps the house rules; that it runs is for test_notebooks_{library,stages,figures}.py, a file for each core to take."""
import ast
import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = sorted(p for p in (ROOT/"nbs").rglob("*.ipynb") if not any(x[0] in "._" for x in p.relative_to(ROOT).parts))
LIBRARY = [p for p in NOTEBOOKS if re.match(r"\d\d_", p.name) and p.parent == ROOT/"nbs"]
THIN = [p for p in NOTEBOOKS if p.parent.name in ("stages", "figures")]
NAME = lambda p: p.relative_to(ROOT/"nbs").as_posix()


def code(path):
    return ["".join(c["source"]) for c in json.loads(path.read_text(encoding="utf-8"))["cells"] if c["cell_type"] == "code"]


@pytest.mark.parametrize("path", LIBRARY, ids=NAME)
def test_library_imports_only_lower_numbers(path):
    number = {re.search(r"^#\|\s*default_exp\s+(\S+)", "\n".join(code(p)), re.M)[1]: p.name[:2] for p in LIBRARY}
    for module in re.findall(r"^from croissant\.([\w.]+) import", "\n".join(code(path)), re.M):
        assert number[module] < path.name[:2], f"{path.name} imports croissant.{module} of notebook {number[module]}"


@pytest.mark.parametrize("path", THIN, ids=NAME)
def test_stages_and_figures_are_thin(path):
    nb = json.loads(path.read_text(encoding="utf-8"))
    cells = [c for c in nb["cells"] if c["cell_type"] == "code"]
    assert sum("parameters" in c["metadata"].get("tags", []) for c in cells) == 1, "exactly one cell is tagged `parameters`"
    assert not any(re.search(r"^\s*(def|class)\s", "".join(c["source"]), re.M) for c in cells), "definitions belong in the library"
    assert not any(c["outputs"] for c in cells), "a stage keeps no outputs: DVC hashes the file, its results are in reports/"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=NAME)
def test_cells_fit_on_a_screen(path):
    for source in code(path):
        assert source.rstrip().count("\n") < 40, f"{source[:80]}...: cut it where a new idea begins; a class goes on in a class that inherits"


def test_functions_are_short():
    for path in sorted(p for folder in ("croissant", "tools", "tests", "benchmarks") for p in (ROOT/folder).rglob("*.py")):
        for f in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(f, ast.FunctionDef | ast.AsyncFunctionDef): assert f.end_lineno - f.lineno < 60, f"{path.relative_to(ROOT)}: {f.name}"


def test_canonical_form():
    import subprocess, sys
    done = subprocess.run([sys.executable, "tools/nb.py", "check", "nbs"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_every_notebook_is_run():
    from notebook_runs import KINDS, notebooks
    assert sorted(p for kind in KINDS for p in notebooks(kind)) == NOTEBOOKS
