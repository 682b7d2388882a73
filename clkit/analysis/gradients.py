"""How similar the gradients of two sets of images are, by layer (Ji et al. 2020, figure 7).

A gradient is that of the cross-entropy of one image, one vector per parameter tensor (weight and bias
separately). Two images are compared by the cosine of these vectors; the values of all tensors of a layer
group are pooled. The gradient of a fully connected layer is never formed, and other gradients only for a few
images at a time. Batch normalisation uses its running statistics, since a single image has none of its own.

    values = correlation(learner, (images, targets), (others, labels))     {parameter: (N,)}
    table(values, groups(learner))                                         {group: (mean, deviation, values)}

`study` is the comparison of the paper: recalled images with real ones of the class they started from (class
1) and of the class they are recalled as (class 2). Its control gives the image before the recall the same
label, and so shows how much of the similarity to class 2 the label alone causes.
"""

import math
from contextlib import contextmanager
from types import SimpleNamespace

import numpy as np
import torch
from torch import nn
from torch.func import functional_call, grad, vmap
from torch.nn import functional as F

from clkit.engine.evaluate import in_eval_mode
from clkit.errors import ClkitError

CONDITIONS = ("hard", "soft", "control hard", "control soft")


class GradientError(ClkitError):
    """Images, targets or a network that cannot be compared; the message says why."""


# ---- gradients and their cosines

_BYTES = 2**27  # of single images' gradients held at a time


def correlation(model, first, second, *, classes=None):
    """Cosine between the gradients of two sets of images, image by image.

    model: a network or learner, images (N, C, H, W) in [0, 1] -> logits (N, K); it is unchanged.
    first, second: (images (N, C, H, W), targets) each; targets are classes (N,) or probabilities (N, K).
    classes: how many of the logits, from the first on, are in the softmax; None takes all.
    Returns {parameter name: (N,) array} for the parameters that the logits depend on; 0 where a gradient is
    0.
    """
    return _compare(model, [first], [second], classes)[0][0]


def _compare(model, firsts, seconds, classes):
    """correlation() of each pair of a first and a second set, as [first][second]; each gradient once."""
    sets = [*firsts, *seconds]
    n = len(sets[0][0])
    for images, targets in sets:
        if len(images) != n or len(targets) != n or n == 0:
            raise GradientError(
                f"sets are compared image by image: one has {len(images)} images and {len(targets)} "
                f"targets, the first one {n} images; give all sets the same number of both"
            )
    with in_eval_mode(model):
        parameters, linear, K = _used(model, sets[0][0][:1], classes)
        sets = [(images, _distributions(targets, K)) for images, targets in sets]
        others = {name: p for name, p in parameters.items() if not any(name in pair for pair in linear)}
        size = len(sets) * sum(p.numel() * p.element_size() for p in others.values())
        chunk = min(64, max(1, _BYTES // max(1, size)))
        found = [[{name: [] for name in parameters} for _ in seconds] for _ in firsts]
        for start in range(0, n, chunk):
            units = []
            for images, targets in sets:
                part = images[start : start + chunk], targets[start : start + chunk]
                factors = _factors(model, parameters, linear, *part, K)
                units.append(factors | _whole(model, others, *part, K))
            for i, row in enumerate(found):
                for j, pair in enumerate(row):
                    for name, cosines in pair.items():
                        cosines.append(_cosines(units[i][name], units[len(firsts) + j][name]))

    def joined(pair):
        return {name: torch.cat(parts).cpu().numpy() for name, parts in pair.items()}

    return [[joined(pair) for pair in row] for row in found]


def _cosines(first, second):
    """Cosines (B,) of two sets: products, over their factors, of dot products of (B, numbers)."""
    return math.prod((a * b).sum(1) for a, b in zip(first, second))


def _used(model, x, classes):
    """What the logits of the image x (1, C, H, W) depend on.

    Returns {name: tensor} of these parameters; {(name of weight, name of bias or None): layer} of the fully
    connected layers among them whose weight gradient, for a single image, is the outer product of the
    gradient in the layer's output and the layer's input; and the number of classes.
    """
    named = dict(model.named_parameters())
    for_grad = {name: p.detach().clone().requires_grad_() for name, p in named.items()}
    layers = {name: m for name, m in model.named_modules() if isinstance(m, nn.Linear)}
    with torch.enable_grad(), _passes(layers) as passed:
        logits = functional_call(model, for_grad, (x,))
        if not logits.requires_grad:
            raise GradientError(
                "the logits have no gradient in any parameter: take a network trained by gradient descent"
            )
        K = logits.shape[1] if classes is None else classes
        ways = {name: calls[0] for name, calls in passed.items() if len(calls) == 1}
        ends = [*for_grad.values(), *(after for _, after in ways.values())]
        found = torch.autograd.grad(logits[:, :K].log_softmax(1)[0, 0], ends, allow_unused=True)
    found, back = dict(zip(for_grad, found)), dict(zip(ways, found[len(for_grad) :]))
    linear = {}
    for name, (before, _) in ways.items():
        weight, bias = f"{name}.weight", f"{name}.bias"
        outer = before.ndim == 2 and found.get(weight) is not None
        if outer and torch.allclose(found[weight], back[name].T @ before.detach(), rtol=1e-3, atol=1e-6):
            linear[weight, bias if found.get(bias) is not None else None] = layers[name]
    return {name: named[name].detach() for name, g in found.items() if g is not None}, linear, K


@contextmanager
def _passes(layers):
    """In this context, inputs and outputs of these layers {name: layer}: {name: [(before, after), ...]}."""
    passed = {name: [] for name in layers}

    def note(name):
        return lambda _, before, after: passed[name].append((before[0], after))

    hooks = [layer.register_forward_hook(note(name)) for name, layer in layers.items()]
    try:
        yield passed
    finally:
        for hook in hooks:
            hook.remove()


def _factors(model, parameters, linear, x, targets, classes):
    """Gradients of fully connected layers as factors of length 1: {name: ((B, outputs), (B, inputs))}.

    The gradient of a weight is the outer product of the gradient d in the layer's output and its input a; so
    the dot product of two of them is (d1 d2) (a1 a2), and none is ever formed. The gradient of a bias is d.
    """
    if not linear:
        return {}
    for_grad = {name: p.clone().requires_grad_() for name, p in parameters.items()}
    with torch.enable_grad(), _passes(linear) as passed:
        logits = functional_call(model, for_grad, (x,))[:, :classes]
        loss = -(targets * logits.log_softmax(1)).sum()
        back = torch.autograd.grad(loss, [passed[names][0][1] for names in linear])
    found = {}
    for (weight, bias), d in zip(linear, back):
        d, a = _unit(d), _unit(passed[weight, bias][0][0].detach())
        found[weight] = (d, a)
        if bias is not None:
            found[bias] = (d,)
    return found


def _whole(model, parameters, x, targets, classes):
    """Gradients of single images in these parameters, scaled to length 1, or 0: {name: ((B, numbers),)}."""
    if not parameters:
        return {}

    def loss(parameters, image, target):
        logits = functional_call(model, parameters, (image[None],))[0, :classes]
        return -(target * logits.log_softmax(0)).sum()

    with torch.no_grad():  # no gradient of the parameters left out here
        found = vmap(grad(loss), in_dims=(None, 0, 0))(parameters, x, targets)
    return {name: (_unit(gradient.flatten(1)),) for name, gradient in found.items()}


def _unit(rows):
    """Rows (B, numbers) scaled to length 1; a row of zeros stays."""
    return F.normalize(rows, dim=1, eps=torch.finfo(rows.dtype).tiny)


def _distributions(targets, classes):
    """Targets as probabilities (N, K): classes (N,) become one-hot."""
    if targets.ndim == 1:
        low, high = int(targets.min()), int(targets.max())
        if not 0 <= low <= high < classes:
            message = f"the targets range from {low} to {high}, but the softmax has {classes} classes"
            raise GradientError(message)
        return F.one_hot(targets.long(), classes)
    K = targets.shape[1]
    if K != classes:
        raise GradientError(f"the targets have {K} probabilities, but the softmax has {classes} classes")
    return targets


# ---- by layer


def groups(model):
    """{parameter name: layer group}, in the order of the layers.

    For the networks of this package Conv1 ... ConvN and FC1 ... FCN (FC if there is only one): a residual
    network has its stem as Conv1 and its four stages as Conv2 to Conv5, with their batch normalisation and
    shortcuts. In other networks each module is a group of its own.
    """
    found = {name: _group(name) for name, _ in model.named_parameters()}
    full = dict.fromkeys(group for group in found.values() if group.startswith("FC"))
    labels = {group: f"FC{i}" if len(full) > 1 else "FC" for i, group in enumerate(full, 1)}
    return {name: labels.get(group, group) for name, group in found.items()}


def _group(name):
    """The group of a parameter; fully connected layers as FC and a mark, numbered later."""
    parts = name.split(".")[:-1]
    for part, number in zip(parts, [*parts[1:], ""]):
        if part in ("stem", "bn"):
            return "Conv1"
        if number.isdigit() and part == "blocks":
            return f"Conv{2 + int(number) // 2}"
        if number.isdigit() and part == "convs":
            return f"Conv{1 + int(number)}"
        if number.isdigit() and part == "hidden":
            return f"FC hidden {number}"
        if part in ("dense", "head"):
            return f"FC {part}"
    return ".".join(parts) or name


def table(values, layers):
    """Pool over images and parameters of each layer group: {group: (mean, deviation, number of values)}.

    values: from `correlation`.   layers: from `groups`. The last group, "All", pools everything.
    """
    pooled = {}
    for name, group in layers.items():
        if name in values:
            pooled.setdefault(group, []).append(values[name])
    pooled["All"] = list(values.values())
    joined = {group: np.concatenate(parts) for group, parts in pooled.items()}
    return {group: (float(part.mean()), float(part.std()), len(part)) for group, part in joined.items()}


# ---- recalled images compared with real ones


def gather(learner, batches, n=1000):
    """Images recalled by a learner's `recall_for`, from as many batches as are needed to get n of them.

    batches: of (x, y). Returns start and images (n, C, H, W), origins (n,) and probs (n, K).
    """
    parts, count, names = [], 0, "start images origins probs".split()
    for x, y in batches:
        found = learner.recall_for(x, y)
        kept = slice(None) if found.multiplicity is None else found.multiplicity > 0
        parts.append([getattr(found, name)[kept] for name in names])
        count += len(parts[-1][0])
        if count >= n:
            break
    if not parts:
        raise GradientError("there is no batch to recall images for: give at least one")
    return SimpleNamespace(**{name: torch.cat(part)[:n] for name, part in zip(names, zip(*parts))})


def study(model, recalled, real, *, seed=0, classes=None):
    """Compare recalled images with real ones of the class at their start (1) and after it (2), figure 7.

    recalled: start and images (n, C, H, W), origins (n,) and probs (n, K) of the old network, as `gather`
    returns.   real: (images (N, C, H, W), labels (N,)), from which one image of each of the two
    classes is drawn per recalled image.   seed: of that draw.
    Returns ({condition: {"class 1": values, "class 2": values}}, number of images left out because both
    classes are the same). Values as of `correlation`. Conditions: "hard" (the label is class 2), "soft" (the
    label is the old network's output), and as a control both with the image before the recall.
    """
    target = recalled.probs.argmax(1)
    kept = torch.nonzero(target != recalled.origins)[:, 0]
    if len(kept) == 0:
        raise GradientError(
            "every image is recalled as the class that it started from: there are no two classes to compare"
        )
    first, second = recalled.origins[kept], target[kept]
    draw = torch.Generator(device="cpu").manual_seed(seed)
    images, labels = real
    references = [(images[_of_class(labels, wanted, draw)], wanted) for wanted in (first, second)]
    soft = recalled.probs[kept]
    sets = [(x[kept], label) for x in (recalled.images, recalled.start) for label in (second, soft)]
    found = _compare(model, sets, references, classes)
    pairs = {condition: dict(zip(("class 1", "class 2"), row)) for condition, row in zip(CONDITIONS, found)}
    return pairs, len(target) - len(kept)


def rows(learner, stream, *, images=1000, batch_size=10, classes=None):
    """The study of a learner at the end of its stream, as the columns of a table.

    images: how many are recalled, for batches of the last task's images.   batch_size: images per batch.
    One row per condition, class ("class 1" of the start image, "class 2" recalled) and layer group:
    condition, which, group, mean, deviation, values (how many are pooled), left_out (recalled
    images not used).
    """
    recalled = gather(learner, stream[len(stream) - 1].train.batches(batch_size), images)
    whole = stream.merged()[0].train
    real = (Pixels(whole.images), whole.labels)
    pairs, left_out = study(learner, recalled, real, classes=classes)
    layers, found = groups(learner), []
    for condition, both in pairs.items():
        for which, values in both.items():
            for group, (mean, deviation, n) in table(values, layers).items():
                found.append((condition, which, group, mean, deviation, n, left_out))
    names = ("condition", "which", "group", "mean", "deviation", "values", "left_out")
    return {name: list(column) for name, column in zip(names, zip(*found))}


class Pixels:
    """uint8 images (N, C, H, W), of which only those requested are converted to [0, 1]."""

    def __init__(self, images):
        self.images = images

    def __getitem__(self, indices):
        return self.images[indices].float() / 255


def _of_class(labels, wanted, draw):
    """The index of a random image of each wanted class (n,): (n,)."""
    indices = torch.zeros_like(wanted)
    for k in sorted(set(wanted.tolist())):
        members = torch.nonzero(labels == k)[:, 0]
        if len(members) == 0:
            raise GradientError(f"there is no real image of class {k} to compare recalled images with")
        mine = torch.nonzero(wanted == k)[:, 0]
        chosen = torch.randint(len(members), (len(mine),), generator=draw, device="cpu")
        indices[mine] = members[chosen.to(members.device)]
    return indices
