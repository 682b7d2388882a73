"""Plots of MFGR: projections on weight vectors, scores class by class, the course of a generator's losses.

The trace tables "recording" and "images" are those of MFGR's generator; "fine" is the fine-grained report of
any method.
"""

import numpy as np

from clkit.papers.palette import BLACK, BLUE, GREY, SPARE_COLORS, VERMILLION
from clkit.plots import frame
from clkit.plots.frame import PlotError
from clkit.plots.style import TASK_MARKERS, TICK, plain
from clkit.plots.style import drawn_style as style

# ---- projections


def plot_projections(weights, feature, names, alike=(), *, ax=None):
    """Weight vectors of classes and a feature in two dimensions, with its projection on each of them.

    weights: (K, 2), of any length; they are drawn with length 1.   feature: (2,).   names: of the classes.
    alike: numbers of classes in another colour. The coordinates are those of `coordinates`.
    """
    units, feature = unit(weights), np.asarray(feature, dtype=float)
    ax, _ = frame.axes(ax, (4.8, 4.6))
    for k, (w, name) in enumerate(zip(units, names, strict=True)):
        color = VERMILLION if k in alike else BLUE
        _arrow(ax, w, color)
        foot = (w @ feature) * w
        ax.plot(*zip(feature, foot), color=GREY, linestyle=":", linewidth=1)
        ax.plot(*foot, "o", color=color, markersize=4, zorder=4)
        ax.plot(*zip((0, 0), foot), color=color, linestyle=":", linewidth=1)  # behind the origin, if negative
        far = 1.12 + 0.11 * sum(
            j < k for j in alike if k in alike
        )  # names of parallel arrows one above another
        ax.text(*(far * w), plain(name), color=color, fontsize=TICK, ha="center", va="center")
    _arrow(ax, feature, BLACK)
    ax.text(*(1.08 * feature), "new feature", fontsize=TICK, ha="left", va="center")
    every = np.vstack([1.4 * units, 1.5 * feature, [0, 0]])
    ax.set(xlim=(every[:, 0].min(), every[:, 0].max()), ylim=(every[:, 1].min(), every[:, 1].max()))
    ax.set_aspect("equal")
    ax.set_axis_off()
    return ax


def unit(weights):
    """Vectors (K, D) with length 1."""
    weights = np.asarray(weights, dtype=float)
    return weights / np.linalg.norm(weights, axis=1, keepdims=True)


def coordinates(weights, feature):
    """Coordinates (K,) of a feature (D,) along vectors (K, D), whatever their lengths."""
    return unit(weights) @ np.asarray(feature, dtype=float)


def _arrow(ax, end, color):
    look = {"arrowstyle": "-|>", "color": color, "linewidth": 1.6, "shrinkA": 0, "shrinkB": 0}
    ax.annotate("", xy=end, xytext=(0, 0), arrowprops=look)


# ---- class by class


def plot_by_class(
    rows, names, looks=None, *, groups=None, y="accuracy (%)", top=100, legend=True, title=None, ax=None
):
    """Scores of several models for each class (or group of classes): dots side by side, with intervals.

    rows: {label: scores (n, K) as fractions, one row per seed}; NaN: none.   names: of the K classes.
    looks: {label: keywords of a plot}.   groups: {name: number of classes}, in order, which lines separate.
    top: of the axis in percent; None: by the values.
    """
    rows = {label: np.atleast_2d(np.asarray(v, dtype=float)) for label, v in rows.items()}
    if not rows or any(v.shape[1] != len(names) for v in rows.values()):
        said = ", ".join(str(v.shape) for v in rows.values()) or "none"
        raise PlotError(f"each label needs scores (n, {len(names)}), a column for each name, not {said}")
    ax, _ = frame.axes(ax, (1.6 + 0.75 * len(names), 3.8))
    at = np.arange(len(names))
    for n, (label, values) in enumerate(rows.items()):
        mean, half = frame.intervals(values)
        marker, color = TASK_MARKERS[n % len(TASK_MARKERS)], SPARE_COLORS[n % len(SPARE_COLORS)]
        look = {
            "marker": marker,
            "color": color,
            "linestyle": "none",
            "markersize": 6,
            "capsize": 3,
            "label": label,
        }
        look |= {k: v for k, v in (looks or {}).get(label, {}).items() if k in ("color", "marker")}
        look |= {"label": label, "clip_on": False}
        x = at + 0.62 * ((n + 0.5) / len(rows) - 0.5)
        ax.errorbar(x, mean, yerr=None if len(values) < 2 else half, zorder=3, **look)
    for x in at[:-1] + 0.5:
        ax.axvline(x, color="#EEEEEE", linewidth=0.8, zorder=0)
    ends = np.cumsum([*(groups or {}).values()])
    for end, (name, size) in zip(ends, (groups or {}).items()):
        place = {"transform": ax.get_xaxis_transform(), "ha": "center", "va": "bottom", "fontsize": TICK}
        ax.text(end - 0.5 - size / 2, 1.01, plain(name), **place)
        if end < len(names):
            ax.axvline(end - 0.5, color=BLACK, linewidth=0.8)
    turn = sum(map(len, map(str, names))) > 11 * len(names) or len(names) > 12
    ax.set_xticks(at, [plain(name) for name in names], rotation=30 * turn, ha="right" if turn else "center")
    ax.set_xlim(-0.5, len(names) - 0.5)
    frame.dress(ax, None, y, title, pad=18 if groups else None)
    if top:
        ax.set_ylim(0, top)
    if legend:
        frame.legend(ax)
    return ax


def fine(result, column="accuracy", stage=-1):
    """A row of the fine-grained report: (K,), NaN for classes to come."""
    return frame.column(result, "fine", column, float)[stage]


# ---- the generator in its training


def recording(result, term, task=1):
    """(steps (N,), values (N, ...)) of a term while the generator for a later task is trained (from 0)."""
    mine = frame.column(result, "recording", "task", int) == task
    if not mine.any():
        raise PlotError(f"no generator was recorded for task {task}, from 0: the first is for task 1")
    return tuple(frame.column(result, "recording", name, float)[mine] for name in ("step", term))


def plot_recording(results, term, *, task=1, y=None, legend=True, title=None, ax=None):
    """A term of the generator's loss over its steps: one line per method, mean and interval over seeds.

    term: a column of the table "recording".   task: later task, from 0.
    """
    groups = frame.grouped(results)
    ax, made = frame.axes(ax, (5.6, 3.4))
    for method, seeds in groups.items():
        steps = recording(seeds[0], term, task)[0]
        mean, half = (v / 100 for v in frame.intervals([recording(r, term, task)[1] for r in seeds]))
        look, few = style(method), max(1, len(steps) // 6)
        ax.plot(steps, mean, linewidth=1.6, markersize=5, markevery=few, zorder=3, **look)
        frame.band(ax, steps, mean, half, look["color"])
    frame.dress(ax, "step of the generator", y or term, title)
    if legend:
        frame.legend(ax, frame.lines_title(groups))
    return frame.finish(ax, made, groups)


def course(result, task=1):
    """(steps (N,), images (N, n, C, H, W) as bytes, classes (N, n)) of a generator in its training."""
    mine = frame.column(result, "images", "task", int) == task
    if not mine.any():
        raise PlotError(f"no images were recorded for task {task}, from 0")
    return tuple(frame.column(result, "images", name)[mine] for name in ("step", "images", "labels"))
