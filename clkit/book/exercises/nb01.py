"""Exercises of notebook 01: a result to count by hand, how low accuracy falls, forgetting, a fair memory."""

import numpy as np

from clkit.book.exercises.verdict import MATRICES, NAN, AnswerError, call, check_score, checker, guesses, off
from clkit.result import Result

# ---- a result small enough to count

# A column is an image. Rows of _ANSWERS: predictions after task 1, 2, 3, and -1 for a class that has not
# arrived. Rows of _TASK_AWARE: the task-aware ones, before any learning and then after each task.
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
    """A made-up Result that can be counted: three tasks of two classes, and 4, 4 and 2 test images."""
    labels, predictions, task_aware = (np.array(x, dtype=np.int16) for x in (_LABELS, _ANSWERS, _TASK_AWARE))
    rank = np.where(predictions < 0, -1, predictions != labels).astype(np.int16)
    seen, nothing, ones = np.array([2, 4, 6]), np.zeros(3), np.ones(3, dtype=np.int64)
    about = {"experiment": "worked example", "method": "worked example", "benchmark": "letters", "seed": 0}
    answers, costs = (labels, predictions, task_aware, rank), (nothing, nothing, ones, ones)
    return Result(about, (2, 2, 2), list("ABCDEF"), None, seen, *answers, *costs)


# ---- predictions


def finetuned(tasks, preset="teach", seed=0):
    """A Result of finetuning on the digits cut into `tasks` tasks of equal size; tasks divides 10."""
    from clkit import data, experiments
    from clkit.data.stream import Stream
    from clkit.engine.run import run

    found = experiments.experiment("finetune/split-digits", preset)
    stream = Stream(*data.load("digits"), (10 // tasks,) * tasks)
    about = {"experiment": f"finetune/digits in {tasks} tasks", "method": "finetune", "preset": preset}
    return run(found.learner, found.config, stream, seed=seed, threads=experiments.THREADS, about=about)[1]


@checker
def check_one_over_t(prediction, results, tolerance=0.1):
    """Final average accuracy of finetuning by number of tasks.

    prediction: {tasks: percent}; results: {tasks: Result}; tolerance: how far off may be right, a fraction.
    """
    guess = guesses(prediction, results, "a number, in percent,", "tasks")
    measured = {t: r.average() for t, r in results.items()}
    wrong = off(guess, measured, tolerance)
    said = "Measured: " + ", ".join(f"{100 * m:.1f} % with {t} tasks" for t, m in measured.items()) + "."
    if wrong:
        raise AnswerError(
            f"{said} You were off for {' and '.join(map(str, wrong))} tasks. At the end the newest task is "
            "answered nearly perfectly, the older ones not at all: what is the mean of one 100 and "
            "$T-1$ zeros?"
        )
    return (
        f"{said} Only the newest task is left, so the average is about $1/T$: 50 % on two tasks and 10 % on "
        "ten are the same complete loss."
    )


# ---- forgetting


def forgetting_solution(a):
    """Forgetting: best accuracy before the end minus that at the end, mean over all tasks but the last."""
    best = np.nanmax(a[:-1, :-1], axis=0)  # (T - 1,); the last row is the end itself
    return (best - a[-1, :-1]).mean()


_FORGETTING_COMMON_MISTAKES = {
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
        lambda a: NAN}  # fmt: skip
_RISING = np.array([[0.5, NAN], [0.7, 0.9]])  # a task that is at its best at the end


@checker
def check_forgetting(function):
    """Check a function of an accuracy matrix (T, T), NaN above the diagonal: forgetting."""
    check_score(function, forgetting_solution, _FORGETTING_COMMON_MISTAKES, (*MATRICES, _RISING))
    good = "Best earlier accuracy minus final accuracy, averaged over all tasks but the last."
    return f"{good} It can be negative."


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


@checker
def check_reservoir(function, size=20, offered=200, repeats=400):
    """Check a function like `reservoir_solution` by which items of a stream are kept, and how often."""
    kept, random = np.zeros(offered), np.random.default_rng(0)
    for _ in range(repeats):
        kept[_filled(function, size, offered, random)] += 1 / repeats
    quarter, right = offered // 4, size / offered
    early, late = kept[:quarter].mean(), kept[-quarter:].mean()
    chances = f"with probability {early:.3f}, the last with {late:.3f}"
    said = f"Of {offered} items, the first quarter is kept {chances}"
    if max(abs(early - right), abs(late - right)) < 0.015:
        return f"{said}: every item has the same chance of {right:.3f}, however early it came."
    if late < early:
        why = "do not get in often enough: a new one must be kept with probability `size / (n_seen + 1)`."
    else:
        why = (
            "get in too easily and wash out the earlier ones. The more have come, the less likely a new one "
            "may be to get in: draw an index below `n_seen + 1`, and use it only if the memory has it."
        )
    raise AnswerError(f"{said}, and both should be {right:.3f}. Later items {why}")


def _filled(function, size, offered, random):
    """The memory after a stream of numbers; AnswerError where something is wrong with it."""
    memory = []
    for n in range(offered):
        call(function, memory, n, n, size, random)
        if len(memory) != min(n + 1, size):
            holds = f"After {n + 1} items the memory holds {len(memory)} and not {min(n + 1, size)}"
            raise AnswerError(f"{holds}: fill it first, then replace, in the list `memory` itself.")
    if len(set(memory)) < size or not set(memory) <= set(range(offered)):
        what = "The memory holds an item twice, or one that was never offered"
        raise AnswerError(f"{what}: put `item` into one place only.")
    return memory
