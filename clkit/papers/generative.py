"""Generative replay beside DGM: MeRGAN, DGR with a GAN, EWC-M, and the bound of real images.

They run on DGM's benchmarks in its protocol: their settings of the classifier and of the noise are DGM's.
"""

from dataclasses import replace

from clkit.papers import dgm
from clkit.papers.palette import BLACK, BROWN, DASHDOT, DASHED, DOTTED, INDIGO, OLIVE, SOLID
from clkit.papers.paper import Paper, Table, Variant

VARIANTS = {
    "mergan": Variant("MeRGAN", INDIGO, "^", SOLID),
    "mergan-align": Variant("MeRGAN (alignment)", INDIGO, "v", DASHED, {"replay": "align"}),
    "dgr-gan": Variant("DGR (GAN)", BROWN, "p", DASHED),
    "ewc-m": Variant("EWC-M", OLIVE, "<", DOTTED),
    "joint-d": Variant("Joint training of D", BLACK, "*", DASHDOT),
}

BENCHMARKS = ("digits-10", "split-mnist-10", "split-svhn-10")

_SMALL = {"nz": 64, "g_width": 16, "d_width": 16, "d_norm": False, "batch_size": 32}
_MNIST = {
    "smoke": {"nz": 64, "g_width": 4, "d_width": 8, "epochs": 3, "batch_size": 20},
    "teach": {**_SMALL, "epochs": 20, "steps": "pooled"},
    "laptop": {**_SMALL, "epochs": 20},
    "paper": {},
}
_DIGITS = {**_MNIST, "laptop": "teach", "paper": "teach"}
_SVHN = {
    **_MNIST,
    "smoke": {**_MNIST["smoke"], "lr": 5e-4},
    "paper": {"epochs": 151, "lr": 5e-4},
}
_ONLY_D = {"d_width": 16, "d_norm": False, "batch_size": 32}    # no generator
_D_MNIST = {
    "smoke": {"d_width": 8, "epochs": 3, "batch_size": 20},
    "teach": {**_ONLY_D, "epochs": 20, "steps": "pooled"},
    "laptop": {**_ONLY_D, "epochs": 20},
    "paper": {},
}
# Replay of whole images where GFR replays features, in four tasks of 25 classes. As elsewhere, D classifies;
# the network of that comparison is larger.
_PHOTOS = {
    "smoke": {"nz": 16, "g_width": 4, "d_width": 8, "epochs": 2, "batch_size": 20},
    "teach": {"nz": 64, "g_width": 16, "d_width": 16, "epochs": 20, "batch_size": 32, "steps": "pooled"},
    "laptop": {"nz": 64, "g_width": 16, "d_width": 16, "epochs": 20, "batch_size": 64, "steps": "pooled"},
    "paper": {"g_width": 64, "d_width": 64, "lr": 5e-4, "epochs": 151},
}
SETTINGS = {
    "mergan/digits-10": _DIGITS,
    "mergan/split-mnist-10": _MNIST,
    "mergan/split-svhn-10": _SVHN,
    "mergan/cifar100-4": _PHOTOS,
    "mergan-align/digits-10": _DIGITS,
    "mergan-align/split-mnist-10": _MNIST,
    "mergan-align/split-svhn-10": _SVHN,
    "mergan-align/cifar100-4": _PHOTOS,
    "dgr-gan/digits-10": _DIGITS,
    "dgr-gan/split-mnist-10": _MNIST,
    "dgr-gan/split-svhn-10": _SVHN,
    "ewc-m/digits-10": _DIGITS,
    "ewc-m/split-mnist-10": _MNIST,
    "ewc-m/split-svhn-10": _SVHN,
    "joint-d/digits-10": {**_D_MNIST, "laptop": "teach", "paper": "teach"},
    "joint-d/split-mnist-10": _D_MNIST,
    "joint-d/split-svhn-10": {
        **_D_MNIST,
        "smoke": {**_D_MNIST["smoke"], "lr": 5e-4},
        "paper": {"epochs": 151, "lr": 5e-4},
    },
}

_GENERATORS = ("mergan", "mergan-align", "dgr-gan", "ewc-m")
TABLES = {"loss": Table(), "progress": dgm.PROGRESS, "generated": replace(dgm.GENERATED, only=_GENERATORS)}

RUNS = dict.fromkeys(VARIANTS, BENCHMARKS)
RUNS |= dict.fromkeys(("mergan", "mergan-align"), (*BENCHMARKS, "cifar100-4"))

PAPER = Paper("generative replay", "Wu et al. 2018, and the authors named in each method's file", VARIANTS,
              SETTINGS, runs=RUNS, tables=TABLES)
