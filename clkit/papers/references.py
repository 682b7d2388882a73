"""The bibliography of the book, from references.csv: the only place that describes sources."""

import csv
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from clkit.errors import ClkitError, did_you_mean


class ReferenceKeyError(ClkitError):
    """A source that the bibliography does not have; the message offers the nearest match."""


class Reference(NamedTuple):
    """A source.   key: first author, year and subject.   link: arXiv, DOI or page."""

    key: str
    authors: str
    title: str
    venue: str
    year: str
    link: str

    def markdown(self):
        """One line in a list of references."""
        return f"{self.authors}. *[{self.title}]({self.link})*. {self.venue}, {self.year}."

    def __str__(self):
        return f"{self.authors}. {self.title}. {self.venue}, {self.year}. {self.link}"


@lru_cache
def bibliography():
    """{key: Reference} of every source."""
    with Path(__file__).with_name("references.csv").open(newline="", encoding="utf-8") as file:
        return {row["key"]: Reference(**row) for row in csv.DictReader(file)}


def reference(key):
    """One source by its key; ReferenceKeyError if there is none."""
    if key not in bibliography():
        raise ReferenceKeyError(f"there is no reference '{key}'{did_you_mean(key, bibliography())}")
    return bibliography()[key]
