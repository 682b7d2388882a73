"""What a run leaves behind: predictions in, every score derived.

A ``Result`` is one seed of one experiment. It stores what the learner predicted for each test image after
each learning stage; accuracy, forgetting, transfer, confusion and the rest are computed from that, so a new
metric never needs a new run. Several seeds are a plain list of results, saved together as one *record*: a
JSON file that a human can read and an npz file of arrays. Nothing here imports torch.

Notation: T tasks, R learning stages (R = T, except for joint training, which has one stage), K classes, N
test images. Classes are numbered by order of arrival. All scores are fractions in [0, 1]; NaN marks what is
undefined.
"""

import json
import math
import os
import tempfile
from collections import namedtuple
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

FORMAT = 1
_ARRAYS = (
    "seen",
    "labels",
    "predictions",
    "within",
    "rank",
    "learn_seconds",
    "test_seconds",
    "drawn",
    "parameters",
)


class ResultError(ValueError):
    """A saved result that cannot be used; the message says why and what to do."""


@dataclass
class Result:
    """One seed of one experiment.

    about: what was run (experiment, method, benchmark, preset, config, seed, stream, versions, device,
        threads, commit, date, key).
    sizes: classes per task, (T,).   names: display name of each class, (K,).   groups: superclass of each
    class or None.
    seen: (R,) number of classes seen after each stage.   labels: (N,) true classes of the test images.
    predictions: (R, N) the highest-scored class among those seen; -1 where the true class is not seen yet.
    within: (R + 1, N) the highest-scored class among those of the image's own task (the task-aware answer);
        row 0 is the learner before any learning; -1 where it had no score for those classes.
    rank: (R, N) how many seen classes scored above the true one (0: right); -1 where unseen.
    learn_seconds, test_seconds: (R,) wall-clock time.   drawn: (R,) training images drawn.   parameters: (R,)
    count.
    kept: kind of memory -> (R,) bytes that the learner keeps when a stage is over.
    trace: table -> column -> rows, in the order they were reported.
    """

    about: dict
    sizes: tuple
    names: list
    groups: list | None
    seen: np.ndarray
    labels: np.ndarray
    predictions: np.ndarray
    within: np.ndarray
    rank: np.ndarray
    learn_seconds: np.ndarray
    test_seconds: np.ndarray
    drawn: np.ndarray
    parameters: np.ndarray
    kept: dict = field(default_factory=dict)
    trace: dict = field(default_factory=dict)

    # ---- which image belongs where

    @property
    def tasks(self):
        """T, the number of tasks."""
        return len(self.sizes)

    @property
    def task_of(self):
        """(N,) task of each test image."""
        return np.searchsorted(np.cumsum(self.sizes), self.labels, side="right")

    def _per_task(self, right, known):
        """(rows, T) mean of `right` (rows, N) over each task's images, NaN where not `known`, (rows, N)."""
        table = np.full((len(right), self.tasks), np.nan)
        for j in range(self.tasks):
            mine = self.task_of == j
            for i in range(len(right)):
                if mine.any() and known[i, mine].all():
                    table[i, j] = right[i, mine].mean()
        return table

    # ---- accuracy

    def accuracy(self):
        """(R, T) class-incremental accuracy a[i, j] on task j after stage i, among the classes seen."""
        return self._per_task(self.predictions == self.labels, self.predictions >= 0)

    def within_accuracy(self):
        """(R, T) task-aware accuracy: the choice is only among the classes of the image's own task."""
        return self._per_task(self.within[1:] == self.labels, self.within[1:] >= 0)

    def start_accuracy(self):
        """(T,) task-aware accuracy before any learning, the b of forward transfer."""
        return self._per_task(self.within[:1] == self.labels, self.within[:1] >= 0)[0]

    def averages(self, over="tasks"):
        """(R,) average accuracy after each stage.

        over="tasks": mean of the tasks' accuracies (Chaudhry et al. 2018, section 3: A_k), the usual one;
        over="images": share of all test images seen so far that are right. They differ when tasks differ in
        size.
        """
        if over == "tasks":
            return np.array([np.nanmean(row) for row in self.accuracy()])
        if over == "images":
            return np.array([(p == self.labels)[p >= 0].mean() for p in self.predictions])
        raise ValueError(f"over must be 'tasks' or 'images', not {over!r}")

    def average(self, over="tasks"):
        """Average accuracy after the last stage."""
        return float(self.averages(over)[-1])

    def incremental(self, over="tasks"):
        """Average incremental accuracy: mean of `averages` over stages (Rebuffi et al. 2017, section 4)."""
        return float(self.averages(over).mean())

    def within_average(self):
        """Mean over the tasks learned of the task-aware accuracy after the last stage."""
        row, learned = self.within_accuracy()[-1], np.cumsum(self.sizes) <= self.seen[-1]
        return float(row[learned].mean())

    # ---- change over time

    def forgetting_per_task(self):
        """(T,) f_j = max over earlier stages of a[i, j], minus a[last, j]; NaN for the task learned last.

        Chaudhry et al. 2018, section 3, equation 3. Negative where a task was never better than at the end.
        """
        a = self.accuracy()
        drop = np.full(self.tasks, np.nan)
        for j in range(self.tasks):
            before = a[:-1, j][~np.isnan(a[:-1, j])]
            if len(before):
                drop[j] = before.max() - a[-1, j]
        return drop

    def forgetting(self):
        """Mean of `forgetting_per_task` over all tasks but the last; NaN with a single stage."""
        return _mean(self.forgetting_per_task())

    def backward_transfer(self):
        """Mean of a[last, j] - a[j, j] over tasks but the last (Lopez-Paz and Ranzato 2017, section 2)."""
        a = self.accuracy()
        return _mean([a[-1, j] - a[j, j] for j in range(len(a) - 1)])

    def forward_transfer(self):
        """Mean over tasks j > 0 of the task-aware accuracy before learning j, minus the untrained one.

        Lopez-Paz and Ranzato 2017, section 2, with task-aware accuracies: a class not seen yet can never be
        the class-incremental answer. NaN for learners that have no score for classes still to come.
        """
        w, b = self.within_accuracy(), self.start_accuracy()
        gains = np.array([w[j - 1, j] - b[j] for j in range(1, len(w))])
        return float(gains.mean()) if len(gains) else float("nan")

    # ---- finer views

    def top(self, k):
        """(R,) share of the images seen so far whose true class is among the k highest scores."""
        return np.array([(r < k)[r >= 0].mean() for r in self.rank])

    def per_class(self, stage=-1):
        """(K,) accuracy of each class after a stage, NaN where not seen."""
        p = self.predictions[stage]
        return np.array([_mean((p == c)[(self.labels == c) & (p >= 0)]) for c in range(sum(self.sizes))])

    def confusion(self, stage=-1):
        """(K_seen, K_seen) counts after a stage: row = true class, column = predicted class."""
        k, p = int(self.seen[stage]), self.predictions[stage]
        known = p >= 0
        return np.bincount(self.labels[known] * k + p[known], minlength=k * k).reshape(k, k)

    def newest_share(self, stage=-1):
        """Share of the predictions after a stage on the newest task's classes (of joint training: the last)."""
        p = self.predictions[stage]
        first = (
            int(self.seen[stage]) - self.sizes[int(np.searchsorted(np.cumsum(self.sizes), self.seen[stage]))]
        )
        return float((p[p >= 0] >= first).mean())

    def samples_per_second(self):
        """Over the whole run, {"learn": training images drawn per second, "test": test images scored}."""
        tested = (self.predictions >= 0).sum()
        return {"learn": float(self.drawn.sum() / max(self.learn_seconds.sum(), 1e-9)),
                "test": float(tested / max(self.test_seconds.sum(), 1e-9))}


def _mean(values):
    values = np.asarray(values, dtype=float)
    values = values[~np.isnan(values)]
    return float(values.mean()) if len(values) else float("nan")


# ---- several seeds

class Interval(namedtuple("Interval", "mean half n kind")):
    """A mean over n seeds and the half-width of its interval, both as fractions; `half` is NaN for n = 1."""

    def __str__(self):
        if math.isnan(self.mean):
            return "undefined"
        if self.n < 2:
            return f"{100 * self.mean:.2f} (n = {self.n})"
        return f"{100 * self.mean:.2f} ± {100 * self.half:.2f} ({self.kind}, n = {self.n})"


def interval(values, level=0.95):
    """Mean and Student-t confidence interval of independent values, such as one score per seed.

    values: (n,) numbers.   level: coverage in (0, 1).   Returns an Interval; half-width t * s / sqrt(n), s
    with n - 1.
    """
    values = np.asarray(values, dtype=float)
    if not 0 < level < 1:
        raise ValueError(f"level must lie between 0 and 1, such as 0.95, not {level}")
    n, kind = len(values), f"{100 * level:g} % t-interval"
    if n < 2:
        return Interval(float(values.mean()) if n else float("nan"), float("nan"), n, kind)
    from scipy.special import stdtrit  # comes with scikit-learn; not worth loading to read a record

    half = stdtrit(n - 1, 0.5 + level / 2) * values.std(ddof=1) / math.sqrt(n)
    return Interval(float(values.mean()), float(half), n, kind)


def _spread(values):
    i = interval(values)
    return {
        "mean": _json(i.mean),
        "interval": None if math.isnan(i.half) else [i.mean - i.half, i.mean + i.half],
        "kind": i.kind,
        "n": i.n,
        "per_seed": [_json(v) for v in values],
    }


def _json(number):
    """NaN has no place in JSON: null."""
    return None if math.isnan(number) else float(number)


def summary(results):
    """Several seeds of one experiment as plain values: what ``python -m clkit run --json`` prints."""
    if not results:
        raise ResultError("there are no results to summarise; give at least one")
    about = results[0].about
    with np.errstate(all="ignore"):
        matrix = np.mean([r.accuracy() for r in results], axis=0)
    return {
        **{k: about.get(k) for k in ("experiment", "preset", "config", "stream")},
        "seeds": [r.about["seed"] for r in results],
        "average_accuracy": _spread([r.average() for r in results]),
        "average_accuracy_over_images": _spread([r.average("images") for r in results]),
        "forgetting": _spread([r.forgetting() for r in results]),
        "within_task_accuracy": _spread([r.within_average() for r in results]),
        "backward_transfer": _spread([r.backward_transfer() for r in results]),
        "forward_transfer": _spread([r.forward_transfer() for r in results]),
        "accuracy_matrix": [[_json(v) for v in row] for row in matrix],
        "memory_bytes": {kind: int(v[-1]) for kind, v in results[0].kept.items()},
        "parameters": int(results[0].parameters[-1]),
        "seconds": {
            "learn": float(sum(r.learn_seconds.sum() for r in results)),
            "test": float(sum(r.test_seconds.sum() for r in results)),
            "per_seed": [float(r.learn_seconds.sum() + r.test_seconds.sum()) for r in results],
        },
        "samples_per_second": {
            what: float(np.mean([r.samples_per_second()[what] for r in results]))
            for what in ("learn", "test")
        },
        "device": about.get("device"),
        "versions": about.get("versions"),
        "key": about.get("key"),
        "commit": about.get("commit"),
        "date": about.get("date"),
    }


# ---- on disk

def write_atomically(path, write):
    """Call write(binary file) on a temporary file and rename it: `path` is whole or absent, never half.

    A failure (a full disk, say) leaves what stood at `path` before and no temporary file.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(name, 0o644)                          # mkstemp makes files that only the owner may read
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def pack_trace(trace):
    """Tables as flat arrays for an npz: rows of equal shape stacked, others end to end."""
    flat = {}
    for table, columns in trace.items():
        for column, rows in columns.items():
            rows = rows if isinstance(rows, np.ndarray) else [np.asarray(r) for r in rows]
            if isinstance(rows, np.ndarray) or len({(r.shape, r.dtype) for r in rows}) == 1:
                flat[f"{table}/{column}"] = np.asarray(rows)
            else:
                flat[f"{table}/{column}#values"] = np.concatenate([r.ravel() for r in rows])
                flat[f"{table}/{column}#shapes"] = np.array([" ".join(map(str, r.shape)) for r in rows])
    return flat


def unpack_trace(flat):
    """The inverse of `pack_trace`: table -> column -> array (rows, ...) or list of arrays."""
    trace = {}
    for key, values in flat.items():
        table, column = key.rsplit("/", 1)
        column, _, part = column.partition("#")
        if part == "shapes":
            continue
        if part == "values":
            shapes = [tuple(map(int, s.split())) for s in flat[f"{table}/{column}#shapes"].tolist()]
            ends = np.cumsum([math.prod(s) for s in shapes])[:-1]
            values = [v.reshape(s) for v, s in zip(np.split(values, ends), shapes)]
        trace.setdefault(table, {})[column] = values
    return trace


def save(results, stem):
    """Write seeds of one experiment as the record stem.json + stem.npz (small: no weights, no images).

    The JSON holds what was run and the headline scores; the npz holds the arrays. Returns the JSON's path.
    """
    stem = Path(stem)
    arrays, heads = {}, []
    for n, r in enumerate(results):
        arrays |= {f"{n}/{a}": getattr(r, a) for a in _ARRAYS}
        arrays |= {f"{n}/kept/{k}": v for k, v in r.kept.items()}
        arrays |= {f"{n}/trace/{k}": v for k, v in pack_trace(r.trace).items()}
        heads.append({"about": r.about, "sizes": list(r.sizes), "names": list(r.names), "groups": r.groups})
    short = {k: v for k, v in summary(results).items() if k not in ("config", "stream", "versions", "key")}
    text = (
        json.dumps({"format": FORMAT, "summary": short, "results": heads}, indent=1, ensure_ascii=False)
        + "\n"
    )
    write_atomically(stem.with_name(stem.name + ".npz"), lambda f: np.savez_compressed(f, **arrays))
    write_atomically(stem.with_name(stem.name + ".json"), lambda f: f.write(text.encode()))
    return stem.with_name(stem.name + ".json")


def load(stem):
    """Read a record: a list of Results, one a seed. ResultError if it is absent or damaged."""
    stem = Path(stem)
    stem = stem.with_suffix("") if stem.suffix in (".json", ".npz") else stem
    both = [stem.with_name(stem.name + end) for end in (".json", ".npz")]
    for path in both:
        if not path.is_file():
            raise ResultError(
                f"there is no result at {path}: a record is a .json and an .npz of the same name"
            )
    try:
        heads = json.loads(both[0].read_text(encoding="utf-8"))
        if heads["format"] != FORMAT:
            raise ResultError(
                f"{both[0]} has record format {heads['format']}, this clkit reads {FORMAT}: run it again"
            )
        with np.load(both[1], allow_pickle=False) as arrays:
            return [_read(head, n, arrays) for n, head in enumerate(heads["results"])]
    except ResultError:
        raise
    except Exception as error:  # json, zip and numpy each raise their own
        raise ResultError(
            f"the result at {stem} is damaged ({type(error).__name__}): delete it and run it again"
        )


def _read(head, n, arrays):
    def under(prefix):
        return {k[len(prefix):]: arrays[k] for k in arrays.files if k.startswith(prefix)}
    return Result(head["about"], tuple(head["sizes"]), head["names"], head["groups"],
                  **{a: arrays[f"{n}/{a}"] for a in _ARRAYS},
                  kept=under(f"{n}/kept/"), trace=unpack_trace(under(f"{n}/trace/")))
