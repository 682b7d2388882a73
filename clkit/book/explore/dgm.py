"""What the masks of DGM show: their values in the course of a task, and the tasks that use each channel."""

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.colors import ListedColormap
from matplotlib.patches import Patch

from clkit import plots
from clkit.book.explore import common
from clkit.book.explore.common import ExploreError, name_of
from clkit.book.show import View
from clkit.papers.palette import BLUE, ORANGE

SOFT = 0.01  # a value further than this from 0 and 1 is soft
KINDS = (("did not exist", "#FFFFFF"), ("not used", "#DDDDDD"), ("newly reserved", ORANGE), ("reused", BLUE))


def mask_view(results, task=0, layer=0, epoch=-1, seed=None):
    """The mask of one task and layer (from 0) as an epoch begins, of one seed: the first recorded one.

    epoch: from 0, negative from the end. Left: its values in order; right: the course of each over epochs.
    """
    result = _masked(common.chosen(results, seed))
    values = plots.mask_course(result, task, layer)  # (E, n)
    if not -len(values) <= epoch < len(values):
        raise ExploreError(f"{len(values)} epochs are recorded, numbered from 0: there is no epoch {epoch}")
    epoch %= len(values)
    figure, (left, right) = plt.subplots(
        1, 2, figsize=(7.3, 3.7), layout="constrained", width_ratios=(1, 1.5)
    )
    _in_order(left, values[epoch], values[-1] > 0.5)
    plots.plot_mask_course(result, task, layer, title="", ax=right)
    right.axvline(epoch, color="black", linewidth=1, linestyle=":")
    what = f"{name_of([result])}, task {task + 1}, layer {layer + 1}"
    figure.suptitle(f"{what}, as epoch {epoch + 1} of {len(values)} begins", fontsize=11)
    plots.stamp(figure, result)
    return View(left, _about_mask(result, what, values, epoch))


def _masked(seeds):
    """The first of the seeds whose masks are recorded."""
    return next((r for r in seeds if "masks" in r.trace), seeds[0])


def _in_order(ax, values, on):
    """Draw the values (n,) from the smallest to the largest; on: which end above a half."""
    order = np.argsort(values, kind="stable")
    at = np.arange(1, len(values) + 1)
    for which, color in ((~on[order], "#999999"), (on[order], BLUE)):
        ax.plot(at[which], values[order][which], ".", color=color, markersize=5, clip_on=False)
    ax.set(xlabel="place in the mask, in order of its value", ylabel="mask value", ylim=(-0.02, 1.02))
    ax.spines[["top", "right"]].set_visible(False)
    ax.grid(axis="y", color="#DDDDDD", linewidth=0.8)


def _about_mask(result, what, values, epoch):
    """What `mask_view` shows, in words."""
    now, n = values[epoch], values.shape[1]
    on, off = int((now > 1 - SOFT).sum()), int((now < SOFT).sum())
    places = "channels" if result.about.get("config", {}).get("unit") == "channel" else "recorded weights"
    return (
        f"Mask of {what}, seed {result.about.get('seed', '?')}, as epoch {epoch + 1} of {len(values)} begins:"
        f" of {n} {places}, {on} are on (above {1 - SOFT:g}), {off} off (below {SOFT:g}), {n - on - off}"
        f" between; their mean is {now.mean():.2f}. At the last recorded epoch {(values[-1] > 0.5).sum()} are"
        f" above a half."
    )


def units_view(learner, layer=0):
    """Which task uses which channel of a layer (from 0) of a learner with masks of channels (DGMa).

    A row a task, a column a channel. A channel is newly reserved by the first task that uses it.
    """
    generator, tasks = learner.generator, len(learner.ends)
    if generator.unit != "channel":
        raise ExploreError("this map needs masks of channels: give a learner of DGMa")
    if not tasks:
        raise ExploreError("no task has been learned, so no channel is reserved: call learn first")
    masks = [generator.mask_of(t, layer).cpu().numpy() > 0.5 for t in range(tasks)]
    board, taken = np.zeros((tasks, len(masks[-1])), dtype=int), np.zeros(len(masks[-1]), dtype=bool)
    for row, mask in zip(board, masks):
        row[: len(mask)] = 1 + mask * (1 + taken[: len(mask)])
        taken[: len(mask)] |= mask
    figure, ax = plt.subplots(figsize=(9.0, 1.4 + 0.3 * tasks), layout="constrained")
    look = {"cmap": ListedColormap([color for _, color in KINDS]), "vmin": 0, "vmax": 3, "aspect": "auto"}
    ax.imshow(board, interpolation="none", extent=(0.5, board.shape[1] + 0.5, tasks + 0.5, 0.5), **look)
    ax.set_yticks(range(1, tasks + 1))
    ax.set(xlabel=f"channel of layer {layer + 1}", ylabel="task")
    keys = [Patch(facecolor=color, edgecolor="#888888", label=kind) for kind, color in KINDS]
    figure.legend(handles=keys, loc="outside upper center", ncols=len(KINDS), frameon=False, fontsize=9)
    rows = [[(row == kind).sum() for kind in (2, 3)] for row in board]
    said = "; ".join(f"task {t}: {new} and {old}" for t, (new, old) in enumerate(rows, 1))
    return View(
        ax,
        f"A map of {tasks} tasks by {board.shape[1]} channels of layer {layer + 1}. Channels newly reserved"
        f" and reused, {said}. {int((~taken).sum())} are free for the next task.",
    )


# ---- explorer


def mask_explorer(results):
    """Sliders over tasks and epochs, and choices of layer and method, around `mask_view`."""
    groups = {m: _masked(seeds) for m, seeds in plots.grouped(results).items()}
    for method, result in groups.items():
        if "masks" not in result.trace:
            need = "run it with record=('masks',)"
            raise ExploreError(f"no masks are recorded for {method}: {need}")
    tables = [r.trace["masks"] for r in groups.values()]
    epochs, layers = (common.shared([np.asarray(t[c]).tolist() for t in tables]) for c in ("epoch", "layer"))
    return common.explorer(
        lambda task, epoch, layer, method: mask_view(groups[method], task - 1, layer, epoch - 1),
        task=common.slider("task", min(r.tasks for r in groups.values())),
        epoch=common.slider("epoch", len(epochs)),
        layer=common.choice("layer", [(f"layer {n + 1}", n) for n in layers]),
        method=common.choice_of(groups),
    )
