"""The masks of DGM: how they are annealed, what they cost, which weights they protect, how layers grow.

Symbols: e logits of a mask, s its scale, m = sigmoid(s e) the mask, M what earlier tasks have reserved.
"""

import math

import torch

from clkit.engine.learner import LearnerError

STEEPEST = 50.0                                         # of |s e| in the compensation; cosh overflows beyond


def check_scale(s_max):
    """LearnerError if masks cannot become hard."""
    if not s_max > 1:
        raise LearnerError(f"s_max must be a number above 1, the scale that makes masks hard, not {s_max!r}")


def between(low, high, step, steps):
    """The value at `step` (from 1) of a straight line from low at 1 to high at `steps`."""
    return high if steps == 1 else low + (high - low) * (step - 1) / (steps - 1)


def global_scale(epoch, epochs, s_max, schedule):
    """Scale reached in an epoch (from 1): equation 3.

    "paper" starts at 1 / s_max as printed. "released" takes epoch / epochs of the way, so that the first
    epoch does not begin with hard masks: `local_scale` runs down from 1 / scale where the scale is below 1.
    """
    if schedule == "paper":
        return between(1 / s_max, s_max, epoch, epochs)
    return 1 / s_max + (s_max - 1 / s_max) * epoch / epochs


def local_scale(batch, batches, scale):
    """Scale in a batch (from 1) of an epoch whose scale is `scale`: equation 4."""
    return between(1 / scale, scale, batch, batches)


def compensation(e, s, scale):
    """The factor that makes a logit's gradient independent of s: of the shape of e.

    As in Serra et al. (2018), with the epoch's scale in place of s_max. In single precision sigmoid(s e) is
    exactly 1 above about 17, and so are the gradients of units that are on exactly 0: that is what freezes
    masks late in a task. In bfloat16 this happens above about 6: keep masks in float32.
    """
    steep = torch.clamp(s * e, -STEEPEST, STEEPEST).cosh() + 1
    return scale / s * steep / (e.cosh() + 1)


def sparsity(masks, reserved):
    """R of equation 6: the share of what is free that the masks take, pooled over layers; a scalar.

    masks: soft, in [0, 1]; reserved: bool, of the same shapes. What earlier tasks have reserved costs
    nothing. 0 where nothing is free.
    """
    taken = sum((m * ~r).sum() for m, r in zip(masks, reserved))
    free = sum((~r).sum() for r in reserved)
    return taken / free.clamp(min=1)


def counts(mask, reserved):
    """(newly blocked, reused, unused) places of a hard mask, 0-dimensional tensors: section 3.2."""
    new, reused = (mask & ~reserved).sum(), (mask & reserved).sum()
    return new, reused, mask.numel() - new - reused


# ---- growth

def growth(taken, widths, areas, links, unit, rule):
    """How many channels each width but the first gains: [int].

    taken: newly blocked places by layer.   widths: channels before the first layer and after the others.
    areas: weights of one input of an output, the area of the kernel, by layer.   links: which width each
    layer leads from, and to, by layer.   unit: "weight" or "channel".   rule: "paper": as many outputs as
    hold the weights taken; "released": less what the layer gains because the one before it grows. Where two
    layers lead to a width, the larger need decides.
    """
    added = [0] * len(widths)
    for (i, j), delta, area in sorted(zip(links, taken, areas), key=lambda layer: layer[0][1]):
        needed = delta
        if unit == "weight":
            before = added[i] if rule == "released" else 0                      # inputs that the layer gains
            fan_in, gained = (widths[i] + before) * area, before * area * widths[j]
            needed = max(0, math.ceil((delta - gained) / fan_in))
        added[j] = max(added[j], needed)
    return added[1:]


# ---- storage

def packed(mask):
    """A bool tensor as bytes of eight places, uint8 (ceil(n / 8),)."""
    flat = mask.flatten().to(torch.uint8)
    flat = torch.cat([flat, flat.new_zeros(-len(flat) % 8)]).view(-1, 8)
    return (flat << torch.arange(8, device=flat.device)).sum(1).to(torch.uint8)


def unpacked(places, shape):
    """The bool tensor of this shape that `packed` was given."""
    bits = places[:, None] >> torch.arange(8, device=places.device) & 1
    return bits.flatten()[:math.prod(shape)].view(shape).bool()
