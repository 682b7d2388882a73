"""Exercises of notebook 03: how many tasks fit, and where connections grow."""

import math

import numpy as np

from clkit.book.exercises.verdict import AnswerError, call, checker, guesses, hint, short


def one_by_one(preset="teach", seed=0):
    """A Result of SpaceNet on the enlarged digits in ten tasks of one class each."""
    from clkit import data, experiments
    from clkit.data.stream import Stream
    from clkit.engine.run import run

    found = experiments.experiment("spacenet/split-mnist", preset)
    stream = Stream(*data.load("digits28"), (1,) * 10, **found.stream_row.stream)
    about = {"experiment": "spacenet/digits one by one", "method": "spacenet", "preset": preset}
    options = {"seed": seed, "record": ("neurons",), "threads": experiments.THREADS, "about": about}
    return run(found.learner, found.config, stream, **options)[1]


@checker
def check_room(prediction, result):
    """Which task first finds too few free neurons, and how many it finds.

    prediction: {"task": from 1, "neurons": of a hidden layer}; result: with the trace table "neurons".
    """
    guess = list(guesses(prediction, ("task", "neurons"), "whole numbers").values())
    config, rows = result.about["config"], result.trace["neurons"]
    wanted, kept, units = config["selected"][0], config["reserved"][0], config["hidden"][0]
    found = [len(chosen) for layer, chosen in zip(rows["layer"], rows["chosen"]) if layer == 0]
    task = next((t for t, n in enumerate(found, 1) if n < wanted), None)
    if task is None:
        raise AnswerError(f"In this run every task found the {wanted} neurons it wanted.")
    there = found[task - 1]
    said = f"Task {task} is the first that does not find {wanted} free neurons: there are {there}."
    if guess == [task, there]:
        return f"{said} Before task `t` there are `{units} - {kept} * (t - 1)`."
    if guess[0] == units // wanted + 1:
        why = (
            f"You took all {wanted} chosen neurons from the free ones. Only the {kept} reserved ones leave "
            "them, the others come back."
        )
    elif guess[0] == units // kept + 1:
        why = (
            f"There are neurons to *reserve* for {units // kept} tasks. But a task wants to *choose* "
            f"{wanted} before it reserves {kept}."
        )
    else:
        why = f"How many of the {units} are free before task 1, before task 2, before task 3?"
    raise AnswerError(f"{said} {why}")


def grow_solution(omega, source, taken, k):
    """Where k connections grow: bool (O, I), True at the k places with the largest product (eq. 4 and 5).

    omega: (O, I), importance of the connections, 0 where there is none.   source: (I,), importance of the
    source neurons.   taken: (O, I), True where nothing may grow.
    """
    target = omega.sum(axis=1)  # (O,), what comes into each neuron
    gain = np.where(taken, -np.inf, np.outer(target, source))  # (O, I)
    grown = np.zeros_like(taken)
    grown.flat[np.argsort(-gain, axis=None)[:k]] = True
    return grown


def _are_largest(found, gain):
    """Whether (places, taken, k) are the places of the k largest gains among those not taken."""
    grown, taken, k = found
    order = np.argsort(-np.where(taken, -np.inf, gain), axis=None, kind="stable")
    return np.array_equal(np.flatnonzero(grown), np.sort(order[:k]))


_GROW_COMMON_MISTAKES = {
    "You summed over the wrong axis: row `o` of `omega` holds what comes *into* target neuron `o`, so sum "
    "along the rows, `axis=1`.":
        lambda omega, source: np.outer(omega.sum(axis=0), source),
    "You turned the matrix round: its rows are targets, its columns sources.":
        lambda omega, source: np.outer(source, omega.sum(axis=1)),
    "You added the two importances. Equation 5 multiplies them: both ends must matter.":
        lambda omega, source: omega.sum(axis=1)[:, None] + source,
    "You took the places with the *smallest* products. Connections grow where the product is largest.":
        lambda omega, source: -np.outer(omega.sum(axis=1), source),
    "You looked at the target neurons only. Equation 5 multiplies by the importance of the source, too.":
        lambda omega, source: np.repeat(omega.sum(axis=1)[:, None], len(source), axis=1),
    "You looked at the source neurons only. Equation 5 multiplies by the importance of the target, too.":
        lambda omega, source: np.repeat(source[None], len(omega), axis=0)}  # fmt: skip


@checker
def check_grow(function):
    """Check a function like `grow_solution` on layers of several shapes."""
    random = np.random.default_rng(3)
    for targets, sources, k in ((6, 6, 5), (4, 9, 4), (30, 20, 40)):  # a square first, for mistakes
        there = random.random((targets, sources)) < 0.3
        omega, source = there * random.random(there.shape), random.random(sources)
        taken = there | (random.random(there.shape) < 0.1)
        value = call(function, omega.copy(), source.copy(), taken.copy(), k)
        grown, gain = _places(value, taken, k), np.outer(omega.sum(axis=1), source)
        best = gain[grow_solution(omega, source, taken, k)].sum()
        if not math.isclose(gain[grown].sum(), best):
            known = _GROW_COMMON_MISTAKES if targets == sources else {}
            other = "Compute the matrix of products, rule out what is taken, then take the largest."
            why = hint(known, (omega, source), (grown, taken, k), _are_largest, other)
            raise AnswerError(
                f"In a layer of {targets} target and {sources} source neurons, the {k} products at your "
                f"places add up to {gain[grown].sum():.3f}; {best:.3f} is possible. {why}"
            )
    return (
        "The largest products of places that are free: where both neurons matter already, new connections "
        "arrive. That is how they gather."
    )


def _places(value, taken, k):
    """The value as a boolean matrix like `taken` of k places that are free."""
    grown = np.asarray(value)
    if grown.shape != taken.shape or grown.dtype not in (np.dtype(bool), np.dtype(int), np.dtype(float)):
        advice = " Did you forget `return`?" if value is None else ""
        raise AnswerError(
            "A boolean matrix of the shape of `taken` should come back, True where a connection grows, and "
            f"it is {short(value)}.{advice}"
        )
    grown = grown.astype(bool)
    if (grown & taken).any():
        raise AnswerError(
            f"{(grown & taken).sum()} of your places are taken already. Nothing can grow there: rule them "
            "out before you take the largest, for instance with `np.where(taken, -np.inf, ...)`."
        )
    if grown.sum() != k:
        raise AnswerError(
            f"You grow {grown.sum()} connections, and it should be as many as were dropped, {k}: otherwise "
            "their number would not stay constant."
        )
    return grown
