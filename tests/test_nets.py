"""Networks: numbers of parameters that the papers print, shapes, and names."""

import pytest
import torch
from torch import nn

from clkit import nets

SHAPES = [(1, 8, 8), (1, 28, 28), (3, 32, 32)]


def images(shape, n=2):
    return torch.rand(n, *shape, generator=torch.Generator("cpu").manual_seed(0), device="cpu")


def count(net):
    return sum(p.numel() for p in net.parameters())


def test_the_mlp_of_split_mnist_has_478410_parameters():
    net = nets.build("mlp", (1, 28, 28), 10)
    assert count(net) == 478_410 == (784 + 1) * 400 + (400 + 1) * 400 + (400 + 1) * 10
    assert net.features(images((1, 28, 28))).shape == (2, 400)


def test_hidden_layers_of_the_mlp_may_be_chosen():
    assert count(nets.MLP((1, 2, 3), 5, hidden=(7,))) == (6 + 1) * 7 + (7 + 1) * 5
    assert count(nets.MLP((1, 2, 3), 5, hidden=())) == (6 + 1) * 5


def test_the_mlp_computes_its_formula():
    net, x = nets.MLP((1, 2, 3), 5, hidden=(7, 4)), images((1, 2, 3))
    expected = x.reshape(2, 6)
    for layer in net.hidden:
        expected = (expected @ layer.weight.T + layer.bias).clamp(min=0)
    torch.testing.assert_close(net(x), expected @ net.head.weight.T + net.head.bias)


def test_the_reduced_resnet18_has_1094750_parameters():
    net = nets.build("resnet18", (3, 32, 32), 10)
    assert count(net) == 1_094_750
    assert net.features(images((3, 32, 32))).shape == (2, 160)


def test_the_reduced_resnet18_for_84x84_images():
    """84 -> 42 -> 21 -> 11 pixels, averaged to 2x2: the head sees 640 features."""
    net = nets.ResNet18((3, 84, 84), 100, pool=2)
    assert (net.head.in_features, net.head.out_features) == (640, 100)
    assert count(net) == 1_157_240 == 1_094_750 - 161 * 10 + 641 * 100
    assert net.features(images((3, 84, 84))).shape == (2, 640) and net(images((3, 84, 84))).shape == (2, 100)


def test_the_usual_resnet18_has_11173962_parameters():
    """The figure of torchvision's resnet18 with a 3x3 stem and 10 classes."""
    assert count(nets.ResNet18((3, 32, 32), 10, width=64)) == 11_173_962


def test_the_resnet18_has_eighteen_layers_and_halves_the_image_three_times():
    net = nets.build("resnet18", (3, 32, 32), 10).eval()
    layers = [m for n, m in net.named_modules() if isinstance(m, nn.Conv2d | nn.Linear)
              and "shortcut" not in n]
    assert len(layers) == 18
    assert net.blocks(net.stem(images((3, 32, 32)))).shape == (2, 160, 4, 4)


def test_a_resnet18_block_adds_its_shortcut():
    same = nets._Block(6, 6, 1).eval()
    assert len(same.shortcut) == 0
    nn.init.zeros_(same.bn2.weight)
    x = images((6, 5, 5))
    torch.testing.assert_close(same(x), x)              # the branch is silent, x is not negative
    wider = nets._Block(6, 12, 2)
    assert len(wider.shortcut) == 2 and wider(x).shape == (2, 12, 3, 3)


@pytest.mark.parametrize("shape", SHAPES)
def test_the_convnet_halves_the_image_twice(shape):
    net = nets.build("convnet", shape, 10)
    assert net.features(images(shape)).shape == (2, 64 * (shape[1] // 4) * (shape[2] // 4))
    assert not any(isinstance(m, nn.modules.batchnorm._NormBase) for m in net.modules())


@pytest.mark.parametrize("name", nets.NETS)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("classes", [2, 10])
def test_forward_is_the_head_on_the_features(name, shape, classes):
    net = nets.build(name, shape, classes).eval()
    x = images(shape)
    assert net(x).shape == (2, classes) and net.features(x).ndim == 2
    torch.testing.assert_close(net(x), net.head(net.features(x)), rtol=0, atol=0)
    net(x).sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in net.parameters())


@pytest.mark.parametrize("name", nets.NETS)
def test_building_draws_from_the_global_random_state_alone(name):
    weights = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        weights.append(torch.cat([p.detach().flatten() for p in nets.build(name, (1, 8, 8), 4).parameters()]))
    assert torch.equal(weights[0], weights[1]) and not torch.equal(weights[0], weights[2])


def test_an_unknown_name_is_refused():
    with pytest.raises(ValueError, match="there is no network 'resnet': use one of mlp, convnet, resnet18"):
        nets.build("resnet", (1, 8, 8), 4)
