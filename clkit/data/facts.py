"""What is known about each named data set before it is read: its files, shape, classes and place.

This file needs no torch and opens no image, so `present` answers in milliseconds.
"""

import contextlib
import math
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from clkit.errors import ClkitError, did_you_mean

EMBEDDED = ("digits", "digits28", "shapes")
FOLDER = "folder:"  # the beginning of a name that gives a path to class folders


class DataError(ClkitError):
    """A data set is absent, damaged or misnamed; the message is one sentence that says what to do."""


def reason(error: BaseException) -> str:
    """An exception as part of a sentence: the first line of its message, or its type if there is none."""
    text = str(error).strip().splitlines()
    return text[0].rstrip(".") if text else type(error).__name__


@contextlib.contextmanager
def explained(fault: str, cure: str) -> Iterator[None]:
    """Turn whatever a library raises on damaged files into a DataError: `fault` (the reason): `cure`."""
    try:
        yield
    except (DataError, MemoryError):
        raise
    except Exception as error:
        raise DataError(f"{fault} ({reason(error)}): {cure}") from error


def is_whole(value: object, least: int = 0, most: float = math.inf) -> bool:
    """Whether an option is a whole number in this range; True and 2.0 are not."""
    return isinstance(value, int) and not isinstance(value, bool) and least <= value <= most


@dataclass(frozen=True)
class Published:
    """A data set that torchvision provides.

    kind: torchvision's class; folder, files: what it reads, below the root; train, test: numbers of images;
    shape: (C, H, W); names, groups: of the classes, groups may be None; checksums: ImageSet.checksum() of
    train and test, or None if torchvision itself verifies the files.
    """

    kind: str
    folder: str
    files: tuple[str, ...]
    train: int
    test: int
    shape: tuple[int, int, int]
    names: tuple[str, ...]
    groups: tuple[str, ...] | None = None
    checksums: tuple[str, str] | None = None


_IDX = tuple(f"{part}-{what}-ubyte" for part in ("train", "t10k") for what in ("images-idx3", "labels-idx1"))
_DIGITS = tuple("0123456789")
_CIFAR100 = {  # superclass: its classes
    "aquatic_mammals": "beaver dolphin otter seal whale",
    "fish": "aquarium_fish flatfish ray shark trout",
    "flowers": "orchid poppy rose sunflower tulip",
    "food_containers": "bottle bowl can cup plate",
    "fruit_and_vegetables": "apple mushroom orange pear sweet_pepper",
    "household_electrical_devices": "clock keyboard lamp telephone television",
    "household_furniture": "bed chair couch table wardrobe",
    "insects": "bee beetle butterfly caterpillar cockroach",
    "large_carnivores": "bear leopard lion tiger wolf",
    "large_man-made_outdoor_things": "bridge castle house road skyscraper",
    "large_natural_outdoor_scenes": "cloud forest mountain plain sea",
    "large_omnivores_and_herbivores": "camel cattle chimpanzee elephant kangaroo",
    "medium_mammals": "fox porcupine possum raccoon skunk",
    "non-insect_invertebrates": "crab lobster snail spider worm",
    "people": "baby boy girl man woman",
    "reptiles": "crocodile dinosaur lizard snake turtle",
    "small_mammals": "hamster mouse rabbit shrew squirrel",
    "trees": "maple_tree oak_tree palm_tree pine_tree willow_tree",
    "vehicles_1": "bicycle bus motorcycle pickup_truck train",
    "vehicles_2": "lawn_mower rocket streetcar tank tractor",
}
_BY_LABEL = sorted((name, group) for group, names in _CIFAR100.items() for name in names.split())
_FINE, _COARSE = zip(*_BY_LABEL)  # torchvision does not read superclasses
_CIFAR10 = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
_CIFAR10_FILES = (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch", "batches.meta")
_FASHION = tuple("T-shirt/top,Trouser,Pullover,Dress,Coat,Sandal,Shirt,Sneaker,Bag,Ankle boot".split(","))
_MNIST_SUMS = (
    "71d3be42f93ad20da73bb4a9744d0bebdaa6832be56dc010e21940e72c4c8b1e",
    "4718853ea946af656684509414983beff2e65cf414265c27966161014c003b8b",
)
_FASHION_SUMS = (
    "a8007d7be041707b663947cf4c2d8a73d1704ccde85043273b866d5181bde6c2",
    "3581bf52f521803120533f28e81ae934decd1771980630083c739dc6da7d3bc6",
)
_GREY, _RGB = (1, 28, 28), (3, 32, 32)

PUBLISHED: dict[str, Published] = {
    # torchvision verifies the files of CIFAR and SVHN, but not the unpacked files of the first two sets
    "mnist": Published("MNIST", "MNIST/raw", _IDX, 60000, 10000, _GREY, _DIGITS, checksums=_MNIST_SUMS),
    "fashion_mnist": Published(
        "FashionMNIST", "FashionMNIST/raw", _IDX, 60000, 10000, _GREY, _FASHION, checksums=_FASHION_SUMS
    ),
    "svhn": Published("SVHN", ".", ("train_32x32.mat", "test_32x32.mat"), 73257, 26032, _RGB, _DIGITS),
    "cifar10": Published("CIFAR10", "cifar-10-batches-py", _CIFAR10_FILES, 50000, 10000, _RGB, _CIFAR10),
    "cifar100": Published(
        "CIFAR100", "cifar-100-python", ("train", "test", "meta"), 50000, 10000, _RGB, _FINE, _COARSE
    ),
}

# Data sets that join the first classes of several published ones: {name: {published set: number of classes}}.
# cifar10-100 follows Zenke et al. 2017; no class name occurs in both of its parts.
COMBINED: dict[str, dict[str, int]] = {"cifar10-100": {"cifar10": 10, "cifar100": 50}}


def user_cache() -> Path:
    """The user's own cache folder."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "clkit"


def root() -> Path:
    """The folder that holds the data sets: $CLKIT_DATA if it is set, else the user's cache folder."""
    return Path(os.environ.get("CLKIT_DATA") or user_cache()).expanduser()


def missing(name: str) -> list[Path]:
    """The missing files of a published set."""
    folder = root() / PUBLISHED[name].folder
    return [folder / file for file in PUBLISHED[name].files if not (folder / file).is_file()]


def subfolders(folder: Path) -> list[str]:
    """Sorted names of the folders in a folder, without hidden ones; empty if it does not exist."""
    if not folder.is_dir():
        return []
    with os.scandir(folder) as entries:
        return sorted(entry.name for entry in entries if entry.is_dir() and not entry.name.startswith("."))


def folder_names() -> list[str]:
    """Names of the folders below the root that hold class folders, or that cannot be read.

    Published sets that are stored as class folders are among them.
    """
    names = [name for name in subfolders(root()) if name not in EMBEDDED and name not in COMBINED]
    return [name for name in names if _may_hold_classes(root() / name)]


def _may_hold_classes(path: Path) -> bool:
    try:
        return bool(subfolders(path / "train"))
    except OSError:
        return True


def check_name(name: str) -> None:
    """Raise DataError with the most similar names if there is no data set `name`."""
    if not isinstance(name, str):
        raise DataError(f"a data set's name must be a string such as 'digits' or 'folder:PATH', not {name!r}")
    if "+" in name:
        for part in name.split("+"):
            check_name(part)
        return
    fixed = [*EMBEDDED, *PUBLISHED, *COMBINED]
    if name in fixed:  # even if the root cannot be read
        return
    names = [*fixed, *(n for n in folder_names() if n not in PUBLISHED)]
    if name in names or (re.fullmatch(r"[\w][\w.-]*", name) and (root() / name).is_dir()):
        return
    hint = did_you_mean(name.lower(), names) or f"; the known names are {', '.join(names)}"
    how = f"for class folders write folder:PATH, or NAME if they are in {root()}/NAME"
    raise DataError(f"there is no data set {name!r}; {how}{hint}")


def folder_of(name: str) -> Path:
    """The folder in folder:PATH. DataError if PATH is empty, which would mean the current folder."""
    text = name.removeprefix(FOLDER)
    if not text.strip():
        how = "write folder:PATH, such as folder:my-images, or folder:. for the current folder"
        raise DataError(f"{name!r} names no folder: {how}")
    return Path(text).expanduser()


def present(name: str) -> bool:
    """Whether a named set, or folder:PATH, can be loaded, as far as the names of its files tell.

    Nothing is opened, so `load` may still find a damaged file. False for an unknown name and for a folder
    that cannot be read.
    """
    try:
        if name in EMBEDDED:
            return True
        if "+" in name and not name.startswith(FOLDER):
            return all(present(part) for part in name.split("+"))
        if name in COMBINED:
            return all(_whole(part) for part in COMBINED[name])
        if name in PUBLISHED and not missing(name):
            return True
        if name.startswith(FOLDER):
            return _class_folders(folder_of(name))
        return name in subfolders(root()) and _class_folders(root() / name)
    except (OSError, DataError):
        return False


def _whole(name: str) -> bool:
    """Whether a published set is present with all its classes, as files or as class folders."""
    return not missing(name) or len(subfolders(root() / name / "train")) == len(PUBLISHED[name].names)


def _class_folders(path: Path) -> bool:
    train, test = (len(subfolders(path / part)) for part in ("train", "test"))
    return min(train, test) >= 2 or (not train and not test and len(subfolders(path)) >= 2)
