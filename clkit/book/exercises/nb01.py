"""Exercises of notebook 01: a result to count by hand, how low accuracy falls, forgetting, a fair memory."""

import contextlib
import io

import numpy as np

from clkit.book.exercises.functions import NAN, FunctionCheck
from clkit.book.exercises.nb00 import MATRICES, not_the_mean
from clkit.book.exercises.verdict import AnswerError, call, checker, guesses, off
from clkit.result import Result

# ---- a result small enough to count

# Each column is an image. Rows of _ANSWERS: predictions after tasks 1, 2 and 3; -1 for a class that has not
# arrived. Rows of _TASK_AWARE: task-aware predictions before any learning and then after each task.
_LABELS = (0, 0, 1, 1, 2, 2, 3, 3, 4, 5)
_ANSWERS = (
    (0, 1, 0, 1, -1, -1, -1, -1, -1, -1),
    (0, 2, 1, 1, 2, 2, 3, 3, -1, -1),
    (0, 4, 5, 3, 2, 4, 3, 5, 4, 5),
)
_TASK_AWARE = (
    (0, 1, 0, 1, 2, 3, 2, 3, 4, 4),
    (0, 1, 0, 1, 2, 2, 2, 3, 4, 4),
    (0, 0, 1, 1, 2, 2, 3, 3, 5, 5),
    (0, 1, 1, 1, 2, 2, 3, 3, 4, 5),
)


def worked_example():
    """A made-up Result to count by hand: three tasks of two classes, with 4, 4 and 2 test images."""
    labels, predictions, task_aware = (np.array(x, dtype=np.int16) for x in (_LABELS, _ANSWERS, _TASK_AWARE))
    rank = np.where(predictions < 0, -1, predictions != labels).astype(np.int16)
    seen, nothing, ones = np.array([2, 4, 6]), np.zeros(3), np.ones(3, dtype=np.int64)
    about = {"experiment": "worked example", "method": "worked example", "benchmark": "letters", "seed": 0}
    answers, costs = (labels, predictions, task_aware, rank), (nothing, nothing, ones, ones)
    return Result(about, (2, 2, 2), list("ABCDEF"), None, seen, *answers, *costs)


# ---- predictions


def finetuned(tasks, preset="teach", seed=0):
    """A Result of finetuning on the digits, split into `tasks` tasks of equal size; `tasks` divides 10."""
    from clkit import data, experiments
    from clkit.data.stream import Stream
    from clkit.engine.run import run

    found = experiments.experiment("finetune/split-digits", preset)
    stream = Stream(*data.load("digits"), (10 // tasks,) * tasks)
    about = {"experiment": f"finetune/digits in {tasks} tasks", "method": "finetune", "preset": preset}
    return run(found.learner, found.config, stream, seed=seed, threads=experiments.THREADS, about=about)[1]


@checker
def check_one_over_t(prediction, results):
    """Final average accuracy of finetuning on two and on ten tasks; right within 5 points.

    prediction: {tasks: percent}; results: {tasks: Result}.
    """
    guess = guesses(prediction, {2: 0, 10: 0} | results, "a percentage", "tasks")
    measured = {t: r.average() for t, r in results.items()}
    wrong = [guess[t] for t in off(guess, measured)]
    said = "Measured: " + ", ".join(f"{100 * m:.1f} % with {t} tasks" for t, m in measured.items()) + "."
    if not wrong:
        return (
            f"{said} Only the newest task is left, so the average is about $1/T$: 50 % on two tasks and 10 % "
            "on ten both mean complete forgetting."
        )
    if min(wrong) < 1:
        why = "The network still recognises the newest task, so the average cannot be 0."
    elif guess[2] == guess[10]:
        why = "The newest task is one of $T$, so the number of tasks matters."
    elif guess[2] < guess[10]:
        why = "With more tasks, the newest one is a smaller part of the average."
    else:
        why = "At the end, the network recognises the newest task and none of the older ones."
    raise AnswerError(f"{said} {why} What is the mean of one 100 and $T-1$ zeros?")


# ---- forgetting


def forgetting_solution(a):
    """Forgetting: best earlier accuracy minus final accuracy, mean over all tasks but the last."""
    best = np.nanmax(a[:-1, :-1], axis=0)  # (T - 1,); the last row is the end itself
    return (best - a[-1, :-1]).mean()


def _lost(a):
    """The loss in accuracy of each task but the last, (T - 1,)."""
    return np.nanmax(a[:-1, :-1], axis=0) - a[-1, :-1]


check_forgetting = FunctionCheck(
    forgetting_solution,
    "Best earlier accuracy minus final accuracy, averaged over all tasks but the last. It can be negative.",
    [*MATRICES, (np.array([[0.5, NAN], [0.7, 0.9]]),)],
    not_the_mean(_lost) | {
        "That is minus backward transfer. Compare with the *best* earlier moment, not with the first one.":
            lambda a: np.mean(np.diag(a)[:-1] - a[-1, :-1]),
        "That is backward transfer. Forgetting is the best earlier accuracy minus the last.":
            lambda a: np.mean(a[-1, :-1] - np.diag(a)[:-1]),
        "Take the maximum over the moments *before* the end, so that forgetting can be negative.":
            lambda a: np.mean(np.nanmax(a[:, :-1], axis=0) - a[-1, :-1]),
        "The last task has had no time to be forgotten: leave it out and divide by $T-1$.":
            lambda a: np.mean(np.nanmax(a, axis=0) - a[-1]),
        "A task that improved counts as negative: leave out `abs`.": lambda a: np.abs(_lost(a)).mean(),
        "You compared with the moment just before the end. Take the best of all earlier moments.":
            lambda a: np.mean(a[-2, :-1] - a[-1, :-1]),
        "You compared with the mean of the earlier moments. Take the best of them, `np.nanmax`.":
            lambda a: np.mean(np.nanmean(a[:-1, :-1], axis=0) - a[-1, :-1]),
    },
    "Write the formula out for this matrix on paper, then compare.",
    "Take the mean over the tasks.",
)  # fmt: skip


# ---- a memory


def reservoir_solution(memory, item, n_seen, size, random):
    """Offer an item to a memory, a list of at most `size` items, after `n_seen` others.

    random: a numpy Generator. Each item offered so far is then kept with probability size / (n_seen + 1).
    """
    if len(memory) < size:
        memory.append(item)
        return
    index = random.integers(n_seen + 1)  # 0 .. n_seen, the number of this item included
    if index < size:
        memory[index] = item


def _shares(size, offered):
    """For each item offered, the share of streams that end with it in memory."""
    return np.full(offered, size / offered)


def _measured_shares(function, size, offered, streams=3000):
    """The same, counted; AnswerError if the memory does not work as one."""
    random, kept = np.random.default_rng(0), np.zeros(offered)
    with contextlib.redirect_stdout(io.StringIO()):  # a print in the function would fill the page
        for _ in range(streams):
            memory = []
            for n in range(offered):
                call(function, memory, n, n, size, random)
                if len(memory) != min(n + 1, size):
                    raise AnswerError(
                        f"After {n + 1} items, a memory for {size} holds {len(memory)}, but it should hold "
                        f"{min(n + 1, size)}: fill it first, then replace, in the list `memory` itself."
                    )
            if len({n for n in range(offered) for item in memory if item is n}) < size:
                what = "The memory holds an item twice, or something that was never offered"
                raise AnswerError(f"{what}: put `item`, unchanged, into one place only.")
            kept[memory] += 1 / streams
    return kept


def _replacing(place):
    """Fill the memory, then put a new item at place(n_seen, size, random), if there is such a place."""

    def offer(memory, item, n_seen, size, random):
        index = len(memory) if len(memory) < size else place(n_seen, size, random)
        if index < size:
            memory[index : index + 1] = [item]

    return offer


check_reservoir = FunctionCheck(
    _shares,
    "Every item is kept equally often, however early it arrived.",
    [(1, 6), (4, 10)],
    {
        "You draw from one number too few: with the new item there are `n_seen + 1`.":
            _replacing(lambda n, size, random: random.integers(n)),
        "You draw from one number too many: with the new item there are `n_seen + 1`.":
            _replacing(lambda n, size, random: random.integers(n + 2)),
        "You keep every new item. Keep it only with probability `size / (n_seen + 1)`.":
            _replacing(lambda n, size, random: random.integers(size)),
        "You keep no later item. Keep a new one with probability `size / (n_seen + 1)`.":
            _replacing(lambda n, size, random: size),
        "A new item always takes the same place. Each place must be equally likely to be replaced.":
            _replacing(lambda n, size, random: size * (random.integers(n + 1) >= size)),
    },
    "Keep a new item with probability `size / (n_seen + 1)`, and let it replace each of the others equally "
    "often.",
    observe=_measured_shares,
    entry="the share of streams that keep item",
    tolerance=0.045,  # five standard deviations of a share of 3000 streams
)  # fmt: skip
