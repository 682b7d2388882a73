"""Experiments: names, settings, streams, own data, and results that are loaded, computed or refused."""

import contextlib
import dataclasses
import functools
import json
import os
import shlex
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from clkit import experiments, papers
from clkit.blocks import nets
from clkit.data import shapes
from clkit.errors import ClkitError
from clkit.experiments import PresetError, experiment, load_or_run, load_record, places, run_experiment
from clkit.experiments.benchmark import _stream
from clkit.experiments.load import records_in
from clkit.experiments.runner import _end_with, _seed_result, run_folder
from clkit.methods import LEARNERS
from clkit.result import load, save
from tests.builders import class_folders

EMBEDDED = ("digits", "digits28", "shapes")


@pytest.fixture(autouse=True)
def apart(tmp_path, monkeypatch):
    monkeypatch.setenv("CLKIT_RUNS", str(tmp_path / "runs"))
    monkeypatch.setattr(places, "RECORDS", tmp_path / "records")
    monkeypatch.delenv("CLKIT_DATA", raising=False)


# ---- the rows


@pytest.mark.parametrize("name", experiments.names())
@pytest.mark.parametrize("preset", experiments.PRESETS)
def test_every_row_makes_sense(name, preset):
    row = experiment(name, preset)
    assert row.method in LEARNERS and row.benchmark in papers.benchmarks() and name == name.lower()
    assert row.preset == preset or preset == "laptop", "a size may only stand for the paper's"
    assert preset in ("laptop", "paper") or row.data in EMBEDDED, "smoke and teach need no download"
    assert row.config == experiments.config_class(row.learner)(**row.settings), "a Config that can be built"


STREAMS = {  # of each that several benchmarks or sizes share, one
    str(papers.benchmark(name, preset)): (name, preset)
    for name in papers.benchmarks()
    for preset in experiments.PRESETS
    if papers.benchmark(name, preset).data in EMBEDDED
}


@pytest.fixture
def few_shapes(monkeypatch):
    """Shapes of which a class has three images, which take less time to draw."""
    draw = shapes.draw

    @functools.wraps(draw)
    def some(**options):
        return draw(**(options | {"train_per_class": 2, "test_per_class": 1}))

    monkeypatch.setattr(shapes, "draw", some)
    _stream.cache_clear()
    yield
    _stream.cache_clear()


@pytest.mark.parametrize("name, preset", STREAMS.values())
def test_embedded_streams_can_be_had(name, preset, few_shapes):
    row = papers.benchmark(name, preset)
    assert experiments.stream(name, preset).classes_per_task == row.classes_per_task


def test_every_method_has_an_experiment_and_a_learner():
    assert {n.partition("/")[0] for n in experiments.names()} == LEARNERS.keys() == papers.methods().keys()


def test_every_method_has_a_look_of_its_own():
    looks = [
        tuple(map(str, (s["color"], s["marker"], s["linestyle"])))
        for s in map(papers.style, papers.methods())
    ]
    assert len(set(looks)) == len(looks)
    mine, yours = papers.style("mine"), papers.style("yours")
    assert mine == papers.style("mine") and mine != yours and mine["label"] == "mine"
    assert tuple(map(str, (mine["color"], mine["marker"], mine["linestyle"]))) not in looks


def test_mixed_tasks_hold_one_of_each_family_and_family_tasks_one_family():
    for task in experiments.stream("shapes-siblings", "teach"):
        groups = task.train.groups[task.first : task.seen]
        assert len(set(groups)) == len(groups) == 4
    for task in experiments.stream("shapes-families", "teach"):
        assert len(set(task.train.groups[task.first : task.seen])) == 1


# ---- settings


@pytest.mark.parametrize(
    "text, value",
    [
        ("epochs=3", 3),
        ("lr=1", 1.0),
        ("lr=0.5", 0.5),
        ("heads=multi", "multi"),
        ("balance=false", False),
        ("balance=False", False),
    ],
)
def test_settings_are_read_as_their_type(text, value):
    key, _, words = text.partition("=")
    config = experiment("lwf/split-digits", "smoke", {key: words}).config
    assert getattr(config, key) == value and type(getattr(config, key)) is type(value)


@pytest.mark.parametrize(
    "key, value, message",
    [
        ("epoch", "3", "no setting 'epoch'; did you mean epochs"),
        ("epochs", "many", "epochs must be a whole number of at least 1, not 'many'"),
        ("epochs", "1.5", "not 1.5"),
        ("epochs", "True", "not True"),
        ("balance", "1", "balance must be True or False, not 1"),
        ("heads", "three", "heads"),
        ("epochs", "0", "at least 1"),
    ],
)
def test_wrong_settings_are_reported(key, value, message):
    with pytest.raises(PresetError, match=message):
        experiment("lwf/split-digits", "smoke", {key: value})


@pytest.mark.parametrize(
    "name, preset, message",
    [
        ("finetun/split-mnist", "smoke", "did you mean finetune/split-mnist"),
        ("finetune/split-mnist", "papers", "did you mean paper"),
        ("nothing", "smoke", "clkit list"),
        ("er/split-mnis", "smoke", "did you mean er/split-mnist"),
    ],
)
def test_unknown_names_are_reported(name, preset, message):
    with pytest.raises(PresetError, match=message):
        experiment(name, preset)


def test_the_first_tasks_of_an_experiment_have_a_record_of_their_own(tmp_path, monkeypatch):
    monkeypatch.setattr(places, "RECORDS", tmp_path / "records")
    found = experiment("er/split-digits", "smoke", first_tasks=2)
    assert found.command.endswith(f"--first-tasks 2 {places.records_option()}")
    assert run_folder(found, 0) == run_folder(experiment("er/split-digits", "smoke"), 0)
    again = experiment("er/split-digits", "smoke", first_tasks=len(found.stream_row.classes_per_task))
    assert again == experiment("er/split-digits", "smoke"), "all tasks are the experiment itself"

    run_experiment("er/split-digits", "smoke", (0,), out=places.RECORDS, first_tasks=2, progress=False)
    [result] = load_record("er/split-digits", "smoke", first_tasks=2)
    assert len(result.seen) == 2 and places.record_of(f"{again.stem}_first-2-tasks").is_file()
    assert list(records_in(places.RECORDS)[("split-digits", "smoke")]) == ["er (first 2 tasks)"]
    shutil.copy(places.record_of(found.stem), places.record_of(again.stem))
    shutil.copy(
        places.record_of(found.stem).with_suffix(".npz"), places.record_of(again.stem).with_suffix(".npz")
    )
    with pytest.raises(PresetError, match="stale .it has the first 2 tasks."):
        load_record("er/split-digits", "smoke")


@pytest.mark.parametrize("first", [0, 99, "2", 1.0, True])
def test_first_tasks_that_there_are_not_are_reported(first):
    with pytest.raises(PresetError, match="first_tasks must be a whole number from 1 to"):
        experiment("er/split-digits", "smoke", first_tasks=first)
    with pytest.raises(PresetError, match="all tasks at once: leave first_tasks out"):
        experiment("joint/split-digits", "smoke", first_tasks=1)


def test_an_override_that_changes_nothing_is_none():
    plain = experiment("arm/mnist-5k-5", "paper")
    same = experiment("arm/mnist-5k-5", "paper", {"n_steps": "10", "lr": plain.config.lr})
    assert same == plain and same.stem == plain.stem and same.tables == plain.tables
    other = experiment("arm/mnist-5k-5", "paper", {"n_steps": "10", "n_images": "20"})
    assert (
        other.overrides == {"n_images": 20}
        and "objective" not in other.tables
        and "objective" in plain.tables
    )


@pytest.mark.parametrize(
    "settings, stem, command",
    [
        ({"reserved": "(20, 20)"}, "reserved-20-20", "--set 'reserved=(20, 20)' --out"),
        ({"mean": (0.0,), "std": (1.0,)}, "mean-0.0_std-1.0", "--set 'std=(1.0,)' --out"),
        ({"connections": 0.1}, "connections-0.1", "--set connections=0.1 --out"),
    ],
)
def test_settings_of_several_numbers_have_plain_file_names(settings, stem, command):
    found = experiment("spacenet/split-mnist", "paper", settings)
    assert found.stem == f"spacenet_split-mnist_paper_{stem}"
    assert command in found.command and "--seeds 0-9" in found.command


def test_the_laptop_size_is_a_row_of_its_own_or_the_paper_s():
    assert experiment("er/split-mnist", "laptop") == experiment("er/split-mnist", "paper")
    small = experiment("spacenet/cifar10-100", "laptop")
    assert small.preset == "laptop" and small.stem == "spacenet_cifar10-100_laptop"
    assert small.stream_row.stream == {"max_per_class": 500} and small.seeds == (0,)


def test_a_shuffled_benchmark_has_an_order_for_each_seed():
    orders = [experiments.stream("split-mnist-shuffled", "smoke", seed).order for seed in (0, 1, 0)]
    assert orders[0] == orders[2] != orders[1] and sorted(orders[1]) == list(range(10))
    assert experiments.stream("split-mnist", "smoke", 1).order == tuple(range(10))
    a, b = run_experiment("spacenet/split-mnist-shuffled", "smoke", (0, 1), out=places.RECORDS)
    assert a.names != b.names
    found = load(places.RECORDS / "spacenet_split-mnist-shuffled_smoke")
    assert [r.about["stream"]["order"] for r in found] == [list(o) for o in orders[:2]]


@pytest.mark.parametrize("part", ["train", "val", "test", "labels"])
def test_a_cached_stream_that_was_written_into_is_made_anew(part):
    row = papers.Benchmark("digits28", (1,) * 3, {"side": 16}, {"max_per_class": 20, "val": 0.2}, (0, 1, 2))
    stream = experiments.stream_of(row)
    before = stream.digest()
    assert experiments.stream_of(row) is stream  # as long as nobody writes
    parts = {"test": stream.test.images, "labels": stream.merged()[0].train.labels}
    (parts[part] if part in parts else getattr(stream.to("cpu")[1], part).images).zero_()
    again = experiments.stream_of(row)
    assert stream.digest() != before == again.digest() and experiments.stream_of(row) is again


def test_a_run_after_somebody_wiped_the_images_is_the_same():
    def answers(seed):
        return experiments.run_seed("finetune/split-digits", "smoke", seed, progress=False)[1].rank

    stream = experiments.stream("split-digits", "smoke")
    for task in stream:
        task.train.images.zero_()
    wiped = answers(0)
    _stream.cache_clear()
    shutil.rmtree(os.environ["CLKIT_RUNS"])
    assert (wiped == answers(0)).all()


# ---- running


def test_absent_data_are_reported_once_before_any_process_starts(tmp_path, monkeypatch):
    monkeypatch.setenv("CLKIT_DATA", str(tmp_path))
    _stream.cache_clear()
    with pytest.raises(ValueError, match="data get mnist"):
        run_experiment("finetune/split-mnist", "paper", (0, 1), jobs=2)


def test_methods_share_their_first_task_and_the_record_says_whose_it_is(tmp_path):
    made = run_experiment("fecam/split-shapes", "smoke", (0, 1), progress=False)
    taken = run_experiment("ncm/split-shapes", "smoke", (0, 1), progress=False, out=tmp_path)
    for seed, read in enumerate(load(tmp_path / experiment("ncm/split-shapes", "smoke").stem)):
        [first] = read.about["shared"]
        assert first["from"] == f"fecam/split-shapes at smoke, seed {seed}" and first["task"] == 0
        assert first["key"] == made[seed].about["key"] and first == taken[seed].about["shared"][0]
        assert read.learn_seconds[0] > first["seconds"] > 0
    assert len(list(places.runs_root().glob("shared/*.pt"))) == 2 and "shared" not in made[0].about


def test_results_do_not_depend_on_the_number_of_processes():
    one = run_experiment("er/split-digits", "smoke", (0, 1), progress=False)
    found = experiment("er/split-digits", "smoke")
    again = [_seed_result((), found, s, "cpu", "*", 60.0) for s in (1, 0)][::-1]
    two = run_experiment("er/split-digits", "smoke", (0, 1), jobs=2, record=("loss", "memory"))
    for a, b, c in zip(one, two, again, strict=True):
        assert (a.rank == b.rank).all() and (a.rank == c.rank).all()
        assert (a.trace["loss"]["loss"] == b.trace["loss"]["loss"]).all()
    assert not (one[0].rank == one[1].rank).all()


OWN = """
from dataclasses import dataclass
from torch import nn
from torch.nn import functional as F
from clkit.methods.baselines import finetune
@dataclass(frozen=True)
class Config(finetune.Config):
    slope: float = 0.5
class Net(nn.Module):
    def __init__(self, shape, classes):
        super().__init__()
        self.layer = nn.Linear(64, classes)
    def forward(self, x):
        return self.layer(x.flatten(1))
class Mine(finetune.Finetune):
    def forward(self, x):
        return slope(super().forward(x), self.config)
def slope(x, config):
    return F.leaky_relu(x, config.slope)
"""


@pytest.fixture
def own_method(monkeypatch):
    """A method and a network that were typed into a notebook, entered in the registries."""
    space = {"__name__": "__main__"}
    exec(compile(OWN, "<cell>", "exec"), space)
    monkeypatch.setattr(sys.modules["__main__"], "Config", space["Config"], raising=False)
    monkeypatch.setitem(LEARNERS, "mine", space["Mine"])
    monkeypatch.setitem(nets.NETS, "mine", space["Net"])
    sizes = {preset: {"epochs": 1, "net": "mine"} for preset in experiments.PRESETS}
    paper = papers.Paper("Mine", "me", {"mine": papers.Variant("Mine")}, {"split-digits": sizes})
    monkeypatch.setitem(papers.PAPERS, "mine", paper)
    return space


def test_own_methods_and_networks_run_in_several_processes(own_method, tmp_path):
    two = run_experiment("mine/split-digits", "smoke", (0, 1), jobs=2)
    one = run_experiment("mine/split-digits", "smoke", (0, 1, 2), progress=False)
    assert all((a.rank == b.rank).all() for a, b in zip(one, two)) and len(one) == 3
    [folder] = (tmp_path / "runs").iterdir()
    assert len(list(folder.iterdir())) == 3, "what one process has computed, the other reads back"
    run_experiment("mine/split-digits", "smoke", (0, 1), out=places.RECORDS)
    said = []
    load_or_run("mine/split-digits", "smoke", say=said.append)
    own_method["slope"].__code__ = (lambda x, config: -x).__code__
    with pytest.raises(PresetError, match="another revision of the method made it"):
        load_or_run("mine/split-digits", "smoke", say=said.append)
    assert len(said) == 1 and said[0].startswith("loaded")


def test_what_cannot_be_sent_to_another_process_is_said(own_method):
    own_method["slope"].lock = threading.Lock()
    with pytest.raises(
        PresetError, match="mine holds what cannot be sent .*run it with one job, or write it"
    ):
        run_experiment("mine/split-digits", "smoke", (0, 1), jobs=2)


def test_a_process_that_is_killed_is_said_and_the_same_call_goes_on(own_method):
    before = own_method["slope"]
    exec("import os\ndef slope(x, config):\n    os.kill(os.getpid(), 9)", own_method)
    with pytest.raises(PresetError, match="was ended from outside.*run the same command again to resume"):
        run_experiment("mine/split-digits", "smoke", (0, 1), jobs=2)
    own_method["slope"] = before
    assert len(run_experiment("mine/split-digits", "smoke", (0, 1), jobs=2)) == 2


@pytest.mark.parametrize("seeds, jobs, most", [((0, 1), 12, 2), ((0, 1, 2), 2, 2), ((4,), 5, 0)])
def test_there_are_no_more_processes_than_seeds(monkeypatch, seeds, jobs, most):
    asked = []

    class Parallel:
        def __init__(self, n_jobs, initializer, initargs):
            asked.append(n_jobs)
            assert (initializer, initargs) == (_end_with, (os.getpid(),))

        def __call__(self, work):
            return [f(*words, **more) for f, words, more in work]

    monkeypatch.setattr("joblib.Parallel", Parallel)
    run_experiment("finetune/split-digits", "smoke", seeds, jobs=jobs)
    assert asked == [most] * bool(most)


WORKER = """
import sys, threading
from clkit.experiments.runner import _end_with
_end_with(int(sys.argv[1]))
sys.argv[2] == "early" or print(file=sys.stderr, flush=True)
threading.Event().wait(100)
"""
PARENT = """
import os, subprocess, sys
worker = [sys.executable, "-c", sys.argv[1], str(os.getpid()), sys.argv[2]]
worker = subprocess.Popen(worker, stderr=subprocess.PIPE)
sys.argv[2] == "early" or worker.stderr.read(1)
"""


@pytest.mark.parametrize("when", ["early", "later"])
def test_a_process_ends_with_its_parent_also_if_that_is_gone_before_it_begins(when):
    # The worker has the output of its parent, and run() waits until nobody has it.
    subprocess.run(
        [sys.executable, "-c", PARENT, WORKER, when], stdout=subprocess.PIPE, timeout=60, check=True
    )


@pytest.mark.parametrize("seeds", [(0, 0), [1, 2, 1]])
def test_a_seed_counts_once(seeds):
    with pytest.raises(PresetError, match="names a seed twice: name each seed once"):
        run_experiment("finetune/split-digits", "smoke", seeds)


@pytest.mark.parametrize("jobs", [0, -1, 1.5, "2", None, True])
def test_jobs_are_a_whole_number(jobs):
    with pytest.raises(PresetError, match="at least one seed and one job, not 1 and"):
        run_experiment("finetune/split-digits", "smoke", (0,), jobs=jobs)


@pytest.mark.parametrize("out", ["", " ", "a\0b", Path("~")])
def test_where_a_record_goes(monkeypatch, tmp_path, out):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    if not isinstance(out, Path):
        with pytest.raises(ClkitError, match="names no folder: write a path such as my-results"):
            run_experiment("finetune/split-digits", "smoke", out=out)
        assert not list(tmp_path.glob("*.json"))
    else:
        run_experiment("finetune/split-digits", "smoke", out=out)
        assert sorted(p.suffix for p in (tmp_path / "home").iterdir()) == [".json", ".npz"]


def test_names_of_files_fit_whatever_is_set():
    config = experiment("arm/mnist-5k-5", "smoke").config
    floats = [f.name for f in dataclasses.fields(config) if f.type is float]
    stems = []
    for value in (0.123456, 0.123457):
        found = experiment("arm/mnist-5k-5", "smoke", dict.fromkeys(floats, value))
        stems.append(found.stem)
        assert len(found.overrides) > 10 and len(f".{found.stem}.json.0123abcd.part".encode()) < 255
        assert len(run_folder(found, 0, tuple(found.learner.tables) + ("*",) * 40).parent.name.encode()) < 255
    assert stems[0] != stems[1] and stems[0][:25] == stems[1][:25]
    assert places.short("é" * 300).encode() and len(places.short("é" * 300).encode()) <= places.LONGEST


@pytest.mark.parametrize("here", ["notebooks", ".", "figures", None])
def test_the_command_that_renews_a_record_works_from_any_folder(here, monkeypatch, tmp_path):
    monkeypatch.setattr(places, "RECORDS", experiments.REPO_ROOT / "figures" / "results")
    monkeypatch.chdir(experiments.REPO_ROOT / here if here else tmp_path)
    command = shlex.split(experiment("finetune/split-digits", "smoke").command)
    assert places.folder(command[-1]) == places.RECORDS and command[-2] == "--out"
    assert command[-1] == ("figures/results" if here else str(places.RECORDS))
    assert here or places.folder("figures/results") != places.RECORDS


def test_activations_are_those_of_test_images_of_the_first_two_classes():
    learner, result = experiments.run_seed("spacenet/split-digits", "smoke", 0)
    test = experiments.stream("split-digits", "smoke").test
    index = [i for k in (0, 1) for i in (test.labels == k).nonzero()[:50, 0].tolist()]
    found = result.trace["network"]["activations"]
    expected = learner.activations(test.select(index).images / 255).numpy()
    assert (abs(found[-1] - expected) < 1e-2).all() and found[0].any() and (found[0] != found[-1]).any()


@pytest.mark.parametrize(
    "record, message",
    [("los", "records no table 'los'; did you mean loss"), (("loss", "maks"), "no table 'maks'")],
)
def test_a_table_that_no_method_records_is_reported(record, message):
    with pytest.raises(PresetError, match=message):
        run_experiment("er/split-digits", "smoke", record=record)


# ---- records


def test_computed_then_read_back_then_loaded_then_stale():
    said = []
    first = load_or_run("finetune/split-digits", "smoke", say=said.append)
    load_or_run("finetune/split-digits", "smoke", say=said.append)
    run_experiment("finetune/split-digits", "smoke", (0, 1), out=places.RECORDS)
    loaded = load_or_run("finetune/split-digits", "smoke", say=said.append)
    assert [line.split(" finetune_split-digits_smoke (")[0] for line in said] == [
        "computed",
        "read back",
        "loaded",
    ]
    assert "n = 2 seeds" in said[-1] and (loaded[0].rank == first[0].rank).all()
    for change, fault in (
        ({"key": "0" * 16}, "its key"),
        ({"revision": 99}, "another revision"),
        ({"config": {**loaded[0].about["config"], "epochs": 3}}, "it has other settings: epochs"),
    ):
        spoilt = [dataclass_with(r, change) for r in loaded]
        save(spoilt, places.RECORDS / "finetune_split-digits_smoke", replace=True)
        with pytest.raises(
            PresetError,
            match=rf"is stale \({fault}.*python -m clkit run finetune/split-digits "
            "--preset smoke --seeds 0 --out",
        ):
            load_or_run("finetune/split-digits", "smoke", say=said.append)
    assert len(said) == 3


def dataclass_with(result, change):
    """A result with changed facts."""
    return dataclasses.replace(result, about={**result.about, **change})


def test_overrides_have_records_of_their_own():
    run_experiment("er/split-digits", "smoke", overrides={"memory": "20"}, out=places.RECORDS)
    [result] = load_or_run("er/split-digits", "smoke", overrides={"memory": 20}, say=str)
    assert result.about["config"]["memory"] == 20
    assert (places.RECORDS / "er_split-digits_smoke_memory-20.json").is_file()
    assert "--set memory=20" in experiment("er/split-digits", "smoke", {"memory": 20}).command


def test_hours_of_work_are_not_begun_unasked():
    with pytest.raises(
        PresetError,
        match="no record of er/split-mnist at the paper preset: make it with `python -m clkit run",
    ):
        load_or_run("er/split-mnist", "paper")


def test_records_hold_what_the_paper_says_unless_more_is_asked_for():
    results = run_experiment("er/split-digits", "smoke", out=places.RECORDS)
    assert (
        load(places.RECORDS / "er_split-digits_smoke")[0].trace.keys() == results[0].trace.keys() == {"loss"}
    )
    run_experiment("er/split-digits", "smoke", record="*", out=places.RECORDS, replace=True)
    assert load(places.RECORDS / "er_split-digits_smoke")[0].trace.keys() == {"loss", "memory"}


def test_records_hold_large_tables_of_the_first_seed_only():
    results = run_experiment("spacenet/split-mnist", "smoke", (0, 1), out=places.RECORDS)
    first, second = load(places.RECORDS / "spacenet_split-mnist_smoke")
    assert set(results[1].trace) == set(experiment("spacenet/split-mnist", "smoke").tables)
    assert set(first.trace) - set(second.trace) == {"masks"} and "importance" not in first.trace
    assert set(first.trace["network"]) - set(second.trace["network"]) == {"activations"}
    assert first.trace["network"]["activations"].shape[::2] == (5, 800)
    assert (first.rank == results[0].rank).all() and (second.rank == results[1].rank).all()


def test_what_is_kept_of_one_experiment_only_is_not_in_the_record_of_another():
    run_experiment("static/split-digits", "smoke", out=places.RECORDS)
    [result] = load(places.RECORDS / "static_split-digits_smoke")
    assert "masks" not in result.trace and "activations" not in result.trace["network"]


def test_minutes_are_those_of_the_record():
    assert experiment("finetune/split-digits", "smoke").minutes is None
    run_experiment("finetune/split-digits", "smoke", out=places.RECORDS)
    text = json.loads((places.RECORDS / "finetune_split-digits_smoke.json").read_text())
    assert (
        experiment("finetune/split-digits", "smoke").minutes == text["summary"]["seconds"]["per_seed"][0] / 60
    )


@pytest.mark.parametrize("seeds, right", [((0,), True), ((0, 1, 2), True), ((1,), False), ((0, 2, 3), False)])
def test_a_selection_of_seeds_is_no_record_of_an_experiment(seeds, right):
    found = experiment("finetune/split-digits", "smoke")
    results = run_experiment(found.name, "smoke", seeds, out=places.RECORDS)
    said = f"its seeds {', '.join(map(str, seeds))} are a selection.*renew it"
    with contextlib.nullcontext() if right else pytest.raises(PresetError, match=said):
        experiments.load_record_of(found)
    own = dataclass_with(results[0], {"experiment": None})
    with pytest.raises(PresetError, match="it belongs to another experiment"):
        experiments.check_record(found, [own])


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"summary": {"seconds": {"per_seed": []}}}', "\x00"])
def test_a_damaged_record_does_not_stop_a_list(text):
    path = places.record_of(experiment("finetune/split-digits", "smoke").stem)
    path.parent.mkdir()
    path.write_text(text)
    assert not experiment("finetune/split-digits", "smoke").minutes


def test_other_files_among_records_are_passed_over_and_unnamed_records_are_named(tmp_path):
    [result] = run_experiment("finetune/split-digits", "smoke", out=tmp_path)
    for n, text in enumerate(("[]", "{}", "no JSON")):
        (tmp_path / f"other-{n}.json").write_text(text)
    assert list(records_in(tmp_path)) == [("split-digits", "smoke")]
    save([dataclasses.replace(result, about={"seed": 0})], tmp_path / "unnamed")
    with pytest.raises(PresetError, match="unnamed.json names no experiment: make it with"):
        records_in(tmp_path)


# ---- own data


@pytest.fixture
def flowers(tmp_path):
    return class_folders(tmp_path / "flowers")


def test_a_folder_is_an_experiment(flowers, tmp_path):
    found = experiment(f"er/folder:{flowers}", overrides={"side": "16", "memory": "20"}, tasks=(2, 2, 2))
    assert (found.preset, found.config.net, found.config.memory) == ("own", "convnet", 20)
    assert found.stem == "er_flowers_own_memory-20_side-16_tasks-2-2-2"
    results = run_experiment(
        f"er/folder:{flowers}",
        seeds=(0, 1),
        out=tmp_path / "mine",
        tasks=(2, 2, 2),
        overrides={"side": "16", "memory": "20", "epochs": 1},
        progress=False,
    )
    assert results[0].classes_per_task == (2, 2, 2) and results[0].names[:2] == ["aster", "bluebell"]
    assert (
        load(tmp_path / "mine" / "er_flowers_own_epochs-1_memory-20_side-16_tasks-2-2-2")[1].about["seed"]
        == 1
    )


def test_a_set_in_the_data_root_is_an_experiment(flowers, tmp_path, monkeypatch):
    monkeypatch.setenv("CLKIT_DATA", str(tmp_path))
    found = experiment("finetune/flowers")
    assert found.stream_row.classes_per_task == (2, 2, 2) and found.data == "flowers"
    assert experiments.stream_of(found.stream_row).classes == 6


def test_the_order_of_own_classes(flowers):
    names = ["foxglove", "aster", "erica", "bluebell", "crocus", "daisy"]
    given = experiment(f"er/folder:{flowers}", tasks=(3, 3), order=names)
    assert list(experiments.stream_of(given.stream_row).names) == names
    drawn = experiment(f"er/folder:{flowers}", tasks=(3, 3), order=7)
    assert sorted(experiments.stream_of(drawn.stream_row).names) == sorted(names)
    assert given.stem != drawn.stem


@pytest.mark.parametrize(
    "tasks, order, message",
    [
        ((4, 4), None, "--tasks 4,4 adds up to 8 classes, but .*flowers has 6: leave out 2$"),
        ((2, 3), None, "has 6: add the missing 1, such as --tasks 2,3,1, or list the 5 .*: --order FILE$"),
        ((2,), ["erica", "daisy", "aster"], "the order lists 3: add the missing 1, such as --tasks 2,1$"),
    ],
)
def test_tasks_that_do_not_add_up_are_reported(flowers, tasks, order, message):
    with pytest.raises(PresetError, match=message):
        experiment(f"er/folder:{flowers}", tasks=tasks, order=order)


def test_fewer_classes_than_there_are_by_an_order(flowers):
    found = experiment(f"er/folder:{flowers}", tasks=(2, 1), order=["erica", "daisy", "aster"])
    assert experiments.stream_of(found.stream_row).names == ("erica", "daisy", "aster")


def test_an_undivided_folder_says_so_in_result_and_record(flowers, tmp_path):
    whole = flowers / "train"
    settings = {"epochs": 1, "test_share": "0.5", "split_seed": "3"}
    found = experiment(f"finetune/folder:{whole}", overrides=settings, tasks=(2, 4))
    assert "--set test_share=0.5 --set split_seed=3 --tasks 2,4" in found.command
    [result] = run_experiment(found.name, seeds=(0,), overrides=settings, tasks=(2, 4), progress=False)
    assert result.about["stream"]["data"] == "train(split_seed=3, test_share=0.5)"
    [usual] = run_experiment(found.name, seeds=(0,), overrides={"epochs": 1}, tasks=(2, 4), progress=False)
    assert usual.about["stream"]["data"] == "train(split_seed=0, test_share=0.2)"
    assert len(usual.labels) < len(result.labels) and usual.about["key"] != result.about["key"]
    with pytest.raises(PresetError, match="split_seed is the seed .*, not 'x'"):
        experiment(found.name, overrides={"split_seed": "x"})


def test_tasks_belong_to_own_data_only():
    with pytest.raises(PresetError, match="has its own tasks"):
        experiment("er/split-digits", tasks=(2, 2))
    with pytest.raises(PresetError, match="side is the height and width"):
        experiment("er/folder:nowhere", overrides={"side": "big"})
