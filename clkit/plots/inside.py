"""Plots of representations: similarity by layer and task, and maps of features.

A similarity is read from the trace table "similarity": "svcca" or "cka" of the networks after an earlier and
a later task, on test images of the earlier one. It is 1 for a network and itself.
"""

import numpy as np
from matplotlib.lines import Line2D

from clkit.papers import palette
from clkit.papers.palette import BLACK, GREY
from clkit.plots import frame
from clkit.plots.frame import PlotError
from clkit.plots.style import TASK_MARKERS, TICK, plain, style

MEASURES = {"svcca": "SVCCA", "cka": "linear CKA"}
COLORS = "BLUE ORANGE GREEN VERMILLION PURPLE SKY BROWN INDIGO OLIVE WINE".split()
CLASS_LOOKS = [(getattr(palette, color), marker) for marker in TASK_MARKERS for color in COLORS]
PALE = "#BBBBBB"


# ---- by layer and task


def similarity(result, measure="svcca"):
    """(names of the layers, similarities (L, T, T)) of a result: row = earlier task, column = later task."""
    if measure not in (*MEASURES, "floor"):
        raise PlotError(f"there is no measure '{measure}' of similarity: use {' or '.join(MEASURES)}")
    values = frame.column(result, "similarity", measure, float)
    return frame.column(result, "similarity", "layer").tolist(), values


def _similarities(groups, measure):
    """(layers, {method: (n, L, T, T)}); PlotError if layers differ, or there is one stage."""
    found = {method: [similarity(r, measure) for r in seeds] for method, seeds in groups.items()}
    layers = [layers for rows in found.values() for layers, _ in rows]
    if not layers:
        raise PlotError("networks after different tasks are compared: give a method that learns two or more")
    if any(other != layers[0] for other in layers):
        raise PlotError("these results have different layers: plot one network at a time")
    return layers[0], {method: np.array([values for _, values in rows]) for method, rows in found.items()}


def plot_similarity(results, measure="svcca", *, colorbar=True, title=None, ax=None):
    """Heat map of similarity: a row for each layer, a column for each pair of an earlier and a later task.

    Means over the seeds of one method, from 0 to 1. Pairs of the same earlier task stand together.
    """
    seeds = frame.one_method(results)
    layers, every = _similarities(frame.several_stages({"": seeds}), measure)
    mean = every[""].mean(axis=0)  # (L, T, T)
    pairs = list(zip(*np.triu_indices(mean.shape[1], 1)))
    values = np.stack([mean[:, t, u] for t, u in pairs], axis=1)  # (L, pairs)
    ax, made = frame.axes(ax, (1.9 + 0.52 * len(pairs), 1.5 + 0.42 * len(layers)))
    look = {"annotated": len(pairs) <= 15, "top": 1, "form": ".2f", "size": TICK - 1}
    frame.heat(ax, values, f"{MEASURES[measure]}, {frame.mean_of(seeds)}", colorbar, **look)
    ax.set_yticks(np.arange(len(layers)) + 0.5, layers, rotation=0)
    ax.set_xticks(np.arange(len(pairs)) + 0.5, [f"{t + 1}→{u + 1}" for t, u in pairs], rotation=0)
    for n in np.flatnonzero(np.diff([t for t, _ in pairs])) + 1:
        ax.axvline(n, color="white", linewidth=5)
    title = frame.label(seeds) if title is None else title
    frame.dress(ax, "networks after these tasks, images of the earlier one", None, title, grid=None)
    return frame.finish(ax, made, seeds)


def plot_layers(results, task=0, after=-1, measure="svcca", *, legend=True, title=None, ax=None):
    """Similarity by layer of the networks after a task and after a later one: a line for each method.

    task, after: from 0, negative from the end. Means and intervals. Dotted, for SVCCA: the chance floor, its
    mean over all results.
    """
    groups = frame.several_stages(results)
    layers, every = _similarities(groups, measure)
    t, u = (frame.stage_of(frame.flat(groups), stage) for stage in (task, after))
    if t >= u:
        raise PlotError(f"task {u} is not later than task {t}, both from 0: give the earlier one first")
    ax, made = frame.axes(ax, (6.8, 3.8))
    _lines(ax, range(len(layers)), {m: v[:, :, t, u] for m, v in every.items()})
    if measure == "svcca":
        _floor(ax, range(len(layers)), groups, lambda floors: floors[:, t, u])
    title = f"after task {t + 1} and after task {u + 1}" if title is None else title
    frame.dress(ax, "layer", MEASURES[measure], title)
    ax.set_xticks(range(len(layers)), layers)
    ax.set_ylim(0, 1.03)
    if legend:
        frame.legend(ax, frame.lines_title(groups), handlelength=3.2)
    return frame.finish(ax, made, groups)


def plot_similarity_course(results, layer, task=0, measure="svcca", *, legend=True, title=None, ax=None):
    """Similarity of a layer to what it was after a task, as later tasks are learned: a line for each method.

    layer: its name.   task: from 0. Means and intervals; dotted, for SVCCA: the chance floor, as in
    plot_layers.
    """
    groups = frame.several_stages(results)
    layers, every = _similarities(groups, measure)
    if layer not in layers:
        raise PlotError(f"there is no layer '{layer}': use one of {', '.join(layers)}")
    n, t = layers.index(layer), frame.stage_of(frame.flat(groups), task)
    tasks = next(iter(every.values())).shape[-1]
    ax, made = frame.axes(ax, (6.4, 3.6))
    at = range(t + 1, tasks + 1)
    _lines(ax, at, {m: v[:, n, t, t:] for m, v in every.items()})
    if measure == "svcca":
        _floor(ax, at, groups, lambda floors: floors[n, t, t:])
    title = f"{layer}, images of task {t + 1}" if title is None else title
    frame.dress(ax, "tasks learned", MEASURES[measure], title)
    ax.set_xlim(0.8, tasks + 0.2)
    frame.whole_ticks(ax, tasks)
    ax.set_ylim(0, 1.03)
    if legend:
        frame.legend(ax, frame.lines_title(groups), handlelength=3.2)
    return frame.finish(ax, made, groups)


def _lines(ax, x, rows):
    """A line with its interval for each method: {method: (n, X)}."""
    for method, values in rows.items():
        look = style(method)
        mean, half = (v / 100 for v in frame.intervals(values))
        ax.plot(x, mean, markersize=5.5, clip_on=False, zorder=3, **look)
        frame.band(ax, x, mean, half, look["color"])


def _floor(ax, x, groups, pick):
    """The dotted line of chance; pick: its values in the floors (L, T, T) of a result."""
    floors = [pick(similarity(r, "floor")[1]) for r in frame.flat(groups)]
    ax.plot(x, np.mean(floors, axis=0), color=GREY, linestyle=":", label="chance floor")


# ---- maps


def plot_map(sets, *, names=None, marked=None, legend=True, title=None, ax=None):
    """Features on a plane, coloured by class: filled markers for the first set, open ones for the second.

    sets: {what it is, such as "real": (points (n, 2), classes (n,))}, one or two.   names: of the classes.
    marked: one class; the others become grey.   legend: whether to draw it, or options for its place; it
    leaves out the classes if there are more than 100, whose looks repeat. The axes have no numbers: places on
    such a map mean nothing.
    """
    sets = {said: (np.asarray(p), np.asarray(y)) for said, (p, y) in sets.items()}
    wrong = [f"{p.shape} and {y.shape}" for p, y in sets.values() if p.shape != (len(y), 2) or y.ndim != 1]
    if wrong or not 1 <= len(sets) <= 2:
        said = f", not {' or '.join(wrong)}" if wrong else f"; there are {len(sets)}"
        raise PlotError(f"a map shows one or two sets of points (n, 2) with classes (n,){said}")
    ax, _ = frame.axes(ax, (6.0, 4.6))
    classes = np.unique(np.concatenate([y for _, y in sets.values()])).tolist()
    for k in classes:
        color, marker = CLASS_LOOKS[k % len(CLASS_LOOKS)]
        color = PALE if marked not in (None, k) else color
        for (points, labels), face in zip(sets.values(), (color, "none")):
            look = {"marker": marker, "facecolors": face, "edgecolors": color, "s": 20, "linewidths": 0.9}
            ax.scatter(*points[labels == k].T, zorder=2 if color == PALE else 3, alpha=0.75, **look)
    ax.set(xticks=[], yticks=[])
    ax.set_aspect("equal", "datalim")
    ax.spines[:].set_color("#999999")
    if title is not None:
        ax.set_title(title, fontsize=TICK + 2)
    if legend:
        place = legend if isinstance(legend, dict) else {}
        _map_legend(ax, [k for k in classes if marked in (None, k)], names, sets, place)
    return ax


def _map_legend(ax, classes, names, sets, place):
    """A legend of the classes and, if there are two sets, of filled and open markers."""
    handles = []
    for k in classes if len(classes) <= 100 else ():
        color, marker = CLASS_LOOKS[k % len(CLASS_LOOKS)]
        look = {"color": color, "marker": marker, "linestyle": "none"}
        look["label"] = plain(names[k]) if names else k
        handles.append(Line2D([], [], **look))
    for said, face in zip(sets if len(sets) > 1 else (), (BLACK, "none")):
        look = {"color": BLACK, "marker": "o", "linestyle": "none", "markerfacecolor": face, "label": said}
        handles.append(Line2D([], [], **look))
    if handles:
        frame.legend(ax, handles=handles, **{"ncols": 1 + (len(handles) - 1) // 14} | place)
