"""Files of a run: complete or refused, and only in their own place."""

import errno
import math
import os
import random
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from clkit.engine import RunError
from clkit.engine.checkpoint import load_tensors, seal, unseal
from clkit.engine.run import run
from clkit.engine.trace import Trace
from clkit.errors import ClkitError
from tests.fakes import Config, Online, small_stream, stop_after
from tests.soak import compare

STAGES = ("stage-0.npz", "stage-1.npz", "stage-2.npz")
FILES = ("run.json", "state.pt", "previous.pt", "checkpoint.pt", *STAGES)
READ = tuple(name for name in FILES if name != "previous.pt")  # as long as state.pt is there


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
    with monkeypatch.context() as patch:
        stop_after(task, patch)
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


def refused(folder, *parts):
    """The message of a RunError that has these parts, in one line."""
    with pytest.raises(RunError) as error:
        go(folder)
    message = str(error.value)
    assert all(part in message for part in parts) and "\n" not in message, message
    return message


def cure(folder, file, message):
    """Delete what the message says, and nothing else."""
    what = re.search(r": delete (.*?) and run again", message)[1]
    if what == f"the folder {folder}":
        return shutil.rmtree(folder)
    (file if what == "this file" else Path(what)).unlink()


def test_every_flipped_bit_is_noticed_and_its_cure_works(broken, whole, tmp_path):
    draw, folder = random.Random(0), tmp_path / "copy"
    for name in READ:
        for n in reversed(range(8)):
            shutil.copytree(broken, folder)
            data = bytearray((folder / name).read_bytes())
            data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
            (folder / name).write_bytes(data)
            message = refused(folder, f"{folder / name} is damaged: delete ")
            if n:
                shutil.rmtree(folder)
        cure(folder, folder / name, message)
        assert folder.exists() == (name not in ("stage-0.npz", "stage-1.npz")), "what is good stays"
        go(folder)
        compare(whole, folder)
        shutil.rmtree(folder)
    go(broken)
    compare(whole, broken)


def test_without_a_state_before_it_a_damaged_state_costs_the_folder(broken):
    (broken / "previous.pt").unlink()
    (broken / "state.pt").write_bytes(b"damaged")
    refused(broken, f"state.pt is damaged: delete the folder {broken} and run again")
    shutil.copy(broken / "state.pt", broken / "previous.pt")
    (broken / "state.pt").unlink()
    refused(broken, f"previous.pt is damaged: delete the folder {broken} and run again")


@pytest.mark.parametrize("name", READ)
@pytest.mark.parametrize("code", [errno.EIO, errno.EACCES, errno.EMFILE, errno.ESTALE, None])
def test_a_file_that_cannot_be_read_is_not_called_damaged(broken, whole, monkeypatch, name, code):
    read = Path.read_bytes

    def refuses(path):
        if path.name == name:
            raise MemoryError if code is None else OSError(code, os.strerror(code), str(path))
        return read(path)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "read_bytes", refuses)
        with pytest.raises(ClkitError) as error:
            go(broken)
    said = "not enough memory to read" if code is None else f"could not be read ({os.strerror(code)}): "
    assert f"{broken / name}" in str(error.value) and said in str(error.value)
    assert "damaged" not in str(error.value) and "delete" not in str(error.value).replace("was deleted", "")
    go(broken)
    compare(whole, broken)


def forge(path, head=None, payload=None):
    """Give a sealed file another head, by head(JSON), or another payload, and a checksum that fits."""
    facts, content = unseal(path)
    if head:
        head(facts)
    seal(path, facts, payload or (lambda file: file.write(content.getvalue())))


def put(key, value):
    return lambda facts: facts.__setitem__(key, value)


@pytest.mark.parametrize(
    "name, head",
    [
        *(("state.pt", put("stages", value)) for value in (0, -1, "2", 1.0, None, True, [])),
        *(("state.pt", put("computed_by", value)) for value in (None, {}, [1])),
        *(("stage-1.npz", put("stage", value)) for value in (-1, "1", None)),
        *(("checkpoint.pt", put("task", value)) for value in (-1, "2", 2.0, None)),
        *((name, put("run", value)) for name in ("state.pt", "stage-0.npz") for value in ([], None, 3)),
        *((name, lambda facts: facts.clear()) for name in ("state.pt", "stage-0.npz", "checkpoint.pt")),
    ],
)
def test_a_head_that_parses_but_cannot_be_right_is_damage(broken, name, head):
    forge(broken / name, head)
    refused(broken, f"{name} is damaged: delete ")


@pytest.mark.parametrize("name", ["state.pt", "checkpoint.pt"])
@pytest.mark.parametrize("content", [[], {}, 3, None, {"parameters": 1}, {"finished": [], "unfinished": {}}])
def test_content_of_another_kind_is_damage(broken, name, content):
    forge(broken / name, payload=lambda file: torch.save(content, file))
    refused(broken, f"{name} is damaged: delete ")


@pytest.mark.parametrize("content", [b"", b"no zip", b"PK\x05\x06" + bytes(18)])
@pytest.mark.parametrize("name", ["state.pt", "stage-1.npz", "checkpoint.pt"])
def test_content_that_is_none_is_damage(broken, name, content):
    forge(broken / name, payload=lambda file: file.write(content))
    refused(broken)


def inside(state, *keys, value):
    """Set a value deep inside a state."""
    for key in keys[:-1]:
        state = state[key]
    state[keys[-1]] = value


@pytest.mark.parametrize(
    "keys, value",
    [
        *((("unfinished", "done"), value) for value in (-1, "2", 1.5, None, 10**9)),
        *((("unfinished", "phase"), value) for value in (3, "another")),
        *((("unfinished", "clock", "learn_seconds"), value) for value in (math.nan, math.inf, -1.0, "1")),
        *((("unfinished", "clock", "n_samples"), value) for value in (-1, 0.5)),
        *((("unfinished", "random"), value) for value in ({}, None, [])),
        (("unfinished", "random", "torch"), torch.zeros(3, device="cpu")),
        (("unfinished", "random", "numpy"), ["MT19937"]),
        (("unfinished", "objects"), []),
        (("unfinished", "objects"), [{}]),
        (("unfinished", "learner", "parameters"), {}),
        (("unfinished", "learner", "parameters"), []),
        (("finished",), None),
        (("finished",), [{}]),
        (("rows",), {"step": {"loss": 3}}),
        (("rows",), []),
    ],
)
def test_a_checkpoint_that_parses_but_cannot_be_right_is_refused(broken, keys, value):
    state = load_tensors(unseal(broken / "checkpoint.pt")[1])
    inside(state, *keys, value=value)
    forge(broken / "checkpoint.pt", payload=lambda file: torch.save(state, file))
    with pytest.raises(ClkitError) as error:
        go(broken)
    assert "\n" not in str(error.value) and re.search("delete|start the run", str(error.value))


@pytest.mark.parametrize(
    "key, change",
    [
        ("rank", lambda a: a[:-1]),
        ("rank", lambda a: a * 0.5),
        ("predictions", lambda a: a + 99),
        ("predictions_task_aware", lambda a: a - 2),
        ("seen", lambda a: a + 1000),
        ("learn_seconds", lambda a: a * np.nan),
        ("n_samples", lambda a: -a - 1),
        ("parameters", lambda a: a.astype(str)),
        ("memory_bytes/weights", lambda a: a * np.nan),
        ("test_seconds", None),
    ],
)
def test_a_stage_that_parses_but_cannot_be_right_is_refused(broken, key, change):
    path = broken / "stage-1.npz"
    with np.load(unseal(path)[1], allow_pickle=False) as a:
        arrays = dict(a)
    if change:
        arrays[key] = change(arrays[key])
    else:
        del arrays[key]
    forge(path, payload=lambda file: np.savez(file, **arrays))
    refused(broken, "the stages of this run do not fit together", "start it anew in another folder")


def test_without_its_checkpoint_a_task_starts_again(broken, whole):
    data = (broken / "checkpoint.pt").read_bytes()
    (broken / "checkpoint.pt").write_bytes(data[:-1])
    with pytest.raises(RunError, match="checkpoint.pt is damaged: delete this file"):
        go(broken)
    (broken / "checkpoint.pt").unlink()
    go(broken)
    compare(whole, broken)


@pytest.mark.parametrize("name", READ)
def test_a_file_cut_short_or_empty_is_noticed(broken, name):
    data = (broken / name).read_bytes()
    for part in (b"", data[:100], data[:-1], data + b"\n"):
        (broken / name).write_bytes(part)
        with pytest.raises(RunError, match=f"{name} is damaged"):
            go(broken)


def test_files_of_another_seed_are_refused(broken, tmp_path, monkeypatch):
    killed(tmp_path / "other", monkeypatch, seed=1)
    for name in READ:
        shutil.copytree(broken, tmp_path / "mixed")
        shutil.copy(tmp_path / "other" / name, tmp_path / "mixed" / name)
        with pytest.raises(RunError, match=r"another run \(seed 1 there, 0 now\).*delete"):
            go(tmp_path / "mixed")
        shutil.rmtree(tmp_path / "mixed")


def test_files_of_another_stage_are_refused(broken, tmp_path, monkeypatch, whole):
    for i, j in ((0, 1), (1, 2), (2, 1)):
        shutil.copytree(broken, tmp_path / "mixed")
        shutil.copy(broken / f"stage-{i}.npz", tmp_path / "mixed" / f"stage-{j}.npz")
        with pytest.raises(RunError, match=f"stage-{j}.npz belongs to stage {i}: delete "):
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
    cure(broken, None, refused(broken, "stage-3.npz is missing: delete "))
    go(broken)
    compare(whole, broken)


def test_a_checkpoint_that_a_kill_left_behind_counts_no_more(broken, whole, tmp_path):
    """The kill came between writing the state and removing the checkpoint of the finished task."""
    shutil.copy(broken / "checkpoint.pt", tmp_path / "left")
    go(broken)
    shutil.copy(tmp_path / "left", broken / "checkpoint.pt")
    go(broken)
    compare(whole, broken)


def test_a_run_without_a_key_starts_anew_and_says_so(tmp_path, monkeypatch, capsys):
    go(tmp_path / "known")
    learned, end = [], Trace.end
    monkeypatch.setattr(Trace, "end", lambda trace: (learned.append(trace), end(trace))[1])
    monkeypatch.setattr("clkit.engine.run.revision_of", lambda *_: None)
    for n in (3, 6):
        go(tmp_path / "a")
        assert len(learned) == n and f"its run in {tmp_path / 'a'} starts anew" in capsys.readouterr().err
    with pytest.raises(RunError, match="holds another run.*choose another folder or delete it"):
        go(tmp_path / "known")


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
