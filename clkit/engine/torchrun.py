"""What torchrun says to each process of a run; see clkit.engine.parallel, which computes. Loads no torch.

torchrun --nproc-per-node 2 -m clkit run gfr/split-shapes --preset smoke
"""

import contextlib
import os
import sys
import time
from collections.abc import Iterator
from typing import NamedTuple

from clkit.engine import RunError
from clkit.errors import ClkitError

VARIABLES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
HEARD = 2.0  # seconds in which torchrun ends this process, if the first one has failed as well


class LostError(RunError):
    """Another process of the run has ended, or does not answer."""


class Process(NamedTuple):
    """The number of this process, the number of processes, and the number of this one on its machine."""

    rank: int
    size: int
    local: int


ALONE = Process(0, 1, 0)


def process() -> Process:
    """This process among those of torchrun; ALONE without it. RunError if the variables do not fit."""
    said = {name: os.environ.get(name, "").strip() for name in VARIABLES}
    if said["WORLD_SIZE"] == "1" or not (said["WORLD_SIZE"] or said["RANK"]):
        return ALONE
    cure = "start the run by `torchrun --nproc-per-node N -m clkit run ...`, or unset RANK and WORLD_SIZE"
    if missing := [name for name, value in said.items() if not value]:
        given = ", ".join(name for name in VARIABLES if name not in missing)
        raise RunError(f"the environment has {given}, but lacks {', '.join(missing)}: {cure}")
    numbers = [said[name] for name in VARIABLES[:3]]
    if not all(n.isdecimal() for n in numbers) or not int(numbers[0]) < int(numbers[1]):
        told = ", ".join(f"{name}={said[name]}" for name in VARIABLES[:3])
        raise RunError(f"{told} do not number the processes of a run: {cure}")
    return Process(*map(int, numbers))


def is_first() -> bool:
    """Whether this process is the one that writes files and shows progress."""
    return process().rank == 0


@contextlib.contextmanager
def one_voice() -> Iterator[None]:
    """For a command that all processes of torchrun execute: the first one prints.

    The others print only why they fail, and wait before: what all of them notice, the first has said by then.
    """
    if is_first():
        yield
        return
    with open(os.devnull, "w", encoding="utf-8") as nowhere, contextlib.redirect_stdout(nowhere):
        try:
            yield
        except KeyboardInterrupt:
            sys.exit(130)
        except ClkitError as error:
            if not isinstance(error, LostError):
                time.sleep(HEARD)
            raise RunError(f"process {process().rank}: {error}") from error
