"""The generator of digits and house numbers: three transposed convolutions under masks (figure 1)."""

import math
from itertools import pairwise

import torch
from torch import nn
from torch.nn import functional as F

from clkit.methods.dgm.masked import MaskedGenerator


class GrowingGenerator(MaskedGenerator):
    """z (B, nz) -> images (B, C, S, S) in [-1, 1], S = 8 * kernel of the first layer: figure 1, section 3.1.

    Three masked layers, each followed by batch normalisation and a ReLU, and an image head for the task
    without mask: kernels of (S/8, 4, 4, 4). Both sizes of equation 6 are counted in channels.
    """

    def __init__(self, shape, nz, width, unit, gate):
        widths, kernels = (nz, 4 * width, 2 * width, width), (shape[1] // 8, 4, 4)
        super().__init__(shape, widths, kernels, tuple(pairwise(range(4))), unit, gate)
        self.strides = ((1, 0), (2, 1), (2, 1))         # and padding

    def new_heads(self, classes):
        """One for all classes of the task, (in, C, 4, 4)."""
        head = torch.empty(self.widths[-1], self.image_channels, 4, 4, device=self.weight0.device)
        return nn.init.xavier_uniform_(head, math.sqrt(2))

    def draw_weights(self, weight):
        return weight.normal_(0, 0.02) if self.unit == "weight" else super().draw_weights(weight)

    def draw(self, z, weights, gates, norms, head, index, training=False):
        x = z[:, :, None, None]                                                 # (B, nz, 1, 1)
        for weight, gate, norm, (stride, padding) in zip(weights, gates, norms, self.strides):
            x = self.convolved(F.conv_transpose2d, x, weight, gate, stride=stride, padding=padding)
            x = self.normalised(x, norm, training)                              # (B, out, H, W)
            if self.unit == "channel" and self.gate == "after":
                x = x * gate[:, None, None]
        return torch.tanh(F.conv_transpose2d(x, head, stride=2, padding=1))
