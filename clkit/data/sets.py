"""Data sets by name. `load(name)` gives a training and a test set:

    digits, digits28    1,797 real handwritten digits that come with scikit-learn (8x8; enlarged to 28x28)
    shapes              drawn by code, 32x32 RGB, 20 families of 5 look-alike classes (shapes.py)
    mnist, fashion_mnist, svhn, cifar10, cifar100
                        the published files, in torchvision's layout, under `root()`
    cifar10-100         CIFAR-10 and behind it the first 50 classes of CIFAR-100, made of these two sets
    NAME                class folders root()/NAME/{train,test}/<class>/*  (also for the five names above)
    folder:PATH         class folders PATH/{train,test}/<class>/*, or PATH/<class>/* alone, then split 80/20

Every bad input is a DataError: one sentence with the fault and its cure.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from clkit.data import embedded, folders, shapes
from clkit.data.facts import COMBINED, FOLDER, PUBLISHED, DataError, check_name, folder_names, missing, root
from clkit.data.images import ImageSet
from clkit.data.torchvision_sets import load_combined, load_published
from clkit.errors import did_you_mean

_EMBEDDED = {"digits": embedded.digits, "digits28": embedded.digits28, "shapes": embedded.drawn_shapes}


def load(name: str, **options) -> tuple[ImageSet, ...]:
    """(train, test) ImageSets of a named data set, on the CPU; see the top of this file for the names.

    Options: side=N for class folders (cut to the middle square, resized to NxN, antialiased); those of
    shapes.draw for shapes. Class folders are labelled in the alphabetical order of the folders; images are
    grey (C = 1) where all of them are, else RGB, without transparency. DataError where the set is unknown,
    absent or broken.
    """
    if isinstance(name, str) and name.startswith(FOLDER):
        _check_options(name, folders.load_folder, options)
        path = Path(name[len(FOLDER) :]).expanduser()
        return _named(folders.load_folder(path, path.resolve().name, **options), options)
    check_name(name)
    if name in _EMBEDDED:
        _check_options(name, shapes.draw if name == "shapes" else _EMBEDDED[name], options)
        return _named(_EMBEDDED[name](**options), options)
    if name in COMBINED:
        _check_options(name, load_combined, options)
        return load_combined(name)
    _check_options(name, load_published, options)
    if name in PUBLISHED:
        return _named(load_published(name, **options), options)
    return _named(folders.load_folder(root() / name, name, **options), options)


def _check_options(name: str, loader: Callable, given: dict) -> None:
    """Refuse an option that the set does not have, offering the nearest."""
    known = [option for option in inspect.signature(loader).parameters if option not in ("path", "name")]
    for option in given:
        if option not in known:
            hint = did_you_mean(option, known, n=1) or f"; it takes {', '.join(known) or 'none'}"
            raise DataError(f"{name} has no option {option!r}{hint}")


def _named(sets: tuple[ImageSet, ...], options: dict) -> tuple[ImageSet, ...]:
    """The options become part of the name, so that a record says what it was made from."""
    if options:
        for loaded in sets:
            loaded.name += "(" + ", ".join(f"{key}={value}" for key, value in sorted(options.items())) + ")"
    return sets


@dataclass(frozen=True)
class Entry:
    """One row of `catalogue()`. train, test: how many images; shape: (C, H, W); 0 or () where unknown."""

    name: str
    present: bool
    where: str
    train: int
    test: int
    classes: int
    shape: tuple
    how_to_get: str


def catalogue() -> list[Entry]:
    """Every set that can be named, present or not, without decoding more than one image of it."""
    families = len(shapes.FAMILIES) * shapes.SIBLINGS
    drawn = inspect.signature(shapes.draw).parameters
    rows = [
        Entry("digits", True, "scikit-learn", 1438, 359, 10, (1, 8, 8), "comes with scikit-learn"),
        Entry("digits28", True, "scikit-learn", 1438, 359, 10, (1, 28, 28), "comes with scikit-learn"),
        Entry(
            "shapes",
            True,
            "drawn when loaded",
            families * drawn["train_per_class"].default,
            families * drawn["test_per_class"].default,
            families,
            (3, shapes.SIDE, shapes.SIDE),
            "drawn by clkit",
        ),
    ]
    for name, published in PUBLISHED.items():
        there = not missing(name)
        if not there and (root() / name).is_dir():
            rows.append(_folder_entry(name))
            continue
        rows.append(
            Entry(
                name,
                there,
                str((root() / published.folder).resolve()),
                published.train,
                published.test,
                len(published.names),
                published.shape,
                "already here" if there else f"python -m clkit data get {name}",
            )
        )
    rows += [_combined_entry(name, {row.name: row for row in rows}) for name in COMBINED]
    return rows + [_folder_entry(name) for name in folder_names() if name not in PUBLISHED]


def _combined_entry(name: str, rows: dict[str, Entry]) -> Entry:
    """rows: the entries of the published sets by name, each of which has as many images of every class."""
    parts = [(rows[part], PUBLISHED[part], count) for part, count in COMBINED[name].items()]
    present = all(
        row.present and (row.classes, row.shape) == (len(published.names), published.shape)
        for row, published, _ in parts
    )
    sources = [
        (row if present else published, count / len(published.names)) for row, published, count in parts
    ]
    return Entry(
        name,
        present,
        " and ".join(row.where for row, _, _ in parts),
        sum(round(source.train * share) for source, share in sources),
        sum(round(source.test * share) for source, share in sources),
        sum(count for _, _, count in parts),
        parts[0][1].shape,
        "already here" if present else f"python -m clkit data get {name}",
    )


def _folder_entry(name: str) -> Entry:
    where = root() / name
    try:
        folder = folders.scan(where)
        channels, height, width = folders.decode_file(folder.files[0][0][1], None, 3).shape
    except DataError as error:
        return Entry(name, False, str(where), 0, 0, 0, (), str(error))
    return Entry(
        name,
        True,
        str(where),
        len(folder.files[0]),
        len(folder.files[1]),
        len(folder.classes),
        (channels, height, width),
        "already here",
    )
