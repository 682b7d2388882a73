"""Grids of images on one Axes."""

import numpy as np

from clkit.plots import frame
from clkit.plots.frame import PlotError
from clkit.plots.style import TICK, plain


def plot_images(images, titles=None, *, columns=10, rows=None, ax=None):
    """A grid of images on one Axes, row after row.

    images: (N, C, H, W), C = 1 or 3, bytes or floats in [0, 1] (array or CPU tensor).   titles: text above
    each image.   rows: text to the left of each row.
    """
    images = np.asarray(images)
    if images.ndim != 4 or images.shape[1] not in (1, 3) or not len(images):
        wanted = "the shape (N, C, H, W) with C = 1 or 3 and N above 0"
        raise PlotError(f"images must have {wanted}, not {images.shape}")
    images = images.astype(float) / (255 if images.dtype == np.uint8 else 1)
    N, _, H, W = images.shape
    columns = min(columns, N)
    lines = -(-N // columns)
    gap, head = max(1, W // 16), _head(titles, H)
    step_y, step_x = H + head + gap, W + gap
    board = np.ones((lines * step_y - gap, columns * step_x - gap, 3))
    for n, image in enumerate(images):
        y, x = n // columns * step_y + head, n % columns * step_x
        board[y : y + H, x : x + W] = np.moveaxis(np.broadcast_to(image, (3, H, W)), 0, 2)
    tall = board.shape[0] / board.shape[1]
    width = min(9.0, 0.95 * columns, 6.5 / tall)
    ax, _ = frame.axes(ax, (width + (1.0 if rows else 0), width * tall + 0.1))
    # "none": an SVG then stores each pixel once instead of resampling
    ax.imshow(board.clip(0, 1), interpolation="none")
    for n, title in enumerate(titles if titles is not None else ()):
        x, y = n % columns * step_x + W / 2, n // columns * step_y + head - 1
        ax.text(x, y, plain(title), ha="center", va="bottom", fontsize=TICK - 1)
    for n, name in enumerate(rows or ()):
        ax.text(-gap, n * step_y + head + H / 2, plain(name), ha="right", va="center", fontsize=TICK)
    ax.set_axis_off()
    return ax


def _head(titles, height):
    """Height in pixels of the titles above images of this height."""
    lines = max((title.count("\n") + 1 for title in titles), default=1) if titles is not None else 0
    return round((0.2 + 0.14 * lines) * height) if lines else 0
