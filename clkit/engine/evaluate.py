"""Evaluation: look at a learner without changing it, and score all test images once after each stage."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from torch import nn

from clkit.data import ImageSet
from clkit.engine import RunError
from clkit.engine.seeding import random_state, set_random_state

TEST_PIXELS = 3_000_000  # in one test batch: bounds memory for every image size


@contextmanager
def in_eval_mode(model: nn.Module) -> Iterator[None]:
    """Eval mode within the block; afterwards each module returns to its previous mode."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


@contextmanager
def eval_mode(learner: nn.Module) -> Iterator[None]:
    """Evaluate `learner` without changing it: no gradients, eval mode; modes and random state return."""
    state = random_state()
    try:
        with torch.no_grad(), in_eval_mode(learner):
            yield
    finally:
        set_random_state(state)


@torch.no_grad()
def evaluate(learner: nn.Module, test: ImageSet, classes_per_task: Sequence[int], seen: int) -> dict:
    """Score all test images once: the only place where a learner sees test data.

    test: ImageSet with labels by arrival, (N, C, H, W).   classes_per_task: (T,).   seen: number of classes
    learned so far. Returns arrays (N,) predictions, predictions_task_aware and rank (see Result), of the type
    that `label_type` names, and `finite`: whether all logits of seen classes are finite. RunError unless
    logits are (B, at least seen).
    """
    size = max(50, min(1000, TEST_PIXELS // max(1, int(np.prod(test.shape)))))
    found, finite = [], torch.ones((), dtype=torch.bool, device=test.device)
    with eval_mode(learner):
        for x, y in test.batches(size, shuffle=False):
            logits = learner(x).float()  # (B, K)
            if logits.ndim != 2 or len(logits) != len(x) or logits.shape[1] < seen:
                raise RunError(
                    f"forward() gave logits {tuple(logits.shape)} for {len(x)} images and {seen} classes "
                    f"seen; expected ({len(x)}, at least {seen})"
                )
            finite &= logits[:, :seen].isfinite().all()
            found.append(_choices(logits, y, classes_per_task, seen))
    kind = label_type(sum(classes_per_task))
    arrays = [torch.cat(v).to(torch.int32).cpu().numpy().astype(kind) for v in zip(*found)]
    return dict(zip(("predictions", "predictions_task_aware", "rank"), arrays)) | {"finite": bool(finite)}


def smallest_batch(learner: nn.Module, images: ImageSet) -> int:
    """2 if batch normalisation cannot learn from one image, else 1.

    That is so where a layer in forward() gets one value per channel from an image, not a map of several.
    """
    found, norms = [], nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d
    hooks = [
        module.register_forward_pre_hook(
            lambda m, given: found.append(given[0][0].numel() == given[0].shape[1])
        )
        for module in learner.modules()
        if isinstance(module, norms)
    ]
    if hooks:
        with eval_mode(learner):
            learner(images.images[:1].float() / 255)
    for hook in hooks:
        hook.remove()
    return 2 if any(found) else 1


def label_type(classes: int) -> type[np.integer]:
    """The type in which results store classes: int16, or int32 for more than 32,768 classes."""
    return np.int16 if classes <= 2**15 else np.int32


def accuracy_by_task(test: ImageSet, classes_per_task: Sequence[int], learner: nn.Module) -> torch.Tensor:
    """Share of correct predictions among all classes, for each task: (T,).

    test: ImageSet with labels by arrival.   classes_per_task: (T,). A probe: a Trace calls it with the
    learner in eval mode and without gradients.
    """
    right = torch.cat([learner(x).argmax(1) == y for x, y in test.batches(500, shuffle=False)])  # (N,)
    ends = torch.cumsum(torch.tensor(classes_per_task, device=test.device), 0)
    tasks = torch.bucketize(test.labels, ends, right=True)  # (N,)
    counts = torch.zeros(2, len(classes_per_task), device=test.device)
    counts.index_add_(1, tasks, torch.stack([right, torch.ones_like(right)]).float())
    return counts[0] / counts[1]


def _choices(logits, y, classes_per_task, seen):
    """Predictions, task-aware predictions and ranks of one batch, each (B,)."""
    nothing = torch.full_like(y, -1)
    task_aware, first = nothing.clone(), 0
    for size in classes_per_task:
        if first + size <= logits.shape[1]:
            own = (y >= first) & (y < first + size)
            task_aware = torch.where(own, first + logits[:, first : first + size].argmax(1), task_aware)
        first += size
    if seen == 0:
        return nothing, task_aware, nothing
    known = y < seen
    predicted = logits[:, :seen].argmax(1)  # the first of equal logits
    rank = torch.where(known, _rank(logits[:, :seen], y.clamp(max=seen - 1)), nothing)
    return torch.where(known, predicted, nothing), task_aware, rank


def _rank(logits, y):
    """The number of classes ahead of y (B,) in (B, K): with a larger logit, or an equal one further left."""
    true = logits.gather(1, y[:, None])  # (B, 1)
    left = torch.arange(logits.shape[1], device=y.device) < y[:, None]  # (B, K)
    return ((logits > true) | ((logits == true) & left)).sum(1)
