"""The published sets: read through torchvision once, and afterwards from the cache, without torchvision.

Files are in torchvision's layout below `root()`. Only `get` downloads anything.
"""

import os
import re
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import torch
from torch import Tensor

from clkit.data import cache, facts, folders
from clkit.data.facts import COMBINED, PUBLISHED, DataError, explained, missing, reason, root
from clkit.data.images import ImageSet
from clkit.data.layout import check_name, stored_as_folders
from clkit.data.plain_pickle import read_batch


def torchvision() -> ModuleType:
    """The torchvision module, imported on first use. DataError if the import fails.

    A torchvision built for a GPU fails at import beside a CPU-only torch, because the import refers to two
    operators of the extension that it could not load. Only in this case, both are declared by name and the
    import is repeated: the data sets use neither.
    """
    try:
        import torchvision as module

        return module
    except (ImportError, RuntimeError) as error:
        if not re.search(r"operator torchvision::q?nms does not exist", str(error)):
            matching = f"install the version that belongs to torch {torch.__version__}"
            cure = "pip install torchvision" if isinstance(error, ImportError) else matching
            raise DataError(f"torchvision cannot be imported ({reason(error)}): {cure}") from error
    for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
        del sys.modules[name]  # a failed import leaves half-initialised submodules behind
    library = torch.library.Library("torchvision", "DEF")
    for operator in ("nms", "qnms"):
        library.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    _OPERATORS.append(library)
    import torchvision as module

    return module


_OPERATORS = []  # a Library withdraws its declarations when it is garbage-collected


def load_published(name: str, side: int | None = None) -> tuple[ImageSet, ...]:
    """(train, test) of a published set, from its files, else from class folders (side: see load_folder)."""
    published, absent = PUBLISHED[name], missing(name)
    if not absent:
        sets = cache.through_cache(_source(name), lambda: _read_published(name))
        return sets if side is None else tuple(part.resized(side) for part in sets)
    if stored_as_folders(name):
        return folders.load_folder(root() / name, name, side)
    fetch = f"fetch it with `python -m clkit data get {name}`"
    if len(absent) < len(published.files):
        raise DataError(f"{name} is incomplete, {absent[0]} is missing: {fetch}")
    fault = f"neither {absent[0]} nor the class folders {root() / name}/train and test exist"
    raise DataError(f"{name} is not here: {fault}; {fetch}, or set CLKIT_DATA to the folder that holds it")


def _source(name: str) -> cache.Source:
    """What the cache of a published set depends on: its files, and what they should contain."""
    published = PUBLISHED[name]
    folder = root() / published.folder
    listing = [[file, cache.state_of((folder / file).stat())] for file in published.files]
    expected = [published.train, published.test, published.checksums]
    return cache.Source(name, folder, name, [expected, listing], published.names, published.groups)


def _read_published(name: str) -> tuple[ImageSet, ...]:
    return tuple(_read_part(name, train) for train in (True, False))


def _read_part(name: str, train: bool) -> ImageSet:
    """One part, read through torchvision and compared with what is known about it."""
    published = PUBLISHED[name]
    files = f"files in {os.path.realpath(root() / published.folder)}"
    part, expected = ("training", published.train) if train else ("test", published.test)
    cure = f"remove the set's files there and fetch them again with `python -m clkit data get {name}`"
    with explained(f"{name}: the {files} are truncated or corrupt", cure):
        images, labels = _read_raw(name, train)
        images = torch.from_numpy(np.ascontiguousarray(images))
        labels = torch.as_tensor(labels, dtype=torch.int64, device="cpu")
        loaded = ImageSet(images, labels, published.names, published.groups, name)
    if len(loaded) != expected:
        fault = f"the {files} hold {len(loaded):,} {part} images instead of {expected:,}"
        raise DataError(f"{name}: {fault}: {cure}")
    if published.checksums and loaded.checksum() != published.checksums[not train]:
        fault = f"the {part} {files} are corrupt (their checksum differs from the published set's)"
        raise DataError(f"{name}: {fault}: {cure}")
    return loaded


def _read_raw(name: str, train: bool) -> tuple[Tensor | np.ndarray, Tensor | np.ndarray | list]:
    """(images uint8 (N, C, H, W), labels (N,)) of one part, after torchvision has compared checksums."""
    datasets = torchvision().datasets
    kind = getattr(datasets, PUBLISHED[name].kind)
    if hasattr(kind, "train_list"):  # pickles, which its constructor would execute
        files = kind.train_list if train else kind.test_list
        for file, md5 in files:
            if not datasets.utils.check_integrity(root() / PUBLISHED[name].folder / file, md5):
                raise ValueError(f"{file} differs from the published one")
        batches = [read_batch(root() / PUBLISHED[name].folder / file) for file, _ in files]
        images = np.concatenate([pixels for pixels, _ in batches])
        return images.reshape(-1, *PUBLISHED[name].shape), [k for _, labels in batches for k in labels]
    if name == "svhn":
        raw = kind(str(root()), split="train" if train else "test")
        return raw.data, raw.labels
    raw = kind(str(root()), train=train)
    return raw.data.unsqueeze(1), raw.targets


def load_combined(name: str) -> tuple[ImageSet, ...]:
    """The parts one after another; the labels of each continue those of the part before it."""
    absent = [
        part
        for part in COMBINED[name]
        if len(missing(part)) == len(PUBLISHED[part].files) and not stored_as_folders(part)
    ]
    if absent:
        parts, lacking = " and ".join(COMBINED[name]), " and ".join(absent)
        fault = f"{name} is made of {parts}, but {lacking} cannot be found in {root()}"
        fetch = f"`python -m clkit data get {name if absent[1:] else absent[0]}`"
        cure = f"fetch what is missing with {fetch}, or set CLKIT_DATA to the folder that holds both"
        raise DataError(f"{fault}: {cure}")
    images, labels, names = ([], []), ([], []), ()
    for part, count in COMBINED[name].items():
        for k, loaded in enumerate(_as_published(name, part)):
            chosen = loaded.select(loaded.labels < count)
            images[k].append(chosen.images)
            labels[k].append(chosen.labels + len(names))
        names += PUBLISHED[part].names[:count]
    return tuple(ImageSet(torch.cat(x), torch.cat(y), names, name=name) for x, y in zip(images, labels))


def _as_published(name: str, part: str) -> tuple[ImageSet, ...]:
    """(train, test) of one part of the combined set `name`; class folders must match the published set."""
    sets, names, shape = load_published(part), PUBLISHED[part].names, PUBLISHED[part].shape
    if (sets[0].names, sets[0].shape) != (names, shape):
        classes = f"the {len(names)} classes of {part} by name ({names[0]} to {names[-1]})"
        rule = f"they must be {classes}, with RGB images of {shape[1]}x{shape[2]} pixels"
        raise DataError(f"{name} cannot be made from the class folders {root() / part}: {rule}")
    return sets


def get(name: str) -> Path:
    """Download a published set into `root()` through torchvision, read it to check it, return its folder.

    For a set that joins others, download these and return the root.
    """
    if name in COMBINED:
        for part in COMBINED[name]:
            get(part)
        return root()
    check_name(name)
    if name in facts.EMBEDDED:
        raise DataError(f"{name} needs no download")
    if name not in PUBLISHED:
        cure = folders.FOLDERS_WANTED.format(where=root() / name)
        raise DataError(f"{name} cannot be downloaded here: {cure}")
    root().mkdir(parents=True, exist_ok=True)
    cure = "check the network and the free disk space, or put the files there by hand"
    with explained(f"{name} could not be downloaded into {root()}", cure):
        _download(name)
    _read_published(name)
    return root() / PUBLISHED[name].folder


def _download(name: str) -> None:
    datasets = torchvision().datasets
    kind = getattr(datasets, PUBLISHED[name].kind)
    if hasattr(kind, "tgz_md5"):  # its constructor would execute the pickles
        if missing(name):
            where = {"filename": kind.filename, "md5": kind.tgz_md5}
            datasets.utils.download_and_extract_archive(kind.url, str(root()), **where)
        return
    for part in ("train", "test"):
        split = {"split": part} if name == "svhn" else {"train": part == "train"}
        kind(str(root()), download=True, **split)
