"""The generator of DGM: transposed convolutions under masks, which grow, with everything of a task kept."""

import math
from itertools import pairwise

import torch
from torch import nn
from torch.nn import functional as F

from clkit.methods.dgm import masks

EPS, MOMENTUM = 1e-5, 0.1                               # of batch normalisation


class GrowingGenerator(nn.Module):
    """z (B, nz) -> images (B, C, S, S) in [-1, 1], S = 8 * kernel of the first layer: figure 1, section 3.1.

    Three masked layers without bias, each followed by the batch normalisation of its task and a ReLU, and an
    image head of its task without mask: kernels of (S/8, 4, 4, 4). A weight is (in, out, k, k).

    While task t is learned: weight0..2, the logits of its masks, its batch normalisation (gamma, beta, mean,
    var) and its head, all under plain names. `keep` stores what belongs to the task under names that end in
    its number: masks as packed bits, the rest as buffers. Widths are those of the stored tensors, so that an
    old task is generated from the corner of the weights that existed then, and never sees others.

    unit: "weight" or "channel", what has a place in a mask.   gate: where the mask of a channel acts,
    "before" batch normalisation, or "after" the ReLU.
    """

    def __init__(self, shape, nz, width, unit, gate):
        super().__init__()
        self.unit, self.gate, self.nz = unit, gate, nz
        self.image_channels, side = shape[0], shape[1]
        self.kernels = (side // 8, 4, 4)
        self.strides = ((1, 0), (2, 1), (2, 1))         # and padding
        widths = (nz, 4 * width, 2 * width, width)
        for l, (a, b) in enumerate(pairwise(widths)):
            weight = torch.empty(a, b, self.kernels[l], self.kernels[l], device="cpu")
            setattr(self, f"weight{l}", nn.Parameter(nn.init.xavier_uniform_(weight, math.sqrt(2))))
            self.register_buffer(f"reserved{l}", torch.zeros(self._places(l), dtype=torch.bool, device="cpu"))
            self.register_buffer(f"protected{l}", torch.zeros(a, b, 1, 1, dtype=torch.bool, device="cpu")
                                 if unit == "channel" else None)
        for name in self._of_a_task():
            setattr(self, name, nn.Parameter(torch.empty(0, device="cpu")))
        for name in self._statistics():
            self.register_buffer(name, torch.empty(0, device="cpu"))
        self.register_buffer("start_widths", torch.tensor(self.widths[1:], device="cpu"))

    # -- names and sizes

    def _of_a_task(self):
        return [*(f"{name}{l}" for name in ("logits", "gamma", "beta") for l in range(3)), "head"]

    def _statistics(self):
        return [f"{name}{l}" for name in ("mean", "var") for l in range(3)]

    def _places(self, l):
        """The shape of a mask of layer l."""
        weight = getattr(self, f"weight{l}")
        return weight.shape if self.unit == "weight" else weight.shape[1:2]

    @property
    def weights(self):
        """The weights of the masked layers."""
        return [getattr(self, f"weight{l}") for l in range(3)]

    @property
    def logits(self):
        """The logits e of the masks of the task that is being learned."""
        return [getattr(self, f"logits{l}") for l in range(3)]

    @property
    def reserved(self):
        """M: what the tasks so far have reserved, bool."""
        return [getattr(self, f"reserved{l}") for l in range(3)]

    @property
    def widths(self):
        """(nz, channels of each masked layer)."""
        return [self.nz, *(w.shape[1] for w in self.weights)]

    @property
    def size(self):
        """Channels of the masked layers, and how many there were at the start: S_t and S_free."""
        return sum(self.widths[1:]), int(self.start_widths.sum())

    def protections(self):
        """Of each masked layer the weights that may not change, bool, to be broadcast to them."""
        if self.unit == "weight":
            return self.reserved
        return [getattr(self, f"protected{l}") for l in range(3)]

    # -- a task

    def begin(self):
        """Give a new task its logits, batch normalisation and head, and return what is trained in it."""
        device = self.weight0.device
        for l, width in enumerate(self.widths[1:]):
            self._set(f"logits{l}", torch.zeros(self._places(l), device=device))
            self._set(f"gamma{l}", torch.ones(width, device=device))
            self._set(f"beta{l}", torch.zeros(width, device=device))
            setattr(self, f"mean{l}", torch.zeros(width, device=device))
            setattr(self, f"var{l}", torch.ones(width, device=device))
        head = torch.empty(self.widths[-1], self.image_channels, 4, 4, device=device)
        self._set("head", nn.init.xavier_uniform_(head, math.sqrt(2)))
        return [p for p in self.parameters() if p.numel()]

    def _set(self, name, value):
        getattr(self, name).data = value

    def soft_masks(self, s):
        """m = sigmoid(s e) of each layer: equation 1."""
        return [torch.sigmoid(s * e) for e in self.logits]

    @torch.no_grad()
    def hard_masks(self):
        """m of each layer at the end of a task, bool.

        e > 0: a logit that never had a gradient is still 0, and not used.
        """
        return [e > 0 for e in self.logits]

    def forward(self, z, gates):
        """Images of the task that is being learned; gates: its masks, in [0, 1]."""
        for l, (weight, gate) in enumerate(zip(self.weights, gates)):
            norm = (getattr(self, f"{name}{l}") for name in ("mean", "var", "gamma", "beta"))
            z = self._layer(l, z, weight, gate, *norm, training=self.training)
        return torch.tanh(F.conv_transpose2d(z, self.head, stride=2, padding=1))

    def _layer(self, l, x, weight, gate, mean, var, gamma, beta, training=False):
        """One masked layer: x (B, in, H, W), or z (B, nz) in the first -> (B, out, H', W')."""
        x = x[:, :, None, None] if x.dim() == 2 else x
        if self.unit == "weight":
            weight = weight * gate
        stride, padding = self.strides[l]
        x = F.conv_transpose2d(x, weight, stride=stride, padding=padding)
        if self.unit == "channel" and self.gate == "before":
            x = x * gate[:, None, None]
        x = F.relu(F.batch_norm(x, mean, var, gamma, beta, training, MOMENTUM, EPS))
        return x * gate[:, None, None] if self.unit == "channel" and self.gate == "after" else x

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
        for l, gate in enumerate(gates):
            stored = masks.packed(gate) if soft is None else soft[l].detach().clone()
            self.register_buffer(f"mask{l}_{task}", stored)
            for name in ("mean", "var", "gamma", "beta"):
                self.register_buffer(f"{name}{l}_{task}", getattr(self, f"{name}{l}").detach().clone())
            if reserve:
                self.reserved[l].logical_or_(gate)
            if reserve and self.unit == "channel":
                self._protect(l, gates)
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
    def grow(self, added, normal):
        """Widen the masked layers by `added` outputs; old weights keep their values, new ones are drawn.

        normal: draw from N(0, 0.02), else as at the start.
        """
        wider = [w + a for w, a in zip(self.widths, (0, *added))]
        for l, (a, b) in enumerate(pairwise(wider)):
            old = getattr(self, f"weight{l}")
            new = old.new_empty(a, b, *old.shape[2:])
            new = new.normal_(0, 0.02) if normal else nn.init.xavier_uniform_(new, math.sqrt(2))
            new[:old.shape[0], :old.shape[1]] = old
            old.data, old.grad = new, None
            for name, grows in (("reserved", True), ("protected", self.unit == "channel")):
                if grows:
                    setattr(self, f"{name}{l}", self._padded(getattr(self, f"{name}{l}"), name, l))

    def _padded(self, places, name, l):
        shape = self._places(l) if name == "reserved" else (*getattr(self, f"weight{l}").shape[:2], 1, 1)
        wide = places.new_zeros(shape)
        wide[tuple(slice(n) for n in places.shape)] = places
        return wide

    # -- memory

    def mask_of(self, task, l):
        """The stored mask of a task in layer l, of the widths that the layer had then."""
        stored = getattr(self, f"mask{l}_{task}")
        if stored.dtype != torch.uint8:
            return stored
        out, rows = len(getattr(self, f"gamma{l}_{task}")), self.nz
        if l:
            rows = len(getattr(self, f"gamma{l - 1}_{task}"))
        shape = (out,) if self.unit == "channel" else (rows, out, self.kernels[l], self.kernels[l])
        return masks.unpacked(stored, shape)

    @torch.no_grad()
    def replay(self, z, task):
        """Images of a finished task, (B, C, S, S): with its hard masks, statistics and head, bit for bit."""
        rows = self.nz
        for l, weight in enumerate(self.weights):
            gate = self.mask_of(task, l).to(weight.dtype)
            norm = [getattr(self, f"{name}{l}_{task}") for name in ("mean", "var", "gamma", "beta")]
            z = self._layer(l, z, weight[:rows, :len(norm[0])], gate, *norm)
            rows = len(norm[0])
        return torch.tanh(F.conv_transpose2d(z, getattr(self, f"head_{task}"), stride=2, padding=1))
