"""EWC: elastic weight consolidation (Kirkpatrick et al. 2017), and its online form (Schwarz et al. 2018).

    python -m clkit run ewc/split-mnist --preset paper      # 20.12 +- 0.31 %, 3 minutes per seed
    python -m clkit run ewc/split-fashion --preset paper    # 19.96 +- 0.02 %, 4 minutes

    EWC(tasks): for each task t:
        minimise CE(f(x), y)                                 on the images of the task       EWC.learn
               + lambda/2 sum_i sum_j F_ij (theta_j - theta*_ij)^2    i < t         eq. 3    EWC.penalty
        theta*_t <- theta
        F_t <- mean over D_t of (d log p(y | x) / d theta)^2          diagonal Fisher        EWC.fisher
    online: one term for all old tasks, gamma F~_(t-1) around theta*_(t-1), with F~_t = F_t + gamma F~_(t-1)
                                                                                             EWC.consolidate

Details the papers leave open
1. The label y in F. "predicted": the class that the network itself finds most likely, as in van de Ven and
   Tolias (2019). "expected": all classes, each weighted by the probability that the network gives it, which
   is the Fisher information. "label": the true label (the empirical Fisher). Where the network fits the
   training images well, the three are small in different ways: choose the strength again when you change this
   setting.
2. F averages the squares of single images' gradients, never of a batch's: the square of a mean gradient is a
   different quantity. In a fully connected network the gradient of one image is delta h^T and its square
   delta^2 (h^2)^T, so that F takes one matrix product per layer (`sum_over_images_mlp`); other networks are
   processed image by image (`sum_over_images`). We divide by the number of images.
3. F is measured in eval mode, with the softmax over the classes seen, on all images of the task or on
   fisher_images of them drawn at random.
4. The sum over old tasks is one quadratic: sum_i F_i (theta - theta*_i)^2 = A (theta - m)^2 + rest, with A =
   sum_i F_i and m = sum_i F_i theta*_i / A. The paper keeps a pair F_i, theta*_i for every task; we keep A, m
   and the number `rest`: the value and the gradient are the same, and the cost does not grow with the number
   of tasks. We do not form A theta - sum_i F_i theta*_i, because a lambda of 1e8 amplifies its rounding
   errors until they matter.
5. The gradient of the penalty is added to that of the loss by hand, after backward().
6. Biases, and the outputs of classes to come, are parameters like any other (F = 0 for those outputs).

Records: table "loss" (epoch, loss, new, penalty: means over the epoch of the objective and its two terms).
Keeps between tasks: the weights and, for each of them, its importance and its centre m; the online form only
the importance, since theta* then equals the weights at the start of the next task.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch.nn import functional as F
from torch.nn.utils import parameters_to_vector

from clkit.blocks import nets
from clkit.blocks.functional import sum_over_set
from clkit.blocks.quadratic import QuadraticPenalty
from clkit.engine.learner import Learner, check_config

REVISION = 1


@dataclass(frozen=True)
class Config:
    """Defaults: split MNIST in van de Ven and Tolias (2019), where online EWC has strength 1e9."""

    net: str = "mlp"            # network: mlp, convnet or resnet18 (clkit.blocks.nets)
    online: bool = False        # one term, with a memory that fades, instead of one per task
    strength: float = 1e8       # lambda; at 0 this is Finetune
    gamma: float = 0.8          # online only: share of the earlier importance that a task keeps
    fisher: Literal["predicted", "expected", "label"] = "predicted"     # label in F (detail 1)
    fisher_images: int | None = None  # images used to measure F, drawn at random; None: all of the task
    epochs: int = 20            # passes over the images of a task
    batch_size: int = 128       # images per step
    lr: float = 1e-3            # learning rate of Adam

    def __post_init__(self):
        check_config(self, above_0="lr", up_to_1="gamma")


class EWC(Learner):
    """Elastic weight consolidation, with one term per task or online."""

    tables = {"loss": "one row per epoch: epoch, loss, new (cross-entropy), penalty"}
    memory_kinds = {"importance": "importance", "rest": "importance", "centre": "teachers"}

    def __init__(self, config, shape, classes):
        super().__init__(config, shape, classes)
        self.net = nets.build(config.net, shape, classes)
        size = sum(p.numel() for p in self.net.parameters())                    # P
        centre = torch.zeros(0 if config.online else size, device="cpu")
        self.register_buffer("importance", torch.zeros(size, device="cpu"))     # (P,) A, online F~
        self.register_buffer("centre", centre)                                  # (P,) m
        self.register_buffer("rest", torch.zeros((), device="cpu"))             # the sum at theta = m

    def learn(self, task, trace):
        config, (quadratic, factor) = self.config, self.penalty()
        pulled = task.first > 0 and factor > 0
        optimizer = torch.optim.Adam(self.net.parameters(), lr=config.lr, fused=True)
        for epoch in trace.epochs("classifier", config.epochs, optimizer):
            new_total, penalty_total, batches = 0.0, 0.0, task.train.batches(config.batch_size)
            for x, y in batches:
                loss = F.cross_entropy(self.net(x)[:, :task.seen], y)
                optimizer.zero_grad()
                loss.backward()
                if pulled:
                    penalty_total += quadratic.add_gradient(factor)
                optimizer.step()
                new_total += loss.detach()
            new, penalty = new_total / len(batches), penalty_total / len(batches)
            trace("loss", epoch=epoch, loss=new + penalty, new=new, penalty=penalty)
        self.consolidate(self.fisher(task))

    def penalty(self):
        """The sum over all old tasks as one quadratic (detail 4), and its factor in the objective."""
        if self.config.online:
            return QuadraticPenalty(self.net, self.importance), self.config.strength / 2 * self.config.gamma
        return QuadraticPenalty(self.net, self.importance, self.centre, self.rest), self.config.strength / 2

    def fisher(self, task):
        """The diagonal of the Fisher information on the task's images, (P,)."""
        images = task.train
        if self.config.fisher_images is not None:
            pick = torch.randperm(len(images), device=images.device)[:self.config.fisher_images]
            images = images.like(images.images[pick], images.labels[pick])
        return sum_over_set(torch.square, self.net, images, task.seen, self.errors) / len(images)

    def errors(self, logits, y):
        """Gradients of -log p in the logits, for each label that counts: logits (B, K), y (B,) -> (R, B, K).

        If all classes count, each gradient is scaled by the square root of its class's probability, so that
        the squares add up to the expectation.
        """
        p, classes = F.softmax(logits, 1), logits.shape[1]
        if self.config.fisher == "expected":
            one_hot = torch.eye(classes, dtype=p.dtype, device=p.device)
            return p.T[:, :, None].sqrt() * (p - one_hot[:, None])              # (K, B, K)
        label = y if self.config.fisher == "label" else logits.argmax(1)
        return (p - F.one_hot(label, classes))[None]                            # (1, B, K)

    @torch.no_grad()
    def consolidate(self, fisher):
        """Add the present weights, with their Fisher information (P,), to the penalty of later tasks."""
        if self.config.online:
            self.importance = self.config.gamma * self.importance + fisher
            return
        importance = self.importance + fisher
        share = torch.where(importance > 0, fisher / importance, 1.0)           # (P,)
        theta = parameters_to_vector(self.net.parameters())
        self.rest += (self.importance * share) @ (theta - self.centre).square()
        self.centre = torch.lerp(self.centre, theta, share)
        self.importance = importance

    def forward(self, x):
        return self.net(x)                                                      # (B, K)
