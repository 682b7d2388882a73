"""The published sets: read through torchvision once, from then on from the cache, which needs no torchvision.

Files lie in torchvision's layout under `root()`. Nothing is downloaded except by `get`.
"""

from __future__ import annotations

import itertools
import re
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import torch

from clkit.data import cache, folders
from clkit.data.facts import (
    COMBINED,
    EMBEDDED,
    PUBLISHED,
    DataError,
    Published,
    check_name,
    missing,
    reason,
    root,
)
from clkit.data.images import ImageSet


def torchvision() -> ModuleType:
    """The torchvision module, imported when first needed; DataError where it cannot be.

    A torchvision built for a GPU fails at import beside a CPU-only torch, because the import touches two
    operators of the extension it could not load. Then, and only then, the two are declared by name and the
    import repeated: the data sets use neither.
    """
    try:
        import torchvision as module

        return module
    except ImportError as error:
        raise DataError(
            f"torchvision cannot be imported ({reason(error)}): pip install torchvision"
        ) from error
    except RuntimeError as error:
        if not re.search(r"operator torchvision::q?nms does not exist", str(error)):
            raise DataError(
                f"torchvision cannot be imported ({reason(error)}): install the version that "
                f"belongs to torch {torch.__version__}"
            ) from error
    for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
        del sys.modules[name]  # a failed import leaves its submodules behind, half made
    library = torch.library.Library("torchvision", "DEF")
    for operator in ("nms", "qnms"):
        library.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    _OPERATORS.append(library)
    import torchvision as module

    return module


_OPERATORS = []  # a Library takes its declarations back when it is collected


def load_published(name: str, side: int | None = None) -> tuple[ImageSet, ...]:
    """(train, test) of a published set: of its files, else of class folders under its name (side: theirs)."""
    published, absent = PUBLISHED[name], missing(name)
    if not absent:
        if side is not None:
            raise DataError(
                f"side= is for class folders: {name} has {published.shape[1]}x{published.shape[2]} pixels"
            )
        return cache.through_cache(_source(name), lambda: _read_published(name))
    if (root() / name).is_dir():
        return folders.load_folder(root() / name, name, side)
    if len(absent) < len(published.files):
        raise DataError(
            f"{name} is incomplete, {absent[0]} is missing: fetch it with `python -m clkit data get {name}`"
        )
    raise DataError(
        f"{name} is not here: neither {absent[0]} nor the class folders {root() / name}/train "
        f"and test exist; fetch it with `python -m clkit data get {name}`, or point CLKIT_DATA "
        "at where it is"
    )


def _source(name: str) -> cache.Source:
    """What the cache of a published set depends on: its files, and what is expected of them."""
    published = PUBLISHED[name]
    folder = root() / published.folder
    states = [(file, (folder / file).stat()) for file in published.files]
    listing = [[file, state.st_size, state.st_mtime_ns] for file, state in states]
    expected = [published.train, published.test, published.checksums]
    return cache.Source(name, folder, name, [expected, listing], published.names, published.groups)


def _read_published(name: str) -> tuple[ImageSet, ...]:
    return tuple(_read_part(name, train) for train in (True, False))


def _read_part(name: str, train: bool) -> ImageSet:
    """One part through torchvision, compared with what is known of it."""
    published = PUBLISHED[name]
    where = (root() / published.folder).resolve()
    cure = f"remove the set's files there and fetch them again with `python -m clkit data get {name}`"
    try:
        raw = _open_published(published, train)
        images, labels = raw.data, raw.labels if published.kind == "SVHN" else raw.targets
        if images.ndim == 3:
            images = images.unsqueeze(1)  # (N, 1, H, W)
        elif images.shape[-1] == 3:
            images = images.transpose(0, 3, 1, 2)  # undoes torchvision's own transposition
        images = images if torch.is_tensor(images) else torch.from_numpy(np.ascontiguousarray(images))
        labels = torch.as_tensor(labels, dtype=torch.int64, device="cpu")
        loaded = ImageSet(images, labels, published.names, published.groups, name)
    except (MemoryError, DataError):
        raise
    except Exception as error:  # torchvision lets through whatever parsing broken bytes happens to raise
        raise DataError(
            f"{name}: the files in {where} are truncated or corrupt ({reason(error)}): {cure}"
        ) from error
    expected = (published.train, published.test)[not train]
    if len(loaded) != expected:
        raise DataError(
            f"{name}: the files in {where} hold {len(loaded):,} "
            f"{'training' if train else 'test'} images where {expected:,} belong: {cure}"
        )
    if published.checksums and loaded.checksum() != published.checksums[not train]:
        raise DataError(
            f"{name}: the {'training' if train else 'test'} files in {where} are corrupt (their "
            f"checksum is not that of the published set): {cure}"
        )
    return loaded


def _open_published(published: Published, train: bool, download: bool = False) -> object:
    """torchvision's data set object."""
    kind = getattr(torchvision().datasets, published.kind)
    split = {"split": "train" if train else "test"} if published.kind == "SVHN" else {"train": train}
    return kind(str(root()), download=download, **split)


def load_combined(name: str) -> tuple[ImageSet, ...]:
    """The parts one after another: the labels of each begin where those of the part before it end."""
    absent = [
        part
        for part in COMBINED[name]
        if len(missing(part)) == len(PUBLISHED[part].files) and not (root() / part).is_dir()
    ]
    if absent:
        raise DataError(
            f"{name} is made of {' and '.join(COMBINED[name])}, but {' and '.join(absent)} "
            f"cannot be found in {root()}: fetch what is missing with `python -m clkit data get "
            f"{name if absent[1:] else absent[0]}`, or point CLKIT_DATA at where both are"
        )
    parts = [_first_classes(name, part, count) for part, count in COMBINED[name].items()]
    return tuple(_joined(name, sets) for sets in zip(*parts))


def _first_classes(name: str, part: str, count: int) -> tuple[ImageSet, ...]:
    """(train, test) of the first classes of a published set; class folders must hold it as published."""
    published, sets = PUBLISHED[part], load_published(part)
    if (sets[0].names, sets[0].shape) != (published.names, published.shape):
        raise DataError(
            f"{name} cannot be made of the class folders {root() / part}: they must be the "
            f"{len(published.names)} classes of {part} by name ({published.names[0]} to "
            f"{published.names[-1]}), with RGB images of {published.shape[1]}x"
            f"{published.shape[2]} pixels"
        )
    chosen = [loaded.select(loaded.labels < count) for loaded in sets]
    return tuple(ImageSet(loaded.images, loaded.labels, published.names[:count]) for loaded in chosen)


def _joined(name: str, sets: tuple[ImageSet, ...]) -> ImageSet:
    starts = itertools.accumulate((loaded.classes for loaded in sets), initial=0)
    labels = torch.cat([loaded.labels + start for loaded, start in zip(sets, starts)])
    names = itertools.chain.from_iterable(loaded.names for loaded in sets)
    return ImageSet(torch.cat([loaded.images for loaded in sets]), labels, names, name=name)


def get(name: str) -> Path:
    """Download a published set into `root()` through torchvision, check it by reading, return its folder.

    Of a set that is made of others these are fetched, and the root is returned.
    """
    if name in COMBINED:
        for part in COMBINED[name]:
            get(part)
        return root()
    if name not in PUBLISHED:
        check_name(name)
        cure = folders.FOLDERS_WANTED.format(where=root() / name)
        raise DataError(
            f"{name} needs no download" if name in EMBEDDED else f"{name} cannot be downloaded here: {cure}"
        )
    published = PUBLISHED[name]
    root().mkdir(parents=True, exist_ok=True)
    for train in (True, False):
        try:
            _open_published(published, train, download=True)
        except (DataError, MemoryError):
            raise
        except Exception as error:  # network, disk and archive errors of several libraries
            raise DataError(
                f"{name} could not be downloaded into {root()} ({reason(error)}): check the "
                "network and the free space, or put the files there by hand"
            ) from error
    _read_published(name)
    return root() / published.folder
