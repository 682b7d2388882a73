"""The command line as scripts use it: output streams, exit statuses, one-sentence messages for bad input."""

import dataclasses
import importlib.metadata
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import namedtuple
from pathlib import Path

import numpy as np
import pytest

import clkit
from clkit import doctor, experiments, papers
from clkit.__main__ import _parser, _seeds, main
from clkit.engine.learner import LearnerError, check_types
from clkit.engine.trace import Trace
from clkit.errors import ClkitError
from clkit.experiments.experiment import config_class, typed_setting
from clkit.methods import LEARNERS
from clkit.methods.baselines.finetune import Finetune
from clkit.result import load, save
from tests.builders import class_folders
from tests.soak import smallest

ROOT = Path(__file__).resolve().parents[1]
SMOKE = ["run", "finetune/split-digits", "--preset", "smoke"]


@pytest.fixture(autouse=True)
def apart(tmp_path, monkeypatch):
    """Separate run folders, embedded data only, and no progress bars."""
    monkeypatch.setenv("CLKIT_RUNS", str(tmp_path / "runs"))
    monkeypatch.setenv("CLKIT_DATA", str(tmp_path / "data"))
    monkeypatch.delenv("CLKIT_PROGRESS", raising=False)


@pytest.fixture
def command(capsys):
    """command(words...) -> (status, stdout, stderr), in this process."""

    def call(*words):
        try:
            status = main([str(w) for w in words])
        except SystemExit as stop:  # argparse ends the process itself
            status = stop.code
        out, err = capsys.readouterr()
        return status, out, err

    return call


def refused(answer, *parts):
    """Assert that bad input gives status 2, no stdout, and these words on stderr without a traceback."""
    status, out, err = answer
    assert status == 2 and out == "" and "Traceback" not in err
    for part in parts:
        assert part in err


# ---- list


def test_list_is_an_overview_of_methods_and_benchmarks(command):
    status, out, err = command("list")
    assert (status, err) == (0, "") and len(out.splitlines()) < 20 + len(papers.methods())
    for method in papers.methods():
        assert sum(line.split()[:1] == [method] for line in out.splitlines()) == 1
    assert f"{len(experiments.names())} experiments METHOD/BENCHMARK" in out


@pytest.mark.parametrize(
    "words, expected",
    [
        (["er"], [n for n in experiments.names() if n.startswith("er/")]),
        (["split-mnist"], [n for n in experiments.names() if n.endswith("/split-mnist")]),
        (["er", "split-mnist"], ["er/split-mnist"]),
        (["split-mnist", "er", "lwf"], ["lwf/split-mnist", "er/split-mnist"]),
        (["er/split-mnist"], ["er/split-mnist"]),
        (["er/split-mnist", "si"], ["er/split-mnist", *experiments.names("si")]),
    ],
)
def test_list_of_methods_and_benchmarks(command, words, expected):
    status, out, _ = command("list", *words, "--preset", "teach")
    titles, *rows, last = out.splitlines()
    assert status == 0 and titles.split()[:4] == ["experiment", "preset", "data", "seeds"]
    assert sorted(row.split()[0] for row in rows) == sorted(expected)
    assert {row.split()[1] for row in rows} == {"teach"} and last == f"{len(rows)} experiments"


def test_list_of_what_is_present(command):
    _, every, _ = command("list", "er")
    status, here, _ = command("list", "er", "--present")
    assert status == 0 and "mnist *" in every and "data list" in every.splitlines()[-1]
    assert "mnist" not in [row.split()[2] for row in here.splitlines()[1:-1]] and "*" not in here


@pytest.mark.parametrize(
    "words, part",
    [
        (["err"], "'err'; did you mean er"),
        (["split-mnis"], "did you mean split-mnist"),
        (["er", "--preset", "papr"], "did you mean paper"),
        (["er/nothing"], "no method, benchmark or experiment"),
    ],
)
def test_list_of_what_there_is_not(command, words, part):
    refused(command("list", *words), part)


def test_list_as_json(command):
    status, out, err = command("list", "--json")
    rows = json.loads(out)["experiments"]
    assert (status, err) == (0, "")
    assert {r["experiment"] for r in rows} == set(experiments.names())
    assert len({(r["experiment"], r["preset"]) for r in rows}) == len(rows)
    for row in rows:
        assert set(row) == {"experiment", "preset", "data", "present", "minutes_per_seed", "seeds"}
        assert row["present"] or row["preset"] in ("laptop", "paper")
        assert row["minutes_per_seed"] is None or row["minutes_per_seed"] > 0
    minutes = {(r["experiment"], r["preset"]): r["minutes_per_seed"] for r in rows}
    assert minutes["adi/mnist-5k-5", "paper"] < 1 < 10 < minutes["dgr/split-mnist", "paper"], "measured ones"


# ---- run

KEYS = {
    "experiment",
    "preset",
    "config",
    "seeds",
    "average_accuracy",
    "forgetting",
    "task_aware_accuracy",
    "accuracy_matrix",
    "memory_bytes",
    "seconds",
    "versions",
}


def test_run_json_is_one_object_and_progress_goes_to_stderr(command, monkeypatch):
    monkeypatch.setenv("CLKIT_PROGRESS", "1")
    status, out, err = command(*SMOKE, "--seeds", "0,2", "--json")
    found = json.loads(out, parse_constant=lambda word: pytest.fail(f"{word} is no JSON"))
    assert status == 0 and KEYS <= set(found)
    assert err.count("task 5/5 · classifier") >= 2 and "epoch" in err and "Traceback" not in err
    assert (found["experiment"], found["preset"], found["seeds"]) == (
        "finetune/split-digits",
        "smoke",
        [0, 2],
    )
    assert found["config"] == {**dataclasses.asdict(experiments.experiment(*SMOKE[1::2]).config)}
    for score in ("average_accuracy", "forgetting", "task_aware_accuracy"):
        assert {"mean", "interval", "per_seed"} <= set(found[score]) and len(found[score]["per_seed"]) == 2
        assert found[score]["mean"] == pytest.approx(np.mean(found[score]["per_seed"]))
        low, high = found[score]["interval"]
        assert low < found[score]["mean"] < high
    matrix = found["accuracy_matrix"]
    assert [[v is not None for v in row] for row in matrix] == [[j <= i for j in range(5)] for i in range(5)]
    assert found["memory_bytes"]["weights"] > 0 and {"learn", "test"} <= set(found["seconds"])
    assert {"clkit", "torch", "python", "numpy"} <= set(found["versions"])


def test_run_without_json_says_the_scores_and_no_bars_off_a_terminal(command, tmp_path):
    status, out, err = command(*SMOKE)
    assert (status, err) == (0, "")
    lines = [line.strip() for line in out.splitlines()]
    assert lines[0] == "finetune/split-digits, preset smoke, data digits, seeds 0"
    for title in (
        "average accuracy (%)",
        "task-aware accuracy (%)",
        "forgetting (%)",
        "kept between tasks",
        "time",
        "run folders",
    ):
        assert sum(line.startswith(title) for line in lines) == 1
    assert str(tmp_path / "runs") in lines[-1]


def test_out_writes_a_record(command, tmp_path):
    status, out, _ = command(*SMOKE, "--seeds", "0-1", "--set", "epochs=1", "--out", tmp_path / "records")
    [path] = (tmp_path / "records").glob("*.json")
    assert status == 0 and path.name == "finetune_split-digits_smoke_epochs-1.json" and str(path) in out
    assert [r.about["seed"] for r in load(path)] == [0, 1]


def test_a_finished_run_is_read_back_without_training(command, monkeypatch):
    first = command(*SMOKE, "--json")
    monkeypatch.setattr(Trace, "end", lambda *_: pytest.fail("it trains again"))
    assert command(*SMOKE, "--json") == first


def test_run_says_which_seconds_another_run_has_spent(command):
    status, out, _ = command(
        "run", "fecam/split-shapes", "ncm/split-shapes", "--preset", "smoke", "--seeds", "0"
    )
    first, second = (line for line in out.splitlines() if line.startswith("  time"))
    assert status == 0 and first.endswith(" s on cpu")
    assert second.endswith(" s of them in runs that had trained the same") and " s on cpu; " in second


def test_two_jobs_give_exactly_what_one_gives(command, tmp_path, monkeypatch):
    records = []
    for jobs in "12":
        monkeypatch.setenv("CLKIT_RUNS", str(tmp_path / f"runs-{jobs}"))
        assert command(*SMOKE, "--seeds", "0-2", "--jobs", jobs, "--out", tmp_path / jobs)[0] == 0
        records.append(load(tmp_path / jobs / "finetune_split-digits_smoke"))
    for one, two in zip(*records, strict=True):
        identical(one, two)
    assert not np.array_equal(records[0][0].predictions_task_aware, records[0][1].predictions_task_aware), (
        "seeds differ"
    )


def identical(a, b):
    """Bit for bit the same answers and traces."""
    for name in (
        "predictions",
        "predictions_task_aware",
        "rank",
        "labels",
        "seen",
        "n_samples",
        "parameters",
    ):
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name), err_msg=name)
    assert a.about["seed"] == b.about["seed"] and a.trace.keys() == b.trace.keys() == {"loss"}
    for column, values in a.trace["loss"].items():
        np.testing.assert_array_equal(values, b.trace["loss"][column], err_msg=column)


# ---- seeds


@pytest.mark.parametrize(
    "text, seeds",
    [
        ("0", (0,)),
        ("0,1,2", (0, 1, 2)),
        ("0-9", tuple(range(10))),
        ("3-3", (3,)),
        ("0-2,7", (0, 1, 2, 7)),
        ("5, 4", (5, 4)),
        ("10,0-1", (10, 0, 1)),
    ],
)
def test_forms_of_seeds(text, seeds):
    assert _seeds(text) == seeds


@pytest.mark.parametrize("text", ["", "a", "1,", "-1", "3-1", "1-", "1.5", "0x1", "1-2-3", "²"])
def test_what_is_no_list_of_seeds(command, text):
    refused(command(*SMOKE, f"--seeds={text}"), f"'{text}' is not a list of seeds: write 0,1,2 or 0-9")


@pytest.mark.parametrize("text", ["1,1", "0-3,2"])
def test_a_seed_named_twice(command, text):
    refused(command(*SMOKE, "--seeds", text), f"'{text}' names a seed twice")


def test_without_seeds_the_preset_says(command):
    assert _parser().parse_args(SMOKE).seeds is None
    assert json.loads(command(*SMOKE, "--json")[1])["seeds"] == list(experiments.SEEDS["smoke"])


# ---- settings


def config(*settings, experiment="finetune/split-digits"):
    """The Config that a command line with these settings runs."""
    options = _parser().parse_args(["run", experiment, *(word for s in settings for word in ("--set", s))])
    return experiments.experiment(experiment, options.preset or "teach", dict(options.settings)).config


def test_settings_take_the_type_of_their_field():
    found = config("lr=1", "epochs=3", "restart=false", "net=convnet")
    assert (found.lr, found.epochs, found.restart, found.net) == (1.0, 3, False, "convnet")
    assert [type(v) for v in (found.lr, found.epochs, found.restart)] == [float, int, bool]
    assert config("lr=1e-4").lr == 1e-4 and config("restart=True").restart is True
    assert config(" epochs = 7 ").epochs == 7
    assert config("heads=multi", experiment="lwf/split-digits").heads == "multi"
    assert config("warmup-epochs=2", experiment="lwf/split-digits").warmup_epochs == 2


@dataclasses.dataclass(frozen=True)
class Fields:
    """One field of every type that a Config may have."""

    hidden: tuple = (400, 400)
    share: float | None = None
    steps: int = 1
    name: str = "a"
    fast: bool = False


@pytest.mark.parametrize(
    "key, text, value",
    [
        ("hidden", "(10, 20)", (10, 20)),
        ("hidden", "10,20", (10, 20)),
        ("hidden", "[10]", (10,)),
        ("hidden", "()", ()),
        ("share", "0.5", 0.5),
        ("share", "2", 2.0),
        ("share", "none", None),
        ("share", "None", None),
        ("steps", "-3", -3),
        ("name", "3", "3"),
        ("name", "None", "None"),
        ("fast", "TRUE", True),
        ("fast", "False", False),
    ],
)
def test_text_is_read_as_the_field_s_type(key, text, value):
    found = typed_setting(Fields, key, text)
    assert found == value and type(found) is type(value)


@pytest.mark.parametrize(
    "key, text, words",
    [
        ("hidden", "10", "a tuple of whole numbers, not 10"),
        ("hidden", "wide", "a tuple of whole numbers, not 'wide'"),
        ("hidden", "('a',)", "a tuple of whole numbers, not ('a',)"),
        ("hidden", "(10**12,)", "a tuple of whole numbers, not '(10**12,)'"),
        ("hidden", "(1000000000000,)", "at most 1,000,000,000 in absolute value"),
        ("share", "half", "a finite number or None, not 'half'"),
        ("share", "true", "a finite number or None, not True"),
        ("share", "1e999", "a finite number or None, not inf"),
        ("share", "nan", "a finite number or None, not 'nan'"),
        ("share", "", "a finite number or None, not ''"),
        ("steps", "1.0", "a whole number, not 1.0"),
        ("steps", "true", "a whole number, not True"),
        ("steps", "none", "a whole number, not None"),
        ("steps", "", "a whole number, not ''"),
        ("steps", "1000000000000", "at most 1,000,000,000 in absolute value"),
        ("steps", "{[]: 1}", "a whole number, not '{[]: 1}'"),
        ("steps", "(" * 300, "a whole number, not"),
        ("fast", "1", "True or False, not 1"),
        ("fast", "no", "True or False, not 'no'"),
        ("steps", "__import__('os')", 'a whole number, not "__import__'),
    ],
)
def test_text_of_another_type_is_refused_as_the_value_is_in_python(key, text, words):
    value = typed_setting(Fields, key, text)
    with pytest.raises(LearnerError, match=re.escape(f"{key} must be {words}")):
        check_types(Fields(**{key: value}))


WRONG = (
    "0",
    "-1",
    "1000000000000",
    "nan",
    "1e999",
    "",
    "none",
    "many",
    "(0,)",
    "('a',)",
    "true",
    "1.5",
    "[]",
)


@pytest.mark.parametrize(
    "method", list({config_class(learner): m for m, learner in LEARNERS.items()}.values())
)
def test_a_wrong_setting_is_refused_with_one_sentence_from_both_doors(method):
    found = experiments.experiment(smallest(method), "smoke")
    config, refused = type(found.config), 0

    def refusal(make, *words):
        """What a ClkitError says, or None."""
        try:
            make(*words)
        except ClkitError as error:
            return str(error)

    for field in dataclasses.fields(config):
        for text in WRONG:
            value = typed_setting(config, field.name, text)
            there = refusal(lambda v, name=field.name: config(**{**found.settings, name: v}), value)
            here = refusal(experiments.experiment, found.name, "smoke", {field.name: text})
            assert here == (there and f"{found.name}: {there}") and "\n" not in (here or "")
            refused += here is not None
    assert refused > 5 * len(dataclasses.fields(config))


def test_a_config_that_compares_before_it_looks_is_refused_in_a_sentence(monkeypatch):
    @dataclasses.dataclass(frozen=True)
    class Config(Finetune.__init__.__globals__["Config"]):
        def __post_init__(self):
            if self.epochs < 1:
                raise ClkitError("epochs must be at least 1")
            1 / (self.lr - 7)

    monkeypatch.setattr(sys.modules[experiments.Experiment.__module__], "config_class", lambda _: Config)
    for setting, said in (
        ({"epochs": "many"}, "epochs must be a whole number, not 'many'"),
        ({"epochs": "0"}, "epochs must be at least 1"),
        ({"batch_size": "1e999"}, "batch_size must be a whole number, not inf"),
        ({"lr": "7"}, "these settings cannot be used (float division by zero)"),
    ):
        with pytest.raises(experiments.PresetError, match=re.escape(f"finetune/split-digits: {said}")):
            experiments.experiment("finetune/split-digits", "smoke", setting)


@pytest.mark.parametrize(
    "setting, parts",
    [
        (
            "epoch=3",
            [
                "there is no setting 'epoch'; did you mean epochs?",
                "the settings are net, epochs, batch_size, lr, restart",
            ],
        ),
        ("zzz=3", ["there is no setting 'zzz'", "the settings are net"]),
        ("epochs=many", ["epochs must be a whole number of at least 1, not 'many'"]),
        ("epochs=1.5", ["a whole number of at least 1, not 1.5"]),
        ("lr=fast", ["lr must be a finite number above 0, not 'fast'"]),
        ("restart=1", ["restart must be True or False, not 1"]),
        ("epochs=0", ["finetune/split-digits: epochs must be a whole number of at least 1, not 0"]),
        ("lr=-1", ["lr must be a finite number above 0"]),
        ("epochs", ["'epochs' is not a setting: write KEY=VALUE"]),
        ("=3", ["write KEY=VALUE"]),
        ("net=resnett", ["no network", "resnett", "resnet18"]),
    ],
)
def test_bad_settings_are_refused_before_anything_is_written(command, tmp_path, setting, parts):
    refused(command(*SMOKE, "--set", setting), *parts)
    assert not list((tmp_path / "runs").rglob("*.npz"))


# ---- other bad input


@pytest.mark.parametrize(
    "words, parts",
    [
        (
            ["fintune/split-digits"],
            ["there is no experiment 'fintune/split-digits'; did you mean finetune/split-digits"],
        ),
        (["finetune"], ["there is no experiment 'finetune'", "python -m clkit list"]),
        (["finetune/split-digits", "--preset", "smok"], ["there is no preset 'smok'; did you mean smoke"]),
        (
            ["finetune/split-digits", "--preset", "smoke", "--device", "gpu"],
            ["there is no device 'gpu': use auto, cpu or cuda"],
        ),
        (
            ["finetune/split-digits", "--preset", "smoke", "--jobs", "0"],
            ["at least one seed and one job, not 1 and 0"],
        ),
        (["finetune/split-digits", "--preset", "smoke", "--jobs", "two"], ["--jobs"]),
        (
            ["finetune/split-mnist", "--preset", "paper"],
            ["mnist is not here", "python -m clkit data get mnist", "CLKIT_DATA"],
        ),
        ([], ["METHOD/BENCHMARK"]),
    ],
)
def test_bad_runs_are_refused(command, words, parts):
    refused(command("run", *words), *parts)


def test_a_device_that_can_hold_no_results_is_refused(command):
    """torch knows the device "meta", and everything would work up to the first evaluation."""
    refused(command(*SMOKE, "--device", "meta"), "there is no device 'meta'", "use auto, cpu or cuda")


def test_a_folder_that_cannot_be_made_is_refused(command, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("no folder")
    refused(command(*SMOKE, "--out", tmp_path / "file" / "records"), str(tmp_path / "file"))
    monkeypatch.setenv("CLKIT_RUNS", str(tmp_path / "file"))
    refused(command(*SMOKE), str(tmp_path / "file"))


def test_damage_in_a_run_folder_is_named_with_its_cure(command, tmp_path):
    command(*SMOKE)
    [folder] = (tmp_path / "runs").glob("*/seed-0")
    (folder / "run.json").write_text("{")
    refused(command(*SMOKE), str(folder / "run.json"), "is damaged: delete this file")


@pytest.mark.parametrize(
    "words, part",
    [
        ([], "command"),
        (["frobnicate"], "frobnicate"),
        (["data"], "list | get"),
        (["data", "get"], "name"),
        (["list", "--jsn"], "--jsn"),
    ],
)
def test_bad_commands_are_refused(command, words, part):
    refused(command(*words), part)


def test_a_figure_that_is_not_there(command, tmp_path):
    refused(
        command("figures", "memory-kep", "--out", tmp_path / "out"),
        "there is no figure 'memory-kep' among the",
        "did you mean memory-kept",
    )
    assert not (tmp_path / "out").exists()


def test_version_and_help(command):
    assert command("--version") == (0, f"clkit {clkit.__version__}\n", "")
    status, out, _ = command("--help")
    assert status == 0 and all(word in out for word in ("list", "run", "figures", "data", "doctor"))


# ---- data, doctor


def test_data_list(command, tmp_path):
    status, out, err = command("data", "list")
    assert (status, err) == (0, "") and f"data root: {tmp_path / 'data'}" in out
    lines = out.splitlines()
    [digits] = [n for n, line in enumerate(lines) if line.split()[:1] == ["digits"]]
    assert lines[digits].split()[1] == "present" and "1,438 + 359 images, 10 classes, 1x8x8" in lines[digits]
    [mnist] = [n for n, line in enumerate(lines) if line.split()[:1] == ["mnist"]]
    assert lines[mnist].split()[1] == "absent"
    assert lines[mnist + 1].strip() == "python -m clkit data get mnist"


def test_data_list_as_json(command, tmp_path):
    status, out, err = command("data", "list", "--json")
    found = json.loads(out)
    assert (status, err, found["root"]) == (0, "", str(tmp_path / "data"))
    sets = {row["name"]: row for row in found["sets"]}
    assert {
        "digits",
        "digits28",
        "shapes",
        "mnist",
        "fashion_mnist",
        "svhn",
        "cifar10",
        "cifar100",
        "cifar10-100",
    } == sets.keys()
    assert {name for name, row in sets.items() if row["present"]} == {"digits", "digits28", "shapes"}
    assert sets["cifar100"]["classes"] == 100 and sets["cifar10"]["shape"] == [3, 32, 32]


@pytest.mark.parametrize(
    "name, part",
    [
        ("mnst", "did you mean mnist"),
        ("nothing-like-it", "the known names are digits"),
        ("digits", "digits needs no download"),
    ],
)
def test_data_get_of_what_cannot_be_downloaded(command, tmp_path, monkeypatch, name, part):
    monkeypatch.setattr("socket.socket.connect", lambda *_: pytest.fail("it reaches for the network"))
    refused(command("data", "get", name), part)
    assert not (tmp_path / "data").exists()


def test_doctor_reports_versions_device_data_and_disk(command, tmp_path):
    status, out, err = command("doctor")
    assert err == "" and status == (1 if "problem:" in out else 0)
    assert out.startswith(f"clkit {clkit.__version__}, Python ")
    for name in doctor.PACKAGES:
        assert f"{name} " in out
    for part in (
        "device: ",
        f"data root: {tmp_path / 'data'} (not there yet)",
        "data sets present: digits, digits28, shapes",
        f"run folders: {tmp_path / 'runs'}, ",
        " GB free",
    ):
        assert part in out


def test_doctor_finds_problems_and_says_their_cure(command, monkeypatch):
    def version(name):
        if name == "nbval":
            raise importlib.metadata.PackageNotFoundError(name)
        return "1.0"

    disk = namedtuple("usage", "total used free")
    monkeypatch.setattr(doctor.importlib.metadata, "version", version)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: disk(10**12, 10**12, 10**8))
    status, out, _ = command("doctor")
    assert status == 1 and "no problems" not in out
    assert "problem: nbval is not installed: run `make workbook`" in out
    assert "problem: less than 1 GB is free" in out and "make room, or set CLKIT_RUNS" in out


# ---- as a process, and Ctrl-C


def process(*words, runs, **options):
    """`python -m clkit ...` with separate run folders."""
    return subprocess.Popen(
        [sys.executable, "-m", "clkit", *words],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "CLKIT_RUNS": str(runs)},
        **{"text": True, **options},
    )


@pytest.mark.parametrize("words", [["list"], ["list", "--json"], ["data", "list"]])
def test_a_reader_that_leaves_early_is_no_error(tmp_path, monkeypatch, words):
    monkeypatch.delenv("PYTHONUNBUFFERED", raising=False)  # short output meets the closed pipe at the end
    running = process(*words, runs=tmp_path)
    running.stdout.close()
    err = running.stderr.read()
    running.stderr.close()
    assert (running.wait(60), err) == (0, "")


ENCODINGS = ("ascii", "cp1252", "latin-1", "utf-8", "utf-8:strict")


@pytest.mark.parametrize(
    "name, words",
    [(name, words) for name in ENCODINGS for words in ("data list", "list ż犬")]
    + [("ascii", "data list --json"), ("cp1252", "list --help")],
)
def test_output_is_printed_in_any_encoding(tmp_path, monkeypatch, name, words):
    for folder in ("żaby", "犬猫", "emoji-😀"):
        class_folders(tmp_path / "data" / folder)
    monkeypatch.setenv("PYTHONIOENCODING", name)
    running = process(*words.split(), runs=tmp_path, encoding=name.partition(":")[0])
    out, err = running.communicate()
    assert running.returncode == (2 if "ż犬" in words else 0) and "Traceback" not in err
    if "--json" in words:
        assert {"żaby", "犬猫", "emoji-😀"} <= {row["name"] for row in json.loads(out)["sets"]}
    if "ż犬" in words:
        assert ("ż犬" if "utf" in name else "\\u017c\\u72ac") in err


@pytest.mark.parametrize("closed", ["1", "2", "1 2", "0 1 2"])
@pytest.mark.parametrize("words", [["list"], ["data", "list", "--json"], ["list", "nosuch"]])
def test_closed_streams_are_no_error(tmp_path, closed, words):
    shell = " ".join(f"{n}>&-" if n != "0" else "0<&-" for n in closed.split())
    command = f'"$0" -m clkit {" ".join(words)} {shell}'
    done = subprocess.run(["sh", "-c", command, sys.executable], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == (2 if "nosuch" in words else 0) and "Traceback" not in done.stderr
    assert ("1" in closed) == (done.stdout == "") or "nosuch" in words


def test_output_that_does_not_fit_is_said_in_a_sentence(tmp_path):
    for words in (["list"], ["list", "--json"]):
        with open("/dev/full", "w") as full:
            done = subprocess.run(
                [sys.executable, "-m", "clkit", *words],
                cwd=ROOT,
                stdout=full,
                stderr=subprocess.PIPE,
                text=True,
            )
        assert done.returncode == 2 and done.stderr.count("\n") == 1
        assert done.stderr.startswith(
            "clkit: the output could not be used (No space left on device): make room"
        )


@pytest.mark.parametrize(
    "words",
    [
        [*SMOKE, "--out", ""],
        [*SMOKE, "--out", "  "],
        ["figures", "--out", ""],
        ["figures", "--records", ""],
        ["report", "--records", ""],
        ["book", "build", "--out", ""],
    ],
)
def test_an_empty_folder_is_refused(command, words):
    refused(command(*words), "names no folder: write a path such as my-results")


def test_the_tilde_is_the_home_folder_everywhere(command, tmp_path, monkeypatch):
    home = tmp_path / "home"
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("CLKIT_RUNS", " ~/runs ")
    monkeypatch.chdir(tmp_path)
    assert command(*SMOKE, "--out", "~/records")[0] == 0
    assert command("report", "--records", "~/records")[0] == 0
    assert command("figures", "--records", "~/records", "--out", "~/drawn")[0] == 0
    assert sorted(p.name for p in home.iterdir()) == ["drawn", "records", "runs"]
    assert not (tmp_path / "~").exists()
    monkeypatch.setenv("CLKIT_RUNS", " ")
    assert experiments.runs_root() == ROOT / "runs"


@pytest.mark.parametrize("value", ["yes", "2", " true"])
def test_a_variable_of_the_environment_that_cannot_be_meant_is_refused(command, monkeypatch, value):
    monkeypatch.setenv("CLKIT_PROGRESS", value)
    refused(command(*SMOKE), f"CLKIT_PROGRESS must be 0 or 1, not '{value.strip()}'")
    monkeypatch.setenv("CLKIT_PROGRESS", " 0 ")
    assert command(*SMOKE)[0] == 0


@pytest.mark.parametrize("backend", ["module://of_nowhere", "nosuch", "TkAgg"])
def test_figures_are_written_whatever_backend_another_environment_names(
    command, tmp_path, monkeypatch, backend
):
    assert command(*SMOKE, "--out", tmp_path / "out")[0] == 0
    words = [
        sys.executable,
        "-m",
        "clkit",
        "figures",
        "--records",
        tmp_path / "out",
        "--out",
        tmp_path / "drawn",
    ]
    monkeypatch.setenv("MPLBACKEND", backend)
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "") and list((tmp_path / "drawn").glob("*.png"))


INTERRUPT = """
import os, runpy, signal, sys
wanted = sys.argv.pop(1)
class Finder:
    @staticmethod
    def find_spec(name, *rest):
        if name == wanted:
            os.kill(os.getpid(), signal.SIGINT)
signal.signal(signal.SIGINT, signal.default_int_handler)
sys.modules.pop(wanted, None)
sys.meta_path.insert(0, Finder)
runpy.run_module("clkit", run_name="__main__", alter_sys=True)
"""


@pytest.mark.parametrize(
    "module", ["argparse", "clkit.errors", "clkit.experiments", "numpy", "torch", "torch.nn", "clkit.methods"]
)
def test_ctrl_c_in_the_middle_of_an_import_ends_with_a_line(tmp_path, monkeypatch, module):
    monkeypatch.setenv("CLKIT_RUNS", str(tmp_path))
    done = subprocess.run(
        [sys.executable, "-c", INTERRUPT, module, *SMOKE], cwd=ROOT, capture_output=True, text=True
    )
    assert (done.returncode, done.stdout) == (130, "")
    assert done.stderr.strip() == "clkit: stopped; run the same command again"


def wait_for(pattern, runs, running):
    """Wait for a file in the run folders; fails if the process ends first."""
    end = time.monotonic() + 60
    while not list(runs.glob(pattern)):
        try:
            running.wait(0.01)
        except subprocess.TimeoutExpired:
            assert time.monotonic() < end, f"no {pattern} after a minute"
        else:
            pytest.fail(f"the run ended before there was {pattern}: {running.communicate()}")


def test_ctrl_c_stops_says_how_to_go_on_and_the_same_command_does(tmp_path, command, monkeypatch):
    words = [
        "run",
        "finetune/split-digits",
        "--preset",
        "teach",
        "--seeds",
        "3",
        "--set",
        "epochs=25",
        "--json",
    ]
    runs = tmp_path / "stopped"
    running = process(*words, runs=runs)
    wait_for("*/seed-3/stage-1.npz", runs, running)
    running.send_signal(signal.SIGINT)
    out, err = running.communicate(timeout=60)
    assert running.returncode == 130 and out == ""
    assert "stopping at the end of this epoch or step" in err and "Traceback" not in err
    assert "clkit: stopped " in err and "run the same command again to resume" in err
    [folder] = runs.glob("*/seed-3")
    assert not (folder / "result.json").exists() and not (folder / "stage-5.npz").exists()
    assert not list(folder.glob("*.part"))
    before = {p.name: p.stat().st_mtime_ns for p in folder.glob("stage-*.npz")}

    monkeypatch.setenv("CLKIT_RUNS", str(runs))
    status, out, _ = command(*words)
    assert status == 0 and all((folder / name).stat().st_mtime_ns == when for name, when in before.items())
    monkeypatch.setenv("CLKIT_RUNS", str(tmp_path / "whole"))
    status, whole, _ = command(*words)
    [other] = (tmp_path / "whole").glob("*/seed-3")
    assert status == 0 and other.parent.name == folder.parent.name
    identical(load(folder / "result")[0], load(other / "result")[0])
    resumed, uninterrupted = (json.loads(text) for text in (out, whole))
    for key in KEYS - {"seconds"}:
        assert resumed[key] == uninterrupted[key], key


# ---- own data


@pytest.fixture
def flowers(tmp_path):
    return class_folders(tmp_path / "flowers")


def test_own_images_from_a_folder_to_a_report_and_figures(command, flowers, tmp_path):
    order, mine = tmp_path / "order.txt", tmp_path / "mine"
    order.write_text("# the warm ones first\ndaisy\ncrocus\n\naster\nbluebell\nerica\nfoxglove\n")
    common = [
        "--tasks",
        "2,2,2",
        "--order",
        order,
        "--set",
        "epochs=1",
        "--set",
        "side=16",
        "--seeds",
        "0-1",
        "--out",
        mine,
    ]
    for method in ("finetune", "er"):
        status, out, _ = command("run", f"{method}/folder:{flowers}", *common)
        assert status == 0 and "preset own" in out and f"{method}_flowers_own_" in out
    [path] = mine.glob("er_*.json")
    result = load(path)[0]
    assert result.names[:2] == ["daisy", "crocus"] and result.classes_per_task == (2, 2, 2)
    for form, parts in (
        ("text", ["Finetune", "ER"]),
        ("markdown", ["| Finetune |", "| ER |"]),
        ("latex", ["Finetune &", "ER &"]),
    ):
        status, out, _ = command("report", "--records", mine, "--format", form)
        assert status == 0 and all(part in out for part in parts) and "2" in out
    status, out, _ = command("figures", "--records", mine, "--out", tmp_path / "drawn", "--format", "png,pdf")
    assert status == 0 and len(list((tmp_path / "drawn").glob("averages-*.pdf"))) == 1


@pytest.mark.parametrize(
    "words, part",
    [
        (["--tasks", "2,2"], "add the missing 2, such as --tasks 2,2,2"),
        (["--set", "test_share=0.3"], "is divided into train/ and test/: leave them out"),
        (["--tasks", "2;2"], "write 6,6,6,6"),
        (["--order", "nowhere.txt"], "nowhere.txt"),
        (["--preset", "teach"], "--preset is for the experiments of the book"),
        (["--set", "side=0"], "side is the height"),
        (["--set", "net=resnett"], "resnet18"),
        (["--keep", "los"], "did you mean loss"),
        (["--every", "soon"], "not a number"),
    ],
)
def test_own_images_with_options_that_cannot_work(command, flowers, words, part):
    refused(command("run", f"er/folder:{flowers}", *words), part)


def test_the_first_line_tells_of_an_undivided_folder(command, flowers):
    words = ["--tasks", "3,3", "--set", "epochs=1", "--set", "side=8", "--seeds", "0"]
    status, out, _ = command("run", f"finetune/folder:{flowers}/train", *words)
    told = "data train(side=8, split_seed=0, test_share=0.2) (there is no test/ folder: "
    assert status == 0 and told in out.splitlines()[0]
    refused(command("run", "finetune/folder:", *words), "'folder:' names no folder")


def test_what_is_asked_for_is_kept_and_written_often(command, tmp_path):
    assert (
        command(
            "run",
            "er/split-digits",
            "--preset",
            "smoke",
            "--keep",
            "loss, memory",
            "--every",
            "0",
            "--out",
            tmp_path / "out",
        )[0]
        == 0
    )
    assert load(tmp_path / "out" / "er_split-digits_smoke")[0].trace.keys() == {"loss", "memory"}


def test_seeds_are_not_lost_unasked(command, tmp_path):
    out = tmp_path / "out"
    assert command(*SMOKE, "--seeds", "0-2", "--out", out)[0] == 0
    refused(command(*SMOKE, "--seeds", "0", "--out", out), "has the seeds 1, 2, which would be lost")
    assert command(*SMOKE, "--seeds", "0", "--out", out, "--replace")[0] == 0
    assert [r.about["seed"] for r in load(out / "finetune_split-digits_smoke")] == [0]


def test_seeds_are_added_to_a_record(command, tmp_path):
    whole, out = tmp_path / "whole", tmp_path / "out"
    assert command(*SMOKE, "--seeds", "0-2", "--keep", "loss", "--out", whole)[0] == 0
    for seeds in ("1", "0,2"):  # the first finds no record
        assert command(*SMOKE, "--seeds", seeds, "--keep", "loss", "--out", out, "--add")[0] == 0
    together, apart = (load(folder / "finetune_split-digits_smoke") for folder in (whole, out))
    assert [r.about["seed"] for r in apart] == [0, 1, 2]
    for a, b in zip(together, apart, strict=True):
        assert all(np.array_equal(x, y) for x, y in zip(a.predictions, b.predictions, strict=True))
        assert a.trace.keys() == b.trace.keys() == {"loss"}


@pytest.mark.parametrize(
    "words, told",
    [
        (["--seeds", "0,3", "--out", "OUT", "--add"], "already has the seed 0: add only other seeds"),
        (["--seeds", "3", "--out", "OUT", "--add", "--replace"], "exclude each other"),
        (["--seeds", "3", "--add"], "out, the folder of a record"),
        (["--seeds", "3", "--replace"], "out, the folder of a record"),
    ],
)
def test_seeds_that_cannot_be_added(words, told, command, tmp_path):
    out = tmp_path / "out"
    assert command(*SMOKE, "--seeds", "0", "--out", out)[0] == 0
    before = (out / "finetune_split-digits_smoke.json").read_bytes()
    refused(command(*SMOKE, *[out if word == "OUT" else word for word in words]), told)
    assert (out / "finetune_split-digits_smoke.json").read_bytes() == before


def test_no_seed_is_added_to_a_stale_record(command, tmp_path):
    assert command(*SMOKE, "--seeds", "0", "--out", tmp_path)[0] == 0
    stem = tmp_path / "finetune_split-digits_smoke"
    results = load(stem)
    save([dataclasses.replace(r, about={**r.about, "revision": 0}) for r in results], stem)
    refused(command(*SMOKE, "--seeds", "1", "--out", tmp_path, "--add"), "another revision", "--replace")


def test_a_report_of_nothing(command, tmp_path):
    (tmp_path / "empty").mkdir()
    refused(command("report", "--records", tmp_path / "empty"), "there is no record", "python -m clkit run")
