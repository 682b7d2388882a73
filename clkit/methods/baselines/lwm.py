"""LwM: learning without memorizing, LwF that also keeps where the network looks (Dhar et al. 2019).

    python -m clkit run lwm/wardrobe --preset teach

    LWM(tasks): the first task: minimise CE(f(x), y)
        for each later task t:
            f* <- f                                     the network before the task         frozen
            f <- f*, with a row for each new class                                          begin
            b <- the old class that f* names for x
            minimise  (1 - a) CE(f(x), y)               on the outputs of new classes       LwM.learn
                    + a CE(f*(x) / T, f(x) / T)         on the outputs of old classes       distillation
                    + gamma |Q*_b - Q_b|_1              Grad-CAM maps of b, of length 1     attention

Details the paper leaves open
1. Grad-CAM is taken at the maps of the last convolution. Behind them are an average over positions and a
   linear layer, so the gradient of a logit in a map is the class's weight, the same at each position: the map
   is the ReLU of the weighted sum, up to a factor that its length removes.
2. Both maps are of the class that the old network names. The weights count as constants; the gradient goes
   through the maps alone.
3. gamma is unpublished; 1 is the choice of later comparisons. The norm is summed over positions and averaged
   over images.
4. The first two terms are those of `lwf-sgd`, as in Xin et al. (2021): at gamma = 0 this is it, bit for bit.
5. The network, its training and the views of images are those of MFGR: see blocks/growing.py.

Records: tables "loss" (epoch, loss, ce, nkd, attention: means over the epoch) and "fine" (a place for
probes).
Keeps between tasks: the weights, and the number of classes seen after each task (8 bytes each).
"""

from dataclasses import dataclass

import torch
from torch.nn import functional as F

from clkit.blocks import nets
from clkit.blocks.gan import finite
from clkit.blocks.growing import Protocol, begin, classifier
from clkit.blocks.losses import distillation
from clkit.blocks.pixels import Standardise
from clkit.engine.learner import Learner, LearnerError, check_config, frozen

REVISION = 1


@dataclass(frozen=True)
class Config(Protocol):
    """Defaults: CIFAR-100 as in the paper on MFGR."""

    gamma: float = 1.0          # weight of the attention term
    temperature: float = 2.0    # T

    def __post_init__(self):
        check_config(self, above_0="base_lr lr temperature std", from_0="pad")


def attention(maps, weights):
    """Grad-CAM of a class for each image, of length 1: maps (B, D, h, w), weights (B, D) -> (B, h*w).

    weights: of the class, in the linear layer behind the averaged maps.
    """
    return F.normalize(torch.einsum("bdhw,bd->bhw", maps, weights).relu().flatten(1))


class LwM(Learner):
    """Learning without memorizing."""

    tables = {"loss": "one row per epoch: epoch, loss, ce (new classes), nkd (old classes), attention",
              "fine": "one row per task, after it; a place for probes"}

    def __init__(self, config, shape, classes):
        super().__init__(config, shape, classes)
        self.net = classifier(config.net, shape)
        if not isinstance(self.net, nets.ResNet) or self.net.pool:
            raise LearnerError(f"the network {config.net} does not average maps over all positions, as this "
                               f"Grad-CAM needs: use a residual network, such as resnet18")
        self.standardise = Standardise(config.mean, config.std, shape[0])
        self.register_buffer("ends", torch.zeros(0, dtype=torch.int64, device="cpu"))   # classes seen by task

    def learn(self, task, trace):
        config, first, share = self.config, task.first, task.first / task.seen
        old = frozen(self.net) if first else None
        begin(self.net, config, task)
        batches = config.batches(task.train)
        optimizer, schedule = config.sgd(self.net.parameters(), task, len(batches))
        for epoch in trace.epochs("classifier", config.epochs_of(task), optimizer, schedule):
            total = 0.0
            for x, y in batches:
                x = self.standardise(x)
                maps, logits = self.seen(self.net, x)
                ce = F.cross_entropy(logits[:, first:], y - first)
                nkd = gap = torch.zeros_like(ce)
                if old is not None:
                    nkd, gap = self.old_losses(maps, logits, x, old)
                loss = (1 - share) * ce + share * nkd + config.gamma * gap
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                schedule.step()
                total += torch.stack([loss, ce, nkd, gap]).detach()
            means = dict(zip(("loss", "ce", "nkd", "attention"), total / len(batches)))
            trace("loss", epoch=epoch, **finite(means, task, epoch))
        self.ends = torch.cat([self.ends, self.ends.new_tensor([task.seen])])
        trace("fine")

    def seen(self, net, x):
        """(maps of the last convolution (B, D, h, w), logits) of standardised images x (B, C, H, W)."""
        with self.config.autocast(x.device):
            maps = net.maps(x, net.stages)
            return maps.to(x.dtype), net.head(net.averaged(maps)).to(x.dtype)

    def old_losses(self, maps, logits, x, old):
        """(distillation, distance of the attention maps) on the old classes."""
        with torch.no_grad():
            old_maps, soft = self.seen(old, x)                                  # (B, old)
            label, T = soft.argmax(1), self.config.temperature
            before = attention(old_maps, old.head.weight[label])                # (B, h*w)
        now = attention(maps, self.net.head.weight.detach()[label])
        nkd = distillation(logits[:, :soft.shape[1]], soft, T) / T**2
        return nkd, (before - now).abs().sum(1).mean()

    def forward(self, x):
        return self.net(self.standardise(x))                                    # (B, classes seen)
