"""FeTrIL: features of new classes, moved to where an old class was, stand in for it (Petit et al. 2023).

    python -m clkit run fetril/split-shapes --preset teach

    FETRIL(tasks): for each task t:
        t = 1: minimise CE(head(phi(x)), y); then phi stays as it is                        FeTrIL.fit
        mu_n <- mean of phi(x), for each class n of the task                                class_means
        n(p) <- argmax over n of cos(mu_n, mu_p), for each old class p                      nearest
        phi_p <- phi(x) + mu_p - mu_n, for the images x of n = n(p)     translation         translated
        t > 1: minimise CE(head(phi), y) over phi(x) of new classes and phi_p of old ones   FeTrIL.fit_head
    CLASSIFY(x): argmax of head(phi(x))

Details the paper leaves open
1. The paper has two classifiers: a linear support vector machine for each class, trained anew in each task on
   features of length 1, and a fully connected layer. Here it is the layer. It is a part of the network, which
   goes on from the weights of the task before; the two are close on the same features (tests), and only one
   runs where the network does.
2. The layer is trained as in a second implementation (that of FeCAM's authors): 50 epochs of SGD with a
   cosine schedule, on features as they are, not scaled to length 1.
3. n(p) is chosen by the cosine of the means, as in the paper; the released code takes the smallest distance.
4. Features are those of the images as they are, computed once in a task, without augmentation.
5. After the translation, features may be negative, which those of a ReLU never are.
6. Every old class has as many pseudo-features as its new class has images, so the classes are balanced if
   the new ones are.
7. The paper trains the network of the first task with SGD and then for a while with AugMix. Here it has the
   recipe of GFR, like the other methods whose network stays as the first task leaves it.

Records: table "loss" (epoch, loss: mean cross-entropy of an epoch, of the network or of the head) and table
"translation" (see `tables`).
Keeps between tasks: the weights and a mean of each class.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch.nn import functional as F

from clkit.blocks import nets
from clkit.blocks.features import class_means, features_of
from clkit.blocks.pixels import Standardise
from clkit.blocks.recipe import classify, learn_features
from clkit.engine.evaluate import eval_mode
from clkit.engine.learner import Learner, check_config
from clkit.engine.parallel import spread

REVISION = 1


@dataclass(frozen=True)
class Config:
    """Defaults: the recipe of GFR for the first task (detail 7), detail 2 for the head."""

    replay: bool = True         # whether the head is shown translated features of old classes
    head_epochs: int = 50       # passes over the features of a later task
    head_lr: float = 0.05       # learning rate of SGD with a momentum of 0.9, at the start of a cosine
    head_decay: float = 5e-4    # its weight decay
    net: str = "resnet18-wide"  # network, by its name in clkit.blocks.nets
    mean: tuple[float, ...] = (0.4914, 0.4822, 0.4465)  # subtracted from the pixels, by channel or for all
    std: tuple[float, ...] = (0.2023, 0.1994, 0.2010)   # divides them
    augment: Literal["none", "flip", "shift", "zoom"] = "shift"     # of training images (clkit.blocks.recipe)
    view: int = 0               # side of what the network sees of an image, its centre in tests; 0: all of it
    epochs: int = 201           # passes over the images of the first task
    milestones: tuple = (199,)  # epochs after which the learning rate is divided by 10
    batch_size: int = 128       # images per step, and features per step of the head
    lr: float = 1e-3            # learning rate of Adam
    weight_decay: float = 2e-4  # of Adam, added to the gradient

    def __post_init__(self):
        check_config(self, above_0="head_lr lr std", from_0="view")


class FeTrIL(Learner):
    """Feature translation."""

    parallel = True
    tables = {"loss": "one row per epoch: epoch, loss",
              "translation": "one row per later task: nearest (first,), the new class whose features stand "
                             "for each old class; cosine (first,), that of their means"}
    memory_kinds = {"means": "features"}

    def __init__(self, config, shape, classes):
        super().__init__(config, shape, classes)
        self.net = nets.build(config.net, shape, classes)
        self.standardise = Standardise(config.mean, config.std, shape[0], config.view)
        size = self.net.head.in_features                                        # D
        self.register_buffer("means", torch.zeros(0, size, device="cpu"))       # (seen, D)

    def learn(self, task, trace):
        if task.first == 0:
            later = "replay head_epochs head_lr head_decay"
            learn_features(self.net, self.standardise, self.config, task, trace, spread, later)
        with eval_mode(self):
            features, y = features_of(self, task.train), task.train.labels      # (N, D), (N,)
            new = class_means(features, y - task.first, task.seen - task.first)
        if task.first:
            features, y = self.pool(features, y, new, trace)
            self.fit_head(features, y, task.seen, trace)
        self.means = torch.cat([self.means, new])

    def pool(self, features, y, new, trace):
        """The features (N, D) and labels (N,) of a task, and after them those that stand for old classes.

        new: means of the classes of the task, (n, D).
        """
        first = len(self.means)
        index, cosine = nearest(self.means, new)                                # (first,) each
        trace("translation", nearest=first + index, cosine=cosine)
        if not self.config.replay:
            return features, y
        parts = [(features, y)]
        for old, n in enumerate(index.tolist()):
            moved = translated(features[y == first + n], new[n], self.means[old])
            parts.append((moved, y.new_full((len(moved),), old)))
        return [torch.cat(column) for column in zip(*parts)]

    def fit_head(self, features, y, seen, trace):
        """Train the head on features (N, D) and labels (N,), in a new random order in each epoch."""
        config, head = self.config, self.net.head
        optimizer = torch.optim.SGD(head.parameters(), config.head_lr, 0.9, weight_decay=config.head_decay)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, config.head_epochs)
        for epoch in trace.epochs("head", config.head_epochs, optimizer, schedule):
            order = torch.randperm(len(y), device=y.device)
            total, parts = 0.0, order.split(config.batch_size)
            for index in parts:
                total += classify(head(features[index])[:, :seen], optimizer, y[index])
            schedule.step()
            trace("loss", epoch=epoch, loss=total / len(parts))

    def features(self, x):
        return spread(self.net.features, self.standardise(x))                   # (B, D)

    def forward(self, x):
        return self.net.head(self.features(x))                                  # (B, K)


# ---- the paper's equations


def nearest(old, new):
    """For each old mean (p, D), the new one (n, D) with the largest cosine: index (p,) and cosine (p,)."""
    cosine, index = (F.normalize(old) @ F.normalize(new).T).max(1)
    return index, cosine


def translated(features, here, there):
    """Features (N, D) of a class with the mean `here` (D,), moved to that with the mean `there`: (N, D)."""
    return features + (there - here)
