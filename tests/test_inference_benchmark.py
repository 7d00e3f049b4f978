"""benchmarks/inference.py: every engine says the same on the same weights, and what is recorded follows from its turns."""
import json
import math
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch

from croissant.checkpoint import save_model
from croissant.export import write_gguf
from croissant.model import PRESETS, Llama
from croissant.packing import toy_shards
from croissant.params import BadInput, root
from croissant.tokenizer import toy_tokenizer

RECORD = root()/"reports/benchmarks/inference.json"
PROMPT, STEPS = [1, *range(300, 317)], 6
NEEDED = {"llama.cpp": "xllamacpp", "ctranslate2": "ctranslate2", "onnxruntime-genai": "onnxruntime_genai"}


@pytest.fixture(scope="module")
def script(load_benchmark):
    yield load_benchmark("inference")
    for name in ("inference", "engines", "training", "corpus"): sys.modules.pop(name, None)   # they were imported under names that anybody might use


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    "A toy with weights large enough that no two tokens are nearly as likely; the other forms are written when they are asked for."
    folder, toy = tmp_path_factory.mktemp("inference"), toy_tokenizer()
    model = Llama(replace(PRESETS["toy"], vocab_size=toy.vocab_size, initializer_range=.2), 0)
    return {"folder": save_model(model, toy, folder/"model", torch.bfloat16), "ct2": folder/"ct2", "onnx": folder/"onnx", **{kind: folder/f"{kind}.gguf" for kind in ("f16", "q8_0", "q4_k_m")}}


@pytest.fixture(scope="module")
def engine(script, files):
    "An engine by name, opened once; one whose package is missing is skipped."
    opened = {}
    def get(name):
        maker = name.partition(",")[0]
        if maker in NEEDED: pytest.importorskip(NEEDED[maker], reason="a peer of requirements-bench.lock; `make bench` installs it, and then this test runs")
        if name not in opened:
            kind, how = script.ENGINES[name]
            if how in files and not files[how].exists(): write_gguf(files["folder"], files[how], how)
            if maker == "ctranslate2": script.write_ct2(files["folder"], files["ct2"])
            if maker == "onnxruntime-genai":
                pytest.importorskip("onnx_ir", reason="a peer of requirements-bench.lock; `make bench` installs it, and then this test runs")
                script.write_onnx(files["folder"], files["onnx"])
            opened[name] = kind(files, how)
        return opened[name]
    yield get
    opened.clear()


NAMES = ("transformers, float32", "transformers, bfloat16", "ours, bfloat16", "ours, int8", "llama.cpp, F16", "llama.cpp, Q8_0", "llama.cpp, Q4_K_M", "ctranslate2, int8", "onnxruntime-genai, int4")


def test_the_groups_hold_every_engine(script):
    assert tuple(script.ENGINES) == NAMES and {n for group in script.GROUPS.values() for n in group} == set(NAMES)
    for names in script.GROUPS.values(): assert script.OURS in names and len(names) == len(set(names))
    assert {peer for _, peer, _ in script.GOALS} <= set(script.GROUPS["goals"]) and script.GROUPS["goals"][0] == script.EXACT


@pytest.mark.parametrize("name", NAMES)
def test_an_engine_continues_a_prompt(engine, name):
    "As many tokens as were asked for, end marks or not, in two times; with 16 bits those of float32 from its own generate."
    engine(name).turn(PROMPT, 1)
    read, write, ids = engine(name).turn(PROMPT, STEPS)
    assert len(ids) == STEPS + 1 and read > 0 and write > 0 and engine(name).turn(PROMPT, STEPS)[2] == ids
    if name in ("transformers, float32", "llama.cpp, F16"):
        exact = engine("transformers, float32").model
        x = torch.tensor([PROMPT])
        assert ids == exact.generate(x, attention_mask=torch.ones_like(x), do_sample=False, min_new_tokens=STEPS + 1, max_new_tokens=STEPS + 1, pad_token_id=0)[0, len(PROMPT):].tolist()


@pytest.mark.parametrize("name,least", zip(NAMES, (1, .999, .999, .9, .9999, .99, .5, .9, .5)))
def test_logits_resemble_those_of_float32(engine, script, name, least):
    exact = torch.from_numpy(engine(script.EXACT).ends([PROMPT, PROMPT[:5]]))
    found = torch.from_numpy(engine(name).ends([PROMPT, PROMPT[:5]]))
    assert found.shape == exact.shape == (2, toy_tokenizer().vocab_size) and found.exp().sum(1).numpy() == pytest.approx([1, 1], abs=1e-3)
    assert script.agreement(exact, found)["correlation"] >= least - 1e-6


@pytest.mark.parametrize("name", NAMES)
def test_weights_are_counted_in_the_format(engine, script, name):
    "Bits a weight follow the name; ours keeps its bytes in two layouts, and only one of them counts as the format."
    held, one, table = engine(name).weights()
    bits = 8 * one / sum(p.numel() for p in engine("transformers, float32").model.parameters())
    low, high = {"float32": (32, 32.1), "bfloat16": (16, 16.1), "F16": (16, 16.1), "int8": (8, 12), "Q8_0": (8.5, 10), "Q4_K_M": (4.5, 10), "int4": (4, 16)}[name.rpartition(", ")[2]]   # in a toy the embedding weighs much, and not every matrix has whole blocks
    assert low <= bits <= high and held == pytest.approx(one, rel=1 if name == "ours, int8" else 0) and held >= one
    assert table == {"float32": 32, "bfloat16": 16, "F16": 16, "Q8_0": 8.5, "int4": 32, "Q4_K_M": table}.get(name.rpartition(", ")[2], 16 if name == script.OURS else 8) and table > 4


def test_quality_is_that_of_our_own_evaluation(engine, script, files, tmp_path):
    "Float32 by transformers costs what our class counts; the nats of the windows add up to it."
    from croissant.bits_per_byte import evaluate_bpb
    from croissant.checkpoint import load_checkpoint
    from croissant.packing import Shards
    shards, (model, tok) = toy_shards(), load_checkpoint(files["folder"])
    found = engine(script.EXACT).quality(shards, files["folder"], 400, 64)
    ours = evaluate_bpb(model, Shards(shards, "validation", tok), tok, 64, max_tokens=400)
    for part in ("fr", "en"):
        f = found[part]
        assert f["bpb"] == pytest.approx(ours[part]["bpb"], abs=1e-4) and math.fsum(f["nats"]) / math.log(2) / f["bytes"] == pytest.approx(f["bpb"]) and f["tokens"] == ours[part]["tokens"]
    rough = engine("ours, int8").quality(shards, files["folder"], 400, 64)
    row = script.costs("ours, int8", rough, found, 8.)
    assert row["above_float32_fr"]["value"] == pytest.approx(rough["fr"]["bpb"] - found["fr"]["bpb"]) and row["above_float32_fr"]["low"] < row["above_float32_fr"]["value"] < row["above_float32_fr"]["high"]


def test_cost_above_float32_by_hand(script):
    "Two windows that need ln 4 and ln 16 nats more, 6 bits over 2 bytes: 3 bits per byte; they deviate by sqrt(2) / 2 bits per byte, so their sum by 1."
    cost = script.above([math.log(4), math.log(16)], [0., 0.], 2)
    assert (cost["value"], cost["windows"]) == (pytest.approx(3), 2) and cost["high"] - cost["value"] == pytest.approx(1.96) == cost["value"] - cost["low"]


def test_turns_rotate_and_the_first_warms_up(script, monkeypatch):
    "Each engine is asked briefly and then in full, before the next one's turn; speeds are tokens over seconds."
    asked = []
    def ask(name, what, prompt, n): asked.append((name, n)); return 2., 4., [0] * (n + 1)
    found = script.play(ask, ("a", "b"), 3, 100)
    w, d = script.WARMING, script.DECODED
    assert asked == [("a", w), ("a", d), ("b", w), ("b", d)] * 4
    assert found == {n: {"prefill": [script.PROMPT / 2] * 3, "decode": [d / 4] * 3} for n in "ab"}


def test_rows_are_made_of_paired_turns(script):
    "By hand: 10, 20 and 30 tokens per second against 5, 4 and 10 in the same turns are 2, 5 and 3 times."
    found = {script.OURS: {"prefill": [10, 20, 30], "decode": [8, 8, 8]}, "slow": {"prefill": [5, 4, 10], "decode": [4, 4, 2]}}
    first, second = script.compared("paper", "goals", found)
    assert (first["phase"], first["ratio"], first["ratio_low"], first["ratio_high"], first["repeats"], first["our_tokens_per_second"], first["peer_tokens_per_second"]) == ("prefill", 3, 2, 5, 3, 20, 5)
    assert (second["phase"], second["ratio"], second["ratio_low"], second["ratio_high"]) == ("decode", 2, 2, 4)


def test_goals_are_judged_and_not_bent(script):
    "By hand: every ratio stands exactly at its goal, then one falls short by a hair."
    rows = [{"shape": "paper", "group": "goals", "phase": phase, "peer": peer, "ratio": least, "ratio_low": least, "ratio_high": least} for phase, peer, least in script.GOALS]
    assert [g["met"] for g in script.judged(rows)] == [True] * 4
    rows[2]["ratio"] -= .001
    assert [g["met"] for g in script.judged(rows)] == [True, True, False, True]


def test_words_follow_from_tokens(script):
    config = PRESETS["toy"]
    n = script.count_parameters(config)["total"]
    row = script.described("lab", "goals", "ours, int8", {"prefill": [10, 30, 20], "decode": [3, 6, 9]}, 100., (2 * n, n, 16), config, {"fr": 1.5, "en": 1.2})
    assert row["weights_mib"] == 2 * n / 2**20 and row["read_mib"] == (n - 2 * 512 * 64) / 2**20   # the embedding, in 16 bits
    assert (row["decode_tokens_per_second"], row["decode_low"], row["decode_high"], row["words_per_second_fr"], row["words_per_second_en"], row["bits_per_weight"]) == (6, 3, 9, 4, pytest.approx(5), 8)


def test_prompts_are_the_same_in_every_process(script):
    assert script.prompt_of(3, 600) == script.prompt_of(3, 600) != script.prompt_of(4, 600) and len(script.prompt_of(0, 600)) == script.PROMPT and min(script.prompt_of(0, 600)) >= 150


def test_a_missing_package_names_the_remedy(script, monkeypatch):
    monkeypatch.setattr(script, "PACKAGES", ("no_such_engine",))
    with pytest.raises(BadInput, match="no_such_engine: not installed.*make bench"): script.check(["lab"])
    with pytest.raises(BadInput, match="moon: no such shape; choose from paper, lab"): script.main(["moon"])


@pytest.mark.skipif(not RECORD.is_file(), reason="reports/benchmarks/inference.json is not here; `python benchmarks/inference.py` writes it, and then this test runs")
def test_the_record_holds_every_engine_and_what_it_costs(script):
    record = json.loads(RECORD.read_text(encoding="utf-8"))
    assert {(r["shape"], r["group"], r["phase"], r["peer"]) for r in record["rows"]} == {(s, g, p, n) for s in script.SHAPES for g, names in script.GROUPS.items() for n in names if n != script.OURS for p in ("prefill", "decode")}
    assert {(e["shape"], e["group"], e["engine"]) for e in record["engines"]} == {(s, g, n) for s in script.SHAPES for g, names in script.GROUPS.items() for n in names}
    for r in record["rows"]: assert r["repeats"] == script.SHAPES[r["shape"]]["repeats"] and r["ours"] == script.OURS
    for e in record["engines"]:
        for phase in ("prefill", "decode"): assert 0 < e[f"{phase}_low"] <= e[f"{phase}_tokens_per_second"] <= e[f"{phase}_high"]
        assert e["resident_mib"] > 0 and 4 < e["bits_per_weight"] < 33 and 0 < e["words_per_second_fr"] < e["decode_tokens_per_second"]
        assert e["engine"] == script.EXACT or -1 < e["against_float32"]["correlation"] <= 1 + 1e-6
    assert [(g["phase"], g["peer"], g["at_least"]) for g in record["goals"]] == [*script.GOALS] and all(g["met"] == (g["ratio"] >= g["at_least"]) for g in record["goals"])
    assert [q["engine"] for q in record["quality"]] == list(dict.fromkeys(n for names in script.GROUPS.values() for n in names))
    sizes = np.array([[q[f"tokens_{part}"] for part in ("fr", "en")] for q in record["quality"]])
    assert (sizes == sizes[0]).all() and .9 * script.EVALUATED < sizes.min() <= script.EVALUATED and record["prompt"] == script.PROMPT and record["decoded"] == script.DECODED
