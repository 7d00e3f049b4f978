"Figure notebooks without their pictures: the words and tables that they write, and the drawing of every axis, but no rendering, which takes most of their time."
from pathlib import Path


def leave_out(patch):
    "With a `pytest.MonkeyPatch`: files of figures are empty from now on."
    from matplotlib.figure import Figure
    patch.setattr(Figure, "savefig", lambda self, path, **_: Path(path).write_bytes(b""))
