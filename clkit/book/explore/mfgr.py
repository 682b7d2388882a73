"""A generator in its training, step by step, and which classes a task has cost."""

import matplotlib.pyplot as plt
import numpy as np

from clkit import plots
from clkit.book.explore import common
from clkit.book.explore.common import ExploreError, name_of, said_interval, seeds_of
from clkit.book.show import View
from clkit.papers.palette import BLACK, BLUE, GREEN, ORANGE, VERMILLION

TERMS = {"oh": ("l_oh", BLUE), "cd": ("l_cd", GREEN), "bn": ("l_bn", VERMILLION), "div": ("l_div", ORANGE)}
AMONG = {"accuracy": "among all outputs", "within": "old among old, new among new"}

# ---- a generator in its training


def generator_view(results, step=0, task=1, seed=None):
    """Images that a generator draws at a recorded step, and its losses until then.

    step: the nearest recorded one is shown.   task: later task, from 0.   seed: the first with images.
    """
    result = _with_images(common.chosen(results, seed))
    steps, images, labels = plots.course(result, task)
    at = int(np.abs(np.asarray(steps, dtype=int) - step).argmin())
    figure, (left, right) = plt.subplots(
        1, 2, figsize=(7.8, 4.2), layout="constrained", width_ratios=(1, 1.1)
    )
    names = [result.names[int(k)][:11] for k in labels[at]]
    plots.plot_images(images[at], names, columns=4, ax=left)
    left.set_title(f"{name_of([result])}, step {int(steps[at])} of {int(steps[-1])}", fontsize=11)
    now = _losses(right, result, task, int(steps[at]))
    plots.stamp(figure, result)
    return View(left, _about_generator(result, labels[at], int(steps[at]), now))


def _with_images(seeds):
    """The first of the seeds whose images are recorded."""
    found = next((r for r in seeds if "images" in r.trace), None)
    if found is None:
        raise ExploreError(
            "no images of a generator are recorded: run it with record=('images', 'recording')"
        )
    return found


def _losses(ax, result, task, step):
    """Draw the losses of a generator with a line at a step; {name: value there}."""
    now = {}
    for term, (name, color) in TERMS.items():
        steps, values = plots.recording(result, term, task)
        ax.plot(steps, values, color=color, linewidth=1.4, label=name)
        now[name] = values[np.abs(steps - step).argmin()]
        ax.plot(step, now[name], "o", color=color, markersize=5)
    ax.axvline(step, color=BLACK, linewidth=0.8, linestyle=":")
    ax.set(xlabel="step of the generator", ylabel="loss, without its weight")
    ax.spines[["top", "right"]].set_visible(False)
    ax.legend(frameon=False, fontsize=9)
    return now


def _about_generator(result, labels, step, now):
    """What `generator_view` shows, in words."""
    names = [result.names[int(k)] for k in np.unique(labels)]
    losses = ", ".join(f"{name} {value:.2f}" for name, value in now.items())
    return (
        f"Sixteen images of {name_of([result])}'s generator at step {step}, seed "
        f"{result.about.get('seed', '?')}, titled with the class that the old network names: "
        f"{', '.join(names)}. Beside them the course of four losses; at this step {losses}."
    )


def generator_explorer(results, task=1):
    """A slider over the recorded steps and a choice of method, around `generator_view`."""
    groups = plots.grouped(results)
    steps = common.shared([plots.course(_with_images(s), task)[0].tolist() for s in groups.values()])
    return common.explorer(
        lambda step, method: generator_view(groups[method], step, task),
        step=common.stops("step", [(str(s), s) for s in steps], at=0),
        method=common.choice_of(groups),
    )


# ---- which classes a task has cost


def classes_view(results, among="accuracy", stage=-1):
    """Accuracy of each class before and after a task, of several methods.

    among: "accuracy" for answers among all outputs, "within" for those among old outputs (of old classes) and
    among new ones.   stage: after which task.
    """
    if among not in AMONG:
        raise ExploreError(f"among must be {' or '.join(AMONG)}, not {among!r}")
    groups = plots.grouped(results)
    first = next(iter(groups.values()))[0]
    stage %= len(first.seen)
    if not stage:
        raise ExploreError("a task has cost nothing before the second one: choose a later stage")
    seen = int(first.seen[stage])
    before = {"before": [plots.fine(r, "accuracy", stage - 1)[:seen] for r in next(iter(groups.values()))]}
    after = {
        plots.style(m)["label"]: [plots.fine(r, among, stage)[:seen] for r in s] for m, s in groups.items()
    }
    looks = {"before": {"color": "#888888", "marker": "_"}}
    looks |= {plots.style(m)["label"]: plots.style(m) for m in groups}
    parts = {"old": int(first.seen[stage - 1])}
    parts["new"] = seen - parts["old"]
    _, ax = plt.subplots(figsize=(7.8, 3.8), layout="constrained")
    plots.plot_by_class(before | after, first.names[:seen], looks, groups=parts, ax=ax)
    ax.set_xlabel(f"after task {stage + 1}, {AMONG[among]}")
    plots.stamp(ax, groups)
    return View(ax, _about_classes(groups, among, stage, parts["old"]))


def _about_classes(groups, among, stage, old):
    """What `classes_view` shows, in words."""
    said = []
    for seeds in groups.values():
        change = [
            plots.fine(r, among, stage)[:old] - plots.fine(r, "accuracy", stage - 1)[:old] for r in seeds
        ]
        mean = np.mean(change, axis=0)
        worst, best = (seeds[0].names[i] for i in (mean.argmin(), mean.argmax()))
        whole = said_interval([c.mean() for c in change], "points")
        said.append(
            f"{name_of(seeds)} ({seeds_of(seeds)}): old classes change by {whole}, {worst} by "
            f"{100 * mean.min():.1f}, {best} by {100 * mean.max():.1f}"
        )
    return f"Accuracy of each class after task {stage + 1}, {AMONG[among]}. {'; '.join(said)}."


def classes_explorer(results):
    """Sliders over the outputs that compete, and over later tasks, around `classes_view`."""
    groups = plots.grouped(results)
    tasks = min(len(r.seen) for s in groups.values() for r in s)
    return common.explorer(
        lambda among, stage: classes_view(groups, among, stage - 1),
        among=common.stops("among", [("all outputs", "accuracy"), ("old or new", "within")], at=0),
        stage=common.stops("after task", [(str(n), n) for n in range(2, tasks + 1)]),
    )
