"""DeepInversion as a replay: images of old classes, found pixel by pixel in the classifier (Yin et al. 2020).

    python -m clkit run deep-inversion/wardrobe --preset teach

    DEEP-INVERSION(tasks): the first task: minimise CE(F(x), y)                        inherit
        for each later task t:
            O <- F, frozen, in eval mode                                                frozen
            for each batch of old classes y, from x ~ N(0, I), by Adam on the pixels:   DeepInversion.invert
                x' <- x, shifted by up to `jitter` pixels and mirrored or not           moved
                minimise  CE(O(x'), y) + alpha_f sum of the gaps of batch normalisation
                        + alpha_tv R_tv(x') + alpha_l2 R_l2(x')                         prior, Statistics
            stage 2 of MFGR with these images in the place of generated ones            inherit

Details the papers leave open
1. The weights are those of the recipe that the authors give for CIFAR-10. It has no competition term
   (Adaptive DeepInversion), because it needs a student while images are found.
2. Shift and mirroring are drawn once per step for the whole batch. Pixels that leave the image at one side
   come back at the other.
3. R_tv is the sum of the norms of the steps to four neighbours. Pixels are standardised, as in MFGR, and are
   not clipped.
4. How many images Xin et al. (2021) made for their Table 4 is unknown: `per_class` of each old class, drawn
   with replacement in stage 2.
5. Stage 2 is MFGR's, so the two differ in their images alone.

Records: tables "inversion", "samples", "loss" (see MFGR) and "fine" (a place for probes).
Keeps between tasks: the classifier alone, and the number of classes seen after each task (8 bytes each). The
images of the last task stay at hand for `recall` until the process ends.
"""

import random
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional as F

from clkit.blocks.gan import finite
from clkit.blocks.growing import begin, classifier
from clkit.blocks.pixels import Standardise
from clkit.engine.learner import Learner, LearnerError, check_config, frozen
from clkit.methods.mfgr.inheritance import LOSS, Inheritance, inherit
from clkit.methods.mfgr.recording import TABLES
from clkit.methods.mfgr.samples import summary
from clkit.methods.mfgr.statistics import Statistics

REVISION = 1


@dataclass(frozen=True)
class Config(Inheritance):
    """Defaults: the authors' recipe for CIFAR-10, replayed as MFGR replays on CIFAR-100."""

    per_class: int = 100        # images of each old class
    i_steps: int = 2000         # steps on a batch of images
    i_batch: int = 256          # images in it
    i_lr: float = 0.1           # learning rate of Adam, with betas 0.5 and 0.9
    statistics: float = 10.0    # alpha_f
    tv: float = 1e-3            # alpha_tv
    l2: float = 0.0             # alpha_l2
    jitter: int = 2             # largest shift in a step

    def __post_init__(self):
        check_config(self, above_0="base_lr lr i_lr temperature ratio std",
                     from_0="pad generated jitter")


class Bank(nn.Module):
    """Images (N, C, H, W), standardised, of classes (N,), to be filled batch by batch."""

    def __init__(self, n, old, shape):
        super().__init__()
        self.register_buffer("images", torch.zeros(n, *shape, device="cpu"))
        self.register_buffer("labels", torch.arange(n, device="cpu") % old)

    def draw(self, n):
        """n of the images, drawn with replacement."""
        return self.images[torch.randint(len(self.images), (n,), device=self.images.device)]


def moved(x, jitter):
    """Images (B, C, H, W) shifted around the edges by up to `jitter` pixels, and mirrored or not."""
    down, right = (random.randint(-jitter, jitter) for _ in range(2))
    x = x.roll((down, right), (2, 3))
    return x.flip(3) if random.random() < 0.5 else x


def prior(x):
    """(R_tv, R_l2) of images x (B, C, H, W): scalars."""
    steps = (x[..., 1:, :] - x[..., :-1, :], x[..., 1:] - x[..., :-1],
             x[..., 1:, 1:] - x[..., :-1, :-1], x[..., 1:, :-1] - x[..., :-1, 1:])
    return sum(step.norm() for step in steps), x.norm()


class DeepInversion(Learner):
    """Replay of images that are found by gradient descent on their pixels."""

    tables = {"inversion": "one row per batch of images, after its last step: batch, loss, ce, bn, tv, l2 "
                           "(the terms without their weights), accuracy (share that the old network takes "
                           "for their class)",
              "samples": TABLES["samples"].replace("of four batches after stage 1", "of up to 1,000 images"),
              "loss": LOSS, "fine": "one row per task, after it; a place for probes"}

    def __init__(self, config, shape, classes):
        super().__init__(config, shape, classes)
        self.net = classifier(config.net, shape)
        if not Statistics(self.net).norms:
            raise LearnerError(f"the network {config.net} has no batch normalisation, whose statistics the "
                               f"images have to match: use a network that has it, such as resnet18")
        self.standardise = Standardise(config.mean, config.std, shape[0])
        self.register_buffer("ends", torch.zeros(0, dtype=torch.int64, device="cpu"))   # classes seen by task
        self.recorded = None                            # (Bank,) of the last task: in a tuple, so no state

    def learn(self, task, trace):
        old, bank, objects = None, None, ()
        if task.first:
            old = frozen(self.net)
            bank = Bank(self.config.per_class * task.first, task.first, self.shape).to(self.ends.device)
            self.invert(bank, old, task, trace)
            trace("samples", **self.look(bank, old))
            self.recorded = objects = (bank,)
        begin(self.net, self.config, task)
        inherit(self, task, trace, old, bank and bank.draw, objects)
        self.ends = torch.cat([self.ends, self.ends.new_tensor([task.seen])])
        trace("fine")

    def invert(self, bank, old, task, trace):
        """Fill the bank with images that the old network takes for their classes."""
        size = self.config.i_batch
        with Statistics(old) as statistics:
            for b in trace.epochs("inversion", -(-len(bank.labels) // size), bank):
                labels = bank.labels[b * size:(b + 1) * size]
                images, terms = self.found(labels, old, statistics)
                bank.images[b * size:(b + 1) * size] = images
                right = old(images).argmax(1) == labels
                trace("inversion", batch=b, **finite(terms, task, b), accuracy=right.float().mean())

    def found(self, labels, old, statistics):
        """(images (B, C, H, W) of these classes (B,), the terms of the last step)."""
        config = self.config
        x = torch.randn(len(labels), *self.shape, device=labels.device, requires_grad=True)
        optimizer = torch.optim.Adam([x], lr=config.i_lr, betas=(0.5, 0.9), fused=True)
        for _ in range(config.i_steps):
            seen = moved(x, config.jitter)
            ce, (tv, l2) = F.cross_entropy(config.cast(old, seen), labels), prior(seen)
            bn = statistics.gaps().sum()
            loss = ce + config.statistics * bn + config.tv * tv + config.l2 * l2
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        return x.detach(), {"loss": loss, "ce": ce, "bn": bn, "tv": tv, "l2": l2}

    @torch.no_grad()
    def look(self, bank, old):
        """A row of the table "samples"."""
        x = bank.images[:1000]
        features = old.features(x)
        return summary(x, features, old.head(features), self.classes)

    def forward(self, x):
        return self.net(self.standardise(x))                                    # (B, classes seen)

    def recall(self, n, label=None):
        """The first n images (n, C, H, W), cut to [0, 1], and their classes (n,), or those of one class.

        LearnerError before the second task, in another process, and if there are fewer.
        """
        if self.recorded is None:
            raise LearnerError("there are no images to recall: they are made before each task but the first, "
                               "and dropped when the process ends")
        (bank,) = self.recorded
        images, labels = bank.images, bank.labels
        if label is not None:
            images, labels = images[labels == label], labels[labels == label]
        if len(labels) < n:
            raise LearnerError(f"{len(labels)} images can be recalled, fewer than {n}: recall fewer, or use "
                               f"a larger per_class")
        return (images[:n] * self.standardise.std + self.standardise.mean).clamp(0, 1), labels[:n]
