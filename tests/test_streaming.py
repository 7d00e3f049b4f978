"""Streaming: the ids of the whole text whatever the buffer, the bytes of the source on the way back, bounded memory, clear refusals."""
import io
import json
import os
import random
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from croissant.packing import pack_part
from croissant.params import BadInput, root
from croissant.streaming import cut, decode_file, encode_file, encode_stream, joints, read_texts
from croissant.tokenizer import Tokenizer, paper_tokenizer, toy_tokenizer, train_tokenizer
from croissant.toy import toy_documents, toy_texts

HARD = "\ufeffl'été\r\n\x00\x00 a▁b 👩‍👩‍👧 🥐\n\n   def f(x):\n\treturn 3.14 # ½\u202f! 中文字典 e\u0301 <|im_end|>   \n"
PEAK = "import sys; from croissant.cli import main; code = main(sys.argv[1:]); print(next(x for x in open('/proc/self/status') if x.startswith('VmHWM')).split()[1], *sys.modules); sys.exit(code)"


def streamed(tokenizer, text, **more):
    found = [*encode_stream(io.BytesIO(text.encode()), tokenizer, **more)]
    return np.concatenate(found).tolist() if found else []


@pytest.fixture(scope="module")
def repeats():
    "A tokenizer that has pieces of one repeated letter, so that a run of it can be cut nowhere."
    return train_tokenizer(["aaaa aaaaaaaa aa ab ba"] * 50 + toy_texts("fr"), 600)


@given(text=st.text(alphabet=st.one_of(st.sampled_from("aeé lt'.,1\n\t  ▁🥐中\u202f"), st.characters(exclude_categories=["Cs"])), max_size=200), block=st.integers(1, 40), limit=st.sampled_from([4, 40, 4000]))
@settings(max_examples=400)
def test_ids_do_not_depend_on_the_buffer(text, block, limit):
    tokenizer = toy_tokenizer()
    assert [x for part in cut(text, joints(tokenizer), max(1, limit // 4)) for x in tokenizer.encode(part)] == tokenizer.encode(text)
    try: assert streamed(tokenizer, text, block=block, limit=limit) == tokenizer.encode(text)
    except BadInput as e: assert limit < 4000 and "one run" in str(e)   # the toy has no run of a thousand pairs


@pytest.mark.parametrize("name", ["lab8k", "base32k"])
def test_ids_of_the_real_tokenizers(name):
    folder = root()/"artifacts/tokenizer"/name
    if not folder.is_dir(): pytest.skip(f"{folder} is not here; `dvc pull` restores it")
    tokenizer = Tokenizer.load(folder)
    text = HARD + "\n".join(d["text"] for d in toy_documents(60) if "text" in d) + HARD * 3
    for block in (1, 13, 1000, 1 << 20): assert streamed(tokenizer, text, block=block) == tokenizer.encode(text)
    for size in (1, 5, 50): assert [i for part in cut(text, joints(tokenizer), size) for i in tokenizer.encode(part)] == tokenizer.encode(text)


def test_a_cut_where_a_merge_reaches_across_would_change_ids():
    "The reason for the whole module: without `joints` the same cuts give other ids."
    tokenizer = toy_tokenizer()
    text = " ".join(toy_texts("fr")[:20])
    assert [i for part in cut(text, frozenset(), 7) for i in tokenizer.encode(part)] != tokenizer.encode(text)


@pytest.mark.parametrize("text", ["", "\n", "é", " ", HARD, HARD * 400])
def test_file_there_and_back(tmp_path, text):
    tokenizer, source = toy_tokenizer(), tmp_path/"texte.txt"
    source.write_bytes(text.encode())
    facts = encode_file(source, tokenizer, tmp_path/"ids.bin", block=777)
    assert np.fromfile(tmp_path/"ids.bin", "<u2").tolist() == tokenizer.encode(text) and json.loads((tmp_path/"ids.json").read_text()) == facts
    assert facts["dtype"] == "uint16" and facts["tokens"] == len(tokenizer.encode(text)) and facts["bytes"] == len(text.encode()) and facts["tokenizer"] == tokenizer.fingerprint
    assert b"".join(decode_file(tmp_path/"ids.bin", tokenizer)) == text.encode()
    assert encode_file(io.BytesIO(text.encode()), tokenizer, tmp_path/"flux.bin") == facts   # a stream is as good as a file


def test_four_bytes_an_id_where_two_do_not_suffice(tmp_path):
    tokenizer = toy_tokenizer()
    large = Tokenizer(tokenizer.spec)
    large.__dict__["vocab_size"] = (1 << 16) + 1   # as if it had more pieces
    (tmp_path/"t.txt").write_text("l'été", encoding="utf-8")
    assert encode_file(tmp_path/"t.txt", large, tmp_path/"t.bin")["dtype"] == "uint32"
    assert np.fromfile(tmp_path/"t.bin", "<u4").tolist() == tokenizer.encode("l'été")
    assert b"".join(decode_file(tmp_path/"t.bin", tokenizer)) == "l'été".encode()


def test_a_shard_can_be_read_too(tmp_path):
    documents = [d for d in toy_documents(30) if d["language"] == "fr"]
    pack_part(documents, toy_tokenizer(), tmp_path/"fr.bin")
    assert b"".join(decode_file(tmp_path/"fr.bin", toy_tokenizer())).decode() == "".join(d["text"] for d in documents)


@pytest.mark.parametrize("data, at", [(b"\xff", 0), ("été".encode()[:-1], 3), (("é" * 50).encode() + b"\xc3(" + b"x" * 90, 100), (b"oui " * 500 + "l'été".encode("latin1"), 2002)])
@pytest.mark.parametrize("block", [1, 2, 3, 64, 1 << 20])
def test_what_is_not_utf8_names_the_byte(data, at, block):
    with pytest.raises(BadInput, match=rf"journal\.txt: not UTF-8 \(.* at byte {at:,}\)"): [*encode_stream(io.BytesIO(data), toy_tokenizer(), "journal.txt", block=block)]


@pytest.mark.parametrize("block", [1, 2, 3, 999, 1 << 20])
def test_a_run_that_nothing_divides_names_its_place(repeats, block):
    data = "é\n\n".encode() * 100 + b"a" * 3000 + b"\nfin"
    assert streamed(repeats, data.decode(), block=block, limit=3001) == repeats.encode(data.decode())   # with the memory it takes, it is merged at once
    with pytest.raises(BadInput, match=r"run\.txt: the 2,000 bytes from byte 400 on"): [*encode_stream(io.BytesIO(data), repeats, "run.txt", block=block, limit=2000)]


def test_what_needs_whole_texts_is_refused():
    with pytest.raises(BadInput, match="whole texts"): [*encode_stream(io.BytesIO(b"oui"), paper_tokenizer(toy_texts("fr"), 600))]


def test_nothing_is_left_half_written_and_nothing_else_is_written_over(tmp_path):
    tokenizer, source = toy_tokenizer(), tmp_path/"notes.json"
    source.write_text("{}")
    with pytest.raises(BadInput, match="the source"): encode_file(source, tokenizer, tmp_path/"notes.bin")   # its sidecar would have this name
    (tmp_path/"t.txt").write_text("oui")
    (tmp_path/"other.bin").write_bytes(b"not ours"); (tmp_path/"both.bin").write_bytes(b"not ours"); (tmp_path/"both.json").write_text('{"my": "settings"}')
    for name in ("notes", "other", "both"):   # a description without ids, ids without a description, two strangers
        with pytest.raises(BadInput, match="no file of ids"): encode_file(tmp_path/"t.txt", tokenizer, tmp_path/f"{name}.bin")
    assert (tmp_path/"other.bin").read_bytes() == (tmp_path/"both.bin").read_bytes() == b"not ours" and (tmp_path/"both.json").read_text() == '{"my": "settings"}'
    with pytest.raises(BadInput, match=r"\.bin"): encode_file(tmp_path/"t.txt", tokenizer, tmp_path/"t.txt")
    encode_file(tmp_path/"t.txt", tokenizer, tmp_path/"t.bin")
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}

    given = [b"non\n" * 50_000]

    class Stopped:
        def read(self, n):
            if given: return given.pop()
            raise KeyboardInterrupt
    with pytest.raises(KeyboardInterrupt): encode_file(Stopped(), tokenizer, tmp_path/"t.bin")
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before
    for absent in ("nulle-part.txt", "."):
        with pytest.raises(BadInput, match="file"): encode_file(tmp_path/absent, tokenizer, tmp_path/"x.bin")


def test_damage_and_another_tokenizer_are_named(tmp_path, repeats):
    tokenizer = toy_tokenizer()
    (tmp_path/"t.txt").write_text(HARD * 20, encoding="utf-8")
    encode_file(tmp_path/"t.txt", tokenizer, tmp_path/"t.bin")
    raw, side = (tmp_path/"t.bin").read_bytes(), (tmp_path/"t.json").read_text()
    def refused(match, by=tokenizer):
        with pytest.raises(BadInput, match=match): [*decode_file(tmp_path/"t.bin", by)]
    refused("made with tokenizer", repeats)
    (tmp_path/"t.bin").write_bytes(bytes([raw[0] ^ 1]) + raw[1:]); refused("damaged or altered")
    (tmp_path/"t.bin").write_bytes(b"\xff\xff" + raw[2:]); refused("outside the vocabulary")
    (tmp_path/"t.bin").write_bytes(raw[:-1]); refused("truncated")
    (tmp_path/"t.json").write_text('{"tokens": 3}'); refused("no description")
    (tmp_path/"t.json").unlink(); refused("no such file")
    (tmp_path/"t.json").write_text(side); (tmp_path/"t.bin").write_bytes(raw)
    assert b"".join(decode_file(tmp_path/"t.bin", tokenizer)) == (HARD * 20).encode()


def test_texts_of_files(tmp_path):
    (tmp_path/"a.txt").write_text("l'été\nà Paris\n", encoding="utf-8")
    (tmp_path/"a.jsonl").write_text('{"text": "l\'été"}\n{"text": "à Paris", "id": "0"}', encoding="utf-8")
    assert [*read_texts(tmp_path/"a.txt")] == ["l'été\nà Paris\n"] and [*read_texts(tmp_path/"a.jsonl")] == ["l'été", "à Paris"]
    for name, data, match in (("b.txt", "été".encode("latin1"), "not UTF-8"), ("b.jsonl", b'{"text": "a"}\n\xe9\n', "line 2: not UTF-8"), ("c.jsonl", b'{"text"\n', "line 1: not valid JSON"),
                              ("d.jsonl", b'{"text": 3}\n', "line 1: no field `text`"), ("e.jsonl", b"[]\n", "line 1: no field `text`")):
        (tmp_path/name).write_bytes(data)
        with pytest.raises(BadInput, match=match): [*read_texts(tmp_path/name)]


@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="the kernel's own peak is read from /proc")
def test_memory_stays_bounded_and_nothing_heavy_is_imported(tmp_path):
    "Twenty megabytes, half of them words that never come twice; at once they would take far more than the difference allowed here."
    r = random.Random(0)
    folder = toy_tokenizer().save(tmp_path/"tokenizer")
    prose = (" ".join(toy_texts("fr")) + "\n").encode()
    rare = lambda: b" ".join(b"%x" % r.getrandbits(40) for _ in range(1000)) + b"\n"
    def peak(name, size):
        with (tmp_path/name).open("wb") as f:
            while f.tell() < size: f.write(prose * (1 + 11_000 // len(prose))); f.write(rare())
        done = subprocess.run([sys.executable, "-c", PEAK, "tokenize", "encode", str(tmp_path/name), "--out", str(tmp_path/"ids.bin"), "--tokenizer", str(folder)], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        kib, *modules = done.stdout.splitlines()[-1].split()
        assert not {"torch", "transformers", "pandas", "matplotlib", "datasets"} & set(modules)
        return int(kib) / 1024
    small, large = peak("petit.txt", 3_000_000), peak("grand.txt", 20_000_000)
    assert large < 300 and large - small < 40
    assert b"".join(decode_file(tmp_path/"ids.bin", toy_tokenizer())) == (tmp_path/"grand.txt").read_bytes()


def test_half_a_character_in_a_record_is_named(tmp_path):
    (tmp_path/"d.jsonl").write_text('{"text": "oui"}\n{"text": "moiti\\ud800"}\n', encoding="utf-8")
    with pytest.raises(BadInput, match=r"d\.jsonl, line 2: .*U\+D800"): [*read_texts(tmp_path/"d.jsonl")]
