"""Exact copies, copied paragraphs and near-duplicates, against plain comparisons of everything with everything."""
import hashlib
import random
import re
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from croissant.corpus import content, dropped_table, make_record, shingles, word_hashes
from croissant.dedup import Deduplicator, Names, NearDuplicates, deduplicate, drop_repeats, fingerprint, numbers, signatures
from croissant.params import BadInput
from croissant.toy import toy_documents

LONG = "Le salarié dont le contrat est rompu reçoit une indemnité, sauf en cas de faute grave ou lourde de sa part."


def record(text, language="fr", category="legal", source="toy"):
    return make_record(text, language, category, source, "p@1", "MIT")


def jaccard(a, b, k=5):
    a, b = (set(shingles(word_hashes(t), k).tolist()) for t in (a, b))
    return len(a & b) / max(1, len(a | b))


def test_fingerprints():
    assert fingerprint("L'été !") == fingerprint("l’ÉTÉ") != fingerprint("l'ete")
    assert fingerprint("!!!") != fingerprint("???") and 0 < fingerprint("") < 2**64
    assert fingerprint("L'été") == int.from_bytes(hashlib.blake2b("lété".encode(), digest_size=8).digest(), "little")


@pytest.mark.parametrize("one, other", [
    ("Prime de 1,5 point", "Prime de 15 point"), ("Prime de 1.5 point", "Prime de 1,5 point"), ("une baisse de -5 %", "une baisse de 5 %"), ("de + 5 points", "de - 5 points"), ("× 2", "2"),
    ("à 10:30", "à 1030"), ("1/2 tour", "12 tour"), ("1 23", "12 3"), ("un taux de .5", "un taux de 5"), ("5 %", "5 ‰"), ("5 $", "5 €"), ("effectif > 50", "effectif < 50"), ("2020-2021", "2020 2021"), ("10 × 5", "10 + 5")])
def test_a_number_is_not_another_one(one, other):
    assert fingerprint(one) != fingerprint(other) and numbers(one) != numbers(other)
    seen, agreements = Deduplicator(), [record(f"Accord {name}\n\nArticle 3\n{LONG} {said}.") for name, said in (("A", one), ("B", other))]
    assert [seen.add(r) for r in agreements] == agreements and not seen.dropped            # the clause does not vanish as a repeat


@pytest.mark.parametrize("one, other", [
    ("(−5\u202f%)", "-5 %"), ("En 2020, soit 1 an.", "EN 2020 SOIT 1 AN"), ("pages 12–15 ;", "Pages 12-15"), ("Article 5. Le", "article 5 : le"), ("12\u00a0€", "12 €")])
def test_typography_around_a_number_is_no_other_number(one, other):
    assert fingerprint(one) == fingerprint(other)


def test_in_programs_every_sign_counts():
    programs = "x = 1.5", "x = 15", "c = a + b", "c = a - b", "if a:\n    b()\nc()", "if a:\n    b()\n    c()", "X = 1.5", "# été"
    assert len({fingerprint(p, "code") for p in programs}) == len(programs)
    assert fingerprint("a = 1  \n\n \t\nb = 2\n", "code") == fingerprint("a = 1\nb = 2", "code") != fingerprint(" a = 1\nb = 2", "code")
    frame = "def combine(left, right):\n    result = left {} right\n    return result\n" + "\n".join(f"VALUE_{i} = {i}" for i in range(5))
    code = [record(frame.format(sign), "code", "code") for sign in "+-"]
    seen = Deduplicator()
    assert [seen.add(r) for r in (*code, record(frame.format("+").replace("\n", " \n\n"), "code", "code"))] == [*code, None] and seen.reason == "document seen before"


@given(st.text(alphabet=st.one_of(st.characters(blacklist_characters="0123456789"), st.sampled_from(list("aé_ '’-\u202f«œß²Ⅷ")))))
def test_fingerprints_without_numbers_name_letters_only(text):
    letters = re.sub(r"[\W_]+", "", text.casefold())
    if letters: assert fingerprint(text) == fingerprint(" ; ".join(text.casefold())) == fingerprint(letters) != fingerprint(letters + "x")
    else: assert fingerprint(text) != fingerprint(text + "!")            # signs only: the signs count


@given(st.lists(st.integers(1, 2**64 - 1) | st.integers(1, 40).map(lambda n: n << 40), max_size=3000))
@settings(max_examples=50, deadline=None)
def test_names_are_a_set(values):
    names, plain = Names(), set()
    for v in values:
        assert (v in names) == (v in plain) and names.add(v) == (v not in plain)
        plain.add(v)
    assert len(names) == len(plain) and all(v in names for v in plain) and (2**64 - 1 in names) == (2**64 - 1 in plain)


def test_names_stay_small():
    names = Names()
    for i in range(20_000): names.add(i * 0x9e3779b97f4a7c15 % 2**64 or 1)
    assert len(names) == 20_000 and 16 * len(names) <= names.nbytes <= 33 * len(names)


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
    assert drop_repeats(f"B\n{LONG}", {fingerprint(LONG)}) == ("", 1, []) and drop_repeats("Titre seul", set()) == ("Titre seul", 0, [])
    assert drop_repeats(f"A\n{LONG}\n{LONG}", set()) == (f"A\n{LONG}", 1, [fingerprint(LONG)])


def test_paragraphs_of_a_document_that_went_are_not_known():
    words = " ".join(f"mot{i}" for i in range(300))
    first, near = record(f"A\n\n{words}"), record(f"A\n\n{words.replace('mot7 ', 'autre ')}\n\n{LONG}")
    later = record(f"Titre\n\n{LONG}\n\n{LONG[::-1]}")
    lost = Counter()
    assert [r["text"] for r in deduplicate([first, near, later], dropped=lost)] == [first["text"], later["text"]] and lost["toy", "near duplicate"] == 1


def test_a_quotation_is_taken_out_before_near_duplicates_are_looked_for():
    quoted = [" ".join(f"mot{i}x{j}" for j in range(40)) for i in range(8)]
    first, second = (record("Accord\n\n" + "\n\n".join([*quoted, new])) for new in (LONG, LONG[::-1]))
    assert jaccard(first["text"], second["text"]) > .8
    assert [r["text"] for r in deduplicate([first, second])] == [first["text"], f"Accord\n\n{LONG[::-1]}"]
    assert len(list(deduplicate([first | {"category": "literature"}, second | {"category": "literature"}]))) == 1


def test_pairs_are_compared_by_both_sides_or_by_either():
    pairs = [record(p, "parallel", "literature") for p in (("Oui, bien sûr.", "Yes, of course."), ("OUI bien sûr !", "yes, of course"), ("Oui, bien sûr.", "Certainly."), ("Si.", "Yes, of course."), ("Non.", "No."))]
    assert [r["fr"] + r["en"] for r in deduplicate(pairs)] == [p["fr"] + p["en"] for p in (pairs[0], *pairs[2:])]
    lost = Counter()
    assert list(deduplicate(pairs, dropped=lost, one_side=True)) == [pairs[0], pairs[4]]
    assert lost["toy", "document seen before"] == 1 and lost["toy", "one side seen before"] == 2 and lost["toy", "one side seen before", "bytes"] == sum(len(content(p).encode()) for p in pairs[2:4])


def edited(words, n, rng):
    words = list(words)
    for _ in range(n):
        i = rng.randrange(len(words))
        words[i:i + 1] = rng.choice([[], ["autre"], [words[i]] * 2])
    return words


def planted(n=250, seed=1):
    "Texts of words that occur once, and an edited copy of each, shuffled."
    rng = random.Random(seed)
    first = [[f"mot{i}é{j}" for j in range(rng.randrange(60, 300))] for i in range(n)]
    texts = [" ".join(w) for w in first + [edited(w, rng.randrange(16), rng) for w in first]]
    rng.shuffle(texts)
    return texts


def by_brute_force(texts, threshold):
    "For each text the exact similarity to the nearest one kept before it."
    sets, kept, nearest = [set(shingles(word_hashes(t), 5).tolist()) for t in texts], [], []
    for s in sets:
        nearest.append(max((len(s & other) / len(s | other) for other in kept if not s.isdisjoint(other)), default=0))
        if nearest[-1] < threshold: kept.append(s)
    return nearest


@pytest.mark.parametrize("threshold, least", [(.8, .9), (.9, .8)])      # most planted copies are within an estimate's error of 0.9
def test_near_duplicates_against_brute_force(threshold, least):
    texts, index, found = planted(), NearDuplicates(threshold), []
    for s in signatures(texts):
        found.append(index.find(s) >= 0)
        if not found[-1]: index.add(s)
    nearest = by_brute_force(texts, threshold)
    true = [j >= threshold for j in nearest]
    both = sum(f and t for f, t in zip(found, true))
    assert sum(true) > 40 and both / sum(true) > least and both / sum(found) > least
    assert all(f == t for f, t, j in zip(found, true, nearest) if abs(j - threshold) > .1)


def test_the_estimate_is_unbiased():
    rng, near = np.random.default_rng(0), []
    for _ in range(200):
        words = [f"w{i}" for i in rng.integers(0, 10**9, 150)]           # 100 words each, 50 in both: J = 50 / 150
        a, b = signatures([" ".join(words[:100]), " ".join(words[50:])], k=1)
        near.append(((a == b).mean(), (a.astype(np.uint8) == b.astype(np.uint8)).mean()))
    full, bytes_ = np.mean(near, 0)
    assert abs(full - 1 / 3) < .01 and abs((bytes_ - 1 / 256) / (1 - 1 / 256) - 1 / 3) < .01


@given(st.lists(st.text(alphabet=st.sampled_from(list("ab é’\n")), max_size=40), max_size=6))
@settings(max_examples=60, deadline=None)
def test_signatures_do_not_depend_on_the_neighbours(texts):
    together = signatures(texts)
    assert together.shape == (len(texts), 128) and together.dtype == np.uint32
    for t, row in zip(texts, together):
        assert (signatures([t])[0] == row).all() and (row.min() == 2**32 - 1) == (len(word_hashes(t)) < 5)
        assert (signatures([t.upper().replace("’", " ; ")])[0] == row).all()


def test_signatures_over_several_batches_are_in_order():
    texts = [" ".join(f"m{i}x{j}" for j in range(4000)) for i in range(20)]   # several hundred thousand characters
    assert (signatures(iter(texts)) == np.concatenate([signatures([t]) for t in texts])).all()
    assert signatures([]).shape == (0, 128) and signatures(texts[:2], permutations=64).shape == (2, 64)


def test_the_index_finds_the_same_before_and_after_it_has_grown():
    rng = np.random.default_rng(0)
    rows, index = rng.integers(0, 2**32, (5000, 128), dtype=np.uint32), NearDuplicates()
    for i, row in enumerate(rows):
        assert index.find(row) == -1 and index.add(row) == i
    close = rows.copy()
    close[:, rng.permutation(128)[:12]] ^= 1                             # 116 of 128 places agree: estimate 0.906
    far = rows.copy()
    far[:, rng.permutation(128)[:40]] ^= 1                               # 88 of 128: below the threshold
    assert [index.find(r) for r in rows] == list(range(5000)) == [index.find(r) for r in close] and {index.find(r) for r in far} == {-1}
    assert index.nbytes <= 5000 * 2 * 256


def test_equal_bands_are_verified_and_long_chains_are_cut():
    rng = np.random.default_rng(1)
    rows = rng.integers(0, 2**32, (400, 128), dtype=np.uint32)
    rows[:, :8] = 7                                                      # one band in common, and nothing else
    index = NearDuplicates(steps=10)
    for row in rows[:-1]: assert index.find(row) == -1 and index.add(row) >= 0
    assert index.find(rows[398]) == 398 and index.find(rows[0]) == 0    # by their other bands
    late = rows[0].copy()
    late[8:] ^= np.tile([1, 0, 0, 0, 0, 0, 0, 0], 15).astype(np.uint32)  # every other band broken in one place
    assert index.find(late) == -1                                        # 113 of 128 agree, but 398 newer documents share the band
    whole = NearDuplicates(steps=1000)
    for row in rows[:-1]: whole.add(row)
    assert whole.find(late) == 0


@pytest.mark.parametrize("threshold, permutations", [(0, 128), (1.1, 128), (.8, 100), (.8, 0)])
def test_impossible_settings_are_refused(threshold, permutations):
    with pytest.raises(BadInput, match="near-duplicate threshold"): NearDuplicates(threshold, permutations)


def test_texts_without_shingles_are_never_near_duplicates():
    bars = [record(f"{'=' * 90}{'-' * i}", category="literature") for i in range(3)]
    lost = Counter()
    assert list(deduplicate(bars, dropped=lost)) == bars and not lost


sentences = st.lists(st.sampled_from([LONG, LONG.upper(), LONG[::-1], "Article 1", "", "Court.", " ".join(f"mot{i}" for i in range(60)), " ".join(f"mot{i}" for i in range(1, 61))]), max_size=6).map("\n".join)
records = st.lists(st.tuples(sentences, sentences, st.sampled_from(["fr", "code", "parallel"]), st.sampled_from(["legal", "literature"])), max_size=12).map(
    lambda drawn: [record((a, b) if language == "parallel" else a, language, category) for a, b, language, category in drawn])


@given(records, st.booleans())
@settings(max_examples=150, deadline=None)
def test_what_is_kept_is_kept_again_in_the_same_order_and_the_first_always(stream, one_side):
    lost = Counter()
    kept = list(deduplicate(stream, dropped=lost, one_side=one_side))
    again = Counter()
    assert list(deduplicate(kept, dropped=again, one_side=one_side)) == kept and not again          # idempotent
    long = [r for r in stream if "fr" in r or len(r["text"]) >= 80]
    assert bool(kept) == bool(long)
    if long and ("fr" in long[0] or long[0]["category"] != "legal"): assert kept[0] == long[0]      # the first is never dropped
    origins = iter(stream)
    for k in kept:                                                                                  # a subsequence, each perhaps shortened
        assert any(k == r or "text" in k and "text" in r and r["category"] == "legal" and set(k["text"].split("\n")) <= set(r["text"].split("\n")) for r in origins)
    total = sum(len(content(r).encode()) for r in stream) - sum(len(content(r).encode()) for r in kept)
    assert total == sum(n for k, n in lost.items() if len(k) == 3)                                  # every byte is accounted for


def test_workers_with_sets_of_their_own_leave_copies():
    unique = toy_documents(200)
    halves = [list(deduplicate(part, 0, threshold=1.)) for part in (unique, unique[::-1])]
    assert Counter(Counter(r["id"] for half in halves for r in half).values()) == {2: len(halves[0])}
    assert len(list(deduplicate(unique + unique[::-1], 0, threshold=1.))) == len(halves[0])


def test_signatures_can_come_from_elsewhere_and_may_be_missing():
    texts = [" ".join(f"mot{i}" for i in range(100)), " ".join(f"mot{i}" if i != 50 else "autre" for i in range(100))]
    rows, stream = signatures(texts), [record(t, category="literature") for t in texts]
    one, none = Deduplicator(), Deduplicator()
    assert [one.add(r, s) for r, s in zip(stream, rows)] == [stream[0], None] and one.dropped["toy", "near duplicate"] == 1
    assert [none.add(r) for r in stream] == stream


def test_memory_is_bounded_and_a_document_is_cheap():
    rng, seen = np.random.default_rng(0), Deduplicator()
    rows = rng.integers(0, 2**32, (20_000, 128), dtype=np.uint32)
    stream = [record(f"{LONG} Ceci est la variante {i}, et elle ne ressemble à aucune autre.", category="literature") for i in range(len(rows))]
    assert all(seen.add(r, row) is r for r, row in zip(stream, rows))
    assert seen.nbytes < 20_000 * (2 * 256 + 33) + 3 * 8192
