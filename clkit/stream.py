"""A class-incremental stream: the tasks of a data set in their order of arrival.

Classes are relabelled by arrival: the classes of task t are [first, seen), those seen so far are range(seen).
A Task holds its own images and nothing else, so that a learner that is given a Task has no way to older
images or to the test set.
"""

import copy
import hashlib
import itertools
from dataclasses import dataclass

import torch

from clkit.data import ImageSet


class StreamError(ValueError):
    """A stream that cannot be built as asked; the message is one sentence that says what to do."""


@dataclass(frozen=True)
class Task:
    """What a learner sees at a time. Its classes are [first, seen), in train's and val's labels as well.

    index: 0 for the first task; train: the training images; val: the validation images, or None.
    """

    index: int
    first: int
    seen: int
    train: ImageSet
    val: ImageSet | None = None


class Stream:
    """Tasks made from a training set; the test set for whoever tests.

    train, test: ImageSets of the same classes. sizes: classes per task, such as (2,) * 5. order: None for the
    classes' own order, an int for a random order drawn from that seed, or a list of classes; a list may leave
    classes out, whose images are then dropped from train and test. val: the share of each class's training
    images set aside for validation. cap: at most so many training images per class, those for validation not
    counted. arrival: None, or the seed of a random order in which each task's training images come, one for
    all passes; then images of a class that has had its cap are left out as they come, so that the end of a
    task belongs to the rarer classes. single_pass: each task's training images can be gone through once only.
    seed: for the choice of val and cap, which have generators of their own. StreamError where any of this
    does not fit.

    `test`: the test set in arrival labels, ordered by task, so that the images of the classes seen so far
    come first. `names`, `groups`: display names and superclasses by arrival. `order[k]` is the class that
    arrived as k. `seen[t]` is the number of classes seen up to and including task t.

    The images are sorted by task once. A Task's set is a window on its part of them and not a copy, since the
    tasks together are the whole training set and a copy would double the memory; writing into a window
    therefore changes the stream. The window has a storage of its own that ends where the task ends, so it
    does not lead to other images.
    """

    def __init__(self, train, test, sizes, *, order=None, val=0.0, cap=None, seed=0, single_pass=False,
                 arrival=None):
        _check_sets(train, test)
        _check_options(val, cap, seed, arrival)
        self.order = _arrange(order, train.classes)
        self.sizes = _check_sizes(sizes, len(self.order), train.classes, order)
        self.seen = tuple(itertools.accumulate(self.sizes))
        self.test_sizes = self.sizes  # the tasks that scores are given for, also when merged
        self.classes, self.shape = len(self.order), train.shape
        self.names = tuple(train.names[k] for k in self.order)
        self.groups = None if train.groups is None else tuple(train.groups[k] for k in self.order)
        self.val, self.cap, self.seed, self.single_pass = val, cap, seed, bool(single_pass)
        self.arrival, self._ordered = arrival, arrival is not None
        self.data, self._checksums = train.name, (train.checksum(), test.checksum())

        labels = _relabel(train.labels, self.order)  # (N,) by arrival, -1 for classes left out
        kept, held = _divide(labels, self.classes, val, None if self._ordered else cap, seed)
        if self._ordered:
            kept = _arrive(labels, kept, cap, arrival)
        self._train, self._train_ends = self._sort(train, labels, kept)
        self._val, self._val_ends = self._sort(train, labels, held)
        tests = _relabel(test.labels, self.order)
        self.test, _ = self._sort(test, tests, (tests >= 0).nonzero().flatten())
        self._check_filled(labels, tests)

    def _sort(self, source, labels, index):
        """The images at `index` ordered by task, in arrival labels, and where each task's end."""
        device = source.device
        ends = torch.tensor(self.seen, device=device)
        tasks = torch.bucketize(labels[index], ends, right=True)
        index = index[torch.argsort(tasks, stable=True)]
        counts = torch.bincount(tasks, minlength=len(self.sizes)).tolist()
        chosen = ImageSet(source.images.index_select(0, index), labels.index_select(0, index), self.names,
                          self.groups, source.name)
        return chosen, tuple(itertools.accumulate(counts))

    def _check_filled(self, labels, tests):
        for part, present in (("training", labels), ("test", tests)):
            counts = torch.bincount(present[present >= 0], minlength=self.classes).tolist()
            if 0 in counts:
                raise StreamError(f"the class {self.names[counts.index(0)]!r} has no {part} images: leave it "
                                  "out of the order or give it images")

    def __len__(self):
        return len(self.sizes)

    def __iter__(self):
        return (self[t] for t in range(len(self)))

    def __getitem__(self, t):
        if not -len(self) <= t < len(self):
            raise IndexError(f"the stream has {len(self)} tasks, numbered from 0: there is no task {t}")
        t %= len(self)
        train = self._window(self._train, self._train_ends, t, self.single_pass, self._ordered)
        val = self._window(self._val, self._val_ends, t, False, False) if self.val else None
        return Task(t, self.seen[t] - self.sizes[t], self.seen[t], train, val)

    def _window(self, whole, ends, t, single_pass, ordered):
        start, stop, seen = (ends[t - 1] if t else 0), ends[t], self.seen[t]
        groups = None if self.groups is None else self.groups[:seen]
        return ImageSet(_bounded(whole.images, start, stop), _bounded(whole.labels, start, stop),
                        self.names[:seen], groups, whole.name, single_pass, ordered)

    def to(self, device):
        """The same stream with its images on another device."""
        moved = copy.copy(self)
        moved._train, moved._val = self._train.to(device), self._val.to(device)
        moved.test = self.test.to(device)
        return moved

    def merged(self):
        """The same images as one task that holds all classes (joint training); nothing is copied.

        An order of arrival is given up: it would be that of the tasks.
        """
        merged = copy.copy(self)
        merged._ordered = False
        merged.sizes, merged.seen = (self.classes,), (self.classes,)
        merged._train_ends, merged._val_ends = (len(self._train),), (len(self._val),)
        return merged

    def about(self):
        """What the stream was made from, for records: plain JSON values.

        checksum covers both sets as they were given, so it is the same for every order.
        """
        arrival = {} if self.arrival is None else {"arrival": self.arrival}
        return {"data": self.data, "checksum": hashlib.sha256("".join(self._checksums).encode()).hexdigest(),
                "sizes": list(self.sizes), "order": list(self.order), "val": self.val, "cap": self.cap,
                "seed": self.seed, "single_pass": self.single_pass, **arrival}


def _bounded(tensor, start, stop):
    """tensor[start:stop] on the same memory, but a tensor that knows of no other: its storage is that part.

    A slice leads back to the whole through `_base` and `untyped_storage()`; what DLPack hands over does not.
    """
    part = tensor[start:stop]
    return torch.from_dlpack(part) if part.device.type in ("cpu", "cuda") else part


def _whole(value):
    return isinstance(value, int) and not isinstance(value, bool)


def _check_sets(train, test):
    if train.names != test.names or train.shape != test.shape:
        raise StreamError(f"training and test set do not belong together: {train.classes} classes "
                          f"{train.shape} and {test.classes} classes {test.shape}: give the two that one "
                          "load() returned")
    if train.device != test.device:
        raise StreamError(f"the training set is on {train.device} and the test set on {test.device}: move "
                          "one with .to()")
    for part in (train, test):
        if len(part) and not 0 <= int(part.labels.min()) <= int(part.labels.max()) < part.classes:
            raise StreamError(f"labels must lie in [0, {part.classes}), one per class name, but range from "
                              f"{int(part.labels.min())} to {int(part.labels.max())}")


def _check_options(val, cap, seed, arrival):
    if not isinstance(val, (int, float)) or isinstance(val, bool) or not 0 <= val < 1:
        raise StreamError("val is a share of each class's training images from 0 up to but not 1, not "
                          f"{val!r}")
    if cap is not None and (not _whole(cap) or cap < 1):
        raise StreamError("cap is a number of training images per class, a positive whole number or None, "
                          f"not {cap!r}")
    for name, value in (("seed", seed), ("arrival", 0 if arrival is None else arrival)):
        if not _whole(value) or value < 0:
            raise StreamError(f"{name} is a whole number from 0 on, not {value!r}")


def _arrange(order, classes):
    """The classes by arrival, as a tuple of ints."""
    if order is None:
        return tuple(range(classes))
    if _whole(order):
        if order < 0:
            raise StreamError(f"a seed for the class order is a whole number from 0 on, not {order}")
        return tuple(torch.randperm(classes, generator=_generator("order", order), device="cpu").tolist())
    try:
        chosen = tuple(k if _whole(k) else k.__index__() for k in order)
    except (TypeError, AttributeError):
        raise StreamError(f"order is None, a seed, or a list of class numbers, not {order!r}") from None
    for k in chosen:
        if not 0 <= k < classes:
            raise StreamError(f"the order names class {k}, but the classes are 0 to {classes - 1}")
        if chosen.count(k) > 1:
            raise StreamError(f"the order names class {k} {chosen.count(k)} times: every class can arrive "
                              "only once")
    return chosen


def _check_sizes(sizes, chosen, classes, order):
    try:
        sizes = tuple(sizes)
    except TypeError:
        raise StreamError(f"sizes is a list of classes per task such as (2,) * 5, not {sizes!r}") from None
    for size in sizes:
        if not _whole(size) or size < 1:
            raise StreamError("sizes holds the number of classes of each task, positive whole numbers, not "
                              f"{size!r}")
    if not sizes or sum(sizes) != chosen:
        listed = order is not None and not _whole(order)
        whose = f"the {chosen} of the order" if listed else f"the {classes} classes of the data"
        raise StreamError(f"the sizes {sizes} sum to {sum(sizes)} and not to {whose}: change the sizes, or "
                          f"give an order that lists {sum(sizes) or 'the'} classes")
    return sizes


def _generator(purpose, seed):
    """A CPU generator per purpose, so that equal seeds for different purposes do not give related choices."""
    number = int.from_bytes(hashlib.sha256(f"{purpose} {seed}".encode()).digest()[:7], "big")
    return torch.Generator(device="cpu").manual_seed(number)


def _relabel(labels, order):
    """Labels by arrival; -1 for classes that the order leaves out."""
    arrival = torch.full((max(int(labels.max()) if len(labels) else 0, *order) + 1,), -1, dtype=torch.int64,
                         device=labels.device)
    arrival[torch.tensor(order, device=labels.device)] = torch.arange(len(order), device=labels.device)
    return arrival[labels]


def _divide(labels, classes, val, cap, seed):
    """Indices for training and validation, ascending: per class, val first, then at most cap of the rest."""
    device, labels = labels.device, labels.cpu()
    if not val and cap is None:
        everything = (labels >= 0).nonzero().flatten()
        return everything.to(device), everything[:0].to(device)
    part = torch.zeros(len(labels), dtype=torch.int8, device="cpu")  # 0 left out, 1 training, 2 validation
    splits, caps = _generator("val", seed), _generator("cap", seed)
    for label in range(classes):
        members = (labels == label).nonzero().flatten()
        n = len(members)
        count = max(1, int(val * n + 0.5)) if val else 0
        if n and count >= n:
            raise StreamError(f"val={val} leaves no training image of a class that has {n}: lower val")
        members = members[torch.randperm(n, generator=splits, device="cpu")]
        part[members[:count]] = 2
        rest = members[count:].sort().values
        part[rest[torch.randperm(len(rest), generator=caps, device="cpu")[:cap]]] = 1
    return (part == 1).nonzero().flatten().to(device), (part == 2).nonzero().flatten().to(device)


def _arrive(labels, kept, cap, seed):
    """The training images `kept` in an order of arrival, each class's up to its cap."""
    draw = _generator("arrival", seed)
    order = kept[torch.randperm(len(kept), generator=draw, device="cpu").to(kept.device)]
    if cap is None:
        return order
    came = torch.nn.functional.one_hot(labels[order]).cumsum(0).gather(1, labels[order][:, None])[:, 0]
    return order[came <= cap]
