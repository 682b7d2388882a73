"""Figures of ARM: plots and texts agree with the records and the printed numbers."""

import re

import numpy as np
import pytest

from clkit import experiments, figures, papers
from clkit.experiments import places
from clkit.figures import arm, picture
from clkit.papers import published
from clkit.result import Result, load
from tests.figures.conftest import put

TWICE = ({"repeats": 2}, {"repeats": 2, "repeat": "afresh"})


def shown_rows(rows):
    """The rows of a table that have a record here."""
    return [row for row in rows if picture.on_record(*row[2:])]


def seeds_of(records, name, overrides=None):
    return load(records / experiments.experiment(name, "paper", overrides).stem)


@pytest.mark.parametrize(
    "name, rows, tables, benchmark",
    [
        ("arm-table6-mnist", arm.tables.TABLE_6, ("Table 6",), arm.MNIST),
        ("arm-table1-cifar", arm.tables.TABLE_1, ("Table 1",), arm.CIFAR),
        ("arm-table7-ablations", arm.tables.TABLE_7, ("Table 7", "Table 2"), arm.CIFAR),
    ],
)
def test_a_table_of_arm_shows_both_scores_beside_what_is_printed(records, name, rows, tables, benchmark):
    shown, drawing = figures.FIGURES[name](), None
    there = shown_rows(rows)
    assert len(there) >= 6
    for ax, metric in zip(shown.figure.axes, ("average accuracy", "forgetting"), strict=True):
        labels = [t.get_text() for t in shown.figure.axes[0].get_yticklabels()]
        assert labels == [row[0] for row in there]
        diamonds = {
            round(line.get_ydata()[0]): line.get_xdata()[0] for line in ax.lines if line.get_marker() == "D"
        }
        means = []
        for n, (label, method, experiment, overrides) in enumerate(there):
            printed = next(
                (
                    p
                    for t in tables
                    for p in published.published(paper="arm", table=t)
                    if (p.benchmark, p.method, p.metric) == (benchmark, method, metric)
                ),
                None,
            )
            assert diamonds.pop(n, None) == (printed.value if printed else None), label
            score = Result.average if metric == "average accuracy" else Result.forgetting
            ours = seeds_of(records, experiment, overrides)
            joint = metric == "average accuracy" and len(ours[0].seen) == 1  # learned without tasks
            options = {"over": "images"} if joint else {"task_mean": "classes"}
            mean = 100 * np.mean([score(r, **options) for r in ours])
            drawing = next(t for t in ax.texts if t.xy[1] == n).get_text()
            assert drawing.startswith("–" if np.isnan(mean) else f"{mean:.1f}"), label
            assert np.isnan(mean) or f"{label} {mean:.1f}" in shown.alt
            means.append(mean)
        assert not diamonds  # and rows that differ, or a mistaken one could not be seen:
        assert metric == "forgetting" or len(set(means)) == len(means)
    absent = [row[0] for row in rows if row not in there]
    assert (f"they have no record: {'; '.join(absent)}." in shown.caption) == bool(absent)


def test_the_ablations_are_of_one_thing_and_are_measured_against_arm(records):
    ax = figures.FIGURES["arm-table7-ablations"]().figure.axes[0]
    own = 100 * np.mean([r.average(task_mean="classes") for r in seeds_of(records, f"arm/{arm.MNIST}")])
    assert any(list(line.get_xdata()) == pytest.approx([own, own]) for line in ax.lines)
    names = {row.method for row in published.rows() if row.paper == "arm"}
    for label, name, experiment, _ in arm.tables.TABLE_1 + arm.tables.TABLE_6 + arm.tables.TABLE_7:
        assert name is None or name in names, label
        assert experiment.partition("/")[0] in papers.methods(), label
    for label, _, experiment, overrides in arm.tables.TABLE_7[1:]:
        changed = experiments.experiment(experiment, "paper", overrides).overrides
        assert len(changed) == len(overrides or {}) and (changed or experiment.endswith("-mixed")), label


def test_rows_without_a_record_are_left_out_and_named(records, tmp_path, monkeypatch):
    monkeypatch.setattr(places, "RECORDS", tmp_path)
    for method in ("arm", "naive"):
        for end in ("json", "npz"):
            name = f"{method}_{arm.MNIST}_paper.{end}"
            (tmp_path / name).write_bytes((records / name).read_bytes())
    shown = figures.FIGURES["arm-table6-mnist"]()
    assert [t.get_text() for t in shown.figure.axes[0].get_yticklabels()] == ["Naive", "ARM"]
    assert "Omitted, because they have no record: Stationary; ER, 50 images; ER-MIR" in shown.caption
    assert list(shown.records) == [f"{m}_{arm.MNIST}_paper" for m in ("naive", "arm")]
    twice = figures.FIGURES["arm-fig6-twice"]()
    assert "they have no record: twice, as in the code; twice, restarted." in twice.caption
    (tmp_path / f"naive_{arm.MNIST}_paper.json").unlink()
    alone = figures.FIGURES["arm-fig4-accuracy-mnist"]()
    assert alone.caption.endswith("they have no record: Naive (one pass).") and "Grey" not in alone.caption
    (tmp_path / f"arm_{arm.MNIST}_paper.json").unlink()
    for name in ("arm-fig4-accuracy-mnist", "arm-table7-ablations", "arm-fig2-recalled"):
        with pytest.raises(
            experiments.PresetError, match=f"python -m clkit run arm/{arm.MNIST} --preset paper"
        ):
            figures.FIGURES[name]()
    with pytest.raises(experiments.PresetError, match="no record of stationary/mnist-5k-5"):
        figures.FIGURES["arm-table6-mnist"]()


def test_recalled_images_are_those_of_the_first_seed(records):
    shown = figures.FIGURES["arm-fig2-recalled"]()
    images = seeds_of(records, f"arm/{arm.MNIST}")[0].trace["images"]
    for ax, (task, row) in zip(shown.figure.axes, arm.PAIRS, strict=True):
        place = np.flatnonzero(images["task"] == task)[row]
        assert ax.get_title() == f"ARM, task {task + 1}, batch {images['step'][place] + 1}"
        low, high = images["recalled"][place].min(), images["recalled"][place].max()
        old = (images["probs"][place].argmax(axis=1) < 2 * task).sum()
        assert f"assigns {old} of {len(images['probs'][place])} recalled images" in shown.alt
        assert f"pixels range from {low:.1f} to {high:.1f}." in shown.alt
        start = images["start"][place][0, 0]
        board = ax.images[0].get_array()
        np.testing.assert_allclose(board[-len(start) :, : len(start), 0], start, atol=1e-6)


def test_recall_maps_are_of_cifar_where_its_weights_are_on_record(records, monkeypatch):
    shown = figures.FIGURES["arm-fig3-outputs"]()
    weights = arm.MAPS[f"{arm.MNIST}-val"]
    maps = [ax for ax in shown.figure.axes if ax.images]
    assert [ax.get_title() for ax in maps] == [f"diversity weight {w:g}" for w in weights]
    assert len({ax.images[0].get_clim() for ax in maps}) == 1
    assert "The paper shows this for CIFAR10, for which there is no such record." in shown.caption
    for ax, weight in zip(maps, weights, strict=True):
        seeds = seeds_of(records, arm.SWEEP[0], {"diversity": weight})
        wanted = 100 * np.mean([r.trace["recall"]["output"] for r in seeds], axis=0).T
        np.testing.assert_allclose(np.ma.filled(ax.images[0].get_array(), np.nan), wanted, rtol=1e-4)
    output = np.array([r.trace["recall"]["output"] for r in seeds])  # of the last weight, 16
    task = seeds[0].trace["recall"]["task"]
    first = 100 * output[:, task > 0, :2].sum(axis=2).mean()
    unmet = 100 * np.mean([output[:, task == t, 2 * t :].sum(axis=2) for t in range(1, 5)])
    assert f"diversity weight 16 {first:.1f} %" in shown.alt and f" and {unmet:.1f} %." in shown.alt
    monkeypatch.setitem(arm.MAPS, arm.CIFAR, (16.0, 0.5))
    put(records, f"arm/{arm.CIFAR}", "paper", {"diversity": 0.5}, skill=0.4, seeds=(0,))
    shown = figures.FIGURES["arm-fig3-outputs"]()
    assert "CIFAR10-5" in shown.caption and "no such record" not in shown.caption
    assert "single seed, n = 1" in shown.caption and len(shown.records) == 2


@pytest.mark.parametrize("benchmark, n", [(arm.MNIST, 2), (arm.CIFAR, 1)])
def test_curves_end_where_the_records_do(records, benchmark, n):
    shown = figures.FIGURES[f"arm-fig4-accuracy-{benchmark[:5]}"]()
    a = np.mean([r.accuracy() for r in seeds_of(records, f"arm/{benchmark}")], axis=0)
    lines = {line.get_label(): line for line in shown.figure.axes[0].lines}
    for j in range(5):
        assert lines[f"{j + 1}"].get_ydata()[-1] == pytest.approx(100 * a[-1, j])
    assert f"ARM, by task: {', '.join(f'{100 * x:.1f} %' for x in a.diagonal())} when just" in shown.alt
    assert f"n = {n}" in shown.caption and f"Naive (one pass){', mean' if n > 1 else ''}" in lines
    for j in range(4):
        rise = 100 * (a[j + 1 :, j].max() - a[j, j])
        assert (f"task {j + 1} by {rise:.1f} points" in shown.alt.partition("Naive")[0]) == (rise > 0)


def test_the_diversity_sweep_stars_the_best_of_the_records(records):
    shown = figures.FIGURES["arm-fig5-diversity"]()
    means = {
        w: 100 * np.mean([r.average() for r in seeds_of(records, arm.SWEEP[0], {"diversity": w})])
        for w in arm.SWEEP[1]
    }
    star = next(line for line in shown.figure.axes[0].lines if line.get_marker() == "*")
    best = max(means, key=means.get)
    assert (star.get_xdata()[0], star.get_ydata()[0]) == (best, pytest.approx(means[best]))
    assert f"The best mean is that of weight {best:g}." in shown.alt
    assert "best weights are 16 on MNIST, 16 on CIFAR10 and 1 on MiniImageNet" in shown.caption
    assert "arm_mnist-5k-5-val_paper" in shown.records  # 16 is the setting itself, and no override


def test_recalling_twice_stands_beside_once(records):
    shown = figures.FIGURES["arm-fig6-twice"]()
    axes = shown.figure.axes
    assert [ax.get_title() for ax in axes[:3]] == ["once", "twice, as in the code", "twice, restarted"]
    for ax, overrides in zip(axes[3:6], (None, *TWICE), strict=True):
        seeds = seeds_of(records, f"arm/{arm.MNIST}", overrides)
        end = next(line for line in ax.lines if line.get_label() == "1").get_ydata()[-1]
        assert end == pytest.approx(100 * np.mean([r.accuracy()[-1, 0] for r in seeds]))
        assert f" {100 * np.mean([r.average() for r in seeds]):.1f} ±" in shown.alt
    assert [ax.get_legend() is not None for ax in axes[3:6]] == [False, False, True]


@pytest.mark.parametrize(
    "name, benchmark, table",
    [("arm-fig7-gradients", arm.MNIST, "Table 10"), ("arm-fig7-gradients-cifar", arm.CIFAR, "Figure 7")],
)
def test_gradients_stand_beside_the_printed_ones_and_a_control(records, name, benchmark, table):
    shown = figures.FIGURES[name]()
    seeds = seeds_of(records, f"arm/{benchmark}")
    rows = seeds[0].trace["gradients"]
    groups = list(dict.fromkeys(rows["group"]))
    printed = {p.metric: p.value for p in published.published(paper="arm", table=table)}
    known = [g for g in groups if f"gradient correlation, hard targets, {said(g)}, class 1" in printed]
    assert len(known) > 1
    for n, condition in enumerate(("hard", "soft", "control hard", "control soft")):
        hollow = [
            line.get_ydata()[0]
            for line in shown.figure.axes[n].lines
            if line.get_markerfacecolor() == "white" and len(line.get_xdata())
        ]
        assert hollow == (
            [
                printed[f"gradient correlation, {condition} targets, {said(g)}, class {k}"]
                for k in (1, 2)
                for g in known
            ]
            if n < 2
            else []
        )
        for group in groups:
            mine = (rows["condition"] == condition) & (rows["group"] == group)
            both = [
                np.mean([r.trace["gradients"]["mean"][mine & (rows["which"] == which)] for r in seeds])
                for which in ("class 1", "class 2")
            ]
            assert f"{group} {both[0]:.3f} and {both[1]:.3f}" in shown.alt
    assert f"n = {len(seeds)}" in shown.caption and table in shown.caption


def said(group):
    return "all" if group == "All" else re.sub(r"(\d)", r" \1", group)


def test_every_figure_has_a_title_of_its_own(records):
    titles = [figure().title for figure in arm.FIGURES.values()]
    assert all(titles) and len(set(titles)) == len(titles)


def test_the_schematic_names_the_lines_of_the_algorithm_and_fits_its_page():
    shown = figures.FIGURES["arm-schematic"]()
    ax = shown.figure.axes[0]
    said = " ".join(t.get_text() for t in ax.texts)
    for line in ("line 5", "line 6", "lines 7, 8", "line 9", "old network", "new network"):
        assert line in said, line
    (x0, x1), (y0, y1) = ax.get_xlim(), ax.get_ylim()
    shown.figure.canvas.draw()
    for text in ax.texts:
        box = text.get_window_extent().transformed(ax.transData.inverted())
        assert x0 <= box.x0 and box.x1 <= x1 and y0 <= box.y0 and box.y1 <= y1, text.get_text()
    assert shown.records == {} and len(shown.alt) > 40
