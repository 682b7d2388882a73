"""An experiment: METHOD/BENCHMARK in one of four sizes, with the settings that differ from its row.

    smoke    seconds, embedded data: what the tests run
    teach    a minute or less a seed on two CPU cores, embedded data: what the notebooks run live
    laptop   the published images at a scale that two CPU cores carry
    paper    the setting of the literature on the published data

The rows stand in clkit/papers. Nothing here loads torch before a Config is asked for.
"""

import ast
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


@dataclass(frozen=True)
class Experiment:
    """One row of the tables, ready to run.

    name: METHOD/BENCHMARK.   preset: its size.   overrides: settings that differ from the row's.
    stream_row: the Benchmark that its stream is made of.   row: what the row sets beside the defaults.
    """

    name: str
    preset: str
    overrides: dict
    stream_row: Benchmark
    row: dict = field(default_factory=dict)

    @property
    def method(self) -> str:
        return self.name.partition("/")[0]

    @property
    def benchmark(self) -> str:
        return self.name.partition("/")[2]

    @property
    def paper(self):
        """The Paper that brings the method."""
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
        """The Config of the learner, which stands beside it in its file. Loads torch."""
        return config_class(self.learner)(**{**self.row, **self.overrides})

    @property
    def settings(self) -> dict:
        """What it sets beside the Config's defaults, as far as the row and the overrides say."""
        return {**self.row, **self.overrides}

    @property
    def stem(self) -> str:
        """The name of its record: METHOD_BENCHMARK_PRESET, then what was overridden."""

        def said(value):
            return "-".join(map(str, value)) if isinstance(value, tuple) else value

        extra = "".join(f"_{k}-{said(v)}" for k, v in sorted({**self._own(), **self.overrides}.items()))
        benchmark = self.benchmark
        if self.preset == OWN:
            benchmark = Path(self.benchmark.partition(":")[2] or self.benchmark).expanduser().resolve().name
        return re.sub(r"[^\w.+=-]", "-", f"{self.method}_{benchmark}_{self.preset}{extra}".replace(" ", ""))

    def _own(self):
        """What tells experiments on the same own data apart."""
        if self.preset != OWN:
            return {}
        order = self.stream_row.order
        return {
            "tasks": self.stream_row.classes_per_task,
            **self.stream_row.options,
            **({} if order is None else {"order": order if isinstance(order, int) else "given"}),
        }

    @property
    def command(self) -> str:
        """The command that makes its record."""
        extra = "".join(f" --set {shlex.quote(f'{k}={v}')}" for k, v in self.overrides.items())
        if self.preset == OWN:
            extra += f" --tasks {','.join(map(str, self.stream_row.classes_per_task))}"
            what = f"{shlex.quote(self.name)} --seeds {_ranges(self.seeds)}{extra}"
        else:
            what = f"{self.name} --preset {self.preset} --seeds {_ranges(self.seeds)}{extra}"
        return f"python -m clkit run {what} --out figures/results"

    @property
    def minutes(self) -> float | None:
        """Measured minutes a seed on one CPU core: of its record, else of its paper's file; None: unknown."""
        path = places.RECORDS / f"{self.stem}.json"
        if path.is_file():
            per_seed = json.loads(path.read_text(encoding="utf-8"))["summary"]["seconds"]["per_seed"]
            return sum(per_seed) / len(per_seed) / 60
        return self.paper.minutes.get((self.name, self.preset))

    @property
    def seeds(self) -> tuple:
        """The seeds of this row unless others are asked for."""
        if self.preset == OWN:
            return papers.SEEDS["teach"]
        usual = self.paper.seeds.get((self.benchmark, self.preset))
        for paper in papers.PAPERS.values():  # the benchmark may be that of another paper
            usual = usual or (
                paper.benchmarks.get(self.benchmark) and paper.seeds.get((self.benchmark, self.preset))
            )
        return self.paper.seeds.get((self.name, self.preset)) or usual or papers.SEEDS[self.preset]

    @property
    def tables(self) -> tuple:
        """The trace tables that its runs record unless others are asked for."""
        return tuple(
            name
            for name, table in self.paper.tables.items()
            if (table.only is None or self.method in table.only)
            and self.benchmark not in table.unless
            and (table.variants or not self.overrides)
        )


def _ranges(seeds):
    whole = len(seeds) > 1 and list(seeds) == list(range(seeds[0], seeds[-1] + 1))
    return f"{seeds[0]}-{seeds[-1]}" if whole else ",".join(map(str, seeds))


def config_class(learner: type) -> type:
    """The Config that stands beside a Learner class in its file."""
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


def experiment(name: str, preset: str = "teach", overrides=None, *, tasks=None, order=None) -> Experiment:
    """The Experiment of a name such as "er/split-mnist", or "er/folder:PATH" and "er/NAME" for own data.

    overrides: {field of the method's Config: value}; values given as text are read as the field's type; one
    that equals the row's own setting is none.   tasks, order: of own data, see own_benchmark. PresetError for
    unknown names (the nearest are offered) and for values that do not fit.
    """
    if name not in names():
        return _own_experiment(name, overrides, tasks, order)
    if tasks is not None or order is not None:
        raise PresetError(
            f"{name} has its own tasks and order of classes: --tasks and --order are for your own "
            "data, such as er/folder:PATH"
        )
    found = exact_experiment(name, preset)
    return _overridden(found, overrides) if overrides else found


def exact_experiment(name: str, preset: str, overrides=None) -> Experiment:
    """The same without reading a Config: overrides must be of their field's type and differ from the row."""
    method, _, benchmark = name.partition("/")
    size = papers.size_of(benchmark, checked_preset(preset))
    row = papers.paper_of(method).settings_of(method, benchmark, size)
    return Experiment(name, size, dict(overrides or {}), papers.benchmark(benchmark, size), row)


def _overridden(found, overrides):
    config = config_class(found.learner)
    typed = {k: typed_setting(config, k, v) for k, v in overrides.items()}
    try:
        plain, changed = config(**found.row), config(**{**found.row, **typed})
    except ClkitError as error:  # a Config refuses what cannot work
        raise PresetError(f"{found.name}: {error}") from None
    differing = {k: getattr(changed, k) for k in typed if getattr(changed, k) != getattr(plain, k)}
    return dataclasses.replace(found, overrides=differing)


def _own_experiment(name, overrides, tasks, order):
    """An Experiment on a data set that no paper has."""
    method, _, data = name.partition("/")
    if not data or method not in papers.methods():
        raise PresetError(
            f"there is no experiment '{name}'{did_you_mean(name, names())}; `python -m clkit list` shows all"
        )
    if not data.startswith("folder:"):
        from clkit.data import root

        if not (root() / data / "train").is_dir():
            raise PresetError(
                f"there is no experiment '{name}'{did_you_mean(name, names())}; your own images go "
                f"into {root() / data}/train/CLASS/ and test/CLASS/, or anywhere as {method}/folder:PATH"
            )
    overrides = dict(overrides or {})
    options = {"side": _side(overrides.pop("side"))} if "side" in overrides else {}
    stream_row = own_benchmark(data, tasks, order, options)
    paper = papers.paper_of(method)
    found = Experiment(name, OWN, {}, stream_row, dict(paper.variants[method].settings))
    try:
        config_class(found.learner)(**found.row, net=(net := sensible_net(data, options)))
        found = dataclasses.replace(found, row={**found.row, "net": net})
    except ClkitError:  # a method with networks of its own
        pass
    return _overridden(found, overrides) if overrides else found


def _side(value):
    if not str(value).isdecimal() or int(value) < 1:
        raise PresetError(
            f"side is the height and width to bring images to, a positive whole number, not {value!r}"
        )
    return int(value)


def typed_setting(config: type, name: str, value):
    """A setting as the type of its Config field; text is parsed, anything that does not fit is refused."""
    fields = {f.name: f.type for f in dataclasses.fields(config)}
    if name not in fields:
        raise PresetError(
            f"there is no setting '{name}'{did_you_mean(name, fields)}; the settings are {', '.join(fields)}"
        )
    kind = fields[name]
    kinds = typing.get_args(kind) if isinstance(kind, types.UnionType) else (kind,)
    kinds = tuple(
        str if typing.get_origin(k) is typing.Literal else k for k in kinds
    )  # Config knows the words
    parsed = value
    if isinstance(value, str) and str not in kinds:
        try:
            parsed = ast.literal_eval(
                {"true": "True", "false": "False", "none": "None"}.get(value.lower(), value)
            )
        except (ValueError, SyntaxError):
            parsed = value
    if isinstance(parsed, list):
        parsed = tuple(parsed)
    if float in kinds and type(parsed) is int:
        parsed = float(parsed)
    if type(parsed) not in kinds and not (parsed is None and type(None) in kinds):
        expected = " or ".join(k.__name__ for k in kinds)
        raise PresetError(f"the setting '{name}' takes {expected}, not {value!r}")
    return parsed
