"""Classifiers whose head grows with each task, and how they are trained: SGD with a cosine decay.

Methods that are compared share these settings, so that their first task is the same, bit for bit.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

from clkit.blocks import nets
from clkit.blocks.pixels import crop_and_flip


@dataclass(frozen=True)
class Protocol:
    """The settings of a classifier and its training. Defaults: CIFAR-100 in Xin et al. (2021)."""

    net: str = "resnet34"       # network (clkit.blocks.nets)
    weights: str = ""           # file with start values of all but the head, see nets.load; "": drawn
    mean: tuple[float, ...] = (0.5071, 0.4866, 0.4409)      # of the pixels, by channel
    std: tuple[float, ...] = (0.2009, 0.1984, 0.2023)       # their standard deviation, by channel
    pad: int = 4                # pixels by which training images are shifted at most, with zeros around them
    flip: bool = True           # mirror half of the training images
    base_epochs: int = 150      # passes over the images of the first task
    base_lr: float = 0.1        # learning rate at its beginning
    epochs: int = 150           # passes over the images of each later task
    lr: float = 0.01            # learning rate at its beginning; both fall to 0 as a cosine
    batch_size: int = 128       # real images per step
    momentum: float = 0.9       # of SGD
    weight_decay: float = 5e-4  # of SGD, on all parameters
    precision: Literal["fp32", "bf16"] = "fp32"     # of the networks; losses and updates stay in fp32

    def epochs_of(self, task):
        """The passes over the images of a task."""
        return self.epochs if task.first else self.base_epochs

    def batches(self, images):
        """Augmented batches of an ImageSet."""
        plain = self.pad == 0 and not self.flip
        return images.batches(self.batch_size, augment=None if plain else crop_and_flip(self.pad, self.flip))

    def sgd(self, parameters, task, steps):
        """SGD for a task, and the schedule of its learning rate, of `steps` steps an epoch."""
        optimizer = torch.optim.SGD(parameters, lr=self.lr if task.first else self.base_lr,
                                    momentum=self.momentum, weight_decay=self.weight_decay)
        total = self.epochs_of(task) * steps
        return optimizer, torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, total)

    def autocast(self, device):
        """A context in which networks compute in the chosen precision."""
        return torch.autocast(device.type, torch.bfloat16, enabled=self.precision == "bf16")

    def cast(self, net, x):
        """net(x) in the chosen precision, returned in that of x."""
        with self.autocast(x.device):
            return net(x).to(x.dtype)


def classifier(name, shape):
    """The network called `name` without any class yet: see nets.build."""
    net = nets.build(name, shape, 1)
    net.head = bare(net.head.in_features)
    return net.to(memory_format=torch.channels_last)    # the faster layout for its convolutions


def bare(features):
    """A linear layer of `features` inputs that has no output yet."""
    head = nn.Linear(features, 1)
    for parameter in head.parameters():
        parameter.data = parameter.data[:0]
    return head


@torch.no_grad()
def grow(head, new):
    """Give a linear layer `new` more outputs, drawn as usual; the rows that it has stay, bit for bit."""
    known = len(head.bias)
    larger = nn.Linear(head.in_features, known + new, device=head.weight.device, dtype=head.weight.dtype)
    for name in ("weight", "bias"):
        parameter, values = getattr(head, name), getattr(larger, name).data
        values[:known] = parameter
        parameter.data, parameter.grad = values, None


def begin(net, config, task):
    """Give a classifier the outputs of a task, and before the first one the weights of a file, if named."""
    if config.weights and not task.first:
        nets.load(net, config.weights)
    grow(net.head, task.seen - task.first)
