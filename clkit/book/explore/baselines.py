"""What any method's results show: confusions, accuracy matrices, one task over time; and sample images."""

import dataclasses

import numpy as np

from clkit import plots
from clkit.book.explore import common
from clkit.book.explore.common import ExploreError, name_of, said_interval, seeds_of
from clkit.book.show import View


def confusion_view(results, stage=-1, seed=None, by_group=False):
    """The confusion of one method after a stage (from 0), of all seeds together or of one seed."""
    seeds = common.chosen(results, seed)
    ax = plots.plot_confusion(seeds, stage, by_group=by_group)
    seen = seeds[0].seen
    stage = stage % len(seen)
    right = 100 * np.mean([r.averages("images")[stage] for r in seeds])
    newest = 100 * np.mean([r.newest_share(stage) for r in seeds])
    more = f", and {newest:.1f} % of all predictions fall on the newest task" if len(seen) > 1 else ""
    what = f"{name_of(seeds)} {_after(seeds[0], stage)}, {seeds_of(seeds)}"
    where = f"of the images of {seen[stage]} classes are on the diagonal"
    return View(ax, f"Confusion matrix of {what}: {right:.1f} % {where}{more}.")


def matrix_view(results, stage=-1):
    """The accuracy matrix of one method after a stage (from 0), its average and forgetting in words."""
    seeds = common.chosen(results, None)
    stage = stage % len(seeds[0].seen)
    ax = plots.plot_accuracy_matrix(seeds, last=stage)
    # the scores that there would be, had learning ended here
    until = [dataclasses.replace(r, predictions=r.predictions[: stage + 1]) for r in seeds]
    what = f"{name_of(seeds)} {_after(seeds[0], stage)}, {seeds_of(seeds)}"
    average = said_interval([r.average() for r in until])
    text = f"Accuracy matrix of {what}: the average accuracy in the last row is {average}"
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
    what = f"Accuracy on task {task + 1} in percent over the tasks learned, means over seeds"
    return View(ax, f"{what}: {'; '.join(said)}.")


def images_view(images, which=0, columns=7):
    """Samples of one superclass of an ImageSet, a row a class; without superclasses, of ten classes."""
    blocks = _blocks(images)
    title, classes = blocks[which % len(blocks)]
    labels = np.asarray(images.labels)
    picked = {k: np.flatnonzero(labels == k)[:columns] for k in classes if (labels == k).any()}
    if not picked:
        raise ExploreError(f"this set has no images of {title}")
    columns = min(map(len, picked.values()))
    pixels = np.asarray(images.images)[np.concatenate([p[:columns] for p in picked.values()])]
    names = [_short(images, k) for k in picked]
    ax = plots.plot_images(pixels, columns=columns, rows=names)
    ax.set_title(plots.plain(f"{images.name}: {title}"), fontsize=11)
    what = f"{len(pixels)} sample images of the set {images.name}, {title}"
    return View(ax, f"{what}: {columns} each of {', '.join(names)}.")


def _blocks(images):
    """[(title, classes)]: the superclasses, or tens of classes."""
    if images.groups is not None:
        classes = {}
        for k, group in enumerate(images.groups):
            classes.setdefault(group, []).append(k)
        return list(classes.items())
    tens = [list(range(n, min(n + 10, len(images.names)))) for n in range(0, len(images.names), 10)]
    return [(f"classes {images.names[t[0]]} to {images.names[t[-1]]}", t) for t in tens]


def _short(images, k):
    """The name of a class below the name of its superclass: "5 rays" of "star/5 rays"."""
    return images.names[k].removeprefix(f"{images.groups[k]}/") if images.groups else images.names[k]


def _after(result, stage):
    return "after all tasks at once" if len(result.seen) == 1 else f"after task {stage + 1} of {result.tasks}"


# ---- explorers


def confusion_explorer(results):
    """A slider over the learning stages, and choices of method and seed, around `confusion_view`."""
    groups = plots.grouped(results)
    every = common.shared([r.about.get("seed") for r in seeds] for seeds in groups.values())
    seed = common.choice("seed", [("all", None), *((str(s), s) for s in every)])
    return _by_stage(groups, confusion_view, seed=seed)


def matrix_explorer(results):
    """A slider over the learning stages and a choice of method around `matrix_view`."""
    return _by_stage(plots.grouped(results), matrix_view)


def _by_stage(groups, view, **more):
    """Controls of stage and method, and more of them, around a view of one method's results."""
    stages = {method: len(seeds[0].seen) for method, seeds in groups.items()}
    return common.explorer(
        lambda stage, method, **place: view(groups[method], min(stage, stages[method]) - 1, **place),
        stage=common.slider("after task", max(stages.values())),
        method=common.choice_of(groups),
        **more,
    )


def forgetting_explorer(results):
    """A slider over the tasks around `forgetting_view`."""
    groups = plots.grouped(results)
    task = common.slider("task", next(iter(groups.values()))[0].tasks)
    return common.explorer(lambda task: forgetting_view(groups, task - 1), task=task)


def images_explorer(images, columns=7):
    """A slider over the superclasses of an ImageSet (or ten classes at a time) around `images_view`."""
    which = common.slider("classes" if images.groups is None else "family", len(_blocks(images)))
    return common.explorer(lambda which: images_view(images, which - 1, columns), which=which)
