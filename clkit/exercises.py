"""What the exercises of the notebooks call: a worked example to count by hand, solutions, and checkers.

A checker takes what the reader wrote and returns a Verdict, which a notebook shows as a sentence. It never
raises: a stub that raises NotImplementedError, an error inside the reader's function and a wrong answer are
all answered in words, and the usual slips are recognised by the number they lead to.
``explore.show(exercises.forgetting_solution)`` displays a solution.
"""

import math
from dataclasses import dataclass

import numpy as np

from clkit.result import Result


@dataclass(frozen=True)
class Verdict:
    """passed: whether the answer is right.   message: what to tell the reader, in Markdown."""

    passed: bool
    message: str

    def __bool__(self):
        return self.passed

    def __repr__(self):
        return ("Right. " if self.passed else "Not yet. ") + self.message.replace("`", "").replace("$", "")

    def _repr_markdown_(self):
        return ("✅ **Right.** " if self.passed else "✏️ **Not yet.** ") + self.message


# ---- a result small enough to count

# A column is an image. Rows of _ANSWERS: predictions after task 1, 2, 3, and -1 for a class that has not
# arrived. Rows of _TOLD: the same with the task told, before any learning and then after each task.
_LABELS = (0, 0, 1, 1, 2, 2, 3, 3, 4, 5)
_ANSWERS = ((0, 1, 0, 1, -1, -1, -1, -1, -1, -1),
            (0, 2, 1, 1, 2, 2, 3, 3, -1, -1),
            (0, 4, 5, 3, 2, 4, 3, 5, 4, 5))
_TOLD = ((0, 1, 0, 1, 2, 3, 2, 3, 4, 4),
         (0, 1, 0, 1, 2, 2, 2, 3, 4, 4),
         (0, 0, 1, 1, 2, 2, 3, 3, 5, 5),
         (0, 1, 1, 1, 2, 2, 3, 3, 4, 5))


def worked_example():
    """A made-up Result that can be counted: three tasks of two classes, and 4, 4 and 2 test images."""
    labels, predictions, told = (np.array(x, dtype=np.int16) for x in (_LABELS, _ANSWERS, _TOLD))
    rank = np.where(predictions < 0, -1, predictions != labels).astype(np.int16)
    nothing, ones = np.zeros(3), np.ones(3, dtype=np.int64)
    about = {"experiment": "worked example", "method": "worked example", "benchmark": "letters", "seed": 0}
    return Result(about, (2, 2, 2), list("ABCDEF"), None, seen=np.array([2, 4, 6]), labels=labels,
                  predictions=predictions, within=told, rank=rank, learn_seconds=nothing,
                  test_seconds=nothing, drawn=ones, parameters=ones)


# ---- calling what the reader wrote

def _call(function, *arguments):
    """(value, None), or (None, Verdict) if the function is a stub or raises."""
    name = getattr(function, "__name__", "your function")
    try:
        return function(*arguments), None
    except NotImplementedError:
        return None, Verdict(False, f"`{name}` is still empty: put your own lines in the place of "
                                    "`raise NotImplementedError`, then run the cell again.")
    except Exception as error:                          # whatever a reader's code may raise
        return None, Verdict(False, f"`{name}` stopped with {type(error).__name__}: {error}")


def _number(value):
    """A float, or None where the value is no single number."""
    try:
        value = np.asarray(... if value is None else value, dtype=float)       # numpy reads None as NaN
    except (TypeError, ValueError):
        return None
    return float(value) if value.ndim == 0 else None


def _short(value):
    text = " ".join(repr(value).split())
    return f"`{text if len(text) <= 60 else text[:57] + '...'}`"


def _same(a, b):
    return math.isclose(a, b, abs_tol=1e-9) or (math.isnan(a) and math.isnan(b))


_NAN = float("nan")
# In the first one each slip leads to a number of its own; the others refuse answers made for one matrix.
_MATRICES = (np.array([[0.50, _NAN, _NAN], [0.90, 0.80, _NAN], [0.20, 0.60, 1.00]]),
             np.array([[1.00, _NAN], [0.25, 0.75]]),
             np.array([[0.9, _NAN, _NAN, _NAN], [0.7, 1.0, _NAN, _NAN], [0.8, 0.5, 0.7, _NAN],
                       [0.6, 0.4, 0.1, 0.9]]))


def _check_score(function, solution, slips, good, matrices=_MATRICES):
    """`good` if a function of an accuracy matrix agrees with the solution, else a Verdict that says why not.

    slips: {what to tell the reader: function that makes this mistake}.
    """
    for a in matrices:
        value, verdict = _call(function, a.copy())
        if verdict is not None:
            return verdict
        got, right = _number(value), solution(a)
        if got is None:
            advice = "did you forget `return`?" if value is None else "take the mean over the tasks."
            return Verdict(False, f"One number should come back, and it is {_short(value)}: {advice}")
        if not _same(got, right):
            known = [said for said, slip in slips.items() if _same(got, slip(a))]
            hint = known[0] if known else "Write the formula out for this matrix on paper, then compare."
            rows = "; ".join(" ".join("–" if math.isnan(v) else f"{v:.2f}" for v in row) for row in a)
            return Verdict(False, f"For the matrix with the rows ({rows}) you give {got:.4g}, and it is "
                                  f"{right:.4g}. {hint}")
    return good


# ---- notebook 00

def check_final_classes(prediction, results):
    """Which classes a learner answers at the end. prediction: class names; results: its seeds.

    Right are the classes of the tasks, most frequent first, that together get nine tenths of the predictions.
    """
    empty = Verdict(False, "Replace the dots by the names of the digits that you expect, such as "
                           "`{\"3\", \"5\"}`.")
    if isinstance(prediction, str | bytes) or not np.iterable(prediction):
        return empty
    guess = {str(name) for name in prediction if name is not ...}
    if not guess:
        return empty
    names = results[0].names
    unknown = sorted(guess - set(names))
    if unknown:
        return Verdict(False, f"There is no class {', '.join(unknown)}: the classes are {', '.join(names)}.")
    answered = _answered(results)
    told = (" and " if len(answered) < 3 else ", ").join(sorted(answered))
    if guess == answered:
        return Verdict(True, f"Whatever test image is shown, the answer is nearly always one of {told}.")
    if guess == set(names):
        return Verdict(False, f"Every digit was learned, pair after pair, but nearly all answers are {told}: "
                              "look at the last row of the accuracy matrix: which columns are not dark?")
    return Verdict(False, f"Nearly every answer is {told}. In which task were these learned, and when?")


def _answered(results):
    """Names of the classes of the tasks that together get nine tenths of the final predictions."""
    sizes, names = results[0].sizes, results[0].names
    ends = np.cumsum(sizes)
    tasks = np.concatenate([np.searchsorted(ends, r.predictions[-1], side="right") for r in results])
    counts = np.bincount(tasks, minlength=len(ends))
    order = np.argsort(-counts, kind="stable")
    enough = int(np.searchsorted(np.cumsum(counts[order]), 0.9 * counts.sum())) + 1
    return {names[k] for t in order[:enough] for k in range(ends[t] - sizes[t], ends[t])}


def average_solution(a):
    """Average accuracy: the mean of the last row of an accuracy matrix (T, T)."""
    return a[-1].mean()


_AVERAGE_SLIPS = {
    "That is the mean of the diagonal: how well each task went when it was new. The end is the last row.":
        lambda a: np.diag(a).mean(),
    "That is the mean over all moments. Average accuracy looks at one moment, the end: the last row.":
        lambda a: np.nanmean(a),
    "Something in your sum is `nan`: the entries above the diagonal are, because those tasks had not come "
    "yet. The last row has none.":
        lambda a: _NAN}


def check_average(function):
    """Check a function of an accuracy matrix (T, T), NaN above the diagonal: the final average accuracy."""
    good = Verdict(True, "The mean of the last row: every task counts the same, and only the end counts.")
    return _check_score(function, average_solution, _AVERAGE_SLIPS, good)


# ---- notebook 01

def finetuned(tasks, preset="teach", seed=0):
    """A Result of finetuning on the digits cut into `tasks` tasks of equal size; tasks divides 10."""
    from clkit import data, presets
    from clkit.run import run
    from clkit.stream import Stream
    chosen = presets.experiment("finetune/split-digits", preset)
    stream = Stream(*data.load("digits"), (10 // tasks,) * tasks)
    about = {"experiment": f"finetune/digits in {tasks} tasks", "method": "finetune", "preset": preset}
    return run(chosen.learner, chosen.config, stream, seed=seed, threads=presets.THREADS, about=about)[1]


def check_one_over_t(prediction, results, within=0.1):
    """Final average accuracy of finetuning by number of tasks.

    prediction: {tasks: percent}; results: {tasks: Result}; within: how far off may be right, a fraction.
    """
    given = prediction if isinstance(prediction, dict) else {}
    guess = {t: _number(given.get(t)) for t in results}
    missing = [t for t, g in guess.items() if g is None]
    if missing:
        return Verdict(False, "Predict before you look: put a number, in percent, in the place of the dots "
                              f"for {' and '.join(map(str, missing))} tasks.")
    measured = {t: r.average() for t, r in results.items()}
    wrong = [t for t in results if abs(guess[t] / 100 - measured[t]) > within]
    if any(0 < guess[t] <= 1 for t in wrong):
        return Verdict(False, "Give percentages, such as 35, not fractions such as 0.35.")
    said = "Measured: " + ", ".join(f"{100 * m:.1f} % with {t} tasks" for t, m in measured.items()) + "."
    if wrong:
        return Verdict(False, f"{said} You were off for {' and '.join(map(str, wrong))} tasks. At the end "
                              "the newest task is answered nearly perfectly, the older ones not at all: what "
                              "is the mean of one 100 and $T-1$ zeros?")
    return Verdict(True, f"{said} Only the newest task is left, so the average is about $1/T$: 50 % on two "
                         "tasks and 10 % on ten are the same complete loss.")


def forgetting_solution(a):
    """Forgetting: best accuracy before the end minus that at the end, mean over all tasks but the last."""
    best = np.nanmax(a[:-1, :-1], axis=0)               # (T - 1,); the last row is the end itself
    return (best - a[-1, :-1]).mean()


_FORGETTING_SLIPS = {
    "You compared with the accuracy when the task was new, $a_{j,j}$: that is backward transfer with its "
    "sign turned round. A task may be at its best later: take the largest entry of its column.":
        lambda a: np.mean(np.diag(a)[:-1] - a[-1, :-1]),
    "That is backward transfer. Forgetting compares with the best moment of a task, and is positive where "
    "accuracy was lost.":
        lambda a: np.mean(a[-1, :-1] - np.diag(a)[:-1]),
    "You took the maximum over all rows. It runs over the moments before the end, without the last row: "
    "forgetting is negative where a task is better at the end than ever before.":
        lambda a: np.mean(np.nanmax(a[:, :-1], axis=0) - a[-1, :-1]),
    "You averaged over all $T$ tasks. The last one has had no time to be forgotten: leave it out and divide "
    "by $T-1$.":
        lambda a: np.mean(np.nanmax(a, axis=0) - a[-1]),
    "The sign is turned round: forgetting is positive where accuracy was lost, best minus last.":
        lambda a: -forgetting_solution(a),
    "Something in your sum is `nan`: the entries above the diagonal are, because those tasks had not come "
    "yet. `np.nanmax` passes over them.":
        lambda a: _NAN}
_RISING = np.array([[0.5, _NAN], [0.7, 0.9]])           # a task that is at its best at the end


def check_forgetting(function):
    """Check a function of an accuracy matrix (T, T), NaN above the diagonal: forgetting."""
    good = Verdict(True, "Best earlier accuracy minus final accuracy, averaged over all tasks but the last. "
                         "It can be negative.")
    return _check_score(function, forgetting_solution, _FORGETTING_SLIPS, good, (*_MATRICES, _RISING))


def reservoir_solution(memory, item, met, size, random):
    """Offer an item to a memory, a list of at most `size` items; met: how many were offered before it.

    random: a numpy Generator. Afterwards each of the met + 1 items is kept with probability size / (met + 1).
    """
    if len(memory) < size:
        memory.append(item)
        return
    place = random.integers(met + 1)                    # 0 .. met, the item's own number included
    if place < size:
        memory[place] = item


def check_reservoir(function, size=20, offered=200, repeats=400):
    """Check a function like `reservoir_solution` by which items of a stream are kept, and how often."""
    kept, random = np.zeros(offered), np.random.default_rng(0)
    for _ in range(repeats):
        memory, wrong = _fill(function, size, offered, random)
        if wrong is not None:
            return wrong
        kept[memory] += 1 / repeats
    quarter, right = offered // 4, size / offered
    early, late = kept[:quarter].mean(), kept[-quarter:].mean()
    said = f"Of {offered} items, the first quarter is kept with probability {early:.3f}, the last with " \
           f"{late:.3f}"
    if max(abs(early - right), abs(late - right)) < 0.015:
        return Verdict(True, f"{said}: every item has the same chance of {right:.3f}, however early it came.")
    hint = "Later items get in too easily and wash out the earlier ones. The more have come, the less " \
           "likely a new one may be to get in: draw a place among *all* `met + 1` items, and use it only " \
           "if the memory has it."
    if late < early:
        hint = "Later items do not get in often enough: a new one must be kept with probability " \
               "`size / (met + 1)`."
    return Verdict(False, f"{said}, and both should be {right:.3f}. {hint}")


def _fill(function, size, offered, random):
    """(the memory after a stream of numbers, None), or (None, Verdict) where something is wrong with it."""
    memory = []
    for n in range(offered):
        _, verdict = _call(function, memory, n, n, size, random)
        if verdict is not None:
            return None, verdict
        if len(memory) != min(n + 1, size):
            holds = f"After {n + 1} items the memory holds {len(memory)} and not {min(n + 1, size)}"
            return None, Verdict(False, f"{holds}: fill it first, then replace, in the list `memory` itself.")
    if len(set(memory)) < size or not set(memory) <= set(range(offered)):
        return None, Verdict(False, "The memory holds an item twice, or one that was never offered: put "
                                    "`item` into one place only.")
    return memory, None
