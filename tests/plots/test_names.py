"""Names from outside in plots: they stand letter by letter, whatever they are."""

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch

from clkit import plots
from clkit.book import explore
from clkit.data import ImageSet, load
from clkit.plots import frame
from tests.builders import made

NAMES = ["$$", "US$5-US$10", r"x$\frac{1$", r"a\$b$c$", "{$_^", "100 % #1 & more", "T-shirt/top", "<b>&lt;"]


def shown(ax):
    """All texts of a figure as they are drawn, which fails for formulas that cannot be parsed."""
    ax.figure.canvas.draw()
    texts = ax.figure.findobj(plt.Text)
    drawn = [text._preprocess_math(text.get_text()) for text in texts if text.get_text()]
    assert not any(formula for _, formula in drawn)
    plt.close("all")
    return [text for text, _ in drawn]


@pytest.fixture
def named():
    """A Result of classes with odd names, and superclasses with odd names."""
    result = made(sizes=(4, 4), groups=[f"{name}!" for name in NAMES], data="sale$5$")
    result.names = NAMES
    return result


def test_dollars_begin_formulas_without_care():
    _, ax = plt.subplots()
    ax.set_title(NAMES[1])
    with pytest.raises(AssertionError):
        shown(ax)
    ax.set_title(NAMES[0])
    with pytest.raises(ValueError, match=r"\$"):
        ax.figure.canvas.draw()
    plt.close("all")


@pytest.mark.parametrize("by_group", [False, True])
def test_confusion_and_its_stamp(named, by_group):
    view = explore.confusion_view([named], by_group=by_group)
    texts = shown(view.axes)
    assert set(NAMES) <= set(texts)
    assert "data sale$5$" in " ".join(texts).replace("\n", " ")


def test_superclasses(named):
    many = made(sizes=(12, 12), groups=[NAMES[k // 3] for k in range(24)])
    assert set(NAMES) <= set(shown(plots.plot_confusion(many, by_group=True)))


def test_images_and_their_titles():
    images = np.zeros((8, 1, 4, 4))
    assert set(NAMES) <= set(shown(plots.plot_images(images, NAMES, columns=4)))
    assert set(NAMES) <= set(shown(plots.plot_images(images, columns=1, rows=NAMES)))


def test_outputs_pairs_and_activations():
    probabilities = np.eye(8)
    outputs = {"old": np.full(8, 1 / 8), "new": probabilities[0]}
    assert set(NAMES) <= set(shown(plots.plot_outputs(outputs, names=NAMES)))
    images = np.random.default_rng(0).random((8, 1, 4, 4))
    texts = shown(plots.plot_pairs(images, images, probabilities, np.arange(8), names=NAMES))
    assert set(NAMES) <= set(texts)
    texts = shown(plots.plot_activations(np.ones((4, 3)), 2, names=NAMES[:2]))
    assert all(any(text.startswith(name) for text in texts) for name in NAMES[:2])


@pytest.mark.parametrize("marked", [None, 0])
def test_maps_and_their_legends(marked):
    names = ["__background__", *NAMES]
    points = np.random.default_rng(0).random((18, 2)), np.arange(18) % 9
    texts = shown(plots.plot_map({"": points}, names=names, marked=marked))
    assert {f" {names[0]}"} | (set(NAMES) if marked is None else set()) <= set(texts)


def test_maps_of_many_classes_have_no_endless_legend():
    points = np.random.default_rng(0).random((400, 2)), np.arange(400) % 200
    ax = plots.plot_map({"real": points, "drawn": points}, names=[str(k) for k in range(200)])
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["real", "drawn"]
    assert plots.plot_map({"": points}).get_legend() is None
    plt.close("all")


def test_a_stamp_of_words_alone():
    _, ax = plt.subplots()
    frame.stamp(ax, "drawn from $5$")
    assert "drawn from $5$" in shown(ax)


@pytest.mark.parametrize("groups", [None, [f"{name}!" for name in NAMES]])
def test_samples_bear_the_whole_name(groups):
    images = torch.zeros(16, 1, 8, 8, dtype=torch.uint8)
    own = ImageSet(images, torch.arange(16) % 8, NAMES, groups, name="clothes$1$")
    for which in range(8 if groups else 1):
        view = explore.images_view(own, which, columns=2)
        expected = [NAMES[which]] if groups else NAMES
        assert view.text.endswith(f": 2 each of {', '.join(expected)}.")
        texts = shown(view.axes)
        assert set(expected) <= set(texts) and any(text.startswith("clothes$1$: ") for text in texts)


def test_samples_of_a_superclass_leave_it_out():
    train, _ = load("shapes", families=2, train_per_class=2, test_per_class=1)
    assert train.names[0].startswith("star/")
    view = explore.images_view(train, 0, columns=2)
    assert "2 each of 4 rays, 5 rays" in view.text and "4 rays" in shown(view.axes)
