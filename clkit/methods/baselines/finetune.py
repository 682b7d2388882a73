"""Finetune, Joint, Cumulative: the lower bound and the two upper bounds that frame every table of results.

    python -m clkit run finetune/split-mnist --preset paper     # 19.93 +- 0.03 %, 1 minute per seed
    python -m clkit run joint/split-mnist --preset paper        # 98.08 +- 0.23 %, 1 minute
    python -m clkit run cumulative/split-mnist --preset paper   # 97.96 +- 0.27 %, 3 minutes

    FINETUNE(tasks):  for each task t:  minimise cross-entropy on D_t alone              Finetune.learn, fit
    JOINT(tasks):     minimise cross-entropy on the union of all D_t, in one stage       Joint.learn, fit
    CUMULATIVE(tasks): for each task t: minimise cross-entropy on the union of D_1..D_t  Cumulative.learn, fit

Details that papers leave open
1. The softmax covers the classes seen so far, never future ones.
2. Each task starts with a new optimizer: Adam's moments from the last task would bias the first steps of the
   next.
3. "Joint" is used for two things. Here Joint sees all classes at once and has a single learning stage;
   Cumulative goes through the stages, keeps all images, and restarts from its initial weights at each stage
   unless `restart` is False.
4. Budgets: an epoch of Joint over all classes has as many steps as one epoch of every task of Finetune taken
   together.

Records: table "loss" (epoch, loss: mean cross-entropy of the epoch).
Keeps between tasks: the weights; Cumulative also keeps every image seen, as bytes.
"""

import copy
from dataclasses import dataclass

import torch
from torch.nn import functional as F

from clkit.blocks import nets
from clkit.engine.learner import Learner, check_config

REVISION = 1


@dataclass(frozen=True)
class Config:
    """Defaults: the usual protocol for split MNIST (van de Ven and Tolias 2019, section 4), in epochs."""

    net: str = "mlp"            # network: mlp, convnet or resnet18 (clkit.blocks.nets)
    epochs: int = 20            # passes over a task's images; on split MNIST 20 take 1,760 to 1,980 steps
    batch_size: int = 128       # images per step
    lr: float = 1e-3            # learning rate of Adam, betas 0.9 and 0.999
    restart: bool = True        # Cumulative only: start each stage from the initial weights

    def __post_init__(self):
        check_config(self, above_0="lr")


def fit(net, images, seen, config, trace):
    """Minimise the cross-entropy over the first `seen` classes with Adam, unprotected against forgetting."""
    optimizer = torch.optim.Adam(net.parameters(), lr=config.lr, fused=True)
    for epoch in trace.epochs("classifier", config.epochs, optimizer):
        total, batches = 0.0, images.batches(config.batch_size)
        for x, y in batches:
            loss = F.cross_entropy(net(x)[:, :seen], y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += loss.detach()
        trace("loss", epoch=epoch, loss=total / len(batches))


class Finetune(Learner):
    """Train on each task in turn, with no protection against forgetting."""

    tables = {"loss": "one row per epoch: epoch, loss"}

    def __init__(self, config, shape, classes):
        super().__init__(config, shape, classes)
        self.net = nets.build(config.net, shape, classes)

    def learn(self, task, trace):
        fit(self.net, task.train, task.seen, self.config, trace)

    def forward(self, x):
        return self.net(x)                                                      # (B, K)


class Joint(Learner):
    """Train on all classes at once: what the same network reaches without a sequence."""

    stores_images = True
    joint = True
    tables = {"loss": "one row per epoch: epoch, loss"}

    def __init__(self, config, shape, classes):
        super().__init__(config, shape, classes)
        self.net = nets.build(config.net, shape, classes)

    def learn(self, task, trace):
        fit(self.net, task.train, task.seen, self.config, trace)

    def forward(self, x):
        return self.net(x)                                                      # (B, K)


class Cumulative(Learner):
    """Keep every image and train on all of them whenever a task arrives."""

    stores_images = True
    tables = {"loss": "one row per epoch: epoch, loss"}
    memory_kinds = {"memory_": "exemplars", "start.": "teachers"}

    def __init__(self, config, shape, classes):
        super().__init__(config, shape, classes)
        self.net = nets.build(config.net, shape, classes)
        self.start = copy.deepcopy(self.net) if config.restart else None
        self.register_buffer("memory_images", torch.zeros(0, *shape, dtype=torch.uint8, device="cpu"))
        self.register_buffer("memory_labels", torch.zeros(0, dtype=torch.int64, device="cpu"))

    def learn(self, task, trace):
        self.memory_images = torch.cat([self.memory_images, task.train.images])                 # (N, C, H, W)
        self.memory_labels = torch.cat([self.memory_labels, task.train.labels])                 # (N,)
        if self.start is not None:
            self.net.load_state_dict(self.start.state_dict())
        fit(self.net, task.train.like(self.memory_images, self.memory_labels), task.seen, self.config, trace)

    def forward(self, x):
        return self.net(x)                                                      # (B, K)
