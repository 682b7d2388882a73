"""Plots of MFGR: projections, scores class by class, and the course of a generator."""

import math

import matplotlib.pyplot as plt
import numpy as np
import pytest

from clkit import plots
from tests.builders import STEPS_OF_G, fine_grained


def test_coordinates_are_projections_on_vectors_of_length_1():
    weights, feature = [[2, 0], [0, 5], [3, 3], [-1, 0]], [3, 4]
    np.testing.assert_allclose(plots.coordinates(weights, feature), [3, 4, 7 / math.sqrt(2), -3])
    longer = np.array(weights) * [[1], [7], [0.1], [2]]
    np.testing.assert_allclose(plots.coordinates(longer, feature), plots.coordinates(weights, feature))
    assert plots.coordinates(weights, [0, 4])[1] != plots.coordinates(weights, feature)[0]


def test_a_feature_is_drawn_with_its_projection_on_each_class():
    ax = plots.plot_projections([[2, 0], [0, 5], [-3, 3]], [0.6, 0.8], "abc", alike=(0, 1))
    feet = [line.get_xydata()[0] for line in ax.lines if line.get_marker() == "o"]
    np.testing.assert_allclose(feet, [[0.6, 0], [0, 0.8], [-0.1, 0.1]], atol=1e-12)
    assert {text.get_text() for text in ax.texts} >= {"a", "b", "c", "new feature"}


def dots(ax):
    """{label: heights of its dots}."""
    return {c.get_label(): c.lines[0].get_ydata() for c in ax.containers}


def test_each_class_has_a_dot_for_each_model():
    rows = {"old": [[0.5, 0.25, np.nan]], "new": [[0.4, 0.2, 0.9], [0.6, 0.4, 0.7]]}
    ax = plots.plot_by_class(rows, ["x", "y", "z"], groups={"first": 2, "second": 1})
    found = dots(ax)
    np.testing.assert_allclose(found["old"], [50, 25, np.nan])
    np.testing.assert_allclose(found["new"], [50, 30, 80])
    assert [t.get_text() for t in ax.get_xticklabels()] == ["x", "y", "z"] and ax.get_ylim() == (0, 100)
    assert [t.get_text() for t in ax.texts] == ["first", "second"]
    middle = [c.lines[0].get_xdata().mean() for c in ax.containers]
    assert middle[0] < 1 < middle[1], "side by side"
    with pytest.raises(plots.PlotError, match=r"scores \(n, 2\), a column for each name, not \(1, 3\)"):
        plots.plot_by_class({"old": rows["old"]}, ["x", "y"])
    with pytest.raises(plots.PlotError, match="not none"):
        plots.plot_by_class({}, ["x"])


def test_a_term_is_drawn_for_one_task():
    seeds = [fine_grained(seed=n) for n in range(3)]  # three tasks, so two generators
    for task in (1, 2):
        steps, values = plots.recording(seeds[0], "bn", task)
        assert steps.tolist() == list(STEPS_OF_G)
        rows = seeds[0].trace["recording"]
        assert values.tolist() == rows["bn"][rows["task"] == task].tolist()
        [line] = plots.plot_recording(seeds, "bn", task=task).lines
        means = np.mean([plots.recording(r, "bn", task)[1] for r in seeds], axis=0)
        np.testing.assert_allclose(line.get_ydata(), means)
    with pytest.raises(plots.PlotError, match="no generator was recorded for task 0, from 0"):
        plots.recording(seeds[0], "bn", 0)


def test_the_course_is_that_of_one_task():
    result = fine_grained()
    steps, images, labels = plots.course(result, 2)
    assert steps.tolist() == list(STEPS_OF_G) and images.shape[:2] == labels.shape == (4, 16)
    assert not np.array_equal(images, plots.course(result, 1)[1])
    with pytest.raises(plots.PlotError, match="no images were recorded for task 3"):
        plots.course(result, 3)
    plt.close("all")


def test_a_row_of_the_fine_report_needs_the_table():
    result = fine_grained(generator=False)
    assert np.array_equal(plots.fine(result, "within", 0)[:2], result.trace["fine"]["within"][0, :2])
    del result.trace["fine"]
    with pytest.raises(plots.PlotError, match="no trace fine/accuracy"):
        plots.fine(result)
