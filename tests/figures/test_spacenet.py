"""Figures of SpaceNet: plots and texts agree with the records."""

import numpy as np
import pytest

from clkit import experiments, figures, plots
from clkit.analysis import masks
from clkit.figures import spacenet
from clkit.papers import published
from clkit.result import interval, load
from tests.figures.conftest import put

SPARSE = ("spacenet", "static")
WIDE = {"maps": (64, 64, 128, 128), "reserved": (4, 4, 10, 12, 30)}


def drawn(figure):
    """The arrays of all images in the panels of a figure, in order."""
    return [ax.images[0].get_array().data for ax in figure.axes if ax.images]


def scales(figure):
    return [ax.images[0].get_clim() for ax in figure.axes if ax.images]


def test_every_figure_has_a_title(records):
    titles = [f().title for f in spacenet.FIGURES.values()]
    assert all(1 < len(t.split()) < 9 and t[-1] != "." for t in titles) and len(set(titles)) == len(titles)


def test_the_schematic_has_the_four_phases_in_order_and_its_arrows_meet_boxes():
    spec = figures.FIGURES["spacenet-schematic"]()
    texts = [t.get_text() for t in spec.figure.axes[0].texts]
    for number, phase in enumerate(("Allocate", "Train", "Drop and grow", "Reserve"), 1):
        assert sum(t.startswith(f"{number} {phase}\n") for t in texts) == 1
        assert f"Phase {number}, " in spec.alt
    assert {name for arrow in spacenet._ARROWS for name in arrow[:2]} == set(spacenet._BOXES)
    assert spec.records == {} and ("reserve", "free") in [arrow[:2] for arrow in spacenet._ARROWS]


def test_sizes_are_those_of_the_records(records):
    spec = figures.FIGURES["spacenet-size"]()
    held = {stem.partition("_")[0]: masks.sizes(seeds[0]) for stem, seeds in spec.records.items()}
    own = held["spacenet"]["parameters"]
    assert list(held) == spacenet.SIZES and own == 630
    assert (
        f"iCaRL {held['icarl']['parameters']:,} and {held['icarl']['extra']:,} stored in addition" in spec.alt
    )
    assert (
        f"has {held['lwf']['parameters'] / own:.1f} times the parameters of SpaceNet, DGR "
        f"{held['dgr']['parameters'] / own:.1f} times; the paper says 28 times" in spec.alt
    )
    texts = [t.get_text() for t in spec.figure.axes[0].texts]
    assert texts[0] == f"{own:,} + {held['spacenet']['extra']:,}" and len(texts) == len(held)


def test_activations_are_those_after_the_first_task(records):
    result = load(records / "spacenet_split-mnist_paper")[0]
    values = result.trace["network"]["activations"][0]
    split = min(50, (result.labels == 0).sum())
    spec = figures.FIGURES["spacenet-activations"]()
    first, second = drawn(spec.figure)
    np.testing.assert_array_equal(np.hstack([first, second]), values)
    assert set(scales(spec.figure)) == {(0, values.max())} and first.shape[1] == 400
    for ax in spec.figure.axes[:2]:
        assert ax.lines[0].get_ydata()[0] == split
        assert ax.get_yticklabels()[0].get_text() == f"class c0\n({split} images)"
    for a in (first, second):
        columns, active = (a > 0).any(axis=0).sum(), 100 * (a > 0).mean()
        said = f"{columns} of 400 neurons are active for any image, and an image activates {active:.1f} %"
        assert said in spec.alt
        assert f"mean activations {masks.class_cosine(a[:split], a[split:]):.2f}." in spec.alt
    spec = figures.FIGURES["spacenet-activations-sorted"]()
    assert set(scales(spec.figure)) == {(0, values.max())}
    for a, ordered in zip((first, second), drawn(spec.figure), strict=True):
        columns = {tuple(c) for c in a.T if c.any()}
        assert {tuple(c) for c in ordered.T} == columns and ordered.shape[1] == (a > 0).any(axis=0).sum()
        assert (np.diff(ordered[:split].mean(axis=0) - ordered[split:].mean(axis=0)) <= 0).all()


def test_connections_stand_before_and_after(records):
    result = load(records / "spacenet_split-mnist_paper")[0]
    spec = figures.FIGURES["spacenet-connections"]()
    wanted = [masks.block(result, 1, layer, epoch)[0] for layer in (1, 0) for epoch in (0, 2)]
    for shown, mask in zip(drawn(spec.figure), wanted, strict=True):
        np.testing.assert_array_equal(shown, mask)
    assert not np.array_equal(wanted[0], wanted[1])
    for before, after in (wanted[:2], wanted[2:]):
        old, new = (100 * np.sort(m.sum(axis=1))[-20:].sum() / m.sum() for m in (before, after))
        assert f"have {old:.0f} % of them at allocation, {new:.0f} % after training" in spec.alt
        assert f"any connection: {before.any(axis=1).sum()}, then {after.any(axis=1).sum()}." in spec.alt


def test_input_maps_share_a_scale_by_task(records):
    spec = figures.FIGURES["spacenet-input-maps"]()
    seeds = [load(records / f"{m}_split-mnist_paper")[0] for m in SPARSE]
    maps = [[masks.block(r, task, 0)[0].sum(axis=0).reshape(28, 28) for task in (0, 2, 4)] for r in seeds]
    for shown, counts in zip(drawn(spec.figure), maps[0] + maps[1], strict=True):
        np.testing.assert_array_equal(shown, counts)
    tops = [max(m.max() for m in column) for column in zip(*maps, strict=True)]
    assert scales(spec.figure) == [(0, top) for top in tops * 2]
    assert f"task 3: {maps[0][1].max()} and {maps[1][1].max()};" in spec.alt


@pytest.mark.parametrize(
    "name, benchmark, table, more",
    [
        ("spacenet-mnist", "split-mnist", "Table 2", ["SpaceNet (rehearsal), lr 0.01"]),
        ("spacenet-fashion", "split-fashion", "Table 3", []),
    ],
)
def test_a_table_shows_ours_beside_what_is_printed(records, name, benchmark, table, more):
    spec = figures.FIGURES[name]()
    ax = spec.figure.axes[0]
    rows = [t.get_text() for t in ax.get_yticklabels()]
    diamonds = {
        round(line.get_ydata()[0]): line.get_xdata()[0] for line in ax.lines if line.get_marker() == "D"
    }
    for p in published.published(paper="spacenet", table=table, benchmark=benchmark):
        label = "DEN (not run here)"
        if p.method != "den":
            label = plots.style(p.method.removeprefix("spacenet-"))["label"]
        row = rows.index(label)
        assert diamonds.pop(row) == p.value and f"{label} {p.text} ± {p.spread:g}" in spec.alt
        assert p.text in [t.get_text() for t in ax.texts if t.xy[1] == row]
    assert not diamonds and rows[: len(more)] == more
    assert rows[-3:] == ["SpaceNet (static)", "SpaceNet", "DEN (not run here)"]
    static, own = (
        [100 * r.average() for r in load(records / f"{m}_{benchmark}_paper")] for m in ("static", "spacenet")
    )
    pairs = [
        list(line.get_xdata())
        for line in ax.lines
        if list(line.get_ydata()) == [len(rows) - 3, len(rows) - 2]
    ]
    assert pairs == [list(pair) for pair in zip(static, own, strict=True)]
    gain, wins = interval(np.subtract(own, static)), sum(np.greater(own, static))
    assert f"in {wins} of 2 seeds, on average by {gain.mean:.1f} points (± {gain.half:.1f}," in spec.alt


@pytest.mark.parametrize(
    "name, variants", [("spacenet-ablations", spacenet.ABLATIONS), ("spacenet-pixels", spacenet.PIXELS)]
)
def test_each_variant_stands_in_the_row_of_its_name(records, name, variants):
    spec = figures.FIGURES[name]()
    ax = spec.figure.axes[0]
    assert [t.get_text() for t in ax.get_yticklabels()] == [label for label, _, _ in variants]
    means = []
    for row, (label, experiment, overrides) in enumerate(variants):
        stem = experiments.experiment(experiment, "paper", overrides).stem
        means.append(100 * np.mean([r.average() for r in load(records / stem)]))
        assert f"{label} {means[-1]:.1f} %" in spec.alt and stem in spec.records
        assert next(t for t in ax.texts if t.xy[1] == row).get_text().startswith(f"{means[-1]:.1f}")
    assert len(set(means)) == len(means)  # or a mistaken row could not be seen


def test_cifar_says_at_which_scale_it_was_run(records, monkeypatch):
    spec = figures.FIGURES["spacenet-cifar"]()
    labels = [t.get_text() for t in spec.figure.axes[0].get_legend().get_texts()]
    shown = [plots.style(m)["label"] for m in spacenet.CIFAR["methods"]]
    assert labels[: len(shown)] == shown and len(labels) == len(spec.records)
    assert f"Size laptop: {spacenet.cifar_scale()}; single seed" in spec.caption
    last = load(records / "spacenet_cifar10-100_laptop")[0].accuracy()[-1]
    assert f"SpaceNet {100 * np.std(last):.1f} %" in spec.alt.partition("deviation")[2]
    put(records, "spacenet/cifar10-100", "laptop", WIDE, skill=0.5, seeds=(0,))
    monkeypatch.setitem(spacenet.CIFAR, "wide", WIDE)
    wide = figures.FIGURES["spacenet-cifar"]()
    assert "SpaceNet (wide)" in [t.get_text() for t in wide.figure.axes[0].get_legend().get_texts()]
    assert len(wide.records) == len(spec.records) + 1


def test_the_scale_of_cifar_in_words(monkeypatch):
    assert spacenet.cifar_scale() == (
        "5 epochs a task on 500 training images of each class, where the paper has 20 on all of them"
    )
    monkeypatch.setitem(spacenet.CIFAR, "preset", "paper")
    assert spacenet.cifar_scale() == "20 epochs a task on all training images"


def test_the_scenarios_and_the_curves_have_their_numbers(records):
    said = figures.FIGURES["spacenet-task-aware"]().alt.partition("Task-aware: ")
    for method in ("spacenet", "static"):
        both = [
            [f(r) for r in load(records / f"{method}_split-mnist_paper")]
            for f in (lambda r: r.average(), lambda r: r.task_aware_average())
        ]
        for text, scores in zip(said[::2], both, strict=True):
            assert f"{plots.style(method)['label']} {100 * np.mean(scores):.1f} % (±" in text
    spec = figures.FIGURES["spacenet-curves"]()
    assert [ax.get_title() for ax in spec.figure.axes] == ["SpaceNet", "SpaceNet (static)"]
    ends = np.mean([r.accuracy()[-1] for r in load(records / "static_split-mnist_paper")], axis=0)
    assert "static " + ", ".join(f"{100 * a:.1f} %" for a in ends) + "." in spec.alt
