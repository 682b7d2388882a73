"""A head for each task: each way of holding old tasks by hand; the surest head; finetuning."""

import math

import pytest
import torch
from torch.nn import functional as F
from torch.nn.utils import parameters_to_vector as vector

from clkit.engine.learner import LearnerError, frozen
from clkit.engine.run import run
from clkit.engine.seeding import seed_everything
from clkit.engine.trace import Trace
from clkit.methods.baselines.heads import Config, Heads
from tests.fakes import small_stream
from tests.reference.nets import gradient_of, same, small_nets  # noqa: F401  a fixture

SHAPE, CLASSES = (1, 6, 6), 6
SMALL = {
    "net": "tiny",
    "batch_size": 16,
    "epochs": 2,
    "milestones": (1,),
    "mean": (0.0,),
    "std": (1.0,),
    "augment": "none",
}
HOLDS = {"distil": 1.0, "fisher": 100.0, "mas": 1.0}


def build(seed=0, **settings):
    seed_everything(seed)
    return Heads(Config(**SMALL | settings), SHAPE, CLASSES)


def learn(learner, tasks=(0, 1, 2), seed=1, stream=None):
    """The rows of the last of these tasks."""
    stream, trace = stream or small_stream(), Trace(record="*")
    for t in tasks:
        trace.begin(learner, t)
        seed_everything(seed, t)
        learner.learn(stream[t], trace)
        rows = trace.end()
    return rows


def images_of(t):
    task = small_stream()[t]
    return task.train.images / 255, task.train.labels


# ---- the surest head


def test_answers_are_probabilities_within_each_head():
    stream, learner = small_stream(sizes=(3, 2, 1)), build()
    learn(learner, stream=stream)
    x = stream.test.images / 255
    with torch.no_grad():
        logits, found = learner.net(x), learner(x)
    for row, scores in zip(logits.tolist(), found.tolist(), strict=True):
        expected = []
        for head in (row[:3], row[3:5], row[5:]):
            total = sum(map(math.exp, head))
            expected += [math.exp(v) / total for v in head]
        assert scores == pytest.approx(expected, rel=1e-5)
    assert (found[:, 5] == 1).all(), "a head of one class is always sure"


def test_small_heads_win_over_an_untrained_large_one():
    """With equal logits 1/4 loses to 1/2, whatever the image."""
    learner = build()
    for p in learner.net.parameters():
        torch.nn.init.zeros_(p)
    learner.ends = torch.tensor([4, 6], device="cpu")
    with torch.no_grad():
        found = learner(torch.rand(3, *SHAPE, device="cpu"))
    assert found.tolist() == [[0.25] * 4 + [0.5] * 2] * 3


def test_wins_by_hand():
    learner = build()
    for t in range(3):
        rows = learn(learner, [t])
        with torch.no_grad():
            winners = learner.eval()(images_of(t)[0]).argmax(1).div(2, rounding_mode="floor")
        learner.train()
        expected = [(winners == s).double().mean().item() for s in range(t + 1)]
        assert rows["heads"]["wins"][0].tolist() == pytest.approx(expected)


# ---- what holds old tasks


def test_a_step_of_distillation_by_hand(monkeypatch):
    monkeypatch.setattr(torch.optim, "Adam", lambda p, lr, fused: torch.optim.SGD(p, lr))
    learner = build(batch_size=100, epochs=1, lr=0.1, strength=0.7)
    learn(learner, [0, 1])
    teacher, twin = frozen(learner.net), frozen(learner.net).train()
    for p in twin.parameters():
        p.requires_grad_()
    x, y = images_of(2)
    logits, before = twin(x), teacher(x)
    new = F.cross_entropy(logits[:, 4:6], y - 4)
    old = 0.0
    for h in (slice(0, 2), slice(2, 4)):
        p, q = (before[:, h] / 2).softmax(1), (logits[:, h] / 2).softmax(1)
        old = old - 0.7 * 4 * (p * q.log()).sum(1).mean()
    (new + old).backward()
    rows = learn(learner, [2])["loss"]
    assert (rows["new"][0], rows["old"][0]) == pytest.approx((new.item(), old.item()), rel=1e-5)
    for ours, theirs in zip(learner.net.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs - 0.1 * theirs.grad, rtol=1e-4, atol=1e-6)


def slow_importance(net, hold, t):
    """Image by image, with autograd: squared gradients of -log p of the likeliest class, or of the norm."""
    total = 0.0
    for image in images_of(t)[0]:
        logits = net(image[None])[0]
        if hold == "fisher":
            own = logits[2 * t : 2 * t + 2]
            total = total + gradient_of(net, -own.log_softmax(0)[own.argmax()]).square()
        else:
            total = total + gradient_of(net, logits[: 2 * t + 2].norm()).abs()
    return total / len(images_of(t)[0])


@pytest.mark.parametrize("hold", ["fisher", "mas"])
@pytest.mark.parametrize("net", ["tiny", "norm"])
def test_importance_is_averaged_over_tasks(hold, net):
    learner, expected = build(hold=hold, net=net, strength=HOLDS[hold], share=0.3), None
    for t in range(3):
        learn(learner, [t])
        twin = frozen(learner.net)
        for p in twin.parameters():
            p.requires_grad_()
        new = slow_importance(twin, hold, t)
        expected = new if expected is None else 0.3 * expected + 0.7 * new
        torch.testing.assert_close(learner.importance, expected, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("hold", ["fisher", "mas"])
def test_a_step_of_the_penalty_by_hand(hold, monkeypatch):
    """At theta* the penalty and its gradient are 0, so the second step shows it."""
    monkeypatch.setattr(torch.optim, "Adam", lambda p, lr, fused: torch.optim.SGD(p, lr))
    settings = {"batch_size": 100, "lr": 0.1, "milestones": (99,), "strength": HOLDS[hold]}
    learner = build(hold=hold, **settings)
    learn(learner, [0])
    start, omega = vector(learner.net.parameters()).detach().clone(), learner.importance.clone()
    twin = frozen(learner.net).train()
    for p in twin.parameters():
        p.requires_grad_()
    x, y = images_of(1)
    penalties = []
    for _ in range(2):
        new = F.cross_entropy(twin(x)[:, 2:4], y - 2)
        theta = vector(twin.parameters())
        penalty = HOLDS[hold] / 2 * (omega * (theta - start).square()).sum()
        penalties.append(penalty.item())
        twin.zero_grad()
        (new + penalty).backward()
        with torch.no_grad():
            for p in twin.parameters():
                p -= 0.1 * p.grad
    rows = learn(learner, [1])["loss"]
    assert rows["old"].tolist() == pytest.approx(penalties, rel=1e-4) and penalties[1] > 0
    for ours, theirs in zip(learner.net.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    "hold, moves", [("none", False), ("fisher", False), ("mas", False), ("distil", True)]
)
def test_old_heads_move_only_by_distillation(hold, moves):
    learner = build(hold=hold, strength=HOLDS.get(hold, 1.0))
    learn(learner, [0])
    before = learner.net.head.weight[:2].detach().clone()
    learn(learner, [1])
    assert torch.equal(before, learner.net.head.weight[:2]) != moves


def test_few_images_estimate_the_importance():
    """All of them in random order are all of them; fewer differ."""
    whole, shuffled, few = (build(hold="fisher", importance_images=n) for n in (None, 48, 5))
    for learner in (whole, shuffled, few):
        learn(learner, [0])
    torch.testing.assert_close(whole.importance, shuffled.importance)
    assert not torch.allclose(whole.importance, few.importance)


# ---- beside finetuning


@pytest.mark.parametrize("hold", HOLDS)
@pytest.mark.parametrize("net", ["tiny", "norm"])
def test_with_a_strength_of_zero_it_is_finetuning(hold, net):
    """Cross-entropy of the task's own outputs with Adam, written out."""
    learner, twin = build(hold=hold, strength=0.0, net=net), build(hold="none", net=net)
    learn(learner, seed=8)
    for task in small_stream():
        seed_everything(8, task.index)
        optimizer = torch.optim.Adam(twin.net.parameters(), 1e-3, fused=True)
        schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, (1,))
        for _ in range(2):
            for x, y in task.train.batches(16):
                optimizer.zero_grad()
                F.cross_entropy(twin.net(x)[:, task.first : task.seen], y - task.first).backward()
                optimizer.step()
            schedule.step()
    assert same(learner.net, twin.net)


@pytest.mark.parametrize("hold", HOLDS)
def test_it_holds_old_tasks(hold):
    """Scored with the task known: the first task after the third, against finetuning."""
    found = []
    for strength in (HOLDS[hold] * (1 if hold == "distil" else 1000), 0.0):
        config = Config(
            **SMALL | {"net": "small", "epochs": 15, "hold": hold, "strength": strength, "lr": 5e-3}
        )
        _, result = run(Heads, config, small_stream(), seed=1, threads=1, progress=False)
        found.append((result.predictions_task_aware[-1] == result.labels)[result.labels < 2].mean())
    assert found[0] >= found[1] and found[0] > 0.9


@pytest.mark.parametrize("hold, kept", [("distil", 0), ("none", 0), ("fisher", 1), ("mas", 1)])
def test_bytes_kept_by_kind(hold, kept):
    learner = build(hold=hold)
    size = 4 * sum(p.numel() for p in learner.net.parameters())
    assert learner.memory_bytes().get("importance", 0) == kept * size


@pytest.mark.parametrize(
    "wrong",
    [
        {"hold": "ewc"},
        {"strength": -1.0},
        {"share": 1.5},
        {"importance_images": 0},
        {"temperature": 0.0},
        {"epochs": 0},
    ],
)
def test_settings_that_cannot_work_are_refused(wrong):
    with pytest.raises(LearnerError, match=next(iter(wrong))):
        Config(**wrong)
