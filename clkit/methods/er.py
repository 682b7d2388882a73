"""ER: experience replay from a small memory of images, filled by reservoir sampling (Chaudhry et al. 2019).

    ER(tasks): for each task t, for each batch B_n of D_t:
        B_M <- batch drawn from the memory M                                 section 3, algorithm 1   ER.draw
        one step on the cross-entropy of B_n and B_M together                                         ER.learn
        in the first pass over D_t: M <- reservoir(M, B_n)                   appendix, algorithm 3    ER.store

Details the paper leaves open
1. The paper is online: one pass, so an image meets the reservoir once. With several epochs we let it meet the
   reservoir in the first one only; otherwise images of tasks with more epochs would crowd out others.
2. The batch from memory is drawn with replacement. In the very first batch there is no memory yet, and no
   replay.
3. The two batches are averaged as one, so an image from memory weighs as much as a new one.
4. The softmax covers the classes seen so far.

Records: table "loss" (epoch, loss: mean over the epoch), "memory" (counts: how many images of each class the
memory holds when the task is over).
Keeps between tasks: the weights and `memory` images as bytes: this is the one baseline here that keeps old
data on purpose.
"""

from dataclasses import dataclass

import torch
from torch.nn import functional as F

from clkit import nets
from clkit.learner import Learner, LearnerError


@dataclass(frozen=True)
class Config:
    """Defaults: replay batch as large as the new one, as in the paper; network and budget as for Finetune."""

    memory: int = 500           # images kept, of all classes together
    replay: int = 128           # images drawn from the memory for each step
    net: str = "mlp"            # network: mlp, convnet or resnet18 (clkit.nets)
    epochs: int = 20            # passes over the images of a task
    batch: int = 128            # new images in a step
    lr: float = 1e-3            # learning rate of Adam

    def __post_init__(self):
        if min(self.memory, self.replay, self.epochs, self.batch) < 1 or not self.lr > 0:
            raise LearnerError("memory, replay, epochs and batch must be at least 1, and lr above 0")


class ER(Learner):
    """Experience replay with a reservoir."""

    keeps_data = True
    tables = {"loss": "one row an epoch: epoch, loss",
              "memory": "one row a task: counts (K,), images of each class in the memory"}
    memory_kinds = {"memory_": "exemplars"}

    def __init__(self, config, shape, classes):
        super().__init__(config, shape, classes)
        self.net = nets.build(config.net, shape, classes)
        memory = torch.zeros(config.memory, *shape, dtype=torch.uint8, device="cpu")
        self.register_buffer("memory_images", memory)
        self.register_buffer("memory_labels", torch.full((config.memory,), -1, device="cpu"))
        self.register_buffer("memory_met", torch.zeros((), dtype=torch.int64, device="cpu"))  # images so far

    def learn(self, task, trace):
        optimizer = torch.optim.Adam(self.net.parameters(), lr=self.config.lr, fused=True)
        for epoch in trace.epochs("classifier", self.config.epochs, optimizer):
            total, batches = 0.0, task.train.batches(self.config.batch)
            for step, (x, y) in enumerate(batches):
                x_all, y_all = x, y
                if task.first or epoch or step:
                    x_all, y_all = (torch.cat(pair) for pair in zip((x, y), self.draw()))
                loss = F.cross_entropy(self.net(x_all)[:, :task.seen], y_all)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                total += loss.detach()
                if epoch == 0:
                    self.store(x, y)
            trace("loss", epoch=epoch, loss=total / len(batches))
        if trace.wants("memory"):
            classes = torch.arange(self.classes, device=self.memory_labels.device)
            trace("memory", counts=(self.memory_labels[:, None] == classes).sum(0))

    def draw(self):
        """`replay` images and labels, drawn with replacement: float (B, C, H, W) in [0, 1] and (B,)."""
        filled = self.memory_met.clamp(max=len(self.memory_labels))
        pick = (torch.rand(self.config.replay, dtype=torch.float64, device=filled.device) * filled).long()
        return self.memory_images[pick].float() / 255, self.memory_labels[pick]

    def store(self, x, y):
        """Reservoir sampling: after n images in all, each of them is in the memory with probability M / n.

        x float (B, C, H, W) in [0, 1], y (B,). Image number n (from 0) goes to a place drawn from 0 .. n, and
        is kept if the memory has that place; while there is room it goes to place n. Of several images for
        one place the last stays, as if they had come one by one.
        """
        size, device = len(self.memory_labels), y.device
        order = torch.arange(len(y), device=device)
        number = self.memory_met + order                                        # (B,)
        place = (torch.rand(len(y), dtype=torch.float64, device=device) * (number + 1)).long()
        place = torch.where(number < size, number, place)
        order = torch.where(place < size, order, -1)
        last = torch.full((size,), -1, device=device)
        last = last.scatter_reduce(0, place.clamp(max=size - 1), order, "amax")  # (M,) which image, or -1
        taken, source = last >= 0, last.clamp(min=0)
        self.memory_labels.copy_(torch.where(taken, y[source], self.memory_labels))
        images = (x * 255).round().to(torch.uint8)
        self.memory_images.copy_(torch.where(taken[:, None, None, None], images[source], self.memory_images))
        self.memory_met += len(y)

    def forward(self, x):
        return self.net(x)                                                      # (B, K)
