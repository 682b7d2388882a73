"""GEN and GEN-MIR: online generative replay, of random or most interfered images (Aljundi et al. 2019a).

    GEN(stream): for each batch x, y of N images, each seen once:                          Shin et al. 2017
        from the second task on:
            X <- M images of the old generator, Y <- softmax of the old classifier for X   GEN.images
        `updates` times, first the generator, then the classifier, each with its own X:    GEN.update
            generator:   step on  L(x) + replay L(X)                                       GEN.fit_vae
            classifier:  step on  CE(x, y) + replay CE(X, Y)                               GEN.fit_net
        at the end of a task: the old generator and classifier <- the present ones         GEN.renew
    L = -log p(x|z) + beta KL(q(z|x) || N(0, 1)), z ~ q(z|x)                               VAE.losses

    X = decoder(z), z ~ N(0, 1); this is all for choose="random". choose="interfered", for either network:
        after <- the network after a virtual step on x, y alone                            step_down
        `descent` times: z <- z + d gain / dz                                              GEN.ascend
    gain = interference (classifier: CE of the answers of `after` with the old ones;       GEN.harm_to_net
                         generator: KL of q under `after` minus under the old one)         GEN.harm_to_vae
         - entropy H(old answers) + diversity (mean squared distance to other codes)       apart

Details the paper leaves open, or the authors' code does otherwise
1. Sizes. The generator for MNIST is the code's, 784-128-128-50 and back: 254,068 parameters. Two of them and
   the old classifier are 986,546. The published 1.14M has the code's classifier, a hidden layer of 400 with
   gates and dropout (636,020); ours is a network of clkit.nets. For GEN-MIR (hidden=(128,), dropout=0.4) it
   is 920,498 and 1.08M. Images of any shape are flattened.
2. All updates of a batch replay the same images (code). Their weight is that of both networks (code).
3. The virtual step is on the batch at hand, as in the text. The code takes the gradients that the last update
   of the batch before left, replay included. Its size is `lr` for the generator too (code).
4. All codes climb together, each by the slope of its own gain over N. In the code groups of N climb one after
   the other, away from the codes of the groups before. The text asks for a least distance instead.
5. The code also has the reconstruction in the generator's interference, and the length of z in both gains;
   their weights for MNIST are 0, and we leave them out. For the classifier the text has a KL in place of the
   CE, whose slope goes through both networks (code).
6. Codes that are not all finite are replaced by those they began as (code: by other random ones).
7. Answers are outputs for all classes, those to come as well; nothing is masked. The code raises the
   probabilities in CE(X, Y) to 1e-5.
8. beta grows with the images of a task (code). The KL is in closed form, where the code draws; the encoder
   gives a log variance, where the code has a softplus.
9. Adam is new for each task; in the code it goes on. Several passes go through a task in the same order.
10. Old networks use running statistics and no dropout (code).

Records: "loss" (step, loss, replay, vae), "replay" (step, classes); `tables` says what they hold.
Keeps between tasks: the weights, the generator, and old copies of both networks; no images. With replay=0
there is no generator, and this is plain training.
"""

import copy
import math
from dataclasses import dataclass

import torch
from torch import nn
from torch.func import functional_call
from torch.nn import functional as F

from clkit import nets
from clkit.learner import Learner, LearnerError
from clkit.trace import looking


@dataclass(frozen=True)
class Config:
    """Defaults: GEN on MNIST-5k-5, as in the authors' script that reproduces their results."""

    net: str = "mlp"            # network of the classifier: mlp, convnet, resnet18, ... (clkit.nets)
    choose: str = "random"      # which images: "random" (GEN) or "interfered" (GEN-MIR)
    images: int = 40            # M: generated images for a batch; 100 for GEN-MIR
    replay: float = 3.0         # weight of their losses; 0: no generator
    updates: int = 15           # steps of each network for a batch
    latent: int = 50            # size of z
    hidden: tuple = (128, 128)  # units of the hidden layers of the encoder; the decoder has them in reverse
    dropout: float = 0.0        # of hidden units of the generator in training; 0.4 for GEN-MIR
    beta: float = 1.0           # weight of the KL in the generator's loss
    warmup: int = 1000          # images of a task until it would be 1: it grows from 0
    descent: int = 10           # steps of the codes (interfered)
    interference: float = 0.1   # weights of the gain (interfered)
    entropy: float = 1.0
    diversity: float = 1.0
    epochs: int = 1             # passes over the images of a task
    batch: int = 10             # N: images in a batch
    lr: float = 0.01            # learning rate of the classifier: gradient descent without momentum
    vae_lr: float = 1e-3        # learning rate of the generator: Adam

    def __post_init__(self):
        if self.choose not in ("random", "interfered"):
            raise LearnerError(f"choose must be 'random' or 'interfered', not {self.choose!r}")
        for name in ("epochs", "batch", "images", "updates", "latent", "warmup", "descent"):
            if getattr(self, name) < 1:
                raise LearnerError(f"{name} must be at least 1, not {getattr(self, name)}")
        if min(self.hidden, default=1) < 1 or not 0 <= self.dropout < 1:
            raise LearnerError("hidden must be sizes of at least 1, and dropout from 0 to below 1")
        if not 0 < self.lr < math.inf or not 0 < self.vae_lr < math.inf:
            raise LearnerError("lr and vae_lr must be above 0 and finite")
        for name in ("replay", "beta", "interference", "entropy", "diversity"):
            if not 0 <= getattr(self, name) < math.inf:
                raise LearnerError(f"{name} is a weight of 0 or more, not {getattr(self, name)}")


class VAE(nn.Module):
    """Variational autoencoder (Kingma and Welling 2014) of fully connected ReLU layers; images in [0, 1]."""

    def __init__(self, shape, latent, hidden, dropout):
        super().__init__()
        self.shape, self.latent, self.dropout = tuple(shape), latent, dropout
        there, back = (math.prod(shape), *hidden), (latent, *hidden[::-1])
        self.encoder = nn.ModuleList(nn.Linear(a, b) for a, b in zip(there, there[1:]))
        self.mean, self.log_variance = nn.Linear(there[-1], latent), nn.Linear(there[-1], latent)
        self.decoder = nn.ModuleList(nn.Linear(a, b) for a, b in zip(back, back[1:]))
        self.pixels = nn.Linear(back[-1], there[0])

    def _through(self, layers, x):
        for layer in layers:
            x = F.dropout(F.relu(layer(x)), self.dropout, self.training)        # (B, hidden)
        return x

    def forward(self, x):
        """Mean and log variance of q(z|x), each (B, latent); x (B, C, H, W)."""
        x = self._through(self.encoder, x.flatten(1))
        return self.mean(x), self.log_variance(x)

    def losses(self, x, beta):
        """L of each image, x (B, C, H, W): (B,), in nats. Draws one z for each image."""
        mean, log_variance = self(x)                                            # (B, latent)
        z = mean + (log_variance / 2).exp() * torch.randn_like(mean)            # (B, latent)
        pixels = self.pixels(self._through(self.decoder, z))                    # (B, C*H*W)
        error = F.binary_cross_entropy_with_logits(pixels, x.flatten(1), reduction="none").sum(1)
        return error + beta * divergence(mean, log_variance)                    # (B,)

    def codes(self, n):
        """n codes z (n, latent) drawn from N(0, 1)."""
        weight = self.pixels.weight
        return torch.randn(n, self.latent, dtype=weight.dtype, device=weight.device)

    def decode(self, z):
        """The mean of each pixel, (n, C, H, W) in [0, 1], for codes z (n, latent)."""
        return self.pixels(self._through(self.decoder, z)).sigmoid().view(-1, *self.shape)


# ---- terms

def divergence(mean, log_variance):
    """KL(q || N(0, 1)) of normal distributions given by (B, latent) each: (B,)."""
    return (mean.square() + log_variance.exp() - 1 - log_variance).sum(1) / 2


def soft_cross_entropy(scores, target):
    """Cross-entropy of scores (B, K) with the distributions `target` (B, K): (B,)."""
    return -(target * scores.log_softmax(1)).sum(1)


def apart(z):
    """Mean square of the way from the mean of all other codes, z (n, latent): (n,); 0 for a single code.

    Its slope is that of the mean squared distance to the other codes, which stay where they are.
    """
    others = (z.sum(0) - z).detach() / max(1, len(z) - 1)                       # (n, latent)
    return (z - others).square().mean(1) * (len(z) > 1)


# ---- networks at other times

def tensors_of(module):
    """Parameters, and copies of the buffers, by name: a pass with them leaves no mark on the module."""
    return dict(module.named_parameters()) | {name: b.clone() for name, b in module.named_buffers()}


def step_down(module, tensors, loss, lr):
    """`tensors` after a step of gradient descent of the module's parameters on the loss."""
    names, parameters = zip(*module.named_parameters())
    slopes = torch.autograd.grad(loss, parameters)
    return tensors | {n: (p - lr * slope).detach() for n, p, slope in zip(names, parameters, slopes)}


def as_buffers(module):
    """A copy of the module whose weights are buffers: no parameters to train."""
    twin = copy.deepcopy(module)
    for part in twin.modules():
        for name, parameter in list(part.named_parameters(recurse=False)):
            del part._parameters[name]
            part.register_buffer(name, parameter.detach())
    return twin


# ---- the learner

def passes(images, size, epochs):
    """The numbered batches of a task: (step, (x, y)), in the same order in each pass."""
    seed = int(torch.randint(2**62, (), device="cpu"))
    for epoch in range(epochs):
        each = images.batches(size, generator=torch.Generator(device="cpu").manual_seed(seed))
        yield from enumerate(each, epoch * len(each))


class GEN(Learner):
    """Online generative replay with a variational autoencoder."""

    tables = {"loss": "one row a batch, means over its updates: step, loss (cross-entropy), replay (that of "
                      "generated images, weighted; 0 where none), vae (the generator's whole loss)",
              "replay": "one row a batch: step, classes (K,) mean answer of the old classifier to the images "
                        "generated for the classifier; NaN where none"}
    memory_kinds = {"old_": "old copies", "vae.": "generators"}

    def __init__(self, config, shape, classes):
        super().__init__(config, shape, classes)
        self.net, self.vae = nets.build(config.net, shape, classes), None
        if config.replay:
            self.vae = VAE(shape, config.latent, config.hidden, config.dropout)
            self.old_net, self.old_vae = as_buffers(self.net), as_buffers(self.vae)
        self.register_buffer("seen", torch.zeros((), dtype=torch.int64, device="cpu"))

    def learn(self, task, trace):
        config, replays = self.config, self.vae is not None and task.first > 0
        optimizers, vae = [torch.optim.SGD(self.net.parameters(), lr=config.lr)], 0.0
        if self.vae is not None:
            self.old_net.eval(), self.old_vae.eval()
            optimizers.append(torch.optim.Adam(self.vae.parameters(), lr=config.vae_lr, fused=True))
        batches = passes(task.train, config.batch, config.epochs)
        total = config.epochs * -(-len(task.train) // config.batch)
        for step, (x, y) in trace.steps("online", batches, *optimizers, total=total):
            if self.vae is not None:
                beta = min(config.beta, (step + 1) * config.batch / config.warmup)
                vae = self.fit_vae(optimizers[1], x, beta, replays)
            loss, replay, classes = self.fit_net(optimizers[0], x, y, replays)
            trace("loss", step=step, loss=loss, replay=replay, vae=vae)
            trace("replay", step=step, classes=classes)
        if self.vae is not None:
            self.renew()
        self.seen.fill_(task.seen)

    def update(self, optimizer, losses):
        """`updates` steps on the sum of losses(), (n,); the mean of each before its step, (n,)."""
        total = 0.0
        for _ in range(self.config.updates):
            parts = losses()
            optimizer.zero_grad()
            parts.sum().backward()
            optimizer.step()
            total += parts.detach()
        return total / self.config.updates

    def fit_vae(self, optimizer, x, beta, replays):
        """Train the generator on a batch x (B, C, H, W); its loss."""
        weight = x.new_full((len(x),), 1 / len(x))                              # (B,) of each image
        if replays:
            old = self.images(self.harm_to_vae, x, beta)                        # (M, C, H, W)
            weight = torch.cat([weight, x.new_full((len(old),), self.config.replay / len(old))])
            x = torch.cat([x, old])                                             # (B + M, C, H, W)
        return self.update(optimizer, lambda: weight @ self.vae.losses(x, beta))

    def fit_net(self, optimizer, x, y, replays):
        """Train the classifier on a batch x (B, C, H, W), y (B,).

        Returns the losses of the batch and of generated images, weighted, and the mean old answer (K,).
        """
        if not replays:
            loss, = self.update(optimizer, lambda: F.cross_entropy(self.net(x), y)[None])
            return loss, 0.0, x.new_full((self.classes,), math.nan)
        old = self.images(self.harm_to_net, x, y)                               # (M, C, H, W)
        with torch.no_grad():
            answers = self.old_net(old).softmax(1)                              # (M, K)
        loss, replay = self.update(optimizer, lambda: torch.stack([
            F.cross_entropy(self.net(x), y),
            self.config.replay * soft_cross_entropy(self.net(old), answers).mean()]))
        return loss, replay, answers.mean(0)

    def images(self, harm, *batch):
        """M images of the old generator (M, C, H, W): random ones, or those to which the batch harms most."""
        z = self.old_vae.codes(self.config.images)                              # (M, latent)
        if self.config.choose == "interfered":
            z = self.ascend(z, harm(*batch))
        with torch.no_grad():
            return self.old_vae.decode(z)

    def harm_to_net(self, x, y):
        """The interference of the classifier through a virtual step on x (B, C, H, W), y (B,).

        A function of images (n, C, H, W) and the old answers to them (n, K) with the result (n,).
        """
        tensors = tensors_of(self.net)
        loss = F.cross_entropy(functional_call(self.net, tensors, (x,)), y)
        after = step_down(self.net, tensors, loss, self.config.lr)
        return lambda old, answers: soft_cross_entropy(functional_call(self.net, after, (old,)), answers)

    def harm_to_vae(self, x, beta):
        """The same for the generator, through a virtual step on x (B, C, H, W) with this beta."""
        loss = self.vae.losses(x, beta).mean()
        after = step_down(self.vae, tensors_of(self.vae), loss, self.config.lr)
        return lambda old, answers: (divergence(*functional_call(self.vae, after, (old,)))
                                     - divergence(*self.old_vae(old)))

    def ascend(self, start, harm):
        """Codes (n, latent) of more gain than those they begin as; harm: as `harm_to_net` returns it."""
        config, z = self.config, start
        for _ in range(config.descent):
            z = z.detach().requires_grad_()
            old = self.old_vae.decode(z)                                        # (n, C, H, W)
            scores = self.old_net(old)                                          # (n, K)
            answers = scores.softmax(1)
            gain = (config.interference * harm(old, answers) + config.diversity * apart(z)
                    - config.entropy * soft_cross_entropy(scores, answers))     # (n,)
            z = z + torch.autograd.grad(gain.sum() / config.batch, z)[0]
        return torch.where(z.isfinite().all(), z, start).detach()

    @torch.no_grad()
    def renew(self):
        """Make the old networks copies of the present ones."""
        for old, new in ((self.old_net, self.net), (self.old_vae, self.vae)):
            source = new.state_dict()
            for name, tensor in old.named_buffers():
                tensor.copy_(source[name])

    @torch.no_grad()
    def recall(self, n):
        """n images (n, C, H, W) in [0, 1] from the generator, and the classifier's labels for them (n,)."""
        if self.vae is None or not self.seen:
            raise LearnerError("there is nothing to recall before the first task, or with replay=0")
        z = self.vae.codes(n)                                                   # (n, latent)
        with looking(self):
            x = self.vae.decode(z)
            return x, self.net(x)[:, :int(self.seen)].argmax(1)

    def forward(self, x):
        return self.net(x)                                                      # (B, K)
