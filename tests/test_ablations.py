"The studies of data and of schedules, run on the toy: what they conclude is computed again here from their tables."
import json
import math
import re
import shutil
import statistics

import numpy as np
import pytest

from croissant.frenchbench.arms import HeldOut, above_reference, study_verdicts
from croissant.frenchbench.metrics import holm
from croissant.mixture import paper_shares
from croissant.params import BadInput, load_params, root
from croissant.provenance import load_json, load_table
from croissant.slices import in_parts
from croissant.stage import main, run_stage

STAGES = {"ablations": "nbs/stages/35_ablations.ipynb", "compare_schedules": "nbs/stages/36_compare_schedules.ipynb"}
FIGURES = {"ablation_curated": "ablations", "ablation_parallel": "ablations", "ablation_code": "ablations", "ablation_tokenizer": "ablations", "compare_schedules": "compare_schedules"}
SMOKE, PARAMS = ({name: load_params(name, f"params{kind}.yaml") for name in STAGES} for kind in (".smoke", ""))
KINDS = {"ablations": {"fr", "en", "code", "parallel", "fr_encyclopedic", "fr_literature"}, "compare_schedules": {"fr", "en", "code", "parallel", "fr_encyclopedic", "fr_literature", "en_encyclopedic", "en_literature"}}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    "Both studies with the parameters of their cells, and their figures."
    here = tmp_path_factory.mktemp("studies")
    for name, nb in STAGES.items(): run_stage(nb, here/f"{name}.ipynb", {"tables": str(here), "metrics": str(here)}, log=False)
    for name in FIGURES: run_stage(f"nbs/figures/fig_{name}.ipynb", here/f"fig_{name}.ipynb", {"metrics": str(here), "figures": str(here), "tables": str(here)}, log=False)
    return here


@pytest.fixture(params=list(STAGES))
def study(made, request):
    "Name, rows of the table by arm, seed and kind of text, metrics."
    name = lambda r: "base" if r["study"] == "base" else f"{r['study']}.{r['arm']}"
    rows = {(name(r), r["seed"], r["language"] + (f"_{r['domain']}" if r["domain"] != "all" else "")): r for r in load_table(made/f"{request.param}.csv")}
    return request.param, rows, load_json(made/f"{request.param}.json")["metrics"]


def arms_of(name):
    "Arm -> seeds, as the parameters ask for them."
    s = SMOKE[name]
    if name == "ablations": return {arm: s["seeds"] for arm in ["base", *(f"{study}.{arm}" for study, found in s["studies"].items() for arm in found)]}
    return {"base": s["seeds"]} | {f"schedules.{arm}": s["seeds"] for arm in s["schedules"]} | {f"batch.{rate}_{n}": s["batch_seeds"] for rate in s["batch_rates"] for n in s["batch_sizes"]}


def mean(values):
    values = list(values)
    return sum(values) / len(values)


def test_every_run_has_its_rows(study):
    name, rows, record = study
    assert set(rows) == {(arm, k, kind) for arm, seeds in arms_of(name).items() for k in seeds for kind in KINDS[name]}
    for r in rows.values(): assert not r["diverged"] and 0 < r["bits_per_byte"] < 8 and 0 < r["documents"] <= SMOKE[name]["documents"]
    assert record["runs"]["value"] == len({key[:2] for key in rows})


def test_training_helped(study):
    _, rows, record = study
    for (_, _, kind), r in ((key, r) for key, r in rows.items() if key[0] == "base"): assert r["bits_per_byte"] < r["random_weights"] == pytest.approx(record[f"bpb.base.{kind}"]["floors"]["random_weights"], abs=1e-5)


def test_differences_are_taken_seed_by_seed(study):
    name, rows, record = study
    for arm, seeds in arms_of(name).items():
        for kind in KINDS[name] if arm != "base" else ():
            m, want = record[f"above_base.{arm}.{kind}"], [rows[arm, k, kind]["bits_per_byte"] - rows["base", k, kind]["bits_per_byte"] for k in seeds]
            assert m["seeds"] == pytest.approx(want, abs=3e-6) and m["value"] == pytest.approx(mean(want), abs=3e-6) and m["interval"][0] < m["value"] < m["interval"][1]
            assert record[f"bpb.{arm}.{kind}"]["value"] == pytest.approx(mean(rows[arm, k, kind]["bits_per_byte"] for k in seeds), abs=3e-6)


def test_verdicts_hold_together(study):
    "Holm's correction over the arms of a study and the languages, and over its arms and the domains."
    name, _, record = study
    judged = {key.split(".", 1)[1]: m for key, m in record.items() if key.startswith("above_base.")}
    for of in {key.split(".")[0] for key in judged}:
        for domains in (False, True):
            family = {key: m for key, m in judged.items() if key.startswith(f"{of}.") and ("_" in key.rpartition(".")[2]) == domains}
            for key, p in holm({key: m["p"] for key, m in family.items()}).items():
                assert family[key]["p_holm"] == pytest.approx(p, abs=1e-5)
                assert family[key]["verdict"] == ("no difference seen" if p >= .05 else "better" if family[key]["value"] < 0 else "worse")
    assert len({m["verdict"] for m in judged.values()}) > 1     # a verdict that is always the same would say nothing


def test_what_seeds_leave_to_chance_is_shared_by_those_who_read(study):
    "From the table: an arm that reads nothing of a language by its own seeds and the base's, all others of the study together."
    name, rows, record = study
    for of in {arm.partition(".")[0] for arm in arms_of(name)} - {"base"}:
        arms = {arm: seeds for arm, seeds in arms_of(name).items() if arm == "base" or arm.startswith(f"{of}.")}
        seeds = min(arms.values(), key=len)
        for kind in KINDS[name]:
            part = kind.partition("_")[0]
            reads = {arm: sum(m["value"] for key, m in record.items() if key.startswith(f"share.{arm}.") and key.rpartition(".")[2].partition("_")[0] == part) > 0 for arm in arms}
            assert reads["base"]
            for arm in set(arms) - {"base"}:
                team = [a for a in arms if reads[a]] if reads[arm] else ["base", arm]
                y = np.array([[rows[a, k, kind]["bits_per_byte"] for k in seeds] for a in team])
                left, m = y - y.mean(1, keepdims=True) - y.mean(0) + y.mean(), record[f"above_base.{arm}.{kind}"]
                assert m["freedom"] == (len(team) - 1) * (len(seeds) - 1) and m["seed_error"] == pytest.approx(math.sqrt((left**2).sum() / m["freedom"] * 2 / len(seeds)), abs=3e-6)
    unread = {key.rpartition(".")[0] + f".{p}" for key in record if key.startswith("above_base.") for p in ("code", "parallel") if key == f"above_base.{p}.none.{p}"}
    assert len(unread) == (2 if name == "ablations" else 0) and all(record[key]["freedom"] == 1 for key in unread)


def runs(**seeds):
    "Arm -> bits of each seed, as losses of four documents of a thousand bytes."
    return {arm: np.array([[math.log(2) * 1000 * y] * 4 for y in found]) for arm, found in seeds.items()}


def test_a_restless_arm_keeps_its_noise_to_itself():
    "By hand: the steady arm differs from the base by .01, .02 and .03, the restless one by 1, 2 and 3; a mean of three such has the error sd / √3."
    nats = runs(base=(2, 2.1, 2.2), steady=(2.01, 2.12, 2.23), restless=(3, 4.1, 5.2))
    apart, pooled = (above_reference(nats, [1000] * 4, "base", unsteady=u) for u in (["restless"], []))
    assert {arm: (m["seed_error"], m["freedom"]) for arm, m in apart.items()} == {"steady": (pytest.approx(.01 / math.sqrt(3)), 2), "restless": (pytest.approx(1 / math.sqrt(3)), 2)}
    assert pooled["steady"]["seed_error"] == pooled["restless"]["seed_error"] > 10 * apart["steady"]["seed_error"] and pooled["steady"]["freedom"] == 4
    half = {arm: (m["interval"][1] - m["interval"][0]) / 2 for arm, m in apart.items()}
    assert half == pytest.approx({"steady": 4.303 * .01 / math.sqrt(3), "restless": 4.303 / math.sqrt(3)}, rel=.1)     # Student's t with two degrees of freedom; all documents are alike
    assert list(apart) == list(pooled) == ["steady", "restless"]


def test_of_an_unsteady_base_nobody_shares_the_noise():
    nats = runs(base=(2, 3, 4.5), one=(2.3, 2.1, 2.2), two=(2.1, 2.4, 2.2))
    found = above_reference(nats, [1000] * 4, "base", unsteady=["base"])
    for m in found.values(): assert m["freedom"] == 2 and m["seed_error"] == pytest.approx(statistics.stdev(m["seeds"]) / math.sqrt(3))
    with pytest.raises(BadInput, match="unsteady: no arm horoscopes"): above_reference(nats, [1000] * 4, "base", unsteady=["horoscopes"])


def test_a_language_that_is_not_read_is_unread_in_all_its_domains():
    records = [{"id": str(i), "source": "s"} for i in range(12)]
    held = HeldOut(records, ["x" * 1000] * 12, {"fr": [0, 1, 2, 3], "code": [4, 5, 6, 7], "code_rust": [8, 9, 10, 11]})
    one = runs(base=(2, 2.1, 2.2), **{"s.more": (2.01, 2.12, 2.23), "s.none": (3, 4.1, 5.2)})
    nats = {(arm, k): np.tile(x[k], 3) for arm, x in one.items() for k in range(3)}
    found = study_verdicts(nats, held, "s", [0, 1, 2], unread={"s.none": ["code"], "s.lost": ["fr"]})
    assert {key.split(".", 2)[2]: m["freedom"] for key, m in found.items()} == {"more.fr": 4, "none.fr": 4, "more.code": 2, "none.code": 2, "more.code_rust": 2, "none.code_rust": 2}
    assert found["above_base.s.more.code_rust"]["seed_error"] < .1 < found["above_base.s.more.fr"]["seed_error"]
    with pytest.raises(BadInput, match="no language fr_rest"): study_verdicts(nats, held, "s", [0, 1, 2], unread={"s.none": ["fr_rest"]})


@pytest.mark.parametrize("params", [SMOKE, PARAMS], ids=["smoke", "real"])
@pytest.mark.parametrize("study, moved", [("parallel", {"parallel"}), ("code", {"code"})])
def test_only_the_part_in_question_moves(params, study, moved):
    "What is typed with four decimals scales the paper's shares of all other parts by one number."
    paper = paper_shares()
    for mixture in params["ablations"]["studies"][study].values():
        scales = [mixture[p] / paper[p] for p in paper if p not in moved]
        assert sum(mixture.values()) == pytest.approx(1) and max(scales) == pytest.approx(min(scales), rel=2e-3) and abs(scales[0] - 1) > .05


@pytest.mark.parametrize("params", [SMOKE, PARAMS], ids=["smoke", "real"])
def test_half_of_the_french_is_curated(params):
    mixture, paper = params["ablations"]["studies"]["curated"]["half"], paper_shares()
    assert mixture["fr_curated"] == mixture["fr_rest"] and mixture["fr_curated"] + mixture["fr_rest"] == pytest.approx(paper["fr"], abs=1e-4)
    assert {p: mixture[p] for p in ("en", "code", "parallel")} == pytest.approx({p: paper[p] for p in ("en", "code", "parallel")}, abs=1e-4)
    tail = params["compare_schedules"]["schedules"]["wsd_tail"]["tail_mixture"]
    assert {p: tail.get(p, 0) + tail.get(f"{p}_curated", 0) + tail.get(f"{p}_rest", 0) for p in paper} == pytest.approx(paper, abs=1e-4)


def test_the_base_reads_french_as_it_comes(made):
    record = load_json(made/"ablations.json")["metrics"]
    share = lambda arm, p: record[f"share.{arm}.{p}"]["value"]
    assert share("base", "fr_curated") + share("base", "fr_rest") == pytest.approx(paper_shares()["fr"], abs=1e-5) and share("base", "fr_curated") < .8 * share("base", "fr_rest")
    for arm in ("parallel.none", "code.three_tenths"): assert share(arm, "fr_curated") / share(arm, "fr_rest") == pytest.approx(share("base", "fr_curated") / share("base", "fr_rest"), rel=1e-3)
    assert share("curated.half", "fr_curated") == pytest.approx(share("curated.half", "fr_rest"))


def test_tokenizers_are_compared_at_equal_bytes(made):
    "Runs end with the batch that completes what the base reads with the same seed, and read the parts in the same proportion of bytes."
    s, record = SMOKE["ablations"], load_json(made/"ablations.json")["metrics"]
    rows = {(r["arm"], r["seed"]): r for r in load_table(made/"ablations.csv") if r["domain"] == "all" and r["language"] == "fr"}
    for k in s["seeds"]:
        mine, base = rows["skewed", k], rows["base", k]
        assert mine["tokenizer"] == "skewed" and base["tokenizer"] == "even" and mine["steps"] != base["steps"] == s["steps"]
        assert base["bytes"] <= mine["bytes"] < base["bytes"] + 2 * mine["bytes"] / mine["steps"]       # a batch; some are larger than the mean
    parts = [key.rpartition(".")[2] for key in record if key.startswith("bytes_per_token.even.")]
    size = {name: {p: record[f"share.{arm}.{p}"]["value"] * record[f"bytes_per_token.{name}.{p}"]["value"] for p in parts} for name, arm in (("even", "base"), ("skewed", "tokenizer.skewed"))}
    for p in parts: assert size["skewed"][p] / sum(size["skewed"].values()) == pytest.approx(size["even"][p] / sum(size["even"].values()), rel=1e-3)
    assert record["bytes_per_token.skewed.fr_rest"]["value"] < record["bytes_per_token.even.fr_rest"]["value"]
    caption = load_json(made/"fig_ablation_tokenizer.json")["caption"]
    for p, words in {"fr": "tokens in French", "en": "in English"}.items():     # of the base's text, in the proportions in which it reads it
        mine = {q: record[f"share.base.{q}"]["value"] for q in parts if q.partition("_")[0] == p}
        more = sum(w * record[f"bytes_per_token.even.{q}"]["value"] / record[f"bytes_per_token.skewed.{q}"]["value"] for q, w in mine.items()) / sum(mine.values()) - 1
        assert f"{100 * more:+.2g} % {words}" in caption and len(mine) == (2 if p == "fr" else 1)


def test_batches_read_as_many_tokens_at_the_rate_they_say(made):
    s = SMOKE["compare_schedules"]
    for r in load_table(made/"compare_schedules.csv"):
        assert r["steps"] * r["batch_size"] * s["seq_len"] == r["tokens"] == s["steps"] * s["batch_size"] * s["seq_len"]
        assert r["learning_rate"] == pytest.approx(s["learning_rate"] * (math.sqrt(r["batch_size"] / s["batch_size"]) if "scaled" in r["arm"] else 1))
        assert r["schedule"] == ("cosine" if r["study"] in ("base", "batch") else "wsd")


def test_a_tail_reads_what_it_says_and_the_spread_arm_as_much(made):
    "A descent over another mixture ends elsewhere than one over the same, and elsewhere than as much of that text spread out."
    s, record = SMOKE["compare_schedules"], load_json(made/"compare_schedules.json")["metrics"]
    parts = [key.rpartition(".")[2] for key in record if key.startswith("tail_share.schedules.wsd_tail.")]
    share = lambda arm, p: record[f"share.{arm}.{p}"]["value"]
    for p in parts:
        assert share("schedules.wsd_tail", p) == pytest.approx(.75 * share("base", p) + .25 * s["schedules"]["wsd_tail"]["tail_mixture"][p], abs=1e-5) == share("schedules.wsd_spread", p)
    ends = {arm: record[f"bpb.schedules.{arm}.fr"]["seeds"] for arm in s["schedules"]}
    assert len({tuple(x) for x in ends.values()}) == 3
    m = record["above_spread.schedules.wsd_tail.fr"]
    assert m["value"] == pytest.approx(mean(ends["wsd_tail"]) - mean(ends["wsd_spread"]), abs=3e-6) and m["verdict"] in ("better", "worse", "no difference seen")
    family = {p: record[f"above_spread.schedules.wsd_tail.{p}"] for p in ("fr", "en", "code", "parallel")}
    assert {p: m["p_holm"] for p, m in family.items()} == pytest.approx(holm({p: m["p"] for p, m in family.items()}), abs=1e-5)     # a family of its own, as the caption says
    caption = load_json(made/"fig_compare_schedules.json")["caption"]
    assert "families are the schedules on languages; the schedules on domains; the batches on languages; the descent on the best text against as much of its text, spread out. " in caption and "hold together for all arms" not in caption


def test_a_spread_arm_that_diverged_costs_its_own_question_alone(made, tmp_path, captions_only):
    "The notebook with one run that is said to diverge, in the other precision, in which the untrained model is scored, too."
    nb, start = (root()/STAGES["compare_schedules"]).read_text(), "    try: ended[arm, k] = train("
    assert nb.count(start) == 1
    (tmp_path/"stage.ipynb").write_text(nb.replace(start, "    try:\\n        if (arm, k) == ('schedules.wsd_spread', 1): raise Diverged('step 1: loss nan')\\n        ended[arm, k] = train("))
    both = {arm: SMOKE["compare_schedules"]["schedules"][arm] for arm in ("wsd_tail", "wsd_spread")}
    run_stage(tmp_path/"stage.ipynb", tmp_path/"out.ipynb", {"tables": str(tmp_path), "metrics": str(tmp_path), "schedules": both, "batch_sizes": [8], "batch_rates": ["same"], "dtype": "bfloat16"}, log=False)
    record, rows = load_json(tmp_path/"compare_schedules.json")["metrics"], load_table(tmp_path/"compare_schedules.csv")
    assert record["diverged.schedules.wsd_spread"]["value"] == 1 and not [key for key in record if key.startswith(("above_spread.", "above_base.schedules.wsd_spread.", "bpb.schedules.wsd_spread."))]
    assert {r["bits_per_byte"] == "" for r in rows if (r["arm"], r["seed"]) == ("wsd_spread", 1)} == {True} and record["above_base.schedules.wsd_tail.fr"]["verdict"]
    blank = {r["domain"] + r["language"]: r["random_weights"] for r in load_table(made/"compare_schedules.csv")}
    for r in rows: assert r["random_weights"] == pytest.approx(blank[r["domain"] + r["language"]], rel=.01)
    assert {r["random_weights"] for r in rows}.isdisjoint(blank.values())
    run_stage("nbs/figures/fig_compare_schedules.ipynb", tmp_path/"fig.ipynb", {"metrics": str(tmp_path), "figures": str(tmp_path), "tables": str(tmp_path)}, log=False)
    caption = load_json(tmp_path/"fig_compare_schedules.json")["caption"]
    assert "families are the schedules on languages; the schedules on domains; the batches on languages. " in caption and "Does it matter when it is read?" not in caption


@pytest.mark.parametrize("name, fewer", [("ablations", {"studies": {"curated": SMOKE["ablations"]["studies"]["curated"]}, "tokenizers": {"even": .5}}),
                                         ("compare_schedules", {"schedules": {"wsd": SMOKE["compare_schedules"]["schedules"]["wsd"]}, "batch_sizes": []})])
def test_a_stopped_study_goes_on_to_the_same_table(name, fewer, made, tmp_path):
    "The first call cannot write its table; of what it leaves, one run is taken away, so that the second trains that one and finds the others ended."
    (tmp_path/"fichier").write_text("ceci n'est pas un dossier")
    words = ["-q", "-p", "out", str(tmp_path/"work"), "-p", "metrics", str(tmp_path), *(x for key, value in fewer.items() for x in ("-p", key, json.dumps(value)))]
    assert main([STAGES[name], str(tmp_path/"out.ipynb"), *words, "-p", "tables", str(tmp_path/"fichier")]) == 1
    ended = sorted(p.parent.name for p in (tmp_path/"work/runs").glob("*/record.json"))
    assert len(ended) == 4
    shutil.rmtree(tmp_path/"work/runs"/ended[0])
    assert main([STAGES[name], str(tmp_path/"out.ipynb"), *words, "-p", "tables", str(tmp_path)]) == 0
    arms = {"base", *fewer.get("studies", {}).get("curated", {}), *fewer.get("schedules", {})}
    assert load_table(tmp_path/f"{name}.csv") == [r for r in load_table(made/f"{name}.csv") if r["arm"] in arms and r["study"] in ("base", "curated", "schedules")]
    assert not (tmp_path/"work").exists()


@pytest.mark.parametrize("name, wrong, named", [("ablations", {"studies": {"curated": {"half": {"fr_archived": 1.}}}}, "fr_archived"), ("ablations", {"base": "horoscopes"}, "no mixture 'horoscopes'"), ("ablations", {"studies": {"code": {}}}, "no arm in code"),
                                                ("ablations", {"seeds": [3]}, "seeds"), ("ablations", {"learning_rate": 1e6}, "diverge"), ("ablations", {"tokenizers": {"even": 0., "skewed": 1.}, "base": {"en": 1}, "studies": {"tokenizer": {"skewed": {"en": 1}}}}, "skewed needs more than three times the 8 steps"), ("compare_schedules", {"batch_seeds": [7, 8]}, "batch_seeds"),
                                                ("compare_schedules", {"schedules": {"wsd": {"schedule": "wsd"}}}, "tail_mixture")])
def test_impossible_settings_are_named(name, wrong, named, tmp_path, capsys):
    words = [x for k, v in wrong.items() for x in ("-p", k, json.dumps(v))]
    if "learning_rate" in wrong: words += ["-p", "studies", json.dumps({"code": {"none": {"fr": .5, "en": .5}}}), "-p", "tokenizers", json.dumps({"even": .5})]
    assert main([STAGES[name], str(tmp_path/"out.ipynb"), "-q", *words]) == 2 and named in capsys.readouterr().err


def test_the_studies_have_the_settings_of_the_released_model():
    train = load_params("train")
    same = ("seq_len", "dtype", "optimizer", "threads")
    for name in STAGES: assert {k: PARAMS[name][k] for k in same} == {k: train[k] for k in same} and len(PARAMS[name]["seeds"]) >= 3
    assert PARAMS["ablations"]["vocab_size"] == load_params("tokenizer")["released"]["lab8k"]
    shared = ("preset", "steps", "documents", "document_bytes", "part_bytes", "seeds", "final_share", "warmup_steps")
    assert {k: PARAMS["ablations"][k] for k in shared} == {k: PARAMS["compare_schedules"][k] for k in shared}


@pytest.mark.parametrize("name", list(FIGURES))
def test_a_figure_says_what_the_records_say(name, made):
    card, record, drawn = load_json(made/f"fig_{name}.json"), load_json(made/f"{FIGURES[name]}.json")["metrics"], load_table(made/f"fig_{name}.csv")
    assert len(card["inputs"]) == 1 and not re.search(r"\bnan\b|\binf\b|[{}]", card["caption"] + card["alt"])
    assert all((made/f"fig_{name}.{kind}").stat().st_size > 10_000 for kind in ("svg", "png"))
    of = {"compare_schedules": ("schedules", "batch")}.get(name, (name.removeprefix("ablation_"),))
    wanted = {key for key in record if key.startswith(tuple(f"above_base.{s}." for s in of)) and not (key.startswith("above_base.batch.") and "_" in key.rpartition(".")[2])}
    rows = {f"above_base.{r['study']}.{r['arm']}.{r['language']}" + (f"_{r['domain']}" if r["domain"] != "all" else ""): r for r in drawn}
    assert set(rows) == wanted
    for key, r in rows.items():
        m = record[key]
        assert (r["value"], r["low"], r["high"], r["verdict"]) == (m["value"], *m["interval"], m["verdict"])
        words = f" {m['value']:+.3f} [{m['interval'][0]:+.3f}, {m['interval'][1]:+.3f}]"
        assert words + (f" ({m['verdict']})" if r["domain"] != "all" and m["verdict"] in ("better", "worse") else "") in card["caption"] and (m["verdict"] in card["caption"] or r["domain"] != "all")


def test_the_caption_turns_with_the_record(made, tmp_path, captions_only):
    "The same figure from a record whose verdicts were turned round."
    record = load_json(made/"ablations.json")
    for key, m in record["metrics"].items():
        if key.startswith("above_base.code.none."): m["verdict"] = "worse" if key.endswith(".code") else "better"
    (tmp_path/"ablations.json").write_text(json.dumps(record))
    run_stage("nbs/figures/fig_ablation_code.ipynb", tmp_path/"out.ipynb", {"metrics": str(tmp_path), "figures": str(tmp_path), "tables": str(tmp_path)}, log=False)
    assert "no code: better in French, English and translation pairs, worse in code; " in load_json(tmp_path/"fig_ablation_code.json")["caption"]


def test_a_mixture_by_name_and_by_parts_is_the_same():
    sizes = {"fr_curated": 20, "fr_rest": 80, "en": 100, "code": 100, "parallel": 30}
    assert in_parts("paper", sizes) == pytest.approx(in_parts(paper_shares(), sizes)) and in_parts("paper", sizes)["fr_curated"] == pytest.approx(.2 * paper_shares()["fr"])
