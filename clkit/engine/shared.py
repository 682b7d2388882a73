"""Loops that several runs train alike: the first run that comes to one trains it, the others take its end.

The first task is half of the work of many methods, and several of them train it in the same way. A method
says so where such a loop begins (`share` in Trace.epochs). A run that has a folder of shared loops then looks
for the file KEY.pt in it. The key is a sha256 of all that the end of the loop follows from:

    code       the source of clkit, the learner's revision, the class of the learner or the name given as
               `by`, the name of the loop, the number of its epochs
    settings   those of the learner, but for those that the method sets `apart` as without effect
    images     the facts of the stream as far as this task
    beginning  the states of the module that the loop trains, of its objects (optimizers), and of the random
               numbers
    machine    device, threads, CPU, versions

So equal keys mean equal computations, and on a CPU, taking a loop gives, bit for bit, what training it gives.
The file holds the end of the module, of the objects and of the random numbers, the rows that were reported,
the seconds, and which run trained it. Only a loop that ran to its end is stored, in a sealed file that is
written whole or not at all (`clkit.engine.checkpoint`): processes that train the same loop at the same time
only replace each other's equal file. The files can be deleted at any time. One that cannot be read or written
costs a sentence on standard error, and the training of the loop.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import os
import sys
import time
from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import torch
from torch import nn

from clkit.engine.checkpoint import check_loop, load_tensors, reading, seal, unseal
from clkit.engine.learner import Learner
from clkit.engine.provenance import Facts, plain
from clkit.engine.seeding import random_state
from clkit.engine.trace import Trace, TraceError, copied
from clkit.errors import ClkitError
from clkit.result import PART

HOUR = 3600.0  # seconds
NAMED, LISTED = ("parameters", "buffers"), ("frozen", "eval")  # what a snapshot of a learner consists of


def _source() -> str:
    """sha256 (hex) of the source that loops are made of."""
    digest, package = hashlib.sha256(), Path(__file__).resolve().parents[1]
    for part in ("blocks", "data", "engine", "methods"):
        for path in sorted((package / part).rglob("*.py")):
            digest.update(path.relative_to(package).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


SOURCE = _source()  # on import: a file that is edited later is not the code that runs


class Shared:
    """The folder of shared loops, for one run.

    facts: JSON values of the run that decide what its loops compute.   maker: JSON values that say which run
    this is, for the results of those that take a loop of it.
    """

    def __init__(self, folder: str | Path, facts: Facts, maker: Facts) -> None:
        self.folder, self.facts, self.maker = Path(folder), plain(facts), plain(maker)

    def loop(
        self,
        trace: Trace,
        phase: str,
        n: int,
        objects: Iterable,
        share: nn.Module,
        apart: str = "",
        by: str | None = None,
    ) -> SharedLoop:
        """A loop of n epochs that begins now. The other arguments are those of Trace.epochs."""
        learner, numbers = trace.learner, random_state()
        at, snapshot = _place(learner, share, phase), learner.snapshot()
        part, rest = _parted(snapshot, at)
        code = [SOURCE, by or f"{type(learner).__module__}.{type(learner).__qualname__}", phase, n]
        code += [_given(learner.config, apart, phase), self.facts, trace.data]
        states = [(type(o).__qualname__, copied(o.state_dict())) for o in objects]
        return SharedLoop(self, trace, phase, at, _digest([code, part, states, numbers]), _digest(rest))


@dataclasses.dataclass
class SharedLoop:
    """A loop that a method offers to other runs."""

    shared: Shared
    trace: Trace
    phase: str
    at: str  # the name of the module in the learner
    key: str
    rest: str  # digest of what the learner is beside the module, which the loop must not change
    begun: Facts | None = None  # see `begin`

    @property
    def file(self) -> Path:
        return self.shared.folder / f"{self.key}.pt"

    # -- taking

    def found(self) -> tuple[Facts, Facts] | None:
        """(the end of the loop, as of a finished one in a checkpoint; its rows) if another run has stored it.

        None too if the file lacks a table that this run records, or if probes of this run look at one.
        """
        if not os.path.exists(self.file):
            return None
        try:
            with reading(self.file, "it will be replaced"):
                head, payload = unseal(self.file)
                if head["key"] != self.key:
                    raise ValueError("it is the file of another loop")
                end = load_tensors(payload)
                wanted = [table for table in end["asked"] if self.trace.wants(table)]
                if not set(wanted) <= set(end["kept"]) or any(map(self._is_probed, wanted)):
                    return None
                taken = {"task": self.trace.task, "loop": self.phase, **head["maker"]}
                taken["seconds"] = end["clock"]["learn_seconds"]
                state = {k: end[k] for k in ("phase", "done", "objects", "clock", "random")}
                state |= {"learner": self._whole(end["learner"]), "taken": taken}
                check_loop(state)
                return state, {table: end["rows"][table] for table in wanted if table in end["rows"]}
        except ClkitError as error:
            print(f"the loop '{self.phase}' is trained, not taken: {error}", file=sys.stderr)
            return None

    def _whole(self, part):
        """A snapshot of the learner in which the module is as in `part`."""
        _, rest = _parted(self.trace.learner.snapshot(), self.at)
        back = {kind: {_joined(self.at, k): v for k, v in part[kind].items()} for kind in NAMED}
        lists = {kind: rest[kind] + [_joined(self.at, name) for name in part[kind]] for kind in LISTED}
        return {kind: rest[kind] | back[kind] for kind in NAMED} | lists

    # -- giving

    def begin(self, rows: Facts, state: Facts | None) -> None:
        """The loop begins, or goes on from a checkpoint, `state`, which says how it began.

        rows: of the task so far. A loop that was not offered when it began is not stored at its end.
        """
        if state is None:
            count = {table: len(columns["task"]) for table, columns in rows.items()}
            self.begun = {"clock": self.trace.clock.state_dict(), "rows": count, "asked": []}
        else:
            self.begun = state.get("begun")

    def beginning(self) -> Facts | None:
        """What `begin` takes from a checkpoint."""
        return self.begun and self.begun | {"asked": self._asked()}

    def _asked(self):
        """The tables that the method has named so far, also before a process was killed."""
        return sorted({*self.trace.asked, *self.begun["asked"]})

    def store(self, end: Facts, rows: Facts) -> None:
        """Store the finished loop, unless probes looked at it, which other runs do not have.

        end: as of a finished loop in a checkpoint.   rows: of the task so far. TraceError if the loop has
        changed more of the learner than the module.
        """
        part, rest = _parted(end["learner"], self.at)
        if _digest(rest) != self.rest:
            raise TraceError(
                f"the loop '{self.phase}' is shared as the training of '{self.at}', but changes more of the "
                f"learner than that: share a module that holds all that changes, or nothing"
            )
        if self.begun is None:
            return
        count = self.begun["rows"]
        rows = {t: {c: v[count.get(t, 0) :] for c, v in columns.items()} for t, columns in rows.items()}
        rows = {table: columns for table, columns in rows.items() if columns["task"]}
        if any(map(self._is_probed, rows)):
            return
        end = {k: end[k] for k in ("phase", "done", "objects", "random", "clock")} | {"learner": part}
        end["clock"] = {k: v - self.begun["clock"][k] for k, v in end["clock"].items()}
        asked = self._asked()
        end |= {"rows": rows, "asked": asked, "kept": [table for table in asked if self.trace.wants(table)]}
        try:
            _sweep(self.shared.folder)
            head = {"key": self.key, "maker": self.shared.maker}
            seal(self.file, head, lambda file: torch.save(end, file))
        except ClkitError as error:  # a full disk, say: the run itself goes on
            print(f"the loop '{self.phase}' is not shared: {error}", file=sys.stderr)

    def _is_probed(self, table):
        return any(fnmatchcase(table, pattern) for pattern in self.trace.probes)


def _sweep(folder: Path):
    """Remove what processes that were killed while they wrote have left; one may be writing now."""
    for path in folder.glob(f".*{PART}"):
        with contextlib.suppress(OSError):
            if time.time() - path.stat().st_mtime > HOUR:
                path.unlink()


# ---- parts of a snapshot


def _place(learner: Learner, module: nn.Module, phase: str) -> str:
    """The name of a module in a learner, "" for the learner itself."""
    for name, there in learner.named_modules():
        if there is module:
            return name
    raise TraceError(f"the loop '{phase}' shares a module that is not part of the learner: give one that is")


def _parted(snapshot: Facts, at: str) -> tuple[Facts, Facts]:
    """(what a snapshot says of the module of this name, by names within it; what it says of the rest)."""
    start = at and f"{at}."

    def inside(name):
        return name == at or name.startswith(start)

    part = {kind: {k[len(start) :]: v for k, v in snapshot[kind].items() if inside(k)} for kind in NAMED}
    part |= {kind: [k[len(start) :] for k in snapshot[kind] if inside(k)] for kind in LISTED}
    rest = {kind: {k: v for k, v in snapshot[kind].items() if not inside(k)} for kind in NAMED}
    return part, rest | {kind: [k for k in snapshot[kind] if not inside(k)] for kind in LISTED}


def _joined(at: str, name: str) -> str:
    return f"{at}.{name}" if at and name else at or name


def _given(config: Any, apart: str, phase: str) -> Facts:
    """The settings that a loop may depend on, as JSON values."""
    settings, names = plain(dataclasses.asdict(config)), apart.split()
    if unknown := [name for name in names if name not in settings]:
        raise TraceError(
            f"the loop '{phase}' sets {', '.join(unknown)} apart, no setting of its learner: choose from "
            f"{', '.join(settings)}"
        )
    return {k: v for k, v in settings.items() if k not in names}


# ---- content


def _digest(value: Any) -> str:
    """sha256 (hex) of plain values and tensors."""
    digest = hashlib.sha256()
    _feed(digest, value)
    return digest.hexdigest()


def _feed(digest, value):
    if isinstance(value, torch.Tensor):
        flat = value.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
        digest.update(f"{value.dtype} {tuple(value.shape)}:".encode())
        digest.update(flat.numpy())
    elif isinstance(value, Mapping):
        _feed(digest, list(value.items()))
    elif isinstance(value, list | tuple):
        digest.update(f"{len(value)} of them:".encode())
        for one in value:
            _feed(digest, one)
    else:
        text = repr(value).encode()
        digest.update(f"{len(text)}:".encode() + text)
