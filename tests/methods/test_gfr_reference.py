"""Steps of GFR beside the obvious implementation, in double precision, with the same draws."""

import pytest
import torch

from clkit.engine.seeding import seed_everything
from clkit.engine.trace import Trace
from clkit.methods.gfr.gfr import GFR, Config
from tests.fakes import small_stream
from tests.reference import gfr as reference

SMALL = {"net": "resnet10", "mean": (0.5,), "std": (0.25,), "epochs": 1, "batch_size": 8, "nz": 4,
         "hidden": 8, "gan_epochs": 1}  # fmt: skip
SHAPE, FIRST, B = (1, 8, 8), 3, 8


@pytest.fixture
def both():
    """A learner that has learned two tasks, in double precision, and the reference; F and G have moved on."""
    stream = small_stream(classes=4, per_class=8, side=8, sizes=(2, 1, 1))
    seed_everything(3, 0)
    learner = GFR(Config(**SMALL), SHAPE, 4)
    for task in list(stream)[:2]:
        learner.learn(task, Trace(progress=False))
    learner.double().net.eval()
    theirs = reference.Reference(learner, FIRST)
    theirs.net.eval()
    past = learner.past(stream[2])
    for mine, other in ((learner.net, theirs.net), (learner.generator, theirs.G)):
        for p, q in zip(mine.parameters(), other.parameters()):
            p.data.add_(0.02 * torch.randn_like(p))
            q.data.copy_(p.data)
    return learner, theirs, past


def close(mine, theirs):
    a, b = reference.parameters(mine), reference.parameters(theirs)
    assert (a - b).abs().max() < 1e-9


def test_a_step_of_the_classifier(both, monkeypatch):
    learner, theirs, past = both
    monkeypatch.setattr(GFR, "until", lambda self, net, x: net.features(x))  # `float` would round
    monkeypatch.setattr(GFR, "after", lambda self, u: self.net.head(u))
    monkeypatch.setattr(learner.generator, "noise", lambda n: torch.randn(n, 4, dtype=torch.float64))
    x, y = torch.randn(B, *SHAPE, dtype=torch.float64), torch.full((B,), FIRST)
    start = reference.parameters(learner.net)
    torch.manual_seed(7)
    loss = learner.classify(torch.optim.SGD(learner.net.parameters(), 0.1), x, y, past)[0]
    torch.manual_seed(7)
    c, z = torch.randint(FIRST, (B,)), torch.randn(B, 4, dtype=torch.float64)
    optimizer = torch.optim.SGD(theirs.net.parameters(), 0.1)
    other = theirs.classifier_step(optimizer, x, y.tolist(), c.tolist(), z, FIRST)
    torch.testing.assert_close(loss, other)
    close(learner.net, theirs.net)
    assert (reference.parameters(learner.net) - start).abs().max() > 1e-3


def test_steps_of_critic_and_generator(both, monkeypatch):
    learner, theirs, _ = both
    x, y = torch.randn(B, *SHAPE, dtype=torch.float64), torch.full((B,), FIRST)
    z = torch.randn(B, 4, dtype=torch.float64)
    with torch.no_grad():
        u = learner.net.features(x)
    monkeypatch.setattr(torch, "rand", lambda *size, device=None: torch.full(size, 0.3, dtype=torch.float64))
    value, penalty = learner.criticise(torch.optim.SGD(learner.critic.parameters(), 0.1), u, z, y)
    share = torch.full((B, 1), 0.3, dtype=torch.float64)
    other = theirs.critic_step(torch.optim.SGD(theirs.D.parameters(), 0.1), x, y.tolist(), z, share)
    torch.testing.assert_close(value + learner.config.penalty * penalty, other)
    close(learner.critic, theirs.D)

    torch.manual_seed(7)
    weight = learner.config.alignment * FIRST
    optimizer = torch.optim.SGD(learner.generator.parameters(), 0.1)
    terms = learner.generate(optimizer, z, y, theirs.old_G, FIRST, weight)
    torch.manual_seed(7)
    c = torch.randint(FIRST, (B,)).tolist()
    other = theirs.generator_step(torch.optim.SGD(theirs.G.parameters(), 0.1), z, y.tolist(), c, FIRST)
    torch.testing.assert_close(terms.sum(), other)
    close(learner.generator, theirs.G)
    assert terms[1] > 0


def test_a_view_is_one_that_the_batched_augmentation_can_give():
    image, seen = torch.rand(1, 3, 3), set()
    for _ in range(300):
        view = reference.shifted(image, pad=1)
        seen.add(tuple(view.flatten().tolist()))
    wide = torch.nn.functional.pad(image, (1, 1, 1, 1))
    cuts = [wide[:, i : i + 3, j : j + 3] for i in range(3) for j in range(3)]
    assert seen == {tuple(v.flatten().tolist()) for cut in cuts for v in (cut, cut.flip(2))}


@pytest.mark.parametrize("first", [0, 2])
def test_the_reference_learns_a_task(first):
    stream = small_stream(classes=4, per_class=8, side=8, sizes=(2, 2))
    learner = GFR(Config(**SMALL), SHAPE, 4)
    theirs, task = reference.Reference(learner, first), stream[first // 2]
    before = [reference.parameters(n) for n in (theirs.net, theirs.G, theirs.D)]
    theirs.learn_classifier(task.train.images, task.train.labels, 1)
    theirs.learn_generator(task.train.images, task.train.labels, 1)
    now = [reference.parameters(n) for n in (theirs.net, theirs.G, theirs.D)]
    assert all(not torch.equal(a, b) and b.isfinite().all() for a, b in zip(before, now))
