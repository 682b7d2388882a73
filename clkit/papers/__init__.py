"""The description of each method, as plain data: one file per paper, and look-ups for general code.

FILES is the registry: a new paper needs a new file and one line here. Nothing in this folder loads torch.
"""

import hashlib
import itertools
from importlib import import_module

from clkit.errors import ClkitError, did_you_mean
from clkit.papers import palette
from clkit.papers.paper import ON_REQUEST, PRESETS, SEEDS, Benchmark, Paper, Table, Variant

__all__ = ["ON_REQUEST", "PAPERS", "PRESETS", "SEEDS", "Benchmark", "Paper", "PaperError", "Table", "Variant",
           "benchmark", "benchmarks", "methods", "paper_of", "size_of", "style"]

FILES = (
    "baselines",
    "spacenet",
    "arm",
    "online",
    "dgm",
    "generative",
    "gfr",
    "incremental",
    "mfgr",
)
PAPERS = {name: import_module(f"clkit.papers.{name}").PAPER for name in FILES}


class PaperError(ClkitError):
    """A method, benchmark or size that no paper has; the message offers the nearest match."""


def methods():
    """{method: Variant} of all papers."""
    return {name: variant for paper in PAPERS.values() for name, variant in paper.variants.items()}


def paper_of(method):
    """The Paper that defines a method; PaperError if none does."""
    for paper in PAPERS.values():
        if method in paper.variants:
            return paper
    raise PaperError(f"there is no method '{method}'{did_you_mean(method, methods())}")


def benchmarks():
    """{benchmark: {size: Benchmark or the name of another size}} of all papers."""
    return {name: sizes for paper in PAPERS.values() for name, sizes in paper.benchmarks.items()}


def size_of(benchmark, preset):
    """The size that a preset of a benchmark stands for: itself, or the one that it refers to."""
    row = benchmarks()[benchmark][preset]
    return row if isinstance(row, str) else preset


def benchmark(name, preset):
    """The Benchmark of that name in a size."""
    return benchmarks()[name][size_of(name, preset)]


def style(method):
    """Colour, marker, linestyle and label of a method; no other method has the same style.

    A method without a style, or without a paper, always gets the same free one.
    """
    known, name = methods(), str(method).lower()
    variant = known.get(name, Variant(str(method)))
    color, marker, linestyle = variant.color, variant.marker, variant.linestyle
    if color is None:
        looks, taken = list(itertools.product(palette.SPARE_MARKERS, palette.SPARE_COLORS)), []
        # in a fixed order, so that no two share a style
        for other in sorted({name, *(n for n, v in known.items() if v.color is None and n < name)}):
            number = int.from_bytes(hashlib.sha256(other.encode()).digest()[:4], "big")
            while looks[number % len(looks)] in taken and len(taken) < len(looks):
                number += 1
            taken.append(looks[number % len(looks)])
        (marker, color), linestyle = taken[-1], palette.SPARE_LINE
    return {"color": color, "marker": marker, "linestyle": linestyle, "label": variant.label}
