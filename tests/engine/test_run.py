"""The run loop: what it evaluates, stores, refuses and resumes."""

import errno
import json
import os
import signal

import numpy as np
import pytest
import torch

from clkit import experiments
from clkit.engine import RunError, checkpoint
from clkit.engine import evaluate as evaluate_module
from clkit.engine import run as run_module
from clkit.engine.checkpoint import RESULT, lock
from clkit.engine.device import pick_device, torch_set
from clkit.engine.evaluate import accuracy_by_task, evaluate
from clkit.engine.run import run
from clkit.engine.trace import Stopped
from clkit.errors import FileError, file_error
from clkit.result import load
from tests.fakes import FAKES, Config, Growing, Online, TwoPhase, small_stream, stop_after
from tests.soak import LOOPS, SUBJECTS, Killer, compare

FULL = file_error("checkpoint.pt", "written", OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)))


@pytest.mark.parametrize("subject", [*LOOPS, *FAKES])
def test_killed_and_resumed_equals_never_killed(subject, tmp_path):
    """One or two of the kills that `make soak` performs by the hundred, and on every variant of a loop."""
    kills = 2 if subject in FAKES else 1
    found = Killer(seed=SUBJECTS.index(subject)).soak(subject, tmp_path, kills)
    assert found["kills"] == kills


def quick(folder=None, learner=Online, stream=None, **options):
    options = {"progress": False, "threads": 1, **options}
    return run(learner, Config(epochs=2), stream or small_stream(), folder=folder, **options)


class ByHand(torch.nn.Module):
    """Logits that are the image's four pixels: (B, 4)."""

    def forward(self, x):
        return x.flatten(1)[:, :4]


def test_evaluation_by_hand():
    stream = small_stream(classes=4, sizes=(2, 2), side=2)
    stream.test.images.zero_()
    #                    true class 0          1             2             3
    for label, logits in enumerate(([9, 1, 0, 0], [9, 1, 0, 0], [5, 0, 4, 3], [0, 9, 2, 1])):
        stream.test.images[stream.test.labels == label] = torch.tensor(
            logits, dtype=torch.uint8, device="cpu"
        ).view(1, 2, 2)
    after_one, after_two = (evaluate(ByHand(), stream.test, stream.classes_per_task, seen) for seen in (2, 4))
    firsts = [int((stream.test.labels == c).nonzero()[0]) for c in range(4)]
    assert after_one["predictions"][firsts].tolist() == [0, 0, -1, -1]
    assert after_two["predictions"][firsts].tolist() == [0, 0, 0, 1]
    for after in (after_one, after_two):
        assert after["predictions_task_aware"][firsts].tolist() == [0, 0, 2, 2]
    assert after_two["rank"][firsts].tolist() == [0, 1, 1, 2]
    assert after_one["rank"][firsts].tolist() == [0, 1, -1, -1]


def test_equal_logits_rank_as_they_are_chosen():
    """Among equal logits the first is predicted, and only it has rank 0: top-1 accuracy is accuracy."""
    stream = small_stream(classes=4, sizes=(2, 2), side=2, per_class=60)
    draw = torch.Generator(device="cpu").manual_seed(0)
    pixels = torch.randint(0, 3, stream.test.images.shape, generator=draw, device="cpu")
    stream.test.images.copy_(pixels)
    for seen in (2, 4):
        found = evaluate(ByHand(), stream.test, stream.classes_per_task, seen)
        known = found["rank"] >= 0
        assert ((found["rank"] == 0) == (found["predictions"] == stream.test.labels.numpy()))[known].all()
        logits, labels = pixels.flatten(1)[:, :seen], stream.test.labels
        for n in np.flatnonzero(known):
            order = sorted(range(seen), key=lambda k, row=logits[n]: (-int(row[k]), k))
            assert found["rank"][n] == order.index(int(labels[n]))


def test_accuracy_by_task_against_a_loop():
    stream = small_stream()
    model = TwoPhase(Config(), stream.shape, stream.classes)
    right = model(stream.test.images / 255).argmax(1) == stream.test.labels
    task = stream.test.labels // 2
    expected = [right[task == t].float().mean() for t in range(3)]
    torch.testing.assert_close(
        accuracy_by_task(stream.test, stream.classes_per_task, model), torch.stack(expected)
    )


def test_evaluation_covers_a_ragged_last_batch(monkeypatch):
    stream = small_stream()
    model = TwoPhase(Config(), stream.shape, stream.classes)
    whole = evaluate(model, stream.test, stream.classes_per_task, 6)
    monkeypatch.setattr(evaluate_module, "TEST_PIXELS", 1)
    monkeypatch.setattr(
        stream.test,
        "batches",
        lambda size, shuffle: type(stream.test).batches(stream.test, 7, shuffle=shuffle),
    )
    parts = evaluate(model, stream.test, stream.classes_per_task, 6)
    assert all(np.array_equal(whole[k], parts[k]) for k in ("predictions", "predictions_task_aware", "rank"))
    assert len(whole["rank"]) == len(stream.test)


def test_a_growing_head_has_no_answer_for_later_tasks():
    _, result = quick(learner=Growing)
    assert (result.predictions_task_aware[0] == -1).all() and np.isnan(result.start_accuracy()).all()
    assert not np.isnan(result.task_aware_accuracy()[np.tril_indices(3)]).any()
    assert np.isnan(result.forward_transfer())


def test_what_a_result_says(tmp_path):
    stream = small_stream()
    model, result = quick(tmp_path / "a", record="*", about={"preset": "smoke"}, stream=stream)
    assert (
        result.seen.tolist() == [2, 4, 6]
        and result.classes_per_task == (2, 2, 2)
        and result.names[0] == "class 0"
    )
    assert result.n_samples.tolist() == [48] * 3 and (result.learn_seconds > 0).all()
    assert result.parameters.tolist() == [sum(p.numel() for p in model.parameters())] * 3
    about = result.about
    assert about["preset"] == "smoke" and about["threads"] == 1 and about["stream"] == stream.about()
    assert (
        about["learner"] == "Online"
        and about["settings"] == {"epochs": 2}
        and about["config"]["patience"] == 2
    )
    assert {"key", "revision", "seed", "device", "cpu", "versions", "commit", "date"} <= about.keys()
    assert result.trace["step"]["task"].tolist() == [0] * 12 + [1] * 12 + [2] * 12
    assert result.labels.tolist() == stream.test.labels.tolist()
    [again] = load(tmp_path / "a" / "result")
    assert np.array_equal(again.predictions, result.predictions)
    assert again.about == json.loads(json.dumps(result.about))


def test_a_finished_run_is_read_back(tmp_path, monkeypatch):
    _, first = quick(tmp_path, record="*")

    monkeypatch.setattr(run_module.Trace, "end", lambda *_: pytest.fail("it trained again"))
    model, again = quick(tmp_path, record="*")
    assert np.array_equal(first.rank, again.rank) and np.array_equal(first.learn_seconds, again.learn_seconds)
    assert np.array_equal(first.trace["step"]["loss"], again.trace["step"]["loss"]) and model.steps == 36


def test_a_stopped_run_resumes(tmp_path, monkeypatch):
    """After one Ctrl-C, the run stops at the end of the step with a checkpoint; the same call resumes it."""
    _, _whole = quick(tmp_path / "whole", record="*")
    steps, count = run_module.Trace.steps, []
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background may ignore it

    def counting(*words, **more):
        for item in steps(*words, **more):
            count.append(1)
            if len(count) == 17:
                os.kill(os.getpid(), signal.SIGINT)
            yield item

    with monkeypatch.context() as patch:
        patch.setattr(run_module.Trace, "steps", counting)
        with pytest.raises(Stopped, match="task 1, loop 'online', after 5 rounds"):
            quick(tmp_path / "stopped", record="*")
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    signal.signal(signal.SIGINT, before)
    quick(tmp_path / "stopped", record="*")
    compare(tmp_path / "whole", tmp_path / "stopped")


def test_the_first_tasks_are_those_of_the_whole_run_which_goes_on_from_there(tmp_path, monkeypatch):
    _, first = quick(tmp_path / "begun", record="*", first_tasks=2)
    assert first.about["first_tasks"] == 2 and first.seen.tolist() == [2, 4] and first.tasks == 3
    assert not (tmp_path / "begun" / RESULT[0]).exists(), "the run is not over"
    with monkeypatch.context() as patch:
        patch.setattr(run_module.Trace, "end", lambda *_: pytest.fail("it trained again"))
        again = quick(tmp_path / "begun", record="*", first_tasks=2)[1]
    assert np.array_equal(first.rank, again.rank)

    _, whole = quick(tmp_path / "whole", record="*")
    quick(tmp_path / "begun", record="*")
    compare(tmp_path / "whole", tmp_path / "begun")
    assert np.array_equal(first.predictions, whole.predictions[:2]) and "first_tasks" not in whole.about
    assert first.accuracy()[-1, 0] == whole.accuracy()[1, 0] and np.isnan(first.accuracy()[-1, 2])

    later = quick(tmp_path / "begun", record="*", first_tasks=1)[1]
    assert np.array_equal(later.predictions, whole.predictions[:1]), "also from a folder that has gone on"
    assert "first_tasks" not in quick(first_tasks=3)[1].about, "all of them"


@pytest.mark.parametrize("first", [0, 4, -1, 1.0, "2", True])
def test_a_number_of_first_tasks_that_cannot_be_is_reported(first):
    with pytest.raises(RunError, match="first_tasks must be a whole number from 1 to 3"):
        quick(first_tasks=first)


def test_two_processes_cannot_share_a_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint, "PATIENCE", 0.01)
    with lock(tmp_path), pytest.raises(RunError, match="another process is working in"):
        quick(tmp_path)
    quick(tmp_path)


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 1},
        {"record": "*"},
        {"threads": 2},
        {"learner": TwoPhase},
        {"stream": small_stream(max_per_class=5)},
    ],
)
def test_a_folder_holds_one_run(tmp_path, change):
    quick(tmp_path)
    with pytest.raises(RunError, match="holds another run .* choose another folder"):
        quick(tmp_path, **change)


def test_a_disk_that_fills_at_any_write_leaves_a_run_that_goes_on(tmp_path, monkeypatch):
    writes, fsync, places = [], os.fsync, {}

    def counts(handle):
        writes.append(handle)
        if len(writes) == limit:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        fsync(handle)

    limit = 0
    monkeypatch.setattr(os, "fsync", counts)
    quick(tmp_path / "whole")
    for limit in range(1, len(writes) + 1):
        writes.clear()
        folder = tmp_path / f"full-{limit}"
        with pytest.raises(
            FileError, match=r"could not be written \(No space left on device\): make room"
        ) as said:
            quick(folder)
        places[str(said.value).partition(" could")[0].rpartition("/")[2]] = limit
        assert not list(folder.glob(".*"))
        quick(folder)
        compare(tmp_path / "whole", folder)
    assert places.keys() == {"run.json", *(f"stage-{i}.npz" for i in range(4)), "state.pt", *RESULT}


def test_a_disk_that_is_full_at_a_checkpoint_leaves_a_run_that_goes_on(tmp_path, monkeypatch):
    quick(tmp_path / "whole")
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint.Folder, "save_checkpoint", lambda *_: (_ for _ in ()).throw(FULL))
        with pytest.raises(FileError):
            quick(tmp_path / "full", every=0.0)
    quick(tmp_path / "full", every=0.0)
    compare(tmp_path / "whole", tmp_path / "full")


@pytest.mark.parametrize("code", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.EINVAL])
def test_a_file_system_without_locks_is_worked_on_with_a_word(tmp_path, monkeypatch, capsys, code):
    def none(*_):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr("fcntl.flock", none)
    quick(tmp_path)
    assert f"the file system of {tmp_path} has no locks" in capsys.readouterr().err
    quick(tmp_path)


def test_a_lock_file_that_a_dead_process_left_blocks_nobody(tmp_path):
    (tmp_path / "lock").write_text("1 host")
    quick(tmp_path)


def snapshot(folder):
    return {p: (p.read_bytes(), p.stat().st_mtime_ns) for p in folder.iterdir()}


@pytest.mark.parametrize("code", [errno.EROFS, errno.EACCES, errno.EPERM])
def test_a_finished_run_is_read_where_nothing_may_be_written(tmp_path, monkeypatch, code):
    _, first = quick(tmp_path / "done")
    quick(tmp_path / "begun", learner=TwoPhase)
    (tmp_path / "begun" / "result.json").unlink()
    before, opened = snapshot(tmp_path / "done"), os.open

    def reads_only(path, flags, *rest, **more):
        if flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
            raise OSError(code, os.strerror(code), str(path))
        return opened(path, flags, *rest, **more)

    monkeypatch.setattr(os, "open", reads_only)
    _, again = quick(tmp_path / "done")
    assert (again.rank == first.rank).all() and snapshot(tmp_path / "done") == before
    with pytest.raises(
        FileError, match=r"begun could not be written \(.*\): choose a folder in which you may"
    ):
        quick(tmp_path / "begun", learner=TwoPhase)


def test_reading_a_finished_run_writes_nothing_unless_its_result_is_damaged(tmp_path):
    _, first = quick(tmp_path)
    (tmp_path / ".state.pt.0f0f0f0f.part").write_bytes(b"left by a process that was killed")
    before = {p: v for p, v in snapshot(tmp_path).items() if p.suffix != ".part"}
    quick(tmp_path)
    assert snapshot(tmp_path) == before
    (tmp_path / "result.npz").write_bytes(b"damaged")
    quick(tmp_path)
    assert (load(tmp_path / "result")[0].rank == first.rank).all()


def test_diverged_training_is_said_and_the_past_kept(tmp_path):
    class Diverges(Online):
        def learn(self, task, trace):
            super().learn(task, trace)
            if task.index == 1:
                with torch.no_grad():
                    self.net.weight[0] = float("nan")

    with pytest.raises(RunError, match="after task 1 are not finite.*tasks 0 to 0 are kept"):
        quick(tmp_path, learner=Diverges)
    assert (tmp_path / "stage-1.npz").exists() and not (tmp_path / "stage-2.npz").exists()


def test_logits_of_the_wrong_shape_are_said():
    class Short(Online):
        def forward(self, x):
            return super().forward(x)[:, :3]

    with pytest.raises(RunError, match=r"expected \(48, at least 4\)"):
        quick(learner=Short)


def test_joint_learns_once_and_is_tested_by_task():
    chosen = experiments.experiment("joint/split-digits", "smoke")
    _, result = run(
        chosen.learner, chosen.config, experiments.stream("split-digits", "smoke"), progress=False, threads=1
    )
    assert (
        result.accuracy().shape == (1, 5)
        and result.seen.tolist() == [10]
        and result.classes_per_task == (2,) * 5
    )
    assert not np.isnan(result.accuracy()).any() and np.isnan(result.forgetting())


def test_threads_and_precision_are_put_back():
    before = torch.get_num_threads()
    with pytest.raises(ZeroDivisionError), torch_set(pick_device("cpu"), before + 1):
        assert torch.get_num_threads() == before + 1
        raise ZeroDivisionError
    assert torch.get_num_threads() == before


def test_devices():
    assert pick_device("cpu").type == "cpu"
    with pytest.raises(RunError, match="there is no device 'gpu'"):
        pick_device("gpu")
    if not torch.cuda.is_available():
        assert pick_device("auto").type == "cpu"
        with pytest.raises(RunError, match="sees no CUDA device"):
            pick_device("cuda")


@pytest.mark.parametrize("every", [-1.0, float("nan")])
def test_seconds_between_checkpoints_that_cannot_be_are_reported(every):
    with pytest.raises(RunError, match="every must be a number of seconds between checkpoints, 0 or more"):
        quick(every=every)


# ---- where it was computed

THEN = {
    "versions": {"torch": torch.__version__, "clkit": "0.0"},
    "commit": "abc",
    "date": "2020-01-01",
    "cpu": "old",
}
NOW = THEN | {"commit": "def", "date": "2021-01-01", "cpu": "new"}


def test_a_result_names_the_process_that_computed_and_not_the_one_that_reads(tmp_path, monkeypatch):
    for facts in (THEN, NOW):
        monkeypatch.setattr(run_module, "process_facts", lambda facts=facts: facts)
        about = quick(tmp_path)[1].about
        assert {k: about[k] for k in THEN} == THEN and "earlier_processes" not in about
        assert load(tmp_path / "result")[0].about["cpu"] == "old"


@pytest.mark.parametrize("every", [0.0, 1e9])
def test_where_several_processes_computed_the_last_is_named_and_the_others_beside_it(
    tmp_path, monkeypatch, every
):
    """The first process left a checkpoint inside a task, or a finished stage."""
    with monkeypatch.context() as patch:
        patch.setattr(run_module, "process_facts", lambda: THEN)
        stop_after(1, patch)
        with pytest.raises(KeyboardInterrupt):
            quick(tmp_path, every=every)
    assert (tmp_path / "checkpoint.pt").exists() == (every == 0)
    monkeypatch.setattr(run_module, "process_facts", lambda: NOW)
    about = quick(tmp_path)[1].about
    assert {k: about[k] for k in NOW} == NOW and about["earlier_processes"] == [THEN]
