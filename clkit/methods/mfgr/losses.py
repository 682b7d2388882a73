"""The losses of MFGR: of the generator (equations 4 to 7) and of the classifier (equations 2, 3 and 8).

The names are the paper's. All are minimised, and all are computed in float32 or better.
"""

import math

import torch
from torch.nn import functional as F

from clkit.blocks.losses import distillation

# ---- stage 1: the generator


def l_oh(logits):
    """How far outputs are from one-hot: the cross-entropy with the largest class, logits (B, K): a scalar."""
    return F.cross_entropy(logits, logits.argmax(1))


def l_cd(logits):
    """Minus the entropy of the mean output, in decimal digits: logits (B, K) -> a scalar in [-log10 K, 0].

    A class whose mean probability underflows to 0 counts as 0 and has no gradient.
    """
    q = logits.softmax(1).mean(0)                                               # (K,)
    q = q.clamp(min=torch.finfo(q.dtype).tiny)
    return (q * q.log()).sum() / math.log(10)


def gap(mean, var, norm):
    """Distance of the mean and the variance (D,) of a batch from those a batch normalisation holds: a scalar.

    The sum of two Euclidean norms, not squared: one layer of equation 5.
    """
    distance = torch.linalg.vector_norm
    return distance(var - norm.running_var) + distance(mean - norm.running_mean)


def l_bn(gaps, reduction="mean"):
    """The mean of the gaps (L,) of all layers, as in the code, or their sum, as in equation 5: a scalar."""
    return gaps.mean() if reduction == "mean" else gaps.sum()


def l_div(a, b):
    """Minus the mean symmetric divergence of pairs of images, a and b (P, C, H, W): a scalar of at most 0.

    Each image is made a distribution over its C H W numbers by a softmax. The normalising constants cancel in
    KL(a || b) + KL(b || a) = sum (p_a - p_b) (a - b).
    """
    a, b = a.flatten(1), b.flatten(1)                                           # (P, C*H*W)
    return -((a.softmax(1) - b.softmax(1)) * (a - b)).sum(1).mean() / 2


def pairs(n, count, device):
    """Indices (count,) of the first and the second images of pairs: from either half of n images, in random
    order, none of them twice.
    """
    half = n // 2
    first = torch.randperm(half, device=device)[:count]
    return first, half + torch.randperm(n - half, device=device)[:count]


def l_act(features):
    """Minus the mean size of the features (B, D): a scalar."""
    return -features.abs().mean()


def l_tv(x):
    """The mean, over four directions, of the size of the mean difference of neighbours, x (B, C, H, W).

    As released. Signs are kept inside the mean, so nearly everything but the borders cancels: this is no
    measure of smoothness.
    """
    steps = (x[..., 1:, :] - x[..., :-1, :], x[..., 1:] - x[..., :-1],
             x[..., 1:, 1:] - x[..., :-1, :-1], x[..., 1:, :-1] - x[..., :-1, 1:])
    return sum(step.mean().abs() for step in steps) / len(steps)


# ---- stage 2: the classifier


def l_ce(logits, y, first):
    """Cross-entropy among the new classes alone, [first, seen): logits (B, seen), y (B,): a scalar."""
    return F.cross_entropy(logits[:, first:], y - first)


def l_kd(logits, teacher, temperature):
    """Cross-entropy of softened outputs on the old classes: logits (B, K), teacher (B, old): a scalar.

    Without the factor of the squared temperature.
    """
    return distillation(logits[:, :teacher.shape[1]], teacher, temperature) / temperature**2


def lambda_4(first, seen):
    """The share of old classes: with tasks of equal size, task / (task + 1), where the first is task 0."""
    return first / seen


def l_ki(ce, gkd, nkd, share):
    """Equation 8."""
    return (1 - share) * ce + share * (gkd + nkd)
