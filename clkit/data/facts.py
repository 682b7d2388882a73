"""What is known about each named data set before it is read: its files, shape, classes and place.

This file needs no torch and opens no image.
"""

import contextlib
import math
import numbers
import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from clkit.errors import ClkitError

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
    """Whether an option is a whole number in this range, numpy's too; True and 2.0 are not."""
    return isinstance(value, numbers.Integral) and not isinstance(value, bool) and least <= value <= most


def is_number(value: object) -> bool:
    """Whether an option is a real number, numpy's too; True is not."""
    return isinstance(value, numbers.Real) and not isinstance(value, bool)


def check_memory(what: str, size: int, cure: str) -> None:
    """Raise DataError if `size` bytes are more than this machine, or its container, has."""
    limits = []
    if hasattr(os, "sysconf"):
        limits.append(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    for file in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        with contextlib.suppress(OSError, ValueError):  # no such limit
            limits.append(int(Path(file).read_text()))
    if size > min(limits, default=math.inf):
        has = f"{min(limits) / 1e9:,.1f} GB"
        raise DataError(f"{what} would take {size / 1e9:,.1f} GB of memory, but there are {has}: {cure}")


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
    """The user's own cache folder; below the system's temporary folder for a user without a home."""
    base = os.path.expanduser(os.environ.get("XDG_CACHE_HOME") or "~/.cache")
    return Path(tempfile.gettempdir() if base.startswith("~") else base) / "clkit"


def root() -> Path:
    """The folder that holds the data sets: $CLKIT_DATA if it is set, else the user's cache folder."""
    return Path(os.path.expanduser(os.environ.get("CLKIT_DATA", "").strip() or user_cache()))


def missing(name: str) -> list[Path]:
    """The missing files of a published set."""
    folder = root() / PUBLISHED[name].folder
    return [folder / file for file in PUBLISHED[name].files if not os.path.isfile(folder / file)]
