"""Two sets of features in one picture, and the numbers that such a picture needs beside it.

A set is a matrix (n, D), a row for each image: features of real images and of recalled ones, or of two
networks. The functions take arrays or tensors.

    tsne(real, recalled)               one map of both, (n, 2) each (van der Maaten and Hinton 2008)
    plane(features, like)              the first two principal components, turned to agree with another map
    mixing(real, recalled)             can the nearest neighbour tell them apart? 0.5 = no
    shifts(real, y, recalled, z)       how far the mean of each class is displaced
    frechet(real, recalled)            distance of two Gaussians with their means and covariances
    separation(x, y), nearest_mean(train, y, test, z)      how well classes are separated

A t-SNE map keeps neighbours, not distances: the size of clusters and the gaps between them mean nothing, and
another perplexity or seed gives another map. The numbers are of the features themselves.
"""

import numpy as np

from clkit.errors import ClkitError


class EmbeddingError(ClkitError):
    """Features that cannot be embedded or compared; the message says why and what to give instead."""


def tsne(*sets, perplexity=30.0, seed=0):
    """One t-SNE map of all sets together, from a start by PCA: a list with an array (n, 2) for each set.

    perplexity: about the number of neighbours that count for each point; EmbeddingError unless there are more
    than three times as many points.   seed: of the few random choices. The same features give the same map.
    """
    from sklearn.manifold import TSNE

    sets = _matrices(*sets)
    n = sum(map(len, sets))
    if not 1 < perplexity < n / 3:
        raise EmbeddingError(
            f"a perplexity of {perplexity:g} needs more than {3 * perplexity:.0f} points, and there are {n}: "
            "give more features, or a perplexity above 1 and below a third of their number"
        )
    map_ = TSNE(perplexity=perplexity, init="pca", random_state=seed).fit_transform(np.concatenate(sets))
    return np.split(map_, np.cumsum([len(x) for x in sets])[:-1])


def plane(features, like=None):
    """The first two principal components (n, 2) of features (n, D), scaled to a mean squared length of 1.

    like: a map (n, 2) of the same images; the plane is rotated, and mirrored if need be, towards it, because
    the directions of its axes mean nothing.
    """
    (x,) = _matrices(features)
    x = x - x.mean(0)
    wide = x.shape[1] > len(x)  # then from the products of points, (n, n)
    squares, vectors = np.linalg.eigh(x @ x.T if wide else x.T @ x)
    first = vectors[:, :-3:-1]  # of the largest eigenvalues, which come last
    points = first * np.sqrt(squares[:-3:-1].clip(0)) if wide else x @ first
    points = np.pad(points, ((0, 0), (0, 2 - points.shape[1])))
    points /= np.sqrt((points**2).sum(axis=1).mean()) or 1
    if like is None:
        return points
    U, _, V = np.linalg.svd(points.T @ np.asarray(like))  # the orthogonal matrix closest to it (Procrustes)
    return points @ (U @ V)


# ---- are two sets the same?


def mixing(real, other):
    """Share of all points whose nearest other point is of their own set: the leave-one-out 1-NN accuracy.

    0.5: the sets cannot be told apart; 1: they do not touch; 0: each point of one set copies one of the
    other. EmbeddingError unless both have the same number of points, because chance is not 0.5 otherwise.
    """
    from sklearn.neighbors import NearestNeighbors

    real, other = _matrices(real, other)
    if len(real) != len(other):
        raise EmbeddingError(
            f"the sets have {len(real)} and {len(other)} points: give equal numbers, so that chance is 0.5"
        )
    points, of_other = np.concatenate([real, other]), np.arange(2 * len(real)) >= len(real)
    nearest = NearestNeighbors(n_neighbors=1).fit(points).kneighbors(return_distance=False)[:, 0]
    return float((of_other[nearest] == of_other).mean())


def shifts(real, labels, other, other_labels):
    """{class: distance between the means of its two sets, as a multiple of the spread of the real one}.

    The spread is the root of the mean squared distance of real features from their mean. Classes that only
    one set has are left out.
    """
    real, other = _matrices(real, other)
    labels, other_labels = _labels(labels, real), _labels(other_labels, other)
    found = {}
    for k in np.intersect1d(labels, other_labels).tolist():
        of_class, mean = real[labels == k], other[other_labels == k].mean(0)
        spread = np.sqrt(of_class.var(0).sum())
        found[k] = float(np.linalg.norm(of_class.mean(0) - mean) / spread) if spread > 0 else np.nan
    return found


def frechet(real, other):
    """Fréchet distance (squared) of two sets, as of Gaussians (Heusel et al. 2017, with any features).

    |m1 - m2|^2 + tr(S1 + S2 - 2 (S1 S2)^(1/2)), with unbiased covariances S, in float64. It is biased: of few
    points, two samples of one distribution are far from 0. Compare equal numbers of points only.
    """
    real, other = _matrices(real, other)
    if min(len(real), len(other)) < 2:
        raise EmbeddingError("a covariance needs two points or more in each set")
    covariances = (np.atleast_2d(np.cov(x, rowvar=False)) for x in (real, other))
    return frechet_of_gaussians(real.mean(0), other.mean(0), *covariances)


def frechet_of_gaussians(m1, m2, S1, S2):
    """The same of two means (D,) and covariances (D, D).

    tr (S1 S2)^(1/2) is that of the symmetric R S2 R with R = S1^(1/2), so eigenvalues are real and not below
    0 but for rounding.
    """
    values, vectors = np.linalg.eigh(S1)
    root = (vectors * np.sqrt(values.clip(0))) @ vectors.T
    shared = np.sqrt(np.linalg.eigvalsh(root @ S2 @ root).clip(0)).sum()
    return float(((m1 - m2) ** 2).sum() + np.trace(S1) + np.trace(S2) - 2 * shared)


# ---- are classes separated?


def separation(features, labels):
    """Mean silhouette of the classes in [-1, 1]: near 1 apart, 0 overlapping, below 0 mixed up."""
    from sklearn.metrics import silhouette_score

    (features,) = _matrices(features)
    labels = _labels(labels, features)
    if not 1 < len(np.unique(labels)) < len(labels):
        raise EmbeddingError("a silhouette needs two classes or more, one of them with two points or more")
    return float(silhouette_score(features, labels))


def nearest_mean(train, labels, test, test_labels):
    """Accuracy on `test` of choosing the class with the nearest mean of `train`."""
    train, test = _matrices(train, test)
    classes, index = np.unique(_labels(labels, train), return_inverse=True)
    means = np.stack([train[index == k].mean(0) for k in range(len(classes))])  # (K, D)
    nearest = (test**2).sum(1)[:, None] - 2 * test @ means.T + (means**2).sum(1)  # squared distances (N, K)
    return float((classes[nearest.argmin(axis=1)] == _labels(test_labels, test)).mean())


# ---- arguments


def _array(x):
    return np.asarray(x.detach().cpu() if hasattr(x, "detach") else x)


def _matrices(*sets):
    """Sets of features as float64 matrices (n, D) with the same D."""
    sets = [_array(x).astype(np.float64) for x in sets]
    shapes = " and ".join(str(x.shape) for x in sets)
    if any(x.ndim != 2 or not len(x) for x in sets) or len({x.shape[1] for x in sets}) != 1:
        raise EmbeddingError(
            f"features are matrices (n, D) with the same D and a point or more, not {shapes}"
        )
    if not all(np.isfinite(x).all() for x in sets):
        raise EmbeddingError("some features are not finite: leave out these rows")
    return sets


def _labels(labels, features):
    labels = _array(labels)
    if labels.shape != (len(features),):
        raise EmbeddingError(f"{len(features)} features need as many labels, not an array {labels.shape}")
    return labels
