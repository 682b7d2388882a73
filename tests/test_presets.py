"""The table of experiments, its settings, and results that are loaded, computed or refused."""

import pytest

from clkit import presets
from clkit.methods import METHODS
from clkit.presets import PresetError, experiment, obtain, run_experiment
from clkit.result import load, save


@pytest.fixture(autouse=True)
def apart(tmp_path, monkeypatch):
    monkeypatch.setenv("CLKIT_RUNS", str(tmp_path / "runs"))
    monkeypatch.setattr(presets, "RECORDS", tmp_path / "records")
    monkeypatch.delenv("CLKIT_DATA", raising=False)


@pytest.mark.parametrize("name", presets.names())
@pytest.mark.parametrize("preset", presets.PRESETS)
def test_every_row_of_the_table_makes_sense(name, preset):
    row = experiment(name, preset)
    assert row.method in METHODS and row.benchmark in presets.BENCHMARKS and name == name.lower()
    benchmark = presets.BENCHMARKS[row.benchmark][preset]
    assert preset == "paper" or benchmark.data in ("digits", "digits28", "shapes"), (
        "smoke and teach need no download"
    )


@pytest.mark.parametrize("name", presets.BENCHMARKS)
@pytest.mark.parametrize("preset", presets.PRESETS)
def test_embedded_streams_can_be_had(name, preset):
    benchmark = presets.BENCHMARKS[name][preset]
    if benchmark.data in ("digits", "digits28", "shapes"):
        assert presets.stream(name, preset).sizes == benchmark.sizes


def test_every_method_has_an_experiment():
    assert {n.partition("/")[0] for n in presets.names()} == METHODS.keys()


def test_mixed_tasks_hold_one_of_each_family_and_family_tasks_one_family():
    for task in presets.stream("split-shapes", "teach"):
        groups = task.train.groups[task.first:task.seen]
        assert len(set(groups)) == len(groups) == 4
    for task in presets.stream("shapes-families", "teach"):
        assert len(set(task.train.groups[task.first:task.seen])) == 1


@pytest.mark.parametrize(
    "text, value",
    [
        ("epochs=3", 3),
        ("lr=1", 1.0),
        ("lr=0.5", 0.5),
        ("heads=multi", "multi"),
        ("balance=false", False),
        ("balance=True", True),
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
        ("epochs", "many", "'epochs' takes int, not 'many'"),
        ("epochs", "1.5", "takes int"),
        ("epochs", "True", "takes int"),
        ("balance", "1", "takes bool"),
        ("heads", "three", "heads must be 'single' or 'multi'"),
        ("epochs", "0", "at least 1"),
    ],
)
def test_wrong_settings_are_told(key, value, message):
    with pytest.raises(PresetError, match=message):
        experiment("lwf/split-digits", "smoke", {key: value})


@pytest.mark.parametrize(
    "name, preset, message",
    [
        ("finetun/split-mnist", "smoke", "did you mean finetune/split-mnist"),
        ("finetune/split-mnist", "papers", "did you mean paper"),
        ("nothing", "smoke", "clkit list"),
    ],
)
def test_unknown_names_are_told(name, preset, message):
    with pytest.raises(PresetError, match=message):
        experiment(name, preset)


def test_absent_data_are_told_once_before_any_process_starts(tmp_path, monkeypatch):
    monkeypatch.setenv("CLKIT_DATA", str(tmp_path))
    presets._stream.cache_clear()
    with pytest.raises(ValueError, match="data get mnist"):
        run_experiment("finetune/split-mnist", "paper", (0, 1), jobs=2)


def test_results_do_not_depend_on_the_number_of_processes():
    one = run_experiment("er/split-digits", "smoke", (0, 1), progress=False)
    again = [presets._seed_result("er/split-digits", "smoke", s, "cpu", {}, "*") for s in (1, 0)][::-1]
    two = run_experiment("er/split-digits", "smoke", (0, 1), jobs=2, keep=("loss", "memory"))
    for a, b, c in zip(one, two, again):
        assert (
            (a.rank == b.rank).all()
            and (a.rank == c.rank).all()
            and (a.trace["loss"]["loss"] == b.trace["loss"]["loss"]).all()
        )
    assert not (one[0].rank == one[1].rank).all()


def test_computed_then_read_back_then_loaded_then_stale(tmp_path):
    said = []
    first = obtain("finetune/split-digits", "smoke", say=said.append)
    obtain("finetune/split-digits", "smoke", say=said.append)
    run_experiment("finetune/split-digits", "smoke", (0, 1), out=presets.RECORDS)
    loaded = obtain("finetune/split-digits", "smoke", say=said.append)
    assert [line.split(" finetune_split-digits_smoke (")[0] for line in said] == [
        "computed",
        "read back",
        "loaded",
    ]
    assert "n = 2 seeds" in said[-1] and (loaded[0].rank == first[0].rank).all()
    stem = presets.RECORDS / "finetune_split-digits_smoke"
    records = load(stem)
    records[1].about["key"] = "0" * 16
    save(records, stem)
    with pytest.raises(
        PresetError,
        match="is stale.*python -m clkit run finetune/split-digits --preset smoke --seeds 0 --out",
    ):
        obtain("finetune/split-digits", "smoke", say=said.append)
    assert len(said) == 3


def test_overrides_have_records_of_their_own():
    run_experiment("er/split-digits", "smoke", overrides={"memory": "20"}, out=presets.RECORDS)
    [result] = obtain("er/split-digits", "smoke", overrides={"memory": 20}, say=str)
    assert (
        result.about["config"]["memory"] == 20
        and (presets.RECORDS / "er_split-digits_smoke_memory-20.json").is_file()
    )
    assert "--set memory=20" in experiment("er/split-digits", "smoke", {"memory": 20}).command


def test_hours_of_work_are_not_begun_unasked():
    with pytest.raises(
        PresetError,
        match="no record of er/split-mnist at the paper preset: make it with `python -m clkit run",
    ):
        obtain("er/split-mnist", "paper")


def test_records_hold_no_large_traces():
    results = run_experiment("er/split-digits", "smoke", keep="*", out=presets.RECORDS)
    assert "memory" in results[0].trace
    assert load(presets.RECORDS / "er_split-digits_smoke")[0].trace.keys() == {"loss"}


def test_records_hold_large_tables_of_the_first_seed_only():
    results = run_experiment("spacenet/split-digits", "smoke", (0, 1), out=presets.RECORDS)
    first, second = load(presets.RECORDS / "spacenet_split-digits_smoke")
    assert set(results[1].trace) == set(presets.tables(experiment("spacenet/split-digits", "smoke")))
    assert set(first.trace) - set(second.trace) == {"masks"} and "importance" not in first.trace
    assert set(first.trace["network"]) - set(second.trace["network"]) == {"activations"}
    assert first.trace["network"]["activations"].shape[::2] == (5, 800)
    assert (first.rank == results[0].rank).all() and (second.rank == results[1].rank).all()


def test_activations_are_those_of_test_images_of_the_first_two_classes():
    learner, result = presets.run_seed("spacenet/split-digits", "smoke", 0)
    test = presets.stream("split-digits", "smoke").test
    places = [i for k in (0, 1) for i in (test.labels == k).nonzero()[:50, 0].tolist()]
    found = result.trace["network"]["activations"]
    expected = learner.activations(test.select(places).images / 255).numpy()
    assert (abs(found[-1] - expected) < 1e-2).all() and found[0].any() and (found[0] != found[-1]).any()


def test_a_shuffled_benchmark_has_an_order_for_each_seed():
    orders = [presets.stream("split-mnist-shuffled", "smoke", seed).order for seed in (0, 1, 0)]
    assert orders[0] == orders[2] != orders[1] and sorted(orders[1]) == list(range(10))
    assert presets.stream("split-mnist", "smoke", 1).order == tuple(range(10))
    a, b = run_experiment("spacenet/split-mnist-shuffled", "smoke", (0, 1), out=presets.RECORDS)
    assert a.names != b.names
    found = obtain("spacenet/split-mnist-shuffled", "smoke", say=str)
    assert [r.about["stream"]["order"] for r in found] == [list(o) for o in orders[:2]]


@pytest.mark.parametrize("settings, stem, command", [
    ({"reserved": "(20, 20)"}, "reserved-20-20", "--set 'reserved=(20, 20)' --out"),
    ({"mean": (0.0,), "std": (1.0,)}, "mean-0.0_std-1.0", "--set 'std=(1.0,)' --out"),
    ({"connections": 0.1}, "connections-0.1", "--set connections=0.1 --out")])
def test_settings_of_several_numbers_have_plain_file_names(settings, stem, command):
    chosen = experiment("spacenet/split-mnist", "paper", settings)
    assert chosen.stem == f"spacenet_split-mnist_paper_{stem}"
    assert command in chosen.command and "--seeds 0-9" in chosen.command
