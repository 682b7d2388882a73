"""Paths of the checkout, its records, and the run folders."""

import hashlib
import os
import shlex
from pathlib import Path

from clkit.errors import ClkitError

REPO_ROOT = Path(__file__).resolve().parents[2]  # the checkout, if there is one
HOME = REPO_ROOT if (REPO_ROOT / "pyproject.toml").is_file() else Path.cwd()
IN_HOME = Path("figures", "results")
RECORDS = HOME / IN_HOME
LONGEST = 180  # bytes of a name that more is added to; file systems take 255


def record_of(stem: str) -> Path:
    """The JSON file of a committed record."""
    return RECORDS / f"{stem}.json"


def runs_root() -> Path:
    """The folder of all run folders: $CLKIT_RUNS, else runs/ in the checkout or in the working folder."""
    wish = os.environ.get("CLKIT_RUNS", "").strip()
    return folder(wish) if wish else HOME / "runs"


def folder(path: str | Path) -> Path:
    """A folder that a user names, with ~ for the home folder; ClkitError if it is empty.

    Anywhere in the checkout, such as in notebooks/, figures/results is the folder of the records.
    """
    text = os.fspath(path).strip()
    if not text or "\0" in text:
        raise ClkitError(f"{path!r} names no folder: write a path such as my-results, or . for this folder")
    return RECORDS if Path(text) == IN_HOME and _at_home() else Path(os.path.expanduser(text))


def records_option() -> str:
    """The option --out of a command, given in the present folder, that writes a committed record."""
    return f"--out {shlex.quote((IN_HOME if _at_home() else RECORDS).as_posix())}"


def _at_home():
    return Path.cwd().is_relative_to(HOME)


def short(name: str, most: int = LONGEST) -> str:
    """A name for a file: the same, or its beginning and a digest if it has more than `most` bytes."""
    raw = name.encode(errors="surrogateescape")
    if len(raw) <= most:
        return name
    return f"{raw[: most - 9].decode(errors='ignore')}-{hashlib.sha256(raw).hexdigest()[:8]}"
