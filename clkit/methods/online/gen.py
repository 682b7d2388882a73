"""GEN and GEN-MIR: online generative replay of random or most interfered images (Aljundi et al. 2019a).

    python -m clkit run gen/mnist-5k-5 --preset paper       # 74.97 +- 5.35 %, 1 minute per seed
    python -m clkit run gen-mir/mnist-5k-5 --preset paper   # 75.54 +- 5.76 %, 2 minutes

    GEN(stream): for each batch x, y of N images, each seen once:                          Shin et al. 2017
        from the second task on:
            X <- M images of the old generator, Y <- softmax of the old classifier for X   GEN.images
        `updates` times, first the generator, then the classifier, each with its own X:    GEN.update
            generator:   step on  L(x) + replay L(X)                                       GEN.fit_vae
            classifier:  step on  CE(x, y) + replay CE(X, Y)                               GEN.fit_net
        at the end of a task: the old generator and classifier <- the present ones         GEN.update_teachers
    L = -log p(x|z) + beta KL(q(z|x) || N(0, 1)), z ~ q(z|x)                               vae_losses

    X = decoder(z), z ~ N(0, 1); choose="random" ends here. choose="interfered", for either network:
        after <- the network after a virtual step on x, y alone                            step_down
        `n_steps` times: z <- z + d gain / dz                                              GEN.ascend
    gain = interference (classifier: CE of the outputs of `after` with the old ones;       GEN.harm_to_net
                         generator: KL of q under `after` minus under the old one)         GEN.harm_to_vae
         - entropy H(old outputs) + diversity (mean squared distance to other codes)       apart

Details the paper leaves open, or the authors' code handles otherwise
1. Sizes. The generator for MNIST is the code's, 784-128-128-50 and back: 254,068 parameters. Two of them and
   the old classifier have 986,546. The published 1.14M includes the code's classifier, a hidden layer of 400
   with gates and dropout (636,020); ours is a network of clkit.blocks.nets. For GEN-MIR (hidden=(128,),
   dropout=0.4) the numbers are 920,498 and 1.08M. Images of any shape are flattened.
2. All updates for a batch replay the same images (code). One replay weight serves both networks (code).
3. The virtual step uses the current batch, as in the text. The code uses the gradients left by the last
   update for the batch before, replay included. The step size is `lr` for the generator too (code).
4. All codes climb together, each by the gradient of its own gain over N. In the code, groups of N climb one
   after the other, away from the codes of the groups before. The text demands a least distance instead.
5. The code also includes the reconstruction in the generator's interference, and the length of z in both
   gains; their weights for MNIST are 0, and we leave them out. For the classifier the text has a KL where we
   have the CE, whose gradient flows through both networks (code).
6. If any code is not finite, all return to their start values (code: new random ones).
7. The classifiers' outputs cover all classes, including future ones; nothing is masked. The code raises the
   probabilities in CE(X, Y) to at least 1e-5.
8. beta grows with the number of images of a task (code). The KL is in closed form, where the code samples;
   the encoder returns a log variance, where the code has a softplus.
9. Each task starts with a new Adam; in the code it continues. Several passes over a task use the same order.
10. Old networks use running statistics and no dropout (code).

Records: "loss" (step, loss, replay, vae), "replay" (step, classes); `tables` describes them.
Keeps between tasks: the weights, the generator, and old copies of both networks; no images. With replay=0
there is no generator, and this is plain training.
"""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch.func import functional_call
from torch.nn import functional as F

from clkit.blocks import nets
from clkit.blocks.functional import step_down, tensors_of
from clkit.blocks.losses import soft_cross_entropy
from clkit.blocks.vae import VAE, kl_to_normal
from clkit.engine.evaluate import eval_mode
from clkit.engine.learner import Learner, LearnerError, check_config, teacher

REVISION = 1


@dataclass(frozen=True)
class Config:
    """Defaults: GEN on MNIST-5k-5, as in the authors' script for their published results."""

    net: str = "mlp"            # network of the classifier: mlp, convnet, resnet18, ... (clkit.blocks.nets)
    choose: Literal["random", "interfered"] = "random"  # images of GEN, or of GEN-MIR
    n_images: int = 40          # M: generated images per batch; 100 for GEN-MIR
    replay: float = 3.0         # weight of their losses; 0: no generator
    updates: int = 15           # steps of each network per batch
    latent: int = 50            # size of z
    hidden: tuple = (128, 128)  # units of the encoder's hidden layers, reversed in the decoder
    dropout: float = 0.0        # for hidden units of the generator in training; 0.4 for GEN-MIR
    beta: float = 1.0           # weight of the KL in the generator's loss
    warmup: int = 1000          # images of a task over which beta would grow from 0 to 1
    n_steps: int = 10           # gradient steps of the codes (interfered)
    interference: float = 0.1   # weights of the gain's terms (interfered)
    entropy: float = 1.0
    diversity: float = 1.0
    epochs: int = 1             # passes over the images of a task
    batch_size: int = 10        # N: images per batch
    lr: float = 0.01            # learning rate of the classifier: gradient descent without momentum
    vae_lr: float = 1e-3        # learning rate of the generator: Adam

    def __post_init__(self):
        check_config(self, above_0="lr vae_lr", up_to_1="dropout")
        if self.dropout == 1:
            raise LearnerError("dropout=1 removes every unit: it must be below 1")


def vae_losses(vae, x, beta):
    """L of each image, x (B, C, H, W): (B,), in nats. Draws one z per image."""
    mean, log_variance = vae(x)                                                 # (B, latent)
    error = vae.error(x, mean, (log_variance / 2).exp())                        # (B,)
    return error + beta * divergence(mean, log_variance)


def divergence(mean, log_variance):
    """KL(q || N(0, 1)) of the encoder's normal distributions q, (B, latent) each: (B,)."""
    return kl_to_normal(mean, log_variance.exp(), log_variance)


def apart(z):
    """Mean squared difference from the mean of all other codes, z (n, latent): (n,); 0 for a single code.

    Its gradient is that of the mean squared distance to the other codes, which are held fixed.
    """
    others = (z.sum(0) - z).detach() / max(1, len(z) - 1)                       # (n, latent)
    return (z - others).square().mean(1) * (len(z) > 1)


class GEN(Learner):
    """Online generative replay with a variational autoencoder."""

    tables = {"loss": "one row per batch, means over its updates: step, loss (cross-entropy), replay (of "
                      "generated images, weighted; 0 if none), vae (the generator's whole loss)",
              "replay": "one row per batch: step, classes (K,), mean output of the old classifier for the "
                        "images generated for the classifier; NaN if none"}
    memory_kinds = {"old_": "teachers", "vae.": "generators"}

    def __init__(self, config, shape, classes):
        super().__init__(config, shape, classes)
        self.net, self.vae = nets.build(config.net, shape, classes), None
        if config.replay:
            self.vae = VAE(shape, config.latent, config.hidden, config.dropout)
            self.old_net, self.old_vae = teacher(self.net), teacher(self.vae)
        self.register_buffer("seen", torch.zeros((), dtype=torch.int64, device="cpu"))

    def learn(self, task, trace):
        config, replays = self.config, self.vae is not None and task.first > 0
        optimizers, vae = [torch.optim.SGD(self.net.parameters(), lr=config.lr)], 0.0
        if self.vae is not None:
            self.old_net.eval()
            self.old_vae.eval()
            optimizers.append(torch.optim.Adam(self.vae.parameters(), lr=config.vae_lr, fused=True))
        batches = task.train.batches(config.batch_size, epochs=config.epochs, reshuffle=False)
        for step, (x, y) in trace.steps("online", enumerate(batches), *optimizers, total=len(batches)):
            if self.vae is not None:
                beta = min(config.beta, (step + 1) * config.batch_size / config.warmup)
                vae = self.fit_vae(optimizers[1], x, beta, replays)
            loss, replay, classes = self.fit_net(optimizers[0], x, y, replays)
            trace("loss", step=step, loss=loss, replay=replay, vae=vae)
            trace("replay", step=step, classes=classes)
        if self.vae is not None:
            self.update_teachers()
        self.seen.fill_(task.seen)

    def update(self, optimizer, losses):
        """`updates` steps on the sum of losses(), (n,); returns the mean of each before its step, (n,)."""
        total = 0.0
        for _ in range(self.config.updates):
            parts = losses()
            optimizer.zero_grad()
            parts.sum().backward()
            optimizer.step()
            total += parts.detach()
        return total / self.config.updates

    def fit_vae(self, optimizer, x, beta, replays):
        """Train the generator on a batch x (B, C, H, W); returns its loss."""
        weight = x.new_full((len(x),), 1 / len(x))                              # (B,) of each image
        if replays:
            old = self.images(self.harm_to_vae, x, beta)                        # (M, C, H, W)
            weight = torch.cat([weight, x.new_full((len(old),), self.config.replay / len(old))])
            x = torch.cat([x, old])                                             # (B + M, C, H, W)
        return self.update(optimizer, lambda: weight @ vae_losses(self.vae, x, beta))

    def fit_net(self, optimizer, x, y, replays):
        """Train the classifier on a batch x (B, C, H, W), y (B,).

        Returns the loss of the batch, the weighted loss of generated images, and the mean old output (K,).
        """
        if not replays:
            loss, = self.update(optimizer, lambda: F.cross_entropy(self.net(x), y)[None])
            return loss, 0.0, x.new_full((self.classes,), math.nan)
        old = self.images(self.harm_to_net, x, y)                               # (M, C, H, W)
        with torch.no_grad():
            probs = self.old_net(old).softmax(1)                                # (M, K)
        loss, replay = self.update(optimizer, lambda: torch.stack([
            F.cross_entropy(self.net(x), y),
            self.config.replay * soft_cross_entropy(self.net(old), probs).mean()]))
        return loss, replay, probs.mean(0)

    def images(self, harm, *batch):
        """M images (M, C, H, W) of the old generator: random ones, or those that the batch harms most."""
        z = self.old_vae.codes(self.config.n_images)                            # (M, latent)
        if self.config.choose == "interfered":
            z = self.ascend(z, harm(*batch))
        with torch.no_grad():
            return self.old_vae.decode(z)

    def harm_to_net(self, x, y):
        """The interference of a virtual step on x (B, C, H, W), y (B,) with the classifier.

        Returns a function: images (n, C, H, W), old outputs for them (n, K) -> (n,).
        """
        tensors = tensors_of(self.net)
        loss = F.cross_entropy(functional_call(self.net, tensors, (x,)), y)
        gradients = torch.autograd.grad(loss, list(self.net.parameters()))
        after = step_down(self.net, gradients, self.config.lr, tensors)
        return lambda old, probs: soft_cross_entropy(functional_call(self.net, after, (old,)), probs)

    def harm_to_vae(self, x, beta):
        """The same for the generator, through a virtual step on x (B, C, H, W) with this beta."""
        loss = vae_losses(self.vae, x, beta).mean()
        gradients = torch.autograd.grad(loss, list(self.vae.parameters()))
        after = step_down(self.vae, gradients, self.config.lr)
        return lambda old, probs: (divergence(*functional_call(self.vae, after, (old,)))
                                   - divergence(*self.old_vae(old)))

    def ascend(self, start, harm):
        """Move codes (n, latent) from `start` up the gain; harm: as `harm_to_net` returns it."""
        config, z = self.config, start
        for _ in range(config.n_steps):
            z = z.detach().requires_grad_()
            old = self.old_vae.decode(z)                                        # (n, C, H, W)
            logits = self.old_net(old)                                          # (n, K)
            probs = logits.softmax(1)
            gain = (config.interference * harm(old, probs) + config.diversity * apart(z)
                    - config.entropy * soft_cross_entropy(logits, probs))       # (n,)
            z = z + torch.autograd.grad(gain.sum() / config.batch_size, z)[0]
        return torch.where(z.isfinite().all(), z, start).detach()

    def update_teachers(self):
        """Copy the present networks into the old ones."""
        self.old_net.load_state_dict(self.net.state_dict())
        self.old_vae.load_state_dict(self.vae.state_dict())

    @torch.no_grad()
    def recall(self, n):
        """n images (n, C, H, W) in [0, 1] from the generator, and the classifier's labels for them (n,)."""
        if self.vae is None or not self.seen:
            raise LearnerError("nothing can be recalled before the first task has been learned, or with "
                               "replay=0: call learn() first, with replay above 0")
        z = self.vae.codes(n)                                                   # (n, latent)
        with eval_mode(self):
            x = self.vae.decode(z)
            return x, self.net(x)[:, :int(self.seen)].argmax(1)

    def forward(self, x):
        return self.net(x)                                                      # (B, K)
