"""A conditional Wasserstein GAN of features: section 4.1 and appendix D, and one of maps for table 2.

Features u are (B, D), or (B, C, h, w) after an early stage of the network; all are 0 or more, as after a
ReLU. Linear layers start from N(0, 0.02^2) and biases from 0, except for what a critic adds by class.
"""

from itertools import pairwise

import torch
from torch import nn
from torch.nn import functional as F

SLOPE = 0.2                                             # of the leaky ReLU below 0


# ---- features: fully connected networks

class Generator(nn.Module):
    """G: noise z (B, nz), classes c (B,) -> features (B, D), by way of two hidden layers."""

    def __init__(self, size, classes, nz, hidden):
        super().__init__()
        self.nz, self.classes = nz, classes
        self.layers = nn.ModuleList([nn.Linear(nz + classes, hidden), nn.Linear(hidden, hidden)])
        self.out = nn.Linear(hidden, size[0])
        start(self)

    def noise(self, n):
        """n times z: (n, nz)."""
        return torch.randn(n, self.nz, device=self.out.weight.device)

    def forward(self, z, c):
        h = torch.cat([z, F.one_hot(c, self.classes)], 1)                       # (B, nz + K)
        for layer in self.layers:
            h = F.leaky_relu(layer(h), SLOPE)                                   # (B, hidden)
        return F.relu(self.out(h))


class Critic(nn.Module):
    """D: features u (B, D), classes c (B,) -> values (B,): (v + P[c]) h(u) + b (Miyato and Koyama 2018)."""

    def __init__(self, size, classes, hidden, depth=2):
        super().__init__()
        widths = (size[0], *[hidden] * depth)
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(widths))
        self.value = nn.Linear(hidden, 1)
        start(self)
        self.by_class = nn.Parameter(torch.empty(classes, hidden, device="cpu"))        # P
        nn.init.uniform_(self.by_class, -classes**-0.5, classes**-0.5)

    def top(self, c):
        """What the last hidden layer is multiplied with: v + P[c], (B, hidden)."""
        return self.value.weight + F.embedding(c, self.by_class)

    def forward(self, u, c):
        for layer in self.layers:
            u = F.leaky_relu(layer(u), SLOPE)                                   # (B, hidden)
        return (u * self.top(c)).sum(1) + self.value.bias

    def gradient_of_value(self, u, c):
        """The gradient of the values with respect to u, (B, D), with its graph in the weights.

        D is piecewise linear, so only the slopes of its leaky ReLUs depend on u. Written out, the gradient
        needs no second backward pass.
        """
        slopes = []
        with torch.no_grad():
            for layer in self.layers:
                h = layer(u)
                slopes.append(F.threshold(h.sign(), 0, SLOPE))         # 1, or SLOPE
                u = h * slopes[-1]
        g = self.top(c)
        for layer, slope in zip(reversed(self.layers), reversed(slopes)):
            g = (g * slope) @ layer.weight
        return g


# ---- maps: convolutional networks

def sides(side):
    """The sides of maps from 4 pixels or fewer up to `side`, each half the next, rounded up."""
    found = [side]
    while found[0] > 4:
        found.insert(0, -(-found[0] // 2))
    return found


class MapGenerator(nn.Module):
    """G of maps: a linear layer gives 4x4 maps; the side doubles before each of some 3x3 convolutions.

    The first maps are hidden / 2 in number. Each convolution halves it, down to that of the maps of the image
    network; a 1x1 convolution follows the last one.
    """

    def __init__(self, size, classes, nz, hidden):
        super().__init__()
        self.nz, self.classes, self.sides = nz, classes, sides(size[1])
        widths = [hidden // 2, *(max(hidden // 2 >> k, size[0]) for k in range(1, len(self.sides)))]
        self.first = nn.Linear(nz + classes, widths[0] * self.sides[0] ** 2)
        self.convs = nn.ModuleList(nn.Conv2d(a, b, 3, 1, 1) for a, b in pairwise(widths))
        self.out = nn.Conv2d(widths[-1], size[0], 1)
        start(self)

    noise = Generator.noise

    def forward(self, z, c):
        h = F.leaky_relu(self.first(torch.cat([z, F.one_hot(c, self.classes)], 1)), SLOPE)
        h = h.unflatten(1, (-1, self.sides[0], self.sides[0]))                  # (B, hidden / 2, 4, 4)
        for conv, side in zip(self.convs, self.sides[1:]):
            h = F.leaky_relu(conv(F.interpolate(h, (side, side))), SLOPE)
        return F.relu(self.out(h))                                              # (B, C, h, w)


class MapCritic(Critic):
    """D of maps: 3x3 convolutions of stride 2 down to 4x4, a hidden layer, and the values as in Critic."""

    def __init__(self, size, classes, hidden):
        down = sides(size[1])
        widths = [size[0], *(min(size[0] << k, hidden // 2) for k in range(1, len(down)))]
        super().__init__((widths[-1] * down[0] ** 2,), classes, hidden, depth=1)
        self.convs = nn.ModuleList(nn.Conv2d(a, b, 3, 2, 1) for a, b in pairwise(widths))
        start(self.convs)

    def forward(self, u, c):
        for conv in self.convs:
            u = F.leaky_relu(conv(u), SLOPE)
        return super().forward(u.flatten(1), c)

    def gradient_of_value(self, u, c):
        """As in Critic, by a second backward pass."""
        u = u.detach().requires_grad_()
        gradient, = torch.autograd.grad(self(u, c).sum(), u, create_graph=True)
        return gradient


@torch.no_grad()
def start(module):
    """Give the linear layers and convolutions of a module their start values."""
    for layer in module.modules():
        if isinstance(layer, nn.Linear | nn.Conv2d):
            layer.weight.normal_(0, 0.02)
            layer.bias.zero_()


# ---- losses

def critic_losses(critic, real, fake, c):
    """(value, penalty), scalars: equation 1, and the mean of (|gradient of D| - 1)^2 between real and fake.

    real, fake: features, both of the classes c (B,).
    """
    share = torch.rand(len(c), *[1] * (real.dim() - 1), device=c.device)        # one for each sample
    gradient = critic.gradient_of_value(share * real + (1 - share) * fake, c)
    value = critic(fake, c).mean() - critic(real, c).mean()
    return value, (gradient.flatten(1).norm(dim=1) - 1).square().mean()


def alignment(generator, old, z, c):
    """Replay alignment, equation 3: squared differences from the old generator, summed over samples and D."""
    with torch.no_grad():
        target = old(z, c)
    return (generator(z, c) - target).square().sum()


# ---- Gaussian class prototypes

class ClassGaussians(nn.Module):
    """Mean and spread of the features of each class, as they were when the class was learned.

    kind: "scalar", one number of noise for all dimensions of a sample, as released; "diag", one for each;
    "full", a covariance.   Buffers: mean (seen, D); spread, standard deviations (seen, D), or a factor L of
    the covariance, L L^T, (seen, D, D).
    """

    def __init__(self, kind, size):
        super().__init__()
        self.kind = kind
        self.register_buffer("mean", torch.zeros(0, size, device="cpu"))
        self.register_buffer("spread", torch.zeros(0, *[size] * (2 if kind == "full" else 1), device="cpu"))

    @torch.no_grad()
    def add(self, features, labels, new):
        """Measure classes, range(first, seen), from features (N, D) and their labels (N,)."""
        for label in new:
            found = features[labels == label]
            spread = factor(found) if self.kind == "full" else found.std(0, correction=0)
            self.mean = torch.cat([self.mean, found.mean(0, keepdim=True)])
            self.spread = torch.cat([self.spread, spread[None]])

    def draw(self, c):
        """Features (B, D) of classes c (B,)."""
        mean, spread = self.mean[c], self.spread[c]
        e = torch.randn(len(c), 1 if self.kind == "scalar" else mean.shape[1], device=c.device)
        return mean + (torch.einsum("bij,bj->bi", spread, e) if self.kind == "full" else spread * e)


def factor(features, ridge=1e-4):
    """L (D, D) with L L^T = covariance of features (N, D) + ridge I; the ridge makes it positive definite."""
    gap = (features - features.mean(0)).double()
    covariance = gap.T @ gap / len(gap)
    covariance.diagonal().add_(ridge)
    return torch.linalg.cholesky(covariance).to(features.dtype)
