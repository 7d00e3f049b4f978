"""The transparency checks, checked: every mutation must be noticed, and official totals must come back."""
import shutil
import string
from datetime import date

import pytest


from croissant.fmti.checks import CHECKS, COUNTERS, CORPUS, MODEL, SERVING, STAGES, TRAINING, check, manifest
from croissant.fmti.corpus import kept
from croissant.fmti.index import DISCLOSED, DOMAINS, EDITIONS, STATUSES, count_from_percent, group_sums, load_indicators, official_scores, paper_recount, sums
from croissant.fmti.outsiders import sign
from croissant.fmti.pipeline import maker, pipeline, reaches_out, stages
from croissant.fmti.records import CLAIMS, load_records, slots
from croissant.fmti.triangle import LAB, Triangle, paper_triangles
from croissant.fmti.vandal import append, falsify, spoil
from croissant.fmti.verdict import evaluate_fmti, evaluate_supplement, explain, worse
from croissant.fmti.world import toy_evidence
from croissant.params import BadInput, root
from croissant.provenance import fact, load_json, load_table, modules_reached, save_json, save_table, sha256

RECORDS = {r["number"]: r for r in load_records()}
LATER = {r["number"]: r for r in load_records(edition="2025")}
CALLED = {r["check"]: r["id"] for r in [*LATER.values(), *RECORDS.values()] if "check" in r}
SPOKEN = {r["counter_check"]: r["id"] for r in RECORDS.values() if "counter_check" in r}
MUTATIONS = [(CALLED[name], *b) for name, c in sorted(CHECKS.items()) for b in c.breaks] + [(SPOKEN[name], *b) for name, c in sorted(COUNTERS.items()) for b in c.breaks]


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return toy_evidence(tmp_path_factory.mktemp("world"))


@pytest.fixture(scope="module")
def rows(world): return evaluate_fmti(world)


@pytest.fixture
def copy(world, tmp_path):
    shutil.copytree(world, tmp_path/"copy")
    return tmp_path/"copy"


def status(base, number): return evaluate_fmti(base, [number])[0]["status"]


def verdict_on(base, id):
    "The status of a record, of either edition."
    number = int(id.split("-")[-1])
    return status(base, number) if "-25-" not in id else evaluate_supplement(base, numbers=[number])[0]["status"]


# --- the index itself

def test_coverage_is_exactly_one_hundred(rows):
    assert [r["number"] for r in rows] == list(range(1, 101))
    assert sum(DOMAINS.values()) == 100


@pytest.mark.parametrize("edition", EDITIONS)
def test_official_totals_come_back(edition):
    scores, printed = official_scores(edition)
    assert len(scores) == {"2023": 10, "2024": 14}[edition] and {d: sum(s) for d, s in scores.items()} == printed


def test_official_scores_agree_with_the_columns_of_the_index():
    rows, (then, _), (later, _) = load_indicators(), official_scores("2023"), official_scores("2024")
    for ours, theirs in (("llama2", "meta"), ("bloomz", "hugging_face"), ("gpt4", "openai"), ("palm2", "google"), ("titan", "amazon")): assert [r[f"{ours}_2023"] for r in rows] == then[theirs]
    assert [r["starcoder_2024"] for r in rows] == later["bigcode"]


@pytest.mark.parametrize("change", [{"number": 2}, {"meta": 2}, {"meta": ""}])
def test_damaged_scores(change, tmp_path):
    found = load_table("reports/fmti/scores_2023.csv")
    save_table([found[0] | change, *found[1:]], tmp_path/"reports/fmti/scores_2023.csv")
    with pytest.raises(BadInput): official_scores("2023", tmp_path)
    with pytest.raises(BadInput, match="choose one of"): official_scores("2025")


def test_figure_8_adds_up_to_80_not_81():
    rows = {r["developer"]: r for r in paper_recount()}
    assert rows["croissantllm"]["figure8_total"] == 80 and fact("fmti.claimed") == 81
    assert [rows["croissantllm"][d] for d in DOMAINS] == [28, 24, 28]
    assert all(r["figure8_total"] == r["official_total"] for k, r in rows.items() if k != "croissantllm")


def test_every_cell_of_figure_8_agrees_with_the_index():
    rows = load_indicators()
    for p in load_table("reports/paper/fmti_figure8.csv"):
        for d in ("llama2", "bloomz", "gpt4", "palm2", "titan"):
            assert p[d] == sum(r[f"{d}_2023"] for r in rows if r["subdomain"] == p["subdomain"]) == count_from_percent(p[f"{d}_percent"], p["n"])
        assert p["croissantllm"] == count_from_percent(p["croissantllm_percent"], p["n"])


def test_figure_9_follows_from_figure_8():
    recount = {r["developer"]: r for r in paper_recount()}
    for p in load_table("reports/paper/fmti_figure9.csv"):
        for d in recount: assert round(100 * recount[d][p["domain"]] / p["n"]) == p[d]


@pytest.mark.parametrize("n", range(1, 11))
def test_percent_fixes_the_count(n):
    for k in range(n + 1): assert count_from_percent(round(100 * k / n), n) == k


@pytest.mark.parametrize("percent,n", [(51, 10), (50, 300)])
def test_ambiguous_percent(percent, n):
    with pytest.raises(BadInput, match="counts round to it"): count_from_percent(percent, n)


@pytest.mark.parametrize("change", [{"number": 2}, {"number": 101}, {"proof_class": "Z"}, {"requirement": ""}, {"domain": "Model"}])
def test_damaged_index(change, tmp_path):
    rows = load_indicators()
    save_table([rows[0] | change, *rows[1:]], tmp_path/"reports/fmti/indicators.csv")
    with pytest.raises(BadInput): load_indicators(tmp_path)


# --- the records

def test_every_check_belongs_to_a_record_and_back():
    assert set(CALLED) == set(CHECKS) and set(SPOKEN) == set(COUNTERS)


def test_goals_of_the_records():
    earned = [r.get("earns", "") for r in RECORDS.values()]
    assert sum(e in ("reproduced", "recomputed") for e in earned) >= 51 and sum(e in ("consistent", "estimated") for e in earned) >= 33
    assert {n for n, r in RECORDS.items() if r["proof_class"] == "X"} == {46, 56, 93, 94, 95, 96, 97} and all("earns" not in RECORDS[n] for n in (46, 56, 93, 94, 95, 96, 97))


@pytest.mark.parametrize("number", sorted(RECORDS))
def test_record_names_the_stage_that_makes_its_evidence(number):
    made = stages(root())
    assert [e["stage"] for e in RECORDS[number]["evidence"]] == [maker(e["path"], made) for e in RECORDS[number]["evidence"]]


@pytest.mark.parametrize("number", [n for n, r in RECORDS.items() if load_indicators()[n - 1]["absence_counts"] == "yes"])
def test_a_point_earned_by_absence_has_something_that_could_contradict_it(number):
    r = RECORDS[number]
    assert "check" in r or "counter_check" in r or number in (98,), "only redress is a bare word"


@pytest.mark.parametrize("change,word", [
    (("earns: recomputed", "earns: certain"), "certain"), (("{n:,} parameters", "4 million parameters"), "digit"), (("subject: lab", "subject: paper"), "lab"), (("check: model_size\n", ""), "036"),
    (("id: fmti-036", "id: fmti-037"), "rename"), (("scope:", "skope:"), "skope"), (("{n:,}", "{0:,}"), "plain name"), (("expected: recomputed", "expected: skipped"), "skipped"), (("name:", ": :"), "YAML")])
def test_damaged_record(copy, change, word):
    spoil(copy, f"{CLAIMS}/036-model-size.yaml", change)
    with pytest.raises(BadInput, match=word): load_records(copy)


def test_a_missing_or_doubled_record_stops_everything(copy):
    path = copy/CLAIMS/"036-model-size.yaml"
    shutil.copy(path, copy/CLAIMS/"036-twice.yaml")
    with pytest.raises(BadInput, match="2 records"): load_records(copy)
    path.unlink(); (copy/CLAIMS/"036-twice.yaml").unlink()
    with pytest.raises(BadInput, match="0 records"): load_records(copy)
    (copy/"fmti/schema.json").unlink()
    with pytest.raises(BadInput, match="schema"): load_records(copy)


def test_a_record_about_another_question_or_an_unknown_check(copy):
    for change, word in ((("Model size", "Model taste"), "the index asks"), (("check: model_size", "check: model_taste"), "there is no check"), (("proof_class: R", "proof_class: S"), "the index asks")):
        text = (copy/CLAIMS/"036-model-size.yaml").read_text(encoding="utf-8")
        spoil(copy, f"{CLAIMS}/036-model-size.yaml", change)
        with pytest.raises(BadInput, match=word): evaluate_fmti(copy, [36])
        (copy/CLAIMS/"036-model-size.yaml").write_text(text, encoding="utf-8")


def test_a_slot_that_nobody_fills_is_a_contradiction(copy):
    spoil(copy, f"{CLAIMS}/036-model-size.yaml", ("{body:,}", "{taste}"))
    assert "taste" in evaluate_fmti(copy, [36])[0]["reason"] and status(copy, 36) == "contradicted"


@pytest.mark.parametrize("number", sorted(RECORDS))
def test_no_digit_is_typed_into_a_sentence(number):
    claim = RECORDS[number]["claim"]
    assert not any(ch in string.digits for text, *_ in string.Formatter().parse(claim) for ch in text)
    assert bool(slots(claim)) == bool(claim)


# --- the checks

@pytest.mark.parametrize("number", sorted(RECORDS))
def test_every_promise_is_kept_on_whole_evidence(rows, number):
    row, r = rows[number - 1], RECORDS[number]
    assert row["status"] == r["expected"] == r.get("earns", "not-met"), row["reason"]
    assert bool(row["value"]) == ("earns" in r)
    if "earns" in r: assert len(row["sha256"].split("; ")) == len(row["evidence"].split("; ")) == len(r["evidence"])


@pytest.mark.parametrize("id,place,change", MUTATIONS)
def test_every_mutation_is_noticed(copy, id, place, change):
    "The mutation score is one: each change ends in a word that does not count as disclosed."
    spoil(copy, place, change)
    assert verdict_on(copy, id) not in DISCLOSED


def test_every_check_has_mutations(): assert len(MUTATIONS) == sum(len(c.breaks) for c in [*CHECKS.values(), *COUNTERS.values()]) >= 2 * 60 and all(c.breaks for c in [*CHECKS.values(), *COUNTERS.values()])


@pytest.mark.parametrize("name", sorted(CHECKS))
def test_some_mutation_hits_the_subject_and_not_its_hash(name):
    assert any(change is not None and change != "flip" for _, change in CHECKS[name].breaks), "a hash alone would notice"


@pytest.mark.parametrize("name", sorted(n for n, c in CHECKS.items() if any(p.startswith("forged:") for p, _ in c.breaks)))
def test_forged_hashes_fit(copy, name):
    "What notices a forgery is the check, not the manifest."
    place, change = next(b for b in CHECKS[name].breaks if b[0].startswith("forged:"))
    spoil(copy, place, change)
    manifest(copy, MODEL)
    assert verdict_on(copy, CALLED[name]) == "contradicted"


@pytest.mark.parametrize("modules,stage", [(TRAINING, "30_pretrain"), (SERVING, "40_generate")])
def test_absence_is_looked_for_in_every_module_reached(modules, stage):
    assert list(modules) == modules_reached(f"nbs/stages/{stage}.ipynb")


@pytest.mark.parametrize("code,word", [("import ssl", "ssl"), ("from http.client import HTTPConnection", "http"), ("def f():\n    import aiohttp", "aiohttp"), ("import huggingface_hub as h", "huggingface_hub"),
    ("from urllib import request", "urllib"), ("import importlib\nimportlib.import_module('requests')", "requests"), ("__import__('httpx')", "httpx"), ("import subprocess", "subprocess"),
    ("import os\nos.popen('x')", "os.popen"), ("import torch.hub", "torch.hub"), ("from torch import hub", "torch.hub"), ("from .cli import main", "croissant/cli.py")])
def test_ways_out_are_seen(tmp_path, code, word):
    (tmp_path/"croissant").mkdir()
    (tmp_path/"croissant/cli.py").write_text("", encoding="utf-8")
    path = tmp_path/"croissant/pain.py"
    path.write_text("import os, json, torch\nos.path.join('a', 'b')\n", encoding="utf-8")
    assert reaches_out(tmp_path, ("croissant/pain.py",)) == ""
    path.write_text(code, encoding="utf-8")
    assert word in reaches_out(tmp_path, ("croissant/pain.py",))


def test_unstated_licences_are_counted_apart_and_need_a_rule(copy):
    spoil(copy, f"{CORPUS}/train/fr.jsonl", ("Apache-2.0", "text: open data (licence not stated in the package)"))
    assert "names no rule" in evaluate_fmti(copy, [9])[0]["reason"] and status(copy, 9) == "not-met"
    spoil(copy, "reports/source_facts.csv#rights", "Official texts, open data")
    row = evaluate_fmti(copy, [9])[0]
    assert row["status"] == "recomputed" and "the package states none" in row["value"] and "toy" in row["value"]


def test_a_stale_list_of_stages_is_a_contradiction(copy):
    shutil.copy(root()/"dvc.yaml", copy/"dvc.yaml")
    assert {status(copy, n) for n in (6, 27, 57)} == {"contradicted"}
    save_table(pipeline(copy), copy/STAGES)
    assert (status(copy, 6), status(copy, 57)) == ("recomputed", "consistent")


def test_an_answer_that_never_comes_is_no_answer(copy):
    spoil(copy, "croissant/generate.py", append("raise OSError('no network')"))
    assert status(copy, 40) == "contradicted" and status(copy, 83) == "contradicted"


@pytest.mark.parametrize("number", sorted(n for n, r in RECORDS.items() if "earns" in r))
def test_absent_evidence_is_never_a_pass(world, tmp_path, number):
    for name in ("fmti", "reports/fmti"): shutil.copytree(world/name, tmp_path/name)
    row = evaluate_fmti(tmp_path, [number])[0]
    there = all(e["path"].startswith("fmti/") for e in RECORDS[number]["evidence"])
    assert there or row["status"] == "skipped" and "is not on this disk" in row["reason"]


def test_statuses_stay_in_the_vocabulary(rows):
    assert {r["status"] for r in rows} <= set(STATUSES)


# --- words

@pytest.mark.parametrize("number", [n for n, r in RECORDS.items() if r.get("earns") == "asserted"])
def test_a_word_ages(world, number):
    row = evaluate_fmti(world, [number], today=date(2031, 1, 1))[0]
    assert row["status"] == "stale" and worse("stale", RECORDS[number]["expected"])


def test_a_clause_that_is_gone_is_a_gap(copy):
    spoil(copy, "POLICY.md", ("### Redress", "### Remedy"))
    assert status(copy, 98) == "not-met"


@pytest.mark.parametrize("change,word", [(("### Redress\n", "### Monitoring\n"), "doubled"), (("There is no redress mechanism", "There are 3 redress mechanisms"), "figure")])
def test_a_policy_with_a_fault_is_a_contradiction(copy, change, word):
    spoil(copy, "POLICY.md", change)
    assert word in evaluate_fmti(copy, [98])[0]["reason"] and status(copy, 98) == "contradicted"


# --- outsiders

@pytest.fixture
def key():
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    return Ed25519PrivateKey.generate()


def slot(base, key, **change):
    said = {"indicator": 46, "subject": sha256(base/MODEL/"model.safetensors"), "by": "somebody else", "result": "as good as a trigram", "published": "https://example.org/a"} | change
    save_json({"statement": said, **sign(said, key)}, base/"fmti/outsiders/046-else.json")
    return base/"fmti/outsiders/046-else.json"


def test_an_outsider_meets_what_we_cannot(copy, key):
    slot(copy, key)
    row = evaluate_fmti(copy, [46])[0]
    assert row["status"] == "attested-by-third-party" and "somebody else" in row["value"] and sums([row])["attested"] == 1


@pytest.mark.parametrize("change,word", [({"subject": "0" * 64}, "other weights"), ({"indicator": 56}, "about indicator"), ({"by": ""}, "no by")])
def test_an_outsider_who_speaks_of_something_else(copy, key, change, word):
    slot(copy, key, **change)
    assert word in evaluate_fmti(copy, [46])[0]["reason"] and status(copy, 46) == "contradicted"


def test_nobody_attests_themselves(copy, key):
    record = load_json(slot(copy, key))
    save_json({"keys": [{"public_key": record["public_key"]}]}, copy/"fmti/maintainers.json")
    assert "nobody attests" in evaluate_fmti(copy, [46])[0]["reason"]


def test_a_signature_that_does_not_fit(copy, key):
    path = slot(copy, key)
    save_json(load_json(path) | {"signature": "00" * 64}, path)
    assert "does not fit" in evaluate_fmti(copy, [46])[0]["reason"]


# --- triangles

def test_the_paper_is_flagged_where_it_should_be_and_nowhere_else():
    found = {t.quantity: t for t in paper_triangles()}
    assert {q for q, t in found.items() if not t.agrees} == {"operations of the run", "energy of the run", "transparency total"}
    routes = found["operations of the run"].routes
    assert 4.2e22 < routes["as printed"] < 4.4e22 and 2.1e22 < min(routes.values()) < 2.3e22 and 2.3e22 < routes["six times all parameters"] < 2.5e22
    assert set(found["transparency total"].routes.values()) == {80, 81}


def test_our_own_numbers_agree(world):
    assert [t(world).agrees for t in LAB.values()] == [True] * len(LAB)


@pytest.mark.parametrize("routes", [{"one": 1.0}, {"one": 1.0, "two": 0.0}, {"one": 1.0, "two": float("nan")}])
def test_a_triangle_needs_routes(routes):
    with pytest.raises(BadInput): Triangle("flour", "g", .1, routes)


# --- sums, explanations, the vandal

def test_sums_hide_nothing(rows):
    s = sums(rows)
    assert s["disclosed"] == s["machine_proved"] + s["structural"] + s["asserted"] + s["attested"]
    assert s["indicators"] == s["disclosed"] + s["not_met"] + s["skipped"] + s["failed"] == 100
    assert s["external"] == 7 and s["failed"] == 0 and s["estimated"] == 3
    assert sum(g["n"] for g in group_sums(rows, "domain")) == 100


@pytest.mark.parametrize("number,words", [(36, ["to falsify", "def model_size", "sha256", "made by pretrain"]), (57, ["counter-check", "def mitigation"]), (91, ["basis", "2026"]), (95, ["outsider"]), (23, ["not-met"])])
def test_explain(world, number, words):
    text = explain(number, world)
    assert all(w in text for w in [*words, "self-assessment"])


def test_explain_unknown():
    with pytest.raises(BadInput, match="1 to 100"): explain(0)


@pytest.mark.parametrize("now,promised,is_worse", [("recomputed", "recomputed", False), ("reproduced", "recomputed", False), ("consistent", "recomputed", True), ("not-met", "asserted", True), ("not-met", "not-met", False),
    ("contradicted", "not-met", True), ("stale", "asserted", True), ("skipped", "recomputed", False), ("attested-by-third-party", "not-met", False)])
def test_worse(now, promised, is_worse): assert worse(now, promised) is is_worse


def test_levels(world):
    fast = {r["number"]: r for r in evaluate_fmti(world, level="fast")}
    assert {n for n, r in fast.items() if r["status"] == "skipped"} == {n for n, r in RECORDS.items() if r["level"] == "full"}
    with pytest.raises(BadInput, match="fast, full"): evaluate_fmti(world, level="deep")


def test_vandal_refuses_what_is_not_there(copy):
    for place, change in (("nothing.json", None), ("LICENSE", ("absent words", "x")), ("reports/metrics/training.json#/metrics/absent", 1)):
        with pytest.raises(BadInput): spoil(copy, place, change)


def test_registry_refuses_doubles_and_unbreakable_checks():
    def model_size(base): return {}
    with pytest.raises(BadInput, match="already"): check(("a", None))(model_size)
    with pytest.raises(BadInput, match="at least one change"): check()(model_size)
    assert CHECKS["model_size"].run is not model_size and falsify(CHECKS["model_size"].breaks)


def test_too_few_capabilities_is_a_gap(copy):
    for name in ("accord_genre", "accord_nombre"): spoil(copy, f"reports/metrics/minimal_pairs.json#/metrics/{name}/interval", [.1, 1.0])
    assert status(copy, 42) == "not-met" and status(copy, 44) == "recomputed"


def double(base, source, target):
    "Write the first document of one file at the end of another, and count it in the manifest."
    lines = (base/CORPUS/f"{source}.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
    path, facts = base/CORPUS/f"{target}.jsonl", load_json(base/CORPUS/"manifest.json")
    path.write_text(path.read_text(encoding="utf-8") + lines[0], encoding="utf-8")
    facts["documents"][target] += 1
    save_json(facts, base/CORPUS/"manifest.json")
    return evaluate_fmti(base, [5])[0]


def test_a_text_kept_twice_is_counted_aloud(copy):
    assert "and 0 repeat" in evaluate_fmti(copy, [5])[0]["value"] and kept(copy)
    assert "and 1 repeat" in double(copy, "train/fr", "train/fr")["value"]


def test_a_text_in_two_splits_is_refused(copy):
    assert "stands in" in double(copy, "train/fr", "validation/fr")["reason"]


def test_a_checkpoint_from_nowhere_is_noticed(copy):
    shutil.copytree(copy/MODEL, copy/"artifacts/checkpoints/cadeau")
    assert "cadeau" in evaluate_fmti(copy, [27])[0]["reason"]


def test_a_vanished_file_is_a_finding_not_a_crash(copy):
    (copy/CORPUS/"validation/fr.jsonl").unlink()
    assert {status(copy, n) for n in (5, 19)} <= {"contradicted", "tampered"}


def test_refusals_and_policy_go_together(copy):
    assert status(copy, 78) == "consistent"
    spoil(copy, "artifacts/instructions/train.jsonl", ("Je ne peux pas vous aider", "Volontiers"))
    assert {status(copy, n) for n in (78, 79, 80)} == {"contradicted"}
    spoil(copy, "POLICY.md", ("- help to do harm to people or to take what is theirs, by the chat model", "- none"))
    assert status(copy, 78) == "consistent"
