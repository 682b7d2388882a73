"""The helpers that figures share: the size that a figure shows."""

import pytest

from clkit.figures import picture

ROWS = [(m, f"{m}/split-digits", None) for m in ("finetune", "ewc", "lwf")]


@pytest.mark.parametrize(
    "there, shown, size",
    [
        ({"paper": 1, "laptop": 3, "teach": 2}, 3, "laptop"),  # the most rows, even if a larger size has some
        ({"paper": 2, "laptop": 2, "teach": 2}, 2, "paper"),  # as many: the earlier size
        ({"paper": 0, "laptop": 0, "teach": 1}, 1, "teach"),
    ],
)
def test_a_figure_shows_the_size_with_most_rows(monkeypatch, there, shown, size):
    def on_record(name, overrides=None, preset="paper"):
        return [row[1] for row in ROWS].index(name) < there[preset]

    monkeypatch.setattr(picture, "on_record", on_record)
    monkeypatch.setattr(picture, "labelled_records", lambda rows, preset: ({}, {row[0]: [] for row in rows}))
    _, groups, found = picture.available(ROWS, tuple(there))
    assert (list(groups), found) == ([row[0] for row in ROWS[:shown]], size)


def test_without_records_there_is_no_size(monkeypatch):
    monkeypatch.setattr(picture, "on_record", lambda *_, **__: False)
    assert picture.available(ROWS, ("paper", "laptop")) == ({}, {}, None)
    assert picture.available([("no", "no/such", None)], ("paper",)) == ({}, {}, None)
