"""``python -m tests.golden [WORD ...] [--write]``: compare all golden digests, see __init__.py."""

import argparse
import json
import sys

from clkit.errors import ClkitError
from tests import golden


def main():
    parser = argparse.ArgumentParser(
        prog="python -m tests.golden", description=golden.__doc__.splitlines()[0]
    )
    parser.add_argument("words", nargs="*", metavar="WORD", help="beginnings of names; all by default")
    parser.add_argument(
        "--kind", choices=golden.KINDS, help="smoke experiments or settings of records; both by default"
    )
    parser.add_argument("--write", action="store_true", help="take over what differs")
    options = parser.parse_args()
    faults = sum(check(kind, options) for kind in ([options.kind] if options.kind else golden.KINDS))
    print(f"{faults} differ" if faults else "all equal")
    return 1 if faults else 0


def check(kind, options):
    """Compare one file; returns the number of experiments that differ."""
    kept, here, faults = golden.read(kind), golden.machine_facts(), 0
    for name, found in golden.jobs(kind):
        if options.words and not name.startswith(tuple(options.words)):
            continue
        row = kept["results"].get(name)
        try:
            result = golden.result_of(found)
            now = {"average": round(result.average(), 4), "digests": golden.digests(result)}
        except ClkitError as error:  # some settings diverge on so few images: that is kept too
            result, now = None, {"error": str(error)}
        if row is None:
            differing = ["not kept yet"]
        elif result is None or "error" in row:
            differing = [] if row == now else ["error"]
        else:
            differing = golden.differences(row, result, golden.same_machine(kept, row))
        if differing:
            faults += 1
            print(f"{kind} {name}: {', '.join(differing)}", flush=True)
            other = {"machine": here} if here != kept["machine"] and result is not None else {}
            kept["results"][name] = now | other
    if options.write and faults:
        text = json.dumps(dict(sorted(kept["results"].items())), indent=0, ensure_ascii=False)
        (golden.HERE / f"{kind}.json").write_text(
            f'{{"machine": {json.dumps(kept["machine"])},\n"results": {text}}}\n', encoding="utf-8"
        )
    return faults


if __name__ == "__main__":
    sys.exit(main())
