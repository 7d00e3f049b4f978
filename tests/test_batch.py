"Batches: every row is what `generate` gives it alone, whoever is beside it."
from dataclasses import replace

import pytest
import torch
from conftest import EXHAUSTIVE
from hypothesis import given, settings, strategies as st

from croissant.batch import Reply, _batches, _Rows, _Text, generate_batch
from croissant.generate import generate, stream_text
from croissant.model import PRESETS, Llama, toy_model
from croissant.params import BadInput
from croissant.tokenizer import toy_tokenizer

TEXTS = ["", "Le", "La porte est", "Les forêts sont vertes l'été", "Le chat est gris le matin, près de l'église.", "Un 🥐 au café ! " * 4]


@pytest.fixture(scope="module")
def tokenizer(): return toy_tokenizer()


def clear_cut(model):
    "The same model with larger weights, so that its choices differ from place to place."
    with torch.no_grad():
        for p in model.parameters():
            if p.dim() == 2: p.mul_(8)
    return model


@pytest.fixture(scope="module")
def model(tokenizer): return clear_cut(toy_model(tokenizer.vocab_size, 1))


class Recorder:
    "A tokenizer that remembers the ids it was asked to spell."
    def __init__(self, tokenizer): self.inner, self.ids, self.eos_id = tokenizer, [], tokenizer.eos_id
    def encode(self, *a, **k): return self.inner.encode(*a, **k)
    def token_bytes(self, i): self.ids.append(i); return self.inner.token_bytes(i)


def alone(model, tokenizer, prompt, **dials):
    "What `generate` gives, as a `Reply`."
    r, text = Recorder(tokenizer), ""
    parts = generate(model, r, prompt, **dials)
    while True:
        try: text += next(parts)
        except StopIteration as e: return Reply(text, tuple(r.ids), e.value)


@pytest.mark.parametrize("dials", [
    {"temperature": 0}, {"temperature": 0, "repetition_penalty": 1.3}, {"temperature": 1.3, "top_k": 0, "top_p": 1.}, {"temperature": .7, "top_k": 5}, {"temperature": .9, "top_p": .5, "repetition_penalty": 1.2},
    {"temperature": 1., "stop": ["e", "é"]}, {"temperature": 0, "stop": "la"}])
@pytest.mark.parametrize("cached", [True, False])
def test_a_row_is_what_it_would_be_alone(model, tokenizer, dials, cached):
    for start in (0, 40, 123456789) if EXHAUSTIVE else (0, 123456789):
        seeds = [start + n for n in range(len(TEXTS))]
        found = generate_batch(model, tokenizer, TEXTS, 30, seeds=seeds, **dials)
        assert found == [alone(model, tokenizer, t, max_new_tokens=30, seed=s, cached=cached, **dials) for t, s in zip(TEXTS, seeds)]
        if not cached or dials["temperature"] == 0: break   # the likeliest piece asks no seed


def test_grouped_queries_and_bfloat16(tokenizer):
    grouped = clear_cut(Llama(replace(PRESETS["lab-2x128"], vocab_size=tokenizer.vocab_size, num_attention_heads=4, num_key_value_heads=2), 3))
    assert generate_batch(grouped, tokenizer, TEXTS, 25, 1., seeds=5) == [alone(grouped, tokenizer, t, max_new_tokens=25, temperature=1., seed=5) for t in TEXTS]
    half = toy_model(tokenizer.vocab_size).bfloat16()      # too coarse to agree with another order of sums; it must work all the same
    assert [r.ended for r in generate_batch(half, tokenizer, TEXTS[:3], 8, 0)] == ["length"] * 3


def test_company_order_and_width_change_nothing(model, tokenizer):
    dials = {"temperature": 1.2, "top_k": 0, "stop_ids": range(6, 60)}
    first = generate_batch(model, tokenizer, TEXTS, 40, seeds=range(6), **dials)
    assert len({len(r.ids) for r in first}) > 2                                     # rows leave at different moments
    assert generate_batch(model, tokenizer, TEXTS[::-1], 40, seeds=range(6)[::-1], **dials) == first[::-1]
    for width in (1, 90, 300): assert generate_batch(model, tokenizer, TEXTS, 40, seeds=range(6), batch_tokens=width, **dials) == first
    assert [generate_batch(model, tokenizer, [t], 40, seeds=s, **dials)[0] for s, t in enumerate(TEXTS)] == first


@settings(max_examples=25)
@given(st.lists(st.tuples(st.lists(st.integers(0, 599), min_size=1, max_size=24), st.integers(0, 2**31)), min_size=1, max_size=7), st.integers(1, 12))
def test_any_ids_and_seeds(rows, steps):
    tokenizer = toy_tokenizer()
    small = clear_cut(Llama(replace(PRESETS["toy"], vocab_size=tokenizer.vocab_size, max_position_embeddings=28), 2))
    found = generate_batch(small, tokenizer, [ids for ids, _ in rows], steps, 1.1, 0, 1., seeds=[s for _, s in rows])
    assert found == [alone(small, tokenizer, ids, max_new_tokens=steps, temperature=1.1, top_k=0, top_p=1., seed=s) for ids, s in rows]


def test_logits_are_those_of_the_model(model, tokenizer):
    prompts = [tokenizer.encode(t, bos=True) for t in TEXTS]
    with torch.no_grad():
        rows = _Rows(model, prompts, 120)
        rows.read()
        for piece in (40, 41, 42): logits = rows.step(torch.full((len(prompts),), piece))
        for r, p in enumerate(prompts): torch.testing.assert_close(logits[r], model(torch.tensor([[*p, 40, 41, 42]]))[0, -1], rtol=1e-3, atol=1e-3)
        rows.leave(1); order = [0, 5, 2, 3, 4]                                      # the last took the place of the second
        logits = rows.step(torch.full((5,), 43))
        for r, n in enumerate(order): torch.testing.assert_close(logits[r], model(torch.tensor([[*prompts[n], 40, 41, 42, 43]]))[0, -1], rtol=1e-3, atol=1e-3)


def written(tokenizer, prompt, script, stop=(), steps=99, room=99, ends=()):
    "Feed a script to one row, as `generate_batch` does."
    t = _Text(list(prompt), torch.Generator(), list(stop))
    for piece in script:
        if t.add(piece, tokenizer, steps, room, {tokenizer.eos_id, *ends}): break
    return t.reply(tokenizer)


@pytest.mark.parametrize("stop, text, ended", [((), "l'été 🥐 fin", "eos"), (["é"], "l'", "stop"), (["té 🥐", "zz"], "l'é", "stop"), (["🥐"], "l'été ", "stop"), (["l"], "", "stop"), (["fine"], "l'été 🥐 fin", "eos")])
def test_stop_strings_and_whole_characters(tokenizer, stop, text, ended):
    script = [tokenizer.id_of(f"<0x{b:02X}>") for b in "l'été 🥐 fin".encode()] + [tokenizer.eos_id, 40]
    found = written(tokenizer, [1], script, stop)
    assert (found.text, found.ended) == (text, ended)
    assert all("�" not in part for part in stream_text(found.ids, tokenizer, stop))
    if ended == "stop": assert len(found.ids) < len(script) - 2                     # it ended at the stop string


def test_a_torn_character_is_said(tokenizer):
    script = [tokenizer.id_of(f"<0x{b:02X}>") for b in "été".encode()]
    assert written(tokenizer, [1], script, steps=4) == Reply("ét�", tuple(script[:4]), "length")
    assert written(tokenizer, [1], script, stop=["�"], steps=4).ended == "stop"      # as `generate`, which looks at the last moment too


def test_ends_in_the_order_of_generate(tokenizer):
    assert written(tokenizer, [1, 1], [40, 41, 42], steps=3).ended == "length"
    assert written(tokenizer, [1, 1], [40, 41, 42], steps=3, room=4) == Reply(tokenizer.decode([40, 41]), (40, 41), "context")
    assert written(tokenizer, [1, 1], [40, 41, 42], steps=2, room=4).ended == "length"   # both at once
    assert written(tokenizer, [1, 1], [40, 41, 42], ends=[41]) == Reply(tokenizer.decode([40]), (40,), "eos")
    assert written(tokenizer, [1, 1], [2]) == Reply("", (), "eos")


def test_batches_hold_all_and_not_too_much(tokenizer):
    texts = [_Text([1] * n, torch.Generator(), []) for n in (3, 50, 7, 7, 20, 1)]
    found = _batches(texts, 60, 10, 40)
    assert sorted(map(id, texts)) == sorted(id(t) for b in found for t in b)
    assert all(len(b) == 1 or len(b) * min(40, b[0].read + 10) <= 60 for b in found) and max(map(len, found)) > 1


def test_the_generator_of_torch_is_left_alone(model, tokenizer):
    torch.manual_seed(3); before = torch.get_rng_state()
    generate_batch(model, tokenizer, TEXTS[:2], 5, 1.)
    assert torch.equal(before, torch.get_rng_state()) and torch.is_grad_enabled()


@pytest.mark.parametrize("given_, message", [
    ({"prompts": ["Le", "é" * 999]}, "prompt 1: .*shorten the prompt"), ({"prompts": ["Le", []]}, "prompt 1: .*no tokens"), ({"prompts": [[9999]]}, "prompt 0: .*outside the model"), ({"prompts": "Le"}, "one string"),
    ({"seeds": [1, 2]}, "2 for 1 prompts"), ({"seeds": [-1]}, "prompt 0: .*seed"), ({"top_p": 0}, "top_p"), ({"temperature": float("nan")}, "temperature"), ({"stop": ""}, "empty stop"), ({"batch_tokens": 0}, "batch_tokens"),
    ({"max_new_tokens": 0}, "max_new_tokens")])
def test_refusals(model, tokenizer, given_, message):
    with pytest.raises(BadInput, match=message): generate_batch(model, tokenizer, **{"prompts": ["Le"]} | given_)


def test_diverged_model(tokenizer):
    broken = toy_model(tokenizer.vocab_size)
    with torch.no_grad(): broken.lm_head.weight[3] = float("nan")
    with pytest.raises(BadInput, match="diverged"): generate_batch(broken, tokenizer, ["Le", "La"], 3)


def test_nothing_to_write(model, tokenizer): assert generate_batch(model, tokenizer, []) == []
