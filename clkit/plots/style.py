"""How things look: the styles of methods, the colour maps, and sizes of text."""

from clkit import papers

SEQUENTIAL, DIVERGING = "viridis", "RdBu_r"  # perceptually uniform; centred at 0 wherever it is used
SMALL, TICK, LABEL = 7, 9, 10  # points
TASK_MARKERS = "os^Dv<>pPX"


def style(method):
    """Colour, marker, linestyle and label of a method: see clkit.papers.style."""
    return papers.style(method)
