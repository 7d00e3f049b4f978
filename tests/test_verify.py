"""`croissant verify` must fail where something was changed, and say what."""
import csv
import json
import shutil

import pytest

from croissant import verify as V
from croissant.checkpoint import save_model
from croissant.corpus import write_corpus
from croissant.model import toy_model
from croissant.packing import Shards, toy_shards
from croissant.params import BadInput, root
from croissant.provenance import _imports, load_json, measured, modules_reached, save_json, save_metrics, sha256
from croissant.stage import run_stage
from croissant.tokenizer import toy_tokenizer
from croissant.toy import toy_documents

STAGE = "nbs/stages/50_evaluate.ipynb"


# ---- records: code and inputs

@pytest.fixture
def record(tmp_path):
    "A record that was made just now, and a function that checks it after a change."
    path = save_metrics("essai", {"bpb_fr": measured(1.2, "bits per byte")}, STAGE, inputs=["params.smoke.yaml", "reports/paper"], out=tmp_path)
    honest = load_json(path)
    def check(**change):
        save_json(honest | change, path)
        return V.check_records([tmp_path])[0]
    return honest, check


def test_a_fresh_record_passes(record):
    honest, check = record
    assert check()["state"] == "passed" and STAGE in honest["code"] and "croissant/packing.py" in honest["code"]


@pytest.mark.parametrize("module", [STAGE, "croissant/model.py", "croissant/frenchbench/floors.py"])
def test_a_forged_code_digest_is_named(record, module):
    honest, check = record
    row = check(code=honest["code"] | {module: "0123456789abcdef"})
    assert row["state"] == "failed" and module in row["reason"] and row["reason"].count("croissant/") == module.count("croissant/")


@pytest.mark.parametrize("module", ["croissant/model.py", STAGE])
def test_code_left_out_or_added_is_named(record, module):
    honest, check = record
    assert module in check(code={k: v for k, v in honest["code"].items() if k != module})["reason"]
    assert "croissant/report.py" in check(code=honest["code"] | {"croissant/report.py": sha256(root()/"croissant/report.py")[:16]})["reason"]   # not reached
    assert "croissant/gone.py" in check(code=honest["code"] | {"croissant/gone.py": "0" * 16})["reason"]
    for change in ({"code": {}}, {"stage": ""}, {"stage": "nbs/stages/51_gone.ipynb"}): assert check(**change)["state"] == "failed"


def test_forged_and_absent_inputs(record):
    honest, check = record
    for path in honest["inputs"]:
        row = check(inputs=honest["inputs"] | {path: "0" * 64})
        assert row["state"] == "failed" and path in row["reason"]
    assert check(inputs={"reports/gone.csv": "0" * 64})["state"] == "failed"                      # git holds it: it must be here
    row = check(inputs=honest["inputs"] | {"artifacts/gone": "0" * 64})                           # rebuilt or restored: undecided
    assert row["state"] == "skipped" and "artifacts/gone" in row["reason"]
    row = check(inputs={"artifacts/gone": "0" * 64}, code=honest["code"] | {"croissant/toy.py": "0" * 16})
    assert row["state"] == "failed" and "croissant/toy.py" in row["reason"]                       # what is here still counts


def test_figures_are_records_too(tmp_path):
    stage = "nbs/figures/fig_loss.ipynb"
    card = {"name": "fig", "caption": "Une figure.", "stage": stage, "inputs": {"sources.csv": sha256(root()/"sources.csv")},
            "code": {p: sha256(root()/p)[:16] for p in [stage, *modules_reached(stage)]}}
    save_json(card, tmp_path/"fig.json")
    assert [(r["check"], r["state"]) for r in V.check_records([tmp_path])] == [("figure", "passed")]
    save_json(card | {"inputs": {"sources.csv": "0" * 64}}, tmp_path/"fig.json")
    assert "sources.csv" in V.check_records([tmp_path])[0]["reason"]
    for lost in ("stage", "code"):
        save_json({k: v for k, v in card.items() if k != lost}, tmp_path/"fig.json")
        assert V.check_records([tmp_path])[0]["state"] == "failed"


def test_every_tracked_record_has_its_row():
    rows = {r["evidence"] for r in V.check_records()}
    assert rows == {p.relative_to(root()).as_posix() for d in ("metrics", "figures", "full/metrics") for p in (root()/"reports"/d).glob("*.json")}


# ---- scores: a small repository in which a toy model was evaluated

@pytest.fixture(scope="module")
def evaluated(tmp_path_factory):
    base = tmp_path_factory.mktemp("dépôt")
    (base/"settings.ini").touch(); (base/"nbs").mkdir()
    model, corpus = base/"artifacts/checkpoints/flagship", base/"artifacts/corpus"
    run = {"train.max_steps": 20, "train.batch_size": 8, "train.seq_len": 64, "train.mixture": "paper", "train.seed": 911, "train_shards": Shards(toy_shards(), "train").fingerprint}
    save_model(toy_model(toy_tokenizer().vocab_size, seed=3), toy_tokenizer(), model, step=20, tokens_seen=20*8*64, run=run)
    write_corpus(toy_documents(300), corpus, validation_percent=10., test_percent=40.)
    run_stage(STAGE, base/"stage.ipynb", {"checkpoint": str(model), "corpus": str(corpus), "out_reports": str(base/"reports"), "pairs": 20, "documents": 6}, log=False)
    return base


@pytest.fixture
def repository(evaluated, tmp_path, monkeypatch):
    "A copy to be falsified."
    shutil.copytree(evaluated, tmp_path/"copie")
    monkeypatch.setenv("CROISSANT_ROOT", str(tmp_path/"copie"))
    return tmp_path/"copie"


def change(path, where, column, value):
    "Rewrite one cell of a table: in the first row for which `where` holds."
    with path.open(encoding="utf-8", newline="") as f: rows = list(csv.DictReader(f))
    row = next(r for r in rows if where(r))
    row[column] = value(row[column])
    with path.open("w", encoding="utf-8", newline="") as f:
        w = csv.DictWriter(f, list(rows[0]), lineterminator="\n"); w.writeheader(); w.writerows(rows)


def failed(rows):
    assert rows
    return [r["evidence"] for r in rows if r["state"] == "failed"]


def test_an_honest_evaluation_passes(repository):
    rows = V.check_scores()
    assert [r["state"] for r in rows] == ["passed"] * 5 and [r["evidence"].rpartition(" ")[2] for r in rows[:4]] == ["number", "gender", "person", "number_en"]
    assert not failed(V.check_sums()) and len(V.check_sums()) == len({*json.loads((repository/"reports/metrics/bits_per_byte.json").read_text())["metrics"]} - {"trigram_tokens", "random_networks"})


@pytest.mark.parametrize("name", ["number", "gender", "person", "number_en"])
def test_a_forged_pair_of_any_set_is_noticed(repository, name):
    rows = list(csv.DictReader((repository/V._ITEMS).open(encoding="utf-8", newline="")))
    last = [r["id"] for r in rows if r["set"] == name][-1]                      # not only the head of the table
    change(repository/V._ITEMS, lambda r: r["id"] == last, "log_prob_good", lambda x: str(float(x) + 1))
    assert failed(V.check_scores()) == [f"{V._ITEMS}: {name}"]


def test_a_forged_accuracy_is_noticed(repository):
    path = repository/"reports/metrics/minimal_pairs.json"
    record = json.loads(path.read_text())
    record["metrics"]["gender"]["value"] = 1.0
    path.write_text(json.dumps(record))
    assert failed(V.check_scores(tolerance=1e-3)) == [f"{V._ITEMS}: gender"]
    del record["metrics"]["gender"]
    path.write_text(json.dumps(record))
    assert failed(V.check_scores()) == [f"{V._ITEMS}: gender"]


def test_forged_documents_are_noticed(repository):
    table = repository/V._DOCUMENTS
    change(table, lambda r: r["domain"] == "fr", "model", lambda x: str(.9 * float(x)))
    assert failed(V.check_sums()) == [f"{V._DOCUMENTS}: fr", f"{V._DOCUMENTS}: fr_below_trigram"]
    assert failed(V.check_scores(documents=6)) == [V._DOCUMENTS]
    change(table, lambda r: r["domain"] == "fr", "model", lambda x: str(float(x) / .9))
    assert not failed(V.check_sums())
    change(table, lambda r: r["domain"] == "en", "trigram", lambda x: str(.9 * float(x)))
    assert failed(V.check_sums()) == [f"{V._DOCUMENTS}: en", f"{V._DOCUMENTS}: en_below_trigram"]
    change(table, lambda r: r["domain"] == "code", "id", lambda x: "0" * 63 + "g")
    assert failed(V.check_scores(documents=6)) == [V._DOCUMENTS]
    text = table.read_text(encoding="utf-8").splitlines(True)
    table.write_text("".join(line for line in text if not line.startswith("parallel,")), encoding="utf-8")
    assert f"{V._DOCUMENTS}: parallel" in failed(V.check_sums())


def test_other_weights_are_noticed(repository):
    save_model(toy_model(toy_tokenizer().vocab_size, seed=4), toy_tokenizer(), repository/"artifacts/checkpoints/flagship")
    assert failed(V.check_scores()) == [f"{V._ITEMS}: {n}" for n in ("number", "gender", "person", "number_en")] + [V._DOCUMENTS]


def test_what_is_not_here_is_skipped_not_passed(repository):
    shutil.rmtree(repository/"artifacts/corpus")
    assert [r["state"] for r in V.check_scores()] == ["passed"] * 4 + ["skipped"]
    shutil.rmtree(repository/"artifacts/checkpoints")
    assert [r["state"] for r in V.check_scores()] == ["skipped"]
    (repository/V._DOCUMENTS).unlink()
    assert [r["state"] for r in V.check_sums()] == ["skipped"]


def test_levels():
    with pytest.raises(BadInput, match="fast or full"): V.verify("deep")


# ---- our own pages

def test_our_own_numbers_are_one_line_that_can_fail(monkeypatch):
    from croissant import own_numbers
    row, = V.CHECKS["pages"](V.Digests(), "fast")
    assert row["check"] == "own numbers" and row["evidence"] == own_numbers.TABLE and "numbers of" in row["reason"]
    assert row["state"] == ("passed" if (root()/"artifacts/checkpoints/flagship/manifest.json").is_file() else "skipped")   # the model card needs the released model
    honest = own_numbers.comparable
    dropped = f"{load_json('reports/metrics/corpus.json')['metrics']['dropped.documents']['value']:,}"
    monkeypatch.setattr(own_numbers, "comparable", lambda name, text: honest(name, text.replace(dropped, "1" + dropped, 1) if name == "reports/results.md" else text))
    row, = V.check_pages()
    assert row["state"] == "failed" and "reports/results.md line" in row["reason"] and f"corpus.json#dropped.documents renders {dropped}" in row["reason"]


@pytest.mark.parametrize("source", ["from .model import Llama\nimport croissant.optim", "from croissant.model import (Llama,\n    ModelConfig)", "x = 1; from croissant.model import Llama", '"""import croissant.model today"""',
                                    "try: import croissant.model\nexcept ImportError: pass", '"""Doc.\nimport croissant.optim\n"""\nfrom croissant.model import Llama', "def f():\n    from .frenchbench import suites   # late\n    return suites", "from croissant.model import \\\n    Llama"])
def test_the_short_cut_to_imports_changes_nothing(source):
    assert V._imported(source) == _imports(source)


def test_the_short_cut_finds_what_every_module_imports():
    for path in sorted((root()/"croissant").rglob("*.py")):
        source = path.read_text(encoding="utf-8")
        assert V._imported(source) == _imports(source), path.name
