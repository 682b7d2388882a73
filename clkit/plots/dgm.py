"""Plots for generative memories that grow: reuse, masks in training, neurons, weights, generated images.

The trace tables "capacity", "masks" and "growth" are those of DGM; "generated" is that of any method with a
generator, "progress" that of any method whose classifier learns from one.
"""

import numpy as np
from matplotlib.colors import to_rgba
from matplotlib.ticker import MaxNLocator

from clkit.papers.palette import BLACK, BLUE, DASHED, DOTTED, GREEN, GREY, ORANGE, VERMILLION
from clkit.plots import frame
from clkit.plots.bars import ABOVE
from clkit.plots.frame import PlotError
from clkit.plots.images import plot_images
from clkit.plots.online import task_strip
from clkit.plots.style import TICK
from clkit.plots.style import drawn_style as style
from clkit.result import by_epoch, chosen, interval

# ---- masks


def reuse(result, layer=None):
    """(newly reserved (T,), reused (T,)): shares of the places in use in each task's hard mask; NaN for none.

    layer: from 0; None: the sum over the masked layers.
    """
    task, layers = (frame.column(result, "capacity", c, int) for c in ("task", "layer"))
    if layer is not None and layer not in layers:
        has = f"{layers.max() + 1} masked layers, numbered from 0"
        raise PlotError(f"there are {has}: there is no layer {layer}")
    mine = np.full(len(task), True) if layer is None else layers == layer
    new, reused = (
        np.bincount(task[mine], frame.column(result, "capacity", c, float)[mine], result.tasks)
        for c in ("new", "reused")
    )
    with np.errstate(invalid="ignore"):
        return new / (new + reused), reused / (new + reused)


def plot_reuse(results, layer=None, *, legend=True, title=None, ax=None):
    """Of the places in use in each task's mask, those newly reserved and those reused, in percent.

    layer: see `reuse`. Means and intervals; in each task both shares sum to 100.
    """
    seeds = frame.one_method(results)
    both = np.array([reuse(r, layer) for r in seeds])  # (n, 2, T)
    ax, made = frame.axes(ax, (6.4, 3.6))
    looks = (("newly reserved", VERMILLION, "o", "-"), ("reused", BLUE, "s", "--"))
    for rows, (name, color, marker, line) in zip(both.swapaxes(0, 1), looks, strict=True):
        mean, half = frame.intervals(rows)
        at = np.arange(1, len(mean) + 1)
        ax.plot(at, mean, color=color, marker=marker, linestyle=line, label=name, clip_on=False, zorder=3)
        frame.band(ax, at, mean, half, color)
    where = "all masked layers" if layer is None else f"layer {layer + 1}"
    frame.dress(
        ax, "task", "share of the mask (%)", f"{frame.label(seeds)}, {where}" if title is None else title
    )
    frame.percent_axis(ax)
    frame.whole_ticks(ax, both.shape[2])
    if legend:
        frame.legend(ax, frame.lines_title({"": seeds}))
    return frame.finish(ax, made, seeds)


def mask_course(result, task, layer):
    """Mask values (E, n) of one task and layer, a row for the start of each epoch; PlotError if none.

    n: all units of the layer, or the weights that were recorded.
    """
    columns = (frame.column(result, "masks", c, int) for c in ("task", "layer"))
    mine = np.flatnonzero(np.logical_and(*(c == wanted for c, wanted in zip(columns, (task, layer)))))
    if not len(mine):
        raise PlotError(f"no mask was recorded for task {task} and layer {layer}, both from 0")
    return np.array([result.trace["masks"]["values"][i] for i in mine], dtype=float)


def plot_mask_course(results, task=0, layer=0, *, title=None, ax=None):
    """Every mask value of one layer over the epochs of a task, of the first seed that recorded them.

    task, layer: from 0. Thin lines: units, blue if their value ends above a half, else grey. Bold: their
    mean, the occupation of the layer. Values are those at the scale of the epoch.
    """
    seeds = frame.one_method(results)
    result = next((r for r in seeds if "masks" in r.trace), seeds[0])
    values = mask_course(result, task, layer)
    ax, made = frame.axes(ax, (6.4, 3.8))
    at, on = np.arange(len(values)), values[-1] > 0.5
    for which, color, name in ((~on, "#999999", "ends below a half"), (on, BLUE, "ends above a half")):
        lines = ax.plot(at, values[:, which], color=color, linewidth=0.7, alpha=0.6)
        for n, line in enumerate(lines):
            line.set_label("_" if n else f"{name} ({which.sum()})")
    ax.plot(at, values.mean(axis=1), color=BLACK, linewidth=3, label="mean of the layer", zorder=4)
    what = f"task {task + 1}, layer {layer + 1}"
    frame.dress(ax, "epoch", "mask value", f"{frame.label(seeds)}, {what}" if title is None else title)
    ax.xaxis.set_major_locator(MaxNLocator(10, integer=True))
    ax.set_ylim(-0.02, 1.02)
    ax.margins(x=0.01)
    frame.legend(ax)
    return frame.finish(ax, made, result)


# ---- accuracy by epoch

CHOSEN = {"color": GREEN, "marker": "s", "markerfacecolor": "none", "linestyle": "none"}


def plot_epochs(results, *, legend=True, title=None, ax=None):
    """Mean accuracy over the classes seen after each epoch of each task, of the first seed, in percent.

    A line for test images, a broken one for validation images. Dots: the last epoch of each task, whose
    accuracy is that of the run; squares: the epoch that validation images choose.
    """
    result = frame.one_method(results)[0]
    test, val = ([100 * v for v in by_epoch(result, images)] for images in ("test", "validation"))
    if not test:
        raise PlotError("this result has no accuracy on validation images: run it on a stream with val > 0")
    ends = np.cumsum([len(v) for v in test])
    best = ends - [len(v) for v in test] + [epoch + 1 for epoch, _ in chosen(result)]
    scores, color = np.concatenate(test), frame.look_of([result])["color"]
    ax, made = frame.axes(ax, (9.6, 3.8))
    at = np.arange(len(scores)) + 1
    for n, stage in enumerate(np.split(at, ends[:-1])):
        label = "_" if n else "on {} images"
        ax.plot(stage, val[n], color=GREY, linestyle=DASHED, linewidth=1, label=label.format("validation"))
        ax.plot(stage, test[n], color=color, linewidth=1.4, label=label.format("test"))
    ax.plot(ends, scores[ends - 1], "o", color=color, markersize=6, label="last epoch: our score", zorder=4)
    ax.plot(best, scores[best - 1], markersize=8, label="best on validation", zorder=5, **CHOSEN)
    frame.dress(
        ax,
        "epochs, tasks in sequence",
        "accuracy (%)",
        frame.label([result]) if title is None else title,
        pad=20,
    )
    task_strip(ax, [len(v) for v in test])
    ax.set_ylim(5 * np.floor(min(scores.min(), np.concatenate(val).min()) / 5) - 1, 101)
    ax.set_xlim(0, ends[-1] + 1)
    if legend:
        frame.legend(ax, frame.kind([result]))
    return frame.finish(ax, made, result)


# ---- growth


def plot_neurons(results, *, relative=False, legend=True, ax=None):
    """Units of the masked layers while each task is learned: one line per method, mean and interval.

    relative: divided by the units at the start. Dotted: the worst case, in which every task needs as many
    units as there were at the start.
    """
    groups = frame.same_tasks(results)
    ax, made = frame.axes(ax, (6.4, 3.8))
    starts = {m: frame.column(seeds[0], "growth", "start", float)[0] for m, seeds in groups.items()}
    tasks = np.arange(1, frame.first(groups).tasks + 1)
    for method, seeds in groups.items():
        look, scale = style(method), starts[method] if relative else 1
        mean, half = (
            v / 100
            for v in frame.intervals([frame.column(r, "growth", "units", float) / scale for r in seeds])
        )
        learned = tasks[: len(mean)]
        ax.plot(learned, mean, markersize=5, clip_on=False, zorder=3, **look)
        frame.band(ax, learned, mean, half, look["color"])
    worst = (
        {1.0: list(starts)}
        if relative
        else {s: [m for m in starts if starts[m] == s] for s in starts.values()}
    )
    for n, (start, methods) in enumerate(worst.items()):
        whose = "" if len(worst) == 1 else f" ({', '.join(style(m)['label'] for m in methods)})"
        shade = (BLACK, GREY)[n % 2]
        ax.plot(tasks, start * tasks, color=shade, linestyle=DOTTED, label=f"linear growth{whose}")
    frame.dress(
        ax, "task", "neurons, as a multiple of the start" if relative else "neurons of the masked layers"
    )
    frame.whole_ticks(ax, len(tasks))
    ax.set_ylim(0)
    if legend:
        frame.legend(ax, frame.lines_title(groups), handlelength=3.2)
    return frame.finish(ax, made, groups)


def plot_weights(rows, printed=None, *, legend=True, ax=None):
    """Weights of the masked layers after the last task as multiples of the start: a row per label.

    rows: {label: seeds}, with the trace table "growth".   printed: {label: multiple}, drawn as diamonds.
    Filled dots: before the last growth, with intervals; open squares: after it. The numbers of weights stand
    beside each row: start, before, after.
    """
    groups = frame.grouped(rows)
    ax, made = frame.axes(ax, (7.4, 1.6 + 0.36 * len(groups)))
    for n, (label, seeds) in enumerate(groups.items()):
        start, before, after = (np.array(v, dtype=float) for v in zip(*map(weights, seeds)))
        i = interval(before / start)
        look = {"color": BLUE, "label": "_" if n else "with the growth that follows"}
        ax.plot((after / start).mean(), n, "s", markerfacecolor="white", markersize=6, zorder=3, **look)
        look["label"] = "_" if n else "when the last task is learned"
        ax.errorbar(i.mean, n, xerr=i.half if i.n > 1 else 0, fmt="o", capsize=4, zorder=4, **look)
        if printed and label in printed:
            ax.plot(printed[label], n + 0.22, "D", color=VERMILLION, markerfacecolor="none", markersize=5)
        said = " → ".join(f"{v.mean():,.0f}" for v in (start, before, after))
        ax.annotate(said, (1.01, n), xycoords=("axes fraction", "data"), va="center", fontsize=TICK)
    ax.axvline(1, color=GREY, linewidth=0.8, linestyle=":")
    ax.set_yticks(range(len(groups)), groups)
    ax.set_ylim(len(groups) - 0.5, -0.5)
    ax.set_xlim(0)
    note = frame.lines_title(groups)
    frame.dress(ax, f"weights after the last task, as a multiple of the start\n{note}", grid="x")
    if legend:
        frame.legend(ax, **ABOVE, ncols=2)
    return frame.finish(ax, made, groups)


def weights(result):
    """Weights of the masked layers: (at the start, after the last task, after the growth that follows it)."""
    before, after = (frame.column(result, "growth", c, float) for c in ("weights", "weights_after"))
    return before[0], before[-1], after[-1]


# ---- two stages


def plot_two_stages(rows, stages, *, title=None, legend=True, ax=None):
    """Scores in percent after an earlier and a later stage, ours and printed: a row per label.

    rows: {label: (ours, printed)}; ours: [(earlier, later)] as fractions, one pair per seed, or empty;
    printed: (earlier, later) in percent, either may be None.   stages: their names, such as ("A5", "A10").
    Circles are the earlier stage and squares the later one: filled for our means, hollow for printed numbers.
    """
    ax, _ = frame.axes(ax, (6.4, 1.6 + 0.42 * len(rows)))
    apart = 0.16 if any(ours for ours, _ in rows.values()) else 0
    every = [
        (n - apart, [interval(values) for values in zip(*ours)], BLUE, "full")
        for n, (ours, _) in enumerate(rows.values())
        if ours
    ]
    every += [
        (n + apart, [None if p is None else interval([p / 100]) for p in printed], VERMILLION, "none")
        for n, (_, printed) in enumerate(rows.values())
    ]
    for y, pair, color, fill in every:
        ax.plot([100 * i.mean for i in pair if i], [y] * sum(map(bool, pair)), color=color, linewidth=0.8)
        for i, marker in zip(pair, "os"):
            if i:
                look = {"fmt": marker, "color": color, "fillstyle": fill, "markersize": 6, "capsize": 3}
                ax.errorbar(100 * i.mean, y, xerr=100 * i.half if i.n > 1 else None, zorder=3, **look)
    who = [("ours", BLUE, "full")] * any(ours for ours, _ in rows.values()) + [
        ("printed", VERMILLION, "none")
    ]
    for name, color, fill in who:
        for stage, marker in zip(stages, "os"):
            look = {"color": color, "fillstyle": fill, "linestyle": "none", "label": f"{stage}, {name}"}
            ax.plot([], [], marker, **look)
    ax.set_yticks(range(len(rows)), rows)
    ax.set_ylim(len(rows) - 0.4, -0.6)
    ax.set_xlim(0, 101)
    frame.dress(ax, "accuracy (%)", None, title, grid="x")
    if legend:
        frame.legend(ax)
    return ax


# ---- disc space

DISC_KINDS = {  # kind: (colour, hatch)
    "weights": (ORANGE, None),
    "heads and normalisation": (ORANGE, "...."),
    "masks": (GREEN, None),
    "weights and masks": (GREY, None),
    "images": (VERMILLION, "////"),
}


def disc_space(result, stage, masks):
    """{kind: MB} that the generator of a task takes on disc after a stage, before it grows.

    masks: their format: "bit", "index" (an int32 for each place that is on) or "coo" (sparse tensors of
    PyTorch).
    """
    columns = {"weights": "weight", "heads and normalisation": "task", "masks": masks}
    return {
        kind: float(frame.column(result, "growth", f"{name}_bytes", float)[stage]) / 1e6
        for kind, name in columns.items()
    }


def plot_disc(rows, *, title=None, legend=True, ax=None):
    """Disc space in MB (10^6 bytes) as stacked bars; rows: {label: {kind: MB}}, kinds as in DISC_KINDS."""
    for kind in {kind for parts in rows.values() for kind in parts} - DISC_KINDS.keys():
        raise PlotError(f"there is no kind of disc space '{kind}': use {', '.join(DISC_KINDS)}")
    ax, _ = frame.axes(ax, (6.4, 1.5 + 0.42 * len(rows)))
    left = np.zeros(len(rows))
    for kind, (color, hatch) in DISC_KINDS.items():
        there = {n: parts[kind] for n, parts in enumerate(rows.values()) if kind in parts}
        if there:
            at, face = [*there], color if hatch is None else to_rgba(color, 0.3)
            look = {"color": face, "edgecolor": color if hatch else "white", "hatch": hatch, "height": 0.65}
            ax.barh(at, [*there.values()], left=left[at], label=kind, **look)
            left[at] += [*there.values()]
    for n, total in enumerate(left):
        place = {"xytext": (4, 0), "textcoords": "offset points", "va": "center", "fontsize": TICK}
        ax.annotate(f"{total:.3g}" if total < 100 else f"{total:.0f}", (total, n), **place)
    ax.set_yticks(range(len(rows)), rows)
    ax.invert_yaxis()
    ax.set_xlim(0, left.max() * 1.18)
    frame.dress(ax, "MB", None, title, grid="x")
    if legend:
        frame.legend(ax)
    return ax


# ---- generated images


def recognised(result):
    """(R,) mean over the classes seen of the share of generated images that the judge recognises."""
    found = frame.column(result, "generated", "accuracy", float)  # (R, K)
    return np.array([np.nanmean(row) for row in found])


def recognised_after(result, classes):
    """`recognised` of the stage that ends with `classes` classes; NaN if there is none."""
    return dict(zip(result.seen.tolist(), recognised(result))).get(classes, np.nan)


def drift(result):
    """(R,) how much the share of recognised images has changed since a class was learned.

    The mean over the classes of earlier stages; NaN for the first stage.
    """
    found = frame.column(result, "generated", "accuracy", float)  # (R, K)
    first = np.searchsorted(result.seen, np.arange(found.shape[1]), side="right")  # stage of each class
    change = found - found[first, np.arange(found.shape[1])]
    return np.array([change[s, first < s].mean() if s else np.nan for s in range(len(found))])


def plot_generated(results, *, change=False, legend=True, ax=None):
    """Share of generated images that the judge recognises after each task: one line per method, in percent.

    The judge is a fixed classifier, trained on real images of all classes. Means over the classes seen, and
    intervals. Dotted: the judge on real test images.   change: instead, the mean change in points since each
    earlier class was learned.
    """
    groups = frame.same_tasks(results)
    ax, made = frame.axes(ax, (6.8, 3.8))
    for method, seeds in groups.items():
        look = style(method)
        mean, half = frame.intervals([drift(r) if change else recognised(r) for r in seeds])
        at = np.arange(1, len(mean) + 1)
        ax.plot(at, mean, markersize=5, clip_on=False, zorder=3, **look)
        frame.band(ax, at, mean, half, look["color"])
    if change:
        ax.axhline(0, color=GREY, linewidth=0.8)
    else:
        judge = np.mean([frame.column(r, "generated", "judge", float)[-1] for r in frame.flat(groups)])
        ax.axhline(100 * judge, color=BLACK, linestyle=DOTTED, label="judge on real images")
        frame.percent_axis(ax)
    y = "change since the class was learned (points)" if change else "generated images recognised (%)"
    frame.dress(ax, "tasks learned", y)
    frame.whole_ticks(ax, frame.first(groups).tasks)
    if legend:
        frame.legend(ax, frame.lines_title(groups), handlelength=3.2)
    return frame.finish(ax, made, groups)


def unchanged(result):
    """{class: whether its generated images are the same, bit for bit, after every stage since it is learned}.

    Only classes that were generated after two stages or more.
    """
    images = frame.column(result, "generated", "images")  # (R, K, n, C, S, S)
    first = np.searchsorted(result.seen, np.arange(images.shape[1]), side="right")
    last = len(images) - 1
    return {k: bool((images[s:, k] == images[s, k]).all()) for k, s in enumerate(first.tolist()) if s < last}


def plot_samples(results, stage=-1, *, title=None, ax=None):
    """Generated images after a stage (from 0, negative from the end): a row for each class learned.

    Of the first seed whose images were kept.
    """
    result = _with_images(frame.one_method(results))
    stage = frame.stage_of([result], stage)
    images = frame.column(result, "generated", "images")[stage][: result.seen[stage]]  # (K, n, C, S, S)
    rows = [str(name) for name in result.names[: len(images)]]
    made = ax is None
    ax = plot_images(images.reshape(-1, *images.shape[2:]), columns=images.shape[1], rows=rows, ax=ax)
    title = f"{frame.label([result])}, after task {stage + 1}" if title is None else title
    ax.set_title(title, fontsize=TICK + 2)
    return frame.finish(ax, made, result)


def plot_sample_course(results, sample=0, *, title=None, ax=None):
    """One generated image of each class (rows) after each stage since it was learned (columns).

    sample: which of the images of a class, from 0; its noise is the same after every stage. To the right of a
    row stands whether all images of the class stayed the same, bit for bit.
    """
    result = _with_images(frame.one_method(results))
    images = frame.column(result, "generated", "images")[:, :, sample]  # (R, K, C, S, S)
    R, K, _, S, _ = images.shape
    unseen = np.arange(K) >= np.asarray(result.seen)[:, None]
    shown = np.where(unseen[:, :, None, None, None], 255, images).astype(np.uint8).swapaxes(0, 1)
    rows, gap, made = [str(name) for name in result.names], max(1, S // 16), ax is None
    ax = plot_images(shown.reshape(-1, *images.shape[2:]), columns=R, rows=rows, ax=ax)
    for stage in range(R):
        ax.text(stage * (S + gap) + S / 2, -gap, f"{stage + 1}", ha="center", va="bottom", fontsize=TICK)
    for k, same in unchanged(result).items():
        said = "identical" if same else "changes"
        ax.text(R * (S + gap), k * (S + gap) + S / 2, said, ha="left", va="center", fontsize=TICK)
    title = f"{frame.label([result])}, after task" if title is None else title
    ax.set_title(title, fontsize=TICK + 2, pad=16)
    return frame.finish(ax, made, result)


def _with_images(seeds):
    """The first seed whose generated images were kept, else the first seed."""
    return next((r for r in seeds if "images" in r.trace.get("generated", {})), seeds[0])
