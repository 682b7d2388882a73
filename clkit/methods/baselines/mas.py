"""MAS: memory aware synapses, importance as a weight's effect on the outputs (Aljundi et al. 2018).

    python -m clkit run mas/split-mnist --preset paper      # 19.58 +- 0.09 %, 1 minute per seed
    python -m clkit run mas/split-fashion --preset paper    # 19.93 +- 0.01 %, 1 minute

    MAS(tasks): for each task t:
        minimise CE(f(x), y)                                 on the images of the task   MAS.learn
               + lambda sum_j Omega_j (theta_j - theta*_j)^2                             QuadraticPenalty
        theta* <- theta
        Omega <- Omega + mean over D_t of |d ||f(x)||^2 / d theta|   (no labels)   MAS.sensitivity

Details the paper leaves open
1. per_image=True is the paper's mean: the gradient of the squared norm of one image's outputs (a sum over
   classes), its absolute value, then the mean over images. per_image=False follows Hsu et al. (2018): the
   gradient of the mean squared output, over the images of a batch and over the classes seen, its absolute
   value, then the mean over batches, in which a smaller last batch counts as much as the others. The
   gradients within a batch partly cancel, and the number of classes divides them, so each version needs its
   own strength.
2. In a fully connected network the gradient of one image is delta h^T and its absolute value |delta| |h|^T,
   so that the paper's mean takes one matrix product per layer (`sum_over_images_mlp`). Other networks are
   processed image by image (`sum_over_images`).
3. Only the outputs of the classes seen count. They are taken before the softmax, in eval mode.
4. Omega is summed over tasks, and theta* is that of the last one (as in Hsu et al.).
5. The batches of per_image=False are drawn again after the task has been learned: in stored order a batch may
   hold a single class, whose gradients cancel less.
6. The penalty has no factor 1/2: its gradient is 2 lambda Omega (theta - theta*). It is added to that of the
   loss by hand, after backward().
7. The defaults are those of Hsu et al. for split MNIST, but their images differ from ours: they pad each to
   32x32 pixels and scale them by mean and standard deviation; we use 28x28 pixels in [0, 1]. So their network
   has more inputs, and lambda = 1 does not mean quite the same.

Records: table "loss" (epoch, loss, new, penalty: means over the epoch of the objective and its two terms).
Keeps between tasks: the weights and the importance of each. theta* equals the weights at the start of a task.
"""

from dataclasses import dataclass

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
    """Defaults: split MNIST in Hsu et al. (2018), except for the images (detail 7)."""

    net: str = "mlp"            # network: mlp, convnet or resnet18 (clkit.blocks.nets)
    strength: float = 1.0       # lambda; at 0 this is Finetune
    per_image: bool = False     # importance from single images (paper); False: from batches (detail 1)
    epochs: int = 4             # passes over the images of a task
    batch_size: int = 128       # images per step, and per batch when importance is measured
    lr: float = 1e-3            # learning rate of Adam

    def __post_init__(self):
        check_config(self, above_0="lr")


class MAS(Learner):
    """Memory aware synapses."""

    tables = {"loss": "one row per epoch: epoch, loss, new (cross-entropy), penalty"}
    memory_kinds = {"importance": "importance"}

    def __init__(self, config, shape, classes):
        super().__init__(config, shape, classes)
        self.net = nets.build(config.net, shape, classes)
        size = sum(p.numel() for p in self.net.parameters())                    # P
        self.register_buffer("importance", torch.zeros(size, device="cpu"))     # (P,) Omega

    def learn(self, task, trace):
        quadratic = QuadraticPenalty(self.net, self.importance)
        pulled = task.first > 0 and self.config.strength > 0
        optimizer = torch.optim.Adam(self.net.parameters(), lr=self.config.lr, fused=True)
        for epoch in trace.epochs("classifier", self.config.epochs, optimizer):
            new_total, penalty_total, batches = 0.0, 0.0, task.train.batches(self.config.batch_size)
            for x, y in batches:
                loss = F.cross_entropy(self.net(x)[:, :task.seen], y)
                optimizer.zero_grad()
                loss.backward()
                if pulled:
                    penalty_total += quadratic.add_gradient(self.config.strength)
                optimizer.step()
                new_total += loss.detach()
            new, penalty = new_total / len(batches), penalty_total / len(batches)
            trace("loss", epoch=epoch, loss=new + penalty, new=new, penalty=penalty)
        self.importance = self.importance + self.sensitivity(task)

    def sensitivity(self, task):
        """How much each weight affects the outputs for the task's images, (P,)."""
        mode = self.net.training
        self.net.eval()
        found = self.of_images(task) if self.config.per_image else self.of_batches(task)
        self.net.train(mode)
        return found

    def of_batches(self, task):
        """Mean over batches of the absolute gradient of the mean squared output, (P,)."""
        total, batches = torch.zeros_like(self.importance), task.train.batches(self.config.batch_size)
        for x, _ in batches:
            size = self.net(x)[:, :task.seen].square().mean()
            gradients = torch.autograd.grad(size, list(self.net.parameters()))
            total += parameters_to_vector(gradients).abs()
        return total / len(batches)

    def of_images(self, task):
        """Mean over images of the absolute gradient of the squared norm of the outputs, (P,)."""
        total = sum_over_set(torch.abs, self.net, task.train, task.seen, lambda logits, y: [2 * logits])
        return total / len(task.train)

    def forward(self, x):
        return self.net(x)                                                      # (B, K)
