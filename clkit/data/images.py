"""ImageSet, its batches, and a split by class.

An ImageSet is one uint8 tensor of images and one int64 tensor of labels on one device. A batch indexes into
them and copies only its own images. Images that do not fit into memory stay on disk, as OnDisk.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from clkit.data.facts import DataError, check_memory, is_whole
from clkit.data.on_disk import OnDisk, followed_by, taken

CHUNK = 2**26  # pixels that are resized at a time
HELD_OUT = (0.2, 0)  # default share and seed of the test set of undivided data: the division never varies


class ImageSet:
    """Images and labels on one device.

    images: uint8 (N, C, H, W), a tensor or OnDisk; labels: int64 (N,), below len(names); names, groups: the
    classes' display names and superclasses, groups may be None; name: of the data set; single_pass: the
    images can be iterated over only once, as in online learning; ordered: `batches` never shuffles them.
    DataError if types or sizes do not match. `n_samples` counts the images that `batches` has yielded so far;
    `smallest` is the fewest images that a batch may have, 2 for a network whose batch normalisation cannot
    learn from one; `shape` and `classes` are what a network is built from.
    """

    def __init__(
        self,
        images: Tensor | OnDisk,
        labels: Tensor,
        names: Sequence[str],
        groups: Sequence[str] | None = None,
        name: str = "",
        single_pass: bool = False,
        ordered: bool = False,
    ):
        if not (isinstance(images, Tensor | OnDisk) and torch.is_tensor(labels)):
            kinds = f"{type(images).__name__} and {type(labels).__name__}"
            raise DataError(f"images and labels must be torch tensors, not {kinds}: use torch.from_numpy")
        if images.dtype != torch.uint8 or images.dim() != 4:
            found = f"{images.dtype} {tuple(images.shape)}"
            cure = "(255 * x).byte() makes bytes of fractions, x[:, None] gives grey images their channel"
            raise DataError(f"images must be uint8 of shape (N, C, H, W), not {found}: {cure}")
        if images.shape[1] > 4 >= images.shape[3] and images.shape[2] > 4:
            found = f"the images {tuple(images.shape)} seem to have their channels last"
            raise DataError(f"{found}, not (N, C, H, W): give images.permute(0, 3, 1, 2)")
        if labels.dtype != torch.int64 or labels.shape != images.shape[:1]:
            wanted, found = f"int64 of shape ({len(images)},)", f"{labels.dtype} {tuple(labels.shape)}"
            raise DataError(f"labels must be {wanted} to match the images, not {found}: one number for each")
        if groups is not None and len(groups) != len(names):
            counts = f"{len(groups)} groups, {len(names)} classes"
            raise DataError(f"groups must name one superclass per class: {counts}")
        self.images, self.labels = images, labels
        self.names = tuple(names)
        self.groups = None if groups is None else tuple(groups)
        self.name, self.single_pass, self.ordered = name, single_pass, ordered
        self.n_samples, self.smallest = 0, 1
        self._checksum = self._origin = None
        self._spent = False

    def __len__(self) -> int:
        return len(self.images)

    def __repr__(self) -> str:
        size = f"{len(self):,} images {self.shape}, {self.classes} classes"
        return f"ImageSet({self.name!r}: {size}, {self.device})"

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of one image."""
        return tuple(self.images.shape[1:])

    @property
    def classes(self) -> int:
        """The number of class names."""
        return len(self.names)

    @property
    def device(self) -> torch.device:
        return self.images.device

    def _with(self, images: Tensor | OnDisk, labels: Tensor) -> ImageSet:
        made = ImageSet(images, labels, self.names, self.groups, self.name, self.single_pass, self.ordered)
        made.smallest = self.smallest
        return made

    def like(self, images: Tensor | OnDisk, labels: Tensor) -> ImageSet:
        """A set of other images of the same classes, for a method that stores what it has seen.

        Images drawn from it count as drawn from this set too.
        """
        made = ImageSet(images, labels, self.names, self.groups, self.name)
        made._origin, made.smallest = self, self.smallest
        return made

    def followed_by(self, images: Tensor, labels: Tensor) -> ImageSet:
        """The set `like` this one of its images and then others, such as a memory's: (M, C, H, W), (M,)."""
        return self.like(followed_by(self.images, images), torch.cat([self.labels, labels]))

    def to(self, device: torch.device | str) -> ImageSet:
        """The same set on another device; no copy if it is there already."""
        moved = self._with(self.images.to(device), self.labels.to(device))
        moved._checksum = self._checksum
        return moved

    def select(self, index: Tensor | Sequence[int] | slice) -> ImageSet:
        """The images at `index` (int64 or bool tensor, list or slice), copied unless it is a slice."""
        if not isinstance(index, slice):
            index = torch.as_tensor(index, device=self.device)
            index = index if index.dtype == torch.bool else index.long()
        return self._with(taken(self.images, index), self.labels[index])

    def resized(self, side: int) -> ImageSet:
        """The same images brought to side x side pixels: bilinear, antialiased where they become smaller."""
        if not is_whole(side, 1):
            raise DataError(f"side= is the number of pixels of a side, a positive whole number, not {side!r}")
        size, parts, pixels = (int(side), int(side)), [], self.shape[0] * int(side) ** 2  # of one image
        what = f"{self.name}: {len(self):,} images of {side}x{side} pixels"
        check_memory(what, (len(self) + 4) * pixels, "give a smaller side=N")  # four bytes for each float
        for part in self.images.split(max(1, CHUNK // pixels)):
            wide = torch.nn.functional.interpolate(part.float(), size, mode="bilinear", antialias=True)
            parts.append(wide.round_().clamp_(0, 255).to(torch.uint8))
        return self._with(torch.cat(parts), self.labels)

    def digest(self) -> str:
        """sha256 (hex) of the shape, the images and the labels as they are now.

        Of images on disk, which nobody can write into, the names of their files count instead.
        """
        return self._sha256(self.images.marks() if isinstance(self.images, OnDisk) else [self.images])

    def checksum(self) -> str:
        """sha256 (hex) of the shape, the images and the labels, computed once."""
        if self._checksum is None:
            on_disk = isinstance(self.images, OnDisk)
            each = max(1, CHUNK // self.images.shape[1:].numel())
            self._checksum = self._sha256(self.images.split(each) if on_disk else [self.images])
        return self._checksum

    def _sha256(self, images: Iterable[Tensor | np.ndarray | bytes]) -> str:
        digest = hashlib.sha256(repr(tuple(self.images.shape)).encode())
        for part in itertools.chain(images, [self.labels]):
            digest.update(part.cpu().contiguous().numpy() if torch.is_tensor(part) else part)
        return digest.hexdigest()

    def batches(
        self,
        size: int,
        *,
        epochs: int | None = None,
        reshuffle: bool = True,
        shuffle: bool = True,
        drop_last: bool = False,
        augment: Callable[[Tensor], Tensor] | None = None,
        generator: torch.Generator | None = None,
    ) -> Batches | Passes:
        """Batches of `size` images; they can be iterated over repeatedly (once only for a single-pass set).

        Each iteration yields x float32 (B, C, H, W) in [0, 1] and y int64 (B,). With shuffle, unless the set
        is ordered, it draws one random permutation on the images' device, from torch's global random state or
        from `generator`. augment: a function of x, such as crop_and_flip() of blocks.pixels. The last
        batch may be smaller; drop_last leaves it out, with a DataError if that would leave no batch at all.

        epochs: one iteration makes this many passes, each in its own random order, or all in the same one
        with reshuffle=False. The orders depend on a single number drawn from torch's random state when the
        iteration begins, so a loop can resume in the middle even if its body draws random numbers.
        """
        if not is_whole(size, 1):
            raise DataError(f"a batch size must be a positive whole number, not {size!r}")
        if drop_last and len(self) < size:
            fault = f"drop_last with batches of {size} would leave out all {len(self)} images"
            raise DataError(f"{fault}: use a smaller batch size or drop_last=False")
        if 0 < min(size, len(self)) < self.smallest:
            fault = f"the network's batch normalisation cannot learn from batches of {min(size, len(self))}"
            raise DataError(f"{fault}: use batches, and sets, of at least {self.smallest} images")
        if epochs is not None and (not is_whole(epochs, 1) or generator is not None):
            given = f"{epochs}{' with a generator' if generator is not None else ''}"
            raise DataError(f"epochs must be 1 or more passes, without a generator, not {given}")
        batches = Batches(self, size, shuffle and not self.ordered, drop_last, augment, generator)
        return batches if epochs is None else Passes(batches, epochs, reshuffle)


@dataclass(eq=False)
class Batches:
    """What `ImageSet.batches` returns: len() batches per iteration."""

    source: ImageSet
    size: int
    shuffle: bool
    drop_last: bool
    augment: Callable[[Tensor], Tensor] | None
    generator: torch.Generator | None

    def __len__(self) -> int:
        full, rest = divmod(len(self.source), self.size)
        return full + (rest >= self.source.smallest and not self.drop_last)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        return self._pictures(self._begin(self.generator))

    def indices(self) -> Iterator[Tensor]:
        """The same pass as image indices, one int64 (B,) per batch, for code that stores more for each image.

        `augment` is not applied; the images count as drawn.
        """
        yield from self._parts(self._begin(self.generator))

    def _begin(self, generator: torch.Generator | None) -> Tensor:
        """The order of a pass. Marks a single-pass set as used."""
        source = self.source
        if source.single_pass and source._spent:
            raise RuntimeError(
                "this set can be iterated over once only (single_pass=True), and that has been done: store "
                "what you need during the first pass, or build the stream with single_pass=False"
            )
        source._spent = True
        if not self.shuffle:
            return torch.arange(len(source), device=source.device)
        device = source.device if generator is None else generator.device
        return torch.randperm(len(source), generator=generator, device=device).to(source.device)

    def _parts(self, order: Tensor) -> Iterator[Tensor]:
        rest = len(self.source) % self.size
        for i in range(len(self)):
            joined = rest if i + 1 == len(self) and rest < self.source.smallest and not self.drop_last else 0
            index = order[i * self.size : (i + 1) * self.size + joined]  # (B,)
            for counted in (self.source, self.source._origin):
                if counted is not None:
                    counted.n_samples += len(index)
            yield index

    def _pictures(self, order: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        for index in self._parts(order):
            x = self.source.images.index_select(0, index).float()
            x = x.div_(255)  # (B, C, H, W); multiplying by 1/255 would differ from ToTensor in the last bit
            y = self.source.labels.index_select(0, index)
            yield (x if self.augment is None else self.augment(x)), y


@dataclass(eq=False)
class Passes:
    """Several passes of Batches as one iteration, of len() batches."""

    once: Batches
    epochs: int
    reshuffle: bool

    def __len__(self) -> int:
        return self.epochs * len(self.once)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        seed = int(torch.randint(2**62, (), device="cpu"))
        for epoch in range(self.epochs):
            if epoch == 0 or not self.reshuffle:
                generator = torch.Generator(device="cpu").manual_seed(seed)
            yield from self.once._pictures(self.once._begin(generator))


def members_of(labels: Tensor) -> tuple[Tensor, ...]:
    """The ascending indices of the images of each label that occurs, in the order of the labels.

    labels: int64 (N,).
    """
    counts = labels.unique(return_counts=True)[1]
    return labels.argsort(stable=True).split(counts.tolist())


def stratified_split(labels: Tensor, share: float, seed: int) -> tuple[Tensor, Tensor]:
    """Indices (first, second), both ascending int64, with about `share` of each class in the second.

    labels: int64 (N,). The second gets max(1, round(share * n)) of a class of n images. The draw uses its own
    generator on the CPU, so neither the device nor the global random state matters.
    """
    generator = torch.Generator(device="cpu").manual_seed(seed)
    labels = labels.cpu()
    second = torch.zeros(len(labels), dtype=torch.bool, device="cpu")
    for members in members_of(labels):
        count = max(1, int(share * len(members) + 0.5))
        second[members[torch.randperm(len(members), generator=generator, device="cpu")[:count]]] = True
    return (~second).nonzero().flatten(), second.nonzero().flatten()
