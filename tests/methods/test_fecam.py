"""FeCAM: its equations against loops, numpy and scikit-learn; the frozen network; what its parts do."""

import numpy as np
import pytest
import torch
from sklearn.covariance import shrunk_covariance
from torch.nn import functional as F

from clkit.engine.learner import LearnerError
from clkit.engine.run import run
from clkit.engine.seeding import seed_everything
from clkit.engine.trace import Trace
from clkit.methods.baselines import fecam
from clkit.methods.baselines.fecam import Config, FeCAM
from tests.fakes import small_stream
from tests.reference.nets import same, small_nets  # noqa: F401  a fixture

SHAPE, CLASSES = (1, 6, 6), 6
PIXELS = {"mean": (0.0,), "std": (1.0,), "augment": "none"}
SMALL = {"net": "tiny", "batch_size": 16, "epochs": 3, "weight_decay": 0.0, **PIXELS}
PLAIN = {"covariance": "none", "power": 1.0}


def build(seed=0, **settings):
    seed_everything(seed)
    return FeCAM(Config(**SMALL | settings), SHAPE, CLASSES)


def learn(learner, tasks=(0, 1, 2), seed=1, stream=None):
    stream, trace = stream or small_stream(), Trace(record="*")
    for t in tasks:
        trace.begin(learner, t)
        seed_everything(seed, t)
        learner.learn(stream[t], trace)
        trace.end()
    return learner.eval()


def features(n=40, size=4, seed=0):
    """Non-negative features that are correlated, in double precision."""
    draw = np.random.default_rng(seed)
    return torch.from_numpy(draw.gamma(2.0, size=(n, size)) @ draw.random((size, size)))


def phi(net, images):
    with torch.no_grad():
        return net.features(images.float() / 255).double()


# ---- the equations


def test_covariance_is_that_of_numpy():
    x = features()
    np.testing.assert_allclose(fecam.covariance(x), np.cov(x.numpy().T), rtol=1e-12)


@pytest.mark.parametrize("gamma_1, gamma_2", [(1.0, 1.0), (0.3, 2.0), (0.0, 0.0)])
def test_shrinkage_entry_by_entry(gamma_1, gamma_2):
    sigma = np.cov(features().numpy().T)
    D = len(sigma)
    on = sum(sigma[i, i] for i in range(D)) / D
    off = sum(sigma[i, j] for i in range(D) for j in range(D) if i != j) / (D * D - D)
    expected = [
        [sigma[i, j] + (gamma_1 * on if i == j else gamma_2 * off) for j in range(D)] for i in range(D)
    ]
    np.testing.assert_allclose(fecam.shrunk(torch.from_numpy(sigma), gamma_1, gamma_2), expected, rtol=1e-12)


@pytest.mark.parametrize("alpha", [0.1, 0.5, 0.9])
def test_shrinkage_of_the_diagonal_is_that_of_scikit_learn(alpha):
    """(1 - alpha) sigma + alpha V_1 I, divided by 1 - alpha."""
    sigma = np.cov(features().numpy().T)
    found = fecam.shrunk(torch.from_numpy(sigma), alpha / (1 - alpha), 0.0)
    np.testing.assert_allclose(found * (1 - alpha), shrunk_covariance(sigma, alpha), rtol=1e-12)


def test_shrinking_twice_with_1_is_shrinking_once_with_3():
    sigma = fecam.covariance(features())
    twice = fecam.shrunk(fecam.shrunk(sigma, 1.0, 1.0), 1.0, 1.0)
    torch.testing.assert_close(twice, fecam.shrunk(sigma, 3.0, 3.0))


def test_a_single_feature_has_nothing_off_the_diagonal():
    assert fecam.shrunk(torch.full((1, 1), 2.0, device="cpu"), 1.0, 1.0).tolist() == [[4.0]]


def test_correlations_are_those_of_numpy():
    x = features()
    found = fecam.correlation(fecam.covariance(x))
    np.testing.assert_allclose(found, np.corrcoef(x.numpy().T), rtol=1e-12, atol=1e-14)


def test_a_feature_without_variance_has_no_correlations():
    x = features()
    x[:, 2] = 7.0
    found = fecam.correlation(fecam.covariance(x))
    assert (found[2] == 0).all() and (found[:, 2] == 0).all() and found.isfinite().all()


@pytest.mark.parametrize("shared", [False, True])
def test_the_distance_with_explicit_inverses(shared):
    x, means = features(7), features(3, seed=1)
    sigmas = [np.cov(features(seed=s).numpy().T) for s in ([5] if shared else [5, 6, 7])]
    inverses = [np.linalg.inv(s) for s in sigmas]
    expected = np.empty((7, 3))
    for i, a in enumerate(x.numpy()):
        for k, mu in enumerate(means.numpy()):
            expected[i, k] = (a - mu) @ inverses[0 if shared else k] @ (a - mu)
    found = fecam.mahalanobis(x, means, torch.from_numpy(np.stack(inverses)))
    np.testing.assert_allclose(found, expected, rtol=1e-10)


# ---- the learner


def by_hand(learner, stream, tasks, x, config):
    """Distances in float64: statistics of the stored images of all tasks, numpy's inverses."""
    rows = []
    test = phi(learner.net, x) ** config.power
    test = (test / test.norm(dim=1, keepdim=True)).numpy()
    for t in tasks:
        images, labels = stream[t].train.images, stream[t].train.labels
        for label in range(stream[t].first, stream[t].seen):
            own = phi(learner.net, images[labels == label]).numpy()
            mu = own.mean(0) ** config.power
            sigma = fecam.shrunk(
                torch.from_numpy(np.cov((own**config.power).T)), config.gamma_1, config.gamma_2
            )
            if config.correlation:
                sigma = fecam.correlation(sigma)
            gap = test - mu / np.linalg.norm(mu)
            rows.append(np.einsum("bi,ij,bj->b", gap, np.linalg.inv(sigma.numpy()), gap))
    return np.stack(rows, 1)


@pytest.mark.parametrize(
    "settings", [{}, {"power": 1.0}, {"gamma_1": 3.0, "gamma_2": 3.0}, {"correlation": False}]
)
def test_scores_after_three_tasks(settings):
    stream, learner = small_stream(), build(net="small", **settings)
    learn(learner, stream=stream)
    x = stream.test.images
    expected = by_hand(learner, stream, range(3), x, learner.config)
    with torch.no_grad():
        found = learner(x / 255)
    assert found.shape == (len(x), 6)
    np.testing.assert_allclose(-found, expected, rtol=2e-3, atol=1e-4)


def test_the_common_covariance_is_the_average_by_classes():
    stream = small_stream(sizes=(3, 2, 1))
    learner = learn(build(covariance="common"), stream=stream)
    parts = [np.cov((phi(learner.net, stream[t].train.images) ** 0.5).numpy().T) for t in range(3)]
    expected = np.average(parts, axis=0, weights=[3, 2, 1])
    np.testing.assert_allclose(learner.common, expected, rtol=1e-4, atol=1e-6)
    inverse = np.linalg.pinv(fecam.shrunk(torch.from_numpy(expected), 1.0, 1.0).numpy(), hermitian=True)
    np.testing.assert_allclose(learner.precisions[0], inverse, rtol=1e-3, atol=1e-3)


def test_without_its_parts_it_is_the_nearest_class_mean_by_cosine():
    stream, learner = small_stream(), build(**PLAIN)
    learn(learner, stream=stream)
    x = stream.test.images
    means = torch.stack(
        [
            phi(learner.net, stream[t].train.images[stream[t].train.labels == label]).mean(0)
            for t in range(3)
            for label in range(stream[t].first, stream[t].seen)
        ]
    )
    cosines = F.normalize(phi(learner.net, x)) @ F.normalize(means).T
    with torch.no_grad():
        found = learner(x / 255)
    torch.testing.assert_close(found.double(), 2 * cosines - 2, rtol=1e-4, atol=1e-5)
    assert found.argmax(1).tolist() == cosines.argmax(1).tolist()


def test_the_network_is_frozen_after_the_first_task():
    """Weights and the statistics of batch normalisation, bit for bit; they do move in the first task."""
    learner, start = build(net="norm"), build(net="norm")
    learn(learner, [0])
    assert not same(learner.net, start.net)
    before = {name: tensor.clone() for name, tensor in learner.net.state_dict().items()}
    learner.train()
    learn(learner, [1, 2])
    assert all(torch.equal(before[name], tensor) for name, tensor in learner.net.state_dict().items())


@pytest.mark.parametrize("settings", [{}, {"covariance": "common"}, PLAIN])
def test_the_first_task_is_trained_like_finetuning(settings):
    """The classifier's settings do not reach the features."""
    learner, twin = build(**settings), build()
    learn(learner, [0])
    seed_everything(1, 0)
    optimizer = torch.optim.Adam(twin.net.parameters(), lr=1e-3, fused=True)
    for _ in range(3):
        for x, y in small_stream()[0].train.batches(16):
            optimizer.zero_grad()
            F.cross_entropy(twin.net(x)[:, :2], y).backward()
            optimizer.step()
    assert same(learner.net, twin.net)


def test_stretched_classes_need_their_covariance():
    """Both spread along x, and their means differ obliquely."""
    draw = np.random.default_rng(3)
    parts = [np.array(mean) + draw.normal(size=(400, 2)) * (0.3, 0.02) for mean in ((1, 1), (1.3, 1.1))]
    x, y = torch.from_numpy(np.concatenate(parts)), np.repeat([0, 1], 400)
    means = torch.stack([x[y == k].mean(0) for k in (0, 1)])
    sigmas = torch.stack([fecam.covariance(x[y == k]) for k in (0, 1)])
    own = fecam.mahalanobis(x, means, torch.linalg.inv(sigmas))
    plain = torch.cdist(x, means).square()
    accuracy = [(d.argmin(1).numpy() == y).mean() for d in (own, plain)]
    assert accuracy[0] > accuracy[1] + 0.1


def test_bytes_kept_by_kind():
    """9-7 features: a mean and a matrix for each class, or one matrix and its inverse."""
    for covariance, matrices in (("class", (2, 4, 6)), ("common", (2, 2, 2)), ("none", (0, 0, 0))):
        config = Config(**SMALL | {"covariance": covariance})
        _, result = run(FeCAM, config, small_stream(), threads=1, progress=False)
        expected = [4 * (7 * seen + 49 * m) for seen, m in zip((2, 4, 6), matrices)]
        assert result.memory_bytes["features"].tolist() == expected
        assert "exemplars" not in result.memory_bytes


@pytest.mark.parametrize(
    "wrong", [{"covariance": "diagonal"}, {"power": 0.0}, {"gamma_1": -1.0}, {"gamma_2": -1.0}, {"epochs": 0}]
)
def test_settings_that_cannot_work_are_refused(wrong):
    with pytest.raises(LearnerError, match=next(iter(wrong))):
        Config(**wrong)
