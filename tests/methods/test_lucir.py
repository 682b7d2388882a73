"""LUCIR: the cosine head, imprinting and both losses against loops; a step by hand; what each part does."""

import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from clkit.blocks import nets
from clkit.engine.learner import LearnerError, frozen
from clkit.engine.run import run
from clkit.engine.seeding import seed_everything
from clkit.engine.trace import Trace
from clkit.errors import ClkitError
from clkit.methods.baselines import lucir
from clkit.methods.baselines.lucir import LUCIR, Config, CosineHead
from tests.fakes import small_stream
from tests.reference.memory import herd_by_hand, phi, unit
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
PLAIN = {"distil": 0.0, "ranking": 0.0, "imprint": False, "replay": False}


def build(seed=0, **settings):
    seed_everything(seed)
    return LUCIR(Config(**SMALL | settings), SHAPE, CLASSES)


def learn(learner, tasks=(0, 1, 2), seed=1, stream=None):
    """The rows of the last of these tasks."""
    stream, trace = stream or small_stream(), Trace(record="*")
    for t in tasks:
        trace.begin(learner, t)
        seed_everything(seed, t)
        learner.learn(stream[t], trace)
        rows = trace.end()
    return rows


def draw(*size, seed=0):
    """Normal numbers in double precision."""
    generator = torch.Generator(device="cpu").manual_seed(seed)
    return torch.randn(*size, generator=generator, dtype=torch.float64, device="cpu")


def cosine(a, b):
    return sum(x * y for x, y in zip(a, b, strict=True)) / math.hypot(*a) / math.hypot(*b)


# ---- the equations


def test_the_head_gives_scaled_cosines():
    head, rows, x = CosineHead(3).double(), draw(4, 3), draw(5, 3, seed=1)
    head.grow(rows[:2])
    head.grow(rows[2:])
    head.scale.data.fill_(2.5)
    expected = [[2.5 * cosine(a, w) for w in rows.tolist()] for a in x.tolist()]
    np.testing.assert_allclose(head(x).detach(), expected)
    assert len(head.old) == len(head.new) == 2 and not head.old.requires_grad


def test_imprinted_rows_by_hand():
    means, old = draw(2, 3), draw(4, 3, seed=1)
    length = sum(math.hypot(*row) for row in old.tolist()) / 4
    expected = [[length * v for v in unit(row)] for row in means.tolist()]
    np.testing.assert_allclose(lucir.imprinted(means, old), expected)


def test_features_are_held_by_their_cosine():
    a, b = draw(5, 3), draw(5, 3, seed=1)
    expected = sum(1 - cosine(x, y) for x, y in zip(a.tolist(), b.tolist(), strict=True)) / 5
    assert float(lucir.turned(a, b)) == pytest.approx(expected)
    assert float(lucir.turned(a, 3 * a)) == pytest.approx(0, abs=1e-12), "lengths do not matter"
    before = b.requires_grad_()
    lucir.turned(a.requires_grad_(), before).backward()
    assert before.grad is None and a.grad is not None


@pytest.mark.parametrize("nearest", [1, 2, 3])
def test_margin_ranking_pair_by_pair(nearest):
    """Three old classes and three new ones, with torch's own loss as a second opinion."""
    cosines, y = draw(8, 6).tanh(), torch.tensor([0, 4, 2, 5, 1, 0, 3, 2], device="cpu")
    terms, own, other = [], [], []
    for row, label in zip(cosines.tolist(), y.tolist(), strict=True):
        if label < 3:
            for score in sorted(row[3:], reverse=True)[:nearest]:
                terms.append(max(0.0, 0.5 - row[label] + score))
                own.append(row[label])
                other.append(score)
    found = float(lucir.margin_ranking(cosines, y, 3, nearest, 0.5))
    assert found == pytest.approx(sum(terms) / len(terms))
    pairs = [torch.tensor(v, device="cpu") for v in (own, other, [1.0] * len(own))]
    assert found == pytest.approx(float(F.margin_ranking_loss(*pairs, margin=0.5)), rel=1e-5)


def test_margin_ranking_without_exemplars_or_with_few_new_classes():
    cosines = draw(4, 3).tanh().requires_grad_()
    y = torch.tensor([2, 2, 2, 2], device="cpu")
    loss = lucir.margin_ranking(cosines, y, 2, 2, 0.5)
    loss.backward()
    assert loss.item() == 0 and (cosines.grad == 0).all()
    only = lucir.margin_ranking(cosines, torch.zeros_like(y), 2, 2, 0.5)
    expected = (0.5 - cosines[:, 0] + cosines[:, 2]).clamp(min=0).mean()
    torch.testing.assert_close(only, expected), "one new class is all there is"


# ---- a step


def test_a_step_by_hand(monkeypatch):
    """New images and exemplars of the third task in one step, all three losses at the imprinted rows."""
    stream = small_stream(sizes=(3, 2, 1))
    learner = build(batch_size=200, epochs=1, lr=0.01, weight_decay=0.0)
    learn(learner, [0, 1], stream=stream)
    x = torch.cat([stream[2].train.images, learner.memory.images]) / 255
    y = torch.cat([stream[2].train.labels, learner.memory.labels])
    teacher, twin = frozen(learner.net), frozen(learner.net).train()
    old = torch.cat([twin.head.old, twin.head.new])
    mean = F.normalize(teacher.features(stream[2].train.images / 255)).mean(0, keepdim=True)
    row = (mean / mean.norm() * old.norm(dim=1).mean()).requires_grad_()
    for p in (*twin.hidden.parameters(), twin.head.scale):
        p.requires_grad_()
    features = twin.features(x)
    cosines = F.normalize(features) @ F.normalize(torch.cat([old, row])).T
    parts = {"new": F.cross_entropy(twin.head.scale * cosines, y)}
    parts["old"] = 5 * math.sqrt(5 / 1) * (1 - F.cosine_similarity(features, teacher.features(x))).mean()
    hard = y < 5
    gaps = 0.5 - cosines[hard].gather(1, y[hard][:, None]) + cosines[hard][:, 5:]
    parts["margin"] = gaps.clamp(min=0).mean()
    sum(parts.values()).backward()
    rows = learn(learner, [2], stream=stream)["loss"]
    for name, value in parts.items():
        assert rows[name][0] == pytest.approx(value.item(), rel=1e-4, abs=1e-6), name
    assert rows["loss"][0] == pytest.approx(sum(v.item() for v in parts.values()), rel=1e-4)
    pairs = zip(learner.net.hidden.parameters(), twin.hidden.parameters(), strict=True)
    for ours, theirs in pairs:
        torch.testing.assert_close(ours, theirs - 0.01 * theirs.grad, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(learner.net.head.new, row - 0.01 * row.grad, rtol=1e-4, atol=1e-6)
    assert torch.equal(learner.net.head.old, old), "rows of old classes stay, bit for bit"


# ---- the memory and the answers


def test_exemplars_are_herded_and_equally_many_from_the_start():
    _, result = run(LUCIR, Config(**SMALL), small_stream(), record="*", threads=1, progress=False)
    counts = result.trace["memory"]["counts"]
    assert counts.tolist() == [[4 if c < seen else 0 for c in range(6)] for seen in (2, 4, 6)]
    learner = build()
    learn(learner, [0])
    task = small_stream()[0]
    for label in (0, 1):
        own = task.train.images[task.train.labels == label]
        expected = own[herd_by_hand(phi(learner.net, own), 4)]
        assert torch.equal(learner.memory.images[learner.memory.labels == label], expected)


def test_the_nearest_mean_is_that_of_exemplars_and_their_mirror_images():
    learner = build(classifier="mean")
    learn(learner, [0, 1])
    images, labels = learner.memory.images, learner.memory.labels.tolist()
    means = []
    for c in range(4):
        own = images[[i for i, label in enumerate(labels) if label == c]]
        both = phi(learner.net, own) + phi(learner.net, own.flip(-1))
        means.append(unit([sum(column) / len(both) for column in zip(*both, strict=True)]))
    assert not torch.equal(images, images.flip(-1))
    x = small_stream().test.images
    distances = [[math.dist(f, mu) ** 2 for mu in means] for f in phi(learner.net, x)]
    with torch.no_grad():
        found = learner(x / 255)
    np.testing.assert_allclose(-found, distances, rtol=1e-3, atol=1e-4)


def test_features_have_both_signs():
    learner = build()
    with torch.no_grad():
        features = learner.features(torch.rand(20, *SHAPE, device="cpu"))
    assert (features < 0).any() and (features > 0).any()


# ---- beside finetuning


def finetune(learner, stream, seed):
    """Cross-entropy of a cosine classifier whose old rows stay, with the same optimizer, written out."""
    net, head = learner.net, learner.net.head
    for task in stream:
        seed_everything(seed, task.index)
        n = task.seen - task.first
        head.grow(torch.empty(n, head.in_features, device="cpu").uniform_(-(32**-0.5), 32**-0.5))
        parameters = [p for p in net.parameters() if p.requires_grad]
        optimizer = torch.optim.SGD(parameters, 0.1, 0.9, weight_decay=5e-4)
        schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, (1,))
        for _ in range(2):
            for x, y in task.train.batches(16):
                loss = F.cross_entropy(head(net.features(x)), y)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
            schedule.step()


def test_without_its_parts_it_is_finetuning():
    learner, twin = build(**PLAIN), build(**PLAIN)
    learn(learner, seed=8)
    finetune(twin, small_stream(), seed=8)
    assert same(learner, twin)


@pytest.mark.parametrize(
    "part", [{"distil": 5.0}, {"imprint": True}, {"replay": True}, {"replay": True, "ranking": 1.0}]
)
def test_each_part_matters_from_the_second_task_on(part):
    """The distance from the teacher is 0 at first, so distillation needs a second step."""
    settings = PLAIN | {"batch_size": 60, "epochs": 2}
    base = settings | ({"replay": True} if "ranking" in part else {})
    with_it, without = build(**settings | part), build(**base)
    for task, expected in ((0, True), (1, False)):
        for learner in (with_it, without):
            learn(learner, [task])
        assert same(with_it, without) == expected


def test_it_remembers_what_finetuning_forgets():
    accuracies = []
    for settings in ({}, PLAIN):
        config = Config(**SMALL | settings | {"epochs": 10, "lr": 0.02})
        _, result = run(LUCIR, config, small_stream(), threads=1, progress=False)
        old = result.labels < 4
        accuracies.append((result.predictions[-1] == result.labels)[old].mean())
    assert accuracies[0] > accuracies[1] + 0.3


# ---- settings


@pytest.mark.parametrize(
    "wrong",
    [{"per_class": 0}, {"classifier": "nearest"}, {"distil": -1.0}, {"nearest": 0}, {"augment": "crop"}],
)
def test_settings_that_cannot_work(wrong):
    with pytest.raises(LearnerError, match=next(iter(wrong))):
        Config(**wrong)


def test_pixels_must_fit_the_images():
    with pytest.raises(ClkitError, match="mean and std must have one number, or one for each channel"):
        build(mean=(0.5, 0.5, 0.5), std=(0.2, 0.2, 0.2))
    assert nets.build("small", SHAPE, CLASSES).rectified
