"""The score of the epoch that validation images choose.

Some released codes report test accuracy at the epoch of each task with the best validation accuracy over all
classes seen. Old classes then need real validation images, which a learner without memory does not have. So
this score is for comparison with printed numbers; the score of a run is that of the last epoch.
"""

from __future__ import annotations

import numpy as np

from clkit.result.result import Result


def by_epoch(result: Result, images: str = "test") -> list[np.ndarray]:
    """Mean accuracy (E,) over the tasks learned after each epoch: an array for each stage.

    images: "test" or "validation". An empty list if the run has no validation images. Needs the table
    "progress" with the columns of `clkit.analysis.validation`.
    """
    rows = result.trace.get("progress", {})
    if "validation" not in rows:
        return []
    means, task = np.nanmean(rows[images], axis=1), np.asarray(rows["task"])
    return [means[task == t] for t in np.unique(task)]


def chosen(result: Result) -> list[tuple[int, float]]:
    """After each stage, (epoch with the best accuracy on validation images, test accuracy there); from 0.

    Both are means over the tasks learned; of equal epochs the first counts. See `by_epoch`.
    """
    both = zip(by_epoch(result, "validation"), by_epoch(result, "test"))
    return [(int(val.argmax()), float(test[val.argmax()])) for val, test in both]


def chosen_after(result: Result, classes: int) -> float:
    """The test accuracy at the epoch of `chosen` once so many classes are known; NaN if there is none."""
    return dict(zip(result.seen.tolist(), (score for _, score in chosen(result)))).get(classes, float("nan"))
