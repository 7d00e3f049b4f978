"""Scoring multiple-choice items against lm-evaluation-harness:  python benchmarks/frenchbench.py [SHAPE ...]

The same model object (a Llama with a body of 16M, vocabulary of 32,000, random weights) and the same tokenizer on both sides, in
float32, on invented items of five shapes: short questions, continuations, passages, the three mixed, and questions behind five
fixed examples. The harness's `hf` backend gets the batch size that is best for it, tried on a part of the items of each shape
right before, the better of two times. Both sides score the same items in turn, part by part, so that a slow moment of the machine meets both. Beside the
time: the largest difference of a score, and whether both choose the same answer, by sum and by sum per character.
Writes reports/benchmarks/frenchbench.json; a ratio above 1 means that ours is faster.
"""
import json
import os
import platform
import random
import statistics
import sys
import tempfile
import time

os.environ |= {"TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}

TOKENIZER = "artifacts/tokenizer/base32k"
MODEL = dict(layers=8, hidden=384, ffn=1024, heads=6, positions=2048)
SHAPES = {"short": (25, 5), "continuation": (50, 18), "passage": (220, 4)}       # words of a context, words of a choice
EXAMPLES, CHOICES = 5, 4
ITEMS = {"mixed": 510, "short": 180, "continuation": 117, "passage": 72, "five examples": 45} # the harness needs minutes for each
BATCHES = (1, 4, 8, 16, 32, "auto")
THREADS, PARTS, BATCH_TOKENS = 2, 9, 1024
TRIAL = {"five examples": 4} # Items on which the batch sizes are tried; 16 of the others
TOO_LARGE = {"five examples": (32, "auto")} # 32 contexts of a thousand tokens ask for 13 GB of logits, and the search of `auto` would take longer than the comparison
WORDS = ("le la les un une des ce cette mon ma notre leur chat chien maison forêt église rivière montagne école élève enfant mère père femme homme voisin boulanger médecin "
         "jardin fenêtre porte table livre lettre histoire question réponse travail journée matin soir été hiver printemps automne pays ville village rue place marché "
         "grand grande petit petite vieux vieille nouveau nouvelle beau belle vert verte noir noire blanc blanche rouge froid chaude rapide lente difficile facile "
         "est sont était étaient avait ont fait font dit voit prend met vient va peut doit sait veut trouve laisse tient porte lit écrit parle entend attend perd gagne "
         "dans sur sous avec sans pour par vers chez entre devant derrière pendant depuis avant après dès très plus moins bien mal souvent jamais toujours déjà encore "
         "et ou mais donc car parce que lorsque quand si où qui que dont").split()


def sentence(r, words):
    "So many words, with commas and stops where chance puts them."
    said = [r.choice(WORDS) + r.choice(("",) * 11 + (",", ".")) for _ in range(max(1, words))]
    return " ".join(said)


def items(shape, n, seed=0):
    "Contexts with four choices; behind the same five examples where the shape says so."
    r, found = random.Random(f"{shape} {seed}"), []
    def question(kind):
        context, choice = SHAPES[kind]
        return sentence(r, max(5, round(r.gauss(context, context / 4)))), [" " + sentence(r, round(r.gauss(choice, choice / 3))) for _ in range(CHOICES)]
    header = ""
    if shape == "five examples":
        for _ in range(EXAMPLES):
            header += f"Question: {sentence(r, 130)} ?\nRéponse: {sentence(r, 5)}\n\n"   # in all about a thousand tokens
    for i in range(n):
        context, choices = question({"mixed": list(SHAPES)[i % len(SHAPES)], "five examples": "short"}.get(shape, shape))
        found.append((f"{header}Question: {context} ?\nRéponse:", choices))
    return found


def make_model(folder, tokenizer):
    "The folder that `transformers` and we load: random weights, spread enough for the answers to differ."
    import torch
    from croissant.checkpoint import save_model
    from croissant.model import Llama, ModelConfig
    c = ModelConfig(tokenizer.vocab_size, MODEL["hidden"], MODEL["ffn"], MODEL["layers"], MODEL["heads"], max_position_embeddings=MODEL["positions"], tie_word_embeddings=True, initializer_range=.05)
    model = Llama(c, 0)
    assert torch.isfinite(model.lm_head.weight).all()
    return save_model(model, tokenizer, folder)


def harness(model, tokenizer, batch_size):
    "The peer's backend around the model in memory."
    from lm_eval.models.huggingface import HFLM
    return HFLM(pretrained=model, tokenizer=tokenizer, batch_size=batch_size, max_batch_size=16, max_length=MODEL["positions"])   # `auto` tries up to 16: the 64 of its default need 16 GB for logits


def their_scores(lm, part):
    "Scores and greedy flags by the peer, one row an item."
    import numpy as np
    from lm_eval.api.instance import Instance
    out = lm.loglikelihood([Instance(request_type="loglikelihood", doc={}, arguments=(c, x), idx=0) for c, xs in part for x in xs], disable_tqdm=True)
    return np.array([o[0] for o in out]).reshape(-1, CHOICES), np.array([o[1] for o in out]).reshape(-1, CHOICES)


def switched_scores(lm, part):
    "The same with the switch that lets `torch` multiply float32 by oneDNN; no model's author has to touch it, but a user may."
    import torch
    torch.set_float32_matmul_precision("high")
    try: return their_scores(lm, part)
    finally: torch.set_float32_matmul_precision("highest")


def our_scores(reader, tokenizer, part):
    "The same by ours."
    import numpy as np
    from croissant.frenchbench.choices import choice_log_probs
    found = choice_log_probs(reader, tokenizer, part, BATCH_TOKENS)
    return np.array([s.log_probs for s in found]), np.array([s.greedy for s in found])


def timed(run, *arguments):
    "What it returns, and seconds by the wall."
    started = time.perf_counter()
    found = run(*arguments)
    return found, time.perf_counter() - started


def outer(n): # as in corpus.py
    from corpus import outer
    return outer(n)


def best_batch(shape, model, hf_tokenizer, part):
    "The batch size with which the peer scores a part fastest, and the seconds of each."
    seconds = {}
    their_scores(harness(model, hf_tokenizer, 1), part[:2])            # warm
    for size in (s for s in BATCHES if s not in TOO_LARGE.get(shape, ())):
        lm = harness(model, hf_tokenizer, size)
        try: seconds[str(size)] = min(timed(their_scores, lm, part)[1] for _ in range(2))
        except RuntimeError as e: print(f"harness, batch size {size}: {str(e)[:80]}", flush=True)   # `auto` may ask for more memory than there is
    return min((size for size in BATCHES if str(size) in seconds), key=lambda size: seconds[str(size)]), seconds


def compared(shape, n, parts, model, hf_tokenizer, readers, n_trial=16):
    "A row for each way of ours: all sides on the same parts in turn."
    import numpy as np
    asked = items(shape, n)
    batch_size, tried = best_batch(shape, model, hf_tokenizer, items(shape, n_trial, seed=1))
    lm, sides, rows, k = harness(model, hf_tokenizer, batch_size), {}, [], outer(parts)
    peers = {"lm_eval, hf": lambda part: their_scores(lm, part)} | ({"lm_eval, hf, switched to oneDNN": lambda part: switched_scores(lm, part)} if shape == "mixed" else {})
    ways = peers | {way: lambda part, r=r: our_scores(r, hf_tokenizer, part) for way, r in readers.items()}
    for run in ways.values(): run(asked[:2])                                    # warm
    for i in range(parts):
        for way, run in ways.items(): sides.setdefault(way, []).append(timed(run, asked[i * n // parts:(i + 1) * n // parts]))
    letters = np.array([[len(x.strip()) for x in xs] for _, xs in asked])
    found = {way: tuple(np.concatenate(x) for x in zip(*(scores for scores, _ in turns))) for way, turns in sides.items()}
    for peer, way in ((p, w) for p in peers for w in readers):
        (ts, tg), t = found[peer], [seconds for _, seconds in sides[peer]]
        (os_, og), o = found[way], [seconds for _, seconds in sides[way]]
        ratios = sorted(a / b for a, b in zip(t, o))
        rows.append({"shape": shape, "items": n, "choices": CHOICES, "peer": peer, "ours": way, "ratio": statistics.median(ratios), "ratio_low": ratios[k], "ratio_high": ratios[-1 - k],
                     "repeats": parts, "ratio_of_sums": sum(t) / sum(o), "peer_milliseconds_per_item": sum(t) / n * 1e3, "our_milliseconds_per_item": sum(o) / n * 1e3,
                     "peer_batch_size": str(batch_size), "peer_batch_seconds": tried, "max_score_difference": float(np.abs(ts - os_).max()), "equal_acc": bool((ts.argmax(1) == os_.argmax(1)).all()),
                     "equal_acc_norm": bool(((ts / letters).argmax(1) == (os_ / letters).argmax(1)).all()), "equal_greedy": bool((tg == og).all())})
        row = rows[-1]
        print(f"{shape:14} {peer} (batch {batch_size}) {row['peer_milliseconds_per_item']:7.1f} ms an item   ours, {way:16} {row['our_milliseconds_per_item']:6.1f}   {row['ratio']:.2f} times as fast ({row['ratio_low']:.2f} to {row['ratio_high']:.2f}), "
              f"scores differ by {row['max_score_difference']:.1e}, same choices: {row['equal_acc'] and row['equal_acc_norm']}", flush=True)
    return rows


def main(shapes):
    from importlib.metadata import version
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging
    from croissant.frenchbench.choices import reader_of
    from croissant.params import root
    from croissant.provenance import save_json
    from croissant.tokenizer import Tokenizer
    from training import processor
    torch.set_num_threads(THREADS)
    logging.set_verbosity_error()
    with tempfile.TemporaryDirectory() as folder:
        path = make_model(f"{folder}/model", Tokenizer.load(root()/TOKENIZER))
        model, hf_tokenizer = AutoModelForCausalLM.from_pretrained(path).eval(), AutoTokenizer.from_pretrained(path)
        readers = {"default products": reader_of(model), "oneDNN products": reader_of(model, onednn=True)}       # around the same model object
        rows = [row for shape in shapes or ITEMS for row in compared(shape, ITEMS[shape], PARTS, model, hf_tokenizer, readers, TRIAL.get(shape, 16))]
    record = {"what": "log-probabilities of the choices of multiple-choice items, from text to scores, in float32: the same model object and tokenizer on both sides, the same items part by part in turn; ours with the products that `torch` chooses, as the harness has them, and with those of oneDNN, float32 too; the harness with the batch size that was fastest for it in a trial on the same shape, and on the mixed shape also with the switch that gives it those products too",
              "model": MODEL, "words": SHAPES, "examples": EXAMPLES, "threads": THREADS, "batch_tokens": BATCH_TOKENS, "machine": processor(),
              "versions": {p: version(p).partition("+")[0] for p in ("torch", "transformers", "lm_eval", "accelerate")} | {"python": platform.python_version()}, "rows": rows}
    if shapes: print(json.dumps(rows, indent=1)); return       # a part is no record
    save_json(record, root()/"reports/benchmarks/frenchbench.json", digits=6)


if __name__ == "__main__": main(sys.argv[1:])
