"""FLOPs and energy: the paper's numbers come back, and impossible input is refused by name."""
import pytest

from croissant.footprint import DEFINITIONS, energy, flops_from_rate, lab_footprint, memory, paper_flops, training_flops_per_token, utilisation
from croissant.model import PRESETS, count_parameters, flops_per_token
from croissant.params import BadInput
from croissant.provenance import fact


def test_definitions_are_ordered_and_named():
    found = training_flops_per_token(PRESETS["base"], 2048)
    assert list(found) == list(DEFINITIONS)
    assert list(found.values()) == sorted(found.values())      # for the paper's model, each definition counts more than the one before


@pytest.mark.parametrize("preset", ["base", "xxs", "lab-6x256"])
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


@pytest.mark.parametrize("bad", [dict(device_hours=-1), dict(watts=-1), dict(g_per_kwh=float("nan")), dict(pue=.5), dict(l_per_kwh=-1)])
def test_impossible_energy(bad):
    with pytest.raises(BadInput, match=next(iter(bad))): energy(**(dict(device_hours=1, watts=1, g_per_kwh=1) | bad))


def test_utilisation_of_the_papers_hours():
    found = utilisation(paper_flops()["matrices_attention"], fact("compute.gpu_hours"), fact("compute.peak_tflops_per_gpu"))
    assert found == pytest.approx(.237, abs=.001)      # 2.66e22 useful FLOPs over 99,648 hours of 312 TFLOP/s


def test_water_follows_energy_and_is_none_by_default():
    assert energy(100, 500, 57, 1.2, 1.8)["litres"] == pytest.approx(100 * .5 * 1.2 * 1.8) and energy(100, 500, 57)["litres"] == 0


def test_other_bad_input():
    with pytest.raises(BadInput, match="precision"): memory(10, "int3")
    with pytest.raises(BadInput, match="peak rate"): utilisation(1e30, 1, 1)
    with pytest.raises(BadInput, match="positive"): lab_footprint(PRESETS["lab-4x128"], 0, 64)


def test_wall_clock_replaces_the_assumed_rate():
    slow = lab_footprint(PRESETS["lab-4x128"], 1e6, 64, seconds=7200, cores=2, watts_per_core=5)
    assert slow["time_from"] == "wall clock" and slow["energy"]["kwh"] == pytest.approx(2 * 2 * 5 / 1000)
