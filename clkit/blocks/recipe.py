"""Parts of the usual training of an image classifier, for methods that write their loops out.

config: any Config with the settings that a function names.
"""

import torch
from torch.nn import functional as F

from clkit.blocks.pixels import crop_and_flip, zoom_and_flip


def views(images, config):
    """Batches of config.batch_size images of an ImageSet for training, each seen anew as config.augment says.

    "flip" mirrors half of the images, "shift" also moves them by up to 4 pixels, "zoom" takes a random part
    of each, resized to config.view pixels, and mirrors half of them; "none" leaves images as they are.
    """
    augment = {"none": None, "flip": crop_and_flip(0), "shift": crop_and_flip(),
               "zoom": zoom_and_flip(config.view)}[config.augment]
    return images.batches(config.batch_size, augment=augment)


def adam(parameters, config):
    """Adam with config.lr and config.weight_decay, which is added to the gradient."""
    return torch.optim.Adam(parameters, config.lr, weight_decay=config.weight_decay, fused=True)


def sgd(parameters, config):
    """Gradient descent with a momentum of 0.9, config.lr and config.weight_decay."""
    return torch.optim.SGD(parameters, config.lr, 0.9, weight_decay=config.weight_decay)


def decay(optimizer, config, epoch):
    """Set the learning rate of an epoch: config.lr, divided by 10 after each of config.milestones epochs."""
    for group in optimizer.param_groups:
        group["lr"] = config.lr * 0.1 ** sum(epoch >= m for m in config.milestones)


def classify(logits, optimizer, y):
    """A step on the cross-entropy of logits (B, K) with labels y (B,); its value before the step."""
    loss = F.cross_entropy(logits, y)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss.detach()


def learn_features(net, standardise, config, task, trace, spread, apart):
    """Train a network on the first task with Adam, for methods that freeze it then; a row of "loss" an epoch.

    standardise: a function of images x (B, C, H, W) in [0, 1], what the network takes.   spread: that of
    engine.parallel.   apart: the settings that are of no effect here; methods that agree in all others share
    the loop (see Trace.epochs).
    """
    optimizer = adam(net.parameters(), config)
    for epoch in trace.epochs("features", config.epochs, optimizer, share=net, apart=apart, by=__name__):
        decay(optimizer, config, epoch)
        total, batches = 0.0, views(task.train, config)
        for x, y in batches:
            total += classify(net.head(spread(net.features, standardise(x)))[:, :task.seen], optimizer, y)
        trace("loss", epoch=epoch, loss=total / len(batches))
