"""Progress along a stream: losses, and accuracy as batches arrive."""

import numpy as np

from clkit.plots import frame
from clkit.plots.accuracy import task_lines, tasks_legend
from clkit.plots.frame import PlotError
from clkit.plots.style import TASK_MARKERS


def plot_loss(results, column="loss", *, table="loss", ax=None):
    """A column of a trace table over the rows of all tasks in order: mean and interval.

    Lines separate the tasks. Seeds with different numbers of rows (early stopping) are drawn separately.
    """
    seeds = frame.one_method(results)
    every = [frame.column(r, table, "task", int) for r in seeds]
    curves = [frame.column(r, table, column, float) for r in seeds]
    ax, made = frame.axes(ax, (6.6, 3.4))
    color, tasks = frame.look_of(seeds)["color"], every[0]
    if all(np.array_equal(other, tasks) for other in every):
        (mean, half), at = (v / 100 for v in frame.intervals(curves)), np.arange(len(tasks)) + 1
        ax.plot(at, mean, color=color)
        frame.band(ax, at, mean, half, color)
        note = f"mean, {frame.kind(seeds)}" if len(seeds) > 1 else frame.kind(seeds)
    else:
        for values in curves:
            ax.plot(np.arange(len(values)) + 1, values, color=color, alpha=0.6, linewidth=1)
        note = f"{len(seeds)} seeds, drawn separately"
    for edge in np.flatnonzero(np.diff(tasks)) + 1.5:
        ax.axvline(edge, color="#AAAAAA", linewidth=0.8, linestyle=":")
    numbers = np.unique(tasks)
    for t in numbers if len(numbers) <= 20 else ():
        frame.task_label(ax, np.flatnonzero(tasks == t).mean() + 1, 1.0, t, len(numbers))
    unit = "batches" if "step" in seeds[0].trace[table] else "epochs"
    frame.dress(ax, f"{unit}, tasks in sequence", f"{column}\n({note})", frame.label(seeds), pad=16)
    ax.margins(x=0.02)
    return frame.finish(ax, made, seeds)


def lengths_of(seeds):
    """(T,) number of batches of each task, from the rows of the table "loss"."""
    return same(seeds, [_lengths(r) for r in seeds], "the number of batches")


def _lengths(result):
    return np.bincount(frame.column(result, "loss", "task", int), minlength=result.tasks)


def same(seeds, found, what):
    """The value in `found` that all seeds share; PlotError if they differ."""
    if any(not np.array_equal(found[0], other) for other in found[1:]):
        raise PlotError(f"these {len(seeds)} seeds differ in {what}: plot seeds of one experiment")
    return found[0]


def plot_progress(results, reference=None, *, legend=True, ax=None):
    """Accuracy in percent on each task along the stream: one line for each task, mean and interval.

    results: with the trace table "progress": accuracy among all classes on a sample of each task's test
    images. The last point is the accuracy after the last task on all test images (`Result.accuracy`).
    reference: results of another method, drawn in grey with the markers of the tasks. A strip above the axes
    shows when each task is learned.
    """
    seeds = frame.one_method(results)
    at, rows, lengths = _progress(seeds)
    ax, made = frame.axes(ax, (7.6, 4.0))
    behind = frame.one_method(reference) if reference else []
    colors = task_lines(ax, [(at, rows[:, :, j]) for j in range(len(lengths))], markersize=4, zorder=3)
    if behind:
        _draw_reference(ax, behind, seeds)
    task_strip(ax, lengths, colors)
    y = "accuracy on the task's test images (%)"
    frame.dress(ax, "training batches", y, frame.label(seeds), pad=21)
    ax.set_xlim(0, at[-1] * 1.01)
    frame.percent_axis(ax)
    if legend:
        tasks_legend(ax, seeds, len(lengths))
    return frame.finish(ax, made, seeds + behind)


def _progress(seeds):
    """From "progress": (batches before each point (X,), accuracy (n, X, T), batches per task (T,))."""
    at, rows = [], []
    for r in seeds:
        task, step = (frame.column(r, "progress", c, int) for c in ("task", "step"))
        lengths = _lengths(r)
        at.append((np.cumsum(lengths) - lengths)[task] + step)
        rows.append([*frame.column(r, "progress", "accuracy", float), r.accuracy()[-1]])
    at, lengths = same(seeds, at, "the batches after which they were tested"), lengths_of(seeds)
    return np.append(at, lengths.sum()), np.array(rows), lengths


def _draw_reference(ax, behind, seeds):
    """Grey lines of another method's seeds, one per task, on the axes of plot_progress."""
    if tuple(behind[0].classes_per_task) != tuple(seeds[0].classes_per_task):
        raise PlotError("the reference and the results have different tasks: give runs on one benchmark")
    at, rows, lengths = _progress(behind)
    label = frame.label(behind) + (", mean" if len(behind) > 1 else "")
    look = {"color": "#AAAAAA", "linewidth": 1, "zorder": 1, "clip_on": False}
    for j in range(len(lengths)):
        look |= {"marker": TASK_MARKERS[j % 10], "markersize": 3, "markerfacecolor": "white"}
        ax.plot(at, frame.intervals(rows[:, :, j])[0], label="_" if j else label, **look)


def task_strip(ax, lengths, colors=None):
    """Thin lines where tasks start, and a strip above the axes that shows when each task is learned."""
    ends = np.cumsum(lengths)
    for n, (start, end) in enumerate(zip(ends - lengths, ends)):
        if n:
            ax.axvline(start, color="#AAAAAA", linewidth=0.8, linestyle=":", zorder=0)
        if colors is not None:
            strip = {"linewidth": 3.5, "solid_capstyle": "butt", "clip_on": False, "label": "_"}
            ax.plot([start, end], [1.015] * 2, color=colors[n], transform=ax.get_xaxis_transform(), **strip)
        if len(lengths) <= 20:
            frame.task_label(ax, (start + end) / 2, 1.03, n, len(lengths))
