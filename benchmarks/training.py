"""Speed against peers, side by side in one process, as ratios:  python benchmarks/training.py

Whole training steps (forward, backward, clipping, AdamW) of the lab model, ours against transformers' Llama with the same
shape, batch and targets, in turn, so that a slow moment of the machine meets everybody. Nothing is compiled. Writes
reports/benchmarks/training.json; a ratio above 1 means that ours is faster.
"""
import platform
import statistics
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from torch.nn.utils import clip_grad_norm_
from transformers import LlamaConfig, LlamaForCausalLM, __version__

from croissant.checkpoint import hf_config
from croissant.model import PRESETS, Llama
from croissant.optim import MasterWeights, adamw, clip_gradients
from croissant.params import root, seed_all
from croissant.provenance import save_json

PRESET, BATCH, LENGTH, REPEATS, THREADS = "lab-3m", 8, 256, 15, 2
SHAPE = PRESETS[PRESET]


def processor():
    "The processor's name, as Linux tells it."
    info = Path("/proc/cpuinfo")
    names = [line.partition(":")[2].strip() for line in info.read_text().splitlines() if line.startswith("model name")] if info.is_file() else []
    return names[0] if names else platform.processor() or platform.machine()


def our_step(ids, dtype):
    model = Llama(SHAPE, 0)
    weights = MasterWeights(model, dtype)
    def step():
        loss = model.loss(ids[:, :-1], ids[:, 1:])
        loss.backward()
        clip_gradients(weights.gather(), 1.)
        weights.step(1e-3)
        return loss.item()
    return step


def peer_step(ids, dtype=torch.float32, autocast=False):
    torch.manual_seed(0)
    model = LlamaForCausalLM(LlamaConfig(**{k: v for k, v in hf_config(SHAPE).items() if k not in ("architectures", "dtype")})).to(dtype)
    optimiser = adamw(model.parameters())
    for group in optimiser.param_groups: group["lr"] = 1e-3
    def step():
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            logits = model(input_ids=ids[:, :-1], use_cache=False).logits
            loss = F.cross_entropy(logits.float().flatten(0, 1), ids[:, 1:].flatten())
        loss.backward()
        clip_grad_norm_(model.parameters(), 1.)
        optimiser.step()
        optimiser.zero_grad()
        return loss.item()
    return step


def main():
    seed_all(0, THREADS)
    ids = torch.randint(0, SHAPE.vocab_size, (BATCH, LENGTH + 1))
    ours = {"bfloat16 with float32 masters": our_step(ids, torch.bfloat16), "float32": our_step(ids, torch.float32)}
    peers = {"transformers, float32": peer_step(ids), "transformers, bfloat16 autocast": peer_step(ids, autocast=True), "transformers, bfloat16 throughout": peer_step(ids, torch.bfloat16)}
    seconds = {name: [] for name in (*ours, *peers)}
    for turn in range(REPEATS + 2):
        for name, step in (ours | peers).items():
            started = time.perf_counter()
            step()
            if turn > 1: seconds[name].append(time.perf_counter() - started)   # the first turns warm up
    speed = {name: BATCH*LENGTH/statistics.median(s) for name, s in seconds.items()}
    rows = []
    for peer in peers:
        for mine in ours:
            paired = sorted(p/o for p, o in zip(seconds[peer], seconds[mine]))   # the two steps of one turn
            rows.append({"peer": peer, "ours": mine, "ratio": statistics.median(paired), "ratio_low": paired[len(paired)//10], "ratio_high": paired[-1 - len(paired)//10],
                         "peer_tokens_per_second": speed[peer], "our_tokens_per_second": speed[mine], "repeats": REPEATS})
            print(f"{peer:34} {speed[peer]:9,.0f} tokens/s   ours, {mine:30} {speed[mine]:9,.0f} tokens/s   {rows[-1]['ratio']:.2f} times as fast")
    save_json({"what": "training steps: forward, backward, clipping, AdamW; not compiled", "preset": PRESET, "batch_size": BATCH, "seq_len": LENGTH, "threads": THREADS,
               "machine": processor(), "versions": {"torch": torch.__version__, "transformers": __version__}, "rows": rows}, root()/"reports/benchmarks/training.json", digits=2)


if __name__ == "__main__":
    main()
