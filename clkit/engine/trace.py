"""Trace: what a method reports while it learns, and loops that can be stopped and resumed.

A method receives a trace and uses it in these ways:

    trace("mask", epoch=e, layer=i, values=m)
        adds a row to a named table, which is kept only on request

    for epoch in trace.epochs("classifier", n, optimizer):
        the method's own loop, with a progress bar and checkpoints

    for x, y in trace.steps("online", batches, optimizer):
        the same for a loop over batches

How a run resumes. A checkpoint holds the final state of each finished loop of the current task, the position
and state of the unfinished loop, and the rows reported so far. To resume, ``learn`` runs again from its first
line, with the learner and the seed from the beginning of the task: a finished loop yields nothing and loads
its final state, so code between two loops sees the same weights as before; the unfinished loop skips to its
position, loads its state, and continues. On one machine the result is bit for bit that of an uninterrupted
run.

What this requires of a method: everything that changes inside a loop is a parameter or buffer of the learner,
or belongs to an object named in the loop (anything with ``state_dict`` and ``load_state_dict``: an optimizer,
a scheduler, a small record for early stopping), never a local variable; loops follow one another and never
nest.
"""

from __future__ import annotations

import html
import math
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from clkit.engine import parallel
from clkit.engine.device import lacks_memory
from clkit.engine.evaluate import eval_mode
from clkit.engine.seeding import random_state, set_random_state
from clkit.errors import ClkitError

if TYPE_CHECKING:
    from clkit.engine.learner import Learner
    from clkit.engine.shared import Shared

State = dict[str, Any]  # of a checkpoint, or of one loop in it
Rows = dict[str, dict[str, Any]]  # table -> column -> rows
CHANGED = "the method has changed since then; start the run again in another folder"


class TraceError(ClkitError):
    """A method used its trace in a way that cannot be recorded or resumed; the message gives the cure."""


class Stopped(KeyboardInterrupt):
    """Raised after an epoch or step and its checkpoint, when the user has asked the run to stop."""


# ---- copies


def copied(value: Any, where: str = "a checkpoint") -> Any:
    """A deep copy of a state on the CPU, made only of types that ``torch.load(weights_only=True)`` accepts.

    state_dict() returns references and load_state_dict() keeps the ones it receives, so both need a copy.
    """
    if isinstance(value, torch.Tensor):
        return value.detach().to("cpu", copy=True)
    if isinstance(value, np.ndarray | np.generic):
        return value.item() if value.ndim == 0 else torch.from_numpy(np.array(value))
    if isinstance(value, Mapping):
        return {k: copied(v, where) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return (tuple if type(value) is tuple else list)(copied(v, where) for v in value)
    if value is None or isinstance(value, bool | int | float | str | bytes | torch.device | torch.dtype):
        return value
    kind = type(value).__name__
    raise TraceError(f"{where} cannot hold a {kind}: use numbers, text, tensors, lists and dictionaries")


def _cell(value):
    """A copy of a value, safe from later changes; tensors stay on their device until the task ends."""
    if isinstance(value, torch.Tensor):  # numpy has no bfloat16
        return value.detach().float() if value.dtype == torch.bfloat16 else value.detach().clone()
    return value if isinstance(value, str) else np.array(value)


def _column(values):
    """Rows of a column as an array (rows, ...) if their shapes agree, else as a list.

    Tensors that are alike need one device transfer. Rows from a checkpoint are tensors on the CPU, whatever
    they were, and end as they would have without it.
    """
    tensors = all(isinstance(v, torch.Tensor) for v in values)
    if tensors and len({(v.shape, v.dtype, v.device) for v in values}) == 1:
        return torch.stack(values).cpu().numpy()
    values = [v.cpu().numpy() if isinstance(v, torch.Tensor) else np.asarray(v) for v in values]
    return np.array(values) if len({v.shape for v in values}) == 1 else values


# ---- the trace


class Trace:
    """Named tables, progress bars and checkpoints of one run.

    record: patterns of the tables to record, such as ("loss", "mask*"); nothing is kept by default.
    probes: {table pattern: {column: function of the learner}}; each is evaluated at every row of a matching
        table, without affecting the run, and stored as a further column. A table with a probe is kept.
    save: function(state) that stores a checkpoint, every `every` seconds, after an epoch or step.
    shared: where to find and store loops that several runs train alike; it needs `save`.
    progress: show bars; None means only in a terminal or a notebook ($CLKIT_PROGRESS=0 or 1 overrides).

    ``Trace()`` keeps and saves nothing, which is enough to call ``learner.learn(task, Trace())`` by hand.
    """

    def __init__(
        self,
        record: str | Iterable[str] = (),
        probes: Mapping[str, Mapping[str, Callable]] | None = None,
        *,
        save: Callable[[State], None] | None = None,
        every: float = 60.0,
        shared: Shared | None = None,
        progress: bool | None = None,
    ) -> None:
        self.record = (record,) if isinstance(record, str) else tuple(record)
        self.probes = dict(probes or {})
        self.tables: Rows = {}  # of all finished tasks: lists of arrays, one per task
        self.stop = False  # set it to stop after the current epoch or step
        self._save, self._every, self.shared = save, every, shared
        self._progress = _wants_progress() if progress is None else progress
        self.asked: dict[str, bool] = {}  # whether rows are kept of each table that a method has named
        self.begin(None, 0)

    # -- a task begins and ends (called by run)

    def begin(
        self,
        learner: Learner | None,
        task: int,
        *,
        label: str = "",
        clock: Any = None,
        state: State | None = None,
        data: State | None = None,
    ) -> None:
        """Prepare for ``learner.learn`` of task number `task`.

        state: the checkpoint to resume from, if any.   clock: an object with state_dict and load_state_dict
        that is saved and restored with every checkpoint, and whose numbers those of a shared loop are added
        to.   data: JSON values that identify the images of the task, for shared loops.
        """
        self.learner, self.task, self.label, self.clock, self.data = learner, task, label, clock, data
        self._finished, self._open, self._offered, self._loss = [], None, None, None
        self._last = time.monotonic()
        self._stored = [*state["finished"], state["unfinished"]] if state else []  # loops to reach again
        self._live = not self._stored
        self._rows = _each_column(list, state["rows"] if state else {})

    @property
    def taken(self) -> list[State]:
        """The loops of this task that another run trained, as JSON values: which, by which run, seconds."""
        return [state["taken"] for state in self._finished if "taken" in state]

    def end(self) -> Rows:
        """End the task: move its rows to the CPU and return them as table -> column -> rows."""
        if not self._live:
            raise TraceError(
                "the checkpoint lies in a loop that learn() did not reach again: learn() must take the same "
                "path each time it runs on the same learner with the same seed"
            )
        rows, self._rows = _each_column(_column, self._rows), {}
        for table, columns in rows.items():
            for column, values in columns.items():
                self.tables.setdefault(table, {}).setdefault(column, []).append(values)
        return rows

    # -- rows

    def __call__(self, table: str, **columns: Any) -> None:
        """Report a row of numbers, text, arrays or tensors (copied on their device; shapes may vary by row).

        The progress bar shows the latest value of a column named `loss`, in any table.
        """
        if "loss" in columns:
            self._loss = columns["loss"]
        if not self.wants(table) or not self._live:
            return
        for pattern, probes in self.probes.items():
            if fnmatchcase(table, pattern) and self.learner is not None:
                with eval_mode(self.learner), parallel.whole():
                    columns |= {name: probe(self.learner) for name, probe in probes.items()}
        rows = self._rows.setdefault(table, {c: [] for c in ("task", *columns)})
        if rows.keys() != {"task", *columns}:
            before = sorted(rows.keys() - {"task"})
            raise TraceError(
                f"a row of table '{table}' has the columns {sorted(columns)}, the rows before it had "
                f"{before}: give every row of a table the same columns"
            )
        rows["task"].append(np.array(self.task))
        for name, value in columns.items():
            rows[name].append(_cell(value))

    def wants(self, table: str) -> bool:
        """Whether rows of this table are kept: check before computing something costly only to report it."""
        if table not in self.asked:
            if "/" in table or "#" in table:
                raise TraceError(
                    f"the table name '{table}' holds '/' or '#': use letters, digits, '-', '_' and '.'"
                )
            self.asked[table] = any(fnmatchcase(table, p) for p in (*self.record, *self.probes))
        return self.asked[table]

    # -- loops

    def epochs(
        self,
        phase: str,
        n: int,
        *objects: Any,
        share: torch.nn.Module | None = None,
        apart: str = "",
        by: str | None = None,
    ) -> Iterator[int]:
        """``for epoch in trace.epochs("classifier", n, optimizer)``: yields 0 .. n-1; ``break`` ends it.

        share: the module of the learner that the loop trains, if runs of other methods or settings may train
        it alike, as the first task often is: one of them trains it, and in the others the loop yields nothing
        and loads its end (`clkit.engine.shared`). So nothing else of the learner may change in it, and it may
        depend only on this module, the objects, settings, the images of the task, and random numbers.
        apart: names of settings, separated by spaces, on which it does not depend.   by: a name of the code
        of the loop, where learners of several classes share it; only learners of one class do otherwise.
        """
        offer = None if share is None or self.shared is None or self._save is None else (share, apart, by)
        return self._loop(phase, range(n), n, objects, "epoch", offer)

    def steps(self, phase: str, batches: Iterable, *objects: Any, total: int | None = None) -> Iterator:
        """``for x, y in trace.steps("online", batches, optimizer)``: yields what `batches` yields.

        To resume, `batches` is iterated again from its beginning, so it must draw the same batches from the
        same random state. total: number of steps for the progress bar, if `batches` has no length.
        """
        if total is None and hasattr(batches, "__len__"):
            total = len(batches)
        return self._loop(phase, batches, total, objects, "step")

    def _loop(self, phase, items, total, objects, unit, offer=None):
        if self._open is not None:
            raise TraceError(
                f"the loop '{phase}' begins inside the loop '{self._open}': loops of a trace follow one "
                f"another and never nest; write the inner one as a plain for loop"
            )
        state = self._stored.pop(0) if self._stored else None
        if state and phase != state["phase"]:
            raise TraceError(
                f"learn() came to the loop '{phase}' where its checkpoint has '{state['phase']}': {CHANGED}"
            )
        if self._stored:  # others follow: this one was finished
            self._load(state, objects)
            self._finished.append(state)
            return
        offered = offer and self.shared.loop(self, phase, total, objects, *offer)
        found = parallel.from_first(lambda: offered and not state and offered.found())
        if found:
            self._take(*found, objects)
            return
        if offered:
            offered.begin(self._rows, state)
        self._open, self._offered = phase, offered
        iterator, done = iter(items), state["done"] if state else 0
        for _ in range(done):
            if next(iterator, self) is self:
                raise TraceError(
                    f"the loop '{phase}' has fewer rounds than its checkpoint, {done}: {CHANGED}"
                )
        if state:
            self._load(state, objects)
            if self.clock is not None:
                self.clock.load_state_dict(state["clock"])
            self._live = True
        bar = self._bar(phase, total, done, unit)
        try:
            for item in iterator:
                yield item
                done += 1
                if bar is not None and bar.update(1):
                    self._show_loss(bar)
                self._boundary(phase, done, objects)
        except GeneratorExit:
            # `break` in the method: the loop ends as it does after its last item. (An error also leads here,
            # but then nothing more is saved.)
            self._close(phase, done, objects)
            raise
        finally:
            if bar is not None:
                bar.close()
        self._close(phase, done, objects)
        if offered:  # not after a `break`, which looks like an error
            offered.store(self._finished[-1], _each_column(_settle, self._rows))

    def _boundary(self, phase, done, objects):
        parallel.keep_alike(self.learner)
        self.stop = parallel.agreed(self.stop)
        if self._save is not None and (self.stop or time.monotonic() - self._last >= self._every):
            rows, unfinished = _each_column(_settle, self._rows), self._state(phase, done, objects)
            if self._offered:
                unfinished["begun"] = self._offered.beginning()
            self._save({"finished": self._finished, "unfinished": unfinished, "rows": rows})
            self._last = time.monotonic()
        if self.stop:
            raise Stopped(f"stopped in task {self.task}, loop '{phase}', after {done} rounds")

    def _close(self, phase, done, objects):
        self._open = None
        if self._save is not None:
            self._finished.append(self._state(phase, done, objects))

    def _state(self, phase, done, objects) -> State:
        where = f"the checkpoint of loop '{phase}'"
        return {
            "phase": phase,
            "done": done,
            "learner": self.learner.snapshot(),
            "objects": [copied(o.state_dict(), where) for o in objects],
            "clock": copied(self.clock.state_dict(), where) if self.clock else None,
            "random": random_state(),
        }

    def _load(self, state: State, objects):
        if len(objects) != len(state["objects"]):
            raise TraceError(
                f"the loop '{state['phase']}' names {len(objects)} objects, its checkpoint "
                f"{len(state['objects'])}: {CHANGED}"
            )
        try:
            self.learner.restore(state["learner"])
            for thing, saved in zip(objects, state["objects"]):
                thing.load_state_dict(copied(saved))
            set_random_state(state["random"])  # last: loading may draw
        except (AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
            if lacks_memory(error) or isinstance(error, ClkitError):
                raise
            raise TraceError(
                f"the checkpoint of the loop '{state['phase']}' cannot be loaded ({error}): {CHANGED}"
            ) from error

    def _take(self, found: State, rows: Rows, objects):
        """End a loop that begins now as another run has ended it, whose rows and clock these are."""
        self._load(found, objects)
        for table, columns in rows.items():
            for column, values in columns.items():
                self._rows.setdefault(table, {}).setdefault(column, []).extend(values)
        clock = self.clock.state_dict()
        self.clock.load_state_dict({k: v + found["clock"][k] for k, v in clock.items()})
        self._finished.append(found)

    # -- progress

    def _bar(self, phase, total, done, unit):
        if not self._progress:
            return None
        from tqdm import tqdm

        look = {"leave": False, "mininterval": 0.5}
        look |= {"file": _Line.here(), "ncols": 80} if _in_notebook() else {"dynamic_ncols": True}
        return tqdm(total=total, initial=done, desc=f"{self.label}{phase}", unit=unit, **look)

    def _show_loss(self, bar):
        """Called after the bar is drawn, at most twice a second."""
        if self._loss is not None:
            loss = float(self._loss)
            bar.set_postfix_str(f"loss {loss:.4g}" if math.isfinite(loss) else f"loss {loss}", refresh=False)


def _each_column(change: Callable, tables: Rows) -> Rows:
    return {table: {c: change(v) for c, v in columns.items()} for table, columns in tables.items()}


def _settle(values):
    """A copy of the list of rows, after moving them to the CPU in place, so that this is done only once."""
    for i, v in enumerate(values):
        if isinstance(v, torch.Tensor):
            values[i] = v.cpu()
        elif isinstance(v, np.ndarray):
            values[i] = torch.from_numpy(v)
    return list(values)


class _Line:
    """A file for progress bars in a notebook: one line of text per cell, empty after the last bar.

    It is not a widget, which would stay in the saved notebook and fail there without its kernel.
    """

    encoding = "utf-8"
    latest = (None, None)  # (number of the cell, its line)

    def __init__(self):
        display = sys.modules["IPython.display"].display  # always loaded in a notebook
        self.display = display({"text/html": "", "text/plain": ""}, raw=True, display_id=True)

    @classmethod
    def here(cls):
        """The line of the current cell."""
        cell = sys.modules["IPython"].get_ipython().execution_count
        if cls.latest[0] != cell:
            cls.latest = (cell, cls())
        return cls.latest[1]

    def write(self, text):
        # HTML: the front end puts it in the place of the line before, in one piece.
        text = text.strip()
        page = f"<pre>{html.escape(text)}</pre>" if text else ""
        self.display.update({"text/html": page, "text/plain": text}, raw=True)

    def flush(self):
        pass


def _in_notebook() -> bool:
    modules = sys.modules
    return "ipykernel" in modules and "IPython" in modules and modules["IPython"].get_ipython() is not None


def _wants_progress() -> bool:
    wish = os.environ.get("CLKIT_PROGRESS", "").strip()
    if wish not in ("", "0", "1"):
        raise TraceError(f"the environment variable CLKIT_PROGRESS must be 0 or 1, not {wish!r}: change it")
    if wish:
        return wish == "1"
    return _in_notebook() or (sys.stderr is not None and sys.stderr.isatty())
