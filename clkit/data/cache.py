"""The cache of data sets that are slow to read: class folders, and published sets read through torchvision.

One file per data set: a line of JSON with the fingerprint of the source and the checksums of the two sets,
then four arrays in numpy's format: training images and labels, test images and labels. The file is written
under a temporary name, flushed to disk and renamed; reading compares it with its checksums, so a partial or
damaged file is never used. Nothing in it is ever unpickled.
"""

import contextlib
import hashlib
import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from clkit.data.facts import DataError, reason, root, user_cache
from clkit.data.images import ImageSet

_FORMAT = 1


@dataclass(frozen=True)
class Source:
    """What a cached pair of sets was made from.

    name: of the data set; folder: that holds its files; options: a plain JSON value that distinguishes
    several caches of one folder; listing: plain JSON values of everything else that the images depend on,
    such as the files' names, sizes and times (not their bytes); names, groups: of the classes; these are not
    cached.
    """

    name: str
    folder: Path
    options: object
    listing: list
    names: Sequence[str]
    groups: Sequence[str] | None

    @property
    def fingerprint(self) -> str:
        return hashlib.sha256(json.dumps([_FORMAT, self.options, self.listing]).encode()).hexdigest()

    def sets(self, images: Sequence[np.ndarray], labels: Sequence[np.ndarray]) -> tuple[ImageSet, ...]:
        """(train, test), from uint8 images (N, C, H, W) and int64 labels (N,) of each."""
        return tuple(
            ImageSet(torch.from_numpy(x), torch.from_numpy(y), self.names, self.groups, self.name)
            for x, y in zip(images, labels)
        )


def through_cache(source: Source, read: Callable[[], tuple[ImageSet, ...]]) -> tuple[ImageSet, ...]:
    """(train, test) from the cache; if that is absent, stale or damaged, from `read`, and then cached."""
    path = _path(source)
    sets = _load(path, source)
    if sets is None:
        sets = read()
        _save(path, source, sets)
    return sets


def _path(source: Source) -> Path:
    """The path of a cache: below the root, or in the user's cache folder if the root is not writable."""
    home, folder = root(), source.folder.resolve()
    if not os.access(home if home.exists() else home.parent, os.W_OK):
        home = user_cache()
    key = hashlib.sha256(f"{folder} {source.options}".encode()).hexdigest()[:16]
    return home / ".clkit-cache" / f"{source.name}-{key}.images"


def _load(path: Path, source: Source) -> tuple[ImageSet, ...] | None:
    """The cached sets; None if the cache is absent, stale or damaged (the last two are reported)."""
    try:
        with path.open("rb") as file:
            header = json.loads(file.readline(1000))
            if header["fingerprint"] != source.fingerprint:
                changed = f"the files in {source.folder} have changed since they were cached"
                print(f"{source.name}: {changed}; reading them again", file=sys.stderr)
                return None
            arrays = [np.load(file, allow_pickle=False) for _ in range(4)]
        sets = source.sets(arrays[::2], arrays[1::2])
        if [loaded.checksum() for loaded in sets] != header["checksums"]:
            raise DataError("its checksum does not match")
        return sets
    except FileNotFoundError:
        return None
    except Exception as error:  # json and numpy raise many kinds on damaged bytes
        fault = f"the cache {path} is damaged ({reason(error)})"
        print(f"{source.name}: {fault}; reading the images again", file=sys.stderr)
        return None


def _save(path: Path, source: Source, sets: tuple[ImageSet, ...]) -> None:
    """Cache the sets; if the disk refuses, say so and continue, since the images are in memory."""
    header = {"fingerprint": source.fingerprint, "checksums": [loaded.checksum() for loaded in sets]}
    part = path.with_name(f"{path.name}.{os.getpid()}-{os.urandom(4).hex()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        for leftover in path.parent.glob(f"{path.name}*.part"):  # from killed processes
            if time.time() - leftover.stat().st_mtime > 3600:  # another process may be writing a newer one
                leftover.unlink(missing_ok=True)
        with part.open("xb") as file:
            file.write(json.dumps(header).encode() + b"\n")
            for loaded in sets:
                np.save(file, loaded.images.numpy(), allow_pickle=False)
                np.save(file, loaded.labels.numpy(), allow_pickle=False)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    except OSError as error:
        fault = f"the decoded images could not be cached in {path.parent} ({reason(error)})"
        cure = "free some space there, or set CLKIT_DATA to a folder on another disk"
        print(f"{source.name}: {fault}, so the next load will read them again: {cure}", file=sys.stderr)
    finally:
        with contextlib.suppress(OSError):  # after success it has been renamed
            part.unlink()
