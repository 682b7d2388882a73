"""The network D of DGM: a Wasserstein critic and a classifier on one trunk, and the losses of the critic."""

import contextlib
from itertools import pairwise

import torch
from torch import nn
from torch.nn import functional as F


class Critic(nn.Module):
    """Images (B, C, S, S) in [-1, 1] -> (critic's value (B,), logits (B, K)): section 4.2.

    Three convolutions without bias, of kernel 5 and stride 2, with `width`, 2 and 4 times as many maps, leaky
    ReLU, batch normalisation in the last two; a linear head for each output. The classes' head grows.
    """

    def __init__(self, shape, width, norm=True):
        super().__init__()
        maps, side = (shape[0], width, 2 * width, 4 * width), shape[1] // 8
        self.convs = nn.ModuleList(nn.Conv2d(a, b, 5, 2, 2, bias=False) for a, b in pairwise(maps))
        self.norms = nn.ModuleList(nn.BatchNorm2d(n) if norm else nn.Identity() for n in maps[2:])
        self.value = nn.Linear(maps[-1] * side**2, 1)
        self.classes = nn.Linear(maps[-1] * side**2, 1)
        self.classes.weight.data = self.classes.weight.data[:0]                 # no class yet
        self.classes.bias.data = self.classes.bias.data[:0]

    def features(self, x):
        x = F.leaky_relu(self.convs[0](x), 0.2)                                 # (B, width, S/2, S/2)
        for conv, norm in zip(self.convs[1:], self.norms):
            x = F.leaky_relu(norm(conv(x)), 0.2)
        return x.flatten(1)                                                     # (B, 4 width (S/8)^2)

    def forward(self, x):
        features = self.features(x)
        return self.value(features)[:, 0], self.classes(features)

    @torch.no_grad()
    def grow(self, seen, anew):
        """Give the classes' head `seen` rows, old ones with their values; anew: draw all of D anew.

        The statistics of batch normalisation stay, as in the released code.
        """
        head = nn.Linear(self.classes.in_features, seen, device=self.value.weight.device)
        if not anew:
            known = len(self.classes.bias)
            head.weight[:known], head.bias[:known] = self.classes.weight, self.classes.bias
        for name in ("weight", "bias"):
            parameter = getattr(self.classes, name)
            parameter.data, parameter.grad = getattr(head, name).data, None
        self.value.reset_parameters()
        for conv in self.convs if anew else ():
            conv.weight.normal_(0, 0.02)
        for norm in self.norms if anew else ():
            if isinstance(norm, nn.BatchNorm2d):
                nn.init.ones_(norm.weight)
                nn.init.zeros_(norm.bias)

    @contextlib.contextmanager
    def still(self):
        """Within it, batch normalisation takes the batch's statistics and does not gather them.

        What it gathers is then that of the images the classifier sees, and not of those a critic compares.
        """
        gather = [n for n in self.norms if isinstance(n, nn.BatchNorm2d)]
        for norm in gather:
            norm.track_running_stats = False
        try:
            yield
        finally:
            for norm in gather:
                norm.track_running_stats = True


def critic_losses(critic, real, fake):
    """(value, penalty), scalars: E D(fake) - E D(real), and the mean of (|gradient of D| - 1)^2 between them.

    real, fake: (B, C, S, S). Section 3.1; the penalty is that of Gulrajani et al. (2017).
    """
    share = torch.rand(len(real), 1, 1, 1, device=real.device)
    between = (share * real + (1 - share) * fake).requires_grad_()
    with critic.still():
        value = critic(fake)[0].mean() - critic(real)[0].mean()
        gradient, = torch.autograd.grad(critic(between)[0].sum(), between, create_graph=True)
    return value, (gradient.flatten(1).norm(dim=1) - 1).square().mean()
