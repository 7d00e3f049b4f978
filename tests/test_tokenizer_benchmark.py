"""benchmarks/tokenizer.py: its comparisons on toys, and what they refuse."""
import pytest

from croissant.tokenizer import toy_tokenizer
from croissant.toy import toy_documents


@pytest.fixture(scope="module")
def script(load_benchmark): return load_benchmark("tokenizer")


@pytest.fixture
def saved(script, tmp_path, monkeypatch):
    "Toy documents, one of them with a real ▁, and one repeat; records are caught instead of written."
    caught = {}
    documents = [d for d in toy_documents(120) if "text" in d]
    for name, value in {"REPEATS": dict.fromkeys(script.REPEATS, 1), "ROWS": 7, "VOCABULARY": 700, "PLACEHOLDERS": 3, "TOKENIZER": toy_tokenizer().save(tmp_path/"tokenizer")}.items(): monkeypatch.setattr(script, name, value)
    monkeypatch.setattr(script, "sample", lambda megabytes: [*documents, {**documents[0], "text": "a▁b"}])
    monkeypatch.setattr(script, "save", lambda name, what, packages, rows, **more: caught.update({name: {"rows": rows, **more}}))
    return caught


def test_encoding_of_toys(script, saved, tmp_path):
    "Nine rows of equal ids, the document with ▁ counted out."
    script.encoding(tmp_path/"work")
    rows, texts = saved["tokenizer_encoding"]["rows"], [d["text"] for d in script.sample(1)[:-1]]
    assert [(r["work"], r["cache"]) for r in rows] == [(w, c) for w, c in (("jsonl to shard", "cold"), ("text to ids", "cold"), ("text to ids", "warm")) for _ in script.PEERS]
    assert [r["peer"].partition(",")[0] for r in rows] == 3 * list(script.PEERS) and saved["tokenizer_encoding"]["left_out"] == 1
    def tokens(of): return sum(len(toy_tokenizer().encode(t)) for t in of)
    assert {r["tokens"] for r in rows[:3]} == {tokens(texts)} and {r["tokens"] for r in rows[3:]} == {tokens(texts[::3])} and saved["tokenizer_encoding"]["documents"] == len(texts)


@pytest.mark.parametrize("work", ["jsonl to shard", "text to ids"])
def test_another_id_is_noticed(script, saved, tmp_path, monkeypatch, work):
    "One id of one document changed on one side, and the comparison gives no number."
    plain = script.encoders

    def wrong(folder):
        sides = plain(folder)
        return sides | {"tokenizers": lambda texts: [ids if t != last else [*ids[:-1], ids[-1] ^ 1] for t, ids in zip(texts, sides["tokenizers"](texts))]}

    last = script.sample(1)[-2]["text"]
    monkeypatch.setattr(script, "encoders", wrong)
    if work == "text to ids": monkeypatch.setattr(script, "to_shards", lambda *_: [])
    with pytest.raises(AssertionError, match="tokenizers gave different ids"): script.encoding(tmp_path/"work")
    assert not saved


def test_cold_encoders_are_used_once(script, saved):
    cold, warm = script.Stock(script.TOKENIZER, True, 1), script.Stock(script.TOKENIZER, False, 1)
    assert cold.take("ours") is not cold.take("ours") and warm.take("ours") is warm.take("ours")
    with pytest.raises(IndexError): cold.take("ours")      # a warming turn and one repeat


def test_chunks_hold_every_text_in_order(script):
    assert script.chunks(["é" * 3, "ab", "c", "d" * 50, "e"], 8) == [["ééé", "ab"], ["c"], ["d" * 50], ["e"]]


def test_training_of_toys(script, saved, tmp_path):
    "Our settings and those that the benchmark writes out for sentencepiece give the same pieces and scores; another setting would not."
    script.training(tmp_path/"work")
    rows = saved["tokenizer_training"]["rows"]
    assert rows[0]["same_pieces"] and "same_pieces" not in rows[1] and saved["tokenizer_training"]["vocab_size"] == 700


def test_other_settings_are_noticed(script, saved, tmp_path, monkeypatch):
    plain = script.settings()
    monkeypatch.setattr(script, "settings", lambda: plain | {"split_digits": False})
    with pytest.raises(AssertionError, match="different pieces"): script.training(tmp_path/"work")
