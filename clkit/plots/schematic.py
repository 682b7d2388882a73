"""Schematics: the data flow of a method as boxes and arrows, in one style for the whole book."""

import matplotlib.pyplot as plt
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

from clkit.plots.style import LABEL

# kind of a box: (face, edge, line style). The kinds differ by line style too, not by colour alone.
KINDS = {
    "data": ("#FFFFFF", "#000000", "solid"),
    "trained": ("#CFE8F7", "#0072B2", "solid"),
    "frozen": ("#E6E6E6", "#555555", "dashed"),
    "loss": ("#FBE3CF", "#D55E00", "solid"),
    "step": ("#DDF1E8", "#009E73", "solid"),
}
MEANING = {
    "data": "images, labels, outputs",
    "trained": "trained",
    "frozen": "frozen",
    "loss": "loss",
    "step": "computation",
}


def plot_schematic(boxes, arrows=(), notes=(), ax=None, size=(9.0, 4.0)):
    """Draw boxes and arrows; returns the Axes, whose unit is one inch.

    boxes: {name: (text, kind, x, y, width, height)}, where (x, y) is the centre and kind is one of KINDS.
    arrows: [(from, to, label, options)]; label and options are optional. options: "dashed" (gradients or
    copies), "curve" (bend to the left by this share of the length), "at" (offset of the label in x and y).
    notes: [(x, y, text)].
    """
    if ax is None:
        ax = plt.subplots(figsize=size, layout="constrained")[1]
    ax.set(xlim=(0, size[0]), ylim=(0, size[1]), aspect="equal")
    ax.axis("off")
    drawn = {name: _box(ax, *box) for name, box in boxes.items()}
    for start, end, *rest in arrows:
        label, options = rest[0] if rest else "", rest[1] if len(rest) > 1 else {}
        _arrow(ax, (drawn[start], boxes[start]), (drawn[end], boxes[end]), label, **options)
    for x, y, text in notes:
        ax.text(x, y, text, ha="center", va="center", fontsize=LABEL - 1, style="italic", color="#333333")
    used = [kind for kind in KINDS if kind in {box[1] for box in boxes.values()}]
    keys = [_patch((0, 0), 1, 1, kind, label=MEANING[kind]) for kind in used]
    ax.legend(handles=keys, loc="upper center", bbox_to_anchor=(0.5, 0), ncols=len(keys), frameon=False)
    return ax


def _patch(corner, width, height, kind, **options):
    face, edge, line = KINDS[kind]
    shape = "round,pad=0,rounding_size=0.08"
    look = {"facecolor": face, "edgecolor": edge, "linestyle": line, "linewidth": 1.4}
    return FancyBboxPatch(corner, width, height, boxstyle=shape, **look, **options)


def _box(ax, text, kind, x, y, width, height):
    patch = ax.add_patch(_patch((x - width / 2, y - height / 2), width, height, kind))
    ax.text(x, y, text, ha="center", va="center", fontsize=LABEL, linespacing=1.3)
    return patch


def _arrow(ax, start, end, label, dashed=False, curve=0.0, at=(0.0, 0.1)):
    (a, (_, _, x0, y0, *_)), (b, (_, _, x1, y1, *_)) = start, end
    look = {"arrowstyle": "-|>", "mutation_scale": 13, "linewidth": 1.3, "color": "#333333"}
    bend, line = f"arc3,rad={curve}", (0, (4, 3)) if dashed else "solid"
    ends = {"patchA": a, "patchB": b, "shrinkA": 1, "shrinkB": 1}
    ax.add_patch(FancyArrowPatch((x0, y0), (x1, y1), connectionstyle=bend, linestyle=line, **ends, **look))
    if label:
        # The midpoint of the curve lies half the bend away from the straight line.
        x = (x0 + x1) / 2 + curve / 2 * (y1 - y0) + at[0]
        y = (y0 + y1) / 2 - curve / 2 * (x1 - x0) + at[1]
        ax.text(x, y, label, ha="center", va="bottom", fontsize=LABEL - 1)
