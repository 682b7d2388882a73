"""LwF: learning without forgetting, by distillation from the network before the task (Li and Hoiem 2018).

    python -m clkit run lwf/split-mnist --preset paper             # 20.53 +- 0.30 %, 1 minute per seed
    python -m clkit run lwf-multihead/split-mnist --preset paper   # 50.92 +- 2.86 %, 1 minute
    ... lwf/split-mnist --preset paper --set reduction=mean        # the loss behind quoted numbers (detail 6)

    LWF(tasks): for each task t:
        f* <- f                                 the network before the task     frozen
        train the new outputs alone             section 3, "warm-up"            LwF.warm_up
        minimise  a CE(f(x), y)                 on the images of the task       LwF.task_loss
                + b T^2 CE(f*(x)/T, f(x)/T)     on the outputs of old classes   LwF.old_loss

Details the paper leaves open
1. The paper is task-incremental: every task has its own outputs and softmax, and the task of a test image is
   known. heads="multi" is that method, with a = 1, b = weight and the distillation terms of the old heads
   summed. heads="single" is its class-incremental form as in van de Ven and Tolias (2019), with one softmax
   over all classes seen, also in the distillation term, where the teacher gives the new classes probability
   0. Both forms are scored both ways; if the task of an image is unknown, the logits of the multi-head
   network are compared across heads as they are.
2. With balance=True the terms are weighted as in van de Ven and Tolias: at task t = 1, 2, ... a = 1/t and b =
   weight (1 - 1/t), so that the past counts more as tasks accumulate. balance=False is the paper's sum. With
   T = 2 the optimum of the two terms gives a new image's class less than half of the probability. If the task
   is known, this LwF still predicts the right class; if not, it predicts old classes. It forgets nothing, but
   never predicts a new class.
3. Factor T^2: Hinton et al. have it, Li and Hoiem do not mention it. With T = 2, weight = 0.25 gives the
   unscaled form.
4. The paper records f*(x) once per task, before training; we compute it per batch, which is equivalent
   without augmentation.
5. The warm-up (only new outputs learn) helps little without pretraining and is off by default; warmup_epochs
   turns it on.
6. The numbers for split MNIST that papers quote (23.85 in SpaceNet's table 2) come from the code of van de
   Ven and Tolias before its commit 26f00db of May 2019. There the distillation term was a mean over the
   classes seen, whereas a cross-entropy is a sum. reduction="mean" is that loss: it divides the term by the
   number of its outputs, 4 to 10 on split MNIST, so that the past counts less the more classes there are.
   This LwF fails in the opposite way: it learns the new classes and loses the old ones.

Records: table "loss" (epoch, loss, new, old: means over the epoch of the objective and its two terms).
Keeps between tasks: the weights, and the number of classes seen after each task (8 bytes per task). The
teacher exists only during a task.
"""

from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import torch
from torch.nn import functional as F

from clkit.blocks import nets
from clkit.blocks.losses import distillation
from clkit.engine.learner import Learner, check_config, frozen

REVISION = 1


@dataclass(frozen=True)
class Config:
    """Defaults: temperature and weight of the paper (section 3); network and budget as for Finetune."""

    net: str = "mlp"            # network: mlp, convnet or resnet18 (clkit.blocks.nets)
    heads: Literal["single", "multi"] = "single"    # one softmax over all classes seen; one per task (paper)
    balance: bool = True        # weight new and old by the number of tasks; False: the paper's plain sum
    weight: float = 1.0         # lambda_o, weight of the distillation term; at 0 this is Finetune
    temperature: float = 2.0    # T
    reduction: Literal["sum", "mean"] = "sum"   # of the distillation term over classes (detail 6)
    warmup_epochs: int = 0      # epochs in which only the new outputs learn
    epochs: int = 20            # passes over the images of a task
    batch_size: int = 128       # images per step
    lr: float = 1e-3            # learning rate of Adam

    def __post_init__(self):
        check_config(self, above_0="temperature lr", from_0="warmup_epochs")


class LwF(Learner):
    """Learning without forgetting."""

    tables = {"loss": "one row per epoch: epoch, loss, new (cross-entropy), old (distillation)"}

    def __init__(self, config, shape, classes):
        super().__init__(config, shape, classes)
        self.net = nets.build(config.net, shape, classes)
        self.register_buffer("ends", torch.zeros(0, dtype=torch.int64, device="cpu"))   # (t,) classes seen

    def learn(self, task, trace):
        heads, (a, b) = self._heads(task), self._weights(task)
        teacher = frozen(self.net) if task.first and self.config.weight else None
        if task.first and self.config.warmup_epochs:
            self.warm_up(task, heads, trace)
        optimizer = torch.optim.Adam(self.net.parameters(), lr=self.config.lr, fused=True)
        for epoch in trace.epochs("classifier", self.config.epochs, optimizer):
            new_total, old_total, batches = 0.0, 0.0, task.train.batches(self.config.batch_size)
            for x, y in batches:
                logits = self.net(x)                                            # (B, K)
                loss = new = self.task_loss(logits, y, task)
                if teacher is not None:
                    old = self.old_loss(logits[:, :task.seen], teacher(x), heads)
                    loss = a * new + b * old
                    old_total += old.detach()
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                new_total += new.detach()
            new_mean, old_mean = new_total / len(batches), old_total / len(batches)
            trace("loss", epoch=epoch, loss=a * new_mean + b * old_mean, new=new_mean, old=old_mean)
        self.ends = torch.cat([self.ends, self.ends.new_full((1,), task.seen)])

    def _weights(self, task):
        """The factors a and b of the two terms."""
        if task.first == 0 or self.config.weight == 0:
            return 1.0, 0.0
        share = 1 / (task.index + 1) if self.config.balance else 1.0
        return share, self.config.weight * (1 - share if self.config.balance else 1.0)

    def _heads(self, task):
        """Slices of the old classes that share a softmax: one, or one per old task."""
        if self.config.heads == "single":
            return [slice(0, task.first)]
        return [slice(a, b) for a, b in pairwise([0, *self.ends.tolist()])]

    def task_loss(self, logits, y, task):
        """Cross-entropy over the classes seen or, with several heads, the task's; logits (B, K), y (B,)."""
        first = task.first if self.config.heads == "multi" else 0
        return F.cross_entropy(logits[:, first:task.seen], y - first)

    def old_loss(self, logits, before, heads):
        """Distillation from the teacher's outputs `before`; logits (B, seen), before (B, K).

        Several old heads are summed; with a single one the student's softmax also covers the new classes.
        """
        temperature, reduction = self.config.temperature, self.config.reduction
        if self.config.heads == "single":
            return distillation(logits, before[:, heads[0]], temperature, reduction)
        return sum(distillation(logits[:, h], before[:, h], temperature, reduction) for h in heads)

    def warm_up(self, task, heads, trace):
        """Train the outputs of the new classes with everything else frozen."""
        head = self.net.head
        optimizer = torch.optim.Adam(head.parameters(), lr=self.config.lr, fused=True)
        for _ in trace.epochs("warm-up", self.config.warmup_epochs, optimizer):
            for x, y in task.train.batches(self.config.batch_size):
                with torch.no_grad():
                    features = self.net.features(x)                             # (B, D)
                loss = self.task_loss(head(features), y, task)
                optimizer.zero_grad()
                loss.backward()
                for p in head.parameters():
                    p.grad[:task.first] = 0                                     # old rows stay unchanged
                optimizer.step()

    def forward(self, x):
        return self.net(x)                                                      # (B, K)
