"""iCaRL with cross-entropy: a step by hand, new outputs, both answers; finetuning."""

import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from clkit.engine.learner import LearnerError, frozen
from clkit.engine.run import run
from clkit.engine.seeding import seed_everything
from clkit.engine.trace import Trace
from clkit.methods.baselines.icarl_ce import Config, ICaRLCE
from tests.fakes import small_stream
from tests.reference.memory import phi, unit
from tests.reference.nets import same, small_nets  # noqa: F401  a fixture

SHAPE, CLASSES = (1, 6, 6), 6
SMALL = {
    "net": "small",
    "per_class": 4,
    "batch_size": 16,
    "epochs": 2,
    "milestones": (1,),
    "mean": (0.0,),
    "std": (1.0,),
    "augment": "none",
}
PLAIN = {"distil": 0.0, "replay": False}


def build(seed=0, **settings):
    seed_everything(seed)
    return ICaRLCE(Config(**SMALL | settings), SHAPE, CLASSES)


def learn(learner, tasks=(0, 1, 2), seed=1):
    """The rows of the last of these tasks."""
    stream, trace = small_stream(), Trace(record="*")
    for t in tasks:
        trace.begin(learner, t)
        seed_everything(seed, t)
        learner.learn(stream[t], trace)
        rows = trace.end()
    return rows


def test_a_step_by_hand():
    """New images and exemplars of the second task; the divergence of the old classes' own softmax."""
    learner = build(batch_size=200, epochs=1, lr=0.1, weight_decay=0.0)
    learn(learner, [0])
    task, teacher = small_stream()[1], frozen(learner.net)
    x = torch.cat([task.train.images, learner.memory.images]) / 255
    y = torch.cat([task.train.labels, learner.memory.labels])
    twin = frozen(learner.net).train()
    fresh = twin.head
    seed_everything(1, 1)
    drawn = torch.nn.Linear(32, 4, device="cpu")
    fresh.weight[2:4], fresh.bias[2:4] = drawn.weight[2:].detach(), drawn.bias[2:].detach()
    for p in twin.parameters():
        p.requires_grad_()
    logits, before = twin(x), teacher(x)
    new = F.cross_entropy(logits[:, :4], y)
    p = (before[:, :2] / 2).softmax(1)
    divergence = F.kl_div((logits[:, :2] / 2).log_softmax(1), p, reduction="batchmean")
    (new + divergence).backward()  # T^2 beta = 1
    rows = learn(learner, [1])["loss"]
    entropy = -(p * p.log()).sum(1).mean()
    assert rows["new"][0] == pytest.approx(new.item(), rel=1e-4)
    assert rows["old"][0] == pytest.approx((divergence + entropy).item(), rel=1e-4)
    for ours, theirs in zip(learner.net.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs - 0.1 * theirs.grad, rtol=1e-4, atol=1e-6)


def test_outputs_of_new_classes_begin_anew_and_others_stay():
    learner = build()
    learn(learner, [0])
    head, task = learner.net.head, small_stream()[1]
    before = head.weight.detach().clone(), head.bias.detach().clone()
    learner.redraw(task)
    for ours, kept in zip((head.weight, head.bias), before, strict=True):
        assert torch.equal(ours[:2], kept[:2]) and torch.equal(ours[4:], kept[4:])
        assert (ours[2:4] != kept[2:4]).any()


def test_both_answers_come_from_the_same_training():
    """The network's outputs, and the nearest of the means of exemplars and their mirror images."""
    network, mean = build(), build(classifier="mean")
    for learner in (network, mean):
        learn(learner, [0, 1])
    assert same(network.net, mean.net) and torch.equal(network.memory.images, mean.memory.images)
    x, labels, means = small_stream().test.images, mean.memory.labels, []
    for c in range(4):
        own = mean.memory.images[labels == c]
        both = phi(mean.net, own) + phi(mean.net, own.flip(-1))
        means.append(unit([sum(column) for column in zip(*both, strict=True)]))
    distances = [[math.dist(f, mu) ** 2 for mu in means] for f in phi(mean.net, x)]
    with torch.no_grad():
        np.testing.assert_allclose(-mean(x / 255)[:, :4], distances, rtol=1e-3, atol=1e-4)
        assert torch.equal(network(x / 255), network.net(x / 255))


def finetune(learner, stream, seed):
    """Cross-entropy alone, with the same optimizer and new outputs, written out."""
    net = learner.net
    for task in stream:
        seed_everything(seed, task.index)
        learner.redraw(task)
        optimizer = torch.optim.SGD(net.parameters(), 0.1, 0.9, weight_decay=5e-4)
        schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, (1,))
        for _ in range(2):
            for x, y in task.train.batches(16):
                loss = F.cross_entropy(net(x)[:, : task.seen], y)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
            schedule.step()


def test_without_its_parts_it_is_finetuning():
    learner, twin = build(**PLAIN), build(**PLAIN)
    learn(learner, seed=8)
    finetune(twin, small_stream(), seed=8)
    assert same(learner, twin)


@pytest.mark.parametrize("part", [{"distil": 0.25}, {"replay": True}])
def test_each_part_matters_from_the_second_task_on(part):
    settings = PLAIN | {"batch_size": 60, "epochs": 2}
    with_it, without = build(**settings | part), build(**settings)
    for task, expected in ((0, True), (1, False)):
        for learner in (with_it, without):
            learn(learner, [task])
        assert same(with_it, without) == expected


def test_it_remembers_what_finetuning_forgets():
    accuracies = []
    for settings in ({}, PLAIN):
        config = Config(**SMALL | settings | {"epochs": 20, "lr": 0.02, "per_class": 12})
        _, result = run(ICaRLCE, config, small_stream(), threads=1, progress=False)
        old = result.labels < 4
        accuracies.append((result.predictions[-1] == result.labels)[old].mean())
    assert accuracies[0] > accuracies[1] + 0.3


@pytest.mark.parametrize("wrong", [{"per_class": 0}, {"classifier": "nearest"}, {"temperature": 0.0}])
def test_settings_that_cannot_work(wrong):
    with pytest.raises(LearnerError, match=next(iter(wrong))):
        Config(**wrong)
