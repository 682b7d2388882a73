"""Shared by all plots: axes, error messages, kinds of intervals, and the stamp."""

import subprocess
import sys

import matplotlib
import matplotlib.pyplot as plt
import pytest

from clkit import plots
from tests.builders import made, seeds, several, stamp_of

EVERY = [
    plots.plot_accuracy_matrix,
    plots.plot_tasks,
    plots.plot_confusion,
    plots.plot_loss,
    plots.plot_averages,
    plots.plot_newest,
    plots.plot_task,
    plots.plot_forgetting,
    plots.plot_scenarios,
    plots.plot_memory,
    plots.plot_tradeoff,
    plots.plot_sizes,
    plots.plot_task_bars,
]


@pytest.mark.parametrize("plot", EVERY, ids=lambda f: f.__name__)
@pytest.mark.parametrize("n", [1, 3])
def test_every_plot_draws_on_given_axes_labels_them_and_changes_no_global(plot, n):
    before = dict(matplotlib.rcParams)
    figure, ax = plt.subplots()
    count = len(plt.get_fignums())
    assert plot(seeds(n=n), ax=ax) is ax
    assert len(plt.get_fignums()) == count and stamp_of(figure) is None
    alone = plot(seeds(n=n))
    assert alone.figure is not figure and "seed" in stamp_of(alone.figure).get_text()
    assert ax.get_xlabel() or any(t.get_text() for t in ax.get_xticklabels())
    assert ax.get_ylabel() or any(t.get_text() for t in ax.get_yticklabels())
    assert dict(matplotlib.rcParams) == before
    alone.figure.canvas.draw()


def test_no_plus_minus_without_its_kind():
    assert plots.kind(several()) == "95 % t-interval, n = 3"
    assert plots.kind({"a": seeds(n=2), "b": seeds(n=5)}) == "95 % t-interval, n = 2 to 5"
    assert plots.kind(made()) == "single seed, n = 1"


def test_inputs_are_grouped():
    one, other = made(), made("lwf")
    assert plots.grouped(one) == {"er": [one]} and plots.grouped([one, other, one]) == {
        "er": [one, one],
        "lwf": [other],
    }
    assert plots.grouped({"mine": one}) == {"mine": [one]}


@pytest.mark.parametrize(
    "call, says",
    [
        (lambda: plots.plot_averages([]), "there are no results to plot"),
        (lambda: plots.plot_averages({"er": []}), "there are no results to plot"),
        (lambda: plots.plot_averages([made(), made("lwf", sizes=(3, 3))]), "different tasks"),
        (lambda: plots.plot_confusion([made(), made("lwf")]), r"shows one method, not 2 \(er, lwf\)"),
        (lambda: plots.plot_confusion(made(), 3), "3 learning stages, numbered from 0: there is no stage 3"),
        (lambda: plots.plot_task(made(), 3), "3 tasks, numbered from 0: there is no task 3"),
        (lambda: plots.plot_confusion(made(), by_group=True), "no superclasses"),
        (lambda: plots.plot_forgetting(made("joint", joint=True)), "two learning stages"),
        (lambda: plots.plot_newest(made("joint", joint=True)), "joint training has one stage"),
        (lambda: plots.plot_loss(made(), "penalty"), r"no trace loss/penalty .* loss/loss"),
    ],
)
def test_refusals_are_one_clear_sentence(call, says):
    with pytest.raises(plots.PlotError, match=says):
        call()


def test_stamp_says_what_was_run():
    text = stamp_of(plots.plot_averages(several()).figure).get_text()
    assert (
        text.replace("\n", " ")
        == "split-digits · data digits · teach preset · seeds 0-2 · clkit 0.1.0 · torch 2.13.0"
    )


@pytest.mark.parametrize(
    "benchmark, data, preset, mark",
    [
        ("split-mnist", "mnist", "paper", ""),
        ("split-digits", "digits", "paper", ""),
        ("shapes-families", "shapes", "paper", ""),
        ("shapes-siblings", "shapes(families=4)", "teach", ""),
        ("split-mnist", "digits28", "teach", "STAND-IN DATA: digits28"),
        ("split-cifar10", "shapes(families=10)", "teach", "STAND-IN DATA: shapes(families=10)"),
        ("split-digits", "digits", "smoke", "SMOKE TEST, NOT A RESULT"),
        ("split-mnist", "digits28", "smoke", "SMOKE TEST, NOT A RESULT · STAND-IN DATA: digits28"),
    ],
)
def test_stand_ins_and_smoke_are_marked(benchmark, data, preset, mark):
    results = seeds(benchmark=benchmark, data=data, preset=preset)
    assert plots.warning(results) == mark
    note = stamp_of(plots.plot_forgetting(results).figure)
    assert note.get_text().replace("\n", " ").startswith(mark or benchmark)
    assert (note.get_color() == "white") == bool(mark)


def test_stamping_again_replaces_and_takes_text():
    figure, ax = plt.subplots(layout="constrained")
    plots.stamp(ax, seeds(preset="smoke"))
    plots.stamp(figure, "drawn by code")
    notes = [t.get_text() for t in figure.findobj(matplotlib.text.Text) if t.get_gid() == "stamp"]
    assert notes == ["drawn by code"] and stamp_of(figure).get_color() != "white"


def test_plotting_needs_no_torch():
    code = "import sys, clkit.plots; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
