"""The optimiser against torch's own pieces, and the corners that the notebook leaves out."""
import math

import pytest
import torch
from torch import nn

from croissant.model import toy_model
from croissant.optim import SCHEDULES, MasterWeights, adamw, clip_gradients, decay_groups, gradient_norm, learning_rate, muon, parameter_groups, restore_state, state_tensors
from croissant.params import BadInput


def test_only_matrices_decay():
    model = toy_model()
    decay, keep = parameter_groups(model.parameters(), .1)
    names = {id(p): n for n, p in model.named_parameters()}
    assert all("norm" in names[id(p)] for p in keep["params"]) and keep["weight_decay"] == 0
    assert not any("norm" in names[id(p)] for p in decay["params"])
    assert len(decay["params"]) + len(keep["params"]) == len(names)


def test_fused_equals_the_plain_loop():
    torch.manual_seed(0)
    ours, plain = nn.Linear(7, 5), nn.Linear(7, 5)
    plain.load_state_dict(ours.state_dict())
    a = adamw(ours.parameters(), .1)
    b = torch.optim.AdamW(parameter_groups(plain.parameters(), .1), betas=(.9, .95), eps=1e-8, foreach=False, fused=False)
    for step in range(30):
        x = torch.randn(3, 7)
        for model, optimiser in ((ours, a), (plain, b)):
            for g in optimiser.param_groups: g["lr"] = learning_rate(step, 1e-2, 1e-3, 5, 30)
            optimiser.zero_grad()
            model(x).square().mean().backward()
            optimiser.step()
    for p, q in zip(ours.parameters(), plain.parameters()): assert torch.allclose(p, q, atol=1e-6)


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("warmup,total", [(0, 2), (0, 10), (1, 2), (9, 10), (100, 1000)])
def test_schedule_rises_then_falls_to_the_floor(warmup, total, schedule):
    rates = [learning_rate(s, 3e-4, 1e-5, warmup, total, schedule) for s in range(total)]
    if schedule == "wsd" and total - warmup == 1: assert math.isclose(rates[-1], 1e-5); return   # one step left: down at once
    assert max(rates) == 3e-4 and rates.index(max(rates)) <= warmup
    assert rates[:warmup] == sorted(rates[:warmup]) and rates[warmup:] == sorted(rates[warmup:], reverse=True)
    if total - warmup > 1: assert math.isclose(rates[-1], 1e-5)


def test_one_step():
    assert learning_rate(0, 3e-4, 1e-5, 0, 1) == 3e-4


def test_wsd_is_flat_and_then_a_root():
    rates = [learning_rate(s, 1., 0., 10, 100, "wsd", .3) for s in range(100)]
    assert set(rates[10:70]) == {1.} and rates[99] == 0 and all(math.isclose(rates[69 + k], 1 - math.sqrt(k/30)) for k in range(1, 31))
    longer = [learning_rate(s, 1., 0., 10, 200, "wsd", .15) for s in range(200)]
    assert longer[:70] == rates[:70]   # the plateau does not know how long the run is
    assert [learning_rate(s, 1., 0., 10, 100, "wsd", 1.) for s in range(10)] == rates[:10]
    with pytest.raises(BadInput, match="schedule 'linear'.*cosine, wsd"): learning_rate(0, 1., 0., 0, 10, "linear")


def test_a_decay_for_every_kind():
    model = toy_model()
    names = {id(p): n for n, p in model.named_parameters()}
    found = {names[id(p)]: g["weight_decay"] for g in decay_groups(model.named_parameters(), .1, .01, .001) for p in g["params"]}
    assert found.keys() == set(names.values())
    for n, decay in found.items(): assert decay == (.001 if "norm" in n else .01 if "embed" in n or "lm_head" in n else .1), n
    same = decay_groups(model.named_parameters(), .1)
    assert [[id(p) for p in g["params"]] for g in same] == [[id(p) for p in g["params"]] for g in parameter_groups(model.parameters(), .1)]
    for optimizer in ("adamw", "muon"):
        weights = MasterWeights(toy_model(), torch.float32, optimizer, .1, .01, .001)
        found = {weights.names[[m is p for m in weights.masters].index(True)]: g["weight_decay"] for o in weights.optimisers for g in o.param_groups for p in g["params"]}
        for n, decay in found.items(): assert decay == (.001 if "norm" in n else .01 if "embed" in n or "lm_head" in n else .1), (optimizer, n)


@pytest.mark.parametrize("dtype,close", [(torch.float32, 1e-6), (torch.bfloat16, 2e-3)])
def test_accumulated_is_the_big_batch(dtype, close):
    ids = torch.randint(0, 512, (8, 33), generator=torch.Generator().manual_seed(0))
    def gradients(parts):
        model = toy_model()
        weights = MasterWeights(model, dtype)
        for k, piece in enumerate(ids.split(8//parts)):
            (model.loss(piece[:, :-1], piece[:, 1:])/parts).backward()
            found = weights.gather(add=k > 0)
        return [g.float().clone() for g in found]
    whole = gradients(1)
    for parts in (2, 8):
        for a, b in zip(whole, gradients(parts)): assert (a - b).abs().max() < close and a.dtype == torch.float32


def test_the_norm_of_shards_is_the_norm_of_the_whole():
    g = torch.Generator().manual_seed(4)
    whole = [torch.randn(40, 7, generator=g), torch.randn(9, generator=g)]
    shards = [[whole[0][:20], whole[1][:5]], [whole[0][20:], whole[1][5:]]]
    squares = [gradient_norm(s)**2 for s in shards]
    assert math.isclose(gradient_norm(shards[0], lambda x: x + squares[1]), gradient_norm(whole), rel_tol=1e-14)
    kept = [[t.clone() for t in s] for s in shards]
    for mine, other in ((0, 1), (1, 0)): clip_gradients(kept[mine], 1., lambda x, other=other: x + squares[other])
    assert math.isclose(math.hypot(gradient_norm(kept[0]), gradient_norm(kept[1])), 1., rel_tol=1e-6)


@pytest.mark.parametrize("step", [-1, 10])
def test_no_rate_outside_the_run(step):
    with pytest.raises(BadInput, match="steps 0 to 9"): learning_rate(step, 1e-3, 0., 0, 10)


def test_norm_equals_torch_and_zero_limit_only_measures():
    torch.manual_seed(1)
    gradients = [torch.randn(50, 3), torch.randn(7)]
    parameters = [nn.Parameter(torch.zeros_like(g)) for g in gradients]
    for p, g in zip(parameters, gradients): p.grad = g.clone()
    expected = torch.nn.utils.clip_grad_norm_(parameters, 1.).item()
    before = [g.clone() for g in gradients]
    assert math.isclose(clip_gradients(gradients, 0.), expected, rel_tol=1e-6)
    assert all(torch.equal(a, b) for a, b in zip(before, gradients))
    clip_gradients(gradients, 1.)
    assert math.isclose(gradient_norm(gradients), 1., rel_tol=1e-6)
    assert all(torch.allclose(g, p.grad, atol=1e-5) for g, p in zip(gradients, parameters))


def test_nan_is_seen_in_the_norm():
    assert math.isnan(clip_gradients([torch.tensor([1., float("nan")])], 1.))


def test_working_weights_are_rounded_masters():
    model = toy_model()
    fresh = {n: p.detach().clone() for n, p in model.named_parameters()}
    weights = MasterWeights(model, torch.bfloat16)
    ids = torch.randint(0, 512, (2, 17), generator=torch.Generator().manual_seed(0))
    for _ in range(3):
        model.loss(ids[:, :-1], ids[:, 1:]).backward()
        clip_gradients(weights.gather(), 1.)
        weights.step(1e-3)
    for n, p, m in zip(weights.names, weights.working, weights.masters):
        assert p.dtype == torch.bfloat16 and p.grad is None and torch.equal(p, m.bfloat16())
        if m.ndim > 1 and "embed" not in n: assert not torch.equal(m, fresh[n])


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_state_goes_round(dtype, optimizer):
    ids = torch.randint(0, 512, (2, 17), generator=torch.Generator().manual_seed(0))
    def steps(model, weights, n):
        for _ in range(n):
            model.loss(ids[:, :-1], ids[:, 1:]).backward(); weights.gather(); weights.step(1e-3)
    model, other = toy_model(seed=1), toy_model(seed=2)
    weights, continued = MasterWeights(model, dtype, optimizer), MasterWeights(other, dtype, optimizer)
    steps(model, weights, 3)
    kept = {k: v.clone() for k, v in state_tensors(weights).items()}
    restore_state(continued, kept)
    steps(model, weights, 3); steps(other, continued, 3)
    for p, q in zip(weights.masters, continued.masters): assert torch.equal(p, q)
    for p, q in zip(model.parameters(), other.parameters()): assert torch.equal(p, q)


def test_state_lacking_a_moment_is_refused():
    model = toy_model()
    weights = MasterWeights(model, torch.float32)
    with pytest.raises(BadInput, match="step.*of shape"): restore_state(weights, state_tensors(weights))   # no step was made yet
    with pytest.raises(BadInput, match="optimizer 'sgd'"): MasterWeights(model, torch.float32, "sgd")


def test_muon_moves_maps_and_adamw_the_rest():
    model = toy_model()
    weights = MasterWeights(model, torch.float32, "muon")
    adam, muon = weights.optimisers
    moved = {id(p): kind for kind, o in (("adamw", adam), ("muon", muon)) for g in o.param_groups for p in g["params"]}
    for name, p in model.named_parameters():
        assert moved[id(p)] == ("muon" if "_proj" in name else "adamw"), name
    assert len(moved) == len(weights.masters)


@pytest.mark.parametrize("shape", [(24, 8), (8, 24), (16, 16)])
def test_muon_step_is_near_the_polar_factor(shape):
    g = torch.Generator().manual_seed(0)
    p = nn.Parameter(torch.zeros(shape)); p.grad = torch.randn(shape, generator=g)
    optimiser = muon([p], weight_decay=0.)
    for group in optimiser.param_groups: group["lr"] = 1.
    optimiser.step()
    step = -p.detach()/(.2*max(shape)**.5)
    u, s, vt = torch.linalg.svd(p.grad, full_matrices=False)
    found = torch.linalg.svdvals(step)
    assert .5 < found.min() and found.max() < 1.3
    assert torch.nn.functional.cosine_similarity(step.flatten(), (u @ vt).flatten(), dim=0) > .97


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_gradients_do_not_outlive_their_step(dtype):
    model = toy_model()
    weights = MasterWeights(model, dtype)
    ids = torch.randint(0, 512, (2, 17), generator=torch.Generator().manual_seed(0))
    for end in (lambda: weights.step(1e-3), weights.forget):
        model.loss(ids[:, :-1], ids[:, 1:]).backward(); weights.gather()
        end()
        assert all(p.grad is None for p in (*weights.working, *weights.masters))


def test_a_weight_may_get_its_gradient_late_or_never():
    a, b, c = (torch.nn.Linear(2, 2, bias=False) for _ in range(3))
    model = torch.nn.ModuleList([a, b, c]); weights = MasterWeights(model, torch.bfloat16)
    x = torch.ones(1, 2, dtype=torch.bfloat16)
    a(x).sum().backward(); assert len(weights.gather()) == 1
    (a(x) + b(x)).sum().backward(); found = weights.gather(add=True)
    assert [g.tolist() for g in found] == [[[2, 2], [2, 2]], [[1, 1], [1, 1]]]
    b(x).sum().backward(); weights.gather()
    assert weights.masters[1].grad.tolist() == [[1, 1], [1, 1]]
