"""A class-incremental stream: the tasks of a data set in their order of arrival.

Classes are renumbered by arrival: the classes of task t are [first, seen), those seen so far are range(seen).
A Task holds only its own images, so a learner cannot reach older images or the test set through it.
"""

from __future__ import annotations

import copy
import hashlib
import itertools
import numbers
import operator
import os
import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from clkit.data.facts import is_number, is_whole
from clkit.data.images import ImageSet, members_of
from clkit.data.on_disk import OnDisk, taken
from clkit.errors import ClkitError, did_you_mean


class StreamError(ClkitError):
    """A stream that cannot be built as asked; the message is one sentence that says what to do."""


@dataclass(frozen=True)
class Task:
    """What a learner sees at one time. Its classes are [first, seen), also in the labels of train and val.

    index: 0 for the first task; train: the training images; val: the validation images, or None.
    """

    index: int
    first: int
    seen: int
    train: ImageSet
    val: ImageSet | None = None


class Stream:
    """The tasks made from a training set, and the test set.

    train, test: ImageSets of the same classes. classes_per_task: such as (2,) * 5; they add up to the number
    of classes, or of those that `order` lists. order: None for the data set's own order of classes, an int
    for a random order drawn from this seed, or a list of classes by number or by name (`read_order` reads one
    from a file); classes that are not listed are dropped from both sets. val: the share of each class's
    training images set aside for validation; val_from: "random" images, or the "last" ones in the order of
    the data set, as in the code of Ji et al. 2020 (for CIFAR-10 the last 250 of each class). max_per_class:
    the most training images per class, not counting those for validation. shuffle_images: None, or the seed
    of a random order of each task's training images, the same in every pass; images of a class beyond its
    max_per_class are then skipped as they arrive, so the end of a task consists of the rarer classes.
    single_pass: each task's training images can be iterated over only once. seed: for the choice of val and
    max_per_class, each with its own generator. StreamError if any of this does not fit together.

    `test`: the test set with labels by arrival, sorted by task, so that the images of the classes seen so far
    come first. `names`, `groups`: display names and superclasses by arrival. `order[k]`: the class that
    arrives as number k. `seen[t]`: the number of classes seen up to and including task t. `shape`, `classes`:
    what a network is built from.

    The images are sorted by task once. A Task's set is a window on them, since copies would double the
    memory; writing into it changes the stream. The window's storage ends with the task, so it gives no access
    to other images. Images on disk are not copied at all, and a Task's set has the numbers of its own.
    """

    def __init__(
        self,
        train: ImageSet,
        test: ImageSet,
        classes_per_task: Sequence[int],
        *,
        order: int | Sequence[int] | Sequence[str] | None = None,
        val: float = 0.0,
        val_from: str = "random",
        max_per_class: int | None = None,
        seed: int = 0,
        single_pass: bool = False,
        shuffle_images: int | None = None,
    ):
        _check_sets(train, test)
        _check_options(val, val_from, max_per_class, seed, shuffle_images)
        self.order = _arrange(order, train.names)
        self.classes_per_task = _check_tasks(classes_per_task, len(self.order), train.classes, order)
        self.seen = tuple(itertools.accumulate(self.classes_per_task))
        self.test_classes_per_task = self.classes_per_task  # scores are given for these, also when merged
        self.classes, self.shape = len(self.order), train.shape
        self.names = tuple(train.names[k] for k in self.order)
        self.groups = None if train.groups is None else tuple(train.groups[k] for k in self.order)
        val, seed = val if type(val) is int else float(val), int(seed)  # JSON knows no numpy's numbers
        max_per_class, shuffle_images = (n and int(n) for n in (max_per_class, shuffle_images))
        self.val, self.val_from, self.max_per_class, self.seed = val, val_from, max_per_class, seed
        self.single_pass, self.shuffle_images = bool(single_pass), shuffle_images
        self._ordered = shuffle_images is not None
        self.data, self._checksums = train.name, (train.checksum(), test.checksum())

        labels = _arrivals(train, self.order)  # (N,) by arrival, -1 for classes left out
        most = None if self._ordered else max_per_class
        kept, held = _divide(labels, val, val_from, most, seed)
        if self._ordered:
            kept = _arrive(labels, kept, max_per_class, shuffle_images)
        self._train, self._train_ends = self._sort(train, labels, kept)
        self._val, self._val_ends = self._sort(train, labels, held)
        tests = _arrivals(test, self.order)
        self.test, _ = self._sort(test, tests, (tests >= 0).nonzero().flatten())
        self._check_filled(labels, tests)

    def _sort(self, source: ImageSet, labels: Tensor, index: Tensor) -> tuple[ImageSet, tuple[int, ...]]:
        """The images at `index`, sorted by task and labelled by arrival, and the end of each task's part."""
        ends = torch.tensor(self.seen, device=source.device)
        tasks = torch.bucketize(labels[index], ends, right=True)
        index = index[torch.argsort(tasks, stable=True)]
        counts = torch.bincount(tasks, minlength=len(self.seen)).tolist()
        images, labels = taken(source.images, index), labels.index_select(0, index)
        chosen = ImageSet(images, labels, self.names, self.groups, source.name)
        return chosen, tuple(itertools.accumulate(counts))

    def _check_filled(self, labels: Tensor, tests: Tensor) -> None:
        for part, present in (("training", labels), ("test", tests)):
            counts = torch.bincount(present[present >= 0], minlength=self.classes).tolist()
            if 0 in counts:
                fault = f"the class {self.names[counts.index(0)]!r} has no {part} images"
                raise StreamError(f"{fault}: leave it out of the order or add images")

    def __len__(self) -> int:
        return len(self.classes_per_task)

    def __iter__(self) -> Iterator[Task]:
        return (self[t] for t in range(len(self)))

    def __getitem__(self, t: int) -> Task:
        if not -len(self) <= t < len(self):
            raise IndexError(f"the stream has {len(self)} tasks, numbered from 0: there is no task {t}")
        t = operator.index(t) % len(self)
        train = self._window(self._train, self._train_ends, t, self.single_pass, self._ordered)
        val = self._window(self._val, self._val_ends, t) if self.val else None
        return Task(t, self.seen[t] - self.classes_per_task[t], self.seen[t], train, val)

    def _window(self, whole, ends, t, single_pass=False, ordered=False) -> ImageSet:
        start, stop, seen = (ends[t - 1] if t else 0), ends[t], self.seen[t]
        images, labels = (_bounded(tensor, start, stop) for tensor in (whole.images, whole.labels))
        groups = self.groups and self.groups[:seen]
        return ImageSet(images, labels, self.names[:seen], groups, whole.name, single_pass, ordered)

    def to(self, device: torch.device | str) -> Stream:
        """The same stream with its images on another device."""
        moved = copy.copy(self)
        moved._train, moved._val = self._train.to(device), self._val.to(device)
        moved.test = self.test.to(device)
        return moved

    def merged(self) -> Stream:
        """The same images as one task with all classes (joint training); nothing is copied.

        Batches are shuffled even with shuffle_images, whose order would be task by task.
        """
        merged = copy.copy(self)
        merged._ordered = False
        merged.classes_per_task, merged.seen = (self.classes,), (self.classes,)
        merged._train_ends, merged._val_ends = (len(self._train),), (len(self._val),)
        return merged

    def digest(self) -> str:
        """sha256 (hex) of all its images and labels as they are now."""
        parts = (self._train, self._val, self.test)
        return hashlib.sha256("".join(part.digest() for part in parts).encode()).hexdigest()

    def about(self, until: int | None = None) -> dict:
        """What the stream was made from, as plain JSON values for records.

        checksum covers both sets as given, so it is the same for every order.   until: leave out the sizes of
        the tasks after this one, on which its images and those of the tasks before it do not depend.
        """
        optional = {} if self.shuffle_images is None else {"shuffle_images": self.shuffle_images}
        optional |= {} if self.val_from == "random" else {"val_from": self.val_from}
        return {
            "data": self.data,
            "checksum": hashlib.sha256("".join(self._checksums).encode()).hexdigest(),
            "classes_per_task": list(self.classes_per_task[: None if until is None else until + 1]),
            "order": list(self.order),
            "val": self.val,
            "max_per_class": self.max_per_class,
            "seed": self.seed,
            "single_pass": self.single_pass,
            **optional,
        }


def read_order(path: str | Path) -> list[str]:
    """Class names from a UTF-8 text file, one per line, in order of arrival, for Stream(order=...).

    Blank lines, lines that begin with # and white space around names are ignored.
    """
    path = Path(os.path.expanduser(path))
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        cure = "save it as UTF-8, with one class name per line"
        raise StreamError(f"the class order {path} is not UTF-8 text: {cure}") from error
    except OSError as error:
        fault = f"the class order {path} cannot be read ({error.strerror})"
        raise StreamError(f"{fault}: give a text file with one class name per line") from error
    names = [line.strip() for line in lines if line.strip() and not line.strip().startswith("#")]
    if not names:
        raise StreamError(f"the class order {path} names no class: write one class name per line")
    return names


def _bounded(tensor: Tensor | OnDisk, start: int, stop: int) -> Tensor | OnDisk:
    """tensor[start:stop] on the same memory, as a tensor whose storage is that part alone.

    A slice leads back to the whole through `_base` and `untyped_storage()`; a tensor from DLPack does not.
    """
    part = taken(tensor, slice(start, stop))
    alone = torch.is_tensor(part) and part.device.type in ("cpu", "cuda")
    return torch.from_dlpack(part) if alone else part


def _check_sets(train: ImageSet, test: ImageSet) -> None:
    if train.names != test.names or train.shape != test.shape:
        sizes = f"{train.classes} classes {train.shape} and {test.classes} classes {test.shape}"
        fault = f"training and test set do not belong together: {sizes}"
        raise StreamError(f"{fault}: use the two sets that one load() returned")
    if train.device != test.device:
        places = f"the training set is on {train.device} and the test set on {test.device}"
        raise StreamError(f"{places}: move one of them with .to()")
    for part in (train, test):
        low, high = map(int, part.labels.aminmax()) if len(part) else (0, 0)
        if not 0 <= low <= high < part.classes:
            rule = f"labels must lie in [0, {part.classes}), one for each class name"
            raise StreamError(f"{rule}, but range from {low} to {high}")


def _check_options(val, val_from, max_per_class, seed, shuffle_images) -> None:
    if not is_number(val) or not 0 <= val < 1:
        rule = "val must be at least 0 and below 1, the share of each class's training images"
        raise StreamError(f"{rule}, not {val!r}")
    if val_from not in ("random", "last"):
        rule = "val_from must be 'random' or 'last', the images to take for validation"
        raise StreamError(f"{rule}, not {val_from!r}")
    if max_per_class is not None and not is_whole(max_per_class, 1):
        rule = "max_per_class must be None or a positive whole number of training images"
        raise StreamError(f"{rule}, not {max_per_class!r}")
    for name, value in (("seed", seed), ("shuffle_images", 0 if shuffle_images is None else shuffle_images)):
        if not is_whole(value):
            raise StreamError(f"{name} must be a whole number of at least 0, not {value!r}")


def _arrange(order: object, names: tuple[str, ...]) -> tuple[int, ...]:
    """The classes by arrival, as numbers."""
    if order is None:
        return tuple(range(len(names)))
    if _is_seed(order):
        if order < 0:
            raise StreamError(f"a seed for the class order must be a whole number of at least 0, not {order}")
        return tuple(_permuted(len(names), _generator("order", int(order))).tolist())
    numbers_of = {}
    for k, name in enumerate(names):
        numbers_of.setdefault(unicodedata.normalize("NFC", name), []).append(k)
    try:
        given = None if isinstance(order, str) else list(order)
        chosen = tuple(_number(w, names, numbers_of) if isinstance(w, str) else w.__index__() for w in given)
    except (TypeError, AttributeError):
        rule = "order must be None, a seed, or a list of class numbers or names"
        raise StreamError(f"{rule}, not {order!r}") from None
    if not chosen:
        raise StreamError("the order lists no class: list at least one")
    times = Counter(chosen)
    for k, word in zip(chosen, given):
        if not 0 <= k < len(names):
            raise StreamError(f"the order names class {k}, but the classes are 0 to {len(names) - 1}")
        if times[k] > 1:
            shown = repr(word) if isinstance(word, str) else k
            raise StreamError(f"the order lists class {shown} {times[k]} times: list it once")
    return chosen


def _is_seed(order: object) -> bool:
    """Whether an order of classes is a random one."""
    return isinstance(order, numbers.Integral) and not isinstance(order, bool)


def _number(word: str, names: tuple[str, ...], numbers_of: dict[str, list[int]]) -> int:
    """The number of a class that the order gives by name, in any spelling of its accents."""
    found = numbers_of.get(unicodedata.normalize("NFC", word), [])
    if len(found) > 1:
        fault = f"the order names {word!r}, the name of {len(found)} classes"
        raise StreamError(f"{fault}: give their numbers instead")
    if not found:
        some = names if len(names) <= 6 else (*names[:5], "...", names[-1])
        hint = did_you_mean(word, names) or f"; they are {', '.join(some)}"
        raise StreamError(f"the order names {word!r}, which is not one of the {len(names)} classes{hint}")
    return found[0]


def _check_tasks(classes_per_task, chosen: int, classes: int, order: object) -> tuple[int, ...]:
    rule = "classes_per_task must list the number of classes in each task"
    try:
        classes_per_task = tuple(classes_per_task)
    except TypeError:
        raise StreamError(f"{rule}, such as (2,) * 5, not {classes_per_task!r}") from None
    for size in classes_per_task:
        if not is_whole(size, 1):
            raise StreamError(f"{rule}, positive whole numbers, not {size!r}")
    total = sum(classes_per_task)
    if not total or total != chosen:
        listed = order is not None and not _is_seed(order)
        whose = f"the order lists {chosen}" if listed else f"there are {classes}"
        left = (*classes_per_task, chosen - total)
        cure = f", such as {left}" if 0 < total < chosen else ""
        cure += f", or give an order that lists {total}" if 0 < total <= classes else ""
        fault = f"classes_per_task {classes_per_task} adds up to {total} classes, but {whose}"
        raise StreamError(f"{fault}: make it add up to {chosen}{cure}")
    return tuple(map(int, classes_per_task))


def _generator(purpose: str, seed: int) -> torch.Generator:
    """A CPU generator for one purpose, so that equal seeds for different purposes give unrelated choices."""
    number = int.from_bytes(hashlib.sha256(f"{purpose} {seed}".encode()).digest()[:7], "big")
    return torch.Generator(device="cpu").manual_seed(number)


def _permuted(n: int, generator: torch.Generator) -> Tensor:
    return torch.randperm(n, generator=generator, device="cpu")


def _arrivals(source: ImageSet, order: tuple[int, ...]) -> Tensor:
    """Labels by arrival; -1 for classes that are not in the order."""
    arrival = source.labels.new_full((source.classes,), -1)
    arrival[list(order)] = torch.arange(len(order), device=arrival.device)
    return arrival[source.labels]


def _divide(labels: Tensor, val, val_from, max_per_class, seed) -> tuple[Tensor, Tensor]:
    """Ascending indices (training, validation): a share val of each class, at most max_per_class others."""
    device, labels = labels.device, labels.cpu()
    part = torch.zeros(len(labels), dtype=torch.int8, device="cpu")  # 0 left out, 1 training, 2 validation
    splits, caps = _generator("val", seed), _generator("cap", seed)
    listed = (labels >= 0).nonzero().flatten()
    for members in members_of(labels[listed]):
        members, n = listed[members], len(members)
        count = max(1, int(val * n + 0.5)) if val else 0
        if count >= n:
            raise StreamError(f"val={val} leaves no training image of a class that has {n}: lower val")
        members = members.flip(0) if val_from == "last" else members[_permuted(n, splits)]
        part[members[:count]] = 2
        rest = members[count:].sort().values
        part[rest[_permuted(len(rest), caps)[:max_per_class]]] = 1
    return (part == 1).nonzero().flatten().to(device), (part == 2).nonzero().flatten().to(device)


def _arrive(labels: Tensor, kept: Tensor, max_per_class: int | None, seed: int) -> Tensor:
    """The training images `kept` in a random order of arrival, at most max_per_class of each class."""
    order = kept[_permuted(len(kept), _generator("arrival", seed)).to(kept.device)]
    if max_per_class is None or not len(order):
        return order
    return order[torch.cat([m[:max_per_class] for m in members_of(labels[order])]).sort().values]
