"""SpaceNet (Sokar, Mocanu and Pechenizkiy 2021), its static variant and its variant with rehearsal.

mean and std are those of the pixels of each data set.
"""

from clkit.papers.palette import DASHED, DOTTED, GREEN, SOLID
from clkit.papers.paper import Benchmark, Paper, Table, Variant

VARIANTS = {
    "spacenet": Variant("SpaceNet", GREEN, "^", SOLID),
    "static": Variant("SpaceNet (static)", GREEN, "1", DOTTED, {"adaptive": False}),
    "rehearsal": Variant("SpaceNet (rehearsal)", GREEN, "2", DASHED, {"rehearsal": True, "lr": 0.1}),
}

PAIRS = (2, 2, 2, 2, 2)
BENCHMARKS = {
    "split-mnist-shuffled": {                           # a different class order for each seed
        "smoke": Benchmark("digits28", PAIRS, stream={"max_per_class": 30}, shuffle_classes=True),
        "teach": Benchmark("digits28", PAIRS, shuffle_classes=True),
        "laptop": "paper",
        "paper": Benchmark("mnist", PAIRS, shuffle_classes=True),
    },
    "cifar10-100": {                                    # CIFAR-10, then the first 50 classes of CIFAR-100
        "smoke": Benchmark("shapes", (5,) * 3, {"families": 3}, {"max_per_class": 10}),
        "teach": Benchmark("shapes", (5,) * 6, {"families": 6}, {"max_per_class": 40}),
        "laptop": Benchmark("cifar10-100", (10,) * 6, stream={"max_per_class": 500}),
        "paper": Benchmark("cifar10-100", (10,) * 6),
    },
}

_DIGITS = {"mean": (0.306,), "std": (0.3763,), "connections": (816, 1_640, 80), "batch_size": 16}
_MNIST = {
    "smoke": {"mean": (0.1583,), "std": (0.2944,), "epochs": 3, "batch_size": 32},
    "teach": {"mean": (0.1583,), "std": (0.2944,), "epochs": 20, "batch_size": 16},
    "paper": {},
}
_CONV = {"net": "conv", "selected": (), "connections": 0.12, "lr": 0.1}
_SHAPES = {**_CONV, "maps": (16, 16, 32, 32), "hidden": (128,), "reserved": (1, 1, 2, 3, 8), "batch_size": 32,
           "mean": (0.51,), "std": (0.287,)}
_CIFAR = {**_CONV, "maps": (32, 32, 64, 64), "hidden": (512,), "reserved": (2, 2, 5, 6, 30), "batch_size": 64,
          "mean": (0.4914, 0.4822, 0.4465), "std": (0.2023, 0.1994, 0.201)}

SETTINGS = {
    "split-digits": {"smoke": {**_DIGITS, "epochs": 3}, "teach": {**_DIGITS, "epochs": 20}, "paper": "teach"},
    "split-mnist": _MNIST,
    "split-mnist-shuffled": _MNIST,
    "split-fashion": {**_MNIST, "paper": {"mean": (0.286,), "std": (0.353,)}},
    "cifar10-100": {
        "smoke": {**_SHAPES, "epochs": 2},
        "teach": {**_SHAPES, "epochs": 5},
        "laptop": {**_CIFAR, "epochs": 5},
        "paper": {**_CIFAR, "epochs": 20},
    },
}

TABLES = {
    "loss": Table(),
    "masks": Table(keep="first seed", kept_by=("spacenet/split-mnist", "static/split-mnist")),
    "rewiring": Table(),
    "neurons": Table(),
    "connections": Table(),
    "network": Table(first_seed_columns=("activations",),
                     kept_by=("spacenet/split-mnist", "static/split-mnist"),
                     probe="activations", large="800 neurons for each of 100 images, after each of 5 tasks"),
}

TEN = tuple(range(10))
SEEDS = {
    ("split-mnist", "paper"): TEN,
    ("split-mnist-shuffled", "paper"): TEN,
    ("split-fashion", "paper"): TEN,
    ("cifar10-100", "laptop"): (0,),
    ("cifar10-100", "paper"): (0,),
}

PAPER = Paper("SpaceNet", "Sokar, Mocanu and Pechenizkiy 2021", VARIANTS, SETTINGS, BENCHMARKS,
              tables=TABLES, seeds=SEEDS)
