"What a run says about itself: files that survive a kill, and numbers that are right."
import importlib.util
import json
import sys

import matplotlib.pyplot as plt
import pytest
import torch

from croissant.params import BadInput
from croissant.tracking import JsonLines, LiveCurve, Progress, TensorBoard, draw_losses, matmul_peak, progress_text, read_metrics, smoothed


def event(step, **more): return {"kind": "step", "step": step, "loss": 6/step, **more}


def test_lines_are_there_at_once_and_survive_a_cut(tmp_path):
    path = tmp_path/"run"/"metrics.jsonl"
    tracker = JsonLines(path)
    assert not path.parent.exists()   # a run that is refused leaves nothing behind
    for s in (1, 2, 3):
        tracker.log(event(s))
        assert [e["step"] for e in read_metrics(path)] == list(range(1, s + 1))
    whole = path.read_bytes()
    for cut in range(len(whole)):
        path.write_bytes(whole[:cut])
        steps = [e["step"] for e in read_metrics(path)]
        assert steps == [1, 2, 3][:len(steps)] and len(steps) >= whole[:cut].count(b"\n")


@pytest.mark.parametrize("step,kept", [(0, []), (2, [1, 2]), (9, [1, 2, 3])])
def test_a_continued_run_forgets_what_was_undone(tmp_path, step, kept):
    path = tmp_path/"metrics.jsonl"
    path.write_text("".join(json.dumps(event(s)) + "\n" for s in (1, 2, 3)) + '{"kind": "st')
    tracker = JsonLines(path, step); tracker.log(event(10)); tracker.close()
    assert [e["step"] for e in read_metrics(path)] == [*kept, 10] and not list(tmp_path.glob("*.partial"))


def test_damage_in_the_middle_is_named(tmp_path):
    (tmp_path/"m.jsonl").write_text('{"step": 1}\n{oops\n{"step": 3}\n')
    with pytest.raises(BadInput, match="m.jsonl, line 2: not JSON"): read_metrics(tmp_path/"m.jsonl")


def test_numbers_without_a_spelling(tmp_path):
    tracker = JsonLines(tmp_path/"m.jsonl")
    tracker.log({"kind": "step", "step": 1, "loss": float("nan"), "norm": float("-inf"), "langue": "français"}); tracker.close()
    assert read_metrics(tmp_path/"m.jsonl") == [{"kind": "step", "step": 1, "loss": "nan", "norm": "-inf", "langue": "français"}]


def test_without_tensorboard(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(BadInput, match="pip install tensorboard.*metrics.jsonl is written in any case"): TensorBoard(tmp_path)


@pytest.mark.skipif(not importlib.util.find_spec("tensorboard"), reason="tensorboard is optional and not here; to run this: python -m pip install tensorboard")
def test_tensorboard_reads_its_events(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    first = TensorBoard(tmp_path)
    for s in (1, 2, 3): first.log(event(s, note="text is left out"))
    first.close()
    second = TensorBoard(tmp_path, step=2); second.log(event(3, mfu=.5)); second.log({"kind": "evaluation", "step": 3, "bpb_fr": 1.5}); second.close()
    found = EventAccumulator(str(tmp_path)); found.Reload()
    assert set(found.Tags()["scalars"]) == {"step/loss", "step/mfu", "evaluation/bpb_fr"}
    assert [(e.step, round(e.value, 4)) for e in found.Scalars("step/loss")] == [(1, 6.), (2, 3.), (3, 2.)]


def test_progress(capsys):
    assert progress_text({"loss": 2.}) == "loss 2.000"
    bar = Progress(10, initial=4)
    bar.log(event(5, tokens_per_second=1e4, mfu=.25)); bar.log({"kind": "evaluation", "step": 5})
    bar.log({"kind": "skipped", "step": 6, "loss": 9., "gradient_norm": 40.}); bar.close()
    said = capsys.readouterr().err
    assert "step 6: skipped, loss 9.000, gradient norm 40.000" in said and "5/10" in said and "MFU 25%" in said


def test_curves():
    assert smoothed([]) == [] and smoothed([2., 4.], 20) == [2., 3.] and smoothed(list(range(100)), 10)[-1] == sum(range(90, 100))/10
    _, ax = plt.subplots()
    draw_losses([event(1), event(2), {"kind": "state", "step": 2}, {"kind": "evaluation", "step": 2, "loss_fr": 1., "loss_en": 3., "bpb_fr": 9.}], ax)
    assert [list(line.get_ydata()) for line in ax.lines] == [[6., 3.], [6., 4.5], [2.]]
    plt.close("all")


def test_live_curve_draws_now_and_then_and_at_the_end(monkeypatch):
    drawn = []
    monkeypatch.setattr(LiveCurve, "draw", lambda self: drawn.append(len(self.events)))
    curve = LiveCurve(seconds=3600)
    curve.drawn = __import__("time").monotonic()
    for s in range(1, 9): curve.log(event(s))
    assert drawn == []
    curve.drawn -= 3601; curve.log(event(9)); curve.close()
    assert drawn == [9, 9] and not plt.get_fignums()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_peak_is_a_rate(dtype):
    assert 1e6 < matmul_peak(dtype, size=128, seconds=.02) < 1e15
