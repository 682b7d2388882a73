"""Figures across papers: what methods keep between tasks, and how it grows.

The methods of a figure are those of clkit.papers that have a record on its benchmark, so that a new method
appears when its record does.
"""

import math

from matplotlib.ticker import MaxNLocator

from clkit import experiments, papers, plots
from clkit.analysis import masks
from clkit.experiments import places
from clkit.figures.picture import FigureSpec, each_label, load_records, panels
from clkit.plots import beside_weights, kinds_kept, said_bytes
from clkit.result import Result

ONE_BY_ONE = ("split-mnist-10", "laptop")  # one class a task: the benchmark of generators that grow
MEMORY = "memory"  # the setting that says how many exemplars a method keeps


# ---- records and labels


def rows_on_record(benchmark, preset="paper"):
    """[(experiment name, overrides)] of every method with a record here, and of other sizes of its memory."""
    found = []
    for name in experiments.names(benchmark=benchmark):
        if experiments.on_record(name, preset):
            found += [(name, None), *((name, {MEMORY: n}) for n in _sizes_on_record(name, preset))]
    if not found:
        raise experiments.PresetError(
            f"no method has a record of {benchmark} at the {preset} preset: make one with "
            f"`python -m clkit run METHOD/{benchmark} --preset {preset} --out figures/results`"
        )
    return found


def _sizes_on_record(name, preset):
    """Sizes of the memory, other than the experiment's own, that have a record."""
    start = f"{experiments.exact_experiment(name, preset).stem}_{MEMORY}-"
    ends = [path.stem.removeprefix(start) for path in places.RECORDS.glob(f"{start}*.json")]
    return sorted(int(end) for end in ends if end.isdigit())


def kept_groups(benchmark, preset="paper"):
    """(records {stem: results}, {label: results}, {label: results with a single stage}).

    A method with a single stage has all data at once, so it is a reference and keeps nothing between tasks.
    Labels name the number of images where a method has records with several.
    """
    rows = rows_on_record(benchmark, preset)
    records = load_records(rows, preset, trace=False)
    names = [name for name, _ in rows]
    groups = {_label(names.count(n) > 1, s): s for n, s in zip(names, records.values(), strict=True)}
    single = {label: seeds for label, seeds in groups.items() if len(seeds[0].seen) == 1}
    return records, {label: s for label, s in groups.items() if label not in single}, single


def _label(several, seeds):
    about = seeds[0].about
    label = plots.style(about["method"])["label"]
    return f"{label}, {about['config'][MEMORY]:,} images" if several else label


def image_bytes(benchmark, preset="paper"):
    """Bytes of one raw image of a benchmark, one for each pixel and channel."""
    from clkit import data

    row = papers.benchmark(benchmark, preset)
    shape = next(entry.shape for entry in data.catalogue() if entry.name == row.data)
    side = row.options.get("side")
    return shape[0] * side**2 if side else math.prod(shape)


def by_accuracy(groups):
    """The groups from the highest mean accuracy to the lowest."""
    return dict(sorted(groups.items(), key=lambda item: -sum(r.average() for r in item[1]) / len(item[1])))


def _where(benchmark, preset):
    return f"{benchmark}, size {preset}"


# ---- bytes by kind, and accuracy


def kept(benchmark, preset="paper"):
    """Bytes kept by kind beside the accuracy of every method, the most accurate on top."""
    records, groups, single = kept_groups(benchmark, preset)
    groups, each_image = by_accuracy(groups), image_bytes(benchmark, preset)
    figure, (left, right) = panels(10.4, 2.2 + 0.27 * len(groups), 2, width_ratios=(2.1, 1))
    plots.plot_kept(groups, each_image, legend=False, ax=left)
    plots.plot_ablation(groups, ax=right)
    right.set_yticks([])
    right.set_xlim(0, 100)
    for seeds in single.values():
        right.axvline(100 * sum(r.average() for r in seeds) / len(seeds), color="black", linestyle="--")
    figure.legend(*left.get_legend_handles_labels(), loc="outside upper center", ncols=8, frameon=False)
    plots.stamp(figure, groups | single)
    said = "; ".join(f"{label} {_said(seeds)}" for label, seeds in groups.items())
    line = f" Dashed: {each_label(single, Result.average)}, with all data at once." if single else ""
    return FigureSpec(
        figure,
        f"What every method with a record keeps between the tasks of {_where(benchmark, preset)}, sorted by "
        f"accuracy. The upper axis counts the raw images that need as many bytes, {each_image} each.{line}",
        "Two panels with a row for each method, the most accurate on top: bytes kept by kind on a log "
        f"scale, and average accuracy ({plots.kind(groups)}). {said}.",
        records,
        title=f"Bytes kept and accuracy on {benchmark}",
    )


def _said(seeds):
    """ "84.6 %, exemplars 396 kB": accuracy, and what is kept beside the weights."""
    kinds = {kind: size for kind, size in kinds_kept(seeds[0]).items() if kind != "weights"}
    parts = [f"{kind} {said_bytes(size)}" for kind, size in kinds.items()] or ["nothing kept"]
    accuracy = 100 * sum(r.average() for r in seeds) / len(seeds)
    return f"{accuracy:.1f} %, {' and '.join(parts)}"


def kept_split_mnist():
    """Bytes kept and accuracy on split MNIST."""
    return kept("split-mnist")


def kept_online():
    """The same for online learning on few images."""
    return kept("mnist-5k-5")


def kept_one_by_one():
    """The same for ten tasks of one class each."""
    return kept(*ONE_BY_ONE)


# ---- growth


def kept_over_tasks():
    """Bytes kept beside the weights after each task of split MNIST."""
    benchmark = "split-mnist"
    records, groups, single = kept_groups(benchmark)
    none = [label for label, seeds in groups.items() if not beside_weights(seeds[0])]
    grown = {
        label: (beside_weights(seeds[0], 0), beside_weights(seeds[0]))
        for label, seeds in groups.items()
        if label not in none
    }
    more = "; ".join(f"{m} {said_bytes(a)} to {said_bytes(b)}" for m, (a, b) in grown.items() if b > a)
    same = "; ".join(f"{m} {said_bytes(b)}" for m, (a, b) in grown.items() if a == b)
    return FigureSpec(
        plots.plot_kept_over_tasks(groups, image_bytes(benchmark)).figure,
        "Bytes kept beside the weights after each task of split MNIST. Keeping nothing, and not drawn: "
        f"{', '.join(none)}.",
        f"Lines over five tasks on a logarithmic scale. Growing: {more}. Constant: {same}.",
        {stem: seeds for stem, seeds in records.items() if seeds not in single.values()},
        title="Bytes kept after each task of split MNIST",
    )


def growth_one_by_one():
    """Trainable parameters of all methods after each of ten tasks, and the units of those that widen."""
    records, groups, single = kept_groups(*ONE_BY_ONE)
    widened = _with_table("growth", *ONE_BY_ONE)
    figure, (left, right) = panels(12.4, 4.0, 2)
    plots.plot_parameters(groups, ax=left)
    plots.plot_neurons(widened, relative=True, ax=right)
    plots.stamp(figure, groups)
    factors = {label: s[0].parameters[-1] / s[0].parameters[0] for label, s in groups.items()}
    units = {
        plots.style(m)["label"]: (s[0].trace["growth"]["units"][-1] / s[0].trace["growth"]["start"][0])
        for m, s in widened.items()
    }
    return FigureSpec(
        figure,
        f"{_where(*ONE_BY_ONE).capitalize()}. Left: trainable parameters after each task, as multiples of "
        "those after the first. Right: units of the layers that are widened, beside the worst case, in which "
        "every task needs as many as there were at the start.",
        "Two panels of lines over ten tasks. Left, parameters at the end as multiples: "
        f"{'; '.join(f'{label} {f:.2f}' for label, f in factors.items())}. Right, units in the last task as "
        f"multiples of the start: {'; '.join(f'{label} {f:.2f}' for label, f in units.items())}; the dotted "
        f"worst case reaches {next(iter(widened.values()))[0].tasks}.",
        {stem: seeds for stem, seeds in records.items() if seeds not in single.values()},
        title="How parameters and units grow",
    )


def _with_table(table, benchmark, preset):
    """{method: results} of the methods on record that report a trace table."""
    found = {}
    for name, overrides in rows_on_record(benchmark, preset):
        if not overrides and table in experiments.exact_experiment(name, preset).known_tables:
            found[name.partition("/")[0]] = next(iter(load_records([(name, None)], preset).values()))
    return {method: seeds for method, seeds in found.items() if table in seeds[0].trace}


# ---- masks


def mask_trajectories():
    """How much of a task's mask is as it will be: connections that move, beside values that are learned."""
    record, moved = _with_connections("split-mnist")
    learned = _with_table("masks", *ONE_BY_ONE)
    figure, axes = panels(3.4 * (1 + len(learned)) + 1.2, 3.7, 1 + len(learned), sharey=True)
    shares = {
        plots.style(moved.about["method"])["label"]: [masks.settled(moved, t, 0) for t in range(moved.tasks)]
    }
    for method, seeds in learned.items():
        tasks = range(seeds[0].tasks)
        shares[plots.style(method)["label"]] = [masks.decided(seeds[0], t, 0) for t in tasks]
    said = []
    for n, (ax, (label, rows)) in enumerate(zip(axes, shares.items(), strict=True)):
        lines = {f"task {t}": row for t, row in enumerate(rows, 1)}
        plots.plot_shares(lines, y=None if n else "of the mask as at the end (%)", title=label, ax=ax)
        ax.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        if n not in (0, len(axes) - 1):
            ax.get_legend().remove()
        half = [round(100 * row[len(row) // 2]) for row in rows]
        said.append(f"{label}, half-way through: {', '.join(map(str, half))} %")
    axes[0].legend(loc="lower right", frameon=False, fontsize=8)
    plots.stamp(figure, [moved, *(seeds[0] for seeds in learned.values())])
    stems = {
        experiments.exact_experiment(f"{m}/{ONE_BY_ONE[0]}", ONE_BY_ONE[1]).stem: s
        for m, s in learned.items()
    }
    return FigureSpec(
        figure,
        "First masked layer, one seed: how much of each task's mask is already as it will be at the end. "
        "Left: connections in their last place; the others: mask values on the side of one half where they "
        "end, as each epoch begins.",
        f"Panels of rising lines, one for each task. {'. '.join(said)}.",
        record | stems,
        title="Masks that move and masks that decide",
    )


def moved_connections():
    """How fast a task's connections reach their last places, and how many the busiest neurons have."""
    records, result = _with_connections("split-mnist")
    tasks = range(result.tasks)
    moved = {f"task {t + 1}": masks.settled(result, t, 0) for t in tasks}
    busy = {
        f"task {t + 1}": [
            masks.busiest_share(masks.block(result, t, 0, e)[0]) for e in masks.epochs(result, t)
        ]
        for t in tasks
    }
    figure, (left, right) = panels(9.6, 3.5, 2)
    plots.plot_shares(moved, y="connections in their last place (%)", ax=left).get_legend().remove()
    plots.plot_shares(busy, y="connections into 20 neurons (%)", ax=right)
    plots.stamp(figure, result)
    ends = {name: f"{100 * row[0]:.0f} to {100 * row[-1]:.0f}" for name, row in busy.items()}
    name = plots.style(result.about["method"])["label"]
    return FigureSpec(
        figure,
        f"The input layer of {name} on split MNIST, one seed. Left: the share of a task's connections that "
        "are already where they will end. Right: the share that enters the 20 neurons with the most of them. "
        "Epoch 0 is the random allocation.",
        "Two panels of rising lines, one for each task. Left, connections in their last place at allocation: "
        f"{', '.join(f'{100 * row[0]:.0f}' for row in moved.values())} %; the lines reach 100 % at the last "
        f"rewiring. Right, from allocation to the end, in percent: "
        f"{'; '.join(f'{name} {row}' for name, row in ends.items())}.",
        records,
        title=f"How the connections of {name} settle",
    )


def _with_connections(benchmark, preset="paper"):
    """(record, result of its first seed) of the first method whose connections move and are recorded."""
    for name, _ in rows_on_record(benchmark, preset):
        kept_by = experiments.exact_experiment(name, preset).known_tables.get("masks")
        if kept_by and name in (kept_by.kept_by or ()):
            records = load_records([(name, None)], preset)
            return records, next(iter(records.values()))[0]
    raise experiments.PresetError(f"no record of {benchmark} at the {preset} preset holds connections")


FIGURES = {
    "kept-split-mnist": kept_split_mnist,
    "kept-mnist-5k-5": kept_online,
    "kept-split-mnist-10": kept_one_by_one,
    "kept-over-tasks": kept_over_tasks,
    "growth-split-mnist-10": growth_one_by_one,
    "moved-connections": moved_connections,
    "mask-trajectories": mask_trajectories,
}
