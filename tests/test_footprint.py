"""FLOPs, energy and plans: the paper's numbers come back, and impossible input is refused by name."""
import json

import pytest

from croissant.footprint import DEFINITIONS, energy, flops_from_rate, lab_footprint, memory, paper_flops, plan, training_flops_per_token, utilisation
from croissant.model import PRESETS, count_parameters, flops_per_token
from croissant.params import BadInput
from croissant.provenance import fact


def test_definitions_are_ordered_and_named():
    found = training_flops_per_token(PRESETS["base"], 2048)
    assert list(found) == list(DEFINITIONS)
    assert found["6N_non_embedding"] < found["6N"] < found["matrices_causal_attention"] < found["matrices_attention"] < found["recomputed"]


@pytest.mark.parametrize("preset", ["base", "xxs", "lab-6m"])
def test_agrees_with_the_model_up_to_norms(preset):
    config = PRESETS[preset]
    ours, model = training_flops_per_token(config, 128)["matrices_causal_attention"], flops_per_token(config, 128)
    assert ours - model == 6 * count_parameters(config)["norms"]


def test_paper_total_is_hours_times_rate():
    run = paper_flops()
    assert run["hours_times_rate"] == flops_from_rate(fact("compute.gpu_hours"), fact("compute.tflops_per_gpu"))
    assert float(f"{run['hours_times_rate']:.2e}") in (run["paper"], run["paper"] + 1e20)
    assert run["recomputed"] < run["paper"]


def test_energy_regenerates_the_paper():
    e = energy(fact("compute.project_gpu_hours"), fact("compute.gpu_power_w"), fact("compute.co2_g_per_kwh"), fact("compute.pue"))
    assert e["status"] == "estimated"
    assert e["kwh"] / fact("compute.pue") / 1000 == pytest.approx(fact("compute.energy_mwh"), abs=.05)
    assert e["kg_co2e"] / 1000 == pytest.approx(fact("compute.co2_t_pue"), abs=.01)


@pytest.mark.parametrize("bad", [dict(device_hours=-1), dict(watts=-1), dict(g_per_kwh=float("nan")), dict(pue=.5)])
def test_impossible_energy(bad):
    with pytest.raises(BadInput, match=next(iter(bad))): energy(**(dict(device_hours=1, watts=1, g_per_kwh=1) | bad))


def test_plan_base_is_the_paper():
    found = json.loads(json.dumps(plan("base")))
    assert found["steps"] == fact("train.steps") and found["parameters"] == 1_345_423_360
    assert found["gpu_hours"] == pytest.approx(fact("compute.gpu_hours"))
    assert found["utilisation"] == pytest.approx(.237, abs=.001)      # 2.66e22 useful FLOPs over 99,648 hours of 312 TFLOP/s
    assert found["memory_bytes"]["total"] == 16 * found["parameters"]
    assert "implied by the hours" in found["assumptions"]


def test_plan_with_stated_utilisation_scales():
    one, two = plan("lab-1m", tokens=1e9, mfu=.2, devices=1), plan("lab-1m", tokens=2e9, mfu=.2, devices=1)
    assert two["gpu_hours"] == pytest.approx(2 * one["gpu_hours"]) and "stated by the caller" in one["assumptions"]
    assert plan("lab-1m", tokens=1001, batch_sequences=1, seq_len=10)["steps"] == 101


@pytest.mark.parametrize("bad", [dict(preset="huge"), dict(mfu=1.5), dict(mfu=-.1), dict(tokens=-1.), dict(devices=-2)])
def test_impossible_plan(bad):
    with pytest.raises(BadInput): plan(**bad)


def test_other_bad_input():
    with pytest.raises(BadInput, match="precision"): memory(10, "int3")
    with pytest.raises(BadInput, match="peak rate"): utilisation(1e30, 1, 1)
    with pytest.raises(BadInput, match="positive"): lab_footprint(PRESETS["lab-1m"], 0, 64)


def test_wall_clock_replaces_the_assumed_rate():
    slow = lab_footprint(PRESETS["lab-1m"], 1e6, 64, seconds=7200, cores=2, watts_per_core=5)
    assert slow["time_from"] == "wall clock" and slow["energy"]["kwh"] == pytest.approx(2 * 2 * 5 / 1000)
