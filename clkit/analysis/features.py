"""Features that a learner recalls beside those of test images, and how far the features of a class move.

A learner of features has features(x), after(u), recall(n, label), `seen`, the number of classes learned, and
`known`, the number of classes that it recalls. Maps, which it may recall in place of features, are averaged
over their positions here.
"""

import math

import numpy as np
import torch

from clkit.analysis.generated import drawn

CLASSES, EACH = 10, 20  # whose features are kept, and how many of each; class means are kept of all


def columns(stream, n):
    """{column: function of the learner}, on the first n test images of each class.

    labels (M,), real (M, D): of the first ten classes of the stream that are learned, 20 of each; generated
    (M, D): recalled ones of the same classes, without rows where nothing is recalled.   means (K, D): of the
    real features of each class, NaN for classes to come.   recognised (K,): share of n recalled features that
    the learner takes for their class, NaN where it recalls none.   future (): share of test images of the
    classes learned that it takes for a class to come, if it has scores for these.
    """
    index = torch.cat([(stream.test.labels == k).nonzero()[:n, 0] for k in range(stream.classes)])
    test = stream.test.select(index)
    return {
        "labels": lambda learner: shown(learner, test)[1],
        "real": lambda learner: real(learner, shown(learner, test)[0]).half(),
        "generated": lambda learner: generated(learner, shown(learner, test)[1]).half(),
        "means": lambda learner: means(learner, test).half(),
        "recognised": lambda learner: recognised(learner, n),
        "future": lambda learner: future(learner, test),
    }


def shown(learner, test):
    """(images uint8 (M, C, H, W), labels (M,)) of the classes whose features are kept."""
    classes = range(min(CLASSES, int(learner.seen)))
    index = torch.cat([(test.labels == k).nonzero()[:EACH, 0] for k in classes])
    return test.images[index], test.labels[index]


def pooled(u):
    """Features (B, D); of maps (B, C, h, w) the means (B, C)."""
    return u if u.dim() == 2 else u.flatten(2).mean(2)


def real(learner, images):
    """Features (M, D) of images uint8 (M, C, H, W)."""
    return torch.cat([pooled(learner.features(x.float() / 255)) for x in images.split(500)])


def generated(learner, labels):
    """Recalled features (M, D) of classes (M,), sorted; of those that the learner recalls."""
    counts = torch.bincount(labels).tolist()[: int(learner.known)]
    found = [pooled(drawn(learner, count, k)) for k, count in enumerate(counts)]
    return torch.cat(found) if found else torch.zeros(0, device=labels.device)


def means(learner, test):
    """The mean feature of the test images of each class, (K, D), NaN for classes to come."""
    u, labels = real(learner, test.images), test.labels  # (N, D), (N,)
    found = torch.full((test.classes, u.shape[1]), math.nan, device=u.device)
    for label in range(int(learner.seen)):
        found[label] = u[labels == label].mean(0)
    return found


def recognised(learner, n):
    """Share of n recalled features of each class that the learner takes for it among those learned: (K,)."""
    found = torch.full((learner.classes,), math.nan, device=learner.known.device)
    for label in range(int(learner.known)):
        scores = learner.after(drawn(learner, n, label))[:, : int(learner.seen)]
        found[label] = (scores.argmax(1) == label).float().mean()
    return found


def future(learner, test):
    """Share of test images of the classes learned whose best score is that of a class to come: ()."""
    known = test.select((test.labels < int(learner.seen)).nonzero()[:, 0])
    best = torch.cat([learner(x).argmax(1) for x, _ in known.batches(500, shuffle=False)])
    return (best >= int(learner.seen)).float().mean()


def drift(result):
    """(T, K) cosine of each class's mean feature after each task with that when it was learned; NaN before.

    Needs the table "features" with the columns of `columns`.
    """
    means = np.asarray(result.trace["features"]["means"], dtype=np.float64)  # (T, K, D)
    tasks = np.searchsorted(result.seen, np.arange(means.shape[1]), side="right")
    first = means[tasks, np.arange(means.shape[1])]  # (K, D) when each class was learned
    lengths = np.linalg.norm(means, axis=-1) * np.linalg.norm(first, axis=-1)
    return (means * first).sum(-1) / lengths
