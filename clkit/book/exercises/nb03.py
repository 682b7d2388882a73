"""Exercises of notebook 03: herding."""

import numpy as np

from clkit.book.exercises.functions import FunctionCheck


def herding_solution(features, mu, m):
    """A list of the indices of m images: each choice brings the mean of the chosen ones closest to mu.

    features: (N, D); mu: (D,).
    """
    chosen, total = [], np.zeros(len(mu))
    for k in range(1, m + 1):
        gaps = np.linalg.norm(mu - (total + features) / k, axis=1)  # (N,)
        gaps[chosen] = np.inf  # an image is chosen once
        chosen.append(int(gaps.argmin()))
        total = total + features[chosen[-1]]
    return chosen


def _greedy(divisor, again=False):
    """Herding that divides the sum of k features by divisor(k, m); again: an image may be chosen twice."""

    def herd(features, mu, m):
        chosen = []
        for k in range(1, m + 1):
            total = features[chosen].sum(axis=0) + features  # (N, D)
            gaps = np.linalg.norm(mu - total / divisor(k, m), axis=1)
            gaps[[] if again else chosen] = np.inf
            chosen.append(int(gaps.argmin()))
        return chosen

    return herd


def _class_of_images(n, d, m):
    """Random features (n, d) of length 1, their normalised mean (d,), and m."""
    features = np.random.default_rng(5).normal(size=(n, d)) + 0.5
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    mu = features.mean(axis=0)
    return features, mu / np.linalg.norm(mu), m


check_herding = FunctionCheck(
    herding_solution,
    "Each choice adds what the mean still lacks. Wherever you cut the list, its beginning is a good sample "
    "of that size.",
    [_class_of_images(12, 3, 6), _class_of_images(40, 8, 15), _class_of_images(9, 4, 1)],
    {
        "These are the images *nearest* to `mu`, each on its own. Look at the mean of all chosen images.":
            lambda features, mu, m: np.argsort(np.linalg.norm(mu - features, axis=1))[:m],
        "You compare `mu` with the *sum* of the features. Divide by the number of images in it.":
            _greedy(lambda k, m: 1),
        "You divide by `m` from the start. At the k-th choice, the mean is over k images.":
            _greedy(lambda k, m: m),
        "You chose an image twice: leave out the images that you have already chosen.":
            _greedy(lambda k, m: k, again=True),
        "These are the right images in another order. Return them in the order of choice.":
            lambda features, mu, m: sorted(herding_solution(features, mu, m)),
        "You return the features of the images. Return their indices.":
            lambda features, mu, m: features[herding_solution(features, mu, m)],
        "You return a mask. Return the indices, in the order of choice.":
            lambda features, mu, m: np.isin(np.arange(len(features)), herding_solution(features, mu, m)),
        "You return the order of all images. Stop after `m`.":
            lambda features, mu, m: herding_solution(features, mu, len(features)),
    },
    "Try every remaining image, and take the one with the smallest distance.",
    "Return one index for each of the `m` images.",
)  # fmt: skip
