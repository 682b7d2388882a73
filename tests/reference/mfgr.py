"""Both stages of MFGR as one would write them first: for the tests and the bench.

Hooks keep whole activations, the frozen network computes gradients of its weights, the old network runs twice
in a step, divergences are computed one by one, and images come from a DataLoader one by one.
"""

import copy
import math

import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset


def plain(module):
    """A copy of a network with all gradients, in torch's usual layout, in the same mode."""
    twin = copy.deepcopy(module).to(memory_format=torch.contiguous_format)
    for parameter in twin.parameters():
        parameter.requires_grad_(True)
        parameter.grad = None
    return twin


def kl(a, b):
    """KL divergence of two images as distributions over their numbers."""
    p, q = a.flatten().softmax(0), b.flatten().softmax(0)
    return (p * (p.log() - q.log())).sum()


class Recording:
    """Stage 1: the generator, its Adam, and the old network with its hooks."""

    def __init__(self, old, generator, config):
        self.old, self.generator, self.config = plain(old).eval(), plain(generator), config
        self.optimizer = torch.optim.Adam(self.generator.parameters(), lr=config.g_lr)
        self.kept = []
        for module in self.old.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.register_forward_hook(
                    lambda module, inputs, output: self.kept.append((module, inputs[0]))
                )

    def step(self):
        """A step of the generator: returns its loss."""
        config = self.config
        self.kept.clear()
        x = self.generator(torch.randn(config.g_batch, config.noise))
        features = self.old.features(x)
        logits = self.old.head(features)
        oh = F.cross_entropy(logits, logits.detach().argmax(1))
        q = logits.softmax(1).mean(0)
        cd = (q * q.log()).sum() / math.log(10)
        gaps = []
        for norm, a in self.kept:
            rows = a.transpose(0, 1).flatten(1)  # (D, B*H*W)
            mean, var = rows.mean(1), rows.var(1, unbiased=False)
            gaps.append((var - norm.running_var).norm() + (mean - norm.running_mean).norm())
        half = len(x) // 2
        first, second = torch.randperm(half), torch.randperm(len(x) - half)
        div = []
        for i, j in zip(first[: config.n_pairs].tolist(), second[: config.n_pairs].tolist()):
            a, b = x[i], x[half + j]
            div.append(-0.5 * (kl(a, b) + kl(b, a)))
        loss = oh + config.class_diversity * cd + config.statistics * torch.stack(gaps).mean()
        loss = loss + config.diversity * torch.stack(div).mean()
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return loss.detach()


class Pictures(Dataset):
    """Bytes and labels, turned into standardised, shifted and mirrored images one by one."""

    def __init__(self, images, labels, config):
        self.images, self.labels, self.config = images, labels, config

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, i):
        x, pad = self.images[i].float() / 255, self.config.pad
        if pad:
            wide = F.pad(x, (pad,) * 4)
            top, left = torch.randint(0, 2 * pad + 1, (2,)).tolist()
            x = wide[:, top : top + x.shape[1], left : left + x.shape[2]]
        if self.config.flip and torch.rand(()) < 0.5:
            x = x.flip(2)
        mean, std = (torch.tensor(v)[:, None, None] for v in (self.config.mean, self.config.std))
        return (x - mean) / std, self.labels[i]


def loader(images, labels, config):
    """Shuffled batches of Pictures, drawn in this process."""
    return DataLoader(Pictures(images, labels, config), config.batch_size, shuffle=True)


class Inheritance:
    """Stage 2: the student, its SGD, the old network, the generator."""

    def __init__(self, net, old, generator, config, first, seen, steps):
        self.net, self.old, self.generator = plain(net).train(), plain(old).eval(), plain(generator).train()
        self.config, self.first, self.seen = config, first, seen
        self.optimizer = torch.optim.SGD(
            self.net.parameters(), lr=config.lr, momentum=config.momentum, weight_decay=config.weight_decay
        )
        self.schedule = torch.optim.lr_scheduler.CosineAnnealingLR(self.optimizer, steps)

    def distilled(self, student, teacher):
        T = self.config.temperature
        target = (teacher.detach() / T).softmax(1)
        return -(target * (student[:, : self.first] / T).log_softmax(1)).sum(1).mean()

    def step(self, x, y):
        """A step of the student on standardised images x (B, C, H, W) and labels y (B,): its loss."""
        config, first = self.config, self.first
        n = round(len(x) * config.ratio * first / (self.seen - first))
        fake = self.generator(torch.randn(n, config.noise)).detach()
        gkd = self.distilled(self.net(fake), self.old(fake))
        logits = self.net(x)
        nkd = self.distilled(logits, self.old(x))
        ce = F.cross_entropy(logits[:, first:], y - first)
        share = first / self.seen
        loss = (1 - share) * ce + share * (gkd + nkd)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        self.schedule.step()
        return loss.detach()
