"""Online replay of the images that a step would damage most: MIR (Aljundi et al. 2019, "maximal interfered").

    MIR(stream): for each batch B of n images, each met once; u times:                  algorithm 1
        g <- slope of the cross-entropy of B at theta                                   MIR.update
        from the second task on, with the images of earlier tasks in the memory:
            choose="random" (ER):        R <- b of them, drawn                          MIR.draw
            choose="interfered" (MIR):   C <- c of them, drawn                          MIR.draw
                theta_v <- theta - lr g                                                 virtual_step
                R <- the b images of C with the largest                                 MIR.interfered
                     l(x; theta_v) - min(l(x; theta), l*(x))        section 3.1
            g <- g + slope of the mean cross-entropy of R
        theta <- theta - lr g
    memory <- reservoir(memory, B)                                                      MIR.store

l is the cross-entropy of an image with its label, l* the lowest that it has had so far. The softmax covers
all classes of the stream, met or not.

Details the paper leaves open, or the authors' code does otherwise
1. Earlier tasks. Images of the present task are never replayed, though the reservoir holds some. Images are
   drawn without replacement; where fewer are there than asked for, all of them are taken.
2. Score. before="best" is the one above, which the authors use on MNIST; before="now" leaves l* out, as on
   CIFAR10 and MiniImageNet. l* begins as ln K, the loss of even outputs, and falls only when the image is a
   candidate (code). We keep it by place in the memory and begin anew where another image takes the place;
   the code takes the place among images of earlier tasks for that in the memory, and never begins anew.
3. Sum. Real and replayed images have a mean each: ten replayed images weigh as much as the whole batch.
4. Several updates (u > 1, on MiniImageNet) draw anew each time; the memory gets the batch after the last one.
5. Batch normalisation. Each pass uses the statistics of its own images. Those of B, of R, and of C at theta
   enter the running statistics (code), those of C at theta_v do not. Where fewer images than asked for are
   there, these statistics meet some again, but the loss does not: no shape depends on how many there are.
6. Reservoir. Each image has its own chance, memory / (images so far, with it); in the code all images of a
   batch have that of its first one.
7. With several passes over a task (epochs > 1) images meet the reservoir in the first one only.

Records: table "loss" (step, loss: cross-entropy of the batch, replay: of the replayed images, 0 where none;
both in the first update of a batch), "memory" (counts: images of each class in the memory when a task is
over).
Keeps between tasks: the weights, `memory` images as bytes with their labels, and their l* where it is used.
"""

import math
from dataclasses import dataclass

import torch
from torch.func import functional_call
from torch.nn import functional as F

from clkit import nets
from clkit.learner import Learner, LearnerError


@dataclass(frozen=True)
class Config:
    """Defaults: those of the authors' script for split MNIST, without MIR; memory as in Ji et al. 2020."""

    choose: str = "random"      # what is replayed: "random" images (ER), or the most "interfered" ones (MIR)
    memory: int = 50            # images kept, of all classes together
    replay: int = 10            # b: images replayed in an update
    candidates: int = 50        # c: images among which the most interfered are looked for; MiniImageNet: 25
    before: str = "best"        # loss before the virtual step: "now", or the "best" so far if that is lower
    updates: int = 1            # u: updates for each batch; 3 on MiniImageNet
    net: str = "mlp"            # network: mlp, convnet, resnet18, ... (clkit.nets)
    centred: bool = False       # pixels from -1 to 1 instead of 0 to 1, as on CIFAR10 and MiniImageNet
    epochs: int = 1             # passes over the images of a task
    batch: int = 10             # n: images in a batch
    lr: float = 0.1             # learning rate of gradient descent without momentum

    def __post_init__(self):
        if self.choose not in ("random", "interfered"):
            raise LearnerError(f"choose must be 'random' or 'interfered', not {self.choose!r}")
        if self.before not in ("best", "now"):
            raise LearnerError(f"before must be 'best' or 'now', not {self.before!r}")
        for name in ("memory", "replay", "candidates", "updates", "epochs", "batch"):
            if getattr(self, name) < 1:
                raise LearnerError(f"{name} must be at least 1, not {getattr(self, name)}")
        if not 0 < self.lr < math.inf:
            raise LearnerError(f"lr must be above 0 and finite, not {self.lr}")
        if self.choose == "interfered" and self.candidates < self.replay:
            raise LearnerError(f"candidates={self.candidates} is fewer than replay={self.replay}: it must be "
                               "at least as many, of which the most interfered are replayed")


def passes(images, config):
    """The batches (x, y) of all passes over the images of a task, each pass in a random order of its own.

    The order hangs on the random state at the beginning alone, so that a task can be taken up in its middle.
    """
    order = torch.Generator(device="cpu").manual_seed(int(torch.randint(2**62, (), device="cpu")))
    for _ in range(config.epochs):
        yield from images.batches(config.batch, generator=order)


def virtual_step(net, lr):
    """The weights of the network after a step down its gradients, {name: tensor}; the network stays as it is.

    Copies of the buffers are among them, so that a pass with these weights leaves no mark in the network.
    """
    weights = {name: p.detach() - lr * p.grad for name, p in net.named_parameters()}
    return weights | {name: b.clone() for name, b in net.named_buffers()}


class MIR(Learner):
    """Online experience replay of random or of maximally interfered images."""

    keeps_data = True
    tables = {"loss": "one row a batch: step, loss (cross-entropy), replay (of replayed images, or 0)",
              "memory": "one row a task: counts (K,), images of each class in the memory"}
    memory_kinds = {"memory_": "exemplars"}

    def __init__(self, config, shape, classes):
        super().__init__(config, shape, classes)
        self.net, size = nets.build(config.net, shape, classes), config.memory
        memory = torch.zeros(size, *shape, dtype=torch.uint8, device="cpu")
        self.register_buffer("memory_images", memory)
        self.register_buffer("memory_labels", torch.full((size,), -1, device="cpu"))
        self.register_buffer("memory_met", torch.zeros((), dtype=torch.int64, device="cpu"))  # images so far
        used = config.choose == "interfered" and config.before == "best"
        self.register_buffer("memory_lowest", torch.zeros(size, device="cpu") if used else None)    # l*

    def learn(self, task, trace):
        config = self.config
        optimizer = torch.optim.SGD(self.net.parameters(), lr=config.lr)
        once, batches = -(-len(task.train) // config.batch), enumerate(passes(task.train, config))
        for step, (x, y) in trace.steps("online", batches, optimizer, total=config.epochs * once):
            losses = [self.update(optimizer, x, y, task.first) for _ in range(config.updates)]
            if step < once:
                self.store(x, y)
            loss, replay = losses[0]
            trace("loss", step=step, loss=loss, replay=replay)
        if trace.wants("memory"):
            classes = torch.arange(self.classes, device=self.memory_labels.device)
            trace("memory", counts=(self.memory_labels[:, None] == classes).sum(0))

    def update(self, optimizer, x, y, first):
        """A step on x float (B, C, H, W) in [0, 1], y (B,), and on images of classes below `first`.

        Returns the loss of the batch and that of the replayed images.
        """
        loss = F.cross_entropy(self(x), y)
        optimizer.zero_grad()
        loss.backward()
        replay = torch.zeros_like(loss)
        if first:
            interfered = self.config.choose == "interfered"
            place, counts = self.draw(self.config.candidates if interfered else self.config.replay, first)
            if interfered:
                place, counts = self.interfered(place, counts)
            x, y = self.remembered(place)
            each = F.cross_entropy(self(x), y, reduction="none")                # (b,)
            replay = torch.where(counts, each, 0).sum() / counts.sum().clamp(min=1)
            replay.backward()
        optimizer.step()
        return loss.detach(), replay.detach()

    def draw(self, n, first):
        """Places in the memory of n images of classes below `first`, all different, in random order.

        Returns the places (n,), n being at most the size of the memory, and which of them count (n,): where
        fewer images are there than asked for, they come again to fill up.
        """
        past = (self.memory_labels >= 0) & (self.memory_labels < first)         # (M,)
        keys = torch.rand(len(past), device=past.device)
        order, found = torch.where(past, keys, 2.0).argsort(), past.sum()
        number = torch.arange(min(n, len(past)), device=past.device)
        return order[number % found.clamp(min=1)], number < found

    @torch.no_grad()
    def interfered(self, place, counts):
        """Of the candidates at these places (c,) the `replay` whose loss a step would raise most.

        counts: (c,) which of them count. The step is one down the gradients that the network has. Returns
        the places (b,) and which of them count (b,).
        """
        x, y = self.remembered(place)
        before = F.cross_entropy(self(x), y, reduction="none")                  # (c,)
        scores = functional_call(self.net, virtual_step(self.net, self.config.lr), (self.scaled(x),))
        after = F.cross_entropy(scores, y, reduction="none")                    # (c,)
        if self.memory_lowest is not None:
            before = torch.minimum(before, self.memory_lowest[place])
            known = torch.where(counts, before, torch.inf)
            self.memory_lowest.scatter_reduce_(0, place, known, "amin")         # a place can occur twice
        damage = torch.where(counts, after - before, -torch.inf)
        chosen = damage.topk(min(self.config.replay, len(place))).indices       # (b,)
        return place[chosen], counts[chosen]

    def remembered(self, place):
        """Images float (B, C, H, W) in [0, 1] and labels (B,) at these places (B,) of the memory."""
        images, labels = self.memory_images[place], self.memory_labels[place]
        kind = next(self.net.parameters()).dtype
        return images.to(kind) / 255, labels.clamp(min=0)                       # of an empty place: -1

    @torch.no_grad()
    def store(self, x, y):
        """Reservoir sampling: after n images in all, each of them is in the memory with probability M / n.

        x float (B, C, H, W) in [0, 1], y (B,). Image number n (from 0) goes to a place drawn from 0 .. n, and
        is kept if the memory has that place; while there is room it goes to place n. Of several images for
        one place the last stays, as if they had come one by one.
        """
        size, device = len(self.memory_labels), y.device
        order = torch.arange(len(y), device=device)
        number = self.memory_met + order                                        # (B,)
        place = (torch.rand(len(y), dtype=torch.float64, device=device) * (number + 1)).long()
        place = torch.where(number < size, number, place)
        order = torch.where(place < size, order, -1)
        last = torch.full((size,), -1, device=device)
        last = last.scatter_reduce(0, place.clamp(max=size - 1), order, "amax")  # (M,) which image, or -1
        taken, source = last >= 0, last.clamp(min=0)
        self.memory_labels.copy_(torch.where(taken, y[source], self.memory_labels))
        images = (x * 255).round().to(torch.uint8)
        self.memory_images.copy_(torch.where(taken[:, None, None, None], images[source], self.memory_images))
        if self.memory_lowest is not None:
            self.memory_lowest.masked_fill_(taken, math.log(self.classes))
        self.memory_met += len(y)

    def scaled(self, x):
        """Pixels as the network takes them: x float (B, C, H, W) in [0, 1]."""
        return 2 * x - 1 if self.config.centred else x

    def forward(self, x):
        return self.net(self.scaled(x))                                         # (B, K)
