"""Finetune and Oracle in the protocol of replay without memory: the bounds below and above MFGR.

    python -m clkit run oracle/wardrobe --preset teach
    python -m clkit run finetune-sgd/wardrobe --preset teach

    ORACLE(tasks): for each task t:
        keep D_t                                                                            Oracle.learn
        f <- f, with a row for each new class                                               begin
        minimise CE(f(x), y) on D_1 .. D_t, over all classes seen                           fit
    FINETUNE(tasks): the same on D_t alone

Details the papers leave open
1. Both go on from the network of the task before (code of Xin et al. 2021). So the Oracle's images of the
   first task are seen in all later ones, and its accuracy may be above that of joint training.
2. The softmax covers all classes seen, other than in LwF and MFGR. With new images alone, old outputs only
   fall: old classes are forgotten at once.
3. The network, its training and the views of images are those of MFGR: see blocks/growing.py. The rate of a
   later task is `lr`, for the Oracle too.

Records: tables "loss" (epoch, loss: mean cross-entropy of the epoch) and "fine" (a place for probes).
Keeps between tasks: the weights, and the number of classes seen after each task (8 bytes each); the Oracle
also keeps every image seen, as bytes.
"""

from dataclasses import dataclass

import torch
from torch.nn import functional as F

from clkit.blocks.gan import finite
from clkit.blocks.growing import Protocol, begin, classifier
from clkit.blocks.pixels import Standardise
from clkit.engine.learner import Learner, check_config

REVISION = 1
TABLES = {"loss": "one row per epoch: epoch, loss", "fine": "one row per task, after it; a place for probes"}


@dataclass(frozen=True)
class Config(Protocol):
    """Defaults: CIFAR-100 as in the paper on MFGR."""

    def __post_init__(self):
        check_config(self, above_0="base_lr lr std", from_0="pad")


def fit(learner, task, images, trace):
    """Train learner.net, with outputs for the classes of the task, on an ImageSet."""
    config, net = learner.config, learner.net
    begin(net, config, task)
    batches = config.batches(images)
    optimizer, schedule = config.sgd(net.parameters(), task, len(batches))
    for epoch in trace.epochs("classifier", config.epochs_of(task), optimizer, schedule):
        total = 0.0
        for x, y in batches:
            loss = F.cross_entropy(config.cast(net, learner.standardise(x)), y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            total += loss.detach()
        trace("loss", epoch=epoch, **finite({"loss": total / len(batches)}, task, epoch))
    learner.ends = torch.cat([learner.ends, learner.ends.new_tensor([task.seen])])
    trace("fine")


class FinetuneSGD(Learner):
    """Train on each task in turn, with no protection against forgetting."""

    tables = TABLES

    def __init__(self, config, shape, classes):
        super().__init__(config, shape, classes)
        self.net = classifier(config.net, shape)
        self.standardise = Standardise(config.mean, config.std, shape[0])
        self.register_buffer("ends", torch.zeros(0, dtype=torch.int64, device="cpu"))   # classes seen by task

    def learn(self, task, trace):
        fit(self, task, task.train, trace)

    def forward(self, x):
        return self.net(self.standardise(x))                                    # (B, classes seen)


class Oracle(Learner):
    """Keep every image and go on training on all of them."""

    stores_images = True
    tables = TABLES
    memory_kinds = {"memory_": "exemplars"}

    def __init__(self, config, shape, classes):
        super().__init__(config, shape, classes)
        self.net = classifier(config.net, shape)
        self.standardise = Standardise(config.mean, config.std, shape[0])
        self.register_buffer("ends", torch.zeros(0, dtype=torch.int64, device="cpu"))   # classes seen by task
        self.register_buffer("memory_images", torch.zeros(0, *shape, dtype=torch.uint8, device="cpu"))
        self.register_buffer("memory_labels", torch.zeros(0, dtype=torch.int64, device="cpu"))

    def learn(self, task, trace):
        self.memory_images = torch.cat([self.memory_images, task.train.images])                 # (N, C, H, W)
        self.memory_labels = torch.cat([self.memory_labels, task.train.labels])                 # (N,)
        fit(self, task, task.train.like(self.memory_images, self.memory_labels), trace)

    def forward(self, x):
        return self.net(self.standardise(x))                                    # (B, classes seen)
