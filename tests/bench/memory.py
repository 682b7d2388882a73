"""A separate process that prints its peak memory in bytes as the last line, for the row `memory`.

    python -m tests.bench.memory torch                       import torch and do nothing
    python -m tests.bench.memory run TRAIN TEST mnist|made   finetune/split-mnist, paper, one epoch per task

The run reads MNIST below $CLKIT_DATA; `made` stands for TRAIN and TEST images of random bytes in its format.
"""

import sys
from pathlib import Path


def peak():
    """Peak resident memory of this process in bytes.

    On Linux it comes from /proc, because the value of getrusage there includes the parent process.
    """
    try:
        lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
        return next(1024 * int(text.split()[1]) for text in lines if text.startswith("VmHWM:"))
    except (OSError, StopIteration):
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def learn(train, test, made):
    """Train finetune on split MNIST for one epoch per task, as `python -m clkit run` does."""
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
