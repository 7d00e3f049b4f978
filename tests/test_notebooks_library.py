"""Every library notebook runs from top to bottom."""
import pytest
from notebook_runs import name, notebooks, run


@pytest.mark.parametrize("path", notebooks("library"), ids=name)
def test_notebook_runs(path, monkeypatch): run(path, monkeypatch)
