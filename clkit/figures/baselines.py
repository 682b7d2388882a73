"""Figures of the baselines on split MNIST, and of the shapes."""

import numpy as np

from clkit import __version__, experiments, plots
from clkit.analysis import confusion
from clkit.figures.picture import (
    FigureSpec,
    each,
    each_label,
    load_records,
    panels,
    records_of,
    scenarios,
    side_by_side,
)
from clkit.result import Result

# Images kept by ER in the figure memory-kept, and which of these numbers is its own setting.
MEMORIES, OWN_MEMORY = (50, 100, 200, 500, 1000, 2000), 500


# ---- split MNIST


def accuracy_matrices():
    """Accuracy on each task after each stage: finetune, LwF and ER side by side."""
    records, groups = records_of("split-mnist", "finetune", "lwf", "er")
    return FigureSpec(
        side_by_side(plots.plot_accuracy_matrix, groups, "colorbar", 9.6, 3.7),
        "Accuracy on each task after each learning stage on split MNIST. The diagonal is the task just "
        "learned; what stands below it is what is left of it.",
        "Three heat maps of accuracy, rows after learning task 1 to 5, columns tested on task 1 to 5."
        f" Average of the diagonal: {each(groups, lambda r: np.diag(r.accuracy()).mean())}."
        f" Average of the last row: {each(groups, Result.average)}.",
        records,
    )


def averages_split_mnist():
    """Average accuracy after each task, with joint training as a line."""
    records, groups = records_of("split-mnist", "finetune", "lwf", "er", "joint")
    ax = plots.plot_averages(groups)
    return FigureSpec(
        ax.figure,
        "Average accuracy over the tasks seen so far on split MNIST, class-incremental. Joint training "
        "has all classes at once: the line that the others would like to reach.",
        "Curves of average accuracy over one to five tasks learned, all starting near 100 %. After five"
        f" tasks: {each(groups, Result.average)}.",
        records,
    )


def forgetting_split_mnist():
    """Forgetting of each method as bars."""
    records, groups = records_of("split-mnist", "finetune", "lwf", "lwf-multihead", "er", "cumulative")
    points = each(groups, Result.forgetting).replace(" %", "")
    return FigureSpec(
        plots.plot_forgetting(groups).figure,
        "Forgetting on split MNIST: how far each task's accuracy fell from its best to the end, mean over "
        "the tasks but the last. A dot is a seed.",
        f"Bars of forgetting in percentage points: {points}.",
        records,
    )


def scenarios_split_mnist():
    """The same weights, class-incremental and task-aware."""
    return scenarios(
        "finetune lwf lwf-multihead er joint",
        "The same weights after the last task of split MNIST, tested in two ways: class-incremental, among "
        "all ten classes, and task-aware, among the two classes of the image's own task. A dot is a seed.",
    )


def confusion_finetune_er():
    """What the classes are taken for after the last task: finetune beside ER."""
    records, groups = records_of("split-mnist", "finetune", "er")
    return FigureSpec(
        side_by_side(plots.plot_confusion, groups, "colorbar", 9.6, 4.6, y_labels=True),
        "Confusion of the ten classes after the last task of split MNIST. Finetuning answers with the newest "
        "two classes whatever it is shown.",
        "Two confusion matrices of ten classes. Share of predictions on the newest two classes: "
        f"{each(groups, Result.newest_share)}.",
        records,
    )


def tasks_over_time():
    """Accuracy on each task while later tasks are learned: finetune beside ER."""
    records, groups = records_of("split-mnist", "finetune", "er")
    return FigureSpec(
        side_by_side(plots.plot_tasks, groups, "legend", 9.0, 3.6, sharey=True),
        "Accuracy on each task of split MNIST from when it is learned to the end: a line a task.",
        "Two panels of curves, one a task, each beginning near 100 % when its task is learned. At the end"
        f" the accuracy on the first task is {each(groups, lambda r: r.accuracy()[-1, 0])}.",
        records,
    )


def memory_kept():
    """ER: average accuracy against the number of images kept, between finetune and joint."""
    kept = load_records([("er/split-mnist", None if m == OWN_MEMORY else {"memory": m}) for m in MEMORIES])
    records, references = records_of("split-mnist", "finetune", "joint")
    ax = plots.plot_tradeoff([r for seeds in kept.values() for r in seeds], references=references)
    ends = each_label({f"{m:,} images": s for m, s in zip(MEMORIES, kept.values())}, Result.average)
    return FigureSpec(
        ax.figure,
        "Average accuracy of experience replay on split MNIST by the number of images it keeps, between "
        "keeping nothing (Finetune) and having everything (Joint).",
        f"A curve of average accuracy over images kept, on a logarithmic scale: {ends}. "
        f"References: {each(references, Result.average)}.",
        kept | records,
    )


# ---- shapes


def shapes_samples():
    """One image of every class of the shapes: a row a family."""
    stream = experiments.stream("shapes-families", "paper")
    families = list(dict.fromkeys(stream.groups))
    half, labels = -(-len(families) // 2), np.asarray(stream.test.labels)
    figure, axes = panels(9.6, 9.2, 2)
    for ax, some in zip(axes, (families[:half], families[half:])):
        classes = [k for f in some for k in range(len(stream.names)) if stream.groups[k] == f]
        images = np.asarray(stream.test.images)[[np.flatnonzero(labels == k)[0] for k in classes]]
        plots.plot_images(images, columns=len(classes) // len(some), rows=some, ax=ax)
    data = f"data {stream.about()['data']}, drawn by clkit {__version__}"
    plots.stamp(figure, f"first test image of each class · {data}")
    return FigureSpec(
        figure,
        "The shapes: 20 families (rows) of 5 classes each that differ in one detail. Place, size, angle and "
        "colours mean nothing.",
        f"A grid of small colour drawings, one of each of the {len(stream.names)} classes, in rows of five "
        f"look-alikes: {', '.join(families)}.",
        about={"stream": stream.about()},
    )


def shapes_confusion():
    """Families against siblings: what a network trained on all classes at once gets wrong."""
    records, groups = records_of("split-shapes", "joint")
    seeds = groups["joint"]
    figure, axes = panels(10.4, 4.9, 2, width_ratios=(1.25, 1))
    plots.plot_confusion(seeds, by_group=True, ax=axes[0])
    rows = {
        "measured": [confusion.answers(r) for r in seeds],
        "if errors were\nblind to families": [confusion.answers_if_blind(r) for r in seeds],
    }
    shares = {bar: {k: [s[k] for s in all_] for k in all_[0]} for bar, all_ in rows.items()}
    plots.plot_errors(shares, ax=axes[1])
    axes[1].set_box_aspect(0.5)
    plots.stamp(figure, seeds)
    parts = [", ".join(f"{100 * np.mean(v):.1f} % {k}" for k, v in shares[bar].items()) for bar in shares]
    return FigureSpec(
        figure,
        "A network trained on all 100 classes of the shapes at once. Left: its confusion, sorted by family,"
        " with lines between families. Right: where its wrong answers go, beside wrong answers that fell on"
        " all other classes alike.",
        "Left, a confusion matrix of 100 classes sorted by family. Right, two stacked bars of the share of"
        f" answers. Measured: {parts[0]}. If errors were blind to families: {parts[1]}.",
        records,
    )


FIGURES = {
    "accuracy-matrices": accuracy_matrices,
    "averages-split-mnist": averages_split_mnist,
    "forgetting-split-mnist": forgetting_split_mnist,
    "scenarios-split-mnist": scenarios_split_mnist,
    "confusion-finetune-er": confusion_finetune_er,
    "tasks-over-time": tasks_over_time,
    "memory-kept": memory_kept,
    "shapes-samples": shapes_samples,
    "shapes-confusion": shapes_confusion,
}
