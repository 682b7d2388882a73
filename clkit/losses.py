"""Formulas that the methods cite from elsewhere, each tested against a second way to compute it."""

from torch.nn import functional as F


def distillation(scores, teacher, temperature=2.0):
    """Cross-entropy between softened outputs of teacher and student, times temperature squared; mean over B.

    Hinton, Vinyals and Dean 2015, section 2: the square keeps the gradient's size independent of the
    temperature.
    scores: (B, K) and teacher: (B, K') before the softmax, K' <= K; classes that the teacher does not know
    count as ones to which it gives probability 0. No gradient flows into the teacher.   Returns a scalar.
    """
    target = F.softmax(teacher.detach() / temperature, 1)                       # (B, K')
    known = F.log_softmax(scores / temperature, 1)[:, :target.shape[1]]         # (B, K')
    return temperature**2 * -(target * known).sum(1).mean()
