"""Tables that compare our results with printed ones and with one another, and the one rule for verdicts.

    beside(records, paper="spacenet", benchmark="split-mnist")     published | ours | n | interval | verdict
    show.table(rows(records, columns=(...)))                       one row per method, columns by name
    show.table(differences(variants, baseline))                    seed by seed, against the baseline
    report(records, format="latex")                                the same for a terminal or a paper

Results are {label: list of Results, one per seed}; a label is a method's name or any text. RULE describes
`verdict` in words and appears above each table with verdicts.
"""

import math
import re
from dataclasses import dataclass

import numpy as np

from clkit import experiments, plots
from clkit.book import show
from clkit.errors import ClkitError, did_you_mean
from clkit.experiments.load import records_in
from clkit.markup import in_markdown
from clkit.papers import PAPERS
from clkit.papers import published as printed
from clkit.result import Interval, interval

MARGIN = 1.0  # points; the printed spread if that is larger
PAPER = "paper"  # the size that papers report
RULE = (
    "Verdicts. *Reproduced*: the whole 95 % t-interval of our mean lies within the margin around the printed"
    " number; the margin is 1 point or the printed spread, whichever is larger. *Consistent*: the printed"
    " number lies within our interval, which is too wide to say more. A single seed within the margin is"
    " *consistent, one seed*, and never more. *Differs*: everything else. A count that does not depend on the"
    " seed is reproduced if it rounds to the printed digits. A run at a size other than the paper's is never"
    " *reproduced*."
)


class CompareError(ClkitError):
    """Raised for a comparison that cannot be made; the message says what is missing."""


def _called(name, known, kind, advice=""):
    """known[name]; CompareError with the nearest names if there is none."""
    if name not in known:
        raise CompareError(f"there is no {kind} '{name}'{did_you_mean(name, known)}{advice}")
    return known[name]


# ---- the one rule


@dataclass(frozen=True)
class Verdict:
    """kind: "reproduced", "consistent", "differs", "other size", "not printed" or "undefined".

    text: the cell of a table. A Verdict is true if our number agrees with the printed one.
    """

    kind: str
    text: str

    def __bool__(self):
        return self.kind in ("reproduced", "consistent")

    def __str__(self):
        return self.text


def verdict(published, ours, size=PAPER, reason=""):
    """Apply RULE to our number and a printed one; returns a Verdict.

    published: a Published, or None.   ours: list of Results, scored by the printed metric; or an Interval of
    fractions; or a number in the printed unit, for a count that does not depend on the seed.   size: of our
    runs.   reason: why the numbers differ, if known.
    """
    if published is None:
        return Verdict("not printed", "nothing to compare")
    if isinstance(ours, int | float):
        return _of_count(published, ours, reason)
    if not isinstance(ours, Interval):
        ours = interval([score_called(published.metric)(r) for r in ours])
    if math.isnan(ours.mean):
        return Verdict("undefined", "undefined")
    gap = 100 * ours.mean - published.value
    far = f"{abs(gap):.1f} points {'higher' if gap > 0 else 'lower'}"
    if size != PAPER:
        return Verdict("other size", f"not the paper's size ({size}): {far}")
    margin, half = max(MARGIN, published.spread or 0), 100 * ours.half
    if ours.n < 2 and not _within(gap, margin):
        return _differs(f"{far}, one seed", reason)
    if ours.n < 2:
        return Verdict("consistent", "consistent, one seed")
    if _within(abs(gap) + half, margin):
        return Verdict("reproduced", "reproduced")
    if _within(gap, half):
        return Verdict("consistent", "consistent; our interval is too wide to say more")
    return _differs(far, reason)


def _within(gap, margin):
    return abs(gap) <= margin + 1e-9  # decimal fractions are not exact


def _differs(far, reason):
    return Verdict("differs", f"differs: {far}; {reason or 'cause not found'}")


def _of_count(published, ours, reason):
    text = published.text or f"{published.value:g}"
    digits = len(text.partition(".")[2])
    if _within(ours - published.value, 0.5 * 10**-digits):
        return Verdict("reproduced", "reproduced")
    return _differs(f"{ours:.{max(digits, 1)}f} instead of {text}", reason)


# ---- scores

SCORES = {
    "average accuracy": lambda r: r.average(),
    "task-aware accuracy": lambda r: r.task_aware_average(),
    "forgetting": lambda r: r.forgetting(),
    "average incremental accuracy": lambda r: r.incremental(),
}
CLASS_MEANS = {  # accuracy of a task as the mean over its classes
    "average accuracy": lambda r: r.average("images") if len(r.seen) == 1 else r.average(task_mean="classes"),
    "task-aware accuracy": lambda r: r.task_aware_average(task_mean="classes"),
    "forgetting": lambda r: r.forgetting(task_mean="classes"),
}


def score_called(metric, task_mean="images"):
    """The function of a Result that gives a printed metric, as a fraction.

    metric: one of SCORES, or "average accuracy after N classes".   task_mean: "images", or "classes" for
    papers that average over the classes of a task; with a single learning stage, accuracy is then the share
    of all images.
    """
    scores = CLASS_MEANS if task_mean == "classes" else SCORES
    if after := re.fullmatch(r"average accuracy after (\d+) classes", metric):
        return lambda r: r.average_after(int(after[1]), task_mean=task_mean)
    return _called(metric, scores, "score called", ": give score=, a function of a Result")


def megabytes(result):
    """Memory that a method keeps after its last task, in MB (10^6 bytes)."""
    return sum(v[-1] for v in result.memory_bytes.values()) / 1e6


def gain(ours, others, score=SCORES["average accuracy"]):
    """Interval of the differences ours - others, seed by seed, over the shared seeds."""
    theirs = {r.about.get("seed"): r for r in others}
    pairs = [(r, theirs[r.about.get("seed")]) for r in ours if r.about.get("seed") in theirs]
    if not pairs:
        raise CompareError("the two sets of results share no seed, so they cannot be compared seed by seed")
    return interval([score(a) - score(b) for a, b in pairs])


# ---- loading


def load(benchmark, preset, methods, seeds=None, overrides=None, say=print):
    """{method: results} on one benchmark, from records, run folders or new runs; `say` reports which.

    seeds: only these.   overrides: settings of all methods. The command that reproduces a record is printed
    below it.
    """
    found = {}
    for method in methods:
        name = f"{method}/{benchmark}"
        results = experiments.load_or_run(name, preset, seeds, overrides, say=say)
        found[method] = [r for r in results if seeds is None or r.about.get("seed") in seeds]
        if preset in ("laptop", PAPER):
            say(f"   {experiments.experiment(name, preset, overrides).command}")
    return found


def recorded(lines, preset=PAPER, say=print):
    """{label: results} of the rows that have a record; prints the commands that reproduce the records.

    lines: [(label, ..., experiment name, overrides)], as in the tables of clkit/figures.
    """
    found = {}
    for label, *_, name, overrides in lines:
        if experiments.on_record(name, preset, overrides):
            found[label] = experiments.load_record(name, preset, overrides)
            say(experiments.exact_experiment(name, preset, overrides).command)
    return found


# ---- rows beside printed numbers


def comparison(published, results, *, score=None, also=None, reason="", label=None):
    """A table row: a printed number, ours, and the verdict.

    published: a Published, or None if nothing is printed.   results: one per seed.   score: function of a
    Result that returns a fraction; by default the printed metric.   also: {column: another such function},
    for scores that stand beside ours and have no verdict.   reason: why the numbers differ.   label: by
    default the method's.
    """
    score = score or score_called(published.metric if published else "average accuracy")
    ours, about = interval([score(r) for r in results]), results[0].about
    size = plots.warning(results) or about.get("preset", PAPER)
    return {
        "method": label or plots.style(about.get("method", "learner"))["label"],
        **_printed(published),
        "ours": "undefined" if math.isnan(ours.mean) else f"{100 * ours.mean:.2f}",
        **{column: short(interval([other(r) for r in results])) for column, other in (also or {}).items()},
        "n": str(ours.n),
        "interval": "none (one seed)" if ours.n < 2 else f"± {100 * ours.half:.2f} ({ours.kind})",
        "verdict": verdict(published, ours, size, reason).text,
    }


def _printed(published):
    """The cells of a printed number: value, place, and the number of a second source."""
    if published is None:
        return {"published": "not printed", "second source": ""}
    second = "" if published.second_source == "none found" else published.second_source
    return {"published": f"{published}, {published.place}", "second source": second}


def comparisons(
    records,
    names=None,
    *,
    metric="average accuracy",
    score=None,
    also=None,
    task_mean="images",
    reasons=None,
    not_run=(),
    **wanted,
):
    """Rows that compare printed numbers with ours.

    records: {label: results}.   names: {label: the method's name in print, or None if it is not printed}; by
    default the label.   metric, task_mean: see `score_called`.   score: a function of a Result that measures
    ours, if `metric` names it otherwise.   also: see `comparison`.   wanted: paper, table, benchmark of the
    printed numbers.   reasons: {label: why it differs}.   not_run: printed methods that we did not run.
    """
    there = {p.method: p for p in printed.published(metric=metric, **wanted)}
    names, reasons, found = names or {}, reasons or {}, []
    score = score or score_called(metric, task_mean)
    for label, results in records.items():
        own = None if label == results[0].about.get("method") else label
        row = {"score": score, "also": also, "reason": reasons.get(label, ""), "label": own}
        found.append(comparison(there.get(names.get(label, label)), results, **row))
    nothing = dict.fromkeys(("ours", *(also or ()), "n", "interval"), "-") | {"verdict": "not run"}
    return found + [{"method": name.upper(), **_printed(there[name]), **nothing} for name in not_run]


def beside(records, names=None, *, only_printed=False, **wanted):
    """Display RULE and the table of `comparisons`; only_printed: omit rows without a printed number."""
    found = comparisons(records, names, **wanted)
    found = [r for r in found if r["published"] != "not printed"] if only_printed else found
    show.text(RULE)
    show.table(_filled(found))


def _filled(lines):
    """Rows without columns that are empty throughout."""
    empty = {c for c in lines[0] if all(line.get(c, "") == "" for line in lines)}
    return [{c: v for c, v in line.items() if c not in empty} for line in lines]


def claims(said, where="ours"):
    """Rows of a paper's claims and whether they hold; said: {claim: bool}.   where: label of our runs."""
    words = {True: "holds", False: "does not hold"}
    return [{"the paper says": claim, where: words[bool(true)]} for claim, true in said.items()]


# ---- rows beside one another


def _mean(score, form):
    return lambda seeds: form.format(np.mean([score(r) for r in seeds]))


def _interval(score):
    return lambda seeds: short(interval([score(r) for r in seeds]))


COLUMNS = {
    "n": lambda seeds: str(len(seeds)),
    "average accuracy (%)": _interval(SCORES["average accuracy"]),
    "over all images (%)": _interval(lambda r: r.average("images")),
    "task-aware (%)": _interval(SCORES["task-aware accuracy"]),
    "forgetting (points)": _interval(SCORES["forgetting"]),
    "memory (MB)": _mean(megabytes, "{:.2f}"),
    "MB beside the network": _mean(lambda r: megabytes(r) - r.memory_bytes["weights"][-1] / 1e6, "{:.2f}"),
    "seconds a seed": _mean(lambda r: r.learn_seconds.sum(), "{:.1f}"),
    "minutes a seed": _mean(lambda r: r.learn_seconds.sum() / 60, "{:.2f}"),
    "epochs": lambda seeds: str(seeds[0].about["config"]["epochs"]),
    "newest task (% of answers)": _mean(lambda r: 100 * r.newest_share(), "{:.0f}"),
}


def columns(task_mean):
    """Average accuracy and forgetting as columns of `rows`; task_mean: see `score_called`."""
    names = {"average accuracy (%)": "average accuracy", "forgetting (points)": "forgetting"}
    return {column: _interval(score_called(metric, task_mean)) for column, metric in names.items()}


def each(metric):
    """A column that lists the score of each seed, for too few seeds for a useful interval."""
    score = score_called(metric)

    def listed(seeds):
        found = [score(r) for r in seeds]
        return "-" if np.isnan(found).all() else " and ".join(f"{100 * s:.1f}" for s in found)

    return listed


REPORTED = ("average accuracy (%)", "forgetting (points)", "task-aware (%)", "memory (MB)")


def short(found):
    """ "19.93 ± 0.03": an Interval in a table that gives its kind and n elsewhere."""
    if math.isnan(found.mean):
        return "-"
    return f"{100 * found.mean:.2f}" + ("" if found.n < 2 else f" ± {100 * found.half:.2f}")


def rows(records, published=None, columns=REPORTED):
    """One row per method: name, n and the given columns; ± is the half-width of a 95 % t-interval.

    records: {label: results}.   published: {label: Published}, which adds printed numbers and verdicts.
    columns: names in COLUMNS, or a dictionary {name: function of a list of Results}.
    """
    asked = columns if isinstance(columns, dict) else {c: _called(c, COLUMNS, "column") for c in columns}
    found = []
    for label, seeds in records.items():
        row = {"method": label_of(label), "n": str(len(seeds)), **{c: f(seeds) for c, f in asked.items()}}
        if published:
            one = comparison(published.get(label), seeds)
            row |= {k: one[k] for k in ("published", "second source", "verdict")}
        found.append(row)
    if not found:
        raise CompareError("there are no results to compare: give {label: list of Results}")
    return _filled(found)


def label_of(label):
    """The book's name for a method; in "er (memory-50)", only the part before the bracket changes."""
    method, bracket, rest = str(label).partition(" (")
    return plots.style(method)["label"] + bracket + rest if method == method.lower() else str(label)


def by_task(records):
    """Rows of the final accuracy on each task in percent, as means over seeds, with summary columns.

    The summary is the average, the share of answers on the newest task, the task-aware average and n.
    records: {label: results}.
    """
    sums = {
        "average (%)": _mean(lambda r: 100 * r.average(), "{:.1f}"),
        "newest (%)": COLUMNS["newest task (% of answers)"],
        "task-aware (%)": _mean(lambda r: 100 * r.task_aware_average(), "{:.1f}"),
        "n": COLUMNS["n"],
    }
    found = []
    for label, seeds in records.items():
        ends = 100 * np.mean([r.accuracy()[-1] for r in seeds], axis=0)
        tasks = {f"task {t}": f"{a:.0f}" for t, a in enumerate(ends, 1)}
        found.append({"method": label_of(label), **tasks, **{name: f(seeds) for name, f in sums.items()}})
    return found


def differences(variants, baseline, score=SCORES["average accuracy"], name="average accuracy"):
    """Rows that compare variants with a baseline, seed by seed: score, difference, and its sign if clear.

    variants: {label: results}.   baseline: the label to compare with, which has no row of its own.
    """
    found, beside = [], f"difference to {label_of(baseline)} (points)"
    for label, seeds in variants.items():
        if label == baseline:
            continue
        less, mine = gain(seeds, variants[baseline], score), interval([score(r) for r in seeds])
        way = "higher" if less.mean > 0 else "lower"
        clear = "no clear difference" if abs(less.mean) <= less.half else way
        so = "one seed" if less.n < 2 else clear
        found.append({"one change": label_of(label), f"{name} (%)": mine, beside: less, "so": so})
    return found


def said(records, *scores, form="{:.1f}", scale=100, unit=" %"):
    """Means in words, such as "Finetune 19.9 %; LwF 20.5 %"; several scores are joined by "and"."""
    scores = scores or (SCORES["average accuracy"],)
    found = []
    for label, seeds in records.items():
        means = [form.format(scale * np.mean([score(r) for r in seeds])) for score in scores]
        found.append(f"{label_of(label)} {' and '.join(means)}{unit}")
    return "; ".join(found)


# ---- reports


FORMATS = {"text": show.as_text, "markdown": show.as_markdown, "latex": show.as_latex}


def report(records, published=None, format="text"):
    """A table of methods with n, accuracy, forgetting and memory, as a string.

    records: {label: results}.   published: {label: Published}, which adds printed numbers and verdicts.
    format: "text", "markdown" or "latex".
    """
    table = _called(format, FORMATS, "format", ": use text, markdown or latex")
    lines = table(rows(records, published))
    rule = RULE if format == "markdown" else RULE.replace("*", "")
    return f"{'% ' if format == 'latex' else ''}{rule}\n\n{lines}" if published else lines


def report_of(folder, benchmark=None, preset=None, format="text"):
    """`report` for each benchmark and size with records in a folder, with the printed numbers."""
    mark = {"text": "{}", "markdown": "### {}\n", "latex": "% {}"}.get(format, "{}")
    found = []
    for (name, size), records in records_in(folder, benchmark, preset).items():
        title = f"{name}, size {size}; ± is the half-width of a 95 % t-interval over n seeds"
        numbers = {label: one for label in records if (one := _only(name, label))}
        title = in_markdown(title) if format == "markdown" else title
        found += [mark.format(title), report(records, numbers, format), ""]
    return "\n".join(found).rstrip("\n")


def _only(benchmark, method):
    """The only average accuracy printed for a method, as METHOD or PAPER-METHOD; else None."""
    names = {method, *(f"{paper}-{method}" for paper in PAPERS)}
    known = [p for p in printed.rows() if (p.benchmark, p.metric) == (benchmark, "average accuracy")]
    found = [p for p in known if p.method in names]
    return found[0] if len(found) == 1 else None
