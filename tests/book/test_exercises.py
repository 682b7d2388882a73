"""Exercises: each checker passes its solution, and fails the stub and the usual mistakes with the reason."""

import dataclasses

import numpy as np
import pytest

from clkit.book import exercises


def stub(*_):
    raise NotImplementedError


def result(predictions, names="0123456789"):
    """A Result of five tasks of two digits that ends with these predictions."""
    example, n = exercises.worked_example(), len(predictions)
    rows = np.tile(np.array(predictions, dtype=np.int16), (5, 1))
    labels = np.arange(n, dtype=np.int16) % 10
    return dataclasses.replace(
        example, classes_per_task=(2,) * 5, names=list(names), labels=labels, predictions=rows
    )


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

SCORES = {
    "average": (
        exercises.check_average,
        exercises.average_solution,
        {
            "diagonal": lambda a: np.diag(a).mean(),
            "all moments": lambda a: np.nanmean(a),
            "`nan`": lambda a: a.mean(),
            "on paper": lambda a: a[-1].max(),
        },
    ),
    "forgetting": (
        exercises.check_forgetting,
        exercises.forgetting_solution,
        {
            "when the task was new": lambda a: (np.diag(a) - a[-1])[:-1].mean(),
            "That is backward transfer": lambda a: (a[-1] - np.diag(a))[:-1].mean(),
            "all $T$ tasks": lambda a: (np.nanmax(a, axis=0) - a[-1]).mean(),
            "sign is turned": lambda a: (a[-1, :-1] - np.nanmax(a[:-1, :-1], axis=0)).mean(),
            "over all rows": lambda a: (np.nanmax(a, axis=0) - a[-1])[:-1].mean(),
            "`np.nanmax`": lambda a: (a.max(axis=0) - a[-1]).mean(),
            "on paper": lambda a: a[0, 0] - a[-1, 0] + 1,
        },
    ),
}
MISTAKES = [(name, word) for name, (_, _, mistakes) in SCORES.items() for word in mistakes]


@pytest.mark.parametrize("name", SCORES)
def test_a_solution_passes_and_a_stub_does_not(name):
    check, solution, _ = SCORES[name]
    assert check(solution)
    verdict = check(stub)
    assert not verdict and "`stub` is still empty" in verdict.message


@pytest.mark.parametrize("name, word", MISTAKES)
def test_a_slip_fails_and_is_called_by_its_name(name, word):
    check, _, mistakes = SCORES[name]
    verdict = check(mistakes[word])
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
    for wrong, word in (
        ({...}, "Replace the dots"),
        (..., "Replace the dots"),
        ("89", "Replace the dots"),
        (set("0123456789"), "last row"),
        ({"0", "1"}, "In which task"),
        ({"8"}, "In which task"),
        ({"eight"}, "no class eight"),
    ):
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
    for wrong, word in (
        ({2: ..., 10: ...}, "Predict before"),
        ({2: 50}, "for 10 tasks"),
        (None, "Predict"),
        ({2: 50, 10: 50}, "off for 10 tasks"),
        ({2: 90, 10: 90}, "off for 2 and 10"),
        ({2: 0.5, 10: 0.1}, "percentages"),
        ([50, 10], "Predict"),
    ):
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
    return [*memory, item]


def test_reservoir_sampling_passes():
    verdict = exercises.check_reservoir(exercises.reservoir_solution)
    assert verdict and "same chance of 0.100" in verdict.message


@pytest.mark.parametrize(
    "function, word",
    [
        (stub, "still empty"),
        (newest_only, "too easily"),
        (always_in, "too easily"),
        (never_in, "not get in often enough"),
        (coin, "should be 0.100"),
        (overflows, "holds 21"),
        (forgets_to_fill, "holds 0 and not 1"),
        (repeats, "twice"),
        (not_in_place, "in the list `memory` itself"),
        (lambda *a: a[9], "stopped with IndexError"),
    ],
)
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


# ---- notebook 02


def ends_at(average, told):
    """A stand-in for a Result with these two final scores."""

    class Known:
        def average(self):
            return average

        def task_aware_average(self):
            return told

    return Known()


def test_a_stronger_penalty():
    measured = [ends_at(0.19, 0.97), ends_at(0.21, 0.99)]
    verdict = exercises.check_stronger({"class-incremental": 18, "task-aware": 95}, measured)
    assert verdict and "20.0 % class-incremental and 98.0 % task-aware" in verdict.message
    for wrong, word in (
        ({"class-incremental": ..., "task-aware": ...}, "Predict before"),
        (None, "Predict"),
        ({"class-incremental": 20}, "Predict before"),
        ([20, 98], "Predict before"),
        ({"class-incremental": 0.2, "task-aware": 0.98}, "percentages"),
        ({"class-incremental": 60, "task-aware": 98}, "importance 0"),
        ({"class-incremental": 60, "task-aware": 60}, "importance 0"),
        ({"class-incremental": 5, "task-aware": 98}, "answered well"),
        ({"class-incremental": 20, "task-aware": 50}, "a penalty holds"),
    ):
        verdict = exercises.check_stronger(wrong, measured)
        assert not verdict and word in verdict.message, verdict


def greedy(features, mu, m, repeat=False, mean=lambda chosen, k, m: chosen.mean(0)):
    chosen = []
    for k in range(1, m + 1):
        left = [i for i in range(len(features)) if repeat or i not in chosen]
        chosen.append(min(left, key=lambda i: ((mu - mean(features[[*chosen, i]], k, m)) ** 2).sum()))
    return chosen


HERDING = {
    "*nearest* to `mu`": lambda f, mu, m: np.argsort(((f - mu) ** 2).sum(1))[:m],
    "*sum* of the features": lambda f, mu, m: greedy(f, mu, m, mean=lambda chosen, k, m: chosen.sum(0)),
    "from the start": lambda f, mu, m: greedy(f, mu, m, mean=lambda chosen, k, m: chosen.sum(0) / m),
    "chosen twice": lambda f, mu, m: greedy(f, mu, m, repeat=True),
    "Try every image": lambda f, mu, m: list(range(m)),
    "6 indices from 0 to 11": lambda f, mu, m: greedy(f, mu, m - 1),
    "Did you forget `return`": lambda f, mu, m: None,
    "A list of 6 indices": lambda f, mu, m: 3,
    "stopped with IndexError": lambda f, mu, m: f[len(f)],
    "still empty": stub,
}


def test_herding_passes_in_any_form():
    assert exercises.check_herding(exercises.herding_solution)
    assert exercises.check_herding(greedy)
    assert exercises.check_herding(lambda f, mu, m: np.array(greedy(f, mu, m)))


@pytest.mark.parametrize("word", HERDING)
def test_other_choices_of_exemplars_fail(word):
    verdict = exercises.check_herding(HERDING[word])
    assert not verdict and word in verdict.message, verdict


def test_the_solution_herds_as_icarl_does():
    import torch

    from clkit.blocks.memory import herd

    torch.manual_seed(0)
    features = torch.nn.functional.normalize(torch.randn(60, 5, dtype=torch.float64) + 0.3)
    mu = torch.nn.functional.normalize(features.mean(0), dim=0)
    assert exercises.herding_solution(features.numpy(), mu.numpy(), 25) == herd(features, 25).tolist()


FISHER = {
    "as if no class were ever the right one": lambda p, x: (p * p).T @ (x * x) / len(p),
    "input is not squared": lambda p, x: (p - p * p).T @ x / len(p),
    "Divide by the number": lambda p, x: (p - p * p).T @ (x * x),
    "square of a mean gradient": lambda p, x: ((p - p * p).T @ x / len(p)) ** 2,
    "the likeliest": lambda p, x: ((p - (p == p.max(1, keepdims=True))) ** 2).T @ (x * x) / len(p),
    "turned it round": lambda p, x: (x * x).T @ (p - p * p) / len(p),
    "on paper": lambda p, x: (p - p * p).T @ (x * x) / len(p) + 1,
    "one of shape (5, 3)": lambda p, x: p,
    "it is `0.5`": lambda p, x: 0.5,
    "Did you forget `return`": lambda p, x: None,
    "shape (3, 4) should come back": lambda p, x: "text",
    "stopped with ValueError": lambda p, x: p @ x,
    "still empty": stub,
}


@pytest.mark.parametrize("word", FISHER)
def test_other_kinds_of_fisher_information_fail(word):
    verdict = exercises.check_fisher(FISHER[word])
    assert not verdict and word in verdict.message, verdict


def test_the_solution_is_the_fisher_information_of_ewc_and_of_autograd():
    """Two oracles: the code of EWC, and single gradients, one for each image and label."""
    import torch

    from clkit.blocks import functional, nets
    from clkit.methods.baselines.ewc import EWC, Config

    torch.manual_seed(0)
    net, x = nets.MLP((1, 2, 3), 4, hidden=()).double(), torch.randn(7, 1, 2, 3, dtype=torch.float64)
    logits = net(x)
    p, w = logits.softmax(1), net.head.weight
    ours = exercises.fisher_solution(p.detach().numpy(), x.flatten(1).numpy())
    slow = (
        sum(
            p[n, k].detach() * torch.autograd.grad(logits.log_softmax(1)[n, k], w, retain_graph=True)[0] ** 2
            for n in range(7)
            for k in range(4)
        )
        / 7
    )
    assert np.allclose(ours, slow)
    errors = EWC(Config(fisher="expected"), (1, 2, 3), 4).errors(logits.detach(), None)
    with torch.no_grad():
        ewc = sum(functional.sum_over_images_mlp(torch.square, net, x, e) for e in errors) / 7
    assert np.allclose(ours, ewc[:24].view(4, 6)) and exercises.check_fisher(exercises.fisher_solution)


# ---- notebook 03


def run_of(found, wanted=80, kept=40, units=400):
    """A stand-in for a Result of tasks that found so many free neurons."""
    example = exercises.worked_example()
    config = {"selected": (wanted, wanted), "reserved": (kept, kept), "hidden": (units, units)}
    rows = {"layer": [0, 1] * len(found), "chosen": [np.arange(n) for n in found for _ in range(2)]}
    return dataclasses.replace(example, about={**example.about, "config": config}, trace={"neurons": rows})


def test_the_room_for_tasks():
    result = run_of([80] * 9 + [40])
    verdict = exercises.check_room({"task": 10, "neurons": 40}, result)
    assert verdict and "`400 - 40 * (t - 1)`" in verdict.message
    for wrong, word in (
        ({"task": ..., "neurons": ...}, "Predict before"),
        (None, "Predict"),
        ({"task": 10}, "Predict"),
        ({"task": 6, "neurons": 0}, "others come back"),
        ({"task": 11, "neurons": 0}, "wants to *choose*"),
        ({"task": 10, "neurons": 0}, "before task 2"),
        ({"task": 3, "neurons": 40}, "before task 2"),
    ):
        verdict = exercises.check_room(wrong, result)
        assert not verdict and word in verdict.message, verdict
    assert "every task found" in exercises.check_room({"task": 1, "neurons": 1}, run_of([80] * 5)).message


def test_digits_one_by_one_run_out_of_room_in_task_ten():
    result = exercises.one_by_one("smoke")
    assert result.classes_per_task == (1,) * 10
    assert exercises.check_room({"task": 10, "neurons": 40}, result)


def by_product(target, source, taken, k, sign=1):
    gain = np.where(taken, -np.inf, sign * np.multiply.outer(target, source))
    grown = np.zeros(gain.shape, dtype=bool)
    grown.flat[np.argsort(gain.ravel())[gain.size - k :]] = True
    return grown


GROW = {
    "axis=1": lambda omega, source, taken, k: by_product(omega.sum(0), source, taken, k),
    "turned the matrix": lambda omega, source, taken, k: by_product(source, omega.sum(1), taken, k),
    "both ends must matter": lambda omega, source, taken, k: by_product(
        np.exp(omega.sum(1)), np.exp(source), taken, k
    ),
    "*smallest*": lambda omega, source, taken, k: by_product(omega.sum(1), source, taken, k, sign=-1),
    "are taken already": lambda omega, source, taken, k: by_product(omega.sum(1), source, 0 * taken, k),
    "otherwise their number": lambda omega, source, taken, k: by_product(omega.sum(1), source, taken, k + 1),
    "products at your places": lambda omega, source, taken, k: by_product(1 / omega.sum(1), source, taken, k),
    "boolean matrix": lambda omega, source, taken, k: by_product(omega.sum(1), source, taken, k).T[:-1],
    "Did you forget `return`": lambda omega, source, taken, k: None,
    "stopped with ZeroDivisionError": lambda omega, source, taken, k: 1 // 0,
    "still empty": stub,
}


@pytest.mark.parametrize("word", GROW)
def test_other_ways_to_grow_fail(word):
    verdict = exercises.check_grow(GROW[word])
    assert not verdict and word in verdict.message, verdict


@pytest.mark.parametrize("one, word", [(0, "target neurons only"), (1, "source neurons only")])
def test_growth_at_one_end_fails(one, word):
    def grow(omega, source, taken, k):
        parts = [omega.sum(1), source]
        parts[1 - one] = np.ones(len(parts[1 - one]))
        gain = np.where(taken, -np.inf, np.multiply.outer(*parts))
        grown = np.zeros(taken.shape, dtype=bool)
        grown.flat[np.argsort(-gain, axis=None, kind="stable")[:k]] = True
        return grown

    verdict = exercises.check_grow(grow)
    assert not verdict and word in verdict.message, verdict


def test_growth_passes_as_numbers_too():
    assert exercises.check_grow(exercises.grow_solution)
    assert exercises.check_grow(lambda *a: by_product(a[0].sum(1), *a[1:]).astype(int))


def test_the_solution_grows_where_spacenet_does():
    """An oracle: the block of the method, which drops and grows in one event."""
    import torch

    from clkit.methods.spacenet.spacenet import Block

    torch.manual_seed(0)
    allowed = torch.rand(20, 30) < 0.9
    block = Block(torch.zeros(20, 30, 1), torch.arange(20), torch.arange(30), allowed, 150)
    block.omega.copy_(torch.rand(20, 30) * block.mask)
    before, source = block.mask > 0, torch.rand(30)
    omega, taken = block.omega.clone(), before | ~allowed
    k = block.rewire(0.2, omega.sum(1), source, "importance")
    grown = exercises.grow_solution(omega.numpy(), source.numpy(), taken.numpy(), k)
    assert k == 30 and np.array_equal(grown, ((block.mask > 0) & ~before).numpy())


# ---- notebook 04


def recalled(*tasks, sizes=(2,) * 5):
    """A stand-in for a run of ARM: for each task its rows, a list of (class answered, copies) for each."""
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


NOTHING = [[], []]
AS_EVER = recalled(NOTHING, *[[[(k, 1), (k - 1, 1)]] * 2 for k in (1, 3, 5, 7)])


def test_recalled_images_are_of_old_classes():
    for right in ({"old": 100, "present": 0}, {"old": "95", "present": 5.0}, {"old": 90, "present": 10}):
        verdict = exercises.check_recalled(right, AS_EVER)
        assert verdict and "100.0 % are taken" in verdict.message and "0.0 % for 8 or 9" in verdict.message
    for wrong, word in (
        ({"old": ..., "present": ...}, "Predict before"),
        (None, "Predict before"),
        ({"old": 100}, "Predict before"),
        ([100, 0], "Predict before"),
        ({"old": [80, 20], "present": 0}, "Predict before"),
        ({"old": 1.0, "present": 0.0}, "percentages"),
        ({"old": 0, "present": 1}, "percentages"),
        ({"old": 0, "present": 100}, "They *begin* as images of 8 or 9"),
        ({"old": 50, "present": 50}, "They *begin*"),
        ({"old": 80, "present": 20}, "every task the same share"),
        ({"old": 20, "present": 20}, "every task the same share"),
        ({"old": 100, "present": 20}, "at most 100 %"),
        ({"old": 70, "present": 5}, "which classes had it learned"),
        ({"old": 65, "present": 35}, "which classes had it learned"),
        ({"old": float("nan"), "present": 0}, "which classes had it learned"),
    ):
        verdict = exercises.check_recalled(wrong, AS_EVER)
        assert not verdict and word in verdict.message, verdict


def test_recalled_images_count_as_often_as_they_are_copied_and_of_the_last_task_only():
    run = recalled([[(4, 1)]], [[(0, 50)]], [[(3, 5), (4, 0)], [(0, 1), (4, 4)]], sizes=(2, 2, 1))
    verdict = exercises.check_recalled({"old": 60, "present": 40}, run)
    assert verdict and "60.0 % are taken" in verdict.message and "40.0 % for 4" in verdict.message
    verdict = exercises.check_recalled({"old": 100, "present": 0}, run)
    assert not verdict and "which classes had it learned" in verdict.message


def test_a_run_without_recalled_images_is_explained():
    for run in (exercises.worked_example(), recalled([[(0, 1)]], [[(0, 1)]], NOTHING, sizes=(2, 2, 2))):
        verdict = exercises.check_recalled({"old": 100, "present": 0}, run)
        assert not verdict and "recalled nothing" in verdict.message


def test_what_arm_recalls_is_of_old_classes():
    from clkit import experiments
    from clkit.engine.run import run

    found = experiments.experiment("arm/digits-online", "smoke")
    stream = experiments.stream(found.benchmark, "smoke")
    result = run(found.learner, found.config, stream, record=("images",), threads=experiments.THREADS)[1]
    rows = result.trace["images"]
    assert {k for t, began in zip(rows["task"], rows["origins"]) if t == 4 for k in began} == {8, 9}
    assert exercises.check_recalled({"old": 100, "present": 0}, result)


def soft(logits, axis=1):
    e = np.exp(logits - logits.max(axis=axis, keepdims=True))
    return e / e.sum(axis=axis, keepdims=True)


def naive(logits):
    return np.exp(logits) / np.exp(logits).sum(1, keepdims=True)


def negentropy(p):
    return np.where(p > 0, p * np.log(np.where(p > 0, p, 1)), 0).sum(-1)


DIVERSITY = {
    "softmax of the mean logits": lambda s: negentropy(soft(s.mean(0, keepdims=True))[0]),
    "mean of the entropies": lambda s: negentropy(soft(s)).mean(),
    "sign is turned": lambda s: -negentropy(soft(s).mean(0)),
    "base 2": lambda s: (soft(s).mean(0) * np.log2(soft(s).mean(0))).sum(),
    "no softmax in it": lambda s: (s.mean(0) * np.log(s.mean(0))).sum(),
    "over the classes of an image": lambda s: negentropy(soft(s, axis=0).mean(0)),
    "`axis=1`, and the mean over the images": lambda s: negentropy(soft(s).mean(1)),
    "the whole matrix": lambda s: negentropy((np.exp(s) / np.exp(s).sum()).mean(0)),
    "mean over the classes at the end": lambda s: (soft(s).mean(0) * np.log(soft(s).mean(0))).mean(),
    "exponential of 1000": lambda s: negentropy(naive(s).mean(0)),
    "0 times the logarithm": lambda s: (soft(s).mean(0) * np.log(soft(s).mean(0))).sum(),
    "its entropy.": lambda s: negentropy(soft(s).mean(0)) + 0.01,
    "(3 -1 0.5; 0 2 2; -4 1 0; 1 1 1) you give": lambda s: negentropy(soft(s[:2]).mean(0)),
    "the sum over the classes": lambda s: soft(s).mean(0) * np.log(soft(s).mean(0)),
    "an array of shape (2, 2)": soft,
    "it is `'text'`": lambda s: "text",
    "forget `return`": lambda s: None,
    "stopped with IndexError": lambda s: s[len(s)],
    "still empty": stub,
}


@pytest.mark.parametrize("word", DIVERSITY)
def test_other_kinds_of_diversity_fail(word):
    verdict = exercises.check_diversity(DIVERSITY[word])
    assert not verdict and word in verdict.message, verdict


def test_diversity_passes_in_any_form():
    assert exercises.check_diversity(exercises.diversity_solution)
    assert exercises.check_diversity(lambda s: negentropy(soft(s).mean(0)))
    assert exercises.check_diversity(lambda s: (soft(s).mean(0) * np.log(soft(s).mean(0) + 1e-8)).sum())


def test_the_checkers_call_with_copies():
    def changes(s, *others):
        s -= s.max(1, keepdims=True)
        return exercises.divergence_solution(s, *others) if others else exercises.diversity_solution(s)

    for check in (exercises.check_diversity, exercises.check_divergence) * 2:
        assert check(changes)


def test_the_numbers_that_a_slip_in_the_diversity_leads_to():
    logits = np.array([[10.0, 0.0], [0.0, 2.0]])
    assert exercises.diversity_solution(logits) == pytest.approx(-0.686031, abs=1e-6)
    verdict = exercises.check_diversity(DIVERSITY["softmax of the mean logits"])
    assert "(10 0; 0 2) you give -0.0900948, and it is -0.686031" in verdict.message


def test_the_solution_is_the_diversity_of_arm():
    import torch

    from clkit.methods.arm import arm

    torch.manual_seed(0)
    for logits in (3 * torch.randn(7, 10, dtype=torch.float64), torch.zeros(4, 10), 500 * torch.randn(5, 3)):
        weights = logits.new_full((len(logits),), 1 / len(logits))
        theirs = arm.diversity(logits.softmax(1), weights).item()
        assert exercises.diversity_solution(logits.numpy()) == pytest.approx(theirs, abs=1e-6)


def outputs(measure, soft=soft):
    return lambda old, new: measure(soft(old), soft(new)).sum(1)


def middle(p, q):
    return (p + q) / 2


DIVERGENCE = {
    "Jensen-Shannon": outputs(lambda p, q: (p * np.log(p / middle(p, q)) + q * np.log(q / middle(p, q))) / 2),
    "never exceeds ln 2": lambda old, new: (
        (negentropy(soft(old)) + negentropy(soft(new))) / 2 - negentropy(middle(soft(old), soft(new)))
    ),
    "KL(p || q), which": outputs(lambda p, q: p * (np.log(p) - np.log(q))),
    "KL(q || p), which": outputs(lambda p, q: q * (np.log(q) - np.log(p))),
    "with one another": outputs(lambda p, q: (p * np.log(p / q) + q * np.log(q / p)) / 2),
    "KL(m || p) alone": outputs(lambda p, q: middle(p, q) * np.log(middle(p, q) / p)),
    "KL(m || q) alone": outputs(lambda p, q: middle(p, q) * np.log(middle(p, q) / q)),
    "with the factor 1/2": outputs(lambda p, q: middle(p, q) * np.log(middle(p, q) ** 2 / (p * q))),
    "Your m is p + q. ": outputs(lambda p, q: (p + q) * np.log((p + q) / np.sqrt(p * q))),
    "under the logarithm": outputs(lambda p, q: middle(p, q) * np.log((p + q) / np.sqrt(p * q))),
    "square root is missing": outputs(lambda p, q: middle(p, q) * np.log(middle(p, q) / (p * q))),
    "never negative": outputs(lambda p, q: middle(p, q) * np.log(np.sqrt(p * q) / middle(p, q))),
    "base 2": outputs(lambda p, q: middle(p, q) * np.log2(middle(p, q) / np.sqrt(p * q))),
    "no softmax in it": outputs(
        lambda p, q: middle(p, q) * np.log(middle(p, q) / np.sqrt(p * q)), soft=lambda logits: logits
    ),
    "logits are 200 apart": outputs(lambda p, q: middle(p, q) * np.log(middle(p, q) / np.sqrt(p * q))),
    "`np.logaddexp(log_p, log_q)": outputs(
        lambda p, q: middle(p, q) * np.log(middle(p, q) / np.sqrt(p * q)), soft=naive
    ),
    "sets a bound": outputs(
        lambda p, q: middle(p, q) * np.log(middle(p, q) / np.sqrt(p * q)),
        soft=lambda logits: np.maximum(soft(logits), 1e-10),
    ),
    "on paper": lambda old, new: 1 + exercises.divergence_solution(old, new),
    "leave the images apart": lambda old, new: exercises.divergence_solution(old, new).mean(),
    "an array of shape (3, 2): take the sum": lambda old, new: soft(old) - soft(new),
    "shape (3,) should come back, and it is an array of shape (2,)": lambda old, new: soft(old).sum(0),
    "forget `return`": lambda old, new: None,
    "it is `{}`": lambda old, new: {},
    "stopped with ValueError": lambda old, new: old @ new,
    "still empty": stub,
}


@pytest.mark.parametrize("word", DIVERGENCE)
def test_other_divergences_fail(word):
    verdict = exercises.check_divergence(DIVERGENCE[word])
    assert not verdict and word in verdict.message, verdict


def test_a_divergence_is_told_by_the_image_where_it_goes_wrong():
    verdict = exercises.check_divergence(DIVERGENCE["Jensen-Shannon"])
    assert "For the logits (6 1) and (1 6) you give 0.652968, and it is 1.81357." in verdict.message

    def second(old, new):
        return exercises.divergence_solution(old, new) * [1, 2, 1][: len(old)]

    assert "For the logits (2 1) and (1 1) you give" in exercises.check_divergence(second).message


def test_divergence_passes_in_any_form():
    assert exercises.check_divergence(exercises.divergence_solution)
    assert exercises.check_divergence(lambda old, new: exercises.divergence_solution(new, old).tolist())


def test_the_solution_is_the_divergence_of_arm():
    """And its closed form for two classes whose logits change places."""
    import torch

    from clkit.methods.arm import arm

    torch.manual_seed(0)
    for scale in (1, 10, 300):
        logits = scale * torch.randn(2, 6, 10, dtype=torch.float64)
        theirs = arm.divergence(*logits.log_softmax(-1)).numpy()
        assert np.allclose(exercises.divergence_solution(*logits.numpy()), theirs, rtol=1e-9)
    s = np.array([1.0, 5.0, 10.0, 20.0, 200.0])
    old = np.stack([s, 0 * s], 1)
    right = s / 2 + np.log1p(np.exp(-s)) - np.log(2)
    assert np.allclose(exercises.divergence_solution(old, old[:, ::-1]), right)
