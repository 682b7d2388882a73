"""Plots for ARM: recalled images, what they are taken for, their gradients, the terms of the objective."""

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
from clkit.plots.style import DIVERGING, LABEL, SEQUENTIAL


def plot_recall_map(results, *, vmax=None, colorbar=True, title=None, ax=None):
    """What is recalled in the course of the stream: a column a batch, a row a class, mean over the seeds.

    results: of ARM, with the trace table "recall".   vmax: end of the colour scale in percent, by default the
    largest value. The colour is the mean probability that the old network gives a class on what was
    recalled for a batch. Thin lines are starts of tasks; left of the first, nothing was recalled yet. Where
    the old network is that of the task before, a stepped line has below it the classes it has not seen.
    """
    seeds = frame.one_method(results)
    lengths = lengths_of(seeds)
    values = 100 * np.mean([frame.column(r, "recall", "output", float) for r in seeds], axis=0).T
    K, X = values.shape
    colors, found = colormaps[SEQUENTIAL].with_extremes(bad="#DDDDDD"), values[np.isfinite(values)]
    if not found.size:
        raise PlotError("nothing was recalled in these runs: recall begins with task 2")
    ax, made = frame.axes(ax, (7.6, 1.6 + 0.22 * min(K, 20)))
    look = {"cmap": colors, "aspect": "auto", "interpolation": "none" if X <= 1000 else "auto"}
    top = frame.top_of(found, vmax)
    image = ax.imshow(values, vmin=0, vmax=top, extent=(0, X, K - 0.5, -0.5), **look)
    ends, classes = np.cumsum(lengths), np.cumsum(seeds[0].classes_per_task)
    for start in ends[:-1]:
        ax.axvline(start, color="white", linewidth=0.7)
    if seeds[0].about.get("config", {}).get("lag") is None and len(lengths) > 1:
        n_seen = classes[[*range(len(classes) - 1), -2]]  # by the old network, from each of the ends on
        ax.step(ends, n_seen - 0.5, where="post", color="white", linewidth=1.6, linestyle=DASHED)
    step = 1 if K <= 20 else frame.step_of(K)
    ax.set_yticks(range(0, K, step), [str(name) for name in seeds[0].names[::step]])
    task_strip(ax, lengths)
    title = frame.label(seeds) if title is None else title
    frame.dress(ax, "batches learned from", "class", title, grid=None, pad=21)
    if colorbar:
        frame.colorbar(ax, image, f"probability by the old network\n(%, {frame.mean_of(seeds)})")
    return frame.finish(ax, made, seeds)


def plot_recalled(results, task=-1, row=-1, n=10, *, change=False, ax=None):
    """Images that were recalled for a batch, and below each the image that it began as: `plot_pairs`.

    results: of ARM, with the trace table "images"; the first that has it is shown.   task: from 0, negative
    from the end.   row: of the rows of that task.   n: at most so many images.
    """
    result = _holding("images", results)
    mine, task = _rows_of(result, "images", task, row, "rows of images", "row")
    found = {c: values[mine[row]] for c, values in result.trace["images"].items()}
    if not len(found["recalled"]):
        raise PlotError(f"nothing was recalled in task {task + 1}: recall begins with task 2")
    columns = [np.asarray(found[c])[:n] for c in ("recalled", "start", "probs", "origins", "counts")]
    ax = plot_pairs(*columns, names=result.names, change=change, ax=ax)
    ax.set_title(f"{frame.label([result])}, task {task + 1}, batch {found['step'] + 1}", fontsize=LABEL + 1)
    return ax


def plot_pairs(images, starts, probs, origins, counts=None, *, names=None, change=False, ax=None):
    """Recalled images above the images that they began as.

    images, starts: (n, C, H, W).   probs: (n, K) probabilities for `images`.   origins: (n,) classes of
    `starts`, -1 for noise.   counts: (n,) how often each occurs.   names: of the classes.   change: show the
    difference too, its mean over colours, on one scale around 0. Recalled images leave the range of pixels:
    each is stretched from its own least to its own greatest value. These stand above it, under the most
    likely class and its probability.
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
    """What stands above a recalled image: class, probability, range of its pixels."""
    name = names[p.argmax()]
    said = f"{name}{' ' if len(name) < 4 else chr(10)}({100 * p.max():.0f} %)\n{low:.1f} to {high:.1f}"
    return said.replace("-", "−")


def _holding(table, results):
    """The first of the seeds of one method that has a trace table, else the first of all."""
    seeds = frame.one_method(results)
    return next((r for r in seeds if table in r.trace), seeds[0])


def _rows_of(result, table, task, row, many, one):
    """(rows of a table that belong to a task, the task from 0); `row`, if any, must be one of `many`."""
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
    """How alike the gradients of recalled and of real images are, by layer: mean cosine over the seeds.

    results: with the trace table "gradients".   condition: of it, such as "hard", "soft", "control hard".
    published: list of Published, of which those of this condition are drawn as hollow markers. Class 1 is the
    one that an image began as, class 2 the one that it is recalled as. Thin bars: one standard deviation of
    the single values (images times parameter tensors), ours and printed; thick bars: interval of the mean.
    """
    seeds = frame.one_method(results)
    groups, means, deviations, values = _cosines(seeds, condition)
    ax, made = frame.axes(ax, (7.2, 3.8))
    if published and not any(_printed_cosine(published, condition, g, "class 1") for g in groups):
        said = f"a gradient correlation with {condition} targets of the layers {', '.join(groups)}"
        raise PlotError(f"none of the published numbers is {said}")
    for which, side, color, marker in (("class 1", -1, BLUE, "o"), ("class 2", 1, VERMILLION, "s")):
        at = np.arange(len(groups)) + 0.1 * side
        mean, half = (v / 100 for v in frame.intervals(means[which]))
        # of the values of all seeds together, which count alike
        deviation = np.sqrt(np.mean(deviations[which] ** 2, axis=0) + np.var(means[which], axis=0))
        bars = {"fmt": "none", "ecolor": color}
        ax.errorbar(at, mean, deviation, linewidth=0.8, **bars)
        if len(seeds) > 1:
            ax.errorbar(at, mean, half, linewidth=2.4, capsize=4, **bars)
        what = "as it began" if side < 0 else "as recalled"
        ax.plot(at, mean, marker, color=color, markersize=6, label=f"{which[-1]}: {what}", zorder=3)
        look = {"color": color, "markerfacecolor": "white", "markersize": 5, "linewidth": 0.8, "label": "_"}
        for x, group in zip(at + 0.17 * side, groups):
            if p := _printed_cosine(published or (), condition, group, which):
                ax.errorbar(x, p.value, p.spread, fmt=marker, **look)
    ax.axhline(0, color="black", linewidth=0.8, zorder=0)
    ax.set_xticks(range(len(groups)), [f"{g}\n({v:,})" for g, v in zip(groups, values)])
    ax.set_xlim(-0.5, len(groups) - 0.5)
    y = "cosine between gradients\n(thin bars: ± 1 SD of single values)"
    title = f"{frame.label(seeds)}, {condition.replace('control', 'control,')} targets"
    frame.dress(ax, "layer (single values of a seed)", y, title)
    if published:
        ax.plot([], [], "o", color=GREY, markerfacecolor="white", label="printed, with its ±")
    if legend:
        note = frame.lines_title({"": seeds})
        frame.legend(ax, f"compared with real\nimages of class ...\n({note})")
    return frame.finish(ax, made, seeds)


def _cosines(seeds, condition):
    """(groups, means {class: (n, G)}, deviations likewise, numbers of values (G,)), of "gradients"."""
    columns = ("condition", "which", "group", "mean", "deviation", "values")
    table = [{c: frame.column(r, "gradients", c) for c in columns} for r in seeds]
    known = list(dict.fromkeys(table[0]["condition"].tolist()))
    if condition not in known:
        raise PlotError(f"there is no condition '{condition}' in these results: there are {', '.join(known)}")
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


# The table "objective": {term: (name in words, colour, marker, line, sign in the sum that is minimised)}.
TERMS = {
    "divergence": ("divergence of the networks", BLUE, "o", SOLID, -1),
    "local_old": ("away from the batch's classes, old", VERMILLION, "s", SOLID, 1),
    "local_new": ("the same, new network", palette.ORANGE, "D", DASHED, 1),
    "diversity": ("diversity", palette.GREEN, "^", SOLID, 1),
    "confidence": ("confidence", palette.PURPLE, "v", SOLID, 1),
    "l2": ("L2 of the pixels", GREY, "<", DASHED, 1),
    "tv": ("total variation", palette.BROWN, ">", DASHED, 1),
    "target": ("target class", palette.WINE, "P", SOLID, 1),
    "bn_loss": ("batch-norm statistics", palette.TEAL, "X", palette.DASHDOT, 1),
}


def contributions(values, config):
    """What each term adds to the objective that recall minimises: {term: weight times value, with its sign}.

    values: {term: array} as in the trace table "objective".   config: settings of ARM, a dictionary. Terms
    of weight 0, and those that this kind of recall lacks, are left out.
    """
    found = {}
    for term, (*_, sign) in TERMS.items():
        weight = config["divergence_weight" if term == "divergence" else term]
        if weight and np.any(values[term]):
            found[term] = sign * weight * np.asarray(values[term], dtype=float)
    return found


def plot_objective(result, task=-1, row=None, *, legend=True, ax=None):
    """How each term of the objective that recall minimises changes over the optimisation steps.

    result: of ARM or ADI, with the trace table "objective".   task: from 0, negative from the end.   row: a
    batch of that task, from 0; the mean over its batches where None.
    """
    result = _holding("objective", result)
    every, task = _rows_of(result, "objective", task, row, "batches", "batch")
    mine = every if row is None else every[[row]]
    values = {t: frame.column(result, "objective", t, float)[mine].mean(axis=0) for t in TERMS}
    if np.isnan(values["divergence"]).any():
        raise PlotError(f"nothing was recalled in task {task + 1}: recall begins with task 2")
    ax, made = frame.axes(ax, (7.6, 3.8))
    plot_terms(contributions(values, result.about["config"]), legend=legend, ax=ax)
    what = f"mean of {len(every)} batches" if row is None else f"batch {row % len(every) + 1}"
    ax.set_title(f"{frame.label([result])}, task {task + 1}, {what}", fontsize=LABEL + 1)
    return frame.finish(ax, made, [result])


def plot_terms(terms, *, at=None, legend=True, ax=None):
    """How the terms of an objective change over optimisation steps on the images; their sum in black.

    terms: {name of TERMS: (S,) before each step}, as `contributions` gives them. The legend has the values at
    the start.   at: a number of steps, marked by a line.
    """
    if not terms:
        raise PlotError("there are no terms to plot: every one has the weight 0")
    ax, _ = frame.axes(ax, (7.6, 3.8))
    total = sum(terms.values())
    steps = np.arange(len(total))
    said = f"{_signed(total[0])}  sum, minimised"
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
        frame.legend(ax, "value at the start and term")
    return ax


def _signed(value):
    return f"{value:+.2f}".replace("-", "−")
