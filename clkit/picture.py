"""What a figure of the book is, a Picture, and what the recipes in clkit/figures share.

A recipe reads committed records only: ``obtained`` and ``methods`` find them. The others put panels and
numbers in one style.
"""

from dataclasses import dataclass, field

import matplotlib.pyplot as plt
from matplotlib.lines import Line2D

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


def found(rows, needed=None):
    """What is on record of [(label, experiment name, overrides)], at the paper preset.

    Overrides that repeat the setting of the experiment do not count.   needed: a label that is not left out.
    Returns (records {stem: results}, {label: results}, labels left out because there is no record).
    PresetError for a stale record, where `needed` has none, and where none has one.
    """
    records, groups, absent = {}, {}, []
    needed = needed or next((label for label, *row in rows if on_record(*row)), rows[0][0])
    for label, name, overrides in rows:
        if label != needed and not on_record(name, overrides):
            absent.append(label)
            continue
        own = _own(name, overrides)
        records |= (one := obtained([(name, own)]))
        groups[label] = next(iter(one.values()))
    return records, groups, absent


def on_record(name, overrides=None):
    """Whether there is a record of an experiment at the paper preset, be it fresh or stale."""
    if name not in presets.SETTINGS:
        return False
    stem = presets.experiment(name, "paper", _own(name, overrides)).stem
    return (presets.RECORDS / f"{stem}.json").is_file()


def _own(name, overrides):
    """Those overrides that differ from the settings of the experiment."""
    plain = presets.experiment(name, "paper").config
    return {k: v for k, v in (overrides or {}).items() if getattr(plain, k, None) != v}


def left_out(absent):
    """A sentence about rows without a record, for a caption; "" if there are none."""
    return f" Left out, because there is no record of them: {'; '.join(absent)}." if absent else ""


# ---- printed numbers

_PRINTED = {"color": "#D55E00", "marker": "D", "linestyle": "none", "markersize": 5,
            "markerfacecolor": "none"}


def mark_printed(ax, labels, printed, limits=(0, 100), beside=74):
    """Diamonds for printed numbers, written out too, on axes of plot_ablation.

    labels: of all rows.   printed: {label: Published}.   limits: of the axis.   beside: how far right of the
    axes they are written, in points.
    """
    for label, p in printed.items():
        y = labels.index(label) + 0.22                  # below the dot
        ax.errorbar(p.value, y, xerr=p.spread, capsize=3, zorder=5, **_PRINTED)
        ax.annotate(p.text, (1.01, labels.index(label)), xytext=(beside, 0), textcoords="offset points",
                    xycoords=("axes fraction", "data"), va="center", fontsize=9, color=_PRINTED["color"])
    ax.set_yticks(range(len(labels)), labels)
    ax.set_ylim(len(labels) - 0.4, -0.6)
    ax.set_xlim(*limits)


def printed_handles(printed="printed, with its ±", seeds=True):
    """What a legend says beside dots, open dots (where there are several seeds) and diamonds."""
    theirs = Line2D([], [], label=printed, **_PRINTED)
    if not seeds:
        return [Line2D([], [], color="#0072B2", marker="o", linestyle="none", label="our run"), theirs]
    return [Line2D([], [], color="#0072B2", marker="o", label="our runs: mean and interval"),
            Line2D([], [], color="#0072B2", marker="o", markerfacecolor="white", linestyle="none",
                   markersize=4, label="one seed"), theirs]


# ---- panels and numbers

def panels(width, height, columns=1, rows=1, **options):
    """(figure, axes) of `rows` x `columns` panels, as plt.subplots gives them."""
    return plt.subplots(rows, columns, figsize=(width, height), layout="constrained", **options)


def percent(seeds, score):
    """"19.9 %", or with its interval, in words."""
    i = interval([score(r) for r in seeds])
    return f"{100 * i.mean:.1f} %" + ("" if i.n < 2 else f" (± {100 * i.half:.1f}, {i.kind}, n = {i.n})")


def short(groups, score):
    """"ER 62.8 ± 3.1; ARM 56.3": means and half-widths in percent, for a text that says their kind and n."""
    every = {label: interval([score(r) for r in seeds]) for label, seeds in groups.items()}
    return "; ".join(f"{label} {100 * i.mean:.1f}" + ("" if i.n < 2 else f" ± {100 * i.half:.1f}")
                     for label, i in every.items() if i.mean == i.mean)             # NaN: undefined


def each(groups, score):
    """"Finetune 19.9 %; LwF 20.5 %": `percent` of each method."""
    return "; ".join(f"{plots.style(m)['label']} {percent(seeds, score)}" for m, seeds in groups.items())
