"""EWC-M: a conditional GAN whose weights are held by EWC, without replay to itself (Seff et al. 2017).

    python -m clkit run ewc-m/digits-10 --preset teach

    EWC-M(tasks): for each task t:
        D <- new weights, a row for each class seen                                        Critic.grow
        for each epoch:
            X_c <- G(z, c) for each old class c, from the present G                        old_images
            for each batch (x, y) of D_t:
                D: steps on CE of (x, y) and of images of X_c                              classify
                D: step on  E D(G(z, y)) - E D(x) + lambda_GP (|grad D| - 1)^2             criticise
                G: step on  -E D(G(z, y)) + CE(D(G(z, y)), y)
                   + lambda/2 sum_j F_j (theta_j - theta*_j)^2                             EWCM.generate
        theta* <- theta;  F <- F + mean over z of (d L_G(z, y) / d theta)^2, y of task t   EWCM.fisher

Details the paper leaves open
1. The protocol of D, the optimizers and all counts of steps are those of DGM, with which the method is
   compared. The generator is MeRGAN's.
2. One penalty holds G near its weights at the end of the last task; its importance is the sum of those of all
   old tasks. Terms with a centre for each task would pull towards weights that G has left for later classes.
3. L_G is G's own loss on one image, without the penalty. Networks are in eval mode, and squares are those of
   single images' gradients, over fisher_images new images of the classes of the task.
4. Scales, shifts and running statistics of the batch normalisation belong to a class. Other classes do not
   move them, so EWC holds the weights that classes share.
5. G sees no old image. D needs some, and takes them from G as it is at the start of the epoch.

Records: tables "loss", "progress" and "generated" (see `tables`).
Keeps between tasks: the weights of G and D, and the importance of each weight of G.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch.func import functional_call, grad, vmap
from torch.nn import functional as F

from clkit.blocks.gan import (
    ConditionalGenerator,
    Critic,
    Replay,
    adam,
    classify,
    criticise,
    finite,
    generator_loss,
    labels_to_recall,
    old_images,
    own_gradients,
    signed,
)
from clkit.blocks.quadratic import QuadraticPenalty
from clkit.engine.evaluate import in_eval_mode
from clkit.engine.learner import Learner, check_config

REVISION = 1


@dataclass(frozen=True)
class Config:
    """Defaults: MNIST in DGM's protocol, with MeRGAN's generator."""

    strength: float = 1e5       # lambda; at 0 G is trained on without protection
    fisher_images: int = 256    # images that the importance is measured on
    penalty: float = 1.0        # lambda_GP: weight of the gradient penalty
    auxiliary: float = 1.0      # weight of the classification term in G's loss
    nz: int = 128               # entries of z
    g_width: int = 32           # maps of G's last hidden layer; 2 and 4 times before it
    d_width: int = 32           # maps of D's first convolution
    d_norm: bool = True         # batch normalisation in D
    anew: bool = True           # D is drawn anew in each task
    steps: Literal["chunks", "pooled"] = "chunks"       # of the classifier in an iteration, one a task or one
    replay: bool = True         # whether D learns images of old classes
    epochs: int = 101           # passes over the images of a task
    batch_size: int = 64        # images of each task in an iteration
    lr: float = 2e-3            # learning rate of both Adams

    def __post_init__(self):
        check_config(self, above_0="lr")


class EWCM(Learner):
    """Elastic weight consolidation of a conditional generator."""

    tables = {
        "loss": "one row per epoch: epoch, loss (cross-entropy), critic, penalty (its mean), generator, pull "
                "(the term of EWC)",
        "progress": "one row per epoch, after it: epoch; a place for probes",
        "generated": "one row per task: accuracy (K,), judge, images (K, 8, C, S, S), from a probe",
    }
    memory_kinds = {"generator": "generators", "importance": "importance"}

    def __init__(self, config, shape, classes):
        super().__init__(config, shape, classes)
        self.generator = ConditionalGenerator(shape, config.nz, classes, config.g_width)
        self.critic = Critic(shape, config.d_width, config.d_norm)
        size = sum(p.numel() for p in self.generator.parameters())              # P
        self.register_buffer("importance", torch.zeros(size, device="cpu"))     # (P,) F
        self.register_buffer("ends", torch.zeros(0, dtype=torch.int64, device="cpu"))   # classes seen by task

    # -- learning

    def learn(self, task, trace):
        config, real = self.config, task.train
        each = len(real) // (task.seen - task.first)
        pulled = QuadraticPenalty(self.generator, self.importance) if task.first and config.strength else None
        self.critic.grow(task.seen, config.anew or not task.first)
        optimizer_g = adam(self.generator.parameters(), config.lr)
        optimizer_d = adam(self.critic.parameters(), config.lr)
        batches = real.batches(config.batch_size)
        for epoch in trace.epochs("generator and classifier", config.epochs, optimizer_d, optimizer_g):
            old = Replay(old_images(self.generator, self.ends, each) if config.replay else [])
            old.shuffle()
            total = 0.0
            for b, index in enumerate(batches.indices()):
                x, y = signed(real.images[index]), real.labels[index]
                pool = old.pool(x, y, b * config.batch_size)
                size = len(y) if config.steps == "chunks" else len(pool[1])
                loss = classify(self.critic, optimizer_d, *pool, size)
                with torch.no_grad():
                    fake = self.generator(self.generator.noise(len(y)), y)      # (B, C, S, S)
                critic = criticise(self.critic, optimizer_d, x, fake, config.penalty)
                total += torch.stack([loss, *critic, *self.generate(optimizer_g, y, pulled)])
            names = ("loss", "critic", "penalty", "generator", "pull")
            trace("loss", epoch=epoch, **finite(dict(zip(names, total / len(batches))), task, epoch))
            trace("progress", epoch=epoch)
        self.importance = self.importance + self.fisher(task.first, task.seen)
        self.ends = torch.cat([self.ends, self.ends.new_tensor([task.seen])])
        trace("generated")

    def generate(self, optimizer, y, pulled):
        """A step of G on images of classes y; (its loss, the term of EWC in it), before it."""
        fake = self.generator(self.generator.noise(len(y)), y)                  # (B, C, S, S)
        loss = generator_loss(self.critic, fake, y, self.config.auxiliary)
        own_gradients(optimizer, loss)
        pull = torch.zeros((), device=y.device)
        if pulled is not None:
            pull = pulled.add_gradient(self.config.strength / 2)
        optimizer.step()
        return loss.detach() + pull, pull

    def fisher(self, first, seen):
        """Mean square of the gradient of G's loss, over new images of the classes [first, seen): (P,)."""
        n = self.config.fisher_images
        labels = first + torch.arange(n, device=self.importance.device) % (seen - first)
        total = torch.zeros_like(self.importance)
        with in_eval_mode(self):
            for part in labels.split(32):
                total += self.squares(self.generator.noise(len(part)), part)
        return total / n

    def squares(self, z, labels):
        """Sum over images of the squared gradients of G's loss, z (B, nz), labels (B,): (P,)."""
        image = self.generator(z, labels).detach().requires_grad_()             # (B, C, S, S)
        value, logits = self.critic(image)
        loss = self.config.auxiliary * F.cross_entropy(logits, labels, reduction="sum") - value.sum()
        error, = torch.autograd.grad(loss, image)
        parameters = {name: p.detach() for name, p in self.generator.named_parameters()}

        def along(parameters, z, label, error):
            drawn = functional_call(self.generator, parameters, (z[None], label[None]))
            return (drawn[0] * error).sum()

        found = vmap(grad(along), in_dims=(None, 0, 0, 0))(parameters, z, labels, error)
        return torch.cat([found[name].square().sum(0).flatten() for name in parameters])

    # -- answers

    def forward(self, x):
        return self.critic(2 * x - 1)[1]                                        # (B, classes seen)

    def recall(self, n, label=None):
        """n images (n, C, S, S) in [0, 1] and their classes (n,): of all in turn, or of one of them."""
        labels = labels_to_recall(n, label, self.ends)
        return self.generator.draw(labels) / 2 + 0.5, labels
