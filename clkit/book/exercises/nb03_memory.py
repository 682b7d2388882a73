"""Exercise of notebook 03: the accuracy of replay with few and with many exemplars."""

import numpy as np

from clkit.book.exercises.verdict import AnswerError, checker, guesses


@checker
def check_exemplars(prediction, results, tolerance=10.0):
    """Final average accuracy of replay by the number of exemplars.

    prediction: {exemplars: percent}; results: {exemplars: its seeds}, for two numbers of exemplars or more;
    tolerance: in points.
    """
    guess = guesses(prediction, results, "a number, in percent,", "exemplars")
    measured = {m: 100 * np.mean([r.average() for r in seeds]) for m, seeds in results.items()}
    wrong = [m for m, percent in measured.items() if not abs(guess[m] - percent) <= tolerance]
    if wrong and any(0 < guess[m] <= 1 for m in wrong):
        raise AnswerError("Give percentages, such as 35, not fractions, such as 0.35.")
    if not all(0 <= g <= 100 for g in guess.values()):
        raise AnswerError("An accuracy lies between 0 and 100 %.")
    said = "Measured: " + ", ".join(f"{p:.1f} % with {m:,} exemplars" for m, p in measured.items()) + "."
    few, *_, many = sorted(measured)
    if not wrong and guess[few] < guess[many]:
        return (
            f"{said} One image of a class is enough for its logit to compete in every batch. More images "
            "show how the class varies."
        )
    raise AnswerError(f"{said} {_why(guess, measured, wrong, few, many)}")


def _why(guess, measured, wrong, few, many):
    """A hint on the wrong prediction that is furthest off."""
    if guess[few] >= guess[many]:
        return "More exemplars show more of a class, so accuracy rises with them."
    furthest = max(wrong, key=lambda m: abs(guess[m] - measured[m]))
    low = guess[furthest] < measured[furthest]
    if furthest == few and low:
        return (
            "Even a handful of exemplars appears in every batch, so that no old class is only pushed down: "
            "replay ends well above finetuning."
        )
    if furthest == few:
        return "The network learns these few images by heart, and few images do not show how a class varies."
    if low:
        return "With most of the training images in the memory, replay comes close to joint training."
    return (
        "Not every number of exemplars comes close to joint training: how many images does each class have?"
    )
