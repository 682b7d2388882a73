"""Class folders whose resized images are too many for memory: they are resized once, and stay on disk.

The cache is a folder with files of numpy's format, each a *block*: images of one class and part, in order.
A block is named after what it was made from, its pictures' names and states and the way they are read, and is
written whole or not at all. So an interrupted cache is continued, pictures that have changed make their own
blocks anew, and several processes may fill one cache. whole.json is written last: the shape of an image, the
fingerprint of the source, the checksums of both sets, and the state of each block, by which a block that was
changed later is noticed. Nothing in it is ever unpickled.
"""

import contextlib
import hashlib
import itertools
import json
import math
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from clkit.data.cache import SPACE, Source, places, say_changed, written
from clkit.data.facts import DataError, check_memory, reason
from clkit.data.images import ImageSet
from clkit.data.on_disk import OnDisk

IN_MEMORY = 2 * 10**9  # bytes: resized class folders that take more, if all are in colour, stay on disk
_BLOCK = 2**26  # bytes, at most, unless a single image has more
_FORMAT = 1
_HEAD = 128  # bytes before the pixels, in numpy's format


@dataclass(frozen=True)
class Block:
    """Images [start, stop) of a part, 0 for training and 1 for test, and the file that holds them."""

    part: int
    start: int
    stop: int
    path: Path
    size: int


def through_blocks(
    source: Source,
    labels: list[np.ndarray],
    decode: Callable[[tuple, list[tuple[int, int, int]]], Iterator[np.ndarray]],
    shape: tuple[int, int, int],
) -> tuple[ImageSet, ...]:
    """(train, test) from the cache, whose missing blocks are made first.

    source: its listing has the pictures of the two parts last, sorted by class, each an entry (class, path,
    state). labels: of each part. decode(shape, [(part, start, stop), ...]) yields these images of shape
    (C, H, W), uint8, one array each. DataError if the disk is too small or refuses.
    """
    folders = places(source, ".blocks")
    folder = next((f for f in folders if f.is_dir()), folders[0])
    known = _known(folder)
    blocks = _blocks(source, shape, folder)
    missing = [block for block in blocks if not _is_there(known, block)]
    sets = _sets(source, labels, shape, blocks)
    if missing or known["fingerprint"] != source.fingerprint:
        if known["fingerprint"] == source.fingerprint:
            count = sum(block.stop - block.start for block in missing)
            fault = f"the cache {folder} has changed, or is damaged"
            print(f"{source.name}: {fault}; reading {count:,} images again", file=sys.stderr)
        elif known["fingerprint"]:
            say_changed(source)
        _fill(source, folder, shape, missing, decode)
        known = {
            "fingerprint": source.fingerprint,
            "shape": shape,
            "checksums": [loaded.checksum() for loaded in sets],
            "blocks": {b.path.name: _state(b) for b in blocks},
        }
        with _refused(source, folder), written(folder / "whole.json") as file:
            file.write(json.dumps(known).encode())
        _clear(folder, known["blocks"])
    for loaded, checksum in zip(sets, known["checksums"]):
        loaded._checksum = checksum
    return sets


def shape_of(source: Source) -> tuple[int, int, int] | None:
    """(C, H, W) of the images in the cache of a source, or None if it was never whole."""
    caches = [_known(folder) for folder in places(source, ".blocks")]
    return next((tuple(c["shape"]) for c in caches if c["fingerprint"] == source.fingerprint), None)


def _known(folder: Path) -> dict:
    """What whole.json says; of None and {} if it is not there, or damaged."""
    try:
        found = json.loads((folder / "whole.json").read_bytes())
        return {key: found[key] for key in ("fingerprint", "shape", "checksums", "blocks")}
    except (OSError, ValueError, KeyError, TypeError):
        return {"fingerprint": None, "shape": None, "checksums": None, "blocks": {}}


def _blocks(source: Source, shape: tuple, folder: Path) -> list[Block]:
    most, found = max(1, _BLOCK // math.prod(shape)), []
    for part, entries in enumerate(source.listing[-2:]):
        start = 0
        for _, of_class in itertools.groupby(entries, key=lambda entry: entry[0]):
            of_class = [entry[1:] for entry in of_class]
            for first in range(0, len(of_class), most):
                pictures = of_class[first : first + most]
                made_from = [_FORMAT, source.options, source.listing[:-2], shape, pictures]
                name = hashlib.sha256(json.dumps(made_from).encode()).hexdigest()[:32]
                size = _HEAD + len(pictures) * math.prod(shape)
                found.append(Block(part, start, start + len(pictures), folder / f"{name}.npy", size))
                start += len(pictures)
    return found


def _state(block: Block) -> list[int] | None:
    """[size, time of the last change] of a block's file; None if it is missing or has another size."""
    try:
        file = block.path.stat()
    except OSError:
        return None
    return [file.st_size, file.st_mtime_ns] if file.st_size == block.size else None


def _is_there(known: dict, block: Block) -> bool:
    """Whether a block is as it was written; whole.json does not know those of an interrupted cache yet."""
    state = _state(block)
    return state is not None and known["blocks"].get(block.path.name, state) == state


def _sets(source: Source, labels: list, shape: tuple, blocks: list[Block]) -> tuple[ImageSet, ...]:
    sets = []
    for part, y in enumerate(labels):
        own = [block for block in blocks if block.part == part]
        images = OnDisk([str(b.path) for b in own], [b.stop - b.start for b in own], shape)
        sets.append(ImageSet(images, torch.from_numpy(y), source.names, source.groups, source.name))
    return tuple(sets)


def _fill(source: Source, folder: Path, shape: tuple, missing: list[Block], decode: Callable) -> None:
    """Write the missing blocks."""
    what, cure = f"{source.name}: images of {shape[2]}x{shape[1]} pixels", "give a smaller side=N"
    check_memory(what, max((b.size for b in missing), default=0), cure)
    size = sum(block.size for block in missing)
    with _refused(source, folder):
        folder.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(folder).free
        if size > free:
            fault = f"would take {size / 1e9:,.1f} GB on disk, but {free / 1e9:,.1f} GB are free in {folder}"
            raise DataError(f"{what} {fault}: {SPACE}, or {cure}")
        arrays = decode(shape, [(block.part, block.start, block.stop) for block in missing])
        with contextlib.closing(arrays):
            for block, images in zip(missing, arrays):
                with written(block.path) as file:
                    np.save(file, images, allow_pickle=False)


@contextlib.contextmanager
def _refused(source: Source, folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        fault = f"the resized images cannot be written to {folder} ({reason(error)})"
        raise DataError(f"{source.name}: {fault}: {SPACE}; what is written already is kept") from error


def _clear(folder: Path, kept: dict) -> None:
    """Remove blocks that are of no use any more."""
    for path in folder.glob("*.npy"):
        if path.name not in kept:
            path.unlink(missing_ok=True)
