"""SpaceNet: each task gets a few sparse connections that gather in few neurons (Sokar et al. 2021).

    SPACENET(tasks): the network begins without any connection, all neurons free       algorithm 1
    for each task t:
        h_sel <- some free neurons of each layer                                       algorithm 2  choose
        W_t <- that many connections, scattered evenly between the chosen neurons      algorithm 2  block
        set the output rows of old classes aside                                       section 4    Compact
        for each epoch:
            W_t <- W_t - lr g, everything older held still                             eq. 1        step
            Omega <- Omega + |g dW|                                                    eq. 2, 3     update
            a_i <- sum of Omega over the connections into neuron i                     eq. 4      importances
            drop the share r of W_t with the smallest Omega                       algorithm 3  Block.rewire
            grow as many, at zero, where a_target a_source is largest             eq. 5        Block.rewire
        reserve the chosen neurons with the largest a for this task                    algorithm 4  reserve
    test: all output rows back in, argmax over all classes                                          forward

Static (adaptive=False) leaves out drop and grow. Rehearsal (rehearsal=True) also shows the images of old
tasks, with the old output rows in place but held still. For convolutions (section 4, last paragraph of the
task training) the unit is a kernel: one mask entry, one Omega (the sum over its weights) for all of its
weights; where the feature maps meet the fully connected layer it is the whole map as one unit sees it.

Details the paper leaves open, or the authors' code does otherwise
1. Softmax. The paper lets the output layer grow; the code's loss covers all classes of the stream from task
   1 on, where a class without a row counts with its bias alone. That constant gives every task the same
   scale and matters a great deal (setting `softmax`: all, as the code; seen; task).
2. Neuron importance. The paper sums Omega as it stands; the code adds that sum to itself at every step, so
   that early steps count more, and keeps the Omega of a dropped connection. importance="paper" and "code";
   the paper's is the default and does better. Inputs, of which the paper says nothing, sum over what leaves
   them (code).
3. Growth. The text calls it a probability; algorithm 3 and the code take the positions with the largest
   product. A position dropped just now cannot grow back in the same event (code).
4. When, and how many. The code rewires after every epoch but the last: the paper's loop, read literally,
   would end a task with untrained zeros in the place of trained connections. The rewiring ratio 0.2 stands in
   the code alone, and so do the numbers of connections by layer, which are the paper's 2 % as a mean over the
   layers. The output layer is never rewired.
5. Reserved neurons neither receive nor send new connections (algorithm 2, code; the prose has the first
   only). Only chosen neurons are reserved; the code ranks all neurons, which could reserve one that was
   never chosen.
6. Start values. One dense Glorot draw serves all tasks (code), not rescaled for sparsity; here its seed is
   kept instead of its values. Grown connections start at zero.
7. Biases, of which the paper says nothing: as in the code those of all neurons that are not reserved are
   trained, and output biases with their own task only. So old scores drift a little although old weights do
   not move; hidden_bias=False stops it.
8. |g dW| is computed as lr g^2, which it is for plain gradient descent; the code subtracts weights in
   float32.
9. Ties of Omega (a neuron with nothing behind it gives its connections exactly zero) are broken at random.
10. Pixels are standardised with the mean and deviation of the data set (code); without it little is
    learned.
11. Not enough places: as many connections as fit are allocated, and the table "connections" says how many
    were missing. The code would stop with an error; the convolutional network does run out in its last
    task.
12. Rehearsal is not in the code. Our reading: the union of all images, loss over all classes, all output
    rows in place, gradients for the current task's connections only. It wants a larger rate (0.1).

Records: "loss" (epoch, loss); "masks" (layer, epoch, targets, sources, mask), "importance" (layer, epoch,
omega, target_importance, source_importance), "rewiring" (layer, epoch, dropped, grown), "neurons" (layer,
chosen, reserved, free), "connections" (layer, asked, allocated, total, places), "network" (connections,
weights, biases, masks_at_test).
Keeps between tasks: the weights, a mask of the places taken and of the neurons free, both needed for learning
and not for testing; rehearsal also every image seen.
"""

import math
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import nn
from torch.nn import functional as F

from clkit import nets
from clkit.learner import Learner, LearnerError


@dataclass(frozen=True)
class Config:
    """Defaults: split MNIST (section 5.1.1; what stands in the code alone is marked so)."""

    net: str = "mlp"            # network: mlp, or conv for that of section 5.3
    hidden: tuple = (400, 400)  # units of the fully connected hidden layers
    maps: tuple = ()            # feature maps of the convolutions; conv only, such as (32, 32, 64, 64)
    selected: tuple = (80, 80)  # sel: neurons chosen for a task in each hidden layer; () takes all free ones
    reserved: tuple = (40, 40)  # spec: of those, neurons reserved for the task
    connections: tuple | float = (10_000, 1_640, 80)  # of a task, by layer (code), or a share of all places
    rewire: float = 0.2         # r: share of the connections dropped and grown after an epoch (code)
    adaptive: bool = True       # False: connections stay where they were allocated (Static-SparseNN)
    rehearsal: bool = False     # True: the images of old tasks are shown again (SpaceNet-Rehearsal)
    importance: str = "paper"   # of neurons: "paper" (eq. 4) or "code" (summed up again at each step)
    growth: str = "importance"  # where connections grow: by "importance" (eq. 5) or "random"
    softmax: str = "all"        # classes in the loss: "all" of the stream (code), "seen", or of the "task"
    hidden_bias: bool = True    # biases of hidden neurons: trained as in the code, or none
    mean: tuple = (0.1307,)     # of the pixels, by channel (code)
    std: tuple = (0.3081,)      # their standard deviation, by channel (code)
    epochs: int = 4             # passes over the images of a task
    batch: int = 128            # images in a step
    lr: float = 0.01            # learning rate of gradient descent without momentum

    def __post_init__(self):
        if self.epochs < 1 or self.batch < 1 or not self.lr > 0:
            raise LearnerError("epochs and batch must be at least 1, and lr above 0")
        if self.net not in ("mlp", "conv") or (self.net == "conv") != bool(self.maps):
            raise LearnerError("net must be 'mlp', without maps, or 'conv', with maps such as "
                               f"(32, 32, 64, 64): there is no network {self.net!r} with maps {self.maps}")
        if self.maps and (len(self.maps) != 4 or len(self.hidden) != 1):
            raise LearnerError("the convolutional network has four numbers of maps and one of hidden units, "
                               f"not {self.maps} and {self.hidden}")
        for name, known in (("importance", ("paper", "code")), ("growth", ("importance", "random")),
                            ("softmax", ("all", "seen", "task"))):
            if getattr(self, name) not in known:
                raise LearnerError(f"{name} must be {' or '.join(map(repr, known))}, not "
                                   f"{getattr(self, name)!r}")
        if not 0 <= self.rewire < 1:
            raise LearnerError(f"rewire is a share of the connections in [0, 1), not {self.rewire}")
        _check_neurons((*self.maps, *self.hidden), self.selected, self.reserved)
        if isinstance(self.connections, float):
            if not 0 < self.connections <= 1:
                raise LearnerError("connections as a share of the places lies in (0, 1], not "
                                   f"{self.connections}")
        elif len(self.connections) != len(self.maps) + len(self.hidden) + 1 or min(self.connections) < 1:
            raise LearnerError(f"connections has a number of 1 or more for each layer, here "
                               f"{len(self.maps) + len(self.hidden) + 1} layers, not {self.connections}")
        if len(self.mean) != len(self.std) or not all(s > 0 for s in self.std):
            raise LearnerError("mean and std have a number for each channel, those of std above 0")


def _check_neurons(units, selected, reserved):
    """Whether as many neurons can be chosen and reserved in hidden layers of so many units."""
    if min(units, default=0) < 1:
        raise LearnerError(f"hidden layers have one unit or more, not {units}")
    if len(reserved) != len(units) or len(selected) not in (0, len(units)):
        raise LearnerError(f"selected and reserved have a number for each of the {len(units)} hidden layers, "
                           f"not {selected} and {reserved}")
    for most, some, few in zip(units, selected or units, reserved):
        if not 1 <= some <= most:
            raise LearnerError(f"selected: {some} neurons of a hidden layer of {most} cannot be chosen")
        if not 0 <= few <= some:
            raise LearnerError(f"reserved: {few} of {some} selected neurons cannot be reserved")


# ---- the connections of a task in one layer

class Block:
    """The connections that one task trains in one layer, between its chosen neurons.

    targets (O,), sources (I,): the neurons.   values (O, I, K): the weights there, older ones included; K
    weights make a connection: 1, those of a kernel, or those of a whole feature map.   allowed (O, I): where
    the task may have a connection.   mask (O, I): 1 where it has one, else 0.   omega (O, I): importance
    (eq. 3); means something under the mask only.   keeps: whether a connection that is dropped keeps its
    omega (code).   into (O,), out (I,): the code's sums of omega over steps, by target and by source.
    """

    def __init__(self, values, targets, sources, allowed, wanted, keeps=False):
        self.values, self.targets, self.sources = values, targets, sources
        self.flat = values[:, :, 0]                     # the same, where a connection has one weight
        self.allowed, self.keeps = allowed, keeps
        places = int(allowed.sum())
        self.count = min(wanted, places)
        self.spare = places - self.count                # places where something could grow
        chosen = _pick(torch.where(allowed, 0.0, math.inf), self.count)
        self.mask = torch.zeros_like(allowed, dtype=values.dtype).view(-1).index_fill_(0, chosen, 1)
        self.mask = self.mask.view_as(allowed)                                  # (O, I)
        self.omega = torch.zeros_like(self.mask)
        self.into, self.out = (self.mask.new_zeros(n) for n in self.mask.shape)

    def update(self, gradient, lr):
        """A step of gradient descent on the task's connections, and what it adds to omega (eq. 1 to 3).

        gradient: of the loss with respect to `values`, (O, I), or (O, I, K) where connections have K weights.
        Without `keeps`, omega also gathers outside the mask, where nobody looks: that saves a product.
        """
        if self.keeps:
            gradient = gradient * self.mask.view(*self.mask.shape, *[1] * (gradient.ndim - 2))
        if gradient.ndim == 2:
            self.flat.addcmul_(gradient, self.mask, value=-lr)
            self.omega.addcmul_(gradient, gradient, value=lr)
        else:
            self.values.addcmul_(gradient, self.mask[:, :, None], value=-lr)
            self.omega.add_(gradient.square().sum(2), alpha=lr)

    def accumulate(self):
        """The code's reading of eq. 4: add the sums of omega, themselves sums, once more at each step."""
        self.into += self.omega.sum(1)
        self.out += self.omega.sum(0)

    def rewire(self, share, target_importance, source_importance, growth):
        """Drop the least important connections, grow as many elsewhere (algorithm 3); how many, an int.

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
        if not self.keeps:
            self.omega.view(-1).index_fill_(0, grown, 0)
        # what was dropped becomes 0; what grows is 0 already, because nothing was there
        gone = torch.zeros_like(there).view(-1).index_fill_(0, dropped, True).view_as(there)
        self.values.masked_fill_(gone[:, :, None], 0)
        return k

    def state_dict(self):
        """All that changes while the task trains."""
        names = ("values", "mask", "omega", "into", "out")
        return {name: getattr(self, name) for name in names}

    def load_state_dict(self, state):
        """Take over the tensors of a `state_dict`, in place: `values` may be a view of something larger."""
        for name, tensor in state.items():
            getattr(self, name).copy_(tensor)


def _pick(cost, k):
    """Flat places of the k smallest entries of `cost`; which of equals come first is left to chance."""
    shuffled = torch.randperm(cost.numel(), device=cost.device)
    best = cost.view(-1)[shuffled].topk(k, largest=False, sorted=False).indices
    return shuffled[best]                                                       # (k,)


def importances(blocks, reading):
    """[(a of the targets, a of the sources)] of each block (eq. 4): (O,), (I,).

    A hidden neuron counts what comes into it, an input what leaves it.
    """
    if reading == "code":
        into, out = [b.into for b in blocks], blocks[0].out
    else:
        there = [b.omega * b.mask for b in blocks]
        into, out = [omega.sum(1) for omega in there], there[0].sum(0)
    return list(zip(into, [out, *into[:-1]]))


# ---- training on compact matrices: fully connected networks

class Compact:
    """The part of a fully connected network that matters while a task trains, as small dense matrices.

    Of a hidden layer only `live` neurons reach the loss: the chosen ones, and those with an older connection
    towards a live neuron of the next layer; the chosen come first. What old connections give to the other
    live neurons of the first layer does not change while a task trains, and is computed once.

    matrices[l]: (live out, live in), old and new weights; its upper left corner is the block's `values`.
    Output rows of old classes are left out, or, with rehearsal, put back in.
    """

    def __init__(self, learner, images, labels, task, chosen):
        self.config, self.learner, self.lr = learner.config, learner, learner.config.lr
        weights = [layer.weight for layer in learner.layers]
        self.live = self._live(weights, learner, task, chosen)
        self.matrices, self.blocks, self.biases, self.moving = [], [], [], []
        start = learner.start_values()
        for l, (into, out) in enumerate(pairwise(self.live)):
            rows = out[:len(chosen[l + 1])] if l == 0 else out                  # of layer 1 the chosen only
            matrix = weights[l].detach()[rows[:, None], into]                   # (rows, live in), a copy
            bias, moving = learner.layers[l].bias.detach()[out], learner.moves(l, out, task)    # (live out,)
            if l == len(weights) - 1:  # one more row: what classes that take no part add to the softmax
                matrix, moving = F.pad(matrix, (0, 0, 0, 1)), F.pad(moving, (0, 1))
                bias = torch.cat([bias, learner.rest(task, out)[None]])
            corner = matrix[:len(chosen[l + 1]), :len(chosen[l]), None]
            self.matrices.append(matrix)
            self.blocks.append(learner.block(l, corner, chosen[l + 1], chosen[l], start[l]))
            self.biases.append(bias)
            self.moving.append(moving.to(matrix.dtype))
        self.turned = [matrix.T for matrix in self.matrices]
        self.images, self.pixels = images, images.images.flatten(1)             # (N, D), bytes
        self.scale, self.shift = learner.scale_and_shift(weights[0].dtype)
        rows = F.pad(self.live[-1], (0, 1), value=-1)
        self.y = (labels[:, None] == rows).to(self.scale.dtype)                 # (N, rows + 1), one-hot
        others = weights[0].detach()[self.live[1][len(chosen[1]):]]             # (others, D)
        # what a step writes to is made once: memory asked for anew each time costs more than the arithmetic
        self.room = self.scale.new_empty(max(1000, self.config.batch), len(self.scale))
        self.gradients = [torch.empty_like(block.mask) for block in self.blocks]
        parts = torch.arange(len(labels), device=others.device).split(1000)
        self.constant = torch.cat([self.inputs(part) @ others.T for part in parts])             # (N, others)

    @staticmethod
    def _live(weights, learner, task, chosen):
        """Live neurons of each layer, inputs and classes included, the chosen first: [(n,)]."""
        live = [chosen[-1]]
        if learner.config.rehearsal:
            live = [torch.cat([chosen[-1], torch.arange(task.first, device=chosen[-1].device)])]
        for weight, own in zip(reversed(weights[1:]), reversed(chosen[1:-1])):
            reaches = (weight.detach()[live[0]] != 0).any(0).index_fill_(0, own, False)
            live.insert(0, torch.cat([own, reaches.nonzero()[:, 0]]))
        return [chosen[0], *live]

    def epoch(self):
        """Train on all images once; the mean loss of the steps."""
        total, batches = 0.0, self.images.batches(self.config.batch)
        for places in batches.places():
            total += self.step(places)
        return total / len(batches)

    def step(self, places):
        """One step of gradient descent on the images at `places` (B,); the loss before it, a scalar."""
        hidden, scores = self.forward(places)
        y, logs = self.y.index_select(0, places), scores.log_softmax(1)         # (B, rows + 1)
        loss = logs.flatten().dot(y.flatten()) / -len(y)
        delta = logs.exp_().sub_(y).mul_(1 / len(y))                            # d loss / d scores
        for l in reversed(range(len(self.blocks))):
            block, before = self.blocks[l], hidden[l]
            own_out, own_in = block.mask.shape
            gradient = torch.mm(delta[:, :own_out].T, before[:, :own_in], out=self.gradients[l])    # (O, I)
            self.biases[l].addcmul_(delta.sum(0), self.moving[l], value=-self.lr)
            if l:                                       # through the ReLU of the layer below
                delta = torch.ops.aten.threshold_backward(delta @ self.matrices[l], before, 0)  # (B, live in)
            block.update(gradient, self.lr)
            if self.config.importance == "code":
                block.accumulate()
        return loss

    def inputs(self, places):
        """The standardised pixels of the images at `places` (B,): (B, D)."""
        x = self.room[:len(places)].copy_(self.pixels.index_select(0, places))
        return torch.addcmul(self.shift, x, self.scale, out=x)

    def forward(self, places):
        """([input (B, D), hidden activations (B, live), ...], scores of the rows in play (B, rows + 1))."""
        x = self.inputs(places)                                                 # (B, D)
        z = x @ self.turned[0]                                                  # (B, chosen)
        if self.constant.shape[1]:
            z = torch.cat([z, self.constant.index_select(0, places)], 1)        # (B, live)
        hidden = [x, z.add_(self.biases[0]).relu_()]
        for turned, bias in zip(self.turned[1:-1], self.biases[1:-1]):
            hidden.append(torch.addmm(bias, hidden[-1], turned).relu_())        # (B, live)
        return hidden, torch.addmm(self.biases[-1], hidden[-1], self.turned[-1])

    @torch.no_grad()
    def put(self):
        """Write weights and biases into the network."""
        for layer, block, bias, out in zip(self.learner.layers, self.blocks, self.biases, self.live[1:]):
            layer.weight[block.targets[:, None], block.sources] = block.values[:, :, 0]
            layer.bias[out] = bias[:len(out)]

    def state_dict(self):
        """All that changes while the task trains."""
        return {"blocks": [b.state_dict() for b in self.blocks], "biases": self.biases}

    def load_state_dict(self, state):
        """Take over a `state_dict`."""
        for block, saved in zip(self.blocks, state["blocks"]):
            block.load_state_dict(saved)
        for bias, saved in zip(self.biases, state["biases"]):
            bias.copy_(saved)


# ---- training the whole network by autograd: convolutions

class Whole:
    """The same for a convolutional network, whose kernels are trained in place; masks act on gradients."""

    def __init__(self, learner, images, labels, task, chosen):
        self.config, self.learner, self.images, self.lr = learner.config, learner, images, learner.config.lr
        self.blocks, self.moving, start = [], [], learner.start_values()
        for l, layer in enumerate(learner.layers):
            values = learner.units(l, layer.weight.detach())                    # (O, I, K), a view
            self.blocks.append(learner.block(l, values, chosen[l + 1], chosen[l], start[l]))
            every = torch.arange(len(layer.bias), device=values.device)
            self.moving.append(learner.moves(l, every, task).to(values.dtype))
        self.rows = torch.arange(task.seen, device=chosen[-1].device)           # output rows in play
        if not self.config.rehearsal:
            self.rows = self.rows[task.first:]
        self.rest = learner.rest(task, self.rows)

    def epoch(self):
        """Train on all images once; the mean loss of the steps."""
        total, batches = 0.0, self.images.batches(self.config.batch)
        for x, y in batches:
            total += self.step(x, y)
        return total / len(batches)

    def step(self, x, y):
        """One step of gradient descent on x (B, C, H, W) and y (B,); the loss before it, a scalar."""
        net, first = self.learner.net, self.rows[0]
        features = net.features(self.learner.standardised(x.to(net.head.weight.dtype)))         # (B, D)
        scores = F.linear(features, net.head.weight[self.rows], net.head.bias[self.rows])       # (B, rows)
        norm = torch.logaddexp(scores.logsumexp(1), self.rest)
        loss = (norm - scores.gather(1, (y - first)[:, None])[:, 0]).mean()
        parameters = [p for layer in self.learner.layers for p in (layer.weight, layer.bias)]
        gradients = torch.autograd.grad(loss, parameters)
        with torch.no_grad():
            for l, layer in enumerate(self.learner.layers):
                layer.bias.sub_(gradients[2 * l + 1] * self.moving[l], alpha=self.lr)
                self.blocks[l].update(self.learner.units(l, gradients[2 * l]), self.lr)
                if self.config.importance == "code":
                    self.blocks[l].accumulate()
        return loss.detach()

    def put(self):
        """Nothing to write: the network itself is trained."""

    def state_dict(self):
        """All that changes while the task trains, beside the network."""
        return {"blocks": [b.state_dict() for b in self.blocks]}

    def load_state_dict(self, state):
        """Take over a `state_dict`."""
        for block, saved in zip(self.blocks, state["blocks"]):
            block.load_state_dict(saved)


# ---- the learner

class SpaceNet(Learner):
    """SpaceNet, its static variant and its variant with rehearsal."""

    tables = {
        "loss": "one row an epoch: epoch, loss",
        "masks": "one row a layer at allocation and after each epoch: layer (0: from the inputs), epoch (0: "
                 "at allocation), targets (O,) and sources (I,), neuron numbers, mask (O, I) of the task",
        "importance": "one row a layer an epoch: layer, epoch (from 1), omega (O, I), target_importance "
                      "(O,), source_importance (I,), before the rewiring",
        "rewiring": "one row a layer an event: layer, epoch (from 1), dropped, grown",
        "neurons": "one row a hidden layer a task: layer, chosen, reserved (neuron numbers), free (how many)",
        "connections": "one row a layer a task: layer, asked, allocated, total (of all tasks), places",
        "network": "one row a task: connections (of all layers and tasks), their weights, biases, "
                   "masks_at_test (none)"}
    memory_kinds = {"taken": "masks", "free": "masks", "memory_": "exemplars"}

    def __init__(self, config, shape, classes):
        super().__init__(config, shape, classes)
        self.keeps_data = config.rehearsal
        self.net = (nets.ZenkeNet(shape, classes, config.maps, *config.hidden) if config.maps
                    else nets.MLP(shape, classes, config.hidden))
        self.counts = (shape[0] if config.maps else math.prod(shape), *config.maps, *config.hidden, classes)
        self._check(shape, classes)
        for layer in self.layers:
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)
        for l, (sources, targets) in enumerate(pairwise(self.counts)):
            self.register_buffer(f"taken{l}", torch.zeros(targets, sources, dtype=torch.bool, device="cpu"))
            if l < len(self.counts) - 2:
                self.register_buffer(f"free{l}", torch.ones(targets, dtype=torch.bool, device="cpu"))
        for name in ("mean", "std"):                    # (C, 1, 1); settings, no state
            values = torch.tensor(getattr(config, name), device="cpu")[:, None, None]
            self.register_buffer(name, values, persistent=False)
        self.register_buffer("seed", torch.randint(2**62, (), device="cpu"))    # of the start values
        if config.rehearsal:
            self.register_buffer("memory_images", torch.zeros(0, *shape, dtype=torch.uint8, device="cpu"))
            self.register_buffer("memory_labels", torch.zeros(0, dtype=torch.int64, device="cpu"))

    def _check(self, shape, classes):
        config = self.config
        if len(config.mean) not in (1, shape[0]):
            raise LearnerError(f"mean and std have {len(config.mean)} numbers, the images {shape[0]} "
                               "channels")
        chosen = (self.counts[0], *(config.selected or self.counts[1:-1]), classes)
        for l, wanted in enumerate(self.wanted()):
            places = chosen[l] * chosen[l + 1]
            if wanted > places and not isinstance(config.connections, float):
                raise LearnerError(f"connections: layer {l + 1} has {places:,} places between the neurons "
                                   f"selected, too few for {wanted:,} connections")

    @property
    def layers(self):
        """The layers with weights, from the inputs on."""
        return [m for m in self.net.modules() if isinstance(m, nn.Conv2d | nn.Linear)]

    def wanted(self):
        """How many connections a task asks for, by layer."""
        share = self.config.connections
        if not isinstance(share, float):
            return self.config.connections
        return [max(1, round(share * a * b)) for a, b in pairwise(self.counts)]

    def units(self, l, weight):
        """The weights of layer l by pairs of neurons: (O, I, K), a view."""
        return weight.view(self.counts[l + 1], self.counts[l], -1)

    def standardised(self, x):
        """Pixels in [0, 1] (B, C, H, W) with the mean and deviation of the data set taken out."""
        return (x - self.mean) / self.std

    def scale_and_shift(self, dtype):
        """The same for flat bytes: x * scale + shift, (D,) each."""
        pair = 1 / (255 * self.std), -self.mean / self.std
        return [v.to(dtype).expand(self.shape).flatten().contiguous() for v in pair]

    def learn(self, task, trace):
        images, labels = self.images(task)
        chosen = self.choose(task)
        path = (Whole if self.config.maps else Compact)(self, images, labels, task, chosen)
        self.report_masks(path.blocks, 0, trace)
        for epoch in trace.epochs("sparse training", self.config.epochs, path):
            loss = path.epoch()
            self.report_importance(path.blocks, epoch + 1, trace)
            if epoch < self.config.epochs - 1:
                self.rewire(path.blocks, epoch + 1, trace)
            path.put()
            self.report_masks(path.blocks, epoch + 1, trace)
            trace("loss", epoch=epoch, loss=loss)
        path.put()                                      # again: a loop that was finished before is skipped
        reserved = self.reserve(path.blocks, chosen)
        self.report(path.blocks, chosen, reserved, trace)

    def images(self, task):
        """The images and labels to train on: those of the task, with rehearsal of all tasks so far."""
        if not self.config.rehearsal:
            return task.train, task.train.labels
        self.memory_images = torch.cat([self.memory_images, task.train.images])                 # (N, C, H, W)
        self.memory_labels = torch.cat([self.memory_labels, task.train.labels])                 # (N,)
        return task.train.like(self.memory_images, self.memory_labels), self.memory_labels

    def choose(self, task):
        """The neurons that the task may use (algorithm 2): [inputs, by hidden layer ..., its classes]."""
        device = self.seed.device
        chosen = [torch.arange(self.counts[0], device=device)]
        for j in range(len(self.counts) - 2):
            free = getattr(self, f"free{j}")
            wanted = self.config.selected[j] if self.config.selected else len(free)
            chosen.append(_pick(torch.where(free, 0.0, math.inf), min(wanted, int(free.sum()))).sort().values)
        return [*chosen, torch.arange(task.first, task.seen, device=device)]

    def block(self, l, values, targets, sources, start):
        """The Block of layer l between chosen neurons, its connections allocated at their start values.

        values: (O, I, K), of the chosen neurons, or of all neurons of the layer.   start: of `start_values`.
        """
        taken, start = getattr(self, f"taken{l}"), self.units(l, start)
        if values.shape[:2] == taken.shape:             # all neurons, in their own order
            mine = torch.zeros_like(taken).index_fill_(0, targets, True)
            allowed = mine & torch.zeros_like(taken).index_fill_(1, sources, True) & ~taken
            targets, sources = (torch.arange(n, device=taken.device) for n in taken.shape)
        else:
            allowed = ~taken[targets[:, None], sources]
        keeps = self.config.importance == "code"
        block = Block(values, targets, sources, allowed, self.wanted()[l], keeps)
        new = start.to(values.dtype)[targets[:, None], sources]                 # (O, I, K)
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

    def moves(self, l, neurons, task):
        """1 for those of the neurons (n,) of layer l + 1 whose bias is trained in this task, else 0."""
        if l == len(self.counts) - 2:
            return (neurons >= task.first).long()
        return getattr(self, f"free{l}")[neurons].long() * int(self.config.hidden_bias)

    def rest(self, task, rows):
        """log of what the classes without a row in play add to the softmax, constant while a task trains.

        Where they add nothing it is far below any score, but finite: 0 times minus infinity is no number.
        """
        covered = {"all": self.classes, "seen": task.seen, "task": task.seen}[self.config.softmax]
        others = torch.ones(self.classes, dtype=torch.bool, device=rows.device).index_fill_(0, rows, False)
        others[covered:] = False
        if self.config.softmax == "task":
            others[:] = False
        bias = self.net.head.bias.detach()
        return torch.where(others, bias, -math.inf).logsumexp(0).clamp(min=-1e30)

    def rewire(self, blocks, epoch, trace):
        """Drop and grow in all layers but the last (algorithm 3); nothing where connections are static."""
        ranked, share = importances(blocks, self.config.importance), self.config.rewire * self.config.adaptive
        for l, (block, (targets, sources)) in enumerate(zip(blocks[:-1], ranked)):
            k = block.rewire(share, targets, sources, self.config.growth) if share else 0
            trace("rewiring", layer=l, epoch=epoch, dropped=k, grown=k)

    def reserve(self, blocks, chosen):
        """Take the task's most important neurons from the free ones, note the places taken (algorithm 4).

        Returns the numbers of the reserved neurons, [(n,)] by hidden layer.
        """
        reserved = []
        for l, (block, (a, _)) in enumerate(zip(blocks, importances(blocks, self.config.importance))):
            taken = getattr(self, f"taken{l}")
            taken[block.targets[:, None], block.sources] |= block.mask > 0
            if l < len(blocks) - 1:
                mine = chosen[l + 1]
                scores = a.new_zeros(len(taken)).index_copy_(0, block.targets, a)[mine]
                best = scores.topk(min(self.config.reserved[l], len(mine))).indices
                reserved.append(mine[best].sort().values)
                getattr(self, f"free{l}").index_fill_(0, reserved[-1], False)
        return reserved

    def report_masks(self, blocks, epoch, trace):
        """Rows of the table "masks"."""
        if trace.wants("masks"):
            for l, b in enumerate(blocks):
                trace("masks", layer=l, epoch=epoch, targets=b.targets, sources=b.sources, mask=b.mask > 0)

    def report_importance(self, blocks, epoch, trace):
        """Rows of the table "importance"."""
        if trace.wants("importance"):
            ranked = importances(blocks, self.config.importance)
            for l, (b, (targets, sources)) in enumerate(zip(blocks, ranked)):
                trace("importance", layer=l, epoch=epoch, omega=b.omega * b.mask, target_importance=targets,
                      source_importance=sources)

    def report(self, blocks, chosen, reserved, trace):
        """Rows of the tables "neurons", "connections" and "network"."""
        totals = [getattr(self, f"taken{l}").sum() for l in range(len(blocks))]
        for l, numbers in enumerate(reserved):
            free = getattr(self, f"free{l}").sum()
            trace("neurons", layer=l, chosen=chosen[l + 1], reserved=numbers, free=free)
        for l, (block, wanted) in enumerate(zip(blocks, self.wanted())):
            trace("connections", layer=l, asked=wanted, allocated=block.count, total=totals[l],
                  places=self.counts[l] * self.counts[l + 1])
        weights = sum(layer.weight.numel() // (n * m) * total for layer, total, (n, m)
                      in zip(self.layers, totals, pairwise(self.counts)))
        trace("network", connections=torch.stack(totals).sum(), weights=weights, biases=sum(self.counts[1:]),
              masks_at_test=0)

    @torch.no_grad()
    def activations(self, x):
        """Activations of all hidden layers, side by side: x (B, C, H, W) in [0, 1] -> (B, units)."""
        found = []

        def look(layer, inputs, output):
            found.append(output.relu().flatten(1))
        hooks = [layer.register_forward_hook(look) for layer in self.layers[:-1]]
        self(x)
        for hook in hooks:
            hook.remove()
        return torch.cat(found, 1)

    def forward(self, x):
        return self.net(self.standardised(x))                                   # (B, K)
