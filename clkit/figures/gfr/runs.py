"""The records behind GFR's figures: at the size with most of them, or of shapes in their place."""

from clkit import experiments, papers, plots
from clkit.figures.picture import available, left_out
from clkit.papers.published import published

SIZES = ("paper", "laptop", "teach")
REAL = SIZES[:2]  # of real images: at the size teach all benchmarks show shapes
SHAPES, FOUR = "split-shapes", "cifar100-4"
IMAGENET, CIFAR, LARGE = (
    tuple(f"{name}-{tasks}" for tasks in (5, 10, 25))
    for name in ("imagenet100-50", "cifar100-50", "imagenet1000-500")
)
CURVES = (  # name of the figure, title, benchmarks
    ("gfr-fig4-imagenet100", "Figure 4 of the paper: ImageNet-Subset", IMAGENET),
    ("gfr-fig5-cifar100", "Figure 5 of the paper: CIFAR-100", CIFAR),
    ("gfr-fig6-imagenet1000", "Figure 6 of the paper: ImageNet-1000", LARGE),
)
PRINTED = (
    "lwf-max",
    "ewc-max",
    "mas-max",
    "icarl-cnn",
    "icarl-nme",
    "lucir",
    "gfr-gaussian",
    "gfr",
    "gfr-joint",
)
PARTS = ("gfr-finetune", "gfr-replay", "gfr-distill", "gfr-gaussian", "gfr", "gfr-joint")
FROZEN = ("ncm", "fetril", "fecam")  # beside GFR: the network of the first task, no exemplars
UNPRINTED = ("gfr-finetune", "gfr-replay", "gfr-distill", *FROZEN)  # not in figures 4 to 6 of the paper

# Table 2: {name in print: (label, experiment, overrides)}; table 3 in the same form.
_GFR = f"gfr/{FOUR}"
TABLE_2 = {
    "mergan": ("images", f"mergan/{FOUR}", None),
    "gfr-block-1": ("after stage 1", _GFR, {"stage": 1}),
    "gfr-block-2": ("after stage 2", _GFR, {"stage": 2}),
    "gfr-block-3": ("after stage 3", _GFR, {"stage": 3}),
    "gfr": ("after stage 4 (GFR)", _GFR, None),
}
TABLE_3 = {
    "gfr-ewc": ("EWC", f"gfr-ewc/{FOUR}", None),
    "gfr-mas": ("MAS", f"gfr-mas/{FOUR}", None),
    "gfr": ("feature distillation (GFR)", _GFR, None),
}
COMPARED = ("gfr-finetune", "lwf-max", "gfr-distill", "gfr")  # the similarity of layers, figure 2


def label_of(method):
    return plots.style(method)["label"]


def recorded(rows, sizes=SIZES):
    """`available` in the sizes that GFR's figures look for."""
    return available(rows, sizes)


def of_methods(benchmark, methods, sizes=SIZES):
    """`recorded` for methods on a benchmark: {method: results}."""
    return recorded([(m, f"{m}/{benchmark}", None) for m in methods], sizes)


def needed(rows, sizes=SIZES):
    """`recorded`, and the labels without a record; PresetError with the command that makes one if all are."""
    records, groups, size = recorded(rows, sizes)
    if not groups:
        command = experiments.exact_experiment(rows[-1][1], sizes[-1], rows[-1][2]).command
        raise experiments.PresetError(f"there is no record of {rows[-1][1]}: make it with `{command}`")
    return records, groups, size, left_out([str(label) for label, *_ in rows if label not in groups])


def half_first(benchmarks, methods, beside=()):
    """{benchmark: {method: results}}, records, and a sentence on what is shown, of benchmarks with records.

    beside: methods of which only those with a record of photographs are shown, and the others not named.

    Without any at a size of real images, those of shapes at the size teach.
    """
    records, shown, said = {}, {}, []
    for benchmark in benchmarks:
        more, groups, size = of_methods(benchmark, (*beside, *methods), REAL)
        if groups:
            records, shown = records | more, shown | {benchmark: groups}
            said.append(f"{benchmark} at size {size}")
    if shown:
        return shown, records, f"Shown: {'; '.join(said)}.{without(shown, methods)}"
    rows = [(m, f"{m}/{SHAPES}", None) for m in methods]
    records, groups, *_ = needed(rows, ("teach",))
    absent = without({SHAPES: groups}, methods)
    if SHAPES in benchmarks:
        return {SHAPES: groups}, records, f"Shown: {SHAPES}, {scale()}{absent}"
    command = experiments.exact_experiment(f"gfr/{benchmarks[0]}", "laptop").command
    return (
        {SHAPES: groups},
        records,
        (
            f"There is no record of {benchmarks[0]} or its relatives; the first is made with: {command}. "
            f"Shown in their place: {SHAPES}, {scale()}{absent}"
        ),
    )


def without(shown, methods):
    """A sentence on methods that have no record on any of the benchmarks."""
    return left_out([label_of(m) for m in methods if not any(m in groups for groups in shown.values())])


def scale(benchmark=SHAPES, size="teach"):
    """The data and the training of GFR on a benchmark at a size, in words."""
    row, settings = (
        papers.benchmark(benchmark, size),
        papers.paper_of("gfr").settings_of("gfr", benchmark, size),
    )
    side, (first, *later) = row.options.get("side", 32), row.classes_per_task
    most = row.stream.get("max_per_class")
    tasks = f"{first} classes, then {len(later)} tasks of {later[0]}"
    tasks = f"{len(later) + 1} tasks of {first} classes" if first == later[0] else tasks
    return (
        f"size {size}, {row.data} of {side}x{side} pixels"
        f"{f', {most} training images a class' if most else ''}, {tasks}; "
        f"{settings.get('net', 'resnet18-wide')}; GFR trains for {settings.get('epochs', 201)} epochs a task."
    )


def printed(table, method, classes):
    """The Published of a method in table 2 or 3 after so many classes."""
    metric = f"average accuracy after {classes} classes"
    wanted = {"paper": "gfr", "table": table, "benchmark": FOUR, "metric": metric}
    return next(p for p in published(**wanted) if p.method == method)
