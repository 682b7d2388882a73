"""Figures of MFGR (Xin et al. 2021): figures 1 to 4 and 6 to 8, and all methods together."""

import numpy as np

from clkit import plots
from clkit.analysis.embedding import nearest_mean, separation, tsne
from clkit.figures.mfgr import generator, runs, tables
from clkit.figures.mfgr.runs import (
    BOTH,
    CIFAR,
    RATIOS,
    SIX,
    SIZES,
    WARDROBE,
    absent,
    by_group,
    label_of,
    no_record,
    recorded,
    scale,
)
from clkit.figures.picture import FigureSpec, available, left_out, panels, shared_bar, short
from clkit.papers.palette import BLUE, GREY, VERMILLION
from clkit.plots.style import SEQUENTIAL

FIVE = ("boy", "girl", "man", "chair", "cloud")  # the classes of figure 1; only the first three are alike
ANGLES, NEW = (70, 74, 78, -25, 165), 40  # of their weight vectors, and of a new feature, in degrees


# ---- figure 1


def projections():
    """A new feature projected on five weight vectors, of which three are nearly parallel (figure 1)."""
    angles, new = np.radians(ANGLES), np.radians(NEW)
    weights = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    feature = np.array([np.cos(new), np.sin(new)])
    found = plots.coordinates(weights, feature)
    figure, (left, right) = panels(10.4, 4.4, 2, width_ratios=(1.1, 1))
    plots.plot_projections(weights, feature, FIVE, alike=(0, 1, 2), ax=left)
    colors = [VERMILLION] * 3 + [BLUE] * 2
    right.barh(range(5), found, color=colors)
    right.set_yticks(range(5), FIVE)
    right.invert_yaxis()
    right.axvline(0, color="black", linewidth=0.8)
    right.set_xlabel("coordinate of the new feature")
    right.spines[["top", "right"]].set_visible(False)
    for n, value in enumerate(found):
        right.annotate(
            f"{value:.2f}", (max(value, 0), n), xytext=(4, 0), textcoords="offset points", va="center"
        )
    right.set_xlim(-0.8, 1.1)
    plots.stamp(figure, "a construction: no data")
    said = ", ".join(f"{name} {value:.2f}" for name, value in zip(FIVE, found))
    return FigureSpec(
        figure,
        "Figure 1 of the paper as a construction: weight vectors of length 1 in a plane, at "
        f"{', '.join(map(str, ANGLES))} degrees, and a new feature at {NEW}. Its coordinates along the three "
        "similar classes are nearly equal, so the outputs of the old network on new images say little about "
        "what tells these classes apart.",
        "Left: five arrows from one point, three of them (boy, girl, man) nearly parallel, and a new feature "
        f"with a dotted perpendicular to each. Right: bars of its coordinates: {said}.",
        title="Why new images do not tell similar classes apart",
    )


# ---- figure 2

_BOXES = {  # name: (text, kind, x, y, width, height)
    "noise": ("noise $z$", "data", 0.8, 3.6, 1.1, 0.6),
    "generator": ("generator $G$, new\nfor each task", "trained", 2.8, 3.6, 1.9, 0.8),
    "images": ("generated images", "data", 5.1, 3.6, 1.7, 0.6),
    "old": ("old network $O$", "frozen", 7.6, 3.6, 1.7, 0.7),
    "oh": ("$l_{oh}$, $l_{cd}$ on outputs", "loss", 10.4, 4.5, 2.3, 0.6),
    "bn": ("$l_{bn}$ on batch statistics", "loss", 10.4, 3.6, 2.3, 0.6),
    "div": ("$l_{div}$ on pixels", "loss", 2.8, 2.1, 1.8, 0.6),
    "new": ("real images of\nthe new task", "data", 5.1, 1.4, 1.7, 0.8),
    "network": ("network $F$, copy of $O$\nwith new rows", "trained", 7.6, 1.4, 2.1, 0.8),
    "kd": ("distillation on old outputs\n$l_{gkd}$, $l_{nkd}$", "loss", 10.6, 2.1, 2.5, 0.8),
    "ce": ("$l_{ce}$ on new outputs", "loss", 10.6, 0.9, 2.5, 0.6),
}
_ARROWS = (
    ("noise", "generator"),
    ("generator", "images"),
    ("images", "old"),
    ("old", "oh"),
    ("old", "bn"),
    ("images", "div"),
    ("div", "generator", "gradient", {"dashed": True, "at": (-0.5, -0.1)}),
    ("images", "network", "stage 2", {"at": (-0.45, -0.2)}),
    ("new", "network"),
    ("network", "kd"),
    ("network", "ce"),
    ("old", "kd", "soft targets", {"at": (-0.55, -0.25)}),
    ("old", "generator", "stage 1: gradient through $O$", {"dashed": True, "curve": 0.3, "at": (0, 0.08)}),
)


def workflow():
    """The data flow of both stages of a task (figure 2)."""
    return FigureSpec(
        plots.plot_schematic(_BOXES, _ARROWS, size=(12.2, 5.6)).figure,
        "One task of MFGR. Stage 1 trains a generator against the frozen old network, without any image. "
        "Stage 2 trains a copy of that network on new images and on generated ones. Then generator and old "
        "network are dropped.",
        "A data flow from left to right. Above, stage 1: noise enters a generator, whose images enter the "
        "frozen old network; losses on its outputs and on its batch statistics and a loss on the pixels send "
        "gradients back to the generator. Below, stage 2: the network, a copy of the old one with rows for "
        "new classes, takes generated images and real images of the new task; its old outputs are distilled "
        "from the old network on both, its new outputs have a cross-entropy on the real ones.",
        title="The two stages of a task",
    )


# ---- figures 3 and 4: similar classes


def _in_first(groups):
    """{what it is: first seed} of the old network, LwF's and MFGR's, where features are recorded."""
    found = {"old network": (groups["mfgr"][0], 0)}
    return found | {label_of(m): (groups[m][0], 1) for m in BOTH if m in groups}


def _with_features(benchmarks):
    """`recorded` for the first of the benchmarks with records of MFGR that hold features."""
    for benchmark in benchmarks:
        records, groups, size = recorded(benchmark, BOTH)
        if "mfgr" in groups and "features" in groups["mfgr"][0].trace.get("fine", {}):
            return benchmark, records, groups, size
    return None, {}, {}, None


def maps():
    """Maps of the features of similar and distinct old classes before and after a task (figure 3)."""
    title = "Features of old classes before and after a task"
    benchmark, records, groups, size = _with_features(("cifar100-6", WARDROBE))
    if not groups:
        return no_record(title, "Three t-SNE maps of features of real test images.", WARDROBE, BOTH)
    shown = _in_first(groups)
    figure, axes = panels(4.6 * len(shown), 4.9, len(shown))
    said = []
    for n, (ax, (label, (result, stage))) in enumerate(zip(axes, shown.items())):
        x, y = (np.asarray(result.trace["fine"][c][stage]) for c in ("features", "labels"))
        x, even = x.astype(float), np.arange(len(y)) % 2 == 0
        right = 100 * nearest_mean(x[even], y[even], x[~even], y[~even])
        numbers = f"nearest mean {right:.0f} %, silhouette {separation(x, y):.2f}"
        place = {"loc": "upper center", "bbox_to_anchor": (0.5, -0.02), "ncols": 4} if n == 1 else False
        [points] = tsne(x)
        plots.plot_map({"real": (points, y)}, names=result.names, legend=place, ax=ax)
        ax.set_title(f"{label}\n{numbers}", fontsize=10)
        said.append(f"{label}: {numbers}")
    plots.stamp(figure, {m: groups[m][:1] for m in groups})
    return FigureSpec(
        figure,
        "t-SNE of the penultimate features of real test images of old classes, before the second task and "
        "after it. Each map is made on its own; its distances and directions mean nothing. The numbers are "
        "of the features: accuracy of the nearest class mean (means of half of the images, accuracy on the "
        f"other half), and silhouette. {scale(benchmark, size)}",
        f"Three maps of points coloured by class. {'; '.join(said)}.",
        records,
        title=title,
    )


def projected():
    """What the old network says about new images: mean probability of each old class (figure 4)."""
    title = "What the old network says about new images"
    benchmark, records, groups, size = _with_features(("cifar100-6", WARDROBE))
    if not groups:
        return no_record(title, "Mean probabilities of the old classes for new images.", WARDROBE, BOTH)
    seeds = groups["mfgr"]
    n, names = seeds[0].classes_per_task[0], seeds[0].names
    rows = np.array([plots.fine(r, "projected", 0)[:n] for r in seeds])
    apart = 100 * plots.fine(seeds[0], "apart", 0)[:n, :n]
    figure, (left, right) = panels(12.6, 4.2, 2, width_ratios=(1.4, 1))
    parts = runs.groups_of(benchmark, size) if benchmark == WARDROBE else None
    y = "mean probability (%)"
    one = {"old network": {"color": BLUE, "marker": "o"}}
    plots.plot_by_class(
        {"old network": rows}, names[:n], one, groups=parts, y=y, top=None, legend=False, ax=left
    )
    left.axhline(100 / n, color=GREY, linestyle=":", linewidth=1)
    left.set_ylim(0)
    right.imshow(apart, cmap=SEQUENTIAL)
    right.set_xticks(range(n), names[:n], rotation=45, ha="right", fontsize=8)
    right.set_yticks(range(n), names[:n], fontsize=8)
    shared_bar([right], "mean |p_i - p_j| (points)")
    plots.stamp(figure, {"mfgr": seeds})
    means = ", ".join(f"{name} {100 * v:.1f}" for name, v in zip(names, rows.mean(0)))
    return FigureSpec(
        figure,
        "Left: probability of each old class for images of the new task, by the network before that task, "
        f"mean over images ({plots.kind(groups['mfgr'])}); dotted: one over the number of classes. Right, "
        "first seed: the mean distance of the probabilities of two classes, image by image. Equal means do "
        f"not imply small distances. {scale(benchmark, size)}",
        f"Dots of mean probabilities in percent: {means}. Beside them a map of mean distances, from "
        f"{apart[~np.eye(n, dtype=bool)].min():.1f} to {apart.max():.1f} points.",
        records,
        title=title,
    )


# ---- figures 6 to 8


def ratio():
    """Accuracy on old, new and all classes for more generated images to one new one (figure 6)."""
    title = "Figure 6 of the paper: more generated images"
    for benchmark in (CIFAR, WARDROBE):
        rows = [(name, f"mfgr/{benchmark}", overrides) for name, overrides in RATIOS.items()]
        records, groups, size = available(rows, SIZES)
        if len(groups) > 1:
            break
    else:
        about = "In the paper, on CIFAR-100, the bars are nearly equal; numbers are not printed."
        return no_record(title, about, WARDROBE, ("mfgr",), overrides=RATIOS["3 : 1"])
    names = ("old", "new", "all")
    values = {label: [[by_group(r, benchmark)[k] for k in names] for r in s] for label, s in groups.items()}
    ax = plots.plot_by_class(values, names, title="generated to new, for each class")
    plots.stamp(ax, groups)
    return FigureSpec(
        ax.figure,
        f"Accuracy after the second task, with more generated images in each step ({plots.kind(groups)}). "
        f"{scale(benchmark, size)}{left_out([name for name in RATIOS if name not in groups])}",
        "Dots for each ratio of generated to new images. Percent on all classes: "
        f"{short({k: [row[2] for row in v] for k, v in values.items()}, float)}.",
        records,
        title=title,
    )


def icarl():
    """iCaRL with and without generated images (figure 7)."""
    title, methods = "Figure 7 of the paper: iCaRL with generated images", ("icarl-mfgr", "icarl-sgd")
    for benchmark in (CIFAR, WARDROBE):
        records, groups, size = recorded(benchmark, methods)
        if groups:
            break
    else:
        return no_record(title, "iCaRL with and without generated images.", WARDROBE, methods)
    ax = plots.plot_averages(groups, over="images")
    shown = {label_of(m): s for m, s in groups.items()}
    return FigureSpec(
        ax.figure,
        "iCaRL keeps real exemplars; one of the two runs also distils on MFGR's images. The paper shows "
        f"curves on CIFAR-100, without numbers. {scale(benchmark, size)}{absent(groups, methods)}",
        f"Curves of accuracy over tasks. At the end, in percent ({plots.kind(groups)}): "
        f"{short(shown, runs.last)}.",
        records,
        title=title,
    )


def six_tasks():
    """Accuracy over six tasks, the first with half of the classes (figure 8)."""
    title, methods = "Figure 8 of the paper: half of the classes first", ("mfgr", "lwf-sgd", "lwm", "muc-lwf")
    found = {name: recorded(name, methods) for name in SIX}
    if not any(groups for _, groups, _ in found.values()):
        about = "The paper shows MFGR above all others in every task, without numbers."
        return no_record(title, "Accuracy over six tasks.", "cifar100-6", methods, about)
    there = {name: row for name, row in found.items() if row[1]}
    figure, axes = panels(6.6 * len(there), 4.0, len(there), squeeze=False)
    records, said = {}, []
    for ax, (name, (more, groups, size)) in zip(axes[0], there.items()):
        plots.plot_averages(groups, over="images", ax=ax)
        ax.set_title(f"{SIX[name]}, size {size}", fontsize=11)
        records |= more
        shown = {label_of(m): s for m, s in groups.items()}
        said.append(f"{SIX[name]}: {short(shown, runs.last)}")
    plots.stamp(figure, {f"{n} {m}": s for n, (_, groups, _) in there.items() for m, s in groups.items()})
    return FigureSpec(
        figure,
        "Accuracy over all classes seen, after each of six tasks; the first has half of the classes. The "
        "paper shows curves without numbers.",
        f"Curves over tasks. At the end, in percent: {'. '.join(said)}.",
        records,
        title=title,
    )


# ---- what it costs, and which classes are saved


def cost():
    """Seconds that the second task takes, by method."""
    title, methods = "What the second task takes", runs.WARDROBE_METHODS
    records, groups, size = recorded(WARDROBE, methods)
    if not groups:
        return no_record(title, "Seconds of learning, by method.", WARDROBE, BOTH)
    seconds = {label_of(m): np.array([r.learn_seconds[1] for r in s]) for m, s in groups.items()}
    seconds = dict(sorted(seconds.items(), key=lambda row: np.median(row[1])))
    figure, ax = panels(8.2, 1.4 + 0.34 * len(seconds))
    for n, values in enumerate(seconds.values()):
        ax.barh(n, np.median(values), color=GREY, height=0.6)
        ax.plot(values, np.full(len(values), n), "o", color="white", markeredgecolor="black", markersize=4)
        place = {"xytext": (8, 0), "textcoords": "offset points", "va": "center", "fontsize": 9}
        ax.annotate(f"{np.median(values):.0f}", (values.max(), n), **place)
    ax.set_yticks(range(len(seconds)), seconds)
    ax.set_xlabel("seconds of learning in the second task")
    ax.spines[["top", "right"]].set_visible(False)
    plots.stamp(figure, groups)
    said = "; ".join(f"{label} {np.median(values):.0f}" for label, values in seconds.items())
    return FigureSpec(
        figure,
        "Wall-clock seconds of learning in the second task: bars are medians, dots seeds. MFGR adds a "
        "generator that is trained from scratch; DeepInversion optimises its images one by one. Measured on "
        "a busy machine, which some seeds shared with other programs: compare orders of magnitude. The paper "
        "reports five hours for a generator and one for the classifier, on CIFAR-100. "
        f"{scale(WARDROBE, size)}{absent(groups, methods)}",
        f"Bars in seconds: {said}.",
        records,
        title=title,
    )


def fine_grained():
    """Accuracy of groups of classes after the second task, among all outputs and among old ones alone."""
    title, methods = "Forgotten, or only outshouted?", ("lwf-sgd", "mfgr-base", "mfgr-no-nkd", "mfgr")
    records, groups, size = recorded(WARDROBE, methods)
    if not groups:
        return no_record(title, "Accuracy of groups of classes.", WARDROBE, methods)
    some = next(iter(groups.values()))
    names = [n for n in by_group(some[0], WARDROBE) if n != "all"]
    before = [[by_group(r, WARDROBE, "accuracy", 0)[n] for n in names] for r in some]
    figure, axes = panels(12.6, 4.0, 2, sharey=True)
    said, looks = [], runs.looks(groups) | {"before the task": {"color": GREY, "marker": "_"}}
    for n, (ax, (column, what)) in enumerate(
        zip(axes, (("accuracy", "among all outputs"), ("within", "old among old, new among new")))
    ):
        values = {"before the task": before} | {
            label_of(m): [[by_group(r, WARDROBE, column)[k] for k in names] for r in s]
            for m, s in groups.items()
        }
        plots.plot_by_class(values, names, looks, legend=bool(n), title=what, ax=ax)
        means = {k: 100 * np.mean(v, axis=0) for k, v in values.items()}
        parts = [f"{k} {', '.join('-' if np.isnan(x) else f'{x:.1f}' for x in v)}" for k, v in means.items()]
        said.append(f"{what.capitalize()} ({', '.join(names)}): {'; '.join(parts)}")
    axes[1].set_ylabel("")
    plots.stamp(figure, groups)
    return FigureSpec(
        figure,
        "Accuracy by group of classes, before and after the second task. What is low on the left and high on "
        "the right is outshouted by the new classes; what is low on both sides is forgotten "
        f"({plots.kind(groups)}). {scale(WARDROBE, size)}{absent(groups, methods)}",
        f"Two panels of dots, in percent. {'. '.join(said)}.",
        records,
        title=title,
    )


def wardrobe():
    """Accuracy after the second task of all methods, on all classes and on old ones."""
    title, methods = "All methods on the wardrobe", runs.WARDROBE_METHODS
    records, groups, size = recorded(WARDROBE, methods)
    if not groups:
        return no_record(title, "Accuracy of all methods.", WARDROBE, BOTH)
    figure, axes = panels(15.0, 1.8 + 0.36 * len(groups), 3)
    said = []
    for n, (ax, (key, column, what)) in enumerate(
        zip(
            axes,
            (
                ("all", "accuracy", "all classes"),
                ("old", "accuracy", "old classes"),
                ("old", "within", "old classes among old outputs"),
            ),
        )
    ):
        values = {label_of(m): [by_group(r, WARDROBE, column)[key] for r in s] for m, s in groups.items()}
        plots.plot_ablation(values, ax=ax)
        ax.set_title(what, fontsize=11)
        ax.set_xlabel(f"mean over classes (%)\n{plots.kind(groups)}")
        ax.set_xlim(0, 100)
        if n:
            ax.set_yticklabels([])
        said.append(f"{what.capitalize()}: {short(values, float)}")
    plots.stamp(figure, groups)
    return FigureSpec(
        figure,
        "Accuracy after the second task. iCaRL keeps real images, the oracle keeps all of them; the others "
        f"keep none, but MUC needs unlabelled images of something else. {scale(WARDROBE, size)}"
        f"{absent(groups, methods)}",
        f"Three panels of dots, in percent ({plots.kind(groups)}). {'. '.join(said)}.",
        records,
        title=title,
    )


FIGURES = (
    {
        "mfgr-fig1-projections": projections,
        "mfgr-fig2-workflow": workflow,
        "mfgr-fig3-maps": maps,
        "mfgr-fig4-projected": projected,
        "mfgr-fig6-ratio": ratio,
        "mfgr-fig7-icarl": icarl,
        "mfgr-fig8-six-tasks": six_tasks,
        "mfgr-fine": fine_grained,
        "mfgr-wardrobe": wardrobe,
        "mfgr-cost": cost,
    }
    | generator.FIGURES
    | tables.FIGURES
)
