"""Probes of recalled features, on a learner whose features are known; drift by hand."""

import math

import numpy as np
import torch
from torch import nn

from clkit.analysis import features
from clkit.engine.learner import Learner
from clkit.engine.run import run
from clkit.engine.seeding import random_state
from clkit.engine.trace import Trace
from tests.builders import made
from tests.fakes import Config, small_stream


class Known(Learner):
    """Features are the first three pixels; classes 0 and 1 are recalled as constants, or as maps."""

    tables = {"features": "labels, real, generated, means, recognised, future, from a probe"}

    def __init__(self, config, shape, classes):
        super().__init__(config, shape, classes)
        self.weight = nn.Parameter(torch.eye(classes, 3))
        self.register_buffer("seen", torch.zeros((), dtype=torch.int64))
        self.register_buffer("known", torch.zeros((), dtype=torch.int64))
        self.maps = False

    def learn(self, task, trace):
        self.seen.fill_(task.seen)
        self.known.fill_(min(task.seen, 2))
        next(iter(task.train.batches(4)))
        trace("features")

    def features(self, x):
        u = x.flatten(1)[:, :3]
        return u[:, :, None, None].expand(-1, -1, 2, 2) if self.maps else u

    def after(self, u):
        return features.pooled(u) @ self.weight.T

    def recall(self, n, label=None):
        torch.rand(1)
        u = torch.eye(3)[[label]].expand(n, 3)
        return u[:, :, None, None].expand(-1, -1, 2, 2) if self.maps else u, torch.full((n,), label)

    def forward(self, x):
        return self.after(self.features(x))


def learner_of(seen, known=2):
    learner = Known(None, (1, 6, 6), 4)
    learner.seen.fill_(seen)
    learner.known.fill_(known)
    return learner


def test_columns_by_hand():
    stream = small_stream(classes=4, sizes=(2, 1, 1))
    found = {name: column(learner_of(3)) for name, column in features.columns(stream, 6).items()}
    pixels, y = stream.test.images.flatten(1)[:, :3] / 255, stream.test.labels
    first = torch.cat(
        [(y == k).nonzero()[:6, 0] for k in range(3)]
    )  # six of the eight test images of a class
    assert torch.equal(found["labels"], y[first])
    torch.testing.assert_close(found["real"].float(), pixels[first], atol=1e-3, rtol=0)
    assert found["generated"].tolist() == [[1, 0, 0]] * 6 + [[0, 1, 0]] * 6, "class 2 is not recalled"
    for k in range(3):
        wanted = pixels[first][y[first] == k].mean(0)
        torch.testing.assert_close(found["means"][k].float(), wanted, atol=1e-3, rtol=0)
    assert found["means"].shape == (4, 3) and found["means"][3].isnan().all()
    np.testing.assert_array_equal(found["recognised"], [1, 1, math.nan, math.nan])
    assert found["future"] == 0, "scores of class 3 are 0"
    wrong = learner_of(3)
    wrong.weight.data = torch.tensor([[0.0, 1, 0], [0, 1, 0], [0, 0, 1], [9, 9, 9]])
    found = {name: column(wrong) for name, column in features.columns(stream, 6).items()}
    np.testing.assert_array_equal(
        found["recognised"], [1, 0, math.nan, math.nan]
    )  # the first of equal scores
    assert found["future"] == 1


def test_maps_are_averaged_and_no_memory_has_no_rows():
    stream, learner = small_stream(classes=4, sizes=(2, 1, 1)), learner_of(2)
    plain = {name: column(learner) for name, column in features.columns(stream, 6).items()}
    learner.maps = True
    maps = {name: column(learner) for name, column in features.columns(stream, 6).items()}
    assert all(torch.equal(plain[k].nan_to_num(), maps[k].nan_to_num()) for k in plain)
    learner.known.zero_()
    found = features.columns(stream, 6)
    assert found["generated"](learner).numel() == 0 and found["recognised"](learner).isnan().all()


def test_looking_leaves_the_random_state_and_its_draws_are_always_the_same():
    stream, learner = small_stream(classes=4, sizes=(2, 1, 1)), learner_of(3)
    before = random_state()["torch"]
    for column in features.columns(stream, 6).values():
        column(learner)
    assert torch.equal(random_state()["torch"], before)


def test_a_run_has_the_table():
    stream = small_stream(classes=4, sizes=(2, 1, 1))
    _, result = run(
        Known, Config(), stream, probes={"features": features.columns(stream, 6)}, threads=1, progress=False
    )
    rows = result.trace["features"]
    assert rows["means"].shape == (3, 4, 3) and [len(r) for r in rows["labels"]] == [12, 18, 24]
    cosines = features.drift(result)
    assert cosines.shape == (3, 4) and np.isnan(cosines[0]).tolist() == [False, False, True, True]
    np.testing.assert_allclose(cosines[~np.isnan(cosines)], 1, rtol=1e-6)
    assert Trace(probes={"features": {}}).wants("features")


def test_drift_by_hand():
    result = made(sizes=(1, 1))
    nothing = [np.nan, np.nan]
    result.trace["features"] = {
        "task": np.arange(2),
        "means": np.array([[[3.0, 0.0], nothing], [[3.0, 4.0], [1.0, 1.0]]]),
    }
    np.testing.assert_allclose(features.drift(result), [[1, np.nan], [0.6, 1]])
