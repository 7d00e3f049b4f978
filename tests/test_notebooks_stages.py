"""Every stage runs from top to bottom."""
import pytest
from notebook_runs import name, notebooks, run


@pytest.mark.parametrize("path", notebooks("stages"), ids=name)
def test_notebook_runs(path, monkeypatch): run(path, monkeypatch)
