"""The package in git is what the notebooks export, byte for byte."""
import filecmp, os, shutil, subprocess, sys
from pathlib import Path

from croissant.params import root


def test_package_is_fresh(tmp_path):
    for name in ("settings.ini", "pyproject.toml"):
        shutil.copy(root()/name, tmp_path/name)
    shutil.copytree(root()/"nbs", tmp_path/"nbs")
    env = {k: v for k, v in os.environ.items() if k != "IN_TEST"}
    subprocess.run([Path(sys.executable).with_name("nbdev_export")], cwd=tmp_path, env=env, check=True)
    made = {p.relative_to(tmp_path/"croissant") for p in (tmp_path/"croissant").rglob("*.py")}
    kept = {p.relative_to(root()/"croissant") for p in (root()/"croissant").rglob("*.py")}
    assert made == kept
    stale = [str(p) for p in sorted(made) if not filecmp.cmp(tmp_path/"croissant"/p, root()/"croissant"/p, shallow=False)]
    assert not stale, f"run nbdev_export: {stale}"
