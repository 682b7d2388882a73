"""MFGR against the obvious implementation: twenty steps of each stage give the same weights."""

import copy

import pytest
import torch

from clkit.blocks.growing import begin
from clkit.data import ImageSet
from clkit.data.stream import Task
from clkit.engine.learner import frozen
from clkit.engine.seeding import seed_everything
from clkit.engine.trace import Trace
from clkit.methods.mfgr import inheritance, recording
from clkit.methods.mfgr.generator import Generator
from clkit.methods.mfgr.mfgr import MFGR, Config
from tests.reference import mfgr as reference

SHAPE, OLD, NEW, STEPS = (3, 8, 8), 3, 2, 20
SETTINGS = {
    "net": "resnet8",
    "mean": (0.5, 0.4, 0.3),
    "std": (0.25, 0.2, 0.3),
    "batch_size": 10,
    "lr": 0.05,
    "epochs": 4,
    "pad": 0,
    "flip": False,
    "noise": 8,
    "g_maps": (8, 8, 4),
    "g_steps": STEPS,
    "g_batch": 24,
    "n_pairs": 10,
}


def prepared(**settings):
    """(learner after a first task that moved its statistics, second task)."""
    seed_everything(0)
    draw = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (50, *SHAPE), dtype=torch.uint8, generator=draw)
    labels = OLD + torch.arange(50) % NEW
    learner = MFGR(Config(**{**SETTINGS, **settings}), SHAPE, OLD + NEW)
    begin(learner.net, learner.config, Task(0, 0, OLD, None))
    for _ in range(10):
        learner.net(torch.randn(20, *SHAPE) * 1.3 + 0.2)
    return learner, Task(1, OLD, OLD + NEW, ImageSet(images, labels, "abcde", name="made"))


def close(module, other, atol, without=()):
    for (name, a), b in zip(module.named_parameters(), other.parameters(), strict=True):
        if name not in without:
            torch.testing.assert_close(a, b, rtol=0, atol=atol, msg=lambda text, name=name: f"{name}: {text}")


# Batch normalisation cancels these, so that their gradients are rounding errors, which Adam makes large.
CANCELLED = ("first.bias", "convs.0.bias", "convs.1.bias")


@pytest.mark.parametrize("dtype, tolerance, without", [("float32", 1e-5, CANCELLED), ("float64", 1e-8, ())])
def test_twenty_steps_of_stage_1(dtype, tolerance, without):
    torch.set_default_dtype(getattr(torch, dtype))
    try:
        learner, task = prepared(g_lr=1e-3)
        old = frozen(learner.net)
        torch.manual_seed(1)
        slow = reference.Recording(old, Generator(SHAPE, 8, (8, 8, 4)), learner.config)
        losses = [slow.step() for _ in range(STEPS)]
        trace = Trace("recording", progress=False)
        torch.manual_seed(1)
        made = recording.record(learner.config, old, SHAPE, task, trace, 5)
    finally:
        torch.set_default_dtype(torch.float32)
    found = torch.from_numpy(trace.end()["recording"]["loss"])
    torch.testing.assert_close(found, torch.stack(losses), rtol=tolerance, atol=tolerance)
    close(made, slow.generator, tolerance, without)
    assert losses[0] - losses[-1] > 0.1 and all(p.grad is not None for p in slow.old.parameters())


def test_twenty_steps_of_stage_2():
    learner, task = prepared()
    old = frozen(learner.net)
    begin(learner.net, learner.config, task)
    generator = Generator(SHAPE, 8, (8, 8, 4))
    slow = reference.Inheritance(learner.net, old, generator, learner.config, OLD, OLD + NEW, STEPS)
    before = copy.deepcopy(learner.net)
    torch.manual_seed(2)
    for _ in range(learner.config.epochs):
        for x, y in task.train.batches(10):
            slow.step(learner.standardise(x), y)
    torch.manual_seed(2)
    inheritance.inherit(learner, task, Trace(progress=False), old, generator.draw, (generator,))
    close(learner.net, slow.net, 1e-5)
    moved = max(
        float((a - b).abs().max().detach()) for a, b in zip(before.parameters(), learner.net.parameters())
    )
    assert moved > 1e-2


def test_its_images_are_shifted_mirrored_and_standardised():
    learner, task = prepared(pad=2, flip=True, batch_size=50)
    images = task.train.images
    torch.manual_seed(0)
    x, y = next(iter(reference.loader(images, task.train.labels, learner.config)))
    assert x.shape == (50, *SHAPE) and sorted(y.tolist()) == sorted(task.train.labels.tolist())
    plain = Config(**{**SETTINGS, "batch_size": 50})
    x, y = next(iter(reference.loader(images, task.train.labels, plain)))
    expected = learner.standardise(images / 255)
    rows = torch.cdist(x.flatten(1), expected.flatten(1)).min(1)
    assert rows.values.max() < 0.1 and torch.equal(task.train.labels[rows.indices], y)
