"""The committed records match the current code, and README.md and RESULTS.md agree with them."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from clkit import experiments
from clkit.papers import published
from clkit.result import check_summary, chosen, load
from tests.builders import generative
from tools import results

REPO_ROOT = Path(__file__).resolve().parents[2]
RECORDS = sorted((REPO_ROOT / "figures" / "results").glob("*.json"))


def row_of(stem):
    """The table row of a record."""
    seeds = load(REPO_ROOT / "figures" / "results" / stem)
    about = seeds[0].about
    plain = json.loads(
        json.dumps(dataclasses.asdict(experiments.experiment(about["experiment"], about["preset"]).config))
    )
    changed = {k: v for k, v in about["config"].items() if v != plain[k]}
    first_tasks = about.get("first_tasks")
    return experiments.experiment(
        about["experiment"], about["preset"], changed, first_tasks=first_tasks
    ), seeds


@pytest.mark.parametrize("path", RECORDS, ids=lambda p: p.stem)
def test_a_record_is_what_its_command_would_make_now(path):
    chosen, seeds = row_of(path.stem)
    experiments.check_record(chosen, seeds)
    check_summary(path, seeds)
    assert chosen.stem == path.stem
    found = sorted(r.about["seed"] for r in seeds)
    assert found in (list(chosen.seeds), list(range(len(seeds)))), "all seeds, or the first ones"


def size(path):
    return path.stat().st_size + path.with_suffix(".npz").stat().st_size


@pytest.mark.parametrize("path", RECORDS, ids=lambda p: p.stem)
def test_a_record_is_small(path):
    about = load(path)[0]
    tables = experiments.exact_experiment(about.about["experiment"], about.about["preset"]).paper.tables
    reasons = [tables[name].large for name in about.trace if tables[name].large]
    assert size(path) <= (1_000_000 if reasons else 400_000), (
        "keep fewer rows of its tables, or say why in `large`"
    )


def test_all_records_together_are_small():
    assert sum(map(size, RECORDS)) <= 25_000_000


def test_records_are_there():
    assert {p.stem for p in RECORDS} >= {f"{m}_split-mnist_paper" for m in ("finetune", "joint", "lwf", "er")}


@pytest.mark.parametrize("path", results.PAGES, ids=lambda p: p.stem)
def test_the_pages_say_what_the_records_say(path):
    text = path.read_text(encoding="utf-8")
    assert results.BLOCK.search(text)
    assert results.page(path) == text, "regenerate the tables: python -m tools.results"


def test_every_table_stands_on_one_page():
    names = [m[2] for path in results.PAGES for m in results.BLOCK.finditer(path.read_text(encoding="utf-8"))]
    assert sorted(names) == sorted([*results.TABLES, "rule"])


@pytest.mark.parametrize("name", ["dgm", "split-mnist-10"])
def test_a_table_has_both_epochs_and_the_judge_in_columns_of_their_own(name, monkeypatch):
    found = {
        method: [generative(method, seed, sizes=(1,) * 10) for seed in (0, 1)]
        for method in ("dgmw", "mergan")
    }
    monkeypatch.setattr(
        experiments, "load_record", lambda experiment, *_, **__: found[experiment.partition("/")[0]]
    )
    rows = [row for row in results.TABLES[name].rows if row[1][0].experiment.partition("/")[0] in found]
    columns = [c for c in results.TABLES[name].columns if c[1] != "record"]
    lines = results.markdown(
        dataclasses.replace(results.TABLES[name], columns=columns, rows=rows)
    ).splitlines()
    titles = lines[0].strip("| ").split(" | ")
    scores = {
        "after 5 classes": lambda r: r.averages()[4],
        "after 10 classes": lambda r: r.average(),
        "after 5, epoch best on validation": lambda r: chosen(r)[4][1],
        "after 10, epoch best on validation": lambda r: chosen(r)[9][1],
        "generated images, judged": lambda r: r.trace["generated"]["accuracy"][-1].mean(),
    }
    assert set(scores) - set(titles) == ({"after 5, epoch best on validation"} if name == "dgm" else set())
    for line, (_, (run,)) in zip(lines[2:], rows, strict=True):
        cells, seeds = (
            dict(zip(titles, line.strip("| ").split(" | "))),
            found[run.experiment.partition("/")[0]],
        )
        shown = {title: scores[title] for title in scores if title in cells}
        wanted = {t: f"{100 * np.mean([score(r) for r in seeds]):.2f}" for t, score in shown.items()}
        assert {t: cells[t].partition(" ")[0] for t in shown} == wanted
        assert len(set(wanted.values())) == len(wanted)


def test_the_pages_quote_what_was_published():
    text = (REPO_ROOT / "RESULTS.md").read_text(encoding="utf-8")
    lwf = published.one(
        paper="spacenet", table="Table 2", benchmark="split-mnist", method="lwf", metric="average accuracy"
    )
    assert f"| {lwf.text} ({lwf.place}) |" in text
