"""What sparse networks show: the connections of a task in one layer, and the pixels they come from."""

import math

import matplotlib.pyplot as plt
import numpy as np

from clkit import plots
from clkit.analysis import masks
from clkit.book.explore import common
from clkit.book.explore.common import ExploreError, name_of, seeds_of
from clkit.book.show import View


def connections_view(results, task=0, epoch=-1, layer=0, seed=None):
    """The connections of one task (from 0) in one layer, of one seed: the first recorded one by default.

    epoch: 0 at allocation, -1 when the task is learned.
    """
    result = _masked(results, seed)
    ax, text = _connections(result, task, epoch, layer)
    plots.stamp(ax, result)
    return View(ax, text)


def input_map_view(results, task=0, epoch=-1, seed=None, shape=None, names=None):
    """How many first-layer connections of a task (from 0) leave each pixel, of one seed.

    shape: (C, H, W) of the images; by default square, with one channel or three.   names: of the classes of
    the task, in place of those of the result.
    """
    result = _masked(results, seed)
    ax, text = _input_map(result, task, epoch, shape or _pixels(result, task, epoch), names)
    plots.stamp(ax, result)
    return View(ax, text)


def sparse_view(results, task=0, epoch=-1, layer=0, seed=None):
    """`connections_view` and `input_map_view` side by side; without the map where inputs are not pixels."""
    result = _masked(results, seed)
    shape = _pixels(result, task, epoch, strict=False)
    parts, width = ((1.5, 1), 7.4) if shape else ((1,), 6.5)
    figure, axes = plt.subplots(
        1, len(parts), figsize=(width, 3.9), squeeze=False, layout="constrained", width_ratios=parts
    )
    ax, text = _connections(result, task, epoch, layer, axes[0, 0])
    if shape:
        text += " " + _input_map(result, task, epoch, shape, None, axes[0, 1])[1]
    plots.stamp(figure, result)
    return View(ax, text)


def _masked(results, seed):
    """One Result: of the seed asked for, else the first whose connections are recorded."""
    seeds = common.chosen(results, seed)
    return next((r for r in seeds if "masks" in r.trace), seeds[0])


def _connections(result, task, epoch, layer, ax=None):
    """Draw the connection matrix: (axes, text)."""
    mask = masks.block(result, task, layer, epoch)[0]
    between, when = _between(layer, masks.layers(result)[-1]), _when(result, task, epoch)
    ax = plots.plot_connections(mask, title=f"{name_of([result])}, task {task + 1}, {when}\n{between}", ax=ax)
    some, share = masks.used(mask), masks.busiest_share(mask)
    busy = f"; the 20 busiest hold {100 * share:.0f} % of the connections" if some > 20 else ""
    return ax, (
        f"Connection matrix of {name_of([result])}, {seeds_of([result])}, task {task + 1}, {between}, {when}:"
        f" {mask.sum():,} of {mask.size:,} places between {mask.shape[1]:,} source and {len(mask):,} target"
        f" neurons are taken; target neurons with any connection: {some} of {len(mask)}{busy}."
    )


def _input_map(result, task, epoch, shape, names, ax=None):
    """Draw the map of pixels, on one scale for all epochs of the task: (axes, text)."""
    counts = masks.input_map(result, task, shape, epoch)
    most = max(masks.input_map(result, task, shape, e).max() for e in masks.epochs(result, task))
    end = int(np.cumsum(result.classes_per_task)[task])
    names = [str(n) for n in names or result.names[end - result.classes_per_task[task] : end]]
    names, when = f"classes {', '.join(names)}", _when(result, task, epoch)
    short = names if len(names) <= 32 else f"{result.classes_per_task[task]} classes"
    title = f"{name_of([result])}, task {task + 1}, {when}\ninput, {plots.plain(short)}"
    ax = plots.plot_input_map(counts, vmax=most, title=title, ax=ax)
    row, column = np.unravel_index(counts.argmax(), counts.shape)
    return ax, (
        f"Map of the first-layer connections of {name_of([result])}, {seeds_of([result])}, task {task + 1}"
        f" ({names}), {when}: {counts.sum():,} connections, {counts.mean():.1f} a pixel on average; the"
        f" busiest pixel, in row {row + 1} and column {column + 1}, has {counts.max()}."
    )


def _pixels(result, task, epoch, strict=True):
    """(C, H, W) of square images with as many values as the first layer has sources."""
    count = len(masks.block(result, task, 0, epoch)[2])
    for channels in (1, 3):
        side = math.isqrt(count // channels)
        if side > 1 and channels * side * side == count:
            return channels, side, side
    if strict:
        has = f"the first layer has {count} sources, which are no square image"
        raise ExploreError(f"{has}: give shape=(C, H, W), where they are pixels")
    return None


def _between(layer, last):
    """The neurons that a layer connects, in words."""
    source = "input" if layer == 0 else f"hidden layer {layer}"
    return f"{source} to {'output' if layer == last else f'hidden layer {layer + 1}'}"


def _when(result, task, epoch):
    if epoch == 0:
        return "at allocation"
    return f"after epoch {masks.epochs(result, task)[-1] if epoch == -1 else epoch}"


# ---- explorer


def sparse_explorer(results):
    """Sliders over tasks and epochs, and choices of layer, method and seed, around `sparse_view`."""
    groups = {m: [r for r in s if "masks" in r.trace] for m, s in plots.grouped(results).items()}
    for method, seeds in groups.items():
        if not seeds:
            need = "give results of sparse methods with the trace table 'masks'"
            raise ExploreError(f"no connections are recorded for {method}: {need}")
    every = [r for seeds in groups.values() for r in seeds]
    events, layers = common.shared(map(masks.epochs, every)), common.shared(map(masks.layers, every))
    seeds = common.shared([r.about.get("seed") for r in seeds] for seeds in groups.values())
    return common.explorer(
        lambda task, epoch, layer, method, seed: sparse_view(groups[method], task - 1, epoch, layer, seed),
        task=common.slider("task", min(r.tasks for r in every)),
        epoch=common.stops("epoch", [("at allocation" if e == 0 else str(e), e) for e in events]),
        layer=common.choice("layer", [(_between(n, layers[-1]), n) for n in layers], min(1, len(layers) - 1)),
        method=common.choice_of(groups),
        seed=common.choice("seed", [(str(s), s) for s in seeds] or [("first", None)]),
    )
