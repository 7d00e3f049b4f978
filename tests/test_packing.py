"""Shards: same bytes twice, damage named, batches a pure function of step and seed."""
import time
import tracemalloc

import numpy as np
import pytest
import torch

from croissant.corpus import write_corpus
from croissant.packing import PARTS, Shards, _chunks, batch, count_by_source, draw, pack_corpus, pack_part, render, shuffled, tokens_seen, toy_shards, windows
from croissant.params import BadInput
from croissant.mixture import sampler_weights
from croissant.provenance import check_manifest, load_json, save_json, sha256, write_manifest
from croissant.tokenizer import Tokenizer, toy_tokenizer, train_tokenizer
from croissant.toy import toy_documents, toy_texts

W = {"fr": .5, "en": .5}


@pytest.fixture
def packed(tmp_path):
    write_corpus(toy_documents(), tmp_path/"corpus", validation_percent=20)
    pack_corpus(tmp_path/"corpus", toy_tokenizer(), tmp_path/"shards")
    return tmp_path/"shards"


def test_same_bytes_twice_and_every_document_comes_back(packed, tmp_path):
    rows = pack_corpus(tmp_path/"corpus", toy_tokenizer(), tmp_path/"again")
    assert sha256(packed) == sha256(tmp_path/"again") and check_manifest(packed)["tokenizer"] == toy_tokenizer().fingerprint
    tok, seen = toy_tokenizer(), []
    for split in ("train", "validation"):
        shards = Shards(packed, split, tok)
        shards.check()
        for part in shards.parts:
            z = shards.tokens(part).tolist()
            seen += [tok.decode(z[a:b]) for a, b in zip([i for i, x in enumerate(z) if x == 1], [i for i, x in enumerate(z) if x == 2])]
            assert shards.num_tokens(part) == len(z) == next(r["tokens"] for r in rows if (r["split"], r["part"]) == (split, part))
    tests = {d for p in PARTS for d in (tmp_path/"corpus"/"test"/f"{p}.jsonl").read_text().splitlines()}
    assert len(seen) + len(tests) == len(toy_documents()) and set(seen) <= {render(d) for d in toy_documents()}


@pytest.mark.parametrize("chunk_bytes", [1, 300, 10**9])
def test_chunks_of_encoding_change_nothing(tmp_path, chunk_bytes):
    docs, tok = toy_documents(100), toy_tokenizer()
    facts = pack_part(iter(docs), tok, tmp_path/"a.bin", chunk_bytes)
    wanted = [i for d in docs for i in tok.encode(render(d), bos=True, eos=True)]
    assert np.fromfile(tmp_path/"a.bin", "<u2").tolist() == wanted
    assert facts["bytes"] == sum(len(render(d).encode()) for d in docs) and facts["tokens"] == len(wanted)


def test_chunks_are_cut_by_bytes_not_by_documents():
    chunks = list(_chunks([{"text": "é" * n} for n in (1, 2, 9, 1, 1, 1)], limit=6))
    assert [sizes for _, _, sizes in chunks] == [[2, 4], [18], [2, 2, 2]]     # a long document alone, short ones together


def test_memory_is_bounded_by_the_chunk(tmp_path):
    "A hundred times the chunk streams through a few chunks' worth of Python objects."
    pack_part([{"text": "un mot"}], toy_tokenizer(), tmp_path/"warm.bin")
    tracemalloc.start()
    facts = pack_part(({"text": "le chat dort " * 80} for _ in range(20_000)), toy_tokenizer(), tmp_path/"a.bin", chunk_bytes=200_000)
    peak = tracemalloc.get_traced_memory()[1]; tracemalloc.stop()
    assert facts["bytes"] > 20_000_000 and peak < 6_000_000


def test_documents_without_text_keep_their_marks(tmp_path):
    pack_part([{"text": ""}, {"text": "a"}, {"text": ""}], toy_tokenizer(), tmp_path/"a.bin")
    assert np.fromfile(tmp_path/"a.bin", "<u2").tolist() == [1, 2, 1, *toy_tokenizer().encode("a"), 2, 1, 2]
    assert pack_part([], toy_tokenizer(), tmp_path/"b.bin")["tokens"] == (tmp_path/"b.bin").stat().st_size == 0


@pytest.mark.parametrize("digit, direction", [(d, "en>fr" if int(d, 16) % 2 == 0 else "fr>en") for d in "0123456789abcdef"])
def test_direction_is_the_one_that_the_id_decides(digit, direction):
    pair = {"id": "7f" + digit, "fr": "Où ?", "en": "Where?"}
    assert render(pair) == render(pair | {"direction": direction}) != render(pair | {"direction": "en>fr" if direction == "fr>en" else "fr>en"})
    assert render(pair).startswith("English: Where?\nFrançais : Où ?" if direction == "en>fr" else "Français : Où ?\nEnglish: Where?")


def test_unknown_direction_is_refused():
    with pytest.raises(BadInput, match="document 7f: direction 'en-fr'"): render({"id": "7f", "fr": "Où ?", "en": "Where?", "direction": "en-fr"})


def test_counts_by_source_are_exact(tmp_path):
    tok = toy_tokenizer()
    docs = [{"text": "un", "source": "contes"}, {"text": "deux étés", "source": "lois"}, {"text": "trois", "source": "contes"}, {"text": "", "source": "contes"}]
    assert [s["source"] for s in pack_part(docs, tok, tmp_path/"train"/"fr.bin", chunk_bytes=8)["spans"]] == ["contes", "lois", "contes"]
    write_manifest(tmp_path)
    n = lambda *texts: sum(len(tok.encode(t)) + 2 for t in texts)
    assert count_by_source(Shards(tmp_path)) == [
        {"split": "train", "language": "fr", "source": "contes", "documents": 3, "bytes": 7, "tokens": n("un", "trois", "")},
        {"split": "train", "language": "fr", "source": "lois", "documents": 1, "bytes": 11, "tokens": n("deux étés")}]
    save_json({k: v for k, v in load_json(tmp_path/"train"/"fr.json").items() if k != "spans"}, tmp_path/"train"/"fr.json")
    with pytest.raises(BadInput, match="fr.json: no spans"): count_by_source(Shards(tmp_path))


def test_tokens_seen_are_those_of_the_batches(tmp_path):
    "Against a count of every single token: windows that straddle sources, and a part never drawn."
    tok = toy_tokenizer()
    for part in ("fr", "en"): pack_part([{"text": f"{part} chat " * (3 + i % 4), "source": f"s{i // 2 % 3}"} for i in range(12)], tok, tmp_path/"train"/f"{part}.bin")
    write_manifest(tmp_path)
    shards = Shards(tmp_path)
    for weights in ({"fr": .3, "en": .7}, {"en": 1.}):
        seen, counted = tokens_seen(shards, 9, 4, 8, weights, 3), {}
        offset, base = {"fr": 0, "en": 10**6}, type("Numbered", (), {"parts": shards.parts, "folder": shards.folder, "split": "train", "num_tokens": shards.num_tokens,
                        "tokens": lambda self, p: np.arange(shards.num_tokens(p)) + (10**6 if p == "en" else 0)})()
        places = np.concatenate([batch(base, step, 4, 8, weights, 3)[:, :8].ravel() for step in range(9)])
        for part in weights:
            at = offset[part]
            for span in shards.spans(part):
                key = part, span["source"]
                counted[key] = counted.get(key, 0) + int(((places >= at) & (places < at + span["tokens"])).sum())
                at += span["tokens"]
        assert seen == counted and sum(seen.values()) == 9 * 4 * 8


@pytest.mark.parametrize("cut", [1, 2, 1000])
def test_truncated_shard_is_named(packed, cut):
    path = packed/"train"/"en.bin"
    path.write_bytes(path.read_bytes()[:-cut])
    with pytest.raises(BadInput, match=r"train/en\.bin: .*truncated.*restore"): Shards(packed)


def test_flipped_bit_is_found_by_check(packed):
    path = packed/"train"/"fr.bin"
    raw = bytearray(path.read_bytes()); raw[7] ^= 1; path.write_bytes(raw)
    with pytest.raises(BadInput, match="fr.bin: SHA-256"): Shards(packed).check()


def test_unfinished_or_foreign_shards_are_refused(packed, tmp_path):
    other = train_tokenizer(toy_texts("en"), 500)
    with pytest.raises(BadInput, match="made with tokenizer"): Shards(packed, "train", other)
    pack_part(toy_documents(50), other, packed/"train"/"code.bin")
    with pytest.raises(BadInput, match="code.bin: made with tokenizer"): Shards(packed)
    side = packed/"train"/"code.json"
    for facts, message in [({"tokens": 1}, "no bytes"), (load_json(packed/"train"/"fr.json") | {"dtype": "int8"}, "dtype int8")]:
        save_json(facts, side)
        with pytest.raises(BadInput, match=message): Shards(packed)
    side.unlink()
    with pytest.raises(BadInput, match="unfinished"): Shards(packed)
    with pytest.raises(BadInput, match="no shards"): Shards(tmp_path/"absent")
    with pytest.raises(BadInput, match="no such corpus file"): pack_corpus(tmp_path/"absent", other, tmp_path/"x")
    with pytest.raises(BadInput, match="do not fit in 16 bits"): pack_part([], type("Big", (), {"vocab_size": 1 << 17, "where": "big"})(), tmp_path/"x.bin")


def test_batch_is_pure():
    a, b = Shards(toy_shards()), Shards(toy_shards())
    for step in (7, 0, 10**9): batch(a, step, 3, 8, W, 0)   # nothing is remembered
    for step in (0, 1, 31, 10**12):
        x = batch(a, step, 4, 16, W, 5)
        assert x.shape == (4, 17) and x.dtype == np.int64 and (x == batch(b, step, 4, 16, dict(reversed(W.items())), 5)).all()
    wide = batch(a, 3, 8, 16, W, 5)
    assert (np.concatenate([batch(a, 6, 4, 16, W, 5), batch(a, 7, 4, 16, W, 5)]) == wide).all()
    assert (batch(a, 3, 8, 16, W, 6) != wide).any() and (batch(a, 3, 8, 16, {"fr": 2, "en": 2}, 5) == wide).all()


def test_batch_stream_is_pinned():
    "Another NumPy or another machine must draw the same windows; the numbers were computed once."
    class Counting:
        parts, folder, split = ["fr", "en"], "counting", "train"
        def num_tokens(self, part): return 1000
        def tokens(self, part): return np.arange(1000) + 1000 * (part == "en")
    drawn = batch(Counting(), 2, 4, 1, W, 911)
    assert (drawn[:, 1] == drawn[:, 0] + 1).all() and drawn[:, 0].tolist() == [1302, 131, 1924, 1379]


@pytest.mark.parametrize("world", [1, 2, 3, 4, 6, 12])
def test_order_does_not_depend_on_the_number_of_ranks(world):
    shards = Shards(toy_shards())
    for step in (0, 41, 10**9):
        whole = batch(shards, step, 12, 8, W, 911)
        ranks = [batch(shards, world*step + r, 12 // world, 8, W, 911) for r in range(world)]
        assert (np.concatenate(ranks) == whole).all()


class Stream(torch.utils.data.Dataset):
    def __init__(self, folder): self.shards = Shards(folder)
    def __getitem__(self, step): return batch(self.shards, step, 3, 8, W, 911)


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_order_does_not_depend_on_the_number_of_workers(workers):
    "Begun at step 5, as a resumed run does."
    loader = torch.utils.data.DataLoader(Stream(toy_shards()), batch_size=None, sampler=range(5, 13), num_workers=workers)
    wanted = [batch(Shards(toy_shards()), step, 3, 8, W, 911).tolist() for step in range(5, 13)]
    assert [x.tolist() for x in loader] == wanted


def test_a_late_step_touches_no_earlier_one(monkeypatch):
    "One generator and one window a sample, at step 0 as at step 10**9: nothing is skipped over."
    keys, reads, Philox = [], [], np.random.Philox
    monkeypatch.setattr(np.random, "Philox", lambda key: keys.append(key.tolist()) or Philox(key=key))
    class Diary:
        parts, folder, split = ["fr", "en"], "diary", "train"
        def num_tokens(self, part): return 1000
        def tokens(self, part): reads.append(part); return np.arange(1000)
    for step in (0, 10**9):
        keys.clear(); reads.clear()
        batch(Diary(), step, 4, 8, W, 911)
        assert keys == [[911, 4*step + b] for b in range(4)] and len(reads) == 4


def test_sampler_of_eleven_files(tmp_path):
    "Any division works, not only ours: the paper's eleven weights draw from eleven shards in their proportions."
    weights = sampler_weights()
    facts = {"bytes": 1, "documents": 1, "dtype": "uint16", "tokenizer": "t", "tokens": 9, "sha256": ""}
    for k, split in enumerate(sorted(weights)):
        (tmp_path/"train").mkdir(exist_ok=True); (tmp_path/"train"/f"{split}.bin").write_bytes(np.full(9, k, "<u2").tobytes())
        save_json(facts, tmp_path/"train"/f"{split}.json")
    write_manifest(tmp_path)
    shards, n = Shards(tmp_path), 20_000
    assert shards.parts == sorted(weights)
    drawn = np.bincount(batch(shards, 0, n, 1, weights, 911)[:, 0], minlength=11)
    for k, split in enumerate(shards.parts): assert abs(drawn[k] - n*weights[split]) < 4.5 * (n * weights[split] * (1 - weights[split]))**.5, split


@pytest.mark.parametrize("weights", [[1.], [.2, .3, .5], [146, 2025, 1980]])
def test_draw_stays_inside(weights):
    chosen = [draw(np.cumsum(weights), 0, j)[0] for j in range(300)]
    assert set(chosen) <= set(range(len(weights))) and (len(weights) == 1 or len(set(chosen)) == len(weights))


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5, 15, 16, 17, 63, 64, 65, 1000])
def test_every_epoch_is_a_permutation(n):
    for seed in (0, 911, 2**63):
        for epoch in (0, 1, 10**9): assert sorted(shuffled(epoch*n + j, n, seed) for j in range(n)) == list(range(n))


def test_permutations_are_many_and_even():
    "All orders of three windows turn up about equally often over seeds; neighbours are torn apart in a long part."
    orders = [tuple(shuffled(j, 3, seed) for j in range(3)) for seed in range(1200)]
    counts = [orders.count(o) for o in set(orders)]
    assert len(counts) == 6 and sum((c - 200)**2 / 200 for c in counts) < 20.5          # chi-square, 5 degrees: one in a thousand
    long = np.array([shuffled(j, 4096, 0) for j in range(4096)])
    assert abs(np.corrcoef(long, np.arange(4096))[0, 1]) < 4 / 64 and (np.abs(np.diff(long)) == 1).sum() < 15


@pytest.mark.parametrize("sample, n", [(0, 0), (-1, 5)])
def test_shuffled_refuses(sample, n):
    with pytest.raises(BadInput, match="there must be a window"): shuffled(sample, n, 0)


def test_batch_reaches_both_ends_and_is_fast():
    class Tiny:
        parts, folder, split = ["fr"], "tiny", "train"
        def num_tokens(self, part): return 6
        def tokens(self, part): return np.arange(6)
    assert set(batch(Tiny(), 0, 200, 4, {"fr": 1.}, 0)[:, 0]) == {0, 1}
    shards, start = Shards(toy_shards()), time.perf_counter()
    for step in range(100): batch(shards, step, 8, 256, W, 0)
    assert (time.perf_counter() - start) / 100 < .005   # a fifth of that on a quiet machine


def test_batch_refuses(packed):
    shards = Shards(packed)
    for weights in ({}, {"fr": 0.}, {"breton": 1.}, {"fr": 1., "en": -1.}):
        with pytest.raises(BadInput, match="weights"): batch(shards, 0, 1, 8, weights, 0)
    with pytest.raises(BadInput, match="too few for seq_len"): batch(shards, 0, 1, 10**6, W, 0)
    with pytest.raises(BadInput, match="no part"): shards.num_tokens("breton")


def test_empty_part_is_allowed_until_it_is_drawn(tmp_path):
    for part in ("fr", "en"): pack_part([] if part == "en" else toy_documents(50), toy_tokenizer(), tmp_path/"train"/f"{part}.bin")
    with pytest.raises(BadInput, match="no manifest"): Shards(tmp_path)
    write_manifest(tmp_path)
    shards = Shards(tmp_path)
    assert len(shards.tokens("en")) == 0 and batch(shards, 0, 2, 8, {"fr": 1., "en": 0}, 0).shape == (2, 9)
    with pytest.raises(BadInput, match="en.bin: 0 tokens"): batch(shards, 0, 2, 8, W, 0)


@pytest.mark.parametrize("n, seq_len", [(0, 3), (1, 3), (2, 3), (8, 3), (10, 3), (7, 100), (9, 1)])
def test_windows_predict_each_token_once(n, seq_len):
    cut = list(windows(np.arange(n), seq_len))
    assert [t for x in cut for t in x[1:]] == list(range(1, n)) and all(2 <= len(x) <= seq_len + 1 for x in cut)


def test_windows_refuse_nothing_to_predict():
    with pytest.raises(BadInput, match="at least one target"): list(windows(np.arange(9), 0))


def test_toy_shards_in_a_folder_of_ones_own(tmp_path):
    assert toy_shards(tmp_path) == tmp_path and Shards(tmp_path).fingerprint == Shards(toy_shards()).fingerprint
    assert Tokenizer.load(toy_tokenizer().save(tmp_path/"t")).fingerprint == Shards(tmp_path).tokenizer
