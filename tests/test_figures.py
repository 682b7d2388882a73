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

from clkit import figures, presets
from clkit.__main__ import main
from clkit.result import interval

METHODS = ("finetune", "lwf", "lwf-multihead", "er", "cumulative", "joint")


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    """A folder of records of the paper preset, whose settings are made small for these tests."""
    patch, folder = pytest.MonkeyPatch(), tmp_path_factory.mktemp("records")
    patch.setenv("CLKIT_RUNS", str(tmp_path_factory.mktemp("runs")))
    patch.setattr(presets, "RECORDS", folder)
    small = {
        "split-mnist": dataclasses.replace(presets.BENCHMARKS["split-mnist"]["smoke"], stream={"cap": 10}),
        "split-shapes": dataclasses.replace(presets.BENCHMARKS["split-shapes"]["paper"],
            options={"train_per_class": 1, "test_per_class": 2}),
        "shapes-families": dataclasses.replace(
            presets.BENCHMARKS["shapes-families"]["paper"],
            options={"train_per_class": 1, "test_per_class": 2},
        ),
    }
    for benchmark, row in small.items():
        patch.setitem(presets.BENCHMARKS, benchmark, presets.BENCHMARKS[benchmark] | {"paper": row})
        for method in METHODS:
            name = f"{method}/{benchmark}"
            patch.setitem(
                presets.SETTINGS, name, presets.SETTINGS[name] | {"paper": {"epochs": 1, "batch": 32}}
            )
    presets._stream.cache_clear()
    for method in METHODS:
        presets.run_experiment(f"{method}/split-mnist", "paper", (0, 1), out=folder, progress=False)
    for memory in figures.MEMORIES:
        presets.run_experiment(
            "er/split-mnist", "paper", (0, 1), out=folder, progress=False, overrides={"memory": memory}
        )
    presets.run_experiment("joint/split-shapes", "paper", (0,), out=folder, progress=False)
    yield folder
    patch.undo()
    presets._stream.cache_clear()


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
        assert record["seeds"] == ([0] if "shapes" in stem else [0, 1])
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
    ax = figures.memory_kept().figure.axes[0]
    drawn = ax.containers[0].lines[0]
    wanted = []
    for memory in figures.MEMORIES:
        stem = "er_split-mnist_paper" + ("" if memory == 500 else f"_memory-{memory}")
        wanted.append(100 * np.mean([r.average() for r in presets.load(records / stem)]))
    assert list(drawn.get_xdata()) == list(figures.MEMORIES)
    np.testing.assert_allclose(np.asarray(drawn.get_ydata(), float), wanted)


def test_one_sample_of_every_shape_is_drawn(records):
    axes = figures.shapes_samples().figure.axes
    assert [len(ax.texts) for ax in axes] == [10, 10]
    assert all(ax.images[0].get_array().shape[1] == 5 * 34 - 2 for ax in axes)


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
