"""Accuracy plots: matrices, curves, confusion and sweeps show values computed by hand."""

import numpy as np
import pytest

from clkit import plots
from clkit.result import interval
from tests.builders import line, made, seeds, several, several_online, stamp_of


def test_averages_draws_means_and_bands():
    groups = several()
    ax = plots.plot_averages(groups)
    for method in ("finetune", "er"):
        rows = np.array([r.averages() for r in groups[method]])
        drawn = line(ax, plots.style(method)["label"])
        assert list(drawn.get_xdata()) == [1, 2, 3]
        np.testing.assert_allclose(drawn.get_ydata(), 100 * rows.mean(axis=0))
    halves = [100 * interval([r.averages()[s] for r in groups["finetune"]]).half for s in range(3)]
    edges = ax.collections[0].get_paths()[0].vertices
    for s in range(3):
        at = edges[edges[:, 0] == s + 1][:, 1]
        np.testing.assert_allclose(at.max() - at.min(), 2 * halves[s], atol=1e-9)
    assert line(ax, "Joint").get_ydata() == pytest.approx(
        [100 * np.mean([r.average() for r in groups["joint"]])] * 2
    )
    assert ax.get_legend().get_title().get_text() == "mean and 95 % t-interval, n = 3"
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("tasks learned", "average accuracy (%)")


def test_averages_over_images_and_classes():
    results = seeds("er", sizes=(4, 2))
    ax = plots.plot_averages(results, over="images", x="classes")
    drawn = line(ax, "ER")
    assert list(drawn.get_xdata()) == [4, 6] and ax.get_xlabel() == "classes learned"
    np.testing.assert_allclose(
        drawn.get_ydata(), 100 * np.mean([r.averages("images") for r in results], axis=0)
    )


@pytest.mark.parametrize("task_aware", [False, True])
def test_accuracy_matrix_draws_the_mean_below_the_diagonal_only(task_aware):
    results = seeds()
    ax = plots.plot_accuracy_matrix(results, task_aware=task_aware)
    values = np.mean([r.task_aware_accuracy() if task_aware else r.accuracy() for r in results], axis=0)
    drawn = ax.collections[0].get_array().reshape(3, 3)
    for i in range(3):
        for j in range(3):
            assert np.ma.is_masked(drawn[i, j]) == (j > i)
            assert j > i or drawn[i, j] == pytest.approx(100 * values[i, j])
    written = sorted(t.get_text() for t in ax.texts if t.get_text())
    assert written == sorted(f"{100 * values[i, j]:.0f}" for i in range(3) for j in range(i + 1))
    assert ax.collections[0].get_clim() == (0, 100)


def test_accuracy_matrix_until_a_stage_and_of_joint():
    drawn = plots.plot_accuracy_matrix(seeds(), last=1).collections[0].get_array().reshape(3, 3)
    assert (~np.ma.getmaskarray(drawn)).sum() == 3
    ax = plots.plot_accuracy_matrix(made("joint", joint=True))
    assert ax.collections[0].get_array().size == 3 and [t.get_text() for t in ax.get_yticklabels()] == ["all"]


@pytest.mark.parametrize("stage", [0, 1, -1])
def test_confusion_draws_shares_of_rows(stage):
    results = seeds(n=2)
    ax = plots.plot_confusion(results, stage)
    counts = results[0].confusion(stage) + results[1].confusion(stage)
    np.testing.assert_allclose(
        ax.collections[0].get_array().reshape(counts.shape), 100 * counts / counts.sum(axis=1, keepdims=True)
    )
    assert ax.get_title() == f"ER, after task {stage % 3 + 1}"


def test_confusion_by_group_puts_siblings_together():
    result = made(groups=["a", "b"] * 3)  # arrival mixes the families
    ax = plots.plot_confusion(result, by_group=True)
    order = [0, 2, 4, 1, 3, 5]
    counts = result.confusion()[np.ix_(order, order)]
    np.testing.assert_allclose(
        ax.collections[0].get_array().reshape(6, 6), 100 * counts / counts.sum(axis=1, keepdims=True)
    )
    assert [t.get_text() for t in ax.get_yticklabels()] == [f"c{k}" for k in order]


def test_tasks_draws_each_task_from_its_stage_on():
    results = seeds()
    ax = plots.plot_tasks(results)
    values = 100 * np.mean([r.accuracy() for r in results], axis=0)
    for j in range(3):
        drawn = line(ax, str(j + 1))
        assert list(drawn.get_xdata()) == list(range(j + 1, 4))
        np.testing.assert_allclose(drawn.get_ydata(), values[j:, j])


def test_task_follows_one_task_over_methods():
    groups = several()
    ax = plots.plot_task(groups, 1)
    drawn = line(ax, "ER").get_ydata()
    assert np.isnan(drawn[0])
    np.testing.assert_allclose(drawn[1:], 100 * np.mean([r.accuracy()[1:, 1] for r in groups["er"]], axis=0))


def test_newest_draws_shares_and_the_true_one():
    groups = several()
    ax = plots.plot_newest(groups)
    np.testing.assert_allclose(line(ax, "true share").get_ydata(), [100, 50, 100 / 3])
    wanted = np.mean([[r.newest_share(s) for s in range(3)] for r in groups["er"]], axis=0)
    np.testing.assert_allclose(line(ax, "ER").get_ydata(), 100 * wanted)


def test_tradeoff_pools_seeds_by_setting():
    results = [r for m in (1000, 50, 200) for r in seeds(memory=m)]
    ax = plots.plot_tradeoff(results, references={"joint": seeds("joint", joint=True)})
    drawn = ax.containers[0].lines[0]
    assert list(drawn.get_xdata()) == [50, 200, 1000] and ax.get_xscale() == "log"
    wanted = [
        100 * np.mean([r.average() for r in results if r.about["config"]["memory"] == m])
        for m in (50, 200, 1000)
    ]
    np.testing.assert_allclose(np.asarray(drawn.get_ydata(), float), wanted)
    assert line(ax, "Joint").get_linestyle() == "--"
    with pytest.raises(plots.PlotError, match="no setting 'size': use one of memory"):
        plots.plot_tradeoff(results, "size")


def test_sweep_stars_the_best_of_each_row():
    few = [[0.3, 0.5], [0.2, 0.4], [0.7, 0.5]]
    ax = plots.plot_sweep({"arm": dict(zip((1, 0.25, 16), few)), "mine": {4: [0.5, 0.7]}}, "weight")
    drawn = ax.containers[0].lines[0]
    assert list(drawn.get_xdata()) == [0.25, 1, 16] and ax.get_xscale() == "log"
    np.testing.assert_allclose(drawn.get_ydata(), [30, 40, 60])
    low, high = ax.containers[0].lines[2][0].get_segments()[1][:, 1]
    assert (high - low) / 2 == pytest.approx(100 * interval([0.3, 0.5]).half)
    stars = [
        (one.get_xdata()[0], one.get_ydata()[0])
        for one in ax.get_lines()
        if one.get_marker() == "*" and len(one.get_xdata())
    ]
    np.testing.assert_allclose(stars, [(16, 60), (4, 60)])
    assert [t.get_text() for t in ax.get_xticklabels()] == ["0.25", "1", "4", "16"]
    assert ax.get_xlabel() == "weight (log scale)" and "95 % t-interval, n = 2" in ax.get_ylabel()
    assert stamp_of(ax.figure) is None
    mixed = plots.plot_sweep({"arm": {1: made("arm"), 2: several_online(2)}})
    assert "n = 1 to 2" in mixed.get_ylabel() and stamp_of(mixed.figure) is not None
    assert "single seed" in plots.plot_sweep({"arm": {1: [0.5]}}).get_ylabel()
