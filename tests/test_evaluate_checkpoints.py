"What is measured at every checkpoint, on a toy run that is trained here: rows, floors, continuation, and the figures that read them."
import dataclasses
import json
import shutil

import numpy as np
import pytest
import torch

from croissant.checkpoint import load_checkpoint, load_model
from croissant.frenchbench.floors import Trigram
from croissant.frenchbench.lexical import SUITES
from croissant.frenchbench.metrics import bpb
from croissant.frenchbench.scoring import bits_per_byte, draw, score_pairs, shortened
from croissant.frenchbench.suites import SETS, minimal_pairs
from croissant.model import PRESETS, Llama
from croissant.packing import render, toy_shards
from croissant.params import BadInput, load_params, root
from croissant.provenance import load_json, load_table
from croissant.stage import main, run_stage
from croissant.tokenizer import toy_tokenizer
from croissant.toy import toy_documents
from croissant.trainer import TrainConfig, _start, train

STAGE, PRETRAIN = "nbs/stages/54_evaluate_checkpoints.ipynb", "nbs/stages/30_pretrain.ipynb"
SMOKE, PARAMS = (load_params("evaluate_checkpoints", f"params{kind}.yaml") for kind in (".smoke", ""))
SETTINGS = TrainConfig(max_steps=12, batch_size=8, seq_len=64, learning_rate=3e-3, min_learning_rate=3e-4, warmup_steps=2, publish=True, checkpoint_interval=4, seed=5,
                       schedule="wsd", decay_share=.5, mixture="fr=1,en=1", tail_mixture="fr=1")


def run_here(notebook, settings):
    "The cells of a notebook, one after the other in this process: quicker than a kernel."
    names = {}
    for c in json.loads((root()/notebook).read_text(encoding="utf-8"))["cells"]:
        if c["cell_type"] == "code": exec("".join(c["source"]), names)
        if "parameters" in c["metadata"].get("tags", []): names |= settings


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    "A toy run that ends on French alone, with its published steps."
    here = tmp_path_factory.mktemp("run")
    toy_tokenizer().save(here/"tokenizer")
    train(dataclasses.replace(PRESETS["toy"], vocab_size=toy_tokenizer().vocab_size), toy_shards(), here/"tokenizer", SETTINGS, here/"run", progress=False)
    shutil.rmtree(here/"run/steps/step-12")    # the model itself
    return here


@pytest.fixture(scope="module")
def asked(run):
    return {"checkpoint": str(run/"run/checkpoint"), "checkpoints": str(run/"run/steps"), "shards": str(toy_shards())}


@pytest.fixture(scope="module")
def made(run, asked, tmp_path_factory):
    here = tmp_path_factory.mktemp("made")
    run_stage(STAGE, here/"out.ipynb", asked | {"tables": str(here), "metrics": str(here)}, log=False)
    return here


def rows_of(made, **which):
    return [r for r in load_table(made/"evaluate_checkpoints.csv") if all(r[k] == v for k, v in which.items())]


def test_every_checkpoint_answers_everything(made):
    rows, tasks = rows_of(made), [*SETS, "mean_three", *SMOKE["suites"]]
    assert list(rows[0]) == ["step", "tokens", "quantity", "language", "task", "value", "low", "high", "n", "chance", "floor", "floor_name", "p_holm", "beyond_floor"]
    expected = {("accuracy", t) for t in tasks} | {(q, way) for q in ("chrf", "bleu") for way in ("en_to_fr", "fr_to_en")} | {("bits_per_byte", "validation"), ("loss", "validation"), ("rolling_nll", SMOKE["rolling_category"])}
    for step in (0, 4, 8, 12):
        mine = rows_of(made, step=step)
        assert {(r["quantity"], r["task"]) for r in mine} == expected and len(mine) == 10 + len(tasks) + 4 and {r["tokens"] for r in mine} == {step * 512}
    assert {r["step"] for r in rows} == {0, 4, 8, 12} and all(r["low"] <= r["value"] <= r["high"] for r in rows)
    assert {(r["quantity"], r["floor_name"]) for r in rows} == {(q, "copied source" if q in ("chrf", "bleu") else "trigram") for q in ("accuracy", "bits_per_byte", "loss", "rolling_nll", "chrf", "bleu")}
    assert {r["language"] for r in rows if r["quantity"] == "bits_per_byte"} == {"fr", "en", "code", "parallel"} and {r["language"] for r in rows if r["quantity"] == "rolling_nll"} == {"fr", "en"}


def test_the_untrained_model_is_the_one_that_the_run_began_with(run, made):
    "Step 0 was published, so it is read; without its folder, its seed gives the same weights."
    stored = load_model(run/"run/steps/step-0")
    again = Llama(stored.config, SETTINGS.seed).to(torch.bfloat16).float()
    assert all(torch.equal(w, again.state_dict()[k]) for k, w in stored.state_dict().items())
    for r in rows_of(made, step=0, quantity="loss"): assert r["value"] == pytest.approx(r["chance"], abs=.06) and r["chance"] == pytest.approx(np.log(toy_tokenizer().vocab_size), abs=1e-4)
    for quantity in ("bits_per_byte", "loss", "rolling_nll"):
        for p in ("fr", "en"):
            values = [r["value"] for r in rows_of(made, quantity=quantity, language=p)]
            assert values == sorted(values, reverse=True) and values[-1] < .95 * values[0], (quantity, p)


def test_steps_that_were_not_kept_change_nothing_else(run, made, asked, tmp_path):
    shutil.copytree(run/"run/steps", tmp_path/"steps")
    for n in (0, 4): shutil.rmtree(tmp_path/f"steps/step-{n}")
    run_here(STAGE, asked | {"checkpoints": str(tmp_path/"steps"), "tables": str(tmp_path), "metrics": str(tmp_path)})
    assert load_table(tmp_path/"evaluate_checkpoints.csv") == [r for r in rows_of(made) if r["step"] != 4]


def test_values_and_floors_are_those_of_the_library(run, made):
    "Bits and pairs are scored again; the trigram counts what the run has read, the French end included."
    model, tokenizer = load_checkpoint(run/"run/checkpoint")
    order = _start(model.config, toy_shards(), run/"tokenizer", SETTINGS, run/"elsewhere").order
    trigram = Trigram(np.concatenate([order.batch(step, 8) for step in range(12)]), tokenizer.vocab_size, tokenizer.eos_id)
    for p in ("fr", "en"):
        texts = [shortened(render(d), SMOKE["document_bytes"]) for d in draw([d for d in toy_documents(200, seed=9) if d["language"] == p], SMOKE["documents"], 0)]
        r, = rows_of(made, step=12, quantity="bits_per_byte", language=p)
        ours, theirs = (bpb(*bits_per_byte(m, tokenizer, texts, SMOKE["context"]))["value"] for m in (model, trigram))
        assert (r["value"], r["floor"], r["n"], r["chance"]) == (pytest.approx(ours, abs=1e-4), pytest.approx(theirs, abs=1e-4), len(texts), 8)
    for name in SETS:
        pairs = minimal_pairs(name, SMOKE["pairs"], 0)
        r, = rows_of(made, step=12, task=name)
        assert (r["value"], r["floor"], r["chance"]) == (*(pytest.approx(np.mean([x["correct"] for x in score_pairs(m, tokenizer, pairs)]), abs=1e-4) for m in (model, trigram)), .5)


def test_translation_scores_are_those_of_sacrebleu(made):
    from sacrebleu.metrics import BLEU, CHRF
    table = load_table(made/"evaluate_checkpoints_translations.csv")
    assert {(r["step"], r["task"]) for r in table} == {(s, way) for s in (8, 12) for way in ("en_to_fr", "fr_to_en")} and len(table) == 4 * SMOKE["translations"]
    for step in (8, 12):
        for way in ("en_to_fr", "fr_to_en"):
            mine = [r for r in table if (r["step"], r["task"]) == (step, way)]
            for name, metric in (("chrf", CHRF()), ("bleu", BLEU())):
                r, = rows_of(made, step=step, quantity=name, task=way)
                assert r["value"] == pytest.approx(metric.corpus_score([str(x["translation"]) for x in mine], [[x["reference"] for x in mine]]).score, abs=1e-4)
                assert r["floor"] == pytest.approx(metric.corpus_score([x["source"] for x in mine], [[x["reference"] for x in mine]]).score, abs=1e-4) and r["language"] == way[-2:]


def test_the_record_is_the_last_checkpoint(made):
    record = load_json(made/"evaluate_checkpoints.json")["metrics"]
    assert record["checkpoints"]["value"] == 4 and record["tokens"]["value"] == 12 * 512 == record["trigram_tokens"]["value"] and record["translations"]["value"] == SMOKE["translations"]
    lines = {}
    for r in rows_of(made): lines.setdefault((r["quantity"], r["task"], r["language"]), []).append(r)
    for (quantity, task, p), line in lines.items():
        m, end = record[f"{quantity}.{task}.{p}"], line[-1]
        assert (m["value"], m["n"], m["floors"]["untrained"]) == (pytest.approx(end["value"], abs=1e-4), end["n"], pytest.approx(line[0]["value"], abs=1e-4)) and m["floors"][end["floor_name"].replace(" ", "_")] == pytest.approx(end["floor"], abs=1e-4)
        failed = [r["tokens"] for r in line if not r["beyond_floor"]]
        assert m.get("beyond_floor_since", "never") == next((r["tokens"] for r in line if r["tokens"] > max(failed, default=-1)), "never") and m["p_holm"] == end["p_holm"]
    assert record["suites"]["value"] == len(SMOKE["suites"]) and record["suites_in_all"]["value"] == sum(not s.extra for s in SUITES.values()) > len(SMOKE["suites"])
    assert record["level"]["n"] == 4 + 2 + len(SETS) + 1 + len(SMOKE["suites"]) + 4    # bits, rolling, pairs, their mean, suites, translations


def judged(monkeypatch):
    "Crafted credits and prices, the same at every step but the first, on twenty couples of siblings; what each case shows is its key's comment."
    def score_suites(model, tokenizer, suites, trigram=None, out=None):
        couples = {"fr_determiner": ([(1, 1)] * 2 + [(1, 0)] * 18, [(1, 0)] * 8 + [(0, 0)] * 12),                                  # better than a trigram below chance, and about chance itself
                   "en_determiner": ([(1, 0)] * 6 + [(1, 1)] * 4 + [(1, 0)] * 6 + [(1, 1)] * 4, [(1, 1)] * 10 + [(0, 0)] * 10),     # clear of the trigram's value, not of its noise
                   "fr_negation": ([(1, 1)] * 7 + [(1, 0)] * 13, [(1, 0)] * 20),                                                    # clear of it, if it were the only question
                   "fr_elision": ([(1, 1)] * 20, [(1, 0)] * 20)}                                                                    # learnt
        assert all(items[k].group == items[k + 1].group for items in suites.values() for k in range(0, 40, 2))
        fresh = out and out.parent.name == "step-0"
        return {"model": {n: np.ravel([(1, 0)] * 20 if fresh else couples[n][0]).astype(float) for n in suites}, "trigram": {n: np.ravel(couples[n][1]).astype(float) for n in suites}}
    def prices(model, tokenizer, texts, context):
        bits = np.array([len(t.encode()) * (1 + 4 * (k % 2)) for k, t in enumerate(texts)])          # documents differ much more than scorers
        return bits * np.log(2) * (1 if isinstance(model, Trigram) else .97), None
    monkeypatch.setattr("croissant.frenchbench.runner.score_suites", score_suites)
    monkeypatch.setattr("croissant.frenchbench.scoring.bits_per_byte", prices)


def test_beyond_the_floor_is_judged_question_by_question(asked, monkeypatch, tmp_path, captions_only):
    judged(monkeypatch)
    run_here(STAGE, asked | {"suites": ["fr_determiner", "en_determiner", "fr_negation", "fr_elision"], "items": 40, "documents": 12, "tables": str(tmp_path), "metrics": str(tmp_path)})
    record, end = load_json(tmp_path/"evaluate_checkpoints.json")["metrics"], {r["task"]: r for r in rows_of(tmp_path, step=12, quantity="accuracy")}
    for name in ("fr_determiner", "en_determiner", "fr_negation"):
        assert end[name]["low"] > end[name]["floor"] and not end[name]["beyond_floor"] and "beyond_floor_since" not in record[f"accuracy.{name}.{name[:2]}"]
    assert end["fr_determiner"]["p_holm"] < .05 and end["fr_determiner"]["floor"] < end["fr_determiner"]["low"] < end["fr_determiner"]["chance"] < end["fr_determiner"]["value"]
    assert end["en_determiner"]["p_holm"] > .5 and .0157 < end["fr_negation"]["p_holm"]
    assert record["accuracy.fr_elision.fr"]["beyond_floor_since"] == 4 * 512 and not rows_of(tmp_path, step=0, task="fr_elision")[0]["beyond_floor"]
    for p in ("fr", "en"):   # the interval is full of other documents, but each one is cheaper
        r, = rows_of(tmp_path, step=12, quantity="bits_per_byte", language=p)
        assert r["low"] < r["floor"] < r["high"] < r["chance"] and r["beyond_floor"] and record[f"bits_per_byte.validation.{p}"]["beyond_floor_since"] == 0
        assert rows_of(tmp_path, step=12, quantity="loss", language=p)[0]["p_holm"] == r["p_holm"] < .05
    run_here("nbs/figures/fig_capabilities.ipynb", {"data": str(tmp_path), "metrics": str(tmp_path), "figures": str(tmp_path), "tables": str(tmp_path/"tables")})
    before, _, after = load_json(tmp_path/"fig_capabilities.json")["caption"].partition("Not beyond it")
    assert f"4 of {record['suites_in_all']['value']} suites of the lab, chosen in sight of results" in before and "questions with 2 answers" in before and "fig_lab_suites" in before
    assert "le, la or l’ (French) since 2 thousand tokens" in before and "p below 0.05" in before and f"over the {record['level']['n']} comparisons" in before
    assert all(f"{name} {end[task]['value']:.2f}" in after for task, name in (("fr_determiner", "noun behind its determiner (French)"), ("en_determiner", "noun behind its determiner (English)"), ("fr_negation", "negation (French)")))


def test_a_stopped_stage_continues_with_what_was_answered(made, asked, tmp_path, capsys):
    "The first call cannot write its table; one of the answers that it leaves is altered, and is not computed again."
    (tmp_path/"fichier").write_text("ceci n'est pas un dossier")
    words = ["-q", *(x for k, v in (asked | {"out": str(tmp_path/"work"), "metrics": str(tmp_path)}).items() for x in ("-p", k, v))]
    assert main([STAGE, str(tmp_path/"out.ipynb"), *words, "-p", "tables", str(tmp_path/"fichier")]) == 1
    path = tmp_path/"work/step-12/en_to_fr.jsonl"
    head, first, *rest = path.read_text(encoding="utf-8").splitlines()
    path.write_text("\n".join([head, json.dumps(json.loads(first) | {"text": "Le chat dort."}), *rest]) + "\n", encoding="utf-8")
    run_here(STAGE, asked | {"out": str(tmp_path/"work"), "tables": str(tmp_path), "metrics": str(tmp_path)})
    mine, theirs = (load_table(p/"evaluate_checkpoints_translations.csv") for p in (tmp_path, made))
    assert [b["translation"] for a, b in zip(theirs, mine) if a != b] == ["Le chat dort."] and not (tmp_path/"work").exists()
    plain = lambda r: {k: v for k, v in r.items() if k not in ("p_holm", "beyond_floor")}    # corrected over all that a checkpoint is asked
    changed = [(a["step"], a["task"]) for a, b in zip(rows_of(made), rows_of(tmp_path)) if plain(a) != plain(b)]
    assert set(changed) <= {(12, "en_to_fr")} and changed


@pytest.mark.parametrize("wrong, named", [({"items": 6}, "items 6"), ({"suites": ["fr_accord"]}, "fr_accord"), ({"suites": ["fr_grammar_checker"]}, "fr_grammar_checker; choose"), ({"suites": ["fr_next"]}, "no corpus"), ({"rolling_category": "poésie"}, "poésie"),
                                          ({"translation_words": 40}, "0 pairs"), ({"shards": ""}, "not the tokens"), ({"checkpoints": "nulle/part"}, "no folder step-<N>")])
def test_impossible_settings_are_named(asked, wrong, named, tmp_path):
    if wrong == {"shards": ""}:   # a run on other tokens than the toy's
        shutil.copytree(asked["checkpoint"], tmp_path/"autre"); manifest = tmp_path/"autre/manifest.json"
        manifest.write_text(manifest.read_text().replace(load_json(manifest)["run"]["train_shards"], "0" * 64))
        shutil.copytree(asked["checkpoint"], tmp_path/"steps/step-4"); shutil.copy(manifest, tmp_path/"steps/step-4")
        wrong = wrong | {"checkpoint": str(tmp_path/"autre"), "checkpoints": str(tmp_path/"steps")}
    with pytest.raises(BadInput, match=named): run_here(STAGE, asked | wrong)


def test_a_checkpoint_of_another_run_is_refused(run, asked, tmp_path):
    shutil.copytree(run/"run/steps", tmp_path/"steps")
    manifest = tmp_path/"steps/step-8/manifest.json"
    manifest.write_text(manifest.read_text().replace('"train.seed": 5', '"train.seed": 6'))
    with pytest.raises(BadInput, match="step-8: its manifest names another run"): run_here(STAGE, asked | {"checkpoints": str(tmp_path/"steps")})


def test_what_is_asked_can_be_asked():
    "The suites exist, siblings stay together, and a pair with its prompt fits into what the model was trained on."
    train_params = load_params("train")
    assert set(PARAMS["suites"]) <= set(SUITES) and not [n for n in PARAMS["suites"] if SUITES[n].extra] and PARAMS["items"] % 4 == 0
    assert PARAMS["context"] == train_params["seq_len"] and 3 * PARAMS["translation_tokens"] < train_params["seq_len"] and train_params["publish"]


@pytest.mark.parametrize("keep_from, kept", [(0, [0, 1, 2, 4]), (2, [2, 4]), (100, [])])
def test_pretraining_keeps_the_steps_that_are_wanted(keep_from, kept, tmp_path):
    "The last one is the model itself, and what an earlier call left there goes."
    (tmp_path/"steps/step-7").mkdir(parents=True)
    run_here(PRETRAIN, {"max_steps": 8, "publish": True, "keep_from": keep_from, "out_steps": str(tmp_path/"steps"), "out_checkpoint": str(tmp_path/"model"), "out_reports": str(tmp_path)})
    assert sorted(int(p.name.removeprefix("step-")) for p in (tmp_path/"steps").iterdir()) == kept
    assert load_json(tmp_path/"model/manifest.json")["step"] == 8 and all(load_json(tmp_path/f"steps/step-{n}/manifest.json")["step"] == n for n in kept)


def test_the_figures_read_the_table(made, tmp_path, captions_only):
    run_stage("nbs/figures/fig_capabilities.ipynb", tmp_path/"out.ipynb", {"data": str(made), "metrics": str(made), "figures": str(tmp_path), "tables": str(tmp_path)}, log=False)
    card, points, rows = load_json(tmp_path/"fig_capabilities.json"), load_table(tmp_path/"fig_capabilities.csv"), rows_of(made)
    assert [{k: v for k, v in r.items() if k != "panel"} for r in points] == [r for r in rows if r["quantity"] in ("accuracy", "chrf", "bleu") and r["task"] not in ("number", "gender", "person")]
    assert "nan" not in card["caption"] and "4 checkpoints" in card["caption"] and f"{len(SMOKE['suites'])} of {sum(not s.extra for s in SUITES.values())} suites of the lab, chosen" in card["caption"]
    for r in points:
        if r["step"] == 12: assert f"to {r['value']:.2f}, floor {r['floor']:.2f}" in card["alt"]
    shutil.copytree(made, tmp_path/"curves")
    run_stage(PRETRAIN, tmp_path/"pretrain.ipynb", {"out_reports": str(tmp_path/"reports")}, log=False)
    shutil.copy(tmp_path/"reports/tables/training_curve.csv", tmp_path/"curves")
    run_stage("nbs/figures/fig_loss.ipynb", tmp_path/"out.ipynb", {"curves": str(tmp_path/"curves"), "metrics": str(tmp_path/"reports/metrics"), "figures": str(tmp_path), "tables": str(tmp_path)}, log=False)
    points, caption = load_table(tmp_path/"fig_loss.csv"), load_json(tmp_path/"fig_loss.json")["caption"]
    for p, name in (("fr", "French"), ("en", "English")):
        for quantity, series in (("bits_per_byte", name), ("rolling_nll", f"{name}, rolling")):
            mine = [r for r in rows if (r["quantity"], r["language"]) == (quantity, p)]
            assert [(r["tokens"], r["value"], r["floor"]) for r in points if r["series"] == series] == [(r["tokens"], r["value"], r["floor"]) for r in mine] and f"{name} {mine[-1]['value']:.3f} [{mine[-1]['low']:.3f}" in caption
    curve, blocks = load_table(tmp_path/"curves/training_curve.csv"), [r for r in points if r["series"] == "training loss"]
    assert blocks[0]["value"] == pytest.approx(curve[0]["loss"], abs=1e-4) and blocks[-1]["tokens"] <= curve[-1]["tokens"] and "nan" not in caption and f"longer openings of {SMOKE['rolling_category']} text" in caption
