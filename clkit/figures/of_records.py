"""Figures of the records in any folder: the user's own data, or a benchmark of the book."""

from functools import partial

from clkit import plots
from clkit.experiments.load import records_in
from clkit.figures.picture import FigureSpec, each


def figures_of(folder):
    """{name: figure function} for each benchmark and size that has records in the folder."""
    found = {}
    for (benchmark, size), groups in records_in(folder).items():
        name = benchmark.partition(":")[2].replace("/", "-").strip("-.~") or benchmark
        name = name[-50:].lstrip("-.")  # of a long path, as names of files have at most 255 bytes
        for kind, draw in (("averages", averages), ("forgetting", forgetting), ("memory", memory)):
            found[f"{kind}-{name}-{size}"] = partial(draw, f"{name}, size {size}", groups)
    return found


def averages(where, groups):
    """Average accuracy after each task: one line per method."""
    return FigureSpec(
        plots.plot_averages(groups).figure,
        f"Average accuracy over the classes seen so far on {where}, class-incremental.",
        f"Curves of average accuracy after each task. Final values: {each(groups, lambda r: r.average())}.",
        _by_stem(groups),
    )


def forgetting(where, groups):
    """Forgetting: one bar per method."""
    return FigureSpec(
        plots.plot_forgetting(groups).figure,
        f"Forgetting on {where}: how far each task's accuracy fell from its best to the end, "
        "mean over all tasks but the last. Each dot is one seed.",
        f"Bars of forgetting after the last task: {each(groups, lambda r: r.forgetting())}.",
        _by_stem(groups),
    )


def memory(where, groups):
    """Memory that each method keeps between tasks."""
    kept = "; ".join(
        f"{plots.style(m)['label']} {sum(v[-1] for v in seeds[0].memory_bytes.values()) / 1e6:.2f} MB"
        for m, seeds in groups.items()
    )
    return FigureSpec(
        plots.plot_memory(groups).figure,
        f"Memory kept after the last task of {where}, by kind.",
        f"Stacked bars of the memory that each method keeps: {kept}.",
        _by_stem(groups),
    )


def _by_stem(groups):
    """{stem: results} of the records behind a figure, as its JSON lists them."""
    return {label.replace(" ", "_"): results for label, results in groups.items()}
