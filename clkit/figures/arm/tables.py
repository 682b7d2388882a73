"""Tables 1, 6 and 7 of ARM (Ji et al. 2020): their rows, and a figure of each.

Rows without a record are left out, and the caption names them.
"""

from functools import partial

from clkit import plots
from clkit.figures.picture import (
    FigureSpec,
    available_records,
    left_out,
    mark_printed,
    panels,
    printed_handles,
    short,
)
from clkit.papers.published import published

MNIST, CIFAR = "mnist-5k-5", "cifar10-5"
SAID = {MNIST: "MNIST-5k-5", f"{MNIST}-val": "MNIST-5k-5", CIFAR: "CIFAR10-5"}
OWN = f"arm/{MNIST}"

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

# Variants of ARM on MNIST: (label, published name of the same change on CIFAR10 or None, experiment,
# overrides). The first row is what the others change.
TABLE_7 = (
    ("ARM", "arm", OWN, None),
    ("no terms against the batch's classes", "arm-no-local", OWN, {"local_old": 0.0, "local_new": 0.0}),
    ("no diversity", "arm-no-diversity", OWN, {"diversity": 0.0}),
    ("no confidence term", "arm-no-sharpness", OWN, {"confidence": 0.0}),
    ("no L2 term", "arm-no-size", OWN, {"l2": 0.0}),
    ("no total-variation term", "arm-no-variation", OWN, {"tv": 0.0}),
    ("more images (20; printed: 150)", "arm-images-150", OWN, {"n_images": 20}),
    ("fewer images (5; printed: 50)", "arm-images-50", OWN, {"n_images": 5}),
    ("20 optimisation steps", "arm-descent-20", OWN, {"n_steps": 20}),
    ("5 optimisation steps", "arm-descent-5", OWN, {"n_steps": 5}),
    ("cross-entropy as divergence", "arm-divergence-ce", OWN, {"divergence": "ce"}),
    ("Jensen-Shannon divergence", None, OWN, {"divergence": "js"}),
    ("no divergence", None, OWN, {"divergence_weight": 0.0}),
    ("images start as noise", "arm-start-noise", OWN, {"start": "noise"}),
    ("recalled twice", "arm-repeats-2", OWN, {"repeats": 2}),
    ("twice, gradients reset", None, OWN, {"repeats": 2, "repeat": "zeroed"}),
    ("twice, restarted", None, OWN, {"repeats": 2, "repeat": "afresh"}),
    ("recalled four times", "arm-repeats-4", OWN, {"repeats": 4}),
    ("old network one step old", "arm-unit-lag", OWN, {"lag": 1, "divergence_weight": 8.0}),
    ("batch not distilled", "arm-no-distill", OWN, {"distill": 0.0, "confidence": 1.0}),
    ("losses over the union", None, OWN, {"reduction": "union"}),
    ("classes mixed to the end of a task", None, f"arm/{MNIST}-mixed", None),
)


def _accuracy(result):
    """As the authors count it: the mean over classes; of training without tasks the share of all images."""
    return result.average("images") if len(result.seen) == 1 else result.average(task_mean="classes")


# Name for plot_ablation, function, published metric, least value on the axis.
_SCORES = (
    ("accuracy", _accuracy, "average accuracy", 0),
    ("forgetting", lambda r: r.forgetting(task_mean="classes"), "forgetting", -4),
)


def table(rows, what, shows, name, benchmark, baseline=None, note=""):
    """Accuracy and forgetting of methods or variants, beside the numbers that a table of the paper prints.

    rows: as TABLE_6.   what, shows: for title and caption.   name: of the table.   benchmark: of its numbers.
    baseline: a label drawn as a line.
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
        f"{shows}; {plots.kind(groups)}. The accuracy of a task is the mean over its classes, as the authors "
        f"count it. Diamonds are the numbers of {name} of the paper, which does not say what their ± is."
        f"{note}{left_out(absent)}",
        f"Two panels with a dot for each row; in percent, {plots.kind(groups)}. {' '.join(numbers)}",
        records,
        title=f"{name} of the paper: {what}",
    )


def _printed(tables, benchmark, method, metric):
    """The Published of a method in the first of some tables that has it, or None."""
    wanted = {"paper": "arm", "benchmark": benchmark, "method": method, "metric": metric}
    return next((p for table in tables for p in published(table=table, **wanted)), None)


def table_methods(rows, name, benchmark):
    """Tables 1 and 6: methods on one benchmark."""
    shows = f"Average accuracy and forgetting after the last task of {SAID[benchmark]}, each image seen once"
    return table(rows, f"methods on {SAID[benchmark]}", shows, name, benchmark)


def table_ablations():
    """Table 7 on MNIST-5k-5: ARM with one setting changed at a time."""
    shows = "ARM on MNIST-5k-5 with one setting changed at a time"
    note = (
        " They are for CIFAR10, with ten times as many recalled images; those for the unit lag and without "
        "distillation are from Table 2. Compare the changes, not the values."
    )
    return table(TABLE_7, "one change at a time", shows, "Table 7", CIFAR, "ARM", note)


FIGURES = {
    "arm-table1-cifar": partial(table_methods, TABLE_1, "Table 1", CIFAR),
    "arm-table6-mnist": partial(table_methods, TABLE_6, "Table 6", MNIST),
    "arm-table7-ablations": table_ablations,
}
