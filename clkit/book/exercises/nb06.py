"""Exercises of notebook 06: which part does what, the balance of old and new, and class Gaussians."""

import numpy as np

from clkit.book.exercises.functions import FunctionCheck
from clkit.book.exercises.verdict import AnswerError, checker, guesses

KEPT = ("GFR", "distillation only", "replay only")
NEAR = 15  # percentage points


@checker
def check_kept(prediction, measured):
    """Accuracy on the first task, in percent, after all tasks; right within 15 points.

    prediction, measured: {"GFR", "distillation only", "replay only": percent}.
    """
    guess = guesses(prediction, KEPT, "a percentage")
    if not all(0 <= g <= 100 for g in guess.values()):
        raise AnswerError("Give percentages, numbers from 0 to 100.")
    said = f"Measured: {', '.join(f'{name} {measured[name]:.0f} %' for name in KEPT)}."
    wrong = [name for name in KEPT if not abs(guess[name] - measured[name]) <= NEAR]
    if not wrong:
        return (
            f"{said} Without replay the classifier forgets the old classes although their features are "
            "there; without distillation the features move away from those that are replayed. Only both "
            "together hold."
        )
    if 0 < max(guess.values()) <= 1:
        why = "These look like fractions: give percentages."
    elif "distillation only" in wrong and guess["distillation only"] > measured["distillation only"]:
        why = (
            "Distillation holds the *features*. What does the classifier learn that never sees an old class?"
        )
    elif "replay only" in wrong and guess["replay only"] > measured["replay only"]:
        why = "Replay shows *remembered* features. What does the extractor give for an old image by now?"
    elif "GFR" in wrong and guess["GFR"] < measured["GFR"]:
        why = "With both, the classifier sees old features, and they still fit."
    else:
        why = "Which of the two networks, F or H, does each term reach?"
    raise AnswerError(f"{said} {why}")


# ---- the balance of old and new


def balance_solution(new, old, n_new, n_old):
    """The cross-entropy of a batch in which each class appears equally often.

    new, old: mean cross-entropies of images of n_new new classes and of features of n_old old ones.
    """
    return (n_new * new + n_old * old) / (n_new + n_old)


check_balance = FunctionCheck(
    balance_solution,
    "With r = n_old / n_new it is (new + r old) / (r + 1), the form in the authors' code.",
    [(2.0, 0.5, 2, 10), (0.25, 3.0, 5, 5), (1.0, 4.0, 2, 18), (0.0, 1.5, 10, 50)],
    {
        "That is the plain mean. After the first task there are more old classes than new ones.":
            lambda new, old, a, b: (new + old) / 2,
        "You swapped the two: weigh each loss with the number of *its own* classes.":
            lambda new, old, a, b: (b * new + a * old) / (a + b),
        "You did not divide by the number of classes, so the loss grows with the tasks.":
            lambda new, old, a, b: a * new + b * old,
        "You did not divide by r + 1, so the loss grows with the tasks.":
            lambda new, old, a, b: new + b / a * old,
        "That is the sum. Weigh each loss with the share of its classes.":
            lambda new, old, a, b: new + old,
        "The share of the new classes is missing: they count fully.":
            lambda new, old, a, b: new + b / (a + b) * old,
        "The share of the old classes is missing: they count fully.":
            lambda new, old, a, b: a / (a + b) * new + old,
        "Only the new classes are in your loss.": lambda new, old, a, b: new,
        "Only the old classes are in your loss.": lambda new, old, a, b: old,
    },
    "Imagine a batch with as many examples of each class: what share of them is of old classes?",
    "Return one number.",
    extremes={"In the first task there is no old class: n_old is 0.": (1.5, 0.0, 10, 0)},
)  # fmt: skip


# ---- class Gaussians


def gaussians_solution(features, labels, classes):
    """Mean and standard deviation of the features of each class: (2, K, D).

    features (N, D); labels (N,); classes: their number, K.
    """
    of_class = [features[labels == k] for k in range(classes)]
    return np.stack([[f.mean(axis=0) for f in of_class], [f.std(axis=0) for f in of_class]])


def _changed(change):
    """The solution with its deviations changed: change(deviations, features, labels, classes)."""

    def mistake(features, labels, classes):
        means, spread = gaussians_solution(features, labels, classes)
        return np.stack([means, change(spread, features, labels, classes)])

    return mistake


def _sampled(features, labels, classes):
    of_class = [features[labels == k] for k in range(classes)]
    return np.stack([[f.mean(0) for f in of_class], [f.std(0, ddof=1) for f in of_class]])


def _case(seed, n, d, k):
    random = np.random.default_rng(seed)
    labels = random.permutation(np.arange(n) % k)
    return (random.normal(size=(n, d)) + 2 * labels[:, None]).round(2).clip(0), labels, k


check_gaussians = FunctionCheck(
    gaussians_solution,
    "This is all that the Gaussian variant keeps of a class: 2 D numbers, and no network.",
    [_case(6, 8, 2, 2), _case(7, 40, 3, 4)],
    {
        "Your deviations divide by n - 1. The code divides by n: `ddof=0`, the default of numpy.": _sampled,
        "These are variances: take the root.": _changed(lambda s, *_: s**2),
        "The deviations are those of *all* features. Each class has its own.":
            _changed(lambda s, f, y, k: np.tile(f.std(0), (k, 1))),
        "Each class has one deviation for all dimensions here. It needs one for each.":
            _changed(lambda s, f, y, k: np.stack([np.full(f.shape[1], f[y == c].std()) for c in range(k)])),
        "You swapped the two: first the means, then the deviations.":
            lambda f, y, k: gaussians_solution(f, y, k)[::-1],
        "The means are those of *all* features. Each class has its own.":
            lambda f, y, k: np.stack([np.tile(f.mean(0), (k, 1)), gaussians_solution(f, y, k)[1]]),
        "These are medians. Take means.":
            lambda f, y, k: np.stack(
                [[np.median(f[y == c], 0) for c in range(k)], gaussians_solution(f, y, k)[1]]),
        "You divide the deviations by the root of n: that is the error of the mean.":
            _changed(lambda s, f, y, k: s / np.sqrt(np.bincount(y, minlength=k))[:, None]),
    },
    "Select the rows of one class with `labels == k`, then use `mean(axis=0)` and `std(axis=0)`.",
    "Return means and deviations, each with a row for each class and a column for each dimension.",
    extremes={
        "A class with a single image has a deviation of 0.":
            (np.array([[1.0, 2], [3, 5], [4, 4]]), np.array([0, 1, 1]), 2),
    },
)  # fmt: skip
