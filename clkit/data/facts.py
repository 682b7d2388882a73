"""What is known of each named set before anything is read: its files, its shape, its classes, where it lies.

No torch here, and no image is opened: `present` answers in milliseconds, for lists and for the command line.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from clkit.errors import ClkitError, did_you_mean

EMBEDDED = ("digits", "digits28", "shapes")
FOLDER = "folder:"  # what a name begins with that is a path to class folders


class DataError(ClkitError):
    """A data set is absent, broken or misnamed; the message is one sentence that says what to do."""


def reason(error: BaseException) -> str:
    """An exception as part of a sentence: its first line, or its type where it says nothing."""
    text = str(error).strip().splitlines()
    return text[0].rstrip(".") if text else type(error).__name__


@dataclass(frozen=True)
class Published:
    """A set that torchvision knows.

    kind: torchvision's class; folder, files: what it reads, under the root; train, test: how many images;
    shape: (C, H, W); names, groups: of the classes, groups may be None; checksums: ImageSet.checksum() of
    train and test, or None where torchvision compares the files with checksums of its own.
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
_COARSE = (
    "aquatic_mammals fish flowers food_containers fruit_and_vegetables household_electrical_devices "
    "household_furniture insects large_carnivores large_man-made_outdoor_things "
    "large_natural_outdoor_scenes large_omnivores_and_herbivores medium_mammals "
    "non-insect_invertebrates people reptiles small_mammals trees vehicles_1 vehicles_2"
).split()
_COARSE_OF_FINE = (  # torchvision reads CIFAR-100's fine labels only
    4,
    1,
    14,
    8,
    0,
    6,
    7,
    7,
    18,
    3,
    3,
    14,
    9,
    18,
    7,
    11,
    3,
    9,
    7,
    11,
    6,
    11,
    5,
    10,
    7,
    6,
    13,
    15,
    3,
    15,
    0,
    11,
    1,
    10,
    12,
    14,
    16,
    9,
    11,
    5,
    5,
    19,
    8,
    8,
    15,
    13,
    14,
    17,
    18,
    10,
    16,
    4,
    17,
    4,
    2,
    0,
    17,
    4,
    18,
    17,
    10,
    3,
    2,
    12,
    12,
    16,
    12,
    1,
    9,
    19,
    2,
    10,
    0,
    1,
    16,
    12,
    9,
    13,
    15,
    13,
    16,
    19,
    2,
    4,
    6,
    19,
    5,
    5,
    8,
    19,
    18,
    1,
    2,
    15,
    6,
    0,
    17,
    8,
    14,
    13,
)
_CIFAR100 = (
    "apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly camel "
    "can castle caterpillar cattle chair chimpanzee clock cloud cockroach couch crab crocodile cup dinosaur "
    "dolphin elephant flatfish forest fox girl hamster house kangaroo keyboard lamp lawn_mower leopard lion "
    "lizard lobster man maple_tree motorcycle mountain mouse mushroom oak_tree orange orchid otter "
    "palm_tree pear pickup_truck pine_tree plain plate poppy porcupine possum rabbit raccoon ray road "
    "rocket rose sea seal shark shrew skunk skyscraper snail snake spider squirrel streetcar sunflower "
    "sweet_pepper table tank telephone television tiger tractor train trout tulip turtle wardrobe whale "
    "willow_tree wolf woman worm"
).split()

PUBLISHED: dict[str, Published] = {
    # torchvision checks CIFAR's and SVHN's files against their checksums, but not the unpacked files of the
    # first two
    "mnist": Published(
        "MNIST",
        "MNIST/raw",
        _IDX,
        60000,
        10000,
        (1, 28, 28),
        tuple("0123456789"),
        checksums=(
            "71d3be42f93ad20da73bb4a9744d0bebdaa6832be56dc010e21940e72c4c8b1e",
            "4718853ea946af656684509414983beff2e65cf414265c27966161014c003b8b",
        ),
    ),
    "fashion_mnist": Published(
        "FashionMNIST",
        "FashionMNIST/raw",
        _IDX,
        60000,
        10000,
        (1, 28, 28),
        (
            "T-shirt/top",
            "Trouser",
            "Pullover",
            "Dress",
            "Coat",
            "Sandal",
            "Shirt",
            "Sneaker",
            "Bag",
            "Ankle boot",
        ),
        checksums=(
            "a8007d7be041707b663947cf4c2d8a73d1704ccde85043273b866d5181bde6c2",
            "3581bf52f521803120533f28e81ae934decd1771980630083c739dc6da7d3bc6",
        ),
    ),
    "svhn": Published(
        "SVHN", ".", ("train_32x32.mat", "test_32x32.mat"), 73257, 26032, (3, 32, 32), tuple("0123456789")
    ),
    "cifar10": Published(
        "CIFAR10",
        "cifar-10-batches-py",
        (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch", "batches.meta"),
        50000,
        10000,
        (3, 32, 32),
        ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"),
    ),
    "cifar100": Published(
        "CIFAR100",
        "cifar-100-python",
        ("train", "test", "meta"),
        50000,
        10000,
        (3, 32, 32),
        tuple(_CIFAR100),
        tuple(_COARSE[k] for k in _COARSE_OF_FINE),
    ),
}

# A set made of the first so many classes of published ones, one after another. cifar10-100 is that of Zenke
# et al. 2017; no name of a class occurs in both of its sets.
COMBINED: dict[str, dict[str, int]] = {"cifar10-100": {"cifar10": 10, "cifar100": 50}}


def user_cache() -> Path:
    """The user's own cache folder."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "clkit"


def root() -> Path:
    """The folder that holds the data sets: $CLKIT_DATA where it is set, else a cache folder of the user's."""
    return Path(os.environ.get("CLKIT_DATA") or user_cache()).expanduser()


def missing(name: str) -> list[Path]:
    """The files of a published set that are not there."""
    folder = root() / PUBLISHED[name].folder
    return [folder / file for file in PUBLISHED[name].files if not (folder / file).is_file()]


def subfolders(folder: Path) -> list[str]:
    """Names of the folders in a folder, sorted, hidden ones left out; none where it does not exist."""
    if not folder.is_dir():
        return []
    with os.scandir(folder) as entries:
        return sorted(entry.name for entry in entries if entry.is_dir() and not entry.name.startswith("."))


def folder_names() -> list[str]:
    """Names of the sets that lie under the root as class folders, under the name of a published set too.

    A folder that may not be entered is among them: loading it says so.
    """
    return [
        name
        for name in subfolders(root())
        if name not in EMBEDDED and name not in COMBINED and _may_hold_classes(root() / name)
    ]


def _may_hold_classes(path: Path) -> bool:
    try:
        return bool(subfolders(path / "train"))
    except OSError:
        return True


def check_name(name: str) -> None:
    """Pass where `name` is a set that can be named; DataError with the nearest names where it is not."""
    if not isinstance(name, str):
        raise DataError(f"a data set is named by a text such as 'digits' or 'folder:PATH', not {name!r}")
    fixed = [*EMBEDDED, *PUBLISHED, *COMBINED]
    if name in fixed:  # whatever the root is like
        return
    names = [*fixed, *(n for n in folder_names() if n not in PUBLISHED)]
    if name in names or (re.fullmatch(r"[\w][\w.-]*", name) and (root() / name).is_dir()):
        return
    hint = did_you_mean(name.lower(), names) or f"; known are {', '.join(names)}"
    raise DataError(
        f"there is no data set {name!r}; class folders are named folder:PATH, or NAME when they "
        f"lie in {root()}/NAME{hint}"
    )


def present(name: str) -> bool:
    """Whether a named set, or folder:PATH, is there to be loaded, as far as the names of its files tell.

    Nothing is opened, so `load` may still find a broken file. False for a name that does not exist and for a
    folder that may not be entered.
    """
    try:
        if name in EMBEDDED:
            return True
        if name in COMBINED:
            return all(_whole(part) for part in COMBINED[name])
        if name in PUBLISHED and not missing(name):
            return True
        if name.startswith(FOLDER):
            return _class_folders(Path(name[len(FOLDER) :]).expanduser())
        return name in subfolders(root()) and _class_folders(root() / name)
    except OSError:
        return False


def _whole(name: str) -> bool:
    """Whether a published set is there with all its classes, as files or as class folders."""
    return not missing(name) or len(subfolders(root() / name / "train")) == len(PUBLISHED[name].names)


def _class_folders(path: Path) -> bool:
    train, test = (len(subfolders(path / part)) for part in ("train", "test"))
    return min(train, test) >= 2 or (not train and not test and len(subfolders(path)) >= 2)
