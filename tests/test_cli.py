"""The command line: exit status, one-line errors, JSON where a program would read it."""
import json
import subprocess
import sys

import pytest

from croissant import cli
from croissant.checkpoint import save_model
from croissant.model import toy_model
from croissant.tokenizer import toy_tokenizer


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    tokenizer = toy_tokenizer()
    path = tmp_path_factory.mktemp("model")/"toy"
    save_model(toy_model(tokenizer.vocab_size), tokenizer, path)
    return str(path)


def run(capsys, *argv):
    code = cli.main(list(argv))
    return code, *capsys.readouterr()


def test_help_names_every_verb():
    done = subprocess.run([sys.executable, "-m", "croissant.cli", "--help"], capture_output=True, text=True)
    assert done.returncode == 0 and all(v in done.stdout for v in cli.VERBS)


@pytest.mark.parametrize("verb", cli.VERBS)
def test_help_of_a_verb_comes_from_docments(verb, capsys):
    with pytest.raises(SystemExit) as e: cli.main([verb, "--help"])
    assert e.value.code == 0 and "None" not in capsys.readouterr().out.replace("(default: None)", "").split("options:")[0]


def test_unknown_verb_is_wrong_usage():
    with pytest.raises(SystemExit) as e: cli.main(["bake"])
    assert e.value.code == 2


def test_generate_streams_and_is_repeatable(folder, capsys):
    code, first, _ = run(capsys, "generate", "Le chat", "--model", folder, "--max-tokens", "8", "--seed", "3")
    assert code == 0 and first.startswith("Le chat")
    assert run(capsys, "generate", "Le chat", "--model", folder, "--max-tokens", "8", "--seed", "3")[1] == first


def test_tokenize_as_json(folder, capsys):
    code, out, _ = run(capsys, "tokenize", "l'été 🥐", "--tokenizer", folder, "--json")
    assert code == 0 and toy_tokenizer().decode(json.loads(out)["ids"]) == "l'été 🥐"
    assert run(capsys, "tokenize", "été", "--tokenizer", folder)[0] == 0


def test_score_a_file_of_pairs(folder, tmp_path, capsys):
    (tmp_path/"pairs.tsv").write_text("good\tbad\nLe chat est grand.\tLe chat est grande.\n", encoding="utf-8")
    code, out, _ = run(capsys, "score", str(tmp_path/"pairs.tsv"), "--model", folder, "--json")
    assert code == 0 and len(json.loads(out)) == 1
    (tmp_path/"bad.tsv").write_bytes(b"good\tbad\n\xff\xfe\tx\n")
    code, _, err = run(capsys, "score", str(tmp_path/"bad.tsv"), "--model", folder)
    assert code == 2 and "bad.tsv" in err and err.count("\n") == 1


def test_eval_reports_intervals(folder, capsys):
    code, out, _ = run(capsys, "eval", "--model", folder, "--pairs", "20", "--json")
    assert code == 0
    assert all(r["interval"][0] <= r["accuracy"] <= r["interval"][1] and r["n"] > 0 for r in json.loads(out).values())
    assert run(capsys, "eval", "--model", folder, "--suite", "moon")[0] == 2


def test_plan_of_the_paper_model(capsys):
    code, out, _ = run(capsys, "plan", "--preset", "base", "--json")
    assert code == 0 and "1214" in out.replace(",", "")
    assert run(capsys, "plan", "--preset", "colossal")[0] == 2


def test_fmti_and_verify(capsys):
    assert run(capsys, "fmti", "explain", "1")[0] == 0
    code, out, _ = run(capsys, "fmti", "show")
    assert code == 0 and out.count("\n") == 101
    code, out, _ = run(capsys, "verify", "--json")
    found = json.loads(out)
    assert code == (1 if found["failed"] else 0) and not [r for r in found["rows"] if r["state"] == "failed" and r["check"] != "tracked bytes"]


@pytest.mark.parametrize("argv", [["generate", "Le", "--model", "artifacts/none"], ["tokenize", "x", "--tokenizer", "artifacts/none"],
                                  ["fetch", "--tier", "moon"], ["train", "nowhere.yaml", "artifacts/none"], ["train", "params.yaml", "artifacts/none", "--resume", "maybe"]])
def test_wrong_input_is_one_line_and_status_2(argv, capsys):
    code, _, err = run(capsys, *argv)
    assert code == 2 and err.startswith("error: ") and err.count("\n") == 1
