"""ARM (Ji, Henriques, Tuytelaars and Vedaldi 2020) and the methods compared with it in the same loop.

Networks, rates and weights are those of the paper's table 4. A task of the embedded digits has a quarter as
many images as one of MNIST-5k-5; three passes over them give nearly as many steps.
"""

from clkit.papers.palette import BLACK, BLUE, DASHED, DOTTED, GREY, PURPLE, SOLID
from clkit.papers.paper import Benchmark, Paper, Table, Variant

VARIANTS = {
    "arm": Variant("ARM", PURPLE, "p", SOLID),
    "adi": Variant("ADI", PURPLE, "x", DASHED, {"recall": "adi", "distill": 0.5}),
    "distill": Variant("Distillation", BLUE, "4", DOTTED, {"recall": "none"}),
    "naive": Variant("Naive (one pass)", GREY, "x", DOTTED, {"recall": "none", "distill": 0.0}),
    "stationary": Variant("Stationary (one pass)", BLACK, "+", DOTTED, {"recall": "none", "distill": 0.0}),
}

PAIRS = (2, 2, 2, 2, 2)
TEN_SHAPES = {"families": 10, "siblings": 1}

BENCHMARKS = {
    # 500 images per class, each used once (table 3). In the authors' code a task continues until each class
    # has had its 500, so its last images belong to a single class.
    "mnist-5k-5": {
        "smoke": Benchmark("digits28", PAIRS, stream={"max_per_class": 20}, shuffle_images=True),
        "teach": Benchmark("digits28", PAIRS, stream={"max_per_class": 135}, shuffle_images=True),
        "laptop": "paper",
        "paper": Benchmark("mnist", PAIRS, stream={"val": 0.05, "max_per_class": 500}, shuffle_images=True),
    },
    # the same without that ending
    "mnist-5k-5-mixed": {
        "smoke": Benchmark("digits28", PAIRS, stream={"max_per_class": 20}),
        "teach": Benchmark("digits28", PAIRS, stream={"max_per_class": 135}),
        "laptop": "paper",
        "paper": Benchmark("mnist", PAIRS, stream={"val": 0.05, "max_per_class": 500}),
    },
    # the same, tested on held-out training images: for choosing settings
    "mnist-5k-5-val": {
        "smoke": Benchmark("digits28", PAIRS, stream={"max_per_class": 20}, shuffle_images=True,
                           eval_on_val=0.05),
        "teach": Benchmark("digits28", PAIRS, stream={"max_per_class": 130}, shuffle_images=True,
                           eval_on_val=0.05),
        "laptop": "paper",
        "paper": Benchmark("mnist", PAIRS, stream={"max_per_class": 500}, shuffle_images=True,
                           eval_on_val=0.05),
    },
    "digits-online": {
        "smoke": Benchmark("digits", PAIRS, stream={"max_per_class": 20}, shuffle_images=True),
        "teach": Benchmark("digits", PAIRS, stream={"max_per_class": 135}, shuffle_images=True),
        "laptop": "paper",
        "paper": Benchmark("digits", PAIRS, stream={"max_per_class": 135}, shuffle_images=True),
    },
    # The validation images, which nothing here uses, are a random 5 % of each class; the authors set aside
    # the last 250 of each, which is val_from="last".
    "cifar10-5": {
        "smoke": Benchmark("shapes", PAIRS, TEN_SHAPES, {"max_per_class": 10}),
        "teach": Benchmark("shapes", PAIRS, TEN_SHAPES),
        "laptop": Benchmark("cifar10", PAIRS, stream={"val": 0.05, "max_per_class": 1000}),
        "paper": Benchmark("cifar10", PAIRS, stream={"val": 0.05}),
    },
    # the user's class folders: 100 classes, with 480 training and 120 test images each
    "miniimagenet-20": {
        "smoke": Benchmark("shapes", (5,) * 2, {"families": 2}, {"max_per_class": 6}),
        "teach": Benchmark("shapes", (5,) * 4, {"families": 4}, {"max_per_class": 20}),
        "laptop": Benchmark("miniimagenet", (5,) * 20, {"side": 84}, {"val": 0.05, "max_per_class": 20}),
        "paper": Benchmark("miniimagenet", (5,) * 20, {"side": 84}, {"val": 0.05}),
    },
}

_MNIST = {"smoke": {"n_images": 6, "n_steps": 3}, "teach": {"epochs": 3}, "paper": {}}
_COLOURED = {"lr": 0.01, "image_lr": 10.0}
_CIFAR = {**_COLOURED, "net": "resnet18", "n_images": 100}
_IMAGENET = {**_COLOURED, "net": "resnet18-pool2", "n_images": 100, "diversity": 1.0, "confidence": 1.0,
             "distill": 2.0}

SETTINGS = {
    "mnist-5k-5": _MNIST,
    "mnist-5k-5-mixed": _MNIST,
    "mnist-5k-5-val": _MNIST,
    "digits-online": {**_MNIST, "paper": "teach"},
    "cifar10-5": {
        "smoke": {**_COLOURED, "net": "resnet18", "n_images": 12, "n_steps": 2},
        "teach": {**_COLOURED, "net": "convnet", "n_images": 20},
        "laptop": _CIFAR,
        "paper": _CIFAR,
    },
    "miniimagenet-20": {
        "smoke": {**_COLOURED, "net": "resnet18-pool2", "n_images": 12, "n_steps": 2},
        "teach": {**_COLOURED, "net": "convnet", "n_images": 20},
        "laptop": _IMAGENET,
        "paper": {**_IMAGENET, "epochs": 3},
    },
    "adi/cifar10-5": {"laptop": {"bn_loss": 0.1, "distill": 1.0}, "paper": "laptop"},
    "adi/miniimagenet-20": {"laptop": {"bn_loss": 0.1}, "paper": "laptop"},
    "naive/cifar10-5": {"laptop": {"lr": 0.1}, "paper": "laptop"},
    "naive/miniimagenet-20": {"laptop": {"lr": 0.1, "distill": 0.0}, "paper": "laptop"},
    "stationary/cifar10-5": {"laptop": {"lr": 0.1}, "paper": "laptop"},
    "stationary/miniimagenet-20": {"laptop": {"lr": 0.1, "distill": 0.0}, "paper": "laptop"},
}

_LARGE = ("cifar10-5", "miniimagenet-20")               # with many, large images
TABLES = {
    "loss": Table(),
    "progress": Table(probe="accuracy_by_task", only=("arm", "adi", "distill", "naive")),
    "recall": Table(only=("arm", "adi")),
    "objective": Table(keep="first seed", kept_by=("arm/mnist-5k-5",), variants=False, unless=_LARGE,
                       only=("arm", "adi")),
    "images": Table(keep="first seed", kept_by=("arm/mnist-5k-5",), variants=False, unless=_LARGE,
                    only=("arm", "adi"), large="a thousand recalled images of 28x28 pixels"),
    "gradients": Table(variants=False, only=("arm", "adi"), study="gradients"),
}

SEEDS = {("cifar10-5", "paper"): (0,)}

PAPER = Paper("ARM", "Ji, Henriques, Tuytelaars and Vedaldi 2020", VARIANTS, SETTINGS, BENCHMARKS,
              tables=TABLES, seeds=SEEDS)
