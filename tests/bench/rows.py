"""The rows of the bench: functions of a Setup that return lines of the table."""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from clkit import data, papers
from clkit.data import ImageSet
from clkit.data.stream import Stream, Task
from clkit.engine.seeding import seed_everything
from clkit.engine.trace import Trace
from clkit.experiments import config_class
from clkit.methods import LEARNERS
from tests.bench import arm as arm_beside
from tests.bench import dgm as dgm_beside
from tests.bench import gfr as gfr_beside
from tests.bench import large as large_beside
from tests.bench import mfgr as mfgr_beside
from tests.bench import spacenet as spacenet_beside
from tests.bench.measure import interleaved, line, paired
from tests.modes import HostSyncs

ROOT = Path(__file__).resolve().parents[2]
BATCH = 128


def _torchvision_mnist(setup):
    vision = data.torchvision()
    from torchvision import transforms

    return vision.datasets.MNIST(str(setup.root), train=True, transform=transforms.ToTensor())


def _image_set(raw):
    return ImageSet(raw.data[:, None], raw.targets, "0123456789", name="mnist")


# ---- batches


def batches(setup):
    """One shuffled epoch of unused float batches; the loaders run in this process, their default."""
    raw = _torchvision_mnist(setup)
    ours = _image_set(raw)
    floats = TensorDataset(ours.images / 255, ours.labels)
    parts = {
        "ImageSet.batches": ours.batches(BATCH),
        "DataLoader(TensorDataset)": DataLoader(floats, BATCH, shuffle=True),
        "DataLoader(torchvision MNIST)": DataLoader(raw, BATCH, shuffle=True),
    }
    seconds = interleaved(
        {label: lambda b=b: lambda: _exhaust(b) for label, b in parts.items()}, setup.repeats
    )
    mine, tensors, vision = seconds
    lines = [line("batches", mine, seconds[mine], "s")]
    for label, target in ((tensors, ">= 5"), (vision, ">= 20")):
        ratios = paired(seconds[label], seconds[mine])
        lines.append(line("batches", label, seconds[label], "s", ratios, target))
    return lines


def _exhaust(batches):
    for _ in batches:
        pass


# ---- finetune


def finetune(setup):
    """One epoch of the 784-400-400-10 network on all ten classes: Finetune.learn against the lower bound."""
    images = _image_set(_torchvision_mnist(setup))
    seconds = interleaved(
        {"hand-written loop (floor)": lambda: _floor(images), "Finetune.learn": lambda: _finetune(images)},
        setup.repeats,
    )
    floor, ours = seconds
    return [
        line("finetune", floor, seconds[floor], "s"),
        line("finetune", ours, seconds[ours], "s", paired(seconds[ours], seconds[floor]), "<= 1.15"),
    ]


def _finetune(images):
    seed_everything(0)
    kind = LEARNERS["finetune"]
    learner = kind(config_class(kind)(epochs=1, batch_size=BATCH), images.shape, images.classes)
    trace = Trace(("loss",), progress=False)
    trace.begin(learner, 0)
    task = Task(0, 0, images.classes, images)
    return lambda: (learner.learn(task, trace), trace.end())


def _floor(images):
    """A minimal loop with the same tensors, optimizer and batch size, but no bookkeeping.

    It selects flat bytes (N, 784) by slices of one permutation and converts them. It keeps no loss, masks no
    classes, shows no bars, writes no checkpoints and counts nothing.
    """
    seed_everything(0)
    net = nn.Sequential(nn.Linear(784, 400), nn.ReLU(), nn.Linear(400, 400), nn.ReLU(), nn.Linear(400, 10))
    pixels, labels = images.images.flatten(1), images.labels

    def epoch():
        optimizer = torch.optim.Adam(net.parameters(), lr=1e-3, fused=True)
        order = torch.randperm(len(labels))
        for start in range(0, len(labels), BATCH):
            index = order[start : start + BATCH]
            loss = F.cross_entropy(net(pixels[index] / 255), labels[index])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

    return epoch


# ---- imports

_IMPORT = """
import json, sys, time
begin = time.perf_counter()
import {what}
seconds = time.perf_counter() - begin
print(json.dumps([seconds, sum(m.partition(".")[0] == "torch" for m in sys.modules)]))
"""


def imports(setup):
    """Time to import the package and its results in a fresh process, against importing torch."""
    found = {"import torch": [], "import clkit, clkit.result": []}
    for repeat in range(-1, setup.repeats):  # the first turn warms the disk cache
        for label in found:
            out = _process(["-c", _IMPORT.format(what=label.removeprefix("import "))])
            found[label] += [json.loads(out)] if repeat >= 0 else []
    (torch_, heavy), (ours, light) = ((label, [s for s, _ in values]) for label, values in found.items())
    loaded = [modules for _, modules in found[ours]]
    return [
        line("imports", torch_, heavy, "s"),
        line("imports", ours, light, "s", paired(heavy, light)),
        line("imports", "torch modules that clkit, clkit.result load", loaded, "modules", target="<= 0"),
    ]


def _process(arguments, **environment):
    """Standard output of a fresh Python process."""
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads()), **environment},
    )
    if done.returncode:
        raise RuntimeError(f"a process of the bench failed:\n{done.stderr}")
    return done.stdout


# ---- memory


def memory(setup):
    """Peak memory beyond importing torch: finetune/split-mnist, paper preset with one epoch per task."""
    only, whole = [], []
    for _ in range(min(setup.repeats, 3)):
        with tempfile.TemporaryDirectory() as runs:
            arguments = ["run", *map(str, setup.images), "made" if setup.made else "mnist"]
            only.append(int(_process(["-m", "tests.bench.memory", "torch"]).split()[-1]))
            whole.append(
                int(
                    _process(
                        ["-m", "tests.bench.memory", *arguments], CLKIT_RUNS=runs, CLKIT_DATA=str(setup.root)
                    ).split()[-1]
                )
            )
    beyond = [a - b for a, b in zip(whole, only)]
    lines = [
        line("memory", "import torch", [b / 1e6 for b in only], "MB"),
        line("memory", "finetune/split-mnist", [b / 1e6 for b in whole], "MB"),
    ]
    train, test = setup.images
    for n, target in ((train + test, "<= 1.5"), (train, "")):
        label, ratios = f"beyond torch, against {n:,} float32 images", [b / (n * 784 * 4) for b in beyond]
        lines.append(line("memory", label, [b / 1e6 for b in beyond], "MB", ratios, target))
    return lines


# ---- synchronisations

COUNTED = "finetune lwf er cumulative ewc si mas dgr icarl cwr spacenet rehearsal".split()


def syncs(setup, methods=COUNTED, steps=8):
    """Host synchronisations per training step of the second task: exact and equal on any machine.

    They are counted for epochs of `steps` and of twice as many steps; the difference excludes the costs per
    epoch and per task.
    """
    lines = []
    for name in methods:
        few, many = (_count(name, n) for n in (steps, 2 * steps))
        lines.append(line("syncs", name, [(many - few) / steps], "per step", target="<= 0"))
    return lines


def _count(name, steps, batch_size=16):
    """Synchronisations while a method learns `steps` batches of a second task."""
    seed_everything(0)
    n = steps * batch_size
    images = torch.randint(0, 256, (2 * n, 1, 8, 8), dtype=torch.uint8)
    labels = torch.arange(2 * n) % 4
    made = ImageSet(images, labels, "abcd", name="made")
    stream = Stream(made, made, (2, 2))
    kind, settings = LEARNERS[name], papers.methods()[name].settings
    own = {"connections": (800, 1_640, 80)} if hasattr(config_class(kind), "connections") else {}
    config = config_class(kind)(**{**settings, **own, "epochs": 1, "batch_size": batch_size})
    learner = kind(config, made.shape, made.classes)
    trace = Trace(("loss",), progress=False)
    for task in stream:
        trace.begin(learner, task.index)
        with HostSyncs() as counter:
            learner.learn(task, trace)
        trace.end()
    return counter.total


# ---- methods, each in a file of its own


def spacenet(setup):
    """See tests/bench/spacenet.py."""
    return spacenet_beside.spacenet(setup, _image_set(_torchvision_mnist(setup)))


def arm(setup):
    """See tests/bench/arm.py."""
    return arm_beside.arm(setup, _image_set(_torchvision_mnist(setup)))


def dgm(setup):
    """See tests/bench/dgm.py."""
    return dgm_beside.dgm(setup, _image_set(_torchvision_mnist(setup)), _process)


def mfgr(setup):
    """See tests/bench/mfgr.py."""
    return mfgr_beside.mfgr(setup, _image_set(_torchvision_mnist(setup)))


def gfr(setup):
    """See tests/bench/gfr.py."""
    return gfr_beside.gfr(setup, _image_set(_torchvision_mnist(setup)))


ROWS = {
    "batches": batches,
    "finetune": finetune,
    "imports": imports,
    "memory": memory,
    "syncs": syncs,
    "spacenet": spacenet,
    "arm": arm,
    "dgm": dgm,
    "mfgr": mfgr,
    "gfr": gfr,
    "large": large_beside.large,
}
