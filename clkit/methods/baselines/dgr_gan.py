"""DGR with a GAN: replay from an unconditional generator, labelled by the old solver (Shin et al. 2017).

    python -m clkit run dgr-gan/digits-10 --preset teach

    DGR-GAN(tasks): for each task t:
        X <- G(z),  Y <- argmax D(X)         images and labels from before the task        DGRGAN.replayed
        D <- new weights, a row for each class seen                                        Critic.grow
        for each epoch, for each batch (x, y) of D_t:
            D: steps on CE of (x, y) and of images of (X, Y)          section 3.1          classify
            x <- new and replayed images, 1 to t - 1                  section 3.1          DGRGAN.learn
            D: step on  E D(G(z)) - E D(x) + lambda_GP (|grad D| - 1)^2                    criticise
            G: step on  -E D(G(z))                                                         DGRGAN.generate

Details the paper leaves open
1. The protocol of D, the optimizers and all counts of steps are those of DGM, with which the method is
   compared. The paper trains the generator first and the solver after it; here both learn in the same
   iterations, and the solver is the classifier of the critic's network D.
2. G is MeRGAN's generator with one class, so that it knows none. It is trained on from task to task, and Adam
   is new in each.
3. A batch of the critic holds twice as many images as a batch of new ones has, drawn from the pool of new and
   replayed images. So the critic sees as many as that of MeRGAN, and the new task has a share of 1/t in them,
   which is the importance that the paper suggests.
4. Replayed images are drawn once per task, as many for each old class on average as a new one has. Which
   classes they are depends on G alone: a class that G forgets is gone.
5. A class is recalled by drawing images until the solver has called enough of them so. After 20 times as many
   draws the rest are those to which it gives the highest probability of the class.

Records: tables "loss", "progress" and "generated" (see `tables`).
Keeps between tasks: the weights of G and D. The images exist during a task only.
"""

from dataclasses import dataclass
from typing import Literal

import torch

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
    own_gradients,
    signed,
)
from clkit.engine.evaluate import in_eval_mode
from clkit.engine.learner import Learner, check_config

REVISION = 1
TRIES = 20                                              # draws per image in a recall of one class (detail 5)


@dataclass(frozen=True)
class Config:
    """Defaults: MNIST in DGM's protocol, with MeRGAN's generator."""

    penalty: float = 1.0        # lambda_GP: weight of the gradient penalty
    nz: int = 128               # entries of z
    g_width: int = 32           # maps of G's last hidden layer; 2 and 4 times before it
    d_width: int = 32           # maps of D's first convolution
    d_norm: bool = True         # batch normalisation in D
    anew: bool = True           # D is drawn anew in each task
    steps: Literal["chunks", "pooled"] = "chunks"       # of the classifier in an iteration, one a task or one
    replay: bool = True         # whether G and D learn replayed images
    epochs: int = 101           # passes over the images of a task
    batch_size: int = 64        # images of each task in an iteration
    lr: float = 2e-3            # learning rate of both Adams

    def __post_init__(self):
        check_config(self, above_0="lr")


class DGRGAN(Learner):
    """Deep generative replay with a Wasserstein GAN."""

    tables = {
        "loss": "one row per epoch: epoch, loss (cross-entropy), critic, penalty (its mean), generator",
        "progress": "one row per epoch, after it: epoch; a place for probes",
        "generated": "one row per task: accuracy (K,), judge, images (K, 8, C, S, S), from a probe",
    }
    memory_kinds = {"generator": "generators"}

    def __init__(self, config, shape, classes):
        super().__init__(config, shape, classes)
        self.generator = ConditionalGenerator(shape, config.nz, 1, config.g_width)
        self.critic = Critic(shape, config.d_width, config.d_norm)
        self.register_buffer("ends", torch.zeros(0, dtype=torch.int64, device="cpu"))   # classes seen by task

    # -- learning

    def learn(self, task, trace):
        config, real = self.config, task.train
        old = Replay(self.replayed(len(real) // (task.seen - task.first)))
        self.critic.grow(task.seen, config.anew or not task.first)
        optimizer_g = adam(self.generator.parameters(), config.lr)
        optimizer_d = adam(self.critic.parameters(), config.lr)
        batches = real.batches(config.batch_size)
        for epoch in trace.epochs("generator and classifier", config.epochs, optimizer_d, optimizer_g):
            old.shuffle()
            total = 0.0
            for b, index in enumerate(batches.indices()):
                x, y = signed(real.images[index]), real.labels[index]
                pool = old.pool(x, y, b * config.batch_size)
                size = len(y) if config.steps == "chunks" else len(pool[1])
                loss = classify(self.critic, optimizer_d, *pool, size)
                mixed = pool[0][:2 * len(y)]                                    # in random order
                with torch.no_grad():
                    fake = self.fake(len(mixed))
                critic = criticise(self.critic, optimizer_d, mixed, fake, config.penalty)
                total += torch.stack([loss, *critic, self.generate(optimizer_g, len(mixed))])
            names = ("loss", "critic", "penalty", "generator")
            trace("loss", epoch=epoch, **finite(dict(zip(names, total / len(batches))), task, epoch))
            trace("progress", epoch=epoch)
        self.ends = torch.cat([self.ends, self.ends.new_tensor([task.seen])])
        trace("generated")

    def replayed(self, each):
        """Images with the present solver's labels, by number of old tasks: [(images in [-1, 1], labels)].

        `each` for each class of a task; the sets are alike, since G knows no classes.
        """
        if not self.config.replay:
            return []
        sizes = torch.diff(self.ends, prepend=self.ends.new_zeros(1)).tolist() if len(self.ends) else []
        return [self.drawn(each * size) for size in sizes]

    @torch.no_grad()
    def drawn(self, n):
        """n images (n, C, S, S) in [-1, 1] and the solver's labels for them (n,)."""
        x = self.generator.draw(torch.zeros(n, dtype=torch.int64, device=self.ends.device))
        return x, self.solved(x).argmax(1)

    def solved(self, x):
        """Logits (N, classes seen) of images (N, C, S, S) in [-1, 1], in eval mode."""
        with in_eval_mode(self):
            return torch.cat([self.critic(part)[1] for part in x.split(1000)])

    def fake(self, n):
        """n images of G as it is in training: (n, C, S, S)."""
        labels = torch.zeros(n, dtype=torch.int64, device=self.ends.device)
        return self.generator(self.generator.noise(n), labels)

    def generate(self, optimizer, n):
        """A step of G on n images; its loss before it."""
        loss = generator_loss(self.critic, self.fake(n), None, 0.0)
        own_gradients(optimizer, loss)
        optimizer.step()
        return loss.detach()

    # -- answers

    def forward(self, x):
        return self.critic(2 * x - 1)[1]                                        # (B, classes seen)

    @torch.no_grad()
    def recall(self, n, label=None):
        """n images (n, C, S, S) in [0, 1] and the solver's labels (n,); with a label, such as it calls so.

        Detail 5 says what happens if there are not enough of them.
        """
        labels_to_recall(n, label, self.ends)
        if label is None:
            x, labels = self.drawn(n)
            return x / 2 + 0.5, labels
        images, places, found = [], [], 0
        for _ in range(TRIES):
            x, _ = self.drawn(n)
            logits = self.solved(x)                                             # (n, classes seen)
            called = (logits.argmax(1) == label).float()
            images.append(x)
            places.append(called + logits.softmax(1)[:, label] * (1 - called))  # 1 if called so, else p < 1
            found += int(called.sum())
            if found >= n:
                break
        best = torch.cat(places).argsort(descending=True, stable=True)[:n]
        x = torch.cat(images)[best]
        return x / 2 + 0.5, self.solved(x).argmax(1)
