"""Everything the README promises, in order:  python tools/repro.py [--retrain | --finetune | --studies]

fetch the pinned packages and verify them; rebuild the corpus and compare its hash with dvc.lock; restore the released
tokenizer and models from .dvcstore/; run every stage whose output is not here (evaluation, figures, claims, report);
verify. With --retrain tokenizer and model are not restored but made again from the corpus, and what is made from the model with them;
with --finetune only the translator and the chat model are, with --studies the studies.
All note each stage that they have made again, so the same command continues after a stop; a run within a stage continues, too.
Exit status: 0 well, 1 a check failed, 2 wrong input, 130 stopped with Ctrl-C, else that of the command that failed.
"""
import argparse, itertools, shutil, signal, subprocess, sys, threading, time
from contextlib import suppress
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
RELEASED = ["train_tokenizer", "pretrain"]     # stages whose outputs .dvcstore/ holds
FINETUNED = ["translate", "chat", "twins"]     # the same, of models made from the released one; --finetune makes them again
STUDIES = ["language_balance", "vocabulary_size", "compare_optimizers", "ladder", "foretell", "ladder_held_out", "ablations", "compare_schedules"]   # the same; --retrain restores them, --studies makes them again
REBUILT = ["build_corpus"]                     # made of other people's text: rebuilt, never stored


class Stopped(Exception):
    "A part did not end well: message, exit status."


class Clock:
    "Names the parts of the work as they begin, and says how long each took."
    def __init__(self): self.begun, self.part = time.monotonic(), ""

    def next(self, part):
        if self.part: print(f"   {self.part}: {time.monotonic() - self.since:.1f} s", flush=True)
        if part: print(f"\n== {part}", flush=True)
        self.part, self.since = part, time.monotonic()

    def total(self): return time.monotonic() - self.begun


def run(*cmd, again="Running the same command again continues from here."):
    "Run a command. Ctrl-C reaches it without our help: wait until it has saved, then pass its status on."
    pressed = []
    before = signal.signal(signal.SIGINT, lambda *_: pressed.append(1))   # a handler, not SIG_IGN: the child must not inherit deafness
    try: code = ended(subprocess.Popen(cmd, cwd=ROOT), "-q" in cmd)
    finally: signal.signal(signal.SIGINT, before)
    if pressed: raise Stopped(f"stopped with Ctrl-C. {again}", 130)
    if code: raise Stopped(f"stopped: `{' '.join(cmd)}` ended with status {code}; the message above says why. {again}", code if code > 0 else 128 - code)


def ended(child, quiet):
    "The status of a child; while a quiet one works, a line every two minutes says so."
    for minutes in itertools.count(2, 2):
        try: return child.wait(120 if quiet else None)
        except subprocess.TimeoutExpired: print(f"   ... at work for {minutes} minutes; Ctrl-C stops it, and nothing that is finished is lost", flush=True)


def dvc(*args, **more):
    run(sys.executable, "-m", "dvc", *args, **more)


def up_to_date():
    "Does DVC find every stage, input and output as dvc.lock records them? Then there is nothing to build, restore or run."
    return subprocess.run([sys.executable, "-m", "dvc", "status", "-q", "dvc.yaml", "data.dvc", "peers.dvc", "exams.dvc"], cwd=ROOT, stderr=subprocess.DEVNULL).returncode == 0   # full/ has its own pipeline


def outputs(stage):
    "Path -> hash of a stage's outputs, as dvc.lock records them."
    from croissant.params import load_yaml
    lock = load_yaml(ROOT/"dvc.lock")
    return {o["path"]: o["md5"] for o in lock["stages"].get(stage, {}).get("outs", [])}


class Ledger:
    "The stages that a command has made again; it outlives a stop, and goes when the command has ended well."
    def __init__(self, name): self.path = ROOT/"artifacts"/"runs"/f"{name}.made"

    def made(self): return self.path.read_text(encoding="utf-8").split() if self.path.is_file() else []

    def note(self, stage):
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a", encoding="utf-8") as f: f.write(f"{stage}\n")

    def close(self): self.path.unlink(missing_ok=True)


def make_again(ledger, *stages):
    "Run stages although DVC finds them up to date; those that were made before a stop run only if they are not."
    for stage in stages:
        dvc("repro", *([] if stage in ledger.made() else ["--force"]), "--single-item", stage)
        if stage not in ledger.made(): ledger.note(stage)


def load_ahead():
    "Import what verification needs while other processes work; the imports take longer than the checks."
    with suppress(ImportError):   # verification itself will say what is missing
        import croissant.verify  # noqa: F401
        import transformers.models.llama.modeling_llama  # noqa: F401


def build(clock, ledger=None):
    "Everything between the source packages and the verification; a ledger names what is made again instead of restored."
    before = {s: outputs(s) for s in REBUILT} if (ROOT/"dvc.lock").is_file() else {}
    clock.next("corpus")
    dvc("repro", "-q", *REBUILT)
    for stage, want in before.items():
        changed = [path for path, md5 in outputs(stage).items() if want.get(path, md5) != md5]
        if changed:
            raise Stopped(f"stopped: stage {stage} rebuilt {', '.join(changed)} with another hash than dvc.lock records, so nothing downstream would be what is reported. "
                          "Is a file under data/, croissant/ or nbs/ changed? `git status`, `git checkout dvc.lock`, then run again.", 1)
    if ledger is None:
        clock.next("released tokenizer and models")
        dvc("pull", "-q", *RELEASED, *FINETUNED, *STUDIES)
    elif ledger.path.stem == "retrain":
        clock.next("tokenizer and model, from raw data")
        if not ledger.made(): dvc("pull", "-q", *STUDIES)
        make_again(ledger, "train_tokenizer")
        dvc("repro", "tokenize")
        make_again(ledger, *RELEASED[1:])
        dvc("repro", "instructions", "phrases")
        make_again(ledger, *FINETUNED)
    elif ledger.path.stem == "finetune":
        clock.next("translator and chat model, from the released one")
        if not ledger.made(): dvc("pull", "-q", *RELEASED, *STUDIES)
        dvc("repro", "tokenize", "instructions", "phrases")
        make_again(ledger, *FINETUNED)
    else:
        clock.next("the studies, from raw data")
        if not ledger.made(): dvc("pull", "-q", *RELEASED, *FINETUNED)
        dvc("repro", "tokenize")
        make_again(ledger, *STUDIES)
    clock.next("every stage that is not up to date")
    dvc("repro")


def verification():
    "Run every check and print the sums; 1 if one failed."
    import torch
    from croissant.provenance import metric
    from croissant.verify import verify
    torch.set_num_threads(1)   # the model reads a sentence at a time: a second thread would only wait for the first
    found = verify()
    for r in found["rows"]:
        if r["state"] != "passed": print(f"  {r['state']}: {r['check']} {r['evidence']}: {r['reason']}")
    n = lambda key: int(metric(key)["value"])
    print(f"\n  checks      {found['passed']} passed, {found['failed']} failed, {found['skipped']} skipped")
    print(f"  claims      {n('claims/verified')} verified, {n('claims/discrepant')} discrepant, {n('claims/not_reproducible')} not reproducible here; {n('claims/transcribed')} more only compare two printings of one number")
    print(f"  FMTI        {n('fmti/disclosed')} of {n('fmti/indicators')} disclosed = {n('fmti/machine_proved')} machine-proved + {n('fmti/structural')} structural + "
          f"{n('fmti/asserted')} asserted; {n('fmti/external')} need an outsider (self-assessment)")
    print(f"  report      {ROOT/'reports'/'report.html'}")
    return 1 if found["failed"] else 0


def main(again=""):
    "Reproduce; `again` is retrain, finetune or studies. The exit status."
    from croissant.params import load_yaml
    from croissant.provenance import dvc_md5
    ahead = threading.Thread(target=load_ahead, daemon=True)
    ahead.start()
    clock = Clock()
    clock.next("source packages")
    for tier, folder in (("lab", "data"), ("peers", "peers"), ("exams", "exams")):
        run(sys.executable, "-m", "croissant.cli", "fetch", "--tier", tier)
        pinned = load_yaml(ROOT/f"{folder}.dvc")["outs"][0]["md5"]
        if dvc_md5(ROOT/folder) != pinned:
            raise Stopped(f"stopped: {folder}/ is not what {folder}.dvc pins, though each listed package is; is there another file in it? Move it away and run again.", 2)
    clock.next("stages")
    ledger = Ledger(again) if again else None
    if not ledger and up_to_date(): print("   all up to date: corpus, tokenizer, model and every figure are as dvc.lock records them")
    else: build(clock, ledger)
    if ledger: ledger.close()
    clock.next("verification")
    ahead.join()
    code = verification()
    clock.next("")
    print(f"\n  took        {clock.total():.0f} s")
    return code


if __name__ == "__main__":
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    which = p.add_mutually_exclusive_group()
    which.add_argument("--retrain", action="store_true", help="make tokenizer and model again instead of restoring them")
    which.add_argument("--finetune", action="store_true", help="make the translator and the chat model again from the released model")
    which.add_argument("--studies", action="store_true", help="make the studies again instead of restoring them")
    args = p.parse_args()
    from croissant.params import BadInput
    try:
        if shutil.which("git") is None: raise BadInput("git is needed: DVC finds the repository through it; install it and run again")
        sys.exit(main(next((k for k in ("retrain", "finetune", "studies") if getattr(args, k)), "")))
    except Stopped as e: print(e.args[0], file=sys.stderr); sys.exit(e.args[1])
    except (BadInput, OSError) as e: print(f"error: {e}", file=sys.stderr); sys.exit(2)
    except KeyboardInterrupt: print("\nstopped with Ctrl-C; running the same command again continues", file=sys.stderr); sys.exit(130)
