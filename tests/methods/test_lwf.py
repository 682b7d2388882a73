"""LwF: both reductions of the distillation term by hand, in a step and in a run; one or several heads."""

import math

import pytest
import torch
from torch.nn import functional as F

from clkit.blocks import nets
from clkit.engine.learner import LearnerError
from clkit.engine.run import run
from clkit.engine.seeding import seed_everything
from clkit.engine.trace import Trace
from clkit.methods.baselines.lwf import Config, LwF
from tests.fakes import small_stream
from tests.reference.nets import same, small_nets  # noqa: F401  a fixture

SHAPE, CLASSES = (1, 6, 6), 6
STEP = {"net": "tiny", "batch_size": 100, "epochs": 1, "lr": 0.1}


def build(seed=0, **settings):
    seed_everything(seed)
    return LwF(Config(**STEP | settings), SHAPE, CLASSES)


def plain_sgd(monkeypatch):
    """Adam's first step is the sign of the gradient, which hides its size."""
    monkeypatch.setattr(torch.optim, "Adam", lambda p, lr, fused: torch.optim.SGD(p, lr))


def old_term(student, teacher, temperature, reduction):
    """-sum or -mean over classes of p log q, mean over images, one number at a time; lists of logits."""
    total = 0.0
    for s, t in zip(student, teacher, strict=True):
        p = [math.exp(v / temperature) for v in t.tolist()]
        q = [(v / temperature).exp() for v in s]
        terms = [a / sum(p) * (b / sum(q)).log() for a, b in zip(p, q)]  # p is 0 for new classes
        total = total - sum(terms) / (len(q) if reduction == "mean" else 1)
    return temperature**2 * total / len(student)


@pytest.mark.parametrize("reduction", ["sum", "mean"])
@pytest.mark.parametrize("heads, index", [("single", 1), ("single", 2), ("multi", 1), ("multi", 2)])
def test_a_step_by_hand(reduction, heads, index, monkeypatch):
    plain_sgd(monkeypatch)
    stream, learner = small_stream(), build(heads=heads, reduction=reduction)
    for t in range(index):
        learner.learn(stream[t], Trace())
    task, twin, old = stream[index], *(nets.build("tiny", SHAPE, CLASSES) for _ in range(2))
    for net in (twin, old):
        net.load_state_dict(learner.net.state_dict())
    x, y = task.train.images / 255, task.train.labels
    logits, before = twin(x), old(x).detach()
    if heads == "single":
        new = F.cross_entropy(logits[:, : task.seen], y)
        past = old_term(logits[:, : task.seen], before[:, : task.first], 2.0, reduction)
    else:
        new = F.cross_entropy(logits[:, task.first : task.seen], y - task.first)
        past = sum(
            old_term(logits[:, 2 * t : 2 * t + 2], before[:, 2 * t : 2 * t + 2], 2.0, reduction)
            for t in range(index)
        )
    share = 1 / (index + 1)
    loss = share * new + (1 - share) * past
    loss.backward()
    with torch.no_grad():
        for p in twin.parameters():
            p -= 0.1 * p.grad
    trace = Trace(record="*")
    trace.begin(learner, index)
    learner.learn(task, trace)
    row = {name: rows[0] for name, rows in trace.end()["loss"].items()}
    torch.testing.assert_close(learner.net.state_dict(), twin.state_dict(), rtol=1e-4, atol=1e-6)
    assert (row["loss"], row["new"], row["old"]) == pytest.approx(
        (loss.item(), new.item(), past.item()), rel=1e-5
    )


@pytest.mark.parametrize("heads", ["single", "multi"])
def test_the_mean_is_the_sum_at_a_smaller_weight_while_there_is_one_number_of_classes(heads):
    """In the second task: 4 classes share the softmax, or 2 in the only old head."""
    found = []
    for settings in ({"reduction": "mean"}, {"weight": 1 / 4 if heads == "single" else 1 / 2}):
        learner, stream = build(heads=heads, batch_size=16, lr=1e-3, **settings), small_stream()
        for t in range(2):
            seed_everything(1, t)
            learner.learn(stream[t], Trace())
        found.append(learner)
    torch.testing.assert_close(found[0].net.state_dict(), found[1].net.state_dict(), rtol=1e-4, atol=1e-5)


def test_the_reductions_forget_in_opposite_ways():
    """The sum loses the new classes and the mean the old ones: accuracy on the last task."""
    last = []
    for reduction in ("sum", "mean"):
        config = Config(
            **STEP | {"net": "small", "batch_size": 16, "epochs": 30, "lr": 1e-3, "reduction": reduction}
        )
        _, result = run(LwF, config, small_stream(), seed=1, threads=1, progress=False)
        new = result.labels >= 4
        last.append((result.predictions[-1] == result.labels)[new].mean())
    assert last[1] > last[0]


def test_a_weight_of_zero_and_the_first_task_know_no_reduction():
    a, b = build(weight=0.0), build(weight=0.0, reduction="mean")
    for t in range(2):
        for learner in (a, b):
            seed_everything(1, t)
            learner.learn(small_stream()[t], Trace())
    assert same(a, b)


@pytest.mark.parametrize(
    "wrong",
    [
        {"reduction": "batchmean"},
        {"heads": "two"},
        {"weight": -1.0},
        {"temperature": 0.0},
        {"warmup_epochs": -1},
        {"epochs": 0},
        {"lr": 0.0},
    ],
)
def test_settings_that_cannot_work_are_refused(wrong):
    with pytest.raises(LearnerError, match=next(iter(wrong))):
        Config(**wrong)
    assert Config().reduction == "sum"
