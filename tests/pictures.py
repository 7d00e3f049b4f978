"Figure notebooks without all their pictures: rendering takes most of their time, and each is rendered twice, for the page and for the reader of the repository."
from pathlib import Path


def leave_out(patch, kinds=("png", "svg")):
    "With a `pytest.MonkeyPatch`: files of these kinds are empty from now on."
    from matplotlib.figure import Figure
    real = Figure.savefig
    patch.setattr(Figure, "savefig", lambda self, path, **settings: Path(path).write_bytes(b"") if (settings.get("format") or Path(path).suffix[1:]) in kinds else real(self, path, **settings))
