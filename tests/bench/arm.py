"""ARM on MNIST and on images of CIFAR-10's size, beside the obvious implementation and bare products."""

import copy
import time

import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from clkit import nets
from clkit.data import ImageSet
from clkit.methods.arm import ARM, Config
from clkit.stream import Stream, Task
from clkit.trace import Trace, seed_everything
from tests.bench.measure import interleaved, line, paired

LEAST = torch.finfo(torch.float64).eps                                          # of a mean probability


def arm(setup, images):
    """Seconds of CPU time: five tasks of MNIST; then one batch of images of CIFAR-10's size.

    images: the training ImageSet of MNIST. A task has 100 of them, which makes a tenth of a seed of
    MNIST-5k-5; nothing is recalled in the first one. The batch of the other part belongs to a second task and
    is made of random bytes.
    """
    mnist = list(Stream(images, images, (2,) * 5, cap=50, arrival=0))
    shape, descent = ((3, 32, 32), 10) if len(images) > 1000 else ((3, 8, 8), 2)
    cifar = Config(net="resnet18", lr=0.01, image_lr=10.0, images=100, descent=descent)         # table 4
    return (_beside(setup, "MLP, M = 10, five tasks", Config(), mnist, ">= 5", _bare)
            + _beside(setup, "ResNet-18, M = 100, one batch", cifar, [_second_task(shape)], ">= 3"))


def _beside(setup, what, config, tasks, target, least=None):
    """Lines of both ways to learn the tasks, and of the least that they can take, if there is one."""
    ways = {"ARM.learn": _ours, "obvious": _obvious} | ({"bare products": least} if least else {})
    seconds = interleaved({name: lambda way=way: way(config, tasks) for name, way in ways.items()},
                          min(setup.repeats, 3), clock=time.process_time)
    mine, obvious, *bare = seconds.values()
    return [line("arm", f"ARM.learn: {what}", mine, "s CPU"),
            line("arm", f"obvious: {what}", obvious, "s CPU", paired(obvious, mine), target),
            *(line("arm", f"bare products: {what}", b, "s CPU", paired(mine, b)) for b in bare)]


def _second_task(shape, n=10):
    """A Task number 1 with one batch of random bytes."""
    draw = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (n, *shape), generator=draw, dtype=torch.uint8)
    return Task(1, 2, 4, ImageSet(images, 2 + torch.arange(n) % 2, [str(k) for k in range(10)], name="made"))


def _ours(config, tasks):
    seed_everything(0)
    learner = ARM(config, tasks[0].train.shape, 10)
    return lambda: _learn(learner, tasks)


def _learn(learner, tasks):
    trace = Trace(("loss", "objective"), progress=False)
    for task in tasks:
        trace.begin(learner, task.index)
        learner.learn(task, trace)
        trace.end()


def _obvious(config, tasks):
    seed_everything(0)
    way = Obvious(config, nets.build(config.net, tasks[0].train.shape, 10))
    return lambda: [way.learn(task.index, task.train.images / 255, task.train.labels) for task in tasks]


# ---- the obvious way: two networks, autograd over all of it, M images in the batch, each term by itself

def places(n, m):
    """Which of n images the m ones begin as."""
    return torch.randint(n, (m,)) if m > n else torch.randperm(n)[:m]


class Obvious:
    """ARM with its usual choices, as one would write it first; `log` holds the numbers of each step."""

    def __init__(self, config, net, draw=places):
        self.config, self.net, self.draw, self.log = config, net, draw, []
        stem = next((m for m in net.modules() if isinstance(m, nn.BatchNorm2d)), None)
        if stem is not None:
            stem.momentum = None
        self.sgd = torch.optim.SGD(net.parameters(), lr=config.lr)

    def learn(self, index, images, labels):
        """Task number `index`: images (N, C, H, W) and labels (N,), in this order."""
        old = copy.deepcopy(self.net)
        for x, y in DataLoader(TensorDataset(images, labels), batch_size=self.config.batch):
            self.step(F.cross_entropy(self.net(x), y))
            if index:
                recalled = self.recall(x, y, old)
                self.step(self.config.replay * self.soft(recalled, old)
                          + self.config.distill * self.soft(x, old))

    def step(self, loss):
        self.sgd.zero_grad()
        loss.backward()
        self.sgd.step()
        self.log.append({"loss": loss.item()})

    def soft(self, x, old):
        """Cross-entropy with the outputs of the old network."""
        with torch.no_grad():
            target = old(x).softmax(1)
        return -(target * self.net(x).log_softmax(1)).sum(1).mean()

    def recall(self, x, y, old):
        """M images (M, C, H, W) for the batch x (B, C, H, W), y (B,)."""
        images = x[self.draw(len(x), self.config.images)]
        for _ in range(self.config.descent):
            images.requires_grad_()
            slope, = torch.autograd.grad(self.objective(images, y, old), images)
            images = (images - self.config.image_lr * slope).detach()
        return images

    def objective(self, x, y, old):
        """What the images x (M, C, H, W) for a batch with the labels y (B,) are to minimise."""
        config, present = self.config, y.unique().tolist()
        o, n = old(x), self.net(x)                                              # (M, K)
        p, q = o.softmax(1), n.softmax(1)
        m = (p + q) / 2
        of_old = F.kl_div(o.log_softmax(1), m, reduction="batchmean")
        of_new = F.kl_div(n.log_softmax(1), m, reduction="batchmean")
        local_old = local_new = 0
        for k in present:
            label = torch.full((len(x),), k)
            local_old = local_old - F.cross_entropy(o, label) / len(present)
            local_new = local_new - F.cross_entropy(n, label) / len(present)
        terms = {"divergence": config.divergence_weight * (1 - (of_old + of_new) / 2),
                 "local_old": config.local_old * local_old, "local_new": config.local_new * local_new}
        mean = p.mean(0).clamp(min=LEAST)                                       # (K,)
        terms["diversity"] = config.diversity * (mean * mean.log()).sum()
        terms["sharpness"] = config.sharpness * F.cross_entropy(o, o.argmax(1))
        terms["size"] = config.size * x.flatten(1).norm(dim=1).mean() / x[0].numel()
        down, across = x[:, :, 1:] - x[:, :, :-1], x[..., 1:] - x[..., :-1]
        terms["variation"] = config.variation * 2 * (down.square().mean() + across.square().mean())
        self.log.append({name: term.item() for name, term in terms.items()})
        return sum(terms.values())


# ---- the least: the products with weights alone, which either way has to compute

def _bare(config, tasks):
    """The same number of products of the same sizes, for fully connected networks."""
    both = [nets.build(config.net, tasks[0].train.shape, 10) for _ in range(2)]
    old, new = ([layer.weight.detach() for layer in (*net.hidden, net.head)] for net in both)
    one, two = (torch.rand(n, old[0].shape[1]) for n in (config.batch, config.images + config.batch))

    def work():
        for task in tasks:
            for _ in range(-(-len(task.train) // config.batch)):
                _update(new, one)
                for weights in (old, new) * (config.descent if task.index else 0):
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


def _back(weights, slope):
    found = [slope]
    for weight in weights[::-1]:
        found.append(found[-1] @ weight)
    return found


def _update(weights, x):
    seen = _forward(weights, x)
    slopes = _back(weights[1:], seen[-1])[::-1]
    for weight, slope, below in zip(weights, slopes, seen):
        weight.addmm_(slope.T, below, alpha=-1e-6)
