"""Plots for ARM: recalled images, their classes and gradients, and the terms of the objective."""

import re

import numpy as np
from matplotlib import colormaps
from matplotlib.ticker import MaxNLocator

from clkit.papers import palette
from clkit.papers.palette import BLUE, DASHED, GREY, SOLID, VERMILLION
from clkit.plots import frame
from clkit.plots.frame import PlotError
from clkit.plots.images import plot_images
from clkit.plots.online import lengths_of, same, task_strip
from clkit.plots.style import DIVERGING, LABEL, SEQUENTIAL, plain


def plot_recall_map(results, *, vmax=None, colorbar=True, title=None, ax=None):
    """Recalled classes along the stream: one column for each batch, one row for each class; mean over seeds.

    results: of ARM, with the trace table "recall".   vmax: top of the colour scale in percent, by default the
    largest value. The colour is the mean probability that the old network assigns to a class over the images
    recalled for a batch. Thin lines mark the starts of tasks from task 2, where recall begins. If the old
    network is that of the previous task, classes below the stepped line are new to it.
    """
    seeds = frame.one_method(results)
    lengths = lengths_of(seeds)
    values = 100 * np.mean([frame.column(r, "recall", "output", float) for r in seeds], axis=0).T
    K, X = values.shape
    colors, found = colormaps[SEQUENTIAL].with_extremes(bad="#DDDDDD"), values[np.isfinite(values)]
    if not found.size:
        raise PlotError("nothing was recalled in these runs: recall needs a second task")
    ax, made = frame.axes(ax, (7.6, 1.6 + 0.22 * min(K, 20)))
    look = {"cmap": colors, "aspect": "auto", "interpolation": "none" if X <= 1000 else "auto"}
    top = frame.top_of(found, vmax)
    image = ax.imshow(values, vmin=0, vmax=top, extent=(0, X, K - 0.5, -0.5), **look)
    ends, classes = np.cumsum(lengths), np.cumsum(seeds[0].classes_per_task)
    for start in ends[:-1]:
        ax.axvline(start, color="white", linewidth=0.7)
    if seeds[0].about.get("config", {}).get("lag") is None and len(lengths) > 1:
        n_seen = classes[[*range(len(classes) - 1), -2]]  # known to the old network, from each end on
        ax.step(ends, n_seen - 0.5, where="post", color="white", linewidth=1.6, linestyle=DASHED)
    step = 1 if K <= 20 else frame.step_of(K)
    ax.set_yticks(range(0, K, step), [plain(name) for name in seeds[0].names[::step]])
    task_strip(ax, lengths)
    title = frame.label(seeds) if title is None else title
    frame.dress(ax, "training batches", "class", title, grid=None, pad=21)
    if colorbar:
        frame.colorbar(ax, image, f"probability from the old network\n(%, {frame.mean_of(seeds)})")
    return frame.finish(ax, made, seeds)


def plot_recalled(results, task=-1, row=-1, n=10, *, change=False, ax=None):
    """Images recalled for a batch, each above its starting image: see `plot_pairs`.

    results: of ARM, with the trace table "images"; the first result with this table is shown.   task: from 0,
    negative from the end.   row: index among the rows of that task.   n: maximum number of images.
    """
    result = _holding("images", results)
    mine, task = _rows_of(result, "images", task, row, "rows of images", "row")
    found = {c: values[mine[row]] for c, values in result.trace["images"].items()}
    if not len(found["recalled"]):
        raise PlotError(f"nothing was recalled in task {task + 1}: recall begins in task 2")
    columns = [np.asarray(found[c])[:n] for c in ("recalled", "start", "probs", "origins", "counts")]
    ax = plot_pairs(*columns, names=result.names, change=change, ax=ax)
    ax.set_title(f"{frame.label([result])}, task {task + 1}, batch {found['step'] + 1}", fontsize=LABEL + 1)
    return ax


def plot_pairs(images, starts, probs, origins, counts=None, *, names=None, change=False, ax=None):
    """Recalled images above their starting images.

    images, starts: (n, C, H, W).   probs: (n, K) probabilities for `images`.   origins: (n,) classes of
    `starts`, -1 for noise.   counts: (n,) how often each occurs.   names: of the classes.   change: also show
    the difference, averaged over colours, on one scale centred at 0. Recalled images leave the range of
    pixels, so each is stretched from its smallest to its largest value. The text above an image gives its
    most likely class with the probability, and these two values.
    """
    images, starts, probs = (np.asarray(a, dtype=float) for a in (images, starts, probs))
    low, high = images.min(axis=(1, 2, 3)), images.max(axis=(1, 2, 3))  # (n,)
    spread = np.where(high > low, high - low, 1)[:, None, None, None]
    pictures, lines = [(images - low[:, None, None, None]) / spread, starts], ["recalled", "began as"]
    if change:
        apart = (images - starts).mean(axis=1)  # (n, H, W)
        most = np.abs(apart).max() or 1
        pictures.append(np.moveaxis(colormaps[DIVERGING](0.5 + apart / most / 2)[..., :3], -1, 1))
        lines.append(f"change\n(blue −{most:.1f},\nred +{most:.1f})")
    names = [str(name) for name in (range(probs.shape[1]) if names is None else names)]
    titles = [_caption(names, p, a, b) for p, a, b in zip(probs, low, high)]
    copies = ["" if counts is None or counts[i] == 1 else f" (×{counts[i]:.0f})" for i in range(len(images))]
    titles += [("noise" if k < 0 else names[k]) + c for k, c in zip(origins, copies)]
    titles += [""] * (len(images) if change else 0)
    shape = (len(images), 3, *images.shape[2:])
    pictures = np.concatenate([np.broadcast_to(p, shape) for p in pictures])
    return plot_images(pictures, titles, columns=len(images), rows=lines, ax=ax)


def _caption(names, p, low, high):
    """The text above a recalled image: class, probability and pixel range."""
    name = names[p.argmax()]
    said = f"{name}{' ' if len(name) < 4 else chr(10)}({100 * p.max():.0f} %)\n{low:.1f}…{high:.1f}"
    return said.replace("-", "−")


def _holding(table, results):
    """The first seed with a trace table of this name, else the first seed."""
    seeds = frame.one_method(results)
    return next((r for r in seeds if table in r.trace), seeds[0])


def _rows_of(result, table, task, row, many, one):
    """(rows of a table that belong to a task, the task from 0); PlotError if `row` is not among them."""
    tasks = frame.column(result, table, "task", int)
    if not -result.tasks <= task < result.tasks:
        raise PlotError(f"there are {result.tasks} tasks, numbered from 0: there is no task {task}")
    task %= result.tasks
    mine = np.flatnonzero(tasks == task)
    if row is not None and not -len(mine) <= row < len(mine):
        has = f"task {task + 1} has {len(mine)} {many}, numbered from 0"
        raise PlotError(f"{has}: there is no {one} {row}")
    return mine, task


def plot_gradients(results, condition="hard", published=None, *, legend=True, ax=None):
    """Cosines between the gradients of recalled and of real images, by layer: means over seeds.

    results: with the trace table "gradients".   condition: one of its conditions, such as "hard", "soft",
    "control hard".   published: list of Published; those of this condition are drawn as hollow markers. Class
    1 is the class of the starting image, class 2 the class as which it is recalled. Thin bars: one standard
    deviation of the individual values (one per image and parameter tensor), ours and printed; thick bars:
    interval of the mean.
    """
    seeds = frame.one_method(results)
    groups, means, deviations, values = _cosines(seeds, condition)
    ax, made = frame.axes(ax, (7.2, 3.8))
    if published and not any(_printed_cosine(published, condition, g, "class 1") for g in groups):
        said = f"a gradient correlation for {condition} targets in the layers {', '.join(groups)}"
        raise PlotError(f"none of the published numbers is {said}: leave `published` out")
    for which, side, color, marker in (("class 1", -1, BLUE, "o"), ("class 2", 1, VERMILLION, "s")):
        at = np.arange(len(groups)) + 0.1 * side
        mean, half = (v / 100 for v in frame.intervals(means[which]))
        # of the values of all seeds pooled, with equal weights
        deviation = np.sqrt(np.mean(deviations[which] ** 2, axis=0) + np.var(means[which], axis=0))
        bars = {"fmt": "none", "ecolor": color}
        ax.errorbar(at, mean, deviation, linewidth=0.8, **bars)
        if len(seeds) > 1:
            ax.errorbar(at, mean, half, linewidth=2.4, capsize=4, **bars)
        what = "starting class" if side < 0 else "recalled class"
        ax.plot(at, mean, marker, color=color, markersize=6, label=f"{which[-1]}: {what}", zorder=3)
        look = {"color": color, "markerfacecolor": "white", "markersize": 5, "linewidth": 0.8, "label": "_"}
        for x, group in zip(at + 0.17 * side, groups):
            if p := _printed_cosine(published or (), condition, group, which):
                ax.errorbar(x, p.value, p.spread, fmt=marker, **look)
    ax.axhline(0, color="black", linewidth=0.8, zorder=0)
    ax.set_xticks(range(len(groups)), [f"{g}\n({v:,})" for g, v in zip(groups, values)])
    ax.set_xlim(-0.5, len(groups) - 0.5)
    y = "cosine between gradients\n(thin bars: ± 1 SD of individual values)"
    title = f"{frame.label(seeds)}, {condition.replace('control', 'control,')} targets"
    frame.dress(ax, "layer (individual values per seed)", y, title)
    if published:
        ax.plot([], [], "o", color=GREY, markerfacecolor="white", label="printed, with its ±")
    if legend:
        note = frame.lines_title({"": seeds})
        frame.legend(ax, f"compared with real\nimages of class\n({note})")
    return frame.finish(ax, made, seeds)


def _cosines(seeds, condition):
    """(groups, means {class: (n, G)}, deviations likewise, numbers of values (G,)), of "gradients"."""
    columns = ("condition", "which", "group", "mean", "deviation", "values")
    table = [{c: frame.column(r, "gradients", c) for c in columns} for r in seeds]
    known = list(dict.fromkeys(table[0]["condition"].tolist()))
    if condition not in known:
        raise PlotError(f"these results have no condition '{condition}': use one of {', '.join(known)}")
    means, deviations = {}, {}
    for which in ("class 1", "class 2"):
        mine = [(t["condition"] == condition) & (t["which"] == which) for t in table]
        groups = same(seeds, [t["group"][m] for t, m in zip(table, mine)], "their layers")
        means[which] = np.array([t["mean"][m] for t, m in zip(table, mine)], dtype=float)
        deviations[which] = np.array([t["deviation"][m] for t, m in zip(table, mine)], dtype=float)
    return groups.tolist(), means, deviations, table[0]["values"][mine[0]].tolist()


def _printed_cosine(published, condition, group, which):
    """The Published of a layer group ("FC1", printed as "FC 1"; "All"), or None."""
    said = "all" if group == "All" else re.sub(r"(\d+)$", r" \1", group)
    metric = f"gradient correlation, {condition} targets, {said}, {which}"
    return next((p for p in published if p.metric == metric), None)


# The table "objective": {term: (name in words, colour, marker, line, sign in the minimised sum)}.
TERMS = {
    "divergence": ("divergence between networks", BLUE, "o", SOLID, -1),
    "local_old": ("avoid the batch's classes (old)", VERMILLION, "s", SOLID, 1),
    "local_new": ("avoid the batch's classes (new)", palette.ORANGE, "D", DASHED, 1),
    "diversity": ("diversity", palette.GREEN, "^", SOLID, 1),
    "confidence": ("confidence", palette.PURPLE, "v", SOLID, 1),
    "l2": ("L2 norm of the pixels", GREY, "<", DASHED, 1),
    "tv": ("total variation", palette.BROWN, ">", DASHED, 1),
    "target": ("target class", palette.WINE, "P", SOLID, 1),
    "bn_loss": ("batch-norm statistics", palette.TEAL, "X", palette.DASHDOT, 1),
}


def contributions(values, config):
    """The contribution of each term to the objective that recall minimises: {term: signed weight × value}.

    values: {term: array} as in the trace table "objective".   config: settings of ARM, a dictionary. Terms
    with weight 0 and terms that this kind of recall does not use are omitted.
    """
    found = {}
    for term, (*_, sign) in TERMS.items():
        weight = config["divergence_weight" if term == "divergence" else term]
        if weight and np.any(values[term]):
            found[term] = sign * weight * np.asarray(values[term], dtype=float)
    return found


def plot_objective(result, task=-1, row=None, *, legend=True, ax=None):
    """How each term of the objective that recall minimises changes over the optimisation steps.

    result: of ARM or ADI, with the trace table "objective".   task: from 0, negative from the end.
    row: a batch of that task, from 0; None for the mean over its batches.
    """
    result = _holding("objective", result)
    every, task = _rows_of(result, "objective", task, row, "batches", "batch")
    mine = every if row is None else every[[row]]
    values = {t: frame.column(result, "objective", t, float)[mine].mean(axis=0) for t in TERMS}
    if np.isnan(values["divergence"]).any():
        raise PlotError(f"nothing was recalled in task {task + 1}: recall begins in task 2")
    ax, made = frame.axes(ax, (7.6, 3.8))
    plot_terms(contributions(values, result.about["config"]), legend=legend, ax=ax)
    what = f"mean of {len(every)} batches" if row is None else f"batch {row % len(every) + 1}"
    ax.set_title(f"{frame.label([result])}, task {task + 1}, {what}", fontsize=LABEL + 1)
    return frame.finish(ax, made, [result])


def plot_terms(terms, *, at=None, legend=True, ax=None):
    """How the terms of an objective change over the optimisation steps on the images; their sum is black.

    terms: {name in TERMS: (S,) values before each step}, as `contributions` returns them. The legend shows
    the values at the start.   at: a number of steps, marked by a line.
    """
    if not terms:
        raise PlotError("there are no terms to plot, because all weights are 0: set a weight above 0")
    ax, _ = frame.axes(ax, (7.6, 3.8))
    total = sum(terms.values())
    steps = np.arange(len(total))
    said = f"{_signed(total[0])}  sum (minimised)"
    ax.plot(steps, total - total[0], color="black", linewidth=3, alpha=0.6, label=said)
    for name, values in terms.items():
        label, color, marker, line, _ = TERMS[name]
        look = {"color": color, "marker": marker, "linestyle": line, "markersize": 4.5, "linewidth": 1.2}
        ax.plot(steps, values - values[0], label=f"{_signed(values[0])}  {label}", **look)
    if at is not None:
        ax.axvline(at, color="black", linewidth=1, linestyle=":")
    ax.axhline(0, color="black", linewidth=0.6, zorder=0)
    ax.xaxis.set_major_locator(MaxNLocator(10, integer=True))
    frame.dress(ax, "optimisation steps on the images", "change since the start\n(weight × term)")
    if legend:
        frame.legend(ax, "value at the start, term")
    return ax


def _signed(value):
    return f"{value:+.2f}".replace("-", "−")
