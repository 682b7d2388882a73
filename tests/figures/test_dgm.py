"""Figures of DGM: plots and texts agree with the records and the printed numbers."""

import dataclasses
import shutil

import numpy as np
import pytest

from clkit import experiments, papers, plots
from clkit.experiments import places
from clkit.figures import dgm
from clkit.papers import published
from clkit.result import Result, chosen, load
from tests.builders import UNITS, stamp_of
from tests.figures.conftest import put


def draw(name):
    return dgm.FIGURES[name]()


def seeds_of(records, name, overrides=None, preset=dgm.runs.SIZE):
    return load(records / experiments.exact_experiment(name, preset, overrides).stem)


def of(records, method):
    return seeds_of(records, f"{method}/{dgm.runs.MNIST}")


def printed(table, **wanted):
    return {(p.method, p.metric): p for p in published.published(paper="dgm", table=table, **wanted)}


@pytest.mark.parametrize("name", dgm.FIGURES)
def test_each_has_a_title_a_caption_a_description_and_a_stamp(records, name):
    spec = draw(name)
    assert 1 < len(spec.title.split()) < 10 and spec.title[-1] != "."
    assert len(spec.alt) >= 40 and spec.caption.endswith(".") and "nan" not in spec.alt + spec.caption
    if not name.endswith("-schematic"):
        said = stamp_of(spec.figure).get_text().replace("\n", " ")
        size = "paper" if name == "dgm-full-size" else "laptop"
        wanted = f"{size} preset" if spec.records else "printed numbers only"
        assert wanted in said and bool(spec.records) != ("printed" in spec.about)
    if "laptop preset" in str(stamp_of(spec.figure)):
        assert "Size laptop: 1500 training images of each digit, 16x16 pixels, 20 epochs" in spec.caption


def test_the_schematic_replays_to_the_classifier_alone():
    ends = {arrow[:2]: (arrow[2] if len(arrow) > 2 else "") for arrow in dgm._ARROWS}
    assert {name for pair in ends for name in pair} == set(dgm._BOXES)
    labels = {name: ends[name, "network"] for name in ("replayed", "real", "fake")}
    assert labels == {"replayed": "classifier", "real": "both", "fake": "critic"}
    assert ("replayed", "wgan") not in ends and ("old", "new") not in ends


def test_the_epochs_of_the_first_seed_are_shown_with_both_scores(records):
    spec, first = draw("dgm-epochs"), of(records, "dgmw")[0]
    last, square = (marked(spec.figure.axes[0], m)[0].get_ydata() for m in "os")
    np.testing.assert_allclose(last, 100 * first.averages(), rtol=1e-6)
    np.testing.assert_allclose(square, [100 * score for _, score in chosen(first)])
    assert "Our score is that of the last epoch." in spec.caption and "seed 0." in spec.caption
    assert f"after the last epoch: {', '.join(f'{100 * a:.1f}' for a in first.averages())};" in spec.alt
    epoch, score = chosen(first)[-1]
    assert spec.alt.endswith(f"{100 * score:.1f} (epoch {epoch + 1}).")


# ---- table 1


def test_table_1_shows_both_epochs_of_the_classifier_and_none_of_the_judge(records):
    spec = draw("dgm-table1-mnist")
    axes = np.array(spec.figure.axes).reshape(2, 2)
    for ax, classes in zip(axes[0], (5, 10), strict=True):
        squares = {round(y): x for x, y in (one.get_xydata()[0] for one in marked(ax, "s"))}
        numbers = [t for t in ax.texts if t.get_color() == plots.CHOSEN["color"]]
        assert len(squares) == len(numbers) == len(dgm.runs.SCORED["test"])
        for n, (method, number) in enumerate(zip(dgm.runs.SCORED["test"], numbers, strict=True)):
            seeds = of(records, method)
            values = 100 * np.array([chosen(r)[classes - 1][1] for r in seeds])
            assert squares[n] == pytest.approx(values.mean())
            assert number.get_text() == f"{values.mean():.1f}" and number.xy[1] == n
            assert abs(values.mean() - 100 * np.mean([r.average_after(classes) for r in seeds])) > 0.1
            assert f"{plots.style(method)['label']} {values.mean():.1f} ± " in spec.alt
    assert not any(marked(ax, "s") for ax in axes[1])
    assert spec.alt.count("At the epoch best on validation: ") == 2


def marked(ax, marker):
    """The drawn lines with this marker."""
    return [one for one in ax.lines if one.get_marker() == marker and len(one.get_xdata())]


def test_table_1_keeps_the_two_scores_apart(records):
    spec = draw("dgm-table1-mnist")
    axes = np.array(spec.figure.axes).reshape(2, 2)
    there = printed("Table 1", benchmark="mnist-1x10")
    diamonds = {}
    for row, score in zip(axes, ("test", "generated"), strict=True):
        labels = [t.get_text() for t in row[0].get_yticklabels()]
        methods = [*dgm.runs.SCORED[score], *(dgm.runs.QUOTED if score == "test" else ())]
        assert labels == [dgm.runs.QUOTED.get(m) or plots.style(m)["label"] for m in methods]
        for ax, classes in zip(row, (5, 10), strict=True):
            assert ax.get_title() == f"{dgm.runs.MEANING[score]}, {classes} classes"
            for n, method in enumerate(dgm.runs.SCORED[score]):
                results = of(records, method)
                if score == "test":
                    values = [r.averages()[classes - 1] for r in results]
                else:
                    values = [r.trace["generated"]["accuracy"][classes - 1, :classes].mean() for r in results]
                said = next(t.get_text() for t in ax.texts if t.xy[1] == n)
                assert said == f"{100 * np.mean(values):.1f}"
                assert f"{plots.style(method)['label']} {said}" in spec.alt
            for one in ax.lines:
                if one.get_marker() == "D":
                    method = methods[round(one.get_ydata()[0])]
                    name = dgm.runs.SCORED[score].get(method, method)
                    metric = f"average accuracy after {classes} classes"
                    assert one.get_xdata()[0] == there[name, metric].value
                    diamonds[name, metric] = score
    assert diamonds.keys() == there.keys()  # each printed number stands once, beside the score that it is
    for (name, _), score in diamonds.items():
        assert (score == "generated") == (name in ("ewc-m", "dgr", "mergan"))
        note = there[name, "average accuracy after 10 classes"].note
        assert (score == "generated") == ("scores generated images" in note)


def test_table_1_of_all_data_sets_is_whole(records):
    spec = draw("dgm-table1-all")
    hollow = {"o": [], "s": []}
    for ax in spec.figure.axes:
        for one in ax.lines:
            if one.get_fillstyle() == "none" and len(one.get_xdata()) == 1:
                hollow[one.get_marker()].append(one.get_xdata()[0])
    for marker, after in (("o", ("5", "30")), ("s", ("10", "50"))):
        wanted = [
            p.value
            for p in published.published(paper="dgm", table="Table 1")
            if p.metric.split()[3] in after and p.method in dgm.tables.SAID
        ]
        assert sorted(hollow[marker]) == pytest.approx(sorted(wanted))
    mean = 100 * np.mean([r.average_after(5) for r in of(records, "dgmw")])
    assert f"DGMw {mean:.1f} to " in spec.alt and "CIFAR-10, classifier on real test images: " in spec.alt


def test_methods_without_a_record_are_named(records, tmp_path, monkeypatch):
    monkeypatch.setattr(places, "RECORDS", tmp_path)
    for path in records.glob(f"dgmw_{dgm.runs.MNIST}_laptop.*"):
        shutil.copy(path, tmp_path)
    for name in (
        "dgm-table1-mnist",
        "dgm-fig2-bounds",
        "dgm-fig4-growth",
        "dgm-table4-disc",
        "dgm-ablations",
    ):
        spec = draw(name)
        assert list(spec.records) == [f"dgmw_{dgm.runs.MNIST}_laptop"]
        assert "Omitted, because they have no record: " in spec.caption
    assert "they have no record: no growth; masks cost nothing" in spec.caption
    for path in tmp_path.iterdir():
        path.unlink()
    for name in dgm.FIGURES:
        if name in ("dgm-schematic", "dgm-table1-all", "dgm-table2-real"):
            assert draw(name).records == {}
        else:
            size = "paper" if name == "dgm-full-size" else "laptop"
            command = f"clkit run dgm[wa]/{dgm.runs.MNIST} --preset {size}"
            with pytest.raises(experiments.PresetError, match=command):
                draw(name)


# ---- ImageNet-50


def test_table_2_is_as_printed_where_nothing_is_on_record(records):
    spec = draw("dgm-table2-real")
    assert "There is no record of ours" in spec.caption and spec.about == {"printed": "Table 2"}
    there = printed("Table 2")
    assert len(there) == 4 * len(dgm.runs.TABLE_2) and {m for m, _ in there} == set(dgm.runs.TABLE_2)
    for ax, metric in zip(spec.figure.axes, ("average accuracy", "top-5 accuracy"), strict=True):
        for marker, classes in (("o", 30), ("s", 50)):
            shown = {
                round(one.get_ydata()[0]): one.get_xdata()[0]
                for one in ax.lines
                if one.get_marker() == marker and len(one.get_xdata())
            }
            wanted = [there[m, f"{metric} after {classes} classes"].value for m in dgm.runs.TABLE_2]
            assert [shown[n] for n in range(len(wanted))] == pytest.approx(wanted)


@pytest.fixture
def stand_in(records, tmp_path, monkeypatch):
    """Records of a benchmark of five tasks of ten classes in the place of ImageNet-50."""
    mine = papers.Benchmark("cifar100", (10,) * 5, stream={"max_per_class": 100})
    paper = papers.PAPERS["dgm"]
    rows = {"benchmarks": {**paper.benchmarks, "fifty": {"laptop": mine}}}
    rows["settings"] = {**paper.settings, "fifty": {}}
    monkeypatch.setitem(papers.PAPERS, "dgm", dataclasses.replace(paper, **rows))
    monkeypatch.setattr(dgm.runs, "IMAGENET", "fifty")
    monkeypatch.setattr(dgm.runs, "SIZES", ("laptop",))
    monkeypatch.setitem(dgm.runs.PRINTED_AS, "fifty", "imagenet50-5x10")
    table = {"joint": ("Joint training", "dgma", None), "dgmw-r50": ("DGMw, r = 0.5", "dgmw", {"lr": 0.5})}
    for name, row in table.items():
        monkeypatch.setitem(dgm.runs.TABLE_2, name, row)
    monkeypatch.setattr(dgm, "REAL", ("dgmw-r50",))
    for method, overrides in (("dgmw", None), ("dgmw", {"lr": 0.5}), ("dgma", None), ("dgm-no-replay", None)):
        put(records, f"{method}/fifty", "laptop", overrides, skill=0.5 if overrides else 0.3)
    yield records
    for path in records.glob("*_fifty_*"):
        path.unlink()


def test_table_2_and_figure_2_show_ours_once_recorded(stand_in):
    spec = draw("dgm-table2-real")
    assert "Ours at size laptop, 95 % t-interval, n = 2." in spec.caption and not spec.about
    assert sorted(spec.records) == sorted(
        ["dgma_fifty_laptop", "dgmw_fifty_laptop", "dgmw_fifty_laptop_lr-0.5"]
    )
    found = seeds_of(stand_in, "dgmw/fifty")
    row = [*dgm.runs.TABLE_2].index("dgmw-r0")
    for ax, score in zip(
        spec.figure.axes, (lambda r, s: r.averages()[s], lambda r, s: r.top(5)[s]), strict=True
    ):
        for marker, stage in (("o", 2), ("s", 4)):
            ours = [
                one.get_xdata()[0]
                for one in ax.lines
                if (one.get_marker(), one.get_fillstyle()) == (marker, "full")
                and len(one.get_xdata())
                and round(one.get_ydata()[0]) == row
            ]
            assert ours == pytest.approx([100 * np.mean([score(r, stage) for r in found])])
    spec = draw("dgm-fig2-bounds")
    ax = spec.figure.axes[0]
    assert ax.get_ylabel() == "top-5 accuracy (%)" and "no such record" not in spec.caption
    labels = [t.get_text() for t in ax.get_legend().get_texts()]
    assert labels == ["Joint training of D", "DGMw", "DGM without replay", "DGMw with 25 to 75 % real images"]
    drawn = next(one for one in ax.lines if one.get_label() == "DGMw").get_ydata()
    np.testing.assert_allclose(drawn, 100 * np.mean([r.top(5) for r in found], axis=0))


def test_figure_2_shows_mnist_where_imagenet_has_no_record(records):
    spec = draw("dgm-fig2-bounds")
    labels = [t.get_text() for t in spec.figure.axes[0].get_legend().get_texts()]
    assert labels == ["Joint training of D", "DGMw", "DGMa", "DGM without replay"]
    assert "The paper shows top-5 accuracy on ImageNet-50, for which there is no such record." in spec.caption


# ---- figures 3 and 4, tables 3 and 4


def test_reuse_is_shown_by_layer_and_summed(records):
    spec = draw("dgm-fig3a-reuse")
    assert [ax.get_title() for ax in spec.figure.axes] == ["all layers", "layer 1", "layer 2", "layer 3"]
    for ax, layer in zip(spec.figure.axes, (None, 0, 1, 2), strict=True):
        new, reused = (one.get_ydata() for one in ax.lines[:2])
        np.testing.assert_allclose(new + reused, 100)
        wanted = np.mean([plots.reuse(r, layer)[1] for r in of(records, "dgma")], axis=0)
        np.testing.assert_allclose(reused, 100 * wanted)
        assert ", ".join(f"{100 * share:.0f}" for share in wanted) in spec.alt


def test_the_course_of_the_masks_is_that_of_the_first_seed(records):
    spec, (task, layer) = draw("dgm-fig3b-masks"), dgm.MASKS_OF
    values = plots.mask_course(of(records, "dgma")[0], task, layer)
    assert len(spec.figure.axes[0].lines) == values.shape[1] + 1 and "Seed 0." in spec.caption
    assert f"{values.shape[1]} curves of mask values over {len(values)} epochs" in spec.alt
    assert f"{(values[-1] > 0.5).sum()} channels end above a half" in spec.alt


def test_growth_has_both_methods_and_the_start_of_the_other(records):
    spec = draw("dgm-fig4-growth")
    lines = {one.get_label(): one.get_ydata() for one in spec.figure.axes[0].lines}
    assert set(lines) == {"DGMw", "DGMa", dgm.ALIKE[0], "linear growth"}
    np.testing.assert_array_equal(lines["linear growth"], sum(UNITS) * np.arange(1, 11))
    units = np.mean([r.trace["growth"]["units"] for r in of(records, "dgmw")], axis=0)
    np.testing.assert_allclose(lines["DGMw"], units)
    assert "DGMw " + ", ".join(f"{u:.0f}" for u in units) in spec.alt
    assert "of the paper's: DGMw 96.46 and DGMa 96.98" in spec.caption


def test_table_3_prints_multiples_of_the_start(records):
    spec = draw("dgm-table3-size")
    left, right = spec.figure.axes
    assert [t.get_text() for t in left.get_yticklabels()] == ["DGMw", "DGMa"]
    multiple = 383_000 / 55_800
    assert [one.get_xdata()[0] for one in left.lines if one.get_marker() == "D"] == [multiple]
    assert f"the paper prints {multiple:.2f} for DGMw" in spec.caption
    assert "keeps its 100,000 numbers" in spec.caption  # MeRGAN's, of four bytes
    assert [one.get_xdata()[0] for one in right.lines if one.get_marker() == "D"] == [96.46]
    start, before, after = np.mean([plots.weights(r) for r in of(records, "dgmw")], axis=0)
    assert f"DGMw from {start:,.0f} to {before:,.0f}, and {after:,.0f} with" in spec.alt


def test_table_4_stands_beside_the_printed_one(records):
    spec = draw("dgm-table4-disc")
    ours, theirs = spec.figure.axes
    assert len(ours.get_yticklabels()) == 8 and len(theirs.get_yticklabels()) == 4
    totals = [float(t.get_text()) for t in theirs.texts]
    assert totals == [4.9, 7.1, 11.9, 14.8]
    parts = plots.disc_space(of(records, "dgmw")[0], 4, "coo")
    assert f"DGMw, 5 tasks, masks as sparse tensors {parts['weights']:.3g} (weights)" in spec.alt
    assert float(ours.texts[0].get_text()) == pytest.approx(sum(parts.values()), rel=0.01)


def test_memory_is_weighed_against_the_images(records):
    spec, result = draw("dgm-images-or-memory"), of(records, "dgmw")[0]
    images = result.n_samples.sum() / result.about["config"]["epochs"] * 16 * 16 / 1e6
    left, right = spec.figure.axes
    assert float(left.texts[-1].get_text()) == pytest.approx(images, rel=0.01)
    assert [t.get_text() for t in right.texts] == ["228", "315", "200"]
    assert "saves 27.5 % (DGM, text, p. 11328)" in spec.alt


# ---- generated images


def test_samples_are_flagged_as_identical_or_not(records):
    spec = draw("dgm-samples-over-time")
    said = [
        [t.get_text() for t in ax.texts if t.get_text() in ("identical", "changes")]
        for ax in spec.figure.axes
    ]
    assert said == [["identical"] * 9] + [["changes"] * 9] * 3
    assert "DGMw 9 of 9; MeRGAN 0 of 9" in spec.alt and "seed 0" in stamp_of(spec.figure).get_text()
    final = draw("dgm-fig5-samples")
    board = final.figure.axes[0].images[0].get_array()
    images = of(records, "dgmw")[0].trace["generated"]["images"]
    np.testing.assert_allclose(board[-16:, :16, 0], images[-1, 9, 0, 0] / 255)


def test_recognition_of_dgm_does_not_change(records):
    spec = draw("dgm-generated")
    left, right = spec.figure.axes
    lines = {one.get_label(): one.get_ydata() for one in right.lines}
    assert (
        (lines["DGMw"][1:] == 0).all() and (lines["DGMa"][1:] == 0).all() and (lines["MeRGAN"][1:] < 0).all()
    )
    assert "DGMw 0.0 ± 0.0" in spec.alt
    assert [t.get_text() for t in left.get_legend().get_texts()] == ["judge on real images"]


def test_each_ablation_has_both_scores_and_a_size(records):
    spec = draw("dgm-ablations")
    labels = [t.get_text() for t in spec.figure.axes[0].get_yticklabels()]
    assert labels == [label for label, *_ in dgm.ABLATIONS] and len(spec.records) == len(labels)
    means = []
    for row, (label, name, overrides) in enumerate(dgm.ABLATIONS):
        found = seeds_of(records, name, overrides)
        means.append(100 * np.mean([Result.average(r) for r in found]))
        drawn = 100 * np.mean([plots.recognised(r)[-1] for r in found])
        said = [next(t.get_text() for t in ax.texts if t.xy[1] == row) for ax in spec.figure.axes]
        assert said[:2] == [f"{means[-1]:.1f}", f"{drawn:.1f}"] and " → " in said[2], label
    assert len(set(means)) == len(means)  # or a mistaken row could not be seen


# ---- the size of the paper


def test_the_size_of_the_paper_is_shown_for_as_many_tasks_as_a_run_has(records, tmp_path, monkeypatch):
    spec = draw("dgm-full-size")
    [stem], [seeds] = spec.records.keys(), spec.records.values()
    assert stem == f"dgmw_{dgm.runs.MNIST}_paper_first-5-tasks" and seeds[0].seen.tolist() == [1, 2, 3, 4, 5]
    test, drawn, neurons, epochs = spec.figure.axes
    np.testing.assert_allclose(marked(epochs, "o")[0].get_ydata(), 100 * seeds[0].averages(), rtol=1e-6)
    line, best, theirs = (one.get_ydata() for one in test.lines)
    np.testing.assert_allclose(line, 100 * seeds[0].averages(), rtol=1e-6)
    np.testing.assert_allclose(best, [100 * score for _, score in chosen(seeds[0])])
    there = printed("Table 1", benchmark="mnist-1x10")
    assert theirs.tolist() == [there["dgmw", f"average accuracy after {k} classes"].value for k in (5, 10)]
    np.testing.assert_allclose(drawn.lines[0].get_ydata(), 100 * plots.recognised(seeds[0]))
    assert neurons.lines[0].get_ydata().tolist() == seeds[0].trace["growth"]["units"].tolist()
    assert (
        "Size paper: all training images but those for validation, 32x32 pixels, 101 epochs." in spec.caption
    )
    assert "first 5 of 10 tasks" in spec.caption and "98.75 after 5 classes, 96.46 after 10" in spec.alt

    for path in records.glob(f"{stem}.*"):
        shutil.copy(path, tmp_path)
    monkeypatch.setattr(places, "RECORDS", tmp_path)
    whole = put(tmp_path, f"dgmw/{dgm.runs.MNIST}", "paper", None, 0.9)
    spec = draw("dgm-full-size")
    assert [*spec.records] == [whole] and "of 10 tasks" not in spec.caption, "a run of all tasks comes first"
    for path in tmp_path.iterdir():
        path.unlink()
    with pytest.raises(experiments.PresetError, match="paper preset: make it with .* --first-tasks 5"):
        draw("dgm-full-size")
