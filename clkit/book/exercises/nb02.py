"""Exercises of notebook 02: a stronger penalty, the Fisher information of one layer."""

import numpy as np

from clkit.book.exercises.functions import FunctionCheck
from clkit.book.exercises.verdict import AnswerError, checker, guesses, off


@checker
def check_stronger(prediction, results):
    """Final average accuracy of a stronger penalty, class-incremental and task-aware; right within 5 points.

    prediction: {"class-incremental": percent, "task-aware": percent}; results: its seeds.
    """
    one, aware = "class-incremental", "task-aware"
    measured = {one: np.mean([r.average() for r in results])}
    measured[aware] = np.mean([r.task_aware_average() for r in results])
    guess = guesses(prediction, measured, "a percentage")
    wrong = off(guess, measured)
    said = f"Measured: {' and '.join(f'{100 * m:.1f} % {asked}' for asked, m in measured.items())}."
    if not wrong:
        return (
            f"{said} A penalty of any strength holds old weights only. It cannot hold the rows of the new "
            "classes, which had no importance when they were new."
        )
    if guess[one] > guess[aware]:
        why = "Fewer classes compete in the task-aware score, so it is never the lower one."
    elif one not in wrong:
        why = "Task-aware, only the two classes of a pair compete, and a penalty holds their difference."
    elif guess[one] > 100 * measured[one]:
        why = "The rows of new classes have importance 0: a penalty of any strength leaves their logits free."
    else:
        why = "How many of the five tasks does the network still answer well, however strong the penalty is?"
    raise AnswerError(f"{said} {why}")


def fisher_solution(p, x):
    """Diagonal Fisher information (K, D) of the weights of a softmax layer: p (N, K), x (N, D)."""
    return (p * (1 - p)).T @ x**2 / len(x)


def _random_layer(n, classes, d):
    random = np.random.default_rng(6)
    return random.dirichlet(np.ones(classes), size=n), random.normal(size=(n, d))


check_fisher = FunctionCheck(
    fisher_solution,
    "$p_k (1 - p_k)\\,x_d^2$, averaged over the images: zero where the network is certain, largest where it "
    "is undecided.",
    [_random_layer(6, 3, 4), _random_layer(1, 2, 2), _random_layer(50, 10, 6)],
    {
        "You squared $p_k$ as if no class were ever the label. Class k *is* the label with probability "
        "$p_k$.":
            lambda p, x: (p**2).T @ x**2 / len(x),
        "The factor $1 - p_k$ is missing: the variance of a 0-1 variable is $p_k (1 - p_k)$.":
            lambda p, x: p.T @ x**2 / len(x),
        "Square the input: the gradient with respect to $w_{kd}$ has the factor $x_d$, its square $x_d^2$.":
            lambda p, x: (p * (1 - p)).T @ x / len(x),
        "Divide by the number of images: it is a mean.": lambda p, x: (p * (1 - p)).T @ x**2,
        "This is the square of a mean gradient. Square the gradient of each image first, then average.":
            lambda p, x: ((p * (1 - p)).T @ x / len(x))**2,
        "You used the most likely label. Average over all labels, weighted by their probabilities.":
            lambda p, x: ((p - np.eye(p.shape[1])[p.argmax(axis=1)])**2).T @ x**2 / len(x),
    },
    "Work out one weight for a single image on paper.",
    "One row for each class, one column for each input.",
)  # fmt: skip
