"""DGMw on MNIST at the size of the paper, beside what the paper prints; the first tasks if no run has all."""

import matplotlib.pyplot as plt
import numpy as np

from clkit import experiments, papers, plots
from clkit.figures.dgm.runs import MNIST, PRINTED_AS, after_classes, label_of, printed_number
from clkit.figures.picture import FigureSpec, percent, printed_handles
from clkit.result import by_epoch, chosen_after

SIZE = "paper"
STAGES = (5, 10)  # classes after which the paper prints an accuracy
TASKS = (None, 5)  # of the records, in order of preference; None: all


def recorded():
    """(records, results) of DGMw; PresetError, with the command of the shortest run, if there is none."""
    name = f"dgmw/{MNIST}"
    for tasks in TASKS:
        found = experiments.exact_experiment(name, SIZE, first_tasks=tasks)
        if experiments.on_record(name, SIZE, first_tasks=tasks):
            results = experiments.load_record(name, SIZE, first_tasks=tasks)
            return {found.stem: results}, results
    raise experiments.PresetError(
        f"there is no record of {name} at the {SIZE} preset: make it with `{found.command}`"
    )


def full_size():
    """Accuracy, generated images and growth of DGMw over tasks, with the printed numbers."""
    records, seeds = recorded()
    printed = {k: printed_number("dgmw", after_classes(k), PRINTED_AS[MNIST]) for k in STAGES}
    figure = _panels(seeds, printed)
    start, weights, _ = np.mean([plots.weights(r) for r in seeds], axis=0)
    last, tasks = int(seeds[0].seen[-1]), seeds[0].tasks
    part = "" if last == tasks else f", the first {last} of {tasks} tasks"
    best = percent(seeds, lambda r: chosen_after(r, last))
    return FigureSpec(
        figure,
        f"DGMw on MNIST, digit by digit{part}. {_scale()} {plots.kind(seeds).capitalize()}. Left: the "
        "classifier, after the last epoch of a task and at the epoch that is best on validation images, the "
        "rule of the released code; below, after every epoch, for the first seed. Middle: the share of "
        "generated images that a fixed judge recognises. Right: neurons of the masked layers while a task is "
        f"learned; their weights grow from {start:,.0f} to {weights:,.0f} after {last} classes. Printed in "
        f"Table 3: {_printed_sizes()}.",
        "Three panels over tasks, and one over epochs. Accuracy in percent by task: "
        f"{_mean([100 * r.averages() for r in seeds], 2)}; after {last} classes {best} at the epoch best on "
        f"validation. {_swing(seeds[0])} Printed: "
        f"{', '.join(f'{p.text} after {k} classes' for k, p in printed.items())}. Recognised by the judge, "
        f"in percent by task: {_mean([100 * plots.recognised(r) for r in seeds], 1)}. Neurons by task: "
        f"{_mean([r.trace['growth']['units'] for r in seeds], 0)}.",
        records,
        title="DGMw at the size of the paper",
    )


def _panels(seeds, printed):
    """The figure; printed: {classes: Published}."""
    groups, stages = {"dgmw": seeds}, seeds[0].seen.tolist()
    figure, named = plt.subplot_mosaic("abc;ddd", figsize=(15.0, 7.8), layout="constrained")
    *axes, below = named.values()
    plots.plot_averages(groups, legend=False, ax=axes[0])
    best = [100 * np.mean([chosen_after(r, k) for r in seeds]) for k in stages]
    theirs = printed_handles("printed in Table 1")[-1]
    axes[0].plot(stages, best, markersize=8, zorder=5, label="epoch best on validation", **plots.CHOSEN)
    look = {k: getattr(theirs, f"get_{k}")() for k in ("color", "marker", "markersize", "markerfacecolor")}
    axes[0].plot([*printed], [p.value for p in printed.values()], linestyle="none", zorder=6, **look)
    plots.plot_generated(groups, legend=False, ax=axes[1])
    plots.plot_neurons(groups, legend=False, ax=axes[2])
    plots.plot_epochs(seeds, ax=below)
    for ax, title in zip(axes, ("classifier on real test images", "judge on generated images", "growth")):
        ax.set_title(title, fontsize=11)
    for ax in axes[:2]:
        lowest = min(min(line.get_ydata()) for line in ax.lines)
        ax.set_ylim(max(0, 10 * (lowest // 10) - 10))
    handles = {
        label_of("dgmw"): axes[0].lines[0],
        "epoch best on validation": axes[0].lines[1],
        "printed in Table 1": theirs,
        "middle: judge on real images; right: linear growth": axes[2].lines[-1],
    }
    where = {"loc": "outside upper center", "frameon": False, "fontsize": 9}
    figure.legend(handles.values(), handles.keys(), ncols=len(handles), **where)
    plots.stamp(figure, groups)
    return figure


def _swing(result):
    """How far the accuracy varies in the second half of the last task, in words."""
    test = by_epoch(result)[-1]
    low, high = (100 * f(test[len(test) // 2 :]) for f in (np.min, np.max))
    return f"In the second half of the last task it lies between {low:.1f} and {high:.1f} after an epoch."


def _scale():
    """The size of these records in words."""
    row, settings = papers.benchmark(MNIST, SIZE), papers.paper_of("dgmw").settings_of("dgmw", MNIST, SIZE)
    side, epochs = row.options["side"], settings.get("epochs", 101)
    return (
        f"Size {SIZE}: all training images but those for validation, {side}x{side} pixels, {epochs} epochs."
    )


def _mean(rows, digits):
    """Means over the seeds, as words."""
    return ", ".join(f"{np.mean(values):.{digits}f}" for values in zip(*rows))


def _printed_sizes():
    """The weights that the paper prints for DGMw, in words."""
    stages = ("at the start", "after 10 classes")
    said = [printed_number("dgmw", f"generator parameters {s}", PRINTED_AS[MNIST], "Table 3") for s in stages]
    return ", ".join(f"{p.note.removeprefix('printed as ')} {s}" for p, s in zip(said, stages))
