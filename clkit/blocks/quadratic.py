"""The quadratic penalty of EWC, SI and MAS: the squared change of each weight times its importance."""

import torch


def flat(tensors):
    """The values of tensors in one vector (P,), in the order of their indices, whatever their layout."""
    return torch.cat([tensor.flatten() for tensor in tensors])


def split_like(vector, parameters):
    """Views of a vector (P,) in the shapes of these parameters, in their order."""
    parts = vector.split([p.numel() for p in parameters])
    return [part.view_as(p) for p, part in zip(parameters, parts)]


class QuadraticPenalty:
    """sum_j A_j (theta_j - m_j)^2 + rest, for the weights theta of a network during one task.

    importance: A (P,), in the order of net.parameters(); centre: m (P,), or None for a copy of the present
    weights; rest: a scalar. Tensors passed in are not copied.
    """

    def __init__(self, net, importance, centre=None, rest=0.0):
        parameters = list(net.parameters())
        centre = flat(parameters).detach() if centre is None else centre
        self.terms = list(zip(parameters, split_like(importance, parameters), split_like(centre, parameters)))
        self.rest = rest

    @torch.no_grad()
    def add_gradient(self, strength):
        """Add the gradient of strength times the penalty to each parameter's; returns the value, a scalar.

        By hand, after backward(): autograd would keep a second graph over all weights for 2 A (theta - m).
        """
        total = self.rest
        for parameter, importance, centre in self.terms:
            gap = parameter - centre
            parameter.grad.addcmul_(importance, gap, value=2 * strength)
            total = total + importance.flatten() @ gap.square_().flatten()
        return strength * total
