"""Shared by all rows: interleaved repeats, lines of the table, the machine, and MNIST-sized data."""

import os
import platform
import statistics
import struct
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

FULL = (60_000, 10_000)  # training and test images of MNIST


@dataclass(frozen=True)
class Setup:
    """root: folder with MNIST in torchvision's layout.   made: whether its bytes are random.
    images: their numbers, (train, test).   repeats: of each measurement.
    """

    root: Path
    made: bool
    images: tuple = FULL
    repeats: int = 5

    @property
    def data(self):
        return "random bytes in MNIST's format" if self.made else "mnist"


@dataclass(frozen=True)
class Line:
    """One line of the table: `label` measured median (low .. high over n repeats) in `unit`.

    ratio: compared with the target, (median, low, high) or None.
    target: such as ">= 5", or "" for none.
    """

    row: str
    label: str
    median: float
    low: float
    high: float
    n: int
    unit: str
    ratio: tuple | None = None
    target: str = ""

    @property
    def reached(self):
        """Whether the ratio (or the median without one) reaches the target; None without a target."""
        if not self.target:
            return None
        sign, bound = self.target.split()
        value = self.ratio[0] if self.ratio else self.median
        return {">=": value >= float(bound), "<=": value <= float(bound)}[sign]

    def as_dict(self):
        ratio = dict(zip(("median", "low", "high"), self.ratio)) if self.ratio else None
        return {
            "row": self.row,
            "label": self.label,
            "median": self.median,
            "low": self.low,
            "high": self.high,
            "n": self.n,
            "unit": self.unit,
            "ratio": ratio,
            "target": self.target or None,
            "reached": self.reached,
        }


def line(row, label, values, unit, ratios=None, target=""):
    """A Line from repeats: medians with the smallest and the largest."""
    ratio = (statistics.median(ratios), min(ratios), max(ratios)) if ratios else None
    return Line(
        row, label, statistics.median(values), min(values), max(values), len(values), unit, ratio, target
    )


def interleaved(parts, repeats, clock=time.perf_counter):
    """Seconds of each part, {label: [one per repeat]}.

    parts: {label: function that prepares and returns the function to be timed}. Each repeat runs all parts in
    a rotating order, so that a slow minute of the machine affects all of them. The first turn does not count.
    clock: a function that returns seconds, of wall-clock or CPU time.
    """
    seconds = {label: [] for label in parts}
    labels = list(parts)
    for repeat in range(-1, repeats):
        turn = (repeat + 1) % len(labels)
        for label in labels[turn:] + labels[:turn]:
            work = parts[label]()
            begin = clock()
            work()
            if repeat >= 0:
                seconds[label].append(clock() - begin)
    return seconds


def paired(above, below):
    """Ratios of two lists of repeats, paired by time."""
    return [a / b for a, b in zip(above, below)]


def write_made(root, images=FULL):
    """Write random images and labels below `root`, in MNIST's file format and torchvision's layout."""
    folder = Path(root) / "MNIST" / "raw"
    folder.mkdir(parents=True)
    draw = np.random.default_rng(0)
    for part, n in zip(("train", "t10k"), images):
        pixels = draw.integers(0, 256, (n, 28, 28), dtype=np.uint8)
        labels = (np.arange(n) % 10).astype(np.uint8)
        heads = struct.pack(">4i", 0x803, n, 28, 28), struct.pack(">2i", 0x801, n)
        (folder / f"{part}-images-idx3-ubyte").write_bytes(heads[0] + pixels.tobytes())
        (folder / f"{part}-labels-idx1-ubyte").write_bytes(heads[1] + labels.tobytes())


def machine():
    """The machine facts that the numbers depend on."""
    import torch

    load = round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None
    return {
        "cpu": _cpu(),
        "cores": os.cpu_count(),
        "load before": load,
        "threads": torch.get_num_threads(),
        "system": platform.system(),
        "python": platform.python_version(),
        "torch": torch.__version__,
    }


def _cpu():
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(text.partition(":")[2].strip() for text in lines if text.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
