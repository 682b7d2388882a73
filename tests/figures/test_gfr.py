"""Figures of GFR: plots and texts agree with records and printed numbers, at the size that there is."""

import shutil

import numpy as np
import pytest

from clkit import experiments, plots
from clkit.analysis import embedding
from clkit.analysis.features import drift
from clkit.experiments import PresetError, places
from clkit.figures import gfr
from clkit.figures.gfr import memory, runs
from clkit.methods.gfr.features import Critic, Generator
from clkit.papers.published import published
from clkit.result import load
from tests.builders import line, stamp_of
from tests.figures.conftest import put


def draw(name):
    return gfr.FIGURES[name]()


def of(records, method, benchmark=runs.SHAPES, overrides=None, preset="teach"):
    return load(records / experiments.exact_experiment(f"{method}/{benchmark}", preset, overrides).stem)


@pytest.mark.parametrize("name", gfr.FIGURES)
def test_each_has_a_title_a_caption_a_description_and_a_stamp(records, name):
    spec = draw(name)
    assert 1 < len(spec.title.split()) < 10 and spec.title[-1] != "."
    assert len(spec.alt) >= 40 and spec.caption.endswith(".") and "nan" not in spec.alt + spec.caption
    if spec.records:
        assert "teach preset" in stamp_of(spec.figure).get_text().replace("\n", " ")
        assert "size teach, shapes of 16x16 pixels" in spec.caption


def test_the_schematic_shows_old_features_to_the_classifier_alone():
    ends = {arrow[:2] for arrow in gfr._ARROWS}
    assert {name for pair in ends for name in pair} == set(gfr._BOXES)
    assert [end for start, end in ends if start == "generator"] == ["head"]
    assert {start for start, end in ends if end == "distance"} == {"new", "old"}


# ---- curves


def test_curves_of_shapes_have_the_numbers_of_the_records(records):
    spec = draw("gfr-shapes")
    above, below = spec.figure.axes
    for method in (*runs.PARTS[:-1], *runs.FROZEN):
        seeds, label = of(records, method), plots.style(method)["label"]
        mean = 100 * np.mean([r.averages("images") for r in seeds], axis=0)
        np.testing.assert_allclose(line(above, label).get_ydata(), mean)
        lost = 100 * np.mean([r.forgetting() for r in seeds])
        assert line(below, label).get_ydata()[-1] == pytest.approx(lost)
        assert f"{label} {mean[-1]:.1f}" in spec.alt
    names = [text.get_text() for text in below.get_legend().get_texts()]
    assert plots.style("gfr-joint")["label"] in names and len(names) == len({*runs.PARTS, *runs.FROZEN})


def test_forgetting_over_tasks_ends_with_that_of_the_result(records):
    [first, *_] = of(records, "gfr")
    course, a = plots.forgetting_course(first), first.accuracy()
    assert np.isnan(course[0]) and course[1] == pytest.approx(a[0, 0] - a[1, 0])
    assert course[-1] == pytest.approx(first.forgetting())


@pytest.mark.parametrize(
    "name, first", [("gfr-fig4-imagenet100", "imagenet100-50-5"), ("gfr-fig5-cifar100", "cifar100-50-5")]
)
def test_without_records_of_real_images_shapes_take_their_place(records, name, first):
    spec = draw(name)
    made = f"There is no record of {first} or its relatives; the first is made with: "
    assert f"{made}python -m clkit run gfr/{first} --preset" in spec.caption
    assert "--preset laptop" in spec.caption and all(runs.SHAPES in stem for stem in spec.records)


def test_real_images_are_shown_as_soon_as_there_is_a_record(records, tmp_path, monkeypatch):
    monkeypatch.setattr(places, "RECORDS", tmp_path)
    for benchmark in runs.CIFAR[:2]:
        for method in ("gfr", "lucir"):
            put(tmp_path, f"{method}/{benchmark}", "laptop", None, 0.5)
    spec = draw("gfr-fig5-cifar100")
    assert len(spec.figure.axes) == 4 and len(spec.records) == 4
    assert "cifar100-50-5 at size laptop; cifar100-50-10 at size laptop" in spec.caption
    assert (
        "Omitted, because they have no record: LwF" in spec.caption and "cifar100-50-25" not in spec.caption
    )
    with pytest.raises(PresetError, match="no record of .*/split-shapes: make it with `python"):
        draw("gfr-shapes")


# ---- similarity and features


def test_similarity_has_a_map_for_each_method(records):
    spec = draw("gfr-fig2-similarity")
    for ax, method in zip(spec.figure.axes, runs.COMPARED):
        seeds = of(records, method, runs.FOUR)
        mean = np.mean([r.trace["similarity"]["svcca"] for r in seeds], axis=0)
        shown = ax.collections[0].get_array().reshape(len(mean), -1)
        np.testing.assert_allclose(shown, mean[(slice(None), *np.triu_indices(mean.shape[1], 1))])
        assert f"{100 * np.mean([r.average() for r in seeds]):.0f} %" in ax.get_title()


def test_similarity_of_different_numbers_of_seeds_says_so(records, tmp_path, monkeypatch):
    for method in runs.COMPARED[1:]:
        for path in records.glob(f"{method}_{runs.FOUR}_teach.*"):
            shutil.copy(path, tmp_path)
    put(tmp_path, f"{runs.COMPARED[0]}/{runs.FOUR}", "teach", None, skill=0.5, seeds=(0,))
    assert "by layer; mean of 2 seeds." in draw("gfr-fig2-similarity").caption
    monkeypatch.setattr(places, "RECORDS", tmp_path)
    spec = draw("gfr-fig2-similarity")
    assert "by layer; mean of 1 to 2 seeds." in spec.caption
    assert spec.figure.axes[-1].get_ylabel() == "SVCCA, mean over seeds"


def test_features_stand_beside_their_numbers(records):
    spec = draw("gfr-fig7-features")
    assert len(spec.figure.axes) == 4
    first = of(records, "gfr")[0]
    table, numbers = first.trace["features"], gfr.feature_numbers(first, -1)
    drawn = table["generated"][-1]
    real = table["real"][-1][: len(drawn)]
    assert numbers["nearest neighbour of its own kind (0.5: mixed)"] == embedding.mixing(real, drawn)
    known = table["recognised"][-1][:10]
    assert numbers["generated features recognised"] == pytest.approx(np.nanmean(known))
    assert f"generated features recognised {np.nanmean(known):.2f}" in spec.alt
    right = (first.predictions[-1] == first.labels)[first.labels < 10].mean()
    assert numbers["real images recognised"] == pytest.approx(right)


def test_drift_is_the_mean_over_old_classes(records):
    ax = draw("gfr-drift").figure.axes[0]
    cosines = drift(of(records, "gfr")[0])
    seen = of(records, "gfr")[0].seen
    wanted = [cosines[t, : seen[t - 1]].mean() for t in range(1, len(seen))]
    np.testing.assert_allclose(line(ax, "GFR").get_ydata(), wanted)


# ---- tables


@pytest.mark.parametrize(
    "table, name", [("Table 2", "gfr-table2-replay"), ("Table 3", "gfr-table3-regulariser")]
)
def test_tables_show_printed_numbers_and_ours(records, table, name):
    rows = runs.TABLE_2 if table == "Table 2" else runs.TABLE_3
    left, right = draw(name).figure.axes
    for said, (label, experiment, overrides) in rows.items():
        theirs = {p.metric: p.value for p in published(paper="gfr", table=table, method=said)}
        wanted = [theirs[f"average accuracy after {k} classes"] for k in (25, 50, 75, 100)]
        np.testing.assert_allclose(line(left, label).get_ydata(), wanted)
        seeds = of(records, experiment.partition("/")[0], runs.FOUR, overrides)
        mean = 100 * np.mean([r.averages() for r in seeds], axis=0)
        np.testing.assert_allclose(line(right, label).get_ydata(), mean)
        assert line(left, label).get_color() == line(right, label).get_color()
    floor = left.get_lines()[-1].get_ydata()
    np.testing.assert_allclose(floor, floor[0] / np.arange(1, 5))


def test_memory_is_counted_as_the_networks_have_it():
    for classes in (100, 1000):
        nets = Generator((512,), classes, 200, 512), Critic((512,), classes, 512)
        counts = tuple(sum(p.numel() for p in net.parameters()) for net in nets)
        assert memory.gan_parameters(classes) == counts
    assert memory.network_parameters(100, large=False) == 11_220_132
    assert memory.network_parameters(1000, large=True) == 11_689_512
    assert memory.image_bytes(100, 256) == 375 * 2**20
    found = {(row["data"], row["kept"]): row["recomputed (MiB)"] for row in memory.rows()}
    assert found["CIFAR-100", "generator and critic"] == pytest.approx(4.79, abs=0.005)
    assert found["ImageNet-1000", "generator and critic"] == pytest.approx(8.31, abs=0.005)
    assert found["CIFAR-100", "stored images"] == pytest.approx(5.86, abs=0.005)
