"""Training speed and memory against peers, paired, as ratios:  python benchmarks/training.py [SIZE ...]

Whole training steps (forward, backward, clipping, AdamW) of Llamas of four sizes with the same shape, batch and targets: our
trainer's step in bfloat16 with float32 masters, compiled and not, and in float32, against the `Trainer` of transformers in
float32, in bfloat16 autocast, and in bfloat16 throughout. Every side lives in a process of its own, which waits while the others
work, so that its memory is its own and a slow moment of the machine meets everybody. A turn is two steps, of which the second is
timed: the first finds the caches full of somebody else's numbers. In turn, too, a product of two large bfloat16 matrices says what
the machine reaches at that moment, and the share of the peak is of that. One part more: the same batches for 150 steps, our bfloat16 against the peer's float32, from the same weights. Writes reports/benchmarks/training.json; a ratio above 1
means that ours is faster, a memory ratio below 1 that ours needs less.
"""
import json
import multiprocessing
import os
import platform
import resource
import statistics
import sys
import tempfile
import time
from pathlib import Path

SIZES = {"1M": dict(layers=4, hidden=128, ffn=352, heads=2, vocab=4096, batch=16, length=256),      # a body of about so many weights
         "5M": dict(layers=6, hidden=256, ffn=688, heads=4, vocab=8192, batch=16, length=512),
         "16M": dict(layers=8, hidden=384, ffn=1024, heads=6, vocab=32000, batch=4, length=512),
         "60M": dict(layers=12, hidden=640, ffn=1728, heads=10, vocab=16384, batch=4, length=512)}
OURS = {"bfloat16, compiled": dict(dtype="bfloat16", compiled=True), "bfloat16": dict(dtype="bfloat16"), "float32": dict(dtype="float32")}
PEERS = {"transformers Trainer, float32": dict(), "transformers Trainer, bfloat16 autocast": dict(bf16=True), "transformers Trainer, bfloat16 throughout": dict(throughout=True)}
PEAK = "matrix product, bfloat16"
THREADS, REPEATS, BLOCK, RATE, STEPS = 2, 9, 2, 1e-3, 150   # a turn is a block of steps, of which the last is timed


def processor():
    "The processor's name, as Linux tells it."
    info = Path("/proc/cpuinfo")
    names = [line.partition(":")[2].strip() for line in info.read_text().splitlines() if line.startswith("model name")] if info.is_file() else []
    return names[0] if names else platform.processor() or platform.machine()


def shape_of(size):
    from croissant.model import ModelConfig
    s = SIZES[size]
    return ModelConfig(s["vocab"], s["hidden"], s["ffn"], s["layers"], s["heads"], max_position_embeddings=s["length"], tie_word_embeddings=True)


def batches(size, n, seed=0):
    "Ids (B, T+1) with something to be learnt: behind each piece comes one of four."
    import torch
    s, g = SIZES[size], torch.Generator().manual_seed(seed)
    return [(torch.randint(0, 4, (s["batch"], s["length"] + 1), generator=g).cumsum(1) * 7) % s["vocab"] for _ in range(n)]


def our_steps(size, how, weights, n, turn, folder=None):
    "Ours; `turn` is called before each step and, with the loss, after it."
    import torch
    from safetensors.torch import load_file
    from croissant.model import Llama
    from croissant.optim import MasterWeights, clip_gradients
    model = Llama(shape_of(size), 0)
    if weights: model.load_state_dict(load_file(weights))
    masters = MasterWeights(model, getattr(torch, how["dtype"]))
    loss_of = model.compiled_loss() if how.get("compiled") else model.loss
    for ids in batches(size, n):
        turn(None)
        loss = loss_of(ids[:, :-1], ids[:, 1:])
        loss.backward()
        clip_gradients(masters.gather(), 1.)
        masters.step(RATE)
        turn(loss.item())


def peer_trainer(size, how, weights, n, turn, folder):
    "The peer's own trainer, with the same turns."
    import torch
    from safetensors.torch import load_file
    from transformers import LlamaConfig, LlamaForCausalLM, Trainer, TrainerCallback, TrainingArguments
    from transformers.utils import logging
    from croissant.checkpoint import hf_config
    logging.set_verbosity_error()
    torch.manual_seed(0)
    how = dict(how)
    model = LlamaForCausalLM(LlamaConfig(**{k: v for k, v in hf_config(shape_of(size)).items() if k not in ("architectures", "dtype")} | {"use_cache": False}, attn_implementation="sdpa"))
    if weights: model.load_state_dict(load_file(weights), strict=False)
    if how.pop("throughout", False): model = model.to(torch.bfloat16)

    class Turns(TrainerCallback):
        def on_step_begin(self, *_, **__): turn(None)
        def on_step_end(self, args, state, control, **__): turn(last[0])

    class Losses(Trainer):
        def compute_loss(self, *args, **more):
            loss = super().compute_loss(*args, **more)
            last[0] = loss.item()
            return loss

    last = [0.]
    data = [{"input_ids": row[:-1], "labels": row[1:], "shift_labels": row[1:]} for ids in batches(size, n) for row in ids]   # shifted already; by `labels` it counts
    arguments = TrainingArguments(folder, max_steps=n, per_device_train_batch_size=SIZES[size]["batch"], learning_rate=RATE, lr_scheduler_type="constant", weight_decay=.1, adam_beta2=.95,
                                  max_grad_norm=1., optim="adamw_torch_fused", save_strategy="no", report_to=[], disable_tqdm=True, logging_strategy="no", use_cpu=True, remove_unused_columns=False, train_sampling_strategy="sequential", **how)
    Losses(model, arguments, train_dataset=data, callbacks=[Turns()]).train()


def product_steps(size, how, weights, n, turn, folder=None):
    "No training at all: in the place of a loss, the FLOP/s of a large matrix product, the best of a moment."
    import torch
    from croissant.tracking import matmul_peak
    for _ in range(n):
        turn(None)
        turn(matmul_peak(torch.bfloat16))


def worker(pipe, run, size, how, weights, n, threads, block):
    "One side: a block of steps whenever the parent says so; answers with seconds and losses, at the end with the peak of its memory."
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    import torch
    torch.set_num_threads(threads)
    started, done = [0.], []
    def turn(loss):
        if loss is None:
            if not done: pipe.recv()
            started[0] = time.perf_counter()
        else:
            done.append((time.perf_counter() - started[0], loss))
            if len(done) == block: pipe.send(done); done.clear()
    with tempfile.TemporaryDirectory() as folder:
        run(size, how, weights, n * block, turn, folder)
    pipe.send(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


SIDES = {way: (our_steps, how) for way, how in OURS.items()} | {way: (peer_trainer, how) for way, how in PEERS.items()} | {PEAK: (product_steps, {})}


def run_turns(size, sides, n, weights=None, block=BLOCK):
    "Way -> seconds of the last steps of n blocks in turn, and their losses, and the peak of memory in MiB; a side is a function that trains, and how."
    context, sides_of = multiprocessing.get_context("spawn"), {}
    for way, (run, how) in sides.items():
        here, there = context.Pipe()
        process = context.Process(target=worker, args=(there, run, size, how, weights, n, THREADS, block), daemon=True)
        process.start(); there.close()
        sides_of[way] = here, process
    found = {way: ([], []) for way in sides}
    for _ in range(n):
        for way, (pipe, _process) in sides_of.items():
            pipe.send("go")
            steps = pipe.recv()
            found[way][0].append(steps[-1][0]); found[way][1].extend(loss for _, loss in steps)
    peaks = {way: pipe.recv() for way, (pipe, _) in sides_of.items()}
    for _, process in sides_of.values(): process.join()
    return found, peaks


def outer(n): # as in corpus.py, which imports this file
    from corpus import outer
    return outer(n)


def shares(seconds, flops, found, block):
    "Median share of the peak: FLOPs of a step, by the product measured in the same turn."
    return statistics.median(flops / t / peak for t, peak in zip(seconds, found[PEAK][1][block - 1::block][2:]))


def compared(size, found, peaks, block=BLOCK):
    "Rows: every way of ours against every peer, from the turns behind the first two."
    from croissant.model import flops_per_token
    s, rows = SIZES[size], []
    tokens, flops = s["batch"] * s["length"], flops_per_token(shape_of(size), s["length"])
    seconds = {way: t[2:] for way, (t, _) in found.items()}
    for peer in PEERS:
        for ours in OURS:
            ratios = sorted(p / o for p, o in zip(seconds[peer], seconds[ours]))
            k, speed = outer(len(ratios)), {way: tokens / statistics.median(seconds[way]) for way in (peer, ours)}
            share = {way: shares(seconds[way], tokens * flops, found, block) for way in (peer, ours)}
            rows.append({"size": size, "peer": peer, "ours": ours, "ratio": statistics.median(ratios), "ratio_low": ratios[k], "ratio_high": ratios[-1 - k], "repeats": len(ratios),
                         "our_tokens_per_second": speed[ours], "peer_tokens_per_second": speed[peer], "our_share_of_peak": share[ours], "peer_share_of_peak": share[peer],
                         "our_peak_mib": peaks[ours], "peer_peak_mib": peaks[peer], "memory_ratio": peaks[ours] / peaks[peer], "first_loss_difference": abs(found[ours][1][0] - found[peer][1][0])})
            print(f"{size:4} {peer:42} {speed[peer]:8,.0f} tokens/s   ours, {ours:19} {speed[ours]:8,.0f} tokens/s ({rows[-1]['our_share_of_peak']:.0%} of the peak)   "
                  f"{rows[-1]['ratio']:.2f} times as fast, {rows[-1]['memory_ratio']:.2f} of the memory", flush=True)
    return rows


def same_weights(size, path):
    "Fresh weights of ours, in a file that both sides read."
    from safetensors.torch import save_file
    from croissant.model import Llama
    model = Llama(shape_of(size), 0)
    save_file({k: v.clone() for k, v in model.state_dict().items()}, path)


def curve(weights):
    "Mean losses over stretches of steps on the same batches, and the difference of the means over all steps."
    ours, peer = "bfloat16", "transformers Trainer, float32"
    found, _ = run_turns("1M", {way: SIDES[way] for way in (ours, peer)}, STEPS, weights, block=1)
    ends = [0, 10, 50, 100, STEPS]
    stretches = [{"from": a, "to": b, "ours": statistics.fmean(found[ours][1][a:b]), "peer": statistics.fmean(found[peer][1][a:b])} for a, b in zip(ends, ends[1:])]
    whole = abs(statistics.fmean(found[ours][1]) - statistics.fmean(found[peer][1]))
    print(f"{STEPS} steps: mean losses of bfloat16 and the peer's float32 differ by {whole:.4f}", flush=True)
    return {"size": "1M", "steps": STEPS, "ours": ours, "peer": peer, "stretches": stretches, "mean_difference": whole}


def main(sizes):
    from importlib.metadata import version
    from croissant.params import root
    from croissant.provenance import save_json
    peak, rows = 0., []
    with tempfile.TemporaryDirectory() as folder:
        for size in sizes or SIZES:
            same_weights(size, weights := f"{folder}/{size}.safetensors")
            found, memory = run_turns(size, SIDES, REPEATS + 2, weights)
            rows += compared(size, found, memory)
            peak = max(peak, *found[PEAK][1])
        along = curve(f"{folder}/1M.safetensors") if not sizes or "1M" in sizes else None
    record = {"what": "training steps: forward, backward, clipping, AdamW; the same weights and batches on all sides, each in a process of its own, two steps at a time in turn, of which the second is timed; shares are of a matrix product measured in the same turn; compiled where it says so, and no peer is", "sizes": SIZES,
              "threads": THREADS, "machine": processor(), "bfloat16_peak_gflops": peak / 1e9, "versions": {p: version(p).partition("+")[0] for p in ("torch", "transformers", "accelerate")} | {"python": platform.python_version()},
              "curve": along, "rows": rows}
    if sizes: print(json.dumps(record["curve"], indent=1)); return   # a part is no record
    save_json(record, root()/"reports/benchmarks/training.json", digits=5)


if __name__ == "__main__": main(sys.argv[1:])
