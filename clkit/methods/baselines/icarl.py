"""iCaRL: herded exemplars, distillation, and the nearest class mean as classifier (Rebuffi et al. 2017).

    python -m clkit run icarl/split-mnist --preset paper      # 93.34 +- 0.26 %, 4 minutes per seed
    python -m clkit run icarl/split-fashion --preset paper    # 78.89 +- 2.08 %, 5 minutes

    ICARL(tasks): for each task t:
        Theta* <- Theta                  the network before the task                       frozen
        D <- D_t and all exemplars                                        algorithm 3   ICaRL.learn
        minimise BCE(targets, sigmoid of the network's outputs) on D      algorithm 3   sigmoid_targets
        m <- K / classes seen            exemplars of each class          algorithm 2   HerdedExemplars.add
        keep the first m exemplars of each old class                      algorithm 5   HerdedExemplars.add
        choose m of each new class, one by one, so that their mean
        stays closest to the mean of the class                            algorithm 4   herd
    CLASSIFY(x): argmin over classes y of || phi(x) - mu_y ||             algorithm 1   HerdedExemplars.logits
        phi: features of length 1;  mu_y: mean of phi over the exemplars of y, scaled to length 1

Details the paper leaves open
1. Network, optimizer and loss are those of the protocol of van de Ven and Tolias (2019), whose numbers on
   split MNIST are the ones usually quoted. The loss is summed over the classes seen and averaged over images.
   Targets of new classes are 1 or 0, and those of old classes sigmoid(Theta*(x) / T) with T = 2, for new
   images and exemplars alike; the trained outputs are not divided by T. The paper has T = 1.
2. The paper computes the old network's outputs once, before training; we compute them per batch, which is
   equivalent without augmentation.
3. The mean that herding approximates also has length 1; the running mean of the chosen images is not scaled.
   Each image is chosen at most once.
4. m is rounded down, and a class with fewer images contributes all of them. The rest of the budget stays
   unused.
5. The class means are those of the exemplars in the network at the end of the task. A score is minus the
   squared distance, in [-4, 0]. Classes without exemplars rank below, in (-6, -5), in the order of the
   network's own outputs.
6. Exemplars are ordinary training images: an epoch uses each once, like a new image.

Records: "loss" (epoch, loss: the objective, new, old; means over the epoch), "memory" (counts); `tables`
describes them.
Keeps between tasks: the weights, the exemplars as bytes, sorted by class and in order of choice, and the
class means. The old network exists only during a task.
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
    """Defaults: the protocol of van de Ven and Tolias (2019) for split MNIST, in epochs."""

    memory: int = 2000          # K, exemplars over all classes
    classifier: Literal["mean", "network"] = "mean"     # nearest mean of exemplars, or the network's outputs
    distil: bool = True         # targets of old classes from the old network; False: from the labels
    replay: bool = True         # whether exemplars take part in training
    temperature: float = 2.0    # T, divides the old network's outputs; the paper has 1
    net: str = "mlp"            # network: mlp, convnet or resnet18 (clkit.blocks.nets)
    epochs: int = 20            # passes over the images of a task and the exemplars
    batch_size: int = 128       # images per step, new ones and exemplars together
    lr: float = 1e-3            # learning rate of Adam

    def __post_init__(self):
        check_config(self, above_0="temperature lr")


class ICaRL(Learner):
    """Incremental classifier and representation learning."""

    stores_images = True
    tables = {"loss": "one row per epoch: epoch, loss, new, old (the parts of new and of old classes)",
              "memory": "one row per task: counts (K,), exemplars of each class"}
    memory_kinds = {"memory.means": "features", "memory.": "exemplars"}

    def __init__(self, config, shape, classes):
        super().__init__(config, shape, classes)
        self.net = nets.build(config.net, shape, classes)
        self.memory = HerdedExemplars(config.memory, classes, shape, self.net.head.in_features)

    def learn(self, task, trace):
        config, first, images = self.config, task.first, task.train
        teacher = frozen(self.net) if first and config.distil else None
        if first and config.replay:
            images = images.followed_by(self.memory.images, self.memory.labels)
        optimizer = torch.optim.Adam(self.net.parameters(), lr=config.lr, fused=True)
        for epoch in trace.epochs("classifier", config.epochs, optimizer):
            total, batches = 0.0, images.batches(config.batch_size)
            for x, y in batches:
                old = None if teacher is None else teacher(x)[:, :first]        # (B, first)
                targets = sigmoid_targets(y, task.seen, old, config.temperature)
                logits = self.net(x)[:, :task.seen]                             # (B, seen), as the targets
                losses = F.binary_cross_entropy_with_logits(logits, targets, reduction="none").mean(0)
                optimizer.zero_grad()
                losses.sum().backward()
                optimizer.step()
                total += losses.detach()                                        # (seen,)
            mean = total / len(batches)
            trace("loss", epoch=epoch, loss=mean.sum(), new=mean[first:].sum(), old=mean[:first].sum())
        with eval_mode(self):
            self.memory.add(task.train.images, task.train.labels, range(first, task.seen), self.net)
            if config.classifier == "mean":
                self.memory.update_means(task.seen, self.net)
        trace("memory", counts=count_of_each(self.memory.labels, self.classes))

    def forward(self, x):
        if self.config.classifier == "network":
            return self.net(x)                                                  # (B, K)
        features = self.net.features(x)                                         # (B, D)
        return self.memory.logits(features, self.net.head(features))            # (B, K)
