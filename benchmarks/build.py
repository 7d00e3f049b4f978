"""What a whole build of the corpus costs in time and memory:  python benchmarks/build.py

Builds the largest tier whose packages are here (full/data: `full`, else `lab`) into a scratch folder, in a process of its
own, with the settings of params.yaml. The peak is an upper bound: the largest moment of the process that assembles plus, for
each worker, the largest moment of any worker. Writes reports/benchmarks/build.json. No peer: benchmarks/corpus.py has them.
"""
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

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
    own, worker = (resource.getrusage(who).ru_maxrss / 1024 for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    size = sum(p.stat().st_size for p in Path(out).rglob("*.jsonl"))
    print(json.dumps({"seconds": round(seconds, 1), "megabytes_written": round(size / 1e6, 1), "megabytes_per_second": round(size / 1e6 / seconds, 2),
                      "peak_mib_assembling": round(own), "peak_mib_worker": round(worker), "peak_mib_at_most": round(own + WORKERS * worker)}))


def main():
    tier = "full" if all(p.path(root()/"data").is_file() for p in load_sources("sources.csv", "full")) else "lab"
    with tempfile.TemporaryDirectory(dir=root()/"artifacts") as scratch:
        done = subprocess.run([sys.executable, __file__, tier, f"{scratch}/corpus"], capture_output=True, text=True, check=True, cwd=root())
    found = json.loads(done.stdout.strip().splitlines()[-1])
    save_json({"benchmark": "build of the corpus", "tier": tier, "workers": WORKERS, "machine": processor(), **found}, root()/"reports/benchmarks/build.json")
    print(f"tier {tier}: {found['seconds']:.0f} s, {found['megabytes_per_second']:.1f} MB/s of records written, at most {found['peak_mib_at_most']} MiB in all processes together")


if __name__ == "__main__":
    if len(sys.argv) == 3: build(*sys.argv[1:])
    else: main()
