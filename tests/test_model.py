"The model against `transformers`, its fast parts against the plain ones, and the properties a decoder must have."
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from croissant.checkpoint import hf_config
import croissant.model
from croissant.model import BLOCK, PRESETS, KVCache, Llama, ModelConfig, _chunk, _chunk_to_compile, _together, attention, count_parameters, flops_per_token, linear_cross_entropy, rope_table, toy_model
from croissant.params import BadInput
from croissant.provenance import load_table

SHAPES = {"plain": ModelConfig(97, 128, 160, 2, 2, max_position_embeddings=320), "grouped": ModelConfig(97, 256, 160, 2, 4, 2, max_position_embeddings=320),
          "one key head, tied": ModelConfig(97, 128, 160, 2, 2, 1, 320, rope_theta=5e4, tie_word_embeddings=True)}


def ids_of(config, batch, length, seed=0):
    return torch.randint(config.vocab_size, (batch, length), generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("implementation", ["auto", "sdpa", "blockwise"])
def test_logits_equal_transformers(name, implementation):
    from transformers import LlamaConfig, LlamaForCausalLM
    config = SHAPES[name]
    ours, theirs = Llama(config, 3, implementation), LlamaForCausalLM(LlamaConfig(**hf_config(config))).eval()
    assert set(ours.state_dict()) == set(theirs.state_dict())
    with torch.no_grad():  # fresh weights are small: larger ones make a mistake show
        for p in ours.parameters(): p.mul_(3 if p.dim() == 2 else 1)
    theirs.load_state_dict(ours.state_dict())
    ids = ids_of(config, 2, 2 * BLOCK + 17)
    with torch.no_grad(): torch.testing.assert_close(ours(ids), theirs(ids).logits, atol=1e-4, rtol=1e-5)


@pytest.mark.parametrize("length", [1, 5, BLOCK, BLOCK + 1, 2 * BLOCK + 44])
@pytest.mark.parametrize("groups", [1, 2, 4])
def test_attention_implementations_agree(length, groups):
    g = torch.Generator().manual_seed(length)
    qkv = [torch.randn(2, h, length, 16, generator=g, requires_grad=True) for h in (4, groups, groups)]
    weight = torch.randn(2, 4, length, 16, generator=g)
    results = [(y, *torch.autograd.grad((y * weight).sum(), qkv)) for y in (attention(*qkv, i) for i in ("sdpa", "blockwise"))]
    for a, b in zip(*results): torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-4)


def test_blockwise_gradients_numerically():
    qkv = [torch.randn(1, 2, 6, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(i), requires_grad=True) for i in range(3)]
    # softmax and the accumulators are float32 on purpose, hence the wide step and tolerance
    assert torch.autograd.gradcheck(lambda q, k, v: attention(q, k, v, "blockwise"), qkv, eps=1e-2, atol=1e-3, rtol=1e-2)


def test_attention_in_bfloat16_is_close_to_float32():
    g = torch.Generator().manual_seed(0)
    qkv = [torch.randn(1, 2, 300, 64, generator=g) for _ in range(3)]
    want = attention(*qkv, "sdpa")
    for name in ("sdpa", "blockwise"):
        got = attention(*(x.bfloat16() for x in qkv), name)
        assert got.dtype == torch.bfloat16 and (got.float() - want).abs().max() < .05


def test_attention_refuses():
    q, k = torch.zeros(1, 1, 2, 4), torch.zeros(1, 1, 5, 4)
    with pytest.raises(BadInput, match="use one of"): attention(q, q, q, "flash")
    with pytest.raises(BadInput, match="whole sequences"): attention(q, k, k, "blockwise")


@pytest.mark.parametrize("rows", [1, 511, 512, 1300])
def test_chunked_loss_equals_full(rows):
    g = torch.Generator().manual_seed(rows)
    x, w = torch.randn(rows, 48, generator=g, requires_grad=True), torch.randn(300, 48, generator=g, requires_grad=True)
    y = torch.randint(300, (rows,), generator=g)
    if rows > 1: y[::3] = -100
    ours, full = linear_cross_entropy(x, w, y), F.cross_entropy(x.double() @ w.double().T, y)
    assert abs(ours.item() - full.item()) < 1e-6 * max(1, full.item())
    for a, b in zip(torch.autograd.grad(2 * ours, (x, w)), torch.autograd.grad(2 * full, (x, w))): torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-4)


def test_loss_with_nothing_to_learn_is_zero():
    x = torch.randn(4, 8, requires_grad=True)
    loss = linear_cross_entropy(x, torch.randn(5, 8), torch.full((4,), -100))
    loss.backward()
    assert loss.item() == 0 and not x.grad.any()


def test_model_loss_gradients_equal_the_obvious_code():
    model = Llama(SHAPES["grouped"], 1)
    ids = ids_of(model.config, 3, 201)
    x, y = ids[:, :-1], ids[:, 1:]
    names = [n for n, _ in model.named_parameters()]
    ours = torch.autograd.grad(model.loss(x, y), list(model.parameters()))
    model.attention = "sdpa"
    full = F.cross_entropy(model(x).flatten(0, 1), y.flatten())
    for name, a, b in zip(names, ours, torch.autograd.grad(full, list(model.parameters()))): torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-3, msg=name)
    losses = model.token_losses(x, y)
    assert losses.shape == y.shape and losses.dtype == torch.float32 and abs(losses.mean().item() - full.item()) < 1e-5


def test_bfloat16_and_autocast_stay_close():
    model, half = toy_model(200, 2), toy_model(200, 2).bfloat16()
    ids = ids_of(model.config, 4, 150)
    x, y = ids[:, :-1], ids[:, 1:]
    want = model.loss(x, y)
    with torch.autocast("cpu", torch.bfloat16): mixed = model.loss(x, y)
    mixed.backward()
    assert half.loss(x, y).dtype == mixed.dtype == torch.float32
    assert abs(mixed.item() - want.item()) < .01 and abs(half.loss(x, y).item() - want.item()) < .02
    assert all(p.grad.dtype == torch.float32 and p.grad.isfinite().all() for p in model.parameters())


def test_loss_never_holds_all_logits():
    rows, model = [], toy_model(300)
    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            out = func(*args, **(kwargs or {}))
            if isinstance(out, torch.Tensor) and out.ndim > 1 and out.shape[-1] == 300: rows.append(out.numel() // 300)
            return out
    ids = ids_of(model.config, 8, 201)
    with Watch(): model.loss(ids[:, :-1], ids[:, 1:]).backward()
    assert max(rows) == 512 and len(rows) > 4   # 1600 rows in four chunks


@pytest.mark.parametrize("implementation", ["sdpa", "blockwise"])
def test_future_does_not_leak(implementation):
    model = Llama(SHAPES["grouped"], 0, implementation)
    ids = ids_of(model.config, 2, 200)
    changed = ids.clone(); changed[:, 150:] = (changed[:, 150:] + 1) % model.config.vocab_size
    with torch.no_grad(): a, b = model(ids), model(changed)
    torch.testing.assert_close(a[:, :150], b[:, :150], atol=1e-6, rtol=0)
    assert (a[:, 150:] - b[:, 150:]).abs().min(-1).values.max() > 0


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("cuts", [[200], [1] * 20 + [180], [140, 1, 1, 58], [199, 1]])
def test_cache_equals_whole(batch, cuts):
    model = Llama(SHAPES["grouped"], 5)
    ids = ids_of(model.config, batch, 200)
    cache = KVCache(model.config, batch, 200)
    with torch.no_grad():
        pieces = torch.cat([model(part, cache) for part in ids.split(cuts, 1)], 1)
        torch.testing.assert_close(pieces, model(ids), atol=1e-4, rtol=0)
    assert cache.length == 200


def test_cache_rewinds_and_refuses():
    model = toy_model(50)
    ids, cache = ids_of(model.config, 1, 12), KVCache(model.config, 1, 12)
    with torch.no_grad():
        first = model(ids, cache)[:, 8:]
        cache.rewind(8)
        torch.testing.assert_close(model(ids[:, 8:], cache), first, atol=1e-5, rtol=0)
        with pytest.raises(BadInput, match="room for 12"): model(ids[:, :1], cache)
        with pytest.raises(BadInput, match="one per batch size"): model(ids.expand(2, -1), KVCache(model.config, 1))
        with pytest.raises(BadInput, match="rewind"): cache.rewind(13)
        with pytest.raises(BadInput, match="256 positions"): model(ids, _filled(KVCache(model.config), 250))


def _filled(cache, length):
    cache.length = length
    return cache


def test_positions_continue():
    whole, tail = rope_table(0, 20, 8), rope_table(15, 5, 8)
    for a, b in zip(whole, tail): assert torch.equal(a[15:], b)


def test_seed_decides_weights_alone():
    torch.manual_seed(1); a = toy_model(60, 4)
    torch.manual_seed(2); torch.rand(9); b = toy_model(60, 4)
    assert all(torch.equal(x, y) for x, y in zip(a.parameters(), b.parameters()))
    assert not torch.equal(a.lm_head.weight, toy_model(60, 5).lm_head.weight)


def test_initialisation_scales():
    model = Llama(ModelConfig(2000, 256, 512, 8, 4))
    std = {n: p.std().item() for n, p in model.named_parameters() if p.dim() == 2}
    for name, value in std.items(): assert abs(value / (.02 / (4 if name.endswith(("o_proj.weight", "down_proj.weight")) else 1)) - 1) < .05, name


def test_presets_are_the_papers():
    for r in load_table("reports/paper/model_sizes.csv"):
        c = PRESETS[r["name"]]
        n = count_parameters(c)
        assert (c.num_hidden_layers, c.hidden_size, c.intermediate_size, c.num_attention_heads, c.head_size) == (r["layers"], r["hidden"], r["ffn"], r["heads"], 128)
        assert c.num_key_value_heads == c.num_attention_heads and not c.tie_word_embeddings and c.vocab_size == 32000
        assert round((n["non_embedding"] - n["norms"]) / 1e6, 1) == r["non_embedding_m"]


@pytest.mark.parametrize("config", [*PRESETS.values(), *SHAPES.values()])
def test_counts_equal_the_model_on_meta(config):
    with torch.device("meta"): model = Llama(config)
    n = count_parameters(config)
    assert sum(p.numel() for p in model.parameters()) == n["total"] == n["embedding"] + n["non_embedding"]
    assert sum(p.numel() for p in model.parameters() if p.dim() == 1) == n["norms"]


def test_flops_against_torch_counter():
    from torch.utils.flop_counter import FlopCounterMode
    config, T = replace(PRESETS["toy"], num_key_value_heads=1), 64
    model, ids = Llama(config, attention="sdpa"), ids_of(config, 2, T)
    with FlopCounterMode(display=False) as counter, torch.no_grad(): model(ids)
    attended = config.num_hidden_layers * 2 * T * config.hidden_size
    counted = counter.get_total_flops() / ids.numel()
    assert counted in (flops_per_token(config, T, training=False) - attended, flops_per_token(config, T, training=False) + attended)  # torch leaves SDPA out on a CPU, or counts it whole
    assert flops_per_token(config, T) == 3 * flops_per_token(config, T, training=False)


@pytest.mark.parametrize("change, message", [({"hidden_size": 100}, "multiple of num_attention_heads"), ({"num_key_value_heads": 3}, "divisor of 16"),
                                             ({"hidden_size": 16 * 7}, "odd"), ({"vocab_size": 0}, "at least 1")])
def test_impossible_shapes(change, message):
    with pytest.raises(BadInput, match=message): ModelConfig(**change)


def test_the_compiled_loss_is_the_loss(monkeypatch):
    "Traced and differentiated as for a compiler, run as it is, so that no C++ compiler is needed: stacked projections and the other form of a chunk."
    torch._dynamo.reset()
    plain = torch.compile
    monkeypatch.setattr(torch, "compile", lambda f, **more: plain(f, backend="aot_eager", **more))
    g = torch.Generator().manual_seed(0)
    ids = torch.randint(0, 512, (2, 130), generator=g)
    targets = ids[:, 1:].clone(); targets[0, :5] = -100
    found = []
    for compiled in (False, True):
        model = toy_model(seed=3)
        loss = (model.compiled_loss() if compiled else model.loss)(ids[:, :-1], targets)
        loss.backward()
        found.append((loss.item(), {n: p.grad for n, p in model.named_parameters()}))
    assert abs(found[0][0] - found[1][0]) < 1e-5
    for n, grad in found[0][1].items(): assert torch.allclose(grad, found[1][1][n], rtol=1e-3, atol=1e-6), n
    torch._dynamo.reset()


@pytest.mark.parametrize("length", [5, BLOCK, 2 * BLOCK + 44])
def test_blockwise_gradients_in_bfloat16(length):
    g = torch.Generator().manual_seed(length)
    qkv = [torch.randn(2, h, length, 16, generator=g).bfloat16().requires_grad_() for h in (4, 2, 2)]
    wide = [x.detach().float().requires_grad_() for x in qkv]
    weight = torch.randn(2, 4, length, 16, generator=g)
    out = attention(*qkv, "blockwise")
    found = torch.autograd.grad((out.float() * weight).sum(), qkv)
    for a, b in zip(found, torch.autograd.grad((attention(*wide, "sdpa") * weight).sum(), wide)):
        assert a.dtype == torch.bfloat16 and (a.float() - b).norm() < .01 * b.norm()


def test_blockwise_adds_up_in_float32(monkeypatch):
    "Sixteen blocks: sums in bfloat16 would be off several times as far as their own rounding."
    monkeypatch.setattr(croissant.model, "BLOCK", 16)
    g = torch.Generator().manual_seed(0)
    qkv = [(torch.randn(2, 1, 512, 16, generator=g) * s).bfloat16().requires_grad_() for s in (.01, .01, 1)]
    wide = [x.detach().float().requires_grad_() for x in qkv]
    up = torch.ones(2, 1, 512, 16).bfloat16()
    dv = torch.autograd.grad(attention(*qkv, "blockwise"), qkv, up)[2]
    want = torch.autograd.grad(attention(*wide, "sdpa"), wide, up.float())[2]
    assert (dv.float() - want).norm() < .0025 * want.norm()


@pytest.mark.parametrize("dtype, close", [(torch.float32, 5e-5), (torch.bfloat16, 4e-3)])
def test_both_forms_of_a_chunk_agree(dtype, close):
    z = (torch.randn(7, 300, generator=torch.Generator().manual_seed(0)) * 60).to(dtype)   # e^z would overflow
    targets = torch.arange(7)[:, None]
    (a, da), (b, db) = _chunk(z.float().clone(), targets), _chunk_to_compile(z, targets)
    assert b.dtype == torch.float32 and db.dtype == dtype and z.max() > 100
    torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-6); torch.testing.assert_close(da, db.float(), atol=close, rtol=0)


@pytest.mark.parametrize("theta, attention", [(1e4, "auto"), (50., "sdpa")])
def test_what_is_compiled(monkeypatch, theta, attention):
    "Stacked projections, no sines, the model's own theta and attention."
    torch._dynamo.reset()
    plain, targets_of = torch.compile, []
    def look(graph, _): targets_of.extend(str(n.target) for n in graph.graph.nodes); return graph.forward
    monkeypatch.setattr(torch, "compile", lambda f, **more: plain(f, backend=look, **more))
    config = ModelConfig(97, 128, 160, 1, 2, max_position_embeddings=160, rope_theta=theta)
    model = Llama(config, 3, attention)
    ids = torch.randint(0, 97, (2, 151), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        for p in model.parameters(): p.mul_(3 if p.dim() == 2 else 1)
    want = model.loss(ids[:, :-1], ids[:, 1:])
    found = model.compiled_loss()(ids[:, :-1], ids[:, 1:])
    assert abs(found.item() - want.item()) < 1e-5
    said = " ".join(targets_of)
    assert "sin" not in said.replace("cosine", "") and sum("linear" in t for t in targets_of) == 4   # qkv, o, gate and up, down
    assert ("scaled_dot_product" in said) == (attention == "sdpa")
    torch._dynamo.reset()



@pytest.mark.parametrize("device, stacked", [("cpu", True), ("meta", False)])
def test_only_a_cpu_stacks_products(device, stacked, monkeypatch):
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    maps = [torch.nn.Linear(4, n, bias=False, device=device) for n in (4, 2)]
    seen, linear = [], torch.nn.functional.linear
    monkeypatch.setattr(torch.nn.functional, "linear", lambda *a: seen.append(1) or linear(*a))
    assert [y.shape[-1] for y in _together(torch.zeros(3, 4, device=device), *maps)] == [4, 2] and len(seen) == (1 if stacked else 2)
