"""The loss terms of a variational autoencoder, image by image, by torch.distributions and definitions."""

import torch


def chain(layers, h):
    """Linear layers with ReLU between them, by matrix products."""
    for i, layer in enumerate(layers):
        h = h @ layer.weight.T + (0 if layer.bias is None else layer.bias)
        h = h.clamp(min=0) if i < len(layers) - 1 else h
    return h


def vae_terms(vae, x, noise):
    """-log p(x|z) with z from the given noise (B, latent), and KL(q(z|x) || N(0, 1)): (B,) each, in nats."""
    normal, errors, divergences = torch.distributions.Normal, [], []
    for image, eps in zip(x.flatten(1), noise, strict=True):
        mean = chain([*vae.encoder, vae.mean], image)
        deviation = chain([*vae.encoder, vae.log_variance], image).exp().sqrt()
        p = 1 / (1 + (-chain(vae.decoder, mean + deviation * eps)).exp())
        errors.append(-(image * p.log() + (1 - image) * (1 - p).log()).sum())
        divergences.append(torch.distributions.kl_divergence(normal(mean, deviation), normal(0.0, 1.0)).sum())
    return torch.stack(errors), torch.stack(divergences)
