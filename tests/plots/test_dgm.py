"""Plots of reuse, masks, growth, disc space and generated images: what is drawn follows from the tables."""

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pytest

from clkit import plots
from clkit.papers.palette import BLUE
from clkit.result import chosen, interval
from tests.builders import EPOCHS, SHOWN, UNITS, generative, line, made, stamp_of


def several(method="dgma", n=3, **options):
    return [generative(method, seed, kept=seed == 1, **options) for seed in range(n)]


# ---- masks


@pytest.mark.parametrize("layer", [None, 0, 2])
def test_new_and_reused_shares_sum_to_a_hundred(layer):
    results = several()
    ax = plots.plot_reuse(results, layer)
    new, reused = (line(ax, name).get_ydata() for name in ("newly reserved", "reused"))
    np.testing.assert_allclose(new + reused, 100)
    assert new[0] == 100 and reused[0] == 0 and reused[1:].any()
    wanted = []
    for r in results:
        t = r.trace["capacity"]
        mine = np.full(len(t["task"]), True) if layer is None else t["layer"] == layer
        sums = [[t[c][mine & (t["task"] == k)].sum() for c in ("new", "reused")] for k in range(r.tasks)]
        wanted.append([reused / (new + reused) for new, reused in sums])
    np.testing.assert_allclose(reused, 100 * np.mean(wanted, axis=0))
    half = 100 * interval([row[1] for row in wanted]).half
    edges = ax.collections[1].get_paths()[0].vertices
    at = edges[edges[:, 0] == 2][:, 1]
    np.testing.assert_allclose(at.max() - at.min(), 2 * half)
    assert ("all masked layers" if layer is None else f"layer {layer + 1}") in ax.get_title()


def test_a_task_that_uses_nothing_of_a_layer_has_no_share():
    result = generative()
    for column in ("new", "reused"):
        result.trace["capacity"][column][3] = 0  # task 1, layer 0
    new, reused = plots.reuse(result, 0)
    assert np.isnan([new[1], reused[1]]).all() and not np.isnan(plots.reuse(result)[0]).any()


def test_every_mask_value_is_drawn_and_the_mean_is_bold():
    results = several()
    ax = plots.plot_mask_course(results, task=1, layer=0)
    table = results[1].trace["masks"]  # the seed that kept it
    rows = [v for t, l, v in zip(table["task"], table["layer"], table["values"]) if (t, l) == (1, 0)]
    drawn = {tuple(one.get_ydata()) for one in ax.lines[:-1]}
    assert drawn == {tuple(column) for column in np.array(rows).T} and len(rows) == EPOCHS
    bold = line(ax, "mean of the layer")
    np.testing.assert_allclose(bold.get_ydata(), np.mean(rows, axis=1))
    assert bold.get_linewidth() > max(one.get_linewidth() for one in ax.lines[:-1])
    on = sum(one.get_color() == BLUE for one in ax.lines)
    assert on == (rows[-1] > 0.5).sum() and f"ends above a half ({on})" in _legend(ax)
    assert len(ax.lines) - 1 == len(rows[0]) and stamp_of(ax.figure).get_text().count("seed 1")


# ---- accuracy by epoch


def test_each_epoch_is_drawn_and_the_last_and_the_chosen_one_are_marked():
    results = several("dgmw")
    ax, first = plots.plot_epochs(results), results[0]
    table = first.trace["progress"]
    for label, column in (("on test images", "test"), ("on validation images", "validation")):
        look = line(ax, label).get_linestyle(), line(ax, label).get_color()
        mine = [one for one in ax.lines if (one.get_linestyle(), one.get_color()) == look]
        mine = [one for one in mine if len(one.get_xdata()) == EPOCHS]
        assert [one.get_xdata()[0] for one in mine] == [1, 1 + EPOCHS, 1 + 2 * EPOCHS]
        drawn = np.concatenate([one.get_ydata() for one in mine])
        np.testing.assert_allclose(drawn, 100 * np.nanmean(table[column], axis=1))
    last, best = line(ax, "last epoch: our score"), line(ax, "best on validation")
    np.testing.assert_array_equal(last.get_xdata(), EPOCHS * np.arange(1, 4))
    np.testing.assert_allclose(last.get_ydata(), 100 * first.averages())
    epochs, scores = zip(*chosen(first))
    np.testing.assert_array_equal(best.get_xdata(), EPOCHS * np.arange(3) + np.array(epochs) + 1)
    np.testing.assert_allclose(best.get_ydata(), [100 * score for score in scores])
    assert (best.get_xdata() != last.get_xdata()).any() and "single seed, n = 1" in legend_title(ax)
    assert stamp_of(ax.figure).get_text().count("seed 0")


def legend_title(ax):
    return ax.get_legend().get_title().get_text()


# ---- growth


def test_linear_growth_is_the_start_times_the_task():
    groups = {"dgmw": several("dgmw"), "dgma": several("dgma")}
    for r in groups["dgma"]:
        for column in ("units", "start"):
            r.trace["growth"][column] = 2 * r.trace["growth"][column]
    ax, start = plots.plot_neurons(groups), sum(UNITS)
    for method, factor in (("DGMw", 1), ("DGMa", 2)):
        straight = line(ax, f"linear growth ({method})")
        np.testing.assert_array_equal(straight.get_ydata(), factor * start * np.array([1, 2, 3]))
    units = np.mean([r.trace["growth"]["units"] for r in groups["dgma"]], axis=0)
    np.testing.assert_allclose(line(ax, "DGMa").get_ydata(), units)
    ax = plots.plot_neurons(groups, relative=True)
    np.testing.assert_array_equal(line(ax, "linear growth").get_ydata(), [1, 2, 3])
    np.testing.assert_allclose(line(ax, "DGMa").get_ydata(), units / (2 * start))
    assert line(ax, "DGMw").get_ydata()[0] == line(ax, "DGMa").get_ydata()[0] == 1


def test_weights_stand_before_and_after_the_last_growth():
    rows = {"one": several("dgmw"), "two": several("dgma", n=1)}
    ax = plots.plot_weights(rows, {"two": 2.5})
    for n, (label, results) in enumerate(rows.items()):
        tables = [r.trace["growth"] for r in results]
        before, after = (
            np.mean([t[c][-1] / t["weights"][0] for t in tables]) for c in ("weights", "weights_after")
        )
        drawn = {
            one.get_marker(): one.get_xdata()[0]
            for one in ax.lines
            if one.get_marker() in "os" and np.allclose(one.get_ydata(), n)
        }
        assert drawn == pytest.approx({"o": before, "s": after}) and before < after
        said = next(t.get_text() for t in ax.texts if t.xy[1] == n)
        assert said.startswith(
            f"{tables[0]['weights'][0]:,} → {np.mean([t['weights'][-1] for t in tables]):,.0f} → "
        )
        assert label in [t.get_text() for t in ax.get_yticklabels()]
    assert [one.get_xdata()[0] for one in ax.lines if one.get_marker() == "D"] == [2.5]


# ---- two stages, disc space


def test_two_stages_stand_in_the_row_of_their_label():
    rows = {"a": ([(0.5, 0.4), (0.7, 0.2)], (90.0, None)), "b": ([], (30.0, 20.0))}
    ax = plots.plot_two_stages(rows, ("early", "late"))
    found = {
        (one.get_marker(), one.get_fillstyle(), round(one.get_ydata()[0])): one.get_xdata()[0]
        for one in ax.lines
        if one.get_marker() in "os" and len(one.get_xdata()) == 1
    }
    assert found == pytest.approx(
        {
            ("o", "full", 0): 60,
            ("s", "full", 0): 30,
            ("o", "none", 0): 90,
            ("o", "none", 1): 30,
            ("s", "none", 1): 20,
        }
    )
    assert _legend(ax) == ["early, ours", "late, ours", "early, printed", "late, printed"]
    only = plots.plot_two_stages({"b": rows["b"]}, ("early", "late"))
    assert _legend(only) == ["early, printed", "late, printed"]


def test_disc_space_is_stacked_by_kind():
    result = generative()
    parts = plots.disc_space(result, 1, "coo")
    assert parts == pytest.approx({"weights": 0.018, "heads and normalisation": 0.002, "masks": 0.014})
    assert plots.disc_space(result, 1, "bit")["masks"] == pytest.approx(0.004)
    ax = plots.plot_disc({"memory": parts, "images": {"images": 0.5}})
    bars = {
        container.get_label(): [(bar.get_x(), bar.get_width(), round(bar.get_y() + 0.3)) for bar in container]
        for container in ax.containers
    }
    assert bars["masks"] == [pytest.approx((0.02, 0.014, 0))] and bars["images"] == [(0, 0.5, 1)]
    assert [t.get_text() for t in ax.texts] == ["0.034", "0.5"]


# ---- generated images


def test_what_never_changes_does_not_drift_and_is_called_identical():
    still, moved = generative("dgmw"), generative("mergan", fixed=False)
    assert plots.unchanged(still) == dict.fromkeys(range(4), True)  # the last two classes have one stage
    assert plots.unchanged(moved) == dict.fromkeys(range(4), False)
    np.testing.assert_array_equal(plots.drift(still), [np.nan, 0, 0])
    found = moved.trace["generated"]["accuracy"]
    last = np.mean([found[2, k] - found[k // 2, k] for k in range(4)])
    assert plots.drift(moved)[2] == pytest.approx(last) and last < 0
    still.trace["generated"]["images"][2, 1, 3, 0, 0, 0] ^= 1  # one pixel of an image that is not drawn
    assert plots.unchanged(still) == {0: True, 1: False, 2: True, 3: True}
    ax = plots.plot_sample_course(still)
    assert [t.get_text() for t in ax.texts][-4:] == ["identical", "changes", "identical", "identical"]


def test_the_course_of_a_sample_is_a_staircase():
    result = generative(side=16)
    ax = plots.plot_sample_course(result, sample=2)
    board, images = ax.images[0].get_array(), result.trace["generated"]["images"]
    for k in range(6):
        for stage in range(3):
            cell = board[k * 17 : k * 17 + 16, stage * 17 : stage * 17 + 16, 0]
            wanted = images[stage, k, 2, 0] / 255 if stage >= k // 2 else np.ones((16, 16))
            np.testing.assert_allclose(cell, wanted)


def test_samples_have_a_row_for_each_class_learned():
    results = several("dgmw")
    for stage, classes in ((-1, 6), (0, 2)):
        ax = plots.plot_samples(results, stage)
        board, images = ax.images[0].get_array(), results[1].trace["generated"]["images"][stage]
        assert board.shape == (classes * 17 - 1, SHOWN * 17 - 1, 3)
        np.testing.assert_allclose(board[17:33, 34:50, 0], images[1, 2, 0] / 255)
        assert [t.get_text() for t in ax.texts] == [f"c{k}" for k in range(classes)]


def test_recognised_images_are_averaged_over_the_classes_seen():
    results = several("mergan", fixed=False)
    ax = plots.plot_generated({"mergan": results})
    found = [r.trace["generated"]["accuracy"] for r in results]
    wanted = [100 * np.mean([a[s, : 2 * s + 2].mean() for a in found]) for s in range(3)]
    np.testing.assert_allclose(line(ax, "MeRGAN").get_ydata(), wanted)
    np.testing.assert_allclose(line(ax, "judge on real images").get_ydata(), 98)
    assert plots.recognised_after(results[0], 4) == found[0][1, :4].mean()
    assert np.isnan(plots.recognised_after(results[0], 5))
    ax = plots.plot_generated({"mergan": results}, change=True)
    np.testing.assert_allclose(
        line(ax, "MeRGAN").get_ydata(), 100 * np.mean([plots.drift(r) for r in results], axis=0)
    )


# ---- every plot


def _legend(ax):
    return [t.get_text() for t in ax.get_legend().get_texts()]


PLOTS = (
    plots.plot_epochs,
    plots.plot_reuse,
    plots.plot_mask_course,
    plots.plot_neurons,
    plots.plot_weights,
    plots.plot_generated,
    plots.plot_samples,
    plots.plot_sample_course,
)


@pytest.mark.parametrize("plot", PLOTS)
def test_each_draws_on_given_axes_and_stamps_its_own_figure(plot):
    before = dict(matplotlib.rcParams)
    figure, ax = plt.subplots()
    results = [generative("dgmw")]
    assert plot(results, ax=ax) is ax and len(plt.get_fignums()) == 1 and stamp_of(figure) is None
    alone = plot(results)
    assert alone.figure is not figure and dict(matplotlib.rcParams) == before
    assert "seed 0" in stamp_of(alone.figure).get_text()
    alone.figure.canvas.draw()


@pytest.mark.parametrize(
    "call, says",
    [
        (lambda: plots.plot_reuse(made()), "no trace capacity/task .*record="),
        (
            lambda: plots.plot_reuse(generative(), 3),
            "there are 3 masked layers, numbered from 0: there is no layer 3",
        ),
        (lambda: plots.plot_mask_course(generative(), 3), "no mask was recorded for task 3 and layer 0"),
        (lambda: plots.plot_mask_course(generative(kept=False)), "no trace masks/task"),
        (lambda: plots.plot_neurons(generative(grows=False)), "no trace growth/start"),
        (lambda: plots.plot_epochs(made()), "no accuracy on validation images: run it on a stream with val"),
        (lambda: plots.plot_samples(generative(kept=False)), "no trace generated/images"),
        (lambda: plots.plot_samples(generative(), 3), "there is no stage 3"),
        (lambda: plots.plot_disc({"a": {"weight": 1.0}}), "no kind of disc space 'weight': use weights, "),
    ],
)
def test_refusals(call, says):
    with pytest.raises(plots.PlotError, match=says):
        call()
