"""MFGR (Xin, Zhong, Hou, Wang and Zheng 2021), and in its training the methods it is compared with.

The settings of the size `paper` are those of the paper, and of the released code where the paper is silent;
mfgr-code has those of the released script. Classes arrive in the order of their numbers (code). The class
lists of the paper's birds and objects are unknown: here they are every fifth class of CUB-200-2011 and of
Caltech-101. At the laptop size, images have 16x16 or 32x32 pixels, networks are narrow and trained from
scratch, and the side images of MUC are MNIST's, in the place of SVHN.
"""

from clkit.papers.palette import BLACK, BLUE, DASHDOT, DASHED, DOTTED, GREY, INDIGO, ROSE, SKY, SOLID, WINE
from clkit.papers.paper import Benchmark, Paper, Table, Variant

_CODE = {"lr": 0.1, "generated": 512, "diversity": 0.0, "activation": 0.1, "tv": 10.0}
VARIANTS = {
    "mfgr": Variant("MFGR", SKY, "o", SOLID),
    "mfgr-code": Variant("MFGR (released script)", SKY, "s", DASHED, _CODE),
    "mfgr-base": Variant("MFGR (base generator)", SKY, "v", DOTTED, {"statistics": 0.0, "diversity": 0.0}),
    "mfgr-bn": Variant("MFGR (no l_div)", SKY, "^", DOTTED, {"diversity": 0.0}),
    "mfgr-no-nkd": Variant("MFGR (no l_div, no l_nkd)", SKY, "x", DASHDOT, {"diversity": 0.0, "nkd": False}),
    "deep-inversion": Variant("DeepInversion", INDIGO, "D", DASHED),
    "lwf-sgd": Variant("LwF (SGD)", BLUE, "s", DASHED),
    "lwm": Variant("LwM", BLUE, "^", DOTTED),
    "muc-lwf": Variant("MUC-LwF", BLUE, "v", DASHDOT, {"keep": "lwf"}),
    "muc-mas": Variant("MUC-MAS", WINE, "^", DASHDOT, {"keep": "mas"}),
    "mas-sgd": Variant("MAS (SGD)", WINE, "v", DASHED, {"keep": "mas", "n_sides": 0}),
    "icarl-sgd": Variant("iCaRL (SGD)", ROSE, "h", DASHED),
    "icarl-mfgr": Variant("iCaRL with MFGR's images", ROSE, "H", DOTTED),
    "finetune-sgd": Variant("Finetune (SGD)", GREY, "X", DASHED),
    "oracle": Variant("Oracle", BLACK, "*", DOTTED),
}

# Of the old classes of a first task, in their order of arrival: how many are alike, how many are easy.
GROUPS = {
    "wardrobe": {"shirt-like": 5, "easy": 2},
    "wardrobe-8-2": {"shirt-like": 4, "easy": 4},
    "cub-caltech": {"birds": 40, "objects": 10},
    "cub-caltech/laptop": {"birds": 20, "objects": 10},
    "cub-caltech/teach": {"stars": 5, "others": 5},
}

_SMOKE = Benchmark("shapes", (3, 2), {"families": 2, "side": 8, "difficulty": 0.3}, {"max_per_class": 10},
                   order=(0, 1, 5, 2, 6))
_SHOWN = {"side": 16, "difficulty": 0.3}                # details that show
_STARS = (0, 1, 2, 3, 4)                                # look-alikes; 5, 10, 15 ... are of other families
_CLOTHES = ("T-shirt/top", "Pullover", "Dress", "Coat", "Shirt", "Trouser", "Bag",
            "Sandal", "Sneaker", "Ankle boot")
_MORE_EASY = ("T-shirt/top", "Pullover", "Coat", "Shirt", "Trouser", "Dress", "Bag", "Sandal",
              "Sneaker", "Ankle boot")
_600, _200, _100, _30 = ({"max_per_class": n} for n in (600, 200, 100, 30))
_EVERY_FIFTH = (*range(0, 200, 5), *range(200, 300, 5))        # of 200 birds, then of the objects
BENCHMARKS = {
    "wardrobe": {                                       # from no paper: five clothes alike, two easy ones
        "smoke": _SMOKE,
        "teach": Benchmark("shapes", (7, 3), {"families": 6, **_SHOWN}, order=(*_STARS, 5, 10, 15, 20, 25)),
        "laptop": Benchmark("fashion_mnist", (7, 3), {"side": 16}, _600, order=_CLOTHES),
        "paper": Benchmark("fashion_mnist", (7, 3), {"side": 32}, order=_CLOTHES),
    },
    "wardrobe-8-2": {                                   # the same with four of each
        "smoke": _SMOKE,
        "teach": Benchmark("shapes", (8, 2), {"families": 7, **_SHOWN},
                           order=(*_STARS[:4], 5, 10, 15, 20, 25, 30)),
        "laptop": Benchmark("fashion_mnist", (8, 2), {"side": 16}, _600, order=_MORE_EASY),
        "paper": Benchmark("fashion_mnist", (8, 2), {"side": 32}, order=_MORE_EASY),
    },
    "cifar100-5": {
        "smoke": _SMOKE,
        "teach": Benchmark("shapes", (4,) * 3, {"families": 12, "siblings": 1, **_SHOWN}),
        "laptop": Benchmark("cifar100", (20,) * 5, {"side": 16}, _200),
        "paper": Benchmark("cifar100", (20,) * 5),
    },
    "cifar100-10": {
        "smoke": _SMOKE,
        "teach": Benchmark("shapes", (2,) * 5, {"families": 10, "siblings": 1, **_SHOWN}),
        "laptop": Benchmark("cifar100", (10,) * 10, {"side": 16}, _200),
        "paper": Benchmark("cifar100", (10,) * 10),
    },
    "cifar100-6": {                                     # half first; in another order this is cifar100-50-5
        "smoke": _SMOKE,
        "teach": Benchmark("shapes", (6, *(2,) * 3), {"families": 12, "siblings": 1, **_SHOWN}),
        "laptop": Benchmark("cifar100", (50, *(10,) * 5), {"side": 16}, _200),
        "paper": Benchmark("cifar100", (50, *(10,) * 5)),
    },
    "tinyimagenet-5": {                                 # the user's class folders, validation images as test
        "smoke": _SMOKE,
        "teach": Benchmark("shapes", (4,) * 3, {"families": 12, "siblings": 1, **_SHOWN}),
        "laptop": Benchmark("tinyimagenet", (40,) * 5, {"side": 16}, _100),
        "paper": Benchmark("tinyimagenet", (40,) * 5, {"side": 32}),
    },
    "tinyimagenet-10": {
        "smoke": _SMOKE,
        "teach": Benchmark("shapes", (2,) * 5, {"families": 10, "siblings": 1, **_SHOWN}),
        "laptop": Benchmark("tinyimagenet", (20,) * 10, {"side": 16}, _100),
        "paper": Benchmark("tinyimagenet", (20,) * 10, {"side": 32}),
    },
    "tinyimagenet-6": {
        "smoke": _SMOKE,
        "teach": Benchmark("shapes", (6, *(2,) * 3), {"families": 12, "siblings": 1, **_SHOWN}),
        "laptop": Benchmark("tinyimagenet", (100, *(20,) * 5), {"side": 16}, _100),
        "paper": Benchmark("tinyimagenet", (100, *(20,) * 5), {"side": 32}),
    },
    "cub-caltech": {
        "smoke": _SMOKE,
        "teach": Benchmark("shapes", (10, 3), {"families": 9, **_SHOWN},
                           order=(*_STARS, 5, 10, 15, 20, 25, 30, 35, 40)),
        "laptop": Benchmark("cub25+caltech24", (30, 10), {"side": 32}, order=(*range(20), *range(25, 45))),
        "paper": Benchmark("cub200+caltech101", (50, 10), {"side": 224}, _30, order=_EVERY_FIFTH),
    },
    "cub-10-10": {
        "smoke": _SMOKE,
        "teach": Benchmark("shapes", (5, 5), {"families": 2, **_SHOWN}),
        "laptop": Benchmark("cub25", (10, 10), {"side": 32}, order=tuple(range(20))),
        "paper": Benchmark("cub200", (10, 10), {"side": 224}, _30, order=tuple(range(0, 200, 10))),
    },
}

_TINY = {"net": "resnet8", "mean": (0.5,), "std": (0.25,), "pad": 1, "base_epochs": 1, "epochs": 1,
         "batch_size": 10, "base_lr": 0.05, "lr": 0.05}
_NARROW = {"net": "resnet8", "mean": (0.5,), "std": (0.25,), "pad": 1, "base_epochs": 30, "epochs": 40,
           "batch_size": 32, "base_lr": 0.1, "lr": 0.2}
_SHAPES = {"smoke": _TINY, "teach": _NARROW}
_GREY = {"mean": (0.286,), "std": (0.353,), "pad": 0}
_CLOTHING = {**_GREY, "net": "resnet8", "base_epochs": 20, "epochs": 20, "batch_size": 64, "base_lr": 0.05,
             "lr": 0.05}
_PHOTOS = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
_COLOURED = {"net": "resnet8-wide", "pad": 2, "base_epochs": 30, "epochs": 20, "batch_size": 64, "lr": 0.05}
_OBJECTS = {**_COLOURED, **_PHOTOS, "base_epochs": 60, "epochs": 40, "batch_size": 32, "base_lr": 0.05}
_LARGE = {**_PHOTOS, "net": "resnet18-large", "pad": 0, "base_lr": 0.01}
_FEWER = {**_COLOURED, "epochs": 10}                    # for many old classes: an hour a seed
_ON_CIFAR = {**_SHAPES, "laptop": _COLOURED, "paper": {}}
_LONG_CIFAR = {**_ON_CIFAR, "laptop": _FEWER}
_ON_TINY = {**_SHAPES, "laptop": {**_COLOURED, **_PHOTOS}, "paper": _PHOTOS}
_LONG_TINY = {**_ON_TINY, "laptop": {**_FEWER, **_PHOTOS}}
_ON_BIRDS = {**_SHAPES, "laptop": _OBJECTS, "paper": _LARGE}
_ON_CLOTHES = {**_SHAPES, "laptop": _CLOTHING, "paper": _GREY}

_G = {
    "smoke": {"noise": 8, "g_maps": (8, 8, 4), "g_steps": 3, "g_batch": 16, "n_pairs": 4},
    "teach": {"noise": 64, "g_maps": (64, 64, 32), "g_steps": 200, "g_batch": 100, "n_pairs": 50},
    "laptop": {"noise": 100, "g_maps": (64, 64, 32), "g_steps": 500, "g_batch": 200, "n_pairs": 100},
    "paper": {},
}
_FEW_EXEMPLARS = {"smoke": {"memory": 20, "generated": 10}, "teach": {"memory": 50, "generated": 32},
                  "laptop": {"memory": 400, "generated": 64}, "paper": {}}
_SIDES = {
    "smoke": {"side_data": "digits", "side_epochs": 1},
    "teach": {"side_data": "digits", "side_epochs": 5},
    "laptop": {"side_data": "mnist"},
    "paper": {},
}
_FOR_256 = {"paper": {"g_maps": (256, 256, 128, 64, 32, 16, 8), "g_side": 256}}
_GENERATING = ("mfgr", "mfgr-code", "mfgr-base", "mfgr-bn", "mfgr-no-nkd")
SETTINGS = {
    "wardrobe": _ON_CLOTHES,
    "wardrobe-8-2": _ON_CLOTHES,
    "cifar100-5": _ON_CIFAR,
    "cifar100-10": _LONG_CIFAR,
    "cifar100-6": _LONG_CIFAR,
    "tinyimagenet-5": _ON_TINY,
    "tinyimagenet-10": _LONG_TINY,
    "tinyimagenet-6": _LONG_TINY,
    "cub-caltech": _ON_BIRDS,
    "cub-10-10": _ON_BIRDS,
    "shapes-families": {                                # every task is a family of look-alikes
        "smoke": _TINY,
        "teach": _NARROW,
        "laptop": "paper",
        "paper": {**_NARROW, "net": "resnet8-wide", "pad": 2},
    },
    **dict.fromkeys((f"{method}/*" for method in _GENERATING), _G),
    "mfgr-code/*": {
        "smoke": {**_G["smoke"], "generated": 20},
        "teach": {**_G["teach"], "generated": 128},
        "laptop": {**_G["laptop"], "generated": 256, "lr": 0.1},
        "paper": {},
    },
    "mfgr/cub-caltech": _FOR_256,
    "mfgr/cub-10-10": _FOR_256,
    "mfgr/shapes-families": {"paper": _G["laptop"]},
    "mfgr/cifar100-10": {"laptop": {"g_steps": 300}},
    "mfgr/tinyimagenet-10": {"laptop": {"g_steps": 300}},
    "deep-inversion/*": {
        "smoke": {"per_class": 4, "i_steps": 3, "i_batch": 8, "jitter": 1},
        "teach": {"per_class": 20, "i_steps": 100, "i_batch": 100},
        "laptop": {"per_class": 100, "i_steps": 500, "i_batch": 250},
        "paper": {},
    },
    "icarl-sgd/*": _FEW_EXEMPLARS,
    "icarl-mfgr/*": {size: {**_G[size], **row} for size, row in _FEW_EXEMPLARS.items()},
    "muc-lwf/*": _SIDES,
    "muc-mas/*": _SIDES,
}

_EVERYWHERE = tuple(BENCHMARKS)
_WARDROBES = ("wardrobe", "wardrobe-8-2")
RUNS = {
    **dict.fromkeys(("mfgr", "lwf-sgd", "finetune-sgd", "oracle"), (*_EVERYWHERE, "shapes-families")),
    **dict.fromkeys(("lwm", "mas-sgd", "muc-mas", "muc-lwf"), _EVERYWHERE),
    **dict.fromkeys(("mfgr-base", "mfgr-bn", "mfgr-no-nkd"), (*_WARDROBES, "cifar100-5", "tinyimagenet-5")),
    "mfgr-code": (*_WARDROBES, "cifar100-5", "cifar100-10", "cifar100-6"),
    "deep-inversion": (*_WARDROBES, "cub-10-10"),
    **dict.fromkeys(("icarl-sgd", "icarl-mfgr"), (*_WARDROBES, "cifar100-5")),
}

_STAGE_1 = (*_GENERATING, "icarl-mfgr")
TABLES = {
    "loss": Table(first_seed_columns=("counts",)),
    "memory": Table(only=("icarl-sgd", "icarl-mfgr")),
    "recording": Table(first_seed_columns=("counts", "gaps"), only=_STAGE_1,
                       kept_by=tuple(f"{m}/wardrobe" for m in _STAGE_1),
                       large="the gap of each layer and the images of each class, at 200 steps of each task"),
    "images": Table(keep="first seed", variants=False, only=_STAGE_1,
                    kept_by=("mfgr/wardrobe", "mfgr-base/wardrobe"),
                    large="sixteen generated images at nine steps of each stage 1"),
    "inversion": Table(only=("deep-inversion",)),
    "samples": Table(first_seed_columns=("images",), only=(*_STAGE_1, "deep-inversion"),
                     kept_by=("mfgr/wardrobe", "mfgr-base/wardrobe", "deep-inversion"),
                     large="eight generated images of each old class, after each stage 1"),
    "fine": Table(first_seed_columns=("apart", "features", "labels", "pictures"), probe="fine",
                  kept_by=tuple(f"{m}/{b}" for m in ("mfgr", "lwf-sgd")
                                for b in ("wardrobe", "cub-caltech", "cifar100-6")),
                  large="features of 100 images of each of some classes, before and after the second task"),
}

_THREE = (0, 1, 2)
SEEDS = {
    **dict.fromkeys(((name, "laptop") for name in ("cifar100-5", "cifar100-10", "cifar100-6",
                                                   "tinyimagenet-5", "tinyimagenet-10", "tinyimagenet-6")),
                    _THREE),
    **dict.fromkeys(((name, "paper") for name in BENCHMARKS), _THREE),
}

_PEOPLE = (11, 35, 46, 20, 23)                          # boy, girl, man; chair, cloud
SHOWN = {
    ("cifar100-6", "laptop"): _PEOPLE,
    ("cifar100-6", "paper"): _PEOPLE,
    ("cub-caltech", "laptop"): (*range(5), *range(20, 25)),
    ("cub-caltech", "paper"): (*range(5), *range(40, 45)),
}

PAPER = Paper("MFGR", "Xin, Zhong, Hou, Wang and Zheng 2021", VARIANTS, SETTINGS, BENCHMARKS, RUNS, TABLES,
              SEEDS, shown=SHOWN)
