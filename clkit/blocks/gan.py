"""Wasserstein GANs that draw a given class: the critic that also classifies, its losses, a generator, replay.

Images are scaled to [-1, 1]. The critic is the network D of Ostapenko et al. (2019), the generator that of
MeRGAN (Wu et al. 2018).
"""

import contextlib
from itertools import pairwise

import torch
from torch import nn
from torch.nn import functional as F

from clkit.blocks.nets import ResNet18


class TwoHeads(nn.Module):
    """Images (B, C, S, S) in [-1, 1] -> (critic's value (B,), logits (B, K)), by two heads on `features`.

    A subclass builds its trunk, and says how it draws it anew.
    """

    def __init__(self, size):
        super().__init__()
        self.value, self.classes = nn.Linear(size, 1), nn.Linear(size, 1)
        self.classes.weight.data = self.classes.weight.data[:0]                 # no class yet
        self.classes.bias.data = self.classes.bias.data[:0]

    def features(self, x):
        """x (B, C, S, S) -> (B, D)."""
        raise NotImplementedError

    def draw_anew(self):
        """Give the weights of the trunk new values; running statistics stay, as in the released code."""
        raise NotImplementedError

    def forward(self, x):
        features = self.features(x)
        return self.value(features)[:, 0], self.classes(features)

    @torch.no_grad()
    def grow(self, seen, anew):
        """Give the head of the classes `seen` rows; old ones keep their values. anew: draw all of D anew."""
        head = nn.Linear(self.classes.in_features, seen, device=self.value.weight.device)
        if not anew:
            known = len(self.classes.bias)
            head.weight[:known], head.bias[:known] = self.classes.weight, self.classes.bias
        for name in ("weight", "bias"):
            parameter = getattr(self.classes, name)
            parameter.data, parameter.grad = getattr(head, name).data, None
        self.value.reset_parameters()
        if anew:
            self.draw_anew()

    @contextlib.contextmanager
    def still(self):
        """A context in which batch normalisation uses the statistics of the batch and does not gather them.

        The running statistics are then those of the images that the classifier sees.
        """
        gather = [m for m in self.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
        for norm in gather:
            norm.track_running_stats = False
        try:
            yield
        finally:
            for norm in gather:
                norm.track_running_stats = True


class Critic(TwoHeads):
    """Network D of the images of digits and house numbers: section 4.2.

    Three convolutions without bias, of kernel 5 and stride 2, with `width`, 2 and 4 times as many maps, leaky
    ReLU, batch normalisation in the last two.
    """

    def __init__(self, shape, width, norm=True):
        maps = (shape[0], width, 2 * width, 4 * width)
        super().__init__(maps[-1] * (shape[1] // 8) ** 2)
        self.convs = nn.ModuleList(nn.Conv2d(a, b, 5, 2, 2, bias=False) for a, b in pairwise(maps))
        self.norms = nn.ModuleList(nn.BatchNorm2d(n) if norm else nn.Identity() for n in maps[2:])

    def features(self, x):
        x = F.leaky_relu(self.convs[0](x), 0.2)                                 # (B, width, S/2, S/2)
        for conv, norm in zip(self.convs[1:], self.norms):
            x = F.leaky_relu(norm(conv(x)), 0.2)
        return x.flatten(1)                                                     # (B, 4 width (S/8)^2)

    def draw_anew(self):
        for conv in self.convs:
            conv.weight.normal_(0, 0.02)
        for norm in self.norms:
            if isinstance(norm, nn.BatchNorm2d):
                norm.weight.fill_(1)
                norm.bias.zero_()


class ResidualCritic(TwoHeads):
    """Network D of ImageNet-50: section 4.2. ResNet18, then a wide layer with batch normalisation and ReLU.

    width: maps of the first stage, 64 in the paper; the wide layer has 32 times as many outputs, 2,048.
    """

    def __init__(self, shape, width):
        super().__init__(32 * width)
        self.trunk = ResNet18(shape, 1, width)
        self.trunk.head = nn.Identity()
        self.wide = nn.Linear(8 * width, 32 * width)
        self.norm = nn.BatchNorm1d(32 * width, momentum=0.01)

    def features(self, x):
        return F.relu(self.norm(self.wide(self.trunk.features(x))))             # (B, 32 width)

    def draw_anew(self):
        for module in (*self.trunk.modules(), self.wide, self.norm):
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                nn.init.ones_(module.weight)
                nn.init.zeros_(module.bias)
            elif isinstance(module, nn.Conv2d | nn.Linear):
                module.reset_parameters()


def critic_losses(critic, real, fake):
    """(value, penalty), scalars: E D(fake) - E D(real), and the mean of (|gradient of D| - 1)^2 between them.

    real, fake: (B, C, S, S). The penalty is that of Gulrajani et al. (2017).
    """
    share = torch.rand(len(real), 1, 1, 1, device=real.device)
    between = (share * real + (1 - share) * fake).requires_grad_()
    with critic.still():
        value = critic(fake)[0].mean() - critic(real)[0].mean()
        gradient, = torch.autograd.grad(critic(between)[0].sum(), between, create_graph=True)
    return value, (gradient.flatten(1).norm(dim=1) - 1).square().mean()


# ---- the classifier, on new images and replayed ones


class Replay:
    """Fixed sets of old images, of which each batch takes as many per set as it has new images.

    sets: [(images (N, C, S, S) in [-1, 1], labels (N,))], one for each old task or class; it may be empty.
    """

    def __init__(self, sets):
        self.sets = sets
        self.orders = None

    def shuffle(self):
        """Draw a new order for each set, for the next epoch."""
        self.orders = [torch.randperm(len(labels), device=labels.device) for _, labels in self.sets]

    def pool(self, x, y, start):
        """New images x (B, C, S, S), y (B,), and B images from `start` on in each set, in random order."""
        parts = [(x, y)]
        for (images, labels), order in zip(self.sets, self.orders):
            index = order[torch.arange(start, start + len(y), device=y.device) % len(order)]
            parts.append((images[index], labels[index]))
        mixed = torch.randperm(sum(len(labels) for _, labels in parts), device=y.device)
        return [torch.cat(part)[mixed] for part in zip(*parts)]


def signed(images):
    """uint8 images as float32 in [-1, 1]."""
    return 2 * (images.float() / 255) - 1


def labelled_noise(labels, classes, size):
    """Noise for images of these classes (B,): (B, size), the one-hot class, then entries from N(0, 1)."""
    z = torch.randn(len(labels), size, device=labels.device)
    z[:, :classes] = F.one_hot(labels, classes)
    return z


def classify(critic, optimizer, x, y, size):
    """Steps of the critic on the cross-entropy of x, y in chunks of `size`; their mean loss, detached."""
    losses = []
    for part_x, part_y in zip(x.split(size), y.split(size)):
        losses.append(F.cross_entropy(critic(part_x)[1], part_y))
        step(optimizer, losses[-1])
    return torch.stack(losses).detach().mean()


def step(optimizer, loss):
    """One step of an optimizer down the gradient of a loss."""
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
