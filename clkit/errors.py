"""The base class of all errors of the package, and the suggestion of similar names that ends a message."""

import difflib
from collections.abc import Iterable


class ClkitError(ValueError):
    """Bad input; the message is one sentence that names the fault and its cure.

    Names that are not UTF-8 are shown with escapes, since neither terminals nor notebooks can print them.
    """

    def __init__(self, message: object = "") -> None:
        super().__init__(str(message).encode("utf-8", "backslashreplace").decode())


def did_you_mean(word: object, words: Iterable[object], n: int = 3, cutoff: float = 0.5) -> str:
    """ "; did you mean a or b?" with the `n` most similar of `words`, or "" if none reaches `cutoff`."""
    near = difflib.get_close_matches(str(word), [str(w) for w in words], n=n, cutoff=cutoff)
    return f"; did you mean {' or '.join(near)}?" if near else ""
