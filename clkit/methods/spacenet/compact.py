"""SpaceNet's fast path: a task of a fully connected network trained on small dense matrices, by hand.

It does the same as `MaskedNet` in spacenet.py and takes its blocks from the same functions, so that both draw
the same random numbers. A test holds the two equal step by step.
"""

from itertools import pairwise

import torch
from torch.nn import functional as F


class CompactMLP:
    """The part of a fully connected network that matters while a task trains, as small dense matrices.

    Of a hidden layer only `live` neurons reach the loss: the chosen ones, and those with an older connection
    to a live neuron of the next layer; the chosen ones come first. What old connections contribute to the
    other live neurons of the first layer is constant during a task, and is computed once.

    matrices[l]: (live out, live in), old and new weights; its upper left corner is the block's `values`.
    Output rows of old classes are omitted, or, with rehearsal, included.
    """

    def __init__(self, learner, images, labels, task, chosen):
        self.learner, self.lr, self.code = learner, learner.config.lr, learner.config.importance == "code"
        weights = [layer.weight for layer in learner.layers]
        self.live = self._live(weights, learner, task, chosen)
        self.matrices, self.blocks, self.biases, self.trains_bias = [], [], [], []
        start = learner.start_values()
        for l, (sources, out) in enumerate(pairwise(self.live)):
            rows = out[:len(chosen[l + 1])] if l == 0 else out                  # of layer 1 the chosen only
            matrix = weights[l].detach()[rows[:, None], sources]                # (rows, live in), a copy
            bias = learner.layers[l].bias.detach()[out]                         # (live out,)
            trains = learner.trains_bias(l, out, task)
            if l == len(weights) - 1:  # one more row: what classes that take no part add to the softmax
                matrix, trains = F.pad(matrix, (0, 0, 0, 1)), F.pad(trains, (0, 1))
                bias = torch.cat([bias, learner.absent_logsumexp(task, out)[None]])
            corner = matrix[:len(chosen[l + 1]), :len(chosen[l]), None]
            self.matrices.append(matrix)
            self.blocks.append(learner.allocate(l, corner, chosen[l + 1], chosen[l], chosen, start[l]))
            self.biases.append(bias)
            self.trains_bias.append(trains.to(matrix.dtype))
        self.parts = [(b.values[:, :, 0], b.mask, b.omega) for b in self.blocks]                # (O, I) each
        self.weights_t = [matrix.T for matrix in self.matrices]
        self.pixels = images.images.flatten(1)                                  # (N, D), bytes
        self.scale, self.shift = scale_and_shift(learner)
        rows = F.pad(self.live[-1], (0, 1), value=-1)
        self.y = (labels[:, None] == rows).to(self.scale.dtype)                 # (N, rows + 1), one-hot
        others = weights[0].detach()[self.live[1][len(chosen[1]):]]             # (others, D)
        # what a step writes to is made once: memory asked for anew each time costs more than the arithmetic
        self.buffer = self.scale.new_empty(max(1000, learner.config.batch_size), len(self.scale))
        self.gradients = [torch.empty_like(block.mask) for block in self.blocks]
        parts = torch.arange(len(labels), device=others.device).split(1000)
        self.stateful = [*self.blocks, self]            # what a checkpoint holds beside the learner
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

    def step(self, index):
        """A step of gradient descent on the images at `index` (B,); returns the loss before it, a scalar."""
        hidden, logits = self.forward(index)
        y, logs = self.y.index_select(0, index), logits.log_softmax(1)          # (B, rows + 1)
        loss = logs.flatten().dot(y.flatten()) / -len(y)
        delta = logs.exp_().sub_(y).mul_(1 / len(y))                            # d loss / d logits
        for l in reversed(range(len(self.blocks))):
            before, (own_out, own_in) = hidden[l], self.gradients[l].shape
            gradient = torch.mm(delta[:, :own_out].T, before[:, :own_in], out=self.gradients[l])    # (O, I)
            self.biases[l].addcmul_(delta.sum(0), self.trains_bias[l], value=-self.lr)
            if l:                                       # through the ReLU below, whose gradient is 0 or 1
                delta = (delta @ self.matrices[l]).mul_(before.sign())          # (B, live in)
            self.update(l, gradient)
        return loss

    def update(self, l, gradient):
        """Does the same as `Block.update` in layer l with one product fewer: gradient (O, I).

        In the paper's reading, omega also adds up outside the mask, where it is not used.
        """
        values, mask, omega = self.parts[l]
        if self.code:
            gradient = gradient * mask
        values.addcmul_(gradient, mask, value=-self.lr)
        omega.addcmul_(gradient, gradient, value=self.lr)
        if self.code:
            self.blocks[l].accumulate()

    def inputs(self, index):
        """The standardised pixels of the images at `index` (B,): (B, D)."""
        x = self.buffer[:len(index)].copy_(self.pixels.index_select(0, index))
        return torch.addcmul(self.shift, x, self.scale, out=x)

    def forward(self, index):
        """([input (B, D), hidden activations (B, live), ...], logits of all rows (B, rows + 1))."""
        x = self.inputs(index)                                                  # (B, D)
        z = x @ self.weights_t[0]                                               # (B, chosen)
        if self.constant.shape[1]:
            z = torch.cat([z, self.constant.index_select(0, index)], 1)         # (B, live)
        hidden = [x, z.add_(self.biases[0]).relu_()]
        for weight_t, bias in zip(self.weights_t[1:-1], self.biases[1:-1]):
            hidden.append(torch.addmm(bias, hidden[-1], weight_t).relu_())      # (B, live)
        return hidden, torch.addmm(self.biases[-1], hidden[-1], self.weights_t[-1])

    @torch.no_grad()
    def put(self):
        """Write weights and biases into the network."""
        for layer, block, bias, out in zip(self.learner.layers, self.blocks, self.biases, self.live[1:]):
            layer.weight[block.targets[:, None], block.sources] = block.values[:, :, 0]
            layer.bias[out] = bias[:len(out)]

    def state_dict(self):
        """What changes while the task trains, beside the blocks."""
        return {"biases": self.biases}

    def load_state_dict(self, state):
        """Take over a `state_dict`, in place."""
        for bias, saved in zip(self.biases, state["biases"]):
            bias.copy_(saved)


def scale_and_shift(learner):
    """(scale, shift), (D,) each: x * scale + shift standardises flat bytes as the learner does pixels."""
    dtype = learner.layers[0].weight.dtype
    pair = 1 / (255 * learner.std), -learner.mean / learner.std
    return [v.to(dtype).expand(learner.shape).flatten().contiguous() for v in pair]
