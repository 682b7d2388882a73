"""Figures of SpaceNet (Sokar et al. 2021): a schematic, its figures 2 to 6, tables 2 and 3, and ablations."""

import math

import numpy as np

from clkit import papers, plots
from clkit.analysis import UNITS_SHOWN, masks
from clkit.figures.picture import (
    FigureSpec,
    each,
    each_label,
    labelled_records,
    mark_printed,
    panels,
    percent,
    printed_handles,
    records_of,
    scenarios,
    shared_bar,
    side_by_side,
)
from clkit.papers.published import one
from clkit.result import Result

# CIFAR-10/100: the preset and the methods drawn. wide: settings of SpaceNet with more feature maps, such as
# {"maps": (64, 64, 128, 128), "reserved": (4, 4, 10, 12, 30)}, or None.
CIFAR = {
    "benchmark": "cifar10-100",
    "preset": "laptop",
    "methods": ("finetune", "cwr-plus", "spacenet", "static"),
    "wide": None,
}

# Names among the published numbers.
PRINTED = {"static": "spacenet-static", "rehearsal": "spacenet-rehearsal"}
SIZES = "spacenet rehearsal lwf ewc si mas icarl dgr".split()


# Variants of SpaceNet on split MNIST: (label, experiment, overrides); the others vary the first.
_OWN = "spacenet/split-mnist"
ABLATIONS = (
    ("SpaceNet", _OWN, None),
    ("static connections", "static/split-mnist", None),
    ("growth at random places", _OWN, {"growth": "random"}),
    ("neuron importance as in the code", _OWN, {"importance": "code"}),
    ("softmax over the classes seen", _OWN, {"softmax": "seen"}),
    ("softmax over the task's classes", _OWN, {"softmax": "task"}),
    ("pixels not standardised", _OWN, {"mean": (0.0,), "std": (1.0,)}),
    ("learning rate 0.1", _OWN, {"lr": 0.1}),
    ("no biases of hidden neurons", _OWN, {"hidden_bias": False}),
    ("no neuron reserved", _OWN, {"reserved": (0, 0)}),
    ("20 of 80 neurons reserved", _OWN, {"reserved": (20, 20)}),
    ("all 80 neurons reserved", _OWN, {"reserved": (80, 80)}),
    ("another class order for each seed", "spacenet/split-mnist-shuffled", None),
)
_MNIST_PIXELS = {"mean": (0.1307,), "std": (0.3081,)}
PIXELS = (
    ("SpaceNet, scaled as Fashion-MNIST", "spacenet/split-fashion", None),
    ("static, scaled as Fashion-MNIST", "static/split-fashion", None),
    ("SpaceNet, scaled as MNIST", "spacenet/split-fashion", _MNIST_PIXELS),
    ("static, scaled as MNIST", "static/split-fashion", _MNIST_PIXELS),
)


# ---- the schematic

_BOXES = {  # name: (text, kind, x, y, width, height)
    "images": ("images of task $t$", "data", 1.3, 4.1, 1.7, 0.6),
    "older": ("connections of earlier tasks\n$W^{1:t-1}$", "frozen", 3.9, 4.75, 2.5, 0.75),
    "own": ("connections of task $t$\n$W^t$", "trained", 3.9, 3.3, 2.5, 0.75),
    "logits": ("logits", "data", 6.45, 4.1, 1.0, 0.6),
    "loss": ("2 Train\ncross-entropy", "loss", 8.5, 4.1, 1.5, 0.8),
    "free": ("free neurons", "data", 1.3, 0.55, 1.5, 0.6),
    "allocate": ("1 Allocate\nchoose neurons, scatter\nconnections between them", "step", 1.3, 1.9, 2.3, 1.0),
    "rewire": ("3 Drop and grow\nafter each epoch but the last", "step", 3.9, 1.9, 2.6, 0.8),
    "importance": (r"importance of connections, $\Omega$," "\nand neurons, $a$", "step", 7.75, 1.9, 2.9, 0.8),
    "reserve": ("4 Reserve\nthe most important neurons", "step", 7.75, 0.55, 2.5, 0.8),
}
_ARROWS = (
    ("images", "older"),
    ("images", "own"),
    ("older", "logits"),
    ("own", "logits"),
    ("logits", "loss"),
    ("loss", "own", "gradient, masked", {"dashed": True, "curve": -0.3, "at": (0.25, -0.22)}),
    ("own", "older", "frozen when\nthe task ends", {"dashed": True, "at": (0.65, -0.2)}),
    ("loss", "importance", "gradient × step", {"dashed": True, "at": (0.75, -0.05)}),
    ("importance", "rewire"),
    ("rewire", "own"),
    ("free", "allocate"),
    ("allocate", "own"),
    ("importance", "reserve", "end of the task", {"at": (0.65, -0.1)}),
    ("reserve", "free", "reserved neurons are free no longer"),
)


def schematic():
    """The data flow of one task, from the allocation to the reservation."""
    return FigureSpec(
        plots.plot_schematic(_BOXES, _ARROWS, size=(9.4, 5.2)).figure,
        "Numbers give the order of the four phases of a task. Dashed arrows carry gradients, and weights that"
        " are kept as they are.",
        "Boxes and arrows. Phase 1, allocate: neurons are chosen among the free ones, and connections are "
        "scattered between them. Phase 2, train: images of the task pass through the connections of earlier "
        "tasks, which are fixed, and those of the task, to the logits and the cross-entropy; the masked "
        "gradient changes the connections of the task only. Gradient times step adds up to the importance of "
        "connections and neurons. Phase 3, after each epoch but the last: connections are dropped and grown "
        "by importance. Phase 4, at the end: the most important neurons are reserved and are free no longer, "
        "and the connections of the task join the fixed ones.",
        title="The data flow of SpaceNet in one task",
    )


# ---- figures 2 and 3


def size():
    """How many numbers each method holds after split MNIST (figure 2)."""
    records, groups = records_of("split-mnist", *SIZES)
    held = {m: masks.sizes(seeds[0]) for m, seeds in groups.items()}
    lwf, dgr = (held[m]["parameters"] / held["spacenet"]["parameters"] for m in ("lwf", "dgr"))
    said = one(paper="spacenet", method="dgr", metric="connections relative to spacenet")
    numbers = "; ".join(
        f"{plots.style(m)['label']} {h['parameters']:,}"
        + (f" and {h['extra']:,} stored in addition" if h["extra"] else "")
        for m, h in held.items()
    )
    return FigureSpec(
        plots.plot_sizes(groups, held).figure,
        "How many numbers each method holds after the last task of split MNIST. SpaceNet holds the weights of"
        " its connections and all biases. The hatched part is kept beside the parameters: old copies "
        "of weights, importances, stored pixels.",
        f"Horizontal bars on a logarithmic scale show the parameters of each method: {numbers}. The dense "
        f"network has {lwf:.1f} times the parameters of SpaceNet, DGR {dgr:.1f} times; the paper says {said} "
        f"times, and counts connections ({said.place}).",
        records,
        title="Model size on split MNIST",
    )


def cifar():
    """Accuracy on each task of CIFAR-10/100 after the last one, and the average (figure 3)."""
    benchmark, preset = CIFAR["benchmark"], CIFAR["preset"]
    records, groups = records_of(benchmark, *CIFAR["methods"], preset=preset)
    if CIFAR["wide"]:
        wide, found = records_of(benchmark, "spacenet", preset=preset, overrides=CIFAR["wide"])
        records, groups = records | wide, groups | {"SpaceNet (wide)": found["spacenet"]}
    scale = f"Size {preset}: {cifar_scale()}"
    return FigureSpec(
        plots.plot_task_bars(groups).figure,
        "Accuracy on each task of CIFAR-10/100 after all six tasks, and the average over tasks. Task 1 is "
        f"CIFAR-10. {scale}; {plots.kind(groups)}.",
        "A group of bars for each task and one for the average, with one bar for each method. Averages: "
        f"{each(groups, Result.average)}. Standard deviation over the tasks: "
        f"{each(groups, lambda r: np.std(r.accuracy()[-1]))}. {scale}.",
        records,
        title="Accuracy by task on CIFAR-10/100",
    )


def cifar_scale():
    """How long and on how many images the records of figure 3 were trained, in words, and the paper's."""
    benchmark, preset = CIFAR["benchmark"], CIFAR["preset"]
    settings_of = papers.paper_of("spacenet").settings_of
    ours, full = (settings_of("spacenet", benchmark, size)["epochs"] for size in (preset, "paper"))
    most = papers.benchmark(benchmark, preset).stream.get("max_per_class")
    if (ours, most) == (full, None):
        return f"{ours} epochs a task on all training images"
    images = f"{most} training images of each class" if most else "all training images"
    return f"{ours} epochs a task on {images}, where the paper has {full} on all of them"


# ---- figures 4 to 6


def _activations():
    """(records, result of the first seed, its activations after task 1, images of class 0, a description).

    Activations: [(images, units)], one array for each hidden layer.
    """
    records, groups = records_of("split-mnist", "spacenet")
    first, said = groups["spacenet"][0], []
    values = np.asarray(first.trace["network"]["activations"][0], dtype=float)
    layers = np.split(values, np.cumsum(first.about["config"]["hidden"])[:-1], axis=1)
    split = min(UNITS_SHOWN, int((np.asarray(first.labels) == 0).sum()))
    for name, a in zip(("First", "Second"), layers, strict=True):
        s, cosine = masks.sparsity(a), masks.class_cosine(a[:split], a[split:])
        said.append(
            f"{name} hidden layer: {s['columns']} of {a.shape[1]} neurons are active for any image, and an "
            f"image activates {100 * s['active']:.1f} % on average; {100 * s['strong']:.1f} % of the values "
            f"exceed a tenth of the largest; cosine between the classes' mean activations {cosine:.2f}."
        )
    return records, first, layers, split, " ".join(said)


def _draw_activations(layers, split, result, note=""):
    """Draw both hidden layers, one above the other, on one scale; note: about the order of the neurons."""
    figure, axes = panels(9.6, 6, 1, 2)
    look = {"names": [f"class {name}" for name in result.names[:2]], "vmax": max(a.max() for a in layers)}
    for ax, a, name in zip(axes, layers, ("first", "second"), strict=True):
        plots.plot_activations(a, split, colorbar=False, title=f"{name} hidden layer", ax=ax, **look)
        ax.set_xlabel(ax.get_xlabel() + note)
    shared_bar(axes, "activation", shrink=0.6)
    plots.stamp(figure, result)
    return figure


def activations():
    """Activations of both hidden layers after the first task (figure 4)."""
    records, first, layers, split, said = _activations()
    return FigureSpec(
        _draw_activations(layers, split, first),
        "Activations of SpaceNet's two hidden layers for test images of the two classes of task 1 of split "
        "MNIST, after training on that task. Each row is an image and each column a neuron.",
        f"Two heat maps of {len(layers[0])} images on one scale, the first class above the second, show thin "
        f"vertical stripes. {said}",
        records,
        title="Activations after task 1",
    )


def activations_sorted():
    """The same for the neurons that are active for any image, sorted by the class that they prefer."""
    records, first, layers, split, said = _activations()
    drawn, parts = [], []
    for a, name in zip(layers, ("first", "second"), strict=True):
        a = a[:, (a > 0).any(axis=0)]
        difference = a[:split].mean(axis=0) - a[split:].mean(axis=0)
        drawn.append(a[:, np.argsort(-difference, kind="stable")])
        parts.append(
            f"{(difference > 0).sum()} of {a.shape[1]} in the {name} hidden layer are more active for the "
            f"first class and {(difference < 0).sum()} for the second"
        )
    return FigureSpec(
        _draw_activations(drawn, split, first, ", those active for any image, sorted by class"),
        "Activations after task 1 of split MNIST of the neurons that are active for any of the images, sorted"
        " by how much more active they are for the first class than for the second.",
        f"Two heat maps of {len(layers[0])} images: the first class activates columns at the left, the second"
        f" at the right. Among the neurons active for any image, {'; '.join(parts)}. {said}",
        records,
        title="Activations after task 1, sorted by class",
    )


def connections():
    """Connections of the second task before and after its training (figure 5)."""
    records, groups = records_of("split-mnist", "spacenet")
    first = groups["spacenet"][0]
    figure, axes = panels(10.4, 7.6, 2, 2, height_ratios=(1.25, 1))
    parts, between = [], {1: "first to second hidden layer", 0: "input to first hidden layer"}
    for row, (layer, name) in zip(axes, between.items(), strict=True):
        pair = [masks.block(first, 1, layer, epoch)[0] for epoch in (0, -1)]
        for ax, mask, when in zip(row, pair, ("at allocation", "after training"), strict=True):
            plots.plot_connections(mask, title=f"{name}, {when}", ax=ax)
        before, after = (100 * masks.busiest_share(mask) for mask in pair)
        used = [masks.used(mask) for mask in pair]
        parts.append(
            f"{name.capitalize()}, {pair[0].sum():,} connections: the 20 busiest of {len(pair[0])} "
            f"target neurons have {before:.0f} % of them at allocation, {after:.0f} % after "
            f"training; target neurons with any connection: {used[0]}, then {used[1]}."
        )
    plots.stamp(figure, first)
    return FigureSpec(
        figure,
        "Connections of task 2 of split MNIST between the neurons chosen for it, at their random allocation "
        "and after training. Black marks a connection.",
        f"Four connection matrices, before training on the left and after it on the right. {' '.join(parts)}",
        records,
        title="Connections of task 2 before and after training",
    )


def input_maps():
    """How many connections leave each pixel, SpaceNet above its static variant (figure 6)."""
    records, groups = records_of("split-mnist", "spacenet", "static")
    figure, axes = panels(8.4, 6.1, 3, 2)
    said = []
    for column, task in zip(axes.T, (0, 2, 4), strict=True):
        maps = []
        for seeds in groups.values():
            side = math.isqrt(len(masks.block(seeds[0], task, 0)[2]))
            maps.append(masks.input_map(seeds[0], task, (1, side, side)))
        digits = seeds[0].names[2 * task : 2 * task + 2]
        for ax, counts in zip(column, maps, strict=True):
            plots.plot_input_map(counts, vmax=max(m.max() for m in maps), colorbar=False, ax=ax)
        column[0].set_title(f"task {task + 1} ({' or '.join(digits)})", fontsize=11)
        shared_bar(column, "connections of a pixel", location="bottom", shrink=0.85, pad=0.02)
        said.append(f"task {task + 1}: {maps[0].max()} and {maps[1].max()}")
    for ax, method in zip(axes[:, 0], groups, strict=True):
        ax.set_ylabel(plots.style(method)["label"], fontsize=11)
    plots.stamp(figure, {m: seeds[0] for m, seeds in groups.items()})
    return FigureSpec(
        figure,
        "How many connections leave each pixel after training on three tasks of split MNIST. SpaceNet is "
        "above, its static variant below, on one scale for each task.",
        "Six maps of the input for three tasks, SpaceNet above its static variant. Largest number of "
        f"connections of one pixel, SpaceNet and static: {'; '.join(said)}.",
        records,
        title="Connections that leave each pixel",
    )


# ---- tables 2 and 3


def table_mnist():
    """Table 2 as a picture: average accuracy on split MNIST beside the printed numbers."""
    slow = ("SpaceNet (rehearsal), lr 0.01", "rehearsal/split-mnist", {"lr": 0.01})
    rate = papers.methods()["rehearsal"].settings["lr"]
    note = f" Rehearsal uses a learning rate of {rate:g}; the top row shows it at the paper's 0.01."
    rows = "ewc si mas lwf dgr icarl rehearsal static spacenet"
    return _table("split-mnist", "split MNIST", "Table 2", rows, [slow], note)


def table_fashion():
    """Table 3 as a picture: average accuracy on split Fashion-MNIST beside the printed numbers."""
    rows = "ewc si lwf dgr icarl rehearsal static spacenet"
    return _table("split-fashion", "split Fashion-MNIST", "Table 3", rows)


def _table(benchmark, title, table, rows, above=(), note=""):
    """The FigureSpec of a printed table.

    benchmark, title: its name, and how readers call it.   table: as the paper numbers it.   rows: methods
    from the top, a text with spaces.   above: rows before them, as in ABLATIONS.   note: ends the caption.
    """
    more, shown = labelled_records(above)
    records, groups = records_of(benchmark, *rows.split())
    shown |= {plots.style(m)["label"]: seeds for m, seeds in groups.items()}
    source = {"paper": "spacenet", "benchmark": benchmark}
    accuracy = source | {"table": table, "metric": "average accuracy"}
    printed = {plots.style(m)["label"]: one(method=PRINTED.get(m, m), **accuracy) for m in groups}
    printed["DEN (not run here)"] = one(method="den", **accuracy)
    ax = plots.plot_ablation(shown)
    mark_printed(ax, [*shown, "DEN (not run here)"], printed)
    place = {"loc": "lower center", "bbox_to_anchor": (0.5, 1.0), "ncols": 3}
    ax.legend(handles=printed_handles(), frameon=False, fontsize=9, **place)
    pairs = list(zip(groups["static"], groups["spacenet"], strict=True))
    at = [len(shown) - 2, len(shown) - 1]  # static and SpaceNet are the last two rows
    for both in pairs:
        ax.plot([100 * r.average() for r in both], at, color="#888888", linewidth=0.6, zorder=1)
    metric = "gain in average accuracy over spacenet-static"
    gain = one(table="text", method="spacenet", metric=metric, **source)
    wins = sum(static.average() < own.average() for static, own in pairs)
    mean = percent(pairs, lambda pair: pair[1].average() - pair[0].average()).replace(" %", " points", 1)
    theirs = "; ".join(f"{label} {p.text} ± {p.spread:g}" for label, p in printed.items())
    return FigureSpec(
        ax.figure,
        f"Class-incremental average accuracy after the last task of {title}, beside the numbers printed in "
        f"the paper's {table}. A thin line joins the runs of SpaceNet and its static variant that share a "
        "seed." + note,
        f"A dot with an interval for each method: {each_label(shown, Result.average)}. Diamonds mark the "
        f"printed numbers: {theirs}; the paper does not say what its ± means. SpaceNet is above its static "
        f"variant in {wins} of {len(pairs)} seeds, on average by {mean}; the paper says {gain} points.",
        records | more,
        title=f"Average accuracy on {title}",
    )


# ---- scenarios, variants, curves


def task_aware():
    """Class-incremental and task-aware accuracy of the same weights."""
    spec = scenarios(
        "spacenet static rehearsal lwf ewc si mas",
        "The same weights after the last task of split MNIST, tested class-incrementally (among all ten "
        "classes) and task-aware (among the two classes of the image's own task). Each dot is a seed.",
    )
    spec.title = "Class-incremental and task-aware accuracy"
    return spec


def ablations():
    """SpaceNet on split MNIST with one setting changed at a time."""
    return _variants(
        ABLATIONS,
        ABLATIONS[0][0],
        "One setting of SpaceNet changed at a time",
        "Average accuracy of SpaceNet after the last task of split MNIST with one setting changed at a time. "
        "The dashed line, with its interval, is SpaceNet unchanged. Each open dot is a seed.",
    )


def pixels():
    """SpaceNet and its static variant on split Fashion-MNIST, with pixels standardised in two ways."""
    return _variants(
        PIXELS,
        None,
        "Two ways to standardise Fashion-MNIST",
        "Average accuracy of SpaceNet and its static variant after the last task of split Fashion-MNIST, with"
        " pixels standardised by the mean and standard deviation of that set or of MNIST. Each open dot is a "
        "seed.",
    )


def _variants(rows, baseline, title, caption):
    records, shown = labelled_records(rows)
    ax = plots.plot_ablation(shown, baseline=baseline)
    alt = f"A dot with an interval for each variant: {each_label(shown, Result.average)}."
    return FigureSpec(ax.figure, caption, alt, records, title=title)


def curves():
    """Accuracy on each task during later tasks, SpaceNet beside its static variant."""
    records, groups = records_of("split-mnist", "spacenet", "static")
    means = [np.mean([r.accuracy()[-1] for r in seeds], axis=0) for seeds in groups.values()]
    ends = [", ".join(f"{100 * a:.1f} %" for a in mean) for mean in means]
    return FigureSpec(
        side_by_side(plots.plot_tasks, groups, "legend", 9.4, 3.6, sharey=True),
        "Class-incremental accuracy on each task of split MNIST, from the end of its training to the end of "
        "the stream. Each line is a task.",
        "Two panels of falling curves, one curve for each task. Accuracy at the end, by task: SpaceNet "
        f"{ends[0]}; static {ends[1]}. Accuracy on a task right after its training, mean over tasks: "
        f"{each(groups, lambda r: np.diag(r.accuracy()).mean())}.",
        records,
        title="Accuracy on each task over time",
    )


FIGURES = {
    "spacenet-schematic": schematic,
    "spacenet-size": size,
    "spacenet-cifar": cifar,
    "spacenet-activations": activations,
    "spacenet-activations-sorted": activations_sorted,
    "spacenet-connections": connections,
    "spacenet-input-maps": input_maps,
    "spacenet-mnist": table_mnist,
    "spacenet-fashion": table_fashion,
    "spacenet-task-aware": task_aware,
    "spacenet-ablations": ablations,
    "spacenet-pixels": pixels,
    "spacenet-curves": curves,
}
