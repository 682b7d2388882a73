"""Memories as lists, and herding by definition, one candidate at a time."""

import math

import numpy as np
import torch


class ListReservoir:
    """Reservoir sampling, image by image: [image as bytes, label, anything else], at most `size` entries."""

    def __init__(self, size):
        self.size, self.n_seen, self.memory = size, 0, []

    def add(self, x, y, extra=None):
        """Draws like `Reservoir.add`: one double-precision number per image of the batch."""
        chances = torch.rand(len(y), dtype=torch.float64, device="cpu").tolist()
        for image, label, chance in zip(x, y.tolist(), chances, strict=True):
            new, index = (
                [(image * 255).round().to(torch.uint8), label, extra],
                int(chance * (self.n_seen + 1)),
            )
            if len(self.memory) < self.size:
                self.memory.append(new)
            elif index < self.size:
                self.memory[index] = new
            self.n_seen += 1


def unit(v):
    """A list of numbers scaled to length 1."""
    length = math.sqrt(sum(a * a for a in v))
    return [a / length for a in v] if length else v


def phi(net, images):
    """Normalised features of byte images, one at a time in float64, as lists; the net in eval mode."""
    mode = net.training
    net.eval()
    with torch.no_grad():
        found = [unit(net.features(x[None].float() / 255)[0].double().tolist()) for x in images]
    net.train(mode)
    return found


def herd_by_hand(features, m):
    """By definition: try each candidate and take the image that brings the mean closest."""
    features = [np.array(f, dtype=np.float64) for f in features]
    mu, chosen = np.array(unit((sum(features) / len(features)).tolist())), []
    for k in range(1, min(m, len(features)) + 1):
        distance = [
            math.inf if i in chosen else np.linalg.norm(mu - (f + sum(features[j] for j in chosen)) / k)
            for i, f in enumerate(features)
        ]
        chosen.append(int(np.argmin(distance)))
    return chosen


def class_means(features, labels, classes):
    """Mean of the features (lists) of each class, scaled to length 1."""
    means = []
    for c in range(classes):
        own = [f for f, label in zip(features, labels, strict=True) if label == c]
        means.append(unit([sum(column) / len(own) for column in zip(*own, strict=True)]))
    return means
