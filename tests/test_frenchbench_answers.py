"""Answers are scored as lm-evaluation-harness 0.4.13 scores them, its faults included where asked for, and by French rules that have none of them."""
import importlib
import itertools
import math
import unicodedata

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from croissant.frenchbench.answers import (RULES, SCORES, answer_metrics, answer_scores, calibration_error, choice_floors, choice_metrics, choice_scores, compare_translations, exact,
                                           f1, french_words, harness_golds, is_included, median_of_means, normalise, perplexities, reliability, rouge1,
                                           translation_metrics)
from croissant.frenchbench.metrics import wilson
from croissant.params import BadInput

harness = importlib.import_module("lm_eval.tasks.french_bench.utils")
from datasets import Dataset, DatasetDict  # noqa: E402
from lm_eval.api import metrics as aggregations  # noqa: E402
from lm_eval.api.task import ConfigurableTask  # noqa: E402
from lm_eval.tasks.french_bench import preprocess_wikitext  # noqa: E402
from rouge_score.rouge_scorer import RougeScorer  # noqa: E402
from rouge_score.scoring import BootstrapAggregator  # noqa: E402

CASES = ["", " ", "l'été dernier", "L’été dernier", "un été", "Pendant l'été, dernier !", "la", "Le la les", "des États-Unis", "États Unis", "« Les Misérables »", "l'Œuvre",
         "l'oeuvre", "aujourd'hui", "aujourd’hui", "à", "À", "a", "Impossible", "['Impossible']", "[1, 2]", "[sic]", "[]", "['Paris', 'Lyon']", "3,5 millions d’euros", "3,5 millions d'euros",
         "E\u0301te\u0301", "Été", "un\u00a0an", "dix\u2011sept", "100 %", "…", "Qu'est-ce que c'est ?", "la ville de Paris", "Paris", "Paris, Paris", "paris\n", "\tLa\tforêt", "İstanbul", "ΣΑΣ", "le\u0301", "_", "un_deux", "一 二"]
TEXT = st.text(st.sampled_from(list("abdelnstu  ÀÉéèçœŒ0123'’«»-.,!?_[]\n\u00a0\u0301")), max_size=24) | st.lists(st.sampled_from(["le", "La", "l'", "un", "été", "Paris", "forêt", "dernier", "à", "«", "!", "d'"]), max_size=6).map(" ".join)
UNITS = st.floats(-30, 0).map(lambda x: round(x, 2))


# ---- words

def test_cases_equal_the_harness():
    for text in CASES: assert normalise(text) == harness.normalize_answer(text)
    for a, g in itertools.product(CASES, repeat=2):
        assert exact(a, g) == harness.exact([a], [g]) and f1(a, g) == harness.f1([a], [g]) and is_included(a, g) == harness.is_included([g, a])


@given(TEXT, TEXT)
def test_anything_equals_the_harness(a, g):
    assert normalise(a) == harness.normalize_answer(a)
    assert (exact(a, g), f1(a, g), is_included(a, g)) == (harness.exact([a], [g]), harness.f1([a], [g]), harness.is_included([g, a]))


@given(TEXT, TEXT, st.sampled_from(list(RULES)))
def test_scores_are_scores(a, g, rule):
    for score in (f1, rouge1, exact):
        assert 0 <= score(a, g, rule) <= 1 and score(a, g, rule) == pytest.approx(score(g, a, rule), abs=1e-15)
    assert f1(a, a, rule) == exact(a, a, rule) == 1 and (rouge1(a, a, rule) == 1 or not rouge1(a, g, rule))
    assert exact(a, g, rule) <= f1(a, g, rule) or math.isclose(f1(a, g, rule), 1)
    assert f1(" ".join(reversed(a.split())), a, rule) == pytest.approx(1) and is_included(g + a + g, a)
    assert normalise(normalise(a, rule), rule) == normalise(a, rule)


@given(TEXT)
def test_the_french_rule_knows_one_spelling(text):
    for other in (unicodedata.normalize("NFD", text), text.replace("'", "’"), text.upper(), f"« {text} » !", text.replace("œ", "oe")):
        assert exact(other, text, "french") == 1 and rouge1(other, text, "french") in (1, 0) and (rouge1(other, text, "french") == 1 or not french_words(text))


def test_french_words_by_hand():
    assert french_words("L’Œuvre d'E\u0301mile_Zola, 3e éd.") == ["l", "oeuvre", "d", "émile", "zola", "3e", "éd"]
    assert normalise("Aujourd’hui, l'été et les autres", "french") == "aujourd hui été et autres"
    assert normalise("L'l", "french") == "l"                                      # only the article goes
    for name in ("normalise", "rouge1"):
        with pytest.raises(BadInput, match="no rule 'englisch'"): normalise("a", "englisch") if name == "normalise" else rouge1("a", "b", "englisch")


def test_f1_by_hand():
    gold = "l'été dernier"
    assert f1("pendant l'été", gold) == .5 and f1("un été", gold) == 0 and f1("un été", gold, "french") == pytest.approx(2 / 3)
    assert exact("l’été dernier", gold) == 0 and exact("l’été dernier", gold, "french") == 1
    assert f1("", "") == f1("la", "!") == 1 and f1("", "oui") == f1("oui", "") == 0


# ---- ROUGE

def reference_rouge(answer, gold): return RougeScorer(["rouge1"], use_stemmer=False).score(gold, answer)["rouge1"].fmeasure


def test_rouge_equals_rouge_score():
    for a, g in itertools.product(CASES, repeat=2): assert rouge1(a, g) == reference_rouge(a, g)


@given(TEXT, TEXT)
def test_any_rouge_equals_rouge_score(a, g): assert rouge1(a, g) == reference_rouge(a, g)


def test_accents_do_not_cut_words():
    assert rouge1("pâle", "pôle") == 1 and rouge1("pâle", "pôle", "french") == 0
    assert rouge1("à", "à") == 0 and rouge1("à", "à", "french") == 1
    assert rouge1("Un garçon", "un garçon fort", "french") == pytest.approx(4 / 5)


@pytest.mark.parametrize("n", [1, 2, 8, 129, 400])
def test_median_of_means_is_the_aggregator(n):
    random = np.random.default_rng(n)
    pairs = [(" ".join(random.choice(CASES, 4)), " ".join(random.choice(CASES, 4))) for _ in range(n)]
    aggregator, before = BootstrapAggregator(), np.random.get_state()
    for a, g in pairs: aggregator.add_scores(RougeScorer(["rouge1"]).score(g, a))
    np.random.seed(1234); want = aggregator.aggregate()["rouge1"].mid.fmeasure; np.random.set_state(before)
    assert median_of_means([rouge1(a, g) for a, g in pairs]) == want
    assert np.random.get_state()[1].tolist() == before[1].tolist()                 # nobody else's draws are touched
    with pytest.raises(BadInput): median_of_means([])


SCRIPT = '''"""Written for this test: the metric that the harness would download, from `rouge_score`'s own parts."""
import datasets
import evaluate
from rouge_score.rouge_scorer import RougeScorer
from rouge_score.scoring import BootstrapAggregator


class Rouge(evaluate.Metric):
    def _info(self):
        return evaluate.MetricInfo(description="", citation="", inputs_description="",
                                   features=datasets.Features({"predictions": datasets.Value("string"), "references": datasets.Value("string")}))

    def _compute(self, predictions, references):
        scorer, aggregator = RougeScorer(["rouge1", "rouge2", "rougeL", "rougeLsum"]), BootstrapAggregator()
        for p, r in zip(predictions, references): aggregator.add_scores(scorer.score(r, p))
        return {k: v.mid.fmeasure for k, v in aggregator.aggregate().items()}
'''


def test_the_harness_prints_our_median(tmp_path, monkeypatch):
    "Through the harness's own aggregation and the seeding of `evaluate`, with a local script in place of the download; twice, since two tasks share a run."
    for folder in ("HF_MODULES_CACHE", "HF_METRICS_CACHE"): monkeypatch.setattr(f"evaluate.config.{folder}", str(tmp_path/folder))
    (tmp_path/"rouge").mkdir(); (tmp_path/"rouge"/"rouge.py").write_text(SCRIPT, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    items = [[g, a] for a, g in itertools.product(CASES[2:10], CASES[2:8])]
    want, before = median_of_means([rouge1(a, g) for g, a in items]), np.random.get_state()
    np.random.seed(1234)                                                             # as `simple_evaluate` does
    try: assert harness.rouge1_agg(items) == harness.rouge1_agg(items) == want
    finally: np.random.set_state(before)


# ---- golds, through the harness's own task

TEMPLATE = "{% if answers.text| length > 0 %}{{answers.text[0]}}{% else %}{{['Impossible']}}{% endif %}"


def harness_task(documents, **config):
    features = Dataset.from_list(documents)
    return ConfigurableTask(config={"task": "essai", "custom_dataset": lambda **_: DatasetDict(test=features), "test_split": "test", **config})


def harness_scores(golds, answers, metrics):
    "What the harness makes of answers to a task with the template of its French question answering."
    documents = [{"question": str(i), "answers": {"text": g}} for i, g in enumerate(golds)]
    task = harness_task(documents, output_type="generate_until", doc_to_text="{{question}}", doc_to_target=TEMPLATE,
                        generation_kwargs={"until": ["\n"]}, metric_list=[{"metric": getattr(harness, m), "aggregation": "mean", "higher_is_better": True} for m in metrics])
    rows = [task.process_results(d, [a]) for d, a in zip(task.eval_docs, answers)]
    return {m: [float(r[m]) for r in rows] for m in metrics}


GOLDS = [["Paris"], [], ["l'été"], ["la"], ["[sic]"], ["[1, 2]"], [], ["Impossible"], ["a"], ["…"], ["a b"]]
ANSWERS = ["Paris", "impossible", "l'été dernier", "", "[sic]", "1", "['Impossible']", "i", "a", "", "b"]


@pytest.mark.parametrize("order", [list(range(11)), [1, 0, 2, 3, 4, 6, 7, 8, 9, 10], [6, 0, 3, 8, 9]], ids=["first answerable", "first unanswerable", "few"])
def test_golds_are_read_as_the_harness_reads_them(order):
    golds, answers = [GOLDS[i] for i in order], [ANSWERS[i] for i in order]
    metrics = ("exact", "f1", "is_included")
    want = harness_scores(golds, answers, metrics)
    ours = answer_scores(answers, [[g[0] if g else "['Impossible']"] for g in golds], metrics, compat="harness")
    assert {m: ours[m].tolist() for m in metrics} == want and ("f1_french" in ours) == (order[0] == 0)
    fixed = answer_scores(answers, [g or ["Impossible"] for g in golds], metrics)
    assert all(f == exact(a, g[0] if g else "Impossible") for f, a, g in zip(fixed["exact"], answers, golds))
    assert (want["exact"] == fixed["exact"].tolist()) == (order[0] == 0)           # the first item alone makes the difference


def test_a_right_answer_scores_nothing_in_the_harness():
    assert harness_scores([[], ["Paris"]], ["Impossible", "Paris"], ("exact", "f1")) == {"exact": [1, 0], "f1": [1, 0]}
    assert answer_scores(["Impossible", "Paris"], [["Impossible"], ["Paris"]], ("exact",))["exact"].tolist() == [1, 1]
    assert harness_golds(["['Impossible']", "Paris"]) == ([["Impossible"], [*"Paris"]], True)
    with pytest.raises(AttributeError): harness_scores([[], ["[1, 2]"]], ["Impossible", "1"], ("exact",))
    with pytest.raises(BadInput, match="item 1: the gold '.1, 2.' is read as a list of int"): harness_golds(["['Impossible']", "[1, 2]"])
    assert harness_golds(["Paris", "['Impossible']"]) == ([["Paris"], ["['Impossible']"]], False)


def test_several_golds_take_the_best():
    found = answer_scores(["l'été", "hiver"], [["l'hiver", "l'été dernier"], ["printemps", "l’hiver"]])
    assert found["f1"].tolist() == [pytest.approx(2 / 3), 0] and found["exact_french"].tolist() == [0, 1] and set(found) == {m + s for m, kinds in SCORES.items() for s in kinds}


@pytest.mark.parametrize("given, said", [((["a"], []), "1 answers to 0 items"), ((["a"], [[]]), "item 0: no list of golds"), ((["a"], ["oui"]), "item 0: no list of golds but 'oui'"),
    ((["a"], [["b"]], ("bleurt",)), "no metric 'bleurt'"), ((["a"], [["b", "c"]], ("f1",), "harness"), "item 0: several golds"),
    ((["a"], [["['b']"]], ("rouge1",), "harness"), "fails on a task"), ((["a"], [["b"]], ("f1",), "paper"), "no mode 'paper'")])
def test_bad_answers_are_refused(given, said):
    with pytest.raises(BadInput, match=said): answer_scores(*given)


def test_answer_metrics_name_their_rules():
    answers, golds = ["L'été", "à", "Paris", "non"] * 20, [["l’été"], ["à"], ["Paris"], ["oui"]] * 20
    found = answer_metrics(answers, golds)
    assert all(row["rule"] and row["n"] == 80 and row["interval"][0] <= row["value"] <= row["interval"][1] for row in found.values())
    assert found["exact"]["interval"] == list(wilson(40, 80)) and found["exact_french"]["value"] == .75
    assert found["rouge1"]["value"] == median_of_means([rouge1(a, g[0]) for a, g in zip(answers, golds)]) and "median" in found["rouge1"]["rule"]
    assert found["rouge1_french"]["value"] == .75 and "1234" not in found["rouge1_french"]["rule"]
    grouped = answer_metrics(answers, golds, groups=[str(i // 4) for i in range(80)])
    assert grouped["exact"]["interval"] == [.5, .5] and grouped["exact"]["value"] == found["exact"]["value"]


# ---- choices

def harness_choices(log_probs, gold, texts, unconditional=None):
    metrics = ["acc", "acc_norm", "acc_bytes", "brier_score"] + ["acc_mutual_info"] * (unconditional is not None)
    task = harness_task([{"choices": list(t), "gold": g} for t, g in zip(texts, gold)], output_type="multiple_choice", doc_to_text="", doc_to_choice="{{choices}}",
                        doc_to_target="{{gold}}", metric_list=[{"metric": m} for m in metrics])
    rows = [task.process_results(d, [(x, False) for x in [*lp, *(unconditional[i] if unconditional is not None else [])]]) for i, (d, lp) in enumerate(zip(task.eval_docs, log_probs))]
    per_item = {m: [r[m] for r in rows] for m in metrics if m != "brier_score"}
    return per_item, aggregations.brier_score([r["brier_score"] for r in rows])


def test_choices_equal_the_harness():
    random = np.random.default_rng(0)
    texts = [[str(c) for c in random.choice([c for c in CASES if c], 4)] for _ in range(150)]
    log_probs = np.round(random.normal(-9, 2, (150, 4)), 0).tolist()                 # whole numbers: many ties
    blind, gold = np.round(random.normal(-9, 2, (150, 4)), 0).tolist(), random.integers(4, size=150).tolist()
    want, brier = harness_choices(log_probs, gold, texts, blind)
    ours = choice_scores(log_probs, gold, texts, blind, compat="harness")
    for m in want: assert ours[m].tolist() == want[m], m
    assert ours["brier"].mean() == pytest.approx(brier, abs=1e-14)
    assert choice_metrics(log_probs, gold, texts, unconditional=blind, compat="harness")["acc_norm"]["value"] == aggregations.mean(want["acc_norm"])
    assert any(choice_scores(log_probs, gold, texts)["acc"] != ours["acc"]) and any(ours["acc_norm"] != ours["acc_bytes"])


@given(st.lists(st.integers(2, 5).flatmap(lambda k: st.tuples(st.just(k), st.integers(0, k - 1))), min_size=1, max_size=30), UNITS)
def test_a_constant_model_scores_chance(shape, value):
    "Whatever the order of the choices; in the harness it depends on the order alone."
    log_probs, gold, texts = [[value] * k for k, _ in shape], [g for _, g in shape], [["été"] * k for k, _ in shape]
    found, chance = choice_metrics(log_probs, gold, texts, resamples=50), np.mean([1 / k for k, _ in shape])
    for m in ("acc", "acc_norm", "acc_bytes"): assert found[m]["value"] == pytest.approx(chance) == found[m]["floors"]["chance"]
    assert found["brier"]["value"] == pytest.approx(np.mean([1 - 1 / k for k, _ in shape])) and found["margin"]["value"] == 0
    assert choice_metrics(log_probs, gold, texts, resamples=50, compat="harness")["acc"]["value"] == np.mean([g == 0 for g in gold]) == found["acc"]["floors"]["first"]


@given(st.lists(UNITS, min_size=2, max_size=5, unique=True), st.randoms())
def test_the_order_of_choices_tells_nothing(scores, random):
    order = list(range(len(scores))); random.shuffle(order)
    texts = [f"choix{'s' * i}" for i in range(len(scores))]
    one = choice_scores([scores], [order[0]], [texts])
    two = choice_scores([[scores[i] for i in order]], [0], [[texts[i] for i in order]])
    assert {k: v[0] for k, v in one.items()} == pytest.approx({k: v[0] for k, v in two.items()})
    assert (one["margin"][0] > 0) == (one["acc"][0] == 1) and 0 <= one["brier"][0] <= 2 and 1 / len(scores) <= one["confidence"][0] <= 1


def test_characters_are_not_bytes():
    scores = choice_scores([[-3., -4.]], [0], [["été", "hiver"]])
    assert scores["acc_norm"][0] == 0 and scores["acc_bytes"][0] == 1


def test_floors_without_a_model():
    floors = choice_floors([0, 1, 1, 2], [["a", "bb"], ["aa", "b"], ["aa", "bb"], ["a", "b", "cc"]])
    assert floors == {"chance": pytest.approx((.5 * 3 + 1 / 3) / 4), "first": .25, "shortest": pytest.approx((1 + 1 + .5 + 0) / 4), "longest": pytest.approx((0 + 0 + .5 + 1) / 4), "majority": .5}


def test_groups_widen_the_interval():
    texts, gold = [["oui", "non"]] * 80, [0] * 80
    log_probs = [[-1., -2.] if i // 8 % 2 else [-2., -1.] for i in range(80)]
    width = lambda m: m["acc"]["interval"][1] - m["acc"]["interval"][0]
    alone, together = choice_metrics(log_probs, gold, texts), choice_metrics(log_probs, gold, texts, groups=[str(i // 8) for i in range(80)])
    assert alone["acc"]["interval"] == list(wilson(40, 80)) and width(together) > 2 * width(alone) and "share the point" in alone["acc"]["rule"]


@pytest.mark.parametrize("given, said", [(([[-1., -2.]], [2], [["oui", "non"]]), "item 0: gold 2"), (([[-1., -2.]] * 2, [0, -1], [["oui", "non"]] * 2), "item 1: gold -1"), (([[-1., -2.]], [0], [["oui", ""]]), "choice 1 is empty"),
    (([[-1.]], [0], [["oui"]]), "at least two"), (([[-1.]], [0], [["oui", "non"]]), "1 log-probabilities for 2"), (([[-1., math.nan]], [0], [["oui", "non"]]), "not finite"), (([[-1., -2.]], [0, 1], [["oui", "non"]]), "2 golds"),
    (([], [], []), "no items"), (([[-1., -2.]], [0], [["oui", "non"]], None, "paper"), "no mode 'paper'")])
def test_bad_choices_are_refused(given, said):
    with pytest.raises(BadInput, match=said): choice_scores(*given)


def test_calibration():
    assert calibration_error([.9, .9, .9, .9, .6, .6], [1, 1, 1, 0, 1, 0]) == pytest.approx((4 * .15 + 2 * .1) / 6)
    table = reliability([0, .05, .1, .95, 1.], [0, 1, 1, 1, 1])
    assert [(r["from"], r["n"]) for r in table] == [(0, 2), (.1, 1), (.9, 2)] and sum(r["n"] for r in table) == 5
    random = np.random.default_rng(0)
    sure = random.uniform(.25, 1, 20_000); hits = random.random(20_000) < sure
    assert calibration_error(sure, hits) < .015 and calibration_error(sure**.3, hits) > .15
    with pytest.raises(BadInput): reliability([.5], [])
    with pytest.raises(BadInput): reliability([], [])


# ---- perplexity

def test_perplexities_equal_the_harness():
    texts = [t for t in CASES if t]
    log_probs = (-3. * np.random.default_rng(0).random(len(texts)) * [len(t) for t in texts]).tolist()
    task = harness_task([{"text": "T" + t} for t in texts], output_type="loglikelihood_rolling", doc_to_text="", doc_to_target="{{text}}",
                        metric_list=[{"metric": m} for m in ("word_perplexity", "byte_perplexity", "bits_per_byte")])
    rows = [task.process_results(d, (lp,)) for d, lp in zip(task.eval_docs, log_probs)]
    ours = perplexities(log_probs, ["T" + t for t in texts])
    for name, aggregate in (("word_perplexity", aggregations.weighted_perplexity), ("byte_perplexity", aggregations.weighted_perplexity), ("bits_per_byte", aggregations.bits_per_byte)):
        assert ours[name]["value"] == pytest.approx(aggregate([r[name] for r in rows]), rel=1e-13) and ours[name]["interval"][0] <= ours[name]["value"] <= ours[name]["interval"][1]
    paragraph = " = Titre = \n L' été @-@ dernier , à Paris . "
    counted, = {k: preprocess_wikitext.process_results({"paragraph": paragraph}, (-50.,))[k][1] for k in ("word_perplexity",)}.values()
    assert perplexities([-50.], [paragraph])["word_perplexity"]["value"] == math.exp(50 / counted)


def test_perplexities_refuse():
    for bad, said in ((([], []), "0 texts"), (([-1.], ["a", "b"]), "1 log-probabilities"), (([-1., -1.], ["a", ""]), "document 1: empty"), (([-9e5], ["mot"]), "beyond all numbers")):
        with pytest.raises(BadInput, match=said): perplexities(*bad)


# ---- translation

def test_translation_equals_the_harness():
    references = ["Le chat dort près de l'église.", "L’été dernier, il faisait chaud à Paris.", "« Oui », dit-elle.", "Les forêts brûlent."] * 5
    answers = ["Le chat dort à côté de l'église.", "L'été dernier il a fait chaud à Paris.", "Oui, dit-elle.", "The forests burn."] * 5
    ours, items = translation_metrics(answers, [[r] for r in references]), [*zip(references, answers)]
    for name in ("bleu", "chrf", "ter"):
        assert ours[name]["value"] == getattr(aggregations, name)(items) and ours[name]["n"] == 20
        assert ours[name]["interval"][0] < ours[name]["value"] < ours[name]["interval"][1]
    for name, parts in (("bleu", ("nrefs:1", "case:mixed", "eff:no", "tok:13a", "smooth:exp", "version:")), ("chrf", ("case:mixed", "nc:6", "eff:yes", "nw:0", "space:no")), ("ter", ("case:lc", "tok:tercom", "norm:no", "punct:yes", "asian:no"))):
        assert all(p in ours[name]["signature"] for p in parts), ours[name]["signature"]
    two = [(r, a) for r, a in zip(references, answers)]
    assert translation_metrics(answers, two)["bleu"]["value"] == pytest.approx(100) == aggregations.bleu([*zip(two, answers)])
    assert translation_metrics(answers, two)["ter"]["value"] == 0 and ours == translation_metrics(answers, [[r] for r in references])


@pytest.mark.parametrize("groups", [None, ["a", "a", "", "b", "b"]])
def test_translations_are_compared_by_exchanging_sentences(groups):
    "Every exchange is scored by sacrebleu from the sentences themselves."
    references = ["Le chat dort près de l'église.", "Il faisait très chaud à Paris.", "Les forêts brûlent en été.", "Elle a vendu sa maison.", "Nous partons demain matin."]
    ours = ["Le chat dort près de l'école.", "Il faisait froid à Paris.", "Les forêts brûlent en été.", "Elle vend sa maison.", "Nous partons hier matin."]
    theirs = ["Le chien dort.", "Il faisait très chaud à Lyon.", "Les forêts brûlent en été.", "Elle a acheté un jardin.", "Vous partez demain."]
    golds, members = [[r] for r in references], [[0, 1], [2], [3, 4]] if groups else [[k] for k in range(5)]
    gaps = {"bleu": [], "chrf": []}
    for moved in itertools.product((0, 1), repeat=len(members)):
        sides = [list(ours), list(theirs)]
        for k in (k for m, some in zip(moved, members) if m for k in some): sides[0][k], sides[1][k] = sides[1][k], sides[0][k]
        one, two = (translation_metrics(x, golds, resamples=0) for x in sides)
        for name in gaps: gaps[name].append(one[name]["value"] - two[name]["value"])
    found = compare_translations(ours, theirs, golds, groups)
    for name, all_gaps in gaps.items():
        assert found[name]["difference"] == all_gaps[0] and found[name]["n"] == 5
        assert found[name]["p"] == pytest.approx(np.mean(np.abs(all_gaps) >= abs(all_gaps[0]) - 1e-9)) and compare_translations(theirs, ours, golds, groups)[name]["p"] == found[name]["p"]


def test_a_drawn_exchange_is_no_smaller_than_its_number_allows():
    references = [[f"Le chat numéro {k} dort."] for k in range(20)]
    clear = compare_translations([r[0] for r in references], ["zzz"] * 20, references, flips=99)
    assert clear["bleu"]["p"] == clear["chrf"]["p"] == .01 and clear["bleu"]["difference"] == pytest.approx(100)
    same = compare_translations(["zzz"] * 20, ["zzz"] * 20, references)
    assert same["bleu"] == {"difference": 0, "p": 1, "n": 20}
    one = compare_translations(["zzz"] * 19 + ["Le chat numéro 19 dort."], ["zzz"] * 20, references)
    assert one["chrf"]["difference"] > 0 and one["chrf"]["p"] == 1    # a single sentence is ahead of its exchange by as much


def test_translation_refuses(monkeypatch):
    for bad, said in (((["a"], ["b", "c"], [["d"]]), "2 translations for 1"), ((["a"], ["b"], [["c"]], ["d", "e"]), "2 names for 1")):
        with pytest.raises(BadInput, match=said): compare_translations(*bad)
    for bad, said in ((([], []), "0 translations"), ((["a"], []), "1 translations for 0"), ((["a"], ["b"]), "item 0: 'b'"), ((["a", "b"], [["c"], ["d", "e"]]), "item 1")):
        with pytest.raises(BadInput, match=said): translation_metrics(*bad)
    monkeypatch.setitem(__import__("sys").modules, "sacrebleu.metrics", None)
    with pytest.raises(BadInput, match="need the package sacrebleu"): translation_metrics(["a"], [["a"]])
