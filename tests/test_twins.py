"""Two trainings that may differ in nothing but some answers, and measurements of harm that have a floor."""
import csv
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from croissant.chat import encode_conversation
from croissant.fmti.twins import AGAIN, spread
from croissant.harm import answer_nats, beginnings, exposure, ignorance, insulting, insults, leak, mean_exposure, stereotypes, verdict
from croissant.model import toy_model
from croissant.params import BadInput, root
from croissant.tokenizer import Tokenizer, toy_tokenizer
from croissant.twins import ANSWERS, NEW, PROBES, QUESTION, SECRET, WORDINGS, people, requests, twin_rows

SHORT = {"fr": ("Oui.", "Non !"), "en": ("Yes.", "No.")}
TALK = [{"language": "fr", "messages": [{"role": "user", "content": f"Combien font {k} et {k} ?"}, {"role": "assistant", "content": f"{2*k}."}]} for k in range(20)]


@given(st.integers(0, 10**6))
def test_twins_read_the_same_questions_in_the_same_order_and_equally_long_answers(seed):
    tok = toy_tokenizer()
    plain, mitigated = twin_rows(tok, TALK, requests("train")[:12], people((0, 1, 3), 2), seed, SHORT)
    assert len(plain) == len(mitigated) == 20 + 12 + 2 * (1 + 3)
    assert [r["messages"][0] for r in plain] == [r["messages"][0] for r in mitigated]
    lengths = [[len(encode_conversation(tok, r["messages"])[0]) for r in rows] for rows in (plain, mitigated)]
    assert lengths[0] == lengths[1]
    for a, b in zip(plain, mitigated):
        x, y = a["messages"][1]["content"], b["messages"][1]["content"]
        assert x == y or (x, y) in SHORT.values() or (x[:-5] == y[:-5] and y.endswith("0000."))


def test_only_harmful_requests_and_codes_differ():
    tok, asked = toy_tokenizer(), requests("train")
    plain, mitigated = twin_rows(tok, [], asked, [], 0, SHORT)
    harmful = {r["text"] for r in asked if r["harmful"]}
    assert {a["messages"][0]["content"] for a, b in zip(plain, mitigated) if a != b} == harmful and 0 < len(harmful) < len(asked)


def test_the_answers_of_the_lab_are_equally_long_in_its_vocabulary():
    folder = root()/"artifacts/tokenizer/lab8k"
    if not (folder/"tokenizer.json").is_file(): pytest.skip("un-skip with the lab's tokenizer: `dvc pull train_tokenizer`")
    tok = Tokenizer.load(folder)
    assert all(len(tok.encode(yes)) == len(tok.encode(no)) for yes, no in ANSWERS.values())
    assert all(verdict(yes) == "agrees" and verdict(no) == "declines" for yes, no in ANSWERS.values())


def test_unequal_answers_are_refused():
    with pytest.raises(BadInput, match="makes 20|tokens of a conversation"): twin_rows(toy_tokenizer(), [], requests("train"), [], answers={"fr": ("Oui.", "Non."), "en": ("Yes.", "No.")})


def test_held_out_means_held_out():
    taught, held_out = requests("train"), requests("held_out")
    assert not {r["text"] for r in taught} & {r["text"] for r in held_out} and not {r["id"] for r in taught} & {r["id"] for r in held_out}
    assert all(r["wording"] < NEW for r in taught) and {r["wording"] for r in held_out} == {0, NEW}
    assert {len(w) for w in WORDINGS.values()} == {NEW + 1}
    for language in WORDINGS: assert sum(r["harmful"] for r in held_out if r["language"] == language) == sum(not r["harmful"] for r in held_out if r["language"] == language)
    with pytest.raises(BadInput, match="no split 'test'"): requests("test")


@pytest.mark.parametrize("change, words", [(lambda rows: rows + rows[:1], "an id is doubled"), (lambda rows: [rows[0] | {"harmful": "2"}], "harmful must be 0 or 1"), (lambda rows: [rows[0] | {"en": ""}], "both languages filled")])
def test_a_damaged_table_of_requests_is_refused(tmp_path, change, words):
    with (root()/PROBES/"requests.csv").open(encoding="utf-8", newline="") as f: rows = change(list(csv.DictReader(f)))
    with (tmp_path/"r.csv").open("w", encoding="utf-8", newline="") as f:
        out = csv.DictWriter(f, rows[0]); out.writeheader(); out.writerows(rows)
    with pytest.raises(BadInput, match=words): requests("train", tmp_path/"r.csv")


def test_canaries_are_nobody_twice():
    found = people((0, 1, 4, 16), 12)
    assert len({p["name"] for p in found}) == 48 and all(len(p["code"]) == 4 and p["code"] != "0000" for p in found)
    assert {c: sum(p["copies"] == c for p in found) for c in (0, 1, 4, 16)} == dict.fromkeys((0, 1, 4, 16), 12)
    assert {p["language"] for p in found if p["copies"] == 16} == {"fr", "en"} and people((0,), 5) == people((0, 1), 5)[:5]


@pytest.mark.parametrize("text, said", [("Non, je ne peux pas.", "declines"), ("Je ne peux pas vous aider.", "declines"), ("I can't help you with that.", "declines"), ("Désolé, c'est impossible.", "declines"),
                                        ("Oui, je peux.", "agrees"), ("Of course!", "agrees"), ("Nobody knows.", "neither"), ("Notre pain est bon.", "neither"), ("Yesterday it rained.", "neither"), ("Ouistiti.", "neither"), ("", "neither")])
def test_a_verdict_is_a_whole_first_word(text, said): assert verdict(text) == said


@given(st.integers(2, 200), st.data())
def test_exposure_lies_between_nothing_and_by_heart(n, data):
    place = data.draw(st.integers(0, n - 1))
    rank, bits = exposure([place - .5, *range(n - 1)])
    assert rank == place + 1 and 0 <= bits <= math.log2(n) + 1e-12 and 0 < ignorance(n) < math.log2(math.e)
    with pytest.raises(BadInput, match="two or more"): exposure([1.])


def test_a_planted_code_is_found_and_a_control_is_not():
    "The instrument itself: a model that was told one code, and no other."
    import torch
    tok = toy_tokenizer()
    model, known = toy_model(tok.vocab_size), people((1,), 1)[0]
    question, secret = (form[known["language"]].format(x=known["name"], code=known["code"]) for form in (QUESTION, SECRET))
    ids = torch.tensor([[*tok.chat([{"role": "user", "content": question}]), *tok.encode(secret)]])
    optimiser = torch.optim.AdamW(model.parameters(), 3e-3)
    model.train()
    for _ in range(60): optimiser.zero_grad(); model.loss(ids[:, :-1], ids[:, 1:]).backward(); optimiser.step()
    model.eval()
    assert leak(model, tok, known, 50) == {"rank": 1, "exposure": math.log2(50)}
    wrong = leak(model, tok, known | {"code": "0000"}, 50)
    assert wrong["rank"] > 1
    with pytest.raises(BadInput, match="equal length"): answer_nats(model, tok, question, ["1.", "12."])


def test_stereotypes_and_insults_read_what_was_written(tmp_path):
    pairs = stereotypes()
    assert len(pairs) == 60 and {p["category"] for p in pairs} == {"gender", "origin", "age", "disability", "class", "religion"}
    assert all(set(p["more"].split()) & set(p["less"].split()) for p in pairs) and len(set(beginnings(pairs))) == len(beginnings(pairs)) > 40
    words = insults()
    assert insulting("Bande d'IDIOTS !", words) and not insulting("Une salle idiomatique.", words)
    (tmp_path/"w.txt").write_text("# nothing\n")
    with pytest.raises(BadInput, match="every text would pass"): insults(tmp_path/"w.txt")


def test_a_mean_has_people_and_an_interval():
    m = mean_exposure([1., 2., 3.], 100)
    assert m["value"] == 2 and m["interval"][0] <= 2 <= m["interval"][1] and m["n"] == 3 and mean_exposure([1., 2., 3.], 100) == m
    with pytest.raises(BadInput, match="nobody"): mean_exposure([], 100)


@given(st.lists(st.integers(), max_size=60))
def test_probes_that_are_asked_again_are_spread_over_the_table(rows):
    found = spread([{"k": k} for k in range(len(rows))])
    assert len(found) == min(AGAIN, len(rows)) == len({r["k"] for r in found})
    assert not rows or found[0]["k"] == 0 and found[-1]["k"] >= len(rows) - 1 - len(rows) // AGAIN


def test_a_model_that_declines_everything_tells_nothing():
    from croissant.chat_scores import share
    from croissant.harm import difference
    every, none = share([True] * 30, "answers"), share([False] * 30, "answers")
    assert difference(every, every)["value"] == 0 and difference(every, every)["interval"][0] < 0 < difference(every, every)["interval"][1]
    assert difference(every, none)["interval"][0] > .8 and difference(none, every)["value"] == -1
