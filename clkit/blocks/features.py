"""Features of a frozen network, and what a method may keep of a class instead of its images."""

import torch

from clkit.blocks.memory import count_of_each


def features_of(net, images, size=500):
    """Features (N, D) of an ImageSet in its own order, without gradients; `net` should be in eval mode.

    net: a module with features(x float (B, C, H, W) in [0, 1]) -> (B, D).
    """
    with torch.no_grad():
        return torch.cat([net.features(x) for x, _ in images.batches(size, shuffle=False)])


def class_means(features, labels, classes):
    """Means (K, D) of the features (N, D) of the classes 0 .. K - 1, none of them empty; labels (N,)."""
    sums = features.new_zeros(classes, features.shape[1]).index_add_(0, labels, features)
    return sums / count_of_each(labels, classes)[:, None]
