"""``python -m tests.soak``: see tests/soak/__init__.py."""

import argparse
import sys
import tempfile

from tests.soak import SUBJECTS, Killer


def main():
    """Kill, compare and report; returns exit status 1 at the first difference."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.soak", description="Kill runs at random instants and compare."
    )
    parser.add_argument(
        "subjects", nargs="*", metavar="SUBJECT", help=f"some of {', '.join(SUBJECTS)}; all by default"
    )
    parser.add_argument("--kills", type=int, default=100, help="SIGKILLs in all (default 100)")
    parser.add_argument("--seed", type=int, default=0, help="of the instants")
    options = parser.parse_args()
    unknown = set(options.subjects) - set(SUBJECTS)
    if unknown:
        parser.error(f"there is no subject {', '.join(sorted(unknown))}; there are {', '.join(SUBJECTS)}")
    subjects = options.subjects or SUBJECTS
    killer, total = Killer(options.seed), 0
    for i, subject in enumerate(subjects):
        share = (options.kills * (i + 1)) // len(subjects) - (options.kills * i) // len(subjects)
        with tempfile.TemporaryDirectory() as folder:
            found = killer.soak(subject, folder, share)
        total += found["kills"]
        print(
            f"{subject:16} {found['kills']:3} kills, {found['inside a task']:3} of them with a checkpoint "
            f"inside a task, "
            f"{found['rounds']} rounds of {found['seconds']:.1f} s: identical",
            flush=True,
        )
    print(f"{total} kills with SIGKILL: every run ended bit for bit as the run that was never killed")


if __name__ == "__main__":
    sys.exit(main())
