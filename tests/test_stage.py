"""The stage runner: strict parameters, repeatable output, honest exit status."""
import json

import pytest

from croissant import stage
from croissant.params import BadInput, root

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
