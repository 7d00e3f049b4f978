"""Numbers in prose are rendered from tracked files, and everything rendered is fresh."""
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from croissant import report
from croissant.params import BadInput

ROOT = Path(__file__).resolve().parents[1]
INDEX = json.loads((ROOT/"nbs/index.ipynb").read_text(encoding="utf-8"))
# What may hold a digit in prose: code, links, references, and names of things (a model size, a format, a paper).
NAMES = re.compile(r"```.*?```|`[^`]*`|\{\{.*?\}\}|\]\([^)]*\)|<[^>]*>|arXiv:?\s?[\d.]+v?\d*|Apache-2\.0|Python 3\.11|UTF-8|SHA-256|MD5|\bT\d\b|[Ss]ections? [\d.]+|CC BY-SA 4\.0", re.S)


def digits_in(text):
    return re.findall(r"[^\n]*\d[^\n]*", NAMES.sub("", text))


def test_readme_source_types_no_number():
    prose = "\n".join("".join(c["source"]) for c in INDEX["cells"] if c["cell_type"] == "markdown")
    assert not digits_in(prose), "render the number with {{metric}} instead of typing it"


def test_report_prose_types_no_number():
    for name in ("_LIMITS", "_RESULTS", "_CLAIMS", "_FMTI"):
        assert not digits_in(getattr(report, name)), f"{name}: render the number with {{{{metric}}}} instead of typing it"


def test_the_lint_can_fail():
    assert digits_in("accuracy is 0.84") and digits_in("we trained 3 models") and not digits_in("see `x[0]` and {{a/b|.2f}}")


def test_readme_is_what_the_index_renders():
    done = subprocess.run([sys.executable, "tools/site.py", "readme", "--check"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_report_is_what_the_tracked_files_render():
    assert (ROOT/"reports/report.html").read_text(encoding="utf-8") == report.report_html(), "run `croissant report`"


def test_report_is_self_contained():
    page = (ROOT/"reports/report.html").read_text(encoding="utf-8")
    assert len(page.encode()) < 5_000_000
    assert not re.search(r"""(?:src|href)=(?!["']?(?:data:|#))""", page), "nothing may be loaded from elsewhere"
    assert page.count("<img ") == page.count('<img alt="') and 'alt=""' not in page


def test_a_reference_to_nothing_is_an_error():
    with pytest.raises(BadInput): report.render("{{training/croissants}}")
    with pytest.raises(BadInput): report.render("{{training/bpb_fr.floors.coin}}")


def test_figures_are_drawn_from_the_tracked_inputs():
    changed = [r for r in report.provenance_rows() if r["state"] != "unchanged" and r["sha256"] != "absent"]
    assert not changed


@pytest.mark.parametrize("card", sorted((ROOT/"reports/figures").glob("*.json")), ids=lambda p: p.stem)
def test_every_figure_has_image_caption_and_source(card):
    c = json.loads(card.read_text(encoding="utf-8"))
    assert all(c[k] for k in ("title", "paper", "caption", "alt", "scope", "inputs"))
    assert card.with_suffix(".svg").is_file() and card.with_suffix(".png").is_file()
    assert (ROOT/f"nbs/figures/{card.stem}.ipynb").is_file(), "every figure has its own notebook"
