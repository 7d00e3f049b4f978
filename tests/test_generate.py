"Generation: the same ids with and without a cache and in `transformers`, whole characters, and clear ends."
from dataclasses import replace

import pytest
import torch

from croissant.checkpoint import save_model
from croissant.generate import ENDS, distribution, draw, generate, penalise, stream_text
from croissant.model import PRESETS, Llama, toy_model
from croissant.params import BadInput
from croissant.tokenizer import toy_tokenizer


@pytest.fixture(scope="module")
def tokenizer(): return toy_tokenizer()


@pytest.fixture(scope="module")
def model(tokenizer):
    "Untrained, with larger weights so that its choices are clear-cut."
    m = toy_model(tokenizer.vocab_size, 1)
    with torch.no_grad():
        for p in m.parameters():
            if p.dim() == 2: p.mul_(8)
    return m


class Bytes:
    "A tokenizer whose ids are bytes, to see ids through the text."
    eos_id = 0
    def encode(self, text, bos=False): return [1] * bos + list(text.encode())
    def token_bytes(self, i): return bytes([i])


def end_of(parts):
    text = ""
    while True:
        try: text += next(parts)
        except StopIteration as e: return text, e.value


def recorded(tokenizer):
    "A tokenizer that remembers the ids it was asked to decode."
    class Recorder:
        ids: list = []
        eos_id, bos_id = tokenizer.eos_id, tokenizer.bos_id
        def encode(self, *a, **k): return tokenizer.encode(*a, **k)
        def token_bytes(self, i): self.ids.append(i); return tokenizer.token_bytes(i)
    r = Recorder(); r.ids = []
    return r


@pytest.mark.parametrize("dials", [{"temperature": 0}, {"temperature": 1.3, "top_k": 0, "top_p": 1.}, {"temperature": .7, "repetition_penalty": 1.3, "seed": 4}])
def test_cached_equals_uncached(model, tokenizer, dials):
    ids = []
    for cached in (True, False):
        r = recorded(tokenizer)
        list(generate(model, r, "Le café près de l'église " * 8, 40, cached=cached, **dials)); ids.append(r.ids)
    assert ids[0] == ids[1] and len(ids[0]) > 5


@pytest.mark.parametrize("penalty", [1.0, 1.4])
def test_greedy_equals_transformers(model, tokenizer, tmp_path, penalty):
    from transformers import LlamaForCausalLM
    theirs = LlamaForCausalLM.from_pretrained(save_model(model, tokenizer, tmp_path/"m"), dtype=torch.float32)
    prompt, r = tokenizer.encode("La forêt est", bos=True), recorded(tokenizer)
    list(generate(model, r, prompt, 30, temperature=0, repetition_penalty=penalty))
    found = theirs.generate(torch.tensor([prompt]), max_new_tokens=30, do_sample=False, repetition_penalty=penalty, pad_token_id=3)[0, len(prompt):].tolist()
    assert r.ids == [i for i in found if i != tokenizer.eos_id]


@pytest.mark.parametrize("temperature, top_k, top_p", [(.5, 0, 1.), (1., 7, 1.), (1.7, 0, .6), (.8, 20, .9), (1., 1, 1.), (3., 0, 1e-6)])
def test_distribution_equals_transformers(temperature, top_k, top_p):
    from transformers import LogitsProcessorList, TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper
    z = torch.randn(50, generator=torch.Generator().manual_seed(2)) * 3
    warpers = [TemperatureLogitsWarper(temperature), *([TopKLogitsWarper(top_k)] if top_k else []), *([TopPLogitsWarper(top_p)] if top_p < 1 else [])]
    want = LogitsProcessorList(warpers)(torch.zeros(1, 1, dtype=torch.long), z[None].double()).softmax(-1)[0]
    torch.testing.assert_close(distribution(z, temperature, top_k, top_p), want)


def test_penalty_and_draw():
    z = torch.tensor([2., -2., 0., 4.])
    assert penalise(z, [0, 1, 2], 2.).tolist() == [1., -4., 0., 4.] and z.tolist() == [2., -2., 0., 4.]
    g = torch.Generator().manual_seed(0)
    assert {draw(torch.tensor([0., .5, 0., .5, 0.]), g) for _ in range(60)} == {1, 3}
    assert draw(torch.tensor([0., 0., 1.]), g) == 2
    assert distribution(torch.zeros(4), 0).tolist() == [1, 0, 0, 0]


def test_seed(model, tokenizer):
    a, b, c = ("".join(generate(model, tokenizer, "Le", 30, 1.5, 0, 1., seed=s)) for s in (1, 1, 2))
    assert a == b != c


@pytest.mark.parametrize("text", ["Où ? À l'été, ça va : œuf, « naïf ».", "🥐👩‍👩‍👧 日本 e\u0301", "a\u0000b", ""])
def test_stream_keeps_characters_whole(text):
    parts = list(stream_text(text.encode(), Bytes()))
    assert "".join(parts) == text and "�" not in "".join(parts) and all(parts)


def test_stream_says_what_is_broken():
    assert "".join(stream_text(b"caf\xc3", Bytes())) == "caf�"
    assert "".join(stream_text(b"\xc3a\xff!", Bytes())) == "�a�!"


@pytest.mark.parametrize("stop, want, met", [(["fin"], "en", True), (["zz", "é"], "enfin, l'", True), (["!", "été"], "enfin, l'", True), (["enf"], "", True), (["non"], "enfin, l'été fi", False)])
def test_stop_strings(stop, want, met):
    for text in (["enfin, l'été fi"], list("enfin, l'été fi")):  # at once, or letter by letter
        ids = b"".join(t.encode() for t in text)
        assert end_of(stream_text(ids, Bytes(), stop)) == (want, met)


def test_text_is_not_delayed_without_need():
    seen = []
    def source():
        for b in b"abcstop": seen.append(b); yield b
    parts = stream_text(source(), Bytes(), ["stop"])
    assert next(parts) == "a" and seen == [97]


def test_ends(model, tokenizer):
    greedy = {"temperature": 0}
    r = recorded(tokenizer); list(generate(model, r, "Le", 6, **greedy))
    assert end_of(generate(model, tokenizer, "Le", 6, **greedy))[1] == "length" and len(r.ids) == 6
    again = recorded(tokenizer)
    assert end_of(generate(model, again, "Le", 6, stop_ids=[r.ids[3]], **greedy))[1] == "eos" and again.ids == r.ids[:r.ids.index(r.ids[3])]
    text = "".join(generate(model, tokenizer, "Le", 6, **greedy))
    assert end_of(generate(model, tokenizer, "Le", 6, stop=text[-1], **greedy)) == (text[:text.index(text[-1])], "stop")
    room = model.config.max_position_embeddings
    long = recorded(tokenizer)
    assert end_of(generate(model, long, [1] * (room - 4), 99, stop_ids=(), **greedy))[1] in ("context", "eos") and len(long.ids) <= 4
    assert {"eos", "stop", "length", "context"} == set(ENDS)


def test_context_end_is_exact(tokenizer):
    small = Llama(replace(PRESETS["toy"], vocab_size=tokenizer.vocab_size, max_position_embeddings=12))
    for cached in (True, False):
        r = recorded(tokenizer); r.eos_id = -1
        assert end_of(generate(small, r, [1] * 9, 50, 0, cached=cached))[1] == "context" and len(r.ids) == 3


def test_an_empty_prompt_is_the_begin_mark_alone(model, tokenizer):
    texts = ["".join(generate(model, tokenizer, p, 9, 0)) for p in ("", [tokenizer.bos_id], "Le")]
    assert texts[0] == texts[1] != texts[2] and texts[0]


def test_prompt_is_plain_text(model, tokenizer):
    r = recorded(tokenizer)
    prompts = []
    r.encode = lambda text, bos: prompts.append(tokenizer.encode(text, bos=bos)) or prompts[-1]
    list(generate(model, r, "</s><s>", 1))
    assert prompts[0][0] == tokenizer.bos_id and not {tokenizer.bos_id, tokenizer.eos_id} & set(prompts[0][1:])


@pytest.mark.parametrize("dials, message", [
    ({"temperature": -1}, "temperature"), ({"temperature": float("nan")}, "temperature"), ({"top_p": 0}, "top_p"), ({"top_k": -3}, "top_k"), ({"max_new_tokens": 0}, "max_new_tokens"),
    ({"repetition_penalty": 0}, "repetition_penalty"), ({"seed": -1}, "seed"), ({"seed": 10**30}, "seed"), ({"stop": ["a", ""]}, "empty stop"), ({"prompt": []}, "no tokens"), ({"prompt": [9999]}, "outside the model"), ({"prompt": "é" * 999}, "shorten the prompt")])
def test_refusals_come_at_once(model, tokenizer, dials, message):
    with pytest.raises(BadInput, match=message): generate(model, tokenizer, **{"prompt": "Le"} | dials)


def test_diverged_model(tokenizer):
    broken = toy_model(tokenizer.vocab_size)
    with torch.no_grad(): broken.lm_head.weight[3] = float("nan")
    with pytest.raises(BadInput, match="diverged"): list(generate(broken, tokenizer, "Le", 3))


def test_bfloat16_model(model, tokenizer):
    half = toy_model(tokenizer.vocab_size).bfloat16()
    assert "".join(generate(half, tokenizer, "Le", 8, 0)) == "".join(generate(half, tokenizer, "Le", 8, 0))
