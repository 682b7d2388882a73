"""Which classes are confused, where classes have superclasses: siblings compared with other classes.

A sibling is another class of the same superclass (family). The functions take one Result whose `groups` are
known.
"""

import numpy as np

from clkit.errors import ClkitError


class ConfusionError(ClkitError):
    """A result whose confusion cannot be analysed in this way."""


def families(result, stage=-1):
    """Confusion between superclasses after a stage (from 0, negative from the end).

    Returns counts (G, G), row = true family, column = family of the predicted class, and the names (G,), in
    order of arrival. ConfusionError if the classes have no superclasses.
    """
    names, of_class = _families_of(result, stage)
    return result.confusion(stage, of_class), names


def answers(result, stage=-1):
    """Shares of the test images seen so far: {"right": ..., "sibling": ..., "other family": ...}; sum 1."""
    counts, _names = families(result, stage)
    total, within = counts.sum(), np.trace(counts)
    right = (result.predictions[stage] == result.labels).sum()
    counts = {"right": right, "sibling": within - right, "other family": total - within}
    return {answer: float(count / total) for answer, count in counts.items()}


def answers_if_blind(result, stage=-1):
    """What `answers` would be with the same share of right answers if errors ignored families.

    Each wrong answer then falls on every other seen class with equal probability.
    """
    _names, of_class = _families_of(result, stage)
    K, siblings = len(of_class), np.bincount(of_class)[of_class] - 1  # (K,)
    predicted, labels = result.predictions[stage], result.labels
    wrong = np.bincount(labels[(predicted >= 0) & (predicted != labels)], minlength=K)  # (K,)
    total = (predicted >= 0).sum()
    sibling = float((wrong * siblings / max(K - 1, 1)).sum() / total)
    right = float(1 - wrong.sum() / total)
    return {"right": right, "sibling": sibling, "other family": 1 - right - sibling}


def _families_of(result, stage):
    if result.groups is None:
        raise ConfusionError(
            f"the classes of {result.about.get('benchmark', 'this result')} have no superclasses: "
            "take a benchmark of shapes or cifar100, whose families are known"
        )
    seen = result.groups[: int(result.seen[stage])]
    numbers = {g: n for n, g in enumerate(dict.fromkeys(seen))}
    return list(numbers), np.array([numbers[g] for g in seen])
