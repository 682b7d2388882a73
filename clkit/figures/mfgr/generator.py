"""What the generator of MFGR draws, and its losses: figure 5 of Xin et al. (2021), and its course."""

import numpy as np

from clkit import plots
from clkit.figures.mfgr.runs import WARDROBE, absent, label_of, no_record, recorded, scale
from clkit.figures.picture import FigureSpec, panels, short

GENERATORS = ("mfgr-base", "mfgr")  # figure 5
TERMS = {"oh": "l_oh", "cd": "l_cd", "bn": "l_bn", "div": "l_div"}


def samples():
    """Real images of old classes beside those of the base generator and of the full one (figure 5)."""
    title = "Generated images of old classes"
    records, groups, size = recorded(WARDROBE, GENERATORS)
    if "mfgr" not in groups or "pictures" not in groups["mfgr"][0].trace.get("fine", {}):
        return no_record(title, "Real and generated images, by class.", WARDROBE, GENERATORS)
    first = groups["mfgr"][0]
    n = first.classes_per_task[0]
    real = np.asarray(first.trace["fine"]["pictures"][0])  # eight of each class, in order
    boards = {"real test images": real.reshape(n, -1, *real.shape[1:])[:, :6]}
    numbers = []
    for method in groups:
        rows = groups[method][0].trace["samples"]
        boards[label_of(method)] = np.asarray(rows["images"][0])[:n, :6]
        numbers.append(f"{label_of(method)}: {_about_samples(groups[method], n)}")
    figure, axes = panels(4.4 * len(boards), 0.62 * n + 1.0, len(boards))
    for k, (ax, (label, images)) in enumerate(zip(axes, boards.items())):
        rows = first.names[:n] if k == 0 else None
        plots.plot_images(images.reshape(-1, *images.shape[2:]), columns=6, rows=rows, ax=ax)
        ax.set_title(label, fontsize=11)
    plots.stamp(figure, {m: groups[m][0] for m in groups})
    return FigureSpec(
        figure,
        "Real images of the old classes, and generated ones by the class that the old network names; each "
        f"generated image from its least to its largest value. First seed. {scale(WARDROBE, size)}"
        f"{absent(groups, GENERATORS)}",
        f"Grids of images, a row for each of {n} classes. {'; '.join(numbers)}.",
        records,
        title=title,
    )


def _about_samples(seeds, n):
    """What is recorded of the generated images of old classes, in words: means over seeds."""
    counts, sure, spread, apart = (
        np.array([np.asarray(r.trace["samples"][c][0], dtype=float)[:n] for r in seeds])
        for c in ("counts", "confidence", "spread", "divergence")
    )
    rarest = (counts.min(1) / counts.mean(1)).mean()
    gap = np.mean([plots.recording(r, "bn")[1][-1] for r in seeds])
    return (
        f"rarest class {rarest:.2f} of its share, mean confidence {np.nanmean(sure):.2f}, variance of "
        f"features within a class {np.nanmean(spread):.3f}, divergence of images {np.nanmean(apart):.2f}, "
        f"gap of statistics {gap:.2f}"
    )


def course():
    """The same sixteen places of a generated batch while the generator learns, for two sets of losses."""
    title = "An image from nothing, step by step"
    records, groups, size = recorded(WARDROBE, GENERATORS)
    groups = {m: s for m, s in groups.items() if "images" in s[0].trace}
    if not groups:
        return no_record(title, "Generated images in the course of stage 1.", WARDROBE, GENERATORS)
    figure, axes = panels(6.4 * len(groups), 5.6, len(groups), squeeze=False)
    said = []
    for ax, (method, seeds) in zip(axes[0], groups.items()):
        steps, images, labels = plots.course(seeds[0])
        rows = [f"step {int(s)}" for s in steps]
        plots.plot_images(images[:, :10].reshape(-1, *images.shape[2:]), columns=10, rows=rows, ax=ax)
        ax.set_title(label_of(method), fontsize=11)
        said.append(f"{label_of(method)}: {len(np.unique(labels[-1]))} classes among the last sixteen")
    plots.stamp(figure, {m: s[0] for m, s in groups.items()})
    return FigureSpec(
        figure,
        "Ten images of a batch at some steps of the generator, each batch from new noise; each image from "
        f"its least to its largest value. First seed. {scale(WARDROBE, size)}{absent(groups, GENERATORS)}",
        f"Grids of images, a row for each of {len(rows)} steps. {'; '.join(said)}.",
        records,
        title=title,
    )


def generator_losses():
    """Each loss of the generator over its steps, where it is minimised and where it is left out."""
    title = "What each loss of the generator does"
    methods = ("mfgr", "mfgr-bn", "mfgr-base")
    records, groups, size = recorded(WARDROBE, methods)
    if "mfgr" not in groups:
        return no_record(title, "The losses of the generator over its steps.", WARDROBE, methods[:1])
    figure, axes = panels(15.0, 3.6, len(TERMS) + 1)
    said = []
    for ax, (term, name) in zip(axes, TERMS.items()):
        plots.plot_recording(groups, term, y=name, legend=False, ax=ax)
        ends = {label_of(m): [plots.recording(r, term)[1][-1] / 100 for r in s] for m, s in groups.items()}
        said.append(f"{name} at the end: {short(ends, float)}")
    for method, seeds in groups.items():
        gaps = plots.recording(seeds[0], "gaps")[1]
        look = plots.style(method)
        axes[-1].plot(np.arange(1, gaps.shape[1] + 1), gaps[-1], **look)
    axes[-1].set(xlabel="batch normalisation", ylabel="gap at the end", ylim=(0, None))
    axes[-1].spines[["top", "right"]].set_visible(False)
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, ncols=3, loc="outside upper center", frameon=False)
    plots.stamp(figure, groups)
    return FigureSpec(
        figure,
        f"The terms of equation 7, without their weights, while the generator for the second task learns "
        f"({plots.kind(groups)}), and at the end the gap of each batch normalisation (first seed). A method "
        f"that leaves a term out still records it. {scale(WARDROBE, size)}{absent(groups, methods)}",
        f"Curves over steps. {'. '.join(said)}.",
        records,
        title=title,
    )


FIGURES = {"mfgr-fig5-samples": samples, "mfgr-course": course, "mfgr-losses": generator_losses}
