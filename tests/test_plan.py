"""Plans: exact counts against transformers, operations against hand-worked cases, one file of parameters, a rule for differences, a script for Slurm."""
import functools
import json
import math
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import asdict, replace
from decimal import Decimal

import pytest
import torch
import yaml

from croissant import cli
from croissant.discrepancies import beside_the_paper, explain_figure
from croissant.footprint import DEFINITIONS, training_flops_per_token
from croissant.launch import slurm_script
from croissant.model import PRESETS, Llama, ModelConfig, count_parameters
from croissant.params import BadInput, root
from croissant.plan import FACTORS, PRECISIONS, activation_bytes, changed, checkpoints, held_rows, load_run, local_parameters, memory_per_rank, parameter_shapes, plan, plan_text
from croissant.provenance import fact, load_table

PAPER = root()/"params.paper.yaml"
SIZES = ("xxs", "xs", "s", "base")


@pytest.fixture(scope="module", autouse=True)
def _shapes_once():
    "The tensors of a shape are the same for every rank and every plan: list them once."
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("croissant.plan.parameter_shapes", functools.cache(parameter_shapes))
        yield


@pytest.fixture(scope="module")
def ours(): return plan()


def run(capsys, *argv):
    code = cli.main([str(a) for a in argv])
    return code, *capsys.readouterr()


def edited(tmp_path, old, new, count=1):
    "A copy of the paper's file with one change."
    text = PAPER.read_text(encoding="utf-8")
    assert text.count(old) >= 1, old
    (tmp_path/"run.yaml").write_text(text.replace(old, new, count), encoding="utf-8")
    return str(tmp_path/"run.yaml")


# --- exact counts

@pytest.mark.parametrize("config", [*(PRESETS[s] for s in SIZES), replace(PRESETS["toy"], num_attention_heads=4, num_key_value_heads=2), replace(PRESETS["lab-4x128"], tie_word_embeddings=True)])
def test_parameters_are_those_of_transformers(config):
    from transformers import LlamaConfig, LlamaForCausalLM
    with torch.device("meta"): theirs = LlamaForCausalLM(LlamaConfig(**asdict(config)))
    assert parameter_shapes(config) == {n: tuple(p.shape) for n, p in theirs.named_parameters()}
    assert count_parameters(config)["total"] == theirs.num_parameters() == local_parameters(config, 1)
    assert count_parameters(config)["non_embedding"] == sum(p.numel() for p in theirs.model.layers.parameters()) + theirs.model.norm.weight.numel()


def test_the_papers_model(ours):
    assert (ours["parameters"], ours["parameters_layer_matrices"], ours["parameters_norms"]) == (1_345_423_360, 1_214_251_008, 100_352)
    assert f"{ours['parameters']/1e6:,.1f}" == "1,345.4" and f"{ours['parameters_layer_matrices']/1e6:,.1f}" == "1,214.3"
    for name in SIZES:
        found = plan(name)
        printed = next(r["non_embedding_m"] for r in load_table("reports/paper/model_sizes.csv") if r["name"] == name)
        assert round(found["parameters_layer_matrices"] / 1e6, 1) == printed
        assert found["parameters"] == found["parameters_layer_matrices"] + found["parameters_norms"] + found["parameters_embedding"]


# --- operations

def test_flops_by_hand():
    "One layer, C = 4, F = 6, two heads, seven pieces, sequences of 5."
    c = ModelConfig(7, 4, 6, 1, 2, max_position_embeddings=5)
    matrices, norms, head, square = 4*16 + 3*24, 3*4, 28, 4*5
    assert training_flops_per_token(c, 5) == {
        "6N_non_embedding": 6*(matrices + norms), "6N_without_lookup": 6*(matrices + norms + head), "6N": 6*(matrices + norms + 2*head),
        "matrices_causal_attention": 6*(matrices + norms + head) + 6*square, "matrices_attention": 6*(matrices + norms + head) + 12*square,
        "recomputed_causal_attention": 8*(matrices + norms) + 6*head + 8*square, "megatron_recomputed": 8*12*16 + 6*head + 16*square, "recomputed": 8*(matrices + norms) + 6*head + 16*square}


def test_flops_against_a_counter():
    "PyTorch's own counter on our model, with attention written out so that it sees the whole square."
    from torch.utils.flop_counter import FlopCounterMode
    from croissant import model
    c, T = replace(PRESETS["toy"], num_attention_heads=2), 32
    def square(q, k, v, implementation="auto"): return (q @ k.transpose(2, 3)).softmax(-1) @ v
    with torch.device("meta"): m, ids = Llama(c), torch.zeros(1, T, dtype=torch.long)
    with pytest.MonkeyPatch.context() as patch, FlopCounterMode(display=False) as counter:
        patch.setattr(model, "attention", square)
        with torch.device("meta"): m(ids).sum().backward()
    want = training_flops_per_token(c, T)["matrices_attention"] - 6 * count_parameters(c)["norms"]
    assert counter.get_total_flops() == want * T


@pytest.mark.parametrize("definition, per_token, total, share", [     # measured and recorded before this module was written
    ("6N", 8.07, 2.41e22, 21.6), ("matrices_attention", 8.89, 2.66e22, 23.7), ("matrices_causal_attention", 8.28, 2.48e22, 22.1), ("megatron_recomputed", 11.67, 3.49e22, 31.2)])
def test_flops_of_the_paper(ours, definition, per_token, total, share):
    assert round(ours["flops_per_token"][definition] / 1e9, 2) == per_token and float(f"{ours['flops'][definition]:.2e}") == total
    assert round(100 * ours["flops"][definition] / (fact("compute.gpu_hours") * 3600 * 312e12), 1) == share
    assert list(ours["flops"]) == list(DEFINITIONS)


# --- who holds what

@pytest.mark.parametrize("rows, shards, want", [(8, 4, [2, 2, 2, 2]), (6, 4, [2, 2, 2, 0]), (5, 4, [2, 2, 1, 0]), (1, 3, [1, 0, 0]), (7, 1, [7])])
def test_rows_by_hand(rows, shards, want):
    runs = [held_rows(rows, shards, r) for r in range(shards)]
    assert [len(r) for r in runs] == want and [x for r in runs for x in r] == list(range(rows))
    assert [len(c) for c in torch.arange(rows).chunk(shards)] == [n for n in want if n]     # what PyTorch does
    assert held_rows(rows, shards, shards) == runs[0]                                        # the next group begins again


def test_hybrid_sharding_is_even_and_flat_sharding_is_not():
    base = PRESETS["base"]
    for shards in (8, 240): assert sum(local_parameters(base, shards, r) for r in range(shards)) == count_parameters(base)["total"]
    assert len({local_parameters(base, 8, r) for r in range(8)}) == 1
    assert (local_parameters(base, 240), local_parameters(base, 240, 239)) == (5_768_633, 688_128)


# --- memory

@pytest.mark.parametrize("precision", PRECISIONS)
def test_memory_parts(precision):
    c = PRESETS["toy"]
    p = replace(load_run().profile, precision=precision, micro_batch_size=2, sharding="hsdp", shards=2)
    w, n = {"mixed": 2, "float32": 4}[precision], count_parameters(c)["total"]
    held = memory_per_rank(c, p, 4, 16)
    assert (held["parameters"], held["gradients"], held["optimiser"]) == (2*n, 2*n, 4*n) and held["total"] == sum(v for k, v in held.items() if k != "total")
    kept = memory_per_rank(c, replace(p, recompute=False), 4, 16)
    assert kept["activations"] == 32 * c.num_hidden_layers * activation_bytes(c, precision) and held["activations"] == 32 * (c.num_hidden_layers * w * c.hidden_size + activation_bytes(c, precision))
    assert kept["logits"] == 4 * c.vocab_size * c.hidden_size + w * 32 * c.hidden_size + 8 * 32 * c.vocab_size
    assert memory_per_rank(c, replace(p, sharding="none"), 4, 16)["optimiser"] == 8*n and memory_per_rank(c, replace(p, sharding="fsdp"), 4, 16)["optimiser"] == 8*local_parameters(c, 4)


def test_a_plan_that_does_not_fit_says_so():
    tight = plan(memory_gib=5)
    assert not tight["fits"] and "DOES NOT FIT into 5 GiB" in plan_text(tight) and plan()["fits"]


# --- time, energy, checkpoints

def test_time_and_energy_chain():
    p = plan("lab-4x128", nodes=2, gpus_per_node=1, batch_size=64, max_steps=2000, seq_len=256, peak_tflops=100, mfu=.25, watts=300, pue=1.5, co2_g_per_kwh=100, water_l_per_kwh=2, sharding="none")
    f = training_flops_per_token(PRESETS["lab-4x128"], 256)["matrices_attention"]
    hours = 2000 * 64 * 256 * f / 25e12 / 3600
    assert p["tokens"] == 2000 * 64 * 256 and p["gpu_hours"] == pytest.approx(hours) and p["days"] == pytest.approx(hours / 48) and p["tokens_per_second_per_gpu"] == pytest.approx(25e12 / f)
    assert p["seconds_per_step"] * 2000 / 3600 == pytest.approx(hours / 2) and p["steps"] == 2000
    e = p["energy"]
    assert e["kwh"] == pytest.approx(hours * .3 * 1.5) and e["kg_co2e"] == pytest.approx(e["kwh"] / 10) and e["litres"] == pytest.approx(2 * e["kwh"]) and e["status"] == "estimated"
    assert "as stated" in p["assumptions"] and plan("lab-4x128", mfu=.5)["gpu_hours"] == pytest.approx(plan("lab-4x128", mfu=.25)["gpu_hours"] / 2)


def test_the_default_utilisation_is_implied_by_the_record(ours):
    assert ours["gpu_hours"] == pytest.approx(fact("compute.gpu_hours")) and ours["utilisation"] == pytest.approx(.237, abs=.001) and "implied" in ours["assumptions"]
    assert round(ours["tokens_per_second_per_gpu"]) == 8331 and ours["steps"] == fact("train.steps") and ours["batch_tokens"] == fact("train.batch_tokens")


def test_a_shape_with_fewer_positions_reads_the_same_tokens(ours):
    short = plan("lab-4x192")
    assert short["tokens"] == ours["tokens"] and short["seq_len"] == 512 and short["steps"] == 4 * ours["steps"]


@pytest.mark.parametrize("interval, publish, number", [(0, True, 5), (3, True, 3), (4, True, 3), (3, False, 1)])
def test_checkpoints_are_counted_as_the_trainer_makes_them(interval, publish, number):
    from croissant.trainer import is_due
    train = changed(load_run(), max_steps=8, warmup_steps=1, checkpoint_interval=interval, publish=publish, state_interval=3).train
    found = checkpoints(PRESETS["toy"], train, shards=3)
    n = count_parameters(PRESETS["toy"])["total"]
    assert found["published_number"] == number and (not publish or number == sum(is_due(s, interval) for s in range(9)))
    assert (found["published_bytes"], found["state_bytes"], found["state_bytes_per_rank"], found["states_written"]) == (2*n, 12*n, 4*n, 3)


# --- the file

FACTS = {"train": {"max_steps": "train.steps", "batch_size": "train.batch_sequences", "micro_batch_size": "train.micro_batch", "seq_len": "train.sequence_length", "learning_rate": "train.lr_peak", "min_learning_rate": "train.lr_final",
                   "warmup_steps": "train.warmup_steps", "weight_decay": "train.weight_decay", "beta1": "train.adam_beta1", "beta2": "train.adam_beta2", "grad_clip": "train.clip",
                   "eval_interval": "train.eval_every", "checkpoint_interval": "train.save_every", "seed": "train.seed"},
         "profile": {"accumulation": "train.accumulation", "shards": "compute.gpus_per_node"},
         "cluster": {"nodes": "compute.nodes", "gpus_per_node": "compute.gpus_per_node", "peak_tflops": "compute.peak_tflops_per_gpu", "watts": "compute.gpu_power_w", "pue": "compute.pue",
                     "co2_g_per_kwh": "compute.co2_g_per_kwh"}}


def test_the_papers_file_is_the_papers_run():
    r = load_run()
    for section, keys in FACTS.items():
        for key, id in keys.items(): assert getattr(getattr(r, section), key) == fact(id), key
    assert r.mixture == {row["split"]: row["weight"] for row in load_table("reports/paper/sampler_weights.csv")}
    shape = PRESETS[r.train.preset]
    assert (shape.num_hidden_layers, shape.hidden_size, shape.intermediate_size, shape.num_attention_heads) == tuple(fact(f"model.{k}") for k in ("layers", "hidden", "ffn", "heads"))


def test_every_value_of_the_papers_file_says_where_it_comes_from():
    section = ""
    for line in PAPER.read_text(encoding="utf-8").splitlines():
        if m := re.fullmatch(r"(\w+):.*", line): section = m[1]
        elif section in ("train", "profile"): assert not line.strip() or re.search(r"# .*(section|Table|released configuration|hub|ours|share of the peak)", line), line
    assert "section" in (sources := load_run().cluster.sources)["watts"] and set(sources) == set(FACTORS)


def test_the_trainer_reads_the_papers_file():
    preset, config = cli._train_config(str(PAPER))
    assert preset == "base" and config.seed == 911 and config.learning_rate == fact("train.lr_peak")
    from croissant.optim import adamw
    assert adamw([torch.zeros(2, 2)]).defaults["eps"] == 1e-8                                # the file's comment says so


@pytest.mark.parametrize("old, new, said", [
    ("  max_steps: 190000", "  max_step: 190000", "unknown parameter 'max_step'; did you mean 'max_steps'"),
    ("  seed: 911                     # released configuration\n", "", "missing parameter 'seed'"),
    ("  accumulation: 4", "  accumulation: four", "'accumulation' should be int"),
    ("  accumulation: 4", "  accumulation: 5", "micro_batch_size 8 x accumulation 5 x 240 GPUs make 9600"),
    ("  accumulation: 4", "  recompute: true\n  accumulation: 4", "recompute belongs to the section train"),
    ("  micro_batch_size: 8 ", "  micro_batch: 8 ", "did you mean 'micro_batch_size'"),
    ("  nodes: 30", "  nodes: 0", "nodes is 0"),
    ("  shards: 8", "  shards: 7", "shards 7 does not divide 240"),
    ("  sharding: hsdp", "  sharding: zero", "choose one of none, fsdp, hsdp"),
    ("  precision: mixed", "  precision: float32", "change one of them"),
    ("  mfu: null", "  mfu: 38.5", "mfu is 38.5"),
    ("  pue: 1.2", "  pue: 0.9", "pue is 0.9"),
    ("  learning_rate: 3.0e-4", "  learning_rate: -1.0", "learning_rate is -1.0"),
    ("  warmup_steps: 1000", "  warmup_steps: 190000", "warmup_steps 190000 leave nothing"),
    ("  preset: base", "  preset: basse", "no preset 'basse'"),
    ("  seq_len: 2048", "  seq_len: 4096", "has 2048 positions"),
    ("  code_140b: 967", "  code_140b: 0", "weight of 'code_140b' is 0"),
    ("    watts: ", "    watt: ", "no source of 'watts'"),
    ("  job_hours: 20", "  job_hours: 0", "job_hours is 0"),
    ("launch:  ", "lunch:  ", "no section 'launch'"),
    ("train:  ", "extra: {a: 1}\ntrain:  ", "unknown section 'extra'"),
    ("mixture:  ", "mixture: [", "not a readable YAML file"),
])
def test_a_wrong_file_is_one_line_that_names_the_value(tmp_path, capsys, old, new, said):
    code, out, err = run(capsys, "plan", "--cluster", edited(tmp_path, old, new))
    assert code == 2 and not out and said in err and "run.yaml" in err and err.count("\n") == (err.count("\n") if "YAML" in said else 1)


@pytest.mark.parametrize("wrong", [dict(preset="huge"), dict(mfu=1.5), dict(mfu=-.1), dict(max_steps=-1), dict(nodes=-2), dict(gpus=12), dict(cluster="lune"), dict(name_of_nothing=1)])
def test_impossible_plans(wrong):
    with pytest.raises(BadInput): plan(**wrong)


# --- beside the paper

@pytest.mark.parametrize("printed, follows, said", [
    ("2.80", "a", "come back"), ("2.8e0", "a", "come back"), ("5.6", "b", "ours is 0.50 times it"), ("2.81", None, "the closest, a, is 0.36 % less"), ("100", None, "the closest, b, is 0.06 times it")])
def test_the_rule_for_differences(printed, follows, said):
    found = explain_figure(printed, {"a": 2.8, "b": 5.6}, "a")
    assert found["printed_follows"] == follows and said in found["why"] and found["ratio"] == pytest.approx(2.8 / float(printed))


def test_half_a_unit_is_inside_and_more_is_not():
    for printed in ("2.80", "4.30e22", "17", "99648"):
        unit = float(Decimal(1).scaleb(int(Decimal(printed).as_tuple().exponent)))
        assert explain_figure(printed, {"a": float(printed) + .499 * unit}, "a")["printed_follows"] == "a"
        assert explain_figure(printed, {"a": float(printed) + .501 * unit}, "a")["printed_follows"] is None


def test_every_printed_figure_is_explained_or_open(ours):
    rows = {r["quantity"]: r for r in beside_the_paper(ours)}
    follows = {k: r["printed_follows"] for k, r in rows.items()}
    assert follows["operations of the run"] == follows["share of the peak rate"] == "its GPU-hours times its rate" and rows["share of the peak rate"]["printed"] == "38.5"
    assert follows["energy"] == follows["carbon"] == "the whole project's GPU-hours times data-sheet power" and follows["carbon with the building"].startswith("its carbon, already rounded")
    assert follows["parameters without embeddings"] == "the matrices of the layers" and [k for k, v in follows.items() if v is None] == ["GPU-hours of the run"]
    hours = rows["GPU-hours of the run"]
    assert hours["closest"] == "recomputed at its rate" and hours["ratio"] == pytest.approx(ours["flops"]["recomputed"] / (120e12 * 3600) / 99648) and .81 < hours["ratio"] < .82
    assert rows["energy"]["value"] == pytest.approx(99648 * .4 / 1000) and rows["energy"]["ratio"] == pytest.approx(.81, abs=.002)
    assert all(math.isfinite(r["value"]) and r["why"] and r["locator"] for r in rows.values()) and len(rows) == 11


def test_the_words_follow_the_numbers(ours):
    "Twice the hours, and the sentence about energy says something else."
    twice = next(r for r in beside_the_paper(ours | {"gpu_hours": 2 * ours["gpu_hours"]}) if r["quantity"] == "energy")
    assert twice["why"].endswith("ours is 1.62 times it")
    as_project = next(r for r in beside_the_paper(ours | {"gpu_hours": fact("compute.project_gpu_hours")}) if r["quantity"] == "energy")
    assert as_project["printed_follows"] == as_project["definition"]


# --- the launch script

STUBS = {"srun": 'echo "$@" >> asked; touch running; for ((i = 0; i < 600; i++)); do if [ -e interrupted ]; then exit "${INTERRUPTED:-130}"; fi; if [ -n "${STATUS:-}" ]; then exit "$STATUS"; fi; sleep .05; done',
         "scancel": "touch interrupted", "scontrol": 'if [ "$1" = show ]; then echo noeud-1; echo noeud-2; else echo "$@" >> requeued; fi'}


def job(tmp_path, script, stubs=STUBS, activate="", **env):
    "A job script under an imitation of Slurm."
    for name, line in stubs.items():
        (tmp_path/"bin").mkdir(exist_ok=True)
        (tmp_path/"bin"/name).write_text(f"#!/bin/bash\n{line}\n")
        (tmp_path/"bin"/name).chmod(0o755)
    (tmp_path/".venv/bin").mkdir(parents=True, exist_ok=True)
    (tmp_path/".venv/bin/activate").write_text(activate)
    (tmp_path/"job.sh").write_text(script)
    env = os.environ | {"PATH": f"{tmp_path/'bin'}:{os.environ['PATH']}", "SLURM_SUBMIT_DIR": str(tmp_path), "SLURM_JOB_ID": "4711", "SLURM_JOB_NODELIST": "noeud-[1-2]", **env}
    return subprocess.Popen(["bash", "job.sh"], cwd=tmp_path, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def until(what, seconds=60):
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end
        time.sleep(.02)


def test_the_script_is_clean_and_says_what_it_must(ours):
    script = slurm_script(load_run())
    assert subprocess.run(["bash", "-n"], input=script, text=True, capture_output=True).returncode == 0
    for line in ("#SBATCH --nodes=30", "#SBATCH --gpus-per-node=8", "#SBATCH --time=20:00:00", "#SBATCH --requeue", "#SBATCH --open-mode=append", "export TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1", "set -euo pipefail"):
        assert f"\n{line}" in script, line
    assert "--replicas 30 --resume auto &" in script and "--nproc-per-node=8" in script and "CONFIG=${CONFIG:-params.paper.yaml}" in script
    assert f"{ours['days']:.1f} days" in script and f"{math.ceil(ours['days'] * 24 / 20)} jobs" in script


def test_the_script_holds_nothing_of_one_cluster():
    script = slurm_script(load_run())
    settings = [line for line in script.splitlines() if line.startswith("#SBATCH")]
    assert not [s for s in settings if re.search("account|partition|qos|constraint|mail|nodelist", s)] and not re.search(r"(^|[\s=\"'])/(?!bin/bash|dev/null)\w", script.replace("#!/bin/bash", ""))
    assert not re.search(r"token(?!izer)|password|secret|\w@[a-z]", script, re.I) and not re.search(r"\brm\b", script)


def test_a_name_from_a_file_is_no_command(tmp_path):
    run_ = replace(changed(load_run(), gpu="A100\n#SBATCH --account=x"), file="pa rams'; touch volé; '.yaml")
    script = slurm_script(run_)
    assert not [x for x in script.splitlines() if x.startswith("#SBATCH --account")] and subprocess.run(["bash", "-n"], input=script, text=True).returncode == 0
    assert job(tmp_path, script, STATUS="0").wait(60) == 0 and not (tmp_path/"volé").exists() and "--config pa rams'; touch volé; '.yaml --" in (tmp_path/"asked").read_text()


def test_the_warning_saves_and_requeues_and_the_second_start_has_another_rendezvous(tmp_path):
    script = slurm_script(load_run())
    with job(tmp_path, script) as p:
        until((tmp_path/"running").exists)
        p.send_signal(signal.SIGUSR1)
        assert p.wait(60) == 0, p.stdout.read()
    assert (tmp_path/"requeued").read_text() == "requeue 4711\n"
    (tmp_path/"interrupted").unlink()
    assert job(tmp_path, script, STATUS="0", SLURM_RESTART_COUNT="1").wait(60) == 0 and (tmp_path/"requeued").read_text() == "requeue 4711\n"
    first, second = (tmp_path/"asked").read_text().splitlines()
    assert "--rdzv-id=4711-0 --rdzv-endpoint=noeud-1:24711" in first and "--nnodes=2" in first and first.replace("4711-0", "4711-1") == second


@pytest.mark.parametrize("status", [0, 3])
def test_a_run_that_ends_by_itself_is_not_queued_again(tmp_path, status):
    assert job(tmp_path, slurm_script(load_run()), STATUS=str(status)).wait(60) == status and not (tmp_path/"requeued").exists()


def test_a_run_that_finishes_in_the_last_minutes_is_not_queued_again(tmp_path):
    with job(tmp_path, slurm_script(load_run()), INTERRUPTED="0") as p:
        until((tmp_path/"running").exists)
        p.send_signal(signal.SIGUSR1)
        assert p.wait(60) == 0
    assert (tmp_path/"interrupted").exists() and not (tmp_path/"requeued").exists()


@pytest.mark.exhaustive
def test_the_script_trains(tmp_path):
    "The rendered script with the real torchrun and trainer, one rank, a toy; a requeued job finds the run finished."
    from croissant.packing import toy_shards
    from croissant.tokenizer import toy_tokenizer
    file = tmp_path/"params.toy.yaml"
    small = {"preset": "toy", "max_steps": 4, "batch_size": 2, "micro_batch_size": 2, "seq_len": 16, "warmup_steps": 1, "dtype": "float32", "publish": False}
    text = yaml.safe_load(PAPER.read_text(encoding="utf-8"))
    text["train"] |= small
    text["profile"] |= {"accumulation": 1, "shards": 1, "precision": "float32"}
    text["cluster"] |= {"nodes": 1, "gpus_per_node": 1}
    file.write_text(yaml.safe_dump(text), encoding="utf-8")
    toy_tokenizer().save(tmp_path/"tok")
    stubs = {"srun": 'while [[ $1 == --* ]]; do shift; done; exec "$@"', "scontrol": "echo localhost", "scancel": "false"}
    env = dict(SHARDS=str(toy_shards()), TOKENIZER=str(tmp_path/"tok"), OUT=str(tmp_path/"run"), PYTHONPATH=str(root()), CROISSANT_ROOT=str(root()), SLURM_JOB_ID=str(os.getpid()))
    said = []
    for _ in range(2):
        with job(tmp_path, slurm_script(load_run(str(file))), stubs, f'export PATH="{os.path.dirname(sys.executable)}:$PATH"\n', **env) as p: said.append(p.communicate(timeout=300)[0])
        assert p.returncode == 0, said[-1]
    assert (tmp_path/"run/record.json").is_file() and all("step 4 of 4" in s for s in said)


# --- the command

def test_the_command(capsys, tmp_path, monkeypatch):
    code, out, err = run(capsys, "plan", "--preset", "base", "--cluster", "paper")
    assert code == 0 and not err and "1,345.4M" in out and "1,214.3M" in out and "99,648 GPU-hours" in out and "beside the paper" in out and "LBNL" in out
    monkeypatch.setenv("CROISSANT_ROOT", str(root()))
    monkeypatch.chdir(tmp_path)
    code, out, _ = run(capsys, "plan", "--json", "--mfu", "0.4", "--slurm", "job.sh")
    found = json.loads(out)
    assert code == 0 and found["utilisation"] == .4 and found["preset"] == "base" and found["slurm"] == "job.sh" and len(found["paper"]) == 11
    assert (tmp_path/"job.sh").read_text() == slurm_script(changed(load_run(), mfu=.4))
    code, out, _ = run(capsys, "plan", "--preset", "xs")
    assert code == 0 and "beside the paper" not in out
    edited(tmp_path, "name: paper", "name: lune")
    code, out, _ = run(capsys, "plan", "--cluster", "run.yaml")
    assert code == 0 and "base on lune" in out and "beside the paper" not in out
    for argv in (["--preset", "colossal"], ["--cluster", "lune"], ["--cluster", "nulle-part.yaml"], ["--mfu", "2"], ["--mfu", "0"], ["--preset", "xs", "--slurm", "autre.sh"]):
        code, out, err = run(capsys, "plan", *argv)
        assert code == 2 and not out and err.startswith("error: ") and err.count("\n") == 1
    assert not (tmp_path/"autre.sh").exists()
