"""Benchmarks: what they record is complete, and their two sides do the same work on toys."""
import json

import pytest

from croissant.params import root
from croissant.tokenizer import toy_tokenizer
from croissant.toy import toy_documents

RECORDS = sorted(p for p in (root()/"reports/benchmarks").glob("*.json") if p.stem not in ("agreement", "build", "streaming"))   # these have no peer


@pytest.fixture(scope="module")
def corpus(load_benchmark):
    yield load_benchmark("corpus")
    from loguru import logger
    logger.enable("datatrove")   # the comparison of screens silences it


@pytest.fixture
def saved(corpus, tmp_path, monkeypatch):
    "Toy documents and one repeat; records are caught instead of written."
    caught = {}
    documents = [d for d in toy_documents(400) if "text" in d]
    monkeypatch.setattr(corpus, "REPEATS", 1)
    monkeypatch.setattr(corpus, "TOKENIZER", toy_tokenizer().save(tmp_path/"tokenizer"))
    monkeypatch.setattr(corpus, "sample", lambda megabytes, languages=("fr", "en", "code"): [d for d in documents if d["language"] in languages])
    monkeypatch.setattr(corpus, "save", lambda name, what, packages, rows, **more: caught.update({name: {"rows": rows, **more}}))
    return caught


@pytest.mark.parametrize("path", RECORDS, ids=lambda p: p.stem)
def test_record_is_complete(path):
    record = json.loads(path.read_text(encoding="utf-8"))
    assert record["what"] and record["machine"] and record["threads"] >= 1 and record["versions"] and record["rows"]
    for row in record["rows"]:
        assert row["peer"] and row["repeats"] >= 3 and 0 < row["ratio_low"] <= row["ratio"] <= row["ratio_high"]


def test_the_build_of_the_corpus_is_on_record():
    record = json.loads((root()/"reports/benchmarks/build.json").read_text(encoding="utf-8"))
    assert record["machine"] and record["workers"] >= 1 and record["tier"] in ("lab", "full") and record["peak_mib"] < 2048
    assert record["megabytes_per_second"] == pytest.approx(record["megabytes_written"] / record["seconds"], rel=.01)


def test_encoding_a_gigabyte_is_on_record():
    record = json.loads((root()/"reports/benchmarks/streaming.json").read_text(encoding="utf-8"))
    assert record["what"] and record["machine"] and record["threads"] >= 1 and record["bytes"] >= 1e9 and record["peak_mib"] < 300
    assert len(record["rows"]) == 2 and all(r["peak_mib"] < 300 and r["bytes"] >= 3e8 for r in record["rows"])
    for r in (record, *record["rows"]): assert r["megabytes_per_second"] == pytest.approx(r["bytes"] / 1e6 / r["seconds"], rel=.01)


def test_a_row_is_made_of_paired_turns(corpus):
    "By hand: turns of 2 and 4 seconds against 6 and 20 give 3 and 5 times; speeds are of the median turn."
    row = corpus.compared({"ours": [(2, 1), (4, 1), (3, 1)], "slow": [(6, 3), (20, 8), (12, 4)]}, "slow", 24e6)
    assert (row["ratio"], row["ratio_low"], row["ratio_high"], row["cpu_ratio"], row["repeats"]) == (4, 3, 5, 4, 3)
    assert (row["our_megabytes_per_second"], row["peer_megabytes_per_second"]) == (8, 2)


def test_first_turn_only_warms_up(corpus):
    calls = []
    seconds = corpus.turns(lambda: calls.append("ours"), {"peer": lambda: calls.append("peer")}, 2)
    assert calls == ["ours", "peer"] * 3 and len(seconds["ours"]) == len(seconds["peer"]) == 2


def test_near_copies_are_a_sixth_and_near(corpus):
    documents = [{"text": " ".join(f"mot{i * 1000 + j}" for j in range(200))} for i in range(50)]
    texts = corpus.with_near_copies(documents)
    assert texts == corpus.with_near_copies(documents) and len(texts) == 60
    originals = {d["text"] for d in documents}
    copies = [t for t in texts if t not in originals]
    assert len(copies) == 10
    for copy in copies: assert max(sum(a == b for a, b in zip(copy.split(" "), o.split(" "))) for o in originals) >= 196


def test_exact_rule_by_hand(corpus):
    "Pairs of words: {ab bc cd} and {ab bc ce} share two of four; the third text resembles neither."
    texts = ["a b c d", "a b c e", "x y z", "a b c d"]
    assert corpus.resembling(texts, 2, .5) == {1, 3} and corpus.resembling(texts, 2, .51) == {3}


def test_shards_and_datasets_map_give_the_same_ids(corpus, saved, tmp_path):
    "The comparison itself refuses different ids; here it runs on toys."
    corpus.shards(tmp_path/"work")
    row = saved["shards"]["rows"][0]
    assert row["same_ids"] and row["tokens"] == sum(len(toy_tokenizer().encode(d["text"])) + 2 for d in corpus.sample(1))


def test_near_duplicates_of_toys(corpus, saved, tmp_path, monkeypatch):
    pytest.importorskip("datasketch", reason="a peer of requirements-bench.lock")
    texts = [f"{' '.join(f'mot{i * 1000 + j}' for j in range(80))}" for i in range(20)]
    monkeypatch.setattr(corpus, "with_near_copies", lambda documents: texts + texts[:5])
    corpus.near_duplicates(tmp_path/"work")
    row = saved["near_duplicates"]["rows"][0]
    assert (row["flagged_by_us"], row["flagged_by_peer"], row["flagged_by_both"], row["agreement"]) == (5, 5, 5, 1)
    assert row["flagged_exactly"] == 5 and row["recall_of_us"] == row["precision_of_us"] == row["recall_of_peer"] == row["precision_of_peer"] == 1


def test_screening_of_toys(corpus, saved, tmp_path):
    "Our screen keeps the same inside datatrove as outside; the comparison itself refuses a difference."
    pytest.importorskip("spacy", reason="a peer of requirements-bench.lock")
    corpus.screening(tmp_path/"work")
    rows = saved["screening"]["rows"]
    assert rows[1]["kept_by_us"] == rows[1]["kept_by_peer"] > 0


def test_interval_of_a_median(corpus):
    "The order statistics between which the median lies with 95 %: the second of nine, the fourth of fifteen; of eight ratios or fewer the lowest and the highest."
    assert [corpus.outer(n) for n in (3, 8, 9, 11, 12, 15)] == [0, 0, 1, 1, 2, 3]
