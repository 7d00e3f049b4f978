"""Every figure and tutorial runs from top to bottom."""
import shutil

import pytest
from notebook_runs import name, notebooks, run

FOLDERS = ("metrics", "tables", "out_reports")   # parameters of stages: where results go


@pytest.fixture(scope="module", autouse=True)
def _a_stage_once_for_all_figures(tmp_path_factory):
    "Two figures of one toy study get copies of what the stage wrote once: it writes the same whenever it runs with the same parameters."
    from croissant import stage
    made, really = {}, stage.run_stage

    def run_stage(nb, out, params, **settings):
        asked = {k: v for k, v in params.items() if k in FOLDERS}
        which = repr((nb, sorted((k, v) for k, v in params.items() if k not in FOLDERS)))
        if which not in made:
            here = tmp_path_factory.mktemp("stage")
            own = {k: str(here/k) for k in (["out_reports"] if "out_reports" in asked else ["metrics", "tables"])}
            really(nb, here/"stage.ipynb", params | own, **settings)
            made[which] = own
        for k, v in asked.items(): shutil.copytree(made[which][k], v, dirs_exist_ok=True)
        return out

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stage, "run_stage", run_stage)
        yield


@pytest.mark.parametrize("path", notebooks("figures"), ids=name)
def test_notebook_runs(path, monkeypatch): run(path, monkeypatch)
