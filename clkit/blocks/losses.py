"""Formulas that the methods cite from other sources, each tested against a second computation."""

from torch.nn import functional as F


def distillation(logits, teacher, temperature=2.0, reduction="sum"):
    """Cross-entropy between softened outputs of teacher and student, times temperature squared; mean over B.

    Hinton, Vinyals and Dean 2015, section 2: the square keeps the gradient's size independent of the
    temperature.
    logits: (B, K) and teacher: (B, K') before the softmax, K' <= K; the teacher gives probability 0 to
    classes that it does not know. No gradient flows into the teacher.   Returns a scalar.
    reduction: over classes. "sum" is the cross-entropy; "mean" divides it by K: no longer a cross-entropy,
    but the loss in code whose numbers are quoted (see LwF).
    """
    target = F.softmax(teacher.detach() / temperature, 1)                       # (B, K')
    known = F.log_softmax(logits / temperature, 1)[:, :target.shape[1]]         # (B, K')
    loss = temperature**2 * -(target * known).sum(1).mean()
    return loss / logits.shape[1] if reduction == "mean" else loss


def soft_cross_entropy(logits, target):
    """Cross-entropy of logits (B, K) with the distributions over classes in target (B, K): (B,)."""
    return -(target * logits.log_softmax(-1)).sum(-1)


def sigmoid_targets(y, seen, old=None, temperature=2.0):
    """Targets (B, seen) of one sigmoid per class for labels y (B,): 1 or 0, or from the teacher.

    Rebuffi et al. 2017, algorithm 3, where the temperature is 1.
    old: the teacher's outputs for the classes that it knows, (B, first), divided by the temperature before
    the sigmoid; None: all targets come from the labels.
    """
    targets = F.one_hot(y, seen).float()                                        # (B, seen)
    if old is not None:
        targets[:, :old.shape[1]] = (old / temperature).sigmoid()
    return targets
