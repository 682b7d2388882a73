"""ARM on MNIST and on CIFAR-10-sized images: fast steps against readable ones and bare matrix products."""

import time

import torch

from clkit.blocks import nets
from clkit.data import ImageSet
from clkit.data.stream import Stream, Task
from clkit.engine.seeding import seed_everything
from clkit.engine.trace import Trace
from clkit.methods.arm.arm import ARM, Config
from tests.bench.measure import interleaved, line, paired


def arm(setup, images):
    """Seconds of CPU time: five tasks of MNIST; then one batch of images of CIFAR-10's size.

    images: the training ImageSet of MNIST. Each task has 100 of them, a tenth of those in
    MNIST-5k-5; recall begins in the second task. The other part is a batch of a second task, made of random
    bytes. A fast path is kept only as long as it takes two thirds of the time or less.
    """
    mnist = list(Stream(images, images, (2,) * 5, max_per_class=50, shuffle_images=0))
    shape, steps = ((3, 32, 32), 10) if len(images) > 1000 else ((3, 8, 8), 2)
    cifar = Config(net="resnet18", lr=0.01, image_lr=10.0, n_images=100, n_steps=steps)  # table 4
    return _beside(setup, "MLP, M = 10, five tasks", Config(), mnist, _bare) + _beside(
        setup, "ResNet-18, M = 100, one batch", cifar, [_second_task(shape)]
    )


def _beside(setup, what, config, tasks, least=None):
    """Lines for both ways to learn the tasks, and for the lower bound if there is one."""
    ways = {"fast": _learning(False), "readable": _learning(True)}
    ways |= {"bare products": least} if least else {}
    seconds = interleaved(
        {name: lambda way=way: way(config, tasks) for name, way in ways.items()},
        min(setup.repeats, 3),
        clock=time.process_time,
    )
    mine, readable, *bare = seconds.values()
    return [
        line("arm", f"fast: {what}", mine, "s CPU"),
        line("arm", f"readable: {what}", readable, "s CPU", paired(readable, mine), ">= 1.5"),
        *(line("arm", f"bare products: {what}", b, "s CPU", paired(mine, b)) for b in bare),
    ]


def _second_task(shape, n=10):
    """A Task number 1 with one batch of random bytes."""
    draw = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (n, *shape), generator=draw, dtype=torch.uint8)
    return Task(1, 2, 4, ImageSet(images, 2 + torch.arange(n) % 2, [str(k) for k in range(10)], name="made"))


def _learning(readable):
    """A function that prepares the learning of tasks by one path, as `interleaved` expects."""

    def prepare(config, tasks):
        seed_everything(0)
        learner = ARM(config, tasks[0].train.shape, 10)
        learner.readable = readable
        return lambda: _learn(learner, tasks)

    return prepare


def _learn(learner, tasks):
    trace = Trace(("loss", "objective"), progress=False)
    for task in tasks:
        trace.begin(learner, task.index)
        learner.learn(task, trace)
        trace.end()


# ---- the least: the products with weights alone, which either way has to compute


def _bare(config, tasks):
    """The same products in number and size, for fully connected networks."""
    both = [nets.build(config.net, tasks[0].train.shape, 10) for _ in range(2)]
    old, new = ([layer.weight.detach() for layer in (*net.hidden, net.head)] for net in both)
    sizes = config.batch_size, config.n_images + config.batch_size
    one, two = (torch.rand(n, old[0].shape[1]) for n in sizes)

    def work():
        for task in tasks:
            for _ in range(-(-len(task.train) // config.batch_size)):
                _update(new, one)
                for weights in (old, new) * (config.n_steps if task.index else 0):
                    _back(weights, _forward(weights, one)[-1])
                if task.index:
                    _forward(old, two)
                    _update(new, two)

    return work


def _forward(weights, x):
    found = [x]
    for weight in weights:
        found.append(found[-1] @ weight.T)
    return found


def _back(weights, gradient):
    found = [gradient]
    for weight in weights[::-1]:
        found.append(found[-1] @ weight)
    return found


def _update(weights, x):
    seen = _forward(weights, x)
    gradients = _back(weights[1:], seen[-1])[::-1]
    for weight, gradient, below in zip(weights, gradients, seen):
        weight.addmm_(gradient.T, below, alpha=-1e-6)
