"""Mean and variance of what goes into each batch normalisation of a network, and how far off they are."""

import torch
from torch import nn

from clkit.methods.mfgr.losses import gap


class Statistics:
    """A context in which the forward passes of a network leave the statistics of its batch normalisations.

    net: in eval mode; nothing in it changes, and the hooks are gone after the context. `norms` are its L
    layers, in the order of the network's modules.
    """

    def __init__(self, net):
        self.norms = [module for module in net.modules() if isinstance(module, nn.BatchNorm2d)]
        self.found, self.handles = {}, []

    def __enter__(self):
        self.handles = [norm.register_forward_pre_hook(self._take) for norm in self.norms]
        return self

    def __exit__(self, *error):
        for handle in self.handles:
            handle.remove()
        self.found.clear()

    def _take(self, norm, inputs):
        x, = inputs
        x = x.to(torch.promote_types(x.dtype, torch.float32))                   # (B, D, H, W)
        var, mean = torch.var_mean(x, (0, 2, 3), correction=0)
        self.found[norm] = gap(mean, var, norm)

    def gaps(self):
        """The gap of each layer in the latest forward pass, (L,), with its graph."""
        found = torch.stack([self.found[norm] for norm in self.norms])
        self.found.clear()                              # the graph is the caller's from here on
        return found
