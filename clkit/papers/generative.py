"""Generative replay beside DGM: MeRGAN, DGR with a GAN, EWC-M, and the bound of real images.

They run on DGM's benchmarks in its protocol: where a setting has the name of one of DGM's, it has its value.
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

_CLASSIFIER = ("d_width", "d_norm", "epochs", "batch_size", "lr", "steps")
_FIELDS = dict.fromkeys(VARIANTS, (*_CLASSIFIER, "nz")) | {"joint-d": _CLASSIFIER}
_WIDTHS = {"smoke": {"g_width": 4}, "teach": {"g_width": 16}, "laptop": {"g_width": 16}, "paper": {}}
_BENCHMARKS = tuple(b for b in ("digits-10", "split-mnist-10", "split-svhn-10") if b in dgm.SETTINGS)


def _rows(method, benchmark):
    """DGM's settings in each size that the method has too, and the width of its generator."""
    def row(size, settings):
        if isinstance(settings, str):
            return settings
        width = {} if method == "joint-d" else _WIDTHS[size]
        return {name: settings[name] for name in _FIELDS[method] if name in settings} | width

    return {size: row(size, settings) for size, settings in dgm.SETTINGS[benchmark].items()}


SETTINGS = {f"{method}/{where}": _rows(method, where) for method in VARIANTS for where in _BENCHMARKS}

# Replay of whole images where GFR replays features, in four tasks of 25 classes. As elsewhere, D classifies;
# the network of that comparison is larger.
_PHOTOS = {
    "smoke": {"nz": 16, "g_width": 4, "d_width": 8, "epochs": 2, "batch_size": 20},
    "teach": {"nz": 64, "g_width": 16, "d_width": 16, "epochs": 20, "batch_size": 32, "steps": "pooled"},
    "laptop": {"nz": 64, "g_width": 16, "d_width": 16, "epochs": 20, "batch_size": 64, "steps": "pooled"},
    "paper": {"g_width": 64, "d_width": 64, "lr": 5e-4, "epochs": 151},
}
SETTINGS |= {"mergan/cifar100-4": _PHOTOS, "mergan-align/cifar100-4": _PHOTOS}

_GENERATORS = tuple(method for method in VARIANTS if method != "joint-d")
TABLES = {"loss": Table(), "progress": dgm.PROGRESS, "generated": replace(dgm.GENERATED, only=_GENERATORS)}

RUNS = {method: (*_BENCHMARKS, "cifar100-4") if f"{method}/cifar100-4" in SETTINGS else _BENCHMARKS
        for method in VARIANTS}

PAPER = Paper("generative replay", "Wu et al. 2018, and the authors named in each method's file", VARIANTS,
              SETTINGS, runs=RUNS, tables=TABLES)
