"""What every method promises, tested on all of them at the smoke preset. A new method is covered by its entry
in METHODS.

On a machine with a GPU, ``CLKIT_DEVICE=cuda make test`` runs the same tests there.
"""

import dataclasses
import os

import numpy as np
import pytest
import torch

from clkit import presets
from clkit.methods import METHODS
from clkit.run import run
from clkit.trace import Trace, seed_everything
from tests.modes import DeviceFactories
from tests.soak import smallest

DEVICE = os.environ.get("CLKIT_DEVICE", "cpu")
EXACT = dict(rtol=0, atol=0) if DEVICE == "cpu" else dict(rtol=1e-3, atol=1e-3)


def stream_of(chosen):
    """A stream of its own for a test that writes into it."""
    presets._stream.cache_clear()
    stream = presets.stream(chosen.benchmark, "smoke")
    presets._stream.cache_clear()
    return stream


@pytest.fixture(scope="module", params=METHODS)
def chosen(request):
    return presets.experiment(smallest(request.param), "smoke")


def go(chosen, stream=None, learner=None, seed=5, **options):
    options = {"device": DEVICE, "threads": 1, "progress": False, **options}
    return run(learner or chosen.learner, chosen.config, stream or stream_of(chosen), seed=seed, **options)


@pytest.fixture(scope="module")
def once(chosen):
    """One run of each method, shared by the tests that only look at it."""
    learner, result = go(chosen, keep="*")
    return learner, result


def same(a, b):
    """Whether two results hold the same predictions (exact on a CPU)."""
    if DEVICE == "cpu":
        return (
            np.array_equal(a.predictions, b.predictions)
            and np.array_equal(a.within, b.within)
            and np.array_equal(a.rank, b.rank)
        )
    return np.mean(a.predictions == b.predictions) > 0.95


def test_a_seed_gives_the_same_predictions_and_another_seed_others(chosen, once):
    assert same(go(chosen)[1], once[1])
    assert not np.array_equal(go(chosen, seed=6)[1].rank, once[1].rank)


def test_recording_and_looking_do_not_disturb(chosen, once):
    silent = go(chosen)[1]
    probes = {
        "*": {
            "shaken": lambda m: (torch.rand(3, device=DEVICE), m(torch.rand(2, *m.shape, device=DEVICE)))[
                1
            ].sum()
        }
    }
    watched = go(chosen, keep="*", probes=probes)[1]
    assert same(silent, watched) and same(silent, once[1])
    assert all("shaken" in columns for columns in watched.trace.values())


def test_only_documented_tables_are_reported(chosen, once):
    tables = chosen.learner.tables
    assert once[1].trace.keys() == tables.keys(), "every documented table is reported, and no other"
    for table, columns in once[1].trace.items():
        for column in columns.keys() - {"task"}:
            assert column in tables[table], (
                f"{table}.{column} is not in the learner's description of its tables"
            )
        assert {len(rows) for rows in columns.values()} == {len(columns["task"])}


def test_scores_cover_the_classes_seen_and_are_finite(chosen, once):
    learner, result = once
    x = torch.rand(5, *learner.shape, device=DEVICE)
    with torch.no_grad():
        scores = learner.eval()(x)
    assert scores.shape[0] == 5 and scores.shape[1] >= result.seen[-1] and scores.isfinite().all()


def test_a_restored_learner_predicts_the_same(chosen, once):
    learner, _ = once
    seed_everything(99)
    twin = chosen.learner(chosen.config, learner.shape, learner.classes).to(DEVICE)
    x = torch.rand(7, *learner.shape, device=DEVICE)
    state = learner.snapshot()
    twin.restore(state)
    with torch.no_grad():
        torch.testing.assert_close(twin.eval()(x), learner.eval()(x), **EXACT)
    learner.train()
    again = twin.snapshot()
    for kind in ("parameters", "buffers"):
        assert all(torch.equal(state[kind][k], again[kind][k]) for k in state[kind])


def test_the_stream_is_not_written_to(chosen):
    stream = stream_of(chosen)
    before = [(t.train.images.clone(), t.train.labels.clone()) for t in stream], stream.test.images.clone()
    go(chosen, stream)
    after = [(t.train.images, t.train.labels) for t in stream]
    assert all(torch.equal(a, b) and torch.equal(c, d) for (a, c), (b, d) in zip(before[0], after))
    assert torch.equal(before[1], stream.test.images)


def test_no_old_data_is_needed(chosen, once):
    """A task's images are blackened once its turn is over. A method that keeps images must say so, and is not
    held to it."""
    class Forgetful(chosen.learner):
        def learn(self, task, trace):
            super().learn(task, trace)
            task.train.images.zero_()
            task.train.labels.zero_()

    result = go(chosen, learner=Forgetful)[1]
    assert same(result, once[1]), "the learner reached for images of a task that was over"


def test_who_keeps_images_says_so(chosen, once):
    """Bytes of kind "exemplars" and keeps_data belong together; joint training keeps none but sees all at
    once."""
    learner, result = once
    assert bool(result.kept.get("exemplars", np.zeros(1))[-1]) == (learner.keeps_data and not learner.joint)
    assert not learner.joint or learner.keeps_data


def test_kept_bytes_are_those_of_the_state(chosen, once):
    learner, result = once
    state = learner.snapshot()
    whole = sum(
        t.numel() * t.element_size() for kind in ("parameters", "buffers") for t in state[kind].values()
    )
    assert sum(learner.kept().values()) == whole
    assert (result.drawn > 0).all(), "images drawn are counted, for samples per second"
    assert {k: int(v[-1]) for k, v in result.kept.items()} == learner.kept()


def test_tensors_are_made_on_the_right_device(chosen):
    """Every tensor that clkit makes says on which device, which shows on a CPU what would fail on a GPU."""
    with DeviceFactories() as mode:
        go(chosen)
    assert mode.found == []


def test_the_constructor_only_builds(chosen, once, capsys):
    """Same random state, same weights; the config is kept as given; nothing is printed; a plain Trace is
    enough."""
    shape, classes = once[0].shape, once[0].classes
    seed_everything(1)
    a = chosen.learner(chosen.config, shape, classes)
    seed_everything(1)
    b = chosen.learner(chosen.config, shape, classes)
    assert a.config is chosen.config and capsys.readouterr() == ("", "")
    assert all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values()))
    stream = stream_of(chosen)
    stream = stream.merged() if chosen.learner.joint else stream
    a.learn(stream[0], Trace())
    assert any(not torch.equal(x, y) for x, y in zip(a.parameters(), b.parameters()))


def test_the_config_is_frozen_and_documented(chosen):
    config = chosen.config
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.epochs = 0
    assert type(config)() == type(config)(), "defaults are complete"


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("wrong", [{"epochs": 0}, {"batch": 0}, {"lr": 0.0}, {"net": "lenet"}])
def test_settings_that_cannot_work_are_refused(name, wrong):
    method = METHODS[name]
    with pytest.raises(ValueError) as error:
        method.learner(method.config(**{**method.settings, **wrong}), (1, 8, 8), 4)
    assert next(iter(wrong)) in str(error.value) or "network" in str(error.value)
