"""Which old classes are forgotten, and which are only outshouted by new ones: accuracy class by class.

An old class is outshouted if its images are recognised among the old classes, but not among all. `report`
takes any learner; `columns` makes it a probe for the table "fine" of learners that have `ends`. K classes of
the stream; what does not exist yet is nan.
"""

import itertools
import math

import torch

from clkit.engine.evaluate import in_eval_mode

COLUMNS = ("accuracy", "within", "old_to_new", "new_to_old", "projected", "apart")


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


def columns(stream):
    """{column: function of the learner}: `report` on the test images of a stream, after each of its tasks.

    The report is made for the first column of a row; the others are taken from it.
    """
    found = {}

    def look(learner):
        seen = int(learner.ends[-1])
        task = stream.seen.index(seen)
        first = stream.seen[task] - stream.classes_per_task[task]
        upcoming = stream.seen[task + 1] if task + 1 < len(stream) else None
        found.update(report(learner, stream.test, first, seen, upcoming))
        return found[COLUMNS[0]]

    return {COLUMNS[0]: look} | {name: lambda learner, name=name: found[name] for name in COLUMNS[1:]}
