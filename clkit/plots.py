"""Plots of results: ``plot_x(results, ..., ax=None) -> Axes``.

Each function takes a Result, a list of Results (seeds of one method) or {method: seeds}, draws on `ax` (on
the axes of a figure of its own when None) and returns the Axes. Nothing is loaded, saved or shown, and no
global style is changed. A figure made here carries a stamp (benchmark, data, preset, seeds, versions); on
axes of your own, call `stamp` once when the figure is complete. Shares are drawn in percent; tasks are
counted from 1, as readers do; where there are several seeds, lines and bars are means and each interval says
its kind and n.
"""

import hashlib
import re
import textwrap

import matplotlib.pyplot as plt
import numpy as np
import seaborn
from matplotlib import colormaps
from matplotlib.colors import to_rgba
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from clkit.result import Result, interval


class PlotError(ValueError):
    """Results that a plot cannot show; the message says why and what to give instead."""


# ---- one palette for the whole book

_BLACK, _GREY, _DARK = "#000000", "#666666", "#333333"
_ORANGE, _SKY, _GREEN, _BLUE = "#E69F00", "#56B4E9", "#009E73", "#0072B2"       # Okabe and Ito (2008)
_VERMILLION, _PURPLE = "#D55E00", "#CC79A7"
_INDIGO, _WINE, _OLIVE, _TEAL = "#332288", "#882255", "#999933", "#44AA99"      # Tol's "muted" set
_ROSE, _FOREST, _BROWN = "#EE8899", "#0B5D27", "#6B4A10"
_SOLID, _DASHED, _DOTTED, _DASHDOT = "-", (0, (5, 2)), (0, (1, 1.2)), (0, (6, 2, 1, 2))
_OTHERS = (0, (4, 1.5, 1, 1.5, 1, 1.5))  # for methods that STYLE does not know

# A variant has its parent's colour with another marker and line.
STYLE = {name: {"color": color, "marker": marker, "linestyle": line, "label": label}
         for name, color, marker, line, label in (
    ("finetune", _GREY, "X", _SOLID, "Finetune"),
    ("joint", _BLACK, "*", _DASHED, "Joint"),
    ("cumulative", _DARK, "P", _DASHDOT, "Cumulative"),
    ("lwf", _BLUE, "o", _SOLID, "LwF"),
    ("lwf-multihead", _SKY, "D", _DASHED, "LwF (multi-head)"),
    ("er", _VERMILLION, "s", _SOLID, "ER"),
    ("spacenet", _GREEN, "^", _SOLID, "SpaceNet"),
    ("static", _GREEN, "1", _DOTTED, "SpaceNet (static)"),
    ("rehearsal", _GREEN, "2", _DASHED, "SpaceNet (rehearsal)"),
    ("ewc", _OLIVE, "<", _SOLID, "EWC"),
    ("ewc-online", _OLIVE, "3", _DASHED, "EWC (online)"),
    ("si", _TEAL, ">", _SOLID, "SI"),
    ("mas", _WINE, "v", _SOLID, "MAS"),
    ("dgr", _BROWN, "p", _SOLID, "DGR"),
    ("icarl", _ROSE, "h", _SOLID, "iCaRL"),
    ("cwr", _FOREST, "d", _SOLID, "CWR"),
    ("cwr-plus", _FOREST, "+", _DASHED, "CWR+"),
    ("arm", _PURPLE, "p", _SOLID, "ARM"),
    ("adi", _PURPLE, "x", _DASHED, "ADI"),
    ("distill", _BLUE, "4", _DOTTED, "Distillation"),
    ("naive", _GREY, "x", _DOTTED, "Naive (one pass)"),
    ("stationary", _BLACK, "+", _DOTTED, "Stationary (one pass)"),
    ("er-online", _VERMILLION, "D", _DOTTED, "ER (one pass)"),
    ("er-mir", _VERMILLION, "x", _DASHED, "ER-MIR"),
    ("icarl-online", _ROSE, "P", _DASHDOT, "iCaRL (one pass)"),
    ("gem", _ROSE, "8", _DASHED, "GEM"),
    ("gen", _BROWN, "s", _DASHED, "GEN"),
    ("gen-mir", _BROWN, "x", _DOTTED, "GEN-MIR"),
    ("gfr", _ORANGE, "D", _SOLID, "GFR"),
    ("mfgr", _SKY, "v", _SOLID, "MFGR"),
    ("dgma", _INDIGO, "H", _DASHED, "DGMa"),
    ("dgmw", _INDIGO, "h", _SOLID, "DGMw"))}

# Kinds of memory, as Learner.memory_kinds names them; any other kind gets a grey.
KINDS = {"weights": _GREY, "old copies": _BLUE, "masks": _GREEN, "generators": _ORANGE, "importance": _OLIVE,
         "features": _PURPLE, "exemplars": _VERMILLION}

SEQUENTIAL, DIVERGING = "viridis", "RdBu_r"  # perceptually uniform; centred at 0 wherever it is used
_SMALL, _TICK, _LABEL = 7, 9, 10                        # points


def style(method):
    """Colour, marker, linestyle and label of a method; for one that is not in STYLE, always the same."""
    known = STYLE.get(str(method).lower())
    if known:
        return dict(known)
    number = int.from_bytes(hashlib.sha256(str(method).encode()).digest()[:4], "big")
    colors, markers = (_BLUE, _ORANGE, _GREEN, _WINE, _INDIGO, _ROSE, _TEAL), "osD^v<>pPhX"
    return {"color": colors[number % len(colors)], "marker": markers[number // 7 % len(markers)],
            "linestyle": _OTHERS, "label": str(method)}


# ---- what was given

def grouped(results):
    """{method: [Result, ...]} of a Result, a list of Results or such a dictionary; PlotError if none."""
    if isinstance(results, Result):
        results = [results]
    if isinstance(results, dict):
        groups = {k: [v] if isinstance(v, Result) else list(v) for k, v in results.items()}
    else:
        groups = {}
        for r in results:
            groups.setdefault(r.about.get("method", "learner"), []).append(r)
    if not groups or not all(groups.values()):
        raise PlotError("there are no results to plot: give a Result, a list of them, or {method: list}")
    return groups


def _alike(results):
    """Groups of results that share their tasks."""
    groups = grouped(results)
    sizes = {tuple(r.sizes) for seeds in groups.values() for r in seeds}
    if len(sizes) > 1:
        raise PlotError(
            f"these results have different tasks (classes per task {' and '.join(map(str, sorted(sizes)))}): "
            "plot one benchmark at a time"
        )
    return groups


def _one(results):
    """The seeds of the one method that a plot shows."""
    groups = _alike(results)
    if len(groups) > 1:
        raise PlotError(
            f"this plot shows one method, not {len(groups)} ({', '.join(groups)}): give the results of one"
        )
    return next(iter(groups.values()))


def _stage(seeds, stage):
    """A stage counted from 0 (negative: from the end), checked."""
    stages = min(len(r.seen) for r in seeds)
    if not -stages <= stage < stages:
        raise PlotError(f"there are {stages} learning stages, numbered from 0: there is no stage {stage}")
    return stage % stages


def _intervals(rows):
    """rows (n, X) -> means (X,) and half-widths (X,) in percent, half-widths NaN for n = 1."""
    both = [interval(column) for column in np.asarray(rows, dtype=float).T]
    return 100 * np.array([i.mean for i in both]), 100 * np.array([i.half for i in both])


def kind(groups):
    """What intervals over these groups are, e.g. "95 % t-interval, n = 5", or that there is a single seed."""
    counts = sorted({len(seeds) for seeds in grouped(groups).values()})
    if counts == [1]:
        return "single seed, n = 1"
    n = f"n = {counts[0]}" if len(counts) == 1 else f"n = {counts[0]} to {counts[-1]}"
    return f"{interval([0.0, 1.0]).kind}, {n}"


# ---- the frame

def _axes(ax, size):
    """(axes to draw on, whether they were made here); size: width and height in inches of a figure made here.
    """
    if ax is not None:
        return ax, False
    return plt.subplots(figsize=size, layout="constrained")[1], True


def _dress(ax, x=None, y=None, grid="y"):
    """Labels, tick sizes, a light grid behind the data and no box."""
    if x is not None:
        ax.set_xlabel(x, fontsize=_LABEL)
    if y is not None:
        ax.set_ylabel(y, fontsize=_LABEL)
    ax.tick_params(labelsize=_TICK)
    ax.spines[["top", "right"]].set_visible(False)
    ax.set_axisbelow(True)
    if grid:
        ax.grid(axis=grid, color="#DDDDDD", linewidth=0.8)


def _legend(ax, title=None, **options):
    """A legend right of the axes, where it can hide no data."""
    options = {"loc": "upper left", "bbox_to_anchor": (1.01, 1.0), "frameon": False, "fontsize": _TICK,
               "alignment": "left"} | options
    legend = ax.legend(title=title, title_fontsize=_TICK - 1, **options)
    return legend


def _percent_axis(ax, top=100):
    ax.set_ylim(0, top * 1.03)


def _numbers(values):
    """0, 1, 2, 4 -> "0-2, 4"."""
    values, parts = sorted(set(values)), []
    for v in values:
        if parts and v == parts[-1][1] + 1:
            parts[-1][1] = v
        else:
            parts.append([v, v])
    return ", ".join(str(a) if a == b else f"{a}-{b}" for a, b in parts)


def _listed(values):
    return ", ".join(dict.fromkeys(str(v) for v in values if v))


_EMBEDDED = ("digits", "digits28", "shapes")


def warning(results):
    """What a reader must not overlook: "" for the benchmark's own data and a preset that is no test."""
    said = []
    for r in (r for seeds in grouped(results).values() for r in seeds):
        data, benchmark = _data(r).partition("(")[0], str(r.about.get("benchmark", ""))
        if r.about.get("preset") == "smoke":
            said.append("SMOKE TEST, NOT A RESULT")
        if data in _EMBEDDED and benchmark and data.removesuffix("28") not in benchmark:
            said.append(f"STAND-IN DATA: {_data(r)}")
    return " · ".join(dict.fromkeys(said))


def _data(result):
    return str((result.about.get("stream") or {}).get("data", "unknown data"))


def provenance(results):
    """One line that says what was run: benchmark, data, preset, seeds, versions."""
    every = [r for seeds in grouped(results).values() for r in seeds]
    about = [r.about for r in every]
    versions = [a.get("versions") or {} for a in about]
    seeds = [a["seed"] for a in about if "seed" in a]
    parts = [_listed(a.get("benchmark") for a in about), _listed(f"data {_data(r)}" for r in every),
             _listed(f"{a['preset']} preset" for a in about if a.get("preset")),
             f"seed{'s' if len(set(seeds)) > 1 else ''} {_numbers(seeds)}" if seeds else "",
             *(_listed(f"{name} {v[name]}" for v in versions if v.get(name)) for name in ("clkit", "torch"))]
    return " · ".join(p for p in parts if p)


def stamp(where, results):
    """Print small, at the foot of a figure, what its results come from; returns the Text.

    where: Figure or Axes.   results: as for the plots, or a text for a figure that shows no results. Where
    the data are an embedded stand-in, or the preset is smoke, the line stands white on red and says so first.
    Calling it again replaces the line.
    """
    figure = where if hasattr(where, "savefig") else where.figure
    mark, line = ("", results) if isinstance(results, str) else (warning(results), provenance(results))
    width = int(figure.get_figwidth() * 72 / (_SMALL * (0.66 if mark else 0.56)))
    if "STAND-IN" in mark:                              # the mark names the data
        line = " · ".join(p for p in line.split(" · ") if not p.startswith("data "))
    parts = [p.replace(" ", "\u00a0") for p in " · ".join(p for p in (mark, line) if p).split(" · ")]
    text = "\n".join(textwrap.wrap(" · ".join(parts), max(width, 30), break_on_hyphens=False)).replace(
        "\u00a0", " "
    )
    place = {} if figure.get_layout_engine() is not None else {"y": -0.01, "va": "top"}
    look = (
        {
            "color": "white",
            "weight": "bold",
            "bbox": {"facecolor": "#B22200", "edgecolor": "none", "pad": 2.5},
        }
        if mark
        else {"color": "#555555", "weight": "normal"}
    )
    note = figure.supxlabel(text, x=0.012, ha="left", fontsize=_SMALL, **place, **look)
    note.set_gid("stamp")
    return note


def _finish(ax, made, results):
    if made:
        stamp(ax, results)
    return ax


# ---- one method

def plot_accuracy_matrix(results, *, within=False, last=-1, colorbar=True, ax=None):
    """Heat map of the accuracy in percent on each task (columns) after each stage (rows), mean over seeds.

    within: task-aware accuracy (a choice among the classes of the image's own task) in place of
    class-incremental.   last: the last stage to draw, from 0; later rows, and tasks that are not learned yet,
    are left empty.
    """
    seeds = _one(results)
    last = _stage(seeds, last)
    rows = np.array([r.within_accuracy() if within else r.accuracy() for r in seeds])
    values = 100 * rows.mean(axis=0)                                                # (R, T)
    unseen = np.cumsum(seeds[0].sizes)[None, :] > np.asarray(seeds[0].seen)[:, None]
    values = np.where(unseen, np.nan, values)
    values[last + 1:] = np.nan
    stages, tasks = values.shape
    ax, made = _axes(ax, (1.6 + 0.62 * tasks, 1.6 + 0.6 * max(stages, 2)) if tasks <= 12 else (6.4, 5.4))
    name = "task-aware accuracy (%)" if within else "accuracy (%)"
    _heat(
        ax,
        values,
        f"{name}, {_mean_of(seeds)}",
        colorbar,
        annotated=tasks <= 12,
        line=0.5 if tasks <= 12 else 0,
    )
    step = max(1, -(-tasks // 10))
    ax.set_xticks(np.arange(0, tasks, step) + 0.5, range(1, tasks + 1, step), rotation=0)
    if stages == tasks:
        ax.set_yticks(np.arange(0, stages, step) + 0.5, range(1, stages + 1, step), rotation=0)
    else:                                               # joint training: one stage for all tasks
        ax.set_yticks([0.5], ["all"], rotation=0)
    _dress(ax, "tested on task", "after learning task", grid=None)
    ax.set_title(_label(seeds), fontsize=_LABEL + 1)
    return _finish(ax, made, seeds)


def _label(seeds):
    return style(seeds[0].about.get("method", "learner"))["label"]


def _mean_of(seeds):
    return f"mean of {len(seeds)} seeds" if len(seeds) > 1 else "one seed"


def _heat(ax, values, label, colorbar, annotated, size=_TICK, line=0.5):
    """Percentages as a heat map on the fixed scale from 0 to 100; NaN stays white."""
    flat = len(values) <= 2                             # too low for a colour bar beside it
    bar = (
        {"label": label, "orientation": "horizontal" if flat else "vertical", "shrink": 0.9}
        if colorbar
        else None
    )
    seaborn.heatmap(
        values,
        mask=np.isnan(values),
        vmin=0,
        vmax=100,
        cmap=SEQUENTIAL,
        annot=annotated,
        fmt=".0f",
        annot_kws={"fontsize": size},
        linewidths=line,
        square=True,
        rasterized=values.size > 2500,  # an SVG of so many squares has megabytes
        cbar=colorbar,
        cbar_kws=bar,
        ax=ax,
    )
    if colorbar:
        ax.collections[0].colorbar.ax.tick_params(labelsize=_TICK)
        ax.collections[0].colorbar.outline.set_visible(False)


def plot_tasks(results, *, within=False, legend=True, ax=None):
    """Accuracy in percent on each task over the stages that follow: a line a task, mean and interval.

    With more than ten tasks the intervals would hide the lines, and are left out.
    """
    seeds = _one(results)
    rows = np.array([r.within_accuracy() if within else r.accuracy() for r in seeds])   # (n, R, T)
    ax, made = _axes(ax, (6.6, 3.6))
    tasks, ends, seen = rows.shape[2], np.cumsum(seeds[0].sizes), np.asarray(seeds[0].seen)
    colors = colormaps[SEQUENTIAL](np.linspace(0, 0.88, tasks))
    for j in range(tasks):
        stages = np.flatnonzero(seen >= ends[j])
        mean, half = _intervals(rows[:, stages, j])
        ax.plot(
            stages + 1,
            mean,
            color=colors[j],
            marker="os^Dv<>pPX"[j % 10],
            markersize=5,
            clip_on=False,
            label=f"{j + 1}",
        )
        if tasks <= 10:
            _band(ax, stages + 1, mean, half, colors[j])
    what = "task-aware accuracy (%)" if within else "accuracy (%)"
    _dress(ax, "tasks learned", what)
    _percent_axis(ax)
    _whole_ticks(ax, len(seen))
    if legend:
        note = kind(seeds) if tasks <= 10 else _mean_of(seeds)
        _legend(ax, f"tested on task\n({note})", ncols=1 + (tasks - 1) // 10)
    ax.set_title(_label(seeds), fontsize=_LABEL + 1)
    return _finish(ax, made, seeds)


def _band(ax, x, mean, half, color):
    if not np.isnan(half).all():
        ax.fill_between(x, mean - half, mean + half, color=color, alpha=0.2, linewidth=0)


def _whole_ticks(ax, last):
    step = max(1, -(-last // 10))
    ax.set_xticks(range(1, last + 1, step))


def plot_confusion(results, stage=-1, *, by_group=False, colorbar=True, ax=None):
    """Confusion after a stage: row = true class, column = predicted class, in percent of the row, all seeds.

    stage: from 0, negative from the end.   by_group: order the classes by superclass instead of by arrival.
    Lines separate the tasks (or the superclasses).
    """
    seeds = _one(results)
    stage = _stage(seeds, stage)
    counts = sum(r.confusion(stage) for r in seeds)                                 # (K, K)
    order, parts, names = _class_order(seeds[0], len(counts), by_group)
    counts = counts[np.ix_(order, order)]
    share = 100 * counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    K = len(share)
    ax, made = _axes(ax, (5.4, 4.6) if K <= 20 else (6.6, 5.8))
    _heat(
        ax,
        share,
        "share of the true class (%),"
        f" {'all ' + str(len(seeds)) + ' seeds' if len(seeds) > 1 else 'one seed'}",
        colorbar,
        annotated=K <= 10,
        size=_TICK - 1,
        line=0,
    )
    for edge in np.cumsum(parts)[:-1]:
        ax.axhline(edge, color="white", linewidth=2.5 if K <= 20 else 0.6)
        ax.axvline(edge, color="white", linewidth=2.5 if K <= 20 else 0.6)
    _class_ticks(
        ax, [names[k] for k in order], parts, [g for g in _groups_of(seeds[0], order)] if by_group else None
    )
    _dress(ax, "predicted class", "true class", grid=None)
    learned = "all tasks" if len(seeds[0].seen) == 1 else f"task {stage + 1}"
    ax.set_title(f"{_label(seeds)}, after {learned}", fontsize=_LABEL + 1)
    return _finish(ax, made, seeds)


def _class_order(result, seen, by_group):
    """Order of the seen classes, the sizes of the blocks in it, and the class names."""
    if not by_group:
        ends = np.minimum(np.cumsum(result.sizes), seen)
        parts = np.diff(ends, prepend=0)
        return np.arange(seen), parts[parts > 0], result.names
    if result.groups is None:
        raise PlotError("these classes have no superclasses: leave by_group out")
    groups = list(dict.fromkeys(result.groups))
    place = np.array([groups.index(g) for g in result.groups[:seen]])
    order = sorted(range(seen), key=lambda k: (place[k], result.names[k]))
    parts = np.bincount(place, minlength=len(groups))
    return np.array(order), parts[parts > 0], result.names


def _groups_of(result, order):
    return list(dict.fromkeys(result.groups[k] for k in order))


def _class_ticks(ax, names, parts, groups):
    """Class names where they fit, else the names of the superclasses, else numbers."""
    K = len(names)
    if groups is not None and K > 20:
        middle = np.cumsum(parts) - np.asarray(parts) / 2
        ax.set_xticks(middle, groups, rotation=90)
        ax.set_yticks(middle, groups, rotation=0)
    elif K <= 20:
        ax.set_xticks(np.arange(K) + 0.5, names, rotation=0 if max(map(len, names)) <= 2 else 90)
        ax.set_yticks(np.arange(K) + 0.5, names, rotation=0)
    else:
        step = -(-K // 10)
        ax.set_xticks(np.arange(0, K, step) + 0.5, range(0, K, step), rotation=0)
        ax.set_yticks(np.arange(0, K, step) + 0.5, range(0, K, step), rotation=0)


def plot_loss(results, column="loss", *, table="loss", ax=None):
    """A column of a trace table over the rows of all tasks, one after another; mean and interval.

    Tasks are separated by lines. Seeds with different numbers of rows (early stopping) are drawn one by one.
    """
    seeds = _one(results)
    curves = [_traced(r, table, column) for r in seeds]  # [(tasks (X,), values (X,))]
    ax, made = _axes(ax, (6.6, 3.4))
    look = style(seeds[0].about.get("method", "learner"))
    tasks = curves[0][0]
    if all(np.array_equal(t, tasks) for t, _ in curves):
        mean, half = (v / 100 for v in _intervals([v for _, v in curves]))
        ax.plot(np.arange(1, len(mean) + 1), mean, color=look["color"])
        _band(ax, np.arange(1, len(mean) + 1), mean, half, look["color"])
        note = f"mean, {kind(seeds)}" if len(seeds) > 1 else kind(seeds)
    else:
        for _, values in curves:
            ax.plot(np.arange(1, len(values) + 1), values, color=look["color"], alpha=0.6, linewidth=1)
        note = f"{len(seeds)} seeds, each drawn"
    for edge in np.flatnonzero(np.diff(tasks)) + 1.5:
        ax.axvline(edge, color="#AAAAAA", linewidth=0.8, linestyle=":")
    if len(set(tasks)) <= 20:
        for t in sorted(set(tasks)):
            ax.text(
                np.flatnonzero(tasks == t).mean() + 1,
                1.0,
                f"task {t + 1}" if len(set(tasks)) <= 6 else f"{t + 1}",
                transform=ax.get_xaxis_transform(),
                ha="center",
                va="bottom",
                fontsize=_TICK - 1,
                color="#555555",
            )
    unit = "batches" if "step" in seeds[0].trace[table] else "epochs"
    _dress(ax, f"{unit}, tasks one after another", f"{column}\n({note})")
    ax.margins(x=0.02)
    ax.set_title(_label(seeds), fontsize=_LABEL + 1, pad=16)
    return _finish(ax, made, seeds)


def _traced(result, table, column):
    """(task (X,), values (X,)) of a column of numbers."""
    return (np.asarray(_column(result, table, "task")).astype(int),
            np.asarray(_column(result, table, column), dtype=float))


def _column(result, table, column):
    """The rows of a column of a trace table; PlotError if the result has none."""
    if table not in result.trace or column not in result.trace[table]:
        has = (
            ", ".join(f"{t}/{c}" for t, columns in result.trace.items() for c in columns if c != "task")
            or "none"
        )
        raise PlotError(
            f"there is no trace {table}/{column} in this result (it has {has}): run again with"
            f" keep=('{table}',)"
        )
    return result.trace[table][column]


# ---- several methods

def plot_averages(results, *, over="tasks", x="tasks", legend=True, ax=None):
    """Average accuracy in percent over the tasks seen so far: a line a method, mean and interval.

    over: see Result.averages.   x: "tasks" or "classes" learned. A method that has one stage only (joint
    training) is a horizontal line.
    """
    groups = _alike(results)
    ax, made = _axes(ax, (6.8, 3.8))
    for method, seeds in groups.items():
        _curve(ax, method, seeds, [r.averages(over) for r in seeds], x)
    _dress(ax, f"{x} learned", "average accuracy (%)" + (", over images" if over == "images" else ""))
    _percent_axis(ax)
    _stage_ticks(ax, groups, x)
    if legend:
        _legend(ax, _lines_title(groups))
    return _finish(ax, made, groups)


def _lines_title(groups):
    return f"mean and {kind(groups)}" if any(len(s) > 1 for s in groups.values()) else kind(groups)


def _curve(ax, method, seeds, rows, x="tasks"):
    """One line with its band; rows (n, R) fractions. A single stage becomes a horizontal line."""
    look = style(method)
    mean, half = _intervals(rows)
    if len(mean) == 1 and len(seeds[0].sizes) > 1:
        line = {k: look[k] for k in ("color", "linestyle", "label")}
        ax.axhline(mean[0], **line)
        if not np.isnan(half[0]):
            ax.axhspan(mean[0] - half[0], mean[0] + half[0], color=look["color"], alpha=0.2, linewidth=0)
        return
    at = np.asarray(seeds[0].seen) if x == "classes" else np.arange(1, len(mean) + 1)
    ax.plot(at, mean, markersize=6, clip_on=False, zorder=3, **look)
    _band(ax, at, mean, half, look["color"])


def _stage_ticks(ax, groups, x):
    ends = np.cumsum(next(iter(groups.values()))[0].sizes)
    if x == "classes":
        ax.set_xticks(ends[::max(1, -(-len(ends) // 10))])
        ax.set_xlim(ends[0] - 0.03 * ends[-1], ends[-1] * 1.03)
    else:
        _whole_ticks(ax, len(ends))
        ax.set_xlim(1 - 0.03 * len(ends), len(ends) * 1.03)


def plot_newest(results, *, legend=True, ax=None):
    """Share of the predictions on the newest task after each stage, in percent; dotted: its true share."""
    groups = {m: s for m, s in _alike(results).items() if len(s[0].seen) > 1}
    if not groups:
        raise PlotError(
            "joint training has one stage, so no newest task: give a method that learns task after task"
        )
    ax, made = _axes(ax, (6.8, 3.6))
    for method, seeds in groups.items():
        _curve(ax, method, seeds, [[r.newest_share(s) for s in range(len(r.seen))] for r in seeds])
    first = next(iter(groups.values()))[0]
    counts = np.bincount(first.task_of, minlength=first.tasks)
    ax.plot(
        np.arange(1, first.tasks + 1),
        100 * counts / np.cumsum(counts),
        color="black",
        linestyle=":",
        linewidth=1.5,
        label="images of that task",
    )
    _dress(ax, "tasks learned", "predicted as newest task (%)")
    _percent_axis(ax)
    _stage_ticks(ax, groups, "tasks")
    if legend:
        _legend(ax, _lines_title(groups))
    return _finish(ax, made, groups)


def plot_task(results, task=0, *, legend=True, ax=None):
    """Accuracy on one task (from 0) over the stages, a line a method, mean and interval, in percent."""
    groups = _alike(results)
    tasks = next(iter(groups.values()))[0].tasks
    if not 0 <= task < tasks:
        raise PlotError(f"there are {tasks} tasks, numbered from 0: there is no task {task}")
    ax, made = _axes(ax, (6.8, 3.6))
    for method, seeds in groups.items():
        _curve(ax, method, seeds, [r.accuracy()[:, task] for r in seeds])
    _dress(ax, "tasks learned", f"accuracy on task {task + 1} (%)")
    _percent_axis(ax)
    _stage_ticks(ax, groups, "tasks")
    if legend:
        _legend(ax, _lines_title(groups))
    return _finish(ax, made, groups)


def plot_forgetting(results, *, ax=None):
    """Forgetting (Result.forgetting) of each method as a bar, mean and interval in points; a dot a seed.

    Methods for which it is undefined (one stage) are left out.
    """
    groups = {m: s for m, s in _alike(results).items() if len(s[0].seen) > 1}
    if not groups:
        raise PlotError("forgetting needs a method with two learning stages or more")
    ax, made = _axes(ax, (1.8 + 1.0 * len(groups), 3.6))
    for n, (method, seeds) in enumerate(groups.items()):
        _bar(ax, n, 0.7, [r.forgetting() for r in seeds], style(method)["color"])
    _method_ticks(ax, groups)
    _dress(ax, None, f"forgetting (percentage points)\nmean and {kind(groups)}")
    _bar_limits(ax)
    return _finish(ax, made, groups)


def _bar(ax, at, width, values, color, hatch=None):
    """A bar with its interval, its value, and a dot a seed; values (n,) fractions."""
    values = 100 * np.asarray(values, dtype=float)
    i = interval(values)
    face = color if hatch is None else to_rgba(color, 0.25)
    ax.bar(at, i.mean, width, color=face, edgecolor=color, hatch=hatch, linewidth=1, zorder=2)
    top = max(i.mean, 0)
    if i.n > 1:
        ax.errorbar(at, i.mean, i.half, color="black", capsize=4, linewidth=1.2, zorder=4)
        spread = np.linspace(-0.2, 0.2, i.n) * width
        ax.plot(
            at + spread,
            values,
            "o",
            color="white",
            markeredgecolor="black",
            markersize=3,
            markeredgewidth=0.7,
            zorder=3,
        )
        top = max(top, i.mean + i.half, values.max())
    ax.annotate(
        f"{round(i.mean, 1) + 0.0:.1f}",  # never "-0.0"
        (at, top),
        xytext=(0, 3),
        textcoords="offset points",
        ha="center",
        va="bottom",
        fontsize=_TICK,
    )


def _bar_limits(ax, most=None):
    low, high = ax.get_ylim()
    ax.set_ylim(min(low, 0), most or high * 1.06)
    if low < 0:
        ax.axhline(0, color="black", linewidth=0.8)


def _method_ticks(ax, groups):
    names = [style(m)["label"].replace(" (", "\n(") for m in groups]
    ax.set_xticks(range(len(names)), names)


def plot_scenarios(results, *, ax=None):
    """Final average accuracy of the same weights, asked without (plain) and with the task (hatched).

    Left bar of a method: class-incremental, a choice among all classes; right bar: task-aware, a choice among
    the classes of the image's own task. Means and intervals in percent; a dot a seed.
    """
    groups = _alike(results)
    ax, made = _axes(ax, (2.2 + 1.15 * len(groups), 3.8))
    for n, (method, seeds) in enumerate(groups.items()):
        color = style(method)["color"]
        _bar(ax, n - 0.2, 0.36, [r.average() for r in seeds], color)
        _bar(ax, n + 0.2, 0.36, [r.within_average() for r in seeds], color, hatch="///")
    _method_ticks(ax, groups)
    _dress(ax, None, f"average accuracy (%)\nmean and {kind(groups)}")
    _bar_limits(ax, 109)
    ax.set_yticks(range(0, 101, 20))
    handles = [
        Patch(facecolor=_GREY, edgecolor=_GREY, label="task not told: class-incremental"),
        Patch(facecolor=to_rgba(_GREY, 0.25), edgecolor=_GREY, hatch="///", label="task told: task-aware"),
    ]
    _legend(ax, handles=handles, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2)
    return _finish(ax, made, groups)


def plot_memory(results, stage=-1, *, ax=None):
    """What each method (its first seed) keeps between tasks, in MB of 10^6 bytes, by kind: a bar each."""
    groups = grouped(results)
    ax, made = _axes(ax, (6.8, 1.5 + 0.42 * len(groups)))
    kinds = list(dict.fromkeys(k for seeds in groups.values() for k in seeds[0].kept))
    kinds.sort(key=lambda k: list(KINDS).index(k) if k in KINDS else len(KINDS))
    left = np.zeros(len(groups))
    for k in kinds:
        sizes = np.array(
            [seeds[0].kept[k][stage] / 1e6 if k in seeds[0].kept else 0.0 for seeds in groups.values()]
        )
        ax.barh(
            range(len(groups)),
            sizes,
            left=left,
            height=0.65,
            color=KINDS.get(k, "#BBBBBB"),
            edgecolor="white",
            linewidth=0.8,
            label=k,
        )
        left += sizes
    for n, total in enumerate(left):
        ax.annotate(
            _megabytes(total),
            (total, n),
            xytext=(4, 0),
            textcoords="offset points",
            va="center",
            fontsize=_TICK,
        )
    ax.set_yticks(range(len(groups)), [style(m)["label"] for m in groups])
    ax.invert_yaxis()
    _dress(ax, "kept between tasks (MB)", None, grid="x")
    ax.set_xlim(0, left.max() * 1.15)
    _legend(ax, "kind")
    return _finish(ax, made, groups)


def _megabytes(size):
    return f"{size:.2f}" if size < 10 else f"{size:.1f}" if size < 100 else f"{size:,.0f}"


def plot_tradeoff(results, setting="memory", *, references=None, ax=None):
    """Final average accuracy in percent of one method against a setting that was varied, with intervals.

    results: Results whose config differs in `setting`; seeds of one value are pooled.
    references: {method: seeds} drawn as horizontal lines.
    """
    results = [r for seeds in grouped(results).values() for r in seeds]
    references = grouped(references) if references else {}
    points = {}
    for r in results:
        if setting not in r.about["config"]:
            raise PlotError(
                f"these results have no setting '{setting}': they have {', '.join(r.about['config'])}"
            )
        points.setdefault(r.about["config"][setting], []).append(r)
    values = sorted(points)
    both = [interval([r.average() for r in points[v]]) for v in values]
    ax, made = _axes(ax, (6.8, 3.8))
    look = style(results[0].about.get("method", "learner"))
    halves = [0 if i.n < 2 else 100 * i.half for i in both]
    ax.errorbar(values, [100 * i.mean for i in both], halves, capsize=4, zorder=3, **look)
    for method, seeds in references.items():
        _curve(ax, method, seeds, [[r.average()] for r in seeds])
    if values[0] > 0 and values[-1] >= 10 * values[0]:
        ax.set_xscale("log")
    ax.set_xticks(values, [f"{v:,}" for v in values])
    ax.minorticks_off()
    names = {"memory": "images kept in the memory"}
    _dress(ax, names.get(setting, setting), "average accuracy (%)")
    _percent_axis(ax)
    _legend(ax, _lines_title(points | references))
    return _finish(ax, made, results + [r for seeds in references.values() for r in seeds])


def plot_errors(shares, *, ax=None):
    """Kinds of answers as stacked bars, in percent.

    shares: {bar: {kind of answer: share, or shares of the seeds}}, as clkit.analysis.confusion.answers gives
    them. The first kind is drawn in a pale grey, as the one that is no error.
    """
    ax, made = _axes(ax, (6.8, 1.4 + 0.5 * len(shares)))
    kinds = list(dict.fromkeys(k for parts in shares.values() for k in parts))
    left = np.zeros(len(shares))
    for k, color in zip(kinds, ("#CFCFCF", _ORANGE, _BLUE, _GREEN, _WINE)):
        sizes = np.array([100 * np.mean(parts.get(k, 0.0)) for parts in shares.values()])
        bars = ax.barh(
            range(len(shares)), sizes, left=left, height=0.6, color=color, edgecolor="white", label=k
        )
        ax.bar_label(bars, [f"{s:.1f}" if s >= 8 else "" for s in sizes], label_type="center", fontsize=_TICK,
                     color="white" if color in (_BLUE, _WINE) else "black")
        left += sizes
    ax.set_yticks(range(len(shares)), list(shares))
    ax.invert_yaxis()
    ax.set_xlim(0, 100)
    _dress(ax, "share of the test images (%)", None, grid="x")
    _legend(
        ax,
        "answer",
        **({} if made else {"loc": "lower center", "bbox_to_anchor": (0.5, 1.0), "ncols": len(kinds)}),
    )
    return ax


def plot_sizes(results, sizes=None, *, ax=None):
    """How many numbers (not bytes) each method holds after the last task: a bar each, on a log scale.

    sizes: {method: {"parameters": int, "extra": int}}, as clkit.analysis.masks.sizes gives them; without it,
    the parameters of each method's first seed. Solid: parameters; hatched: what is kept beside them. A log
    scale shows ratios: the hatched part of a bar is to be read from the numbers beside it.
    """
    groups = grouped(results)
    if sizes is None:
        sizes = {m: {"parameters": int(s[0].parameters[-1])} for m, s in groups.items()}
    if set(groups) - set(sizes):
        raise PlotError(f"sizes has no entry for {', '.join(sorted(set(groups) - set(sizes)))}")
    parts = [(sizes[m]["parameters"], sizes[m].get("extra", 0)) for m in groups]
    if min(p for p, _ in parts) < 1 or min(e for _, e in parts) < 0:
        raise PlotError("sizes on a log scale must be at least 1 parameter, and extra at least 0")
    ax, made = _axes(ax, (7.2, 1.7 + 0.42 * len(groups)))
    low = 10 ** np.floor(np.log10(min(p for p, _ in parts) / 1.5))
    for n, (method, (held, extra)) in enumerate(zip(groups, parts, strict=True)):
        color = style(method)["color"]
        ax.barh(n, held - low, left=low, height=0.65, color=color, edgecolor=color)
        if extra:
            ax.barh(n, extra, left=held, height=0.65, color=to_rgba(color, 0.2), edgecolor=color, hatch="///")
        text = f"{held:,}" + (f" + {extra:,}" if extra else "")
        ax.annotate(text, (held + extra, n), xytext=(4, 0), textcoords="offset points", va="center",
                    fontsize=_TICK)
    high = max(p + e for p, e in parts)
    ax.set_xscale("log")
    ax.set_xlim(low, high * (high / low) ** 0.4)
    ax.set_yticks(range(len(groups)), [style(m)["label"] for m in groups])
    ax.invert_yaxis()
    ax.minorticks_off()
    _dress(ax, "numbers held after the last task (log scale)", None, grid="x")
    if any(e for _, e in parts):
        handles = [Patch(facecolor=_GREY, edgecolor=_GREY, label="parameters"),
                   Patch(facecolor=to_rgba(_GREY, 0.2), edgecolor=_GREY, hatch="///",
                         label="kept beside them")]
        _legend(ax, handles=handles, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2)
    return _finish(ax, made, groups)


def plot_task_bars(results, *, legend=True, ax=None):
    """Accuracy in percent on each task after the last stage, and last their average: a bar a method.

    Means and intervals; a dot a seed where there are several. A bar that is missing because its accuracy
    rounds to 0 % is marked by a small 0. A second method of one colour is hatched.
    """
    groups = _alike(results)
    tasks = next(iter(groups.values()))[0].tasks
    ax, made = _axes(ax, (min(10.0, 2.6 + (tasks + 1) * (0.3 + 0.17 * len(groups))), 3.8))
    at = np.append(np.arange(tasks), tasks + 0.25)                                  # (T + 1,)
    width, hatches = 0.82 / len(groups), _hatches(groups)
    for n, (method, seeds) in enumerate(groups.items()):
        rows = np.array([r.accuracy()[-1] for r in seeds])                          # (n, T)
        rows = np.column_stack([rows, [r.average() for r in seeds]])                # (n, T + 1)
        _bar_row(ax, at + (n - (len(groups) - 1) / 2) * width, width, rows, style(method), hatches[method])
    ax.axvline(tasks - 0.375, color="#AAAAAA", linewidth=0.8, linestyle=":")
    ax.set_xticks(at, [*range(1, tasks + 1), "average"])
    ax.set_xlim(-0.55, at[-1] + 0.55)
    _dress(ax, "tested on task", f"accuracy after the last task (%)\n{_lines_title(groups)}")
    _percent_axis(ax)
    if legend:
        _legend(ax)
    return _finish(ax, made, groups)


def _hatches(groups):
    """{method: hatch}: None for the first method of each colour, another hatch for each further one."""
    colors = [style(m)["color"] for m in groups]
    return {m: (None, "////", "....", "xxxx")[colors[:n].count(colors[n]) % 4] for n, m in enumerate(groups)}


def _bar_row(ax, at, width, rows, look, hatch):
    """The bars of one method at the places `at` (X,); rows (n, X) fractions."""
    mean, half = _intervals(rows)
    color = look["color"]
    face = color if hatch is None else to_rgba(color, 0.2)
    ax.bar(at, mean, width * 0.92, color=face, edgecolor=color, hatch=hatch, linewidth=0.8, zorder=2,
           label=look["label"])
    if len(rows) > 1:
        ax.errorbar(at, mean, half, fmt="none", ecolor="black", capsize=2, linewidth=1, zorder=4)
        spread = np.linspace(-0.28, 0.28, len(rows))[:, None] * width
        ax.plot((at + spread).ravel(), 100 * rows.ravel(), "o", color="white", markeredgecolor="black",
                markersize=2.2, markeredgewidth=0.5, zorder=3)
    for x in at[mean < 0.5]:
        ax.annotate("0", (x, 0), xytext=(0, 1), textcoords="offset points", ha="center", va="bottom",
                    fontsize=_SMALL)


_FINALS = {"accuracy": (Result.average, "average accuracy after the last task (%)"),
           "forgetting": (Result.forgetting, "forgetting (percentage points)")}


def plot_ablation(variants, *, baseline=None, score="accuracy", ax=None):
    """A final score in percent of variants of one method: a dot with its interval each.

    variants: {label: list of scores (fractions, one a seed) or of Results}.   baseline: a label among
    them, or such a list: its mean is drawn as a vertical line, its interval as a band.   score: "accuracy"
    (average over the tasks) or "forgetting"; a variant for which it is undefined has an empty row. Small open
    dots are seeds.
    """
    if score not in _FINALS:
        raise PlotError(f"the score is one of {', '.join(_FINALS)}, not {score!r}")
    groups = {label: _finals(label, values, score) for label, values in variants.items()}
    if not groups:
        raise PlotError("there are no variants to plot: give {label: list of accuracies or of Results}")
    name = baseline if isinstance(baseline, str) else "baseline"
    if isinstance(baseline, str) and baseline not in groups:
        raise PlotError(f"there is no variant '{baseline}' to be the baseline: there are {', '.join(groups)}")
    ax, made = _axes(ax, (6.8, 1.6 + 0.36 * len(groups)))
    if baseline is not None:
        values = groups[name] if isinstance(baseline, str) else _finals("baseline", baseline, score)
        i = interval(values)
        ax.axvline(100 * i.mean, color=_GREY, linestyle=_DASHED, linewidth=1.2, zorder=1,
                   label=f"{name}: mean and interval, n = {i.n}" if i.n > 1 else f"{name}, n = 1")
        if i.n > 1:
            ax.axvspan(100 * (i.mean - i.half), 100 * (i.mean + i.half), color=_GREY, alpha=0.2, linewidth=0)
    differ = len({len(values) for values in groups.values()}) > 1
    for n, values in enumerate(groups.values()):
        i = interval(values)
        if i.n > 1:
            ax.plot(100 * values, np.full(i.n, n), "o", color="white", markeredgecolor=_BLUE, markersize=3.5,
                    markeredgewidth=0.8, alpha=0.7, zorder=2)
            ax.errorbar(100 * i.mean, n, xerr=100 * i.half, color=_BLUE, capsize=4, linewidth=1.4, zorder=3)
        ax.plot(100 * i.mean, n, "o", color=_BLUE, markersize=7, zorder=4)
        said = "–" if np.isnan(i.mean) else f"{100 * i.mean:.1f}" + (f" (n = {i.n})" if differ else "")
        ax.annotate(said, (1.01, n), xycoords=("axes fraction", "data"), va="center", fontsize=_TICK)
    ax.set_yticks(range(len(groups)), groups)
    ax.set_ylim(len(groups) - 0.5, -0.5)
    _dress(ax, f"{_FINALS[score][1]}\n{_lines_title(groups)}", None, grid="x")
    if baseline is not None:
        _legend(ax, loc="lower center", bbox_to_anchor=(0.5, 1.0))
    shown = [r for values in variants.values() for r in _results(values)]
    return _finish(ax, made and bool(shown), shown)


def _results(values):
    """Those that are Results, of one or of a list of Results or numbers."""
    return [r for r in ([values] if isinstance(values, Result) else values) if isinstance(r, Result)]


def _finals(label, values, score="accuracy"):
    """(n,) final scores of Results or of numbers; NaN where a score is undefined."""
    values = [values] if isinstance(values, Result) else list(values)
    values = np.array([_FINALS[score][0](v) if isinstance(v, Result) else v for v in values], dtype=float)
    if score == "accuracy" and not (len(values) and ((values >= 0) & (values <= 1)).all()):
        raise PlotError(f"'{label}' must have one accuracy or more, as fractions in [0, 1], or Results")
    if not len(values) or (np.abs(values) > 1).any():
        raise PlotError(f"'{label}' must have one value of {score} or more, as fractions in [-1, 1], or "
                        "Results")
    return values


# ---- learning online, a batch at a time

def _lengths(result):
    """(T,) how many batches each task had: the rows of its table "loss"."""
    return np.bincount(np.asarray(_column(result, "loss", "task")).astype(int), minlength=result.tasks)


def _places(result, table):
    """(X,) how many batches came before each row of a table; its column `step` counts those of the task."""
    task, step = (np.asarray(_column(result, table, c)).astype(int) for c in ("task", "step"))
    lengths = _lengths(result)
    return (np.cumsum(lengths) - lengths)[task] + step


def _same(seeds, found, what):
    """The one value that `found` holds for all seeds."""
    if any(not np.array_equal(found[0], other) for other in found[1:]):
        raise PlotError(f"these {len(seeds)} seeds differ in {what}: plot seeds of one experiment")
    return found[0]


def plot_progress(results, reference=None, *, legend=True, ax=None):
    """Accuracy in percent on each task in the course of the stream: a line a task, mean and interval.

    results: with the trace table "progress": accuracy among all classes on some test images of each task. The
    last point is the accuracy after the last task on all test images (`Result.accuracy`).   reference:
    results of another method, drawn in grey with the markers of the tasks. A strip above marks when each task
    is learned.
    """
    seeds = _one(results)
    at, rows, lengths = _progress(seeds)
    ax, made = _axes(ax, (7.6, 4.0))
    colors = colormaps[SEQUENTIAL](np.linspace(0, 0.88, len(lengths)))
    behind = _one(reference) if reference else []
    for j, color in enumerate(colors):
        mean, half = _intervals(rows[:, :, j])
        ax.plot(at, mean, color=color, marker="os^Dv<>pPX"[j % 10], markersize=4, clip_on=False,
                zorder=3, label=f"{j + 1}")
        if len(lengths) <= 10:                          # as in plot_tasks
            _band(ax, at, mean, half, color)
    if behind:
        _draw_reference(ax, behind, seeds)
    _task_strip(ax, lengths, colors)
    _dress(ax, "batches learned from", "accuracy on the task's test images (%)")
    ax.set_xlim(0, at[-1] * 1.01)
    _percent_axis(ax)
    if legend:
        note = kind(seeds) if len(lengths) <= 10 else _mean_of(seeds)
        _legend(ax, f"tested on task\n({note})", ncols=1 + (len(lengths) - 1) // 10)
    ax.set_title(_label(seeds), fontsize=_LABEL + 1, pad=21)
    return _finish(ax, made, seeds + behind)


def _progress(seeds):
    """(batches before each point (X,), accuracy (n, X, T), batches of each task (T,)), of "progress"."""
    at = _same(seeds, [_places(r, "progress") for r in seeds], "the batches at which they were tested")
    lengths = _same(seeds, [_lengths(r) for r in seeds], "the number of batches")
    rows = [[*np.asarray(_column(r, "progress", "accuracy"), dtype=float), r.accuracy()[-1]] for r in seeds]
    return np.append(at, lengths.sum()), np.array(rows), lengths


def _draw_reference(ax, behind, seeds):
    """Grey lines of another method's seeds, one a task, on axes of plot_progress."""
    if tuple(behind[0].sizes) != tuple(seeds[0].sizes):
        raise PlotError("the reference has other tasks than the results: give runs of one benchmark")
    at, rows, lengths = _progress(behind)
    for j in range(len(lengths)):
        ax.plot(at, _intervals(rows[:, :, j])[0], color="#AAAAAA", linewidth=1, zorder=1, clip_on=False,
                marker="os^Dv<>pPX"[j % 10], markersize=3, markerfacecolor="white",
                label="_" if j else _label(behind) + (", mean" if len(behind) > 1 else ""))


def _task_strip(ax, lengths, colors=None):
    """Thin lines at the starts of the tasks, and above the axes a strip that says when each is learned."""
    ends = np.cumsum(lengths)
    for n, (start, end) in enumerate(zip(ends - lengths, ends)):
        if n:
            ax.axvline(start, color="#AAAAAA", linewidth=0.8, linestyle=":", zorder=0)
        if colors is not None:
            ax.plot([start, end], [1.015, 1.015], color=colors[n], linewidth=3.5, clip_on=False,
                    solid_capstyle="butt", transform=ax.get_xaxis_transform(), label="_")
        if len(lengths) <= 20:
            ax.annotate(f"task {n + 1}" if len(lengths) <= 6 else f"{n + 1}", ((start + end) / 2, 1.02),
                        xytext=(0, 2), textcoords="offset points", xycoords=ax.get_xaxis_transform(),
                        ha="center", va="bottom", fontsize=_TICK - 1, color="#555555")


def plot_recall_map(results, *, vmax=None, colorbar=True, title=None, ax=None):
    """What is recalled in the course of the stream: a column a batch, a row a class, mean over the seeds.

    results: of ARM, with the trace table "recall".   vmax: end of the colour scale in percent, by default the
    largest value. The colour is the mean probability that the old network gives a class on what was
    recalled for a batch. Thin lines are starts of tasks; left of the first, nothing was recalled yet. Where
    the old network is that of the task before, a stepped line has below it the classes it has not met.
    """
    seeds = _one(results)
    lengths = _same(seeds, [_lengths(r) for r in seeds], "the number of batches")
    values = 100 * np.mean([np.asarray(_column(r, "recall", "output"), dtype=float) for r in seeds], axis=0).T
    K, X = values.shape
    colors, found = colormaps[SEQUENTIAL].with_extremes(bad="#DDDDDD"), values[np.isfinite(values)]
    if not found.size:
        raise PlotError("nothing was recalled in these runs: recall begins with task 2")
    ax, made = _axes(ax, (7.6, 1.6 + 0.22 * min(K, 20)))
    image = ax.imshow(values, cmap=colors, vmin=0, vmax=_top(found, vmax), extent=(0, X, K - 0.5, -0.5),
                      aspect="auto", interpolation="none" if X <= 1000 else "auto")
    ends, classes = np.cumsum(lengths), np.cumsum(seeds[0].sizes)
    for start in ends[:-1]:
        ax.axvline(start, color="white", linewidth=0.7)
    if seeds[0].about.get("config", {}).get("lag") is None and len(lengths) > 1:
        met = classes[[*range(len(classes) - 1), -2]]   # by the old network, from each of the ends on
        ax.step(ends, met - 0.5, where="post", color="white", linewidth=1.6, linestyle=_DASHED)
    step = 1 if K <= 20 else -(-K // 10)
    ax.set_yticks(range(0, K, step), [str(name) for name in seeds[0].names[::step]])
    _task_strip(ax, lengths)
    _dress(ax, "batches learned from", "class", grid=None)
    if colorbar:
        _colorbar(ax, image, f"probability by the old network\n(%, {_mean_of(seeds)})")
    ax.set_title(_label(seeds) if title is None else title, fontsize=_LABEL + 1, pad=21)
    return _finish(ax, made, seeds)


def plot_sweep(rows, setting="setting", *, ax=None):
    """Final average accuracy in percent against a setting on a log scale, a line a row; its best is starred.

    rows: {method or label: {value of the setting: list of Results, or of accuracies as fractions}}.
    setting: what the values are, for the axis.
    """
    if not rows or not all(rows.values()):
        raise PlotError("there is nothing to plot: give {label: {value of the setting: results}}")
    values = sorted({value for points in rows.values() for value in points})
    if values[0] <= 0:
        raise PlotError(f"a log scale has no place for {values[0]:g}: give settings above 0")
    ax, made = _axes(ax, (6.8, 3.8))
    shown, counts = [], set()
    for label, points in rows.items():
        look, at = style(label), sorted(points)
        both = [interval(_finals(f"{label}, {setting} {value:g}", points[value])) for value in at]
        means = np.array([100 * i.mean for i in both])
        ax.errorbar(at, means, [0 if i.n < 2 else 100 * i.half for i in both], capsize=4, zorder=3, **look)
        best = means.argmax()
        ax.plot(at[best], means[best], "*", color=look["color"], markeredgecolor="black", markersize=17,
                zorder=4, label="_")
        counts |= {i.n for i in both}
        shown += [r for value in at for r in _results(points[value])]
    ax.set_xscale("log")
    ax.set_xticks(values, [f"{value:g}" for value in values])
    ax.minorticks_off()
    n = f"n = {min(counts)}" + (f" to {max(counts)}" if len(counts) > 1 else "")
    note = f"mean and {interval([0.0, 1.0]).kind}, {n}" if max(counts) > 1 else "single seed, n = 1"
    _dress(ax, f"{setting} (log scale)", f"average accuracy (%)\n{note}")
    ax.plot([], [], "*", color="white", markeredgecolor="black", markersize=12, label="best")
    _legend(ax)
    return _finish(ax, made and bool(shown), shown)


# ---- images

def plot_images(images, titles=None, *, columns=10, rows=None, ax=None):
    """A grid of images on one Axes, row after row.

    images: (N, C, H, W), C = 1 or 3, bytes or floats in [0, 1] (array or CPU tensor).   titles: a text above
    each. rows: a text left of each row.
    """
    images = np.asarray(images)
    if images.ndim != 4 or images.shape[1] not in (1, 3) or not len(images):
        raise PlotError(
            f"images must have the shape (N, C, H, W) with C = 1 or 3 and N above 0, not {images.shape}"
        )
    images = images.astype(float) / (255 if images.dtype == np.uint8 else 1)
    N, C, H, W = images.shape
    columns = min(columns, N)
    lines = -(-N // columns)
    gap, head = max(1, W // 16), _head(titles, H)
    step_y, step_x = H + head + gap, W + gap
    board = np.ones((lines * step_y - gap, columns * step_x - gap, 3))
    for n, image in enumerate(images):
        y, x = n // columns * step_y + head, n % columns * step_x
        board[y:y + H, x:x + W] = np.moveaxis(np.broadcast_to(image, (3, H, W)), 0, 2)
    tall = board.shape[0] / board.shape[1]
    width = min(9.0, 0.95 * columns, 6.5 / tall)
    ax, made = _axes(ax, (width + (1.0 if rows else 0), width * tall + 0.1))
    ax.imshow(
        board.clip(0, 1), interpolation="none"
    )  # in an SVG each pixel once, not as many as the page has dots
    for n, title in enumerate(titles if titles is not None else ()):
        ax.text(
            n % columns * step_x + W / 2,
            n // columns * step_y + head - 1,
            title,
            ha="center",
            va="bottom",
            fontsize=_TICK - 1,
        )
    for n, name in enumerate(rows or ()):
        ax.text(-gap, n * step_y + head + H / 2, name, ha="right", va="center", fontsize=_TICK)
    ax.set_axis_off()
    return ax


def _head(titles, height):
    """Pixels that the titles above images of this height take."""
    lines = max((title.count("\n") + 1 for title in titles), default=1) if titles is not None else 0
    return round((0.2 + 0.14 * lines) * height) if lines else 0


# ---- recall: images, gradients, terms of the objective

def plot_recalled(results, task=-1, row=-1, n=10, *, change=False, ax=None):
    """Images that were recalled for a batch, and below each the image that it began as: `plot_pairs`.

    results: of ARM, with the trace table "images"; the first that has it is shown.   task: from 0, negative
    from the end.   row: of the rows of that task.   n: at most so many images.
    """
    result = _holding("images", results)
    found, task, step = _recalled(result, task, row)
    columns = {c: np.asarray(found[c])[:n] for c in ("recalled", "start", "answers", "origins", "counts")}
    ax = plot_pairs(*columns.values(), names=result.names, change=change, ax=ax)
    ax.set_title(f"{_label([result])}, task {task + 1}, batch {step + 1}", fontsize=_LABEL + 1)
    return ax


def plot_pairs(images, starts, answers, origins, counts=None, *, names=None, change=False, ax=None):
    """Recalled images above the images that they began as.

    images, starts: (n, C, H, W).   answers: (n, K) probabilities for `images`.   origins: (n,) classes of
    `starts`, -1 for noise.   counts: (n,) how often each occurs.   names: of the classes.   change: show the
    difference too, its mean over colours, on one scale around 0. Recalled images leave the range of pixels:
    each is stretched from its own least to its own greatest value. These stand above it, under the most
    likely class and its probability.
    """
    images, starts, answers = (np.asarray(a, dtype=float) for a in (images, starts, answers))
    low, high = images.min(axis=(1, 2, 3)), images.max(axis=(1, 2, 3))                      # (n,)
    spread = np.where(high > low, high - low, 1)[:, None, None, None]
    pictures, lines = [(images - low[:, None, None, None]) / spread, starts], ["recalled", "began as"]
    if change:
        apart = (images - starts).mean(axis=1)                                              # (n, H, W)
        most = np.abs(apart).max() or 1
        pictures.append(np.moveaxis(colormaps[DIVERGING](0.5 + apart / most / 2)[..., :3], -1, 1))
        lines.append(f"change\n(blue −{most:.1f},\nred +{most:.1f})")
    names = [str(name) for name in (range(answers.shape[1]) if names is None else names)]
    titles = [_answer(names, p, a, b) for p, a, b in zip(answers, low, high)]
    copies = ["" if counts is None or counts[i] == 1 else f" (×{counts[i]:.0f})" for i in range(len(images))]
    titles += [("noise" if k < 0 else names[k]) + c for k, c in zip(origins, copies)]
    shape = (len(images), 3, *images.shape[2:])
    return plot_images(np.concatenate([np.broadcast_to(p, shape) for p in pictures]),
                       titles + [""] * (len(images) if change else 0), columns=len(images), rows=lines, ax=ax)


def plot_outputs(outputs, *, names=None, most=12, ax=None):
    """Probabilities of the classes in percent, a bar a network beside the others.

    outputs: {network: (K,) probabilities}.   names: of the classes.   most: of more than 20 classes, so many
    are shown, those with the highest bars.
    """
    values = 100 * np.array(list(outputs.values()), dtype=float)                            # (N, K)
    if values.ndim != 2 or not values.size:
        raise PlotError("outputs are {network: (K,) probabilities}, with one network or more")
    K = values.shape[1]
    classes = np.arange(K) if K <= 20 else np.sort(np.argsort(-values.max(axis=0), kind="stable")[:most])
    ax, _ = _axes(ax, (5.2, 3.2))
    width = 0.8 / len(values)
    looks = [(_BLUE, None), (_ORANGE, "////"), (_GREEN, "...."), (_PURPLE, "xxxx")]
    for n, (label, row) in enumerate(zip(outputs, values)):
        color, hatch = looks[n % len(looks)]
        at = np.arange(len(classes)) + (n - (len(values) - 1) / 2) * width
        ax.bar(at, row[classes], width, color=color if hatch is None else to_rgba(color, 0.25), hatch=hatch,
               edgecolor=color, label=label)
    names = [str(name) for name in (range(K) if names is None else names)]
    ax.set_xticks(range(len(classes)), [names[k] for k in classes],
                  rotation=90 if max(len(names[k]) for k in classes) > 3 else 0)
    _dress(ax, "class", "probability (%)")
    _percent_axis(ax)
    _legend(ax, loc="lower left", bbox_to_anchor=(0, 1.0), ncols=len(values))
    return ax


def _answer(names, p, low, high):
    """What stands above a recalled image: class, probability, range of its pixels."""
    name = names[p.argmax()]
    said = f"{name}{' ' if len(name) < 4 else chr(10)}({100 * p.max():.0f} %)\n{low:.1f} to {high:.1f}"
    return said.replace("-", "−")


def _holding(table, results):
    """The first of the seeds of one method that has a trace table, else the first of all."""
    seeds = _one(results)
    return next((r for r in seeds if table in r.trace), seeds[0])


def _rows_of(result, table, task):
    """(rows of a table that belong to a task, the task counted from 0)."""
    tasks = np.asarray(_column(result, table, "task")).astype(int)
    if not -result.tasks <= task < result.tasks:
        raise PlotError(f"there are {result.tasks} tasks, numbered from 0: there is no task {task}")
    return np.flatnonzero(tasks == task % result.tasks), task % result.tasks


def _recalled(result, task, row):
    """({column: value} of a row of the table "images", its task, its step)."""
    mine, task = _rows_of(result, "images", task)
    if not -len(mine) <= row < len(mine):
        raise PlotError(f"task {task + 1} has {len(mine)} rows of images, numbered from 0: there is no row "
                        f"{row}")
    found = {c: values[mine[row]] for c, values in result.trace["images"].items()}
    if not len(found["recalled"]):
        raise PlotError(f"nothing was recalled in task {task + 1}: recall begins with task 2")
    return found, task, int(found["step"])


def plot_gradients(results, condition="hard", published=None, *, legend=True, ax=None):
    """How alike the gradients of recalled and of real images are, by layer: mean cosine over the seeds.

    results: with the trace table "gradients".   condition: of it, such as "hard", "soft", "control hard".
    published: list of Published, of which those of this condition are drawn as hollow markers. Class 1 is the
    one that an image began as, class 2 the one that it is recalled as. Thin bars: one standard deviation of
    the single values (images times parameter tensors), ours and printed; thick bars: interval of the mean.
    """
    seeds = _one(results)
    groups, means, deviations, values = _cosines(seeds, condition)
    ax, made = _axes(ax, (7.2, 3.8))
    if published and not any(_printed_cosine(published, condition, g, "class 1") for g in groups):
        raise PlotError(f"none of the published numbers is a gradient correlation with {condition} targets "
                        f"of the layers {', '.join(groups)}")
    for which, side, color, marker in (("class 1", -1, _BLUE, "o"), ("class 2", 1, _VERMILLION, "s")):
        at = np.arange(len(groups)) + 0.1 * side
        mean, half = (v / 100 for v in _intervals(means[which]))
        bars = {"fmt": "none", "ecolor": color}
        ax.errorbar(at, mean, _pooled(means[which], deviations[which]), linewidth=0.8, **bars)
        if len(seeds) > 1:
            ax.errorbar(at, mean, half, linewidth=2.4, capsize=4, **bars)
        what = "as it began" if side < 0 else "as recalled"
        ax.plot(at, mean, marker, color=color, markersize=6, label=f"{which[-1]}: {what}", zorder=3)
        printed = [_printed_cosine(published or (), condition, g, which) for g in groups]
        for x, p in [(x, p) for x, p in zip(at + 0.17 * side, printed) if p]:
            ax.errorbar(x, p.value, p.spread, fmt=marker, color=color, markerfacecolor="white", markersize=5,
                        linewidth=0.8, label="_")
    ax.axhline(0, color="black", linewidth=0.8, zorder=0)
    ax.set_xticks(range(len(groups)), [f"{g}\n({v:,})" for g, v in zip(groups, values)])
    ax.set_xlim(-0.5, len(groups) - 0.5)
    _dress(ax, "layer (single values of a seed)",
           "cosine between gradients\n(thin bars: ± 1 SD of single values)")
    if published:
        ax.plot([], [], "o", color=_GREY, markerfacecolor="white", label="printed, with its ±")
    if legend:
        note = f"mean and {kind(seeds)}" if len(seeds) > 1 else kind(seeds)
        _legend(ax, f"compared with real\nimages of class ...\n({note})")
    ax.set_title(f"{_label(seeds)}, {condition.replace('control', 'control,')} targets", fontsize=_LABEL + 1)
    return _finish(ax, made, seeds)

def _cosines(seeds, condition):
    """(groups, means {class: (n, G)}, deviations likewise, numbers of values (G,)), of "gradients"."""
    columns = ("condition", "which", "group", "mean", "deviation", "values")
    table = [{c: np.asarray(_column(r, "gradients", c)) for c in columns} for r in seeds]
    known = list(dict.fromkeys(table[0]["condition"].tolist()))
    if condition not in known:
        raise PlotError(f"there is no condition '{condition}' in these results: there are {', '.join(known)}")
    means, deviations = {}, {}
    for which in ("class 1", "class 2"):
        mine = [(t["condition"] == condition) & (t["which"] == which) for t in table]
        groups = _same(seeds, [t["group"][m] for t, m in zip(table, mine)], "their layers")
        means[which] = np.array([t["mean"][m] for t, m in zip(table, mine)], dtype=float)
        deviations[which] = np.array([t["deviation"][m] for t, m in zip(table, mine)], dtype=float)
    return groups.tolist(), means, deviations, table[0]["values"][mine[0]].tolist()


def _pooled(means, deviations):
    """Standard deviation (G,) of the values of all seeds together, (n, G) each: seeds count alike."""
    return np.sqrt(np.mean(deviations ** 2, axis=0) + np.var(means, axis=0))


def _printed_cosine(published, condition, group, which):
    """The Published of a layer group ("FC1", printed as "FC 1"; "All"), or None."""
    said = "all" if group == "All" else re.sub(r"(\d+)$", r" \1", group)
    metric = f"gradient correlation, {condition} targets, {said}, {which}"
    return next((p for p in published if p.metric == metric), None)


# Terms of ARM's objective as in its table "objective": name in words, colour, marker, line, sign in what is
# minimised.
TERMS = {"divergence": ("divergence of the networks", _BLUE, "o", _SOLID, -1),
         "local_old": ("away from the batch's classes, old", _VERMILLION, "s", _SOLID, 1),
         "local_new": ("the same, new network", _ORANGE, "D", _DASHED, 1),
         "diversity": ("diversity", _GREEN, "^", _SOLID, 1),
         "sharpness": ("sharpness", _PURPLE, "v", _SOLID, 1),
         "size": ("size", _GREY, "<", _DASHED, 1),
         "variation": ("total variation", _BROWN, ">", _DASHED, 1),
         "target": ("wanted class", _WINE, "P", _SOLID, 1),
         "statistics": ("running statistics", _TEAL, "X", _DASHDOT, 1)}


def contributions(values, config):
    """What each term adds to the objective that recall minimises: {term: weight times value, with its sign}.

    values: {term: array} as in the trace table "objective".   config: settings of ARM, a dictionary. Terms
    without weight, and those that this kind of recall has not, are left out.
    """
    found = {}
    for term, (*_, sign) in TERMS.items():
        weight = config["divergence_weight" if term == "divergence" else term]
        if weight and np.any(values[term]):
            found[term] = sign * weight * np.asarray(values[term], dtype=float)
    return found


def plot_objective(result, task=-1, row=None, *, legend=True, ax=None):
    """How each term of the objective that recall minimises changes over the steps of the descent.

    result: of ARM or ADI, with the trace table "objective".   task: from 0, negative from the end.   row: a
    batch of that task, from 0; the mean over its batches where None.
    """
    result = _holding("objective", result)
    every, task = _rows_of(result, "objective", task)
    if row is not None and not -len(every) <= row < len(every):
        raise PlotError(f"task {task + 1} has {len(every)} batches, numbered from 0: there is no batch {row}")
    mine = every if row is None else every[[row]]
    values = {term: np.asarray(_column(result, "objective", term), dtype=float)[mine].mean(axis=0)
              for term in TERMS}
    if np.isnan(values["divergence"]).any():
        raise PlotError(f"nothing was recalled in task {task + 1}: recall begins with task 2")
    ax, made = _axes(ax, (7.6, 3.8))
    plot_terms(contributions(values, result.about["config"]), legend=legend, ax=ax)
    what = f"mean of {len(every)} batches" if row is None else f"batch {row % len(every) + 1}"
    ax.set_title(f"{_label([result])}, task {task + 1}, {what}", fontsize=_LABEL + 1)
    return _finish(ax, made, [result])


def plot_terms(terms, *, at=None, legend=True, ax=None):
    """How the terms of an objective change over the steps of a descent; their sum in black.

    terms: {name of TERMS: (S,) before each step}, as `contributions` gives them. The legend has the values at
    the start.   at: a number of steps, marked by a line.
    """
    if not terms:
        raise PlotError("there are no terms to plot: every one has the weight 0")
    ax, _ = _axes(ax, (7.6, 3.8))
    total = sum(terms.values())
    steps = np.arange(len(total))
    ax.plot(steps, total - total[0], color="black", linewidth=3, alpha=0.6,
            label=f"{_signed(total[0])}  sum, minimised")
    for name, values in terms.items():
        label, color, marker, line, _ = TERMS[name]
        ax.plot(steps, values - values[0], color=color, marker=marker, linestyle=line, markersize=4.5,
                linewidth=1.2, label=f"{_signed(values[0])}  {label}")
    if at is not None:
        ax.axvline(at, color="black", linewidth=1, linestyle=":")
    ax.axhline(0, color="black", linewidth=0.6, zorder=0)
    ax.xaxis.set_major_locator(MaxNLocator(10, integer=True))
    _dress(ax, "steps done of the descent", "change since its start\n(weight × term)")
    if legend:
        _legend(ax, "value at the start and term")
    return ax


def _signed(value):
    return f"{value:+.2f}".replace("-", "−")


# ---- sparse networks

def plot_connections(mask, *, title=None, ax=None):
    """A connection matrix, black = connection: row = target neuron, column = source neuron.

    mask: (n_out, n_in) bool.   title: by default how many connections there are.
    """
    mask = np.asarray(mask)
    if mask.ndim != 2 or not mask.size:
        raise PlotError(f"a connection matrix has the shape (targets, sources), not {mask.shape}")
    mask = mask.astype(bool)
    rows, columns = mask.shape
    flat = max(rows, columns) > 3 * min(rows, columns)  # squares would leave a thin strip
    ax, _ = _axes(ax, (7.2, 3.6) if flat else (4.8, 4.8 * min(max(rows / columns, 0.6), 1.4) + 0.4))
    ax.imshow(mask, cmap="binary", vmin=0, vmax=1, aspect="auto" if flat else "equal",
              extent=(0.5, columns + 0.5, rows + 0.5, 0.5),             # neurons are counted from 1
              interpolation=_interpolation(mask))
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_locator(MaxNLocator(5, integer=True, min_n_ticks=1))
    _dress(ax, f"source neurons ({columns:,})", f"target neurons ({rows:,})", grid=None)
    ax.spines[:].set_visible(True)
    count = f"{mask.sum():,} connection{'' if mask.sum() == 1 else 's'}"
    ax.set_title(count if title is None else title, fontsize=_LABEL + 1)
    return ax


def plot_input_map(counts, *, vmax=None, colorbar=True, title=None, ax=None):
    """How many connections leave each pixel: counts (H, W) on a scale from 0 to `vmax` (the largest count).

    Give several maps the same `vmax` to compare them.
    """
    counts = np.asarray(counts)
    if counts.ndim != 2 or not counts.size:
        raise PlotError(f"an input map has the shape (H, W), not {counts.shape}")
    ax, _ = _axes(ax, (4.2, 3.6))
    image = ax.imshow(counts, cmap=SEQUENTIAL, vmin=0, vmax=_top(counts, vmax), interpolation="none")
    _dress(ax, grid=None)
    ax.set_xticks([])
    ax.set_yticks([])
    ax.spines[:].set_visible(False)
    if colorbar:
        _colorbar(ax, image, "connections of a pixel")
    if title is not None:
        ax.set_title(title, fontsize=_LABEL + 1)
    return ax


def plot_activations(values, split, *, names=("first class", "second class"), vmax=None, colorbar=True,
                     title=None, ax=None):
    """Activations of a layer as a heat map on a scale from 0 to `vmax` (the largest value).

    values: (N, U), row = image, column = neuron.   split: the first row of the second class; a line stands
    before it.   names: of the two classes. Give several layers the same `vmax` to compare them.
    """
    values = np.asarray(values, dtype=float)
    if values.ndim != 2 or not 0 < split < len(values):
        raise PlotError(
            "activations have the shape (images, neurons), and split lies between two images: not"
            f" {values.shape} and {split}"
        )
    images, units = values.shape
    ax, _ = _axes(ax, (7.2, 3.4))
    image = ax.imshow(values, cmap=SEQUENTIAL, vmin=0, vmax=_top(values, vmax), aspect="auto",
                      extent=(0.5, units + 0.5, images, 0), interpolation=_interpolation(values))
    ax.axhline(split, color="white", linewidth=1.5)
    ax.set_yticks([split / 2, (split + images) / 2],
                  [f"{name}\n({n} images)" for name, n in zip(names, (split, images - split), strict=True)])
    ax.xaxis.set_major_locator(MaxNLocator(5, integer=True, min_n_ticks=1))
    _dress(ax, f"neurons ({units:,})", None, grid=None)
    if colorbar:
        _colorbar(ax, image, "activation")
    if title is not None:
        ax.set_title(title, fontsize=_LABEL + 1)
    return ax


def _interpolation(values):
    """Sharp squares; many neurons may need more dots than the page has: smoothed, so that none is lost."""
    return "none" if max(values.shape) <= 160 else "auto"


def _top(values, vmax):
    """The end of a scale from 0, never 0 itself."""
    return (values.max() if vmax is None else vmax) or 1


def _colorbar(ax, image, label):
    bar = ax.figure.colorbar(image, ax=ax, shrink=0.9)
    bar.set_label(label, fontsize=_LABEL)
    bar.ax.tick_params(labelsize=_TICK)
    bar.outline.set_visible(False)
