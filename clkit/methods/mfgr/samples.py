"""What is recorded of generated images: pictures, classes, confidence, how much they differ in a class."""

import torch

from clkit.blocks.memory import count_of_each
from clkit.methods.mfgr.losses import l_div

SHOWN = 8                                               # images of each class


def pictures(x):
    """Images (N, C, H, W) of any scale as bytes, each from its least to its largest value."""
    flat = x.flatten(1)
    low, high = flat.amin(1), flat.amax(1)                                      # (N,)
    unit = (x - low[:, None, None, None]) / (high - low).clamp(min=1e-12)[:, None, None, None]
    return (255 * unit).round().to(torch.uint8)


def summary(x, features, logits, classes):
    """A row of the table "samples", of images x (N, C, H, W) and the old network's answers to them.

    features (N, D), logits (N, old); classes: K, of which those to come are empty: count 0, nan, and black.
    """
    sure, labels = logits.softmax(1).max(1)                                     # (N,)
    counts = count_of_each(labels, classes)                                     # (K,)

    def mean(values):
        sums = values.new_zeros(classes, *values.shape[1:]).index_add_(0, labels, values)
        return sums / counts.view(-1, *(1,) * (values.dim() - 1))               # nan where there are none

    images = torch.zeros(classes, SHOWN, *x.shape[1:], dtype=torch.uint8, device=x.device)
    divergence = x.new_full((classes,), torch.nan)
    for label in range(logits.shape[1]):
        own = x[labels == label][:SHOWN]                                        # (n, C, H, W)
        images[label, :len(own)] = pictures(own)
        if len(own) > 1:
            divergence[label] = -l_div(own[:-1], own[1:])
    spread = mean(features.square()) - mean(features).square()                  # (K, D)
    return {"images": images, "counts": counts, "confidence": mean(sure), "spread": spread.mean(1),
            "divergence": divergence}
