"""The exercise on the number of exemplars: predictions that hold pass, others fail with the reason."""

import dataclasses

import numpy as np
import pytest

from clkit.book import exercises


def ends_at(average):
    """A Result of five tasks of two digits whose average accuracy at the end is `average`, in tenths."""
    labels = np.arange(100, dtype=np.int16) % 10
    wrong = np.arange(100) // 10 >= round(10 * average)
    rows = np.tile(np.where(wrong, (labels + 2) % 10, labels).astype(np.int16), (5, 1))
    names = list("0123456789")
    return dataclasses.replace(
        exercises.worked_example(), classes_per_task=(2,) * 5, names=names, labels=labels, predictions=rows
    )


MEASURED = {10: [ends_at(0.4), ends_at(0.5)], 1000: [ends_at(1.0), ends_at(0.9)]}  # 45 % and 95 %

RIGHT = [{10: 45, 1000: 95}, {10: 36, 1000: 99.5}, {10: 55.0, 1000: np.float32(85)}, {1000: 95, 10: 40, 5: 3}]

WRONG = [
    ({10: ..., 1000: ...}, "Predict before you look"),
    (..., "Predict before you look"),
    (None, "Predict before you look"),
    ([45, 95], "Predict before you look"),
    ({10: 45}, "for 1000 exemplars"),
    ({"10": 45, "1000": 95}, "for 10 and 1000 exemplars"),
    ({10: "half", 1000: 95}, "for 10 exemplars"),
    ({10: 0.45, 1000: 0.95}, "percentages"),
    ({10: 45, 1000: 0.95}, "percentages"),
    ({10: 45, 1000: 104}, "between 0 and 100"),
    ({10: -1, 1000: 95}, "between 0 and 100"),
    ({10: float("nan"), 1000: 95}, "between 0 and 100"),
    ({10: float("inf"), 1000: 95}, "between 0 and 100"),
    ({10: 95, 1000: 45}, "rises with them"),
    ({10: 60, 1000: 60}, "rises with them"),
    ({10: 20, 1000: 95}, "well above finetuning"),
    ({10: 34, 1000: 95}, "well above finetuning"),
    ({10: 80, 1000: 95}, "by heart"),
    ({10: 56, 1000: 95}, "by heart"),
    ({10: 45, 1000: 70}, "close to joint training"),
    ({10: 45, 1000: 84}, "close to joint training"),
]


@pytest.mark.parametrize("prediction", RIGHT, ids=str)
def test_a_prediction_within_ten_points_passes(prediction):
    verdict = exercises.check_exemplars(prediction, MEASURED)
    assert verdict and "Measured: 45.0 % with 10 exemplars, 95.0 % with 1,000 exemplars." in verdict.message


@pytest.mark.parametrize("prediction, word", WRONG, ids=str)
def test_another_prediction_fails_with_the_reason(prediction, word):
    verdict = exercises.check_exemplars(prediction, MEASURED)
    assert not verdict and word in verdict.message, verdict


def test_a_memory_in_between_can_be_too_much_as_well():
    measured = MEASURED | {100: [ends_at(0.7)]}
    verdict = exercises.check_exemplars({10: 45, 100: 90, 1000: 95}, measured)
    assert not verdict and "how many images does each class have" in verdict.message
