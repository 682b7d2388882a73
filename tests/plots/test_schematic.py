"""Schematics: boxes with their texts, arrows from edge to edge, and a legend of the kinds in use."""

import matplotlib.pyplot as plt
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

from clkit import plots

BOXES = {
    "x": ("images", "data", 1.0, 2.0, 1.4, 0.7),
    "net": ("network", "trained", 4.0, 2.0, 1.4, 0.7),
    "old": ("old network", "frozen", 4.0, 0.8, 1.4, 0.7),
}


def test_boxes_arrows_and_notes_are_drawn():
    ax = plots.plot_schematic(
        BOXES, [("x", "net", "x"), ("x", "old", "", {"dashed": True})], [(6, 1, "a note")]
    )
    words = [t.get_text() for t in ax.texts]
    assert {"images", "network", "old network", "x", "a note"} == set(words)
    assert sum(isinstance(p, FancyBboxPatch) for p in ax.patches) == 3
    arrows = [p for p in ax.patches if isinstance(p, FancyArrowPatch)]
    assert [a.get_linestyle() == "solid" or a.get_linestyle() == "-" for a in arrows] == [True, False]
    plt.close("all")


def test_the_legend_names_the_kinds_that_occur():
    ax = plots.plot_schematic(BOXES)
    assert [t.get_text() for t in ax.get_legend().get_texts()] == [
        "images, labels, outputs",
        "trained",
        "frozen",
    ]
    plt.close("all")


def test_an_arrow_to_a_box_above_keeps_its_label_beside_its_middle():
    boxes = {"a": ("a", "data", 2, 1, 1, 0.5), "b": ("b", "step", 2, 3, 1, 0.5)}
    label = plots.plot_schematic(boxes, [("a", "b", "up", {"at": (0.3, 0.0)})]).texts[-1]
    assert label.get_text() == "up" and label.get_position() == (2.3, 2.0)
    plt.close("all")
