"""Loops that several runs train alike: taking one equals training it; what is not alike is not taken."""

import copy
import errno
import os
import shutil
import time
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from clkit.engine import run as run_module
from clkit.engine import shared as shared_module
from clkit.engine.checkpoint import load_tensors, unseal
from clkit.engine.learner import Learner
from clkit.engine.run import run
from clkit.engine.seeding import random_state, set_random_state
from clkit.engine.trace import Trace, TraceError
from clkit.errors import file_error
from tests.fakes import small_stream
from tests.soak import compare


@dataclass(frozen=True)
class Config:
    """Only the first three change what the first loop computes from its beginning."""

    epochs: int = 3
    lr: float = 0.01
    weight: float = 1.0  # of the first loss
    later: float = 1.0  # of the second loop
    scale: float = 1.0  # of the first weights
    draws: int = 0  # random numbers drawn before the loop
    fault: str = ""  # what a method can do wrong, or by `break`


class Net(nn.Module):
    def __init__(self, inputs, classes):
        super().__init__()
        self.body, self.norm, self.head = nn.Linear(inputs, 8), nn.BatchNorm1d(8), nn.Linear(8, classes)
        self.register_buffer("losses", torch.zeros(0, device="cpu"))

    def forward(self, x):
        return self.head(F.dropout(F.relu(self.norm(self.body(x.flatten(1)))), 0.2, self.training))


class Alike(Learner):
    """A shared first loop in each task; then its optimizer goes on, and a second part is trained."""

    tables = {"begin": "seen", "loss": "epoch, loss", "second": "loss", "asked": "epoch"}

    def __init__(self, config, shape, classes):
        super().__init__(config, shape, classes)
        self.net, self.more = Net(shape[0] * shape[1] * shape[2], classes), nn.Linear(classes, classes)
        with torch.no_grad():
            self.net.body.weight *= config.scale

    def learn(self, task, trace):
        config, net = self.config, self.net
        trace("begin", seen=sum(len(y) for _, y in task.train.batches(24)))
        trace("loss", epoch=-1, loss=0.0)  # rows before the loop stay this run's
        torch.rand(config.draws, device="cpu")
        optimizer = torch.optim.Adam(net.parameters(), config.lr)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 10)
        share = nn.Linear(1, 1) if config.fault == "stranger" else net
        apart = "later scale draws" + (" unknown" if config.fault == "unknown" else " fault")
        for epoch in self.loop(trace, optimizer, schedule, share, apart):
            self.steps(task, optimizer)
            schedule.step()
            net.losses = torch.cat([net.losses, self.loss.view(1)])  # a buffer of the module that grows
            trace("loss", epoch=epoch, loss=self.loss)
            if trace.wants("asked"):
                trace("asked", epoch=epoch)
            if config.fault == "error" and epoch == 1:
                raise ZeroDivisionError
            if config.fault == "break" and epoch == 1:
                break
            if config.fault == "more":
                with torch.no_grad():
                    self.more.weight += 1
        self.steps(task, optimizer)  # its state and the random numbers are those of the end of the loop
        second = torch.optim.SGD(self.more.parameters(), 0.1)
        for _ in trace.epochs("second", 2, second):
            for x, y in task.train.batches(16):
                loss = config.later * F.cross_entropy(self(x), y)
                second.zero_grad()
                loss.backward()
                second.step()
            trace("second", loss=loss)

    def loop(self, trace, optimizer, schedule, share, apart):
        return trace.epochs("net", self.config.epochs, optimizer, schedule, share=share, apart=apart)

    def steps(self, task, optimizer):
        for x, y in task.train.batches(16):
            loss = self.config.weight * F.cross_entropy(self.net(x), y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        self.loss = loss.detach()

    def forward(self, x):
        return self.more(self.net(x))


class Other(Alike):
    """Another class, whose loop may be another one for all that is known."""


class Both(Alike):
    """One of two classes that say that they have the same loop."""

    def loop(self, trace, optimizer, schedule, share, apart):
        epochs = self.config.epochs
        return trace.epochs("net", epochs, optimizer, schedule, share=share, apart=apart, by="the same")


class Too(Both):
    """The other one."""


@pytest.fixture
def rounds(monkeypatch):
    """[(task, loop)] of all rounds of loops."""
    found, boundary = [], Trace._boundary

    def counted(trace, phase, *rest):
        found.append((trace.task, phase))
        boundary(trace, phase, *rest)

    monkeypatch.setattr(Trace, "_boundary", counted)
    return found


def go(folder, config=None, learner=Alike, stream=None, shared="shared", **options):
    """The Result of a run in a folder, which shares loops in the folder of this name beside it."""
    options = {"record": "*", "threads": 1, "progress": False, "every": 1e9} | options
    shared = None if shared is None else folder.parent / shared
    stream = stream or small_stream()
    return run(learner, config or Config(), stream, folder=folder, shared=shared, **options)[1]


def files(folder):
    return sorted((folder / "shared").glob("*")) if (folder / "shared").exists() else []


def content(path):
    head, payload = unseal(path)
    return head, load_tensors(payload)


def trained(rounds, task=0):
    """How many epochs of the shared loop were trained in a task since the last time, and then forget."""
    n = rounds.count((task, "net"))
    rounds.clear()
    return n


# ---- what is taken equals what is trained


def test_a_loop_that_is_taken_gives_what_training_gives(tmp_path, rounds):
    """Weights, statistics, optimizer, schedule, random numbers, and rows, also of a table begun before it."""
    made = go(tmp_path / "maker")
    assert trained(rounds) == 3 and len(files(tmp_path)) == 3, "one in each task"
    alone = go(tmp_path / "alone", Config(later=2.0), shared=None)
    assert trained(rounds) == 3
    taken = go(tmp_path / "taker", Config(later=2.0))
    assert trained(rounds) == 0
    compare(tmp_path / "alone", tmp_path / "taker")
    assert taken.trace["loss"]["epoch"][:4].tolist() == [-1, 0, 1, 2]
    assert taken.n_samples.tolist() == alone.n_samples.tolist()
    assert "shared" not in made.about and "shared" not in alone.about
    with pytest.raises(AssertionError):
        compare(tmp_path / "maker", tmp_path / "taker")


def test_a_result_says_who_trained_and_counts_the_seconds(tmp_path):
    made = go(tmp_path / "maker", about={"experiment": "alike/blobs", "preset": "teach"})
    path = next(p for p in files(tmp_path) if content(p)[1]["rows"]["loss"]["task"][0] == 0)
    head, end = content(path)
    assert 0 < end["clock"]["learn_seconds"] <= made.learn_seconds[0] and end["clock"]["n_samples"] == 3 * 48
    end["clock"]["learn_seconds"] = 1000.0  # the trainer's machine was slow
    shared_module.seal(path, head, lambda file: torch.save(end, file))
    taken = go(tmp_path / "taker", Config(later=2.0))
    first = taken.about["shared"][0]
    assert first["seconds"] == 1000 and 1000 <= taken.learn_seconds[0] < 1100 and taken.learn_seconds[1] < 100
    facts = {"task": 0, "loop": "net", "from": "alike/blobs at teach, seed 0", "key": made.about["key"]}
    assert facts.items() <= first.items() and first["commit"] == made.about["commit"]
    assert [entry["task"] for entry in taken.about["shared"]] == [0, 1, 2]
    again = go(tmp_path / "taker", Config(later=2.0))
    assert again.about["shared"] == taken.about["shared"], "read from its folder"


def test_sizes_of_later_tasks_do_not_matter_to_a_task(tmp_path, rounds):
    go(tmp_path / "maker", stream=small_stream(sizes=(2, 2, 2)))
    trained(rounds)
    taken = go(tmp_path / "taker", stream=small_stream(sizes=(2, 4)))
    assert rounds.count((0, "net")) == 0 and rounds.count((1, "net")) == 3
    assert [entry["task"] for entry in taken.about["shared"]] == [0]
    go(tmp_path / "alone", stream=small_stream(sizes=(2, 4)), shared=None)
    compare(tmp_path / "alone", tmp_path / "taker")


# ---- what is not alike


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 1},
        {"config": Config(lr=0.02)},
        {"config": Config(weight=2.0)},
        {"config": Config(epochs=4)},
        {"config": Config(scale=1.5)},  # set apart, but it changes the first weights
        {"config": Config(draws=1)},  # set apart, but it changes the random numbers
        {"stream": small_stream(per_class=12)},
        {"stream": small_stream(order=(1, 0, 2, 3, 4, 5))},
        {"stream": small_stream(sizes=(3, 3))},
        {"stream": small_stream(shuffle_images=0)},
        {"threads": 2},
    ],
    ids=lambda change: str(*change.items())[:40],
)
def test_what_differs_is_trained(tmp_path, rounds, change):
    go(tmp_path / "maker")
    trained(rounds)
    result = go(tmp_path / "other", **change)
    assert trained(rounds) >= 3 and "shared" not in result.about


@pytest.mark.parametrize("what", ["revision", "unknown revision", "source", "version", "cpu"])
def test_other_code_and_machines_train(tmp_path, rounds, monkeypatch, what):
    go(tmp_path / "maker")
    trained(rounds)
    if "revision" in what:
        monkeypatch.setattr(run_module, "revision_of", lambda *_: 7 if what == "revision" else None)
    elif what == "source":
        monkeypatch.setattr(shared_module, "SOURCE", "0")
    else:
        facts = run_module.process_facts()
        facts |= {"cpu": "another"} if what == "cpu" else {"versions": facts["versions"] | {"torch": "9"}}
        monkeypatch.setattr(run_module, "process_facts", lambda: facts)
    result = go(tmp_path / "other", Config(later=2.0))
    assert trained(rounds) == 3 and "shared" not in result.about


def test_the_source_counts(tmp_path, monkeypatch):
    tree = tmp_path / "clkit"
    shutil.copytree(os.path.dirname(os.path.dirname(shared_module.__file__)), tree)
    monkeypatch.setattr(shared_module, "__file__", str(tree / "engine" / "shared.py"))
    assert shared_module._source() == shared_module.SOURCE
    for part in ("blocks/recipe.py", "data/images.py", "engine/seeding.py", "methods/__init__.py"):
        before = shared_module._source()
        with open(tree / part, "a") as file:
            file.write("\n")
        assert shared_module._source() != before


def test_classes_share_if_they_say_so(tmp_path, rounds, monkeypatch):
    """As methods of clkit whose revisions happen to agree; own classes differ in their code."""
    monkeypatch.setattr(run_module, "revision_of", lambda *_: 1)
    go(tmp_path / "alone", learner=Too, shared=None)
    for makers, takers, epochs in ((Alike, Other, 3), (Both, Too, 0)):
        go(tmp_path / makers.__name__, learner=makers)
        trained(rounds)
        go(tmp_path / takers.__name__, learner=takers)
        assert trained(rounds) == epochs
    compare(tmp_path / "alone", tmp_path / "Too")


# ---- tables and probes


def test_a_run_that_records_more_trains_and_stores_what_others_lack(tmp_path, rounds):
    go(tmp_path / "little", record="begin")
    assert trained(rounds) == 3
    more = go(tmp_path / "more", Config(later=2.0), record=("loss", "asked"))
    assert trained(rounds) == 3 and "shared" not in more.about
    less = go(tmp_path / "less", Config(later=3.0), record="loss")
    assert trained(rounds) == 0 and less.trace.keys() == {"loss"}
    alone = go(tmp_path / "alone", Config(later=3.0), record="loss", shared=None)
    compare(tmp_path / "alone", tmp_path / "less")
    assert len(alone.trace["loss"]["loss"]) == 12 and len(files(tmp_path)) == 3
    trained(rounds)
    go(
        tmp_path / "asks", record=("loss", "begin")
    )  # a table that the loop does not report, and others did not keep
    assert trained(rounds) == 3


def test_what_probes_look_at_is_not_shared(tmp_path, rounds):
    probes = {"loss": {"norm": lambda learner: learner.net.head.weight.norm()}}
    probed = go(tmp_path / "probed", probes=probes)
    assert trained(rounds) == 3 and files(tmp_path) == []
    go(tmp_path / "maker")
    trained(rounds)
    again = go(tmp_path / "again", Config(later=2.0), probes=probes)
    assert trained(rounds) == 3 and "shared" not in again.about
    assert np.array_equal(again.trace["loss"]["norm"], probed.trace["loss"]["norm"])
    elsewhere = {"second": {"norm": lambda learner: learner.net.head.weight.norm()}}
    go(tmp_path / "elsewhere", Config(later=2.0), probes=elsewhere)
    assert trained(rounds) == 0, "the loop does not report into this table"


# ---- files that are damaged, foreign, or cannot be written


@pytest.mark.parametrize("harm", ["cut", "bit", "empty", "text", "foreign", "hollow", "crooked", "folder"])
def test_a_damaged_file_costs_a_sentence_and_the_training(tmp_path, rounds, capsys, harm):
    go(tmp_path / "maker")
    go(tmp_path / "alone", Config(later=2.0), shared=None)
    paths, good = files(tmp_path), {path: path.read_bytes() for path in files(tmp_path)}
    for path, other in zip(paths, paths[1:] + paths[:1]):
        raw = good[path]
        if harm == "folder":
            path.unlink()
            path.mkdir()
        elif harm in ("hollow", "crooked"):  # whole, but not what was expected
            head, end = content(path)
            end = {"asked": [], "kept": []} if harm == "hollow" else end | {"random": {}}
            shared_module.seal(path, head, lambda file, end=end: torch.save(end, file))
        else:
            middle = len(raw) // 2
            flipped = raw[:middle] + bytes([raw[middle] ^ 1]) + raw[middle + 1 :]
            ways = {
                "cut": raw[:middle],
                "bit": flipped,
                "empty": b"",
                "text": b"hello",
                "foreign": good[other],
            }
            path.write_bytes(ways[harm])
    trained(rounds)
    capsys.readouterr()
    result = go(tmp_path / "other", Config(later=2.0))
    said = capsys.readouterr().err.splitlines()
    assert trained(rounds) == 3 and "shared" not in result.about
    compare(tmp_path / "alone", tmp_path / "other")
    if harm == "folder":
        assert len(said) == 6 and "could not be read" in said[0] and "is not shared" in said[1]
        return
    assert len(said) == 3 and all(line.startswith("the loop 'net' is trained, not taken: ") for line in said)
    assert all(line.endswith("is damaged: it will be replaced") for line in said)
    go(tmp_path / "next", Config(later=3.0))
    assert trained(rounds) == 0, "the files are whole again"


def test_a_full_disk_does_not_stop_the_run(tmp_path, monkeypatch, capsys):
    def full(path, *_):
        raise file_error(path, "written", OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)))

    monkeypatch.setattr(shared_module, "seal", full)
    go(tmp_path / "maker")
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 3 and all(line.startswith("the loop 'net' is not shared: ") for line in said)
    assert files(tmp_path) == []
    go(tmp_path / "alone", shared=None)
    compare(tmp_path / "alone", tmp_path / "maker")


def test_files_that_killed_processes_left_are_removed(tmp_path):
    folder = tmp_path / "shared"
    folder.mkdir()
    for name, age in ((".a.pt.0.part", 2), (".b.pt.0.part", 0)):
        (folder / name).write_bytes(b"half")
        os.utime(folder / name, (time.time() - age * 3600,) * 2)
    go(tmp_path / "maker")
    assert [path.name for path in files(tmp_path) if path.suffix == ".part"] == [".b.pt.0.part"]


def test_two_runs_may_train_the_same_loop_at_the_same_time(tmp_path, monkeypatch):
    boundary, within = Trace._boundary, []

    def second_run(trace, *rest):
        boundary(trace, *rest)
        if not within:
            within.append(1)
            state = random_state()
            go(tmp_path / "inner", Config(later=2.0))
            within.append(content(files(tmp_path)[0])[0]["key"])
            set_random_state(state)

    monkeypatch.setattr(Trace, "_boundary", second_run)
    outer = go(tmp_path / "outer")
    monkeypatch.undo()
    assert [entry["task"] for entry in outer.about["shared"]] == [1, 2], "the inner run was first there"
    assert len(files(tmp_path)) == 3 and all(content(path) for path in files(tmp_path))
    for name, later in (("outer", 1.0), ("inner", 2.0)):
        go(tmp_path / f"{name}-alone", Config(later=later), shared=None)
        compare(tmp_path / f"{name}-alone", tmp_path / name)


# ---- stopping and resuming


def kill_at(monkeypatch, phase, done, task=0):
    """Let the process end at this round, after its checkpoint."""
    boundary = Trace._boundary

    def killed(trace, here, rounds, *rest):
        boundary(trace, here, rounds, *rest)
        if (trace.task, here, rounds) == (task, phase, done):
            raise KeyboardInterrupt

    monkeypatch.setattr(Trace, "_boundary", killed)


@pytest.mark.parametrize("phase, done", [("net", 1), ("net", 3), ("second", 1)])
def test_one_that_is_killed_and_resumed_stores_the_same(tmp_path, monkeypatch, rounds, phase, done):
    go(tmp_path / "whole", shared="other", every=0.0)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        kill_at(patch, phase, done)
        go(tmp_path / "killed", every=0.0)
    assert len(files(tmp_path)) == (phase == "second")
    go(tmp_path / "killed", every=0.0)
    compare(tmp_path / "whole", tmp_path / "killed")
    names = [path.name for path in files(tmp_path)]
    assert names == sorted(path.name for path in (tmp_path / "other").iterdir()) and len(names) == 3
    for name in names:
        (_, one), (_, other) = content(tmp_path / "other" / name), content(tmp_path / "shared" / name)
        assert one["clock"].pop("learn_seconds") > 0 and other["clock"].pop("learn_seconds") > 0
        assert shared_module._digest(one) == shared_module._digest(other)
    trained(rounds)
    go(tmp_path / "taker", Config(later=2.0))
    assert trained(rounds) == 0


def test_one_that_took_a_loop_is_killed_and_resumed(tmp_path, monkeypatch, rounds):
    """Also after the shared files were deleted: its own checkpoint holds all."""
    go(tmp_path / "alone", Config(later=2.0), shared=None)
    go(tmp_path / "maker")
    kept = go(tmp_path / "whole", Config(later=2.0))
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        kill_at(patch, "second", 1)
        go(tmp_path / "killed", Config(later=2.0), every=0.0)
    shutil.rmtree(tmp_path / "shared")
    trained(rounds)
    again = go(tmp_path / "killed", Config(later=2.0), every=0.0)
    assert rounds.count((0, "net")) == 0 and rounds.count((1, "net")) == 3
    compare(tmp_path / "alone", tmp_path / "killed")
    assert again.about["shared"] == kept.about["shared"][:1]
    assert again.n_samples.tolist() == kept.n_samples.tolist()
    assert again.learn_seconds[0] > again.about["shared"][0]["seconds"]


def test_a_run_goes_on_with_the_loop_that_it_had_begun(tmp_path, monkeypatch, rounds):
    """Even if another run has finished the loop meanwhile."""
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        kill_at(patch, "net", 1)
        go(tmp_path / "killed", Config(later=2.0), every=0.0)
    go(tmp_path / "maker")
    trained(rounds)
    again = go(tmp_path / "killed", Config(later=2.0), every=0.0)
    assert rounds.count((0, "net")) == 2 and [entry["task"] for entry in again.about["shared"]] == [1, 2]
    go(tmp_path / "alone", Config(later=2.0), shared=None)
    compare(tmp_path / "alone", tmp_path / "killed")


def test_a_loop_that_began_without_sharing_is_not_stored(tmp_path, monkeypatch):
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        kill_at(patch, "net", 1)
        go(tmp_path / "killed", shared=None, every=0.0)
    go(tmp_path / "killed", every=0.0)
    go(tmp_path / "alone", shared=None)
    compare(tmp_path / "alone", tmp_path / "killed")
    assert len(files(tmp_path)) == 2, "those of the later tasks"


@pytest.mark.parametrize("fault", ["error", "break"])
def test_only_loops_that_ran_to_their_end_are_stored(tmp_path, fault):
    try:
        go(tmp_path / "maker", Config(fault=fault))
    except ZeroDivisionError:
        assert fault == "error"
    assert files(tmp_path) == []
    go(tmp_path / "whole")
    go(tmp_path / "alone", Config(later=2.0), shared=None)
    go(tmp_path / "taker", Config(later=2.0))
    compare(tmp_path / "alone", tmp_path / "taker")


# ---- methods that share what they must not, and runs that share nothing


@pytest.mark.parametrize(
    "fault, says",
    [
        ("more", "'net' is shared as the training of 'net', but changes more of the learner than that"),
        ("stranger", "shares a module that is not part of the learner"),
        ("unknown", "sets unknown apart, no setting of its learner: choose from epochs, lr, weight, later"),
    ],
)
def test_faults_of_a_method_are_said(tmp_path, fault, says):
    with pytest.raises(TraceError, match=says) as caught:
        go(tmp_path / "faulty", Config(fault=fault))
    assert "\n" not in str(caught.value) and files(tmp_path) == []


def test_a_run_without_a_folder_shares_nothing(tmp_path, rounds):
    stream = small_stream()
    go(tmp_path / "maker")
    trained(rounds)
    _, result = run(Alike, Config(later=2.0), stream, shared=tmp_path / "shared", threads=1, progress=False)
    assert trained(rounds) == 3 and "shared" not in result.about
    learner = Alike(Config(), stream.shape, stream.classes)
    learner.learn(stream[0], Trace())
    assert trained(rounds) == 3


def test_a_part_of_a_snapshot_and_the_rest_are_the_whole():
    learner = Alike(Config(), (1, 6, 6), 6)
    learner.net.norm.eval()
    learner.net.head.bias.requires_grad_(False)
    learner.more.eval()
    whole = learner.snapshot()
    for at in ("net", "net.norm", "more", ""):
        part, rest = shared_module._parted(whole, at)
        assert {k.removeprefix(f"{at}.") for k in whole["parameters"]} >= part["parameters"].keys()
        loop = shared_module.SharedLoop(None, Trace(), "net", at, "", "")
        loop.trace.begin(learner, 0)
        back = loop._whole(part)
        for kind in shared_module.NAMED:
            assert back[kind].keys() == whole[kind].keys()
        for kind in shared_module.LISTED:
            assert sorted(back[kind]) == sorted(whole[kind]) and len(part[kind]) + len(rest[kind]) == len(
                whole[kind]
            )


def test_a_digest_is_of_values_types_and_structure():
    one = {"a": [torch.zeros(2, 3, device="cpu"), 1.5, "x"], "b": None}
    variants = [one, {"b": None, "a": one["a"]}, {"a": one["a"]}, {"a": one["a"], "b": "None"}]
    for changed in (
        torch.zeros(3, 2),
        torch.zeros(2, 3).double(),
        torch.zeros(2, 3).int(),
        torch.full((2, 3), -0.0),
    ):
        variants.append(one | {"a": [changed.cpu(), *one["a"][1:]]})
    variants += [one | {"a": [one["a"][0], [1.5, "x"]]}, one | {"a": [one["a"][0], 1.5000000000000002, "x"]}]
    digests = [shared_module._digest(v) for v in variants]
    assert len(set(digests)) == len(variants)
    assert shared_module._digest(copy.deepcopy(one)) == digests[0]
    assert shared_module._digest(one["a"][0].T.contiguous().T) == shared_module._digest(one["a"][0])
