"""Runs over a Dask cluster: the results and folders are those without one, and what can go wrong."""

import contextlib
import json
import os
import socket
import sys
import threading

import numpy as np
import pytest

from clkit import experiments
from clkit.__main__ import main
from clkit.engine.trace import Trace
from clkit.experiments import PresetError, cluster, runner

NAME = "finetune/split-digits"
QUIET = {"dashboard_address": "127.0.0.1:0", "silence_logs": 50}


@pytest.fixture(scope="module")
def address():
    """The address of a scheduler with two workers, both in this process."""
    distributed = pytest.importorskip("distributed")
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, processes=False, protocol="tcp", **QUIET
    ) as made:
        yield made.scheduler_address


@pytest.fixture
def runs(tmp_path, monkeypatch):
    monkeypatch.setenv("CLKIT_RUNS", str(tmp_path / "runs"))
    return tmp_path / "runs"


def same(one, other):
    return np.array_equal(one.predictions, other.predictions) and repr(one.trace) == repr(other.trace)


# ---- the same results


def test_results_and_folders_are_those_without_a_cluster(address, runs, tmp_path, monkeypatch):
    spread = experiments.run_experiment(NAME, "smoke", (0, 1, 2), scheduler=address, record="loss")
    folders = sorted(p.relative_to(runs) for p in runs.glob("*/*"))
    monkeypatch.setenv("CLKIT_RUNS", str(tmp_path / "alone"))
    alone = experiments.run_experiment(NAME, "smoke", (0, 1, 2), record="loss")
    assert [r.about["seed"] for r in spread] == [0, 1, 2]
    assert all(map(same, spread, alone)) and not same(spread[0], alone[1])
    assert folders == sorted(p.relative_to(tmp_path / "alone") for p in (tmp_path / "alone").glob("*/*"))
    assert len(folders) == 3


def test_finished_runs_are_read_back(address, runs, monkeypatch):
    first = experiments.run_experiment(NAME, "smoke", (0, 1), scheduler=address)
    monkeypatch.setattr("clkit.engine.run.evaluate", lambda *_: pytest.fail("it was computed again"))
    again = experiments.run_experiment(NAME, "smoke", (1, 0), scheduler=address)
    assert [r.about["date"] for r in again] == [r.about["date"] for r in first[::-1]]


def test_methods_settings_and_seeds_begin_at_once(address, runs, tmp_path, monkeypatch, capsys):
    begun, finish = [], cluster.Cluster.finish

    def note(self, *rest):
        begun.append(len(self.begun))
        return finish(self, *rest)

    monkeypatch.setattr(cluster.Cluster, "finish", note)
    command = ["run", NAME, "er/split-digits", "--preset", "smoke", "--seeds", "0,1", "--json"]
    command += ["--set", "epochs=1", "--set", "epochs=2", "--set", "lr=0.1"]
    assert main([*command, "--scheduler", address]) == 0
    spread = json.loads(capsys.readouterr().out)["experiments"]
    assert begun == [8] * 4
    monkeypatch.setenv("CLKIT_RUNS", str(tmp_path / "alone"))
    assert main(command) == 0
    alone = json.loads(capsys.readouterr().out)["experiments"]
    kept = ("experiment", "config", "seeds", "average_accuracy", "forgetting")
    assert [{k: one[k] for k in kept} for one in spread] == [{k: one[k] for k in kept} for one in alone]
    assert len({json.dumps(one["average_accuracy"]) for one in spread}) > 1


def test_a_process_computes_one_run_at_a_time(address, monkeypatch):
    with cluster.connected(address, 1) as connection:
        assert connection.finish(meet, {"a": (), "b": ()}) == [False, False]
        monkeypatch.setattr(cluster, "_one_at_a_time", contextlib.nullcontext())
        BARRIER.reset()
        assert connection.finish(meet, {"c": (), "d": ()}) == [True, True], "without it, they would meet"


BARRIER = threading.Barrier(2, timeout=0.5)


def meet():
    """Whether another call runs at the same time."""
    try:
        BARRIER.wait()
    except threading.BrokenBarrierError:
        BARRIER.reset()
        return False
    return True


def test_a_worker_has_the_folders_of_the_client_unless_it_has_its_own(monkeypatch):
    monkeypatch.setenv("CLKIT_DATA", "own")
    monkeypatch.delenv("CLKIT_RUNS", raising=False)
    places = {"CLKIT_DATA": "data", "CLKIT_RUNS": "runs"}
    found = cluster._computed(lambda *names: [os.environ[name] for name in names], tuple(places), places)
    assert found == ["own", "runs"] and "CLKIT_RUNS" not in os.environ


# ---- what can go wrong


def test_without_the_package_one_sentence_says_how_to_get_it(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "distributed", None)
    assert main(["run", NAME, "--preset", "smoke", "--scheduler", "dask"]) == 2
    said = capsys.readouterr().err
    assert "not installed: python -m pip install 'clkit[dask]'" in said and said.count("\n") == 1


@pytest.mark.parametrize("kind", ["closed", "nonsense", "no port", "protocol"])
def test_a_scheduler_that_does_not_answer_is_named(kind, monkeypatch):
    pytest.importorskip("distributed")
    monkeypatch.setattr(cluster, "ANSWER", 0.5)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # nobody listens there
        where = {
            "closed": f"tcp://127.0.0.1:{taken.getsockname()[1]}",
            "nonsense": "Dask",
            "no port": "tcp://",
            "protocol": "nothing://127.0.0.1:1",
        }[kind]
        before = set(threading.enumerate())
        with pytest.raises(PresetError, match=f"the scheduler '{where}' does not answer .*: start it with"):
            experiments.run_experiment(NAME, "smoke", (0,), scheduler=where)
    left = {thread.name for thread in set(threading.enumerate()) - before}
    assert "IO loop" not in left, "a client that stays open blocks the next one when it is collected"


def test_a_scheduler_without_workers_is_named(monkeypatch):
    distributed = pytest.importorskip("distributed")
    monkeypatch.setattr(cluster, "WORKERS", 0.2)
    with (
        distributed.LocalCluster(n_workers=0, processes=False, protocol="tcp", **QUIET) as made,
        pytest.raises(PresetError, match=f"{made.scheduler_address} has no workers: start some with `dask w"),
        cluster.connected(made.scheduler_address, 1),
    ):
        pass


def test_workers_that_are_gone_are_named(monkeypatch):
    distributed = pytest.importorskip("distributed")
    with (
        distributed.LocalCluster(n_workers=1, processes=False, protocol="tcp", **QUIET) as made,
        cluster.connected(made.scheduler_address, 1) as connection,
    ):
        connection.client.retire_workers(list(connection.client.nthreads()))
        monkeypatch.setattr(cluster, "WORKERS", 0.2)
        with pytest.raises(PresetError, match="no worker of the scheduler .* is left: .* to resume"):
            connection.finish(meet, {"never": ()})


def test_a_scheduler_that_stops_is_named():
    distributed = pytest.importorskip("distributed")
    with (
        distributed.LocalCluster(n_workers=1, processes=False, protocol="tcp", **QUIET) as made,
        cluster.connected(made.scheduler_address, 1) as connection,
    ):
        connection.begin(until_released, {"held": ()})
        threading.Timer(0.2, made.close).start()
        try:
            with pytest.raises(PresetError, match="the scheduler .* stopped answering: .* to resume"):
                connection.finish(until_released, {"held": ()})
        finally:
            RELEASE.set()


RELEASE = threading.Event()


def until_released():
    RELEASE.wait(2)


@pytest.mark.parametrize(
    "error, expected, message",
    [
        (PresetError("of the run"), PresetError, "^of the run$"),
        (ModuleNotFoundError("No module named 'clkit'"), PresetError, "lack a package .*: install the clkit"),
        (OSError(28, "No space left"), OSError, "No space left"),
        (ValueError("a fault"), ValueError, "^a fault$"),
    ],
)
def test_an_error_of_a_run_is_raised_here(address, error, expected, message):
    with cluster.connected(address, 1) as connection, pytest.raises(expected, match=message):
        connection.finish(fail, {f"failing {error}": (error,), "fine": (None,)})


def fail(error):
    if error is not None:
        raise error


# ---- processes that die


def test_a_run_whose_worker_dies_is_resumed_by_another(runs, tmp_path, monkeypatch):
    pytest.importorskip("distributed")
    found = experiments.experiment(NAME, "smoke")
    [call] = runner._calls(found, (0,), "cpu", ("loss",), 0.0).values()
    calls = {"seed 0": (str(tmp_path / "died"), call)}
    with cluster.connected("dask", 1) as connection:
        ((found_there, result),) = connection.finish(dies_once, calls)
    assert found_there == ["stage-0.npz", "stage-1.npz"], "the first task was not learned again"
    monkeypatch.setenv("CLKIT_RUNS", str(tmp_path / "alone"))
    assert same(result, runner.run_seed_of(found, 0, "cpu", ("loss",), False)[1])


def dies_once(mark, arguments):
    """(what the second process finds, the result) of a run whose first process dies in the second task."""
    if not os.path.exists(mark):
        open(mark, "w").close()
        begin = Trace.begin

        def begins(trace, learner, task, **rest):
            return os._exit(9) if task == 1 else begin(trace, learner, task, **rest)

        Trace.begin = begins
    there = sorted(path.name for path in runner.runs_root().rglob("stage-*"))
    return there, runner._seed_result(*arguments)


def test_a_run_that_kills_every_worker_is_named():
    pytest.importorskip("distributed")
    import dask

    with (
        dask.config.set({"distributed.scheduler.allowed-failures": 0}),
        cluster.connected("dask", 1) as connection,
        pytest.raises(PresetError, match="^each worker that computed seed 7 died, .* with fewer jobs$"),
    ):
        connection.finish(os._exit, {"seed 7": (9,)})
