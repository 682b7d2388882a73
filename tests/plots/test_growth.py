"""Plots of what is kept and how it grows: marks, lines and labels agree with the results."""

import numpy as np
import pytest
from matplotlib.colors import to_rgba

from clkit import plots
from clkit.papers.palette import MEMORY_KINDS
from clkit.result import interval
from tests.builders import line, made, seeds, stamp_of


def keeping(method="er", skill=0.6, n=2, **kinds):
    """Seeds of a method that keeps these kinds: {kind: bytes, or a list for the stages}."""
    results = seeds(method, n, skill=skill)
    for r in results:
        r.memory_bytes = {k: np.broadcast_to(v, len(r.seen)) for k, v in {"weights": 1000, **kinds}.items()}
    return results


def groups():
    """Three methods that keep nothing, masks, and two kinds, and two sizes of a memory."""
    return {
        "Finetune": keeping("finetune", 0.2, weights=2000),
        "SpaceNet": keeping("spacenet", 0.7, masks=400),
        "iCaRL": keeping("icarl", 0.9, exemplars=[3000, 5000, 8000], features=50),
        "ER, 5 images": keeping("er", 0.5, exemplars=4000),
        "ER, 9 images": keeping("er", 0.8, exemplars=70_000),
    }


@pytest.mark.parametrize(
    "count, said",
    [
        (0, "0 bytes"),
        (999, "999 bytes"),
        (1000, "1.00 kB"),
        (39_608, "39.6 kB"),
        (396_008, "396 kB"),
        (1_913_640, "1.91 MB"),
        (2.5e9, "2.50 GB"),
    ],
)
def test_bytes_are_said_with_three_digits(count, said):
    assert plots.said_bytes(count) == said


def test_what_is_kept_beside_the_weights():
    result = keeping(exemplars=[3000, 5000, 8000], masks=0, importance=7)[0]
    assert plots.kinds_kept(result) == {"weights": 1000, "exemplars": 8000, "importance": 7}
    assert plots.beside_weights(result) == 8007 and plots.beside_weights(result, 0) == 3007


@pytest.mark.parametrize("plot", [plots.plot_kept, plots.plot_parts, plots.plot_memory])
def test_teachers_and_other_old_weights_are_called_old_copies(plot):
    (r,) = keeping(n=1, teachers=[3000, 5000, 8000])
    ax = plot(r)
    names = [t.get_text() for t in ax.get_legend().get_texts()]
    assert names[:2] == ["weights", "old copies"] and "teachers" not in names
    assert plots.kinds_kept(r) == {"weights": 1000, "old copies": 8000}
    drawn = [c.patches[0].get_facecolor() for c in ax.containers] or [one.get_color() for one in ax.lines]
    assert to_rgba(MEMORY_KINDS["old copies"]) in map(to_rgba, drawn)


def test_each_kind_has_a_mark_at_its_bytes_in_the_row_of_its_method():
    ax = plots.plot_kept(groups(), 28)
    assert [t.get_text() for t in ax.get_yticklabels()] == list(groups())
    marks = {
        name: list(zip(*map(list, line(ax, name).get_data()))) for name in ("exemplars", "masks", "features")
    }
    assert marks == {
        "exemplars": [(8000, 2), (4000, 3), (70_000, 4)],
        "masks": [(400, 1)],
        "features": [(50, 2)],
    }
    assert line(ax, "masks").get_color() == MEMORY_KINDS["masks"]
    assert line(ax, "weights").get_markerfacecolor() == "white"
    sums = line(ax, "all beside the weights").get_data()
    np.testing.assert_array_equal(sums, [[400, 8050, 4000, 70_000], [1, 2, 3, 4]])
    assert [t.get_text() for t in ax.texts] == ["nothing beside the weights"] and ax.texts[0].get_position()[
        1
    ] == 0
    assert ax.get_xscale() == "log" and ax.get_xlim()[0] < 50 and ax.get_xlim()[1] > 70_000
    (upper,) = ax.child_axes
    assert upper.get_xlabel() == "as many raw images of 28 bytes" and stamp_of(ax.figure)
    ax.figure.draw_without_rendering()
    np.testing.assert_allclose(np.array(ax.get_xlim()) / 28, upper.get_xlim())


def test_a_kind_without_a_colour_is_drawn_last():
    ax = plots.plot_kept({"a": keeping(other=500, exemplars=20)})
    names = [one.get_label() for one in ax.get_lines() if not one.get_label().startswith("_")]
    assert names == ["weights", "exemplars", "other", "all beside the weights"] and not ax.child_axes


def legend(ax):
    return [t.get_text() for t in ax.get_legend().get_texts()]


def test_methods_within_the_budget_are_listed_by_accuracy_and_the_others_are_grey():
    found = groups()
    ax = plots.plot_budget(found, 8050, 28, references={"Joint": seeds("joint", joint=True)})
    means = {label: 100 * np.mean([r.average() for r in s]) for label, s in found.items()}
    inside = sorted(set(found) - {"ER, 9 images"}, key=means.get, reverse=True)
    assert legend(ax) == [f"{label}: {means[label]:.1f}" for label in inside]
    marks = {float(one.get_ydata()[0]): one for one in ax.get_lines() if one.get_markersize() == 8}
    for label, seeds_ in found.items():
        mark = marks[means[label]]
        assert (mark.get_markerfacecolor() != "white") == (label in inside)
        if plots.beside_weights(seeds_[0]):
            assert mark.get_xdata()[0] == plots.beside_weights(seeds_[0])
    zero = marks[means["Finetune"]].get_xdata()[0]
    assert 0 < zero < 400 and ax.get_xticks()[0] == zero and ax.get_xticklabels()[0].get_text() == "0"
    half = 100 * interval([r.average() for r in found["iCaRL"]]).half
    bars = {round(float(c.lines[0].get_ydata()[0]), 6): c for c in ax.containers}
    low, high = bars[round(means["iCaRL"], 6)].lines[2][0].get_segments()[0][:, 1]
    assert (high - low) / 2 == pytest.approx(half)
    assert "Joint" in [t.get_text() for t in ax.texts]


def test_sizes_of_one_memory_are_joined_and_no_budget_admits_all():
    ax = plots.plot_budget(groups())
    joined = [list(one.get_xdata()) for one in ax.get_lines() if len(one.get_xdata()) == 2]
    assert [4000, 70_000] in joined and len(legend(ax)) == 5
    assert ax.get_legend().get_title().get_text().startswith("within the budget\n")


def test_the_legend_of_a_budget_names_a_dozen():
    many = {f"m{n}": keeping("er", exemplars=100 + n) for n in range(14)}
    ax = plots.plot_budget(many)
    assert len(legend(ax)) == 12 and "2 more" in ax.get_legend().get_title().get_text()


def test_bytes_over_tasks_leave_out_those_that_keep_nothing_or_have_one_stage():
    found = groups() | {"Joint": seeds("joint", joint=True)}
    ax = plots.plot_kept_over_tasks(found, 10)
    drawn = {one.get_label(): list(one.get_ydata()) for one in ax.get_lines()}
    assert drawn == {
        "SpaceNet": [400] * 3,
        "iCaRL": [3050, 5050, 8050],
        "ER, 5 images": [4000] * 3,
        "ER, 9 images": [70_000] * 3,
    }
    said = [" ".join(t.get_text().split()) for t in ax.texts]
    assert said[0] == "ER, 9 images: 70.0 kB (7,000 images)" and said[1].startswith("iCaRL: 8.05 kB (805")
    with pytest.raises(plots.PlotError, match="keep nothing beside the weights"):
        plots.plot_kept_over_tasks({"a": keeping()})


def test_methods_that_end_close_together_share_a_label():
    found = {"a": keeping(exemplars=1000), "b": keeping(exemplars=1300), "c": keeping(exemplars=1400)}
    said = [" ".join(t.get_text().split()) for t in plots.plot_kept_over_tasks(found, 10).texts]
    assert said == ["c · b: 1.30 kB to 1.40 kB (130 to 140 images)", "a: 1.00 kB (100 images)"]


def test_parameters_are_multiples_of_the_first_and_constant_ones_share_a_line():
    growing, same = seeds("er", 2), {"a": seeds("lwf"), "b": seeds("finetune")}
    for n, r in enumerate(growing):
        r.parameters = np.array([10, 20, 40 + 20 * n])
    ax = plots.plot_parameters({"grows": growing, **same})
    np.testing.assert_allclose(line(ax, "grows").get_ydata(), [1, 2, 5])
    np.testing.assert_array_equal(line(ax, "constant:\na\nb").get_ydata(), [1, 1, 1])
    with pytest.raises(plots.PlotError, match="two learning stages"):
        plots.plot_parameters({"joint": seeds("joint", joint=True)})


def test_parts_are_stacked_by_kind_and_compared_with_raw_images():
    (r,) = keeping(n=1, exemplars=[3000, 5000, 8000], masks=500)
    ax = plots.plot_parts(r, raw=[1000, 2000, 3000])
    bars = {c.get_label(): [(b.get_y(), b.get_height()) for b in c] for c in ax.containers}
    assert list(bars) == ["weights", "masks", "exemplars"]
    assert bars["exemplars"] == [(1.5, 3), (1.5, 5), (1.5, 8)] and bars["masks"] == [(1, 0.5)] * 3
    np.testing.assert_array_equal(line(ax, "all training\nimages so far, raw").get_ydata(), [1, 2, 3])


def test_shares_are_drawn_in_percent_from_the_first_number():
    ax = plots.plot_shares({"task 1": [0.5, 1.0], "task 2": [0.25, 0.5, 1]}, first=1)
    assert list(line(ax, "task 1").get_xdata()) == [1, 2]
    assert list(line(ax, "task 2").get_ydata()) == [25, 50, 100] and list(ax.get_xticks()) == [1, 2, 3]
    looks = {"er": plots.style("er")}
    assert line(plots.plot_shares({"er": [0.5]}, looks=looks), "er").get_marker() == "s"
    for nothing in ({}, {"a": []}):
        with pytest.raises(plots.PlotError, match="no shares to plot"):
            plots.plot_shares(nothing)


def test_results_that_keep_nothing_have_no_axis_of_bytes():
    empty = made()
    empty.memory_bytes = {}
    for plot in (plots.plot_kept, plots.plot_budget):
        with pytest.raises(plots.PlotError, match="no bytes to plot"):
            plot({"a": [empty]})


def test_an_index_is_as_long_as_a_bit_at_one_place_in_32():
    ax = plots.plot_formats({"sparse": [0.01, 1 / 32], "dense": 0.5})
    bits, indices = (line(ax, name) for name in ("packed bits", "int32 indices"))
    longer = indices.get_ydata() > bits.get_ydata()
    np.testing.assert_array_equal(longer, indices.get_xdata() > 100 / 32)
    np.testing.assert_allclose(line(ax, "sparse").get_data(), [[1, 3.125], [0.32, 1]])
    np.testing.assert_allclose(line(ax, "dense").get_data(), [[50], [1]])
    assert line(ax, "sparse tensor, 4 axes").get_ydata()[-1] == 288
    for wrong in (0, 1.1, float("nan")):
        with pytest.raises(plots.PlotError, match="unlike those of 'x'"):
            plots.plot_formats({"x": [0.5, wrong]})
