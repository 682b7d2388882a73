"""Plots for SpaceNet: connection matrices, input maps and activations."""

import numpy as np
from matplotlib.ticker import MaxNLocator

from clkit.plots import frame
from clkit.plots.frame import PlotError
from clkit.plots.style import SEQUENTIAL, plain


def plot_connections(mask, *, title=None, ax=None):
    """A connection matrix: rows are target neurons, columns are source neurons, black is a connection.

    mask: (n_out, n_in) bool.   title: by default the number of connections.
    """
    mask = np.asarray(mask)
    if mask.ndim != 2 or not mask.size:
        raise PlotError(f"a connection matrix must have the shape (targets, sources), not {mask.shape}")
    mask = mask.astype(bool)
    rows, columns = mask.shape
    flat = max(rows, columns) > 3 * min(rows, columns)  # square cells would make it a thin strip
    ax, _ = frame.axes(ax, (7.2, 3.6) if flat else (4.8, 4.8 * min(max(rows / columns, 0.6), 1.4) + 0.4))
    look = {"aspect": "auto" if flat else "equal", "interpolation": _interpolation(mask)}
    extent = (0.5, columns + 0.5, rows + 0.5, 0.5)  # neurons are counted from 1
    ax.imshow(mask, cmap="binary", vmin=0, vmax=1, extent=extent, **look)
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_locator(MaxNLocator(5, integer=True, min_n_ticks=1))
    if title is None:
        title = f"{mask.sum():,} connection{'' if mask.sum() == 1 else 's'}"
    frame.dress(ax, f"source neurons ({columns:,})", f"target neurons ({rows:,})", title, grid=None)
    ax.spines[:].set_visible(True)
    return ax


def plot_input_map(counts, *, vmax=None, colorbar=True, title=None, ax=None):
    """A map of the number of connections that leave each pixel.

    counts: (H, W).   vmax: top of the scale, by default the largest count; use the same `vmax` to compare
    maps.
    """
    counts = np.asarray(counts)
    if counts.ndim != 2 or not counts.size:
        raise PlotError(f"an input map must have the shape (H, W), not {counts.shape}")
    ax, _ = frame.axes(ax, (4.2, 3.6))
    image = ax.imshow(counts, cmap=SEQUENTIAL, vmin=0, vmax=frame.top_of(counts, vmax), interpolation="none")
    frame.dress(ax, title=title, grid=None)
    ax.set_xticks([])
    ax.set_yticks([])
    ax.spines[:].set_visible(False)
    if colorbar:
        frame.colorbar(ax, image, "connections per pixel")
    return ax


def plot_activations(
    values, split, *, names=("first class", "second class"), vmax=None, colorbar=True, title=None, ax=None
):
    """Activations of a layer as a heat map.

    values: (N, U), one row per image and one column per neuron.   split: the first row of the second class;
    a line is drawn above it.   names: of the two classes.   vmax: top of the scale, by default the largest
    value; use the same `vmax` to compare layers.
    """
    values = np.asarray(values, dtype=float)
    if values.ndim != 2 or not 0 < split < len(values):
        wanted = "the shape (images, neurons) and a split between two images"
        raise PlotError(f"activations must have {wanted}, not {values.shape} and {split}")
    images, units = values.shape
    ax, _ = frame.axes(ax, (7.2, 3.4))
    look = {"cmap": SEQUENTIAL, "aspect": "auto", "interpolation": _interpolation(values)}
    top, extent = frame.top_of(values, vmax), (0.5, units + 0.5, images, 0)
    image = ax.imshow(values, vmin=0, vmax=top, extent=extent, **look)
    ax.axhline(split, color="white", linewidth=1.5)
    said = [f"{plain(name)}\n({n} images)" for name, n in zip(names, (split, images - split), strict=True)]
    ax.set_yticks([split / 2, (split + images) / 2], said)
    ax.xaxis.set_major_locator(MaxNLocator(5, integer=True, min_n_ticks=1))
    frame.dress(ax, f"neurons ({units:,})", None, title, grid=None)
    if colorbar:
        frame.colorbar(ax, image, "activation")
    return ax


def _interpolation(values):
    """Sharp cells; a matrix with more neurons than the figure has pixels is smoothed, so none is lost."""
    return "none" if max(values.shape) <= 160 else "auto"
