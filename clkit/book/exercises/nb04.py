"""Exercises of notebook 04: what is recalled, diversity, and the divergence of two networks."""

import numpy as np

from clkit.book.exercises.verdict import AnswerError, check_term, checker, guesses, off


@checker
def check_recalled(prediction, result, tolerance=0.1):
    """What the old network takes the images for that were recalled during the last task.

    prediction: {"old": percent taken for a class of earlier tasks, "present": for one of the last task};
    result: of ARM, with the trace table "images"; tolerance: how far off may be right, a fraction.
    """
    guess = guesses(prediction, ("old", "present"), "two numbers, in percent,")
    measured = _taken_for(result)
    wrong = off(guess, measured, tolerance, telling=[max(guess.values())])
    of_last = result.classes_per_task[-1]
    last, even = " or ".join(result.names[-of_last:]), of_last / sum(result.classes_per_task)
    said = (
        f"Measured: {100 * measured['old']:.1f} % are taken for a class of earlier tasks, "
        f"{100 * measured['present']:.1f} % for {last}."
    )
    if not wrong:
        return (
            f"{said} The old network has never learned {last}, and would hardly have named them in the "
            "images as they began, either. What the steps are for is to make its answers certain, and to "
            "spread them over the classes that it knows."
        )
    why = "The old network is a copy from before the last task: which classes had it learned by then?"
    present = guess["present"] / 100
    more = "present" in wrong and present > measured["present"]
    if sum(guess.values()) > 100.1:  # rounded numbers may add up to a little more
        why = "An image is taken for one class only: together the two are at most 100 %."
    elif more and abs(present - even) <= 0.05:
        why = (
            "You gave every task the same share. Diversity asks for even shares, but the two terms that are "
            "not local drive the images away from the present classes, which the old network has never "
            "learned."
        )
    elif more and present >= 0.5:
        why = (
            f"They *begin* as images of {last}. But it is the old network that answers, which has never "
            "learned these, and the objective drives the images away from them."
        )
    raise AnswerError(f"{said} {why}")


def _taken_for(result):
    """{"old", "present": shares of the images recalled in the last task}."""
    rows = result.trace.get("images")
    mine = np.flatnonzero(np.asarray(rows["task"]) == result.tasks - 1) if rows else []
    counts = np.concatenate([np.zeros(0), *(rows["counts"][i] for i in mine)])  # (n,) of all rows
    if not counts.any():
        raise AnswerError("This run recalled nothing in its last task, or did not keep the table `images`.")
    taken = np.concatenate([rows["probs"][i] for i in mine]).argmax(axis=1)  # (n,)
    first, end = sum(result.classes_per_task[:-1]), sum(result.classes_per_task)
    share = np.bincount(taken, weights=counts, minlength=end) / counts.sum()  # (K,)
    return {"old": share[:first].sum(), "present": share[first:end].sum()}


# ---- terms of the objective


def diversity_solution(logits):
    """Minus the entropy of the mean output, a number, of logits (B, K) before the softmax."""
    p = np.exp(logits - logits.max(axis=1, keepdims=True))  # (B, K), at most 1
    mean = (p / p.sum(axis=1, keepdims=True)).mean(axis=0)  # (K,)
    return float((mean * np.log(np.maximum(mean, 1e-16))).sum())  # 0 log 0 is 0


def _softmax(logits, axis=1):
    return np.exp(logits - np.logaddexp.reduce(logits, axis=axis, keepdims=True))


def _minus_entropy(p):
    return (p * np.log(np.maximum(p, 1e-16))).sum(axis=-1)


_DIVERSITY_COMMON_MISTAKES = {
    "That is the softmax of the mean logits. Take the softmax of each image first, then the mean: otherwise "
    "one image with large logits speaks for all.":
        lambda logits: _minus_entropy(_softmax(logits.mean(axis=0), axis=0)),
    "That is the mean of the entropies: how undecided single images are. Take the mean output first, then "
    "its entropy: each image may be sure of a class of its own.":
        lambda logits: _minus_entropy(_softmax(logits)).mean(),
    "The sign is turned round: this is the entropy. It is to be *minimised*, so it is minus the entropy.":
        lambda logits: -diversity_solution(logits),
    "These are bits, logarithms to the base 2. Everywhere here logarithms are natural: `np.log`.":
        lambda logits: diversity_solution(logits) / np.log(2),
    "There is no softmax in it: logits are not probabilities yet.":
        lambda logits: _minus_entropy(logits.mean(axis=0)),
    "The softmax runs over the classes of an image, `axis=1`, and the mean over the images, `axis=0`.":
        lambda logits: _minus_entropy(_softmax(logits, axis=0).mean(axis=0)),
    "You divided by the sum of the whole matrix. Each image has a softmax of its own: divide by the sum of "
    "its row, `.sum(axis=1, keepdims=True)`.":
        lambda logits: _minus_entropy(_softmax(logits, axis=None).mean(axis=0)),
    "You took a mean over the classes at the end. An entropy is a sum over them.":
        lambda logits: diversity_solution(logits) / logits.shape[1]}  # fmt: skip


def _arrays(*logits, kind=float):
    return tuple(np.array(s, dtype=kind) for s in logits)


_MEAN_ON_PAPER = "Write the mean output of these images out on paper, then its entropy."
_DIVERSITY_CASES = [
    (_arrays([[10, 0], [0, 2]]), _MEAN_ON_PAPER),
    (_arrays([[3, -1, 0.5], [0, 2, 2], [-4, 1, 0], [1, 1, 1]]), _MEAN_ON_PAPER),
    (
        _arrays([[1000, 0], [0, 1000]]),
        "The exponential of 1000 is too large for a number. Take the largest logit of each image off its "
        "logits first: the softmax stays the same.",
    ),
    (
        _arrays([[0, -800], [0, -800]]),
        "A class has the probability 0 here, and 0 times the logarithm of 0 is `nan`: it should count 0. "
        "Raise the mean to a tiny number, `np.maximum(mean, 1e-16)`, before you take the logarithm.",
    ),
]


@checker
def check_diversity(function):
    """Check a function like `diversity_solution`."""
    missing = "take the mean over the images, then the sum over the classes."
    check_term(function, diversity_solution, _DIVERSITY_COMMON_MISTAKES, _DIVERSITY_CASES, missing)
    return (
        "0 where all images surely show one class, and least, minus the logarithm of $K$, where they share "
        "the classes evenly. Each may be as certain as it likes."
    )


def divergence_solution(old, new):
    """Arithmetic-geometric divergence (B,) of the outputs p and q of two networks.

    old, new: (B, K), their logits before the softmax.
    """
    log_p = old - np.logaddexp.reduce(old, axis=1, keepdims=True)  # (B, K)
    log_q = new - np.logaddexp.reduce(new, axis=1, keepdims=True)  # (B, K)
    log_m = np.logaddexp(log_p, log_q) - np.log(2)  # m = (p + q) / 2
    return (np.exp(log_m) * (log_m - (log_p + log_q) / 2)).sum(axis=1)


def _from_outputs(measure):
    """measure(p, q), summed over the classes, as a function of the logits of both networks."""
    return lambda old, new: measure(_softmax(old), _softmax(new)).sum(axis=1)


_DIVERGENCE_COMMON_MISTAKES = {
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
    "There is no softmax in it: logits are not probabilities yet.":
        lambda p, q: ((p + q) / 2 * np.log((p + q) / 2 / np.sqrt(p * q))).sum(axis=1)}  # fmt: skip
_ONE_ON_PAPER = "Write p, q and m of this one image out on paper, then compare."
# The last case is in single precision, as networks compute.
_DIVERGENCE_CASES = [
    (_arrays([[6, 1], [2, 1], [1, 3]], [[1, 6], [1, 1], [1, 3]]), _ONE_ON_PAPER),
    (_arrays([[1, -2, 0.5], [0, 4, -1]], [[-1, 0, 2.5], [3, 1, 0]]), _ONE_ON_PAPER),
    (
        _arrays([[200, 0, 0], [0, 0, 200]], [[0, 200, 0], [0, 0, 200]], kind=np.float32),
        "Where logits are 200 apart, exponentials are too large or too small for a number, and the logarithm "
        "of 0 is lost; a small constant in place of the 0 sets a bound to D. Stay with logarithms: log p is "
        "`old - np.logaddexp.reduce(old, axis=1, keepdims=True)`, log m is `np.logaddexp(log_p, log_q) - "
        "np.log(2)`.",
    ),
]


@checker
def check_divergence(function):
    """Check a function like `divergence_solution`."""
    missing = "take the sum over the classes, `axis=1`, and leave the images apart."
    check_term(function, divergence_solution, _DIVERGENCE_COMMON_MISTAKES, _DIVERGENCE_CASES, missing)
    return (
        "0 where the networks agree, the same both ways round, and without an upper bound: however far apart "
        "they are, going further still pays."
    )
