"""The terms of ARM's objective (equations 8 and 9), written so that all but D are minimised.

M images, K classes; p and log_p are the old network's output, q and log_q the new one's.
"""

import math

import torch

LEAST = torch.finfo(torch.float64).eps                 # of a mean probability (code)


def divergence(log_p, log_q, kind="ag"):
    """Distance between the outputs of two networks (D of eq. 7): log-probabilities (M, K) each -> (M,).

    With m the middle of p and q: "ag" is the mean of KL(m || p) and KL(m || q), "js" that of KL(p || m) and
    KL(q || m), "ce" the cross-entropy of q under p.
    """
    if kind == "ce":
        return -(log_p.exp() * log_q).sum(-1)
    log_m = torch.logaddexp(log_p, log_q) - math.log(2)                         # (M, K)
    if kind == "js":
        return ((log_p.exp() * (log_p - log_m)).sum(-1) + (log_q.exp() * (log_q - log_m)).sum(-1)) / 2
    return (log_m.exp() * (log_m - (log_p + log_q) / 2)).sum(-1)


def away_from_batch_classes(log_p, class_weights):
    """Mean log-probability of the classes of the batch (lambda_1 and lambda_2), log_p (M, K): (M,).

    class_weights: (K,) 1 / C for the C classes of the batch, else 0.
    """
    return log_p @ class_weights


def diversity(p, image_weights):
    """Minus the entropy of the mean output (lambda_3), p (M, K): a scalar.

    image_weights: (M,) weight of each image in the mean; they sum to 1.
    """
    mean = (image_weights[:, None] * p).sum(-2)                                 # (K,)
    return -torch.special.entr(mean.clamp(min=LEAST)).sum(-1)


def confidence(log_p):
    """Cross-entropy with the most likely class (lambda_4), log_p (M, K): (M,)."""
    return -log_p.amax(-1)


def l2(x):
    """L2 norm over the number of pixels (lambda_5), x (M, C, H, W): (M,)."""
    return torch.linalg.vector_norm(x, dim=(-3, -2, -1)) / math.prod(x.shape[-3:])


def tv(x):
    """Twice the mean squared step between neighbours, down plus across (lambda_6), x (M, C, H, W): (M,)."""
    down, across = x.diff(dim=-2), x.diff(dim=-1)       # (M, C, H - 1, W), (M, C, H, W - 1)
    return 2 * (down.square().mean((-3, -2, -1)) + across.square().mean((-3, -2, -1)))


def wanted_class(log_p, target):
    """Cross-entropy with the class that each image should show (adi), log_p (M, K), target (M,): (M,)."""
    return -log_p.gather(-1, target.expand(log_p.shape[:-1])[..., None])[..., 0]
