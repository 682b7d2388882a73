"""GFR against the obvious implementation and the bare networks: the classifier's phase and the generator's.

Images are those of MNIST with 16x16 pixels. The image network is that of the laptop size, G and D are
those of the paper.
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
    x = F.pad(images.images[: 2560 if len(images) > 1000 else 16], (2, 2, 2, 2))[:, :, ::2, ::2].contiguous()
    y = FIRST + torch.arange(len(x)) % (CLASSES - FIRST)
    learner, repeats = begun(len(x)), min(setup.repeats, 3)
    found = interleaved(
        {
            "classifier": lambda: classifier(learner, x, y),
            "classifier, reference": lambda: reference(learner, x, y, "learn_classifier"),
            "classifier, bare networks": lambda: bare_classifier(learner, x, y),
            "generator": lambda: generator(learner, x, y),
            "generator, reference": lambda: reference(learner, x, y, "learn_generator"),
            "generator, features alone": lambda: bare_features(learner, x),
        },
        repeats,
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


def begun(n):
    """A learner as the second task begins: its first phase and generator are new, which costs the same."""
    small = {} if n >= 128 else {"batch_size": 4, "hidden": 8}
    seed_everything(0)
    config = Config(net="resnet10", mean=(0.5,), std=(0.25,), epochs=1, gan_epochs=1, **small)
    return GFR(config, (1, 16, 16), CLASSES)


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
