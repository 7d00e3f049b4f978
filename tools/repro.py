"""Everything the README promises, in order:  python tools/repro.py [--retrain]

fetch the pinned packages and verify them; rebuild the corpus and compare its hash with dvc.lock; restore the released
tokenizer and model from .dvcstore/; run every stage whose output is not here (evaluation, figures, claims, report);
verify. With --retrain nothing released is restored: tokenizer and model are made again from the corpus.
"""
import argparse, shutil, subprocess, sys, time
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[1]
RELEASED = ["train_tokenizer", "pretrain"]     # stages whose outputs .dvcstore/ holds
REBUILT = ["build_corpus"]                     # made of other people's text: rebuilt, never stored


def say(text):
    print(f"\n== {text}", flush=True)


def run(*cmd):
    code = subprocess.run(cmd, cwd=ROOT).returncode
    if code: sys.exit(f"stopped: `{' '.join(cmd)}` ended with status {code}; the message above says why. Running the same command again continues from here.")


def dvc(*args):
    run(sys.executable, "-m", "dvc", *args)


def outputs(stage):
    "Path -> hash of a stage's outputs, as dvc.lock records them."
    lock = yaml.safe_load((ROOT/"dvc.lock").read_text(encoding="utf-8"))
    return {o["path"]: o["md5"] for o in lock["stages"].get(stage, {}).get("outs", [])}


def main():
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--retrain", action="store_true", help="train tokenizer and model again instead of restoring them")
    args = p.parse_args()
    from croissant.provenance import dvc_md5, metric
    from croissant.verify import verify
    started, lock = time.monotonic(), ROOT/"dvc.lock"
    before = {s: outputs(s) for s in REBUILT} if lock.is_file() else {}

    say("source packages")
    run(sys.executable, "-m", "croissant.cli", "fetch")
    pinned = yaml.safe_load((ROOT/"data.dvc").read_text(encoding="utf-8"))["outs"][0]["md5"]
    if dvc_md5(ROOT/"data") != pinned:
        sys.exit("stopped: data/ is not what data.dvc pins, though each listed package is; is there another file in it? Move it away and run again.")

    say("corpus")
    dvc("repro", "-q", *REBUILT)
    for stage, want in before.items():
        changed = [path for path, md5 in outputs(stage).items() if want.get(path, md5) != md5]
        if changed:
            sys.exit(f"stopped: stage {stage} rebuilt {', '.join(changed)} with another hash than dvc.lock records, so nothing downstream would be what is reported. "
                     "Is a file under data/, croissant/ or nbs/ changed? `git status`, `git checkout dvc.lock`, then run again.")

    if args.retrain:
        say("tokenizer and model, from raw data (about fifteen minutes)")
        dvc("repro", "--force", "--single-item", "train_tokenizer")
        dvc("repro", "tokenize")
        dvc("repro", "--force", "--single-item", "pretrain")
    else:
        say("released tokenizer and model")
        dvc("pull", "-q", *RELEASED)

    say("every stage that is not up to date")
    dvc("repro")

    say("verification")
    found = verify()
    for r in found["rows"]:
        if r["state"] != "passed": print(f"  {r['state']}: {r['check']} {r['evidence']}: {r['reason']}")
    n = lambda key: int(metric(key)["value"])
    print(f"\n  checks      {found['passed']} passed, {found['failed']} failed, {found['skipped']} skipped")
    print(f"  claims      {n('claims/verified')} verified, {n('claims/discrepant')} discrepant, {n('claims/not_reproducible')} not reproducible here")
    print(f"  FMTI        {n('fmti/disclosed')} of {n('fmti/indicators')} disclosed = {n('fmti/machine_proved')} machine-proved + {n('fmti/structural')} structural + "
          f"{n('fmti/asserted')} asserted; {n('fmti/external')} need an outsider (self-assessment)")
    print(f"  report      {ROOT/'reports'/'report.html'}")
    print(f"  took        {time.monotonic() - started:.0f} s")
    return 1 if found["failed"] else 0


if __name__ == "__main__":
    if shutil.which("git") is None: sys.exit("git is needed: DVC finds the repository through it")
    sys.exit(main())
