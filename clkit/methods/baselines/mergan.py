"""MeRGAN: a conditional GAN that replays its own images to itself (Wu et al. 2018).

    python -m clkit run mergan/digits-10 --preset teach         # joint replay (MeRGAN-JTR)
    python -m clkit run mergan-align/digits-10 --preset teach   # replay alignment (MeRGAN-RA)

    MERGAN(tasks): for each task t:
        G* <- G;  X_c <- G*(z, c) for each old class c                                     old_images
        D <- new weights, a row for each class seen                                        Critic.grow
        for each epoch, for each batch (x, y) of D_t:
            D: steps on CE of (x, y) and of images of X_c                                  classify
            joint:  (x, y) <- (x, y) and as many images of all X_c together                MeRGAN.met
            D: step on  E D(G(z, y)) - E D(x) + lambda_GP (|grad D| - 1)^2                 criticise
            G: step on  -E D(G(z, y)) + CE(D(G(z, y)), y)                                  MeRGAN.generate
               align:  + lambda_RA |G(z', c') - G*(z', c')|^2, c' old                      MeRGAN.misaligned

Details the paper leaves open
1. The protocol of D, the optimizers and all counts of steps are those of DGM, with which the method is
   compared: one critic step per step of G, Adam anew in each task, images of old classes drawn once per task.
   The authors' code has five critic steps, lambda_GP = 10 and Adam with lr 1e-4 and beta_1 = 0; D there is
   kept from task to task and has no batch normalisation.
2. Joint replay adds as many old images to a batch as it has new ones, in equal numbers of each old task, as
   in the authors' code. There the penalty is measured on new images only; here it is on all of them.
3. In both forms the classifier learns replayed images. The paper has no classifier: it scores the images.
4. Alignment is the mean over images and pixels of the squared difference; the authors' code halves the sum
   over both, and multiplies it by 1e-3 on MNIST (1e-2 on SVHN). With one old class, batches of 64 and 32x32
   pixels that is a weight of 33 (983) on the mean. Old classes take turns in the aligned batch.
5. The statistics of G's batch normalisation are those of the batch, and each class keeps its running ones. In
   the authors' code a batch holds one class, in training and afterwards, and there are no running statistics.
6. replay="none" is the plain conditional GAN, trained on: nothing old is replayed to G or D.

Records: tables "loss", "progress" and "generated" (see `tables`).
Keeps between tasks: the weights of G and D. The copy of G and its images exist during a task only.
"""

from dataclasses import dataclass
from typing import Literal

import torch
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
from clkit.engine.learner import Learner, check_config, frozen

REVISION = 1


@dataclass(frozen=True)
class Config:
    """Defaults: joint replay on MNIST in DGM's protocol, with the authors' generator."""

    replay: Literal["joint", "align", "none"] = "joint"     # how G keeps old classes; "none": not at all
    alignment: float = 30.0     # lambda_RA of replay="align" (detail 4); at 0 nothing is aligned
    penalty: float = 1.0        # lambda_GP: weight of the gradient penalty
    auxiliary: float = 1.0      # weight of the classification term in G's loss
    nz: int = 128               # entries of z
    g_width: int = 32           # maps of G's last hidden layer; 2 and 4 times before it
    d_width: int = 32           # maps of D's first convolution
    d_norm: bool = True         # batch normalisation in D
    anew: bool = True           # D is drawn anew in each task
    steps: Literal["chunks", "pooled"] = "chunks"       # of the classifier in an iteration, one a task or one
    epochs: int = 101           # passes over the images of a task
    batch_size: int = 64        # images of each task in an iteration
    lr: float = 2e-3            # learning rate of both Adams

    def __post_init__(self):
        check_config(self, above_0="lr")


class MeRGAN(Learner):
    """Memory replay GANs, with joint replay or with replay alignment."""

    tables = {
        "loss": "one row per epoch: epoch, loss (cross-entropy), critic, penalty (its mean), generator, "
                "alignment (mean squared difference)",
        "progress": "one row per epoch, after it: epoch; a place for probes",
        "generated": "one row per task: accuracy (K,), judge, images (K, 8, C, S, S), from a probe",
    }
    memory_kinds = {"generator": "generators"}

    def __init__(self, config, shape, classes):
        super().__init__(config, shape, classes)
        self.generator = ConditionalGenerator(shape, config.nz, classes, config.g_width)
        self.critic = Critic(shape, config.d_width, config.d_norm)
        self.register_buffer("ends", torch.zeros(0, dtype=torch.int64, device="cpu"))   # classes seen by task

    # -- learning

    def learn(self, task, trace):
        config, real = self.config, task.train
        each = len(real) // (task.seen - task.first)
        old = Replay([] if config.replay == "none" else old_images(self.generator, self.ends, each))
        aligned = config.replay == "align" and config.alignment and task.first
        teacher = frozen(self.generator) if aligned else None                   # G*
        self.critic.grow(task.seen, config.anew or not task.first)
        optimizer_g = adam(self.generator.parameters(), config.lr)
        optimizer_d = adam(self.critic.parameters(), config.lr)
        batches = real.batches(config.batch_size)
        for epoch in trace.epochs("generator and classifier", config.epochs, optimizer_d, optimizer_g):
            old.shuffle()
            total = 0.0
            for b, index in enumerate(batches.indices()):
                x, y = signed(real.images[index]), real.labels[index]
                start = b * config.batch_size
                pool = old.pool(x, y, start)
                size = len(y) if config.steps == "chunks" else len(pool[1])
                loss = classify(self.critic, optimizer_d, *pool, size)
                x, y = self.met(x, y, old, start)
                with torch.no_grad():
                    fake = self.generator(self.generator.noise(len(y)), y)      # (B, C, S, S)
                critic = criticise(self.critic, optimizer_d, x, fake, config.penalty)
                total += torch.stack([loss, *critic, *self.generate(optimizer_g, y, teacher, task.first)])
            names = ("loss", "critic", "penalty", "generator", "alignment")
            trace("loss", epoch=epoch, **finite(dict(zip(names, total / len(batches))), task, epoch))
            trace("progress", epoch=epoch)
        self.ends = torch.cat([self.ends, self.ends.new_tensor([task.seen])])
        trace("generated")

    def met(self, x, y, old, start):
        """The images and classes that the critic and G see for a batch of new ones: with as many old ones."""
        if self.config.replay != "joint" or not old.sets:
            return x, y
        return [torch.cat(pair) for pair in zip((x, y), old.some(start, len(y)))]

    def generate(self, optimizer, y, teacher, known):
        """A step of G on images of classes y; (its loss, the misalignment), before it."""
        fake = self.generator(self.generator.noise(len(y)), y)                  # (B, C, S, S)
        loss = generator_loss(self.critic, fake, y, self.config.auxiliary)
        apart = torch.zeros((), device=y.device)
        if teacher is not None:
            apart = self.misaligned(teacher, torch.arange(len(y), device=y.device) % known)
            loss = loss + self.config.alignment * apart
        own_gradients(optimizer, loss)
        optimizer.step()
        return loss.detach(), apart.detach()

    def misaligned(self, teacher, labels):
        """Mean squared difference of the images that G and the teacher draw of old classes (B,)."""
        z = self.generator.noise(len(labels))                                   # (B, nz)
        with torch.no_grad():
            target = teacher(z, labels)
        return F.mse_loss(self.generator(z, labels), target)

    # -- answers

    def forward(self, x):
        return self.critic(2 * x - 1)[1]                                        # (B, classes seen)

    def recall(self, n, label=None):
        """n images (n, C, S, S) in [0, 1] and their classes (n,): of all in turn, or of one of them."""
        labels = labels_to_recall(n, label, self.ends)
        return self.generator.draw(labels) / 2 + 0.5, labels
