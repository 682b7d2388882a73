"""MIR against a slow run with lists and network copies; which images it draws, chooses and keeps."""

import copy
import dataclasses
import math

import pytest
import torch
from torch.nn import functional as F

from clkit.blocks import nets
from clkit.data import ImageSet
from clkit.engine.learner import LearnerError
from clkit.engine.seeding import seed_everything
from clkit.engine.trace import Trace, copied
from clkit.methods.online.mir import MIR, Config
from tests.fakes import small_stream
from tests.modes import DeviceFactories, HostSyncs
from tests.reference.memory import ListReservoir
from tests.reference.nets import Doubles, same, small_nets  # noqa: F401  a fixture

SHAPE, CLASSES = (1, 6, 6), 6
SMALL = {"net": "tiny", "memory": 12, "replay_size": 3, "n_candidates": 8, "batch_size": 5}
MOST = {"choose": "interfered"}


def tasks(per_class=7, kind=ImageSet):
    """Three tasks of two classes."""
    return [
        dataclasses.replace(task, train=kind(task.train.images, task.train.labels, task.train.names))
        for task in small_stream(per_class=per_class)
    ]


def made(seed=0, **settings):
    seed_everything(seed)
    return MIR(Config(**SMALL | settings), SHAPE, CLASSES)


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


def filled(size=12, **settings):
    """A learner in double precision with `size` stored images of classes 0 to 5 and a batch's gradients."""
    learner = made(memory=size, **settings).double()
    draw = torch.Generator("cpu").manual_seed(3)
    with torch.no_grad():
        for p in learner.parameters():
            p += 0.3 * torch.randn(p.shape, generator=draw, dtype=p.dtype, device="cpu")
    learner.memory.images.copy_(torch.randint(256, learner.memory.images.shape, generator=draw, device="cpu"))
    learner.memory.labels.copy_(torch.arange(size, device="cpu") % CLASSES)
    learner.memory.n_seen.fill_(size)
    x = torch.rand(5, *SHAPE, generator=draw, dtype=torch.float64, device="cpu")
    F.cross_entropy(learner(x), torch.tensor([4, 5, 4, 4, 5], device="cpu")).backward()
    return learner


# ---- whole runs against a slow version


class Slow:
    """The algorithm with a list as memory and a copy of the network for the virtual step."""

    def __init__(self, config):
        self.config, self.net = config, nets.build(config.net, SHAPE, CLASSES).double()
        self.reservoir = ListReservoir(config.memory)  # extra: lowest loss
        self.memory = self.reservoir.memory
        self.sgd = torch.optim.SGD(self.net.parameters(), lr=config.lr)

    def losses(self, net, x, y):
        return F.cross_entropy(net(x * 2 - 1 if self.config.centred else x), y, reduction="none")

    def learn(self, task):
        config = self.config
        for step, (x, y) in enumerate(task.train.batches(config.batch_size, epochs=config.epochs)):
            for _ in range(config.updates):
                self.update(x, y, task.first)
            if step < math.ceil(len(task.train) / config.batch_size):
                self.reservoir.add(x, y, math.log(CLASSES))

    def update(self, x, y, first):
        config = self.config
        self.sgd.zero_grad()
        self.losses(self.net, x, y).mean().backward()
        if first:
            ask = config.n_candidates if config.choose == "interfered" else config.replay_size
            keys = torch.rand(config.memory, device="cpu").tolist()
            past = sorted(
                (key, place)
                for key, place in zip(keys[: len(self.memory)], range(10**6))
                if self.memory[place][1] < first
            )
            found = [place for _, place in past][:ask]
            if config.choose == "interfered":
                found = self.interfered(found)
                ask = config.replay_size
            if found:
                weight = torch.tensor([i < len(found) for i in range(min(ask, config.memory))]).double()
                (self.losses(self.net, *self.images(found, ask)) @ weight / len(found)).backward()
        self.sgd.step()

    def images(self, places, ask):
        """Filled up with the same once more, which only batch normalisation can tell."""
        places = [places[i % len(places)] for i in range(min(ask, self.config.memory))]
        return (
            torch.stack([self.memory[p][0] for p in places]).double() / 255,
            torch.tensor([self.memory[p][1] for p in places], device="cpu"),
        )

    def interfered(self, places):
        if not places:
            return []
        x, y = self.images(places, self.config.n_candidates)
        virtual = copy.deepcopy(self.net)
        for p, q in zip(virtual.parameters(), self.net.parameters(), strict=True):
            p.data = p.data - self.config.lr * q.grad
        before = self.losses(self.net, x, y).tolist()
        after = self.losses(virtual, x, y).tolist()
        scores = []
        for place, early, late in zip(places, before, after):
            if self.config.before == "best":
                early = self.memory[place][2] = min(early, self.memory[place][2])
            scores.append((early - late, place))
        return [place for _, place in sorted(scores)[: self.config.replay_size]]


@pytest.mark.parametrize(
    "settings",
    [
        {},
        MOST,
        MOST | {"before": "now"},
        {"updates": 3},
        MOST | {"updates": 2, "epochs": 2},
        {"centred": True},
        MOST | {"centred": True, "lr": 0.3},
        {"memory": 4, "replay_size": 9},
        MOST | {"memory": 40, "n_candidates": 40},
        MOST | {"memory": 7, "n_candidates": 50},
        {"net": "norm", "memory": 20},
        MOST | {"net": "norm", "memory": 20},
        MOST | {"net": "norm", "before": "now", "updates": 2},
    ],
)
def test_a_stream_is_learned_as_by_the_slow_run(settings):
    learner, _ = learned(tasks(kind=Doubles), double=True, **settings)
    seed_everything(0)
    slow = Slow(learner.config)
    for task in tasks(kind=Doubles):
        seed_everything(1, task.index)
        slow.learn(task)
    torch.testing.assert_close(learner.net.state_dict(), slow.net.state_dict(), rtol=1e-9, atol=1e-9)
    count, memory = len(slow.memory), slow.memory
    assert torch.equal(learner.memory.images[:count], torch.stack([image for image, _, _ in memory]))
    assert learner.memory.labels.tolist() == [m[1] for m in memory] + [-1] * (learner.config.memory - count)
    assert int(learner.memory.n_seen) == slow.reservoir.n_seen == 42
    if learner.memory_lowest is not None:
        assert learner.memory_lowest[:count].tolist() == pytest.approx([low for _, _, low in memory])


# ---- beside plain training


@pytest.mark.parametrize("settings", [{}, MOST, {"net": "norm"}, {"centred": True}])
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


@pytest.mark.parametrize("settings", [{}, MOST])
def test_replay_changes_the_first_step_of_the_second_task(settings):
    """One batch holds all images, so the task is one step."""
    learner, _ = learned(tasks()[:1], batch_size=100, **settings)
    twin = copy.deepcopy(learner)
    task = tasks()[1]
    seed_everything(1, 1)
    learner.learn(task, Trace())
    ((x, y),) = task.train.batches(learner.config.batch_size, epochs=learner.config.epochs)
    sgd = torch.optim.SGD(twin.net.parameters(), lr=0.1)
    F.cross_entropy(twin(x), y).backward()
    sgd.step()
    assert not any(torch.equal(p, q) for p, q in zip(learner.parameters(), twin.parameters(), strict=True))


def test_without_images_of_earlier_tasks_nothing_is_replayed():
    learner = filled(**MOST)
    learner.memory.labels.fill_(5)
    twin, x, y = copy.deepcopy(learner), torch.rand(5, *SHAPE).double(), torch.tensor([4, 5, 4, 4, 5])
    for one, first in ((learner, 4), (twin, 0)):
        _, replay = one.update(torch.optim.SGD(one.parameters(), lr=0.1), x, y, first)
        assert float(replay) == 0
    assert same(learner, twin) and torch.equal(learner.memory_lowest, twin.memory_lowest)


def test_where_there_is_no_choice_the_most_interfered_are_all():
    settings = {"memory": 10, "replay_size": 10}
    a, _ = learned(tasks(kind=Doubles), double=True, **settings)
    b, _ = learned(tasks(kind=Doubles), double=True, **settings | MOST | {"n_candidates": 10})
    torch.testing.assert_close(a.net.state_dict(), b.net.state_dict(), rtol=1e-10, atol=1e-10)
    c, _ = learned(
        tasks(kind=Doubles), double=True, **settings | MOST | {"n_candidates": 10, "replay_size": 3}
    )
    assert not same(b, c)


# ---- what is chosen


@pytest.mark.parametrize("before", ["now", "best"])
@pytest.mark.parametrize("count", [3, 7, 8])
def test_the_most_interfered_by_brute_force(before, count):
    """Each candidate alone, in a copy of the network after the step."""
    learner = filled(before=before, lr=0.5, **MOST)
    lowest = torch.linspace(0.5, 3, 12, dtype=torch.float64, device="cpu")
    if before == "best":
        learner.memory_lowest.copy_(lowest)
    state = copy.deepcopy(learner.state_dict())
    gradients = [p.grad.clone() for p in learner.parameters()]
    virtual = copy.deepcopy(learner)
    with torch.no_grad():
        for p, gradient in zip(virtual.parameters(), gradients, strict=True):
            p -= 0.5 * gradient
    places = [0, 1, 2, 3, 6, 7, 8, 9][:count]
    damage, now = {}, {}
    for place in places:
        x, y = learner.memory.images[[place]].double() / 255, learner.memory.labels[[place]]
        now[place] = float(F.cross_entropy(learner(x), y).detach())
        early = min(now[place], float(lowest[place])) if before == "best" else now[place]
        damage[place] = float(F.cross_entropy(virtual(x), y).detach()) - early
    asked = torch.tensor([places[i % count] for i in range(8)], device="cpu")
    found, valid = learner.interfered(asked, torch.arange(8, device="cpu") < count)
    assert found.tolist() == sorted(damage, key=damage.get, reverse=True)[:3] and valid.all()
    if before == "best":
        expected = [min(float(lowest[p]), now.get(p, math.inf)) for p in range(12)]
        assert learner.memory_lowest.tolist() == pytest.approx(expected)
        state.pop("memory_lowest")
    assert all(torch.equal(v, learner.state_dict()[k]) for k, v in state.items())
    assert all(
        torch.equal(p.grad, gradient) for p, gradient in zip(learner.parameters(), gradients, strict=True)
    )


def test_the_lowest_loss_can_change_the_choice():
    learner = filled(**MOST | {"replay_size": 1})
    place, counts = torch.tensor([0, 1, 2, 3], device="cpu"), torch.ones(4, dtype=torch.bool, device="cpu")
    chosen = []
    for low in range(4):
        learner.memory_lowest.fill_(9.0)[low] = -50.0
        chosen += learner.interfered(place, counts)[0].tolist()
    assert chosen == [0, 1, 2, 3]


def test_too_few_candidates_count_for_what_they_are():
    learner = filled(**MOST)
    place, valid = learner.interfered(
        torch.tensor([1, 7, 1, 7, 1], device="cpu"), torch.arange(5, device="cpu") < 2
    )
    assert valid.tolist() == [True, True, False] and set(place.tolist()) == {1, 7}


def test_the_virtual_step_leaves_the_network_alone():
    """Running statistics see the candidates once, not twice."""
    learner = filled(net="norm", **MOST)
    before = int(learner.net.norm.num_batches_tracked)
    learner.interfered(*learner.memory.sample_below(8, 4))
    assert int(learner.net.norm.num_batches_tracked) == before + 1


# ---- the memory


def test_the_memory_holds_images_of_the_stream_with_their_labels():
    learner, _ = learned(tasks(), memory=20, epochs=2)
    assert int(learner.memory.n_seen) == 42, "the second pass is not stored"
    for image, label in zip(learner.memory.images, learner.memory.labels.tolist(), strict=True):
        task = tasks()[label // 2]
        assert any(torch.equal(image, own) for own in task.train.images[task.train.labels == label])
    assert len(learner.memory.images.flatten(1).unique(dim=0)) == 20, "none twice"


def test_what_replaces_an_image_begins_anew():
    learner = filled(**MOST)
    learner.memory_lowest.fill_(0.25)
    before = learner.memory.images.clone()
    seed_everything(4)
    learner.store(torch.rand(9, *SHAPE, dtype=torch.float64), torch.full((9,), 5))
    new = (learner.memory.images != before).flatten(1).any(1)
    assert 0 < new.sum() < 12 and (learner.memory.labels[new] == 5).all()
    expected = torch.where(new, math.log(6), 0.25).double()
    torch.testing.assert_close(learner.memory_lowest, expected)


# ---- settings, records, resuming


@pytest.mark.parametrize(
    "wrong, word",
    [
        ({"choose": "mir"}, "choose"),
        ({"before": "old"}, "before"),
        ({"memory": 0}, "memory"),
        ({"replay_size": 0}, "replay_size"),
        ({"n_candidates": 0}, "n_candidates"),
        ({"updates": 0}, "updates"),
        ({"epochs": 0}, "epochs"),
        ({"batch_size": 0}, "batch"),
        ({"lr": 0.0}, "lr"),
        ({"lr": math.nan}, "lr"),
        ({"choose": "interfered", "n_candidates": 5}, "n_candidates=5 .* replay_size=10"),
    ],
)
def test_settings_that_cannot_work_are_refused(wrong, word):
    with pytest.raises(LearnerError, match=word):
        Config(**wrong)


def test_without_a_choice_candidates_do_not_matter():
    assert Config(replay_size=60).n_candidates == 50


def test_defaults():
    c = Config()
    assert (c.choose, c.memory, c.replay_size, c.n_candidates, c.before) == ("random", 50, 10, 50, "best")
    assert (c.updates, c.epochs, c.batch_size, c.lr, c.centred) == (1, 1, 10, 0.1, False)


@pytest.mark.parametrize("settings", [{}, MOST, {"updates": 2}])
def test_tables(settings):
    """14 images per task make 3 batches."""
    learner, rows = learned(tasks(), record="*", **settings)
    seen = 0
    for task, found in enumerate(rows):
        assert found.keys() == MIR.tables.keys() and found["loss"]["step"].tolist() == [0, 1, 2]
        assert (torch.as_tensor(found["loss"]["loss"]) > 0).all()
        assert ((torch.as_tensor(found["loss"]["replay"]) > 0) == (task > 0)).all()
        counts, seen = found["memory"]["counts"][0], seen + 14
        assert counts.shape == (6,) and counts.sum() == min(12, seen) and counts[2 * task + 2 :].sum() == 0
    assert counts.tolist() == torch.bincount(learner.memory.labels, minlength=6).tolist()


def test_the_first_row_is_the_loss_before_any_step():
    _, rows = learned(tasks()[:1], record="*", updates=3)
    learner = made(updates=3)
    seed_everything(1, 0)
    x, y = next(iter(tasks()[0].train.batches(learner.config.batch_size, epochs=learner.config.epochs)))
    assert rows[0]["loss"]["loss"][0] == float(F.cross_entropy(learner(x), y).detach())


def test_bytes_kept():
    weights = 4 * (37 * 9 + 10 * 7 + 8 * 6)
    assert made().memory_bytes() == {"weights": weights, "exemplars": 12 * (36 + 8) + 8}
    assert made(**MOST, before="now").memory_bytes() == made().memory_bytes()
    assert made(**MOST).memory_bytes() == {"weights": weights, "exemplars": 12 * (36 + 8 + 4) + 8}


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


@pytest.mark.parametrize("settings", [{}, MOST, MOST | {"net": "norm", "epochs": 2, "updates": 2}])
def test_a_stopped_task_resumes_exactly(settings):
    whole, saved, rows, start = second_task(**settings)
    assert len(saved) == 3 * settings.get("epochs", 1)
    for state in saved[:-1]:
        again, _, more, _ = second_task(state, start, **settings)
        assert all(torch.equal(v, again.state_dict()[k]) for k, v in whole.state_dict().items())
        for table, columns in rows.items():
            for name, values in columns.items():
                assert torch.equal(torch.as_tensor(values), torch.as_tensor(more[table][name]))


@pytest.mark.parametrize("settings", [{}, MOST, MOST | {"net": "norm", "updates": 2, "centred": True}])
def test_steps_wait_for_no_value_and_make_tensors_on_their_device(settings):
    """A task of ten batches transfers as many values to the host as a task of five."""
    counts = []
    for n in (5, 10):
        learner = made(**settings | {"batch_size": 2})
        with HostSyncs() as syncs, DeviceFactories() as factories:
            for task in tasks(n)[:2]:
                learner.learn(task, Trace("loss"))
        counts.append(syncs.total)
        assert factories.found == []
    assert counts[0] == counts[1]


def test_replay_remembers():
    """Plain training on the same batches forgets all but the last task."""
    right, test = [], small_stream(per_class=100).test
    for settings in ({}, MOST, {"memory": 1}):
        settings = {
            "net": "small",
            "memory": 30,
            "replay_size": 10,
            "n_candidates": 30,
            "batch_size": 10,
        } | settings
        learner, _ = learned(tasks(100), **settings)
        ((x, y),) = test.batches(len(test), shuffle=False)
        right.append(float((learner(x).argmax(1) == y).double().mean()))
    assert min(right[:2]) > 0.8 > 0.6 > right[2]
