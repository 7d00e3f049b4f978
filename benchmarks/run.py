"""Speed against peers, side by side in one process, as ratios:  python benchmarks/run.py

One training step (forward, backward) of the lab model, ours against transformers' Llama with the same shape and batch,
measured in turn so that a slow moment of the machine meets both. Writes reports/benchmarks/training.json.
"""
import platform
import statistics
import time

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from croissant.checkpoint import hf_config
from croissant.model import PRESETS, Llama
from croissant.params import root, seed_all
from croissant.provenance import save_json

BATCH, LENGTH, REPEATS = 8, 256, 7


def main():
    seed_all(0, 2)
    shape = PRESETS["lab-3m"]
    ids = torch.randint(0, shape.vocab_size, (BATCH, LENGTH + 1))
    ours, peer = Llama(shape, 0).bfloat16(), LlamaForCausalLM(LlamaConfig(**{k: v for k, v in hf_config(shape).items() if k != "architectures"}))

    def ours_step(): ours.loss(ids[:, :-1], ids[:, 1:]).backward()

    def peer_fp32(): peer(input_ids=ids[:, :-1], labels=ids[:, :-1], use_cache=False).loss.backward()

    def peer_bf16():
        with torch.autocast("cpu", torch.bfloat16): peer_fp32()

    steps = {"ours, bfloat16": ours_step, "transformers, float32": peer_fp32, "transformers, bfloat16 autocast": peer_bf16}
    seconds = {name: [] for name in steps}
    for turn in range(REPEATS + 1):
        for name, step in steps.items():
            started = time.perf_counter()
            step()
            if turn: seconds[name].append(time.perf_counter() - started)   # the first turn warms up
    median = {name: statistics.median(s) for name, s in seconds.items()}
    rows = [{"name": n, "tokens_per_second": BATCH*LENGTH/m, "ours_over_it": m/median["ours, bfloat16"], "repeats": REPEATS} for n, m in median.items()]
    save_json({"what": "one training step without the optimiser", "preset": "lab-3m", "batch": [BATCH, LENGTH], "threads": 2, "machine": platform.machine(), "rows": rows},
              root()/"reports/benchmarks/training.json", digits=2)
    for r in rows: print(f"{r['name']:34} {r['tokens_per_second']:9,.0f} tokens/s   ours is {r['ours_over_it']:.2f} times as fast")


if __name__ == "__main__":
    main()
