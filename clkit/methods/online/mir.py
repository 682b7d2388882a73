"""MIR: maximally interfered retrieval, replay of images that a step would harm most (Aljundi et al. 2019a).

    python -m clkit run er-online/mnist-5k-5 --preset paper   # 65.67 +- 4.19 %, 0.03 minutes per seed
    python -m clkit run er-mir/mnist-5k-5 --preset paper      # 64.24 +- 3.10 %, 0.05 minutes

    MIR(stream): for each batch B of n images, each seen once; u times:                 algorithm 1
        g <- gradient of the cross-entropy of B at theta                                   MIR.update
        from the second task on, with the images of earlier tasks in the memory:
            choose="random" (ER):        R <- b of them at random                       Reservoir.sample_below
            choose="interfered" (MIR):   C <- c of them at random                       Reservoir.sample_below
                theta_v <- theta - lr g                                                 step_down
                R <- the b images of C with the largest                                 MIR.interfered
                     l(x; theta_v) - min(l(x; theta), l*(x))        section 3.1
            g <- g + gradient of the mean cross-entropy of R
        theta <- theta - lr g
    memory <- reservoir(memory, B)                                                      Reservoir.add

l is the cross-entropy of an image with its label, l* the lowest value it has had so far. The softmax covers
all classes of the stream, seen or not.

Details the paper leaves open, or the authors' code handles otherwise
1. Earlier tasks. Images of the present task are never replayed, though the reservoir holds some. Images are
   drawn without replacement; if fewer are available than requested, all of them are taken.
2. Score. before="best" is the score above, which the authors use on MNIST; before="now" omits l*, as on
   CIFAR10 and MiniImageNet. l* starts at ln K, the loss of uniform outputs, and falls only when the image is
   a candidate (code). We keep it by index in the memory and reset it when another image takes that place; the
   code takes the index among images of earlier tasks for the index in the memory, and never resets it.
3. Sum. Real and replayed images are averaged separately: ten replayed images weigh as much as the whole
   batch.
4. Several updates (u > 1, on MiniImageNet) draw new images each time; the batch enters the memory after the
   last one.
5. Batch normalisation. Each pass uses the statistics of its own images. Those of B, of R, and of C at theta
   update the running statistics (code), those of C at theta_v do not. If fewer images are available than
   requested, some are repeated in these statistics, but not in the loss: no shape depends on how many there
   are.
6. Reservoir. Each image has its own chance, memory / (images so far, including it); in the code all images of
   a batch have the chance of its first one.
7. With several passes over a task (epochs > 1), images are offered to the reservoir in the first one only.

Records: "loss" (step, loss, replay: both in the first update of a batch), "memory" (counts); `tables`
describes them.
Keeps between tasks: the weights, `memory` images as bytes with their labels, and their l* where it is used.
"""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch.func import functional_call
from torch.nn import functional as F

from clkit.blocks import nets
from clkit.blocks.functional import step_down
from clkit.blocks.memory import Reservoir, count_of_each
from clkit.engine.learner import Learner, LearnerError, check_config

REVISION = 1


@dataclass(frozen=True)
class Config:
    """Defaults: as in the authors' script for split MNIST, without MIR; memory as in Ji et al. 2020."""

    choose: Literal["random", "interfered"] = "random"  # images replayed: any (ER), or most interfered (MIR)
    memory: int = 50            # images kept, over all classes
    replay_size: int = 10       # b: images replayed per update
    n_candidates: int = 50      # c: images from which the most interfered are chosen; MiniImageNet: 25
    before: Literal["best", "now"] = "best"     # loss before the virtual step: best so far, or current
    updates: int = 1            # u: updates per batch; 3 on MiniImageNet
    net: str = "mlp"            # network: mlp, convnet, resnet18, ... (clkit.blocks.nets)
    centred: bool = False       # pixels from -1 to 1 instead of 0 to 1, as on CIFAR10 and MiniImageNet
    epochs: int = 1             # passes over the images of a task
    batch_size: int = 10        # n: images per batch
    lr: float = 0.1             # learning rate of gradient descent without momentum

    def __post_init__(self):
        check_config(self, above_0="lr")
        few, many = self.n_candidates, self.replay_size
        if self.choose == "interfered" and few < many:
            raise LearnerError(f"n_candidates={few} is below replay_size={many}: it must be at least as "
                               "large, because the replayed images are chosen from the candidates")


class MIR(Learner):
    """Online experience replay of random or of maximally interfered images."""

    stores_images = True
    tables = {"loss": "one row per batch: step, loss (cross-entropy), replay (of replayed images, or 0)",
              "memory": "one row per task: counts (K,), images of each class in the memory"}
    memory_kinds = {"memory": "exemplars"}

    def __init__(self, config, shape, classes):
        super().__init__(config, shape, classes)
        self.net = nets.build(config.net, shape, classes)
        self.memory = Reservoir(config.memory, shape)
        used = config.choose == "interfered" and config.before == "best"
        lowest = torch.zeros(config.memory, device="cpu") if used else None
        self.register_buffer("memory_lowest", lowest)   # (M,) l*

    def learn(self, task, trace):
        config = self.config
        optimizer = torch.optim.SGD(self.net.parameters(), lr=config.lr)
        batches = task.train.batches(config.batch_size, epochs=config.epochs)
        for step, (x, y) in trace.steps("online", enumerate(batches), optimizer, total=len(batches)):
            losses = [self.update(optimizer, x, y, task.first) for _ in range(config.updates)]
            if step < len(batches) // config.epochs:             # in the first pass
                self.store(x, y)
            loss, replay = losses[0]
            trace("loss", step=step, loss=loss, replay=replay)
        trace("memory", counts=count_of_each(self.memory.labels, self.classes))

    def update(self, optimizer, x, y, first):
        """A step on x float (B, C, H, W) in [0, 1], y (B,), and on images of classes below `first`.

        Returns the losses of the batch and of the replayed images.
        """
        loss = F.cross_entropy(self(x), y)
        optimizer.zero_grad()
        loss.backward()
        replay = torch.zeros_like(loss)
        if first:
            index, counts = self.to_replay(first)
            x, y = self.memory.get(index, x.dtype)
            each = F.cross_entropy(self(x), y, reduction="none")                # (b,)
            replay = torch.where(counts, each, 0).sum() / counts.sum().clamp(min=1)
            replay.backward()
        optimizer.step()
        return loss.detach(), replay.detach()

    def to_replay(self, first):
        """Images of classes below `first` to replay: memory indices (b,), and which of them count (b,)."""
        if self.config.choose == "interfered":
            return self.interfered(*self.memory.sample_below(self.config.n_candidates, first))
        return self.memory.sample_below(self.config.replay_size, first)

    @torch.no_grad()
    def interfered(self, index, counts):
        """Choose, from the candidates at `index` (c,), the `replay_size` whose loss a step would raise most.

        counts: (c,) which of them count. The step follows the network's present gradients. Returns the
        indices (b,) and which of them count (b,).
        """
        x, y = self.memory.get(index, next(self.net.parameters()).dtype)
        before = F.cross_entropy(self(x), y, reduction="none")                  # (c,)
        after = step_down(self.net, [p.grad for p in self.net.parameters()], self.config.lr)
        after = F.cross_entropy(functional_call(self.net, after, (self.scaled(x),)), y, reduction="none")
        if self.memory_lowest is not None:
            before = torch.minimum(before, self.memory_lowest[index])
            known = torch.where(counts, before, torch.inf)
            self.memory_lowest.scatter_reduce_(0, index, known, "amin")         # an index can occur twice
        damage = torch.where(counts, after - before, -torch.inf)
        chosen = damage.topk(min(self.config.replay_size, len(index))).indices  # (b,)
        return index[chosen], counts[chosen]

    def store(self, x, y):
        """Offer a batch to the memory, x float (B, C, H, W) in [0, 1], y (B,); l* of new images is ln K."""
        new = self.memory.add(x, y)                                             # (M,)
        if self.memory_lowest is not None:
            self.memory_lowest.masked_fill_(new, math.log(self.classes))

    def scaled(self, x):
        """Pixels as the network takes them: x float (B, C, H, W) in [0, 1]."""
        return 2 * x - 1 if self.config.centred else x

    def forward(self, x):
        return self.net(self.scaled(x))                                         # (B, K)
