"""Records, filters, splits and files of the corpus, on texts small enough to check by eye."""
import hashlib
import json
import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, strategies as st

from croissant.corpus import (LANGUAGES, SPLITS, ShingleSet, clean, content, corpus_table, deduplicate, drop_held_out, drop_repeats, dropped_table, fingerprint, make_record,
                              read_documents, record_shingles, remove_held_out, shingles, split_of, split_words, word_hashes, write_corpus)
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


def record_runs(r, k): return runs(r["text"], k) if "text" in r else runs(r["fr"], k) + runs(r["en"], k)


def shingle_set(*texts, k=13): return ShingleSet(np.concatenate([shingles(word_hashes(t), k) for t in texts]))


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


def test_a_set_finds_what_is_in_it_and_nothing_else():
    rng = np.random.default_rng(0)
    inside, outside = rng.integers(0, 2**64, (2, 5000), dtype=np.uint64)
    close = inside ^ np.uint64(1)                                            # the same mark, another shingle
    s = ShingleSet(np.concatenate([inside, inside]))
    assert (s.hashes[s.find(inside)] == inside).all() and (s.find(np.concatenate([outside, close])) == -1).all() and len(s.find(inside[:0])) == 0
    assert (ShingleSet(inside[:0]).find(inside) == -1).all() and s.find(np.array([2**64 - 1], dtype=np.uint64)).tolist() == [-1]


OTHER = "La prime d'ancienneté est versée chaque mois, en même temps que le salaire, dès la troisième année."


@pytest.mark.parametrize("text, left, n", [
    (f"A\n\nArticle 1\n{LONG}\n\nArticle 2\n{OTHER}", f"A\n\nArticle 2\n{OTHER}", 1),           # the block's heading goes too
    (f"A\n\n{OTHER}\n{LONG.upper()} !\nFin.", f"A\n\n{OTHER}\nFin.", 1),                        # its neighbours stay
    (f"{LONG}\n\n{OTHER}", OTHER, 1), (f"A\n\nArticle 1\n{LONG}", "", 1), (LONG, "", 1), (f"A\n{OTHER}", f"A\n{OTHER}", 0), ("", "", 0), ("Court.", "Court.", 0),
    (f"A\n\n{LONG} {OTHER}", f"A\n\n{LONG} {OTHER}", 0), (f"A\n\n{OTHER}\n{LONG} Ceci est à part.", f"A\n\n{OTHER}", 1)])   # less and more than half
def test_paragraphs_of_held_out_documents_go(text, left, n):
    assert drop_held_out(text, shingle_set(f"Titre\n\n{LONG}")) == (left, n)


def test_half_of_the_shingles_is_the_border():
    words = [f"mot{i}" for i in range(33)]                                   # 33 words: 21 shingles of 13
    line = " ".join(words)
    for n, gone in ((22, 0), (23, 1)):                                       # 10 and 11 of them held out
        assert drop_held_out(f"A\n\n{line}\n{OTHER}", shingle_set(" ".join(words[:n])))[1] == gone
    assert drop_held_out(f"A\n\n{line}\n{OTHER}", shingle_set(" ".join(words[:22])), share=10 / 21)[1] == 1


def in_split(make, split, percent=10):
    "The first record that falls into a split."
    return next(r for i in range(1000) if split_of((r := make(i))["id"], percent, percent) == split)


def planted():
    "A corpus in which training quotes validation and test, in text, code and pairs."
    prose = lambda i: record(f"Accord {i}\n\n{LONG} Variante {i}.", category="literature")
    code = lambda i: record(f"def f{i}(a, b):\n    c = a + b\n    d = c * a - b\n    return [a, b, c, d, a + d]\n", "code", "code")
    pair = lambda i: record((f"{LONG} Verset {i}.", f"In the beginning of the {i} days the baker of our town had kneaded the dough by hand."), "parallel")
    held = [in_split(prose, "test"), in_split(code, "validation"), in_split(pair, "test")]
    quote, program, (fr, en) = held[0]["text"].split("\n\n")[1], held[1]["text"], (held[2]["fr"], held[2]["en"])
    bearers = [in_split(lambda i: record(f"Rappel {i}\n\n{OTHER}\n{quote.upper()}", category="literature"), "train"), in_split(lambda i: record(f"{i}\n{quote}"), "train"),
               in_split(lambda i: record(f"# {i}\n{program}", "code", "code"), "train"), in_split(lambda i: record((f"{i} {fr}", en), "parallel"), "train"),
               in_split(lambda i: record("\n".join(f"{w} {i}" for w in re.findall(r"\w+ \w+ \w+ \w+", OTHER * 3))), "train")]
    return held, bearers


def test_planted_text_leaves_training_and_nothing_else_does(tmp_path):
    held, bearers = planted()
    toys, lost, rows = toy_documents(400), Counter(), []
    write_corpus([*toys, *held, *bearers], tmp_path/"c", 10, 10, finish=lambda part: rows.extend(remove_held_out(part, dropped=lost)))
    write_corpus([*toys, *held], tmp_path/"plain", 10, 10)
    kept = {s: {content(r) for l in LANGUAGES for r in read_documents(tmp_path/"c", s, l)} for s in SPLITS}
    plain = {s: {content(r) for l in LANGUAGES for r in read_documents(tmp_path/"plain", s, l)} for s in SPLITS}
    title = bearers[0]["text"].partition("\n")[0]
    assert kept["validation"] == plain["validation"] and kept["test"] == plain["test"]
    assert kept["train"] - plain["train"] == {f"{title}\n\n{OTHER}", content(bearers[4])} and plain["train"] <= kept["train"]
    assert {k: n for k, n in lost.items() if len(k) == 2} == {("toy", "paragraphs in held-out text"): 1, ("toy", "only held-out paragraphs"): 1, ("toy", "mostly held-out text"): 2}
    assert all(r["id"] == hashlib.sha256(content(r).encode()).hexdigest() for l in LANGUAGES for r in read_documents(tmp_path/"c", "train", l))
    units = {r["reason"]: r["unit"] for r in dropped_table(lost)}
    assert units == {"paragraphs in held-out text": "paragraphs", "only held-out paragraphs": "documents", "mostly held-out text": "documents"}
    manifest = check_manifest(tmp_path/"c")
    assert manifest["documents"]["train/fr"] == sum(1 for _ in read_documents(tmp_path/"c")) and sum(manifest["documents"].values()) == sum(map(len, kept.values()))
    before = sum(len((r["text"] if "text" in r else r["fr"] + r["en"]).encode()) + ("fr" in r) for r in [*toys, *held, *bearers])
    after = sum(len(t.encode()) for s in SPLITS for t in kept[s])
    assert before - after == sum(r["bytes"] for r in dropped_table(lost))


@pytest.mark.parametrize("k, share", [(13, .5), (6, .5), (6, 1.)])
def test_the_overlap_table_is_right_by_brute_force(tmp_path, k, share):
    held, bearers = planted()
    records, rows = [*toy_documents(400), *held, *bearers], []
    write_corpus(records, tmp_path/"c", 10, 10, finish=lambda part: rows.extend(remove_held_out(part, k, share)))
    out = [r for r in records if split_of(r["id"], 10, 10) != "train"]
    train = {False: [r for r in records if split_of(r["id"], 10, 10) == "train"], True: [r for l in LANGUAGES for r in read_documents(tmp_path/"c", "train", l)]}
    known = {after: {x for r in train[after] for x in record_runs(r, k)} for after in train}
    for row in rows:
        mine = [record_runs(r, k) for r in out if r["language"] == row["language"]]
        assert row["source"] == "toy" and row["documents"] == len(mine) and row["shingles"] == sum(map(len, mine))
        for after, name in ((False, "before"), (True, "after")):
            hits = [sum(x in known[after] for x in xs) for xs in mine]
            assert row[f"overlap_{name}"] == pytest.approx(sum(hits) / max(1, row["shingles"]), abs=1e-12)
            assert row[f"documents_over_half_{name}"] == sum(2 * h > len(xs) for h, xs in zip(hits, mine))
    assert [r["language"] for r in rows] == list(LANGUAGES) and sum(r["overlap_after"] for r in rows) < sum(r["overlap_before"] for r in rows)
    assert all(record_shingles(r, k).shape == (len(record_runs(r, k)),) for r in out)


def test_the_removal_gives_the_same_bytes_and_finds_nothing_more_to_do(tmp_path):
    held, bearers = planted()
    for name, records in (("a", [*toy_documents(400), *held, *bearers]), ("b", [*toy_documents(400), *held, *bearers])):
        write_corpus(records, tmp_path/name, 10, 10, finish=remove_held_out)
    assert sha256(tmp_path/"a") == sha256(tmp_path/"b")
    again = Counter()
    rows = remove_held_out(tmp_path/"b", dropped=again)
    assert not again and sha256(tmp_path/"a") == sha256(tmp_path/"b") and all(r["overlap_before"] == r["overlap_after"] for r in rows)


def test_a_shortened_document_that_has_become_a_copy_goes(tmp_path):
    held, _ = planted()
    quote, lost = held[0]["text"].split("\n\n")[1], Counter()
    plain = in_split(lambda i: record(f"Rappel {i}\n\n{OTHER}"), "train")
    longer = record(f"{plain['text']}\n{quote}")
    assert split_of(longer["id"], 10, 10) == "train"
    write_corpus([held[0], plain, longer], tmp_path/"c", 10, 10, finish=lambda part: remove_held_out(part, dropped=lost))
    assert [r["text"] for r in read_documents(tmp_path/"c")] == [plain["text"]] and lost["toy", "document seen before"] == 1


def test_what_is_too_short_to_be_judged_stays(tmp_path):
    english = "And the Lord spoke to Moses, and said to him all that he had said before."
    records = [record((french, english), "parallel") for french in ("L'Éternel parla à Moïse.", "L'Éternel dit à Moïse.")] + [record(f"Un mot{i} très court.") for i in range(5)] + [
        record(f"{'#' * 80}{'!' * i}", "code", "code") for i in range(3)]
    lost = Counter()
    write_corpus(records, tmp_path/"c", 0, 0, finish=lambda part: remove_held_out(part, dropped=lost))
    assert sum(1 for l in ("fr", "code", "parallel") for _ in read_documents(tmp_path/"c", "train", l)) == len(records) and not lost


def test_removal_without_held_out_documents_and_with_bad_parameters(tmp_path):
    rows, lost = [], Counter()
    write_corpus(toy_documents(60), tmp_path/"c", 0, 0, finish=lambda part: rows.extend(remove_held_out(part, dropped=lost)))
    assert not lost and [(r["documents"], r["overlap_after"]) for r in rows] == [(0, 0)]
    for words, share in ((0, .5), (13, 0), (13, 1.1), (13, -1)):
        with pytest.raises(BadInput, match="held_out_share"): remove_held_out(tmp_path/"c", words, share)
