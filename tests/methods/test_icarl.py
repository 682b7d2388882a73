"""iCaRL: herding, class means and targets against their definitions; the memory; finetuning."""

import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from clkit.blocks import nets
from clkit.engine.learner import LearnerError
from clkit.engine.run import run
from clkit.engine.seeding import seed_everything
from clkit.engine.trace import Trace
from clkit.errors import ClkitError
from clkit.methods.baselines.icarl import Config, ICaRL
from tests.fakes import small_stream
from tests.reference.memory import class_means, herd_by_hand, phi
from tests.reference.nets import same

SHAPE, CLASSES = (1, 6, 6), 6
SMALL = {"memory": 20, "batch_size": 16, "epochs": 2}
PLAIN = {"distil": False, "replay": False, "classifier": "network"}


def build(seed=0, **settings):
    seed_everything(seed)
    return ICaRL(Config(**SMALL | settings), SHAPE, CLASSES)


def learn(learner, stream, tasks, seed=1, record="*"):
    """The rows of the last of these tasks."""
    trace = Trace(record=record)
    for task in (stream[t] for t in tasks):
        trace.begin(learner, task.index)
        seed_everything(seed, task.index)
        learner.learn(task, trace)
        rows = trace.end()
    return rows


# ---- the memory


def test_exemplars_are_herded_from_the_trained_network():
    stream, learner = small_stream(), build()
    learn(learner, stream, [0, 1])
    task = stream[1]
    for label in (2, 3):
        own = task.train.images[task.train.labels == label]
        expected = own[herd_by_hand(phi(learner.net, own), 5)]
        assert torch.equal(learner.memory.images[learner.memory.labels == label], expected)


def test_old_classes_keep_their_first_exemplars():
    stream, learner = small_stream(), build()
    learn(learner, stream, [0])
    first = {c: learner.memory.images[learner.memory.labels == c] for c in (0, 1)}
    assert [len(v) for v in first.values()] == [10, 10]
    learn(learner, stream, [1, 2])
    for label, images in first.items():
        assert torch.equal(learner.memory.images[learner.memory.labels == label], images[:3])
    assert learner.memory.labels.tolist() == [c for c in range(6) for _ in range(3)]


@pytest.mark.parametrize(
    "memory, shares", [(20, (10, 5, 3)), (6, (3, 1, 1)), (100, (24, 24, 16)), (1000, (24, 24, 24))]
)
def test_the_budget_is_shared_equally(memory, shares):
    """Every class has its share, rounded down, or all of its 24 images."""
    config = Config(**SMALL | {"memory": memory, "epochs": 1})
    learner, result = run(ICaRL, config, small_stream(), record="*", threads=1, progress=False)
    counts = result.trace["memory"]["counts"]
    assert counts.tolist() == [
        [share if c < seen else 0 for c in range(6)] for share, seen in zip(shares, (2, 4, 6), strict=True)
    ]
    assert counts.sum(1).max() <= memory
    assert result.memory_bytes["exemplars"].tolist() == [n * (36 + 8) for n in counts.sum(1)]
    assert result.memory_bytes["features"].tolist() == [seen * 400 * 4 for seen in (2, 4, 6)]
    assert learner.memory.images.dtype == torch.uint8


def test_exemplars_are_trained_on():
    """An epoch of the second task has its 48 images and 20 exemplars, as does an epoch of the third."""
    drawn = run(ICaRL, Config(**SMALL), small_stream(), threads=1, progress=False)[1].n_samples
    assert drawn.tolist() == [2 * 48, 2 * (48 + 20), 2 * (48 + 20)]


# ---- the loss


def test_a_step_by_hand(monkeypatch):
    """New images and exemplars of the second task in one step: sum over classes, mean over images."""
    monkeypatch.setattr(torch.optim, "Adam", lambda p, lr, fused: torch.optim.SGD(p, lr))
    stream, learner = small_stream(), build(batch_size=100, epochs=1, lr=0.1)
    learn(learner, stream, [0])
    twin = nets.build("mlp", SHAPE, CLASSES)
    twin.load_state_dict(learner.net.state_dict())
    x = torch.cat([stream[1].train.images, learner.memory.images]) / 255
    y = [*stream[1].train.labels.tolist(), *learner.memory.labels.tolist()]
    logits = twin(x)
    parts = {"new": 0.0, "old": 0.0}
    for row, label in zip(logits, y, strict=True):
        for c in range(4):
            p = 1 / (1 + (-row[c]).exp())
            t = 1 / (1 + math.exp(-float(row[c].detach()) / 2)) if c < 2 else float(c == label)
            parts["old" if c < 2 else "new"] -= (t * p.log() + (1 - t) * (1 - p).log()) / len(y)
    loss = parts["new"] + parts["old"]
    loss.backward()
    with torch.no_grad():
        for p in twin.parameters():
            p -= 0.1 * (0 if p.grad is None else p.grad)
    rows = learn(learner, stream, [1])["loss"]
    torch.testing.assert_close(learner.net.state_dict(), twin.state_dict())
    found = {name: rows[name][0] for name in ("loss", "new", "old")}
    expected = {"loss": loss.item(), **{name: value.item() for name, value in parts.items()}}
    assert found == pytest.approx(expected, rel=1e-5)


# ---- beside finetuning


def finetune(net, stream, seed, epochs=2):
    """Plain training with the same loss, without protection against forgetting."""
    for task in stream:
        seed_everything(seed, task.index)
        optimizer = torch.optim.Adam(net.parameters(), lr=1e-3, fused=True)
        for _ in range(epochs):
            for x, y in task.train.batches(16):
                target = torch.eye(CLASSES, device="cpu")[y, : task.seen]
                loss = F.binary_cross_entropy_with_logits(net(x)[:, : task.seen], target, reduction="none")
                optimizer.zero_grad()
                loss.sum(1).mean().backward()
                optimizer.step()


def test_without_its_parts_it_is_finetuning():
    learner, twin = build(**PLAIN), build(**PLAIN)
    learn(learner, small_stream(), range(3), seed=8)
    finetune(twin.net, small_stream(), seed=8)
    assert same(learner, twin)
    x = torch.rand(5, *SHAPE, device="cpu")
    assert torch.equal(learner(x), twin.net(x)), "the network itself answers"


@pytest.mark.parametrize("part", ["distil", "replay"])
def test_each_part_matters_from_the_first_step_of_the_second_task(part):
    """One batch holds all images, so the task is one step."""
    settings = PLAIN | {"batch_size": 100, "epochs": 1}
    with_it, without = build(**settings | {part: True}), build(**settings)
    for task, expected in ((0, True), (1, False)):
        for learner in (with_it, without):
            learn(learner, small_stream(), [task])
        assert same(with_it, without) == expected


def test_it_remembers_what_finetuning_forgets():
    accuracies = []
    for settings in ({}, PLAIN):
        config = Config(**SMALL | settings | {"epochs": 10})
        _, result = run(ICaRL, config, small_stream(), threads=1, progress=False)
        old = np.isin(result.labels, [0, 1, 2, 3])
        accuracies.append((result.predictions[-1] == result.labels)[old].mean())
    assert accuracies[0] > accuracies[1] + 0.3


# ---- the classifier


def test_the_nearest_mean_against_the_definition():
    stream, learner = small_stream(), build()
    learn(learner, stream, [0, 1])
    x, _ = next(iter(stream.test.batches(40)))
    features = phi(learner.net, learner.memory.images)
    means = class_means(features, learner.memory.labels.tolist(), 4)
    distances = [[math.dist(f, mu) ** 2 for mu in means] for f in phi(learner.net, x * 255)]
    logits = learner(x)
    torch.testing.assert_close(logits[:, :4], -torch.tensor(distances, device="cpu"), rtol=1e-4, atol=1e-5)
    assert logits[:, :4].argmax(1).tolist() == [row.index(min(row)) for row in distances]


def test_scores_of_classes_without_a_mean():
    """Before any task, the network orders all classes; later, new classes come after all others."""
    learner, x = build(), torch.rand(9, *SHAPE, device="cpu")
    logits = learner(x)
    assert logits.shape == (9, 6) and torch.equal(logits.argsort(1), learner.net(x).argsort(1))
    learn(learner, small_stream(), [0])
    logits = learner(x)
    assert logits.shape == (9, 6) and logits.isfinite().all() and logits[:, :2].min() >= -4 - 1e-5
    assert logits[:, 2:].max() < -5
    assert torch.equal(logits[:, 2:].argsort(1), learner.net(x)[:, 2:].argsort(1))


class Wavering(nn.Module):
    """A network whose features change from call to call in training mode."""

    def __init__(self, shape, classes):
        super().__init__()
        self.body, self.head = nn.Linear(36, 9), nn.Linear(9, classes)

    def features(self, x):
        return F.dropout(F.relu(self.body(x.flatten(1))), 0.5, self.training)

    def forward(self, x):
        return self.head(self.features(x))


def test_means_are_taken_in_evaluation_mode(monkeypatch):
    monkeypatch.setitem(nets.NETS, "wavering", Wavering)
    learner = build(net="wavering")
    learn(learner, small_stream(), [0])
    assert learner.training and learner.net.training
    learner.eval()
    with torch.no_grad():
        features = F.normalize(learner.net.features(learner.memory.images / 255))
    expected = torch.stack([F.normalize(features[learner.memory.labels == c].mean(0), dim=0) for c in (0, 1)])
    torch.testing.assert_close(learner.memory.means, expected)


# ---- settings


@pytest.mark.parametrize(
    "wrong",
    [
        {"epochs": 0},
        {"batch_size": 0},
        {"lr": 0.0},
        {"memory": 0},
        {"classifier": "nearest"},
        {"temperature": 0.0},
    ],
)
def test_settings_that_cannot_work(wrong):
    with pytest.raises(LearnerError, match=next(iter(wrong))):
        Config(**wrong)


def test_a_memory_without_room_for_each_class_is_refused():
    build(memory=6)
    with pytest.raises(ClkitError, match="memory=5 .* 6 classes"):
        build(memory=5)
