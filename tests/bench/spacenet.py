"""SpaceNet on split MNIST beside the obvious implementation and bare matrix products; by number of tasks."""

import math
import time

import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from clkit.data import ImageSet
from clkit.methods.spacenet import Compact, Config, SpaceNet
from clkit.stream import Stream
from clkit.trace import Trace, seed_everything
from tests.bench.measure import interleaved, line, paired

TASKS = (5, 10, 20)
MEAN, STD = 0.1307, 0.3081


def spacenet(setup, images):
    """One seed of five tasks, as seconds of CPU time; then the time of a task in streams of 5, 10, 20 tasks.

    images: the training ImageSet of split MNIST.
    """
    config = Config() if len(images) > 1000 else Config(epochs=1)
    stream = Stream(images, images, (2,) * 5)
    seconds = interleaved({"SpaceNet.learn": lambda: _ours(config, stream),
                           "obvious: full masks, autograd, DataLoader": lambda: _obvious(config, stream),
                           "bare products of the compact blocks": lambda: _bare(config, stream)},
                          min(setup.repeats, 3), clock=time.process_time)
    mine, obvious, bare = seconds
    lines = [line("spacenet", mine, seconds[mine], "s CPU"),
             line("spacenet", obvious, seconds[obvious], "s CPU", paired(seconds[obvious], seconds[mine]),
                  ">= 8"),
             line("spacenet", bare, seconds[bare], "s CPU", paired(seconds[mine], seconds[bare]), "<= 1.5")]
    return lines + _by_tasks(config, images, setup.repeats)


def _ours(config, stream):
    seed_everything(0)
    learner = SpaceNet(config, stream.shape, stream.classes)
    return lambda: _learn(learner, stream)


def _learn(learner, stream):
    trace = Trace(("loss",), progress=False)
    for task in stream:
        trace.begin(learner, task.index)
        learner.learn(task, trace)
        trace.end()


def _by_tasks(config, images, repeats):
    """Seconds per task of equal size: 40 classes make 5, 10 or 20 tasks that reserve 16 neurons each."""
    labels, names = torch.arange(len(images)) % 40, [str(k) for k in range(40)]
    many = ImageSet(images.images, labels, names, name="40 classes")
    few = Config(reserved=(16, 16), epochs=config.epochs, connections=(10_000, 1_640, 80))
    streams = {f"a task, stream of {n} tasks": Stream(many, many, (2,) * n, order=range(2 * n))
               for n in TASKS}
    found = interleaved({label: lambda s=s: _ours(few, s) for label, s in streams.items()}, min(repeats, 3),
                        clock=time.process_time)
    seconds = {label: [t / n for t in found[label]] for label, n in zip(found, TASKS)}
    first, *others = seconds
    return [line("spacenet", first, seconds[first], "s CPU"),
            *(line("spacenet", label, seconds[label], "s CPU", paired(seconds[label], seconds[first]),
                   "<= 1.25") for label in others)]


# ---- the obvious way: the whole network, a mask of its size, and old weights put back after each step

def _obvious(config, stream):
    """The same algorithm on dense matrices: what one would write first."""
    seed_everything(0)
    net = nn.Sequential(nn.Linear(784, 400), nn.ReLU(), nn.Linear(400, 400), nn.ReLU(),
                        nn.Linear(400, stream.classes))
    return lambda: _dense(net, config, stream)


def _dense(net, config, stream):
    layers = [net[0], net[2], net[4]]
    optimizer = torch.optim.SGD(net.parameters(), lr=config.lr)
    start = [nn.init.xavier_uniform_(torch.empty_like(layer.weight)) for layer in layers]
    taken = [torch.zeros_like(w, dtype=torch.bool) for w in start]
    free = [torch.ones(784, dtype=torch.bool), *(torch.ones(400, dtype=torch.bool) for _ in range(2))]
    with torch.no_grad():
        for layer in layers:
            layer.weight.zero_()
            layer.bias.zero_()
    for task in stream:
        x = ((task.train.images / 255 - MEAN) / STD).flatten(1)
        loader = DataLoader(TensorDataset(x, task.train.labels), config.batch, shuffle=True)
        some = [f.nonzero()[:, 0][torch.randperm(int(f.sum()))[:80]] for f in free[1:]]
        chosen = [torch.arange(784), *some, torch.arange(task.first, task.seen)]
        masks = _allocate(layers, start, taken, chosen, config.connections)
        with torch.no_grad():
            layers[-1].weight[:task.first] = 0
        omega = [torch.zeros_like(w) for w in start]
        for epoch in range(config.epochs):
            for batch, y in loader:
                _step(net, layers, optimizer, batch, y, masks, omega, free, task)
            neurons = [omega[0].sum(0), omega[0].sum(1), omega[1].sum(1)]
            if epoch < config.epochs - 1:
                for i in range(2):
                    _drop_and_grow(layers[i], masks[i], taken[i], omega[i], neurons[i + 1], neurons[i],
                                   chosen[i + 1], chosen[i], config.rewire)
        for i, mask in enumerate(masks):
            taken[i] |= mask
            if i:
                free[i][neurons[i].argsort(descending=True)[:40]] = False


def _allocate(layers, start, taken, chosen, connections):
    masks = []
    for i, (layer, wanted) in enumerate(zip(layers, connections)):
        able = torch.zeros_like(taken[i])
        able[chosen[i + 1][:, None], chosen[i]] = True
        places = (able & ~taken[i]).flatten().nonzero()[:, 0]
        mask = torch.zeros_like(taken[i])
        mask.view(-1)[places[torch.randperm(len(places))[:wanted]]] = True
        with torch.no_grad():
            layer.weight[mask] = start[i][mask]
        masks.append(mask)
    return masks


def _step(net, layers, optimizer, x, y, masks, omega, free, task):
    before = [layer.weight.detach().clone() for layer in layers]
    biases = [layer.bias.detach().clone() for layer in layers]
    optimizer.zero_grad()
    F.cross_entropy(net(x), y).backward()
    gradients = [layer.weight.grad.clone() for layer in layers]
    optimizer.step()
    with torch.no_grad():
        for i, layer in enumerate(layers):
            layer.weight.copy_(torch.where(masks[i], layer.weight, before[i]))
            omega[i] += ((layer.weight - before[i]) * gradients[i] * masks[i]).abs()
            moves = free[i + 1] if i < 2 else torch.arange(len(layer.bias)) >= task.first
            layer.bias.copy_(torch.where(moves, layer.bias, biases[i]))


@torch.no_grad()
def _drop_and_grow(layer, mask, taken, omega, targets, sources, rows, columns, share):
    places = mask.flatten().nonzero()[:, 0]
    k = int(share * len(places))
    dropped = places[omega.flatten()[places].argsort()[:k]]
    able = torch.zeros_like(mask)
    able[rows[:, None], columns] = True
    gain = torch.where(able & ~taken & ~mask, torch.outer(targets, sources), -math.inf)
    grown = gain.flatten().argsort(descending=True)[:k]
    mask.view(-1)[dropped] = False
    layer.weight.view(-1)[dropped] = 0
    omega.view(-1)[dropped] = 0
    mask.view(-1)[grown] = True


# ---- the least: the products alone

def _bare(config, stream):
    """The matrix products of a seed, with operands that lie ready: of each step, and of each task once."""
    draw, learner = torch.rand, SpaceNet(config, stream.shape, stream.classes)
    ready = []
    for task in stream:
        chosen = learner.choose(task)
        part = Compact(learner, task.train, task.train.labels, task, chosen)
        one, two, three = part.matrices
        n, (B, w) = len(task.train), (config.batch, two.shape[1])
        old = (draw(n, 784), draw(784, w - 80)) if w > 80 else None
        ready.append((config.epochs * -(-n // B), old, (draw(B, 784), one.clone(), draw(B, w), two.clone(),
                      draw(B, 80), three.clone(), draw(B, 3))))
        part.put()
        learner.reserve(part.blocks, chosen)

    def work():
        for steps, old, (x, one, h, two, g, three, s) in ready:
            if old:
                old[0] @ old[1]                                                 # of old connections, once
            for _ in range(steps):
                x @ one.T, h @ two.T, g @ three.T                               # forward
                s[:, :2].T @ g, s @ three, g.T @ h[:, :80], g @ two, g.T @ x    # backward
    return work
