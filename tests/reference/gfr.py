"""GFR the obvious way: images from a DataLoader, one by one; features of the GAN in each step; autograd."""

import copy
import random

import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset


def shifted(image, pad=4):
    """An image (C, H, W) in [0, 1], cut at random from itself with a black margin, and mirrored or not."""
    C, H, W = image.shape
    wide = torch.zeros(C, H + 2 * pad, W + 2 * pad, device=image.device)
    wide[:, pad : pad + H, pad : pad + W] = image
    top, left = (random.randrange(2 * pad + 1) for _ in range(2))
    cut = wide[:, top : top + H, left : left + W]
    return cut.flip(2) if random.random() < 0.5 else cut


class Views(Dataset):
    """Random views of images uint8 (N, C, H, W), standardised, and their labels."""

    def __init__(self, images, labels, mean, std):
        self.images, self.labels = images, labels.tolist()
        self.mean, self.std = (torch.tensor(v, device="cpu")[:, None, None] for v in (mean, std))

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, i):
        return (shifted(self.images[i].float() / 255) - self.mean) / self.std, self.labels[i]


def one_hot(labels, classes):
    """Rows (B, K) of zeros with a one, in a loop."""
    rows = torch.zeros(len(labels), classes, device="cpu")
    for row, label in zip(rows, labels):
        row[label] = 1
    return rows


class Reference:
    """The networks of a GFR learner with features, and its two phases."""

    def __init__(self, learner, first):
        self.config, self.first, self.classes = learner.config, first, learner.classes
        self.net, self.G, self.D = map(copy.deepcopy, (learner.net, learner.generator, learner.critic))
        self.old_net, self.old_G = copy.deepcopy(self.net).eval(), copy.deepcopy(self.G)

    # -- networks

    def generate(self, G, z, labels):
        """Features (B, D) of G."""
        h = torch.cat([z, one_hot(labels, self.classes).to(z.dtype)], 1)
        for layer in G.layers:
            h = F.leaky_relu(F.linear(h, layer.weight, layer.bias), 0.2)
        return torch.relu(G.out(h))

    def judge(self, u, labels):
        """Values (B,) of D, with a one-hot product for the classes."""
        for layer in self.D.layers:
            u = F.leaky_relu(layer(u), 0.2)
        return self.D.value(u)[:, 0] + (
            (one_hot(labels, self.classes).to(u.dtype) @ self.D.by_class) * u
        ).sum(1)

    # -- steps

    def classifier_step(self, optimizer, x, labels, old_labels, z, r):
        """One step of F and H on the combined loss; the loss."""
        u = self.net.features(x)
        loss = F.cross_entropy(self.net.head(u), torch.tensor(labels, device="cpu"))
        if old_labels:
            fake = self.generate(self.G, z, old_labels).detach()
            old = F.cross_entropy(self.net.head(fake), torch.tensor(old_labels, device="cpu"))
            loss = (loss + r * old) / (r + 1) + r * torch.dist(u, self.old_net.features(x).detach())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss.detach()

    def critic_step(self, optimizer, x, labels, z, share):
        """One step of D on equation 1 and the penalty, by double backward; the loss."""
        with torch.no_grad():
            u = self.net.features(x)
        fake = self.generate(self.G, z, labels).detach()
        between = (share * u + (1 - share) * fake).requires_grad_()
        (slope,) = torch.autograd.grad(self.judge(between, labels).sum(), between, create_graph=True)
        penalty = ((slope.norm(dim=1) - 1) ** 2).mean()
        loss = self.judge(fake, labels).mean() - self.judge(u, labels).mean() + self.config.penalty * penalty
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss.detach()

    def generator_step(self, optimizer, z, labels, old_labels, r):
        """One step of G on equations 2 and 3; the loss."""
        loss = -self.judge(self.generate(self.G, z, labels), labels).mean()
        if old_labels:
            target = self.generate(self.old_G, z, old_labels).detach()
            gap = self.generate(self.G, z, old_labels) - target
            loss = loss + self.config.alignment * r * gap.pow(2).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss.detach()

    # -- phases

    def some_old(self, n):
        """n labels of old classes."""
        return [random.randrange(self.first) for _ in range(n)] if self.first else []

    def batches(self, images, labels):
        views = Views(images, labels, self.config.mean, self.config.std)
        return DataLoader(views, self.config.batch_size, shuffle=True, drop_last=True)

    def learn_classifier(self, images, labels, r):
        """Images uint8 (N, C, H, W), labels (N,): the classifier's phase."""
        c = self.config
        self.net.train(not self.first)
        optimizer = torch.optim.Adam(self.net.parameters(), c.lr, weight_decay=c.weight_decay)
        for _ in range(c.epochs):
            for x, y in self.batches(images, labels):
                z = torch.randn(len(y), c.nz, device="cpu")
                self.classifier_step(optimizer, x, y.tolist(), self.some_old(len(y)), z, r)

    def learn_generator(self, images, labels, r):
        """The same: the generator's phase."""
        c, networks = self.config, (self.G, self.D)
        self.net.eval()
        g, d = (torch.optim.Adam(n.parameters(), c.gan_lr, betas=(0.5, 0.999)) for n in networks)
        for _ in range(c.gan_epochs):
            for i, (x, y) in enumerate(self.batches(images, labels)):
                z, share = torch.randn(len(y), c.nz, device="cpu"), torch.rand(len(y), 1, device="cpu")
                self.critic_step(d, x, y.tolist(), z, share)
                if i % c.critic_steps == 0:
                    self.generator_step(g, z, y.tolist(), self.some_old(len(y)), r)


def parameters(module: nn.Module):
    """All parameters as a vector."""
    return torch.cat([p.detach().reshape(-1) for p in module.parameters()])
