"""Figures of ARM (Ji et al. 2020): its figures 2 to 7 and its tables 1, 6 and 7.

What the paper shows on CIFAR10 alone is shown on MNIST as well, or instead where no run on CIFAR10 is on
record. Rows of the tables below that have no record are left out, and the caption names them.
"""

from functools import partial

import numpy as np

from clkit import plots
from clkit.figures.picture import (
    FigureSpec,
    available_records,
    left_out,
    mark_printed,
    on_record,
    panels,
    printed_handles,
    short,
)
from clkit.papers.published import one, published
from clkit.result import Result

MNIST, CIFAR = "mnist-5k-5", "cifar10-5"
_OTHER = {CIFAR: "", MNIST: " The paper shows this for CIFAR10, of which there is no such record."}
_OTHER[f"{MNIST}-val"] = _OTHER[MNIST]

# Tables: (label, name among the published numbers or None, experiment, overrides).
TABLE_6 = tuple(
    (label, name, f"{method}/{MNIST}", overrides)
    for label, name, method, overrides in (
        ("Stationary", "stationary", "stationary", None),
        ("ER, 50 images", "er-online-50", "er-online", None),
        ("ER-MIR, 50 images", "er-mir-50", "er-mir", None),
        ("iCaRL, 50 images", None, "icarl-online", None),
        ("GEM, 50 images", None, "gem", None),
        ("ER, 25 images", "er-online-25", "er-online", {"memory": 25}),
        ("ER-MIR, 25 images", "er-mir-25", "er-mir", {"memory": 25}),
        ("Naive", "naive", "naive", None),
        ("GEN", "gen", "gen", None),
        ("GEN-MIR", "gen-mir", "gen-mir", None),
        ("Distillation", "distill", "distill", None),
        ("ADI", "adi", "adi", None),
        ("ARM", "arm", "arm", None),
    )
)
TABLE_1 = tuple(
    (label, name, f"{method}/{CIFAR}", overrides)
    for label, name, method, overrides in (
        ("Stationary", "stationary", "stationary", None),
        ("ER, 200 images", "er-online-200", "er-online", None),
        ("ER, 100 images", "er-online-100", "er-online", {"memory": 100}),
        ("Naive, learning rate 0.1", "naive", "naive", None),
        ("Naive, learning rate 0.01", None, "naive", {"lr": 0.01}),
        ("Distillation", "distill", "distill", None),
        ("ADI", "adi", "adi", None),
        ("ARM", "arm", "arm", None),
    )
)

# Variants of ARM on MNIST: (label, published name of the same change on CIFAR10, or None, experiment,
# overrides); the first is the one that they vary.
_OWN = f"arm/{MNIST}"
TABLE_7 = (
    ("ARM", "arm", _OWN, None),
    ("not kept from the batch's classes", "arm-no-local", _OWN, {"local_old": 0.0, "local_new": 0.0}),
    ("no diversity", "arm-no-diversity", _OWN, {"diversity": 0.0}),
    ("no confidence term", "arm-no-sharpness", _OWN, {"confidence": 0.0}),
    ("no L2 term", "arm-no-size", _OWN, {"l2": 0.0}),
    ("no total-variation term", "arm-no-variation", _OWN, {"tv": 0.0}),
    ("more images (20; printed: 150)", "arm-images-150", _OWN, {"n_images": 20}),
    ("fewer images (5; printed: 50)", "arm-images-50", _OWN, {"n_images": 5}),
    ("20 optimisation steps", "arm-descent-20", _OWN, {"n_steps": 20}),
    ("5 optimisation steps", "arm-descent-5", _OWN, {"n_steps": 5}),
    ("cross-entropy as divergence", "arm-divergence-ce", _OWN, {"divergence": "ce"}),
    ("Jensen-Shannon divergence", None, _OWN, {"divergence": "js"}),
    ("no divergence", None, _OWN, {"divergence_weight": 0.0}),
    ("images begin as noise", "arm-start-noise", _OWN, {"start": "noise"}),
    ("recalled twice", "arm-repeats-2", _OWN, {"repeats": 2}),
    ("twice, gradients reset", None, _OWN, {"repeats": 2, "repeat": "zeroed"}),
    ("twice, from the batch anew", None, _OWN, {"repeats": 2, "repeat": "afresh"}),
    ("recalled four times", "arm-repeats-4", _OWN, {"repeats": 4}),
    ("old network one step old", "arm-unit-lag", _OWN, {"lag": 1, "divergence_weight": 8.0}),
    ("batch not distilled", "arm-no-distill", _OWN, {"distill": 0.0, "confidence": 1.0}),
    ("losses over the union", None, _OWN, {"reduction": "union"}),
    ("both classes to the end of a task", None, f"arm/{MNIST}-mixed", None),
)

# Figure 3: diversity weights shown, of the first of these benchmarks that has records of two or more.
MAPS = {CIFAR: (0.0, 1.0, 4.0, 16.0), f"{MNIST}-val": (0.25, 1.0, 4.0, 16.0)}
# Figure 5: diversity weights tried, judged by training images that are not trained on.
SWEEP = (f"arm/{MNIST}-val", (0.25, 1.0, 4.0, 16.0, 64.0))
# Figure 6: the first of these benchmarks that has a record of recalling twice.
TWICE = (CIFAR, MNIST)
PAIRS = ((1, 0), (2, 2), (4, 2))  # figure 2: (task, row of its images), from 0

_SAID = {MNIST: "MNIST-5k-5", f"{MNIST}-val": "MNIST-5k-5", CIFAR: "CIFAR10-5"}


# ---- figures 2 and 3


def recalled():
    """Images that were recalled, above those that they began as (figure 2)."""
    records, groups, _ = available_records([("arm", _OWN, None)])
    first = next(r for r in groups["arm"] if "images" in r.trace)
    figure, axes = panels(9.6, 7.6, 1, len(PAIRS))
    parts = []
    for ax, (task, row) in zip(axes, PAIRS, strict=True):
        plots.plot_recalled(first, task, row, ax=ax)
        parts.append(_about_pairs(first, task, row))
    plots.stamp(figure, first)
    return FigureSpec(
        figure,
        "Images recalled for three batches of MNIST-5k-5, each above the image that it began as. Above each "
        "is what the old network takes it for, with its probability, and the range of its pixels, which was "
        "stretched to black and white; real pixels lie between 0 and 1.",
        f"Three rows of pairs of digits, the recalled ones noisy and blurred. {' '.join(parts)}",
        records,
    )


def _about_pairs(result, task, row):
    """What one row of the table "images" shows, in words."""
    images = result.trace["images"]
    place = np.flatnonzero(images["task"] == task)[row]
    probs, pixels = images["probs"][place], images["recalled"][place]
    earlier = probs.argmax(axis=1) < sum(result.classes_per_task[:task])
    return (
        f"Task {task + 1}, batch {images['step'][place] + 1}: the old network takes {earlier.sum()} of "
        f"{len(earlier)} recalled images for a class of an earlier task, with a mean probability of "
        f"{100 * probs.max(axis=1).mean():.0f} %; pixels range from {pixels.min():.1f} to "
        f"{pixels.max():.1f}."
    )


def outputs():
    """Which classes are recalled in the course of the stream, by diversity weight (figure 3)."""
    for benchmark, weights in MAPS.items():
        rows = [(f"diversity weight {w:g}", f"arm/{benchmark}", with_diversity(w)) for w in weights]
        if sum(on_record(*row[1:]) for row in rows) > 1:
            break
    records, groups, absent = available_records(rows)
    figure, axes = panels(11, 1.2 + 2.8 * -(-len(groups) // 2), 2, -(-len(groups) // 2), squeeze=False)
    _maps(figure, axes.ravel(), groups)
    return FigureSpec(
        figure,
        f"What the old network sees in the images recalled for each batch of {_SAID[benchmark]}, by "
        f"diversity weight; {_means(groups)}. Below the stepped line are classes that it has not seen. Grey: "
        f"nothing is recalled in the first task.{_OTHER[benchmark]}{left_out(absent)}",
        f"Heat maps of classes over batches, empty below a staircase. {_about_maps(groups)}",
        records,
    )


def with_diversity(diversity):
    """The settings of ARM that differ with this diversity weight; 16 is its own."""
    return None if diversity == 16 else {"diversity": diversity}


def _maps(figure, axes, groups):
    """A recall map on each of the axes, on one scale, with one colour bar; axes to spare are removed."""
    top = max(
        100 * np.nanmax(np.mean([r.trace["recall"]["output"] for r in seeds], axis=0))
        for seeds in groups.values()
    )
    for ax, (label, seeds) in zip(axes, groups.items()):
        plots.plot_recall_map(seeds, vmax=top, colorbar=False, title=label, ax=ax)
    for ax in axes[len(groups) :]:
        ax.remove()
    bar = figure.colorbar(axes[0].images[0], ax=list(axes[: len(groups)]), shrink=0.8)
    bar.set_label(f"probability by the\nold network (%),\n{_means(groups)}")
    bar.outline.set_visible(False)
    plots.stamp(figure, groups)


def _means(groups):
    """ "mean of 5 seeds" or "single seed, n = 1"."""
    counts = sorted({len(seeds) for seeds in groups.values()})
    if counts == [1]:
        return "single seed, n = 1"
    return f"mean of {' to '.join(map(str, dict.fromkeys((counts[0], counts[-1]))))} seeds"


def _about_maps(groups):
    """Mean probabilities of some classes in the recall maps, in words."""
    said = "; ".join(
        f"{label} {_probability(seeds, 'first')}, {_probability(seeds, 'before')} and "
        f"{_probability(seeds, 'unseen')}"
        for label, seeds in groups.items()
    )
    return (
        "Mean probability from task 2 on, of the classes of the first task, of those of the task before, "
        f"and of those that the old network has not seen: {said}."
    )


def _probability(seeds, which):
    """Mean probability in percent of the classes of the first task, of the task before, or not seen yet."""
    ends, shares = np.cumsum(seeds[0].classes_per_task), []
    for r in seeds:
        for task, output in zip(r.trace["recall"]["task"], r.trace["recall"]["output"]):
            if task:
                start, known = ends[task - 1] - r.classes_per_task[task - 1], ends[task - 1]
                part = {
                    "first": slice(0, ends[0]),
                    "before": slice(start, known),
                    "unseen": slice(known, None),
                }
                shares.append(output[part[which]].sum())
    return f"{100 * np.mean(shares):.1f} %"


# ---- figures 4 to 6


def course(benchmark):
    """Accuracy on each task in the course of the stream, with naive training in grey (figure 4)."""
    rows = [(plots.style(method)["label"], f"{method}/{benchmark}", None) for method in ("arm", "naive")]
    records, groups, absent = available_records(rows, needed="ARM")
    seeds, reference = (groups.get(label) for label, *_ in rows)
    ax = plots.plot_progress(seeds, reference)
    grey = " Grey: naive training." if reference else ""
    return FigureSpec(
        ax.figure,
        f"Accuracy of ARM on each task of {_SAID[benchmark]} in the course of the stream, among all classes; "
        f"{plots.kind(seeds)}. The strip above shows when a task is learned.{grey}{left_out(absent)}",
        f"Curves of accuracy over the batches of the stream, one a task. {_about_course(groups)}",
        records,
    )


def _about_course(groups):
    """How each method's tasks end, and how much they rose after they were learned, in words."""
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
    said = [
        one(paper="arm", metric="best diversity weight", benchmark=b)
        for b in (MNIST, CIFAR, "miniimagenet-20")
    ]
    return FigureSpec(
        ax.figure,
        "Average accuracy of ARM after the last task of MNIST-5k-5 by the weight of diversity, on training "
        "images that were not trained on. The star marks the best mean. The paper's best weights are "
        f"{said[0]} on MNIST, {said[1]} on CIFAR10 and {said[2]} on MiniImageNet ({said[0].place})."
        + left_out([f"{w:g}" for w in absent]),
        "A curve of average accuracy in percent over the diversity weight, on a logarithmic scale, "
        f"{plots.kind(groups)}: {said_by_weight}. The best mean is that of weight {best:g}.",
        records,
    )


def twice():
    """Recalling twice a batch: what is recalled, and accuracy in the course of the stream (figure 6)."""
    for benchmark in TWICE:
        rows = [
            (label, f"arm/{benchmark}", overrides)
            for label, overrides in (
                ("once", None),
                ("twice, as in the code", {"repeats": 2}),
                ("twice, from the batch anew", {"repeats": 2, "repeat": "afresh"}),
            )
        ]
        if any(on_record(*row[1:]) for row in rows[1:]):
            break
    records, groups, absent = available_records(rows)
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
        f"ARM on {_SAID[benchmark]}, recalling once a batch or twice; {plots.kind(groups)}. Above: what the "
        "old network sees in the recalled images. Below: accuracy on each task. The authors' code adds up "
        "the gradients of both times and goes on with the same images; anew means that both are reset, as in "
        f"the paper's loop.{_OTHER[benchmark]}{left_out(absent)}",
        f"Heat maps above, curves below. {_about_maps(groups)} In percent, {plots.kind(groups)}. Average "
        f"accuracy: {short(groups, Result.average)}. Forgetting: {short(groups, Result.forgetting)}.",
        records,
    )


# ---- figure 7


def gradients(benchmark, table):
    """Recalled beside real images by the gradients they give, by layer (figure 7, table 10)."""
    records, groups, _ = available_records([("arm", f"arm/{benchmark}", None)])
    seeds, printed = groups["arm"], published(paper="arm", table=table, benchmark=benchmark)
    figure, axes = panels(11, 7.2, 2, 2, sharex=True, sharey=True)
    for n, (ax, condition) in enumerate(zip(axes.flat, ("hard", "soft", "control hard", "control soft"))):
        theirs = None if n > 1 else printed
        plots.plot_gradients(seeds, condition, theirs, legend=n == 1, ax=ax)
        ax.set_xlabel(ax.get_xlabel() if n > 1 else "")
        ax.set_ylabel("" if n % 2 else ax.get_ylabel())
    plots.stamp(figure, seeds)
    said = " ".join(
        _about_cosines(seeds, condition) for condition in ("hard", "soft", "control hard", "control soft")
    )
    return FigureSpec(
        figure,
        f"How alike the gradients of recalled and of real images of {_SAID[benchmark]} are, by layer; "
        f"{plots.kind(seeds)}. Class 1 is the one an image began as, class 2 the one it is recalled as. Hard "
        "targets are class 2, soft ones the old network's output. Control: the image before recall with the "
        f"same target, which shows what the target does alone. Hollow: the paper's {table}; what its ± is, "
        "it does not say.",
        f"Four panels of cosines between gradients by layer. {said}",
        records,
    )


def _about_cosines(seeds, condition):
    """Mean cosines of one condition by layer group, in words."""
    rows = {}
    for r in seeds:
        t = r.trace["gradients"]
        for kind, which, group, mean in zip(t["condition"], t["which"], t["group"], t["mean"]):
            if kind == condition:
                rows.setdefault(str(group), {}).setdefault(str(which), []).append(mean)
    parts = "; ".join(
        f"{group} {np.mean(both['class 1']):.3f} and {np.mean(both['class 2']):.3f}"
        for group, both in rows.items()
    )
    return f"{condition.replace('control', 'Control,').capitalize()} targets, class 1 and class 2: {parts}."


# ---- tables 1, 6 and 7

# How the accuracy of a task is counted in these tables, and what a caption says of it.
TASK_MEAN = "classes"
COUNTED = {
    "classes": "The accuracy of a task is the mean over its classes, as the authors count it.",
    "images": "The accuracy of a task is the share of its images, not the mean over its classes as there.",
}

# Name for plot_ablation, published metric, least value on the axis.
_SCORES = (("accuracy", "average accuracy", 0), ("forgetting", "forgetting", -4))


def score_of(result, score):
    """Final "accuracy" or "forgetting" as the tables show it: a fraction, NaN where undefined."""
    function = {"accuracy": Result.average, "forgetting": Result.forgetting}[score]
    return function(result, task_mean=TASK_MEAN)


def table(rows, title, name, benchmark, baseline=None, note=""):
    """Accuracy and forgetting of methods or variants, with what a table of the paper prints.

    rows: as TABLE_6.   name: of the table.   benchmark: of its numbers.   baseline: a label drawn as a line.
    """
    experiments = [(label, *experiment) for label, _, *experiment in rows]
    records, groups, absent = available_records(experiments, needed=baseline, trace=False)
    counts = {len(seeds) for seeds in groups.values()}
    tables = (name, "Table 2") if name == "Table 7" else (name,)  # 2 has what 7 lacks
    figure, axes = panels(12.4, 1.9 + 0.36 * len(groups), 2, sharey=True)
    numbers, beside = [], 34 if len(counts) == 1 else 74  # beside our numbers, or these and their n
    for ax, (score, metric, low) in zip(axes, _SCORES, strict=True):
        ours = {label: [score_of(r, score) for r in seeds] for label, seeds in groups.items()}
        found = {
            label: _printed(tables, benchmark, method, metric)
            for label, method, *_ in rows
            if label in groups and method
        }
        printed = {label: p for label, p in found.items() if p}
        plots.plot_ablation(ours, baseline=baseline, score=score, ax=ax)
        if ax.get_legend():
            ax.get_legend().remove()
        mark_printed(ax, list(groups), printed, (low, 100), beside)
        theirs = "; ".join(f"{label} {p.text} ± {p.spread:g}" for label, p in printed.items())
        said = short(ours, lambda value: value)
        numbers.append(f"{metric.capitalize()}: {said}. As printed: {theirs or 'none'}.")
    where = "" if benchmark in rows[0][2] else f" for {_SAID[benchmark]}"
    legend = printed_handles(f"printed{where}, with its ±", counts != {1})
    figure.legend(handles=legend, ncols=3, loc="outside upper center", frameon=False, fontsize=9)
    plots.stamp(figure, groups)
    return FigureSpec(
        figure,
        f"{title}; {plots.kind(groups)}. {COUNTED[TASK_MEAN]} Diamonds are the numbers of {name} of the "
        f"paper, which does not say what their ± is.{note}{left_out(absent)}",
        f"Two panels with a dot for each row; in percent, {plots.kind(groups)}. {' '.join(numbers)}",
        records,
    )


def _printed(tables, benchmark, method, metric):
    """The Published of a method in the first of some tables that has it, or None."""
    rows = [
        published(paper="arm", table=table, benchmark=benchmark, method=method, metric=metric)
        for table in tables
    ]
    return next((row[0] for row in rows if row), None)


def table_methods(rows, name, benchmark):
    """Tables 1 and 6: methods on one benchmark."""
    title = f"Average accuracy and forgetting after the last task of {_SAID[benchmark]}, each image seen once"
    return table(rows, title, name, benchmark)


def table_ablations():
    """Table 7 on MNIST-5k-5: ARM with one thing changed at a time."""
    return table(
        TABLE_7,
        "ARM on MNIST-5k-5 with one thing changed at a time",
        "Table 7",
        CIFAR,
        "ARM",
        " They are for CIFAR10, with ten times the recalled images (with the unit lag and without "
        "distillation, of Table 2): compare the changes, not the values.",
    )


FIGURES = {
    "arm-fig2-recalled": recalled,
    "arm-fig3-outputs": outputs,
    "arm-fig4-accuracy-mnist": partial(course, MNIST),
    "arm-fig4-accuracy-cifar": partial(course, CIFAR),
    "arm-fig5-diversity": diversity,
    "arm-fig6-twice": twice,
    "arm-fig7-gradients": partial(gradients, MNIST, "Table 10"),
    "arm-fig7-gradients-cifar": partial(gradients, CIFAR, "Figure 7"),
    "arm-table1-cifar": partial(table_methods, TABLE_1, "Table 1", CIFAR),
    "arm-table6-mnist": partial(table_methods, TABLE_6, "Table 6", MNIST),
    "arm-table7-ablations": table_ablations,
}
