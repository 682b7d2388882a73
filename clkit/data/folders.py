"""Class folders: images as files, a folder for each class, decoded once and cached.

    PATH/train/<class>/*  and  PATH/test/<class>/*      the two parts, with the same classes
    PATH/<class>/*                                      alone: split into 80 % training and 20 % test

Classes are labelled in the alphabetical order of their folders. Images are grey (C = 1) where all of them
are, else RGB, without transparency.
"""

import csv
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from tqdm import tqdm

from clkit.data import cache
from clkit.data.facts import DataError, explained, is_whole, subfolders
from clkit.data.images import HELD_OUT, ImageSet, stratified_split

_CHUNK = 64  # files that a thread decodes at a time
FOLDERS_WANTED = "put its images into {where}/train/<class>/ and {where}/test/<class>/"


@dataclass
class Folder:
    """A folder of class folders. files: for train and test, [(class index, path, size, mtime_ns), ...]."""

    path: Path
    files: tuple[list, list]
    names: tuple[str, ...]
    groups: tuple[str, ...] | None

    def listing(self) -> list:
        """All that the images depend on, save the bytes of the files: classes, names, sizes and times."""
        start = len(str(self.path))
        return [[(k, path[start:], size, mtime) for k, path, size, mtime in files] for files in self.files]


def _walk(folder: Path | str) -> list[tuple[str, int, int]]:
    """[(path, size, mtime_ns), ...] of the files under a folder, sorted, hidden ones left out."""
    with os.scandir(folder) as entries:
        shown = sorted((e for e in entries if not e.name.startswith(".")), key=lambda entry: entry.name)
    found = []
    for entry in shown:
        if entry.is_dir():
            found += _walk(entry.path)
            continue
        try:
            state = entry.stat()
        except OSError as error:  # a link that leads nowhere
            fault = f"{entry.path} cannot be read ({error.strerror})"
            raise DataError(f"{fault}: remove or replace it") from error
        found.append((entry.path, state.st_size, state.st_mtime_ns))
    return found


def _classes(folder: Path) -> dict[str, list]:
    """{class name: its files} of a folder of class folders, sorted by name."""
    names = subfolders(folder)
    if len(names) < 2:
        found = f"{len(names) or 'no'} class folder{'s' * (len(names) != 1)}"
        cure = "give every class a folder of images there"
        raise DataError(f"{folder} holds {found} where two or more are needed: {cure}")
    found = {name: _walk(folder / name) for name in names}
    for name, files in found.items():
        if not files:
            raise DataError(f"the class folder {folder / name} is empty: put images there or remove it")
    return found


def scan(path: Path) -> Folder:
    """The class folders of `path`; DataError where the layout is not one of the two documented."""
    try:
        if not path.is_dir():
            raise DataError(f"there is no folder {path}: {FOLDERS_WANTED.format(where=path)}")
        parts = [part for part in ("train", "test") if subfolders(path / part)]
        if len(parts) == 1:
            lack = "test" if parts == ["train"] else "train"
            fault = f"{path} has class folders in {parts[0]}/ but none in {lack}/"
            split = f"name {path / parts[0]} itself to have it split into 80 % training and 20 % test"
            raise DataError(f"{fault}: add {lack}/<class>/ for the same classes, or {split}")
        names, files = _two_parts(path) if parts else _split(path)
        return Folder(path, files, *_display(path, names))
    except OSError as error:  # no right to enter, links in a circle
        fault = f"{error.filename or path} cannot be read ({error.strerror})"
        raise DataError(f"{fault}: change that, or name another folder") from error


def _two_parts(path: Path) -> tuple[list[str], tuple[list, list]]:
    """The class folders' names, and the files of train/ and test/."""
    train, test = _classes(path / "train"), _classes(path / "test")
    for name in train.keys() ^ test.keys():
        have, lack = ("train", "test") if name in train else ("test", "train")
        fault = f"the class {name!r} is in {path / have} but not in {path / lack}"
        counts = f"{len(train)} and {len(test)} found"
        raise DataError(f"{fault}: both need the same class folders ({counts})")
    return list(train), (_numbered(train), _numbered(test))


def _split(path: Path) -> tuple[list[str], tuple[list, list]]:
    """The class folders' names, and their files, divided."""
    classes = _classes(path)
    for name, files in classes.items():
        if len(files) < 2:
            fault = f"the class folder {path / name} holds one image, too few to split into training and test"
            raise DataError(f"{fault}: add images, or make train/ and test/ folders")
    whole = _numbered(classes)
    labels = torch.tensor([file[0] for file in whole], device="cpu")
    train, test = ([whole[i] for i in index.tolist()] for index in stratified_split(labels, *HELD_OUT))
    return list(classes), (train, test)


def _numbered(classes: dict[str, list]) -> list[tuple]:
    return [(k, *file) for k, files in enumerate(classes.values()) for file in files]


def _display(path: Path, classes: list[str]) -> tuple[tuple[str, ...], tuple[str, ...] | None]:
    """Display names and superclasses from classes.csv beside train/, if there is one.

    Its header names the columns: `folder` (else fine_name, else name) is the class folder, `name` (else
    fine_name, else folder) what to show, `group` (else coarse_name) the superclass. Other columns are
    ignored.
    """
    table = path / "classes.csv"
    if not table.is_file():
        return tuple(classes), None
    cure = "write it as UTF-8 text with commas, or remove it"
    with explained(f"{table} cannot be read", cure), table.open(newline="", encoding="utf-8") as lines:
        rows = list(csv.DictReader(lines))

    def column(*names: str) -> str | None:
        return next((name for name in names if rows and name in rows[0]), None)

    folder = column("folder", "fine_name", "name")
    shown, group = column("name", "fine_name", "folder"), column("group", "coarse_name")
    if folder is None:
        cure = "its first line must name the columns"
        raise DataError(f"{table} has no column called folder, fine_name or name: {cure}")
    by_folder = {row[folder]: row for row in rows}
    for name in classes:
        row = by_folder.get(name, {})
        if not row.get(shown) or (group and not row[group]):
            fault = f"{table} says nothing, or not all, about the class folder {name!r}"
            raise DataError(f"{fault}: add its row or remove the file")
    groups = tuple(by_folder[name][group] for name in classes) if group else None
    return tuple(by_folder[name][shown] for name in classes), groups


def load_folder(path: Path, name: str, side: int | None = None) -> tuple[ImageSet, ...]:
    """(train, test) of a folder of class folders, through the cache; side: see the top of `sets`."""
    if side is not None and not is_whole(side, 1):
        what = "the height and width to bring images to, a positive whole number"
        raise DataError(f"side= is {what}, not {side!r}")
    folder = scan(path)
    source = cache.Source(name, path, side, folder.listing(), folder.names, folder.groups)
    labels = [np.array([file[0] for file in files], dtype=np.int64) for files in folder.files]
    return cache.through_cache(source, lambda: source.sets(_decode(folder, name, side), labels))


def _decode(folder: Folder, name: str, side: int | None) -> list[np.ndarray]:
    """The images of both parts: two uint8 arrays (N, C, H, W). C is 1 where every image is grey, else 3."""
    try:
        return _decode_as(folder, name, side, channels=1)
    except _Coloured:
        return _decode_as(folder, name, side, channels=3)


def _decode_as(folder: Folder, name: str, side: int | None, channels: int) -> list[np.ndarray]:
    first = folder.files[0][0][1]
    shape = decode_file(first, side, channels).shape
    images = [np.empty((len(files), *shape), dtype=np.uint8) for files in folder.files]
    targets = [image for array in images for image in array]  # views: what is decoded goes where it belongs
    paths = [file[1] for files in folder.files for file in files]

    def decode(start: int) -> int:
        chunk = slice(start, start + _CHUNK)
        for path, target in zip(paths[chunk], targets[chunk]):
            image = decode_file(path, side, channels)
            if image.shape != shape:
                sizes = f"{path} is {image.shape[2]}x{image.shape[1]} where {first} is {shape[2]}x{shape[1]}"
                cure = "give side=N to bring all of them to NxN pixels"
                raise DataError(f"images differ in size: {sizes}: {cure}")
            target[...] = image
        return len(paths[chunk])

    workers = min(32, os.cpu_count() or 1)
    with (
        tqdm(total=len(paths), desc=f"reading {name}", unit=" images", disable=None) as bar,
        ThreadPoolExecutor(workers) as pool,
    ):
        try:
            for done in pool.map(decode, range(0, len(paths), _CHUNK)):
                bar.update(done)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return images


class _Coloured(DataError):
    """A colour image turned up where all before it were grey; no fault, so `explained` lets it through."""


def decode_file(path: str, side: int | None, channels: int) -> np.ndarray:
    """One image file as a uint8 array (C, H, W), cut to its middle square and resized if `side` is given."""
    with explained(f"{path} cannot be read as an image", "remove or replace it"):
        try:
            image = Image.open(path)
        except UnidentifiedImageError as error:
            cure = "remove it from the class folder or replace it"
            raise DataError(f"{path} is not an image file: {cure}") from error
        with image:
            if image.mode.startswith(("I", "F")):
                raise DataError(f"{path} has more than 8 bits per channel: convert it to an 8-bit image")
            if channels == 1 and image.mode not in ("1", "L", "LA"):
                raise _Coloured
            pixels = image.convert("L" if channels == 1 else "RGB")
            if side is not None:
                pixels = ImageOps.fit(pixels, (side, side), Image.Resampling.BICUBIC)  # antialiases
    pixels = np.asarray(pixels)
    return pixels[None] if channels == 1 else pixels.transpose(2, 0, 1)
