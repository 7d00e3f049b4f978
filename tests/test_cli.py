"""The command line: the spellings that others rely on, exit status, one-line errors, JSON where a program would read it."""
import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch
import yaml

from croissant import cli
from croissant.checkpoint import save_model
from croissant.frenchbench.scoring import log_probs
from croissant.frenchbench.suites import FRENCH, SETS
from croissant.model import toy_model
from croissant.packing import toy_shards
from croissant.params import BadInput, root
from croissant.tokenizer import toy_tokenizer

PAIRS = "good\tbad\nLe chat est grand.\tLe chat est grande.\n"
RUN = {"preset": "toy", "max_steps": 6, "batch_size": 2, "seq_len": 16, "warmup_steps": 1, "learning_rate": 3e-3, "eval_tokens": 400}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    tokenizer = toy_tokenizer()
    path = tmp_path_factory.mktemp("model")/"toy"
    save_model(toy_model(tokenizer.vocab_size), tokenizer, path)
    return str(path)


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    "A current directory outside the checkout's folders, from which the checkout is still found."
    monkeypatch.setenv("CROISSANT_ROOT", str(root()))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(capsys, *argv):
    code = cli.main([str(a) for a in argv])
    return code, *capsys.readouterr()


def one_line(err):
    return err.startswith("error: ") and err.count("\n") == 1


def training(tmp_path, folder, *more, text=None, **change):
    "Arguments of a small training run on the toy corpus."
    (tmp_path/"run.yaml").write_text(text or yaml.safe_dump({"train": RUN | change}))
    return ["train", "--config", tmp_path/"run.yaml", "--out", tmp_path/"run", "--shards", toy_shards(), "--tokenizer", folder, *more]


def test_help_names_every_verb():
    done = subprocess.run([sys.executable, "-m", "croissant.cli", "--help"], capture_output=True, text=True)
    assert done.returncode == 0 and all(v in done.stdout for v in cli.VERBS)


@pytest.mark.parametrize("verb", cli.VERBS)
def test_help_of_a_verb_comes_from_docments(verb, capsys):
    with pytest.raises(SystemExit) as e: cli.main([verb, "--help"])
    assert e.value.code == 0 and "(default: None)" not in (out := capsys.readouterr().out) and "(default: )" not in out


# Section 8 of the design, word for word: other programs call us so.
@pytest.mark.parametrize("words, want", [
    ("plan --preset base --json", {"preset": "base", "json_": True}), ("plan --preset base --cluster paper --simulate", {"preset": "base", "cluster": "paper", "simulate": True}),
    ("plan --cluster paper --slurm FILE", {"cluster": "paper", "slurm": "FILE", "simulate": False}),
    ("eval --suite lab --model DIR --json", {"suite": "lab", "model": "DIR", "json_": True}),
    ("eval --model DIR --tasks one two --json", {"model": "DIR", "tasks": ["one", "two"], "json_": True}),
    ("score --model DIR --file pairs.tsv --json", {"model": "DIR", "file": "pairs.tsv", "json_": True}),
    ("generate --model DIR --seed 0 --max-tokens 9 PROMPT", {"model": "DIR", "seed": 0, "max_tokens": 9, "prompt": "PROMPT"}),
    ("verify", {"level": "fast", "json_": False, "claim": ""}), ("verify --claim fmti-total", {"claim": "fmti-total"}), ("verify --level full --json", {"level": "full", "json_": True}),
    ("fmti explain 7", {"action": "explain", "number": 7}), ("fmti verify --root ab --level full", {"action": "verify", "root_": "ab", "level": "full"}),
    ("fmti export --to mof --out FILE", {"action": "export", "to": "mof", "out": "FILE"}), ("fmti export --to cyclonedx", {"action": "export", "to": "cyclonedx", "out": ""}),
    ("train --config FILE --out DIR", {"config": "FILE", "out": "DIR", "resume": "never"}),
    ("train --config FILE --out DIR --resume auto", {"config": "FILE", "out": "DIR", "resume": "auto"}),
    ("train --resume --config FILE --out DIR", {"resume": "auto", "config": "FILE"}),
])
def test_the_spellings_that_others_rely_on(words, want):
    found = vars(cli.parser().parse_args(words.split()))
    assert {k: found[k] for k in want} == want


@pytest.mark.parametrize("words", ["bake", "score", "score pairs.tsv", "train", "train --config FILE", "train FILE DIR", "generate", "generate --seed un Le", "fmti explain un", "eval --tasks"])
def test_wrong_usage_is_status_2(words, capsys):
    with pytest.raises(SystemExit) as e: cli.main(words.split())
    assert e.value.code == 2 and "error: " in capsys.readouterr().err


@pytest.mark.parametrize("dials", [["--temperature", "0"], ["--seed", "3"]])
def test_generate_streams_and_is_repeatable(folder, capsys, dials):
    code, first, err = run(capsys, "generate", "--model", folder, "--max-tokens", "8", *dials, "Le chat")
    assert code == 0 and first.startswith("Le chat") and len(first) > len("Le chat\n") and not err
    assert run(capsys, "generate", "--model", folder, "--max-tokens", "8", *dials, "Le chat")[1] == first


def test_generate_from_nothing(folder, capsys):
    code, out, _ = run(capsys, "generate", "--model", folder, "--max-tokens", "8", "")
    assert code == 0 and out.strip()


@pytest.mark.parametrize("argv, message", [(["é" * 999], "shorten the prompt"), (["Le", "--temperature", "-1"], "temperature"), (["Le", "--seed", "-1"], "seed"), (["Le", "--max-tokens", "0"], "max_new_tokens"),
                                           (["Le", "--top-p", "nan"], "top_p"), (["\udce9t\udce9"], "lone surrogate")])
def test_generate_refuses_before_it_prints(folder, capsys, argv, message):
    code, out, err = run(capsys, "generate", "--model", folder, *argv)
    assert code == 2 and not out and one_line(err) and message in err


TEXT = "l'été 🥐\r\n\x00 fin\n\n  et ▁ <|im_end|>"


def child(*argv, data=b"", **env):
    return subprocess.run([sys.executable, "-m", "croissant.cli", *map(str, argv)], input=data, capture_output=True, env={**os.environ, **env})


@pytest.mark.parametrize("action", cli.TOKENIZE.actions)
def test_help_of_an_action_of_tokenize(action, capsys):
    with pytest.raises(SystemExit) as e: cli.main(["tokenize", action, "--help"])
    out = capsys.readouterr().out
    assert e.value.code == 0 and "(default: )" not in out and "(default: None)" not in out and "(default: ())" not in out
    with pytest.raises(SystemExit): cli.main(["tokenize", "--help"])
    assert f"    {action} " in capsys.readouterr().out


@pytest.mark.parametrize("words", ["tokenize", "tokenize l'été", "tokenize train --vocab-size 600 --out x", "tokenize train a.txt --out x", "tokenize train a.txt --vocab-size beaucoup --out x", "tokenize compare"])
def test_wrong_usage_of_tokenize_is_status_2(words, capsys):
    with pytest.raises(SystemExit) as e: cli.main(words.split())
    assert e.value.code == 2 and "error: " in capsys.readouterr().err


def test_inspect_as_json(folder, capsys):
    code, out, _ = run(capsys, "tokenize", "inspect", "l'été 🥐", "--tokenizer", folder, "--json")
    found = json.loads(out)
    assert code == 0 and toy_tokenizer().decode(found["ids"]) == "l'été 🥐" and found["pieces"] == toy_tokenizer().pieces("l'été 🥐")


def test_inspect_shows_bytes_and_blanks_and_colours_only_a_terminal(folder, capsys, monkeypatch):
    show = lambda: run(capsys, "tokenize", "inspect", "où\u202f?\t🥐 a\n", "--tokenizer", folder)[1]
    plain = show()
    assert "\x1b" not in plain and all(x in plain for x in ("<202F>", "→", "<0xF0>", "␣", "↵", "|"))
    assert [int(w) for line in plain.splitlines()[1:-1:2] for w in line.split()] == toy_tokenizer().encode("où\u202f?\t🥐 a\n")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert "48;5;153m" in (coloured := show()) and "48;5;223m" in coloured and "|" not in coloured
    monkeypatch.setenv("NO_COLOR", "1")
    assert show() == plain
    assert run(capsys, "tokenize", "inspect", "", "--tokenizer", folder)[:2] == (0, "0 tokens, 0 words, 0 bytes\n")


@pytest.mark.parametrize("data, code", [("l'été\n".encode(), 0), ("l'été".encode("latin1"), 2)])
def test_inspect_standard_input(folder, data, code):
    done = child("tokenize", "inspect", "-", "--tokenizer", folder, "--json", data=data)
    assert done.returncode == code
    if code: assert one_line(done.stderr.decode()) and "standard input: not UTF-8" in done.stderr.decode()
    else: assert toy_tokenizer().decode(json.loads(done.stdout)["ids"]) == "l'été\n"


def test_encode_prints_a_line_of_ids_per_line_of_text_and_decode_takes_it_back(folder, capsys, monkeypatch):
    for argv in ([], ["--json"]):
        done = child("tokenize", "encode", "--tokenizer", folder, *argv, data=TEXT.encode())
        lines = done.stdout.decode().splitlines()
        rows = [json.loads(x) for x in lines] if argv else [[int(w) for w in x.split()] for x in lines]
        assert done.returncode == 0 and len(rows) == TEXT.count("\n") + 1
        assert [i for row in rows for i in row] == toy_tokenizer().encode(TEXT) and all(toy_tokenizer().decode(row).count("\n") == 1 for row in rows[:-1])
        assert child("tokenize", "decode", "--tokenizer", folder, data=done.stdout).stdout == TEXT.encode()
    assert child("tokenize", "encode", "--tokenizer", folder).stdout == b""
    for bad in (b"12 douze\n", b"99999\n", b"-1\n"):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(bad)))
        code, _, err = run(capsys, "tokenize", "decode", "--tokenizer", folder)
        assert code == 2 and one_line(err)


def test_encode_and_decode_files(folder, elsewhere, capsys):
    (elsewhere/"texte.txt").write_bytes(TEXT.encode())
    code, out, _ = run(capsys, "tokenize", "encode", "texte.txt", "--out", "ids.bin", "--tokenizer", folder, "--json")
    assert code == 0 and json.loads(out) == json.loads((elsewhere/"ids.json").read_text()) and json.loads(out)["bytes"] == len(TEXT.encode())
    assert np.fromfile(elsewhere/"ids.bin", "<u2").tolist() == toy_tokenizer().encode(TEXT)
    code, out, _ = run(capsys, "tokenize", "decode", "ids.bin", "--out", "retour.txt", "--tokenizer", folder)
    assert code == 0 and (elsewhere/"retour.txt").read_bytes() == TEXT.encode() and str(len(TEXT.encode())) in out
    assert child("tokenize", "decode", "ids.bin", "--tokenizer", folder).stdout == TEXT.encode()
    (elsewhere/"ids.bin").write_bytes(b"\0" * (elsewhere/"ids.bin").stat().st_size)
    assert run(capsys, "tokenize", "decode", "ids.bin", "--out", "retour.txt", "--tokenizer", folder)[0] == 2
    assert (elsewhere/"retour.txt").read_bytes() == TEXT.encode() and sorted(p.name for p in elsewhere.iterdir()) == ["ids.bin", "ids.json", "retour.txt", "texte.txt"]


def test_decode_does_not_write_over_its_ids(folder, tmp_path, capsys):
    (tmp_path/"t.txt").write_text("oui non", encoding="utf-8")
    ids = tmp_path/"t.bin"
    assert cli.main(["tokenize", "encode", str(tmp_path/"t.txt"), "--out", str(ids), "--tokenizer", str(folder)]) == 0
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    for out in (ids, ids.with_suffix(".json")): assert cli.main(["tokenize", "decode", str(ids), "--out", str(out), "--tokenizer", str(folder)]) == 2
    assert "choose another name" in capsys.readouterr().err and {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before


def hears_ctrl_c(): signal.signal(signal.SIGINT, signal.SIG_DFL)   # a shell starts what runs in the background deaf to it


def test_encode_stopped_by_ctrl_c_leaves_nothing(folder, tmp_path):
    p = subprocess.Popen([sys.executable, "-m", "croissant.cli", "tokenize", "encode", "-", "--out", str(tmp_path/"ids.bin"), "--tokenizer", folder], stdin=subprocess.PIPE, stderr=subprocess.PIPE, preexec_fn=hears_ctrl_c)
    try:
        p.stdin.write(b"oui non\n" * 400_000); p.stdin.flush()   # more than one block; then the stream stays open
        end = time.monotonic() + 60
        while not any(f.stat().st_size for f in tmp_path.glob(".ids.bin*")):
            assert time.monotonic() < end and p.poll() is None
            time.sleep(.02)
        p.send_signal(signal.SIGINT)
        _, err = p.communicate(timeout=30)
    finally:
        if p.poll() is None: p.kill()
    assert p.returncode == 130 and err == b"\nstopped\n" and not [*tmp_path.iterdir()]


def words_of(process):
    "Its command line; none if it ended between two looks."
    try: return " ".join(process.cmdline())
    except psutil.Error: return ""


def test_ctrl_c_ends_a_long_call_in_a_child_at_once():
    "Training runs so; here the child only sleeps, for longer than anybody waits."
    code = "import sys, time; from croissant import cli, report; report.write_report = lambda path: cli._in_a_child('waiting', time.sleep, 600); sys.exit(cli.main(['report', '--out', 'x.html']))"
    p = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE, start_new_session=True, preexec_fn=hears_ctrl_c)
    try:
        end, children = time.monotonic() + 60, []
        while not any("spawn_main" in words_of(c) for c in children):
            assert time.monotonic() < end and p.poll() is None
            time.sleep(.1); children = psutil.Process(p.pid).children()
        time.sleep(.5)
        os.killpg(p.pid, signal.SIGINT)   # as a terminal does: to the child too
        _, err = p.communicate(timeout=30)
    finally:
        if p.poll() is None: os.killpg(p.pid, signal.SIGKILL)
    assert p.returncode == 130 and err == b"\nstopped\n" and not [c for c in children if c.is_running() and "spawn_main" in words_of(c)]


def test_a_child_that_dies_or_complains_is_one_line(tmp_path):
    with pytest.raises(BadInput, match="without an answer"): cli._in_a_child("dying", os._exit, 9)
    with pytest.raises(BadInput, match="vocab_size=9"): cli._in_a_child("training", cli._trained, [], 9, 0)


def test_train_a_tokenizer_on_files(elsewhere, capsys):
    from croissant.tokenizer import Tokenizer, train_tokenizer
    from croissant.toy import toy_texts
    french, english = toy_texts("fr"), toy_texts("en")
    (elsewhere/"fr.txt").write_text("\n".join(french), encoding="utf-8")
    (elsewhere/"en.jsonl").write_text("".join(json.dumps({"text": t}) + "\n" for t in english), encoding="utf-8")
    train = ["tokenize", "train", "fr.txt", "en.jsonl", "--vocab-size", "600", "--placeholders", "2", "--out", "neuf"]
    code, out, err = run(capsys, *train)
    assert (code, out, err) == (0, "600 pieces in neuf\n", "")
    assert Tokenizer.load(elsewhere/"neuf").fingerprint == train_tokenizer(["\n".join(french), *english], 600, 2).fingerprint
    before = sorted(elsewhere.iterdir())
    for argv, message in ((train, "already there"), ([*train[:-1], "autre", "--vocab-size", "9"], "vocab_size=9"), (["tokenize", "train", "nulle-part.txt", *train[4:-1], "autre"], "nulle-part.txt")):
        code, _, err = run(capsys, *argv)
        assert code == 2 and one_line(err) and message in err and sorted(elsewhere.iterdir()) == before


def test_compare_counts_words_bytes_and_losses(folder, elsewhere, capsys, monkeypatch):
    from croissant import peers
    from croissant.tokenizer import Utf8Bytes
    class Lossy(Utf8Bytes):
        vocab_size = 256
        def decode(self, ids): return super().decode(ids).strip()
    monkeypatch.setattr(peers, "load_peer", lambda name: Lossy())
    (elsewhere/"t.txt").write_text("l'été fini ", encoding="utf-8")
    code, out, _ = run(capsys, "tokenize", "compare", "t.txt", "--tokenizer", folder, "gpt2", "--json")
    ours, theirs = json.loads(out)
    n = len(toy_tokenizer().encode("l'été fini "))
    assert code == 0 and ours == {"tokenizer": folder, "pieces": 600, "tokens": n, "tokens_per_word": n / 2, "bytes_per_token": 13 / n, "lossless": True}
    assert (theirs["tokens"], theirs["tokens_per_word"], theirs["bytes_per_token"], theirs["lossless"]) == (13, 6.5, 1, False)
    code, out, _ = run(capsys, "tokenize", "compare", "t.txt", "--tokenizer", folder, "gpt2")
    assert code == 0 and [line.split()[-1] for line in out.splitlines()] == ["lossless", "yes", "no"]
    (elsewhere/"vide.txt").write_text("\n")
    for argv in (["vide.txt"], ["t.txt", "--tokenizer", "nulle-part"], ["nulle-part.txt"]):
        code, out, err = run(capsys, "tokenize", "compare", *argv)
        assert code == 2 and one_line(err) and not out
    def absent(name): raise BadInput(f"{name} is absent")
    monkeypatch.setattr(peers, "load_peer", absent)   # unasked, what is not here is left out with a word
    monkeypatch.setattr(cli, "_OURS", (folder,))
    code, out, err = run(capsys, "tokenize", "compare", "t.txt")
    assert code == 0 and out.count("\n") == 2 and err.count("left out: ") == len(peers.PEERS)


def test_fetch_knows_where_each_tier_goes(elsewhere, capsys, monkeypatch):
    from croissant import fetch
    asked = []
    monkeypatch.setattr(fetch, "fetch", lambda tier, dest: asked.append((tier, dest)) or {"a": "present"})
    said = [run(capsys, "fetch", *argv)[1] for argv in ([], ["--tier", "peers"], ["--tier", "full"], ["--tier", "peers", "--dest", "ici"])]
    assert asked == [("lab", ""), ("peers", ""), ("full", ""), ("peers", elsewhere/"ici")]
    assert [" in peers," in x for x in said] == [False, True, False, False] and " in data," in said[0] and " in data and full/data," in said[2] and " in ici," in said[3]


def test_score_a_file_of_pairs(folder, tmp_path, capsys):
    (tmp_path/"pairs.tsv").write_text(PAIRS, encoding="utf-8")
    code, out, _ = run(capsys, "score", "--model", folder, "--file", tmp_path/"pairs.tsv", "--json")
    want = log_probs(toy_model(toy_tokenizer().vocab_size), toy_tokenizer(), PAIRS.splitlines()[1].split("\t"))
    assert code == 0 and np.allclose([[r["log_prob_good"], r["log_prob_bad"]] for r in json.loads(out)], [want])
    (tmp_path/"bad.tsv").write_bytes(b"good\tbad\n\xff\xfe\tx\n")
    code, _, err = run(capsys, "score", "--file", tmp_path/"bad.tsv", "--model", folder)
    assert code == 2 and "bad.tsv" in err and one_line(err)


def test_a_model_from_elsewhere_is_one_warning(tmp_path, capsys):
    from transformers import AutoModelForCausalLM, AutoTokenizer
    tokenizer = toy_tokenizer()
    ours = save_model(toy_model(tokenizer.vocab_size), tokenizer, tmp_path/"ours")
    AutoModelForCausalLM.from_pretrained(ours, dtype=torch.float32).save_pretrained(tmp_path/"theirs")
    AutoTokenizer.from_pretrained(ours).save_pretrained(tmp_path/"theirs")
    (tmp_path/"pairs.tsv").write_text(PAIRS, encoding="utf-8")
    capsys.readouterr()
    found = [run(capsys, "score", "--model", tmp_path/name, "--file", tmp_path/"pairs.tsv", "--json") for name in ("ours", "theirs")]
    assert [f[0] for f in found] == [0, 0] and found[0][1] == found[1][1]
    assert not found[0][2] and found[1][2].startswith("warning: ") and found[1][2].count("\n") == 1 and "nothing could be verified" in found[1][2]


def test_eval_gives_intervals_floors_and_the_mean(folder, capsys, tmp_path):
    code, out, err = run(capsys, "eval", "--suite", "pairs", "--model", folder, "--pairs", "20", "--json")
    found = json.loads(out)
    assert code == 0 and set(found) == {*SETS, "mean_three"} and "no trigram floor" in err and err.count("\n") == 1   # nobody knows what the toy has read
    for r in found.values():
        assert r["interval"][0] <= r["accuracy"] <= r["interval"][1] and r["n"] > 0 and set(r["floors"]) == {"chance", "random_weights"} and r["floors"]["chance"] == .5
    for value in (lambda r: r["accuracy"], lambda r: r["floors"]["random_weights"]):
        assert value(found["mean_three"]) == pytest.approx(sum(value(found[name]) for name in FRENCH) / 3)
    code, out, err = run(capsys, "eval", "--suite", "pairs", "--model", folder, "--pairs", "20", "--no-floors")
    assert code == 0 and not err and "random" not in out and "mean_three" in out
    for argv in (["--suite", "moon"], ["--tasks", "hellaswag,arc"], ["--pairs", "0"], ["--items", "6"], ["--tasks", "french_bench_vocab", "--source", tmp_path], ["--tasks", "french_bench_vocab", "--export", tmp_path]):
        code, _, err = run(capsys, "eval", "--model", folder, *argv)
        assert code == 2 and one_line(err)


@pytest.mark.parametrize("argv,named", [
    (["--shots", "0"], "--shots applies only to tasks of FrenchBench, which --tasks names; leave it out"), (["--limit", "8", "--truncate"], "--limit and --truncate apply only to tasks of FrenchBench"), (["--compat", "harness"], "--compat"), (["--source", "miroir"], "--source"),
    (["--tasks", "french_bench_vocab", "--items", "8"], "--items applies only to the lab's suites"), (["--tasks", "french_bench_vocab", "--suite", "pairs"], "--suite"), (["--tasks", "french_bench_vocab", "--no-floors"], "--no-floors"),
    (["--tasks", "french_bench_vocab", "--corpus", "corpus", "--config", "essai.yaml"], "--config and --corpus apply"), (["--tasks", "french_bench_vocab", "--shards", "essai"], "--shards"), (["--tasks", "french_bench_vocab", "--pairs", "8"], "--pairs"),
    (["--suite", "pairs", "--export", "tâches"], "--export applies only to --suite lab"), (["--suite", "pairs", "--items", "8"], "--items"), (["--suite", "pairs", "--corpus", "corpus"], "--corpus"), (["--export", "tâches", "--pairs", "8"], "--pairs applies only to a run that scores"),
    (["--no-floors", "--shards", "essai"], "--shards applies only to the trigram"), (["--export", "tâches", "--json"], "--json"),
    (["--tasks", "french_bench_vocab", "--shots", "-5"], "--shots -5: give 0"), (["--tasks", "french_bench_vocab", "--limit", "-1"], "--limit -1: give 0 or more"), (["--items", "-8"], "--items -8: give 4"), (["--pairs", "-2"], "--pairs -2: give 2")])
def test_eval_refuses_options_that_would_change_nothing(argv, named, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, _, err = run(capsys, "eval", *argv)
    assert code == 2 and one_line(err) and named in err and not list(tmp_path.iterdir())


@pytest.mark.parametrize("option", ["--shots", "--limit", "--items", "--pairs"])
def test_eval_counts_in_whole_numbers(option, capsys):
    with pytest.raises(SystemExit) as e: cli.main(["eval", option, "1.5"])
    assert e.value.code == 2 and f"argument {option}: invalid int value: '1.5'" in capsys.readouterr().err


def test_eval_asks_the_suites_of_the_lab(folder, capsys, tmp_path):
    "Without a corpus: those that were written here, each beside its floors, and every answer kept."
    words = ["eval", "--model", folder, "--pairs", "20", "--items", "8", "--corpus", tmp_path, "--out", tmp_path/"réponses"]
    code, out, err = run(capsys, *words, "--json")
    found = json.loads(out)
    assert code == 0 and {*SETS, "mean_three", "fr_attractor", "en_article"} <= set(found) and "fr_reading" not in found and "left out, for want of their materials: fr_homophones" in err
    assert all({"chance", "random_weights"} <= set(r["floors"]) and r["interval"][0] <= r["accuracy"] <= r["interval"][1] for r in found.values()) and "longest" in found["fr_attractor"]["floors"]
    kept = sorted((tmp_path/"réponses").glob("*.jsonl"))
    assert [p.stem for p in kept] == sorted(found.keys() - {"mean_three"}) and all(p.read_text().count("\n") == 1 + (20 if p.stem in SETS else 8) for p in kept)
    code, out, _ = run(capsys, *words)
    head, *lines = out.splitlines()
    assert code == 0 and head.split()[-5:] == ["chance", "random", "majority", "longest", "overlap"] and [x.split()[0] for x in lines] == list(found)
    assert next(x for x in lines if x.startswith("fr_attractor ")).split()[1] == f"{found['fr_attractor']['accuracy']:.3f}"


def test_eval_writes_task_files(folder, capsys, tmp_path):
    code, out, err = run(capsys, "eval", "--export", tmp_path/"tâches", "--items", "8", "--corpus", tmp_path)
    assert code == 0 and "croissant_lab" in out and (tmp_path/"tâches/croissant_fr_attractor.yaml").is_file() and (tmp_path/"tâches/data/croissant_fr_attractor.jsonl").read_text().count("\n") == 8


def test_eval_asks_tasks_of_frenchbench(folder, capsys, mirror):
    words = ["eval", "--model", folder, "--tasks", "french_bench_grammar", "french_bench_opus_perplexity", "--source", mirror, "--shots", "0", "--limit", "8"]
    code, out, _ = run(capsys, *words)
    assert code == 0 and "chance 0.250" in out and [line.split()[:2] for line in out.splitlines()] == [["french_bench_grammar", "acc"], *(["french_bench_opus_perplexity", m] for m in ("word_perplexity", "byte_perplexity", "bits_per_byte"))]
    code, out, _ = run(capsys, *words, "--compat", "harness", "--json")
    found = json.loads(out)
    assert code == 0 and found["settings"]["compat"] == "harness" and found["tasks"]["french_bench_grammar"]["acc"]["n"] == 8


def test_train_says_where_the_model_is_and_eval_counts_its_tokens(folder, capsys, tmp_path):
    code, out, _ = run(capsys, *training(tmp_path, folder))
    assert code == 0 and f"the model is in {tmp_path/'run'/'checkpoint'}" in out and out.count("bits per byte") == 4 and out.count("\n") < 10
    code, out, _ = run(capsys, *training(tmp_path, folder, "--json", "--resume"))
    record = json.loads(out)
    assert code == 0 and record["finished"] and record["step"] == 6 and "losses" not in record and record["out"] == str(tmp_path/"run")
    code, out, err = run(capsys, "eval", "--suite", "pairs", "--model", tmp_path/"run/checkpoint", "--pairs", "20", "--config", tmp_path/"run.yaml", "--shards", toy_shards(), "--json")
    assert code == 0 and not err and all(set(r["floors"]) == {"chance", "random_weights", "trigram"} for r in json.loads(out).values())


def test_a_second_run_in_the_same_folder_is_told_about_resume(folder, capsys, tmp_path):
    assert run(capsys, *training(tmp_path, folder))[0] == 0
    code, _, err = run(capsys, *training(tmp_path, folder))
    assert code == 2 and one_line(err.splitlines(True)[-1]) and "--resume" in err and "resume=True" not in err


@pytest.mark.parametrize("text, message", [
    ("train: 3", "section 'train' is int"), ("train:", "section 'train' is null"), ("- train", "no section 'train'"), ("train: {preset: [a]}", "unknown preset ['a']"), ("train: {1: 2}", "unknown parameter 1"),
    ("train: {preset: toy, learning_rate: vite}", "'learning_rate' should be float"), ("train: {preset: toy, max_steps: 1e3}", "'max_steps' should be int"), ("train: {", "not a readable YAML file"), ("1: x", "known here: 1")])
def test_a_configuration_that_is_wrong(folder, capsys, tmp_path, text, message):
    code, out, err = run(capsys, *training(tmp_path, folder, text=text))
    assert code == 2 and not out and message in err and err.startswith("error: ") and "run.yaml" in err


def test_a_rate_in_the_notation_that_yaml_takes_for_text(folder, capsys, tmp_path):
    text = yaml.safe_dump({"train": {k: v for k, v in RUN.items() if k != "learning_rate"}}) + "  learning_rate: 2e-3\n"
    assert yaml.safe_load(text)["train"]["learning_rate"] == "2e-3"
    code, out, _ = run(capsys, *training(tmp_path, folder, "--json", text=text))
    assert code == 0 and json.loads(out)["identity"]["train.learning_rate"] == 2e-3


def test_divergence_is_status_1(folder, capsys, tmp_path, monkeypatch):
    from croissant import trainer
    def diverges(*args, **more): raise trainer.Diverged("step 3: loss nan")
    monkeypatch.setattr(trainer, "train", diverges)
    assert run(capsys, *training(tmp_path, folder)) == (1, "", "error: step 3: loss nan\n")


def test_ctrl_c_in_training_saves_and_says_how_to_continue(folder, tmp_path, capsys):
    argv = [str(a) for a in training(tmp_path, folder, max_steps=100_000, eval_interval=0)]
    with (tmp_path/"err").open("w") as err:
        p = subprocess.Popen([sys.executable, "-m", "croissant.cli", *argv], stderr=err, stdout=subprocess.PIPE)
        try:
            end = time.monotonic() + 60
            while "step" not in (tmp_path/"err").read_text():   # the bar is there, so the loop runs
                assert time.monotonic() < end and p.poll() is None
                time.sleep(.05)
            p.send_signal(signal.SIGINT)
            p.wait(30)
        finally:
            if p.poll() is None: p.kill()
    said = (tmp_path/"err").read_text()
    assert p.returncode == 130 and "Traceback" not in said
    last = said.strip().splitlines()[-1]
    assert last.startswith("stopped after step") and "--resume" in last and "resume=True" not in last
    assert list((tmp_path/"run/state").glob("step-*/manifest.json"))
    code, _, err = run(capsys, *argv)
    assert code == 2 and "unfinished run" in err and "--resume" in err


def test_plan_of_the_paper_model(capsys):
    code, out, _ = run(capsys, "plan", "--preset", "base", "--json")
    found = json.loads(out)
    assert code == 0 and "1214" in out.replace(",", "") and found["parameters"] == 1_345_423_360 and found["memory_bytes"]["total"] == 16 * found["parameters"]
    assert run(capsys, "plan", "--preset", "colossal")[0] == 2


def test_fmti_and_verify(capsys, monkeypatch):
    assert run(capsys, "fmti", "explain", "1")[0] == 0
    code, out, _ = run(capsys, "fmti", "show")
    assert code == 0 and out.count("\n") == 101
    code, out, _ = run(capsys, "fmti", "show", "--json")
    assert code == 0 and json.loads(out)["sums"]["indicators"] == 100
    code, out, _ = run(capsys, "fmti", "verify", "--json", "--root", "0" * 64)
    assert code == 1 and [r["state"] for r in json.loads(out)["rows"] if r["layer"] == "L6"] == ["failed"]
    assert len(run(capsys, "fmti", "root")[1].strip()) == 64
    for key, word in (("tests/test_cli.py", "inside the repository"), ("/nowhere/key.pem", "no such key")): assert word in run(capsys, "fmti", "sign", "--key", key)[2]
    from croissant import verify
    rows = [{"check": "c", "state": s, "evidence": "e", "reason": "r"} for s in ("passed", "failed", "skipped")]
    for kept, want in ((rows, 1), (rows[::2], 0)):
        monkeypatch.setattr(verify, "CHECKS", {"one": lambda *a, kept=kept: kept})
        code, out, _ = run(capsys, "verify", "--json")
        assert code == want and json.loads(out)["rows"] == kept
        assert run(capsys, "verify")[0] == want


def test_this_checkout_verifies(capsys):
    code, out, _ = run(capsys, "verify", "--json")
    found = json.loads(out)
    assert code == (1 if found["failed"] else 0) and not [r for r in found["rows"] if r["state"] == "failed" and r["check"] != "tracked bytes"]


def test_a_path_starts_in_the_current_directory_then_at_the_root(folder, elsewhere, capsys):
    (elsewhere/"artifacts/checkpoints").mkdir(parents=True)
    (elsewhere/"artifacts/checkpoints/flagship").symlink_to(folder)   # the default's name, but here
    (elsewhere/"pairs.tsv").write_text(PAIRS, encoding="utf-8")
    code, out, _ = run(capsys, "score", "--file", "pairs.tsv", "--json")
    assert code == 0 and len(json.loads(out)) == 1
    assert cli._input("nbs/95_cli.ipynb") == root()/"nbs/95_cli.ipynb" and cli._input("nulle-part") == Path("nulle-part")
    (elsewhere/"settings.ini").write_text("")   # a file of the same name as one of the root's: here wins
    assert cli._input("settings.ini") == Path("settings.ini")


def test_no_checkout_is_needed_to_use_a_model(folder, tmp_path, monkeypatch, capsys):
    monkeypatch.delenv("CROISSANT_ROOT", raising=False)
    monkeypatch.chdir(tmp_path)
    assert run(capsys, "generate", "--model", folder, "--max-tokens", "3", "Le")[0] == 0
    code, _, err = run(capsys, "generate", "Le")
    assert code == 2 and one_line(err)


def test_output_goes_to_the_current_directory(folder, elsewhere, capsys, monkeypatch):
    from croissant import report
    monkeypatch.setattr(report, "report_html", lambda: "<html>été</html>")
    assert run(capsys, "report", "--out", "là/rapport.html")[:2] == (0, f"{elsewhere/'là/rapport.html'}\n")
    assert (elsewhere/"là/rapport.html").read_text(encoding="utf-8") == "<html>été</html>"
    (elsewhere/"run.yaml").write_text(yaml.safe_dump({"train": RUN}))
    assert run(capsys, "train", "--config", "run.yaml", "--out", "essai", "--shards", toy_shards(), "--tokenizer", folder)[0] == 0
    assert (elsewhere/"essai/checkpoint/model.safetensors").is_file()


def test_what_cannot_be_written_or_read_is_one_line_and_status_2(folder, elsewhere, capsys, monkeypatch):
    from croissant import fetch, report
    monkeypatch.setattr(report, "report_html", lambda: "<html></html>")
    (elsewhere/"fichier").write_text("ceci n'est pas un dossier")
    monkeypatch.setattr(fetch.subprocess, "run", lambda *a, **k: pytest.fail("the registry was asked before the folder was looked at"))
    for argv in (["report", "--out", "fichier/rapport.html"], ["fetch", "--dest", "fichier/data"], training(elsewhere, folder)[:3] + ["--out", "fichier/run", "--shards", toy_shards(), "--tokenizer", folder]):
        code, _, err = run(capsys, *argv)
        assert code == 2 and "fichier" in err and one_line(err.splitlines(True)[-1]) and "Traceback" not in err
    def full(*args): raise OSError(28, "No space left on device", "disque")
    monkeypatch.setitem(cli.VERBS, "plan", lambda: full())
    assert run(capsys, "plan") == (2, "", "error: disque: No space left on device; free some space, or give a path that you may read and write\n")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full on this system")
def test_a_full_disk_and_a_closed_pipe_behind_standard_output(folder):
    command = [sys.executable, "-m", "croissant.cli", "tokenize", "inspect", "l'été", "--tokenizer", folder]   # a verb without torch
    with open("/dev/full", "w") as full: done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 2 and one_line(done.stderr) and "No space left" in done.stderr
    r, w = os.pipe(); os.close(r)
    done = subprocess.run(command, stdout=w, stderr=subprocess.PIPE, text=True); os.close(w)
    assert done.returncode == 0 and not done.stderr


def test_a_terminal_without_the_letters(folder):
    done = subprocess.run([sys.executable, "-m", "croissant.cli", "tokenize", "inspect", "l'été", "--tokenizer", folder], capture_output=True, env={**os.environ, "PYTHONIOENCODING": "ascii"})
    assert done.returncode == 0 and b"\\xe9" in done.stdout


@pytest.mark.parametrize("argv", [["generate", "Le", "--model", "artifacts/none"], ["tokenize", "inspect", "x", "--tokenizer", "artifacts/none"], ["fetch", "--tier", "moon"], ["fmti", "explain"], ["fmti", "dance"],
                                  ["train", "--config", "nowhere.yaml", "--out", "artifacts/none"], ["train", "--config", "params.yaml", "--out", "artifacts/none", "--resume", "maybe"]])
def test_wrong_input_is_one_line_and_status_2(argv, capsys):
    code, _, err = run(capsys, *argv)
    assert code == 2 and one_line(err)


def test_replicas_need_several_processes(capsys, tmp_path, monkeypatch):
    "Behind torchrun it divides them into groups; alone it would be ignored, so it is refused."
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    code, _, err = run(capsys, "train", "--config", str(root()/"params.smoke.yaml"), "--out", str(tmp_path/"r"), "--replicas", "2")
    assert code == 2 and "--replicas 2" in err and "torchrun" in err and not (tmp_path/"r").exists()
