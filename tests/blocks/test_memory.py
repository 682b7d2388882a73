"""Reservoir, rings and herded exemplars against list implementations and definitions."""

import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from clkit.blocks import nets
from clkit.blocks.memory import ClassRing, HerdedExemplars, Reservoir, count_of_each, herd
from clkit.engine.seeding import seed_everything
from clkit.errors import ClkitError
from tests.modes import DeviceFactories, HostSyncs
from tests.reference.memory import ListReservoir, class_means, herd_by_hand, phi
from tests.reference.nets import small_nets  # noqa: F401  a fixture

SHAPE, CLASSES = (1, 4, 5), 6


def batch(size, draw, classes=CLASSES):
    """Images as bytes and labels."""
    images = torch.randint(256, (size, *SHAPE), generator=draw, dtype=torch.uint8, device="cpu")
    return images, torch.randint(classes, (size,), generator=draw, device="cpu")


# ---- reservoir


@pytest.mark.parametrize("size", [1, 7, 40])
def test_a_reservoir_against_a_list(size):
    mine, slow, draw = Reservoir(size, SHAPE), ListReservoir(size), torch.Generator("cpu").manual_seed(0)
    for step, n in enumerate((5, 1, 30, 3, 9)):
        images, labels = batch(n, draw)
        before = mine.images.clone()
        seed_everything(step)
        new = mine.add(images / 255, labels)
        seed_everything(step)
        slow.add(images / 255, labels)
        assert int(mine.n_seen) == slow.n_seen
        kept = slow.memory
        assert torch.equal(mine.images[: len(kept)], torch.stack([image for image, _, _ in kept]))
        assert mine.labels.tolist() == [label for _, label, _ in kept] + [-1] * (size - len(kept))
        assert not (mine.images != before).flatten(1).any(1)[~new].any(), "what is not new has not changed"


def test_each_image_has_the_same_chance():
    """60 images, 10 places: each image is kept with probability 1/6, whatever its index."""
    counts, x = torch.zeros(60, device="cpu"), torch.zeros(60, 1, 1, 1, device="cpu")
    for seed in range(1500):
        seed_everything(seed)
        reservoir = Reservoir(10, (1, 1, 1))
        for part in torch.arange(60, device="cpu").split(7):
            reservoir.add(x[: len(part)], part)
        counts[reservoir.labels] += 1
    assert counts.sum() == 15_000 and counts.min() > 250 - 5 * 15 and counts.max() < 250 + 5 * 15


def test_what_is_sampled_is_there():
    reservoir, draw = Reservoir(50, SHAPE), torch.Generator("cpu").manual_seed(0)
    images, labels = batch(20, draw)
    reservoir.add(images / 255, labels)
    index = reservoir.sample(2000)
    assert index.min() == 0 and index.max() == 19 and torch.bincount(index).min() > 50
    x, y = reservoir.get(index)
    assert torch.equal(x, images[index].float() / 255) and torch.equal(y, labels[index])
    assert reservoir.get(index, torch.float64)[0].dtype == torch.float64
    assert reservoir.get(torch.tensor([45], device="cpu"))[1].tolist() == [0], "no image, no label of -1"


def filled(size):
    reservoir = Reservoir(size, SHAPE)
    reservoir.labels.copy_(torch.arange(size, device="cpu") % 6)
    reservoir.n_seen.fill_(size)
    return reservoir


def test_images_of_earlier_tasks_are_drawn_evenly_and_once():
    reservoir, counts = filled(30), torch.zeros(30, device="cpu")
    reservoir.labels[24:] = -1  # 16 images of classes 0 to 3
    for seed in range(300):
        seed_everything(seed)
        index, valid = reservoir.sample_below(4, 4)
        assert valid.all() and len(set(index.tolist())) == 4
        counts[index] += 1
    past = (reservoir.labels >= 0) & (reservoir.labels < 4)
    assert int(past.sum()) == 16 and counts[~past].sum() == 0
    assert 45 < counts[past].min() and counts[past].max() < 105, "75 expected"


@pytest.mark.parametrize("n", [8, 11, 12, 50])
def test_where_fewer_are_there_all_are_drawn(n):
    reservoir = filled(12)  # 12 images, of which 8 of classes 0 to 3
    index, valid = reservoir.sample_below(n, 4)
    assert len(index) == min(n, 12) and valid.tolist() == [i < 8 for i in range(len(index))]
    assert sorted(index[valid].tolist()) == [0, 1, 2, 3, 6, 7, 8, 9]
    assert (reservoir.labels[index] < 4).all(), "what fills up is of earlier tasks too"


def test_counts_by_class():
    assert count_of_each(torch.tensor([2, -1, 0, 2], device="cpu"), 4).tolist() == [1, 0, 2, 0]


# ---- rings


@pytest.mark.parametrize("memory, size", [(24, 4), (29, 4), (6, 1)])
def test_a_ring_keeps_the_latest_images_of_a_class(memory, size):
    ring, sent = ClassRing(memory, CLASSES, SHAPE), {c: [] for c in range(CLASSES)}
    draw = torch.Generator("cpu").manual_seed(0)
    assert ring.images.shape == (CLASSES, size, *SHAPE)
    for n in (5, 1, 9, 30, 3, 5, 5):
        images, labels = batch(n, draw, classes=4)
        ring.add(images.float() / 255, labels)
        for image, label in zip(images, labels.tolist(), strict=True):
            sent[label].append(image)
        for label, own in sent.items():
            assert int(ring.n_seen[label]) == len(own)
            for number in range(max(0, len(own) - size), len(own)):
                assert torch.equal(ring.images[label, number % size], own[number])
        assert ring.counts().tolist() == [min(size, len(sent[c])) for c in range(CLASSES)]
    assert min(len(sent[c]) for c in range(4)) > 4


def test_the_images_of_some_classes():
    ring, draw = ClassRing(30, CLASSES, SHAPE), torch.Generator("cpu").manual_seed(0)
    images, _ = batch(9, draw)
    labels = torch.tensor([0, 1, 3, 3, 1, 0, 3, 3, 3], device="cpu")
    ring.add(images / 255, labels)
    mask = torch.tensor([False, True, True, True, False, False], device="cpu")
    found, names = ring.of(mask)
    assert names.tolist() == [1] * 2 + [3] * 5 and found.dtype == torch.uint8
    assert torch.equal(found, images[[1, 4, 2, 3, 6, 7, 8]])
    assert len(ring.of(torch.zeros_like(mask))[0]) == 0


# ---- herded exemplars


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(
    "n, m, lengths", [(30, 8, "one"), (30, 8, "any"), (5, 9, "one"), (1, 1, "one"), (12, 12, "some zero")]
)
def test_herding_against_the_definition(n, m, lengths, seed):
    draw = torch.Generator("cpu").manual_seed(seed)
    features = torch.randn(n, 4, dtype=torch.float64, generator=draw, device="cpu") + 0.5
    if lengths != "any":
        features = F.normalize(features)
    if lengths == "some zero":
        features[::5] = 0  # an image that no unit answers to
    assert herd(features, m).tolist() == herd_by_hand(features.tolist(), m)


def test_the_first_exemplars_describe_the_class_best():
    """Their mean is closer to the class mean than the means of nearly all random choices."""
    draw = torch.Generator("cpu").manual_seed(0)
    features = F.normalize(torch.randn(60, 5, generator=draw, device="cpu") + 1)
    mu = F.normalize(features.mean(0), dim=0)

    def distance(index):
        return float((features[index].mean(0) - mu).norm())

    random = [distance(torch.randperm(60, generator=draw, device="cpu")[:6]) for _ in range(200)]
    assert distance(herd(features, 6)) < np.quantile(random, 0.05)


def exemplars(memory=20, net="tiny", tasks=3, per_class=24):
    """Exemplars after some tasks of two classes each, the network, and all images with their labels."""
    torch.manual_seed(0)
    net, draw = nets.build(net, SHAPE, CLASSES).eval(), torch.Generator("cpu").manual_seed(1)
    images, _ = batch(CLASSES * per_class, draw)
    labels = torch.arange(len(images), device="cpu") % CLASSES
    found = HerdedExemplars(memory, CLASSES, SHAPE, net.head.in_features)
    for t in range(tasks):
        own = (labels == 2 * t) | (labels == 2 * t + 1)
        found.add(images[own], labels[own], range(2 * t, 2 * t + 2), net)
    return found, net, images, labels


@pytest.mark.parametrize("net", ["tiny", "norm"])
@pytest.mark.parametrize(
    "memory, tasks, share", [(20, 1, 10), (20, 2, 5), (20, 3, 3), (6, 3, 1), (1000, 2, 24)]
)
def test_each_class_keeps_the_first_of_its_herd(net, memory, tasks, share):
    found, net, images, labels = exemplars(memory, net, tasks)
    assert found.labels.tolist() == [c for c in range(2 * tasks) for _ in range(share)]
    for c in range(2 * tasks):
        own = images[labels == c]
        assert torch.equal(found.images[found.labels == c], own[herd_by_hand(phi(net, own), share)])


def test_means_and_logits_against_the_definition():
    found, net, images, _ = exemplars(tasks=2)
    found.update_means(4, net)
    means = class_means(phi(net, found.images), found.labels.tolist(), 4)
    torch.testing.assert_close(found.means, torch.tensor(means, device="cpu"))
    x = images[:9] / 255
    logits = found.logits(net.features(x), net(x)).detach()
    distances = [[math.dist(f, mu) ** 2 for mu in means] for f in phi(net, images[:9])]
    torch.testing.assert_close(logits[:, :4], -torch.tensor(distances, device="cpu"), rtol=1e-4, atol=1e-5)
    assert logits.shape == (9, 6) and logits[:, :4].min() >= -4 - 1e-5
    assert -6 < logits[:, 4:].min() and logits[:, 4:].max() < -5
    assert torch.equal(logits[:, 4:].argsort(1), net(x)[:, 4:].argsort(1))


def test_a_fixed_share_from_the_start_and_means_with_mirror_images():
    """20 exemplars for 6 classes are 3 each, whatever the number of classes seen."""
    net = nets.build("small", SHAPE, CLASSES).eval()
    found = HerdedExemplars(20, CLASSES, SHAPE, net.head.in_features, fixed=True)
    images, labels = batch(90, torch.Generator("cpu").manual_seed(0))
    for new in (range(2), range(2, 6)):
        own = (labels >= new.start) & (labels < new.stop)
        found.add(images[own], labels[own], new, net)
        assert count_of_each(found.labels, CLASSES).tolist() == [3 if c < new.stop else 0 for c in range(6)]
    found.update_means(6, net, mirrored=True)
    both = torch.cat([found.images, found.images.flip(3)])
    expected = class_means(phi(net, both), found.labels.tolist() * 2, 6)
    np.testing.assert_allclose(found.means, expected, rtol=1e-4, atol=1e-6)


def test_sampled_exemplars():
    found, *_ = exemplars(tasks=2)
    x, y = found.sample(400)
    match = (x[:, None] == found.images[None] / 255).flatten(2).all(2)  # (400, 20)
    assert match.any(0).all(), "each of the exemplars is drawn"
    assert torch.equal(y, found.labels[match.int().argmax(1)])
    assert not torch.equal(found.sample(400)[1], y), "each time anew"


# ---- all


@pytest.mark.parametrize(
    "make", [lambda m: ClassRing(m, 6, SHAPE), lambda m: HerdedExemplars(m, 6, SHAPE, 3)]
)
def test_a_memory_without_room_for_each_class_is_refused(make):
    make(6)
    with pytest.raises(ClkitError, match="memory=5 is too small for 6 classes"):
        make(5)


@pytest.mark.parametrize(
    "make, bytes_kept",
    [
        (lambda: Reservoir(12, SHAPE), 12 * (20 + 8) + 8),
        (lambda: ClassRing(20, 6, SHAPE), 18 * 20 + 6 * 8),
        (lambda: exemplars(20, tasks=2)[0], 20 * (20 + 8)),
    ],
)
def test_bytes_kept_are_buffers(make, bytes_kept):
    module = make()
    assert isinstance(module, nn.Module) and not list(module.parameters())
    assert sum(t.numel() * t.element_size() for t in module.state_dict().values()) == bytes_kept


def test_adding_waits_for_no_value_and_makes_tensors_on_their_device():
    x, y = torch.rand(5, *SHAPE, device="cpu"), torch.tensor([0, 1, 1, 5, 0], device="cpu")
    reservoir, ring = Reservoir(7, SHAPE), ClassRing(20, 6, SHAPE)
    with HostSyncs() as syncs, DeviceFactories() as factories:
        for _ in range(3):
            reservoir.add(x, y)
            ring.add(x, y)
            reservoir.get(reservoir.sample(4))
            reservoir.sample_below(4, 1)
    assert syncs.total == 0 and factories.found == []
