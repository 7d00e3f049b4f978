"""dvc.yaml, full/dvc.yaml, params.yaml and the notebooks say the same thing."""
import ast
import json
import re
from pathlib import Path

import pytest

from croissant.claims import verify_claims
from croissant.fmti.checks import STAGES as STAGES_TABLE
from croissant.fmti.pipeline import pipeline, stages
from croissant.fmti.records import load_records
from croissant.params import load_yaml
from croissant.provenance import load_table, modules_reached

ROOT = Path(__file__).resolve().parents[1]
DVC = load_yaml(ROOT/"dvc.yaml")["stages"]
DVC |= {f"full/{name}": s for name, s in load_yaml(ROOT/"full/dvc.yaml")["stages"].items()}   # the larger corpus, beside the pipeline
PARAMS = load_yaml(ROOT/"params.yaml")
SMOKE = load_yaml(ROOT/"params.smoke.yaml")
STAGES = sorted(DVC)


def command(name):
    "Notebook, section of params.yaml and the parameters passed with -p."
    words = " ".join(DVC[name]["cmd"].split())
    notebook = re.search(r"\S+\.ipynb", words)[0]
    section = re.search(r"-f params\.yaml:(\S+)", words)
    return notebook, section and section[1], dict(re.findall(r"-p (\S+) (\S+)", words))


def covered(name, path):
    "Is a path, or a folder that it lies in, a dependency of the stage?"
    return any(path == d or path.startswith(d + "/") for d in DVC[name]["deps"])


def evidence():
    "Paths that the transparency records name, and the records themselves."
    return sorted({e["path"] for edition in ("1.0", "2025") for r in load_records(edition=edition) for e in r["evidence"]} | {"reports/fmti/indicators.csv", "fmti/claims", "fmti/schema.json"})


def code(notebook):
    return ["".join(c["source"]) for c in json.loads((ROOT/notebook).read_text(encoding="utf-8"))["cells"] if c["cell_type"] == "code"]


def declared(notebook):
    "Names and values of a notebook's parameters cell."
    for c in json.loads((ROOT/notebook).read_text(encoding="utf-8"))["cells"]:
        if "parameters" in c["metadata"].get("tags", []):
            return {t.id: ast.literal_eval(n.value) for n in ast.parse("".join(c["source"])).body if isinstance(n, ast.Assign) for t in n.targets}
    raise AssertionError(f"{notebook} has no parameters cell")


def neighbours_too(notebook):
    "The modules that a notebook reaches, those included that modules of a sub-package import from beside them."
    found, todo = set(), set(modules_reached(notebook))
    while todo:
        found.add(path := todo.pop())
        source, package = (ROOT/path).read_text(encoding="utf-8"), path.rpartition("/")[0].replace("/", ".")
        for dots, module, names in re.findall(r"^[ \t]*from (\.+)([\w.]*) import (.+)", source, re.M):
            above = package.rsplit(".", len(dots) - 1)[0] if len(dots) > 1 else package
            base = f"{above}.{module}".rstrip(".").replace(".", "/")
            todo |= {p for p in (f"{base}.py", *(f"{base}/{n.split(' as ')[0].strip()}.py" for n in names.split(","))) if (ROOT/p).is_file()} - found
    return found


@pytest.mark.parametrize("name", STAGES)
def test_deps_are_the_modules_reached_and_the_evidence(name):
    notebook, section, _ = command(name)
    deps = DVC[name]["deps"]
    assert notebook in deps and len(deps) == len(set(deps))
    modules, reached = {d for d in deps if d.startswith("croissant/")}, neighbours_too(notebook)
    assert reached <= modules, "a module is reached but no dependency"
    assert modules - reached <= (set(evidence()) if name == "score_fmti" else set()), "a module is a dependency, but neither reached nor evidence"
    assert [p for p in DVC[name].get("params", [])] == ([section] if section else [])


@pytest.mark.parametrize("path", evidence())
def test_evidence_of_the_indicators_is_a_dependency(path):
    assert covered("score_fmti", path)


def test_recorded_evidence_is_a_dependency():
    "What the tracked tables say was read, is declared by the stage that wrote them."
    read = {"score_fmti": {p for r in load_table("reports/tables/fmti.csv") for p in r["evidence"].split("; ") if p},
            "check_claims": {e.split("@")[0] for r in verify_claims() for e in r["evidence"].split("; ") if e} | {"reports/claims.csv"}}
    for name, paths in read.items():
        assert paths and not [p for p in sorted(paths) if not covered(name, p)], name


@pytest.mark.parametrize("card", sorted((ROOT/"reports/figures").glob("*.json")), ids=lambda p: p.stem)
def test_inputs_of_a_figure_are_dependencies(card):
    inputs = json.loads(card.read_text(encoding="utf-8"))["inputs"]
    assert inputs and not [p for p in inputs if not covered(card.stem, p)]


@pytest.mark.parametrize("name", [n for n in STAGES if command(n)[0].startswith("nbs/figures/")])
def test_files_that_a_figure_names_are_dependencies(name):
    "Also those that a default run reads: every tracked path in the code of the notebook, and the facts that it asks for."
    text = "\n".join(code(command(name)[0]))
    named = set(re.findall(r"reports/[\w/]+\.\w+", text)) | ({"reports/paper/facts.csv"} if re.search(r"\bfact\(", text) else set())
    if re.search(r"\bpaper_recount\(", text): named |= {"reports/fmti/indicators.csv", "reports/paper/fmti_figure8.csv"}
    assert not [p for p in sorted(named) if not covered(name, p)]


def test_report_depends_on_the_inputs_it_hashes():
    inputs = {p for card in (ROOT/"reports/figures").glob("*.json") for p in json.loads(card.read_text(encoding="utf-8"))["inputs"]}
    assert not [p for p in sorted(inputs | {STAGES_TABLE}) if not covered("report", p)]


def test_list_of_stages_is_what_dvc_yaml_says():
    assert load_table(STAGES_TABLE) == pipeline(), "run `make export`"
    assert set(stages(ROOT)) == {n for n in STAGES if not n.startswith("full/")}


@pytest.mark.parametrize("notebook", sorted({command(n)[0] for n in STAGES}))
def test_no_cell_shows_a_path(notebook):
    "A stage's executed notebook has the same bytes in every folder: no cell may end in what a writer returns."
    for source in code(notebook):
        body = ast.parse(source).body
        if not body or not isinstance(body[-1], ast.Expr) or source.rstrip().endswith(";"): continue
        last = body[-1].value
        called = last.func if isinstance(last, ast.Call) else last
        name = getattr(called, "id", getattr(called, "attr", ""))
        assert not name.startswith(("save_", "write_", "root")) and name not in ("here", "folder", "target"), f"{notebook}: end the cell in `.name`, not in a path"


def test_no_executed_notebook_holds_a_path_or_an_address():
    for path in [*(ROOT/"reports/nb").glob("*.ipynb"), *(ROOT/"reports/full/nb").glob("*.ipynb")]:
        if path.name.endswith(".failed.ipynb"): continue
        text = path.read_text(encoding="utf-8")
        assert str(ROOT) not in text and not re.search(r" at 0x[0-9a-f]{6,}", text), path.name


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
    assert report.startswith("reports/full/nb/" if name.startswith("full/") else "reports/nb/") and report in [o if isinstance(o, str) else next(iter(o)) for o in DVC[name]["outs"]]


def test_smoke_parameters_have_the_same_keys():
    names = {"caps", "cards", "tolerance"}   # their keys are names of tasks, models and formats, and a toy has others
    keys = lambda d: {k: keys(v) if isinstance(v, dict) and k not in names else None for k, v in d.items()}
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


def test_a_sibling_in_a_sub_package_is_reached(tmp_path, monkeypatch):
    from croissant import provenance
    (tmp_path/"croissant/deep").mkdir(parents=True)
    (tmp_path/"croissant/deep/one.py").write_text("from .two import a\nfrom ..three import b\n")
    for name in ("deep/two", "three", "four"): (tmp_path/f"croissant/{name}.py").write_text("")
    (tmp_path/"n.ipynb").write_text(json.dumps({"cells": [{"cell_type": "code", "source": ["from croissant.deep.one import a"]}]}))
    monkeypatch.setattr(provenance, "root", lambda: tmp_path)
    assert provenance.modules_reached("n.ipynb") == ["croissant/deep/one.py", "croissant/deep/two.py", "croissant/three.py"]


def test_params_are_written_as_dvc_writes_them(tmp_path):
    "So that `dvc exp run -S` changes the line of the parameter, and no other."
    from dvc.utils.serialize import modify_yaml
    copy = tmp_path/"params.yaml"
    copy.write_text((ROOT/"params.yaml").read_text(encoding="utf-8"), encoding="utf-8")
    with modify_yaml(str(copy)) as params: params["scaling"]["draws"] += 1
    old, new = ((p).read_text(encoding="utf-8").splitlines() for p in (ROOT/"params.yaml", copy))
    changed = [(a, b) for a, b in zip(old, new, strict=True) if a != b]
    assert len(changed) == 1 and changed[0][0].lstrip().startswith("draws:"), changed[:3]
