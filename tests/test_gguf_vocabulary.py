"""The vocabulary in GGUF: llama.cpp gives the ids of our loader and of transformers; damage and foreign files are named."""
import hashlib
import json
import random
from functools import cache

import numpy as np
import pytest
from conftest import EXHAUSTIVE
from gguf import GGUFWriter, TokenType
from hypothesis import given, settings, strategies as st
from transformers import AutoTokenizer

from croissant.gguf_vocabulary import GgufVocabulary, encode_as_llama_cpp, read_vocabulary, vocabulary_fields, write_vocabulary
from croissant.params import BadInput, root
from croissant.tokenizer import SPECIALS, Tokenizer, paper_tokenizer, toy_tokenizer
from croissant.toy import toy_documents, toy_texts

MISSING = "llama.cpp is not here; its wheel compiles nothing: `python -m pip install --no-deps xllamacpp==2026.10.11549`"
STRIDE = 1 if EXHAUSTIVE else 3
CORPUS, TOKENIZER = "artifacts/corpus", "artifacts/tokenizer/base32k"


@pytest.fixture(scope="module")
def script(load_benchmark): return load_benchmark("agreement")


@pytest.fixture(scope="module", params=["toy", "corpus"])
def material(request, script):
    "A vocabulary and sentences that it was not fitted on: ten thousand in `make exhaustive`, every third of them otherwise."
    if request.param == "toy": return toy_tokenizer(), script.mixed(toy_documents(12_000))[::STRIDE]
    if not all((root()/path/"manifest.json").is_file() for path in (CORPUS, TOKENIZER)): pytest.skip(f"{CORPUS} or {TOKENIZER} is not here; make them: `dvc repro build_corpus train_tokenizer`")
    return Tokenizer.load(root()/TOKENIZER), script.held_out()[::STRIDE]


@pytest.fixture(scope="module")
def file(tmp_path_factory): return write_vocabulary(toy_tokenizer(), tmp_path_factory.mktemp("gguf")/"toy.gguf")


def test_thousands_of_sentences_have_the_same_ids(material, tmp_path):
    "Our loader one by one and in batches, transformers, and llama.cpp's algorithm on the GGUF file alone."
    tok, texts = material
    vocabulary, hf = read_vocabulary(write_vocabulary(tok, tmp_path/"v.gguf")), AutoTokenizer.from_pretrained(tok.save(tmp_path), split_special_tokens=True)
    assert len(set(texts)) == len(texts) == len(range(0, 10_000, STRIDE)) and sum(any(s in t for s in SPECIALS) for t in texts) * STRIDE > 1000 and sum(not t.isascii() for t in texts) * STRIDE > 5000
    for text, batched, theirs in zip(texts, tok.encode_batch(texts), hf(texts, add_special_tokens=False)["input_ids"]):
        assert batched == theirs == tok.encode(text) == encode_as_llama_cpp(vocabulary, text), text
        assert not set(batched) & set(tok.controls), text


def test_llama_cpp_itself_gives_the_same_ids(script, material, tmp_path):
    "llama.cpp loads our fields in front of random weights and tokenises the same sentences."
    pytest.importorskip("xllamacpp", reason=MISSING)
    tok, texts = material
    assert set(script.agreement(tok, texts, tmp_path).values()) == {len(texts)}
    with script.LlamaCpp(vocabulary_fields(tok), tmp_path) as engine:
        assert engine.encode("été<|im_end|>", add_special=True, parse_special=True) == [tok.bos_id, *tok.encode("été"), tok.id_of("<|im_end|>")]   # what a chat does
        assert engine.encode("a▁b") == tok.encode("a b") != tok.encode("a▁b")                                                                # the known exception
        talk = [{"role": "user", "content": "Salut  toi !\n\nÇa va ?"}]
        assert engine.encode(engine.post("/apply-template", {"messages": talk})["prompt"], add_special=True, parse_special=True) == tok.chat(talk)


def test_agreement_is_on_record():
    "What `python benchmarks/agreement.py` saw, llama.cpp included, on the vocabulary of the paper's size that is here."
    record = json.loads((root()/"reports/benchmarks/agreement.json").read_text(encoding="utf-8"))
    assert record["sentences"] == 10_000 and len(record["same"]) == 4 and set(record["same"].values()) == {10_000} and record["versions"]["xllamacpp"]
    spec = root()/TOKENIZER/"tokenizer.json"
    if not spec.is_file(): pytest.skip(f"{TOKENIZER} is not here, so the record cannot be compared with it; make it: `dvc repro train_tokenizer`")
    assert record["fingerprint"] == hashlib.sha256(spec.read_bytes()).hexdigest()


def test_llama_cpp_itself_can_be_forged(script, tmp_path):
    "Why `vocabulary_fields` looks for such pieces: `<s` in the vocabulary lets text become a control mark; the model of the algorithm says so too."
    pytest.importorskip("xllamacpp", reason=MISSING)
    fields = forgeable()
    typed = "bonjour <s> <s>"
    with script.LlamaCpp(fields, tmp_path) as engine: assert engine.encode(typed) == encode_as_llama_cpp(GgufVocabulary(fields), typed)
    assert encode_as_llama_cpp(GgufVocabulary(fields), typed).count(1) == 2


def forgeable():
    "The toy's fields with the last piece replaced by `<s`."
    fields = vocabulary_fields(toy_tokenizer())
    return fields | {"tokenizer.ggml.tokens": [*fields["tokenizer.ggml.tokens"][:-1], "<s"]}


@settings(max_examples=400 if EXHAUSTIVE else 100, deadline=None, derandomize=True)
@given(st.lists(st.sampled_from(["é", "t", "l", "'", " ", "\n", "🥐"]), max_size=14).map("".join))
def test_queue_merges_as_a_plain_search_does(text):
    "The definition itself: glue the best pair, leftmost of equals, until there is none."
    vocabulary = by_hand("ét", "l'", "té", "l'ét", "ll", "lll", "é", "t", "l", "'", "▁")
    symbols = list(text.replace(" ", "▁"))
    while True:
        pairs = [(vocabulary.scores[vocabulary.ids[a + b]], -k) for k, (a, b) in enumerate(zip(symbols, symbols[1:])) if a + b in vocabulary.ids]
        if not pairs: break
        at = -max(pairs)[1]
        symbols[at:at + 2] = [symbols[at] + symbols[at + 1]]
    wanted = [i for s in symbols for i in ([vocabulary.ids[s]] if s in vocabulary.ids else [vocabulary.ids[f"<0x{b:02X}>"] for b in s.encode()])]
    assert encode_as_llama_cpp(vocabulary, text) == wanted


def by_hand(*learnt):
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{b:02X}>" for b in range(256)), "\n", *learnt]
    types = [TokenType.UNKNOWN, *2 * [TokenType.CONTROL], *256 * [TokenType.BYTE], TokenType.USER_DEFINED, *len(learnt) * [TokenType.NORMAL]]
    return GgufVocabulary({"tokenizer.ggml.tokens": tokens, "tokenizer.ggml.token_type": types, "tokenizer.ggml.scores": 260 * [0.] + [-float(k) for k in range(len(learnt))]})


def test_equal_scores_go_to_the_left():
    vocabulary = GgufVocabulary(by_hand("ab", "bc", "a", "b", "c").fields | {"tokenizer.ggml.scores": 265 * [0.]})
    assert [vocabulary.pieces[i] for i in encode_as_llama_cpp(vocabulary, "abcab")] == ["ab", "c", "ab"]


def test_a_long_text_takes_no_quadratic_time():
    "Forty thousand characters; a search of every pair at every merge would look at more than a thousand million."
    text = "le chat est près de l'église " * 1400
    assert encode_as_llama_cpp(read_vocabulary_of_toy(), text) == toy_tokenizer().encode(text)


@cache
def read_vocabulary_of_toy(): return GgufVocabulary(vocabulary_fields(toy_tokenizer()))


def test_file_says_what_llama_cpp_needs(file):
    fields = read_vocabulary(file).fields
    said = {k.removeprefix("tokenizer.ggml."): v for k, v in fields.items() if not isinstance(v, list)}
    wanted = {"model": "llama", "bos_token_id": 1, "eos_token_id": 2, "unknown_token_id": 0, "padding_token_id": 3, "eot_token_id": 5,
              "add_bos_token": True, "add_eos_token": False, "add_space_prefix": False}
    assert {k: said[k] for k in wanted} == wanted and "<|im_start|>" in said["tokenizer.chat_template"]
    types = dict(zip(fields["tokenizer.ggml.tokens"], fields["tokenizer.ggml.token_type"]))
    assert types["<unk>"] == TokenType.UNKNOWN and all(types[s] == TokenType.CONTROL for s in SPECIALS[1:]) and types["\n"] == TokenType.USER_DEFINED and types["▁l"] == TokenType.NORMAL
    assert sum(t == TokenType.BYTE for t in types.values()) == 256 and file.read_bytes() == write_vocabulary(toy_tokenizer(), file.with_name("twice.gguf")).read_bytes()
    assert {p.name for p in file.parent.iterdir()} == {"toy.gguf", "twice.gguf"}      # no unfinished file is left


def test_vocabulary_is_read_from_a_whole_model(script, tmp_path):
    fields = vocabulary_fields(toy_tokenizer())
    assert read_vocabulary(script.random_model(fields, tmp_path/"model.gguf")).fields == fields


def test_every_turned_bit_is_found(file, tmp_path):
    "One bit anywhere: refused by name, or in a place (the file's version, padding, `general.`) that changes no field."
    data, wanted, r, found = file.read_bytes(), read_vocabulary(file).fields, random.Random(0), 0
    for at in [*range(64), *(r.randrange(64, len(data)) for _ in range(130))]:
        turned = bytearray(data); turned[at] ^= 1 << r.randrange(8)
        (path := tmp_path/"turned.gguf").write_bytes(turned)
        try: assert read_vocabulary(path).fields == wanted
        except BadInput as e: found += 1; assert "turned.gguf" in str(e)
    assert found > 150


@pytest.mark.parametrize("damage,message", [(lambda b: b"", "damaged"), (lambda b: b"text", "damaged"), (lambda b: b[:30], "ends within"), (lambda b: b[:-9000], "ends within"), (lambda b: b"{}" * 500, "magic"),
    (lambda b: b.replace(np.uint64(600).tobytes(), np.uint64(1 << 60).tobytes()), "ends within"), (lambda b: b.replace("église".encode(), b"eglise "), "digest"),
    (lambda b: b.replace(b"croissant.vocabulary", b"brioches_.vocabulary"), "another program"), (lambda b: b.replace(b"\x05\0\0\0\0\0\0\0llama\x15", b"\x05\0\0\0\0\0\0\0gpt2x\x15"), "gpt2x|digest")])
def test_damaged_and_foreign_files_are_refused(file, tmp_path, damage, message):
    changed = damage(data := file.read_bytes())
    (path := tmp_path/"faux.gguf").write_bytes(changed)
    assert changed != data
    with pytest.raises(BadInput, match=message): read_vocabulary(path)


def test_other_vocabularies_are_refused(tmp_path, monkeypatch):
    with pytest.raises(BadInput, match="no such file"): read_vocabulary(tmp_path/"absent.gguf")
    with pytest.raises(BadInput, match="no SentencePiece model"): write_vocabulary(paper_tokenizer(toy_texts("fr"), 500), tmp_path/"paper.gguf")
    writer = GGUFWriter(tmp_path/"gpt2.gguf", "gpt2")
    writer.add_tokenizer_model("gpt2"); writer.write_header_to_file(); writer.write_kv_data_to_file(); writer.close()
    with pytest.raises(BadInput, match="is 'gpt2'"): read_vocabulary(tmp_path/"gpt2.gguf")
    import sentencepiece as spm
    plain, fields = spm.SentencePieceProcessor.id_to_piece, forgeable()
    monkeypatch.setattr(spm.SentencePieceProcessor, "id_to_piece", lambda self, i: "<s" if i == len(fields["tokenizer.ggml.tokens"]) - 1 else plain(self, i))
    with pytest.raises(BadInput, match="a user could type '<s>'"): write_vocabulary(toy_tokenizer(), tmp_path/"forged.gguf")
    assert [p.name for p in tmp_path.iterdir()] == ["gpt2.gguf"]
