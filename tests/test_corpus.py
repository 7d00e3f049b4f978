"""Records, filters, splits and files of the corpus, on texts small enough to check by eye."""
import hashlib
import json
from collections import Counter

import pytest
from hypothesis import given, strategies as st

from croissant.corpus import (LANGUAGES, SPLITS, clean, content, corpus_table, deduplicate, drop_repeats, dropped_table, fingerprint, make_record, read_documents, split_of,
                              write_corpus)
from croissant.params import BadInput
from croissant.provenance import check_manifest, sha256
from croissant.toy import toy_documents

LONG = "Le salarié dont le contrat est rompu reçoit une indemnité, sauf en cas de faute grave ou lourde de sa part."


def record(text, language="fr", category="legal", source="toy"):
    return make_record(text, language, category, source, "p@1", "MIT")


@given(st.text())
def test_clean_is_idempotent_and_one_line_a_line(text):
    once = clean(text)
    assert clean(once) == once and "\r" not in once and "\u2028" not in once


@pytest.mark.parametrize("text", ["« Oui\u00a0», dit-elle\u202f!", "œuf, Œdipe, ça, où, naïf, aiguë", "l’été – l'hiver…", "1\u202f000 €"])
def test_typography_survives(text): assert clean(text) == text


def test_clean_removes_what_cannot_be_seen(): assert clean("co\u00adop\u200béra\u0000tion\ufeff") == "coopération"


def test_ids_follow_from_content_alone():
    a, b = record("Un texte."), make_record("Un  texte.", "fr", "literature", "other", "q@2", "GPL")
    assert a["id"] == b["id"] == hashlib.sha256(b"Un texte.").hexdigest()
    pair = record(("Bonjour", "Hello"), "parallel")
    assert content(pair) == "Bonjour\tHello" and list(pair)[:3] == ["id", "fr", "en"]


@pytest.mark.parametrize("text, language", [("x", "de"), ("x", "parallel"), (("x", "y"), "fr")])
def test_records_of_the_wrong_shape(text, language):
    with pytest.raises(BadInput): record(text, language)


def test_code_keeps_its_indentation(): assert record("def f():\n    return  1\n", "code", "code")["text"] == "def f():\n    return  1\n"


def test_fingerprints():
    assert fingerprint("L'été !") == fingerprint("l’ÉTÉ") != fingerprint("l'ete")
    assert fingerprint("!!!") != fingerprint("???")


def test_short_and_repeated_documents_are_dropped_and_counted():
    lost = Counter()
    kept = list(deduplicate([record(LONG, category="literature"), record(LONG.upper(), category="literature", source="b"), record("Court."), record(("Oui.", "Yes."), "parallel")], dropped=lost))
    assert [r["language"] for r in kept] == ["fr", "parallel"]
    assert lost["b", "document seen before"] == 1 and lost["toy", "too short"] == 1 and lost["toy", "too short", "bytes"] == 6
    assert [r["reason"] for r in dropped_table(lost)] == ["document seen before", "too short"] and dropped_table(Counter())[0]["count"] == 0


def test_paragraphs_repeat_across_official_documents_only():
    first, second = f"Accord A\n\nArticle 1\n{LONG}", f"Accord B\n\nArticle 2\n{LONG}\n\nArticle 3\n{LONG[::-1]}"
    lost = Counter()
    kept = list(deduplicate([record(first), record(second)], dropped=lost))
    assert kept[1]["text"] == f"Accord B\n\nArticle 3\n{LONG[::-1]}" and lost["toy", "repeated paragraphs"] == 1
    assert kept[1]["id"] == hashlib.sha256(kept[1]["text"].encode()).hexdigest()
    assert len(kept) == 2 and [r["text"] for r in deduplicate([record(first, category="literature"), record(second, category="literature")])] == [first, second]


def test_a_document_that_would_keep_only_its_title_goes():
    seen = set()
    drop_repeats(f"A\n{LONG}", seen)
    assert drop_repeats(f"B\n{LONG}", seen) == ("", 1) and drop_repeats("Titre seul", seen) == ("Titre seul", 0)


def test_splits_are_stable_and_have_the_asked_size():
    ids = [hashlib.sha256(str(i).encode()).hexdigest() for i in range(20_000)]
    counts = Counter(map(split_of, ids))
    assert 150 < counts["validation"] < 250 and 150 < counts["test"] < 250
    assert {i for i in ids if split_of(i) == "validation"} <= {i for i in ids if split_of(i, 2, 1) == "validation"}
    assert split_of("0" * 64) == "validation" and split_of("f" * 64) == "train"
    with pytest.raises(BadInput, match="not hexadecimal"): split_of("kali/1")


def test_a_group_stays_on_one_side(tmp_path):
    records = [record(f"{LONG} {i}") | {"group": f"g{i % 40}"} for i in range(400)]
    write_corpus(records, tmp_path/"c", 10, 10)
    group = {r["id"]: r["group"] for r in records}
    sides = {s: {group[r["id"]] for r in read_documents(tmp_path/"c", s)} for s in SPLITS}
    assert not sides["train"] & sides["test"] and not sides["train"] & sides["validation"] and sides["test"]
    assert all("group" not in r for r in read_documents(tmp_path/"c"))


def test_the_same_records_give_the_same_bytes(tmp_path):
    for name in "ab": write_corpus(toy_documents(200), tmp_path/name, 5, 5)
    assert sha256(tmp_path/"a") == sha256(tmp_path/"b")
    check_manifest(tmp_path/"a")
    assert sum(json.loads((tmp_path/"a/manifest.json").read_text())["documents"].values()) == len(toy_documents(200))


def test_a_stopped_build_leaves_the_old_corpus(tmp_path):
    write_corpus(toy_documents(60), tmp_path/"c")
    before = sha256(tmp_path/"c")
    def broken():
        yield from toy_documents(9)
        raise BadInput("stop")
    with pytest.raises(BadInput, match="stop"): write_corpus(broken(), tmp_path/"c")
    assert sha256(tmp_path/"c") == before


def test_two_builds_at_once_do_not_meet(tmp_path):
    def slow():
        for i, r in enumerate(toy_documents(120)):
            if i == 60: write_corpus(toy_documents(30, seed=1), tmp_path/"c")   # another build of the same folder begins and ends
            yield r
    write_corpus(slow(), tmp_path/"c")
    assert sum(r["documents"] for r in corpus_table(tmp_path/"c")) == len(toy_documents(120)) and check_manifest(tmp_path/"c")
    assert [p.name for p in tmp_path.iterdir()] == ["c"]


def test_a_language_that_vanished_is_missed(tmp_path):
    write_corpus(toy_documents(60), tmp_path/"c")
    (tmp_path/"c/train/fr.jsonl").unlink()
    with pytest.raises(BadInput, match="no such corpus file"): corpus_table(tmp_path/"c")


def test_refusals(tmp_path):
    with pytest.raises(BadInput, match="an empty corpus"): write_corpus([], tmp_path/"c")
    with pytest.raises(BadInput, match="leave something to train on"): write_corpus(toy_documents(9), tmp_path/"c", 60, 40)
    with pytest.raises(BadInput, match="no such corpus file"): list(read_documents(tmp_path/"c"))
    with pytest.raises(BadInput, match="no documents"): corpus_table(tmp_path/"c")


@pytest.mark.parametrize("damage, message", [
    (b'{"id": "1", "text": "th\xe9"}\n', "line 1: not UTF-8"), (b'{"id": "1", "tex', "line 1: not valid JSON"), (b'{"id": "1"}\n', "no text field text"), (b"[1]\n", "no text field id"),
    (b'{"id": "1", "text": 3}\n', "no text field text"), (b"", "an empty file")])
def test_damaged_files_are_named(tmp_path, damage, message):
    write_corpus(toy_documents(60), tmp_path/"c")
    (tmp_path/"c/train/fr.jsonl").write_bytes(damage)
    with pytest.raises(BadInput, match=f"fr.jsonl.*{message}"): list(read_documents(tmp_path/"c"))


def test_line_separators_inside_texts_do_not_cut_records(tmp_path):
    write_corpus([make_record("a = '\x0b\u2028\x85'\n" + "#" * 80, "code", "code", "toy", "p@1", "MIT")], tmp_path/"c", 0, 0)
    assert len(list(read_documents(tmp_path/"c", "train", "code"))) == 1


def test_the_table_counts_everything(tmp_path):
    write_corpus(toy_documents(200), tmp_path/"c", 5, 5)
    rows = corpus_table(tmp_path/"c", by=("language",))
    assert [r["language"] for r in rows] == list(LANGUAGES) and sum(r["documents"] for r in rows) == len(toy_documents(200))
    fr = [d for d in toy_documents(200) if d["language"] == "fr"]
    assert rows[0]["bytes"] == sum(len(d["text"].encode()) for d in fr) and rows[0]["words"] == sum(len(d["text"].split()) for d in fr)
    pairs = [d for d in toy_documents(200) if d["language"] == "parallel"]
    assert rows[3]["bytes"] == sum(len((d["fr"] + d["en"]).encode()) for d in pairs)
