"""Kill runs at random moments and resume them: the end must equal that of an undisturbed run, bit for bit.

``make soak``, or ``python -m tests.soak [--trials N] [--seed S] [WHAT ...]``. Subjects are the methods, each
with its smallest experiment, and the fake learners of tests/fakes.py. Every attempt is a separate process,
killed with SIGKILL after a random part of the time of an undisturbed run. tests/soak/trials.py disturbs the
command line in other ways; tests/soak/fuzz.py gives it and every Config values that cannot be meant.
"""

import multiprocessing
import random
import time
from pathlib import Path

import numpy as np
import torch
import torch._dynamo

from clkit import experiments
from clkit.engine.checkpoint import load_tensors, unseal
from clkit.engine.run import run
from clkit.methods import LEARNERS
from tests.fakes import FAKES, Config, small_stream

SUBJECTS = (*LEARNERS, *FAKES)
# The first method of each training loop, for tests that have no time for each variant of its settings.
LOOPS = tuple({learner.learn: name for name, learner in reversed(LEARNERS.items())}.values())[::-1]


def smallest(method):
    """The first smoke experiment of a method in the table."""
    return next(name for name in experiments.names() if name.partition("/")[0] == method)


def attempt(subject, folder, every):
    """Run a subject in a folder, or resume it; returns (learner, Result)."""
    if subject in FAKES:
        what = FAKES[subject], Config(), small_stream(per_class=48, single_pass=subject == "online")
    else:
        chosen = experiments.experiment(smallest(subject), "smoke")
        what = chosen.learner, chosen.config, experiments.stream(chosen.benchmark, "smoke")
    return run(*what, seed=3, folder=folder, every=every, record="*", threads=1, progress=False)


def _child(subject, folder, every, ready):
    torch.set_num_threads(1)
    ready.set()
    attempt(subject, folder, every)


class Killer:
    """Starts attempts from one warm process (so that they need not import torch) and kills them."""

    def __init__(self, seed):
        self.context = multiprocessing.get_context("forkserver")
        self.context.set_forkserver_preload(["tests.soak"])
        self.draw = random.Random(seed)

    def go(self, subject, folder, every, limit=None):
        """One attempt, killed after `limit` seconds if given; returns (whether it was killed, seconds)."""
        ready = self.context.Event()
        process = self.context.Process(target=_child, args=(subject, str(folder), every, ready))
        process.start()
        ready.wait()
        begin = time.perf_counter()
        process.join(limit)
        killed = process.is_alive()
        if killed:
            process.kill()
            process.join()
        elif process.exitcode:
            raise AssertionError(f"{subject} in {folder} ended with status {process.exitcode}")
        return killed, time.perf_counter() - begin

    def soak(self, subject, folder, kills):
        """Kill a run up to `kills` times, in several rounds if it finishes earlier; returns what happened.

        Raises AssertionError if a final state differs from that of the undisturbed run.
        """
        folder = Path(folder)
        _, seconds = self.go(subject, folder / "whole", 1e9)
        done, rounds, inside = 0, 0, 0
        while done < kills:
            here = folder / f"killed-{rounds}"
            rounds += 1
            while done < kills:
                every = self.draw.choice((0.0, 0.02))
                killed, _ = self.go(subject, here, every, self.draw.uniform(0, seconds))
                if not killed:
                    break
                done += 1
                inside += (here / "checkpoint.pt").exists()
            self.go(subject, here, 1e9)
            compare(folder / "whole", here, subject)
        return {
            "subject": subject,
            "kills": done,
            "inside a task": inside,
            "rounds": rounds,
            "seconds": seconds,
        }


def compare(one, other, name=""):
    """AssertionError unless two finished run folders hold equal predictions, traces and weights."""
    with (
        np.load(one / "result.npz", allow_pickle=False) as a,
        np.load(other / "result.npz", allow_pickle=False) as b,
    ):
        assert sorted(a.files) == sorted(b.files), f"{name}: other arrays"
        for key in a.files:
            if not key.endswith("_seconds"):
                assert a[key].dtype == b[key].dtype and a[key].tobytes() == b[key].tobytes(), (
                    f"{name}: {key} differs"
                )
    a, b = (load_tensors(unseal(f / "state.pt")[1]) for f in (one, other))
    assert a["frozen"] == b["frozen"] and a["eval"] == b["eval"], f"{name}: modes differ"
    for kind in ("parameters", "buffers"):
        assert a[kind].keys() == b[kind].keys(), f"{name}: other {kind}"
        for key in a[kind]:
            assert torch.equal(a[kind][key], b[kind][key]), f"{name}: {key} differs"
