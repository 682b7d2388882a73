"""The base class of all errors of the package, sentences for the system's errors, and similar names."""

import difflib
import errno
import os
from collections.abc import Iterable

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_REFUSED = (errno.EACCES, errno.EPERM, errno.EROFS)
_CURES = {
    _FULL: "make room there, or choose a folder on another disk, then run the same command again",
    _REFUSED: "choose a folder in which you may read and write",
    (
        errno.EMFILE,
        errno.ENFILE,
    ): "close other programs or raise the limit on open files (ulimit -n), then run the same command again",
    (errno.ENAMETOOLONG,): "choose a folder with a shorter path",
    (errno.ENOTDIR, errno.EEXIST): "a part of this path is a file: choose another folder",
    (errno.ENOENT,): "check the path",
}


class ClkitError(ValueError):
    """Bad input; the message is one sentence that names the fault and its cure.

    Names that are not UTF-8 are shown with escapes, since neither terminals nor notebooks can print them.
    """

    def __init__(self, message: object = "") -> None:
        super().__init__(str(message).encode("utf-8", "backslashreplace").decode())


class FileError(ClkitError):
    """A file or folder that the system refuses to read or write; the message gives its reason and a cure."""


def file_error(path: object, verb: str, error: OSError) -> FileError:
    """The FileError of an OSError: "PATH could not be written (No space left on device): make room ..."."""
    reason = os.strerror(error.errno) if error.errno else str(error)
    cure = next((cure for codes, cure in _CURES.items() if error.errno in codes), None)
    cure = cure or "nothing was deleted; check the disk, then run the same command again"
    return FileError(f"{path} could not be {verb} ({reason}): {cure}")


def lacks_rights(error: OSError) -> bool:
    """Whether an OSError is about rights, as on a disk that can only be read."""
    return error.errno in _REFUSED


def did_you_mean(word: object, words: Iterable[object], n: int = 3, cutoff: float = 0.5) -> str:
    """ "; did you mean a or b?" with the `n` most similar of `words`, or "" if none reaches `cutoff`."""
    near = difflib.get_close_matches(str(word), [str(w) for w in words], n=n, cutoff=cutoff)
    return f"; did you mean {' or '.join(near)}?" if near else ""
