"""Exercises of notebook 00: which classes the network predicts at the end, and average accuracy."""

import itertools

import numpy as np

from clkit.book.exercises.functions import NAN, FunctionCheck
from clkit.book.exercises.verdict import AnswerError, checker, text
from clkit.markup import in_markdown


@checker
def check_final_classes(prediction, results):
    """Which classes a learner predicts at the end. prediction: class names; results: its seeds.

    The right answer holds the classes of the most frequently predicted tasks, up to nine tenths of the
    predictions.
    """
    guess, names, answered = _names(prediction), results[0].names, _answered(results)
    unknown = sorted(guess - set(names))
    if unknown:
        unknown, names = (", ".join(map(in_markdown, some)) for some in (unknown, names))
        raise AnswerError(f"There is no class {unknown}: the classes are {names}.")
    listed = " or ".join(map(in_markdown, sorted(answered)))
    said = f"The network answers {listed} for nearly every test image."
    if guess == answered:
        return said
    if guess == set(names):
        why = "It learned every digit. Which columns of the last row of the accuracy matrix are not dark?"
    elif guess < answered:
        why = "You name only some of these. A task has more than one class."
    elif guess > answered:
        why = "You name classes that it no longer recognises. What happened to earlier tasks?"
    else:
        why = "In which task did it learn these, and when?"
    raise AnswerError(f"{said} {why}")


def _names(prediction):
    """The set of class names in a reader's answer, as text; it may hold numbers, arrays or tensors."""
    found, long = set(), hasattr(prediction, "__len__") and len(prediction) > 100
    if not long and np.iterable(prediction) and not isinstance(prediction, str | bytes):
        for item in itertools.islice(prediction, 100):
            item = item.item() if hasattr(item, "item") else item
            item = int(item) if isinstance(item, float) and item.is_integer() else item
            found.add(str(item) if isinstance(item, str) else text(item))
    if not found - {"Ellipsis"}:
        raise AnswerError('Replace the dots with the set of digits that you expect, such as `{"3", "5"}`.')
    return found - {"Ellipsis"}


def _answered(results):
    """Class names of the tasks that together receive nine tenths of the final predictions."""
    sizes, names = results[0].classes_per_task, results[0].names
    ends = np.cumsum(sizes)
    tasks = np.concatenate([np.searchsorted(ends, r.predictions[-1], side="right") for r in results])
    counts = np.bincount(tasks, minlength=len(ends))
    order = np.argsort(-counts, kind="stable")
    enough = int(np.searchsorted(np.cumsum(counts[order]), 0.9 * counts.sum())) + 1
    return {names[k] for t in order[:enough] for k in range(ends[t] - sizes[t], ends[t])}


def average_solution(a):
    """Average accuracy: the mean of the last row of an accuracy matrix (T, T)."""
    return a[-1].mean()


# In the first matrix, each mistake gives a different number, and one task is best at the end.
MATRICES = [
    (np.array([[0.5, NAN, NAN, NAN], [0.9, 0.8, NAN, NAN], [0.3, 0.95, 0.76, NAN], [0.25, 0.35, 0.8, 1.0]]),),
    (np.array([[1.00, NAN], [0.25, 0.75]]),),
    (np.array([[0.7, NAN, NAN], [0.6, 0.9, NAN], [0.1, 0.5, 0.85]]),),
]


def not_the_mean(values):
    """Mistakes that start from the right values of the tasks, values(a), but do not take their mean."""
    other = {"sum": np.sum, "median": np.median, "largest value": np.max, "smallest value": np.min}
    hints = {what: f"That is the {what}. Take the mean: every task counts equally." for what in other}
    return {hints[what]: lambda a, f=f: f(values(a)) for what, f in other.items()}


check_average = FunctionCheck(
    average_solution,
    "The mean of the last row: every task counts equally, and only the end matters.",
    MATRICES,
    not_the_mean(lambda a: a[-1]) | {
        "That is the mean of the diagonal: accuracy on each task when it was new. The end is the last row.":
            lambda a: np.diag(a).mean(),
        "That is the mean over all moments. Average accuracy looks at one moment, the end: the last row.":
            lambda a: np.nanmean(a),
        "That is average *incremental* accuracy, a mean over all moments. Take the last row only.":
            lambda a: np.nanmean(a, axis=1).mean(),
        "You left out the newest task, which counts too.": lambda a: a[-1, :-1].mean(),
        "That is the last row but one, the moment before the last task. Take `a[-1]`.":
            lambda a: np.nanmean(a[-2]),
        "That is a column: one task at all moments. Take the last row: all tasks at the end.":
            lambda a: a[:, 0].mean(),
    },
    "Compute the mean of the last row on paper, then compare.",
    "Take the mean over the tasks.",
)  # fmt: skip
