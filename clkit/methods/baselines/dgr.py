"""DGR: deep generative replay of images from a generator, labelled by the old solver (Shin et al. 2017).

    python -m clkit run dgr/split-mnist --preset paper      # 90.99 +- 2.69 %, 15 minutes per seed
    python -m clkit run dgr/split-fashion --preset paper    # 75.36 % (one seed), 13 minutes

    DGR(tasks): for each task t = 1, 2, ...:
        G*, S* <- G, S                       generator and solver before the task          frozen
        for each batch (x, y) of D_t:
            x' ~ G*,  y' = S*(x')            replayed images and labels     section 3.1    DGR.replayed
            S: step on  1/t CE(x, y) + (1 - 1/t) CE(x', y')                 equation 1     DGR.learn
            G: step on  1/t L(x) + (1 - 1/t) L(x')                          section 3.1    DGR.learn
        L = -log p(x|z) + KL(q(z|x) || N(0, 1)), z ~ q(z|x)                                vae_losses

Details the paper leaves open
1. The paper's generator is a GAN and is trained before the solver. We follow the protocol of van de Ven and
   Tolias (2019): a variational autoencoder that learns in the same steps as the solver, with 1/t as the
   weight of the new task in both objectives.
2. Both terms of L are divided by the number of pixels, as in that protocol.
3. A replayed image consists of the pixel means that the decoder returns; no pixel is sampled. Its label is
   hard: the old class with the highest output of the old solver.
4. The log-variance layer has no bias, as in the code of that protocol. The generator there has 4,010 more
   parameters on MNIST: an output layer for classes, which is not trained. We leave it out.
5. New and replayed images pass through the networks together, which matters for batch normalisation only.
6. Each task starts with a new Adam, and the last batch of an epoch is the smaller remainder, as in Finetune.
   In that protocol Adam continues from task to task, and a task has 2,000 steps of full batches.
7. With replay_size=0 there is no generator, and the method is Finetune.

Records: table "loss" (epoch, loss, new, replayed, generator: both objectives; means over the epoch).
Keeps between tasks: the weights of both networks, and the number of classes seen (8 bytes). The old copies
exist only during a task.
"""

from dataclasses import dataclass

import torch
from torch.nn import functional as F

from clkit.blocks import nets
from clkit.blocks.vae import VAE, kl_to_normal
from clkit.engine.evaluate import eval_mode
from clkit.engine.learner import Learner, LearnerError, check_config, frozen

REVISION = 1


@dataclass(frozen=True)
class Config:
    """Defaults: the protocol of van de Ven and Tolias (2019) for split MNIST, in epochs."""

    net: str = "mlp"            # network of the solver: mlp, convnet or resnet18 (clkit.blocks.nets)
    latent: int = 100           # size of z
    hidden: tuple = (400, 400)  # units of the encoder's hidden layers, reversed in the decoder
    replay_size: int = 128      # generated images per step; 0: no generator
    epochs: int = 20            # passes over the images of a task
    batch_size: int = 128       # new images per step
    lr: float = 1e-3            # learning rate of Adam, for both networks

    def __post_init__(self):
        check_config(self, above_0="lr", from_0="replay_size")


def vae_losses(vae, x):
    """L of each image, per pixel: x (B, C, H, W) -> (B,). Draws one z per image."""
    mean, log_variance = vae(x)                                                 # (B, latent)
    deviation = (log_variance / 2).exp()                                        # (B, latent)
    error = vae.error(x, mean, deviation)                                       # (B,)
    return (error + kl_to_normal(mean, deviation.square(), log_variance)) / x[0].numel()


class DGR(Learner):
    """Deep generative replay."""

    tables = {"loss": "one row per epoch: epoch, loss (of the solver), new, replayed (its terms), generator"}
    memory_kinds = {"generator": "generators"}

    def __init__(self, config, shape, classes):
        super().__init__(config, shape, classes)
        self.net = nets.build(config.net, shape, classes)
        vae = VAE(shape, config.latent, config.hidden, variance_bias=False) if config.replay_size else None
        self.generator = vae
        self.register_buffer("seen", torch.zeros((), dtype=torch.int64, device="cpu"))

    def learn(self, task, trace):
        replays = task.first and self.generator is not None
        old = (frozen(self.generator), frozen(self.net)) if replays else None   # before the task
        share = 1 / (task.index + 1)
        # The two networks share no weights: a step on the sum of their losses trains each as if alone.
        optimizer = torch.optim.Adam(self.parameters(), lr=self.config.lr, fused=True)
        for epoch in trace.epochs("classifier and generator", self.config.epochs, optimizer):
            total, batches = 0.0, task.train.batches(self.config.batch_size)
            for x, y in batches:
                fresh = len(x)
                if old is not None:
                    x, y = (torch.cat(pair) for pair in zip((x, y), self.replayed(*old, task.first)))
                losses = F.cross_entropy(self.net(x)[:, :task.seen], y, reduction="none")
                new, replayed, loss = weighed(losses, fresh, share)
                parts, whole = [new, replayed, loss], loss
                if self.generator is not None:
                    *_, generator = weighed(vae_losses(self.generator, x), fresh, share)
                    parts, whole = [*parts, generator], loss + generator
                optimizer.zero_grad()
                whole.backward()
                optimizer.step()
                total += torch.stack(parts).detach()
            new, replayed, loss, *generator = total / len(batches)
            trace("loss", epoch=epoch, loss=loss, new=new, replayed=replayed, generator=sum(generator))
        self.seen.fill_(task.seen)

    def replayed(self, generator, solver, known):
        """`replay_size` images (R, C, H, W) from `generator`, and their labels (R,) < known from `solver`."""
        x = generator.sample(self.config.replay_size)                           # (R, C, H, W)
        return x, solver(x)[:, :known].argmax(1)

    @torch.no_grad()
    def recall(self, n):
        """n images (n, C, H, W) in [0, 1] from the generator, and the solver's labels for them (n,)."""
        if self.generator is None or not self.seen:
            raise LearnerError("nothing can be recalled before the first task has been learned, or with "
                               "replay_size=0: call learn() first, with replay_size above 0")
        x = self.generator.sample(n)                                            # (n, C, H, W)
        with eval_mode(self):
            return x, self.net(x)[:, :int(self.seen)].argmax(1)

    def forward(self, x):
        return self.net(x)                                                      # (B, K)


def weighed(losses, fresh, share):
    """Mean losses of new and of replayed images, and their sum with the weights share and 1 - share.

    losses (B,): the first `fresh` belong to new images, the rest, if any, to replayed ones.
    """
    new = losses[:fresh].mean()
    if fresh == len(losses):
        return new, torch.zeros_like(new), new
    replayed = losses[fresh:].mean()
    return new, replayed, share * new + (1 - share) * replayed
