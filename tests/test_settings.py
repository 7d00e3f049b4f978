"""settings.ini is the one source: what other files repeat of it must agree."""
import re, tomllib
from configparser import ConfigParser

from croissant import __version__
from croissant.params import root

INI = ConfigParser(delimiters=["="])
INI.read(root()/"settings.ini", encoding="utf-8")
INI = INI["DEFAULT"]
TOML = tomllib.loads((root()/"pyproject.toml").read_text(encoding="utf-8"))


def as_ini(v):
    return " ".join(v) if isinstance(v, list) else str(v)


def test_nbdev3_table_repeats_settings_ini():
    for k, v in TOML["tool"]["nbdev"].items():
        assert as_ini(v) == INI[k], f"[tool.nbdev] {k} differs from settings.ini"


def test_project_table_repeats_settings_ini():
    p = TOML["project"]
    assert p["name"] == INI["lib_name"]
    assert p["requires-python"] == ">=" + INI["min_python"]
    assert p["urls"] == {"Repository": INI["git_url"], "Documentation": INI["doc_host"] + INI["doc_baseurl"]}


def test_version_is_exported():
    assert __version__ == INI["version"]


def test_lock_covers_every_requirement():
    locked = {m.lower().replace("_", "-") for m in re.findall(r"^([A-Za-z0-9_.-]+)==", (root()/"requirements.lock").read_text(), re.M)} | {"torch"}
    wanted = {re.split(r"[<>=!~\[ ]", r)[0].lower() for r in (INI["requirements"] + " " + INI["dev_requirements"]).split()}
    assert wanted <= locked, wanted - locked
