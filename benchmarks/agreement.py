"""Do five readers of one vocabulary give the same ids?  python benchmarks/agreement.py

Ten thousand held-out sentences of every part of the corpus, about half of them with hostile characters: our loader one by one and in
batches, transformers on `tokenizer.json`, the algorithm of llama.cpp in Python on the GGUF vocabulary, and llama.cpp itself on a
GGUF model with random weights. Nothing is timed. Writes reports/benchmarks/agreement.json; tests/test_gguf_vocabulary.py
repeats it.
"""
import http.client
import json
import platform
import random
import re
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

import numpy as np
from gguf import GGUFWriter
from transformers import AutoTokenizer

from croissant.corpus import read_documents
from croissant.gguf_vocabulary import add_fields, encode_as_llama_cpp, read_vocabulary, vocabulary_fields, write_vocabulary
from croissant.packing import PARTS, render
from croissant.params import BadInput, root
from croissant.provenance import save_json
from croissant.tokenizer import SPECIALS, Tokenizer

CORPUS, TOKENIZER, SENTENCES = "artifacts/corpus", "artifacts/tokenizer/base32k", 10_000
ATOMS = [*"  \n\t\r\x00\x01\x1b\x7fabcéèàç09.<>|_-='’«»", "\u00a0", "\u202f", "\u200b", "\ufeff", "e\u0301", "中文", "日本語", "한국어", "العربية", "🥐", "👩‍👩‍👧", "🇫🇷", "½", "…", "ﬁ", "𝔘",
         "    ", "the ", "le chat", "def f(x):\n    return", "...", "aaaa", "église", *SPECIALS, "<extra_id_0>", "<0x41>", "<0x0A>", "\U0010ffff", "\u2028"]


def mixed(documents, n=SENTENCES, seed=0):
    "Sentences of documents; half as they are, a quarter with hostile atoms inside, a quarter made of nothing else. No ▁, which SentencePiece takes for a space."
    r, found = random.Random(seed), dict.fromkeys(["", " ", "\n", "\r\n", "\x00", *SPECIALS])
    sentences = (s for d in documents for s in re.split(r"(?<=[.!?;])(?= )|(?<=\n)", render(d)) if s and "▁" not in s)
    for i, sentence in enumerate(sentences):
        atoms = [r.choice(ATOMS) for _ in range(r.randrange(1, 12))]
        at = r.randrange(len(sentence) + 1)
        found[(sentence, sentence, sentence[:at] + "".join(atoms[:3]) + sentence[at:], "".join(atoms))[i % 4]] = None
        if len(found) == n: return list(found)
    raise AssertionError(f"only {len(found)} different sentences")


class LlamaCpp:
    "llama.cpp's server over a Llama of random weights, one narrow layer, that has the vocabulary to be tested."
    def __init__(self, fields, folder):
        import xllamacpp
        settings = xllamacpp.CommonParams()
        settings.model.path = str(random_model(fields, folder/"tiny.gguf"))
        settings.n_ctx, settings.n_parallel, settings.warmup = 256, 1, False
        self.server = xllamacpp.Server(settings)
        self.line = http.client.HTTPConnection(self.server.listening_address.rpartition("/")[2])

    def __enter__(self): return self
    def __exit__(self, *_): self.line.close(); del self.server

    def post(self, where, what):
        self.line.request("POST", where, json.dumps(what), {"Content-Type": "application/json"})
        answer = self.line.getresponse()
        body = answer.read()
        assert answer.status == 200, body
        return json.loads(body)

    def encode(self, text, add_special=False, parse_special=False): return self.post("/tokenize", {"content": text, "add_special": add_special, "parse_special": parse_special})["tokens"]


def random_model(fields, path, width=32):
    writer, r, vocab = GGUFWriter(path, "llama"), np.random.default_rng(0), len(fields["tokenizer.ggml.tokens"])
    for name, value in {"context_length": 256, "embedding_length": width, "block_count": 1, "feed_forward_length": width, "attention.head_count": 1, "rope.dimension_count": width}.items():
        writer.add_uint32(f"llama.{name}", value)
    writer.add_float32("llama.attention.layer_norm_rms_epsilon", 1e-5)
    add_fields(writer, fields)
    square, line = (width, width), (width,)
    shapes = {"token_embd": (vocab, width), "output_norm": line, "blk.0.attn_norm": line, "blk.0.ffn_norm": line,
              **{f"blk.0.{k}": square for k in ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down")}}
    for name, shape in shapes.items(): writer.add_tensor(f"{name}.weight", r.normal(0, .02, shape).astype(np.float32))
    writer.write_header_to_file(); writer.write_kv_data_to_file(); writer.write_tensors_to_file(); writer.close()
    return path


def held_out(n=SENTENCES):
    "Sentences of the documents that no vocabulary was fitted on."
    documents = [{"text": render(d)[:6000]} for part in PARTS for d in read_documents(root()/CORPUS, "test", part)]
    random.Random(0).shuffle(documents)
    return mixed(documents, n)


def agreement(tok, texts, folder):
    "Reader -> sentences for which its ids are those of our loader, called with one sentence at a time."
    one_by_one = [tok.encode(t) for t in texts]
    vocabulary = read_vocabulary(write_vocabulary(tok, folder/"vocabulary.gguf"))
    with LlamaCpp(vocabulary_fields(tok), folder) as engine:
        found = {"our loader, in batches": tok.encode_batch(texts),
                 "transformers, AutoTokenizer": AutoTokenizer.from_pretrained(tok.save(folder/"hf"), split_special_tokens=True)(texts, add_special_tokens=False)["input_ids"],
                 "GGUF vocabulary, llama.cpp's algorithm in Python": [encode_as_llama_cpp(vocabulary, t) for t in texts],
                 "GGUF vocabulary, llama.cpp itself": [engine.encode(t) for t in texts]}
    return {reader: sum(map(list.__eq__, ids, one_by_one)) for reader, ids in found.items()}


def main():
    for path, stage in ((CORPUS, "build_corpus"), (TOKENIZER, "train_tokenizer")):
        if not (root()/path/"manifest.json").is_file(): raise BadInput(f"{path}: nothing to compare with; make it first (`dvc repro {stage}`)")
    tok, texts = Tokenizer.load(root()/TOKENIZER), held_out()
    with tempfile.TemporaryDirectory() as folder: same = agreement(tok, texts, Path(folder))
    for reader, n in same.items(): print(f"{reader:50} {n:,} of {len(texts):,} sentences with the same ids")
    save_json({"what": "sentences of held-out documents for which a reader of the vocabulary gives the ids of our loader; about half of them with hostile characters; none holds ▁, which SentencePiece takes for a space",
               "vocabulary": Path(TOKENIZER).name, "fingerprint": tok.fingerprint, "sentences": len(texts), "not_ascii": sum(not t.isascii() for t in texts), "tokens": sum(map(len, tok.encode_batch(texts))),
               "same": same, "versions": {p: version(p) for p in ("sentencepiece", "tokenizers", "transformers", "gigatoken", "gguf", "xllamacpp")} | {"python": platform.python_version()}},
              root()/"reports/benchmarks/agreement.json")
    if all(n == len(texts) for n in same.values()): return 0
    print("the readers disagree: the vocabulary must not be exported before it is known why", file=sys.stderr)
    return 1


if __name__ == "__main__":
    try: sys.exit(main())
    except BadInput as e: print(e, file=sys.stderr); sys.exit(2)
