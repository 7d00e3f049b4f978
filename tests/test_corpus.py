"""Records, words, splits and files of the corpus, on texts small enough to check by eye."""
import hashlib
import json
import os
import re
import subprocess
import sys
import unicodedata
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import yaml
from hypothesis import example, given, settings, strategies as st

from croissant import corpus
from croissant.corpus import (FIELDS, LANGUAGES, SPLITS, batches, clean, content, corpus_table, make_record, read_documents, runs_inside, shingles, split_of,
                              split_words, with_text, word_hashes, words_of_all, write_corpus)
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


def test_clean_removes_what_cannot_be_seen(): assert clean("co\u00adop\u200béra\u0000tion\ufeff\ud83d") == "coopération"


def plainly_cleaned(text):
    "What `clean` does, without its short cuts."
    for c in [*range(0x09), *range(0x0e, 0x20), 0x7f, 0xad, 0x200b, 0xfeff, *range(0xd800, 0xe000)]:
        if c != 0x0d: text = text.replace(chr(c), "")
    text = unicodedata.normalize("NFC", re.sub("\r\n|[\r\x85\u2028\u2029]", "\n", text))
    return re.sub(r"\n{3,}", "\n\n", "\n".join(re.sub(r"[ \t\f\v]+", " ", line).strip() for line in text.split("\n"))).strip("\n")


odd = st.text(alphabet=st.one_of(st.characters(), st.sampled_from(list(" \t\n\r\x0b\x0c\x85\u2028\u0301\ufeffeé\u202f«"))), max_size=60)


@settings(max_examples=400)
@given(odd)
@example("a\ud800\u0301b")
def test_clean_does_what_the_plain_rules_say(text): assert clean(text) == plainly_cleaned(text)


def test_ids_follow_from_content_alone():
    a, b = record("Un texte."), make_record("Un  texte.", "fr", "literature", "other", "q@2", "GPL")
    assert a["id"] == b["id"] == hashlib.sha256(b"Un texte.").hexdigest()
    pair = record(("Bonjour", "Hello"), "parallel")
    assert content(pair) == "Bonjour\tHello" and list(pair)[:4] == ["id", "fr", "en", "direction"]
    assert tuple(k for k in FIELDS if k in pair) == tuple(pair)


def test_the_direction_of_a_pair_follows_from_its_id():
    pairs = [record((f"Oui {i}", f"Yes {i}"), "parallel") for i in range(400)]
    assert all(p["direction"] == ("en>fr" if p["id"][-1] in "02468ace" else "fr>en") for p in pairs) and 150 < sum(p["direction"] == "fr>en" for p in pairs) < 250
    assert "direction" not in record("Un texte.")


def test_another_text_makes_another_record_of_the_same_origin():
    old, pair = make_record("Un texte.", "fr", "legal", "kali", "p@1", "MIT", "kali/1"), record(("Bonjour", "Hello"), "parallel")
    assert with_text(old, "Un autre.") == make_record("Un autre.", "fr", "legal", "kali", "p@1", "MIT", "kali/1") and old["text"] == "Un texte." and old["group"] == "kali/1"
    assert with_text(old, old["text"]) == old and with_text(pair, ("Salut", "Hello")) == record(("Salut", "Hello"), "parallel")
    with pytest.raises(BadInput, match="a parallel record needs two texts"): with_text(pair, "Salut")


def test_half_a_surrogate_pair_cannot_be_written():
    with pytest.raises(BadInput, match="toy: character 5 is half of a surrogate pair; decode the file as UTF-8"): record("x = '\udc80'", "code", "code")
    assert record("Un \udc80texte.") == record("Un texte.")


@pytest.mark.parametrize("text, language", [("x", "de"), ("x", "parallel"), (("x", "y"), "fr")])
def test_records_of_the_wrong_shape(text, language):
    with pytest.raises(BadInput): record(text, language)


def test_code_keeps_its_indentation(): assert record("def f():\n    return  1\n", "code", "code")["text"] == "def f():\n    return  1\n"


def test_splits_are_stable_and_have_the_asked_size():
    ids = [hashlib.sha256(str(i).encode()).hexdigest() for i in range(20_000)]
    counts = Counter(map(split_of, ids))
    assert 150 < counts["validation"] < 250 and 150 < counts["test"] < 250
    assert {i for i in ids if split_of(i) == "validation"} <= {i for i in ids if split_of(i, 2, 1) == "validation"}
    assert split_of("0" * 64) == "validation" and split_of("f" * 64) == "train"
    with pytest.raises(BadInput, match="not hexadecimal"): split_of("kali/1")


def test_a_group_stays_on_one_side_and_is_written(tmp_path):
    records = [make_record(f"{LONG} {i}", "fr", "legal", "toy", "p@1", "MIT", f"g{i % 40}") for i in range(400)]
    write_corpus(records, tmp_path/"c", 10, 10)
    sides = {s: {r["group"] for r in read_documents(tmp_path/"c", s)} for s in SPLITS}
    assert not sides["train"] & sides["test"] and not sides["train"] & sides["validation"] and sides["test"]
    assert {r["id"]: r for s in SPLITS for r in read_documents(tmp_path/"c", s)} == {r["id"]: r for r in records}
    assert all(split_of(hashlib.sha256(r["group"].encode()).hexdigest(), 10, 10) == "test" for r in read_documents(tmp_path/"c", "test"))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(odd, odd, st.sampled_from(LANGUAGES), odd.filter(lambda t: clean(t) == t)), min_size=1, max_size=8))
def test_what_is_written_is_read(tmp_path_factory, drawn):
    folder = tmp_path_factory.mktemp("round")/"c"
    records = [make_record((a, b) if language == "parallel" else clean(a) if language == "code" else a, language, "legal", "toy", "p@1", "MIT", group) for a, b, language, group in drawn]
    write_corpus((dict(r) for r in records), folder, 0, 0)
    for language in {r["language"] for r in records}:
        assert list(read_documents(folder, "train", language)) == [r for r in records if r["language"] == language]


def test_a_corpus_is_written_as_it_comes(tmp_path):
    alive = Counter()
    class Record(dict):
        def __init__(self, r): super().__init__(r); alive["now"] += 1; alive["most"] = max(alive["most"], alive["now"])
        def __del__(self): alive["now"] -= 1
    write_corpus((Record(record(f"{LONG} {i}")) for i in range(500)), tmp_path/"c", 10, 10)
    assert alive["most"] <= 3 and alive["now"] == 0


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


@pytest.mark.parametrize("when", ["old", "new"])
def test_a_build_that_cannot_take_its_place_leaves_the_old_corpus(tmp_path, monkeypatch, when):
    write_corpus(toy_documents(60), tmp_path/"c")
    before, replace = sha256(tmp_path/"c"), Path.replace
    def refuse(self, target):
        if self.suffix == ".partial" and when == "new" or self.name == "c" and when == "old": raise OSError(28, "No space left on device")
        return replace(self, target)
    monkeypatch.setattr(Path, "replace", refuse)
    with pytest.raises(BadInput, match="c: cannot be written .No space left on device.; free some space"): write_corpus(toy_documents(90), tmp_path/"c")
    assert sha256(tmp_path/"c") == before and [p.name for p in tmp_path.iterdir()] == ["c"]


def test_the_old_corpus_is_whole_until_the_new_one_is_in_place(tmp_path, monkeypatch):
    write_corpus(toy_documents(60), tmp_path/"c")
    before, replace, seen = sha256(tmp_path/"c"), Path.replace, []
    def watch(self, target):
        if self.suffix == ".partial": seen.append(sha256(tmp_path/"c.old"))
        return replace(self, target)
    monkeypatch.setattr(Path, "replace", watch)
    write_corpus(toy_documents(90), tmp_path/"c")
    assert seen == [before] and sha256(tmp_path/"c") != before and [p.name for p in tmp_path.iterdir()] == ["c"]


def test_what_a_killed_build_left_is_cleared_and_a_link_is_followed(tmp_path):
    write_corpus(toy_documents(60), tmp_path/"c")
    (tmp_path/"c").rename(tmp_path/"c.old")                                  # killed between the two renames
    write_corpus(toy_documents(90), tmp_path/"c")
    assert [p.name for p in tmp_path.iterdir()] == ["c"]
    (tmp_path/"link").symlink_to(tmp_path/"c")
    write_corpus(toy_documents(60), tmp_path/"link")
    assert (tmp_path/"link").is_symlink() and corpus_table(tmp_path/"c") == corpus_table(tmp_path/"link") and sum(r["documents"] for r in corpus_table(tmp_path/"c")) == len(toy_documents(60))


@pytest.mark.parametrize("name", ["file", "file/c", "/proc/nowhere/c"])
def test_a_folder_that_cannot_be_written(tmp_path, name):
    (tmp_path/"file").write_text("x")
    with pytest.raises(BadInput, match="a file has this name" if name == "file" else "cannot be written"): write_corpus(toy_documents(9), tmp_path/name)
    assert (tmp_path/"file").read_text() == "x" and [p.name for p in tmp_path.iterdir()] == ["file"]


def test_a_language_that_vanished_is_missed(tmp_path):
    write_corpus(toy_documents(60), tmp_path/"c")
    (tmp_path/"c/train/fr.jsonl").unlink()
    with pytest.raises(BadInput, match="no such corpus file"): corpus_table(tmp_path/"c")


def test_refusals(tmp_path):
    with pytest.raises(BadInput, match="an empty corpus"): write_corpus([], tmp_path/"c")
    with pytest.raises(BadInput, match="leave something to train on"): write_corpus(toy_documents(9), tmp_path/"c", 60, 40)
    with pytest.raises(BadInput, match="no such corpus file"): list(read_documents(tmp_path/"c"))
    with pytest.raises(BadInput, match="no documents"): corpus_table(tmp_path/"c")


def test_remedies_name_a_stage_that_exists(tmp_path):
    (tmp_path/"c").mkdir()
    stages = yaml.safe_load((Path(__file__).parents[1]/"dvc.yaml").read_text(encoding="utf-8"))["stages"]
    for refused in (lambda: list(read_documents(tmp_path/"c")), lambda: corpus_table(tmp_path/"c")):
        with pytest.raises(BadInput, match="dvc repro") as e: refused()
        assert set(re.findall(r"dvc repro (\w+)", str(e.value))) <= set(stages)


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


def runs(text, k):
    "Shingles as tuples of words, by a regular expression: what the hashes stand for."
    words = re.findall(r"[^\W_]+", text.casefold())
    return [tuple(words[i:i + k]) for i in range(len(words) - k + 1)]


@given(st.text(alphabet=st.characters(codec="utf-8") | st.sampled_from(list("aàéœß _'’-\n\u202f0²Ⅷ"))))
def test_words_are_runs_of_letters_and_digits(text):
    found = list(re.finditer(r"[^\W_]+", text.casefold()))
    starts, names = split_words(text)
    assert starts.tolist() == [m.start() for m in found] and names.dtype == np.uint64
    assert len(set(names.tolist())) == len({m[0] for m in found})
    assert [len({n for n, m in zip(names.tolist(), found) if m[0] == word}) for word in {m[0] for m in found}] == [1] * len({m[0] for m in found})


@given(st.lists(st.sampled_from(["le", "la", "œuf", "été", "a"]), max_size=30), st.integers(1, 6))
def test_shingles_are_equal_where_runs_are(words, k):
    text = " ".join(words)
    names = shingles(word_hashes(text), k).tolist()
    assert len(names) == len(runs(text, k)) and len(set(names)) == len(set(runs(text, k)))
    assert {a: b for a, b in zip(runs(text, k), names)} == {a: names[runs(text, k).index(a)] for a in runs(text, k)}


def test_long_words_that_differ_in_one_letter_have_different_names():
    words = sorted({"anticonstitutionnellement"[:i] + c + "anticonstitutionnellement"[i + 1:] for i in range(25) for c in "abcdefghijklmnopqrstuvwxyzàéèœ"})
    names = word_hashes(" ".join(words))
    assert len(set(names.tolist())) == len(words) == 25 * 29 + 1
    assert len({n >> 40 for n in names.tolist()}) > .99 * len(words) and len({n & 0xffffff for n in names.tolist()}) > .99 * len(words)   # both ends are mixed


def test_names_of_words_are_the_same_in_every_process():
    code = "from croissant.corpus import shingles, word_hashes; print(shingles(word_hashes('L’été, à midi : œuf'), 3).tolist())"
    said = {subprocess.run([sys.executable, "-c", code], env={**os.environ, "PYTHONHASHSEED": seed}, capture_output=True, text=True, check=True).stdout for seed in ("1", "2")}
    assert said == {f"{shingles(word_hashes('l ete été à midi œuf')[[0, 2, 3, 4, 5]], 3).tolist()}\n"}


@given(st.lists(st.text(alphabet=st.sampled_from(list("aé ’œ\nß0")), max_size=30), max_size=8), st.integers(1, 6))
def test_many_texts_at_once_are_the_same_as_one_by_one(texts, k):
    starts, names, begin = words_of_all(texts)
    single = [split_words(t) for t in texts]
    assert begin.tolist() == [0, *np.cumsum([len(n) for _, n in single], dtype=int).tolist()] and len(names) == begin[-1]
    for (where, words), a, b in zip(single, begin, begin[1:]): assert starts[a:b].tolist() == where.tolist() and names[a:b].tolist() == words.tolist()
    assert shingles(names, k)[runs_inside(begin, k)].tolist() == [s for _, words in single for s in shingles(words, k).tolist()]


@pytest.mark.parametrize("stretch", [1, 7, 100])
def test_a_long_text_has_the_same_words_when_it_is_read_in_stretches(monkeypatch, stretch):
    text = "Où l’été s'achève, œuvre et anticonstitutionnellement se taisent. " * 9
    whole = word_hashes(text)
    monkeypatch.setattr(corpus, "_STRETCH", stretch)
    assert (word_hashes(text) == whole).all()


def test_shingles_are_the_polynomials_of_the_text():
    words = word_hashes("Un deux trois quatre cinq six sept huit neuf dix onze douze treize quatorze quinze")
    for k in range(1, 17):
        by_hand = [sum(int(w) * pow(int(corpus._BASE), k - 1 - j, 2**64) for j, w in enumerate(words[i:i + k])) % 2**64 for i in range(len(words) - k + 1)]
        assert shingles(words, k).tolist() == by_hand


def test_batches_hold_everything_once_and_no_more_than_they_need():
    assert list(batches([])) == [] and list(batches(["aa"] * 5, most=4)) == [["aa", "aa"], ["aa", "aa"], ["aa"]]
    assert list(batches(["a" * 9, "b"], most=4)) == [["a" * 9], ["b"]] and list(batches([3, 1, 1], lambda n: n, 3)) == [[3], [1, 1]]
