"""The baselines that several papers compare with, and the benchmarks of the book's first notebooks.

Split MNIST in the protocol of van de Ven and Tolias (2019), counted in epochs: one 784-400-400-10 network,
Adam, batches of 128. Each row of SETTINGS is a difference from the defaults of a method's Config.
"""

from clkit.papers.palette import (
    BLACK,
    BLUE,
    BROWN,
    DARK,
    DASHDOT,
    DASHED,
    FOREST,
    GREY,
    OLIVE,
    ROSE,
    SKY,
    SOLID,
    TEAL,
    VERMILLION,
    WINE,
)
from clkit.papers.paper import Benchmark, Paper, Variant

# A variant has its parent's colour with another marker and line.
VARIANTS = {
    "finetune": Variant("Finetune", GREY, "X", SOLID),
    "joint": Variant("Joint", BLACK, "*", DASHED),
    "cumulative": Variant("Cumulative", DARK, "P", DASHDOT),
    "lwf": Variant("LwF", BLUE, "o", SOLID),
    "lwf-multihead": Variant("LwF (multi-head)", SKY, "D", DASHED, {"heads": "multi", "balance": False}),
    "er": Variant("ER", VERMILLION, "s", SOLID),
    "ewc": Variant("EWC", OLIVE, "<", SOLID),
    "ewc-online": Variant("EWC (online)", OLIVE, "3", DASHED, {"online": True, "strength": 1e9}),
    "si": Variant("SI", TEAL, ">", SOLID),
    "mas": Variant("MAS", WINE, "v", SOLID),
    "dgr": Variant("DGR", BROWN, "p", SOLID),
    "icarl": Variant("iCaRL", ROSE, "h", SOLID),
    "cwr": Variant("CWR", FOREST, "d", SOLID),
    "cwr-plus": Variant("CWR+", FOREST, "+", DASHED, {"plus": True, "softmax": "all"}),
}

PAIRS = (2, 2, 2, 2, 2)
TEN_SHAPES = {"families": 10, "siblings": 1}            # one class of each of ten families

BENCHMARKS = {
    "split-digits": {
        "smoke": Benchmark("digits", PAIRS, stream={"max_per_class": 30}),
        "teach": Benchmark("digits", PAIRS),
        "laptop": "paper",
        "paper": Benchmark("digits", PAIRS),
    },
    "split-mnist": {
        "smoke": Benchmark("digits28", PAIRS, stream={"max_per_class": 30}),
        "teach": Benchmark("digits28", PAIRS),
        "laptop": "paper",
        "paper": Benchmark("mnist", PAIRS),
    },
    "split-fashion": {
        "smoke": Benchmark("digits28", PAIRS, stream={"max_per_class": 30}),
        "teach": Benchmark("digits28", PAIRS),
        "laptop": "paper",
        "paper": Benchmark("fashion_mnist", PAIRS),
    },
    "split-cifar10": {
        "smoke": Benchmark("shapes", PAIRS, TEN_SHAPES, {"max_per_class": 20}),
        "teach": Benchmark("shapes", PAIRS, TEN_SHAPES),
        "laptop": Benchmark("cifar10", PAIRS, stream={"max_per_class": 500}),
        "paper": Benchmark("cifar10", PAIRS),
    },
    "split-shapes": {
        "smoke": Benchmark("shapes", PAIRS, {"families": 2}, {"max_per_class": 20}, interleave_families=True),
        "teach": Benchmark("shapes", (4,) * 5, {"families": 4}, interleave_families=True),
        "laptop": "paper",
        "paper": Benchmark("shapes", (20,) * 5, interleave_families=True),
    },
    "shapes-families": {
        "smoke": Benchmark("shapes", (5,) * 2, {"families": 2}, {"max_per_class": 20}),
        "teach": Benchmark("shapes", (5,) * 4, {"families": 4}),
        "laptop": "paper",
        "paper": Benchmark("shapes", (5,) * 20),
    },
}

SETTINGS = {
    "split-digits": {
        "smoke": {"epochs": 2, "batch_size": 32},
        "teach": {"epochs": 20, "batch_size": 32},
        "paper": {},
    },
    "split-mnist": {
        "smoke": {"epochs": 2, "batch_size": 32},
        "teach": {"epochs": 20, "batch_size": 32},
        "paper": {},
    },
    "split-fashion": {
        "smoke": {"epochs": 2, "batch_size": 32},
        "teach": {"epochs": 20, "batch_size": 32},
        "paper": {},
    },
    "split-cifar10": {
        "smoke": {"net": "convnet", "epochs": 1, "batch_size": 32},
        "teach": {"net": "convnet", "epochs": 10, "batch_size": 32},
        "laptop": {"net": "resnet18", "epochs": 5},
        "paper": {"net": "resnet18", "epochs": 20},
    },
    "split-shapes": {                                   # of no paper: the whole set, and a residual network
        "smoke": {"net": "convnet", "epochs": 1, "batch_size": 32},
        "teach": {"net": "convnet", "epochs": 10, "batch_size": 32},
        "paper": {"net": "resnet18", "epochs": 10},
    },
    "shapes-families": {
        "smoke": {"net": "convnet", "epochs": 1, "batch_size": 32},
        "teach": {"net": "convnet", "epochs": 10, "batch_size": 32},
        "paper": {"net": "resnet18", "epochs": 10},
    },
    "cifar10-100": {                                    # Zenke et al. (2017)
        "smoke": {"net": "convnet", "epochs": 1, "batch_size": 32},
        "teach": {"net": "zenke", "epochs": 5, "batch_size": 32},
        "laptop": {"net": "zenke", "epochs": 5, "batch_size": 64},
        "paper": {"net": "zenke", "epochs": 20, "batch_size": 64},
    },
    "er/*": {
        "smoke": {"memory": 50, "replay_size": 32},
        "teach": {"memory": 100, "replay_size": 32},
    },
    "icarl/*": {"smoke": {"memory": 50}, "teach": {"memory": 200}},
    "dgr/*": {
        "smoke": {"hidden": (32,), "latent": 8, "replay_size": 16},
        "teach": {"replay_size": 32},
    },
    "mas/*": {"laptop": {"epochs": 4}, "paper": {"epochs": 4}},                 # Hsu et al. (2018)
}

_SPLITS = ("split-digits", "split-mnist", "split-fashion")
_ALL = (*_SPLITS, "split-cifar10", "split-shapes", "shapes-families")
RUNS = {
    "finetune": (*_ALL, "cifar10-100"),
    "joint": (*_ALL, "cifar10-100"),
    "cumulative": _ALL,
    "lwf": (*_ALL, "cifar10-100"),
    "lwf-multihead": _ALL,
    "er": _ALL,
    "ewc": (*_SPLITS, "cifar10-100"),
    "ewc-online": (*_SPLITS, "cifar10-100"),
    "si": (*_SPLITS, "cifar10-100"),
    "mas": (*_SPLITS, "cifar10-100"),
    "dgr": _SPLITS,
    "icarl": _SPLITS,
    "cwr": (*_SPLITS, "cifar10-100"),
    "cwr-plus": (*_SPLITS, "cifar10-100"),
}

TEN = tuple(range(10))
SEEDS = {                                               # the SpaceNet paper repeats ten times; so do we where
    ("lwf/split-mnist", "paper"): TEN,                  # that does not take hours
    ("lwf/split-fashion", "paper"): TEN,
    ("mas/split-mnist", "paper"): TEN,
    ("mas/split-fashion", "paper"): TEN,
    ("ewc/split-mnist", "paper"): TEN,
    ("ewc-online/split-mnist", "paper"): TEN,
    ("si/split-mnist", "paper"): TEN,
    ("icarl/split-mnist", "paper"): TEN,
    ("icarl/split-fashion", "paper"): (0, 1, 2),        # hours, or many minutes
    ("dgr/split-fashion", "paper"): (0,),
    ("split-shapes", "paper"): (0,),
    ("shapes-families", "paper"): (0,),
}

# Of rows without a record; where there is one, its own time is shown.
MINUTES = {("finetune/split-cifar10", "paper"): 200, ("joint/split-cifar10", "paper"): 200}

PAPER = Paper("baselines", "several authors, named in each method's file", VARIANTS, SETTINGS, BENCHMARKS,
              RUNS, seeds=SEEDS, minutes=MINUTES)
