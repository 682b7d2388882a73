"""ARM: automatic recall machines, replay of images that the classifier itself brings forth (Ji et al. 2020).

    ARM(stream): theta' <- the network; for each batch B of N images, each seen once:       algorithm 1
        at the start of a task: theta <- theta'                               lines 10, 11  ARM.renew
        theta' <- a step on the cross-entropy of B                            line 5        ARM.fit
        from the second task on:
            X <- M images drawn from B                                        line 6        ARM.draw
            S times: X <- X + eta_1 d recall(X; B, theta, theta') / dX        lines 7, 8    ARM.descend
            theta' <- a step towards the outputs of theta on X and on B       line 9        ARM.replay

    recall = mean over X of  D(theta'(x), theta(x))                           eq. 8         divergence
               + lambda_1 / C sum over classes y of B of CE(theta(x), y)                    not_local
               + lambda_2 / C sum over classes y of B of CE(theta'(x), y)                   not_local
             + lambda_3 H(mean output of theta)                               eq. 9         diversity
             - lambda_4 mean of CE(theta(x), its own largest output)                        sharpness
             - lambda_5 mean L2 norm - lambda_6 mean total variation                        size, variation

recall="adi" is the authors' adaptive DeepInversion (Yin et al. 2020) in the same loop: D, size and variation
with a wanted old class for each image (`wanted_class`), and the distance between the batch statistics of X
and the running ones (`statistics_gap`). recall="none" is distillation on B alone (LwF online), and with
distill=0 plain training.

Everything is written as something to minimise, as in the code. The slopes of the terms stand in closed form
beside them, so that one recall step is two passes forward, two back to the pixels and little else.

Details the paper leaves open, or the authors' code does otherwise
1. D. The paper says Jensen-Shannon. The code calls the divergence with its arguments the other way round:
   KL(m || p) + KL(m || q) over 2 with m = (p + q) / 2, which has no upper bound and so keeps its slope where
   the two networks disagree most. divergence="ag" (arithmetic-geometric) is the code's and the default, "js"
   the paper's, "ce" the ablation. Computed from logarithms: the code's form has NaN slopes once a
   probability is 0 in both networks.
2. The pixel step is a plain one. No clamp to [0, 1], no noise, no momentum; images leave [0, 1] widely. All
   terms are means over M, so a larger M makes smaller steps (eta_1 / M a pixel).
3. M > N. The code draws with replacement, and copies of one image stay equal for all S steps. We keep each
   image once with the number of its copies, in the means, in batch normalisation and in the step: the same
   numbers for at most N images. For M <= N it draws without replacement (the paper: with).
4. Losses of line 9. The code has a mean over X and another one over B; the paper divides by M + N
   (reduction="union"). Targets are the whole softmax of theta, of classes to come as well; nothing is masked.
5. Batch normalisation. Both networks use the statistics of the images at hand, theta too, and all passes,
   those on recalled images as well, enter the running statistics that tests use (norm="update"). The first
   such layer averages over all passes, the others have the usual momentum (stem_average). norm="batch":
   recall and replay leave running statistics alone; norm="running": they use them.
6. Recall more than once a batch (repeats > 1). The code never resets the gradients between and goes on
   with the images as they are: the step k takes g_1 + ... + g_k (repeat="accumulate"). "zeroed" resets the
   gradients; "afresh" also begins with images drawn anew, as algorithm 1 would.
7. Present classes are those of the batch, not of the task: a class of the task that a batch lacks counts as
   one to be recalled.
8. Several passes over a task (epochs > 1) go through its batches in the same order each time (code).
9. Nothing is recalled in the first task, whatever the lag (code). A lag counts batches from the start of
   a task.
10. Diversity takes the mean of the probabilities of theta, raised to 2.2e-16 where it is less. The L2 norm is
    not squared and is divided by the number of pixels.

Records: "loss" (step, loss, replay, distill), "progress" (step), "recall" (step, output, low, high),
"objective" (step and the terms), "images" (step, start, recalled, origins, counts, answers); `tables` says
what they hold. Keeps between tasks: the weights, and theta, a copy of the network (not with lag=1, where
theta is never older than a step).
"""

import copy
import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import nn
from torch.nn import functional as F

from clkit import nets
from clkit.learner import Learner, LearnerError

TERMS = ("divergence", "local_old", "local_new", "diversity", "sharpness", "size", "variation", "target",
         "statistics")
_LEAST = torch.finfo(torch.float64).eps                 # of a mean probability (code)
_CHOICES = {"recall": ("arm", "adi", "none"), "divergence": ("ag", "js", "ce"), "start": ("batch", "noise"),
            "norm": ("update", "batch", "running"), "repeat": ("accumulate", "zeroed", "afresh"),
            "reduction": ("means", "union")}


@dataclass(frozen=True)
class Config:
    """Defaults: MNIST-5k-5 (table 4; what stands in the code alone is marked so)."""

    net: str = "mlp"            # network: mlp, convnet, resnet18, ... (clkit.nets)
    recall: str = "arm"         # what is recalled: "arm", "adi" (adaptive DeepInversion), or "none"
    images: int = 10            # M: images recalled for a batch
    descent: int = 10           # S: steps in which they are optimised
    image_lr: float = 25.0      # eta_1: learning rate of the pixels
    divergence: str = "ag"      # D: "ag" (code), "js" (paper), "ce" (ablation)
    divergence_weight: float = 1.0  # of D; 8 with unit lag (appendix A.5)
    local_old: float = 1.0      # lambda_1: away from the classes of the batch, for the old network
    local_new: float = 0.1      # lambda_2: the same for the new one
    diversity: float = 16.0     # lambda_3: entropy of the mean output
    sharpness: float = 0.1      # lambda_4: each output near one class
    size: float = 1.0           # lambda_5: small L2 norm
    variation: float = 1.0      # lambda_6: small total variation
    target: float = 1.0         # adi only: cross-entropy with the class an image is to show
    statistics: float = 0.0     # adi only: nearness to the running statistics; 0.1 for CIFAR10 (code)
    replay: float = 1.0         # lambda_0 of the recalled images
    distill: float = 1.0        # lambda_0 of the batch itself; 0: no distillation
    reduction: str = "means"    # of these two losses: "means" of each (code), or over their "union" (paper)
    lag: int | None = None      # T: batches between copies of the network; None: one a task; 1: unit lag
    start: str = "batch"        # images begin as copies from the "batch", or as "noise"
    repeats: int = 1            # how often a batch is recalled and replayed
    repeat: str = "accumulate"  # how, when more than once: "accumulate" (code), "zeroed" or "afresh" (paper)
    norm: str = "update"        # statistics of batch norm in recall: "update" (code), "batch" or "running"
    stem_average: bool = True   # the first batch norm averages over all passes instead of the latest (code)
    epochs: int = 1             # passes over the images of a task
    batch: int = 10             # N: images in a batch
    lr: float = 0.05            # eta_0: learning rate of gradient descent without momentum

    def __post_init__(self):
        if self.epochs < 1 or self.batch < 1 or not self.lr > 0:
            raise LearnerError("epochs and batch must be at least 1, and lr above 0")
        for name, known in _CHOICES.items():
            if getattr(self, name) not in known:
                raise LearnerError(f"{name} must be one of {', '.join(map(repr, known))}, not "
                                   f"{getattr(self, name)!r}")
        for name in ("images", "descent", "repeats"):
            if getattr(self, name) < 1:
                raise LearnerError(f"{name} must be at least 1, not {getattr(self, name)}")
        if self.lag is not None and self.lag < 1:
            raise LearnerError("lag is a number of batches from 1 on, or None for one copy a task, not "
                               f"{self.lag}")
        if not 0 < self.image_lr < math.inf:
            raise LearnerError(f"image_lr must be above 0 and finite, not {self.image_lr}")
        for name in ("divergence_weight", *TERMS[1:], "replay", "distill"):
            if not 0 <= getattr(self, name) < math.inf:
                raise LearnerError(f"{name} is a weight of 0 or more, not {getattr(self, name)}")


# ---- the terms of the objective

def divergence(logs, kind="ag"):
    """How far the outputs of two networks lie apart (D of eq. 7): (B,).

    logs: (2, B, K) log-probabilities, old (p) and new (q); m is the middle of p and q.   kind: "ag" is the
    mean of KL(m || p) and KL(m || q), "js" that of KL(p || m) and KL(q || m), "ce" the cross-entropy of q
    under p.
    """
    if kind == "ce":
        return -(logs[0].exp() * logs[1]).sum(-1)
    middle = torch.logaddexp(logs[0], logs[1]) - math.log(2)                    # (B, K)
    if kind == "js":
        return (logs.exp() * (logs - middle)).sum(-1).mean(0)
    return (middle.exp() * (middle - logs.mean(0))).sum(-1)


def not_local(log_p, present):
    """Mean log-probability of the classes at hand (lambda_1 and lambda_2): (B,).

    log_p: (B, K).   present: (K,) 1 / C for the C classes of the batch, else 0.
    """
    return log_p @ present


def diversity(p, share):
    """Minus the entropy of the mean output (lambda_3).

    p: (B, K).   share: (B,) what each image counts in the mean, 1 in all.   Returns a scalar.
    """
    mean = (share[:, None] * p).sum(-2)                                         # (K,)
    return -torch.special.entr(mean.clamp(min=_LEAST)).sum(-1)


def sharpness(log_p):
    """Cross-entropy with the most likely class (lambda_4), log_p (B, K): (B,)."""
    return -log_p.amax(-1)


def size(x):
    """L2 norm over the number of pixels (lambda_5), x (B, C, H, W): (B,)."""
    return torch.linalg.vector_norm(x, dim=(-3, -2, -1)) / math.prod(x.shape[-3:])


def variation(x):
    """Twice the mean squared step between neighbours, down plus across (lambda_6), x (B, C, H, W): (B,)."""
    down, across = x.diff(dim=-2), x.diff(dim=-1)       # (B, C, H - 1, W), (B, C, H, W - 1)
    return 2 * (down.square().mean((-3, -2, -1)) + across.square().mean((-3, -2, -1)))


def wanted_class(log_p, target):
    """Cross-entropy with the class each image is to show (adi), log_p (B, K), target (B,): (B,)."""
    return -log_p.gather(-1, target[..., None])[..., 0]


def statistics_gap(x, mean, var):
    """Distance of the statistics of x (B, C, H, W) from mean and var (C,) (adi): a scalar."""
    own = x.mean((0, 2, 3))                                                     # (C,)
    total = (x - own[:, None, None]).square().sum((0, 2, 3))
    own_var = total / (x[:, 0].numel() - 1)
    return torch.linalg.vector_norm(own - mean) + torch.linalg.vector_norm(own_var - var)


def soft_cross_entropy(scores, target):
    """Cross-entropy of scores (B, K) with the distributions `target` (B, K) (line 9): (B,)."""
    return -(target * scores.log_softmax(-1)).sum(-1)


def values_of_terms(config, scores, images, share, present, target):
    """Means over the images of all terms but the statistics, in each step of a descent: (S, 8), as in TERMS.

    scores: (S, 2, B, K).   images: (S, B, C, H, W).   share: (B,).   present: (K,).   target: (B,) for adi,
    or None. A term without weight is 0.
    """
    logs = scores.log_softmax(-1).transpose(0, 1)                               # (2, S, B, K)
    found = {"divergence": divergence(logs, config.divergence) @ share}
    if target is not None:
        found["target"] = wanted_class(logs[0], target.expand(len(scores), -1)) @ share
    else:
        found["local_old"] = not_local(logs[0], present) @ share
        found["local_new"] = not_local(logs[1], present) @ share
        found["diversity"] = diversity(logs[0].exp(), share)
        found["sharpness"] = sharpness(logs[0]) @ share
    found["size"], found["variation"] = size(images) @ share, variation(images) @ share
    zero = torch.zeros_like(found["size"])
    used = {name: value for name, value in found.items() if name == "divergence" or getattr(config, name)}
    return torch.stack([used.get(name, zero) for name in TERMS[:-1]], 1)


# ---- their slopes in closed form

class Slopes(nn.Module):
    """The slope of the objective in the scores, and a step down in the pixels, for the images of a batch.

    Both are over an image's share of the means: each copy of an image moves by its own part.

    J(v) = p (v - <p, v>) takes a slope v in the probabilities p to one in the scores; u is `present`.
        D "ag"      J((log m - (log p + log q) / 2) / 2) + (p - q) / 4, and with p and q exchanged
        D "js"      J((log p - log m) / 2), and the same for q
        D "ce"      J(-log q), and q - p
        not_local   u - p     diversity   J(log mean)     sharpness, wanted_class   p - (1 at that class)
    """

    def __init__(self, config, shape):
        super().__init__()
        self.config, w, adi = config, config.divergence_weight, config.recall == "adi"
        self.at_class = config.target if adi else config.sharpness
        apart = {"ag": ((-w / 4, w / 4), (w / 4, -w / 4)), "js": ((0, 0), (0, 0)), "ce": ((0, 0), (w, -w))}
        local = (0.0, 0.0) if adi else (config.local_old, config.local_new)
        settings = {"mix": apart[config.divergence], "local": local,
                    "even": (0.0 if adi else config.diversity, 0.0), "pure": ((self.at_class, 0), (0, 0))}
        for name, value in settings.items():
            value = torch.tensor(value, dtype=torch.float64, device="cpu")
            self.register_buffer(name, value, persistent=False)
        channels, height, width = shape
        self.register_buffer("rows", neighbours(height, channels * width), persistent=False)
        self.register_buffer("columns", neighbours(width, channels * height), persistent=False)

    def begin(self, found):
        """From now on the images of this Recollection."""
        self.share, self.target, kind = found.share, found.target, found.images.dtype
        here = found.present.sum()                      # 1, or 0 where no class is at hand
        self.of_probs = (self.mix + self.pure - torch.diag(self.local) * here).to(kind)         # (2, 2)
        self.fixed = (self.local[:, None, None] * found.present).to(kind)                       # (2, 1, K)
        self.level = self.even[:, None, None].to(kind)                                          # (2, 1, 1)
        self.mark = self.share.new_full((len(self.share), 1), -self.at_class)
        self.down, self.across = self.rows.to(kind), self.columns.to(kind)

    def of_scores(self, scores):
        """scores (2, B, K), old and new -> (2, B, K)."""
        logs = scores.log_softmax(2)
        probs, old, new = logs.exp(), logs[0], logs[1]
        kind, part, p = self.config.divergence, self.config.divergence_weight / 2, probs[0]
        if kind == "ag":
            inner = torch.logaddexp(old, new).sub_(logs.mean(0))                # (B, K)
        elif kind == "js":
            inner = logs - torch.logaddexp(old, new)                            # (2, B, K)
        else:
            inner = torch.stack([-2 * new, torch.zeros_like(new)])
        mean = (self.share @ p).clamp_(min=_LEAST)                              # (K,)
        inner = torch.sub(self.level * mean.log_(), inner, alpha=part)          # (2, B, K)
        slope = torch._softmax_backward_data(inner, probs, 2, probs.dtype)
        slope.view(2, -1).addmm_(self.of_probs, probs.view(2, -1))
        slope += self.fixed
        which = p.argmax(1, keepdim=True) if self.target is None else self.target[:, None]
        slope[0].scatter_add_(1, which, self.mark)
        return slope

    def step(self, x, slope, rate):
        """x (B, C, H, W) after a step down `slope`, which comes from the networks, size and variation."""
        new, (height, width) = x.sub(slope, alpha=rate), x.shape[2:]
        norm = torch.linalg.vector_norm(x, dim=(1, 2, 3), keepdim=True).clamp_(min=torch.finfo(x.dtype).tiny)
        new.addcdiv_(x, norm, value=-rate * self.config.size / x[0].numel())
        rate, flat, planes = rate * self.config.variation, x.view(-1, width), x.view(-1, height, width)
        new.view(-1, width).addmm_(flat, self.across, alpha=-rate)
        new.view(-1, height, width).baddbmm_(self.down.expand(len(planes), -1, -1), planes, alpha=-rate)
        return new


def neighbours(n, others):
    """The matrix A (n, n) with slope A x of 2 |steps between neighbours of x|^2 / (n - 1) / others."""
    step = torch.eye(n, dtype=torch.float64, device="cpu").diff(dim=0)          # (n - 1, n)
    return step.T @ step * (4 / (n - 1) / others)


# ---- both networks at once: scores, slopes back to the pixels, steps of the new one

class Part(NamedTuple):
    """Images that the new network is to answer as given, for one step."""

    x: torch.Tensor                     # (B, C, H, W)
    target: torch.Tensor                # (B, K) probabilities
    weight: torch.Tensor                # (B,) of each image in the loss
    counts: torch.Tensor | None = None  # (B,) how often each occurs; None: once


class ByHand:
    """Old and new fully connected network without autograd, which would take longer than the arithmetic."""

    gap = None

    def __init__(self, learner, old):
        self.old, self.lr = old, learner.config.lr
        both = [[*net.hidden, net.head] for net in (old, learner.net)]
        self.weights = [[layer.weight for layer in pair] for pair in zip(*both)]
        self.biases = [[layer.bias for layer in pair] for pair in zip(*both)]
        self.turned = [[weight.detach().T for weight in pair] for pair in self.weights]

    @torch.no_grad()
    def scores(self, x):
        """Both networks' scores: x (B, C, H, W) -> (2, B, K)."""
        before, self.hidden, self.shape = [x.flatten(1)] * 2, [], x.shape
        for biases, turned in zip(self.biases, self.turned):
            after = x.new_empty(2, len(x), len(biases[0]))
            for which, into in enumerate(after.unbind()):
                torch.addmm(biases[which], before[which], turned[which], out=into)
            if len(self.hidden) < len(self.biases) - 1:
                before = after.relu_().unbind()
            self.hidden.append(after)
        return self.hidden.pop()

    @torch.no_grad()
    def pull(self, slope):
        """The slope in the pixels (B, C, H, W), summed over both networks, of one in the scores (2, B, K)."""
        for weights, hidden in zip(self.weights[:0:-1], self.hidden[::-1]):
            below = torch.empty_like(hidden)
            for which, into in enumerate(below.unbind()):
                torch.mm(slope[which], weights[which], out=into)
            slope = torch.ops.aten.threshold_backward(below, hidden, 0)         # through the ReLU
        old, new = self.weights[0]
        return torch.mm(slope[1], new).addmm_(slope[0], old).view(self.shape)   # new first: next comes old

    @torch.no_grad()
    def answers(self, parts, mode):
        """The old network's probabilities for [(x (B, C, H, W), counts), ...]: [(B, K), ...]."""
        scores = self.old(torch.cat([x for x, _ in parts]))
        return scores.softmax(1).split([len(x) for x, _ in parts])

    @torch.no_grad()
    def train(self, parts, mode=None, fresh=True):
        """A step of the new network on the weighted cross-entropy of all Parts; [its sum by part]."""
        x, target, weight, _ = zip(*parts)
        x, target, weight = torch.cat(x), torch.cat(target), torch.cat(weight)[:, None]
        hidden = [x.flatten(1)]
        for biases, turned in zip(self.biases[:-1], self.turned):
            hidden.append(torch.addmm(biases[1], hidden[-1], turned[1]).relu_())
        logs = torch.addmm(self.biases[-1][1], hidden[-1], self.turned[-1][1]).log_softmax(1)
        losses = (logs * target).sum(1, keepdim=True).mul_(-weight).split([len(part.x) for part in parts])
        delta = logs.exp_().sub_(target).mul_(weight)                           # d loss / d scores (B, K)
        for k in reversed(range(len(hidden))):
            weight, own = self.weights[k][1], delta
            if k:
                delta = torch.ops.aten.threshold_backward(delta @ weight, hidden[k], 0)
            weight.addmm_(own.T, hidden[k], alpha=-self.lr)
            self.biases[k][1].sub_(own.sum(0), alpha=self.lr)
        return [loss.sum() for loss in losses]


class ByAutograd:
    """The same for any network."""

    def __init__(self, learner, old):
        self.old, self.new, self.norms, config = old, learner.net, learner.norms, learner.config
        self.optimizer = torch.optim.SGD(self.new.parameters(), lr=config.lr)
        self.weight = config.statistics if config.recall == "adi" else 0.0
        self.compared = [m for m in old.modules() if isinstance(m, Norm)] if self.weight else []

    def scores(self, x):
        """As in ByHand; `gap` is the mean of the statistics term over the old batch norms, or None."""
        gaps = [] if self.compared else None
        tell(self.compared, gaps=gaps)
        with torch.enable_grad():
            self.x = x.detach().requires_grad_()
            self.found = [net(self.x) for net in (self.old, self.new)]
            self.gap = torch.stack(gaps).mean() if gaps else None
        tell(self.compared, gaps=None)
        return torch.stack([scores.detach() for scores in self.found])

    def pull(self, slope):
        """As in ByHand, and the slope of the statistics term."""
        ends, slopes = self.found, list(slope)
        if self.gap is not None:
            whole = torch.full_like(self.gap, self.weight * len(self.x))        # over the share of an image
            ends, slopes = [*ends, self.gap], [*slopes, whole]
        return torch.autograd.grad(ends, self.x, slopes)[0].contiguous()

    @torch.no_grad()
    def answers(self, parts, mode):
        """As in ByHand; each part has batch statistics of its own."""
        found = []
        for x, counts in parts:
            tell(self.norms, mode=mode, counts=counts)
            found.append(self.old(x).softmax(1))
        return found

    def train(self, parts, mode=None, fresh=True):
        """As in ByHand.   mode: statistics of batch norm.   fresh: drop the gradients of the step before."""
        if fresh:
            self.optimizer.zero_grad()
        losses = []
        for part in parts:
            tell(self.norms, mode=mode, counts=part.counts)
            losses.append(part.weight @ soft_cross_entropy(self.new(part.x), part.target))
        sum(losses).backward()
        self.optimizer.step()
        return [loss.detach() for loss in losses]


# ---- batch normalisation where an image can stand for several

class _Weighted(torch.autograd.Function):
    """Batch normalisation of a batch in which image i occurs counts[i] times, of which one is computed."""

    @staticmethod
    def forward(ctx, x, weight, bias, counts, eps):
        share = counts / counts.sum()                                           # (B,)
        mean = share @ x.mean((2, 3))                   # (C,); torch.var_mean takes ten times as long
        var = share @ (x - mean[:, None, None]).square_().mean((2, 3))
        ctx.save_for_backward(x, weight, share, mean, var)
        ctx.eps = eps
        ctx.mark_non_differentiable(mean, var)
        return F.batch_norm(x, mean, var, weight, bias, False, 0.0, eps), mean, var

    @staticmethod
    def backward(ctx, slope, *_):
        x, weight, share, mean, var = ctx.saved_tensors
        fixed, by_weight, by_bias = torch.ops.aten.native_batch_norm_backward(
            slope, x, weight, mean, var, None, None, False, ctx.eps, [True, True, True])
        scale = (var + ctx.eps).rsqrt()                                         # (C,)
        part = share[:, None] / x[0, 0].numel() * weight * scale                # (B, C)
        by_scale = part * by_weight * scale
        shift = by_scale * mean - part * by_bias
        return (fixed + shift[:, :, None, None]).addcmul_(x, by_scale[:, :, None, None], value=-1), \
            by_weight, by_bias, None, None


class Norm(nn.BatchNorm2d):
    """Batch normalisation that can be told which statistics to use, and how often each image occurs.

    mode: "update" (those of the batch, which also enter the running ones), "batch" (those of the batch),
    "running", or None: "update" when training, "running" otherwise.   counts: (B,) how often each image
    occurs, or None: once.   gaps: a list to which each pass adds the distance between both statistics, or
    None.
    """

    mode = counts = gaps = None

    def forward(self, x):
        mode = self.mode or ("update" if self.training else "running")
        if self.gaps is not None:
            self.gaps.append(statistics_gap(x, self.running_mean, self.running_var))
        if mode == "running":
            return F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps)
        if self.counts is not None:
            y, mean, var = _Weighted.apply(x, self.weight, self.bias, self.counts, self.eps)
            n = self.counts.sum() * x[0, 0].numel()
            if mode == "update":
                self.renew(mean, var * n / (n - 1))
            return y
        if mode == "batch":
            return F.batch_norm(x, None, None, self.weight, self.bias, True, 0.0, self.eps)
        if self.momentum is not None:
            self.num_batches_tracked += 1
            return F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, True,
                                self.momentum, self.eps)
        mean, var = torch.zeros_like(self.running_mean), torch.zeros_like(self.running_var)
        y = F.batch_norm(x, mean, var, self.weight, self.bias, True, 1.0, self.eps)
        self.renew(mean, var)
        return y

    @torch.no_grad()
    def renew(self, mean, var):
        """Take the statistics of a batch, (C,) each, into the running ones; nothing waits for the count."""
        self.num_batches_tracked += 1
        part = self.momentum
        if part is None:
            part = self.num_batches_tracked.to(mean.dtype).reciprocal()
        self.running_mean.lerp_(mean, part)
        self.running_var.lerp_(var, part)


def tell(norms, **settings):
    """Set mode, counts or gaps of all these Norms."""
    for norm in norms:
        for name, value in settings.items():
            setattr(norm, name, value)


def _with_norms(net, average):
    """The network with each batch norm as a Norm; `average`: the first one averages over all passes."""
    found = []
    for parent in list(net.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.BatchNorm2d):
                found.append(Norm(child.num_features, child.eps, child.momentum, device=child.weight.device))
                setattr(parent, name, found[-1])
    if found and average:
        next(m for m in net.modules() if isinstance(m, Norm)).momentum = None
    return net


def _as_buffers(net, kept):
    """A copy of the network whose weights are buffers: no parameters to train; kept: whether it is state."""
    twin = copy.deepcopy(net)
    for module in twin.modules():
        for name, parameter in list(module.named_parameters(recurse=False)):
            del module._parameters[name]
            module.register_buffer(name, parameter.detach())
        if not kept:
            module._non_persistent_buffers_set.update(module._buffers)
    return twin


# ---- what happens to a batch

class Recollection(NamedTuple):
    """Images for one batch, before or after their descent; n of them, for M with their copies."""

    start: torch.Tensor                 # (n, C, H, W) where they begin
    images: torch.Tensor                # (n, C, H, W) as they are now
    origins: torch.Tensor               # (n,) class of the image each begins as, -1: noise
    present: torch.Tensor               # (K,) 1 / C for the C classes of the batch, else 0
    counts: torch.Tensor | None = None  # (n,) how many of the M images each is; None: one
    target: torch.Tensor | None = None  # (n,) class each is to show (adi)
    values: torch.Tensor | None = None  # (S, 9) TERMS in each step of the descent
    steps: torch.Tensor | None = None   # (S + 1, n, C, H, W) images before each step and after the last
    scores: torch.Tensor | None = None  # (S, 2, n, K) of the old and the new network before each step
    answers: torch.Tensor | None = None  # (n, K) probabilities of the old network for the images

    @property
    def share(self):
        """What each image counts in a mean, 1 in all: (n,)."""
        if self.counts is None:
            return self.images.new_full((len(self.images),), 1 / max(1, len(self.images)))
        return self.counts / self.counts.sum()


class Passes:
    """The numbered batches of a task: (step, x, y), in the same order in each of the passes."""

    def __init__(self, images, size, passes):
        self.images, self.size, self.passes = images, size, passes
        self.seed = int(torch.randint(2**62, (), device="cpu"))

    def __len__(self):
        return self.passes * -(-len(self.images) // self.size)

    def __iter__(self):
        step = 0
        for _ in range(self.passes):
            draw = torch.Generator(device="cpu").manual_seed(self.seed)
            for x, y in self.images.batches(self.size, generator=draw):
                yield step, x, y
                step += 1


class Watch:
    """Notes, without waiting for a value, where a recall first was not finite: batch, descent step, term."""

    def __init__(self, config, device):
        weights = [config.divergence_weight, *(getattr(config, name) for name in TERMS[1:])]
        self.weights = torch.tensor(weights, device=device)
        self.found = torch.full((3,), -1, device=device)

    def look(self, step, values, images):
        """values: (S, 9), TERMS by descent step of batch number `step`; images: what came of it.

        The step that did it is the last one with finite terms, through its largest term; if there is none,
        the first one, through its first term that is not finite.
        """
        bad = ~values.isfinite()                                                # (S, 9)
        good = (~bad.any(1)).cumprod(0).sum()           # how many steps began with finite terms
        last = (good - 1).clamp(min=0)
        terms = (values * self.weights).index_select(0, last[None])[0].abs()    # (9,)
        term = torch.where(good > 0, terms.argmax(), bad[0].to(torch.uint8).argmax())
        wrong = ((good < len(values)) | ~images.isfinite().all()) & (self.found[0] < 0)
        self.found = torch.where(wrong, torch.stack([torch.full_like(last, step), last, term]), self.found)

    def check(self):
        """Stop with a sentence if a recall was not finite."""
        step, descent, term = self.found.tolist()
        if step >= 0:
            raise LearnerError(f"the recall of batch {step} diverged in step {descent} of its descent "
                               f"through the term {TERMS[term]!r}: lower image_lr, lr or that term's weight")

    def state_dict(self):
        """The place found, or -1."""
        return {"found": self.found}

    def load_state_dict(self, state):
        """Take over a `state_dict`."""
        self.found = state["found"].to(self.found.device)


# ---- the learner

class ARM(Learner):
    """Automatic recall machines, adaptive DeepInversion and plain distillation, online."""

    tables = {
        "loss": "one row a batch: step, loss (cross-entropy), replay and distill (weighted; 0 where none)",
        "progress": "one row each fifth of a task, before the batch: step; a place for probes",
        "recall": "one row a batch: step, output (K,) mean output of the old network for what was recalled, "
                  "low and high, the range of its pixels; NaN where nothing was recalled",
        "objective": "one row a batch: step, and the mean of each term in each step of the descent (S,), "
                     "without its weight: divergence, local_old and local_new (log-probability), "
                     "diversity (minus the entropy), sharpness, size, variation, target, statistics; 0 for "
                     "a term without weight, NaN where nothing was recalled",
        "images": "one row each fifth of a task: step, start (n, C, H, W), recalled (n, C, H, W), origins "
                  "(n,) class of the image it began as, -1 for noise, counts (n,) how many of the M images "
                  "each is, answers (n, K) of the old network; n is 0 where nothing was recalled"}
    memory_kinds = {"old.": "old copies"}

    def __init__(self, config, shape, classes):
        super().__init__(config, shape, classes)
        if len(self.shape) != 3 or min(self.shape[1:]) < 2:
            raise LearnerError("images have the shape (C, H, W) with 2 x 2 pixels or more, not "
                               f"{self.shape}")
        net = _with_norms(nets.build(config.net, shape, classes), config.stem_average)
        self.net = net.to(memory_format=torch.channels_last)                    # quicker convolutions
        kept = config.lag != 1 and (config.recall != "none" or config.distill > 0)
        self.old = _as_buffers(self.net, kept)
        self.norms = [m for m in self.modules() if isinstance(m, Norm)]
        if config.recall == "adi" and config.statistics and not self.norms:
            raise LearnerError(f"the network {config.net!r} has no batch normalisation whose statistics "
                               "could be compared: set statistics to 0")
        self.slopes = Slopes(config, self.shape)
        self.register_buffer("seen", torch.zeros((), dtype=torch.int64, device="cpu"))
        if config.recall == "adi":                      # classes of which an image has come
            self.register_buffer("met", torch.zeros(classes, dtype=torch.bool, device="cpu"))

    def learn(self, task, trace):
        self._check(task.train.images)
        passes = Passes(task.train, self.config.batch, self.config.epochs)
        engine, watch, fifth = self.engine(), Watch(self.config, self.seen.device), max(1, len(passes) // 5)
        for step, x, y in trace.steps("online", passes, watch):
            if step % (self.config.lag or len(passes)) == 0:
                self.renew()
            if step % fifth == 0:
                watch.check()
                trace("progress", step=step)
            loss = self.fit(engine, x, y)
            found, losses = self.draw(x[:0], y[:0], 0), (0.0, 0.0)
            if task.index:
                found, losses = self.rehearse(engine, x, y, watch, step)
            if self.config.recall == "adi":
                self.met.index_fill_(0, y, True)
            trace("loss", step=step, loss=loss, replay=losses[0], distill=losses[1])
            self.report(found, step, fifth, trace)
        watch.check()
        self.seen.fill_(task.seen)

    def engine(self, old=None):
        """What computes with the old and the new network, in the quickest way for their kind."""
        sums_up = self.config.repeats > 1 and self.config.repeat == "accumulate"
        kind = ByHand if isinstance(self.net, nets.MLP) and not sums_up else ByAutograd
        return kind(self, old or self.old)

    @torch.no_grad()
    def renew(self):
        """Make the old network a copy of the new one (lines 10, 11)."""
        source = self.net.state_dict()
        for name, tensor in self.old.named_buffers():
            tensor.copy_(source[name])

    def fit(self, engine, x, y):
        """A step on the cross-entropy of the batch x (B, C, H, W), y (B,) (line 5); the loss before it."""
        target = x.new_zeros(len(x), self.classes).scatter_(1, y[:, None], 1.0)
        return engine.train([Part(x, target, x.new_full((len(x),), 1 / len(x)))])[0]

    def rehearse(self, engine, x, y, watch, step):
        """Recall and replay for the batch x (B, C, H, W), y (B,) number `step` (lines 6 to 9).

        Returns what was recalled and the losses of replay and distillation, weighted.
        """
        config = self.config
        for turn in range(config.repeats):
            if turn == 0 or config.repeat == "afresh":
                found = self.draw(x, y, 0 if config.recall == "none" else config.images)
            if config.recall != "none":
                found = self.descend(engine, found, config.norm)
                watch.look(step, found.values, found.images)
            found, losses = self.replay(engine, found, x, turn == 0 or config.repeat != "accumulate")
        tell(self.norms, mode=None, counts=None)
        return found, losses

    def draw(self, x, y, images):
        """Where `images` images for the batch x (B, C, H, W), y (B,) begin (line 6)."""
        config, batch = self.config, len(x)
        start, origins, counts = x[:images], y[:images], None
        if config.start == "noise" and images:
            start = torch.rand(images, *self.shape, dtype=x.dtype, device=x.device)
            origins = y.new_full((images,), -1)
        elif images > batch and config.recall == "adi":  # copies that are to show different classes
            which = torch.randint(batch, (images,), device=x.device)
            start, origins = x[which], y[which]
        elif images > batch:
            which = torch.randint(batch, (images,), device=x.device)
            start, origins, counts = x, y, x.new_zeros(batch).index_add_(0, which, x.new_ones(images))
        elif images < batch:
            which = torch.randperm(batch, device=x.device)[:images]
            start, origins = x[which], y[which]
        present = x.new_zeros(self.classes).index_fill_(0, y, 1)
        target = self.wanted(images, present) if config.recall == "adi" and images else None
        return Recollection(start, start, origins, present / present.sum().clamp(min=1), counts, target)

    def wanted(self, images, present):
        """Classes that so many images are to show: drawn from those met but not present (adi): (n,).

        Each at most once where there are enough. present: (K,) above 0 for the classes of the batch.
        """
        pool = self.met & (present == 0)                                        # (K,)
        keys = torch.rand(self.classes, device=pool.device)
        order, count = torch.where(pool, keys, 2.0).argsort(), pool.sum()
        place = torch.arange(images, device=pool.device).clamp(max=self.classes - 1)
        again = (torch.rand(images, dtype=torch.float64, device=pool.device) * count).long()
        return order[torch.where(count >= images, place, again)]

    @torch.no_grad()
    def descend(self, engine, found, mode):
        """Optimise the images of a Recollection for S steps (lines 7, 8); the Recollection after them.

        mode: statistics of batch norm. An image's slope is divided by the number of its copies: each copy
        would have moved by its own share of the mean.
        """
        config, x, share, counts = self.config, found.images, found.share, found.counts
        rate = config.image_lr / (len(x) if counts is None else config.images)
        tell(self.norms, mode=mode, counts=counts)
        self.slopes.begin(found)
        images, scores, gaps, none = [x], [], [], share.new_zeros(())
        for _ in range(config.descent):
            scores.append(engine.scores(x))
            slope = self.slopes.of_scores(scores[-1])
            if counts is None:
                slope = engine.pull(slope)
            else:
                slope = engine.pull(slope * counts[:, None]) / counts.clamp(min=1)[:, None, None, None]
            x = self.slopes.step(x, slope, rate)
            images.append(x)
            gaps.append(none if engine.gap is None else engine.gap.detach())
        steps, scores = torch.stack(images), torch.stack(scores)
        values = values_of_terms(config, scores, steps[:-1], share, found.present, found.target)
        values = torch.cat([values, torch.stack(gaps)[:, None]], 1)
        return found._replace(images=x, values=values, steps=steps, scores=scores)

    def replay(self, engine, found, x, fresh):
        """A step towards the old network's outputs, for recalled images and x (B, C, H, W) (line 9).

        fresh: without the gradients of the step before. Returns the Recollection with these outputs, and the
        losses of replay and distillation, weighted.
        """
        config = self.config
        n = len(found.images) if found.counts is None else config.images
        m = len(x) if config.distill else 0
        if n + m == 0:
            return found, (0.0, 0.0)
        a, b = (n / (n + m), m / (n + m)) if config.reduction == "union" else (1.0, 1.0)
        parts = [(found.images, found.counts, a * config.replay * found.share)] if n else []
        parts += [(x, None, x.new_full((m,), b * config.distill / m))] if m else []
        answers = engine.answers([(images, counts) for images, counts, _ in parts], config.norm)
        losses = engine.train([Part(images, answer, weight, counts)
                               for (images, counts, weight), answer in zip(parts, answers)],
                              config.norm, fresh)
        if n:
            found = found._replace(answers=answers[0])
        return found, (losses[0] if n else 0.0, losses[-1] if m else 0.0)

    def report(self, found, step, fifth, trace):
        """Rows of the tables "recall", "objective" and "images"."""
        n, nothing = len(found.images), found.share.new_full((), math.nan)
        if trace.wants("recall"):
            low, high = found.images.aminmax() if n else (nothing, nothing)
            output = found.share @ found.answers if n else nothing.expand(self.classes)
            trace("recall", step=step, output=output, low=low, high=high)
        if trace.wants("objective"):
            values = found.values if n else nothing.expand(self.config.descent, len(TERMS))
            trace("objective", step=step, **dict(zip(TERMS, values.T)))
        if trace.wants("images") and step % fifth == 0:
            trace("images", step=step, start=found.start, recalled=found.images, origins=found.origins,
                  counts=found.share.new_ones(n) if found.counts is None else found.counts,
                  answers=found.answers if n else found.share.new_zeros(0, self.classes))

    def remember(self, x, y):
        """What the learner as it is recalls for a batch x (B, C, H, W), y (B,): a Recollection.

        `old` is the network before the last task, `net` the present one. Nothing is learned; running
        statistics stay as they are. LearnerError before the first task is over.
        """
        self._check(x)
        self._check_recall()
        return self._look(self.draw(x, y, self.config.images), self.old)

    def recall(self, n):
        """n images (n, C, H, W) that begin as noise, and the classes (n,) that the network sees in them.

        Both networks are the present one and no class is at hand, as at the first instant of a next task.
        LearnerError before the first task is over.
        """
        self._check_recall()
        parts, images, device = [], self.config.images, self.seen.device
        for _ in range(-(-n // images)):
            start = torch.rand(images, *self.shape, dtype=next(self.parameters()).dtype, device=device)
            target = None
            if self.config.recall == "adi":
                target = (torch.rand(images, device=device) * self.seen).long()
            nowhere = torch.full((images,), -1, device=device)
            found = Recollection(start, start, nowhere, start.new_zeros(self.classes), target=target)
            found = self._look(found, self.net)
            parts.append((found.images, found.answers[:, :int(self.seen)].argmax(1)))
        images, labels = (torch.cat(part)[:n] for part in zip(*parts))
        return images, labels

    def _look(self, found, old):
        """A descent that leaves no mark."""
        mode, engine = "running" if self.config.norm == "running" else "batch", self.engine(old)
        found = self.descend(engine, found, mode)
        answers = engine.answers([(found.images, found.counts)], mode)[0]
        tell(self.norms, mode=None, counts=None)
        return found._replace(answers=answers)

    def _check(self, x):
        if tuple(x.shape[1:]) != self.shape:
            raise LearnerError(f"the network takes images of the shape {self.shape}, not "
                               f"{tuple(x.shape[1:])}")

    def _check_recall(self):
        if self.config.recall == "none":
            raise LearnerError("with recall='none' no images are recalled: take 'arm' or 'adi'")
        if not self.seen:
            raise LearnerError("nothing can be recalled before the first task has been learned: call learn() "
                               "first")

    def forward(self, x):
        self._check(x)
        return self.net(x)                                                      # (B, K)


class Stationary(Learner):
    """Plain training on all classes at once, each image once: what the same budget gives without tasks."""

    joint = keeps_data = True
    tables = {"loss": "one row a batch: step, loss (cross-entropy)"}

    def __init__(self, config, shape, classes):
        super().__init__(config, shape, classes)
        net = _with_norms(nets.build(config.net, shape, classes), config.stem_average)
        self.net = net.to(memory_format=torch.channels_last)

    def learn(self, task, trace):
        optimizer = torch.optim.SGD(self.net.parameters(), lr=self.config.lr)
        passes = Passes(task.train, self.config.batch, self.config.epochs)
        for step, x, y in trace.steps("online", passes, optimizer):
            loss = F.cross_entropy(self.net(x), y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            trace("loss", step=step, loss=loss)

    def forward(self, x):
        return self.net(x)                                                      # (B, K)
