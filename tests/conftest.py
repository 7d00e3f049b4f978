"""One thread each, no display, no network: what holds here holds on a laptop on a train."""
import gc
import importlib.util
import os
import shutil
from types import SimpleNamespace

import pytest
from hypothesis import settings

settings.register_profile("croissant", deadline=None, derandomize=True)   # a slow moment of the machine is no failure, and two runs try the same examples
settings.load_profile("croissant")

EXHAUSTIVE = bool(os.environ.get("CROISSANT_EXHAUSTIVE"))   # set by `make exhaustive`


def pytest_configure(config): config.addinivalue_line("markers", "exhaustive: takes a minute, and `make test` shows the same on a smaller case")


def pytest_xdist_auto_num_workers(config):
    "One more than there are cores: some tests wait for a process, a clock or a network that does not answer."
    return min(4, (os.cpu_count() or 1) + 1)


def pytest_collection_modifyitems(items):
    for item in items:
        if item.get_closest_marker("exhaustive") and not EXHAUSTIVE:
            item.add_marker(pytest.mark.skip(reason="takes a minute, and a smaller case runs; to run this: make exhaustive"))

gc.set_threshold(100_000, 50, 100)   # millions of objects stay to the end: looking for garbage among them less often saves a twentieth of the time
os.environ.setdefault("OMP_NUM_THREADS", "1")   # `make test` runs a file per core: threads that wait for one another cost four times what one alone needs
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
os.environ.setdefault("MPLBACKEND", "agg")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")


@pytest.fixture(autouse=True)
def _restore_torch_state():
    "Notebooks and trainers set threads and determinism; give the next test what this one found."
    import torch
    os.environ.pop("HF_XET_HIGH_PERFORMANCE", None)   # set by lm_eval on import; the processes that tests start would end in a crash
    threads, deterministic = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    yield
    torch.set_num_threads(threads)
    if torch.are_deterministic_algorithms_enabled() != deterministic: torch.use_deterministic_algorithms(deterministic)


@pytest.fixture(scope="session", autouse=True)
def _stages_in_this_process():
    "No kernel for every stage that a test runs; tests/test_stage.py asks for `real_kernels`."
    import papermill
    from in_process import execute_notebook
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(papermill, "execute_notebook", execute_notebook)
        yield


@pytest.fixture(scope="session", autouse=True)
def _one_toy_world(tmp_path_factory, worker_id):
    "The toy world of evidence takes half a minute to make: one for all the processes of a session, by whichever needs it first."
    import croissant.fmti.world as world
    from filelock import FileLock
    make, shared = world._made, tmp_path_factory.getbasetemp()
    if worker_id != "master": shared = shared.parent   # of all workers
    def made():
        with FileLock(shared/"world.lock"):
            if not (shared/"world").is_dir(): shutil.copytree(make().name, shared/"world.part"); (shared/"world.part").rename(shared/"world")
        return SimpleNamespace(name=str(shared/"world"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(world, "_made", made)
        yield


@pytest.fixture(scope="session", autouse=True)
def _quick_look_at_the_machine():
    "A training that shows its progress first measures what the machine reaches, for a fifth of a second; toys are trained by the hundred."
    from croissant.tracking import matmul_peak
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(matmul_peak, "__defaults__", (*matmul_peak.__defaults__[:2], 128, .002))
        yield


@pytest.fixture(scope="session", autouse=True)
def _facts_are_parsed_once():
    "Captions ask for the paper's facts again and again: what has the same content is parsed once."
    from croissant import provenance
    known, really = {}, provenance.load_table

    def load_table(path):
        full = provenance.root()/path
        if not full.is_file(): return really(path)
        if (text := full.read_bytes()) not in known: known[text] = really(path)
        return [dict(r) for r in known[text]]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(provenance, "load_table", load_table)   # as `fact` finds it
        yield


@pytest.fixture
def captions_only(monkeypatch):
    "For what reads the words of a figure: no picture is rendered."
    from pictures import leave_out
    leave_out(monkeypatch)


@pytest.fixture
def real_kernels(monkeypatch):
    import papermill
    from papermill.execute import execute_notebook
    monkeypatch.setattr(papermill, "execute_notebook", execute_notebook)


@pytest.fixture(scope="session")
def mirror(tmp_path_factory):
    "A folder laid out like the hub, with invented rows for every task; to be read, not changed."
    from frenchbench_mirror import write_mirror
    return write_mirror(tmp_path_factory.mktemp("mirror"))


@pytest.fixture(scope="module")
def load_benchmark():
    "A script of benchmarks/ as a module; the environment that it sets for itself is taken back."
    from croissant.params import root
    before = dict(os.environ)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(root()/"benchmarks"))
        def load(name):
            spec = importlib.util.spec_from_file_location(f"benchmarks_{name}", root()/f"benchmarks/{name}.py")
            module = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(module)
            os.environ.clear(); os.environ.update(before)
            return module
        yield load


@pytest.fixture(scope="module")
def browser():
    "Chromium, without a screen; for tests marked `needs_browser`."
    from chromium import CHROMIUM
    from playwright.sync_api import sync_playwright
    with sync_playwright() as p:
        b = p.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        yield b
        b.close()
