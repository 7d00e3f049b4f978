"The study of optimisers, run on the toy: what it concludes is computed again here from its table."
import json
import re
import shutil

import pytest

from croissant.params import load_params
from croissant.provenance import load_json, load_table
from croissant.stage import main, run_stage

STAGE, FIGURE = "nbs/stages/31_compare_optimizers.ipynb", "nbs/figures/fig_compare_optimizers.ipynb"
SMOKE, PARAMS = (load_params("compare_optimizers", f"params{kind}.yaml") for kind in (".smoke", ""))
MINE, JUDGES = ("adamw", "muon"), ("fr", "en")
TRIED = {"wide": {o: [float(r) for r in rates] for o, rates in SMOKE["learning_rates"].items()}, "diverging": {"adamw": [.003, .01, 1e6], "muon": [.01, 1e6]}}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    "Two studies with their figures: that of the parameters cell, and one with a rate that no run survives."
    here = tmp_path_factory.mktemp("optimisers")
    for name, rates in TRIED.items():
        folder = here/name
        run_stage(STAGE, folder/"stage.ipynb", {"tables": str(folder), "metrics": str(folder)} | ({"learning_rates": rates} if name == "diverging" else {}), log=False)
        run_stage(FIGURE, folder/"figure.ipynb", {"data": str(folder), "metrics": str(folder), "figures": str(folder), "tables": str(folder)}, log=False)
    return here


@pytest.fixture(params=list(TRIED))
def study(made, request):
    "Rates that were tried, rows of the table by run and language, metrics."
    folder = made/request.param
    rows = {(r["optimizer"], r["learning_rate"], r["seed"], r["language"]): r for r in load_table(folder/"compare_optimizers.csv")}
    return TRIED[request.param], rows, load_json(folder/"compare_optimizers.json")["metrics"], folder


def mean(values):
    values = list(values)
    return sum(values) / len(values)


def best(tried, rows, o):
    "The rate with the lowest mean over seeds and languages, of those with which no seed diverged."
    whole = [rate for rate in tried[o] if not any(rows[o, rate, k, "fr"]["diverged"] for k in SMOKE["seeds"])]
    return min(whole, key=lambda rate: mean(rows[o, rate, k, p]["bits_per_byte"] for k in SMOKE["seeds"] for p in JUDGES))


def test_every_run_has_its_rows(study):
    tried, rows, record, _ = study
    assert {key[:3] for key in rows} == {(o, rate, k) for o in MINE for rate in tried[o] for k in SMOKE["seeds"]} and {key[3] for key in rows} > set(JUDGES)
    for (_, rate, _, _), r in rows.items():
        assert r["diverged"] == (rate == 1e6) and r["tokens"] == r["step"] * SMOKE["batch_size"] * SMOKE["seq_len"]
        assert (r["bits_per_byte"] == "" and r["step"] < SMOKE["steps"]) if r["diverged"] else (0 < r["bits_per_byte"] < 8 and r["step"] == SMOKE["steps"])
    assert record["runs"]["value"] == len({key[:3] for key in rows})


def test_best_rate_and_its_place_in_the_sweep(study):
    tried, rows, record, _ = study
    for o in MINE:
        found = best(tried, rows, o)
        assert record[f"best_rate.{o}"]["value"] == found and record[f"at_edge.{o}"]["value"] == int(found in (min(tried[o]), max(tried[o])))
        assert record[f"diverged.{o}"]["value"] == sum(r["diverged"] for key, r in rows.items() if key[0] == o and key[3] == "fr")
        for p in JUDGES:
            m = record[f"bpb.{o}.{p}"]
            assert m["seeds"] == [rows[o, found, k, p]["bits_per_byte"] for k in SMOKE["seeds"]] and m["value"] < m["floors"]["random_weights"] < m["floors"]["uniform_bytes"]
            assert m["value"] == pytest.approx(mean(m["seeds"]), abs=1e-5) and m["range"] == [min(m["seeds"]), max(m["seeds"])]


def test_both_answers_about_the_edge_occur(made):
    "A flag that is always up, or never, would say nothing."
    flags = {load_json(made/name/"compare_optimizers.json")["metrics"][f"at_edge.{o}"]["value"] for name in TRIED for o in MINE}
    assert flags == {0, 1}


def test_differences_are_taken_seed_by_seed(study):
    tried, rows, record, _ = study
    mine, theirs = best(tried, rows, "muon"), best(tried, rows, "adamw")
    shared = [rate for rate in tried["muon"] if rate in tried["adamw"] and rate < 1e6]
    pairs = {"above_reference.muon": (mine, theirs)} | {f"above_reference_at.muon.{rate:g}": (rate, rate) for rate in shared}
    for key, (a, b) in pairs.items():
        for p in JUDGES:
            m, want = record[f"{key}.{p}"], [rows["muon", a, k, p]["bits_per_byte"] - rows["adamw", b, k, p]["bits_per_byte"] for k in SMOKE["seeds"]]
            assert m["seeds"] == pytest.approx(want, abs=2e-6) and m["value"] == pytest.approx(mean(want), abs=2e-6) and m["range"] == pytest.approx([min(want), max(want)], abs=2e-6)
    assert {k.rsplit(".", 1)[0] for k in record if k.startswith("above_reference")} == set(pairs)


def test_the_loss_falls_except_where_a_run_diverged(study):
    tried, rows, record, folder = study
    curves = load_table(folder/"compare_optimizers_loss.csv")
    for o in MINE:
        mine = [r for r in curves if (r["optimizer"], r["learning_rate"], r["seed"]) == (o, record[f"best_rate.{o}"]["value"], 0)]
        assert [r["step"] for r in mine] == [round(i * SMOKE["steps"] / SMOKE["points"]) for i in range(1, SMOKE["points"] + 1)] and mine[-1]["training_loss"] < mine[0]["training_loss"]
    assert all(r["step"] <= rows[r["optimizer"], r["learning_rate"], r["seed"], "fr"]["step"] for r in curves)


def test_optimisers_begin_from_the_same_weights_and_differ_at_the_end(study):
    tried, rows, record, _ = study
    for p in JUDGES:
        assert record[f"bpb.adamw.{p}"]["floors"] == record[f"bpb.muon.{p}"]["floors"]
        assert rows["adamw", .01, 0, p]["bits_per_byte"] != rows["muon", .01, 0, p]["bits_per_byte"]


def test_the_figure_draws_the_table(study):
    _, rows, _, folder = study
    assert load_table(folder/"fig_compare_optimizers.csv") == [r for key, r in rows.items() if key[3] in JUDGES]
    card = load_json(folder/"fig_compare_optimizers.json")
    assert len(card["inputs"]) == 2 and not re.search(r"\bnan\b|\binf\b|[{}]", card["caption"] + card["alt"])
    assert all((folder/f"fig_compare_optimizers.{kind}").stat().st_size > 10_000 for kind in ("svg", "png"))


def test_the_caption_says_what_the_records_say(study):
    tried, _, record, folder = study
    caption = load_json(folder/"fig_compare_optimizers.json")["caption"]
    for o, name in zip(MINE, ("AdamW", "Muon")):
        assert f"{name} {record[f'best_rate.{o}']['value']:g}, {'at an end of its sweep' if record[f'at_edge.{o}']['value'] else 'inside its sweep'}" in caption
    for p in JUDGES:
        m = record[f"above_reference.muon.{p}"]
        assert f"{m['value']:+.3f} (seeds from {m['range'][0]:+.3f} to {m['range'][1]:+.3f}; {'Muon is ahead with every seed' if m['range'][1] < 0 else ''}" in caption
    lost = sum(1e6 in rates for rates in tried.values()) * len(SMOKE["seeds"])
    assert (f"{lost} of" if lost else "None of") + f" {record['runs']['value']} runs diverged" in caption


def test_the_caption_can_say_that_seeds_disagree(made, tmp_path, captions_only):
    "The same figure from a record in which one seed was turned round."
    record = load_json(made/"wide/compare_optimizers.json")
    m = record["metrics"]["above_reference.muon.fr"]
    m["range"][1] = .25
    (tmp_path/"compare_optimizers.json").write_text(json.dumps(record))
    run_stage(FIGURE, tmp_path/"out.ipynb", {"data": str(made/"wide"), "metrics": str(tmp_path), "figures": str(tmp_path), "tables": str(tmp_path)}, log=False)
    caption = load_json(tmp_path/"fig_compare_optimizers.json")["caption"]
    assert "to +0.250; the seeds disagree about who is ahead)" in caption and "English" in caption.split("the seeds disagree")[1]


def test_a_stopped_study_goes_on_to_the_same_tables(made, tmp_path, capsys):
    "The first call cannot write its table; of what it leaves, one run is taken away, and the ones that diverged diverge again."
    (tmp_path/"fichier").write_text("ceci n'est pas un dossier")
    words = ["-q", "-p", "out", str(tmp_path/"work"), "-p", "metrics", str(tmp_path), "-p", "learning_rates", json.dumps(TRIED["diverging"])]
    assert main([STAGE, str(tmp_path/"out.ipynb"), *words, "-p", "tables", str(tmp_path/"fichier")]) == 1
    ended = sorted(p.parent.name for p in (tmp_path/"work/runs").glob("*/record.json"))
    assert len(ended) == 3 * len(SMOKE["seeds"])
    shutil.rmtree(tmp_path/"work/runs"/ended[0])
    assert main([STAGE, str(tmp_path/"out.ipynb"), *words, "-p", "tables", str(tmp_path)]) == 0
    for name in ("compare_optimizers", "compare_optimizers_loss"): assert (tmp_path/f"{name}.csv").read_bytes() == (made/"diverging"/f"{name}.csv").read_bytes()
    assert not (tmp_path/"work").exists()


@pytest.mark.parametrize("wrong, named", [({"learning_rates": {"muon": [.01]}}, "'adamw'"), ({"learning_rates": {"adamw": [.01], "muon": []}}, "muon: none"), ({"learning_rates": {"adamw": [.01], "lion": [.01]}}, "lion"),
                                          ({"learning_rates": {"adamw": [.01], "muon": [1e6]}}, "muon: with every rate"), ({"seeds": [3]}, "seeds"), ({"preset": "huge"}, "huge"), ({"warmup_steps": 12}, "warmup_steps")])
def test_impossible_settings_are_named(wrong, named, tmp_path, capsys):
    words = [x for k, v in wrong.items() for x in ("-p", k, json.dumps(v))]
    assert main([STAGE, str(tmp_path/"out.ipynb"), "-q", *words]) == 2 and named in capsys.readouterr().err


def test_the_study_has_the_settings_of_the_released_model():
    train = load_params("train")
    same = ("seq_len", "dtype", "mixture", "threads")
    assert {k: PARAMS[k] for k in same} == {k: train[k] for k in same}
    assert train["optimizer"] in PARAMS["learning_rates"] and train["learning_rate"] in PARAMS["learning_rates"][train["optimizer"]] and train["schedule"] == "cosine"


def redrawn(made, folder, change):
    "The figure again, from a record in which something was changed: its caption and alternative text."
    record = load_json(made/"wide/compare_optimizers.json")
    change(record["metrics"])
    (folder/"compare_optimizers.json").write_text(json.dumps(record))
    run_stage(FIGURE, folder/"out.ipynb", {"data": str(made/"wide"), "metrics": str(folder), "figures": str(folder), "tables": str(folder)}, log=False)
    return load_json(folder/"fig_compare_optimizers.json")


def test_the_caption_can_say_that_adamw_is_ahead(made, tmp_path, captions_only):
    def change(m): m["above_reference.muon.fr"]["range"] = [.1, .3]
    caption = redrawn(made, tmp_path, change)["caption"]
    assert "(seeds from +0.100 to +0.300; AdamW is ahead with every seed)" in caption and "Muon is ahead" not in caption.split("French")[1].split("English")[0]


def test_the_alternative_text_reads_the_chart_aloud(study):
    tried, rows, _, folder = study
    alt = load_json(folder/"fig_compare_optimizers.json")["alt"]
    for o, name in zip(MINE, ("AdamW", "Muon")):
        told = [f"{mean(rows[o, rate, k, 'fr']['bits_per_byte'] for k in SMOKE['seeds']):.2f} at {rate:g}" if rate < 1e6 else f"diverged at {rate:g}" for rate in tried[o]]
        assert f"{name} {', '.join(told)}" in alt


def test_the_figure_wants_adamw_as_the_reference(made, tmp_path, capsys):
    record = load_json(made/"wide/compare_optimizers.json")
    record["metrics"] = {k.replace("above_reference.muon", "above_reference.adamw"): m for k, m in record["metrics"].items()}
    (tmp_path/"compare_optimizers.json").write_text(json.dumps(record))
    assert main([FIGURE, str(tmp_path/"out.ipynb"), "-q", "-p", "data", str(made/"wide"), "-p", "metrics", str(tmp_path)]) == 2
    assert "reference: adamw" in capsys.readouterr().err
