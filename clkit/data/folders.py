"""Class folders: image files, one folder per class, decoded once and cached; many large ones stay on disk.

    PATH/train/<class>/*  and  PATH/test/<class>/*      the two parts, with the same classes
    PATH/<class>/*                                      undivided: a random share of each class (test_share =
                                                        0.2, drawn with split_seed = 0) is the test set

The parts may have other usual names, such as Training/ and test_set/; a third one, such as val/, is passed
over, and a folder named like a part is never taken for a class. Classes are numbered in the alphabetical
order of their folders. Files that operating systems leave (Thumbs.db) are passed over like hidden ones.
Images are grey (C = 1) if all of them are, else RGB. They are turned upright as their EXIF data say, and
transparent ones are laid on white; of several frames, the first is taken.
"""

import contextlib
import csv
import io
import math
import os
import unicodedata
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from tqdm import tqdm

from clkit.data import cache, large, layout
from clkit.data.facts import DataError, check_memory, explained, is_number, is_whole
from clkit.data.images import HELD_OUT, ImageSet, stratified_split

_CHUNK = 64  # files that one thread decodes at a time
_READING = 2  # changes when files are decoded to other pixels, so that caches are made anew
FOLDERS_WANTED = "put its images into {where}/train/<class>/ and {where}/test/<class>/"


@dataclass
class Folder:
    """A folder of class folders.

    files: for train and test, [(class index, path, state as in `cache.state_of`), ...].   held_out: (share,
    seed) of the test set if the folder is undivided, else ().
    """

    path: Path
    files: tuple[list, list]
    names: tuple[str, ...]
    groups: tuple[str, ...] | None
    held_out: tuple

    def listing(self) -> list:
        """What the images depend on, except the files' bytes: classes, names and states."""
        start = len(str(self.path))
        return [_READING, *([(k, path[start:], state) for k, path, state in files] for files in self.files)]


def _classes(folder: Path) -> dict[str, list]:
    """{class name: its files}, sorted by name, in a folder of class folders.

    DataError for an empty class, and where the class folders hold only folders, several in one, as those of
    superclasses or of parts do.
    """
    found = {name: layout.files_below(place) for name, place in layout.class_folders(folder).items()}
    inner = {}
    for name, files in found.items():
        if not files:
            raise DataError(f"the class folder {folder / name} is empty: add images or remove it")
        inner[name] = {Path(path).relative_to(folder).parts[1:-1][:1] for path, _ in files}
    own = any(() in places for places in inner.values())
    several = [name for name, places in inner.items() if len(places) > 1]
    if several and not own:
        some = " and ".join(f"{place}/" for (place,) in sorted(inner[several[0]])[:2])
        fault = f"the class folders in {folder} hold no images, only folders such as {some} in {several[0]}/"
        raise DataError(f"{fault}: name the folder whose folders are the classes, or move the images up")
    return found


def division(path: Path, test_share: float | None = None, split_seed: int | None = None) -> dict:
    """{"test_share": share of each class, "split_seed": seed} if the class folders are undivided, else {}.

    None stands for the default. DataError for impossible values, and for any value if the folder has train/
    and test/ already.
    """
    divided = layout.parts(path)
    if divided and (test_share, split_seed) != (None, None):
        rule = "test_share= and split_seed= are for undivided class folders"
        train, test = (f"{part.name}/" for part in divided)
        raise DataError(f"{rule}, but {path} is divided into {train} and {test}: leave them out")
    if divided:
        return {}
    share, seed = HELD_OUT
    share, seed = share if test_share is None else test_share, seed if split_seed is None else split_seed
    if not is_number(share) or not 0 < share < 1:
        rule = "test_share= must be between 0 and 1, the share of each class for the test set"
        raise DataError(f"{rule}, such as 0.2, not {share!r}")
    if not is_whole(seed):
        raise DataError(f"split_seed= must be a whole number of at least 0, not {seed!r}")
    return {"test_share": float(share), "split_seed": int(seed)}


def scan(path: Path, test_share: float | None = None, split_seed: int | None = None) -> Folder:
    """The class folders in `path`. DataError if the layout is neither of the two documented ones."""
    with _entered(path):
        if not os.path.isdir(path):
            raise DataError(f"there is no folder {path}: {FOLDERS_WANTED.format(where=path)}")
        held_out = tuple(division(path, test_share, split_seed).values())
        names, files = _split(path, *held_out) if held_out else _two_parts(*layout.parts(path))
        return Folder(path, files, *_display(path, names), held_out)


@contextlib.contextmanager
def _entered(path: Path) -> Iterator[None]:
    """Turn a folder that cannot be read (no permission, a path that is too long) into a DataError."""
    try:
        yield
    except OSError as error:
        where = str(error.filename or path)
        where = where if len(where) < 300 else f"{where[:150]}...{where[-50:]}"
        fault = f"{where} cannot be read ({error.strerror})"
        raise DataError(f"{fault}: make it readable, or choose another folder") from error


def _two_parts(train: Path, test: Path) -> tuple[list[str], tuple[list, list]]:
    """(names of the class folders, (files of the training part, files of the test part))."""
    there = {train: _classes(train), test: _classes(test)}
    for name in sorted(there[train].keys() ^ there[test].keys(), key=str.isascii):
        have, lack = (train, test) if name in there[train] else (test, train)
        spelt = repr(name) if name.isascii() else f"{name!r} ({name!a})"
        fault = f"the class {spelt} is in {have} but not in {lack}"
        counts = f"{len(there[train])} and {len(there[test])} found"
        raise DataError(f"{fault}: both must have the same class folders ({counts})")
    return list(there[train]), (_numbered(there[train]), _numbered(there[test]))


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
    each = enumerate(classes.values())
    return [(k, path, cache.state_of(state)) for k, files in each for path, state in files]


def _display(path: Path, classes: list[str]) -> tuple[tuple[str, ...], tuple[str, ...] | None]:
    """Display names and superclasses from classes.csv beside train/, if there is one.

    Its header names the columns: `folder` (or fine_name, or name) is the class folder, `name` (or fine_name,
    or folder) the display name, `group` (or coarse_name) the superclass. Other columns are ignored.
    """
    table = path / "classes.csv"
    if not os.path.isfile(table):
        return tuple(classes), None
    with explained(f"{table} cannot be read", "save it as comma-separated UTF-8 text, or remove it"):
        head, rows = _table(table.read_bytes())

    def column(*names: str) -> str | None:
        return next((name for name in names if name in head), None)

    folder = column("folder", "fine_name", "name")
    shown, group = column("name", "fine_name", "folder"), column("group", "coarse_name")
    if folder is None:
        cure = "its first line must name the columns"
        raise DataError(f"{table} has no column called folder, fine_name or name: {cure}")
    group = group if any(row.get(group) for row in rows) else None
    by_folder = {row[folder]: row for row in rows if row.get(folder)}
    for name in classes:
        row = by_folder.get(name, {})
        if not row.get(shown) or (group and not row.get(group)):
            fault = f"{table} has no complete row for the class folder {name!r}"
            zeros = " with its leading zeros, which spreadsheets drop," if name.startswith("0") else ""
            raise DataError(f"{fault}: add it{zeros} or remove the file")
    groups = tuple(by_folder[name][group] for name in classes) if group else None
    return tuple(by_folder[name][shown] for name in classes), groups


def _table(data: bytes) -> tuple[list[str], list[dict]]:
    """(columns in lower case, rows) of a table as spreadsheets write it.

    With a byte order mark, with commas, semicolons or tabs, with blank cells and rows.
    """
    text = data.decode("utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig")
    text = unicodedata.normalize("NFC", text.lstrip("\r\n"))
    first, _, rest = text.partition("\n")
    said = first.strip().lower().removeprefix("sep=")  # how Excel names the delimiter
    delimiter = said if len(said) == 1 else max(",;\t", key=first.count)
    lines = csv.reader(io.StringIO(rest if len(said) == 1 else text, newline=""), delimiter=delimiter)
    cells = [row for row in ([" ".join(cell.split()) for cell in line] for line in lines) if any(row)]
    head = [cell.casefold() for cell in cells[0]] if cells else []
    return head, [dict(zip(head, row)) for row in cells[1:]]


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
    layout.check_folder_name(name, path)
    side = None if side is None else int(side)
    folder = scan(path, test_share, split_seed)
    apart = side if folder.held_out in ((), HELD_OUT) else [side, *folder.held_out]
    source = cache.Source(name, path, apart, folder.listing(), folder.names, folder.groups)
    labels = [np.array([file[0] for file in files], dtype=np.int64) for files in folder.files]
    if side is not None and sum(map(len, labels)) * 3 * side**2 > large.IN_MEMORY:
        return _on_disk(folder, source, labels, side)
    return cache.through_cache(source, lambda: source.sets(_decode(folder, name, side), labels))


def _on_disk(folder: Folder, source: cache.Source, labels: list, side: int) -> tuple[ImageSet, ...]:
    """The two sets, resized and left on disk."""

    def make(channels: int) -> tuple[ImageSet, ...]:
        decode = partial(_arrays, folder, source.name, side)
        return large.through_blocks(source, labels, decode, (channels, side, side))

    known = large.shape_of(source)
    return make(known[0]) if known else _in_channels(make)


def _in_channels(make: Callable[[int], object]) -> object:
    """make(1) if every image is grey, else make(3)."""
    try:
        return make(1)
    except _Coloured:
        return make(3)


def _decode(folder: Folder, name: str, side: int | None) -> list[np.ndarray]:
    """The images of both parts: two uint8 arrays (N, C, H, W). C is 1 if every image is grey, else 3."""
    return _in_channels(lambda channels: _decode_as(folder, name, side, channels))


def _decode_as(folder: Folder, name: str, side: int | None, channels: int) -> list[np.ndarray]:
    first = folder.files[0][0][1]
    shape = (channels, side, side) if side else decode_file(first, side, channels).shape
    count = sum(map(len, folder.files))
    what = f"{name}: {count:,} images of {shape[2]}x{shape[1]} pixels"
    check_memory(what, count * math.prod(shape), "give a smaller side=N, to resize them to NxN pixels")
    parts = [(part, 0, len(files)) for part, files in enumerate(folder.files)]
    return list(_arrays(folder, name, side, shape, parts))


def _arrays(folder: Folder, name: str, side: int | None, shape: tuple, wanted: list) -> Iterator[np.ndarray]:
    """Images of this shape, uint8 (n, C, H, W), for each of `wanted`: (part, start, stop)."""
    first = folder.files[0][0][1]

    def decode(path: str, target: np.ndarray) -> None:
        image = decode_file(path, side, shape[0])
        if image.shape != shape:
            sizes = f"{path} is {image.shape[2]}x{image.shape[1]} but {first} is {shape[2]}x{shape[1]}"
            cure = "give side=N to resize all of them to NxN pixels"
            raise DataError(f"images differ in size: {sizes}: {cure}")
        target[...] = image

    def decode_all(files: list, targets: np.ndarray) -> int:
        for (_, path, _), target in zip(files, targets):
            decode(path, target)
        return len(files)

    workers = min(32, os.cpu_count() or 1)
    total = sum(stop - start for _, start, stop in wanted)
    with (
        tqdm(total=total, desc=f"reading {name}", unit=" images", disable=None) as bar,
        ThreadPoolExecutor(workers) as pool,
    ):
        try:
            for part, start, stop in wanted:
                files, images = folder.files[part][start:stop], np.empty((stop - start, *shape), np.uint8)
                step = min(_CHUNK, -(-len(files) // workers))
                chunks = [slice(k, k + step) for k in range(0, len(files), step)]
                for done in pool.map(decode_all, [files[c] for c in chunks], [images[c] for c in chunks]):
                    bar.update(done)
                yield images
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


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
            pixels = _on_white(_upright(image), path).convert("L" if channels == 1 else "RGB")
            if side is not None:
                pixels = ImageOps.fit(pixels, (side, side), Image.Resampling.BICUBIC)  # antialiases
    pixels = np.asarray(pixels)
    return pixels[None] if channels == 1 else pixels.transpose(2, 0, 1)


def _upright(image: Image.Image) -> Image.Image:
    """The image turned as its EXIF data say; as it is stored if they are damaged."""
    image.load()  # so that only EXIF data can fail below
    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # Pillow raises many kinds on damaged EXIF data, which no viewer minds
        return image


def _on_white(image: Image.Image, path: str) -> Image.Image:
    """The image laid on white where it is transparent. DataError if this hides all of it."""
    if not image.has_transparency_data:
        return image
    image = image.convert("RGBA")
    laid = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    flat = [low == high for low, high in (*laid.getextrema()[:3], image.getextrema()[3])]
    if all(flat[:3]) and not flat[3]:
        fault = f"{path} is white on a transparent ground, so nothing is left of it on white"
        raise DataError(f"{fault}: give it a ground of another colour")
    return laid
