"""The checker of a function that a reader writes: compare it with the solution, recognise common mistakes."""

import copy
import inspect
import itertools
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from clkit.book.exercises.verdict import AnswerError, call, checker, numbers, short

NAN = float("nan")

# {hint: how a mistake that is possible in any function changes the right value}
_ANYWHERE = {
    "The result is `nan`, because it includes an entry that is `nan`.": lambda v: v * NAN,
    "The sign is wrong: this is minus the right value.": np.negative,
    "Give a fraction, not a percentage.": lambda v: 100 * v,
    "Do not round: return the value as it is.": lambda v: np.round(v, 2),
    "You swapped rows and columns: return the transpose.": np.transpose,
    "These are bits, logarithms to base 2. Use natural logarithms, `np.log`.": lambda v: v / np.log(2),
}


@dataclass(frozen=True)
class FunctionCheck:
    """A checker: call it with the reader's function to get a Verdict.

    solution, right: the right function, and the message for a reader whose function is right.
    cases: the arguments of each call.   extremes: {hint: arguments}, final calls that only careless code
    fails; known mistakes are not looked up there.
    mistakes: {hint: function that makes this mistake}; at least one case distinguishes it from the others.
    otherwise, shape: the hints for any other wrong value, and for a wrong shape.
    observe(function, *arguments): the value to compare with the solution, by default the return value.
    entry, tolerance: the name of an entry of the value, and its absolute tolerance.
    """

    solution: Callable
    right: str
    cases: list
    mistakes: dict
    otherwise: str
    shape: str = ""
    extremes: dict = field(default_factory=dict)
    observe: Callable = call
    entry: str = "entry"
    tolerance: float = 1e-6

    @checker
    def __call__(self, function):
        for arguments in self.cases:
            self._compare(function, arguments, self.mistakes, self.otherwise)
        for hint, arguments in self.extremes.items():
            self._compare(function, arguments, {}, hint)
        return self.right

    def same(self, a, b):
        """Whether two values agree."""
        return np.shape(a) == np.shape(b) and np.allclose(a, b, 1e-5, self.tolerance, equal_nan=True)

    def _compare(self, function, arguments, mistakes, hint):
        with np.errstate(all="ignore"):  # the hint says more than a warning
            right = np.asarray(self.solution(*arguments), dtype=float)
            got = _read(self.observe(function, *copy.deepcopy(arguments)), right)
            if self.same(got, right):
                return
            wrong = ((told, self.observe(mistake, *arguments)) for told, mistake in mistakes.items())
            changed = ((told, change(right)) for told, change in _ANYWHERE.items() if mistakes)
            known = (told for told, value in itertools.chain(wrong, changed) if self.same(got, value))
            if got.shape == right.shape:
                raise AnswerError(f"{self._difference(got, right, arguments)} {next(known, hint)}")
            said = f"Return {_wanted(right)}; your result has the shape {got.shape}."
            raise AnswerError(f"{said} {next(known, self.shape)}")

    def _difference(self, got, right, arguments):
        """A sentence: the arguments, and where the value differs from the right one."""
        at = tuple(np.argwhere(~np.isclose(got, right, 1e-5, self.tolerance))[0].tolist())
        names = inspect.signature(self.solution).parameters
        given = ", ".join(f"`{name}` {_written(value)}" for name, value in zip(names, arguments))
        where = f"{self.entry} {list(at)}" if at else "your result"
        return f"For {given}: {where} is {got[at]:.6g}, but it should be {right[at]:.6g}."


def _wanted(right):
    return f"an array of shape {right.shape}" if right.ndim else "one number"


def _read(value, right):
    """The value as an array; a single number in brackets counts as a number."""
    try:
        got = numbers(value)
    except AnswerError as why:
        raise AnswerError(f"Return {_wanted(right)}, not {short(value)}: {why}") from None
    return got.reshape(()) if got.size == 1 and not right.ndim else got


def _written(value):
    """A number, a small array row by row with a dash for `nan`, or the shape of a large one."""
    if np.size(value) > 16:
        return f"of shape {value.shape}"
    rows = np.atleast_2d(value).astype(float)
    said = "; ".join(" ".join("–" if np.isnan(v) else f"{v:.4g}" for v in row) for row in rows)
    return f"= ({said})" if np.ndim(value) else f"= {said}"
