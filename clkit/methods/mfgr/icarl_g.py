"""iCaRL with generated images of old classes beside its exemplars (figure 7 of Xin et al. 2021).

    python -m clkit run icarl-mfgr/wardrobe --preset teach
    python -m clkit run icarl-sgd/wardrobe --preset teach       # iCaRL alone, in the same training

    ICARL + G(tasks): for each task t:
        O <- F, frozen;  G <- stage 1 of MFGR                                           frozen, record
        F <- O, with a row for each new class                                           begin
        minimise  BCE(targets, sigmoid of F) on D_t and all exemplars                   sigmoid_targets
                + l_gkd(F(G(z)), O(G(z)))               T = 2, on old outputs           l_kd
        choose exemplars, and cut those of old classes                                  HerdedExemplars.add
    CLASSIFY(x): the nearest mean of exemplars                                          HerdedExemplars.logits

See icarl.py for iCaRL itself, and mfgr.py for the generator.

Details the paper leaves open
1. How generated images enter is not said. Here l_gkd is added to iCaRL's loss with weight 1 (gkd), in a pass
   of its own; exemplars and class means are those of real images.
2. `generated` images per step, as many as a batch has real ones.
3. The targets of old classes are sigmoid(O(x)), for new images and exemplars alike; the loss is summed over
   classes and averaged over images.
4. The paper ran the published code of iCaRL, with its network and training. Here they are those of MFGR: see
   blocks/growing.py.

Records: tables "loss" (epoch, loss, new, old, gkd), "memory" (counts by class), "fine" (a place for probes),
and with the generator those of stage 1.
Keeps between tasks: the weights, the exemplars as bytes, the class means, and the number of classes seen
after each task (8 bytes each).
"""

from dataclasses import dataclass

import torch
from torch.nn import functional as F

from clkit.blocks.gan import finite
from clkit.blocks.growing import Protocol, begin, classifier
from clkit.blocks.losses import sigmoid_targets
from clkit.blocks.memory import HerdedExemplars, count_of_each
from clkit.blocks.pixels import Standardise
from clkit.engine.evaluate import eval_mode
from clkit.engine.learner import Learner, check_config, frozen
from clkit.methods.mfgr import recording
from clkit.methods.mfgr.losses import l_kd

REVISION = 1
TABLES = {"loss": "one row per epoch: epoch, loss, new, old (the parts of new and of old classes), gkd",
          "memory": "one row per task: counts (K,), exemplars of each class",
          "fine": "one row per task, after it; a place for probes"}


@dataclass(frozen=True)
class Config(Protocol, recording.Recording):
    """Defaults: CIFAR-100 as in the paper on MFGR."""

    memory: int = 2000          # exemplars over all classes
    gkd: float = 1.0            # weight of l_gkd
    temperature: float = 2.0    # T of l_gkd
    generated: int = 128        # generated images per step

    def __post_init__(self):
        check_config(self, above_0="base_lr lr g_lr temperature std", from_0="pad")
        recording.check(self)


class ICaRLSGD(Learner):
    """iCaRL in the training of MFGR."""

    stores_images = True
    tables = TABLES
    memory_kinds = {"memory.means": "features", "memory.": "exemplars"}

    def __init__(self, config, shape, classes):
        super().__init__(config, shape, classes)
        self.net = classifier(config.net, shape)
        self.standardise = Standardise(config.mean, config.std, shape[0])
        self.memory = HerdedExemplars(config.memory, classes, shape, self.net.head.in_features)
        self.register_buffer("ends", torch.zeros(0, dtype=torch.int64, device="cpu"))   # classes seen by task

    def generator(self, old, task, trace):
        """A generator of old images, or None."""
        return None

    def learn(self, task, trace):
        old = frozen(self.net) if task.first else None
        generator = self.generator(old, task, trace) if task.first else None
        begin(self.net, self.config, task)
        self.train_network(task, old, generator, trace)
        with eval_mode(self):
            new = range(task.first, task.seen)
            self.memory.add(task.train.images, task.train.labels, new, self)
            self.memory.update_means(task.seen, self)
        self.ends = torch.cat([self.ends, self.ends.new_tensor([task.seen])])
        trace("memory", counts=count_of_each(self.memory.labels, self.classes))
        trace("fine")

    def train_network(self, task, old, generator, trace):
        """The loop of the network, on the images of the task and all exemplars."""
        config, first = self.config, task.first
        images = task.train.followed_by(self.memory.images, self.memory.labels)
        batches = config.batches(images)
        optimizer, schedule = config.sgd(self.net.parameters(), task, len(batches))
        objects = () if generator is None else (generator,)
        for epoch in trace.epochs("classifier", config.epochs_of(task), optimizer, schedule, *objects):
            total = 0.0
            for x, y in batches:
                x = self.standardise(x)
                gkd = x.new_zeros(()) if generator is None else self.generated_loss(generator, old)
                by_class = self.real_losses(x, y, old, task)                    # (seen,)
                optimizer.zero_grad()
                (by_class.sum() + config.gkd * gkd).backward()
                optimizer.step()
                schedule.step()
                parts = by_class[first:].sum(), by_class[:first].sum(), gkd
                total += torch.stack(parts).detach()
            new, past, gkd = total / len(batches)
            row = {"loss": new + past + config.gkd * gkd, "new": new, "old": past, "gkd": gkd}
            trace("loss", epoch=epoch, **finite(row, task, epoch))

    def real_losses(self, x, y, old, task):
        """The mean binary cross-entropy of each class, (seen,), on standardised images x (B, C, H, W)."""
        with torch.no_grad():
            soft = None if old is None else self.config.cast(old, x)            # (B, old)
        targets = sigmoid_targets(y, task.seen, soft, temperature=1.0)
        logits = self.config.cast(self.net, x)
        return F.binary_cross_entropy_with_logits(logits, targets, reduction="none").mean(0)

    def generated_loss(self, generator, old):
        """l_gkd on new generated images."""
        config = self.config
        with torch.no_grad(), config.autocast(self.ends.device):
            x = generator.draw(config.generated)                                # (B, C, H, W)
        with torch.no_grad():
            soft = config.cast(old, x)                                          # (B, old)
        return l_kd(config.cast(self.net, x), soft, config.temperature)

    def features(self, x):
        """Features (B, D) of images x (B, C, H, W) in [0, 1]."""
        return self.net.features(self.standardise(x))

    def forward(self, x):
        features = self.features(x)                                             # (B, D)
        return self.memory.logits(features, self.net.head(features))            # (B, classes seen)


class ICaRLG(ICaRLSGD):
    """iCaRL with generated images."""

    tables = {**TABLES, **recording.TABLES}

    def __init__(self, config, shape, classes):
        super().__init__(config, shape, classes)
        recording.check_fit(config, self.net, shape)

    def generator(self, old, task, trace):
        return recording.record(self.config, old, self.shape, task, trace, self.classes)
