"""GEM: gradient episodic memory, steps that raise no past task's loss (Lopez-Paz and Ranzato 2017).

    python -m clkit run gem/mnist-5k-5 --preset paper   # 63.61 +- 4.61 % with 50 images, 0.1 minutes per seed

    GEM(stream): for each batch B of task t, each seen once:                           algorithm 1
        g_k <- gradient of the loss of the memory M_k of each past task k < t             GEM.gradients
        g <- gradient of the loss of B
        if g_k . g < 0 for some k:                                                     GEM.guard
            v <- argmin over v of v' G G' v / 2 + (G g)' v,  v >= margin   dual        least_squares
            g <- G' v + g                                                              project
        theta <- theta - lr g
        M_t <- the latest images of each class                                         ClassRing.add

G holds the g_k as rows (with the opposite sign in the paper). With margin 0 the new g is the nearest to the
old one that has no negative product with any g_k; a margin moves it further, so that past tasks gain.

Details the paper leaves open, or the authors' code handles otherwise
1. One head, no masks: the losses of B and of all M_k use a softmax over all classes of the stream, seen or
   not. On CIFAR100 the paper has one head per task.
2. The memory is shared equally among the classes of the stream, rounded down, and a ring for each class keeps
   its latest images. The code has one ring per task.
3. Margin. The paper adds a constant to the solution v; the code instead bounds v from below, and so do we.
   Either matters only if some product is negative.
4. v comes from an interior-point method with a fixed number of rounds in double precision, so that no step
   waits for a value from the device. For it, gradients are scaled to length 1. If some are linearly
   dependent, v is not unique, but the new g is. The code calls quadprog on the host; a later version adds
   0.001 to the diagonal of G G'.
5. Batch normalisation. Each pass uses the statistics of its own images, and these update the running
   statistics: first those of M_1, M_2, ..., then those of B (code).
6. With several passes over a task (epochs > 1), images enter the memory in the first one only.

Records: "loss" (step, loss, violated), "memory" (counts); `tables` describes them.
Keeps between tasks: the weights, `memory` images as bytes, and the number of images and the task of each
class.
"""

from dataclasses import dataclass

import torch
from torch.nn import functional as F

from clkit.blocks import nets
from clkit.blocks.memory import ClassRing, as_pixels
from clkit.engine.learner import Learner, check_config

REVISION = 1
_WIDTH = 2**16                  # weights at a time: far faster than whole gradients in double precision
_ROUNDS = 24                    # interior-point steps: at least 9 digits with gradients of 19 tasks
_CENTRE = 0.05                  # share of the present gap that a step aims for
_RIDGE = 1e-12                  # for linearly dependent gradients
_LEAST = 1e-18                  # lower bound of v and of the gradient in v


@dataclass(frozen=True)
class Config:
    """Defaults: as in the authors' scripts; memory as in Ji et al. 2020, table 1."""

    memory: int = 200           # images kept, over all classes
    margin: float = 0.5         # least weight of each past task's gradient, if any is violated
    net: str = "mlp"            # network: mlp, convnet, resnet18, ... (clkit.blocks.nets)
    centred: bool = False       # pixels from -1 to 1 instead of 0 to 1, as on CIFAR10 and MiniImageNet
    epochs: int = 1             # passes over the images of a task
    batch_size: int = 10        # images per batch
    lr: float = 0.1             # learning rate of gradient descent without momentum

    def __post_init__(self):
        check_config(self, above_0="lr")


def least_squares(P, c):
    """argmin over v >= 0 of v' P v / 2 + c' v, for positive semidefinite P (t, t) and c (t,): (t,).

    Float64. At the solution the gradient s = P v + c is not negative, and v s = 0. Each round is a Newton
    step towards v s = mu, with mu falling to 0, shortened where v or s would become negative (Nocedal and
    Wright 2006, section 16.6). No step waits for a value from the device.
    """
    size = P.diagonal().sqrt()                                                  # (t,) lengths of gradients
    scale = torch.where(size > 0, 1 / size, 0)
    ridge = torch.where(size > 0, _RIDGE, torch.ones_like(size))
    P, c = P * scale * scale[:, None] + torch.diag(ridge), c * scale
    unit = c.abs().amax().clamp(min=torch.finfo(c.dtype).tiny)
    c = c / unit
    v = s = torch.ones_like(c)
    for _ in range(_ROUNDS):
        mu = _CENTRE * (v @ s) / len(c)
        gap = P @ v + c - s                                                     # (t,), 0 at the solution
        factor, _ = torch.linalg.cholesky_ex(P + torch.diag(s / v))
        dv = torch.cholesky_solve((mu / v - s - gap)[:, None], factor)[:, 0]
        ds = P @ dv + gap
        both, change = torch.cat([v, s]), torch.cat([dv, ds])
        room = torch.where(change < 0, both / -change, torch.inf).amin()        # step at which one reaches 0
        step = (0.99 * room).clamp(max=1)
        v, s = (v + step * dv).clamp(min=_LEAST), (s + step * ds).clamp(min=_LEAST)
    return v * scale * unit


def project(g, G, margin=0.0):
    """Change the gradient g (D,) so that it raises the loss of no past task; G (t, D): their gradients.

    Returns G' v + g, (D,), or g itself if no product with a row of G is negative; and how many are.
    """
    P, products = 0.0, 0.0                                                      # (t, t) and (t,), float64
    for part, own in zip(G.split(_WIDTH, 1), g.split(_WIDTH)):
        part = part.double()
        P, products = P + part @ part.T, products + part @ own.double()
    violated = (products < 0).sum()
    v = margin + least_squares(P, products + margin * P.sum(1))
    return torch.where(violated > 0, g + v.to(g.dtype) @ G, g), violated


class GEM(Learner):
    """Gradient episodic memory, online."""

    stores_images = True
    tables = {"loss": "one row per batch: step, loss (cross-entropy), violated (number of past tasks harmed)",
              "memory": "one row per task: counts (K,), images of each class in the memory"}
    memory_kinds = {"memory": "exemplars"}

    def __init__(self, config, shape, classes):
        super().__init__(config, shape, classes)
        self.net = nets.build(config.net, shape, classes)
        self.memory = ClassRing(config.memory, classes, shape)
        self.register_buffer("memory_task", torch.full((classes,), -1, device="cpu"))   # of each class

    def learn(self, task, trace):
        config, past = self.config, [self.memory.of(self.memory_task == t) for t in range(task.index)]
        optimizer = torch.optim.SGD(self.net.parameters(), lr=config.lr)
        self.memory_task[task.first:task.seen] = task.index
        batches = task.train.batches(config.batch_size, epochs=config.epochs)
        for step, (x, y) in trace.steps("online", enumerate(batches), optimizer, total=len(batches)):
            G, violated = self.gradients(past) if past else None, 0             # (t, D), t past tasks
            loss = F.cross_entropy(self(x), y)
            optimizer.zero_grad()
            loss.backward()
            if past:
                violated = self.guard(G)
            optimizer.step()
            if step < len(batches) // config.epochs:             # in the first pass
                self.memory.add(x, y)
            trace("loss", step=step, loss=loss, violated=violated)
        trace("memory", counts=self.memory.counts())

    def gradients(self, past):
        """The gradients (t, D) of the losses on these memories [(images (N, C, H, W), labels (N,)), ...]."""
        rows, weights = [], list(self.net.parameters())
        for images, labels in past:
            loss = F.cross_entropy(self(as_pixels(images, weights[0].dtype)), labels)
            rows.append(torch.cat([gradient.flatten() for gradient in torch.autograd.grad(loss, weights)]))
        return torch.stack(rows)

    def guard(self, G):
        """Project the network's gradients; G (t, D). Returns how many products were negative."""
        weights = list(self.net.parameters())
        g, violated = project(torch.cat([p.grad.flatten() for p in weights]), G, self.config.margin)
        for p, part in zip(weights, g.split([p.numel() for p in weights])):
            p.grad = part.view_as(p)
        return violated

    def forward(self, x):
        return self.net(2 * x - 1 if self.config.centred else x)                # (B, K)
