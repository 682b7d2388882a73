"""What is done to the pixels of a batch: standardisation, and random views for training."""

import math
import numbers

import torch
from torch import nn
from torch.nn import functional as F

from clkit.errors import ClkitError


class Standardise(nn.Module):
    """Pixels in [0, 1] (B, C, H, W), minus the mean and divided by the standard deviation of each channel.

    mean, std: one number per channel, or one for all.   view: side of the central square that is taken, or 0
    for the whole image. ClkitError if the number of means does not fit the images, or if a deviation is not
    above 0.
    """

    def __init__(self, mean, std, channels, view=0):
        super().__init__()
        self.view = view
        if len(mean) != len(std) or len(mean) not in (1, channels) or not all(s > 0 for s in std):
            raise ClkitError(f"mean and std must have one number, or one for each channel of the images "
                             f"({channels}), above 0 for std, not {mean} and {std}")
        for name, values in (("mean", mean), ("std", std)):                     # settings, no state
            values = torch.tensor(values, device="cpu")[:, None, None]          # (C, 1, 1)
            self.register_buffer(name, values, persistent=False)

    def forward(self, x):
        x = centre(x, self.view) if self.view else x
        return (x - self.mean) / self.std


def crop_and_flip(pad=4, flip=True):
    """An augmentation: shift each image by up to `pad` pixels, filling with zeros, and mirror half of them.

    Returns a function of x (B, C, H, W), of any type, that preserves its shape. Random numbers come from
    torch's global random state on x's device: B row offsets, B column offsets, then B mirrorings.
    """
    if not isinstance(pad, numbers.Integral) or isinstance(pad, bool) or pad < 0:
        raise ClkitError(f"pad must be a whole number of at least 0, the most pixels that an image may move, "
                         f"not {pad!r}")

    def augment(x):
        B, C, H, W = x.shape
        rows = torch.randint(0, 2 * pad + 1, (B, 1), device=x.device)
        rows = rows + torch.arange(H, device=x.device)                          # (B, H)
        columns = torch.randint(0, 2 * pad + 1, (B, 1), device=x.device)
        across = torch.arange(W, device=x.device)
        if flip:
            mirrored = torch.randint(0, 2, (B, 1), device=x.device)
            across = across + mirrored * (W - 1 - 2 * across)
        columns = columns + across                                              # (B, W)
        wide = F.pad(x, (pad, pad, pad, pad))                                   # (B, C, H + 2 pad, W + 2 pad)
        index = rows[:, :, None] * (W + 2 * pad) + columns[:, None, :]          # (B, H, W)
        index = index.reshape(B, 1, H * W).expand(B, C, H * W)
        return wide.flatten(2).gather(2, index).view(B, C, H, W)

    return augment


def zoom_and_flip(side, area=(0.08, 1.0), aspect=(3 / 4, 4 / 3)):
    """An augmentation: a random part of each image, resized to side x side pixels, and half of them mirrored.

    Szegedy et al. 2015, as usual for ImageNet. The part has a share of the area and a ratio of width to
    height within these bounds, drawn uniformly, the ratio in its logarithm. A part that would not fit is as
    large as the image allows. Resizing is bilinear. Returns a function of x float (B, C, H, W).
    """
    def augment(x):
        B = len(x)
        share = torch.empty(B, device=x.device).uniform_(*area)
        ratio = torch.empty(B, device=x.device).uniform_(*map(math.log, aspect)).exp()
        size = torch.stack([(share * ratio).sqrt(), (share / ratio).sqrt()], 1).clamp(max=1)    # (B, 2)
        place = (2 * torch.rand(B, 2, device=x.device) - 1) * (1 - size)        # of the centre, in [-1, 1]
        mirrored = 1 - 2 * torch.randint(0, 2, (B,), device=x.device)
        theta = torch.zeros(B, 2, 3, device=x.device)
        theta[:, 0, 0], theta[:, 1, 1], theta[:, :, 2] = size[:, 0] * mirrored, size[:, 1], place
        grid = F.affine_grid(theta, (B, x.shape[1], side, side), align_corners=False)
        return F.grid_sample(x, grid, align_corners=False, padding_mode="border")

    return augment


def centre(x, side):
    """The central side x side pixels of images (B, C, H, W)."""
    top, left = ((size - side) // 2 for size in x.shape[2:])
    return x[:, :, top:top + side, left:left + side]
