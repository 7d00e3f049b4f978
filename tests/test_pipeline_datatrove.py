"""The build as a datatrove pipeline: the same bytes as in one process, whoever does what, and after a kill."""
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import time
import zipfile

import pytest
from datatrove.data import Document
from datatrove.pipeline.readers import JsonlReader

from croissant.build import assemble, screen_packages
from croissant.fetch import Package
from croissant.filters import Rules
from croissant.params import BadInput, root
from croissant.pipeline import PackageReader, _excluded, local_executor, ray_executor, reconcile, slurm_executor, slurm_script
from croissant.provenance import sha256

RULES = Rules()


def law(number, articles):
    "A code of law as the packages hold it."
    sections = [{"type": "section", "data": {"title": t}, "children": [{"type": "article", "data": {"num": "1", "texteHtml": f"<p>{a}</p>"}}]} for t, a in articles.items()]
    return json.dumps({"type": "code", "data": {"title": f"Code {number}"}, "children": sections}).encode()


def package(data, number, content, member="LEGITEXT0001.json", used_for="legi"):
    path = data/f"npm/code-{number}.tgz"
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w:gz") as t:
        info = tarfile.TarInfo(f"package/data/{member}"); info.size = len(content); t.addfile(info, io.BytesIO(content))
    return Package("npm", f"@exemple/code-{number}", "1.0.0", path.name, path.stat().st_size, sha256(path), "lab", "Apache-2.0", "fr", used_for)


def catalogue(data):
    "A wheel with translated messages: pairs, which have no signature."
    pairs = [("Add the butter before the flour.", "Ajoutez le beurre avant la farine."), ("The oven is still hot.", "Le four est encore chaud."), ("OK now", "OK now")]
    path = data/"pypi/messages-2.0-py3-none-any.whl"
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as z: z.writestr("x/locales/fr/LC_MESSAGES/plone.po", "\n\n".join(f'msgid "{en}"\nmsgstr "{fr}"' for en, fr in pairs))
    return Package("PyPI", "messages", "2.0", path.name, path.stat().st_size, sha256(path), "lab", "Apache-2.0", "fr en", "plone")


def library(data):
    "A wheel with a module that is kept, one that is a table, and one that is no UTF-8: extractors skip the last two."
    path = data/"pypi/roue-1.0-py3-none-any.whl"
    path.parent.mkdir(parents=True, exist_ok=True)
    good = "def croissants(flour, butter):\n    \"Return how many croissants these weights make.\"\n    dough = flour + butter\n    return int(dough // 80)\n"
    with zipfile.ZipFile(path, "w") as z:
        for name, text in (("a", good.encode()), ("table", f"DATA = '{'x' * 500}'\n".encode()), ("b", b"# caf\xe9\n")): z.writestr(f"roue/{name}.py", text)
    return Package("PyPI", "roue", "1.0", path.name, path.stat().st_size, sha256(path), "lab", "MIT", "code", "python")


def article(i, j):
    return f"L'article {j} du code numéro {i} dit que le boulanger qui vend un croissant au beurre doit l'écrire sur une affiche que ses clients peuvent lire."


@pytest.fixture(scope="module")
def packages(tmp_path_factory):
    "Seven packages: the third holds nothing that the filters keep, the fourth repeats the first, then pairs, a little encyclopedia that teaches quality, and a program."
    data = tmp_path_factory.mktemp("données")
    texts = [{f"Titre {j}": article(i, j) for j in range(5)} | {"Divers": "Abrogé."} for i in range(2)]
    encyclopedia = json.dumps({str(j): {"title": f"Croissant {j}", "extract": article(7, j)} for j in range(3)}).encode()
    return data, [package(data, i, law(i, t)) for i, t in enumerate([*texts, {"Vide": "Abrogé."}, texts[0]])] + [catalogue(data), package(data, 5, encyclopedia, "summaries_fr-fr.json", "wiki_fr"), library(data)]


@pytest.fixture(scope="module")
def alone(packages, tmp_path_factory):
    "What one process writes, without datatrove."
    data, listed = packages
    place = tmp_path_factory.mktemp("seul")
    screen_packages(listed, data, RULES, place/"parts", 1)
    assemble(place/"parts", place/"corpus", RULES.min_chars, packages=[f"{p.package}@{p.version}" for p in listed])
    return files(place/"parts"), files(place/"corpus")


def files(folder):
    "Every file of a corpus, or of the first half but for the pipeline's own."
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*"))
            if p.is_file() and p.name != "plan.json" and p.relative_to(folder).parts[0] not in ("logs", "dropped")}


@pytest.mark.parametrize("workers,tasks", [(1, 0), pytest.param(2, 0, marks=pytest.mark.exhaustive), (2, 3), (1, 1)])
def test_workers_and_tasks_change_no_byte(packages, alone, tmp_path, workers, tasks, capfd):
    data, listed = packages
    local_executor(listed, data, RULES, tmp_path/"parts", tmp_path/"corpus", workers=workers, tasks=tasks).run()
    assert (files(tmp_path/"parts"), files(tmp_path/"corpus")) == alone
    assert any(alone[1].values()) and "quality-fr.npz" in alone[0] and reconcile(tmp_path/"parts", 7) == {"read": 25, "kept": 21, "dropped": 4}
    assert capfd.readouterr().err == ""                      # datatrove's log stays in its files
    assert "Processing done" in (tmp_path/"parts/logs/screen/logs/task_00000.log").read_text(encoding="utf-8")


def test_ranks_share_the_packages(packages):
    data, listed = packages
    read = [[d.metadata["number"] for d in PackageReader(listed, data).run(rank=r, world_size=3)] for r in range(3)]
    assert [sorted(set(x)) for x in read] == [[0, 3, 6], [1, 4], [2, 5]]


@pytest.fixture(scope="module")
def screened(packages, tmp_path_factory):
    "The first half, by one worker; to be copied before it is changed."
    data, listed = packages
    place = tmp_path_factory.mktemp("tri")
    local_executor(listed, data, RULES, place/"parts", place/"corpus", workers=1).depends.run()
    return place/"parts"


def test_reasons_are_statistics_and_records_are_kept_aside(screened):
    counted = json.loads((screened/"logs/screen/stats.json").read_text(encoding="utf-8"))[1]["stats"]
    assert counted["dropped_too short"] == 4 and counted["forwarded"] == 21
    aside = [json.loads(x) for x in (screened/"dropped/00002.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [(x["text"], x["reason"], x["package"]) for x in aside] == [("Code 2 > Vide\n\nArticle 1\nAbrogé.", "too short", "@exemple/code-2@1.0.0")]


def test_what_extractors_skip_is_counted_as_in_one_process(packages, alone, tmp_path):
    data, listed = packages
    local_executor(listed[-1:], data, RULES, tmp_path/"parts", tmp_path/"corpus", workers=1).run()
    dropped = json.loads((tmp_path/"parts/000.json").read_text(encoding="utf-8"))["dropped"]
    assert [["python", "in extraction: not UTF-8", 1], ["python", "in extraction: very long lines", 1]] == [d for d in dropped if len(d) == 3] and dropped == json.loads(alone[0]["006.json"])["dropped"]


def test_dropped_records_name_nobody(packages, tmp_path):
    data = tmp_path/"data"
    listed = [package(data, 0, law(0, {"Bref": "Écrire à jeanne.durand@example.org.", "Long": article(0, 0)}))]
    local_executor(listed, data, Rules(min_chars=100), tmp_path/"parts", tmp_path/"corpus", workers=1).run()
    text = (tmp_path/"parts/dropped/00000.jsonl").read_text(encoding="utf-8")
    assert "[e-mail]" in text and "durand" not in text and "durand" not in (tmp_path/"parts/000.json").read_text(encoding="utf-8")
    pair = Document(text="", id="", metadata={"filter_reason": "no pair", "record": {"language": "parallel", "fr": "Appelez le 01 23 45 67 89.", "en": "Write to jane@example.org."}})
    assert _excluded(None, pair) == {"language": "parallel", "fr": "Appelez le [téléphone].", "en": "Write to [e-mail].", "reason": "no pair"}


def test_a_second_run_does_only_what_is_left(packages, alone, tmp_path):
    data, listed = packages
    run = lambda: local_executor(listed, data, RULES, tmp_path/"parts", tmp_path/"corpus", workers=1).run()
    run()
    times = {p.name: p.stat().st_mtime_ns for p in (tmp_path/"parts").glob("[0-9]*.jsonl")}
    (tmp_path/"parts/logs/screen/completions/00001").unlink()
    (tmp_path/"parts/001.jsonl").write_bytes(b"half a li")                  # what a killed task leaves
    run()
    assert (files(tmp_path/"parts"), files(tmp_path/"corpus")) == alone
    assert [n for n, t in times.items() if (tmp_path/"parts"/n).stat().st_mtime_ns != t] == ["001.jsonl"]


def test_killed_and_run_again(tmp_path):
    data = tmp_path/"data"
    listed = [package(data, i, law(i, {f"Titre {j}": article(i, j) for j in range(50)})) for i in range(8)]
    script = tmp_path/"build.py"
    script.write_text("import sys\nfrom croissant.fetch import Package\nfrom croissant.filters import Rules\nfrom croissant.pipeline import local_executor\nimport json\n"
                      "if __name__ == '__main__':\n    packages = [Package(*p) for p in json.loads(sys.argv[1])]\n    local_executor(packages, sys.argv[2], Rules(), sys.argv[3], sys.argv[3] + '-corpus', workers=2).run()\n", encoding="utf-8")
    command = lambda out: [sys.executable, str(script), json.dumps([list(p.__dict__.values()) for p in listed]), str(data), str(tmp_path/out)]
    screen_packages(listed, data, RULES, tmp_path/"clean", 1)
    assemble(tmp_path/"clean", tmp_path/"clean-corpus", RULES.min_chars, packages=[f"{p.package}@{p.version}" for p in listed])
    job = subprocess.Popen(command("killed"), cwd=root(), start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    done = tmp_path/"killed/logs/screen/completions"
    while job.poll() is None and not (done.is_dir() and any(done.iterdir())): time.sleep(.005)
    os.killpg(job.pid, signal.SIGKILL); job.wait()                        # this test's own process group
    first = {p.name for p in done.iterdir()}
    log = lambda rank: (tmp_path/f"killed/logs/screen/logs/task_{rank}.log").stat().st_mtime_ns
    before = {rank: log(rank) for rank in first}
    subprocess.run(command("killed"), check=True, capture_output=True, timeout=300, cwd=root())
    assert files(tmp_path/"killed") == files(tmp_path/"clean") and files(tmp_path/"killed-corpus") == files(tmp_path/"clean-corpus")
    assert first and reconcile(tmp_path/"killed", 8)["read"] == 400
    assert {rank: log(rank) for rank in first} == before                    # what was complete was left alone


@pytest.mark.parametrize("harm,words", [
    (lambda p: (p/"000.jsonl").write_bytes((p/"000.jsonl").read_bytes().split(b"\n", 1)[1]), "kept, lines written: 21 and 20"),
    (lambda p: (p/"dropped/00002.jsonl").unlink(), "dropped, lines of dropped/: 4 and 3"),
    (lambda p: (p/"003.jsonl").unlink(), "packages: 7 and 6"),
    (lambda p: (p/"logs/screen/stats/00001.json").write_text((p/"logs/screen/stats/00001.json").read_text().replace('"written": 5', '"written": 4')), "kept, written: 21 and 20"),
    (lambda p: (p/"logs/screen/stats/00001.json").write_text((p/"logs/screen/stats/00001.json").read_text().replace('"documents": 6', '"documents": 7')), "read, screened: 26 and 25"),
])
def test_a_lost_document_is_noticed(packages, screened, tmp_path, harm, words):
    data, listed = packages
    shutil.copytree(screened, tmp_path/"parts")
    job = local_executor(listed, data, RULES, tmp_path/"parts", tmp_path/"corpus", workers=1)
    harm(tmp_path/"parts")
    with pytest.raises(BadInput, match=words): job.run()
    assert not (tmp_path/"corpus").exists()


def test_another_plan_is_refused(packages, tmp_path):
    data, listed = packages
    make = lambda packages=listed, rules=RULES, **how: local_executor(packages, data, rules, tmp_path/"parts", tmp_path/"corpus", **how)
    make(); make(workers=1)                                                # workers are no part of the plan
    for other, words in (({"rules": Rules(min_chars=7)}, "other rules"), ({"tasks": 2}, "other tasks"), ({"packages": listed[:3]}, "other packages, tasks")):
        with pytest.raises(BadInput, match=words): make(**other)
    with pytest.raises(BadInput, match="no packages"): make(packages=[])


def test_a_damaged_archive_stops_its_task_only(packages, tmp_path):
    data, listed = packages
    bad = package(tmp_path/"data", 9, b"{")
    for p in listed[:2]: (tmp_path/"data/npm"/p.file).write_bytes(p.path(data).read_bytes())
    job = local_executor([listed[0], bad, listed[1]], tmp_path/"data", RULES, tmp_path/"parts", tmp_path/"corpus", workers=1)
    with pytest.raises(BadInput, match="code-9.tgz: member .* is not valid JSON"): job.run()
    assert sorted(p.name for p in (tmp_path/"parts/logs/screen/completions").iterdir()) == ["00000"] and not (tmp_path/"parts/001.jsonl").exists()


def test_slurm_and_ray_are_constructed_without_either(packages, tmp_path):
    data, listed = packages
    job = slurm_executor(listed, data, RULES, tmp_path/"slurm", tmp_path/"corpus", partition="cpu", time="01:00:00", workers=3)
    script = slurm_script(job.depends)
    assert script.startswith("#!/bin/bash\n#SBATCH") and "--array=0-6%3\n" in script and "--partition=cpu\n" in script and "launch_pickled_pipeline" in script
    assert "--array=0-0" in slurm_script(job) and [s.name for s in job.depends.pipeline] == ["packages", "screen", "signatures", "records"]
    (tmp_path/"slurm/logs/screen/completions").mkdir(parents=True); (tmp_path/"slurm/logs/screen/completions/00002").touch()
    assert "--array=0-5%3" in slurm_script(job.depends)                    # a finished task is not submitted again
    job = ray_executor(listed, data, RULES, tmp_path/"ray", tmp_path/"corpus")
    assert (job.depends.tasks, job.tasks, job.pipeline[0].name) == (7, 1, "assemble") and job.depends.depends.pipeline[0].name == "quality models"


def test_empty_packages_have_files_too(packages, alone):
    assert alone[0]["002.jsonl"] == alone[0]["002.npy"] == b"" and json.loads(alone[0]["002.json"])["dropped"]


def test_why_we_do_not_read_jsonl_with_datatrove(tmp_path):
    "If this fails, datatrove has mended its reader, and the notebook should say so."
    (tmp_path/"a.jsonl").write_bytes(b'{"text": "bon", "id": "1"}\n{"text": "caf\xe9", "id": "2"}\n')
    assert list(JsonlReader(str(tmp_path), compression=None).run()) == []
