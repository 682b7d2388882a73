"""One seed of one experiment: its predictions, and every score derived from them."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from clkit.errors import ClkitError
from clkit.markup import in_html


class ResultError(ClkitError):
    """A result that cannot be used as asked; the message says why and what to do."""


@dataclass
class Result:
    """One seed of one experiment.

    about: what was run, and on what: experiment, benchmark, preset, method, learner (class), revision,
        settings (those that differ from the Config's defaults), config (all settings), seed, stream, key,
        device, cpu, threads, versions, commit, date.
    classes_per_task: (T,).   names: display names, (K,).   groups: superclass of each class, or None.
    seen: (R,) number of classes seen after each stage.   labels: (N,) true classes of the test images.
    predictions: (R, N) the class with the largest logit among those seen; -1 where the true class is unseen.
    predictions_task_aware: (R + 1, N) the class with the largest logit among those of the image's own task;
        row 0 is before any learning; -1 where the learner had no logit for these classes.
    rank: (R, N) number of seen classes ahead of the true class, 0 where it is predicted: those with a larger
        logit, and those with an equal logit and a smaller number; -1 where the true class is unseen.
    learn_seconds, test_seconds: (R,) wall-clock time.   n_samples: (R,) training images drawn; with
        those that another run spent on loops that were taken from it, which about["shared"] lists.
    parameters: (R,) number of trainable parameters.
    memory_bytes: kind of memory -> (R,) bytes that the learner keeps after a stage.
    trace: table -> column -> rows, in the order in which they were reported.
    """

    about: dict[str, Any]
    classes_per_task: tuple[int, ...]
    names: list[str]
    groups: list[str] | None
    seen: np.ndarray
    labels: np.ndarray
    predictions: np.ndarray
    predictions_task_aware: np.ndarray
    rank: np.ndarray
    learn_seconds: np.ndarray
    test_seconds: np.ndarray
    n_samples: np.ndarray
    parameters: np.ndarray
    memory_bytes: dict[str, np.ndarray] = field(default_factory=dict)
    trace: dict[str, dict[str, Any]] = field(default_factory=dict)

    # ---- shown

    def _facts(self) -> dict[str, str]:
        """What a reader wants to know first, in the order shown."""
        known = self.about.get
        benchmark = known("benchmark") or known("experiment", "").partition("/")[2]
        forgetting = self.forgetting()  # NaN if there was only one stage
        return {
            "method": str(known("method") or known("experiment", "").partition("/")[0] or "unnamed"),
            "benchmark": str(benchmark or known("stream", {}).get("data") or "unnamed"),
            "data": str(known("stream", {}).get("data", "unnamed")),
            "size": str(known("preset", "own")),
            "seed": str(known("seed", "unknown")),
            "tasks": f"{self.tasks}, of {', '.join(map(str, self.classes_per_task))} classes",
            "average accuracy": f"{100 * self.average():.1f} %",
            "forgetting": "none: one stage" if np.isnan(forgetting) else f"{100 * forgetting:.1f} points",
        }

    def __repr__(self) -> str:
        f, tasks = self._facts(), "1 task" if self.tasks == 1 else f"{self.tasks} tasks"
        name = f"{f['method']}/{f['benchmark']}, {f['size']}, seed {f['seed']}, {tasks}"
        return f"<Result {name}: average accuracy {f['average accuracy']}, forgetting {f['forgetting']}>"

    def _repr_html_(self) -> str:
        """A small table, which Jupyter shows if a Result is the last value of a cell."""
        facts = {name: in_html(value) for name, value in self._facts().items()}
        rows = "".join(f'<tr><th scope="row">{k}</th><td>{v}</td></tr>' for k, v in facts.items())
        caption = f"Result of {facts['method']} on {facts['benchmark']}"
        return f"<table><caption>{caption}</caption><tbody>{rows}</tbody></table>"

    # ---- images and tasks

    @property
    def tasks(self) -> int:
        """T, the number of tasks."""
        return len(self.classes_per_task)

    @property
    def task_of(self) -> np.ndarray:
        """(N,) the task of each test image."""
        return np.searchsorted(np.cumsum(self.classes_per_task), self.labels, side="right")

    def _per_task(self, chosen: np.ndarray, task_mean: str = "images") -> np.ndarray:
        """(rows, T) share of correct classes in each task, for `chosen` (rows, N) with -1 for no class.

        NaN for a task that has images without a class.
        """
        if task_mean not in ("images", "classes"):
            raise ResultError(f"task_mean must be 'images' or 'classes', not {task_mean!r}")

        def counts(which):  # number of these images in each class: (K,)
            return np.bincount(self.labels[which], minlength=sum(self.classes_per_task))

        def by_task(values):  # sums over the classes of each task: (..., K) -> (..., T)
            return np.add.reduceat(values, first, axis=-1)

        first = np.cumsum(self.classes_per_task) - self.classes_per_task  # (T,)
        sizes, right = counts(slice(None)), np.stack([counts(row == self.labels) for row in chosen])
        absent = by_task(np.stack([counts(row < 0) for row in chosen]))
        if task_mean == "classes":
            right, sizes = right / np.maximum(sizes, 1), np.minimum(sizes, 1)
        with np.errstate(invalid="ignore"):
            return np.where(absent, np.nan, by_task(right) / by_task(sizes))

    # ---- accuracy

    def accuracy(self, task_mean: str = "images") -> np.ndarray:
        """(R, T) class-incremental accuracy a[i, j] on task j after stage i, among the classes seen.

        task_mean="images" (usual): share of the task's images that are classified correctly; "classes": mean
        of the accuracies of the task's classes (as in Ji et al. 2020), whatever their numbers of test images.
        Every score below that is based on these accuracies takes the same argument.
        """
        return self._per_task(self.predictions, task_mean)

    def task_aware_accuracy(self, task_mean: str = "images") -> np.ndarray:
        """(R, T) task-aware accuracy: predictions are only among the classes of the image's own task."""
        return self._per_task(self.predictions_task_aware[1:], task_mean)

    def start_accuracy(self) -> np.ndarray:
        """(T,) task-aware accuracy before any learning, the b of forward transfer."""
        return self._per_task(self.predictions_task_aware[:1])[0]

    def averages(self, over: str = "tasks", task_mean: str = "images") -> np.ndarray:
        """(R,) average accuracy after each stage.

        over="tasks" (usual): mean of the tasks' accuracies (Chaudhry et al. 2018, section 3: A_k);
        over="images": share of correct predictions among all test images of the classes seen so far, without
        means over tasks. They differ when tasks differ in size.
        """
        if over == "tasks":
            return np.array([np.nanmean(row) for row in self.accuracy(task_mean)])
        if over != "images":
            raise ResultError(f"over must be 'tasks' or 'images', not {over!r}")
        if task_mean != "images":
            raise ResultError(f"over='images' does not average tasks: leave out task_mean={task_mean!r}")
        return np.array([(p == self.labels)[p >= 0].mean() for p in self.predictions])

    def average(self, over: str = "tasks", task_mean: str = "images") -> float:
        """Average accuracy after the last stage."""
        return float(self.averages(over, task_mean)[-1])

    def average_after(self, classes: int, over: str = "tasks", task_mean: str = "images") -> float:
        """Average accuracy once so many classes are known; NaN if no stage ends with them."""
        return dict(zip(self.seen.tolist(), self.averages(over, task_mean))).get(classes, float("nan"))

    def incremental(self, over: str = "tasks", task_mean: str = "images") -> float:
        """Average incremental accuracy: mean of `averages` over stages (Rebuffi et al. 2017, section 4)."""
        return float(self.averages(over, task_mean).mean())

    def task_aware_average(self, task_mean: str = "images") -> float:
        """Mean task-aware accuracy over the tasks learned, after the last stage."""
        learned = np.cumsum(self.classes_per_task) <= self.seen[-1]
        return float(self.task_aware_accuracy(task_mean)[-1][learned].mean())

    # ---- change over time

    def forgetting_per_task(self, task_mean: str = "images") -> np.ndarray:
        """(T,) f_j = max over earlier stages of a[i, j], minus a[last, j]; NaN for the task learned last.

        Chaudhry et al. 2018, section 3, equation 3. Negative for a task whose accuracy is best at the end.
        """
        a = self.accuracy(task_mean)
        return np.fmax.reduce(a[:-1], axis=0, initial=np.nan) - a[-1]

    def forgetting(self, task_mean: str = "images") -> float:
        """Mean of `forgetting_per_task` over all tasks but the last; NaN with a single stage."""
        return _mean(self.forgetting_per_task(task_mean))

    def backward_transfer(self, task_mean: str = "images") -> float:
        """Mean of a[last, j] - a[j, j] over tasks but the last (Lopez-Paz and Ranzato 2017, section 2)."""
        a = self.accuracy(task_mean)
        return _mean([a[-1, j] - a[j, j] for j in range(len(a) - 1)])

    def forward_transfer(self) -> float:
        """Mean over tasks j > 0 of the task-aware accuracy just before learning j, minus the untrained one.

        Lopez-Paz and Ranzato 2017, section 2, with task-aware accuracies, because a class-incremental
        prediction is never an unseen class. NaN for learners without logits for future classes.
        """
        w, b = self.task_aware_accuracy(), self.start_accuracy()
        gains = np.array([w[j - 1, j] - b[j] for j in range(1, len(w))])
        return float(gains.mean()) if len(gains) else float("nan")

    # ---- finer views

    def top(self, k: int) -> np.ndarray:
        """(R,) share of the images of seen classes whose true class is among the k largest logits."""
        return np.array([(r < k)[r >= 0].mean() for r in self.rank])

    def per_class(self, stage: int = -1) -> np.ndarray:
        """(K,) accuracy of each class after a stage, NaN for unseen classes."""
        p, K = self.predictions[stage], sum(self.classes_per_task)
        tested, right = (np.bincount(self.labels[which], minlength=K) for which in (p >= 0, p == self.labels))
        with np.errstate(invalid="ignore"):
            return right / tested

    def confusion(self, stage: int = -1, parts: np.ndarray | None = None) -> np.ndarray:
        """(K_seen, K_seen) counts after a stage: row = true class, column = predicted class.

        parts: (K_seen,) the number of each class's part, such as its superclass, from 0; the counts are then
        those between the P parts, (P, P). ResultError if there is no memory for so many classes.
        """
        parts = np.arange(int(self.seen[stage])) if parts is None else np.asarray(parts, dtype=np.int64)
        p, P = self.predictions[stage], int(parts.max()) + 1
        known = p >= 0
        pairs = parts[self.labels[known]] * P + parts[p[known]]  # int64, as P * P may be large
        try:
            return np.bincount(pairs, minlength=P * P).reshape(P, P)
        except MemoryError:
            fault = f"a confusion matrix of {P:,} classes takes {8e-9 * P * P:,.0f} GB of memory"
            raise ResultError(f"{fault}: give parts=, such as the task of each class") from None

    def newest_share(self, stage: int = -1) -> float:
        """Share of predictions after a stage on classes of the newest task (joint training: the last)."""
        p, seen = self.predictions[stage], int(self.seen[stage])
        newest = int(np.searchsorted(np.cumsum(self.classes_per_task), seen))
        return float((p[p >= 0] >= seen - self.classes_per_task[newest]).mean())

    def samples_per_second(self) -> dict[str, float]:
        """Images per second over the whole run: {"learn": training images, "test": test images}."""
        tested = (self.predictions >= 0).sum()
        return {
            "learn": float(self.n_samples.sum() / max(self.learn_seconds.sum(), 1e-9)),
            "test": float(tested / max(self.test_seconds.sum(), 1e-9)),
        }


def checked(r: Result) -> Result:
    """The Result itself. ResultError names the first part that does not fit the others, as after an edit."""
    sizes, about, K, R, N = r.classes_per_task, r.about, len(r.names), len(r.seen), len(r.labels)
    facts = {"experiment": str, "preset": str, "seed": int, "config": dict, "settings": dict, "stream": dict}
    rows = {"predictions": R, "predictions_task_aware": R + 1, "rank": R}
    amounts = {k: getattr(r, k) for k in ("n_samples", "parameters")} | r.memory_bytes
    for part, fits in {
        "about": all(isinstance(about.get(k), kind | None) for k, kind in facts.items()),
        "classes_per_task": all(type(n) is int and n > 0 for n in sizes) and sum(sizes) == K > 0,
        "names": all(isinstance(name, str) for name in r.names),
        "groups": r.groups is None or [type(g) for g in r.groups] == [str] * K,
        "seen": _whole(r.seen, (R,), 1, K) and (np.diff(r.seen) > 0).all(),
        "labels": _whole(r.labels, (N,), 0, K - 1),
        **{k: _whole(getattr(r, k), (n, N), -1, K - 1) for k, n in rows.items()},
        **{k: _whole(a, (R,), 0, math.inf) for k, a in amounts.items()},
        **{k: _times(getattr(r, k), R) for k in ("learn_seconds", "test_seconds")},
        **{t: len({len(rows) for rows in columns.values()}) == 1 for t, columns in r.trace.items()},
    }.items():
        if not fits:
            raise ResultError(f"its {part} cannot be right")
    return r


def _whole(a: np.ndarray, shape: tuple, least: float, most: float) -> bool:
    """Whether an array has this shape and holds whole numbers in this range, at least one."""
    return a.shape == shape and a.size > 0 and a.dtype.kind in "iu" and least <= a.min() <= a.max() <= most


def _times(a: np.ndarray, n: int) -> bool:
    return a.shape == (n,) and a.dtype.kind in "iuf" and bool((np.isfinite(a) & (a >= 0)).all())


def _mean(values: Any) -> float:
    values = np.asarray(values, dtype=float)
    values = values[~np.isnan(values)]
    return float(values.mean()) if len(values) else float("nan")
