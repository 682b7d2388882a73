"""FigureSpec, a figure of the book, and the helpers that figure functions share.

Figure functions read only committed records. `load_records`, `records_of`, `available_records` and
`available` find them without importing torch; `overrides` are those of the record, with values of the field's
type that differ from the experiment's defaults. The other helpers give panels and numbers one style.
"""

import io
from dataclasses import dataclass, field

import matplotlib.pyplot as plt
from matplotlib.lines import Line2D

from clkit import experiments, plots
from clkit.papers.palette import BLUE, VERMILLION
from clkit.result import Result, interval


@dataclass
class FigureSpec:
    """A figure ready to be shown or written.

    figure: the matplotlib Figure.   title: a few words.   caption: one or two sentences.   alt: a description
    of what it shows, with numbers, for readers who cannot see it.   records: {stem of a record: its results},
    empty for a schematic.   about: further facts, if it shows more than records.
    """

    figure: object
    caption: str
    alt: str
    records: dict = field(default_factory=dict)
    about: dict = field(default_factory=dict)
    title: str = ""


# ---- records


def load_records(wanted, preset="paper", trace=True):
    """{stem: results} of [(experiment name, overrides)] from records; PresetError if one is missing.

    trace: whether to read trace tables too, which takes most of the time.
    """
    found = {}
    for name, overrides in wanted:
        experiment = experiments.exact_experiment(name, preset, overrides)
        if not experiments.on_record(name, preset, overrides):
            raise experiments.PresetError(
                f"there is no record of {name} at the {preset} preset: make it with `{experiment.command}`"
            )
        found[experiment.stem] = experiments.load_record(name, preset, overrides, trace)
    return found


def records_of(benchmark, *methods, preset="paper", overrides=None):
    """(records, {method: results}) of several methods on one benchmark, all with the same overrides."""
    records = load_records([(f"{m}/{benchmark}", overrides) for m in methods], preset)
    return records, dict(zip(methods, records.values(), strict=True))


def available_records(rows, needed=None, trace=True, preset="paper"):
    """The rows of [(label, experiment name, overrides)] that have a record.

    needed: a label that must have a record, by default the first one that has.   trace, preset: see
    load_records.
    Returns (records {stem: results}, {label: results}, labels without a record). PresetError if a record is
    stale, if `needed` has no record, or if no row has one.
    """
    there = {label: on_record(*row, preset=preset) for label, *row in rows}
    there[needed or next((label for label in there if there[label]), rows[0][0])] = True
    records, groups = labelled_records([row for row in rows if there[row[0]]], trace, preset)
    return records, groups, [label for label in there if not there[label]]


def labelled_records(rows, trace=True, preset="paper"):
    """(records {stem: results}, {label: results}) of [(label, experiment name, overrides)]."""
    records = load_records([row[1:] for row in rows], preset, trace)
    return records, dict(zip([row[0] for row in rows], records.values(), strict=True))


def available(rows, sizes):
    """(records, {label: results}, size) of rows in the size with most records of them, or ({}, {}, None).

    rows: [(label, experiment name, overrides)]; experiments that do not exist are left out.   sizes: of two
    with as many records, the earlier one.
    """
    rows = [row for row in rows if row[1] in experiments.names()]
    there = {size: [row for row in rows if on_record(*row[1:], preset=size)] for size in sizes}
    size = max(sizes, key=lambda size: len(there[size]))
    return (*labelled_records(there[size], preset=size), size) if there[size] else ({}, {}, None)


def on_record(name, overrides=None, preset="paper"):
    """Whether an experiment has a record at a preset, fresh or stale."""
    return experiments.on_record(name, preset, overrides)


def left_out(absent):
    """A sentence for a caption about rows without a record; "" if there are none."""
    return f" Omitted, because they have no record: {'; '.join(absent)}." if absent else ""


# ---- printed numbers

_PRINTED = {"color": VERMILLION, "marker": "D", "markersize": 5, "markerfacecolor": "none", "ls": "none"}


def mark_printed(ax, labels, printed, limits=(0, 100), beside=74):
    """Mark printed numbers on the axes of plot_ablation: as diamonds, and as text.

    labels: of all rows.   printed: {label: Published}.   limits: of the axis.   beside: distance of the text
    from the axes, in points.
    """
    place = {"textcoords": "offset points", "xycoords": ("axes fraction", "data"), "va": "center"}
    for label, p in printed.items():
        row = labels.index(label)
        ax.errorbar(p.value, row + 0.22, xerr=p.spread, capsize=3, zorder=5, **_PRINTED)  # below the dot
        ax.annotate(p.text, (1.01, row), xytext=(beside, 0), fontsize=9, color=_PRINTED["color"], **place)
    ax.set_yticks(range(len(labels)), labels)
    ax.set_ylim(len(labels) - 0.4, -0.6)
    ax.set_xlim(*limits)


def printed_handles(printed="printed, with its ±", seeds=True):
    """Legend handles for dots, open dots (with several seeds) and diamonds."""
    theirs, dot = Line2D([], [], label=printed, **_PRINTED), {"color": BLUE, "marker": "o"}
    if not seeds:
        return [Line2D([], [], linestyle="none", label="our run", **dot), theirs]
    one = dot | {"markerfacecolor": "white", "linestyle": "none", "markersize": 4, "label": "one seed"}
    return [Line2D([], [], label="our runs: mean and interval", **dot), Line2D([], [], **one), theirs]


# ---- panels and numbers


def panels(width, height, columns=1, rows=1, **options):
    """(figure, axes) of `rows` x `columns` panels, as plt.subplots returns them."""
    return plt.subplots(rows, columns, figsize=(width, height), layout="constrained", **options)


def side_by_side(plot, groups, last, width, height, y_labels=False, **options):
    """A figure with one panel per method; last: what only the last panel shows, such as "legend"."""
    figure, axes = panels(width, height, len(groups), **options)
    for n, (ax, seeds) in enumerate(zip(axes, groups.values())):
        plot(seeds, ax=ax, **{last: n == len(groups) - 1})
        if n and not y_labels:
            ax.set_ylabel("")
    if last == "colorbar":
        bar_of_all(figure, groups)
    plots.stamp(figure, groups)
    return figure


def bar_of_all(figure, groups):
    """Let the colour bar, the last axes, state the seeds of all panels instead of those of the last one."""
    if len({len(seeds) for seeds in groups.values()}) > 1:
        bar = figure.axes[-1]
        bar.set_ylabel(f"{bar.get_ylabel().partition(', ')[0]}, mean over seeds")


def mean_of_seeds(groups):
    """ "mean of 5 seeds", "mean of 1 to 3 seeds" or "single seed, n = 1", of {label: results}."""
    counts = [len(seeds) for seeds in groups.values()]
    low, high = min(counts), max(counts)
    if high == 1:
        return "single seed, n = 1"
    return f"mean of {low if low == high else f'{low} to {high}'} seeds"


def scenarios(methods, caption):
    """The figure of `plot_scenarios` on split MNIST; methods: their names, separated by spaces."""
    records, groups = records_of("split-mnist", *methods.split())
    both = [each(groups, score) for score in (Result.average, Result.task_aware_average)]
    alt = f"Pairs of bars. Class-incremental average accuracy: {both[0]}. Task-aware: {both[1]}."
    return FigureSpec(plots.plot_scenarios(groups).figure, caption, alt, records)


def shared_bar(axes, label, **options):
    """One colour bar for several maps on the same scale."""
    bar = axes[0].figure.colorbar(axes[-1].images[0], ax=list(axes), **options)
    bar.set_label(label)
    bar.outline.set_visible(False)


def percent(seeds, score):
    """ "19.9 %", with its interval if there are several seeds."""
    i = interval([score(r) for r in seeds])
    return f"{100 * i.mean:.1f} %" + ("" if i.n < 2 else f" (± {100 * i.half:.1f}, {i.kind}, n = {i.n})")


def short(groups, score):
    """ "ER 62.8 ± 3.1; ARM 56.3": means and half-widths in percent; the text around must give kind and n."""
    every = {label: interval([score(r) for r in seeds]) for label, seeds in groups.items()}
    return "; ".join(
        f"{label} {100 * i.mean:.1f}" + ("" if i.n < 2 else f" ± {100 * i.half:.1f}")
        for label, i in every.items()
        if i.mean == i.mean  # NaN: undefined
    )


def each(groups, score):
    """ "Finetune 19.9 %; LwF 20.5 %": `percent` of each method."""
    return each_label({plots.style(m)["label"]: seeds for m, seeds in groups.items()}, score)


def each_label(shown, score):
    """The same for {label: results}."""
    return "; ".join(f"{label} {percent(seeds, score)}" for label, seeds in shown.items())


# ---- files


def few_colours(png, level=7):
    """The same PNG with a palette of 256 colours, enough for every plot here, in 40 % of the bytes.

    level: of compression; 9 takes another tenth off, and longer.
    """
    from PIL import Image, PngImagePlugin

    picture, notes, file = Image.open(io.BytesIO(png)), PngImagePlugin.PngInfo(), io.BytesIO()
    for key, text in picture.text.items():
        notes.add_text(key, text)
    picture = picture.convert("RGB")
    refine = int(picture.getcolors(2000) is None)  # otherwise large areas of a heat map are tinted
    look = {"method": Image.Quantize.MAXCOVERAGE, "kmeans": refine, "dither": Image.Dither.NONE}
    picture.quantize(256, **look).save(file, "png", compress_level=level, pnginfo=notes)
    return file.getvalue()
