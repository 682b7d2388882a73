"""What the exercises of the notebooks call: a worked example to count by hand, solutions, and checkers.

A checker takes what the reader wrote and returns a Verdict, which a notebook shows as a sentence. It never
raises: a stub that raises NotImplementedError, an error inside the reader's function and a wrong answer are
all answered in words, and the usual slips are recognised by the number they lead to.
``explore.show(exercises.forgetting_solution)`` displays a solution.
"""

import math
from dataclasses import dataclass

import numpy as np

from clkit.result import Result


@dataclass(frozen=True)
class Verdict:
    """passed: whether the answer is right.   message: what to tell the reader, in Markdown."""

    passed: bool
    message: str

    def __bool__(self):
        return self.passed

    def __repr__(self):
        return ("Right. " if self.passed else "Not yet. ") + self.message.replace("`", "").replace("$", "")

    def _repr_markdown_(self):
        return ("✅ **Right.** " if self.passed else "✏️ **Not yet.** ") + self.message


# ---- a result small enough to count

# A column is an image. Rows of _ANSWERS: predictions after task 1, 2, 3, and -1 for a class that has not
# arrived. Rows of _TOLD: the same with the task told, before any learning and then after each task.
_LABELS = (0, 0, 1, 1, 2, 2, 3, 3, 4, 5)
_ANSWERS = ((0, 1, 0, 1, -1, -1, -1, -1, -1, -1),
            (0, 2, 1, 1, 2, 2, 3, 3, -1, -1),
            (0, 4, 5, 3, 2, 4, 3, 5, 4, 5))
_TOLD = ((0, 1, 0, 1, 2, 3, 2, 3, 4, 4),
         (0, 1, 0, 1, 2, 2, 2, 3, 4, 4),
         (0, 0, 1, 1, 2, 2, 3, 3, 5, 5),
         (0, 1, 1, 1, 2, 2, 3, 3, 4, 5))


def worked_example():
    """A made-up Result that can be counted: three tasks of two classes, and 4, 4 and 2 test images."""
    labels, predictions, told = (np.array(x, dtype=np.int16) for x in (_LABELS, _ANSWERS, _TOLD))
    rank = np.where(predictions < 0, -1, predictions != labels).astype(np.int16)
    nothing, ones = np.zeros(3), np.ones(3, dtype=np.int64)
    about = {"experiment": "worked example", "method": "worked example", "benchmark": "letters", "seed": 0}
    return Result(about, (2, 2, 2), list("ABCDEF"), None, seen=np.array([2, 4, 6]), labels=labels,
                  predictions=predictions, within=told, rank=rank, learn_seconds=nothing,
                  test_seconds=nothing, drawn=ones, parameters=ones)


# ---- calling what the reader wrote

def _call(function, *arguments):
    """(value, None), or (None, Verdict) if the function is a stub or raises."""
    name = getattr(function, "__name__", "your function")
    try:
        return function(*arguments), None
    except NotImplementedError:
        return None, Verdict(False, f"`{name}` is still empty: put your own lines in the place of "
                                    "`raise NotImplementedError`, then run the cell again.")
    except Exception as error:                          # whatever a reader's code may raise
        return None, Verdict(False, f"`{name}` stopped with {type(error).__name__}: {error}")


def _number(value):
    """A float, or None where the value is no single number."""
    try:
        value = np.asarray(... if value is None else value, dtype=float)       # numpy reads None as NaN
    except (TypeError, ValueError):
        return None
    return float(value) if value.ndim == 0 else None


def _short(value):
    text = " ".join(repr(value).split())
    return f"`{text if len(text) <= 60 else text[:57] + '...'}`"


def _same(a, b):
    return math.isclose(a, b, abs_tol=1e-9) or (math.isnan(a) and math.isnan(b))


_NAN = float("nan")
# In the first one each slip leads to a number of its own; the others refuse answers made for one matrix.
_MATRICES = (np.array([[0.50, _NAN, _NAN], [0.90, 0.80, _NAN], [0.20, 0.60, 1.00]]),
             np.array([[1.00, _NAN], [0.25, 0.75]]),
             np.array([[0.9, _NAN, _NAN, _NAN], [0.7, 1.0, _NAN, _NAN], [0.8, 0.5, 0.7, _NAN],
                       [0.6, 0.4, 0.1, 0.9]]))


def _check_score(function, solution, slips, good, matrices=_MATRICES):
    """`good` if a function of an accuracy matrix agrees with the solution, else a Verdict that says why not.

    slips: {what to tell the reader: function that makes this mistake}.
    """
    for a in matrices:
        value, verdict = _call(function, a.copy())
        if verdict is not None:
            return verdict
        got, right = _number(value), solution(a)
        if got is None:
            advice = "did you forget `return`?" if value is None else "take the mean over the tasks."
            return Verdict(False, f"One number should come back, and it is {_short(value)}: {advice}")
        if not _same(got, right):
            known = [said for said, slip in slips.items() if _same(got, slip(a))]
            hint = known[0] if known else "Write the formula out for this matrix on paper, then compare."
            rows = "; ".join(" ".join("–" if math.isnan(v) else f"{v:.2f}" for v in row) for row in a)
            return Verdict(False, f"For the matrix with the rows ({rows}) you give {got:.4g}, and it is "
                                  f"{right:.4g}. {hint}")
    return good


# ---- notebook 00

def check_final_classes(prediction, results):
    """Which classes a learner answers at the end. prediction: class names; results: its seeds.

    Right are the classes of the tasks, most frequent first, that together get nine tenths of the predictions.
    """
    empty = Verdict(False, "Replace the dots by the names of the digits that you expect, such as "
                           "`{\"3\", \"5\"}`.")
    if isinstance(prediction, str | bytes) or not np.iterable(prediction):
        return empty
    guess = {str(name) for name in prediction if name is not ...}
    if not guess:
        return empty
    names = results[0].names
    unknown = sorted(guess - set(names))
    if unknown:
        return Verdict(False, f"There is no class {', '.join(unknown)}: the classes are {', '.join(names)}.")
    answered = _answered(results)
    told = (" and " if len(answered) < 3 else ", ").join(sorted(answered))
    if guess == answered:
        return Verdict(True, f"Whatever test image is shown, the answer is nearly always one of {told}.")
    if guess == set(names):
        return Verdict(False, f"Every digit was learned, pair after pair, but nearly all answers are {told}: "
                              "look at the last row of the accuracy matrix: which columns are not dark?")
    return Verdict(False, f"Nearly every answer is {told}. In which task were these learned, and when?")


def _answered(results):
    """Names of the classes of the tasks that together get nine tenths of the final predictions."""
    sizes, names = results[0].sizes, results[0].names
    ends = np.cumsum(sizes)
    tasks = np.concatenate([np.searchsorted(ends, r.predictions[-1], side="right") for r in results])
    counts = np.bincount(tasks, minlength=len(ends))
    order = np.argsort(-counts, kind="stable")
    enough = int(np.searchsorted(np.cumsum(counts[order]), 0.9 * counts.sum())) + 1
    return {names[k] for t in order[:enough] for k in range(ends[t] - sizes[t], ends[t])}


def average_solution(a):
    """Average accuracy: the mean of the last row of an accuracy matrix (T, T)."""
    return a[-1].mean()


_AVERAGE_SLIPS = {
    "That is the mean of the diagonal: how well each task went when it was new. The end is the last row.":
        lambda a: np.diag(a).mean(),
    "That is the mean over all moments. Average accuracy looks at one moment, the end: the last row.":
        lambda a: np.nanmean(a),
    "Something in your sum is `nan`: the entries above the diagonal are, because those tasks had not come "
    "yet. The last row has none.":
        lambda a: _NAN}


def check_average(function):
    """Check a function of an accuracy matrix (T, T), NaN above the diagonal: the final average accuracy."""
    good = Verdict(True, "The mean of the last row: every task counts the same, and only the end counts.")
    return _check_score(function, average_solution, _AVERAGE_SLIPS, good)


# ---- notebook 01

def finetuned(tasks, preset="teach", seed=0):
    """A Result of finetuning on the digits cut into `tasks` tasks of equal size; tasks divides 10."""
    from clkit import data, presets
    from clkit.run import run
    from clkit.stream import Stream
    chosen = presets.experiment("finetune/split-digits", preset)
    stream = Stream(*data.load("digits"), (10 // tasks,) * tasks)
    about = {"experiment": f"finetune/digits in {tasks} tasks", "method": "finetune", "preset": preset}
    return run(chosen.learner, chosen.config, stream, seed=seed, threads=presets.THREADS, about=about)[1]


def check_one_over_t(prediction, results, within=0.1):
    """Final average accuracy of finetuning by number of tasks.

    prediction: {tasks: percent}; results: {tasks: Result}; within: how far off may be right, a fraction.
    """
    given = prediction if isinstance(prediction, dict) else {}
    guess = {t: _number(given.get(t)) for t in results}
    missing = [t for t, g in guess.items() if g is None]
    if missing:
        return Verdict(False, "Predict before you look: put a number, in percent, in the place of the dots "
                              f"for {' and '.join(map(str, missing))} tasks.")
    measured = {t: r.average() for t, r in results.items()}
    wrong = [t for t in results if not abs(guess[t] / 100 - measured[t]) <= within]
    if any(0 < guess[t] <= 1 for t in wrong):
        return Verdict(False, "Give percentages, such as 35, not fractions such as 0.35.")
    said = "Measured: " + ", ".join(f"{100 * m:.1f} % with {t} tasks" for t, m in measured.items()) + "."
    if wrong:
        return Verdict(False, f"{said} You were off for {' and '.join(map(str, wrong))} tasks. At the end "
                              "the newest task is answered nearly perfectly, the older ones not at all: what "
                              "is the mean of one 100 and $T-1$ zeros?")
    return Verdict(True, f"{said} Only the newest task is left, so the average is about $1/T$: 50 % on two "
                         "tasks and 10 % on ten are the same complete loss.")


def forgetting_solution(a):
    """Forgetting: best accuracy before the end minus that at the end, mean over all tasks but the last."""
    best = np.nanmax(a[:-1, :-1], axis=0)               # (T - 1,); the last row is the end itself
    return (best - a[-1, :-1]).mean()


_FORGETTING_SLIPS = {
    "You compared with the accuracy when the task was new, $a_{j,j}$: that is backward transfer with its "
    "sign turned round. A task may be at its best later: take the largest entry of its column.":
        lambda a: np.mean(np.diag(a)[:-1] - a[-1, :-1]),
    "That is backward transfer. Forgetting compares with the best moment of a task, and is positive where "
    "accuracy was lost.":
        lambda a: np.mean(a[-1, :-1] - np.diag(a)[:-1]),
    "You took the maximum over all rows. It runs over the moments before the end, without the last row: "
    "forgetting is negative where a task is better at the end than ever before.":
        lambda a: np.mean(np.nanmax(a[:, :-1], axis=0) - a[-1, :-1]),
    "You averaged over all $T$ tasks. The last one has had no time to be forgotten: leave it out and divide "
    "by $T-1$.":
        lambda a: np.mean(np.nanmax(a, axis=0) - a[-1]),
    "The sign is turned round: forgetting is positive where accuracy was lost, best minus last.":
        lambda a: -forgetting_solution(a),
    "Something in your sum is `nan`: the entries above the diagonal are, because those tasks had not come "
    "yet. `np.nanmax` passes over them.":
        lambda a: _NAN}
_RISING = np.array([[0.5, _NAN], [0.7, 0.9]])           # a task that is at its best at the end


def check_forgetting(function):
    """Check a function of an accuracy matrix (T, T), NaN above the diagonal: forgetting."""
    good = Verdict(True, "Best earlier accuracy minus final accuracy, averaged over all tasks but the last. "
                         "It can be negative.")
    return _check_score(function, forgetting_solution, _FORGETTING_SLIPS, good, (*_MATRICES, _RISING))


def reservoir_solution(memory, item, met, size, random):
    """Offer an item to a memory, a list of at most `size` items; met: how many were offered before it.

    random: a numpy Generator. Afterwards each of the met + 1 items is kept with probability size / (met + 1).
    """
    if len(memory) < size:
        memory.append(item)
        return
    place = random.integers(met + 1)                    # 0 .. met, the item's own number included
    if place < size:
        memory[place] = item


def check_reservoir(function, size=20, offered=200, repeats=400):
    """Check a function like `reservoir_solution` by which items of a stream are kept, and how often."""
    kept, random = np.zeros(offered), np.random.default_rng(0)
    for _ in range(repeats):
        memory, wrong = _fill(function, size, offered, random)
        if wrong is not None:
            return wrong
        kept[memory] += 1 / repeats
    quarter, right = offered // 4, size / offered
    early, late = kept[:quarter].mean(), kept[-quarter:].mean()
    said = f"Of {offered} items, the first quarter is kept with probability {early:.3f}, the last with " \
           f"{late:.3f}"
    if max(abs(early - right), abs(late - right)) < 0.015:
        return Verdict(True, f"{said}: every item has the same chance of {right:.3f}, however early it came.")
    hint = "Later items get in too easily and wash out the earlier ones. The more have come, the less " \
           "likely a new one may be to get in: draw a place among *all* `met + 1` items, and use it only " \
           "if the memory has it."
    if late < early:
        hint = "Later items do not get in often enough: a new one must be kept with probability " \
               "`size / (met + 1)`."
    return Verdict(False, f"{said}, and both should be {right:.3f}. {hint}")


def _fill(function, size, offered, random):
    """(the memory after a stream of numbers, None), or (None, Verdict) where something is wrong with it."""
    memory = []
    for n in range(offered):
        _, verdict = _call(function, memory, n, n, size, random)
        if verdict is not None:
            return None, verdict
        if len(memory) != min(n + 1, size):
            holds = f"After {n + 1} items the memory holds {len(memory)} and not {min(n + 1, size)}"
            return None, Verdict(False, f"{holds}: fill it first, then replace, in the list `memory` itself.")
    if len(set(memory)) < size or not set(memory) <= set(range(offered)):
        return None, Verdict(False, "The memory holds an item twice, or one that was never offered: put "
                                    "`item` into one place only.")
    return memory, None


# ---- notebook 02

def check_stronger(prediction, results, within=0.1):
    """Final average accuracy of a stronger penalty, without and with the task told.

    prediction: {"task not told": percent, "task told": percent}; results: its seeds; within: how far off may
    be right, a fraction.
    """
    given = prediction if isinstance(prediction, dict) else {}
    measured = {"task not told": np.mean([r.average() for r in results]),
                "task told": np.mean([r.within_average() for r in results])}
    guess = {asked: _number(given.get(asked)) for asked in measured}
    if None in guess.values():
        return Verdict(False, "Predict before you look: put two numbers, in percent, in the place of the "
                              "dots.")
    wrong = [asked for asked, m in measured.items() if not abs(guess[asked] / 100 - m) <= within]
    if any(0 < guess[asked] <= 1 for asked in wrong):
        return Verdict(False, "Give percentages, such as 35, not fractions such as 0.35.")
    said = " and ".join(f"{100 * m:.1f} % with the {asked}" for asked, m in measured.items())
    if not wrong:
        return Verdict(True, f"Measured: {said}. A penalty holds old weights, at any strength. It cannot "
                             "hold the rows of the new classes, which had no importance when they were new.")
    hint = "Told the task, only the two classes of a pair compete, and their difference is just what a " \
           "penalty holds."
    if "task not told" in wrong and guess["task not told"] / 100 > measured["task not told"]:
        hint = "The rows of the new classes have importance 0, so that no strength keeps their scores from " \
               "rising above the old ones, on old images, too."
    elif "task not told" in wrong:
        hint = "How many of the five tasks are answered well at the end, however strong the penalty is?"
    return Verdict(False, f"Measured: {said}. {hint}")


def herding_solution(features, mu, m):
    """The indices of m images, a list: each choice brings the mean of all chosen as close to mu as it can.

    features: (N, D); mu: (D,).
    """
    chosen, total = [], np.zeros(len(mu))
    for k in range(1, m + 1):
        gaps = np.linalg.norm(mu - (total + features) / k, axis=1)              # (N,)
        gaps[chosen] = np.inf                           # an image is chosen once
        chosen.append(int(gaps.argmin()))
        total = total + features[chosen[-1]]
    return chosen


def _greedy(divisor):
    """Herding whose sum of the k features chosen is divided by divisor(k, m)."""
    def herd(features, mu, m):
        chosen, total = [], np.zeros(len(mu))
        for k in range(1, m + 1):
            gaps = np.linalg.norm(mu - (total + features) / divisor(k, m), axis=1)
            gaps[chosen] = np.inf
            chosen.append(int(gaps.argmin()))
            total = total + features[chosen[-1]]
        return chosen
    return herd


_HERDING_SLIPS = {
    "These are the images *nearest* to `mu`, each for itself. Herding looks at the mean of all chosen: an "
    "image on the other side may be better than a second one like the first.":
        lambda features, mu, m: np.argsort(np.linalg.norm(mu - features, axis=1))[:m].tolist(),
    "You compare `mu` with the *sum* of the features. Divide by the number of images in it.":
        _greedy(lambda k, m: 1),
    "You divide by `m` from the start. At the k-th choice there are k images in the mean.":
        _greedy(lambda k, m: m)}


def check_herding(function):
    """Check a function like `herding_solution` on random features of length 1."""
    random = np.random.default_rng(5)
    for n, d, m in ((12, 3, 6), (40, 8, 15)):
        features = random.normal(size=(n, d)) + 0.5
        features /= np.linalg.norm(features, axis=1, keepdims=True)
        mu = features.mean(axis=0)
        value, verdict = _call(function, features.copy(), mu.copy(), m)
        verdict = verdict if verdict is not None else _no_choice(value, m, n)
        if verdict is not None:
            return verdict
        chosen, right = [int(i) for i in value], herding_solution(features, mu, m)
        if chosen != right:
            known = [said for said, slip in _HERDING_SLIPS.items() if chosen == slip(features, mu, m)]
            k = next(k for k in range(m) if chosen[k] != right[k]) + 1
            gaps = [np.linalg.norm(mu - features[c[:k]].mean(axis=0)) for c in (chosen, right)]
            hint = known[0] if known else "Try every image that is left, and take the one with the smallest."
            return Verdict(False, f"The mean of your first {k} images is {gaps[0]:.4f} away from `mu`; with "
                                  f"image {right[k - 1]} as number {k} it would be {gaps[1]:.4f}. {hint}")
    return Verdict(True, "Each choice makes up for what the mean still lacks. Cut the list anywhere, and "
                         "what is left is a good sample of its size.")


def _no_choice(value, m, n):
    """None, or a Verdict if `value` is not m different indices below n."""
    try:
        chosen = [int(i) for i in value]
    except (TypeError, ValueError):
        advice = " Did you forget `return`?" if value is None else ""
        return Verdict(False, f"A list of {m} indices should come back, and it is {_short(value)}.{advice}")
    if len(chosen) != m or not all(0 <= i < n for i in chosen):
        return Verdict(False, f"{m} indices from 0 to {n - 1} should come back, and it is {_short(chosen)}.")
    if len(set(chosen)) < m:
        return Verdict(False, "An image is chosen twice: leave out those that are chosen already.")
    return None


def fisher_solution(p, x):
    """Diagonal Fisher information (K, D) of the weights of a softmax layer: p (N, K), x (N, D)."""
    return (p * (1 - p)).T @ x**2 / len(x)


_FISHER_SLIPS = {
    "You squared the probabilities as if no class were ever the right one. The class k *is* the label with "
    "probability $p_k$: average $(p_k - [k = y])^2$ over $y$.":
        lambda p, x: (p**2).T @ x**2 / len(x),
    "The input is not squared: the gradient in $w_{kd}$ has the factor $x_d$, its square $x_d^2$.":
        lambda p, x: (p * (1 - p)).T @ x / len(x),
    "Divide by the number of images: it is a mean.":
        lambda p, x: (p * (1 - p)).T @ x**2,
    "This is the square of a mean gradient. Square the gradient of each image first, then average: otherwise "
    "images cancel one another.":
        lambda p, x: ((p * (1 - p)).T @ x / len(x))**2,
    "You took one label for each image, the likeliest. With the expected label each class counts, as often "
    "as its probability says.":
        lambda p, x: ((p - np.eye(p.shape[1])[p.argmax(axis=1)])**2).T @ x**2 / len(x)}


def check_fisher(function):
    """Check a function like `fisher_solution` on random probabilities and inputs."""
    random = np.random.default_rng(6)
    for n, classes, d in ((5, 3, 4), (1, 2, 2), (50, 10, 6)):
        p = random.dirichlet(np.ones(classes), size=n)
        x = random.normal(size=(n, d))
        value, verdict = _call(function, p.copy(), x.copy())
        if verdict is not None:
            return verdict
        right = fisher_solution(p, x)
        try:
            got = np.asarray(... if value is None else value, dtype=float)
        except (TypeError, ValueError):
            got = np.zeros(0)
        if got.shape != right.shape:
            turned = " You turned it round: a row for each class." if got.shape == right.T.shape else ""
            advice = " Did you forget `return`?" if value is None else turned
            came = f"one of shape {got.shape}" if got.size > 1 else _short(value)
            return Verdict(False, f"A matrix of shape {right.shape} should come back, and it is "
                                  f"{came}.{advice}")
        if not np.allclose(got, right):
            known = [said for said, slip in _FISHER_SLIPS.items() if np.allclose(got, slip(p, x))]
            hint = known[0] if known else "Write the case of one image and one weight out on paper."
            return Verdict(False, f"For {n} images, {classes} classes and {d} inputs your first entry is "
                                  f"{got.flat[0]:.4g}, and it is {right.flat[0]:.4g}. {hint}")
    return Verdict(True, "$p_k (1 - p_k)\\,x_d^2$, averaged over the images: nothing where the network is "
                         "certain, most where it hesitates.")


# ---- notebook 03

def one_by_one(preset="teach", seed=0):
    """A Result of SpaceNet on the enlarged digits in ten tasks of one class each."""
    from clkit import data, presets
    from clkit.run import run
    from clkit.stream import Stream
    chosen = presets.experiment("spacenet/split-mnist", preset)
    stream = Stream(*data.load("digits28"), (1,) * 10, **presets.BENCHMARKS["split-mnist"][preset].stream)
    about = {"experiment": "spacenet/digits one by one", "method": "spacenet", "preset": preset}
    return run(chosen.learner, chosen.config, stream, seed=seed, keep=("neurons",), threads=presets.THREADS,
               about=about)[1]


def check_room(prediction, result):
    """Which task first finds too few free neurons, and how many it finds.

    prediction: {"task": from 1, "neurons": of a hidden layer}; result: with the trace table "neurons".
    """
    given = prediction if isinstance(prediction, dict) else {}
    guess = [_number(given.get(key)) for key in ("task", "neurons")]
    if None in guess:
        return Verdict(False, "Predict before you look: put whole numbers in the place of the dots.")
    config, rows = result.about["config"], result.trace["neurons"]
    wanted, kept, units = config["selected"][0], config["reserved"][0], config["hidden"][0]
    found = [len(chosen) for layer, chosen in zip(rows["layer"], rows["chosen"]) if layer == 0]
    short = next((t for t, n in enumerate(found, 1) if n < wanted), None)
    if short is None:
        return Verdict(False, f"In this run every task found the {wanted} neurons it wanted.")
    said = f"Task {short} is the first that does not find {wanted} free neurons: there are " \
           f"{found[short - 1]}."
    if guess == [short, found[short - 1]]:
        return Verdict(True, f"{said} Before task `t` there are `{units} - {kept} * (t - 1)`.")
    if guess[0] == units // wanted + 1:
        hint = f"You took all {wanted} chosen neurons from the free ones. Only the {kept} reserved ones " \
               "leave them, the others come back."
    elif guess[0] == units // kept + 1:
        hint = f"There are neurons to *reserve* for {units // kept} tasks. But a task wants to *choose* " \
               f"{wanted} before it reserves {kept}."
    else:
        hint = f"How many of the {units} are free before task 1, before task 2, before task 3?"
    return Verdict(False, f"{said} {hint}")


def grow_solution(omega, source, taken, k):
    """Where k connections grow: bool (O, I), True at the k places with the largest product (eq. 4 and 5).

    omega: (O, I), importance of the connections, 0 where there is none.   source: (I,), importance of the
    source neurons.   taken: (O, I), True where nothing may grow.
    """
    target = omega.sum(axis=1)                          # (O,), what comes into each neuron
    gain = np.where(taken, -np.inf, np.outer(target, source))                   # (O, I)
    grown = np.zeros_like(taken)
    grown.flat[np.argsort(-gain, axis=None)[:k]] = True
    return grown


def _largest(gain, taken, k):
    """bool, as `gain`: the k largest among the places not taken."""
    order = np.argsort(-np.where(taken, -np.inf, gain), axis=None, kind="stable")
    return np.isin(np.arange(gain.size), order[:k]).reshape(gain.shape)


_GROW_SLIPS = {
    "You summed over the wrong axis: row `o` of `omega` holds what comes *into* target neuron `o`, so sum "
    "along the rows, `axis=1`.":
        lambda omega, source: np.outer(omega.sum(axis=0), source),
    "You turned the matrix round: its rows are targets, its columns sources.":
        lambda omega, source: np.outer(source, omega.sum(axis=1)),
    "You added the two importances. Equation 5 multiplies them: both ends must matter.":
        lambda omega, source: omega.sum(axis=1)[:, None] + source,
    "You took the places with the *smallest* products. Connections grow where the product is largest.":
        lambda omega, source: -np.outer(omega.sum(axis=1), source),
    "You looked at the target neurons only. Equation 5 multiplies by the importance of the source, too.":
        lambda omega, source: np.repeat(omega.sum(axis=1)[:, None], len(source), axis=1),
    "You looked at the source neurons only. Equation 5 multiplies by the importance of the target, too.":
        lambda omega, source: np.repeat(source[None], len(omega), axis=0)}


def check_grow(function):
    """Check a function like `grow_solution` on layers of several shapes."""
    random = np.random.default_rng(3)
    for targets, sources, k in ((6, 6, 5), (4, 9, 4), (30, 20, 40)):            # a square first, for slips
        there = random.random((targets, sources)) < 0.3
        omega, source = there * random.random(there.shape), random.random(sources)
        taken = there | (random.random(there.shape) < 0.1)
        value, verdict = _call(function, omega.copy(), source.copy(), taken.copy(), k)
        verdict = verdict if verdict is not None else _no_mask(value, taken, k)
        if verdict is not None:
            return verdict
        grown, gain = np.asarray(value, dtype=bool), np.outer(omega.sum(axis=1), source)
        best = gain[grow_solution(omega, source, taken, k)].sum()
        if not math.isclose(gain[grown].sum(), best):
            known = [said for said, slip in _GROW_SLIPS.items() if targets == sources
                     and np.array_equal(grown, _largest(slip(omega, source), taken, k))]
            hint = known[0] if known else "Compute the matrix of products, rule out what is taken, then " \
                                          "take the largest."
            return Verdict(False, f"In a layer of {targets} target and {sources} source neurons, the {k} "
                                  f"products at your places add up to {gain[grown].sum():.3f}; {best:.3f} is "
                                  f"possible. {hint}")
    return Verdict(True, "The largest products of places that are free: where both neurons matter already, "
                         "new connections arrive. That is how they gather.")


def _no_mask(value, taken, k):
    """None, or a Verdict if `value` is not k places that are free, as a boolean matrix like `taken`."""
    grown = np.asarray(value)
    if grown.shape != taken.shape or grown.dtype not in (np.dtype(bool), np.dtype(int), np.dtype(float)):
        advice = " Did you forget `return`?" if value is None else ""
        return Verdict(False, "A boolean matrix of the shape of `taken` should come back, True where a "
                              f"connection grows, and it is {_short(value)}.{advice}")
    grown = grown.astype(bool)
    if (grown & taken).any():
        return Verdict(False, f"{(grown & taken).sum()} of your places are taken already. Nothing can grow "
                              "there: rule them out before you take the largest, for instance with "
                              "`np.where(taken, -np.inf, ...)`.")
    if grown.sum() != k:
        return Verdict(False, f"You grow {grown.sum()} connections, and it should be as many as were "
                              f"dropped, {k}: otherwise their number would not stay constant.")
    return None


# ---- notebook 04

def check_recalled(prediction, result, within=0.1):
    """What the old network takes the images for that were recalled during the last task.

    prediction: {"old": percent taken for a class of earlier tasks, "present": for one of the last task};
    result: of ARM, with the trace table "images"; within: how far off may be right, a fraction.
    """
    given = prediction if isinstance(prediction, dict) else {}
    guess = {which: _number(given.get(which)) for which in ("old", "present")}
    if None in guess.values():
        return Verdict(False, "Predict before you look: put two numbers, in percent, in the place of the "
                              "dots.")
    measured = _taken_for(result)
    if measured is None:
        return Verdict(False, "This run recalled nothing in its last task, or did not keep the table "
                              "`images`.")
    wrong = [which for which, m in measured.items() if not abs(guess[which] / 100 - m) <= within]
    if wrong and 0 < max(guess.values()) <= 1:
        return Verdict(False, "Give percentages, such as 35, not fractions such as 0.35.")
    last, even = " or ".join(result.names[-result.sizes[-1]:]), result.sizes[-1] / sum(result.sizes)
    said = f"Measured: {100 * measured['old']:.1f} % are taken for a class of earlier tasks, " \
           f"{100 * measured['present']:.1f} % for {last}."
    if not wrong:
        return Verdict(True, f"{said} The old network has never learned {last}, and would hardly have named "
                             "them in the images as they began, either. What the descent is for is to make "
                             "its answers certain, and to spread them over the classes that it knows.")
    hint = "The old network is a copy from before the last task: which classes had it learned by then?"
    present = guess["present"] / 100
    if sum(guess.values()) > 100.1:                     # rounded numbers may add up to a little more
        hint = "An image is taken for one class only: together the two are at most 100 %."
    elif "present" in wrong and present > measured["present"] and abs(present - even) <= 0.05:
        hint = "You gave every task the same share. Diversity asks for even shares, but the two terms that " \
               "are not local drive the images away from the present classes, which the old network has " \
               "never learned."
    elif "present" in wrong and present > measured["present"] and present >= 0.5:
        hint = f"They *begin* as images of {last}. But it is the old network that answers, which has never " \
               "learned these, and the objective drives the images away from them."
    return Verdict(False, f"{said} {hint}")


def _taken_for(result):
    """{"old", "present": shares of the images recalled in the last task}, or None where there are none."""
    rows = result.trace.get("images")
    mine = np.flatnonzero(np.asarray(rows["task"]) == result.tasks - 1) if rows else []
    counts = np.concatenate([np.zeros(0), *(rows["counts"][i] for i in mine)])  # (n,) of all rows
    if not counts.any():
        return None
    answer = np.concatenate([rows["answers"][i] for i in mine]).argmax(axis=1)  # (n,)
    first, end = sum(result.sizes[:-1]), sum(result.sizes)
    share = np.bincount(answer, weights=counts, minlength=end) / counts.sum()   # (K,)
    return {"old": share[:first].sum(), "present": share[first:end].sum()}


def _check_term(function, solution, slips, cases, missing, good):
    """`good` if a function of scores agrees with the solution, else a Verdict that says why not.

    slips: {what to tell the reader: function that makes this mistake}, told apart by the first case.
    cases: [(arguments, each (B, K), what to tell if the value is wrong and not by one of these slips)].
    missing: what to tell if the shape is wrong.
    """
    for n, (scores, otherwise) in enumerate(cases):
        right = np.asarray(solution(*scores))
        with np.errstate(all="ignore"):                 # the hint says more than a warning
            value, verdict = _call(function, *(s.copy() for s in scores))
        got, verdict = (None, verdict) if verdict is not None else _shaped(value, right.shape, missing)
        if verdict is not None:
            return verdict
        if not _close(got, right):
            known = [said for said, slip in slips.items() if n == 0 and _close(got, slip(*scores))]
            at = int(np.argmax(~np.isclose(got, right, 1e-5, 1e-6)))
            told = " and ".join(_rows(s[at:at + 1] if right.ndim else s) for s in scores)
            return Verdict(False, f"For the scores {told} you give {got.flat[at]:.6g}, and it is "
                                  f"{right.flat[at]:.6g}. {known[0] if known else otherwise}")
    return good


def _shaped(value, shape, missing):
    """(value as an array of this shape, None), or (None, Verdict) where it is no such array."""
    try:
        got = np.asarray(... if value is None else value, dtype=float)
    except (TypeError, ValueError):
        got = None
    if got is not None and got.shape == shape:
        return got, None
    wanted = f"An array of shape {shape}" if shape else "One number"
    came = _short(value) if got is None or got.ndim == 0 else f"an array of shape {got.shape}"
    advice = "did you forget `return`?" if value is None else missing
    return None, Verdict(False, f"{wanted} should come back, and it is {came}: {advice}")


def _rows(scores):
    return f"({'; '.join(' '.join(f'{v:.4g}' for v in row) for row in scores)})"


def _close(a, b):
    return np.allclose(a, b, rtol=1e-5, atol=1e-6)      # room for a small constant under a logarithm


def diversity_solution(scores):
    """Minus the entropy of the mean output, a number, of scores (B, K) before the softmax."""
    p = np.exp(scores - scores.max(axis=1, keepdims=True))                      # (B, K), at most 1
    mean = (p / p.sum(axis=1, keepdims=True)).mean(axis=0)                      # (K,)
    return float((mean * np.log(np.maximum(mean, 1e-16))).sum())               # 0 log 0 is 0


def _softmax(scores, axis=1):
    return np.exp(scores - np.logaddexp.reduce(scores, axis=axis, keepdims=True))


def _minus_entropy(p):
    return (p * np.log(np.maximum(p, 1e-16))).sum(axis=-1)


_DIVERSITY_SLIPS = {
    "That is the softmax of the mean scores. Take the softmax of each image first, then the mean: otherwise "
    "one image with large scores speaks for all.":
        lambda scores: _minus_entropy(_softmax(scores.mean(axis=0), axis=0)),
    "That is the mean of the entropies: how undecided single images are. Take the mean output first, then "
    "its entropy: each image may be sure of a class of its own.":
        lambda scores: _minus_entropy(_softmax(scores)).mean(),
    "The sign is turned round: this is the entropy. It is to be *minimised*, so it is minus the entropy.":
        lambda scores: -diversity_solution(scores),
    "These are bits, logarithms to the base 2. Everywhere here logarithms are natural: `np.log`.":
        lambda scores: diversity_solution(scores) / np.log(2),
    "There is no softmax in it: scores are not probabilities yet.":
        lambda scores: _minus_entropy(scores.mean(axis=0)),
    "The softmax runs over the classes of an image, `axis=1`, and the mean over the images, `axis=0`.":
        lambda scores: _minus_entropy(_softmax(scores, axis=0).mean(axis=0)),
    "You divided by the sum of the whole matrix. Each image has a softmax of its own: divide by the sum of "
    "its row, `.sum(axis=1, keepdims=True)`.":
        lambda scores: _minus_entropy(_softmax(scores, axis=None).mean(axis=0)),
    "You took a mean over the classes at the end. An entropy is a sum over them.":
        lambda scores: diversity_solution(scores) / scores.shape[1]}
_MEAN_ON_PAPER = "Write the mean output of these images out on paper, then its entropy."
_DIVERSITY_CASES = [
    ((np.array([[10.0, 0.0], [0.0, 2.0]]),), _MEAN_ON_PAPER),
    ((np.array([[3.0, -1.0, 0.5], [0.0, 2.0, 2.0], [-4.0, 1.0, 0.0], [1.0, 1.0, 1.0]]),), _MEAN_ON_PAPER),
    ((np.array([[1000.0, 0.0], [0.0, 1000.0]]),),
     "The exponential of 1000 is too large for a number. Take the largest score of each image off its "
     "scores first: the softmax stays the same."),
    ((np.array([[0.0, -800.0], [0.0, -800.0]]),),
     "A class has the probability 0 here, and 0 times the logarithm of 0 is `nan`: it should count 0. Raise "
     "the mean to a tiny number, `np.maximum(mean, 1e-16)`, before you take the logarithm.")]


def check_diversity(function):
    """Check a function like `diversity_solution`."""
    missing = "take the mean over the images, then the sum over the classes."
    good = Verdict(True, "0 where all images surely show one class, and least, minus the logarithm of $K$, "
                         "where they share the classes evenly. Each may be as certain as it likes.")
    return _check_term(function, diversity_solution, _DIVERSITY_SLIPS, _DIVERSITY_CASES, missing, good)


def divergence_solution(old, new):
    """Arithmetic-geometric divergence (B,) of the outputs p and q of two networks.

    old, new: (B, K), their scores before the softmax.
    """
    log_p = old - np.logaddexp.reduce(old, axis=1, keepdims=True)               # (B, K)
    log_q = new - np.logaddexp.reduce(new, axis=1, keepdims=True)               # (B, K)
    log_m = np.logaddexp(log_p, log_q) - np.log(2)      # m = (p + q) / 2
    return (np.exp(log_m) * (log_m - (log_p + log_q) / 2)).sum(axis=1)


def _from_outputs(measure):
    """measure(p, q), summed over the classes, as a function of the scores of both networks."""
    return lambda old, new: measure(_softmax(old), _softmax(new)).sum(axis=1)


_DIVERGENCE_SLIPS = {
    "That is the Jensen-Shannon divergence, KL(p || m) and KL(q || m). It never exceeds ln 2 = 0.693, and is "
    "nearly flat where the networks disagree most. Turn both round: KL(m || p) and KL(m || q).":
        _from_outputs(lambda p, q: (p * np.log(2 * p / (p + q)) + q * np.log(2 * q / (p + q))) / 2),
    "That is KL(p || q), which weighs by the old network alone. Compare both with their middle m.":
        _from_outputs(lambda p, q: p * np.log(p / q)),
    "That is KL(q || p), which weighs by the new network alone. Compare both with their middle m.":
        _from_outputs(lambda p, q: q * np.log(q / p)),
    "That is the mean of KL(p || q) and KL(q || p). Compare both with their middle m, not with one another.":
        _from_outputs(lambda p, q: (p - q) * np.log(p / q) / 2),
    "That is KL(m || p) alone: the new network must count as much as the old one.":
        _from_outputs(lambda p, q: (p + q) / 2 * np.log((p + q) / 2 / p)),
    "That is KL(m || q) alone: the old network must count as much as the new one.":
        _from_outputs(lambda p, q: (p + q) / 2 * np.log((p + q) / 2 / q)),
    "That is twice as much: take the *mean* of KL(m || p) and KL(m || q), with the factor 1/2.":
        lambda old, new: 2 * divergence_solution(old, new),
    "Your m is p + q. The factor 1/2 is missing: m is their middle, (p + q) / 2.":
        _from_outputs(lambda p, q: (p + q) * np.log((p + q) / np.sqrt(p * q))),
    "Your m is p + q under the logarithm. The factor 1/2 is missing: m is their middle, (p + q) / 2.":
        _from_outputs(lambda p, q: (p + q) / 2 * np.log((p + q) / np.sqrt(p * q))),
    "The square root is missing: the geometric mean of p and q is `np.sqrt(p * q)`.":
        _from_outputs(lambda p, q: (p + q) / 2 * np.log((p + q) / 2 / (p * q))),
    "The sign is turned round: a divergence is never negative.":
        lambda old, new: -divergence_solution(old, new),
    "These are bits, logarithms to the base 2. Everywhere here logarithms are natural: `np.log`.":
        lambda old, new: divergence_solution(old, new) / np.log(2),
    "There is no softmax in it: scores are not probabilities yet.":
        lambda old, new: ((old + new) / 2 * np.log((old + new) / 2 / np.sqrt(old * new))).sum(axis=1)}


def _pair(old, new, kind=float):
    return np.array(old, dtype=kind), np.array(new, dtype=kind)


_ONE_ON_PAPER = "Write p, q and m of this one image out on paper, then compare."
# The last case is in single precision, as networks compute.
_DIVERGENCE_CASES = [
    (_pair([[6, 1], [2, 1], [1, 3]], [[1, 6], [1, 1], [1, 3]]), _ONE_ON_PAPER),
    (_pair([[1, -2, 0.5], [0, 4, -1]], [[-1, 0, 2.5], [3, 1, 0]]), _ONE_ON_PAPER),
    (_pair([[200, 0, 0], [0, 0, 200]], [[0, 200, 0], [0, 0, 200]], np.float32),
     "Where scores are 200 apart, exponentials are too large or too small for a number, and the logarithm of "
     "0 is lost; a small constant in place of the 0 sets a bound to D. Stay with logarithms: log p is `old - "
     "np.logaddexp.reduce(old, axis=1, keepdims=True)`, log m is `np.logaddexp(log_p, log_q) - np.log(2)`.")]


def check_divergence(function):
    """Check a function like `divergence_solution`."""
    missing = "take the sum over the classes, `axis=1`, and leave the images apart."
    good = Verdict(True, "0 where the networks agree, the same both ways round, and without an upper bound: "
                         "however far apart they are, going further still pays.")
    return _check_term(function, divergence_solution, _DIVERGENCE_SLIPS, _DIVERGENCE_CASES, missing, good)
