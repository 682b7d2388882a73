"""Memories of past images: a reservoir, a ring per class, herded exemplars. All are kept in buffers.

Images are stored as bytes, uint8 (..., C, H, W), and returned as floats in [0, 1].
"""

import torch
from torch import nn
from torch.nn import functional as F

from clkit.errors import ClkitError


def share_of_each(memory, classes):
    """How many images each class may have in a memory of this size; ClkitError if less than one."""
    if memory < classes:
        raise ClkitError(f"memory={memory} is too small for {classes} classes: it must hold an image of each")
    return memory // classes


def count_of_each(labels, classes):
    """How often each of the classes 0 .. classes - 1 occurs in labels (N,): int64 (classes,)."""
    return (labels[:, None] == torch.arange(classes, device=labels.device)).sum(0)


def as_bytes(x):
    """The bytes from which float images in [0, 1] were made."""
    return (x * 255).round().to(torch.uint8)


def as_pixels(images, dtype=torch.float32):
    """Byte images as floats in [0, 1]."""
    return images.to(dtype) / 255


class Reservoir(nn.Module):
    """Reservoir sampling (Vitter 1985): after n images, each is in the memory with probability M / n.

    Buffers: images uint8 (M, C, H, W); labels int64 (M,), -1 at empty places; n_seen, images so far.
    """

    def __init__(self, size, shape):
        super().__init__()
        self.register_buffer("images", torch.zeros(size, *shape, dtype=torch.uint8, device="cpu"))
        self.register_buffer("labels", torch.full((size,), -1, device="cpu"))
        self.register_buffer("n_seen", torch.zeros((), dtype=torch.int64, device="cpu"))

    @torch.no_grad()
    def add(self, x, y):
        """Offer a batch, x float (B, C, H, W) in [0, 1], y (B,). Returns which places are new, bool (M,).

        Image number n (from 0) draws an index from 0 .. n and is stored there if the memory is that large;
        while there is room, its index is n. If several images draw the same index, the last one stays, as if
        they had arrived one by one. Nothing waits for a value from the device.
        """
        size, device = len(self.labels), y.device
        order = torch.arange(len(y), device=device)
        number = self.n_seen + order                                            # (B,)
        index = (torch.rand(len(y), dtype=torch.float64, device=device) * (number + 1)).long()
        index = torch.where(number < size, number, index)
        order = torch.where(index < size, order, -1)
        last = torch.full((size,), -1, device=device)
        last = last.scatter_reduce(0, index.clamp(max=size - 1), order, "amax")  # (M,) which image, or -1
        new, source = last >= 0, last.clamp(min=0)
        self.labels.copy_(torch.where(new, y[source], self.labels))
        self.images.copy_(torch.where(new[:, None, None, None], as_bytes(x)[source], self.images))
        self.n_seen += len(y)
        return new

    def sample(self, n):
        """The indices (n,) of n images drawn with replacement; the memory must not be empty."""
        filled = self.n_seen.clamp(max=len(self.labels))
        return (torch.rand(n, dtype=torch.float64, device=filled.device) * filled).long()

    def sample_below(self, n, first):
        """Indices of n images of classes below `first`, all different, in random order.

        Returns the indices (n,), n being at most the size of the memory, and which of them count, bool (n,):
        if fewer images are available than requested, the rest are repeats, which do not count.
        """
        past = (self.labels >= 0) & (self.labels < first)                       # (M,)
        keys = torch.rand(len(past), device=past.device)
        order, found = torch.where(past, keys, 2.0).argsort(), past.sum()
        number = torch.arange(min(n, len(past)), device=past.device)
        return order[number % found.clamp(min=1)], number < found

    def get(self, index, dtype=torch.float32):
        """Images (B, C, H, W) in [0, 1] and labels (B,) at these indices (B,); 0 at empty places."""
        return as_pixels(self.images[index], dtype), self.labels[index].clamp(min=0)


class ClassRing(nn.Module):
    """The latest images of each class, in one ring per class (per task in Lopez-Paz and Ranzato 2017).

    Buffers: images uint8 (K, R, C, H, W) with R = memory // K; n_seen int64 (K,), images so far by class.
    ClkitError if the memory has no room for an image of each class.
    """

    def __init__(self, memory, classes, shape):
        super().__init__()
        size = share_of_each(memory, classes)
        self.register_buffer("images", torch.zeros(classes, size, *shape, dtype=torch.uint8, device="cpu"))
        self.register_buffer("n_seen", torch.zeros(classes, dtype=torch.int64, device="cpu"))

    @torch.no_grad()
    def add(self, x, y):
        """Add x float (B, C, H, W) in [0, 1], y (B,) to the rings of their classes, in order."""
        classes, size = self.images.shape[:2]
        order = torch.arange(len(y), device=y.device)
        ranks = F.one_hot(y, classes).cumsum(0)                                 # (B, K)
        number = self.n_seen[y] + ranks.gather(1, y[:, None])[:, 0] - 1         # (B,) within the class
        last = torch.full((classes * size,), -1, device=y.device)
        last = last.scatter_reduce(0, y * size + number % size, order, "amax").view(-1, size)  # (K, R)
        images = as_bytes(x)[last.clamp(min=0)]                                 # (K, R, C, H, W)
        self.images.copy_(torch.where(last[..., None, None, None] >= 0, images, self.images))
        self.n_seen += ranks[-1]

    def of(self, classes):
        """All images uint8 (N, C, H, W) of the classes in a mask, bool (K,), and their labels (N,)."""
        filled = torch.arange(self.images.shape[1], device=classes.device) < self.n_seen[:, None]    # (K, R)
        label, index = (filled & classes[:, None]).nonzero(as_tuple=True)
        return self.images[label, index], label

    def counts(self):
        """How many images of each class are stored, (K,)."""
        return self.n_seen.clamp(max=self.images.shape[1])


class HerdedExemplars(nn.Module):
    """Exemplars chosen by herding, and the nearest of their class means as classifier (Rebuffi et al. 2017).

    Buffers: images uint8 (N, C, H, W) and labels int64 (N,), sorted by class and in order of choice; means
    (seen, D), of features of length 1, and scaled to length 1 again.
    memory: exemplars over all classes; D: size of the features. fixed: each class has an equal share of the
    memory from the start, as in Hou et al. (2019); otherwise the classes seen share all of it. ClkitError if
    the memory has no room for an exemplar of each class.
    """

    def __init__(self, memory, classes, shape, features, fixed=False):
        super().__init__()
        share = share_of_each(memory, classes)
        self.memory, self.share = memory, share if fixed else None
        self.register_buffer("images", torch.zeros(0, *shape, dtype=torch.uint8, device="cpu"))
        self.register_buffer("labels", torch.zeros(0, dtype=torch.int64, device="cpu"))
        self.register_buffer("means", torch.zeros(0, features, device="cpu"))

    @torch.no_grad()
    def add(self, images, labels, new, net):
        """Cut old classes to their new share and choose exemplars of the new ones: algorithms 2, 4 and 5.

        images uint8 (N, C, H, W), labels (N,): of the task; new: its classes, range(first, seen); net: a
        module with features(x float (B, C, H, W) in [0, 1]) -> (B, D), in eval mode. The means do not change.
        """
        share, own = self.share or self.memory // new.stop, self.labels
        rank = torch.arange(len(own), device=own.device) - torch.searchsorted(own, own)
        stay = rank < share                                                     # (N,), rank within the class
        self.images, self.labels = self.images[stay], own[stay]
        for label in new:
            found = images[labels == label]                                     # (N, C, H, W)
            found = found[herd(unit_features(net, found), share)]               # (share, C, H, W)
            self.images = torch.cat([self.images, found])
            self.labels = torch.cat([self.labels, self.labels.new_full((len(found),), label)])

    @torch.no_grad()
    def update_means(self, classes, net, mirrored=False):
        """Compute the means of all `classes` with the present network, in eval mode: algorithm 1.

        mirrored: of the exemplars and their mirror images, as in the code of Hou et al. (2019).
        """
        features = unit_features(net, self.images)                              # (N, D)
        if mirrored:
            features = features + unit_features(net, self.images.flip(3))
        sums = features.new_zeros(classes, features.shape[1])                   # (seen, D)
        self.means = F.normalize(sums.index_add_(0, self.labels, features))

    def sample(self, n):
        """n exemplars drawn with replacement: x float (n, C, H, W) in [0, 1], y (n,).

        At least one must be stored.
        """
        index = torch.randint(len(self.labels), (n,), device=self.labels.device)
        return as_pixels(self.images.index_select(0, index)), self.labels.index_select(0, index)

    def logits(self, features, outputs):
        """Minus the squared distances to the class means, in [-4, 0]: features (B, D) -> (B, K).

        Classes without a mean rank below, in (-6, -5), in the order of the network's own outputs (B, K).
        """
        distances = torch.cdist(F.normalize(features), self.means).square()     # (B, seen)
        return torch.cat([-distances, outputs[:, len(self.means):].sigmoid() - 6], 1)


def unit_features(net, images):
    """Features of length 1, (N, D), of images uint8 (N, C, H, W), computed 500 at a time."""
    return torch.cat([F.normalize(net.features(as_pixels(x))) for x in images.split(500)])


def herd(features, m):
    """The indices (m,) of m exemplars in order of choice, or of all images if fewer; features (N, D).

    The k-th is the image whose features f bring the mean of k exemplars closest to mu, the mean of all
    features, scaled to length 1. With s the sum over those chosen before, |mu - (s + f) / k| is smallest
    where f (k mu - s) - |f|^2 / 2 is largest.   Rebuffi et al. 2017, algorithm 4.
    """
    mu = F.normalize(features.mean(0), dim=0)                                   # (D,)
    offset = features.square().sum(1) / -2                                      # (N,)
    gap, chosen = mu, []                                                        # gap = k mu - s
    for _ in range(min(m, len(features))):
        best = torch.addmv(offset, features, gap).argmax(0, keepdim=True)       # (1,)
        chosen.append(best)
        offset.index_fill_(0, best, -torch.inf)
        gap = gap + mu - features.index_select(0, best)[0]
    return torch.cat(chosen)
