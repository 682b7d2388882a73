"""What happens inside a network as tasks are learned: each layer on a plane, and how similar it stays."""

import matplotlib.pyplot as plt
import numpy as np

from clkit import plots
from clkit.book.explore import common
from clkit.book.explore.common import ExploreError, name_of
from clkit.book.show import View

# The place of the keys of the classes: below the map.
KEYS = {
    "loc": "upper center",
    "bbox_to_anchor": (0.5, 0),
    "ncols": 5,
    "columnspacing": 0.8,
    "handletextpad": 0,
}


def layer_view(result, planes, labels, layer, after=-1, marked=None):
    """A layer of a network after a task: test images on a plane, and its similarity to what it was.

    result: with the trace table "similarity".   planes: {layer: (T, N, 2)} of N images with these labels
    (N,), from `clkit.analysis.inside.planes`.   layer: its name.   after: the task, from 0, negative from the
    end.   marked: a class; None: all in their colours. Only images of classes learned so far are drawn. The
    similarity is for images of the marked class's task, or of the first one.
    """
    after, labels = _place(result, planes, layer, after, marked), np.asarray(labels)
    task = int(np.searchsorted(result.seen, marked or 0, side="right"))
    known = labels < result.seen[after]
    figure, (left, right) = plt.subplots(1, 2, figsize=(7.4, 4.0), layout="constrained")
    look = {"marked": marked if task <= after else None, "names": result.names, "legend": KEYS}
    plots.plot_map({"": (planes[layer][after][known], labels[known])}, **look, ax=left)
    left.set_title(f"{layer}: images of all classes so far", fontsize=10)
    said = f"{layer}: similarity, images of task {task + 1}"
    plots.plot_similarity_course(result, layer, task, legend=False, title="", ax=right)
    right.set_title(said, fontsize=10)
    right.axvline(after + 1, color="black", linewidth=1, linestyle="--")
    figure.suptitle(f"{name_of([result])} after task {after + 1} of {len(result.seen)}", fontsize=11)
    plots.stamp(figure, result)
    return View(left, _about(result, layer, after, task, marked))


def _place(result, planes, layer, after, marked):
    """The task as an index from 0; ExploreError if a place is not there."""
    stages, classes = len(result.seen), int(result.seen[-1])
    if layer not in planes:
        raise ExploreError(f"there is no layer '{layer}': use one of {', '.join(planes)}")
    if not -stages <= after < stages:
        raise ExploreError(f"{stages} tasks are learned, numbered from 0: there is no task {after}")
    if marked is not None and not 0 <= marked < classes:
        raise ExploreError(f"{classes} classes are learned, numbered from 0: there is no class {marked}")
    return after % stages


def _about(result, layer, after, task, marked):
    """What `layer_view` shows, in words."""
    said = (
        f"Layer {layer} of {name_of([result])}, seed {result.about.get('seed', '?')}, after task {after + 1} "
        f"of {len(result.seen)}. Left: test images of the {result.seen[after]} classes learned, on the plane "
        f"of the first two principal components."
    )
    if marked is not None:
        name, mine = result.names[marked], np.asarray(result.labels) == marked
        right = 100 * np.mean(result.predictions[after][mine] == marked)
        said += (
            f" Class {name} of task {task + 1} is marked; {right:.0f} % of its test images are answered so."
            if task <= after
            else f" Class {name} of task {task + 1} is not learned yet."
        )
    if task > after:
        return said
    names, similarity = plots.similarity(result)
    place = names.index(layer), task, after
    floor, linear = (plots.similarity(result, measure)[1][place] for measure in ("floor", "cka"))
    return (
        f"{said} Right: on images of task {task + 1}, SVCCA of this layer with the network after that task "
        f"is {similarity[place]:.2f} (chance floor {floor:.2f}); linear CKA is {linear:.2f}."
    )


# ---- explorer


def layer_explorer(cases, labels):
    """Sliders over tasks and layers, and choices of a class and a method, around `layer_view`.

    cases: {method: (result, planes)}, all of the same layers, tasks and images; labels: those of the images.
    """
    if not cases:
        raise ExploreError("there is nothing to explore: give result and planes of one method or more")
    result, planes = next(iter(cases.values()))
    classes = [("all", None), *((str(name), k) for k, name in enumerate(result.names))]
    return common.explorer(
        lambda task, layer, marked, method: layer_view(*cases[method], labels, layer, task - 1, marked),
        task=common.slider("task", len(result.seen)),
        layer=common.stops("layer", [(name, name) for name in planes], at=-2 if len(planes) > 1 else -1),
        marked=common.choice("class", classes),
        method=common.choice_of(cases),
    )
