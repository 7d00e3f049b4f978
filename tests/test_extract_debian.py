"""Debian packages made here, hostile ones too, and every extractor of the full tier on a few lines of its format."""
import gzip
import io
import json
import lzma
import struct
import tarfile
import tracemalloc
import zipfile
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from croissant import extract_debian as module
from croissant.extract import BENCHMARKS, EXTRACTORS, Skip, extract
from croissant.extract_debian import (align, author_name, deb_members, description_blocks, divide, gathered, grammar_cases, html_blocks, judge_page, left_in_english, littre_entry, man_blocks,
                                      pod_blocks, pod_text, quotation, r_strings, roff_text, slices, wiki_text, xml_blocks)
from croissant.fetch import Package
from croissant.params import BadInput


def tar(files, mode="w:xz", infos=()):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode, format=tarfile.GNU_FORMAT) as t:
        for name, data in files.items():
            info = tarfile.TarInfo(name); info.size = len(data); t.addfile(info, io.BytesIO(data))
        for info in infos: t.addfile(info)
    return buffer.getvalue()


def ar(path, parts):
    path.write_bytes(b"!<arch>\n" + b"".join(f"{n:<16}{0:<12}{0:<6}{0:<6}{100644:<8}{len(b):<10}`\n".encode() + b + b"\n" * (len(b) % 2) for n, b in parts.items()))
    return path


def deb(path, files, infos=()): return ar(path, {"debian-binary": b"2.0\n", "control.tar.xz": tar({}), "data.tar.xz": tar(files, infos=infos)})


def one(tmp_path, name, files): return kept(EXTRACTORS[name].read(deb(tmp_path/"p.deb", files)))


def kept(pieces): return [x for x in pieces if not isinstance(x, Skip)]


def reasons(pieces): return [x.reason for x in pieces if isinstance(x, Skip)]


PROSE = "Il était une fois un boulanger qui se levait avant le jour pour pétrir sa pâte. "
ENGLISH = "Once upon a time there was a baker who rose before dawn to knead his dough. "


# --- packages

@pytest.mark.parametrize("name, mode", [("data.tar.xz", "w:xz"), ("data.tar.gz", "w:gz"), ("data.tar", "w:")])
def test_each_compression(tmp_path, name, mode):
    path = ar(tmp_path/"a.deb", {"debian-binary": b"2.0\n", name: tar({"./usr/a": b"un", "./usr/b": b"deux"}, mode)})
    assert list(deb_members(path, "usr/")) == [("usr/a", b"un"), ("usr/b", b"deux")] and list(deb_members(path, "b$")) == [("usr/b", b"deux")]


def test_nothing_is_written_and_odd_names_are_refused(tmp_path):
    assert [n for n, _ in deb_members(deb(tmp_path/"a.deb", {"./usr/ok": b"z"}), ".")] == ["usr/ok"]
    for name in ("../../evil", "/etc/passwd", "./usr/../../x"):
        with pytest.raises(BadInput, match="a.deb: member .* points outside"): list(deb_members(deb(tmp_path/"a.deb", {name: b"x"}), "."))
    assert [p.name for p in tmp_path.iterdir()] == ["a.deb"]


def test_links_are_passed_over_and_devices_refused(tmp_path):
    infos = []
    for kind, target in ((tarfile.SYMTYPE, "/etc/passwd"), (tarfile.LNKTYPE, "usr/a"), (tarfile.SYMTYPE, "../../../etc/shadow")):
        info = tarfile.TarInfo(f"usr/link{len(infos)}"); info.type, info.linkname = kind, target; infos.append(info)
    assert [n for n, _ in deb_members(deb(tmp_path/"a.deb", {"usr/a": b"x"}, infos), ".")] == ["usr/a"]
    device = tarfile.TarInfo("usr/null"); device.type = tarfile.CHRTYPE
    with pytest.raises(BadInput, match="usr/null.* is a link, a device"): list(deb_members(deb(tmp_path/"a.deb", {"usr/a": b"x"}, [device]), "."))


def test_damaged_packages_are_named(tmp_path):
    whole = deb(tmp_path/"a.deb", {"./usr/a": bytes(range(256)) * 40}).read_bytes()
    with pytest.raises(BadInput, match="x.deb: no such package; fetch"): list(deb_members(tmp_path/"x.deb", "."))
    def refused(raw, match):
        (tmp_path/"b.deb").write_bytes(raw)
        with pytest.raises(BadInput, match=match) as e: list(deb_members(tmp_path/"b.deb", "."))
        assert "b.deb: damaged package" in str(e.value) and "fetch it again" in str(e.value)
    refused(b"PK\3\4 a zip file", "not a Debian package")
    refused(b"", "not a Debian package")
    refused(b"!<arch>\n", "no data.tar inside")
    refused(b"!<arch>\n" + b"x" * 60, "no data.tar inside")
    for cut in (len(whole) - 1, len(whole) - 60, len(whole) // 2 + 130): refused(whole[:cut], "damaged")
    middle = len(whole) - 80
    refused(whole[:middle] + bytes(x ^ 255 for x in whole[middle:middle + 8]) + whole[middle + 8:], "damaged")


def test_the_checksum_is_read_even_if_nothing_matches(tmp_path):
    data = bytearray(tar({"a": b"0123456789" * 900}, "w:gz")); data[-6] ^= 255   # the CRC of the gzip stream
    with pytest.raises(BadInput, match="CRC"): list(deb_members(ar(tmp_path/"a.deb", {"data.tar.gz": bytes(data)}), "nothing"))


def test_unknown_compressions_say_what_to_do(tmp_path):
    with pytest.raises(BadInput, match="data.tar.zst: the standard library cannot read.*dpkg-deb -Zxz"): list(deb_members(ar(tmp_path/"z.deb", {"data.tar.zst": b"\x28\xb5\x2f\xfd"}), "."))


@pytest.mark.parametrize("pattern", [".", "nothing"])
def test_bombs_are_refused(tmp_path, pattern):
    path = deb(tmp_path/"a.deb", {"usr/a": bytes(60_000_000)})
    assert path.stat().st_size < 20_000
    with pytest.raises(BadInput, match="a.deb: .*expands to more than"): list(deb_members(path, pattern))


def test_a_file_without_an_end_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "MAX_TOTAL", 1 << 20)
    with pytest.raises(BadInput, match="no end"): list(deb_members(ar(tmp_path/"a.deb", {"data.tar.xz": lzma.compress(tar({"usr/a": b"x"}, "w:") + bytes(30_000_000))}), "."))


def test_a_decompressor_that_asks_for_much_memory_is_refused(tmp_path):
    greedy = lzma.compress(tar({"usr/a": b"x"}, "w:"), filters=[{"id": lzma.FILTER_LZMA2, "dict_size": 1 << 20}]) 
    with pytest.MonkeyPatch.context() as m:
        m.setattr(module, "MAX_MEMORY", 100_000)
        with pytest.raises(BadInput, match="damaged package.*emory"): list(deb_members(ar(tmp_path/"a.deb", {"data.tar.xz": greedy}), "."))
    assert list(deb_members(tmp_path/"a.deb", ".")) == [("usr/a", b"x")]


# --- pages

@pytest.mark.parametrize("page, blocks", [
    ("<h1>Un</h1><p>a  b\n c</p>", [("h", "Un"), ("p", "a b c")]), ("<p>5&nbsp;%</p>", [("p", "5\u00a0%")]), ("texte nu", [("p", "texte nu")]),
    ("<ul><li>a<ul><li>b</li></ul></li></ul>", [("li", "a"), ("li", "b")]), ("<ul><li><p>a</p><p>b</p></li></ul>", [("li", "a"), ("p", "b")]),
    ("<dl><dt>a</dt><dd>b</dd></dl>", [("dt", "a"), ("dd", "b")]), ("<pre>x\n  y</pre><p>z</p>", [("pre", "x\n  y"), ("p", "z")]),
    ("<table><tr><td>a</td><td>b</td></tr></table>", [("td", "a"), ("td+", "b")]), ("<p>a<br>b</p>", [("p", "a b")]), ("<nav>x</nav><script>y</script><p>z</p>", [("p", "z")]),
    ("<p>a<!-- b -->c</p>", [("p", "ac")]), ("<p>x <code>f()</code>.</p>", [("p", "x f().")]), ("", [])])
def test_html(page, blocks): assert html_blocks(f"<html><body>{page}</body></html>".encode()) == blocks


def test_html_leaves_out_classes_and_ids_and_keeps_what_follows():
    assert html_blocks(b"<body><p>a<span class='x headerlink'>#</span> b</p><div id='toc'>c</div><p>d</p></body>", skip="headerlink toc") == [("p", "a b"), ("p", "d")]
    assert html_blocks(b"<body><p>a</p><div role='main'><p>b</p></div></body>", "//*[@role='main']") == [("p", "b")] and html_blocks(b"<body/>", "//main") == []


@pytest.mark.parametrize("raw", [b"", b"\0\xff\xfe", b"<" * 5000, b"<div>" * 20_000 + b"x", b"<a " + b"b=1 " * 9000])
def test_broken_pages_do_not_break_the_reader(raw): assert isinstance(html_blocks(raw), list) and isinstance(xml_blocks(raw), list)


def test_mallard(tmp_path):
    page = """<page xmlns="http://projectmallard.org/1.0/"><info><link type="guide" xref="a"/><desc>non</desc></info><title>Le four</title>
      <p>Voir <link xref="pain">le pain</link>, puis <guiseq><gui>Four</gui><gui>Chaud</gui></guiseq>.</p><p>Voir <link xref="b"/>.</p><steps><item><p>Attendez.</p></item></steps><code>x = 1</code></page>"""
    assert xml_blocks(page.encode()) == [("h", "Le four"), ("p", "Voir le pain, puis Four ▸ Chaud."), ("li", "Attendez."), ("pre", "x = 1")]


def test_entities_are_not_resolved(tmp_path):
    (tmp_path/"secret").write_text("secret")
    assert "secret" not in str(xml_blocks(f'<!DOCTYPE p [<!ENTITY e SYSTEM "file://{tmp_path}/secret">]><page><p>a &e; b</p></page>'.encode()))


def test_pages_of_code_or_names_are_no_texts():
    assert judge_page([("h", "T"), ("p", PROSE * 3), ("td", "a"), ("td+", "b"), ("li", "c")]) == ("T\n" + PROSE * 3 + "\na | b\n- c", "")
    assert judge_page([("p", PROSE)]) == ("", "too short") and judge_page([("p", PROSE)], min_chars=50) == (PROSE, "")
    assert judge_page([("p", PROSE * 3), ("pre", "x" * 1000)]) == ("", "mostly code or names") and judge_page([("li", "nom")] * 300) == ("", "too short")
    assert judge_page([("p", "1 + 2 = 3; " * 40)]) == ("", "mostly symbols") and judge_page([]) == ("", "too short")


# --- alignment

def test_alignment_of_equal_kinds_is_the_diagonal():
    assert align([("h", "Titre"), ("p", "Bonjour à tous.")], [("h", "Title"), ("p", "Hello to all.")]) == [(0, 0), (1, 1)]


def test_alignment_steps_over_what_one_side_has_alone():
    fr = [("p", f"La valeur {i} est rangée dans le registre {i * 7}.") for i in range(8)]
    en = [("p", f"The value {i} is stored in the register {i * 7}.") for i in range(8)]
    assert align(fr[:3] + [("li", "Remarque.")] + fr[3:], en) == [(i + (i > 2), i) for i in range(8)]
    assert align(fr, en[:2] + en[5:]) == [(0, 0), (1, 1), (5, 2), (6, 3), (7, 4)]
    assert align([], en) == [] and align(fr, []) == []


@given(st.lists(st.tuples(st.sampled_from(["p", "h", "li"]), st.text("abc 12", max_size=30)), max_size=12), st.lists(st.tuples(st.sampled_from(["p", "h"]), st.text("abc 12", max_size=30)), max_size=12))
def test_alignments_are_monotone(fr, en):
    pairs = align(fr, en)
    assert all(a < c and b < d for (a, b), (c, d) in zip(pairs, pairs[1:])) and all(i < len(fr) and j < len(en) for i, j in pairs)


def test_a_long_page_is_aligned_within_a_band():
    fr, en = ([("p", f"{word} {i} " + "mot " * (i % 9))for i in range(400)] for word in ("Numéro", "Number"))
    assert align([("p", "Préface sans original, et assez longue pour ne ressembler à rien.")] + fr, en) == [(i + 1, i) for i in range(400)]


def test_nothing_is_counted_twice():
    fr = [("h", "Titre français"), ("p", PROSE), ("p", "Une remarque du traducteur, que l'original ne connaît pas et qui est longue. " * 4), ("p", "The translator left this sentence as it is.")]
    en = [("h", "English title"), ("p", ENGLISH), ("p", "The translator left this sentence as it is.")]
    pairs, french, english, lost = divide(("page", fr, en))
    assert lost == [("fr", Skip("untranslated", 43)), ("en", Skip("too short", 43))]
    assert pairs == [("Titre français", "English title"), (PROSE, ENGLISH)] and french == fr[2][1] and english == ""
    assert divide(("page", [], [("p", ENGLISH * 4)])) == ([], "", ENGLISH * 4, []) and divide(("page", [("p", PROSE * 4)], [])) == ([], PROSE * 4, "", [])


@pytest.mark.parametrize("text, english", [("The dough is ready and it is hot.", True), ("La pâte est prête et elle est chaude.", False), ("Croissant", False), ("L'air du four n'est pas chaud.", False)])
def test_left_in_english(text, english): assert left_in_english(text) is english


# --- bilingual sources

def test_three_extractors_share_the_work_and_see_changes(tmp_path, monkeypatch):
    help_of = lambda lang, *p: {f"usr/share/libreoffice/help/{lang}/text/a/b.html": ("<div id='DisplayArea'>" + "".join(f"<p>{x}</p>" for x in p) + "</div>").encode()}
    alone = "Une note sans original, gardée comme texte français parce qu'elle est assez longue pour cela. " * 4
    paths = {"libreoffice-help-fr": deb(tmp_path/"fr.deb", help_of("fr", "Ouvrez le document.", "Fermez la fenêtre.", alone)), "libreoffice-help-en-us": deb(tmp_path/"en.deb", help_of("en-US", "Open the document.", "Close the window."))}
    calls = []
    monkeypatch.setattr(module, "divide", lambda *a: calls.append(a) or divide(*a))
    assert list(EXTRACTORS["libreoffice_help"].read(paths)) == [(("Ouvrez le document.", "Open the document."), "libreoffice_help/a/b"), (("Fermez la fenêtre.", "Close the window."), "libreoffice_help/a/b")]
    assert [(t.strip(), g) for t, g in EXTRACTORS["libreoffice_help_fr"].read(paths)] == [(alone.strip(), "libreoffice_help/a/b")] and not list(EXTRACTORS["libreoffice_help_en"].read(paths))
    assert len(calls) == 1
    deb(tmp_path/"en.deb", help_of("en-US", "Open the document, please, and quickly."))
    assert [p for p, _ in kept(EXTRACTORS["libreoffice_help"].read(paths))] != [("Ouvrez le document.", "Open the document.")] and len(calls) == 2


def test_a_missing_twin_is_named(tmp_path):
    row = lambda name: Package(registry="Debian", package=name, version="1", file="a.deb", bytes=1, sha256="0" * 64, tier="full", licence="MPL-2.0", language="fr en", used_for="libreoffice_help")
    with pytest.raises(BadInput, match="libreoffice_help also reads libreoffice-help-en-us; add a row"): list(extract(row("libreoffice-help-fr"), tmp_path, [row("libreoffice-help-fr")]))


HTML = lambda *p, wrap="{}": ("<html><body>" + wrap.format("".join(f"<p>{x}</p>" for x in p)) + "</body></html>").encode()
PAIR = [("Chauffez le four à 220 degrés.", "Heat the oven to 220 degrees.")]


@pytest.mark.parametrize("name, files", [
    ("apache2_doc", {"apache2-doc": {f"usr/share/doc/apache2-doc/manual/{x}/bind.html": HTML(PAIR[0][i], wrap="<div id='page-content'>{}<div class='bottomlang'><p>fr en</p></div></div>") for i, x in enumerate(("fr", "en"))}}),
    ("lilypond", {"lilypond-doc-html-fr": {"usr/share/doc/lilypond/html/Documentation/usage/four.fr.html": HTML(PAIR[0][0], wrap="<div id='main'><table class='nav_table'><tr><td>x</td></tr></table>{}</div>"),
                                           "usr/share/doc/lilypond/html/Documentation/usage-big-page.fr.html": HTML("copie", wrap="<div id='main'>{}</div>")},
                  "lilypond-doc-html": {"usr/share/doc/lilypond/html/Documentation/usage/four.html": HTML(PAIR[0][1], wrap="<div id='main'>{}</div>")}}),
    ("gnome_docs", {"gnome-user-docs": {f"usr/share/help/{x}/gnome-help/four.page": f"<page xmlns='http://projectmallard.org/1.0/'><p>{PAIR[0][i]}</p></page>".encode() for i, x in enumerate(("fr", "C"))},
                    "gnome-devel-docs": {}, "evolution-common": {}}),
    ("debian_manuals", {"debian-faq-fr": {"usr/share/doc/debian/FAQ/four.fr.html": HTML(PAIR[0][0])}, "debian-faq": {"usr/share/doc/debian/FAQ/four.en.html": HTML(PAIR[0][1])}}),
    ("manpages", {"manpages-fr": {"usr/share/man/fr/man1/four.1.gz": gzip.compress(f".TH F 1\n.PP\n{PAIR[0][0]}\n.SH TRADUCTION\nPar une équipe.\n".encode())}, "manpages-fr-dev": {},
                  "manpages": {"usr/share/man/man1/four.1.gz": gzip.compress(f".TH F 1\n.PP\n{PAIR[0][1]}\n".encode())}, "manpages-dev": {}})])
def test_bilingual_sources(tmp_path, name, files):
    assert set(files) <= set(EXTRACTORS[name].needs)
    paths = {p: deb(tmp_path/f"{p}.deb", files.get(p, {})) for p in EXTRACTORS[name].needs}
    found = kept(EXTRACTORS[name].read(paths))
    assert [p for p, _ in found] == PAIR and found[0][1].startswith(f"{name}/") and "four" in found[0][1] or "bind" in found[0][1]
    assert not list(EXTRACTORS[f"{name}_fr"].read(paths)) and not list(EXTRACTORS[f"{name}_en"].read(paths))


def test_scilab_reads_the_archive_inside(tmp_path):
    def jar(page):
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as z: z.writestr("scilab_help/four.html", page); z.writestr("scilab_help/x.png", b"")
        return buffer.getvalue()
    place = "usr/share/scilab/modules/helptools/jar/scilab_{}_help.jar"
    paths = {"scilab-doc-fr": deb(tmp_path/"fr.deb", {place.format("fr_FR"): jar(HTML(PAIR[0][0]))}), "scilab-doc": deb(tmp_path/"en.deb", {place.format("en_US"): jar(HTML(PAIR[0][1]))})}
    assert [p for p, _ in EXTRACTORS["scilab"].read(paths)] == PAIR
    paths["scilab-doc-fr"] = deb(tmp_path/"fr.deb", {place.format("fr_FR"): jar(HTML(PAIR[0][0])).replace(b"four.html", b"pain.html")})
    assert list(EXTRACTORS["scilab_fr"].read(paths)) == [Skip("no original", 32)]
    big = bytearray(jar(b"<p>x</p>" + bytes(module._MAX_PAGE)))   # stored, so that its ratio is honest
    assert len(big) > module._MAX_PAGE
    with pytest.raises(BadInput, match="en_US_help.jar/scilab_help/four.html expands to more than"): list(EXTRACTORS["scilab"].read(paths | {"scilab-doc": deb(tmp_path/"big.deb", {place.format("en_US"): bytes(big)})}))
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as z: z.writestr("a/four.html", bytes(100_000_000)); start = z.start_dir
    lying = bytearray(packed.getvalue()); struct.pack_into("<I", lying, 22, 10); struct.pack_into("<I", lying, start + 24, 10)   # its headers tell ten bytes
    bomb = paths | {"scilab-doc": deb(tmp_path/"bomb.deb", {place.format("en_US"): bytes(lying)})}
    tracemalloc.start()
    with pytest.raises(BadInput, match="bomb.deb: member .*en_US_help.jar is damaged"): list(EXTRACTORS["scilab"].read(bomb))
    peak = tracemalloc.get_traced_memory()[1]; tracemalloc.stop()
    assert peak < 20_000_000
    twice = io.BytesIO()
    with zipfile.ZipFile(twice, "w") as z: z.writestr("a/four.html", b"x"); z.writestr("b/four.html", b"y")
    with pytest.raises(BadInput, match="has two pages 'four.html'"): list(EXTRACTORS["scilab"].read(paths | {"scilab-doc": deb(tmp_path/"twice.deb", {place.format("en_US"): twice.getvalue()})}))
    paths["scilab-doc"] = deb(tmp_path/"bad.deb", {place.format("en_US"): b"no zip"})
    with pytest.raises(BadInput, match="bad.deb: member .*en_US_help.jar is damaged"): list(EXTRACTORS["scilab"].read(paths))


# --- manual pages

@pytest.mark.parametrize("line, text", [(r"\fBls\fR \- lister", "ls - lister"), (r"l\(aqami", "l'ami"), (r"a\ : b", "a\u00a0: b"), (r"\[u00E9]t\['e]", "ét"), (r"\s-2petit\s0", "petit"), (r"a\&b\/c\|d", "abcd"),
                                        (r"C:\e\(rs", "C:\\\\"), (r'texte\" note', "texte"), (r"\(co 2022 \(em x", "© 2022 — x"), ("sans rien", "sans rien"), (r"fin\c", "fin"), ("\\", "")])
def test_roff_escapes(line, text): assert roff_text(line) == text


def man(text): return man_blocks(gzip.compress(text.encode()))


def test_man_paragraphs():
    assert man('.SH "NOM ET BUT"\nls \\- lister\n.PP\nVoir\n.BR ls (1),\n.I fichier\net\n.B "deux mots" .\n') == [("h", "NOM ET BUT"), ("p", "ls - lister"), ("p", "Voir ls(1), fichier et deux mots .")]
    assert man(".TP\n.B \\-a\nTous.\n.TP\n\\-b\nRien.\n.IP \\(bu 2\nUn.\n.IP \"x\" 4\nDeux.\n") == [("dt", "-a"), ("dd", "Tous."), ("dt", "-b"), ("dd", "Rien."), ("li", "Un."), ("dt", "x"), ("dd", "Deux.")]
    assert man("Avant.\n.EX\nint x;\n  return 0;\n.EE\nAprès.\n.de XX\nmacro\n..\n") == [("p", "Avant."), ("pre", "int x;\n  return 0;"), ("p", "Après.")]
    assert man("Texte.\n.UR https://x.org\nle site\n.UE .\n.SH TRADUCTION\nPar nous.\n")[-1] == ("p", "Texte. https://x.org le site.")


def test_redirections_and_mdoc_give_nothing(): assert man(".so man1/ls.1\n") == [] == man(".Dd March 1\n.Sh NAME\n")


def manual_pages(tmp_path, **files):
    files = {p: files.get(p.replace("-", "_"), {}) for p in EXTRACTORS["manpages"].needs}
    return {p: deb(tmp_path/f"{p}.deb", f) for p, f in files.items()}


@pytest.mark.parametrize("raw, why", [(b"no gzip", "a damaged page"), (gzip.compress(b"x" * 90)[:-5], "a damaged page"), (gzip.compress(bytes(40_000_000)), "expands to more than 5000000 bytes")], ids=["another format", "cut", "bomb"])
def test_damaged_and_enormous_pages_are_named(tmp_path, raw, why):
    with pytest.raises(ValueError, match=why): man_blocks(raw)
    for package, place in (("manpages_fr", "usr/share/man/fr/man1/four.1.gz"), ("manpages", "usr/share/man/man1/four.1.gz")):
        with pytest.raises(BadInput, match=f"{package.replace('_', '-')}.deb: member {place}: .*{why}"): list(EXTRACTORS["manpages"].read(manual_pages(tmp_path, **{package: {place: raw}})))


def test_a_bomb_in_a_page_stays_out_of_memory():
    bomb = gzip.compress(bytes(300_000_000), 9)
    tracemalloc.start()
    with pytest.raises(ValueError, match="expands to more than"): man_blocks(bomb)
    peak = tracemalloc.get_traced_memory()[1]; tracemalloc.stop()
    assert peak < 20_000_000


def test_two_pages_of_one_key_are_refused(tmp_path):
    page = lambda text: gzip.compress(f".TH F 1\n.PP\n{text}\n".encode())
    for a, b, place in (("manpages_fr", "manpages_fr_dev", "usr/share/man/fr/man1/four.1.gz"), ("manpages", "manpages_dev", "usr/share/man/man1/four.1.gz")):
        paths = manual_pages(tmp_path, **{a: {place: page("Le premier.")}, b: {place: page("Le second.")}})
        with pytest.raises(BadInput, match=r"-dev.deb: member .*four.1.gz is the page 'four.1', and so is .*.deb: member .*four.1.gz; narrow the patterns"): list(EXTRACTORS["manpages"].read(paths))


# --- descriptions

def test_description_paragraphs():
    assert description_blocks(["titre", " Une phrase", " qui continue.", " .", " Liste :", "  – un élément", "    et sa suite", "  * deux⋅!", " .", "   tel quel"]) == [
        ("h", "titre"), ("p", "Une phrase qui continue."), ("p", "Liste :"), ("li", "un élément et sa suite"), ("li", "deux\u00a0!"), ("p", "tel quel")]


def test_descriptions(tmp_path):
    entry = lambda p, d, lang, *lines: f"Package: {p}\nDescription-md5: {d}\nDescription-{lang}: " + "\n ".join(lines) + "\n\n"
    en = entry("pain", "1", "en", "simulator of a bakery", "It bakes the bread.") + entry("pain-data", "1", "en", "simulator of a bakery", "It bakes the bread.") + entry("seul", "2", "en", "only in English", ENGLISH * 2)
    fr = entry("pain", "1", "fr", "simulateur de boulangerie", "Il cuit le pain.") + entry("vieux", "9", "fr", "traduction d'un texte disparu", PROSE)
    (tmp_path/"en").write_text(en, encoding="utf-8")
    (tmp_path/"fr.xz").write_bytes(lzma.compress(fr.encode()))
    paths = {"Translation-en": tmp_path/"en", "Translation-fr": tmp_path/"fr.xz"}
    assert list(EXTRACTORS["descriptions"].read(paths)) == [(("simulateur de boulangerie", "simulator of a bakery"), "descriptions/pain"), (("Il cuit le pain.", "It bakes the bread."), "descriptions/pain")]
    assert [(t.split("\n")[0], g) for t, g in EXTRACTORS["descriptions_en"].read(paths)] == [("only in English", "descriptions/seul")]
    assert reasons(EXTRACTORS["descriptions_fr"].read(paths)) == ["no original"]   # the translation of a text that is gone
    with pytest.MonkeyPatch.context() as m:
        m.setattr("croissant.extract.GRACE", 2_000_000)
        for name, pack in (("bomb.xz", lzma.compress), ("bomb.gz", gzip.compress)):
            (tmp_path/name).write_bytes(pack(b"Description-fr: " + bytes(20_000_000)))
            with pytest.raises(BadInput, match=f"{name}: .*(a line has more than|expands to more than)"): list(EXTRACTORS["descriptions"].read(paths | {"Translation-fr": tmp_path/name}))
    (tmp_path/"fr.xz").write_bytes(b"no xz")
    with pytest.raises(BadInput, match="fr.xz: not an index"): list(EXTRACTORS["descriptions"].read(paths))


# --- catalogues

def mo(entries):
    n, rows, body = len(entries), [], b""
    for column in (entries.keys(), entries.values()):
        for text in column: rows.append(struct.pack("<2I", len(text.encode()), 28 + 16 * n + len(body))); body += text.encode() + b"\0"
    return struct.pack("<7I", 0x950412de, 0, n, 28, 28 + 8 * n, 0, 0) + b"".join(rows) + body


def test_compiled_catalogues(tmp_path):
    good = mo({"": "Content-Type: text/plain", "CTX\x04AbC12|Open the _oven": "Ouvrir le _four", "One loaf\0%d loaves": "Un pain\0%d pains", "Open": "Ouvrir"})
    assert one(tmp_path, "libreoffice_l10n", {"usr/lib/libreoffice/program/resource/fr/LC_MESSAGES/sw.mo": good}) == [(("Ouvrir le four", "Open the oven"), ""), (("Un pain", "One loaf"), ""), (("%d pains", "%d loaves"), "")]
    assert reasons(EXTRACTORS["libreoffice_l10n"].read(tmp_path/"p.deb")) == ["too short"]
    with pytest.raises(BadInput, match="p.deb: member .*sw.mo: "): one(tmp_path, "libreoffice_l10n", {"usr/fr/LC_MESSAGES/sw.mo": b"garbage, garbage"})


@pytest.mark.parametrize("source, text", [("[[Aide:Four|l’aide]] et [[Pain]]", "l’aide et Pain"), ("{{PLURAL:$1|un pain|$1 pains}}", "$1 pains"), ("{{GENDER:$1|cuit|cuite}}", "cuite"), ("''très'' '''chaud'''", "très chaud"),
                                          ("[https://x.org le site]", "le site"), ("* un\n# deux", "un\ndeux"), ("[$1 lien]", "lien"), ("{{int:x}}", "{{int:x}}")])
def test_wiki_markup(source, text): assert wiki_text(source) == text


def test_mediawiki(tmp_path):
    place = "usr/share/mediawiki/languages/i18n/"
    files = {place + "en.json": {"@metadata": {"authors": []}, "a": "<b>Open</b> the oven", "b": "Use {{int:x}} now", "c": "Word", "d": "First line\nSecond line", "e": "Only here, alas"},
             place + "fr.json": {"a": "Ouvrir le <b>four</b>", "b": "Utilisez {{int:x}} vite", "c": "Mot", "d": "Première ligne\nDeuxième ligne", "e": 5}, "usr/share/mediawiki/x/i18n/fr.json": {"a": "seul ici"}}
    raw = {k: json.dumps(v).encode() for k, v in files.items()}
    assert one(tmp_path, "mediawiki", raw) == [(("Ouvrir le four", "Open the oven"), ""), (("Première ligne", "First line"), ""), (("Deuxième ligne", "Second line"), "")]
    assert reasons(EXTRACTORS["mediawiki"].read(deb(tmp_path/"p.deb", raw))) == ["markup left", "too short", "untranslated", "untranslated"]   # b, c, e, and a folder without English
    with pytest.raises(BadInput, match="member .*fr.json is not valid JSON"): one(tmp_path, "mediawiki", raw | {place + "fr.json": b"{"})


# --- dictionaries

QUOTE = '<span foreground="#0000CD">{}</span>, <span foreground="#B22222">{}</span>, <span foreground="#556B2F">{}</span>.'


def test_littre_entries():
    marked = "<i><small>(pin) s. m.</small></i>\n\n<b>1°</b> Aliment &lt;cuit&gt;. \n" + QUOTE.format("Du pain ?", "VOLT.", "Mœurs, 196") + " (voy. plus bas)\n" + QUOTE.format("Sans nom", "", "Psautier, f. 143.") + "\n\n<b><big>HISTORIQUE</big></b>\n\n    XIIe s. "
    assert littre_entry("PAIN.1", marked) == ("PAIN (pin) s. m.\n1° Aliment <cuit>.\nVoltaire, Mœurs, 196\u00a0: «\u00a0Du pain\u00a0?\u00a0» (voy. plus bas)\nPsautier, f. 143\u00a0: «\u00a0Sans nom\u00a0».\n\nHistorique\nXIIe s.")
    assert littre_entry("COEUR", "Le coeur, l'oeuvre, poète.") == "COEUR Le cœur, l'œuvre, poète."


@pytest.mark.parametrize("short, name", [("VOLT.", "Voltaire"), ("SAINT-SIMON", "Saint-Simon"), ("J. DE LA CROIX", "J. de la Croix"), ("LA BOÉTIE", "La Boétie"), ("LOUIS XI", "Louis XI"), ("D. L.", "D. L."), ("", "")])
def test_authors(short, name): assert author_name(short) == name


@pytest.mark.parametrize("args, sentence", [(("Oui", "RAC.", "Athal. II, 2."), "Racine, Athal. II, 2\u00a0: «\u00a0Oui\u00a0»."), (("Oui !", "RAC.", ""), "Racine\u00a0: «\u00a0Oui !\u00a0»"), (("Oui.", "", ""), "«\u00a0Oui.\u00a0»")])
def test_quotations(args, sentence): assert quotation(*args) == sentence


def stardict(entries):
    index, data = b"", b""
    for word, text in entries: index += word.encode() + b"\0" + struct.pack(">II", len(data), len(text.encode())); data += text.encode()
    return {"usr/share/stardict/dic/X.idx": index, "usr/share/stardict/dic/X.dict.dz": gzip.compress(data)}


def test_littre(tmp_path):
    files = stardict([("ABATTRE", "<i><small>v. a.</small></i>\n    Jeter à terre."), ("BEURRE", "<i><small>s. m.</small></i>\n    Gras.")])
    assert one(tmp_path, "littre", files) == [("ABATTRE v. a.\nJeter à terre.\n\nBEURRE s. m.\nGras.", "")]
    with pytest.raises(BadInput, match="no dictionary inside"): one(tmp_path, "littre", {"usr/x": b""})
    for change in ({"usr/share/stardict/dic/X.idx": b"A\0" + struct.pack(">II", 0, 9999)}, {"usr/share/stardict/dic/X.dict.dz": b"no gzip"}, {"usr/share/stardict/dic/X.idx": b"A\0" + struct.pack(">II", 2**32 - 1, 5)}):
        with pytest.raises(BadInput, match="p.deb: damaged dictionary"): one(tmp_path, "littre", files | change)


def test_slices_and_gathering():
    assert list(slices(gzip.compress(b"abcdef"), [(0, 2), (1, 3), (4, 2)])) == [b"ab", b"bcd", b"ef"]
    assert list(gathered(["aaa", "", "bb", "c"], 4)) == [("aaa\n\nbb", ""), ("c", "")] and list(gathered([])) == []


def dictd(name, entries):
    letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    number = lambda n: (number(n // 64) if n >= 64 else "") + letters[n % 64]
    index, data = "", b""
    for word, text in entries: index += f"{word}\t{number(len(data))}\t{number(len(text.encode('utf-8')))}\n"; data += text.encode()
    return {f"usr/share/dictd/{name}.index": index.encode(), f"usr/share/dictd/{name}.dict.dz": gzip.compress(data)}


def test_foldoc_and_jargon(tmp_path):
    entries = [("ld", "ld\n\n   <tool> Unix's {linker (https://x.org/ld)},\n   __never__ late.\n\n   (2014-10-25)\n")]
    assert one(tmp_path, "foldoc", dictd("foldoc", entries)) == [("ld\n<tool> Unix's linker, never late.", "")]
    assert one(tmp_path, "jargon", dictd("jargon", [("00-database-info", "licence\n" * 20), ("foo", "foo\n\n   A {name}\n   for anything.\n")])) == [("foo\nA name for anything.", "")]
    with pytest.raises(BadInput, match="p.deb: damaged dictionary"): one(tmp_path, "foldoc", dictd("foldoc", entries) | {"usr/share/dictd/foldoc.index": b"ld\t!\t?\n"})
    assert one(tmp_path, "foldoc", dictd("foldoc", [("a", "a")]) | {"usr/share/dictd/foldoc.dict.dz": gzip.compress(b"\x92"), "usr/share/dictd/foldoc.index": b"a\tA\tB\n"}) == [("’", "")]


# --- English manuals

@pytest.mark.parametrize("name, file, wrap", [
    ("linux_doc", "usr/share/doc/linux-doc-6.1/html/admin/a.html", "<div role='main'>{}</div>"), ("python_doc", "usr/share/doc/python3.11/html/library/a.html", "<div role='main'>{}<a class='headerlink'>¶</a></div>"),
    ("postgresql_doc", "usr/share/doc/postgresql-doc-15/html/a.html", "<div class='navheader'>x</div>{}"), ("git_doc", "usr/share/doc/git-doc/git-a.html", "{}<div id='footer'>x</div>"),
    ("sqlite_doc", "usr/share/doc/sqlite3/a.html", "<div class='nosearch'>x</div>{}"), ("django_doc", "usr/share/doc/python-django-doc/html/a.html", "<div id='bd'>{}</div>"),
    ("postfix_doc", "usr/share/doc/postfix/html/a.html", "{}"), ("debian_policy", "usr/share/doc/debian-policy/policy.html/a.html", "<div role='main'>{}</div>"),
    ("sqlalchemy_doc", "usr/share/doc/python-sqlalchemy-doc/html/a.html", "<div id='docs-body'>{}</div>"), ("llvm_doc", "usr/share/doc/llvm-15-doc/html/a.html", "<div class='body'>{}</div>"),
    ("exim_doc", "usr/share/doc/exim4-doc-html/spec_html/ch-a.html", "<div id='chapter'>{}</div>"), ("clang_doc", "usr/share/doc/clang-15/html/a.html", "<div class='body'>{}</div>"), ("pandas_doc", "usr/share/doc/python-pandas-doc/html/user_guide/a.html", "<main>{}</main>"),
    ("cmake_doc", "usr/share/doc/cmake-data/html/a.html", "<div class='body'>{}</div>"), ("racket_doc", "usr/share/doc/racket/guide/a.html", "<div class='main'>{}</div>"), ("maxima_doc", "usr/share/doc/maxima-doc/html/a.html", "{}"),
    ("rust_books", "usr/share/doc/rust-doc/html/book/a.html", "<main>{}</main>")])
def test_english_manuals(tmp_path, name, file, wrap):
    files = {file: HTML(ENGLISH * 3, wrap=wrap), file.replace("a.html", "b.html"): HTML("Too short.", wrap=wrap), file.replace(".html", ".png"): b"x"}
    assert one(tmp_path, name, files) == [((ENGLISH * 3).strip(), "")] and reasons(EXTRACTORS[name].read(tmp_path/"p.deb")) == ["too short"]


def test_translations_and_sources_of_the_kernel_manual_are_left_out(tmp_path):
    place = "usr/share/doc/linux-doc-6.1/html/"
    assert one(tmp_path, "linux_doc", {place + x: HTML(ENGLISH * 3, wrap="<div role='main'>{}</div>") for x in ("translations/it/a.html", "_sources/a.html", "genindex.html", "core/search.html")}) == []


@pytest.mark.parametrize("source, text", [("C<x>", "x"), ("B<I<a> b>", "a b"), ("C<< $a->b >>", "$a->b"), ("L<perlop/\"Ops\">", "perlop/\"Ops"), ("L<text|http://x>", "text"), ("E<gt>E<lt>", "><"), ("X<index>a", "a"), ("a < b", "a < b")])
def test_pod_codes(source, text): assert pod_text(source) == text


def test_perl(tmp_path):
    pod = f"=encoding utf8\n\n=head1 NAME\n\nperlpain - {ENGLISH * 3}\n\n  code();\n\n=begin comment\n\nhidden\n\n=end comment\n\n=over 4\n\n=item *\n\nHot.\n\n=back\n\n=for html <b>\n\n=cut\n"
    assert pod_blocks(pod) == [("h", "NAME"), ("p", f"perlpain - {ENGLISH * 3}".strip()), ("pre", "  code();"), ("p", "Hot.")]
    assert one(tmp_path, "perl_doc", {"usr/share/perl/5.36.0/pod/perlpain.pod": pod.encode()})[0][0].startswith("NAME\nperlpain - Once")


# --- literature

def rdb(*vectors):
    out = b""
    for lines in vectors:
        body = b"X\n\0\0\0\2" + b"\0\0\0\x10" + struct.pack(">I", len(lines)) + b"".join(b"\0\4\0\x09" + struct.pack(">I", len(x.encode())) + x.encode() for x in lines)
        out += struct.pack(">I", len(body)) + zlib.compress(body)
    return out


def test_r_strings():
    assert list(r_strings(rdb(["a", "", "bé"], ["c"]))) == [["a", "", "bé"], ["c"]] and list(r_strings(b"")) == []
    for raw in (rdb(["a"])[:-3], b"\0\0\0\5nothing compressed"):
        with pytest.raises(ValueError): list(r_strings(raw))


def test_janeausten(tmp_path):
    lines = ["A NOVEL", "", "CHAPTER I", ""] + ["It is a truth--universally acknowledged,", "that a baker wants bread.", ""] * 400
    found = one(tmp_path, "janeausten", {"usr/lib/R/site-library/janeaustenr/data/Rdata.rdb": rdb(lines, ["short"])})
    assert len(found) == 1 and found[0][0].startswith("CHAPTER I\n\nIt is a truth—universally acknowledged, that a baker wants bread.\n\nIt is")
    with pytest.raises(BadInput, match="p.deb: Rdata.rdb: a block"): one(tmp_path, "janeausten", {"usr/lib/R/site-library/janeaustenr/data/Rdata.rdb": b"\0\0\0\5garbage"})


def test_fortunes(tmp_path):
    files = {"usr/share/games/fortunes/bread": b"First.\n\t\t-- Me\n%\nSecond.\n%\n", "usr/share/games/fortunes/bread.dat": b"\0\1", "usr/share/games/fortunes/bread.u8": b"copy"}
    assert one(tmp_path, "fortunes", files) == [("First.\n\t\t-- Me\n\nSecond.", "")]


# --- the benchmark

CASES = """# TESTS
612       Les tests {{commence}} demain.      ->> commencent
613       Le four est chaud.
614       __md__ ces **{{femme}}**            ->> femmes
615       Il {{est}} {{aller}}.               ->> "a|est|||allé"
616       Une {{faute}} sans remède.          ->> 
"""


def test_grammar_cases(tmp_path):
    assert list(grammar_cases(CASES)) == [("Les tests commence demain.", "Les tests commencent demain."), ("Le four est chaud.", ""), ("Il est aller.", "Il a allé."), ("Une faute sans remède.", "")]
    path = deb(tmp_path/"g.deb", {"usr/lib/libreoffice/share/extensions/grammalecte/pythonpath/grammalecte/fr/gc_test.txt": CASES.encode()})
    assert len(list(BENCHMARKS["grammalecte"].read(path))) == 6


# --- the registry

def test_every_agreed_name_is_registered():
    pairs = ("manpages descriptions libreoffice_help lilypond scilab apache2_doc gnome_docs debian_manuals").split()
    assert {EXTRACTORS[n].language for n in pairs} == {"parallel"} and {EXTRACTORS[f"{n}_{x}"].language for n in pairs for x in ("fr", "en")} == {"fr", "en"}
    assert all(EXTRACTORS[n].language == "parallel" for n in ("libreoffice_l10n", "mediawiki")) and EXTRACTORS["littre"].language == "fr"
    assert all(EXTRACTORS[n].language == "en" for n in "foldoc linux_doc python_doc postgresql_doc perl_doc git_doc janeausten fortunes".split())
