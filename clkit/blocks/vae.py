"""A variational autoencoder of fully connected layers, and the KL divergence in its loss."""

import math
from itertools import pairwise

import torch
from torch import nn
from torch.nn import functional as F


class VAE(nn.Module):
    """Variational autoencoder (Kingma and Welling 2014) of fully connected ReLU layers; images in [0, 1].

    hidden: units of the encoder's hidden layers, reversed in the decoder; latent: size of a code z; dropout:
    of hidden units in training; variance_bias: whether the layer of the log variance has a bias.
    """

    def __init__(self, shape, latent, hidden, dropout=0.0, variance_bias=True):
        super().__init__()
        self.shape, self.latent, self.dropout = tuple(shape), latent, dropout
        there = (math.prod(shape), *hidden)
        back = (latent, *reversed(there))
        self.encoder = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(there))
        self.mean = nn.Linear(there[-1], latent)
        self.log_variance = nn.Linear(there[-1], latent, bias=variance_bias)
        self.decoder = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(back))

    def _hidden(self, layers, x):
        for layer in layers:
            x = F.dropout(F.relu(layer(x)), self.dropout, self.training)        # (B, hidden)
        return x

    def forward(self, x):
        """Mean and log variance of q(z|x), each (B, latent); x (B, C, H, W)."""
        x = self._hidden(self.encoder, x.flatten(1))
        return self.mean(x), self.log_variance(x)

    def error(self, x, mean, deviation):
        """-log p(x|z) of each image in nats, (B,), one z per image; mean and deviation of q (B, latent)."""
        pixels = self.pixels(mean + deviation * torch.randn_like(mean))         # (B, C*H*W)
        return F.binary_cross_entropy_with_logits(pixels, x.flatten(1), reduction="none").sum(1)

    def pixels(self, z):
        """Pixels before the sigmoid, (n, C*H*W), for codes z (n, latent)."""
        return self.decoder[-1](self._hidden(self.decoder[:-1], z))

    def decode(self, z):
        """The mean of each pixel, (n, C, H, W) in [0, 1], for codes z (n, latent)."""
        return self.pixels(z).sigmoid().view(-1, *self.shape)

    def codes(self, n):
        """n codes z (n, latent) drawn from N(0, 1)."""
        weight = self.mean.weight
        return torch.randn(n, self.latent, dtype=weight.dtype, device=weight.device)

    def sample(self, n):
        """n images (n, C, H, W) in [0, 1], decoded from codes drawn from N(0, 1)."""
        return self.decode(self.codes(n))


def kl_to_normal(mean, variance, log_variance):
    """KL(q || N(0, 1)) of normal q with these means, variances and log variances, (B, D) each: (B,)."""
    return (mean.square() + variance - 1 - log_variance).sum(1) / 2
