"""``python -m tests.soak``: see tests/soak/__init__.py and tests/soak/trials.py."""

import argparse
import sys
import tempfile
from collections import Counter

from tests.soak import SUBJECTS, Killer
from tests.soak.trials import KINDS, Trials


def main():
    """Disturb, compare and report; an AssertionError ends it at the first difference."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.soak", description="Disturb runs at random instants, resume them and compare."
    )
    words = (
        f"methods and learners ({', '.join(SUBJECTS)}) or kinds of trials ({', '.join(KINDS)}); default: all"
    )
    parser.add_argument("what", nargs="*", metavar="WHAT", help=words)
    parser.add_argument(
        "--trials", type=int, default=300, help="in all, half of them kills of each method (300)"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the instants")
    options = parser.parse_args()
    if unknown := set(options.what) - {*SUBJECTS, *KINDS}:
        parser.error(f"there is no {', '.join(sorted(unknown))}; there are {', '.join((*SUBJECTS, *KINDS))}")
    subjects = [s for s in SUBJECTS if s in (options.what or SUBJECTS)]
    kinds = [k for k in KINDS if k in (options.what or KINDS)]
    half = options.trials // 2 if subjects and kinds else options.trials
    done = _kills(subjects, half, options.seed) if subjects else 0
    done += _trials(kinds, options.trials - half if subjects else half, options.seed) if kinds else 0
    print(f"{done} trials: every run ended bit for bit as the run that was never disturbed")


def _shares(total, names):
    """(name, its share of the total) for each name."""
    n = len(names)
    return [(name, total * (i + 1) // n - total * i // n) for i, name in enumerate(names)]


def _kills(subjects, total, seed):
    killer, done = Killer(seed), 0
    for subject, share in _shares(total, subjects):
        with tempfile.TemporaryDirectory() as folder:
            found = killer.soak(subject, folder, share)
        done += found["kills"]
        print(
            f"{subject:16} {found['kills']:3} kills, {found['inside a task']:3} of them with a checkpoint "
            f"inside a task, {found['rounds']} rounds of {found['seconds']:.1f} s: identical",
            flush=True,
        )
    return done


def _trials(kinds, total, seed):
    with tempfile.TemporaryDirectory() as folder:
        trials = Trials(folder, seed)
        for kind, share in _shares(total, kinds):
            happened = Counter(trials.trial(kind) for _ in range(share))
            said = ", ".join(f"{n} {what}" for what, n in sorted(happened.items()))
            print(f"{kind:16} {share:3} trials ({said}): identical", flush=True)
    return total


if __name__ == "__main__":
    sys.exit(main())
