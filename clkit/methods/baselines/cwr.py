"""CWR, CWR+: a head whose rows are copied aside when their task is over, on a body that learns one task.

    python -m clkit run cwr-plus/cifar10-100 --preset laptop   # 21.58 % (one seed), 7 minutes

Lomonaco and Maltoni 2017 (CWR), Maltoni and Lomonaco 2019 (CWR+). tw: temporary weights of the head; cw:
consolidated ones.

    CWR(tasks):  cw <- 0;  for each task t = 1, 2, ...:
        tw <- random, or 0 in CWR+;  from t = 2 on the body is held still               CWR.begin
        minimise cross-entropy on D_t:  of body and tw if t = 1, else of tw alone       CWR.learn
        for each class j of t:  cw[j] <- w_t tw[j],  or  tw[j] - avg(tw) in CWR+        CWR.consolidate
    a test image is scored by cw on the features of the body                            CWR.forward

Details the papers leave open
1. Which outputs share the softmax while tw learns. softmax="task" is the text, where the model learns the
   classes of the task (one of a single class has nothing to learn); "seen" the pseudo-code, where the head
   grows; "all" the authors' released code, which has all outputs from the start.
2. That choice decides what the mean-shift of CWR+ can do. The gradients of a cross-entropy add up to zero
   over its outputs, so among the task's own classes plain SGD from zero keeps avg(tw) at zero, and with two
   classes so does Adam: nothing is left to take off. With softmax="all" a task pushes its own rows up and all
   others down, and the shift takes that back.
3. avg(tw) is one number, the mean over all weights of the task's rows, and likewise one of their biases. The
   authors' code does the same with the weights; it does not train the biases of CWR+, we do.
4. w_t. The released code has a factor for the first task, 1 to 1.5 depending on the network, and 1 for all
   others: first_weight. A factor common to all tasks would not change a prediction. It multiplies weights and
   biases, so that logits grow as a whole; the authors' code leaves the biases.
5. The random start of tw. CWR draws anew for each task; in the first one the head is new anyway and is left
   as it is, which makes that task the same as in Finetune. The authors' code goes back to its first draw.
6. "Held still" includes batch normalisation: from the second task on the body normalises by the running
   statistics of the first.
7. Within a task the logits are those of cw, so the task's own classes score 0 until it is over.

Records: table "loss" (epoch, loss: mean cross-entropy of the epoch).
Keeps between tasks: the weights, with the head twice (of which tw is overwritten by the next task).
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
    """Defaults: CWR for tasks of one size; network and budget as for Finetune."""

    plus: bool = False          # CWR+: tw begins at zero, and its mean is taken off before it is copied
    softmax: Literal["task", "seen", "all"] = "task"    # whose outputs are trained against each other
    first_weight: float = 1.0   # w_1 of CWR: factor of the first task's rows; w_t = 1 for all later ones
    net: str = "mlp"            # network, by its name in clkit.blocks.nets
    epochs: int = 20            # passes over the images of a task
    batch_size: int = 128       # images in a step
    lr: float = 1e-3            # learning rate of Adam

    def __post_init__(self):
        check_config(self, above_0="first_weight lr")
        if self.plus and self.first_weight != 1:
            raise LearnerError("first_weight belongs to CWR: leave it at 1 where plus is set")


class CWR(Learner):
    """Copy weights with re-initialisation."""

    tables = {"loss": "one row an epoch: epoch, loss"}

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
        """Make tw new and, from the second task on, hold everything else still."""
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
