"""Tables 1 to 4 of DGM (Ostapenko et al. 2019), and its generator beside the images it replays."""

import numpy as np
from matplotlib.lines import Line2D

from clkit import plots
from clkit.figures.dgm import runs
from clkit.figures.dgm.runs import (
    MEANING,
    MNIST,
    OURS,
    PRINTED_AS,
    QUOTED,
    SCORED,
    TABLE_2,
    after_classes,
    available,
    imagenet,
    label_of,
    legend_above,
    printed_number,
    recorded,
    scale,
    score_after,
    with_images,
)
from clkit.figures.picture import FigureSpec, mark_printed, panels, printed_handles, short
from clkit.papers.palette import GREEN
from clkit.papers.published import one
from clkit.result import Result, chosen_after, interval

# ---- table 1

SAID = {
    "joint": "Joint training",
    "ewc-m": "EWC-M",
    "dgr": "DGR",
    "mergan": "MeRGAN",
    "dgmw": "DGMw",
    "dgma": "DGMa",
}


def table_1():
    """Table 1 on MNIST: both scores after five and ten classes, beside the printed numbers of each."""
    records, groups, absent = recorded(SCORED["test"])
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
    handles = [
        *printed_handles("printed"),
        Line2D([], [], label="ours, epoch best on validation", **plots.CHOSEN),
    ]
    figure.legend(handles=handles, ncols=4, loc="outside upper center", frameon=False, fontsize=9)
    plots.stamp(figure, groups)
    return FigureSpec(
        figure,
        "MNIST digit by digit: the two scores after five and ten tasks. Above, the classifier on real test "
        "images; below, the judge on generated images. Never rank one against the other: the paper's rows of "
        "EWC-M, DGR and MeRGAN are quoted from a source that scores generated images, its own rows score the "
        "classifier. Dots are our last epoch; squares are the epoch of each task that real validation images "
        "of all classes seen would choose, the rule of the paper's released code. "
        f"Rows ending in -S are quoted and keep real images. {scale()}{absent}",
        f"Four panels with a dot for each method; in percent, {plots.kind(groups)}. {' '.join(numbers)}",
        records,
        title="Table 1 of the paper: MNIST",
    )


def _panel_1(ax, score, groups, classes):
    """Draw a panel of table 1; its numbers in words."""
    metric, ours = (
        after_classes(classes),
        {label_of(m): [score_after(score, classes)(r) for r in s] for m, s in groups.items()},
    )
    names = {label_of(m): SCORED[score][m] for m in groups}
    if score == "test":
        names |= {label: name for name, label in QUOTED.items()}
    found = {label: printed_number(name, metric, PRINTED_AS[MNIST]) for label, name in names.items() if name}
    found = {label: p for label, p in found.items() if p}
    plots.plot_ablation(ours, ax=ax)
    apart = 41 if len({len(values) for values in ours.values()}) == 1 else 74  # "95.1", or "95.1 (n = 5)"
    mark_printed(ax, list(names), found, beside=2 * apart)
    ax.set_title(f"{MEANING[score]}, {classes} classes", fontsize=11)
    ax.set_xlabel(f"average over the classes seen (%)\n{plots.kind(groups)}")
    theirs = "; ".join(f"{label} {p.text}" for label, p in found.items())
    title, best = f"{MEANING[score].capitalize()}, {classes} classes", ""
    if score == "test":
        rows = {label_of(m): [chosen_after(r, classes) for r in seeds] for m, seeds in groups.items()}
        best = f" At the epoch best on validation: {short(_mark_chosen(ax, rows, apart), float)}."
    return f"{title}: {short(ours, float)}.{best} Printed: {theirs or 'none'}."


def _mark_chosen(ax, rows, beside):
    """Mark {label: scores at the chosen epoch} on the axes of plot_ablation; returns them.

    beside: distance of the text from the axes, in points.
    """
    for n, values in enumerate(rows.values()):
        i = interval(values)
        look = {"capsize": 2, "elinewidth": 1, "markersize": 4.5, "zorder": 5, **plots.CHOSEN}
        ax.errorbar(100 * i.mean, n - 0.24, xerr=100 * i.half, **look)
        if not np.isnan(i.mean):
            place = {"xytext": (beside, 0), "textcoords": "offset points", "va": "center", "fontsize": 9}
            where = ("axes fraction", "data")
            ax.annotate(f"{100 * i.mean:.1f}", (1.01, n), xycoords=where, color=GREEN, **place)
    return rows


COLUMNS = {  # of table 1: {benchmark: (title, classes)}
    MNIST: ("MNIST", (5, 10)),
    "split-svhn-10": ("SVHN", (5, 10)),
    "split-cifar10-10": ("CIFAR-10", (5, 10)),
    runs.IMAGENET: ("ImageNet-50", (30, 50)),
}


def table_1_all():
    """All columns of table 1 as printed, with our scores where there are records."""
    figure, axes = panels(13.6, 5.4, len(COLUMNS), 2, height_ratios=(4, 3))
    records, said, ours = {}, [], {}
    for n, (benchmark, (title, classes)) in enumerate(COLUMNS.items()):
        every = [(m, f"{m}/{benchmark}", None) for m in SCORED["test"]]
        more, groups, _ = available(every, (runs.SIZE,) if benchmark == MNIST else runs.SIZES)
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
    legend_above(figure, axes[0, 0])
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


def _pair(score, benchmark, classes, name, seeds):
    """(ours, printed) of a row of plot_two_stages."""
    there = [printed_number(name, after_classes(k), PRINTED_AS[benchmark]) for k in classes]
    if not seeds or (score == "generated" and not with_images({"": seeds})):
        return [], [p and p.value for p in there]
    return [tuple(score_after(score, k)(r) for k in classes) for r in seeds], [p and p.value for p in there]


def _two_in_words(rows):
    """The rows of plot_two_stages in words."""
    parts = []
    for label, (ours, printed) in rows.items():
        mine = " to ".join(f"{100 * np.mean(v):.1f}" for v in zip(*ours))
        theirs = " to ".join(f"{p:.2f}" for p in printed if p is not None)
        parts.append(f"{label}" + (f" {mine}" if mine else "") + (f" (printed {theirs})" if theirs else ""))
    return "; ".join(parts)


# ---- table 2


def table_2():
    """Table 2: DGMw with stored real images beside iCaRL on ImageNet-50, as printed, and ours if recorded."""
    records, groups, size = imagenet(TABLE_2)
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
                printed_number(name, after_classes(k, metric), PRINTED_AS[runs.IMAGENET], "Table 2").value
                for k in (30, 50)
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


# ---- tables 3 and 4


def table_3():
    """Table 3 on MNIST: weights at the start and after the last task, and the accuracy."""
    records, groups, absent = recorded((*OURS, "mergan"))
    sized = {label_of(m): seeds for m, seeds in groups.items() if "growth" in seeds[0].trace}
    metric, name = "generator parameters {}", PRINTED_AS[MNIST]
    said = [
        printed_number("dgmw", metric.format(w), name, "Table 3")
        for w in ("at the start", "after 10 classes")
    ]
    multiple = said[1].value / said[0].value
    figure, axes = panels(13.2, 2.4 + 0.42 * len(groups), 2)
    plots.plot_weights(sized, {label_of("dgmw"): multiple}, legend=False, ax=axes[0])
    shown = {label_of(m): seeds for m, seeds in groups.items()}
    printed = {label_of(m): printed_number(m, after_classes(10), name, "Table 3") for m in groups}
    plots.plot_ablation(shown, ax=axes[1])
    # Table 3 repeats Table 1, where MeRGAN's number scores generated images.
    mark_printed(axes[1], list(shown), {m: p for m, p in printed.items() if p and m != label_of("mergan")})
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
                label = f"{label_of(method)}, {tasks} tasks, masks as {FORMATS[form]}"
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
    records, groups, absent = recorded(OURS)
    ours = _disc_rows(groups, (5, 10), ("coo", "bit"))
    printed, name = {}, PRINTED_AS[MNIST]
    for tasks in (5, 10):
        for method in groups:
            metric = f"disc space of {{}} after {tasks} classes"
            parts = {
                kind: printed_number(method, metric.format(kind), name, "Table 4").value
                for kind in ("weights", "masks")
            }
            printed[f"{label_of(method)}, {tasks} tasks"] = parts
    figure, axes = panels(13.0, 1.7 + 0.36 * len(ours), 2, width_ratios=(1.25, 1))
    plots.plot_disc(ours, title="our runs", legend=False, ax=axes[0])
    plots.plot_disc(printed, title="printed in Table 4, masks sparse", legend=False, ax=axes[1])
    legend_above(figure, axes[0])
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
    records, groups, absent = recorded(OURS)
    first = next(iter(groups.values()))[0]
    ours = _disc_rows(groups, (first.tasks,), FORMATS)
    ours["training images, a byte for each value"] = {"images": image_mb(first)}
    said = {"paper": "dgm", "benchmark": PRINTED_AS[runs.IMAGENET]}
    generator = one(metric="disc space of weights and masks after 50 classes", **said)
    images = one(metric="disc space of training images", **said)
    raw = 50 * 1300 * 3 * 32 * 32 / 1e6  # classes, images of each, values of an image
    printed = {
        "generator and masks, as printed": {"weights and masks": generator.value},
        "training images, as printed": {"images": images.value},
        "training images, a byte for each value": {"images": raw},
    }
    figure, axes = panels(13.4, 2.2 + 0.36 * len(ours), 2)
    plots.plot_disc(ours, title=f"MNIST, size {runs.SIZE}", legend=False, ax=axes[0])
    plots.plot_disc(printed, title="ImageNet-50, the paper", legend=False, ax=axes[1])
    legend_above(figure, axes[0])
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


FIGURES = {
    "dgm-table1-mnist": table_1,
    "dgm-table1-all": table_1_all,
    "dgm-table2-real": table_2,
    "dgm-table3-size": table_3,
    "dgm-table4-disc": table_4,
    "dgm-images-or-memory": memory_and_images,
}
