"""What every error of the package has in common, and the offer of a near name that a message ends with."""

import difflib
from collections.abc import Iterable


class ClkitError(ValueError):
    """Bad input: the message is one sentence with the fault and its cure."""


def did_you_mean(word: object, words: Iterable[object], n: int = 3, cutoff: float = 0.5) -> str:
    """ "; did you mean a or b?" with the `n` nearest of `words`, or "" where none is as near as `cutoff`."""
    near = difflib.get_close_matches(str(word), [str(w) for w in words], n=n, cutoff=cutoff)
    return f"; did you mean {' or '.join(near)}?" if near else ""
