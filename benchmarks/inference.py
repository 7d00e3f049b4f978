"""How fast a model answers on two processor cores, beside other engines:  python benchmarks/inference.py [paper] [lab]

Prompts of 128 tokens are read and 32 tokens are written greedily, one conversation at a time, by nine engines on the same weights:
the paper's shape of 1.3 billion weights (drawn at random: speed does not depend on their values) and the lab's released model. Every
engine lives in a process of its own and waits while the others work; turns rotate, so that a slow moment of the machine meets
everybody, and a turn is played twice, of which the second counts: the first finds the caches full of somebody else's numbers. The
engines come in two groups, because 24 GiB hold no more of them at once; two of them play in both. Reading counts until the first
token is chosen, writing the tokens behind it; llama.cpp is timed by its own clock, without the way to its server. Beside speed:
memory, how far the logits are from those of float32, and, for the trained model, bits per byte of the same unseen French and English.
The paper's shape needs 20 GiB of memory and 20 GB of disk for a while. Writes reports/benchmarks/inference.json; a ratio above 1 means
that ours is faster. Goals that were missed are reported as missed; one shape alone is printed and not recorded.
"""
import json
import math
import multiprocessing
import os
import platform
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

os.environ |= {"TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1", "TQDM_DISABLE": "1", "OMP_NUM_THREADS": "2"}

import torch

from croissant.checkpoint import check_space, model_config, save_model
from croissant.export import write_gguf
from croissant.int8 import agreement
from croissant.model import PRESETS, Llama, count_parameters
from croissant.params import BadInput, root
from croissant.provenance import load_json, save_json
from croissant.tokenizer import Tokenizer
from engines import ENGINES, EXACT, OURS, THREADS, LlamaCppEngine, resident
from training import outer, processor

SHAPES = {"paper": dict(tokenizer="base32k", repeats=7), "lab": dict(tokenizer="lab8k", repeats=15)}   # turns of a small model are short and therefore noisy
FLAGSHIP, SHARDS = "artifacts/checkpoints/flagship", "artifacts/shards/lab8k"
PROMPT, DECODED, WARMING = 128, 32, 2
EVALUATED, WINDOW = 20_000, 256                       # tokens of a language, and of a window, for bits per byte
PACKAGES = ("xllamacpp", "ctranslate2", "onnx_ir", "onnxruntime", "onnxruntime_genai")
GOALS = (("decode", "transformers, bfloat16", 4.8), ("decode", EXACT, 8.), ("prefill", "transformers, bfloat16", 2.), ("prefill", "llama.cpp, Q8_0", 3.8))   # times as fast, at least, with the paper's shape
GROUPS = {"goals": (EXACT, "transformers, bfloat16", OURS, "llama.cpp, Q8_0"),
          "formats": ("transformers, bfloat16", OURS, "ours, bfloat16", "llama.cpp, F16", "llama.cpp, Q4_K_M", "ctranslate2, int8", "onnxruntime-genai, int4")}


def worker(pipe, name, files):
    "One engine: does what it is asked until it is asked nothing."
    signal.signal(signal.SIGINT, signal.SIG_IGN)       # the parent ends us
    torch.set_num_threads(THREADS)
    before, (kind, how) = resident(), ENGINES[name]
    engine = kind(files, how)
    engine.before = before                             # Python and torch, which not every engine would need, are nobody's
    pipe.send("ready")
    while call := pipe.recv(): pipe.send(getattr(engine, call[0])(*call[1:]))


@contextmanager
def opened(names, files):
    "A function that asks an engine by name; their processes end with the block, whatever happens in it."
    context, sides = multiprocessing.get_context("spawn"), {}
    def ask(name, *call):
        try:
            if call: sides[name][0].send(call)
            return sides[name][0].recv()
        except (EOFError, BrokenPipeError): raise BadInput(f"{name}: its process ended (see above; if nothing is there, the machine ran out of memory)") from None
    try:
        for name in names:                             # one after another: loading needs more memory than having loaded
            here, there = context.Pipe()
            sides[name] = here, context.Process(target=worker, args=(there, name, files), daemon=True)
            sides[name][1].start(); there.close(); ask(name)
        yield ask
        for pipe, process in sides.values(): pipe.send(None); process.join(10)
    finally:
        for _, process in sides.values(): process.kill(); process.join()


def quietly(work, *arguments):
    signal.signal(signal.SIGINT, signal.SIG_IGN)       # as above
    work(*arguments)


def away(work, *arguments):
    "Do something in a process of its own, which gives its memory back."
    process = multiprocessing.get_context("spawn").Process(target=quietly, args=(work, *arguments), daemon=True)
    try: process.start(); process.join()
    except BaseException: process.kill(); process.join(); raise
    if process.exitcode: raise BadInput(f"{work.__name__}: failed with status {process.exitcode}; its message is above")


def fresh_model(folder): save_model(Llama(PRESETS["base"], 0), Tokenizer.load(root()/"artifacts/tokenizer/base32k"), folder, torch.bfloat16)


def write_ct2(source, out):
    from ctranslate2.converters import TransformersConverter
    TransformersConverter(str(source)).convert(str(out), quantization="int8")


def write_onnx(source, out):
    done = subprocess.run([sys.executable, "-m", "onnxruntime_genai.models.builder", "-i", source, "-o", out, "-p", "int4", "-e", "cpu", "-c", out/"cache", "--extra_options", "int4_accuracy_level=4"], capture_output=True, text=True)
    if done.returncode: raise BadInput(f"onnxruntime-genai cannot convert the model: {done.stdout[-2000:]}{done.stderr[-2000:]}")


def prepare(source, folder):
    "The weights in every engine's own form: where each of them lies."
    files = {"folder": source, "ct2": folder/"ct2", "onnx": folder/"onnx"}
    for kind in (how for engine, how in ENGINES.values() if engine is LlamaCppEngine):
        away(write_gguf, source, folder/f"{kind}.gguf", kind)
        files[kind] = folder/f"{kind}.gguf"
        print(f"  written: {kind}.gguf", flush=True)
    away(write_ct2, source, files["ct2"])
    write_onnx(source, files["onnx"])
    print("  written: for ctranslate2 and onnxruntime-genai", flush=True)
    return files


def prompt_of(turn, vocab): return torch.randint(vocab // 4, vocab, (PROMPT,), generator=torch.Generator().manual_seed(turn)).tolist()   # the first quarter holds the marks


def play(ask, names, turns, vocab):
    "Name -> tokens per second of every turn, in reading and in writing; the first turn warms up."
    found = {name: {"prefill": [], "decode": []} for name in names}
    for turn in range(turns + 1):
        for name in names:
            ask(name, "turn", prompt_of(turn, vocab), WARMING)
            read, write, ids = ask(name, "turn", prompt_of(turn, vocab), DECODED)
            assert len(ids) == DECODED + 1, f"{name} stopped after {len(ids)} tokens"
            if turn: found[name]["prefill"].append(PROMPT / read); found[name]["decode"].append(DECODED / write)
    return found


def compared(shape, group, found):
    "Rows: our int8 against every peer, in reading and in writing, by the ratios of paired turns."
    rows = []
    for peer in (name for name in found if name != OURS):
        for phase in ("prefill", "decode"):
            ours, theirs = found[OURS][phase], found[peer][phase]
            ratios = sorted(a / b for a, b in zip(ours, theirs))
            k = outer(len(ratios))
            rows.append({"shape": shape, "group": group, "phase": phase, "ours": OURS, "peer": peer, "ratio": statistics.median(ratios), "ratio_low": ratios[k], "ratio_high": ratios[-1 - k], "repeats": len(ratios),
                         "our_tokens_per_second": statistics.median(ours), "peer_tokens_per_second": statistics.median(theirs)})
    return rows


def judged(rows):
    "What was hoped for, and what was found."
    def at(phase, peer): return next(r for r in rows if (r["shape"], r["group"], r["phase"], r["peer"]) == ("paper", "goals", phase, peer))
    return [{"phase": phase, "peer": peer, "at_least": least, **{k: (r := at(phase, peer))[k] for k in ("ratio", "ratio_low", "ratio_high")}, "met": r["ratio"] >= least} for phase, peer, least in GOALS]


def described(shape, group, name, speeds, memory, weights, config, per_word):
    "An engine's medians with their range, words and memory."
    held, stored, bits = weights
    table = 0 if config.tie_word_embeddings else config.vocab_size * config.hidden_size * bits / 8   # looked up, not read
    row = {"shape": shape, "group": group, "engine": name, "resident_mib": memory, "weights_mib": held / 2**20, "read_mib": (stored - table) / 2**20, "bits_per_weight": 8 * stored / count_parameters(config)["total"]}
    for phase, found in speeds.items():
        row |= {f"{phase}_tokens_per_second": statistics.median(found), f"{phase}_low": min(found), f"{phase}_high": max(found)}
    return row | {f"words_per_second_{language}": row["decode_tokens_per_second"] / n for language, n in per_word.items()}


def above(found, exact, size):
    "Bits per byte above float32, with a 95 % interval over windows: they hold the same tokens in both."
    differences = [(a - b) / math.log(2) / size for a, b in zip(found, exact)]
    middle, spread = math.fsum(differences), 1.96 * statistics.stdev(differences) * len(differences)**.5
    return {"value": middle, "low": middle - spread, "high": middle + spread, "windows": len(differences)}


def costs(name, found, exact, bits):
    "What a format costs: bits per byte of unseen tokens, and how much more than float32 needs for them."
    row = {"engine": name, "bits_per_weight": bits, "read_by": "our own class, from the file's weights" if ENGINES[name][0] is LlamaCppEngine else "the engine"}
    for part, f in found.items():
        row |= {f"bits_per_byte_{part}": f["bpb"], f"tokens_{part}": f["tokens"], f"bytes_{part}": f["bytes"], f"above_float32_{part}": above(f["nats"], exact[part]["nats"], f["bytes"])}
    return row


def measure(shape, files, shards=None):
    "All groups of a shape: rows, a description of every engine with its agreement with float32, and where there are shards, what every format costs."
    how, config = SHAPES[shape], model_config(load_json(Path(files["folder"]).resolve()/"config.json"))
    fertility = load_json("reports/metrics/fertility.json")["metrics"]
    per_word = {language: fertility[f"tokens_per_word.{how['tokenizer']}.{language}.all"]["value"] for language in ("fr", "en")}
    rows, engines, quality, exact = [], [], {}, None
    prompts = [prompt_of(turn, config.vocab_size) for turn in range(how["repeats"] + 1)]
    for group, names in GROUPS.items():
        print(f"{shape}, {group}: opening {len(names)} engines", flush=True)
        with opened(names, files) as ask:
            found = play(ask, names, how["repeats"], config.vocab_size)
            rows += compared(shape, group, found)
            memory = {name: ask(name, "resident") for name in names}   # before anything else is asked for
            for name in names:
                engines.append(e := described(shape, group, name, found[name], memory[name], ask(name, "weights"), config, per_word))
                ends = torch.from_numpy(ask(name, "ends", prompts))
                if name == EXACT: exact = ends         # it is the first of all
                else: e["against_float32"] = agreement(exact, ends)
                print(f"  {name:24} reads {e['prefill_tokens_per_second']:9,.1f}, writes {e['decode_tokens_per_second']:8,.1f} tokens/s; {e['resident_mib']:7,.0f} MiB, {e['bits_per_weight']:5.2f} bits a weight", flush=True)
                if shards and name not in quality:
                    quality[name] = ask(name, "quality", shards, files["folder"], EVALUATED, WINDOW)
                    print(f"  {'':24} bits per byte: " + ", ".join(f"{part} {f['bpb']:.4f}" for part, f in quality[name].items()), flush=True)
    bits = {e["engine"]: e["bits_per_weight"] for e in engines}
    return rows, engines, [costs(name, f, quality[EXACT], bits[name]) for name, f in quality.items()]


def read_speed():
    "Bytes per second that the machine reads from memory: what bounds writing, since each token needs all weights but those of the embedding."
    x, best = torch.ones(2**28), 0.
    for _ in range(8):
        start = time.perf_counter()
        x.sum()
        best = max(best, x.nbytes / (time.perf_counter() - start))
    return best


def check(shapes):
    "Everything that is needed is here, before the first minute is spent."
    for package in PACKAGES:
        if find_spec(package) is None: raise BadInput(f"{package}: not installed; it is a peer of requirements-bench.lock: `make bench` installs it")
    needed = {"artifacts/tokenizer/base32k": "train_tokenizer"} if "paper" in shapes else {}
    if "lab" in shapes: needed |= {FLAGSHIP: "pretrain", SHARDS: "tokenize"}
    for path, stage in needed.items():
        if not (root()/path/"manifest.json").is_file(): raise BadInput(f"{path}: nothing to measure with; make it first (`dvc repro {stage}`)")
    if "paper" in shapes and (memory := os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")) < 20 * 2**30: raise BadInput(f"the paper's shape needs 20 GiB of memory, this machine has {memory / 2**30:.0f}; `python benchmarks/inference.py lab` needs less")
    check_space(tempfile.gettempdir(), 20_000_000_000 if "paper" in shapes else 1_000_000_000)


def main(shapes):
    if unknown := set(shapes) - set(SHAPES): raise BadInput(f"{', '.join(sorted(unknown))}: no such shape; choose from {', '.join(SHAPES)}")
    check(shapes or SHAPES)
    torch.set_num_threads(THREADS)
    bandwidth, rows, engines, quality = read_speed(), [], [], []
    for shape in shapes or SHAPES:
        with tempfile.TemporaryDirectory() as folder:
            folder, source = Path(folder), root()/FLAGSHIP
            if shape == "paper": away(fresh_model, source := folder/"model")
            files = prepare(source, folder)
            for found, more in zip((rows, engines, quality), measure(shape, files, root()/SHARDS if shape == "lab" else None)): found += more
    goals = judged(rows) if any(r["shape"] == "paper" for r in rows) else []
    for g in goals: print(f"{g['phase']}: {g['ratio']:.2f} [{g['ratio_low']:.2f}, {g['ratio_high']:.2f}] times {g['peer']}, hoped for {g['at_least']:g}: {'met' if g['met'] else 'MISSED'}")
    record = {"what": "greedy answers, one at a time: tokens per second in reading a prompt (until the first token is chosen) and in writing what follows; every engine in a process of its own, in turn; a turn is played twice, and the second counts; llama.cpp by its own clock. "
              "The paper's shape has random weights. Memory is what opening and using adds to a process with Python and torch; llama.cpp's makes room for the longest text. Ratios are of our int8 to the peer in the same turn, with a 95 % interval of their median", "threads": THREADS, "machine": processor(),
              "prompt": PROMPT, "decoded": DECODED, "repeats": {shape: SHAPES[shape]["repeats"] for shape in SHAPES}, "parameters": count_parameters(PRESETS["base"])["total"], "window": WINDOW, "read_gigabytes_per_second": bandwidth / 1e9, "rows": rows, "engines": engines, "goals": goals, "quality": quality,
              "versions": {p: version(p).partition("+")[0] for p in ("torch", "transformers", "xllamacpp", "ctranslate2", "onnxruntime", "onnxruntime-genai")} | {"python": platform.python_version()}}
    if set(shapes or SHAPES) != set(SHAPES): print(json.dumps(record, indent=1)); return   # a part is no record
    save_json(record, root()/"reports/benchmarks/inference.json")


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))   # so that gigabytes of files go even then
    try: main(sys.argv[1:])
    except BadInput as e: print(e, file=sys.stderr); sys.exit(2)
    except KeyboardInterrupt: print("interrupted; nothing was written", file=sys.stderr); sys.exit(130)
