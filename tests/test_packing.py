"""Shards: same bytes twice, damage named, batches a pure function of step and seed."""
import time

import numpy as np
import pytest

from croissant.corpus import write_corpus
from croissant.packing import PARTS, Shards, batch, pack_corpus, pack_part, render, toy_shards, windows
from croissant.params import BadInput
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


def test_batch_size_of_encoding_changes_nothing(tmp_path):
    docs = toy_documents(100)
    a, b = (pack_part(iter(docs), toy_tokenizer(), tmp_path/f"{n}.bin", n) for n in (3, 256))
    assert a == b and a["bytes"] == sum(len(render(d).encode()) for d in docs)


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
