"""One run in several processes: its values and gradients are those of one process with the whole batch."""

import contextlib
import copy
import os
import signal
from datetime import timedelta

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from clkit import experiments
from clkit.__main__ import main
from clkit.blocks import nets
from clkit.engine import RunError, parallel, seeding, torchrun
from clkit.engine.device import pick_device
from clkit.engine.parallel import spread
from clkit.engine.run import run
from clkit.engine.torchrun import ALONE, LostError, Process, process
from clkit.engine.trace import Trace
from clkit.methods import LEARNERS
from tests.processes import Together

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def pair():
    """Two processes that wait for calls."""
    made = Together()
    yield made
    made.end()


class Double(TorchFunctionMode):
    """Within it, x.float() keeps double precision."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        function = torch.Tensor.double if function is torch.Tensor.float else function
        return function(*args, **(kwargs or {}))


@contextlib.contextmanager
def doubled():
    torch.set_default_dtype(torch.float64)
    try:
        with Double():
            yield
    finally:
        torch.set_default_dtype(torch.float32)


def equal(a, b):
    """Whether two nested values are equal bit for bit."""
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(equal(a[k], b[k]) for k in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(equal, a, b))
    return torch.equal(a, b) if torch.is_tensor(a) else np.array_equal(a, b, equal_nan=a.dtype.kind == "f")


# ---- a network


class Plain(nn.Module):
    """Convolution, batch normalisation without weights, a layer that takes no part."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm, self.idle = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, affine=False), nn.Linear(2, 2)

    def forward(self, x):
        return F.relu(self.norm(self.conv(x))).mean((2, 3))


def network(name):
    """(network, the function of images that is spread)."""
    if name == "plain":
        net = Plain()
        return net, net
    net = nets.build(name, (3, 8, 8), 4)
    return net, net.until if name in nets.STAGED else net.features


def steps(name, rows, kind=torch.float64, train=True):
    """Weights, buffers and features of a network after steps on batches with these numbers of rows.

    The loss is no mean over images, and has a second, frozen network in it.
    """
    torch.manual_seed(0)
    net, features = network(name)
    net.to(kind).train(train)
    before = copy.deepcopy(net).eval().requires_grad_(False)
    rest = (2,) if name in nets.STAGED else ()
    draw, found = torch.Generator().manual_seed(1), []
    with parallel.joined(CPU), torch.autocast("cpu", torch.bfloat16, enabled=kind == torch.float32):
        for n in rows:
            x = 2 + 3 * torch.randn(n, 3, 8, 8, generator=draw, device="cpu").to(kind)
            u = spread(features, x, *rest)
            old = spread(getattr(before, getattr(features, "__name__", "forward")), x, *rest)
            loss = torch.linalg.vector_norm(u - old) + u.square().mean() + u.flatten()[: n // 2].sum()
            loss.backward()
            with torch.no_grad():
                for p in net.parameters():
                    if p.grad is not None:
                        p -= 0.01 * p.grad
                        p.grad = None
            found.append(u.detach())
    return {**net.state_dict(), **{f"features {i}": u for i, u in enumerate(found)}}


@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize("name", ["resnet10", "convnet", "plain"])
def test_steps_are_those_of_one_process(pair, name, train):
    """With 5 and 7 rows their shares differ, and one row is fewer than there are processes."""
    rows = (8, 5, 7, 2, *([] if train else [1]))
    start, one = steps(name, ()), steps(name, rows, train=train)
    first, second = pair(steps, name, rows, torch.float64, train)
    assert equal(first, second)
    close(one, first, 1e-10)
    changed = {key for key, value in start.items() if not torch.equal(value, one[key])}
    assert {"stem.weight", "convs.0.weight", "conv.weight"} & changed
    assert any("running_var" in key for key in changed) == (train and name != "convnet")


def test_steps_in_lower_precision_are_close(pair):
    rows = (8, 5)
    one, (first, second) = (
        steps("resnet10", rows, torch.float32),
        pair(steps, "resnet10", rows, torch.float32),
    )
    assert equal(first, second)
    close(one, first, 0.02)
    with pytest.raises(AssertionError):
        close(steps("resnet10", (), torch.float32), {k: first[k] for k in steps("resnet10", ())}, 0.02)


def close(one, other, tolerance):
    """Assert that two dictionaries of tensors agree, each relative to its largest number."""
    assert one.keys() == other.keys()
    for key, value in one.items():
        gap, largest = largest_of(value.double() - other[key]), largest_of(value.double())
        assert gap <= tolerance * max(1.0, largest), f"{key}: {gap} of {largest}"


def largest_of(tensor):
    return float(tensor.abs().max()) if tensor.numel() else 0.0


# ---- methods

EASY = {"batch_size": 15}
RUNS = [
    ("gfr/split-shapes", {}),
    ("gfr/split-shapes", {"norm": "batch", "fd": "mean_l2"}),
    ("gfr/cifar100-4", {"stage": 3, "head": "expand"}),
    ("gfr-gaussian-full/split-shapes", {"norm": "batch"}),
    ("gfr-ewc/split-shapes", {}),
    ("gfr-joint/split-shapes", {}),
    ("fetril/split-shapes", {}),
    ("fecam/split-shapes", {}),
    ("lucir/split-shapes", {"augment": "shift"}),
    ("icarl-nme/split-shapes", {}),
    ("lwf-max/split-shapes", {}),
    ("mas-max/split-shapes", {}),
]


def learned(name, overrides, **options):
    """(the learner's state, predictions, facts) of a run in double precision."""
    found = experiments.experiment(name, "smoke", {**EASY, **overrides})
    stream = experiments.stream(found.benchmark, "smoke")
    with doubled():
        options = {"threads": 1, "progress": False, **options}
        model, result = run(found.learner, found.config, stream, **options)
    state = model.snapshot()
    return {**state["parameters"], **state["buffers"]}, result.predictions, result.about


@pytest.mark.parametrize("name, overrides", RUNS)
def test_a_method_learns_what_it_learns_in_one_process(pair, name, overrides):
    state, predictions, _ = learned(name, overrides)
    (first, there, about), second = pair(learned, name, overrides)
    assert equal((first, there), second[:2])
    close(state, first, 1e-9)
    assert np.array_equal(predictions, there)
    assert about["processes"] == 2


def test_every_method_that_says_so_is_tested():
    tested = {LEARNERS[name.partition("/")[0]] for name, _ in RUNS}
    assert tested == {learner for learner in LEARNERS.values() if learner.parallel}


# ---- looking, stopping, resuming


def rows_seen(learner, *_):
    """The rows of a batch of 7 images that a layer of the network sees."""
    seen, task = [], torch.zeros(7, *learner.shape, device="cpu")
    hook = learner.net.stem.register_forward_hook(lambda module, given, found: seen.append(len(found)))
    learner(task)
    hook.remove()
    return sum(seen)


def looked():
    """Rows that probes, studies and histories see, and rows of the network outside of them."""
    study = {"study": lambda learner, stream: {"rows": [rows_seen(learner)]}}
    past = {"past": lambda past, stream: {"rows": [rows_seen(learner) for learner in past]}}
    found = experiments.experiment("fetril/split-shapes", "smoke")
    stream = experiments.stream(found.benchmark, "smoke")
    looks = {"probes": {"loss": {"rows": rows_seen}}, "studies": study, "histories": past}
    model, result = run(found.learner, found.config, stream, record="loss", progress=False, **looks)
    with parallel.joined(CPU):
        return {name: np.ravel(table["rows"]) for name, table in result.trace.items() if "rows" in table}, (
            rows_seen(model)
        )


def test_who_looks_sees_whole_batches(pair):
    (first, of_first), (second, of_second) = pair(looked)
    assert (of_first, of_second) == (3, 4)
    assert set(first) == {"loss", "study", "past"} and set(second) == {"loss"}, "the first process studies"
    assert all((rows == 7).all() for rows in (*first.values(), *second.values()))


def interrupted(name, folder, rank):
    """A run in which one process is asked to stop, in the classifier's second epoch of the second task."""
    boundary = Trace._boundary

    def asked(trace, phase, done, objects):
        if (trace.task, phase, done, process().rank) == (1, "classifier", 1, rank):
            trace.stop = True
        return boundary(trace, phase, done, objects)

    Trace._boundary = asked
    try:
        return learned(name, {}, folder=folder)
    finally:
        Trace._boundary = boundary


@pytest.mark.parametrize("rank", [0, 1])
def test_all_stop_together_and_any_number_resumes(pair, tmp_path, rank):
    name = "gfr-gaussian-full/split-shapes"
    stops = pair(interrupted, name, tmp_path / "pair", rank)
    assert [str(stop) for stop in stops] == ["stopped in task 1, loop 'classifier', after 1 rounds"] * 2
    assert (tmp_path / "pair" / "checkpoint.pt").is_file()
    whole, predictions, _ = learned(name, {})
    for state, there, _ in (learned(name, {}, folder=tmp_path / "pair"), *pair(learned, name, {})):
        close(whole, state, 1e-9)
        assert np.array_equal(predictions, there)
    about = learned(name, {}, folder=tmp_path / "pair")[2]
    assert [about["processes"], [p["processes"] for p in about["earlier_processes"]]] == [1, [2]]


def test_several_processes_resume_the_run_of_one(pair, tmp_path):
    name = "gfr-gaussian-full/split-shapes"
    with pytest.raises(KeyboardInterrupt):
        interrupted(name, tmp_path, 0)
    (first, there, about), second = pair(in_folder, name, tmp_path)
    whole, predictions, _ = learned(name, {})
    assert equal((first, there), second[:2]) and np.array_equal(predictions, there)
    close(whole, first, 1e-9)
    assert [about["processes"], [p["processes"] for p in about["earlier_processes"]]] == [2, [1]]
    (again, _, _), _ = pair(in_folder, name, tmp_path)
    assert equal(first, again), "read from the folder"


def in_folder(name, folder, shared=None):
    return learned(name, {}, folder=folder, shared=shared)


def test_a_loop_that_several_processes_trained_is_taken_by_several(pair, tmp_path):
    """Others would train it to other last bits."""
    name, shared = "gfr-distill/split-shapes", tmp_path / "shared"
    pair(in_folder, "gfr-gaussian-full/split-shapes", tmp_path / "first", shared)
    (state, predictions, about), second = pair(in_folder, name, tmp_path / "second", shared)
    assert [loop["loop"] for loop in about["shared"]] == ["classifier"]
    assert equal((state, predictions), second[:2])
    alone = in_folder(name, tmp_path / "alone", shared)
    assert "shared" not in alone[2]
    close(alone[0], state, 1e-9)


# ---- what is refused


def apart(by):
    """Weights that differ by process."""
    net = nn.Linear(2, 2)
    nn.init.constant_(net.weight, 1.0 + by * process().rank)
    nn.init.constant_(net.bias, torch.nan)
    with parallel.joined(CPU):
        parallel.keep_alike(net)
    return net.weight.detach()


def test_different_weights_are_refused(pair):
    assert equal(pair(apart, 0.0), [torch.ones(2, 2)] * 2)
    for error in pair(apart, 1e-6):
        assert isinstance(error, RunError) and "have learned different weights: " in str(error)


def spread_over(net, gradient=False):
    with parallel.joined(CPU):
        return spread(net.train(), torch.ones(4, 2, device="cpu").requires_grad_(gradient))


def test_what_cannot_be_spread_is_refused(pair):
    for error in pair(spread_over, nn.Dropout()):
        assert isinstance(error, RunError) and "draws random numbers" in str(error)
    for error in pair(spread_over, nn.Linear(2, 2), True):
        assert isinstance(error, RunError) and "gradients in the images" in str(error)
    assert equal(*pair(spread_over, nn.Identity()))


WORLD = {"RANK": 0, "WORLD_SIZE": 2, "LOCAL_RANK": 0, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": 1}


def say(monkeypatch, **variables):
    for name in torchrun.VARIABLES:
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, str(value))


def test_variables_of_torchrun(monkeypatch):
    say(monkeypatch)
    assert process() == ALONE
    say(monkeypatch, WORLD_SIZE=1)
    assert process() == ALONE
    say(monkeypatch, **{**WORLD, "RANK": 5, "WORLD_SIZE": 8})
    assert process() == Process(5, 8, 0)
    for missing in torchrun.VARIABLES:
        say(monkeypatch, **{name: value for name, value in WORLD.items() if name != missing})
        with pytest.raises(RunError, match=rf"but lacks {missing}: start the run by `torchrun "):
            process()
    for wrong in ({"RANK": 2}, {"WORLD_SIZE": "two"}, {"RANK": -1}):
        say(monkeypatch, **{**WORLD, **wrong})
        with pytest.raises(RunError, match="do not number the processes of a run: start"):
            process()


ALREADY = "torchrun already spreads each run over processes: leave out"


@pytest.mark.parametrize(
    "words, fault",
    [
        (["finetune/split-digits"], "Finetune is computed by one process, not by 2: start it without torch"),
        (["fetril/split-shapes", "--jobs", "2"], f"{ALREADY} --jobs"),
        (["fetril/split-shapes", "--scheduler", "tcp://no:1"], f"{ALREADY} --scheduler"),
    ],
)
def test_what_torchrun_cannot_run_is_refused(words, fault, monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("CLKIT_RUNS", str(tmp_path))
    monkeypatch.setattr(torchrun, "HEARD", 0.0)
    for rank, start in enumerate(("clkit: ", "clkit: process 1: ")):
        say(monkeypatch, **{**WORLD, "RANK": rank})
        assert main(["run", *words, "--preset", "smoke", "--device", "cpu"]) == 2
        out, err = capsys.readouterr()
        assert (out, err.count("\n")) == ("", 1) and err.startswith(start + fault)
    assert not list(tmp_path.rglob("*.pt"))


def test_each_process_has_its_card(monkeypatch):
    chosen = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
    say(monkeypatch, **{**WORLD, "RANK": 1, "LOCAL_RANK": 1})
    assert pick_device("auto") == pick_device("cuda") == pick_device("cuda:1") == torch.device("cuda", 1)
    assert chosen == [1, 1, 1] and pick_device("cpu") == CPU
    with pytest.raises(RunError, match="each process of torchrun has a card of its own: use --device cuda"):
        pick_device("cuda:0")
    say(monkeypatch, **{**WORLD, "RANK": 2, "WORLD_SIZE": 3, "LOCAL_RANK": 2})
    with pytest.raises(RunError, match="has 2 cards for at least 3 processes: start at most 2 with"):
        pick_device("auto")
    say(monkeypatch)
    assert pick_device("auto") == torch.device("cuda") and pick_device("cuda:0").index == 0


def test_the_random_state_is_that_of_the_own_card(monkeypatch):
    asked = []
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_rng_state", lambda card: asked.append(card) or torch.zeros(1))
    monkeypatch.setattr(torch.cuda, "set_rng_state", lambda state, card: asked.append(card))
    for variables, cards in ((WORLD, [1]), ({}, [0, 1])):
        say(monkeypatch, **variables)
        seeding.set_random_state(seeding.random_state())
        assert asked == cards * 2
        asked.clear()


# ---- when a process is lost


def sums(leave):
    """Steps without end; in the backward pass of the tenth, process number `leave` ends."""
    net = nn.Linear(2, 2)
    with parallel.joined(CPU):
        for step in range(1000):
            u = spread(net, torch.ones(4, 2, device="cpu"))
            if step == 10 and process().rank == leave:
                u.register_hook(lambda gradient: os._exit(1))
            u.sum().backward()


@pytest.mark.parametrize("leaves", [0, 1])
def test_the_end_of_a_process_is_noticed(leaves):
    pair = Together()
    pair.ask(sums, leaves)
    error = pair.pipes[1 - leaves].recv()
    pair.end()
    assert isinstance(error, LostError)
    assert str(error).startswith("another process of this run has ended, or does not answer (")
    assert str(error).endswith("): run the same command again to resume") and "\n" not in str(error)


def join(patience):
    parallel.PATIENCE = timedelta(seconds=patience)
    with parallel.joined(CPU):
        return parallel.from_first(process)


def test_a_process_that_does_not_answer_is_noticed():
    pair = Together()
    assert pair(join, 0.5) == [Process(0, 2, 0)] * 2
    pair.pipes[0].send((sums, (None,)))
    error = pair.pipes[0].recv()
    pair.end()
    assert isinstance(error, LostError) and "does not answer (" in str(error)


def test_processes_that_cannot_connect_say_so(monkeypatch):
    monkeypatch.setattr(parallel, "PATIENCE", timedelta(seconds=0.5))
    say(monkeypatch, **{**WORLD, "RANK": 1})
    with pytest.raises(RunError, match="the 2 processes of this run cannot connect "), parallel.joined(CPU):
        pass


def ended():
    with parallel.joined(CPU):
        os.kill(os.getpid(), signal.SIGTERM)


def test_torchrun_ends_a_process():
    """tests/test_torchrun.py reads what it says."""
    pair = Together()
    pair(join, 60)
    pair.ask(ended)
    for member in pair.members:
        member.join(60)
    assert [member.exitcode for member in pair.members] == [128 + signal.SIGTERM] * 2
