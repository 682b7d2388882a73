"""Plots of progress along a stream."""

import numpy as np

from clkit import plots
from clkit.result import interval
from tests.builders import line, made, online, seeds, several_online, stamp_of


def test_loss_draws_means_and_marks_tasks():
    results = seeds()
    ax = plots.plot_loss(results)
    np.testing.assert_allclose(
        ax.get_lines()[0].get_ydata(), np.mean([r.trace["loss"]["loss"] for r in results], axis=0)
    )
    assert [one.get_xdata()[0] for one in ax.get_lines()[1:]] == [4.5, 8.5]
    assert [t.get_text() for t in ax.texts] == ["task 1", "task 2", "task 3"]
    results[0].trace["loss"] = {k: v[:-1] for k, v in results[0].trace["loss"].items()}  # stopped early
    ax = plots.plot_loss(results)
    assert [len(one.get_xdata()) for one in ax.get_lines()[:3]] == [11, 12, 12]


def test_progress_draws_each_task_over_the_batches_and_ends_on_the_whole_test_set():
    results = several_online()
    ax = plots.plot_progress(results)
    for j in range(3):
        drawn = line(ax, str(j + 1))
        assert list(drawn.get_xdata()) == [0, 2, 4, 6, 8, 10, 11]
        wanted = [[*r.trace["progress"]["accuracy"][:, j], r.accuracy()[-1, j]] for r in results]
        np.testing.assert_allclose(drawn.get_ydata(), 100 * np.mean(wanted, axis=0))
        half = 100 * interval([row[3] for row in wanted]).half
        edges = ax.collections[j].get_paths()[0].vertices
        at = edges[edges[:, 0] == 6][:, 1]
        np.testing.assert_allclose(at.max() - at.min(), 2 * half)
    strips = [one for one in ax.get_lines() if list(one.get_ydata()) == [1.015, 1.015]]
    assert [list(one.get_xdata()) for one in strips] == [[0, 4], [4, 8], [8, 11]]
    np.testing.assert_array_equal(
        [one.get_color() for one in strips], [line(ax, str(j)).get_color() for j in (1, 2, 3)]
    )
    assert ax.get_legend().get_title().get_text() == "tested on task\n(95 % t-interval, n = 3)"
    assert "batches" in ax.get_xlabel() and "(%)" in ax.get_ylabel()


def test_progress_has_a_grey_reference():
    results, other = several_online(2), [online("naive", seed) for seed in range(3)]
    ax = plots.plot_progress(results, other)
    grey = [one for one in ax.get_lines() if str(one.get_color()) == "#AAAAAA" and len(one.get_xdata()) == 7]
    wanted = [[*r.trace["progress"]["accuracy"][:, 2], r.accuracy()[-1, 2]] for r in other]
    np.testing.assert_allclose(grey[2].get_ydata(), 100 * np.mean(wanted, axis=0))
    texts = [t.get_text() for t in ax.get_legend().get_texts()]
    assert texts == ["1", "2", "3", "Naive (one pass), mean"]
    assert "seeds 0-2" in stamp_of(ax.figure).get_text()


def test_losses_of_batches_are_not_called_epochs():
    assert plots.plot_loss(online()).get_xlabel() == "batches, tasks in sequence"
    assert plots.plot_loss(made()).get_xlabel() == "epochs, tasks in sequence"
