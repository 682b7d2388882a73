"""The folder of a run: its lock, its files, and the checks that each file is whole and belongs to the run.

``run.json`` says what is run; ``state.pt`` holds the learner after the last finished stage; ``previous.pt``
what state.pt held before that, until the run is complete; ``stage-<t>.npz`` holds the measurements after
stage t and its trace; ``checkpoint.pt`` is a checkpoint inside the current stage. The ``.pt`` files also name
the processes that worked on the run (see `Folder.computed_by`).

All files but run.json are *sealed*: a line with the sha256 of the rest, a line of JSON that says which run
and stage the file belongs to, then the bytes of torch.save or numpy's savez. A file is made in memory, then
written whole or not at all. A file that is damaged, or belongs to another run, seed or stage, is refused with
a sentence that names what to delete, which is as little as possible. A file that only cannot be read, for
lack of memory or rights or because of the disk, is never called damaged.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import io
import json
import math
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch

from clkit.engine import RunError
from clkit.engine.device import lacks_memory
from clkit.engine.learner import Learner
from clkit.engine.provenance import Facts, plain
from clkit.errors import ClkitError, file_error, lacks_rights
from clkit.result import PART, ResultError, load, pack_trace, save, unpack_trace, write_atomically

_MAGIC = b"clkit 1 "


# ---- a sealed file


def seal(path: Path, head: Facts, write: Callable[[IO[bytes]], Any]) -> None:
    """Write `head` (JSON values) and the output of write(binary file) as one sealed file, or nothing."""
    payload = io.BytesIO()
    write(payload)
    body = json.dumps(head).encode() + b"\n" + payload.getvalue()
    first = _MAGIC + hashlib.sha256(body).hexdigest().encode() + b"\n"
    write_atomically(path, lambda file: file.writelines((first, body)))


def unseal(path: Path) -> tuple[Facts, io.BytesIO]:
    """The head of a sealed file and its payload. ValueError if any bit differs from what was written."""
    first, _, body = path.read_bytes().partition(b"\n")
    if first != _MAGIC + hashlib.sha256(body).hexdigest().encode():
        raise ValueError("its checksum does not fit")
    head, _, payload = body.partition(b"\n")
    return json.loads(head), io.BytesIO(payload)


def load_tensors(payload: io.BytesIO) -> Any:
    """The content that torch.save wrote, on the CPU: tensors and plain values only."""
    return torch.load(payload, map_location="cpu", weights_only=True)


@contextlib.contextmanager
def reading(path: Path, cure: str) -> Iterator[None]:
    """Turn whatever reading a file raises into one sentence; only damage is called damage."""
    try:
        yield
    except FileNotFoundError:
        raise RunError(f"{path} is missing: {cure}") from None
    except OSError as error:
        raise file_error(path, "read", error) from error
    except ClkitError:
        raise
    except Exception as error:  # json, numpy, torch and a learner raise different kinds
        if lacks_memory(error):
            what = f"there is not enough memory to read {path}"
            raise RunError(f"{what}: close other programs, then run the same command again") from error
        raise RunError(f"{path} is damaged: {cure}") from error


# ---- the folder

PATIENCE = 2.0  # seconds to wait for the lock: a process that was killed may still be on its way out
RESULT = ("result.json", "result.npz")


class Folder:
    """The files of one run. Entering takes the folder's lock, so that two processes cannot write into it.

    identity: JSON values that identify the run: they must agree for its files to be resumed; if its "key" is
    None, the run starts anew each time.   process: facts about this process.   computed_by: the facts of all
    processes that have computed parts of the run so far, in order; a process that only reads a finished run
    is not among them, and needs no right to write.
    """

    def __init__(self, path: str | Path, identity: Facts, process: Facts) -> None:
        self.path, self.identity, self.process = Path(path), plain(identity), plain(process)
        self.computed_by: list[Facts] = []
        self.stages = 0  # finished, including the one before any learning
        self._wrote = False

    def __enter__(self) -> Folder:
        with contextlib.ExitStack() as opened:
            try:
                self.path.mkdir(parents=True, exist_ok=True)
                opened.enter_context(lock(self.path))
                for leftover in self.path.glob(f".*{PART}"):  # of a process that was killed
                    leftover.unlink(missing_ok=True)
            except OSError as error:
                if not (lacks_rights(error) and (self.path / RESULT[0]).is_file()):
                    raise file_error(self.path, "written", error) from error
            self._check_identity()
            self._opened = opened.pop_all()
        return self

    def __exit__(self, *error) -> None:
        self._opened.close()

    def _check_identity(self):
        path = self.path / "run.json"
        if path.exists():
            with reading(path, "delete this file and run again"):
                found = json.loads(path.read_bytes())
                there = {**found["identity"]}
                del found["sha256"]
                if path.read_bytes() != _sealed_json(found):
                    raise ValueError("its checksum does not fit")
            if there != self.identity:
                found = _differences(there, self.identity)
                raise RunError(
                    f"the folder {self.path} holds another run ({found}): choose another folder or delete it"
                )
            if self.identity["key"] is not None:
                return
        if self.identity["key"] is None:
            self._start_anew()
        text = _sealed_json({"identity": self.identity, "begun_by": self.process})
        write_atomically(path, lambda file: file.write(text))

    def _start_anew(self):
        """Remove the files of an earlier run, which nobody can tell whether the present code made."""
        notice = f"{self.identity['learner']} uses code that cannot be followed (eval, or a compiled module)"
        print(f"{notice}, so its run in {self.path} starts anew each time", file=sys.stderr)
        for name in ("run.json", "*.pt", "stage-*.npz", *RESULT):
            for file in self.path.glob(name):
                file.unlink()

    def _worked(self) -> list[Facts]:
        """`computed_by`, including this process."""
        if self.computed_by[-1:] != [self.process]:
            self.computed_by.append(self.process)
        return self.computed_by

    # -- finished stages

    def save_stage(self, i: int, stage: Facts, rows: Facts, model: Learner) -> None:
        """Store finished stage i: its measurements, its trace and the learner."""
        state = self.path / "state.pt"
        arrays = {k: np.asarray(v) for k, v in stage.items()}
        arrays |= {f"trace/{k}": v for k, v in pack_trace(rows).items()}
        head = {"run": self.identity, "stage": i}
        seal(self.path / f"stage-{i}.npz", head, lambda file: np.savez_compressed(file, **arrays))
        head = {"run": self.identity, "stages": i + 1, "computed_by": self._worked()}
        with contextlib.suppress(FileNotFoundError):
            os.replace(state, self.path / "previous.pt")
        seal(state, head, lambda file: torch.save(model.snapshot(), file))
        (self.path / "checkpoint.pt").unlink(missing_ok=True)
        self.stages, self._wrote = i + 1, True

    def resume(self, model: Learner) -> list[Facts]:
        """Load the learner after the last finished stage; returns the measurements of each stage, or []."""
        state, previous = self.path / "state.pt", self.path / "previous.pt"
        path = state if state.exists() else previous
        if not path.exists():
            return []
        cure = self._cure(path)
        head, payload = self._open(path, cure, stages=1, computed_by=None)
        with reading(path, cure):
            model.restore(load_tensors(payload))
        self.stages, self.computed_by = head["stages"], head["computed_by"]
        return [self._load_stage(i) for i in range(self.stages)]

    def _cure(self, path):
        """What to delete if this file is damaged: no more than must be computed again."""
        state, previous = self.path / "state.pt", self.path / "previous.pt"
        last = path in (state, self.path / f"stage-{self.stages - 1}.npz") and state.exists()
        if not (last and previous.exists()):
            return f"delete the folder {self.path} and run again"
        return f"delete {state} and run again: the run then goes on from the stage before"

    def _load_stage(self, i: int) -> Facts:
        path = self.path / f"stage-{i}.npz"
        cure = self._cure(path)
        head, payload = self._open(path, cure, stage=0)
        if head["stage"] != i:
            raise RunError(f"{path} belongs to stage {head['stage']}: {cure}")
        with reading(path, cure), np.load(payload, allow_pickle=False) as a:
            stage = {k: a[k] if a[k].ndim else a[k].item() for k in a.files if not k.startswith("trace/")}
            rows = unpack_trace({k[6:]: a[k] for k in a.files if k.startswith("trace/")})
        return stage | {"trace": rows}

    # -- inside a stage

    def save_checkpoint(self, state: Facts) -> None:
        """Store a checkpoint inside the current stage: the state that a Trace passes to its `save`."""
        head = {"run": self.identity, "task": self.stages - 1, "computed_by": self._worked()}
        seal(self.path / "checkpoint.pt", head, lambda file: torch.save(state, file))

    def load_checkpoint(self, task: int) -> Facts | None:
        """The checkpoint inside this task, or None if there is none."""
        path = self.path / "checkpoint.pt"
        if not path.exists():
            return None
        cure = f"delete this file and run again: task {task} then starts at its beginning"
        head, payload = self._open(path, cure, task=0, computed_by=None)
        # Killed between writing state.pt and removing this file, or state.pt was damaged and deleted.
        if head["task"] == task - 1 or head["task"] > task:
            return None
        if head["task"] != task:
            raise RunError(f"{path} belongs to task {head['task']}, not to task {task}: {cure}")
        with reading(path, cure):
            state = load_tensors(payload)
            for loop in (*state["finished"], state["unfinished"]):
                check_loop(loop)
            for columns in state["rows"].values():
                _must(all(type(rows) is list for rows in columns.values()))
        self.computed_by = head["computed_by"]
        return state

    # -- the end

    def save_result(self, result) -> None:
        """Store the Result of the complete run, unless it is there."""
        stem = self.path / "result"
        if self._wrote or not _is_whole(stem):
            save([result], stem, replace=True, level=1)
            (self.path / "previous.pt").unlink(missing_ok=True)

    # -- reading

    def _open(self, path, cure, **facts):
        """Head and payload of a file of this run; RunError with the cure if it is damaged or another's.

        facts: name of a fact in the head -> the least number that it may be, or None for a list of Facts.
        """
        with reading(path, cure):
            head, payload = unseal(path)
            there = {**head["run"]}
            for name, least in facts.items():
                fact = head[name]
                many = least is None and type(fact) is list and all(type(f) is dict for f in fact)
                _must(many or (least is not None and type(fact) is int and fact >= least))
        if there != self.identity:
            raise RunError(f"{path} belongs to another run ({_differences(there, self.identity)}): {cure}")
        return head, payload


def _must(fits: bool) -> None:
    if not fits:
        raise ValueError("it does not hold what it should")


def check_loop(loop: Facts) -> None:
    """ValueError or KeyError unless this can be the state of a loop that a Trace has saved."""
    _must(type(loop["phase"]) is str and type(loop["done"]) is int and loop["done"] >= 0)
    _must(loop["learner"].keys() >= {"parameters", "buffers", "frozen", "eval"})
    _must(type(loop["objects"]) is list and loop["random"].keys() >= {"torch", "python", "numpy", "cuda"})
    if loop["clock"] is not None:
        seconds, n = loop["clock"]["learn_seconds"], loop["clock"]["n_samples"]
        _must(type(seconds) is float and math.isfinite(seconds) and type(n) is int and min(seconds, n) >= 0)
    if loop.get("begun") is not None:
        _must(loop["begun"].keys() == {"clock", "rows", "asked"})


def _is_whole(stem: Path) -> bool:
    """Whether there is a result that can be read."""
    try:
        return bool(load(stem, trace=False))
    except ResultError:
        return False


def _sealed_json(content: Facts) -> bytes:
    """Content as readable JSON, with its sha256."""
    digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
    return (json.dumps({**content, "sha256": digest}, indent=1, ensure_ascii=False) + "\n").encode()


def _differences(there, here):
    keys = [k for k in {**here, **there} if there.get(k) != here.get(k)]
    if keys == ["key"]:
        return "its code, settings or data differ"
    return ", ".join(f"{k} {there.get(k)!r} there, {here.get(k)!r} now" for k in keys)


@contextlib.contextmanager
def lock(folder: Path) -> Iterator[None]:
    """Hold the folder's lock, which the system releases however the process ends.

    RunError if another process holds it; where the file system has no locks, a notice on standard error.
    """
    from filelock import FileLock, Timeout

    held = FileLock(folder / "lock", timeout=PATIENCE, fallback_to_soft=False)
    try:
        held.acquire()
    except Timeout:
        message = f"another process is working in {folder}: wait until it is done, or choose another folder"
        raise RunError(message) from None
    except OSError as error:
        if error.errno not in (errno.ENOSYS, errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EINVAL):
            raise
        notice = f"the file system of {folder} has no locks: run nothing else in this folder meanwhile"
        print(notice, file=sys.stderr)
    try:
        yield
    finally:
        held.release()
