"""benchmarks/gpu.py: every arm of it on the CPU with a toy shape, what it refuses, and how it behaves where there is no GPU."""
import json
import re
import runpy
import subprocess
import sys
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from conftest import EXHAUSTIVE

import croissant.model
from croissant.model import PRESETS
from croissant.params import BadInput, root


@pytest.fixture(scope="module")
def script(load_benchmark):
    yield load_benchmark("gpu")
    torch._dynamo.reset()


@pytest.fixture
def bench(script):
    made = script.Bench(script.Card("cpu"), script.TINY)
    script.reference(made)
    return made


@pytest.fixture(scope="module")
def record(script, tmp_path_factory):
    out = tmp_path_factory.mktemp("gpu")/"gpu.json"
    made = script.Card.__init__
    def traced(card, *rest):
        made(card, *rest)
        if not EXHAUSTIVE: card.backend = "eager"                      # the graphs are traced as always; only their way back is not traced a second time
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(script.Card, "__init__", traced)
        rows, code = croissant.model.ROWS, script.main(["--tiny", "--minutes", "600", "--out", str(out)])
    assert code == 0 and croissant.model.ROWS == rows and not torch.distributed.is_initialized()
    return json.loads(out.read_text(encoding="utf-8"))


@pytest.mark.exhaustive
def test_every_arm_runs(script, record):
    "The record of a toy run has every arm, in order, with a number each that its own seconds give."
    assert record["finished"] and not record["left_out"] and [a["name"] for a in record["arms"]] == [a.name for a in script.ARMS]
    tokens = record["settings"]["sequences_per_step"] * record["settings"]["seq_len"]
    for a in record["arms"]:
        steps = [s for turn in a["seconds"] for s in turn]
        assert a["turns"] == len(a["seconds"]) == script.ROUNDS and a["steps"] == len(steps) == script.ROUNDS*script.STEPS
        assert a["tokens_per_second_low"] <= a["tokens_per_second"] <= a["tokens_per_second_high"] <= tokens/min(steps)*1.0001
        assert a["mfu_measured"] == pytest.approx(a["tokens_per_second"]*record["flops_per_token"]/1e12/record["peaks"]["measured"], rel=1e-4)
        assert a["micro_batch"]*a["accumulation"] == record["settings"]["sequences_per_step"] and a["losses"][-1] < a["losses"][0]
    first, sharded, again = (record["arms"][i]["losses"] for i in (0, 3, 4))
    assert first == pytest.approx(sharded, abs=1e-4) and first == pytest.approx(again, abs=1e-4)


@pytest.mark.exhaustive
def test_record_says_where_and_how(record):
    assert record["what"] and record["machine"] and record["threads"] >= 1 and re.fullmatch(r"20\d\d-\d\d-\d\d", record["date"])
    assert set(record["device"]) == {"name", "kind", "total_mib", "driver", "power_limit", "capability"} and record["versions"]["torch"] and record["versions"]["transformers"]
    assert record["peaks"]["measured"] == max(r["tflops"] for r in record["matmul"]) and {r["when"] for r in record["matmul"]} == {"before", "after"} and record["peaks"]["data_sheet"] is None
    assert record["reference"]["float32_agrees"] and record["reference"]["float32_gradient_difference"] < 1e-5 and record["graph_breaks"] == 0 and len(record["code"]) == 3


@pytest.mark.exhaustive
def test_comparisons_are_complete(script, record):
    "What `tests/test_benchmarks.py` asks of a tracked record; each of ours meets each peer, and inference has two works and two batches."
    for r in record["rows"]: assert r["peer"] and r["ours"] and r["repeats"] >= 3 and 0 < r["ratio_low"] <= r["ratio"] <= r["ratio_high"]
    works = [r["work"] for r in record["rows"]]
    ours = sum(a.side == "ours" for a in script.ARMS)
    assert works.count("training step") == ours*(len(script.ARMS) - ours) and works[-4:] == ["prefill, batch 1", "decode, batch 1", "prefill, batch 2", "decode, batch 2"]
    assert [(r["side"], r["batch"]) for r in record["inference"]] == [(s, b) for b in (1, 2) for s in ("ours", "transformers")]
    assert all(r["prefill_tokens_per_second"] > 0 and r["decode_tokens_per_second"] > 0 and r["logits_correlation"] > .99 for r in record["inference"])


def test_greedy_tokens_are_those_of_transformers(script):
    "In float32 both sides continue alike; a cache that is read wrongly would not."
    card, shape = script.Card("cpu"), script.TINY.shape
    ids = torch.randint(0, shape.vocab_size, (2, 16), generator=torch.Generator().manual_seed(0))
    with torch.inference_mode(): assert torch.equal(script.our_tokens(script.our_model(card, shape), ids, 9), script.peer_tokens(script.peer_model(card, shape).eval(), ids, 9))


def test_a_look_at_the_future_is_noticed(script, bench, monkeypatch):
    "Without the causal mask a fresh model's loss is as good as before; its gradients are not."
    arm = next(a for a in script.ARMS if a.name == "ours, not compiled")
    assert "seconds" in bench.attempt(arm, 2, 1, 1)
    monkeypatch.setattr(croissant.model, "attention", lambda q, k, v, how: torch.nn.functional.scaled_dot_product_attention(q, k, v))
    assert re.match(r"Different: the first loss is [+-]0\.00\d+ .* a gradient \d\d", bench.attempt(arm, 2, 1, 1)["error"])


def test_another_loss_and_idle_steps_are_noticed(script, bench, monkeypatch):
    arm = replace(script.ARMS[1], sharded=False)
    monkeypatch.setattr(script, "RATE", 0.)
    assert "do not fall" in bench.attempt(arm, 2, 1, 1)["error"]
    monkeypatch.setattr(script, "cross_entropy", lambda logits, y: 1.01*torch.nn.functional.cross_entropy(logits.float().flatten(0, 1), y.flatten()))
    assert bench.attempt(arm, 2, 1, 1)["error"].startswith("Different: the first loss is +0.05")


def test_the_micro_batch_is_the_fastest_that_fits(script, bench, monkeypatch):
    def turn(limit, error=torch.OutOfMemoryError):
        def run(arm, size, warm, steps):
            if size > limit: raise error("no")
            return {"micro_batch": size, "seconds": [1/size], "peak": 100*size + 50, "state": 50}
        return run
    def settled(arm): return [(t["micro_batch"], "seconds" in t) for t in bench.settle(arm)]
    main, late = script.ARMS[0], script.ARMS[-1]
    monkeypatch.setattr(bench, "turn", turn(4))
    assert settled(main) == [(4, True), (2, True)] and settled(late) == [(2, True)]
    monkeypatch.setattr(bench.card, "total", lambda: 450)               # twice the size would need 50 + 400 of them
    assert settled(main) == [(2, True)]
    monkeypatch.setattr(bench, "turn", turn(1))
    assert settled(main) == [(1, True), (2, False)]
    monkeypatch.setattr(bench, "turn", turn(1, RuntimeError))           # no smaller size helps against another error
    assert settled(main) == [(2, False)]


def test_an_attention_kernel_that_fails_is_given_up(script, bench, monkeypatch):
    "For the first arm only: later ones would change what it measured."
    flash, cudnn = script.SDPBackend.FLASH_ATTENTION, script.SDPBackend.CUDNN_ATTENTION
    def turn(arm, size, warm, steps):
        if bench.kernels[0] is cudnn or arm.sharded: raise RuntimeError("no engine")
        return {"micro_batch": size, "seconds": [1.], "peak": 1, "state": 1}
    monkeypatch.setattr(bench, "turn", turn)
    bench.kernels = [cudnn, flash]
    assert bench.first(script.ARMS[0], 2)["attention"] == "FLASH_ATTENTION" and bench.refused == [{"kernel": "CUDNN_ATTENTION", "error": "RuntimeError: no engine"}]
    bench.kernels = [flash, cudnn]
    assert "error" in bench.first(script.ARMS[3], 2) and bench.kernels == [flash, cudnn]


def test_an_interrupted_run_keeps_what_it_has(script, tmp_path, monkeypatch):
    def settle(self, arm):
        if arm is script.ARMS[2]: raise KeyboardInterrupt
        return [{"micro_batch": 2, "error": "RuntimeError: this toy measures nothing", "out_of_memory": False}]
    monkeypatch.setattr(script.Bench, "settle", settle)
    with pytest.raises(KeyboardInterrupt): script.main(["--tiny", "--minutes", "600", "--out", str(tmp_path/"gpu.json")])
    found = json.loads((tmp_path/"gpu.json").read_text(encoding="utf-8"))
    assert [a["name"] for a in found["arms"]] == [a.name for a in script.ARMS[:2]] and not found["finished"] and found["peaks"]["measured"] > 0


def test_without_time_every_arm_is_left_out_by_name(script, tmp_path):
    assert script.main(["--tiny", "--minutes", "0", "--out", str(tmp_path/"gpu.json")]) == 0
    found = json.loads((tmp_path/"gpu.json").read_text(encoding="utf-8"))
    assert found["left_out"] == [*(a.name for a in script.ARMS), "inference, batch 1", "inference, batch 2"] and found["arms"] == found["rows"] == []


def test_ratios_by_hand(script):
    "Rounds of 2 and 4 seconds against 6 and 20: 3 and 5 times; a round that only one side has does not count."
    ours, peer = script.ARMS[:2]
    turns = {ours: [{"seconds": [2., 2., 9.]}, {"seconds": [4.]}], peer: [{"seconds": [6.]}, {"seconds": [20.]}, {"seconds": [1.]}]}
    row, = script.comparisons(turns)
    assert row == {"peer": peer.name, "ours": ours.name, "work": "training step", "ratio": 4, "ratio_low": 3, "ratio_high": 5, "repeats": 2}
    assert script.spread([3., 1., 2.]) == (2, 1, 3) and script.brief({"a": [1234.5678, 1.23456789e-7, 3]}) == {"a": [1234.57, 1.23457e-7, 3]}


@pytest.mark.parametrize(("name", "peak"), [("NVIDIA H100 80GB HBM3", 989), ("NVIDIA H100 PCIe", 756), ("NVIDIA H200", 989), ("NVIDIA A100-SXM4-80GB", 312), ("AMD EPYC", None)])
def test_peaks_of_data_sheets(script, name, peak): assert script.data_sheet(name) == peak


def test_cards_that_cannot_are_named(script, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    for card, why in ((SimpleNamespace(name="Tesla T4", major=7, total_memory=2**40), "bf16"), (SimpleNamespace(name="small", major=9, total_memory=2**34), "needs")):
        monkeypatch.setattr(torch.cuda, "get_device_properties", lambda i, card=card: card)
        with pytest.raises(BadInput, match=f"no CUDA device: {card.name} .*{why}"): script.device(False, PRESETS["base"])


def test_without_a_gpu_it_says_so(script, monkeypatch, capsys):
    "One line and status 2, as `make bench` expects."
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(sys, "argv", ["gpu.py"])
    with pytest.raises(SystemExit) as end: runpy.run_path(str(root()/"benchmarks/gpu.py"), run_name="__main__")
    said = capsys.readouterr()
    assert end.value.code == 2 and said.out == "" and said.err.startswith("no CUDA device: ") and said.err.count("\n") == 1


@pytest.mark.parametrize(("failing", "code", "end"), [("gpu", 2, True), ("gpu", 1, False), ("build", 2, False)])
def test_make_bench_goes_on_without_a_gpu(tmp_path, failing, code, end):
    "The loop of the Makefile over three scripts: only a missing device passes."
    loop = re.search(r"&& (for f in benchmarks.*done)'", (root()/"Makefile").read_text()).group(1).replace("$$", "$").replace("python", sys.executable)
    (tmp_path/"benchmarks").mkdir()
    for name in ("build", "gpu", "training"): (tmp_path/f"benchmarks/{name}.py").write_text(f"import sys; print('{name}'); sys.exit({code if name == failing else 0})")
    done = subprocess.run(["sh", "-c", loop], capture_output=True, text=True, cwd=tmp_path)
    assert (done.returncode == 0) == end == ("training" in done.stdout)
