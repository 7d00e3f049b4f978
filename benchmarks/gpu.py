"""The paper's model on one GPU, ours beside transformers', in one run:  python benchmarks/gpu.py [--minutes 7] [--preset base]

Training: whole steps as the paper's GPUs made them (32 sequences of 2,048 tokens each: forward, backward, gradient accumulation,
clipping, AdamW), as model FLOPs utilisation against the measured and the data-sheet peak of bf16 products. Every arm starts every
turn from the same weights and the same tokens, has the card to itself, and gives no number unless its first loss and gradients are
those of transformers in float32; turns of all arms alternate, so that a hot or slow moment of the card meets everybody.
Inference: prompt and greedy decoding with a cache, random weights. Writes reports/benchmarks/gpu.json after every turn, the arms in
order of importance; a ratio above 1 means that ours is faster. `--tiny` runs every arm on the CPU with a toy shape, to try the code.
"""
import time

BEGUN = time.monotonic()        # before the slow imports, which the budget pays for

import argparse
import functools
import gc
import platform
import statistics
import subprocess
import sys
import tempfile
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

HERE = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(HERE))   # croissant need not be installed: this checkout is what is measured

import torch
import torch._dynamo
import torch.distributed as dist
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.utils import clip_grad_norm_
from torch.utils.checkpoint import checkpoint
from transformers import LlamaConfig, LlamaForCausalLM

import croissant.model
from croissant.checkpoint import hf_config
from croissant.model import PRESETS, KVCache, Llama, ModelConfig, count_parameters, flops_per_token, linear_cross_entropy
from croissant.optim import MasterWeights, adamw, clip_gradients, gradient_norm
from croissant.params import BadInput
from croissant.provenance import save_json, sha256
from training import processor

ROUNDS, WARM, STEPS = 3, 1, 2           # turns of every arm; steps of a turn that warm up, and that count
RATE, CLIP, HEAD_ROWS = 1e-4, 1., 4096  # learning rate; gradient limit; rows of logits alive at a time (512, the package's own, suit a CPU's cache)
MAIN = 3                                # arms that run whatever time is left
LOSS_FLOAT, GRADIENT_FLOAT = 1e-4, 1e-3   # ours and transformers, both float32: nats, and length of the difference over length
LOSS_BF16, GRADIENT_BF16, CORRELATION = .01, .1, .99   # an arm against float32, likewise, for the worst of a few matrices; logits of the two sides in inference
INFERENCE_SECONDS, GUESS = 45, {"": 20, "blocks": 40, "model": 120}   # kept free; what a new arm costs until its first turn has ended
DATA_SHEET = {"H100 PCIe": 756, "H100 NVL": 835, "H100": 989, "H200 NVL": 835, "H200": 989, "A100": 312}   # dense bf16 TFLOP/s by part of the name, first match


@dataclass(frozen=True)
class Scale:
    "How large everything is."
    preset: str
    shape: ModelConfig
    length: int = 2048
    sequences: int = 32                       # of a step: 7,680 over 240 GPUs
    sizes: tuple[int, ...] = (8, 4, 2)        # micro-batches: the first that fits; the main arms try twice the first too, where that should fit
    matmul: tuple[int, ...] = (4096, 8192, 16384)
    copied: int = 2**30                       # bytes
    prompt: int = 1024
    new: int = 33                             # tokens: one that ends the prompt's work, and 32 more
    batches: tuple[int, ...] = (1, 32)
    span: float = .05                         # seconds of one timing of a small thing


TINY = Scale("tiny", ModelConfig(256, 32, 88, 2, 2, max_position_embeddings=32), 32, 4, (2, 1), (64, 128), 2**16, 16, 5, (1, 2), .001)


@dataclass(frozen=True)
class Arm:
    "One way to train."
    name: str
    side: str                   # ours, or transformers
    precision: str              # masters: bf16 weights beside float32 ones; autocast: float32 weights; bfloat16: nothing else
    compiled: str = "blocks"    # block by block with norm and loss, so that one block is compiled for all; or the model as a whole; or not at all
    recompute: bool = False     # activations of a block made again on the way back?
    sharded: bool = False       # fully_shard, over a world of one?


ARMS = (Arm("ours", "ours", "masters"),
        Arm("transformers, bf16 autocast", "transformers", "autocast", ""),
        Arm("transformers, bf16 autocast, compiled", "transformers", "autocast"),
        Arm("ours, fully_shard", "ours", "masters", sharded=True),
        Arm("ours, recompute", "ours", "masters", recompute=True),
        Arm("ours, not compiled", "ours", "masters", ""),
        Arm("transformers, bf16 throughout", "transformers", "bfloat16", ""),
        Arm("ours, bf16 autocast", "ours", "autocast"),
        Arm("transformers, bf16 autocast, compiled as a whole", "transformers", "autocast", "model"))


class Different(Exception):
    "An arm computes something else."


class Card:
    "The device, with the few calls that a CPU does not have."
    def __init__(self, kind):
        self.kind, self.cuda = kind, kind == "cuda"
        self.backend = "inductor" if self.cuda else "aot_eager"   # the toy tries the code, not the compiler

    def sync(self):
        if self.cuda: torch.cuda.synchronize()

    def clear(self):
        "Between arms: give the memory of the last one back, and look no more at what is left, which is here to stay."
        gc.collect()
        gc.freeze()
        if self.cuda: torch.cuda.empty_cache()
        self.recount()

    def recount(self):
        if self.cuda: torch.cuda.reset_peak_memory_stats()

    def used(self): return torch.cuda.memory_allocated() if self.cuda else None
    def peak(self): return torch.cuda.max_memory_allocated() if self.cuda else None
    def total(self): return torch.cuda.get_device_properties(0).total_memory if self.cuda else None

    def facts(self):
        "Name, memory, driver and power limit."
        if not self.cuda: return {"name": processor(), "kind": "cpu", "total_mib": None, "driver": None, "power_limit": None, "capability": None}
        p, found = torch.cuda.get_device_properties(0), [None, None]
        try: found = subprocess.run(["nvidia-smi", "--query-gpu=driver_version,power.limit", "--format=csv,noheader", "-i", "0"], capture_output=True, text=True, timeout=20, check=True).stdout.strip().split(", ")
        except (OSError, subprocess.SubprocessError): pass
        return {"name": p.name, "kind": "cuda", "total_mib": p.total_memory // 2**20, "driver": found[0], "power_limit": found[-1], "capability": f"{p.major}.{p.minor}"}

    def clock(self, run):
        "What a call gives, and its seconds with all the device's work."
        self.sync()
        begun = time.perf_counter()
        found = run()
        self.sync()
        return found, time.perf_counter() - begun

    def seconds(self, run, span):
        "Median seconds of a small thing, from seven timings of many."
        for _ in range(3): once = self.clock(run)[1]
        many = max(1, int(span / max(once, 1e-7)))
        def again():
            for _ in range(many): run()
        return statistics.median(self.clock(again)[1] / many for _ in range(7))


def mib(x): return None if x is None else round(x / 2**20)


class Measured(Llama):
    "Our model, with a loss whose head may be compiled."
    head = staticmethod(linear_cross_entropy)

    def loss(self, input_ids, targets): return self.head(self.body(input_ids).flatten(0, 1), self.lm_head.weight, targets.flatten())


@torch.no_grad()
def fill(model, shape):
    "The same weights for whoever has the same names, made on the device: `init_weights` draws on the CPU, which takes long for a billion."
    parameters = sorted(model.named_parameters())
    g = torch.Generator(parameters[0][1].device).manual_seed(0)
    for name, p in parameters:
        writes = name.endswith(("o_proj.weight", "down_proj.weight"))
        if p.ndim == 1: p.fill_(1.)
        else: p.normal_(0, shape.initializer_range * ((2 * shape.num_hidden_layers) ** -.5 if writes else 1), generator=g)
    return model


def our_model(card, shape):
    with torch.device("meta"): model = Measured(shape)
    return fill(model.to_empty(device=card.kind), shape)


def peer_model(card, shape):
    config = LlamaConfig(**{k: v for k, v in hf_config(shape).items() if k not in ("architectures", "dtype")}, attn_implementation="sdpa")
    with torch.device(card.kind): model = LlamaForCausalLM(config)
    return fill(model, shape)


def to_bf16(model):
    "Weights only: `model.to` would round transformers' table of rotation speeds as well."
    for p in model.parameters(): p.data = p.data.to(torch.bfloat16)
    return model.eval()


def cross_entropy(logits, targets): return F.cross_entropy(logits.float().flatten(0, 1), targets.flatten())


def compile_each(modules, card):
    "One compiled block serves all: they have the same code and shapes."
    for m in modules: m.forward = torch.compile(m.forward, dynamic=False, backend=card.backend)


def shard(model, card):
    "FSDP2 with bf16 weights, float32 masters and reduction; with one rank there is nobody to share with, so this shows what the machinery costs."
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard, register_fsdp_forward_method
    if not dist.is_initialized():
        card.scratch = tempfile.TemporaryDirectory()
        dist.init_process_group("nccl" if card.cuda else "gloo", store=dist.FileStore(f"{card.scratch.name}/store", 1), rank=0, world_size=1)
    settings = {"mesh": init_device_mesh(card.kind, (1,)), "reshard_after_forward": False,
                "mp_policy": MixedPrecisionPolicy(torch.bfloat16, torch.float32, cast_forward_inputs=False)}   # the rotations' angles stay float32
    for block in model.model.layers: fully_shard(block, **settings)
    register_fsdp_forward_method(fully_shard(model, **settings), "loss")


class Bench:
    "What all arms share: the card, the sizes, the tokens, the attention kernel, and what the first step has to give."
    def __init__(self, card, scale):
        self.card, self.scale, self.wanted, self.kernels, self.refused = card, scale, None, [None], []
        g = torch.Generator(card.kind).manual_seed(1)
        ids = torch.randint(0, scale.shape.vocab_size, (scale.sequences, scale.length + 1), generator=g, device=card.kind)
        self.inputs, self.targets = ids[:, :-1].contiguous(), ids[:, 1:].contiguous()
        last = scale.shape.num_hidden_layers - 1
        self.watched = ("model.layers.0.self_attn.q_proj.weight", f"model.layers.{last // 2}.mlp.down_proj.weight", f"model.layers.{last}.self_attn.v_proj.weight", "lm_head.weight")

    def batches(self, size): return [(self.inputs[i:i + size], self.targets[i:i + size]) for i in range(0, self.scale.sequences, size)]
    def kernel(self): return sdpa_kernel(self.kernels[0]) if self.kernels[0] else nullcontext()
    def autocast(self, arm): return torch.autocast(self.card.kind, torch.bfloat16, enabled=arm.precision == "autocast")

    def our_step(self, arm, size):
        model, batches = our_model(self.card, self.scale.shape), self.batches(size)
        if arm.compiled:
            compile_each((*model.model.layers, model.model.norm), self.card)
            model.head = torch.compile(linear_cross_entropy, dynamic=False, backend=self.card.backend)
        if arm.recompute:
            for block in model.model.layers: block.forward = functools.partial(checkpoint, block.forward, use_reentrant=False, preserve_rng_state=False)
        if arm.sharded: shard(model, self.card)
        weights = MasterWeights(model, torch.bfloat16 if arm.precision == "masters" and not arm.sharded else torch.float32)

        @torch.no_grad()
        def collect(first):
            "Sum the gradients of micro-batches in float32; where the weights are float32, torch does."
            if weights.shared: return
            if first: weights.gather()
            else: torch._foreach_add_([m.grad for m in weights.masters], [p.grad for p in weights.working])
            for p in weights.working: p.grad = None

        def step(look):
            total = torch.zeros((), device=self.card.kind)
            with self.kernel():                              # over the way back too, where blocks may run again
                for i, (x, y) in enumerate(batches):
                    with self.autocast(arm): loss = model.loss(x, y) / len(batches)
                    loss.backward()
                    collect(i == 0)
                    total += loss.detach()
            with torch.no_grad(): gradients = [m.grad.to_local() if arm.sharded else m.grad for m in weights.masters]
            look(total, dict(zip(weights.names, gradients)))
            clip_gradients(gradients, CLIP)
            weights.step(RATE)
            return total.item()
        return step

    def peer_step(self, arm, size):
        model, batches, score = peer_model(self.card, self.scale.shape), self.batches(size), cross_entropy
        if arm.precision == "bfloat16": to_bf16(model).train()
        if arm.compiled == "blocks":
            compile_each((*model.model.layers, model.model.norm), self.card)
            score = torch.compile(cross_entropy, dynamic=False, backend=self.card.backend)
        def run(x, y): return score(model(input_ids=x, use_cache=False).logits, y)
        if arm.compiled == "model": run = torch.compile(run, dynamic=False, backend=self.card.backend)
        optimiser = adamw(model.parameters())
        for group in optimiser.param_groups: group["lr"] = RATE

        def step(look):
            total = torch.zeros((), device=self.card.kind)
            for x, y in batches:
                with self.autocast(arm): loss = run(x, y) / len(batches)
                loss.backward()
                total += loss.detach()
            look(total, {n: p.grad for n, p in model.named_parameters()})
            clip_grad_norm_(model.parameters(), CLIP)
            optimiser.step()
            optimiser.zero_grad()
            return total.item()
        return step

    def check(self, loss, gradients):
        "How far a first step is from what float32 gives; too far raises `Different`."
        off = loss.item() - self.wanted["loss"], max(distance(gradients[n], g.to(gradients[n].device)) for n, g in self.gradients.items())
        if not (abs(off[0]) <= LOSS_BF16 and off[1] <= GRADIENT_BF16): raise Different(f"the first loss is {off[0]:+.5f} from float32's {self.wanted['loss']:.5f}, a gradient {off[1]:.2%}")
        return {"loss_difference": off[0], "gradient_difference": off[1]}

    def turn(self, arm, size, warm, steps):
        "Build an arm, warm it up, time its steps; raises `Different`."
        self.card.clear()
        make, begun = self.our_step if arm.side == "ours" else self.peer_step, time.perf_counter()
        step, built = self.card.clock(lambda: make(arm, size))
        losses, seconds, differences = [], [], {}
        def look(*found):
            if not losses: differences.update(self.check(*found))
        for _ in range(warm + steps):
            loss, took = self.card.clock(lambda: step(look))
            losses.append(loss); seconds.append(took)
        if not losses[-1] < losses[0]: raise Different(f"losses {losses} on the same tokens do not fall: the steps change nothing, or the wrong thing")
        return {"micro_batch": size, "seconds": seconds[warm:], "losses": losses, **differences, "first_seconds": seconds[0], "turn_seconds": time.perf_counter() - begun,
                "built_seconds": built, "peak": self.card.peak(), "state": self.card.used()}

    def attempt(self, arm, size, warm, steps):
        "A turn, or what went wrong, as text: an exception would hold the arm's memory."
        try: return self.turn(arm, size, warm, steps)
        except Exception as e: return {"micro_batch": size, "error": f"{type(e).__name__}: {e}"[:400], "out_of_memory": isinstance(e, torch.OutOfMemoryError) or "out of memory" in str(e)}

    def first(self, arm, size):
        "A first turn; an attention kernel with which even the first arm fails is given up."
        found = self.attempt(arm, size, WARM + 1, STEPS)
        while "error" in found and not found["out_of_memory"] and arm is ARMS[0] and len(self.kernels) > 1:
            self.refused.append({"kernel": self.kernels.pop(0).name, "error": found["error"]})
            torch._dynamo.reset()
            found = self.attempt(arm, size, WARM + 1, STEPS)
        return found | {"attention": self.kernels[0].name if arm.side == "ours" and self.kernels[0] else "default"}

    def settle(self, arm):
        "First turns with the first micro-batch that fits, and for a main arm with twice the largest where that should fit; the faster one stands first."
        tried = []
        for size in self.scale.sizes:
            tried.append(self.first(arm, size))
            if not tried[-1].get("out_of_memory"): break
        found, room = tried[-1], self.card.total()
        if len(tried) == 1 and "seconds" in found and arm in ARMS[:MAIN] and 2*size <= self.scale.sequences:
            if room is None or found["state"] + 2*(found["peak"] - found["state"]) < .95*room: tried.append(self.first(arm, 2*size))
        return sorted(tried, key=lambda t: statistics.median(t["seconds"]) if "seconds" in t else float("inf"))


def products(card, scale):
    "TFLOP/s of square bf16 products of random numbers, for a peak that this card reaches today."
    card.clear()
    rows = []
    for n in scale.matmul:
        a, b, c = (torch.randn(n, n, device=card.kind).to(torch.bfloat16) for _ in range(3))
        rows.append({"size": n, "tflops": 2*n**3 / card.seconds(lambda a=a, b=b, c=c: torch.mm(a, b, out=c), scale.span) / 1e12})
    return rows


def copying(card, scale):
    "GB/s of a copy on the device, bytes read and written."
    a = torch.randn(scale.copied // 4, device=card.kind)
    b = torch.empty_like(a)
    return 2*scale.copied / card.seconds(lambda: b.copy_(a), scale.span) / 1e9


def attention_kernels(card, scale):
    "Milliseconds of one layer's causal attention, forward and backward, by kernel; torch's own choice is called default."
    s, rows = scale.shape, []
    shape = (scale.sizes[0], s.num_attention_heads, scale.length, s.head_size)
    q, k, v = (torch.randn(shape, device=card.kind).to(torch.bfloat16).requires_grad_() for _ in range(3))
    up = torch.randn(shape, device=card.kind).to(torch.bfloat16)
    for kernel in (None, *((SDPBackend.FLASH_ATTENTION, SDPBackend.CUDNN_ATTENTION) if card.cuda else ())):
        def run(kernel=kernel):
            with sdpa_kernel(kernel) if kernel else nullcontext(): out = F.scaled_dot_product_attention(q, k, v, is_causal=True)
            return torch.autograd.grad(out, (q, k, v), up)
        try: rows.append({"kernel": kernel.name if kernel else "default", "milliseconds": 1000*card.seconds(run, scale.span)})
        except Exception as e: rows.append({"kernel": kernel.name if kernel else "default", "error": f"{type(e).__name__}: {e}"[:200]})
    return rows


def distance(a, b):
    "Length of a difference, over the length of `b`."
    return (torch.linalg.vector_norm(a.float() - b) / torch.linalg.vector_norm(b)).item()


def reference(bench):
    "Loss and some gradients of the step by transformers in float32, and ours in float32 beside it on its first micro-batch: losses and every gradient must agree."
    card, shape, batches = bench.card, bench.scale.shape, bench.batches(bench.scale.sizes[-1])
    card.clear()
    ours, peer = our_model(card, shape), peer_model(card, shape)
    assert all(torch.equal(a, b) for a, b in zip(ours.state_dict().values(), map(peer.state_dict().get, ours.state_dict()))), "the two sides start from other weights"
    mine = ours.loss(*batches[0]) / len(batches)
    mine.backward()
    total = 0.
    for i, (x, y) in enumerate(batches):
        loss = cross_entropy(peer(input_ids=x, use_cache=False).logits, y) / len(batches)
        loss.backward()
        total += loss.item()
        if i == 0:
            theirs = dict(peer.named_parameters())
            off = max(distance(p.grad, theirs[n].grad) for n, p in ours.named_parameters())
            apart = abs(mine.item() - loss.item()) * len(batches)
            ours.zero_grad()
    bench.gradients = {n: theirs[n].grad.cpu() for n in bench.watched}   # not on the card: its memory is the arms'
    bench.wanted = {"loss": total, "gradient_norm": gradient_norm([p.grad for p in peer.parameters()]), "float32_loss_difference": apart, "float32_gradient_difference": off,
                    "float32_agrees": apart <= LOSS_FLOAT and off <= GRADIENT_FLOAT, "watched_gradients": bench.watched,
                    "tolerances": {"float32_loss": LOSS_FLOAT, "float32_gradient": GRADIENT_FLOAT, "bf16_loss": LOSS_BF16, "bf16_gradient": GRADIENT_BF16, "bf16_logits_correlation": CORRELATION}}
    return bench.wanted


def spread(values):
    "Median and the tenth from either end."
    kept = sorted(values)
    return statistics.median(kept), kept[len(kept) // 10], kept[-1 - len(kept) // 10]


def arm_row(bench, arm, tried, turns, peaks):
    "Everything about one arm; its speed is of the alternating turns, or of its first one until there are any."
    row = asdict(arm) | {"tried": [{k: t[k] for k in ("micro_batch", "attention", "error") if k in t} | ({"tokens_per_second": bench.scale.sequences*bench.scale.length / statistics.median(t["seconds"])}
                                    if "seconds" in t else {}) for t in tried], "turns": len(turns)}
    first = tried[0]
    if "error" in first: return row | {"error": first["error"]}
    counted = turns or [first]
    tokens, flops = bench.scale.sequences*bench.scale.length, flops_per_token(bench.scale.shape, bench.scale.length)
    speed, low, high = spread(tokens / s for t in counted for s in t["seconds"])
    return row | {"micro_batch": first["micro_batch"], "attention": first["attention"], "accumulation": bench.scale.sequences // first["micro_batch"], "steps": sum(len(t["seconds"]) for t in counted),
                  "tokens_per_second": speed, "tokens_per_second_low": low, "tokens_per_second_high": high, "tflops": speed*flops / 1e12,
                  "mfu_measured": speed*flops / 1e12 / peaks["measured"], "mfu_data_sheet": speed*flops / 1e12 / peaks["data_sheet"] if peaks["data_sheet"] else None,
                  "peak_mib": mib(max(t["peak"] for t in counted) if bench.card.cuda else None), "state_mib": mib(counted[-1]["state"]),
                  "losses": first["losses"], "loss_difference": first["loss_difference"], "gradient_difference": first["gradient_difference"],
                  "first_step_seconds": first["first_seconds"], "seconds": [t["seconds"] for t in counted]}


def against(peer, ours, work, pairs):
    "One comparison of paired turns, (peer's seconds, ours)."
    ratios = sorted(p / o for p, o in pairs)
    return {"peer": peer, "ours": ours, "work": work, "ratio": statistics.median(ratios), "ratio_low": ratios[0], "ratio_high": ratios[-1], "repeats": len(ratios)}


def comparisons(turns):
    "Every arm of ours against every peer, by rounds that both took part in."
    sides = {side: [a for a in turns if a.side == side and turns[a]] for side in ("ours", "transformers")}
    middle = {a: [statistics.median(t["seconds"]) for t in turns[a]] for side in sides.values() for a in side}
    return [against(p.name, o.name, "training step", list(zip(middle[p], middle[o]))) for p in sides["transformers"] for o in sides["ours"]]


def our_tokens(model, ids, n):
    "Greedy ids (B, n), with our cache; nothing waits for the host."
    cache, new, found = KVCache(model.config, len(ids), ids.shape[1] + n, model.lm_head.weight.dtype, ids.device), ids, []
    for _ in range(n):
        new = model.lm_head(model.body(new, cache)[:, -1:]).argmax(-1)
        found.append(new)
    return torch.cat(found, 1)


def peer_tokens(model, ids, n):
    found = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=n, do_sample=False, pad_token_id=0)
    assert found.shape[1] == ids.shape[1] + n, "generation ended early"
    return found[:, ids.shape[1]:]


@torch.inference_mode()
def inference(bench, batch):
    "Both sides in turn: seconds of a prompt with one new token, and of further tokens."
    card, scale = bench.card, bench.scale
    card.clear()
    models = {"ours": to_bf16(our_model(card, scale.shape)), "transformers": to_bf16(peer_model(card, scale.shape))}
    ids = torch.randint(0, scale.shape.vocab_size, (batch, scale.prompt), generator=torch.Generator(card.kind).manual_seed(2), device=card.kind)
    tokens = {"ours": functools.partial(our_tokens, models["ours"], ids), "transformers": functools.partial(peer_tokens, models["transformers"], ids)}
    logits = models["ours"].lm_head(models["ours"].body(ids)[:1, -1])[0].float(), models["transformers"](input_ids=ids[:1], logits_to_keep=1).logits[0, -1].float()
    alike = torch.corrcoef(torch.stack(logits))[0, 1].item()
    if not alike >= CORRELATION: raise Different(f"logits of the two sides correlate by {alike:.4f} only")
    seconds, peak, other = {side: [] for side in tokens}, {}, 2*count_parameters(scale.shape)["total"]   # bytes of the side that waits
    for turn in range(ROUNDS + 1):
        for side, run in tokens.items():
            card.recount()
            first, both = card.clock(lambda run=run: run(1))[1], card.clock(lambda run=run: run(scale.new))[1]
            if turn: seconds[side].append((first, max(both - first, 1e-9))); peak[side] = mib(card.peak() - other) if card.cuda else None
    rows = []
    for side, found in seconds.items():
        speeds = {"prefill": spread(batch*scale.prompt / a for a, _ in found), "decode": spread(batch*(scale.new - 1) / b for _, b in found)}
        rows.append({"side": side, "batch": batch, "prompt": scale.prompt, "new": scale.new, "peak_mib": peak[side], "logits_correlation": alike,
                     **{f"{work}_tokens_per_second{end}": v for work, s in speeds.items() for end, v in zip(("", "_low", "_high"), s)}})
    pairs = [against("transformers, generate", "ours", f"{work}, batch {batch}", [(p[i], o[i]) for p, o in zip(seconds["transformers"], seconds["ours"])]) for i, work in enumerate(("prefill", "decode"))]
    return rows, pairs


def versions():
    "Of whatever has a part in the numbers."
    found = {"python": platform.python_version(), "cuda": torch.version.cuda, "cudnn": torch.backends.cudnn.version() if torch.cuda.is_available() else None}
    for p in ("torch", "transformers", "triton"):
        try: found[p] = version(p)
        except PackageNotFoundError: found[p] = None
    return found


def brief(x):
    "Numbers to six digits, wherever their point is."
    if isinstance(x, dict): return {k: brief(v) for k, v in x.items()}
    if isinstance(x, (list, tuple)): return [brief(v) for v in x]
    return float(f"{x:.6g}") if isinstance(x, float) else x


class Record:
    "The JSON, written whole after every step of the run."
    def __init__(self, bench, out, minutes):
        self.bench, self.out, self.tried, self.turns, self.done = bench, out, {}, {}, {"inference": [], "left_out": [], "finished": False}
        self.pairs = []
        s, facts = bench.scale, bench.card.facts()
        self.peaks = {"measured": None, "data_sheet": data_sheet(facts["name"])}
        self.head = {"what": "training steps and inference of one model shape with random weights on one GPU, ours against transformers; MFU counts flops_per_token: matrices of layers and head, "
                             "causal attention at half, no recomputation", "date": datetime.now(UTC).date().isoformat(), "machine": processor(), "device": facts,
                     "threads": torch.get_num_threads(), "versions": versions(), "parameters": count_parameters(s.shape)["total"], "flops_per_token": flops_per_token(s.shape, s.length),
                     "settings": {"preset": s.preset, "seq_len": s.length, "sequences_per_step": s.sequences, "rounds": ROUNDS, "warm_up_steps": WARM, "steps": STEPS, "learning_rate": RATE,
                                  "grad_clip": CLIP, "head_rows": HEAD_ROWS, "optimizer": "AdamW, fused", "compiler": bench.card.backend, "minutes": minutes},
                     "code": {p: sha256(HERE/p)[:16] for p in ("benchmarks/gpu.py", "croissant/model.py", "croissant/optim.py")}}

    def save(self, **more):
        "Add to the record, and write it."
        self.done |= more
        arms = [arm_row(self.bench, a, t, self.turns.get(a, []), self.peaks) for a, t in self.tried.items()]
        breaks = sum(torch._dynamo.utils.counters["graph_break"].values())
        save_json(brief({**self.head, **self.done, "peaks": self.peaks, "arms": arms, "rows": comparisons(self.turns) + self.pairs, "graph_breaks": breaks, "seconds": time.monotonic() - BEGUN}), self.out, digits=15)
        return arms

    def peak(self, rows, when):
        self.save(matmul=self.done.get("matmul", []) + [r | {"when": when} for r in rows])
        self.peaks["measured"] = max(r["tflops"] for r in self.done["matmul"])
        for r in rows: say(f"bf16 product of {r['size']:,}: {r['tflops']:.4g} TFLOP/s")


def data_sheet(name): return next((v for k, v in DATA_SHEET.items() if all(part in name for part in k.split())), None)


def say(text): print(f"{time.monotonic() - BEGUN:6.1f} s  {text}", flush=True)


def memory(row): return "memory not counted" if row["peak_mib"] is None else f"peak {row['peak_mib']:,} MiB"


def told(row):
    "A row as a line."
    if "error" in row: return f"{row['name']}: {row['error']}"
    sheet = f", {row['mfu_data_sheet']:.1%} of the data sheet's" if row["mfu_data_sheet"] else ""
    return f"{row['name']}: {row['tokens_per_second']:,.0f} tokens/s, {row['mfu_measured']:.1%} of the measured peak{sheet}, micro-batch {row['micro_batch']}, {memory(row)}, {row['turns']} turns"


def run(bench, record, minutes):
    "Everything in order; returns whether all that ran was right."
    card, scale, left = bench.card, bench.scale, lambda: 60*minutes - (time.monotonic() - BEGUN)
    say(f"{record.head['device']['name']}, {record.head['parameters']:,} parameters, {record.head['flops_per_token']*scale.sequences*scale.length / 1e12:,.4g} TFLOP in a step of {scale.sequences*scale.length:,} tokens")
    record.peak(products(card, scale), "before")
    record.save(copy_gb_per_second=copying(card, scale))
    rows = attention_kernels(card, scale)
    record.save(attention=rows)
    for r in rows: say(f"attention, {r['kernel']}: {r['milliseconds']:.3f} ms" if "milliseconds" in r else f"attention, {r['kernel']}: {r['error']}")
    bench.kernels = [getattr(SDPBackend, r["kernel"]) for r in sorted((r for r in rows if "milliseconds" in r and r["kernel"] != "default"), key=lambda r: r["milliseconds"])] or [None]
    record.save(reference=reference(bench))
    right = bench.wanted["float32_agrees"]
    say(f"float32: loss {bench.wanted['loss']:.5f}; ours and transformers differ by {bench.wanted['float32_loss_difference']:.1e}, a gradient by {bench.wanted['float32_gradient_difference']:.1e}" + ("" if right else ": too far, something is wrong"))

    cost = {}
    for arm in ARMS:
        ahead = GUESS[arm.compiled] + ROUNDS*(sum(cost.values()) + 10) + INFERENCE_SECONDS if len(record.tried) >= MAIN and card.cuda else 0
        if left() <= ahead:
            record.save(left_out=record.done["left_out"] + [arm.name])
            say(f"{arm.name}: left out, no time")
            continue
        record.tried[arm] = bench.settle(arm)
        if "seconds" in (best := record.tried[arm][0]): cost[arm] = best["built_seconds"] + (WARM + STEPS)*statistics.median(best["seconds"]); record.turns[arm] = []
        say(told(record.save(attention_refused=bench.refused)[-1]))
    for _ in range(ROUNDS):
        for arm in cost:
            if left() <= cost[arm]: continue
            found = bench.attempt(arm, record.tried[arm][0]["micro_batch"], WARM, STEPS)
            if "error" in found: right = False; record.tried[arm].append(found); say(f"{arm.name}: {found['error']}")
            else: record.turns[arm].append(found)
            record.save()
    for row in record.save(): say(told(row))
    record.peak(products(card, scale), "after")

    right = right and not any("error" in r for r in record.save())
    for batch in scale.batches:
        if left() <= 0: record.save(left_out=record.done["left_out"] + [f"inference, batch {batch}"]); continue
        try: rows, pairs = inference(bench, batch)
        except Exception as e: right = False; say(f"inference, batch {batch}: {e}"); record.save(left_out=record.done["left_out"] + [f"inference, batch {batch}: {type(e).__name__}: {e}"[:400]]); continue
        record.pairs += pairs
        record.save(inference=record.done["inference"] + rows)
        for r in rows: say(f"{r['side']}, batch {batch}: prefill {r['prefill_tokens_per_second']:,.0f} tokens/s, decode {r['decode_tokens_per_second']:,.0f} tokens/s, {memory(r)}")
    record.save(finished=True)
    for r in record.done["left_out"]: say(f"left out: {r}")
    return right


def device(tiny, shape):
    "The card, or `BadInput` where there is none, or one that is too small or too old."
    if tiny: return Card("cpu")
    if not torch.cuda.is_available(): raise BadInput("no CUDA device: this benchmark needs one NVIDIA GPU, and nothing was measured; `--tiny` tries its code on the CPU")
    tokens, found = 2*shape.max_position_embeddings, torch.cuda.get_device_properties(0)   # of a float32 micro-batch, which needs most
    needed = 20*count_parameters(shape)["total"] + tokens*(100*shape.num_hidden_layers*shape.hidden_size + 16*shape.vocab_size)
    if found.major < 8: raise BadInput(f"no CUDA device: {found.name} has no bf16 matrix units, so nothing was measured; a card of compute capability 8.0 or later has them")
    if found.total_memory < needed: raise BadInput(f"no CUDA device: {found.name} has {mib(found.total_memory):,} MiB, this shape needs {mib(needed):,}; choose a smaller one with --preset")
    return Card("cuda")


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=7, help="no arm is begun that would not end in this time (default 7)")
    parser.add_argument("--preset", choices=list(PRESETS), default="base", help="shape of the model (default base, the paper's)")
    parser.add_argument("--out", type=Path, help="the JSON to write (default reports/benchmarks/gpu.json; with --tiny artifacts/benchmarks/gpu.json)")
    parser.add_argument("--tiny", action="store_true", help="every arm on the CPU, with a toy shape")
    a = parser.parse_args(arguments)
    shape = PRESETS[a.preset]
    scale = TINY if a.tiny else Scale(a.preset, shape, length=shape.max_position_embeddings, prompt=shape.max_position_embeddings // 2)
    rows, limit = croissant.model.ROWS, torch._dynamo.config.recompile_limit
    bench = Bench(device(a.tiny, shape), scale)
    croissant.model.ROWS, torch._dynamo.config.recompile_limit = HEAD_ROWS, 64
    try: return 0 if run(bench, Record(bench, a.out or HERE/("artifacts" if a.tiny else "reports")/"benchmarks/gpu.json", a.minutes), a.minutes) else 1
    finally:
        croissant.model.ROWS, torch._dynamo.config.recompile_limit = rows, limit
        gc.unfreeze()
        if dist.is_initialized(): dist.destroy_process_group()


if __name__ == "__main__":
    try: sys.exit(main())
    except BadInput as e: print(e, file=sys.stderr); sys.exit(2)
