"""How alike the gradients are that two sets of images give a network, by layer (Ji et al. 2020, figure 7).

A gradient is that of the cross-entropy of one image, one vector for each parameter tensor (weight and bias
apart). Two images are compared by the cosine of these vectors; the values of all tensors of a layer group
are pooled. Batch normalisation uses its running statistics, since a single image has none of its own.

    values = correlation(learner, (images, targets), (others, labels))     {parameter: (N,)}
    table(values, groups(learner))                                         {group: (mean, deviation, values)}

`study` is the comparison of the paper: recalled images with real ones of the class they began as (class 1)
and of the class they are recalled as (class 2). Its control gives the image as it was before the recall the
same label, and so shows how much of the likeness to class 2 the label makes alone.
"""

from types import SimpleNamespace

import numpy as np
import torch
from torch.func import functional_call, grad, vmap

CONDITIONS = ("hard", "soft", "control hard", "control soft")


class GradientError(ValueError):
    """Images, targets or a network that cannot be compared; the message says why."""


# ---- gradients and their cosines

def correlation(model, first, second, *, classes=None, chunk=16):
    """Cosine between the gradients of two sets of images, image by image.

    model: a network or learner, images (N, C, H, W) in [0, 1] -> scores (N, K); it is left as it is.
    first, second: (images (N, C, H, W), targets) each, targets being classes (N,) or probabilities (N, K).
    classes: how many of the scores, from the first on, are in the softmax; None takes all.
    chunk: images whose gradients are held at a time.
    Returns {parameter name: (N,) array} for the parameters that the scores depend on; 0 where a gradient is.
    """
    return _compare(model, [first], [second], classes, chunk)[0][0]


def _compare(model, firsts, seconds, classes, chunk):
    """correlation() of each pair of a first and a second set, by [first][second]; each gradient once."""
    sets = [*firsts, *seconds]
    n = len(sets[0][0])
    for images, targets in sets:
        if len(images) != n or len(targets) != n or n == 0:
            raise GradientError(f"two sets are compared image by image: {len(images)} images with "
                                f"{len(targets)} targets do not go with {n}")
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        parameters, K = _used(model, sets[0][0][:1], classes)
        sets = [(images, _distributions(targets, K)) for images, targets in sets]
        found = [[{name: [] for name in parameters} for _ in seconds] for _ in firsts]
        for start in range(0, n, chunk):
            units = [_gradients(model, parameters, x[start:start + chunk], t[start:start + chunk], K)
                     for x, t in sets]
            for i in range(len(firsts)):
                for j in range(len(seconds)):
                    for name in parameters:
                        cosines = (units[i][name] * units[len(firsts) + j][name]).sum(1)        # (B,)
                        found[i][j][name].append(cosines)
    finally:
        for module, training in modes:
            module.training = training
    return [[{name: torch.cat(parts).cpu().numpy() for name, parts in pair.items()} for pair in row]
            for row in found]


def _used(model, x, classes):
    """({name: tensor} of the parameters that the scores of x depend on, number of classes)."""
    named = dict(model.named_parameters())
    for_grad = {name: p.detach().clone().requires_grad_() for name, p in named.items()}
    with torch.enable_grad():
        scores = functional_call(model, for_grad, (x,))
        if not scores.requires_grad:
            raise GradientError("the scores have no gradient in any parameter: take a network that is "
                                "trained by gradients")
        K = scores.shape[1] if classes is None else classes
        found = torch.autograd.grad(scores[:, :K].sum(), list(for_grad.values()), allow_unused=True)
    return {name: named[name].detach() for name, slope in zip(for_grad, found) if slope is not None}, K


def _distributions(targets, classes):
    """Targets as probabilities (N, K): classes (N,) become one-hot."""
    if targets.ndim == 1:
        if not 0 <= int(targets.min()) <= int(targets.max()) < classes:
            raise GradientError(f"the targets range from {int(targets.min())} to {int(targets.max())}, the "
                                f"softmax has {classes} classes")
        return torch.nn.functional.one_hot(targets.long(), classes)
    if targets.shape[1] != classes:
        raise GradientError(f"the targets have {targets.shape[1]} probabilities, the softmax {classes} "
                            "classes")
    return targets


def _gradients(model, parameters, x, targets, classes):
    """Gradients of single images by parameter, each of length 1, or 0: {name: (B, numbers)}."""
    def loss(parameters, image, target):
        scores = functional_call(model, parameters, (image[None],))[0, :classes]
        return -(target * scores.log_softmax(0)).sum()
    found = vmap(grad(loss), in_dims=(None, 0, 0))(parameters, x, targets)
    return {name: torch.nn.functional.normalize(slope.flatten(1), dim=1, eps=torch.finfo(slope.dtype).tiny)
            for name, slope in found.items()}


# ---- by layer

def groups(model):
    """{parameter name: layer group}, in the order of the layers.

    For the networks of this package Conv1 ... ConvN and FC1 ... FCN (FC if there is one): a residual network
    has its stem as Conv1 and its four stages as Conv2 to Conv5, batch normalisation and shortcuts with them.
    Elsewhere each module is a group of its own.
    """
    names = [name for name, _ in model.named_parameters()]
    found = {name: _group(name) for name in names}
    full = list(dict.fromkeys(group for group in found.values() if group.startswith("FC")))
    labels = {group: f"FC{i + 1}" if len(full) > 1 else "FC" for i, group in enumerate(full)}
    return {name: labels.get(group, group) for name, group in found.items()}


def _group(name):
    """The group of a parameter; fully connected layers as FC and a mark, to be numbered later."""
    parts = name.split(".")[:-1]
    for i, part in enumerate(parts):
        number = int(parts[i + 1]) if i + 1 < len(parts) and parts[i + 1].isdigit() else None
        if part in ("stem", "bn"):
            return "Conv1"
        if part == "blocks" and number is not None:
            return f"Conv{2 + number // 2}"
        if part == "convs" and number is not None:
            return f"Conv{1 + number}"
        if part == "hidden" and number is not None:
            return f"FC hidden {number}"
        if part in ("dense", "head"):
            return f"FC {part}"
    return ".".join(parts) or name


def table(values, layers):
    """Pooled over the images and the parameters of each layer group: {group: (mean, deviation, values)}.

    values: of `correlation`.   layers: of `groups`. The last group, "All", pools everything.
    """
    pooled = {}
    for name, group in layers.items():
        if name in values:
            pooled.setdefault(group, []).append(values[name])
    pooled["All"] = list(values.values())
    joined = {group: np.concatenate(parts) for group, parts in pooled.items()}
    return {group: (float(part.mean()), float(part.std()), len(part)) for group, part in joined.items()}


# ---- recalled images beside real ones

def gather(learner, batches, n=1000):
    """Recalled images of a learner that has `remember`: those of as many batches as give n of them.

    batches: of (x, y). Returns start and images (n, C, H, W), origins (n,) and answers (n, K).
    """
    parts, count = [], 0
    for x, y in batches:
        found = learner.remember(x, y)
        kept = slice(None) if found.counts is None else found.counts > 0
        parts.append([part[kept] for part in (found.start, found.images, found.origins, found.answers)])
        count += len(parts[-1][0])
        if count >= n:
            break
    if not parts:
        raise GradientError("there is no batch to recall images for")
    start, images, origins, answers = (torch.cat(part)[:n] for part in zip(*parts))
    return SimpleNamespace(start=start, images=images, origins=origins, answers=answers)


def study(model, recalled, real, *, seed=0, classes=None, chunk=16):
    """Recalled images against real ones of the class they began as (1) and are recalled as (2), figure 7.

    recalled: start and images (n, C, H, W), origins (n,) and answers (n, K) of the old network, as `gather`
    returns.   real: (images (N, C, H, W), labels (N,)), of which one of each class is drawn for each recalled
    image.   seed: of that draw.
    Returns ({condition: {"class 1": values, "class 2": values}}, number of images left out because both
    classes are the same). Values as of `correlation`. Conditions: "hard" (the label is class 2), "soft" (the
    label is the old network's answer), and for control both with the image as it was before the recall.
    """
    target = recalled.answers.argmax(1)
    kept = torch.nonzero(target != recalled.origins)[:, 0]
    if len(kept) == 0:
        raise GradientError("every recalled image is recalled as the class it began as: there are no two "
                            "classes to compare")
    first, second = recalled.origins[kept], target[kept]
    draw = torch.Generator(device="cpu").manual_seed(seed)
    images, labels = real
    references = [(images[_of_class(labels, wanted, draw)], wanted) for wanted in (first, second)]
    soft = recalled.answers[kept]
    sets = [(x[kept], label) for x in (recalled.images, recalled.start) for label in (second, soft)]
    found = _compare(model, sets, references, classes, chunk)
    pairs = {condition: dict(zip(("class 1", "class 2"), row)) for condition, row in zip(CONDITIONS, found)}
    return pairs, len(target) - len(kept)


def rows(learner, stream, *, images=1000, batch=10, classes=None):
    """The study of a learner at the end of its stream, as the columns of a table.

    images: how many are recalled, for batches of the last task's images.   batch: of so many images.
    A row for each condition, class ("class 1" the image's own, "class 2" the recalled one) and layer group:
    condition, which, group, mean, deviation, values (how many are pooled), left_out (recalled
    images not used).
    """
    recalled = gather(learner, stream[len(stream) - 1].train.batches(batch), images)
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
    """uint8 images (N, C, H, W) that are given out in [0, 1], those asked for only."""

    def __init__(self, images):
        self.images = images

    def __getitem__(self, places):
        return self.images[places].float() / 255


def _of_class(labels, wanted, draw):
    """The place of a random image of each wanted class (n,): (n,)."""
    places = torch.zeros_like(wanted)
    for k in sorted(set(wanted.tolist())):
        members = torch.nonzero(labels == k)[:, 0]
        if len(members) == 0:
            raise GradientError(f"there is no real image of class {k} to compare recalled ones with")
        mine = torch.nonzero(wanted == k)[:, 0]
        chosen = torch.randint(len(members), (len(mine),), generator=draw, device="cpu")
        places[mine] = members[chosen.to(members.device)]
    return places
