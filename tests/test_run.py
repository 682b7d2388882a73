"""The run loop: what it evaluates, stores, refuses, and goes on with."""

import importlib.util
import json
import os
import signal
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from clkit import presets, run as run_module
from clkit.methods import METHODS, er, finetune
from clkit.result import load
from clkit.run import RunError, Stopped, evaluate, pick_device, result_key, run, source_key
from tests.fakes import FAKES, Config, Growing, Online, TwoPhase, small_stream
from tests.soak import SUBJECTS, Killer, compare


@pytest.mark.parametrize("subject", SUBJECTS)
def test_killed_and_resumed_equals_never_killed(subject, tmp_path):
    """A few of what `make soak` does by the hundred."""
    found = Killer(seed=SUBJECTS.index(subject)).soak(subject, tmp_path, kills=2)
    assert found["kills"] == 2


def quick(folder=None, learner=Online, stream=None, **options):
    options = {"progress": False, "threads": 1, **options}
    return run(learner, Config(epochs=2), stream or small_stream(), folder=folder, **options)


class Slow(torch.nn.Module):
    """Scores made by hand: (5, 4)."""

    def forward(self, x):
        return x.flatten(1)[:, :4]


def test_evaluation_by_hand():
    stream = small_stream(classes=4, sizes=(2, 2), side=2)
    stream.test.images.zero_()
    #                    true class 0          1             2             3
    for label, scores in enumerate(([9, 1, 0, 0], [9, 1, 0, 0], [5, 0, 4, 3], [0, 9, 2, 1])):
        stream.test.images[stream.test.labels == label] = torch.tensor(
            scores, dtype=torch.uint8, device="cpu"
        ).view(1, 2, 2)
    after_one, after_two = (evaluate(Slow(), stream.test, stream.sizes, seen) for seen in (2, 4))
    firsts = [int((stream.test.labels == c).nonzero()[0]) for c in range(4)]
    assert after_one["predictions"][firsts].tolist() == [0, 0, -1, -1]
    assert after_two["predictions"][firsts].tolist() == [0, 0, 0, 1]
    assert after_two["within"][firsts].tolist() == [0, 0, 2, 2] == after_one["within"][firsts].tolist()
    assert after_two["rank"][firsts].tolist() == [0, 1, 1, 2]
    assert after_one["rank"][firsts].tolist() == [0, 1, -1, -1]


def test_evaluation_covers_a_ragged_last_batch(monkeypatch):
    stream = small_stream()
    model = TwoPhase(Config(), stream.shape, stream.classes)
    whole = evaluate(model, stream.test, stream.sizes, 6)
    monkeypatch.setattr(run_module, "TEST_PIXELS", 1)
    monkeypatch.setattr(
        stream.test,
        "batches",
        lambda size, shuffle: type(stream.test).batches(stream.test, 7, shuffle=shuffle),
    )
    parts = evaluate(model, stream.test, stream.sizes, 6)
    assert all(np.array_equal(whole[k], parts[k]) for k in ("predictions", "within", "rank"))
    assert len(whole["rank"]) == len(stream.test)


def test_a_growing_head_has_no_answer_for_later_tasks():
    _, result = quick(learner=Growing)
    assert (result.within[0] == -1).all() and np.isnan(result.start_accuracy()).all()
    assert not np.isnan(result.within_accuracy()[np.tril_indices(3)]).any()
    assert np.isnan(result.forward_transfer())


def test_what_a_result_says(tmp_path):
    stream = small_stream()
    model, result = quick(tmp_path / "a", keep="*", about={"preset": "smoke"}, stream=stream)
    assert result.seen.tolist() == [2, 4, 6] and result.sizes == (2, 2, 2) and result.names[0] == "class 0"
    assert result.drawn.tolist() == [48] * 3 and (result.learn_seconds > 0).all()
    assert result.parameters.tolist() == [sum(p.numel() for p in model.parameters())] * 3
    assert (
        result.about["preset"] == "smoke"
        and result.about["threads"] == 1
        and result.about["stream"] == stream.about()
    )
    assert result.trace["step"]["task"].tolist() == [0] * 12 + [1] * 12 + [2] * 12
    assert result.labels.tolist() == stream.test.labels.tolist()
    [again] = load(tmp_path / "a" / "result")
    assert np.array_equal(again.predictions, result.predictions) and again.about == json.loads(
        json.dumps(result.about)
    )


def test_a_finished_run_is_read_back(tmp_path):
    _, first = quick(tmp_path, keep="*")

    def explode(self, task, trace):
        raise AssertionError("it trained again")
    before = Online.learn
    Online.learn = explode
    try:
        model, again = quick(tmp_path, keep="*")
    finally:
        Online.learn = before
    assert np.array_equal(first.rank, again.rank) and np.array_equal(first.learn_seconds, again.learn_seconds)
    assert np.array_equal(first.trace["step"]["loss"], again.trace["step"]["loss"]) and model.steps == 36


def test_a_stopped_run_goes_on(tmp_path, monkeypatch):
    """Ctrl-C once: it stops at the end of the step, after a checkpoint, and the same call goes on."""
    _, whole = quick(tmp_path / "whole", keep="*")
    learn, count = Online.learn, []

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
        quick(tmp_path / "stopped", keep="*")
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    monkeypatch.setattr(Online, "learn", learn)
    quick(tmp_path / "stopped", keep="*")
    compare(tmp_path / "whole", tmp_path / "stopped")


def test_two_processes_cannot_share_a_folder(tmp_path):
    lock = run_module._lock(tmp_path)
    with pytest.raises(RunError, match="another process is working in"):
        quick(tmp_path)
    lock.close()
    quick(tmp_path)


@pytest.mark.parametrize("change", [{"seed": 1}, {"keep": "*"}, {"threads": 2}, {"learner": TwoPhase},
                                    {"stream": small_stream(cap=5)}])
def test_a_folder_holds_one_run(tmp_path, change):
    quick(tmp_path)
    with pytest.raises(RunError, match="holds another run .* choose another folder"):
        quick(tmp_path, **change)


@pytest.mark.parametrize("name", ["state.pt", "stage-1.npz", "run.json"])
def test_damaged_files_are_named(tmp_path, name):
    quick(tmp_path)
    path = tmp_path / name
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(RunError, match="damaged") as error:
        quick(tmp_path)
    assert name in str(error.value) and "run again" in str(error.value)


def test_a_full_disk_leaves_a_run_that_goes_on(tmp_path, monkeypatch):
    _, whole = quick(tmp_path / "whole")
    writes, fsync = [], os.fsync

    def full(handle):
        writes.append(handle)
        if len(writes) == 7:
            raise OSError(28, "No space left on device")
        fsync(handle)
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
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


def test_scores_of_the_wrong_shape_are_said():
    class Short(Online):
        def forward(self, x):
            return super().forward(x)[:, :3]
    with pytest.raises(RunError, match=r"expected \(48, at least 4\)"):
        quick(learner=Short)


def test_joint_learns_once_and_is_tested_by_task():
    chosen = presets.experiment("joint/split-digits", "smoke")
    _, result = run(
        chosen.learner, chosen.config, presets.stream("split-digits", "smoke"), progress=False, threads=1
    )
    assert result.accuracy().shape == (1, 5) and result.seen.tolist() == [10] and result.sizes == (2,) * 5
    assert not np.isnan(result.accuracy()).any() and np.isnan(result.forgetting())


def test_threads_and_precision_are_put_back():
    before = torch.get_num_threads()
    with pytest.raises(ZeroDivisionError), run_module._threads(before + 1):
        assert torch.get_num_threads() == before + 1
        1 / 0
    assert torch.get_num_threads() == before


def test_devices():
    assert pick_device("cpu").type == "cpu"
    with pytest.raises(RunError, match="there is no device 'gpu'"):
        pick_device("gpu")
    if not torch.cuda.is_available():
        assert pick_device("auto").type == "cpu"
        with pytest.raises(RunError, match="sees no CUDA device"):
            pick_device("cuda")


# ---- the key

def test_the_key_covers_settings_and_data():
    about = small_stream().about()
    key = result_key(finetune.Finetune, finetune.Config(), about)
    assert key == result_key(finetune.Finetune, finetune.Config(), json.loads(json.dumps(about)))
    assert key != result_key(finetune.Finetune, finetune.Config(epochs=3), about)
    assert key != result_key(er.ER, er.Config(), about)
    assert key != result_key(finetune.Finetune, finetune.Config(), small_stream(per_class=25).about())
    assert key != result_key(finetune.Finetune, finetune.Config(), small_stream(sizes=(3, 3)).about())


def key_of(tmp_path, monkeypatch, text):
    """source_key of the class Method in a module of the given text."""
    path = (
        tmp_path / f"made_{len(list(tmp_path.iterdir()))}.py"
    )  # another file each time: inspect caches by file
    path.write_text(text)
    spec = importlib.util.spec_from_file_location("made", path)
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "made", module)
    spec.loader.exec_module(module)
    return source_key(module.Method)


def test_the_key_covers_code_but_not_comments(tmp_path, monkeypatch):
    base = """RATE = 1
OTHER = 2

def loss(x):
    return x * RATE

def unused():
    pass

class Method:
    def learn(self):
        return loss(3)
"""
    def key(*change):
        return key_of(tmp_path, monkeypatch, base.replace(*change) if change else base)
    plain = key()
    assert plain == key("class Method:\n", 'class Method:\n    """What it does,\n    in two lines."""\n\n')
    assert plain == key("return loss(3)", "# a reason\n\n        return loss(3)  # and why")
    assert plain == key("return loss(3)", "return loss(\n            3)")
    assert plain == key("    pass", "    return 1") == key("OTHER = 2", "OTHER = 3")
    assert (
        len({plain, key("RATE = 1", "RATE = 5"), key("x * RATE", "x + RATE"), key("loss(3)", "loss(4)")}) == 4
    )


def test_a_network_that_a_method_does_not_use_does_not_count(monkeypatch):
    from clkit import nets
    run_module.source_key.cache_clear()
    before = source_key(METHODS["finetune"].learner, ("mlp",))
    assert before != source_key(METHODS["finetune"].learner, ("resnet18",))
    monkeypatch.setitem(nets.NETS, "another", FAKES["online"])
    run_module.source_key.cache_clear()
    assert source_key(METHODS["finetune"].learner, ("mlp",)) == before
    monkeypatch.setitem(nets.NETS, "mlp", nets.ConvNet)
    run_module.source_key.cache_clear()
    assert source_key(METHODS["finetune"].learner, ("mlp",)) != before
    run_module.source_key.cache_clear()
