"""The run loop: what it evaluates, stores, refuses and resumes."""

import json
import os
import signal
from pathlib import Path

import numpy as np
import pytest
import torch

from clkit import experiments
from clkit.engine import RunError
from clkit.engine import evaluate as evaluate_module
from clkit.engine import run as run_module
from clkit.engine.checkpoint import lock
from clkit.engine.device import pick_device, torch_set
from clkit.engine.evaluate import accuracy_by_task, evaluate
from clkit.engine.run import run
from clkit.engine.trace import Stopped
from clkit.errors import ClkitError
from clkit.result import load
from tests.fakes import Config, Growing, Online, TwoPhase, small_stream
from tests.soak import SUBJECTS, Killer, compare


@pytest.mark.parametrize("subject", SUBJECTS)
def test_killed_and_resumed_equals_never_killed(subject, tmp_path):
    """A few of the kills that `make soak` performs by the hundred."""
    found = Killer(seed=SUBJECTS.index(subject)).soak(subject, tmp_path, kills=2)
    assert found["kills"] == 2


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


def test_a_finished_run_is_read_back(tmp_path):
    _, first = quick(tmp_path, record="*")

    def explode(self, task, trace):
        raise AssertionError("it trained again")

    before = Online.learn
    Online.learn = explode
    try:
        model, again = quick(tmp_path, record="*")
    finally:
        Online.learn = before
    assert np.array_equal(first.rank, again.rank) and np.array_equal(first.learn_seconds, again.learn_seconds)
    assert np.array_equal(first.trace["step"]["loss"], again.trace["step"]["loss"]) and model.steps == 36


def test_a_stopped_run_resumes(tmp_path, monkeypatch):
    """After one Ctrl-C, the run stops at the end of the step with a checkpoint; the same call resumes it."""
    _, _whole = quick(tmp_path / "whole", record="*")
    learn, count = Online.learn, []
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background may ignore it

    def interrupted(self, task, trace):
        def counting(phase, batches, *objects, total=None):
            for item in type(trace).steps(trace, phase, batches, *objects, total=total):
                count.append(1)
                if len(count) == 17:
                    os.kill(os.getpid(), signal.SIGINT)
                yield item

        monkeypatch.setattr(trace, "steps", counting)
        learn(self, task, trace)

    monkeypatch.setattr(Online, "learn", interrupted)
    with pytest.raises(Stopped, match="task 1, loop 'online', after 5 rounds"):
        quick(tmp_path / "stopped", record="*")
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    signal.signal(signal.SIGINT, before)
    monkeypatch.setattr(Online, "learn", learn)
    quick(tmp_path / "stopped", record="*")
    compare(tmp_path / "whole", tmp_path / "stopped")


def test_two_processes_cannot_share_a_folder(tmp_path):
    held = lock(tmp_path)
    with pytest.raises(RunError, match="another process is working in"):
        quick(tmp_path)
    held.close()
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


def test_a_full_disk_leaves_a_run_that_resumes(tmp_path, monkeypatch):
    _, _whole = quick(tmp_path / "whole")
    writes, fsync = [], os.fsync

    def full(handle):
        writes.append(handle)
        if len(writes) == 7:
            raise OSError(28, "No space left on device")
        fsync(handle)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ClkitError, match="No space left"):
        quick(tmp_path / "full", every=0.0)
    assert not list(Path(tmp_path / "full").glob(".*"))
    monkeypatch.setattr(os, "fsync", fsync)
    quick(tmp_path / "full")
    compare(tmp_path / "whole", tmp_path / "full")


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
    learn = Online.learn

    def killed(self, task, trace):
        learn(self, task, trace)
        if task.index == 1:
            raise KeyboardInterrupt

    monkeypatch.setattr(run_module, "process_facts", lambda: THEN)
    monkeypatch.setattr(Online, "learn", killed)
    with pytest.raises(KeyboardInterrupt):
        quick(tmp_path, every=every)
    assert (tmp_path / "checkpoint.pt").exists() == (every == 0)
    monkeypatch.setattr(Online, "learn", learn)
    monkeypatch.setattr(run_module, "process_facts", lambda: NOW)
    about = quick(tmp_path)[1].about
    assert {k: about[k] for k in NOW} == NOW and about["earlier_processes"] == [THEN]
