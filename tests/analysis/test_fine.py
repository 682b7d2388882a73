"""The fine-grained report against answers that are written by hand."""

import math

import numpy as np
import pytest
import torch

from clkit.analysis import fine
from clkit.data import ImageSet
from clkit.data.stream import Stream
from clkit.engine.run import run
from clkit.methods.baselines.oracle import Config, FinetuneSGD

NAN = math.nan
# Two old classes, two new ones, one to come; each row of logits is what the learner says to one image.
LOGITS = [
    [5.0, 0, 1, 0],  # class 0, right
    [2.0, 0, 9, 0],  # class 0, outshouted by class 2
    [3.0, 1, 0, 0],  # class 1, forgotten: taken for class 0
    [0.0, 2, 0, 7],  # class 1, outshouted by class 3
    [0.0, 0, 4, 1],  # class 2, right
    [9.0, 0, 1, 2],  # class 2, taken for an old class, and for class 3 among the new ones
    [0.0, 0, 0, 3],  # class 3, right
    [0.0, 0, 0, 3],  # class 3, right
    [2.0, 0, 0, 0],  # class 4, to come
    [0.0, 2, 0, 0],
]
LABELS = torch.arange(5).repeat_interleave(2)


class Scripted(torch.nn.Module):
    """Answers the images, which hold their own number, from a list."""

    def forward(self, x):
        return torch.tensor(LOGITS)[(x[:, 0, 0, 0] * 255).round().long()]


def pictures():
    images = torch.arange(10, dtype=torch.uint8).view(10, 1, 1, 1)
    return ImageSet(images, LABELS, "abcde", name="made")


def test_forgotten_and_outshouted_are_told_apart():
    found = fine.report(Scripted(), pictures(), 2, 4)
    torch.testing.assert_close(found["accuracy"], torch.tensor([0.5, 0, 0.5, 1, NAN]), equal_nan=True)
    torch.testing.assert_close(found["within"], torch.tensor([1.0, 0.5, 0.5, 1, NAN]), equal_nan=True)
    assert (found["old_to_new"], found["new_to_old"]) == (0.5, 0.25)
    assert found["projected"].isnan().all() and found["apart"].isnan().all()


def test_images_of_the_next_task_are_projected_on_all_classes():
    found = fine.report(Scripted(), pictures(), 2, 4, upcoming=5)
    p = torch.tensor(LOGITS[8:]).softmax(1)
    torch.testing.assert_close(found["projected"][:4], p.mean(0))
    assert found["projected"][4].isnan()
    apart = found["apart"][:4, :4]
    assert apart[0, 1] == pytest.approx(float((p[:, 0] - p[:, 1]).abs().mean()))
    assert torch.equal(apart, apart.T) and not apart.diagonal().any()
    assert p.mean(0)[0] == p.mean(0)[1] and apart[0, 1] > 0.5, "the means alone hide it"
    assert fine.report(Scripted(), pictures(), 2, 4, upcoming=4)["projected"].isnan().all()


def test_in_the_first_task_there_is_no_old_class():
    found = fine.report(Scripted(), pictures(), 0, 4)
    assert torch.equal(found["accuracy"].nan_to_num(9), found["within"].nan_to_num(9))
    assert math.isnan(found["old_to_new"]) and math.isnan(found["new_to_old"])


def test_groups_follow_one_another():
    values = np.array([0.0, 1.0, 0.5, 0.7, 9.0])
    assert fine.by_group(values, {"alike": 2, "easy": 2}) == pytest.approx({"alike": 0.5, "easy": 0.6})


def test_the_probe_agrees_with_the_results_of_a_run():
    draw = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (60, 1, 8, 8), dtype=torch.uint8, generator=draw)
    made = ImageSet(images, torch.arange(60) % 6, "abcdef", name="made")
    stream = Stream(made, made, (2, 2, 2))
    config = Config("resnet8", mean=(0.5,), std=(0.25,), base_epochs=2, epochs=1, batch_size=10, lr=0.05)
    probes = {"fine": fine.columns(stream)}
    _, result = run(FinetuneSGD, config, stream, probes=probes, threads=1, progress=False)
    table = result.trace["fine"]
    assert set(table) == {"task", *fine.COLUMNS, "features", "labels", "pictures"}
    assert table["accuracy"].shape == (3, 6)
    for stage, seen in enumerate((2, 4, 6)):
        right = result.predictions[stage] == result.labels
        expected = [right[result.labels == k].mean() for k in range(seen)]
        np.testing.assert_allclose(table["accuracy"][stage, :seen], expected, atol=1e-6)
        aware = result.predictions_task_aware[stage + 1] == result.labels
        new = [aware[result.labels == k].mean() for k in range(seen - 2, seen)]
        np.testing.assert_allclose(table["within"][stage, seen - 2 : seen], new, atol=1e-6)
    assert np.isnan(table["projected"][2]).all() and np.isfinite(table["projected"][1, :4]).all()
    np.testing.assert_allclose(table["projected"][1, :4].sum(), 1, rtol=1e-5)


def test_features_are_those_of_the_last_layer_and_kept_after_two_tasks():
    images = torch.arange(60, dtype=torch.uint8).view(60, 1, 1, 1).expand(60, 1, 8, 8)
    made = ImageSet(images.contiguous(), torch.arange(60) % 6, "abcdef", name="made")
    stream = Stream(made, made, (2, 2, 2))
    config = Config("resnet8", mean=(0.5,), std=(0.25,), base_epochs=1, epochs=1, batch_size=10, lr=0.05)
    probes = {"fine": fine.columns(stream, (1,))}
    learner, result = run(FinetuneSGD, config, stream, probes=probes, threads=1, progress=False)
    table = result.trace["fine"]
    assert [len(rows) for rows in table["features"]] == [10, 10, 0] and set(table["labels"][1]) == {1}
    assert [len(rows) for rows in table["pictures"]] == [8, 0, 0]
    assert np.array_equal(table["pictures"][0][:, 0, 0, 0], np.arange(1, 48, 6))
    last = fine.penultimate(learner, made)
    with torch.no_grad():
        x = next(iter(made.batches(60, shuffle=False)))[0]
        torch.testing.assert_close(learner.net.head(last), learner.eval()(x))
    assert not learner.net.head._forward_pre_hooks
