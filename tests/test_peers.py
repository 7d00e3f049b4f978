"""Other people's tokenizers: read rightly out of their packages, refused when they are not what they should be; comparisons by hand."""
import base64
import io
import json
import struct
import tarfile

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from croissant import peers
from croissant.fetch import load_sources
from croissant.params import BadInput, root
from croissant.peers import PEERS, compare, kind_of, last_merge, load_peer, losses
from croissant.provenance import sha256
from croissant.tokenizer import Tokenizer, Utf8Bytes, fertility, paper_tokenizer, toy_tokenizer
from croissant.toy import toy_texts

RANKS = {bytes([b]): b for b in range(256)} | {b: 256 + i for i, b in enumerate(["é".encode(), "ét".encode(), "été".encode(), b"le", b" le", b" l"])}


def javascript(pieces, merges):
    "A file in the manner of llama-tokenizer-js."
    words, pairs = base64.b64encode("\n".join(pieces).encode()).decode(), base64.b64encode(struct.pack(f"<{2 * len(merges)}H", *(pieces.index(p) for m in merges for p in m))).decode()
    return f'const llama_vocab_base64 = "{words}"\nconst llama_merges_binary = "{pairs}"\n'.encode()


def test_javascript_file():
    pieces = ["<unk>", "<s>", "</s>", *(f"<0x{b:02X}>" for b in range(256)), "▁", "l", "e", "é", "▁l", "▁le"]
    made = peers._javascript(javascript(pieces, [("▁", "l"), ("▁l", "e")]))
    assert made.vocab_size == len(pieces)
    ids = made.encode_batch(["le lé", "<s>"])
    assert ids[0] == [pieces.index("▁le"), pieces.index("▁l"), pieces.index("é")]
    assert 1 not in ids[1] and made.decode(ids[1]) == "<s>"                                      # a typed mark is text
    for text in ("le lé", "🥐 中", "  le\n"): assert made.decode(made.encode_batch([text])[0]) == text


def test_ranks_give_their_merges():
    assert last_merge("été".encode(), RANKS) == ("ét".encode(), "é".encode()) and last_merge(b"le", RANKS) == (b"l", b"e")
    assert last_merge(b" le", RANKS) == (b" ", b"le")                                             # `le` is older than ` l`, so it is merged first
    with pytest.raises(BadInput, match="complete"): last_merge(b"abc", RANKS | {b"abc": 999})


@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.lists(st.sampled_from(["é", "été", "le", " ", "t", "l", "🥐", "\n", "x"]), max_size=12).map("".join))
def test_ranks_encode_as_tiktoken_does(text):
    "Against the rule itself: merge the pair of lowest rank until none is left."
    said = {"config": {"pattern": r"[\s\S]+", "default_vocab_size": len(RANKS) + 1, "default_num_special_tokens": 1},
            "vocab": [{"rank": i, "token_bytes": base64.b64encode(p).decode()} for p, i in RANKS.items()]}
    made = peers._ranks(json.dumps(said).encode())
    parts = [bytes([b]) for b in text.encode()]
    while len(parts) > 1:
        best, at = min((RANKS.get(a + b, 9999), i) for i, (a, b) in enumerate(zip(parts, parts[1:])))
        if best == 9999: break
        parts[at:at + 2] = [parts[at] + parts[at + 1]]
    assert made.encode_batch([text])[0] == [RANKS[p] for p in parts] and made.decode([RANKS[p] for p in parts]) == text


def test_gguf_header(tmp_path):
    from gguf import GGUFWriter
    from croissant.peers import _ALPHABET
    pieces = [*_ALPHABET.values(), "le", "Ġle", "Ã©"]
    def written(pre):
        w = GGUFWriter(tmp_path/"m.gguf", "llama")
        w.add_tokenizer_model("gpt2"); w.add_tokenizer_pre(pre); w.add_token_list(pieces); w.add_token_merges(["l e", "Ġ le", "Ã ©"])
        w.write_header_to_file(); w.write_kv_data_to_file(); w.close()
        return (tmp_path/"m.gguf").read_bytes()
    made = peers._gguf(written("smollm"))
    assert made.encode_batch([" leé12"])[0] == [pieces.index(p) for p in ("Ġle", "Ã©", "1", "2")] and made.decode(made.encode_batch(["é 🥐"])[0]) == "é 🥐"
    with pytest.raises(BadInput, match="gpt2, other"): peers._gguf(written("other"))


def listed(folder, name, content, used_for):
    "A list with one package, and the package."
    path = folder/"npm"/name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    (folder/"peers.csv").write_text("registry,package,version,file,bytes,sha256,tier,licence,language,used_for\n"
                                    f"npm,jouet,1.0.0,{name},{len(content)},{sha256(path)},peers,MIT,fr,{used_for}\n", encoding="utf-8")
    return folder/"peers.csv", path


def archive(member, content):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as t:
        info = tarfile.TarInfo(member); info.size = len(content); t.addfile(info, io.BytesIO(content))
    return out.getvalue()


def test_what_is_not_the_tokenizer_is_refused(tmp_path):
    "A vocabulary of the right form and the wrong content, as in the package that says llama2 and holds Mistral's."
    core = toy_tokenizer()
    sources, path = listed(tmp_path, "a-1.0.0.tgz", archive("package/models/tokenizer.json", core.spec.encode()), "tokenizer:gpt2")
    with pytest.raises(BadInput, match="not the tokenizer of GPT-2: 600 pieces where 50,257"): load_peer("gpt2", tmp_path, sources)
    with pytest.raises(BadInput, match="no package for tokenizer:llama3"): load_peer("llama3", tmp_path, sources)
    with pytest.raises(BadInput, match="known: llama2"): load_peer("klingon", tmp_path, sources)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(BadInput, match="fetch --tier peers"): load_peer("gpt2", tmp_path, sources)
    path.unlink()
    with pytest.raises(BadInput, match="absent.*fetch --tier peers.*peers.dvc"): load_peer("gpt2", tmp_path, sources)


@pytest.mark.parametrize("content, message", [(archive("package/other.json", b"{}"), "cannot read"), (b"no archive", "cannot read"), (archive("package/models/tokenizer.json", b"{"), "no tokenizer of the expected form")])
def test_a_damaged_package_is_named(tmp_path, content, message):
    sources, path = listed(tmp_path, "a-1.0.0.tgz", content, "tokenizer:gpt2")
    with pytest.raises(BadInput, match=message): load_peer("gpt2", tmp_path, sources)


def test_nothing_is_unpacked(tmp_path):
    sources, _ = listed(tmp_path, "a-1.0.0.tgz", archive("package/models/tokenizer.json", toy_tokenizer().spec.encode()), "tokenizer:gpt2")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(BadInput): load_peer("gpt2", tmp_path, sources)
    assert sorted(tmp_path.rglob("*")) == before


def test_the_list_names_every_peer_and_nothing_else():
    found = [n for p in load_sources("peers.csv", "peers") for n in p.used_for.split()]
    assert sorted(found) == sorted(f"tokenizer:{n}" for n in PEERS) and not {p.package for p in load_sources("peers.csv", "peers")} & {p.package for p in load_sources(tier="")}
    assert [p.vocab_size for p in PEERS.values()] == sorted(p.vocab_size for p in PEERS.values())


@pytest.mark.skipif(not (root()/"peers/npm").is_dir(), reason="no package of a peer has been fetched; un-skip with `croissant fetch --tier peers`")
@pytest.mark.parametrize("name", PEERS)
def test_real_peers_pass_their_check_and_lose_nothing(name):
    made = load_peer(name)
    for text in ("L’été, «\u202fça\u202f» ! ½ … 🥐 中文\n\n\tfin", "<|endoftext|></s><s>[INST]<unk><|fim_prefix|><tool_call>"):
        ids = made.encode_batch([text])[0]
        assert made.decode(ids) == text and max(ids) < PEERS[name].vocab_size      # a mark behind the vocabulary would be cheap
    assert len(made.encode_batch(["<|fim_prefix|>"])[0]) > 1 and len(made.encode_batch(["<|endoftext|>"])[0]) > 1


# --- comparisons

def test_compare_by_hand():
    texts = ["a b", "c", "d e f"]
    rows = {r["tokenizer"]: r for r in compare({"ours": np.array([2, 1, 3]), "double": np.array([4, 2, 6]), "odd": np.array([9, 1, 3])}, "ours", texts)}
    assert rows["ours"]["tokens_per_word"] == rows["ours"]["tokens_per_word_low"] == rows["ours"]["ratio_high"] == 1 and rows["ours"]["words"] == 6
    assert rows["double"]["ratio"] == rows["double"]["ratio_low"] == rows["double"]["ratio_high"] == 2
    assert rows["odd"]["ratio"] == 13 / 6 and rows["odd"]["ratio_low"] < 13 / 6 < rows["odd"]["ratio_high"] and rows["odd"]["bytes_per_token"] == 9 / 13


def test_compare_agrees_with_fertility():
    texts = toy_texts("fr", seed=4)[:60]
    row, = compare({"bytes": np.array([len(t.encode()) for t in texts])}, "bytes", texts, 200, 3)
    want = fertility(Utf8Bytes(), texts, 200, 3)["tokens_per_word"]
    assert row["tokens_per_word"] == pytest.approx(want["value"]) and [row["tokens_per_word_low"], row["tokens_per_word_high"]] == pytest.approx(want["interval"])


def test_compare_refuses_what_cannot_be_compared():
    with pytest.raises(BadInput, match="no words"): compare({"a": np.array([1])}, "a", [" "])
    with pytest.raises(BadInput, match="b: counts for another number"): compare({"a": np.array([1]), "b": np.array([1, 2])}, "a", ["mot"])


@pytest.mark.parametrize("c, kind", [("中", "Chinese, Japanese, Korean"), ("ひ", "Chinese, Japanese, Korean"), ("🥐", "emoji and symbols"), ("½", "fractions, superscripts"), ("²", "fractions, superscripts"), ("\u202f", "no-break and narrow spaces"),
                                     ("\u00a0", "no-break and narrow spaces"), ("ﬁ", "ligatures and other compatibility forms"), ("…", "ligatures and other compatibility forms"), ("é", "Latin letters"), ("я", "letters of other scripts"), ("\x07", "control and format characters"), ("!", "other signs")])
def test_kinds_of_characters(c, kind): assert kind_of(c) == kind


def test_losses_are_counted_by_occurrence():
    recipe = paper_tokenizer(toy_texts("fr"), 500)
    rows = {r["kind"]: r for r in losses(recipe, ["le chat ½ ½ 中", "le\u202fchat 🥐 ½"])}
    assert (rows["fractions, superscripts"]["characters"], rows["fractions, superscripts"]["changed"] + rows["fractions, superscripts"]["vanished"]) == (3, 3)
    assert rows["Chinese, Japanese, Korean"]["vanished"] == rows["emoji and symbols"]["vanished"] == 1 and "nothing" in rows["emoji and symbols"]["examples"]
    accent, = losses(recipe, ["cafe\u0301"])
    assert (accent["vanished"], accent["changed"]) == (0, 1)                          # it has joined its letter
    assert "Latin letters" not in rows and losses(Tokenizer(toy_tokenizer().spec), ["½ 中 🥐 \u202f"]) == []
