"""Every figure and tutorial runs from top to bottom."""
import pytest
from notebook_runs import name, notebooks, run


@pytest.mark.parametrize("path", notebooks("figures"), ids=name)
def test_notebook_runs(path, monkeypatch): run(path, monkeypatch)
