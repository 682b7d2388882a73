"""FeTrIL: translation and choice of a class against their definitions; the frozen network; the head."""

import math

import numpy as np
import pytest
import torch
from sklearn.svm import LinearSVC
from torch.nn import functional as F

from clkit.engine.learner import LearnerError
from clkit.engine.run import run
from clkit.engine.seeding import seed_everything
from clkit.engine.trace import Trace
from clkit.methods.baselines import fetril
from clkit.methods.baselines.fetril import Config, FeTrIL
from tests.fakes import small_stream
from tests.reference.nets import same, small_nets  # noqa: F401  a fixture

SHAPE, CLASSES = (1, 6, 6), 6
PIXELS = {"mean": (0.0,), "std": (1.0,), "augment": "none"}
SMALL = {"net": "small", "batch_size": 16, "epochs": 3, "head_epochs": 3, "weight_decay": 0.0, **PIXELS}


def build(seed=0, **settings):
    seed_everything(seed)
    return FeTrIL(Config(**SMALL | settings), SHAPE, CLASSES)


def learn(learner, tasks=(0, 1, 2), seed=1):
    """The rows of each of these tasks."""
    stream, trace, rows = small_stream(), Trace(record="*"), []
    for t in tasks:
        trace.begin(learner, t)
        seed_everything(seed, t)
        learner.learn(stream[t], trace)
        rows.append(trace.end())
    return rows


def phi(net, images):
    with torch.no_grad():
        return net.features(images / 255)


def means_by_hand(net, tasks=(0, 1, 2)):
    """Means of the features of all classes, from the images of the stream, one image at a time."""
    rows = []
    for t in tasks:
        images, labels = small_stream()[t].train.images, small_stream()[t].train.labels
        for label in range(2 * t, 2 * t + 2):
            own = [phi(net, image[None])[0].double() for image in images[labels == label]]
            rows.append(sum(own) / len(own))
    return torch.stack(rows)


# ---- the equations


def test_translated_features_have_the_old_mean_and_the_new_deviations():
    draw = torch.Generator(device="cpu").manual_seed(0)
    x = torch.rand(20, 5, generator=draw, dtype=torch.float64, device="cpu")
    there = torch.rand(5, generator=draw, dtype=torch.float64, device="cpu")
    moved = fetril.translated(x, x.mean(0), there)
    torch.testing.assert_close(moved.mean(0), there)
    torch.testing.assert_close(moved - moved.mean(0), x - x.mean(0))


def test_between_equal_means_nothing_moves():
    x = torch.rand(4, 3, device="cpu")
    assert torch.equal(fetril.translated(x, x.mean(0), x.mean(0)), x)


def test_the_nearest_class_has_the_largest_cosine_not_the_smallest_distance():
    old = torch.tensor([[1.0, 0.0], [0.0, 2.0]], device="cpu")
    new = torch.tensor([[9.0, 1.0], [0.8, 0.9], [1.0, 9.0]], device="cpu")
    index, cosine = fetril.nearest(old, new)
    angles = [[math.cos(math.atan2(*o) - math.atan2(*n)) for n in new.tolist()] for o in old.tolist()]
    assert index.tolist() == [row.index(max(row)) for row in angles] == [0, 2]
    assert cosine.tolist() == pytest.approx([max(row) for row in angles])
    assert torch.cdist(old, new).argmin(1).tolist() == [1, 1], "the rule of the released code"


# ---- the learner


def test_the_network_is_frozen_after_the_first_task():
    """Weights and the statistics of batch normalisation, bit for bit; the head goes on learning."""
    learner, start = build(net="norm"), build(net="norm")
    learn(learner, [0])
    before = {name: tensor.clone() for name, tensor in learner.net.state_dict().items()}
    assert not torch.equal(before["conv.weight"], start.net.conv.weight)
    learn(learner, [1, 2])
    for name, tensor in learner.net.state_dict().items():
        assert torch.equal(before[name], tensor) == (not name.startswith("head")), name


def test_means_are_those_of_all_images():
    learner = build()
    learn(learner)
    torch.testing.assert_close(learner.means.double(), means_by_hand(learner.net), rtol=1e-5, atol=1e-6)


def test_the_classes_that_stand_for_old_ones_are_recorded():
    learner = build()
    rows = learn(learner)
    assert "translation" not in rows[0]
    means = F.normalize(means_by_hand(learner.net))
    for t in (1, 2):
        cosines = means[: 2 * t] @ means[2 * t : 2 * t + 2].T
        found = rows[t]["translation"]
        assert np.asarray(found["nearest"][0]).tolist() == (2 * t + cosines.argmax(1)).tolist()
        np.testing.assert_allclose(found["cosine"][0], cosines.amax(1), rtol=1e-5)


def test_the_pool_by_hand():
    """Real features first, then for each old class those of its nearest new class, image by image."""
    learner, seen = build(), {}
    learn(learner, [0])
    means = means_by_hand(learner.net, [0, 1])
    learner.fit_head = lambda features, y, *_: seen.update(x=features, y=y)
    learn(learner, [1])
    images, labels = small_stream()[1].train.images, small_stream()[1].train.labels
    expected = list(zip(phi(learner.net, images).double(), labels.tolist(), strict=True))
    for old in (0, 1):
        cosines = [float(F.cosine_similarity(means[old], means[n], dim=0)) for n in (2, 3)]
        n = 2 + cosines.index(max(cosines))
        for image in images[labels == n]:
            expected.append((phi(learner.net, image[None])[0].double() - means[n] + means[old], old))
    assert seen["y"].tolist() == [label for _, label in expected]
    torch.testing.assert_close(
        seen["x"].double(), torch.stack([f for f, _ in expected]), rtol=1e-5, atol=1e-6
    )
    assert (torch.bincount(seen["y"]) == 24).all(), "classes are balanced"


def test_without_replay_the_head_is_finetuned_on_new_classes():
    """Bit for bit, with batches of features of the images alone."""
    learner, twin = build(replay=False), build()
    for one in (learner, twin):
        learn(one, [0])
    assert same(learner.net, twin.net)
    learn(learner, [1])
    seed_everything(1, 1)
    head, task = twin.net.head, small_stream()[1]
    features = phi(twin.net, task.train.images)
    optimizer = torch.optim.SGD(head.parameters(), 0.05, 0.9, weight_decay=5e-4)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 3)
    for _ in range(3):
        for index in torch.randperm(48, device="cpu").split(16):
            optimizer.zero_grad()
            F.cross_entropy(head(features[index])[:, :4], task.train.labels[index]).backward()
            optimizer.step()
        schedule.step()
    assert same(learner.net, twin.net)


def test_replay_keeps_old_classes():
    accuracies = []
    for replay in (True, False):
        config = Config(**SMALL | {"epochs": 20, "head_epochs": 20, "replay": replay})
        _, result = run(FeTrIL, config, small_stream(), threads=1, progress=False)
        old = result.labels < 4
        accuracies.append((result.predictions[-1] == result.labels)[old].mean())
    assert accuracies[0] > accuracies[1] + 0.3


def test_the_head_agrees_with_a_support_vector_machine():
    """scikit-learn's, on the same features of new and old classes, at length 1."""
    learner, seen = build(epochs=20, head_epochs=30), {}
    learn(learner, [0])
    fit_head = learner.fit_head
    learner.fit_head = lambda features, y, *rest: (seen.update(x=features, y=y), fit_head(features, y, *rest))
    learn(learner, [1])
    machine = LinearSVC(C=1.0, random_state=0).fit(F.normalize(seen["x"]).numpy(), seen["y"].numpy())
    test = small_stream().test
    x = test.images[test.labels < 4]
    with torch.no_grad():
        ours = learner(x / 255)[:, :4].argmax(1).numpy()
    theirs = machine.predict(F.normalize(phi(learner.net, x)).numpy())
    assert (ours == theirs).mean() > 0.9 and len(set(ours)) == 4


def test_it_keeps_means_only():
    _, result = run(FeTrIL, Config(**SMALL), small_stream(), threads=1, progress=False)
    assert result.memory_bytes["features"].tolist() == [4 * 32 * seen for seen in (2, 4, 6)]
    assert result.memory_bytes.keys() == {"weights", "features"}


@pytest.mark.parametrize(
    "wrong", [{"head_epochs": 0}, {"head_lr": 0.0}, {"augment": "crop"}, {"milestones": (0,)}, {"lr": 0.0}]
)
def test_settings_that_cannot_work_are_refused(wrong):
    with pytest.raises(LearnerError, match=next(iter(wrong))):
        Config(**wrong)
