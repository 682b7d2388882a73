"""The mean over several seeds and its confidence interval."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from clkit.result.result import ResultError

# scipy.special.stdtrit(f, 0.975) for f = 1, 2, ...: loading scipy would take a fifth of a figure's time.
_QUANTILES = (
    12.706204736174694,
    4.302652729749462,
    3.1824463052837078,
    2.7764451051977934,
    2.5705818356363146,
    2.4469118511449786,
    2.364624251592784,
    2.306004135204166,
    2.262157162798205,
    2.228138851986274,
)


class Interval(NamedTuple):
    """A mean over n seeds and the half-width of its interval, both as fractions; `half` is NaN for n = 1."""

    mean: float
    half: float
    n: int
    kind: str

    def __str__(self) -> str:
        if math.isnan(self.mean):
            return "undefined"
        if self.n < 2:
            return f"{100 * self.mean:.2f} (n = {self.n})"
        return f"{100 * self.mean:.2f} ± {100 * self.half:.2f} ({self.kind}, n = {self.n})"


def interval(values: Iterable[float], level: float = 0.95) -> Interval:
    """Mean and Student-t confidence interval of independent values, such as one score per seed.

    level: coverage in (0, 1), else ResultError.   The half-width is t * s / sqrt(n), with n - 1 in s.
    """
    values = np.array([*values], dtype=float)
    if not 0 < level < 1:
        raise ResultError(f"level must lie between 0 and 1, such as 0.95, not {level}")
    n, kind = len(values), f"{100 * level:g} % t-interval"
    if n < 2:
        return Interval(float(values.mean()) if n else float("nan"), float("nan"), n, kind)
    if level == 0.95 and n - 1 <= len(_QUANTILES):
        t = _QUANTILES[n - 2]
    else:
        from scipy.special import stdtrit

        t = stdtrit(n - 1, 0.5 + level / 2)
    half = t * values.std(ddof=1) / math.sqrt(n)
    return Interval(float(values.mean()), float(half), n, kind)
