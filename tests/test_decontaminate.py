"""Held-out text and benchmark items leave training, and nothing else does; everything is compared with plain Python."""
import hashlib
import json
import re
import unicodedata
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from croissant.corpus import LANGUAGES, SPLITS, content, corpus_table, dropped_table, make_record, read_documents, shingles, split_of, word_hashes, words_of_all, write_corpus
from croissant.decontaminate import HELD_OUT_PAIRS, BenchmarkItems, ShingleSet, drop_held_out, drop_items, record_shingles, remove_held_out
from croissant.params import BadInput
from croissant.provenance import check_manifest, sha256
from croissant.toy import toy_documents

LONG = "Le salarié dont le contrat est rompu reçoit une indemnité, sauf en cas de faute grave ou lourde de sa part."


def record(text, language="fr", category="legal", source="toy"):
    return make_record(text, language, category, source, "p@1", "MIT")


def words_of(text): return re.findall(r"[^\W_]+", text.casefold())


def runs(text, k):
    "Shingles as tuples of words, by a regular expression: what the hashes stand for."
    words = words_of(text)
    return [tuple(words[i:i + k]) for i in range(len(words) - k + 1)]


def record_runs(r, k): return runs(r["text"], k) if "text" in r else runs(r["fr"], k) + runs(r["en"], k)


def shingle_set(*texts, k=13): return ShingleSet(np.concatenate([shingles(word_hashes(t), k) for t in texts]))


def test_a_set_finds_what_is_in_it_and_nothing_else():
    rng = np.random.default_rng(0)
    inside, outside = rng.integers(0, 2**64, (2, 5000), dtype=np.uint64)
    close = inside ^ np.uint64(1)                                            # the same mark, another shingle
    assert len(ShingleSet(inside[:3]).marks) == 1 << 10 and 16 * 5000 <= len(ShingleSet(inside).marks) <= 1 << 17
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


def toys():
    "Toy documents without those of training that repeat a short side of a held-out pair, or of which it is a whole side."
    held = lambda d: split_of(d["id"], 10, 10) != "train"
    said = lambda text: f" {' '.join(words_of(text))} "
    sides = {n: {said(d[s]) for d in toy_documents(400) if "fr" in d and held(d) for s in ("fr", "en") if len(words_of(d[s])) in n} for n in (range(1, 8), range(8, 13))}
    assert sides[range(8, 13)]
    return [d for d in toy_documents(400) if held(d) or not any(side in said(d[s]) for s in ("text", "fr", "en") if s in d for side in sides[range(8, 13)])
            and not any(said(d[s]) in sides[range(1, 8)] for s in ("fr", "en") if s in d)]


def test_planted_text_leaves_training_and_nothing_else_does(tmp_path):
    held, bearers = planted()
    lost, rows = Counter(), []
    write_corpus([*toys(), *held, *bearers], tmp_path/"c", 10, 10, finish=lambda part: rows.extend(remove_held_out(part, dropped=lost)))
    write_corpus([*toys(), *held], tmp_path/"plain", 10, 10)
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
    before = sum(len((r["text"] if "text" in r else r["fr"] + r["en"]).encode()) + ("fr" in r) for r in [*toys(), *held, *bearers])
    after = sum(len(t.encode()) for s in SPLITS for t in kept[s])
    assert before - after == sum(r["bytes"] for r in dropped_table(lost))


@pytest.mark.parametrize("k, share", [(13, .5), (6, .5), (6, 1.)])
def test_the_overlap_table_is_right_by_brute_force(tmp_path, k, share):
    held, bearers = planted()
    records, rows = [*toy_documents(400), *held, *bearers], []
    write_corpus(records, tmp_path/"c", 10, 10, finish=lambda part: rows.extend(remove_held_out(part, k, share, min_item_words=min(k, 6))[0]))
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
    rows, benchmarks = remove_held_out(tmp_path/"b", dropped=again)
    assert not again and sha256(tmp_path/"a") == sha256(tmp_path/"b") and all(r["overlap_before"] == r["overlap_after"] for r in rows)
    assert [(b["benchmark"], b["contaminated_before"], b["contaminated_after"]) for b in benchmarks] == [(HELD_OUT_PAIRS, 0, 0)]


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
    tables, lost = [], Counter()
    write_corpus(toy_documents(60), tmp_path/"c", 0, 0, finish=lambda part: tables.extend(remove_held_out(part, dropped=lost)))
    assert not lost and [[tuple(r.values()) for r in rows] for rows in tables] == [[("all", "all", 0, 0, 0, 0, 0, 0)], [("none", 0, 0, 0, 0, 0, 0)]]
    for words, share in ((0, .5), (13, 0), (13, 1.1), (13, -1)):
        with pytest.raises(BadInput, match="held_out_share"): remove_held_out(tmp_path/"c", words, share)
    for least in (0, 14):
        with pytest.raises(BadInput, match="min_item_words"): remove_held_out(tmp_path/"c", min_item_words=least)


LONG_ITEM = "Dans quelle ville de Bretagne le roman raconte-t-il que la jeune fille attend son frère parti en mer ?"   # 20 words
SHORT_ITEM = "Quelle est la capitale de la Mongolie ?"                                                                 # 7
ITEMS = [("lecture", LONG_ITEM), ("quiz", SHORT_ITEM), ("quiz", "Oui ou non ?"), ("quiz", "Qui a peint « Impression, soleil levant » ?")]


@pytest.mark.parametrize("line, found", [
    (LONG_ITEM, {"lecture"}), (SHORT_ITEM, {"quiz"}),                                                   # exact
    (f"Question 3 : {SHORT_ITEM.upper().replace(' ', ' – ')}", {"quiz"}),                               # other case and punctuation
    (LONG_ITEM.replace("Bretagne", "Normandie"), {"lecture"}),                                          # near: thirteen words in a row are left
    (LONG_ITEM.replace("jeune", "petite"), set()),                                                      # near: they are not
    (SHORT_ITEM.replace("Quelle", "Où"), set()), (SHORT_ITEM.replace("Mongolie", "Chine"), set()),      # a short item counts only whole
    ("Oui ou non ? Oui ou non ?", set()), (f"{SHORT_ITEM} {LONG_ITEM}", {"lecture", "quiz"})])
def test_a_planted_item_is_found(line, found):
    text = f"Titre\n\n{OTHER}\n\nExercice\n{line}\n\nFin\n{LONG}"
    left, benchmarks = drop_items(text, BenchmarkItems(ITEMS))
    assert benchmarks == ([found] if found else []) and left == (f"Titre\n\n{OTHER}\n\nFin\n{LONG}" if found else text)


@pytest.mark.parametrize("item", [LONG_ITEM, SHORT_ITEM])
def test_an_item_over_two_paragraphs_stays_and_is_reported(tmp_path, item):
    words = item.split()
    bearer = record(f"Titre\n\n{OTHER}\n\n{' '.join(words[:len(words) // 2])}\n{' '.join(words[len(words) // 2:])}")
    tables, lost = [], Counter()
    write_corpus([bearer], tmp_path/"c", 0, 0, finish=lambda part: tables.extend(remove_held_out(part, dropped=lost, items=ITEMS)))
    assert list(read_documents(tmp_path/"c")) == [bearer] and not lost
    assert sum(r["contaminated_before"] for r in tables[1]) == sum(r["contaminated_after"] for r in tables[1]) == 1


def test_each_removal_is_counted_by_source_and_by_benchmark(tmp_path):
    records = [record(f"A\n\n{OTHER}\n\n{SHORT_ITEM}\n{LONG_ITEM}", source="prose"), record(f"B\n\n{LONG_ITEM} {SHORT_ITEM}", source="prose"), record(f"C\n\n{OTHER}\n\n{OTHER[::-1]}", source="prose"),
               record(f"# {SHORT_ITEM}\n" + "x = 1\n" * 20, "code", "code", "code"), record((SHORT_ITEM, "What is the capital of Mongolia?"), "parallel", "quiz", "pairs"),
               record((OTHER, "He asks: quelle est la capitale de la"), "parallel", "quiz", "pairs"), record(("Mongolie ?", "Mongolia?"), "parallel", "quiz", "pairs")]
    tables, lost = [], Counter()
    write_corpus([dict(r) for r in records], tmp_path/"c", 0, 0, finish=lambda part: tables.extend(remove_held_out(part, dropped=lost, items=ITEMS)))
    kept = [content(r) for l in ("fr", "parallel") for r in read_documents(tmp_path/"c", "train", l)]
    assert kept == [f"A\n\n{OTHER}", records[2]["text"], content(records[5]), content(records[6])] and not (tmp_path/"c/train/code.jsonl").read_bytes()
    assert {k: n for k, n in lost.items() if len(k) == 2} == {("prose", "paragraphs with a benchmark item"): 2, ("prose", "benchmark item"): 1, ("code", "benchmark item"): 1, ("pairs", "benchmark item"): 1}
    assert sum(n for k, n in lost.items() if len(k) == 3) == sum(len(content(r).encode()) for r in records) - sum(len(t.encode()) for t in kept)
    assert {r["reason"]: r["unit"] for r in dropped_table(lost)} == {"paragraphs with a benchmark item": "paragraphs", "benchmark item": "documents"}
    assert tables[1] == [
        {"benchmark": "lecture", "items": 1, "not_searched": 0, "contaminated_before": 1, "paragraphs_removed": 1, "documents_removed": 1, "contaminated_after": 0},
        {"benchmark": "quiz", "items": 3, "not_searched": 1, "contaminated_before": 1, "paragraphs_removed": 1, "documents_removed": 3, "contaminated_after": 0}]


def test_a_pair_may_not_repeat_one_side_of_a_held_out_pair(tmp_path):
    pair = lambda fr, en: lambda i: record((fr.format(i), en.format(i)), "parallel", "literature")
    short = in_split(pair("Le boulanger {} pétrit la pâte dès l'aube.", "The baker {} kneads."), "test")             # 9 words and 4
    long = in_split(pair(f"{LONG} Voilà {{}}.", "An employee gets {}."), "validation")
    again = [in_split(pair(short["fr"], f"Whoever that is, bread there will be, {'so it is ' * 20}{{}}."), "train"), in_split(pair(long["fr"], f"{' '.join(f'w{i}' for i in range(90))} {{}}"), "train"),
             in_split(pair("Le pain {} est bon.", short["en"]), "train"), in_split(pair("Le pain {} est bon.", f"{short['en']} Bread is good."), "train")]
    tables, lost, left = [], Counter(), []
    write_corpus([short, long, *again], tmp_path/"c", 10, 10, finish=lambda part: tables.extend(remove_held_out(part, dropped=lost, lost=lambda r, why: left.append((r, why)))))
    assert list(read_documents(tmp_path/"c", "train", "parallel")) == [again[3]]                                    # four words count as a whole side only
    assert lost["toy", "benchmark item"] == 2 and lost["toy", "mostly held-out text"] == 1
    assert left == [(again[0], "benchmark item"), (again[1], "mostly held-out text"), (again[2], "benchmark item")]
    assert tables[1] == [{"benchmark": HELD_OUT_PAIRS, "items": 3, "not_searched": 0, "contaminated_before": 2, "paragraphs_removed": 0, "documents_removed": 2, "contaminated_after": 0}]


def test_a_whole_short_side_of_a_held_out_pair_is_no_side_in_training(tmp_path):
    pair = lambda fr, en: lambda i: record((fr, f"{en} {i}".strip()), "parallel", "software")
    held = [in_split(pair("Enregistrer le fichier", "Save file number"), "test"), in_split(lambda i: record((f"Ouvrir {i}", "…"), "parallel", "software"), "validation")]
    gone = [in_split(pair("ENREGISTRER le fichier…", "Write the document"), "train"),                                # another English side
            in_split(lambda i: record((f"Autre {i}", "Enregistrer le fichier"), "parallel", "software"), "train"),   # the sides swapped
            in_split(lambda i: record((f"Sauver {i}", held[0]["en"]), "parallel", "software"), "train"), in_split(lambda i: record((held[1]["fr"], f"Open {i}"), "parallel", "software"), "train")]
    stays = [in_split(pair("Enregistrer le fichier audio", "Save the sound"), "train"), in_split(pair("Le fichier enregistrer", "File save"), "train")]
    prose = in_split(lambda i: record(f"Enregistrer le fichier\n{held[0]['en']}\n{OTHER} {i}"), "train")
    code = in_split(lambda i: record(f"# {i}\nprint('{held[0]['en']}')", "code", "code"), "train")
    tables, lost, left = [], Counter(), []
    write_corpus([*held, *gone, *stays, prose, code], tmp_path/"c", 10, 10, finish=lambda part: tables.extend(remove_held_out(part, dropped=lost, lost=lambda r, why: left.append((r, why)))))
    assert [[*read_documents(tmp_path/"c", "train", l)] for l in ("fr", "code", "parallel")] == [[prose], [code], stays]
    assert left == [(r, "benchmark item") for r in gone] and {k: n for k, n in lost.items() if len(k) == 2} == {("toy", "benchmark item"): 4}
    assert tables[1] == [{"benchmark": HELD_OUT_PAIRS, "items": 4, "not_searched": 1, "contaminated_before": 3, "paragraphs_removed": 0, "documents_removed": 4, "contaminated_after": 0}]


@given(st.lists(st.lists(st.sampled_from(["le", "la", "œuf"]), max_size=9).map(" ".join), min_size=1, max_size=30), st.lists(st.lists(st.sampled_from(["le", "la", "œuf"]), max_size=9).map(" ".join), max_size=5), st.integers(1, 13))
@settings(max_examples=100, deadline=None)
def test_whole_sides_by_brute_force(texts, held, k):
    items = BenchmarkItems([(HELD_OUT_PAIRS, h) for h in held], k, 1)
    _, words, begin = words_of_all(texts)
    short = {h for h in held if 0 < len(h.split()) < min(8, k)}
    assert sorted(items.sides(words, begin, np.ones(len(texts), bool))[0]) == [b for b, t in zip(begin, texts) if t in short]


@pytest.mark.parametrize("change", [lambda t: unicodedata.normalize("NFD", t), lambda t: t.replace("capitale", "capi\u200dtale"), lambda t: t.replace("capitale", "capi\u00adtale"),
                                    lambda t: t.replace("capitale", "capi\u200btale"), lambda t: unicodedata.normalize("NFD", t).replace("e\u0301", "e\u200d\u0301")])
def test_items_are_searched_for_in_the_spelling_of_the_corpus(tmp_path, change):
    plain = "Où se trouve la capitale de la région dorée ?"
    assert word_hashes(change(plain)).tolist() != word_hashes(plain).tolist()
    lost = Counter()
    write_corpus([record(f"A\n\n{OTHER}\n\n{plain}")], tmp_path/"c", 0, 0, finish=lambda part: remove_held_out(part, dropped=lost, items=[("quiz", change(plain))]))
    assert [r["text"] for r in read_documents(tmp_path/"c")] == [f"A\n\n{OTHER}"] and lost["toy", "paragraphs with a benchmark item"] == 1
    assert len(BenchmarkItems([(HELD_OUT_PAIRS, change("La capitale dorée"))]).sides(word_hashes("La capitale dorée"), np.array([0, 3]), np.ones(1, bool))[0]) == 1


def test_documents_that_differ_in_a_sign_only_both_stay(tmp_path):
    texts = [record(f"{LONG} Le taux varie de {n} % par an.") for n in ("-5", "5", "1,5", "1 5")]
    lost = Counter()
    write_corpus(texts, tmp_path/"c", 0, 0, finish=lambda part: remove_held_out(part, dropped=lost))
    assert list(read_documents(tmp_path/"c")) == texts and not lost


word = st.sampled_from(["le", "la", "œuf", "été", "a", "b"])
sequences = st.lists(word, max_size=9)


def contains(words, item, k):
    "Does a sequence of words contain a whole short item, or k words in a row of a longer one?"
    parts = [item] if len(item) < k else [item[i:i + k] for i in range(len(item) - k + 1)]
    return any(words[i:i + len(p)] == p for p in parts for i in range(len(words) - len(p) + 1))


@given(st.lists(sequences, max_size=6), st.lists(st.lists(sequences, min_size=1, max_size=4), max_size=5), st.integers(1, 5), st.integers(0, 3))
@settings(max_examples=150, deadline=None)
def test_items_by_brute_force(tmp_path_factory, questions, documents, k, shorter):
    least, folder = max(1, k - shorter), tmp_path_factory.mktemp("items")/"c"
    items = [(f"b{i % 2}", " ".join(q)) for i, q in enumerate(questions)]
    searched = [(b, q) for (b, _), q in zip(items, questions) if len(q) >= least]
    finder = BenchmarkItems(items, k, least)
    assert sum(finder.not_searched.values()) == len(questions) - len(searched)
    for lines in documents:
        text = "\n".join(map(" ".join, lines))
        gone = [i for i, words in enumerate(lines) if any(contains(words, q, k) for _, q in searched)]
        left, found = drop_items(text, finder)
        assert found == [{b for b, q in searched if contains(lines[i], q, k)} for i in gone] and (gone or left == text)
        assert left == "" or not any(contains(words_of(line), q, k) for line in left.split("\n") for _, q in searched)
    records = [record("x = 0 " + " ".join(w for line in lines for w in line), "code", "code") for lines in documents]
    if not records: return
    tables = []
    write_corpus(records, folder, 0, 0, finish=lambda part: tables.extend(remove_held_out(part, k, items=items, min_item_words=least)))
    clean = [r for r in records if not any(contains(words_of(r["text"]), q, k) for _, q in searched)]
    lines = (folder/"train/code.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line) for line in lines] == clean                                            # and text without a match is never touched
    for row in tables[1] if items else []:
        mine = [q for b, q in searched if b == row["benchmark"]]
        assert row["contaminated_before"] == sum(any(contains(words_of(r["text"]), q, k) for r in records) for q in mine) and row["contaminated_after"] == 0


@given(st.lists(st.text(alphabet=st.sampled_from(list("abé ’\n\u2028\"\\")), max_size=80), min_size=1, max_size=8))
@settings(max_examples=60, deadline=None)
def test_a_file_without_a_match_keeps_its_bytes(tmp_path_factory, texts):
    folder = tmp_path_factory.mktemp("same")
    for name in "ab": write_corpus([record(f"{t} fin {i}", "code", "code") for i, t in enumerate(texts)], folder/name, 0, 0, finish=(lambda part: remove_held_out(part, items=ITEMS)) if name == "b" else None)
    assert sha256(folder/"a") == sha256(folder/"b")


def test_many_batches_are_one_file(tmp_path):
    filler = " ".join(f"mot{i}" for i in range(9000))
    records = [record(f"# {i}\n{filler} f{i}" + (f"\n{SHORT_ITEM}" if i % 3 == 0 else ""), "code", "code") for i in range(12)]   # more than half a million characters
    write_corpus(records, tmp_path/"c", 0, 0, finish=lambda part: remove_held_out(part, items=ITEMS))
    assert list(read_documents(tmp_path/"c", "train", "code")) == [r for i, r in enumerate(records) if i % 3]
    assert corpus_table(tmp_path/"c")[0]["documents"] == 8
