"""The contract of a method, tested for all of them at the smoke preset. A new method is covered through its
line in the registry of methods.

On a machine with a GPU, ``CLKIT_DEVICE=cuda make test`` runs the same tests there.
"""

import contextlib
import dataclasses
import os
import typing

import numpy as np
import pytest
import torch

from clkit import experiments
from clkit.engine.run import run
from clkit.engine.seeding import seed_everything
from clkit.engine.trace import Trace
from clkit.errors import ClkitError
from clkit.experiments.benchmark import _stream
from clkit.methods import LEARNERS
from tests import golden
from tests.fakes import small_stream
from tests.modes import DeviceFactories
from tests.soak import LOOPS, smallest

DEVICE = os.environ.get("CLKIT_DEVICE", "cpu")
EXACT = {"rtol": 0, "atol": 0} if DEVICE == "cpu" else {"rtol": 1e-3, "atol": 1e-3}


def stream_of(experiment):
    """A separate stream for a test that writes into it."""
    _stream.cache_clear()
    stream = experiments.stream(experiment.benchmark, "smoke")
    _stream.cache_clear()
    return stream


@pytest.fixture(scope="module", params=LEARNERS)
def experiment(request):
    return experiments.experiment(smallest(request.param), "smoke")


def go(experiment, stream=None, learner=None, seed=0, **options):
    options = {"device": DEVICE, "threads": 1, "progress": False, **options}
    return run(
        learner or experiment.learner,
        experiment.config,
        stream or stream_of(experiment),
        seed=seed,
        **options,
    )


@pytest.fixture(scope="module")
def once(experiment):
    """One run of each method, with all tables, shared by the tests that only read it."""
    learner, result = go(experiment, record="*")
    return learner, result


@pytest.fixture(scope="module")
def silent(experiment):
    """(result, kept) of the same run without tables; kept: whether it left its stream as it was."""
    stream = stream_of(experiment)
    before = [(t.train.images.clone(), t.train.labels.clone()) for t in stream], stream.test.images.clone()
    result = go(experiment, stream)[1]
    after = [(t.train.images, t.train.labels) for t in stream]
    kept = all(torch.equal(a, b) and torch.equal(c, d) for (a, c), (b, d) in zip(before[0], after))
    return result, kept and torch.equal(before[1], stream.test.images)


@pytest.fixture(scope="module")
def other(experiment):
    """(result, faults) of a run with another seed; faults: tensors that were made without their device."""
    with DeviceFactories() as mode:
        result = go(experiment, seed=1)[1]
    return result, mode.found


def same(a, b):
    """Whether two results hold the same predictions (exact on a CPU)."""
    if DEVICE == "cpu":
        return (
            np.array_equal(a.predictions, b.predictions)
            and np.array_equal(a.predictions_task_aware, b.predictions_task_aware)
            and np.array_equal(a.rank, b.rank)
        )
    return np.mean(a.predictions == b.predictions) > 0.95


def test_a_seed_gives_the_same_predictions_and_another_seed_others(once, silent, other):
    assert same(silent[0], once[1])
    assert not np.array_equal(other[0].rank, once[1].rank)


def test_recording_and_looking_do_not_disturb(experiment, once, silent):
    """Probes are called by the training loop, so one method of each loop has them."""
    assert same(silent[0], once[1])
    if experiment.name.partition("/")[0] not in LOOPS:
        return
    probes = {
        "*": {
            "shaken": lambda m: (torch.rand(3, device=DEVICE), m(torch.rand(2, *m.shape, device=DEVICE)))[
                1
            ].sum()
        }
    }
    watched = go(experiment, record="*", probes=probes)[1]
    assert same(silent[0], watched)
    assert all("shaken" in columns for columns in watched.trace.values())


def test_only_documented_tables_are_reported(experiment, once):
    tables = experiment.learner.tables
    assert once[1].trace.keys() == tables.keys(), "every documented table is reported, and no other"
    for table, columns in once[1].trace.items():
        for column in columns.keys() - {"task"}:
            assert column in tables[table], (
                f"{table}.{column} is not in the learner's description of its tables"
            )
        assert {len(rows) for rows in columns.values()} == {len(columns["task"])}


def test_scores_cover_the_classes_seen_and_are_finite(experiment, once):
    learner, result = once
    x = torch.rand(5, *learner.shape, device=DEVICE)
    with torch.no_grad():
        scores = learner.eval()(x)
    assert scores.shape[0] == 5 and scores.shape[1] >= result.seen[-1] and scores.isfinite().all()


def test_a_restored_learner_predicts_the_same(experiment, once):
    learner, _ = once
    seed_everything(99)
    twin = experiment.learner(experiment.config, learner.shape, learner.classes).to(DEVICE)
    x = torch.rand(7, *learner.shape, device=DEVICE)
    state = learner.snapshot()
    twin.restore(state)
    with torch.no_grad():
        torch.testing.assert_close(twin.eval()(x), learner.eval()(x), **EXACT)
    learner.train()
    again = twin.snapshot()
    for kind in ("parameters", "buffers"):
        assert all(torch.equal(state[kind][k], again[kind][k]) for k in state[kind])


def test_the_stream_is_not_written_to(silent):
    assert silent[1]


def test_no_old_data_is_needed(experiment, once):
    """Blackening a task's images after the task changes no result: a method that needs them keeps copies."""

    class Forgetful(experiment.learner):
        def learn(self, task, trace):
            super().learn(task, trace)
            task.train.images.zero_()
            task.train.labels.zero_()

    result = go(experiment, learner=Forgetful)[1]
    assert same(result, once[1]), "the learner reached for images of a task that was over"


def test_methods_that_keep_images_say_so(experiment, once):
    """Bytes of kind "exemplars" and stores_images belong together; joint training keeps none but sees all at
    once."""
    learner, result = once
    assert bool(result.memory_bytes.get("exemplars", np.zeros(1))[-1]) == (
        learner.stores_images and not learner.joint
    )
    assert not learner.joint or learner.stores_images


def test_kept_bytes_are_those_of_the_state(experiment, once):
    learner, result = once
    state = learner.snapshot()
    whole = sum(
        t.numel() * t.element_size() for kind in ("parameters", "buffers") for t in state[kind].values()
    )
    assert sum(learner.memory_bytes().values()) == whole
    assert (result.n_samples > 0).all(), "images drawn are counted, for samples per second"
    assert {k: int(v[-1]) for k, v in result.memory_bytes.items()} == learner.memory_bytes()


def test_tensors_are_made_on_the_right_device(other):
    """clkit names the device of every tensor that it makes, so a CPU shows what would fail on a GPU."""
    assert other[1] == []


def test_the_constructor_only_builds(experiment, once, capsys):
    """Same random state, same weights; the config is kept as given; nothing is printed; a plain Trace is
    enough."""
    shape, classes = once[0].shape, once[0].classes
    seed_everything(1)
    a = experiment.learner(experiment.config, shape, classes)
    seed_everything(1)
    b = experiment.learner(experiment.config, shape, classes)
    assert a.config is experiment.config and capsys.readouterr() == ("", "")
    assert all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values()))
    stream = stream_of(experiment)
    stream = stream.merged() if experiment.learner.joint else stream
    a.learn(stream[0], Trace())
    assert any(not torch.equal(x, y) for x, y in zip(a.parameters(), b.parameters()))


def test_the_config_is_frozen_and_documented(experiment):
    config = experiment.config
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.epochs = 0
    assert type(config)() == type(config)(), "defaults are complete"


WRONG = {"epochs": 0, "batch_size": 0, "lr": 0.0, "net": "lenet"}


def fields_of(name):
    """Names and types of the fields of a method's Config."""
    return typing.get_type_hints(experiments.config_class(LEARNERS[name])).items()


def settings_of(name):
    """Fields of a method's Config that are in WRONG; a method may have networks of its own only."""
    return [field for field, _ in fields_of(name) if field in WRONG]


@pytest.mark.parametrize("name, setting", [(name, s) for name in LEARNERS for s in settings_of(name)])
def test_settings_that_cannot_work_are_refused(name, setting):
    wrong = {setting: WRONG[setting]}
    found = experiments.experiment(smallest(name), "smoke")
    with pytest.raises(ClkitError) as error:
        found.learner(experiments.config_class(found.learner)(**{**found.row, **wrong}), (1, 8, 8), 4)
    assert next(iter(wrong)) in str(error.value) or "network" in str(error.value)


@pytest.mark.parametrize("name", [n for n in LOOPS if {("net", str), ("batch_size", int)} <= fields_of(n)])
def test_a_last_batch_of_one_image_joins_the_batch_before(name):
    """A residual network reduces 8x8 pixels to one, and batch normalisation cannot learn from one number."""
    found = experiments.experiment(smallest(name), "smoke")
    stream = small_stream(classes=4, sizes=(2, 2), per_class=5, side=8)
    images = 20 if found.learner.joint else 10
    slow = {field: 1e-4 for field, _ in fields_of(name) if field in ("lr", "base_lr")}  # some would diverge
    for size, fits in (((images - 1) // 3, True), (1, False)):
        changed = {"net": "resnet10", "batch_size": size, **slow}
        config = dataclasses.replace(found.config, **changed)
        with (
            contextlib.nullcontext() if fits else pytest.raises(ClkitError, match="batches of 1: use batches")
        ):
            run(found.learner, config, stream, threads=1, progress=False)


def test_a_seed_gives_what_it_always_gave(experiment, once):
    """The digests in tests/golden, without the tables of probes and studies."""
    kept = golden.read("smoke")
    row = kept["results"].get(experiment.name)
    same = row is not None and golden.same_machine(kept, row)
    differing = golden.differences(row, once[1], same) if row else []
    now = golden.digests(once[1])
    assert [name for name in differing if not same or name in now] == []


def test_every_method_of_the_book_has_golden_digests():
    assert set(golden.read("smoke")["results"]) <= set(experiments.names())
    assert len({name.partition("/")[0] for name in golden.read("smoke")["results"]}) >= 28
