"""dvc.yaml, params.yaml and the notebooks say the same thing."""
import ast
import json
import re
from pathlib import Path

import pytest
import yaml

from croissant.provenance import modules_reached

ROOT = Path(__file__).resolve().parents[1]
DVC = yaml.safe_load((ROOT/"dvc.yaml").read_text(encoding="utf-8"))["stages"]
PARAMS = yaml.safe_load((ROOT/"params.yaml").read_text(encoding="utf-8"))
SMOKE = yaml.safe_load((ROOT/"params.smoke.yaml").read_text(encoding="utf-8"))
STAGES = sorted(DVC)


def command(name):
    "Notebook, section of params.yaml and the parameters passed with -p."
    words = " ".join(DVC[name]["cmd"].split())
    notebook = re.search(r"\S+\.ipynb", words)[0]
    section = re.search(r"-f params\.yaml:(\S+)", words)
    return notebook, section and section[1], dict(re.findall(r"-p (\S+) (\S+)", words))


def declared(notebook):
    "Names and values of a notebook's parameters cell."
    for c in json.loads((ROOT/notebook).read_text(encoding="utf-8"))["cells"]:
        if "parameters" in c["metadata"].get("tags", []):
            return {t.id: ast.literal_eval(n.value) for n in ast.parse("".join(c["source"])).body if isinstance(n, ast.Assign) for t in n.targets}
    raise AssertionError(f"{notebook} has no parameters cell")


@pytest.mark.parametrize("name", STAGES)
def test_deps_are_exactly_the_modules_reached(name):
    notebook, section, _ = command(name)
    deps = DVC[name]["deps"]
    assert notebook in deps
    assert sorted(d for d in deps if d.startswith("croissant/")) == modules_reached(notebook)
    assert [p for p in DVC[name].get("params", [])] == ([section] if section else [])


@pytest.mark.parametrize("name", STAGES)
def test_every_parameter_is_given_and_known(name):
    notebook, section, passed = command(name)
    given = {**(PARAMS[section] if section else {}), **passed}
    assert set(given) == set(declared(notebook)) or not section and set(given) <= set(declared(notebook))


@pytest.mark.parametrize("name", STAGES)
def test_inputs_and_outputs_on_the_command_line_are_declared(name):
    _, _, passed = command(name)
    paths = [v for v in passed.values() if ("/" in v or v == "data") and not v.startswith("artifacts/runs/")]   # scratch, removed at the end
    flat = [p if isinstance(p, str) else next(iter(p)) for key in ("deps", "outs", "metrics", "plots") for p in DVC[name].get(key, [])]
    for p in paths:
        assert any(f == p or f.startswith(p + "/") or p.startswith(f + "/") for f in flat), f"{name}: {p} is neither dependency nor output"


@pytest.mark.parametrize("name", STAGES)
def test_executed_notebook_is_an_output(name):
    report = DVC[name]["cmd"].split()[4]
    assert report.startswith("reports/nb/") and report in [o if isinstance(o, str) else next(iter(o)) for o in DVC[name]["outs"]]


def test_smoke_parameters_have_the_same_keys():
    keys = lambda d: {k: keys(v) if isinstance(v, dict) else None for k, v in d.items()}
    assert keys(PARAMS) == keys(SMOKE)


@pytest.mark.parametrize("name", [n for n in STAGES if command(n)[1]])
def test_a_stage_by_default_is_the_smoke_run(name):
    notebook, section, _ = command(name)
    defaults = declared(notebook)
    assert {k: defaults[k] for k in SMOKE[section]} == SMOKE[section]


def test_every_stage_and_figure_notebook_is_run_by_the_pipeline():
    used = {command(n)[0] for n in STAGES}
    made = {p.relative_to(ROOT).as_posix() for d in ("stages", "figures") for p in (ROOT/"nbs"/d).glob("*.ipynb")}
    assert made == used
