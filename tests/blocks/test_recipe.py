"""The recipe of image classifiers: views of images, optimizers and learning rates, a step."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from clkit.blocks import recipe
from clkit.blocks.features import class_means, features_of
from clkit.blocks.pixels import crop_and_flip, zoom_and_flip
from tests.fakes import small_stream

CONFIG = SimpleNamespace(batch_size=16, view=5, lr=0.2, weight_decay=0.01, milestones=(2, 5))
VIEWS = {"none": lambda x: x, "flip": crop_and_flip(0), "shift": crop_and_flip(4), "zoom": zoom_and_flip(5)}


@pytest.mark.parametrize("augment", VIEWS)
def test_views_are_those_of_their_name(augment):
    images = small_stream()[0].train
    torch.manual_seed(3)
    found = list(recipe.views(images, SimpleNamespace(**vars(CONFIG), augment=augment)))
    torch.manual_seed(3)
    expected = [(VIEWS[augment](x), y) for x, y in images.batches(16)]
    assert all(
        torch.equal(a, c) and torch.equal(b, d) for (a, b), (c, d) in zip(found, expected, strict=True)
    )


def test_the_learning_rate_falls_after_each_milestone():
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1, device="cpu"))], CONFIG.lr)
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, CONFIG.milestones)
    other, rates = recipe.sgd([nn.Parameter(torch.zeros(1, device="cpu"))], CONFIG), []
    for epoch in range(7):
        recipe.decay(other, CONFIG, epoch)
        rates.append(other.param_groups[0]["lr"])
        assert rates[-1] == pytest.approx(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    assert rates[:3] == [0.2, 0.2, pytest.approx(0.02)]
    recipe.decay(other, CONFIG, 0)
    assert other.param_groups[0]["lr"] == 0.2, "a task begins at the full rate again"


@pytest.mark.parametrize("make", [recipe.adam, recipe.sgd])
def test_weight_decay_is_added_to_the_gradient(make):
    """Two steps of the textbook rule, with decay in the gradient."""
    w = nn.Parameter(torch.tensor([1.0, -2.0], dtype=torch.float64, device="cpu"))
    optimizer, theta, m, v = make([w], CONFIG), [1.0, -2.0], [0.0, 0.0], [0.0, 0.0]
    for t in (1, 2):
        optimizer.zero_grad()
        (w * w.new_tensor([3.0, 0.5])).sum().backward()
        optimizer.step()
        for i, slope in enumerate((3.0, 0.5)):
            g = slope + 0.01 * theta[i]
            if make is recipe.sgd:
                m[i] = 0.9 * m[i] + g
                theta[i] -= 0.2 * m[i]
            else:
                m[i], v[i] = 0.9 * m[i] + 0.1 * g, 0.999 * v[i] + 0.001 * g * g
                theta[i] -= 0.2 * m[i] / (1 - 0.9**t) / ((v[i] / (1 - 0.999**t)) ** 0.5 + 1e-8)
    assert w.tolist() == pytest.approx(theta, rel=1e-9)


def test_a_step_returns_the_loss_before_it():
    net, twin = nn.Linear(3, 4, device="cpu"), nn.Linear(3, 4, device="cpu")
    twin.load_state_dict(net.state_dict())
    x, y = torch.rand(5, 3, device="cpu"), torch.tensor([0, 1, 2, 1, 0], device="cpu")
    found = recipe.classify(net(x)[:, :3], torch.optim.SGD(net.parameters(), 0.1), y)
    loss = F.cross_entropy(twin(x)[:, :3], y)
    loss.backward()
    assert found == loss and not found.requires_grad
    torch.testing.assert_close(net.weight, twin.weight - 0.1 * twin.weight.grad)


# ---- features


class Flat(nn.Module):
    def features(self, x):
        return 2 * x.flatten(1)


def test_features_are_in_the_order_of_the_images():
    images = small_stream()[1].train
    found = features_of(Flat(), images, size=7)
    torch.testing.assert_close(found, images.images.flatten(1) / 255 * 2)


def test_means_by_class():
    x, y = torch.rand(6, 3, device="cpu"), torch.tensor([0, 2, 1, 2, 2, 0], device="cpu")
    expected = torch.stack([x[[0, 5]].mean(0), x[2], x[[1, 3, 4]].mean(0)])
    torch.testing.assert_close(class_means(x, y, 3), expected)
