"""The baselines that several papers compare with, and the benchmarks of the book's first notebooks.

Split MNIST follows the protocol of van de Ven and Tolias (2019), counted in epochs: one 784-400-400-10
network, Adam, batches of 128. Each row of SETTINGS lists differences from the defaults of a method's Config.
"""

from clkit.papers import palette
from clkit.papers.paper import Benchmark, Paper, Variant

# A variant has its parent's colour with another marker and line.
VARIANTS = {
    "finetune": Variant("Finetune", palette.GREY, "X", palette.SOLID),
    "joint": Variant("Joint", palette.BLACK, "*", palette.DASHED),
    "cumulative": Variant("Cumulative", palette.DARK, "P", palette.DASHDOT),
    "lwf": Variant("LwF", palette.BLUE, "o", palette.SOLID),
    "lwf-multihead": Variant("LwF (multi-head)", palette.SKY, "D", palette.DASHED,
                             {"heads": "multi", "balance": False}),
    "er": Variant("ER", palette.VERMILLION, "s", palette.SOLID),
    "ewc": Variant("EWC", palette.OLIVE, "<", palette.SOLID),
    "ewc-online": Variant("EWC (online)", palette.OLIVE, "3", palette.DASHED,
                          {"online": True, "strength": 1e9}),
    "si": Variant("SI", palette.TEAL, ">", palette.SOLID),
    "mas": Variant("MAS", palette.WINE, "v", palette.SOLID),
    "dgr": Variant("DGR", palette.BROWN, "p", palette.SOLID),
    "icarl": Variant("iCaRL", palette.ROSE, "h", palette.SOLID),
    "cwr": Variant("CWR", palette.FOREST, "d", palette.SOLID),
    "cwr-plus": Variant("CWR+", palette.FOREST, "+", palette.DASHED, {"plus": True, "softmax": "all"}),
}

PAIRS = (2, 2, 2, 2, 2)
TEN_SHAPES = {"families": 10, "siblings": 1}            # one class of each of ten families

_DIGITS28 = {                                           # instead of MNIST and Fashion-MNIST, to save time
    "smoke": Benchmark("digits28", PAIRS, stream={"max_per_class": 30}),
    "teach": Benchmark("digits28", PAIRS),
    "laptop": "paper",
}
BENCHMARKS = {
    "split-digits": {
        "smoke": Benchmark("digits", PAIRS, stream={"max_per_class": 30}),
        "teach": Benchmark("digits", PAIRS),
        "laptop": "paper",
        "paper": Benchmark("digits", PAIRS),
    },
    "split-mnist": {**_DIGITS28, "paper": Benchmark("mnist", PAIRS)},
    "split-fashion": {**_DIGITS28, "paper": Benchmark("fashion_mnist", PAIRS)},
    "split-cifar10": {
        "smoke": Benchmark("shapes", PAIRS, TEN_SHAPES, {"max_per_class": 20}),
        "teach": Benchmark("shapes", PAIRS, TEN_SHAPES),
        "laptop": Benchmark("cifar10", PAIRS, stream={"max_per_class": 500}),
        "paper": Benchmark("cifar10", PAIRS),
    },
    "shapes-siblings": {
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

_SPLIT = {
    "smoke": {"epochs": 2, "batch_size": 32},
    "teach": {"epochs": 20, "batch_size": 32},
    "paper": {},
}
_CONVNET = {
    "smoke": {"net": "convnet", "epochs": 1, "batch_size": 32},
    "teach": {"net": "convnet", "epochs": 10, "batch_size": 32},
}
SETTINGS = {
    "split-digits": _SPLIT,
    "split-mnist": _SPLIT,
    "split-fashion": _SPLIT,
    "split-cifar10": {**_CONVNET, "laptop": {"net": "resnet18", "epochs": 5},
                      "paper": {"net": "resnet18", "epochs": 20}},
    # from no paper: the whole set and a residual network
    "shapes-siblings": {**_CONVNET, "paper": {"net": "resnet18", "epochs": 10}},
    "shapes-families": {**_CONVNET, "paper": {"net": "resnet18", "epochs": 10}},
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
_ALL = (*_SPLITS, "split-cifar10", "shapes-siblings", "shapes-families")
RUNS = {
    **dict.fromkeys(("finetune", "joint", "lwf"), (*_ALL, "cifar10-100")),
    **dict.fromkeys(("cumulative", "lwf-multihead", "er"), _ALL),
    **dict.fromkeys(("ewc", "ewc-online", "si", "mas", "cwr", "cwr-plus"), (*_SPLITS, "cifar10-100")),
    **dict.fromkeys(("dgr", "icarl"), _SPLITS),
}

TEN = tuple(range(10))
SEEDS = {                                               # the SpaceNet paper uses ten seeds; so do we, unless
    ("lwf/split-mnist", "paper"): TEN,                  # that takes hours
    ("lwf/split-fashion", "paper"): TEN,
    ("mas/split-mnist", "paper"): TEN,
    ("mas/split-fashion", "paper"): TEN,
    ("ewc/split-mnist", "paper"): TEN,
    ("ewc/split-mnist", "teach"): (0, 1, 2, 3, 4),      # the sweep of strengths in notebook 02
    ("ewc-online/split-mnist", "paper"): TEN,
    ("si/split-mnist", "paper"): TEN,
    ("icarl/split-mnist", "paper"): TEN,
    ("icarl/split-fashion", "paper"): (0, 1, 2),        # hours or many minutes each
    ("dgr/split-fashion", "paper"): (0,),
    ("shapes-siblings", "paper"): (0,),
    ("shapes-families", "paper"): (0,),
}

# For rows without a record; a record has its own time.
MINUTES = {("finetune/split-cifar10", "paper"): 200, ("joint/split-cifar10", "paper"): 200}

PAPER = Paper("baselines", "several authors, named in each method's file", VARIANTS, SETTINGS, BENCHMARKS,
              RUNS, seeds=SEEDS, minutes=MINUTES)
