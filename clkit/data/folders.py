"""Class folders: images as files, a folder for each class, decoded once and cached.

    PATH/train/<class>/*  and  PATH/test/<class>/*      the two parts, with the same classes
    PATH/<class>/*                                      alone: split into 80 % training and 20 % test

Classes are labelled in the alphabetical order of their folders. Images are grey (C = 1) where all of them
are, else RGB, without transparency.
"""

from __future__ import annotations

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
from clkit.data.facts import DataError, reason, subfolders
from clkit.data.images import HELD_OUT, ImageSet, stratified_split

_CHUNK = 64  # files that a thread decodes at a time
FOLDERS_WANTED = "put its images into {where}/train/<class>/ and {where}/test/<class>/"


@dataclass
class Folder:
    """A folder of class folders. files: for train and test, [(class index, path, size, mtime_ns), ...]."""

    path: Path
    classes: list[str]
    files: tuple[list, list]
    names: tuple[str, ...]
    groups: tuple[str, ...] | None

    def listing(self) -> list:
        """All that the images depend on, save the bytes of the files: classes, names, sizes and times."""
        start = len(str(self.path))
        return [[(k, path[start:], size, mtime) for k, path, size, mtime in files] for files in self.files]


def _walk(folder: Path | str) -> list[tuple[str, int, int]]:
    """[(path, size, mtime_ns), ...] of the files under a folder, sorted, hidden ones left out."""
    found = []
    with os.scandir(folder) as entries:
        for entry in sorted(entries, key=lambda entry: entry.name):
            if entry.name.startswith("."):
                continue
            if entry.is_dir():
                found += _walk(entry.path)
            else:
                found.append((entry.path, *_state(entry)))
    return found


def _state(entry: os.DirEntry) -> tuple[int, int]:
    """(size, mtime_ns) of a directory entry."""
    try:
        state = entry.stat()
    except OSError as error:  # a link that leads nowhere
        raise DataError(f"{entry.path} cannot be read ({error.strerror}): remove or replace it") from error
    return state.st_size, state.st_mtime_ns


def _classes(folder: Path) -> dict[str, list]:
    """{class name: its files} of a folder of class folders."""
    names = subfolders(folder)
    if len(names) < 2:
        raise DataError(
            f"{folder} holds {len(names) or 'no'} class folder{'s' * (len(names) != 1)} where "
            "two or more are needed: give every class a folder of images there"
        )
    found = {name: _walk(folder / name) for name in names}
    for name, files in found.items():
        if not files:
            raise DataError(f"the class folder {folder / name} is empty: put images there or remove it")
    return found


def scan(path: Path) -> Folder:
    """The class folders of `path`; DataError where the layout is not one of the two documented."""
    try:
        return _scan(path)
    except OSError as error:  # no right to enter, links in a circle
        raise DataError(
            f"{error.filename or path} cannot be read ({error.strerror}): change that, or name another folder"
        ) from error


def _scan(path: Path) -> Folder:
    if not path.is_dir():
        raise DataError(f"there is no folder {path}: {FOLDERS_WANTED.format(where=path)}")
    parts = [part for part in ("train", "test") if subfolders(path / part)]
    if len(parts) == 1:
        have, lack = parts[0], {"train": "test", "test": "train"}[parts[0]]
        raise DataError(
            f"{path} has class folders in {have}/ but none in {lack}/: add {lack}/<class>/ for "
            f"the same classes, or name {path / have} itself to have it split into 80 % training "
            "and 20 % test"
        )
    if parts:
        train, test = _classes(path / "train"), _classes(path / "test")
        for name in train.keys() ^ test.keys():
            have, lack = ("train", "test") if name in train else ("test", "train")
            raise DataError(
                f"the class {name!r} is in {path / have} but not in {path / lack}: both need the "
                f"same class folders ({len(train)} and {len(test)} found)"
            )
        parts = [
            [(k, *file) for k, name in enumerate(train) for file in part[name]] for part in (train, test)
        ]
    else:
        train = _classes(path)
        for name, files in train.items():
            if len(files) < 2:
                raise DataError(
                    f"the class folder {path / name} holds one image, too few to split into "
                    "training and test: add images, or make train/ and test/ folders"
                )
        whole = [(k, *file) for k, name in enumerate(train) for file in train[name]]
        labels = torch.tensor([file[0] for file in whole], device="cpu")
        parts = [[whole[i] for i in index.tolist()] for index in stratified_split(labels, *HELD_OUT)]
    return Folder(path, sorted(train), tuple(parts), *_display(path, sorted(train)))


def _display(path: Path, classes: list[str]) -> tuple[tuple[str, ...], tuple[str, ...] | None]:
    """Display names and superclasses from classes.csv beside train/, if there is one.

    Its header names the columns: `folder` (else fine_name, else name) is the class folder, `name` (else
    fine_name, else folder) what to show, `group` (else coarse_name) the superclass. Other columns are
    ignored.
    """
    table = path / "classes.csv"
    if not table.is_file():
        return tuple(classes), None
    try:
        with table.open(newline="", encoding="utf-8") as lines:
            rows = list(csv.DictReader(lines))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(
            f"{table} cannot be read ({reason(error)}): write it as UTF-8 text with commas, or remove it"
        ) from error

    def column(*names: str) -> str | None:
        return next((name for name in names if rows and name in rows[0]), None)

    folder = column("folder", "fine_name", "name")
    shown, group = column("name", "fine_name", "folder"), column("group", "coarse_name")
    if folder is None:
        raise DataError(
            f"{table} has no column called folder, fine_name or name: its first line must name the columns"
        )
    by_folder = {row[folder]: row for row in rows}
    for name in classes:
        if name not in by_folder or not by_folder[name][shown] or (group and not by_folder[name][group]):
            raise DataError(
                f"{table} says nothing, or not all, about the class folder {name!r}: add its row "
                "or remove the file"
            )
    groups = tuple(by_folder[name][group] for name in classes) if group else None
    return tuple(by_folder[name][shown] for name in classes), groups


def load_folder(path: Path, name: str, side: int | None = None) -> tuple[ImageSet, ...]:
    """(train, test) of a folder of class folders, through the cache; side: see the top of `sets`."""
    if side is not None and (isinstance(side, bool) or not isinstance(side, int) or side < 1):
        raise DataError(
            f"side= is the height and width to bring images to, a positive whole number, not {side!r}"
        )
    folder = scan(Path(path))
    source = cache.Source(name, folder.path, side, folder.listing(), folder.names, folder.groups)
    labels = [np.array([file[0] for file in files], dtype=np.int64) for files in folder.files]
    return cache.through_cache(source, lambda: source.sets(_decode(folder, name, side), labels))


class _Coloured(Exception):
    """A colour image turned up where all before it were grey."""


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
        for path, target in zip(paths[start : start + _CHUNK], targets[start : start + _CHUNK]):
            image = decode_file(path, side, channels)
            if image.shape != shape:
                raise DataError(
                    f"images differ in size: {path} is {image.shape[2]}x{image.shape[1]} where "
                    f"{first} is {shape[2]}x{shape[1]}: give side=N to bring all of them to NxN "
                    "pixels"
                )
            target[...] = image
        return len(paths[start : start + _CHUNK])

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


def decode_file(path: str, side: int | None, channels: int) -> np.ndarray:
    """One image file as a uint8 array (C, H, W), cut to its middle square and resized if `side` is given."""
    try:
        with Image.open(path) as image:
            if image.mode.startswith(("I", "F")):
                raise DataError(f"{path} has more than 8 bits per channel: convert it to an 8-bit image")
            if channels == 1 and image.mode not in ("1", "L", "LA"):
                raise _Coloured
            image = image.convert("L" if channels == 1 else "RGB")
            if side is not None:
                image = ImageOps.fit(image, (side, side), Image.Resampling.BICUBIC)  # antialiases
            pixels = np.asarray(image)
    except (DataError, _Coloured, MemoryError):
        raise
    except UnidentifiedImageError as error:
        raise DataError(
            f"{path} is not an image file: remove it from the class folder or replace it"
        ) from error
    except Exception as error:  # Pillow's decoders raise OSError, SyntaxError, ValueError and more
        raise DataError(
            f"{path} cannot be read as an image ({reason(error)}): remove or replace it"
        ) from error
    return pixels[None] if channels == 1 else pixels.transpose(2, 0, 1)
