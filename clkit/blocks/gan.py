"""Wasserstein GANs that draw a given class: the critic that also classifies, its losses, a generator, replay.

Images are scaled to [-1, 1]. The critic is the network D of Ostapenko et al. (2019), the generator that of
MeRGAN (Wu et al. 2018).
"""

import contextlib
from itertools import pairwise

import torch
from torch import nn
from torch.nn import functional as F


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

    def gradient_of_value(self, x):
        """The gradient of the critic's values with respect to the images, (B, C, S, S), with its graph.

        x: (B, C, S, S). Batch normalisation uses the statistics of the batch, as in `still`.
        """
        x = x.detach().requires_grad_()
        with self.still():
            gradient, = torch.autograd.grad(self(x)[0].sum(), x, create_graph=True)
        return gradient

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
        self.to(memory_format=torch.channels_last)      # the faster layout for its convolutions

    def features(self, x):
        x = F.leaky_relu(self.convs[0](x), 0.2)                                 # (B, width, S/2, S/2)
        for conv, norm in zip(self.convs[1:], self.norms):
            x = F.leaky_relu(norm(conv(x)), 0.2)
        return x.flatten(1)                                                     # (B, 4 width (S/8)^2)

    def gradient_of_value(self, x):
        """As in TwoHeads, written out from the value back to the images, so that one backward pass does.

        Without batch normalisation only the slopes of the ReLU depend on x: then the way up needs no graph.
        """
        layers = []                                                             # (conv, back, slope)
        normed = isinstance(self.norms[0], nn.BatchNorm2d)
        with torch.set_grad_enabled(normed and torch.is_grad_enabled()):
            for conv, norm in zip(self.convs, (None, *self.norms)):
                x, back = normalised(conv(x), norm if normed else None)
                layers.append((conv, back, F.threshold(x.detach().sign(), 0, 0.2)))     # 1, or 0.2
                x = F.leaky_relu(x, 0.2)
        g = self.value.weight.view(1, *x.shape[1:]).expand_as(x)
        for conv, back, slope in reversed(layers):
            g = F.conv_transpose2d(back(slope * g), conv.weight, stride=2, padding=2, output_padding=1)
        return g                                                                # (B, C, S, S)

    def draw_anew(self):
        for conv in self.convs:
            conv.weight.normal_(0, 0.02)
        for norm in self.norms:
            if isinstance(norm, nn.BatchNorm2d):
                norm.weight.fill_(1)
                norm.bias.zero_()


def normalised(x, norm):
    """x (B, C, H, W) by the statistics of the batch, and the function that takes a gradient there back to x.

    norm: a BatchNorm2d, or None for x itself.
    """
    if norm is None:
        return x, lambda g: g
    places = (0, 2, 3)
    variance, mean = torch.var_mean(x, places, correction=0, keepdim=True)
    inverse = (variance + norm.eps).rsqrt()                                     # (1, C, 1, 1)
    unit, gamma = (x - mean) * inverse, norm.weight[:, None, None]

    def back(g):
        parts = g - g.mean(places, keepdim=True) - unit * (g * unit).mean(places, keepdim=True)
        return gamma * inverse * parts

    return gamma * unit + norm.bias[:, None, None], back


def critic_losses(critic, real, fake):
    """(value, penalty), scalars: E D(fake) - E D(real), and the mean of (|gradient of D| - 1)^2 between them.

    real, fake: (B, C, S, S). The penalty is that of Gulrajani et al. (2017).
    """
    share = torch.rand(len(real), 1, 1, 1, device=real.device)
    with critic.still():
        value = critic(fake)[0].mean() - critic(real)[0].mean()
    gradient = critic.gradient_of_value(share * real + (1 - share) * fake)      # (B, C, S, S)
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
