"""Exercises of notebook 03: how many tasks fit, and where connections grow."""

import math

import numpy as np

from clkit.book.exercises.verdict import Verdict, call, number, short


def one_by_one(preset="teach", seed=0):
    """A Result of SpaceNet on the enlarged digits in ten tasks of one class each."""
    from clkit import data, experiments
    from clkit.data.stream import Stream
    from clkit.engine.run import run

    found = experiments.experiment("spacenet/split-mnist", preset)
    stream = Stream(*data.load("digits28"), (1,) * 10, **found.stream_row.stream)
    about = {"experiment": "spacenet/digits one by one", "method": "spacenet", "preset": preset}
    return run(
        found.learner,
        found.config,
        stream,
        seed=seed,
        record=("neurons",),
        threads=experiments.THREADS,
        about=about,
    )[1]


def check_room(prediction, result):
    """Which task first finds too few free neurons, and how many it finds.

    prediction: {"task": from 1, "neurons": of a hidden layer}; result: with the trace table "neurons".
    """
    given = prediction if isinstance(prediction, dict) else {}
    guess = [number(given.get(key)) for key in ("task", "neurons")]
    if None in guess:
        return Verdict(False, "Predict before you look: put whole numbers in the place of the dots.")
    config, rows = result.about["config"], result.trace["neurons"]
    wanted, kept, units = config["selected"][0], config["reserved"][0], config["hidden"][0]
    found = [len(chosen) for layer, chosen in zip(rows["layer"], rows["chosen"]) if layer == 0]
    short = next((t for t, n in enumerate(found, 1) if n < wanted), None)
    if short is None:
        return Verdict(False, f"In this run every task found the {wanted} neurons it wanted.")
    said = (
        f"Task {short} is the first that does not find {wanted} free neurons: there are {found[short - 1]}."
    )
    if guess == [short, found[short - 1]]:
        return Verdict(True, f"{said} Before task `t` there are `{units} - {kept} * (t - 1)`.")
    if guess[0] == units // wanted + 1:
        hint = (
            f"You took all {wanted} chosen neurons from the free ones. Only the {kept} reserved ones "
            "leave them, the others come back."
        )
    elif guess[0] == units // kept + 1:
        hint = (
            f"There are neurons to *reserve* for {units // kept} tasks. But a task wants to *choose* "
            f"{wanted} before it reserves {kept}."
        )
    else:
        hint = f"How many of the {units} are free before task 1, before task 2, before task 3?"
    return Verdict(False, f"{said} {hint}")


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


def _largest(gain, taken, k):
    """bool, as `gain`: the k largest among the places not taken."""
    order = np.argsort(-np.where(taken, -np.inf, gain), axis=None, kind="stable")
    return np.isin(np.arange(gain.size), order[:k]).reshape(gain.shape)


# fmt: off
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
        lambda omega, source: np.repeat(source[None], len(omega), axis=0)}
# fmt: on


def check_grow(function):
    """Check a function like `grow_solution` on layers of several shapes."""
    random = np.random.default_rng(3)
    for targets, sources, k in ((6, 6, 5), (4, 9, 4), (30, 20, 40)):  # a square first, for mistakes
        there = random.random((targets, sources)) < 0.3
        omega, source = there * random.random(there.shape), random.random(sources)
        taken = there | (random.random(there.shape) < 0.1)
        value, verdict = call(function, omega.copy(), source.copy(), taken.copy(), k)
        verdict = verdict if verdict is not None else _no_mask(value, taken, k)
        if verdict is not None:
            return verdict
        grown, gain = np.asarray(value, dtype=bool), np.outer(omega.sum(axis=1), source)
        best = gain[grow_solution(omega, source, taken, k)].sum()
        if not math.isclose(gain[grown].sum(), best):
            known = [
                said
                for said, mistake in _GROW_COMMON_MISTAKES.items()
                if targets == sources and np.array_equal(grown, _largest(mistake(omega, source), taken, k))
            ]
            hint = (
                known[0]
                if known
                else "Compute the matrix of products, rule out what is taken, then take the largest."
            )
            return Verdict(
                False,
                f"In a layer of {targets} target and {sources} source neurons, the {k} "
                f"products at your places add up to {gain[grown].sum():.3f}; {best:.3f} is "
                f"possible. {hint}",
            )
    return Verdict(
        True,
        "The largest products of places that are free: where both neurons matter already, "
        "new connections arrive. That is how they gather.",
    )


def _no_mask(value, taken, k):
    """None, or a Verdict if `value` is not k places that are free, as a boolean matrix like `taken`."""
    grown = np.asarray(value)
    if grown.shape != taken.shape or grown.dtype not in (np.dtype(bool), np.dtype(int), np.dtype(float)):
        advice = " Did you forget `return`?" if value is None else ""
        return Verdict(
            False,
            "A boolean matrix of the shape of `taken` should come back, True where a "
            f"connection grows, and it is {short(value)}.{advice}",
        )
    grown = grown.astype(bool)
    if (grown & taken).any():
        return Verdict(
            False,
            f"{(grown & taken).sum()} of your places are taken already. Nothing can grow "
            "there: rule them out before you take the largest, for instance with "
            "`np.where(taken, -np.inf, ...)`.",
        )
    if grown.sum() != k:
        return Verdict(
            False,
            f"You grow {grown.sum()} connections, and it should be as many as were "
            f"dropped, {k}: otherwise their number would not stay constant.",
        )
    return None
