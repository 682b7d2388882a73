"""Conditional generator, critic and their steps by definitions: sums, products and plain gradient descent."""

import torch
from torch.nn import functional as F


def transposed(x, weight, bias=None):
    """A transposed convolution of stride 2, padding 2 and one more row: zeros between, then a convolution."""
    B, C, H, W = x.shape
    wide = torch.zeros(B, C, 2 * H, 2 * W, dtype=x.dtype, device=x.device)
    wide[:, :, ::2, ::2] = x
    return F.conv2d(wide, weight.flip(2, 3).transpose(0, 1), bias, padding=2)


def scaled(x, norm, labels, running):
    """Class-conditional batch normalisation, image by image."""
    mean, var = x.mean((0, 2, 3)), (x - x.mean((0, 2, 3), keepdim=True)).square().mean((0, 2, 3))
    rows = []
    for image, c in zip(x, labels.tolist()):
        m, v = (norm.mean[c], norm.var[c]) if running else (mean, var)
        unit = (image - m[:, None, None]) / (v + 1e-5).sqrt()[:, None, None]
        rows.append(norm.scale[c][:, None, None] * unit + norm.shift[c][:, None, None])
    return torch.stack(rows)


def image(generator, z, labels, running=False):
    """Images of a ConditionalGenerator; running: with the running statistics of each class."""
    side = generator.side
    x = (z @ generator.first.weight.T).reshape(len(z), -1, side, side)
    x = scaled(x, generator.norms[0], labels, running).clamp(min=0)
    for conv, norm in zip(generator.convs, generator.norms[1:]):
        x = scaled(transposed(x, conv.weight), norm, labels, running).clamp(min=0)
    return torch.tanh(transposed(x, generator.image.weight, generator.image.bias))


def judged(critic, x, running=False):
    """(value (B,), logits (B, K)) of a Critic with batch normalisation."""
    for i, conv in enumerate(critic.convs):
        x = F.conv2d(x, conv.weight, stride=2, padding=2)
        if i:
            norm, axes = critic.norms[i - 1], (0, 2, 3)
            mean, var = x.mean(axes), (x - x.mean(axes, keepdim=True)).square().mean(axes)
            mean, var = (norm.running_mean, norm.running_var) if running else (mean, var)
            x = (x - mean[:, None, None]) / (var + norm.eps).sqrt()[:, None, None]
            x = norm.weight[:, None, None] * x + norm.bias[:, None, None]
        x = torch.where(x > 0, x, 0.2 * x)
    x = x.reshape(len(x), -1)
    value, classes = critic.value, critic.classes
    return (x @ value.weight.T + value.bias)[:, 0], x @ classes.weight.T + classes.bias


def entropy(logits, labels):
    """Mean cross-entropy."""
    return -torch.stack([torch.log_softmax(row, 0)[c] for row, c in zip(logits, labels.tolist())]).mean()


def wasserstein(critic, real, fake, share):
    """(E D(fake) - E D(real), mean of (|gradient between them| - 1)^2)."""
    between = (share * real + (1 - share) * fake).requires_grad_()
    (slope,) = torch.autograd.grad(judged(critic, between)[0].sum(), between, create_graph=True)
    norms = torch.stack([s.square().sum().sqrt() for s in slope])
    return judged(critic, fake)[0].mean() - judged(critic, real)[0].mean(), ((norms - 1) ** 2).mean()


def descend(network, loss, lr):
    """A step of plain gradient descent."""
    parameters = list(network.parameters())
    gradients = torch.autograd.grad(loss, parameters, allow_unused=True)
    with torch.no_grad():
        for p, g in zip(parameters, gradients):
            if g is not None:
                p -= lr * g
