"""The table of published numbers: its form, and sums and differences that catch a misread digit."""

import csv
import re
from pathlib import Path

import pytest

COLUMNS = "paper table page benchmark method metric value spread spread_kind n unit note".split()
PAPERS = {"spacenet", "dgm", "gfr", "mfgr", "arm"}
UNITS = {"%", "percentage points", "images", "MB", "parameters", "neurons", "1"}
SPREADS = {"", "not stated", "standard deviation", "standard error"}


def table():
    """All rows of clkit/published.csv, as dictionaries of text."""
    path = Path(__file__).resolve().parent.parent / "clkit" / "published.csv"
    with open(path, newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        rows = list(reader)
    assert reader.fieldnames == COLUMNS
    return rows


def faults(row):
    """What is wrong with one row: a list of column names."""
    number = r"-?\d+(\.\d+)?"
    good = {
        "paper": row["paper"] in PAPERS,
        "table": re.fullmatch(r"(Table|Figure) \d+|text", row["table"]),
        "page": re.fullmatch(r"\d*", row["page"]),
        "benchmark": re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", row["benchmark"]),
        "method": re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", row["method"]),
        "metric": row["metric"] != "",
        "value": re.fullmatch(number, row["value"]),
        "spread": re.fullmatch(rf"({number})?", row["spread"]) and not row["spread"].startswith("-"),
        # A spread without its kind could be taken for an interval.
        "spread_kind": row["spread_kind"] in SPREADS and bool(row["spread_kind"]) == bool(row["spread"]),
        "n": re.fullmatch(r"([1-9]\d*)?", row["n"]),
        "unit": row["unit"] in UNITS,
    }
    if good["value"] and row["unit"] == "%":
        good["value"] = 0 <= float(row["value"]) <= 100
    wrong = [name for name, fine in good.items() if not fine]
    return wrong + [name for name, text in row.items() if text is None or text != text.strip()]


def one(rows, **wanted):
    """The value of the single row in which every given column has the given text."""
    found = [row["value"] for row in rows if all(row[name] == text for name, text in wanted.items())]
    assert len(found) == 1, (wanted, found)
    return float(found[0])


def test_every_row_is_well_formed():
    assert [(number, faults(row)) for number, row in enumerate(table(), 2) if faults(row)] == []


@pytest.mark.parametrize("column, text", [
    ("paper", "other"), ("table", "Tab. 2"), ("page", "6-7"), ("benchmark", "Split MNIST"), ("method", "EWC"),
    ("metric", ""), ("value", "20,01"), ("value", "200.1"), ("spread", "-1"), ("spread_kind", ""), ("n", "0"),
    ("unit", "percent"), ("note", " x"),
])
def test_a_malformed_row_is_noticed(column, text):
    row = next(row for row in table() if row["spread"] and row["unit"] == "%")
    assert faults(row) == [] and faults({**row, column: text}) == [column]


def test_no_number_stands_twice():
    columns = ("paper", "table", "benchmark", "method", "metric")
    keys = [tuple(row[name] for name in columns) for row in table()]
    assert sorted(set(keys)) == sorted(keys)


def test_split_mnist_tables_are_whole():
    rows = table()
    spacenet = {row["method"] for row in rows if (row["paper"], row["table"]) == ("spacenet", "Table 2")}
    assert spacenet == {"ewc", "si", "mas", "lwf", "dgr", "icarl", "den", "spacenet-rehearsal",
                        "spacenet-static", "spacenet"}
    arm = [row["method"] for row in rows if (row["paper"], row["table"]) == ("arm", "Table 6")]
    # Eleven methods, seven numbers each, but a stationary stream has no forgetting; chance in the caption.
    assert len(arm) == 11 * 7 - 1 + 1 and len(set(arm)) == 12


def test_printed_gains_and_totals_agree_with_the_printed_parts():
    rows = table()
    accuracy = {method: one(rows, paper="spacenet", table="Table 2", method=method, metric="average accuracy")
                for method in ("spacenet", "spacenet-static", "lwf", "den")}
    for other, digits in (("spacenet-static", 0.005), ("lwf", 0.1), ("den", 0.1)):
        metric = f"gain in average accuracy over {other}"
        gain = one(rows, paper="spacenet", benchmark="split-mnist", metric=metric)
        assert abs(accuracy["spacenet"] - accuracy[other] - gain) < digits
    for method in ("dgmw", "dgma"):
        for classes in ("5", "10"):
            weights, masks, both = (one(rows, table="Table 4", method=method,
                                        metric=f"disc space of {what} after {classes} classes")
                                    for what in ("weights", "masks", "weights and masks"))
            assert abs(weights + masks - both) < 0.051
    # Four bytes a parameter; ARM keeps one old copy of a 784-400-400-10 network.
    assert one(rows, paper="arm", table="Table 6", method="arm", metric="extra parameters") == 478_000
    for method in ("arm", "gen", "gen-mir"):
        megabytes, parameters = (one(rows, paper="arm", table="Table 6", method=method, metric=metric)
                                 for metric in ("memory of extra parameters", "extra parameters"))
        assert abs(megabytes - 4e-6 * parameters) < 0.03
