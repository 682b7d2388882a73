"""MUC: side classifiers that disagree on other images, added to MAS or to LwF (Liu et al. 2020).

    python -m clkit run muc-lwf/wardrobe --preset teach
    python -m clkit run muc-mas/wardrobe --preset teach
    python -m clkit run mas-sgd/wardrobe --preset teach         # no side classifiers

    MUC(tasks): for each task t, with heads g (the classifier's) and s_1 .. s_K on features f:
        f*, g*, s* <- f, g, s                           before the task                       frozen
        give g a row for each new class                                                       begin
        MUC-LwF: minimise (1 - a) CE_new + a (KD(g, g*) + mean_k KD(s_k, s_k*))               MUC.distilled
        MUC-MAS: minimise CE_new + c sum_j Omega_j (theta_j - theta*_j)^2                     QuadraticPenalty
                 Omega <- Omega + that of g + the mean of those of s_k                        MUC.sensitivity
        freeze f, give each s_k a row for each new class                                      grow
        minimise  sum_k CE_new(s_k(f(x)))
                  - mean over pairs |p_k(u) - p_l(u)|_1,  u: unlabelled other images          MUC.add_sides

Unlike the methods it is compared with, MUC needs images of another data set: side_data names it, SVHN in the
papers. Without side classifiers (n_sides=0) none are needed, and these are MAS and LwF.

Details the papers leave open
1. CE_new is a softmax over the new classes alone, KD one over the old ones with T = 2 and no factor T^2; a is
   the share of old classes among those seen: as in `lwf-sgd`, and as in the code of Xin et al. (2021).
2. MAS protects all weights but those of the heads, c = 0.01. The rows of old classes are put back after each
   task, because weight decay moves them (code).
3. Omega is the absolute gradient of the mean, over the images of a batch, of the squared norm of the outputs,
   averaged over batches, in eval mode (see detail 1 of mas.py). It is summed over tasks.
4. Side classifiers learn the classes of their task alone: only their new rows, by SGD without weight decay at
   a constant rate. With MUC-LwF they learn with the network in later tasks; with MUC-MAS they stay.
5. The disagreement is measured among the probabilities of the new classes, on as many unlabelled images as
   there are new ones in a batch, drawn with replacement. Its weight is 1.
6. The network, its training and the views of images are those of MFGR: see blocks/growing.py.

Records: tables "loss" (epoch, loss, ce, nkd, sides, penalty: means over the epoch) and "fine" (a place for
probes).
Keeps between tasks: the weights with the side classifiers, MAS the importance of each weight, and the number
of classes seen after each task (8 bytes each).
"""

from dataclasses import dataclass
from itertools import combinations
from typing import Literal

import torch
from torch import nn
from torch.nn import functional as F

from clkit.blocks.gan import finite
from clkit.blocks.growing import Protocol, bare, begin, classifier, grow
from clkit.blocks.losses import distillation
from clkit.blocks.pixels import Standardise
from clkit.blocks.quadratic import QuadraticPenalty, flat
from clkit.engine.evaluate import in_eval_mode
from clkit.engine.learner import Learner, check_config, frozen
from clkit.engine.side import side_images

REVISION = 1
TERMS = ("loss", "ce", "nkd", "sides", "penalty")


@dataclass(frozen=True)
class Config(Protocol):
    """Defaults: CIFAR-100 as in the paper on MFGR."""

    keep: Literal["lwf", "mas"] = "lwf"         # how old classes are kept
    strength: float = 0.01      # c, of MAS
    temperature: float = 2.0    # T, of LwF
    n_sides: int = 3            # K, side classifiers
    side_data: str = "svhn"     # data set whose training images are the unlabelled ones
    side_epochs: int = 20       # passes over the images of a task in which side classifiers learn
    side_lr: float = 0.01       # their learning rate
    disagreement: float = 1.0   # weight of their distance on unlabelled images

    def __post_init__(self):
        check_config(self, above_0="base_lr lr side_lr temperature std", from_0="pad n_sides")


class MUC(Learner):
    """MAS or LwF, with side classifiers if there are any."""

    tables = {"loss": "one row per epoch: epoch, loss, ce (new classes), nkd and sides (old classes, by the "
                      "classifier and by its side classifiers), penalty",
              "fine": "one row per task, after it; a place for probes"}
    memory_kinds = {"importance": "importance"}

    def __init__(self, config, shape, classes):
        super().__init__(config, shape, classes)
        self.net = classifier(config.net, shape)
        self.sides = nn.ModuleList(bare(self.net.head.in_features) for _ in range(config.n_sides))
        self.standardise = Standardise(config.mean, config.std, shape[0])
        self.register_buffer("ends", torch.zeros(0, dtype=torch.int64, device="cpu"))   # classes seen by task
        size = sum(p.numel() for p in self.protected()) if config.keep == "mas" else 0
        self.register_buffer("importance", torch.zeros(size, device="cpu"))     # (P,) Omega

    def protected(self):
        """The parameters of the network but for its head."""
        return nn.ParameterList(p for name, p in self.net.named_parameters() if not name.startswith("head."))

    # -- learning

    def learn(self, task, trace):
        config, lwf = self.config, self.config.keep == "lwf"
        other = side_images(config.side_data, self.shape, self.ends.device) if len(self.sides) else None
        old = frozen(nn.ModuleList([self.net, self.sides])) if task.first and lwf else None
        rows = [p.detach().clone() for p in self.net.head.parameters()]
        begin(self.net, config, task)
        quadratic = None if lwf or not task.first else QuadraticPenalty(self.protected(), self.importance)
        self.train_network(task, old, quadratic, trace)
        if not lwf:
            for parameter, kept in zip(self.net.head.parameters(), rows):
                parameter.data[:len(kept)] = kept
        if other is not None:
            self.add_sides(task, other, trace)
        if not lwf:
            self.importance = self.importance + self.sensitivity(task)
        self.ends = torch.cat([self.ends, self.ends.new_tensor([task.seen])])
        trace("fine")

    def train_network(self, task, old, quadratic, trace):
        """The loop of the network: MUC-LwF with `old`, MUC-MAS with the penalty, or the first task."""
        config, first, share = self.config, task.first, task.first / task.seen if old else 0.0
        batches = config.batches(task.train)
        learning = [*self.net.parameters(), *(self.sides.parameters() if old else ())]
        optimizer, schedule = config.sgd(learning, task, len(batches))
        for epoch in trace.epochs("classifier", config.epochs_of(task), optimizer, schedule):
            total = 0.0
            for x, y in batches:
                x = self.standardise(x)
                features = config.cast(self.net.features, x)                    # (B, D)
                logits = self.net.head(features)                                # (B, seen)
                ce = F.cross_entropy(logits[:, first:], y - first)
                nkd = sides = penalty = torch.zeros_like(ce)
                if old is not None:
                    nkd, sides = self.distilled(features, logits, x, old)
                loss = (1 - share) * ce + share * (nkd + sides)
                optimizer.zero_grad()
                loss.backward()
                if quadratic is not None:
                    penalty = quadratic.add_gradient(config.strength)
                optimizer.step()
                schedule.step()
                total += torch.stack([loss + penalty, ce, nkd, sides, penalty]).detach()
            trace("loss", epoch=epoch, **finite(dict(zip(TERMS, total / len(batches))), task, epoch))

    def distilled(self, features, logits, x, old):
        """Distillation on the old classes: (by the classifier, the mean by the side classifiers)."""
        net, sides = old
        with torch.no_grad():
            before = self.config.cast(net.features, x)                          # (B, D)
            soft, others = net.head(before), [side(before) for side in sides]   # (B, old) each
        found = [self.distance(side(features), other) for side, other in zip(self.sides, others)]
        mean = torch.stack(found).mean() if found else torch.zeros_like(logits[0, 0])
        return self.distance(logits, soft), mean

    def distance(self, logits, soft):
        """Cross-entropy of softened outputs on the old classes: logits (B, seen), soft (B, old)."""
        T = self.config.temperature
        return distillation(logits[:, :soft.shape[1]], soft, T) / T**2

    # -- side classifiers

    def add_sides(self, task, other, trace):
        """Train new rows of the side classifiers on frozen features, apart from each other on `other`."""
        config, first = self.config, task.first
        for side in self.sides:
            grow(side, task.seen - first)
        optimizer = torch.optim.SGD(self.sides.parameters(), lr=config.side_lr)
        batches = config.batches(task.train)
        with in_eval_mode(self):
            for _ in trace.epochs("side classifiers", config.side_epochs, optimizer):
                for x, y in batches:
                    u = other[torch.randint(len(other), (len(x),), device=other.device)]
                    both = self.standardise(torch.cat([x, u / 255]))
                    with torch.no_grad():
                        features = config.cast(self.net.features, both)         # (2 B, D)
                    logits = [side(features)[:, first:] for side in self.sides]         # (2 B, new) each
                    ce = sum(F.cross_entropy(out[:len(x)], y - first) for out in logits)
                    loss = ce - config.disagreement * apart([out[len(x):] for out in logits])
                    optimizer.zero_grad()
                    loss.backward()
                    optimizer.step()

    def sensitivity(self, task):
        """How much each protected weight affects the outputs, (P,): the classifier's, and its sides' mean."""
        parameters, total = list(self.protected()), 0.0
        batches = task.train.batches(self.config.batch_size)
        heads = [(self.net.head, 1.0), *((side, 1 / len(self.sides)) for side in self.sides)]
        with in_eval_mode(self):
            for x, _ in batches:
                features = self.net.features(self.standardise(x))               # (B, D)
                for head, weight in heads:
                    size = head(features).square().sum(1).mean()
                    gradients = torch.autograd.grad(size, parameters, retain_graph=True)
                    total = total + weight * flat(gradients).abs()
        return total / len(batches)

    def forward(self, x):
        return self.net(self.standardise(x))                                    # (B, classes seen)


def apart(logits):
    """Mean over pairs of heads, and over images, of the distance of their probabilities: a scalar in [0, 2].

    logits: of each head, (B, K); without a pair the distance is 0.
    """
    probs = [out.softmax(1) for out in logits]
    gaps = [(p - q).abs().sum(1).mean() for p, q in combinations(probs, 2)]
    return torch.stack(gaps).mean() if gaps else logits[0].new_zeros(())
