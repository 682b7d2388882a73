"""Class folders: image files, one folder per class, decoded once and cached.

    PATH/train/<class>/*  and  PATH/test/<class>/*      the two parts, with the same classes
    PATH/<class>/*                                      undivided: a random share of each class (test_share =
                                                        0.2, drawn with split_seed = 0) is the test set

Classes are numbered in the alphabetical order of their folders. Images are grey (C = 1) if all of them are,
else RGB; transparency is dropped.
"""

import contextlib
import csv
import os
from collections.abc import Iterator
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

_CHUNK = 64  # files that one thread decodes at a time
FOLDERS_WANTED = "put its images into {where}/train/<class>/ and {where}/test/<class>/"


@dataclass
class Folder:
    """A folder of class folders.

    files: for train and test, [(class index, path, size, mtime_ns), ...].   held_out: (share, seed) of the
    test set if the folder is undivided, else ().
    """

    path: Path
    files: tuple[list, list]
    names: tuple[str, ...]
    groups: tuple[str, ...] | None
    held_out: tuple

    def listing(self) -> list:
        """What the images depend on, except the files' bytes: classes, names, sizes and times."""
        start = len(str(self.path))
        return [[(k, path[start:], size, mtime) for k, path, size, mtime in files] for files in self.files]


def _walk(folder: Path | str) -> list[tuple[str, int, int]]:
    """Sorted [(path, size, mtime_ns), ...] of the files below a folder, without hidden ones."""
    with os.scandir(folder) as entries:
        shown = sorted((e for e in entries if not e.name.startswith(".")), key=lambda entry: entry.name)
    found = []
    for entry in shown:
        if entry.is_dir():
            found += _walk(entry.path)
            continue
        try:
            state = entry.stat()
        except OSError as error:  # a broken link
            fault = f"{entry.path} cannot be read ({error.strerror})"
            raise DataError(f"{fault}: remove or replace it") from error
        found.append((entry.path, state.st_size, state.st_mtime_ns))
    return found


def _classes(folder: Path) -> dict[str, list]:
    """{class name: its files} in a folder of class folders, sorted by name."""
    names = subfolders(folder)
    if len(names) < 2:
        found = f"{len(names) or 'no'} class folder{'s' * (len(names) != 1)}"
        cure = "make one folder of images per class there"
        raise DataError(f"{folder} holds {found}, but at least two are needed: {cure}")
    found = {name: _walk(folder / name) for name in names}
    for name, files in found.items():
        if not files:
            raise DataError(f"the class folder {folder / name} is empty: add images or remove it")
    return found


def division(path: Path, test_share: float | None = None, split_seed: int | None = None) -> dict:
    """{"test_share": share of each class, "split_seed": seed} if the class folders are undivided, else {}.

    None stands for the default. DataError for impossible values, and for any value if the folder has train/
    and test/ already.
    """
    parts = [part for part in ("train", "test") if subfolders(path / part)]
    if parts and (test_share, split_seed) != (None, None):
        rule = "test_share= and split_seed= are for undivided class folders"
        raise DataError(f"{rule}, but {path} is divided into train/ and test/: leave them out")
    if parts:
        return {}
    share, seed = HELD_OUT
    share, seed = share if test_share is None else test_share, seed if split_seed is None else split_seed
    if not isinstance(share, (int, float)) or isinstance(share, bool) or not 0 < share < 1:
        rule = "test_share= must be between 0 and 1, the share of each class for the test set"
        raise DataError(f"{rule}, such as 0.2, not {share!r}")
    if not is_whole(seed):
        raise DataError(f"split_seed= must be a whole number of at least 0, not {seed!r}")
    return {"test_share": share, "split_seed": seed}


def scan(path: Path, test_share: float | None = None, split_seed: int | None = None) -> Folder:
    """The class folders in `path`. DataError if the layout is neither of the two documented ones."""
    with _entered(path):
        if not path.is_dir():
            raise DataError(f"there is no folder {path}: {FOLDERS_WANTED.format(where=path)}")
        parts = [part for part in ("train", "test") if subfolders(path / part)]
        if len(parts) == 1:
            lack = "test" if parts == ["train"] else "train"
            fault = f"{path} has class folders in {parts[0]}/ but none in {lack}/"
            split = f"load {path / parts[0]} itself, which is then split into 80 % training and 20 % test"
            raise DataError(f"{fault}: add {lack}/<class>/ for the same classes, or {split}")
        held_out = tuple(division(path, test_share, split_seed).values())
        names, files = _split(path, *held_out) if held_out else _two_parts(path)
        return Folder(path, files, *_display(path, names), held_out)


@contextlib.contextmanager
def _entered(path: Path) -> Iterator[None]:
    """Turn a folder that cannot be read (no permission, circular links) into a DataError."""
    try:
        yield
    except OSError as error:
        fault = f"{error.filename or path} cannot be read ({error.strerror})"
        raise DataError(f"{fault}: make it readable, or choose another folder") from error


def _two_parts(path: Path) -> tuple[list[str], tuple[list, list]]:
    """(names of the class folders, (files of train/, files of test/))."""
    train, test = _classes(path / "train"), _classes(path / "test")
    for name in train.keys() ^ test.keys():
        have, lack = ("train", "test") if name in train else ("test", "train")
        fault = f"the class {name!r} is in {path / have} but not in {path / lack}"
        counts = f"{len(train)} and {len(test)} found"
        raise DataError(f"{fault}: both must have the same class folders ({counts})")
    return list(train), (_numbered(train), _numbered(test))


def _split(path: Path, share: float, seed: int) -> tuple[list[str], tuple[list, list]]:
    """(names of the class folders, (training files, test files))."""
    classes = _classes(path)
    for name, files in classes.items():
        if len(files) < 2:
            fault = f"the class folder {path / name} holds one image, too few to split into training and test"
            raise DataError(f"{fault}: add images, or divide the folder into train/ and test/")
        if int(share * len(files) + 0.5) >= len(files):
            fault = f"test_share={share} leaves no training image of {path / name}, which has {len(files)}"
            raise DataError(f"{fault}: lower it, or add images")
    whole = _numbered(classes)
    labels = torch.tensor([file[0] for file in whole], device="cpu")
    train, test = ([whole[i] for i in index.tolist()] for index in stratified_split(labels, share, seed))
    return list(classes), (train, test)


def _numbered(classes: dict[str, list]) -> list[tuple]:
    return [(k, *file) for k, files in enumerate(classes.values()) for file in files]


def _display(path: Path, classes: list[str]) -> tuple[tuple[str, ...], tuple[str, ...] | None]:
    """Display names and superclasses from classes.csv beside train/, if there is one.

    Its header names the columns: `folder` (or fine_name, or name) is the class folder, `name` (or fine_name,
    or folder) the display name, `group` (or coarse_name) the superclass. Other columns are ignored.
    """
    table = path / "classes.csv"
    if not table.is_file():
        return tuple(classes), None
    cure = "save it as comma-separated UTF-8 text, or remove it"
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
            fault = f"{table} has no complete row for the class folder {name!r}"
            raise DataError(f"{fault}: add it or remove the file")
    groups = tuple(by_folder[name][group] for name in classes) if group else None
    return tuple(by_folder[name][shown] for name in classes), groups


def load_folder(
    path: Path,
    name: str,
    side: int | None = None,
    test_share: float | None = None,
    split_seed: int | None = None,
) -> tuple[ImageSet, ...]:
    """(train, test) of a folder of class folders, through the cache; see `sets.load` for the options."""
    if side is not None and not is_whole(side, 1):
        what = "the height and width to resize images to, a positive whole number"
        raise DataError(f"side= is {what}, not {side!r}")
    folder = scan(path, test_share, split_seed)
    apart = side if folder.held_out in ((), HELD_OUT) else [side, *folder.held_out]
    source = cache.Source(name, path, apart, folder.listing(), folder.names, folder.groups)
    labels = [np.array([file[0] for file in files], dtype=np.int64) for files in folder.files]
    return cache.through_cache(source, lambda: source.sets(_decode(folder, name, side), labels))


def _decode(folder: Folder, name: str, side: int | None) -> list[np.ndarray]:
    """The images of both parts: two uint8 arrays (N, C, H, W). C is 1 if every image is grey, else 3."""
    try:
        return _decode_as(folder, name, side, channels=1)
    except _Coloured:
        return _decode_as(folder, name, side, channels=3)


def _decode_as(folder: Folder, name: str, side: int | None, channels: int) -> list[np.ndarray]:
    first = folder.files[0][0][1]
    shape = decode_file(first, side, channels).shape
    images = [np.empty((len(files), *shape), dtype=np.uint8) for files in folder.files]
    targets = [image for array in images for image in array]  # views, to decode into
    paths = [file[1] for files in folder.files for file in files]

    def decode(start: int) -> int:
        chunk = slice(start, start + _CHUNK)
        for path, target in zip(paths[chunk], targets[chunk]):
            image = decode_file(path, side, channels)
            if image.shape != shape:
                sizes = f"{path} is {image.shape[2]}x{image.shape[1]} but {first} is {shape[2]}x{shape[1]}"
                cure = "give side=N to resize all of them to NxN pixels"
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
    """The first colour image after grey ones: no fault. A DataError, because `explained` passes those on."""


def decode_file(path: str, side: int | None, channels: int) -> np.ndarray:
    """One image file as a uint8 array (C, H, W). side: crop it to its central square and resize that."""
    with explained(f"{path} cannot be read as an image", "remove or replace it"):
        try:
            image = Image.open(path)
        except UnidentifiedImageError as error:
            cure = "remove or replace it"
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
