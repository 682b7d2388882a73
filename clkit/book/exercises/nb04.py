"""Exercises of notebook 04: how many tasks fit, and where connections grow."""

import numpy as np

from clkit.book.exercises.functions import FunctionCheck
from clkit.book.exercises.verdict import AnswerError, checker, guesses


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
    task, neurons = guesses(prediction, ("task", "neurons"), "a whole number").values()
    config, rows = result.about["config"], result.trace["neurons"]
    wanted, kept, units = config["selected"][0], config["reserved"][0], config["hidden"][0]
    found = [len(chosen) for layer, chosen in zip(rows["layer"], rows["chosen"]) if layer == 0]
    first = next((t for t, n in enumerate(found, 1) if n < wanted), None)
    if first is None:
        raise AnswerError(f"In this run every task found the {wanted} free neurons that it needed.")
    there = found[first - 1]
    said = f"Task {first} is the first that does not find {wanted} free neurons: it finds {there}."
    if (task, neurons) == (first, there):
        return f"{said} Before task `t` there are `{units} - {kept} * (t - 1)`."
    if task == first:
        why = f"The task is right. Each of the {first - 1} before it reserved {kept} of {units} neurons."
    elif task == first - 1:
        why = f"Task {first - 1} still finds {found[first - 2]}, which is enough."
    elif task in (units // wanted, units // wanted + 1):
        why = f"You took all {wanted} chosen neurons. Only {kept} are reserved; the others become free again."
    elif task in (units // kept, units // kept + 1):
        why = f"There is room to *reserve* for {units // kept} tasks, but a task first *chooses* {wanted}."
    else:
        why = f"How many of the {units} are free before task 1, before task 2, before task 3?"
    raise AnswerError(f"{said} {why}")


def grow_solution(omega, source, taken, k):
    """Where k connections grow: bool (O, I), True at the k places with the largest product (eq. 4 and 5).

    omega: (O, I), importance of the connections, 0 without a connection.   source: (I,), importance of the
    source neurons.   taken: (O, I), True where nothing may grow.
    """
    target = omega.sum(axis=1)  # (O,), importance that enters each neuron
    gain = np.where(taken, -np.inf, np.outer(target, source))  # (O, I)
    grown = np.zeros_like(taken)
    grown.flat[np.argsort(-gain, axis=None)[:k]] = True
    return grown


def _largest(gain, taken, k):
    """True at the k places with the largest gain among those not taken."""
    grown = np.zeros(taken.shape, dtype=bool)
    grown.flat[np.argsort(-np.where(taken, -np.inf, gain), axis=None, kind="stable")[:k]] = True
    return grown


def _by(gain):
    """Growth where gain(omega, source) is largest."""
    return lambda omega, source, taken, k: _largest(gain(omega, source), taken, k)


def _product(omega, source):
    return np.outer(omega.sum(axis=1), source)


def _random_layer(targets, sources, k):
    random = np.random.default_rng(3)
    there = random.random((targets, sources)) < 0.3
    taken = there | (random.random(there.shape) < 0.1)
    return there * random.random(there.shape), random.random(sources), taken, k


# A layer where each mistake gives different places. Where a row or column ties, k is the number of its free
# places, so that it does not matter how a sort breaks the tie.
_OMEGA = np.array([[9, 0, 0, 0, 0], [3, 0, 0, 0, 0], [0, 1, 0, 0, 0], [0, 8, 9, 0, 0], [0, 0, 8, 0, 2.0]])
_SMALL_LAYER = (_OMEGA, np.array([5.0, 9, 8, 4, 1]), _OMEGA > 0, 3)

check_grow = FunctionCheck(
    grow_solution,
    "The largest products among the free places: new connections grow between neurons that are already "
    "important, so connections gather there.",
    [_SMALL_LAYER, _random_layer(4, 9, 4), _random_layer(30, 20, 40)],
    {
        "You summed over the wrong axis: row `o` of `omega` holds what comes *into* neuron `o`.":
            _by(lambda omega, source: np.outer(omega.sum(axis=0), source)),
        "You swapped the two ends: rows are targets, columns are sources.":
            _by(lambda omega, source: np.outer(source, omega.sum(axis=1)).reshape(omega.shape)),
        "You added the two importances. Equation 5 multiplies them: both ends must matter.":
            _by(lambda omega, source: omega.sum(axis=1)[:, None] + source),
        "You took the *smallest* products. Connections grow where the product is largest.":
            _by(lambda omega, source: -_product(omega, source)),
        "You looked at the target neurons only. Multiply by the importance of the source as well.":
            _by(lambda omega, source: np.repeat(omega.sum(axis=1)[:, None], len(source), axis=1)),
        "You looked at the source neurons only. Multiply by the importance of the target as well.":
            _by(lambda omega, source: np.repeat(source[None], len(omega), axis=0)),
        "You took the largest connection into a neuron. Its importance is the *sum* of its row.":
            _by(lambda omega, source: np.outer(omega.max(axis=1), source)),
        "You counted the connections into each target neuron. Add up their importances.":
            _by(lambda omega, source: np.outer((omega > 0).sum(axis=1), source)),
        "Some of your places are already taken. Rule them out with `np.where(taken, -np.inf, ...)`.":
            lambda omega, source, taken, k: _largest(_product(omega, source), 0 * taken, k),
        "You return the old places as well. Return only the new ones.":
            lambda omega, source, taken, k: taken | _largest(_product(omega, source), taken, k),
        "You return the products. Return True at the `k` largest that are free, False elsewhere.":
            lambda omega, source, taken, k: _product(omega, source),
        "You return the indices of the places. Return a matrix that is True there.":
            lambda omega, source, taken, k: np.flatnonzero(_largest(_product(omega, source), taken, k)),
    },
    "Compute the matrix of products, rule out taken places, and grow at exactly the `k` largest.",
    "Return a boolean matrix of the shape of `taken`, True where a connection grows.",
)  # fmt: skip
