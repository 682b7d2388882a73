"""The judge of generated images: always the same, never in the way, exact about a generator that stays."""

import numpy as np
import pytest
import torch
from torch import nn

from clkit import experiments
from clkit.analysis import generated
from clkit.engine.run import run
from clkit.engine.seeding import random_state, seed_everything
from tests.fakes import small_stream

SHAPE, CLASSES = (1, 16, 16), 3


@pytest.fixture(scope="module")
def stream():
    return small_stream(classes=CLASSES, per_class=32, side=16, sizes=(1,) * CLASSES)


class Drawer(nn.Module):
    """A learner that recalls real images of the class `of[label]`, in training mode brighter by chance."""

    def __init__(self, stream, ends, of=(0, 1, 2)):
        super().__init__()
        self.stream, self.of, self.shape, self.classes = stream, of, SHAPE, CLASSES
        self.register_buffer("ends", torch.tensor(ends))

    def recall(self, n, label):
        assert not self.training
        images = self.stream[self.of[label]].train.images
        return images[torch.randint(len(images), (n,))] / 255, torch.full((n,), label)


def read(learner, stream, n=16):
    return {name: column(learner) for name, column in generated.columns(stream, "cpu", n).items()}


def test_real_images_are_taken_for_their_class_and_others_are_not(stream):
    found = read(Drawer(stream, [1, 3]), stream)
    assert found["judge"] > 0.9 and found["accuracy"].tolist() == [1.0, 1.0, 1.0]
    assert read(Drawer(stream, [1, 3], of=(0, 2, 1)), stream)["accuracy"].tolist() == [1.0, 0.0, 0.0]


def test_classes_to_come_have_no_score_and_no_image(stream):
    found = read(Drawer(stream, [2]), stream)
    assert found["accuracy"].isnan().tolist() == [False, False, True]
    assert found["images"].shape == (CLASSES, generated.SHOWN, *SHAPE)
    assert found["images"].dtype == torch.uint8 and found["images"][:2].any() and not found["images"][2].any()
    kept = stream[1].train.images
    assert all((kept == image).flatten(1).all(1).any() for image in found["images"][1])


def test_the_same_random_numbers_come_for_a_class_and_the_state_returns(stream):
    learner, before = Drawer(stream, [3]), random_state()["torch"]
    first = generated.drawn(learner, 5, 1)
    torch.rand(3)
    state = random_state()["torch"]
    assert torch.equal(generated.drawn(learner, 5, 1), first) and torch.equal(random_state()["torch"], state)
    assert not torch.equal(generated.drawn(learner, 5, 2), first) and learner.training
    assert not torch.equal(state, before)


def test_the_judge_depends_on_the_stream_alone(stream):
    generated.judge.cache_clear()
    seed_everything(8)
    state = random_state()["torch"]
    first, score = generated.judge(stream, "cpu")
    assert torch.equal(random_state()["torch"], state)
    generated.judge.cache_clear()
    seed_everything(9)
    second, again = generated.judge(stream, "cpu")
    assert score == again and all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters()))
    x, y = stream.test.images / 255, stream.test.labels
    assert score == (first(x).argmax(1) == y).float().mean()
    assert generated.judge(stream, "cpu")[0] is second


def smoke(method, stream, probed):
    found = experiments.experiment(f"{method}/digits-10", "smoke")
    probes = {"generated": generated.columns(stream, torch.device("cpu"), 30)} if probed else None
    options = {"record": ("loss",), "probes": probes, "threads": 1, "progress": False}
    return run(found.learner, found.config, stream, seed=0, **options)[1]


def test_a_generator_that_is_protected_scores_the_same_after_every_task(stream):
    result = smoke("dgmw", stream, probed=True)
    table = result.trace["generated"]
    for label in range(CLASSES):
        assert len(set(table["accuracy"][label:, label].tolist())) == 1
        assert (table["images"][label:, label] == table["images"][label, label]).all()
        assert np.isnan(table["accuracy"][:label, label]).all()
    assert len(set(table["judge"].tolist())) == 1
    plain = smoke("dgmw", stream, probed=False)
    assert np.array_equal(result.rank, plain.rank) and "generated" not in plain.trace
    assert np.array_equal(result.trace["loss"]["loss"], plain.trace["loss"]["loss"])


def test_a_generator_that_is_trained_on_draws_other_images(stream):
    table = smoke("mergan", stream, probed=True).trace["generated"]
    assert (table["images"][1:, 0] != table["images"][:1, 0]).any((1, 2, 3, 4)).all()
