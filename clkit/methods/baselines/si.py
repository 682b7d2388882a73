"""SI: synaptic intelligence, importance accumulated along the training path (Zenke, Poole and Ganguli 2017).

    python -m clkit run si/split-mnist --preset paper       # 20.00 +- 0.17 %, 4 minutes per seed
    python -m clkit run si/split-fashion --preset paper     # 19.96 +- 0.02 %, 4 minutes

    SI(tasks): for each task t:
        theta~ <- theta;  omega <- 0
        for each step:
            g <- gradient of CE(f(x), y)                     on images of the task           SI.learn
            minimise CE + c sum_j Omega_j (theta~_j - theta_j)^2                eq. 4        QuadraticPenalty
            omega <- omega - g * (change of theta in this step)                 eq. 3        SI.note, follow
        Omega <- Omega + omega / ((theta - theta~)^2 + xi)                      eq. 5        SI.learn

Details the paper leaves open
1. The gradient g is that of the loss without the penalty, as in the paper's definition of omega, although the
   step follows both. The code of van de Ven and Tolias (2019), whose strength is our default, uses the
   gradient of their sum.
2. The change of theta is what the optimizer actually did, with its momentum, not a learning rate times g. So
   a weight can be carried uphill, and omega and even Omega can be negative; we leave them as they are, as eq.
   5 and van de Ven and Tolias do. The authors' own code sets a negative Omega to 0.
3. With small batches the noise in g enters twice, in g and in the step that it causes, so that the sum of
   omega exceeds the decrease of the loss.
4. The penalty has no factor 1/2: its gradient is 2 c Omega (theta - theta~). It is added to that of the loss
   by hand, after backward().

Records: table "loss" (epoch, loss, new, penalty: means over the epoch of the objective and its two terms).
Keeps between tasks: the weights and the importance of each. theta~ equals the weights at the start of a task,
and omega exists only during a task.
"""

from dataclasses import dataclass

import torch
from torch.nn import functional as F
from torch.nn.utils import parameters_to_vector

from clkit.blocks import nets
from clkit.blocks.quadratic import QuadraticPenalty, split_like
from clkit.engine.learner import Learner, check_config

REVISION = 1


@dataclass(frozen=True)
class Config:
    """Defaults: split MNIST in van de Ven and Tolias (2019)."""

    net: str = "mlp"            # network: mlp, convnet or resnet18 (clkit.blocks.nets)
    strength: float = 0.5       # c; at 0 this is Finetune
    damping: float = 0.1        # xi, limits the importance of a weight that hardly moved
    epochs: int = 20            # passes over the images of a task
    batch_size: int = 128       # images per step
    lr: float = 1e-3            # learning rate of Adam

    def __post_init__(self):
        check_config(self, above_0="damping lr")


class SI(Learner):
    """Synaptic intelligence."""

    tables = {"loss": "one row per epoch: epoch, loss, new (cross-entropy), penalty"}
    memory_kinds = {"importance": "importance", "path": "importance"}

    def __init__(self, config, shape, classes):
        super().__init__(config, shape, classes)
        self.net = nets.build(config.net, shape, classes)
        size = sum(p.numel() for p in self.net.parameters())                    # P
        self.register_buffer("importance", torch.zeros(size, device="cpu"))     # (P,) Omega
        self.register_buffer("path", torch.zeros(0, device="cpu"))              # (P,) omega, during a task

    def learn(self, task, trace):
        parameters = list(self.net.parameters())
        start = parameters_to_vector(parameters).detach()                       # (P,) theta~
        self.path = torch.zeros_like(start)
        path = split_like(self.path, parameters)
        before = [(torch.empty_like(p), torch.empty_like(p)) for p in parameters]  # overwritten at each step
        quadratic = QuadraticPenalty(self.net, self.importance, start)
        pulled = task.first > 0 and self.config.strength > 0
        optimizer = torch.optim.Adam(self.net.parameters(), lr=self.config.lr, fused=True)
        for epoch in trace.epochs("classifier", self.config.epochs, optimizer):
            new_total, penalty_total, batches = 0.0, 0.0, task.train.batches(self.config.batch_size)
            for x, y in batches:
                loss = F.cross_entropy(self.net(x)[:, :task.seen], y)
                optimizer.zero_grad()
                loss.backward()
                self.note(parameters, before)
                if pulled:
                    penalty_total += quadratic.add_gradient(self.config.strength)
                optimizer.step()
                self.follow(parameters, before, path)
                new_total += loss.detach()
            new, penalty = new_total / len(batches), penalty_total / len(batches)
            trace("loss", epoch=epoch, loss=new + penalty, new=new, penalty=penalty)
        change = parameters_to_vector(parameters).detach() - start
        self.importance = self.importance + self.path / (change.square() + self.config.damping)
        self.path = self.path.new_zeros(0)

    @staticmethod
    @torch.no_grad()
    def note(parameters, before):
        """Copy values and gradients of the parameters into `before`: [(value, gradient), ...]."""
        for parameter, (value, gradient) in zip(parameters, before):
            value.copy_(parameter)
            gradient.copy_(parameter.grad)

    @staticmethod
    @torch.no_grad()
    def follow(parameters, before, path):
        """Credit each weight with the decrease of the loss in its step, to first order; overwrites `before`.

        path: views of omega in the parameters' shapes, to which the credit is added.
        """
        for parameter, (value, gradient), credit in zip(parameters, before, path):
            credit.addcmul_(gradient, value.sub_(parameter))

    def forward(self, x):
        return self.net(x)                                                      # (B, K)
