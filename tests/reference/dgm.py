"""DGM with masks on weights, the obvious way: a table of logits, full widths, autograd over everything."""

from itertools import pairwise

import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

# What is kept of a task's batch normalisation: names of torch, and those of GrowingGenerator.
KEPT = {"running_mean": "mean", "running_var": "var", "weight": "gamma", "bias": "beta"}


class Generator(nn.Module):
    """All tasks at the full width: a row of logits, batch normalisation and a head for each of them.

    It takes the old tasks over from a GrowingGenerator. A place that a task does not use, or that was added
    after it, has a logit of -1, which is a mask of 0 at any large scale.
    """

    def __init__(self, old, tasks):
        super().__init__()
        self.weights = nn.ParameterList(w.detach().clone() for w in old.weights)
        self.tables = nn.ModuleList(nn.Embedding(tasks + 1, w.numel()) for w in self.weights)
        self.norms = nn.ModuleList(
            nn.ModuleList(map(nn.BatchNorm2d, old.widths[1:])) for _ in range(tasks + 1)
        )
        shape = (old.widths[-1], old.image_channels, 4, 4)
        self.heads = nn.ParameterList(torch.zeros(shape, device="cpu") for _ in range(tasks + 1))
        self.reserved = [r.to(w.dtype) for r, w in zip(old.reserved, self.weights)]
        nn.init.xavier_uniform_(self.heads[tasks], 2**0.5)
        with torch.no_grad():
            for table in self.tables:
                table.weight.fill_(-1)
                table.weight[tasks] = 0
            for k in range(tasks):
                self.take_over(old, k)

    def take_over(self, old, k):
        head = getattr(old, f"head_{k}")
        self.heads[k][: len(head)] = head
        for l, weight in enumerate(self.weights):
            mask = old.mask_of(k, l)
            wide = torch.zeros_like(weight, dtype=torch.bool)
            wide[: mask.shape[0], : mask.shape[1]] = mask
            self.tables[l].weight[k][wide.flatten()] = 1
            n, norm = mask.shape[1], self.norms[k][l]
            for ours, name in KEPT.items():
                getattr(norm, ours)[:n] = getattr(old, f"{name}{l}_{k}")

    def masks(self, task, s):
        row = torch.tensor(task, device="cpu")
        return [torch.sigmoid(s * e(row)).view_as(w) for e, w in zip(self.tables, self.weights)]

    def forward(self, z, task, masks):
        x = z[:, :, None, None]
        for l, (weight, mask) in enumerate(zip(self.weights, masks)):
            stride, padding = (2, 1) if l else (1, 0)
            x = F.conv_transpose2d(x, weight * mask, stride=stride, padding=padding)
            x = F.relu(self.norms[task][l](x))
        return torch.tanh(F.conv_transpose2d(x, self.heads[task], stride=2, padding=1))


class Discriminator(nn.Module):
    """Images -> (critic's value (B,), logits (B, K)); the names of the weights are those of Critic."""

    def __init__(self, shape, width, classes):
        super().__init__()
        maps = (shape[0], width, 2 * width, 4 * width)
        self.convs = nn.ModuleList(nn.Conv2d(a, b, 5, 2, 2, bias=False) for a, b in pairwise(maps))
        self.norms = nn.ModuleList(nn.BatchNorm2d(n) for n in maps[2:])
        size = maps[-1] * (shape[1] // 8) ** 2
        self.value, self.classes = nn.Linear(size, 1), nn.Linear(size, classes)

    def forward(self, x):
        x = F.leaky_relu(self.convs[0](x), 0.2)
        x = F.leaky_relu(self.norms[0](self.convs[1](x)), 0.2)
        x = F.leaky_relu(self.norms[1](self.convs[2](x)), 0.2).flatten(1)
        return self.value(x)[:, 0], self.classes(x)


class Reference:
    """One task of a learner of DGM that has finished `tasks` tasks; the networks are new objects."""

    def __init__(self, learner, tasks):
        self.config, self.classes, self.task = learner.config, learner.classes, tasks
        self.share = learner.generator.size[0] / learner.generator.size[1]
        self.G = Generator(learner.generator, tasks)
        self.D = Discriminator(learner.shape, self.config.d_width, tasks + 1)
        self.reset_optimizers()
        self.log = []

    def reset_optimizers(self):
        adam = {"lr": self.config.lr, "betas": (0.5, 0.999)}
        self.adam_g = torch.optim.Adam(self.G.parameters(), **adam)
        self.adam_d = torch.optim.Adam(self.D.parameters(), **adam)

    def noise(self, labels):
        z = torch.randn(len(labels), self.config.nz, device="cpu")
        z[:, : self.classes] = F.one_hot(labels, self.classes)
        return z

    def learn(self, images, label):
        """All epochs on the images (N, C, S, S) of one class, in [-1, 1]. The generator does not grow."""
        config, n = self.config, len(images)
        real = torch.full((n,), label, device="cpu")
        sets = [(images, real)] + [self.replay(torch.full_like(real, k), k) for k in range(self.task)]
        loaders = [DataLoader(TensorDataset(*s), config.batch_size, shuffle=True) for s in sets]
        for epoch in range(config.epochs):
            scale = 1 / config.s_max + (config.s_max - 1 / config.s_max) * (epoch + 1) / config.epochs
            for b, ((x, y), *old) in enumerate(zip(*loaders)):
                share = b / (len(loaders[0]) - 1)
                self.iteration(x, y, old, 1 / scale + (scale - 1 / scale) * share, scale)

    @torch.no_grad()
    def replay(self, labels, task):
        self.G.eval()
        masks = self.G.masks(task, self.config.s_max)
        x = torch.cat([self.G(self.noise(part), task, masks) for part in labels.split(1000)])
        self.G.train()
        return x, labels

    def iteration(self, x, y, old, s, scale):
        """Images x (B, C, S, S) of classes y (B,), and `old`: [(images, labels)], one for each old task."""
        found = {"loss": self.classifier_steps(x, y, old)}
        found["critic"], found["penalty"] = self.critic_step(x, y, s)
        found["generator"], found["sparsity"] = self.generator_step(y, s, scale)
        self.log.append(found)

    def classifier_steps(self, x, y, old):
        images, labels = torch.cat([x] + [o for o, _ in old]), torch.cat([y] + [k for _, k in old])
        order, losses = torch.randperm(len(labels), device="cpu"), []
        for part in order.split(len(y)):
            loss = F.cross_entropy(self.D(images[part])[1], labels[part])
            self.adam_d.zero_grad()
            loss.backward()
            self.adam_d.step()
            losses.append(loss.item())
        return sum(losses) / len(losses)

    def gather(self, whether):
        """Whether batch normalisation of D gathers running statistics."""
        for norm in self.D.norms:
            norm.momentum = 0.1 if whether else 0.0

    def critic_step(self, x, y, s):
        self.gather(False)
        fake = self.G(self.noise(y), self.task, self.G.masks(self.task, s)).detach()
        share = torch.rand(len(x), 1, 1, 1, device="cpu")
        between = (share * x + (1 - share) * fake).requires_grad_(True)
        value = self.D(fake)[0].mean() - self.D(x)[0].mean()
        out = self.D(between)[0]
        (gradient,) = torch.autograd.grad(
            out, between, torch.ones_like(out), create_graph=True, retain_graph=True
        )
        penalty = ((gradient.flatten(1).norm(2, dim=1) - 1) ** 2).mean()
        self.adam_d.zero_grad()
        (value + self.config.penalty * penalty).backward()
        self.adam_d.step()
        self.gather(True)
        return value.item(), penalty.item()

    def generator_step(self, y, s, scale):
        self.gather(False)
        masks = self.G.masks(self.task, s)
        value = self.D(self.G(self.noise(y), self.task, masks))[0].mean()
        taken = sum((m * (1 - r)).sum() for m, r in zip(masks, self.G.reserved))
        sparsity = taken / sum((1 - r).sum() for r in self.G.reserved)
        loss = self.config.sparsity * self.share * sparsity - self.config.adversarial * value
        self.adam_g.zero_grad()
        loss.backward()
        for l, weight in enumerate(self.G.weights):
            weight.grad *= 1 - self.G.reserved[l]
            e = self.G.tables[l].weight
            steep = torch.clamp(s * e.detach(), -50, 50)
            e.grad *= scale / s * (torch.cosh(steep) + 1) / (torch.cosh(e.detach()) + 1)
        torch.nn.utils.clip_grad_norm_(self.G.parameters(), self.config.clip)
        self.adam_g.step()
        self.gather(True)
        return loss.item(), sparsity.item()
