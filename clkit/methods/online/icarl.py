"""iCaRL online: exemplars, distillation and nearest class means, one batch at a time (Rebuffi et al. 2017).

    python -m clkit run icarl-online/mnist-5k-5 --preset paper   # 77.66 +- 1.93 %, 0.1 minutes per seed

A baseline in Aljundi et al. 2019a and Ji et al. 2020.

    OnlineICaRL(stream): for each task t:
        Theta* <- Theta                  the network before the task                       frozen
        for each batch B of N images, each seen once:
            `updates` times, from the second task on with R newly drawn exemplars:         with_exemplars
                step on  BCE(targets, sigmoid of the network's outputs)                    loss
        m <- K / classes seen            exemplars of each class          algorithm 2   HerdedExemplars.add
        keep the first m exemplars of each old class                      algorithm 5   HerdedExemplars.add
        choose m of each new class, one by one, so that their mean
        stays closest to the mean of the class                            algorithm 4   herd
    CLASSIFY(x): argmin over classes y of || phi(x) - mu_y ||             algorithm 1   HerdedExemplars.logits
        phi: features of length 1;  mu_y: mean of phi over the exemplars of y, scaled to length 1

Details the papers leave open
1. Herding looks at all images of a task once more at the end of the task, with the network as it then is: an
   extra pass, without training, that other online methods here do not need.
2. For this baseline the papers give only the memory, a total over all classes, and the five updates, and the
   code of Aljundi et al. does not include it. Ours draws as many exemplars as new images for each update,
   with replacement.
3. Targets, loss, herding, class means and scores are those of iCaRL in epochs: details 1, 3, 4 and 5 of
   baselines/icarl.py.
4. New images and exemplars pass through the network together, which matters for batch normalisation only.
   Several passes over a task use the same order.

Records: "loss" (step, loss), "memory" (counts); `tables` describes them.
Keeps between tasks: the same as iCaRL in epochs.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch.nn import functional as F

from clkit.blocks import nets
from clkit.blocks.losses import sigmoid_targets
from clkit.blocks.memory import HerdedExemplars, count_of_each
from clkit.engine.evaluate import eval_mode
from clkit.engine.learner import Learner, check_config, frozen

REVISION = 1


@dataclass(frozen=True)
class Config:
    """Defaults: CIFAR10-5 (Ji et al. 2020, table 1), as far as it is known."""

    memory: int = 200           # K, exemplars over all classes
    replay_size: int = 10       # R, exemplars per update; 0: they serve the class means only
    updates: int = 5            # steps per batch
    classifier: Literal["mean", "network"] = "mean"     # nearest mean of exemplars, or the network's outputs
    distil: bool = True         # targets of old classes from the old network; False: from the labels
    temperature: float = 2.0    # T, divides the old network's outputs; the paper has 1
    net: str = "mlp"            # network: mlp, convnet, resnet18, ... (clkit.blocks.nets)
    epochs: int = 1             # passes over the images of a task
    batch_size: int = 10        # N: new images per batch
    lr: float = 0.1             # learning rate: gradient descent without momentum

    def __post_init__(self):
        check_config(self, above_0="temperature lr", from_0="replay_size")


class OnlineICaRL(Learner):
    """Incremental classifier and representation learning, one batch at a time."""

    stores_images = True
    tables = {"loss": "one row per batch: step, loss (mean over its updates)",
              "memory": "one row per task: counts (K,), exemplars of each class"}
    memory_kinds = {"memory.means": "features", "memory.": "exemplars"}

    def __init__(self, config, shape, classes):
        super().__init__(config, shape, classes)
        self.net = nets.build(config.net, shape, classes)
        self.memory = HerdedExemplars(config.memory, classes, shape, self.net.head.in_features)

    def learn(self, task, trace):
        config = self.config
        teacher = frozen(self.net) if task.first and config.distil else None
        optimizer = torch.optim.SGD(self.net.parameters(), lr=config.lr)
        batches = task.train.batches(config.batch_size, epochs=config.epochs, reshuffle=False)
        for step, (x, y) in trace.steps("online", enumerate(batches), optimizer, total=len(batches)):
            mean = 0.0
            for _ in range(config.updates):
                loss = self.loss(*self.with_exemplars(x, y), task, teacher)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                mean += loss.detach() / config.updates
            trace("loss", step=step, loss=mean)
        with eval_mode(self):
            self.memory.add(task.train.images, task.train.labels, range(task.first, task.seen), self.net)
            if config.classifier == "mean":
                self.memory.update_means(task.seen, self.net)
        trace("memory", counts=count_of_each(self.memory.labels, self.classes))

    def with_exemplars(self, x, y):
        """The batch x (B, C, H, W), y (B,), followed by R exemplars once there are any."""
        if not self.config.replay_size or not len(self.memory.labels):
            return x, y
        return tuple(torch.cat(pair) for pair in zip((x, y), self.memory.sample(self.config.replay_size)))

    def loss(self, x, y, task, teacher=None):
        """The loss of images x (B, C, H, W) with labels y (B,); teacher: the old network, or None."""
        old = None if teacher is None else teacher(x)[:, :task.first]           # (B, first)
        targets = sigmoid_targets(y, task.seen, old, self.config.temperature)   # (B, seen)
        logits = self.net(x)[:, :task.seen]                                     # (B, seen)
        return F.binary_cross_entropy_with_logits(logits, targets, reduction="none").sum(1).mean()

    def forward(self, x):
        if self.config.classifier == "network":
            return self.net(x)                                                  # (B, K)
        features = self.net.features(x)                                         # (B, D)
        return self.memory.logits(features, self.net.head(features))            # (B, K)
