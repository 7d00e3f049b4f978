"""What a whole build of the corpus costs in time and memory:  python benchmarks/build.py

Builds the largest tier whose packages are here (full/data: `full`, else `lab`) into a scratch folder, in a process of its
own, with the settings of params.yaml. The peak is the largest sum of the resident memory of that process and its workers, looked
at five times a second; pages that two of them share count twice. Writes reports/benchmarks/build.json. No peer here:
benchmarks/corpus.py has them.
"""
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil
import yaml

from croissant.build import build_corpus
from croissant.fetch import load_sources
from croissant.filters import Rules
from croissant.params import root
from croissant.provenance import save_json
from training import processor

WORKERS = 2


def build(tier, out):
    "Build, and print what it took as JSON."
    settings = yaml.safe_load((root()/"params.yaml").read_text(encoding="utf-8"))["corpus"]
    rules = Rules(**{k: v for k, v in settings.items() if k in Rules.__dataclass_fields__})
    rest = {k: v for k, v in settings.items() if k not in Rules.__dataclass_fields__ and k not in ("tier", "processes", "suite_pairs", "suite_seed")}
    begun = time.perf_counter()
    build_corpus(root()/"data", out, "sources.csv", tier, rules, WORKERS, **rest)
    seconds = time.perf_counter() - begun
    size = sum(p.stat().st_size for p in Path(out).rglob("*.jsonl"))
    print(json.dumps({"seconds": round(seconds, 1), "megabytes_written": round(size / 1e6, 1), "megabytes_per_second": round(size / 1e6 / seconds, 2)}))


def resident(process):
    "Bytes in memory of a process and of all that it started."
    total = 0
    for p in (process, *process.children(recursive=True)):
        try: total += p.memory_info().rss
        except psutil.NoSuchProcess: pass
    return total


def main():
    tier = "full" if all(p.path(root()/"data").is_file() for p in load_sources("sources.csv", "full")) else "lab"
    with tempfile.TemporaryDirectory(dir=root()/"artifacts") as scratch:
        peak, child = 0, subprocess.Popen([sys.executable, __file__, tier, f"{scratch}/corpus"], stdout=subprocess.PIPE, text=True, cwd=root())
        while child.poll() is None:
            try: peak = max(peak, resident(psutil.Process(child.pid)))
            except psutil.NoSuchProcess: break
            time.sleep(.2)
        said = child.communicate()[0]
    if child.returncode: sys.exit(f"the build ended with status {child.returncode}")
    found = json.loads(said.strip().splitlines()[-1]) | {"peak_mib": round(peak / 2**20)}
    save_json({"benchmark": "build of the corpus", "tier": tier, "workers": WORKERS, "machine": processor(), **found}, root()/"reports/benchmarks/build.json")
    print(f"tier {tier}: {found['seconds']:.0f} s, {found['megabytes_per_second']:.1f} MB/s of records written, peak {found['peak_mib']} MiB in all processes together")


if __name__ == "__main__":
    if len(sys.argv) == 3: build(*sys.argv[1:])
    else: main()
