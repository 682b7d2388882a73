"""ARM as in its authors' code: copies of networks, autograd over everything, M images."""

import copy

import torch
from torch import nn
from torch.nn import functional as F

from clkit.blocks.shared_norm import norms


class Reference:
    """Takes the network of a learner and the starting images of its recalls; recomputes everything else."""

    def __init__(self, learner):
        self.config, self.net = learner.config, copy.deepcopy(learner.net)
        for norm in norms(self.net):
            norm.__class__ = nn.BatchNorm2d  # torch's own
        self.old, self.t = None, 0
        self.sgd = torch.optim.SGD(self.net.parameters(), lr=self.config.lr)

    def answer(self, net, x):
        """Logits, and the mean distance of batch statistics from running ones (0 without batch norm)."""
        config = self.config
        found = [m for m in net.modules() if isinstance(m, nn.BatchNorm2d)]
        kept = [{name: b.clone() for name, b in m.named_buffers()} for m in found]
        if config.norm == "running":
            net.eval()
        gaps = []
        hooks = [
            m.register_forward_pre_hook(
                lambda m, i: gaps.append(
                    (i[0].mean((0, 2, 3)) - m.running_mean.clone()).norm()
                    + (i[0].var((0, 2, 3), unbiased=True) - m.running_var.clone()).norm()
                )
            )
            for m in found
        ]
        logits = net(x)
        for hook in hooks:
            hook.remove()
        net.train()
        if config.norm != "update":
            for m, buffers in zip(found, kept, strict=True):
                for name, value in buffers.items():
                    setattr(m, name, value)  # not in place: backward wants the others
        return logits, (sum(gaps) / len(gaps) if gaps else 0)

    def objective(self, x, found, y):
        """The objective that the images x (M, C, H, W) for a batch with labels y (B,) minimise."""
        config = self.config
        (o, gap), (n, _) = self.answer(self.old, x), self.answer(self.net, x)
        p, q = o.softmax(1), n.softmax(1)
        m = (p + q) / 2
        D = {
            "ag": (
                F.kl_div(o.log_softmax(1), m, reduction="batchmean")
                + F.kl_div(n.log_softmax(1), m, reduction="batchmean")
            )
            / 2,
            "js": (F.kl_div(m.log(), p, reduction="batchmean") + F.kl_div(m.log(), q, reduction="batchmean"))
            / 2,
            "ce": -(p * n.log_softmax(1)).sum(1).mean(),
        }[config.divergence]
        J = config.divergence_weight * (1 - D)
        if config.recall == "adi":
            J = J + config.target * F.cross_entropy(o, found.target) + config.bn_loss * gap
        else:
            present = sorted(set(y.tolist()))
            for k in present:
                label = torch.full((len(x),), k, device="cpu")
                J = J - config.local_old / len(present) * F.cross_entropy(o, label)
                J = J - config.local_new / len(present) * F.cross_entropy(n, label)
            J = J + config.diversity * (p.mean(0) * p.mean(0).log()).sum()
            J = J + config.confidence * F.cross_entropy(o, o.argmax(1))
        J = J + config.l2 * x.flatten(1).norm(dim=1).mean() / x[0].numel()
        return J + config.tv * 2 * (x.diff(dim=2).square().mean() + x.diff(dim=3).square().mean())

    def step(self, x, y, draws, first_task, lag):
        """One iteration; draws: an iterator over the RecalledBatches with which the learner starts."""
        config, images = self.config, x[:0]
        if self.t % lag == 0:
            self.old = copy.deepcopy(self.net)
        self.t += 1
        self.sgd.zero_grad()
        F.cross_entropy(self.net(x), y).backward()
        self.sgd.step()
        self.sgd.zero_grad()
        if first_task:
            return
        for turn in range(config.repeats):
            if config.recall != "none" and (turn == 0 or config.repeat == "afresh"):
                found = next(draws)
                images = found.start
            if turn and config.repeat != "accumulate":
                self.sgd.zero_grad()
            for _ in range(config.n_steps if len(images) else 0):
                images = images.detach().requires_grad_()
                (gradient,) = torch.autograd.grad(self.objective(images, found, y), images)
                images = images - config.image_lr * gradient
            self.replay(images.detach(), x)

    def replay(self, images, x):
        """The step on recalled images and on the batch x."""
        config, losses = self.config, []
        parts = [part for part in ((images, config.replay), (x, config.distill)) if len(part[0]) and part[1]]
        with torch.no_grad():
            targets = [self.answer(self.old, part)[0].softmax(1) for part, _ in parts]
        for (part, weight), target in zip(parts, targets, strict=True):
            each = -(target * self.answer(self.net, part)[0].log_softmax(1)).sum(1)
            whole = sum(len(p) for p, _ in parts) if config.reduction == "union" else len(part)
            losses.append(weight * each.sum() / whole)
        if losses:
            sum(losses).backward()
            self.sgd.step()
