"""Accuracy as matrices, as curves over tasks and over a setting; confusion matrices of the classes."""

import numpy as np
from matplotlib import colormaps

from clkit.plots import frame
from clkit.plots.frame import PlotError
from clkit.plots.style import SEQUENTIAL, TASK_MARKERS, TICK, plain
from clkit.plots.style import drawn_style as style
from clkit.result import interval

MOST_CELLS = 1000  # in a row of a confusion matrix: more than a figure has pixels
MOST_LINES = 100  # between them, and names of superclasses


def _accuracy(seeds, task_aware):
    """(accuracy (n, R, T), axis label)."""
    if task_aware:
        return np.array([r.task_aware_accuracy() for r in seeds]), "task-aware accuracy (%)"
    return np.array([r.accuracy() for r in seeds]), "accuracy (%)"


def plot_accuracy_matrix(results, *, task_aware=False, last=-1, colorbar=True, ax=None):
    """Heat map of the accuracy in percent on each task (columns) after each stage (rows), mean over seeds.

    task_aware: show task-aware accuracy (a choice among the classes of the image's own task) instead of
    class-incremental accuracy.   last: the last stage to draw, from 0. Later rows and tasks not yet learned
    stay empty.
    """
    seeds = frame.one_method(results)
    last = frame.stage_of(seeds, last)
    rows, name = _accuracy(seeds, task_aware)
    unseen = np.cumsum(seeds[0].classes_per_task)[None, :] > np.asarray(seeds[0].seen)[:, None]
    values = np.where(unseen, np.nan, 100 * rows.mean(axis=0))  # (R, T)
    values[last + 1 :] = np.nan
    stages, tasks = values.shape
    few = tasks <= 12
    ax, made = frame.axes(ax, (1.6 + 0.62 * tasks, 1.6 + 0.6 * max(stages, 2)) if few else (6.4, 5.4))
    frame.heat(ax, values, f"{name}, {frame.mean_of(seeds)}", colorbar, annotated=few, line=0.5 if few else 0)
    _cell_ticks(ax.set_xticks, tasks, first=1)
    if stages == tasks:
        _cell_ticks(ax.set_yticks, stages, first=1)
    else:  # joint training: one stage for all tasks
        ax.set_yticks([0.5], ["all"], rotation=0)
    frame.dress(ax, "tested on task", "after learning task", frame.label(seeds), grid=None)
    return frame.finish(ax, made, seeds)


def _cell_ticks(set_ticks, n, first=0, each=1):
    """Number the centres of n cells from `first`; each: the number of things in one cell."""
    step = frame.step_of(n)
    set_ticks(np.arange(0, n, step) / each + 0.5, range(first, n + first, step), rotation=0)


def plot_tasks(results, *, task_aware=False, legend=True, ax=None):
    """Accuracy in percent on each task over the later stages: one line per task, mean and interval.

    With more than ten tasks, intervals would hide the lines and are omitted.
    """
    seeds = frame.one_method(results)
    rows, name = _accuracy(seeds, task_aware)
    ax, made = frame.axes(ax, (6.6, 3.6))
    ends, seen = np.cumsum(seeds[0].classes_per_task), np.asarray(seeds[0].seen)
    after = [np.flatnonzero(seen >= end) for end in ends]
    task_lines(ax, [(s + 1, rows[:, s, j]) for j, s in enumerate(after)], markersize=5)
    frame.dress(ax, "tasks learned", name, frame.label(seeds))
    frame.percent_axis(ax)
    frame.whole_ticks(ax, len(seen))
    if legend:
        tasks_legend(ax, seeds, len(ends))
    return frame.finish(ax, made, seeds)


def task_lines(ax, lines, **look):
    """Draw one line per task from [(x (X,), fractions (n, X))]; returns the colours.

    Up to ten tasks, each line has its interval.
    """
    colors = colormaps[SEQUENTIAL](np.linspace(0, 0.88, len(lines)))
    for j, (x, rows) in enumerate(lines):
        mean, half = frame.intervals(rows)
        marker = TASK_MARKERS[j % 10]
        ax.plot(x, mean, color=colors[j], marker=marker, label=f"{j + 1}", clip_on=False, **look)
        if len(lines) <= 10:
            frame.band(ax, x, mean, half, colors[j])
    return colors


def tasks_legend(ax, seeds, tasks):
    """The legend of `task_lines`."""
    note = frame.kind(seeds) if tasks <= 10 else frame.mean_of(seeds)
    frame.legend(ax, f"tested on task\n({note})", ncols=1 + (tasks - 1) // 10)


def plot_confusion(results, stage=-1, *, by_group=False, colorbar=True, ax=None):
    """Confusion matrix after a stage: row = true class, column = predicted class, in percent of the row.

    All seeds are pooled.   stage: from 0, negative from the end.   by_group: order the classes by superclass
    instead of by arrival. Lines separate the tasks (or the superclasses), up to 100. With more than 1,000
    classes, a cell shows several of them.
    """
    seeds = frame.one_method(results)
    stage = frame.stage_of(seeds, stage)
    K = int(seeds[0].seen[stage])
    order, parts, groups = _class_order(seeds[0], K, by_group)
    each = -(-K // MOST_CELLS)  # classes in a cell
    cell = np.empty(K, dtype=np.int64)
    cell[order] = np.arange(K) // each
    counts = sum(r.confusion(stage, cell) for r in seeds)  # (cells, cells)
    share = 100 * counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    ax, made = frame.axes(ax, (5.4, 4.6) if K <= 20 else (6.6, 5.8))
    whose = f"all {len(seeds)} seeds" if len(seeds) > 1 else "one seed"
    said = f"share of the true class{'' if each == 1 else f'es, {each} a cell'} (%), {whose}"
    frame.heat(ax, share, said, colorbar, annotated=K <= 10, size=TICK - 1, line=0)
    if len(parts) <= MOST_LINES:
        for edge in np.cumsum(parts)[:-1] / each:
            for line in (ax.axhline, ax.axvline):
                line(edge, color="white", linewidth=2.5 if K <= 20 else 0.6)
    _class_ticks(ax, [seeds[0].names[k] for k in order], parts, groups, each)
    learned = "all tasks" if len(seeds[0].seen) == 1 else f"task {stage + 1}"
    title = f"{frame.label(seeds)}, after {learned}"
    frame.dress(ax, "predicted class", "true class", title, grid=None)
    return frame.finish(ax, made, seeds)


def _class_order(result, seen, by_group):
    """(order of the seen classes, block sizes, superclasses or None without by_group)."""
    if not by_group:
        parts = np.diff(np.minimum(np.cumsum(result.classes_per_task), seen), prepend=0)
        return np.arange(seen), parts[parts > 0], None
    if result.groups is None:
        raise PlotError("these classes have no superclasses: call without by_group")
    numbers = {g: n for n, g in enumerate(dict.fromkeys(result.groups))}
    groups, place = list(numbers), np.array([numbers[g] for g in result.groups[:seen]])
    order = sorted(range(seen), key=lambda k: (place[k], result.names[k]))
    parts = np.bincount(place, minlength=len(groups))
    return order, parts[parts > 0], [g for g, size in zip(groups, parts) if size]


def _class_ticks(ax, names, parts, groups, each):
    """Label the axes with class names if they fit, else with superclass names, else with numbers.

    each: the number of classes in a cell.
    """
    K = len(names)
    if K > 20 and not (groups and len(groups) <= MOST_LINES):
        _cell_ticks(ax.set_xticks, K, each=each)
        _cell_ticks(ax.set_yticks, K, each=each)
        return
    at, said = (np.arange(K) + 0.5, names) if K <= 20 else ((np.cumsum(parts) - parts / 2) / each, groups)
    said = list(map(plain, said))
    ax.set_xticks(at, said, rotation=0 if K <= 20 and max(map(len, names)) <= 2 else 90)
    ax.set_yticks(at, said, rotation=0)


def plot_averages(results, *, over="tasks", top=1, x="tasks", legend=True, ax=None):
    """Average accuracy in percent over the tasks seen so far: one line per method, mean and interval.

    over: see Result.averages.   top: above 1, the share of images whose class is among so many largest
    logits.   x: "tasks" or "classes" learned. A method with a single stage (joint training) is a horizontal
    line.
    """
    y = "average accuracy (%)" + (", over images" if over == "images" else "")
    y = y if top == 1 else f"top-{top} accuracy (%)"
    score = {"score": lambda r: r.averages(over) if top == 1 else r.top(top), "y": y}
    return curves(frame.same_tasks(results), **score, legend=legend, ax=ax, x=x, height=3.8)


def curves(groups, score, y, legend, ax, *, x="tasks", height=3.6, dotted=None):
    """Curves over learned tasks or classes, one line per method.

    score(Result) returns (R,) fractions; dotted: (T,) fractions of a reference curve.
    """
    ax, made = frame.axes(ax, (6.8, height))
    for method, seeds in groups.items():
        _curve(ax, method, seeds, [score(r) for r in seeds], x)
    ends = np.cumsum(frame.first(groups).classes_per_task)
    if dotted is not None:
        ax.plot(np.arange(len(ends)) + 1, 100 * dotted, "k:", linewidth=1.5, label="true share")
    frame.dress(ax, f"{x} learned", y)
    frame.percent_axis(ax)
    if x == "classes":
        ax.set_xticks(ends[:: frame.step_of(len(ends))])
        ax.set_xlim(ends[0] - 0.03 * ends[-1], ends[-1] * 1.03)
    else:
        frame.whole_ticks(ax, len(ends))
        ax.set_xlim(1 - 0.03 * len(ends), len(ends) * 1.03)
    if legend:
        frame.legend(ax, frame.lines_title(groups))
    return frame.finish(ax, made, groups)


def _curve(ax, method, seeds, rows, x="tasks"):
    """One line with its band from fractions `rows` (n, R). A single stage becomes a horizontal line."""
    look = style(method)
    mean, half = frame.intervals(rows)
    if len(mean) == 1 and len(seeds[0].classes_per_task) > 1:
        ax.axhline(mean[0], **{k: look[k] for k in ("color", "linestyle", "label")})
        if not np.isnan(half[0]):
            ax.axhspan(mean[0] - half[0], mean[0] + half[0], color=look["color"], alpha=0.2, linewidth=0)
        return
    at = np.asarray(seeds[0].seen) if x == "classes" else np.arange(1, len(mean) + 1)
    ax.plot(at, mean, markersize=6, clip_on=False, zorder=3, **look)
    frame.band(ax, at, mean, half, look["color"])


def plot_newest(results, *, legend=True, ax=None):
    """Share of predictions on the newest task after each stage, in percent; dotted: its true share."""
    groups = frame.several_stages(results)
    if not groups:
        needs = "give a method that learns tasks one after another"
        raise PlotError(f"joint training has one stage and so no newest task: {needs}")
    first = frame.first(groups)
    counts = np.bincount(first.task_of, minlength=first.tasks)
    true, y = counts / np.cumsum(counts), "predicted as the newest task (%)"

    def shares(r):
        return [r.newest_share(s) for s in range(len(r.seen))]

    return curves(groups, shares, y, legend, ax, dotted=true)


def plot_task(results, task=0, *, legend=True, ax=None):
    """Accuracy in percent on one task (from 0) over the stages: one line per method, mean and interval."""
    groups = frame.same_tasks(results)
    tasks = frame.first(groups).tasks
    if not 0 <= task < tasks:
        raise PlotError(f"there are {tasks} tasks, numbered from 0: there is no task {task}")
    return curves(groups, lambda r: r.accuracy()[:, task], f"accuracy on task {task + 1} (%)", legend, ax)


def _points(ax, at, scores, look):
    """Draw means with intervals in percent, one point per array of fractions; returns the means."""
    both = [interval(values) for values in scores]
    means = np.array([100 * i.mean for i in both])
    ax.errorbar(at, means, [0 if i.n < 2 else 100 * i.half for i in both], capsize=4, zorder=3, **look)
    return means


def plot_tradeoff(results, setting="memory", *, references=None, ax=None):
    """Final average accuracy in percent of one method against a varied setting, with intervals.

    results: Results whose configs differ in `setting`; seeds with the same value are pooled.
    references: {method: seeds}, drawn as horizontal lines.
    """
    results = frame.flat(results)
    references = frame.grouped(references) if references else {}
    points = {}
    for r in results:
        if setting not in r.about["config"]:
            known = ", ".join(r.about["config"])
            raise PlotError(f"these results have no setting '{setting}': use one of {known}")
        points.setdefault(r.about["config"][setting], []).append(r)
    values = sorted(points)
    ax, made = frame.axes(ax, (6.8, 3.8))
    _points(ax, values, [[r.average() for r in points[v]] for v in values], frame.look_of(results))
    for method, seeds in references.items():
        _curve(ax, method, seeds, [[r.average()] for r in seeds])
    if values[0] > 0 and values[-1] >= 10 * values[0]:
        ax.set_xscale("log")
    ax.set_xticks(values, [f"{v:,}" for v in values])
    ax.minorticks_off()
    x = "images in memory" if setting == "memory" else setting
    frame.dress(ax, x, "average accuracy (%)")
    frame.percent_axis(ax)
    frame.legend(ax, frame.lines_title(points | references))
    return frame.finish(ax, made, [*results, *(r for seeds in references.values() for r in seeds)])


def plot_sweep(rows, setting="setting", *, ax=None):
    """Final average accuracy in percent against a setting on a log scale: one line per row, its best starred.

    rows: {method or label: {value of the setting: list of Results, or of accuracies as fractions}}.
    setting: its name, for the axis.
    """
    if not rows or not all(rows.values()):
        raise PlotError("there is nothing to plot: give {label: {value of the setting: results}}")
    values = sorted({value for points in rows.values() for value in points})
    if values[0] <= 0:
        raise PlotError(f"a log scale cannot show {values[0]:g}: give values above 0")
    ax, made = frame.axes(ax, (6.8, 3.8))
    scores, shown = {}, []
    for label, points in rows.items():
        look, at = style(label), sorted(points)
        mine = {(label, v): frame.finals(f"{label}, {setting} {v:g}", points[v]) for v in at}
        means = _points(ax, at, mine.values(), look)
        best, star = means.argmax(), {"color": look["color"], "markeredgecolor": "black", "markersize": 17}
        ax.plot(at[best], means[best], "*", zorder=4, label="_", **star)
        scores |= mine
        shown += [r for v in at for r in frame.results_among(points[v])]
    ax.set_xscale("log")
    ax.set_xticks(values, [f"{value:g}" for value in values])
    ax.minorticks_off()
    frame.dress(ax, f"{setting} (log scale)", f"average accuracy (%)\n{frame.lines_title(scores)}")
    ax.plot([], [], "*", color="white", markeredgecolor="black", markersize=12, label="best")
    frame.legend(ax)
    return frame.finish(ax, made and bool(shown), shown)
