"""Style and types, by the same commands as `make check`."""
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
RUFF, MYPY = ("-m", "ruff", "check", "--no-cache"), ("-m", "mypy")


def run(*command, cwd=ROOT):
    return subprocess.run([sys.executable, *command], cwd=cwd, capture_output=True, text=True)


@pytest.mark.parametrize("command", [(*RUFF, "croissant", "tools", "tests", "benchmarks"), MYPY], ids=["ruff", "mypy"])
def test_code_is_clean(command):
    done = run(*command)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("command,code", [(RUFF, "import os\n"), (MYPY, "def cuire(minutes: int) -> str: return minutes\n")], ids=["ruff", "mypy"])
def test_the_tools_bite(tmp_path, command, code):
    (tmp_path/"pain.py").write_text(code, encoding="utf-8")
    done = run(*command, f"--config{'-file' if 'mypy' in command else ''}={ROOT/'pyproject.toml'}", *(["--cache-dir=/dev/null"] if "mypy" in command else []), "pain.py", cwd=tmp_path)
    assert done.returncode == 1 and "pain.py" in done.stdout


def test_make_check_runs_the_same():
    recipe = (ROOT/"Makefile").read_text(encoding="utf-8")
    assert "ruff check croissant tools tests benchmarks" in recipe and "&& mypy" in recipe
