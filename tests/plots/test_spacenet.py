"""Plots for SpaceNet: connections, input maps, activations."""

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pytest

from clkit import plots
from tests.builders import made, seeds, several, stamp_of


def test_connections_are_black_squares():
    mask = np.random.default_rng(0).random((6, 9)) < 0.4
    ax = plots.plot_connections(mask)
    image = ax.images[0]
    assert np.array_equal(image.get_array(), mask)
    assert [image.cmap(image.norm(v))[:3] for v in (0, 1)] == [(1, 1, 1), (0, 0, 0)]
    assert image.get_extent() == [0.5, 9.5, 6.5, 0.5]  # the first row on top, counted from 1
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
    assert ax.images[0].colorbar.ax.get_ylabel() == "connections per pixel"
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


@pytest.mark.parametrize(
    "plot",
    [
        lambda ax: plots.plot_connections(np.eye(3), ax=ax),
        lambda ax: plots.plot_input_map(np.eye(3), ax=ax),
        lambda ax: plots.plot_activations(np.eye(3), 1, ax=ax),
        lambda ax: plots.plot_ablation({"a": seeds()}, baseline="a", ax=ax),
    ],
)
def test_plots_of_arrays_draw_on_given_axes_and_change_no_global(plot):
    before = dict(matplotlib.rcParams)
    figure, ax = plt.subplots()
    assert plot(ax) is ax and len(plt.get_fignums()) == 1 and stamp_of(figure) is None
    alone = plot(None)
    assert alone.figure is not figure and dict(matplotlib.rcParams) == before
    alone.figure.canvas.draw()


@pytest.mark.parametrize(
    "call, says",
    [
        (lambda: plots.plot_connections(np.ones(3)), r"shape \(targets, sources\), not \(3,\)"),
        (lambda: plots.plot_connections(np.ones((0, 3))), r"not \(0, 3\)"),
        (lambda: plots.plot_input_map(np.ones((1, 3, 3))), r"shape \(H, W\), not \(1, 3, 3\)"),
        (lambda: plots.plot_activations(np.ones((3, 3)), 3), r"between two images, not \(3, 3\) and 3"),
        (lambda: plots.plot_activations(np.ones((3, 3)), 0), "and 0"),
        (lambda: plots.plot_sizes(several(), {"er": {"parameters": 1}}), "no entry for finetune, joint"),
        (lambda: plots.plot_sizes(made(), {"er": {"parameters": 0}}), "1 parameter or more"),
        (lambda: plots.plot_sizes([]), "there are no results to plot"),
        (lambda: plots.plot_task_bars([made(), made("lwf", sizes=(3, 3))]), "different tasks"),
        (lambda: plots.plot_ablation({}), "there are no variants"),
        (lambda: plots.plot_ablation({"a": []}), "'a' must have one accuracy or more"),
        (lambda: plots.plot_ablation({"a": [73.6]}), r"as fractions in \[0, 1\]"),
        (lambda: plots.plot_ablation({"a": [0.5]}, baseline="b"), "baseline 'b' is not a variant"),
    ],
)
def test_refusals_of_plots_of_arrays(call, says):
    with pytest.raises(plots.PlotError, match=says):
        call()
