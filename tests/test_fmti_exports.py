"""The records in other people's formats: valid by their validators, complete, the same bytes each time, and no better than the table."""
import csv
import json
import os
import re
import shutil
import subprocess
import sys

import pytest
import yaml

from croissant import cli
from croissant.fmti import bom as B
from croissant.fmti import forms as F
from croissant.fmti.index import DISCLOSED, STATUSES
from croissant.params import BadInput, root
from croissant.provenance import load_json, load_table, save_json, save_table, sha256

EXPORTS = root()/"reports/exports"


@pytest.fixture(scope="module")
def release(tmp_path_factory):
    "A toy release with the repository's own table, packages and locked environment."
    world = B.toy_release(tmp_path_factory.mktemp("release"))
    for path in (B.TABLE, B.ROOT, "sources.csv", "requirements.in", "requirements.lock", "reports/tables/corpus.csv", "fmti/risks.csv"): shutil.copy(root()/path, world/path)
    return world


@pytest.fixture(scope="module")
def text(release): return B.bom_text(release)


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    "The toy alone: the validator compares every component with every other, and this one has few."
    world = B.toy_release(tmp_path_factory.mktemp("small"))
    return world, B.bom_text(world)


@pytest.fixture
def copy(small, tmp_path):
    shutil.copytree(small[0], tmp_path/"copy")
    return tmp_path/"copy"


def table(base): return B.text_rows(base/B.TABLE)


def rewrite(base, rows):
    with (base/B.TABLE).open("w", encoding="utf-8", newline="") as f:
        w = csv.DictWriter(f, list(rows[0]), lineterminator="\n"); w.writeheader(); w.writerows(rows)


def edit(base, number, **cells): rewrite(base, [r | cells if r["number"] == str(number) else r for r in table(base)])


# ---- the bill of materials

def test_the_official_validator_accepts_it(text):
    found = B.check_bom(text)
    assert (found["bomFormat"], found["specVersion"]) == ("CycloneDX", "1.6")
    assert [c["name"] for c in found["components"] if c["type"] == "machine-learning-model"] == ["fournil-flagship", "fournil-chat", "fournil-translate"]


def put(place, value):
    "A change at a JSON pointer."
    def act(found):
        *way, last = [int(w) if w.isdecimal() else w for w in place.split("/")]
        for w in way: found = found[w]
        found[last] = value
    return act


MUTANTS = {"a conformance of two": (put("declarations/attestations/0/map/0/conformance/score", 2), "score"), "a licence of one's own": (put("components/0/licenses/0/license/id", "Licence maison"), "licenses"),
           "a serial number that is none": (put("serialNumber", "urn:uuid:pain"), "serialNumber"), "a field of one's own": (put("definitions/standards/0/taste", "good"), "standards"),
           "a digest of another length": (put("components/0/hashes/0/content", "abc"), "hashes"), "an approach that nobody knows": (put("components/0/modelCard/modelParameters/approach/type", "by heart"), "approach"),
           "another version of the format": (put("components/0/type", "bread"), "type"), "a number where a sentence should be": (put("declarations/claims/0/predicate", 3), "predicate"),
           "a claim about nothing": (put("declarations/claims/0/target", "model:none"), "points to nothing"), "a requirement that is not in the standard": (put("declarations/attestations/0/map/0/requirement", "fmti-1.0:101"), "points to nothing"),
           "evidence that is not there": (put("declarations/claims/0/evidence", ["evidence:nowhere"]), "points to nothing"), "two models of one name": (put("components/1/bom-ref", "model:flagship"), "two things"),
           "a data set that is not listed": (put("components/0/modelCard/modelParameters/datasets/0/ref", "pkg:pypi/miche@1"), "points to nothing")}


@pytest.mark.parametrize("name", MUTANTS)
def test_a_changed_bill_is_refused(small, name):
    act, word = MUTANTS[name]
    found = json.loads(small[1])
    act(found)
    with pytest.raises(BadInput, match=word): B.check_bom(json.dumps(found))


def test_what_is_no_json_is_refused():
    with pytest.raises(BadInput, match="not JSON"): B.check_bom("{")


def test_the_totals_are_those_of_the_metrics(text):
    found, metrics = json.loads(text), load_json("reports/metrics/fmti.json")["metrics"]
    said = {p["name"].removeprefix("croissant:fmti_"): p["value"] for p in found["metadata"]["properties"]}
    shown = {k: str(int(m["value"])) for k, m in metrics.items() if not k.startswith("paper_")}
    assert shown and {k: said[k] for k in shown} == shown
    scores = [line["conformance"]["score"] for a in found["declarations"]["attestations"] for line in a["map"]]
    assert len(scores) == 100 and sum(scores) == metrics["disclosed"]["value"]
    parts = {a["summary"].partition(":")[0].replace(" ", "_"): len(a["map"]) for a in found["declarations"]["attestations"]}
    assert {k: parts.get(k, 0) for k in B.KINDS} == {k: metrics[k]["value"] for k in B.KINDS} and parts["not_disclosed"] == 100 - sum(scores)


def test_every_requirement_has_a_claim_or_a_counter_claim(text):
    found = json.loads(text)
    lines = [line for a in found["declarations"]["attestations"] for line in a["map"]]
    wanted = [r["bom-ref"] for r in found["definitions"]["standards"][0]["requirements"]]
    assert len(wanted) == 100 and sorted(line["requirement"] for line in lines) == sorted(wanted)
    assert all(("claims" in line) != ("counterClaims" in line) and line.get("claims", line.get("counterClaims")) == [f"claim:{line['requirement'][-3:]}"] for line in lines)
    status = {r["number"]: r["status"] for r in table(root())}
    assert {line["requirement"][-3:] for line in lines if "counterClaims" in line} == {f"{int(n):03d}" for n, s in status.items() if s not in DISCLOSED}
    by = {c["bom-ref"]: c for c in found["declarations"]["claims"]}
    for r in table(root()):
        c = by[f"claim:{int(r['number']):03d}"]
        assert c["reasoning"] == r["reason"] and (r["value"] == c["predicate"] if r["status"] in DISCLOSED else r["status"] in c["predicate"])


def test_evidence_has_the_recorded_digests(text):
    found = json.loads(text)
    said = {d["name"]: d["contents"]["attachment"]["content"] for e in found["declarations"]["evidence"] for d in e.get("data", ())}
    recorded = {p: f"sha256:{s}" for r in table(root()) if r["evidence"] for p, s in zip(r["evidence"].split("; "), r["sha256"].split("; "))}
    assert said == recorded and all(re.fullmatch("sha256:[0-9a-f]{64}", s) for s in said.values())
    assert {(r["number"], p) for r in table(root()) for p in r["evidence"].split("; ") if p} == {(str(int(c["bom-ref"][-3:])), e.removeprefix("evidence:")) for c in found["declarations"]["claims"] for e in c["evidence"] if e.startswith("evidence:")}


def test_pages_are_named_with_their_digests(release, text):
    links = {r["url"]: r for r in json.loads(text)["metadata"]["component"]["externalReferences"]}
    assert {"reports/croissant.json", "reports/training_content_summary.md"} <= set(B.PAGES) <= set(links)
    assert all(links[p]["hashes"] == [{"alg": "SHA-256", "content": sha256(release/p)}] for p in B.PAGES)


def test_dated_words_expire(text):
    words = {e["bom-ref"]: e for e in json.loads(text)["declarations"]["evidence"] if e["bom-ref"].startswith("word:")}
    assert words and all(e["created"] < e["expires"] and e["author"]["name"] for e in words.values())


def test_packages_and_libraries_are_those_of_the_lists(release, text):
    parts = json.loads(text)["components"]
    data, lab = [c for c in parts if c["type"] == "data"], [r for r in B.text_rows(root()/"sources.csv") if r["tier"] == "lab"]
    assert {(c["name"], c["version"], c["hashes"][0]["content"]) for c in data} == {(r["package"], r["version"], r["sha256"]) for r in lab} and all(c["licenses"] for c in data)
    learned = {p for r in load_table("reports/tables/corpus.csv") for p in r["package"].split(" + ")}
    assert {c["bom-ref"] for c in data if f"{c['name']}@{c['version']}" in learned} == {d["ref"] for d in parts[0]["modelCard"]["modelParameters"]["datasets"]}
    names = set(re.findall(r"^([A-Za-z0-9._-]+)(?:\[.*\])?==", (root()/"requirements.lock").read_text(encoding="utf-8"), re.M)) | {"torch"}
    assert len([c for c in parts if c["type"] == "library"]) == len(names)
    lock = B.locked(root())
    assert not [(n, a) for n, (_, asks) in lock.items() for a in asks if a and a not in lock] and all(asks for _, asks in lock.values())


def test_the_same_records_give_the_same_bytes(small, release, text):
    "Also in another process, with another order of sets, in another time zone and another folder."
    assert json.dumps(B.bom(release), indent=1, ensure_ascii=False) + "\n" == text
    done = subprocess.run([sys.executable, "-c", "import sys; from croissant.fmti.bom import bom_text; from pathlib import Path; sys.stdout.buffer.write(bom_text(Path(sys.argv[1])).encode())", str(small[0])],
                          capture_output=True, env=os.environ | {"PYTHONHASHSEED": "7", "TZ": "Pacific/Kiritimati"}, cwd="/")
    assert done.returncode == 0 and done.stdout.decode() == small[1], done.stderr.decode()


def test_another_root_is_another_serial_number(copy, small):
    found = json.loads(small[1])
    save_json({"root": "0" * 64}, copy/B.ROOT)
    other = B.bom(copy)
    assert other["serialNumber"] != found["serialNumber"] and other["metadata"]["timestamp"] == found["metadata"]["timestamp"] == "2026-01-01T00:00:00Z"


@pytest.mark.parametrize("status", [s for s in STATUSES if s not in DISCLOSED])
def test_what_is_not_disclosed_is_a_counter_claim(copy, status):
    edit(copy, 36, status=status, reason="for a test")
    found = json.loads(B.bom_text(copy))
    line = next(m for a in found["declarations"]["attestations"] for m in a["map"] if m["requirement"] == "fmti-1.0:036")
    assert line["counterClaims"] == ["claim:036"] and line["conformance"]["score"] == 0 and status in line["conformance"]["rationale"]


def test_an_outsider_is_an_assessor_of_their_own(copy):
    edit(copy, 46, status="attested-by-third-party", value="another laboratory: accuracy 0.7 (https://example.org)")
    found = json.loads(B.bom_text(copy))["declarations"]
    assert [a["organization"]["name"] for a in found["assessors"] if a["thirdParty"]] == ["another laboratory"]
    assert [m["requirement"] for a in found["attestations"] if a["assessor"] == "assessor:outsiders" for m in a["map"]] == ["fmti-1.0:046"]


@pytest.mark.parametrize("change, word", [(lambda b: rewrite(b, table(b)[1:]), "indicators 1 to 100"), (lambda b: edit(b, 3, status="splendid"), "splendid"), (lambda b: edit(b, 36, sha256="ab"), "digests"),
                                          (lambda b: edit(b, 38, sha256="; ".join(["0" * 64] * len(next(r for r in table(b) if r["number"] == "38")["evidence"].split("; ")))), "two digests")])
def test_a_table_that_is_not_whole_is_refused(copy, change, word):
    change(copy)
    with pytest.raises(BadInput, match=word): B.bom(copy)


@pytest.mark.parametrize("path", B.reads())
def test_a_record_that_is_missing_is_named(copy, path):
    shutil.rmtree(copy/path) if (copy/path).is_dir() else (copy/path).unlink()
    with pytest.raises(BadInput, match=re.escape(path)): B.bom(copy)


def test_a_package_that_is_not_pinned_is_refused(copy):
    (copy/"sources.csv").write_text("\n".join(line for line in (copy/"sources.csv").read_text(encoding="utf-8").splitlines() if ",sel," not in line) + "\n", encoding="utf-8")
    with pytest.raises(BadInput, match="sel@1.0"): B.bom(copy)


@pytest.mark.parametrize("cut, word", [("version: 0.0.1\n", "version"), ("license: Apache-2.0\n", "license")])
def test_a_citation_without_a_line_is_refused(copy, cut, word):
    said = (copy/"CITATION.cff").read_text()
    assert cut in said
    (copy/"CITATION.cff").write_text(said.replace(cut, ""))
    with pytest.raises(BadInput, match=f"no line {word}"): B.cited(copy)


def test_scores_of_other_weights_are_not_shown(copy, small):
    cards = [c["modelCard"] for c in json.loads(small[1])["components"][:3]]
    assert all(c["quantitativeAnalysis"]["performanceMetrics"][0]["confidenceInterval"] == {"lowerBound": "0.6", "upperBound": "0.9"} for c in cards)
    (copy/B.CHECKPOINTS/"translate/model.safetensors").write_bytes(b"other")
    last = B.bom(copy)["components"][2]["modelCard"]
    assert not last["quantitativeAnalysis"]["performanceMetrics"] and "other weights" in last["properties"][0]["value"]


def test_energy_is_estimated_for_the_model_that_was_trained_here(text):
    flagship, chat = (c["modelCard"]["considerations"] for c in json.loads(text)["components"][:2])
    used = flagship["environmentalConsiderations"]["energyConsumptions"][0]
    assert used["energyProviders"] == [] and used["activityEnergyCost"]["value"] > 0 and {"name": "croissant:status", "value": "estimated"} in used["properties"] and "environmentalConsiderations" not in chat


# ---- forms

def test_the_framework_has_its_components():
    assert len(F.COMPONENTS) == len({c.name for c in F.COMPONENTS}) == 17
    assert [sum(c.required and c.level == k for c in F.COMPONENTS) for k in (3, 2, 1)] == [6, 4, 4]


@pytest.mark.parametrize("bad, want", [(set(), 1), ({"Research paper"}, 2), ({"Evaluation data"}, 3), ({"Datasets", "Training code"}, 3), ({"Model card"}, 0), ({"Sample model outputs"}, 1), ({c.name for c in F.COMPONENTS}, 0)])
@pytest.mark.parametrize("state", ["missing", "not open"])
def test_a_class_is_reached_only_with_all_below_it(bad, want, state):
    levels = F.classes([{"component": c, "state": state if c.name in bad else "included"} for c in F.COMPONENTS])
    assert F.reached(levels) == want
    for v in levels.values(): assert v["included"] + len(v["lacking"]) == v["required"] and v["completeness"] == pytest.approx(v["included"] / v["required"], abs=1e-4)


def test_the_class_of_this_repository_follows_from_its_licences():
    found = {r["component"].name: r for r in F.openness(root())}
    texts = {r["licence"] for r in B.text_rows(root()/"reports/tables/corpus.csv")}
    assert any("not stated" in t for t in texts) and found["Datasets"]["state"] == "not open"   # so it is not open science
    assert found["Research paper"]["state"] == "missing" and found["Model architecture"]["state"] == "included"
    assert 0 < F.open_share(root()) < 1 and F.reached(F.classes(list(found.values()))) < 4


def test_a_component_that_goes_away_is_missing(copy):
    state = lambda: {r["component"].name: r["state"] for r in F.openness(copy)}["Data card"]
    assert state() == "included"
    (copy/"reports/data_card.md").unlink()
    assert state() == "missing"
    rows = [{"stage": "data_card", "notebook": "n", "reads": "", "outputs": "reports/data_card.md"}]
    save_table(rows, copy/"reports/stages.csv")
    assert state() == "included"   # a stage makes it


@pytest.mark.parametrize("path", ["reports/tables/corpus.csv", "sources.csv"])
def test_a_licence_that_is_not_stated_is_never_open(path):
    said = {r["licence"] for r in B.text_rows(root()/path)}
    assert any(F.is_open(s) for s in said) and not [s for s in said if F.is_open(s) and "not stated" in s]


def test_the_framework_refuses_what_its_terms_do_not_know(small, monkeypatch):
    assert F.mof(small[0])["release"]["license"]["distribution"] == {"name": "Apache-2.0", "path": "LICENSE"}
    monkeypatch.setattr(F, "cited", lambda base: B.cited(base) | {"date": "yesterday"})
    with pytest.raises(BadInput, match="release/date"): F.mof(small[0])


def test_the_index_answers_with_evidence_of_this_repository():
    found, c = F.european_index(), B.cited(root())
    assert list(found) == ["system", "org", *F.DIMENSIONS] and found["system"]["releasedate"] == c["date"][:7]
    for name in F.DIMENSIONS:
        if found[name]["link"]: assert F.present(root(), found[name]["link"].removeprefix(f"{c['repository']}/blob/main/")), name
    assert found["licenses"]["class"] == "partial" and found["preprint"]["class"] == "closed" and yaml.safe_load(F.index_text()) == found


def test_a_grade_falls_with_its_indicator(copy):
    before = F.european_index(copy)
    edit(copy, 19, status="contradicted")
    edit(copy, 39, status="not-met")
    after = F.european_index(copy)
    assert (before["datasources_basemodel"]["class"], after["datasources_basemodel"]["class"]) == ("open", "partial") and (before["weights_basemodel"]["class"], after["weights_basemodel"]["class"]) == ("open", "partial")


def test_the_form_quotes_the_table_and_gives_reasons(release):
    page = F.eu_text(release)
    answers = dict(re.findall(r"^\| ([^|]+) \| ([^|]+) \|$", page, re.M))
    answers.pop("item"), answers.pop("---")
    assert set(answers) == {i for items in F.ITEMS.values() for i in items}
    rows = {r["number"]: r for r in table(release)}
    assert rows["36"]["status"] in DISCLOSED and " ".join(rows["37"]["value"].split()) in answers["Architecture"] and f"(indicator 24, {rows['24']['status']})" in answers["Energy used for training"]
    assert all(len(v) > len("not applicable: ") for v in answers.values() if v.startswith("not applicable")) and any(v.startswith("not applicable: ") for v in answers.values())
    assert page.index("Nothing obliges anyone") < page.index("## General information")


def test_the_form_stops_where_its_sentence_would_be_false(copy):
    save_json({"metrics": {"flops": {"value": 2e23}}}, copy/"reports/metrics/training.json")
    with pytest.raises(BadInput, match="written anew"): F.eu_text(copy)


# ---- all of them

def test_exports_are_written_twice_with_the_same_bytes(small, tmp_path):
    sizes = [F.write_exports(tmp_path/name, small[0]) for name in ("one", "two")]
    assert sizes[0] == sizes[1] and set(sizes[0]) == {name for name, _ in F.EXPORTS.values()}
    for to, (name, _) in F.EXPORTS.items():
        one, two = ((tmp_path/d/name).read_bytes() for d in ("one", "two"))
        assert one == two == F.export_text(to, small[0]).encode() and sizes[0][name] == len(one)


@pytest.mark.parametrize("to", F.EXPORTS)
def test_tracked_exports_are_those_of_the_records(to):
    path = EXPORTS/F.EXPORTS[to][0]
    if not path.is_file(): pytest.skip("un-skip with reports/exports: `dvc repro fmti_exports`")
    if not all((root()/B.CHECKPOINTS/m.name/"manifest.json").is_file() for m in B.MODELS): pytest.skip("un-skip with the models: `dvc pull`")
    assert path.read_text(encoding="utf-8") == F.export_text(to), "run `dvc repro fmti_exports`"


def test_the_command_prints_or_writes(capsys, tmp_path):
    assert cli.main(["fmti", "export", "--to", "index"]) == 0
    printed = capsys.readouterr().out
    assert cli.main(["fmti", "export", "--to", "index", "--out", str(tmp_path/"e.yaml")]) == 0
    assert (tmp_path/"e.yaml").read_text(encoding="utf-8") == printed == F.index_text() and "bytes" in capsys.readouterr().out
    for words in (["--to", "moon"], []):
        assert cli.main(["fmti", "export", *words]) == 2
        assert "cyclonedx, mof, index, eu" in capsys.readouterr().err
