"""The evaluation's promises: crossed pairs, honest floors, intervals that cover, and tables that are refused by line."""
import json
import math
import random
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch

from croissant import stage, trainer
from croissant.checkpoint import save_model
from croissant.frenchbench.floors import SEEDS, Trigram, random_accuracy, random_network, trigram_of
from croissant.frenchbench.metrics import Z, accuracy, bootstrap, bpb, compare, mean_accuracy, wilson
from croissant.frenchbench.scoring import bits_per_byte, draw, log_probs, read_pairs, score_file, score_pairs, sequence_losses, shortened
from croissant.frenchbench.suites import (ACTIONS, ADJECTIVES, FEMININE, FRENCH, MASCULINE, SETS, SUBJECTS, VERBS, VOWELS, check_crossed, contrast,
                                          minimal_pairs)
from croissant.mixture import weights
from croissant.model import PRESETS, toy_model
from croissant.packing import Shards, batch, toy_shards
from croissant.params import BadInput
from croissant.tokenizer import toy_tokenizer
from croissant.toy import toy_documents, toy_texts


def words(sentence: str) -> list[str]:
    return sentence.replace("'", "' ").split()


class Unigram:
    "Prices a token by itself: blind to context."
    def __init__(self, vocab_size: int, seed: int):
        self.nats = torch.rand(vocab_size, generator=torch.Generator().manual_seed(seed))

    def token_losses(self, input_ids, targets): return self.nats[targets]


class Words:
    "A tokenizer with one id a word, so that no word is cut differently in another place."
    bos_id = 0

    def __init__(self): self.ids: dict[str, int] = {}
    def encode_batch(self, texts): return [[self.ids.setdefault(w, len(self.ids) + 1) for w in words(t)] for t in texts]


# ---- the sets

@pytest.mark.parametrize("name", SETS)
def test_sets_are_crossed_and_stable(name):
    pairs = minimal_pairs(name, 800)
    assert check_crossed(pairs) == 400 and len({p["id"] for p in pairs}) == 800
    assert pairs == minimal_pairs(name, 800) and pairs != minimal_pairs(name, 800, seed=1)
    assert {p["id"] for p in minimal_pairs(name, 200)} <= {p["id"] for p in pairs}   # a smaller draw is part of a larger one
    assert all(p["set"] == name and p["id"].startswith(p["group"]) and p["good"][-1] == "." for p in pairs)


@pytest.mark.parametrize("name", SETS)
@pytest.mark.parametrize("seed", range(3))
def test_a_unigram_scores_exactly_half(name, seed):
    rows = score_pairs(Unigram(5000, seed), Words(), minimal_pairs(name, 800, seed))
    right, ties = sum(r["correct"] for r in rows), sum(r["log_prob_good"] == r["log_prob_bad"] for r in rows)
    assert right == (len(rows) - ties) / 2 and ties <= 4


@pytest.mark.parametrize("name", SETS)
def test_lengths_and_frequencies_tell_nothing(name):
    pairs = minimal_pairs(name, 800)
    counts = Counter(w for p in pairs for w in words(p["good"]))
    for judge in (lambda w: len(w), lambda w: -len(w), lambda w: counts[w], lambda w: random.Random(w).random()):
        signs = [judge(g) - judge(b) for g, b in map(contrast, pairs)]
        assert sum(s > 0 for s in signs) == sum(s < 0 for s in signs)
    assert sum(len(p["good"]) - len(p["bad"]) for p in pairs) == 0


def test_genders_are_balanced_and_nouns_are_safe():
    sides = Counter(p["id"].rsplit("/", 1)[1] for p in minimal_pairs("gender", 1000))
    assert sides == {"m": 500, "f": 500}
    assert not set(MASCULINE) & set(FEMININE) and len(set(MASCULINE)) == len(MASCULINE) and len(set(FEMININE)) == len(FEMININE)
    assert not [w for w in MASCULINE + FEMININE if w[0] in VOWELS + "h"]
    two_genders = {"livre", "tour", "mode", "poste", "voile", "manche", "mémoire", "page", "critique", "garde", "vase", "somme", "greffe", "solde", "part", "cadre",
                   "juge", "ministre", "élève", "maire", "moule", "pendule", "poêle", "physique", "politique", "guide", "aide", "trompette", "mort", "relâche", "parallèle"}
    assert not (set(MASCULINE) | set(FEMININE)) & two_genders


def test_word_lists_have_their_forms():
    assert all(len(s) == 3 and s[0] in "mf" for s in SUBJECTS) and all(len(a) == 3 and a[0] != a[1] for a in ACTIONS)
    assert all(len(set(a.split(":"))) == 2 for a in ADJECTIVES)
    for forms, rest in VERBS:
        je, tu, il, nous, vous, ils = forms.split()
        assert rest and (nous.endswith("ons") or nous == "sommes") and (vous.endswith("ez") or vous in ("êtes", "faites", "dites"))
        assert ils.endswith("nt") and tu[-1] in "sx" and il[-1] in "etadt"


def test_elision():
    sentences = [p[k] for name in FRENCH for p in minimal_pairs(name, 1000) for k in ("good", "bad")]
    for s in sentences:
        first, second = words(s)[:2]
        if first == "Je": assert second[0] not in VOWELS + "h", s
        if first in ("J'", "L'", "Cet"): assert second[0] in VOWELS + "h", s      # our only h is mute: habiter
        if first in ("Le", "La", "Ce", "Mon", "Ma"): assert second[0] not in VOWELS, s
    assert any(s.startswith("J'") for s in sentences) and any(s.startswith("L'") for s in sentences)


def test_sets_refuse():
    for name, n in (("accord", 10), ("number", 3), ("number", 0), ("person", 10**6)):
        with pytest.raises(BadInput): minimal_pairs(name, n)
    with pytest.raises(BadInput, match="exactly one word"): contrast({"good": "Le chat dort.", "bad": "La chatte dort."})
    pair = minimal_pairs("number", 2)
    with pytest.raises(BadInput, match="twice"): check_crossed(pair + pair)


# ---- metrics

def test_wilson_covers():
    r = np.random.default_rng(0)
    for p in (.5, .9):
        inside = [low <= p <= high for low, high in (wilson(int(k), 100) for k in r.binomial(100, p, 2000))]
        assert .93 < np.mean(inside) < .975
    assert wilson(0, 5)[0] == 0 and wilson(5, 5)[1] == 1
    for bad in ((6, 5), (0, 0), (-1, 5)):
        with pytest.raises(BadInput): wilson(*bad)


def test_bootstrap_agrees_with_theory_and_repeats():
    coin = np.tile([1., 0., 0., 0.], 250)
    low, high = bootstrap(coin, np.ones(1000))
    assert abs((high - low) / 2 - Z * math.sqrt(.1875 / 1000)) < .004
    assert (low, high) == bootstrap(coin, np.ones(1000)) and (low, high) != bootstrap(coin, np.ones(1000), seed=1)
    with pytest.raises(BadInput): bootstrap([], [])
    with pytest.raises(BadInput): bpb([1.], [0])


def test_mean_counts_groups_not_items():
    hits, groups = {"a": np.tile([1, 1, 0, 0], 50)}, {"a": [str(i // 2) for i in range(200)]}
    wide = mean_accuracy(hits, groups)["interval"]
    narrow = mean_accuracy(hits, {"a": [str(i) for i in range(200)]})["interval"]
    assert wide[1] - wide[0] > 1.3 * (narrow[1] - narrow[0])       # siblings that agree are one witness
    assert accuracy([1, 0], chance=.5)["floors"] == {"chance": .5}


def test_sign_test_is_mcnemar():
    verdict = compare([1] * 15 + [0] * 6 + [1] * 79, [0] * 15 + [1] * 6 + [1] * 79)
    by_hand = 2 * sum(math.comb(21, k) for k in range(7)) / 2**21
    assert verdict["p"] == by_hand and (verdict["wins"], verdict["losses"], verdict["difference"]) == (15, 6, .09)
    assert verdict["interval"][0] < .09 < verdict["interval"][1]


# ---- scoring

def test_scores_equal_transformers_and_ignore_the_batch(tmp_path):
    transformers = pytest.importorskip("transformers")
    tokenizer = toy_tokenizer()
    model = toy_model(tokenizer.vocab_size, seed=5)
    with torch.no_grad():
        for p in model.parameters(): p.mul_(3)      # far from uniform
    texts = [p["good"] for p in minimal_pairs("number", 40)] + ["A"]
    ours = log_probs(model, tokenizer, texts)
    peer = transformers.AutoModelForCausalLM.from_pretrained(save_model(model, tokenizer, tmp_path/"m"))
    for t, lp in zip(texts, ours):
        ids = torch.tensor([tokenizer.encode(t, bos=True)])
        with torch.no_grad(): logp = peer(ids).logits.log_softmax(-1)
        assert abs(logp[0, :-1].gather(-1, ids[0, 1:, None]).sum().item() - lp) < 1e-3
    for budget in (1, 50, 10**6): assert np.allclose(ours, log_probs(model, tokenizer, texts, budget), atol=1e-3)
    order = np.random.default_rng(0).permutation(len(texts))
    assert np.allclose(ours[order], log_probs(model, tokenizer, [texts[i] for i in order]), atol=1e-3)


def test_every_token_is_paid_once():
    tokenizer, texts = toy_tokenizer(), toy_texts("fr")[:30]
    model = Unigram(tokenizer.vocab_size, 0)
    want = [float(model.nats[tokenizer.encode(t)].double().sum()) for t in texts]
    for context in (1, 5, 64, 10**4):
        nats, sizes = bits_per_byte(model, tokenizer, texts, context)
        assert np.allclose(nats, want) and list(sizes) == [len(t.encode()) for t in texts]


def test_end_marks_are_not_paid_for():
    "The convention of 62: pieces of the text are targets, the marks never; so a stream has as many as its documents."
    tokenizer, texts = toy_tokenizer(), toy_texts("fr")[:10]

    class Marks:
        "Every piece is free, both marks are dear."
        def token_losses(self, input_ids, targets): return 1000. * ((targets == tokenizer.eos_id) | (targets == tokenizer.bos_id))

    for context in (3, 512): assert bits_per_byte(Marks(), tokenizer, texts, context)[0].sum() == 0


def test_a_draw_is_spread_over_the_sources():
    "Also where the id decides the split, so that documents without a group have the smallest ids."
    held = [{"id": f"{i:064x}", "source": "single"} for i in range(100)] + [{"id": f"{16**60 * (i + 1):064x}", "source": "grouped"} for i in range(300)]
    assert {d["source"] for d in sorted(held, key=lambda d: d["id"])[:60]} == {"single"}       # what a draw by id would give
    for seed in range(5):
        chosen = draw(held, 60, seed)
        assert 30 <= sum(d["source"] == "grouped" for d in chosen) <= 57 and len({d["id"] for d in chosen}) == 60   # 45 expected
        assert chosen == draw(held[::-1], 60, seed) and chosen[:20] == draw(held, 20, seed)
    assert draw(held, 60, 0) != draw(held, 60, 1) and len(draw(toy_documents(30), 1000)) == len(toy_documents(30))


def test_empty_texts_are_refused():
    tokenizer, model = toy_tokenizer(), Unigram(600, 0)
    with pytest.raises(BadInput, match="empty"): log_probs(model, tokenizer, ["Ça va.", ""])
    with pytest.raises(BadInput, match="document 1: empty"): bits_per_byte(model, tokenizer, ["Ça va.", ""])
    assert sequence_losses(model, []).shape == (0,) and log_probs(model, tokenizer, []).shape == (0,)
    assert [shortened("œuf", n) for n in range(5)] == ["", "", "œ", "œu", "œuf"]


@pytest.mark.parametrize("content, said", [
    (b"good\tbad\n", "no rows"), (b"", "line 1: no column good or bad"), (b"bon\tbad\nx\ty\n", "line 1: no column good"),
    (b"good\tbad\na\tb\nun seul\n", "line 3: 1 cells"), (b"good\tbad\na\tb\tc\n", "line 2: 3 cells"), (b"good\tbad\n \tb\n", "line 2: the cell 'good' is empty"),
    ("good\tbad\na\tb\nété\tb\n".encode("latin-1"), "line 3: not UTF-8"), (b"good\tbad\na\tb\n\nc\td\n", "line 3: 1 cells")])
def test_bad_tables_are_refused_by_line(tmp_path, content, said):
    (tmp_path/"paires.tsv").write_bytes(content)
    with pytest.raises(BadInput, match=said): read_pairs(tmp_path/"paires.tsv")


def test_good_tables(tmp_path):
    path = tmp_path/"paires.tsv"
    path.write_bytes("\ufeffid\tgood\tbad\r\n1\tIl dit « oui ».\tIl dis \"oui\".\r\n".encode())    # Windows line ends, a byte-order mark, quotes
    assert read_pairs(path) == [{"id": "1", "good": "Il dit « oui ».", "bad": "Il dis \"oui\"."}]
    tokenizer = toy_tokenizer()
    model = toy_model(tokenizer.vocab_size)
    row, = score_file(save_model(model, tokenizer, tmp_path/"m"), path)
    assert np.isclose(row["log_prob_good"], log_probs(model, tokenizer, [row["good"]])[0], atol=1e-3) and row["id"] == "1"
    with pytest.raises(BadInput, match="no such file"): score_file(tmp_path/"m", tmp_path/"rien.tsv")


# ---- floors

def test_trigram_is_a_distribution_and_learns_order():
    stream = np.random.default_rng(0).integers(0, 20, 3000)
    stream[2::3] = stream[1::3]                                        # a third of the tokens repeat the one before
    trigram, every = Trigram(stream, 25), np.arange(25)
    for u, v in ((3, 4), (24, 23), (int(stream[0]), int(stream[1]))):
        assert np.isclose(trigram.probabilities(np.full(25, u), np.full(25, v), every).sum(), 1)
    assert trigram.probabilities(every, every, every).min() > 0       # nothing is impossible
    ids = torch.tensor([[0, 5, 5, 7], [0, 9, 8, 7]])
    losses = trigram.token_losses(ids[:, :-1], ids[:, 1:])
    assert losses.shape == (2, 3) and losses.dtype == torch.float32 and torch.isfinite(losses).all()


def test_windows_are_counted_apart():
    rows = np.random.default_rng(1).integers(0, 9, (40, 12))
    apart, joined = Trigram(rows, 9), Trigram(rows.ravel(), 9)
    assert apart.three.counts.sum() == 40 * 10 and joined.three.counts.sum() == 40 * 12 - 2
    one = Trigram(rows[0], 9)
    assert np.array_equal(one.three.keys, Trigram(rows[:1], 9).three.keys)
    for empty in (np.zeros((0, 5), int), np.zeros((5, 2), int)):
        with pytest.raises(BadInput, match="too few"): Trigram(empty, 9)


@pytest.mark.parametrize("mixture", ["paper", "natural"])
def test_the_trigram_counts_what_the_network_reads(mixture, tmp_path, monkeypatch):
    "The windows are recorded inside a training run, and counted by hand."
    tokenizer, read = toy_tokenizer(), []
    settings = {"batch_size": 4, "seq_len": 16, "seed": 911}
    monkeypatch.setattr("croissant.order.batch", lambda *a: read.append(batch(*a)) or read[-1])
    shape = replace(PRESETS["toy"], vocab_size=tokenizer.vocab_size)
    trainer.train(shape, toy_shards(), tokenizer.save(tmp_path/"tokenizer"), trainer.TrainConfig(max_steps=5, mixture=mixture, eval_tokens=100, **settings), tmp_path/"run", progress=False)
    assert len(read) == 5
    triples = Counter(tuple(w[i:i + 3]) for rows in read for w in rows.tolist() for i in range(15))
    shards = Shards(toy_shards(), "train", tokenizer)
    floor = trigram_of(shards, tokenizer, trainer.mixture_shares(mixture, shards), steps=5, **settings)
    V = tokenizer.vocab_size
    assert dict(zip(floor.three.keys.tolist(), floor.three.counts.tolist())) == {(u * V + v) * V + w: c for (u, v, w), c in triples.items()}
    other = trigram_of(shards, tokenizer, trainer.mixture_shares(mixture, shards), steps=5, **settings | {"seed": 912})
    assert not np.array_equal(other.three.keys, floor.three.keys)


def test_floors_on_the_toy_corpus():
    tokenizer, shards = toy_tokenizer(), Shards(toy_shards(), "train", toy_tokenizer())
    model, run = toy_model(tokenizer.vocab_size), {"batch_size": 8, "seq_len": 64, "seed": 911}
    trigram, small = (trigram_of(shards, tokenizer, weights("paper"), steps, **run) for steps in (60, 3))
    texts = toy_texts("fr", seed=9)[:30]
    good, weak, *untrained = (bpb(*bits_per_byte(t, tokenizer, texts, 128))["value"] for t in (trigram, small, *(random_network(model.config, s) for s in SEEDS)))
    assert good < weak < min(untrained) and max(untrained) / min(untrained) < 1.02    # one network is enough for bits
    pairs = minimal_pairs("number", 100)
    alone = [np.mean([r["correct"] for r in score_pairs(random_network(model.config, s), tokenizer, pairs)]) for s in SEEDS]
    assert np.isclose(random_accuracy(model.config, tokenizer, pairs), np.mean(alone)) and abs(np.mean(alone) - .5) < .15
    for tokens, size in (([1, 2], 9), ([1, 2, 9], 9)):
        with pytest.raises(BadInput): Trigram(np.array(tokens), size)
    with pytest.raises(BadInput, match="0 steps"): trigram_of(shards, tokenizer, weights("paper"), 0, **run)
    with pytest.raises(BadInput, match="too few for seq_len"): trigram_of(shards, tokenizer, weights("paper"), 1, 8, 10**6, 911)


@pytest.mark.parametrize("given, made, named", [({"train_steps": "21"}, {}, "tokens_seen = 10240, not 10752"), ({"train_seed": "7"}, {}, "train.seed = 911, not 7"), ({"train_mixture": "equal"}, {}, "train.mixture"),
    ({"train_batch_size": "4"}, {}, "train.batch_size"), ({}, {"train.sampling": "without_replacement"}, "train.sampling"), ({}, {"train.tail_mixture": "fr=1"}, "train.tail_mixture = 'fr=1'"), ({}, {"train_shards": "other"}, "train_shards"), ({}, {"tokens_seen": 64}, "tokens_seen = 64")])
def test_the_stage_refuses_settings_of_another_run(given, made, named, tmp_path, capsys):
    run = {"train.max_steps": 20, "train.batch_size": 8, "train.seq_len": 64, "train.mixture": "paper", "train.seed": 911, "train_shards": Shards(toy_shards(), "train").fingerprint} | made
    model = save_model(toy_model(toy_tokenizer().vocab_size), toy_tokenizer(), tmp_path/"m", step=20, tokens_seen=run.pop("tokens_seen", 20*8*64), run=run)
    words = [w for k, v in given.items() for w in ("-p", k, v)]
    assert stage.main(["nbs/stages/50_evaluate.ipynb", str(tmp_path/"nb.ipynb"), "-q", "-p", "checkpoint", str(model), "-p", "out_reports", str(tmp_path/"reports"), *words]) == 2
    assert named in capsys.readouterr().err and not (tmp_path/"reports").exists()


def test_the_stage_takes_a_run_that_max_tokens_shortened(tmp_path):
    "What was read decides, not how long the run could have been."
    run = {"train.max_steps": 100, "train.max_tokens": 20*8*64, "train.batch_size": 8, "train.seq_len": 64, "train.mixture": "paper", "train.seed": 911, "train_shards": Shards(toy_shards(), "train").fingerprint}
    model = save_model(toy_model(toy_tokenizer().vocab_size), toy_tokenizer(), tmp_path/"m", step=20, tokens_seen=20*8*64, run=run)
    words = [w for k, v in {"checkpoint": model, "out_reports": tmp_path/"reports", "pairs": 4, "documents": 1}.items() for w in ("-p", k, str(v))]
    assert stage.main(["nbs/stages/50_evaluate.ipynb", str(tmp_path/"nb.ipynb"), "-q", *words]) == 0
    found = json.loads((tmp_path/"reports/metrics/minimal_pairs.json").read_text())["metrics"]
    assert found["trigram_tokens"]["value"] == 20*8*64 and found["number"]["n"] == 4


def test_parts_of_one_text_are_drawn_together():
    nats, sizes = [10., 30., 10., 30.] * 8, [20] * 32
    alone, together = bpb(nats, sizes), bpb(nats, sizes, groups=[f"{i % 2}/{i // 8}" for i in range(32)])
    assert alone["value"] == together["value"] and alone["n"] == together["n"] == 32
    width = lambda m: m["interval"][1] - m["interval"][0]
    assert width(together) > width(alone)                                   # copies of one witness are one witness
    assert bpb(nats, sizes, groups=[str(i) for i in range(32)])["interval"] == pytest.approx(alone["interval"], abs=.05)
