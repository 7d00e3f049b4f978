"""Tasks: prompts, choices and golds equal to the harness's own on one mirror, mended by default, loaded from a folder, a hub, a cache, or refused in a sentence."""
import ast
import importlib
import json
import os
import re
import shutil
import socket
import subprocess
import sys
from dataclasses import replace

import pytest
from fresh_interpreter import run_script
from frenchbench_mirror import harness_inside, task_manager
from hub_imitation import imitate

from croissant.frenchbench.tasks import GROUPS, TASKS, detokenize, find_tasks, fingerprint, load_items, load_rows, make_items
from croissant.params import BadInput, root

OURS = [t.name for t in TASKS.values() if t.origin.startswith("ours")]
THEIRS = [n for n in TASKS if n not in OURS]


@pytest.fixture(scope="module")
def harness(mirror, tmp_path_factory):
    "Loads a task of `lm_eval` from the mirror."
    manager, loaded = task_manager(), {}
    with harness_inside(mirror, tmp_path_factory.mktemp("cache")):
        def load(name):
            if name not in loaded: loaded[name] = manager.load([name])["tasks"][name]
            return loaded[name]
        yield load


def golds(task, doc):
    "What the harness compares a generation with: asked of its own scoring, by way of a metric that takes notes."
    seen = []
    task._metric_fn_list, task._metric_fn_kwargs = {"notes": lambda references, predictions: seen.append(references[0]) or 0}, {"notes": {}}
    task.process_results(doc, ["x"])
    return tuple(seen)


def read_as_lists(items):
    "What the harness makes of rendered golds: text like a list is one, and the first item decides whether all are."
    read = {}
    for i in items:
        try: value = ast.literal_eval(i.references[0]) if i.references[0][:1] == "[" else i.references[0]
        except (SyntaxError, ValueError): value = i.references[0]
        read[i.id] = value
    lists = isinstance(read[items[0].id], list)
    return {k: tuple(v) if lists else (str(v),) for k, v in read.items()}


@pytest.mark.parametrize("shots", [0, 5])
@pytest.mark.parametrize("name", THEIRS)
def test_equal_to_the_harness(name, shots, harness, mirror):
    task = harness(name)
    if TASKS[name].kind != "rolling": task.set_config("num_fewshot", shots)   # the harness leaves a card's 0 alone
    task.set_fewshot_seed(1234)
    task.build_all_requests()
    requests = {}
    for r in task.instances: requests.setdefault(r.doc_id, []).append(r)
    items = load_items(name, shots, source=mirror, compat="harness")
    assert [i.id for i in items] == [f"{TASKS[name].split}/{k}" for k in requests] and len(items) >= 8
    for item, asked in zip(items, requests.values()):
        doc, kind = asked[0].doc, TASKS[name].kind
        if kind == "rolling":
            assert (item.context, *item.choices) == ("", *asked[0].args)
            continue
        assert {item.context} == {r.args[0] for r in asked}
        if kind == "choice":
            assert list(item.choices) == [r.args[1] for r in asked] and list(item.lengths) == task.doc_to_choice(doc)
            said = task.doc_to_target(doc)
            assert item.gold == (said if isinstance(said, int) else int(said))
        else:
            assert read_as_lists(items)[item.id] == golds(task, doc) and list(TASKS[name].stop) == asked[0].args[1]["until"]


@pytest.mark.parametrize("name", THEIRS)
def test_metrics_are_those_of_the_harness(name, harness):
    config = harness(name).config
    named = [m["metric"] if isinstance(m["metric"], str) else m["metric"].__name__ for m in config.metric_list]
    assert list(TASKS[name].metrics) == named and {"choice": "multiple_choice", "generate": "generate_until", "rolling": "loglikelihood_rolling"}[TASKS[name].kind] == config.output_type


def test_a_whole_run_of_the_harness_asks_the_same(harness, mirror):
    "Limits, seeds and the order of items as `simple_evaluate` sets them, not as this file does."
    from lm_eval import simple_evaluate
    from lm_eval.api.model import LM
    class Notes(LM):
        asked: list = []
        def loglikelihood(self, requests): self.asked += [r.args for r in requests]; return [(-1., False)] * len(requests)
        def loglikelihood_rolling(self, requests): self.asked += [("", *r.args) for r in requests]; return [-1.] * len(requests)
        def generate_until(self, requests): self.asked += [r.args[:1] for r in requests]; return ["x"] * len(requests)
    names = ["french_bench_hellaswag", "french_bench_grammar", "sciq", "french_bench_fquadv2", "french_bench_opus_perplexity"]
    harness(names[0])                                                       # enters the mirror
    simple_evaluate(Notes(), tasks=names, task_manager=task_manager(), num_fewshot=3, limit=6, bootstrap_iters=0, verbosity=None)
    ours = {(i.context, *([c] if i.choices else [])) for n in names for i in load_items(n, 3, limit=6, source=mirror, compat="harness") for c in i.choices or ("",)}
    assert set(Notes.asked) == ours and len(ours) > 60


def test_what_the_default_mends(mirror):
    "Only cards that say so differ, and only in what they say."
    for name, task in TASKS.items():
        if task.dataset == "gmnlp/tico19" or "owner" in task.fixes: continue
        ours, theirs = (load_items(name, 5, source=mirror, compat=c) for c in (None, "harness"))
        assert {i.rule for i in ours} == {"fixed"} and {i.rule for i in theirs} == {"harness"}
        same = [replace(i, rule="") for i in ours] == [replace(i, rule="") for i in theirs]
        assert same == (not task.fixes or name in ("french_bench_fquadv2_hasAns", "french_bench_fquadv2_genq")), name   # no row without answer in the splits of these two


def test_list_golds(mirror):
    fixed, theirs = (load_items("french_bench_fquadv2", 0, source=mirror, compat=c) for c in (None, "harness"))
    assert [i.references for i in fixed[:2]] == [("Impossible",), ("Paris",)] and [i.references for i in theirs[:2]] == [("['Impossible']",), ("Paris",)]
    assert read_as_lists(theirs)["test/1"] == tuple("Paris")                      # the fault, kept for those who ask for it
    rows = load_rows(TASKS["french_bench_fquadv2"], mirror).scored[1:]
    genq = [make_items(TASKS["french_bench_fquadv2_genq"], rows, shots=0, compat=c)[2].context for c in (None, "harness")]
    assert "Réponse: Impossible\n" in genq[0] and "Réponse: ['Impossible']\n" in genq[1]


def test_prompts_of_our_own_cards(mirror):
    item = load_items("tico-en-fr", 1, source=mirror)[0]
    assert item.context == "English phrase: We close at seven o'clock.\nFrench phrase: Nous fermons à dix-neuf heures.\n\nEnglish phrase: The bread is ready.\nFrench phrase:" and item.references == ("Le pain est prêt.",)
    back = load_items("flores-fr-en", 0, source=mirror)[4]
    assert back.context == "French phrase: L'été a été trop sec.\nEnglish phrase:" and back.references == ("Summer was too dry.",)
    assert OURS == ["flores-en-fr", "flores-fr-en", "tico-en-fr"]


def test_empty_paragraphs(mirror):
    ours, theirs = (load_items("french_bench_wikitext_fr", source=mirror, compat=c) for c in (None, "harness"))
    assert [i.id for i in theirs if i not in [replace(o, rule="harness") for o in ours]] == ["test/2"] and all(i.choices[0] for i in ours)
    assert ours[0].lengths[0].startswith("Le château , construit") and ours[0].choices[0].startswith("Le château, construit") and "1,200" in ours[0].choices[0]


def test_detokenizer_equals_the_harness():
    theirs = importlib.import_module("lm_eval.tasks.french_bench.preprocess_wikitext").wikitext_detokenizer
    marks = ["s '", "/' 7/", " @-@ ", " @,@ ", " @.@ ", " : ", " ; ", " . ", " ! ", " ? ", " , ", "( a ", " ) ", "[ b ", " ] ", "{ c ", " } ", ' " ', " ' ", "= = = =", "= = =", "= =", " ° ", " \n", "\n ", " N ", " 's", "été", "«", "»"]
    texts = [a + b + c for a in marks for b in marks for c in ("", *marks[::3])]
    assert [detokenize(t) for t in texts] == [theirs({"paragraph": t}) for t in texts]


def test_groups_of_items(mirror):
    items = load_items("french_bench_reading_comp", 0, source=mirror)
    assert len(items) == 8 and len({i.group for i in items}) == 2 and all(i.group.startswith("context/") for i in items)
    assert {i.group for i in load_items("french_bench_grammar", 0, source=mirror)} == {""}


def test_names_and_groups():
    assert [t.name for t in find_tasks("sciq, french_bench_mc,sciq")] == ["sciq", *GROUPS["french_bench_mc"]]
    assert set(GROUPS["table3"]) < set(GROUPS["english"]) and len(GROUPS["french_bench_mc"]) == 5
    assert {t.name for t in TASKS.values() if t.name.startswith("french_bench")} == set(GROUPS["french_bench"]) | set(GROUPS["perplexity"]) and len(THEIRS) == 28
    for asked, words in (("french_bench_grammaire", "did you mean french_bench_grammar"), ("zzz", "groups: french_bench,"), (" , ", "no tasks asked for")):
        with pytest.raises(BadInput, match=words): find_tasks(asked)
    with pytest.raises(BadInput, match="'english' is a group"): load_items("english")


def test_cards_are_complete():
    for t in TASKS.values():
        assert t.origin and t.section and t.licence and t.metrics and t.fields and "/" in t.dataset, t.name
        assert not t.revision or len(t.revision) == 40 and set(t.revision) <= set("0123456789abcdef"), t.name
        assert bool(t.choices) == (t.kind == "choice") and bool(t.stop) == (t.kind == "generate") and bool(t.shots_split) == (t.kind != "rolling"), t.name


def test_fingerprints(mirror):
    a, b = (load_items("sciq", n, source=mirror) for n in (0, 1))
    assert fingerprint(a) == fingerprint(load_items("sciq", 0, source=mirror)) != fingerprint(b)
    assert fingerprint(a) != fingerprint([replace(a[0], gold=0), *a[1:]])


def edited(mirror, name, **change):
    "The task's first rows, the second one changed."
    rows = load_rows(TASKS[name], mirror, limit=3).scored
    return [rows[0], {k: v for k, v in (rows[1] | change).items() if v != "gone"}, rows[2]]


@pytest.mark.parametrize("name,change,words", [
    ("french_bench_trivia", {"Answer": "gone"}, "no field 'Answer', found Question"),
    ("french_bench_trivia", {"Answer": None}, "field 'Answer' is empty"),
    ("french_bench_trivia", {"Answer": "  "}, "field 'Answer' holds no answer"),
    ("french_bench_multifquad", {"answers": {"answers_start": [], "text": []}}, r"field 'answers.text' holds no answer"),
    ("french_bench_multifquad", {"answers": ["Paris"]}, r"no field 'answers.text'"),
    ("french_bench_boolqa", {"label": 2}, "field 'label' is 2, which names none of the 2 choices"),
    ("french_bench_boolqa", {"label": "1"}, "field 'label' should be int, found str"),
    ("french_bench_hellaswag", {"label": ""}, "field 'label' is ''.* is this a split without answers"),
    ("french_bench_hellaswag", {"endings": ["a", "b", "[step]", "d"]}, "choice 2 is empty"),
    ("french_bench_hellaswag", {"endings": ["seul"], "label": "0"}, "a choice needs two"),
    ("french_bench_hellaswag", {"endings": ["a", None, "c", "d"]}, "field 'endings' holds None at place 1"),
    ("french_bench_hellaswag", {"endings": ["a", "b"], "label": "3"}, "names none of the 2 choices"),
    ("arc_easy", {"answerKey": "E"}, "field 'answerKey' is 'E'"),
    ("wmt14-en-fr", {"translation": {"en": "Bread."}}, "no field 'translation.fr'"),
    ("french_bench_wikitext_fr", {"paragraph": None}, "field 'paragraph' is empty"),
])
def test_malformed_rows(name, change, words, mirror):
    with pytest.raises(BadInput, match=f"^{name}: row 1 of {TASKS[name].split}.*{words}"): make_items(TASKS[name], edited(mirror, name, **change), shots=0)


def test_malformed_examples_and_lenience(mirror):
    rows = edited(mirror, "french_bench_trivia", Answer="")
    with pytest.raises(BadInput, match="row 1 of train, an example"): make_items(TASKS["french_bench_trivia"], rows[:1], rows, shots=1)
    as_harness = make_items(TASKS["french_bench_trivia"], rows[:1], rows, shots=1, compat="harness")[0]
    assert as_harness.context == f"{rows[1]['Question']}\nAnswer:{rows[0]['Question']}\nAnswer:"     # bare, without a blank line: so it is there
    empty = edited(mirror, "french_bench_hellaswag", endings=["a", "b", "[step]", "d"])
    assert make_items(TASKS["french_bench_hellaswag"], empty, shots=0, compat="harness")[1].choices[2] == " "


def test_too_few_examples(mirror):
    rows = load_rows(TASKS["sciq"], mirror).scored
    with pytest.raises(BadInput, match=r"9 examples asked for, and split 'train' .* 8 rows"): make_items(TASKS["sciq"], rows, rows, 9)
    with pytest.raises(BadInput, match="8 examples asked for"): make_items(TASKS["piqa"], load_rows(TASKS["piqa"], mirror).scored, load_rows(TASKS["piqa"], mirror).scored, 8)
    twins = [rows[0]] * 3
    with pytest.raises(BadInput, match="too few rows that differ"): make_items(replace(TASKS["sciq"], leave_out=True), twins, twins, 2)
    with pytest.raises(BadInput, match="-1 shots"): make_items(TASKS["sciq"], rows, rows, -1)
    with pytest.raises(BadInput, match="compat 'harnais' is unknown"): load_items("sciq", 0, source=mirror, compat="harnais")
    with pytest.raises(BadInput, match="limit -2"): load_items("sciq", 0, limit=-2, source=mirror)


# Sources

def test_a_folder_that_lacks_something(mirror, tmp_path):
    with pytest.raises(BadInput, match=r"^sciq: no folder allenai/sciq in .*hf download allenai/sciq .*leave source out"): load_items("sciq", source=tmp_path)
    copy = tmp_path/"copy"
    for name in ("allenai/sciq", "facebook/xnli", "manu/french_boolq", "asi/wikitext_fr"): shutil.copytree(mirror/name, copy/name)
    with pytest.raises(BadInput, match="sciq: allenai/sciq in .* has no split 'dev', it has train, validation, test"): load_items(replace(TASKS["sciq"], split="dev"), source=copy)
    with pytest.raises(BadInput, match="french_bench_xnli: facebook/xnli in .* has no configuration 'de'"): load_items(replace(TASKS["french_bench_xnli"], config="de"), source=copy)
    (copy/"asi/wikitext_fr/wikitext_fr.py").write_text("raise SystemExit", encoding="utf-8")
    with pytest.raises(BadInput, match="french_bench_wikitext_fr: asi/wikitext_fr is a dataset with a loading script.*convert it once"): load_items("french_bench_wikitext_fr", source=copy)
    next((copy/"manu/french_boolq").rglob("test-*")).write_text('{"question": "Est-ce', encoding="utf-8")
    with pytest.raises(BadInput, match="french_bench_boolqa: reading manu/french_boolq from .* broke off"): load_items("french_bench_boolqa", 0, source=copy)
    next((copy/"allenai/sciq").rglob("test-*")).unlink()
    with pytest.raises(BadInput, match="sciq: .*allenai/sciq"): load_items("sciq", 0, source=copy)


def load(home, names, endpoint, offline=False, fresh=False, **card):
    "Load in a process of its own (a fork, see fresh_interpreter.py, unless `fresh`), since the hub's library reads its environment once: fingerprints, or the error, which comes within seconds."
    script = ("import json, sys, time\nfrom dataclasses import replace\nfrom croissant.frenchbench.tasks import TASKS, fingerprint, load_items\nfrom croissant.params import BadInput\n"
              "names, card = json.loads(sys.argv[1]); started = time.monotonic()\n"
              "try: print(json.dumps([fingerprint(load_items(replace(TASKS[n], **card))) for n in names]))\nexcept BadInput as e: assert time.monotonic() - started < 15, 'took too long'; print(json.dumps(str(e)))\n")
    env = {k: v for k, v in os.environ.items() if not k.startswith("HF_")} | {"HF_HOME": str(home), "HF_ENDPOINT": endpoint, "HF_HUB_DISABLE_TELEMETRY": "1", "HF_HUB_DISABLE_XET": "1"} | ({"HF_HUB_OFFLINE": "1"} if offline else {})
    if fresh: done = subprocess.run([sys.executable, "-c", script, json.dumps([names, card])], cwd=root(), capture_output=True, text=True, timeout=120, env=env)
    else: done = run_script(script, json.dumps([names, card]), env=env)
    assert done.returncode == 0, done.stderr
    *printed, last = done.stdout.splitlines()
    return json.loads(last), printed


@pytest.fixture
def hub(mirror):
    "A hub with the mirror's datasets, at the commits of the cards; one of them is gated."
    pins = {t.revision for t in TASKS.values() if t.revision}
    with imitate(lambda name: mirror/name if (mirror/name).is_dir() else None, pins, {"facebook/flores"}) as found: yield found


@pytest.fixture
def closed():
    "An address where nobody listens."
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{s.getsockname()[1]}"


@pytest.fixture
def silent():
    "An address that takes calls and never answers, as behind some firewalls."
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0)); s.listen(50)
        yield f"http://127.0.0.1:{s.getsockname()[1]}"


PICK = ["french_bench_fquadv2_hasAns", "french_bench_trivia", "french_bench_xnli", "french_bench_orangesum_title", "french_bench_hellaswag", "wmt14-fr-en"] # Parquet, CSV, a configuration, two of them, JSON lines, files of some splits


def test_hub_cache_and_folder_give_the_same_items(hub, closed, mirror, tmp_path):
    address, asked = hub
    here = [fingerprint(load_items(n, source=mirror)) for n in PICK]
    online, printed = load(tmp_path/"home", PICK, address, fresh=True)
    assert online == here
    assert [p.split(":")[0] for p in printed] == [n for n in PICK if not TASKS[n].revision] and all("main is 0123456789abcdef" in p for p in printed)   # an unpinned dataset says so
    resolved = [a for a in asked if "/resolve/" in a]
    assert any(f"/resolve/{TASKS['french_bench_trivia'].revision}/" in a for a in resolved) and not any("/resolve/main/" in a for a in resolved)
    assert not any("fr-en/train" in a for a in resolved), "the training split of WMT14 is left on the hub"
    offline, printed = load(tmp_path/"home", PICK, closed, offline=True)
    assert offline == here and not printed


def test_a_cache_of_another_commit_is_refused(hub, closed, tmp_path):
    _, printed = load(tmp_path/"home", ["french_bench_trivia"], hub[0], revision="")
    error, _ = load(tmp_path/"home", ["french_bench_trivia"], closed, offline=True)
    assert printed and error.startswith("french_bench_trivia: the cache, for HF_HUB_OFFLINE is set gives manu/french-trivia at 0123456789abcdef") and "the card asks for 90a86c5a" in error


@pytest.mark.parametrize("name,card,words", [
    ("flores-en-fr", {}, "flores-en-fr: facebook/flores is gated; accept its terms"),
    ("sciq", {"dataset": "allenai/sciences"}, "sciq: the hub has no dataset allenai/sciences"),
    ("sciq", {"revision": "f" * 40}, "sciq: the hub has allenai/sciq, but not at ffffffff"),
    ("sciq", {"split": "dev"}, "has no split 'dev', it has train, validation, test"),
    ("french_bench_xnli", {"config": "de"}, "facebook/xnli in the hub has no configuration 'de'"),
    ("wmt14-en-fr", {"files": "de-en/{split}-*.parquet"}, "wmt14-en-fr: .*wmt/wmt14"),
    ("french_bench_orangesum_title", {"dataset": "orange-sum", "revision": ""}, "the hub has no dataset orange-sum"),
])
def test_what_the_hub_lacks(name, card, words, hub, tmp_path):
    error, _ = load(tmp_path/"home", [name], hub[0], **card)
    assert re.search(words, error) and "\n" not in error and error.startswith(name), error


def test_a_script_on_the_hub(mirror, tmp_path):
    copy = tmp_path/"copy"
    shutil.copytree(mirror/"asi/wikitext_fr", copy/"asi/wikitext_fr")
    (copy/"asi/wikitext_fr/wikitext_fr.py").write_text("raise SystemExit", encoding="utf-8")
    with imitate(lambda name: copy/name, {TASKS["french_bench_wikitext_fr"].revision}) as (address, asked):
        error, _ = load(tmp_path/"home", ["french_bench_wikitext_fr"], address)
    assert "a dataset with a loading script" in error and "source=" in error and not any("/resolve/" in a for a in asked)


@pytest.mark.parametrize("network", ["closed", pytest.param("silent", marks=pytest.mark.exhaustive), "offline"])   # tests/test_hub.py waits for a silent one
def test_no_network_is_one_sentence(network, request, tmp_path):
    address = request.getfixturevalue("closed" if network == "offline" else network)
    error, _ = load(tmp_path/"home", ["sciq"], address, offline=network == "offline")
    assert error.startswith("sciq: the dataset allenai/sciq cannot be fetched") and "\n" not in error
    for remedy in ("HF_ENDPOINT", "HF_HUB_OFFLINE=1", "source="): assert remedy in error
    if network == "offline":
        error, _ = load(tmp_path/"home", ["wmt14-en-fr"], address, offline=True)
        assert error.startswith("wmt14-en-fr: the dataset wmt/wmt14 cannot be fetched")
