"""ER: experience replay from a small memory of images, filled by reservoir sampling (Chaudhry et al. 2019).

    python -m clkit run er/split-mnist --preset paper                   # 84.65 +- 0.98 %, 1 minute per seed
    python -m clkit run er/split-mnist --preset paper --set memory=50   # 48.29 +- 1.63 %, 1 minute

    ER(tasks): for each task t, for each batch B_n of D_t:
        B_M <- batch drawn from the memory M                 section 3, algorithm 1   Reservoir.sample
        one step on the cross-entropy of B_n and B_M together                         ER.learn
        in the first pass over D_t: M <- reservoir(M, B_n)   appendix, algorithm 3    Reservoir.add

Details the paper leaves open
1. The paper is online: it makes one pass, so an image is offered to the reservoir once. With several epochs
   we offer it in the first one only; otherwise images of tasks with more epochs would crowd out others.
2. The batch from memory is drawn with replacement. At the very first batch the memory is empty, and nothing
   is replayed.
3. The loss is averaged over both batches as one, so an image from memory weighs as much as a new one.
4. The softmax covers the classes seen so far.

Records: "loss" (epoch, loss: mean over the epoch), "memory" (counts); `tables` describes them.
Keeps between tasks: the weights and `memory` images as bytes.
"""

from dataclasses import dataclass

import torch
from torch.nn import functional as F

from clkit.blocks import memory, nets
from clkit.engine.learner import Learner, check_config

REVISION = 1


@dataclass(frozen=True)
class Config:
    """Defaults: replay batch as large as the new one, as in the paper; network and budget as in Finetune."""

    memory: int = 500           # images kept, over all classes
    replay_size: int = 128      # images drawn from the memory per step
    net: str = "mlp"            # network: mlp, convnet or resnet18 (clkit.blocks.nets)
    epochs: int = 20            # passes over the images of a task
    batch_size: int = 128       # new images per step
    lr: float = 1e-3            # learning rate of Adam

    def __post_init__(self):
        check_config(self, above_0="lr")


class ER(Learner):
    """Experience replay with a reservoir."""

    stores_images = True
    tables = {"loss": "one row per epoch: epoch, loss",
              "memory": "one row per task: counts (K,), images of each class in the memory"}
    memory_kinds = {"memory.": "exemplars"}

    def __init__(self, config, shape, classes):
        super().__init__(config, shape, classes)
        self.net = nets.build(config.net, shape, classes)
        self.memory = memory.Reservoir(config.memory, shape)

    def learn(self, task, trace):
        optimizer = torch.optim.Adam(self.net.parameters(), lr=self.config.lr, fused=True)
        for epoch in trace.epochs("classifier", self.config.epochs, optimizer):
            total, batches = 0.0, task.train.batches(self.config.batch_size)
            for step, (x, y) in enumerate(batches):
                x_all, y_all = x, y
                if task.first or epoch or step:
                    replayed = self.memory.get(self.memory.sample(self.config.replay_size))
                    x_all, y_all = (torch.cat(pair) for pair in zip((x, y), replayed))
                loss = F.cross_entropy(self.net(x_all)[:, :task.seen], y_all)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                total += loss.detach()
                if epoch == 0:
                    self.memory.add(x, y)
            trace("loss", epoch=epoch, loss=total / len(batches))
        trace("memory", counts=memory.count_of_each(self.memory.labels, self.classes))

    def forward(self, x):
        return self.net(x)                                                      # (B, K)
