"""Methods that train their first task alike: one of each family trains it, and the others take it."""

import dataclasses
from types import SimpleNamespace
from typing import Literal, get_args, get_origin, get_type_hints

import pytest

from clkit import experiments
from clkit.engine.learner import LearnerError
from clkit.engine.run import run
from clkit.engine.seeding import seed_everything
from clkit.engine.shared import Shared, SharedLoop, _digest, _parted
from clkit.engine.trace import Trace
from clkit.methods import FAMILIES, LEARNERS
from tests.fakes import small_stream
from tests.soak import compare

GROUPS = (
    [method for method, learner in FAMILIES["gfr.gfr"].items() if learner == "GFR"],
    [*FAMILIES["baselines.fetril"], *FAMILIES["baselines.fecam"]],
    [*FAMILIES["baselines.lucir"]],
    [*FAMILIES["baselines.icarl_ce"]],
    [*FAMILIES["baselines.heads"]],
)
TAKERS = [(group[0], method) for group in GROUPS for method in group[1:]]
CLASSES = {LEARNERS[method]: method for group in GROUPS for method in reversed(group)}


def stream():
    return small_stream(classes=4, per_class=12, side=8, sizes=(2, 1, 1))


def config_of(method):
    return dataclasses.replace(experiments.experiment(f"{method}/split-shapes", "smoke").config, batch_size=8)


def go(method, folder, shared):
    about, options = {"experiment": f"{method}/blobs"}, {"record": "*", "threads": 1, "progress": False}
    made = LEARNERS[method], config_of(method), stream()
    return run(*made, seed=3, folder=folder, shared=shared, every=1e9, about=about, **options)[1]


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    """A folder of shared loops in which the first of each group has run."""
    folder = tmp_path_factory.mktemp("shared")
    for group in GROUPS:
        go(group[0], folder / group[0], folder / "loops")
    return folder / "loops"


@pytest.mark.parametrize("maker, taker", TAKERS)
def test_a_first_task_that_is_taken_gives_what_training_it_gives(tmp_path, monkeypatch, shared, maker, taker):
    rounds, boundary = [], Trace._boundary

    def counted(trace, phase, *rest):
        rounds.append((trace.task, phase))
        boundary(trace, phase, *rest)

    monkeypatch.setattr(Trace, "_boundary", counted)
    go(taker, tmp_path / "alone", None)
    phase = rounds[0]
    assert phase[0] == 0 and rounds.count(phase) == config_of(taker).epochs
    before = rounds.count(phase)
    taken = go(taker, tmp_path / "taken", shared)
    assert rounds.count(phase) == before, "not one epoch of it"
    compare(tmp_path / "alone", tmp_path / "taken")
    assert [(entry["task"], entry["from"]) for entry in taken.about["shared"]] == [
        (0, f"{maker}/blobs, seed 3")
    ]


# ---- settings that are set apart


class EnoughError(Exception):
    """The end of the first task's loop: its key and all that is shared of it."""


def end_of_first_task(cls, config):
    """(key, digest of the end) of the shared loop of the first task; the settings that it sets apart."""
    home, apart, task = Shared("nowhere", {}, {}), [], stream()[0]
    loop = home.loop
    home.loop = lambda *given: apart.append(given[5]) or loop(*given)
    seed_everything(3, 0)
    learner = cls(config, (1, 8, 8), 4)
    clock = SimpleNamespace(state_dict=lambda: {"learn_seconds": 0.0, "n_samples": 0})
    trace = Trace("*", save=lambda state: None, every=1e9, shared=home, progress=False)
    trace.begin(learner, 0, clock=clock)
    seed_everything(3, 1)
    learner.train()
    with pytest.raises(EnoughError) as caught:
        learner.learn(task, trace)
    return caught.value.args, apart[0].split()


def others(kind, value):
    """Other values of a setting."""
    if get_origin(kind) is Literal:
        return [v for v in get_args(kind) if v != value]
    if kind is bool:
        return [not value]
    return [value / 2 + 0.1] if isinstance(value, float) else [(value or 6) + 1]


@pytest.mark.parametrize("cls", CLASSES, ids=CLASSES.values())
def test_what_is_set_apart_has_no_effect(monkeypatch, cls):
    """Each other value of each such setting leads to the same beginning, and to the same end bit for bit."""

    def caught(self, end, rows):
        part = _parted(end["learner"], self.at)[0]
        raise EnoughError(self.key, _digest([part, end["objects"], end["random"], rows]))

    monkeypatch.setattr(SharedLoop, "store", caught)
    base = config_of(CLASSES[cls])
    expected, apart = end_of_first_task(cls, base)
    kinds = get_type_hints(type(base))
    assert set(apart) < kinds.keys() and "epochs" not in apart
    for name in apart:
        tried = 0
        for value in others(kinds[name], getattr(base, name)):
            try:
                config = dataclasses.replace(base, **{name: value})
            except LearnerError:  # it does not fit the others
                continue
            assert end_of_first_task(cls, config)[0] == expected, (name, value)
            tried += 1
        assert tried, name
    for name, value in {"epochs": base.epochs + 1, "lr": base.lr / 2, "augment": "none"}.items():
        changed = end_of_first_task(cls, dataclasses.replace(base, **{name: value}))[0]
        assert changed[0] != expected[0] and changed[1] != expected[1], name
