"""DGM (Ostapenko, Puscas, Klein, Jähnichen and Nabi 2019), with masks on weights and on channels.

The settings are those of the released code, because the paper states almost none. The code has none for DGMa
on house numbers, and none for CIFAR-10: these are ours. Images have 32x32 pixels; at the laptop size they
have 16x16, both networks are narrower, and D of digits and house numbers has no batch normalisation.
"""

from clkit.papers.palette import DASHED, DOTTED, SOLID, WINE
from clkit.papers.paper import Benchmark, Paper, Table, Variant

_CHANNELS = {"unit": "channel", "s_max": 1e5, "sparsity": 0.01}
VARIANTS = {
    "dgmw": Variant("DGMw", WINE, "h", SOLID),
    "dgma": Variant("DGMa", WINE, "o", DASHED, _CHANNELS),
    "dgm-no-replay": Variant("DGM without replay", WINE, "d", DOTTED, {"replay": False}),
}

ONE_BY_ONE = (1,) * 10
_SHAPES = {"siblings": 1, "side": 16}                   # a class of each family, instead of photographs
_SHAPES_ONE_BY_ONE = {
    "smoke": Benchmark("shapes", (1,) * 3, {**_SHAPES, "families": 3}, {"max_per_class": 20}),
    "teach": Benchmark("shapes", (1,) * 5, {**_SHAPES, "families": 5}),
}
BENCHMARKS = {
    "digits-10": {
        "smoke": Benchmark("digits28", (1,) * 3, {"side": 16}, {"max_per_class": 40}, order=(0, 1, 2)),
        "teach": Benchmark("digits28", (1,) * 5, {"side": 16}, order=(0, 1, 2, 3, 4)),
        "laptop": "paper",
        "paper": Benchmark("digits28", ONE_BY_ONE, {"side": 16}),
    },
    "split-mnist-10": {
        "smoke": Benchmark("digits28", (1,) * 3, {"side": 16}, {"max_per_class": 40}, order=(0, 1, 2)),
        "teach": Benchmark("digits28", (1,) * 5, {"side": 16}, order=(0, 1, 2, 3, 4)),
        "laptop": Benchmark("mnist", ONE_BY_ONE, {"side": 16}, {"val": 0.15, "max_per_class": 1500}),
        "paper": Benchmark("mnist", ONE_BY_ONE, {"side": 32}, {"val": 0.15}),
    },
    "split-svhn-10": {
        **_SHAPES_ONE_BY_ONE,
        "laptop": Benchmark("svhn", ONE_BY_ONE, {"side": 16}, {"max_per_class": 1500}),
        "paper": Benchmark("svhn", ONE_BY_ONE, stream={"val": 0.1}),
    },
    "split-cifar10-10": {
        **_SHAPES_ONE_BY_ONE,
        "laptop": Benchmark("cifar10", ONE_BY_ONE, {"side": 16}, {"max_per_class": 500}),
        "paper": Benchmark("cifar10", ONE_BY_ONE, stream={"val": 0.1}),
    },
    # The user's class folders, 50 classes of 1,300 training images. Of the 1,000 classes, in the alphabetical
    # order of their folders and counted from 0, the code takes in task t = 0, 1, ... the numbers 100 t + 1,
    # 15, 29, 45, 59, 65, 81, 89, 90 and 99. Images are cropped to a square and resized, and not augmented.
    "imagenet50": {
        "smoke": Benchmark("shapes", (2,) * 2, {"families": 2, "siblings": 2, "side": 16},
                           {"max_per_class": 20}),
        "teach": Benchmark("shapes", (5,) * 3, {"families": 3, "side": 16}),
        "laptop": Benchmark("imagenet50", (10,) * 5, {"side": 16}, {"max_per_class": 100}),
        "paper": Benchmark("imagenet50", (10,) * 5, {"side": 32}),
    },
}

_SMALL = {"nz": 64, "d_width": 16}
_DIGITS = {
    "smoke": {**_SMALL, "g_width": 4, "d_width": 8, "epochs": 3, "batch_size": 20},
    "teach": {**_SMALL, "d_norm": False, "epochs": 20, "batch_size": 32, "steps": "pooled"},
    "laptop": {**_SMALL, "d_norm": False, "epochs": 20, "batch_size": 32},
    "paper": {},
}
_HOUSES = {"lr": 5e-4, "sparsity": 0.001}
_RESIDUAL = {"network": "residual", "anew": False, "g_width": 64, "d_width": 64, "lr": 2e-4,
             "sparsity": 0.001}
_NARROW = {**_RESIDUAL, "nz": 64, "g_width": 8, "d_width": 8, "steps": "pooled"}
_TINY = {**_RESIDUAL, "nz": 16, "g_width": 4, "d_width": 2, "epochs": 2, "batch_size": 20, "steps": "pooled"}
_SEVERAL = {"auxiliary": 1.0, "penalty": 0.6}           # several classes in a task
SETTINGS = {
    "digits-10": {**_DIGITS, "laptop": "teach", "paper": "teach"},
    "split-mnist-10": _DIGITS,
    "split-svhn-10": {
        "smoke": {**_DIGITS["smoke"], **_HOUSES},
        "teach": {**_DIGITS["teach"], "sparsity": 0.001},
        "laptop": {**_DIGITS["laptop"], "sparsity": 0.001},
        "paper": {**_HOUSES, "epochs": 151},
    },
    "split-cifar10-10": {
        "smoke": _TINY,
        "teach": {**_NARROW, "lr": 1e-3, "epochs": 30, "batch_size": 32},
        "laptop": {**_NARROW, "lr": 1e-3, "epochs": 30, "d_width": 16},
        "paper": {**_RESIDUAL, "epochs": 100},
    },
    "imagenet50": {
        "smoke": {**_TINY, **_SEVERAL},
        "teach": {**_NARROW, **_SEVERAL, "lr": 1e-3, "epochs": 30, "batch_size": 50},
        "laptop": {**_NARROW, **_SEVERAL, "lr": 1e-3, "epochs": 30, "d_width": 16, "batch_size": 70},
        "paper": {**_RESIDUAL, **_SEVERAL, "batch_size": 70},
    },
    "shapes-families": {
        "smoke": {**_TINY, **_SEVERAL, "batch_size": 50},
        "teach": {**_NARROW, **_SEVERAL, "d_width": 4, "lr": 1e-3, "epochs": 20, "batch_size": 100},
        "laptop": {**_NARROW, **_SEVERAL, "nz": 128, "lr": 1e-3, "epochs": 20, "batch_size": 50},
        "paper": {**_RESIDUAL, **_SEVERAL, "batch_size": 70},
    },
    "dgma/digits-10": {"teach": {"g_width": 16}, "laptop": "teach", "paper": "teach"},
    "dgma/split-mnist-10": {"teach": {"g_width": 16}, "laptop": {"g_width": 16}, "paper": {"g_width": 20}},
    "dgma/split-svhn-10": {"teach": {"g_width": 16}, "laptop": {"g_width": 16}, "paper": {"g_width": 20}},
}

GENERATED = Table(first_seed_columns=("images",), probe="generated",
                  large="the generated images of the first seed, eight of each class after each task")
PROGRESS = Table(probe="accuracy_by_epoch")
TABLES = {
    "loss": Table(),
    "masks": Table(keep="first seed", variants=False),
    "capacity": Table(),
    "growth": Table(),
    "progress": PROGRESS,
    "generated": GENERATED,
}

_ABLATIONS = ("masked-False", "hard-False", "expand-none", "sparsity-0.0")
SEEDS = {f"dgmw_split-mnist-10_laptop_{change}": (0,) for change in _ABLATIONS}
SEEDS["dgmw_split-mnist-10_paper_first-5-tasks"] = (0,)

PAPER = Paper("DGM", "Ostapenko, Puscas, Klein, Jähnichen and Nabi 2019", VARIANTS, SETTINGS, BENCHMARKS,
              tables=TABLES, seeds=SEEDS)
