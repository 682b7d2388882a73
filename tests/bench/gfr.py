"""GFR against the obvious implementation and the bare networks: the classifier's phase and the generator's.

Images are those of MNIST: with 16x16 pixels for the image network of the laptop size, with 32x32 for that of
the paper. G and D are those of the paper.
"""

import time

import torch
from torch.nn import functional as F

from clkit.data import ImageSet
from clkit.data.stream import Task
from clkit.engine.learner import frozen
from clkit.engine.seeding import seed_everything
from clkit.engine.trace import Trace
from clkit.methods.gfr.gfr import GFR, Config
from tests.bench.measure import interleaved, line, paired
from tests.reference.gfr import Reference

FIRST, CLASSES = 5, 10


def gfr(setup, images):
    """CPU seconds of an epoch of each phase of the second task, of five new classes.

    images: the training ImageSet of MNIST.
    """
    few = len(images) <= 1000
    return _narrow(setup, images, few) + _wide(setup, images, few)


def _narrow(setup, images, few):
    """The network of the laptop size in fp32, beside the reference and beside the networks alone."""
    x = F.pad(images.images[: 16 if few else 2560], (2, 2, 2, 2))[:, :, ::2, ::2].contiguous()
    y = FIRST + torch.arange(len(x)) % (CLASSES - FIRST)
    learner = begun(few, (1, 16, 16))
    found = interleaved(
        {
            "classifier": lambda: classifier(learner, x, y),
            "classifier, reference": lambda: reference(learner, x, y, "learn_classifier"),
            "classifier, bare networks": lambda: bare_classifier(learner, x, y),
            "generator": lambda: generator(learner, x, y),
            "generator, reference": lambda: reference(learner, x, y, "learn_generator"),
            "generator, features alone": lambda: bare_features(learner, x),
        },
        min(setup.repeats, 3),
        clock=time.process_time,
    )
    lines, first = [], None
    for label, seconds in found.items():
        if "," not in label:
            first, ratio = label, ()
        elif "reference" in label:
            ratio = paired(seconds, found[first]), ">= 1.1" if first == "classifier" else ">= 1.2"
        else:
            ratio = paired(found[first], seconds), "<= 1.3" if first == "classifier" else ""
        lines.append(line("gfr", label, seconds, "s CPU", *ratio))
    return lines


def _wide(setup, images, few):
    """The paper's network, one batch of 32x32 pixels, in both precisions, beside the reference.

    The targets are for a CPU with matrix instructions for bfloat16, such as AMX.
    """
    x = F.pad(images.images[: 4 if few else 128], (2, 2, 2, 2))
    y = FIRST + torch.arange(len(x)) % (CLASSES - FIRST)
    phases = {"classifier": (classifier, ">= 2"), "generator": (generator, ">= 2")}
    learners = {p: begun(few, (1, 32, 32), "resnet18-wide", p) for p in ("bf16", "fp32")}
    parts = {}
    for phase, (ours, _) in phases.items():
        parts[phase, "reference"] = lambda phase=phase: reference(learners["fp32"], x, y, f"learn_{phase}")
        for p, learner in learners.items():
            parts[phase, p] = lambda ours=ours, learner=learner: ours(learner, x, y)
    found = interleaved(parts, min(setup.repeats, 3), clock=time.process_time)
    lines = []
    for (phase, kind), seconds in found.items():
        ratio = () if kind == "reference" else (paired(found[phase, "reference"], seconds),)
        target = (phases[phase][1],) if kind == "bf16" else ()
        lines.append(line("gfr", f"{phase}, paper's network, {kind}", seconds, "s CPU", *ratio, *target))
    return lines


def begun(few, shape, net="resnet10", precision="fp32"):
    """A learner as the second task begins: its first phase and generator are new, which costs the same."""
    small = {"batch_size": 4, "hidden": 8} if few else {}
    settings = {"net": "resnet10" if few else net, "mean": (0.5,), "std": (0.25,), "precision": precision}
    seed_everything(0)
    return GFR(Config(**settings, epochs=1, gan_epochs=1, **small), shape, CLASSES)


def task_of(x, y):
    return Task(1, FIRST, CLASSES, ImageSet(x, y, [str(k) for k in range(CLASSES)], name="digits"))


def classifier(learner, x, y):
    task, trace = task_of(x, y), Trace(progress=False)
    return lambda: learner.fit(task, trace)


def generator(learner, x, y):
    task, trace = task_of(x, y), Trace(progress=False)
    return lambda: learner.remember(task, trace)


def reference(learner, x, y, phase):
    other = Reference(learner, FIRST)
    return lambda: getattr(other, phase)(x, y, FIRST / (CLASSES - FIRST))


def bare_classifier(learner, x, y):
    """Steps on images that are ready, without augmentation: F, F* and H forwards, F and H backwards, Adam."""
    net, old, size = learner.net.eval(), frozen(learner.net), learner.config.batch_size
    x = (x.float() / 255).contiguous(memory_format=torch.channels_last)
    optimizer = torch.optim.Adam(net.parameters(), 1e-3, fused=True)

    def work():
        for images, labels in zip(x.split(size), y.split(size)):
            u = net.features(images)
            with torch.no_grad():
                before = old.features(images)
            loss = F.cross_entropy(net.head(u), labels) + F.cross_entropy(net.head(before), labels)
            optimizer.zero_grad()
            (loss + torch.dist(u, before)).backward()
            optimizer.step()

    return work


def bare_features(learner, x):
    """F alone, on images that are ready."""
    net, x = learner.net.eval(), (x.float() / 255).contiguous(memory_format=torch.channels_last)

    def work():
        with torch.no_grad():
            for part in x.split(256):
                net.features(part)

    return work
