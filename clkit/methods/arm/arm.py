"""ARM: automatic recall machines, replay of images that the classifier itself produces (Ji et al. 2020).

    python -m clkit run arm/mnist-5k-5 --preset paper     # about 1 minute a seed: 55 % (paper 56.3)

Beside it: papers/arm.py (settings), plots/arm.py, figures/arm/, book/explore/arm.py; here terms.py, fast.py

    ARM(stream): theta' <- the network; for each batch B of N images, each seen once:       algorithm 1
        at the start of a task: theta <- theta'                       lines 10, 11  ARM.update_teacher
        theta' <- a step on the cross-entropy of B                    line 5        ARM.fit
        from the second task on:
            X <- M images drawn from B                                line 6        ARM.start_images
            S times: X <- X + eta_1 d recall(X; B, theta, theta') / dX   lines 7, 8    ARM.optimize_images
            theta' <- a step towards the outputs of theta on X and on B  line 9        ARM.replay

    recall = mean over X of  D(theta'(x), theta(x))                   eq. 8         divergence
               + lambda_1 / C sum over classes y of B of CE(theta(x), y)            away_from_batch_classes
               + lambda_2 / C sum over classes y of B of CE(theta'(x), y)           away_from_batch_classes
             + lambda_3 H(mean output of theta)                       eq. 9         diversity
             - lambda_4 mean of CE(theta(x), its own largest output)                confidence
             - lambda_5 mean L2 norm - lambda_6 mean total variation                l2, tv

recall="adi" is the authors' adaptive DeepInversion (Yin et al. 2020) in the same loop: D, L2 and TV with a
wanted old class for each image (`wanted_class`), and the distance between the batch statistics of X and the
running ones (`bn_loss`). recall="none" is distillation on B alone (LwF online), and with distill=0 plain
training. Every term here is minimised, as in the authors' code, with plain autograd; `learn` takes the same
steps by fast.py (closed forms, copies of an image computed once). Tests hold both equal.

Details that the paper leaves open, or that the authors' code does differently
1. D. The paper says Jensen-Shannon. The code calls the divergence with its arguments exchanged:
   (KL(m || p) + KL(m || q)) / 2 with m = (p + q) / 2, which has no upper bound and so keeps its gradient
   where the two networks disagree most. divergence="ag" (arithmetic-geometric) is the code's and the default,
   "js" the paper's, "ce" the ablation. It is computed from logarithms: the code's form has NaN gradients once
   a probability is 0 in both networks.
2. The pixel step is plain gradient descent. No clamp to [0, 1], no noise, no momentum; images go far beyond
   [0, 1]. All terms are means over M, so a larger M makes smaller steps (eta_1 / M for each pixel).
3. M > N. The code draws with replacement, and copies of one image stay equal for all S steps: at most N
   images differ. For M <= N it draws without replacement (the paper: with); M = N is the batch.
4. Losses of line 9. The code takes a mean over X and another over B; the paper divides by M + N
   (reduction="union"). Targets are the whole softmax of theta, future classes included; nothing is masked.
5. Batch normalisation. Both networks use the statistics of the current images, theta too, and all passes,
   those on recalled images included, enter the running statistics that tests use (norm="update"). The first
   such layer averages over all passes, the others have the usual momentum (stem_average). norm="batch":
   recall and replay leave running statistics alone; norm="running": they use them.
6. Several recalls for each batch (repeats > 1). The code does not reset the gradients in between and goes on
   with the same images: step k uses g_1 + ... + g_k (repeat="accumulate"). "zeroed" resets the gradients;
   "afresh" also starts from newly drawn images, as algorithm 1 would.
7. Batch classes are those of the batch, not of the task: a class of the task that is missing from a batch
   counts as one to be recalled.
8. Several passes over a task (epochs > 1) go through its batches in the same order each time (code).
9. Nothing is recalled in the first task, whatever the lag (code). A lag counts batches from the start of
   a task.
10. Diversity uses the mean of the probabilities of theta, raised to 2.2e-16 where it is less. The L2 norm is
    not squared and is divided by the number of pixels.
11. Accuracy of a task. In the code it is the mean of the accuracies of the task's classes. Here, as in all of
    this package, it is the share of its images. The two differ where classes have different numbers of test
    images (MNIST), by a few tenths of a point.

Records: "loss" (step, loss, replay, distill), "progress" (step), "recall" (step, output, low, high),
"objective" (step and the terms), "images" (step, start, recalled, origins, counts, probs); see `tables`.
Keeps between tasks: the weights, and theta, a copy of the network (not with lag=1, where theta is never older
than a step).
"""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch.nn import functional as F

from clkit.blocks import nets
from clkit.blocks.losses import soft_cross_entropy
from clkit.blocks.shared_norm import bn_mode, convert, input_gaps, norms
from clkit.engine.learner import Learner, LearnerError, check_config, teacher
from clkit.methods.arm import fast
from clkit.methods.arm.recalled import NonFiniteGuard, RecalledBatch, report
from clkit.methods.arm.terms import (
    away_from_batch_classes,
    confidence,
    divergence,
    diversity,
    l2,
    tv,
    wanted_class,
)

REVISION = 1
TERMS = ("divergence", "local_old", "local_new", "diversity", "confidence", "l2", "tv", "target", "bn_loss")


@dataclass(frozen=True)
class Config:
    """Defaults: MNIST-5k-5 (table 4; values found only in the code are marked so)."""

    net: str = "mlp"            # network: mlp, convnet, resnet18, ... (clkit.blocks.nets)
    recall: Literal["arm", "adi", "none"] = "arm"   # what is recalled; "adi": adaptive DeepInversion
    n_images: int = 10          # M: images recalled for a batch
    n_steps: int = 10           # S: steps in which they are optimised
    image_lr: float = 25.0      # eta_1: learning rate of the pixels
    divergence: Literal["ag", "js", "ce"] = "ag"    # D: "ag" (code), "js" (paper), "ce" (ablation)
    divergence_weight: float = 1.0  # of D; 8 with unit lag (appendix A.5)
    local_old: float = 1.0      # lambda_1: away from the classes of the batch, for the old network
    local_new: float = 0.1      # lambda_2: the same for the new one
    diversity: float = 16.0     # lambda_3: entropy of the mean output
    confidence: float = 0.1     # lambda_4: each output near one class
    l2: float = 1.0             # lambda_5: small L2 norm
    tv: float = 1.0             # lambda_6: small total variation
    target: float = 1.0         # adi only: cross-entropy with the class an image is to show
    bn_loss: float = 0.0        # adi only: nearness to the running statistics; 0.1 for CIFAR10 (code)
    replay: float = 1.0         # lambda_0 of the recalled images
    distill: float = 1.0        # lambda_0 of the batch itself; 0: no distillation
    reduction: Literal["means", "union"] = "means"  # of these two losses: of each (code), of all (paper)
    lag: int | None = None      # T: batches between copies of the network; None: one per task; 1: unit lag
    start: Literal["batch", "noise"] = "batch"      # images begin as copies from the batch, or as noise
    repeats: int = 1            # how often a batch is recalled and replayed
    repeat: Literal["accumulate", "zeroed", "afresh"] = "accumulate"    # if more (code; paper: afresh)
    norm: Literal["update", "batch", "running"] = "update"  # statistics of batch norm in recall
    stem_average: bool = True   # the first batch norm averages over all passes instead of the latest (code)
    epochs: int = 1             # passes over the images of a task
    batch_size: int = 10        # N: images in a batch
    lr: float = 0.05            # eta_0: learning rate of gradient descent without momentum

    def __post_init__(self):
        check_config(self, above_0="image_lr lr")


# ---- the learner

def network(config, shape, classes):
    """The network of a Config, with SharedNorms; quicker convolutions by their memory format."""
    net = convert(nets.build(config.net, shape, classes), config.stem_average)
    return net.to(memory_format=torch.channels_last)


class ARM(Learner):
    """Automatic recall machines, adaptive DeepInversion and plain distillation, online."""

    tables = {
        "loss": "one row per batch: step, loss (cross-entropy), replay and distill (weighted; 0 if none)",
        "progress": "one row every fifth of a task, before the batch: step; a place for probes",
        "recall": "one row per batch: step, output (K,), mean output of the old network for the recalled "
                  "images, low and high, the range of their pixels; NaN if nothing was recalled",
        "objective": "one row per batch: step, and the mean of each term in each of the S steps (S,), "
                     "without its weight: divergence, local_old and local_new (log-probability), "
                     "diversity (minus the entropy), confidence, l2, tv, target, bn_loss; 0 for a term "
                     "without weight, NaN if nothing was recalled",
        "images": "one row every fifth of a task: step, start (n, C, H, W), recalled (n, C, H, W), origins "
                  "(n,), class of the start image, -1 for noise, counts (n,), how many of the M images each "
                  "stands for, probs (n, K) of the old network; n is 0 if nothing was recalled"}
    memory_kinds = {"old.": "teachers"}
    readable = False            # True: compute by the methods of this class, not by fast.py

    def __init__(self, config, shape, classes):
        super().__init__(config, shape, classes)
        if len(self.shape) != 3 or min(self.shape[1:]) < 2:
            raise LearnerError(f"images must have the shape (C, H, W), with at least 2 x 2 pixels, "
                               f"not {self.shape}")
        self.net = network(config, shape, classes)
        kept = config.lag != 1 and (config.recall != "none" or config.distill > 0)
        self.old = teacher(self.net, persistent=kept)
        if config.recall == "adi" and config.bn_loss and not norms(self.net):
            raise LearnerError(f"the network {config.net!r} has no batch normalisation, whose statistics "
                               "bn_loss compares: set bn_loss to 0")
        self.register_buffer("seen", torch.zeros((), dtype=torch.int64, device="cpu"))
        if config.recall == "adi":                      # classes seen in a batch
            self.register_buffer("met", torch.zeros(classes, dtype=torch.bool, device="cpu"))

    def learn(self, task, trace):
        config = self.config
        self._check(task.train.images)
        batches = task.train.batches(config.batch_size, epochs=config.epochs, reshuffle=False)
        optimizer = torch.optim.SGD(self.net.parameters(), lr=config.lr)
        path, fifth, recalled, losses = self.path(), max(1, len(batches) // 5), None, (0.0, 0.0)
        guard = NonFiniteGuard(self.weights(), self.seen.device)
        for step, (x, y) in trace.steps("online", enumerate(batches), guard, total=len(batches)):
            if step % (config.lag or len(batches)) == 0:
                self.update_teacher()
            if step % fifth == 0:
                guard.check()
                trace("progress", step=step)
            loss = path.fit(optimizer, x, y)
            if task.index:
                recalled, losses = self.rehearse(path, optimizer, x, y, guard, step)
            if config.recall == "adi":
                self.met.index_fill_(0, y, True)
            trace("loss", step=step, loss=loss, replay=losses[0], distill=losses[1])
            report(recalled or self.nothing(), TERMS, step, step % fifth == 0, trace)
        guard.check()
        self.seen.fill_(task.seen)

    def path(self, old=None):
        """The object that takes the steps: fast.py's, or self if `readable`."""
        return self if self.readable else fast.Fast(self, self.old if old is None else old)

    def weights(self):
        """The weights of the terms, {name: number} in the order of TERMS; D is maximised."""
        return {n: getattr(self.config, n) for n in TERMS} | {"divergence": -self.config.divergence_weight}

    @torch.no_grad()
    def update_teacher(self):
        """Make the old network a copy of the new one (lines 10, 11)."""
        source = self.net.state_dict()
        for name, tensor in self.old.named_buffers():
            tensor.copy_(source[name])

    def fit(self, optimizer, x, y):
        """A step on the cross-entropy of the batch x (N, C, H, W), y (N,) (line 5); the loss before it."""
        loss = F.cross_entropy(self.net(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss.detach()

    def rehearse(self, path, optimizer, x, y, guard, step):
        """Recall and replay for the batch x (N, C, H, W), y (N,) number `step` (lines 6 to 9).

        Returns the RecalledBatch or None, and the losses of replay and distillation, weighted.
        """
        config, recalled = self.config, None
        for turn in range(config.repeats):
            if config.recall != "none":
                if turn == 0 or config.repeat == "afresh":
                    recalled = path.start_images(x, y)
                recalled = path.optimize_images(recalled, self.old, config.norm)
                guard.look(step, recalled.values, recalled.images)
            fresh = turn == 0 or config.repeat != "accumulate"
            recalled, losses = path.replay(optimizer, recalled, x, fresh)
        return recalled, losses

    def start_images(self, x, y):
        """The M images (M, C, H, W) that a recall for x (N, C, H, W), y (N,) starts from (line 6)."""
        config, index, (N, M) = self.config, None, (len(x), self.config.n_images)
        if config.start == "noise":
            x, origins = torch.rand(M, *self.shape, dtype=x.dtype, device=x.device), y.new_full((M,), -1)
        elif M == N:
            origins = y
        else:
            order = torch.randint(N, (M,), device=x.device) if M > N else torch.randperm(N, device=x.device)
            index = order[:M]
            x, origins = x[index], y[index]
        present = x.new_zeros(self.classes).index_fill_(0, y, 1)                # (K,)
        target = self.old_classes(present) if config.recall == "adi" else None
        return RecalledBatch(x, x, origins, present / present.sum().clamp(min=1), index, target)

    def old_classes(self, present):
        """Classes that the M images are to show: drawn from those met but not present (adi): (M,).

        Each at most once where there are enough. present: (K,) above 0 for the classes of the batch.
        """
        M, pool = self.config.n_images, self.met & (present == 0)               # (K,)
        keys = torch.rand(self.classes, device=pool.device)
        order, count = torch.where(pool, keys, 2.0).argsort(), pool.sum()
        once = torch.arange(M, device=pool.device).clamp(max=self.classes - 1)
        again = (torch.rand(M, dtype=torch.float64, device=pool.device) * count).long()
        return order[torch.where(count >= M, once, again)]

    def terms(self, logits, images, recalled):
        """The terms that have a weight, as means over the images of a RecalledBatch: {name: scalar}.

        logits: (2, M, K) of the old and the new network for images (M, C, H, W). With a further first
        dimension S, for S steps, each term is (S,). `bn_loss` needs more than these: see `objective`.
        """
        log_p, log_q = logits.log_softmax(-1).unbind(-3)                        # (M, K) each
        share, here = recalled.image_weights, recalled.class_weights            # (M,) 1 / M, (K,)
        terms = {"divergence": divergence(log_p, log_q, self.config.divergence) @ share}
        if recalled.target is not None:
            terms["target"] = wanted_class(log_p, recalled.target) @ share
        else:
            terms["local_old"] = away_from_batch_classes(log_p, here) @ share
            terms["local_new"] = away_from_batch_classes(log_q, here) @ share
            terms["diversity"] = diversity(log_p.exp(), share)
            terms["confidence"] = confidence(log_p) @ share
        terms |= {"l2": l2(images) @ share, "tv": tv(images) @ share}
        return {n: term for n, term in terms.items() if n == "divergence" or getattr(self.config, n)}

    def objective(self, x, recalled, old):
        """The objective that the images x (M, C, H, W) of a RecalledBatch minimise: minus eq. 8.

        Returns the scalar, its terms {name: scalar} and the logits (2, M, K) of the old and the new network.
        """
        with input_gaps(old) as gaps:
            logits = old(x)
        logits = torch.stack([logits, self.net(x)])                             # (2, M, K)
        terms, weights = self.terms(logits, x, recalled), self.weights()
        if recalled.target is not None and self.config.bn_loss:
            terms["bn_loss"] = torch.stack(gaps).mean()
        return sum(weights[name] * term for name, term in terms.items()), terms, logits

    def optimize_images(self, recalled, old, norm):
        """S steps of the images down the objective (lines 7, 8): the RecalledBatch after them.

        old: the network to compare with.   norm: statistics of batch norm.
        """
        x, steps, values, logits = recalled.images, [recalled.images], [], []
        with bn_mode(self, mode=norm), torch.enable_grad():
            for _ in range(self.config.n_steps):
                x = x.detach().requires_grad_()         # a view: the batch itself stays as it is
                value, terms, outputs = self.objective(x, recalled, old)
                gradient, = torch.autograd.grad(value, x)
                x = x.detach() - self.config.image_lr * gradient                # (M, C, H, W)
                steps.append(x)
                values.append(torch.stack([terms.get(name, value.new_zeros(())) for name in TERMS]).detach())
                logits.append(outputs.detach())
        return recalled._replace(images=x, values=torch.stack(values), steps=torch.stack(steps),
                                 logits=torch.stack(logits))

    def replay(self, optimizer, recalled, x, fresh=True):
        """A step towards the old network's outputs, for recalled images and x (N, C, H, W) (line 9).

        recalled: a RecalledBatch, or None.   fresh: without the gradients of the step before. Returns the
        RecalledBatch with these outputs, and the losses of replay and distillation, weighted.
        """
        config, losses = self.config, {}
        parts = {} if recalled is None else {"replay": recalled.images}
        parts |= {"distill": x} if config.distill else {}
        both = sum(map(len, parts.values()))
        with bn_mode(self, mode=config.norm):
            for name, images in parts.items():          # each with batch statistics of its own
                with torch.no_grad():
                    target = self.old(images).softmax(1)                        # (M or N, K)
                loss = soft_cross_entropy(self.net(images), target).mean()
                share = len(images) / both if config.reduction == "union" else 1
                losses[name] = getattr(config, name) * share * loss
                if name == "replay":
                    recalled = recalled._replace(probs=target)
        if losses:
            if fresh:
                optimizer.zero_grad()
            sum(losses.values()).backward()
            optimizer.step()
        found = {name: loss.detach() for name, loss in losses.items()}
        return recalled, (found.get("replay", 0.0), found.get("distill", 0.0))

    def nothing(self):
        """A RecalledBatch of no image, whose values are NaN."""
        weight = next(self.parameters())
        none = weight.new_zeros(0, *self.shape)
        values = weight.new_full((self.config.n_steps, len(TERMS)), math.nan)
        return RecalledBatch(none, none, self.seen.new_zeros(0), weight.new_zeros(self.classes),
                             values=values, probs=weight.new_zeros(0, self.classes))

    def recall_for(self, x, y):
        """What the learner in its present state recalls for a batch x (N, C, H, W), y (N,): a RecalledBatch.

        `old` is the network before the last task, `net` the present one. Nothing is learned, and running
        statistics do not change. LearnerError before the first task is over.
        """
        self._check(x)
        self._check_recall()
        path = self.path()
        return self._look(path, path.start_images(x, y), self.old)

    def recall(self, n):
        """n images (n, C, H, W) that start as noise, and the classes (n,) that the network sees in them.

        Both networks are the present one and no class is present, as just before the next task starts.
        LearnerError before the first task is over.
        """
        self._check_recall()
        parts, M, device = [], self.config.n_images, self.seen.device
        for _ in range(-(-n // M)):
            start = torch.rand(M, *self.shape, dtype=next(self.parameters()).dtype, device=device)
            adi = self.config.recall == "adi"
            target = (torch.rand(M, device=device) * self.seen).long() if adi else None
            origins, present = self.seen.new_full((M,), -1), start.new_zeros(self.classes)
            recalled = RecalledBatch(start, start, origins, present, target=target)
            recalled = self._look(self.path(self.net), recalled, self.net)
            parts.append((recalled.images, recalled.probs[:, :int(self.seen)].argmax(1)))
        return tuple(torch.cat(part)[:n] for part in zip(*parts))

    @torch.no_grad()
    def _look(self, path, recalled, old):
        """An optimisation of the images that changes nothing in the learner."""
        mode = "running" if self.config.norm == "running" else "batch"
        recalled = path.optimize_images(recalled, old, mode)
        with bn_mode(self, mode=mode, multiplicity=recalled.multiplicity):
            return recalled._replace(probs=old(recalled.images).softmax(1))

    def _check(self, x):
        shape = tuple(x.shape[1:])
        if shape != self.shape:
            raise LearnerError(f"the network takes images of the shape {self.shape}, not {shape}")

    def _check_recall(self):
        if self.config.recall == "none":
            raise LearnerError("with recall='none' no images are recalled: set recall to 'arm' or 'adi'")
        if not self.seen:
            raise LearnerError("nothing can be recalled before the first task has been learned: call learn() "
                               "first")

    def forward(self, x):
        self._check(x)
        return self.net(x)                                                      # (B, K)


class Stationary(Learner):
    """Plain training on all classes at once, each image once: the same budget without tasks."""

    joint = stores_images = True
    tables = {"loss": "one row per batch: step, loss (cross-entropy)"}

    def __init__(self, config, shape, classes):
        super().__init__(config, shape, classes)
        self.net = network(config, shape, classes)

    def learn(self, task, trace):
        config = self.config
        optimizer = torch.optim.SGD(self.net.parameters(), lr=config.lr)
        batches = task.train.batches(config.batch_size, epochs=config.epochs, reshuffle=False)
        for step, (x, y) in trace.steps("online", enumerate(batches), optimizer, total=len(batches)):
            loss = F.cross_entropy(self.net(x), y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            trace("loss", step=step, loss=loss)

    def forward(self, x):
        return self.net(x)                                                      # (B, K)
