"""The table of published numbers: its form, and sums and differences that catch a misread digit."""

import csv
import re
from dataclasses import replace
from pathlib import Path

import pytest

from clkit import papers
from clkit.papers import published

FOLDER = Path(published.__file__).with_name("published")
COLUMNS = "table page benchmark method metric value spread spread_kind n unit note second_source".split()
PAPERS = {"spacenet", "dgm", "gfr", "mfgr", "arm", "incremental"}
UNITS = {"%", "percentage points", "images", "MB", "parameters", "neurons", "1"}
SPREADS = {"", "not stated", "standard deviation", "standard error"}


def table():
    """All rows of the files in clkit/papers/published, as dictionaries of text, with the paper's name."""
    rows = []
    for path in sorted(FOLDER.glob("*.csv")):
        with path.open(newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file)
            rows += [{"paper": path.stem, **row} for row in reader]
        assert reader.fieldnames == COLUMNS
    return rows


def faults(row):
    """The columns of a row that are wrong: a list of names."""
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
        "second_source": row["second_source"] != "",
    }
    if good["value"] and row["unit"] == "%":
        good["value"] = 0 <= float(row["value"]) <= 100
    wrong = [name for name, fine in good.items() if not fine]
    return wrong + [name for name, text in row.items() if text is None or text != text.strip()]


def one(rows, **wanted):
    """The value of the only row whose given columns have the given texts."""
    found = [row["value"] for row in rows if all(row[name] == text for name, text in wanted.items())]
    assert len(found) == 1, (wanted, found)
    return float(found[0])


def test_every_row_is_well_formed():
    assert [(number, faults(row)) for number, row in enumerate(table(), 2) if faults(row)] == []


@pytest.mark.parametrize(
    "column, text",
    [
        ("paper", "other"),
        ("table", "Tab. 2"),
        ("page", "6-7"),
        ("benchmark", "Split MNIST"),
        ("method", "EWC"),
        ("metric", ""),
        ("value", "20,01"),
        ("value", "200.1"),
        ("spread", "-1"),
        ("spread_kind", ""),
        ("n", "0"),
        ("unit", "percent"),
        ("note", " x"),
        ("second_source", ""),
    ],
)
def test_a_malformed_row_is_noticed(column, text):
    row = next(row for row in table() if row["spread"] and row["unit"] == "%")
    assert faults(row) == [] and faults({**row, column: text}) == [column]


def test_no_number_stands_twice():
    columns = ("paper", "table", "benchmark", "method", "metric")
    keys = [tuple(row[name] for name in columns) for row in table()]
    assert sorted(set(keys)) == sorted(keys)


def test_the_split_mnist_table_is_whole():
    rows = table()
    spacenet = {row["method"] for row in rows if (row["paper"], row["table"]) == ("spacenet", "Table 2")}
    assert spacenet == {
        "ewc",
        "si",
        "mas",
        "lwf",
        "dgr",
        "icarl",
        "den",
        "spacenet-rehearsal",
        "spacenet-static",
        "spacenet",
    }


@pytest.mark.parametrize(
    "name, benchmark, methods, numbers",
    [
        # Seven numbers for each method, but no forgetting of a stationary stream, and chance in the caption.
        # Two methods of Table 1 have no number of replayed images.
        ("Table 1", "cifar10-5", 13 + 1, 13 * 7 - 1 - 2 + 1),
        ("Table 5", "miniimagenet-20", 11 + 1, 11 * 7),
        ("Table 6", "mnist-5k-5", 11 + 1, 11 * 7),
        ("Table 2", "cifar10-5", 8, 8),
        ("Table 7", "cifar10-5", 14, 28),
        # Six layers, or three, and all of them; two kinds of targets, two classes.
        ("Figure 7", "cifar10-5", 1, 28),
        ("Table 9", "miniimagenet-20", 1, 28),
        ("Table 10", "mnist-5k-5", 1, 16),
    ],
)
def test_tables_of_arm_are_whole(name, benchmark, methods, numbers):
    rows = [row for row in table() if (row["paper"], row["table"]) == ("arm", name)]
    assert {row["benchmark"] for row in rows} == {benchmark}
    assert len({row["method"] for row in rows}) == methods and len(rows) == numbers


def test_tables_of_gfr_are_whole():
    rows = [row for row in table() if row["paper"] == "gfr"]
    counts = {name: len([row for row in rows if row["table"] == name]) for name in ("Table 2", "Table 3")}
    assert counts == {"Table 2": 5 * 4, "Table 3": 3 * 4}
    assert (
        {row["benchmark"] for row in rows if row["table"] in counts}
        == {"cifar100-4"}
        <= set(papers.benchmarks())
    )


def test_printed_memory_of_gfr_agrees_with_what_is_stored():
    rows = [row for row in table() if row["paper"] == "gfr"]
    for benchmark, size in (
        ("cifar100", 3 * 32**2),
        ("imagenet100", 3 * 256**2),
        ("imagenet1000", 3 * 256**2),
    ):
        images = one(rows, benchmark=benchmark, metric="stored images")
        printed = one(rows, benchmark=benchmark, metric="memory of stored images")
        megabytes = images * size / (10**6 if benchmark == "cifar100" else 2**20)
        assert abs(printed - megabytes) < 0.015 * printed
    G, D = (200 + 100 + 1) * 512 + 2 * 513 * 512, 2 * 513 * 512 + 513 + 100 * 512  # with 100 classes
    printed = one(rows, method="gfr", metric="memory of the generator and the critic")
    assert (G, D) == (679_424, 577_025) and abs(4 * (G + D) / 2**20 - printed) < 0.3
    alike = one(rows, metric="stored images with as many bytes as the memory")
    assert abs(printed * 2**20 / (3 * 256**2) - alike) < 0.01


def test_benchmarks_of_arm_are_those_of_the_presets():
    named = {row["benchmark"] for row in table() if row["paper"] == "arm"}
    assert named == {"mnist-5k-5", "cifar10-5", "miniimagenet-20"} <= set(papers.benchmarks())


def test_printed_gains_and_totals_agree_with_the_printed_parts():
    rows = table()
    accuracy = {
        method: one(rows, paper="spacenet", table="Table 2", method=method, metric="average accuracy")
        for method in ("spacenet", "spacenet-static", "lwf", "den")
    }
    for other, digits in (("spacenet-static", 0.005), ("lwf", 0.1), ("den", 0.1)):
        metric = f"gain in average accuracy over {other}"
        gain = one(rows, paper="spacenet", benchmark="split-mnist", metric=metric)
        assert abs(accuracy["spacenet"] - accuracy[other] - gain) < digits
    for method in ("dgmw", "dgma"):
        for classes in ("5", "10"):
            weights, masks, both = (
                one(
                    rows,
                    table="Table 4",
                    method=method,
                    metric=f"disc space of {what} after {classes} classes",
                )
                for what in ("weights", "masks", "weights and masks")
            )
            assert abs(weights + masks - both) < 0.051
    gain = one(rows, paper="arm", table="text", metric="gain in average accuracy over adi")
    arm, adi = (
        one(rows, paper="arm", table="Table 5", method=m, metric="average accuracy") for m in ("arm", "adi")
    )
    assert abs(arm - adi - gain) < 0.05


def test_printed_memory_of_arm_agrees_with_what_is_stored():
    rows = table()
    # ARM keeps one old copy of a 784-400-400-10 network.
    assert one(rows, paper="arm", table="Table 6", method="arm", metric="extra parameters") == 478_000
    metrics = ("stored images", "memory of stored images", "extra parameters", "memory of extra parameters")
    for name, pixels in (("Table 1", 3 * 32 * 32), ("Table 5", 3 * 84 * 84), ("Table 6", 28 * 28)):
        for method in {row["method"] for row in rows if (row["paper"], row["table"]) == ("arm", name)}:
            if method != "chance":
                images, megabytes, parameters, more = (
                    one(rows, paper="arm", table=name, method=method, metric=metric) for metric in metrics
                )
                # A byte a value, four a parameter; printed with two or three digits.
                assert abs(megabytes - 1e-6 * pixels * images) < max(0.006, 0.005 * megabytes), (name, method)
                assert abs(more - 4e-6 * parameters) < max(0.03, 0.005 * more), (name, method)


def test_numbers_that_arm_prints_twice_are_the_same():
    rows = table()
    for metric in ("average accuracy", "forgetting"):
        assert one(rows, paper="arm", table="Table 1", method="arm", metric=metric) == one(
            rows, paper="arm", table="Table 7", method="arm", metric=metric
        )
    for method in ("distill", "adi"):
        assert one(rows, paper="arm", table="Table 1", method=method, metric="average accuracy") == one(
            rows, paper="arm", table="Table 2", method=method, metric="average accuracy"
        )


@pytest.mark.parametrize(
    "name, benchmark, methods, numbers",
    [
        # Five classes; six rows of two data sets and five tasks.
        ("Table 1", {"cifar100-6"}, 3, 15),
        ("Table 2", {"cifar100-5", "tinyimagenet-5"}, 6, 60),
        ("Table 3", {"cub-caltech"}, 3, 15),
        ("Table 4", {"cub-10-10"}, 4, 12),
        # Seven rows of four or nine tasks, and a gain over five of them.
        ("Table 5", {"cifar100-5"}, 7, 33),
        ("Table 6", {"tinyimagenet-5"}, 7, 33),
        ("Table 7", {"cifar100-10"}, 7, 68),
        ("Table 8", {"tinyimagenet-10"}, 7, 68),
    ],
)
def test_tables_of_mfgr_are_whole(name, benchmark, methods, numbers):
    rows = [row for row in table() if (row["paper"], row["table"]) == ("mfgr", name)]
    assert {row["benchmark"] for row in rows} == benchmark <= set(papers.benchmarks())
    assert len({row["method"] for row in rows}) == methods and len(rows) == numbers


@pytest.mark.parametrize("number, tasks", [(5, 5), (6, 5), (7, 10), (8, 10)])
def test_printed_gains_of_mfgr_agree_with_the_printed_rows(number, tasks):
    def mean(method):
        printed = [
            one(
                table(),
                paper="mfgr",
                table=f"Table {number}",
                method=method,
                metric=f"accuracy after task {k}",
            )
            for k in range(2, tasks + 1)
        ]
        return sum(printed) / len(printed)

    for other in ("mas", "muc-mas", "lwm", "lwf", "muc-lwf"):
        gain = one(table(), paper="mfgr", table=f"Table {number}", metric=f"gain in accuracy over {other}")
        slip = 1.0 if (number, other) == (8, "muc-mas") else 0.0
        assert abs(mean("mfgr") - mean(other) + slip - gain) < 0.012, (number, other)


def test_numbers_that_mfgr_prints_twice_are_the_same():
    for number, benchmark in ((5, "cifar100-5"), (6, "tinyimagenet-5")):
        for method in ("lwf", "mfgr"):
            for k in range(2, 6):
                wanted = {"paper": "mfgr", "benchmark": benchmark, "method": method}
                wanted["metric"] = f"accuracy after task {k}"
                again = one(table(), table=f"Table {number}", **wanted)
                assert one(table(), table="Table 2", **wanted) == again


CONVOLUTIONS = [f"Conv {n}" for n in range(1, 6)]


@pytest.mark.parametrize(
    "name, layers",
    [
        ("Figure 7", [*CONVOLUTIONS, "FC"]),
        ("Table 9", [*CONVOLUTIONS, "FC"]),
        ("Table 10", ["FC 1", "FC 2", "FC 3"]),
    ],
)
def test_mean_cosines_of_all_layers_lie_between_those_of_the_layers(name, layers):
    for targets in ("hard", "soft"):
        for k in (1, 2):
            metric = f"gradient correlation, {targets} targets, {{}}, class {k}".format
            parts = [one(table(), paper="arm", table=name, metric=metric(layer)) for layer in layers]
            assert min(parts) <= one(table(), paper="arm", table=name, metric=metric("all")) <= max(parts)


def test_a_second_source_stands_beside_a_number():
    row = published.one(paper="spacenet", table="Table 2", method="dgr", metric="average accuracy")
    assert row.second_source == "91.24 ± 0.33 (van de Ven and Tolias 2019)" and row.text == "90.79"
    assert {r.second_source for r in published.rows() if r.paper in ("dgm", "mfgr")} == {"none found"}
    metric = "average accuracy after 100 classes"
    two = [published.one(paper="gfr", table=t, method="gfr", metric=metric) for t in ("Table 2", "Table 3")]
    assert [r.second_source for r in two] == [f"{r.text} (its {r.table})" for r in reversed(two)]


# ---- looking numbers up


def test_look_up():
    rows = published.published(benchmark="split-mnist", method="lwf", metric="average accuracy")
    assert rows and all(r.method == "lwf" and r.benchmark == "split-mnist" for r in rows)
    assert published.one(paper="spacenet", table="Table 2", method="spacenet-static").text == "61.25"
    assert len(published.rows()) == len(table()) and all(isinstance(r.value, float) for r in published.rows())
    printed = published.one(paper="spacenet", table="Table 2", method="spacenet")
    assert str(printed) == "75.53 ± 1.82 (kind not stated, n = 10)"
    assert str(replace(printed, n=None)).endswith("± 1.82 (kind and n not stated)")
    assert str(replace(printed, spread_kind="SD")).endswith("± 1.82 (SD, n = 10)")
    assert printed.place == "SpaceNet, Table 2, p. 6"


@pytest.mark.parametrize(
    "wanted, says",
    [
        ({"method": "spacenett"}, "no published number has method 'spacenett'; did you mean spacenet"),
        ({"methd": "lwf"}, "no column 'methd'; did you mean method"),
        ({"method": "lwf"}, r"published numbers have method 'lwf' \(.*\): give paper, table or metric too"),
        ({"method": "den", "paper": "arm"}, "no published number has method 'den', paper 'arm' together"),
    ],
)
def test_look_ups_that_cannot_be_answered(wanted, says):
    with pytest.raises(published.PublishedError, match=says):
        published.one(**wanted)
