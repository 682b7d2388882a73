"""MAS: memory aware synapses, importance as what a weight does to the outputs (Aljundi et al. 2018).

    MAS(tasks): for each task t:
        minimise CE(f(x), y)                                 on the images of the task           MAS.learn
               + lambda sum_j Omega_j (theta_j - theta*_j)^2                                     MAS.penalise
        theta* <- theta
        Omega <- Omega + mean over D_t of |d ||f(x)||^2 / d theta|      (no labels)       MAS.sensitivity

Details the paper leaves open
1. per_image=True is the paper's mean: the gradient of the squared norm of the outputs (a sum over classes) of
   one image, its absolute value, then the mean over images. per_image=False is what Hsu et al. (2018) do: the
   gradient of the mean of the squared outputs, over the images of a batch and over the classes seen, its
   absolute value, then the mean over batches, in which a smaller last one counts as much as the others. The
   gradients of a batch cancel in part, and the number of classes divides them: each way has its own strength.
2. In a fully connected network the gradient of one image is delta h^T and its absolute value |delta| |h|^T,
   so that the paper's mean takes two products of matrices a layer (`sizes_of_layers`). Other networks go
   image by image (`sizes_of_images`).
3. Only the outputs of the classes seen count. Outputs are taken before the softmax, in eval mode.
4. Omega is summed over tasks and theta* is that of the last one (as in Hsu et al.).
5. The batches of per_image=False are drawn anew once the task is learnt: in stored order they may hold one
   class each, whose gradients cancel less.
6. The penalty has no factor 1/2: its gradient is 2 lambda Omega (theta - theta*). It is added to that of the
   loss by hand, after backward().

Records: table "loss" (epoch, loss, new, penalty: means over the epoch of the whole objective and of its two
terms).
Keeps between tasks: the weights and for each of them its importance. theta* is what the weights are when the
next task begins.
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
    """Defaults: split MNIST in Hsu et al. (2018)."""

    net: str = "mlp"            # network: mlp, convnet or resnet18 (clkit.nets)
    strength: float = 1.0       # lambda; at 0 this is Finetune
    per_image: bool = False     # importance of single images, as in the paper; False: of batches (detail 1)
    epochs: int = 4             # passes over the images of a task
    batch: int = 128            # images in a step, and in a batch that importance is measured on
    lr: float = 1e-3            # learning rate of Adam

    def __post_init__(self):
        if not self.strength >= 0:
            raise LearnerError("strength must not be negative")
        if self.epochs < 1 or self.batch < 1 or not self.lr > 0:
            raise LearnerError("epochs and batch must be at least 1, and lr above 0")


class MAS(Learner):
    """Memory aware synapses."""

    tables = {"loss": "one row an epoch: epoch, loss, new (cross-entropy), penalty"}
    memory_kinds = {"importance": "importance"}

    def __init__(self, config, shape, classes):
        super().__init__(config, shape, classes)
        self.net = nets.build(config.net, shape, classes)
        size = sum(p.numel() for p in self.net.parameters())                    # P
        self.register_buffer("importance", torch.zeros(size, device="cpu"))     # (P,) Omega

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
        self.importance = self.importance + self.sensitivity(task)

    @torch.no_grad()
    def terms(self):
        """[(parameter, its importance, a copy of it as it is now), ...] in the parameters' shapes."""
        parameters = list(self.net.parameters())
        parts = self.importance.split([p.numel() for p in parameters])
        return [(p, part.view_as(p), p.detach().clone()) for p, part in zip(parameters, parts)]

    @torch.no_grad()
    def penalise(self, terms):
        """Add the gradient of the penalty to the one that is there, and return the penalty, a scalar."""
        total = 0.0
        for parameter, importance, before in terms:
            gap = parameter - before
            parameter.grad.addcmul_(importance, gap, value=2 * self.config.strength)
            total = total + importance.flatten() @ gap.square_().flatten()
        return self.config.strength * total

    def sensitivity(self, task):
        """How much each weight matters to the outputs for the task's images, (P,)."""
        mode = self.net.training
        self.net.eval()
        found = self.of_images(task) if self.config.per_image else self.of_batches(task)
        self.net.train(mode)
        return found

    def of_batches(self, task):
        """Mean over batches of the absolute gradient of the mean squared output, (P,)."""
        total, batches = torch.zeros_like(self.importance), task.train.batches(self.config.batch)
        for x, _ in batches:
            size = self.net(x)[:, :task.seen].square().mean()
            gradients = torch.autograd.grad(size, list(self.net.parameters()))
            total += parameters_to_vector(gradients).abs()
        return total / len(batches)

    @torch.no_grad()
    def of_images(self, task):
        """Mean over images of the absolute gradient of the squared norm of the outputs, (P,)."""
        plain, total = isinstance(self.net, nets.MLP), torch.zeros_like(self.importance)
        sizes = sizes_of_layers if plain else sizes_of_images
        for x, _ in task.train.batches(1000 if plain else 32, shuffle=False):
            total += sizes(self.net, x, task.seen)
        return total / len(task.train)

    def forward(self, x):
        return self.net(x)                                                      # (B, K)


def sizes_of_layers(net, x, seen):
    """Absolute gradients of ||f(x)||^2, summed over the images x, for a fully connected ReLU network.

    x: (B, C, H, W); seen: how many outputs count.   Returns (P,), in the parameters' order.
    """
    inputs = [x.flatten(1)]                                                     # of each layer, (B, D)
    for layer in net.hidden:
        inputs.append(F.relu(layer(inputs[-1])))
    scores = net.head(inputs[-1])                                               # (B, K)
    error, parts = F.pad(2 * scores[:, :seen], (0, scores.shape[1] - seen)), []
    for layer, h in zip((net.head, *reversed(net.hidden)), reversed(inputs)):
        size = error.abs()                                                      # (B, D of the outputs)
        parts = [(size.T @ h.abs()).flatten(), size.sum(0), *parts]
        error = error @ layer.weight * (h > 0)
    return torch.cat(parts)


def sizes_of_images(net, x, seen):
    """The same for any network, by one backward pass an image: x (B, C, H, W) -> (P,)."""
    parameters = {name: p.detach() for name, p in net.named_parameters()}

    def squared_norm(parameters, image):
        return functional_call(net, parameters, (image[None],))[0, :seen].square().sum()

    gradients = vmap(grad(squared_norm), in_dims=(None, 0))(parameters, x)      # name -> (B, *its shape)
    return torch.cat([gradients[name].abs().sum(0).flatten() for name in parameters])
