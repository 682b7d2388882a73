"""Figures of the baselines on split MNIST, and of the shapes."""

from dataclasses import replace

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
    short,
    side_by_side,
)
from clkit.papers.palette import BLUE, GREEN, VERMILLION
from clkit.result import Result, interval

# Images kept by ER in the figure memory-kept, and which of these numbers is its own setting.
MEMORIES, OWN_MEMORY = (50, 100, 200, 500, 1000, 2000), 500

# Strengths of EWC in the figure ewc-strengths, which of them is its own setting, and the size of these runs.
STRENGTHS, OWN_STRENGTH, STRENGTHS_AT = (0.0, 1e4, 1e6, 1e8, 1e10, 1e12), 1e8, "teach"
STRENGTH_SCORES = {
    "average, task-aware": lambda r: r.task_aware_average(),
    "newest task, task-aware": lambda r: r.task_aware_accuracy()[-1, -1],
    "average, class-incremental": lambda r: r.average(),
}
STRENGTH_LOOKS = (
    {"color": BLUE, "marker": "o"},
    {"color": GREEN, "marker": "s"},
    {"color": VERMILLION, "marker": "^"},
)


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
        title="Accuracy on each task after each stage",
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
        title="Average accuracy, task after task",
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
        title="Forgetting on split MNIST",
    )


def scenarios_split_mnist():
    """The same weights, class-incremental and task-aware."""
    spec = scenarios(
        "finetune lwf lwf-multihead er joint",
        "The same weights after the last task of split MNIST, tested in two ways: class-incremental, among "
        "all ten classes, and task-aware, among the two classes of the image's own task. A dot is a seed.",
    )
    return replace(spec, title="Class-incremental and task-aware")


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
        title="Confusion of the ten digits, without and with replay",
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
        title="Accuracy on each task over time",
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
        title="Accuracy by the number of images kept",
    )


def ewc_strengths():
    """EWC: what its strength does to old tasks, to the newest one, and to the class-incremental average."""
    rows = [("ewc/split-mnist", None if s == OWN_STRENGTH else {"strength": s}) for s in STRENGTHS]
    records = load_records(rows, STRENGTHS_AT)
    seeds = dict(zip(STRENGTHS, records.values(), strict=True))
    figure, ax = panels(7.6, 3.8)
    for (what, score), look in zip(STRENGTH_SCORES.items(), STRENGTH_LOOKS):
        found = [interval([score(r) for r in one]) for one in seeds.values()]
        means, halves = (100 * np.array(x) for x in zip(*((i.mean, i.half) for i in found)))
        ax.errorbar(range(len(found)), means, halves, capsize=3, label=what, **look)
    said = [f"{s:.0e}" if s else "0" for s in STRENGTHS]
    ax.set_xticks(range(len(said)), said)
    ax.set(xlabel="strength of EWC", ylabel="accuracy after five tasks (%)", ylim=(0, 104))
    ax.legend(frameon=False, loc="upper left", bbox_to_anchor=(1.01, 1))
    plots.stamp(figure, [r for one in seeds.values() for r in one])
    named = {f"strength {name}": one for name, one in zip(said, seeds.values())}
    lines = [f"{what}: {short(named, score)}" for what, score in STRENGTH_SCORES.items()]
    bars = f"{found[0].kind}, n = {found[0].n}"
    return FigureSpec(
        figure,
        "EWC on five tasks of two digits, from no penalty to one that holds nearly every weight. Bars: "
        f"{bars}.",
        f"Three lines over six strengths, in percent with half of a {bars}. {'. '.join(lines)}.",
        records,
        title="The strength of EWC",
    )


# ---- schematics


def penalties_schematic():
    """Where the three kinds of term come from: cross-entropy, a penalty on weights, distillation."""
    boxes = {
        "images": ("images x, labels y\nof task t", "data", 1.0, 2.3, 1.75, 0.75),
        "net": ("network\nweights θ", "trained", 3.6, 2.3, 1.4, 0.75),
        "anchor": ("old weights θ*\nand importance", "frozen", 3.6, 3.9, 1.7, 0.75),
        "teacher": ("old network f*", "frozen", 3.6, 0.7, 1.6, 0.7),
        "penalty": ("penalty on weights\n(EWC, SI, MAS)", "loss", 6.4, 3.9, 1.85, 0.75),
        "ce": ("cross-entropy", "loss", 6.4, 2.3, 1.85, 0.65),
        "distil": ("distillation\n(LwF)", "loss", 6.4, 0.7, 1.85, 0.75),
        "step": ("sum, one step\nof Adam on θ", "step", 8.7, 2.3, 1.5, 0.8),
    }
    arrows = [
        ("images", "net", "x"),
        ("images", "teacher", "x", {"at": (0.15, 0.05)}),
        ("net", "ce", "logits"),
        ("anchor", "penalty"),
        ("net", "penalty", "θ", {"at": (-0.15, 0.05)}),
        ("net", "distil", "logits", {"at": (0.3, 0.02)}),
        ("teacher", "distil", "soft targets", {"at": (-0.05, -0.3)}),
        ("penalty", "step"),
        ("ce", "step"),
        ("distil", "step"),
    ]
    return FigureSpec(
        plots.plot_schematic(boxes, arrows, size=(9.6, 4.4)).figure,
        "One training step. Each method adds one term to the cross-entropy: EWC, SI and MAS a penalty on "
        "weights, LwF distillation.",
        "A data flow from left to right. Images of task t pass through the network with weights theta, "
        "whose logits go into the cross-entropy. Above, the old weights and their importance, both fixed, "
        "and theta go into a penalty on weights: EWC, SI and MAS. Below, the fixed old network answers the "
        "same images with soft targets, which go with the logits into distillation: LwF. The terms add up "
        "to one step of Adam.",
        title="What penalties and distillation add to the loss",
    )


def replay_schematic():
    """Where old images come from: a memory of exemplars, or a generator and the old solver."""
    boxes = {
        "images": ("images x, labels y\nof task t", "data", 1.0, 2.5, 1.75, 0.75),
        "memory": ("memory of old images\n(ER, iCaRL)", "data", 3.6, 4.0, 2.0, 0.75),
        "generator": ("old generator G*\n(DGR)", "frozen", 1.0, 0.9, 1.75, 0.75),
        "solver": ("old solver S*\n(DGR)", "frozen", 3.6, 0.9, 1.5, 0.75),
        "net": ("network", "trained", 6.2, 2.5, 1.3, 0.7),
        "new": ("new generator G\n(DGR)", "trained", 6.2, 0.9, 1.65, 0.75),
        "ce": ("cross-entropy\n(iCaRL: binary)", "loss", 8.6, 2.5, 1.6, 0.75),
        "vae": ("loss of the VAE", "loss", 8.6, 0.9, 1.6, 0.65),
    }
    arrows = [
        ("images", "memory", "reservoir\nor herding", {"dashed": True, "at": (-0.5, 0.05)}),
        ("images", "net", "x, y"),
        ("memory", "net", "old images and labels", {"at": (1.0, 0.0)}),
        ("generator", "solver", "x'"),
        ("solver", "net", "x', y'", {"at": (0.5, 0.0)}),
        ("solver", "new", "x'"),
        ("images", "new", "x", {"at": (-1.2, 0.42)}),
        ("net", "ce", "logits"),
        ("new", "vae"),
    ]
    return FigureSpec(
        plots.plot_schematic(boxes, arrows, size=(9.6, 4.5)).figure,
        "ER and iCaRL keep some of the real images. DGR draws images x' with the old generator and labels "
        "them with the old solver; the network and a new generator learn from x and x'.",
        "A data flow from left to right. In the middle, images and labels of task t go into the network and "
        "its cross-entropy. Above, some of them enter a memory, by reservoir sampling or herding, and the "
        "memory adds old images with their labels to each batch: ER and iCaRL. Below, the fixed old "
        "generator draws images, and the fixed old solver labels them. The network and a new generator, "
        "which has the loss of a variational autoencoder, learn from new and drawn images: DGR.",
        title="Two sources of old images: a memory and a generator",
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
        title="One image of each of the 100 shapes",
    )


def shapes_confusion():
    """Families against siblings: what a network trained on all classes at once gets wrong."""
    records, groups = records_of("shapes-siblings", "joint")
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
        title="Confusion within and between families of shapes",
    )


# ---- schematics


def protocol_schematic():
    """The data flow of class-incremental learning: stream, learner and test, a column a task."""
    columns = {"1": (1.2, "0, 1"), "2": (3.6, "0 to 3"), "3": (6.0, "0 to 5"), "T": (9.0, "all")}
    new = {"1": "0, 1", "2": "2, 3", "3": "4, 5", "T": "8, 9"}
    boxes, arrows, before = {}, [], None
    for t, (x, seen) in columns.items():
        ends = [f"$a_{{{t},{j}}}$" for j in dict.fromkeys("1" + t)]
        scores = ("  " if t in "12" else r" $\dots$ ").join(ends)
        boxes |= {
            f"task {t}": (f"training images\nof task ${t}$: {new[t]}", "data", x, 3.9, 1.9, 0.7),
            f"net {t}": (f"learner\nafter task ${t}$", "trained", x, 2.4, 1.45, 0.7),
            f"test {t}": (f"test images of\nclasses seen: {seen}", "data", x, 0.95, 1.9, 0.7),
            f"row {t}": (scores, "step", x, 0.05, 1.9, 0.42),
        }
        arrows += [
            (f"task {t}", f"net {t}", "learn", {"at": (0.34, -0.1)}),
            (f"net {t}", f"test {t}", "answers", {"at": (0.42, -0.1)}),
            (f"test {t}", f"row {t}"),
        ]
        if before:
            arrows.append((f"net {before}", f"net {t}", r"$\cdots$" if t == "T" else "", {"at": (0, 0.05)}))
        before = t
    notes = [(5.1, 4.55, "When a task is over, its training images are gone.")]
    ax = plots.plot_schematic(boxes, arrows, notes, size=(10.2, 4.8))
    ax.set_ylim(-0.25, 4.8)
    return FigureSpec(
        ax.figure,
        "The learner meets the tasks in order and is tested after each, on the test images of all classes "
        "seen so far. Each test gives one row of the accuracy matrix.",
        "A data flow in columns, one for each task of split-digits. In each column the training images of "
        "one task enter the learner, which then answers the test images of all classes seen so far, without "
        "being given their task; the accuracies form one row of a matrix, a(t, 1) to a(t, t). An arrow leads "
        "from the learner of each column to the next one; training images enter their own column only.",
        title="The protocol of class-incremental learning",
    )


def learners_schematic():
    """What a training step uses in finetuning, ER, LwF and joint training, side by side."""
    net, loss, wide, tall = "network $f$", "cross-entropy", 1.75, 0.6
    boxes, arrows = {}, []
    for name, x in {"finetune": 1.05, "ER": 3.35, "LwF": 6.55, "joint": 9.55}.items():
        images = "images of\nall tasks" if name == "joint" else "images of\ntask $t$"
        boxes |= {
            f"{name} images": (images, "data", x, 3.1, wide - 0.3, tall),
            f"{name} net": (net, "trained", x, 1.8, wide - 0.3, tall),
            f"{name} loss": (loss, "loss", x, 0.5, wide - 0.3, tall),
        }
        arrows += [(f"{name} images", f"{name} net"), (f"{name} net", f"{name} loss")]
    boxes |= {
        "memory": ("memory\nof images", "data", 5.2, 3.1, 0.9, tall),
        "teacher": ("teacher $f^*$", "frozen", 7.95, 1.8, 1.15, tall),
        "old": ("distillation", "loss", 7.95, 0.5, 1.15, tall),
    }
    arrows += [
        ("ER images", "memory", "", {"dashed": True}),
        ("memory", "ER net"),
        ("LwF images", "teacher"),
        ("teacher", "old"),
        ("LwF net", "old"),
    ]
    notes = [(1.05, 3.75, "Finetune"), (3.35, 3.75, "ER"), (6.55, 3.75, "LwF"), (9.55, 3.75, "Joint")]
    return FigureSpec(
        plots.plot_schematic(boxes, arrows, notes, size=(10.6, 4.0)).figure,
        "What one training step uses. Finetune and LwF see images of the current task only, ER also those in "
        "its memory (the dashed arrow fills it), joint training those of all tasks at once.",
        "Four data flows side by side, each from images through the network to the cross-entropy. Finetune: "
        "images of task t. ER: the same, and images from a memory that the images of the task fill. LwF: "
        "images of task t also enter a fixed teacher; a distillation loss compares its outputs with those "
        "of the network. Joint: images of all tasks.",
        title="What four methods learn from",
    )


FIGURES = {
    "accuracy-matrices": accuracy_matrices,
    "averages-split-mnist": averages_split_mnist,
    "forgetting-split-mnist": forgetting_split_mnist,
    "scenarios-split-mnist": scenarios_split_mnist,
    "confusion-finetune-er": confusion_finetune_er,
    "tasks-over-time": tasks_over_time,
    "memory-kept": memory_kept,
    "ewc-strengths": ewc_strengths,
    "penalties-schematic": penalties_schematic,
    "replay-schematic": replay_schematic,
    "shapes-samples": shapes_samples,
    "shapes-confusion": shapes_confusion,
    "protocol-schematic": protocol_schematic,
    "learners-schematic": learners_schematic,
}
