"""Exercises: verdicts, grades, predictions, and answers that every checker must survive."""

import dataclasses
import itertools
from fractions import Fraction

import numpy as np
import pytest
import torch

from clkit.book import exercises
from clkit.book.exercises.verdict import checker
from clkit.errors import ClkitError

NAN = float("nan")

# ---- stand-ins for results


def result(predictions):
    """A Result of five tasks of two digits that ends with these predictions."""
    rows = np.tile(np.array(predictions, dtype=np.int16), (5, 1))
    names, labels = list("0123456789"), np.arange(len(predictions), dtype=np.int16) % 10
    return dataclasses.replace(
        exercises.worked_example(), classes_per_task=(2,) * 5, names=names, labels=labels, predictions=rows
    )


@dataclasses.dataclass
class Ends:
    """A Result with these final scores."""

    plain: float
    aware: float = 1.0

    def average(self):
        return self.plain

    def task_aware_average(self):
        return self.aware


def run_of(found, wanted=80, kept=40, units=400):
    """A Result of tasks that found these numbers of free neurons."""
    example = exercises.worked_example()
    config = {"selected": (wanted, wanted), "reserved": (kept, kept), "hidden": (units, units)}
    rows = {"layer": [0, 1] * len(found), "chosen": [np.arange(n) for n in found for _ in range(2)]}
    return dataclasses.replace(example, about={**example.about, "config": config}, trace={"neurons": rows})


def recalled(*tasks, sizes=(2,) * 5):
    """A run of ARM: the rows of each task, each a list of (predicted class, copies)."""
    rows = [(t, row) for t, of_task in enumerate(tasks) for row in of_task]
    images = {
        "task": np.array([t for t, _ in rows]),
        "probs": [np.eye(sum(sizes), dtype=np.float32)[[k for k, _ in row]] for _, row in rows],
        "counts": [np.array([n for _, n in row], dtype=np.float32) for _, row in rows],
    }
    names = list("0123456789")[: sum(sizes)]
    return dataclasses.replace(
        exercises.worked_example(), classes_per_task=sizes, names=names, trace={"images": images}
    )


def grown(new, gained, widths=(24, 12, 6), areas=(4, 16, 16), nz=64):
    """A run of DGMw whose first task reserved and gained so much in each layer."""
    example = exercises.worked_example()
    places = [a * b * k for a, b, k in zip((nz, *widths), widths, areas)]
    rows = {
        "task": np.repeat([0, 1], 3),
        "new": np.array([*new, *places]),
        "reused": np.array([0] * 3 + list(new)),
        "unused": np.array([p - n for p, n in zip(places, new)] + [0] * 3),
        "width": np.array([*widths, *(w + g for w, g in zip(widths, gained))]),
        "grown": np.array([*gained, 1, 1, 1]),
    }
    config = {**example.about.get("config", {}), "nz": nz}
    return dataclasses.replace(example, about={**example.about, "config": config}, trace={"capacity": rows})


def widened(units, weights):
    """A run of five tasks whose masked layers have these numbers of units and weights."""
    example = exercises.worked_example()
    rows = {"units": np.array(units), "weights": np.array(weights)}
    return dataclasses.replace(example, classes_per_task=(1,) * 5, trace={"growth": rows})


NEWEST = [result([8, 9] * 20), result([9, 8] * 19 + [0, 1])]
MEASURED = {2: Ends(0.49), 10: Ends(0.10)}
STRONGER = [Ends(0.19, 0.97), Ends(0.21, 0.99)]
GAINED = grown((2604, 2512, 620), (11, 1, 3))
ROOM = run_of([80] * 9 + [40])
NOTHING = [[], []]
GFR_KEPT = {"GFR": 70.0, "distillation only": 5.0, "replay only": 0.0}
SIMILAR = {"units permuted": 1.0, "images shuffled": 0.06, "noise added": 0.45}
WIDER = widened([100, 150, 200, 230, 250], [1000, 2000, 3000, 4000, 5000])  # 2.5 times, 5 times
OLD_CLASSES = recalled(NOTHING, *[[[(k, 1), (k - 1, 1)]] * 2 for k in (1, 3, 5, 7)])

# ---- predictions: for each checker, right answers and wrong ones, with a word of the message

REPLAYED = "images, task 2", "lambda_4, task 2", "images, task 3", "lambda_4, task 3"
PREDICTIONS = {
    "final classes": (
        lambda answer: exercises.check_final_classes(answer, NEWEST),
        [
            {"8", "9"},
            ["9", "8", ...],
            (8, 9),
            np.array([8.0, 9.0]),
            torch.tensor([9, 8]),
            (str(i) for i in (8, 9)),
        ],
        [
            ({...}, "Replace the dots"),
            (set(), "Replace the dots"),
            ("89", "Replace the dots"),
            (89, "Replace the dots"),
            (set("0123456789"), "are not dark"),
            ({"0", "1"}, "In which task"),
            ({"6", "7"}, "In which task"),
            ({"7", "8"}, "In which task"),
            ({"0"}, "answers 8 or 9"),
            ({"8"}, "only some of these"),
            ([9], "only some of these"),
            ({"7", "8", "9"}, "earlier tasks"),
            ({"eight"}, "no class eight"),
            ([True, False], "no class False, True"),
            ({8.5}, "no class 8.5"),
            (np.array([0, 9]), "In which task"),
        ],
    ),
    "one over t": (
        lambda answer: exercises.check_one_over_t(answer, MEASURED),
        [
            {2: 50, 10: 10},
            {2: "46 %", 10: "12"},
            {2: np.float32(54), 10: np.int64(5)},
            {10: [10], 2: torch.tensor(50.0)},
        ],
        [
            ({2: 50, 10: 0}, "cannot be 0"),
            ({2: 0, 10: 0}, "cannot be 0"),
            ({2: 50, 10: 50}, "number of tasks matters"),
            ({2: 10, 10: 50}, "a smaller part"),
            ({2: 90, 10: 90}, "number of tasks matters"),
            ({2: 90, 10: 20}, "none of the older ones"),
            ({2: 55, 10: 10}, "one 100"),
            ({2: 50, 10: 16}, "49.0 % with 2 tasks, 10.0 % with 10 tasks"),
            ({2: 0.5, 10: 0.1}, "percentages"),
            ({2: 50, 10: 0.1}, "percentages"),
            ({2: 150, 10: 10}, "from 0 to 100"),
            ({2: 50, 10: -10}, "from 0 to 100"),
            ({2: NAN, 10: 10}, "from 0 to 100"),
            (
                {2: ..., 10: ...},
                "Predict before you look: put a percentage in place of the dots for 2 and 10 tasks.",
            ),
            ({2: 50}, "for 10 tasks"),
            ({}, "for 2 and 10 tasks"),
            ([50, 10], "Predict before"),
        ],
    ),
    "stronger": (
        lambda answer: exercises.check_stronger(
            {"class-incremental": answer[0], "task-aware": answer[1]}, STRONGER
        ),
        [(18, 95), ("20 %", "98"), (np.array([24.0]), 100), (torch.tensor(15), Fraction(98))],
        [
            ((10, 106), "from 0 to 100"),
            ((10, 98), "answer well"),
            ((20, 92), "a penalty holds"),
            ((20, 50), "a penalty holds"),
            ((60, 98), "importance 0"),
            ((60, 60), "importance 0"),
            ((98, 20), "never the lower"),
            ((100, 98), "never the lower"),
            ((26, 98), "importance 0"),
            ((0, 98), "answer well"),
            ((0.2, 0.98), "percentages"),
            ((20, 0.98), "percentages"),
            ((20, -98), "from 0 to 100"),
            ((20, ...), "for task-aware"),
            ((..., ...), "for class-incremental and task-aware"),
            (("a fifth", 98), "Predict before"),
        ],
    ),
    "room": (
        lambda answer: exercises.check_room({"task": answer[0], "neurons": answer[1]}, ROOM),
        [(10, 40), (10.0, "40"), (np.uint8(10), np.float32(40)), (torch.tensor(10), [40])],
        [
            ((6, 0), "others become free again"),
            ((5, 80), "others become free again"),
            ((11, 0), "*chooses* 80"),
            ((10, 0), "The task is right"),
            ((10, 80), "The task is right"),
            ((9, 80), "is enough"),
            ((9, 40), "is enough"),
            ((3, 40), "before task 2"),
            ((1, 400), "before task 2"),
            ((40, 10), "before task 2"),
            ((10.5, 40), "before task 2"),
            ((10, 40.5), "The task is right"),
            ((NAN, NAN), "before task 2"),
            ((..., ...), "for task and neurons"),
            ((10, None), "for neurons"),
        ],
    ),
    "recalled": (
        lambda answer: exercises.check_recalled({"old": answer[0], "present": answer[1]}, OLD_CLASSES),
        [(100, 0), ("95 %", 5.0), (np.float32(97), np.int8(3)), (torch.tensor(100.0), "0")],
        [
            ((0, 100), "They *begin* as images of 8 or 9"),
            ((50, 50), "They *begin*"),
            ((80, 20), "Only the old classes share evenly"),
            ((20, 20), "Only the old classes share evenly"),
            ((100, 20), "at most 100 %"),
            ((100, 4), "at most 100 %"),
            ((70, 5), "together the two are 100 %"),
            ((65, 35), "which classes had it learned"),
            ((90, 10), "which classes had it learned"),
            ((1.0, 0.0), "percentages"),
            ((0, 1), "percentages"),
            ((106, 0), "from 0 to 100"),
            ((NAN, 0), "from 0 to 100"),
            ((..., ...), "for old and present"),
            (([80, 20], 0), "for old"),
        ],
    ),
    "replayed": (
        lambda answer: exercises.check_replayed(dict(zip(REPLAYED, answer[:4]))),  # not all of a huge one
        [
            (640, 5 / 6, 768, 6 / 7),
            ("640", 0.83, 768.0, "0.857"),
            (np.int16(640), Fraction(5, 6), np.float32(768), [6 / 7]),
            tuple(torch.tensor([640, 5 / 6, 768, 6 / 7])),
        ],
        [
            ((640, 1 / 2, 768, 2 / 3), "count *tasks*"),
            ((640, 1 / 6, 768, 1 / 7), "shares of *new* classes"),
            ((128, 5 / 6, 128, 6 / 7), "*for each class*"),
            ((512, 5 / 6, 512, 6 / 7), "released script"),
            ((640, 5 / 6, 640, 6 / 7), "60 old classes"),
            ((640, 5 / 6, 768, 5 / 6), "five old images"),
            ((50, 5 / 6, 60, 6 / 7), "five old images"),
            ((640, 83, 768, 86), "five old images"),
            ((NAN, 5 / 6, 768, 6 / 7), "five old images"),
            ((..., 5 / 6, 768, 6 / 7), "for images, task 2"),
            ((640, ..., 768, ...), "for lambda_4, task 2 and lambda_4, task 3"),
            ((), "Predict before"),
        ],
    ),
    "gained": (
        lambda answer: exercises.check_gained({f"layer {n + 1}": answer[n] for n in range(3)}, GAINED),
        [(11, 1, 3), (11.0, "1", 3), (np.int8(11), [1], np.float32(3)), tuple(torch.tensor([11, 1, 3]))],
        [
            ((2604, 2512, 620), "reserved"),
            ((2604, 1, 3), "These are the reserved *weights*"),
            ((10, 1, 3), "Round *up*"),
            ((41, 1, 3), "kernel area is missing"),
            ((24, 12, 6), "gains no inputs"),
            ((0, 0, 0), "gains no inputs"),
            ((11, 7, 4), "rule of the text"),
            ((11, 2, 3), "divide by those"),
            ((11, 0, 3), "Layer 1 is right"),
            ((11, 1, 4), "Layer 1 is right"),
            ((11, 11, 11), "Layer 1 is right"),
            ((11, 1.5, 3), "Layer 1 is right"),
            ((NAN, 1, 3), "gains no inputs"),
            ((..., ..., ...), "for layer 1 and layer 2 and layer 3"),
            ((11, 1, None), "for layer 3"),
        ],
    ),
    "kept": (
        lambda answer: exercises.check_kept({k: answer[i] for i, k in enumerate(GFR_KEPT)}, GFR_KEPT),
        [(70, 5, 0), (65.0, "10 %", "0"), (np.float32(80), [12], 3), tuple(torch.tensor([60, 0, 0]))],
        [
            ((70, 40, 0), "that never sees an old class"),
            ((70, 70, 70), "that never sees an old class"),
            ((70, 5, 40), "for an old image by now"),
            ((40, 5, 0), "they still fit"),
            ((0, 0, 0), "they still fit"),
            ((95, 5, 0), "does each term reach"),
            ((0.7, 0.05, 0), "give percentages"),
            ((170, 5, 0), "from 0 to 100"),
            ((70, -5, 0), "from 0 to 100"),
            ((NAN, 5, 0), "from 0 to 100"),
            ((..., ..., ...), "for GFR and distillation only and replay only"),
            ((70, 5, None), "for replay only"),
            (("most", 5, 0), "for GFR"),
        ],
    ),
    "similarity": (
        lambda answer: exercises.check_similarity({k: answer[i] for i, k in enumerate(SIMILAR)}, SIMILAR),
        [(1, 0.06, 0.45), (0.95, "0", 0.5), (np.float32(1), [0.1], 0.4), tuple(torch.tensor([1, 0, 0.54]))],
        [
            ((0, 0.06, 0.45), "which directions change"),
            ((0.5, 0.5, 0.9), "which directions change"),
            ((0.89, 0, 0.45), "which directions change"),
            ((1, 1, 0.45), "another one"),
            ((1, 0.95, 1), "another one"),
            ((1, 0.5, 0.45), "how large is the floor"),
            ((1, 0.2, 0.9), "how large is the floor"),
            ((1, 0.06, 0.71), "the noise drowns them"),
            ((1, 0.06, 1), "the noise drowns them"),
            ((1, 0.06, 0.1), "survive it"),
            ((1, 0, 0), "survive it"),
            ((100, 6, 45), "a number from 0 to 1"),
            ((1, -1, 0.5), "a number from 0 to 1"),
            ((NAN, 0, 0.5), "a number from 0 to 1"),
            ((..., ..., ...), "for units permuted and images shuffled and noise added"),
            ((1, 0, None), "for noise added"),
            (("same", 0, 0.45), "for units permuted"),
        ],
    ),
    "widening": (
        lambda answer: exercises.check_widening({"units": answer[0], "weights": answer[1]}, WIDER),
        [(2.5, 5), ("2.1", 5.9), (np.float32(2.9), [4.1]), (torch.tensor(2), Fraction(6))],
        [
            ((5, 5), "5 times the units is the worst case"),
            ((5, 25), "worst case"),
            ((4.6, 5), "worst case"),
            ((1, 1), "a network of fixed size"),
            ((0.5, 5), "factors are at least 1"),
            ((2.5, 0), "factors are at least 1"),
            ((-2.5, 5), "factors are at least 1"),
            ((2.5, 2.5), "A weight joins two units"),
            ((2.5, 1.5), "A weight joins two units"),
            ((2.5, 6.25), "A square needs every layer"),
            ((2.5, 12), "not with their square"),
            ((2.5, 3), "not with their square"),
            ((1.5, 5), "take more than that"),
            ((3.5, 5), "take less than that"),
            ((3.5, 12), "take less than that"),
            ((NAN, 5), "take less than that"),
            ((..., ...), "for units and weights"),
            ((2.5, None), "for weights"),
            (("double", 5), "for units"),
        ],
    ),
}


@pytest.mark.parametrize("name", PREDICTIONS)
def test_predictions(name):
    check, right, wrong = PREDICTIONS[name]
    assert len(right) >= 4 and len(wrong) >= 12
    for answer in right:
        assert check(answer), (answer, check(answer))
    for answer, word in wrong:
        verdict = check(answer)
        assert not verdict and word in verdict.message, (answer, verdict)


def test_a_right_prediction_says_what_was_measured():
    said = [PREDICTIONS[name][0](PREDICTIONS[name][1][0]).message for name in PREDICTIONS]
    parts = [
        "8 or 9",
        "49.0 % with 2",
        "20.0 % class-incremental and 98.0 % task-aware",
        "`400 - 40 * (t - 1)`",
        "100.0 % are classified as a class of earlier tasks, 0.0 % as 8 or 9",
        "640 and 768 images, 5/6 and 6/7",
        "The layers gain 11, 1 and 3 channels.",
        "GFR 70 %, distillation only 5 %, replay only 0 %",
        "units permuted 1.00, images shuffled 0.06, noise added 0.45",
        "2.5 times the units, 5.0 times the weights",
    ]
    for message, part in zip(said, parts, strict=True):
        assert part in message


def test_the_final_classes_of_a_learner_that_remembers():
    every = [result(list(range(10)) * 4)]
    assert exercises.check_final_classes(set("0123456789"), every)
    assert not exercises.check_final_classes({"8", "9"}, every)


def test_a_run_with_room_for_all():
    assert "every task found" in exercises.check_room({"task": 1, "neurons": 1}, run_of([80] * 5)).message


def test_recalled_images_count_as_often_as_they_are_copied_and_of_the_last_task_only():
    run = recalled([[(4, 1)]], [[(0, 50)]], [[(3, 5), (4, 0)], [(0, 1), (4, 4)]], sizes=(2, 2, 1))
    verdict = exercises.check_recalled({"old": 60, "present": 40}, run)
    assert verdict and "60.0 % are classified" in verdict.message and "40.0 % as 4" in verdict.message


def test_a_run_without_recalled_images_is_explained():
    for run in (exercises.worked_example(), recalled([[(0, 1)]], [[(0, 1)]], NOTHING, sizes=(2, 2, 2))):
        verdict = exercises.check_recalled({"old": 100, "present": 0}, run)
        assert not verdict and "recalled nothing" in verdict.message


def test_a_run_without_capacities_is_explained():
    verdict = exercises.check_gained(
        dict.fromkeys(("layer 1", "layer 2", "layer 3"), 1), exercises.worked_example()
    )
    assert not verdict and "did not keep the table `capacity`" in verdict.message


# ---- predictions of the notebooks, on real runs


def test_finetuning_in_any_number_of_tasks_ends_at_one_over_t():
    measured = {tasks: exercises.finetuned(tasks, "smoke") for tasks in (2, 10)}
    assert [r.tasks for r in measured.values()] == [2, 10]
    assert exercises.check_one_over_t({2: 50, 10: 10}, measured)


def test_digits_one_by_one_run_out_of_room_in_task_ten():
    found = exercises.one_by_one("smoke")
    assert found.classes_per_task == (1,) * 10
    assert exercises.check_room({"task": 10, "neurons": 40}, found)


def test_what_arm_recalls_is_of_old_classes():
    from clkit import experiments
    from clkit.engine.run import run

    found = experiments.experiment("arm/digits-online", "smoke")
    stream = experiments.stream(found.benchmark, "smoke")
    ran = run(found.learner, found.config, stream, record=("images",), threads=experiments.THREADS)[1]
    rows = ran.trace["images"]
    assert {k for t, began in zip(rows["task"], rows["origins"]) if t == 4 for k in began} == {8, 9}
    assert exercises.check_recalled({"old": 100, "present": 0}, ran)


def test_a_real_run_of_dgmw_gains_what_the_rule_says():
    from clkit import experiments
    from clkit.book.exercises.nb08 import _first_growth
    from clkit.engine.run import run

    found = experiments.experiment("dgmw/digits-10", "smoke", {"epochs": 1})
    stream = experiments.stream(found.benchmark, "smoke")
    ran = run(found.learner, found.config, stream, record=("capacity",), threads=experiments.THREADS)[1]
    new, widths, areas, gained = _first_growth(ran)
    assert widths == [64, 16, 8, 4] and areas == [4, 16, 16]
    before = 0
    for delta, inputs, outputs, area, channels in zip(new, widths, widths[1:], areas, gained):
        free = (inputs + before) * (outputs + channels) * area - delta
        assert free >= inputs * outputs * area > free - (inputs + before) * area or not channels
        before = channels
    assert exercises.check_gained({f"layer {n + 1}": gained[n] for n in range(3)}, ran)


# ---- verdicts and grades


def test_a_verdict_counts_as_its_truth_and_reads_as_a_sentence():
    good, bad = exercises.Verdict(True, "Like `that`."), exercises.Verdict(False, "It is $T$.")
    assert bool(good) is True and bool(bad) is False
    assert (repr(good), repr(bad)) == ("Right. Like that.", "Not yet. It is T.")
    assert "**Right.** Like `that`." in good._repr_markdown_()
    assert "**Not yet.** It is $T$." in bad._repr_markdown_()


def test_the_grades_of_a_submission():
    verdicts = {
        "average": exercises.check_average(exercises.average_solution),
        "forgetting": exercises.check_forgetting(None),
        "divergence": exercises.Verdict(False, "KL(p || m)\nis another."),
    }
    grades = exercises.grade(verdicts)
    assert (grades.right, grades.verdicts) == (1, verdicts)
    lines = repr(grades).splitlines()
    assert lines[0].startswith("average: Right. ") and lines[1].startswith("forgetting: Not yet. ")
    table = grades._repr_markdown_().splitlines()
    assert lines[-1] == "1 of 3 right" and table[-1] == "**1 of 3 right**"
    assert table[4] == "| divergence | ✏️ not yet | KL(p \\|\\| m) is another. |"
    assert table[2].startswith("| average | ✅ right | ") and len(table) == 7


def test_only_verdicts_are_graded():
    assert exercises.grade({}).right == 0
    for other in (True, None, exercises.check_average):
        with pytest.raises(ClkitError, match="needs the Verdict of a checker"):
            exercises.grade({"average": other})


def test_what_no_check_foresees_is_not_right_yet():
    @checker
    def check(answer):
        return f"{1 / answer}"

    assert check(1) and not check(0) and "(ZeroDivisionError)" in check(0).message


# ---- the worked example


def test_the_worked_example_has_the_scores_that_the_notebook_counts():
    r = exercises.worked_example()
    assert np.array_equal(r.accuracy(), [[0.5, NAN, NAN], [0.75, 1, NAN], [0.25, 0.5, 1]], equal_nan=True)
    assert r.average() == pytest.approx(7 / 12) and r.average("images") == pytest.approx(0.5)
    assert r.incremental() == pytest.approx((0.5 + 0.875 + 7 / 12) / 3)
    assert r.forgetting() == pytest.approx(0.5) and r.backward_transfer() == pytest.approx(-0.375)
    assert r.forward_transfer() == pytest.approx(0.125)


def test_the_worked_example_tells_its_scores_apart():
    r = exercises.worked_example()
    scores = [r.average(), r.average("images"), r.incremental(), -r.backward_transfer(), r.forward_transfer()]
    assert len({round(s, 9) for s in scores}) == len(scores)
    assert r.forgetting() != -r.backward_transfer()


# ---- what every checker survives


class Rude:
    """Raises on every access except its truth value and its type."""

    def __getattr__(self, name):
        raise RuntimeError(name)

    def _raise(self, *_):
        raise ValueError("no")

    __repr__ = __str__ = __len__ = __iter__ = __array__ = __float__ = __call__ = __eq__ = __hash__ = _raise


class RudeError(Exception):
    def __str__(self):
        raise ValueError("no")


def contains_itself():
    items = []
    items.append(items)
    return items


ODD = {
    "nothing": lambda: None,
    "dots": lambda: ...,
    "text": lambda: "about a third",
    "bytes": lambda: b"35",
    "complex": lambda: 0.5 + 0.1j,
    "complex array": lambda: np.ones((2, 2), complex),
    "nan": lambda: NAN,
    "infinity": lambda: -float("inf"),
    "array of nan": lambda: np.full((3, 4), NAN),
    "large number": lambda: 10**400,
    "large array": lambda: np.broadcast_to(0.0, (10**7, 10**7)),
    "large tensor": lambda: torch.zeros(1, device="cpu").expand(10**9),
    "long range": lambda: range(10**12),
    "long list": lambda: [[0] * 10**6] * 10**6,
    "without end": itertools.count,
    "generator": lambda: (x for x in "abc"),
    "empty": lambda: [],
    "empty array": lambda: np.zeros((0, 3)),
    "ragged": lambda: [[1, 2], [3]],
    "deep": lambda: [[[[[1.0]], []]]],
    "in itself": contains_itself,
    "tensor with gradient": lambda: torch.ones(2, 3, requires_grad=True, device="cpu"),
    "bfloat16": lambda: torch.ones(2, dtype=torch.bfloat16, device="cpu"),
    "complex tensor": lambda: torch.ones(2, dtype=torch.complex64, device="cpu"),
    "tensor without data": lambda: torch.ones(2, device="meta"),
    "sparse tensor": lambda: torch.eye(3, device="cpu").to_sparse(),
    "dictionary": lambda: {"a": 1},
    "set": lambda: {1.5, 2.5},
    "objects": lambda: np.array([None, "a", {}], dtype=object),
    "date": lambda: np.datetime64("2020-01-01"),
    "masked": lambda: np.ma.masked,
    "type": lambda: Ends,
    "module": lambda: np,
    "object": object,
    "rude": Rude,
    "rude list": lambda: [Rude(), Rude()],
    "verdict": lambda: exercises.Verdict(True, "I am right."),
}


def keyword_only(*, a):
    return a


def prints(*arguments):
    print(*arguments)


def destroys(*arguments):
    for argument in arguments:
        if isinstance(argument, np.ndarray):
            argument.fill(NAN)
        elif isinstance(argument, list):
            argument[:] = [Rude(), Rude()]


def raises(error):
    def function(*arguments):
        raise error

    return function


def again(*arguments):
    return again(*arguments)


FUNCTIONS = {
    "average": exercises.check_average,
    "forgetting": exercises.check_forgetting,
    "reservoir": exercises.check_reservoir,
    "fisher": exercises.check_fisher,
    "herding": exercises.check_herding,
    "grow": exercises.check_grow,
    "diversity": exercises.check_diversity,
    "divergence": exercises.check_divergence,
    "class diversity": exercises.check_class_diversity,
    "outshouted": exercises.check_outshouted,
    "sparsity": exercises.check_sparsity,
    "reserve": exercises.check_reserve,
    "balance": exercises.check_balance,
    "gaussians": exercises.check_gaussians,
}
ODD_FUNCTIONS = {
    "no arguments": lambda: 0.5,
    "many arguments": lambda a, b, c, d, e, f, g: 0.5,
    "keyword only": keyword_only,
    "prints": prints,
    "destroys": destroys,
    "without end": again,
    "raises": raises(RudeError()),
    "exits": raises(SystemExit(1)),
    "stub": raises(NotImplementedError()),
    "builtin": len,
    "generator": lambda *arguments: (yield 1),
    **{f"returns {name}": lambda *_, make=make: make() for name, make in ODD.items()},
    **{f"is {name}": make() for name, make in ODD.items()},
}


def survived(verdict):
    """Whether a checker handled this wrong answer with a proper message."""
    said = f"{verdict!r}{verdict._repr_markdown_()}"
    return (
        not verdict and len(verdict.message) > 20 and "checker cannot read" not in said and len(said) < 1500
    )


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_checker_of_functions_survives(name, capsys):
    for odd, function in ODD_FUNCTIONS.items():
        verdict = FUNCTIONS[name](function)
        assert survived(verdict), (odd, verdict)


@pytest.mark.parametrize("name", PREDICTIONS)
def test_a_checker_of_predictions_survives(name):
    check = PREDICTIONS[name][0]
    for odd, make in ODD.items():
        for answer in ({"8": make()}, (make(), 40), (20, make()), {2: make(), 10: 10}, [make()], make()):
            try:
                verdict = check(answer)
            except (
                TypeError,
                KeyError,
                IndexError,
                ValueError,
                RuntimeError,
            ):  # of the two lambdas that take pairs
                continue
            assert isinstance(verdict, exercises.Verdict) and not verdict, (odd, answer, verdict)
