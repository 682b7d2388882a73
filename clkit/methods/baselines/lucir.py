"""LUCIR: a cosine classifier that treats old and new classes alike (Hou et al. 2019, "Rebalance").

    python -m clkit run lucir/split-shapes --preset teach        # the network's own answers
    python -m clkit run lucir-nme/split-shapes --preset teach    # the nearest mean of exemplars

    LUCIR(tasks): for each task t:
        f* <- f;  the rows of old classes stay as they are                                 CosineHead.grow
        row of a new class <- mean of its unit features, scaled to   imprinted weights     imprinted
            length 1 and then to the mean length of the old rows
        minimise CE(p, y) over images of the task and exemplars,  p = softmax(eta cos)     LUCIR.losses
               + lambda (1 - cos(f(x), f*(x)))                       less-forget           turned
               + sum of max(0, m - cos_y + cos_k) over the K new     separation            margin_ranking
                 classes k nearest to x, for exemplars x
        lambda = lambda_base sqrt(old classes / new classes)
        choose exemplars of the new classes                          herding               HerdedExemplars.add
    CLASSIFY(x): argmax of cos_k, or of the cosine to the mean of k's exemplars and their mirror images

Details the paper leaves open
1. The cosine needs features of both signs: the last activation of the network is left out.
2. An epoch uses each exemplar once, like a new image. The paper's balanced fine-tuning after each task, which
   the released code has as an option, is left out.
3. Each class keeps the same number of exemplars throughout.
4. The third term is averaged over the exemplars of a batch and the K classes; without exemplars it is 0.
5. The released code mirrors images for the nearest mean by reversing the last axis of an array in which that
   axis holds the colours. Here they are mirrored.
6. Herding follows Rebuffi et al. (2017), where the mean to approximate has length 1; in the released code it
   is the mean of unit features as it is.
7. The paper's network is ResNet-32. In the comparison of Liu et al. (2020) it is not stated.

Records: "loss" (see `tables`), "memory" (counts).
Keeps between tasks: the weights, the exemplars as bytes, and with classifier="mean" their class means. The
old network exists only during a task.
"""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn
from torch.nn import functional as F

from clkit.blocks import nets
from clkit.blocks.features import class_means, features_of
from clkit.blocks.memory import HerdedExemplars, count_of_each
from clkit.blocks.pixels import Standardise
from clkit.blocks.recipe import decay, sgd, views
from clkit.engine.evaluate import eval_mode
from clkit.engine.learner import Learner, check_config, frozen
from clkit.engine.parallel import spread

REVISION = 1
LATER = "per_class classifier distil margin nearest ranking imprint replay"  # no effect on the first task


@dataclass(frozen=True)
class Config:
    """Defaults: CIFAR-100 in the paper and its code, but for the network (detail 7)."""

    per_class: int = 20         # exemplars of each class
    classifier: Literal["network", "mean"] = "network"  # its cosines, or the nearest mean of exemplars
    distil: float = 5.0         # lambda_base; at 0 nothing holds the features
    margin: float = 0.5         # m
    nearest: int = 2            # K, new classes that an exemplar is kept away from
    ranking: float = 1.0        # weight of that term; at 0 there is none
    imprint: bool = True        # begin with imprinted rows; False: with random ones
    replay: bool = True         # whether exemplars take part in training
    net: str = "resnet18-wide"  # network, by its name in clkit.blocks.nets
    mean: tuple[float, ...] = (0.5071, 0.4866, 0.4409)  # subtracted from the pixels, by channel or for all
    std: tuple[float, ...] = (0.2009, 0.1984, 0.2023)   # divides them
    augment: Literal["none", "flip", "shift", "zoom"] = "shift"     # of training images (clkit.blocks.recipe)
    view: int = 0               # side of what the network sees of an image, its centre in tests; 0: all of it
    epochs: int = 160           # passes over the images of a task and the exemplars
    milestones: tuple = (80, 120)       # epochs after which the learning rate is divided by 10
    batch_size: int = 128       # images per step, new ones and exemplars together
    lr: float = 0.1             # learning rate of SGD with a momentum of 0.9
    weight_decay: float = 5e-4  # added to the gradient

    def __post_init__(self):
        check_config(self, above_0="lr std", from_0="view")


class CosineHead(nn.Module):
    """Features (B, D) -> logits (B, K): the cosine to each class's row, times a learned scale eta.

    old, new: rows (K_old, D) that stay as they are, and (K_new, D) that are trained.
    """

    def __init__(self, size):
        super().__init__()
        self.in_features = size
        self.old = nn.Parameter(torch.zeros(0, size, device="cpu"), requires_grad=False)
        self.new = nn.Parameter(torch.zeros(0, size, device="cpu"))
        self.scale = nn.Parameter(torch.ones((), device="cpu"))

    @torch.no_grad()
    def grow(self, rows):
        """Add the rows (n, D) of new classes; those added before join the old ones."""
        self.old.data = torch.cat([self.old, self.new])
        self.new.data, self.new.grad = rows, None

    def cosines(self, features):
        return F.normalize(features) @ F.normalize(torch.cat([self.old, self.new])).T   # (B, K)

    def forward(self, features):
        return self.scale * self.cosines(features)


class LUCIR(Learner):
    """Learning a unified classifier incrementally via rebalancing."""

    stores_images = parallel = True
    tables = {"loss": "one row per epoch: epoch, loss, new (cross-entropy), old (distillation, with its "
                      "strength), margin (ranking)",
              "memory": "one row per task: counts (K,), exemplars of each class"}
    memory_kinds = {"memory.means": "features", "memory.": "exemplars"}

    def __init__(self, config, shape, classes):
        super().__init__(config, shape, classes)
        self.net = nets.build(config.net, shape, classes, rectified=False)
        self.net.head = CosineHead(self.net.head.in_features)
        self.standardise = Standardise(config.mean, config.std, shape[0], config.view)
        size = self.net.head.in_features
        self.memory = HerdedExemplars(config.per_class * classes, classes, shape, size, fixed=True)

    def learn(self, task, trace):
        config, first, images = self.config, task.first, task.train
        teacher = frozen(self.net) if first and config.distil else None
        self.net.head.grow(self.rows(task))
        if first and config.replay:
            images = images.followed_by(self.memory.images, self.memory.labels)
        optimizer = sgd([p for p in self.net.parameters() if p.requires_grad], config)
        for epoch in trace.epochs("classifier", config.epochs, optimizer, apart=LATER,
                                  share=None if task.first else self.net):
            decay(optimizer, config, epoch)
            total, batches = 0.0, views(images, config)
            for x, y in batches:
                parts = self.losses(self.standardise(x), y, task, teacher)      # (3,)
                optimizer.zero_grad()
                parts.sum().backward()
                optimizer.step()
                total += parts.detach()
            new, old, margin = mean = total / len(batches)
            trace("loss", epoch=epoch, loss=mean.sum(), new=new, old=old, margin=margin)
        with eval_mode(self):
            self.memory.add(task.train.images, task.train.labels, range(first, task.seen), self)
            if config.classifier == "mean":
                self.memory.update_means(task.seen, self, mirrored=True)
        trace("memory", counts=count_of_each(self.memory.labels, self.classes))

    def losses(self, x, y, task, teacher):
        """Cross-entropy, distillation and ranking of a batch, each with its weight: (3,)."""
        config, first, head = self.config, task.first, self.net.head
        features = spread(self.net.features, x)                                 # (B, D)
        cosines = head.cosines(features)                                        # (B, seen)
        new = F.cross_entropy(head.scale * cosines, y)
        old = margin = torch.zeros_like(new)
        if teacher is not None:
            strength = config.distil * math.sqrt(first / (task.seen - first))
            old = strength * turned(features, spread(teacher.features, x))
        if first and config.ranking:
            margin = config.ranking * margin_ranking(cosines, y, first, config.nearest, config.margin)
        return torch.stack([new, old, margin])

    def rows(self, task):
        """What the rows of the classes of a task begin as, (n, D)."""
        head, n = self.net.head, task.seen - task.first
        if task.first == 0 or not self.config.imprint:
            return torch.empty(n, head.in_features, device=head.old.device).uniform_(
                -head.in_features**-0.5, head.in_features**-0.5)
        with eval_mode(self):
            features = F.normalize(features_of(self, task.train))
            means = class_means(features, task.train.labels - task.first, n)
            return imprinted(means, torch.cat([head.old, head.new]))

    def features(self, x):
        return spread(self.net.features, self.standardise(x))                   # (B, D)

    def forward(self, x):
        features = self.features(x)                                             # (B, D)
        outputs = self.net.head(features)                                       # (B, classes seen)
        return outputs if self.config.classifier == "network" else self.memory.logits(features, outputs)


# ---- the paper's equations


def imprinted(means, old):
    """New rows (n, D) along the means (n, D), as long as the old rows (K_old, D) are on average."""
    return F.normalize(means) * old.norm(dim=1).mean()


def turned(features, before):
    """Mean over a batch of 1 - cos between the features (B, D) of the network and those before the task."""
    return (1 - F.cosine_similarity(features, before.detach())).mean()


def margin_ranking(cosines, y, first, nearest, margin):
    """Mean of max(0, margin - cos_y + cos_k) over exemplars and the `nearest` new classes k of each.

    cosines: (B, seen); y (B,): labels, of exemplars if below `first`. 0 if there is no exemplar.
    """
    old = y < first                                                             # (B,)
    own = cosines.gather(1, y[:, None])                                         # (B, 1)
    new = cosines[:, first:]
    top = new.topk(min(nearest, new.shape[1])).values                           # (B, nearest)
    gaps = F.relu(margin - own + top).mean(1)                                   # (B,)
    return (gaps * old).sum() / old.sum().clamp(min=1)
