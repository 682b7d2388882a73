"""Scores against hand-computed matrices and plain loops; records load completely or not at all."""

import errno
import hashlib
import json
import math
import os
import re
import stat
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from clkit.errors import FileError
from clkit.result import (
    Interval,
    Result,
    ResultError,
    check_replaces,
    check_summary,
    interval,
    load,
    pack_trace,
    save,
    summary,
    unpack_trace,
    write_atomically,
)
from clkit.result import record as record_module

NAN = float("nan")
ROOT = Path(__file__).resolve().parents[2]


def make(sizes, labels, predictions, aware=None, rank=None, seen=None, seed=0, **more):
    """A Result from plain lists."""
    labels, predictions = np.array(labels, np.int16), np.array(predictions, np.int16)
    stages = len(predictions)
    seen = np.cumsum(sizes)[:stages] if seen is None else np.array(seen)
    aware = np.full((stages + 1, len(labels)), -1) if aware is None else aware
    rank = np.where(predictions < 0, -1, predictions != labels) if rank is None else rank
    facts = {
        "about": {
            "experiment": "finetune/made",
            "seed": seed,
            "preset": "smoke",
            "config": {"epochs": 1},
            "stream": {"data": "made"},
            "versions": {"torch": "0"},
            "device": "cpu",
            "key": "k",
            "date": "d",
            "commit": None,
        },
        "names": [f"class {k}" for k in range(sum(sizes))],
        "groups": None,
        "learn_seconds": np.full(stages, 2.0),
        "test_seconds": np.full(stages, 0.5),
        "n_samples": np.full(stages, 100),
        "parameters": np.full(stages, 7),
        "memory_bytes": {"weights": 28 + np.arange(stages)[::-1]},
        "trace": {},
    }
    return Result(
        classes_per_task=tuple(sizes),
        labels=labels,
        predictions=predictions,
        predictions_task_aware=np.array(aware, np.int16),
        rank=np.array(rank, np.int16),
        seen=seen,
        **{**facts, **more},
    )


# ---- shown


def test_a_result_is_shown_in_one_line_and_as_a_table():
    """Task 1: two of two right at first, one of two at the end; task 2: one of two."""
    r = make((2, 2), [0, 1, 2, 3], [[0, 1, -1, -1], [0, 2, 2, 1]])
    line = "<Result finetune/made, smoke, seed 0, 2 tasks: average accuracy 50.0 %, forgetting 50.0 points>"
    assert repr(r) == str(r) == line and repr([r]) == f"[{line}]"
    rows = dict(re.findall(r'<tr><th scope="row">(.*?)</th><td>(.*?)</td></tr>', r._repr_html_()))
    assert rows == {
        "method": "finetune",
        "benchmark": "made",
        "data": "made",
        "size": "smoke",
        "seed": "0",
        "tasks": "2, of 2, 2 classes",
        "average accuracy": "50.0 %",
        "forgetting": "50.0 points",
    }
    assert r._repr_html_().startswith("<table><caption>Result of finetune on made</caption>")


def test_a_result_that_says_little_of_itself_is_shown_too():
    r = make((2,), [0, 1], [[0, 0]])
    r.about = {"experiment": "a<b/c&d"}
    line = "<Result a<b/c&d, own, seed unknown, 1 task: average accuracy 50.0 %, forgetting none: one stage>"
    assert repr(r) == line
    assert "a&lt;b" in r._repr_html_() and "c&amp;d" in r._repr_html_() and "<b" not in r._repr_html_()
    r.about = {}
    assert repr(r).startswith("<Result unnamed/unnamed, own")


# ---- worked out by hand

# Three tasks of one, two and one class; four, four and two images: 0000 1122 33.
LABELS = [0, 0, 0, 0, 1, 1, 2, 2, 3, 3]
HAND = make(
    (1, 2, 1),
    LABELS,
    predictions=[
        [0, 0, 0, 0, -1, -1, -1, -1, -1, -1],  # 4/4
        [0, 0, 1, 2, 1, 1, 2, 1, -1, -1],  # 2/4, 3/4
        [3, 0, 3, 3, 1, 3, 3, 3, 3, 3],
    ],  # 1/4, 1/4, 2/2
    aware=[
        [0, 0, 0, 0, 2, 2, 2, 2, 3, 3],  # before: 4/4, 2/4, 2/2
        [0, 0, 0, 0, 1, 2, 1, 1, 3, 3],  # 4/4, 1/4, 2/2
        [0, 0, 0, 0, 1, 1, 2, 1, 3, 3],  # 4/4, 3/4, 2/2
        [0, 0, 0, 0, 1, 1, 2, 2, 3, 3],
    ],  # 4/4, 4/4, 2/2
    rank=[
        [0, 0, 0, 0, -1, -1, -1, -1, -1, -1],
        [0, 0, 1, 2, 0, 0, 0, 1, -1, -1],
        [1, 0, 1, 3, 0, 2, 1, 1, 0, 0],
    ],
)


def test_accuracy_by_hand():
    np.testing.assert_array_equal(HAND.accuracy(), [[1, NAN, NAN], [0.5, 0.75, NAN], [0.25, 0.25, 1]])
    np.testing.assert_array_equal(HAND.task_aware_accuracy(), [[1, 0.25, 1], [1, 0.75, 1], [1, 1, 1]])
    np.testing.assert_array_equal(HAND.start_accuracy(), [1, 0.5, 1])
    np.testing.assert_allclose(HAND.averages(), [1, 0.625, 0.5])
    np.testing.assert_allclose(HAND.averages("images"), [1, 5 / 8, 4 / 10])
    assert HAND.average() == 0.5 and HAND.average("images") == 0.4
    assert HAND.incremental() == pytest.approx((1 + 0.625 + 0.5) / 3)
    assert HAND.incremental("images") == pytest.approx((1 + 0.625 + 0.4) / 3)
    assert HAND.task_aware_average() == 1


def test_change_over_time_by_hand():
    np.testing.assert_array_equal(HAND.forgetting_per_task(), [1 - 0.25, 0.75 - 0.25, NAN])
    assert HAND.forgetting() == pytest.approx((0.75 + 0.5) / 2)
    assert HAND.backward_transfer() == pytest.approx(((0.25 - 1) + (0.25 - 0.75)) / 2)
    assert HAND.forward_transfer() == pytest.approx(((0.25 - 0.5) + (1 - 1)) / 2)


def test_forgetting_measures_from_the_best_earlier_stage_and_may_be_negative():
    r = make(
        (1, 1, 1), [0, 0, 1, 1, 2, 2], [[1, 1, -1, -1, -1, -1], [0, 0, 0, 1, -1, -1], [0, 1, 1, 1, 2, 2]]
    )
    np.testing.assert_array_equal(r.accuracy()[:, 0], [0, 1, 0.5])
    np.testing.assert_array_equal(r.forgetting_per_task(), [0.5, -0.5, NAN])
    assert r.forgetting() == 0 and r.backward_transfer() == pytest.approx((0.5 + 0.5) / 2)


def test_finer_views_by_hand():
    np.testing.assert_allclose(HAND.top(1), [1, 5 / 8, 4 / 10])
    np.testing.assert_allclose(HAND.top(2), [1, 7 / 8, 8 / 10])
    np.testing.assert_allclose(HAND.top(5), [1, 1, 1])
    np.testing.assert_array_equal(HAND.per_class(), [0.25, 0.5, 0, 1])
    np.testing.assert_array_equal(HAND.per_class(1), [0.5, 1, 0.5, NAN])
    np.testing.assert_array_equal(HAND.confusion(), [[1, 0, 0, 3], [0, 1, 0, 1], [0, 0, 0, 2], [0, 0, 0, 2]])
    np.testing.assert_array_equal(HAND.confusion(1), [[2, 1, 1], [0, 2, 0], [0, 1, 1]])
    assert HAND.newest_share() == 0.8 and HAND.newest_share(1) == 6 / 8 and HAND.newest_share(0) == 1
    speed = HAND.samples_per_second()
    assert speed["learn"] == pytest.approx(300 / 6) and speed["test"] == pytest.approx((4 + 8 + 10) / 1.5)


def test_the_task_of_an_image_follows_from_its_class():
    assert HAND.tasks == 3 and HAND.task_of.tolist() == [0] * 4 + [1] * 4 + [2] * 2


# ---- against the obvious loops


def random_result(seed, sizes, images=60, merged=False):
    """Random answers of every kind; one stage per task unless merged."""
    draw = np.random.default_rng(seed)
    classes = sum(sizes)
    labels = np.concatenate([np.arange(classes), draw.integers(0, classes, images - classes)])
    seen = [classes] if merged else np.cumsum(sizes)
    predictions = np.array([np.where(labels < k, draw.integers(0, k, images), -1) for k in seen])
    rank = np.array([np.where(labels < k, draw.integers(0, k, images), -1) for k in seen])
    rank = np.where(predictions == labels, 0, np.where(predictions < 0, -1, np.maximum(rank, 1)))
    task = np.searchsorted(np.cumsum(sizes), labels, side="right")
    first = np.array([0, *np.cumsum(sizes)])[task]
    aware = first + (draw.random((len(seen) + 1, images)) * np.array(sizes)[task]).astype(int)
    return make(sizes, labels, predictions, aware, rank, seen, seed=seed)


def share(pairs):
    """Share of equal pairs, NaN without pairs."""
    pairs = list(pairs)
    return sum(a == b for a, b in pairs) / len(pairs) if pairs else NAN


class Slow:
    """Every score again, written as the sentence that defines it."""

    def __init__(self, r):
        self.r, self.labels = r, r.labels.tolist()
        self.stages, self.images = len(r.predictions), range(len(r.labels))
        ends = [sum(r.classes_per_task[: t + 1]) for t in range(len(r.classes_per_task))]
        self.task = [next(t for t, end in enumerate(ends) if k < end) for k in self.labels]
        self.a = self.table(r.predictions)
        self.w = self.table(r.predictions_task_aware)

    def table(self, rows):
        return [
            [
                NAN
                if any(row[n] < 0 for n in self.images if self.task[n] == j)
                else share((row[n], self.labels[n]) for n in self.images if self.task[n] == j)
                for j in range(len(self.r.classes_per_task))
            ]
            for row in rows.tolist()
        ]

    def known(self, i):
        return [n for n in self.images if self.labels[n] < self.r.seen[i]]

    def averages(self, over):
        if over == "images":
            return [
                share((self.r.predictions[i][n], self.labels[n]) for n in self.known(i))
                for i in range(self.stages)
            ]
        scores = [[v for v in row if not math.isnan(v)] for row in self.a]
        return [sum(row) / len(row) for row in scores]

    def forgetting(self):
        drops = []
        for j in range(self.stages - 1):
            earlier = [self.a[i][j] for i in range(j, self.stages - 1)]
            drops.append(max(earlier) - self.a[-1][j])
        return sum(drops) / len(drops) if drops else NAN

    def backward(self):
        gains = [self.a[-1][j] - self.a[j][j] for j in range(self.stages - 1)]
        return sum(gains) / len(gains) if gains else NAN

    def forward(self):
        gains = [self.w[j][j] - self.w[0][j] for j in range(1, self.stages)]  # row j of w: j tasks learned
        return sum(gains) / len(gains) if gains else NAN

    def top(self, k):
        return [
            sum(self.r.rank[i][n] < k for n in self.known(i)) / len(self.known(i)) for i in range(self.stages)
        ]

    def per_class(self, stage):
        return [
            share((self.r.predictions[stage][n], c) for n in self.known(stage) if self.labels[n] == c)
            for c in range(sum(self.r.classes_per_task))
        ]

    def confusion(self, stage):
        k = int(self.r.seen[stage])
        counts = [[0] * k for _ in range(k)]
        for n in self.known(stage):
            counts[self.labels[n]][self.r.predictions[stage][n]] += 1
        return counts

    def newest(self, stage):
        newest = [c for c in range(sum(self.r.classes_per_task)) if c < self.r.seen[stage]][
            -self.r.classes_per_task[stage] :
        ]
        return sum(self.r.predictions[stage][n] in newest for n in self.known(stage)) / len(self.known(stage))


@pytest.mark.parametrize("sizes", [(2,) * 5, (5, 1, 3), (10,), (1, 1, 1, 1)])
@pytest.mark.parametrize("seed", range(3))
def test_scores_agree_with_plain_loops(seed, sizes):
    r = random_result(seed, sizes)
    slow = Slow(r)
    same = np.testing.assert_allclose
    same(r.accuracy(), slow.a)
    same(r.task_aware_accuracy(), slow.w[1:])
    same(r.start_accuracy(), slow.w[0])
    for over in ("tasks", "images"):
        same(r.averages(over), slow.averages(over))
        same(r.average(over), slow.averages(over)[-1])
        same(r.incremental(over), sum(slow.averages(over)) / slow.stages)
    same(r.task_aware_average(), sum(slow.w[-1]) / len(sizes))
    same(r.forgetting(), slow.forgetting(), atol=1e-12)
    same(r.backward_transfer(), slow.backward(), atol=1e-12)
    same(r.forward_transfer(), slow.forward(), atol=1e-12)
    for k in (1, 2, 5):
        same(r.top(k), slow.top(k))
    for stage in range(slow.stages):
        same(r.per_class(stage), slow.per_class(stage))
        np.testing.assert_array_equal(r.confusion(stage), slow.confusion(stage))
        same(r.newest_share(stage), slow.newest(stage))
    same(r.per_class(), slow.per_class(-1))
    assert r.newest_share() == r.newest_share(len(sizes) - 1)


def test_top_one_is_the_average_over_images():
    r = random_result(5, (3, 2, 4))
    np.testing.assert_allclose(r.top(1), r.averages("images"))
    np.testing.assert_allclose(r.top(sum(r.classes_per_task)), 1)


def test_the_two_averages_differ_when_tasks_differ_in_size():
    r = make((1, 1), [0, 0, 0, 1], [[0, 0, 0, -1], [1, 1, 1, 1]])
    assert r.average() == 0.5 and r.average("images") == 0.25
    with pytest.raises(ResultError, match="over must be 'tasks' or 'images', not 'classes'"):
        r.averages("classes")


def test_a_task_s_accuracy_may_be_the_mean_of_its_classes():
    """Three images of class 0, one of class 1; right are first two and one, then one and one."""
    r = make(
        (2, 1),
        [0, 0, 0, 1, 2],
        [[0, 0, 1, 1, -1], [0, 2, 2, 1, 2]],
        aware=[[0, 0, 0, 0, 2], [0, 0, 1, 1, 2], [0, 0, 1, 1, 2]],
    )
    np.testing.assert_allclose(r.accuracy(), [[3 / 4, NAN], [2 / 4, 1]])
    np.testing.assert_allclose(r.accuracy("classes"), [[(2 / 3 + 1) / 2, NAN], [(1 / 3 + 1) / 2, 1]])
    np.testing.assert_allclose(r.averages(task_mean="classes"), [5 / 6, (2 / 3 + 1) / 2])
    assert r.average(task_mean="classes") == pytest.approx(5 / 6) and r.average() == 0.75
    assert r.incremental(task_mean="classes") == pytest.approx(5 / 6)
    assert r.forgetting(task_mean="classes") == pytest.approx(5 / 6 - 2 / 3) and r.forgetting() == 0.25
    assert r.backward_transfer(task_mean="classes") == pytest.approx(2 / 3 - 5 / 6)
    assert r.task_aware_average(task_mean="classes") == pytest.approx((5 / 6 + 1) / 2)
    assert summary([r])["average_accuracy_class_means"]["mean"] == pytest.approx(5 / 6)
    with pytest.raises(ResultError, match="task_mean must be 'images' or 'classes', not 'tasks'"):
        r.accuracy("tasks")
    with pytest.raises(ResultError, match="over='images' does not average tasks"):
        r.average("images", "classes")


@pytest.mark.parametrize("sizes", [(2,) * 3, (1, 4, 2)])
def test_class_means_agree_with_plain_loops(sizes):
    r = random_result(3, sizes)
    for stage, row in enumerate(r.accuracy("classes")):
        by_class = np.split(r.per_class(stage), np.cumsum(sizes)[:-1])
        np.testing.assert_allclose(row, [np.mean(classes) for classes in by_class])


@pytest.mark.parametrize("sizes", [(2,) * 3, (1, 4, 2)])
def test_joint_training_has_one_stage_and_a_score_for_each_task(sizes):
    r = random_result(1, sizes, merged=True)
    slow = Slow(r)
    assert r.accuracy().shape == (1, 3) and r.task_aware_accuracy().shape == (1, 3)
    np.testing.assert_allclose(r.accuracy(), slow.a)
    assert not np.isnan(r.accuracy()).any()
    assert r.average() == pytest.approx(sum(slow.a[0]) / 3) == r.incremental()
    assert r.task_aware_average() == pytest.approx(sum(slow.w[1]) / 3)
    assert np.isnan([r.forgetting(), r.backward_transfer(), r.forward_transfer()]).all()
    assert np.isnan(r.forgetting_per_task()).all()
    np.testing.assert_array_equal(r.confusion(), slow.confusion(0))


def test_the_newest_share_of_joint_training_is_that_of_the_last_task_s_classes():
    """This makes it comparable with the others: near the share of the classes without a preference."""
    r = random_result(2, (2, 3, 1), merged=True)
    assert r.newest_share() == np.mean(r.predictions[-1] == 5)


# ---- what is undefined


def test_a_learner_without_scores_for_classes_to_come():
    """A growing head gives no task-aware answer before a task is learned, so no forward transfer."""
    r = make(
        (1, 1),
        [0, 0, 1, 1],
        [[0, 0, -1, -1], [1, 0, 1, 1]],
        aware=[[-1, -1, -1, -1], [0, 0, -1, -1], [0, 0, 1, 1]],
    )
    assert np.isnan(r.start_accuracy()).all() and math.isnan(r.forward_transfer())
    np.testing.assert_array_equal(r.task_aware_accuracy(), [[1, NAN], [1, 1]])
    assert r.task_aware_average() == 1 and r.average() == 0.75 and r.forgetting() == 0.5


def test_a_task_with_answers_for_some_of_its_images_only_has_no_score():
    r = make((2, 1), [0, 1, 2], [[0, -1, -1], [0, 1, 2]], seen=[1, 3])
    np.testing.assert_array_equal(r.accuracy(), [[NAN, NAN], [1, 1]])


def test_a_run_that_is_half_way_counts_the_tasks_learned_only():
    r = make((1, 1, 1), [0, 1, 2], [[0, -1, -1], [0, 1, -1]], aware=[[0, 1, 2]] * 3)
    np.testing.assert_array_equal(r.accuracy(), [[1, NAN, NAN], [1, 1, NAN]])
    assert r.average() == 1 and r.task_aware_average() == 1 and r.newest_share() == 0.5
    assert r.confusion().shape == (2, 2) and math.isnan(r.per_class()[2])


# ---- several seeds


@pytest.mark.parametrize("level", [0.5, 0.95, 0.99])
@pytest.mark.parametrize("n", [2, 3, 5, 30])
def test_interval_against_scipy(n, level):
    values = np.random.default_rng(n).random(n)
    found = interval(values, level)
    low, high = stats.t.interval(level, n - 1, loc=values.mean(), scale=stats.sem(values))
    assert found.mean == pytest.approx(values.mean())
    assert (found.mean - found.half, found.mean + found.half) == pytest.approx((low, high))
    assert found.n == n and found.kind == f"{100 * level:g} % t-interval"


def test_interval_by_hand():
    found = interval([0.1, 0.2, 0.3])  # s = 0.1; t(0.975, 2) = 4.302653
    assert found.half == pytest.approx(4.302653 * 0.1 / math.sqrt(3), rel=1e-6)


def test_interval_of_one_none_and_undefined_values():
    assert interval([0.3])[0] == 0.3 and math.isnan(interval([0.3]).half) and interval([0.3]).n == 1
    assert math.isnan(interval([]).mean) and interval([]).n == 0
    assert math.isnan(interval([NAN, NAN]).mean)
    assert str(interval([0.3])) == "30.00 (n = 1)" and str(interval([])) == "undefined"
    assert str(interval([NAN, NAN])) == "undefined"
    assert str(Interval(0.199, 0.0005, 5, "95 % t-interval")) == "19.90 ± 0.05 (95 % t-interval, n = 5)"
    for level in (0, 1, 95):
        with pytest.raises(ValueError, match="level must lie between 0 and 1, such as 0.95"):
            interval([1, 2], level)


def test_summary_is_plain_json_and_agrees_with_the_scores():
    seeds = [random_result(s, (2, 3)) for s in range(3)]
    found = summary(seeds)
    text = json.dumps(found, allow_nan=False)
    assert json.loads(text) == found
    scores = [r.average() for r in seeds]
    assert found["average_accuracy"]["per_seed"] == scores and found["seeds"] == [0, 1, 2]
    assert found["average_accuracy"]["mean"] == pytest.approx(np.mean(scores))
    half = interval(scores).half
    assert found["average_accuracy"]["interval"] == pytest.approx(
        [np.mean(scores) - half, np.mean(scores) + half]
    )
    assert found["forgetting"]["mean"] == pytest.approx(np.mean([r.forgetting() for r in seeds]))
    aware = np.mean([r.task_aware_average() for r in seeds])
    assert found["task_aware_accuracy"]["mean"] == pytest.approx(aware)
    matrix = np.mean([r.accuracy() for r in seeds], axis=0)
    assert found["accuracy_matrix"][0] == [pytest.approx(matrix[0, 0]), None]
    assert found["accuracy_matrix"][1] == pytest.approx(list(matrix[1]))
    assert found["memory_bytes"] == {"weights": 28} and found["parameters"] == 7
    assert found["seconds"] == {"learn": 12, "test": 3, "per_seed": [5, 5, 5]}


def test_summary_of_one_seed_of_joint_training_has_nulls_where_nothing_is_defined():
    found = summary([random_result(0, (2, 2), merged=True)])
    assert found["forgetting"] == {
        "mean": None,
        "interval": None,
        "kind": "95 % t-interval",
        "n": 1,
        "per_seed": [None],
    }
    assert found["average_accuracy"]["interval"] is None and found["average_accuracy"]["n"] == 1
    json.dumps(found, allow_nan=False)
    with pytest.raises(ResultError, match="there are no results to summarise"):
        summary([])


# ---- on disk

TRACE = {
    "loss": {
        "task": np.array([0, 0, 1]),
        "epoch": np.array([0, 1, 0]),
        "loss": np.array([0.5, 0.25, 1.0], np.float32),
    },
    "mask": {
        "task": np.array([0, 1]),
        "values": [np.arange(6, dtype=np.int64).reshape(2, 3), np.zeros((0, 4))],
        "layer": np.array(["first", "second layer"]),
    },
    "head": {"task": np.array([0, 1, 1]), "row": [np.ones(2), np.ones((3, 1)), np.array(7.0)]},
    "kernel": {"task": np.array([0, 1]), "count": [np.array([1, 2], np.int8), np.array([3], np.int8)]},
    "stack": {"task": np.array([0, 1]), "image": np.zeros((2, 1, 4, 4), np.uint8)},
}


def same_trace(a, b):
    assert {t: list(c) for t, c in a.items()} == {t: list(c) for t, c in b.items()}
    for table, columns in a.items():
        for column, rows in columns.items():
            other = b[table][column]
            assert len(rows) == len(other)
            for x, y in zip(rows, other):
                np.testing.assert_array_equal(x, y)
                assert np.asarray(x).shape == np.asarray(y).shape
                if column != "values":  # ragged rows of several types come back as one type
                    assert np.asarray(x).dtype == np.asarray(y).dtype


def same(a, b):
    assert (
        a.about == b.about
        and a.classes_per_task == b.classes_per_task
        and a.names == b.names
        and a.groups == b.groups
    )
    for name in (
        "seen",
        "labels",
        "predictions",
        "predictions_task_aware",
        "rank",
        "learn_seconds",
        "test_seconds",
        "n_samples",
        "parameters",
    ):
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name))
        assert getattr(a, name).dtype == getattr(b, name).dtype
    assert a.memory_bytes.keys() == b.memory_bytes.keys()
    for kind in a.memory_bytes:
        np.testing.assert_array_equal(a.memory_bytes[kind], b.memory_bytes[kind])
    same_trace(a.trace, b.trace)


@pytest.fixture
def record(tmp_path):
    """A record of two seeds whose traces are ragged, contain text, and are partly empty."""
    seeds = [random_result(0, (2, 3)), random_result(1, (2, 3))]
    seeds[0].trace, seeds[0].groups = TRACE, ["zwei", "zwei", "drei", "drei", "größer"]
    seeds[1].memory_bytes = {"weights": np.array([1, 2]), "teachers": np.array([0, 8])}
    save(seeds, tmp_path / "finetune_made_smoke_lr-0.001")
    return seeds, tmp_path / "finetune_made_smoke_lr-0.001.json"


def test_a_record_comes_back_whole(record):
    seeds, path = record
    for stem in (path, path.with_suffix(".npz"), str(path)):
        for a, b in zip(seeds, load(stem), strict=True):
            same(a, b)


def test_a_stem_may_hold_dots(record):
    """In lr-0.001, the part after the dot belongs to the name and is not a suffix."""
    seeds, path = record
    for a, b in zip(seeds, load(path.parent / "finetune_made_smoke_lr-0.001"), strict=True):
        same(a, b)


def test_a_record_is_two_files_that_others_may_read(record):
    _, path = record
    assert sorted(p.name for p in path.parent.iterdir()) == [path.name, path.with_suffix(".npz").name]
    text = json.loads(
        path.read_text(encoding="utf-8"), parse_constant=lambda word: pytest.fail(f"{word} is no JSON")
    )
    assert text["format"] == 2 and text["seeds"][0]["groups"][-1] == "größer"
    assert text["about"]["config"] == {"epochs": 1} and "about" not in text["seeds"][1], "said once"
    assert "größer" in path.read_text("utf-8")
    assert text["summary"]["average_accuracy"]["n"] == 2
    if sys.platform != "win32":
        assert path.stat().st_mode & 0o777 == 0o644


def test_traces_pack_into_plain_arrays():
    flat = pack_trace(TRACE)
    assert all(isinstance(v, np.ndarray) and v.dtype != object for v in flat.values())
    same_trace(TRACE, unpack_trace(flat))
    same_trace({}, unpack_trace(pack_trace({})))
    assert flat.keys() >= {"loss/loss", "mask/values#values", "mask/values#shapes"}


def test_an_absent_record_is_said(tmp_path, record):
    with pytest.raises(
        ResultError, match=r"there is no result at .*other\.json: a record is a \.json and an \.npz file"
    ):
        load(tmp_path / "other")
    _, path = record
    path.with_suffix(".npz").unlink()
    with pytest.raises(ResultError, match=r"there is no result at .*\.npz"):
        load(path)


@pytest.mark.parametrize(
    "ending, damage",
    [
        (".json", lambda b: b[:100]),
        (".json", lambda b: b""),
        (".json", lambda b: b"[]"),
        (".json", lambda b: b"{}"),
        (".json", lambda b: b"\xff\xfe"),
        (".json", lambda b: b'{"format": 2, "seeds": [{}]}'),
    ],
)
def test_a_damaged_record_is_refused_in_a_sentence(record, ending, damage):
    _, path = record
    broken = path.with_suffix(ending)
    broken.write_bytes(damage(broken.read_bytes()))
    with pytest.raises(ResultError, match=r"the result at .* is damaged \(\w+\): delete it and run it again"):
        load(path)


@pytest.mark.parametrize(
    "damage",
    [
        lambda b: b[: len(b) // 2],
        lambda b: b"",
        lambda b: b"no zip",
        lambda b: b[:200] + bytes([b[200] ^ 1]) + b[201:],
    ],
)
def test_arrays_that_are_not_as_they_were_written_are_refused(record, damage):
    _, path = record
    broken = path.with_suffix(".npz")
    broken.write_bytes(damage(broken.read_bytes()))
    with pytest.raises(
        ResultError, match=r"npz is not the file that .*json was written with .*: delete both files and run"
    ):
        load(path)


def test_a_kill_between_the_two_files_is_noticed_and_mended_by_writing_again(record, monkeypatch):
    """The head of one seed never stands over the arrays of another."""
    _seeds, path = record
    other, rename = [random_result(s, (2, 3)) for s in (7, 8)], os.replace

    def killed(part, target):
        if target.suffix == ".json":
            raise KeyboardInterrupt
        rename(part, target)

    for r, seed in zip(other, (0, 1)):
        r.about["seed"] = seed
    with monkeypatch.context() as patch:
        patch.setattr(record_module.os, "replace", killed)
        with pytest.raises(KeyboardInterrupt):
            save(other, path.with_suffix(""))
    with pytest.raises(ResultError, match="writing was interrupted"):
        load(path)
    save(other, path.with_suffix(""))
    same(load(path)[0], other[0])


def test_a_disk_that_fills_leaves_the_old_record(record, monkeypatch):
    """However little room is left: each of the two files may be the one that does not fit."""
    seeds, path = record
    before, sync = {p: p.read_bytes() for p in path.parent.iterdir()}, os.fsync
    for room in (0, 1):
        files = iter(range(9))

        def fills(handle, room=room, files=files):
            if next(files) >= room:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            sync(handle)

        with monkeypatch.context() as patch:
            patch.setattr(record_module.os, "fsync", fills)
            with pytest.raises(
                FileError, match=r"could not be written \(No space left on device\): make room"
            ):
                save([*seeds, random_result(2, (2, 3))], path.with_suffix(""))
        assert {p: p.read_bytes() for p in path.parent.iterdir()} == before


def forged(path, head=None, arrays=None):
    """Change a record's JSON by head(JSON), its arrays by arrays({name: array}), and mend its checksum."""
    with np.load(path.with_suffix(".npz")) as file:
        stored = dict(file)
    if arrays:
        arrays(stored)
    np.savez(path.with_suffix(".npz"), **stored)
    told = json.loads(path.read_text())
    if head:
        head(told)
    told["npz_sha256"] = hashlib.sha256(path.with_suffix(".npz").read_bytes()).hexdigest()
    path.write_text(json.dumps(told))


def put(key, value):
    """A change that sets this key, or this place of the array."""
    return lambda there: there.__setitem__(key, value)


def spoil(name, value):
    """A change that puts a value into an array, which becomes able to hold it."""

    def change(stored):
        a = stored[name].astype(float) if value != int(value) or value < -1 else stored[name].astype(np.int64)
        a[(0,) * a.ndim] = value
        stored[name] = a

    return change


@pytest.mark.parametrize(
    "head, arrays, part",
    [
        (put("names", ["a", 2, "c", "d", "e"]), None, "names"),
        (put("names", ["a"]), None, "classes_per_task"),
        (put("classes_per_task", [2, 3.0]), None, "classes_per_task"),
        (put("classes_per_task", [5, 0]), None, "classes_per_task"),
        (put("classes_per_task", []), None, "classes_per_task"),
        (lambda head: put("groups", ["a"])(head["seeds"][0]), None, "groups"),
        (lambda head: put("config", [])(head["about"]), None, "about"),
        (put("seeds", [{"seed": "0"}, {"seed": 1}]), None, "KeyError"),
        (put("seeds", []), None, "no seed"),
        (put("types", {}), lambda a: a.pop("rank"), "KeyError"),
        (None, spoil("labels", 5), "labels"),
        (None, spoil("labels", -1), "labels"),
        (None, spoil("rank", 7), "rank"),
        (put("types", {}), spoil("rank", 0.5), "rank"),
        (None, spoil("predictions", -2), "predictions"),
        (None, spoil("seen", 0), "seen"),
        (None, spoil("seen", 5), "seen"),
        (None, spoil("learn_seconds", -1.5), "learn_seconds"),
        (None, lambda a: put("test_seconds", a["test_seconds"] * np.nan)(a), "test_seconds"),
        (None, lambda a: put("n_samples", a["n_samples"][:, :-1])(a), "n_samples"),
        (put("types", {}), lambda a: put("parameters", a["parameters"].astype(str))(a), "parameters"),
    ],
)
def test_a_record_that_parses_but_cannot_be_right_is_refused_in_a_sentence(record, head, arrays, part):
    _, path = record
    forged(path)
    load(path)
    forged(path, head, arrays)
    with pytest.raises(ResultError, match=rf"is damaged \(.*{part}.*\): delete it and run it again") as error:
        load(path)
    assert "\n" not in str(error.value)


def test_numbers_that_were_edited_in_a_record_are_noticed(record):
    _seeds, path = record
    check_summary(path, load(path))
    whole = json.loads(path.read_text())

    def numbers(value, place=()):
        if isinstance(value, dict | list):
            for k in value if isinstance(value, dict) else range(len(value)):
                yield from numbers(value[k], (*place, k))
        elif isinstance(value, int | float):
            yield place

    places = list(numbers(whole["summary"]))
    assert len(places) > 40
    for place in places:
        edited = json.loads(json.dumps(whole))
        inner = edited["summary"]
        for key in place[:-1]:
            inner = inner[key]
        inner[place[-1]] += 1 if isinstance(inner[place[-1]], int) else 0.001
        path.write_text(json.dumps(edited))
        with pytest.raises(ResultError, match=f"says another {place[0]} than its arrays: it was edited"):
            check_summary(path, load(path))
    path.write_text(json.dumps(whole))
    forged(path, arrays=lambda a: put("predictions", np.roll(a["predictions"], 1, axis=1))(a))
    with pytest.raises(ResultError, match="than its arrays"):
        check_summary(path, load(path))


@pytest.mark.parametrize("code", [errno.EIO, errno.EACCES, errno.EMFILE, errno.ESTALE])
def test_a_record_that_cannot_be_read_is_not_called_damaged(record, monkeypatch, code):
    _, path = record

    def refuses(*_, **__):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(Path, "read_bytes", refuses)
    for read in (lambda: load(path), lambda: check_replaces(path, [0, 1])):
        with pytest.raises(FileError, match=re.escape(f"could not be read ({os.strerror(code)}): ")) as error:
            read()
        assert "delete the" not in str(error.value) and "damaged" not in str(error.value)


def test_no_seed_of_a_record_is_lost_unasked(record):
    seeds, path = record
    before = path.read_bytes(), path.with_suffix(".npz").read_bytes()
    with pytest.raises(
        ResultError, match="has the seeds 0, which would be lost: run these seeds too, add yours"
    ):
        save(seeds[1:], path.with_suffix(""))
    with pytest.raises(ResultError, match="has the seeds 0, 1, which"):
        check_replaces(path.with_suffix(""), [5])
    assert before == (path.read_bytes(), path.with_suffix(".npz").read_bytes())
    save([*seeds, random_result(2, (2, 3))], path.with_suffix(""))
    assert len(load(path)) == 3
    save(seeds[1:], path.with_suffix(""), replace=True)
    assert [r.about["seed"] for r in load(path)] == [1]
    path.write_bytes(b"no record")
    save(seeds[:1], path.with_suffix(""))


def test_the_same_results_give_the_same_bytes(record):
    _seeds, path = record
    before = path.read_bytes(), path.with_suffix(".npz").read_bytes()
    save(load(path), path.with_suffix(""))
    assert before == (path.read_bytes(), path.with_suffix(".npz").read_bytes())


def test_a_seed_stands_in_a_record_once(tmp_path):
    with pytest.raises(ResultError, match=r"the seeds \[0, 0\] of x are not distinct"):
        save([HAND, HAND], tmp_path / "x")


def test_another_format_is_refused(record):
    _, path = record
    path.write_text(path.read_text("utf-8").replace('"format": 2', '"format": 99'), encoding="utf-8")
    with pytest.raises(ResultError, match="has record format 99, but this clkit reads 2: run it again"):
        load(path)


def test_arrays_are_stacked_small_and_readable_by_numpy_alone(tmp_path):
    seeds = [random_result(0, (2, 3)) for _ in range(3)]
    for s, r in enumerate(seeds):
        r.about["seed"] = s
        r.trace = {"loss": {"step": np.arange(300), "loss": np.ones(300, np.float32)}}
    seeds[0].trace |= {"images": {"image": np.zeros((2, 4), np.uint8)}}
    save(seeds, tmp_path / "r")
    with np.load(tmp_path / "r.npz", allow_pickle=False) as a:
        right = [(r.predictions == r.labels).mean() for r in seeds]
        assert (a["predictions"] == np.sort(a["labels"])).mean((1, 2)).tolist() == right, "images by class"
        assert a["labels"].shape == (60,) and a["predictions"].shape == (3, 2, 60)
        assert (
            a["labels"].dtype == np.uint8
            and a["predictions"].dtype == np.int8
            and a["predictions"].min() == -1
        )
        assert a["trace/loss/step"].shape == (3, 300) and a["trace/loss/step"].dtype == np.uint16
        assert a["seed-0/trace/images/image"].shape == (2, 4), "a table of the first seed only"
    for r, again in zip(seeds, load(tmp_path / "r"), strict=True):
        same(r, again)


@pytest.mark.parametrize(
    "values, dtype",
    [
        (values, dtype)
        for dtype in (np.int64, np.uint64, np.int32, np.int16)
        for values in (
            [-1, 127],
            [-1, 128],
            [0, 255],
            [0, 256],
            [-129, 0],
            [0, 70_000],
            [-1, 2**31],
            [2**40, 0],
            [],
        )
        if not values or np.iinfo(dtype).min <= min(values) <= max(values) <= np.iinfo(dtype).max
    ],
)
def test_whole_numbers_come_back_with_their_type(values, dtype, tmp_path):
    r = random_result(0, (2, 3))
    r.trace = {"t": {"x": np.array(values, dtype)}}
    save([r], tmp_path / "r")
    same(r, load(tmp_path / "r")[0])


def test_what_differs_between_seeds_is_said_per_seed(tmp_path):
    seeds = [random_result(s, (2, 3)) for s in range(3)]
    for r in seeds:
        r.about |= {"stream": {"data": "made", "order": [r.about["seed"], 9]}, "cpu": "A"}
    seeds[1].names = seeds[1].names[::-1]
    seeds[2].about |= {"earlier_processes": [{"date": "d"}], "cpu": "B"}
    seeds[2].about["stream"] = {}
    save(seeds, tmp_path / "r")
    text = json.loads((tmp_path / "r.json").read_text("utf-8"))
    assert text["seeds"][0] == {
        "seed": 0,
        "about": {"stream": {"data": "made", "order": [0, 9]}, "cpu": "A"},
        "names": seeds[0].names,
    }
    for r, again in zip(seeds, load(tmp_path / "r"), strict=True):
        same(r, again)


class Bomb:
    """Code that unpickling would run."""

    def __reduce__(self):
        return (pytest.fail, ("a pickle was read",))


def test_no_pickle_is_ever_read(record):
    _, path = record
    with np.load(path.with_suffix(".npz")) as arrays:
        arrays = dict(arrays)
    arrays["seed-0/trace/loss/loss"] = np.array([Bomb()], dtype=object)
    np.savez(path.with_suffix(".npz"), **arrays)
    text = json.loads(path.read_text("utf-8"))
    text["npz_sha256"] = hashlib.sha256(path.with_suffix(".npz").read_bytes()).hexdigest()
    path.write_text(json.dumps(text), encoding="utf-8")
    with pytest.raises(ResultError, match=r"damaged \(ValueError\)"):
        load(path)


def test_saving_over_a_record_replaces_it(record):
    _, path = record
    other = [random_result(9, (2, 3))]
    save(other, path.parent / "finetune_made_smoke_lr-0.001", replace=True)
    again = load(path)
    assert len(again) == 1
    same(again[0], other[0])


# ---- whole or absent


def test_a_file_is_written_into_folders_that_are_made(tmp_path):
    write_atomically(tmp_path / "a" / "b" / "file", lambda f: f.write(b"whole"))
    assert (tmp_path / "a" / "b" / "file").read_bytes() == b"whole"
    assert [p.name for p in (tmp_path / "a" / "b").iterdir()] == ["file"]


@pytest.mark.parametrize(
    "error, raised",
    [
        (OSError(28, "No space left on device"), FileError),
        (KeyboardInterrupt(), KeyboardInterrupt),
        (ValueError("no"), ValueError),
    ],
)
def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path, error, raised):
    path = tmp_path / "file"
    path.write_bytes(b"old")

    def write(file):
        file.write(b"half of the new")
        raise error

    with pytest.raises(raised):
        write_atomically(path, write)
    assert path.read_bytes() == b"old" and list(tmp_path.iterdir()) == [path]
    with pytest.raises(raised):
        write_atomically(tmp_path / "new", write)
    assert list(tmp_path.iterdir()) == [path]


def refuse(code):
    """A function of the system that always fails with this number."""

    def fails(*_, **__):
        raise OSError(code, os.strerror(code))

    return fails


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EIO])
@pytest.mark.parametrize("name", ["fsync", "replace"])
def test_a_failure_to_flush_or_rename_leaves_the_old_file_too(tmp_path, monkeypatch, name, code):
    path = tmp_path / "file"
    path.write_bytes(b"old")
    monkeypatch.setattr(record_module.os, name, refuse(code))
    with pytest.raises(FileError, match=re.escape(f"{path} could not be written ({os.strerror(code)}): ")):
        write_atomically(path, lambda f: f.write(b"new"))
    assert path.read_bytes() == b"old" and list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("code", [errno.EINVAL, errno.ENOSYS, errno.ENOTSUP])
def test_a_file_system_without_fsync_and_chmod_is_written_to(tmp_path, monkeypatch, code):
    for name in ("fsync", "chmod", "fchmod"):
        monkeypatch.setattr(os, name, refuse(code))
    write_atomically(tmp_path / "file", lambda f: f.write(b"new"))
    assert (tmp_path / "file").read_bytes() == b"new"


@pytest.mark.parametrize("mask", [0o022, 0o077, 0o002])
def test_the_umask_decides_who_may_read_a_file(tmp_path, mask):
    before = os.umask(mask)
    try:
        write_atomically(tmp_path / "file", lambda f: f.write(b"new"))
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o666 & ~mask


# ---- imports


def test_results_are_read_without_torch_scipy_or_the_package_s_other_files(record):
    _, path = record
    code = f"""
import sys
import clkit
assert [m for m in sys.modules if m.startswith("clkit")] == ["clkit"], "importing clkit imports more"
from clkit import result
seeds = result.load({str(path)!r})
heavy = {{m.partition(".")[0] for m in sys.modules}} & {{"torch", "scipy", "sklearn", "PIL"}}
print(seeds[0].average(), *sorted(heavy), *sorted(m for m in sys.modules if m.startswith("clkit.")))
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    modules = [
        f"clkit.{m}"
        for m in (
            "errors",
            "markup",
            "result",
            "result.epochs",
            "result.interval",
            "result.record",
            "result.result",
        )
    ]
    assert done.stdout.split() == [str(load(path)[0].average()), *modules]
