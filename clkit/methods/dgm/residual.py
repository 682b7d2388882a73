"""The generator of ImageNet-50: a masked linear layer and three residual blocks under masks."""

import math
from itertools import pairwise

import torch
from torch import nn
from torch.nn import functional as F

from clkit.methods.dgm.masked import MaskedGenerator

BLOCKS = 3
DEPTH = 1 + 2 * BLOCKS                                  # layers of the chain: linear, then two for each block


class ResidualGenerator(MaskedGenerator):
    """z (B, nz) -> images (B, C, S, S) in [-1, 1]: section 4.2, with 364,544 masked weights at width 64.

        x <- masked linear layer, nz -> width maps of S/8 x S/8                layer 0
        for each block b = 0, 1, 2:                                            layers 2b + 1, 2b + 2, 7 + b
            y <- 3x3 convolution of twice the size of ReLU(BN(x))
            y <- 3x3 convolution of ReLU(BN(y))
            x <- y + twice the size of shortcut(x)
        tanh(3x3 convolution of ReLU(BN(x))), with weights of the image's class

    The linear layer is a transposed convolution of one pixel: a channel is (S/8)^2 of its units, so that it
    grows by whole maps, the last ones. A shortcut is the identity until the two widths of its block differ;
    from that task on it is a 1x1 convolution under a mask, whose weights exist, and count, from the start.
    Its outputs and those of the second convolution are as many: the larger need decides how both grow. Old
    tasks keep the identity. Both sizes of equation 6 are counted in weights. The mask of a channel can only
    act before batch normalisation, because identities pass by the ReLU.
    """

    later_logit = 0.006                                 # a weak preference for what is there already

    def __init__(self, shape, nz, width, unit):
        kernels = (shape[1] // 8, *(3,) * (DEPTH - 1), *(1,) * BLOCKS)
        shortcuts = ((2 * b + 1, 2 * b + 3) for b in range(BLOCKS))
        links = (*pairwise(range(DEPTH + 1)), *shortcuts)
        super().__init__(shape, (nz, *(width,) * DEPTH), kernels, links, unit)

    @property
    def size(self):
        """S_t and S_free in masked weights."""
        before = (self.start[i] * self.start[j] * k**2 for (i, j), k in zip(self.links, self.kernels))
        return sum(w.numel() for w in self.weights), sum(before)

    def new_heads(self, classes):
        """One for each class of the task, (classes, C, in, 3, 3)."""
        shape = (classes, self.image_channels, self.widths[-1], 3, 3)
        heads = torch.empty(shape, device=self.weight0.device)
        for head in heads:
            nn.init.xavier_uniform_(head, math.sqrt(2))
        return heads

    def draw(self, z, weights, gates, norms, head, index, training=False):
        def layer(l, x):
            """x (B, in, H, W) -> (B, out, H, W)."""
            options = {"padding": self.kernels[l] // 2}
            return self.convolved(_convolution, x, weights[l], gates[l], **options)

        x = self.convolved(F.conv_transpose2d, z[:, :, None, None], weights[0], gates[0])
        for b in range(BLOCKS):
            y = layer(2 * b + 1, _larger(self.normalised(x, norms[2 * b], training)))
            y = layer(2 * b + 2, self.normalised(y, norms[2 * b + 1], training))
            short = x if gates[DEPTH + b] is None else layer(DEPTH + b, x)      # (B, out, H, W)
            x = y + _larger(short)                                              # (B, out, 2H, 2W)
        x = self.normalised(x, norms[-1], training)
        x = F.conv2d(x, head.flatten(0, 1), padding=1)                          # of every class of the task
        return torch.tanh(x.unflatten(1, head.shape[:2])[torch.arange(len(z), device=z.device), index])


def _convolution(x, weight, padding):
    return F.conv2d(x, weight.transpose(0, 1), padding=padding)


def _larger(x):
    return F.interpolate(x, scale_factor=2, mode="nearest")
