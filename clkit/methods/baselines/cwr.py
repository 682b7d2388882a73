"""CWR, CWR+: a head whose rows are copied aside after each task, on a body that learns the first task only.

    python -m clkit run cwr-plus/cifar10-100 --preset laptop   # 21.58 % (one seed), 7 minutes

Lomonaco and Maltoni 2017 (CWR), Maltoni and Lomonaco 2019 (CWR+). tw: temporary weights of the head; cw:
consolidated weights.

    CWR(tasks):  cw <- 0;  for each task t = 1, 2, ...:
        tw <- random, or 0 in CWR+;  from t = 2 on the body is frozen                   CWR.begin
        minimise cross-entropy on D_t:  over body and tw if t = 1, else over tw alone   CWR.learn
        for each class j of t:  cw[j] <- w_t tw[j],  or  tw[j] - avg(tw) in CWR+        CWR.consolidate
    logits of a test image: cw applied to the features of the body                      CWR.forward

Details the papers leave open
1. Which outputs share the softmax while tw learns. softmax="task" follows the text, where the model learns
   the classes of the task (a task with a single class has nothing to learn); "seen" follows the pseudo-code,
   where the head grows; "all" follows the authors' released code, which has all outputs from the start.
2. That choice decides what the mean shift of CWR+ can do. The gradients of a cross-entropy with respect to
   its outputs sum to zero. So among the task's own classes plain SGD from zero keeps avg(tw) at zero, and
   with two classes so does Adam: nothing is left to subtract. With softmax="all" a task pushes its own rows
   up and all others down, and the shift undoes that.
3. avg(tw) is one number, the mean over all weights in the task's rows; the biases have their own mean. The
   authors' code treats the weights in the same way; it does not train the biases of CWR+, but we do.
4. w_t. The released code has a factor for the first task, 1 to 1.5 depending on the network, and 1 for all
   others: first_weight. A factor common to all tasks would not change any prediction. Ours multiplies weights
   and biases, so that it scales the logits as a whole; the authors' code leaves the biases unchanged.
5. The random start of tw. CWR draws new values for each task; in the first task the head is new anyway and is
   left as it is, so that this task is the same as in Finetune. The authors' code returns to its first draw.
6. Freezing includes batch normalisation: from the second task on, the body normalises with the running
   statistics of the first.
7. During a task the logits are those of cw, so the task's own classes score 0 until it ends.

Records: table "loss" (epoch, loss: mean cross-entropy of the epoch).
Keeps between tasks: the weights, with two copies of the head (the next task overwrites tw).
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch.nn import functional as F

from clkit.blocks import nets
from clkit.engine.learner import Learner, LearnerError, check_config

REVISION = 1


@dataclass(frozen=True)
class Config:
    """Defaults: CWR for tasks of equal size; network and budget as for Finetune."""

    plus: bool = False          # CWR+: tw starts at zero, and its mean is subtracted before it is copied
    softmax: Literal["task", "seen", "all"] = "task"    # which outputs share the softmax (detail 1)
    first_weight: float = 1.0   # w_1 of CWR: factor for the first task's rows; w_t = 1 for all later ones
    net: str = "mlp"            # network, by its name in clkit.blocks.nets
    epochs: int = 20            # passes over the images of a task
    batch_size: int = 128       # images per step
    lr: float = 1e-3            # learning rate of Adam

    def __post_init__(self):
        check_config(self, above_0="first_weight lr")
        if self.plus and self.first_weight != 1:
            raise LearnerError("first_weight applies to CWR only: leave it at 1 when plus is set")


class CWR(Learner):
    """Copy weights with re-initialisation."""

    tables = {"loss": "one row per epoch: epoch, loss"}

    def __init__(self, config, shape, classes):
        super().__init__(config, shape, classes)
        self.net = nets.build(config.net, shape, classes)                       # its head is tw
        self.register_buffer("cw", torch.zeros_like(self.net.head.weight))      # (K, D)
        self.register_buffer("cw_bias", torch.zeros_like(self.net.head.bias))   # (K,)

    def learn(self, task, trace):
        self.begin(task)
        outputs, learning = self.outputs(task), [p for p in self.net.parameters() if p.requires_grad]
        optimizer = torch.optim.Adam(learning, lr=self.config.lr, fused=True)
        for epoch in trace.epochs("classifier", self.config.epochs, optimizer):
            total, batches = 0.0, task.train.batches(self.config.batch_size)
            for x, y in batches:
                loss = F.cross_entropy(self.net(x)[:, outputs], y - outputs.start)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                total += loss.detach()
            trace("loss", epoch=epoch, loss=total / len(batches))
        self.consolidate(task)

    @torch.no_grad()
    def begin(self, task):
        """Reset tw and, from the second task on, freeze everything else."""
        head = self.net.head
        if task.first:
            self.net.requires_grad_(False).eval()
            head.requires_grad_(True)
        if self.config.plus:
            head.weight.zero_()
            head.bias.zero_()
        elif task.first:
            head.reset_parameters()

    def outputs(self, task):
        """The outputs that share the softmax, as a slice."""
        first = task.first if self.config.softmax == "task" else 0
        return slice(first, self.classes if self.config.softmax == "all" else task.seen)

    @torch.no_grad()
    def consolidate(self, task):
        """Copy the rows of the task's classes from tw to cw."""
        rows, factor = slice(task.first, task.seen), 1.0 if task.first else self.config.first_weight
        for consolidated, trained in ((self.cw, self.net.head.weight), (self.cw_bias, self.net.head.bias)):
            new = trained[rows]                                                 # (classes of t, D) or (.,)
            consolidated[rows] = new - new.mean() if self.config.plus else new * factor

    def forward(self, x):
        return F.linear(self.net.features(x), self.cw, self.cw_bias)            # (B, K)
