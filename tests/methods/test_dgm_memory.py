"""What DGM keeps: real images by share and by budget, bytes by kind; and the classifier in bfloat16."""

import numpy as np
import pytest
import torch

from clkit.blocks.gan import signed
from clkit.data.images import ImageSet
from clkit.data.stream import Stream
from clkit.engine.learner import LearnerError
from clkit.engine.run import run
from clkit.engine.seeding import seed_everything
from clkit.engine.trace import Trace
from clkit.methods.dgm.dgm import DGM, Config
from clkit.methods.dgm.footprint import footprint
from clkit.methods.dgm.generator import GrowingGenerator
from clkit.methods.dgm.residual import ResidualGenerator
from clkit.methods.dgm.stored import StoredImages

SHAPE, CLASSES, EACH = (1, 16, 16), 4, 12
SMALL = {"nz": 12, "g_width": 2, "d_width": 4, "epochs": 2, "batch_size": 8, "s_max": 400.0}


def stream():
    """Four classes of noise, two a task; no two images are equal."""
    draw = torch.Generator("cpu").manual_seed(1)
    size, options = (CLASSES * EACH, *SHAPE), {"generator": draw, "dtype": torch.uint8, "device": "cpu"}
    images = torch.randint(0, 256, size, **options)
    found = ImageSet(images, torch.arange(CLASSES, device="cpu").repeat_interleave(EACH), "abcd")
    return Stream(found, found, (2,) * 2)


def go(**settings):
    return run(DGM, Config(**SMALL | settings), stream(), seed=1, record="*", threads=1, progress=False)


def numbers(images):
    """One whole number for each image, which tells different ones apart."""
    weights = torch.arange(1, images[0].numel() + 1, device="cpu")
    return (images.flatten(1).long() * weights).sum(1).tolist()


# ---- real images


def test_a_budget_is_divided_by_the_classes_seen():
    stored = StoredImages((1, 2, 2), 0.0, 2000)
    assert [stored.quota(1300, seen) for seen in (10, 30, 50)] == [200, 66, 40]
    for task in range(5):
        labels = torch.arange(10 * task, 10 * task + 10).repeat_interleave(250)
        images = torch.randint(0, 256, (len(labels), 1, 2, 2), dtype=torch.uint8)
        before = stored.images.clone(), stored.labels.clone()
        stored.add(images, labels, range(10 * task, 10 * task + 10), 250)
        quota = 2000 // (10 * task + 10)
        assert torch.bincount(stored.labels).tolist() == [quota] * (10 * task + 10)
        for label in range(10 * task):  # of an old class the first ones stay
            old = before[0][before[1] == label]
            assert torch.equal(stored.images[stored.labels == label], old[:quota])


def test_a_share_is_one_of_the_images_that_are_replayed():
    for share, kept in ((0.0, 0), (0.1, 2), (0.25, 5), (0.29, 6), (1.0, 20)):
        stored = StoredImages((1, 2, 2), share, 0)
        labels = torch.arange(2).repeat_interleave(20)
        images = torch.randint(0, 256, (40, 1, 2, 2), dtype=torch.uint8)
        stored.add(images, labels, range(2), 20)
        assert torch.bincount(stored.labels, minlength=2).tolist() == [kept, kept]
        x, y = stored.of(1, 2, 10, 2)  # half as many are replayed
        assert len(x) == round(share * 10) and (y == 1).all()


def test_a_class_with_few_images_gives_what_it_has():
    stored = StoredImages((1, 2, 2), 0.0, 10)
    labels = torch.tensor([0] * 3 + [1] * 9)
    stored.add(torch.zeros(12, 1, 2, 2, dtype=torch.uint8), labels, range(2), 6)
    assert torch.bincount(stored.labels).tolist() == [3, 5]


@pytest.mark.parametrize("settings, kept", [({"real_share": 0.25}, (3, 3)), ({"real_budget": 21}, (10, 5))])
def test_stored_images_are_chosen_of_their_class_and_replayed_among_generated_ones(settings, kept):
    seed_everything(1, 0)
    learner = DGM(Config(**SMALL | settings), SHAPE, CLASSES)
    known = {k: numbers(t.train.images) for k, t in enumerate(stream())}
    for task, count in zip(stream(), kept):
        learner.learn(task, Trace(progress=False))
        task.train.images.zero_()  # what is kept is a copy
        images, labels = learner.stored.images, learner.stored.labels
        assert torch.bincount(labels).tolist() == [count] * task.seen and images.dtype == torch.uint8
        for label in range(task.seen):
            own = numbers(images[labels == label])
            of_class = known[label // 2][EACH * (label % 2) : EACH * (label % 2 + 1)]
            assert len(set(own)) == count and set(own) <= set(of_class)
            assert own != of_class[:count]  # a random choice, not the first ones
    ((x, y), _) = learner.replayed(EACH)
    assert torch.bincount(y).tolist() == [EACH] * 2
    real = learner.stored.images[learner.stored.labels < 2]
    assert torch.equal(x[: len(real)], signed(real)) and len(real) == 2 * kept[1]
    generated = numbers(((x[len(real) :] / 2 + 0.5) * 255).round().to(torch.uint8))
    assert not set(generated) & {n for numbers_of in known.values() for n in numbers_of}
    assert learner.stores_images and learner.memory_bytes()["exemplars"] == len(labels) * (256 + 8)


def test_a_share_of_nothing_is_as_no_storing_bit_for_bit():
    (plain, a), (tiny, b), (_, c) = go(), go(real_share=0.01), go(real_share=0.5)
    assert np.array_equal(a.rank, b.rank) and np.array_equal(
        a.trace["loss"]["critic"], b.trace["loss"]["critic"]
    )
    assert all(torch.equal(p, q) for p, q in zip(plain.parameters(), tiny.parameters()))
    assert not np.array_equal(a.trace["loss"]["loss"], c.trace["loss"]["loss"])
    assert not plain.stores_images and "exemplars" not in plain.memory_bytes()


def test_only_real_images_are_replayed_at_a_share_of_one():
    seed_everything(1, 0)
    learner = DGM(Config(**SMALL, real_share=1.0), SHAPE, CLASSES)
    for task in stream():
        learner.learn(task, Trace(progress=False))
    first = stream()[0].train
    ((x, _), _) = learner.replayed(EACH)
    assert sorted(numbers(learner.stored.images[: 2 * EACH])) == sorted(numbers(first.images))
    assert torch.equal(x, signed(learner.stored.images[: 2 * EACH]))
    twin = DGM(learner.config, SHAPE, CLASSES)
    twin.restore(learner.snapshot())
    assert torch.equal(twin.stored.images, learner.stored.images)


@pytest.mark.parametrize("settings, said", [
    ({"real_share": 1.5}, "real_share must be a finite number of at least 0 and at most 1, not 1.5"),
    ({"real_share": -0.1}, "real_share must be a finite number of at least 0 and at most 1, not -0.1"),
    ({"real_budget": -1}, "real_budget must be a whole number of at least 0"),
    ({"real_share": 0.5, "real_budget": 9}, "give one of them"),
    ({"real_share": 0.5, "replay": False}, "without replay no real images are kept"),
])  # fmt: skip
def test_shares_and_budgets_that_cannot_work_are_refused(settings, said):
    with pytest.raises(LearnerError, match=said):
        Config(**settings)


def test_a_budget_without_an_image_of_each_class_is_refused():
    with pytest.raises(LearnerError, match="real_budget=3 is too small for 4 classes"):
        DGM(Config(**SMALL, real_budget=3), SHAPE, CLASSES)


# ---- bytes


def finished(unit, on):
    """A generator with 384, 512 and 128 masked weights after a task; on: how many places hold, by layer."""
    generator = GrowingGenerator(SHAPE, 12, 2, unit, "before")
    generator.begin()
    with torch.no_grad():
        for e, count in zip(generator.logits, on):
            e.fill_(-1).view(-1)[:count] = 1
    generator.keep(0, generator.hard_masks())
    return generator


def test_bytes_of_masks_on_weights_by_hand():
    generator = finished("weight", (5, 3, 0))
    found = {k: int(v) for k, v in footprint(generator, 1).items()}
    norms, head = 4 * 4 * (8 + 4 + 2), 4 * 2 * 16
    assert found == {
        "weight_bytes": 4 * 1024,
        "task_bytes": norms + head,
        "bit_bytes": 1024 // 8,
        "index_bytes": 4 * 8,
        "coo_bytes": 8 * (4 * 8 + 4),
        "logit_bytes": 4 * 1024,
    }
    assert found["bit_bytes"] == sum(
        b.numel() for name, b in generator.named_buffers() if name.startswith("mask")
    )


def test_bytes_of_masks_on_channels_by_hand():
    generator = finished("channel", (2, 1, 1))
    generator.grow([2, 0, 1])  # 10, 4 and 3 channels: 480 + 640 + 192 weights
    generator.begin()
    with torch.no_grad():
        for e in generator.logits:
            e.fill_(1)
    generator.keep(1, generator.hard_masks())
    found = {k: int(v) for k, v in footprint(generator, 2).items()}
    assert found["weight_bytes"] == 4 * (480 + 640 + 192) and found["logit_bytes"] == 4 * 17
    assert found["bit_bytes"] == (1 + 1 + 1) + (2 + 1 + 1)
    assert found["index_bytes"] == 4 * (4 + 17) and found["coo_bytes"] == (8 + 4) * (4 + 17)
    assert found["task_bytes"] == 4 * (4 * (14 + 17) + 16 * (2 + 3))


def test_a_shortcut_that_is_the_identity_has_no_mask():
    generator = ResidualGenerator((1, 16, 16), 12, 2, "weight")
    generator.begin(3, 0)
    generator.keep(0, generator.hard_masks())
    found = {k: int(v) for k, v in footprint(generator, 1).items()}
    chain = 12 * 2 * 4 + 6 * 2 * 2 * 9
    assert found["bit_bytes"] == 12 + 6 * 5 and found["index_bytes"] == found["coo_bytes"] == 0
    assert found["weight_bytes"] == found["logit_bytes"] == 4 * (chain + 3 * 2 * 2)
    assert found["task_bytes"] == 4 * (4 * 14 + 3 * 2 * 9)


def test_bytes_are_recorded_with_the_growth_of_a_run():
    learner, result = go()
    rows = result.trace["growth"]
    assert (rows["weight_bytes"] == 4 * rows["weights"]).all()
    assert (rows["logit_bytes"] == 4 * rows["weights"]).all()
    assert (np.diff(rows["bit_bytes"]) > 0).all() and (np.diff(rows["index_bytes"]) > 0).all()
    assert (rows["coo_bytes"] == 9 * rows["index_bytes"]).all()  # 4 coordinates and a value
    on = sum(int(learner.generator.mask_of(k, l).sum()) for k in range(2) for l in range(3))
    assert rows["index_bytes"][-1] == 4 * on


# ---- precision


def test_the_classifier_in_bfloat16_learns_nearly_the_same():
    (_, exact), (learner, coarse) = go(), go(precision="bf16")
    a, b = (r.trace["loss"]["loss"] for r in (exact, coarse))
    assert not np.array_equal(a, b) and abs(a - b).max() < 0.1 * abs(a).max()
    assert all(t.dtype != torch.bfloat16 for t in learner.state_dict().values())
    x = torch.rand(3, *SHAPE)
    assert learner(x).dtype == torch.float32
    assert learner.cast(x)[1].dtype == torch.float32
    assert not torch.equal(learner.cast(x)[1], learner.critic(x)[1])
