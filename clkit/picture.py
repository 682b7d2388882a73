"""What a figure of the book is, a Picture, and what the recipes in clkit/figures share.

A recipe reads committed records only: ``obtained`` and ``methods`` find them. The others put panels and
numbers in one style.
"""

from dataclasses import dataclass, field

import matplotlib.pyplot as plt

from clkit import plots, presets
from clkit.result import interval


@dataclass
class Picture:
    """A figure ready to be shown or written.

    figure: the matplotlib Figure.   caption: a sentence or two.   alt: what it shows, with its numbers, for
    those who do not see it.   records: {stem of a record: its results}.   about: further facts, where it
    shows more than records.
    """

    figure: object
    caption: str
    alt: str
    records: dict = field(default_factory=dict)
    about: dict = field(default_factory=dict)


def _quiet(line):
    """For obtain: the provenance of a figure stands in its JSON and on its stamp."""


# ---- records

def obtained(wanted):
    """{stem: results} of [(experiment name, overrides)] at the paper preset, from their records."""
    found = {}
    for name, overrides in wanted:
        chosen = presets.experiment(name, "paper", overrides)
        found[chosen.stem] = presets.obtain(name, "paper", overrides=overrides, say=_quiet)
    return found


def methods(benchmark, *names, overrides=None):
    """(records, {method: results}) of several methods on one benchmark, all with the same overrides."""
    records = obtained([(f"{m}/{benchmark}", overrides) for m in names])
    return records, dict(zip(names, records.values(), strict=True))


# ---- panels and numbers

def panels(width, height, columns=1, rows=1, **options):
    """(figure, axes) of `rows` x `columns` panels, as plt.subplots gives them."""
    return plt.subplots(rows, columns, figsize=(width, height), layout="constrained", **options)


def percent(seeds, score):
    """"19.9 %", or with its interval, in words."""
    i = interval([score(r) for r in seeds])
    return f"{100 * i.mean:.1f} %" + ("" if i.n < 2 else f" (± {100 * i.half:.1f}, {i.kind}, n = {i.n})")


def each(groups, score):
    """"Finetune 19.9 %; LwF 20.5 %": `percent` of each method."""
    return "; ".join(f"{plots.style(m)['label']} {percent(seeds, score)}" for m, seeds in groups.items())
