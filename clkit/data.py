"""Image sets: what they are, where they come from, and what is said when they cannot be had.

An ImageSet is one uint8 tensor of images and one int64 tensor of labels on one device; a batch is an index
into them. `load(name)` gives a training and a test set:

    digits, digits28    1,797 real handwritten digits that come with scikit-learn (8x8; enlarged to 28x28)
    shapes              drawn by code, 32x32 RGB, 20 families of 5 look-alike classes (shapes.py)
    mnist, fashion_mnist, svhn, cifar10, cifar100
                        the published files, in torchvision's layout, under `root()`
    cifar10-100         CIFAR-10 and behind it the first 50 classes of CIFAR-100, made of these two sets
    NAME                class folders root()/NAME/{train,test}/<class>/*  (also for the five names above)
    folder:PATH         class folders PATH/{train,test}/<class>/*, or PATH/<class>/* alone, then split 80/20

Nothing is downloaded except by `get`. Every bad input is a DataError: one sentence with the fault and its
cure.
"""

import csv
import dataclasses
import difflib
import gzip
import hashlib
import importlib.util
import inspect
import itertools
import json
import os
import re
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from tqdm import tqdm

from clkit import shapes


class DataError(ValueError):
    """A data set is absent, broken or misnamed; the message is one sentence that says what to do."""


# ------------------------------------------------------------------------------------------------- image sets


class ImageSet:
    """Images and labels on one device.

    images: uint8 (N, C, H, W); labels: int64 (N,), values below len(names); names: the classes' display
    names; groups: the superclass of each class, or None; name: the data set's name; single_pass: the images
    may be gone through once only, as in online learning; ordered: they come in the order they are in, and
    `batches` never shuffles them. `drawn` counts the images that `batches` has given out so far.
    """

    def __init__(self, images, labels, names, groups=None, name="", single_pass=False, ordered=False):
        if images.dtype != torch.uint8 or images.dim() != 4:
            raise DataError(f"images must be uint8 of shape (N, C, H, W), not {images.dtype} "
                            f"{tuple(images.shape)}")
        if labels.dtype != torch.int64 or labels.shape != images.shape[:1]:
            raise DataError(f"labels must be int64 of shape ({len(images)},) to match the images, "
                            f"not {labels.dtype} {tuple(labels.shape)}")
        if groups is not None and len(groups) != len(names):
            raise DataError(f"groups must name one superclass per class: {len(groups)} groups, {len(names)} "
                            "classes")
        self.images, self.labels = images, labels
        self.names = tuple(names)
        self.groups = None if groups is None else tuple(groups)
        self.name, self.single_pass, self.ordered = name, single_pass, ordered
        self.drawn = 0
        self._checksum = self._origin = None
        self._spent = False

    def __len__(self):
        return len(self.images)

    def __repr__(self):
        size = f"{len(self):,} images {self.shape}, {self.classes} classes"
        return f"ImageSet({self.name!r}: {size}, {self.device})"

    @property
    def shape(self):
        """(C, H, W) of one image."""
        return tuple(self.images.shape[1:])

    @property
    def classes(self):
        """How many classes there are names for."""
        return len(self.names)

    @property
    def device(self):
        return self.images.device

    def _with(self, images, labels):
        return ImageSet(images, labels, self.names, self.groups, self.name, self.single_pass, self.ordered)

    def like(self, images, labels):
        """A set of other images of the same classes, for a method that keeps what it has seen.

        What is drawn from it counts as drawn from this one too.
        """
        made = ImageSet(images, labels, self.names, self.groups, self.name)
        made._origin = self
        return made

    def to(self, device):
        """The same set on another device; nothing is copied where it is there already."""
        moved = self._with(self.images.to(device), self.labels.to(device))
        moved._checksum = self._checksum
        return moved

    def select(self, index):
        """The images at `index` (int64 or bool tensor, list or slice), copied unless it is a slice."""
        if not isinstance(index, slice):
            index = torch.as_tensor(index, device=self.device)
            index = index.nonzero().flatten() if index.dtype == torch.bool else index.long()
            return self._with(self.images.index_select(0, index), self.labels.index_select(0, index))
        return self._with(self.images[index], self.labels[index])

    def checksum(self):
        """sha256 (hex) of the shape, the images and the labels; computed once."""
        if self._checksum is None:
            digest = hashlib.sha256(repr(tuple(self.images.shape)).encode())
            for tensor in (self.images, self.labels):
                digest.update(tensor.cpu().contiguous().numpy())
            self._checksum = digest.hexdigest()
        return self._checksum

    def batches(self, size, *, shuffle=True, drop_last=False, augment=None, generator=None):
        """Batches of `size` images, to be iterated over as often as wanted (once only for a single-pass set).

        Each iteration yields x float32 (B, C, H, W) in [0, 1] and y int64 (B,). With shuffle, every iteration
        makes one random permutation on the images' device, from torch's global random state or from
        `generator`, unless the set is ordered. augment: a function of x with a result of the same shape, such
        as crop_and_flip(). The last batch is the smaller rest unless drop_last. DataError where that would
        leave no batch at all.
        """
        if isinstance(size, bool) or not isinstance(size, int) or size < 1:
            raise DataError(f"a batch size is a positive whole number, not {size!r}")
        if drop_last and len(self) < size:
            raise DataError(f"drop_last with batches of {size} would leave out all {len(self)} images: "
                            f"use a smaller batch size or drop_last=False")
        return Batches(self, size, shuffle and not self.ordered, drop_last, augment, generator)


class Batches:
    """What `ImageSet.batches` returns: len() batches per iteration."""

    def __init__(self, images, size, shuffle, drop_last, augment, generator):
        self.source, self.size, self.shuffle, self.drop_last = images, size, shuffle, drop_last
        self.augment, self.generator = augment, generator

    def __len__(self):
        full, rest = divmod(len(self.source), self.size)
        return full + (rest > 0 and not self.drop_last)

    def __iter__(self):
        self._begin()
        return self._run(self._permutation() if self.shuffle else None)

    def places(self):
        """The same pass as places of the images, int64 (B,) a batch, for who keeps more beside each image.

        `augment` has no part in it; what is given out counts as drawn.
        """
        source = self._begin()
        order = self._permutation() if self.shuffle else torch.arange(len(source), device=source.device)
        for index in order[:len(self) * self.size].split(self.size):
            self._count(len(index))
            yield index

    def _begin(self):
        """The source, which a single pass uses up."""
        source = self.source
        if source.single_pass and source._spent:
            raise RuntimeError("this set can be gone through once only (single_pass=True), and that has "
                               "been done: keep what is needed from the first pass, or build the stream "
                               "with single_pass=False")
        source._spent = True
        return source

    def _count(self, images):
        self.source.drawn += images
        if self.source._origin is not None:
            self.source._origin.drawn += images

    def _permutation(self):
        device = self.source.device if self.generator is None else self.generator.device
        order = torch.randperm(len(self.source), generator=self.generator, device=device)
        return order.to(self.source.device)

    def _run(self, order):
        source, size = self.source, self.size
        for start in range(0, len(self) * size, size):
            if order is None:
                x, y = source.images[start:start + size], source.labels[start:start + size].clone()
            else:
                index = order[start:start + size]  # (B,)
                x, y = source.images.index_select(0, index), source.labels.index_select(0, index)
            x = x.float().div_(255)  # (B, C, H, W); times 1/255 would differ from ToTensor in the last bit
            self._count(len(y))
            yield (x if self.augment is None else self.augment(x)), y


def crop_and_flip(pad=4, flip=True):
    """An augmentation: each image moves up to `pad` pixels each way, zeros coming in, and half are mirrored.

    Returns a function of x float (B, C, H, W) with a result of the same shape. Each image has its own draw,
    from torch's global random state on x's device: row offsets, column offsets, then mirrorings, B of each.
    """
    if isinstance(pad, bool) or not isinstance(pad, int) or pad < 0:
        raise DataError(f"pad is how many pixels an image may move, a whole number from 0 on, not {pad!r}")

    def augment(x):
        B, C, H, W = x.shape
        rows = torch.randint(0, 2 * pad + 1, (B, 1), device=x.device)
        rows = rows + torch.arange(H, device=x.device)  # (B, H)
        columns = torch.randint(0, 2 * pad + 1, (B, 1), device=x.device)
        across = torch.arange(W, device=x.device)
        if flip:
            mirrored = torch.randint(0, 2, (B, 1), device=x.device)
            across = across + mirrored * (W - 1 - 2 * across)
        columns = columns + across  # (B, W)
        wide = torch.nn.functional.pad(x, (pad, pad, pad, pad))  # (B, C, H + 2 pad, W + 2 pad)
        place = rows[:, :, None] * (W + 2 * pad) + columns[:, None, :]  # (B, H, W)
        place = place.reshape(B, 1, H * W).expand(B, C, H * W)
        return wide.flatten(2).gather(2, place).view(B, C, H, W)

    return augment


def stratified_split(labels, share, seed):
    """Indices (first, second), both ascending int64, with about `share` of each class in the second.

    labels: int64 (N,). Of a class with n images max(1, round(share * n)) go to the second. Drawn by a
    generator of its own on the CPU, so that neither the device nor the global random state matters.
    """
    generator = torch.Generator(device="cpu").manual_seed(seed)
    labels = labels.cpu()
    second = torch.zeros(len(labels), dtype=torch.bool, device="cpu")
    for label in labels.unique():
        members = (labels == label).nonzero().flatten()
        count = max(1, int(share * len(members) + 0.5))
        second[members[torch.randperm(len(members), generator=generator, device="cpu")[:count]]] = True
    return (~second).nonzero().flatten(), second.nonzero().flatten()


# ---------------------------------------------------------------------------------------------- embedded sets

_SPLIT_SEED = 0  # digits and unsplit folders are always divided in the same way


def _digits():
    """The digits as scikit-learn ships them: images int64 (1797, 8, 8) in 0..16, labels int64 (1797,)."""
    found = importlib.util.find_spec("sklearn")
    if found is None:
        raise DataError("the digits come with scikit-learn, which is not installed: pip install scikit-learn")
    table = Path(found.origin).parent / "datasets" / "data" / "digits.csv.gz"
    if table.is_file():  # importing scikit-learn takes a second and 100 MB; its file takes neither
        with gzip.open(table, "rt") as lines:
            rows = np.loadtxt(lines, delimiter=",", dtype=np.int64)
        return rows[:, :64].reshape(-1, 8, 8), rows[:, 64]
    from sklearn.datasets import load_digits
    digits = load_digits()
    return digits.images.astype(np.int64), digits.target.astype(np.int64)


def _load_digits():
    images, labels = _digits()
    return _split_digits("digits", (images * 255 + 8) // 16, labels)


def _load_digits28():
    """The digits enlarged to 20x20 by cubic interpolation, in a margin of 4 pixels, as in MNIST."""
    images, labels = _digits()
    weights = _enlarge(8, 20)  # whole numbers, so that the bytes are the same on every machine
    large = weights @ images @ weights.T  # (N, 20, 20), 2000 * 2000 times too large
    large = (large * 255 + 8 * 2000 * 2000) // (16 * 2000 * 2000)
    return _split_digits("digits28", np.pad(large.clip(0, 255), ((0, 0), (4, 4), (4, 4))), labels)


def _enlarge(small, large):
    """Cubic interpolation (Keys, a = -1/2) from 8 to 20 points: a whole-number matrix (20, 8), times 2000."""
    # distances in tenths of a pixel, which are whole because the scale is 20 / 8
    tenths = np.abs(4 * np.arange(large)[:, None] - 3 - 10 * np.arange(-2, small + 2))
    near = 3 * tenths ** 3 - 50 * tenths ** 2 + 2000
    far = -tenths ** 3 + 50 * tenths ** 2 - 800 * tenths + 4000
    weights = np.where(tenths <= 10, near, np.where(tenths < 20, far, 0))
    weights[:, 2] += weights[:, :2].sum(1)  # beyond the border the outermost pixel is repeated
    weights[:, -3] += weights[:, -2:].sum(1)
    return weights[:, 2:-2]


def _split_digits(name, images, labels):
    images = torch.from_numpy(images.astype(np.uint8)).unsqueeze(1)
    whole = ImageSet(images, torch.from_numpy(labels.astype(np.int64)), "0123456789", name=name)
    return tuple(whole.select(index) for index in stratified_split(whole.labels, 0.2, _SPLIT_SEED))


def _load_shapes(**options):
    try:
        drawn = shapes.draw(**options)
    except ValueError as error:
        raise DataError(f"shapes: {error}") from None
    return tuple(ImageSet(*map(torch.from_numpy, part), drawn.names, drawn.groups, "shapes")
                 for part in (drawn.train, drawn.test))


# --------------------------------------------------------------------------------------------- published sets


@dataclasses.dataclass(frozen=True)
class _Published:
    """A set that torchvision knows. files: what it reads in folder; checksums: ImageSet's, train and test."""

    kind: str
    folder: str
    files: tuple
    train: int
    test: int
    shape: tuple
    names: tuple
    groups: tuple | None = None
    checksums: tuple | None = None


_IDX = tuple(f"{part}-{what}-ubyte" for part in ("train", "t10k") for what in ("images-idx3", "labels-idx1"))
_COARSE = ("aquatic_mammals fish flowers food_containers fruit_and_vegetables household_electrical_devices "
           "household_furniture insects large_carnivores large_man-made_outdoor_things "
           "large_natural_outdoor_scenes large_omnivores_and_herbivores medium_mammals "
           "non-insect_invertebrates people reptiles small_mammals trees vehicles_1 vehicles_2").split()
_COARSE_OF_FINE = (  # torchvision reads CIFAR-100's fine labels only
    4, 1, 14, 8, 0, 6, 7, 7, 18, 3, 3, 14, 9, 18, 7, 11, 3, 9, 7, 11, 6, 11, 5, 10, 7, 6, 13, 15, 3, 15, 0,
    11, 1, 10, 12, 14, 16, 9, 11, 5, 5, 19, 8, 8, 15, 13, 14, 17, 18, 10, 16, 4, 17, 4, 2, 0, 17, 4, 18, 17,
    10, 3, 2, 12, 12, 16, 12, 1, 9, 19, 2, 10, 0, 1, 16, 12, 9, 13, 15, 13, 16, 19, 2, 4, 6, 19, 5, 5, 8,
    19, 18, 1, 2, 15, 6, 0, 17, 8, 14, 13)
_CIFAR100 = (
    "apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly camel "
    "can castle caterpillar cattle chair chimpanzee clock cloud cockroach couch crab crocodile cup dinosaur "
    "dolphin elephant flatfish forest fox girl hamster house kangaroo keyboard lamp lawn_mower leopard lion "
    "lizard lobster man maple_tree motorcycle mountain mouse mushroom oak_tree orange orchid otter "
    "palm_tree pear pickup_truck pine_tree plain plate poppy porcupine possum rabbit raccoon ray road "
    "rocket rose sea seal shark shrew skunk skyscraper snail snake spider squirrel streetcar sunflower "
    "sweet_pepper table tank telephone television tiger tractor train trout tulip turtle wardrobe whale "
    "willow_tree wolf woman worm").split()

_PUBLISHED = {
    # torchvision checks CIFAR's and SVHN's files against their checksums, but not the unpacked files of the
    # first two
    "mnist": _Published("MNIST", "MNIST/raw", _IDX, 60000, 10000, (1, 28, 28), tuple("0123456789"),
                        checksums=("71d3be42f93ad20da73bb4a9744d0bebdaa6832be56dc010e21940e72c4c8b1e",
                                   "4718853ea946af656684509414983beff2e65cf414265c27966161014c003b8b")),
    "fashion_mnist": _Published(
        "FashionMNIST", "FashionMNIST/raw", _IDX, 60000, 10000, (1, 28, 28),
        ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag",
         "Ankle boot"),
        checksums=("a8007d7be041707b663947cf4c2d8a73d1704ccde85043273b866d5181bde6c2",
                   "3581bf52f521803120533f28e81ae934decd1771980630083c739dc6da7d3bc6")),
    "svhn": _Published("SVHN", ".", ("train_32x32.mat", "test_32x32.mat"), 73257, 26032, (3, 32, 32),
                       tuple("0123456789")),
    "cifar10": _Published(
        "CIFAR10", "cifar-10-batches-py",
        (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch", "batches.meta"),
        50000, 10000, (3, 32, 32),
        ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")),
    "cifar100": _Published("CIFAR100", "cifar-100-python", ("train", "test", "meta"), 50000, 10000,
                           (3, 32, 32), tuple(_CIFAR100), tuple(_COARSE[k] for k in _COARSE_OF_FINE)),
}

# A set made of the first so many classes of published ones, one after another. cifar10-100 is that of Zenke
# et al. 2017; no name of a class occurs in both of its sets.
_COMBINED = {"cifar10-100": {"cifar10": 10, "cifar100": 50}}


def torchvision():
    """The torchvision module, imported when first needed; DataError where it cannot be.

    A torchvision built for a GPU fails at import beside a CPU-only torch, because the import touches two
    operators of the extension it could not load. Then, and only then, the two are declared by name and the
    import repeated: the data sets use neither.
    """
    try:
        import torchvision as module
        return module
    except ImportError as error:
        raise DataError(f"torchvision cannot be imported ({_reason(error)}): pip "
                        "install torchvision") from error
    except RuntimeError as error:
        if not re.search(r"operator torchvision::q?nms does not exist", str(error)):
            raise DataError(f"torchvision cannot be imported ({_reason(error)}): install the version that "
                            f"belongs to torch {torch.__version__}") from error
    for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
        del sys.modules[name]  # a failed import leaves its submodules behind, half made
    library = torch.library.Library("torchvision", "DEF")
    for operator in ("nms", "qnms"):
        library.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    _OPERATORS.append(library)
    import torchvision as module
    return module


_OPERATORS = []  # a Library takes its declarations back when it is collected


def _reason(error):
    """An exception as part of a sentence: its first line, or its type where it says nothing."""
    text = str(error).strip().splitlines()
    return text[0].rstrip(".") if text else type(error).__name__


def _missing(name):
    """The files of a published set that are not there, as paths."""
    published = _PUBLISHED[name]
    return [root() / published.folder / file for file in published.files
            if not (root() / published.folder / file).is_file()]


def _load_published(name, side=None):
    published, missing = _PUBLISHED[name], _missing(name)
    if not missing:
        if side is not None:
            raise DataError(f"side= is for class folders: {name} has "
                            f"{published.shape[1]}x{published.shape[2]} pixels")
        return tuple(_read_published(name, train) for train in (True, False))
    if (root() / name).is_dir():
        return _load_folder(root() / name, name, side)
    if len(missing) < len(published.files):
        raise DataError(f"{name} is incomplete, {missing[0]} is missing: fetch it with "
                        f"`python -m clkit data get {name}`")
    raise DataError(f"{name} is not here: neither {missing[0]} nor the class folders {root() / name}/train "
                    f"and test exist; fetch it with `python -m clkit data get {name}`, or point CLKIT_DATA "
                    "at where it is")


def _read_published(name, train):
    published = _PUBLISHED[name]
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
        raise DataError(f"{name}: the files in {where} are truncated or corrupt "
                        f"({_reason(error)}): {cure}") from error
    expected = (published.train, published.test)[not train]
    if len(loaded) != expected:
        raise DataError(f"{name}: the files in {where} hold {len(loaded):,} "
                        f"{'training' if train else 'test'} images where {expected:,} belong: {cure}")
    if published.checksums and loaded.checksum() != published.checksums[not train]:
        raise DataError(f"{name}: the {'training' if train else 'test'} files in {where} are corrupt (their "
                        f"checksum is not that of the published set): {cure}")
    return loaded


def _open_published(published, train, download=False):
    kind = getattr(torchvision().datasets, published.kind)
    split = {"split": "train" if train else "test"} if published.kind == "SVHN" else {"train": train}
    return kind(str(root()), download=download, **split)


def _load_combined(name):
    """The parts one after another: the labels of each begin where those of the part before it end."""
    absent = [part for part in _COMBINED[name]
              if len(_missing(part)) == len(_PUBLISHED[part].files) and not (root() / part).is_dir()]
    if absent:
        raise DataError(f"{name} is made of {' and '.join(_COMBINED[name])}, but {' and '.join(absent)} "
                        f"cannot be found in {root()}: fetch what is missing with `python -m clkit data get "
                        f"{name if absent[1:] else absent[0]}`, or point CLKIT_DATA at where both are")
    parts = [_first_classes(name, part, count) for part, count in _COMBINED[name].items()]
    return tuple(_joined(name, sets) for sets in zip(*parts))


def _first_classes(name, part, count):
    """(train, test) of the first classes of a published set; class folders must hold it as published."""
    published, sets = _PUBLISHED[part], _load_published(part)
    if (sets[0].names, sets[0].shape) != (published.names, published.shape):
        raise DataError(f"{name} cannot be made of the class folders {root() / part}: they must be the "
                        f"{len(published.names)} classes of {part} by name ({published.names[0]} to "
                        f"{published.names[-1]}), with RGB images of {published.shape[1]}x"
                        f"{published.shape[2]} pixels")
    chosen = [loaded.select(loaded.labels < count) for loaded in sets]
    return tuple(ImageSet(loaded.images, loaded.labels, published.names[:count]) for loaded in chosen)


def _joined(name, sets):
    starts = itertools.accumulate((loaded.classes for loaded in sets), initial=0)
    labels = torch.cat([loaded.labels + start for loaded, start in zip(sets, starts)])
    names = itertools.chain.from_iterable(loaded.names for loaded in sets)
    return ImageSet(torch.cat([loaded.images for loaded in sets]), labels, names, name=name)


def get(name):
    """Download a published set into `root()` through torchvision, check it by reading, return its folder.

    Of a set that is made of others these are fetched, and the root is returned.
    """
    if name in _COMBINED:
        for part in _COMBINED[name]:
            get(part)
        return root()
    if name not in _PUBLISHED:
        _known(name)
        raise DataError(f"{name} needs no download" if name in _EMBEDDED else
                        f"{name} cannot be downloaded here: {_FOLDERS_WANTED.format(where=root() / name)}")
    published = _PUBLISHED[name]
    root().mkdir(parents=True, exist_ok=True)
    for train in (True, False):
        try:
            _open_published(published, train, download=True)
        except (DataError, MemoryError):
            raise
        except Exception as error:  # network, disk and archive errors of several libraries
            raise DataError(f"{name} could not be downloaded into {root()} ({_reason(error)}): check the "
                            "network and the free space, or put the files there by hand") from error
    for train in (True, False):
        _read_published(name, train)
    return root() / published.folder


# ---------------------------------------------------------------------------------------------- class folders

_FOLDERS_WANTED = "put its images into {where}/train/<class>/ and {where}/test/<class>/"


@dataclasses.dataclass
class _Folder:
    """A folder of class folders. files: for train and test, [(class index, path, size, mtime_ns), ...]."""

    path: Path
    classes: list
    files: tuple
    names: tuple
    groups: tuple | None

    def fingerprint(self, side):
        """sha256 of everything that the decoded images depend on, save the bytes of the files themselves."""
        start = len(str(self.path))
        listing = [[(k, path[start:], size, mtime) for k, path, size, mtime in files] for files in self.files]
        return hashlib.sha256(json.dumps([_CACHE_FORMAT, side, listing]).encode()).hexdigest()


def _walk(folder):
    """[(path, size, mtime_ns), ...] of the files under a folder, sorted, hidden ones left out."""
    found = []
    with os.scandir(folder) as entries:
        for entry in sorted(entries, key=lambda entry: entry.name):
            if entry.name.startswith("."):
                continue
            if entry.is_dir():
                found += _walk(entry.path)
            else:
                found.append((entry.path, *_state(entry)))
    return found


def _state(entry):
    """(size, mtime_ns) of a directory entry."""
    try:
        state = entry.stat()
    except OSError as error:  # a link that leads nowhere
        raise DataError(f"{entry.path} cannot be read ({error.strerror}): remove or replace it") from error
    return state.st_size, state.st_mtime_ns


def _subfolders(folder):
    if not folder.is_dir():
        return []
    with os.scandir(folder) as entries:
        return sorted(entry.name for entry in entries if entry.is_dir() and not entry.name.startswith("."))


def _classes(folder):
    """{class name: its files} of a folder of class folders."""
    names = _subfolders(folder)
    if len(names) < 2:
        raise DataError(f"{folder} holds {len(names) or 'no'} class folder{'s' * (len(names) != 1)} where "
                        "two or more are needed: give every class a folder of images there")
    found = {name: _walk(folder / name) for name in names}
    for name, files in found.items():
        if not files:
            raise DataError(f"the class folder {folder / name} is empty: put images there or remove it")
    return found


def _scan(path):
    """A _Folder; DataError where the layout is not one of the two documented."""
    if not path.is_dir():
        raise DataError(f"there is no folder {path}: {_FOLDERS_WANTED.format(where=path)}")
    parts = [part for part in ("train", "test") if _subfolders(path / part)]
    if len(parts) == 1:
        have, lack = parts[0], {"train": "test", "test": "train"}[parts[0]]
        raise DataError(f"{path} has class folders in {have}/ but none in {lack}/: add {lack}/<class>/ for "
                        f"the same classes, or name {path / have} itself to have it split into 80 % training "
                        "and 20 % test")
    if parts:
        train, test = _classes(path / "train"), _classes(path / "test")
        for name in train.keys() ^ test.keys():
            have, lack = ("train", "test") if name in train else ("test", "train")
            raise DataError(f"the class {name!r} is in {path / have} but not in {path / lack}: both need the "
                            f"same class folders ({len(train)} and {len(test)} found)")
        parts = [[(k, *file) for k, name in enumerate(train) for file in part[name]]
                 for part in (train, test)]
    else:
        train = _classes(path)
        for name, files in train.items():
            if len(files) < 2:
                raise DataError(f"the class folder {path / name} holds one image, too few to split into "
                                "training and test: add images, or make train/ and test/ folders")
        whole = [(k, *file) for k, name in enumerate(train) for file in train[name]]
        labels = torch.tensor([file[0] for file in whole], device="cpu")
        parts = [[whole[i] for i in index.tolist()] for index in stratified_split(labels, 0.2, _SPLIT_SEED)]
    return _Folder(path, sorted(train), tuple(parts), *_display(path, sorted(train)))


def _display(path, classes):
    """Display names and superclasses from classes.csv beside train/, if there is one.

    Its header names the columns: `folder` (else fine_name, else name) is the class folder, `name` (else
    fine_name, else folder) what to show, `group` (else coarse_name) the superclass. Other columns are
    ignored.
    """
    table = path / "classes.csv"
    if not table.is_file():
        return tuple(classes), None
    try:
        with table.open(newline="", encoding="utf-8") as lines:
            rows = list(csv.DictReader(lines))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{table} cannot be read ({_reason(error)}): write it as UTF-8 text with commas, or "
                        "remove it") from error

    def column(*names):
        return next((name for name in names if rows and name in rows[0]), None)

    folder = column("folder", "fine_name", "name")
    shown, group = column("name", "fine_name", "folder"), column("group", "coarse_name")
    if folder is None:
        raise DataError(f"{table} has no column called folder, fine_name or name: its first line must name "
                        "the columns")
    by_folder = {row[folder]: row for row in rows}
    for name in classes:
        if name not in by_folder or not by_folder[name][shown] or group and not by_folder[name][group]:
            raise DataError(f"{table} says nothing, or not all, about the class folder {name!r}: add its row "
                            "or remove the file")
    groups = tuple(by_folder[name][group] for name in classes) if group else None
    return tuple(by_folder[name][shown] for name in classes), groups


def _load_folder(path, name, side=None):
    if side is not None and (isinstance(side, bool) or not isinstance(side, int) or side < 1):
        raise DataError("side= is the height and width to bring images to, a positive whole number, not "
                        f"{side!r}")
    folder = _scan(Path(path))
    cache, fingerprint = _cache_path(folder.path, side), folder.fingerprint(side)
    sets = _read_cache(cache, fingerprint, folder, name)
    if sets is None:
        sets = _as_sets(folder, name, _decode(folder, name, side))
        _write_cache(cache, fingerprint, sets)
    return sets


def _as_sets(folder, name, images):
    labels = [np.array([file[0] for file in files], dtype=np.int64) for files in folder.files]
    return tuple(ImageSet(torch.from_numpy(array), torch.from_numpy(label), folder.names, folder.groups, name)
                 for array, label in zip(images, labels))


class _Coloured(Exception):
    """A colour image turned up where all before it were grey."""


def _decode(folder, name, side):
    """The images of both parts: two uint8 arrays (N, C, H, W). C is 1 where every image is grey, else 3."""
    try:
        return _decode_as(folder, name, side, channels=1)
    except _Coloured:
        return _decode_as(folder, name, side, channels=3)


def _decode_as(folder, name, side, channels):
    first = folder.files[0][0][1]
    shape = _decode_file(first, side, channels).shape
    images = [np.empty((len(files), *shape), dtype=np.uint8) for files in folder.files]
    places = [place for array in images for place in array]
    paths = [file[1] for files in folder.files for file in files]

    def decode(start):
        for path, place in zip(paths[start:start + _CHUNK], places[start:start + _CHUNK]):
            image = _decode_file(path, side, channels)
            if image.shape != shape:
                raise DataError(f"images differ in size: {path} is {image.shape[2]}x{image.shape[1]} where "
                                f"{first} is {shape[2]}x{shape[1]}: give side=N to bring all of them to NxN "
                                "pixels")
            place[...] = image
        return len(paths[start:start + _CHUNK])

    workers = min(32, os.cpu_count() or 1)
    with (tqdm(total=len(paths), desc=f"reading {name}", unit=" images", disable=None) as bar,
          ThreadPoolExecutor(workers) as pool):
        try:
            for done in pool.map(decode, range(0, len(paths), _CHUNK)):
                bar.update(done)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return images


_CHUNK = 64


def _decode_file(path, side, channels):
    """One image file as a uint8 array (C, H, W), cut to its middle square and resized if `side` is given."""
    try:
        with Image.open(path) as image:
            if image.mode.startswith(("I", "F")):
                raise DataError(f"{path} has more than 8 bits per channel: convert it to an 8-bit image")
            if channels == 1 and image.mode not in ("1", "L", "LA"):
                raise _Coloured
            image = image.convert("L" if channels == 1 else "RGB")
            if side is not None:
                image = ImageOps.fit(image, (side, side), Image.Resampling.BICUBIC)  # antialiases
            pixels = np.asarray(image)
    except (DataError, _Coloured, MemoryError):
        raise
    except UnidentifiedImageError as error:
        raise DataError(f"{path} is not an image file: remove it from the class folder or "
                        "replace it") from error
    except Exception as error:  # Pillow's decoders raise OSError, SyntaxError, ValueError and more
        raise DataError(f"{path} cannot be read as an image ({_reason(error)}): remove or "
                        "replace it") from error
    return pixels[None] if channels == 1 else pixels.transpose(2, 0, 1)


# ------------------------------------------------------------------------------------ cache of decoded images

# One file: a line of JSON with the fingerprint of the source and the checksums of the two sets, then four
# arrays in numpy's format: training images and labels, test images and labels. It is written under another
# name, flushed to the disk and renamed, and what is read is compared with its checksum, so a file that is
# there is whole or is not used.
_CACHE_FORMAT = 1


def _cache_path(path, side):
    """Where the decoded images of a folder belong: in the root, else (not writable) the user's own cache."""
    home = root()
    if not os.access(home if home.exists() else home.parent, os.W_OK):
        home = _user_cache()
    name = hashlib.sha256(f"{path.resolve()} {side}".encode()).hexdigest()[:16]
    return home / ".clkit-cache" / f"{path.resolve().name}-{name}.images"


def _say(sentence):
    print(sentence, file=sys.stderr)


def _read_cache(cache, fingerprint, folder, name):
    """The sets from the cache, or None where it is absent, stale or damaged (the last two are said)."""
    try:
        with cache.open("rb") as file:
            header = json.loads(file.readline(1000))
            if header["fingerprint"] != fingerprint:
                _say(f"{name}: the files in {folder.path} have changed since they were cached: reading them "
                     "again")
                return None
            arrays = [np.load(file, allow_pickle=False) for _ in range(4)]
        sets = _as_sets(folder, name, arrays[::2])
        if [loaded.checksum() for loaded in sets] != header["checksums"]:
            raise DataError("its checksum does not match")
    except FileNotFoundError:
        return None
    except Exception as error:  # whatever broken bytes make json and numpy raise
        _say(f"{name}: the cache {cache} is damaged ({_reason(error)}): reading the images again")
        return None
    return sets


def _write_cache(cache, fingerprint, sets):
    """Cache the sets; where the disk does not allow it, say so and go on, since the images are in memory."""
    header = {"fingerprint": fingerprint, "checksums": [loaded.checksum() for loaded in sets]}
    temporary = None
    try:
        cache.parent.mkdir(parents=True, exist_ok=True)
        _remove_leftovers(cache)
        temporary = cache.with_name(f"{cache.name}.{os.getpid()}-{os.urandom(4).hex()}.part")
        with temporary.open("xb") as file:
            file.write(json.dumps(header).encode() + b"\n")
            for loaded in sets:
                np.save(file, loaded.images.numpy(), allow_pickle=False)
                np.save(file, loaded.labels.numpy(), allow_pickle=False)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, cache)
    except OSError as error:
        _say(f"{sets[0].name}: the decoded images could not be cached in {cache.parent} ({_reason(error)}), "
             "so the next load will decode them again: make room there, or point CLKIT_DATA at a disk with "
             "room")
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)  # gone already where all went well


def _remove_leftovers(cache):
    """Delete what killed processes left of this cache; the hour spares what another process is writing."""
    for leftover in cache.parent.glob(f"{cache.name}*.part"):
        if time.time() - leftover.stat().st_mtime > 3600:
            leftover.unlink(missing_ok=True)


# ------------------------------------------------------------------------------------------- names and places


def _user_cache():
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "clkit"


def root():
    """The folder that holds the data sets: $CLKIT_DATA where it is set, else a cache folder of the user's."""
    return Path(os.environ.get("CLKIT_DATA") or _user_cache()).expanduser()


_EMBEDDED = {"digits": _load_digits, "digits28": _load_digits28, "shapes": _load_shapes}
_PREFIX = "folder:"


def _folder_names():
    """Names of the sets that lie under the root as class folders."""
    return [name for name in _subfolders(root())
            if name not in _EMBEDDED and name not in _COMBINED and _subfolders(root() / name / "train")]


def _known(name):
    """Pass where `name` is a set that can be named; DataError with the nearest names where it is not."""
    names = [*_EMBEDDED, *_PUBLISHED, *_COMBINED, *(n for n in _folder_names() if n not in _PUBLISHED)]
    if name in names or re.fullmatch(r"[\w][\w.-]*", name) and (root() / name).is_dir():
        return
    near = difflib.get_close_matches(name.lower(), names, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(near)}" if near else f"known are {', '.join(names)}"
    raise DataError(f"there is no data set {name!r}: {hint}; class folders are named folder:PATH, or NAME "
                    f"when they lie in {root()}/NAME")


def _options(name, loader, given):
    """Refuse an option that the set does not have, offering the nearest."""
    known = [option for option in inspect.signature(loader).parameters if option not in ("path", "name")]
    for option in given:
        if option not in known:
            near = difflib.get_close_matches(option, known, n=1)
            hint = f"did you mean {near[0]}" if near else f"it takes {', '.join(known) or 'none'}"
            raise DataError(f"{name} has no option {option!r}: {hint}")


def load(name, **options):
    """(train, test) ImageSets of a named data set, on the CPU; see the top of this file for the names.

    Options: side=N for class folders (cut to the middle square, resized to NxN, antialiased); those of
    shapes.draw for shapes. Class folders are labelled in the alphabetical order of the folders; images are
    grey (C = 1) where all of them are, else RGB, without transparency. DataError where the set is unknown,
    absent or broken.
    """
    if name.startswith(_PREFIX):
        _options(name, _load_folder, options)
        path = Path(name[len(_PREFIX):]).expanduser()
        return _named(_load_folder(path, path.resolve().name, **options), options)
    _known(name)
    if name in _EMBEDDED:
        _options(name, shapes.draw if name == "shapes" else _EMBEDDED[name], options)
        return _named(_EMBEDDED[name](**options), options)
    if name in _COMBINED:
        _options(name, _load_combined, options)
        return _load_combined(name)
    _options(name, _load_published, options)
    if name in _PUBLISHED:
        return _named(_load_published(name, **options), options)
    return _named(_load_folder(root() / name, name, **options), options)


def _named(sets, options):
    """The options become part of the name, so that a record says what it was made from."""
    if options:
        for loaded in sets:
            loaded.name += "(" + ", ".join(f"{key}={value}" for key, value in sorted(options.items())) + ")"
    return sets


@dataclasses.dataclass(frozen=True)
class Entry:
    """One row of `catalogue()`. train, test: how many images; shape: (C, H, W); 0 or () where unknown."""

    name: str
    present: bool
    where: str
    train: int
    test: int
    classes: int
    shape: tuple
    how_to_get: str


def catalogue():
    """Every set that can be named, present or not, without decoding images: a list of Entry."""
    families = len(shapes.FAMILIES) * shapes.SIBLINGS
    drawn = inspect.signature(shapes.draw).parameters
    rows = [Entry("digits", True, "scikit-learn", 1438, 359, 10, (1, 8, 8), "comes with scikit-learn"),
            Entry("digits28", True, "scikit-learn", 1438, 359, 10, (1, 28, 28), "comes with scikit-learn"),
            Entry("shapes", True, "drawn when loaded", families * drawn["train_per_class"].default,
                  families * drawn["test_per_class"].default, families, (3, shapes.SIDE, shapes.SIDE),
                  "drawn by clkit")]
    for name, published in _PUBLISHED.items():
        present = not _missing(name)
        if not present and (root() / name).is_dir():
            rows.append(_folder_entry(name))
            continue
        rows.append(Entry(name, present, str((root() / published.folder).resolve()), published.train,
                          published.test, len(published.names), published.shape,
                          "already here" if present else f"python -m clkit data get {name}"))
    rows += [_combined_entry(name, {row.name: row for row in rows}) for name in _COMBINED]
    return rows + [_folder_entry(name) for name in _folder_names() if name not in _PUBLISHED]


def _combined_entry(name, rows):
    """rows: the entries of the published sets by name, each of which has as many images of every class."""
    parts = [(rows[part], _PUBLISHED[part], count) for part, count in _COMBINED[name].items()]
    present = all(row.present and (row.classes, row.shape) == (len(published.names), published.shape)
                  for row, published, _ in parts)
    sources = [(row if present else published, count / len(published.names))
               for row, published, count in parts]
    return Entry(name, present, " and ".join(row.where for row, _, _ in parts),
                 sum(round(source.train * share) for source, share in sources),
                 sum(round(source.test * share) for source, share in sources),
                 sum(count for _, _, count in parts), parts[0][1].shape,
                 "already here" if present else f"python -m clkit data get {name}")


def _folder_entry(name):
    where = root() / name
    try:
        folder = _scan(where)
        channels, height, width = _decode_file(folder.files[0][0][1], None, 3).shape
    except DataError as error:
        return Entry(name, False, str(where), 0, 0, 0, (), str(error))
    return Entry(name, True, str(where), len(folder.files[0]), len(folder.files[1]), len(folder.classes),
                 (channels, height, width), "already here")
