"""Shared by all plots: checks of arguments, axes and their style, the legend, and the stamp."""

import textwrap

import matplotlib.pyplot as plt
import numpy as np

from clkit.errors import ClkitError
from clkit.papers.palette import MEMORY_LABELS
from clkit.plots.style import LABEL, SEQUENTIAL, SMALL, TICK, plain
from clkit.plots.style import drawn_style as style
from clkit.result import Result, interval


class PlotError(ClkitError):
    """Raised for results that a plot cannot show; the message says why and what to give instead."""


def grouped(results):
    """{method: [Result, ...]} from a Result, a list of Results or such a dictionary; PlotError if empty."""
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


def flat(results):
    """The results of all groups, in one list."""
    return [r for seeds in grouped(results).values() for r in seeds]


def same_tasks(results):
    """`grouped` results; PlotError if their tasks differ."""
    groups = grouped(results)
    sizes = sorted({tuple(r.classes_per_task) for r in flat(groups)})
    if len(sizes) > 1:
        differ = f"these results have different tasks (classes per task {' and '.join(map(str, sizes))})"
        raise PlotError(f"{differ}: plot one benchmark at a time")
    return groups


def several_stages(results):
    """The groups with more than one learning stage, which excludes joint training; {} if there are none."""
    return {m: seeds for m, seeds in same_tasks(results).items() if len(seeds[0].seen) > 1}


def one_method(results):
    """The seeds of a single method; PlotError if there are several methods."""
    groups = same_tasks(results)
    if len(groups) > 1:
        several = f"{len(groups)} ({', '.join(groups)})"
        raise PlotError(f"this plot shows one method, not {several}: give the results of one method")
    return next(iter(groups.values()))


def first(groups):
    """The first result of the first of the groups."""
    return next(iter(groups.values()))[0]


def stage_of(seeds, stage):
    """The stage as an index from 0 (negative: from the end); PlotError if there is none."""
    stages = min(len(r.seen) for r in seeds)
    if not -stages <= stage < stages:
        raise PlotError(f"there are {stages} learning stages, numbered from 0: there is no stage {stage}")
    return stage % stages


def intervals(rows):
    """(means (X,), half-widths (X,)) in percent of fractions `rows` (n, X); half-widths are NaN for n = 1."""
    both = [interval(column) for column in np.asarray(rows, dtype=float).T]
    return 100 * np.array([i.mean for i in both]), 100 * np.array([i.half for i in both])


def kind(groups):
    """The kind of interval over these groups, such as "95 % t-interval, n = 5", or "single seed, n = 1"."""
    counts = sorted({len(seeds) for seeds in grouped(groups).values()})
    if counts == [1]:
        return "single seed, n = 1"
    n = f"n = {counts[0]}" if len(counts) == 1 else f"n = {counts[0]} to {counts[-1]}"
    return f"{interval([0.0, 1.0]).kind}, {n}"


FINALS = {  # score: (function of a Result, axis label)
    "accuracy": (Result.average, "average accuracy after the last task (%)"),
    "forgetting": (Result.forgetting, "forgetting (percentage points)"),
}


def results_among(values):
    """The Results among `values`: a Result, or a list of Results or numbers."""
    return [r for r in ([values] if isinstance(values, Result) else values) if isinstance(r, Result)]


def finals(label, values, score="accuracy"):
    """(n,) final scores of Results or of numbers; NaN if undefined."""
    values = [values] if isinstance(values, Result) else list(values)
    values = np.array([FINALS[score][0](v) if isinstance(v, Result) else v for v in values], dtype=float)
    if score == "accuracy" and not (len(values) and ((values >= 0) & (values <= 1)).all()):
        raise PlotError(f"'{label}' must have one accuracy or more, as fractions in [0, 1], or Results")
    if not len(values) or (np.abs(values) > 1).any():
        needs = f"one value of {score} or more, as fractions in [-1, 1], or Results"
        raise PlotError(f"'{label}' must have {needs}")
    return values


def column(result, table, column, dtype=None):
    """A column of a trace table as an array; PlotError if the result does not have it."""
    if table not in result.trace or column not in result.trace[table]:
        has = [f"{t}/{c}" for t, columns in result.trace.items() for c in columns if c != "task"]
        there = f"this result has no trace {table}/{column} (it has {', '.join(has) or 'none'})"
        raise PlotError(f"{there}: run it again with record=('{table}',)")
    return np.asarray(result.trace[table][column], dtype)


def axes(ax, size):
    """(axes to draw on, whether they are new); size: width and height in inches of a new figure."""
    if ax is not None:
        return ax, False
    return plt.subplots(figsize=size, layout="constrained")[1], True


def dress(ax, x=None, y=None, title=None, *, grid="y", pad=None):
    """Set labels, tick sizes and a light grid; remove the box.   pad: of the title, in points."""
    if x is not None:
        ax.set_xlabel(x, fontsize=LABEL)
    if y is not None:
        ax.set_ylabel(y, fontsize=LABEL)
    if title is not None:
        ax.set_title(title, fontsize=LABEL + 1, pad=pad)
    ax.tick_params(labelsize=TICK)
    ax.spines[["top", "right"]].set_visible(False)
    ax.set_axisbelow(True)
    if grid:
        ax.grid(axis=grid, color="#DDDDDD", linewidth=0.8)


def legend(ax, title=None, **options):
    """A legend to the right of the axes, where it hides no data."""
    beside = {"loc": "upper left", "bbox_to_anchor": (1.01, 1.0), "alignment": "left"}
    return ax.legend(title=title, title_fontsize=TICK - 1, frameon=False, fontsize=TICK, **beside | options)


def lines_title(groups):
    """What the lines or dots of these groups show: mean and kind of interval, or a single seed."""
    return f"mean and {kind(groups)}" if any(len(s) > 1 for s in groups.values()) else kind(groups)


def percent_axis(ax):
    """Set the y axis from 0 to 100 percent, with room for markers."""
    ax.set_ylim(0, 103)


def step_of(n):
    """The step between ticks over n positions, for about ten ticks at most."""
    return max(1, -(-n // 10))


def whole_ticks(ax, last):
    """Put ticks on the x axis at whole numbers from 1 to `last`."""
    ax.set_xticks(range(1, last + 1, step_of(last)))


def method_ticks(ax, groups):
    """Label bars at 0, 1, 2, ... with the names of their methods."""
    names = [style(m)["label"].replace(" (", "\n(") for m in groups]
    ax.set_xticks(range(len(names)), names)


def top_of(values, vmax):
    """The top of a scale that starts at 0, never 0 itself."""
    return (values.max() if vmax is None else vmax) or 1


def colorbar(ax, image, label):
    """A labelled colour bar beside the axes."""
    bar = ax.figure.colorbar(image, ax=ax, shrink=0.9)
    bar.set_label(label, fontsize=LABEL)
    bar.ax.tick_params(labelsize=TICK)
    bar.outline.set_visible(False)


def heat(ax, values, label, colorbar, annotated, size=TICK, line=0.5, top=100, form=".0f"):
    """Percentages as a heat map on the fixed scale from 0 to 100, or to `top`; NaN stays white."""
    import seaborn  # imports pandas, which takes a second: only heat maps need it

    side = "horizontal" if len(values) <= 2 else "vertical"  # a flat map has no room for a bar beside it
    bar = {"label": label, "orientation": side, "shrink": 0.9} if colorbar else None
    look = {"vmin": 0, "vmax": top, "cmap": SEQUENTIAL, "linewidths": line, "square": True}
    look |= {"annot": annotated, "fmt": form, "annot_kws": {"fontsize": size}}
    many = values.size > 2500  # an SVG with so many squares takes megabytes
    seaborn.heatmap(
        values, mask=np.isnan(values), rasterized=many, cbar=colorbar, cbar_kws=bar, ax=ax, **look
    )
    if colorbar:
        bar = ax.collections[0].colorbar
        bar.ax.tick_params(labelsize=TICK)
        bar.outline.set_visible(False)


def band(ax, x, mean, half, color):
    """Shade the interval around a line, if there are several seeds."""
    if not np.isnan(half).all():
        ax.fill_between(x, mean - half, mean + half, color=color, alpha=0.2, linewidth=0)


def memory_of(result):
    """{kind of memory, as plots call it: (R,) bytes kept after each stage}."""
    return {MEMORY_LABELS.get(kind, kind): sizes for kind, sizes in result.memory_bytes.items()}


def look_of(seeds):
    """The style of these seeds' method."""
    return style(seeds[0].about.get("method", "learner"))


def label(seeds):
    """The label of these seeds' method."""
    return look_of(seeds)["label"]


def mean_of(seeds):
    """ "mean of 5 seeds" or "one seed"."""
    return f"mean of {len(seeds)} seeds" if len(seeds) > 1 else "one seed"


def finish(ax, made, results):
    """The axes; stamp their figure if it was made here."""
    if made:
        stamp(ax, results)
    return ax


def task_label(ax, x, y, task, tasks):
    """Write "task 3", or "3" with many tasks, small and grey above the axes at x, y (data, axes)."""
    text, place = f"task {task + 1}" if tasks <= 6 else f"{task + 1}", ax.get_xaxis_transform()
    ax.text(x, y, text, transform=place, ha="center", va="bottom", fontsize=TICK - 1, color="#555555")


def _numbers(values):
    """0, 1, 2, 4 -> "0-2, 4"."""
    parts = []
    for v in sorted(set(values)):
        if parts and v == parts[-1][1] + 1:
            parts[-1][1] = v
        else:
            parts.append([v, v])
    return ", ".join(str(a) if a == b else f"{a}-{b}" for a, b in parts)


def _listed(values):
    return ", ".join(dict.fromkeys(str(v) for v in values if v))


def warning(results):
    """A warning about stand-in data or the smoke preset, else ""."""
    said = []
    for r in flat(results):
        data, benchmark = _data(r).partition("(")[0], str(r.about.get("benchmark", ""))
        if r.about.get("preset") == "smoke":
            said.append("SMOKE TEST, NOT A RESULT")
        if (
            data in ("digits", "digits28", "shapes")
            and benchmark
            and data.removesuffix("28") not in benchmark
        ):
            said.append(f"STAND-IN DATA: {_data(r)}")
    return " · ".join(dict.fromkeys(said))


def _data(result):
    return str((result.about.get("stream") or {}).get("data", "unknown data"))


def provenance(results):
    """One line on what was run: benchmark, data, preset, seeds, versions."""
    every = flat(results)
    about = [r.about for r in every]
    versions = [a.get("versions") or {} for a in about]
    seeds = [a["seed"] for a in about if "seed" in a]
    parts = [
        _listed(a.get("benchmark") for a in about),
        _listed(f"data {_data(r)}" for r in every),
        _listed(f"{a['preset']} preset" for a in about if a.get("preset")),
        f"seed{'s' if len(set(seeds)) > 1 else ''} {_numbers(seeds)}" if seeds else "",
        *(_listed(f"{name} {v[name]}" for v in versions if v.get(name)) for name in ("clkit", "torch")),
    ]
    return " · ".join(p for p in parts if p)


def stamp(where, results):
    """Print the provenance of the results in small type at the foot of a figure; returns the Text.

    where: Figure or Axes.   results: as for the plots, or a string for a figure without results. For
    stand-in data or the smoke preset, the line is white on red and begins with a warning. A second call
    replaces the line.
    """
    figure = where if hasattr(where, "savefig") else where.figure
    mark, line = ("", results) if isinstance(results, str) else (warning(results), provenance(results))
    width = int(figure.get_figwidth() * 72 / (SMALL * (0.66 if mark else 0.56)))
    if "STAND-IN" in mark:  # the warning names the data
        line = " · ".join(p for p in line.split(" · ") if not p.startswith("data "))
    parts = [p.replace(" ", "\u00a0") for p in " · ".join(p for p in (mark, line) if p).split(" · ")]
    text = "\n".join(textwrap.wrap(" · ".join(parts), max(width, 30), break_on_hyphens=False))
    place = {} if figure.get_layout_engine() is not None else {"y": -0.01, "va": "top"}
    look = {"color": "#555555", "weight": "normal"}
    if mark:
        box = {"facecolor": "#B22200", "edgecolor": "none", "pad": 2.5}
        look = {"color": "white", "weight": "bold", "bbox": box}
    text = plain(text.replace("\u00a0", " "))
    note = figure.supxlabel(text, x=0.012, ha="left", fontsize=SMALL, **place, **look)
    note.set_gid("stamp")
    return note
