"""iCaRL online: herding, class means and steps against their definitions; the memory; plain training."""

import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from clkit.blocks import nets
from clkit.data import ImageSet
from clkit.engine.learner import LearnerError
from clkit.engine.seeding import seed_everything
from clkit.engine.trace import Trace, copied
from clkit.errors import ClkitError
from clkit.methods.online.icarl import Config, OnlineICaRL
from tests.fakes import small_stream
from tests.modes import DeviceFactories, HostSyncs
from tests.reference.memory import class_means, herd_by_hand, phi
from tests.reference.nets import same, small_nets  # noqa: F401  a fixture

SHAPE, CLASSES = (1, 6, 6), 6
SMALL = {"net": "tiny", "memory": 20, "batch_size": 16, "replay_size": 5, "updates": 2}
PLAIN = {"distil": False, "replay_size": 0, "classifier": "network"}


def build(seed=0, **settings):
    seed_everything(seed)
    return OnlineICaRL(Config(**SMALL | settings), SHAPE, CLASSES)


def learn(learner, stream, tasks, seed=1, record="*"):
    """The learner's tables for the last of these tasks."""
    trace = Trace(record=record, progress=False)
    for t in tasks:
        trace.begin(learner, t)
        seed_everything(seed, t)
        learner.train()
        learner.learn(stream[t], trace)
        rows = trace.end()
    return rows


# ---- herding and the memory


@pytest.mark.parametrize("net", ["tiny", "norm"])
def test_exemplars_are_herded_from_the_network_at_the_end_of_the_task(net):
    stream, learner = small_stream(), build(net=net)
    learn(learner, stream, [0, 1])
    assert learner.training and learner.net.training
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
def test_the_memory_is_a_total_that_classes_share_equally(memory, shares):
    """Every class has its share, rounded down, or all of its 24 images; also the bytes kept."""
    stream, learner = small_stream(), build(memory=memory)
    weights = 4 * sum(p.numel() for p in learner.parameters())
    for t, share in enumerate(shares):
        rows, seen = learn(learner, stream, [t]), 2 * t + 2
        assert rows["memory"]["counts"].tolist() == [[share if c < seen else 0 for c in range(6)]]
        assert seen * share <= memory and learner.memory.images.dtype == torch.uint8
        assert learner.memory_bytes() == {
            "weights": weights,
            "exemplars": seen * share * (36 + 8),
            "features": seen * 7 * 4,
        }
    assert learner.stores_images


# ---- a step


def test_exemplars_come_behind_the_batch():
    stream, learner = small_stream(), build(replay_size=400)
    x, y = next(iter(stream[1].train.batches(4)))
    assert all(a is b for a, b in zip(learner.with_exemplars(x, y), (x, y), strict=True)), (
        "there are none yet"
    )
    learn(learner, stream, [0])
    both, labels = learner.with_exemplars(x, y)
    assert torch.equal(both[:4], x) and torch.equal(labels[:4], y) and both.shape == (404, *SHAPE)
    match = (both[4:, None] == learner.memory.images[None] / 255).flatten(2).all(2)  # (400, 20)
    assert match.any(0).all(), "each of the exemplars is drawn"
    assert torch.equal(labels[4:], learner.memory.labels[match.int().argmax(1)])
    assert not torch.equal(learner.with_exemplars(x, y)[1], labels), "each time anew"


@pytest.mark.parametrize("distil", [True, False])
def test_updates_by_hand(distil):
    """Two updates on a task of one batch: each sums over classes and averages over images; the old network
    is frozen."""
    stream, learner = small_stream(), build(batch_size=100, distil=distil)
    learn(learner, stream, [0])
    twin, old = (nets.build("tiny", SHAPE, CLASSES) for _ in range(2))
    for net in (twin, old):
        net.load_state_dict(learner.net.state_dict())
    drawn, draw = [], learner.with_exemplars

    def watched(x, y):
        drawn.append(draw(x, y))
        return drawn[-1]

    learner.with_exemplars = watched
    rows, losses = learn(learner, stream, [1]), []
    assert len(drawn) == 2 and [len(x) for x, _ in drawn] == [48 + 5] * 2
    for x, y in drawn:
        loss, before = 0.0, old(x).tolist()
        for row, label, teacher in zip(twin(x), y.tolist(), before, strict=True):
            for c in range(4):
                p = 1 / (1 + (-row[c]).exp())
                t = 1 / (1 + math.exp(-teacher[c] / 2)) if distil and c < 2 else float(c == label)
                loss = loss - (t * p.log() + (1 - t) * (1 - p).log()) / len(y)
        twin.zero_grad()
        loss.backward()
        losses.append(loss.item())
        with torch.no_grad():
            for p in twin.parameters():
                p -= 0.1 * p.grad
    torch.testing.assert_close(learner.net.state_dict(), twin.state_dict(), rtol=1e-4, atol=1e-5)
    assert rows["loss"]["loss"].tolist() == pytest.approx([sum(losses) / 2], rel=1e-5)


# ---- beside plain training


def plain(net, stream, tasks, updates=2, epochs=1, seed=1):
    """Online training with the same loss, without protection against forgetting."""
    for task in (stream[t] for t in tasks):
        seed_everything(seed, task.index)
        sgd = torch.optim.SGD(net.parameters(), lr=0.1)
        for x, y in task.train.batches(16, epochs=epochs, reshuffle=False):
            for _ in range(updates):
                target = torch.eye(CLASSES, device="cpu")[y, : task.seen]
                loss = F.binary_cross_entropy_with_logits(net(x)[:, : task.seen], target, reduction="none")
                sgd.zero_grad()
                loss.sum(1).mean().backward()
                sgd.step()


@pytest.mark.parametrize("net, epochs", [("tiny", 1), ("norm", 2)])
def test_without_its_parts_it_is_plain_training(net, epochs):
    learner, twin = (build(net=net, epochs=epochs, **PLAIN) for _ in range(2))
    rows = learn(learner, small_stream(), range(3))
    plain(twin.net, small_stream(), range(3), epochs=epochs)
    assert same(learner, twin) and rows["loss"]["step"].tolist() == list(range(3 * epochs))
    x = torch.rand(5, *SHAPE, device="cpu")
    assert torch.equal(learner.eval()(x), twin.eval().net(x)), "the network itself answers"


@pytest.mark.parametrize("part", [{"distil": True}, {"replay_size": 5}])
def test_each_part_matters_from_the_first_step_of_the_second_task(part):
    """One batch holds all images, so the task is one step."""
    settings = PLAIN | {"batch_size": 100, "updates": 1}
    with_it, without = build(**settings | part), build(**settings)
    for task, expected in ((0, True), (1, False)):
        for learner in (with_it, without):
            learn(learner, small_stream(), [task])
        assert same(with_it, without) == expected


def test_it_remembers_what_plain_training_forgets():
    right, stream = [], small_stream(per_class=60)
    ((x, y),) = stream.test.batches(len(stream.test), shuffle=False)
    for settings in ({}, PLAIN):
        learner = build(net="small", updates=5, **settings)
        learn(learner, stream, range(3))
        right.append(float((learner.eval()(x).argmax(1) == y)[y < 4].double().mean()))
    assert right[0] > 0.7 > 0.3 > right[1]


def test_passes_over_a_task_are_in_the_same_order():
    images = small_stream()[0].train
    steps = list(images.batches(10, epochs=3, reshuffle=False))
    assert len(steps) == 15 and len(steps[4][1]) == 8
    for i in range(10):
        assert all(torch.equal(a, b) for a, b in zip(steps[i], steps[i + 5], strict=True))
    x, _ = next(iter(images.batches(10, epochs=1, reshuffle=False)))
    assert not torch.equal(steps[0][0], x), "another order each time"


# ---- the classifier


@pytest.mark.parametrize("net", ["tiny", "norm"])
def test_the_nearest_mean_against_the_definition(net):
    stream, learner = small_stream(), build(net=net)
    learn(learner, stream, [0, 1])
    x, _ = next(iter(stream.test.batches(40)))
    means = class_means(phi(learner.net, learner.memory.images), learner.memory.labels.tolist(), 4)
    distances = [[math.dist(f, mu) ** 2 for mu in means] for f in phi(learner.net, x * 255)]
    logits = learner.eval()(x)
    torch.testing.assert_close(logits[:, :4], -torch.tensor(distances, device="cpu"), rtol=1e-4, atol=1e-5)


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


# ---- settings, records, resuming


@pytest.mark.parametrize(
    "wrong",
    [
        {"epochs": 0},
        {"batch_size": 0},
        {"updates": 0},
        {"memory": 0},
        {"replay_size": -1},
        {"lr": 0.0},
        {"lr": math.nan},
        {"classifier": "nearest"},
        {"temperature": 0.0},
    ],
)
def test_settings_that_cannot_work_are_refused(wrong):
    with pytest.raises(LearnerError, match=next(iter(wrong))):
        Config(**wrong)


def test_a_memory_without_room_for_each_class_is_refused():
    build(memory=6)
    with pytest.raises(ClkitError, match="memory=5 .* 6 classes"):
        build(memory=5)


def test_tables():
    stream, learner = small_stream(), build()
    for t in range(3):
        rows = learn(learner, stream, [t])
        assert rows.keys() == OnlineICaRL.tables.keys()
        assert rows["loss"].keys() == {"task", "step", "loss"} and rows["loss"]["step"].tolist() == [0, 1, 2]
        assert (rows["loss"]["loss"] > 0).all() and rows["memory"]["counts"].shape == (1, CLASSES)


def halves(state=None, start=None, **settings):
    """(learner after the second task, states that its trace saved, rows, state before the task)."""
    learner, stream, saved = build(**settings), small_stream(), []
    if start is None:
        learner.learn(stream[0], Trace())
        start = learner.snapshot()
    else:
        learner.restore(start)
    trace = Trace("*", save=lambda s: saved.append(copied(s)), every=0.0, progress=False)
    trace.begin(learner, 1, state=state)
    seed_everything(5)
    learner.learn(stream[1], trace)
    return learner, saved, trace.end(), start


@pytest.mark.parametrize("settings", [{}, {"net": "norm", "epochs": 2}])
def test_a_stopped_task_resumes_exactly(settings):
    whole, saved, rows, start = halves(**settings)
    assert len(saved) == 3 * settings.get("epochs", 1)
    for state in (saved[0], saved[1], saved[-1]):
        again, _, more, _ = halves(state, start, **settings)
        expected = whole.state_dict()
        assert all(torch.equal(v, expected[k]) for k, v in again.state_dict().items())
        assert all(
            np.array_equal(more[table][c], v) for table, columns in rows.items() for c, v in columns.items()
        )


@pytest.mark.parametrize("net", ["tiny", "norm"])
def test_steps_wait_for_no_value_and_make_tensors_on_their_device(net):
    """Tasks with twice the batches transfer as many values to the host."""
    counts = []
    for per_class in (10, 20):
        stream, learner = small_stream(per_class=per_class), build(net=net, batch_size=4, memory=18)
        tasks = [stream[t] for t in range(2)]
        assert all(isinstance(task.train, ImageSet) for task in tasks)
        with HostSyncs() as syncs, DeviceFactories() as factories:
            for task in tasks:
                learner.learn(task, Trace("*"))
        counts.append(syncs.total)
        assert factories.found == []
    assert counts[0] == counts[1]
