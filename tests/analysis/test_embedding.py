"""Maps of features and their numbers: against loops, closed forms, scipy, and cases known in advance."""

import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm
from sklearn.neighbors import NearestCentroid

from clkit.analysis import embedding
from clkit.analysis.embedding import EmbeddingError


def blobs(n=40, classes=3, apart=6.0, d=5, seed=0):
    """Features (n, d) of Gaussian classes with means on different axes, and labels."""
    random = np.random.default_rng(seed)
    labels = np.arange(n) % classes
    return random.normal(size=(n, d)) + apart * np.eye(classes, d)[labels], labels


# ---- the map


def test_a_map_is_reproducible_joint_and_keeps_neighbours():
    (x, y), (z, _) = blobs(60), blobs(30, seed=1)
    first, second = embedding.tsne(x, torch.tensor(z), perplexity=8)
    assert first.shape == (60, 2) and second.shape == (30, 2)
    again = embedding.tsne(x, z, perplexity=8)
    assert np.array_equal(first, again[0]) and np.array_equal(second, again[1])
    means = np.array([first[y == k].mean(0) for k in range(3)])
    for one, labels in ((first, y), (second, np.arange(30) % 3)):
        nearest = ((one[:, None] - means) ** 2).sum(-1).argmin(1)
        assert (nearest == labels).mean() > 0.95


def test_a_plane_has_the_first_principal_components_and_turns_towards_another():
    x, _ = blobs(apart=9.0)
    centred = x - x.mean(0)
    _, vectors = np.linalg.eigh(np.cov(x.T))
    wanted = centred @ vectors[:, [-1, -2]]
    wanted /= np.sqrt((wanted**2).sum(1).mean())
    found = embedding.plane(torch.tensor(x))
    np.testing.assert_allclose(np.abs(found), np.abs(wanted), atol=1e-9)
    Q = np.array([[0.6, 0.8], [0.8, -0.6]])  # a rotation and a mirror
    np.testing.assert_allclose(embedding.plane(7 * x, like=3 * found @ Q), found @ Q, atol=1e-9)
    wide = embedding.plane(np.hstack([x, np.zeros((40, 60))]), like=found)
    np.testing.assert_allclose(wide, found, atol=1e-9)
    line = embedding.plane(x[:, :1])
    assert not line[:, 1].any() and (line**2).sum(1).mean() == pytest.approx(1)
    assert not embedding.plane(np.ones((4, 3))).any()


@pytest.mark.parametrize("perplexity", [1, 30, 34, float("nan")])
def test_a_perplexity_fits_the_number_of_points(perplexity):
    with pytest.raises(EmbeddingError, match=r"needs more than \S+ points, and there are 90"):
        embedding.tsne(blobs(60)[0], blobs(30)[0], perplexity=perplexity)


# ---- two sets


def slow_mixing(real, other):
    points, right = np.concatenate([real, other]), 0
    for i, p in enumerate(points):
        distances = [np.linalg.norm(p - q) if i != j else np.inf for j, q in enumerate(points)]
        right += (int(np.argmin(distances)) < len(real)) == (i < len(real))
    return right / len(points)


def test_mixing_is_the_leave_one_out_accuracy_of_the_nearest_neighbour():
    random = np.random.default_rng(0)
    for shift in (0, 0.5, 1):
        a, b = random.normal(size=(40, 3)), random.normal(size=(40, 3)) + shift
        assert embedding.mixing(a, torch.tensor(b)) == pytest.approx(slow_mixing(a, b))
    a, b = random.normal(size=(400, 4)), random.normal(size=(400, 4))
    assert embedding.mixing(a, b) == pytest.approx(0.5, abs=0.06)
    assert embedding.mixing(a, b + 9) == 1
    assert embedding.mixing(a, a) == 0  # each point has a copy in the other set
    with pytest.raises(EmbeddingError, match="40 and 39 points: give equal numbers"):
        embedding.mixing(a[:40], b[:39])


def test_shifts_are_distances_of_class_means_in_units_of_the_spread():
    real, labels = blobs(90)
    other = np.concatenate([real[labels == 0] + [3, 0, 4, 0, 0], real[labels == 1], real[:4]])
    names = np.array([0] * 30 + [1] * 30 + [7] * 4)
    found = embedding.shifts(real, labels, other, torch.tensor(names))
    of_class = real[labels == 0]
    spread = np.sqrt(np.mean([((p - of_class.mean(0)) ** 2).sum() for p in of_class]))
    assert found == {0: pytest.approx(5 / spread), 1: 0.0}
    assert embedding.shifts(10 * real, labels, 10 * other, names) == pytest.approx(found)
    assert np.isnan(embedding.shifts(np.ones((3, 2)), [0, 0, 0], np.ones((3, 2)), [0, 0, 0])[0])


def test_frechet_of_commuting_covariances_has_a_closed_form():
    random = np.random.default_rng(1)
    Q = np.linalg.qr(random.normal(size=(6, 6)))[0]
    a, b, m = random.random(6), 3 * random.random(6), random.normal(size=6)
    for least, rel in ((a[0], 1e-9), (0, 1e-7)):  # singular: the root of a rounding error, 1e-16, is 1e-8
        a[0] = least
        wanted = (m**2).sum() + ((np.sqrt(a) - np.sqrt(b)) ** 2).sum()
        S1, S2 = (Q * a) @ Q.T, (Q * b) @ Q.T
        assert embedding.frechet_of_gaussians(m, np.zeros(6), S1, S2) == pytest.approx(wanted, rel=rel)
        assert embedding.frechet_of_gaussians(np.zeros(6), m, S2, S1) == pytest.approx(wanted, rel=rel)
    assert embedding.frechet_of_gaussians(m, m, S2, S2) == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("d", [1, 4, 12])
def test_frechet_of_features_agrees_with_the_square_root_of_scipy(d):
    random = np.random.default_rng(d)
    a = random.normal(size=(50, d)) @ random.normal(size=(d, d)) + 1
    b = np.abs(random.normal(size=(70, d)) @ random.normal(size=(d, d)))
    S1, S2 = (np.atleast_2d(np.cov(x.T)) for x in (a, b))
    wanted = ((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(S1 + S2 - 2 * sqrtm(S1 @ S2).real)
    assert embedding.frechet(a, b.astype(np.float32)) == pytest.approx(wanted, rel=1e-5)
    assert embedding.frechet(a, torch.tensor(b)) == pytest.approx(embedding.frechet(b, a), rel=1e-9)
    assert embedding.frechet(a, a) == pytest.approx(0, abs=1e-9)
    assert embedding.frechet(a, a + 2) == pytest.approx(4 * d)


def test_frechet_with_fewer_points_than_features_is_finite():
    random = np.random.default_rng(2)
    assert 0 < embedding.frechet(random.normal(size=(8, 30)), random.normal(size=(8, 30))) < 100


# ---- classes


def slow_silhouette(x, y):
    distances = np.linalg.norm(x[:, None] - x, axis=-1)
    values = []
    for i, k in enumerate(y):
        inner = distances[i][(y == k) & (np.arange(len(y)) != i)].mean()
        outer = min(distances[i][y == other].mean() for other in set(y.tolist()) - {int(k)})
        values.append((outer - inner) / max(inner, outer))
    return np.mean(values)


def test_separation_is_the_mean_silhouette():
    x, y = blobs()
    found = embedding.separation(torch.tensor(x), y)
    assert found == pytest.approx(slow_silhouette(x, y)) and found > 0.4
    mixed = embedding.separation(x, np.random.default_rng(0).permutation(y))
    assert mixed == pytest.approx(0, abs=0.1) and mixed < found - 0.3


def test_nearest_mean_is_the_nearest_centroid_of_scikit_learn():
    (x, y), (z, w) = blobs(apart=2.0), blobs(50, apart=2.0, seed=3)
    wanted = NearestCentroid().fit(x, 5 * y).score(z, 5 * w)
    assert embedding.nearest_mean(x, 5 * y, torch.tensor(z), 5 * w) == wanted and 0.5 < wanted < 1


@pytest.mark.parametrize(
    "call, says",
    [
        (lambda x, y: embedding.tsne(x, x[:, :2], perplexity=4), r"same D .* not \(40, 5\) and \(40, 2\)"),
        (lambda x, y: embedding.tsne(x[:, 0], perplexity=4), r"matrices \(n, D\)"),
        (lambda x, y: embedding.mixing(x[:0], x[:0]), "a point or more"),
        (lambda x, y: embedding.frechet(x, x * np.nan), "not finite"),
        (lambda x, y: embedding.frechet(x[:1], x), "two points or more"),
        (
            lambda x, y: embedding.shifts(x, y[:-1], x, y),
            r"40 features need as many labels, not an array \(39,\)",
        ),
        (lambda x, y: embedding.separation(x, 0 * y), "two classes or more"),
        (lambda x, y: embedding.separation(x, np.arange(40)), "two points or more"),
        (lambda x, y: embedding.nearest_mean(x, y, x, y[1:]), "as many labels"),
    ],
)
def test_refusals_are_one_clear_sentence(call, says):
    with pytest.raises(EmbeddingError, match=says):
        call(*blobs())
