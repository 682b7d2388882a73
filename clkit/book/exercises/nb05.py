"""Exercises of notebook 05: what is recalled, diversity, and the divergence of two networks."""

import numpy as np

from clkit.book.exercises.functions import FunctionCheck
from clkit.book.exercises.verdict import AnswerError, checker, guesses, off


@checker
def check_recalled(prediction, result):
    """How the old network classifies the images recalled in the last task; right within 5 points.

    prediction: {"old": percent classified as a class of earlier tasks, "present": of the last task};
    result: of ARM, with the trace table "images".
    """
    guess = guesses(prediction, ("old", "present"), "a percentage")
    measured = _taken_for(result)
    wrong = off(guess, measured)
    of_last = result.classes_per_task[-1]
    last, even = " or ".join(result.names[-of_last:]), of_last / sum(result.classes_per_task)
    said = (
        f"Measured: {100 * measured['old']:.1f} % are classified as a class of earlier tasks, "
        f"{100 * measured['present']:.1f} % as {last}."
    )
    present = guess["present"] / 100
    more = "present" in wrong and present > measured["present"]
    if sum(guess.values()) > 100.1:  # rounded numbers may add up to a little more
        why = "The network assigns one class to each image: together the two are at most 100 %."
    elif not wrong:
        return (
            f"{said} The old network has never learned {last}. The steps make its answers certain and "
            "spread them over the classes that it knows."
        )
    elif more and abs(present - even) <= 0.05:
        why = "Only the old classes share evenly: two terms drive the images away from the present ones."
    elif more and present >= 0.5:
        why = f"They *begin* as images of {last}, but the old network has never learned these."
    elif sum(guess.values()) < 95:
        why = "The network assigns a class to every image: together the two are 100 %."
    else:
        why = "The old network is a copy from before the last task: which classes had it learned by then?"
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


def _arrays(*logits, kind=float):
    return tuple(np.array(s, dtype=kind) for s in logits)


check_diversity = FunctionCheck(
    diversity_solution,
    "It is 0 if all images certainly show one class, and smallest, minus the logarithm of $K$, if they "
    "cover all classes evenly. The output of each image may be as certain as it likes.",
    [_arrays([[10, 0], [0, 2]]), _arrays([[3, -1, 0.5], [0, 2, 2], [-4, 1, 0], [1, 1, 1]])],
    {
        "That is the softmax of the mean logits. Take the softmax of each image first, then the mean.":
            lambda logits: _minus_entropy(_softmax(logits.mean(axis=0), axis=0)),
        "That is the mean of the entropies. Take the mean output first, then its entropy.":
            lambda logits: _minus_entropy(_softmax(logits)).mean(),
        "The softmax is missing: logits are not probabilities.":
            lambda logits: _minus_entropy(logits.mean(axis=0)),
        "The softmax runs over the classes of an image, `axis=1`, and the mean over the images, `axis=0`.":
            lambda logits: _minus_entropy(_softmax(logits, axis=0).mean(axis=0)),
        "You divided by the sum of the whole matrix. Each image has a softmax of its own.":
            lambda logits: _minus_entropy(_softmax(logits, axis=None).mean(axis=0)),
    },
    "Write the mean output of these images out on paper, then its entropy.",
    "Take the mean over the images, then the sum over the classes.",
    extremes={
        "The exponential of 1000 overflows. Subtract the largest logit of each image from "
        "its logits first: the softmax stays the same.":
            _arrays([[1000, 0], [0, 1000]]),
        "A class has probability 0 here, and 0 times the logarithm of 0 is `nan`: it should count as 0. "
        "Bound the mean from below, `np.maximum(mean, 1e-16)`, before you take the logarithm.":
            _arrays([[0, -800], [0, -800]]),
    },
)  # fmt: skip


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


check_divergence = FunctionCheck(
    divergence_solution,
    "It is 0 where the networks agree, symmetric, and without an upper bound: however far apart they are, "
    "moving further apart still increases it.",
    [
        _arrays([[6, 1], [2, 1], [1, 3]], [[1, 6], [1, 1], [1, 3]]),
        _arrays([[1, -2, 0.5], [0, 4, -1]], [[-1, 0, 2.5], [3, 1, 0]]),
    ],
    {
        "That is the Jensen-Shannon divergence. Reverse both terms: KL(m || p) and KL(m || q).":
            _from_outputs(lambda p, q: (p * np.log(2 * p / (p + q)) + q * np.log(2 * q / (p + q))) / 2),
        "That is KL(p || q), which weights by the old network alone. Compare both with their mean m.":
            _from_outputs(lambda p, q: p * np.log(p / q)),
        "That is KL(q || p), which weights by the new network alone. Compare both with their mean m.":
            _from_outputs(lambda p, q: q * np.log(q / p)),
        "That is the mean of KL(p || q) and KL(q || p). Compare both with their mean m.":
            _from_outputs(lambda p, q: (p - q) * np.log(p / q) / 2),
        "That is KL(m || p) alone: the new network must count as much as the old one.":
            _from_outputs(lambda p, q: (p + q) / 2 * np.log((p + q) / 2 / p)),
        "That is KL(m || q) alone: the old network must count as much as the new one.":
            _from_outputs(lambda p, q: (p + q) / 2 * np.log((p + q) / 2 / q)),
        "That is twice as much: take the *mean* of KL(m || p) and KL(m || q).":
            lambda old, new: 2 * divergence_solution(old, new),
        "Your m is p + q. It is their mean, (p + q) / 2.":
            _from_outputs(lambda p, q: (p + q) * np.log((p + q) / np.sqrt(p * q))),
        "Your m in the logarithm is p + q. It is their mean, (p + q) / 2.":
            _from_outputs(lambda p, q: (p + q) / 2 * np.log((p + q) / np.sqrt(p * q))),
        "The square root is missing: the geometric mean of p and q is `np.sqrt(p * q)`.":
            _from_outputs(lambda p, q: (p + q) / 2 * np.log((p + q) / 2 / (p * q))),
        "The softmax is missing: logits are not probabilities.":
            lambda p, q: ((p + q) / 2 * np.log((p + q) / 2 / np.sqrt(p * q))).sum(axis=1),
    },
    "Write p, q and m of this one image out on paper, then compare.",
    "Take the sum over the classes, `axis=1`, and keep the images separate.",
    extremes={
        "Where logits are 200 apart, exponentials overflow, and a small constant in place of 0 sets a bound. "
        "Work with logarithms: log p is `old - np.logaddexp.reduce(old, axis=1, keepdims=True)`, log m is "
        "`np.logaddexp(log_p, log_q) - np.log(2)`.":
            _arrays([[200, 0, 0], [0, 0, 200]], [[0, 200, 0], [0, 0, 200]], kind=np.float32),
    },
)  # fmt: skip
