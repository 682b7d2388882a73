"""Real images that DGM may keep beside its generator, a random choice of each class: table 2."""

import torch
from torch import nn


class StoredImages(nn.Module):
    """A share of the images of each class, or a budget that all classes share.

    share: of the images that are replayed of a class.   budget: images over all classes, of which each has
    budget // (classes seen).   Buffers: images uint8 (N, C, H, W) and labels int64 (N,), sorted by class and
    in random order within it.
    """

    def __init__(self, shape, share, budget):
        super().__init__()
        self.share, self.budget = share, budget
        self.register_buffer("images", torch.zeros(0, *shape, dtype=torch.uint8, device="cpu"))
        self.register_buffer("labels", torch.zeros(0, dtype=torch.int64, device="cpu"))

    def quota(self, each, seen):
        """How many images a class may have: of `each` that are replayed, with so many classes seen."""
        return self.budget // seen if self.budget else round(self.share * each)

    @torch.no_grad()
    def add(self, images, labels, new, each):
        """Choose images of new classes and cut old ones to their quota.

        images uint8 (N, C, H, W), labels (N,): of the task; new: its classes, range(first, seen); each: how
        many images of a class are replayed.
        """
        quota = self.quota(each, new.stop)
        stay = self.rank() < quota
        parts = [(self.images[stay], self.labels[stay])]
        for label in new:
            members = (labels == label).nonzero()[:, 0]
            members = members[torch.randperm(len(members), device=members.device)[:quota]]
            parts.append((images[members], labels[members]))
        self.images, self.labels = (torch.cat(part) for part in zip(*parts))

    def rank(self):
        """The number of each image within its class, from 0, (N,)."""
        return torch.arange(len(self.labels), device=self.labels.device) - torch.searchsorted(
            self.labels, self.labels)

    def of(self, first, end, each, seen):
        """Images and labels of the classes first .. end - 1, no more of each than its quota and `each`."""
        most = min(each, self.quota(each, seen))
        chosen = (self.labels >= first) & (self.labels < end) & (self.rank() < most)
        return self.images[chosen], self.labels[chosen]
