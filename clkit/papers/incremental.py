"""Class-incremental methods beside GFR: with a frozen network, with exemplars, with a head for each task.

They run on GFR's benchmarks. FeTrIL, FeCAM and the nearest class mean train their network on the first task
only; LUCIR and iCaRL, as the code of Hou et al. (2019) trains it, keep 20 images of each class; LwF, EWC and
MAS have a head for each task, of which the surest answers. Each has its own recipe on the same network.
"""

from clkit.papers.palette import (
    BLUE,
    DASHDOT,
    DASHED,
    DOTTED,
    GREY,
    INDIGO,
    OLIVE,
    PURPLE,
    ROSE,
    SOLID,
    TEAL,
    WINE,
)
from clkit.papers.paper import Paper, Table, Variant

VARIANTS = {
    "fetril": Variant("FeTrIL", TEAL, "s", SOLID),
    "fecam": Variant("FeCAM", INDIGO, "D", SOLID),
    "fecam-common": Variant("FeCAM (common covariance)", INDIGO, "3", DASHED, {"covariance": "common"}),
    "ncm": Variant("Nearest class mean", GREY, "o", DOTTED, {"covariance": "none", "power": 1.0}),
    "lucir": Variant("LUCIR", PURPLE, "^", SOLID),
    "lucir-nme": Variant("LUCIR (nearest mean)", PURPLE, "v", DASHED, {"classifier": "mean"}),
    "icarl-cnn": Variant("iCaRL-CNN", ROSE, "^", SOLID),
    "icarl-nme": Variant("iCaRL-NME", ROSE, "v", DASHED, {"classifier": "mean"}),
    "lwf-max": Variant("LwF (surest head)", BLUE, "<", DASHDOT),
    "ewc-max": Variant("EWC (surest head)", OLIVE, "8", DASHDOT, {"hold": "fisher", "strength": 5e3}),
    "mas-max": Variant("MAS (surest head)", WINE, "p", DASHDOT, {"hold": "mas"}),
}

_TINY = {"net": "resnet10", "mean": (0.5,), "std": (0.25,), "augment": "flip", "epochs": 2, "batch_size": 16}
_NARROW = {"net": "resnet10", "mean": (0.5,), "std": (0.25,), "epochs": 60, "milestones": (49,),
           "batch_size": 32}
_SHAPES = {"smoke": _TINY, "teach": _NARROW}
_LAPTOP = {"net": "resnet10", "epochs": 60, "milestones": (49,), "batch_size": 64}
_ON_CIFAR = {**_SHAPES, "laptop": _LAPTOP, "paper": {}}
_SGD = {"smoke": {"milestones": (1,), "per_class": 5}, "teach": {"epochs": 15, "milestones": (8, 12)},
        "laptop": {"epochs": 40, "milestones": (20, 30)}}
_SGD_ON_SHAPES = {"paper": {"epochs": 40, "milestones": (20, 30)}}
_HALF = {"epochs": 30, "milestones": (24,)}
_FEW = {"smoke": {"importance_images": 20}, "teach": {**_HALF, "importance_images": 200},
        "laptop": {"importance_images": 1000}}
SETTINGS = {
    "split-shapes": {**_SHAPES, "laptop": "paper", "paper": _NARROW},
    "cifar100-4": _ON_CIFAR,
    "cifar100-50-5": _ON_CIFAR,
    "cifar100-50-10": _ON_CIFAR,
    "cifar100-50-25": _ON_CIFAR,
    "fetril/*": {"smoke": {"head_epochs": 2}, "teach": {"head_epochs": 20}},
    "lucir/*": _SGD,
    "lucir/split-shapes": _SGD_ON_SHAPES,
    "lucir-nme/*": _SGD,
    "lucir-nme/split-shapes": _SGD_ON_SHAPES,
    "icarl-cnn/*": _SGD,
    "icarl-cnn/split-shapes": _SGD_ON_SHAPES,
    "icarl-nme/*": _SGD,
    "icarl-nme/split-shapes": _SGD_ON_SHAPES,
    "lwf-max/*": {"teach": _HALF},
    "ewc-max/*": _FEW,
    "mas-max/*": _FEW,
}

_HALF_FIRST = ("split-shapes", "cifar100-50-5", "cifar100-50-10", "cifar100-50-25")
RUNS = dict.fromkeys(("fecam-common", "ncm"), _HALF_FIRST)

TABLES = {
    "loss": Table(),
    "translation": Table(only=("fetril",)),
    "heads": Table(only=("lwf-max", "ewc-max", "mas-max")),
    "similarity": Table(variants=False, history="similarity", only=("lwf-max",), unless=_HALF_FIRST[1:]),
}

PAPER = Paper("class-incremental methods", "Hou et al. 2019, and the authors named in each method's file",
              VARIANTS, SETTINGS, runs=RUNS, tables=TABLES)
