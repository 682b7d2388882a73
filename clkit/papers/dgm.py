"""DGM (Ostapenko, Puscas, Klein, Jähnichen and Nabi 2019), with masks on weights and on channels.

The settings are those of the released code, because the paper states almost none. Images have 32x32 pixels;
at the laptop size they have 16x16, and both networks are narrower.
"""

from clkit.papers.palette import DASHED, DOTTED, SOLID, WINE
from clkit.papers.paper import Benchmark, Paper, Table, Variant

_CHANNELS = {"unit": "channel", "s_max": 1e5, "sparsity": 0.01}
VARIANTS = {
    "dgmw": Variant("DGMw", WINE, "h", SOLID),
    "dgma": Variant("DGMa", WINE, "H", DASHED, _CHANNELS),
    "dgm-no-replay": Variant("DGM without replay", WINE, "d", DOTTED, {"replay": False}),
}

ONE_BY_ONE = (1,) * 10
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
        "laptop": Benchmark("mnist", ONE_BY_ONE, {"side": 16}, {"max_per_class": 600}),
        "paper": Benchmark("mnist", ONE_BY_ONE, {"side": 32}, {"val": 0.15}),
    },
}

_SMALL = {"nz": 64, "d_width": 16}
_DIGITS = {
    "smoke": {**_SMALL, "g_width": 4, "d_width": 8, "epochs": 3, "batch_size": 20},
    "teach": {**_SMALL, "epochs": 60, "batch_size": 32, "steps": "pooled"},
    "laptop": {**_SMALL, "epochs": 30, "steps": "pooled"},
    "paper": {},
}
SETTINGS = {
    "digits-10": {**_DIGITS, "laptop": "teach", "paper": "teach"},
    "split-mnist-10": _DIGITS,
    "dgma/digits-10": {"teach": {"g_width": 16}, "laptop": "teach", "paper": "teach"},
    "dgma/split-mnist-10": {"teach": {"g_width": 16}, "laptop": {"g_width": 20}, "paper": {"g_width": 20}},
}

GENERATED = Table(first_seed_columns=("images",), probe="generated",
                  large="the generated images of the first seed, eight of each class after each task")
TABLES = {
    "loss": Table(),
    "masks": Table(keep="first seed", variants=False),
    "capacity": Table(),
    "growth": Table(),
    "generated": GENERATED,
}

PAPER = Paper("DGM", "Ostapenko, Puscas, Klein, Jähnichen and Nabi 2019", VARIANTS, SETTINGS, BENCHMARKS,
              tables=TABLES)
