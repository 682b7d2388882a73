"""iCaRL as LUCIR's code trains it: cross-entropy and distillation on exemplars (Rebuffi et al., Hou et al.).

    python -m clkit run icarl-cnn/split-shapes --preset teach    # the network's own answers
    python -m clkit run icarl-nme/split-shapes --preset teach    # the nearest mean of exemplars

    ICARL(tasks): for each task t:
        f* <- f;  new outputs for the classes of the task                                  ICaRLCE.redraw
        minimise CE(f(x), y) over images of the task and exemplars                         ICaRLCE.learn
               + beta T^2 CE(f*(x) / T, f(x) / T) on the outputs of old classes            distillation
        choose exemplars of the new classes           Rebuffi et al., algorithm 4          HerdedExemplars.add
    CLASSIFY(x): argmax of f(x), or of the cosine to the mean of a class's exemplars and their mirror images

Details the papers leave open
1. This is the form in which Hou et al. (2019) compare with iCaRL, as "iCaRL-CNN" and "iCaRL-NME", and after
   them Liu et al. (2020). Rebuffi et al. (2017) have a sigmoid for each class and no augmentation: see iCaRL.
2. The second softmax covers the old classes alone, in the network as in f*. With T = 2 and beta = 0.25 the
   term is the plain divergence; ours is a cross-entropy, larger by the entropy of f*, with the same gradient.
3. Each class keeps the same number of exemplars throughout. An epoch uses each once, like a new image.
4. The released code mirrors images for the nearest mean by reversing the last axis of an array in which that
   axis holds the colours. Here they are mirrored.
5. Herding follows Rebuffi et al., where the mean to approximate has length 1; in the released code it is the
   mean of unit features as it is.
6. Outputs of classes to come are drawn anew when their task begins, because weight decay has shrunk them.

Records: "loss" (see `tables`), "memory" (counts).
Keeps between tasks: the weights, the exemplars as bytes, and with classifier="mean" their class means. The
old network exists only during a task.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn
from torch.nn import functional as F

from clkit.blocks import nets
from clkit.blocks.losses import distillation
from clkit.blocks.memory import HerdedExemplars, count_of_each
from clkit.blocks.pixels import Standardise
from clkit.blocks.recipe import decay, sgd, views
from clkit.engine.evaluate import eval_mode
from clkit.engine.learner import Learner, check_config, frozen
from clkit.engine.parallel import spread

REVISION = 1
LATER = "per_class classifier distil temperature replay"   # settings without effect on the first task


@dataclass(frozen=True)
class Config:
    """Defaults: CIFAR-100 in the code of Hou et al. (2019), but for the network, ResNet-32 there."""

    per_class: int = 20         # exemplars of each class
    classifier: Literal["network", "mean"] = "network"  # its outputs, or the nearest mean of exemplars
    distil: float = 0.25        # beta; at 0 nothing holds the outputs of old classes
    temperature: float = 2.0    # T
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
        check_config(self, above_0="temperature lr std", from_0="view")


class ICaRLCE(Learner):
    """iCaRL with cross-entropy."""

    stores_images = parallel = True
    tables = {"loss": "one row per epoch: epoch, loss, new (cross-entropy), old (distillation, times beta)",
              "memory": "one row per task: counts (K,), exemplars of each class"}
    memory_kinds = {"memory.means": "features", "memory.": "exemplars"}

    def __init__(self, config, shape, classes):
        super().__init__(config, shape, classes)
        self.net = nets.build(config.net, shape, classes)
        self.standardise = Standardise(config.mean, config.std, shape[0], config.view)
        size = self.net.head.in_features
        self.memory = HerdedExemplars(config.per_class * classes, classes, shape, size, fixed=True)

    def learn(self, task, trace):
        config, first, images = self.config, task.first, task.train
        teacher = frozen(self.net) if first and config.distil else None
        self.redraw(task)
        if first and config.replay:
            images = images.followed_by(self.memory.images, self.memory.labels)
        optimizer = sgd(self.net.parameters(), config)
        for epoch in trace.epochs("classifier", config.epochs, optimizer, apart=LATER,
                                  share=None if task.first else self.net):
            decay(optimizer, config, epoch)
            total, batches = 0.0, views(images, config)
            for x, y in batches:
                x = self.standardise(x)
                logits = spread(self.net, x)                                    # (B, K)
                new = F.cross_entropy(logits[:, :task.seen], y)
                old = torch.zeros_like(new)
                if teacher is not None:
                    before = spread(teacher, x)[:, :first]                      # (B, first)
                    old = config.distil * distillation(logits[:, :first], before, config.temperature)
                optimizer.zero_grad()
                (new + old).backward()
                optimizer.step()
                total += torch.stack([new, old]).detach()
            new, old = total / len(batches)
            trace("loss", epoch=epoch, loss=new + old, new=new, old=old)
        with eval_mode(self):
            self.memory.add(task.train.images, task.train.labels, range(first, task.seen), self)
            if config.classifier == "mean":
                self.memory.update_means(task.seen, self, mirrored=True)
        trace("memory", counts=count_of_each(self.memory.labels, self.classes))

    @torch.no_grad()
    def redraw(self, task):
        """Give the outputs of the classes of a later task new weights."""
        if task.first:
            head, new = self.net.head, slice(task.first, task.seen)
            fresh = nn.Linear(head.in_features, task.seen, device=head.weight.device)
            head.weight[new], head.bias[new] = fresh.weight[new], fresh.bias[new]

    def features(self, x):
        return spread(self.net.features, self.standardise(x))                   # (B, D)

    def forward(self, x):
        features = self.features(x)                                             # (B, D)
        outputs = self.net.head(features)                                       # (B, K)
        return outputs if self.config.classifier == "network" else self.memory.logits(features, outputs)
