"""The tokenizer against peers, side by side in one process, one thread each, as ratios:  python benchmarks/tokenizer.py

Encoding: jsonl to a shard of token ids, and texts in memory to ids, against sentencepiece, tokenizers and transformers with the same
vocabulary; cold (every encoder is new, so that no cache knows a word of the text) and warm (the same encoder on the same text again).
Training: against sentencepiece called directly on a text file, and against the trainer of the tokenizers library. The ids, or the
pieces, of a comparison must be equal. Writes reports/benchmarks/tokenizer_{encoding,training}.json; above 1 means that ours is faster.
(Not called tokenizers.py: beside the other scripts, that name would hide the library.)
"""
from corpus import CORPUS, compared, sample, save, turns      # first: it sets one thread before any library looks

import io
import json
import sys
import tempfile
from itertools import chain, islice
from pathlib import Path

import numpy as np
import sentencepiece as spm
import tokenizers
from tokenizers import Regex, models, pre_tokenizers, trainers
from transformers import AutoTokenizer

from croissant.corpus import read_documents
from croissant.packing import CHUNK, pack_part
from croissant.params import BadInput, root
from croissant.tokenizer import REQUIRED, SPECIALS, SPLIT, Tokenizer, train_tokenizer

TOKENIZER, VOCABULARY, PLACEHOLDERS, ROWS = "artifacts/tokenizer/base32k", 32_000, 100, 1000
MEGABYTES, REPEATS = {"shards": 72, "ids": 24, "training": 88}, {"shards": 3, "ids": 3, "training": 9, "slow training": 3}
PEERS = ("sentencepiece", "tokenizers", "transformers")


def encoders(folder):
    "Side -> texts to ids: new objects, ready to work, that have seen no text yet. Ours gives one flat array, the peers a list of ids for each text."
    ours, (core, hf) = Tokenizer.load(folder), (tokenizers.Tokenizer.from_file(str(folder/"tokenizer.json")), AutoTokenizer.from_pretrained(folder, split_special_tokens=True))
    sp, core.encode_special_tokens = spm.SentencePieceProcessor(model_proto=ours.proto), True
    assert ours.core and ours.fast, "the quick encoder does not serve this vocabulary"
    return {"ours": ours,
            "sentencepiece": lambda texts: sp.encode(texts, num_threads=1),
            "tokenizers": lambda texts: [e.ids for e in core.encode_batch_fast(texts, add_special_tokens=False)],
            "transformers": lambda texts: hf(texts, add_special_tokens=False)["input_ids"]}


class Stock:
    "Encoders for every turn: cold ones are used once, warm ones again and again."
    def __init__(self, folder, cold, repeats):
        sets = [encoders(folder) for _ in range(repeats + 1 if cold else 1)]
        self.cold, self.of = cold, {side: [s[side] for s in sets] for side in sets[0]}

    def take(self, side): return self.of[side].pop() if self.cold else self.of[side][0]


def flat(rows): return np.fromiter(chain.from_iterable(rows), np.uint32)


def to_shards(folder, file, documents, size):
    "jsonl -> flat uint16 with a mark at either end of a document; whole files are compared, so every id of every document is."
    stock, bos, eos = Stock(root()/TOKENIZER, cold=True, repeats=REPEATS["shards"]), 1, 2

    def ours(): pack_part(read_documents(folder, "train", "fr"), stock.take("ours"), folder/"ours.bin")

    def peer(side):
        def run():
            encode = stock.take(side)
            with file.open(encoding="utf-8") as lines, (folder/f"{side}.bin").open("wb") as out:
                while rows := [json.loads(line)["text"] for line in islice(lines, ROWS)]:
                    out.write(np.fromiter(chain.from_iterable([bos, *ids, eos] for ids in encode(rows)), "<u2").tobytes())
        return run

    seconds = turns(ours, {side: peer(side) for side in PEERS}, REPEATS["shards"])
    wanted = (folder/"ours.bin").read_bytes()
    for side in PEERS: assert (folder/f"{side}.bin").read_bytes() == wanted, f"{side} gave different ids"
    return [row(seconds, side, size, "jsonl to shard", "cold", tokens=len(wanted) // 2 - 2 * documents) for side in PEERS]


def to_ids(texts, size, cold):
    "Texts in memory -> ids; those of the first turn, which is not counted, are compared."
    stock, made = Stock(root()/TOKENIZER, cold, REPEATS["ids"]), {}
    parts = {"ours": chunks(texts, CHUNK), **{side: [texts[i:i + ROWS] for i in range(0, len(texts), ROWS)] for side in PEERS}}

    def ours():
        encode = stock.take("ours").encode_flat
        found = [encode(part) for part in parts["ours"]]
        made.setdefault("ours", (np.concatenate([ids for ids, _ in found]), np.concatenate([lengths for _, lengths in found])))

    def peer(side):
        def run():
            encode = stock.take(side)
            found = [encode(part) for part in parts[side]]
            if side not in made: made[side] = flat(ids for part in found for ids in part), np.array([len(ids) for part in found for ids in part])
        return run

    seconds = turns(ours, {side: peer(side) for side in PEERS}, REPEATS["ids"])
    for side in PEERS: assert all(map(np.array_equal, made[side], made["ours"])), f"{side} gave different ids"
    return [row(seconds, side, size, "text to ids", "cold" if cold else "warm", tokens=len(made["ours"][0])) for side in PEERS]


def row(seconds, side, size, work, cache, **more):
    found = compared({"ours": seconds["ours"], f"{side}, {work}, {cache}": seconds[side]}, f"{side}, {work}, {cache}", size, **more)
    return {**found, "work": work, "cache": cache, "bytes": size, "same_ids": True}


def chunks(texts, limit):
    "Runs of texts of about so many bytes, as `pack_part` encodes them."
    found, total = [[]], 0
    for text in texts:
        if found[-1] and total + len(text.encode()) > limit: found.append([]); total = 0
        found[-1].append(text); total += len(text.encode())
    return found


def encoding(folder):
    "Three comparisons with three peers each, on the same documents; those with a real ▁, which sentencepiece takes for a space, are left out."
    drawn, every = sample(MEGABYTES["shards"]), MEGABYTES["shards"] // MEGABYTES["ids"]
    documents = [d for d in drawn if "▁" not in d["text"]]
    texts, file = [d["text"] for d in documents], folder/"train"/"fr.jsonl"
    file.parent.mkdir(parents=True)
    file.write_text("".join(json.dumps(d, ensure_ascii=False) + "\n" for d in documents), encoding="utf-8")
    size, some = sum(len(t.encode()) for t in texts), texts[::every]
    rows = [*to_shards(folder, file, len(documents), size), *(r for cold in (True, False) for r in to_ids(some, sum(len(t.encode()) for t in some), cold))]
    save("tokenizer_encoding", "the same vocabulary in four libraries, equal ids for every document; cold: new encoders each turn, warm: the same encoder on the same text again; "
         "jsonl to shard: read, encode, write flat uint16 with marks", ("gigatoken", "sentencepiece", "tokenizers", "transformers", "numpy"), rows,
         documents=len(documents), left_out=len(drawn) - len(documents))


def settings():
    "What `train_tokenizer` tells sentencepiece, written out as a user of that library would; equal pieces prove it."
    return dict(vocab_size=VOCABULARY, model_type="bpe", byte_fallback=True, normalization_rule_name="identity", add_dummy_prefix=False, remove_extra_whitespaces=False,
                split_digits=True, allow_whitespace_only_pieces=True, user_defined_symbols=["\n"], control_symbols=[*SPECIALS[4:], *(f"<extra_id_{i}>" for i in range(PLACEHOLDERS))],
                required_chars=REQUIRED, character_coverage=.9995, max_sentence_length=1 << 24, num_threads=1, minloglevel=2, unk_id=0, bos_id=1, eos_id=2, pad_id=3, pad_piece="<pad>")


def scored(proto):
    sp = spm.SentencePieceProcessor(model_proto=proto)
    return [(sp.id_to_piece(i), sp.get_score(i)) for i in range(sp.vocab_size())]


def training(folder):
    "A vocabulary from text. Ours also writes `tokenizer.json` for the other libraries, which sentencepiece does not; the third trainer has its own rule for merges, so only its time is compared."
    texts, made = [d["text"] for d in sample(MEGABYTES["training"])], {}
    file = folder/"train.txt"
    folder.mkdir(parents=True)
    file.write_text("\n".join(texts) + "\n", encoding="utf-8", newline="\n")

    def ours(): made["ours"] = train_tokenizer(texts, VOCABULARY, PLACEHOLDERS).proto

    def directly():
        out = io.BytesIO()
        spm.SentencePieceTrainer.train(input=str(file), model_writer=out, **settings())
        made["sentencepiece"] = out.getvalue()

    def huggingface():
        core = tokenizers.Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>"))
        core.pre_tokenizer = pre_tokenizers.Split(Regex(SPLIT), behavior="isolated")
        core.train_from_iterator(texts, trainers.BpeTrainer(vocab_size=VOCABULARY, special_tokens=[*SPECIALS, *(f"<0x{b:02X}>" for b in range(256))], initial_alphabet=list(REQUIRED), show_progress=False))

    size, peers = sum(len(t.encode()) for t in texts), {"sentencepiece, from a text file": directly, "tokenizers, BpeTrainer": huggingface}
    seconds = {name: turns(ours, {name: run}, repeats) for (name, run), repeats in zip(peers.items(), (REPEATS["training"], REPEATS["slow training"]))}
    assert scored(made["ours"]) == scored(made["sentencepiece"]), "the two trainings gave different pieces"
    rows = [compared(seconds[name], name, size, **more) for name, more in zip(peers, ({"same_pieces": True}, {}))]
    save("tokenizer_training", "a vocabulary from texts in memory, or for sentencepiece from a file with the same lines and settings; ours counts words first and includes the conversion to tokenizer.json; "
         "same_pieces: equal pieces with equal scores", ("sentencepiece", "tokenizers", "numpy"), rows, bytes=size, documents=len(texts), vocab_size=VOCABULARY)


def main():
    for path, stage in ((CORPUS, "build_corpus"), (TOKENIZER, "train_tokenizer")):
        if not (root()/path/"manifest.json").is_file(): raise BadInput(f"{path}: nothing to measure with; make it first (`dvc repro {stage}`)")
    with tempfile.TemporaryDirectory() as folder:
        for part in (encoding, training): part(Path(folder)/part.__name__)


if __name__ == "__main__":
    try: main()
    except BadInput as e: print(e, file=sys.stderr); sys.exit(2)
