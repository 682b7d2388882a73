"""Figures of SpaceNet (Sokar et al. 2021): its figures 2 to 6, tables 2 and 3, and what moves its numbers."""

import math

import numpy as np

from clkit import papers, plots
from clkit.analysis import UNITS_SHOWN, masks
from clkit.figures.picture import (
    FigureSpec,
    each,
    load_records,
    mark_printed,
    panels,
    percent,
    printed_handles,
    records_of,
)
from clkit.papers.published import one
from clkit.result import Result

# CIFAR-10/100: the size, and the methods drawn. wide: settings of SpaceNet with more feature maps,
# {"maps": (64, 64, 128, 128), "reserved": (4, 4, 10, 12, 30)}, or None.
CIFAR = {
    "benchmark": "cifar10-100",
    "preset": "laptop",
    "methods": ("finetune", "cwr-plus", "spacenet", "static"),
    "wide": None,
}

PRINTED = {
    "static": "spacenet-static",
    "rehearsal": "spacenet-rehearsal",
}  # names among the published numbers
SIZES = "spacenet rehearsal lwf ewc si mas icarl dgr".split()
AWARE = "spacenet static rehearsal lwf ewc si mas".split()

# Variants of SpaceNet on split MNIST: (label, experiment, overrides), the first is the one that they vary.
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


# ---- figures 2 and 3


def size():
    """How many numbers each method holds after split MNIST (figure 2)."""
    records, groups = records_of("split-mnist", *SIZES)
    held = {m: masks.sizes(seeds[0]) for m, seeds in groups.items()}
    ax = plots.plot_sizes(groups, held)
    own = held["spacenet"]["parameters"]
    times = {m: held[m]["parameters"] / own for m in ("lwf", "dgr")}
    said = one(paper="spacenet", method="dgr", metric="connections relative to spacenet")
    numbers = "; ".join(
        f"{plots.style(m)['label']} {h['parameters']:,}"
        + (f" and {h['extra']:,} kept beside them" if h["extra"] else "")
        for m, h in held.items()
    )
    return FigureSpec(
        ax.figure,
        "Numbers that each method holds after the last task of split MNIST. For SpaceNet these are the "
        "weights of its connections, and all biases. Hatched is what is kept beside the parameters: "
        "teachers, importances, stored pixels.",
        f"Horizontal bars on a logarithmic scale, parameters of each method: {numbers}. The dense network has"
        f" {times['lwf']:.1f} times the parameters of SpaceNet, DGR {times['dgr']:.1f} times; the paper says "
        f"{said} times, of connections ({said.place}).",
        records,
    )


def cifar():
    """Accuracy on each task of CIFAR-10/100 after the last one, and the average (figure 3)."""
    benchmark, preset = CIFAR["benchmark"], CIFAR["preset"]
    records, groups = records_of(benchmark, *CIFAR["methods"], preset=preset)
    if CIFAR["wide"]:
        wide, found = records_of(benchmark, "spacenet", preset=preset, overrides=CIFAR["wide"])
        records, groups = records | wide, groups | {"SpaceNet (wide)": found["spacenet"]}
    ax = plots.plot_task_bars(groups)
    passes = cifar_scale()
    return FigureSpec(
        ax.figure,
        "Accuracy on each task of CIFAR-10/100 after all six were learned, and the average over tasks; task 1"
        f" is CIFAR-10. Size {preset}: {passes}; {plots.kind(groups)}.",
        f"Groups of bars, one group a task, one bar a method, and last the average: "
        f"{each(groups, Result.average)}. Standard deviation over the tasks: "
        f"{each(groups, lambda r: np.std(r.accuracy()[-1]))}. Size {preset}: {passes}.",
        records,
    )


def cifar_scale():
    """In words, how much the records of figure 3 were trained, beside the paper."""
    epochs = {
        size: papers.paper_of("spacenet").settings_of("spacenet", CIFAR["benchmark"], size)["epochs"]
        for size in (CIFAR["preset"], "paper")
    }
    ours, full = epochs[CIFAR["preset"]], epochs["paper"]
    most = papers.benchmark(CIFAR["benchmark"], CIFAR["preset"]).stream.get("max_per_class")
    if (ours, most) == (full, None):
        return f"{ours} epochs a task on all training images"
    images = f"{most} training images of each class" if most else "all training images"
    return f"{ours} epochs a task on {images}, where the paper has {full} on all of them"


# ---- figures 4 to 6


def _activations(result):
    """Activations after the first task, [(images, units)] by hidden layer, and how many are of class 0."""
    values = np.asarray(result.trace["network"]["activations"][0], dtype=float)
    layers = np.split(values, np.cumsum(result.about["config"]["hidden"])[:-1], axis=1)
    return layers, min(UNITS_SHOWN, int((np.asarray(result.labels) == 0).sum()))


def _about_layers(layers, split):
    parts = []
    for name, a in zip(("First", "Second"), layers, strict=True):
        s, cosine = masks.sparsity(a), masks.class_cosine(a[:split], a[split:])
        parts.append(
            f"{name} hidden layer: {s['columns']} of {a.shape[1]} neurons are ever active, for an"
            f" image {100 * s['active']:.1f} % of them; {100 * s['strong']:.1f} % of the values are "
            f"above a tenth of the largest; cosine between the classes' mean activations "
            f"{cosine:.2f}."
        )
    return " ".join(parts)


def _draw_activations(layers, split, result, note=""):
    """Both hidden layers, one above the other, on one scale; note: on the order of the neurons."""
    figure, axes = panels(9.6, 6, 1, 2)
    top = max(a.max() for a in layers)
    for ax, a, name in zip(axes, layers, ("first", "second"), strict=True):
        plots.plot_activations(
            a,
            split,
            names=[f"class {name}" for name in result.names[:2]],
            vmax=top,
            colorbar=False,
            title=f"{name} hidden layer",
            ax=ax,
        )
        ax.set_xlabel(ax.get_xlabel() + note)
    bar = figure.colorbar(axes[0].images[0], ax=list(axes), shrink=0.6)
    bar.set_label("activation")
    bar.outline.set_visible(False)
    plots.stamp(figure, result)
    return figure


def activations():
    """Activations of both hidden layers after the first task (figure 4)."""
    records, groups = records_of("split-mnist", "spacenet")
    first = groups["spacenet"][0]
    layers, split = _activations(first)
    return FigureSpec(
        _draw_activations(layers, split, first),
        "Activations of SpaceNet's two hidden layers for test images of the two classes of task 1 of split "
        "MNIST, after that task was learned. A row is an image, a column a neuron.",
        f"Two heat maps of {len(layers[0])} images, the first class above the second, on one scale: thin "
        f"vertical stripes. {_about_layers(layers, split)}",
        records,
    )


def activations_sorted():
    """The same of the neurons that are ever active, sorted by the class that they prefer."""
    records, groups = records_of("split-mnist", "spacenet")
    first = groups["spacenet"][0]
    layers, split = _activations(first)
    drawn, parts = [], []
    for a, name in zip(layers, ("first", "second"), strict=True):
        a = a[:, (a > 0).any(axis=0)]
        difference = a[:split].mean(axis=0) - a[split:].mean(axis=0)
        drawn.append(a[:, np.argsort(-difference, kind="stable")])
        parts.append(
            f"of {a.shape[1]} neurons in the {name} hidden layer {(difference > 0).sum()} are more "
            f"active for the first class and {(difference < 0).sum()} for the second"
        )
    return FigureSpec(
        _draw_activations(drawn, split, first, ", those active for any image, sorted by class"),
        "The same activations after task 1 of split MNIST, of the neurons that are active for any of the "
        "images, sorted by how much more active they are for the first class than for the second.",
        f"Two heat maps of {len(layers[0])} images: the first class lights up columns at the left, the second"
        f" at the right. Sorted are those active for any image: {'; '.join(parts)}. "
        f"{_about_layers(layers, split)}",
        records,
    )


def connections():
    """Connections of the second task before and after its training (figure 5)."""
    records, groups = records_of("split-mnist", "spacenet")
    first = groups["spacenet"][0]
    figure, axes = panels(10.4, 7.6, 2, 2, height_ratios=(1.25, 1))
    parts = []
    for row, layer, name in zip(
        axes, (1, 0), ("first to second hidden layer", "input to first hidden layer"), strict=True
    ):
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
        "Connections of task 2 of split MNIST between the neurons chosen for it: where they were allocated at"
        " random, and where they are after training. Black is a connection.",
        f"Four matrices of connections, left before and right after training. {' '.join(parts)}",
        records,
    )


def input_maps():
    """How many connections leave each pixel, SpaceNet above static (figure 6)."""
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
        bar = figure.colorbar(column[1].images[0], ax=list(column), location="bottom", shrink=0.85, pad=0.02)
        bar.outline.set_visible(False)
        bar.set_label("connections of a pixel")
        said.append(f"task {task + 1}: {maps[0].max()} and {maps[1].max()}")
    for ax, method in zip(axes[:, 0], groups, strict=True):
        ax.set_ylabel(plots.style(method)["label"], fontsize=11)
    plots.stamp(figure, {m: seeds[0] for m, seeds in groups.items()})
    return FigureSpec(
        figure,
        "Connections of three tasks of split MNIST that leave each pixel, after training: SpaceNet above, its"
        " static variant below, on one scale for each task.",
        "Six maps of the input: three tasks, SpaceNet above its static variant. Most connections of a pixel, "
        f"SpaceNet and static: {'; '.join(said)}.",
        records,
    )


# ---- tables 2 and 3


def table_mnist():
    """Table 2 as a picture: average accuracy on split MNIST beside the printed numbers."""
    slow, found = records_of("split-mnist", "rehearsal", overrides={"lr": 0.01})
    rate = papers.methods()["rehearsal"].settings["lr"]
    return _table(
        "split-mnist",
        "split MNIST",
        "Table 2",
        "ewc si mas lwf dgr icarl rehearsal static spacenet",
        slow,
        {"SpaceNet (rehearsal), lr 0.01": found["rehearsal"]},
        f" Rehearsal learns at a rate of {rate:g}, and in the top row at the 0.01 of the paper.",
    )


def table_fashion():
    """Table 3 as a picture: average accuracy on split Fashion-MNIST beside the printed numbers."""
    return _table(
        "split-fashion", "split Fashion-MNIST", "Table 3", "ewc si lwf dgr icarl rehearsal static spacenet"
    )


def _table(benchmark, title, table, rows, records=None, shown=None, note=""):
    """The FigureSpec of a printed table.   rows: methods from the top.   shown: {label: seeds} above them."""
    found, groups = records_of(benchmark, *rows.split())
    shown = (shown or {}) | {plots.style(m)["label"]: seeds for m, seeds in groups.items()}
    printed = {plots.style(m)["label"]: _printed(benchmark, table, m) for m in groups}
    printed["DEN (not run here)"] = _printed(benchmark, table, "den")
    ax = plots.plot_ablation(shown)
    mark_printed(ax, [*shown, "DEN (not run here)"], printed)
    ax.legend(
        handles=printed_handles(),
        loc="lower center",
        bbox_to_anchor=(0.5, 1.0),
        ncols=3,
        frameon=False,
        fontsize=9,
    )
    pairs = list(zip(groups["static"], groups["spacenet"], strict=True))
    for both in pairs:  # static and SpaceNet are the last two rows
        ax.plot(
            [100 * r.average() for r in both],
            [len(shown) - 2, len(shown) - 1],
            color="#888888",
            linewidth=0.6,
            zorder=1,
        )
    gain = one(
        paper="spacenet",
        table="text",
        benchmark=benchmark,
        method="spacenet",
        metric="gain in average accuracy over spacenet-static",
    )
    wins = sum(static.average() < own.average() for static, own in pairs)
    mean = percent(pairs, lambda pair: pair[1].average() - pair[0].average()).replace(" %", " points", 1)
    ours = "; ".join(f"{label} {percent(seeds, Result.average)}" for label, seeds in shown.items())
    theirs = "; ".join(f"{label} {p.text} ± {p.spread:g}" for label, p in printed.items())
    return FigureSpec(
        ax.figure,
        f"Average accuracy after the last task of {title}, class-incremental, beside the numbers that {table}"
        " of the paper prints. A thin line joins the runs of SpaceNet and its static variant with one seed."
        + note,
        f"A dot with an interval for each method: {ours}. Diamonds, as printed: {theirs}; what the ± is, the "
        f"paper does not say. SpaceNet is above its static variant in {wins} of {len(pairs)} seeds, on "
        f"average by {mean}; the paper says {gain} points.",
        found | (records or {}),
    )


def _printed(benchmark, table, method):
    return one(
        paper="spacenet",
        table=table,
        benchmark=benchmark,
        method=PRINTED.get(method, method),
        metric="average accuracy",
    )


# ---- scenarios, variants, curves


def task_aware():
    """The same weights, class-incremental and task-aware."""
    records, groups = records_of("split-mnist", *AWARE)
    ax = plots.plot_scenarios(groups)
    return FigureSpec(
        ax.figure,
        "The same weights after the last task of split MNIST, class-incremental (among all ten classes) and "
        "task-aware (among the two classes of the image's own task). A dot is a seed.",
        f"Pairs of bars. Class-incremental average accuracy: {each(groups, Result.average)}. Task-aware: "
        f"{each(groups, Result.task_aware_average)}.",
        records,
    )


def ablations():
    """What decides SpaceNet's accuracy on split MNIST: one setting changed at a time."""
    return _variants(
        ABLATIONS,
        ABLATIONS[0][0],
        "Average accuracy of SpaceNet after the last task of split MNIST with one setting changed at a time."
        " Dashed, with its interval: as it stands. An open dot is a seed.",
    )


def pixels():
    """SpaceNet and its static variant on split Fashion-MNIST, pixels standardised in two ways."""
    return _variants(
        PIXELS,
        None,
        "SpaceNet and its static variant after the last task of split Fashion-MNIST, with pixels standardised"
        " by the mean and deviation of that set or of MNIST. An open dot is a seed.",
    )


def _variants(rows, baseline, caption):
    found = [(label, load_records([(name, overrides)])) for label, name, overrides in rows]
    records = {stem: seeds for _, record in found for stem, seeds in record.items()}
    shown = {label: next(iter(record.values())) for label, record in found}
    ax = plots.plot_ablation(shown, baseline=baseline)
    numbers = "; ".join(f"{label} {percent(seeds, Result.average)}" for label, seeds in shown.items())
    return FigureSpec(ax.figure, caption, f"A dot with an interval for each variant: {numbers}.", records)


def curves():
    """Accuracy on each task while later tasks are learned: SpaceNet beside its static variant."""
    records, groups = records_of("split-mnist", "spacenet", "static")
    figure, axes = panels(9.4, 3.6, 2, sharey=True)
    for n, (ax, seeds) in enumerate(zip(axes, groups.values(), strict=True)):
        plots.plot_tasks(seeds, legend=n == 1, ax=ax)
    axes[1].set_ylabel("")
    plots.stamp(figure, groups)
    ends = [
        ", ".join(f"{100 * a:.1f} %" for a in np.mean([r.accuracy()[-1] for r in seeds], axis=0))
        for seeds in groups.values()
    ]
    return FigureSpec(
        figure,
        "Accuracy on each task of split MNIST from when it is learned to the end: a line a task, SpaceNet "
        "beside its static variant.",
        "Two panels of curves, one a task, that fall as later tasks are learned. At the end, by task: "
        f"SpaceNet {ends[0]}; static {ends[1]}. Accuracy on a task just learned, mean over tasks: "
        f"{each(groups, lambda r: np.diag(r.accuracy()).mean())}.",
        records,
    )


FIGURES = {
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
