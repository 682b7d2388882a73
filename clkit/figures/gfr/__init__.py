"""Figures of GFR (Liu et al. 2020): data flow, figures 2 and 4 to 7, tables 2 and 3; table 1 in memory.py.

Each shows the size with most of its rows on record. Curves of real images for which there is none give way to
those of shapes, and the caption says so.
"""

from functools import partial

import numpy as np

from clkit import plots
from clkit.analysis import embedding
from clkit.figures.gfr import memory, runs
from clkit.figures.gfr.runs import (
    CIFAR,
    CURVES,
    FROZEN,
    IMAGENET,
    PARTS,
    PRINTED,
    SHAPES,
    UNPRINTED,
    label_of,
    scale,
)
from clkit.figures.picture import FigureSpec, bar_of_all, mean_of_seeds, panels, short
from clkit.result import Result

# ---- the data flow

_BOXES = {  # name: (text, kind, x, y, width, height)
    "images": ("images of the new\nclasses, $x$, $y$", "data", 1.15, 4.6, 1.9, 0.75),
    "new": ("extractor $F$", "trained", 4.05, 4.6, 1.7, 0.7),
    "old": ("its copy $F^*$ of\nbefore the task", "frozen", 4.05, 5.85, 1.9, 0.75),
    "noise": ("noise $z$, an\nold class $c$", "data", 1.15, 3.2, 1.7, 0.75),
    "generator": ("generator $G$", "frozen", 4.05, 3.2, 1.7, 0.7),
    "distance": ("distillation,\n$|u-u^*|$", "loss", 7.0, 5.85, 1.8, 0.75),
    "head": ("classifier $H$\n(one linear layer)", "trained", 7.0, 3.9, 2.0, 0.8),
    "ce": ("cross-entropy, each\nclass counts the same", "loss", 10.2, 3.9, 2.2, 0.8),
    "resting": ("$F$, at rest", "frozen", 1.15, 1.1, 1.6, 0.7),
    "real": ("features of the\nnew classes", "data", 4.05, 1.1, 1.9, 0.75),
    "critic": ("critic $D$", "trained", 7.0, 1.1, 1.7, 0.7),
    "learning": ("generator $G$", "trained", 10.2, 1.1, 1.7, 0.7),
    "align": ("alignment with the\nold $G$, old classes", "loss", 10.2, 2.45, 2.1, 0.75),
}
_ARROWS = (
    ("images", "new"),
    ("images", "old"),
    ("new", "distance", "$u$", {"at": (-0.35, 0.0)}),
    ("old", "distance", "$u^*$"),
    ("new", "head", "$u$", {"at": (0.1, 0.1)}),
    ("noise", "generator"),
    ("generator", "head", "old features", {"at": (0.35, -0.22)}),
    ("head", "ce"),
    ("resting", "real"),
    ("real", "critic", "real"),
    ("learning", "critic", "generated"),
    ("learning", "align"),
)
_NOTES = ((10.2, 5.85, "1. extractor and classifier"), (4.05, 2.1, "2. generator and critic"))


def schematic():
    """The two phases of a task: extractor and classifier, then generator and critic."""
    return FigureSpec(
        plots.plot_schematic(_BOXES, _ARROWS, _NOTES, size=(11.8, 6.4)).figure,
        "One task of GFR. First extractor and classifier learn; old classes reach the classifier as "
        "features that the generator draws. Then the network rests, and the generator learns the features of "
        "the new classes.",
        "A data flow in two rows. Above, images of the new classes go through the extractor F, which is "
        "trained, and through its frozen copy; a distillation loss compares both features. The frozen "
        "generator G draws features of old classes from noise. The classifier H learns from features of "
        "both kinds with one cross-entropy. Below, the resting F gives real features of the new classes; "
        "generator and critic are trained on them, and an alignment loss keeps G as it was for old classes.",
        title="The data flow of GFR in one task",
    )


# ---- figure 2: similarity of layers


def similarity():
    """SVCCA of each layer between tasks, for methods that hold different things (figure 2)."""
    rows = [(m, f"{m}/{runs.FOUR}", None) for m in runs.COMPARED]
    records, groups, size, _ = runs.needed(rows)
    absent = runs.without({runs.FOUR: groups}, runs.COMPARED)
    figure, axes = panels(3.6 * len(groups), 3.9, len(groups), squeeze=False)
    said = []
    for ax, (method, seeds) in zip(axes[0], groups.items()):
        last = method == list(groups)[-1]
        title = f"{label_of(method)}\n{100 * np.mean([r.average() for r in seeds]):.0f} % after all tasks"
        plots.plot_similarity(seeds, colorbar=last, title=title, ax=ax)
        ax.set_xlabel("tasks")
        layers, _ = plots.similarity(seeds[0])
        mean = np.mean([plots.similarity(r)[1] for r in seeds], axis=0)
        ends = ", ".join(f"{layer} {v[0, -1]:.2f}" for layer, v in zip(layers, mean))
        said.append(f"{label_of(method)}: {ends}")
    bar_of_all(figure, groups)
    plots.stamp(figure, groups)
    return FigureSpec(
        figure,
        "SVCCA between the networks after an earlier and a later task (columns), on test images of the "
        f"earlier one, by layer; {mean_of_seeds(groups)}. {runs.FOUR}, "
        f"{scale(runs.FOUR, size)} LwF's logits are the probabilities of its head.{absent}",
        "Heat maps, a row for each layer and a column for each pair of tasks. Networks after task 1 and "
        f"after the last: {'; '.join(said)}.",
        records,
        title="Figure 2 of the paper: similarity of layers",
    )


# ---- figures 4 to 6


def curves(benchmarks, methods, title, beside=()):
    """Accuracy and forgetting over the classes learned, a column for each benchmark."""
    shown, records, note = runs.half_first(benchmarks, methods, beside)
    wide = len(shown) == 1
    figure, axes = panels(
        12.6 if wide else 1.8 + 4.4 * len(shown),
        4.2 if wide else 7.4,
        *((2, 1) if wide else (len(shown), 2)),
        squeeze=False,
    )
    said, pairs = [], axes if wide else axes.T
    for (benchmark, groups), (above, below) in zip(shown.items(), pairs):
        last = benchmark == list(shown)[-1]
        plots.plot_averages(groups, over="images", x="classes", legend=False, ax=above)
        above.set_title(benchmark, fontsize=10)
        plots.plot_forgetting_course(groups, x="classes", legend=last, ax=below)
        if last:
            _legend_of(above, below)
        named = {label_of(m): seeds for m, seeds in groups.items()}
        said.append(
            f"{benchmark}, {plots.kind(groups)}: accuracy {short(named, lambda r: r.average('images'))}; "
            f"forgetting {short(named, Result.forgetting)}"
        )
    plots.stamp(figure, {f"{b} {m}": s for b, groups in shown.items() for m, s in groups.items()})
    return FigureSpec(
        figure,
        f"Accuracy over all test images of the classes seen, and forgetting, as classes arrive. {note}",
        f"Curves over the classes learned. After the last task, in percent and points: {'. '.join(said)}.",
        records,
        title=title,
    )


def _legend_of(above, below):
    """The legend of the lower axes with the lines of both: joint training has no forgetting."""
    handles, labels = above.get_legend_handles_labels()
    old = below.get_legend()
    title = old.get_title().get_text()
    old.remove()
    look = {"loc": "upper left", "bbox_to_anchor": (1.01, 1.0), "frameon": False, "fontsize": 9}
    below.legend(handles, labels, title=title, title_fontsize=8, alignment="left", handlelength=3.2, **look)


# ---- figure 7: features


def features():
    """Real and generated features of the first task on one t-SNE map, when learned and at the end."""
    groups, records, note, benchmark = _with_features()
    figure, axes = panels(11.8, 0.6 + 4.3 * len(groups), 2, len(groups), squeeze=False)
    said = []
    for row, (method, seeds) in zip(axes, groups.items()):
        table = seeds[0].trace["features"]
        for ax, stage in zip(row, (0, -1)):
            labels, real, drawn = (np.asarray(table[c][stage]) for c in ("labels", "real", "generated"))
            labels, real = labels[: len(drawn)], real[: len(drawn)]
            points = embedding.tsne(real, drawn, perplexity=min(30, len(real) / 2))
            when = f"after task {len(seeds[0].seen) if stage else 1}"
            legend = method == next(iter(groups)) and stage == -1
            plots.plot_map(
                {"real": (points[0], labels), "generated": (points[1], labels)},
                names=seeds[0].names, legend=legend, title=f"{label_of(method)}, {when}", ax=ax,
            )  # fmt: skip
            numbers = feature_numbers(seeds[0], stage)
            said.append(f"{label_of(method)} {when}: {', '.join(f'{k} {v:.2f}' for k, v in numbers.items())}")
    first = next(iter(groups.values()))[0]
    plots.stamp(figure, {m: seeds[0] for m, seeds in groups.items()})
    return FigureSpec(
        figure,
        f"Features of real test images (filled) and generated ones (open) of the first classes, on one t-SNE "
        f"map each; seed {first.about['seed']}. Places mean nothing; read the numbers beside it. {note}",
        f"Maps of {len(np.unique(first.trace['features']['labels'][0]))} classes on {benchmark}. "
        f"{'; '.join(said)}.",
        records,
        title="Figure 7 of the paper: real and generated features",
    )


def feature_numbers(result, stage):
    """{name: number} of real and generated features after a stage: what stands beside the map."""
    table = result.trace["features"]
    labels, real, drawn = (np.asarray(table[c][stage]) for c in ("labels", "real", "generated"))
    labels, real = labels[: len(drawn)], real[: len(drawn)]
    known = np.asarray(table["recognised"][stage])[: int(labels.max()) + 1]
    mine = np.isin(result.labels, np.unique(labels))
    right = (result.predictions[stage] == result.labels)[mine].mean()
    return {
        "generated features recognised": float(np.nanmean(known)),
        "real images recognised": float(right),
        "nearest neighbour of its own kind (0.5: mixed)": embedding.mixing(real, drawn),
        "shift of class means": float(np.mean(list(embedding.shifts(real, labels, drawn, labels).values()))),
    }


def _with_features():
    """Records with features of the first of ImageNet, CIFAR-100 and shapes that has any."""
    for benchmarks in (IMAGENET, CIFAR):
        for benchmark in benchmarks:
            records, groups, size = runs.of_methods(benchmark, ("gfr", "gfr-gaussian"), runs.REAL)
            if groups:
                return groups, records, f"{benchmark}, {scale(benchmark, size)}", benchmark
    shown, records, note = runs.half_first(CIFAR, ("gfr", "gfr-gaussian"))
    return shown[SHAPES], records, note, SHAPES


def drift():
    """How far the mean feature of old classes turns as tasks are learned."""
    from clkit.analysis.features import drift as cosines  # loads torch

    methods = ("gfr", "gfr-gaussian", "gfr-distill", "gfr-replay", "gfr-finetune")
    shown, records, note = runs.half_first([SHAPES], methods)
    found = {m: cosines(seeds[0]) for m, seeds in shown[SHAPES].items()}
    ax = plots.plot_drift(found)
    plots.stamp(ax, {m: seeds[0] for m, seeds in shown[SHAPES].items()})
    ends = "; ".join(f"{label_of(m)} {np.nanmean(v[-1][~np.isnan(v[-2])]):.2f}" for m, v in found.items())
    return FigureSpec(
        ax.figure,
        "Cosine between the mean feature of a class now and when it was learned, mean over the classes of "
        f"earlier tasks; the first seed. SVCCA ignores rotations, this does not. {note}",
        f"Lines over the tasks learned. At the end: {ends}.",
        records,
        title="Drift of the features of old classes",
    )


# ---- tables 2 and 3


def by_stage(table, rows):
    """Average accuracy after each of four tasks, as printed and ours (tables 2 and 3)."""
    theirs = {
        label: [[runs.printed(table, name, classes).value / 100 for classes in (25, 50, 75, 100)]]
        for name, (label, *_) in rows.items()
    }
    records, groups, size, absent = runs.needed(list(rows.values()))
    ours = {label: [r.averages() for r in seeds] for label, seeds in groups.items()}
    seen = next(iter(groups.values()))[0].seen.tolist()
    figure, (left, right) = panels(11.6, 4.0, 2, sharey=True)
    look = {"order": list(theirs), "floor": True}
    plots.plot_stages(theirs, (25, 50, 75, 100), title=f"printed in {table}", legend=False, ax=left, **look)
    plots.plot_stages(ours, seen, title=f"ours, size {size}", legend=False, ax=right, **look)
    right.set_ylabel("")
    handles, labels = left.get_legend_handles_labels()
    right.legend(handles, labels, frameon=False, fontsize=9, loc="upper left", bbox_to_anchor=(1.01, 1))
    plots.stamp(figure, groups)
    said = "; ".join(f"{label} {100 * values[0][-1]:.1f}" for label, values in theirs.items())
    return FigureSpec(
        figure,
        "Average accuracy over four equal tasks. Dotted: the floor of complete forgetting, where only the "
        f"newest task has the accuracy that the first had. Ours: {runs.FOUR}, "
        f"{scale(runs.FOUR, size)}{absent}",
        f"Two panels of lines. Printed, after the last task: {said}. Ours, {plots.kind(groups)}: "
        f"{short(groups, Result.average)}.",
        records,
        title=f"{table} of the paper",
    )


FIGURES = {
    "gfr-schematic": schematic,
    "gfr-shapes": partial(curves, [SHAPES], (*PARTS, *FROZEN), "GFR and its parts on shapes"),
    "gfr-shapes-baselines": partial(curves, [SHAPES], PRINTED, "GFR and other methods on shapes"),
    "gfr-fig2-similarity": similarity,
    **{name: partial(curves, benchmarks, PRINTED, title, UNPRINTED) for name, title, benchmarks in CURVES},
    "gfr-fig7-features": features,
    "gfr-drift": drift,
    "gfr-table2-replay": partial(by_stage, "Table 2", runs.TABLE_2),
    "gfr-table3-regulariser": partial(by_stage, "Table 3", runs.TABLE_3),
} | memory.FIGURES
