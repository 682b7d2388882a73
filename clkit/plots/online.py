"""Progress in the course of a stream: losses, and accuracy while batches come in."""

import numpy as np
from matplotlib import colormaps

from clkit.plots import frame
from clkit.plots.frame import PlotError
from clkit.plots.style import LABEL, SEQUENTIAL, TASK_MARKERS, style


def plot_loss(results, column="loss", *, table="loss", ax=None):
    """A column of a trace table over the rows of all tasks, one after another; mean and interval.

    Tasks are separated by lines. Seeds with different numbers of rows (early stopping) are drawn one by one.
    """
    seeds = frame.one_method(results)
    curves = [_traced(r, table, column) for r in seeds]  # [(tasks (X,), values (X,))]
    ax, made = frame.axes(ax, (6.6, 3.4))
    look = style(seeds[0].about.get("method", "learner"))
    tasks = curves[0][0]
    if all(np.array_equal(t, tasks) for t, _ in curves):
        mean, half = (v / 100 for v in frame.intervals([v for _, v in curves]))
        ax.plot(np.arange(1, len(mean) + 1), mean, color=look["color"])
        frame.band(ax, np.arange(1, len(mean) + 1), mean, half, look["color"])
        note = f"mean, {frame.kind(seeds)}" if len(seeds) > 1 else frame.kind(seeds)
    else:
        for _, values in curves:
            ax.plot(np.arange(1, len(values) + 1), values, color=look["color"], alpha=0.6, linewidth=1)
        note = f"{len(seeds)} seeds, each drawn"
    for edge in np.flatnonzero(np.diff(tasks)) + 1.5:
        ax.axvline(edge, color="#AAAAAA", linewidth=0.8, linestyle=":")
    if len(set(tasks)) <= 20:
        for t in sorted(set(tasks)):
            frame.task_label(ax, np.flatnonzero(tasks == t).mean() + 1, 1.0, t, len(set(tasks)))
    unit = "batches" if "step" in seeds[0].trace[table] else "epochs"
    frame.dress(ax, f"{unit}, tasks one after another", f"{column}\n({note})")
    ax.margins(x=0.02)
    ax.set_title(frame.label(seeds), fontsize=LABEL + 1, pad=16)
    return frame.finish(ax, made, seeds)


def _traced(result, table, column):
    """(task (X,), values (X,)) of a column of numbers."""
    return (
        np.asarray(frame.column(result, table, "task")).astype(int),
        np.asarray(frame.column(result, table, column), dtype=float),
    )


def lengths_of(result):
    """(T,) how many batches each task had: the rows of its table "loss"."""
    return np.bincount(np.asarray(frame.column(result, "loss", "task")).astype(int), minlength=result.tasks)


def _batches_before(result, table):
    """(X,) how many batches came before each row of a table; its column `step` counts those of the task."""
    task, step = (np.asarray(frame.column(result, table, c)).astype(int) for c in ("task", "step"))
    lengths = lengths_of(result)
    return (np.cumsum(lengths) - lengths)[task] + step


def same(seeds, found, what):
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
    seeds = frame.one_method(results)
    at, rows, lengths = _progress(seeds)
    ax, made = frame.axes(ax, (7.6, 4.0))
    colors = colormaps[SEQUENTIAL](np.linspace(0, 0.88, len(lengths)))
    behind = frame.one_method(reference) if reference else []
    for j, color in enumerate(colors):
        mean, half = frame.intervals(rows[:, :, j])
        look = {"color": color, "marker": TASK_MARKERS[j % 10], "markersize": 4, "label": f"{j + 1}"}
        ax.plot(at, mean, clip_on=False, zorder=3, **look)
        if len(lengths) <= 10:  # as in plot_tasks
            frame.band(ax, at, mean, half, color)
    if behind:
        _draw_reference(ax, behind, seeds)
    task_strip(ax, lengths, colors)
    frame.dress(ax, "batches learned from", "accuracy on the task's test images (%)")
    ax.set_xlim(0, at[-1] * 1.01)
    frame.percent_axis(ax)
    if legend:
        note = frame.kind(seeds) if len(lengths) <= 10 else frame.mean_of(seeds)
        frame.legend(ax, f"tested on task\n({note})", ncols=1 + (len(lengths) - 1) // 10)
    ax.set_title(frame.label(seeds), fontsize=LABEL + 1, pad=21)
    return frame.finish(ax, made, seeds + behind)


def _progress(seeds):
    """(batches before each point (X,), accuracy (n, X, T), batches of each task (T,)), of "progress"."""
    at = same(seeds, [_batches_before(r, "progress") for r in seeds], "the batches at which they were tested")
    lengths = same(seeds, [lengths_of(r) for r in seeds], "the number of batches")
    rows = [
        [*np.asarray(frame.column(r, "progress", "accuracy"), dtype=float), r.accuracy()[-1]] for r in seeds
    ]
    return np.append(at, lengths.sum()), np.array(rows), lengths


def _draw_reference(ax, behind, seeds):
    """Grey lines of another method's seeds, one a task, on axes of plot_progress."""
    if tuple(behind[0].classes_per_task) != tuple(seeds[0].classes_per_task):
        raise PlotError("the reference has other tasks than the results: give runs of one benchmark")
    at, rows, lengths = _progress(behind)
    label = frame.label(behind) + (", mean" if len(behind) > 1 else "")
    look = {"color": "#AAAAAA", "linewidth": 1, "zorder": 1, "clip_on": False}
    for j in range(len(lengths)):
        look |= {"marker": TASK_MARKERS[j % 10], "markersize": 3, "markerfacecolor": "white"}
        ax.plot(at, frame.intervals(rows[:, :, j])[0], label="_" if j else label, **look)


def task_strip(ax, lengths, colors=None):
    """Thin lines at the starts of the tasks, and above the axes a strip that says when each is learned."""
    ends = np.cumsum(lengths)
    for n, (start, end) in enumerate(zip(ends - lengths, ends)):
        if n:
            ax.axvline(start, color="#AAAAAA", linewidth=0.8, linestyle=":", zorder=0)
        if colors is not None:
            strip = {"linewidth": 3.5, "solid_capstyle": "butt", "clip_on": False, "label": "_"}
            ax.plot([start, end], [1.015] * 2, color=colors[n], transform=ax.get_xaxis_transform(), **strip)
        if len(lengths) <= 20:
            frame.task_label(ax, (start + end) / 2, 1.03, n, len(lengths))
