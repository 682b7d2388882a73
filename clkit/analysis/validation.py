"""Accuracy after each epoch of a task, on validation and test images: see `clkit.result.chosen`."""

import math
from functools import partial

import torch


def columns(stream, n):
    """{column: function of the learner}: accuracy (T,) by task among the classes seen, NaN for tasks to come.

    validation: on the first n validation images of each class.   test: on all test images. The images have to
    be sorted by task, and the learner's logits are those of the classes seen.
    """
    images = stream.merged()[0].val
    index = torch.cat([(images.labels == k).nonzero()[:n, 0] for k in range(stream.classes)])
    ends = torch.tensor(stream.test_classes_per_task, device=images.device).cumsum(0)
    return {
        "validation": partial(accuracy, images.select(index), ends),
        "test": partial(accuracy, stream.test, ends),
    }


def accuracy(images, ends, learner):
    """Share of images of each task that a learner gets right, NaN for tasks to come: (T,).

    images: an ImageSet, sorted by task.   ends (T,): the number of classes seen after each task.
    """
    seen = learner(images.images[:1] / 255).shape[1]
    known = images.select(slice(int((images.labels < seen).sum())))
    right = torch.cat([learner(x).argmax(1) == y for x, y in known.batches(500, shuffle=False)])  # (N,)
    tasks = torch.bucketize(known.labels, ends, right=True)  # (N,)
    counts = torch.bincount(tasks, minlength=len(ends))  # (T,)
    found = torch.bincount(tasks, right.float(), minlength=len(ends)) / counts
    return torch.where(counts > 0, found, math.nan)
