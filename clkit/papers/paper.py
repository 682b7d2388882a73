"""What a paper says about its methods and experiments: dataclasses that the files in this folder fill in."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

PRESETS = ("smoke", "teach", "laptop", "paper")
SEEDS = {"smoke": (0,), "teach": (0, 1, 2), "laptop": (0, 1, 2, 3, 4), "paper": (0, 1, 2, 3, 4)}


@dataclass(frozen=True)
class Variant:
    """One method of a paper: its label, its style in plots, and the Config fields that make it this variant.

    color, marker, linestyle: as in matplotlib; None: `clkit.papers.style` picks a free style.
    """

    label: str
    color: str | None = None
    marker: str | None = None
    linestyle: Any = None
    settings: Mapping = field(default_factory=dict)


@dataclass(frozen=True)
class Benchmark:
    """A stream of tasks in one size.

    data: name of the data set.   classes_per_task: how many.   options: for data.load.   stream: options for
    data.Stream, such as max_per_class.   order: None for the data set's own class order, or a list of class
    names or numbers.   interleave_families: order the classes so that each task has one of each family,
    instead of one family after another.   shuffle_classes: a random class order for each seed.
    shuffle_images: a random order of each task's images for each seed, to which max_per_class is applied.
    eval_on_val: a share of each class's training images to test on instead of the test set, for choosing
    settings.
    """

    data: str
    classes_per_task: tuple
    options: Mapping = field(default_factory=dict)
    stream: Mapping = field(default_factory=dict)
    order: tuple | None = None
    interleave_families: bool = False
    shuffle_classes: bool = False
    shuffle_images: bool = False
    eval_on_val: float = 0.0


@dataclass(frozen=True)
class Table:
    """A trace table that runs record.

    keep: for which seeds a record holds it: "every seed" or "first seed".   first_seed_columns: columns
    that a record holds for the first seed only.   variants: whether runs with changed settings also record
    it.   kept_by: the methods or experiments whose records hold the first-seed data; None: all.   large: why
    a record that holds it may be larger than others.   unless: benchmarks on which it is not recorded.
    only: methods that record it; None: all.   probe, study, history: name in analysis.PROBES, STUDIES or
    HISTORIES of the function that fills it.
    """

    keep: str = "every seed"
    first_seed_columns: tuple = ()
    variants: bool = True
    kept_by: tuple | None = None
    large: str = ""
    unless: tuple = ()
    only: tuple | None = None
    probe: str | None = None
    study: str | None = None
    history: str | None = None


# Tables that runs of every method record if they are asked for by name.
ON_REQUEST = {"similarity": Table(history="similarity")}


@dataclass(frozen=True)
class Paper:
    """Everything the book knows about a paper's methods, as plain data.

    name: as used in sentences, such as "SpaceNet".   citation: authors and year.   variants: {method:
    Variant}.   benchmarks: {benchmark: {size: Benchmark}} that the paper introduces; the name of another size
    in place of a Benchmark refers to that size.   settings: {where: {size: differences from the Config's
    defaults}}; `where` is a benchmark, "method/*" or "method/benchmark", each applied on top of the one
    before.   runs: {method: benchmarks}; a method not listed runs on every benchmark in `settings`.   tables:
    {trace table: Table}.   seeds: {(experiment or benchmark, size): seeds} where they differ from SEEDS; with
    changed settings, {name of the record: seeds}.
    minutes: {(experiment, size): measured minutes per seed on one CPU core}.   shown: {(benchmark, size):
    classes of the first task, by arrival, whose features a fine-grained report keeps}.
    """

    name: str
    citation: str
    variants: Mapping
    settings: Mapping
    benchmarks: Mapping = field(default_factory=dict)
    runs: Mapping = field(default_factory=dict)
    tables: Mapping = field(default_factory=lambda: {"loss": Table()})
    seeds: Mapping = field(default_factory=dict)
    minutes: Mapping = field(default_factory=dict)
    shown: Mapping = field(default_factory=dict)

    def benchmarks_of(self, method):
        """The benchmarks a method runs on."""
        return self.runs.get(method) or tuple(where for where in self.settings if "/" not in where)

    def settings_of(self, method, benchmark, size):
        """The settings of the experiment method/benchmark that differ from the defaults, in this size."""
        found = dict(self.variants[method].settings)
        for where in (benchmark, f"{method}/*", f"{method}/{benchmark}"):
            rows = self.settings.get(where, {})
            row = rows.get(size, {})
            found |= rows[row] if isinstance(row, str) else row
        return found
