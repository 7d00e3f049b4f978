"""Two threads at most, no display, no network: what holds here holds on a laptop on a train."""
import os

import pytest
from hypothesis import settings

settings.register_profile("croissant", deadline=None, derandomize=True)   # a slow moment of the machine is no failure, and two runs try the same examples
settings.load_profile("croissant")

os.environ.setdefault("OMP_NUM_THREADS", "2")
os.environ.setdefault("MPLBACKEND", "agg")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")


@pytest.fixture(autouse=True)
def _restore_torch_state():
    "Notebooks and trainers set threads and determinism; give the next test what this one found."
    import torch
    threads, deterministic = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    yield
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(deterministic)
