"""How much each weight of F matters for a task: EWC and MAS in place of distillation (table 3)."""

import torch
from torch.nn import functional as F

from clkit.blocks.functional import sum_over_set


def importance(net, images, seen, kind):
    """Mean over the images of (d log p / d theta)^2 ("ewc") or |d |logits| / d theta| ("mas"): (P,).

    p is the probability of the class that the network finds likely.   net: of images in [0, 1]; images: an
    ImageSet; seen: the number of classes whose logits count. P follows net.parameters().
    """
    of, errors = {"ewc": (torch.square, of_likely), "mas": (torch.abs, of_norm)}[kind]
    return sum_over_set(of, net, images, seen, errors) / len(images)


def of_likely(logits, y):
    """The gradient of -log p of the likely class in the logits (B, K): (1, B, K)."""
    p = F.softmax(logits, 1)
    return (p - F.one_hot(logits.argmax(1), p.shape[1]))[None]


def of_norm(logits, y):
    """The gradient of the norm of the logits (B, K) in the logits: (1, B, K)."""
    return F.normalize(logits)[None]
