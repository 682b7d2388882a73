"""Both stages of MFGR on MNIST of 32x32 pixels against the obvious implementation."""

import time

import torch
from torch.nn import functional as F

from clkit.blocks.growing import begin
from clkit.data import ImageSet
from clkit.data.stream import Task
from clkit.engine.learner import frozen
from clkit.engine.seeding import seed_everything
from clkit.engine.trace import Trace
from clkit.methods.mfgr import recording
from clkit.methods.mfgr.generator import Generator
from clkit.methods.mfgr.inheritance import inherit
from clkit.methods.mfgr.mfgr import MFGR, Config
from tests.bench.measure import interleaved, line, paired
from tests.reference import mfgr as reference

OLD, SEEN = 4, 8  # classes before the task and after it: as many generated images as new ones
PRECISIONS = ("bf16", "fp32")


def mfgr(setup, images):
    """CPU seconds of a step of each stage; images: the training ImageSet of MNIST."""
    small = len(images) <= 1000
    settings = _settings(small)
    x = F.pad(images.images[: 2 * settings["batch_size"]], (2, 2, 2, 2))
    task = Task(1, OLD, SEEN, ImageSet(x, OLD + torch.arange(len(x)) % (SEEN - OLD), "01234567", name="made"))
    repeats = min(setup.repeats, 3)
    return _stage(1, settings, task, repeats, ">= 2.5") + _stage(2, settings, task, repeats, ">= 2")


def _settings(small):
    """The reduced ResNet-18 and half of the generator's maps; for few images, small networks."""
    common = {"mean": (0.1307,), "std": (0.3081,), "epochs": 1, "g_steps": 2}
    if small:
        tiny = {"noise": 8, "g_maps": (8, 8, 4), "g_batch": 8, "n_pairs": 4}
        return {**common, **tiny, "net": "resnet8", "batch_size": 4}
    wide = {"noise": 100, "g_maps": (64, 64, 32), "g_batch": 128, "n_pairs": 64}
    return {**common, **wide, "net": "resnet18", "batch_size": 64}


def _stage(number, settings, task, repeats, target):
    begun = {1: _stage_1, 2: _stage_2}[number]
    parts = {f"stage {number}, {p}": lambda p=p: begun(settings, task, p) for p in PRECISIONS}
    slow = f"stage {number}, reference"
    parts[slow] = lambda: begun(settings, task, "reference")
    found = interleaved(parts, repeats, clock=time.process_time)
    seconds = {label: [s / 2 for s in values] for label, values in found.items()}  # two steps each
    lines = [line("mfgr", slow, seconds[slow], "s CPU")]
    for p in PRECISIONS:
        label = f"stage {number}, {p}"
        ratios = paired(seconds[slow], seconds[label])
        lines.append(line("mfgr", label, seconds[label], "s CPU", ratios, target if p == "bf16" else ""))
    return lines


def _learner(settings, precision):
    """A learner with outputs for the old classes, that network frozen, and a generator."""
    seed_everything(0)
    config = Config(**settings, precision="fp32" if precision == "reference" else precision)
    learner = MFGR(config, (1, 32, 32), SEEN)
    begin(learner.net, config, Task(0, 0, OLD, None))
    return learner, frozen(learner.net), Generator(learner.shape, config.noise, config.g_maps)


def _stage_1(settings, task, precision):
    """A function that trains a generator for two steps."""
    learner, old, generator = _learner(settings, precision)
    if precision == "reference":
        slow = reference.Recording(old, generator, learner.config)
        return lambda: [slow.step() for _ in range(learner.config.g_steps)]
    trace = Trace(progress=False)
    return lambda: recording.train(learner.config, generator, old, task, trace, SEEN)


def _stage_2(settings, task, precision):
    """A function that trains the classifier for two steps, an epoch of the task."""
    learner, old, generator = _learner(settings, precision)
    begin(learner.net, learner.config, task)
    if precision == "reference":
        slow = reference.Inheritance(learner.net, old, generator, learner.config, OLD, SEEN, 2)
        batches = reference.loader(task.train.images, task.train.labels, learner.config)
        return lambda: [slow.step(x, y) for x, y in batches]
    return lambda: inherit(learner, task, Trace(progress=False), old, generator.draw, (generator,))
