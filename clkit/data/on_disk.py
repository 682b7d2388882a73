"""Images that stay on disk: OnDisk is indexed like a tensor and reads what is asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from clkit.data.facts import DataError, check_memory, reason


class OnDisk:
    """Images uint8 (N, C, H, W) in files, for an ImageSet, in place of a tensor.

    blocks: files in numpy's format, or arrays, each uint8 (n, C, H, W); counts: the number of images of each;
    shape: (C, H, W); rows: int64 (N,), which images these are, counted over all blocks; None: all of them;
    device: of what is read. An index, `index_select` and `split` read: they give tensors on the device. A
    file is mapped into memory while it is read only, so that resident memory does not grow. `at` and
    `followed_by` read nothing. Whatever else torch can do with a tensor it does with all images in memory;
    DataError if there is too little.
    """

    def __init__(
        self,
        blocks: Sequence[str | np.ndarray],
        counts: Sequence[int],
        shape: tuple[int, int, int],
        rows: Tensor | None = None,
        device: torch.device | str = "cpu",
    ):
        self.blocks, self.counts, self.device = tuple(blocks), tuple(counts), torch.device(device)
        self._starts = np.concatenate([[0], np.cumsum(self.counts)]).astype(np.int64)
        self.rows = torch.arange(int(self._starts[-1]), device="cpu") if rows is None else rows
        self.shape, self.dtype = torch.Size((len(self.rows), *shape)), torch.uint8

    def __len__(self) -> int:
        return len(self.rows)

    def dim(self) -> int:
        return len(self.shape)

    def _like(self, rows: Tensor, device: torch.device | str) -> OnDisk:
        return OnDisk(self.blocks, self.counts, self.shape[1:], rows, device)

    def to(self, device: torch.device | str) -> OnDisk:
        """The same images, read to another device; labels and indices belong there too."""
        return self._like(self.rows, device)

    def at(self, index: Tensor | slice) -> OnDisk:
        """The images at an index, which stay on disk."""
        return self._like(self._rows(index), self.device)

    def followed_by(self, images: Tensor) -> OnDisk:
        """These images and then those of a tensor (M, C, H, W), which stays in memory."""
        more = torch.arange(len(images), device="cpu") + int(self._starts[-1])
        blocks, counts = (*self.blocks, images.cpu().numpy()), (*self.counts, len(images))
        return OnDisk(blocks, counts, self.shape[1:], torch.cat([self.rows, more]), self.device)

    def marks(self) -> Iterator[bytes | np.ndarray]:
        """What tells these images from others without reading files: names of files, arrays, rows."""
        yield from (b.encode() if isinstance(b, str) else b for b in self.blocks)
        yield self.rows.numpy()

    # ---- reading

    def __getitem__(self, index: int | slice | Tensor) -> Tensor:
        rows = self._rows(index)
        return self._read(rows.reshape(-1).numpy()).view(*rows.shape, *self.shape[1:])

    def index_select(self, dim: int, index: Tensor) -> Tensor:
        return self[index]

    def split(self, size: int) -> Iterator[Tensor]:
        return (self[start : start + size] for start in range(0, len(self), size))

    def _rows(self, index: int | slice | Tensor) -> Tensor:
        return self.rows[index.cpu() if torch.is_tensor(index) else index]

    def _read(self, rows: np.ndarray) -> Tensor:
        """The images (B, C, H, W) with these numbers (B,), on the device."""
        found = np.empty((len(rows), *self.shape[1:]), dtype=np.uint8)
        blocks = np.searchsorted(self._starts, rows, side="right") - 1
        for block in np.unique(blocks):
            here = np.flatnonzero(blocks == block)
            images = self._opened(self.blocks[block])
            for place, row in zip(here, rows[here] - self._starts[block]):
                found[place] = images[row]
        return torch.from_numpy(found).to(self.device)

    @staticmethod
    def _opened(block: str | np.ndarray) -> np.ndarray:
        if not isinstance(block, str):
            return block
        try:
            return np.load(block, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            cure = "the next load reads its images again; resume the run by the same command"
            raise DataError(f"the cached images {block} cannot be read ({reason(error)}): {cure}") from error

    # ---- in memory

    def whole(self) -> Tensor:
        """All images as a tensor. DataError if they do not fit into memory."""
        check_memory(f"{len(self):,} images of {tuple(self.shape[1:])}", self.shape.numel(), "use fewer")
        return self[:]

    def __getattr__(self, name: str) -> object:
        if name.startswith("__"):  # such as what copy and pickle look for
            raise AttributeError(name)
        return getattr(self.whole(), name)

    @classmethod
    def __torch_function__(cls, function: Callable, types: object, args=(), kwargs=None) -> object:
        def read(value):
            if isinstance(value, list | tuple):
                return [read(one) for one in value]
            return value.whole() if isinstance(value, cls) else value

        return function(*read(args), **(kwargs or {}))


def taken(images: Tensor | OnDisk, index: Tensor | slice) -> Tensor | OnDisk:
    """The images at an index: of a tensor in memory, copied unless it is a slice; of those on disk, there."""
    return images.at(index) if isinstance(images, OnDisk) else images[index]


def followed_by(images: Tensor | OnDisk, more: Tensor) -> Tensor | OnDisk:
    """Images and then others, (M, C, H, W) in memory; those on disk stay there."""
    return images.followed_by(more) if isinstance(images, OnDisk) else torch.cat([images, more])
