"""LwF as a baseline of replay without memory: a loss on new classes, distillation of old ones, SGD.

    python -m clkit run lwf-sgd/wardrobe --preset teach

    LWF-SGD(tasks): the first task: minimise CE(f(x), y)
        for each later task t:
            f* <- f                                     the network before the task         frozen
            f <- f*, with a row for each new class                                          begin
            minimise  (1 - a) CE(f(x), y)               on the outputs of new classes       LocalLwF.learn
                    + a CE(f*(x) / T, f(x) / T)         on the outputs of old classes       distillation
            with a the share of old classes among those seen

This is the form in which Liu et al. (2020, MUC) and Xin et al. (2021, MFGR) compare LwF: MFGR without
generated images, bit for bit. lwf.py has the method as Li and Hoiem (2018) and van de Ven and Tolias (2019)
have it.

Details the papers leave open
1. Each term has a softmax of its own, over the new classes and over the old ones (code of both). So no term
   compares an old output with a new one.
2. The distillation term has no factor T^2 (code).
3. The network, its training and the views of images are those of MFGR: see blocks/growing.py.

Records: tables "loss" (epoch, loss, ce, nkd: means over the epoch) and "fine" (a place for probes).
Keeps between tasks: the weights, and the number of classes seen after each task (8 bytes each).
"""

from dataclasses import dataclass

import torch
from torch.nn import functional as F

from clkit.blocks.gan import finite
from clkit.blocks.growing import Protocol, begin, classifier
from clkit.blocks.losses import distillation
from clkit.blocks.pixels import Standardise
from clkit.engine.learner import Learner, check_config, frozen

REVISION = 1


@dataclass(frozen=True)
class Config(Protocol):
    """Defaults: CIFAR-100 as in the paper on MFGR."""

    temperature: float = 2.0    # T

    def __post_init__(self):
        check_config(self, above_0="base_lr lr temperature std", from_0="pad")


class LocalLwF(Learner):
    """Learning without forgetting, with a softmax for the new classes and one for the old."""

    tables = {"loss": "one row per epoch: epoch, loss, ce (new classes), nkd (old classes)",
              "fine": "one row per task, after it; a place for probes"}

    def __init__(self, config, shape, classes):
        super().__init__(config, shape, classes)
        self.net = classifier(config.net, shape)
        self.standardise = Standardise(config.mean, config.std, shape[0])
        self.register_buffer("ends", torch.zeros(0, dtype=torch.int64, device="cpu"))   # classes seen by task

    def learn(self, task, trace):
        config, first, share = self.config, task.first, task.first / task.seen
        old = frozen(self.net) if first else None
        begin(self.net, config, task)
        batches = config.batches(task.train)
        optimizer, schedule = config.sgd(self.net.parameters(), task, len(batches))
        for epoch in trace.epochs("classifier", config.epochs_of(task), optimizer, schedule):
            total = 0.0
            for x, y in batches:
                x = self.standardise(x)
                logits = config.cast(self.net, x)                               # (B, seen)
                ce = F.cross_entropy(logits[:, first:], y - first)
                nkd = torch.zeros_like(ce) if old is None else self.old_loss(logits, x, old)
                loss = (1 - share) * ce + share * nkd
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                schedule.step()
                total += torch.stack([loss, ce, nkd]).detach()
            means = finite(dict(zip(("loss", "ce", "nkd"), total / len(batches))), task, epoch)
            trace("loss", epoch=epoch, **means)
        self.ends = torch.cat([self.ends, self.ends.new_tensor([task.seen])])
        trace("fine")

    def old_loss(self, logits, x, old):
        """Distillation on the old classes: logits (B, seen) of standardised images x (B, C, H, W)."""
        with torch.no_grad():
            soft = self.config.cast(old, x)                                     # (B, old)
        T = self.config.temperature
        return distillation(logits[:, :soft.shape[1]], soft, T) / T**2

    def forward(self, x):
        return self.net(self.standardise(x))                                    # (B, classes seen)
