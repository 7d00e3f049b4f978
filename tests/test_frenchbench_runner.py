"""The evaluation as a whole: equal to lm_eval on a mirror of every task, continued after a death, refused in a sentence; and our suites in the harness."""
import json
from dataclasses import replace

import pytest
from frenchbench_mirror import write_mirror

from croissant.checkpoint import save_model
from croissant.frenchbench.answers import median_of_means
from croissant.frenchbench.harness import harness_row, write_harness_tasks
from croissant.frenchbench.runner import Answers, answer, evaluate, grade, item_digest, model_identity, results_table
from croissant.frenchbench.tasks import TASKS, Item, Task, load_items
from croissant.model import PRESETS, Llama
from croissant.params import BadInput, root
from croissant.tokenizer import toy_tokenizer

THEIRS = [t.name for t in TASKS.values() if not t.origin.startswith("ours")]
CARD = Task("accord", "choice", "jouet", "written/here", metrics=("acc",))
WHO = {"weights": "a"*64, "tokenizer": "b"*64}


@pytest.fixture(scope="module")
def model():
    "Random weights, with room for five examples."
    return Llama(replace(PRESETS["toy"], vocab_size=toy_tokenizer().vocab_size, max_position_embeddings=4096), 5).eval()


@pytest.fixture(scope="module")
def questions():
    return [Item("accord", f"test/{k}", f"La {noun} est", (" vert.", " verte.", " verts."), k % 3) for k, noun in enumerate("forêt mer vallée porte clé île fête".split())]


# --- the harness, on the same items and weights

@pytest.fixture(scope="module")
def mirror(tmp_path_factory):
    return write_mirror(tmp_path_factory.mktemp("mirror"))


@pytest.fixture(scope="module")
def peer(model, tmp_path_factory):
    "The harness's own class for models of `transformers`, on our published folder."
    from lm_eval.models.huggingface import HFLM
    folder = save_model(model, toy_tokenizer(), tmp_path_factory.mktemp("model")/"m", step=0, tokens_seen=0)
    return HFLM(pretrained=str(folder), dtype="float32", batch_size=4, device="cpu", max_length=4096)


@pytest.fixture(scope="module")
def asked(peer, mirror, tmp_path_factory):
    "Results and samples of `simple_evaluate` for all tasks that the harness has, with no example and with five."
    import datasets
    import evaluate as metrics
    import lm_eval
    from rouge_score.rouge_scorer import RougeScorer
    class Rouge:
        "The metric that the harness would fetch from the hub."
        def compute(self, predictions, references):
            scorer = RougeScorer(["rouge1"])
            return {"rouge1": median_of_means([scorer.score(r, p)["rouge1"].fmeasure for p, r in zip(predictions, references)])}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CROISSANT_ROOT", str(root()))
        patch.chdir(mirror)
        patch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.mktemp("cache"))
        patch.setattr(metrics, "load", lambda *_, **__: Rouge())
        yield {shots: lm_eval.simple_evaluate(peer, tasks=THEIRS, num_fewshot=shots, bootstrap_iters=0, log_samples=True, gen_kwargs="max_gen_toks=16", verbosity=None) for shots in (0, 5)}


@pytest.fixture(scope="module")
def ours(model, mirror):
    with pytest.MonkeyPatch.context() as patch:
        for t in THEIRS: patch.setitem(TASKS, t, replace(TASKS[t], max_tokens=16))
        yield {shots: {t: (items := load_items(TASKS[t], shots, source=mirror, compat="harness"), rows := answer(model, toy_tokenizer(), TASKS[t], items), grade(TASKS[t], items, rows, "harness"))
                       for t in THEIRS} for shots in (0, 5)}


@pytest.mark.parametrize("shots", [0, 5])
@pytest.mark.parametrize("name", THEIRS)
def test_equal_to_the_harness(name, shots, asked, ours, record_property):
    items, rows, found = ours[shots][name]
    samples = sorted(asked[shots]["samples"][name], key=lambda s: s["doc_id"])
    assert len(samples) == len(rows) >= 8
    worst = 0.
    for row, s in zip(rows, samples):
        if TASKS[name].kind == "generate":   # with today's transformers the harness ends some texts a few tokens before their limit
            text = s["resps"][0][0]
            assert row["text"] == text or row["ended"] == "length" and row["text"].startswith(text) and len(text) > 10
        else:
            theirs = [r[0][0] for r in s["resps"]] if TASKS[name].kind == "choice" else [s["resps"][0][0]]
            worst = max(worst, *(abs(a - float(b)) / max(1, abs(a) / 100) for a, b in zip(row["log_probs"], theirs, strict=True)))
    assert worst < 1e-4
    record_property("largest difference of a log-likelihood", worst)
    if TASKS[name].kind == "generate": found = grade(TASKS[name], items, [{"text": s["resps"][0][0]} for s in samples], "harness")   # the same texts
    theirs = {k.removesuffix(",none"): v for k, v in asked[shots]["results"][name].items() if k.endswith(",none") and "stderr" not in k}
    assert set(theirs) <= set(found)
    for metric, value in theirs.items(): assert found[metric]["value"] == pytest.approx(value, rel=1e-5, abs=1e-6), metric


def test_the_stock_command_reads_our_task_files(peer, model, questions, tmp_path, capsys):
    "Our questions of our checkpoint, asked by the harness: the same log-probabilities, the same accuracy."
    import lm_eval
    from lm_eval.tasks import TaskManager
    suites = {"accord": questions, "seul": [replace(q, task="seul", context="", choices=(f"Un {noun} est grand.", f"Un {noun} est grande."), gold=0) for q, noun in zip(questions, ("port", "pont", "chat"))]}   # other words than in `accord`: where the ids of two requests are the same as a whole and cut differently, the harness confuses them
    folder = write_harness_tasks(suites, tmp_path/"tâches")
    found = lm_eval.simple_evaluate(peer, tasks=["croissant_lab"], task_manager=TaskManager(include_path=str(folder)), bootstrap_iters=0, log_samples=True, verbosity=None)
    means = []
    for name, items in suites.items():
        rows = answer(model, toy_tokenizer(), replace(CARD, name=name), items)
        for item, row, s in zip(items, rows, sorted(found["samples"][f"croissant_{name}"], key=lambda s: s["doc_id"])):
            theirs = dict(zip(s["doc"]["choices"], (r[0][0] for r in s["resps"])))
            assert s["doc"]["id"] == item.id and s["doc"]["choices"][s["target"]] == item.choices[item.gold]
            assert [theirs[c] for c in item.choices] == pytest.approx(row["log_probs"], abs=1e-4)
        means.append(grade(CARD, items, rows)["acc"]["value"])
        assert found["results"][f"croissant_{name}"]["acc,none"] == pytest.approx(means[-1])
    assert found["results"]["croissant_lab"]["acc,none"] == pytest.approx(sum(means)/2)


def test_choices_are_turned_round_by_name(questions):
    golds = [harness_row(replace(questions[0], id=str(k)))["gold"] for k in range(300)]
    assert all(60 < golds.count(k) < 140 for k in range(3)) and harness_row(questions[0]) == harness_row(questions[0])
    for q in questions:
        row = harness_row(q)
        assert row["choices"][row["gold"]] == q.choices[q.gold] and sorted(row["choices"]) == sorted(q.choices)


# --- answers are kept

def test_an_evaluation_that_dies_goes_on(model, questions, tmp_path, monkeypatch):
    "Killed in the third batch: what was answered is not answered again, and the end is the same."
    from croissant.frenchbench import runner
    whole, real, asked = answer(model, toy_tokenizer(), CARD, questions, batch=2), runner.choice_log_probs, []
    def counted(m, t, requests, **more):
        if len(asked) == 4: raise KeyboardInterrupt
        asked.extend(requests); return real(m, t, requests, **more)
    monkeypatch.setattr(runner, "choice_log_probs", counted)
    with pytest.raises(KeyboardInterrupt): answer(model, toy_tokenizer(), CARD, questions, Answers(tmp_path/"a.jsonl", WHO), batch=2)
    with (tmp_path/"a.jsonl").open("ab") as f: f.write('{"id": "test/4", "item": "é'.encode()[:-1])   # half a line, half a letter
    asked.append(None)
    assert answer(model, toy_tokenizer(), CARD, questions, Answers(tmp_path/"a.jsonl", WHO), batch=2) == whole
    assert [r[0] for r in asked if r] == [q.context for q in questions] and (tmp_path/"a.jsonl").read_bytes().count(b"\n") == 1 + len(questions)


def test_another_prompt_is_another_question(model, questions, tmp_path):
    first = answer(model, toy_tokenizer(), CARD, questions, Answers(tmp_path/"a.jsonl", WHO))
    other = [replace(q, context=q.context.replace("La", "Une")) for q in questions]
    assert answer(model, toy_tokenizer(), CARD, other, Answers(tmp_path/"a.jsonl", WHO)) != first
    assert answer(model, toy_tokenizer(), CARD, other, Answers(tmp_path/"a.jsonl", WHO)) == answer(model, toy_tokenizer(), CARD, other)
    writes = replace(CARD, kind="generate", stop=("\n",))
    assert item_digest(questions[0], writes) != item_digest(questions[0], replace(writes, stop=(".",))) != item_digest(questions[0], CARD)


def test_answers_of_another_model_and_damaged_files(questions, tmp_path):
    kept = Answers(tmp_path/"a.jsonl", WHO)
    kept.add([{"id": q.id, "item": "x", "log_probs": [0., -1., -2.]} for q in questions])
    for key in WHO:
        with pytest.raises(BadInput, match="another model or tokenizer"): Answers(tmp_path/"a.jsonl", WHO | {key: "c"*64})
    lines = (tmp_path/"a.jsonl").read_text().splitlines(keepends=True)
    (tmp_path/"a.jsonl").write_text("".join([*lines[:3], lines[3][:9] + "\n", *lines[4:]]))
    with pytest.raises(BadInput, match="line 4: not valid JSON"): Answers(tmp_path/"a.jsonl", WHO)
    (tmp_path/"b.jsonl").write_bytes(lines[0].encode()[:20])   # killed in the first line
    assert Answers(tmp_path/"b.jsonl", WHO).rows == {} and (tmp_path/"b.jsonl").read_text() == lines[0]


def test_identity_tells_weights_and_tokenizers_apart(model):
    here, other = model_identity(model, toy_tokenizer()), Llama(model.config, 5).eval()
    assert model_identity(other, toy_tokenizer()) == here
    other.model.norm.weight.data[3] += 1e-7
    assert model_identity(other, toy_tokenizer())["weights"] != here["weights"] and model_identity(other.bfloat16(), toy_tokenizer())["weights"] != here["weights"]


# --- grades

def test_every_kind_is_graded(questions):
    rows = [{"log_probs": [-1., -2., -3.]}, {"log_probs": [-2., -1., -1.]}, {"log_probs": [-2., -1., -3.]}]
    found = grade(CARD, questions[:3], rows)
    assert found["acc"]["value"] == .5 and list(found)[0] == "acc" and found["acc"]["n"] == 3 and found["acc"]["floors"]["chance"] == pytest.approx(1/3)   # right, half of a tie, wrong
    assert grade(CARD, questions[:3], rows, "harness")["acc"]["value"] == pytest.approx(2/3)                                          # the first of a tie
    with pytest.raises(BadInput, match="accord: 2 answers to 3 items"): grade(CARD, questions[:3], rows[:2])
    with pytest.raises(BadInput, match="0 items"): grade(CARD, [], [])


def test_evaluate_from_a_folder(model, mirror, tmp_path):
    "Two kinds of task, written to a folder, read from there the second time, and printed."
    names, how = ["french_bench_grammar", "french_bench_opus_perplexity"], {"source": mirror, "shots": 1, "limit": 8, "out": tmp_path/"out"}
    first = evaluate(model, toy_tokenizer(), names, **how)
    lines = {n: (tmp_path/f"out/{n}.jsonl").read_bytes() for n in names}
    assert evaluate(model, toy_tokenizer(), names, **how) == first == json.loads((tmp_path/"out/results.json").read_text()) or first["tasks"].keys() == set(names)
    assert {n: (tmp_path/f"out/{n}.jsonl").read_bytes() for n in names} == lines and all(v.count(b"\n") == 9 for v in lines.values())
    text = results_table(first["tasks"], {n: TASKS[n].metrics for n in names})
    assert text.count("\n") == 3 and "french_bench_grammar         acc" in text and "chance 0.250" in text and "bits_per_byte" in text


def test_nothing_is_computed_before_all_is_loaded(mirror, tmp_path):
    with pytest.raises(BadInput, match="did you mean french_bench_grammar"): evaluate(None, None, "french_bench_gramar", source=mirror)
    with pytest.raises(BadInput, match="french_bench_vocab"): evaluate(None, None, ["french_bench_vocab"], source=tmp_path)


def test_a_context_that_is_too_long_is_named(questions, tmp_path):
    small = Llama(replace(PRESETS["toy"], vocab_size=toy_tokenizer().vocab_size, max_position_embeddings=32), 0).eval()
    long = [*questions[:2], replace(questions[2], context="La très grande forêt " * 20)]
    kept = Answers(tmp_path/"a.jsonl", WHO)
    with pytest.raises(BadInput, match="accord, test/2"): answer(small, toy_tokenizer(), CARD, long, kept, batch=2)
    assert set(kept.rows) == {"test/0", "test/1"}
    assert len(answer(small, toy_tokenizer(), CARD, long, kept, truncate=True)) == 3
