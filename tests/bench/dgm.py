"""DGM on MNIST of 32x32 pixels against the obvious implementation and bare products; its cost by task.

`python -m tests.bench.dgm ours|reference N` learns a task of N images and prints its peak memory.
"""

import copy
import sys
import time

import torch
from torch.nn import functional as F

from clkit.blocks.gan import signed
from clkit.data import ImageSet
from clkit.data.stream import Task
from clkit.engine.seeding import seed_everything
from clkit.engine.trace import Trace
from clkit.methods.dgm.dgm import DGM, Config
from tests.bench.measure import interleaved, line, paired
from tests.bench.memory import peak
from tests.reference.dgm import Reference

FIFTH = 4  # the task with four old classes


def dgm(setup, images, process):
    """CPU seconds of an iteration of the fifth task; then the two parts of an iteration by task; then memory.

    images: the training ImageSet of MNIST.   process: a function that runs Python and returns its output.
    """
    x = F.pad(images.images[: 128 if len(images) > 1000 else 4], (2, 2, 2, 2))
    config, repeats = config_for(len(x)), min(setup.repeats, 3)
    return _beside(config, x, repeats) + _by_task(config, x, repeats) + _memory(process, len(x), repeats)


def config_for(n):
    """DGMw on MNIST as released, with two epochs; for fewer images than two batches, narrow networks."""
    return Config(epochs=2) if n >= 128 else Config(epochs=2, batch_size=2, d_width=4, g_width=2)


def grown(config, tasks):
    """A learner after some tasks: masks that half of the weights have, and the growth that follows."""
    seed_everything(0)
    learner = DGM(config, (1, 32, 32), 10)
    for k in range(tasks):
        learner.generator.begin()
        with torch.no_grad():
            for e in learner.generator.logits:
                e.normal_()
        trace = Trace(progress=False)
        trace.begin(learner, k)
        learner.finish(Task(k, k, k + 1, None), trace)
    return learner


def ours(learner, x):
    """A function that learns the next task from images (N, 1, 32, 32); the learner itself stays."""
    learner, k = copy.deepcopy(learner), len(learner.ends)
    names = [str(label) for label in range(10)]
    task = Task(k, k, k + 1, ImageSet(x, torch.full((len(x),), k), names, name="one digit"))
    trace = Trace(("loss",), progress=False)
    trace.begin(learner, k)
    return lambda: learner.learn(task, trace)


def reference(learner, x):
    """The same by the reference."""
    other, k = Reference(learner, len(learner.ends)), len(learner.ends)
    return lambda: other.learn(signed(x), k)


def _beside(config, x, repeats):
    learner = grown(config, FIFTH)
    found = interleaved(
        {
            "an iteration with four old classes": lambda: ours(learner, x),
            "reference: full widths, double backward": lambda: reference(learner, x),
            "bare products": lambda: _bare(learner, config),
        },
        repeats,
        clock=time.process_time,
    )
    iterations = config.epochs * -(-len(x) // config.batch_size)
    seconds = {label: [s / iterations for s in found[label]] for label in found}
    seconds["bare products"] = found["bare products"]
    mine, theirs, bare = seconds
    return [
        line("dgm", mine, seconds[mine], "s CPU"),
        line("dgm", theirs, seconds[theirs], "s CPU", paired(seconds[theirs], seconds[mine]), ">= 1.1"),
        line("dgm", bare, seconds[bare], "s CPU", paired(seconds[mine], seconds[bare]), "<= 1.5"),
    ]


# ---- the least: the convolutions that either way has to compute


def _bare(learner, config):
    """The convolutions of one iteration, on prepared operands."""
    z, x = torch.rand(config.batch_size, config.nz, 1, 1), torch.rand(config.batch_size, *learner.shape)
    critic = [_Layer(c.weight, False, 2, 2) for c in learner.critic.convs]
    shapes = [(w, *s) for w, s in zip(learner.generator.weights, learner.generator.strides)]
    head = torch.rand(learner.generator.widths[-1], x.shape[1], 4, 4)
    generator = [_Layer(w, True, *s) for w, *s in [*shapes, (head, 2, 1)]]
    for layers, first in ((critic, x), (generator, z)):
        for layer in layers:
            first = layer.take(first)
    up, down, weights = (
        lambda layers, part=part: [getattr(l, part)() for l in layers] for part in _Layer.PARTS
    )

    def work():
        for _ in range(
            len(learner.ends) + 3
        ):  # the classifier's chunks, fakes, new images; penalty, first order
            up(critic), weights(critic), down(critic[1:])
        (
            down(critic),
            up(critic),
            weights(critic),
        )  # the gradient with respect to images, and its own gradients
        up(generator), up(generator), up(critic), down(critic)
        weights(generator), down(generator[1:])

    return work


class _Layer:
    """A convolution with operands of its sizes: forwards, and its gradients for inputs and for weights."""

    PARTS = "forward", "for_inputs", "for_weights"

    def __init__(self, weight, transposed, stride, padding):
        self.weight, self.options = weight.detach(), (None, stride, padding)
        self.to = F.conv_transpose2d if transposed else F.conv2d
        self.rest = [stride] * 2, [padding] * 2, [1, 1], transposed, [0, 0], 1

    def take(self, x):
        self.x = x
        self.y = self.forward()
        return self.y

    def forward(self):
        return self.to(self.x, self.weight, *self.options)

    def for_inputs(self):
        return self._backward([True, False, False])

    def for_weights(self):
        return self._backward([False, True, False])

    def _backward(self, wanted):
        return torch.ops.aten.convolution_backward(self.y, self.x, self.weight, None, *self.rest, wanted)


# ---- the parts of an iteration, and memory


def _by_task(config, x, repeats, times=2):
    """Seconds of the steps of critic and generator, and of the classifier's for each class, by task."""
    learners = {k: grown(config, k) for k in (0, FIFTH, 9)}
    parts = {}
    for k, learner in learners.items():
        parts[f"critic and generator, {k} old classes"] = lambda o=learner: _critic_and_generator(o, x, times)
    for k, learner in learners.items():
        parts[f"classifier for each class, {k} old classes"] = lambda o=learner: _classifier(o, x, times)
    found = interleaved(parts, repeats, clock=time.process_time)
    seconds = {label: [s / times for s in values] for label, values in found.items()}
    for k in learners:
        label = f"classifier for each class, {k} old classes"
        seconds[label] = [s / (k + 1) for s in seconds[label]]
    lines = []
    for i, label in enumerate(seconds):
        first = list(seconds)[i - i % 3]
        ratio = (paired(seconds[label], seconds[first]), "<= 1.5") if label != first else ()
        lines.append(line("dgm", label, seconds[label], "s CPU", *ratio))
    return lines


def _begun(learner, x):
    """The learner in the next task: itself, both optimisers, a batch of its images and classes."""
    learner, k = copy.deepcopy(learner), len(learner.ends)
    learner.critic.grow(k + 1, True)
    optimizers = [
        torch.optim.Adam(p, lr=1e-3, fused=True)
        for p in (learner.generator.begin(), learner.critic.parameters())
    ]
    batch = signed(x[: learner.config.batch_size])
    return learner, *optimizers, batch, torch.full((len(batch),), k)


def _critic_and_generator(learner, x, times):
    learner, optimizer_g, optimizer_d, x, y = _begun(learner, x)

    def work():
        for _ in range(times):
            gates = learner.gates(2.0)
            learner.criticise(optimizer_d, x, y, gates)
            learner.generate(optimizer_g, y, gates, 2.0, 10.0)

    return work


def _classifier(learner, x, times):
    learner, _, optimizer_d, x, y = _begun(learner, x)
    pool, labels = (torch.cat([part] * (len(learner.ends) + 1)) for part in (x, y))
    return lambda: [learner.classify(optimizer_d, pool, labels, len(y)) for _ in range(times)]


def _memory(process, n, repeats):
    """Peak memory of both sides beyond importing torch, in processes of their own."""
    found = {side: [] for side in ("ours", "reference")}
    for _ in range(repeats):
        only = int(process(["-m", "tests.bench.memory", "torch"]).split()[-1])
        for side, values in found.items():
            values.append((int(process(["-m", "tests.bench.dgm", side, str(n)]).split()[-1]) - only) / 1e6)
    mine, theirs = found.values()
    return [
        line("dgm", "peak beyond torch: reference", theirs, "MB"),
        line("dgm", "peak beyond torch", mine, "MB", paired(mine, theirs), "<= 1"),
    ]


if __name__ == "__main__":
    torch.set_num_threads(1)
    side, n = sys.argv[1], int(sys.argv[2])
    made = torch.randint(0, 256, (n, 1, 32, 32), dtype=torch.uint8)
    {"ours": ours, "reference": reference}[side](grown(config_for(n), FIFTH), made)()
    print(peak())
