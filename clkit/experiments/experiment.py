"""An experiment: METHOD/BENCHMARK at one of four presets, with settings that override its row.

    smoke    seconds, embedded data: for the tests
    teach    at most a minute per seed on two CPU cores, embedded data: for live runs in the notebooks
    laptop   the published images at a scale that two CPU cores can handle
    paper    the setting of the literature on the published data

The rows are in clkit/papers. Nothing here loads torch until a Config is needed.
"""

import ast
import contextlib
import dataclasses
import json
import re
import shlex
import sys
import types
import typing
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from clkit import papers
from clkit.errors import ClkitError, did_you_mean
from clkit.experiments import places
from clkit.experiments.benchmark import OWN, PresetError, checked_preset, own_benchmark, sensible_net
from clkit.papers import Benchmark

# Settings of own data that data.load takes: their type, and their meaning.
OF_FOLDERS = {
    "side": (int, "the height and width to resize images to, a positive whole number"),
    "test_share": (float, "the share of each class for the test set, such as 0.2"),
    "split_seed": (int, "the seed for drawing the test set, a whole number of at least 0"),
}


@dataclass(frozen=True)
class Experiment:
    """One row of the papers' tables, ready to run.

    name: METHOD/BENCHMARK.   preset: its size.   overrides: settings that differ from the row's.
    stream_row: the Benchmark of its stream.   row: the settings of the row that differ from the defaults.
    first_tasks: how many tasks it learns; None: all.
    """

    name: str
    preset: str
    overrides: dict
    stream_row: Benchmark
    row: dict = field(default_factory=dict)
    first_tasks: int | None = None

    @property
    def method(self) -> str:
        return self.name.partition("/")[0]

    @property
    def benchmark(self) -> str:
        return self.name.partition("/")[2]

    @property
    def paper(self):
        """The Paper of the method."""
        return papers.paper_of(self.method)

    @property
    def data(self) -> str:
        return self.stream_row.data

    @cached_property
    def learner(self) -> type:
        """The Learner class. Loads torch."""
        from clkit.methods import LEARNERS

        return LEARNERS[self.method]

    @cached_property
    def config(self):
        """The Config of the learner. Loads torch."""
        return config_class(self.learner)(**self.settings)

    @property
    def settings(self) -> dict:
        """The settings of the row and the overrides, which replace the Config's defaults."""
        return {**self.row, **self.overrides}

    @property
    def stem(self) -> str:
        """The name of its record: METHOD_BENCHMARK_PRESET, then the overrides, and how many tasks."""

        def said(value):
            return "-".join(map(str, value)) if isinstance(value, tuple) else value

        benchmark, extra = self.benchmark, dict(self.overrides)
        if self.preset == OWN:  # what distinguishes experiments on the same own data
            benchmark = Path(self.benchmark.partition(":")[2] or self.benchmark).expanduser().resolve().name
            row, order = self.stream_row, self.stream_row.order
            own = {"tasks": row.classes_per_task, **row.options}
            if order is not None:
                own["order"] = order if isinstance(order, int) else "given"
            extra = {**own, **extra}
        words = "".join(f"_{k}-{said(v)}" for k, v in sorted(extra.items()))
        words += f"_first-{self.first_tasks}-tasks" if self.first_tasks else ""
        stem = re.sub(r"[^\w.+=-]", "-", f"{self.method}_{benchmark}_{self.preset}{words}".replace(" ", ""))
        return places.short(stem)

    @property
    def command(self) -> str:
        """The command that computes its record, given in the present folder."""
        own, seeds = self.preset == OWN, self.seeds
        whole = len(seeds) > 1 and list(seeds) == list(range(seeds[0], seeds[-1] + 1))
        words = [shlex.quote(self.name), *([] if own else ["--preset", self.preset]), "--seeds"]
        words.append(f"{seeds[0]}-{seeds[-1]}" if whole else ",".join(map(str, seeds)))
        settings = {**self.overrides, **(self.stream_row.options if own else {})}
        words += [f"--set {shlex.quote(f'{k}={v}')}" for k, v in settings.items()]
        if own:
            words.append(f"--tasks {','.join(map(str, self.stream_row.classes_per_task))}")
        if self.first_tasks:
            words.append(f"--first-tasks {self.first_tasks}")
        return f"python -m clkit run {' '.join(words)} {places.records_option()}"

    @property
    def minutes(self) -> float | None:
        """Minutes per seed, measured on one CPU core: from its record, else its paper's file, else None."""
        path = places.record_of(self.stem)
        with contextlib.suppress(OSError, ValueError, LookupError, TypeError):  # no record, or a damaged one
            per_seed = json.loads(path.read_text(encoding="utf-8"))["summary"]["seconds"]["per_seed"]
            return sum(per_seed) / max(len(per_seed), 1) / 60
        return self.paper.minutes.get((self.name, self.preset))

    @property
    def seeds(self) -> tuple:
        """The default seeds of this row."""
        if self.preset == OWN:
            return papers.SEEDS["teach"]
        seeds, usual = self.paper.seeds, (self.benchmark, self.preset)
        rows = [seeds.get(self.stem), seeds.get((self.name, self.preset)), seeds.get(usual)]
        # the benchmark may belong to another paper
        rows += [p.seeds.get(usual) for p in papers.PAPERS.values() if self.benchmark in p.benchmarks]
        return next(filter(None, rows), papers.SEEDS[self.preset])

    @property
    def known_tables(self) -> dict:
        """{name: Table} of the paper's trace tables that this experiment can record."""
        return {
            name: table
            for name, table in self.paper.tables.items()
            if (table.only is None or self.method in table.only) and self.benchmark not in table.unless
        }

    @property
    def tables(self) -> tuple:
        """The trace tables that its runs record by default."""
        return tuple(n for n, table in self.known_tables.items() if table.variants or not self.overrides)


def config_class(learner: type) -> type:
    """The Config in the file of a Learner class."""
    return sys.modules[learner.__module__].Config


def names(method: str | None = None, benchmark: str | None = None) -> list[str]:
    """All experiment names, METHOD/BENCHMARK, or those of one method, benchmark or both."""
    return [
        f"{m}/{b}"
        for paper in papers.PAPERS.values()
        for m in paper.variants
        for b in paper.benchmarks_of(m)
        if method in (None, m) and benchmark in (None, b)
    ]


def experiment(
    name: str, preset: str = "teach", overrides=None, *, tasks=None, order=None, first_tasks=None
) -> Experiment:
    """The Experiment of a name such as "er/split-mnist", or of "er/folder:PATH" and "er/NAME" for own data.

    overrides: {field of the method's Config: value}; text is parsed as the field's type; a value that equals
    the row's setting is ignored.   tasks, order: of own data, see own_benchmark.   first_tasks: learn only so
    many. PresetError for unknown names (with similar ones) and for values of the wrong type.
    """
    found = _whole_experiment(name, preset, overrides, tasks, order)
    return found if first_tasks is None else _begun(found, first_tasks)


def _begun(found, first_tasks):
    """The Experiment that ends after so many tasks."""
    if found.learner.joint:
        raise PresetError(f"{found.method} learns all tasks at once: leave first_tasks out")
    count = len(found.stream_row.classes_per_task)
    if type(first_tasks) is not int or not 1 <= first_tasks <= count:
        rule = f"first_tasks must be a whole number from 1 to {count}, the tasks of {found.name}"
        raise PresetError(f"{rule} at size {found.preset}, not {first_tasks!r}")
    return dataclasses.replace(found, first_tasks=first_tasks if first_tasks < count else None)


def _whole_experiment(name, preset, overrides, tasks, order):
    if name not in names():
        return _own_experiment(name, overrides, tasks, order)
    if tasks is not None or order is not None:
        raise PresetError(
            f"{name} has its own tasks and order of classes: leave out --tasks and --order, which are for "
            "your own data, such as er/folder:PATH"
        )
    return _overridden(exact_experiment(name, preset), overrides)


def exact_experiment(name: str, preset: str, overrides=None, first_tasks=None) -> Experiment:
    """The same without loading a Config: overrides must have the field's type and differ from the row.

    first_tasks must be None or below the number of tasks.
    """
    method, _, benchmark = name.partition("/")
    size = papers.size_of(benchmark, checked_preset(preset))
    row = papers.paper_of(method).settings_of(method, benchmark, size)
    return Experiment(name, size, dict(overrides or {}), papers.benchmark(benchmark, size), row, first_tasks)


def _overridden(found, overrides):
    """The Experiment with the overrides that differ from its row."""
    if not overrides:
        return found
    config = config_class(found.learner)
    typed = {k: typed_setting(config, k, v) for k, v in overrides.items()}
    plain = config(**found.row)
    changed = _checked(found, config, {**found.row, **typed})
    differing = {k: getattr(changed, k) for k in typed if getattr(changed, k) != getattr(plain, k)}
    return dataclasses.replace(found, overrides=differing)


def _checked(found, config, settings):
    """The Config of these settings; PresetError with the sentence of the Config if it refuses them."""
    from clkit.engine.learner import check_types

    try:
        try:
            made = config(**settings)
        except ClkitError:
            raise
        except Exception as error:  # a Config that compares before it looks at types
            made = object.__new__(config)
            for field in dataclasses.fields(config):
                object.__setattr__(made, field.name, settings.get(field.name, field.default))
            check_types(made)
            raise ClkitError(f"these settings cannot be used ({error})") from error
        check_types(made)
    except ClkitError as error:
        raise PresetError(f"{found.name}: {error}") from None
    return made


def _own_experiment(name, overrides, tasks, order):
    """An Experiment on the user's own data."""
    method, _, data = name.partition("/")
    unknown = f"there is no experiment '{name}'{did_you_mean(name, names())}"
    if not data or method not in papers.methods():
        raise PresetError(f"{unknown}; `python -m clkit list` shows all")
    if not data.startswith("folder:"):
        from clkit.data import root
        from clkit.data.layout import folder_names

        if data not in folder_names():
            raise PresetError(
                f"{unknown}; put your own images into {root() / data}/train/CLASS/ and test/CLASS/, or name "
                f"any folder as {method}/folder:PATH"
            )
    overrides = dict(overrides or {})
    options = {key: _data_option(key, overrides.pop(key)) for key in OF_FOLDERS if key in overrides}
    stream_row = own_benchmark(data, tasks, order, options)
    found = Experiment(name, OWN, {}, stream_row, dict(papers.paper_of(method).variants[method].settings))
    try:
        row = {**found.row, "net": sensible_net(data, options)}
        config_class(found.learner)(**row)
        found = dataclasses.replace(found, row=row)
    except ClkitError:  # a method that has its own networks
        pass
    return _overridden(found, overrides)


def _data_option(name, value):
    """A setting of the data, in the type that data.load takes; load checks its value."""
    kind, what = OF_FOLDERS[name]
    try:
        typed = kind(value)
        if kind is int and typed < (name == "side"):
            raise ValueError
    except ValueError:
        raise PresetError(f"{name} is {what}, not {value!r}") from None
    return typed


def typed_setting(config: type, name: str, value):
    """A setting for a Config; text is read as the type of the field where it can be, and stays text if not.

    The Config itself refuses what has the wrong type or cannot work, with the same sentence for text and for
    values. PresetError if it has no such field.
    """
    fields = typing.get_type_hints(config)
    if name not in fields:
        raise PresetError(
            f"there is no setting '{name}'{did_you_mean(name, fields)}; the settings are {', '.join(fields)}"
        )
    kind = fields[name]
    kinds = typing.get_args(kind) if typing.get_origin(kind) in (typing.Union, types.UnionType) else (kind,)
    words = {word for k in kinds if typing.get_origin(k) is typing.Literal for word in typing.get_args(k)}
    parsed = value.tolist() if hasattr(value, "tolist") else value  # of numpy
    if isinstance(value, str) and str not in kinds and value not in words:
        said = value.capitalize() if value.lower() in ("true", "false", "none") else value
        with contextlib.suppress(ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
            parsed = ast.literal_eval(said)
        if words and not isinstance(parsed, int | float | None):
            parsed = value
    if isinstance(parsed, list):
        parsed = tuple(parsed)
    if float in kinds and type(parsed) is int and abs(parsed) < 2**1023:
        parsed = float(parsed)
    return parsed
