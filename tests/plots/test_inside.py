"""Plots of similarity and maps of features: what is drawn follows from the tables and points."""

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.colors import to_rgba

from clkit import plots
from clkit.plots.inside import CLASS_LOOKS, PALE
from clkit.result import interval
from tests.builders import LAYERS, compared, line, made, stamp_of

SIZES = (2,) * 4


def groups(n=3):
    return {m: [compared(m, seed, sizes=SIZES) for seed in range(n)] for m in ("finetune", "er")}


def mean(seeds, measure, at):
    return np.mean([r.trace["similarity"][measure][at] for r in seeds], axis=0)


# ---- similarity


@pytest.mark.parametrize("measure, label", [("svcca", "SVCCA"), ("cka", "linear CKA")])
def test_the_heat_map_has_a_row_for_each_layer_and_a_column_for_each_pair(measure, label):
    seeds = groups()["er"]
    ax = plots.plot_similarity(seeds, measure)
    assert [t.get_text() for t in ax.get_xticklabels()] == ["1→2", "1→3", "1→4", "2→3", "2→4", "3→4"]
    assert [t.get_text() for t in ax.get_yticklabels()] == list(LAYERS)
    drawn = np.asarray(ax.collections[0].get_array()).reshape(3, 6)
    for n, (t, u) in enumerate([(0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3)]):
        np.testing.assert_allclose(drawn[:, n], mean(seeds, measure, (slice(None), t, u)))
    assert ax.collections[0].get_clim() == (0, 1) and ax.get_title() == "ER"
    assert [t.get_text() for t in ax.texts] == [f"{v:.2f}" for v in drawn.flat]
    assert ax.collections[0].colorbar.ax.get_ylabel() == f"{label}, mean of 3 seeds"
    assert [one.get_xdata()[0] for one in ax.get_lines()] == [3, 5] and stamp_of(ax.figure)


def test_many_pairs_have_no_numbers():
    assert not plots.plot_similarity(compared(sizes=(2,) * 8)).texts


@pytest.mark.parametrize("measure", ["svcca", "cka"])
def test_lines_by_layer_have_means_intervals_and_a_floor(measure):
    found = groups()
    ax = plots.plot_layers(found, 1, -1, measure)
    for method, label in (("finetune", "Finetune"), ("er", "ER")):
        wanted = mean(found[method], measure, (slice(None), 1, 3))
        np.testing.assert_allclose(line(ax, label).get_ydata(), wanted)
    i = interval([r.trace["similarity"][measure][0, 1, 3] for r in found["finetune"]])
    edges = ax.collections[0].get_paths()[0].vertices
    at = edges[edges[:, 0] == 0][:, 1]
    np.testing.assert_allclose([at.min(), at.max()], [i.mean - i.half, i.mean + i.half])
    labels = [one.get_label() for one in ax.get_lines()]
    assert ("chance floor" in labels) == (measure == "svcca")
    if measure == "svcca":
        every = [r for seeds in found.values() for r in seeds]
        np.testing.assert_allclose(
            line(ax, "chance floor").get_ydata(), mean(every, "floor", (slice(None), 1, 3))
        )
    assert ax.get_title() == "after task 2 and after task 4" and stamp_of(ax.figure)
    assert "n = 3" in ax.get_legend().get_title().get_text()


def test_the_course_of_a_layer_begins_at_one():
    found = groups()
    ax = plots.plot_similarity_course(found, "logits", 1)
    for method, label in (("finetune", "Finetune"), ("er", "ER")):
        x, y = line(ax, label).get_data()
        assert list(x) == [2, 3, 4] and y[0] == 1
        np.testing.assert_allclose(y, mean(found[method], "svcca", (2, 1, slice(1, None))))
    assert list(line(ax, "chance floor").get_xdata()) == [2, 3, 4]
    assert ax.get_title() == "logits, images of task 2"
    labels = [
        one.get_label() for one in plots.plot_similarity_course(found, "Conv1", measure="cka").get_lines()
    ]
    assert "chance floor" not in labels


def test_joint_training_is_left_out_and_other_layers_are_refused():
    found = groups(1)
    joint = {"joint": compared("joint", joint=True, sizes=SIZES)}
    ax = plots.plot_layers(found | joint)
    assert [one.get_label() for one in ax.get_lines()] == ["Finetune", "ER", "chance floor"]
    other = {"lwf": compared("lwf", layers=("FC1", "FC2"), sizes=SIZES)}
    for call, says in (
        (lambda: plots.plot_layers(joint), "learns two or more"),
        (lambda: plots.plot_similarity(joint), "learns two or more"),
        (lambda: plots.plot_layers(found | other), "different layers: plot one network"),
        (lambda: plots.plot_layers(found, 2, 1), "task 1 is not later than task 2"),
        (lambda: plots.plot_layers(found, -1), "task 3 is not later than task 3"),
        (lambda: plots.plot_layers(found, 0, 4), "no stage 4"),
        (
            lambda: plots.plot_layers(found, measure="cosine"),
            "no measure 'cosine' of similarity: use svcca or cka",
        ),
        (
            lambda: plots.plot_similarity_course(found, "FC1"),
            "no layer 'FC1': use one of Conv1, Conv2, logits",
        ),
        (lambda: plots.plot_similarity(found), "one method, not 2"),
        (
            lambda: plots.plot_similarity(made(sizes=SIZES)),
            r"no trace similarity/svcca .* record=\('similarity',\)",
        ),
    ):
        with pytest.raises(plots.PlotError, match=says):
            call()


# ---- maps


def points(n=30, seed=0):
    random = np.random.default_rng(seed)
    return random.normal(size=(n, 2)), np.arange(n) % 3 + 1


def test_a_map_colours_classes_and_opens_the_markers_of_the_second_set():
    sets = {"real": points(), "recalled": points(12, 1)}
    ax = plots.plot_map(sets, names=list("abcd"), title="both")
    drawn = iter(ax.collections)
    for k in (1, 2, 3):
        for said, (p, y) in sets.items():
            dots = next(drawn)
            np.testing.assert_array_equal(dots.get_offsets(), p[y == k])
            color = to_rgba(CLASS_LOOKS[k][0], 0.75)
            assert tuple(dots.get_edgecolors()[0]) == color
            assert (
                len(dots.get_facecolors()) == 0
                if said == "recalled"
                else tuple(dots.get_facecolors()[0]) == color
            )
    assert [t.get_text() for t in ax.get_legend().get_texts()] == ["b", "c", "d", "real", "recalled"]
    assert not ax.get_xticks().size and ax.get_title() == "both"
    texts = plots.plot_map({"real": points()}).get_legend().get_texts()
    assert [t.get_text() for t in texts] == ["1", "2", "3"]
    assert plots.plot_map({"real": points()}, legend=False).get_legend() is None


def test_a_marked_class_keeps_its_colour():
    ax = plots.plot_map({"real": points()}, marked=2)
    colors = [tuple(dots.get_edgecolors()[0])[:3] for dots in ax.collections]
    assert colors == [to_rgba(PALE)[:3], to_rgba(CLASS_LOOKS[2][0])[:3], to_rgba(PALE)[:3]]
    assert [t.get_text() for t in ax.get_legend().get_texts()] == ["2"]
    assert len(set(CLASS_LOOKS)) == 100  # colours, then markers


@pytest.mark.parametrize(
    "sets, says",
    [
        ({"a": (np.zeros((3, 3)), np.zeros(3))}, r"not \(3, 3\) and \(3,\)"),
        ({"a": points(), "b": (np.zeros((3, 2)), np.zeros(4))}, r"not \(3, 2\) and \(4,\)"),
        ({}, "there are 0"),
        ({name: points() for name in "abc"}, "there are 3"),
    ],
)
def test_a_map_refuses_what_is_no_map(sets, says):
    with pytest.raises(plots.PlotError, match=says):
        plots.plot_map(sets)
    assert not plt.get_fignums()
