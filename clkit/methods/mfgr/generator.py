"""The generator: noise to images, in the standardised pixels that the classifier takes."""

from itertools import pairwise

import torch
from torch import nn
from torch.nn import functional as F

from clkit.engine.learner import LearnerError

SMALL = (128, 128, 64)                                  # for 32x32 images: 8,423,939 parameters
LARGE = (256, 256, 128, 64, 32, 16)                     # for 128x128 images
LARGER = (*LARGE, 8)                                    # for 256x256 images, resized to 224x224


def start_side(shape, maps, side=None):
    """The side at which a generator starts; LearnerError if it cannot draw such images. See Generator."""
    side, doublings = side or shape[1], len(maps) - 1
    if not maps or shape[1] != shape[2] or side % 2**doublings:
        raise LearnerError(f"a generator with {doublings} doublings cannot draw {side}x{side} pixels for "
                           f"images of {shape[1]}x{shape[2]}: use square images, and g_maps or a g_side that "
                           f"fit")
    return side // 2**doublings


class Generator(nn.Module):
    """z (B, noise) -> images (B, C, H, W) of shape (C, H, W), standardised.

    maps: at the start, and after each doubling of the side by a nearest-neighbour upsampling and a 3x3
    convolution with batch normalisation and leaky ReLU.   side: of the images that it draws, which are
    resized to H pixels; None for H itself.

    The last batch normalisation has no parameters. In training mode, it makes each channel of a batch an
    image of mean 0 and variance 1, as standardised pixels have: no further scaling belongs between generator
    and classifier.
    """

    EPS = 0.8                                           # sic: see detail 3 of mfgr.py

    def __init__(self, shape, noise, maps, side=None):
        super().__init__()
        self.shape, self.noise, self.start = tuple(shape), noise, start_side(shape, maps, side)
        self.first = nn.Linear(noise, maps[0] * self.start**2)
        self.norm = nn.BatchNorm2d(maps[0])
        self.convs = nn.ModuleList(nn.Conv2d(a, b, 3, padding=1) for a, b in pairwise(maps))
        self.norms = nn.ModuleList(nn.BatchNorm2d(n, self.EPS) for n in maps[1:])
        self.image = nn.Conv2d(maps[-1], shape[0], 3, padding=1)
        self.scale = nn.BatchNorm2d(shape[0], affine=False)
        self.to(memory_format=torch.channels_last)

    def forward(self, z):
        x = self.norm(self.first(z).unflatten(1, (-1, self.start, self.start)))
        for conv, norm in zip(self.convs, self.norms):
            x = F.leaky_relu(norm(conv(F.interpolate(x, scale_factor=2.0))), 0.2)
        x = torch.tanh(self.image(x).to(z.dtype))                               # (B, C, side, side)
        x = self.scale(x)
        if x.shape[2:] == self.shape[1:]:
            return x
        return F.interpolate(x, self.shape[1:], mode="bilinear", align_corners=False)

    def draw(self, n):
        """n images (n, C, H, W) from new noise."""
        return self(torch.randn(n, self.noise, device=self.first.weight.device))
