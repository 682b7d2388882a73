"""Files of a run: complete or refused, and only in their own place."""

import random
import shutil

import numpy as np
import pytest
import torch

from clkit.engine import RunError
from clkit.engine.checkpoint import load_tensors, seal, unseal
from clkit.engine.run import run
from tests.fakes import Config, Online, small_stream
from tests.soak import compare

FILES = ("run.json", "state.pt", "checkpoint.pt", "stage-0.npz", "stage-1.npz", "stage-2.npz")


def go(folder, seed=0, every=0.0, **options):
    return run(
        Online,
        Config(epochs=2),
        small_stream(),
        seed=seed,
        folder=folder,
        every=every,
        threads=1,
        record="*",
        progress=False,
        **options,
    )


def killed(folder, monkeypatch, seed=0, task=2):
    """A run that was killed inside a task, after a checkpoint."""
    learn = Online.learn

    def stops(self, its_task, trace):
        learn(self, its_task, trace)
        if its_task.index == task:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Online, "learn", stops)
        with pytest.raises(KeyboardInterrupt):
            go(folder, seed)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """An uninterrupted run."""
    folder = tmp_path_factory.mktemp("whole")
    go(folder)
    return folder


@pytest.fixture
def broken(tmp_path, monkeypatch):
    """A run that was stopped inside its last task."""
    killed(tmp_path / "run", monkeypatch)
    assert sorted(p.name for p in (tmp_path / "run").iterdir()) == sorted((*FILES, "lock"))
    return tmp_path / "run"


def test_every_flipped_bit_is_noticed_and_its_cure_works(broken, whole, tmp_path):
    draw = random.Random(0)
    for name in FILES:
        for _ in range(12):
            folder = tmp_path / "copy"
            shutil.copytree(broken, folder)
            data = bytearray((folder / name).read_bytes())
            data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
            (folder / name).write_bytes(data)
            with pytest.raises(RunError, match=rf"{name} is damaged: delete .* run again") as error:
                go(folder)
            cure(folder, str(error.value))
            shutil.rmtree(folder)
    go(broken)
    compare(whole, broken)


def cure(folder, message):
    """Follow the message for the file that costs least; the run then ends correctly."""
    if "delete this file and run again: task 2 then starts at its beginning" in message:
        (folder / "checkpoint.pt").unlink()
    else:
        assert f"delete the folder {folder} and run again" in message


def test_without_its_checkpoint_a_task_starts_again(broken, whole):
    data = (broken / "checkpoint.pt").read_bytes()
    (broken / "checkpoint.pt").write_bytes(data[:-1])
    with pytest.raises(RunError, match="checkpoint.pt is damaged: delete this file"):
        go(broken)
    (broken / "checkpoint.pt").unlink()
    go(broken)
    compare(whole, broken)


@pytest.mark.parametrize("name", FILES)
def test_a_file_cut_short_or_empty_is_noticed(broken, name):
    data = (broken / name).read_bytes()
    for part in (b"", data[:100], data[:-1], data + b"\n"):
        (broken / name).write_bytes(part)
        with pytest.raises(RunError, match=f"{name} is damaged"):
            go(broken)


def test_files_of_another_seed_are_refused(broken, tmp_path, monkeypatch):
    killed(tmp_path / "other", monkeypatch, seed=1)
    for name in FILES:
        shutil.copytree(broken, tmp_path / "mixed")
        shutil.copy(tmp_path / "other" / name, tmp_path / "mixed" / name)
        with pytest.raises(RunError, match=r"another run \(seed 1 there, 0 now\).*delete"):
            go(tmp_path / "mixed")
        shutil.rmtree(tmp_path / "mixed")


def test_files_of_another_stage_are_refused(broken, tmp_path, monkeypatch, whole):
    for i, j in ((0, 1), (1, 2), (2, 1)):
        shutil.copytree(broken, tmp_path / "mixed")
        shutil.copy(broken / f"stage-{i}.npz", tmp_path / "mixed" / f"stage-{j}.npz")
        with pytest.raises(RunError, match=f"stage-{j}.npz belongs to stage {i}: delete the folder"):
            go(tmp_path / "mixed")
        shutil.rmtree(tmp_path / "mixed")
    killed(tmp_path / "earlier", monkeypatch, task=0)
    shutil.copy(tmp_path / "earlier" / "checkpoint.pt", broken / "checkpoint.pt")
    with pytest.raises(RunError, match="checkpoint.pt belongs to task 0, not to task 2: delete this file"):
        go(broken)
    shutil.copy(tmp_path / "earlier" / "state.pt", broken / "state.pt")
    go(broken)
    compare(whole, broken)


def test_a_state_of_a_later_stage_misses_its_stages(broken, whole):
    shutil.copy(whole / "state.pt", broken / "state.pt")
    with pytest.raises(RunError, match="stage-3.npz is missing: delete the folder"):
        go(broken)


def test_a_checkpoint_that_a_kill_left_behind_counts_no_more(broken, whole, tmp_path):
    """The kill came between writing the state and removing the checkpoint of the finished task."""
    shutil.copy(broken / "checkpoint.pt", tmp_path / "left")
    go(broken)
    shutil.copy(tmp_path / "left", broken / "checkpoint.pt")
    go(broken)
    compare(whole, broken)


def test_a_class_that_stands_in_no_file_is_never_read_back(tmp_path, monkeypatch):
    monkeypatch.setattr("clkit.engine.run.key_of", lambda *_: None)
    go(tmp_path / "a")
    with pytest.raises(
        RunError, match="Online is not defined in a file.*choose another folder, or move the class"
    ):
        go(tmp_path / "a")


def test_a_sealed_file_comes_back_and_is_made_in_memory_first(tmp_path):
    path, state = tmp_path / "x.pt", {"a": torch.arange(3, device="cpu"), "b": [1, "\n"]}
    seal(path, {"run": {"seed": 1}}, lambda file: torch.save(state, file))
    head, payload = unseal(path)
    assert head == {"run": {"seed": 1}} and load_tensors(payload)["a"].tolist() == [0, 1, 2]

    def fails(file):
        file.write(b"half")
        raise ZeroDivisionError

    before = path.read_bytes()
    with pytest.raises(ZeroDivisionError):
        seal(path, {}, fails)
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]


class Bomb:
    """Code that unpickling would run."""

    def __reduce__(self):
        return (pytest.fail, ("a pickle was read",))


def test_no_pickle_is_ever_read(tmp_path):
    seal(tmp_path / "x.pt", {}, lambda file: torch.save({"a": Bomb()}, file))
    with pytest.raises(Exception, match="(?i)weights.only|unsupported"):
        load_tensors(unseal(tmp_path / "x.pt")[1])
    seal(tmp_path / "x.npz", {}, lambda file: np.savez(file, a=np.array([Bomb()], dtype=object)))
    with (
        pytest.raises(ValueError, match="pickle"),
        np.load(unseal(tmp_path / "x.npz")[1], allow_pickle=False) as a,
    ):
        a["a"]
