"""Paths of the checkout, its records, and the run folders."""

import os
from pathlib import Path

REPO_ROOT = Path(__file__).resolve().parents[2]  # the checkout, if there is one
RECORDS = REPO_ROOT / "figures" / "results"


def record_of(stem: str) -> Path:
    """The JSON file of a committed record."""
    return RECORDS / f"{stem}.json"


def runs_root() -> Path:
    """The folder of all run folders: $CLKIT_RUNS, else runs/ in the checkout or in the working folder."""
    if os.environ.get("CLKIT_RUNS"):
        return Path(os.environ["CLKIT_RUNS"]).expanduser()
    return (REPO_ROOT if (REPO_ROOT / "pyproject.toml").is_file() else Path.cwd()) / "runs"
