"""Values that cannot be meant, for every field of every Config and every option of the command line.

    python -m tests.soak.fuzz [--learn] [--options] [METHOD ...]

Each value is given to a field in Python and as text by --set. A value is refused with one sentence, the same
from both doors, or the learner can be built; with --learn it also learns a small task, which may end in a
sentence as well, such as that training diverged. Unless methods are named, each option of the command line
gets the texts too; with --options nothing else does. An error of another kind, or seconds without an end, is
a failure. Prints the counts.
"""

import argparse
import contextlib
import io
import itertools
import math
import os
import signal
import sys
import tempfile
from collections import Counter
from dataclasses import fields, replace

from clkit import experiments
from clkit.__main__ import main
from clkit.engine.run import run
from clkit.errors import ClkitError
from clkit.experiments.experiment import config_class
from clkit.methods import LEARNERS
from tests.fakes import small_stream
from tests.soak import smallest

VALUES = (
    *(0, -1, 10**12, 10**5000, 1e12, 1e-320, 1.5, math.nan, math.inf, -math.inf, True, None, "", "x", b"x"),
    *((), [], {}, ("a",), (None,), (0,), (-1,), (10**12,), (math.inf,), (math.nan, math.nan), object()),
)
TEXTS = (
    *("0", "-1", "1000000000000", "1e12", "1e-320", "1.5", "nan", "1e999", "-1e999", "true", "none", "", "x"),
    *("()", "[]", "{}", "('a',)", "(None,)", "(0,)", "(-1,)", "(1000000000000,)", "(1e999,)", "é", "{[]: 1}"),
    *("(" * 500, "9" * 5000, "__import__('os')", "~", " ", "a=b", "--set", "\udcff"),
)
SECONDS = 120


class Slow(BaseException):
    """An attempt that does not end."""


@contextlib.contextmanager
def _in_time(seconds):
    def late(*_):
        raise Slow(f"no end after {seconds} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def outcome(attempt, *words):
    """ "accepted", "refused", or a description of what must not happen."""
    try:
        with _in_time(SECONDS):
            attempt(*words)
    except ClkitError as error:
        return "refused" if len(str(error).splitlines()) == 1 else f"several lines: {error}"
    except (Exception, Slow) as error:
        return f"{type(error).__name__}: {str(error)[:150]}"
    return "accepted"


def _short(value):
    return f"{len(bin(value))} bits" if type(value) is int and value > 10**100 else repr(value)[:40]


def of_fields(methods=None, learn=False, values=VALUES, texts=TEXTS):
    """(Counter of outcomes, [failures]) of the fields of these methods; of all, each Learner class once."""
    found, failures = Counter(), []
    for method in methods or {LEARNERS[m]: m for m in reversed(LEARNERS)}.values():
        experiment = experiments.experiment(smallest(method), "smoke")
        config, stream = config_class(experiment.learner), experiments.stream_of(experiment.stream_row)

        def build(made, learner=experiment.learner, stream=stream):
            learner(made, stream.shape, stream.classes)
            if learn:
                tiny = small_stream(classes=4, sizes=(2, 2), per_class=6, side=8)
                few = {f.name: 1 for f in fields(made) if f.name == "epochs"}
                size = {"batch_size": min(made.batch_size, 100)} if hasattr(made, "batch_size") else {}
                run(learner, replace(made, **few, **size), tiny, threads=1, progress=False)

        def by_value(field, value, config=config, settings=experiment.settings):
            build(config(**{**settings, field: value}))

        def by_text(field, text, name=experiment.name):
            build(experiments.experiment(name, "smoke", {field: text}).config)

        for field in fields(config):
            for attempt, value in (*((by_value, v) for v in values), *((by_text, t) for t in texts)):
                what = outcome(attempt, field.name, value)
                known = what in ("accepted", "refused")
                found[what if known else "failed"] += 1
                if not known:
                    failures.append(f"{method} {field.name}={_short(value)}: {what}")
    return found, failures


RUN = ["run", "finetune/split-digits", "--preset", "smoke"]
OPTIONS = {  # command: its options; "" for an argument without a name
    ("run",): ["", "--set"],
    (*RUN,): (
        "--preset --seeds --device --jobs --set --tasks --order --keep --every --out --first-tasks"
    ).split(),
    ("list",): ["", "--preset"],
    ("report",): ["", "--records", "--preset", "--format"],
    ("figures", "--records", "nowhere"): ["", "--out", "--format"],
    ("figures",): ["--records"],
    ("book", "build"): ["", "--edition"],
    ("book", "build", "00"): ["--out"],
    ("data", "get"): [""],
    ("doctor",): [""],
    (): ["", "--version"],
}


def of_options(texts=TEXTS, options=OPTIONS):
    """The same for the options of the command line, each with each text."""
    found, failures = Counter(), []
    for command, names in options.items():
        for name, text in itertools.product(names, texts):
            words = [*command, *([f"{name}={text}"] if name else [text])]
            out, err = io.StringIO(), io.StringIO()
            try:
                with _in_time(SECONDS), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
                    status = main(words)
            except SystemExit as end:  # argparse
                status = end.code
            except (Exception, Slow) as error:
                status = f"{type(error).__name__}: {str(error)[:150]}"
            sentence = err.getvalue().count("clkit: ") == 1 or "error: " in err.getvalue()
            fine = status == 0 or (status == 2 and sentence) or (command == ("doctor",) and status == 1)
            found[{0: "accepted", 2: "refused"}.get(status, "failed") if fine else "failed"] += 1
            if not fine:
                failures.append(f"{words}: {status} {err.getvalue()[-150:]}")
    return found, failures


def _main():
    parser = argparse.ArgumentParser(prog="python -m tests.soak.fuzz", description=__doc__.partition("\n")[0])
    parser.add_argument("methods", nargs="*", metavar="METHOD", help="default: one of each Learner class")
    parser.add_argument("--learn", action="store_true", help="let each accepted Config learn a small stream")
    parser.add_argument("--options", action="store_true", help="only the options of the command line")
    options = parser.parse_args()
    if unknown := set(options.methods) - {*LEARNERS}:
        parser.error(f"there is no {', '.join(sorted(unknown))}; there are {', '.join(LEARNERS)}")
    with tempfile.TemporaryDirectory() as folder:
        os.environ |= dict.fromkeys(("CLKIT_RUNS", "CLKIT_DATA", "HOME"), folder)
        os.chdir(folder)  # some values are names of folders
        parts = {} if options.options else {"fields": of_fields(options.methods, options.learn)}
        parts |= {} if options.methods else {"options": of_options()}
    for part, (found, failures) in parts.items():
        print(*failures, sep="\n")
        counts = ", ".join(f"{n} {what}" for what, n in sorted(found.items()))
        print(f"{sum(found.values())} values of {part}: {counts}")
    return any(failures for _, failures in parts.values())


if __name__ == "__main__":
    sys.exit(_main())
