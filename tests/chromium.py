"""A browser for the tests that look at a page; without one they are skipped, and say what to install."""
import importlib.util
import os
import shutil

import pytest

EXTRA = "not here; un-skip: install chromium (CHROMIUM names another path), and `pip install --no-deps --require-hashes -r requirements-serve.lock`"
CHROMIUM = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, ("chromium", "google-chrome", "chromium-browser"))), None)


def has(name): return importlib.util.find_spec(name) is not None


needs_browser = pytest.mark.skipif(not (has("playwright") and CHROMIUM), reason=f"playwright or Chromium is {EXTRA}")
