"""The rule for verdicts, branch by branch; rows that compare results with printed numbers; reports."""

import dataclasses

import numpy as np
import pytest

from clkit.book import compare, show
from clkit.papers import published
from clkit.papers.published import Published
from clkit.result import Interval, interval
from tests.builders import made, seeds, several

T = "95 % t-interval"


def printed(value=50.0, spread=None, unit="%", text="", second="none found"):
    """A number as a paper prints it."""
    return Published(
        "paper",
        "Table 1",
        "3",
        "split-mnist",
        "er",
        "average accuracy",
        value,
        spread,
        "not stated",
        10,
        unit,
        "",
        second,
        text or f"{value:g}",
    )


def ours(mean, half=0.1, n=5):
    """An interval, given in percent."""
    return Interval(mean / 100, half / 100 if n > 1 else float("nan"), n, T)


def at(accuracy, seed=0, preset="paper"):
    """A Result whose average accuracy is this fraction, at the paper's size and data."""
    result = made("er", seed, benchmark="split-mnist", data="mnist", preset=preset)
    right = np.zeros(len(result.labels), dtype=bool)
    for k in range(6):
        right[np.flatnonzero(result.labels == k)[: round(10 * accuracy)]] = True
    wrong = (result.labels + 1) % 6
    predictions = result.predictions.copy()
    predictions[-1] = np.where(right, result.labels, wrong)
    return dataclasses.replace(result, predictions=predictions)


# ---- the rule


@pytest.mark.parametrize(
    "mean, half, spread, kind",
    [
        (50.0, 0.9, None, "reproduced"),  # well inside one point
        (50.5, 0.5, None, "reproduced"),  # touches the margin
        (49.2, 0.1, None, "reproduced"),  # in the margin, without the printed number
        (52.0, 1.0, 3.0, "reproduced"),  # the printed spread is the margin
        (50.2, 1.0, 0.3, "consistent"),  # a spread below one point does not narrow it
        (50.5, 0.6, None, "consistent"),  # holds the printed number, reaches beyond the margin
        (58.0, 9.0, None, "consistent"),  # wide
        (41.0, 9.0, None, "consistent"),  # the printed number is its very end
        (50.8, 0.3, None, "differs"),  # reaches beyond the margin without the printed number
        (58.0, 7.9, None, "differs"),
        (40.0, 0.1, 2.0, "differs"),
    ],
)
def test_a_verdict_weighs_the_whole_interval(mean, half, spread, kind):
    found = compare.verdict(printed(50.0, spread), ours(mean, half))
    assert found.kind == kind and str(found).startswith(kind) and bool(found) == (kind != "differs")


@pytest.mark.parametrize(
    "mean, spread, text",
    [
        (50.0, None, "consistent, one seed"),
        (51.0, None, "consistent, one seed"),
        (47.1, 3.0, "consistent, one seed"),
        (51.1, None, "differs: 1.1 points higher, one seed; cause not found"),
        (46.9, 3.0, "differs: 3.1 points lower, one seed; cause not found"),
    ],
)
def test_one_seed_is_at_most_consistent(mean, spread, text):
    assert compare.verdict(printed(50.0, spread), ours(mean, n=1)).text == text


def test_a_difference_comes_with_its_cause_or_says_that_there_is_none():
    assert compare.verdict(printed(), ours(40)).text == "differs: 10.0 points lower; cause not found"
    found = compare.verdict(printed(), ours(60), reason="another network")
    assert found.text == "differs: 10.0 points higher; another network" and not found


@pytest.mark.parametrize("mean", [50.0, 20.0])
def test_another_size_is_never_reproduced_and_is_named(mean):
    found = compare.verdict(printed(), ours(mean), size="laptop")
    assert found.kind == "other size" and not found
    assert found.text.startswith("not the paper's size (laptop): ")
    assert "30.0 points lower" in compare.verdict(printed(), ours(20), "laptop").text


def test_what_is_not_printed_or_undefined_has_no_verdict():
    assert compare.verdict(None, ours(50)) == compare.Verdict("not printed", "nothing to compare")
    assert not compare.verdict(None, ours(50))
    assert compare.verdict(printed(), ours(float("nan"), float("nan"))).kind == "undefined"


@pytest.mark.parametrize(
    "number, text, verdict",
    [
        (28.4, "28", "reproduced"),
        (27.5, "28", "reproduced"),
        (26.9, "28", "differs: 26.9 instead of 28; cause not found"),
        (2.301, "2.30", "reproduced"),
        (2.31, "2.30", "differs: 2.31 instead of 2.30; counted otherwise"),
    ],
)
def test_a_count_is_reproduced_if_it_rounds_to_the_printed_digits(number, text, verdict):
    reason = "counted otherwise" if "otherwise" in verdict else ""
    assert compare.verdict(printed(float(text), text=text), number, reason=reason).text == verdict


def test_results_are_scored_by_the_printed_metric():
    results = [at(0.5, seed) for seed in range(3)]
    assert compare.verdict(printed(50.0), results).kind == "reproduced"
    with pytest.raises(compare.CompareError, match="no score called 'forgeting'; did you mean forgetting"):
        compare.verdict(dataclasses.replace(printed(), metric="forgeting"), results)


def test_the_rule_names_what_the_code_decides():
    for word in ("1 point", "printed spread", "one seed", "*Differs*", "size other than"):
        assert word in compare.RULE
    assert compare.MARGIN == 1.0


# ---- a row beside a printed number


def test_a_row_has_the_printed_number_ours_and_the_verdict():
    paper = published.one(paper="spacenet", table="Table 2", method="lwf")
    results = seeds("lwf", benchmark="split-mnist", data="mnist", preset="paper")
    row = compare.comparison(paper, results, reason="these answers are random")
    mean = interval([r.average() for r in results])
    assert list(row) == ["method", "published", "second source", "ours", "n", "interval", "verdict"]
    assert row["published"] == "23.85 ± 0.44 (kind and n not stated), SpaceNet, Table 2, p. 6"
    assert row["second source"].startswith("24.17")
    assert (row["method"], row["n"], row["ours"]) == ("LwF", "3", f"{100 * mean.mean:.2f}")
    assert row["interval"] == f"± {100 * mean.half:.2f} ({T})"
    assert row["verdict"] == f"differs: {100 * mean.mean - 23.85:.1f} points higher; these answers are random"


def test_further_scores_stand_beside_ours_and_have_no_verdict():
    results, paper = seeds("lwf"), published.one(paper="spacenet", table="Table 2", method="lwf")
    with_more = {"twice": lambda r: 2 * r.average() / 3, "never": lambda r: float("nan")}
    row = compare.comparison(paper, results, also=with_more)
    assert list(row)[3:6] == ["ours", "twice", "never"] and row["never"] == "-"
    mean, half = (200 / 3 * value for value in interval([r.average() for r in results])[:2])
    assert row["twice"] == f"{mean:.2f} ± {half:.2f}"
    plain = compare.comparison(paper, results)
    assert {k: v for k, v in row.items() if k not in with_more} == plain
    wanted = {"paper": "spacenet", "benchmark": "split-mnist", "not_run": ("den",)}
    last = compare.comparisons({"lwf": results}, also=with_more, **wanted)[-1]
    assert (last["method"], last["twice"], last["never"]) == ("DEN", "-", "-")


def test_a_row_without_a_printed_number_or_with_one_seed():
    row = compare.comparison(None, [at(0.5)], label="mine")
    assert (row["method"], row["published"], row["second source"]) == ("mine", "not printed", "")
    assert (row["interval"], row["verdict"]) == ("none (one seed)", "nothing to compare")


@pytest.mark.parametrize(
    "options, says",
    [
        ({"data": "digits28", "preset": "teach"}, "(STAND-IN DATA: digits28)"),
        ({"data": "mnist", "preset": "laptop"}, "(laptop)"),
        ({"data": "mnist", "preset": "smoke"}, "SMOKE TEST"),
    ],
)
def test_a_stand_in_or_another_size_is_never_called_reproduced(options, says):
    paper = published.one(paper="spacenet", table="Table 2", method="lwf")
    row = compare.comparison(paper, seeds("lwf", benchmark="split-mnist", **options), score=lambda r: 0.2385)
    assert row["verdict"].startswith("not the paper's size") and says in row["verdict"]


def test_comparisons_find_the_printed_numbers_by_name():
    records = {"lwf": seeds("lwf"), "static": seeds("static"), "er": seeds("er"), "ER, 50": seeds("er")}
    rows = compare.comparisons(
        records, {"static": "spacenet-static"}, paper="spacenet", benchmark="split-mnist", not_run=("den",)
    )
    said = [(r["method"], r["published"].partition(" ")[0]) for r in rows]
    assert said == [
        ("LwF", "23.85"),
        ("SpaceNet (static)", "61.25"),
        ("ER", "not"),
        ("ER, 50", "not"),
        ("DEN", "56.95"),
    ]
    assert rows[-1]["verdict"] == "not run" and rows[-1]["ours"] == "-"


def test_a_printed_number_may_be_of_an_earlier_stage_or_of_another_score():
    records, wanted = {"dgmw": seeds("dgmw", sizes=(1,) * 10)}, {"paper": "dgm", "benchmark": "mnist-1x10"}
    metric = "average accuracy after 5 classes"
    row = compare.comparisons(records, metric=metric, table="Table 1", **wanted)[0]
    mean = np.mean([r.averages()[4] for r in records["dgmw"]])
    assert row["published"] == "98.75, DGM, Table 1, p. 11325" and row["ours"] == f"{100 * mean:.2f}"
    assert np.isnan(compare.score_called("average accuracy after 5 classes")(made("er")))  # 2, 4 and 6
    row = compare.comparisons(records, metric=metric, score=lambda r: 0.25, table="Table 1", **wanted)[0]
    assert row["published"].startswith("98.75") and row["ours"] == "25.00"


def test_a_paper_may_take_the_mean_over_the_classes_of_a_task():
    r = at(0.5)
    names = ("average accuracy", "task-aware accuracy", "forgetting")
    ours = [compare.score_called(name, "classes")(r) for name in names]
    assert ours == [r.average(task_mean="classes"), r.task_aware_average("classes"), r.forgetting("classes")]
    joint = made("joint", joint=True)
    assert compare.score_called("average accuracy", "classes")(joint) == joint.average("images")
    row = compare.comparisons({"er": [r]}, metric="forgetting", task_mean="classes")[0]
    assert row["ours"] == f"{100 * r.forgetting('classes'):.2f}"


def test_beside_says_the_rule_and_leaves_out_what_is_empty(monkeypatch):
    shown = []
    monkeypatch.setattr(show, "text", shown.append)
    monkeypatch.setattr(show, "table", shown.append)
    compare.beside({"mas": seeds("mas"), "er": seeds("er")}, paper="spacenet", benchmark="split-mnist")
    assert shown[0] == compare.RULE and len(shown[1]) == 2 and "second source" not in shown[1][0]
    compare.beside(
        {"lwf": seeds("lwf"), "er": seeds("er")}, only_printed=True, paper="spacenet", benchmark="split-mnist"
    )
    assert len(shown[3]) == 1 and "second source" in shown[3][0]


def test_claims_hold_or_do_not():
    assert compare.claims({"a": True, "b": False}, "laptop") == [
        {"the paper says": "a", "laptop": "holds"},
        {"the paper says": "b", "laptop": "does not hold"},
    ]


# ---- rows beside one another


def test_a_gain_pairs_the_seeds():
    first, second = [at(0.8, 0), at(0.5, 1), at(0.9, 7)], [at(0.4, 1), at(0.6, 0)]
    found = compare.gain(first, second)
    assert (found.n, found.mean) == (2, pytest.approx(0.15))
    with pytest.raises(compare.CompareError, match="share no seed"):
        compare.gain([at(0.5, 0)], [at(0.5, 1)])


def test_differences_are_taken_seed_by_seed():
    variants = {
        "er": [at(0.5, s) for s in range(3)],
        "worse": [at(a, s) for s, a in enumerate((0.2, 0.3, 0.2))],
        "the same": [at(a, s) for s, a in enumerate((0.4, 0.6, 0.5))],
        "single": [at(0.9, 0)],
    }
    rows = compare.differences(variants, "er")
    assert [r["one change"] for r in rows] == ["worse", "the same", "single"]
    assert [r["so"] for r in rows] == ["lower", "no clear difference", "one seed"]
    assert rows[0]["difference to ER (points)"].mean == pytest.approx(-0.8 / 3)


def test_rows_have_the_columns_asked_for():
    records = several()
    rows = compare.rows(records, columns=("average accuracy (%)", "memory (MB)"))
    mean = interval([r.average() for r in records["er"]])
    assert rows[1] == {
        "method": "ER",
        "n": "3",
        "average accuracy (%)": f"{100 * mean.mean:.2f} ± {100 * mean.half:.2f}",
        "memory (MB)": "3.50",
    }
    assert rows[2]["method"] == "Joint" and "forgetting (points)" not in rows[2]
    assert compare.rows({"er": seeds(n=1)})[0]["average accuracy (%)"] == f"{100 * made().average():.2f}"
    assert compare.rows({"er": seeds()}, columns={"first": lambda s: s[0].about["seed"]})[0]["first"] == 0
    for wrong, says in ((("averge accuracy (%)",), "did you mean average accuracy"), (("",), "no column ''")):
        with pytest.raises(compare.CompareError, match=says):
            compare.rows(records, columns=wrong)
    with pytest.raises(compare.CompareError, match="no results"):
        compare.rows({})


def test_every_column_can_be_made():
    results = seeds()
    for r in results:
        r.about["config"]["epochs"] = 4
    row = compare.rows({"er": results}, columns=tuple(compare.COLUMNS))[0]
    assert set(row) == {"method", *compare.COLUMNS} and row["epochs"] == "4"
    assert (row["MB beside the network"], row["seconds a seed"]) == ("1.50", "3.0")


def test_two_seeds_are_listed_one_by_one():
    column = compare.each("average accuracy")
    assert column([at(0.5, 0), at(0.7, 1)]) == "50.0 and 70.0"
    assert compare.each("forgetting")([made("joint", joint=True)]) == "-"


def test_the_table_of_tasks():
    row = compare.by_task({"er": seeds()})[0]
    assert list(row) == [
        "method",
        "task 1",
        "task 2",
        "task 3",
        "average (%)",
        "newest (%)",
        "task-aware (%)",
        "n",
    ]
    assert row["task 2"] == f"{100 * np.mean([r.accuracy()[-1, 1] for r in seeds()]):.0f}"


def test_means_in_words():
    records = {"er": [at(0.5, 0), at(0.7, 1)], "mine (a)": [at(0.5)]}
    assert compare.said(records) == "ER 60.0 %; mine (a) 50.0 %"
    both = compare.said({"er": [at(0.5)]}, lambda r: 0.1, lambda r: 0.2, form="{:.0f}")
    assert both == "ER 10 and 20 %"
    assert (
        compare.said({"er": [made()]}, compare.megabytes, form="{:.2f}", scale=1, unit=" MB") == "ER 3.50 MB"
    )


def test_a_label_keeps_what_stands_in_brackets():
    assert (
        compare.label_of("er (memory-50)") == "ER (memory-50)"
        and compare.label_of("ER, 50 images") == "ER, 50 images"
    )


# ---- loading


def test_load_says_how_each_record_is_made_and_keeps_the_seeds_asked_for(monkeypatch):
    asked, said = [], []
    monkeypatch.setattr(
        compare.experiments,
        "load_or_run",
        lambda *a, **k: asked.append(a) or seeds(a[0].partition("/")[0], 5),
    )
    found = compare.load("split-mnist", "paper", ("er", "joint"), seeds=(1, 3), say=said.append)
    assert [[r.about["seed"] for r in results] for results in found.values()] == [[1, 3], [1, 3]]
    assert asked[1] == ("joint/split-mnist", "paper", (1, 3), None)
    assert "python -m clkit run er/split-mnist --preset paper" in said[0] and len(said) == 2
    compare.load("split-mnist", "teach", ("er",), say=said.append)
    assert len(said) == 2  # live runs need no command


def test_recorded_leaves_out_what_has_no_record(monkeypatch):
    lines = (("A", "a", "er/split-mnist", None), ("B", None, "er/split-mnist", {"memory": 50}))
    monkeypatch.setattr(compare.experiments, "on_record", lambda name, preset, overrides: overrides is None)
    monkeypatch.setattr(compare.experiments, "load_record", lambda *a: a)
    said = []
    assert compare.recorded(lines, say=said.append) == {"A": ("er/split-mnist", "paper", None)}
    assert len(said) == 1 and said[0].startswith("python -m clkit run er/split-mnist")


# ---- reports


def test_a_report_has_one_row_a_method_in_each_format():
    records = several()
    text, markdown, latex = (compare.report(records, format=f) for f in ("text", "markdown", "latex"))
    assert len(text.splitlines()) == 4 and len(markdown.splitlines()) == 5
    assert text.splitlines()[0].split()[:3] == ["method", "n", "average"]
    assert latex.startswith("\\begin{tabular}") and "$\\pm$" in latex and "\\%" in latex
    with pytest.raises(compare.CompareError, match="no format 'marking'"):
        compare.report(records, format="marking")


@pytest.mark.parametrize("format", ["text", "markdown", "latex"])
def test_a_report_with_printed_numbers_says_the_rule(format):
    report = compare.report({"er": [at(0.5, s) for s in range(3)]}, {"er": printed(50.0)}, format)
    assert "reproduced" in report.splitlines()[-1 if format != "latex" else -3]
    assert report.splitlines()[0].lstrip("% ") == compare.RULE.replace(
        "*", "" if format != "markdown" else "*"
    )


def test_a_report_of_a_folder_has_a_part_for_each_benchmark_and_size(monkeypatch):
    records = {
        ("split-mnist", "paper"): {
            "lwf": seeds("lwf", data="mnist", benchmark="split-mnist", preset="paper"),
            "er (memory-50)": seeds(),
        },
        ("my-birds", "own"): {"er": seeds(n=1)},
    }
    monkeypatch.setattr(compare, "records_in", lambda folder, benchmark, preset: records)
    report = compare.report_of("anywhere", format="markdown")
    assert (
        report.count("### ") == 2
        and "### split-mnist, size paper; ± is the half-width of a 95 % t-interval" in report
    )
    assert (
        compare._only("split-mnist", "static").text == "61.25"
        and compare._only("split-mnist", "naive") is None
    )
    assert "23.85" in report and "differs" in report and "my-birds" in report


def test_columns_can_average_an_accuracy_over_classes():
    results = {"er": seeds()}
    for task_mean in ("images", "classes"):
        row = compare.rows(results, columns=compare.columns(task_mean))[0]
        score = compare.score_called("average accuracy", task_mean)
        assert row["average accuracy (%)"] == compare.short(interval([score(r) for r in results["er"]]))
        assert "forgetting (points)" in row
