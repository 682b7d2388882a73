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
    shared_bar,
    short,
)
from clkit.papers.published import one, published
from clkit.result import Result

MNIST, CIFAR = "mnist-5k-5", "cifar10-5"
SAID = {MNIST: "MNIST-5k-5", f"{MNIST}-val": "MNIST-5k-5", CIFAR: "CIFAR10-5"}

# Tables: (label, name among the published numbers or None, experiment, overrides).
TABLE_6 = (
    ("Stationary", "stationary", f"stationary/{MNIST}", None),
    ("ER, 50 images", "er-online-50", f"er-online/{MNIST}", None),
    ("ER-MIR, 50 images", "er-mir-50", f"er-mir/{MNIST}", None),
    ("iCaRL, 50 images", None, f"icarl-online/{MNIST}", None),
    ("GEM, 50 images", None, f"gem/{MNIST}", None),
    ("ER, 25 images", "er-online-25", f"er-online/{MNIST}", {"memory": 25}),
    ("ER-MIR, 25 images", "er-mir-25", f"er-mir/{MNIST}", {"memory": 25}),
    ("Naive", "naive", f"naive/{MNIST}", None),
    ("GEN", "gen", f"gen/{MNIST}", None),
    ("GEN-MIR", "gen-mir", f"gen-mir/{MNIST}", None),
    ("Distillation", "distill", f"distill/{MNIST}", None),
    ("ADI", "adi", f"adi/{MNIST}", None),
    ("ARM", "arm", f"arm/{MNIST}", None),
)
TABLE_1 = (
    ("Stationary", "stationary", f"stationary/{CIFAR}", None),
    ("ER, 200 images", "er-online-200", f"er-online/{CIFAR}", None),
    ("ER, 100 images", "er-online-100", f"er-online/{CIFAR}", {"memory": 100}),
    ("Naive, learning rate 0.1", "naive", f"naive/{CIFAR}", None),
    ("Naive, learning rate 0.01", None, f"naive/{CIFAR}", {"lr": 0.01}),
    ("Distillation", "distill", f"distill/{CIFAR}", None),
    ("ADI", "adi", f"adi/{CIFAR}", None),
    ("ARM", "arm", f"arm/{CIFAR}", None),
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
PAIRS = ((1, 0), (2, 2), (4, 2))  # figure 2: (task, row of its images), from 0


# ---- figures 2 and 3


def recalled():
    """Images that were recalled, above those that they began as (figure 2)."""
    records, groups, _ = available_records([("arm", _OWN, None)])
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
            f"Task {task + 1}, batch {images['step'][place] + 1}: the old network takes {earlier.sum()} of "
            f"{len(earlier)} recalled images for a class of an earlier task, with a mean probability of "
            f"{100 * probs.max(axis=1).mean():.0f} %; pixels range from {pixels.min():.1f} to "
            f"{pixels.max():.1f}."
        )
    plots.stamp(figure, first)
    return FigureSpec(
        figure,
        "Images recalled for three batches of MNIST-5k-5, each above the image that it began as. Above each "
        "is what the old network takes it for, with its probability, and the range of its pixels, which was "
        "stretched to black and white; real pixels lie between 0 and 1.",
        f"Three rows of pairs of digits, the recalled ones noisy and blurred. {' '.join(parts)}",
        records,
    )


def _one_of(rows_of, least, skip=0):
    """Of {benchmark: rows}, the first with `least` rows on record, those to skip not counted, else the last.

    Returns (benchmark in words, a sentence if it is not the paper's or "", *available_records).
    """
    there = [b for b, rows in rows_of.items() if sum(on_record(*row[1:]) for row in rows[skip:]) >= least]
    benchmark = there[0] if there else list(rows_of)[-1]
    other = (
        "" if benchmark == CIFAR else " The paper shows this for CIFAR10, of which there is no such record."
    )
    return SAID[benchmark], other, *available_records(rows_of[benchmark])


def outputs():
    """Which classes are recalled in the course of the stream, by diversity weight (figure 3)."""
    rows = {
        benchmark: [(f"diversity weight {w:g}", f"arm/{benchmark}", with_diversity(w)) for w in weights]
        for benchmark, weights in MAPS.items()
    }
    where, other, records, groups, absent = _one_of(rows, least=2)
    figure, axes = panels(11, 1.2 + 2.8 * -(-len(groups) // 2), 2, -(-len(groups) // 2), squeeze=False)
    _maps(figure, axes.ravel(), groups)
    return FigureSpec(
        figure,
        f"What the old network sees in the images recalled for each batch of {where}, by diversity weight; "
        f"{_means(groups)}. Below the stepped line are classes that it has not seen. Grey: nothing is "
        f"recalled in the first task.{other}{left_out(absent)}",
        f"Heat maps of classes over batches, empty below a staircase. {_about_maps(groups)}",
        records,
    )


def with_diversity(diversity):
    """The settings of ARM that differ with this diversity weight; 16 is its own."""
    return None if diversity == 16 else {"diversity": diversity}


def _maps(figure, axes, groups):
    """A recall map on each of the axes, on one scale, with one colour bar; axes to spare are removed."""
    means = [np.mean([r.trace["recall"]["output"] for r in seeds], axis=0) for seeds in groups.values()]
    top = max(100 * np.nanmax(mean) for mean in means)
    for ax, (label, seeds) in zip(axes, groups.items()):
        plots.plot_recall_map(seeds, vmax=top, colorbar=False, title=label, ax=ax)
    for ax in axes[len(groups) :]:
        ax.remove()
    label = f"probability by the\nold network (%),\n{_means(groups)}"
    shared_bar(axes[: len(groups)], label, shrink=0.8)
    plots.stamp(figure, groups)


def _means(groups):
    """ "mean of 5 seeds" or "single seed, n = 1"."""
    counts = [len(seeds) for seeds in groups.values()]
    low, high = min(counts), max(counts)
    if high == 1:
        return "single seed, n = 1"
    return f"mean of {low if low == high else f'{low} to {high}'} seeds"


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
        "Mean probability from task 2 on, of the classes of the first task, of those of the task before, "
        f"and of those that the old network has not seen: {'; '.join(said)}."
    )


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
        f"Accuracy of ARM on each task of {SAID[benchmark]} in the course of the stream, among all classes; "
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
    where = (MNIST, CIFAR, "miniimagenet-20")
    said = [one(paper="arm", metric="best diversity weight", benchmark=b) for b in where]
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
    rows = {
        benchmark: [
            ("once", f"arm/{benchmark}", None),
            ("twice, as in the code", f"arm/{benchmark}", {"repeats": 2}),
            ("twice, from the batch anew", f"arm/{benchmark}", {"repeats": 2, "repeat": "afresh"}),
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
        f"ARM on {where}, recalling once a batch or twice; {plots.kind(groups)}. Above: what the old network "
        "sees in the recalled images. Below: accuracy on each task. The authors' code adds up the gradients "
        "of both times and goes on with the same images; anew means that both are reset, as in the paper's "
        f"loop.{other}{left_out(absent)}",
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
    conditions = ("hard", "soft", "control hard", "control soft")
    for n, (ax, condition) in enumerate(zip(axes.flat, conditions)):
        plots.plot_gradients(seeds, condition, None if n > 1 else printed, legend=n == 1, ax=ax)
        ax.set_xlabel(ax.get_xlabel() if n > 1 else "")
        ax.set_ylabel("" if n % 2 else ax.get_ylabel())
    plots.stamp(figure, seeds)
    said = " ".join(_about_cosines(seeds, condition) for condition in conditions)
    return FigureSpec(
        figure,
        f"How alike the gradients of recalled and of real images of {SAID[benchmark]} are, by layer; "
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
    means = {
        group: [np.mean(both[which]) for which in ("class 1", "class 2")] for group, both in rows.items()
    }
    parts = "; ".join(f"{group} {first:.3f} and {second:.3f}" for group, (first, second) in means.items())
    return f"{condition.replace('control', 'Control,').capitalize()} targets, class 1 and class 2: {parts}."


# ---- tables 1, 6 and 7


def _accuracy(result):
    """As the authors count it: the mean over classes; of training without tasks the share of all images."""
    return result.average("images") if len(result.seen) == 1 else result.average(task_mean="classes")


# Name for plot_ablation, function, published metric, least value on the axis.
_SCORES = (
    ("accuracy", _accuracy, "average accuracy", 0),
    ("forgetting", lambda r: r.forgetting(task_mean="classes"), "forgetting", -4),
)


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
    for ax, (score, function, metric, low) in zip(axes, _SCORES, strict=True):
        ours = {label: [function(r) for r in seeds] for label, seeds in groups.items()}
        known = [(label, method) for label, method, *_ in rows if method and label in groups]
        found = {label: _printed(tables, benchmark, method, metric) for label, method in known}
        printed = {label: p for label, p in found.items() if p}
        plots.plot_ablation(ours, baseline=baseline, score=score, ax=ax)
        if ax.get_legend():
            ax.get_legend().remove()
        mark_printed(ax, list(groups), printed, (low, 100), beside)
        theirs = "; ".join(f"{label} {p.text} ± {p.spread:g}" for label, p in printed.items())
        said = short(ours, lambda value: value)
        numbers.append(f"{metric.capitalize()}: {said}. As printed: {theirs or 'none'}.")
    where = "" if benchmark in rows[0][2] else f" for {SAID[benchmark]}"
    legend = printed_handles(f"printed{where}, with its ±", counts != {1})
    figure.legend(handles=legend, ncols=3, loc="outside upper center", frameon=False, fontsize=9)
    plots.stamp(figure, groups)
    return FigureSpec(
        figure,
        f"{title}; {plots.kind(groups)}. The accuracy of a task is the mean over its classes, as the authors "
        f"count it. Diamonds are the numbers of {name} of the paper, which does not say what their ± is."
        f"{note}{left_out(absent)}",
        f"Two panels with a dot for each row; in percent, {plots.kind(groups)}. {' '.join(numbers)}",
        records,
    )


def _printed(tables, benchmark, method, metric):
    """The Published of a method in the first of some tables that has it, or None."""
    wanted = {"paper": "arm", "benchmark": benchmark, "method": method, "metric": metric}
    return next((p for table in tables for p in published(table=table, **wanted)), None)


def table_methods(rows, name, benchmark):
    """Tables 1 and 6: methods on one benchmark."""
    title = f"Average accuracy and forgetting after the last task of {SAID[benchmark]}, each image seen once"
    return table(rows, title, name, benchmark)


def table_ablations():
    """Table 7 on MNIST-5k-5: ARM with one thing changed at a time."""
    title = "ARM on MNIST-5k-5 with one thing changed at a time"
    note = (
        " They are for CIFAR10, with ten times the recalled images (with the unit lag and without "
        "distillation, of Table 2): compare the changes, not the values."
    )
    return table(TABLE_7, title, "Table 7", CIFAR, "ARM", note)


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
