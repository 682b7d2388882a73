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
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np
import torch

from clkit.data.facts import DataError, reason, root, user_cache
from clkit.data.images import ImageSet

_FORMAT = 1
SPACE = "free some space there, or set CLKIT_DATA to a folder on another disk"


@dataclass(frozen=True)
class Source:
    """What a cached pair of sets was made from.

    name: of the data set; folder: that holds its files; options: a plain JSON value that distinguishes
    several caches of one folder; listing: plain JSON values of everything else that the images depend on,
    such as the files' names and states (not their bytes); names, groups: of the classes; these are not
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


def state_of(file: os.stat_result) -> list[int]:
    """What changes when a file does, even for one of equal size and date: size, times, and inode."""
    return [file.st_size, file.st_mtime_ns, file.st_ctime_ns, file.st_ino]


def through_cache(source: Source, read: Callable[[], tuple[ImageSet, ...]]) -> tuple[ImageSet, ...]:
    """(train, test) from a cache; if there is none, or it is stale or damaged, from `read`, and then cached.

    Caches lie below the root, or in the user's own cache folder if the root is read-only.
    """
    paths = places(source, ".images")
    for path in paths:
        if os.path.isfile(path) and (sets := _load(path, source)):
            return sets
    sets = read()
    _save(paths[0], source, sets)
    return sets


def places(source: Source, ending: str) -> list[Path]:
    """Where the cache of a source may lie; a new one belongs to the first of these places."""
    key = hashlib.sha256(os.fsencode(f"{os.path.realpath(source.folder)} {source.options}")).hexdigest()[:16]
    home = root() if os.path.exists(root()) else root().parent
    homes = (root(), user_cache()) if os.access(home, os.W_OK) else (user_cache(), root())
    return [home / ".clkit-cache" / f"{source.name[:50]}-{key}{ending}" for home in homes]


def _load(path: Path, source: Source) -> tuple[ImageSet, ...] | None:
    """The cached sets; None if the cache is stale or damaged, which is reported."""
    try:
        with path.open("rb") as file:
            header = json.loads(file.readline(1000))
            if header["fingerprint"] != source.fingerprint:
                say_changed(source)
                return None
            arrays = [np.load(file, allow_pickle=False) for _ in range(4)]
        sets = source.sets(arrays[::2], arrays[1::2])
        if [loaded.checksum() for loaded in sets] != header["checksums"]:
            raise DataError("its checksum does not match")
        return sets
    except Exception as error:  # json and numpy raise many kinds on damaged bytes
        what = "cannot be read" if isinstance(error, OSError) else "is damaged"
        fault = f"the cache {path} {what} ({reason(error)})"
        print(f"{source.name}: {fault}; reading the images again", file=sys.stderr)
        return None


def say_changed(source: Source) -> None:
    changed = f"the files in {source.folder} have changed since they were cached"
    print(f"{source.name}: {changed}, or are read in a new way; reading them", file=sys.stderr)


def _save(path: Path, source: Source, sets: tuple[ImageSet, ...]) -> None:
    """Cache the sets; if the disk refuses, say so and continue, since the images are in memory."""
    header = {"fingerprint": source.fingerprint, "checksums": [loaded.checksum() for loaded in sets]}
    try:
        with written(path) as file:
            file.write(json.dumps(header).encode() + b"\n")
            for loaded in sets:
                np.save(file, loaded.images.numpy(), allow_pickle=False)
                np.save(file, loaded.labels.numpy(), allow_pickle=False)
    except OSError as error:
        fault = f"the decoded images could not be cached in {path.parent} ({reason(error)})"
        print(f"{source.name}: {fault}, so the next load will read them again: {SPACE}", file=sys.stderr)


@contextlib.contextmanager
def written(path: Path) -> Iterator[IO[bytes]]:
    """A file that is flushed to disk and takes its place at the end of the block, or vanishes on an error.

    What ended processes have left in the folder is removed.
    """
    part = path.with_name(f"{path.name}.{os.getpid()}-{os.urandom(4).hex()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        for leftover in filter(_is_abandoned, path.parent.glob("*.part")):
            leftover.unlink(missing_ok=True)
        with part.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    finally:
        with contextlib.suppress(OSError):  # after success it has been renamed
            part.unlink()


def _is_abandoned(part: Path) -> bool:
    """Whether the process that was writing a file has ended, or began more than an hour ago."""
    with contextlib.suppress(FileNotFoundError):
        if time.time() - part.stat().st_mtime > 3600:
            return True
    writer = part.name.split(".")[-2].partition("-")[0]
    if os.name != "posix" or not writer.isdecimal():  # os.kill ends a process elsewhere
        return False
    try:
        os.kill(int(writer), 0)
    except ProcessLookupError:
        return True
    except (OSError, OverflowError):  # of another user; no number of a process
        pass
    return False
