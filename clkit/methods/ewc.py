"""EWC: elastic weight consolidation (Kirkpatrick et al. 2017), and its online form (Schwarz et al. 2018).

    EWC(tasks): for each task t:
        minimise CE(f(x), y)                                 on the images of the task       EWC.learn
               + lambda/2 sum_i sum_j F_ij (theta_j - theta*_ij)^2    i < t         eq. 3    EWC.penalise
        theta*_t <- theta
        F_t <- mean over D_t of (d log p(y | x) / d theta)^2          diagonal Fisher        EWC.fisher
    online: one term for all old tasks, gamma F~_(t-1) around theta*_(t-1), with F~_t = F_t + gamma F~_(t-1)
                                                                                             EWC.consolidate

Details the papers leave open
1. The label y in F. "predicted": the class the network itself finds likeliest, as in van de Ven and Tolias
   (2019). "expected": all classes, each with the probability the network gives it, which is the Fisher
   information. "label": the true one (the empirical Fisher). Where training images are fitted well, the three
   are small in different ways: choose the strength anew when you change it.
2. F is of single images, never of batches: the square of a mean gradient is something else. In a fully
   connected network the gradient of one image is delta h^T, its square delta^2 (h^2)^T, so that F takes two
   products of matrices a layer (`squares_of_layers`); other networks go image by image (`squares_of_images`).
   We divide by the number of images.
3. F is measured in eval mode, over the softmax of the classes seen, on all images of the task or on
   fisher_images of them drawn at random.
4. The sum over old tasks is one quadratic: sum_i F_i (theta - theta*_i)^2 = A (theta - m)^2 + rest, with A =
   sum_i F_i and m = sum_i F_i theta*_i / A. The paper keeps a pair F_i, theta*_i for every task; we keep A, m
   and the number `rest`: same value, same gradient, and the cost does not grow with the tasks. We do not form
   A theta - sum_i F_i theta*_i, whose rounding errors, times a lambda of 1e8, are no longer small.
5. The gradient of the penalty is added to that of the loss by hand, after backward().
6. Biases, and the outputs of classes to come, are parameters like any other (theirs is F = 0).

Records: table "loss" (epoch, loss, new, penalty: means over the epoch of the whole objective and of its two
terms).
Keeps between tasks: the weights and, for each of them, its importance and its centre m; online the importance
only, since theta* is then what the weights are when the next task begins.
"""

from dataclasses import dataclass

import torch
from torch.func import functional_call, grad, vmap
from torch.nn import functional as F
from torch.nn.utils import parameters_to_vector

from clkit import nets
from clkit.learner import Learner, LearnerError


@dataclass(frozen=True)
class Config:
    """Defaults: split MNIST in van de Ven and Tolias (2019), where online EWC has strength 1e9."""

    net: str = "mlp"            # network: mlp, convnet or resnet18 (clkit.nets)
    online: bool = False        # one term with a memory that fades, instead of one a task
    strength: float = 1e8       # lambda; at 0 this is Finetune
    gamma: float = 0.8          # online only: what a task leaves of the importance of those before it
    fisher: str = "predicted"   # label in the Fisher information: predicted, expected or label (detail 1)
    fisher_images: int | None = None  # images it is measured on, drawn at random; None: all of the task
    epochs: int = 20            # passes over the images of a task
    batch: int = 128            # images in a step
    lr: float = 1e-3            # learning rate of Adam

    def __post_init__(self):
        if self.fisher not in ("predicted", "expected", "label"):
            raise LearnerError(f"fisher must be 'predicted', 'expected' or 'label', not {self.fisher!r}")
        if self.fisher_images is not None and self.fisher_images < 1:
            raise LearnerError("fisher_images must be at least 1, or None for all images of a task")
        if not self.strength >= 0 or not 0 <= self.gamma <= 1:
            raise LearnerError("strength must not be negative, and gamma must lie between 0 and 1")
        if self.epochs < 1 or self.batch < 1 or not self.lr > 0:
            raise LearnerError("epochs and batch must be at least 1, and lr above 0")


class EWC(Learner):
    """Elastic weight consolidation, with one term a task or online."""

    tables = {"loss": "one row an epoch: epoch, loss, new (cross-entropy), penalty"}
    memory_kinds = {"importance": "importance", "rest": "importance", "centre": "old copies"}

    def __init__(self, config, shape, classes):
        super().__init__(config, shape, classes)
        self.net = nets.build(config.net, shape, classes)
        size = sum(p.numel() for p in self.net.parameters())                    # P
        centre = torch.zeros(0 if config.online else size, device="cpu")
        self.register_buffer("importance", torch.zeros(size, device="cpu"))     # (P,) A, online F~
        self.register_buffer("centre", centre)                                  # (P,) m
        self.register_buffer("rest", torch.zeros((), device="cpu"))             # of the sum where theta = m

    def learn(self, task, trace):
        terms = self.terms()
        pulled = task.first > 0 and self.config.strength > 0
        optimizer = torch.optim.Adam(self.net.parameters(), lr=self.config.lr, fused=True)
        for epoch in trace.epochs("classifier", self.config.epochs, optimizer):
            new_total, penalty_total, batches = 0.0, 0.0, task.train.batches(self.config.batch)
            for x, y in batches:
                loss = F.cross_entropy(self.net(x)[:, :task.seen], y)
                optimizer.zero_grad()
                loss.backward()
                if pulled:
                    penalty_total += self.penalise(terms)
                optimizer.step()
                new_total += loss.detach()
            new, penalty = new_total / len(batches), penalty_total / len(batches)
            trace("loss", epoch=epoch, loss=new + penalty, new=new, penalty=penalty)
        self.consolidate(self.fisher(task))

    @torch.no_grad()
    def terms(self):
        """[(parameter, its importance, its centre), ...]: views on the buffers, in the parameters' shapes."""
        parameters = list(self.net.parameters())
        centre = parameters_to_vector(parameters) if self.config.online else self.centre
        sizes = [p.numel() for p in parameters]
        return [(p, a.view_as(p), m.view_as(p))
                for p, a, m in zip(parameters, self.importance.split(sizes), centre.split(sizes))]

    @torch.no_grad()
    def penalise(self, terms):
        """Add the gradient of the penalty to the one that is there, and return the penalty, a scalar."""
        strength = self.config.strength * (self.config.gamma if self.config.online else 1.0)
        total = self.rest
        for parameter, importance, centre in terms:
            gap = parameter - centre
            parameter.grad.addcmul_(importance, gap, value=strength)
            total = total + importance.flatten() @ gap.square_().flatten()
        return strength / 2 * total

    @torch.no_grad()
    def fisher(self, task):
        """The diagonal of the Fisher information of the task's images, (P,)."""
        images, mode = task.train, self.net.training
        if self.config.fisher_images is not None:
            pick = torch.randperm(len(images), device=images.device)[:self.config.fisher_images]
            images = images.like(images.images[pick], images.labels[pick])
        plain = isinstance(self.net, nets.MLP)
        squares = squares_of_layers if plain else squares_of_images
        total = torch.zeros_like(self.importance)
        self.net.eval()
        for x, y in images.batches(1000 if plain else 32, shuffle=False):
            scores = self.net(x)                                                # (B, K)
            for error in self.errors(scores[:, :task.seen], y):                 # (B, seen)
                total += squares(self.net, x, F.pad(error, (0, scores.shape[1] - task.seen)))
        self.net.train(mode)
        return total / len(images)

    def errors(self, scores, y):
        """Gradients of -log p in the scores, for each label that counts: scores (B, K), y (B,) -> (R, B, K).

        Where all classes count, each gradient is scaled by the root of its class's probability, so that the
        squares add up to the expectation.
        """
        p, classes = F.softmax(scores, 1), scores.shape[1]
        if self.config.fisher == "expected":
            one_hot = torch.eye(classes, dtype=p.dtype, device=p.device)
            return p.T[:, :, None].sqrt() * (p - one_hot[:, None])              # (K, B, K)
        label = y if self.config.fisher == "label" else scores.argmax(1)
        return (p - F.one_hot(label, classes))[None]                            # (1, B, K)

    @torch.no_grad()
    def consolidate(self, fisher):
        """Take the weights as they are, with their Fisher information (P,), into the penalty to come."""
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


def squares_of_layers(net, x, error):
    """Squared gradients of single images, summed over the images, for a fully connected ReLU network.

    x: (B, C, H, W); error: (B, K), the gradient in the scores.   Returns (P,), in the parameters' order.
    """
    inputs = [x.flatten(1)]                                                     # of each layer, (B, D)
    for layer in net.hidden:
        inputs.append(F.relu(layer(inputs[-1])))
    parts = []
    for layer, h in zip((net.head, *reversed(net.hidden)), reversed(inputs)):
        squared = error.square()                                                # (B, D of the outputs)
        parts = [(squared.T @ h.square()).flatten(), squared.sum(0), *parts]
        error = error @ layer.weight * (h > 0)
    return torch.cat(parts)


def squares_of_images(net, x, error):
    """The same for any network, by one backward pass an image: x (B, C, H, W), error (B, K) -> (P,)."""
    parameters = {name: p.detach() for name, p in net.named_parameters()}

    def along(parameters, image, error):
        return functional_call(net, parameters, (image[None],))[0] @ error

    gradients = vmap(grad(along), in_dims=(None, 0, 0))(parameters, x, error)   # name -> (B, *its shape)
    return torch.cat([gradients[name].square().sum(0).flatten() for name in parameters])
