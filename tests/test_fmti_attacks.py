"""A campaign against the transparency table: each attack is caught by the layer that is named for it, and what nothing catches is written down."""
import csv
import json
import shutil
from datetime import date

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from croissant.fmti import attest
from croissant.fmti.attest import ROOT, SEAL, TABLE, check_layers, fmti_root, load_key, publish, seal
from croissant.fmti.checks import CORPUS, MODEL, SHARDS, STAGES
from croissant.fmti.outsiders import MAINTAINERS, sign
from croissant.fmti.records import CLAIMS
from croissant.fmti.release import listed
from croissant.fmti.vandal import append, spoil
from croissant.fmti.verdict import evaluate_fmti, evaluate_supplement
from croissant.fmti.world import toy_evidence
from croissant.model_card import CARD, model_card
from croissant.params import BadInput
from croissant.provenance import load_json, save_json, sha256

OURS, ANOTHER = Ed25519PrivateKey.generate(), Ed25519PrivateKey.generate()
LONE = [1, 20, 36, 38, 42, 46, 57, 67, 71, 87, 90, 91]   # recomputed in each attack
MORE = {"flip a bit of the weights": [41], "a policy turned round": [83], "a journal of prompts": [83]}   # and in these, which need the model opened or watched


def public(key): return key.public_key().public_bytes_raw().hex()


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    "A small world, judged, published and signed; and its root, written down elsewhere."
    world = toy_evidence(tmp_path_factory.mktemp("published"))
    save_json({"keys": [{"public_key": public(OURS)}]}, world/MAINTAINERS)
    publish(world, evaluate_fmti(world))
    seal(world, OURS)
    return world, fmti_root(world)


@pytest.fixture
def copy(published, tmp_path):
    shutil.copytree(published[0], tmp_path/"copy")
    return tmp_path/"copy"


def layers(base, anchor, numbers=None, level="full", **more):
    return sorted({r["layer"] for r in check_layers(base, level, anchor, numbers or LONE, **more) if r["state"] == "failed"})


# ---- what an attacker can do with the table, the root and a key

def table(base):
    with (base/TABLE).open(encoding="utf-8", newline="") as f: return list(csv.DictReader(f))


def rewrite(base, rows):
    with (base/TABLE).open("w", encoding="utf-8", newline="") as f:
        w = csv.DictWriter(f, list(rows[0]), lineterminator="\n"); w.writeheader(); w.writerows(rows)


def edit(number, **cells): return lambda base: rewrite(base, [r | cells if r["number"] == str(number) else r for r in table(base)])


def put(place, change): return lambda base: spoil(base, place, change)


def repin(base):
    "Write the digests of the evidence into the table again."
    rewrite(base, [r | {"sha256": "; ".join(sha256(base/p) for p in r["evidence"].split("; "))} if r["evidence"] else r for r in table(base)])


def reroot(base): save_json({"root": fmti_root(base)}, base/ROOT)


def resign(key, known=False):
    def act(base):
        if known: save_json({"keys": [{"public_key": public(key)}]}, base/MAINTAINERS)
        made = {"root": fmti_root(base)}
        save_json(made | sign(made, key), base/SEAL)
    return act


def then(*acts):
    def act(base):
        for a in acts: a(base)
    return act


def lose(number): return lambda base: rewrite(base, [r for r in table(base) if r["number"] != str(number)])
def record(number, name, *change): return put(f"{CLAIMS}/{number:03d}-{name}.yaml", change)


def outsider(key, **change):
    def act(base):
        said = {"indicator": 46, "subject": sha256(base/MODEL/"model.safetensors"), "by": "somebody", "result": "splendid", "published": "https://example.org"} | change
        save_json({"statement": said, **sign(said, key)}, base/"fmti/outsiders/046-somebody.json")
    return act


LIE = put("reports/metrics/training.json#/metrics/parameters_total/value", 10**9)
ATTACKS = {
    "flip a bit of the weights": (put(f"{MODEL}/model.safetensors", "flip"), "L1 L2 L4"),
    "flip a bit and forge the manifest": (put(f"forged:{MODEL}/model.safetensors", "flip"), "L1 L4"),
    "the same, and pin it again": (then(put(f"forged:{MODEL}/model.safetensors", "flip"), repin), "L4 L5"),
    "the same, and publish another root": (then(put(f"forged:{MODEL}/model.safetensors", "flip"), repin, reroot), "L5"),
    "the same, and sign with a key of one's own": (then(put(f"forged:{MODEL}/model.safetensors", "flip"), repin, reroot, resign(ANOTHER)), "L5"),
    "add a word to the corpus": (put(f"{CORPUS}/train/fr.jsonl", ("Le ", "Le bon ")), "L1"),
    "flip a bit of a shard": (put(f"{SHARDS}/train/fr.bin", "flip"), "L1 L2"),
    "one token more in a sidecar": (put(f"{SHARDS}/train/fr.json#/tokens", 10**6), "L1 L2"),
    "another metric": (LIE, "L1 L2"),
    "another metric, pinned again": (then(LIE, repin), "L2 L4"),
    "another metric, pinned, rooted, signed by a maintainer": (then(LIE, repin, reroot, resign(OURS)), "L2"),
    "a false sentence": (edit(36, value="as many parameters as stars"), "L3 L4"),
    "a false sentence, rooted and signed by a maintainer": (then(edit(36, value="as many parameters as stars"), reroot, resign(OURS)), "L3"),
    "an indicator left out": (lose(36), "L0 L4"),
    "an indicator twice": (lambda base: rewrite(base, [*table(base), table(base)[35]]), "L0 L4"),
    "an indicator of one's own": (lambda base: rewrite(base, [*table(base), table(base)[35] | {"number": "101"}]), "L0 L4"),
    "two rows exchanged": (lambda base: rewrite(base, [*table(base)[:40], *reversed(table(base)[40:42]), *table(base)[42:]]), "L0 L4"),
    "a not-met row turned into a met one": (edit(46, status="attested-by-third-party"), "L2 L4"),
    "the same, rooted and signed by a maintainer": (then(edit(46, status="attested-by-third-party"), reroot, resign(OURS)), "L2"),
    "a word turned into a proof": (edit(91, status="recomputed"), "L2 L4"),
    "a record taken away": (lambda base: (base/CLAIMS/"036-model-size.yaml").unlink(), "L0 L4"),
    "a record twice": (lambda base: shutil.copy(base/CLAIMS/"036-model-size.yaml", base/CLAIMS/"036-twice.yaml"), "L0 L4"),
    "a number typed into a record": (record(36, "model-size", "{n:,} parameters", "9 parameters"), "L0 L4"),
    "a proof without a check": (record(36, "model-size", "check: model_size\n", ""), "L0 L4"),
    "a record that says otherwise": (record(36, "model-size", "formula and report agree", "formula, report and the moon agree"), "L3 L4"),
    "a word made to last": (record(91, "government-inquiries", "2027", "2099"), "L4"),
    "a promise lowered": (record(20, "compute-usage", "expected: recomputed", "expected: not-met"), "L4"),
    "the counter-check taken away": (record(57, "mitigations-description", "counter_check: mitigation\n", ""), "L4"),
    "evidence taken from a record": (record(71, "model-license", "  - {path: LICENSE, stage: \"hand\"}\n", ""), "L4"),
    "the licence exchanged": (put("LICENSE", ("Apache License", "Licence maison")), "L1 L2"),
    "a policy turned round": (put("POLICY.md", ("Nothing is collected", "Prompts are collected")), "L1 L2"),
    "a journal of prompts": (put("croissant/generate.py", append("_inner = generate\ndef generate(*a, **k):\n    open('prompts.txt', 'a').write(a[2])\n    return _inner(*a, **k)")), "L1 L2"),
    "a stage that mitigates in secret": (put(STAGES, ("pretrain", "train_refusals")), "L1 L2"),
    "an interval made wider": (put("reports/metrics/minimal_pairs.json#/metrics/accord_genre/interval", [.2, .95]), "L1 L2"),
    "the model card edited by hand": (put(CARD, ("parameters", "billion parameters")), "L1 L2"),
    "a date moved": (put("CITATION.cff", ("2026-11-23", "2020-11-23")), "L1 L2"),
    "feedback made up": (put("fmti/feedback.csv#received", 999), "L1 L3"),
    "a root made up": (put(f"{ROOT}#/root", "0" * 64), "L4"),
    "the root taken away": (lambda base: (base/ROOT).unlink(), "L4"),
    "a signature with another bit": (lambda base: save_json(load_json(base/SEAL) | {"signature": "00" * 64}, base/SEAL), "L5"),
    "a signature that is no record": (lambda base: (base/SEAL).write_text("[]"), "L5"),
    "a maintainer struck off": (lambda base: save_json({"keys": []}, base/MAINTAINERS), "L5"),
    "a maintainer who plays the outsider": (outsider(OURS), "L2"),
    "an outsider who saw other weights": (outsider(ANOTHER, subject="0" * 64), "L2"),
}


@pytest.mark.parametrize("name", ATTACKS)
def test_an_attack_is_caught_by_its_layers(copy, published, name):
    act, want = ATTACKS[name]
    act(copy)
    found = layers(copy, "", [*LONE, *MORE.get(name, [])])
    assert set(want.split()) <= set(found), found


def test_the_campaign_is_long_enough(): assert len(ATTACKS) >= 30 and {l for _, want in ATTACKS.values() for l in want.split()} == {"L0", "L1", "L2", "L3", "L4", "L5"}


def test_an_honest_copy_passes_every_layer(copy, published):
    rows = check_layers(copy, "full", published[1])
    assert not [r for r in rows if r["state"] == "failed"] and {r["layer"] for r in rows} == {"L0", "L1", "L2", "L3", "L4", "L5", "L6"}


def test_time_is_an_attacker_too(copy): assert "L2" in layers(copy, "", today=date(2031, 1, 1))


# ---- what nothing inside the repository catches

def owner(key):
    def act(base):
        spoil(base, f"forged:{MODEL}/model.safetensors", "flip")
        items = base/"reports/metrics/minimal_pairs.json"
        save_json(load_json(items) | {"inputs": {f"{MODEL}/model.safetensors": sha256(base/MODEL/"model.safetensors")}}, items)
        (base/CARD).write_text(model_card(base), encoding="utf-8")
        log = (base/"CHANGELOG.md").read_text(encoding="utf-8").partition("- `artifacts/")[0]
        (base/"CHANGELOG.md").write_text(log + "\n".join(listed(base)) + "\n", encoding="utf-8")
        save_json({"keys": [{"public_key": public(key)}]}, base/MAINTAINERS)
        publish(base, evaluate_fmti(base, level="fast"))
        seal(base, key)
    return act


UNCATCHABLE = {"the owner exchanges the weights and makes everything anew": owner(OURS), "the same with a new key among the maintainers": owner(ANOTHER),
               "the owner says a false word, dated and signed": then(put("POLICY.md", ("No government inquiry about the models has been received", "No inquiry of any government has ever been received")),
                                                                     lambda base: publish(base, evaluate_fmti(base, level="fast")), lambda base: seal(base, OURS))}


@pytest.mark.parametrize("name", UNCATCHABLE)
def test_only_a_root_kept_elsewhere_tells(copy, published, name):
    UNCATCHABLE[name](copy)
    assert layers(copy, published[1], level="fast") == ["L6"]


def test_a_signature_taken_away_is_shown_and_not_a_failure(copy, published):
    (copy/SEAL).unlink()
    rows = check_layers(copy, "fast", published[1], LONE)
    assert [r["state"] for r in rows if r["layer"] == "L5"] == ["skipped"] and not [r for r in rows if r["state"] == "failed"]


def test_an_owner_who_plays_the_outsider_with_a_second_key_is_believed(copy):
    outsider(ANOTHER)(copy)
    assert evaluate_fmti(copy, [46])[0]["status"] == "attested-by-third-party"   # the statement names where it is published: look there


# ---- keys, statements, the supplement

def test_keys_that_are_refused(copy, tmp_path):
    from cryptography.hazmat.primitives import serialization as s
    from cryptography.hazmat.primitives.asymmetric import rsa
    pem = lambda key: key.private_bytes(s.Encoding.PEM, s.PrivateFormat.PKCS8, s.NoEncryption())
    (tmp_path/"ours.pem").write_bytes(pem(OURS)); (tmp_path/"rsa.pem").write_bytes(pem(rsa.generate_private_key(65537, 2048))); (tmp_path/"pain.pem").write_text("pain")
    assert public(load_key(tmp_path/"ours.pem", copy)) == public(OURS)
    (copy/"key.pem").write_bytes(pem(OURS))
    for path, word in ((copy/"key.pem", "inside the repository"), (tmp_path/"none.pem", "no such key"), (tmp_path/"rsa.pem", "another kind"), (tmp_path/"pain.pem", "not a private key")):
        with pytest.raises(BadInput, match=word): load_key(path, copy)
    with pytest.raises(BadInput, match="does not list"): seal(copy, ANOTHER)


def test_the_root_does_not_depend_on_the_order_of_keys(copy, published):
    said = load_json(copy/ROOT)
    assert fmti_root(copy) == published[1] == said["root"]
    found = attest.statement(copy, table(copy))
    assert attest.canonical(found) == attest.canonical(json.loads(json.dumps(found, sort_keys=True)))


def test_without_a_table_there_is_nothing_to_attest(copy):
    (copy/TABLE).unlink()
    with pytest.raises(BadInput, match="score_fmti"): check_layers(copy)


def test_the_supplement_keeps_its_promises(copy):
    rows = evaluate_supplement(copy)
    assert len(rows) == 9 and not [r for r in rows if r["status"] != r["expected"]]
    spoil(copy, "reports/tables/corpus_benchmarks.csv#contaminated_after", 10**6)
    assert [r["status"] for r in evaluate_supplement(copy) if r["number"] == 46] == ["contradicted"]
