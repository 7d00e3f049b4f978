"""The paper's datasets, from a hub imitated on the loopback interface, from a cache filled beforehand, and from nowhere."""
import json
import os
import re
import socket
import subprocess
import sys
import time
from collections import Counter

import pyarrow as pa
import pyarrow.ipc
import pyarrow.parquet as pq
import pytest
from fresh_interpreter import run_script
from hub_imitation import COMMIT, imitate

from croissant.hub import HubDataset, check_shards, hub_dataset, hub_datasets, make_hub_record, split_pair, stream
from croissant.params import BadInput, root

FR = ["Le pain est prêt et sent bon.", "La pâte lève lentement au chaud.", "Le four est encore chaud, n'y touchez pas.", "Nous fermons à dix-neuf heures le samedi."]
EN = ["The bread is ready and smells good.", "The dough rises slowly in the warmth.", "The oven is still hot, do not touch it.", "We close at seven o'clock on Saturdays."]
PAIRS = HubDataset("exemple/paires", "", "data/{split}-*.parquet", "train test", "text", "dataset_id", "parallel", "mixed", "not stated", COMMIT, "a test", "", "this test")
PAGES = HubDataset("exemple/pages", "french_303b_1", "french_303b_1/{split}/*.arrow", "train", "text", "", "fr", "web", "not stated", COMMIT, "a test", "", "this test")
LINES = HubDataset("exemple/lignes", "", "{split}.jsonl", "train", "text", "", "fr", "web", "not stated", COMMIT, "a test", "", "this test")


@pytest.fixture
def repository(tmp_path):
    "Files laid out like the paper's: numbered Parquet, an Arrow folder as `save_to_disk` leaves it, JSON lines."
    files = tmp_path/"repo"
    (files/"data").mkdir(parents=True); (files/"french_303b_1/train").mkdir(parents=True)
    texts = [f"{EN[0]}\t{FR[0]}", f"{FR[1]}\t{EN[1]}", "Une phrase seule, sans traduction.", f"{FR[2]}\t{EN[2]}"]
    for i in range(2): pq.write_table(pa.table({"text": texts[2*i:2*i+2], "dataset_id": ["CustomFrEn"] * 2}), files/f"data/train-{i:05d}-of-00002.parquet")
    pages = pa.table({"text": [*FR, None, "  "]})
    with pa.OSFile(str(files/"french_303b_1/train/data-00000-of-00001.arrow"), "wb") as f, pa.ipc.new_stream(f, pages.schema) as w: w.write_table(pages)
    (files/"train.jsonl").write_text("".join(json.dumps({"text": t}, ensure_ascii=False) + "\n" for t in FR), encoding="utf-8")
    return files


@pytest.fixture
def hub(repository):
    "A hub that has these files under every name of one owner; yields its address and what it was asked."
    with imitate(lambda name: repository if name.startswith("exemple/") else None) as found: yield found


@pytest.fixture
def closed():
    "An address where nobody listens: what a machine without network sees, whatever network it has."
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{s.getsockname()[1]}"


def read(home, d, endpoint, offline=False, **how):
    "Stream in a process of its own (a fork, see fresh_interpreter.py), since the hub's library reads its environment once; records and counts, or the error."
    script = ("import json, sys\nfrom collections import Counter\nfrom croissant.hub import HubDataset, stream\nfrom croissant.params import BadInput\n"
              "d, how = json.loads(sys.argv[1]); n = Counter()\n"
              "try: print(json.dumps([list(stream(HubDataset(**d), counts=n, **how)), n]))\nexcept BadInput as e: print(json.dumps(str(e)))\n")
    env = {k: v for k, v in os.environ.items() if not k.startswith("HF_")} | {"HF_HOME": str(home), "HF_ENDPOINT": endpoint, "HF_HUB_DISABLE_TELEMETRY": "1", "HF_HUB_DISABLE_XET": "1"}
    done = run_script(script, json.dumps([d.__dict__, how]), env=env | ({"HF_HUB_OFFLINE": "1"} if offline else {}))
    assert done.returncode == 0, done.stderr
    *printed, last = done.stdout.splitlines()
    return json.loads(last), printed


def test_records_from_a_hub(hub, tmp_path):
    address, asked = hub
    (records, counts), printed = read(tmp_path/"home", PAIRS, address)
    assert [(r["fr"], r["en"]) for r in records] == list(zip(FR, EN))[:3] and not printed
    assert counts == {"rows": 4, "records": 3, "not a French-English pair": 1}
    assert {r["source"] for r in records} == {"CustomFrEn"} and records[0]["package"] == f"exemple/paires@{COMMIT}" and records[0]["language"] == "parallel"
    assert any("/resolve/" + COMMIT in a for a in asked) and not any("/main" in a for a in asked)   # a commit is asked for, never a branch


def test_an_arrow_folder_from_a_hub(hub, tmp_path):
    (records, counts), _ = read(tmp_path/"home", PAGES, hub[0])
    assert [r["text"] for r in records] == FR and counts == {"rows": 6, "records": 4, "no text": 2}
    assert records[0]["source"] == "french_303b_1" and records[0]["licence"] == "not stated"


def test_a_branch_is_resolved_once_and_the_pin_printed(hub, tmp_path):
    (records, _), printed = read(tmp_path/"home", LINES, hub[0], revision="main", limit=2)
    assert printed == [f'exemple/lignes: main is {COMMIT} now; pin it: revision="{COMMIT}"'] and len(records) == 2
    assert sum("/main" in a for a in hub[1]) == 1


def test_what_the_hub_lacks(hub, tmp_path, repository):
    error, _ = read(tmp_path/"home", PAIRS, hub[0], revision="f" * 40)
    assert "has no exemple/paires at ffff" in error
    (repository/"data/train-00001-of-00002.parquet").unlink()
    error, _ = read(tmp_path/"home", PAIRS, hub[0])
    assert "1 of 2 files" in error and "00001" in error


def test_a_filled_cache_serves_without_a_network(hub, closed, tmp_path):
    home = tmp_path/"home"
    fill = f"from huggingface_hub import snapshot_download\nsnapshot_download('exemple/paires', repo_type='dataset', revision='{COMMIT}', allow_patterns='data/*')"
    env = {k: v for k, v in os.environ.items() if not k.startswith("HF_")} | {"HF_HOME": str(home), "HF_ENDPOINT": hub[0], "HF_HUB_DISABLE_XET": "1"}
    subprocess.run([sys.executable, "-c", fill], check=True, capture_output=True, timeout=120, env=env)
    online, offline = read(tmp_path/"other", PAIRS, hub[0]), read(home, PAIRS, closed, offline=True)
    assert offline == online and len(online[0][0]) == 3
    next(home.rglob("train-00001-of-00002.parquet")).unlink()
    for d in (PAIRS, PAGES):                                      # half of one dataset, nothing of the other
        error, _ = read(home, d, closed, offline=True)
        assert d.name in error and "the cache does not hold all of it" in error


@pytest.fixture
def silent():
    "An address that takes calls and never answers, as behind some firewalls."
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0)); s.listen(50)
        yield f"http://127.0.0.1:{s.getsockname()[1]}"


@pytest.mark.parametrize("network", ["closed", "silent"])
def test_no_network_is_one_sentence_within_seconds(network, request, tmp_path):
    closed = request.getfixturevalue(network)
    started = time.monotonic()
    error, _ = read(tmp_path/"home", hub_dataset("manu/english-60b"), closed)
    assert time.monotonic() - started < 15
    assert error.startswith("manu/english-60b") and "\n" not in error
    for remedy in ("HF_ENDPOINT", "hf download manu/english-60b --repo-type dataset --revision 21120b0d", "HF_HUB_OFFLINE=1", "folder="): assert remedy in error


def test_a_local_folder(repository):
    n = Counter()
    assert [r["fr"] for r in stream(PAIRS, folder=repository, counts=n)] == FR[:3]
    assert n["rows"] == sum(v for k, v in n.items() if k != "rows")
    assert [r["text"] for r in stream(LINES, folder=repository, limit=3)] == FR[:3]


def test_a_folder_is_of_no_commit_unless_one_is_given(repository):
    "The table's commit proves nothing about a folder."
    packages = lambda **how: {r["package"] for r in stream(PAIRS, folder=repository, **how)}
    assert packages() == {"exemple/paires@local"} and packages(revision="b" * 40) == {"exemple/paires@" + "b" * 40}
    with pytest.raises(BadInput, match="'main' is no commit"): packages(revision="main")


def test_invalid_utf8_is_an_error_not_a_loss(repository):
    with (repository/"train.jsonl").open("ab") as f: f.write(b'{"text": "caf\xe9"}\n')
    with pytest.raises(BadInput, match="exemple/lignes: reading .*train.jsonl broke off"): list(stream(LINES, folder=repository))


@pytest.mark.parametrize("how,words", [
    (dict(dataset="manu/french-30b"), "branch name such as main can move"),
    (dict(dataset="croissantllm/CroissantLLM-2201-sft"), "dialogues"),
    (dict(dataset=PAIRS, split="validation"), "no split 'validation'; known: train test"),
    (dict(dataset=PAIRS, split="test", folder="."), "no file data/test-"),
    (dict(dataset=HubDataset(**PAIRS.__dict__ | {"files": "{split}.zip"}), folder="."), r"no file train.zip"),
    (dict(dataset="manu/english60b"), "did you mean manu/english-60b"),
])
def test_wrong_use_fails_at_the_call(how, words):
    with pytest.raises(BadInput, match=words): stream(**how)          # the call, not the first row


def test_the_table_invents_no_commit():
    table = hub_datasets()
    assert {d.dataset for d in table} >= {"croissantllm/croissant_dataset", "croissantllm/croissant_dataset_no_web_data", "manu/french-30b", "manu/english-60b", "manu/code_20b", "manu/tok-corpus-shuffled"}
    for d in table:
        assert re.fullmatch(r"[0-9a-f]{40}|", d.revision) and d.known_from and d.section
        assert d.revision or "hash" in d.known_from                       # an empty cell is explained
    split_names = {r.split(",")[0].lower() for r in (root()/"reports/paper/sampler_weights.csv").read_text(encoding="utf-8").splitlines()[1:]}
    assert split_names == {d.part.lower() for d in table if d.dataset == "croissantllm/croissant_dataset"}   # what the released configuration samples from


@pytest.mark.parametrize("change,words", [({"revision": "main"}, "40 hexadecimal digits"), ({"language": "de"}, "unknown language 'de'")])
def test_a_damaged_table_is_refused(tmp_path, change, words):
    row = PAIRS.__dict__ | change
    (tmp_path/"t.csv").write_text(",".join(row) + "\n" + ",".join(row.values()) + "\n", encoding="utf-8")
    with pytest.raises(BadInput, match=words): hub_datasets(tmp_path/"t.csv")
    (tmp_path/"t.csv").write_text("dataset,part\na,b\n", encoding="utf-8")
    with pytest.raises(BadInput, match="no column files"): hub_datasets(tmp_path/"t.csv")


def test_pairs_are_told_apart_in_either_order():
    for fr, en in zip(FR, EN): assert split_pair(f"{fr}\t{en}") == split_pair(f"{en}\t{fr}") == (fr, en)
    for wrong in (FR[0], f"{FR[0]}\t{FR[1]}", f"{EN[0]}\t{EN[1]}", f"{FR[0]}\t", f"{FR[0]}\t{EN[0]}\t{FR[1]}", f"Das Brot ist bald fertig.\t{EN[0]}"): assert split_pair(wrong) is None, wrong


def test_rows_that_do_not_fit_have_a_reason():
    mixed = HubDataset(**PAIRS.__dict__ | {"language": "mixed"})
    assert make_hub_record({"text": FR[0]}, mixed, "x@1")[0]["language"] == "fr"
    assert make_hub_record({"text": EN[0]}, mixed, "x@1")[0]["language"] == "en"
    for row, reason in (({"text": "Das Brot ist bald fertig und duftet."}, "neither French nor English"), ({}, "no text column"), ({"text": None}, "no text"), ({"text": "caf\ufffd"}, "lost characters")):
        assert make_hub_record(row, mixed, "x@1") == (None, reason)


def test_shards_of_two_splits_are_counted_apart():
    check_shards(["train-00000-of-00001.parquet", "test-00000-of-00001.parquet", "other.parquet"], "x")
    with pytest.raises(BadInput, match=r"2 of 3 files test-\*-of-00003 are missing, the first is number 00000"): check_shards(["train-00000-of-00001.parquet", "test-00001-of-00003.parquet"], "x")
