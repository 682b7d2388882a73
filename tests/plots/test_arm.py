"""Plots for ARM: recalled images, recall maps, gradients, and terms of the objective."""

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pytest

from clkit import plots
from clkit.papers.published import Published
from clkit.result import interval
from tests.builders import line, made, online, several_online, stamp_of


def test_recall_map_has_a_column_a_batch_and_an_empty_corner():
    results = several_online()
    ax = plots.plot_recall_map(results)
    image = ax.images[0]
    wanted = 100 * np.mean([r.trace["recall"]["output"] for r in results], axis=0).T
    drawn = np.ma.filled(image.get_array(), np.nan)
    np.testing.assert_allclose(drawn, wanted, rtol=1e-5)
    assert drawn.shape == (6, 11) and np.isnan(drawn[:, :4]).all() and not np.isnan(drawn[:, 4:]).any()
    assert image.get_extent() == [0, 11, 5.5, -0.5]  # class 0 on top, as in the paper
    assert image.get_clim() == (0, pytest.approx(np.nanmax(wanted)))
    assert image.get_cmap().name == plots.SEQUENTIAL
    starts = [
        one.get_xdata()[0]
        for one in ax.get_lines()
        if len(one.get_xdata()) == 2
        and one.get_xdata()[0] == one.get_xdata()[1]
        and one.get_color() == "white"
    ]
    assert starts == [4, 8]
    stairs = next(one for one in ax.get_lines() if one.get_drawstyle() == "steps-post")
    assert list(stairs.get_xdata()) == [4, 8, 11] and list(stairs.get_ydata()) == [1.5, 3.5, 3.5]
    assert [t.get_text() for t in ax.get_yticklabels()] == [f"c{k}" for k in range(6)]
    assert "mean of 3 seeds" in ax.figure.axes[1].get_ylabel() and ax.get_ylabel() == "class"


def test_recall_map_takes_a_scale_and_has_no_stairs_where_the_old_network_is_newer():
    ax = plots.plot_recall_map(online(lag=1), vmax=80, colorbar=False, title="unit lag")
    assert ax.images[0].get_clim() == (0, 80) and len(ax.figure.axes) == 1 and ax.get_title() == "unit lag"
    assert not [one for one in ax.get_lines() if one.get_drawstyle() == "steps-post"]


def test_recalled_images_stand_above_their_origins_with_their_true_range():
    result = online(counts=[1, 2, 0, 1, 1])
    result.trace["images"]["origins"][3][1] = -1
    ax = plots.plot_recalled([made("arm"), result], 1, 1, n=3)  # the first that has images
    found = {c: result.trace["images"][c][3] for c in ("start", "recalled", "probs", "origins")}
    board, x, texts = ax.images[0].get_array(), found["recalled"][1, 0], [t.get_text() for t in ax.texts]
    one = (x - x.min()) / (x.max() - x.min())
    assert any(np.allclose(board[y : y + 8, 9:17, 0], one) for y in range(10))
    height = next(y for y in range(10) if np.allclose(board[y : y + 8, 9:17, 0], one))
    below = board[-8:, 9:17]  # two rows: the second ends the board
    np.testing.assert_allclose(below, np.repeat(found["start"][1, 0][..., None], 3, axis=2))
    assert height < board.shape[0] - 8
    p = found["probs"][1]
    said = f"c{p.argmax()} ({100 * p.max():.0f} %)\n{x.min():.1f}…{x.max():.1f}"
    assert texts[1] == said.replace("-", "−")
    assert texts[3:6] == [f"c{found['origins'][0]}", "noise (×2)", f"c{found['origins'][2]} (×0)"]
    assert texts[6:] == ["recalled", "began as"] and ax.get_title() == "ARM, task 2, batch 3"


def test_the_change_of_recalled_images_is_blue_and_red_around_zero():
    starts, images = np.zeros((2, 3, 4, 4)), np.zeros((2, 3, 4, 4))
    images[0, :, 0, 0], images[1, :, 0, 0] = 2.0, -1.0
    ax = plots.plot_pairs(images, starts, np.eye(2), [0, 1], names=["automobile", "dog"], change=True)
    board = ax.images[0].get_array()[-4:]
    wanted = [matplotlib.colormaps[plots.DIVERGING](v)[:3] for v in (1.0, 0.25, 0.5)]
    np.testing.assert_allclose([board[0, 0], board[0, 5], board[1, 1]], wanted)
    texts = [t.get_text() for t in ax.texts]
    assert texts[0] == "automobile\n(100 %)\n0.0…2.0"  # a long name has a line of its own
    assert texts[-1] == "change\n(blue −2.0,\nred +2.0)"
    flat = plots.plot_pairs(starts, starts, np.eye(2), [0, 1], change=True).images[0].get_array()
    assert np.isfinite(flat).all()


def printed(metric, value, spread=0.25):
    return Published(
        "arm",
        "Table 10",
        "13",
        "mnist-5k-5",
        "arm",
        metric,
        value,
        spread,
        "not stated",
        1000,
        "1",
        "",
        f"{value}",
    )


def test_gradients_draws_means_deviations_and_what_is_printed():
    results = several_online()
    said = [
        printed(f"gradient correlation, {condition} targets, {layer}, class {k}", k / 4)
        for condition in ("hard", "soft")
        for layer in ("FC 1", "all")
        for k in (1, 2)
    ]
    ax = plots.plot_gradients(results, "soft", said)
    means = np.array([r.trace["gradients"]["mean"] for r in results])[:, 6:]  # the second half is soft
    deviations = np.array([r.trace["gradients"]["deviation"] for r in results])[:, 6:]
    for k, label in enumerate(("1: starting class", "2: recalled class")):
        own = slice(3 * k, 3 * k + 3)
        np.testing.assert_allclose(line(ax, label).get_ydata(), means[:, own].mean(axis=0))
        bars = [c.lines[2][0].get_segments() for c in ax.containers[:][4 * k : 4 * k + 2]]
        spread = np.sqrt(
            np.mean(deviations[:, own] ** 2 + means[:, own] ** 2, axis=0) - means[:, own].mean(axis=0) ** 2
        )  # of all values, were they pooled
        np.testing.assert_allclose([(b[1, 1] - b[0, 1]) / 2 for b in bars[0]], spread)
        np.testing.assert_allclose(
            [(b[1, 1] - b[0, 1]) / 2 for b in bars[1]], [interval(column).half for column in means[:, own].T]
        )
    hollow = [one for one in ax.get_lines() if one.get_markerfacecolor() == "white" and len(one.get_xdata())]
    assert sorted((round(one.get_xdata()[0]), one.get_ydata()[0]) for one in hollow) == [
        (0, 0.25),
        (0, 0.5),
        (2, 0.25),
        (2, 0.5),
    ]
    assert [t.get_text() for t in ax.get_xticklabels()] == ["FC1\n(200)", "FC2\n(200)", "All\n(600)"]
    assert "n = 3" in ax.get_legend().get_title().get_text() and "± 1 SD" in ax.get_ylabel()
    assert ax.get_title() == "ARM, soft targets"
    alone = plots.plot_gradients(results[0])
    assert "single seed" in alone.get_legend().get_title().get_text() and len(alone.containers) == 2


def test_objective_draws_how_each_term_moves_and_with_which_sign():
    result = online()
    ax = plots.plot_objective(result, 1)
    table = {t: np.asarray(v)[4:8].mean(axis=0) for t, v in result.trace["objective"].items()}
    signs = {
        "divergence": -2.0,
        "local_old": 1.0,
        "local_new": 0.1,
        "diversity": 16.0,
        "l2": 1.0,
        "tv": 1.0,
    }  # no weight on confidence, and the others are of ADI
    total = sum(weight * table[t] for t, weight in signs.items())
    drawn = {one.get_label().partition("  ")[2]: one for one in ax.get_lines() if "  " in one.get_label()}
    assert list(drawn) == ["sum (minimised)", *(plots.TERMS[t][0] for t in signs)]
    np.testing.assert_allclose(drawn["sum (minimised)"].get_ydata(), total - total[0], atol=1e-6)
    for t, weight in signs.items():
        np.testing.assert_allclose(
            drawn[plots.TERMS[t][0]].get_ydata(), weight * (table[t] - table[t][0]), atol=1e-6
        )
        assert list(drawn[plots.TERMS[t][0]].get_xdata()) == [0, 1, 2]
    assert drawn["diversity"].get_label().startswith(f"+{16 * table['diversity'][0]:.2f}")
    assert drawn["divergence between networks"].get_label().startswith(f"−{2 * table['divergence'][0]:.2f}")
    assert ax.get_title() == "ARM, task 2, mean of 4 batches"
    one = plots.plot_objective(result, -1, 2)
    own = np.asarray(result.trace["objective"]["l2"])[10]
    drawn = next(x for x in one.get_lines() if x.get_label().endswith("  L2 norm of the pixels"))
    np.testing.assert_allclose(drawn.get_ydata(), own - own[0])
    assert one.get_title() == "ARM, task 3, batch 3"


def test_terms_are_those_of_the_method_and_none_looks_like_another():
    from clkit.methods.arm import arm

    assert tuple(plots.TERMS) == arm.TERMS
    looks = [look[1:4] for look in plots.TERMS.values()]
    assert len(set(looks)) == len(looks)
    ax = plots.plot_terms({"l2": np.array([1.0, 2.0])}, at=1)
    assert [one.get_xdata() for one in ax.get_lines() if one.get_linestyle() == ":"] == [[1, 1]]


def without(table):
    result = online()
    del result.trace[table]
    return result


@pytest.mark.parametrize(
    "call, says",
    [
        (lambda: plots.plot_progress(made("arm")), "no trace progress/task"),
        (lambda: plots.plot_progress(without("loss")), r"no trace loss/task .* record=\('loss',\)"),
        (
            lambda: plots.plot_progress([online(), online(batches=(4, 4, 4))]),
            "2 seeds differ in the number of",
        ),
        (lambda: plots.plot_progress([online(), online(batches=(3, 4, 4))]), "2 seeds differ in the batches"),
        (lambda: plots.plot_progress(online(), online(sizes=(3, 3), batches=(4, 4))), "different tasks"),
        (lambda: plots.plot_progress([online(), online("adi")]), "shows one method, not 2"),
        (lambda: plots.plot_recall_map(without("recall")), "no trace recall/output"),
        (
            lambda: plots.plot_recall_map(online(sizes=(6,), batches=(4,))),
            "nothing was recalled in these runs",
        ),
        (lambda: plots.plot_sweep({}), "there is nothing to plot"),
        (lambda: plots.plot_sweep({"arm": {}}), "there is nothing to plot"),
        (lambda: plots.plot_sweep({"arm": {0: [0.5]}}), "a log scale cannot show 0"),
        (lambda: plots.plot_sweep({"arm": {1: [50]}}, "weight"), "'arm, weight 1' must have one accuracy"),
        (lambda: plots.plot_recalled(without("images")), "no trace images/task"),
        (lambda: plots.plot_recalled(online(), 3), "3 tasks, numbered from 0: there is no task 3"),
        (lambda: plots.plot_recalled(online(), 1, 2), "task 2 has 2 rows of images, .* no row 2"),
        (lambda: plots.plot_recalled(online(), 0), "nothing was recalled in task 1: recall begins in task 2"),
        (lambda: plots.plot_outputs({}), "with one network or more"),
        (lambda: plots.plot_gradients(without("gradients")), "no trace gradients/condition"),
        (lambda: plots.plot_gradients(online(), "easy"), "no condition 'easy': use one of hard, soft"),
        (lambda: plots.plot_gradients(online(), "hard", [printed("other", 1)]), "none of the published"),
        (lambda: plots.plot_objective(without("objective")), "no trace objective/task"),
        (lambda: plots.plot_objective(online(), -4), "there is no task -4"),
        (lambda: plots.plot_objective(online(), 2, 3), "task 3 has 3 batches, .* there is no batch 3"),
        (lambda: plots.plot_objective(online(), 0), "nothing was recalled in task 1"),
        (lambda: plots.plot_terms({}), "no terms to plot"),
        (
            lambda: plots.plot_ablation({"a": [0.5]}, score="speed"),
            "unknown score 'speed': use accuracy or forgetting",
        ),
        (lambda: plots.plot_ablation({"a": [-3]}, score="forgetting"), r"fractions in \[-1, 1\]"),
    ],
)
def test_refusals_of_plots_of_recall(call, says):
    with pytest.raises(plots.PlotError, match=says):
        call()


@pytest.mark.parametrize(
    "plot",
    [
        plots.plot_progress,
        plots.plot_recall_map,
        plots.plot_gradients,
        plots.plot_objective,
        plots.plot_recalled,
        lambda results, ax=None: plots.plot_sweep({"arm": {1: results}}, ax=ax),
    ],
)
@pytest.mark.parametrize("n", [1, 3])
def test_plots_of_recall_draw_on_given_axes_and_change_no_global(plot, n):
    before, (figure, ax) = dict(matplotlib.rcParams), plt.subplots()
    assert plot(several_online(n), ax=ax) is ax and stamp_of(figure) is None
    alone = plot(several_online(n))
    assert alone.figure is not figure and dict(matplotlib.rcParams) == before
    assert plot is plots.plot_recalled or "seed" in stamp_of(alone.figure).get_text()
    alone.figure.canvas.draw()
