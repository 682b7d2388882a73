"""Exercises of notebook 00: which classes are answered at the end, and the average accuracy."""

import numpy as np

from clkit.book.exercises.verdict import NAN, AnswerError, check_score, checker


@checker
def check_final_classes(prediction, results):
    """Which classes a learner answers at the end. prediction: class names; results: its seeds.

    Right are the classes of the tasks, most frequent first, that together get nine tenths of the predictions.
    """
    is_list = np.iterable(prediction) and not isinstance(prediction, str | bytes)
    guess = {str(name) for name in prediction if name is not ...} if is_list else set()
    if not guess:
        raise AnswerError(
            'Replace the dots by the names of the digits that you expect, such as `{"3", "5"}`.'
        )
    names = results[0].names
    unknown = sorted(guess - set(names))
    if unknown:
        raise AnswerError(f"There is no class {', '.join(unknown)}: the classes are {', '.join(names)}.")
    answered = _answered(results)
    told = (" and " if len(answered) < 3 else ", ").join(sorted(answered))
    if guess == answered:
        return f"Whatever test image is shown, the answer is nearly always one of {told}."
    if guess == set(names):
        look = "look at the last row of the accuracy matrix: which columns are not dark?"
        raise AnswerError(
            f"Every digit was learned, pair after pair, but nearly all answers are {told}: {look}"
        )
    raise AnswerError(f"Nearly every answer is {told}. In which task were these learned, and when?")


def _answered(results):
    """Names of the classes of the tasks that together get nine tenths of the final predictions."""
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


_AVERAGE_COMMON_MISTAKES = {
    "That is the mean of the diagonal: how well each task went when it was new. The end is the last row.":
        lambda a: np.diag(a).mean(),
    "That is the mean over all moments. Average accuracy looks at one moment, the end: the last row.":
        lambda a: np.nanmean(a),
    "Something in your sum is `nan`: the entries above the diagonal are, because those tasks had not come "
    "yet. The last row has none.":
        lambda a: NAN}  # fmt: skip


@checker
def check_average(function):
    """Check a function of an accuracy matrix (T, T), NaN above the diagonal: the final average accuracy."""
    check_score(function, average_solution, _AVERAGE_COMMON_MISTAKES)
    return "The mean of the last row: every task counts the same, and only the end counts."
