"""Stages without a kernel of their own: the cells run in this process, which has imported everything already.

A kernel costs seconds, most of them for imports, and the tests run hundreds of stages. Parameters are injected by papermill itself,
errors come out as papermill's; what a kernel does besides (signals, sockets, streams) is for tests/test_stage.py, which uses real ones.
"""
import os
import sys

import nbformat
from execnb.nbio import dict2nb
from execnb.shell import CaptureShell
from IPython.core.interactiveshell import InteractiveShell
from papermill.exceptions import PapermillExecutionError
from papermill.iorw import load_notebook_node
from papermill.parameterize import parameterize_notebook


def execute_notebook(source, out, parameters=None, cwd=None, **_):
    "As `papermill.execute_notebook`, in this process."
    import matplotlib.pyplot as plt
    nb = parameterize_notebook(load_notebook_node(source), parameters or {})
    before, folder, path = InteractiveShell._instance, os.getcwd(), sys.path[:]
    os.chdir(cwd or folder)
    try:
        with plt.rc_context():
            shell = CaptureShell(mpl_format=None)   # `save_figure` draws, and that is enough: nobody sees what is shown here
            live = dict2nb(nbformat.from_dict(nb))
            for i, (cell, kept) in enumerate(zip(live.cells, nb.cells)):
                shell.cell(cell)
                if cell.cell_type != "code": continue
                kept["outputs"] = [nbformat.from_dict(o) for o in cell.get("outputs", [])]
                if (e := shell.exc):
                    if isinstance(e, KeyboardInterrupt): raise e
                    raise PapermillExecutionError(i, i, cell.source, type(e).__name__, str(e), [])
    finally:
        plt.close("all")
        os.chdir(folder)
        sys.path[:] = path
        InteractiveShell._instance = before
        nbformat.write(nb, out)
    return nb
