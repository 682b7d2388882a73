"""What any method's results show: confusions, accuracy matrices, one task over time; and sample images."""

import dataclasses

import numpy as np

from clkit import plots
from clkit.book.explore.common import (
    ExploreError,
    choice,
    chosen,
    explorer,
    labels,
    name_of,
    said_interval,
    seeds_of,
    slider,
)
from clkit.book.show import View


def confusion_view(results, stage=-1, seed=None, by_group=False):
    """The confusion of one method after a stage (from 0), of all seeds together or of one seed."""
    seeds = chosen(results, seed)
    ax = plots.plot_confusion(seeds, stage, by_group=by_group)
    stage = stage % len(seeds[0].seen)
    right = 100 * np.mean([r.averages("images")[stage] for r in seeds])
    newest = 100 * np.mean([r.newest_share(stage) for r in seeds])
    more = (
        f", and {newest:.1f} % of all predictions fall on the newest task" if len(seeds[0].seen) > 1 else ""
    )
    return View(
        ax,
        f"Confusion matrix of {name_of(seeds)} {_after(seeds[0], stage)}, {seeds_of(seeds)}: {right:.1f} % "
        f"of the images of {seeds[0].seen[stage]} classes are on the diagonal{more}.",
    )


def matrix_view(results, stage=-1):
    """The accuracy matrix of one method after a stage (from 0), its average and forgetting in words."""
    seeds = chosen(results, None)
    stage = stage % len(seeds[0].seen)
    ax = plots.plot_accuracy_matrix(seeds, last=stage)
    until = [_until(r, stage) for r in seeds]
    text = (
        f"Accuracy matrix of {name_of(seeds)} {_after(seeds[0], stage)}, {seeds_of(seeds)}: the average"
        f" accuracy in the last row is {said_interval([r.average() for r in until])}"
    )
    if stage:
        forgotten = said_interval([r.forgetting() for r in until], "percentage points")
        text += f"; forgetting since each task's best is {forgotten}"
    return View(ax, text + ".")


def forgetting_view(results, task=0):
    """Accuracy on one task (from 0) over the stages that follow, a line a method; best and last in words."""
    groups = plots.grouped(results)
    ax = plots.plot_task(groups, task)
    said = []
    for method, seeds in groups.items():
        a = np.mean([r.accuracy()[:, task] for r in seeds], axis=0)
        a = 100 * a[~np.isnan(a)]
        numbers = f"{a.max():.1f} at best, {a[-1]:.1f} at the end" if len(a) > 1 else f"{a[-1]:.1f}"
        said.append(f"{plots.style(method)['label']} {numbers}")
    return View(
        ax,
        f"Accuracy on task {task + 1} in percent over the tasks learned, means over seeds: "
        f"{'; '.join(said)}.",
    )


def images_view(images, which=0, columns=8):
    """Samples of one superclass of an ImageSet, a row a class; without superclasses, of ten classes."""
    blocks = _blocks(images)
    title, classes = blocks[which % len(blocks)]
    labels = np.asarray(images.labels)
    picked = [np.flatnonzero(labels == k)[:columns] for k in classes]
    picked = [(k, p) for k, p in zip(classes, picked) if len(p)]
    if not picked:
        raise ExploreError(f"this set has no images of {title}")
    columns = min(len(p) for _, p in picked)
    pixels = np.asarray(images.images)[np.concatenate([p[:columns] for _, p in picked])]
    names = [images.names[k].rpartition("/")[2] for k, _ in picked]
    ax = plots.plot_images(pixels, columns=columns, rows=names)
    ax.set_title(f"{images.name}: {title}", fontsize=11)
    return View(
        ax,
        f"{len(pixels)} sample images of the set {images.name}, {title}: {columns} each of "
        f"{', '.join(names)}.",
    )


def _blocks(images):
    """[(title, classes)]: the superclasses, or tens of classes."""
    if images.groups is not None:
        return [(g, [k for k, h in enumerate(images.groups) if h == g]) for g in dict.fromkeys(images.groups)]
    tens = [list(range(n, min(n + 10, len(images.names)))) for n in range(0, len(images.names), 10)]
    return [(f"classes {images.names[t[0]]} to {images.names[t[-1]]}", t) for t in tens]


def _until(result, stage):
    """A result as it would be had learning ended after this stage."""
    tasks = int((np.cumsum(result.classes_per_task) <= result.seen[stage]).sum())
    there = result.labels < result.seen[stage]
    cut = {
        a: getattr(result, a)[: stage + 1]
        for a in ("seen", "learn_seconds", "test_seconds", "n_samples", "parameters")
    }
    return dataclasses.replace(
        result,
        classes_per_task=result.classes_per_task[:tasks],
        labels=result.labels[there],
        trace={},
        memory_bytes={},
        predictions=result.predictions[: stage + 1, there],
        rank=result.rank[: stage + 1, there],
        predictions_task_aware=result.predictions_task_aware[: stage + 2, there],
        **cut,
    )


def _after(result, stage):
    return "after all tasks at once" if len(result.seen) == 1 else f"after task {stage + 1} of {result.tasks}"


# ---- explorers


def confusion_explorer(results):
    """A slider over the learning stages, and choices of method and seed, around `confusion_view`."""
    groups = plots.grouped(results)

    def view(method, stage, seed):
        seeds = groups[method]
        return confusion_view(seeds, min(stage, len(seeds[0].seen)) - 1, seed)

    every = sorted(set.intersection(*({r.about.get("seed") for r in seeds} for seeds in groups.values())))
    return explorer(
        view,
        stage=slider("after task", _stages(groups)),
        method=choice("method", labels(groups)),
        seed=choice("seed", [("all", None), *((str(s), s) for s in every)]),
    )


def matrix_explorer(results):
    """A slider over the learning stages and a choice of method around `matrix_view`."""
    groups = plots.grouped(results)

    def view(method, stage):
        return matrix_view(groups[method], min(stage, len(groups[method][0].seen)) - 1)

    return explorer(
        view, stage=slider("after task", _stages(groups)), method=choice("method", labels(groups))
    )


def forgetting_explorer(results):
    """A slider over the tasks around `forgetting_view`."""
    groups = plots.grouped(results)
    return explorer(
        lambda task: forgetting_view(groups, task - 1),
        task=slider("task", next(iter(groups.values()))[0].tasks),
    )


def images_explorer(images, columns=8):
    """A slider over the superclasses of an ImageSet (or ten classes at a time) around `images_view`."""
    return explorer(
        lambda which: images_view(images, which - 1, columns),
        which=slider("family" if images.groups is not None else "classes", len(_blocks(images))),
    )


def _stages(groups):
    return max(len(seeds[0].seen) for seeds in groups.values())
