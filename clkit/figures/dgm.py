"""Figures of DGM (Ostapenko et al. 2019): its data flow, tables 1 to 4, figures 2 to 5, and ablations.

Two scores are kept apart: the accuracy of the classifier on real test images, and the share of generated
images that a fixed judge recognises. A printed number stands beside the score that it measures.
"""

from functools import partial

import numpy as np

from clkit import experiments, papers, plots
from clkit.figures.picture import (
    FigureSpec,
    available_records,
    labelled_records,
    left_out,
    mark_printed,
    on_record,
    panels,
    percent,
    printed_handles,
    short,
)
from clkit.papers.published import one, published
from clkit.result import Result

MNIST, IMAGENET = "split-mnist-10", "imagenet50"
SIZE = "laptop"  # of the records of MNIST
SIZES = ("paper", SIZE)  # of the records of the other benchmarks, the first that there is
PRINTED_AS = {
    MNIST: "mnist-1x10",
    "split-svhn-10": "svhn-1x10",
    "split-cifar10-10": "cifar10-1x10",
    IMAGENET: "imagenet50-5x10",
}
OURS = ("dgmw", "dgma")

# Table 1: {score: {method: its name in print, or None}}. A printed number stands beside the score that it is.
SCORED = {
    "test": {
        "joint-d": "joint",
        "dgmw": "dgmw",
        "dgma": "dgma",
        "mergan": None,
        "mergan-align": None,
        "dgr-gan": None,
        "ewc-m": None,
        "dgm-no-replay": None,
    },
    "generated": {
        "dgmw": None,
        "dgma": None,
        "mergan": "mergan",
        "mergan-align": None,
        "dgr-gan": "dgr",
        "ewc-m": "ewc-m",
    },
}
QUOTED = {"icarl-s": "iCaRL-S", "ewc-s": "EWC-S", "rwalk-s": "RWalk-S", "pi-s": "PI-S"}  # real exemplars
SAID = {
    "joint": "Joint training",
    "ewc-m": "EWC-M",
    "dgr": "DGR",
    "mergan": "MeRGAN",
    "dgmw": "DGMw",
    "dgma": "DGMa",
}
MEANING = {"test": "classifier on real test images", "generated": "judge on generated images"}

# Table 2: {name in print: (label, experiment on ImageNet-50, overrides)}.
TABLE_2 = {
    "joint": ("Joint training", "joint-d", None),
    "icarl-k1000": ("iCaRL, K = 1000", "icarl", {"memory": 1000}),
    "icarl-k2000": ("iCaRL, K = 2000", "icarl", {"memory": 2000}),
    "dgmw-k1000": ("DGMw, K = 1000", "dgmw", {"real_budget": 1000}),
    "dgmw-k2000": ("DGMw, K = 2000", "dgmw", {"real_budget": 2000}),
    "dgmw-r75": ("DGMw, r = 0.75", "dgmw", {"real_share": 0.75}),
    "dgmw-r50": ("DGMw, r = 0.5", "dgmw", {"real_share": 0.5}),
    "dgmw-r25": ("DGMw, r = 0.25", "dgmw", {"real_share": 0.25}),
    "dgmw-r10": ("DGMw, r = 0.1", "dgmw", {"real_share": 0.1}),
    "dgmw-r0": ("DGMw, r = 0", "dgmw", None),
}
REAL = ("dgmw-r25", "dgmw-r50", "dgmw-r75")  # the band of figure 2

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

# Figure 4: DGMa from as many neurons as DGMw has at the start, shown if it has a record.
ALIKE = ("DGMa, started like DGMw", f"dgma/{MNIST}", {"g_width": 6})

MASKS_OF = (1, 0)  # figure 3b: (task, layer), from 0


def _label(method):
    return plots.style(method)["label"]


def _of(methods, needed="dgmw"):
    """(records, {method: results}, a sentence on absent methods) of methods on MNIST that have records."""
    rows = [(m, f"{m}/{MNIST}", None) for m in methods]
    records, groups, absent = available_records(rows, needed, preset=SIZE)
    return records, groups, left_out([_label(m) for m in absent])


def with_images(groups):
    """The groups with the trace table "generated"."""
    return {m: seeds for m, seeds in groups.items() if "generated" in seeds[0].trace}


def scale():
    """The size of the records of MNIST and the paper's, in words."""
    dgm, words = papers.paper_of("dgmw"), []
    for size in (SIZE, "paper"):
        row, settings = papers.benchmark(MNIST, size), dgm.settings_of("dgmw", MNIST, size)
        most, side, epochs = row.stream.get("max_per_class"), row.options["side"], settings.get("epochs", 101)
        images = f"{most} training images of each digit" if most else "all training images"
        words.append(f"{images}, {side}x{side} pixels, {epochs} epochs a task")
    return f"Size {SIZE}: {words[0]}, smaller networks; the paper's is {words[1]}."


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


# ---- table 1


def _score(score, classes):
    """The function of a Result for a score in SCORED after so many classes."""
    if score == "test":
        return partial(Result.average_after, classes=classes)
    return partial(plots.recognised_after, classes=classes)


def _printed(method, metric, benchmark, table="Table 1"):
    """The Published of a method in a table, or None."""
    wanted = {"paper": "dgm", "table": table, "benchmark": benchmark, "metric": metric}
    return next((p for p in published(**wanted) if p.method == method), None)


def _after(classes, what="average accuracy"):
    return f"{what} after {classes} classes"


def table_1():
    """Table 1 on MNIST: both scores after five and ten classes, beside the printed numbers of each."""
    records, groups, absent = _of(SCORED["test"])
    shown = {
        "test": groups,
        "generated": {m: s for m, s in with_images(groups).items() if m in SCORED["generated"]},
    }
    shown = {score: groups for score, groups in shown.items() if groups}
    heights = [len(g) + (len(QUOTED) if score == "test" else 0) for score, g in shown.items()]
    figure, axes = panels(
        12.4, 2.6 + 0.36 * sum(heights), 2, len(shown), squeeze=False, height_ratios=heights
    )
    numbers = []
    for row, (score, mine) in zip(axes, shown.items()):
        for ax, classes in zip(row, (5, 10)):
            numbers.append(_panel_1(ax, score, mine, classes))
        row[1].set_yticklabels([])
    figure.legend(
        handles=printed_handles("printed"), ncols=3, loc="outside upper center", frameon=False, fontsize=9
    )
    plots.stamp(figure, groups)
    return FigureSpec(
        figure,
        "MNIST digit by digit: the two scores after five and ten tasks. Above, the classifier on real test "
        "images; below, the judge on generated images. Never rank one against the other: the paper's rows of "
        "EWC-M, DGR and MeRGAN are quoted from a source that scores generated images, its own rows score the "
        f"classifier. Rows ending in -S are quoted and keep real images. {scale()}{absent}",
        f"Four panels with a dot for each method; in percent, {plots.kind(groups)}. {' '.join(numbers)}",
        records,
        title="Table 1 of the paper: MNIST",
    )


def _panel_1(ax, score, groups, classes):
    """Draw a panel of table 1; its numbers in words."""
    metric, ours = (
        _after(classes),
        {_label(m): [_score(score, classes)(r) for r in s] for m, s in groups.items()},
    )
    names = {_label(m): SCORED[score][m] for m in groups}
    if score == "test":
        names |= {label: name for name, label in QUOTED.items()}
    found = {label: _printed(name, metric, PRINTED_AS[MNIST]) for label, name in names.items() if name}
    found = {label: p for label, p in found.items() if p}
    plots.plot_ablation(ours, ax=ax)
    mark_printed(ax, list(names), found, beside=34)
    ax.set_title(f"{MEANING[score]}, {classes} classes", fontsize=11)
    ax.set_xlabel(f"average over the classes seen (%)\n{plots.kind(groups)}")
    theirs = "; ".join(f"{label} {p.text}" for label, p in found.items())
    title = f"{MEANING[score].capitalize()}, {classes} classes"
    return f"{title}: {short(ours, float)}. Printed: {theirs or 'none'}."


COLUMNS = {  # of table 1: {benchmark: (title, classes)}
    MNIST: ("MNIST", (5, 10)),
    "split-svhn-10": ("SVHN", (5, 10)),
    "split-cifar10-10": ("CIFAR-10", (5, 10)),
    IMAGENET: ("ImageNet-50", (30, 50)),
}


def table_1_all():
    """All columns of table 1 as printed, with our scores where there are records."""
    figure, axes = panels(13.6, 5.4, len(COLUMNS), 2, height_ratios=(4, 3))
    records, said, ours = {}, [], {}
    for n, (benchmark, (title, classes)) in enumerate(COLUMNS.items()):
        every = [(m, f"{m}/{benchmark}", None) for m in SCORED["test"]]
        more, groups, _ = _available(every, (SIZE,) if benchmark == MNIST else SIZES)
        records, ours = records | more, ours | {f"{m} {benchmark}": s for m, s in groups.items()}
        for ax, score in zip(axes[:, n], SCORED):
            names = {p: m for m, p in SCORED[score].items() if p}
            rows = {SAID[p]: _pair(score, benchmark, classes, p, groups.get(m)) for p, m in names.items()}
            rows = {label: row for label, row in rows.items() if row[0] or any(row[1])}
            if not rows:
                ax.remove()
                continue
            plots.plot_two_stages(
                rows,
                ("5 classes (ImageNet: 30)", "10 classes (ImageNet: 50)"),
                title=title,
                legend=False,
                ax=ax,
            )
            said.append(f"{title}, {MEANING[score]}: {_two_in_words(rows)}.")
    for ax, score in zip(axes[:, 0], SCORED):
        ax.set_ylabel(MEANING[score].replace(" on ", "\non "), fontsize=10)
    _legend_above(figure, axes[0, 0])
    plots.stamp(figure, ours or "printed numbers only")
    return FigureSpec(
        figure,
        "The paper's Table 1, with our scores where there is a record. Above, what the paper measures "
        "with its classifier on real test images; below, what it quotes from a source that scores "
        "generated images. The paper does not say of which kind its joint training is on MNIST and SVHN. "
        f"{scale()}",
        f"Panels of pairs of points, in percent after the earlier and the later stage. {' '.join(said)}",
        records,
        {} if records else {"printed": "Table 1"},
        title="Table 1 of the paper: all data sets",
    )


def _legend_above(figure, ax):
    """The legend of some axes, above the whole figure."""
    handles, labels = ax.get_legend_handles_labels()
    look = {"loc": "outside upper center", "frameon": False, "fontsize": 9}
    figure.legend(handles, labels, ncols=len(labels), **look)


def _available(rows, sizes):
    """(records, {label: results}, size) of rows in the first size with records of any; ({}, {}, None) else.

    rows: [(label, experiment name, overrides)]; experiments that do not exist are left out.
    """
    rows = [row for row in rows if row[1] in experiments.names()]
    for size in sizes:
        there = [row for row in rows if on_record(*row[1:], preset=size)]
        if there:
            return *labelled_records(there, preset=size), size
    return {}, {}, None


def _pair(score, benchmark, classes, name, seeds):
    """(ours, printed) of a row of plot_two_stages."""
    there = [_printed(name, _after(k), PRINTED_AS[benchmark]) for k in classes]
    if not seeds or (score == "generated" and not with_images({"": seeds})):
        return [], [p and p.value for p in there]
    return [tuple(_score(score, k)(r) for k in classes) for r in seeds], [p and p.value for p in there]


def _two_in_words(rows):
    """The rows of plot_two_stages in words."""
    parts = []
    for label, (ours, printed) in rows.items():
        mine = " to ".join(f"{100 * np.mean(v):.1f}" for v in zip(*ours))
        theirs = " to ".join(f"{p:.2f}" for p in printed if p is not None)
        parts.append(f"{label}" + (f" {mine}" if mine else "") + (f" (printed {theirs})" if theirs else ""))
    return "; ".join(parts)


# ---- ImageNet-50: table 2 and figure 2


def _imagenet(names):
    """`_available` for rows of TABLE_2 on ImageNet-50."""
    rows = [(n, f"{TABLE_2[n][1]}/{IMAGENET}", TABLE_2[n][2]) for n in names]
    return _available(rows, SIZES)


def table_2():
    """Table 2: DGMw with stored real images beside iCaRL on ImageNet-50, as printed, and ours if recorded."""
    records, groups, size = _imagenet(TABLE_2)
    figure, axes = panels(11.6, 4.9, 2, sharey=True)
    said = []
    for ax, (title, metric, score) in zip(
        axes,
        (
            ("top-1", "average accuracy", lambda r, k: r.average_after(k)),
            ("top-5", "top-5 accuracy", lambda r, k: dict(zip(r.seen.tolist(), r.top(5))).get(k, np.nan)),
        ),
    ):
        rows = {}
        for name, (label, *_) in TABLE_2.items():
            there = [
                _printed(name, _after(k, metric), PRINTED_AS[IMAGENET], "Table 2").value for k in (30, 50)
            ]
            rows[label] = ([tuple(score(r, k) for k in (30, 50)) for r in groups.get(name, ())], there)
        plots.plot_two_stages(rows, ("30 classes", "50 classes"), title=title, legend=ax is axes[1], ax=ax)
        said.append(f"{title.capitalize()}, after 30 and 50 classes: {_two_in_words(rows)}.")
    note = (
        f"Ours at size {size}, {plots.kind(groups)}."
        if groups
        else "There is no record of ours: all numbers are printed ones."
    )
    plots.stamp(figure, groups or "printed numbers only")
    return FigureSpec(
        figure,
        "ImageNet-50: DGMw that keeps some real images, as a share r of those replayed or a number K over "
        f"all classes, beside iCaRL and joint training. {note}",
        f"Two panels of pairs of points. {' '.join(said)}",
        records,
        {} if records else {"printed": "Table 2"},
        title="Table 2 of the paper: real images in replay",
    )


def bounds():
    """Accuracy over tasks between joint training and no replay (figure 2)."""
    records, groups, size = _imagenet(("joint", "dgmw-r0", *REAL))
    if {"joint", "dgmw-r0"} <= groups.keys():
        more, none, _ = _available([("dgm-no-replay", f"dgm-no-replay/{IMAGENET}", None)], [size])
        records, lines = records | more, {"joint-d": groups["joint"], "dgmw": groups["dgmw-r0"], **none}
        where, top, score, note = f"ImageNet-50, size {size}", 5, lambda r: r.top(5)[-1], ""
    else:
        groups, (records, lines, absent) = {}, _of(("joint-d", *OURS, "dgm-no-replay"))
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
    ends = "; ".join(f"{_label(m)} {percent(s, score)}" for m, s in lines.items())
    return FigureSpec(
        ax.figure,
        f"Accuracy over the classes seen on {where}: the classifier trained on all real images above, "
        f"without replay below.{note}",
        f"Curves of accuracy over tasks. After the last task: {ends}.",
        records,
        title="Between joint training and no replay",
    )


# ---- figure 3


def reuse():
    """Newly reserved and reused places of each task's mask, by layer (figure 3a)."""
    records, groups, _ = _of(("dgma",), needed=None)
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
    records, groups, _ = _of(("dgma",), needed=None)
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


# ---- growth: figure 4, tables 3 and 4


def growth():
    """Neurons over tasks, DGMa and DGMw, beside linear growth (figure 4)."""
    records, groups, absent = _of(OURS)
    if on_record(*ALIKE[1:], preset=SIZE):
        more, alike = labelled_records([ALIKE], preset=SIZE)
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
            f"{_label(method)} {', '.join(f'{u:.0f}' for u in units)}; linear {start * tasks} at the end"
        )
    runs = "; ".join(f"{_label(m)} {percent(s, Result.average)}" for m, s in groups.items())
    said = {m: one(paper="dgm", table="Figure 4", method=m, metric=_after(10)).text for m in OURS}
    return FigureSpec(
        figure,
        "Neurons of the masked layers while each task of MNIST is learned, and as multiples of the start. "
        f"Dotted: as many for every task as at the start. Accuracy of these runs: {runs}; of the paper's: "
        f"DGMw {said['dgmw']} and DGMa {said['dgma']}. {scale()}{absent}",
        f"Rising curves over tasks, {plots.kind(groups)}. Neurons by task: {'. '.join(parts)}.",
        records,
        title="Neurons over tasks",
    )


def table_3():
    """Table 3 on MNIST: weights at the start and after the last task, and the accuracy."""
    records, groups, absent = _of((*OURS, "mergan"))
    sized = {_label(m): seeds for m, seeds in groups.items() if "growth" in seeds[0].trace}
    metric, name = "generator parameters {}", PRINTED_AS[MNIST]
    said = [_printed("dgmw", metric.format(w), name, "Table 3") for w in ("at the start", "after 10 classes")]
    multiple = said[1].value / said[0].value
    figure, axes = panels(13.2, 2.4 + 0.42 * len(groups), 2)
    plots.plot_weights(sized, {_label("dgmw"): multiple}, legend=False, ax=axes[0])
    shown = {_label(m): seeds for m, seeds in groups.items()}
    printed = {_label(m): _printed(m, _after(10), name, "Table 3") for m in groups}
    plots.plot_ablation(shown, ax=axes[1])
    # Table 3 repeats Table 1, where MeRGAN's number scores generated images.
    mark_printed(
        axes[1], list(shown), {m: p for m, p in printed.items() if p and m != _label("mergan")}, beside=34
    )
    squares = [one for one in axes[0].lines if one.get_marker() == "s"][:1]
    handles = [*printed_handles("printed"), *squares]
    figure.legend(handles=handles, ncols=4, loc="outside upper center", frameon=False, fontsize=9)
    plots.stamp(figure, groups)
    fixed = ""
    if "mergan" in groups:
        held = groups["mergan"][0].memory_bytes["generators"]
        fixed = (
            f" MeRGAN's generator keeps its {held[-1] / 4:,.0f} numbers, heads and normalisation included."
        )
    parts = [
        f"{label} from {a:,.0f} to {b:,.0f}, and {c:,.0f} with the growth that follows"
        for label, seeds in sized.items()
        for a, b, c in [np.mean([plots.weights(r) for r in seeds], axis=0)]
    ]
    return FigureSpec(
        figure,
        "Left: weights of the masked layers after the last task of MNIST, before the growth that ends it "
        "(dots) and after it (squares). The networks are smaller than the paper's, so compare multiples "
        f"of the start: the paper prints {multiple:.2f} for DGMw. Right: accuracy of the "
        f"classifier; the number printed for MeRGAN is another score (Table 1).{fixed} {scale()}{absent}",
        f"Weights: {'; '.join(parts)}. Printed for DGMw: {said[0].note.removeprefix('printed as ')} to "
        f"{said[1].note.removeprefix('printed as ')}. Accuracy: {short(shown, Result.average)}, in percent, "
        f"{plots.kind(shown)}.",
        records,
        title="Table 3 of the paper: size of the generator",
    )


FORMATS = {"coo": "sparse tensors", "index": "indices", "bit": "bits"}


def _disc_rows(groups, stages, formats):
    """{label: {kind: mean MB}} of methods, stages (tasks learned) and formats of masks."""
    rows = {}
    for tasks in stages:
        for method, seeds in groups.items():
            for form in formats:
                every = [plots.disc_space(r, tasks - 1, form) for r in seeds]
                label = f"{_label(method)}, {tasks} tasks, masks as {FORMATS[form]}"
                rows[label] = {kind: np.mean([parts[kind] for parts in every]) for kind in every[0]}
    return rows


def _in_mb(rows):
    """The rows of plot_disc in words."""
    return "; ".join(
        f"{label} " + " + ".join(f"{mb:.3g} ({kind})" for kind, mb in parts.items())
        for label, parts in rows.items()
    )


def table_4():
    """Table 4 on MNIST: disc space of weights and masks after five and ten tasks, in two formats."""
    records, groups, absent = _of(OURS)
    ours = _disc_rows(groups, (5, 10), ("coo", "bit"))
    printed, name = {}, PRINTED_AS[MNIST]
    for tasks in (5, 10):
        for method in groups:
            metric = f"disc space of {{}} after {tasks} classes"
            parts = {
                kind: _printed(method, metric.format(kind), name, "Table 4").value
                for kind in ("weights", "masks")
            }
            printed[f"{_label(method)}, {tasks} tasks"] = parts
    figure, axes = panels(13.0, 1.7 + 0.36 * len(ours), 2, width_ratios=(1.25, 1))
    plots.plot_disc(ours, title="our runs", legend=False, ax=axes[0])
    plots.plot_disc(printed, title="printed in Table 4, masks sparse", legend=False, ax=axes[1])
    _legend_above(figure, axes[0])
    plots.stamp(figure, groups)
    return FigureSpec(
        figure,
        "Disc space of the generator after five and ten tasks of MNIST, by kind. The paper stores masks "
        "in a sparse form, which it does not specify: here as PyTorch's sparse tensors, and as a bit for "
        f"each place. Its networks are larger. {plots.kind(groups).capitalize()}. {scale()}{absent}",
        f"Stacked bars in MB. Ours: {_in_mb(ours)}. Printed: {_in_mb(printed)}.",
        records,
        title="Table 4 of the paper: disc space",
    )


def image_mb(result):
    """MB of the training images of all tasks, a byte for each value."""
    images = result.n_samples.sum() / result.about["config"]["epochs"]
    return images * np.prod(result.trace["generated"]["images"].shape[3:]) / 1e6


def memory_and_images():
    """Disc space of generator and masks beside that of the training images that they stand for."""
    records, groups, absent = _of(OURS)
    first = next(iter(groups.values()))[0]
    ours = _disc_rows(groups, (first.tasks,), FORMATS)
    ours["training images, a byte for each value"] = {"images": image_mb(first)}
    said = {"paper": "dgm", "benchmark": PRINTED_AS[IMAGENET]}
    generator = one(metric="disc space of weights and masks after 50 classes", **said)
    images = one(metric="disc space of training images", **said)
    raw = 50 * 1300 * 3 * 32 * 32 / 1e6  # classes, images of each, values of an image
    printed = {
        "generator and masks, as printed": {"weights and masks": generator.value},
        "training images, as printed": {"images": images.value},
        "training images, a byte for each value": {"images": raw},
    }
    figure, axes = panels(13.4, 2.2 + 0.36 * len(ours), 2)
    plots.plot_disc(ours, title=f"MNIST, size {SIZE}", legend=False, ax=axes[0])
    plots.plot_disc(printed, title="ImageNet-50, the paper", legend=False, ax=axes[1])
    _legend_above(figure, axes[0])
    plots.stamp(figure, groups)
    return FigureSpec(
        figure,
        f"Left: the generator with all its masks after {first.tasks} tasks of MNIST, in three formats of "
        "masks, and the training images. Right: the paper's numbers for ImageNet-50, and what its images "
        "take with a byte for each value. Whether a generator takes less than the images it replays "
        f"depends on the format of both, and on how many there are. {scale()}{absent}",
        f"Stacked bars in MB. MNIST: {_in_mb(ours)}. ImageNet-50: {_in_mb(printed)}; the paper says that its "
        f"generator saves {one(metric='disc space saved after 50 classes', **said)} % ({generator.place}).",
        records,
        title="A generator beside the images it replays",
    )


# ---- generated images


def samples():
    """Generated images of every class after the last task, DGMw beside DGMa (figure 5)."""
    records, groups, absent = _of(OURS)
    figure, axes = panels(5.0 * len(groups), 5.6, len(groups), squeeze=False)
    for ax, seeds in zip(axes[0], groups.values()):
        plots.plot_samples(seeds, ax=ax)
    plots.stamp(figure, {m: seeds[0] for m, seeds in groups.items()})
    last = {_label(m): [plots.recognised(r)[-1] for r in seeds] for m, seeds in groups.items()}
    return FigureSpec(
        figure,
        "Images that the generator draws after the last task of MNIST, a row for each digit; the first seed. "
        f"{scale()}{absent}",
        f"Grids of grey digits, eight of each class. The judge recognises, in percent over all seeds "
        f"({plots.kind(last)}): {short(last, float)}.",
        records,
        title="Generated images after the last task",
    )


COURSES = ("dgmw", "mergan", "dgr-gan", "ewc-m")


def sample_course():
    """One generated image of each class after every task: DGMw, and generators that are trained on."""
    records, groups, absent = _of(COURSES)
    half = -(-len(groups) // 2)
    figure, axes = panels(
        5.6 * half, 5.5 * -(-len(groups) // half), half, -(-len(groups) // half), squeeze=False
    )
    parts = []
    for ax, (method, seeds) in zip(axes.flat, groups.items()):
        plots.plot_sample_course(seeds, ax=ax)
        same = plots.unchanged(seeds[0])
        parts.append(f"{_label(method)} {sum(same.values())} of {len(same)}")
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
    records, groups, absent = _of(SCORED["generated"])
    figure, axes = panels(12.6, 4.0, 2)
    for ax, change in zip(axes, (False, True)):
        plots.plot_generated(groups, change=change, legend=change, ax=ax)
    judge = axes[0].lines[-1]
    axes[0].legend(handles=[judge], frameon=False, fontsize=9, loc="lower left")
    plots.stamp(figure, groups)
    shown = {_label(m): seeds for m, seeds in groups.items()}
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
    records, groups, absent = available_records(ABLATIONS, needed=ABLATIONS[0][0], preset=SIZE)
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
    "dgm-table1-mnist": table_1,
    "dgm-table1-all": table_1_all,
    "dgm-table2-real": table_2,
    "dgm-fig2-bounds": bounds,
    "dgm-fig3a-reuse": reuse,
    "dgm-fig3b-masks": mask_course,
    "dgm-table3-size": table_3,
    "dgm-fig4-growth": growth,
    "dgm-table4-disc": table_4,
    "dgm-images-or-memory": memory_and_images,
    "dgm-fig5-samples": samples,
    "dgm-samples-over-time": sample_course,
    "dgm-generated": generated_accuracy,
    "dgm-ablations": ablations,
}
