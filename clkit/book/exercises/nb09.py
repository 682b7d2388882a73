"""Exercises of notebook 09: what similarity sees and what it does not, and linear CKA."""

import numpy as np

from clkit.book.exercises.functions import FunctionCheck
from clkit.book.exercises.verdict import AnswerError, checker, guesses

NEAR = 0.1  # error of a right prediction
SAME_UNITS, OTHER_IMAGES, NOISE = "units permuted", "images shuffled", "noise added"


@checker
def check_similarity(prediction, measured):
    """SVCCA between a layer's features and three changed copies of them; right within 0.1.

    prediction, measured: {"units permuted", "images shuffled", "noise added": SVCCA}; the noise has the
    standard deviation of all features together.
    """
    guess = guesses(prediction, (SAME_UNITS, OTHER_IMAGES, NOISE), "a number from 0 to 1")
    if not all(0 <= g <= 1 for g in guess.values()):
        raise AnswerError("A canonical correlation is a number from 0 to 1, and SVCCA is a mean of them.")
    said = f"Measured: {', '.join(f'{name} {m:.2f}' for name, m in measured.items())}."
    wrong = [name for name, m in measured.items() if not abs(guess[name] - m) <= NEAR]
    if not wrong:
        return (
            f"{said} The units may come in any order, the images may not. Noise hits the small directions "
            "hardest, and the mean over directions gives each the same weight."
        )
    if SAME_UNITS in wrong:
        why = "A permutation of the units is a rotation of the space that they span: which directions change?"
    elif OTHER_IMAGES in wrong and guess[OTHER_IMAGES] > 0.9:
        why = "Row n of both sides must be the same image. What is left if it is another one?"
    elif OTHER_IMAGES in wrong:
        why = "Without a common image only chance is left: how large is the floor with so many datapoints?"
    elif guess[NOISE] > measured[NOISE]:
        why = (
            "The noise is as large as the features on average. Most of the directions that are kept have far "
            "less variance than the average, and the noise drowns them."
        )
    else:
        why = "The largest directions have more variance than the noise, and survive it."
    raise AnswerError(f"{said} {why}")


def linear_cka_solution(A, B):
    """Linear CKA of two representations A (n, p), B (n, q) of the same n images."""
    A, B = A - A.mean(axis=0), B - B.mean(axis=0)
    norm = np.linalg.norm
    return norm(A.T @ B) ** 2 / (norm(A.T @ A) * norm(B.T @ B))


def _parts(A, B):
    A, B = A - A.mean(axis=0), B - B.mean(axis=0)
    return A, B, A.T @ B, np.linalg.norm(A.T @ A) * np.linalg.norm(B.T @ B)


def _raw(A, B):
    return np.linalg.norm(A.T @ B) ** 2 / (np.linalg.norm(A.T @ A) * np.linalg.norm(B.T @ B))


def _whole_mean(A, B):
    return _raw(A - A.mean(), B - B.mean())


def _by_image(A, B):
    return _raw(A - A.mean(axis=1, keepdims=True), B - B.mean(axis=1, keepdims=True))


def _of_norms(A, B):
    A, B, cross, _ = _parts(A, B)
    return np.linalg.norm(cross) ** 2 / (np.linalg.norm(A) ** 2 * np.linalg.norm(B) ** 2)


def _random_pair(seed, n, p, q):
    random = np.random.default_rng(seed)
    A = random.normal(size=(n, p)) + 1
    return A.round(2), (A @ random.normal(size=(p, q)) + random.normal(size=(n, q)) - 2).round(2)


check_linear_cka = FunctionCheck(
    linear_cka_solution,
    "A cosine of two matrices: the products of datapoints of one representation against those of the other. "
    "With centred columns a shift changes nothing, and the norms remove the scale.",
    [_random_pair(9, 5, 2, 2), _random_pair(10, 12, 3, 5), _random_pair(11, 30, 6, 2)],
    {
        "You did not remove the means. Subtract the mean of each column first: a shift of a unit is no "
        "difference.": _raw,
        "You removed one mean for the whole matrix. Each unit, each column, has its own.": _whole_mean,
        "You removed the mean of each *row*. Images are rows, so the mean of a unit is over rows: `axis=0`.":
            _by_image,
        "Square the norm of $A^T B$: above and below the line, everything has the fourth power of a feature.":
            lambda A, B: np.linalg.norm(_parts(A, B)[2]) / _parts(A, B)[3],
        "You took the root. That is the cosine's root: leave the square above the line.":
            lambda A, B: np.sqrt(linear_cka_solution(A, B)),
        "Below the line stand the norms of $A^T A$ and $B^T B$, not their squares.":
            lambda A, B: np.linalg.norm(_parts(A, B)[2])**2 / _parts(A, B)[3]**2,
        "Below the line stand the norms of $A^T A$ and $B^T B$, not of $A$ and $B$.": _of_norms,
        "That is the upper part only: divide by the norms, so that a scale changes nothing.":
            lambda A, B: np.linalg.norm(_parts(A, B)[2])**2,
        "That is one minus CKA, a distance. Return the similarity.":
            lambda A, B: 1 - linear_cka_solution(A, B),
    },
    "Work it out for two units each: are the matrices $A^T B$, $A^T A$ and $B^T B$ those of the formula?",
    "Return one number for the two representations.",
    extremes={
        "The two representations may have different numbers of units.": _random_pair(12, 40, 1, 7),
    },
)  # fmt: skip
