"""Styles of methods, colour maps and text sizes."""

from clkit import papers

SEQUENTIAL, DIVERGING = "viridis", "RdBu_r"  # perceptually uniform; always centred at 0
SMALL, TICK, LABEL = 7, 9, 10  # points
TASK_MARKERS = "os^Dv<>pPX"


def plain(text):
    """A name from outside, such as that of a class, as text of a plot: a dollar sign begins no formula.

    Legends leave out names that begin with an underscore, hence the space before it.
    """
    text = str(text).replace("$", r"\$")
    return f" {text}" if text.startswith("_") else text


def style(method):
    """Colour, marker, linestyle and label of a method: see clkit.papers.style."""
    return papers.style(method)


def drawn_style(method):
    """The same as keywords of a plot: the label is text, and no formula."""
    look = style(method)
    return look | {"label": plain(look["label"])}
