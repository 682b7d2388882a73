"""Figures: every recipe draws from records alone, and writes the same bytes for the same records."""

import dataclasses
import getpass
import json
import re
import socket
import xml.etree.ElementTree

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pytest

from clkit import figures, plots, presets, published
from clkit.__main__ import main
from clkit.analysis import masks
from clkit.figures import baselines, spacenet
from clkit.result import interval, save
from clkit.run import result_key

METHODS = ("finetune", "lwf", "lwf-multihead", "er", "cumulative", "joint")
SPARSE = ("spacenet", "static")
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
             **{name: dataclasses.replace(presets.BENCHMARKS[name]["paper"], options=few)
                for name in ("split-shapes", "shapes-families")}}
    for benchmark, row in small.items():
        patch.setitem(presets.BENCHMARKS, benchmark, presets.BENCHMARKS[benchmark] | {"paper": row})
    for name, settings in list(presets.SETTINGS.items()):
        method, _, benchmark = name.partition("/")
        if benchmark in small:
            paper = {"epochs": 1, "batch": 32} if method in METHODS else settings["smoke"]
            patch.setitem(presets.SETTINGS, name, settings | {"paper": paper})
    presets._stream.cache_clear()
    for name, overrides, seeds in [(f"{m}/split-mnist", None, (0, 1)) for m in METHODS] + \
            [(f"{m}/split-mnist", None, (0, 1, 2)) for m in SPARSE] + \
            [("er/split-mnist", {"memory": memory}, (0, 1)) for memory in baselines.MEMORIES] + \
            [(f"{m}/split-mnist", None, (0,)) for m in ("ewc", "si", "mas", "dgr", "icarl", "rehearsal")] + \
            [("joint/split-shapes", None, (0,)), ("finetune/cifar10-100-500", None, (0,))]:
        presets.run_experiment(name, "paper", seeds, out=folder, overrides=overrides, progress=False)
    for n, (name, overrides, source) in enumerate(stand_ins()):
        copied(folder, name, overrides, source, luck=n / 60)
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
    return found + [(f"{m}/cifar10-100-500", None, "finetune_cifar10-100-500_paper")
                    for m in spacenet.CIFAR["methods"] if m != "finetune"]


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
