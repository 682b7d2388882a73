"""Figures of MFGR: texts agree with the records and the printed numbers; without records they say so."""

import warnings

import matplotlib.pyplot as plt
import numpy as np
import pytest

from clkit import experiments, plots
from clkit.experiments import places
from clkit.figures import mfgr
from clkit.figures.mfgr import runs
from clkit.papers.published import published
from clkit.result import load
from tests.builders import fine_grained


def draw(name):
    return mfgr.FIGURES[name]()


def of(records, method, overrides=None, benchmark=runs.WARDROBE):
    return load(records / experiments.exact_experiment(f"{method}/{benchmark}", "laptop", overrides).stem)


def percent(values):
    return f"{100 * np.mean(values):.1f}"


def test_the_three_similar_classes_have_nearly_equal_coordinates():
    angles = np.radians(mfgr.ANGLES)
    weights, new = np.stack([np.cos(angles), np.sin(angles)], 1), np.radians(mfgr.NEW)
    found = plots.coordinates(weights, [np.cos(new), np.sin(new)])
    assert np.ptp(found[:3]) < 0.1 and np.abs(found[:3].mean() - found[3:]).min() > 0.3
    spec = draw("mfgr-fig1-projections")
    assert all(f"{name} {value:.2f}" in spec.alt for name, value in zip(mfgr.FIVE, found))


def test_without_records_each_figure_says_which_command_makes_one(tmp_path, monkeypatch):
    monkeypatch.setattr(places, "RECORDS", tmp_path)
    for name, figure in mfgr.FIGURES.items():
        spec = figure()
        plt.close(spec.figure)
        assert not spec.records
        drawn_alone = name in ("mfgr-fig1-projections", "mfgr-fig2-workflow")
        assert drawn_alone != ("python -m clkit run " in spec.caption), name
        printed = "Printed" in spec.alt
        assert printed == name.startswith("mfgr-table"), name


@pytest.mark.parametrize("name", [n for n in mfgr.FIGURES if n.startswith("mfgr-table")])
def test_all_printed_numbers_of_a_table_are_said(records, name):
    number = int(name[len("mfgr-table")])
    spec, rows = draw(name), published(paper="mfgr", table=f"Table {number}")
    shown = [p for p in rows if number in (1, 3, 4)]
    tasks = {2: 5, 5: 5, 6: 5, 7: 10, 8: 10}.get(number)
    shown += [p for p in rows if p.metric == f"accuracy after task {tasks}"]
    assert len(shown) >= 7
    for p in shown:
        assert (f"{p.value:.1f}" if number in (1, 3, 4) else f"{p.value:.2f}") in spec.alt, p


def test_table_1_shows_our_classes_before_and_after(records):
    spec = draw("mfgr-table1-classes")
    before = np.mean([plots.fine(r, "accuracy", 0)[:7] for r in of(records, "lwf-sgd")], axis=0)
    after = np.mean([plots.fine(r, "accuracy", 1)[:7] for r in of(records, "mfgr")], axis=0)
    ours = spec.alt.partition("Ours: ")[2]
    for label, values in (("old network", before), ("MFGR", after)):
        assert f"{label} {', '.join(f'{100 * v:.1f}' for v in values)}" in ours


def test_groups_are_means_over_their_classes(records):
    [first, *_] = of(records, "mfgr")
    row = plots.fine(first, "within", 1)
    found = runs.by_group(first, runs.WARDROBE, "within")
    assert found["shirt-like"] == pytest.approx(row[:5].mean()) and found["easy"] == row[5:7].mean()
    assert found["new"] == pytest.approx(row[7:].mean()) and found["all"] == pytest.approx(row.mean())
    other = fine_grained(sizes=(3, 2))
    other.about["preset"] = "smoke"
    assert list(runs.by_group(other, runs.WARDROBE)) == ["old", "new", "all"]


def test_each_method_is_scored_on_all_old_and_old_among_old(records):
    spec = draw("mfgr-wardrobe")
    for column, group, words in (
        ("accuracy", "all", "All classes: "),
        ("accuracy", "old", "Old classes: "),
        ("within", "old", "Old classes among old outputs: "),
    ):
        part = spec.alt.partition(words)[2].partition(". ")[0]
        for method in runs.WARDROBE_METHODS:
            score = percent([runs.by_group(r, runs.WARDROBE, column)[group] for r in of(records, method)])
            assert f"{runs.label_of(method)} {score}" in spec.alt, (method, words)
        assert part


def test_ratios_come_from_records_with_that_setting(records):
    spec = draw("mfgr-fig6-ratio")
    assert len(spec.records) == 4
    for name, overrides in runs.RATIOS.items():
        score = percent([runs.by_group(r, runs.WARDROBE)["all"] for r in of(records, "mfgr", overrides)])
        assert f"{name} {score}" in spec.alt


def test_methods_without_a_record_are_named(records, tmp_path, monkeypatch):
    stem = experiments.exact_experiment("mfgr/wardrobe", "laptop").stem
    for path in records.glob(f"{stem}.*"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    monkeypatch.setattr(places, "RECORDS", tmp_path)
    assert "no record: Oracle; MFGR (released script)" in draw("mfgr-wardrobe").caption
    assert "LwF (SGD)" in draw("mfgr-table1-classes").caption


def scored(method, accuracy, within=None, before=0.9):
    """A result of the wardrobe whose classes all have these scores."""
    result = fine_grained(method, sizes=(7, 3), preset="teach")
    fine = result.trace["fine"]
    fine["accuracy"][0, :7], fine["accuracy"][1], fine["within"][1] = before, accuracy, within or accuracy
    return [result]


def test_claims_are_judged_on_the_means():
    groups = {"mfgr": scored("mfgr", 0.7, 0.88), "lwf-sgd": scored("lwf-sgd", 0.5, 0.6)}
    groups["lwf-sgd"][0].trace["fine"]["within"][1, :5] = 0.4
    found = runs.claims(groups)
    assert len(found) == 4 and all(found.values())
    groups = {"mfgr": scored("mfgr", 0.4, 0.86), "lwf-sgd": scored("lwf-sgd", 0.5)}
    groups["lwf-sgd"][0].trace["fine"]["within"][1, 5:7] = 0.3
    assert not any(runs.claims(groups).values())
    assert "MFGR is above DeepInversion on all classes" in runs.claims(
        groups | {"deep-inversion": scored("deep-inversion", 0.3)}
    )


def test_maps_state_the_numbers_of_the_features(records):
    from clkit.analysis.embedding import separation

    spec = draw("mfgr-fig3-maps")
    rows = of(records, "lwf-sgd")[0].trace["fine"]
    score = separation(np.asarray(rows["features"][1], float), rows["labels"][1])
    assert f"silhouette {score:.2f}" in spec.alt.partition("LwF (SGD): ")[2].partition(";")[0]


def test_a_command_with_a_long_path_fits_its_frame(monkeypatch):
    folder = "a-folder/of-somebody/courses/continual-learning/workbook/figures/results"
    command = f"python -m clkit run mfgr/wardrobe --preset laptop --seeds 0-4 --set ratio=3.0 --out {folder}"
    monkeypatch.setattr(runs, "_first", lambda *_: command)
    spec = runs.no_record("A title", "What it shows.", runs.WARDROBE, ("mfgr",))
    with warnings.catch_warnings():  # of a layout that was not applied
        warnings.simplefilter("error")
        spec.figure.canvas.draw()
    [text] = [t.get_text() for t in spec.figure.axes[0].texts if "clkit" in t.get_text()]
    assert " ".join(text.replace("\\\n", "").split()).endswith(command)
    plt.close(spec.figure)
