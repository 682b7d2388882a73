"""Exercises of notebook 02: a stronger penalty, herding, the Fisher information of one layer."""

import operator

import numpy as np

from clkit.book.exercises.verdict import AnswerError, array, call, checker, guesses, hint, off, short


@checker
def check_stronger(prediction, results, tolerance=0.1):
    """Final average accuracy of a stronger penalty, class-incremental and task-aware.

    prediction: {"class-incremental": percent, "task-aware": percent}; results: its seeds; tolerance: how far
    off may be right, a fraction.
    """
    measured = {
        "class-incremental": np.mean([r.average() for r in results]),
        "task-aware": np.mean([r.task_aware_average() for r in results]),
    }
    guess = guesses(prediction, measured, "two numbers, in percent,")
    wrong = off(guess, measured, tolerance)
    said = f"Measured: {' and '.join(f'{100 * m:.1f} % {asked}' for asked, m in measured.items())}."
    if not wrong:
        return (
            f"{said} A penalty holds old weights, at any strength. It cannot hold the rows of the new "
            "classes, which had no importance when they were new."
        )
    if "class-incremental" not in wrong:
        what = "their difference is what a penalty holds"
        why = f"Task-aware, only the two classes of a pair compete, and {what}."
    elif guess["class-incremental"] / 100 > measured["class-incremental"]:
        why = (
            "The rows of the new classes have importance 0, so that no strength keeps their logits from "
            "rising above the old ones, on old images, too."
        )
    else:
        why = "How many of the five tasks are answered well at the end, however strong the penalty is?"
    raise AnswerError(f"{said} {why}")


def herding_solution(features, mu, m):
    """The indices of m images, a list: each choice brings the mean of all chosen as close to mu as it can.

    features: (N, D); mu: (D,).
    """
    chosen, total = [], np.zeros(len(mu))
    for k in range(1, m + 1):
        gaps = np.linalg.norm(mu - (total + features) / k, axis=1)  # (N,)
        gaps[chosen] = np.inf  # an image is chosen once
        chosen.append(int(gaps.argmin()))
        total = total + features[chosen[-1]]
    return chosen


def _greedy(divisor):
    """Herding whose sum of the k features chosen is divided by divisor(k, m)."""

    def herd(features, mu, m):
        chosen = []
        for k in range(1, m + 1):
            total = features[chosen].sum(axis=0) + features  # (N, D)
            gaps = np.linalg.norm(mu - total / divisor(k, m), axis=1)
            gaps[chosen] = np.inf
            chosen.append(int(gaps.argmin()))
        return chosen

    return herd


_HERDING_COMMON_MISTAKES = {
    "These are the images *nearest* to `mu`, each for itself. Herding looks at the mean of all chosen: an "
    "image on the other side may be better than a second one like the first.":
        lambda features, mu, m: np.argsort(np.linalg.norm(mu - features, axis=1))[:m].tolist(),
    "You compare `mu` with the *sum* of the features. Divide by the number of images in it.":
        _greedy(lambda k, m: 1),
    "You divide by `m` from the start. At the k-th choice there are k images in the mean.":
        _greedy(lambda k, m: m)}  # fmt: skip


@checker
def check_herding(function):
    """Check a function like `herding_solution` on random features of length 1."""
    random = np.random.default_rng(5)
    for n, d, m in ((12, 3, 6), (40, 8, 15)):
        features = random.normal(size=(n, d)) + 0.5
        features /= np.linalg.norm(features, axis=1, keepdims=True)
        mu = features.mean(axis=0)
        chosen = _choice(call(function, features.copy(), mu.copy(), m), m, n)
        right = herding_solution(features, mu, m)
        if chosen != right:
            k = next(k for k in range(m) if chosen[k] != right[k]) + 1
            mine, best = (np.linalg.norm(mu - features[c[:k]].mean(axis=0)) for c in (chosen, right))
            otherwise = "Try every image that is left, and take the one with the smallest."
            why = hint(_HERDING_COMMON_MISTAKES, (features, mu, m), chosen, operator.eq, otherwise)
            raise AnswerError(
                f"The mean of your first {k} images is {mine:.4f} away from `mu`; with image {right[k - 1]} "
                f"as number {k} it would be {best:.4f}. {why}"
            )
    return (
        "Each choice makes up for what the mean still lacks. Cut the list anywhere, and what is left is a "
        "good sample of its size."
    )


def _choice(value, m, n):
    """The value as a list of m different indices below n."""
    try:
        chosen = [int(i) for i in value]
    except (TypeError, ValueError):
        advice = " Did you forget `return`?" if value is None else ""
        raise AnswerError(
            f"A list of {m} indices should come back, and it is {short(value)}.{advice}"
        ) from None
    if len(chosen) != m or not all(0 <= i < n for i in chosen):
        raise AnswerError(f"{m} indices from 0 to {n - 1} should come back, and it is {short(chosen)}.")
    if len(set(chosen)) < m:
        raise AnswerError("An image is chosen twice: leave out those that are chosen already.")
    return chosen


def fisher_solution(p, x):
    """Diagonal Fisher information (K, D) of the weights of a softmax layer: p (N, K), x (N, D)."""
    return (p * (1 - p)).T @ x**2 / len(x)


_FISHER_COMMON_MISTAKES = {
    "You squared the probabilities as if no class were ever the right one. The class k *is* the label with "
    "probability $p_k$: average $(p_k - [k = y])^2$ over $y$.":
        lambda p, x: (p**2).T @ x**2 / len(x),
    "The input is not squared: the gradient in $w_{kd}$ has the factor $x_d$, its square $x_d^2$.":
        lambda p, x: (p * (1 - p)).T @ x / len(x),
    "Divide by the number of images: it is a mean.":
        lambda p, x: (p * (1 - p)).T @ x**2,
    "This is the square of a mean gradient. Square the gradient of each image first, then average: otherwise "
    "images cancel one another.":
        lambda p, x: ((p * (1 - p)).T @ x / len(x))**2,
    "You took one label for each image, the likeliest. With the expected label each class counts, as often "
    "as its probability says.":
        lambda p, x: ((p - np.eye(p.shape[1])[p.argmax(axis=1)])**2).T @ x**2 / len(x)}  # fmt: skip


@checker
def check_fisher(function):
    """Check a function like `fisher_solution` on random probabilities and inputs."""
    random = np.random.default_rng(6)
    for n, classes, d in ((5, 3, 4), (1, 2, 2), (50, 10, 6)):
        p = random.dirichlet(np.ones(classes), size=n)
        x = random.normal(size=(n, d))
        value, right = call(function, p.copy(), x.copy()), fisher_solution(p, x)
        got = array(value)
        if got is None or got.shape != right.shape:
            turned = got is not None and got.shape == right.T.shape
            advice = " You turned it round: a row for each class." if turned else ""
            advice = " Did you forget `return`?" if value is None else advice
            came = short(value) if got is None or got.size <= 1 else f"one of shape {got.shape}"
            raise AnswerError(f"A matrix of shape {right.shape} should come back, and it is {came}.{advice}")
        if not np.allclose(got, right):
            otherwise = "Write the case of one image and one weight out on paper."
            why = hint(_FISHER_COMMON_MISTAKES, (p, x), got, np.allclose, otherwise)
            raise AnswerError(
                f"For {n} images, {classes} classes and {d} inputs your first entry is {got.flat[0]:.4g}, "
                f"and it is {right.flat[0]:.4g}. {why}"
            )
    return (
        "$p_k (1 - p_k)\\,x_d^2$, averaged over the images: nothing where the network is certain, most where "
        "it hesitates."
    )
