"""The numbers that the papers print, from one CSV file per paper: the only place that holds them."""

import csv
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from clkit.errors import ClkitError, did_you_mean


class PublishedError(ClkitError):
    """A look-up that the published numbers cannot answer; the message says what is available."""


@dataclass(frozen=True)
class Published:
    """One printed number.

    paper, table, page: where it is printed.   benchmark, method, metric: what it measures.   value, unit: the
    number as printed.   spread: the number after the ±, or None; spread_kind: what the paper says it is, or
    "not stated".   n: number of runs, or None if the paper does not say.   second_source: what another,
    independent source reports for the same, or "none found".
    """

    paper: str
    table: str
    page: str
    benchmark: str
    method: str
    metric: str
    value: float
    spread: float | None
    spread_kind: str
    n: int | None
    unit: str
    note: str
    second_source: str
    text: str = ""                                      # the digits as printed: 2.30 is not 2.3

    @property
    def place(self):
        """Where it is printed, e.g. "SpaceNet, Table 2, p. 6"."""
        from clkit.papers import PAPERS  # which does not need this module

        paper = PAPERS[self.paper].name if self.paper in PAPERS else self.paper.upper()
        return f"{paper}, {self.table}" + (f", p. {self.page}" if self.page else "")

    def __str__(self):
        if self.spread is None:
            return self.text
        known = self.spread_kind != "not stated"
        if known or self.n:
            kind = self.spread_kind if known else "kind not stated"
            said = f"{kind}, {f'n = {self.n}' if self.n else 'n not stated'}"
        else:
            said = "kind and n not stated"
        return f"{self.text} ± {self.spread:g} ({said})"


@lru_cache
def rows():
    """All published numbers, a tuple of Published: paper by paper, in file order."""
    found = []
    for path in sorted(Path(__file__).with_name("published").glob("*.csv")):
        with path.open(newline="", encoding="utf-8") as file:
            found += [Published(**{**row, "paper": path.stem, "text": row["value"],
                                   "value": float(row["value"]),
                                   "spread": float(row["spread"]) if row["spread"] else None,
                                   "n": int(row["n"]) if row["n"] else None}) for row in csv.DictReader(file)]
    return tuple(found)


def published(**wanted):
    """The published numbers with the given values of paper, table, method, metric, ...: list of Published.

    published(benchmark="split-mnist", method="lwf", metric="average accuracy"). PublishedError for a column
    or value that does not occur, with the nearest match; an empty list if no row has all values together.
    """
    found = list(rows())
    for column, value in wanted.items():
        columns = Published.__dataclass_fields__
        if column not in columns:
            near = did_you_mean(column, columns)
            raise PublishedError(f"published numbers have no column '{column}'{near}")
        there = {getattr(row, column) for row in rows()}
        if value not in there:
            raise PublishedError(f"no published number has {column} '{value}'{did_you_mean(value, there)}")
        found = [row for row in found if getattr(row, column) == value]
    return found


def one(**wanted):
    """The single matching published number; PublishedError if there are none or several."""
    found = published(**wanted)
    asked = ", ".join(f"{k} '{v}'" for k, v in wanted.items())
    if not found:
        raise PublishedError(f"no published number has {asked} together")
    if len(found) > 1:
        raise PublishedError(
            f"{len(found)} published numbers have {asked} ({'; '.join(sorted({r.place for r in found}))}): "
            "give paper, table or metric too")
    return found[0]
