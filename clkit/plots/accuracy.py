"""Accuracy as matrices, curves over the tasks, confusion of the classes, and curves over a setting."""

import numpy as np
from matplotlib import colormaps

from clkit.plots import frame
from clkit.plots.frame import PlotError
from clkit.plots.style import LABEL, SEQUENTIAL, TASK_MARKERS, TICK, style
from clkit.result import interval


def plot_accuracy_matrix(results, *, task_aware=False, last=-1, colorbar=True, ax=None):
    """Heat map of the accuracy in percent on each task (columns) after each stage (rows), mean over seeds.

    task_aware: task-aware accuracy (a choice among the classes of the image's own task) in place of
    class-incremental.   last: the last stage to draw, from 0; later rows, and tasks that are not learned yet,
    are left empty.
    """
    seeds = frame.one_method(results)
    last = frame.stage_of(seeds, last)
    rows = np.array([r.task_aware_accuracy() if task_aware else r.accuracy() for r in seeds])
    values = 100 * rows.mean(axis=0)  # (R, T)
    unseen = np.cumsum(seeds[0].classes_per_task)[None, :] > np.asarray(seeds[0].seen)[:, None]
    values = np.where(unseen, np.nan, values)
    values[last + 1 :] = np.nan
    stages, tasks = values.shape
    ax, made = frame.axes(ax, (1.6 + 0.62 * tasks, 1.6 + 0.6 * max(stages, 2)) if tasks <= 12 else (6.4, 5.4))
    name = "task-aware accuracy (%)" if task_aware else "accuracy (%)"
    few = tasks <= 12
    frame.heat(ax, values, f"{name}, {frame.mean_of(seeds)}", colorbar, annotated=few, line=0.5 if few else 0)
    step = max(1, -(-tasks // 10))
    ax.set_xticks(np.arange(0, tasks, step) + 0.5, range(1, tasks + 1, step), rotation=0)
    if stages == tasks:
        ax.set_yticks(np.arange(0, stages, step) + 0.5, range(1, stages + 1, step), rotation=0)
    else:  # joint training: one stage for all tasks
        ax.set_yticks([0.5], ["all"], rotation=0)
    frame.dress(ax, "tested on task", "after learning task", grid=None)
    ax.set_title(frame.label(seeds), fontsize=LABEL + 1)
    return frame.finish(ax, made, seeds)


def plot_tasks(results, *, task_aware=False, legend=True, ax=None):
    """Accuracy in percent on each task over the stages that follow: a line a task, mean and interval.

    With more than ten tasks the intervals would hide the lines, and are left out.
    """
    seeds = frame.one_method(results)
    rows = np.array([r.task_aware_accuracy() if task_aware else r.accuracy() for r in seeds])  # (n, R, T)
    ax, made = frame.axes(ax, (6.6, 3.6))
    tasks, ends, seen = rows.shape[2], np.cumsum(seeds[0].classes_per_task), np.asarray(seeds[0].seen)
    colors = colormaps[SEQUENTIAL](np.linspace(0, 0.88, tasks))
    for j in range(tasks):
        stages = np.flatnonzero(seen >= ends[j])
        mean, half = frame.intervals(rows[:, stages, j])
        look = {"color": colors[j], "marker": TASK_MARKERS[j % 10], "markersize": 5, "label": f"{j + 1}"}
        ax.plot(stages + 1, mean, clip_on=False, **look)
        if tasks <= 10:
            frame.band(ax, stages + 1, mean, half, colors[j])
    frame.dress(ax, "tasks learned", "task-aware accuracy (%)" if task_aware else "accuracy (%)")
    frame.percent_axis(ax)
    frame.whole_ticks(ax, len(seen))
    if legend:
        note = frame.kind(seeds) if tasks <= 10 else frame.mean_of(seeds)
        frame.legend(ax, f"tested on task\n({note})", ncols=1 + (tasks - 1) // 10)
    ax.set_title(frame.label(seeds), fontsize=LABEL + 1)
    return frame.finish(ax, made, seeds)


def plot_confusion(results, stage=-1, *, by_group=False, colorbar=True, ax=None):
    """Confusion after a stage: row = true class, column = predicted class, in percent of the row, all seeds.

    stage: from 0, negative from the end.   by_group: order the classes by superclass instead of by arrival.
    Lines separate the tasks (or the superclasses).
    """
    seeds = frame.one_method(results)
    stage = frame.stage_of(seeds, stage)
    counts = sum(r.confusion(stage) for r in seeds)  # (K, K)
    order, parts, names = _class_order(seeds[0], len(counts), by_group)
    counts = counts[np.ix_(order, order)]
    share = 100 * counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    K = len(share)
    ax, made = frame.axes(ax, (5.4, 4.6) if K <= 20 else (6.6, 5.8))
    whose = f"all {len(seeds)} seeds" if len(seeds) > 1 else "one seed"
    said = f"share of the true class (%), {whose}"
    frame.heat(ax, share, said, colorbar, annotated=K <= 10, size=TICK - 1, line=0)
    for edge in np.cumsum(parts)[:-1]:
        ax.axhline(edge, color="white", linewidth=2.5 if K <= 20 else 0.6)
        ax.axvline(edge, color="white", linewidth=2.5 if K <= 20 else 0.6)
    groups = list(dict.fromkeys(seeds[0].groups[k] for k in order)) if by_group else None
    _class_ticks(ax, [names[k] for k in order], parts, groups)
    frame.dress(ax, "predicted class", "true class", grid=None)
    learned = "all tasks" if len(seeds[0].seen) == 1 else f"task {stage + 1}"
    ax.set_title(f"{frame.label(seeds)}, after {learned}", fontsize=LABEL + 1)
    return frame.finish(ax, made, seeds)


def _class_order(result, seen, by_group):
    """Order of the seen classes, the sizes of the blocks in it, and the class names."""
    if not by_group:
        ends = np.minimum(np.cumsum(result.classes_per_task), seen)
        parts = np.diff(ends, prepend=0)
        return np.arange(seen), parts[parts > 0], result.names
    if result.groups is None:
        raise PlotError("these classes have no superclasses: leave by_group out")
    groups = list(dict.fromkeys(result.groups))
    place = np.array([groups.index(g) for g in result.groups[:seen]])
    order = sorted(range(seen), key=lambda k: (place[k], result.names[k]))
    parts = np.bincount(place, minlength=len(groups))
    return np.array(order), parts[parts > 0], result.names


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


def plot_averages(results, *, over="tasks", x="tasks", legend=True, ax=None):
    """Average accuracy in percent over the tasks seen so far: a line a method, mean and interval.

    over: see Result.averages.   x: "tasks" or "classes" learned. A method that has one stage only (joint
    training) is a horizontal line.
    """
    groups = frame.same_tasks(results)
    ax, made = frame.axes(ax, (6.8, 3.8))
    for method, seeds in groups.items():
        _curve(ax, method, seeds, [r.averages(over) for r in seeds], x)
    frame.dress(ax, f"{x} learned", "average accuracy (%)" + (", over images" if over == "images" else ""))
    return _finish_curves(ax, made, groups, x, legend)


def _curve(ax, method, seeds, rows, x="tasks"):
    """One line with its band; rows (n, R) fractions. A single stage becomes a horizontal line."""
    look = style(method)
    mean, half = frame.intervals(rows)
    if len(mean) == 1 and len(seeds[0].classes_per_task) > 1:
        line = {k: look[k] for k in ("color", "linestyle", "label")}
        ax.axhline(mean[0], **line)
        if not np.isnan(half[0]):
            ax.axhspan(mean[0] - half[0], mean[0] + half[0], color=look["color"], alpha=0.2, linewidth=0)
        return
    at = np.asarray(seeds[0].seen) if x == "classes" else np.arange(1, len(mean) + 1)
    ax.plot(at, mean, markersize=6, clip_on=False, zorder=3, **look)
    frame.band(ax, at, mean, half, look["color"])


def _finish_curves(ax, made, groups, x, legend):
    """Axes, ticks at the stages, legend and stamp of curves over the tasks or classes learned."""
    frame.percent_axis(ax)
    ends = np.cumsum(next(iter(groups.values()))[0].classes_per_task)
    if x == "classes":
        ax.set_xticks(ends[:: max(1, -(-len(ends) // 10))])
        ax.set_xlim(ends[0] - 0.03 * ends[-1], ends[-1] * 1.03)
    else:
        frame.whole_ticks(ax, len(ends))
        ax.set_xlim(1 - 0.03 * len(ends), len(ends) * 1.03)
    if legend:
        frame.legend(ax, frame.lines_title(groups))
    return frame.finish(ax, made, groups)


def plot_newest(results, *, legend=True, ax=None):
    """Share of the predictions on the newest task after each stage, in percent; dotted: its true share."""
    groups = {m: s for m, s in frame.same_tasks(results).items() if len(s[0].seen) > 1}
    if not groups:
        raise PlotError(
            "joint training has one stage, so no newest task: give one that learns task after task"
        )
    ax, made = frame.axes(ax, (6.8, 3.6))
    for method, seeds in groups.items():
        _curve(ax, method, seeds, [[r.newest_share(s) for s in range(len(r.seen))] for r in seeds])
    first = next(iter(groups.values()))[0]
    counts = np.bincount(first.task_of, minlength=first.tasks)
    true = 100 * counts / np.cumsum(counts)
    ax.plot(np.arange(1, len(true) + 1), true, "k:", linewidth=1.5, label="images of that task")
    frame.dress(ax, "tasks learned", "predicted as newest task (%)")
    return _finish_curves(ax, made, groups, "tasks", legend)


def plot_task(results, task=0, *, legend=True, ax=None):
    """Accuracy on one task (from 0) over the stages, a line a method, mean and interval, in percent."""
    groups = frame.same_tasks(results)
    tasks = next(iter(groups.values()))[0].tasks
    if not 0 <= task < tasks:
        raise PlotError(f"there are {tasks} tasks, numbered from 0: there is no task {task}")
    ax, made = frame.axes(ax, (6.8, 3.6))
    for method, seeds in groups.items():
        _curve(ax, method, seeds, [r.accuracy()[:, task] for r in seeds])
    frame.dress(ax, "tasks learned", f"accuracy on task {task + 1} (%)")
    return _finish_curves(ax, made, groups, "tasks", legend)


def plot_tradeoff(results, setting="memory", *, references=None, ax=None):
    """Final average accuracy in percent of one method against a setting that was varied, with intervals.

    results: Results whose config differs in `setting`; seeds of one value are pooled.
    references: {method: seeds} drawn as horizontal lines.
    """
    results = [r for seeds in frame.grouped(results).values() for r in seeds]
    references = frame.grouped(references) if references else {}
    points = {}
    for r in results:
        if setting not in r.about["config"]:
            known = ", ".join(r.about["config"])
            raise PlotError(f"these results have no setting '{setting}': they have {known}")
        points.setdefault(r.about["config"][setting], []).append(r)
    values = sorted(points)
    both = [interval([r.average() for r in points[v]]) for v in values]
    ax, made = frame.axes(ax, (6.8, 3.8))
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
    frame.dress(ax, names.get(setting, setting), "average accuracy (%)")
    frame.percent_axis(ax)
    frame.legend(ax, frame.lines_title(points | references))
    return frame.finish(ax, made, results + [r for seeds in references.values() for r in seeds])


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
    ax, made = frame.axes(ax, (6.8, 3.8))
    shown, counts = [], set()
    for label, points in rows.items():
        look, at = style(label), sorted(points)
        both = [interval(frame.finals(f"{label}, {setting} {value:g}", points[value])) for value in at]
        means = np.array([100 * i.mean for i in both])
        ax.errorbar(at, means, [0 if i.n < 2 else 100 * i.half for i in both], capsize=4, zorder=3, **look)
        best, star = means.argmax(), {"color": look["color"], "markeredgecolor": "black", "markersize": 17}
        ax.plot(at[best], means[best], "*", zorder=4, label="_", **star)
        counts |= {i.n for i in both}
        shown += [r for value in at for r in frame.results_among(points[value])]
    ax.set_xscale("log")
    ax.set_xticks(values, [f"{value:g}" for value in values])
    ax.minorticks_off()
    n = f"n = {min(counts)}" + (f" to {max(counts)}" if len(counts) > 1 else "")
    note = f"mean and {interval([0.0, 1.0]).kind}, {n}" if max(counts) > 1 else "single seed, n = 1"
    frame.dress(ax, f"{setting} (log scale)", f"average accuracy (%)\n{note}")
    ax.plot([], [], "*", color="white", markeredgecolor="black", markersize=12, label="best")
    frame.legend(ax)
    return frame.finish(ax, made and bool(shown), shown)
