"""Accuracy by epoch on validation and test images."""

import numpy as np
import pytest
import torch
from torch import nn

from clkit.analysis import validation
from clkit.engine.run import run
from clkit.experiments import experiment
from clkit.result import chosen
from tests.fakes import small_stream


@pytest.fixture(scope="module")
def stream():
    return small_stream(classes=4, per_class=20, side=16, sizes=(1, 2, 1), val=0.25)


class Fixed(nn.Module):
    """A learner that gives every image the same logits."""

    def __init__(self, *logits):
        super().__init__()
        self.logits = torch.tensor(logits)

    def forward(self, x):
        return self.logits.expand(len(x), -1)


def test_each_task_is_scored_among_the_classes_seen(stream):
    columns = validation.columns(stream, 2)
    for name in ("validation", "test"):
        assert columns[name](Fixed(1.0)).nan_to_num(-1).tolist() == [1, -1, -1]
        assert columns[name](Fixed(0.0, 1.0, 0.5)).nan_to_num(-1).tolist() == [0, 0.5, -1]
        assert columns[name](Fixed(0.0, 1.0, 0.5, 2.0)).tolist() == [0, 0, 1]
    scored = [images for images, _ in (column.args for column in columns.values())]
    assert [len(images) for images in scored] == [2 * 4, len(stream.test)]  # of 5 a class that are held out


@pytest.mark.parametrize("method", ["dgmw", "dgr-gan", "mergan", "ewc-m", "joint-d"])
def test_the_last_epoch_has_the_accuracy_of_the_run(stream, method):
    found = experiment(f"{method}/split-mnist-10", "smoke", {"epochs": 2, "batch_size": 8})
    assert found.known_tables["progress"].probe == "accuracy_by_epoch"
    probes = {"progress": validation.columns(stream, 5)}
    _, result = run(found.learner, found.config, stream, probes=probes, progress=False)
    last = result.trace["progress"]["test"][1::2]  # (T, T)
    np.testing.assert_allclose(last, result.accuracy(), rtol=1e-6)
    assert [epoch in (0, 1) for epoch, _ in chosen(result)] == [True] * 3
