"""What encoding a file of any size costs in time and memory:  python benchmarks/streaming.py

Writes a gigabyte of text of the built corpus into a scratch folder, then `croissant tokenize encode` turns it into ids in a
process of its own; a second text is made of random words, of which hardly any comes twice, since a cache of words would grow on
it. The peak is the resident memory of the whole process, as Linux counted it. Writes reports/benchmarks/streaming.json. No peer
here: benchmarks/corpus.py has them.
"""
import itertools
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from croissant.corpus import read_documents
from croissant.packing import PARTS, render
from croissant.params import root
from croissant.provenance import load_json, save_json
from croissant.tokenizer import Tokenizer
from training import processor

TOKENIZER, THREADS = "artifacts/tokenizer/base32k", 2
CHILD = """import sys
from pathlib import Path
from croissant.cli import main
code = main(sys.argv[1:])
peak, = (line.split()[1] for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
print(peak)
sys.exit(code)"""


def corpus():
    "Documents of all parts, again and again."
    for _ in itertools.count():
        for part in PARTS: yield from (f"{render(d)}\n".encode() for d in read_documents(root()/"artifacts/corpus", "train", part))


def random_words():
    "Lines of words of eleven letters, drawn with a seed."
    r = random.Random(0)
    while True: yield (" ".join("".join(r.choices("abcdefghijklmnopqrstuvwxyz", k=11)) for _ in range(100)) + "\n").encode()


def write(path, lines, size):
    "Lines, up to the first that reaches `size` bytes."
    with path.open("wb") as f:
        while f.tell() < size: f.write(next(lines))


def encoded(what, lines, size, folder):
    "A row: how long the command took for a text, and what it held in memory at most."
    text, ids = folder/"text.txt", folder/"ids.bin"
    write(text, lines, size)
    begun, cpu = time.perf_counter(), sum(os.times()[2:4])
    done = subprocess.run([sys.executable, "-c", CHILD, "tokenize", "encode", str(text), "--out", str(ids), "--tokenizer", TOKENIZER],
                          stdout=subprocess.PIPE, text=True, cwd=root(), env={**os.environ, "RAYON_NUM_THREADS": str(THREADS)})
    seconds, cpu = time.perf_counter() - begun, sum(os.times()[2:4]) - cpu
    if done.returncode: sys.exit(f"the command ended with status {done.returncode}")
    facts = load_json(ids.with_suffix(".json"))
    if facts["bytes"] != text.stat().st_size: sys.exit(f"{facts['bytes']} bytes were read of {text.stat().st_size}")
    return {"text": what, "bytes": facts["bytes"], "tokens": facts["tokens"], "seconds": round(seconds, 1), "cpu_seconds": round(cpu, 1),
            "megabytes_per_second": round(facts["bytes"] / 1e6 / seconds, 1), "peak_mib": round(int(done.stdout.split()[-1]) / 1024)}


def main():
    with tempfile.TemporaryDirectory() as scratch:
        rows = [encoded("the corpus", corpus(), 1_000_000_000, Path(scratch)), encoded("random words", random_words(), 300_000_000, Path(scratch))]
    pieces = Tokenizer.load(root()/TOKENIZER).vocab_size
    save_json({"what": "a text file to ids on disk with `croissant tokenize encode`, start of the program included; peak: the resident memory of the whole process", "machine": processor(),
               "threads": THREADS, "pieces": pieces, **{k: rows[0][k] for k in ("bytes", "seconds", "cpu_seconds", "megabytes_per_second", "peak_mib")}, "rows": rows}, root()/"reports/benchmarks/streaming.json")
    for r in rows: print(f"{r['text']}: {r['bytes'] / 1e6:,.0f} MB in {r['seconds']} s, {r['megabytes_per_second']} MB/s, peak {r['peak_mib']} MiB")


if __name__ == "__main__": main()
