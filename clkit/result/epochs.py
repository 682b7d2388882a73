"""The score of the epoch that validation images choose.

Some released codes report test accuracy at the epoch of each task with the best validation accuracy over all
classes seen. Old classes then need real validation images, which a learner without memory does not have. So
this score is for comparison with printed numbers; the score of a run is that of the last epoch.
"""

from __future__ import annotations

import numpy as np

from clkit.result.result import Result


def chosen(result: Result) -> list[tuple[int, float]]:
    """After each stage, (epoch with the best mean accuracy on validation images, mean test accuracy there).

    Means are over the tasks learned; of equal epochs the first counts. An empty list if the run has no
    validation images. Needs the table "progress" with the columns of `clkit.analysis.validation`.
    """
    rows, found = result.trace.get("progress", {}), []
    for t in np.unique(rows["task"]) if "validation" in rows else ():
        of_task = np.flatnonzero(rows["task"] == t)
        val, test = (np.nanmean(rows[name][of_task], axis=1) for name in ("validation", "test"))
        best = int(val.argmax())
        found.append((int(rows["epoch"][of_task[best]]), float(test[best])))
    return found


def chosen_after(result: Result, classes: int) -> float:
    """The accuracy of `chosen` once so many classes are known; NaN if there is none."""
    return dict(zip(result.seen.tolist(), (score for _, score in chosen(result)))).get(classes, float("nan"))
