"""The answer to an exercise, and what checkers share: calling what the reader wrote, numbers, shapes."""

import math
from dataclasses import dataclass

import numpy as np


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


# ---- calling what the reader wrote


def call(function, *arguments):
    """(value, None), or (None, Verdict) if the function is a stub or raises."""
    name = getattr(function, "__name__", "your function")
    try:
        return function(*arguments), None
    except NotImplementedError:
        return None, Verdict(
            False,
            f"`{name}` is still empty: put your own lines in the place of "
            "`raise NotImplementedError`, then run the cell again.",
        )
    except Exception as error:  # whatever a reader's code may raise
        return None, Verdict(False, f"`{name}` stopped with {type(error).__name__}: {error}")


def number(value):
    """A float, or None where the value is no single number."""
    try:
        value = np.asarray(... if value is None else value, dtype=float)  # numpy reads None as NaN
    except (TypeError, ValueError):
        return None
    return float(value) if value.ndim == 0 else None


def short(value):
    """A value as code, in at most 60 characters."""
    text = " ".join(repr(value).split())
    return f"`{text if len(text) <= 60 else text[:57] + '...'}`"


def same(a, b):
    """Whether two numbers are equal up to rounding; NaN equals NaN."""
    return math.isclose(a, b, abs_tol=1e-9) or (math.isnan(a) and math.isnan(b))


NAN = float("nan")
# In the first one each mistake leads to a number of its own; the others refuse answers made for one matrix.
MATRICES = (
    np.array([[0.50, NAN, NAN], [0.90, 0.80, NAN], [0.20, 0.60, 1.00]]),
    np.array([[1.00, NAN], [0.25, 0.75]]),
    np.array([[0.9, NAN, NAN, NAN], [0.7, 1.0, NAN, NAN], [0.8, 0.5, 0.7, NAN], [0.6, 0.4, 0.1, 0.9]]),
)


def check_score(function, solution, mistakes, good, matrices=MATRICES):
    """`good` if a function of an accuracy matrix agrees with the solution, else a Verdict that says why not.

    mistakes: {what to tell the reader: function that makes this mistake}.
    """
    for a in matrices:
        value, verdict = call(function, a.copy())
        if verdict is not None:
            return verdict
        got, right = number(value), solution(a)
        if got is None:
            advice = "did you forget `return`?" if value is None else "take the mean over the tasks."
            return Verdict(False, f"One number should come back, and it is {short(value)}: {advice}")
        if not same(got, right):
            known = [said for said, mistake in mistakes.items() if same(got, mistake(a))]
            hint = known[0] if known else "Write the formula out for this matrix on paper, then compare."
            rows = "; ".join(" ".join("–" if math.isnan(v) else f"{v:.2f}" for v in row) for row in a)
            return Verdict(
                False,
                f"For the matrix with the rows ({rows}) you give {got:.4g}, and it is {right:.4g}. {hint}",
            )
    return good


# ---- arrays of a known shape


def check_term(function, solution, mistakes, cases, missing, good):
    """`good` if a function of logits agrees with the solution, else a Verdict that says why not.

    mistakes: {what to tell the reader: function that makes this mistake}, told apart by the first case.
    cases: [(arguments, each (B, K), what to tell if the value is wrong and not by one of these mistakes)].
    missing: what to tell if the shape is wrong.
    """
    for n, (logits, otherwise) in enumerate(cases):
        right = np.asarray(solution(*logits))
        with np.errstate(all="ignore"):  # the hint says more than a warning
            value, verdict = call(function, *(s.copy() for s in logits))
        got, verdict = (None, verdict) if verdict is not None else shaped(value, right.shape, missing)
        if verdict is not None:
            return verdict
        if not close(got, right):
            known = [said for said, mistake in mistakes.items() if n == 0 and close(got, mistake(*logits))]
            at = int(np.argmax(~np.isclose(got, right, 1e-5, 1e-6)))
            told = " and ".join(_rows(s[at : at + 1] if right.ndim else s) for s in logits)
            return Verdict(
                False,
                f"For the logits {told} you give {got.flat[at]:.6g}, and it is "
                f"{right.flat[at]:.6g}. {known[0] if known else otherwise}",
            )
    return good


def shaped(value, shape, missing):
    """(value as an array of this shape, None), or (None, Verdict) where it is no such array."""
    try:
        got = np.asarray(... if value is None else value, dtype=float)
    except (TypeError, ValueError):
        got = None
    if got is not None and got.shape == shape:
        return got, None
    wanted = f"An array of shape {shape}" if shape else "One number"
    came = short(value) if got is None or got.ndim == 0 else f"an array of shape {got.shape}"
    advice = "did you forget `return`?" if value is None else missing
    return None, Verdict(False, f"{wanted} should come back, and it is {came}: {advice}")


def _rows(logits):
    return f"({'; '.join(' '.join(f'{v:.4g}' for v in row) for row in logits)})"


def close(a, b):
    """Whether two arrays are equal up to rounding."""
    return np.allclose(a, b, rtol=1e-5, atol=1e-6)  # room for a small constant under a logarithm
