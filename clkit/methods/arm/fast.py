"""The steps of ARM in less time: gradients in closed form, copies of an image computed once.

`Fast` has the fit, start_images, optimize_images and replay of ARM. Read arm.py instead: tests hold both
equal, step by step in double precision. Three things save time.
    ClosedForm   the gradient of the objective in the logits and in the pixels, written out
    ByHand       forward and backward products of a fully connected network, without the cost of autograd
    multiplicity M > N images drawn from a batch of N are at most N different ones: each is computed once,
                 with the number of its copies in the means, in batch normalisation and in its step

Each image descends its own part of the means, so gradients here are divided by the share of an image: an
image that stands for ten copies moves as each of them would.
"""

from typing import NamedTuple

import torch
from torch import nn
from torch.autograd.graph import saved_tensors_hooks

from clkit.blocks import nets
from clkit.blocks.losses import soft_cross_entropy
from clkit.blocks.shared_norm import bn_mode, input_gaps, norms
from clkit.methods.arm.terms import LEAST


class Fast:
    """The steps of a learner, with the old network that it compares with."""

    def __init__(self, learner, old):
        config = self.config = learner.config
        self.learner, self.norms = learner, norms(learner)
        adds_up = config.repeats > 1 and config.repeat == "accumulate"          # of gradients, in .grad
        by_hand = isinstance(learner.net, nets.MLP) and not adds_up
        self.networks = (ByHand if by_hand else ByAutograd)(learner, old)
        self.gradient = ClosedForm(config, learner.shape, learner.seen.device)

    def fit(self, optimizer, x, y):
        """As in ARM."""
        target = x.new_zeros(len(x), self.learner.classes).scatter_(1, y[:, None], 1.0)
        batch = SoftTargetBatch(x, target, x.new_full((len(x),), 1 / len(x)))
        return self.networks.train(optimizer, [batch])[0]

    def start_images(self, x, y):
        """As in ARM, but each image of the batch once; not where copies are to show different classes."""
        recalled = self.learner.start_images(x, y)
        if recalled.index is None or len(recalled.index) < len(x) or recalled.target is not None:
            return recalled
        counts = x.new_zeros(len(x)).index_add_(0, recalled.index, x.new_ones(len(recalled.index)))
        return recalled._replace(start=x, images=x, origins=y, index=None, multiplicity=counts)

    @torch.no_grad()
    def optimize_images(self, recalled, old, norm):
        """As in ARM; `old` is the network that this object was made with."""
        config, x, counts = self.config, recalled.images, recalled.multiplicity
        rate = config.image_lr / (len(x) if counts is None else config.n_images)
        self.gradient.begin(recalled)
        steps, logits, gaps, none = [x], [], [], x.new_zeros(())
        with bn_mode(self.norms, mode=norm, multiplicity=counts):
            for _ in range(config.n_steps):
                logits.append(self.networks.logits(x))
                gradient = self.gradient.in_logits(logits[-1])                  # (2, n, K)
                gradient = self.networks.in_pixels(gradient if counts is None else gradient * counts[:, None])
                if counts is not None:                                          # of (n, C, H, W)
                    gradient = gradient / counts.clamp(min=1)[:, None, None, None]
                x = self.gradient.step(x, gradient, rate)
                steps.append(x)
                gaps.append(none if self.networks.gap is None else self.networks.gap.detach())
        steps, logits = torch.stack(steps), torch.stack(logits)
        terms = self.learner.terms(logits, steps[:-1], recalled) | {"bn_loss": torch.stack(gaps)}
        none = none.expand(len(logits))
        values = torch.stack([terms.get(name, none) for name in self.learner.weights()], 1)
        return recalled._replace(images=x, values=values, steps=steps, logits=logits)

    def replay(self, optimizer, recalled, x, fresh=True):
        """As in ARM."""
        config, parts = self.config, []
        n, m = 0 if recalled is None else config.n_images, len(x) if config.distill else 0
        if n + m == 0:
            return recalled, (0.0, 0.0)
        a, b = (n / (n + m), m / (n + m)) if config.reduction == "union" else (1.0, 1.0)
        if n:
            weight = a * config.replay * recalled.image_weights
            parts.append(SoftTargetBatch(recalled.images, None, weight, recalled.multiplicity))
        if m:
            parts.append(SoftTargetBatch(x, None, x.new_full((m,), b * config.distill / m)))
        probs = self.networks.probs(parts, config.norm)
        parts = [part._replace(target=target) for part, target in zip(parts, probs)]
        losses = self.networks.train(optimizer, parts, config.norm, fresh)
        if n:
            recalled = recalled._replace(probs=probs[0])
        return recalled, (losses[0] if n else 0.0, losses[-1] if m else 0.0)


class ClosedForm:
    """The gradient of the objective in the logits, and a step down in the pixels.

    J(v) = p (v - <p, v>) takes a gradient v in the probabilities p to one in the logits; u is class_weights.
        D "ag"      J((log m - (log p + log q) / 2) / 2) + (p - q) / 4, and with p and q exchanged
        D "js"      J((log p - log m) / 2), and the same for q
        D "ce"      J(-log q), and q - p
        away_from_batch_classes   u - p     diversity   J(log mean)
        confidence, wanted_class   p - (1 at that class)
    """

    def __init__(self, config, shape, device):
        self.config, w, adi = config, config.divergence_weight, config.recall == "adi"
        self.at_class = config.target if adi else config.confidence
        apart = {"ag": ((-w / 4, w / 4), (w / 4, -w / 4)), "js": ((0, 0), (0, 0)), "ce": ((0, 0), (w, -w))}
        local = (0.0, 0.0) if adi else (config.local_old, config.local_new)
        even, pure = (0.0 if adi else config.diversity, 0.0), ((self.at_class, 0), (0, 0))
        self.mix, self.local, self.even, self.pure = (
            torch.tensor(value, dtype=torch.float64, device=device)
            for value in (apart[config.divergence], local, even, pure))
        channels, height, width = shape
        self.rows = neighbours(height, channels * width, device)
        self.columns, self.shape = neighbours(width, channels * height, device), None

    def begin(self, recalled):
        """Prepare for the images of this RecalledBatch."""
        self.weights, self.target, dtype = recalled.image_weights, recalled.target, recalled.images.dtype
        here = recalled.class_weights.sum()             # 1, or 0 where no class is at hand
        self.of_probs = (self.mix + self.pure - torch.diag(self.local) * here).to(dtype)        # (2, 2)
        self.fixed = (self.local[:, None, None] * recalled.class_weights).to(dtype)             # (2, 1, K)
        self.level = self.even[:, None, None].to(dtype)                                         # (2, 1, 1)
        self.mark = self.weights.new_full((len(self.weights), 1), -self.at_class)
        self.down, self.across = self.rows.to(dtype), self.columns.to(dtype)
        shape = (2, len(recalled.images), len(recalled.class_weights))
        if shape != self.shape:
            self.shape, self.through_softmax = shape, ThroughSoftmax(shape, dtype, self.rows.device)

    def in_logits(self, logits):
        """logits (2, n, K), old and new -> (2, n, K)."""
        logs = logits.log_softmax(2)
        probs, old, new = logs.exp(), logs[0], logs[1]
        kind, part, p = self.config.divergence, self.config.divergence_weight / 2, probs[0]
        if kind == "ag":
            inner = torch.logaddexp(old, new).sub_(logs.mean(0))                # (n, K)
        elif kind == "js":
            inner = logs - torch.logaddexp(old, new)                            # (2, n, K)
        else:
            inner = torch.stack([-2 * new, torch.zeros_like(new)])
        mean = (self.weights @ p).clamp_(min=LEAST)                         # (K,)
        inner = torch.sub(self.level * mean.log_(), inner, alpha=part)          # (2, n, K)
        gradient = self.through_softmax(inner, probs)
        gradient.view(2, -1).addmm_(self.of_probs, probs.view(2, -1))
        gradient += self.fixed
        which = p.argmax(1, keepdim=True) if self.target is None else self.target[:, None]
        gradient[0].scatter_add_(1, which, self.mark)
        return gradient

    def step(self, x, gradient, rate):
        """x (n, C, H, W) after a step down `gradient`, which comes from the networks, L2 norm and TV."""
        new, (height, width) = x.sub(gradient, alpha=rate), x.shape[2:]
        norm = torch.linalg.vector_norm(x, dim=(1, 2, 3), keepdim=True).clamp_(min=torch.finfo(x.dtype).tiny)
        new.addcdiv_(x, norm, value=-rate * self.config.l2 / x[0].numel())
        rate, flat, planes = rate * self.config.tv, x.view(-1, width), x.view(-1, height, width)
        new.view(-1, width).addmm_(flat, self.across, alpha=-rate)
        new.view(-1, height, width).baddbmm_(self.down.expand(len(planes), -1, -1), planes, alpha=-rate)
        return new


class ThroughSoftmax:
    """J of ClosedForm: a gradient in probabilities (..., K) to one in their logits, by torch's own kernel.

    shape, dtype, device: of the gradients. The graph of a softmax is made once; each backward pass through it
    uses the probabilities given for that call.
    """

    def __init__(self, shape, dtype, device):
        self.probs = probs = [None]
        self.logits = torch.zeros(shape, dtype=dtype, device=device, requires_grad=True)
        with torch.enable_grad(), saved_tensors_hooks(lambda saved: None, lambda saved: probs[0]):
            self.end = self.logits.softmax(-1)

    def __call__(self, gradient, probs):
        self.probs[0] = probs
        return torch.autograd.grad(self.end, self.logits, gradient, retain_graph=True)[0]


def neighbours(n, others, device):
    """The matrix A (n, n) with the gradient A x of 2 |steps between neighbours of x|^2 / (n - 1) / others."""
    step = torch.eye(n, dtype=torch.float64, device=device).diff(dim=0)         # (n - 1, n)
    return step.T @ step * (4 / (n - 1) / others)


# ---- both networks at once: logits, gradients back to the pixels, steps of the new one

class SoftTargetBatch(NamedTuple):
    """Images, and the outputs that one step trains the new network towards."""

    x: torch.Tensor                     # (B, C, H, W)
    target: torch.Tensor | None         # (B, K) probabilities
    weight: torch.Tensor                # (B,) of each image in the loss
    multiplicity: torch.Tensor | None = None  # (B,) how often each occurs; None: once


class ByHand:
    """Old and new fully connected network without autograd, which costs more than the arithmetic."""

    gap = None

    def __init__(self, learner, old):
        self.old, self.lr = old, learner.config.lr
        both = [[*net.hidden, net.head] for net in (old, learner.net)]
        self.weights = [[layer.weight for layer in pair] for pair in zip(*both)]
        self.biases = [[layer.bias for layer in pair] for pair in zip(*both)]
        self.weights_t = [[weight.detach().T for weight in pair] for pair in self.weights]

    @torch.no_grad()
    def logits(self, x):
        """Of both networks: x (B, C, H, W) -> (2, B, K)."""
        before, self.hidden, self.shape = [x.flatten(1)] * 2, [], x.shape
        for biases, weights_t in zip(self.biases, self.weights_t):
            after = x.new_empty(2, len(x), len(biases[0]))
            for which, into in enumerate(after.unbind()):
                torch.addmm(biases[which], before[which], weights_t[which], out=into)
            if len(self.hidden) < len(self.biases) - 1:
                before = after.relu_().unbind()
            self.hidden.append(after)
        return self.hidden.pop()

    @torch.no_grad()
    def in_pixels(self, gradient):
        """The gradient in the pixels (B, C, H, W), of both networks, from that in the logits (2, B, K)."""
        for weights, hidden in zip(self.weights[:0:-1], self.hidden[::-1]):
            below = torch.empty_like(hidden)
            for which, into in enumerate(below.unbind()):
                torch.mm(gradient[which], weights[which], out=into)
            gradient = below.masked_fill_(hidden <= 0, 0)                       # through the ReLU
        old, new = self.weights[0]
        return torch.mm(gradient[1], new).addmm_(gradient[0], old).view(self.shape)

    @torch.no_grad()
    def probs(self, parts, mode):
        """The old network's probabilities for the images of SoftTargetBatches: [(B, K), ...]."""
        logits = self.old(torch.cat([part.x for part in parts]))
        return logits.softmax(1).split([len(part.x) for part in parts])

    @torch.no_grad()
    def train(self, optimizer, parts, mode=None, fresh=True):
        """A step of the new network on the weighted cross-entropy of all parts; [its sum by part]."""
        x, target, weight, _ = zip(*parts)
        x, target, weight = torch.cat(x), torch.cat(target), torch.cat(weight)[:, None]
        hidden = [x.flatten(1)]
        for biases, weights_t in zip(self.biases[:-1], self.weights_t):
            hidden.append(torch.addmm(biases[1], hidden[-1], weights_t[1]).relu_())
        logs = torch.addmm(self.biases[-1][1], hidden[-1], self.weights_t[-1][1]).log_softmax(1)
        losses = (logs * target).sum(1, keepdim=True).mul_(-weight).split([len(part.x) for part in parts])
        delta = logs.exp_().sub_(target).mul_(weight)                           # d loss / d logits (B, K)
        for k in reversed(range(len(hidden))):
            weight, own = self.weights[k][1], delta
            if k:
                delta = (delta @ weight).masked_fill_(hidden[k] <= 0, 0)
            weight.addmm_(own.T, hidden[k], alpha=-self.lr)
            self.biases[k][1].sub_(own.sum(0), alpha=self.lr)
        return [loss.sum() for loss in losses]


class ByAutograd:
    """The same for any network."""

    def __init__(self, learner, old):
        self.old, self.new, self.norms, config = old, learner.net, norms(learner), learner.config
        self.weight = config.bn_loss if config.recall == "adi" else 0.0

    def logits(self, x):
        """As in ByHand; `gap` is the mean of the statistics term over the old batch norms, or None."""
        with torch.enable_grad():
            self.x = x.detach().requires_grad_()
            with input_gaps(self.old if self.weight else nn.Identity()) as gaps:
                self.found = [self.old(self.x)]
            self.found.append(self.new(self.x))
            self.gap = torch.stack(gaps).mean() if gaps else None
        return torch.stack([logits.detach() for logits in self.found])

    def in_pixels(self, gradient):
        """As in ByHand, and that of the statistics term."""
        ends, gradients = self.found, list(gradient)
        if self.gap is not None:
            whole = torch.full_like(self.gap, self.weight * len(self.x))        # over the share of an image
            ends, gradients = [*ends, self.gap], [*gradients, whole]
        return torch.autograd.grad(ends, self.x, gradients)[0].contiguous()

    @torch.no_grad()
    def probs(self, parts, mode):
        """As in ByHand; each part has batch statistics of its own."""
        found = []
        for part in parts:
            with bn_mode(self.norms, mode=mode, multiplicity=part.multiplicity):
                found.append(self.old(part.x).softmax(1))
        return found

    def train(self, optimizer, parts, mode=None, fresh=True):
        """As in ByHand.   mode: statistics of batch norm.   fresh: drop the gradients of the step before."""
        if fresh:
            optimizer.zero_grad()
        losses = []
        for part in parts:
            with bn_mode(self.norms, mode=mode, multiplicity=part.multiplicity):
                losses.append(part.weight @ soft_cross_entropy(self.new(part.x), part.target))
        sum(losses).backward()
        optimizer.step()
        return [loss.detach() for loss in losses]
