"""MeRGAN: an iteration by hand, what is replayed, alignment that can be switched off."""

import copy

import pytest
import torch

from clkit.engine.learner import LearnerError
from clkit.engine.run import run
from clkit.engine.seeding import seed_everything
from clkit.engine.trace import Trace
from clkit.errors import ClkitError
from clkit.methods.baselines import mergan
from clkit.methods.baselines.mergan import Config, MeRGAN
from tests.fakes import small_stream
from tests.reference import generative
from tests.reference.nets import same

SHAPE, CLASSES, N = (1, 16, 16), 3, 8
SMALL = {"nz": 5, "g_width": 2, "d_width": 2, "epochs": 2, "batch_size": 4, "steps": "pooled"}


def stream():
    return small_stream(classes=CLASSES, per_class=N, side=16, sizes=(1,) * CLASSES)


def learned(tasks=CLASSES, learner=MeRGAN, **settings):
    seed_everything(3, 0)
    learner = learner(Config(**SMALL | settings), SHAPE, CLASSES)
    for task in list(stream())[:tasks]:
        seed_everything(3, 1 + task.index)
        learner.learn(task, Trace(progress=False))
    return learner


def plain_sgd(monkeypatch):
    """Adam's first step is the sign of the gradient: it hides the size and depends on the last digit."""
    monkeypatch.setattr(mergan, "adam", torch.optim.SGD)


# ---- an iteration


def by_hand(learner, task, config):
    """The generator and critic after a task of one iteration, with the random numbers drawn in order."""
    G, D = copy.deepcopy(learner.generator), copy.deepcopy(learner.critic)
    teacher, old, lr = copy.deepcopy(G), [], config.lr
    for c in range(task.first if config.replay != "none" else 0):
        y = torch.full((N,), c)
        old.append((generative.image(teacher, torch.randn(N, 5), y, running=True).detach(), y))
    D.grow(task.seen, True)
    orders = [torch.randperm(N) for _ in old]
    order = torch.randperm(N)
    x, y = task.train.images[order] / 127.5 - 1, task.train.labels[order]

    pool = [torch.cat(p) for p in zip((x, y), *((a[o], b[o]) for (a, b), o in zip(old, orders)))]
    mixed = torch.randperm(len(pool[1]))
    logits = generative.judged(D, pool[0][mixed])[1]
    generative.descend(D, generative.entropy(logits, pool[1][mixed]), lr)

    if config.replay == "joint":
        half = N // len(old)
        x, y = (
            torch.cat(p) for p in zip((x, y), *((a[o[:half]], b[o[:half]]) for (a, b), o in zip(old, orders)))
        )
    fake = generative.image(G, torch.randn(len(y), 5), y).detach()
    value, penalty = generative.wasserstein(D, x, fake, torch.rand(len(y), 1, 1, 1))
    generative.descend(D, value + config.penalty * penalty, lr)

    value, logits = generative.judged(D, generative.image(G, torch.randn(len(y), 5), y))
    loss = -value.mean() + config.auxiliary * generative.entropy(logits, y)
    if config.replay == "align":
        z, c = torch.randn(N, 5), torch.tensor([i % task.first for i in range(N)])
        gap = generative.image(G, z, c) - generative.image(teacher, z, c, running=True)
        loss = loss + config.alignment * gap.square().mean()
    generative.descend(G, loss, lr)
    return G, D


@pytest.mark.parametrize("replay", ["joint", "align", "none"])
def test_an_iteration(monkeypatch, replay):
    """The third task in one step, after two tasks learned as usual."""
    learner = learned(2, replay=replay)
    plain_sgd(monkeypatch)
    task = stream()[2]
    config = Config(**SMALL | {"batch_size": N, "epochs": 1, "lr": 0.05, "replay": replay, "penalty": 2.0})
    learner.config = config
    torch.manual_seed(7)
    G, D = by_hand(learner, task, config)
    start = copy.deepcopy(learner.generator)
    torch.manual_seed(7)
    learner.learn(task, Trace(progress=False))
    for mine, theirs in ((learner.generator, G), (learner.critic, D)):
        for (name, a), b in zip(mine.named_parameters(), theirs.parameters()):
            torch.testing.assert_close(a, b, rtol=2e-4, atol=2e-5, msg=name)
    moved = [(a - b).abs().max() for a, b in zip(start.parameters(), G.parameters())]
    assert all(m > 1e-4 for m in moved)


# ---- what is replayed


def test_what_the_classifier_and_the_critic_see(monkeypatch):
    """The classifier sees as many of each class; the critic as many old images as new, or new ones only."""
    seen = {}

    def note(kind, function, place):
        def noted(*args):
            seen.setdefault(kind, []).append(torch.bincount(args[place], minlength=CLASSES).tolist())
            return function(*args)

        return noted

    monkeypatch.setattr(mergan, "classify", note("classifier", mergan.classify, 3))
    monkeypatch.setattr(mergan, "generator_loss", note("generator", mergan.generator_loss, 2))
    expected = {
        "joint": ([4, 4, 4], [2, 2, 4]),
        "align": ([4, 4, 4], [0, 0, 4]),
        "none": ([0, 0, 4], [0, 0, 4]),
    }
    for replay, last in expected.items():
        seen.clear()
        learned(replay=replay)
        assert (seen["classifier"][-1], seen["generator"][-1]) == last
        assert seen["classifier"][0] == seen["generator"][0] == [4, 0, 0]


def test_old_images_are_those_of_the_generator_before_the_task(monkeypatch):
    taken = []
    original = mergan.old_images
    monkeypatch.setattr(
        mergan, "old_images", lambda *args: taken.append(copy.deepcopy(args)) or original(*args)
    )
    learner = learned(2)
    before = copy.deepcopy(learner.generator)
    learner.learn(stream()[2], Trace(progress=False))
    generator, ends, each = taken[-1]
    assert len(taken) == 3 and same(generator, before) and ends.tolist() == [1, 2] and each == N
    assert not same(learner.generator, before)


def test_without_alignment_nothing_is_aligned(monkeypatch):
    def refuse(*args):
        raise AssertionError("aligned")

    monkeypatch.setattr(MeRGAN, "misaligned", refuse)
    learned(replay="align", alignment=0.0)
    learned(replay="joint")
    with pytest.raises(AssertionError, match="aligned"):
        learned(2, replay="align", alignment=1.0)


def test_alignment_keeps_old_images_as_they_are():
    apart = {}
    for alignment in (0.0, 1000.0):
        learner = learned(1, replay="align", alignment=alignment, epochs=10)
        z, y = torch.randn(20, 5), torch.zeros(20, dtype=torch.int64)
        first = generative.image(learner.generator, z, y, running=True)
        learner.learn(stream()[1], Trace(progress=False))
        apart[alignment] = (generative.image(learner.generator, z, y, running=True) - first).square().mean()
    assert apart[1000.0] < 0.5 * apart[0.0]


# ---- recall, settings


def test_recall():
    learner = learned(2)
    state = copy.deepcopy(learner.state_dict())
    x, y = learner.recall(9)
    assert x.shape == (9, *SHAPE) and 0 <= x.min() and x.max() <= 1 and set(y.tolist()) == {0, 1}
    assert set(learner.recall(4, label=1)[1].tolist()) == {1} and not x.requires_grad
    assert all(torch.equal(v, state[k]) for k, v in learner.state_dict().items())
    with pytest.raises(ClkitError, match="class 2 has not been learned yet"):
        learner.recall(4, label=2)


def test_what_it_keeps_does_not_grow_but_for_the_head():
    _, result = run(MeRGAN, Config(**SMALL), stream(), record="*", threads=1, progress=False)
    assert len(set(result.memory_bytes["generators"].tolist())) == 1
    assert set(result.trace["loss"]) - {"task", "epoch"} == {
        "loss",
        "critic",
        "penalty",
        "generator",
        "alignment",
    }
    assert not result.trace["loss"]["alignment"].any()


def test_a_run_that_diverges_says_where():
    with pytest.raises(ClkitError, match=r"diverged in epoch \d+ of task 1 \("):
        learned(1, lr=1e30)


@pytest.mark.parametrize("wrong", [{"replay": "some"}, {"alignment": -1.0}, {"nz": 0}, {"lr": 0.0}])
def test_settings_that_cannot_work(wrong):
    with pytest.raises(LearnerError, match=next(iter(wrong))):
        Config(**wrong)
