"""Exercises of notebook 07: how many images, the balance of classes, what is forgotten or outshouted."""

import numpy as np

from clkit.book.exercises.functions import FunctionCheck
from clkit.book.exercises.verdict import AnswerError, checker, guesses

BATCH, TASKS = 128, (50, 10, 10)  # real images in a batch; classes of the three tasks


@checker
def check_replayed(prediction):
    """Generated images in a batch of MFGR, and lambda_4, after 50 classes and ten more, twice.

    prediction: {"images, task 2": number, "lambda_4, task 2": number, and the same for task 3}.
    """
    right = {}
    for task in (1, 2):
        old, new = sum(TASKS[:task]), TASKS[task]
        right |= {f"images, task {task + 1}": BATCH * old / new}
        right |= {f"lambda_4, task {task + 1}": old / (old + new)}
    guess = guesses(prediction, right, "a number")
    images, shares = ([guess[f"{what}, task {task}"] for task in (2, 3)] for what in ("images", "lambda_4"))
    if all(abs(guess[key] - value) < 0.006 for key, value in right.items()):
        return (
            "640 and 768 images, 5/6 and 6/7. Both numbers depend on the share of old classes alone. So a "
            "batch grows from task to task, and the weight of a new image falls."
        )
    if all(abs(a - b) < 0.006 for a, b in zip(shares, (1 / 2, 2 / 3))):
        why = (
            "1/2 and 2/3 count *tasks*, as the paper's text does. With a larger first task count classes: "
            "$\\lambda_4=n_{old}/(n_{old}+n_{new})$."
        )
    elif all(abs(a - b) < 0.006 for a, b in zip(shares, (1 / 6, 1 / 7))):
        why = "These are the shares of *new* classes, $1-\\lambda_4$."
    elif images == [BATCH, BATCH]:
        why = "The same number *for each class*: there are five times as many old classes as new ones."
    elif images == [512, 512]:
        why = "That is what the released script draws. The paper's rule has equal numbers for each class."
    elif images == [BATCH * 5, BATCH * 5]:
        why = "In task 3 there are 60 old classes, not 50."
    else:
        why = "With 50 old and 10 new classes, five old images stand beside each new one."
    raise AnswerError(why)


# ---- the balance of classes


def class_diversity_solution(logits):
    """l_cd, a number: minus the entropy of the mean output, in decimal digits (equation 4).

    logits: (B, K).
    """
    p = np.exp(logits - logits.max(axis=1, keepdims=True))
    q = (p / p.sum(axis=1, keepdims=True)).mean(axis=0)
    return float((q * np.log10(q, where=q > 0, out=np.zeros_like(q))).sum())


def _softmax(logits, axis=1):
    p = np.exp(logits - logits.max(axis=axis, keepdims=True))
    return p / p.sum(axis=axis, keepdims=True)


def _entropy(q, log=np.log10):
    return (q * log(q)).sum()


_LOGITS = (np.array([[0, np.log(3)], [np.log(3), 0], [0, np.log(3)]]),)
_DRAWN = (np.random.default_rng(7).normal(size=(6, 4)) * 2,)

check_class_diversity = FunctionCheck(
    class_diversity_solution,
    "It is least, minus $\\log_{10}K$, when all classes are drawn equally often, and 0 if only one is. That "
    "each image be clear is the task of $l_{oh}$.",
    [_LOGITS, _DRAWN],
    {
        "Use *decimal* logarithms, as the released code does; these are natural ones.":
            lambda x: _entropy(_softmax(x).mean(0), np.log),
        "You took the mean of the entropies. Take the entropy of the *mean* output: a batch may be balanced "
        "although each image is clear.":
            lambda x: (_softmax(x) * np.log10(_softmax(x))).sum(1).mean(),
        "You averaged the logits. Average the probabilities.":
            lambda x: _entropy(_softmax(x.mean(0, keepdims=True))[0]),
        "You took the sum over images in the place of the mean.":
            lambda x: _entropy(_softmax(x).sum(0)),
        "The softmax runs over the classes of one image, axis 1, not over the images.":
            lambda x: _entropy(_softmax(x, 0).mean(0)),
        "You counted the largest outputs. A count has no gradient: use the probabilities.":
            lambda x: _count_entropy(x),
        "You divided by the number of classes: it is a sum over them.":
            lambda x: _entropy(_softmax(x).mean(0)) / x.shape[1],
        "You left out the factor $q$ before the logarithm.":
            lambda x: np.log10(_softmax(x).mean(0)).sum(),
        "You left out the logarithm.":
            lambda x: (_softmax(x).mean(0) ** 2).sum(),
    },
    "Compute the mean output $q$ on paper first: it sums to 1.",
    "Return one number for the whole batch.",
    extremes={
        "Here a class has probability 0, and $0\\log0$ is `nan` for the computer: it counts as 0.":
            (np.array([[0.0, -np.inf], [0.0, -np.inf]]),),
        "With large logits `np.exp` overflows: subtract the largest logit of each image first.":
            (np.array([[1000.0, 0.0], [0.0, 1000.0]]),),
    },
)  # fmt: skip


def _count_entropy(x):
    q = np.bincount(x.argmax(1), minlength=x.shape[1]) / len(x)
    return _entropy(q[q > 0])


# ---- forgotten, or only outshouted


def outshouted_solution(logits, labels, first):
    """[right, outshouted, forgotten]: shares of the images of old classes, (3,).

    logits: (N, seen).   labels: (N,).   first: the number of old classes; images of new ones do not count.
    """
    old = labels < first
    right = logits[old].argmax(1) == labels[old]
    among_old = logits[old, :first].argmax(1) == labels[old]
    return np.array([right.mean(), (among_old & ~right).mean(), (~among_old).mean()])


def _shares(rule):
    """Shares of old images by a rule of (right, right among old outputs)."""

    def shares(logits, labels, first):
        old = labels < first
        right = logits[old].argmax(1) == labels[old]
        return rule(right, logits[old, :first].argmax(1) == labels[old], logits[old].argmax(1) >= first)

    return shares


def _means(*values):
    return np.array([v.mean() for v in values])


_RANDOM = np.random.default_rng(17)
_MANY = (_RANDOM.normal(size=(60, 5)) + 1.5 * np.eye(5)[np.arange(60) % 5], np.arange(60) % 5, 3)
_FEW = (
    np.array([[3.0, 0, 1, 0], [2, 0, 9, 0], [3, 1, 0, 0], [0, 2, 0, 7], [0, 0, 4, 1]]),
    np.array([0, 0, 1, 1, 2]),
    2,
)

check_outshouted = FunctionCheck(
    outshouted_solution,
    "The three add up to 1. Only the second could be repaired by comparing old and new outputs better; what "
    "is forgotten is lost for the old outputs, too.",
    [_FEW, _MANY],
    {
        "You divide by all images. Count images of old classes only, `labels < first`.":
            lambda x, y, f: outshouted_solution(x, y, f) * (y < f).mean(),
        "*Outshouted* counts all old images that are taken for a new class. Some of them are wrong among the "
        "old outputs, too.":
            _shares(lambda right, among, new: _means(right, new, ~among)),
        "*Right* is the share among the old outputs alone. Take the largest of *all* outputs.":
            _shares(lambda right, among, new: _means(among, among & ~right, ~among)),
        "*Outshouted* includes the images that are right. Leave them out.":
            _shares(lambda right, among, new: _means(right, among, ~among)),
        "*Forgotten* counts all that are wrong. Leave out those that are right among the old outputs.":
            _shares(lambda right, among, new: _means(right, among & ~right, ~right)),
        "You swapped outshouted and forgotten.":
            lambda x, y, f: outshouted_solution(x, y, f)[[0, 2, 1]],
        "These are numbers of images. Return shares.":
            lambda x, y, f: outshouted_solution(x, y, f) * (y < f).sum(),
        "*Right* counts the images of new classes, too.":
            lambda x, y, f: np.r_[(x.argmax(1) == y).mean(), outshouted_solution(x, y, f)[1:]],
    },
    "Go through the images of the first case one by one: largest output among all, largest among the old.",
    "Return the three shares right, outshouted, forgotten, in this order.",
)  # fmt: skip
