"""The stage runner: strict parameters, repeatable output, honest exit status."""
import importlib.util
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from types import SimpleNamespace

import pytest

from croissant import stage
from croissant.params import BadInput, root

pytestmark = pytest.mark.usefixtures("real_kernels")

CELLS = ["x = 1\nout = ''", "print('x is', x)", "import sys; print('noise', file=sys.stderr)"]


def notebook(cells, tmp_path):
    "A stage notebook in the repository's (ignored) reports/nb folder, where stages run."
    nb = {"cells": [{"cell_type": "code", "id": f"c{i}", "metadata": {"tags": ["parameters"]} if i == 0 else {}, "execution_count": None,
                     "outputs": [], "source": s} for i, s in enumerate(cells)],
          "metadata": {"kernelspec": {"display_name": "python3", "language": "python", "name": "python3"}}, "nbformat": 4, "nbformat_minor": 5}
    path = tmp_path/"stage.ipynb"
    path.write_text(json.dumps(nb))
    return path


def test_two_runs_are_equal_to_the_byte(tmp_path):
    nb = notebook(CELLS, tmp_path)
    for name in ("a", "b"):
        assert stage.main([str(nb), str(tmp_path/f"{name}/out.ipynb"), "-q", "-p", "x", "7"]) == 0
    a, b = ((tmp_path/n/"out.ipynb").read_text() for n in ("a", "b"))
    assert a.replace(str(tmp_path/"a"), "") == b.replace(str(tmp_path/"b"), "") and "x is 7" in a and '"name": "stderr"' not in a


def test_failure_keeps_the_half_run_notebook_aside(tmp_path, capsys):
    nb = notebook(["x = 1", "raise ValueError('cassé')"], tmp_path)
    assert stage.main([str(nb), str(tmp_path/"out.ipynb"), "-q"]) == 1
    assert not (tmp_path/"out.ipynb").exists() and (tmp_path/"out.failed.ipynb").exists()


def test_bad_input_inside_a_stage_is_one_line_and_status_2(tmp_path, capsys):
    nb = notebook(["x = 1", "from croissant.params import BadInput\nraise BadInput('corpus.jsonl row 3: not UTF-8')"], tmp_path)
    assert stage.main([str(nb), str(tmp_path/"out.ipynb"), "-q"]) == 2
    assert "error: corpus.jsonl row 3: not UTF-8" in capsys.readouterr().err


def test_unknown_and_missing_parameters(tmp_path, capsys):
    nb = notebook(CELLS, tmp_path)
    assert stage.main([str(nb), str(tmp_path/"out.ipynb"), "-p", "y", "2"]) == 2
    assert "no parameter named y" in capsys.readouterr().err
    with pytest.raises(BadInput, match="no value for out"): stage.check_params(nb, {"x": 1}, complete=True)
    assert stage.main(["nbs/none.ipynb", "o.ipynb"]) == 2
    assert stage.main([str(nb), "o.ipynb", "-f", "params.yaml:nowhere"]) == 2
    assert not list(tmp_path.glob("*.failed.ipynb")) and root().is_dir()


def test_a_section_that_is_no_mapping(tmp_path, capsys):
    nb = notebook(CELLS, tmp_path)
    (tmp_path/"p.yaml").write_text("train: 3\n1: x\n")
    for section, message in (("train", "section 'train' is int (3)"), ("4", "known here: train, 1")):
        assert stage.main([str(nb), str(tmp_path/"out.ipynb"), "-f", f"{tmp_path/'p.yaml'}:{section}"]) == 2
        assert message in capsys.readouterr().err


def test_a_stage_that_ends_well_reports_no_error(tmp_path):
    "The manager that shuts a kernel down interrupts it first, which an idle kernel logs as an error; ours does not."
    nb = notebook(CELLS, tmp_path)
    p = subprocess.run([sys.executable, "-m", "croissant.stage", str(nb), str(tmp_path/"out.ipynb"), "-q"], cwd=root(), capture_output=True, text=True)
    assert p.returncode == 0 and "KeyboardInterrupt" not in p.stderr and "ERROR" not in p.stderr


def test_no_right_to_write_is_one_line_and_status_2(tmp_path, capsys):
    nb = notebook(CELLS, tmp_path)
    (tmp_path/"fichier").write_text("ceci n'est pas un dossier")
    assert stage.main([str(nb), str(tmp_path/"fichier/out.ipynb"), "-q"]) == 2
    err = capsys.readouterr().err
    assert err.startswith("error: ") and "fichier" in err and err.count("\n") == 1


def test_divergence_inside_a_stage_is_one_line_and_status_1(tmp_path, capsys):
    nb = notebook(["x = 1", "class Diverged(RuntimeError): pass\nraise Diverged('step 3: loss nan')"], tmp_path)
    assert stage.main([str(nb), str(tmp_path/"out.ipynb"), "-q"]) == 1
    assert capsys.readouterr().err == "error: step 3: loss nan\n"


# A cell that needs two seconds to save, as a training run does; a second signal would end it at once.
SAVES = """
import os, pathlib, time
from croissant.trainer import asked_to_stop
here = pathlib.Path(where)
with asked_to_stop() as asked:
    (here/"pid").write_text(str(os.getpid()))
    while not asked.is_set(): time.sleep(.02)
    time.sleep(2)
    (here/"state").write_text("état")
    raise KeyboardInterrupt("stopped after step 3 of 9; the state is in state")
"""
DEAF = """
import os, pathlib, signal, time
signal.signal(signal.SIGINT, signal.SIG_IGN)
(pathlib.Path(where)/"pid").write_text(str(os.getpid()))
while True: time.sleep(1)
"""
PLAIN = """
import os, pathlib, time
(pathlib.Path(where)/"pid").write_text(str(os.getpid()))
time.sleep(99)
"""


def wait_for(found, seconds=60):
    end = time.monotonic() + seconds
    while not found():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(.05)


def alive(pid):
    try: return open(f"/proc/{pid}/stat").read().rpartition(")")[2].split()[0] != "Z"
    except OSError: return False


def press_ctrl_c(tmp_path, cell, times=1):
    "Run a stage in a process group of its own, as a terminal does, and press Ctrl-C while `cell` runs."
    nb = notebook(["where = ''", cell, "raise AssertionError('went on after Ctrl-C')"], tmp_path)
    log, pid = tmp_path/"stderr", tmp_path/"pid"
    with log.open("w") as err:
        p = subprocess.Popen([sys.executable, "-m", "croissant.stage", str(nb), str(tmp_path/"out.ipynb"), "-q", "-p", "where", str(tmp_path)],
                             cwd=root(), stderr=err, start_new_session=True)
        try:
            wait_for(lambda: pid.is_file() and pid.read_text())
            for n in range(1, times + 1):
                os.killpg(p.pid, signal.SIGINT)
                if n < times: wait_for(lambda: "stopping" in log.read_text())
            p.wait(60)
        finally:
            if p.poll() is None: p.kill()
    wait_for(lambda: not alive(pid.read_text()), 15)
    assert not (tmp_path/"out.ipynb").exists() and (tmp_path/"out.failed.ipynb").exists()
    said = log.read_text()
    assert "Traceback" not in said or "zmqstream.py" in said, said   # an interrupted kernel's sockets may complain; we never do
    return p.returncode, log.read_text().strip().splitlines()[-1]


def test_ctrl_c_lets_the_cell_save_first(tmp_path):
    code, last = press_ctrl_c(tmp_path, SAVES)
    assert code == 130 and (tmp_path/"state").read_text() == "état"
    assert last.startswith("stopped after step 3 of 9; the state is in state. Run the same command again") and "out.failed.ipynb" in last


def test_ctrl_c_in_an_ordinary_cell(tmp_path):
    code, last = press_ctrl_c(tmp_path, PLAIN)
    assert code == 130 and "which saved nothing" in last


def test_a_second_ctrl_c_kills(tmp_path):
    began = time.monotonic()
    code, last = press_ctrl_c(tmp_path, DEAF, times=2)
    assert code == 130 and "killed" in last and time.monotonic() - began < 60


def test_ctrl_c_reaches_the_kernel_exactly_once(monkeypatch, capsys):
    sent = []
    monkeypatch.setattr(os, "killpg", lambda group, signum: sent.append((group, signum)))
    kernel = lambda group: SimpleNamespace(provisioner=SimpleNamespace(pgid=group))
    own, other = os.getpgrp(), os.getpgrp() + 1
    for group, running, want in ((other, True, [(other, signal.SIGINT)]), (own, True, []), (other, False, [])):
        sent.clear()
        stop = stage._Stop()
        stop.kernel = kernel(group)
        if running: stop.cell_executes()
        stop(signal.SIGINT, None)
        assert sent == want
        if running: stop.cell_starts()   # the cell had it, and ended well: go on
        else:
            with pytest.raises(KeyboardInterrupt, match="between two cells"): stop.cell_starts()
        with pytest.raises(KeyboardInterrupt, match="killed"): stop(signal.SIGINT, None)
        assert sent == want + [(other, signal.SIGKILL)]*(group == other)
    stop = stage._Stop()   # before there is a kernel
    stop(signal.SIGINT, None)
    with pytest.raises(KeyboardInterrupt): stop.cell_starts()


@pytest.fixture
def repro():
    "tools/repro.py as a module."
    spec = importlib.util.spec_from_file_location("repro", root()/"tools/repro.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("code, want", [("import sys; sys.exit(2)", 2), ("import sys; sys.exit(255)", 255), ("import os; os.kill(os.getpid(), 9)", 137)])
def test_repro_passes_a_status_on(repro, code, want):
    repro.run(sys.executable, "-c", "pass")
    with pytest.raises(repro.Stopped, match="ended with status") as e: repro.run(sys.executable, "-c", code)
    assert e.value.args[1] == want


def test_repro_waits_for_what_ctrl_c_stops(tmp_path):
    saves = f"import pathlib, signal, sys, time\ndef save(*_): time.sleep(1); pathlib.Path({str(tmp_path/'state')!r}).touch(); sys.exit(130)\n" \
            f"signal.signal(signal.SIGINT, save)\npathlib.Path({str(tmp_path/'ready')!r}).touch()\nwhile True: time.sleep(1)"
    outer = f"import runpy, sys; r = runpy.run_path({str(root()/'tools/repro.py')!r})\ntry: r['run'](sys.executable, '-c', {saves!r})\nexcept r['Stopped'] as e: sys.exit(e.args[1])"
    p = subprocess.Popen([sys.executable, "-c", outer], start_new_session=True)
    wait_for((tmp_path/"ready").is_file)
    os.killpg(p.pid, signal.SIGINT)
    assert p.wait(30) == 130 and (tmp_path/"state").exists()


@pytest.mark.parametrize("clean, again", [(True, ""), (False, ""), (True, "retrain"), (True, "finetune"), (True, "studies")])
def test_repro_builds_only_what_is_not_up_to_date(repro, clean, again, monkeypatch, capsys, tmp_path):
    import croissant.provenance
    import croissant.verify
    calls = []
    for folder in ("data", "peers", "exams"): (tmp_path/f"{folder}.dvc").write_text("outs:\n- md5: pinned\n")
    monkeypatch.setattr(repro, "ROOT", tmp_path)
    monkeypatch.setattr(repro, "run", lambda *words, **more: calls.append(words[2:]))
    monkeypatch.setattr(repro, "up_to_date", lambda: clean)
    monkeypatch.setattr(croissant.provenance, "dvc_md5", lambda path: "pinned")
    monkeypatch.setattr(repro, "verification", lambda: 1)
    assert repro.main(again) == 1
    done = [" ".join(c) for c in calls]
    released, finetuned, studies = ["train_tokenizer", "pretrain"], ["translate", "chat", "twins"], repro.STUDIES
    restored = {"retrain": studies, "finetune": released + studies, "studies": released + finetuned}.get(again, [] if clean else released + finetuned + studies)
    assert [d for d in done if " pull " in d] == ([f"dvc pull -q {' '.join(restored)}"] if restored else []) and ("dvc repro" in done) == bool(restored)
    assert [d for d in done if "--force" in d] == [f"dvc repro --force --single-item {s}" for s in {"retrain": released + finetuned, "finetune": finetuned, "studies": studies}.get(again, [])]
    assert not list((tmp_path/"artifacts").rglob("*.made"))
    out = capsys.readouterr().out
    assert ("all up to date" in out) == (clean and not again) and out.count(" s\n") >= 3
    monkeypatch.setattr(croissant.provenance, "dvc_md5", lambda path: "altered")
    with pytest.raises(repro.Stopped, match="not what data.dvc pins") as e: repro.main(again)
    assert e.value.args[1] == 2


def test_what_was_made_before_a_stop_is_not_made_again(repro, monkeypatch, tmp_path):
    calls, lost = [], ["b"]
    monkeypatch.setattr(repro, "ROOT", tmp_path)
    def run(*words, **more):
        calls.append(" ".join(words[3:]))
        if words[-1] in lost: raise repro.Stopped("stopped with Ctrl-C", 130)
    monkeypatch.setattr(repro, "run", run)
    ledger = repro.Ledger("studies")
    with pytest.raises(repro.Stopped): repro.make_again(ledger, "a", "b", "c")
    lost.clear()
    repro.make_again(repro.Ledger("studies"), "a", "b", "c")
    forced = lambda s: f"repro --force --single-item {s}"
    assert calls == [forced("a"), forced("b"), "repro --single-item a", forced("b"), forced("c")] and ledger.made() == ["a", "b", "c"]
    ledger.close()
    assert repro.Ledger("studies").made() == []


def test_a_kernel_leaves_no_socket_behind(monkeypatch, tmp_path):
    "Its sockets lie in a folder of its own, so two stages at once cannot meet, and the folder goes with the stage."
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    before = set(root().iterdir())
    stage.run_stage("nbs/figures/tbl_model_sizes.ipynb", tmp_path/"out.ipynb", {}, log=False)
    assert not list(tmp_path.glob("k-*")) and set(root().iterdir()) == before


def test_a_stage_of_the_repository_in_a_kernel_of_its_own(tmp_path):
    "Elsewhere stages run in the process of the tests, which has imported everything; here one must import for itself."
    stage.run_stage("nbs/stages/40_generate.ipynb", tmp_path/"out.ipynb", {"out": str(tmp_path/"tables")}, log=False)
    assert list((tmp_path/"tables").rglob("*.csv"))
