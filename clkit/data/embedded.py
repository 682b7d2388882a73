"""The data sets that come with the installation: scikit-learn's digits, and the shapes drawn by code."""

import functools
import gzip
import importlib.util
from pathlib import Path

import numpy as np
import torch

from clkit.data import shapes
from clkit.data.facts import DataError
from clkit.data.images import HELD_OUT, ImageSet, stratified_split


def _digits() -> tuple[np.ndarray, np.ndarray]:
    """The digits as scikit-learn ships them: images int64 (1797, 8, 8) in 0..16, labels int64 (1797,)."""
    found = importlib.util.find_spec("sklearn")
    if found is None:
        raise DataError("the digits come with scikit-learn, which is not installed: pip install scikit-learn")
    table = Path(found.origin).parent / "datasets" / "data" / "digits.csv.gz"
    if table.is_file():  # importing scikit-learn would take a second and 100 MB
        with gzip.open(table, "rt") as lines:
            rows = np.loadtxt(lines, delimiter=",", dtype=np.int64)
        return rows[:, :64].reshape(-1, 8, 8), rows[:, 64]
    import sklearn.datasets

    found = sklearn.datasets.load_digits()
    return found.images.astype(np.int64), found.target.astype(np.int64)


def digits() -> tuple[ImageSet, ImageSet]:
    """The digits at 8x8, as scikit-learn ships them, scaled to bytes."""
    images, labels = _digits()
    return _split_digits("digits", (images * 255 + 8) // 16, labels)


def digits28() -> tuple[ImageSet, ImageSet]:
    """The digits enlarged to 20x20 by cubic interpolation, with a margin of 4 pixels as in MNIST."""
    images, labels = _digits()
    weights = _enlarge(8, 20)  # whole numbers, so that the bytes are the same on every machine
    large = weights @ images @ weights.T  # (N, 20, 20), times 2000 * 2000
    large = (large * 255 + 8 * 2000 * 2000) // (16 * 2000 * 2000)
    return _split_digits("digits28", np.pad(large.clip(0, 255), ((0, 0), (4, 4), (4, 4))), labels)


def _enlarge(small: int, large: int) -> np.ndarray:
    """Cubic interpolation (Keys, a = -1/2) from 8 to 20 points: a whole-number matrix (20, 8), times 2000."""
    # distances in tenths of a pixel, which are whole because the scale is 20 / 8
    tenths = np.abs(4 * np.arange(large)[:, None] - 3 - 10 * np.arange(-2, small + 2))
    near = 3 * tenths**3 - 50 * tenths**2 + 2000
    far = -(tenths**3) + 50 * tenths**2 - 800 * tenths + 4000
    weights = np.where(tenths <= 10, near, np.where(tenths < 20, far, 0))
    weights[:, 2] += weights[:, :2].sum(1)  # the outermost pixel repeats beyond the border
    weights[:, -3] += weights[:, -2:].sum(1)
    return weights[:, 2:-2]


def _split_digits(name: str, images: np.ndarray, labels: np.ndarray) -> tuple[ImageSet, ...]:
    images = torch.from_numpy(images.astype(np.uint8)).unsqueeze(1)
    whole = ImageSet(images, torch.from_numpy(labels.astype(np.int64)), "0123456789", name=name)
    return tuple(whole.select(index) for index in stratified_split(whole.labels, *HELD_OUT))


@functools.wraps(shapes.draw)
def drawn_shapes(**options) -> tuple[ImageSet, ...]:
    drawn = shapes.draw(**options)
    parts = ((torch.from_numpy(x), torch.from_numpy(y)) for x, y in (drawn.train, drawn.test))
    return tuple(ImageSet(x, y, drawn.names, drawn.groups, "shapes") for x, y in parts)
