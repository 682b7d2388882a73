"""Tables 1 to 8 of MFGR (Xin et al. 2021): the printed numbers, and ours where there is a record."""

import numpy as np

from clkit import plots
from clkit.figures.mfgr import runs
from clkit.figures.mfgr.runs import (
    BIRDS,
    BIRDS_ALONE,
    BOTH,
    LOSSES,
    PRINTED,
    WARDROBE,
    absent,
    by_group,
    label_of,
    needed,
    printed,
    recorded,
    scale,
)
from clkit.figures.picture import FigureSpec, mark_printed, panels, printed_handles, short
from clkit.papers.palette import GREY

OLD = {"old network": {"color": GREY, "marker": "_"}}  # before the task


# ---- table 1


def table_1():
    """Table 1: accuracy of similar and of distinct old classes after a task; ours on the wardrobe."""
    there = printed(table="Table 1")
    names = list(dict.fromkeys(metric.removeprefix("accuracy of the class ") for _, metric in there))
    said = {"old network": "old-model", label_of("lwf-sgd"): "lwf", label_of("mfgr"): "mfgr"}
    theirs = {
        label: [[there[method, f"accuracy of the class {n}"].value / 100 for n in names]]
        for label, method in said.items()
    }
    for benchmark in ("cifar100-6", WARDROBE):
        records, groups, size = recorded(benchmark, BOTH)
        if "mfgr" in groups:
            break
    figure, axes = panels(
        13.0, 4.2, 1 + bool(records), width_ratios=(1, 1.4)[: 1 + bool(records)], squeeze=False
    )
    looks = OLD | runs.looks(BOTH)
    parts = {"alike": 3, "distinct": 2}
    plots.plot_by_class(theirs, names, looks, groups=parts, legend=not records, ax=axes[0, 0])
    axes[0, 0].set_xlabel("CIFAR-100, printed")
    note, ours = f" {needed(WARDROBE, BOTH)}", ""
    if records:
        ours = f" Ours: {_by_class(groups, benchmark, size, axes[0, 1], looks)}."
        note = f" {scale(benchmark, size)} {plots.kind(groups).capitalize()}.{absent(groups, BOTH)}"
    plots.stamp(figure, groups or "printed numbers only")
    words = _in_words(theirs, names)
    return FigureSpec(
        figure,
        "Accuracy of old classes before and after a task, among all classes seen. The paper does not state "
        f"its setting; 60 classes of CIFAR-100, 50 of them old, fit its code.{note}",
        f"Dots for each class, in percent. Printed: {words}.{ours}",
        records,
        {} if records else {"printed": "Table 1"},
        title="Table 1 of the paper: which classes are forgotten",
    )


def _by_class(groups, benchmark, size, ax, looks):
    """Draw our panel of table 1; its numbers in words."""
    some = next(iter(groups.values()))
    if benchmark == WARDROBE:
        classes, parts = range(some[0].classes_per_task[0]), runs.groups_of(benchmark, size)
        where = "wardrobe, ours"
    else:
        known = np.unique(groups["mfgr"][0].trace["fine"]["labels"][0]).tolist()
        classes, parts, where = known, None, "CIFAR-100, ours"
    rows = {"old network": [plots.fine(r, "accuracy", 0)[classes] for r in some]}
    rows |= {label_of(m): [plots.fine(r, "accuracy", 1)[classes] for r in s] for m, s in groups.items()}
    names = [some[0].names[k] for k in classes]
    plots.plot_by_class(rows, names, looks, groups=parts, ax=ax)
    ax.set_xlabel(where)
    return _in_words(rows, names)


def _in_words(rows, names):
    """Rows of plot_by_class in words: means in percent."""
    means = {label: 100 * np.mean(np.atleast_2d(values), axis=0) for label, values in rows.items()}
    parts = [f"{label} {', '.join(f'{v:.1f}' for v in values)}" for label, values in means.items()]
    return f"({', '.join(map(str, names))}) {'; '.join(parts)}"


# ---- table 2


def table_2():
    """Table 2: which losses are needed; printed after the last of five tasks, and ours on the wardrobe."""
    records, groups, size = recorded(WARDROBE, LOSSES)
    columns = 2 if groups else 0
    figure, axes = panels(8.0 + 4.2 * columns / 2, 1.9 + 0.4 * len(LOSSES), 2 + columns, squeeze=False)
    said = []
    for ax, (key, column, what) in zip(
        axes[0, :columns],
        (("all", "accuracy", "ours, all classes"), ("old", "within", "ours, old among old outputs")),
    ):
        values = {label_of(m): [by_group(r, WARDROBE, column)[key] for r in s] for m, s in groups.items()}
        plots.plot_ablation(values, ax=ax)
        ax.set(xlim=(0, 100), xlabel=f"mean over classes (%)\n{plots.kind(groups)}")
        ax.set_title(what, fontsize=11)
        said.append(f"{what.capitalize()}: {short(values, float)}.")
    shown = list(groups) or list(LOSSES)
    for ax, benchmark in zip(axes[0, columns:], (runs.CIFAR, runs.TINY)):
        there = printed(table="Table 2", benchmark=benchmark)
        numbers = {label_of(m): there[LOSSES[m], "accuracy after task 5"] for m in shown}
        mark_printed(ax, list(numbers), numbers, beside=4)
        ax.spines[["top", "right"]].set_visible(False)
        ax.grid(axis="x", color="#DDDDDD", linewidth=0.8)
        ax.set_title(f"printed, {benchmark.removesuffix('-5')}", fontsize=11)
        ax.set_xlabel("after the last of five tasks (%)")
        said.append(f"Printed for {benchmark}: {'; '.join(f'{k} {p.text}' for k, p in numbers.items())}.")
    for ax in axes[0, 1:]:
        ax.set_yticklabels([])
    figure.legend(handles=printed_handles("printed"), ncols=3, loc="outside upper center", frameon=False)
    plots.stamp(figure, groups or "printed numbers only")
    note = f"{scale(WARDROBE, size)}{absent(groups, LOSSES)}" if groups else needed(WARDROBE, BOTH)
    return FigureSpec(
        figure,
        "The losses of both stages, one row for each choice. The paper's rows stand for five tasks of "
        f"CIFAR-100 and Tiny ImageNet. {note}",
        f"Panels with a dot for each row, in percent. {' '.join(said)}",
        records,
        {} if records else {"printed": "Table 2"},
        title="Table 2 of the paper: which losses are needed",
    )


# ---- tables 3 and 4


def _of_groups(number, benchmark, methods, title, about):
    """Tables 3 and 4: accuracy of groups of classes after the second task."""
    there = printed(table=f"Table {number}")
    metrics = list(dict.fromkeys(metric for _, metric in there))
    names = [m.removeprefix("average class accuracy of ") for m in metrics]
    theirs = {
        label_of(m): [[there[PRINTED.get(m, m), metric].value / 100 for metric in metrics]] for m in methods
    }
    records, groups, size = recorded(benchmark, methods)
    figure, axes = panels(12.8 if records else 7.6, 4.0, 1 + bool(records), squeeze=False, sharey=True)
    looks = runs.looks(methods)
    plots.plot_by_class(theirs, names, looks, legend=not records, title="printed", ax=axes[0, 0])
    own, note = "", needed(benchmark, methods)
    if records:
        keys = list(by_group(next(iter(groups.values()))[0], benchmark))
        rows = {label_of(m): [list(by_group(r, benchmark).values()) for r in s] for m, s in groups.items()}
        plots.plot_by_class(rows, keys, looks, legend=False, title=f"ours, size {size}", ax=axes[0, 1])
        every = axes[0, 0].get_legend_handles_labels()  # printed methods that have no record, too
        figure.legend(*every, loc="outside right upper", frameon=False, fontsize=9)
        axes[0, 1].set_ylabel("")
        own = f" Ours: {_in_words(rows, keys)}."
        note = f"{scale(benchmark, size)} A small network from scratch, {plots.kind(groups)}."
        note += absent(groups, methods)
    plots.stamp(figure, groups or "printed numbers only")
    return FigureSpec(
        figure,
        f"{about} Means over the classes of a group, after the second task. {note}",
        f"Dots for each group, in percent. Printed: {_in_words(theirs, names)}.{own}",
        records,
        {} if records else {"printed": f"Table {number}"},
        title=title,
    )


def table_3():
    """Table 3: birds and objects, old and new."""
    about = "40 birds (alike) and 10 objects are old, 10 other objects are new."
    title = "Table 3 of the paper: birds among objects"
    return _of_groups(3, BIRDS, ("oracle", *BOTH), title, about)


def table_4():
    """Table 4: ten old and ten new birds, with DeepInversion."""
    methods = ("oracle", "lwf-sgd", "deep-inversion", "mfgr")
    return _of_groups(
        4, BIRDS_ALONE, methods, "Table 4 of the paper: birds alone", "Ten old and ten new birds."
    )


# ---- tables 5 to 8


def _curves(number):
    """The function that draws table 5, 6, 7 or 8: printed accuracy after each task, and ours."""
    title, benchmark = runs.TABLES[number]

    def table():
        there = printed(table=f"Table {number}")
        start = printed(table="text", benchmark=benchmark)["mfgr", "accuracy after task 1"].value
        methods = [m for m, name in PRINTED.items() if (name, "accuracy after task 2") in there]
        tasks = 1 + sum(name == "mfgr" and metric.startswith("accuracy") for name, metric in there)
        records, groups, size = recorded(benchmark, methods)
        figure, axes = panels(6.2 + 5.2 * bool(records), 4.2, 1 + bool(records), squeeze=False, sharey=True)
        ax, ends = axes[0, 0], []
        for method in methods:
            name = PRINTED[method]
            row = [start, *(there[name, f"accuracy after task {t}"].value for t in range(2, tasks + 1))]
            ax.plot(range(1, tasks + 1), row, markersize=6, **plots.style(method))
            ends.append(f"{label_of(method)} {row[-1]:.2f}")
        ax.set(xlabel="tasks learned", ylabel="accuracy (%)", ylim=(0, 100), xticks=range(1, tasks + 1))
        ax.set_title("printed", fontsize=11)
        ax.spines[["top", "right"]].set_visible(False)
        ax.grid(axis="y", color="#DDDDDD", linewidth=0.8)
        own, note = "", needed(benchmark, BOTH)
        if records:
            plots.plot_averages(groups, over="images", legend=False, ax=axes[0, 1])
            axes[0, 1].set_title(f"ours, size {size}", fontsize=11)
            shown = {label_of(m): s for m, s in groups.items()}
            own = f" Ours, {plots.kind(groups)}: {short(shown, runs.last)}."
            note = f"{scale(benchmark, size)}{absent(groups, methods)}"
        handles, labels = ax.get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside right upper", frameon=False, fontsize=9)
        plots.stamp(figure, groups or "printed numbers only")
        return FigureSpec(
            figure,
            f"{title}: accuracy over all classes seen, after each task. All methods begin with the same "
            f"network. {note}",
            f"Curves over tasks, in percent. Printed, after the last task: {'; '.join(ends)}.{own}",
            records,
            {} if records else {"printed": f"Table {number}"},
            title=f"Table {number} of the paper: {title}",
        )

    table.__doc__ = f"Table {number}: {title}."
    return table


FIGURES = {
    "mfgr-table1-classes": table_1,
    "mfgr-table2-losses": table_2,
    "mfgr-table3-birds": table_3,
    "mfgr-table4-birds-alone": table_4,
    **{f"mfgr-table{number}-{benchmark}": _curves(number) for number, (_, benchmark) in runs.TABLES.items()},
}
