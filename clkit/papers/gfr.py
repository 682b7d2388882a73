"""GFR (Liu et al. 2020): its variants, and the benchmarks that begin with half of the classes.

A benchmark DATA-N-T has N classes in the first task and T tasks after it; split-shapes has half of its
classes in the first task and five tasks after it. CIFAR-100 has the class order of the authors' code,
ImageNet-Subset (100 classes) that of FACIL (Masana et al. 2023), because paper and code name different
subsets. At the laptop size images have 16x16 pixels, with at most 200 for training in a class, and the
network is narrow. ImageNet is read from class folders, whose images are resized to 256x256 pixels once and
stay on disk: 26 GB for 100 classes, ten times as much for 1,000.
"""

from clkit.papers import class_orders
from clkit.papers.palette import BLACK, DASHDOT, DASHED, DOTTED, GREY, ORANGE, SOLID
from clkit.papers.paper import Benchmark, Paper, Table, Variant

_PLAIN = {"replay": False, "regulariser": "none", "norm": "batch"}
VARIANTS = {
    "gfr": Variant("GFR", ORANGE, "o", SOLID),
    "gfr-gaussian": Variant("GFR (Gaussian)", ORANGE, "s", DASHED, {"gauss": "diag"}),
    "gfr-gaussian-scalar": Variant("GFR (Gaussian, scalar)", ORANGE, "1", DOTTED, {"gauss": "scalar"}),
    "gfr-gaussian-full": Variant("GFR (Gaussian, full)", ORANGE, "2", DOTTED, {"gauss": "full"}),
    "gfr-distill": Variant("Feature distillation", ORANGE, "v", DASHDOT, {"replay": False}),
    "gfr-replay": Variant("Feature replay", ORANGE, "^", DASHDOT, {"regulariser": "none"}),
    "gfr-ewc": Variant("EWC and feature replay", ORANGE, "<", DASHED,
                       {"regulariser": "ewc", "strength": 1e4}),
    "gfr-mas": Variant("MAS and feature replay", ORANGE, ">", DASHED, {"regulariser": "mas"}),
    "gfr-finetune": Variant("Finetune (GFR's training)", GREY, "D", DASHED, _PLAIN),
    "gfr-joint": Variant("Joint (GFR's training)", BLACK, "D", DASHED, _PLAIN),
}

_EASY = {"siblings": 1, "side": 16, "difficulty": 0.1}  # a class of each family, and details that show
_FEW = {"max_per_class": 20}
_SMOKE = Benchmark("shapes", (2, 1, 1), {**_EASY, "families": 4}, _FEW)
_SMALL = {"side": 16}
_CAP, _50 = {"max_per_class": 200}, {"max_per_class": 50}
_CIFAR = class_orders.gfr(100)
_SUBSET = class_orders.icarl(100)
_IMAGENET = class_orders.gfr(1000)
_LARGE = {"side": 256}
FIVE, TEN, TWENTY_FIVE = (50, *(10,) * 5), (50, *(5,) * 10), (50, *(2,) * 25)
BENCHMARKS = {
    "split-shapes": {                                   # 20 classes; at the size of the paper 100
        "smoke": _SMOKE,
        "teach": Benchmark("shapes", (10, *(2,) * 5), _EASY),
        "laptop": "paper",
        "paper": Benchmark("shapes", FIVE, {"difficulty": 0.3}, interleave_families=True),
    },
    "cifar100-50-5": {
        "smoke": _SMOKE,
        "teach": Benchmark("shapes", (10, *(2,) * 5), _EASY),
        "laptop": Benchmark("cifar100", FIVE, _SMALL, _CAP, order=_CIFAR),
        "paper": Benchmark("cifar100", FIVE, order=_CIFAR),
    },
    "cifar100-50-10": {
        "smoke": _SMOKE,
        "teach": Benchmark("shapes", (10, *(1,) * 10), _EASY),
        "laptop": Benchmark("cifar100", TEN, _SMALL, _CAP, order=_CIFAR),
        "paper": Benchmark("cifar100", TEN, order=_CIFAR),
    },
    "cifar100-50-25": {
        "smoke": _SMOKE,
        "teach": Benchmark("shapes", (10, *(1,) * 10), _EASY),
        "laptop": Benchmark("cifar100", TWENTY_FIVE, _SMALL, _CAP, order=_CIFAR),
        "paper": Benchmark("cifar100", TWENTY_FIVE, order=_CIFAR),
    },
    "cifar100-4": {                                     # equal tasks: figure 2, tables 2 and 3
        "smoke": Benchmark("shapes", (2,) * 2, {**_EASY, "families": 4}, _FEW),
        "teach": Benchmark("shapes", (5,) * 4, _EASY),
        "laptop": Benchmark("cifar100", (25,) * 4, _SMALL, _CAP, order=_CIFAR),
        "paper": Benchmark("cifar100", (25,) * 4, order=_CIFAR),
    },
    "imagenet100-50-5": {
        "smoke": _SMOKE,
        "teach": Benchmark("shapes", (10, *(2,) * 5), _EASY),
        "laptop": Benchmark("imagenet100", FIVE, _SMALL, _CAP, order=_SUBSET),
        "paper": Benchmark("imagenet100", FIVE, _LARGE, order=_SUBSET),
    },
    "imagenet100-50-10": {
        "smoke": _SMOKE,
        "teach": Benchmark("shapes", (10, *(1,) * 10), _EASY),
        "laptop": Benchmark("imagenet100", TEN, _SMALL, _CAP, order=_SUBSET),
        "paper": Benchmark("imagenet100", TEN, _LARGE, order=_SUBSET),
    },
    "imagenet100-50-25": {
        "smoke": _SMOKE,
        "teach": Benchmark("shapes", (10, *(1,) * 10), _EASY),
        "laptop": Benchmark("imagenet100", TWENTY_FIVE, _SMALL, _CAP, order=_SUBSET),
        "paper": Benchmark("imagenet100", TWENTY_FIVE, _LARGE, order=_SUBSET),
    },
    "imagenet1000-500-5": {
        "smoke": _SMOKE,
        "teach": Benchmark("shapes", (10, *(2,) * 5), _EASY),
        "laptop": Benchmark("imagenet1000", (500, *(100,) * 5), _SMALL, _50, order=_IMAGENET),
        "paper": Benchmark("imagenet1000", (500, *(100,) * 5), _LARGE, order=_IMAGENET),
    },
    "imagenet1000-500-10": {
        "smoke": _SMOKE,
        "teach": Benchmark("shapes", (10, *(1,) * 10), _EASY),
        "laptop": Benchmark("imagenet1000", (500, *(50,) * 10), _SMALL, _50, order=_IMAGENET),
        "paper": Benchmark("imagenet1000", (500, *(50,) * 10), _LARGE, order=_IMAGENET),
    },
    "imagenet1000-500-25": {
        "smoke": _SMOKE,
        "teach": Benchmark("shapes", (10, *(1,) * 10), _EASY),
        "laptop": Benchmark("imagenet1000", (500, *(20,) * 25), _SMALL, _50, order=_IMAGENET),
        "paper": Benchmark("imagenet1000", (500, *(20,) * 25), _LARGE, order=_IMAGENET),
    },
}

# Image networks and their training; the fields of the methods beside GFR have the same names.
CIFAR_MEAN = {"mean": (0.4914, 0.4822, 0.4465), "std": (0.2023, 0.1994, 0.201)}     # of CIFAR-10, as released
IMAGENET_MEAN = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}

_TINY_GAN = {"nz": 8, "hidden": 16, "gan_epochs": 2, "gan_lr": 1e-3}
_SMALL_GAN = {"nz": 32, "hidden": 128, "gan_epochs": 100, "gan_lr": 1e-3, "gan_lr_step": 80,
              "alignment": 4e-3}
_TINY = {"net": "resnet10", "mean": (0.5,), "std": (0.25,), "epochs": 2, "batch_size": 16, "augment": "flip",
         **_TINY_GAN}
_NARROW = {"net": "resnet10", "mean": (0.5,), "std": (0.25,), "epochs": 60, "lr_step": 50, "batch_size": 32,
           **_SMALL_GAN}
_SHAPES = {"smoke": _TINY, "teach": _NARROW}
_LAPTOP = {**_NARROW, **CIFAR_MEAN, "batch_size": 64}
_PHOTOS = {"net": "resnet18-large", "augment": "zoom", "view": 224, "epochs": 101, "lr_step": 100,
           "gan_epochs": 201, **IMAGENET_MEAN}
_ON_CIFAR = {**_SHAPES, "laptop": _LAPTOP, "paper": {}}
_ON_IMAGENET = {**_SHAPES, "laptop": {**_LAPTOP, **IMAGENET_MEAN}, "paper": _PHOTOS}
SETTINGS = {
    "split-shapes": {**_SHAPES, "laptop": "paper", "paper": _NARROW},
    "cifar100-50-5": _ON_CIFAR,
    "cifar100-50-10": _ON_CIFAR,
    "cifar100-50-25": _ON_CIFAR,
    "cifar100-4": _ON_CIFAR,
    "imagenet100-50-5": _ON_IMAGENET,
    "imagenet100-50-10": _ON_IMAGENET,
    "imagenet100-50-25": _ON_IMAGENET,
    "imagenet1000-500-5": _ON_IMAGENET,
    "imagenet1000-500-10": _ON_IMAGENET,
    "imagenet1000-500-25": _ON_IMAGENET,
}

_SMALLER = ("split-shapes", "cifar100-4", "cifar100-50-5", "cifar100-50-10", "cifar100-50-25")
RUNS = {
    **dict.fromkeys(("gfr-gaussian-scalar", "gfr-gaussian-full", "gfr-distill", "gfr-replay"), _SMALLER),
    **dict.fromkeys(("gfr-ewc", "gfr-mas"), _SMALLER[:2]),
}

SEEDS = {
    ("split-shapes", "teach"): (0, 1, 2, 3, 4),
    ("cifar100-4", "teach"): (0,),
    ("split-shapes", "paper"): (0,),
    **{(name, "laptop"): (0, 1, 2) for name in BENCHMARKS},
}

_DRAWN = (                                              # where the features themselves are looked at
    *(f"{m}/split-shapes" for m in ("gfr", "gfr-gaussian", "gfr-distill", "gfr-replay", "gfr-finetune")),
    *(f"{m}/{name}" for m in ("gfr", "gfr-gaussian") for name in BENCHMARKS if "-50-" in name),
)
TABLES = {
    "loss": Table(),
    "drift": Table(),
    "features": Table(first_seed_columns=("real", "generated", "means"), variants=False, probe="features",
                      kept_by=_DRAWN,
                      large="features of ten classes and means of all, after each task, of the first seed"),
    "similarity": Table(variants=False, history="similarity", only=("gfr", "gfr-distill", "gfr-finetune"),
                        unless=tuple(name for name in BENCHMARKS if name not in _SMALLER[:2])),
}

MINUTES = {("gfr/split-shapes", "teach"): 1.4, ("gfr-distill/split-shapes", "teach"): 1.0}

PAPER = Paper("GFR", "Liu et al. 2020", VARIANTS, SETTINGS, BENCHMARKS, RUNS, TABLES, SEEDS, MINUTES)
