"""Data sets by name. `load(name)` gives a training and a test set:

    digits, digits28    1,797 real handwritten digits that come with scikit-learn (8x8; enlarged to 28x28)
    shapes              drawn by code, 32x32 RGB, 20 families of 5 look-alike classes (shapes.py)
    mnist, fashion_mnist, svhn, cifar10, cifar100
                        the published files, in torchvision's layout, below `root()`
    cifar10-100         CIFAR-10 followed by the first 50 classes of CIFAR-100, made from these two sets
    A+B                 the classes of the named set A, then those of B; each part is a group
    NAME                class folders root()/NAME/{train,test}/<class>/*  (also for the five names above)
    folder:PATH         class folders PATH/{train,test}/<class>/*, or PATH/<class>/* alone, which is split:
                        a share of each class (test_share=0.2, drawn with split_seed=0) is the test set

Bad input raises a DataError: one sentence that names the fault and its cure.
"""

import inspect
import itertools
import os
from dataclasses import dataclass
from pathlib import Path

import torch

from clkit.data import embedded, folders, shapes
from clkit.data.facts import COMBINED, FOLDER, PUBLISHED, DataError, missing, root
from clkit.data.images import ImageSet
from clkit.data.layout import check_name, folder_names, folder_of, stored_as_folders
from clkit.data.torchvision_sets import load_combined, load_published
from clkit.errors import did_you_mean

_EMBEDDED = {"digits": embedded.digits, "digits28": embedded.digits28, "shapes": embedded.drawn_shapes}


def load(name: str, **options) -> tuple[ImageSet, ...]:
    """(train, test) ImageSets of a named data set, on the CPU; see the top of this file for the names.

    Options: side=N, which resizes to NxN pixels, antialiased (images of class folders are first cropped to
    their central square, and stay on disk if they would take over 2 GB of memory: large.py); for undivided
    class folders test_share and split_seed, which are always part of the set's name; for shapes those of
    shapes.draw. Class folders are numbered in the alphabetical order of
    the folders; images are grey (C = 1) if all of them are, else RGB, upright, and on white where they are
    transparent (folders.py). DataError if the set is unknown, absent or damaged, or too large for memory.
    """
    if isinstance(name, str) and name.startswith(FOLDER):
        path = folder_of(name)
        loader, given = folders.load_folder, (path, Path(os.path.realpath(path)).name)
    else:
        check_name(name)
        if "+" in name:
            loader, given = load_joined, (name,)
        elif name in _EMBEDDED:
            loader, given = _EMBEDDED[name], ()
        elif name in COMBINED:
            loader, given = load_combined, (name,)
        elif name in PUBLISHED:
            loader, given = load_published, (name,)
        else:
            loader, given = folders.load_folder, (root() / name, name)
    known = list(inspect.signature(loader).parameters)[len(given) :]
    resize = "side" in options and "side" not in known
    known += ["side"] * ("side" not in known)
    for option in options:
        if option not in known:
            hint = did_you_mean(option, known, n=1) or f"; it has {', '.join(known) or 'none'}"
            raise DataError(f"{name} has no option {option!r}{hint}")
    sets = loader(*given, **{k: v for k, v in options.items() if k != "side" or not resize})
    if resize:
        sets = tuple(loaded.resized(options["side"]) for loaded in sets)
    if loader is folders.load_folder:
        options |= folders.division(given[0], options.get("test_share"), options.get("split_seed"))
    if options:  # in the name, so that a record tells what it was made from
        for loaded in sets:
            loaded.name += f"({', '.join(f'{key}={value}' for key, value in sorted(options.items()))})"
    return sets


def load_joined(name: str, side: int | None = None) -> tuple[ImageSet, ...]:
    """(train, test) of several named sets, one after another; each part is a group of classes."""
    parts = name.split("+")
    loaded = [load(part, **({} if side is None else {"side": side})) for part in parts]
    shapes_of = {part: train.shape for part, (train, _) in zip(parts, loaded)}
    if len(set(shapes_of.values())) > 1:
        sizes = ", ".join(f"{part} {shape}" for part, shape in shapes_of.items())
        raise DataError(f"the parts of {name} differ in the shape of their images: {sizes}: give side=N")
    names = [label for train, _ in loaded for label in train.names]
    groups = [part for part, (train, _) in zip(parts, loaded) for _ in train.names]
    starts = [0, *itertools.accumulate(train.classes for train, _ in loaded)]
    return tuple(
        ImageSet(
            torch.cat([one.images for one in of_part]),
            torch.cat([one.labels + start for one, start in zip(of_part, starts)]),
            names,
            groups,
            name,
        )
        for of_part in zip(*loaded)
    )


@dataclass(frozen=True)
class Entry:
    """One row of `catalogue()`. train, test: numbers of images; shape: (C, H, W); 0 or () if unknown."""

    name: str
    present: bool
    where: str
    train: int
    test: int
    classes: int
    shape: tuple
    how_to_get: str


def catalogue() -> list[Entry]:
    """Every data set that has a name, present or not; decodes at most one image of each."""
    families = len(shapes.FAMILIES) * shapes.SIBLINGS
    drawn = inspect.signature(shapes.draw).parameters
    counts = [families * drawn[f"{part}_per_class"].default for part in ("train", "test")]
    shape = (3, shapes.SIDE, shapes.SIDE)
    rows = [
        Entry("digits", True, "scikit-learn", 1438, 359, 10, (1, 8, 8), "comes with scikit-learn"),
        Entry("digits28", True, "scikit-learn", 1438, 359, 10, (1, 28, 28), "comes with scikit-learn"),
        Entry("shapes", True, "drawn when loaded", *counts, families, shape, "drawn by clkit"),
        *(_published_entry(name) for name in PUBLISHED),
    ]
    rows += [_combined_entry(name, {row.name: row for row in rows}) for name in COMBINED]
    return rows + [_folder_entry(name) for name in folder_names() if name not in PUBLISHED]


def _how(name: str, there: bool) -> str:
    return "already here" if there else f"python -m clkit data get {name}"


def _published_entry(name: str) -> Entry:
    known, there = PUBLISHED[name], not missing(name)
    if not there and stored_as_folders(name):
        return _folder_entry(name)
    where, classes = os.path.realpath(root() / known.folder), len(known.names)
    return Entry(name, there, where, known.train, known.test, classes, known.shape, _how(name, there))


def _combined_entry(name: str, rows: dict[str, Entry]) -> Entry:
    """rows: {name: entry} of the published sets; each has equally many images of every class."""
    parts, counts = COMBINED[name], COMBINED[name].values()
    known, found = [PUBLISHED[part] for part in parts], [rows[part] for part in parts]
    there = all(
        row.present and (row.classes, row.shape) == (len(published.names), published.shape)
        for row, published in zip(found, known)
    )
    shares = [(row, n / len(k.names)) for row, k, n in zip(found if there else known, known, counts)]
    train, test = (sum(round(getattr(row, part) * n) for row, n in shares) for part in ("train", "test"))
    where = " and ".join(row.where for row in found)
    return Entry(name, there, where, train, test, sum(counts), known[0].shape, _how(name, there))


def _folder_entry(name: str) -> Entry:
    where = root() / name
    try:
        folder = folders.scan(where)
        shape = folders.decode_file(folder.files[0][0][1], None, 3).shape
    except DataError as error:
        return Entry(name, False, str(where), 0, 0, 0, (), str(error))
    counts = [len(files) for files in folder.files]
    return Entry(name, True, str(where), *counts, len(folder.names), shape, _how(name, True))
