"""The learners after each task of a run, kept for histories and built anew from their states."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from clkit.engine.checkpoint import load_tensors, reading, seal, unseal
from clkit.engine.learner import Learner


class Past(Sequence):
    """Learners after the tasks 0, 1, ..., each built when it is asked for, in eval mode.

    build: makes a new learner.   tasks: their number.   folder: of the run, which keeps a learner as
    ``learner-<task>.pt``; None keeps the states in memory.
    """

    def __init__(self, build: Callable[[], Learner], tasks: int, folder: str | Path | None = None) -> None:
        self.build, self.tasks, self.folder = build, tasks, folder
        self.states: dict[int, dict] = {}

    def keep(self, task: int, model: Learner) -> None:
        """Keep the learner after a task."""
        state = model.snapshot()
        if self.folder is None:
            self.states[task] = state
        else:
            seal(self._file(task), {"task": task}, lambda file: torch.save(state, file))

    def __len__(self) -> int:
        return self.tasks

    def __getitem__(self, task: int) -> Learner:
        task, model = range(self.tasks)[task], self.build()
        model.restore(self.states[task] if self.folder is None else self._load(task))
        return model.eval()

    def _file(self, task):
        return Path(self.folder) / f"learner-{task}.pt"

    def _load(self, task):
        cure = f"delete the folder {self.folder} and run again with a history, which keeps the learners"
        with reading(self._file(task), cure):
            return load_tensors(unseal(self._file(task))[1])
