"""Online baselines, one pass over the stream: ER, ER-MIR, GEM, iCaRL, GEN and GEN-MIR.

Settings come from Aljundi et al. (2019) and each method's authors, memory sizes from Ji et al. (2020), on
whose benchmarks they run.
"""

from clkit.papers.palette import BROWN, DASHDOT, DASHED, DOTTED, ROSE, VERMILLION
from clkit.papers.paper import Paper, Table, Variant

VARIANTS = {
    "er-online": Variant("ER (one pass)", VERMILLION, "D", DOTTED),
    "er-mir": Variant("ER-MIR", VERMILLION, "x", DASHED, {"choose": "interfered"}),
    "gem": Variant("GEM", ROSE, "8", DASHED),
    "icarl-online": Variant("iCaRL (one pass)", ROSE, "P", DASHDOT),
    "gen": Variant("GEN", BROWN, "s", DASHED),
    "gen-mir": Variant("GEN-MIR", BROWN, "x", DOTTED,
                       {"choose": "interfered", "n_images": 100, "hidden": (128,), "dropout": 0.4}),
}

_FEW = {"memory": 20, "replay_size": 4, "n_candidates": 8}
_COLOURED = {"centred": True, "before": "now"}
_MIR = {"smoke": _FEW, "teach": {"epochs": 3}, "paper": {}}
_MIR_CIFAR = {
    "smoke": {**_FEW, **_COLOURED, "net": "convnet"},
    "teach": {**_COLOURED, "net": "convnet"},
    "laptop": {**_COLOURED, "net": "resnet18", "memory": 200},
    "paper": "laptop",
}
_MIR_IMAGENET = {
    **_MIR_CIFAR,
    "laptop": {**_COLOURED, "net": "resnet18-pool2", "memory": 500, "n_candidates": 25, "updates": 3},
}
_STORED = {"smoke": {"memory": 20}, "teach": {"epochs": 3, "memory": 50}, "paper": {"memory": 50}}
_STORED_CIFAR = {
    "smoke": {"net": "convnet", "memory": 20},
    "teach": {"net": "convnet"},
    "laptop": {"net": "resnet18"},
    "paper": {"net": "resnet18"},
}
_GENERATED = {"smoke": {"n_images": 6, "updates": 2, "latent": 8, "hidden": (32,), "n_steps": 2},
              "teach": {"epochs": 3}, "paper": {}}
_CENTRED = {"net": "resnet18", "centred": True}

SETTINGS = {
    "er-online/mnist-5k-5": _MIR,
    "er-online/digits-online": _MIR,
    "er-online/cifar10-5": _MIR_CIFAR,
    "er-online/miniimagenet-20": _MIR_IMAGENET,
    "er-mir/mnist-5k-5": _MIR,
    "er-mir/digits-online": _MIR,
    "er-mir/cifar10-5": _MIR_CIFAR,
    "er-mir/miniimagenet-20": _MIR_IMAGENET,
    "gem/mnist-5k-5": _STORED,
    "gem/digits-online": _STORED,
    "gem/cifar10-5": {**_STORED_CIFAR, "laptop": _CENTRED, "paper": _CENTRED},
    "icarl-online/mnist-5k-5": _STORED,
    "icarl-online/digits-online": _STORED,
    "icarl-online/cifar10-5": _STORED_CIFAR,
    "gen/*": _GENERATED,
    "gen-mir/*": _GENERATED,
}

_SMALL = ("mnist-5k-5", "digits-online")
RUNS = {
    **dict.fromkeys(("er-online", "er-mir"), (*_SMALL, "cifar10-5", "miniimagenet-20")),
    **dict.fromkeys(("gem", "icarl-online"), (*_SMALL, "cifar10-5")),
    **dict.fromkeys(("gen", "gen-mir"), _SMALL),
}

TABLES = {"loss": Table(), "replay": Table(only=("gen", "gen-mir"))}

PAPER = Paper("online baselines", "Aljundi et al. 2019, and the authors named in each method's file",
              VARIANTS, SETTINGS, runs=RUNS, tables=TABLES, seeds={("cifar10-5", "paper"): (0,)})
