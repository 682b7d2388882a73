"""SpaceNet: each task gets a few sparse connections that gather in few neurons (Sokar et al. 2021).

    python -m clkit run spacenet/split-mnist --preset paper   # seconds for each seed: 73.8 % (paper 75.5)

See also: compact.py (the same for fully connected networks, faster), checks.py (settings that cannot work),
papers/spacenet.py, plots/spacenet.py, figures/spacenet.py, book/explore/spacenet.py.

    SPACENET(tasks): the network starts with no connection, all neurons are free       algorithm 1
    for each task t:
        h_sel <- some free neurons of each layer                             algorithm 2  SpaceNet.choose
        W_t <- that many connections, scattered evenly between them          algorithm 2  SpaceNet.allocate
        set the output rows of old classes aside                             section 4    MaskedNet.loss
        for each epoch:
            W_t <- W_t - lr g, older connections stay fixed                  eq. 1        Block.update
            Omega <- Omega + |g dW|                                          eq. 2, 3     Block.update
            a_i <- sum of Omega over the connections into neuron i           eq. 4        importances
            drop the share r of W_t with the smallest Omega                  algorithm 3  Block.rewire
            grow as many, at zero, where a_target a_source is largest        eq. 5        Block.rewire
        reserve the chosen neurons with the largest a for this task          algorithm 4  SpaceNet.reserve
    test: all output rows back in, argmax over all classes                                SpaceNet.forward

Static (adaptive=False) omits drop and grow. Rehearsal (rehearsal=True) also trains on the images of old
tasks, with the old output rows in place but fixed. For convolutions (section 4, last paragraph of the task
training) the unit is a kernel, with one mask entry and one Omega (the sum over its weights). Where feature
maps meet the fully connected layer, the unit is the block of weights from a whole map to one neuron.

Details that the paper leaves open, or that the authors' code handles otherwise
1. Softmax. The paper lets the output layer grow; the code's loss covers all classes of the stream from task
   1 on, where a class without a row counts with its bias alone. That constant gives every task the same
   scale and matters a great deal (setting `softmax`: all, as in the code; seen; task).
2. Neuron importance. The paper sums Omega as it stands; the code adds that sum to itself at every step, so
   that early steps count more, and keeps the Omega of a dropped connection. importance="paper" and "code";
   the paper's is the default and does better. The paper does not define the importance of an input; the
   code sums over its outgoing connections.
3. Growth. The text calls it a probability; algorithm 3 and the code take the positions with the largest
   product. A position dropped just now cannot grow back in the same event (code).
4. When, and how many. The code rewires after every epoch but the last: the paper's loop, read literally,
   would end a task with untrained zeros in place of trained connections. Only the code gives the rewiring
   ratio, 0.2, and the number of connections in each layer; its mean share over the layers is the paper's
   2 %. The output layer is never rewired.
5. Reserved neurons neither receive nor send new connections (algorithm 2, code; the paper's text only says
   that they receive none). Only chosen neurons are reserved; the code ranks all neurons, and so could
   reserve one that was never chosen.
6. Start values. One dense Glorot draw serves all tasks (code), not rescaled for sparsity; here its seed is
   kept instead of its values. Grown connections start at zero.
7. Biases. The paper does not mention them. As in the code, the biases of all neurons that are not reserved
   are trained, and output biases during their own task only. So old logits drift slightly although old
   weights do not change; hidden_bias=False excludes this cause.
8. |g dW| is computed as lr g^2, which it is for plain gradient descent; the code subtracts float32 weights.
9. Ties of Omega are broken at random. (It is exactly zero where a neuron has no outgoing connection.)
10. Pixels are standardised with the mean and standard deviation of the data set (code); without that, little
    is learned.
11. Not enough places: as many connections as fit are allocated, and the table "connections" says how many
    were missing. The code would stop with an error; the convolutional network does run out in its last task.
12. Rehearsal is not in the code. Our reading: the union of all images, loss over all classes, all output
    rows in place, gradients for the current task's connections only. It needs a larger learning rate (0.1).

Records: what `SpaceNet.tables` describes.
Keeps between tasks: the weights, and masks of the occupied places and the free neurons, which learning needs
and testing does not; rehearsal also keeps every image seen.
"""

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import torch
from torch import nn
from torch.nn import functional as F

from clkit.blocks import nets
from clkit.engine.learner import Learner
from clkit.methods.spacenet import checks
from clkit.methods.spacenet.compact import CompactMLP

REVISION = 1                    # of the results: raise it when a change to this method changes an array


@dataclass(frozen=True)
class Config:
    """Defaults: split MNIST (section 5.1.1; what only the code gives is marked "code")."""

    net: Literal["mlp", "conv"] = "mlp"     # network: conv is that of section 5.3
    hidden: tuple = (400, 400)  # units of the fully connected hidden layers
    maps: tuple = ()            # feature maps of the convolutions; conv only, such as (32, 32, 64, 64)
    selected: tuple = (80, 80)  # sel: neurons chosen for a task in each hidden layer; () takes all free ones
    reserved: tuple = (40, 40)  # spec: of those, neurons reserved for the task
    connections: tuple | float = (10_000, 1_640, 80)  # of a task, by layer (code), or a share of all places
    rewire: float = 0.2         # r: share of the connections dropped and grown after an epoch (code)
    adaptive: bool = True       # False: connections stay where they were allocated (Static-SparseNN)
    rehearsal: bool = False     # True: the images of old tasks are shown again (SpaceNet-Rehearsal)
    importance: Literal["paper", "code"] = "paper"  # of neurons: eq. 4, or summed up again at each step
    growth: Literal["importance", "random"] = "importance"  # where connections grow: eq. 5, or anywhere
    softmax: Literal["all", "seen", "task"] = "all"     # classes in the loss; code: of the stream
    hidden_bias: bool = True    # biases of hidden neurons: trained as in the code, or none
    mean: tuple[float, ...] = (0.1307,)     # of the pixels, by channel (code)
    std: tuple[float, ...] = (0.3081,)      # their standard deviation, by channel (code)
    epochs: int = 4             # passes over the images of a task
    batch_size: int = 128       # images in a step
    lr: float = 0.01            # learning rate of gradient descent without momentum

    def __post_init__(self):
        checks.check_settings(self)


# ---- the connections of a task in one layer

class Block(nn.Module):
    """The connections that one task trains in one layer, between its chosen neurons.

    targets (O,), sources (I,): the neurons.   values (O, I, K): the weights there, older ones included; K
    weights make a connection: 1, those of a kernel, or those of a whole feature map.   allowed (O, I): where
    the task may have a connection.   wanted: how many it asks for.   reading: "paper" or "code" (detail 2).

    Changes while the task trains, beside `values`: mask (O, I), 1 where the task has a connection, else 0;
    omega (O, I), importance (eq. 3), valid under the mask only; fan_in (O,) and fan_out (I,),
    the code's sums of omega over steps, by target and by source.   count: how many connections there are.
    """

    def __init__(self, values, targets, sources, allowed, wanted, reading="paper"):
        super().__init__()
        self.targets, self.sources, self.allowed, self.reading = targets, sources, allowed, reading
        places = int(allowed.sum())
        self.count = min(wanted, places)
        self.spare = places - self.count                # places where something could grow
        chosen = _pick(torch.where(allowed, 0.0, math.inf), self.count)
        mask = values.new_zeros(allowed.numel()).index_fill_(0, chosen, 1).view_as(allowed)     # (O, I)
        self.register_buffer("values", values)
        self.register_buffer("mask", mask)
        self.register_buffer("omega", torch.zeros_like(mask))
        self.register_buffer("fan_in", values.new_zeros(len(targets)))
        self.register_buffer("fan_out", values.new_zeros(len(sources)))

    def update(self, gradient, lr):
        """A step of gradient descent on the task's connections, and what it adds to omega (eq. 1 to 3).

        gradient: of the loss with respect to `values`, (O, I, K).
        """
        gradient = gradient * self.mask[:, :, None]
        self.values -= lr * gradient
        self.omega.add_(gradient.square().sum(2), alpha=lr)
        if self.reading == "code":
            self.accumulate()

    def accumulate(self):
        """The code's reading of eq. 4: add the sums of omega again at each step."""
        self.fan_in += self.omega.sum(1)
        self.fan_out += self.omega.sum(0)

    def rewire(self, share, target_importance, source_importance, growth):
        """Drop the least important connections and grow as many (algorithm 3); returns how many, an int.

        target_importance: (O,), source_importance: (I,).   growth: "importance" or "random".
        """
        k = min(int(share * self.count), self.spare)
        there = self.mask > 0
        places = there.view(-1).nonzero()[:, 0]                                 # (count,)
        dropped = places[_pick(self.omega.view(-1)[places], k)]
        gain = target_importance[:, None] * source_importance                   # (O, I), G of eq. 5
        if growth == "random":
            gain = torch.rand_like(gain)
        grown = _pick(torch.where(self.allowed & ~there, -gain, math.inf), k)
        self.mask.view(-1).index_fill_(0, dropped, 0).index_fill_(0, grown, 1)
        if self.reading == "paper":
            self.omega.view(-1).index_fill_(0, grown, 0)
        self.values.masked_fill_((there & (self.mask == 0))[:, :, None], 0)     # what grows is 0 already
        return k


def _pick(cost, k):
    """Flat indices (k,) of the smallest entries of `cost`; ties are broken at random."""
    shuffled = torch.randperm(cost.numel(), device=cost.device)
    best = cost.view(-1)[shuffled].topk(k, largest=False, sorted=False).indices
    return shuffled[best]                                                       # (k,)


def importances(blocks):
    """[(a of the targets, a of the sources)] of each block (eq. 4): (O,), (I,).

    A hidden neuron sums over its incoming connections, an input over its outgoing ones.
    """
    if blocks[0].reading == "code":
        fan_in, fan_out = [b.fan_in for b in blocks], blocks[0].fan_out
    else:
        there = [b.omega * b.mask for b in blocks]
        fan_in, fan_out = [omega.sum(1) for omega in there], there[0].sum(0)
    return list(zip(fan_in, [fan_out, *fan_in[:-1]]))


# ---- training: the whole network by autograd

class MaskedNet:
    """Trains a task's connections in a network of either kind: gradients by autograd, then masked.

    images, labels: the training data.   chosen: from `SpaceNet.choose`.   blocks: one for each layer.   rows
    (R,): the output rows that take part, those of the task; with rehearsal those of all classes seen.
    """

    def __init__(self, learner, images, labels, task, chosen):
        self.learner, self.images, self.labels = learner, images.images, labels
        self.first = 0 if learner.config.rehearsal else task.first
        self.rows = torch.arange(self.first, task.seen, device=labels.device)
        self.absent = learner.absent_logsumexp(task, self.rows)
        self.blocks, self.trains_bias = [], []
        every = [torch.arange(n, device=labels.device) for n in learner.widths]
        span = every if learner.config.maps else chosen  # of the blocks: what a seed draws depends on it
        for l, (layer, start) in enumerate(zip(learner.layers, learner.start_values())):
            sources, targets = span[l:l + 2]
            values = learner.by_pairs(l, layer.weight.detach())[targets[:, None], sources]  # (O, I, K)
            self.blocks.append(learner.allocate(l, values, targets, sources, chosen, start))
            self.trains_bias.append(learner.trains_bias(l, every[l + 1], task).to(values.dtype))
        self.stateful = self.blocks                     # what a checkpoint holds beside the learner
        self.put()

    def loss(self, x, y):
        """Mean cross-entropy over the rows that take part and the absent classes, a scalar.

        x (B, C, H, W) in [0, 1], y (B,).
        """
        net = self.learner.net
        features = net.features(self.learner.standardised(x))                   # (B, D)
        logits = F.linear(features, net.head.weight[self.rows], net.head.bias[self.rows])       # (B, R)
        norm = torch.logaddexp(logits.logsumexp(1), self.absent)                # (B,)
        return (norm - logits.gather(1, (y - self.first)[:, None])[:, 0]).mean()

    def step(self, index):
        """A step of gradient descent on the images at `index` (B,); returns the loss before it, a scalar."""
        lr, layers = self.learner.config.lr, self.learner.layers
        x = self.images[index].to(layers[0].weight.dtype) / 255
        loss = self.loss(x, self.labels[index])
        parameters = [p for layer in layers for p in (layer.weight, layer.bias)]
        gradients = torch.autograd.grad(loss, parameters)
        with torch.no_grad():
            for l, (layer, block) in enumerate(zip(layers, self.blocks)):
                gradient = self.learner.by_pairs(l, gradients[2 * l])[block.targets[:, None], block.sources]
                block.update(gradient, lr)                                      # of (O, I, K)
                layer.bias.sub_(gradients[2 * l + 1] * self.trains_bias[l], alpha=lr)
        self.put()
        return loss.detach()

    @torch.no_grad()
    def put(self):
        """Write the blocks' values into the network."""
        for l, (layer, block) in enumerate(zip(self.learner.layers, self.blocks)):
            self.learner.by_pairs(l, layer.weight)[block.targets[:, None], block.sources] = block.values


# ---- the learner

class SpaceNet(Learner):
    """SpaceNet, its static variant and its variant with rehearsal."""

    tables = {
        "loss": "one row per epoch: epoch, loss",
        "masks": "one row per layer at allocation and after each epoch: layer (0: from the inputs), epoch "
                 "(0: at allocation), targets (O,) and sources (I,), neuron numbers, mask (O, I) of the task",
        "importance": "one row per layer and epoch: layer, epoch (from 1), omega (O, I), target_importance "
                      "(O,), source_importance (I,), before the rewiring",
        "rewiring": "one row per layer and rewiring: layer, epoch (from 1), dropped, grown",
        "neurons": "one row per hidden layer and task: layer, chosen, reserved (their numbers), free (count)",
        "connections": "one row per layer and task: layer, asked, allocated, total (of all tasks), places",
        "network": "one row per task: connections (of all layers and tasks), their weights, biases, "
                   "masks_at_test (none)"}
    memory_kinds = {"occupied": "masks", "free": "masks", "memory_": "exemplars"}
    readable = False            # True: fully connected networks, too, are trained by MaskedNet

    def __init__(self, config, shape, classes):
        super().__init__(config, shape, classes)
        self.stores_images = config.rehearsal
        self.net = (nets.ZenkeNet(shape, classes, config.maps, *config.hidden) if config.maps
                    else nets.MLP(shape, classes, config.hidden))
        self.layers = [m for m in self.net.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
        self.widths = (shape[0] if config.maps else math.prod(shape), *config.maps, *config.hidden, classes)
        self.wanted = config.connections                # of a task, by layer
        if not isinstance(self.wanted, tuple):
            self.wanted = [max(1, round(self.wanted * a * b)) for a, b in pairwise(self.widths)]
        checks.check_sizes(config, shape[0], self.widths, self.wanted)
        for layer in self.layers:
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)
        for l, (sources, targets) in enumerate(pairwise(self.widths)):
            occupied = torch.zeros(targets, sources, dtype=torch.bool, device="cpu")
            self.register_buffer(f"occupied{l}", occupied)
            if l < len(self.layers) - 1:
                self.register_buffer(f"free{l}", torch.ones(targets, dtype=torch.bool, device="cpu"))
        for name in ("mean", "std"):                    # (C, 1, 1); settings, no state
            values = torch.tensor(getattr(config, name), device="cpu")[:, None, None]
            self.register_buffer(name, values, persistent=False)
        self.register_buffer("seed", torch.randint(2**62, (), device="cpu"))    # of the start values
        if config.rehearsal:
            self.register_buffer("memory_images", torch.zeros(0, *shape, dtype=torch.uint8, device="cpu"))
            self.register_buffer("memory_labels", torch.zeros(0, dtype=torch.int64, device="cpu"))

    def by_pairs(self, l, weight):
        """The weights of layer l by pairs of neurons: (O, I, K), a view."""
        return weight.view(self.widths[l + 1], self.widths[l], -1)

    def standardised(self, x):
        """Standardise pixels in [0, 1] (B, C, H, W) by the mean and standard deviation of the data set."""
        return (x - self.mean) / self.std

    def forward(self, x):
        return self.net(self.standardised(x))                                   # (B, K)

    # -- learning

    def learn(self, task, trace):
        config, (images, labels), chosen = self.config, self.images(task), self.choose(task)
        backend = MaskedNet if self.readable or config.maps else CompactMLP
        training = backend(self, images, labels, task, chosen)
        self.report_masks(training.blocks, 0, trace)
        for epoch in trace.epochs("sparse training", config.epochs, *training.stateful):
            total, batches = 0.0, images.batches(config.batch_size)
            for index in batches.indices():
                total += training.step(index)
            self.rewire(training.blocks, epoch + 1, trace)
            training.put()
            self.report_masks(training.blocks, epoch + 1, trace)
            trace("loss", epoch=epoch, loss=total / len(batches))
        training.put()                                  # again: a loop that was finished before is skipped
        reserved = self.reserve(training.blocks, chosen)
        self.report(training.blocks, chosen, reserved, trace)

    def images(self, task):
        """The images and labels to train on: those of the task, with rehearsal of all tasks so far."""
        if not self.config.rehearsal:
            return task.train, task.train.labels
        self.memory_images = torch.cat([self.memory_images, task.train.images])                 # (N, C, H, W)
        self.memory_labels = torch.cat([self.memory_labels, task.train.labels])                 # (N,)
        return task.train.like(self.memory_images, self.memory_labels), self.memory_labels

    def choose(self, task):
        """Choose neurons for the task (algorithm 2): [inputs, those of each hidden layer ..., classes]."""
        device = self.seed.device
        chosen = [torch.arange(self.widths[0], device=device)]
        for j in range(len(self.widths) - 2):
            free = getattr(self, f"free{j}")
            wanted = self.config.selected[j] if self.config.selected else len(free)
            chosen.append(_pick(torch.where(free, 0.0, math.inf), min(wanted, int(free.sum()))).sort().values)
        return [*chosen, torch.arange(task.first, task.seen, device=device)]

    def allocate(self, l, values, targets, sources, chosen, start):
        """Allocate connections in layer l at their start values (algorithm 2); returns the Block.

        values: (O, I, K), weights between `targets` and `sources`, changed in place.   start: from
        `start_values`.
        """
        pair = targets[:, None], sources
        allowed = torch.isin(targets, chosen[l + 1])[:, None] & torch.isin(sources, chosen[l])
        allowed &= ~getattr(self, f"occupied{l}")[pair]
        block = Block(values, targets, sources, allowed, self.wanted[l], self.config.importance)
        new = self.by_pairs(l, start).to(values.dtype)[pair]                    # (O, I, K)
        values.copy_(torch.where(block.mask[:, :, None] > 0, new, values))
        return block

    def start_values(self):
        """The dense Glorot draw from which all tasks take the values of new connections, by layer."""
        draw, drawn = torch.Generator(device="cpu").manual_seed(int(self.seed)), []
        for layer in self.layers:
            size = layer.weight.shape
            fans = (size[0] + size[1]) * math.prod(size[2:])
            values = torch.empty(size, device="cpu").uniform_(-1, 1, generator=draw) * math.sqrt(6 / fans)
            drawn.append(values.to(layer.weight.device))
        return drawn

    def trains_bias(self, l, neurons, task):
        """1 for each of the neurons (n,) of layer l + 1 whose bias is trained in this task, else 0."""
        if l == len(self.widths) - 2:
            return (neurons >= task.first).long()
        return getattr(self, f"free{l}")[neurons].long() * int(self.config.hidden_bias)

    def absent_logsumexp(self, task, rows):
        """Log of what the absent classes add to the sum in the softmax, a constant during a task; a scalar.

        rows: those that take part. If the classes add nothing, the value is far below any logit but finite,
        because 0 times minus infinity is NaN.
        """
        covered = {"all": self.classes, "seen": task.seen, "task": 0}[self.config.softmax]
        absent = torch.ones(self.classes, dtype=torch.bool, device=rows.device).index_fill_(0, rows, False)
        absent[covered:] = False
        bias = self.net.head.bias.detach()
        return torch.where(absent, bias, -math.inf).logsumexp(0).clamp(min=-1e30)

    def rewire(self, blocks, epoch, trace):
        """After each epoch but the last, drop and grow in all layers but the last (algorithm 3)."""
        share = self.config.rewire if self.config.adaptive else 0
        for l, (b, (targets, sources)) in enumerate(zip(blocks, importances(blocks))):
            trace("importance", layer=l, epoch=epoch, omega=b.omega * b.mask, target_importance=targets,
                  source_importance=sources)
            if epoch < self.config.epochs and l < len(blocks) - 1:
                k = b.rewire(share, targets, sources, self.config.growth) if share else 0
                trace("rewiring", layer=l, epoch=epoch, dropped=k, grown=k)

    def reserve(self, blocks, chosen):
        """Reserve the task's most important neurons and mark its places as occupied (algorithm 4).

        Returns the numbers of the reserved neurons, [(n,)] by hidden layer.
        """
        reserved = []
        for l, (block, (a, _)) in enumerate(zip(blocks, importances(blocks))):
            occupied = getattr(self, f"occupied{l}")
            occupied[block.targets[:, None], block.sources] |= block.mask > 0
            if l < len(blocks) - 1:
                mine = chosen[l + 1]
                ranked = a[torch.searchsorted(block.targets, mine)]
                best = ranked.topk(min(self.config.reserved[l], len(mine))).indices
                reserved.append(mine[best].sort().values)
                getattr(self, f"free{l}").index_fill_(0, reserved[-1], False)
        return reserved

    # -- what it tells

    def report_masks(self, blocks, epoch, trace):
        """Rows of the table "masks"."""
        for l, b in enumerate(blocks):
            trace("masks", layer=l, epoch=epoch, targets=b.targets, sources=b.sources, mask=b.mask > 0)

    def report(self, blocks, chosen, reserved, trace):
        """Rows of the tables "neurons", "connections" and "network"."""
        totals = [getattr(self, f"occupied{l}").sum() for l in range(len(blocks))]
        for l, numbers in enumerate(reserved):
            free = getattr(self, f"free{l}").sum()
            trace("neurons", layer=l, chosen=chosen[l + 1], reserved=numbers, free=free)
        for l, (block, wanted) in enumerate(zip(blocks, self.wanted)):
            trace("connections", layer=l, asked=wanted, allocated=block.count, total=totals[l],
                  places=self.widths[l] * self.widths[l + 1])
        weights = sum(layer.weight.numel() // (n * m) * total for layer, total, (n, m)
                      in zip(self.layers, totals, pairwise(self.widths)))
        trace("network", connections=torch.stack(totals).sum(), weights=weights, biases=sum(self.widths[1:]),
              masks_at_test=0)

    @torch.no_grad()
    def activations(self, x):
        """Activations of all hidden layers, side by side: x (B, C, H, W) in [0, 1] -> (B, units)."""
        found = []
        hooks = [layer.register_forward_hook(lambda *event: found.append(event[2].relu().flatten(1)))
                 for layer in self.layers[:-1]]
        self(x)
        for hook in hooks:
            hook.remove()
        return torch.cat(found, 1)
