"""Trace and Learner: tables, probes, loops, checkpoints, and state that changes shape."""

import random
from collections import namedtuple
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from clkit.engine import trace as tracing
from clkit.engine.evaluate import eval_mode
from clkit.engine.learner import Learner, LearnerError, frozen, teacher
from clkit.engine.seeding import random_state, seed_everything, set_random_state
from clkit.engine.trace import Stopped, Trace, TraceError, copied
from tests.fakes import Config, Growing, Online, TwoPhase, small_stream


def draws():
    return [
        torch.rand(2, device="cpu").tolist(),
        np.random.rand(2).tolist(),
        random.random(),
        random.gauss(0, 1),
    ]


def test_all_sources_of_random_numbers_are_seeded_and_put_back():
    seed_everything(1, 2)
    first = draws()
    state = random_state()
    following = draws()
    seed_everything(1, 2)
    assert draws() == first
    set_random_state(copied(state))
    assert draws() == following
    seed_everything(2, 1)
    assert draws() != first


def test_rows_are_kept_by_pattern_and_copied():
    trace = Trace(record=("loss", "mask*"))
    trace.begin(None, 3)
    values = torch.zeros(2, device="cpu")
    for i in range(3):
        values += 1
        trace("mask-a", layer=i, values=values)
        trace("other", layer=i)
    assert trace.wants("loss") and not trace.wants("other")
    rows = trace.end()
    assert rows.keys() == {"mask-a"} and trace.tables.keys() == {"mask-a"}
    assert rows["mask-a"]["values"].tolist() == [[1, 1], [2, 2], [3, 3]] and rows["mask-a"][
        "task"
    ].tolist() == [3, 3, 3]


def test_rows_may_differ_in_shape_but_not_in_columns():
    trace = Trace(record="*")
    for n in (1, 3):
        trace("mask", values=torch.ones(n, dtype=torch.bfloat16, device="cpu"), name="a")
    with pytest.raises(TraceError, match="same columns"):
        trace("mask", other=1)
    with pytest.raises(TraceError, match="letters"):
        trace("a/b", x=1)
    rows = trace.end()
    assert [r.shape for r in rows["mask"]["values"]] == [(1,), (3,)] and rows["mask"]["name"].tolist() == [
        "a",
        "a",
    ]


def test_a_probe_sees_the_learner_in_eval_mode_and_leaves_no_mark():
    learner, seen = TwoPhase(Config(), (1, 4, 4), 2), []

    def probe(model):
        seen.append((model.training, torch.is_grad_enabled()))
        return torch.rand(1, device="cpu")

    trace = Trace(probes={"step": {"drawn": probe}})
    learner.generator.eval()
    trace.begin(learner, 0)
    seed_everything(1)
    before = draws()
    seed_everything(1)
    trace("step", n=1)
    assert draws() == before and seen == [(False, False)]
    assert learner.training and not learner.generator.training, "modes are put back, mixed ones too"
    assert trace.end()["step"]["drawn"].shape == (1, 1)


def test_eval_mode_puts_things_back_after_an_error():
    learner = TwoPhase(Config(), (1, 4, 4), 2)
    with pytest.raises(ZeroDivisionError), eval_mode(learner):
        raise ZeroDivisionError
    assert learner.training and torch.is_grad_enabled()


def test_loops_never_nest():
    trace = Trace()
    with pytest.raises(TraceError, match="'inner' begins inside the loop 'outer'"):
        for _ in trace.epochs("outer", 2):
            for _ in trace.epochs("inner", 2):
                pass


def test_loops_follow_one_another_also_after_a_break():
    trace, seen = Trace(), []
    for epoch in trace.epochs("one", 5):
        if epoch == 2:
            break
    seen += list(trace.epochs("two", 2)) + list(trace.steps("three", "abc"))
    assert seen == [0, 1, "a", "b", "c"]


class Saved:
    """Stores what a Trace saves, like a file."""

    def __init__(self):
        self.states = []

    def __call__(self, state):
        self.states.append(copied(state))


def test_a_checkpoint_does_not_change_the_columns():
    """Of numbers and tensors together, of several types of number, and of text."""
    rows = [
        {"mixed": -1, "number": 0.5, "text": "x"},
        {"mixed": torch.tensor(0.1, device="cpu"), "number": 1, "text": "y"},
    ]
    found = []
    for saved in (None, Saved()):
        trace = Trace("*", save=saved, every=0.0, progress=False)
        trace.begin(TwoPhase(Config(), (1, 4, 4), 2), 0)
        for epoch in trace.epochs("train", 2):
            trace("rows", **rows[epoch])
        found.append(trace.end()["rows"])
    for column, values in found[0].items():
        assert isinstance(values, np.ndarray) and values.dtype == found[1][column].dtype
        assert values.tolist() == found[1][column].tolist()


def learn(learner, task, saved=None, state=None, record="*", every=0.0):
    """Learn a task from a fixed random state, like `run`; returns the rows."""
    trace = Trace(record, save=saved, every=every, progress=False)
    trace.begin(learner, task.index, state=state)
    seed_everything(7)
    learner.train()
    learner.learn(task, trace)
    return trace.end()


@pytest.mark.parametrize("fake", [Growing, TwoPhase, Online])
def test_resuming_from_any_checkpoint_gives_the_same(fake):
    """Every checkpoint of a task leads to the same weights and the same rows."""
    stream = small_stream(sizes=(2, 4))
    learner = fake(Config(epochs=3), stream.shape, stream.classes)
    learn(learner, stream[0])
    beginning, saved = learner.snapshot(), Saved()
    rows = learn(learner, stream[1], saved)
    end = learner.snapshot()
    assert len(saved.states) >= 6
    for state in saved.states:
        twin = fake(Config(epochs=3), stream.shape, stream.classes)
        twin.restore(beginning)
        again = learn(twin, stream[1], Saved(), state)
        for kind in ("parameters", "buffers"):
            assert end[kind].keys() == twin.snapshot()[kind].keys()
            assert all(torch.equal(end[kind][k], v) for k, v in twin.snapshot()[kind].items())
        assert rows.keys() == again.keys()
        for table in rows:
            for column in rows[table]:
                for a, b in zip(rows[table][column], again[table][column], strict=True):
                    assert np.asarray(a).tobytes() == np.asarray(b).tobytes()


def test_an_error_in_a_loop_does_not_finish_it():
    """The state saved before the error is enough to resume; the broken epoch is repeated."""
    task = small_stream()[0]

    class Fails(TwoPhase):
        fails = True

        def forward(self, x):
            if self.fails and len(saved.states) == 6:
                raise ZeroDivisionError
            return super().forward(x)

    saved = Saved()
    learner = Fails(Config(), task.train.shape, 6)
    beginning = learner.snapshot()
    with pytest.raises(ZeroDivisionError):
        learn(learner, task, saved)
    Fails.fails = False
    learner.restore(beginning)
    learn(learner, task, Saved(), saved.states[-1])
    whole = Fails(Config(), task.train.shape, 6)
    whole.restore(beginning)
    learn(whole, task)
    assert all(torch.equal(a, b) for a, b in zip(learner.parameters(), whole.parameters()))


def test_asked_to_stop_it_saves_first():
    saved, task = Saved(), small_stream()[0]
    learner = TwoPhase(Config(), task.train.shape, 6)
    trace = Trace(save=saved, every=1e9, progress=False)
    trace.begin(learner, 0)
    trace.stop = True
    with pytest.raises(Stopped, match="loop 'generator', after 1 rounds"):
        learner.learn(task, trace)
    assert [s["unfinished"]["done"] for s in saved.states] == [1]


def test_a_method_that_changed_its_path_is_reported():
    saved, task = Saved(), small_stream()[0]
    learner = TwoPhase(Config(), task.train.shape, 6)
    learn(learner, task, saved)
    for change, message in (({"phase": "other"}, "has 'other'"), ({"objects": []}, "its checkpoint 0")):
        state = saved.states[0] | {"unfinished": saved.states[0]["unfinished"] | change}
        with pytest.raises(TraceError, match=message):
            learn(TwoPhase(Config(), task.train.shape, 6), task, Saved(), state)


def test_a_loop_never_reached_again_is_reported():
    trace = Trace()
    trace.begin(None, 0, state={"finished": [], "unfinished": {"phase": "x"}, "rows": {}})
    with pytest.raises(TraceError, match="did not reach again"):
        trace.end()


def test_what_cannot_be_saved_is_said():
    with pytest.raises(TraceError, match="loop 'a' cannot hold a function"):
        copied({"x": [print.__class__, lambda: 0][1]}, "the checkpoint of loop 'a'")
    deep = {"a": (1, [torch.ones(2, device="cpu")]), "b": np.float32(2.0), "c": np.arange(2), "d": None}
    taken = copied(deep)
    deep["a"][1][0].zero_()
    assert taken["a"][1][0].tolist() == [1, 1] and taken["b"] == 2.0 and taken["c"].tolist() == [0, 1]


def test_a_copy_goes_into_named_tuples():
    Pair = namedtuple("Pair", "a b")
    one = torch.zeros(1, device="cpu")
    taken = copied({"x": Pair(one, np.float64(2))})["x"]
    one.add_(5)
    assert taken[0].item() == 0 and type(taken) is list and type(taken[1]) is float
    with pytest.raises(TraceError, match="cannot hold a object"):
        copied(Pair(object(), 1))


def test_the_bar_shows_the_loss(monkeypatch, capsys):
    monkeypatch.setenv("CLKIT_PROGRESS", "1")
    trace = Trace()
    trace.begin(None, 0, label="task 1/2 · ")
    for _epoch in trace.epochs("classifier", 3):
        trace("loss", loss=torch.tensor(0.25, device="cpu"))
        trace._show_loss(type("Bar", (), {"set_postfix_str": lambda self, text, refresh: print(text)})())
    captured = capsys.readouterr()
    assert "task 1/2 · classifier" in captured.err and captured.out.split() == ["loss", "0.25"] * 3


def test_in_a_notebook_bars_share_one_line_of_text_that_ends_empty(monkeypatch, capsys):
    shown, shell = [], SimpleNamespace(execution_count=3)
    handle = SimpleNamespace(update=lambda data, raw: shown[-1].append(data["text/plain"]))
    monkeypatch.setattr(tracing, "_in_notebook", lambda: True)
    monkeypatch.setattr("IPython.get_ipython", lambda: shell)
    monkeypatch.setattr("IPython.display.display", lambda *a, **k: shown.append([]) or handle)
    trace = Trace()
    for cell in (3, 4):
        shell.execution_count = cell
        for phase in ("first", "second"):
            for _ in trace.epochs(phase, 2):
                pass
    assert len(shown) == 2  # a line a cell
    for line in shown:
        assert line[0].startswith("first:   0%") and any("second" in text for text in line) and line[-1] == ""
    assert capsys.readouterr() == ("", "")


def test_quiet_when_not_a_terminal(capsys):
    for _ in Trace().epochs("classifier", 3):
        pass
    assert capsys.readouterr() == ("", "")


# ---- learner


class Plain(Learner):
    """The smallest learner."""

    memory_kinds = {"old": "teachers"}

    def __init__(self, config=None, shape=(1, 2, 2), classes=2):
        super().__init__(config, shape, classes)
        self.net = nn.Linear(4, 2)
        self.register_buffer("old_mean", None)

    def learn(self, task, trace):
        self.old_mean = torch.ones(3, device="cpu")

    def forward(self, x):
        return self.net(x.flatten(1))


def test_restore_follows_growth_and_keeps_what_an_optimizer_points_at():
    small, large = Plain(), Plain()
    large.net.weight = nn.Parameter(torch.ones(5, 4, device="cpu"))
    large.learn(None, None)
    large.net.bias.requires_grad_(False)
    large.net.eval()
    weight = small.net.weight
    small.restore(large.snapshot())
    assert small.net.weight is weight and weight.shape == (5, 4) and small.old_mean.tolist() == [1, 1, 1]
    assert not small.net.bias.requires_grad and not small.net.training and small.training
    small.restore(Plain().snapshot())
    assert small.old_mean is None and small.net.weight.shape == (2, 4) and small.net.bias.requires_grad


def test_a_state_that_does_not_fit_is_refused():
    state = Plain().snapshot()
    state["buffers"]["gone.mean"] = torch.ones(1, device="cpu")
    with pytest.raises(LearnerError, match="there is no module 'gone'"):
        Plain().restore(state)
    state = Plain().snapshot()
    del state["parameters"]["net.bias"]
    with pytest.raises(LearnerError, match="lacks net.bias"):
        Plain().restore(state)


def test_a_parameter_that_appears_later_is_restored():
    grown, fresh = Plain(), Plain()
    grown.net.register_parameter("gain", nn.Parameter(torch.full((2,), 3.0, device="cpu")))
    fresh.restore(grown.snapshot())
    assert fresh.net.gain.tolist() == [3, 3] and isinstance(fresh.net.gain, nn.Parameter)


def test_a_snapshot_is_a_copy():
    learner = Plain()
    state = learner.snapshot()
    before = state["parameters"]["net.weight"].clone()
    with torch.no_grad():
        learner.net.weight.add_(1)
    assert torch.equal(state["parameters"]["net.weight"], before)


def test_memory_bytes_by_kind():
    learner = Plain()
    assert learner.memory_bytes() == {"weights": 40}
    learner.learn(None, None)
    assert learner.memory_bytes() == {"weights": 40, "teachers": 12}


def test_frozen_is_a_copy_without_gradients():
    net = nn.Sequential(nn.Linear(2, 2), nn.Dropout())
    twin = frozen(net)
    assert not twin.training and net.training and not any(p.requires_grad for p in twin.parameters())
    with torch.no_grad():
        net[0].weight.zero_()
    assert twin[0].weight.abs().sum() > 0


def test_a_teacher_is_a_copy_whose_weights_are_buffers():
    net = nn.Sequential(nn.Linear(2, 3, bias=False), nn.BatchNorm1d(3))
    before = {k: v.clone() for k, v in net.state_dict().items()}
    for persistent in (True, False):
        copy = teacher(net, persistent)
        assert not list(copy.parameters()) and copy.training and copy[0].bias is None
        assert set(copy.state_dict()) == (set(before) if persistent else set())
        assert {n for n, _ in copy.named_buffers()} == set(before)
        with torch.no_grad():
            x = torch.ones(4, 2, device="cpu")
            assert torch.equal(copy.eval()(x), net.eval()(x)) and net.train()
            net[0].weight.zero_()
        assert copy[0].weight.abs().sum() > 0
        net.load_state_dict(before)
    assert len(list(net.parameters())) == 3


def test_a_teacher_belongs_to_the_learner_s_state_unless_told_otherwise():
    class Teaches(Plain):
        def __init__(self, persistent):
            super().__init__()
            self.old = teacher(self.net, persistent)

    assert (
        "old.weight" in Teaches(True).snapshot()["buffers"] and Teaches(True).memory_bytes()["teachers"] == 40
    )
    assert not [n for n in Teaches(False).snapshot()["buffers"] if n.startswith("old")]
    other = Teaches(True)
    other.restore(Teaches(True).snapshot())
    assert not [n for n, _ in other.named_parameters() if n.startswith("old")]


def test_a_learner_without_memory_says_so():
    with pytest.raises(LearnerError, match="Plain remembers no samples"):
        Plain().recall(3)
