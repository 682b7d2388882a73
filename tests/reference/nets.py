"""Networks that are small enough for loops, images in double precision, and gradients written out."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from clkit.blocks import nets
from clkit.data import ImageSet


class Normed(nn.Module):
    """A convolution with batch normalisation."""

    def __init__(self, shape, classes):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(shape[0], 4, 3, 2, 1, bias=False), nn.BatchNorm2d(4)
        self.head = nn.Linear(4, classes)

    def features(self, x):
        return F.relu(self.norm(self.conv(x))).mean((2, 3))

    def forward(self, x):
        return self.head(self.features(x))


@pytest.fixture(autouse=True)
def small_nets(monkeypatch):
    """Register the small networks, with one thread. Import this fixture into a test file to use it."""
    monkeypatch.setitem(nets.NETS, "tiny", lambda shape, classes: nets.MLP(shape, classes, (9, 7)))
    monkeypatch.setitem(nets.NETS, "small", lambda shape, classes: nets.MLP(shape, classes, (32,)))
    monkeypatch.setitem(nets.NETS, "linear", lambda shape, classes: nets.MLP(shape, classes, ()))
    monkeypatch.setitem(nets.NETS, "conv", lambda shape, classes: nets.ConvNet(shape, classes, (2, 3, 3, 2)))
    monkeypatch.setitem(nets.NETS, "norm", Normed)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


class Doubles(ImageSet):
    """Images in double precision."""

    def batches(self, size, **options):
        return [(x.double(), y) for x, y in super().batches(size, **options)]


def same(a, b):
    """Whether two networks have the same weights, bit for bit."""
    return all(torch.equal(p, q) for p, q in zip(a.parameters(), b.parameters(), strict=True))


def gradient_of(net, value):
    """The gradient of a scalar with respect to all parameters as a vector (P,), zero if there is none."""
    found = torch.autograd.grad(value, list(net.parameters()), retain_graph=True, allow_unused=True)
    return torch.cat(
        [torch.zeros_like(p).flatten() if g is None else g.flatten() for p, g in zip(net.parameters(), found)]
    )
