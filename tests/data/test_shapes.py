"""The drawn set: equal bytes everywhere, and families that are easier to distinguish than siblings."""

import hashlib

import numpy as np
import pytest
import torch
from sklearn.linear_model import RidgeClassifier

from clkit.data import DataError, load, shapes


def digest(drawn):
    return hashlib.sha256(b"".join(part[0].tobytes() for part in (drawn.train, drawn.test))).hexdigest()


@pytest.mark.parametrize(
    "options, expected",
    [
        ({}, "7c4b05103b486c556baad9bed4aa3277cbfe5f3cb6197aed202e55c9f1fd725d"),
        ({"difficulty": 1.0}, "5e948f9ca8dc4709ecc8967bd23398c759807e7ee8af87ff2152a56925d3a039"),
        ({"difficulty": 0, "seed": 3}, "c1e5cfee44ca64cd601bc6342bcf97b3f4354f63d805daea9b22024fe179292a"),
    ],
)
def test_bytes_are_pinned(options, expected):
    assert digest(shapes.draw(train_per_class=2, test_per_class=1, **options)) == expected


def test_default_set_is_as_documented():
    assert len(shapes.FAMILIES) == 20
    assert all(len(names) == len(set(names)) == 5 for names, _ in shapes.FAMILIES.values())
    train, test = load("shapes", train_per_class=3, test_per_class=2)
    assert train.images.shape == (300, 3, 32, 32) and test.images.shape == (200, 3, 32, 32)
    assert train.classes == len(set(train.names)) == 100
    assert train.labels.bincount().tolist() == [3] * 100 and test.labels.bincount().tolist() == [2] * 100
    assert train.groups == tuple(name.split("/")[0] for name in train.names) and "star/5 rays" in train.names


def test_a_part_of_the_set_has_the_images_of_the_whole():
    whole = shapes.draw(families=3, train_per_class=4, test_per_class=1)
    part = shapes.draw(families=2, siblings=3, train_per_class=4, test_per_class=1)
    for k, name in enumerate(part.names):
        there = whole.names.index(name)
        assert np.array_equal(part.train[0][part.train[1] == k], whole.train[0][whole.train[1] == there])


def test_training_and_test_images_differ_and_so_do_seeds():
    drawn, other = (shapes.draw(families=1, train_per_class=4, test_per_class=4, seed=s) for s in (0, 1))
    everything = np.concatenate([drawn.train[0], drawn.test[0], other.train[0], other.test[0]])
    assert len({image.tobytes() for image in everything}) == len(everything)


def test_every_detail_shows_where_nothing_disturbs_it():
    """At difficulty 0, all figures of a family differ from one another in many samples."""
    u, v = np.meshgrid(*[np.linspace(-1, 1, 64, dtype=np.float32)] * 2)
    for family, (_, figure) in shapes.FAMILIES.items():
        drawn = []
        for k in range(shapes.SIBLINGS):
            body, mark = figure(u[None], v[None], k, 1.0)
            assert body.dtype == bool and body.shape == (1, 64, 64) and 0.05 < body.mean() < 0.9, (family, k)
            drawn.append(body.astype(int) + (body & mark if mark is not None else 0))
        for i in range(shapes.SIBLINGS):
            for j in range(i):
                assert (drawn[i] != drawn[j]).mean() > 0.005, (family, i, j)


def test_difficulty_brings_siblings_together():
    u, v = np.meshgrid(*[np.linspace(-1, 1, 64, dtype=np.float32)] * 2)
    for family in ("ring", "star", "gear", "cross", "arrow", "crescent", "key", "tree"):
        figure = shapes.FAMILIES[family][1]
        easy, hard = (
            np.mean(figure(u[None], v[None], 1, depth)[0] != figure(u[None], v[None], 4, depth)[0])
            for depth in (1.0, 0.3)
        )
        assert hard < easy, family


def test_families_are_easier_than_siblings():
    """Even a linear classifier distinguishes families, and its errors are within the family."""
    train, test = load("shapes", families=4, train_per_class=80, test_per_class=40)
    x, y = (part.images.float().mean(1) for part in (train, test))
    x, y = ((part - part[:, :2].mean((1, 2), keepdim=True)).abs().flatten(1).numpy() / 255 for part in (x, y))
    predicted = torch.from_numpy(RidgeClassifier(alpha=100.0).fit(x, train.labels).predict(y))
    wrong = predicted != test.labels
    within = predicted // 5 == test.labels // 5
    assert wrong.float().mean() > 0.3, "siblings are hard"
    assert within.float().mean() > 0.8, "families are easy"
    assert within[wrong].float().mean() > 0.6, "by chance it would be 4 of 19"


@pytest.mark.parametrize(
    "options, words",
    [
        ({"families": 21}, "families must be a whole number from 1 to 20, not 21"),
        ({"siblings": 0}, "siblings must be a whole number from 1 to 5, not 0"),
        ({"train_per_class": 2.5}, "train_per_class must be a whole number"),
        ({"test_per_class": True}, "test_per_class must be a whole number"),
        ({"difficulty": 1.5}, "difficulty must be a number from 0 to 1, not 1.5"),
        ({"difficulty": "hard"}, "difficulty must be a number"),
        ({"seed": -1}, "seed must be a whole number of at least 0, not -1"),
    ],
)
def test_options_out_of_range_are_refused(options, words):
    with pytest.raises(DataError, match=f"^shapes: {words}"):
        load("shapes", **options)
