"""Verbs that need a model: chat, translate, export, serve, page, each with a toy."""
import builtins
import importlib.util
import inspect
import io
import os
import pty
import signal
import subprocess
import sys
import types

import httpx
import pytest

from croissant import cli
from croissant.checkpoint import load_checkpoint, save_model
from croissant.model import toy_model
from croissant.params import BadInput
from croissant.tokenizer import toy_tokenizer


def has(name): return importlib.util.find_spec(name) is not None


needs_engine = pytest.mark.skipif(not has("xllamacpp"), reason="llama.cpp is not here; its wheel is in the locked environment: `make setup`")
needs_page = pytest.mark.skipif(not has("gradio"), reason="gradio is an extra: `pip install --no-deps --require-hashes -r requirements-serve.lock`")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    tokenizer = toy_tokenizer()
    path = tmp_path_factory.mktemp("model")/"toy"
    save_model(toy_model(tokenizer.vocab_size), tokenizer, path)
    return path


class Terminal(io.StringIO):
    def isatty(self): return True


class Pipe:
    "Standard input that is no terminal."
    def __init__(self, data): self.buffer = io.BytesIO(data)
    def isatty(self): return False


def run(capsys, *argv):
    code = cli.main([str(a) for a in argv])
    return code, *capsys.readouterr()


@pytest.fixture
def types_lines(monkeypatch):
    "What the user types, line for line, then Ctrl-D."
    def use(*lines):
        left = iter(lines)
        def typed(prompt):
            try: line = next(left)
            except StopIteration: raise EOFError from None
            if isinstance(line, BaseException): raise line
            return line
        monkeypatch.setattr(sys, "stdin", Terminal())
        monkeypatch.setattr(builtins, "input", typed)
    return use


# --- chat

def answer(folder, messages, **dials):
    from croissant.chat import reply
    return "".join(reply(*load_checkpoint(folder), messages, **dials))


def test_one_question_from_the_line_and_from_a_pipe(folder, capsys, monkeypatch):
    want = answer(folder, [{"role": "system", "content": "Sois bref."}, {"role": "user", "content": "Où est l'été ?"}], seed=3, max_new_tokens=6, temperature=1.) + "\n"
    dials = ("--model", folder, "--system", "Sois bref.", "--seed", 3, "--max-tokens", 6, "--temperature", 1)
    assert run(capsys, "chat", "Où est l'été ?", *dials) == (0, want, "")
    monkeypatch.setattr(sys, "stdin", Pipe("Où est l'été ?\n".encode()))
    assert run(capsys, "chat", *dials) == (0, want, "")
    for data, what in ((b" \n", "empty"), (b"\xff", "UTF-8")):
        monkeypatch.setattr(sys, "stdin", Pipe(data))
        code, out, err = run(capsys, "chat", *dials)
        assert code == 2 and not out and what in err and err.count("\n") == 1


def test_a_conversation_remembers_resets_and_quits(folder, capsys, types_lines):
    said = []
    for question in ("Bonjour", "Et toi ?"):
        said.append({"role": "user", "content": question})
        said.append({"role": "assistant", "content": answer(folder, said, max_new_tokens=5)})
    again = answer(folder, [{"role": "user", "content": "Et toi ?"}], max_new_tokens=5)
    types_lines("Bonjour", "", "Et toi ?", "/reset", "Et toi ?", "/quit", "jamais")
    code, out, err = run(capsys, "chat", "--model", folder, "--max-tokens", 5)
    assert code == 0 and out.split("\n", 1)[1] == f"{said[1]['content']}\n{said[3]['content']}\nA new conversation.\n{again}\n" and not err
    types_lines()
    assert run(capsys, "chat", "--model", folder)[0] == 0                                # Ctrl-D at once
    types_lines(KeyboardInterrupt())
    assert run(capsys, "chat", "--model", folder)[0] == 130


def test_a_long_conversation_forgets_and_too_long_a_line_is_said(folder, capsys, types_lines):
    types_lines("Il était une fois " * 9, "Et puis ?", "Il était une fois " * 100, "Merci")
    code, out, err = run(capsys, "chat", "--model", folder, "--max-tokens", 100)
    assert code == 0 and "2 messages at the beginning are forgotten" in err and "error: messages" in err and "shorten" in err


def test_ctrl_c_ends_an_answer_and_not_the_conversation(folder, capsys, types_lines, monkeypatch):
    import croissant.chat
    seen = []
    def reply(model, tokenizer, messages, **dials):
        seen.append(messages)
        yield "Il était"
        if len(seen) == 1: raise KeyboardInterrupt
        yield " une fois"
    monkeypatch.setattr(croissant.chat, "reply", reply)
    types_lines("Raconte", "Encore")
    code, out, _ = run(capsys, "chat", "--model", folder)
    assert code == 0 and "Il était …\n" in out and "Il était une fois\n" in out and seen[1][1] == {"role": "assistant", "content": "Il était"}
    seen.clear()
    assert run(capsys, "chat", "Raconte", "--model", folder)[0] == 130                    # a single answer is all there is


def test_dials_are_those_of_the_chat():
    from croissant.chat import GENERATION
    defaults = {k: p.default for k, p in inspect.signature(cli.chat).parameters.items()}
    assert {k: defaults["max_tokens" if k == "max_new_tokens" else k] for k in GENERATION} == GENERATION


def test_on_a_real_terminal(folder):
    "A pseudo-terminal: the prompt waits, the answer comes, /quit ends."
    leader, follower = pty.openpty()
    p = subprocess.Popen([sys.executable, "-m", "croissant.cli", "chat", "--model", folder, "--max-tokens", "4"], stdin=follower, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    os.close(follower)
    try:
        os.write(leader, "Où ?\n/quit\n".encode())
        out, err = p.communicate(timeout=120)
    finally: p.kill(); os.close(leader)
    assert p.returncode == 0 and out.decode().count("> ") == 2 and not err


# --- translate

@pytest.fixture
def translator(monkeypatch, tmp_path):
    "A translator that shouts."
    class Shouting:
        @classmethod
        def load(cls, folder, memory=None): assert folder.is_dir() and memory is None; return cls()
        def translate(self, texts, target): return [f"{target} {t.upper()}" for t in texts]
    module = types.ModuleType("croissant.consensus")
    module.ConsensusTranslator = Shouting
    monkeypatch.setitem(sys.modules, "croissant.consensus", module)
    return tmp_path


MISSING = ("warning: nulle-part: no memory of phrases, so the network translates alone, and translations will be much worse; the memory is made from the rebuilt corpus, by `make repro`, "
           "or by `dvc repro phrases` alone where artifacts/corpus is there\n")


def test_translate_keeps_lines(translator, capsys, monkeypatch):
    assert run(capsys, "translate", "l'été", "--to", "en", "--model", translator, "--memory", "nulle-part") == (0, "en L'ÉTÉ\n", MISSING)
    monkeypatch.setattr(sys, "stdin", Pipe(b"\nun\n \ndeux\n"))
    assert run(capsys, "translate", "-", "--to", "fr", "--model", translator, "--memory", "nulle-part")[:2] == (0, "\nfr UN\n\nfr DEUX\n")


@pytest.mark.parametrize("words, said", [(["Bonjour", "--to", "de"], "fr or en"), ([" ", "--to", "en"], "empty"), (["Bonjour", "--to", "en", "--model", "nulle-part"], "dvc pull translate")])
def test_translate_refuses(words, said, translator, capsys):
    code, out, err = run(capsys, "translate", *(words if "--model" in words else [*words, "--model", translator]))
    assert code == 2 and not out and said in err and err.startswith("error: ") and err.count("\n") == 1


@pytest.mark.parametrize("words, remedy", [("chat Bonjour --model nulle-part", "dvc pull chat"), ("export nulle-part --out x.gguf", "dvc pull"), ("serve --model nulle-part --port 0", "dvc pull"), ("page --model nulle-part", "dvc pull chat"),
                                           ("serve --host 0.0.0.0", "--expose"), ("serve --slots 0", "slots"), ("serve --port 70000", "65535"), ("serve --port -1", "65535"), ("page --port 70000", "65535"), ("page --port -1", "65535"),
                                           (f"serve --expose --host {'é' * 70}.fr", "63 characters"), ("serve --expose --host a..b", "63 characters"), ("serve --model nulle-part --queue -1", "queue")])
def test_what_is_missing_is_named(words, remedy, capsys):
    code, out, err = run(capsys, *words.split())
    assert code == 2 and remedy in err and err.count("\n") == 1


# --- export, serve, page

def test_export_a_file_and_a_folder(folder, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, out, _ = run(capsys, "export", folder, "--out", "jouet.gguf", "--kind", "f32")
    assert code == 0 and out == f"jouet.gguf: {(tmp_path/'jouet.gguf').stat().st_size:,} bytes\n" and (tmp_path/"jouet.gguf").read_bytes()[:4] == b"GGUF"
    code, _, err = run(capsys, "export", folder, "--out", "x.gguf", "--kind", "q1")
    assert code == 2 and "q8_0" in err and not (tmp_path/"x.gguf").exists()


def test_the_end_marks_are_the_manifests_or_asked_for(folder, tmp_path, capsys, monkeypatch):
    from transformers import GenerationConfig
    monkeypatch.chdir(tmp_path)
    end, tokenizer = toy_tokenizer().id_of("<|im_end|>"), toy_tokenizer()
    def marks(name): return GenerationConfig.from_pretrained(tmp_path/name).eos_token_id
    for name, run_, want in (("bavard", {"examples": "ab"}, [2, end]), ("muet", {"train_shards": "ab"}, 2)):
        save_model(toy_model(tokenizer.vocab_size), tokenizer, tmp_path/name, run=run_)
        assert run(capsys, "export", name, "--out", f"{name}-complet", "--kind", "folder")[0] == 0 and marks(f"{name}-complet") == want
    code, out, err = run(capsys, "export", folder, "--out", "complet", "--kind", "folder")
    assert code == 2 and not out and "--no-chat" in err and err.count("\n") == 1 and not (tmp_path/"complet").exists()
    for switch, want in (("--chat", [2, end]), ("--no-chat", 2)):
        assert run(capsys, "export", folder, "--out", "complet", "--kind", "folder", switch)[0] == 0 and marks("complet") == want
        code, _, err = run(capsys, "export", folder, "--out", "x.gguf", switch)
        assert code == 2 and f"{switch}: for --kind folder" in err and not (tmp_path/"x.gguf").exists()


@pytest.mark.parametrize("out", [".", "..", "a-moi"])
def test_an_export_replaces_nothing_of_the_users(folder, tmp_path, capsys, monkeypatch, out):
    (tmp_path/"ici"/"a-moi").mkdir(parents=True)
    (tmp_path/"ici"/"a-moi"/"these.tex").write_text("x")
    monkeypatch.chdir(tmp_path/"ici")
    code, _, err = run(capsys, "export", folder, "--out", out, "--kind", "folder", "--chat")
    assert code == 2 and "would be replaced" in err and [p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*")] == ["ici", "ici/a-moi", "ici/a-moi/these.tex"]


def hears_ctrl_c(): signal.signal(signal.SIGINT, signal.SIG_DFL)   # a shell starts what runs in the background deaf to it


def started(*words, env):
    "A verb that runs until it is told to end, and the URL that it prints."
    p = subprocess.Popen([sys.executable, "-m", "croissant.cli", *map(str, words)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ | env, preexec_fn=hears_ctrl_c)
    line = p.stdout.readline()
    if "http" not in line: p.kill(); raise AssertionError(p.communicate())
    return p, next(w.rstrip(",") for w in line.split() if w.startswith("http"))


@needs_engine
def test_serve_a_folder_says_what_we_say(folder, tmp_path):
    "Exported, cached, served: greedy, the answer is the one that `reply` gives."
    p, url = started("serve", "--model", folder, "--kind", "f32", "--port", 0, "--threads", 1, env={"XDG_CACHE_HOME": str(tmp_path)})
    try:
        asked = {"messages": [{"role": "user", "content": "Où est l'été ?"}], "temperature": 0, "max_tokens": 6}
        found = httpx.post(f"{url}/v1/chat/completions", json=asked, timeout=60)
        p.send_signal(signal.SIGTERM)
        _, err = p.communicate(timeout=60)
    finally: p.kill()
    assert p.returncode == 0 and found.status_code == 200 and [f.suffix for f in (tmp_path/"croissant").iterdir()] == [".gguf"] and "Traceback" not in err
    assert found.json()["choices"][0]["message"]["content"].strip() == answer(folder, asked["messages"], temperature=0, max_new_tokens=6).strip()


@needs_engine
def test_an_exposed_server_warns(folder, tmp_path):
    p, url = started("serve", "--model", folder, "--kind", "f32", "--port", 0, "--threads", 1, "--host", "0.0.0.0", "--expose", env={"XDG_CACHE_HOME": str(tmp_path)})
    try:
        p.send_signal(signal.SIGINT)
        _, err = p.communicate(timeout=60)
    finally: p.kill()
    assert p.returncode == 130 and "warning: 0.0.0.0" in err and "password" in err and url.startswith("http://0.0.0.0:")


@needs_page
@pytest.mark.parametrize("sign, code", [(signal.SIGTERM, 0), pytest.param(signal.SIGINT, 130, marks=pytest.mark.exhaustive)])
def test_page_runs_until_it_is_told_to_end(folder, sign, code):
    p, url = started("page", "--model", folder, "--translator", "", "--port", 0, env={})
    try:
        assert url.startswith("http://127.0.0.1:") and httpx.get(url).status_code == 200
        p.send_signal(sign)
        _, err = p.communicate(timeout=60)
    finally: p.kill()
    assert p.returncode == code and "Traceback" not in err, err


def test_remedy_without_llama_cpp(folder, tmp_path, monkeypatch):
    from croissant.serve import Limits, start_engine
    monkeypatch.setitem(sys.modules, "xllamacpp", None)
    with pytest.raises(BadInput, match="make setup"): start_engine(tmp_path/"x.gguf", Limits(), tmp_path/"e.sock", 256)
