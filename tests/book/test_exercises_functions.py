"""Exercises whose answer is a function: right functions in many forms, wrong ones with their messages."""

import copy

import numpy as np
import pytest
import torch

from clkit.book import exercises

NAN = float("nan")


def stub(*_):
    raise NotImplementedError


def torch_form(value):
    found = torch.tensor(np.asarray(value), device="cpu")
    return found.requires_grad_() if found.is_floating_point() else found


# What a reader may return in place of an array of floats.
FORMS = {
    "list": lambda value: np.asarray(value).tolist(),
    "tuple of arrays": lambda value: tuple(np.asarray(value)) if np.ndim(value) else (value,),
    "generator": lambda value: (v for v in np.atleast_1d(value)),
    "tensor": torch_form,
    "float32": lambda value: np.asarray(value, dtype=np.float32),
    "objects": lambda value: np.asarray(value, dtype=object),
}

# For each checker: its solution, other right functions, and wrong ones with a word of the message.

# ---- notebook 00: average accuracy


def average_loop(a):
    total = 0.0
    for task in range(len(a)):
        total += a[len(a) - 1][task]
    return total / len(a)


AVERAGE = (
    exercises.check_average,
    exercises.average_solution,
    [
        average_loop,
        lambda a: np.nanmean(a[-1]),
        lambda a: torch.from_numpy(a)[-1].mean(),
        lambda a: sum(a[-1]) / len(a),
    ],
    [
        (lambda a: np.median(a[-1]), "That is the median"),
        (lambda a: a[-1].sum(), "That is the sum"),
        (lambda a: a[-1].max(), "the largest value"),
        (lambda a: min(a[-1]), "the smallest value"),
        (lambda a: np.diag(a).mean(), "mean of the diagonal"),
        (lambda a: np.nanmean(a), "mean over all moments"),
        (lambda a: np.mean([np.nanmean(row) for row in a]), "*incremental*"),
        (lambda a: a[-1, :-1].mean(), "left out the newest task"),
        (lambda a: np.nanmean(a[-2]), "last row but one"),
        (lambda a: a[:, 0].mean(), "That is a column"),
        (lambda a: a.mean(), "is `nan`"),
        (lambda a: a[:, -1].mean(), "is `nan`"),
        (lambda a: 100 * a[-1].mean(), "not a percentage"),
        (lambda a: round(a[-1].mean(), 2), "Do not round"),
        (lambda a: -a[-1].mean(), "sign is wrong"),
        (lambda a: a[-1, -1], "the largest value"),
        (lambda a: np.sqrt((a[-1] ** 2).mean()), "on paper"),
        (lambda a: (a[-1].max() + a[-1].min()) / 2, "on paper"),
        (lambda a: a[-1].sum() / 4, "(1 –; 0.25 0.75): your result is 0.25, but it should be 0.5"),
        (lambda a: a[-1], "shape (4,). Take the mean over the tasks"),
        (lambda a: None, "did you forget `return`"),
        (lambda a: a["last"], "stopped with IndexError"),
        (0.6, "without parentheses, not `0.6`"),
        (stub, "`stub` is still empty"),
    ],
)

# ---- notebook 01: forgetting, a memory


def forgetting_loop(a):
    lost = []
    for task in range(len(a) - 1):
        earlier = [a[moment, task] for moment in range(task, len(a) - 1)]
        lost.append(max(earlier) - a[-1, task])
    return sum(lost) / len(lost)


def forgetting_torch(a):
    a = torch.from_numpy(a).nan_to_num(nan=-1.0)
    return (a[:-1, :-1].amax(0) - a[-1, :-1]).mean()


FORGETTING = (
    exercises.check_forgetting,
    exercises.forgetting_solution,
    [forgetting_loop, forgetting_torch, lambda a: np.nanmax(a[:-1, :-1] - a[-1, :-1], axis=0).mean()],
    [
        (lambda a: (np.diag(a) - a[-1])[:-1].mean(), "*best* earlier moment"),
        (lambda a: (a[-1] - np.diag(a))[:-1].mean(), "That is backward transfer"),
        (lambda a: (np.nanmax(a, axis=0) - a[-1])[:-1].mean(), "moments *before* the end"),
        (lambda a: np.maximum(exercises.forgetting_solution(a), 0), "moments *before* the end"),
        (lambda a: (np.nanmax(a, axis=0) - a[-1]).mean(), "divide by $T-1$"),
        (lambda a: (a[-1, :-1] - np.nanmax(a[:-1, :-1], axis=0)).mean(), "sign is wrong"),
        (lambda a: np.median(np.nanmax(a[:-1, :-1], axis=0) - a[-1, :-1]), "the median"),
        (lambda a: np.sum(np.nanmax(a[:-1, :-1], axis=0) - a[-1, :-1]), "the sum"),
        (lambda a: np.max(np.nanmax(a[:-1, :-1], axis=0) - a[-1, :-1]), "the largest value"),
        (lambda a: np.abs(np.nanmax(a[:-1, :-1], axis=0) - a[-1, :-1]).mean(), "leave out `abs`"),
        (lambda a: (a[-2, :-1] - a[-1, :-1]).mean(), "just before the end"),
        (lambda a: (np.nanmean(a[:-1, :-1], axis=0) - a[-1, :-1]).mean(), "mean of the earlier moments"),
        (lambda a: (a.max(axis=0) - a[-1]).mean(), "is `nan`"),
        (lambda a: 100 * exercises.forgetting_solution(a), "not a percentage"),
        (lambda a: round(exercises.forgetting_solution(a), 2), "Do not round"),
        (lambda a: (1 - a[-1, :-1] / np.nanmax(a[:-1, :-1], axis=0)).mean(), "on paper"),
        (lambda a: np.nanmax(a[:-1, :-1], axis=0).mean(), "on paper"),
        (lambda a: a[0, 0] - a[-1, 0], "on paper"),
        (lambda a: np.nanmax(a[:-1, :-1], axis=0) - a[-1, :-1], "shape (3,). Take the mean"),
        (lambda a: None, "did you forget `return`"),
        (stub, "still empty"),
    ],
)


def filling(replace):
    """Reservoir sampling that fills the memory, then calls replace(memory, item, n_seen, size, random)."""

    def offer(memory, item, n_seen, size, random):
        if n_seen < size:
            memory.append(item)
        else:
            replace(memory, item, n_seen, size, random)

    return offer


@filling
def two_draws(memory, item, n_seen, size, random):
    if random.random() < size / (n_seen + 1):
        memory[random.integers(size)] = item


@filling
def pop_and_append(memory, item, n_seen, size, random):
    index = int(random.random() * (n_seen + 1))
    if index < size:
        memory.pop(index)
        memory.append(item)


@filling
def by_choice(memory, item, n_seen, size, random):
    kept = random.permutation(n_seen + 1)[:size]
    if n_seen in kept:
        memory[random.choice(size)] = item


@filling
def with_torch(memory, item, n_seen, size, random):
    index = torch.tensor(random.integers(0, n_seen, endpoint=True))
    if index < size:
        memory[index] = item


def drawn_from(number, place=lambda index, size: index):
    """Reservoir sampling that draws an index below number(n_seen, size)."""

    @filling
    def offer(memory, item, n_seen, size, random):
        index = random.integers(number(n_seen, size))
        if index < size:
            memory[place(index, size)] = item

    return offer


@filling
def one_of_size_and_new(memory, item, n_seen, size, random):
    memory.append(item)
    memory.pop(random.integers(size + 1))


@filling
def oldest_out(memory, item, n_seen, size, random):
    if random.random() < size / (n_seen + 1):
        del memory[0]
        memory.append(item)


@filling
def in_turn(memory, item, n_seen, size, random):
    if random.random() < size / (n_seen + 1):
        memory[n_seen % size] = item


@filling
def newest_only(memory, item, n_seen, size, random):
    memory.append(item)
    del memory[0]


@filling
def off_by_one(memory, item, n_seen, size, random):
    index = random.integers(n_seen + 1)
    if index <= size:
        memory[index] = item


@filling
def repeats(memory, item, n_seen, size, random):
    memory[:2] = [item, item][:size]


def forgets_to_fill(memory, item, n_seen, size, random):
    place = random.integers(n_seen + 1)
    if place < len(memory):
        memory[place] = item


def room_for_four(memory, item, n_seen, size, random):
    exercises.reservoir_solution(memory, item, n_seen, 4, random)


def same_seed(memory, item, n_seen, size, random):
    exercises.reservoir_solution(memory, item, n_seen, size, np.random.default_rng(0))


def unfair_start(memory, item, n_seen, size, random):
    exercises.reservoir_solution(memory, item, n_seen + 1, size, random)


RESERVOIR = (
    exercises.check_reservoir,
    None,
    [exercises.reservoir_solution, two_draws, pop_and_append, by_choice, with_torch],
    [
        (drawn_from(lambda n, size: n), "one number too few"),
        (drawn_from(lambda n, size: n + 2), "one number too many"),
        (unfair_start, "one number too many"),
        (drawn_from(lambda n, size: size), "You keep every new item"),
        (newest_only, "You keep every new item"),
        (filling(lambda *_: None), "You keep no later item"),
        (drawn_from(lambda n, size: n + 1, lambda index, size: 0), "always takes the same place"),
        (
            drawn_from(lambda n, size: n + 1, lambda index, size: -1),
            "replace each of the others equally often",
        ),
        (drawn_from(lambda n, size: 2 * size), "with probability `size / (n_seen + 1)`"),
        (drawn_from(lambda n, size: n + size), "replace each of the others"),
        (one_of_size_and_new, "replace each of the others"),
        (oldest_out, "replace each of the others"),
        (in_turn, "replace each of the others"),
        (same_seed, "share of streams that keep item [0]"),
        (off_by_one, "stopped with IndexError"),
        (repeats, "You keep every new item"),
        (forgets_to_fill, "holds 0, but it should hold 1"),
        (room_for_four, "a memory for 1 holds 2, but it should hold 1"),
        (lambda memory, item, *_: memory.append(item), "holds 2, but it should hold 1"),
        (lambda memory, item, *_: [*memory, item], "in the list `memory` itself"),
        (
            lambda memory, item, n, size, random: memory.__setitem__(
                slice(None), [[item]] * min(size, n + 1)
            ),
            "unchanged",
        ),
        (lambda memory: None, "stopped with TypeError"),
        (stub, "still empty"),
    ],
)

# ---- notebook 02: Fisher information


def fisher_loop(p, x):
    found = np.zeros((p.shape[1], x.shape[1]))
    for n in range(len(p)):
        for label in range(p.shape[1]):
            error = p[n] - (np.arange(p.shape[1]) == label)
            found += p[n, label] * np.outer(error, x[n]) ** 2 / len(p)
    return found


FISHER = (
    exercises.check_fisher,
    exercises.fisher_solution,
    [
        fisher_loop,
        lambda p, x: np.einsum("nk,nd->kd", p - p * p, x * x) / len(p),
        lambda p, x: torch.einsum("nk,nd->nkd", torch.tensor(p - p * p), torch.tensor(x * x)).mean(0),
    ],
    [
        (lambda p, x: (p * p).T @ (x * x) / len(p), "no class were ever the label"),
        (lambda p, x: p.T @ (x * x) / len(p), "factor $1 - p_k$ is missing"),
        (lambda p, x: ((p - p * p) ** 2).T @ (x * x) / len(p), "on paper"),
        (lambda p, x: (p - p * p).T @ x / len(p), "Square the input"),
        (lambda p, x: (p - p * p).T @ (x * x), "Divide by the number of images"),
        (lambda p, x: ((p - p * p).T @ x / len(p)) ** 2, "square of a mean gradient"),
        (lambda p, x: ((p - (p == p.max(1, keepdims=True))) ** 2).T @ (x * x) / len(p), "the most likely"),
        (lambda p, x: (x * x).T @ (p - p * p) / len(p), "return the transpose"),
        (lambda p, x: (p * p - p).T @ (x * x) / len(p), "sign is wrong"),
        (lambda p, x: np.round((p - p * p).T @ (x * x) / len(p), 2), "Do not round"),
        (lambda p, x: (p - p * p).T @ (x * x) / p.shape[1], "on paper"),
        (lambda p, x: ((1 - p) ** 2).T @ (x * x) / len(p), "on paper"),
        (lambda p, x: np.outer((p - p * p).mean(0), (x * x).mean(0)), "on paper"),
        (lambda p, x: np.abs((p - p * p).T @ np.abs(x)) / len(p), "on paper"),
        (lambda p, x: np.sqrt((p - p * p).T @ (x * x) / len(p)), "on paper"),
        (lambda p, x: ((p - p * p).T @ (x * x) / len(p)).mean(1), "shape (3,). One row for each class"),
        (lambda p, x: 0.5, "your result has the shape ()"),
        (lambda p, x: None, "did you forget `return`"),
        (lambda p, x: "text", "not `'text'`"),
        (lambda p, x: p @ x, "stopped with ValueError"),
        (stub, "still empty"),
    ],
)

# ---- notebook 03: herding


def greedy(features, mu, m, again=False, mean=lambda chosen, k, m: chosen.mean(0), order=2):
    chosen = []
    for k in range(1, m + 1):
        left = [i for i in range(len(features)) if again or i not in chosen]
        gaps = [np.linalg.norm(mu - mean(features[[*chosen, i]], k, m), order) for i in left]
        chosen.append(left[int(np.argmin(gaps))])
    return chosen


def herding_torch(features, mu, m):
    from clkit.blocks.memory import herd

    return herd(torch.tensor(features), m)


HERDING = (
    exercises.check_herding,
    exercises.herding_solution,
    [greedy, herding_torch, lambda f, mu, m: iter(greedy(f, mu, m))],
    [
        (lambda f, mu, m: np.argsort(((f - mu) ** 2).sum(1))[:m], "*nearest* to `mu`"),
        (lambda f, mu, m: np.argsort(-f @ mu)[:m], "*nearest* to `mu`"),
        (lambda f, mu, m: greedy(f, mu, m, mean=lambda chosen, k, m: chosen.sum(0)), "*sum* of the features"),
        (lambda f, mu, m: greedy(f, mu, m, mean=lambda chosen, k, m: chosen.sum(0) / m), "from the start"),
        (lambda f, mu, m: greedy(f, mu, m, again=True), "chose an image twice"),
        (lambda f, mu, m: sorted(greedy(f, mu, m)), "in another order"),
        (lambda f, mu, m: f[greedy(f, mu, m)], "Return their indices"),
        (lambda f, mu, m: np.isin(np.arange(len(f)), greedy(f, mu, m)), "You return a mask"),
        (lambda f, mu, m: greedy(f, mu, len(f)), "Stop after `m`"),
        (lambda f, mu, m: greedy(f, mu, m)[::-1], "Try every remaining image"),
        (lambda f, mu, m: np.argsort(-((f - mu) ** 2).sum(1))[:m], "Try every remaining image"),
        (lambda f, mu, m: greedy(f, f.mean(0) / 2, m), "Try every remaining image"),
        (lambda f, mu, m: greedy(f, mu, m, order=1), "Try every remaining image"),
        (lambda f, mu, m: list(range(m)), "Try every remaining image"),
        (lambda f, mu, m: [i + 1 for i in greedy(f, mu, m)], "Try every remaining image"),
        (lambda f, mu, m: [0] * m, "Try every remaining image"),
        (lambda f, mu, m: greedy(f, mu, m - 1), "shape (5,). Return one index for each"),
        (lambda f, mu, m: set(greedy(f, mu, m)), "Return an array of shape (6,), not"),
        (lambda f, mu, m: None, "did you forget `return`"),
        (lambda f, mu, m: 3, "your result has the shape ()"),
        (lambda f, mu, m: f[len(f)], "stopped with IndexError"),
        (stub, "still empty"),
    ],
)

# ---- notebook 04: growth


def grow_by(gain, more=0, free=None):
    """Growth at the k + more free places with the largest gain(omega, source)."""

    def grow(omega, source, taken, k):
        gains = np.where(taken if free is None else ~free(taken), -np.inf, gain(omega, source))
        grown = np.zeros(taken.shape, dtype=bool)
        grown[np.unravel_index(np.argsort(gains.ravel())[gains.size - k - more :], taken.shape)] = True
        return grown

    return grow


def product(omega, source):
    return omega.sum(1)[:, None] * source


right_growth = grow_by(product)


def grow_loop(omega, source, taken, k):
    places = [(o, i) for o in range(len(omega)) for i in range(len(source)) if not taken[o, i]]
    places.sort(key=lambda at: -sum(omega[at[0]]) * source[at[1]])
    return [[(o, i) in places[:k] for i in range(len(source))] for o in range(len(omega))]


def grow_torch(omega, source, taken, k):
    gain = torch.outer(torch.tensor(omega).sum(1), torch.tensor(source)).masked_fill(torch.tensor(taken), -1)
    return torch.zeros(gain.numel()).bool().index_fill(0, gain.flatten().topk(k).indices, True).view_as(gain)


GROW = (
    exercises.check_grow,
    exercises.grow_solution,
    [
        right_growth,
        grow_loop,
        grow_torch,
        *(lambda *a, t=t: right_growth(*a).astype(t) for t in ("uint8", "f4", "int8")),
    ],
    [
        (grow_by(lambda omega, source: omega.sum(0)[:, None] * source), "the wrong axis"),
        (grow_by(lambda omega, source: source[:, None] * omega.sum(1)), "swapped the two ends"),
        (grow_by(lambda omega, source: omega.sum(1)[:, None] + source), "both ends must matter"),
        (grow_by(lambda omega, source: -product(omega, source)), "*smallest*"),
        (grow_by(lambda omega, source: omega.sum(1)[:, None] + 0 * source), "target neurons only"),
        (grow_by(lambda omega, source: 0 * omega.sum(1)[:, None] + source), "source neurons only"),
        (grow_by(lambda omega, source: omega.max(1)[:, None] * source), "Its importance is the *sum*"),
        (grow_by(lambda omega, source: (omega > 0).sum(1)[:, None] * source), "You counted"),
        (grow_by(product, free=np.ones_like), "already taken"),
        (lambda *a: right_growth(*a) | a[2], "only the new ones"),
        (lambda omega, source, taken, k: product(omega, source), "You return the products"),
        (lambda *a: np.flatnonzero(right_growth(*a)), "the indices of the places"),
        (lambda *a: right_growth(*a).T, "return the transpose"),
        (grow_by(product, more=1), "exactly the `k` largest"),
        (grow_by(product, more=-1), "exactly the `k` largest"),
        (grow_by(lambda omega, source: 1 / (1 + product(omega, source))), "*smallest*"),
        (lambda *a: ~right_growth(*a), "exactly the `k` largest"),
        (lambda omega, source, taken, k: ~taken, "exactly the `k` largest"),
        (lambda omega, source, taken, k: np.zeros(taken.shape), "exactly the `k` largest"),
        (lambda *a: right_growth(*a) * 0.5, "exactly the `k` largest"),
        (lambda *a: right_growth(*a)[:-1], "Return a boolean matrix"),
        (lambda omega, source, taken, k: None, "did you forget `return`"),
        (lambda omega, source, taken, k: 1 // 0, "stopped with ZeroDivisionError"),
        (stub, "still empty"),
    ],
)

# ---- notebook 05: diversity, divergence


def soft(logits, axis=1):
    e = np.exp(logits - logits.max(axis=axis, keepdims=True))
    return e / e.sum(axis=axis, keepdims=True)


def naive(logits):
    return np.exp(logits) / np.exp(logits).sum(1, keepdims=True)


def negentropy(p):
    return np.where(p > 0, p * np.log(np.where(p > 0, p, 1)), 0).sum(-1)


def diversity_loop(logits):
    mean = np.zeros(logits.shape[1])
    for row in logits:
        e = np.exp(row - max(row))
        mean += e / e.sum() / len(logits)
    return sum(m * np.log(m) for m in mean if m > 0)


DIVERSITY = (
    exercises.check_diversity,
    exercises.diversity_solution,
    [
        diversity_loop,
        lambda s: negentropy(soft(s).mean(0)),
        lambda s: (soft(s).mean(0) * np.log(soft(s).mean(0) + 1e-8)).sum(),
        lambda s: -torch.distributions.Categorical(torch.tensor(s).softmax(1).mean(0)).entropy(),
    ],
    [
        (lambda s: negentropy(soft(s.mean(0, keepdims=True))[0]), "softmax of the mean logits"),
        (lambda s: negentropy(soft(s)).mean(), "mean of the entropies"),
        (lambda s: -negentropy(soft(s).mean(0)), "sign is wrong"),
        (lambda s: (soft(s).mean(0) * np.log2(soft(s).mean(0))).sum(), "base 2"),
        (lambda s: (s.mean(0) * np.log(s.mean(0))).sum(), "softmax is missing"),
        (lambda s: negentropy(soft(s, axis=0).mean(0)), "over the classes of an image"),
        (lambda s: negentropy(soft(s).mean(1)), "`axis=1`, and the mean over the images"),
        (lambda s: negentropy((np.exp(s) / np.exp(s).sum()).mean(0)), "the whole matrix"),
        (lambda s: round(negentropy(soft(s).mean(0)), 2), "Do not round"),
        (lambda s: (soft(s).mean(0) * np.log(soft(s).mean(0))).mean(), "on paper"),
        (lambda s: negentropy(soft(s).mean(0)) + 0.01, "on paper"),
        (lambda s: np.log(soft(s).mean(0)).sum(), "on paper"),
        (lambda s: negentropy(soft(s[:2]).mean(0)), "(3 -1 0.5; 0 2 2; -4 1 0; 1 1 1): your result"),
        (lambda s: negentropy(naive(s).mean(0)), "exponential of 1000"),
        (lambda s: (soft(s).mean(0) * np.log(soft(s).mean(0))).sum(), "0 times the logarithm"),
        (lambda s: soft(s).mean(0) * np.log(soft(s).mean(0)), "the sum over the classes"),
        (soft, "your result has the shape (2, 2)"),
        (lambda s: "text", "not `'text'`"),
        (lambda s: None, "forget `return`"),
        (lambda s: s[len(s)], "stopped with IndexError"),
        (stub, "still empty"),
    ],
)


def outputs(measure, soft=soft):
    return lambda old, new: measure(soft(old), soft(new)).sum(1)


def middle(p, q):
    return (p + q) / 2


def ag(p, q):
    return middle(p, q) * np.log(middle(p, q) / np.sqrt(p * q))


def divergence_torch(old, new):
    log_p, log_q = (torch.tensor(s).double().log_softmax(1) for s in (old, new))
    log_m = torch.logaddexp(log_p, log_q) - np.log(2)
    return (log_m.exp() * (2 * log_m - log_p - log_q)).sum(1) / 2


def divergence_loop(old, new):
    return [exercises.divergence_solution(p[None], q[None])[0] for p, q in zip(old, new)]


DIVERGENCE = (
    exercises.check_divergence,
    exercises.divergence_solution,
    [divergence_loop, divergence_torch, lambda old, new: exercises.divergence_solution(new, old)],
    [
        (
            outputs(lambda p, q: (p * np.log(p / middle(p, q)) + q * np.log(q / middle(p, q))) / 2),
            "Jensen-Shannon",
        ),
        (outputs(lambda p, q: p * (np.log(p) - np.log(q))), "KL(p || q), which"),
        (outputs(lambda p, q: q * (np.log(q) - np.log(p))), "KL(q || p), which"),
        (
            outputs(lambda p, q: (p * np.log(p / q) + q * np.log(q / p)) / 2),
            "mean of KL(p || q) and KL(q || p)",
        ),
        (outputs(lambda p, q: middle(p, q) * np.log(middle(p, q) / p)), "KL(m || p) alone"),
        (outputs(lambda p, q: middle(p, q) * np.log(middle(p, q) / q)), "KL(m || q) alone"),
        (outputs(lambda p, q: middle(p, q) * np.log(middle(p, q) ** 2 / (p * q))), "take the *mean*"),
        (outputs(lambda p, q: (p + q) * np.log((p + q) / np.sqrt(p * q))), "Your m is p + q"),
        (outputs(lambda p, q: middle(p, q) * np.log((p + q) / np.sqrt(p * q))), "Your m in the logarithm"),
        (outputs(lambda p, q: middle(p, q) * np.log(middle(p, q) / (p * q))), "square root is missing"),
        (outputs(lambda p, q: -ag(p, q)), "sign is wrong"),
        (outputs(lambda p, q: ag(p, q) / np.log(2)), "base 2"),
        (outputs(ag, soft=lambda logits: logits), "softmax is missing"),
        (outputs(lambda p, q: np.round(ag(p, q), 3)), "on paper"),
        (outputs(ag), "logits are 200 apart"),
        (outputs(ag, soft=naive), "`np.logaddexp(log_p, log_q)"),
        (outputs(ag, soft=lambda logits: np.maximum(soft(logits), 1e-10)), "sets a bound"),
        (lambda old, new: 1 + exercises.divergence_solution(old, new), "on paper"),
        (lambda old, new: exercises.divergence_solution(old, new) * [1, 2, 1][: len(old)], "entry [1] is"),
        (lambda old, new: exercises.divergence_solution(old, new).mean(), "keep the images separate"),
        (lambda old, new: soft(old) - soft(new), "shape (3, 2). Take the sum"),
        (lambda old, new: soft(old).sum(0), "shape (3,); your result has the shape (2,)"),
        (lambda old, new: None, "forget `return`"),
        (lambda old, new: {}, "not `{}`"),
        (lambda old, new: old @ new, "stopped with ValueError"),
        (stub, "still empty"),
    ],
)

# ---- notebook 07: the balance of classes, and what is forgotten or outshouted


def softmax(x, axis=1):
    e = np.exp(x - x.max(axis, keepdims=True))
    return e / e.sum(axis, keepdims=True)


def digits(q):
    return sum(a * np.log10(a) for a in q if a > 0)


CLASS_DIVERSITY = (
    exercises.check_class_diversity,
    exercises.class_diversity_solution,
    [
        lambda x: digits(softmax(x).mean(0)),
        lambda x: -sum(-a * np.log(a) / np.log(10) for a in softmax(x).mean(0) if a),
        lambda x: torch.special.xlogy(q := torch.tensor(x).softmax(1).mean(0), q).sum() / np.log(10),
        lambda x: float(digits(softmax(x).sum(0) / len(x))),
    ],
    [
        (lambda x: digits(softmax(x).mean(0)) * np.log(10), "*decimal* logarithms"),
        (lambda x: np.mean([digits(p) for p in softmax(x)]), "mean of the entropies"),
        (lambda x: digits(softmax(x.mean(0)[None])[0]), "averaged the logits"),
        (lambda x: digits(softmax(x).sum(0)), "sum over images"),
        (lambda x: digits(softmax(x, 0).mean(0)), "axis 1"),
        (lambda x: digits(np.mean(np.eye(x.shape[1])[x.argmax(1)], 0)), "A count has no gradient"),
        (lambda x: digits(softmax(x).mean(0)) / x.shape[1], "number of classes"),
        (lambda x: np.log10(softmax(x).mean(0)).sum(), "left out the factor"),
        (lambda x: (softmax(x).mean(0) ** 2).sum(), "left out the logarithm"),
        (lambda x: -digits(softmax(x).mean(0)), "sign is wrong"),
        (lambda x: (lambda q: (q * np.log10(q)).sum())(softmax(x).mean(0)), "counts as 0"),
        (lambda x: digits((np.exp(x) / np.exp(x).sum(1, keepdims=True)).mean(0)), "overflows"),
        (lambda x: digits(softmax(x).mean(0)) + 1, "on paper"),
        (lambda x: softmax(x).mean(0), "one number"),
        (lambda x: None, "forget `return`"),
        (stub, "still empty"),
    ],
)


def three(x, y, f, right=None):
    kinds = [0, 0, 0]
    for row, label in zip(x, y):
        if label < f:
            kinds[0 if row.argmax() == label else 1 if row[:f].argmax() == label else 2] += 1
    return np.array(kinds) / sum(kinds)


def replaced(n, value):
    def function(x, y, f):
        found = three(x, y, f)
        found[n] = value(x[y < f], y[y < f], f)
        return found

    return function


OUTSHOUTED = (
    exercises.check_outshouted,
    exercises.outshouted_solution,
    [
        three,
        lambda x, y, f: list(three(x, y, f)),
        lambda x, y, f: torch.tensor(three(x, y, f)),
        replaced(2, lambda x, y, f: np.mean(x[:, :f].argmax(1) != y)),
    ],
    [
        (lambda x, y, f: three(x, y, f) * np.mean(y < f), "divide by all images"),
        (replaced(1, lambda x, y, f: np.mean(x.argmax(1) >= f)), "taken for a new class"),
        (replaced(0, lambda x, y, f: np.mean(x[:, :f].argmax(1) == y)), "Take the largest of *all*"),
        (replaced(1, lambda x, y, f: np.mean(x[:, :f].argmax(1) == y)), "includes the images that are right"),
        (replaced(2, lambda x, y, f: np.mean(x.argmax(1) != y)), "counts all that are wrong"),
        (lambda x, y, f: three(x, y, f)[[0, 2, 1]], "swapped outshouted and forgotten"),
        (lambda x, y, f: three(x, y, f) * sum(y < f), "numbers of images"),
        (lambda x, y, f: [np.mean(x.argmax(1) == y), *three(x, y, f)[1:]], "images of new classes, too"),
        (lambda x, y, f: three(x, y, f) / 2, "one by one"),
        (lambda x, y, f: 100 * three(x, y, f), "not a percentage"),
        (lambda x, y, f: three(x, y, f)[:2], "in this order"),
        (lambda x, y, f: np.mean(x.argmax(1) == y), "in this order"),
        (lambda x, y, f: None, "forget `return`"),
        (lambda x, y, f: x[99], "stopped with IndexError"),
        (stub, "still empty"),
    ],
)

# ---- notebook 08: the sparsity term, and what a hard mask reserves


def ratio(above, below):
    return lambda m, r: above(m, r).sum() / below(m, r).sum()


def sparsity_loop(m, r):
    taken = sum(float(a) for rows in zip(m, r) for a, b in zip(*rows) if not b)
    return taken / max(1, sum(not b for row in r for b in row))


SPARSITY = (
    exercises.check_sparsity,
    exercises.sparsity_solution,
    [
        sparsity_loop,
        lambda m, r: np.where(r, 0, m).sum() / max(1, (1 - r.astype(int)).sum()),
        lambda m, r: m[~r].mean() if (~r).any() else 0,
        lambda m, r: (torch.tensor(m) * ~torch.tensor(r)).sum() / (~torch.tensor(r)).sum().clamp(min=1),
    ],
    [
        (lambda m, r: np.mean([row[~held].mean() for row, held in zip(m, r)]), "mean of the layers' ratios"),
        (lambda m, r: sum(row[~held].mean() for row, held in zip(m, r)), "sum of the layers' ratios"),
        (lambda m, r: (m * ~r).mean(), "divide by all places"),
        (ratio(lambda m, r: m, lambda m, r: ~r), "in the upper sum, too"),
        (lambda m, r: m.mean(), "mean of the masks"),
        (lambda m, r: m[r].mean(), "charge for *reserved*"),
        (ratio(lambda m, r: m * ~r, lambda m, r: r), "number of *reserved* ones"),
        (lambda m, r: (m[~r] > 0.5).mean(), "a count has no gradient"),
        (lambda m, r: 1 - m[~r].mean(), "stays free"),
        (ratio(lambda m, r: m * ~r, lambda m, r: m), "the sum of the masks"),
        (lambda m, r: m[~r].sum(), "did not divide"),
        (lambda m, r: m[:-1][~r[:-1]].mean(), "the last layer"),
        (ratio(lambda m, r: m * ~r, lambda m, r: ~r), "nothing is free"),
        (lambda m, r: -m[~r].mean(), "sign is wrong"),
        (lambda m, r: np.round(m[~r].mean(), 2), "Do not round"),
        (lambda m, r: (m**2)[~r].mean(), "on paper"),
        (lambda m, r: m[~r].mean() + 1, "on paper"),
        (lambda m, r: m * ~r, "Sum over all places"),
        (lambda m, r: (m * ~r).sum(1) / (~r).sum(1), "Sum over all places"),
        (lambda m, r: None, "forget `return`"),
        (lambda m, r: m[9], "stopped with IndexError"),
        (stub, "still empty"),
    ],
)


def groups_of(e, r, threshold=lambda e: e > 0):
    kinds = [2 if not on else 1 if held else 0 for on, held in zip(threshold(e), r)]
    return [kinds.count(n) for n in range(3)]


RESERVE = (
    exercises.check_reserve,
    exercises.reserve_solution,
    [
        groups_of,
        lambda e, r: [(e[~r] > 0).sum(), (e[r] > 0).sum(), len(e) - (e > 0).sum()],
        lambda e, r: np.bincount(np.where(e > 0, r.astype(int), 2), minlength=3),
        lambda e, r: groups_of(e, r, lambda e: 1 / (1 + np.exp(-e)) > 0.5),
    ],
    [
        (lambda e, r: groups_of(e, r, lambda e: e >= 0), "never had a gradient"),
        (lambda e, r: groups_of(e, r, lambda e: e < 0), "where logits are negative"),
        (lambda e, r: groups_of(e, r, lambda e: e > 0.5), "compared the *logits* with a half"),
        (lambda e, r: groups_of(e, ~r), "swapped newly reserved and reused"),
        (lambda e, r: [(e > 0).sum(), ((e > 0) & r).sum(), (e <= 0).sum()], "counts all places in use"),
        (lambda e, r: [(~r).sum(), ((e > 0) & r).sum(), (e <= 0).sum()], "in use or not"),
        (lambda e, r: [((e > 0) & ~r).sum(), r.sum(), (e <= 0).sum()], "all that earlier tasks hold"),
        (lambda e, r: [((e > 0) & ~r).sum(), ((e > 0) & r).sum(), ((e <= 0) & ~r).sum()], "leaves out"),
        (lambda e, r: [((e > 0) & ~r).sum(), ((e > 0) & r).sum(), (~r).sum()], "free before the task"),
        (lambda e, r: [0, (e > 0).sum(), (e <= 0).sum()], "Count first"),
        (lambda e, r: np.array(groups_of(e, r)) / len(e), "Return counts"),
        (lambda e, r: groups_of(e, r)[::-1], "into three groups"),
        (lambda e, r: [len(e)] * 3, "into three groups"),
        (lambda e, r: [n + 1 for n in groups_of(e, r)], "into three groups"),
        (lambda e, r: groups_of(e, r)[:2], "in this order"),
        (lambda e, r: ((e > 0) & ~r).sum(), "in this order"),
        (lambda e, r: e > 0, "in this order"),
        (lambda e, r: None, "forget `return`"),
        (lambda e, r: e @ r[1:], "stopped with ValueError"),
        (stub, "still empty"),
    ],
)


# ---- notebook 09: linear CKA


def centred(x):
    return x - x.mean(0)


def by_kernels(A, B):
    K, L = centred(A) @ centred(A).T, centred(B) @ centred(B).T
    return (K * L).sum() / np.sqrt((K * K).sum() * (L * L).sum())


def without_centring(A, B, norm=np.linalg.norm):
    return norm(A.T @ B) ** 2 / norm(A.T @ A) / norm(B.T @ B)


CKA = (
    exercises.check_linear_cka,
    exercises.linear_cka_solution,
    [
        by_kernels,
        lambda A, B: without_centring(centred(A), centred(B)),
        lambda A, B: without_centring(centred(torch.tensor(A)), centred(torch.tensor(B)), torch.linalg.norm),
        lambda A, B: [by_kernels(B, A)],
    ],
    [
        (without_centring, "did not remove the means"),
        (lambda A, B: without_centring(A - A.mean(), B - B.mean()), "one mean for the whole matrix"),
        (lambda A, B: without_centring(centred(A.T).T, centred(B.T).T), "the mean of each *row*"),
        (
            lambda A, B: (
                np.linalg.norm(centred(A).T @ centred(B))
                / (np.linalg.norm(centred(A).T @ centred(A)) * np.linalg.norm(centred(B).T @ centred(B)))
            ),
            "Square the norm",
        ),
        (lambda A, B: by_kernels(A, B) ** 0.5, "You took the root"),
        (
            lambda A, B: (
                np.linalg.norm(centred(A).T @ centred(B)) ** 2
                / (np.linalg.norm(centred(A).T @ centred(A)) * np.linalg.norm(centred(B).T @ centred(B))) ** 2
            ),
            "not their squares",
        ),
        (
            lambda A, B: (
                (np.linalg.norm(centred(A).T @ centred(B)) / np.linalg.norm(centred(A))) ** 2
                / np.linalg.norm(centred(B)) ** 2
            ),
            "not of $A$ and $B$",
        ),
        (lambda A, B: np.linalg.norm(centred(A).T @ centred(B)) ** 2, "the upper part only"),
        (lambda A, B: 1 - by_kernels(A, B), "a distance"),
        (lambda A, B: -by_kernels(A, B), "sign is wrong"),
        (lambda A, B: 100 * by_kernels(A, B), "not a percentage"),
        (lambda A, B: 0.5, "Work it out"),
        (lambda A, B: 2 * by_kernels(A, B), "Work it out"),
        (lambda A, B: A.T @ B, "Return one number"),
        (lambda A, B: None, "forget `return`"),
        (lambda A, B: A @ B[:-1], "stopped with ValueError"),
        (stub, "still empty"),
    ],
)


# ---- notebook 10: the bytes of a mask


def mask_bytes_loop(mask):
    places = mask.flatten().tolist()
    return min((len(places) + 7) // 8, 4 * sum(places))


def packed(mask):
    return -(-mask.size // 8)


MASK_BYTES = (
    exercises.check_mask_bytes,
    exercises.mask_bytes_solution,
    [
        mask_bytes_loop,
        lambda m: min(np.packbits(m).nbytes, np.flatnonzero(m).astype(np.int32).nbytes),
        lambda m: packed(m) if 32 * m.sum() >= m.size else 4 * m.sum(),
        lambda m: min(packed(m), 4 * torch.from_numpy(m).count_nonzero()),
    ],
    [
        (lambda m: min(m.size // 8, 4 * m.sum()), "round up"),
        (lambda m: min(m.size / 8, 4 * m.sum()), "is whole"),
        (packed, "That is the larger"),
        (lambda m: 4 * m.sum(), "That is the larger"),
        (lambda m: max(packed(m), 4 * m.sum()), "That is the larger"),
        (lambda m: packed(m) + 4 * m.sum(), "That is the sum"),
        (lambda m: m.nbytes, "You count one for each place"),
        (lambda m: min(m.size, 32 * m.sum()), "You count one for each place"),
        (lambda m: min(packed(m), np.argwhere(m).astype(np.int32).nbytes), "You count 8 bytes a connection"),
        (lambda m: min(packed(m), m.sum()), "the number of connections"),
        (lambda m: -(-m.sum() // 8), "You pack the connections only"),
        (lambda m: min(-(-len(m) // 8), 4 * m.sum()), "You count the rows"),
        (lambda m: min(np.packbits(m, axis=1).size, 4 * m.sum()), "You round each row up"),
        (lambda m: 4 * m.sum() / packed(m), "a ratio of the two"),
        (lambda m: 100 * min(packed(m), 4 * m.sum()), "not a percentage"),
        (lambda m: -min(packed(m), 4 * m.sum()), "sign is wrong"),
        (lambda m: min(m.size, 4 * m.sum()) + 1, "Count on paper"),
        (lambda m: 8 * m.size, "Count on paper"),
        (lambda m: min(packed(m), 4 * m.sum()) or 1, "0 bytes"),
        (lambda m: min(-(-len(m) * len(m[0]) // 8), 4 * m.sum()), "any number of dimensions"),
        (lambda m: [packed(m), 4 * m.sum()], "Return one number"),
        (lambda m: m, "Return one number"),
        (lambda m: None, "forget `return`"),
        (lambda m: m[len(m)], "stopped with IndexError"),
        (stub, "still empty"),
    ],
)

# ---- notebook 06: the balance of old and new, and class Gaussians

BALANCE = (
    exercises.check_balance,
    exercises.balance_solution,
    [
        lambda new, old, n, m: np.average([new, old], weights=[n, m]),
        lambda new, old, n, m: (new + m / n * old) / (m / n + 1),
        lambda new, old, n, m: sum([new] * n + [old] * m) / (n + m),
        lambda new, old, n, m: torch.tensor([new] * n + [old] * m).mean(),
    ],
    [
        (lambda new, old, n, m: (new + old) / 2, "plain mean"),
        (lambda new, old, n, m: np.average([new, old], weights=[m, n]), "swapped"),
        (lambda new, old, n, m: n * new + m * old, "did not divide by the number of classes"),
        (lambda new, old, n, m: new + m / n * old, "did not divide by r + 1"),
        (lambda new, old, n, m: new + old, "That is the sum"),
        (lambda new, old, n, m: new + m / (n + m) * old, "share of the new classes is missing"),
        (lambda new, old, n, m: n / (n + m) * new + old, "share of the old classes is missing"),
        (lambda new, old, n, m: (new + n / m * old) / (n / m + 1) if m else new, "swapped"),
        (lambda new, old, n, m: new, "Only the new"),
        (lambda new, old, n, m: old, "Only the old"),
        (lambda new, old, n, m: (n * new + m * old) / (n + m) if m else 0.0, "no old class"),
        (lambda new, old, n, m: -(n * new + m * old) / (n + m), "sign is wrong"),
        (lambda new, old, n, m: new * old, "Imagine a batch"),
        (lambda new, old, n, m: [new, old], "Return one number"),
        (lambda new, old, n, m: None, "forget `return`"),
        (stub, "still empty"),
    ],
)


def by_class(f, y, k, spread=lambda rows: rows.std(0)):
    return [[f[y == c].mean(0) for c in range(k)], [spread(f[y == c]) for c in range(k)]]


GAUSSIANS = (
    exercises.check_gaussians,
    exercises.gaussians_solution,
    [
        by_class,
        lambda f, y, k: by_class(f, y, k, lambda rows: ((rows - rows.mean(0)) ** 2).mean(0) ** 0.5),
        lambda f, y, k: by_class(f, y, k, lambda rows: np.sqrt(rows.var(axis=0))),
        lambda f, y, k: torch.tensor(np.array(by_class(f, y, k))),
    ],
    [
        (lambda f, y, k: by_class(f, y, k, lambda r: r.std(0, ddof=1) if len(r) > 1 else 0 * r[0]), "ddof=0"),
        (lambda f, y, k: by_class(f, y, k, lambda r: r.var(0)), "take the root"),
        (lambda f, y, k: by_class(f, y, k, lambda r: f.std(0)), "deviations are those of *all*"),
        (lambda f, y, k: by_class(f, y, k, lambda r: np.full(f.shape[1], r.std())), "one for each"),
        (lambda f, y, k: by_class(f, y, k)[::-1], "swapped"),
        (lambda f, y, k: [[f.mean(0)] * k, by_class(f, y, k)[1]], "means are those of *all*"),
        (lambda f, y, k: [[np.median(f[y == c], 0) for c in range(k)], by_class(f, y, k)[1]], "medians"),
        (lambda f, y, k: by_class(f, y, k, lambda r: r.std(0) / len(r) ** 0.5), "error of the mean"),
        (lambda f, y, k: by_class(f, y, k, lambda r: r.std(0) if len(r) > 1 else r[0] * NAN), "single image"),
        (lambda f, y, k: np.round(by_class(f, y, k), 2), "Do not round"),
        (lambda f, y, k: by_class(f, y, k, lambda r: abs(r - r.mean(0)).mean(0)), "Select the rows"),
        (lambda f, y, k: by_class(f, y, k)[0], "a row for each class"),
        (lambda f, y, k: None, "forget `return`"),
        (lambda f, y, k: f[99], "stopped with IndexError"),
        (stub, "still empty"),
    ],
)

# ---- the same questions to all

CHECKERS = {
    "linear CKA": CKA,
    "mask bytes": MASK_BYTES,
    "average": AVERAGE,
    "forgetting": FORGETTING,
    "reservoir": RESERVOIR,
    "fisher": FISHER,
    "herding": HERDING,
    "grow": GROW,
    "diversity": DIVERSITY,
    "divergence": DIVERGENCE,
    "class diversity": CLASS_DIVERSITY,
    "outshouted": OUTSHOUTED,
    "sparsity": SPARSITY,
    "reserve": RESERVE,
    "balance": BALANCE,
    "gaussians": GAUSSIANS,
}


@pytest.mark.parametrize("name", CHECKERS)
def test_right_functions_pass_in_any_form(name):
    check, solution, others, _ = CHECKERS[name]
    forms = [] if solution is None else [lambda *a, f=f: f(solution(*a)) for f in FORMS.values()]
    right = [*forms, *others, *([solution] if solution else [])]
    assert len(right) >= 4
    for n, function in enumerate(right):
        assert check(function), (n, check(function))


@pytest.mark.parametrize("name", CHECKERS)
def test_wrong_functions_fail_with_the_reason(name):
    check, _, _, wrong = CHECKERS[name]
    assert len(wrong) >= 12
    for n, (function, word) in enumerate(wrong):
        verdict = check(function)
        assert not verdict and word in verdict.message, (n, word, verdict)


@pytest.mark.parametrize("name", CHECKERS)
def test_each_known_mistake_is_told_from_the_others(name):
    check = CHECKERS[name][0]
    for hint, mistake in check.mistakes.items():
        verdict = check(mistake)
        assert not verdict and verdict.message.endswith(hint), (hint, verdict)


@pytest.mark.parametrize("name", [n for n in CHECKERS if n != "reservoir"])
def test_a_function_may_change_its_arguments(name):
    check, solution = CHECKERS[name][:2]

    def changes(*arguments):
        value = solution(*arguments)
        for argument in arguments:
            if isinstance(argument, np.ndarray):
                argument.fill(0)
        return value

    before = copy.deepcopy(check.cases)
    assert check(changes)
    for case, copied in zip(check.cases, before, strict=True):
        np.testing.assert_equal(case, copied)


def test_a_print_in_a_memory_does_not_fill_the_page(capsys):
    def prints(*arguments):
        print(arguments)
        exercises.reservoir_solution(*arguments)

    assert exercises.check_reservoir(prints) and capsys.readouterr().out == ""


# ---- the solutions against other code


@pytest.mark.parametrize("size, offered", [(1, 12), (5, 60), (20, 200)])
def test_the_solution_keeps_every_item_equally_often(size, offered):
    """The count of how often an item is kept is binomial; checked item by item."""
    random, kept, streams = np.random.default_rng(7), np.zeros(offered), 1000
    for _ in range(streams):
        memory = []
        for n in range(offered):
            exercises.reservoir_solution(memory, n, n, size, random)
        kept[memory] += 1
    p = size / offered
    z = (kept - streams * p) / np.sqrt(streams * p * (1 - p))
    assert np.abs(z).max() < 5


def test_the_solution_herds_as_icarl_does():
    from clkit.blocks.memory import herd

    torch.manual_seed(0)
    features = torch.nn.functional.normalize(torch.randn(60, 5, dtype=torch.float64) + 0.3)
    mu = torch.nn.functional.normalize(features.mean(0), dim=0)
    assert exercises.herding_solution(features.numpy(), mu.numpy(), 25) == herd(features, 25).tolist()


def test_the_solution_is_the_fisher_information_of_ewc_and_of_autograd():
    """Two references: the code of EWC, and one gradient per image and label."""
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


def test_the_solution_grows_where_spacenet_does():
    """Reference: the block of the method, which drops and grows connections in one event."""
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


def test_the_solution_is_the_diversity_of_arm():
    from clkit.methods.arm import arm

    torch.manual_seed(0)
    for logits in (3 * torch.randn(7, 10, dtype=torch.float64), torch.zeros(4, 10), 500 * torch.randn(5, 3)):
        weights = logits.new_full((len(logits),), 1 / len(logits))
        theirs = arm.diversity(logits.softmax(1), weights).item()
        assert exercises.diversity_solution(logits.numpy()) == pytest.approx(theirs, abs=1e-6)


def test_the_solution_is_the_divergence_of_arm():
    """Also its closed form for two classes with swapped logits."""
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


def test_the_solutions_are_those_of_mfgr():
    """Also the fine-grained report of the same answers."""
    from clkit.analysis import fine
    from clkit.methods.mfgr import losses

    torch.manual_seed(0)
    for scale in (1, 10, 300):
        logits = scale * torch.randn(20, 6, dtype=torch.float64)
        labels = torch.arange(20) % 6
        theirs = losses.l_cd(logits).item()
        assert exercises.class_diversity_solution(logits.numpy()) == pytest.approx(theirs, abs=1e-9)
        right, outshouted, _ = exercises.outshouted_solution(logits.numpy(), labels.numpy(), 4)
        old = labels < 4
        within = (fine.inside(logits, labels, 4) == labels)[old].double().mean().item()
        assert right + outshouted == pytest.approx(within)
        assert right == pytest.approx((logits.argmax(1) == labels)[old].double().mean().item())


def test_the_solutions_are_those_of_dgm():
    """Reference: its masks; here all layers have the same size."""
    from clkit.methods.dgm import masks

    torch.manual_seed(0)
    for share in (0.0, 0.4, 1.0):
        m, reserved, e = torch.rand(3, 50), torch.rand(3, 50) < share, torch.randn(50)
        e[::7] = 0
        theirs = masks.sparsity(list(m), list(reserved)).item()
        assert exercises.sparsity_solution(m.numpy(), reserved.numpy()) == pytest.approx(theirs, rel=1e-5)
        counts = [int(n) for n in masks.counts(e > 0, reserved[0])]
        assert exercises.reserve_solution(e.numpy(), reserved[0].numpy()).tolist() == counts
