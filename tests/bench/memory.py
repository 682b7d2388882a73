"""A process of its own, whose peak memory the row `memory` reads from its last line of output (bytes).

    python -m tests.bench.memory torch                       import torch and do nothing
    python -m tests.bench.memory run TRAIN TEST mnist|made   finetune/split-mnist, paper, one epoch a task

The run reads MNIST below $CLKIT_DATA; `made` are random bytes in its format, TRAIN and TEST images of them.
"""

import sys
from pathlib import Path


def peak():
    """The most memory this process has had resident, in bytes.

    Linux says it of the process image in /proc; the figure of getrusage there includes the process that
    started this one.
    """
    try:
        lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
        return next(1024 * int(text.split()[1]) for text in lines if text.startswith("VmHWM:"))
    except (OSError, StopIteration):
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def learn(train, test, made):
    """One epoch a task of finetune on split MNIST, as `python -m clkit run` does it."""
    import dataclasses

    from clkit import experiments
    from clkit.data import facts

    if made:  # random bytes: no checksum could fit
        there = facts.PUBLISHED["mnist"]
        facts.PUBLISHED["mnist"] = dataclasses.replace(there, train=train, test=test, checksums=None)
    experiments.run_experiment(
        "finetune/split-mnist", "paper", (0,), "cpu", overrides={"epochs": 1}, progress=False
    )


if __name__ == "__main__":
    if sys.argv[1] == "torch":
        import torch  # noqa: F401
    else:
        learn(int(sys.argv[2]), int(sys.argv[3]), sys.argv[4] == "made")
    print(peak())
