"""Batch normalisation in which one image can stand for several copies of itself.

    convert(net)                                            replaces each nn.BatchNorm2d by a SharedNorm
    with bn_mode(net, mode="batch", multiplicity=counts):   which statistics, and how often each image counts
        net(x)
    with input_gaps(net) as gaps:                           how far the inputs are from the running statistics
        net(x)

Copies of an image have equal activations and equal gradients, so that one image with the number 10 gives the
same statistics, outputs and weight gradients as ten copies, for a tenth of the arithmetic.
"""

from contextlib import contextmanager

import torch
from torch import nn
from torch.nn import functional as F


class SharedNorm(nn.BatchNorm2d):
    """Batch normalisation with a choice of statistics and a count for each image.

    mode: "update" (statistics of the batch, which also update the running ones), "batch" (of the batch only),
    "running", or None: "update" in training, "running" otherwise.   multiplicity: (B,) how often each image
    occurs, or None: once. `bn_mode` sets both. Nothing waits for a value from the device.
    """

    mode = multiplicity = None

    def forward(self, x):
        mode = self.mode or ("update" if self.training else "running")
        if mode == "running":
            return F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps)
        if self.multiplicity is not None:
            y, mean, var = _Weighted.apply(x, self.weight, self.bias, self.multiplicity, self.eps)
            if mode == "update":
                n = self.multiplicity.sum() * x[0, 0].numel()
                self.update_running_stats(mean, var * n / (n - 1))
            return y
        if mode == "batch":
            return F.batch_norm(x, None, None, self.weight, self.bias, True, 0.0, self.eps)
        if self.momentum is not None:
            self.num_batches_tracked += 1
            return F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, True,
                                self.momentum, self.eps)
        mean, var = torch.zeros_like(self.running_mean), torch.zeros_like(self.running_var)
        y = F.batch_norm(x, mean, var, self.weight, self.bias, True, 1.0, self.eps)
        self.update_running_stats(mean, var)
        return y

    @torch.no_grad()
    def update_running_stats(self, mean, var):
        """Update the running statistics with a batch's, (C,) each; momentum None: average them."""
        self.num_batches_tracked += 1
        count = self.num_batches_tracked.to(mean.dtype)
        part = count.reciprocal() if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean, part)
        self.running_var.lerp_(var, part)


class _Weighted(torch.autograd.Function):
    """Batch normalisation of a batch in which image i occurs multiplicity[i] times but is computed once.

    Torch's own kernel does both passes with fixed statistics; what remains is the gradient through these:
    y = w (x - mean) / sqrt(var + eps) + b, where each image contributes its share to mean and var.
    """

    @staticmethod
    def forward(ctx, x, weight, bias, multiplicity, eps):
        share = multiplicity / multiplicity.sum()                               # (B,)
        mean = share @ x.mean((2, 3))                   # (C,); torch.var_mean takes ten times as long
        var = share @ (x - mean[:, None, None]).square_().mean((2, 3))
        with torch.enable_grad():
            ctx.leaves = [part.detach().requires_grad_() for part in (x, weight, bias)]
            ctx.fixed = F.batch_norm(ctx.leaves[0], mean, var, *ctx.leaves[1:], False, 0.0, eps)
        ctx.save_for_backward(x, weight, share, mean, var)
        ctx.eps = eps
        ctx.mark_non_differentiable(mean, var)
        return ctx.fixed.detach(), mean, var

    @staticmethod
    def backward(ctx, grad, *_):
        x, weight, share, mean, var = ctx.saved_tensors
        fixed, by_weight, by_bias = torch.autograd.grad(ctx.fixed, ctx.leaves, grad)
        scale = (var + ctx.eps).rsqrt()                                         # (C,)
        part = share[:, None] / x[0, 0].numel() * weight * scale                # (B, C)
        by_scale = part * by_weight * scale
        shift = by_scale * mean - part * by_bias
        return (fixed + shift[:, :, None, None]).addcmul_(x, by_scale[:, :, None, None], value=-1), \
            by_weight, by_bias, None, None


def convert(net, stem_average=False):
    """The network itself, with each nn.BatchNorm2d replaced by a new SharedNorm.

    stem_average: the first one averages over all passes (momentum None) instead of forgetting old ones.
    """
    found = []
    for parent in list(net.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.BatchNorm2d):
                found.append(SharedNorm(child.num_features, child.eps, child.momentum,
                                        device=child.weight.device))
                setattr(parent, name, found[-1])
    if found and stem_average:
        norms(net)[0].momentum = None
    return net


def norms(net):
    """All SharedNorms of a network, in the order of its modules."""
    return [module for module in net.modules() if isinstance(module, SharedNorm)]


@contextmanager
def bn_mode(net, *, mode=None, multiplicity=None):
    """In this context all SharedNorms of `net` have this mode and multiplicity (B,); then their old ones.

    net: a network, or a list of SharedNorms, which saves the search.
    """
    told = norms(net) if isinstance(net, nn.Module) else net
    before = [(norm.mode, norm.multiplicity) for norm in told]
    for norm in told:
        norm.mode, norm.multiplicity = mode, multiplicity
    try:
        yield net
    finally:
        for norm, (mode, multiplicity) in zip(told, before):
            norm.mode, norm.multiplicity = mode, multiplicity


def bn_loss(x, mean, var):
    """Distance of the statistics of x (B, C, H, W) from mean and var (C,), a sum of two norms: a scalar."""
    own = x.mean((0, 2, 3))                                                     # (C,)
    total = (x - own[:, None, None]).square().sum((0, 2, 3))
    own_var = total / (x[:, 0].numel() - 1)
    return torch.linalg.vector_norm(own - mean) + torch.linalg.vector_norm(own_var - var)


@contextmanager
def input_gaps(net):
    """In this context each pass through a SharedNorm of `net` appends its input's `bn_loss` to a list."""
    gaps = []

    def note(norm, inputs):
        gaps.append(bn_loss(inputs[0], norm.running_mean, norm.running_var))

    hooks = [norm.register_forward_pre_hook(note) for norm in norms(net)]
    try:
        yield gaps
    finally:
        for hook in hooks:
            hook.remove()
