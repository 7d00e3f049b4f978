"""What each choice of the trainer buys, rung by rung:  python benchmarks/ladder.py

One model shape, one batch, the same weights. The ladder begins with the `Trainer` of transformers as it comes, then climbs from our
simplest step to the one that `compile: true` runs; each rung adds one choice to the rung below. Beside it stand roads that were tried
and not taken: the top rung with one choice made otherwise. All sides take turns as in training.py, each in a process of its own;
every ratio compares the steps of the same turn. Writes reports/benchmarks/ladder.json; a ratio above 1 means faster.
"""
import platform
import statistics
import tempfile

import training

SIZE, REPEATS = "5M", 9
PEER = "transformers Trainer, float32"
PLAIN = dict(dtype="float32", attention="sdpa", chunked=False, parts=())
RUNGS = {"ours, the simplest form": PLAIN}
for _name, _more in {"logits in chunks": dict(chunked=True), "blockwise attention": dict(attention="auto"), "bfloat16 weights, float32 masters": dict(dtype="bfloat16"),
                     "the decoder compiled": dict(parts=("decoder",)), "a chunk of the loss compiled": dict(parts=("decoder", "chunk"))}.items():
    RUNGS[_name] = [*RUNGS.values()][-1] | _more
TOP = [*RUNGS.values()][-1]
OTHERWISE = {"float32 weights, autocast": TOP | dict(dtype="float32", autocast=True), "decoder and loss compiled as one": TOP | dict(parts=("all",)), "maps of one input apart": TOP | dict(apart=True), "blocks of 256 queries": TOP | dict(block=256),
             "chunks of 1,024 rows": TOP | dict(rows=1024), "layers recomputed on the way back": TOP | dict(recompute=True), "Muon in place of AdamW": TOP | dict(optimizer="muon")}


def steps(size, how, weights, n, turn, folder=None):
    "One rung: `turn` is called before each step and, with the loss, after it."
    import functools
    import torch
    import torch.nn.functional as F
    from safetensors.torch import load_file
    from torch.utils.checkpoint import checkpoint
    import croissant.model as m
    from croissant.optim import MasterWeights, clip_gradients
    m.BLOCK, m.ROWS = how.get("block", m.BLOCK), how.get("rows", m.ROWS)
    if how.get("apart"): m._together = lambda x, *maps: tuple(f(x) for f in maps)
    model = m.Llama(training.shape_of(size), 0, how["attention"])
    if weights: model.load_state_dict(load_file(weights))
    if how.get("recompute"):
        for layer in model.model.layers: layer.forward = functools.partial(checkpoint, layer.forward, use_reentrant=False, preserve_rng_state=False)
    masters = MasterWeights(model, getattr(torch, how["dtype"]), how.get("optimizer", "adamw"))
    def whole(x, y): return F.cross_entropy(model(x).flatten(0, 1).float(), y.flatten())
    def by_decoder():
        decoder, c = torch.compile(model.model, dynamic=False), model.config
        return lambda x, y: m.linear_cross_entropy(decoder(x, model.attention, None, m.rope_table(0, x.shape[1], c.head_size, c.rope_theta)).flatten(0, 1), model.lm_head.weight, y.flatten())
    def as_one():
        def loss(x, y, angles): return m.linear_cross_entropy(model.model(x, model.attention, None, angles).flatten(0, 1), model.lm_head.weight, y.flatten(), m._chunk_to_compile)
        compiled, c = torch.compile(loss, dynamic=False), model.config
        return lambda x, y: compiled(x, y, m.rope_table(0, x.shape[1], c.head_size, c.rope_theta))
    loss_of = {(): lambda: model.loss if how["chunked"] else whole, ("decoder",): by_decoder, ("decoder", "chunk"): model.compiled_loss, ("all",): as_one}[how["parts"]]()   # made only where used: a compiler takes memory
    for ids in training.batches(size, n):
        turn(None)
        with torch.autocast("cpu", torch.bfloat16, enabled=how.get("autocast", False)): loss = loss_of(ids[:, :-1], ids[:, 1:])
        loss.backward()
        clip_gradients(masters.gather(), 1.)
        masters.step(training.RATE)
        turn(loss.item())


def climbed(found, peaks, tokens, flops, outer, block):
    "Rows of the ladder and of what was tried: each against the rung below, or against the top, and against the peer."
    seconds = {name: t[2:] for name, (t, _) in found.items()}
    def ratio(a, b):
        r = sorted(x / y for x, y in zip(seconds[a], seconds[b]))
        return {"ratio": statistics.median(r), "ratio_low": r[outer(len(r))], "ratio_high": r[-1 - outer(len(r))]}
    names, rows = [PEER, *RUNGS], []
    for name in (*names, *OTHERWISE):
        below = names[max(0, names.index(name) - 1)] if name in names else names[-1]
        speed = tokens / statistics.median(seconds[name])
        rows.append({"rung": name, "kept": name in names, "peer": below, **ratio(below, name), "against_the_trainer": ratio(PEER, name), "tokens_per_second": speed, "share_of_peak": training.shares(seconds[name], tokens * flops, found, block),
                     "peak_mib": peaks[name], "first_loss": found[name][1][0], "last_loss": found[name][1][-1], "repeats": len(seconds[name])})
        r = rows[-1]
        print(f"{name:36} {speed:8,.0f} tokens/s  {r['share_of_peak']:4.0%} of the peak  {r['ratio']:.2f} [{r['ratio_low']:.2f}, {r['ratio_high']:.2f}] times {below:36} {r['peak_mib']:6,.0f} MiB", flush=True)
    return rows


def main():
    from importlib.metadata import version
    from croissant.model import flops_per_token
    from croissant.params import root
    from croissant.provenance import save_json
    s = training.SIZES[SIZE]
    sides = {way: training.SIDES[way] for way in (PEER, training.PEAK)} | {name: (steps, how) for name, how in (RUNGS | OTHERWISE).items()}
    with tempfile.TemporaryDirectory() as folder:
        training.same_weights(SIZE, weights := f"{folder}/weights.safetensors")
        found, peaks = training.run_turns(SIZE, sides, REPEATS + 2, weights)
    rows = climbed(found, peaks, s["batch"] * s["length"], flops_per_token(training.shape_of(SIZE), s["length"]), training.outer, training.BLOCK)
    save_json({"what": "training steps of one shape: forward, backward, clipping, optimiser; each side a process of its own, two steps at a time in turn, of which the second is timed; each ratio is of paired steps, each share of a matrix product measured in the same turn", "size": SIZE, "shape": s,
               "threads": training.THREADS, "machine": training.processor(), "bfloat16_peak_gflops": max(found[training.PEAK][1]) / 1e9,
               "versions": {p: version(p).partition("+")[0] for p in ("torch", "transformers", "accelerate")} | {"python": platform.python_version()}, "rows": rows}, root()/"reports/benchmarks/ladder.json", digits=5)


if __name__ == "__main__": main()
