"""Bars and dots: their lengths, intervals and labels agree with the results."""

import numpy as np
import pytest
from matplotlib.colors import to_rgba

from clkit import plots
from clkit.analysis import confusion
from clkit.result import interval
from tests.builders import line, made, seeds, several, stamp_of


def test_forgetting_draws_one_bar_a_method_but_joint():
    groups = several()
    ax = plots.plot_forgetting(groups)
    assert [t.get_text() for t in ax.get_xticklabels()] == ["Finetune", "ER"]
    for bar, method in zip(ax.patches, ("finetune", "er")):
        assert bar.get_height() == pytest.approx(100 * np.mean([r.forgetting() for r in groups[method]]))
        assert bar.get_facecolor() == to_rgba(plots.style(method)["color"])
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
    wanted = [
        100 * np.mean([score(r) for r in rs])
        for rs in groups.values()
        for score in (lambda r: r.average(), lambda r: r.task_aware_average())
    ]
    np.testing.assert_allclose(heights, wanted)
    assert [p.get_hatch() for p in ax.patches] == [None, "///"] * 3


def test_memory_stacks_megabytes():
    ax = plots.plot_memory({"er": seeds(), "finetune": seeds("finetune")})
    widths = {c.get_label(): [p.get_width() for p in c] for c in ax.containers}
    assert widths == {"weights": [2.0, 2.0], "exemplars": [1.5, 1.5]}
    assert [t.get_text() for t in ax.texts] == ["3.50", "3.50"]
    first = plots.plot_memory(seeds(), 0)
    assert [p.get_width() for p in first.containers[1]] == [0.5]


def test_families_and_siblings():
    result = made(groups=["a", "a", "b", "b", "c", "c"])
    right, sibling, other = 0, 0, 0
    for label, p in zip(result.labels, result.predictions[-1]):
        right, sibling, other = (
            right + (p == label),
            sibling + (p != label and p // 2 == label // 2),
            other + (p // 2 != label // 2),
        )
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
    """(bars by method in drawing order, error bars likewise)."""
    return (
        [c for c in ax.containers if type(c).__name__ == "BarContainer"],
        [c for c in ax.containers if type(c).__name__ == "ErrorbarContainer"],
    )


def test_sizes_stack_what_is_kept_on_the_parameters():
    groups = {"er": seeds(), "spacenet": seeds("spacenet")}
    sizes = {"spacenet": {"parameters": 59_410, "extra": 0}, "er": {"parameters": 478_410, "extra": 392_000}}
    ax = plots.plot_sizes(groups, sizes)
    assert ax.get_xscale() == "log" and "log scale" in ax.get_xlabel()
    assert [t.get_text() for t in ax.get_yticklabels()] == ["ER", "SpaceNet"]
    solid = [p for p in ax.patches if not p.get_hatch()]
    hatched = [p for p in ax.patches if p.get_hatch()]
    assert [p.get_x() + p.get_width() for p in solid] == [478_410, 59_410] and len(hatched) == 1
    assert [p.get_facecolor() for p in solid] == [to_rgba(plots.style(m)["color"]) for m in groups]
    assert (hatched[0].get_x(), hatched[0].get_x() + hatched[0].get_width()) == (478_410, 870_410)
    assert [t.get_text() for t in ax.texts] == ["478,410 + 392,000", "59,410"]
    assert [t.get_text() for t in ax.get_legend().get_texts()] == ["parameters", "stored in addition"]
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
        assert bars[n][0].get_facecolor() == to_rgba(plots.style(method)["color"])
        halves = [np.ptp(s[:, 1]) / 2 for s in errors[n].lines[2][0].get_segments()]
        np.testing.assert_allclose(halves, [interval(column).half for column in rows.T])
        np.testing.assert_allclose(np.sort(dots[n].get_ydata()), np.sort(rows.ravel()))
    edges = [(p.get_x(), p.get_x() + p.get_width()) for one in bars for p in one]
    assert all(b <= c for (_, b), (c, _) in zip(sorted(edges), sorted(edges)[1:], strict=False))
    assert "95 % t-interval, n = 3" in ax.get_ylabel() and not ax.texts


def test_task_bars_mark_missing_bars_and_tell_variants_apart():
    results = made("spacenet")
    results.predictions[-1][results.labels < 2] = 5  # nothing right in the first task
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
        "75.0 (n = 3)",
        f"{100 * both[1].mean:.1f} (n = 3)",
        "0.0 (n = 1)",
    ]
    assert [t.get_text() for t in ax.get_yticklabels()] == list(variants) and ax.yaxis_inverted()
    assert stamp_of(ax.figure).get_text().startswith("split-digits")


def test_ablation_of_numbers_has_no_stamp_and_any_baseline():
    ax = plots.plot_ablation({"a": [0.5], "b": [0.25]}, baseline=[0.4])
    assert stamp_of(ax.figure) is None and [t.get_text() for t in ax.texts] == ["50.0", "25.0"]
    assert line(ax, "baseline, n = 1").get_xdata() == pytest.approx([40, 40]) and not ax.patches
    assert plots.plot_ablation({"a": made()}).get_legend() is None


def test_outputs_are_bars_a_network():
    ax = plots.plot_outputs({"old": [0.2, 0.8], "new": [0.5, 0.5]}, names=["a", "b"])
    assert [p.get_height() for p in ax.patches] == pytest.approx([20, 80, 50, 50])
    assert [p.get_hatch() for p in ax.patches] == [None, None, "////", "////"]
    assert [t.get_text() for t in ax.get_legend().get_texts()] == ["old", "new"]
    many = np.linspace(1, 2, 30) / 45
    ax = plots.plot_outputs({"old": many}, most=3)
    assert [t.get_text() for t in ax.get_xticklabels()] == ["27", "28", "29"]


def test_forgetting_of_variants_leaves_an_empty_row_where_there_is_none():
    ax = plots.plot_ablation(
        {"own": seeds(), "all at once": seeds("joint", joint=True)}, score="forgetting", baseline="own"
    )
    texts = [t.get_text() for t in ax.texts]
    assert texts == [f"{100 * np.mean([r.forgetting() for r in seeds()]):.1f}", "–"]
    assert ax.get_xlabel().startswith("forgetting (percentage points)")
    assert plots.plot_ablation({"a": [-0.1]}, score="forgetting").texts[0].get_text() == "-10.0"
