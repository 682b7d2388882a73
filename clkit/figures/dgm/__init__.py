"""Figures of DGM (Ostapenko et al. 2019): its data flow, figures 2 to 5, ablations; tables in tables.py."""

import numpy as np

from clkit import plots
from clkit.figures.dgm import full_size, runs, tables
from clkit.figures.dgm.runs import (
    MEANING,
    MNIST,
    OURS,
    SCORED,
    after_classes,
    available,
    imagenet,
    label_of,
    recorded,
    scale,
    with_images,
)
from clkit.figures.picture import (
    FigureSpec,
    available_records,
    labelled_records,
    left_out,
    on_record,
    panels,
    percent,
    short,
)
from clkit.papers.published import one
from clkit.result import Result, by_epoch, chosen

REAL = ("dgmw-r25", "dgmw-r50", "dgmw-r75")  # the band of figure 2

# Figure 4: DGMa from as many neurons as DGMw has at the start, shown if it has a record.
ALIKE = ("DGMa, started like DGMw", f"dgma/{MNIST}", {"g_width": 6})

MASKS_OF = (1, 0)  # figure 3b: (task, layer), from 0

COURSES = ("dgmw", "mergan", "dgr-gan", "ewc-m")

# Variants of DGMw on MNIST: (label, experiment, overrides); the others vary the first.
_OWN = f"dgmw/{MNIST}"
ABLATIONS = (
    ("DGMw", _OWN, None),
    ("no growth", _OWN, {"expand": "none"}),
    ("masks cost nothing", _OWN, {"sparsity": 0.0}),
    ("soft masks in replay", _OWN, {"hard": False}),
    ("no masks: the generator is trained on", _OWN, {"masked": False}),
    ("no replay", f"dgm-no-replay/{MNIST}", None),
)


# ---- the data flow

_BOXES = {  # name: (text, kind, x, y, width, height)
    "noise": ("noise and class, $z$", "data", 1.15, 4.6, 1.8, 0.6),
    "old": ("generator with the masks\nkept of tasks before $t$", "frozen", 3.95, 5.55, 2.5, 0.75),
    "new": ("generator with\nthe mask of task $t$", "trained", 3.95, 3.6, 2.5, 0.75),
    "replayed": ("old images, drawn\nonce a task", "data", 6.75, 5.55, 1.9, 0.75),
    "real": ("real images\nof task $t$", "data", 6.75, 4.58, 1.9, 0.7),
    "fake": ("images of task $t$,\ngenerated", "data", 6.75, 3.6, 1.9, 0.75),
    "network": ("network $D$:\nclassifier and critic", "trained", 9.7, 4.58, 1.95, 0.8),
    "ce": ("cross-entropy", "loss", 12.1, 5.3, 1.6, 0.6),
    "wgan": ("critic's loss\nwith penalty", "loss", 12.1, 3.9, 1.6, 0.75),
    "cost": ("cost of places that\nno task has reserved", "loss", 7.1, 1.2, 2.1, 0.75),
    "end": ("end of the task: mask made\nhard, kept and reserved", "step", 3.95, 1.2, 2.55, 0.75),
    "grow": ("layers grow by what\nis newly reserved", "step", 1.15, 2.4, 2.0, 0.75),
}
_ARROWS = (
    ("noise", "old"),
    ("noise", "new"),
    ("old", "replayed"),
    ("new", "fake"),
    ("replayed", "network", "classifier", {"at": (0.4, 0.08)}),
    ("real", "network", "both", {"at": (-0.05, 0.02)}),
    ("fake", "network", "critic", {"at": (0.3, -0.28)}),
    ("network", "ce"),
    ("network", "wgan"),
    (
        "wgan",
        "new",
        "gradient; none for weights reserved by earlier tasks",
        {"dashed": True, "curve": -0.28, "at": (0.4, -0.3)},
    ),
    ("cost", "new", "gradient", {"dashed": True, "at": (-0.42, -0.3)}),
    ("new", "end"),
    ("end", "grow"),
    ("grow", "new", "next task", {"at": (-0.4, 0.08)}),
)


def schematic():
    """The data flow of one task, from the replay of old images to the growth of the generator."""
    return FigureSpec(
        plots.plot_schematic(_BOXES, _ARROWS, size=(13.1, 6.2)).figure,
        "One task of DGM. One generator holds all tasks; a mask chooses the weights (DGMw) or channels "
        "(DGMa) of each. Dashed arrows are gradients that change the generator and the mask of the task.",
        "A data flow from left to right. Noise and class enter the generator twice. With the masks kept of "
        "earlier tasks, which are frozen, it draws old images once a task; with the mask of task t, which is "
        "trained, it draws images of task t. The network D is classifier and critic: the classifier learns "
        "real images of task t and the old images with a cross-entropy, the critic compares real and "
        "generated images of task t. The critic's gradient trains the generator and the mask, except weights "
        "that earlier tasks reserved, and the mask pays for places that are not yet reserved. At the end of "
        "the task the mask is made hard, kept and reserved, and the layers grow by what is newly reserved.",
        title="The data flow of DGM in one task",
    )


# ---- which epoch is scored


def epochs():
    """Accuracy of DGMw after each epoch, with the last epoch of each task and the one best on validation."""
    records, groups, _ = recorded(OURS[:1], needed=None)
    seeds = groups[OURS[0]]
    first = seeds[0]
    ax = plots.plot_epochs(first, title="")
    test, val = by_epoch(first), by_epoch(first, "validation")
    apart = 100 * np.abs(np.concatenate(test) - np.concatenate(val)).mean()
    ends = ", ".join(f"{100 * stage[-1]:.1f}" for stage in test)
    best = ", ".join(f"{100 * score:.1f} (epoch {epoch + 1})" for epoch, score in chosen(first))
    return FigureSpec(
        ax.figure,
        "Average accuracy of DGMw over the classes seen after each epoch of each task of MNIST, seed "
        f"{first.about['seed']}. Our score is that of the last epoch. The square is the epoch that is best "
        f"on real validation images of all classes seen, the score of the paper's released code. {scale()}",
        f"Jagged curves of accuracy over epochs, one for each of {len(test)} tasks, on test images and on "
        f"validation images, which are {apart:.1f} points apart on average. In the last task accuracy on "
        f"test images lies between {100 * test[-1].min():.1f} and {100 * test[-1].max():.1f} %. In percent "
        f"by task, after the last epoch: {ends}; at the epoch best on validation: {best}.",
        records,
        title="Accuracy after every epoch",
    )


# ---- figure 2


def bounds():
    """Accuracy over tasks between joint training and no replay (figure 2)."""
    records, groups, size = imagenet(("joint", "dgmw-r0", *REAL))
    if {"joint", "dgmw-r0"} <= groups.keys():
        more, none, _ = available([("dgm-no-replay", f"dgm-no-replay/{runs.IMAGENET}", None)], [size])
        records, lines = records | more, {"joint-d": groups["joint"], "dgmw": groups["dgmw-r0"], **none}
        where, top, score, note = f"ImageNet-50, size {size}", 5, lambda r: r.top(5)[-1], ""
    else:
        groups, (records, lines, absent) = {}, recorded(("joint-d", *OURS, "dgm-no-replay"))
        where, top, score = "MNIST, digit by digit", 1, Result.average
        note = (
            " The paper shows top-5 accuracy on ImageNet-50, for which there is no such record. "
            f"{scale()}{absent}"
        )
    ax = plots.plot_averages(lines, top=top)
    real = [100 * np.mean([r.top(5) for r in groups[n]], axis=0) for n in REAL if n in groups]
    if real:
        look = {"facecolor": "none", "edgecolor": plots.style("dgmw")["color"], "hatch": "////"}
        tasks, label = np.arange(1, len(real[0]) + 1), "DGMw with 25 to 75 % real images"
        ax.fill_between(tasks, np.min(real, axis=0), np.max(real, axis=0), label=label, **look)
        ax.legend(frameon=False, fontsize=9, loc="upper left", bbox_to_anchor=(1.01, 1))
    ends = "; ".join(f"{label_of(m)} {percent(s, score)}" for m, s in lines.items())
    return FigureSpec(
        ax.figure,
        f"Accuracy over the classes seen on {where}: the classifier trained on all real images above, "
        f"without replay below.{note}",
        f"Curves of accuracy over tasks. After the last task: {ends}.",
        records,
        title="Between joint training and no replay",
    )


# ---- figures 3 and 4


def reuse():
    """Newly reserved and reused places of each task's mask, by layer (figure 3a)."""
    records, groups, _ = recorded(("dgma",), needed=None)
    seeds = groups["dgma"]
    layers = [None, *range(int(max(seeds[0].trace["capacity"]["layer"])) + 1)]
    figure, axes = panels(3.1 * len(layers), 3.4, len(layers), sharey=True)
    parts = []
    for ax, layer in zip(axes, layers):
        name = "all layers" if layer is None else f"layer {layer + 1}"
        plots.plot_reuse(seeds, layer, legend=False, title=name, ax=ax)
        ax.set_ylabel("" if len(parts) else ax.get_ylabel())
        shares = np.mean([plots.reuse(r, layer)[1] for r in seeds], axis=0)
        parts.append(f"{name} {', '.join('-' if np.isnan(s) else f'{100 * s:.0f}' for s in shares)}")
    axes[0].legend(frameon=False, fontsize=9)
    plots.stamp(figure, seeds)
    return FigureSpec(
        figure,
        "Of the channels that DGMa's mask of a task uses, how many are newly reserved and how many were "
        f"reserved before; {plots.kind(seeds)}. Both shares sum to 100 %, and nothing can be reused in task "
        f"1. {scale()}",
        f"Panels of two mirrored curves over tasks. Reused, in percent by task: {'; '.join(parts)}.",
        records,
        title="New and reused channels",
    )


def mask_course():
    """Every mask value of one layer over the epochs of a task (figure 3b)."""
    records, groups, _ = recorded(("dgma",), needed=None)
    seeds, (task, layer) = groups["dgma"], MASKS_OF
    ax = plots.plot_mask_course(seeds, task, layer)
    first = next(r for r in seeds if "masks" in r.trace)
    values = plots.mask_course(first, task, layer)
    mean, hard = values.mean(axis=1), ((values < 0.01) | (values > 0.99)).mean(axis=1)
    settled = int(np.argmax(hard > 0.95)) if (hard > 0.95).any() else None
    when = "never" if settled is None else f"from epoch {settled} on"
    return FigureSpec(
        ax.figure,
        f"The mask of every channel of layer {layer + 1} while DGMa learns task {task + 1} of MNIST, at the "
        "scale of each epoch; the bold line is their mean, the occupation of the layer. "
        f"Seed {first.about['seed']}. {scale()}",
        f"{values.shape[1]} curves of mask values over {len(values)} epochs, all 0.5 at the start. Their "
        f"mean falls to {mean.min():.2f} in epoch {mean.argmin()} and ends at {mean[-1]:.2f}; "
        f"{(values[-1] > 0.5).sum()} channels end above a half. More than 95 % of the values are within "
        f"0.01 of 0 or 1 {when}.",
        records,
        title="The masks in the course of a task",
    )


def growth():
    """Neurons over tasks, DGMa and DGMw, beside linear growth (figure 4)."""
    records, groups, absent = recorded(OURS)
    if on_record(*ALIKE[1:], preset=runs.SIZE):
        more, alike = labelled_records([ALIKE], preset=runs.SIZE)
        records, groups = records | more, groups | alike
    figure, axes = panels(11.6, 3.9, 2)
    for n, ax in enumerate(axes):
        plots.plot_neurons(groups, relative=bool(n), ax=ax)
    plots.stamp(figure, groups)
    parts = []
    for method, seeds in groups.items():
        units = np.mean([r.trace["growth"]["units"] for r in seeds], axis=0)
        start, tasks = seeds[0].trace["growth"]["start"][0], len(units)
        parts.append(
            f"{label_of(method)} {', '.join(f'{u:.0f}' for u in units)}; linear {start * tasks} at the end"
        )
    reached = "; ".join(f"{label_of(m)} {percent(s, Result.average)}" for m, s in groups.items())
    said = {m: one(paper="dgm", table="Figure 4", method=m, metric=after_classes(10)).text for m in OURS}
    return FigureSpec(
        figure,
        "Neurons of the masked layers while each task of MNIST is learned, and as multiples of the start. "
        f"Dotted: as many for every task as at the start. Accuracy of these runs: {reached}; of the paper's: "
        f"DGMw {said['dgmw']} and DGMa {said['dgma']}. {scale()}{absent}",
        f"Rising curves over tasks, {plots.kind(groups)}. Neurons by task: {'. '.join(parts)}.",
        records,
        title="Neurons over tasks",
    )


# ---- generated images: figure 5


def samples():
    """Generated images of every class after the last task, DGMw beside DGMa (figure 5)."""
    records, groups, absent = recorded(OURS)
    figure, axes = panels(5.0 * len(groups), 5.6, len(groups), squeeze=False)
    for ax, seeds in zip(axes[0], groups.values()):
        plots.plot_samples(seeds, ax=ax)
    plots.stamp(figure, {m: seeds[0] for m, seeds in groups.items()})
    last = {label_of(m): [plots.recognised(r)[-1] for r in seeds] for m, seeds in groups.items()}
    return FigureSpec(
        figure,
        "Images that the generator draws after the last task of MNIST, a row for each digit; the first seed. "
        f"{scale()}{absent}",
        f"Grids of grey digits, eight of each class. The judge recognises, in percent over all seeds "
        f"({plots.kind(last)}): {short(last, float)}.",
        records,
        title="Generated images after the last task",
    )


def sample_course():
    """One generated image of each class after every task: DGMw, and generators that are trained on."""
    records, groups, absent = recorded(COURSES)
    half = -(-len(groups) // 2)
    figure, axes = panels(
        5.6 * half, 5.5 * -(-len(groups) // half), half, -(-len(groups) // half), squeeze=False
    )
    parts = []
    for ax, (method, seeds) in zip(axes.flat, groups.items()):
        plots.plot_sample_course(seeds, ax=ax)
        same = plots.unchanged(seeds[0])
        parts.append(f"{label_of(method)} {sum(same.values())} of {len(same)}")
    for ax in axes.flat[len(groups) :]:
        ax.remove()
    figure.get_layout_engine().set(w_pad=0.3)
    plots.stamp(figure, {m: seeds[0] for m, seeds in groups.items()})
    return FigureSpec(
        figure,
        "One image of each digit (rows) after each task of MNIST since it was learned (columns), always "
        "from the same noise; the first seed. DGM draws an old image with the weights and masks of its "
        f"task, which never change; the other generators are trained on. {scale()}{absent}",
        "Triangular grids of grey digits. Classes learned before the last task whose eight images are "
        f"identical, bit for bit, after every later task: {'; '.join(parts)}.",
        records,
        title="The same noise after every task",
    )


def generated_accuracy():
    """Share of generated images that the judge recognises over tasks, and how it changes for old classes."""
    records, groups, absent = recorded(SCORED["generated"])
    figure, axes = panels(12.6, 4.0, 2)
    for ax, change in zip(axes, (False, True)):
        plots.plot_generated(groups, change=change, legend=change, ax=ax)
    judge = axes[0].lines[-1]
    axes[0].legend(handles=[judge], frameon=False, fontsize=9, loc="lower left")
    plots.stamp(figure, groups)
    shown = {label_of(m): seeds for m, seeds in groups.items()}
    return FigureSpec(
        figure,
        "What a fixed judge, trained on all real training images, recognises of 1,000 generated images of "
        "each class seen so far. Right: how far this share has moved since each earlier class was learned, "
        f"mean over these classes. {plots.kind(groups).capitalize()}. {scale()}{absent}",
        "Two panels of curves over tasks. Recognised after the last task, in percent: "
        f"{short(shown, lambda r: plots.recognised(r)[-1])}. Change since learned, in points: "
        f"{short(shown, lambda r: plots.drift(r)[-1])}.",
        records,
        title="What a judge recognises over tasks",
    )


# ---- variants


def ablations():
    """DGMw with one mechanism left out at a time: both scores, and the size of the generator."""
    records, groups, absent = available_records(ABLATIONS, needed=ABLATIONS[0][0], preset=runs.SIZE)
    drawn = {label: [plots.recognised(r)[-1] for r in s] for label, s in with_images(groups).items()}
    tested = {label: [r.average() for r in seeds] for label, seeds in groups.items()}
    figure, axes = panels(15.5, 2.0 + 0.42 * len(groups), 3)
    for ax, (values, score) in zip(axes, ((tested, "test"), (drawn, "generated"))):
        plots.plot_ablation(values, baseline=ABLATIONS[0][0], ax=ax)
        ax.get_legend().remove()
        ax.set_title(MEANING[score], fontsize=11)
        ax.set_xlabel(f"after the last task (%)\n{plots.kind(groups)}")
        ax.set_xlim(0, 100)
    plots.plot_weights(groups, ax=axes[2])
    for ax in axes[1:]:
        ax.set_yticklabels([])
    plots.stamp(figure, groups)
    sizes = "; ".join(
        f"{label} {np.mean([plots.weights(r)[1] / plots.weights(r)[0] for r in seeds]):.2f}"
        for label, seeds in groups.items()
    )
    return FigureSpec(
        figure,
        "DGMw on MNIST with one mechanism left out at a time: the classifier on real test images, the "
        "judge on generated images, and the weights of the masked layers as multiples of the start (dots: "
        f"before the growth that ends the last task; squares: after it). {scale()}{left_out(absent)}",
        f"Three panels with a dot for each variant, {plots.kind(groups)}. Classifier, in percent: "
        f"{short(tested, float)}. Judge, in percent: {short(drawn, float)}. Multiple of the weights at the "
        f"start: {sizes}.",
        records,
        title="DGMw without one of its mechanisms",
    )


FIGURES = {
    "dgm-schematic": schematic,
    "dgm-epochs": epochs,
    "dgm-fig2-bounds": bounds,
    "dgm-fig3a-reuse": reuse,
    "dgm-fig3b-masks": mask_course,
    "dgm-fig4-growth": growth,
    "dgm-fig5-samples": samples,
    "dgm-samples-over-time": sample_course,
    "dgm-generated": generated_accuracy,
    "dgm-ablations": ablations,
    "dgm-full-size": full_size.full_size,
} | tables.FIGURES
