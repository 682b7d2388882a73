"""The answer to an exercise, and what checkers share: calling what the reader wrote, predictions, arrays."""

import functools
import math
from dataclasses import dataclass

import numpy as np

NAN = float("nan")


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


class AnswerError(Exception):
    """Raised within a checker: what to tell a reader whose answer is not right yet."""


def checker(check):
    """Let a check, which says what is right or raises AnswerError, give a Verdict."""

    @functools.wraps(check)
    def checked(*args, **options):
        try:
            return Verdict(True, check(*args, **options))
        except AnswerError as why:
            return Verdict(False, str(why))

    return checked


# ---- what the reader wrote


def call(function, *arguments):
    """What a function returns; AnswerError if it is a stub or raises."""
    name = getattr(function, "__name__", "your function")
    try:
        return function(*arguments)
    except NotImplementedError:
        todo = "put your own lines in the place of `raise NotImplementedError`, then run the cell again."
        why = f"`{name}` is still empty: {todo}"
    except Exception as error:  # whatever a reader's code may raise
        why = f"`{name}` stopped with {type(error).__name__}: {error}"
    raise AnswerError(why)


def array(value):
    """As an array of floats; None where it is no such thing."""
    try:
        return np.asarray(... if value is None else value, dtype=float)  # numpy reads None as NaN
    except (TypeError, ValueError):
        return None


def number(value):
    """A float, or None where the value is no single number."""
    got = array(value)
    return float(got) if got is not None and got.ndim == 0 else None


def short(value):
    """A value as code, in at most 60 characters."""
    text = " ".join(repr(value).split())
    return f"`{text if len(text) <= 60 else text[:57] + '...'}`"


def hint(mistakes, arguments, got, same, otherwise):
    """What to tell of the first of the mistakes, {what to tell: function}, that gives what the reader got."""
    return next((told for told, mistake in mistakes.items() if same(got, mistake(*arguments))), otherwise)


# ---- predictions


def guesses(prediction, keys, wanted, unit=""):
    """{key: number} that a reader predicts; AnswerError where one is missing.   wanted: what to put there."""
    given = prediction if isinstance(prediction, dict) else {}
    found = {key: number(given.get(key)) for key in keys}
    missing = [str(key) for key, guess in found.items() if guess is None]
    if missing:
        where = f" for {' and '.join(missing)} {unit}" if unit else ""
        raise AnswerError(f"Predict before you look: put {wanted} in the place of the dots{where}.")
    return found


def off(guess, measured, tolerance, telling=None):
    """Keys of the guesses, in percent, that are further than the tolerance from the fractions measured.

    AnswerError if a number looks like a fraction: one of those guesses, or of what else is telling.
    """
    wrong = [key for key, m in measured.items() if not abs(guess[key] / 100 - m) <= tolerance]
    telling = [guess[key] for key in wrong] if telling is None else telling
    if wrong and any(0 < g <= 1 for g in telling):
        raise AnswerError("Give percentages, such as 35, not fractions such as 0.35.")
    return wrong


# ---- functions of an accuracy matrix

# In the first one each mistake leads to a number of its own; the others refuse answers made for one matrix.
MATRICES = (
    np.array([[0.50, NAN, NAN], [0.90, 0.80, NAN], [0.20, 0.60, 1.00]]),
    np.array([[1.00, NAN], [0.25, 0.75]]),
    np.array([[0.9, NAN, NAN, NAN], [0.7, 1.0, NAN, NAN], [0.8, 0.5, 0.7, NAN], [0.6, 0.4, 0.1, 0.9]]),
)


def check_score(function, solution, mistakes, matrices=MATRICES):
    """AnswerError that says why, if a function of an accuracy matrix does not agree with the solution.

    mistakes: {what to tell the reader: function that makes this mistake}.
    """
    for a in matrices:
        value, right = call(function, a.copy()), solution(a)
        got = number(value)
        if got is None:
            advice = "did you forget `return`?" if value is None else "take the mean over the tasks."
            raise AnswerError(f"One number should come back, and it is {short(value)}: {advice}")
        if not _same(got, right):
            otherwise = "Write the formula out for this matrix on paper, then compare."
            why = hint(mistakes, (a,), got, _same, otherwise)
            rows = "; ".join(" ".join("–" if math.isnan(v) else f"{v:.2f}" for v in row) for row in a)
            wrong = f"For the matrix with the rows ({rows}) you give {got:.4g}, and it is {right:.4g}."
            raise AnswerError(f"{wrong} {why}")


def _same(a, b):
    return math.isclose(a, b, abs_tol=1e-9) or (math.isnan(a) and math.isnan(b))


# ---- functions of logits


def check_term(function, solution, mistakes, cases, missing):
    """AnswerError that says why, if a function of logits does not agree with the solution.

    mistakes: {what to tell the reader: function that makes this mistake}, told apart by the first case.
    cases: [(arguments, each (B, K), what to tell if the value is wrong and not by one of these mistakes)].
    missing: what to tell if the shape is wrong.
    """
    for n, (logits, otherwise) in enumerate(cases):
        right = np.asarray(solution(*logits))
        with np.errstate(all="ignore"):  # the hint says more than a warning
            got = _shaped(call(function, *(s.copy() for s in logits)), right.shape, missing)
        if not _close(got, right):
            why = hint({} if n else mistakes, logits, got, _close, otherwise)
            at = int(np.argmax(~np.isclose(got, right, 1e-5, 1e-6)))
            told = " and ".join(_rows(s[at : at + 1] if right.ndim else s) for s in logits)
            wrong = f"For the logits {told} you give {got.flat[at]:.6g}, and it is {right.flat[at]:.6g}."
            raise AnswerError(f"{wrong} {why}")


def _shaped(value, shape, missing):
    """The value as an array of this shape."""
    got = array(value)
    if got is not None and got.shape == shape:
        return got
    wanted = f"An array of shape {shape}" if shape else "One number"
    came = short(value) if got is None or got.ndim == 0 else f"an array of shape {got.shape}"
    advice = "did you forget `return`?" if value is None else missing
    raise AnswerError(f"{wanted} should come back, and it is {came}: {advice}")


def _rows(logits):
    return f"({'; '.join(' '.join(f'{v:.4g}' for v in row) for row in logits)})"


def _close(a, b):
    return np.allclose(a, b, rtol=1e-5, atol=1e-6)  # room for a small constant under a logarithm
