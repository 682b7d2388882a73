"""The epoch that validation images choose."""

import math

import numpy as np
import pytest

from clkit.result import by_epoch, chosen, chosen_after
from tests.builders import made

NAN = math.nan


@pytest.fixture
def result():
    """Two tasks of two classes: two epochs, and then three."""
    found = made(sizes=(2, 2))
    found.trace["progress"] = {
        "task": np.array([0, 0, 1, 1, 1]),
        "epoch": np.array([0, 1, 0, 1, 2]),
        "validation": np.array([[0.5, NAN], [1, NAN], [0.2, 0.4], [0.8, 0.8], [0.6, 1.0]]),
        "test": np.array([[0.9, NAN], [0.7, NAN], [1, 1], [0.5, 0.7], [0.9, 0.9]]),
    }
    return found


def test_the_first_of_the_best_validation_epochs_is_chosen_and_not_the_best_test_epoch(result):
    assert chosen(result) == [(1, 0.7), (1, pytest.approx(0.6))]
    assert [chosen_after(result, k) for k in (2, 4)] == [0.7, pytest.approx(0.6)]
    assert math.isnan(chosen_after(result, 3))  # no task ends with three classes


def test_accuracy_by_epoch_is_the_mean_over_the_tasks_learned(result):
    test, val = by_epoch(result), by_epoch(result, "validation")
    assert [stage.tolist() for stage in test] == [[0.9, 0.7], [1, pytest.approx(0.6), 0.9]]
    assert [stage.tolist() for stage in val] == [[0.5, 1], pytest.approx([0.3, 0.8, 0.8])]


@pytest.mark.parametrize("lacking", ["validation", "progress"])
def test_without_validation_images_no_epoch_is_chosen(result, lacking):
    (result.trace if lacking == "progress" else result.trace["progress"]).pop(lacking)
    assert chosen(result) == by_epoch(result) == [] and math.isnan(chosen_after(result, 4))
