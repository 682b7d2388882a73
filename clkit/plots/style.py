"""Styles of methods, colour maps and text sizes."""

from clkit import papers

SEQUENTIAL, DIVERGING = "viridis", "RdBu_r"  # perceptually uniform; always centred at 0
SMALL, TICK, LABEL = 7, 9, 10  # points
TASK_MARKERS = "os^Dv<>pPX"


def style(method):
    """Colour, marker, linestyle and label of a method: see clkit.papers.style."""
    return papers.style(method)
