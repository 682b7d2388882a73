"""The committed records belong to the code as it stands, and the README says what they say."""

import dataclasses
import json
import re
from pathlib import Path

import pytest

from clkit import presets, published
from clkit.result import interval, load

HOUSE = Path(__file__).resolve().parents[1]
RECORDS = sorted((HOUSE / "figures" / "results").glob("*.json"))
ROW = re.compile(r"^\| .*\(figures/results/([\w.-]+)\.json\).*\|$", re.MULTILINE)


def row_of(stem):
    """The table's row that a record belongs to."""
    results = load(HOUSE / "figures" / "results" / stem)
    about = results[0].about
    plain = json.loads(json.dumps(dataclasses.asdict(
        presets.experiment(about["experiment"], about["preset"]).config)))
    changed = {k: v for k, v in about["config"].items() if v != plain[k]}
    return presets.experiment(about["experiment"], about["preset"], changed), results


@pytest.mark.parametrize("path", RECORDS, ids=lambda p: p.stem)
def test_a_record_is_what_its_command_would_make_now(path):
    chosen, results = row_of(path.stem)
    presets.check_record(chosen, results)
    assert chosen.stem == path.stem
    assert sorted(r.about["seed"] for r in results) == list(chosen.seeds)
    assert path.stat().st_size + path.with_suffix(".npz").stat().st_size < 1_500_000


def test_records_are_there():
    assert {p.stem for p in RECORDS} >= {f"{m}_split-mnist_paper" for m in ("finetune", "joint", "lwf", "er")}


def test_the_readme_says_what_the_records_say():
    rows = list(ROW.finditer((HOUSE / "README.md").read_text(encoding="utf-8")))
    assert len(rows) >= 4
    for row in rows:
        cells = [c.strip() for c in row.group(0).strip("|").split("|")]
        results = load(HOUSE / "figures" / "results" / row.group(1))
        ours, aware = (interval(v) for v in ([r.average() for r in results],
                                             [r.within_average() for r in results]))
        for i in (ours, aware):                         # a single seed has no interval
            said = f"{100 * i.mean:.2f}" + (f" ± {100 * i.half:.2f}" if i.n > 1 else "")
            assert said in cells, row.group(0)
        assert str(ours.n) in cells


def test_the_readme_quotes_what_was_published():
    text = (HOUSE / "README.md").read_text(encoding="utf-8")
    lwf = published.one(paper="spacenet", table="Table 2", benchmark="split-mnist", method="lwf",
                        metric="average accuracy")
    assert f"| {lwf.text} ({lwf.place}) |" in text
