"""The records behind DGM's figures: which methods and settings, and what they have in common.

Two scores are kept apart: the accuracy of the classifier on real test images, and the share of generated
images that a fixed judge recognises. A printed number stands beside the score that it measures.
"""

from functools import partial

from clkit import papers, plots
from clkit.figures.picture import available, available_records, left_out
from clkit.papers.published import published
from clkit.result import Result

MNIST, IMAGENET = "split-mnist-10", "imagenet50"
SIZE = "laptop"  # of the records of MNIST
SIZES = ("paper", SIZE)  # of the records of the other benchmarks, the first that there is
PRINTED_AS = {
    MNIST: "mnist-1x10",
    "split-svhn-10": "svhn-1x10",
    "split-cifar10-10": "cifar10-1x10",
    IMAGENET: "imagenet50-5x10",
}
OURS = ("dgmw", "dgma")

# Table 1: {score: {method: its name in print, or None}}. A printed number stands beside the score that it is.
SCORED = {
    "test": {
        "joint-d": "joint",
        "dgmw": "dgmw",
        "dgma": "dgma",
        "mergan": None,
        "mergan-align": None,
        "dgr-gan": None,
        "ewc-m": None,
        "dgm-no-replay": None,
    },
    "generated": {
        "dgmw": None,
        "dgma": None,
        "mergan": "mergan",
        "mergan-align": None,
        "dgr-gan": "dgr",
        "ewc-m": "ewc-m",
    },
}
QUOTED = {"icarl-s": "iCaRL-S", "ewc-s": "EWC-S", "rwalk-s": "RWalk-S", "pi-s": "PI-S"}  # real exemplars
MEANING = {"test": "classifier on real test images", "generated": "judge on generated images"}

# Table 2: {name in print: (label, experiment on ImageNet-50, overrides)}.
TABLE_2 = {
    "joint": ("Joint training", "joint-d", None),
    "icarl-k1000": ("iCaRL, K = 1000", "icarl", {"memory": 1000}),
    "icarl-k2000": ("iCaRL, K = 2000", "icarl", {"memory": 2000}),
    "dgmw-k1000": ("DGMw, K = 1000", "dgmw", {"real_budget": 1000}),
    "dgmw-k2000": ("DGMw, K = 2000", "dgmw", {"real_budget": 2000}),
    "dgmw-r75": ("DGMw, r = 0.75", "dgmw", {"real_share": 0.75}),
    "dgmw-r50": ("DGMw, r = 0.5", "dgmw", {"real_share": 0.5}),
    "dgmw-r25": ("DGMw, r = 0.25", "dgmw", {"real_share": 0.25}),
    "dgmw-r10": ("DGMw, r = 0.1", "dgmw", {"real_share": 0.1}),
    "dgmw-r0": ("DGMw, r = 0", "dgmw", None),
}


# ---- records


def recorded(methods, needed="dgmw"):
    """(records, {method: results}, a sentence on absent methods) of methods on MNIST that have records."""
    rows = [(m, f"{m}/{MNIST}", None) for m in methods]
    records, groups, absent = available_records(rows, needed, preset=SIZE)
    return records, groups, left_out([label_of(m) for m in absent])


def imagenet(names):
    """`available` for rows of TABLE_2 on ImageNet-50."""
    rows = [(n, f"{TABLE_2[n][1]}/{IMAGENET}", TABLE_2[n][2]) for n in names]
    return available(rows, SIZES)


def with_images(groups):
    """The groups with the trace table "generated"."""
    return {m: seeds for m, seeds in groups.items() if "generated" in seeds[0].trace}


# ---- scores and words


def label_of(method):
    return plots.style(method)["label"]


def scale():
    """The size of the records of MNIST and the paper's, in words."""
    dgm, words = papers.paper_of("dgmw"), []
    for size in (SIZE, "paper"):
        row, settings = papers.benchmark(MNIST, size), dgm.settings_of("dgmw", MNIST, size)
        most, side, epochs = row.stream.get("max_per_class"), row.options["side"], settings.get("epochs", 101)
        images = f"{most} training images of each digit" if most else "all training images"
        words.append(f"{images}, {side}x{side} pixels, {epochs} epochs a task")
    return f"Size {SIZE}: {words[0]}, smaller networks; the paper's is {words[1]}."


def score_after(score, classes):
    """The function of a Result for a score in SCORED after so many classes."""
    if score == "test":
        return partial(Result.average_after, classes=classes)
    return partial(plots.recognised_after, classes=classes)


def printed_number(method, metric, benchmark, table="Table 1"):
    """The Published of a method in a table, or None."""
    wanted = {"paper": "dgm", "table": table, "benchmark": benchmark, "metric": metric}
    return next((p for p in published(**wanted) if p.method == method), None)


def after_classes(classes, what="average accuracy"):
    return f"{what} after {classes} classes"


def legend_above(figure, ax):
    """The legend of some axes, above the whole figure."""
    handles, labels = ax.get_legend_handles_labels()
    look = {"loc": "outside upper center", "frameon": False, "fontsize": 9}
    figure.legend(handles, labels, ncols=len(labels), **look)
