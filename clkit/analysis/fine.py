"""Which old classes are forgotten, and which are only outshouted by new ones: accuracy class by class.

An old class is outshouted if its images are recognised among the old classes, but not among all. `report`
takes any learner; `columns` makes it a probe for the table "fine" of learners that have `ends` and a network
`net` with a last layer `head`. K classes of the stream; what does not exist yet is nan.
"""

import itertools
import math

import torch

from clkit.analysis import first_of
from clkit.engine.evaluate import in_eval_mode

COLUMNS = ("accuracy", "within", "old_to_new", "new_to_old", "projected", "apart")
MOST, EACH, PICTURES = 10, 100, 8  # classes whose features are kept, and how many features and images of each
COMPARED = 2  # tasks after which features are kept: those before and after the first loss


@torch.no_grad()
def report(learner, images, first, seen, upcoming=None):
    """What a learner answers after a task with the classes [first, seen): {column: tensor}.

    images: an ImageSet with labels by arrival, of which the classes seen are taken.   upcoming: the number of
    classes after the next task, if there is one, whose images are among them.

    accuracy (K,): of each class seen, among all classes seen.   within (K,): the same, old classes among old
    ones and new classes among new ones.   old_to_new, new_to_old: the share of images of old classes that are
    taken for a new one, and the reverse.   projected (K,): the mean probability of each class seen for images
    of the next task.   apart (K, K): the mean distance of the probabilities of two classes for them.
    """
    with in_eval_mode(learner):
        logits = torch.cat([learner(x)[:, :seen].float() for x, _ in images.batches(500, shuffle=False)])
    labels, classes = images.labels, images.classes
    known = labels < seen
    y, out = labels[known], logits[known]  # (N,), (N, seen)
    answers = {"accuracy": by_class(out.argmax(1) == y, y, classes)}
    answers["within"] = by_class(inside(out, y, first) == y, y, classes)
    answers |= dict(zip(("old_to_new", "new_to_old"), crossings(out.argmax(1), y, first)))
    soon = ~known & (labels < (upcoming or 0))
    return answers | dict(zip(("projected", "apart"), projected(logits[soon], classes)))


def by_class(right, labels, classes):
    """The share of right answers, bool (N,), of each class: (K,), nan where there are no images."""
    counts = torch.zeros(2, classes, device=labels.device)
    counts.index_add_(1, labels, torch.stack([right, torch.ones_like(right)]).float())
    return counts[0] / counts[1]


def inside(logits, labels, first):
    """The answers (N,) if it is known whether a class is old, below `first`, or new: logits (N, seen)."""
    if not first:
        return logits.argmax(1)
    return torch.where(labels < first, logits[:, :first].argmax(1), first + logits[:, first:].argmax(1))


def crossings(answers, labels, first):
    """(share of old images that are taken for a new class, share of new ones taken for an old class)."""
    old = labels < first
    shares = [(answers[old] >= first).float().mean(), (answers[~old] < first).float().mean()]
    return shares if first else [torch.full_like(share, math.nan) for share in shares]


def projected(logits, classes):
    """(mean probabilities (K,), mean distances of two of them (K, K)) of logits (N, seen)."""
    mean = logits.new_full((classes,), math.nan)
    apart = logits.new_full((classes, classes), math.nan)
    if len(logits):
        p = logits.softmax(1)  # (N, seen)
        seen = p.shape[1]
        mean[:seen] = p.mean(0)
        for k in range(seen):  # (N, seen) at a time, not (N, seen, seen)
            apart[k, :seen] = (p - p[:, k : k + 1]).abs().mean(0)
    return mean, apart


def by_group(values, groups):
    """{group: mean of its values}, for values (K,) and groups {name: number of classes}, in order of arrival.

    Classes beyond the groups are left out.
    """
    ends = itertools.accumulate(groups.values())
    return {name: float(values[end - n : end].mean()) for (name, n), end in zip(groups.items(), ends)}


# ---- the probe


def columns(stream, shown=None):
    """{column: function of the learner}: `report` on the test images of a stream, after each of its tasks.

    The report is made for the first column of a row; the others are taken from it. Besides, of classes
    `shown` of the first task (numbers by arrival; None: its first ten): features (N, D), what the last layer
    of the network takes, of 100 test images of each, after the first two tasks; labels (N,); pictures
    (M, C, H, W), the first eight of each as bytes, after the first. Later rows have none of them.
    """
    found, classes = {}, shown or range(min(stream.seen[0], MOST))
    tests = {n: first_of(stream.test, classes, n) for n in (EACH, PICTURES)}

    def task_of(learner):
        return stream.seen.index(int(learner.ends[-1]))

    def look(learner):
        task = task_of(learner)
        seen, first = stream.seen[task], stream.seen[task] - stream.classes_per_task[task]
        upcoming = stream.seen[task + 1] if task + 1 < len(stream) else None
        found.update(report(learner, stream.test, first, seen, upcoming))
        return found[COLUMNS[0]]

    def some(n, rows, learner):
        return tests[n].select(slice(None if task_of(learner) < rows else 0))

    return (
        {COLUMNS[0]: look}
        | {name: lambda learner, name=name: found[name] for name in COLUMNS[1:]}
        | {
            "features": lambda learner: penultimate(learner, some(EACH, COMPARED, learner)).half(),
            "labels": lambda learner: some(EACH, COMPARED, learner).labels,
            "pictures": lambda learner: some(PICTURES, 1, learner).images,
        }
    )


@torch.no_grad()
def penultimate(learner, images):
    """What the last layer of the learner's network takes, (N, D), for an ImageSet."""
    head, parts = learner.net.head, []
    handle = head.register_forward_pre_hook(lambda _, inputs: parts.append(inputs[0]))
    try:
        with in_eval_mode(learner):
            for x, _ in images.batches(500, shuffle=False):
                learner(x)
    finally:
        handle.remove()
    return torch.cat([torch.zeros(0, head.in_features, device=head.weight.device), *parts])
