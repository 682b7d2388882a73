"""DGR with a GAN: an iteration by hand, labels from the old solver, recall of a class by drawing."""

import copy

import pytest
import torch

from clkit.engine.learner import LearnerError
from clkit.engine.seeding import seed_everything
from clkit.engine.trace import Trace
from clkit.errors import ClkitError
from clkit.methods.baselines import dgr_gan
from clkit.methods.baselines.dgr_gan import DGRGAN, TRIES, Config
from tests.fakes import small_stream
from tests.reference import generative

SHAPE, CLASSES, N = (1, 16, 16), 3, 8
SMALL = {"nz": 5, "g_width": 2, "d_width": 2, "epochs": 2, "batch_size": 4, "steps": "pooled"}
ONE = torch.zeros(1, dtype=torch.int64)


def stream(sizes=(1,) * CLASSES):
    return small_stream(classes=CLASSES, per_class=N, side=16, sizes=sizes)


def learned(tasks=CLASSES, sizes=(1,) * CLASSES, **settings):
    seed_everything(3, 0)
    learner = DGRGAN(Config(**SMALL | settings), SHAPE, CLASSES)
    for task in list(stream(sizes))[:tasks]:
        seed_everything(3, 1 + task.index)
        learner.learn(task, Trace(progress=False))
    return learner


# ---- an iteration


def by_hand(learner, task, config):
    """The generator and critic after a task of one iteration, with the random numbers drawn in order."""
    G, D, lr, old = copy.deepcopy(learner.generator), copy.deepcopy(learner.critic), config.lr, []
    for _ in range(task.first):
        x = generative.image(G, torch.randn(N, 5), ONE.repeat(N), running=True).detach()
        old.append((x, generative.judged(D, x, running=True)[1].argmax(1)))
    D.grow(task.seen, True)
    orders = [torch.randperm(N) for _ in old]
    order = torch.randperm(N)
    x, y = task.train.images[order] / 127.5 - 1, task.train.labels[order]
    pool = [torch.cat(p) for p in zip((x, y), *((a[o], b[o]) for (a, b), o in zip(old, orders)))]
    mixed = torch.randperm(len(pool[1]))
    x, y = (part[mixed] for part in pool)
    generative.descend(D, generative.entropy(generative.judged(D, x)[1], y), lr)

    x = x[: 2 * N]
    fake = generative.image(G, torch.randn(len(x), 5), ONE.repeat(len(x))).detach()
    value, penalty = generative.wasserstein(D, x, fake, torch.rand(len(x), 1, 1, 1))
    generative.descend(D, value + config.penalty * penalty, lr)
    fake = generative.image(G, torch.randn(len(x), 5), ONE.repeat(len(x)))
    generative.descend(G, -generative.judged(D, fake)[0].mean(), lr)
    return G, D


@pytest.mark.parametrize("tasks", [0, 2])
def test_an_iteration(monkeypatch, tasks):
    learner = learned(tasks)
    monkeypatch.setattr(dgr_gan, "adam", torch.optim.SGD)
    task = stream()[tasks]
    learner.config = Config(**SMALL | {"batch_size": N, "epochs": 1, "lr": 0.05, "penalty": 2.0})
    torch.manual_seed(7)
    G, D = by_hand(learner, task, learner.config)
    torch.manual_seed(7)
    learner.learn(task, Trace(progress=False))
    for mine, theirs in ((learner.generator, G), (learner.critic, D)):
        for (name, a), b in zip(mine.named_parameters(), theirs.parameters()):
            torch.testing.assert_close(a, b, rtol=2e-4, atol=2e-5, msg=name)


# ---- what is replayed


def test_the_generator_knows_no_class():
    learner = learned(1)
    assert all(len(norm.scale) == 1 for norm in learner.generator.norms)


def test_replayed_images_have_the_old_solver_s_labels():
    learner = learned(2, sizes=(2, 1))
    found = learner.replayed(N)
    assert [len(y) for _, y in found] == [2 * N, N], "as many as the classes of each task have"
    for x, y in found:
        assert torch.equal(y, generative.judged(learner.critic, x, running=True)[1].argmax(1))
        assert x.abs().max() <= 1 and not x.requires_grad


def test_without_replay_only_new_images_are_seen(monkeypatch):
    seen = []

    def note(critic, optimizer, x, y, size, classify=dgr_gan.classify):
        seen.append(set(y.tolist()))
        return classify(critic, optimizer, x, y, size)

    monkeypatch.setattr(dgr_gan, "classify", note)
    learned(replay=False)
    assert seen == [{0}] * 4 + [{1}] * 4 + [{2}] * 4
    seen.clear()
    learned()
    assert all(len(labels) > 1 for labels in seen[4:])


# ---- recall


def test_recall():
    learner = learned(2)
    state = copy.deepcopy(learner.state_dict())
    x, y = learner.recall(9)
    assert x.shape == (9, *SHAPE) and 0 <= x.min() and x.max() <= 1
    assert torch.equal(y, learner.eval()(x).argmax(1))
    assert all(torch.equal(v, state[k]) for k, v in learner.state_dict().items())
    with pytest.raises(ClkitError, match="class 2 has not been learned yet"):
        learner.recall(4, label=2)
    with pytest.raises(ClkitError, match="after the first task"):
        learned(0).recall(4)


def solver_of(monkeypatch, learner, logits):
    """Let the solver give an image with mean brightness b in [-1, 1] the logits of logits(b)."""
    monkeypatch.setattr(learner, "solved", lambda x: logits(x.flatten(1).mean(1)))
    draws = []
    monkeypatch.setattr(
        learner.generator,
        "draw",
        lambda y: (
            draws.append(len(y)) or torch.linspace(-1, 1, len(y))[:, None, None, None].expand(-1, *SHAPE)
        ),
    )
    return draws


def test_a_class_is_drawn_until_there_are_enough(monkeypatch):
    learner = learned(2)
    draws = solver_of(monkeypatch, learner, lambda b: torch.stack([0 * b, 4 * (b - 0.4)], 1))
    x, y = learner.recall(10, label=1)  # 3 of 10 draws are brighter than 0.4
    assert draws == [10] * 4 and y.tolist() == [1] * 10 and (2 * x - 1).mean((1, 2, 3)).min() > 0.4


def test_a_class_that_is_gone_is_recalled_as_what_comes_nearest(monkeypatch):
    learner = learned(2)
    draws = solver_of(monkeypatch, learner, lambda b: torch.stack([0 * b + 9, b], 1))
    x, y = learner.recall(10, label=1)
    assert draws == [10] * TRIES and y.tolist() == [0] * 10
    torch.testing.assert_close(x, torch.ones_like(x))


@pytest.mark.parametrize("wrong", [{"replay": 1}, {"penalty": -1.0}, {"nz": 0}, {"steps": "all"}])
def test_settings_that_cannot_work(wrong):
    with pytest.raises(LearnerError, match=next(iter(wrong))):
        Config(**wrong)
