"""iCaRL: exemplars by herding, distillation, and the nearest class mean as classifier (Rebuffi et al. 2017).

    ICARL(tasks): for each task t:
        Theta* <- Theta                  the network before the task                       frozen
        D <- D_t and all exemplars                                        algorithm 3      ICaRL.learn
        minimise BCE(targets, sigmoid of the network's outputs) on D      algorithm 3      ICaRL.targets
        m <- K / classes seen            exemplars of each class          algorithm 2      ICaRL.remember
        of each old class keep the first m exemplars                      algorithm 5      ICaRL.remember
        of each new class take m, one by one, so that their mean
        stays closest to the mean of the class                            algorithm 4      herd
    CLASSIFY(x): argmin over classes y of || phi(x) - mu_y ||             algorithm 1      ICaRL.forward
        phi: features of length 1;  mu_y: mean of phi over the exemplars of y, scaled to length 1

Details the paper leaves open
1. Network, optimizer and loss are those of the protocol of van de Ven and Tolias (2019), whose numbers on
   split MNIST are the usual ones. The loss is summed over the classes seen and averaged over images. Targets
   of new classes are 1 or 0, those of old classes sigmoid(Theta*(x) / T) with T = 2, for new images and
   exemplars alike; the outputs that are trained are not divided by T. The paper has T = 1.
2. The paper computes the old network's outputs once, before training; we do it per batch, which is the same
   without augmentation.
3. The mean that herding aims at has length 1 too; the running mean of those chosen is not scaled. An image
   is chosen once only.
4. m is rounded down, and a class with fewer images gives all it has. What is left of the budget stays unused.
5. The class means are those of the exemplars in the network as it is when the task is over. A score is minus
   the squared distance, in [-4, 0]. Classes without exemplars rank below, in (-6, -5), in the order of the
   network's own outputs.
6. Exemplars are ordinary training images: an epoch meets each once, like a new image.

Records: table "loss" (epoch, loss: the whole objective, new, old: its parts from the outputs of new and of
old classes; means over the epoch), "memory" (counts: exemplars of each class when the task is over).
Keeps between tasks: the weights, the exemplars as bytes, sorted by class and in the order of choice, and the
class means. The old network lives during a task only.
"""

from dataclasses import dataclass

import torch
from torch.nn import functional as F

from clkit import nets
from clkit.learner import Learner, LearnerError, frozen
from clkit.trace import looking


@dataclass(frozen=True)
class Config:
    """Defaults: the protocol of van de Ven and Tolias (2019) for split MNIST, in epochs."""

    memory: int = 2000          # K, exemplars of all classes together
    classifier: str = "mean"    # "mean": nearest mean of exemplars; "network": the network's largest output
    distil: bool = True         # targets of old classes from the old network; False: from the labels
    replay: bool = True         # whether exemplars take part in training
    temperature: float = 2.0    # T, divides the old network's outputs; the paper has 1
    net: str = "mlp"            # network: mlp, convnet or resnet18 (clkit.nets)
    epochs: int = 20            # passes over the images of a task and the exemplars
    batch: int = 128            # images in a step, new ones and exemplars together
    lr: float = 1e-3            # learning rate of Adam

    def __post_init__(self):
        if self.classifier not in ("mean", "network"):
            raise LearnerError(f"classifier must be 'mean' or 'network', not {self.classifier!r}")
        if min(self.memory, self.epochs, self.batch) < 1 or not min(self.lr, self.temperature) > 0:
            raise LearnerError("memory, epochs and batch must be at least 1, and lr and temperature above 0")


class ICaRL(Learner):
    """Incremental classifier and representation learning."""

    keeps_data = True
    tables = {"loss": "one row an epoch: epoch, loss, new, old (parts of new and of old classes)",
              "memory": "one row a task: counts (K,), exemplars of each class"}
    memory_kinds = {"memory_": "exemplars", "means": "features"}

    def __init__(self, config, shape, classes):
        super().__init__(config, shape, classes)
        if config.memory < classes:
            raise LearnerError(f"memory={config.memory} is too small for {classes} classes: it must hold an "
                               "exemplar of each")
        self.net = nets.build(config.net, shape, classes)
        self.register_buffer("memory_images", torch.zeros(0, *shape, dtype=torch.uint8, device="cpu"))
        self.register_buffer("memory_labels", torch.zeros(0, dtype=torch.int64, device="cpu"))
        self.register_buffer("means", torch.zeros(0, self.net.head.in_features, device="cpu"))

    def learn(self, task, trace):
        config, first, images = self.config, task.first, task.train
        teacher = frozen(self.net) if first and config.distil else None
        if first and config.replay:
            images = images.like(torch.cat([images.images, self.memory_images]),
                                 torch.cat([images.labels, self.memory_labels]))
        optimizer = torch.optim.Adam(self.net.parameters(), lr=config.lr, fused=True)
        for epoch in trace.epochs("classifier", config.epochs, optimizer):
            total, batches = 0.0, images.batches(config.batch)
            for x, y in batches:
                before = None if teacher is None else teacher(x)[:, :first]     # (B, first)
                targets = self.targets(y, task.seen, before)                    # (B, seen)
                scores = self.net(x)[:, :task.seen]                             # (B, seen)
                losses = F.binary_cross_entropy_with_logits(scores, targets, reduction="none").mean(0)
                optimizer.zero_grad()
                losses.sum().backward()
                optimizer.step()
                total += losses.detach()                                        # (seen,)
            mean = total / len(batches)
            trace("loss", epoch=epoch, loss=mean.sum(), new=mean[first:].sum(), old=mean[:first].sum())
        with looking(self):
            self.remember(task)
        if trace.wants("memory"):
            classes = torch.arange(self.classes, device=self.memory_labels.device)
            trace("memory", counts=(self.memory_labels[:, None] == classes).sum(0))

    def targets(self, y, seen, before=None):
        """Targets (B, seen) of the sigmoids for labels y (B,); before: the old network's outputs for the old
        classes (B, first), or None for targets from the labels alone."""
        targets = F.one_hot(y, seen).float()                                    # (B, seen)
        if before is not None:
            targets[:, :before.shape[1]] = (before / self.config.temperature).sigmoid()
        return targets

    def remember(self, task):
        """Cut the exemplars of old classes to the new share, choose those of new ones, and take all means."""
        share = self.config.memory // task.seen
        labels = self.memory_labels
        place = torch.arange(len(labels), device=labels.device) - torch.searchsorted(labels, labels)
        kept = place < share                                                    # (N,), place within the class
        images, labels = [self.memory_images[kept]], [labels[kept]]
        for label in range(task.first, task.seen):
            own = task.train.images[task.train.labels == label]                 # (N, C, H, W)
            own = own[herd(self.features(own), share)]                          # (share, C, H, W)
            images.append(own)
            labels.append(torch.full((len(own),), label, device=own.device))
        self.memory_images, self.memory_labels = torch.cat(images), torch.cat(labels)
        if self.config.classifier == "mean":
            features = self.features(self.memory_images)                        # (N, D)
            sums = features.new_zeros(task.seen, features.shape[1])             # (seen, D)
            self.means = F.normalize(sums.index_add_(0, self.memory_labels, features))

    def features(self, images):
        """Features of length 1, (N, D), of images uint8 (N, C, H, W)."""
        return torch.cat([F.normalize(self.net.features(x.float() / 255)) for x in images.split(500)])

    def forward(self, x):
        if self.config.classifier == "network":
            return self.net(x)                                                  # (B, K)
        features = self.net.features(x)                                         # (B, D)
        later = self.net.head(features)[:, len(self.means):].sigmoid() - 6      # (B, K - seen)
        distances = torch.cdist(F.normalize(features), self.means).square()     # (B, seen)
        return torch.cat([-distances, later], 1)                                # (B, K)


def herd(features, m):
    """The indices (m,) of m exemplars in their order of choice, all if there are fewer; features (N, D).

    The k-th is the image whose features f bring the mean of k exemplars closest to mu, the mean of all scaled
    to length 1. With s the sum over those chosen before, |mu - (s + f) / k| is smallest where
    f (k mu - s) - |f|^2 / 2 is largest.
    """
    mu = F.normalize(features.mean(0), dim=0)                                   # (D,)
    offset = features.square().sum(1) / -2                                      # (N,)
    gap, chosen = mu, []                                                        # gap = k mu - s
    for _ in range(min(m, len(features))):
        best = torch.addmv(offset, features, gap).argmax(0, keepdim=True)       # (1,)
        chosen.append(best)
        offset.index_fill_(0, best, -torch.inf)
        gap = gap + mu - features.index_select(0, best)[0]
    return torch.cat(chosen)
