"""The exercises: each checker passes its solution, and fails the stub and the usual slips with the reason."""

import dataclasses

import numpy as np
import pytest

from clkit import exercises


def stub(*_):
    raise NotImplementedError


def result(predictions, names="0123456789"):
    """A Result of five tasks of two digits that ends with these predictions."""
    example, n = exercises.worked_example(), len(predictions)
    rows = np.tile(np.array(predictions, dtype=np.int16), (5, 1))
    labels = np.arange(n, dtype=np.int16) % 10
    return dataclasses.replace(example, sizes=(2,) * 5, names=list(names), labels=labels, predictions=rows)


def tasks_of(average):
    """A stand-in for a Result with this average accuracy."""
    class Known:
        def average(self):
            return average
    return Known()


# ---- what a verdict is

def test_a_verdict_counts_as_its_truth_and_reads_as_a_sentence():
    good, bad = exercises.Verdict(True, "Like `that`."), exercises.Verdict(False, "It is $T$.")
    assert good and not bad
    assert (repr(good), repr(bad)) == ("Right. Like that.", "Not yet. It is T.")
    assert "**Right.** Like `that`." in good._repr_markdown_()
    assert "**Not yet.** It is $T$." in bad._repr_markdown_()


# ---- the worked example

def test_the_worked_example_has_the_scores_that_the_notebook_counts():
    r = exercises.worked_example()
    nan = np.nan
    assert np.array_equal(r.accuracy(), [[0.5, nan, nan], [0.75, 1, nan], [0.25, 0.5, 1]], equal_nan=True)
    assert r.average() == pytest.approx(7 / 12) and r.average("images") == pytest.approx(0.5)
    assert r.incremental() == pytest.approx((0.5 + 0.875 + 7 / 12) / 3)
    assert r.forgetting() == pytest.approx(0.5) and r.backward_transfer() == pytest.approx(-0.375)
    assert r.forward_transfer() == pytest.approx(0.125)


def test_the_worked_example_tells_its_scores_apart():
    r = exercises.worked_example()
    scores = [r.average(), r.average("images"), r.incremental(), -r.backward_transfer(), r.forward_transfer()]
    assert len({round(s, 9) for s in scores}) == len(scores)
    assert r.forgetting() != -r.backward_transfer()


# ---- average accuracy and forgetting

SCORES = {"average": (exercises.check_average, exercises.average_solution, {
              "diagonal": lambda a: np.diag(a).mean(), "all moments": lambda a: np.nanmean(a),
              "`nan`": lambda a: a.mean(), "on paper": lambda a: a[-1].max()}),
          "forgetting": (exercises.check_forgetting, exercises.forgetting_solution, {
              "when the task was new": lambda a: (np.diag(a) - a[-1])[:-1].mean(),
              "That is backward transfer": lambda a: (a[-1] - np.diag(a))[:-1].mean(),
              "all $T$ tasks": lambda a: (np.nanmax(a, axis=0) - a[-1]).mean(),
              "sign is turned": lambda a: (a[-1, :-1] - np.nanmax(a[:-1, :-1], axis=0)).mean(),
              "over all rows": lambda a: (np.nanmax(a, axis=0) - a[-1])[:-1].mean(),
              "`np.nanmax`": lambda a: (a.max(axis=0) - a[-1]).mean(),
              "on paper": lambda a: a[0, 0] - a[-1, 0] + 1})}
SLIPS = [(name, word) for name, (_, _, slips) in SCORES.items() for word in slips]


@pytest.mark.parametrize("name", SCORES)
def test_a_solution_passes_and_a_stub_does_not(name):
    check, solution, _ = SCORES[name]
    assert check(solution)
    verdict = check(stub)
    assert not verdict and "`stub` is still empty" in verdict.message


@pytest.mark.parametrize("name, word", SLIPS)
def test_a_slip_fails_and_is_called_by_its_name(name, word):
    check, _, slips = SCORES[name]
    verdict = check(slips[word])
    assert not verdict and word in verdict.message, verdict


@pytest.mark.parametrize("name", SCORES)
def test_answers_that_are_no_number_or_no_answer_are_explained(name):
    check = SCORES[name][0]
    assert "did you forget `return`" in check(lambda a: None).message
    assert "mean over the tasks" in check(lambda a: a[-1]).message
    verdict = check(lambda a: a["last"])
    assert not verdict and "stopped with IndexError" in verdict.message


def test_the_matrix_is_a_copy_that_the_reader_may_change():
    def changes(a):
        a[np.isnan(a)] = 0
        return a[-1].mean()
    assert exercises.check_average(changes) and exercises.check_average(changes)


# ---- predictions

def test_the_final_classes():
    newest = [result([8, 9] * 20), result([9, 8] * 19 + [0, 1])]
    assert exercises.check_final_classes({"8", "9"}, newest)
    assert exercises.check_final_classes(["9", "8", ...], newest)
    for wrong, word in (({...}, "Replace the dots"), (..., "Replace the dots"), ("89", "Replace the dots"),
                        (set("0123456789"), "last row"), ({"0", "1"}, "In which task"),
                        ({"8"}, "In which task"), ({"eight"}, "no class eight")):
        verdict = exercises.check_final_classes(wrong, newest)
        assert not verdict and word in verdict.message, verdict
    assert "8 and 9" in exercises.check_final_classes({"0"}, newest).message


def test_the_final_classes_of_a_learner_that_remembers():
    every = [result(list(range(10)) * 4)]
    assert exercises.check_final_classes(set("0123456789"), every)
    assert not exercises.check_final_classes({"8", "9"}, every)


def test_one_over_t():
    measured = {2: tasks_of(0.49), 10: tasks_of(0.10)}
    assert exercises.check_one_over_t({2: 50, 10: 10}, measured)
    for wrong, word in (({2: ..., 10: ...}, "Predict before"), ({2: 50}, "for 10 tasks"), (None, "Predict"),
                        ({2: 50, 10: 50}, "off for 10 tasks"), ({2: 90, 10: 90}, "off for 2 and 10"),
                        ({2: 0.5, 10: 0.1}, "percentages"),
                        ([50, 10], "Predict")):
        verdict = exercises.check_one_over_t(wrong, measured)
        assert not verdict and word in verdict.message, verdict


def test_finetuning_in_any_number_of_tasks_ends_at_one_over_t():
    measured = {tasks: exercises.finetuned(tasks, "smoke") for tasks in (2, 10)}
    assert [r.tasks for r in measured.values()] == [2, 10]
    assert exercises.check_one_over_t({2: 50, 10: 10}, measured)


# ---- the reservoir

def newest_only(memory, item, met, size, random):
    memory.append(item)
    del memory[:-size]


def always_in(memory, item, met, size, random):
    if met < size:
        memory.append(item)
    else:
        memory[random.integers(size)] = item


def never_in(memory, item, met, size, random):
    if met < size:
        memory.append(item)


def coin(memory, item, met, size, random):
    if met < size:
        memory.append(item)
    elif random.random() < 0.05:
        memory[random.integers(size)] = item


def overflows(memory, item, met, size, random):
    memory.append(item)


def forgets_to_fill(memory, item, met, size, random):
    place = random.integers(met + 1)
    if place < len(memory):
        memory[place] = item


def repeats(memory, item, met, size, random):
    if met < size:
        memory.append(item)
    else:
        memory[:2] = [item, item]


def not_in_place(memory, item, met, size, random):
    return memory + [item]


def test_reservoir_sampling_passes():
    verdict = exercises.check_reservoir(exercises.reservoir_solution)
    assert verdict and "same chance of 0.100" in verdict.message


@pytest.mark.parametrize("function, word", [
    (stub, "still empty"), (newest_only, "too easily"), (always_in, "too easily"),
    (never_in, "not get in often enough"), (coin, "should be 0.100"), (overflows, "holds 21"),
    (forgets_to_fill, "holds 0 and not 1"), (repeats, "twice"),
    (not_in_place, "in the list `memory` itself"), (lambda *a: a[9], "stopped with IndexError")])
def test_other_ways_to_fill_a_memory_fail(function, word):
    verdict = exercises.check_reservoir(function)
    assert not verdict and word in verdict.message, verdict


@pytest.mark.parametrize("size, offered", [(5, 60), (20, 200)])
def test_the_solution_keeps_every_item_equally_often(size, offered):
    """An oracle of its own: the number of times each item is kept is binomial, checked item by item."""
    random, kept, repeats_ = np.random.default_rng(7), np.zeros(offered), 1000
    for _ in range(repeats_):
        memory = []
        for n in range(offered):
            exercises.reservoir_solution(memory, n, n, size, random)
        kept[memory] += 1
    p = size / offered
    z = (kept - repeats_ * p) / np.sqrt(repeats_ * p * (1 - p))
    assert np.abs(z).max() < 5
