"""Figures of ARM (Ji et al. 2020): its data flow and its figures 2 to 7; its tables are in tables.py.

What the paper shows on CIFAR10 alone is shown on MNIST as well, or instead where there is no record of a run
on CIFAR10.
"""

from functools import partial

import numpy as np

from clkit import plots
from clkit.figures.arm import tables
from clkit.figures.arm.tables import CIFAR, MNIST, OWN, SAID
from clkit.figures.picture import (
    FigureSpec,
    available_records,
    left_out,
    mean_of_seeds,
    on_record,
    panels,
    shared_bar,
    short,
)
from clkit.papers.published import one, published
from clkit.result import Result

# Figure 3: diversity weights shown, of the first of these benchmarks that has records of two or more.
MAPS = {CIFAR: (0.0, 1.0, 4.0, 16.0), f"{MNIST}-val": (0.25, 1.0, 4.0, 16.0)}
# Figure 5: diversity weights tried, judged by training images that are not trained on.
SWEEP = (f"arm/{MNIST}-val", (0.25, 1.0, 4.0, 16.0, 64.0))
PAIRS = ((1, 0), (2, 2), (4, 2))  # figure 2: (task, row of its images), from 0


# ---- the data flow


def schematic():
    """What happens to one batch after the first task: learn, recall, replay (algorithm 1, lines 5 to 9)."""
    boxes = {
        "batch": ("batch $B$:\n10 images and labels", "data", 1.15, 3.6, 2.0, 0.8),
        "loss": ("cross-entropy", "loss", 1.15, 2.15, 1.6, 0.6),
        "learned": ("new network $\\theta'$", "trained", 1.15, 0.6, 1.7, 0.7),
        "images": ("$M$ images $\\hat X$", "data", 4.0, 3.6, 1.5, 0.8),
        "recall": ("objective of recall\n(equations 8 and 9)", "loss", 4.0, 2.15, 2.0, 0.7),
        "both": ("old network $\\theta$ and\nnew network $\\theta'$", "frozen", 4.0, 0.6, 1.9, 0.8),
        "old": ("old network $\\theta$", "frozen", 6.1, 3.6, 1.5, 0.8),
        "targets": ("its outputs\nfor $\\hat X$ and $B$", "data", 8.0, 3.6, 1.5, 0.8),
        "replay": ("soft cross-entropy", "loss", 8.0, 2.15, 1.7, 0.6),
        "replayed": ("new network $\\theta'$", "trained", 8.0, 0.6, 1.7, 0.7),
    }
    step = {"dashed": True, "at": (0.45, -0.2)}
    pixels = {"dashed": True, "curve": 0.35, "at": (0.8, -0.25)}
    arrows = [
        ("batch", "loss"),
        ("loss", "learned", "step\n(line 5)", step),
        ("batch", "images", "copies\n(line 6)", {"at": (0.02, -0.45)}),
        ("learned", "both", "weights"),
        ("both", "recall", "outputs\n$p$ and $q$", {"at": (0.55, -0.1)}),
        ("images", "recall", "", {"curve": 0.35}),
        ("recall", "images", "$S$ steps on\nthe pixels\n(lines 7, 8)", pixels),
        ("images", "old", "$\\hat X$"),
        ("batch", "old", "$B$", {"curve": -0.22, "at": (0, 0.02)}),
        ("old", "targets"),
        ("targets", "replay", "targets", {"at": (0.45, -0.1)}),
        ("replay", "replayed", "step\n(line 9)", step),
        ("both", "replayed", "weights of $\\theta'$"),
    ]
    notes = [(1.15, 4.6, "learn"), (4.0, 4.6, "recall"), (8.0, 4.6, "replay")]
    ax = plots.plot_schematic(boxes, arrows, notes, size=(9.1, 4.8))
    return FigureSpec(
        ax.figure,
        "What ARM does with one batch after the first task. Dashed arrows are gradient steps. No weight "
        "changes during recall: its steps move the pixels. The old network is a copy of the new one, made at "
        "the start of the task.",
        "A data flow in three columns. Learn: the batch B enters a cross-entropy loss, whose gradient step "
        "changes the new network. Recall: M images start as copies of B; the old and the new network, both "
        "fixed, give outputs p and q for them; the objective moves the pixels in S steps. Replay: the fixed "
        "old network answers the recalled images and B; a soft cross-entropy with these answers gives a "
        "second step of the new network.",
        title="The data flow of ARM",
    )


# ---- figures 2 and 3


def recalled():
    """Recalled images, each above the image that it began as (figure 2)."""
    records, groups, _ = available_records([("arm", OWN, None)])
    first = next(r for r in groups["arm"] if "images" in r.trace)
    figure, axes = panels(9.6, 7.6, 1, len(PAIRS))
    parts = []
    for ax, (task, row) in zip(axes, PAIRS, strict=True):
        plots.plot_recalled(first, task, row, ax=ax)
        images = first.trace["images"]
        place = np.flatnonzero(images["task"] == task)[row]
        probs, pixels = images["probs"][place], images["recalled"][place]
        earlier = probs.argmax(axis=1) < sum(first.classes_per_task[:task])
        parts.append(
            f"Task {task + 1}, batch {images['step'][place] + 1}: the old network assigns {earlier.sum()} of "
            f"{len(earlier)} recalled images to a class of an earlier task, with a mean probability of "
            f"{100 * probs.max(axis=1).mean():.0f} %; pixels range from {pixels.min():.1f} to "
            f"{pixels.max():.1f}."
        )
    plots.stamp(figure, first)
    return FigureSpec(
        figure,
        "Images recalled for three batches of MNIST-5k-5, each above the image that it began as. Above "
        "each stand the class that the old network sees in it, the probability of that class, and the range "
        "of its pixels, which is stretched to black and white; real pixels lie between 0 and 1.",
        f"Three rows of pairs of digits, the recalled ones noisy and blurred. {' '.join(parts)}",
        records,
        title="Recalled images in three tasks",
    )


def _one_of(rows_of, least, skip=0):
    """Of {benchmark: rows}, the first with at least `least` records, `skip` rows not counted; else the last.

    Returns (benchmark in words, a sentence if it is not the paper's or "", *available_records).
    """
    there = [b for b, rows in rows_of.items() if sum(on_record(*row[1:]) for row in rows[skip:]) >= least]
    benchmark = there[0] if there else list(rows_of)[-1]
    other = (
        "" if benchmark == CIFAR else " The paper shows this for CIFAR10, for which there is no such record."
    )
    return SAID[benchmark], other, *available_records(rows_of[benchmark])


def outputs():
    """Which classes are recalled along the stream, by diversity weight (figure 3)."""
    rows = {
        benchmark: [(f"diversity weight {w:g}", f"arm/{benchmark}", with_diversity(w)) for w in weights]
        for benchmark, weights in MAPS.items()
    }
    where, other, records, groups, absent = _one_of(rows, least=2)
    figure, axes = panels(11, 1.2 + 2.8 * -(-len(groups) // 2), 2, -(-len(groups) // 2), squeeze=False)
    _maps(figure, axes.ravel(), groups)
    return FigureSpec(
        figure,
        f"Classes that the old network sees in the images recalled for each batch of {where}, by diversity "
        f"weight; {mean_of_seeds(groups)}. Classes below the stepped line are new to the old network. Grey: "
        f"nothing is recalled in the first task.{other}{left_out(absent)}",
        f"Heat maps of classes over batches, empty below a staircase. {_about_maps(groups)}",
        records,
        title="Recalled classes, by diversity weight",
    )


def with_diversity(diversity):
    """The settings of ARM that differ with this diversity weight; 16 is its own."""
    return None if diversity == 16 else {"diversity": diversity}


def _maps(figure, axes, groups):
    """A recall map on each of the axes, on one scale, with one colour bar; surplus axes are removed."""
    means = [np.mean([r.trace["recall"]["output"] for r in seeds], axis=0) for seeds in groups.values()]
    top = max(100 * np.nanmax(mean) for mean in means)
    for ax, (label, seeds) in zip(axes, groups.items()):
        plots.plot_recall_map(seeds, vmax=top, colorbar=False, title=label, ax=ax)
    for ax in axes[len(groups) :]:
        ax.remove()
    label = f"probability by the\nold network (%),\n{mean_of_seeds(groups)}"
    shared_bar(axes[: len(groups)], label, shrink=0.8)
    plots.stamp(figure, groups)


def _about_maps(groups):
    """Mean probabilities of some classes in the recall maps, in words."""
    said = []
    for label, seeds in groups.items():
        ends, shares = [0, *np.cumsum(seeds[0].classes_per_task)], []
        for recall in (r.trace["recall"] for r in seeds):
            for task, output in zip(recall["task"], recall["output"]):
                if task:
                    parts = output[: ends[1]], output[ends[task - 1] : ends[task]], output[ends[task] :]
                    shares.append([part.sum() for part in parts])
        first, before, unseen = (f"{100 * share:.1f} %" for share in np.mean(shares, axis=0))
        said.append(f"{label} {first}, {before} and {unseen}")
    return (
        "Mean probability from task 2 on of the classes of the first task, of those of the previous task, "
        f"and of those that the old network has not seen: {'; '.join(said)}."
    )


# ---- figures 4 to 6


def course(benchmark):
    """Accuracy on each task along the stream, with naive training in grey (figure 4)."""
    rows = [(plots.style(method)["label"], f"{method}/{benchmark}", None) for method in ("arm", "naive")]
    records, groups, absent = available_records(rows, needed="ARM")
    seeds, reference = (groups.get(label) for label, *_ in rows)
    ax = plots.plot_progress(seeds, reference)
    grey = " Grey: naive training." if reference else ""
    return FigureSpec(
        ax.figure,
        f"Accuracy of ARM on each task of {SAID[benchmark]} along the stream, among all classes; "
        f"{plots.kind(seeds)}. The strip above shows when each task is learned.{grey}{left_out(absent)}",
        f"Curves of accuracy over the batches of the stream, one for each task. {_about_course(groups)}",
        records,
        title=f"Accuracy along the stream, {SAID[benchmark]}",
    )


def _about_course(groups):
    """The final accuracy on each task, and how far it rose after the task was learned, in words."""
    parts = []
    for label, seeds in groups.items():
        a = np.mean([r.accuracy() for r in seeds], axis=0)  # (T, T)
        rises = [a[j + 1 :, j].max() - a[j, j] for j in range(len(a) - 1)]
        rose = [f"task {j + 1} by {100 * rise:.1f} points" for j, rise in enumerate(rises) if rise > 0]
        learned, end = (", ".join(f"{100 * x:.1f} %" for x in row) for row in (a.diagonal(), a[-1]))
        parts.append(
            f"{label}, by task: {learned} when just learned, {end} at the end; higher after a later "
            f"task than when just learned: {', '.join(rose) or 'none'}."
        )
    return " ".join(parts)


def diversity():
    """Average accuracy against the diversity weight, the best one starred (figure 5)."""
    name, weights = SWEEP
    records, groups, absent = available_records([(w, name, with_diversity(w)) for w in weights])
    ax = plots.plot_sweep({"arm": groups}, "diversity weight")
    said_by_weight = short({f"{w:g}": seeds for w, seeds in groups.items()}, Result.average)
    best = max(groups, key=lambda w: np.mean([r.average() for r in groups[w]]))
    where = (MNIST, CIFAR, "miniimagenet-20")
    said = [one(paper="arm", metric="best diversity weight", benchmark=b) for b in where]
    return FigureSpec(
        ax.figure,
        "Average accuracy of ARM after the last task of MNIST-5k-5 by the weight of diversity, on held-out "
        "training images. The star marks the best mean. The paper's best weights are "
        f"{said[0]} on MNIST, {said[1]} on CIFAR10 and {said[2]} on MiniImageNet ({said[0].place})."
        + left_out([f"{w:g}" for w in absent]),
        "A curve of average accuracy in percent over the diversity weight, on a logarithmic scale, "
        f"{plots.kind(groups)}: {said_by_weight}. The best mean is that of weight {best:g}.",
        records,
        title="The best diversity weight",
    )


def twice():
    """Two recalls for each batch: the recalled classes, and accuracy along the stream (figure 6)."""
    rows = {
        benchmark: [
            ("once", f"arm/{benchmark}", None),
            ("twice, as in the code", f"arm/{benchmark}", {"repeats": 2}),
            ("twice, restarted", f"arm/{benchmark}", {"repeats": 2, "repeat": "afresh"}),
        ]
        for benchmark in (CIFAR, MNIST)
    }
    where, other, records, groups, absent = _one_of(rows, least=1, skip=1)
    figure, axes = panels(3.9 * len(groups) + 1.2, 6.2, len(groups), 2, squeeze=False)
    _maps(figure, axes[0], groups)
    for n, (ax, seeds) in enumerate(zip(axes[1], groups.values())):
        plots.plot_progress(seeds, legend=n == len(groups) - 1, ax=ax)
        ax.set_title("")
    for ax in axes[:, 1:].flat:
        ax.set_ylabel("")
    for ax in axes[0]:
        ax.set_xlabel("")
    return FigureSpec(
        figure,
        f"ARM on {where} with one recall for each batch or two; {plots.kind(groups)}. Above: the classes "
        "that the old network sees in the recalled images. Below: accuracy on each task. The authors' code "
        "adds the gradients of both rounds and continues with the same images; restarted means that both are "
        f"reset, as in the paper's loop.{other}{left_out(absent)}",
        f"Heat maps above, curves below. {_about_maps(groups)} In percent, {plots.kind(groups)}. Average "
        f"accuracy: {short(groups, Result.average)}. Forgetting: {short(groups, Result.forgetting)}.",
        records,
        title="One recall for each batch, and two",
    )


# ---- figure 7


def gradients(benchmark, table):
    """Gradients of recalled images compared with those of real ones, by layer (figure 7, table 10)."""
    records, groups, _ = available_records([("arm", f"arm/{benchmark}", None)])
    seeds, printed = groups["arm"], published(paper="arm", table=table, benchmark=benchmark)
    figure, axes = panels(11, 7.2, 2, 2, sharex=True, sharey=True)
    conditions = ("hard", "soft", "control hard", "control soft")
    for n, (ax, condition) in enumerate(zip(axes.flat, conditions)):
        plots.plot_gradients(seeds, condition, None if n > 1 else printed, legend=n == 1, ax=ax)
        ax.set_xlabel(ax.get_xlabel() if n > 1 else "")
        ax.set_ylabel("" if n % 2 else ax.get_ylabel())
    plots.stamp(figure, seeds)
    said = " ".join(_about_cosines(seeds, condition) for condition in conditions)
    return FigureSpec(
        figure,
        f"Cosines between the gradients of recalled and of real images of {SAID[benchmark]}, by layer; "
        f"{plots.kind(seeds)}. Class 1 is the class of the starting image, class 2 the recalled class. "
        "Hard targets are class 2, soft ones the old network's output. Control: the image before recall "
        f"with the same target, which shows the effect of the target alone. Hollow: the paper's {table}, "
        "which does not say what its ± is.",
        f"Four panels of cosines between gradients by layer. {said}",
        records,
        title=f"Gradients of recalled and of real images, {SAID[benchmark]}",
    )


def _about_cosines(seeds, condition):
    """Mean cosines of one condition by layer group, in words."""
    rows = {}
    for r in seeds:
        t = r.trace["gradients"]
        for kind, which, group, mean in zip(t["condition"], t["which"], t["group"], t["mean"]):
            if kind == condition:
                rows.setdefault(str(group), {}).setdefault(str(which), []).append(mean)
    means = {
        group: [np.mean(both[which]) for which in ("class 1", "class 2")] for group, both in rows.items()
    }
    parts = "; ".join(f"{group} {first:.3f} and {second:.3f}" for group, (first, second) in means.items())
    return f"{condition.replace('control', 'Control,').capitalize()} targets, class 1 and class 2: {parts}."


FIGURES = {
    "arm-schematic": schematic,
    "arm-fig2-recalled": recalled,
    "arm-fig3-outputs": outputs,
    "arm-fig4-accuracy-mnist": partial(course, MNIST),
    "arm-fig4-accuracy-cifar": partial(course, CIFAR),
    "arm-fig5-diversity": diversity,
    "arm-fig6-twice": twice,
    "arm-fig7-gradients": partial(gradients, MNIST, "Table 10"),
    "arm-fig7-gradients-cifar": partial(gradients, CIFAR, "Figure 7"),
} | tables.FIGURES
