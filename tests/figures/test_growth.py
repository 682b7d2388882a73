"""Figures of memory and growth: their methods are those on record, and their numbers agree."""

import numpy as np
import pytest

from clkit import experiments, figures, plots
from clkit.analysis import masks
from clkit.experiments import places
from clkit.figures import baselines, growth
from clkit.result import load
from tests.builders import line
from tests.figures.conftest import put


def test_every_figure_has_a_title(records):
    titles = [make().title for make in growth.FIGURES.values()]
    assert all(1 < len(t.split()) < 9 and t[-1] != "." for t in titles) and len(set(titles)) == len(titles)


def test_rows_are_all_methods_on_record_and_sizes_of_their_memory(records):
    rows = growth.rows_on_record("split-mnist")
    stems = [experiments.exact_experiment(name, "paper", o).stem for name, o in rows]
    plain = {p.stem for p in records.glob("*_split-mnist_paper.json")}
    assert len(set(stems)) == len(stems) and set(stems) >= plain
    sizes = [o["memory"] for name, o in rows if name == "er/split-mnist" and o]
    assert sizes == sorted(m for m in baselines.MEMORIES if m != baselines.OWN_MEMORY)
    assert set(stems) == plain | {f"er_split-mnist_paper_memory-{m}" for m in sizes}  # no other variant
    with pytest.raises(experiments.PresetError, match="no method has a record of split-cifar10 at the paper"):
        growth.rows_on_record("split-cifar10")


def test_labels_name_sizes_and_joint_training_is_a_reference(records):
    found, groups, single = growth.kept_groups("split-mnist")
    assert list(single) == ["Joint"] and "Joint" not in groups
    assert {"ER, 50 images", "ER, 500 images", "iCaRL", "SpaceNet"} <= set(groups)
    assert len(found) == len(groups) + 1
    assert groups["ER, 50 images"][0].about["config"]["memory"] == 50


def test_a_new_record_brings_its_method(records, tmp_path, monkeypatch):
    monkeypatch.setattr(places, "RECORDS", tmp_path)
    for name, skill in (("er/split-mnist", 0.5), ("ewc/split-mnist", 0.9)):
        put(tmp_path, name, "paper", None, skill)
    assert list(growth.by_accuracy(growth.kept_groups("split-mnist")[1])) == ["EWC", "ER"]
    put(tmp_path, "cwr/split-mnist", "paper", None, 0.7)
    assert list(growth.by_accuracy(growth.kept_groups("split-mnist")[1])) == ["EWC", "CWR", "ER"]


def test_rows_fall_in_accuracy_and_both_panels_agree(records):
    spec = figures.FIGURES["kept-split-mnist"]()
    left, right = spec.figure.axes[:2]
    labels = [t.get_text() for t in left.get_yticklabels()]
    _, groups, single = growth.kept_groups("split-mnist")
    means = [100 * np.mean([r.average() for r in groups[label]]) for label in labels]
    assert set(labels) == set(groups) and means == sorted(means, reverse=True)
    dots = [one for one in right.get_lines() if one.get_markersize() == 7]
    np.testing.assert_allclose([float(one.get_xdata()[0]) for one in dots], means)
    assert left.get_ylim() == right.get_ylim()
    joint = 100 * np.mean([r.average() for r in single["Joint"]])
    assert any(np.allclose(one.get_xdata(), joint) for one in right.get_lines() if len(one.get_xdata()) == 2)
    assert f"{labels[0]} {means[0]:.1f} %, exemplars 2.50 MB" in spec.alt and "784 each" in spec.caption


def test_the_other_benchmark_has_the_online_methods(records):
    spec = figures.FIGURES["kept-mnist-5k-5"]()
    assert "arm_mnist-5k-5_paper" in spec.records and not any("split" in stem for stem in spec.records)


@pytest.mark.parametrize(
    "benchmark, preset, count",
    [("split-mnist", "paper", 784), ("split-mnist-10", "laptop", 256), ("cifar10-100", "laptop", 3072)],
)
def test_bytes_of_a_raw_image(benchmark, preset, count):
    assert growth.image_bytes(benchmark, preset) == count


def test_what_grows_and_what_stays_is_told_apart(records):
    spec = figures.FIGURES["kept-over-tasks"]()
    growing, constant = spec.alt.split(" Constant: ")
    assert "ER, 50 images 500 kB to 2.50 MB" in growing and constant == "."
    assert "joint_split-mnist_paper" not in spec.records


def test_the_connections_of_the_record_settle(records):
    spec = figures.FIGURES["moved-connections"]()
    result = load(records / "spacenet_split-mnist_paper")[0]
    left, right = spec.figure.axes
    for task in range(result.tasks):
        drawn = line(left, f"task {task + 1}")
        np.testing.assert_allclose(drawn.get_ydata(), 100 * masks.settled(result, task, 0))
    busy = [masks.busiest_share(masks.block(result, 0, 0, e)[0]) for e in masks.epochs(result, 0)]
    np.testing.assert_allclose(right.get_lines()[0].get_ydata(), 100 * np.array(busy))
    assert list(spec.records) == ["spacenet_split-mnist_paper"]
    assert spec.title == f"How the connections of {plots.style('spacenet')['label']} settle"


# ---- ten tasks of one class each


def test_only_methods_that_widen_have_units(records):
    spec = figures.FIGURES["growth-split-mnist-10"]()
    widened = growth._with_table("growth", *growth.ONE_BY_ONE)
    assert {"dgmw", "dgma"} <= set(widened) and not {"mergan", "joint-d"} & set(widened)
    for method, seeds in widened.items():
        factor = seeds[0].trace["growth"]["units"][-1] / seeds[0].trace["growth"]["start"][0]
        assert f"{plots.style(method)['label']} {factor:.2f}" in spec.alt


def test_moving_and_learned_masks_have_one_measure(records):
    spec = figures.FIGURES["mask-trajectories"]()
    learned = growth._with_table("masks", *growth.ONE_BY_ONE)
    assert len(spec.figure.axes) == 1 + len(learned) and set(spec.records) == {
        "spacenet_split-mnist_paper",
        *(f"{method}_split-mnist-10_laptop" for method in learned),
    }
    for ax, seeds in zip(spec.figure.axes[1:], learned.values(), strict=True):
        for task in range(seeds[0].tasks):
            wanted = 100 * masks.decided(seeds[0], task, 0)
            np.testing.assert_allclose(line(ax, f"task {task + 1}").get_ydata(), wanted)


def test_the_bytes_of_ten_tasks_are_counted_in_small_images(records):
    spec = figures.FIGURES["kept-split-mnist-10"]()
    assert "256 each" in spec.caption and "dgmw_split-mnist-10_laptop" in spec.records
