"""Who each method is, as plain data: a file a paper, and the look-ups that general code needs.

FILES is the registry: a new paper is a new file and one line here. Nothing in this folder loads torch.
"""

import hashlib
from importlib import import_module

from clkit.errors import ClkitError, did_you_mean
from clkit.papers import palette
from clkit.papers.paper import PRESETS, SEEDS, Benchmark, Paper, Table, Variant

__all__ = ["PAPERS", "PRESETS", "SEEDS", "Benchmark", "Paper", "PaperError", "Table", "Variant", "benchmark",
           "benchmarks", "methods", "paper_of", "size_of", "style"]

FILES = (
    "baselines",
    "spacenet",
    "arm",
    "online",
)
PAPERS = {name: import_module(f"clkit.papers.{name}").PAPER for name in FILES}


class PaperError(ClkitError):
    """A method, benchmark or size that no paper has; the message offers the nearest."""


def methods():
    """{method: Variant} of all papers."""
    return {name: variant for paper in PAPERS.values() for name, variant in paper.variants.items()}


def paper_of(method):
    """The Paper that brings a method; PaperError where none does."""
    for paper in PAPERS.values():
        if method in paper.variants:
            return paper
    raise PaperError(f"there is no method '{method}'{did_you_mean(method, methods())}")


def benchmarks():
    """{benchmark: {size: Benchmark or the name of another size}} of all papers."""
    return {name: sizes for paper in PAPERS.values() for name, sizes in paper.benchmarks.items()}


def size_of(benchmark, preset):
    """The size that a preset of a benchmark stands for: itself, or the one that it repeats."""
    row = benchmarks()[benchmark][preset]
    return row if isinstance(row, str) else preset


def benchmark(name, preset):
    """The Benchmark of that name in a size."""
    return benchmarks()[name][size_of(name, preset)]


def style(method):
    """Colour, marker, linestyle and label of a method: one look that no other method has.

    A method that brings none, or that no paper has, always gets the same free one.
    """
    known = methods()
    variant = known.get(str(method).lower(), Variant(str(method)))
    if variant.color is not None:
        return {"color": variant.color, "marker": variant.marker, "linestyle": variant.linestyle,
                "label": variant.label}
    unstyled = sorted({*(n for n, v in known.items() if v.color is None), str(method).lower()})
    taken = []
    for name in unstyled:                               # in one order, so that no two share a look
        number = int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "big")
        looks = len(palette.SPARE_COLORS) * len(palette.SPARE_MARKERS)
        while number % looks in taken and len(taken) < looks:
            number += 1
        taken.append(number % looks)
        if name == str(method).lower():
            break
    colors, markers = palette.SPARE_COLORS, palette.SPARE_MARKERS
    return {"color": colors[taken[-1] % len(colors)], "marker": markers[taken[-1] // len(colors)],
            "linestyle": palette.SPARE_LINE, "label": variant.label}
