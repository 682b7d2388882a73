"""Joint-D: DGM's classifier on all real images of the classes seen, the bound above generated replay.

    python -m clkit run joint-d/digits-10 --preset teach

    JOINT-D(tasks): for each task t:
        keep D_t                                                                           JointD.learn
        D <- new weights, a row for each class seen                                        Critic.grow
        for each epoch, for each batch (x, y) of D_t:
            D: steps on CE of (x, y) and of as many kept images of each old task           classify

It is what Ostapenko et al. (2019, section 4) call joint training, without their GAN. "Joint training" in
Wu et al. (2018) is a GAN trained on all classes, whose images are scored.

Details the paper leaves open
1. In each task the network, the optimizer and the numbers of steps and images are those of DGM: only the
   replayed images are real, and there are no critic steps. So the accuracy after five tasks is that of joint
   training on their classes.
2. A batch has as many images of each old task as of the new one. A larger old task contributes other images
   in each epoch, a smaller one repeats them.

Records: tables "loss" (epoch, loss: mean cross-entropy of the epoch) and "progress" (see `tables`).
Keeps between tasks: the weights, and every image seen, as bytes.
"""

from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import torch

from clkit.blocks.gan import Critic, Replay, adam, check_side, classify, finite, signed
from clkit.engine.learner import Learner, check_config

REVISION = 1


@dataclass(frozen=True)
class Config:
    """Defaults: MNIST in DGM's protocol."""

    d_width: int = 32           # maps of D's first convolution
    d_norm: bool = True         # batch normalisation in D
    anew: bool = True           # D is drawn anew in each task
    steps: Literal["chunks", "pooled"] = "chunks"       # of the classifier in an iteration, one a task or one
    epochs: int = 101           # passes over the images of a task
    batch_size: int = 64        # images of each task in an iteration
    lr: float = 2e-3            # learning rate of Adam

    def __post_init__(self):
        check_config(self, above_0="lr")


class JointD(Learner):
    """The classifier of DGM, trained in each task on real images of all classes seen."""

    stores_images = True
    tables = {"loss": "one row per epoch: epoch, loss",
              "progress": "one row per epoch, after it: epoch; a place for probes"}
    memory_kinds = {"memory_": "exemplars"}

    def __init__(self, config, shape, classes):
        super().__init__(config, shape, classes)
        check_side(shape)
        self.critic = Critic(shape, config.d_width, config.d_norm)
        self.register_buffer("memory_images", torch.zeros(0, *shape, dtype=torch.uint8, device="cpu"))
        self.register_buffer("memory_labels", torch.zeros(0, dtype=torch.int64, device="cpu"))
        self.register_buffer("memory_ends", torch.zeros(0, dtype=torch.int64, device="cpu"))  # images by task

    def learn(self, task, trace):
        config, real = self.config, task.train
        old = Replay(self.kept())
        self.critic.grow(task.seen, config.anew or not task.first)
        optimizer = adam(self.critic.parameters(), config.lr)
        batches = real.batches(config.batch_size)
        for epoch in trace.epochs("classifier", config.epochs, optimizer):
            old.shuffle()
            total = 0.0
            for b, index in enumerate(batches.indices()):
                x, y = old.pool(signed(real.images[index]), real.labels[index], b * config.batch_size)
                size = len(index) if config.steps == "chunks" else len(y)
                total += classify(self.critic, optimizer, x, y, size)
            trace("loss", epoch=epoch, **finite({"loss": total / len(batches)}, task, epoch))
            trace("progress", epoch=epoch)
        self.memory_images = torch.cat([self.memory_images, real.images])                   # (N, C, S, S)
        self.memory_labels = torch.cat([self.memory_labels, real.labels])                   # (N,)
        count = self.memory_ends.new_tensor([len(self.memory_labels)])
        self.memory_ends = torch.cat([self.memory_ends, count])

    def kept(self):
        """The kept images, by task: [(images (N, C, S, S) in [-1, 1], labels (N,))]."""
        return [(signed(self.memory_images[a:b]), self.memory_labels[a:b])
                for a, b in pairwise((0, *self.memory_ends.tolist()))]

    def forward(self, x):
        return self.critic(2 * x - 1)[1]                                        # (B, classes seen)
