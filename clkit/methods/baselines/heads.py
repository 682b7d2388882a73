"""LwF, EWC and MAS with a head for each task, where the surest head answers.

    python -m clkit run lwf-max/split-shapes --preset teach      # Li and Hoiem 2018
    python -m clkit run ewc-max/split-shapes --preset teach      # Kirkpatrick et al. 2017
    python -m clkit run mas-max/split-shapes --preset teach      # Aljundi et al. 2018

    HEADS(tasks): for each task t:
        f* <- f
        minimise CE(f_t(x), y) on the outputs of the task                               Heads.learn
          "distil":  + lambda sum over old heads s of T^2 CE(f*_s(x) / T, f_s(x) / T)   Heads.drift
          "fisher", "mas":  + lambda/2 sum_j Omega_j (theta_j - theta*_j)^2             QuadraticPenalty
        theta* <- theta;  Omega <- share Omega + (1 - share) new                        Heads.consolidate
          "fisher":  new = mean of (d log p_t(y^ | x) / d theta)^2                      Heads.surprise
          "mas":     new = mean of |d ||f(x)|| / d theta|                               Heads.stretch
    CLASSIFY(x): the class with the largest probability in the softmax of its head      Heads.forward

Details the papers leave open
1. All three papers know the task of a test image. The rule for an unknown task is that with which Liu et al.
   (2020) compare. A head of two classes is always at least 0.5 sure, so it wins against one of fifty: with a
   large first task and small ones after it, most answers come from the small heads (table "heads").
2. Gradients are those of single images. y^ is the class of the task that the network finds most likely, and
   ||f(x)|| is that of the outputs of all classes seen. Averaging Omega over tasks with share = 0.5, and the
   strengths 5000 and 1, are those of FACIL (Masana et al. 2023); Liu et al. do not give theirs.
3. Old heads are constant for "fisher" and "mas", because no loss reaches them. Weight decay would: Adam makes
   full steps of a gradient that is decay alone, and would wipe them out. There is none here.
4. "none" is finetuning with a head for each task.
5. Batch normalisation goes on in every task, as usual for these methods. The importance is measured with its
   running statistics.

Records: tables "loss" and "heads" (see `tables`).
Keeps between tasks: the weights, the number of classes seen after each task, and for "fisher" and "mas" the
importance of each weight. f* exists only during a task; theta* equals the weights at its start.
"""

from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import torch
from torch import nn
from torch.nn import functional as F

from clkit.blocks import nets
from clkit.blocks.functional import sum_over_set
from clkit.blocks.losses import distillation
from clkit.blocks.memory import count_of_each
from clkit.blocks.pixels import Standardise
from clkit.blocks.quadratic import QuadraticPenalty
from clkit.blocks.recipe import decay, views
from clkit.engine.evaluate import eval_mode
from clkit.engine.learner import Learner, check_config, frozen
from clkit.engine.parallel import spread

REVISION = 1
LATER = "hold strength temperature share importance_images"     # settings without effect on the first task


@dataclass(frozen=True)
class Config:
    """Defaults: LwF with the recipe of GFR, but for weight decay (detail 3)."""

    hold: Literal["distil", "fisher", "mas", "none"] = "distil"     # what keeps old tasks
    strength: float = 1.0       # lambda; at 0 this is "none"
    temperature: float = 2.0    # T of "distil"
    share: float = 0.5          # of the earlier importance in the new one; 0 forgets it
    importance_images: int | None = None    # images that it is measured on, drawn at random; None: all
    net: str = "resnet18-wide"  # network, by its name in clkit.blocks.nets
    mean: tuple[float, ...] = (0.4914, 0.4822, 0.4465)  # subtracted from the pixels, by channel or for all
    std: tuple[float, ...] = (0.2023, 0.1994, 0.2010)   # divides them
    augment: Literal["none", "flip", "shift", "zoom"] = "shift"     # of training images (clkit.blocks.recipe)
    view: int = 0               # side of what the network sees of an image, its centre in tests; 0: all of it
    epochs: int = 201           # passes over the images of a task
    milestones: tuple = (199,)  # epochs after which the learning rate is divided by 10
    batch_size: int = 128       # images per step
    lr: float = 1e-3            # learning rate of Adam

    def __post_init__(self):
        check_config(self, above_0="temperature lr std", up_to_1="share", from_0="view")


class Heads(Learner):
    """A head for each task on a common network."""

    parallel = True
    tables = {"loss": "one row per epoch: epoch, loss, new (cross-entropy), old (distillation or penalty, "
                      "with its strength)",
              "heads": "one row per task: wins (tasks so far,), the share of the task's training images that "
                       "each head answers"}
    memory_kinds = {"importance": "importance"}

    def __init__(self, config, shape, classes):
        super().__init__(config, shape, classes)
        self.net = nets.build(config.net, shape, classes)
        self.standardise = Standardise(config.mean, config.std, shape[0], config.view)
        weighs = config.hold in ("fisher", "mas")
        size = sum(p.numel() for p in self.net.parameters()) if weighs else 0   # P
        self.register_buffer("importance", torch.zeros(size, device="cpu"))     # (P,) Omega
        self.register_buffer("ends", torch.zeros(0, dtype=torch.int64, device="cpu"))   # (t,) classes seen

    def learn(self, task, trace):
        config, old_heads = self.config, self.heads()
        held = config.hold if task.first and config.strength else "none"
        teacher = frozen(self.net) if held == "distil" else None
        quadratic = QuadraticPenalty(self.net, self.importance) if held in ("fisher", "mas") else None
        self.ends = torch.cat([self.ends, self.ends.new_tensor([task.seen])])
        optimizer = torch.optim.Adam(self.net.parameters(), config.lr, fused=True)
        for epoch in trace.epochs("classifier", config.epochs, optimizer, apart=LATER,
                                  share=None if task.first else self.net):
            decay(optimizer, config, epoch)
            new_total, old_total, batches = 0.0, 0.0, views(task.train, config)
            for x, y in batches:
                x = self.standardise(x)
                logits = spread(self.net, x)                                    # (B, K)
                loss = new = F.cross_entropy(logits[:, task.first:task.seen], y - task.first)
                if teacher is not None:
                    old = config.strength * self.drift(logits, spread(teacher, x), old_heads)
                    loss, old_total = new + old, old_total + old.detach()
                optimizer.zero_grad()
                loss.backward()
                if quadratic is not None:
                    old_total += quadratic.add_gradient(config.strength / 2)
                optimizer.step()
                new_total += new.detach()
            new, old = new_total / len(batches), old_total / len(batches)
            trace("loss", epoch=epoch, loss=new + old, new=new, old=old)
        if config.hold in ("fisher", "mas"):
            self.consolidate(task)
        trace("heads", wins=self.wins(task))

    def heads(self):
        """Slices of the classes of each task so far."""
        return [slice(a, b) for a, b in pairwise([0, *self.ends.tolist()])]

    def drift(self, logits, before, heads):
        """Distillation from the outputs before the task, summed over old heads; logits, before (B, K)."""
        return sum(distillation(logits[:, h], before[:, h], self.config.temperature) for h in heads)

    def consolidate(self, task):
        """Average the importance of the weights for a task into that for the tasks before it."""
        images, n = task.train, self.config.importance_images
        if n is not None:
            pick = torch.randperm(len(images), device=images.device)[:n]
            images = images.like(images.images[pick], images.labels[pick])
        net = nn.Sequential(self.standardise, self.net)
        of, errors = torch.abs, self.stretch
        if self.config.hold == "fisher":
            of, errors = torch.square, lambda logits, y: self.surprise(logits, task.first)
        new = sum_over_set(of, net, images, task.seen, errors) / len(images)    # (P,)
        self.importance = torch.lerp(new, self.importance, self.config.share if task.first else 0.0)

    def surprise(self, logits, first):
        """Gradient in the logits (B, seen) of -log p of the likeliest class from `first`: [(B, seen)]."""
        own = logits[:, first:]                                                 # (B, n)
        error = own.softmax(1) - F.one_hot(own.argmax(1), own.shape[1])
        return [F.pad(error, (first, 0))]

    def stretch(self, logits, y):
        """Gradient in the logits (B, seen) of their norm: [(B, seen)]."""
        return [F.normalize(logits)]

    def wins(self, task):
        """The share of the task's training images that each head answers, (t,)."""
        with eval_mode(self):
            answers = torch.cat([self(x).argmax(1) for x, _ in task.train.batches(500, shuffle=False)])
        heads = torch.bucketize(answers, self.ends, right=True)                 # (N,)
        return count_of_each(heads, len(self.ends)) / len(heads)

    def forward(self, x):
        """Probabilities within the head of each class, (B, classes seen)."""
        logits = spread(self.net, self.standardise(x))                          # (B, K)
        return torch.cat([logits[:, h].softmax(1) for h in self.heads()] or [logits[:, :0]], 1)
