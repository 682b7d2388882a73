"""`torchrun -m clkit run` with two processes: the same predictions, Ctrl-C, a process that is killed."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import psutil
import pytest

from clkit.__main__ import main
from clkit.result import load
from tests.test_cli import wait_for

ROOT = Path(__file__).resolve().parents[1]
WORDS = ["run", "gfr/split-shapes", "--preset", "smoke", "--seeds", "0", "--device", "cpu", "--json"]


def torchrun(*words, runs):
    """Two processes; torchrun finds a free port."""
    start = ["-m", "torch.distributed.run", "--nproc-per-node", "2", "--rdzv-backend", "c10d"]
    start += ["--rdzv-endpoint", "127.0.0.1:0", "--local-addr", "127.0.0.1", "-m", "clkit"]
    return subprocess.Popen(
        [sys.executable, *start, *words],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "CLKIT_RUNS": str(runs), "OMP_NUM_THREADS": "1"},
    )


def said(err):
    """What clkit prints, among the lines of torchrun."""
    return [line for line in err.splitlines() if line.startswith("clkit: ")]


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """The result of the run in one process."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CLKIT_RUNS", str(tmp_path_factory.mktemp("alone")))
        assert main(WORDS) == 0
        [folder] = Path(os.environ["CLKIT_RUNS"]).glob("*/seed-0")
        return load(folder / "result")[0]


def same(folder, alone):
    found = load(folder / "result")[0]
    assert np.array_equal(found.predictions, alone.predictions)
    assert found.trace.keys() == alone.trace.keys()
    for column in ("svcca", "cka"):
        np.testing.assert_allclose(
            found.trace["similarity"][column], alone.trace["similarity"][column], atol=0.1
        )
    return found


def test_predictions_are_those_of_one_process(tmp_path, alone):
    out, err = torchrun(*WORDS, runs=tmp_path).communicate(timeout=300)
    [folder] = tmp_path.glob("*/seed-0")
    assert json.loads(out)["seeds"] == [0], "one process prints"
    assert said(err) == []
    assert same(folder, alone).about["processes"] == 2


def test_ctrl_c_stops_both_and_the_same_command_resumes(tmp_path, alone):
    running = torchrun(*WORDS, "--set", "epochs=2", "--every", "0", runs=tmp_path)
    wait_for("*/seed-0/checkpoint.pt", tmp_path, running)
    running.send_signal(signal.SIGINT)
    out, err = running.communicate(timeout=120)
    assert out == "" and running.returncode
    [stopped] = said(err)
    assert stopped.startswith("clkit: stopped ") and "run the same command again to resume" in stopped
    [folder] = tmp_path.glob("*/seed-0")
    assert not (folder / "result.json").exists()
    assert torchrun(*WORDS, runs=tmp_path).wait(300) == 0
    same(folder, alone)


def test_a_killed_process_ends_the_other(tmp_path):
    running = torchrun(*WORDS, "--set", "gan_epochs=1000", "--set", "epochs=1000", runs=tmp_path)
    wait_for("*/seed-0/stage-0.npz", tmp_path, running)
    [second] = [p for p in psutil.Process(running.pid).children() if p.environ()["RANK"] == "1"]
    second.kill()
    out, err = running.communicate(timeout=120)
    assert out == "" and running.returncode
    [sentence] = said(err)
    assert " ended" in sentence and sentence.endswith(": run the same command again to resume")
