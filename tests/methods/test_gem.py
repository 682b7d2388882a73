"""GEM: the quadratic program against scipy, whole runs against a slow version, the rings of the memory."""

import copy
import dataclasses
import math

import numpy as np
import pytest
import torch
from scipy.optimize import nnls
from torch.nn import functional as F

from clkit.blocks import nets
from clkit.data import ImageSet
from clkit.engine.learner import LearnerError
from clkit.engine.seeding import seed_everything
from clkit.engine.trace import Trace, copied
from clkit.errors import ClkitError
from clkit.methods.online.gem import GEM, Config, least_squares, project
from tests.fakes import small_stream
from tests.modes import DeviceFactories, HostSyncs
from tests.reference.nets import Doubles, same, small_nets  # noqa: F401  a fixture

SHAPE, CLASSES = (1, 6, 6), 6
SMALL = {"net": "tiny", "memory": 20, "batch_size": 5}


def tasks(per_class=7, kind=ImageSet):
    """Three tasks of two classes."""
    return [
        dataclasses.replace(task, train=kind(task.train.images, task.train.labels, task.train.names))
        for task in small_stream(per_class=per_class)
    ]


def made(seed=0, **settings):
    seed_everything(seed)
    return GEM(Config(**SMALL | settings), SHAPE, CLASSES)


def learned(some, double=False, record=(), seed=1, **settings):
    """A learner after these tasks, and its rows by task."""
    learner, trace, rows = made(**settings), Trace(record, progress=False), []
    learner = learner.double() if double else learner
    for task in some:
        trace.begin(learner, task.index)
        seed_everything(seed, task.index)
        learner.learn(task, trace)
        rows.append(trace.end())
    return learner, rows


# ---- the quadratic program


def gradients(kind, t, seed, size=200):
    """Gradients of t past tasks (t, D) and of a batch (D,) that conflicts with many of them, float64."""
    draw = torch.Generator("cpu").manual_seed(100 * t + seed)

    def numbers(*shape):
        return torch.randn(shape, generator=draw, dtype=torch.float64, device="cpu")

    G = numbers(t, size)
    if kind == "alike":
        G = 0.05 * G + numbers(1, size)
    if kind == "of all lengths":
        G *= 10 ** (-6 * torch.rand(t, 1, generator=draw, dtype=torch.float64, device="cpu"))
    if kind == "dependent":
        G[t // 2 :] = G[: t - t // 2].clone()
    if kind == "some zero":
        G[::3] = 0
    return numbers(size) - G.sum(0) * torch.rand(1, generator=draw, dtype=torch.float64, device="cpu"), G


def by_scipy(g, G, margin):
    """The new gradient by non-negative least squares: the shortest g + G' (margin + v), v >= 0."""
    start = (g + margin * G.sum(0)).numpy()
    v, _ = nnls(G.T.numpy(), -start, maxiter=10_000)
    return torch.from_numpy(start + (G.T.numpy() @ v))


KINDS = ("usual", "alike", "of all lengths", "dependent", "some zero")


@pytest.mark.parametrize("margin", [0.0, 0.5])
@pytest.mark.parametrize("t", [1, 2, 4, 9, 19])
@pytest.mark.parametrize("kind", KINDS)
def test_the_projection_against_scipy(kind, t, margin):
    violated = 0
    for seed in range(5):
        g, G = gradients(kind, t, seed)
        found, count = project(g, G, margin)
        violated += bool(count)
        expected = by_scipy(g, G, margin) if int(count) else g
        assert (found - expected).norm() < 1e-9 * g.norm()
        assert int(count) == int((G @ g < 0).sum())
    assert violated or (kind, t) == ("some zero", 1)


@pytest.mark.parametrize("kind", KINDS)
def test_the_solution_is_one_by_its_conditions(kind):
    """v >= 0, gradient P v + c >= 0, and their product is 0."""
    for seed in range(5):
        g, G = gradients(kind, 9, seed)
        P, c = G @ G.T, G @ g
        v = least_squares(P, c)
        length = P.diagonal().sqrt().clamp(min=1e-300)
        scale = (c / length).abs().max()
        gradient, v = (P @ v + c) / length / scale, v * length / scale
        assert v.min() >= 0 and gradient.min() > -1e-8
        assert (v * gradient).abs().max() < 1e-8


def test_one_past_task_by_hand():
    """A-GEM's formula: remove the component against g_1; the margin adds at least half of g_1."""
    g, G = torch.tensor([1.0, -2.0], dtype=torch.float64), torch.tensor([[0.0, 0.5]], dtype=torch.float64)
    assert project(g, G)[0].tolist() == pytest.approx([1, 0], abs=1e-9)
    assert project(g, G, 0.5)[0].tolist() == pytest.approx([1, 0], abs=1e-9), "v is 4 without it"
    assert project(g, G, 6.0)[0].tolist() == pytest.approx([1, 1], abs=1e-9)
    assert int(project(g, G)[1]) == 1


def test_a_gradient_that_hurts_no_task_is_kept_bit_for_bit():
    g, G = gradients("usual", 4, 0)
    G = torch.where((G @ g < 0)[:, None], -G, G)
    for kind in (torch.float64, torch.float32):
        found, count = project(g.to(kind), G.to(kind), 0.5)
        assert torch.equal(found, g.to(kind)) and int(count) == 0


@pytest.mark.parametrize("kind", KINDS)
def test_single_precision_and_many_weights(kind):
    """More weights than fit one chunk; up to rounding, the result hurts no task."""
    g, G = gradients(kind, 5, 1, size=150_000)
    found, _ = project(g.float(), G.float(), 0.0)
    expected = by_scipy(g.float().double(), G.float().double(), 0.0)
    assert found.dtype == torch.float32 and (found - expected).norm() < 1e-4 * g.norm()
    assert (F.normalize(G) @ found.double() / g.norm()).min() > -1e-4


def test_tasks_without_a_gradient_do_no_harm():
    g, G = gradients("usual", 4, 0)
    assert torch.equal(project(g, torch.zeros_like(G), 0.5)[0], g)
    G[2] = 0
    assert (project(g, G)[0] - project(g, G[[0, 1, 3]])[0]).norm() < 1e-9


# ---- whole runs against a slow version


class Slow:
    """The algorithm with lists as memory and scipy for the quadratic program."""

    def __init__(self, config):
        self.config, self.net = config, nets.build(config.net, SHAPE, CLASSES).double()
        self.rings, self.old, self.violated = [[] for _ in range(CLASSES)], [], []
        self.share = config.memory // CLASSES

    def gradient(self, x, y):
        self.net.zero_grad()
        F.cross_entropy(self.net(x * 2 - 1 if self.config.centred else x), y).backward()
        return torch.cat([p.grad.flatten() for p in self.net.parameters()])

    def learn(self, task):
        config = self.config
        for step, (x, y) in enumerate(task.train.batches(config.batch_size, epochs=config.epochs)):
            G = []
            for classes in self.old:
                pairs = [(self.rings[c][i], c) for c in classes for i in range(len(self.rings[c]))]
                images, labels = zip(*pairs)
                G.append(self.gradient(torch.stack(images).double() / 255, torch.tensor(labels)))
            g = self.gradient(x, y)
            self.violated.append(sum(float(g @ other) < 0 for other in G))
            if self.violated[-1]:
                g = by_scipy(g, torch.stack(G), config.margin)
            weights = list(self.net.parameters())
            with torch.no_grad():
                for p, part in zip(weights, g.split([p.numel() for p in weights]), strict=True):
                    p -= config.lr * part.view_as(p)
            if step < math.ceil(len(task.train) / config.batch_size):
                for image, label in zip(x, y.tolist(), strict=True):
                    image = (image * 255).round().to(torch.uint8)
                    self.rings[label] = [*self.rings[label], image][-self.share :]
        self.old.append(range(task.first, task.seen))


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"margin": 0.0},
        {"margin": 3.0},
        {"centred": True},
        {"memory": 6},
        {"memory": 100},
        {"epochs": 2},
        {"batch_size": 14},
        {"lr": 0.5, "batch_size": 3},
        {"net": "norm"},
        {"net": "norm", "margin": 0.0, "epochs": 2},
    ],
)
def test_a_stream_is_learned_as_by_the_slow_run(settings):
    learner, rows = learned(tasks(kind=Doubles), double=True, record="*", **settings)
    seed_everything(0)
    slow = Slow(learner.config)
    for task in tasks(kind=Doubles):
        seed_everything(1, task.index)
        slow.learn(task)
    torch.testing.assert_close(learner.net.state_dict(), slow.net.state_dict(), rtol=1e-6, atol=1e-6)
    violated = [int(v) for found in rows for v in found["loss"]["violated"]]
    assert violated == slow.violated and any(violated)
    for label, ring in enumerate(slow.rings):
        kept = learner.memory.images[label][: len(ring)].flatten(1).tolist()
        assert sorted(kept) == sorted(torch.stack(ring).flatten(1).tolist())


def test_running_statistics_meet_past_tasks_first_and_then_the_batch():
    learner, _ = learned(tasks(kind=Doubles)[:2], double=True, net="norm", batch_size=100)
    assert int(learner.net.norm.num_batches_tracked) == 1 + 2
    twin = copy.deepcopy(learner)
    learner.learn(tasks(kind=Doubles)[2], Trace())
    for x in (twin.memory.images[0:2, :3], twin.memory.images[2:4, :3], tasks()[2].train.images):
        twin.net(x.reshape(-1, *SHAPE).double() / 255)
    torch.testing.assert_close(learner.net.norm.running_mean, twin.net.norm.running_mean)
    torch.testing.assert_close(learner.net.norm.running_var, twin.net.norm.running_var)


# ---- beside plain training


@pytest.mark.parametrize("settings", [{}, {"net": "norm"}, {"centred": True}])
def test_the_first_task_is_plain_gradient_descent(settings):
    learner, _ = learned(tasks()[:1], **settings)
    twin = made(**settings)
    seed_everything(1, 0)
    sgd = torch.optim.SGD(twin.net.parameters(), lr=0.1)
    for x, y in tasks()[0].train.batches(twin.config.batch_size, epochs=twin.config.epochs):
        sgd.zero_grad()
        F.cross_entropy(twin.net(2 * x - 1 if twin.config.centred else x), y).backward()
        sgd.step()
    assert same(learner, twin)


def test_the_first_step_of_the_second_task_is_another():
    """One batch holds all images, so a task is one step; to first order, it does not hurt the past task."""
    learner, _ = learned(tasks()[:1], batch_size=100, margin=0.0)
    before, twin, task = copy.deepcopy(learner), copy.deepcopy(learner), tasks()[1]
    past = learner.gradients([remembered(learner, 0)])[0]
    seed_everything(1, 1)
    learner.learn(task, Trace())
    seed_everything(1, 1)
    ((x, y),) = task.train.batches(learner.config.batch_size, epochs=learner.config.epochs)
    sgd = torch.optim.SGD(twin.net.parameters(), lr=0.1)
    F.cross_entropy(twin(x), y).backward()
    sgd.step()
    assert not any(torch.equal(p, q) for p, q in zip(learner.parameters(), twin.parameters(), strict=True))
    moved = [
        torch.cat(
            [(p - q).detach().flatten() for p, q in zip(one.parameters(), before.parameters(), strict=True)]
        )
        for one in (learner, twin)
    ]
    gain = [float(-(past @ way) / past.norm() / way.norm()) for way in moved]
    assert gain[1] < -0.05 and gain[0] == pytest.approx(0, abs=1e-4)


def test_the_order_of_the_batches_does_not_depend_on_what_is_drawn_between():
    found = []
    for draws in (0, 3):
        seed_everything(7)
        found.append([])
        for _, y in tasks()[0].train.batches(5, epochs=2):
            found[-1] += y.tolist()
            torch.rand(draws, device="cpu")
    assert found[0] == found[1] and len(found[0]) == 28 and found[0][:14] != found[0][14:]


# ---- the memory


def remembered(learner, t):
    return learner.memory.of(learner.memory_task == t)


def test_what_is_remembered_of_a_task():
    learner, _ = learned(tasks()[:2], memory=60)  # 10 places a class, 7 images
    for t in (0, 1):
        images, labels = remembered(learner, t)
        assert labels.tolist() == [2 * t] * 7 + [2 * t + 1] * 7
        train = tasks()[t].train
        assert sorted(images.flatten(1).tolist()) == sorted(train.images.flatten(1).tolist())
    assert len(remembered(learner, 2)[0]) == 0
    assert learner.memory_task.tolist() == [0, 0, 1, 1, -1, -1]


def test_gradients_of_tasks_are_those_of_their_mean_loss():
    learner, _ = learned(tasks()[:2])
    memories = [remembered(learner, t) for t in (0, 1)]
    G = learner.gradients(memories)
    for row, (images, labels) in zip(G, memories, strict=True):
        each = [
            torch.cat(
                [
                    s.flatten()
                    for s in torch.autograd.grad(
                        F.cross_entropy(learner(x[None] / 255), y[None]), list(learner.parameters())
                    )
                ]
            )
            for x, y in zip(images, labels)
        ]
        torch.testing.assert_close(row, torch.stack(each).mean(0), rtol=1e-4, atol=1e-6)
    assert all(p.grad is not None for p in learner.parameters()), "those of the last step"


# ---- settings, records, resuming


@pytest.mark.parametrize(
    "wrong, word",
    [
        ({"memory": 0}, "memory"),
        ({"epochs": 0}, "epochs"),
        ({"batch_size": 0}, "batch"),
        ({"lr": 0.0}, "lr"),
        ({"lr": math.inf}, "lr"),
        ({"margin": -0.1}, "margin"),
        ({"margin": math.nan}, "margin"),
    ],
)
def test_settings_that_cannot_work_are_refused(wrong, word):
    with pytest.raises(LearnerError, match=word):
        Config(**wrong)


def test_a_memory_without_room_for_each_class_is_refused():
    made(memory=6)
    with pytest.raises(ClkitError, match="memory=5 .* 6 classes"):
        made(memory=5)


def test_defaults():
    c = Config()
    assert (c.memory, c.margin, c.batch_size, c.epochs, c.lr, c.centred) == (200, 0.5, 10, 1, 0.1, False)


def test_tables():
    """14 images per task make 3 batches; 3 places per class."""
    _, rows = learned(tasks(), record="*")
    for task, found in enumerate(rows):
        assert found.keys() == GEM.tables.keys() and found["loss"]["step"].tolist() == [0, 1, 2]
        assert (np.array(found["loss"]["loss"]) > 0).all()
        assert 0 <= min(found["loss"]["violated"]) and max(found["loss"]["violated"]) <= task
        assert found["memory"]["counts"].tolist() == [[3] * (2 * task + 2) + [0] * (4 - 2 * task)]
    assert sum(found["loss"]["violated"].sum() for found in rows) > 0


def test_bytes_kept():
    kept = made().memory_bytes()
    assert kept == {"weights": 4 * (37 * 9 + 10 * 7 + 8 * 6), "exemplars": 18 * 36 + 6 * (8 + 8)}
    assert GEM.stores_images


def test_scores():
    x = torch.rand(4, *SHAPE, device="cpu")
    plain, centred = made(), made(centred=True)
    assert plain(x).shape == (4, 6) and torch.equal(plain(x), plain.net(x))
    assert torch.equal(centred(x), plain.net(2 * x - 1))


def second_task(state=None, start=None, **settings):
    """(learner after the second task, states that its trace saved, rows, state before the task)."""
    learner, saved = made(**settings), []
    if start is None:
        learner.learn(tasks()[0], Trace())
        start = learner.snapshot()
    else:
        learner.restore(start)
    trace = Trace("*", save=lambda s: saved.append(copied(s)), every=0.0, progress=False)
    trace.begin(learner, 1, state=state)
    seed_everything(5)
    learner.learn(tasks()[1], trace)
    return learner, saved, trace.end(), start


@pytest.mark.parametrize("settings", [{}, {"net": "norm", "epochs": 2}])
def test_a_stopped_task_resumes_exactly(settings):
    whole, saved, rows, start = second_task(**settings)
    assert len(saved) == 3 * settings.get("epochs", 1)
    for state in saved[:-1]:
        again, _, more, _ = second_task(state, start, **settings)
        assert all(torch.equal(v, again.state_dict()[k]) for k, v in whole.state_dict().items())
        for table, columns in rows.items():
            for name, values in columns.items():
                assert torch.equal(torch.as_tensor(values), torch.as_tensor(more[table][name]))


@pytest.mark.parametrize("settings", [{}, {"net": "norm", "centred": True}])
def test_steps_wait_for_no_value_and_make_tensors_on_their_device(settings):
    """A task of ten batches transfers as many values to the host as a task of five: those at its start."""
    counts = []
    for n in (5, 10):
        learner = made(**settings | {"batch_size": 2})
        with HostSyncs() as syncs, DeviceFactories() as factories:
            for task in tasks(n)[:2]:
                learner.learn(task, Trace("loss"))
        counts.append(syncs.total)
        assert factories.found == []
    assert counts[0] == counts[1]


@pytest.mark.parametrize("margin", [0.0, 0.5])
def test_gem_remembers(margin, monkeypatch):
    """Without the projection, the same batches leave only the last task."""
    right, test = [], small_stream(per_class=100).test
    for guard in (GEM.guard, lambda learner, G: 0):
        monkeypatch.setattr(GEM, "guard", guard)
        learner, _ = learned(tasks(100), net="small", batch_size=10, memory=60, margin=margin)
        ((x, y),) = test.batches(len(test), shuffle=False)
        right.append(float((learner(x).argmax(1) == y).double().mean()))
    assert right[0] > 0.8 > 0.6 > right[1]
