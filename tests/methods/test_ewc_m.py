"""EWC-M: the importance image by image, the pull by autograd, and that strength 0 is no EWC at all."""

import copy

import numpy as np
import pytest
import torch
from torch.nn.utils import parameters_to_vector

from clkit.blocks.quadratic import QuadraticPenalty
from clkit.engine.learner import LearnerError
from clkit.engine.run import run
from clkit.engine.seeding import seed_everything
from clkit.engine.trace import Trace
from clkit.errors import ClkitError
from clkit.methods.baselines import ewc_m, mergan
from clkit.methods.baselines.ewc_m import EWCM, Config
from tests.fakes import small_stream
from tests.reference import generative

SHAPE, CLASSES, N = (1, 16, 16), 3, 8
SMALL = {"nz": 5, "g_width": 2, "d_width": 2, "epochs": 2, "batch_size": 4, "steps": "pooled"}
FEW = {"fisher_images": 6}


def stream():
    return small_stream(classes=CLASSES, per_class=N, side=16, sizes=(1,) * CLASSES)


def learned(tasks=CLASSES, **settings):
    seed_everything(3, 0)
    learner = EWCM(Config(**SMALL | FEW | settings), SHAPE, CLASSES)
    for task in list(stream())[:tasks]:
        seed_everything(3, 1 + task.index)
        learner.learn(task, Trace(progress=False))
    return learner


def vector(gradients):
    return torch.cat([g.flatten() for g in gradients])


# ---- importance


@pytest.mark.parametrize("auxiliary", [0.0, 1.0])
def test_the_importance_is_the_mean_square_of_single_images_gradients(auxiliary):
    learner = learned(2, auxiliary=auxiliary)
    torch.manual_seed(5)
    mine = learner.fisher(0, 2)
    torch.manual_seed(5)
    z, y, expected = torch.randn(6, 5), torch.tensor([0, 1, 0, 1, 0, 1]), 0.0
    parameters = list(learner.generator.parameters())
    for i in range(6):
        fake = generative.image(learner.generator, z[i : i + 1], y[i : i + 1], running=True)
        value, logits = generative.judged(learner.critic, fake, running=True)
        loss = auxiliary * generative.entropy(logits, y[i : i + 1]) - value.mean()
        expected += vector(torch.autograd.grad(loss, parameters)).square() / 6
    torch.testing.assert_close(mine, expected, rtol=1e-3, atol=1e-8)
    assert (mine > 0).any()


def test_the_importance_of_tasks_adds_up_and_a_class_to_come_has_none(monkeypatch):
    parts = []
    original = EWCM.fisher
    monkeypatch.setattr(EWCM, "fisher", lambda *args: parts.append(original(*args)) or parts[-1])
    learner = learned(2)
    assert len(parts) == 2 and torch.equal(learner.importance, parts[0] + parts[1])
    names = {name: p.numel() for name, p in learner.generator.named_parameters()}
    of = dict(zip(names, learner.importance.split(list(names.values()))))
    scale = of["norms.0.scale"].reshape(CLASSES, -1)
    assert (scale[:2] > 0).any(1).all() and not scale[2].any() and of["first.weight"].any()


# ---- the pull


def test_the_gradient_of_the_pull():
    learner = learned(2, strength=50.0)
    learner.importance.uniform_(0.0, 0.01)  # so that the pull matters beside the loss
    pulled = QuadraticPenalty(learner.generator, learner.importance)
    centre = parameters_to_vector(learner.generator.parameters()).detach().clone()
    with torch.no_grad():
        for p in learner.generator.parameters():
            p += 0.1 * torch.randn_like(p)
    optimizer, y = torch.optim.SGD(learner.generator.parameters(), 0.0), torch.full((4,), 1)
    torch.manual_seed(6)
    loss, pull = learner.generate(optimizer, y, pulled)
    torch.manual_seed(6)
    parameters = list(learner.generator.parameters())
    value, logits = generative.judged(
        learner.critic, generative.image(learner.generator, torch.randn(4, 5), y)
    )
    gap = parameters_to_vector(parameters) - centre
    extra = 50 / 2 * (learner.importance * gap.square()).sum()
    expected = generative.entropy(logits, y) - value.mean() + extra
    torch.testing.assert_close(loss, expected.detach(), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(pull, extra.detach(), rtol=1e-4, atol=1e-6)
    assert extra > 0.1
    gradient = vector(torch.autograd.grad(expected, parameters))
    torch.testing.assert_close(vector(p.grad for p in parameters), gradient, rtol=1e-3, atol=1e-5)


def test_a_strong_pull_keeps_shared_weights_that_matter():
    moved = {}
    for strength in (0.0, 1e4):
        learner = learned(1, strength=strength)
        half = torch.rand(len(learner.importance)) < 0.5
        learner.importance = half.float()
        before = parameters_to_vector(learner.generator.parameters()).detach().clone()
        seed_everything(1)
        learner.learn(stream()[1], Trace(progress=False))
        gap = (parameters_to_vector(learner.generator.parameters()).detach() - before).abs()
        moved[strength] = gap[half].mean() / gap[~half].mean()
    assert moved[1e4] < 0.7 * moved[0.0]


def test_strength_0_without_replay_is_the_plain_conditional_gan():
    options = {"seed": 4, "record": "*", "threads": 1, "progress": False}
    a, mine = run(EWCM, Config(**SMALL | FEW | {"strength": 0.0, "replay": False}), stream(), **options)
    b, plain = run(mergan.MeRGAN, mergan.Config(**SMALL | {"replay": "none"}), stream(), **options)
    assert np.array_equal(mine.rank, plain.rank)
    assert all(torch.equal(x, y) for x, y in zip(a.generator.parameters(), b.generator.parameters()))
    c, other = run(EWCM, Config(**SMALL | FEW | {"strength": 1e6, "replay": False}), stream(), **options)
    assert not torch.equal(a.generator.first.weight, c.generator.first.weight)
    assert other.trace["loss"]["pull"][2:].all() and not mine.trace["loss"]["pull"].any()


# ---- what the classifier sees


def test_old_images_come_from_the_present_generator_in_each_epoch(monkeypatch):
    taken = []
    original = ewc_m.old_images
    monkeypatch.setattr(
        ewc_m, "old_images", lambda g, *args: taken.append(copy.deepcopy(g)) or original(g, *args)
    )
    learner = learned(2, strength=0.0)
    assert len(taken) == 4 and learner.ends.tolist() == [1, 2]
    assert not torch.equal(taken[2].first.weight, taken[3].first.weight)
    taken.clear()
    learned(2, replay=False)
    assert taken == []


def test_recall_and_memory():
    learner = learned(2)
    x, y = learner.recall(4, label=1)
    assert x.shape == (4, *SHAPE) and 0 <= x.min() and x.max() <= 1 and y.tolist() == [1] * 4
    sizes = learner.memory_bytes()
    assert sizes["importance"] == 4 * sum(p.numel() for p in learner.generator.parameters())
    with pytest.raises(ClkitError, match="class 2 has not been learned yet"):
        learner.recall(4, label=2)


@pytest.mark.parametrize("wrong", [{"strength": -1.0}, {"fisher_images": 0}, {"nz": 0}, {"lr": 0.0}])
def test_settings_that_cannot_work(wrong):
    with pytest.raises(LearnerError, match=next(iter(wrong))):
        Config(**wrong)
