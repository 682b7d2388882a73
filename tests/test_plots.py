"""Plots: what is drawn equals what is computed by hand; styles, stamps and refusals."""

import subprocess
import sys
from itertools import combinations

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.colors import to_rgb, to_rgba

from clkit import plots
from clkit.analysis import confusion
from clkit.published import Published
from clkit.result import Result, interval

SIZES, PER_CLASS = (2, 2, 2), 10


def made(
    method="er",
    seed=0,
    *,
    benchmark="split-digits",
    data="digits",
    preset="teach",
    sizes=SIZES,
    joint=False,
    groups=None,
    memory=100,
    skill=0.6,
):
    """A Result of random answers, right with chance `skill` and else among the seen classes."""
    random = np.random.default_rng([seed, sum(map(ord, method)), memory])
    K = sum(sizes)
    labels = np.repeat(np.arange(K), PER_CLASS).astype(np.int16)
    seen = np.array([K]) if joint else np.cumsum(sizes)
    own = np.searchsorted(np.cumsum(sizes), labels, side="right")
    first = (np.cumsum(sizes) - sizes)[own]
    predictions = np.array([
        np.where(random.random(len(labels)) < skill, labels, random.integers(0, s, len(labels))) for s in seen
    ])
    predictions = np.where(labels < seen[:, None], predictions, -1).astype(np.int16)
    within = np.array([first + random.integers(0, np.array(sizes)[own]) for _ in range(len(seen) + 1)])
    R = len(seen)
    about = {
        "experiment": f"{method}/{benchmark}",
        "method": method,
        "benchmark": benchmark,
        "preset": preset,
        "seed": seed,
        "config": {"memory": memory},
        "stream": {"data": data, "checksum": "0f" * 32},
        "key": "abc",
        "commit": "1234567",
        "date": "2024-02-03",
        "versions": {"clkit": "0.1.0", "torch": "2.13.0"},
        "device": "cpu",
        "threads": 1,
    }
    losses = {
        "task": np.repeat(np.arange(R), 4),
        "epoch": np.tile(np.arange(4), R),
        "loss": random.random(4 * R),
    }
    return Result(
        about,
        sizes,
        [f"c{k}" for k in range(K)],
        groups,
        seen,
        labels,
        predictions,
        within,
        np.where(predictions == labels, 0, 1),
        np.ones(R),
        np.ones(R),
        np.full(R, 100),
        np.full(R, 5),
        kept={"weights": np.full(R, 2_000_000), "exemplars": np.arange(1, R + 1) * 500_000},
        trace={"loss": losses},
    )


def seeds(method="er", n=3, **options):
    return [made(method, seed, **options) for seed in range(n)]


def sparse(method="spacenet", seed=0, *, pixels=36, chosen=8, hidden=12, epochs=2, **options):
    """A Result with the trace table "masks" of a network with two hidden layers: random connections."""
    result = made(method, seed, **options)
    random = np.random.default_rng([seed, sum(map(ord, method)), pixels])
    rows = []
    for task, classes in enumerate(result.sizes):
        first = sum(result.sizes[:task])
        layers = [np.arange(pixels), *(random.permutation(hidden)[:chosen] for _ in range(2)),
                  np.arange(first, first + classes)]
        rows += [(task, layer, epoch, layers[layer + 1], layers[layer],
                  random.random((len(layers[layer + 1]), len(layers[layer]))) < 0.3)
                 for epoch in range(epochs + 1) for layer in range(3)]
    columns = zip(*rows, strict=True)
    names = ("task", "layer", "epoch", "targets", "sources", "mask")
    result.trace["masks"] = dict(zip(names, map(list, columns), strict=True))
    return result


def several():
    return {"finetune": seeds("finetune"), "er": seeds("er"), "joint": seeds("joint", joint=True)}


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


def line(ax, label):
    return next(one for one in ax.get_lines() if one.get_label() == label)


def stamp_of(figure):
    return next((t for t in figure.findobj(matplotlib.text.Text) if t.get_gid() == "stamp"), None)


# ---- what is drawn

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


@pytest.mark.parametrize("within", [False, True])
def test_accuracy_matrix_draws_the_mean_below_the_diagonal_only(within):
    results = seeds()
    ax = plots.plot_accuracy_matrix(results, within=within)
    values = np.mean([r.within_accuracy() if within else r.accuracy() for r in results], axis=0)
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


def test_forgetting_draws_one_bar_a_method_but_joint():
    groups = several()
    ax = plots.plot_forgetting(groups)
    assert [t.get_text() for t in ax.get_xticklabels()] == ["Finetune", "ER"]
    for bar, method in zip(ax.patches, ("finetune", "er")):
        assert bar.get_height() == pytest.approx(100 * np.mean([r.forgetting() for r in groups[method]]))
        assert bar.get_facecolor() == to_rgba(plots.STYLE[method]["color"])
    halves = [100 * interval([r.forgetting() for r in groups[m]]).half for m in ("finetune", "er")]
    bars = [c for c in ax.containers if type(c).__name__ == "ErrorbarContainer"]
    for bar, half in zip(bars, halves):
        low, high = bar.lines[2][0].get_segments()[0][:, 1]
        assert (high - low) / 2 == pytest.approx(half)
    assert "percentage points" in ax.get_ylabel() and "95 % t-interval, n = 3" in ax.get_ylabel()


def test_scenarios_draws_both_scores_of_the_same_weights():
    groups = several()
    ax = plots.plot_scenarios(groups)
    heights = [p.get_height() for p in ax.patches]
    wanted = [100 * np.mean([score(r) for r in rs]) for rs in groups.values()
              for score in (lambda r: r.average(), lambda r: r.within_average())]
    np.testing.assert_allclose(heights, wanted)
    assert [p.get_hatch() for p in ax.patches] == [None, "///"] * 3


@pytest.mark.parametrize("stage", [0, 1, -1])
def test_confusion_draws_shares_of_rows(stage):
    results = seeds(n=2)
    ax = plots.plot_confusion(results, stage)
    counts = results[0].confusion(stage) + results[1].confusion(stage)
    np.testing.assert_allclose(ax.collections[0].get_array().reshape(counts.shape),
                               100 * counts / counts.sum(axis=1, keepdims=True))
    assert ax.get_title() == f"ER, after task {stage % 3 + 1}"


def test_confusion_by_group_puts_siblings_together():
    result = made(groups=["a", "b"] * 3)                # arrival mixes the families
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
    np.testing.assert_allclose(line(ax, "images of that task").get_ydata(), [100, 50, 100 / 3])
    wanted = np.mean([[r.newest_share(s) for s in range(3)] for r in groups["er"]], axis=0)
    np.testing.assert_allclose(line(ax, "ER").get_ydata(), 100 * wanted)


def test_memory_stacks_megabytes():
    ax = plots.plot_memory({"er": seeds(), "finetune": seeds("finetune")})
    widths = {c.get_label(): [p.get_width() for p in c] for c in ax.containers}
    assert widths == {"weights": [2.0, 2.0], "exemplars": [1.5, 1.5]}
    assert [t.get_text() for t in ax.texts] == ["3.50", "3.50"]
    first = plots.plot_memory(seeds(), 0)
    assert [p.get_width() for p in first.containers[1]] == [0.5]


def test_loss_draws_means_and_marks_tasks():
    results = seeds()
    ax = plots.plot_loss(results)
    np.testing.assert_allclose(
        ax.get_lines()[0].get_ydata(), np.mean([r.trace["loss"]["loss"] for r in results], axis=0)
    )
    assert [one.get_xdata()[0] for one in ax.get_lines()[1:]] == [4.5, 8.5]
    assert [t.get_text() for t in ax.texts] == ["task 1", "task 2", "task 3"]
    results[0].trace["loss"] = {k: v[:-1] for k, v in results[0].trace["loss"].items()}     # stopped early
    ax = plots.plot_loss(results)
    assert [len(one.get_xdata()) for one in ax.get_lines()[:3]] == [11, 12, 12]


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
    with pytest.raises(plots.PlotError, match="no setting 'size': they have memory"):
        plots.plot_tradeoff(results, "size")


def test_images_are_laid_out_in_rows():
    images = np.arange(1, 7, dtype=np.uint8)[:, None, None, None] * np.full((1, 1, 4, 4), 40, np.uint8)
    ax = plots.plot_images(images, columns=4, titles=[f"t{n}" for n in range(6)])
    board = ax.images[0].get_array()
    assert board.shape == (2 * (4 + 1) + 1, 4 * 5 - 1, 3)
    np.testing.assert_allclose(board[1, [0, 5, 10, 15], 0], [40 / 255, 80 / 255, 120 / 255, 160 / 255])
    np.testing.assert_allclose(board[7, [0, 5, 10], 0], [200 / 255, 240 / 255, 1])
    assert [t.get_text() for t in ax.texts] == [f"t{n}" for n in range(6)]
    with pytest.raises(plots.PlotError, match=r"shape \(N, C, H, W\)"):
        plots.plot_images(images[0])


def test_families_and_siblings():
    result = made(groups=["a", "a", "b", "b", "c", "c"])
    right, sibling, other = 0, 0, 0
    for label, p in zip(result.labels, result.predictions[-1]):
        right, sibling, other = (right + (p == label), sibling + (p != label and p // 2 == label // 2),
                                 other + (p // 2 != label // 2))
    n = len(result.labels)
    assert confusion.answers(result) == pytest.approx(
        {"right": right / n, "sibling": sibling / n, "other family": other / n}
    )
    blind = confusion.answers_if_blind(result)
    assert blind == pytest.approx(
        {"right": right / n, "sibling": (1 - right / n) / 5, "other family": (1 - right / n) * 4 / 5}
    )
    counts, names = confusion.families(result)
    assert names == ["a", "b", "c"] and counts.sum() == n and np.trace(counts) == right + sibling
    ax = plots.plot_errors({"measured": {"right": [0.5, 0.7], "sibling": 0.3, "other": 0.1}})
    assert [round(c[0].get_width()) for c in ax.containers] == [60, 30, 10]
    with pytest.raises(confusion.ConfusionError, match="split-digits have no superclasses"):
        confusion.answers(made())


def bar_rows(ax):
    """Bars by method in the order drawn, and error bars likewise."""
    return ([c for c in ax.containers if type(c).__name__ == "BarContainer"],
            [c for c in ax.containers if type(c).__name__ == "ErrorbarContainer"])


def test_sizes_stack_what_is_kept_on_the_parameters():
    groups = {"er": seeds(), "spacenet": seeds("spacenet")}
    sizes = {"spacenet": {"parameters": 59_410, "extra": 0}, "er": {"parameters": 478_410, "extra": 392_000}}
    ax = plots.plot_sizes(groups, sizes)
    assert ax.get_xscale() == "log" and "log scale" in ax.get_xlabel()
    assert [t.get_text() for t in ax.get_yticklabels()] == ["ER", "SpaceNet"]
    solid = [p for p in ax.patches if not p.get_hatch()]
    hatched = [p for p in ax.patches if p.get_hatch()]
    assert [p.get_x() + p.get_width() for p in solid] == [478_410, 59_410] and len(hatched) == 1
    assert [p.get_facecolor() for p in solid] == [to_rgba(plots.STYLE[m]["color"]) for m in groups]
    assert (hatched[0].get_x(), hatched[0].get_x() + hatched[0].get_width()) == (478_410, 870_410)
    assert [t.get_text() for t in ax.texts] == ["478,410 + 392,000", "59,410"]
    assert [t.get_text() for t in ax.get_legend().get_texts()] == ["parameters", "kept beside them"]
    assert ax.get_xlim()[0] == 10_000 and ax.get_xlim()[1] > 870_410


def test_sizes_by_default_are_parameters():
    ax = plots.plot_sizes(seeds())
    assert [t.get_text() for t in ax.texts] == ["5"] and ax.get_legend() is None


def test_task_bars_draw_each_task_and_the_average():
    groups = several()
    ax = plots.plot_task_bars(groups)
    assert [t.get_text() for t in ax.get_xticklabels()] == ["1", "2", "3", "average"]
    bars, errors = bar_rows(ax)
    dots = [one for one in ax.get_lines() if one.get_marker() == "o"]
    assert len(bars) == len(errors) == len(dots) == 3
    for n, (method, results) in enumerate(groups.items()):
        rows = 100 * np.array([[*r.accuracy()[-1], r.average()] for r in results])
        np.testing.assert_allclose([p.get_height() for p in bars[n]], rows.mean(axis=0))
        assert bars[n][0].get_facecolor() == to_rgba(plots.STYLE[method]["color"])
        halves = [np.ptp(s[:, 1]) / 2 for s in errors[n].lines[2][0].get_segments()]
        np.testing.assert_allclose(halves, [interval(column).half for column in rows.T])
        np.testing.assert_allclose(np.sort(dots[n].get_ydata()), np.sort(rows.ravel()))
    edges = [(p.get_x(), p.get_x() + p.get_width()) for one in bars for p in one]
    assert all(b <= c for (_, b), (c, _) in zip(sorted(edges), sorted(edges)[1:], strict=False))
    assert "95 % t-interval, n = 3" in ax.get_ylabel() and not ax.texts


def test_task_bars_mark_missing_bars_and_tell_variants_apart():
    results = made("spacenet")
    results.predictions[-1][results.labels < 2] = 5     # nothing right in the first task
    ax = plots.plot_task_bars({"spacenet": results, "static": made("static"), "er": made()})
    bars, errors = bar_rows(ax)
    assert [t.get_text() for t in ax.texts] == ["0"] and not errors
    assert ax.texts[0].xy == (pytest.approx(bars[0][0].get_x() + bars[0][0].get_width() / 2), 0)
    assert [c[0].get_hatch() for c in bars] == [None, "////", None]
    assert bars[0][0].get_edgecolor() == bars[1][0].get_edgecolor() != bars[2][0].get_edgecolor()
    assert "single seed, n = 1" in ax.get_ylabel()
    assert [t.get_text() for t in ax.get_legend().get_texts()] == ["SpaceNet", "SpaceNet (static)", "ER"]


def test_ablation_draws_means_intervals_and_the_baseline():
    results = seeds()
    variants = {"whole": [0.7, 0.75, 0.8], "without": results, "once": 0 * np.ones(1)}
    ax = plots.plot_ablation(variants, baseline="whole")
    both = [interval(v) for v in ([0.7, 0.75, 0.8], [r.average() for r in results], [0.0])]
    means = [one for one in ax.get_lines() if one.get_marker() == "o" and one.get_markersize() == 7]
    assert [(one.get_xdata()[0], one.get_ydata()[0]) for one in means] == [
        (pytest.approx(100 * i.mean), n) for n, i in enumerate(both)
    ]
    bars = [c.lines[2][0].get_segments()[0] for c in bar_rows(ax)[1]]
    assert [np.ptp(s[:, 0]) / 2 for s in bars] == pytest.approx([100 * i.half for i in both[:2]])
    band = ax.patches[0].get_x(), ax.patches[0].get_x() + ax.patches[0].get_width()
    assert band == pytest.approx((75 - 100 * both[0].half, 75 + 100 * both[0].half))
    assert line(ax, "whole: mean and interval, n = 3").get_xdata() == pytest.approx([75, 75])
    assert [t.get_text() for t in ax.texts] == [
        "75.0 (n = 3)", f"{100 * both[1].mean:.1f} (n = 3)", "0.0 (n = 1)"
    ]
    assert [t.get_text() for t in ax.get_yticklabels()] == list(variants) and ax.yaxis_inverted()
    assert stamp_of(ax.figure).get_text().startswith("split-digits")


def test_ablation_of_numbers_has_no_stamp_and_any_baseline():
    ax = plots.plot_ablation({"a": [0.5], "b": [0.25]}, baseline=[0.4])
    assert stamp_of(ax.figure) is None and [t.get_text() for t in ax.texts] == ["50.0", "25.0"]
    assert line(ax, "baseline, n = 1").get_xdata() == pytest.approx([40, 40]) and not ax.patches
    assert plots.plot_ablation({"a": made()}).get_legend() is None


# ---- sparse networks

def test_connections_are_black_squares():
    mask = np.random.default_rng(0).random((6, 9)) < 0.4
    ax = plots.plot_connections(mask)
    image = ax.images[0]
    assert np.array_equal(image.get_array(), mask)
    assert [image.cmap(image.norm(v))[:3] for v in (0, 1)] == [(1, 1, 1), (0, 0, 0)]
    assert image.get_extent() == [0.5, 9.5, 6.5, 0.5]               # the first row on top, counted from 1
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("source neurons (9)", "target neurons (6)")
    assert ax.get_title() == f"{mask.sum()} connections" and ax.get_aspect() == 1
    wide = plots.plot_connections(np.eye(2, 1000), title="last layer")
    assert wide.get_title() == "last layer" and wide.get_aspect() == "auto"
    assert wide.get_xlabel() == "source neurons (1,000)"
    assert plots.plot_connections(np.ones((1, 1))).get_title() == "1 connection"


@pytest.mark.parametrize("shape", [(400, 400), (80, 784)])
def test_no_connection_is_lost_where_neurons_outnumber_dots(shape):
    inked = []
    for row, column in np.random.default_rng(0).integers(0, shape, (12, 2)):
        mask = np.zeros(shape, dtype=bool)
        mask[row, column] = True
        figure, ax = plt.subplots(figsize=(2, 2), dpi=72)
        plots.plot_connections(mask, ax=ax)
        ax.set_axis_off()
        ax.set_title("")
        figure.canvas.draw()
        inked.append(np.asarray(figure.canvas.buffer_rgba())[..., 0].min() < 255)
    assert all(inked)


def test_input_map_is_drawn_from_zero():
    counts = np.random.default_rng(0).integers(3, 20, (5, 4))
    ax = plots.plot_input_map(counts, title="task 1")
    assert np.array_equal(ax.images[0].get_array(), counts) and ax.get_title() == "task 1"
    assert ax.images[0].get_clim() == (0, counts.max())
    assert ax.images[0].colorbar.ax.get_ylabel() == "connections of a pixel"
    fixed = plots.plot_input_map(counts, vmax=48, colorbar=False)
    assert fixed.images[0].get_clim() == (0, 48) and fixed.images[0].colorbar is None
    assert plots.plot_input_map(np.zeros((2, 2))).images[0].get_clim() == (0, 1)


def test_activations_are_parted_by_class():
    values = np.random.default_rng(0).random((10, 7)).astype(np.float16)
    ax = plots.plot_activations(values, 4, names=("zero", "one"))
    assert np.array_equal(ax.images[0].get_array(), values)
    assert ax.images[0].get_clim() == (0, values.max()) and ax.images[0].get_extent() == [0.5, 7.5, 10, 0]
    assert list(ax.get_lines()[0].get_ydata()) == [4, 4]
    assert list(ax.get_yticks()) == [2, 7]
    assert [t.get_text() for t in ax.get_yticklabels()] == ["zero\n(4 images)", "one\n(6 images)"]
    assert ax.get_xlabel() == "neurons (7)" and ax.images[0].colorbar.ax.get_ylabel() == "activation"
    assert plots.plot_activations(values, 4, vmax=3).images[0].get_clim() == (0, 3)


@pytest.mark.parametrize("plot", [
    lambda ax: plots.plot_connections(np.eye(3), ax=ax), lambda ax: plots.plot_input_map(np.eye(3), ax=ax),
    lambda ax: plots.plot_activations(np.eye(3), 1, ax=ax),
    lambda ax: plots.plot_ablation({"a": seeds()}, baseline="a", ax=ax)])
def test_plots_of_arrays_draw_on_given_axes_and_change_no_global(plot):
    before = dict(matplotlib.rcParams)
    figure, ax = plt.subplots()
    assert plot(ax) is ax and len(plt.get_fignums()) == 1 and stamp_of(figure) is None
    alone = plot(None)
    assert alone.figure is not figure and dict(matplotlib.rcParams) == before
    alone.figure.canvas.draw()


@pytest.mark.parametrize("call, says", [
    (lambda: plots.plot_connections(np.ones(3)), r"shape \(targets, sources\), not \(3,\)"),
    (lambda: plots.plot_connections(np.ones((0, 3))), r"not \(0, 3\)"),
    (lambda: plots.plot_input_map(np.ones((1, 3, 3))), r"shape \(H, W\), not \(1, 3, 3\)"),
    (lambda: plots.plot_activations(np.ones((3, 3)), 3), r"between two images: not \(3, 3\) and 3"),
    (lambda: plots.plot_activations(np.ones((3, 3)), 0), "and 0"),
    (lambda: plots.plot_sizes(several(), {"er": {"parameters": 1}}), "no entry for finetune, joint"),
    (lambda: plots.plot_sizes(made(), {"er": {"parameters": 0}}), "at least 1 parameter"),
    (lambda: plots.plot_sizes([]), "there are no results to plot"),
    (lambda: plots.plot_task_bars([made(), made("lwf", sizes=(3, 3))]), "different tasks"),
    (lambda: plots.plot_ablation({}), "there are no variants"),
    (lambda: plots.plot_ablation({"a": []}), "'a' must have one accuracy or more"),
    (lambda: plots.plot_ablation({"a": [73.6]}), r"as fractions in \[0, 1\]"),
    (lambda: plots.plot_ablation({"a": [0.5]}, baseline="b"), "no variant 'b' to be the baseline"),
])
def test_refusals_of_plots_of_arrays(call, says):
    with pytest.raises(plots.PlotError, match=says):
        call()


# ---- recall, and learning online

BATCHES, STEPS, RECALLED = (4, 4, 3), 3, 5             # batches a task, steps of a descent, images of a batch


def online(method="arm", seed=0, *, lag=None, batches=BATCHES, side=8, counts=None, **options):
    """A Result with the trace tables of ARM: random numbers of the right shapes."""
    result = made(method, seed, **options)
    random, K, T = np.random.default_rng([seed, 7]), sum(result.sizes), result.tasks
    task = np.repeat(np.arange(T), batches)
    step = np.concatenate([np.arange(b) for b in batches])
    rows = np.flatnonzero(step % 2 == 0)
    output = random.dirichlet(np.ones(K), len(task)).astype(np.float32)
    output[task == 0] = np.nan
    result.about["config"] = {"lag": lag, "recall": "arm", "divergence_weight": 2.0, "local_old": 1.0,
                              "local_new": 0.1, "diversity": 16.0, "sharpness": 0.0, "size": 1.0,
                              "variation": 1.0, "target": 1.0, "statistics": 0.0}
    terms = {t: random.random((len(task), STEPS)).astype(np.float32) for t in plots.TERMS}
    terms["target"][:] = terms["statistics"][:] = 0
    for values in terms.values():
        values[task == 0] = np.nan
    n = [0 if t == 0 else RECALLED for t in task[rows]]
    result.trace = {
        "loss": {"task": task, "step": step, "loss": random.random(len(task))},
        "progress": {"task": task[rows], "step": step[rows], "accuracy": random.random((len(rows), T))},
        "recall": {"task": task, "step": step, "output": output},
        "objective": {"task": task, "step": step, **terms},
        "images": {"task": task[rows], "step": step[rows],
                   "start": [random.random((k, 1, side, side)) for k in n],
                   "recalled": [random.normal(size=(k, 1, side, side)) for k in n],
                   "origins": [random.integers(0, K, k) for k in n],
                   "counts": [np.ones(k) if counts is None else np.array(counts[:k]) for k in n],
                   "answers": [random.dirichlet(np.ones(K), k) for k in n]},
        "gradients": cosines(random)}
    return result


def cosines(random, groups=("FC1", "FC2", "All")):
    rows = [(condition, which, group) for condition in ("hard", "soft") for which in ("class 1", "class 2")
            for group in groups]
    columns = {name: np.array(column) for name, column in zip(("condition", "which", "group"), zip(*rows))}
    return columns | {"mean": random.random(len(rows)), "deviation": random.random(len(rows)),
                      "values": np.array([600 if g == "All" else 200 for *_, g in rows]),
                      "left_out": np.zeros(len(rows), int)}


def several_online(n=3, **options):
    return [online(seed=seed, **options) for seed in range(n)]


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
    np.testing.assert_array_equal([one.get_color() for one in strips],
                                  [line(ax, str(j)).get_color() for j in (1, 2, 3)])
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


def test_recall_map_has_a_column_a_batch_and_an_empty_corner():
    results = several_online()
    ax = plots.plot_recall_map(results)
    image = ax.images[0]
    wanted = 100 * np.mean([r.trace["recall"]["output"] for r in results], axis=0).T
    drawn = np.ma.filled(image.get_array(), np.nan)
    np.testing.assert_allclose(drawn, wanted, rtol=1e-5)
    assert drawn.shape == (6, 11) and np.isnan(drawn[:, :4]).all() and not np.isnan(drawn[:, 4:]).any()
    assert image.get_extent() == [0, 11, 5.5, -0.5]     # class 0 on top, as in the paper
    assert image.get_clim() == (0, pytest.approx(np.nanmax(wanted)))
    assert image.get_cmap().name == plots.SEQUENTIAL
    starts = [one.get_xdata()[0] for one in ax.get_lines() if len(one.get_xdata()) == 2 and
              one.get_xdata()[0] == one.get_xdata()[1] and one.get_color() == "white"]
    assert starts == [4, 8]
    stairs = next(one for one in ax.get_lines() if one.get_drawstyle() == "steps-post")
    assert list(stairs.get_xdata()) == [4, 8, 11] and list(stairs.get_ydata()) == [1.5, 3.5, 3.5]
    assert [t.get_text() for t in ax.get_yticklabels()] == [f"c{k}" for k in range(6)]
    assert "mean of 3 seeds" in ax.figure.axes[1].get_ylabel() and ax.get_ylabel() == "class"


def test_recall_map_takes_a_scale_and_has_no_stairs_where_the_old_network_is_newer():
    ax = plots.plot_recall_map(online(lag=1), vmax=80, colorbar=False, title="unit lag")
    assert ax.images[0].get_clim() == (0, 80) and len(ax.figure.axes) == 1 and ax.get_title() == "unit lag"
    assert not [one for one in ax.get_lines() if one.get_drawstyle() == "steps-post"]


def test_sweep_stars_the_best_of_each_row():
    few = [[0.3, 0.5], [0.2, 0.4], [0.7, 0.5]]
    ax = plots.plot_sweep({"arm": dict(zip((1, 0.25, 16), few)), "mine": {4: [0.5, 0.7]}}, "weight")
    drawn = ax.containers[0].lines[0]
    assert list(drawn.get_xdata()) == [0.25, 1, 16] and ax.get_xscale() == "log"
    np.testing.assert_allclose(drawn.get_ydata(), [30, 40, 60])
    low, high = ax.containers[0].lines[2][0].get_segments()[1][:, 1]
    assert (high - low) / 2 == pytest.approx(100 * interval([0.3, 0.5]).half)
    stars = [(one.get_xdata()[0], one.get_ydata()[0]) for one in ax.get_lines()
             if one.get_marker() == "*" and len(one.get_xdata())]
    np.testing.assert_allclose(stars, [(16, 60), (4, 60)])
    assert [t.get_text() for t in ax.get_xticklabels()] == ["0.25", "1", "4", "16"]
    assert ax.get_xlabel() == "weight (log scale)" and "95 % t-interval, n = 2" in ax.get_ylabel()
    assert stamp_of(ax.figure) is None
    mixed = plots.plot_sweep({"arm": {1: made("arm"), 2: several_online(2)}})
    assert "n = 1 to 2" in mixed.get_ylabel() and stamp_of(mixed.figure) is not None
    assert "single seed" in plots.plot_sweep({"arm": {1: [0.5]}}).get_ylabel()


def test_recalled_images_stand_above_their_origins_with_their_true_range():
    result = online(counts=[1, 2, 0, 1, 1])
    result.trace["images"]["origins"][3][1] = -1
    ax = plots.plot_recalled([made("arm"), result], 1, 1, n=3)      # the first that has images
    found = {c: result.trace["images"][c][3] for c in ("start", "recalled", "answers", "origins")}
    board, x, texts = ax.images[0].get_array(), found["recalled"][1, 0], [t.get_text() for t in ax.texts]
    one = (x - x.min()) / (x.max() - x.min())
    assert any(np.allclose(board[y:y + 8, 9:17, 0], one) for y in range(10))
    height = next(y for y in range(10) if np.allclose(board[y:y + 8, 9:17, 0], one))
    below = board[-8:, 9:17]                            # two rows: the second ends the board
    np.testing.assert_allclose(below, np.repeat(found["start"][1, 0][..., None], 3, axis=2))
    assert height < board.shape[0] - 8
    p = found["answers"][1]
    said = f"c{p.argmax()} ({100 * p.max():.0f} %)\n{x.min():.1f} to {x.max():.1f}"
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
    assert texts[0] == "automobile\n(100 %)\n0.0 to 2.0"            # a long name has a line of its own
    assert texts[-1] == "change\n(blue −2.0,\nred +2.0)"
    flat = plots.plot_pairs(starts, starts, np.eye(2), [0, 1], change=True).images[0].get_array()
    assert np.isfinite(flat).all()


def test_outputs_are_bars_a_network():
    ax = plots.plot_outputs({"old": [0.2, 0.8], "new": [0.5, 0.5]}, names=["a", "b"])
    assert [p.get_height() for p in ax.patches] == pytest.approx([20, 80, 50, 50])
    assert [p.get_hatch() for p in ax.patches] == [None, None, "////", "////"]
    assert [t.get_text() for t in ax.get_legend().get_texts()] == ["old", "new"]
    many = np.linspace(1, 2, 30) / 45
    ax = plots.plot_outputs({"old": many}, most=3)
    assert [t.get_text() for t in ax.get_xticklabels()] == ["27", "28", "29"]


def printed(metric, value, spread=0.25):
    return Published("arm", "Table 10", "13", "mnist-5k-5", "arm", metric, value, spread, "not stated", 1000,
                     "1", "", f"{value}")


def test_gradients_draws_means_deviations_and_what_is_printed():
    results = several_online()
    said = [printed(f"gradient correlation, {condition} targets, {layer}, class {k}", k / 4)
            for condition in ("hard", "soft") for layer in ("FC 1", "all") for k in (1, 2)]
    ax = plots.plot_gradients(results, "soft", said)
    means = np.array([r.trace["gradients"]["mean"] for r in results])[:, 6:]        # the second half is soft
    deviations = np.array([r.trace["gradients"]["deviation"] for r in results])[:, 6:]
    for k, label in enumerate(("1: as it began", "2: as recalled")):
        own = slice(3 * k, 3 * k + 3)
        np.testing.assert_allclose(line(ax, label).get_ydata(), means[:, own].mean(axis=0))
        bars = [c.lines[2][0].get_segments() for c in ax.containers[:][4 * k:4 * k + 2]]
        spread = np.sqrt(np.mean(deviations[:, own] ** 2 + means[:, own] ** 2, axis=0)
                         - means[:, own].mean(axis=0) ** 2)         # of all values, were they pooled
        np.testing.assert_allclose([(b[1, 1] - b[0, 1]) / 2 for b in bars[0]], spread)
        np.testing.assert_allclose([(b[1, 1] - b[0, 1]) / 2 for b in bars[1]],
                                   [interval(column).half for column in means[:, own].T])
    hollow = [one for one in ax.get_lines() if one.get_markerfacecolor() == "white" and len(one.get_xdata())]
    assert sorted((round(one.get_xdata()[0]), one.get_ydata()[0]) for one in hollow) == [
        (0, 0.25), (0, 0.5), (2, 0.25), (2, 0.5)]
    assert [t.get_text() for t in ax.get_xticklabels()] == ["FC1\n(200)", "FC2\n(200)", "All\n(600)"]
    assert "n = 3" in ax.get_legend().get_title().get_text() and "± 1 SD" in ax.get_ylabel()
    assert ax.get_title() == "ARM, soft targets"
    alone = plots.plot_gradients(results[0])
    assert "single seed" in alone.get_legend().get_title().get_text() and len(alone.containers) == 2


def test_objective_draws_how_each_term_moves_and_with_which_sign():
    result = online()
    ax = plots.plot_objective(result, 1)
    table = {t: np.asarray(v)[4:8].mean(axis=0) for t, v in result.trace["objective"].items()}
    signs = {"divergence": -2.0, "local_old": 1.0, "local_new": 0.1, "diversity": 16.0, "size": 1.0,
             "variation": 1.0}                          # no weight on sharpness, and the others are of ADI
    total = sum(weight * table[t] for t, weight in signs.items())
    drawn = {one.get_label().partition("  ")[2]: one for one in ax.get_lines() if "  " in one.get_label()}
    assert list(drawn) == ["sum, minimised", *(plots.TERMS[t][0] for t in signs)]
    np.testing.assert_allclose(drawn["sum, minimised"].get_ydata(), total - total[0], atol=1e-6)
    for t, weight in signs.items():
        np.testing.assert_allclose(drawn[plots.TERMS[t][0]].get_ydata(), weight * (table[t] - table[t][0]),
                                   atol=1e-6)
        assert list(drawn[plots.TERMS[t][0]].get_xdata()) == [0, 1, 2]
    assert drawn["diversity"].get_label().startswith(f"+{16 * table['diversity'][0]:.2f}")
    assert drawn["divergence of the networks"].get_label().startswith(f"−{2 * table['divergence'][0]:.2f}")
    assert ax.get_title() == "ARM, task 2, mean of 4 batches"
    one = plots.plot_objective(result, -1, 2)
    own = np.asarray(result.trace["objective"]["size"])[10]
    drawn = next(x for x in one.get_lines() if x.get_label().endswith("  size"))
    np.testing.assert_allclose(drawn.get_ydata(), own - own[0])
    assert one.get_title() == "ARM, task 3, batch 3"


def test_terms_are_those_of_the_method_and_none_looks_like_another():
    from clkit.methods import arm
    assert tuple(plots.TERMS) == arm.TERMS
    looks = [look[1:4] for look in plots.TERMS.values()]
    assert len(set(looks)) == len(looks)
    ax = plots.plot_terms({"size": np.array([1.0, 2.0])}, at=1)
    assert [one.get_xdata() for one in ax.get_lines() if one.get_linestyle() == ":"] == [[1, 1]]


def test_losses_of_batches_are_not_called_epochs():
    assert plots.plot_loss(online()).get_xlabel() == "batches, tasks one after another"
    assert plots.plot_loss(made()).get_xlabel() == "epochs, tasks one after another"


def test_forgetting_of_variants_leaves_an_empty_row_where_there_is_none():
    ax = plots.plot_ablation({"own": seeds(), "all at once": seeds("joint", joint=True)}, score="forgetting",
                             baseline="own")
    texts = [t.get_text() for t in ax.texts]
    assert texts == [f"{100 * np.mean([r.forgetting() for r in seeds()]):.1f}", "–"]
    assert ax.get_xlabel().startswith("forgetting (percentage points)")
    assert plots.plot_ablation({"a": [-0.1]}, score="forgetting").texts[0].get_text() == "-10.0"


def without(table):
    result = online()
    del result.trace[table]
    return result


@pytest.mark.parametrize("call, says", [
    (lambda: plots.plot_progress(made("arm")), "no trace progress/task"),
    (lambda: plots.plot_progress(without("loss")), r"no trace loss/task .* keep=\('loss',\)"),
    (lambda: plots.plot_progress([online(), online(batches=(4, 4, 4))]), "2 seeds differ in the number of"),
    (lambda: plots.plot_progress([online(), online(batches=(3, 4, 4))]), "2 seeds differ in the batches"),
    (lambda: plots.plot_progress(online(), online(sizes=(3, 3), batches=(4, 4))), "other tasks than"),
    (lambda: plots.plot_progress([online(), online("adi")]), "shows one method, not 2"),
    (lambda: plots.plot_recall_map(without("recall")), "no trace recall/output"),
    (lambda: plots.plot_recall_map(online(sizes=(6,), batches=(4,))), "nothing was recalled in these runs"),
    (lambda: plots.plot_sweep({}), "there is nothing to plot"),
    (lambda: plots.plot_sweep({"arm": {}}), "there is nothing to plot"),
    (lambda: plots.plot_sweep({"arm": {0: [0.5]}}), "a log scale has no place for 0"),
    (lambda: plots.plot_sweep({"arm": {1: [50]}}, "weight"), "'arm, weight 1' must have one accuracy"),
    (lambda: plots.plot_recalled(without("images")), "no trace images/task"),
    (lambda: plots.plot_recalled(online(), 3), "3 tasks, numbered from 0: there is no task 3"),
    (lambda: plots.plot_recalled(online(), 1, 2), "task 2 has 2 rows of images, .* no row 2"),
    (lambda: plots.plot_recalled(online(), 0), "nothing was recalled in task 1: recall begins with task 2"),
    (lambda: plots.plot_outputs({}), "with one network or more"),
    (lambda: plots.plot_gradients(without("gradients")), "no trace gradients/condition"),
    (lambda: plots.plot_gradients(online(), "easy"), "no condition 'easy' .* there are hard, soft"),
    (lambda: plots.plot_gradients(online(), "hard", [printed("other", 1)]), "none of the published"),
    (lambda: plots.plot_objective(without("objective")), "no trace objective/task"),
    (lambda: plots.plot_objective(online(), -4), "there is no task -4"),
    (lambda: plots.plot_objective(online(), 2, 3), "task 3 has 3 batches, .* there is no batch 3"),
    (lambda: plots.plot_objective(online(), 0), "nothing was recalled in task 1"),
    (lambda: plots.plot_terms({}), "no terms to plot"),
    (lambda: plots.plot_ablation({"a": [0.5]}, score="speed"), "the score is one of accuracy, forgetting"),
    (lambda: plots.plot_ablation({"a": [-3]}, score="forgetting"), r"fractions in \[-1, 1\]"),
])
def test_refusals_of_plots_of_recall(call, says):
    with pytest.raises(plots.PlotError, match=says):
        call()


@pytest.mark.parametrize("plot", [plots.plot_progress, plots.plot_recall_map, plots.plot_gradients,
                                  plots.plot_objective, plots.plot_recalled,
                                  lambda results, ax=None: plots.plot_sweep({"arm": {1: results}}, ax=ax)])
@pytest.mark.parametrize("n", [1, 3])
def test_plots_of_recall_draw_on_given_axes_and_change_no_global(plot, n):
    before, (figure, ax) = dict(matplotlib.rcParams), plt.subplots()
    assert plot(several_online(n), ax=ax) is ax and stamp_of(figure) is None
    alone = plot(several_online(n))
    assert alone.figure is not figure and dict(matplotlib.rcParams) == before
    assert plot is plots.plot_recalled or "seed" in stamp_of(alone.figure).get_text()
    alone.figure.canvas.draw()


# ---- the frame

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


@pytest.mark.parametrize("call, says", [
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
])
def test_refusals_are_one_clear_sentence(call, says):
    with pytest.raises(plots.PlotError, match=says):
        call()


# ---- the stamp

def test_stamp_says_what_was_run():
    text = stamp_of(plots.plot_averages(several()).figure).get_text()
    assert (
        text.replace("\n", " ")
        == "split-digits · data digits · teach preset · seeds 0-2 · clkit 0.1.0 · torch 2.13.0"
    )


@pytest.mark.parametrize("benchmark, data, preset, mark", [
    ("split-mnist", "mnist", "paper", ""), ("split-digits", "digits", "paper", ""),
    ("shapes-families", "shapes", "paper", ""), ("split-shapes", "shapes(families=4)", "teach", ""),
    ("split-mnist", "digits28", "teach", "STAND-IN DATA: digits28"),
    ("split-cifar10", "shapes(families=10)", "teach", "STAND-IN DATA: shapes(families=10)"),
    ("split-digits", "digits", "smoke", "SMOKE TEST, NOT A RESULT"),
    ("split-mnist", "digits28", "smoke", "SMOKE TEST, NOT A RESULT · STAND-IN DATA: digits28"),
])
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


# ---- the palette

COMING = """finetune joint cumulative lwf lwf-multihead er spacenet static rehearsal ewc ewc-online si mas dgr
icarl cwr cwr-plus arm adi distill naive stationary er-online er-mir icarl-online gem gen gen-mir gfr mfgr
dgma dgmw""".split()


def test_every_method_has_a_look_of_its_own():
    assert set(COMING) <= set(plots.STYLE)
    looks = [(s["color"], s["marker"], s["linestyle"]) for s in plots.STYLE.values()]
    assert len(set(looks)) == len(looks) and len({s["label"] for s in plots.STYLE.values()}) == len(looks)
    mine = plots.style("my-method")
    assert mine == plots.style("my-method") and mine["label"] == "my-method"
    assert mine["linestyle"] not in [s["linestyle"] for s in plots.STYLE.values()]
    assert plots.style("LwF") == plots.STYLE["lwf"]


# Machado, Oliveira and Fernandes (2009), table 1, severity 1.0, for linear RGB.
SIGHT = {
    "protanopia": [
        [0.152286, 1.052583, -0.204868],
        [0.114503, 0.786281, 0.099216],
        [-0.003882, -0.048116, 1.051998],
    ],
    "deuteranopia": [
        [0.367322, 0.860646, -0.227968],
        [0.280085, 0.672501, 0.047413],
        [-0.01182, 0.04294, 0.968881],
    ],
}


def lab(color, sight=None):
    """CIE L*a*b* of a colour, as seen with a colour blindness."""
    rgb = np.array(to_rgb(color))
    rgb = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    rgb = np.clip(np.array(SIGHT[sight]) @ rgb, 0, 1) if sight else rgb
    xyz = (
        np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
        @ rgb
        / [0.9505, 1, 1.089]
    )
    f = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


@pytest.mark.parametrize("sight", [None, *SIGHT])
@pytest.mark.parametrize("shown", ["finetune joint lwf lwf-multihead er",
                                   "finetune joint lwf er spacenet arm gfr mfgr dgmw"])
def test_methods_shown_together_differ_for_the_colour_blind(sight, shown):
    colors = {m: lab(plots.STYLE[m]["color"], sight) for m in shown.split()}
    assert {
        (a, b): d for a, b in combinations(colors, 2) if (d := np.linalg.norm(colors[a] - colors[b])) < 12
    } == {}
    assert all(lab("white")[0] - c[0] > 25 for c in colors.values())        # and none is lost on white


def test_maps_are_even_and_never_a_rainbow():
    assert plots.SEQUENTIAL in ("viridis", "cividis") and plots.DIVERGING == "RdBu_r"


def test_plotting_needs_no_torch():
    code = "import sys, clkit.plots; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
