"""The transparency checks, checked: every break must be noticed, and official totals must come back."""
import shutil
import string

import pytest
import yaml

from croissant import fmti
from croissant.fmti import CHECKS, COUNTER, DISCLOSED, DOMAINS, STATUSES
from croissant.params import BadInput, root
from croissant.provenance import fact, load_json, load_table, modules_reached, save_json, save_table


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return fmti.toy_evidence(tmp_path_factory.mktemp("world"))


@pytest.fixture(scope="module")
def rows(world): return fmti.evaluate_fmti(world)


@pytest.fixture
def copy(world, tmp_path):
    shutil.copytree(world, tmp_path/"copy")
    return tmp_path/"copy"


def status(base, number): return fmti.evaluate_fmti(base, [number])[0]["status"]


# --- the index itself

def test_coverage_is_exactly_one_hundred(rows):
    assert [r["number"] for r in rows] == list(range(1, 101))
    assert sum(DOMAINS.values()) == 100


def test_official_totals():
    rows = fmti.load_indicators()
    total = lambda column: sum(r[column] for r in rows)
    assert [total(f"{d}_2023") for d in ("llama2", "bloomz", "gpt4", "palm2", "titan")] == [54, 53, 48, 40, 12]
    assert total("starcoder_2024") == 85
    assert sum(r["starcoder_2024"] for r in rows if r["domain"] == "Upstream") == 32


def test_figure_8_adds_up_to_80_not_81():
    rows = {r["developer"]: r for r in fmti.paper_recount()}
    assert rows["croissantllm"]["figure8_total"] == 80 and fact("fmti.claimed") == 81
    assert [rows["croissantllm"][d] for d in DOMAINS] == [28, 24, 28]
    assert all(r["figure8_total"] == r["official_total"] for k, r in rows.items() if k != "croissantllm")


def test_every_subdomain_column_agrees_with_the_index():
    rows = fmti.load_indicators()
    for p in load_table("reports/paper/fmti_figure8.csv"):
        for d in ("llama2", "bloomz", "gpt4", "palm2", "titan"):
            assert p[d] == sum(r[f"{d}_2023"] for r in rows if r["subdomain"] == p["subdomain"]) == fmti.count_from_percent(p[f"{d}_percent"], p["n"])
        assert p["croissantllm"] == fmti.count_from_percent(p["croissantllm_percent"], p["n"])


def test_figure_9_follows_from_figure_8():
    recount = {r["developer"]: r for r in fmti.paper_recount()}
    for p in load_table("reports/paper/fmti_figure9.csv"):
        for d in recount: assert round(100 * recount[d][p["domain"]] / p["n"]) == p[d]


@pytest.mark.parametrize("n", range(1, 11))
def test_percent_fixes_the_count(n):
    for k in range(n + 1): assert fmti.count_from_percent(round(100 * k / n), n) == k


@pytest.mark.parametrize("percent,n", [(51, 10), (50, 300)])
def test_ambiguous_percent(percent, n):
    with pytest.raises(BadInput, match="counts round to it"): fmti.count_from_percent(percent, n)


@pytest.mark.parametrize("change", [{"number": 2}, {"number": 101}, {"proof_class": "Z"}, {"requirement": ""}, {"domain": "Model"}])
def test_damaged_index(change, tmp_path):
    rows = fmti.load_indicators()
    save_table([rows[0] | change, *rows[1:]], tmp_path/"reports/fmti/indicators.csv")
    with pytest.raises(BadInput): fmti.load_indicators(tmp_path)


# --- the checks

def test_at_least_twenty_are_computed():
    assert sum(c.status in ("reproduced", "recomputed") for c in CHECKS.values()) >= 20
    assert not set(CHECKS) & set(fmti.load_assertions())


@pytest.mark.parametrize("number", sorted(CHECKS))
def test_every_check_passes_on_whole_evidence(rows, number):
    row = rows[number - 1]
    assert row["status"] == CHECKS[number].status and row["value"], row["reason"]
    assert len(row["sha256"].split("; ")) == len(row["evidence"].split("; ")) == len(CHECKS[number].evidence)


@pytest.mark.parametrize("number,place,change", [(n, *b) for n, c in sorted(CHECKS.items()) for b in c.breaks])
def test_every_break_is_noticed(copy, number, place, change):
    fmti.spoil(copy, place, change)
    assert status(copy, number) not in DISCLOSED


@pytest.mark.parametrize("number", sorted(CHECKS))
def test_some_break_hits_the_subject_and_not_its_hash(number):
    c = CHECKS[number]
    assert any(change is not None and change != "flip" for _, change in c.breaks) or number == 45, "a hash alone would notice"   # 45 is about hashes


@pytest.mark.parametrize("number", sorted(n for n, c in CHECKS.items() for p, _ in c.breaks if p.startswith("forged:")))
def test_forged_hashes_fit(copy, number):
    "What notices a forgery is the check, not the manifest."
    place, change = next(b for b in CHECKS[number].breaks if b[0].startswith("forged:"))
    fmti.spoil(copy, place, change)
    fmti.manifest(copy, fmti.MODEL)
    assert status(copy, number) == "contradicted"


@pytest.mark.parametrize("modules,stage", [(fmti.TRAINING, "30_pretrain"), (fmti.SERVING, "40_generate")])
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
    assert fmti.reaches_out(tmp_path, ("croissant/pain.py",)) == ""
    path.write_text(code, encoding="utf-8")
    assert word in fmti.reaches_out(tmp_path, ("croissant/pain.py",))


def test_unstated_licences_are_a_gap(copy):
    fmti.spoil(copy, f"{fmti.CORPUS}/train/fr.jsonl", ("Apache-2.0", "text: open data (licence not stated in the package)"))
    row = fmti.evaluate_fmti(copy, [9])[0]
    assert row["status"] == "not-met" and "% of the bytes" in row["reason"]


def test_a_stale_list_of_stages_is_a_contradiction(copy):
    shutil.copy(root()/"dvc.yaml", copy/"dvc.yaml")
    assert {status(copy, n) for n in (6, 27, 57)} == {"contradicted"}
    save_table(fmti.pipeline(copy), copy/fmti.STAGES)
    assert (status(copy, 6), status(copy, 57)) == ("consistent", "asserted")


def test_an_answer_that_never_comes_is_no_answer(copy):
    fmti.spoil(copy, "croissant/generate.py", fmti.append("raise OSError('no network')"))
    assert status(copy, 40) == "contradicted" and status(copy, 83) == "contradicted"


@pytest.mark.parametrize("number", sorted(CHECKS))
def test_absent_evidence_is_never_a_pass(world, tmp_path, number):
    for name in ("indicators.csv", "assertions.yaml"):
        (tmp_path/"reports/fmti").mkdir(parents=True, exist_ok=True)
        shutil.copy(world/"reports/fmti"/name, tmp_path/"reports/fmti"/name)
    row = fmti.evaluate_fmti(tmp_path, [number])[0]
    assert row["status"] == "skipped" and "is not on this disk" in row["reason"]


@pytest.mark.parametrize("number", sorted(CHECKS))
def test_no_digit_is_typed_into_a_sentence(number):
    literal = "".join(text for text, *_ in string.Formatter().parse(CHECKS[number].says))
    assert not any(ch in string.digits for ch in literal)


def test_statuses_stay_in_the_vocabulary(rows):
    assert {r["status"] for r in rows} <= set(STATUSES) and {c.status for c in CHECKS.values()} <= set(DISCLOSED)


# --- words

@pytest.mark.parametrize("number,place,change", [
    (57, fmti.STAGES, ("pretrain", "safety_tuning")), (78, fmti.STAGES, ("pretrain", "train_refusals")),
    (85, "croissant/generate.py", fmti.append("import urllib.request")), (92, "croissant/provenance.py", fmti.append("import requests")),
    (74, "LICENSE", ("royalty-free", "non-commercial"))])
def test_words_are_contradicted(copy, number, place, change):
    assert status(copy, number) == "asserted"
    fmti.spoil(copy, place, change)
    assert status(copy, number) == "contradicted"


def test_counter_checks_belong_to_statements():
    assert set(COUNTER) <= set(fmti.load_assertions())


@pytest.mark.parametrize("change", [{"asserted_on": ""}, {"asserted_by": None}, {"statements": {0: "rien"}}, {"statements": {75: " "}}, {"statements": {75: "3 people"}}])
def test_bad_statements(copy, change):
    path = copy/"reports/fmti/assertions.yaml"
    path.write_text(yaml.safe_dump(yaml.safe_load(path.read_text(encoding="utf-8")) | change), encoding="utf-8")
    with pytest.raises(BadInput): fmti.load_assertions(copy)


def test_without_statements_nothing_is_asserted(copy):
    (copy/"reports/fmti/assertions.yaml").unlink()
    assert {r["status"] for r in fmti.evaluate_fmti(copy, sorted(COUNTER))} == {"not-met"}


def test_untested_word_says_so(copy):
    (copy/fmti.STAGES).unlink()
    assert "not tested" in fmti.evaluate_fmti(copy, [57])[0]["reason"]


# --- sums, explanations, the vandal

def test_sums_hide_nothing(rows):
    s = fmti.sums(rows)
    assert s["disclosed"] == s["machine_proved"] + s["structural"] + s["asserted"] + s["attested"]
    assert s["indicators"] == s["disclosed"] + s["not_met"] + s["skipped"] + s["failed"] == 100
    assert s["external"] == 7 and s["failed"] == 0 and s["estimated"] == 2
    assert sum(g["n"] for g in fmti.group_sums(rows, "domain")) == 100


@pytest.mark.parametrize("number,words", [(36, ["to falsify", "def model_size", "sha256"]), (57, ["counter-check", "def mitigation"]), (14, ["basis"]), (95, ["outsider"]), (3, ["no check"])])
def test_explain(world, number, words):
    text = fmti.explain(number, world)
    assert all(w in text for w in [*words, "self-assessment"])


def test_explain_unknown():
    with pytest.raises(BadInput, match="1 to 100"): fmti.explain(0)


def test_vandal_refuses_what_is_not_there(copy):
    for place, change in (("nothing.json", None), ("LICENSE", ("absent words", "x")), ("reports/metrics/training.json#/metrics/absent", 1)):
        with pytest.raises(BadInput): fmti.spoil(copy, place, change)


def test_registry_refuses_doubles_and_unbreakable_checks():
    def other(base): return {}
    with pytest.raises(BadInput, match="check already"): fmti.check(1, "recomputed", "x", (), (("a", None),))(other)
    with pytest.raises(BadInput, match="no way to break"): fmti.check(3, "recomputed", "x", (), ())(other)
    assert 3 not in CHECKS


def test_too_few_capabilities_is_a_gap(copy):
    for name in ("accord_genre", "accord_nombre"): fmti.spoil(copy, f"reports/metrics/minimal_pairs.json#/metrics/{name}/interval", [.1, 1.0])
    assert status(copy, 42) == "not-met" and status(copy, 44) == "recomputed"


def double(base, source, target):
    "Write the first document of one file at the end of another, and count it in the manifest."
    lines = (base/fmti.CORPUS/f"{source}.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
    path, manifest = base/fmti.CORPUS/f"{target}.jsonl", load_json(base/fmti.CORPUS/"manifest.json")
    path.write_text(path.read_text(encoding="utf-8") + lines[0], encoding="utf-8")
    manifest["documents"][target] += 1
    save_json(manifest, base/fmti.CORPUS/"manifest.json")
    return fmti.evaluate_fmti(base, [5])[0]


def test_a_text_kept_twice_is_counted_aloud(copy):
    assert "and 0 repeat" in fmti.evaluate_fmti(copy, [5])[0]["value"]
    assert "and 1 repeat" in double(copy, "train/fr", "train/fr")["value"]


def test_a_text_in_two_splits_is_refused(copy):
    assert "stands in" in double(copy, "train/fr", "validation/fr")["reason"]


def test_a_checkpoint_from_nowhere_is_noticed(copy):
    shutil.copytree(copy/fmti.MODEL, copy/"artifacts/checkpoints/cadeau")
    assert "cadeau" in fmti.evaluate_fmti(copy, [27])[0]["reason"]


def test_a_vanished_file_is_a_finding_not_a_crash(copy):
    (copy/fmti.CORPUS/"validation/fr.jsonl").unlink()
    assert {status(copy, n) for n in (5, 19)} <= {"contradicted", "tampered"}
