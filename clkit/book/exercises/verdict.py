"""The verdict on an answer, the grades of a submission, and how checkers read answers."""

import functools
import itertools
import reprlib
from collections.abc import Mapping, Set
from dataclasses import dataclass

import numpy as np

from clkit.errors import ClkitError
from clkit.markup import in_markdown

LARGEST = 1000  # entries along one axis of an answer; no exercise asks for more


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
    """Raised within a checker, with the message for a reader whose answer is not right yet."""


def checker(check):
    """Wrap a check, which returns a message or raises AnswerError: return a Verdict and never raise."""

    @functools.wraps(check)
    def checked(*args, **options):
        try:
            return Verdict(True, check(*args, **options))
        except AnswerError as why:
            return Verdict(False, str(why))
        except Exception as error:  # an answer in a form that no check foresees
            why = f"The checker cannot read this answer ({type(error).__name__})"
            return Verdict(False, f"{why}: compare its form with the one that the exercise asks for.")

    return checked


# ---- grades


@dataclass(frozen=True)
class Grades:
    """The verdicts on a submission, {exercise: Verdict}; a notebook shows them as a table."""

    verdicts: dict

    @property
    def right(self):
        """The number of right answers."""
        return sum(map(bool, self.verdicts.values()))

    def __repr__(self):
        rows = [f"{name}: {verdict!r}" for name, verdict in self.verdicts.items()]
        return "\n".join([*rows, f"{self.right} of {len(rows)} right"])

    def _repr_markdown_(self):
        rows = "| exercise | verdict | why |\n| --- | --- | --- |\n"
        for name, verdict in self.verdicts.items():
            why = " ".join(verdict.message.replace("|", "\\|").split())
            rows += f"| {in_markdown(name)} | {'✅ right' if verdict else '✏️ not yet'} | {why} |\n"
        return f"{rows}\n**{self.right} of {len(self.verdicts)} right**"


def grade(verdicts):
    """Grades of a submission.   verdicts: {exercise: Verdict}, as in {"average": check_average(average)}."""
    if not all(isinstance(verdict, Verdict) for verdict in verdicts.values()):
        raise ClkitError("grade needs the Verdict of a checker for each exercise: {name: check_...(answer)}")
    return Grades(dict(verdicts))


# ---- values and functions

_REPR = reprlib.Repr()
_REPR.maxother = _REPR.maxstring = 60


def text(value, write=_REPR.repr):
    """write(value) on one line, to stand between backticks; the type if it raises, as a reader's may."""
    try:
        return " ".join(write(value).replace("`", "'").split())
    except Exception:
        return f"an object of type {type(value).__name__}"


def short(value):
    """A value as code, in at most 60 characters."""
    said = text(value)
    return f"`{said if len(said) <= 60 else said[:57] + '...'}`"


def call(function, *arguments):
    """The return value of a function; AnswerError if it is a stub, raises, or is not a function."""
    if not callable(function):
        raise AnswerError(f"Give the name of your function, without parentheses, not {short(function)}.")
    name = text(function, lambda f: f.__name__)
    try:
        return function(*arguments)
    except NotImplementedError:
        todo = "replace `raise NotImplementedError` with your own lines, then run the cell again."
        why = f"`{name}` is still empty: {todo}"
    except (Exception, SystemExit) as error:  # whatever a reader's code may raise
        why = f"`{name}` stopped with {type(error).__name__}: `{text(error, str)}`"
    raise AnswerError(why)


def numbers(value):
    """The value as an array of floats, from a number, an array, a tensor, or lists of these up to two deep.

    AnswerError says why it cannot be read, as the end of a sentence.
    """
    if value is None:
        raise AnswerError("did you forget `return`?")
    try:
        array = np.asarray(_plain(value))
        if array.dtype.kind in "biufO" and max(array.shape, default=0) <= LARGEST:
            return array.astype(float)
    except Exception:  # numpy and the reader's objects have many ways to refuse
        pass
    raise AnswerError("it is too long, has rows of different lengths, or holds something other than numbers.")


def _plain(value, depth=2):
    """The value without tensors, generators and the like, so that numpy can read it."""
    if hasattr(value, "detach"):  # a torch tensor of any type; it may require a gradient
        value = value.detach().cpu().to_dense()
        return value.double() if value.is_floating_point() and value.numel() <= LARGEST**2 else value
    if hasattr(value, "__array__") or not np.iterable(value) or isinstance(value, str) or not depth:
        return value
    rows = list(itertools.islice(value, LARGEST + 1))  # a generator may never end
    if len(rows) > LARGEST or isinstance(value, Mapping | Set):
        raise ValueError("too long, or without an order")
    return [_plain(row, depth - 1) for row in rows]


# ---- predictions


def guesses(prediction, keys, wanted, unit=""):
    """{key: number} that a reader predicts; AnswerError if one is missing.   wanted: what to put there."""
    given = prediction if isinstance(prediction, Mapping) else {}
    found = {key: _number(given.get(key)) for key in keys}
    missing = " and ".join(str(key) for key, guess in found.items() if guess is None)
    if missing:
        where = f"{missing} {unit}".strip()
        raise AnswerError(f"Predict before you look: put {wanted} in place of the dots for {where}.")
    return found


def _number(value):
    """A float, or None if the value is not a single number; "35 %" is also accepted."""
    try:
        return float(value.strip().removesuffix("%")) if isinstance(value, str) else numbers(value).item()
    except (AnswerError, ValueError):
        return None


def off(guess, measured, tolerance=0.05):
    """Keys of the percentages that differ by more than the tolerance from the fractions measured.

    AnswerError if the guesses are not percentages.
    """
    if not all(0 <= g <= 100 for g in guess.values()):
        raise AnswerError("A percentage is a number from 0 to 100.")
    wrong = [key for key, m in measured.items() if abs(guess[key] / 100 - m) > tolerance + 1e-9]
    fits = any(0 < guess[key] <= 1 and abs(guess[key] - measured[key]) <= tolerance for key in wrong)
    if wrong and (fits or 0 < max(guess.values()) <= 1):
        raise AnswerError("Give percentages, such as 35, not fractions, such as 0.35.")
    return wrong
