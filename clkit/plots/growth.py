"""Plots of what methods keep between tasks, and of how it grows."""

import re
import textwrap

import numpy as np
from matplotlib import colormaps

from clkit.papers.palette import BLACK, GREY, MEMORY_KINDS
from clkit.plots import frame
from clkit.plots.frame import PlotError
from clkit.plots.style import LABEL, SEQUENTIAL, SMALL, TASK_MARKERS, TICK
from clkit.plots.style import drawn_style as style
from clkit.result import interval

WEIGHTS = "weights"  # the kind of memory that every network needs to answer
KIND_MARKERS = dict(zip(MEMORY_KINDS, "sp^Dv*o", strict=True))
KIND_SIZES = dict(zip(MEMORY_KINDS, (11, 9, 7, 7, 5, 9, 6), strict=True))  # different: equal bytes both show
PALE = "#BBBBBB"
LISTED = 12  # methods in the legend of plot_budget
UNITS = ((1e9, "GB"), (1e6, "MB"), (1e3, "kB"), (1, "bytes"))


def said_bytes(count):
    """ "1.91 MB", "39.6 kB", "512 bytes": a number of bytes in units of powers of 1000."""
    unit, name = next(((u, n) for u, n in UNITS if count >= u), UNITS[-1])
    value = count / unit
    return f"{value:.{0 if unit == 1 or value >= 100 else 1 if value >= 10 else 2}f} {name}"


def kinds_kept(result, stage=-1):
    """{kind of memory: bytes} that a method keeps after a stage, without empty kinds."""
    return {kind: int(sizes[stage]) for kind, sizes in frame.memory_of(result).items() if sizes[stage]}


def beside_weights(result, stage=-1):
    """Bytes that a method keeps after a stage beside the weights."""
    return sum(size for kind, size in kinds_kept(result, stage).items() if kind != WEIGHTS)


# ---- many methods


def plot_kept(results, image_bytes=None, *, legend=True, ax=None):
    """Bytes that each method (its first seed) keeps between tasks: one row per method, one mark per kind.

    results: {label: seeds}, drawn from top to bottom.   image_bytes: bytes of a raw image, for an upper axis
    that counts images. The axis is logarithmic, so kinds are not stacked: the black bar marks the sum of all
    kinds but the weights.
    """
    groups = frame.grouped(results)
    ax, made = frame.axes(ax, (7.6, 1.8 + 0.28 * len(groups)))
    held = [kinds_kept(seeds[0]) for seeds in groups.values()]
    found = {kind for kinds in held for kind in kinds}
    sums = np.array([beside_weights(seeds[0]) for seeds in groups.values()])
    low = _bytes_axis(ax, [size for kinds in held for size in kinds.values()])
    for n in np.flatnonzero(sums):
        ax.plot([low, sums[n]], [n, n], color="#CCCCCC", linewidth=1, zorder=1)
    for n in np.flatnonzero(sums == 0):
        ax.text(low * 1.15, n, "nothing beside the weights", va="center", fontsize=TICK - 1, color=GREY)
    for kind in [*(k for k in MEMORY_KINDS if k in found), *sorted(found - set(MEMORY_KINDS))]:
        at = [n for n, kinds in enumerate(held) if kind in kinds]
        _kind(ax, kind, [held[n][kind] for n in at], at)
    rows = np.flatnonzero(sums)
    bar = {"color": BLACK, "marker": "|", "markersize": 14, "markeredgewidth": 1.2, "linestyle": "none"}
    ax.plot(sums[rows], rows, label="all beside the weights", zorder=4, **bar)
    ax.set_yticks(range(len(groups)), groups)
    ax.set_ylim(len(groups) - 0.5, -0.5)
    frame.dress(ax, "kept between tasks (log scale)", None, grid="x")
    _images_axis(ax, image_bytes)
    if legend:
        frame.legend(ax, "kind")
    return frame.finish(ax, made, groups)


def _kind(ax, kind, x, y):
    """Marks of one kind of memory; those of the weights are open."""
    color = MEMORY_KINDS.get(kind, PALE)
    look = {"color": color, "marker": KIND_MARKERS.get(kind, "h"), "markersize": KIND_SIZES.get(kind, 7)}
    look |= {"markerfacecolor": "white"} if kind == WEIGHTS else {}
    ax.plot(x, y, linestyle="none", label=kind, zorder=3, **look)


def _bytes_axis(ax, sizes, zero=False):
    """Set a logarithmic axis of bytes around these sizes; the place of its left end, or of 0 bytes."""
    sizes = [size for size in sizes if size > 0]
    if not sizes:
        raise PlotError("these methods keep nothing, so there are no bytes to plot: give other results")
    first, last = np.floor(np.log10(min(sizes) / 1.5)), np.log10(max(sizes) * 2)
    low, powers = 10 ** (first - 0.5 * zero), np.arange(first, np.floor(last) + 1)
    ax.set_xscale("log")
    ax.set_xlim(low / 1.6 if zero else low, 10**last)
    ticks = {10**p: f"{10**p / u:g} {n}" for p in powers for u, n in UNITS[::-1] if 10**p >= u}
    ticks = {low: "0"} | ticks if zero else ticks
    ax.set_xticks(list(ticks), ticks.values())
    ax.minorticks_off()
    return low


def _images_axis(ax, image_bytes):
    """An upper axis: as many raw images as there are bytes below."""
    if not image_bytes:
        return
    upper = ax.secondary_xaxis("top", functions=(lambda b: b / image_bytes, lambda n: n * image_bytes))
    upper.set_xlabel(f"as many raw images of {image_bytes:,} bytes", fontsize=LABEL)
    upper.tick_params(labelsize=TICK)
    upper.minorticks_off()
    upper.xaxis.set_major_formatter(lambda n, _: f"{n:,.0f}" if n >= 1 else "")
    ax.spines["top"].set_visible(True)


def plot_budget(results, budget=None, image_bytes=None, *, references=None, ax=None):
    """Final average accuracy in percent against the bytes kept beside the weights, within a budget.

    results: {label: seeds}; labels of one method, with different amounts of memory, are joined by a line.
    budget: in bytes; None: no limit. Methods beyond it are grey; those that keep nothing stand at 0.
    image_bytes: as in plot_kept.   references: {label: seeds}, drawn as horizontal lines. The legend lists
    the methods within the budget, the best first, with their accuracies.
    """
    groups = frame.grouped(results)
    budget = np.inf if budget is None else budget
    ax, made = frame.axes(ax, (7.5, 4.4))
    sizes = {label: beside_weights(seeds[0]) for label, seeds in groups.items()}
    zero = _bytes_axis(ax, sizes.values(), zero=True)
    scores = {label: interval([r.average() for r in seeds]) for label, seeds in groups.items()}
    points = {label: (sizes[label] or zero, 100 * i.mean, 100 * i.half) for label, i in scores.items()}
    _join(ax, groups, points)
    inside = sorted((label for label in groups if sizes[label] <= budget), key=lambda s: -points[s][1])
    for label in [*inside, *(label for label in groups if label not in inside)]:
        _point(ax, points[label], groups[label], label if label in inside[:LISTED] else None, label in inside)
    for n, (label, seeds) in enumerate((references or {}).items()):
        line = {"color": BLACK, "linestyle": ("--", ":")[n % 2], "linewidth": 1}
        mean = 100 * np.mean([r.average() for r in seeds])
        ax.axhline(mean, **line)
        ax.text(
            0.995, mean, label, transform=ax.get_yaxis_transform(), ha="right", va="bottom", fontsize=SMALL
        )
    if np.isfinite(budget):
        ax.axvline(max(budget, zero), color=BLACK, linewidth=1.2)
        ax.axvspan(max(budget, zero), ax.get_xlim()[1], color=BLACK, alpha=0.05, linewidth=0)
    frame.dress(ax, "bytes kept beside the weights (log scale)", "average accuracy (%)")
    frame.percent_axis(ax)
    _images_axis(ax, image_bytes)
    more = f", {len(inside) - LISTED} more" if len(inside) > LISTED else ""
    handles = ax.get_legend_handles_labels()[0]
    frame.legend(ax, f"within the budget{more}\n{frame.lines_title(groups)}", handles=handles)
    return frame.finish(ax, made, groups | (references or {}))


def _join(ax, groups, points):
    """A thin line through the points of each method that has several."""
    by_method = {}
    for label, seeds in groups.items():
        by_method.setdefault(seeds[0].about.get("method", label), []).append(points[label][:2])
    for places in by_method.values():
        ax.plot(*zip(*sorted(places)), color=PALE, linewidth=1, zorder=1)


def _point(ax, point, seeds, label, inside):
    """One method at (bytes, mean, half-width); open and grey if it is beyond the budget."""
    x, mean, half = point
    look = frame.look_of(seeds)
    color = look["color"] if inside else PALE
    said = f"{label}: {mean:.1f}" if label else "_"
    face = color if inside else "white"
    ax.plot(x, mean, look["marker"], color=color, markerfacecolor=face, markersize=8, label=said, zorder=3)
    if len(seeds) > 1:
        ax.errorbar(x, mean, half, color=color, capsize=3, linewidth=1, zorder=2, label="_")


# ---- over the tasks


def plot_kept_over_tasks(results, image_bytes=None, *, ax=None):
    """Bytes kept beside the weights after each task, on a log scale: one line per method (its first seed).

    Methods that keep nothing, or have a single stage, are left out. A label at the right names the methods
    that end close together, from the most bytes to the fewest.   image_bytes: of a raw image, to state how
    many images need as many bytes.
    """
    rows = {
        label: [beside_weights(seeds[0], stage) for stage in range(len(seeds[0].seen))]
        for label, seeds in frame.several_stages(results).items()
    }
    rows = {label: row for label, row in rows.items() if row[-1]}
    if not rows:
        raise PlotError("these methods keep nothing beside the weights: give results of others")
    groups = {label: seeds for label, seeds in frame.grouped(results).items() if label in rows}
    ax, made = frame.axes(ax, (9.6, 4.6))
    for label, row in rows.items():
        ax.plot(range(1, len(row) + 1), row, markersize=6, **frame.look_of(groups[label]) | {"label": label})
    for together in _close({label: row[-1] for label, row in rows.items()}):
        most, least = (rows[label][-1] for label in (together[0], together[-1]))
        said = f"{' · '.join(together)}: {_range(least, most, said_bytes)}"
        if image_bytes:
            said += f" ({_range(least / image_bytes, most / image_bytes, '{:,.0f}'.format)} images)"
        at = (1.02, np.sqrt(most * least))
        ax.annotate(
            textwrap.fill(said, 46), at, xycoords=("axes fraction", "data"), va="center", fontsize=TICK - 1
        )
    ax.set_yscale("log")
    ax.yaxis.set_major_formatter(lambda b, _: re.sub(r"\.0+ ", " ", said_bytes(b)))
    frame.whole_ticks(ax, max(map(len, rows.values())))
    frame.dress(ax, "tasks learned", "kept beside the weights (log scale)")
    return frame.finish(ax, made, groups)


def _range(low, high, write):
    """ "2,020 to 2,441", or one of them if both are written alike."""
    return " to ".join(dict.fromkeys((write(low), write(high))))


def _close(sizes, ratio=1.35):
    """Labels by falling size, in lists of those within this ratio of the first of their list."""
    lists = []
    for label in sorted(sizes, key=sizes.get, reverse=True):
        if lists and sizes[lists[-1][0]] <= ratio * sizes[label]:
            lists[-1].append(label)
        else:
            lists.append([label])
    return lists


def plot_parameters(results, *, ax=None):
    """Trainable parameters after each task as multiples of those after the first: one line per method.

    Methods whose number never changes share one grey line.
    """
    groups = frame.several_stages(results)
    if not groups:
        raise PlotError("the number of parameters over tasks needs a method with two learning stages or more")
    ax, made = frame.axes(ax, (7.6, 3.8))
    rows = {label: np.mean([r.parameters for r in seeds], axis=0) for label, seeds in groups.items()}
    same = [label for label, row in rows.items() if (row == row[0]).all()]
    at = range(1, len(next(iter(rows.values()))) + 1)
    for label, row in rows.items():
        if label not in same:
            ax.plot(at, row / row[0], markersize=6, **frame.look_of(groups[label]) | {"label": label})
    if same:
        ax.plot(at, np.ones(len(at)), color=GREY, linewidth=2, label="\n".join(["constant:", *same]))
    frame.whole_ticks(ax, len(at))
    ax.set_ylim(0)
    frame.dress(ax, "tasks learned", "trainable parameters, as multiples\nof those after the first task")
    frame.legend(ax)
    return frame.finish(ax, made, groups)


def plot_parts(result, raw=None, *, ax=None):
    """Bytes kept after each task by one method, stacked by kind, in kB.

    raw: (T,) bytes, for comparison: a dotted line, such as all training images so far.
    """
    seeds = frame.one_method(result)
    r = seeds[0]
    ax, made = frame.axes(ax, (7.2, 3.8))
    at, bottom = np.arange(1, len(r.seen) + 1), np.zeros(len(r.seen))
    held = frame.memory_of(r)
    for kind in [k for k in MEMORY_KINDS if k in held]:
        size = np.asarray(held[kind]) / 1e3
        ax.bar(at, size, 0.65, bottom=bottom, color=MEMORY_KINDS[kind], edgecolor="white", label=kind)
        bottom = bottom + size
    if raw is not None:
        ax.plot(
            at, np.asarray(raw) / 1e3, ":o", color=BLACK, label="all training\nimages so far, raw", zorder=3
        )
    frame.whole_ticks(ax, len(at))
    frame.dress(ax, "tasks learned", "kept after the task (kB)", style(r.about.get("method", ""))["label"])
    frame.legend(ax, "kind")
    return frame.finish(ax, made, r)


def plot_shares(shares, *, first=0, x="epoch", y="share (%)", looks=None, title=None, ax=None):
    """Shares in percent over epochs or tasks: one line per label.

    shares: {label: (E,) fractions}.   first: the number of the first entry.   looks: {label: style}, by
    default the colours and markers of tasks in order.
    """
    if not shares or not all(len(row) for row in shares.values()):
        raise PlotError("there are no shares to plot: give {label: (E,) fractions}")
    ax, _ = frame.axes(ax, (6.0, 3.6))
    colors = colormaps[SEQUENTIAL](np.linspace(0, 0.85, len(shares)))
    for n, (label, row) in enumerate(shares.items()):
        look = looks[label] if looks else {"color": colors[n], "marker": TASK_MARKERS[n % len(TASK_MARKERS)]}
        at = np.arange(first, first + len(row))
        ax.plot(at, 100 * np.asarray(row), clip_on=False, zorder=3, **look | {"label": label})
    frame.dress(ax, x, y, title)
    ax.set_xticks(range(first, first + max(map(len, shares.values()))))
    frame.percent_axis(ax)
    frame.legend(ax)
    return ax


# ---- formats of a mask

# Bits that a mask needs for each of its places, by the density d of the places taken.
FORMATS = {
    "one byte a place (bool)": lambda d: 8 + 0 * d,
    "packed bits": lambda d: 1 + 0 * d,
    "int32 indices": lambda d: 32 * d,
    "int64 indices": lambda d: 64 * d,
    "sparse tensor, 4 axes": lambda d: (4 * 64 + 32) * d,  # PyTorch's COO: an int64 for each axis, a float32
}


def plot_formats(densities, *, ax=None):
    """Bits that a mask needs for each of its places, against its density, in five formats.

    densities: {label: density, or a list of them}, drawn as marks on the smaller of bits and int32 indices.
    """
    ax, _ = frame.axes(ax, (8.2, 4.2))
    d = np.geomspace(1e-3, 1, 61)
    colors = colormaps[SEQUENTIAL](np.linspace(0, 0.85, len(FORMATS)))
    for n, (name, bits) in enumerate(FORMATS.items()):
        line = ("-", "-", "--", "-.", ":")[n]
        ax.plot(100 * d, bits(d), line, color=colors[n], label=name, linewidth=1.8)
    for n, (label, values) in enumerate(densities.items()):
        values = np.atleast_1d(np.asarray(values, dtype=float))
        if not ((values > 0) & (values <= 1)).all():
            raise PlotError(f"a density is a fraction above 0 and up to 1, unlike those of '{label}'")
        best = np.minimum(FORMATS["packed bits"](values), FORMATS["int32 indices"](values))
        look = {"color": BLACK, "markerfacecolor": "white", "markersize": 7, "linestyle": "none"}
        ax.plot(100 * values, best, TASK_MARKERS[n % len(TASK_MARKERS)], label=label, zorder=3, **look)
    ax.axvline(100 / 32, color=GREY, linewidth=0.8)
    ax.set_xscale("log")
    ax.set_yscale("log")
    ax.set_xticks([0.1, 1, 100 / 32, 10, 100], ["0.1", "1", "3.1", "10", "100"])
    ax.set_yticks([0.1, 1, 8, 64], ["0.1", "1", "8", "64"])
    ax.minorticks_off()
    frame.dress(ax, "density: places taken (%)", "bits for each place")
    frame.legend(ax)
    return ax
