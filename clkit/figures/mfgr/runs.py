"""The records behind MFGR's figures, at the size with most of them, and the scores that they show."""

import textwrap

import matplotlib.pyplot as plt
import numpy as np

from clkit import experiments, plots
from clkit.figures.picture import FigureSpec, available, left_out
from clkit.papers.mfgr import BENCHMARKS, GROUPS
from clkit.papers.published import published

WARDROBE, MORE_EASY = "wardrobe", "wardrobe-8-2"
CIFAR, TINY, BIRDS, BIRDS_ALONE = "cifar100-5", "tinyimagenet-5", "cub-caltech", "cub-10-10"
SIZES = ("paper", "laptop", "teach")

# Of every method, its name in print; None: the paper has no such row.
PRINTED = {
    "oracle": "oracle",
    "finetune-sgd": "finetune",
    "mas-sgd": "mas",
    "muc-mas": "muc-mas",
    "lwm": "lwm",
    "lwf-sgd": "lwf",
    "muc-lwf": "muc-lwf",
    "mfgr": "mfgr",
}
LOSSES = {  # table 2
    "finetune-sgd": "finetune",
    "lwf-sgd": "lwf",
    "mfgr-base": "mfgr-base",
    "mfgr-no-nkd": "mfgr-no-nkd",
    "mfgr-bn": "mfgr-bn",
    "mfgr": "mfgr",
}
TABLES = {  # tables 5 to 8: {number: (title, benchmark)}
    5: ("CIFAR-100 in five tasks", CIFAR),
    6: ("Tiny ImageNet in five tasks", TINY),
    7: ("CIFAR-100 in ten tasks", "cifar100-10"),
    8: ("Tiny ImageNet in ten tasks", "tinyimagenet-10"),
}
SIX = {"cifar100-6": "CIFAR-100", "tinyimagenet-6": "Tiny ImageNet"}  # figure 8
RATIOS = {"1 : 1": None, "3 : 1": {"ratio": 3.0}, "5 : 1": {"ratio": 5.0}, "10 : 1": {"ratio": 10.0}}
WARDROBE_METHODS = (
    "oracle",
    "mfgr",
    "mfgr-code",
    "mfgr-bn",
    "mfgr-base",
    "mfgr-no-nkd",
    "deep-inversion",
    "lwf-sgd",
    "lwm",
    "muc-lwf",
    "muc-mas",
    "mas-sgd",
    "icarl-mfgr",
    "icarl-sgd",
    "finetune-sgd",
)
BOTH = ("lwf-sgd", "mfgr")


# ---- records


def label_of(method):
    return plots.style(method)["label"]


def recorded(benchmark, methods, sizes=SIZES):
    """(records, {method: results}, size) of methods at the size with most records of them."""
    return available([(m, f"{m}/{benchmark}", None) for m in methods], sizes)


def absent(groups, methods):
    """A sentence for a caption about methods without a record."""
    return left_out([label_of(m) for m in methods if m not in groups])


def command(benchmark, method, overrides=None, size="laptop"):
    """The command that makes a record."""
    return experiments.exact_experiment(f"{method}/{benchmark}", size, overrides).command


def _first(benchmark, methods, *overrides):
    """The command for MFGR's record, if it is among the methods; else for that of the first."""
    return command(benchmark, "mfgr" if "mfgr" in methods else methods[0], *overrides)


def needed(benchmark, methods, *overrides):
    """A sentence with the command that makes a record of one of these methods."""
    return f"There is no such record of {benchmark} (make one with {_first(benchmark, methods, *overrides)})"


def no_record(title, shows, benchmark, methods, about="", overrides=None):
    """A figure that says what it would show, and the command for the record that it lacks.

    about: of the paper's figure.   overrides: settings of that record that differ from the method's own.
    """
    said = f"{shows} {about} {needed(benchmark, methods, overrides)}".replace("  ", " ")
    figure, ax = plt.subplots(figsize=(7.6, 1.2), layout="constrained")
    ax.set_axis_off()
    # Wrapped, because a long path in the command would leave no room for the axes.
    command = textwrap.wrap(
        _first(benchmark, methods, overrides), 100, break_long_words=False, break_on_hyphens=False
    )
    ax.text(0, 0.5, "no record yet:\n" + " \\\n    ".join(command), va="center", family="monospace")
    plots.stamp(figure, "no record")
    return FigureSpec(figure, said, f"An empty frame with a command. {said}", title=title)


def scale(benchmark, size):
    """A sentence on the data of a benchmark at a size."""
    row = BENCHMARKS[benchmark][size]
    most, side = row.stream.get("max_per_class"), row.options.get("side")
    images = f"{most} training images of each class" if most else "all training images"
    pixels = f", {side}x{side} pixels" if side else ""
    return f"Ours: {row.data}, size {size}, {images}{pixels}."


# ---- scores


def groups_of(benchmark, size):
    """{group: classes} of the old classes of a first task."""
    return GROUPS.get(f"{benchmark}/{size}") or GROUPS[benchmark]


def bounds(result, benchmark):
    """{group: (first class, end)}: the groups of old classes, old ones, new ones and all of the second task.

    The last three alone, if the benchmark has no groups, or others in this size.
    """
    first, seen = result.classes_per_task[0], sum(result.classes_per_task[:2])
    groups = groups_of(benchmark, result.about["preset"]) if benchmark in GROUPS else {}
    groups, parts, at = groups if sum(groups.values()) == first else {}, {}, 0
    for name, n in groups.items():
        parts[name], at = (at, at + n), at + n
    return parts | {"old": (0, first), "new": (first, seen), "all": (0, seen)}


def by_group(result, benchmark, column="accuracy", stage=1):
    """{group: mean over its classes} of a column of the fine-grained report."""
    row = plots.fine(result, column, stage)
    return {name: float(np.mean(row[a:b])) for name, (a, b) in bounds(result, benchmark).items()}


def after_task(task):
    """The function of a Result for the accuracy on all images of the classes seen after a task (from 1)."""
    return lambda result: float(result.averages("images")[task - 1])


def last(result):
    """The accuracy over all images after the last task."""
    return result.average("images")


def printed(**wanted):
    """{(method, metric): Published} of the paper."""
    return {(p.method, p.metric): p for p in published(paper="mfgr", **wanted)}


def mean(seeds, group, column="accuracy", stage=1, benchmark=WARDROBE):
    """Mean over seeds of `by_group` for one group; NaN without such a group."""
    return float(np.mean([by_group(r, benchmark, column, stage).get(group, np.nan) for r in seeds]))


def claims(groups, benchmark=WARDROBE):
    """{claim: whether it holds} on results of two tasks, {method: results}; claims about others are left out.

    Of the paper, and of the old outputs alone; each compares means over seeds.
    """

    def at(method, *place):
        return mean(groups[method], *place, benchmark=benchmark)

    def lost(method, group):
        return at(method, group, "accuracy", 0) - at(method, group, "within")

    found = {
        "MFGR is above LwF on all classes": (BOTH, lambda: at("mfgr", "all") > at("lwf-sgd", "all")),
        "MFGR is above LwF on old classes": (BOTH, lambda: at("mfgr", "old") > at("lwf-sgd", "old")),
        "among old outputs, MFGR stays within 3 points of the old network": (
            ("mfgr",),
            lambda: lost("mfgr", "old") <= 0.03,
        ),
        "among old outputs, LwF loses more on similar classes than on easy ones": (
            ("lwf-sgd",),
            lambda: lost("lwf-sgd", next(iter(GROUPS[benchmark]))) > lost("lwf-sgd", "easy"),
        ),
        "all losses of the generator are better than the base generator": (
            ("mfgr", "mfgr-base"),
            lambda: at("mfgr", "all") > at("mfgr-base", "all"),
        ),
        "both distillations are better than that of generated images alone": (
            ("mfgr-bn", "mfgr-no-nkd"),
            lambda: at("mfgr-bn", "all") > at("mfgr-no-nkd", "all"),
        ),
        "MFGR is above DeepInversion on all classes": (
            ("mfgr", "deep-inversion"),
            lambda: at("mfgr", "all") > at("deep-inversion", "all"),
        ),
        "generated images do not harm iCaRL": (
            ("icarl-mfgr", "icarl-sgd"),
            lambda: at("icarl-mfgr", "all") >= at("icarl-sgd", "all"),
        ),
    }
    return {claim: holds() for claim, (methods, holds) in found.items() if groups.keys() >= set(methods)}


def looks(methods):
    """{label: look} of methods, for plot_by_class."""
    return {label_of(m): plots.style(m) for m in methods}
