"""Figures: every recipe draws from records alone, and writes the same bytes for the same records."""

import dataclasses
import functools
import getpass
import json
import re
import socket
import xml.etree.ElementTree

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pytest

from clkit import figures, picture, plots, presets, published
from clkit.__main__ import main
from clkit.analysis import masks
from clkit.figures import arm, baselines, spacenet
from clkit.result import interval, save
from clkit.run import result_key

METHODS = ("finetune", "lwf", "lwf-multihead", "er", "cumulative", "joint")
SPARSE = ("spacenet", "static")
ONLINE = (arm.MNIST, f"{arm.MNIST}-val", f"{arm.MNIST}-mixed")
TWICE = ({"repeats": 2}, {"repeats": 2, "repeat": "afresh"})
WIDE = {"maps": (24, 24, 48, 48), "reserved": (1, 1, 2, 3, 8)}


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    """A folder of records of the paper preset, whose settings are made small for these tests."""
    patch, folder = pytest.MonkeyPatch(), tmp_path_factory.mktemp("records")
    patch.setenv("CLKIT_RUNS", str(tmp_path_factory.mktemp("runs")))
    patch.setattr(presets, "RECORDS", folder)
    digits = dataclasses.replace(presets.BENCHMARKS["split-mnist"]["smoke"], stream={"cap": 10})
    few = {"train_per_class": 1, "test_per_class": 2}
    small = {"split-mnist": digits, "split-fashion": digits, "split-mnist-shuffled": digits,
             "cifar10-100": presets.BENCHMARKS["cifar10-100"]["smoke"],
             "cifar10-100-500": presets.BENCHMARKS["cifar10-100-500"]["smoke"],
             **{name: presets.BENCHMARKS[name]["smoke"] for name in (*ONLINE, arm.CIFAR)},
             **{name: dataclasses.replace(presets.BENCHMARKS[name]["paper"], options=few)
                for name in ("split-shapes", "shapes-families")}}
    for benchmark, row in small.items():
        patch.setitem(presets.BENCHMARKS, benchmark, presets.BENCHMARKS[benchmark] | {"paper": row})
    for name, settings in list(presets.SETTINGS.items()):
        method, _, benchmark = name.partition("/")
        if benchmark in small:
            paper = {"epochs": 1, "batch": 32} if method in METHODS else settings["smoke"]
            if benchmark == arm.CIFAR:
                paper = paper | {"net": "convnet"}      # the residual network would take a minute
                paper |= {"lr": 0.1} if method == "naive" else {}
            patch.setitem(presets.SETTINGS, name, settings | {"paper": paper})
    patch.setitem(presets.COMPARED, "paper", 20)
    presets._stream.cache_clear()
    for name, overrides, seeds in [(f"{m}/split-mnist", None, (0, 1)) for m in METHODS] + \
            [(f"{m}/split-mnist", None, (0, 1, 2)) for m in SPARSE] + \
            [("er/split-mnist", {"memory": memory}, (0, 1)) for memory in baselines.MEMORIES] + \
            [(f"{m}/split-mnist", None, (0,)) for m in ("ewc", "si", "mas", "dgr", "icarl", "rehearsal")] + \
            [("joint/split-shapes", None, (0,)), ("finetune/cifar10-100-500", None, (0,))] + \
            [(f"{m}/{arm.MNIST}", None, (0, 1)) for m in ("arm", "naive", "stationary")] + \
            [(f"arm/{arm.CIFAR}", None, (0,))]:
        presets.run_experiment(name, "paper", seeds, out=folder, overrides=overrides, progress=False)
    for n, (name, overrides, source) in enumerate(stand_ins()):
        copied(folder, name, overrides, source, luck=0.618 * n % 1)         # far apart for rows of one figure
    yield folder
    patch.undo()
    presets._stream.cache_clear()


def stand_ins():
    """(experiment, overrides, stem of the record to copy): what the recipes read and nobody ran here."""
    found = [("rehearsal/split-mnist", {"lr": 0.01}, "rehearsal_split-mnist_paper")]
    found += [(f"{m}/split-fashion", None, f"{m}_split-mnist_paper")
              for m in "ewc si lwf dgr icarl rehearsal static spacenet".split()]
    found += [(name, o, f"{name.split('/')[0]}_split-mnist_paper")
              for _, name, o in spacenet.ABLATIONS + spacenet.PIXELS if o or "shuffled" in name]
    found += [("spacenet/cifar10-100-500", WIDE, "finetune_cifar10-100-500_paper")]
    found += [(f"{m}/cifar10-100-500", None, "finetune_cifar10-100-500_paper")
              for m in spacenet.CIFAR["methods"] if m != "finetune"]
    own = (f"arm/{arm.MNIST}", f"naive/{arm.MNIST}", f"stationary/{arm.MNIST}", f"arm/{arm.CIFAR}")
    online = [(name, o) for _, _, name, o in arm.TABLE_6 + arm.TABLE_7 + arm.TABLE_1 if o or name not in own]
    online += [(arm.SWEEP[0], {"diversity": w}) for w in arm.SWEEP[1]]
    return found + [(name, picture._own(name, o),
                     f"arm_{arm.CIFAR if arm.CIFAR in name else arm.MNIST}_paper")
                    for name, o in online if name in presets.SETTINGS]


def copied(folder, name, overrides, source, luck):
    """The record of an experiment, made from another one: a share `luck` of its answers is made right."""
    chosen, results = presets.experiment(name, "paper", overrides), []
    for r in presets.load(folder / source):
        about = r.about | {"experiment": name, "method": chosen.method, "benchmark": chosen.benchmark,
                           "config": dataclasses.asdict(chosen.config),
                           "key": result_key(chosen.learner, chosen.config, r.about["stream"])}
        lucky = np.random.default_rng(r.about["seed"]).random(r.predictions.shape) < luck
        answers = np.where(lucky & (r.predictions >= 0), r.labels, r.predictions)
        results.append(dataclasses.replace(r, about=about, predictions=answers))
    save(results, folder / chosen.stem)


@pytest.fixture(scope="module")
def built(records, tmp_path_factory):
    out = tmp_path_factory.mktemp("figures")
    return out, figures.build(out=out)


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


def test_every_figure_is_written_three_times(built):
    out, paths = built
    assert paths == [out / f"{name}.{end}" for name in figures.FIGURES for end in ("svg", "png", "json")]
    assert sorted(p.name for p in out.iterdir()) == sorted(p.name for p in paths)
    assert all(p.stat().st_size > 200 for p in paths) and not plt.get_fignums()
    for p in paths:
        if p.suffix == ".svg":
            assert xml.etree.ElementTree.parse(p).getroot().tag.endswith("svg")


def test_building_again_gives_the_same_bytes_whatever_the_style(built, tmp_path):
    some = ["averages-split-mnist", "accuracy-matrices", "shapes-samples"]
    with matplotlib.rc_context({"font.size": 17, "axes.facecolor": "yellow", "svg.hashsalt": "other"}):
        before = dict(matplotlib.rcParams)
        again = figures.build(some, out=tmp_path)
        assert dict(matplotlib.rcParams) == before
    assert len(again) == 9
    for path in again:
        assert path.read_bytes() == (built[0] / path.name).read_bytes(), path.name


def test_other_records_give_other_bytes(records, built, tmp_path, monkeypatch):
    monkeypatch.setattr(
        presets, "obtain", lambda name, *a, **k: presets.load(records / f"{name.replace('/', '_')}_paper")[:1]
    )
    figures.build(["averages-split-mnist"], out=tmp_path)
    for end in ("svg", "png", "json"):
        name = f"averages-split-mnist.{end}"
        assert (tmp_path / name).read_bytes() != (built[0] / name).read_bytes()


@pytest.mark.parametrize("name", figures.FIGURES)
def test_each_says_what_it_shows_and_where_from(built, records, name):
    text = (built[0] / f"{name}.json").read_text(encoding="utf-8")
    facts = json.loads(text)
    assert len(facts["alt"]) >= 40 and facts["caption"].endswith((".", ")")) and facts["figure"] == name
    assert (
        facts["command"] == f"python -m clkit figures {name}"
        and facts["matplotlib"] == matplotlib.__version__
    )
    assert re.search(r"seeds? 0|first test image", facts["stamp"])
    assert list(facts) == sorted(facts)
    for stem, record in facts["records"].items():
        assert (
            (records / f"{stem}.json").is_file()
            and record["key"]
            and record["date"]
            and record["versions"]["torch"]
        )
        assert record["seeds"] == [r.about["seed"] for r in presets.load(records / stem)]
    assert bool(facts["records"]) == (name != "shapes-samples")
    for end in ("json", "svg"):
        content = (built[0] / f"{name}.{end}").read_text(encoding="utf-8")
        assert not re.search(r"(?<![\w.:/])/(home|root|tmp|work|Users|usr)/", content)
        assert not re.search(r"\d{4}-\d\d-\d\dT\d\d:\d\d", content)
        for word in (getpass.getuser(), socket.gethostname()):
            assert len(word) <= 5 or word not in content
    assert facts["alt"] in " ".join(
        xml.etree.ElementTree.parse(built[0] / f"{name}.svg").getroot().itertext()
    )


def test_a_description_has_the_numbers_of_the_records(records):
    for name, stem, score in (("averages-split-mnist", "er", lambda r: r.average()),
                              ("scenarios-split-mnist", "lwf-multihead", lambda r: r.within_average()),
                              ("confusion-finetune-er", "finetune", lambda r: r.newest_share())):
        i = interval([score(r) for r in presets.load(records / f"{stem}_split-mnist_paper")])
        picture = figures.FIGURES[name]()
        assert f"{100 * i.mean:.1f} % (± {100 * i.half:.1f}, 95 % t-interval, n = 2)" in picture.alt


def test_the_memory_sweep_draws_every_size(records):
    ax = baselines.memory_kept().figure.axes[0]
    drawn = ax.containers[0].lines[0]
    wanted = []
    for memory in baselines.MEMORIES:
        stem = "er_split-mnist_paper" + ("" if memory == 500 else f"_memory-{memory}")
        wanted.append(100 * np.mean([r.average() for r in presets.load(records / stem)]))
    assert list(drawn.get_xdata()) == list(baselines.MEMORIES)
    np.testing.assert_allclose(np.asarray(drawn.get_ydata(), float), wanted)


def test_one_sample_of_every_shape_is_drawn(records):
    axes = baselines.shapes_samples().figure.axes
    assert [len(ax.texts) for ax in axes] == [10, 10]
    assert all(ax.images[0].get_array().shape[1] == 5 * 34 - 2 for ax in axes)


# ---- SpaceNet

def drawn(figure):
    """The arrays of all images in the panels of a figure, in order."""
    return [ax.images[0].get_array().data for ax in figure.axes if ax.images]


def scales(figure):
    return [ax.images[0].get_clim() for ax in figure.axes if ax.images]


def test_sizes_are_those_of_the_records(records):
    picture = figures.FIGURES["spacenet-size"]()
    held = {stem.partition("_")[0]: masks.sizes(seeds[0]) for stem, seeds in picture.records.items()}
    own = held["spacenet"]["parameters"]
    assert list(held) == spacenet.SIZES and 810 < own < held["lwf"]["parameters"] < held["dgr"]["parameters"]
    assert f"iCaRL {held['icarl']['parameters']:,} and {held['icarl']['extra']:,} kept beside" in picture.alt
    assert f"has {478_410 / own:.1f} times the parameters of SpaceNet, DGR " \
           f"{held['dgr']['parameters'] / own:.1f} times; the paper says 28 times" in picture.alt
    texts = [t.get_text() for t in picture.figure.axes[0].texts]
    assert texts[0] == f"{own:,}" and texts[1].startswith(f"{own:,} + ")        # rehearsal keeps images


def test_activations_are_those_after_the_first_task(records):
    result = presets.load(records / "spacenet_split-mnist_paper")[0]
    values = result.trace["network"]["activations"][0]
    split = min(50, (result.labels == 0).sum())
    picture = figures.FIGURES["spacenet-activations"]()
    first, second = drawn(picture.figure)
    np.testing.assert_array_equal(np.hstack([first, second]), values)
    assert set(scales(picture.figure)) == {(0, values.max())} and first.shape[1] == 400
    for ax in picture.figure.axes[:2]:
        assert ax.lines[0].get_ydata()[0] == split
        assert ax.get_yticklabels()[0].get_text() == f"class 0\n({split} images)"
    for a in (first, second):
        columns, active = (a > 0).any(axis=0).sum(), 100 * (a > 0).mean()
        assert f"{columns} of 400 neurons are ever active, for an image {active:.1f} %" in picture.alt
        assert f"mean activations {masks.class_cosine(a[:split], a[split:]):.2f}." in picture.alt
    picture = figures.FIGURES["spacenet-activations-sorted"]()
    assert set(scales(picture.figure)) == {(0, values.max())}
    for a, ordered in zip((first, second), drawn(picture.figure), strict=True):
        columns = {tuple(c) for c in a.T if c.any()}
        assert {tuple(c) for c in ordered.T} == columns and ordered.shape[1] == (a > 0).any(axis=0).sum()
        assert (np.diff(ordered[:split].mean(axis=0) - ordered[split:].mean(axis=0)) <= 0).all()


def test_connections_stand_before_and_after(records):
    result = presets.load(records / "spacenet_split-mnist_paper")[0]
    picture = figures.FIGURES["spacenet-connections"]()
    wanted = [masks.block(result, 1, layer, epoch)[0] for layer in (1, 0) for epoch in (0, 3)]
    for shown, mask in zip(drawn(picture.figure), wanted, strict=True):
        np.testing.assert_array_equal(shown, mask)
    assert not np.array_equal(wanted[0], wanted[1])
    for before, after in (wanted[:2], wanted[2:]):
        old, new = (100 * np.sort(m.sum(axis=1))[-20:].sum() / m.sum() for m in (before, after))
        assert f"have {old:.0f} % of them at allocation, {new:.0f} % after training" in picture.alt
        assert f"any connection: {before.any(axis=1).sum()}, then {after.any(axis=1).sum()}." in picture.alt


def test_input_maps_share_a_scale_by_task(records):
    picture = figures.FIGURES["spacenet-input-maps"]()
    seeds = [presets.load(records / f"{m}_split-mnist_paper")[0] for m in SPARSE]
    maps = [[masks.block(r, task, 0)[0].sum(axis=0).reshape(28, 28) for task in (0, 2, 4)] for r in seeds]
    for shown, counts in zip(drawn(picture.figure), maps[0] + maps[1], strict=True):
        np.testing.assert_array_equal(shown, counts)
    tops = [max(m.max() for m in column) for column in zip(*maps, strict=True)]
    assert scales(picture.figure) == [(0, top) for top in tops * 2]
    assert f"task 3: {maps[0][1].max()} and {maps[1][1].max()};" in picture.alt


@pytest.mark.parametrize("name, benchmark, table, more", [
    ("spacenet-mnist", "split-mnist", "Table 2", ["SpaceNet (rehearsal), lr 0.01"]),
    ("spacenet-fashion", "split-fashion", "Table 3", [])])
def test_a_table_shows_ours_beside_what_is_printed(records, name, benchmark, table, more):
    picture = figures.FIGURES[name]()
    ax = picture.figure.axes[0]
    rows = [t.get_text() for t in ax.get_yticklabels()]
    diamonds = {round(line.get_ydata()[0]): line.get_xdata()[0] for line in ax.lines
                if line.get_marker() == "D"}
    for p in published.published(paper="spacenet", table=table, benchmark=benchmark):
        label = "DEN (not run here)"
        if p.method != "den":
            label = plots.style(p.method.removeprefix("spacenet-"))["label"]
        row = rows.index(label)
        assert diamonds.pop(row) == p.value and f"{label} {p.text} ± {p.spread:g}" in picture.alt
        assert p.text in [t.get_text() for t in ax.texts if t.xy[1] == row]
    assert not diamonds and rows[:len(more)] == more
    assert rows[-3:] == ["SpaceNet (static)", "SpaceNet", "DEN (not run here)"]
    static, own = ([100 * r.average() for r in presets.load(records / f"{m}_{benchmark}_paper")]
                   for m in ("static", "spacenet"))
    pairs = [list(line.get_xdata()) for line in ax.lines
             if list(line.get_ydata()) == [len(rows) - 3, len(rows) - 2]]
    assert pairs == [list(pair) for pair in zip(static, own, strict=True)]
    gain, wins = interval(np.subtract(own, static)), sum(np.greater(own, static))
    assert f"in {wins} of 3 seeds, on average by {gain.mean:.1f} points (± {gain.half:.1f}," in picture.alt


@pytest.mark.parametrize("name, variants", [("spacenet-ablations", spacenet.ABLATIONS),
                                            ("spacenet-pixels", spacenet.PIXELS)])
def test_each_variant_stands_in_the_row_of_its_name(records, name, variants):
    picture = figures.FIGURES[name]()
    ax = picture.figure.axes[0]
    assert [t.get_text() for t in ax.get_yticklabels()] == [label for label, _, _ in variants]
    means = []
    for row, (label, experiment, overrides) in enumerate(variants):
        stem = presets.experiment(experiment, "paper", overrides).stem
        means.append(100 * np.mean([r.average() for r in presets.load(records / stem)]))
        assert f"{label} {means[-1]:.1f} %" in picture.alt and stem in picture.records
        assert next(t for t in ax.texts if t.xy[1] == row).get_text().startswith(f"{means[-1]:.1f}")
    assert len(set(means)) == len(means)                # or a mistaken row could not be seen


def test_cifar_says_at_which_scale_it_was_run(records, monkeypatch):
    picture = figures.FIGURES["spacenet-cifar"]()
    labels = [t.get_text() for t in picture.figure.axes[0].get_legend().get_texts()]
    shown = [plots.style(m)["label"] for m in spacenet.CIFAR["methods"]]
    assert labels[:len(shown)] == shown and len(labels) == len(picture.records)
    assert f"Scale: {spacenet.cifar_scale()}; single seed" in picture.caption
    last = presets.load(records / "spacenet_cifar10-100-500_paper")[0].accuracy()[-1]
    assert f"SpaceNet {100 * np.std(last):.1f} %" in picture.alt.partition("deviation")[2]
    monkeypatch.setitem(spacenet.CIFAR, "wide", WIDE)
    wide = figures.FIGURES["spacenet-cifar"]()
    assert "SpaceNet (wide)" in [t.get_text() for t in wide.figure.axes[0].get_legend().get_texts()]
    assert len(wide.records) == len(picture.records) + 1


def test_the_scale_of_cifar_in_words(monkeypatch):
    for name, epochs, stream in (("cifar10-100", 20, {}), ("cifar10-100-500", 5, {"cap": 500})):
        row = dataclasses.replace(presets.BENCHMARKS[name]["paper"], stream=stream)
        monkeypatch.setitem(presets.BENCHMARKS, name, presets.BENCHMARKS[name] | {"paper": row})
        settings = presets.SETTINGS[f"spacenet/{name}"]
        settings = settings | {"paper": settings["paper"] | {"epochs": epochs}}
        monkeypatch.setitem(presets.SETTINGS, f"spacenet/{name}", settings)
    assert spacenet.cifar_scale() == ("5 epochs a task on 500 training images of each class, where the paper "
                                      "has 20 on all of them")
    monkeypatch.setitem(spacenet.CIFAR, "benchmark", "cifar10-100")
    assert spacenet.cifar_scale() == "20 epochs a task on all training images"


def test_the_scenarios_and_the_curves_have_their_numbers(records):
    said = figures.FIGURES["spacenet-task-aware"]().alt.partition("Told the task")
    for method in ("spacenet", "static"):
        both = [[f(r) for r in presets.load(records / f"{method}_split-mnist_paper")]
                for f in (lambda r: r.average(), lambda r: r.within_average())]
        for text, scores in zip(said[::2], both, strict=True):
            assert f"{plots.style(method)['label']} {100 * np.mean(scores):.1f} % (±" in text
    picture = figures.FIGURES["spacenet-curves"]()
    assert [ax.get_title() for ax in picture.figure.axes] == ["SpaceNet", "SpaceNet (static)"]
    ends = np.mean([r.accuracy()[-1] for r in presets.load(records / "static_split-mnist_paper")], axis=0)
    assert "static " + ", ".join(f"{100 * a:.1f} %" for a in ends) + "." in picture.alt


# ---- ARM

def shown_rows(rows):
    """Those of a table's rows that have a record here."""
    return [row for row in rows if picture.on_record(*row[2:])]


@functools.cache
def loaded(stem):
    return presets.load(stem)


def seeds_of(records, name, overrides=None):
    return loaded(records / presets.experiment(name, "paper", picture._own(name, overrides)).stem)


@pytest.mark.parametrize("name, rows, tables, benchmark", [
    ("arm-table6-mnist", arm.TABLE_6, ("Table 6",), arm.MNIST),
    ("arm-table1-cifar", arm.TABLE_1, ("Table 1",), arm.CIFAR),
    ("arm-table7-ablations", arm.TABLE_7, ("Table 7", "Table 2"), arm.CIFAR)])
def test_a_table_of_arm_shows_both_scores_beside_what_is_printed(records, name, rows, tables, benchmark):
    shown, drawing = figures.FIGURES[name](), None
    there = shown_rows(rows)
    assert len(there) >= 6
    for ax, metric in zip(shown.figure.axes, ("average accuracy", "forgetting"), strict=True):
        labels = [t.get_text() for t in shown.figure.axes[0].get_yticklabels()]
        assert labels == [row[0] for row in there]
        diamonds = {round(line.get_ydata()[0]): line.get_xdata()[0] for line in ax.lines
                    if line.get_marker() == "D"}
        means = []
        for n, (label, method, experiment, overrides) in enumerate(there):
            printed = next((p for t in tables for p in published.published(paper="arm", table=t)
                            if (p.benchmark, p.method, p.metric) == (benchmark, method, metric)), None)
            assert diamonds.pop(n, None) == (printed.value if printed else None), label
            score = (lambda r: r.average()) if metric == "average accuracy" else (lambda r: r.forgetting())
            mean = 100 * np.mean([score(r) for r in seeds_of(records, experiment, overrides)])
            drawing = next(t for t in ax.texts if t.xy[1] == n).get_text()
            assert drawing.startswith("–" if np.isnan(mean) else f"{mean:.1f}"), label
            assert np.isnan(mean) or f"{label} {mean:.1f}" in shown.alt
            means.append(mean)
        assert not diamonds     # and rows that differ, or a mistaken one could not be seen:
        assert metric == "forgetting" or len(set(means)) == len(means)
    absent = [row[0] for row in rows if row not in there]
    assert (f"no record of them: {'; '.join(absent)}." in shown.caption) == bool(absent)


def test_the_ablations_are_of_one_thing_and_are_measured_against_arm(records):
    ax = figures.FIGURES["arm-table7-ablations"]().figure.axes[0]
    own = 100 * np.mean([r.average() for r in seeds_of(records, f"arm/{arm.MNIST}")])
    assert any(list(line.get_xdata()) == pytest.approx([own, own]) for line in ax.lines)
    names = {row.method for row in published.rows() if row.paper == "arm"}
    for label, name, experiment, overrides in arm.TABLE_1 + arm.TABLE_6 + arm.TABLE_7:
        assert name is None or name in names, label
        assert experiment.partition("/")[0] in plots.STYLE, label
    for label, _, experiment, overrides in arm.TABLE_7[1:]:
        changed = picture._own(experiment, presets.experiment(experiment, "paper", overrides).overrides)
        assert len(changed) == len(overrides or {}) and (changed or experiment.endswith("-mixed")), label


def test_rows_without_a_record_are_left_out_and_named(records, tmp_path, monkeypatch):
    monkeypatch.setattr(presets, "RECORDS", tmp_path)
    for method in ("arm", "naive"):
        for end in ("json", "npz"):
            name = f"{method}_{arm.MNIST}_paper.{end}"
            (tmp_path / name).write_bytes((records / name).read_bytes())
    shown = figures.FIGURES["arm-table6-mnist"]()
    assert [t.get_text() for t in shown.figure.axes[0].get_yticklabels()] == ["Naive", "ARM"]
    assert "Left out, because there is no record of them: Stationary; ER, 50 images; ER-MIR" in shown.caption
    assert list(shown.records) == [f"{m}_{arm.MNIST}_paper" for m in ("naive", "arm")]
    twice = figures.FIGURES["arm-fig6-twice"]()
    assert "no record of them: twice, as in the code; twice, from the batch anew." in twice.caption
    (tmp_path / f"naive_{arm.MNIST}_paper.json").unlink()
    alone = figures.FIGURES["arm-fig4-accuracy-mnist"]()
    assert alone.caption.endswith("no record of them: Naive (one pass).") and "Grey" not in alone.caption
    (tmp_path / f"arm_{arm.MNIST}_paper.json").unlink()
    for name in ("arm-fig4-accuracy-mnist", "arm-table7-ablations", "arm-fig2-recalled"):
        with pytest.raises(presets.PresetError, match=f"python -m clkit run arm/{arm.MNIST} --preset paper"):
            figures.FIGURES[name]()
    with pytest.raises(presets.PresetError, match="no record of stationary/mnist-5k-5"):
        figures.FIGURES["arm-table6-mnist"]()


def test_recalled_images_are_those_of_the_first_seed(records):
    shown = figures.FIGURES["arm-fig2-recalled"]()
    images = seeds_of(records, f"arm/{arm.MNIST}")[0].trace["images"]
    for ax, (task, row) in zip(shown.figure.axes, arm.PAIRS, strict=True):
        place = np.flatnonzero(images["task"] == task)[row]
        assert ax.get_title() == f"ARM, task {task + 1}, batch {images['step'][place] + 1}"
        low, high = images["recalled"][place].min(), images["recalled"][place].max()
        old = (images["answers"][place].argmax(axis=1) < 2 * task).sum()
        assert f"takes {old} of {len(images['answers'][place])} recalled images" in shown.alt
        assert f"pixels range from {low:.1f} to {high:.1f}." in shown.alt
        start = images["start"][place][0, 0]
        board = ax.images[0].get_array()
        np.testing.assert_allclose(board[-len(start):, :len(start), 0], start, atol=1e-6)


def test_recall_maps_are_of_cifar_where_its_weights_are_on_record(records, monkeypatch):
    shown = figures.FIGURES["arm-fig3-outputs"]()
    weights = arm.MAPS[f"{arm.MNIST}-val"]
    maps = [ax for ax in shown.figure.axes if ax.images]
    assert [ax.get_title() for ax in maps] == [f"diversity weight {w:g}" for w in weights]
    assert len({ax.images[0].get_clim() for ax in maps}) == 1
    assert "The paper shows this for CIFAR10, of which there is no such record." in shown.caption
    for ax, weight in zip(maps, weights, strict=True):
        seeds = seeds_of(records, arm.SWEEP[0], {"diversity": weight})
        wanted = 100 * np.mean([r.trace["recall"]["output"] for r in seeds], axis=0).T
        np.testing.assert_allclose(np.ma.filled(ax.images[0].get_array(), np.nan), wanted, rtol=1e-4)
    output = np.array([r.trace["recall"]["output"] for r in seeds])         # of the last weight, 16
    task = seeds[0].trace["recall"]["task"]
    first = 100 * output[:, task > 0, :2].sum(axis=2).mean()
    unmet = 100 * np.mean([output[:, task == t, 2 * t:].sum(axis=2) for t in range(1, 5)])
    assert f"diversity weight 16 {first:.1f} %" in shown.alt and f" and {unmet:.1f} %." in shown.alt
    monkeypatch.setitem(arm.MAPS, arm.CIFAR, (16, 0.5))
    copied(records, f"arm/{arm.CIFAR}", {"diversity": 0.5}, f"arm_{arm.CIFAR}_paper", luck=0.1)
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
        rise = 100 * (a[j + 1:, j].max() - a[j, j])
        assert (f"task {j + 1} by {rise:.1f} points" in shown.alt.partition("Naive")[0]) == (rise > 0)


def test_the_diversity_sweep_stars_the_best_of_the_records(records):
    shown = figures.FIGURES["arm-fig5-diversity"]()
    means = {w: 100 * np.mean([r.average() for r in seeds_of(records, arm.SWEEP[0], {"diversity": w})])
             for w in arm.SWEEP[1]}
    star = next(line for line in shown.figure.axes[0].lines if line.get_marker() == "*")
    best = max(means, key=means.get)
    assert (star.get_xdata()[0], star.get_ydata()[0]) == (best, pytest.approx(means[best]))
    assert f"The best mean is that of weight {best:g}." in shown.alt
    assert "best weights are 16 on MNIST, 16 on CIFAR10 and 1 on MiniImageNet" in shown.caption
    assert "arm_mnist-5k-5-val_paper" in shown.records  # 16 is the setting itself, and no override


def test_recalling_twice_stands_beside_once(records):
    shown = figures.FIGURES["arm-fig6-twice"]()
    axes = shown.figure.axes
    assert [ax.get_title() for ax in axes[:3]] == ["once", "twice, as in the code",
                                                   "twice, from the batch anew"]
    for ax, overrides in zip(axes[3:6], (None, *TWICE), strict=True):
        seeds = seeds_of(records, f"arm/{arm.MNIST}", overrides)
        end = next(line for line in ax.lines if line.get_label() == "1").get_ydata()[-1]
        assert end == pytest.approx(100 * np.mean([r.accuracy()[-1, 0] for r in seeds]))
        assert f" {100 * np.mean([r.average() for r in seeds]):.1f} ±" in shown.alt
    assert [ax.get_legend() is not None for ax in axes[3:6]] == [False, False, True]


@pytest.mark.parametrize("name, benchmark, table", [
    ("arm-fig7-gradients", arm.MNIST, "Table 10"), ("arm-fig7-gradients-cifar", arm.CIFAR, "Figure 7")])
def test_gradients_stand_beside_the_printed_ones_and_a_control(records, name, benchmark, table):
    shown = figures.FIGURES[name]()
    seeds = seeds_of(records, f"arm/{benchmark}")
    rows = seeds[0].trace["gradients"]
    groups = list(dict.fromkeys(rows["group"]))
    printed = {p.metric: p.value for p in published.published(paper="arm", table=table)}
    known = [g for g in groups if f"gradient correlation, hard targets, {said(g)}, class 1" in printed]
    assert len(known) > 1
    for n, condition in enumerate(("hard", "soft", "control hard", "control soft")):
        hollow = [line.get_ydata()[0] for line in shown.figure.axes[n].lines
                  if line.get_markerfacecolor() == "white" and len(line.get_xdata())]
        assert hollow == ([printed[f"gradient correlation, {condition} targets, {said(g)}, class {k}"]
                           for k in (1, 2) for g in known] if n < 2 else [])
        for group in groups:
            mine = (rows["condition"] == condition) & (rows["group"] == group)
            both = [np.mean([r.trace["gradients"]["mean"][mine & (rows["which"] == which)] for r in seeds])
                    for which in ("class 1", "class 2")]
            assert f"{group} {both[0]:.3f} and {both[1]:.3f}" in shown.alt
    assert f"n = {len(seeds)}" in shown.caption and table in shown.caption


def said(group):
    return "all" if group == "All" else re.sub(r"(\d)", r" \1", group)


# ---- asking for figures

@pytest.mark.parametrize("name, says", [("averges-split-mnist", "did you mean averages-split-mnist"),
                                        ("zzz", "there are accuracy-matrices, averages")])
def test_an_unknown_name_is_refused_before_anything_is_written(records, tmp_path, capsys, name, says):
    assert main(["figures", "accuracy-matrices", name, "--out", str(tmp_path / "out")]) == 2
    said = capsys.readouterr()
    assert f"there is no figure '{name}'; {says}" in said.err and not said.out
    assert not (tmp_path / "out").exists()


def test_the_command_writes_and_lists_what_it_wrote(records, tmp_path, capsys):
    assert main(["figures", "forgetting-split-mnist", "--out", str(tmp_path)]) == 0
    assert capsys.readouterr().out.split() == [
        str(tmp_path / f"forgetting-split-mnist.{e}") for e in ("svg", "png", "json")
    ]


def test_a_missing_record_names_the_command_that_makes_it(records, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(presets, "RECORDS", tmp_path / "none")
    assert main(["figures", "tasks-over-time", "--out", str(tmp_path)]) == 2
    assert "python -m clkit run finetune/split-mnist --preset paper --seeds 0-4" in capsys.readouterr().err


def test_a_stale_record_is_refused(records, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(presets.SETTINGS, "finetune/split-mnist",
                        presets.SETTINGS["finetune/split-mnist"] | {"paper": {"epochs": 2, "batch": 32}})
    assert main(["figures", "tasks-over-time", "--out", str(tmp_path)]) == 2
    assert "is stale" in capsys.readouterr().err
