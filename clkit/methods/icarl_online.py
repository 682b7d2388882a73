"""iCaRL online: exemplars, distillation and nearest class means on a stream (Rebuffi et al. 2017; in small
batches as a baseline of Aljundi et al. 2019a and Ji et al. 2020).

    OnlineICaRL(stream): for each task t:
        Theta* <- Theta                  the network before the task                       frozen
        for each batch B of N images, each seen once:
            `updates` times, from the second task on with R exemplars drawn anew:          draw
                step on  BCE(targets, sigmoid of the network's outputs)                    targets
        m <- K / classes seen            exemplars of each class          algorithm 2      remember
        of each old class keep the first m exemplars                      algorithm 5      remember
        of each new class take m, one by one, so that their mean
        stays closest to the mean of the class                            algorithm 4      herd
    CLASSIFY(x): argmin over classes y of || phi(x) - mu_y ||             algorithm 1      forward
        phi: features of length 1;  mu_y: mean of phi over the exemplars of y, scaled to length 1

Details the papers leave open
1. Herding looks at all images of a task once more when the task is over, with the network as it then is: a
   further pass, without training, that other online methods here do without.
2. The papers give of this baseline only the memory, a total over all classes, and the five updates, and the
   code of Aljundi et al. lacks it. Ours draws as many exemplars as new images for each update, with
   replacement.
3. Targets of new classes are 1 or 0, those of old classes sigmoid(Theta*(x) / T) with T = 2, for new images
   and exemplars alike; the outputs that are trained are not divided by T. The paper has T = 1. The loss is
   summed over the classes seen and averaged over images. All this is as in iCaRL in epochs.
4. The mean that herding aims at has length 1 too; the running mean of those chosen is not scaled. An image
   is chosen once only. m is rounded down, and a class with fewer images gives all it has.
5. The class means are those of the exemplars in the network at the end of the task, and until the next end.
   A score is minus the squared distance, in [-4, 0]. Classes without a mean rank below, in (-6, -5), in the
   order of the network's own outputs.
6. New images and exemplars pass the network together, which matters for batch normalisation only. Several
   passes go through a task in the same order.

Records: "loss" (step, loss), "memory" (counts); `tables` says what they hold.
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
    """Defaults: CIFAR10-5 (Ji et al. 2020, table 1), as far as it is known."""

    memory: int = 200           # K, exemplars of all classes together
    replay: int = 10            # R, exemplars in an update; 0: they only make the class means
    updates: int = 5            # steps for a batch
    classifier: str = "mean"    # "mean": nearest mean of exemplars; "network": the network's largest output
    distil: bool = True         # targets of old classes from the old network; False: from the labels
    temperature: float = 2.0    # T, divides the old network's outputs; the paper has 1
    net: str = "mlp"            # network: mlp, convnet, resnet18, ... (clkit.nets)
    epochs: int = 1             # passes over the images of a task
    batch: int = 10             # N: new images in a batch
    lr: float = 0.1             # learning rate: gradient descent without momentum

    def __post_init__(self):
        if self.classifier not in ("mean", "network"):
            raise LearnerError(f"classifier must be 'mean' or 'network', not {self.classifier!r}")
        if min(self.memory, self.updates, self.epochs, self.batch) < 1 or self.replay < 0:
            raise LearnerError("memory, updates, epochs and batch must be at least 1, and replay at least 0")
        if not min(self.lr, self.temperature) > 0:
            raise LearnerError("lr and temperature must be above 0")


class OnlineICaRL(Learner):
    """Incremental classifier and representation learning, a batch at a time."""

    keeps_data = True
    tables = {"loss": "one row a batch: step, loss (mean over its updates)",
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
        config = self.config
        teacher = frozen(self.net) if task.first and config.distil else None
        optimizer = torch.optim.SGD(self.net.parameters(), lr=config.lr)
        batches = passes(task.train, config.batch, config.epochs)
        total = config.epochs * -(-len(task.train) // config.batch)
        for step, (x, y) in trace.steps("online", batches, optimizer, total=total):
            mean = 0.0
            for _ in range(config.updates):
                loss = self.loss(*self.draw(x, y), task, teacher)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                mean += loss.detach() / config.updates
            trace("loss", step=step, loss=mean)
        with looking(self):
            self.remember(task)
        if trace.wants("memory"):
            classes = torch.arange(self.classes, device=self.memory_labels.device)
            trace("memory", counts=(self.memory_labels[:, None] == classes).sum(0))

    def draw(self, x, y):
        """The batch x (B, C, H, W), y (B,) and behind it R exemplars, once there are any."""
        if not self.config.replay or not len(self.memory_labels):
            return x, y
        index = torch.randint(len(self.memory_labels), (self.config.replay,), device=y.device)  # (R,)
        old = self.memory_images.index_select(0, index).float() / 255          # (R, C, H, W)
        return torch.cat([x, old]), torch.cat([y, self.memory_labels.index_select(0, index)])

    def loss(self, x, y, task, teacher=None):
        """The loss of images x (B, C, H, W) with labels y (B,); teacher: the old network, or None."""
        before = None if teacher is None else teacher(x)[:, :task.first]        # (B, first)
        targets, scores = self.targets(y, task.seen, before), self.net(x)[:, :task.seen]        # (B, seen)
        return F.binary_cross_entropy_with_logits(scores, targets, reduction="none").sum(1).mean()

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


def passes(images, size, epochs):
    """The numbered batches of a task: (step, (x, y)), in the same order in each pass."""
    seed = int(torch.randint(2**62, (), device="cpu"))
    for epoch in range(epochs):
        each = images.batches(size, generator=torch.Generator(device="cpu").manual_seed(seed))
        yield from enumerate(each, epoch * len(each))


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
