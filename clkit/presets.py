"""Every experiment of the book as a table: METHOD/BENCHMARK in three sizes, as differences from the defaults.

    smoke    seconds, embedded data: what the tests run
    teach    a minute or less a seed on two CPU cores, embedded data: what the notebooks run live
    paper    the setting of the literature on the published data: what the records in figures/results show

A benchmark is a stream of tasks; its smoke and teach sizes stand in for the published set with an embedded
one, and the result says so in its `stream` facts. A method's defaults stand in the Config of its file.
"""

import ast
import dataclasses
import difflib
import os
import shlex
import types
import typing
from dataclasses import dataclass, field
from functools import lru_cache, partial
from pathlib import Path

from clkit import data
from clkit.analysis import gradients
from clkit.methods import METHODS
from clkit.result import load, save
from clkit.run import accuracy_by_task, pick_device, result_key, run
from clkit.stream import Stream

PRESETS = ("smoke", "teach", "paper")
HOUSE = Path(__file__).resolve().parents[1]             # the checkout, where there is one
RECORDS = HOUSE / "figures" / "results"


class PresetError(ValueError):
    """A name, setting or record that cannot be used; one sentence says what to do."""


# ---- the streams

@dataclass(frozen=True)
class Benchmark:
    """data: name of the set.   sizes: classes per task.   options: of data.load.   stream: options of Stream.

    mixed: order the classes so that each task has one of each family, instead of one family after another.
    shuffled: a random order of the classes for each seed.   arrival: a random order of the images of each
    task for each seed, the cap being applied as they come.   judged: a share of each class's training images
    to test on in place of the test set, for choosing settings.
    """

    data: str
    sizes: tuple
    options: dict = field(default_factory=dict)
    stream: dict = field(default_factory=dict)
    mixed: bool = False
    shuffled: bool = False
    arrival: bool = False
    judged: float = 0.0


_PAIRS = (2,) * 5
_TEN_SHAPES = {"families": 10, "siblings": 1}
BENCHMARKS = {
    "split-digits": {
        "smoke": Benchmark("digits", _PAIRS, stream={"cap": 30}),
        "teach": Benchmark("digits", _PAIRS),
        "paper": Benchmark("digits", _PAIRS),
    },
    "split-mnist": {
        "smoke": Benchmark("digits28", _PAIRS, stream={"cap": 30}),
        "teach": Benchmark("digits28", _PAIRS),
        "paper": Benchmark("mnist", _PAIRS),
    },
    "split-fashion": {
        "smoke": Benchmark("digits28", _PAIRS, stream={"cap": 30}),
        "teach": Benchmark("digits28", _PAIRS),
        "paper": Benchmark("fashion_mnist", _PAIRS),
    },
    "split-cifar10": {
        "smoke": Benchmark("shapes", _PAIRS, _TEN_SHAPES, {"cap": 20}),
        "teach": Benchmark("shapes", _PAIRS, _TEN_SHAPES),
        "paper": Benchmark("cifar10", _PAIRS),
    },
    # CIFAR-10, then the first 50 classes of CIFAR-100 (Zenke et al. 2017)
    "cifar10-100": {
        "smoke": Benchmark("shapes", (5,) * 3, {"families": 3}, {"cap": 10}),
        "teach": Benchmark("shapes", (5,) * 6, {"families": 6}, {"cap": 40}),
        "paper": Benchmark("cifar10-100", (10,) * 6),
    },
    # the same at a size that a CPU goes through in minutes: 500 images of each class, CIFAR-10's as well
    "cifar10-100-500": {
        "smoke": Benchmark("shapes", (5,) * 3, {"families": 3}, {"cap": 10}),
        "teach": Benchmark("shapes", (5,) * 6, {"families": 6}, {"cap": 40}),
        "paper": Benchmark("cifar10-100", (10,) * 6, stream={"cap": 500}),
    },
    # split MNIST with the classes in an order of its own for each seed
    "split-mnist-shuffled": {
        "smoke": Benchmark("digits28", _PAIRS, stream={"cap": 30}, shuffled=True),
        "teach": Benchmark("digits28", _PAIRS, shuffled=True),
        "paper": Benchmark("mnist", _PAIRS, shuffled=True),
    },
    # online, each image once: 500 images a class (Ji et al. 2020, table 3). In the authors' code a task goes
    # on until each class has had its 500, and so ends with some of one class alone.
    "mnist-5k-5": {
        "smoke": Benchmark("digits28", _PAIRS, stream={"cap": 20}, arrival=True),
        "teach": Benchmark("digits28", _PAIRS, stream={"cap": 135}, arrival=True),
        "paper": Benchmark("mnist", _PAIRS, stream={"val": 0.05, "cap": 500}, arrival=True),
    },
    # the same without that end
    "mnist-5k-5-mixed": {
        "smoke": Benchmark("digits28", _PAIRS, stream={"cap": 20}),
        "teach": Benchmark("digits28", _PAIRS, stream={"cap": 135}),
        "paper": Benchmark("mnist", _PAIRS, stream={"val": 0.05, "cap": 500}),
    },
    # the same judged by other training images, where settings are chosen
    "mnist-5k-5-val": {
        "smoke": Benchmark("digits28", _PAIRS, stream={"cap": 20}, arrival=True, judged=0.05),
        "teach": Benchmark("digits28", _PAIRS, stream={"cap": 130}, arrival=True, judged=0.05),
        "paper": Benchmark("mnist", _PAIRS, stream={"cap": 500}, arrival=True, judged=0.05),
    },
    "digits-online": {
        "smoke": Benchmark("digits", _PAIRS, stream={"cap": 20}, arrival=True),
        "teach": Benchmark("digits", _PAIRS, stream={"cap": 135}, arrival=True),
        "paper": Benchmark("digits", _PAIRS, stream={"cap": 135}, arrival=True),
    },
    "cifar10-5": {
        "smoke": Benchmark("shapes", _PAIRS, _TEN_SHAPES, {"cap": 10}),
        "teach": Benchmark("shapes", _PAIRS, _TEN_SHAPES),
        "paper": Benchmark("cifar10", _PAIRS, stream={"val": 0.05}),
    },
    # class folders of the user's: 100 classes, of each 480 images to train with and 120 to test
    "miniimagenet-20": {
        "smoke": Benchmark("shapes", (5,) * 2, {"families": 2}, {"cap": 6}),
        "teach": Benchmark("shapes", (5,) * 4, {"families": 4}, {"cap": 20}),
        "paper": Benchmark("miniimagenet", (5,) * 20, {"side": 84}, {"val": 0.05}),
    },
    "split-shapes": {
        "smoke": Benchmark("shapes", _PAIRS, {"families": 2}, {"cap": 20}, mixed=True),
        "teach": Benchmark("shapes", (4,) * 5, {"families": 4}, mixed=True),
        "paper": Benchmark("shapes", (20,) * 5, mixed=True),
    },
    "shapes-families": {
        "smoke": Benchmark("shapes", (5,) * 2, {"families": 2}, {"cap": 20}),
        "teach": Benchmark("shapes", (5,) * 4, {"families": 4}),
        "paper": Benchmark("shapes", (5,) * 20),
    },
}


def stream(benchmark, preset, seed=0):
    """The Stream of a benchmark in one of its sizes. DataError if its data are not there.

    seed: of the run, which matters only where the benchmark has another order for each.
    """
    row = BENCHMARKS[benchmark][preset]
    return _stream(benchmark, preset, seed if row.shuffled or row.arrival else None)


@lru_cache(maxsize=2)  # seeds of one experiment in one process share the images
def _stream(benchmark, preset, seed):
    row = BENCHMARKS[benchmark][preset]
    order, options = (seed if row.shuffled else None), ({"arrival": seed} if row.arrival else {})
    train, test = data.load(row.data, **row.options)
    if row.judged:
        train, test = (train.select(part) for part in data.stratified_split(train.labels, row.judged, 0))
    if row.mixed:                                       # siblings 0 of all families, then siblings 1, ...
        families = list(dict.fromkeys(train.groups))
        members = [[c for c, g in enumerate(train.groups) if g == f] for f in families]
        order = [m[i] for i in range(len(members[0])) for m in members]
    return Stream(train, test, row.sizes, order=order, **row.stream, **options)


# ---- the settings

_CONV = {
    "smoke": {"net": "convnet", "epochs": 1, "batch": 32},
    "teach": {"net": "convnet", "epochs": 10, "batch": 32},
    "paper": {"net": "resnet18", "epochs": 20},
}
_MLP = {"smoke": {"epochs": 2, "batch": 32}, "teach": {"epochs": 20, "batch": 32}, "paper": {}}
_SHAPES = _CONV | {
    "paper": {"net": "resnet18", "epochs": 10}
}  # of no paper: the whole set, and a residual network
_BASELINES = {"split-digits": _MLP, "split-mnist": _MLP, "split-fashion": _MLP,
              "split-cifar10": _CONV, "split-shapes": _SHAPES, "shapes-families": _SHAPES}
_ZENKE = {"smoke": {"net": "convnet", "epochs": 1, "batch": 32},
          "teach": {"net": "zenke", "epochs": 5, "batch": 32},
          "paper": {"net": "zenke", "epochs": 20, "batch": 64}}
_ZENKE_500 = _ZENKE | {"paper": {"net": "zenke", "epochs": 5, "batch": 64}}
_MEMORY = {"smoke": {"memory": 50, "replay": 32}, "teach": {"memory": 100, "replay": 32}, "paper": {}}

# What a method sets beside network and budget, by preset.
_OWN = {
    "er": _MEMORY,
    "icarl": {"smoke": {"memory": 50}, "teach": {"memory": 200}},
    "dgr": {"smoke": {"hidden": (32,), "latent": 8, "replay": 16}, "teach": {"replay": 32}},
    "mas": {"paper": {"epochs": 4}},                    # Hsu et al. 2018
}

# SpaceNet: mean and deviation of the pixels of each set, and a rate at which small sets are learned in time.
_DIGITS28 = {"mean": (0.1583,), "std": (0.2944,)}
_LITTLE = {"smoke": {**_DIGITS28, "epochs": 3, "batch": 32},
           "teach": {**_DIGITS28, "epochs": 20, "batch": 16}}
_DIGITS = {"mean": (0.306,), "std": (0.3763,), "connections": (816, 1_640, 80), "batch": 16}
_CIFAR = {"net": "conv", "maps": (32, 32, 64, 64), "hidden": (512,), "selected": (),
          "reserved": (2, 2, 5, 6, 30), "connections": 0.12, "epochs": 20, "batch": 64, "lr": 0.1,
          "mean": (0.4914, 0.4822, 0.4465), "std": (0.2023, 0.1994, 0.201)}
_SHAPES60 = {**_CIFAR, "maps": (16, 16, 32, 32), "hidden": (128,), "reserved": (1, 1, 2, 3, 8), "batch": 32,
             "mean": (0.51,), "std": (0.287,)}
_SPARSE = {
    "split-digits": {"smoke": {**_DIGITS, "epochs": 3}, "teach": {**_DIGITS, "epochs": 20},
                     "paper": {**_DIGITS, "epochs": 20}},
    "split-mnist": {**_LITTLE, "paper": {}},
    "split-mnist-shuffled": {**_LITTLE, "paper": {}},
    "split-fashion": {**_LITTLE, "paper": {"mean": (0.286,), "std": (0.353,)}},
    "cifar10-100": {"smoke": {**_SHAPES60, "epochs": 2}, "teach": {**_SHAPES60, "epochs": 5},
                    "paper": _CIFAR},
}
_SPARSE["cifar10-100-500"] = _SPARSE["cifar10-100"] | {"paper": {**_CIFAR, "epochs": 5}}

# Online learning of Ji et al. 2020: networks, rates and weights (table 4). A task of the embedded digits has
# a quarter of the images that one of MNIST-5k-5 has, and three passes over them come near as many steps.
_ONLINE_MNIST = {"smoke": {"images": 6, "descent": 3}, "teach": {"epochs": 3}, "paper": {}}
_ONLINE = {
    "mnist-5k-5": _ONLINE_MNIST,
    "mnist-5k-5-mixed": _ONLINE_MNIST,
    "mnist-5k-5-val": _ONLINE_MNIST,
    "digits-online": _ONLINE_MNIST | {"paper": {"epochs": 3}},
    "cifar10-5": {
        "smoke": {"net": "resnet18", "lr": 0.01, "image_lr": 10.0, "images": 12, "descent": 2},
        "teach": {"net": "convnet", "lr": 0.01, "image_lr": 10.0, "images": 20},
        "paper": {"net": "resnet18", "lr": 0.01, "image_lr": 10.0, "images": 100},
    },
    "miniimagenet-20": {
        "smoke": {"net": "resnet18-pool2", "lr": 0.01, "image_lr": 10.0, "images": 12, "descent": 2},
        "teach": {"net": "convnet", "lr": 0.01, "image_lr": 10.0, "images": 20},
        "paper": {"net": "resnet18-pool2", "lr": 0.01, "image_lr": 10.0, "images": 100, "diversity": 1.0,
                  "sharpness": 1.0, "distill": 2.0, "epochs": 3},
    },
}
# What a method sets beside that, by benchmark.
_OWN_ONLINE = {
    "adi": {"cifar10-5": {"statistics": 0.1, "distill": 1.0}, "miniimagenet-20": {"statistics": 0.1}},
    "naive": {"cifar10-5": {"lr": 0.1}, "miniimagenet-20": {"lr": 0.1, "distill": 0.0}},
}
_OWN_ONLINE["stationary"] = _OWN_ONLINE["naive"]
# The methods beside it, in the settings of Aljundi et al. 2019a; memories are those of Ji et al. 2020.
_SOME = {"smoke": {"memory": 20}, "teach": {"epochs": 3, "memory": 50}, "paper": {"memory": 50}}
_MIR = {"smoke": {"memory": 20, "replay": 4, "candidates": 8}, "teach": {"epochs": 3}, "paper": {}}
_NOW = {"centred": True, "before": "now"}
_GENERATED = {"smoke": {"images": 6, "updates": 2, "latent": 8, "hidden": (32,), "descent": 2},
              "teach": {"epochs": 3}, "paper": {}}
_BESIDE = {
    **{f"{method}/{benchmark}": rows
       for methods, rows in ((("er-online", "er-mir"), _MIR), (("gem", "icarl-online"), _SOME),
                             (("gen", "gen-mir"), _GENERATED))
       for method in methods for benchmark in ("mnist-5k-5", "digits-online")},
    **{f"{method}/{benchmark}": {"smoke": _MIR["smoke"] | {"net": "convnet", **_NOW},
                                 "teach": {"net": "convnet", **_NOW}, "paper": paper | _NOW}
       for method in ("er-online", "er-mir") for benchmark, paper in (
           ("cifar10-5", {"net": "resnet18", "memory": 200}),
           ("miniimagenet-20", {"net": "resnet18-pool2", "memory": 500, "candidates": 25, "updates": 3}))},
    "gem/cifar10-5": {"smoke": {"net": "convnet", "memory": 20}, "teach": {"net": "convnet"},
                      "paper": {"net": "resnet18", "centred": True}},
    "icarl-online/cifar10-5": {"smoke": {"net": "convnet", "memory": 20}, "teach": {"net": "convnet"},
                               "paper": {"net": "resnet18"}},
}


def _settings():
    """METHOD/BENCHMARK -> preset -> what differs from the method's Config."""
    images, cifar = ("split-digits", "split-mnist", "split-fashion"), ("cifar10-100", "cifar10-100-500")
    small = {**_BASELINES, "cifar10-100": _ZENKE, "cifar10-100-500": _ZENKE_500}
    table = {f"{method}/{benchmark}": {p: rows[p] | _OWN.get(method, {}).get(p, {}) for p in PRESETS}
             for methods, benchmarks in (
                 (("finetune", "joint", "cumulative", "lwf", "lwf-multihead", "er"), _BASELINES),
                 (("finetune", "joint", "lwf"), cifar),
                 (("ewc", "ewc-online", "si", "mas", "cwr", "cwr-plus"), (*images, *cifar)),
                 (("dgr", "icarl"), images))
             for method in methods for benchmark in benchmarks for rows in (small[benchmark],)}
    for method in ("spacenet", "static", "rehearsal"):
        table |= {f"{method}/{benchmark}": rows for benchmark, rows in _SPARSE.items()}
    for method in ("arm", "adi", "distill", "naive", "stationary"):
        own = _OWN_ONLINE.get(method, {})
        table |= {f"{method}/{benchmark}": {p: row | (own.get(benchmark, {}) if p == "paper" else {})
                                            for p, row in rows.items()}
                  for benchmark, rows in _ONLINE.items()}
    return table | _BESIDE


SETTINGS = _settings()

# Minutes a seed of finetune or joint takes on one core of a Xeon, measured on split-mnist and split-shapes
# (the residual network takes 12 ms an image and epoch, and so 200 minutes for CIFAR-10). What is not here
# takes less.
MINUTES = {
    ("split-mnist", "paper"): 0.8,
    ("split-fashion", "paper"): 0.8,
    ("split-cifar10", "paper"): 200,
    ("split-shapes", "paper"): 20,
    ("shapes-families", "paper"): 20,
    ("cifar10-100", "paper"): 45,
    ("cifar10-100-500", "paper"): 5,
    ("cifar10-5", "paper"): 12,
    ("miniimagenet-20", "paper"): 250,
}
_SLOWER = {"lwf": 1.3, "lwf-multihead": 1.3, "er": 2, "cumulative": 3, "ewc": 1.3, "ewc-online": 1.3,
           "si": 1.5, "icarl": 1.5, "dgr": 6, "arm": 6, "adi": 50, "distill": 1.7, "er-online": 2,
           "er-mir": 5, "gem": 5, "icarl-online": 5}
SEEDS = {"smoke": (0,), "teach": (0, 1, 2), "paper": (0, 1, 2, 3, 4)}
# The paper of SpaceNet repeats ten times. So do we where that does not take hours.
TEN_SEEDS = {f"{method}/{benchmark}" for method in ("spacenet", "static", "rehearsal", "mas", "lwf")
             for benchmark in ("split-mnist", "split-mnist-shuffled", "split-fashion")}
TEN_SEEDS |= {f"{method}/split-mnist" for method in ("ewc", "ewc-online", "si", "icarl")}
FEWER_SEEDS = {(benchmark, "paper"): (0,)               # hours, or many minutes
               for benchmark in ("split-shapes", "shapes-families", "cifar10-100", "cifar10-100-500")}
FEWER_SEEDS |= {("dgr/split-fashion", "paper"): (0,), ("icarl/split-fashion", "paper"): (0, 1, 2),
                ("cifar10-5", "paper"): (0,)}
# CPU threads of a run belong to the preset, never to the machine: sums differ in their last bits with another
# number.
THREADS = 1


@dataclass(frozen=True)
class Experiment:
    """One row of the table, ready to run; overrides: the settings that differ from the row."""

    name: str
    preset: str
    config: object
    overrides: dict

    @property
    def method(self):
        return self.name.partition("/")[0]

    @property
    def benchmark(self):
        return self.name.partition("/")[2]

    @property
    def learner(self):
        return METHODS[self.method].learner

    @property
    def data(self):
        return BENCHMARKS[self.benchmark][self.preset].data

    @property
    def stem(self):
        """The name of its record: METHOD_BENCHMARK_PRESET, then what was overridden."""
        def said(value):
            return "-".join(map(str, value)) if isinstance(value, tuple) else value
        extra = "".join(f"_{k}-{said(v)}" for k, v in sorted(self.overrides.items()))
        return f"{self.method}_{self.benchmark}_{self.preset}{extra}".replace(" ", "").replace("/", "-")

    @property
    def command(self):
        """The command that makes its record."""
        extra = "".join(f" --set {shlex.quote(f'{k}={v}')}" for k, v in self.overrides.items())
        seeds = _ranges(self.seeds)
        what = f"{self.name} --preset {self.preset} --seeds {seeds}{extra}"
        return f"python -m clkit run {what} --out figures/results"

    @property
    def minutes(self):
        """Expected minutes a seed on one CPU core, at least 1."""
        minutes = MINUTES.get((self.benchmark, self.preset), 0.2)
        return max(1, round(minutes * _SLOWER.get(self.method, 1)))

    @property
    def seeds(self):
        """The seeds of this row unless others are asked for."""
        if self.preset == "paper" and self.name in TEN_SEEDS:
            return tuple(range(10))
        fewer = FEWER_SEEDS.get((self.benchmark, self.preset), SEEDS[self.preset])
        return FEWER_SEEDS.get((self.name, self.preset), fewer)


def _ranges(seeds):
    return (
        f"{seeds[0]}-{seeds[-1]}"
        if len(seeds) > 1 and list(seeds) == list(range(seeds[0], seeds[-1] + 1))
        else ",".join(map(str, seeds))
    )


def names():
    """All experiment names, METHOD/BENCHMARK."""
    return list(SETTINGS)


def experiment(name, preset="teach", overrides=None):
    """The Experiment of a name such as "er/split-mnist".

    overrides: {field of the method's Config: value}; values given as text are read as the field's type.
    PresetError for unknown names (the nearest are offered) and for values that do not fit.
    """
    if name not in SETTINGS:
        raise PresetError(
            f"there is no experiment '{name}'{_nearest(name, SETTINGS)}; `python -m clkit list` shows all"
        )
    if preset not in PRESETS:
        raise PresetError(
            f"there is no preset '{preset}'{_nearest(preset, PRESETS) or ': use smoke, teach or paper'}"
        )
    method = METHODS[name.partition("/")[0]]
    overrides = {k: _typed(method.config, k, v) for k, v in (overrides or {}).items()}
    try:
        config = method.config(**{**method.settings, **SETTINGS[name][preset], **overrides})
    except ValueError as error:                         # a Config refuses what cannot work
        raise PresetError(f"{name}: {error}") from None
    return Experiment(name, preset, config, overrides)


def _nearest(word, words):
    close = difflib.get_close_matches(word, list(words), n=3, cutoff=0.5)
    return f"; did you mean {' or '.join(close)}?" if close else ""


def _typed(config, name, value):
    """A setting as the type of its Config field; text is parsed, anything that does not fit is refused."""
    fields = {f.name: f.type for f in dataclasses.fields(config)}
    if name not in fields:
        raise PresetError(
            f"there is no setting '{name}'{_nearest(name, fields)}; the settings are {', '.join(fields)}"
        )
    kinds = typing.get_args(fields[name]) if isinstance(fields[name], types.UnionType) else (fields[name],)
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


# ---- running

def runs_root():
    """Where run folders are: $CLKIT_RUNS, else runs/ in the checkout or in the working folder."""
    if os.environ.get("CLKIT_RUNS"):
        return Path(os.environ["CLKIT_RUNS"])
    return (HOUSE if (HOUSE / "pyproject.toml").is_file() else Path.cwd()) / "runs"


# Trace tables that a run keeps, by method or experiment, if nothing else is asked for; "loss" for others.
TABLES = dict.fromkeys(("spacenet", "static", "rehearsal"),
                       ("loss", "masks", "rewiring", "neurons", "connections", "network"))
TABLES |= dict.fromkeys(("arm", "adi"), ("loss", "progress", "recall", "objective", "images", "gradients"))
TABLES |= dict.fromkeys((f"{m}/{b}" for m in ("arm", "adi") for b in ("cifar10-5", "miniimagenet-20")),
                        ("loss", "progress", "recall", "gradients"))
TABLES |= dict.fromkeys(("distill", "naive"), ("loss", "progress"))
TABLES |= dict.fromkeys(("gen", "gen-mir"), ("loss", "replay"))
FIRST_ONLY = {"masks": None, "network": "activations",  # tables, or a column, that records hold of one seed,
              "objective": None, "images": None}
PICTURED = ("spacenet", "static", "arm", "adi")         # and only of these, in their own settings
OWN_SETTINGS = ("gradients", "objective", "images")     # tables that variants of an experiment go without
LOOKED_AT = 50                                          # test images of a class whose activations are kept
TESTED_AT = 200                                         # test images of a class in the course of a task
COMPARED = {"smoke": 20, "teach": 200, "paper": 1000}   # recalled images whose gradients are compared


def tables(chosen):
    """The trace tables that runs of an Experiment keep unless others are asked for."""
    kept = TABLES.get(chosen.name, TABLES.get(chosen.method, ("loss",)))
    return tuple(t for t in kept if t not in OWN_SETTINGS) if chosen.overrides else kept


def _probes(chosen, tasks, keep, device):
    """What is measured of the learner as it goes: {table: {column: function}}, or None.

    network: hidden activations after each task, of test images of two classes, where a learner has them.
    progress: accuracy (T,) on test images of each task, in the course of the tasks, among all classes.
    """
    found = {}
    if "network" in keep and chosen.config.net == "mlp":
        x = _first_of(tasks.test, (0, 1), LOOKED_AT).images.to(pick_device(device)) / 255   # (100, C, H, W)
        found["network"] = {"activations": lambda learner: learner.activations(x).half()}
    if "progress" in keep:
        test = _first_of(tasks.test, range(tasks.classes), TESTED_AT).to(pick_device(device))
        found["progress"] = {"accuracy": partial(accuracy_by_task, test, tasks.test_sizes)}
    return found or None


def _first_of(images, classes, n):
    """The first n images of each of these classes."""
    return images.select([i for k in classes for i in (images.labels == k).nonzero().flatten()[:n].tolist()])


def _studies(chosen, keep):
    """What is found out about the learner when its run is over: {table: function}, see `run`."""
    if "gradients" not in keep:
        return None
    images, batch = COMPARED[chosen.preset], chosen.config.batch
    return {"gradients": partial(gradients.rows, images=images, batch=batch)}


def run_folder(chosen, seed, keep=None):
    """Where an Experiment's run of one seed lives; other settings, data or code lead to another folder."""
    keep, tasks = keep or tables(chosen), stream(chosen.benchmark, chosen.preset, seed)
    learned = tasks.merged() if chosen.learner.joint else tasks
    mark = result_key(chosen.learner, chosen.config, learned.about())[:8]
    kept = "".join(f"+{k}" for k in sorted([keep] if isinstance(keep, str) else keep)).replace("*", "all")
    return runs_root() / f"{chosen.stem}-{mark}{kept}" / f"seed-{seed}"


def run_seed(name, preset, seed, device="auto", overrides=None, keep=None, progress=None):
    """One seed of an experiment, new, gone on with or read back from its folder: (learner, Result)."""
    chosen = experiment(name, preset, overrides)
    keep, tasks = keep or tables(chosen), stream(chosen.benchmark, preset, seed)
    facts = {"experiment": name, "benchmark": chosen.benchmark, "preset": preset, "method": chosen.method}
    return run(
        chosen.learner,
        chosen.config,
        tasks,
        seed=seed,
        device=device,
        folder=run_folder(chosen, seed, keep),
        keep=keep,
        probes=_probes(chosen, tasks, keep, device),
        studies=_studies(chosen, keep),
        threads=THREADS,
        about=facts,
        progress=progress,
    )


def run_experiment(
    name,
    preset="teach",
    seeds=None,
    device="auto",
    jobs=1,
    overrides=None,
    out=None,
    keep=None,
    progress=None,
):
    """All seeds of an experiment; list of Results in the order of `seeds`.

    jobs: processes to spread the seeds over; results do not depend on it.   out: folder that gets the record
    too.
    keep: trace tables to keep, by default those of `tables`.   progress: bars; None means in a terminal or
    notebook, and never with several jobs.
    """
    chosen = experiment(name, preset, overrides)
    seeds = chosen.seeds if seeds is None else tuple(seeds)
    if jobs < 1 or not seeds:
        raise PresetError("give at least one seed, and jobs of 1 or more")
    if out is not None:  # before hours of work, not after
        Path(out).mkdir(parents=True, exist_ok=True)
    if jobs == 1 or len(seeds) == 1:
        results = [run_seed(name, preset, s, device, overrides, keep, progress)[1] for s in seeds]
    else:
        stream(chosen.benchmark, preset)                # what is wrong with the data is said once, here
        from joblib import Parallel, delayed
        work = (delayed(_seed_result)(name, preset, s, device, overrides, keep) for s in seeds)
        results = Parallel(n_jobs=jobs)(work)
    if out is not None:
        pictured = chosen.method in PICTURED and not chosen.overrides
        save([_small(r, tables(chosen), large=pictured and r is results[0]) for r in results],
             Path(out) / chosen.stem)
    return results


def _seed_result(name, preset, seed, device, overrides, keep):
    return run_seed(name, preset, seed, device, overrides, keep, progress=False)[1]


def _small(result, kept, large):
    """A result as a record holds it: of the trace the tables in `kept`, with or without what is large."""
    trace = {t: columns for t, columns in result.trace.items() if t in kept}
    if not large:
        trace = {t: {c: rows for c, rows in columns.items() if c != FIRST_ONLY.get(t)}
                 for t, columns in trace.items() if FIRST_ONLY.get(t, "") is not None}
    return dataclasses.replace(result, trace=trace)


# ---- results for notebooks and figures

def obtain(name, preset="teach", seeds=None, overrides=None, compute=None, say=print):
    """The results of an experiment: from its record, from run folders, or computed; says which.

    A record made by other code, settings or data is refused. Without a record, the paper preset is not
    started unless compute=True, because it may take hours: the PresetError names the command and the time.
    """
    chosen = experiment(name, preset, overrides)
    path = RECORDS / f"{chosen.stem}.json"
    if path.is_file() and not compute:
        results = load(path)
        check_record(chosen, results)
        about = results[0].about
        say(
            f"loaded {chosen.stem} ({about['date']}, commit {about['commit'] or 'unknown'}, "
            f"n = {len(results)} seeds)"
        )
        return results
    if preset == "paper" and not compute:
        minutes = chosen.minutes * len(chosen.seeds)
        raise PresetError(
            f"there is no record of {name} at the paper preset: make it with `{chosen.command}` "
            f"(about {minutes} minutes on one core), or call obtain(..., compute=True)"
        )
    seeds = chosen.seeds if seeds is None else tuple(seeds)
    known = all((run_folder(chosen, s) / "result.json").is_file() for s in seeds)
    results = run_experiment(name, preset, seeds, overrides=overrides)
    say(f"{'read back' if known else 'computed'} {chosen.stem} (n = {len(seeds)} seeds)")
    return results


def check_record(chosen, results):
    """Raise PresetError if results were not made by this experiment as it stands in the code now."""
    row = BENCHMARKS[chosen.benchmark][chosen.preset]
    for result in results:
        about = result.about
        if (
            about["key"] != result_key(chosen.learner, chosen.config, about["stream"])
            or about["stream"]["data"].partition("(")[0] != row.data
            or tuple(result.sizes) != row.sizes
        ):
            raise PresetError(
                f"the record {chosen.stem} is stale: other code, settings or data made it; make it anew "
                f"with `{chosen.command}`"
            )
