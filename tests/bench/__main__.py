"""The bench: ``python -m tests.bench [NAME ...] [--json] [--repeats N] [--data mnist|made] [--threads N]``.

Every row measures both sides in one run, alternately, and reports the median with the smallest and largest
repeat. MNIST comes from $CLKIT_DATA if it is there; otherwise random bytes of the same size replace it.
"""

import argparse
import contextlib
import difflib
import json
import sys
import tempfile
from pathlib import Path

import torch

from clkit import data
from clkit.data import facts
from tests.bench.measure import FULL, Setup, machine, write_made
from tests.bench.rows import ROWS


def main(arguments=None, images=FULL):
    """Run the rows and print the table; returns the exit status, 0 or 2 for bad input."""
    options = _parser().parse_args(arguments)
    for name in options.names:
        if name not in ROWS:
            near = difflib.get_close_matches(name, ROWS, n=1, cutoff=0.4)
            hint = f"did you mean {near[0]}?" if near else f"the rows are {', '.join(ROWS)}"
            print(f"bench: there is no row '{name}'; {hint}", file=sys.stderr)
            return 2
    there = not facts.missing("mnist")
    if options.data == "mnist" and not there:
        print(
            f"bench: there is no MNIST in {data.root()}: point CLKIT_DATA at it, or use --data made",
            file=sys.stderr,
        )
        return 2
    before = torch.get_num_threads()
    torch.set_num_threads(options.threads)
    try:
        with _setup(options, there, images) as setup:
            _report(options, setup)
    finally:
        torch.set_num_threads(before)
    return 0


def _parser():
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description="Side-by-side measurements.")
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help=f"rows, of {', '.join(ROWS)}; all by default"
    )
    parser.add_argument("--json", action="store_true", help="one JSON object on standard output")
    parser.add_argument(
        "--repeats", type=_positive, default=5, metavar="N", help="repeats of each measurement (5)"
    )
    parser.add_argument("--threads", type=_positive, default=1, metavar="N", help="CPU threads of torch (1)")
    parser.add_argument(
        "--data", choices=("mnist", "made"), help="mnist where it is there, else made (random bytes)"
    )
    return parser


def _positive(text):
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"'{text}' is not a number of 1 or more")
    return int(text)


@contextlib.contextmanager
def _setup(options, there, images):
    if options.data != "made" and there:
        yield Setup(data.root(), False, FULL, options.repeats)
        return
    with tempfile.TemporaryDirectory() as folder:
        write_made(folder, images)
        yield Setup(Path(folder), True, images, options.repeats)


def _report(options, setup):
    facts, lines = {**machine(), "data": setup.data, "images": list(setup.images)}, []
    for name in options.names or ROWS:
        print(f"bench: {name} ...", file=sys.stderr, flush=True)
        lines += ROWS[name](setup)
    if options.json:
        print(json.dumps({"machine": facts, "lines": [one.as_dict() for one in lines]}, indent=1))
        return
    print(", ".join(f"{key} {value}" for key, value in facts.items() if key != "images"))
    titles = f"{'':9} {'':46} {'median':>10} {'smallest .. largest':>21}"
    print(f"{titles} {'':8}   ratio (smallest .. largest)   target")
    for one in lines:
        print(_text(one))
    goals = [one.reached for one in lines if one.target]
    print(f"{sum(goals)} of {len(goals)} targets reached")


def _text(one):
    """A line of the table."""
    spread = f"{_number(one.low)} .. {_number(one.high)}" if one.n > 1 else ""
    ratio = "" if one.ratio is None else f"{one.ratio[0]:6.2f} x ({one.ratio[1]:.2f} .. {one.ratio[2]:.2f})"
    goal = f"{one.target}: {'reached' if one.reached else 'NOT reached'}" if one.target else ""
    measured = f"{one.row:9} {one.label:46} {_number(one.median):>10} {spread:>21} {one.unit:8}"
    return f"{measured} {ratio:29}   {goal}".rstrip()


def _number(value):
    return f"{value:.4g}" if value < 1000 else f"{value:.0f}"


if __name__ == "__main__":
    sys.exit(main())
