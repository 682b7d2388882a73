"""Which methods fit into a budget of bytes, and how accurate they are."""

import numpy as np

from clkit import plots
from clkit.book.explore import common
from clkit.book.explore.common import ExploreError
from clkit.book.show import View
from clkit.plots import beside_weights, said_bytes

STEPS = (1, 2, 5)  # budgets in each power of ten


def budget_view(results, budget=None, image_bytes=None, references=None):
    """Accuracy against the bytes kept beside the weights; methods beyond the budget (bytes) are grey.

    results, references: {label: seeds}, see plots.plot_budget.   image_bytes: of a raw image.
    """
    groups = plots.grouped(results)
    if budget is not None and budget < 0:
        raise ExploreError(f"a budget is a number of bytes of at least 0, not {budget}")
    ax = plots.plot_budget(groups, budget, image_bytes, references=references)
    return View(ax, _about(groups, budget, image_bytes))


def _about(groups, budget, image_bytes):
    """What the plot shows, in words: the best three within the budget."""
    limit = np.inf if budget is None else budget
    scores = {label: 100 * np.mean([r.average() for r in seeds]) for label, seeds in groups.items()}
    inside = [label for label, seeds in groups.items() if beside_weights(seeds[0]) <= limit]
    images = f", as much as {budget / image_bytes:,.0f} raw images," if budget and image_bytes else ""
    within = "without a limit" if budget is None else f"of {said_bytes(budget)}{images}"
    best = sorted(inside, key=scores.get, reverse=True)[:3]
    said = ", ".join(
        f"{label} {scores[label]:.1f} % with {said_bytes(beside_weights(groups[label][0]))}" for label in best
    )
    return (
        f"Average accuracy against the bytes kept beside the weights. A budget {within} admits "
        f"{len(inside)} of {len(groups)} methods and memory sizes. The most accurate: {said or 'none'}."
    )


def budgets(results):
    """Budgets in bytes for a slider, from less than the smallest amount kept to the largest: [int]."""
    kept = [beside_weights(seeds[0]) for seeds in plots.grouped(results).values()]
    kept = [size for size in kept if size]
    if not kept:
        raise ExploreError("these methods keep nothing beside the weights: give results of others")
    powers = range(int(np.log10(min(kept))), int(np.log10(max(kept))) + 2)
    steps = [step * 10**power for power in powers for step in STEPS]
    first = max(n for n, step in enumerate(steps) if step <= min(kept))
    last = min(n for n, step in enumerate(steps) if step >= max(kept))
    return [0, *steps[first : last + 1]]


# ---- explorer


def budget_explorer(cases):
    """A choice of benchmark and a slider over budgets around `budget_view`.

    cases: {benchmark: (results, image_bytes, references)}, the arguments of `budget_view`. The budgets are
    those of all benchmarks together.
    """
    every = sorted({budget for groups, *_ in cases.values() for budget in budgets(groups)})
    options = [(said_bytes(b), b) for b in every]
    return common.explorer(
        lambda budget, benchmark: budget_view(cases[benchmark][0], budget, *cases[benchmark][1:]),
        budget=common.stops("budget", options, at=len(options) // 2),
        benchmark=common.choice("benchmark", [(name, name) for name in cases]),
    )
