"""Plots for replay of features: forgetting over tasks, scores by stage, drift of features."""

import numpy as np

from clkit.papers import palette
from clkit.plots import frame
from clkit.plots.accuracy import curves
from clkit.plots.inside import COLORS
from clkit.plots.style import TASK_MARKERS, style


def forgetting_course(result):
    """(R,) forgetting after each stage: mean over earlier tasks of their best accuracy before, minus now.

    Chaudhry et al. 2018, section 3, as Result.forgetting, which is the last entry; NaN after the first task.
    """
    a = result.accuracy()
    lost = [(np.fmax.reduce(a[:t, :t]) - a[t, :t]).mean() for t in range(1, len(a))]  # NaN before its task
    return np.array([np.nan, *lost])


def plot_forgetting_course(results, *, x="tasks", legend=True, ax=None):
    """Forgetting in points over the tasks learned: one line per method, mean and interval; lower is better.

    x: "tasks" or "classes" learned. Methods with a single stage are left out.
    """
    groups = frame.several_stages(frame.same_tasks(results))
    return curves(groups, forgetting_course, "forgetting (points)", legend, ax, x=x)


def plot_stages(rows, stages, *, order=None, floor=False, title=None, legend=True, ax=None):
    """Scores in percent after each of a few stages: a line for each label, mean and interval.

    rows: {label: (n, S) fractions, one row per seed}.   stages: names of the S stages.   order: labels in the
    order of their looks, by default those of the rows.   floor: also draw, dotted, what remains of the first
    score of the first row if only the newest of equal tasks is known.
    """
    ax, _ = frame.axes(ax, (5.4, 3.6))
    order = list(order or rows)
    for label, values in rows.items():
        n, (mean, half) = order.index(label), frame.intervals(values)
        look = {"color": getattr(palette, COLORS[n % len(COLORS)]), "marker": TASK_MARKERS[n % 10]}
        ax.plot(range(len(stages)), mean, label=label, clip_on=False, markersize=6, **look)
        frame.band(ax, range(len(stages)), mean, half, look["color"])
    if floor:
        start = np.mean([row[0] for row in next(iter(rows.values()))])
        ax.plot(
            range(len(stages)), 100 * start / np.arange(1, len(stages) + 1), ":", color=palette.GREY, zorder=1
        )
    ax.set_xticks(range(len(stages)), stages)
    frame.dress(ax, "classes learned", "average accuracy (%)", title)
    frame.percent_axis(ax)
    if legend:
        frame.legend(ax)
    return ax


def plot_drift(cosines, *, legend=True, ax=None):
    """How far the features of old classes turn: a line for each method over the tasks learned.

    cosines: {method: (T, K)} of the mean feature of each class with that when it was learned, NaN before. The
    line is the mean over classes of earlier tasks.
    """
    ax, _ = frame.axes(ax, (6.4, 3.6))
    for method, values in cosines.items():
        old = ~np.isnan(values[:-1])  # learned in an earlier task
        mean = [row[known].mean() for row, known in zip(values[1:], old)]
        ax.plot(range(2, len(values) + 1), mean, markersize=6, clip_on=False, **style(method))
    frame.dress(ax, "tasks learned", "cosine with the first feature")
    frame.whole_ticks(ax, len(values))
    ax.set_ylim(min(0.0, ax.get_ylim()[0]), 1.03)
    if legend:
        frame.legend(ax, handlelength=3.2)
    return ax
