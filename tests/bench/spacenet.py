"""SpaceNet on split MNIST against its readable path and bare matrix products; time by number of tasks."""

import time

import torch

from clkit.data import ImageSet
from clkit.data.stream import Stream
from clkit.engine.seeding import seed_everything
from clkit.engine.trace import Trace
from clkit.methods.spacenet.compact import CompactMLP
from clkit.methods.spacenet.spacenet import Config, SpaceNet
from tests.bench.measure import interleaved, line, paired

TASKS = (5, 10, 20)


class Readable(SpaceNet):
    """Full matrices, masks and autograd, even for fully connected networks."""

    readable = True


def spacenet(setup, images):
    """CPU seconds for one seed of five tasks; then the time per task in streams of 5, 10 and 20 tasks.

    images: the training ImageSet of split MNIST.
    """
    config = Config() if len(images) > 1000 else Config(epochs=1)
    stream = Stream(images, images, (2,) * 5)
    seconds = interleaved(
        {
            "SpaceNet.learn": lambda: _ours(config, stream),
            "readable: whole matrices, masks, autograd": lambda: _ours(config, stream, Readable),
            "bare products of the compact blocks": lambda: _bare(config, stream),
        },
        min(setup.repeats, 3),
        clock=time.process_time,
    )
    mine, readable, bare = seconds
    lines = [
        line("spacenet", mine, seconds[mine], "s CPU"),
        line(
            "spacenet", readable, seconds[readable], "s CPU", paired(seconds[readable], seconds[mine]), ">= 3"
        ),
        # 1.3 to 2.0 by CPU: fast products leave more to what is not a product
        line("spacenet", bare, seconds[bare], "s CPU", paired(seconds[mine], seconds[bare]), "<= 2.25"),
    ]
    return lines + _by_tasks(config, images, setup.repeats)


def _ours(config, stream, kind=SpaceNet):
    seed_everything(0)
    learner = kind(config, stream.shape, stream.classes)
    return lambda: _learn(learner, stream)


def _learn(learner, stream):
    trace = Trace(("loss",), progress=False)
    for task in stream:
        trace.begin(learner, task.index)
        learner.learn(task, trace)
        trace.end()


def _by_tasks(config, images, repeats):
    """Seconds per task: 40 classes make 5, 10 or 20 equal tasks, which reserve 16 neurons each."""
    labels, names = torch.arange(len(images)) % 40, [str(k) for k in range(40)]
    many = ImageSet(images.images, labels, names, name="40 classes")
    few = Config(reserved=(16, 16), epochs=config.epochs, connections=(10_000, 1_640, 80))
    streams = {
        f"a task, stream of {n} tasks": Stream(many, many, (2,) * n, order=range(2 * n)) for n in TASKS
    }
    found = interleaved(
        {label: lambda s=s: _ours(few, s) for label, s in streams.items()},
        min(repeats, 3),
        clock=time.process_time,
    )
    seconds = {label: [t / n for t in found[label]] for label, n in zip(found, TASKS)}
    first, *others = seconds
    return [
        line("spacenet", first, seconds[first], "s CPU"),
        *(
            line(
                "spacenet", label, seconds[label], "s CPU", paired(seconds[label], seconds[first]), "<= 1.25"
            )
            for label in others
        ),
    ]


# ---- the least: the products alone


def _bare(config, stream):
    """The matrix products of a seed on prepared operands: those of each step, and those of each task."""
    draw, learner = torch.rand, SpaceNet(config, stream.shape, stream.classes)
    ready = []
    for task in stream:
        chosen = learner.choose(task)
        part = CompactMLP(learner, task.train, task.train.labels, task, chosen)
        one, two, three = part.matrices
        n, (B, w) = len(task.train), (config.batch_size, two.shape[1])
        old = (draw(n, 784), draw(784, w - 80)) if w > 80 else None
        ready.append(
            (
                config.epochs * -(-n // B),
                old,
                (draw(B, 784), one.clone(), draw(B, w), two.clone(), draw(B, 80), three.clone(), draw(B, 3)),
            )
        )
        part.put()
        learner.reserve(part.blocks, chosen)

    def work():
        for steps, old, (x, one, h, two, g, three, s) in ready:
            if old:
                old[0] @ old[1]  # of old connections, once
            for _ in range(steps):
                x @ one.T, h @ two.T, g @ three.T  # forward
                s[:, :2].T @ g, s @ three, g.T @ h[:, :80], g @ two, g.T @ x  # backward

    return work
