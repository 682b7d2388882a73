"""What the generators of DGM share: weights under masks that are reserved, protected, widened and kept."""

import math

import torch
from torch import nn
from torch.nn import functional as F

from clkit.methods.dgm import masks

EPS, MOMENTUM = 1e-5, 0.1                               # of batch normalisation
NORM = ("mean", "var", "gamma", "beta")


class MaskedGenerator(nn.Module):
    """z (B, nz) -> images (B, C, S, S) in [-1, 1], by layers without bias whose weights are under masks.

    A subclass says how the layers follow one another (`draw`) and what its image heads are (`new_heads`).
    Widths are numbered from 0, which is nz. Width n > 0 counts the channels that batch normalisation n - 1
    takes. Layer l leads from width i to width j, where (i, j) = links[l]: its weight is (in, out, k, k).

    While task t is learned: weight0, weight1, ..., the logits of their masks, the batch normalisations
    (gamma, beta, mean, var) and the heads of the task, all under plain names. `keep` stores what belongs to
    the task under names that end in its number: masks as packed bits, the rest as buffers. Widths are those
    of the stored tensors, so that an old task is generated from the corner of the weights that existed then,
    and never sees others.

    widths: of the start, nz first.   kernels: side of each layer's kernel.   unit: what has a place in a
    mask, "weight" or "channel".   gate: where the mask of a channel acts, "before" batch normalisation, or
    "after" the ReLU.
    """

    later_logit = 0.0                                   # of a new mask's logits, after the first task

    def __init__(self, shape, widths, kernels, links, unit, gate="before"):
        super().__init__()
        self.image_channels, self.nz, self.start = shape[0], widths[0], tuple(widths)
        self.kernels, self.links, self.unit, self.gate = kernels, links, unit, gate
        self.depth = len(widths) - 1                    # layers in a chain come first, shortcuts after them
        for l, (i, j) in enumerate(links):
            weight = torch.empty(widths[i], widths[j], kernels[l], kernels[l], device="cpu")
            setattr(self, f"weight{l}", nn.Parameter(nn.init.xavier_uniform_(weight, math.sqrt(2))))
            self.register_buffer(f"reserved{l}", torch.zeros(self.places(l), dtype=torch.bool, device="cpu"))
            of_rows = torch.zeros(widths[i], widths[j], 1, 1, dtype=torch.bool, device="cpu")
            self.register_buffer(f"protected{l}", of_rows if unit == "channel" else None)
        for name in self._of_a_task():
            setattr(self, name, nn.Parameter(torch.empty(0, device="cpu")))
        for name in self._statistics():
            self.register_buffer(name, torch.empty(0, device="cpu"))

    def new_heads(self, classes):
        """Heads for a new task of so many classes, one tensor, with start values."""
        raise NotImplementedError

    def draw(self, z, weights, gates, norms, head, index, training=False):
        """Images from z (B, nz), by these weights and masks (None: not in use), norms [NORM] and heads.

        index: the class of each image within its task, (B,).
        """
        raise NotImplementedError

    # -- names and sizes

    def _of_a_task(self):
        logits = [f"logits{l}" for l in range(len(self.links))]
        return [*logits, *(f"{name}{n}" for name in ("gamma", "beta") for n in range(self.depth)), "head"]

    def _statistics(self):
        return [f"{name}{n}" for name in ("mean", "var") for n in range(self.depth)]

    def places(self, l):
        """The shape of a mask of layer l."""
        weight = getattr(self, f"weight{l}")
        return weight.shape if self.unit == "weight" else weight.shape[1:2]

    def _layers(self, name):
        return [getattr(self, f"{name}{l}") for l in range(len(self.links))]

    @property
    def weights(self):
        """The weights of the masked layers."""
        return self._layers("weight")

    @property
    def logits(self):
        """The logits e of the masks of the task that is being learned."""
        return self._layers("logits")

    @property
    def reserved(self):
        """M: what the tasks so far have reserved, bool."""
        return self._layers("reserved")

    @property
    def widths(self):
        """(nz, channels after each layer of the chain)."""
        return [self.nz, *(w.shape[1] for w in self.weights[:self.depth])]

    def widths_of(self, task):
        """The same when a finished task was learned."""
        return [self.nz, *(len(getattr(self, f"gamma{n}_{task}")) for n in range(self.depth))]

    @property
    def units(self):
        """Channels of the chain, and how many there were at the start."""
        return sum(self.widths[1:]), sum(self.start[1:])

    @property
    def size(self):
        """S_t and S_free, whose ratio alpha_t scales R in equation 6: here counted in channels."""
        return self.units

    def in_use(self, l, widths):
        """Whether layer l takes part: a shortcut is the identity as long as both of its widths are equal."""
        i, j = self.links[l]
        return j == i + 1 or widths[i] != widths[j]

    def protections(self):
        """Of each masked layer the weights that may not change, bool, to be broadcast to them."""
        return self.reserved if self.unit == "weight" else self._layers("protected")

    # -- a task

    def begin(self, classes=1, task=0):
        """Give task number `task`, of so many classes, its logits, batch normalisations and heads.

        Returns the parameters that it trains.
        """
        device, logit = self.weight0.device, self.later_logit if task else 0.0
        for l in range(len(self.links)):
            self._set(f"logits{l}", torch.full(self.places(l), logit, device=device))
        for n, width in enumerate(self.widths[1:]):
            self._set(f"gamma{n}", torch.ones(width, device=device))
            self._set(f"beta{n}", torch.zeros(width, device=device))
            setattr(self, f"mean{n}", torch.zeros(width, device=device))
            setattr(self, f"var{n}", torch.ones(width, device=device))
        self._set("head", self.new_heads(classes))
        return [p for p in self.parameters() if p.numel()]

    def _set(self, name, value):
        getattr(self, name).data = value

    def soft_masks(self, s):
        """m = sigmoid(s e) of each layer: equation 1. 0 where a layer is not in use."""
        widths = self.widths
        return [torch.sigmoid(s * e) if self.in_use(l, widths) else torch.zeros_like(e)
                for l, e in enumerate(self.logits)]

    @torch.no_grad()
    def hard_masks(self):
        """m of each layer at the end of a task, bool.

        e > 0: a logit that never had a gradient is still 0, and not used.
        """
        widths = self.widths
        return [(e > 0) & self.in_use(l, widths) for l, e in enumerate(self.logits)]

    def forward(self, z, gates, index=None):
        """Images of the task that is being learned; gates: its masks, in [0, 1]; index as in `draw`."""
        widths = self.widths
        gates = [gate if self.in_use(l, widths) else None for l, gate in enumerate(gates)]
        norms = [[getattr(self, f"{name}{n}") for name in NORM] for n in range(self.depth)]
        return self.draw(z, self.weights, gates, norms, self.head, index, self.training)

    # -- parts of a layer, for `draw`

    def convolved(self, convolution, x, weight, gate, **options):
        """x through a layer under its mask; a mask of channels acts later where gate is "after"."""
        if self.unit == "weight":
            return convolution(x, weight * gate, **options)
        x = convolution(x, weight, **options)
        return x * gate[:, None, None] if self.gate == "before" else x

    @staticmethod
    def normalised(x, norm, training):
        """Batch normalisation by [mean, var, gamma, beta], and ReLU."""
        return F.relu(F.batch_norm(x, *norm, training, MOMENTUM, EPS))

    # -- gradients (section 3.2, in this order)

    @torch.no_grad()
    def shape_gradients(self, s, scale):
        """Take the gradients of protected weights out, and compensate those of the logits for s."""
        for weight, protected in zip(self.weights, self.protections()):
            weight.grad.mul_(~protected)
        for e in self.logits:
            e.grad.mul_(masks.compensation(e, s, scale))

    # -- the end of a task

    @torch.no_grad()
    def keep(self, task, gates, reserve=True, soft=None):
        """Store what belongs to the task, with its gates (bool), and reserve and protect what they hold.

        soft: masks in [0, 1] to be used in replay in their place.
        """
        widths = self.widths
        for l, gate in enumerate(gates):
            if not self.in_use(l, widths):
                continue
            stored = masks.packed(gate) if soft is None else soft[l].detach().clone()
            self.register_buffer(f"mask{l}_{task}", stored)
            if reserve:
                self.reserved[l].logical_or_(gate)
            if reserve and self.unit == "channel":
                self._protect(l, gates)
        for name in (f"{name}{n}" for name in NORM for n in range(self.depth)):
            self.register_buffer(f"{name}_{task}", getattr(self, name).detach().clone())
        self.register_buffer(f"head_{task}", self.head.detach().clone())
        for name in self._of_a_task():
            self._set(name, self.head.new_empty(0))
            getattr(self, name).grad = None
        for name in self._statistics():
            setattr(self, name, self.head.new_empty(0))

    def _protect(self, l, gates):
        """Of the channels in use, the rows that exist (equation 5), or only those in use, by the gate.

        A masked channel gives relu(beta), not 0, where the gate acts before batch normalisation: then all
        rows count. Rows that are added later stay free; old tasks never see them.
        """
        rows = getattr(self, f"protected{l}")
        if self.gate == "after" and l:
            rows.logical_or_(gates[l - 1][:, None, None, None] & gates[l][:, None, None])
        else:
            rows.logical_or_(gates[l][:, None, None])

    @torch.no_grad()
    def grow(self, added):
        """Add channels to each width but the first; old weights keep their values, new ones are drawn."""
        wider = [w + a for w, a in zip(self.widths, (0, *added))]
        for l, (i, j) in enumerate(self.links):
            old = getattr(self, f"weight{l}")
            new = self.draw_weights(old.new_empty(wider[i], wider[j], *old.shape[2:]))
            new[:old.shape[0], :old.shape[1]] = old
            old.data, old.grad = new, None
            for name, grows in (("reserved", True), ("protected", self.unit == "channel")):
                if grows:
                    setattr(self, f"{name}{l}", self._padded(getattr(self, f"{name}{l}"), name, l))

    def draw_weights(self, weight):
        """Fill a layer's weights with the values that new ones have after growth."""
        return nn.init.xavier_uniform_(weight, math.sqrt(2))

    def _padded(self, places, name, l):
        shape = self.places(l) if name == "reserved" else (*getattr(self, f"weight{l}").shape[:2], 1, 1)
        wide = places.new_zeros(shape)
        wide[tuple(slice(n) for n in places.shape)] = places
        return wide

    # -- memory

    def mask_of(self, task, l):
        """The stored mask of a task in layer l, of the widths that the layer had then; None: not in use."""
        stored, widths = getattr(self, f"mask{l}_{task}", None), self.widths_of(task)
        if stored is None or stored.dtype != torch.uint8:
            return stored
        i, j = self.links[l]
        weight = (widths[i], widths[j], self.kernels[l], self.kernels[l])
        return masks.unpacked(stored, weight if self.unit == "weight" else weight[1:2])

    @torch.no_grad()
    def replay(self, z, task, index=None):
        """Images of a finished task, (B, C, S, S): with its hard masks, statistics and heads, bit for bit."""
        widths, dtype = self.widths_of(task), z.dtype
        weights = [w[:widths[i], :widths[j]] for w, (i, j) in zip(self.weights, self.links)]
        gates = [self.mask_of(task, l) for l in range(len(self.links))]
        gates = [gate if gate is None else gate.to(dtype) for gate in gates]
        norms = [[getattr(self, f"{name}{n}_{task}") for name in NORM] for n in range(self.depth)]
        return self.draw(z, weights, gates, norms, getattr(self, f"head_{task}"), index)
