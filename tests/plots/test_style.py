"""Styles: every method looks different from every other, also to colour-blind readers."""

from itertools import combinations

import numpy as np
import pytest
from matplotlib.colors import to_rgb

from clkit import papers, plots
from clkit.papers import palette


def test_every_method_has_a_look_of_its_own():
    every = [plots.style(method) for method in papers.methods()]
    looks = [(s["color"], s["marker"], s["linestyle"]) for s in every]
    assert len(set(looks)) == len(looks) and len({s["label"] for s in every}) == len(looks)
    mine = plots.style("my-method")
    assert mine == plots.style("my-method") and mine["label"] == "my-method"
    assert mine["linestyle"] not in [s["linestyle"] for s in every]
    assert plots.style("LwF") == plots.style("lwf")


# Machado, Oliveira and Fernandes (2009), table 1, severity 1.0, for linear RGB.
SIGHT = {
    "protanopia": [
        [0.152286, 1.052583, -0.204868],
        [0.114503, 0.786281, 0.099216],
        [-0.003882, -0.048116, 1.051998],
    ],
    "deuteranopia": [
        [0.367322, 0.860646, -0.227968],
        [0.280085, 0.672501, 0.047413],
        [-0.01182, 0.04294, 0.968881],
    ],
}


def lab(color, sight=None):
    """CIE L*a*b* of a colour as seen with a colour-vision deficiency."""
    rgb = np.array(to_rgb(color))
    rgb = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    rgb = np.clip(np.array(SIGHT[sight]) @ rgb, 0, 1) if sight else rgb
    xyz = (
        np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
        @ rgb
        / [0.9505, 1, 1.089]
    )
    f = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


# Of methods that figures show together, and of papers to come.
TOGETHER = {
    "baselines": [plots.style(m)["color"] for m in "finetune joint lwf lwf-multihead er".split()],
    "papers": [plots.style(m)["color"] for m in "finetune joint lwf er spacenet arm".split()]
    + [palette.ORANGE, palette.SKY, palette.INDIGO],
}


@pytest.mark.parametrize("sight", [None, *SIGHT])
@pytest.mark.parametrize("shown", TOGETHER)
def test_methods_shown_together_differ_for_the_colour_blind(sight, shown):
    colors = {c: lab(c, sight) for c in TOGETHER[shown]}
    distances = {(a, b): np.linalg.norm(colors[a] - colors[b]) for a, b in combinations(colors, 2)}
    assert {pair: d for pair, d in distances.items() if d < 12} == {} and len(distances) >= 10
    assert all(lab("white")[0] - c[0] > 25 for c in colors.values())  # and none is lost on white


def test_maps_are_even_and_never_a_rainbow():
    assert plots.SEQUENTIAL in ("viridis", "cividis") and plots.DIVERGING == "RdBu_r"
