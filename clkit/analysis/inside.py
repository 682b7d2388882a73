"""Where in a network the past is kept: representations of each layer, compared between tasks.

    layers(learner, x)                            {layer: its output for a batch, after the activation}
    representations(learner, images)              {layer: (n, p)}: positions of maps are datapoints
    compare(learner, other, images)               {layer: (Similarity, CKA)} of two networks
    rows(learners, stream)                        each task's network with all later ones: a table
    planes(learners, images)                      {layer: (T, N, 2)}: maps of the same images after each task

Layers are named as in clkit.analysis.gradients: Conv1, ..., FC1, ...; a residual network has its stem as
Conv1 and the ends of its four stages as Conv2 to Conv5. The last layer is "logits". For networks after task t
and a later one, the images are test images of task t, and of the logits those of its classes are compared
(Liu et al. 2020, figure 2).
"""

import math

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from clkit.analysis import first_of
from clkit.analysis.embedding import plane
from clkit.analysis.gradients import groups
from clkit.analysis.svcca import cka, fold, svcca
from clkit.engine.evaluate import eval_mode, in_eval_mode

LOGITS = "logits"
POSITIONS = 16  # of the maps of each image; the last stage of a residual network has 16 for 32x32 images
WEIGHTED = (nn.Linear, nn.Conv2d, nn.ConvTranspose2d)
ACTIVATIONS = {F.relu, torch.relu, torch.Tensor.relu, F.leaky_relu, F.elu, F.gelu, F.silu, torch.tanh}


# ---- representations


class _Watch(TorchFunctionMode):
    """Keeps what activation functions return: {layer: tensor}, of each layer the last."""

    def __init__(self):
        self.layer, self.found = None, {}

    def __torch_function__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        if function in ACTIVATIONS and self.layer is not None:
            self.found[self.layer] = result
        return result


@torch.no_grad()
def layers(model, x):
    """{layer: output for the images x (B, C, H, W)}: maps (B, C', H', W'), units (B, D), or logits (B, K).

    A layer's output is what its activation function gives; of a layer with several, the last. The model is
    evaluated, and stays as it is.
    """
    watch, hooks = _Watch(), []

    def enter(name):
        return lambda *_: setattr(watch, "layer", name)

    of_module = {name.rpartition(".")[0]: group for name, group in groups(model).items()}
    for name, module in model.named_modules():
        if isinstance(module, WEIGHTED) and name in of_module:
            hooks.append(module.register_forward_hook(enter(of_module[name])))
    try:
        with in_eval_mode(model), watch:
            logits = model(x)
    finally:
        for hook in hooks:
            hook.remove()
    return watch.found | {LOGITS: logits}


def representations(learner, images, positions=POSITIONS):
    """{layer: (n, p)} of an ImageSet: a datapoint for each image, or for each of some positions of its maps.

    positions: how many random positions of each image; they depend on the numbers of images and positions
    only, so two networks have the same.
    """
    parts = {}
    with eval_mode(learner):
        for i, (x, _) in enumerate(images.batches(500, shuffle=False)):
            for layer, values in layers(learner, x).items():
                parts.setdefault(layer, []).append(fold(values, positions, seed=i))
    return {layer: torch.cat(part) for layer, part in parts.items()}


# ---- comparisons


def compare(learner, other, images, *, classes=None, keep=0.99, positions=POSITIONS):
    """{layer: (Similarity, CKA)} of two networks for the same images (an ImageSet), for the layers of both.

    classes: (first, end) of the logits to compare; None: all, if both have as many.   keep: as in `svcca`.
    With too few images the floor is 1, or near it.
    """
    both = (representations(model, images, positions) for model in (learner, other))
    return _compared(*both, classes, keep)


def _compared(here, there, classes, keep=0.99):
    found = {}
    for layer in (name for name in here if name in there):
        A, B = here[layer], there[layer]
        if layer == LOGITS and classes is not None:
            A, B = (x[:, slice(*classes)] for x in (A, B))
        found[layer] = svcca(A, B, keep, allow_few=True), cka(A, B)
    return found


def rows(learners, stream, *, images=1000, positions=POSITIONS):
    """The networks after each task compared with all later ones, as the columns of a table.

    learners: after each task.   images: at most so many test images of each task, equally many of its
    classes.   One row per layer: layer; svcca, cka and floor (T, T); kept (T, T, 2); n (T,), the datapoints.
    Row t, column u of a matrix is for the networks after tasks t and u on images of task t; below the
    diagonal it is NaN, or 0 directions kept.
    """
    T, tests, first = len(learners), [], {}
    for task in stream:
        each = math.ceil(images / (task.seen - task.first))
        tests.append(first_of(stream.test, range(task.first, task.seen), each))
    found = {}
    for u, learner in enumerate(learners):
        for t, task in zip(range(u + 1), stream):
            here = representations(learner, tests[t], positions)
            first.setdefault(t, here)
            for layer, pair in _compared(first[t], here, (task.first, task.seen)).items():
                found.setdefault(layer, {})[t, u] = pair
    return _table(found, T)


def planes(learners, images):
    """{layer: (T, N, 2)}: the images on a plane after each task, by the principal components of each layer.

    A point is a whole image: all values of its maps. Each plane is turned towards the one before.
    """
    found = {}
    for learner in learners:
        with eval_mode(learner):
            parts = [layers(learner, x) for x, _ in images.batches(500, shuffle=False)]
        for layer in parts[0]:
            values = torch.cat([part[layer].flatten(1) for part in parts])
            before = found.setdefault(layer, [])
            before.append(plane(values, before[-1] if before else None))
    return {layer: np.stack(points) for layer, points in found.items()}


def _table(found, T):
    """The columns of `rows` of {layer: {(t, u): (Similarity, CKA)}}."""
    columns = {"layer": list(found), "svcca": [], "cka": [], "floor": [], "kept": [], "n": []}
    for pairs in found.values():
        numbers = {name: np.full((T, T), np.nan) for name in ("svcca", "cka", "floor")}
        kept, n = np.zeros((T, T, 2), dtype=int), np.zeros(T, dtype=int)
        for place, (similarity, linear) in pairs.items():
            numbers["svcca"][place], numbers["cka"][place] = similarity.mean, linear
            numbers["floor"][place], kept[place] = similarity.floor, similarity.kept
            n[place[0]] = similarity.n
        for name, values in (numbers | {"kept": kept, "n": n}).items():
            columns[name].append(values)
    return columns
