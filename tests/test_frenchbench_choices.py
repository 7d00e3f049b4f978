"""Scores of choices: equal to one sequence at a time, to the harness, in any batch; shared beginnings read once; greedy answers written together as alone."""
import importlib
import random
import warnings

import numpy as np
import pytest
import torch

from croissant.checkpoint import save_model
from croissant.frenchbench import choices as module
from croissant.frenchbench.choices import (Answer, LlamaReader, TransformersReader, choice_log_probs, encode_requests, generate_until, rolling_log_probs,
                                           rolling_windows, score_pairs_of_ids, shared_lengths)
from croissant.model import Llama, ModelConfig, toy_model
from croissant.params import BadInput
from croissant.tokenizer import toy_tokenizer

EXAMPLES = "Question : où dort le chat ?\nRéponse : près de l'église.\n\n" * 4
WORDS = "le la chat forêt église dort verte été à où élève garçon voit près de l'aube noir grand".split()


def some_requests(n=24, seed=0):
    "Questions behind shared examples, without examples, without anything, and with white space at the end."
    r = random.Random(seed)
    say = lambda k: " ".join(r.choice(WORDS) for _ in range(k))
    found = []
    for i in range(n):
        question = f"{say(r.randint(2, 9))} ?\n" + "Réponse :" * (i % 2)
        context = (EXAMPLES + question, question, "", say(4) + " ")[i % 4]
        found.append((context, tuple(dict.fromkeys(" " * (i % 4 != 3) + say(r.randint(1, 6)) for _ in range(r.randint(1, 4))))))
    return found


def by_hand(logits_of, pair):
    "One sequence at a time, with the head on every row."
    context, ending = pair
    with torch.no_grad(): rows = logits_of(torch.tensor([[*context, *ending][:-1]]))[0].double().log_softmax(-1)[-len(ending):]
    y = torch.tensor(ending)
    return rows.gather(1, y[:, None]).sum().item(), bool((rows.argmax(-1) == y).all())


@pytest.fixture(scope="module")
def tokenizer(): return toy_tokenizer()


def sharp(config, seed=1):
    "A random model whose logits differ enough for a wrong mask to show."
    model = Llama(config, seed)
    with torch.no_grad():
        for p in model.parameters():
            if p.dim() > 1: p.mul_(6)
    return model.eval()


@pytest.fixture(scope="module")
def model(tokenizer): return sharp(ModelConfig(tokenizer.vocab_size, 48, 96, 3, 4, 2, max_position_embeddings=512))


@pytest.fixture(scope="module")
def folder(model, tokenizer, tmp_path_factory): return save_model(model, tokenizer, tmp_path_factory.mktemp("hf")/"modèle")


@pytest.fixture(scope="module")
def peer(folder):
    from transformers import AutoModelForCausalLM
    return AutoModelForCausalLM.from_pretrained(folder).eval()


@pytest.fixture(scope="module")
def peer_tokenizer(folder):
    from transformers import AutoTokenizer
    return AutoTokenizer.from_pretrained(folder)


def flat(scored): return np.concatenate([s.log_probs for s in scored]), np.concatenate([s.greedy for s in scored])


@pytest.fixture(scope="module")
def expected(model, tokenizer): return [by_hand(model, p) for pairs in encode_requests(tokenizer, some_requests()) for p in pairs]


@pytest.mark.parametrize("batch_tokens", [1, 50, 400, 10**6])
def test_equal_to_one_sequence_at_a_time_in_any_batch(model, tokenizer, expected, batch_tokens):
    requests = some_requests()
    total, greedy = flat(choice_log_probs(model, tokenizer, requests, batch_tokens))
    assert np.abs(total - [e[0] for e in expected]).max() < 1e-4 and greedy.tolist() == [e[1] for e in expected]


def test_equal_through_transformers(model, peer, tokenizer, peer_tokenizer):
    requests = some_requests()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        reader = TransformersReader(peer)
    assert reader.trees and reader.head is not None and reader.inner is not None
    by_itself = TransformersReader(peer)
    by_itself.inner = None                       # by the model's own forward
    ours = choice_log_probs(model, tokenizer, requests)
    for budget, r in ((50, reader), (1024, reader), (50, by_itself), (1024, by_itself)):
        theirs = choice_log_probs(r, peer_tokenizer, requests, budget)
        assert np.abs(flat(ours)[0] - flat(theirs)[0]).max() < 1e-4 and [s.tokens for s in ours] == [s.tokens for s in theirs]


def test_onednn_gives_the_same_scores_where_it_may_be_used(model, peer, tokenizer):
    requests = some_requests()
    expected = flat(choice_log_probs(model, tokenizer, requests))
    for m in (model, peer):
        reader = module.reader_of(m, onednn=True)
        if not getattr(reader, "inner", reader).onednn: pytest.skip("this build of torch has no such product")
        found = flat(choice_log_probs(reader, tokenizer, requests))
        assert np.abs(found[0] - expected[0]).max() < 1e-4 and (found[1] == expected[1]).all()
    assert not LlamaReader(toy_model(tokenizer.vocab_size).bfloat16(), onednn=True).onednn


def harness(peer, peer_tokenizer, **how):
    lm = importlib.import_module("lm_eval.models.huggingface")
    return lm.HFLM(pretrained=peer, tokenizer=peer_tokenizer, **{"batch_size": 4, "max_length": 512} | how)


def asked(kind, arguments):
    from lm_eval.api.instance import Instance
    return [Instance(request_type=kind, doc={}, arguments=a, idx=0) for a in arguments]


@pytest.mark.parametrize("bos", [None, False])
def test_equal_to_the_harness(model, peer, tokenizer, peer_tokenizer, bos):
    lm, requests = harness(peer, peer_tokenizer, **({} if bos is None else {"add_bos_token": bos})), some_requests()
    out = lm.loglikelihood(asked("loglikelihood", [(c, x) for c, xs in requests for x in xs]), disable_tqdm=True)
    total, greedy = flat(choice_log_probs(model, tokenizer, requests, bos=bos))
    assert np.abs(total - [o[0] for o in out]).max() < 1e-4 and greedy.tolist() == [o[1] for o in out]


def test_truncation_is_the_harness_one(model, peer, tokenizer, peer_tokenizer):
    lm, requests = harness(peer, peer_tokenizer), [(" ".join(WORDS) * 40, (" le chat", " la forêt verte"))]
    with pytest.raises(BadInput, match=r"arc test/17, choice 0: \d+ tokens of context .*512 positions.*truncate"): choice_log_probs(model, tokenizer, requests, names=["arc test/17"])
    out = lm.loglikelihood(asked("loglikelihood", [(c, x) for c, xs in requests for x in xs]), disable_tqdm=True)
    assert np.abs(flat(choice_log_probs(model, tokenizer, requests, truncate=True))[0] - [o[0] for o in out]).max() < 1e-4
    with pytest.raises(BadInput, match="request 0, choice 0: the continuation alone"): choice_log_probs(model, tokenizer, [("le", (" chat" * 600,))], truncate=True)


@pytest.mark.parametrize("how, compat", [({}, "harness"), ({"add_bos_token": False}, "")])
def test_rolling_is_the_harness_one(model, peer, tokenizer, peer_tokenizer, how, compat):
    lm, texts = harness(peer, peer_tokenizer, max_length=32, **how), [" ".join(WORDS) * k for k in (1, 3, 7)] + ["Ça va ?"]
    out = lm.loglikelihood_rolling(asked("loglikelihood_rolling", [(t,) for t in texts]), disable_tqdm=True)
    for m, t in ((model, tokenizer), (peer, peer_tokenizer)):
        assert np.abs(rolling_log_probs(m, t, texts, context=32, compat=compat) - np.array(out)).max() < 1e-4 * max(1, max(-o for o in out) / 1000)


def test_answers_are_the_harness_ones(model, peer, tokenizer, peer_tokenizer):
    lm, prompts = harness(peer, peer_tokenizer), [c for c, _ in some_requests(12) if c.strip() and not c.endswith(" ")]
    out = lm.generate_until(asked("generate_until", [(p, {"until": ["é", "\n"], "max_gen_toks": 12, "do_sample": False}) for p in prompts]), disable_tqdm=True)
    found = generate_until(peer, peer_tokenizer, prompts, ("é", "\n"), 12)
    assert [a.text for a in found] == out and {a.ended for a in found} <= {"stop", "eos", "length"}


@pytest.mark.parametrize("batch_tokens", [1, pytest.param(300, marks=pytest.mark.exhaustive), 10**6])
def test_answers_written_together_are_those_written_alone(model, peer, tokenizer, peer_tokenizer, batch_tokens):
    prompts = [c for c, _ in some_requests(16)] + ["Ça va"] * 2
    for m, t in ((model, tokenizer), (peer, peer_tokenizer)):
        alone = [generate_until(m, t, [p], ("é",), 15)[0] for p in prompts]
        assert generate_until(m, t, prompts, ("é",), 15, batch_tokens) == alone
    for p, a in zip(prompts[:4], alone):             # and those of no cache at all
        ids = encode_requests(tokenizer, [(p or "", ("x",))])[0][0][0] if not p.endswith((" ", "\n")) else tokenizer.encode(p, bos=True)
        for wanted in a.ids:
            with torch.no_grad(): assert model(torch.tensor([ids]))[0, -1].argmax() == wanted
            ids = [*ids, wanted]


def test_a_stop_string_an_end_mark_and_a_length_end_an_answer(tokenizer):
    class Says:
        "A reader that recites, whatever it has read."
        positions, trees, width, device = 64, False, 8, torch.device("cpu")
        def __init__(self, ids): self.said = list(ids)
        def states(self, ids, at, mask, past=None, keep=False, rows=None):
            return torch.nn.functional.one_hot(torch.tensor([[self.said.pop(0)] * ids.shape[1]]), tokenizer.vocab_size).float(), []
        def logits(self, states): return states
    module_reader, said = module.reader_of, tokenizer.encode("le chat.\n\nla forêt")
    try:
        module.reader_of = lambda m: m
        assert generate_until(Says(said), tokenizer, ["a"], ("\n",), 20)[0].text == "le chat."
        assert generate_until(Says(said), tokenizer, ["a"], ("t.\n", "chat"), 20)[0].text == "le "        # the first in the text, not in the list
        assert generate_until(Says([*said[:2], tokenizer.eos_id]), tokenizer, ["a"], ("\n",), 20)[0] == Answer(tokenizer.decode(said[:2]), tuple(said[:2]), "eos")
        assert generate_until(Says(said), tokenizer, ["a"], (), 3)[0] == Answer(tokenizer.decode(said[:3]), tuple(said[:3]), "length")
    finally: module.reader_of = module_reader


class Counting(LlamaReader):
    "Counts what is read and what meets the head."
    def __init__(self, model): super().__init__(model); self.read = self.head = self.calls = 0
    def states(self, ids, *more, **named): self.read += ids.numel(); self.calls += 1; return super().states(ids, *more, **named)
    def logits(self, states): self.head += len(states); return super().logits(states)


def test_a_header_is_read_once_and_the_head_meets_what_predicts(model):
    header, r = list(range(100, 300)), random.Random(0)
    pairs = [([1, *header, 40 + q, 50 + q, 60 + q], [r.randrange(300, 500) for _ in range(3)]) for q in range(30) for _ in range(4)]
    reader = Counting(model)
    score_pairs_of_ids(reader, pairs, 256)
    assert reader.read == 201 + 30 * (3 + 4 * 2) and reader.head == 30 * (1 + 4 * 2)
    again = Counting(model)
    score_pairs_of_ids(again, pairs, 256)
    assert (again.read, again.head) == (reader.read, reader.head)


def test_headers_nest_and_deep_forks_end(model):
    r = random.Random(1)
    first, second = [r.randrange(9, 500) for _ in range(80)], [[r.randrange(9, 500) for _ in range(60)] for _ in range(3)]
    pairs = [([1, *first, *second[i % 3], r.randrange(9, 500)], [r.randrange(9, 500) for _ in range(2)]) for i in range(36)]
    line = [r.randrange(9, 500) for _ in range(400)]
    pairs += [(line[:k], [line[k], 7]) for k in range(1, 398)]       # forks inside forks, deeper than any stack should go
    reader = Counting(model)
    total, _ = score_pairs_of_ids(reader, pairs, 128)
    some = [*range(0, 36, 5), *range(36, len(pairs), 60)]
    assert np.abs(total[some] - [by_hand(model, pairs[i])[0] for i in some]).max() < 2e-4
    nested = Counting(model)
    score_pairs_of_ids(nested, pairs[:36], 128)
    assert nested.read == 81 + 3 * 60 + 36 * 2


def test_equal_choices_and_repeated_requests_get_equal_scores(model, tokenizer):
    once = choice_log_probs(model, tokenizer, [("Le chat", (" dort", " voit", " dort"))])
    thrice = choice_log_probs(model, tokenizer, [("Le chat", (" dort", " voit", " dort"))] * 3)
    assert once[0].log_probs[0] == once[0].log_probs[2] and all(np.allclose(t.log_probs, once[0].log_probs, atol=1e-6) for t in thrice)
    assert choice_log_probs(model, tokenizer, []) == [] and generate_until(model, tokenizer, []) == [] and not len(rolling_log_probs(model, tokenizer, []))


@pytest.mark.parametrize("name, options", [("GPT2", dict(n_embd=32, n_layer=2, n_head=2, n_positions=256)),
                                           ("GPTNeoX", dict(hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64)),
                                           ("Gemma2", dict(hidden_size=32, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=1, head_dim=16, intermediate_size=64)),
                                           ("Granite", dict(hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64, logits_scaling=3.)),
                                           ("Bloom", dict(hidden_size=32, n_layer=2, n_head=2)),
                                           ("Mamba", dict(hidden_size=32, num_hidden_layers=2, state_size=8))])
def test_other_models_of_transformers(tokenizer, name, options):
    import transformers
    torch.manual_seed(0)
    config = getattr(transformers, name + "Config")(vocab_size=tokenizer.vocab_size, initializer_range=.3, pad_token_id=0, **options)
    other = transformers.AutoModelForCausalLM.from_config(config).eval()
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        reader = TransformersReader(other)
    assert reader.trees == (name in ("GPT2", "GPTNeoX", "Granite")) == (not [w for w in told if "cannot read trees" in str(w.message)])
    assert (reader.head is None) == (name not in ("GPT2", "GPTNeoX"))
    requests = some_requests(8)
    expected = [by_hand(lambda ids: other(input_ids=ids).logits, p) for pairs in encode_requests(tokenizer, requests) for p in pairs]
    total, greedy = flat(choice_log_probs(reader, tokenizer, requests, 64))
    assert np.abs(total - [e[0] for e in expected]).max() < 1e-3 and greedy.tolist() == [e[1] for e in expected]
    prompts = [c for c, _ in requests[:5]]
    assert [a.ids for a in generate_until(reader, tokenizer, prompts, (), 4)] == [generate_until(reader, tokenizer, [p], (), 4)[0].ids for p in prompts]


def test_what_cannot_be_scored_is_refused_by_name(model, tokenizer):
    for requests, message in (([("Le chat", ())], "request 0: no choices"), ([("Le chat", (" dort",)), ("Le chat", (" dort", ""))], r"request 1, choice 1 \(''\): no token"),
                              ([("", ("",))], r"request 0, choice 0 \(''\)")):
        with pytest.raises(BadInput, match=message): choice_log_probs(model, tokenizer, requests)
    with pytest.raises(BadInput, match="batch_tokens is 0"): choice_log_probs(model, tokenizer, [("Le", (" chat",))], 0)
    with pytest.raises(BadInput, match="text 1: empty"): rolling_log_probs(model, tokenizer, ["Le chat", ""])
    for context in (-1, 513):
        with pytest.raises(BadInput, match=f"context is {context}"): rolling_log_probs(model, tokenizer, ["Le chat"], context=context)
    with pytest.raises(BadInput, match="compat is 'paper'"): rolling_log_probs(model, tokenizer, ["Le chat"], compat="paper")
    with pytest.raises(BadInput, match="empty stop string"): generate_until(model, tokenizer, ["Le"], ("",))
    with pytest.raises(BadInput, match="max_tokens is 0"): generate_until(model, tokenizer, ["Le"], max_tokens=0)
    with pytest.raises(BadInput, match="max_tokens is 600"): generate_until(model, tokenizer, ["Le"], max_tokens=600)
    with pytest.raises(BadInput, match=r"trivia 4: \d+ tokens and 8 to write"): generate_until(model, tokenizer, ["le chat " * 400], max_tokens=8, names=["trivia 4"])
    assert generate_until(model, tokenizer, ["le chat " * 400], (), max_tokens=8, truncate=True)[0].ended in ("length", "eos")


def test_windows_cover_a_text_once():
    for n in range(1, 40):
        for room in (1, 3, 8, 50):
            ids = list(range(10, 10 + n))
            found = rolling_windows(ids, 1, room)
            assert [i for _, ending in found for i in ending] == ids and all(len(c) + len(e) - 1 <= room and c for c, e in found)
            assert all(([1, *ids][:ids.index(e[0]) + 1])[-len(c):] == c for c, e in found)


def test_neighbours_know_what_they_share():
    assert shared_lengths([]) == [] and shared_lengths([[1]]) == [0] and shared_lengths([[1, 2], [1, 2, 3], [1, 4], [2]]) == [0, 2, 1, 0]


def test_the_two_readers_meet_the_toy_model(tokenizer):
    toy = toy_model(tokenizer.vocab_size, seed=3)
    assert isinstance(module.reader_of(toy), LlamaReader) and module.reader_of(reader := LlamaReader(toy)) is reader


def test_of_equally_probable_pieces_the_first_is_greedy(tokenizer):
    flat_model = toy_model(tokenizer.vocab_size)
    with torch.no_grad(): flat_model.lm_head.weight.zero_()
    total, greedy = score_pairs_of_ids(flat_model, [([1, 5], [0]), ([1, 5], [7]), ([1, 5], [0, 0]), ([1, 5], [0, 3])])
    assert greedy.tolist() == [True, False, True, False] and np.allclose(total, -np.log(tokenizer.vocab_size) * np.array([1, 1, 2, 2]))


@pytest.fixture(scope="module")
def script(load_benchmark):
    module = load_benchmark("frenchbench")
    module.WORDS, module.SHAPES = WORDS, {"short": (6, 2), "continuation": (8, 4), "passage": (14, 2)}
    module.MODEL = dict(module.MODEL, layers=1, hidden=32, ffn=48, heads=1, positions=2048)
    return module


def test_the_benchmark_invents_the_items_it_says(script):
    mixed, behind = script.items("mixed", 30), script.items("five examples", 6)
    assert mixed == script.items("mixed", 30) != script.items("mixed", 30, seed=1) and all(len(choices) == 4 for _, choices in mixed)
    assert all(x.startswith(" ") and x.strip() for _, choices in mixed for x in choices)
    headers = {c[:c.rindex("\n\n")] for c, _ in behind}
    assert len(headers) == 1 and headers.pop().count("Réponse:") == script.EXAMPLES and len({c for c, _ in behind}) == 6


def test_the_benchmark_compares_what_is_equal(script, tokenizer, tmp_path):
    from transformers import AutoModelForCausalLM, AutoTokenizer
    path = script.make_model(tmp_path/"m", tokenizer)
    model, hf_tokenizer = AutoModelForCausalLM.from_pretrained(path).eval(), AutoTokenizer.from_pretrained(path)
    script.BATCHES, script.outer = (2, 4), lambda n: 0
    rows = script.compared("mixed", 9, 3, model, hf_tokenizer, {"a": module.reader_of(model), "b": module.reader_of(model, onednn=True)}, n_trial=3)
    assert [(r["peer"], r["ours"]) for r in rows] == [(p, w) for p in ("lm_eval, hf", "lm_eval, hf, switched to oneDNN") for w in "ab"] and torch.get_float32_matmul_precision() == "highest"
    for row in rows: check(row)


def check(row):
    assert row["equal_acc"] and row["equal_acc_norm"] and row["equal_greedy"] and row["max_score_difference"] < 1e-3
    assert row["repeats"] == 3 and row["ratio_low"] <= row["ratio"] <= row["ratio_high"] and row["peer_batch_size"] in ("2", "4")


@pytest.mark.parametrize("maker, quicker", [("GenuineIntel", False), ("AuthenticAMD", True)])
def test_products_follow_the_maker_of_the_processor(maker, quicker, monkeypatch):
    from pathlib import Path
    from croissant.frenchbench.choices import onednn_is_quicker
    monkeypatch.setattr(torch.backends.mkl, "is_available", lambda: True)
    monkeypatch.setattr(Path, "is_file", lambda self: True)
    monkeypatch.setattr(Path, "read_text", lambda self: f"vendor_id : {maker}")
    assert onednn_is_quicker() is quicker
    monkeypatch.setattr(torch.backends.mkl, "is_available", lambda: False)
    assert onednn_is_quicker()
