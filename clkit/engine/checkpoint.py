"""The folder of a run: its lock, its files, and the checks that each file is whole and belongs to the run.

``run.json`` says what is run; ``state.pt`` holds the learner after the last finished stage;
``stage-<t>.npz`` holds the measurements after stage t and its trace; ``checkpoint.pt`` is a checkpoint inside
the current stage. All but the stages also name the processes that worked on the run (see
`Folder.computed_by`).

All files but run.json are *sealed*: a line with the sha256 of the rest, a line of JSON that says which run
and stage the file belongs to, then the bytes of torch.save or numpy's savez. A file is made in memory, then
written whole or not at all. A file that is damaged, or belongs to another run, seed or stage, is refused with
a sentence that says what to delete.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch

from clkit.engine import RunError
from clkit.engine.learner import Learner
from clkit.engine.provenance import Facts, plain
from clkit.result import pack_trace, unpack_trace, write_atomically

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


# ---- the folder


class Folder:
    """The files of one run. Entering takes the folder's lock, so that two processes cannot write into it.

    identity: JSON values that identify the run: they must agree for its files to be resumed.   process: facts
    about this process.   computed_by: the facts of all processes that have computed parts of the run so far,
    in order; a process that only reads a finished run is not among them.
    """

    def __init__(self, path: str | Path, identity: Facts, process: Facts) -> None:
        self.path, self.identity, self.process = Path(path), plain(identity), plain(process)
        self.computed_by: list[Facts] = []
        self.stages = 0  # finished, including the one before any learning

    def __enter__(self) -> Folder:
        self.path.mkdir(parents=True, exist_ok=True)
        with contextlib.ExitStack() as opened:
            opened.enter_context(lock(self.path))
            self._check_identity()
            self._opened = opened.pop_all()
        return self

    def __exit__(self, *error) -> None:
        self._opened.close()

    def _check_identity(self):
        path = self.path / "run.json"
        if not path.exists():
            text = _sealed_json({"identity": self.identity, "begun_by": self.process})
            write_atomically(path, lambda file: file.write(text))
            return
        try:
            found = json.loads(path.read_bytes())
            there = found["identity"]
            del found["sha256"]
            whole = path.read_bytes() == _sealed_json(found)
        except Exception:  # reading, JSON and structure raise different kinds
            whole = False
        if not whole:
            raise RunError(f"{path} is damaged: {self._start_again}")
        if self.identity["key"] is None:
            raise RunError(
                f"{self.identity['learner']} is not defined in a file, so clkit cannot tell whether it made "
                f"{self.path}: choose another folder, or move the class into a file"
            )
        if there != self.identity:
            found = _differences(there, self.identity)
            raise RunError(
                f"the folder {self.path} holds another run ({found}): choose another folder or delete it"
            )

    @property
    def _start_again(self) -> str:
        return f"delete the folder {self.path} and run again"

    def _worked(self) -> list[Facts]:
        """`computed_by`, including this process."""
        if self.computed_by[-1:] != [self.process]:
            self.computed_by.append(self.process)
        return self.computed_by

    # -- finished stages

    def save_stage(self, i: int, stage: Facts, rows: Facts, model: Learner) -> None:
        """Store finished stage i: its measurements, its trace and the learner."""
        arrays = {k: np.asarray(v) for k, v in stage.items()}
        arrays |= {f"trace/{k}": v for k, v in pack_trace(rows).items()}
        head = {"run": self.identity, "stage": i}
        seal(self.path / f"stage-{i}.npz", head, lambda file: np.savez_compressed(file, **arrays))
        head = {"run": self.identity, "stages": i + 1, "computed_by": self._worked()}
        seal(self.path / "state.pt", head, lambda file: torch.save(model.snapshot(), file))
        (self.path / "checkpoint.pt").unlink(missing_ok=True)
        self.stages = i + 1

    def resume(self, model: Learner) -> list[Facts]:
        """Load the learner after the last finished stage; returns the measurements of each stage, or []."""
        path = self.path / "state.pt"
        if not path.exists():
            return []
        head, payload = self._open(path, self._start_again)
        self.stages, self.computed_by = head["stages"], head["computed_by"]
        model.restore(load_tensors(payload))
        return [self._load_stage(i) for i in range(self.stages)]

    def _load_stage(self, i: int) -> Facts:
        path = self.path / f"stage-{i}.npz"
        head, payload = self._open(path, self._start_again)
        if head["stage"] != i:
            raise RunError(f"{path} belongs to stage {head['stage']}: {self._start_again}")
        with np.load(payload, allow_pickle=False) as a:
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
        head, payload = self._open(path, cure)
        if head["task"] == task - 1:  # killed between writing state.pt and removing this file
            return None
        if head["task"] != task:
            raise RunError(f"{path} belongs to task {head['task']}, not to task {task}: {cure}")
        self.computed_by = head["computed_by"]
        return load_tensors(payload)

    def _open(self, path, cure):
        """Head and payload of a file of this run; RunError with the cure if it is damaged or another's."""
        try:
            head, payload = unseal(path)
        except (OSError, ValueError) as error:
            what = "is missing" if isinstance(error, FileNotFoundError) else "is damaged"
            raise RunError(f"{path} {what}: {cure}") from None
        if head["run"] != self.identity:
            found = _differences(head["run"], self.identity)
            raise RunError(f"{path} belongs to another run ({found}): {cure}")
        return head, payload


def _sealed_json(content: Facts) -> bytes:
    """Content as readable JSON, with its sha256."""
    digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
    return (json.dumps({**content, "sha256": digest}, indent=1, ensure_ascii=False) + "\n").encode()


def _differences(there, here):
    keys = [k for k in {**here, **there} if there.get(k) != here.get(k)]
    return ", ".join(f"{k} {there.get(k)!r} there, {here.get(k)!r} now" for k in keys)


def lock(folder: Path) -> IO[str]:
    """An open file that holds the folder's lock; the system releases it however the process ends."""
    file = open(folder / "lock", "a+", encoding="utf-8")  # noqa: SIM115
    try:
        if os.name == "nt":
            import msvcrt

            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        file.close()
        message = f"another process is working in {folder}: wait until it is done, or choose another folder"
        raise RunError(message) from None
    return file
