"""What replay of features keeps: similarity by layer and task of several methods, and generated features."""

import matplotlib.pyplot as plt
import numpy as np

from clkit import plots
from clkit.analysis import embedding
from clkit.book.explore import common
from clkit.book.explore.common import ExploreError, name_of, seeds_of
from clkit.book.show import View

# ---- similarity of several methods


def similarity_view(results, layer, after=-1):
    """SVCCA of methods with their past on images of task 1: by layer after a task, and of a layer over tasks.

    results: {method: results}, with the trace table "similarity".   layer: its name.   after: a later task,
    from 0, negative from the end.
    """
    groups = plots.grouped(results)
    layers, values = _similar(groups)
    stages = next(iter(values.values())).shape[-1]
    if layer not in layers:
        raise ExploreError(f"there is no layer '{layer}': use one of {', '.join(layers)}")
    if not 1 <= after % stages or not -stages < after < stages:
        raise ExploreError(f"{stages} tasks are learned, numbered from 0: compare task 0 with a later one")
    after, row = after % stages, layers.index(layer)
    figure, (left, right) = plt.subplots(1, 2, figsize=(7.4, 3.9), layout="constrained", sharey=True)
    plots.plot_layers(groups, 0, after, legend=False, title=f"after task {after + 1}", ax=left)
    left.axvline(row, color="black", linewidth=1, linestyle="--")
    plots.plot_similarity_course(groups, layer, 0, legend=False, title=f"{layer}, over the tasks", ax=right)
    right.axvline(after + 1, color="black", linewidth=1, linestyle="--")
    right.set_ylabel("")
    handles, labels = right.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=3, frameon=False, fontsize=8)
    plots.stamp(figure, groups)
    return View(left, _about_similarity(groups, values, layer, row, after))


def _similar(groups):
    """(layers, {method: (L, T, T)} means over seeds)."""
    both = {m: [plots.similarity(r) for r in seeds] for m, seeds in groups.items()}
    layers = next(iter(both.values()))[0][0]
    return layers, {m: np.mean([values for _, values in rows], axis=0) for m, rows in both.items()}


def _about_similarity(groups, values, layer, row, after):
    """What `similarity_view` shows, in words."""
    said = []
    for method, seeds in groups.items():
        kept = 100 * np.mean([r.accuracy()[after, 0] for r in seeds])
        said.append(f"{name_of(seeds)} {values[method][row, 0, after]:.2f} ({kept:.0f} %)")
    return (
        f"Two panels of lines. SVCCA of layer {layer} between the networks after task 1 and after task "
        f"{after + 1}, on images of task 1, and in brackets the accuracy on them: {'; '.join(said)}. "
        f"{seeds_of(next(iter(groups.values()))).capitalize()}."
    )


def similarity_explorer(results):
    """Sliders over layers and tasks around `similarity_view`."""
    groups = plots.grouped(results)
    layers, values = _similar(groups)
    return common.explorer(
        lambda task, layer: similarity_view(groups, layer, task - 1),
        task=common.slider("task", next(iter(values.values())).shape[-1], 2),
        layer=common.stops("layer", [(name, name) for name in layers]),
    )


# ---- real and generated features


def feature_maps(result, perplexity=30):
    """[(classes (M,), real (M, 2), generated (M, 2))] after each task: one t-SNE map of both for each.

    result: with the trace table "features", of a method that recalls features.
    """
    if "features" not in result.trace:
        raise ExploreError(
            "no features are recorded: run it with record=('features',), or use the first seed"
        )
    table, maps = result.trace["features"], []
    for labels, real, drawn in zip(*(table[c] for c in ("labels", "real", "generated"))):
        if not len(drawn):
            raise ExploreError(f"{name_of([result])} recalls no features, so there is no map of them")
        labels, real = np.asarray(labels)[: len(drawn)], np.asarray(real, float)[: len(drawn)]
        both = embedding.tsne(real, np.asarray(drawn, float), perplexity=min(perplexity, len(drawn) / 2))
        maps.append((labels, *both))
    return maps


def features_view(result, maps, after=-1, marked=None):
    """Real and generated features of the first classes after a task, on one map, with numbers.

    result: with the trace table "features".   maps: from `feature_maps`.   after: the task, from 0, negative
    from the end.   marked: a class on the maps; None: all.
    """
    if not -len(maps) <= after < len(maps):
        raise ExploreError(f"{len(maps)} tasks are learned, numbered from 0: there is no task {after}")
    after %= len(maps)
    labels, real, drawn = maps[after]
    if marked is not None and marked not in labels:
        there = f"{labels.min()} to {labels.max()}"
        raise ExploreError(f"there is no class {marked} on this map: use one of the classes {there}")
    figure, ax = plt.subplots(figsize=(7.0, 4.6), layout="constrained")
    look = {"names": result.names, "marked": marked}
    plots.plot_map({"real": (real, labels), "generated": (drawn, labels)}, **look, ax=ax)
    ax.set_title(f"{name_of([result])} after task {after + 1} of {len(maps)}", fontsize=11)
    plots.stamp(figure, result)
    return View(ax, _about_features(result, after, marked))


def _about_features(result, after, marked):
    """What `features_view` shows, in words: numbers of the features themselves."""
    table = result.trace["features"]
    labels, real, drawn = (np.asarray(table[c][after]) for c in ("labels", "real", "generated"))
    labels, real = labels[: len(drawn)], real[: len(drawn)]
    shifts = embedding.shifts(real, labels, drawn, labels)
    known, chosen = np.asarray(table["recognised"][after]), sorted(shifts) if marked is None else [marked]
    mine = np.isin(result.labels, chosen)
    right = 100 * (result.predictions[after] == result.labels)[mine].mean()
    who = f"all {len(chosen)} classes" if marked is None else f"class {result.names[marked]}"
    nearest = "" if marked is not None else (
        f" The nearest neighbour of {100 * embedding.mixing(real, drawn):.0f} % of the points is of their "
        "own kind; 50 % would be a perfect mixture."
    )  # fmt: skip
    return (
        f"A t-SNE map of real features (filled) and generated ones (open) of {len(shifts)} classes, "
        f"{name_of([result])}, seed {result.about.get('seed', '?')}, after task {after + 1}. Of {who}, "
        f"{right:.0f} % of the test images and {100 * np.mean(known[chosen]):.0f} % of the generated "
        f"features are answered right; means are "
        f"{np.mean([shifts[k] for k in chosen]):.2f} spreads apart.{nearest}"
    )


def features_explorer(cases):
    """A slider over tasks, and choices of a class and a method, around `features_view`.

    cases: {method: (result, maps)}, of the same classes and tasks.
    """
    if not cases:
        raise ExploreError("there is nothing to explore: give result and maps of one method or more")
    result, maps = next(iter(cases.values()))
    classes = [("all", None), *((str(result.names[k]), int(k)) for k in np.unique(maps[0][0]))]
    return common.explorer(
        lambda task, marked, method: features_view(*cases[method], task - 1, marked),
        task=common.slider("task", len(maps)),
        marked=common.choice("class", classes),
        method=common.choice_of(cases),
    )
