"""Scripts that must see a library's first import, without paying for everything that this library imports in its turn.

`huggingface_hub` and `datasets` read the environment once, when they are imported. One process imports what they are built on and none of
themselves; each script runs in a fork of it, with an environment of its own. It costs a fifth of an interpreter that starts from nothing."""
import atexit
import json
import subprocess
import sys
from functools import cache
from types import SimpleNamespace

SERVER = """
import json, os, signal, sys, tempfile, traceback
import aiohttp, dill, fsspec, httpx, multiprocess, numpy, pandas, pyarrow, pyarrow.ipc, pyarrow.parquet, requests, tqdm, yaml
import croissant.frenchbench.tasks, croissant.hub
early = [m for m in sys.modules if m.split(".")[0] in ("huggingface_hub", "datasets")]
for line in sys.stdin:
    asked = json.loads(line)
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        pid = os.fork()
        if not pid:
            code = 1
            try:
                signal.alarm(asked["timeout"])
                os.dup2(os.open(os.devnull, os.O_RDONLY), 0); os.dup2(out.fileno(), 1); os.dup2(err.fileno(), 2)
                os.environ.clear(); os.environ.update(asked["env"])
                sys.argv = ["-c", *asked["argv"]]
                exec(compile(asked["script"], "<script>", "exec"), {"__name__": "__main__"}); code = 0
            except BaseException: traceback.print_exc()
            finally: sys.stdout.flush(); sys.stderr.flush(); os._exit(code)
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        said = []
        for f in (out, err): f.seek(0); said.append(f.read().decode())
    print(json.dumps([early, code, *said]), flush=True)
"""


@cache
def server():
    from croissant.params import root
    p = subprocess.Popen([sys.executable, "-c", SERVER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=root())
    atexit.register(p.kill)
    return p


def run_script(script, *argv, env, timeout=120):
    "Its status and what it printed."
    p = server()
    p.stdin.write(json.dumps({"script": script, "argv": argv, "env": env, "timeout": timeout}) + "\n"); p.stdin.flush()
    early, *found = json.loads(p.stdout.readline())
    assert not early, f"imported too early, before the environment was set: {early}"
    return SimpleNamespace(**dict(zip(("returncode", "stdout", "stderr"), found)))
