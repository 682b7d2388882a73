"""How things look: the styles of methods and kinds of memory, the colour maps, and sizes of text."""

from clkit import papers
from clkit.papers.palette import MEMORY_KINDS

SEQUENTIAL, DIVERGING = "viridis", "RdBu_r"  # perceptually uniform; centred at 0 wherever it is used
SMALL, TICK, LABEL = 7, 9, 10  # points
TASK_MARKERS = "os^Dv<>pPX"


def style(method):
    """Colour, marker, linestyle and label of a method: see clkit.papers.style."""
    return papers.style(method)


def memory_color(kind):
    """The colour of a kind of memory, as Learner.memory_kinds names them; grey for any that is new."""
    return MEMORY_KINDS.get(kind, "#BBBBBB")
