"""Networks: the numbers of parameters printed in the papers, shapes, and names."""

import copy

import pytest
import torch
from torch import nn

from clkit.blocks import nets
from clkit.data import torchvision
from clkit.errors import ClkitError

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
    net = nets.ResNet18((3, 84, 84), 100, pool=4)
    assert (net.head.in_features, net.head.out_features) == (640, 100)
    assert count(net) == 1_157_240 == 1_094_750 - 161 * 10 + 641 * 100
    assert net.features(images((3, 84, 84))).shape == (2, 640) and net(images((3, 84, 84))).shape == (2, 100)


@pytest.mark.parametrize("side, squares", [(84, 2), (32, 1), (8, 1), (64, 2)])
def test_resnet18_pool2_averages_squares_of_sixteen_positions(side, squares):
    """It ignores three rows and columns of the 11x11 maps of 84x84 images; a 1x1 map is one square."""
    net, x = nets.build("resnet18-pool2", (3, side, side), 7).eval(), images((3, side, side))
    maps = net.blocks(torch.relu(net.bn(net.stem(x))))  # (2, 160, h, w)
    parts = [
        maps[..., 4 * i : 4 * i + 4, 4 * j : 4 * j + 4].mean((2, 3))
        for i in range(squares)
        for j in range(squares)
    ]
    torch.testing.assert_close(net.features(x), torch.stack(parts, 2).flatten(1))
    assert net(x).shape == (2, 7)


def test_the_usual_resnet18_has_11173962_parameters():
    """The number of parameters of torchvision's resnet18 with a 3x3 stem and 10 classes."""
    assert count(nets.ResNet18((3, 32, 32), 10, width=64)) == 11_173_962


def test_the_resnet18_has_eighteen_layers_and_halves_the_image_three_times():
    net = nets.build("resnet18", (3, 32, 32), 10).eval()
    layers = [
        m for n, m in net.named_modules() if isinstance(m, nn.Conv2d | nn.Linear) and "shortcut" not in n
    ]
    assert len(layers) == 18
    assert net.blocks(net.stem(images((3, 32, 32)))).shape == (2, 160, 4, 4)


def test_a_resnet18_block_adds_its_shortcut():
    same = nets._Block(6, 6, 1).eval()
    assert len(same.shortcut) == 0
    nn.init.zeros_(same.bn2.weight)
    x = images((6, 5, 5))
    torch.testing.assert_close(same(x), x)  # the branch is silent, x is not negative
    wider = nets._Block(6, 12, 2)
    assert len(wider.shortcut) == 2 and wider(x).shape == (2, 12, 3, 3)


RESIDUAL = {  # name: (image, classes, parameters, what each stage gives)
    "resnet18-wide": ((3, 32, 32), 100, 11_220_132, [(64, 32, 32), (128, 16, 16), (256, 8, 8), (512,)]),
    "resnet18-large": ((3, 224, 224), 1000, 11_689_512, [(64, 56, 56), (128, 28, 28), (256, 14, 14), (512,)]),
    "resnet32": ((3, 32, 32), 100, 472_756, [(16, 32, 32), (32, 16, 16), (64,)]),
    "resnet10": ((3, 16, 16), 20, 175_280, [(12, 16, 16), (24, 8, 8), (48, 4, 4), (96,)]),
    "resnet34": ((3, 32, 32), 20, 21_287_252, [(64, 32, 32), (128, 16, 16), (256, 8, 8), (512,)]),
    "resnet8": ((1, 16, 16), 10, 77_754, [(16, 16, 16), (32, 8, 8), (64,)]),
    "resnet8-wide": ((3, 16, 16), 20, 309_940, [(32, 16, 16), (64, 8, 8), (128,)]),
}


@pytest.mark.parametrize("name", RESIDUAL)
def test_a_residual_network_divides_after_each_stage(name):
    """Its size, and what each stage gives, are those in the papers; both parts together are the network."""
    shape, classes, size, sizes = RESIDUAL[name]
    net, x = nets.build(name, shape, classes).eval(), images(shape)
    assert count(net) == size and net.stages == len(sizes)
    with torch.no_grad():
        whole = net(x)
        for stage, expected in enumerate(sizes, 1):
            u = net.until(x, stage)
            assert u.shape == (2, *expected) and u.min() >= 0
            assert torch.equal(net.after(u, stage), whole)
    assert torch.equal(net.features(x), net.until(x, net.stages))


def test_the_layers_until_a_stage_are_those_that_it_uses():
    net, x = nets.build("resnet10", (3, 16, 16), 5).eval(), images((3, 16, 16))
    for stage in (1, 2, 3, 4):
        net.zero_grad()
        net.until(x, stage).sum().backward()
        used = {name for name, p in net.named_parameters() if p.grad is not None}
        inside = {id(p) for layer in net.layers_until(stage) for p in layer.parameters()}
        assert used == {name for name, p in net.named_parameters() if id(p) in inside}
        assert len(used) == 3 + 6 * stage + 3 * (stage - 1) and "head.weight" not in used


def test_the_large_stem_is_that_of_the_usual_resnet18():
    net, x = nets.build("resnet18-large", (3, 64, 64), 5).eval(), images((3, 64, 64))
    first = nn.functional.conv2d(x, net.stem.weight, stride=2, padding=3)
    first = nn.functional.max_pool2d(torch.relu(net.bn(first)), 3, 2, 1)
    torch.testing.assert_close(net.until(x, 1), net.blocks[1](net.blocks[0](first)))


def test_the_resnet34_has_34_layers_and_36_batch_normalisations():
    net = nets.build("resnet34", (3, 32, 32), 20)
    layers = [n for n, m in net.named_modules() if isinstance(m, nn.Conv2d | nn.Linear) and "short" not in n]
    norms = [m for m in net.modules() if isinstance(m, nn.BatchNorm2d)]
    assert len(layers) == 34 and len(norms) == 36 and sum(m.num_features for m in norms) == 8512
    assert net.ends == (3, 7, 13, 16)


def test_the_maps_of_the_last_stage_are_what_is_averaged():
    net, x = nets.build("resnet8", (1, 16, 16), 5).eval(), images((1, 16, 16))
    maps = net.maps(x, net.stages)
    assert maps.shape == (2, 64, 4, 4)
    torch.testing.assert_close(maps.mean((2, 3)), net.features(x))


# ---- start values from a file


def test_weights_of_torchvision_give_the_features_of_torchvision(tmp_path):
    torch.manual_seed(0)
    theirs = torchvision().models.resnet18()
    for module in theirs.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
    torch.save(theirs.state_dict(), tmp_path / "weights.pt")
    net, x = nets.build("resnet18-large", (3, 64, 64), 5).eval(), images((3, 64, 64))
    head = net.head.weight.clone()
    nets.load(net, tmp_path / "weights.pt")
    theirs.fc = nn.Identity()
    torch.testing.assert_close(net.features(x), theirs.eval()(x))
    assert torch.equal(net.head.weight, head), "the head is the learner's own"


def test_weights_of_the_same_network_are_taken_over(tmp_path):
    one, other = (nets.build("resnet8", (1, 8, 8), k) for k in (3, 7))
    torch.save(one.state_dict(), tmp_path / "weights.pt")
    nets.load(other, tmp_path / "weights.pt")
    assert torch.equal(one.features(images((1, 8, 8))), other.features(images((1, 8, 8))))


class Gadget:
    """Something that is no tensor."""


def test_weights_that_do_not_fit_are_refused(tmp_path):
    net, path = nets.build("resnet8", (1, 8, 8), 3), tmp_path / "weights.pt"
    with pytest.raises(ClkitError, match=r"weights.pt cannot be read \(.*No such file.*leave out weights="):
        nets.load(net, path)
    before = copy.deepcopy(net.state_dict())
    for content, said in (
        (nets.build("resnet8-wide", (1, 8, 8), 3).state_dict(), r"stem.weight has the shape \(32, 1, 3, 3\)"),
        ({"conv1.weight": torch.zeros(16, 1, 3, 3)}, "have no bn1.weight"),
        (Gadget(), "cannot be read"),
        ([1, 2], "cannot be read"),
    ):
        torch.save(content, path)
        with pytest.raises(ClkitError, match=said):
            nets.load(net, path)
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())


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
    known = "there is no network 'convnets': use one of mlp, convnet, resnet18.*; did you mean convnet"
    with pytest.raises(ClkitError, match=known):
        nets.build("convnets", (1, 8, 8), 4)


ZENKE = [9 * 3 * 32 + 32, 9 * 32 * 32 + 32, 9 * 32 * 64 + 64, 9 * 64 * 64 + 64]  # four convolutions
ZENKE_WIDE = [9 * 3 * 64 + 64, 9 * 64 * 64 + 64, 9 * 64 * 128 + 128, 9 * 128 * 128 + 128]


@pytest.mark.parametrize(
    "name, convs, flat, total",
    [("zenke", ZENKE, 64 * 6 * 6, 1_276_508), ("zenke-wide", ZENKE_WIDE, 128 * 6 * 6, 2_650_748)],
)
def test_the_networks_for_cifar_10_100_have_these_parameters(name, convs, flat, total):
    net = nets.build(name, (3, 32, 32), 60)
    assert [count(conv) for conv in net.convs] == convs
    assert count(net.dense) == (flat + 1) * 512 and count(net.head) == (512 + 1) * 60
    assert count(net) == total == sum(convs) + (flat + 1) * 512 + (512 + 1) * 60
    assert net.features(images((3, 32, 32))).shape == (2, 512)


@pytest.mark.parametrize("side, sides", [(32, [32, 30, 15, 13]), (28, [28, 26, 13, 11]), (8, [8, 6, 3, 1])])
def test_the_network_of_zenke_pads_every_second_convolution(side, sides):
    net, found = nets.build("zenke", (3, side, side), 10), []
    for conv in net.convs:
        conv.register_forward_hook(lambda module, x, y: found.append(tuple(y.shape[2:])))
    net(images((3, side, side)))
    assert found == [(s, s) for s in sides]
    assert not any(isinstance(m, nn.Dropout | nn.modules.batchnorm._NormBase) for m in net.modules())


def test_the_network_of_zenke_computes_its_formula():
    """The reference is a plain chain of torch layers, flattened map by map."""
    net = nets.ZenkeNet((3, 12, 16), 5, widths=(2, 3, 4, 5), dense=7)
    chain = nn.Sequential(
        nn.Conv2d(3, 2, 3, padding="same"),
        nn.ReLU(),
        nn.Conv2d(2, 3, 3),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(3, 4, 3, padding="same"),
        nn.ReLU(),
        nn.Conv2d(4, 5, 3),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(5 * 1 * 2, 7),
        nn.ReLU(),
        nn.Linear(7, 5),
    )
    chain.load_state_dict(dict(zip(chain.state_dict(), net.state_dict().values())))
    x = images((3, 12, 16))
    torch.testing.assert_close(net(x), chain(x))
    torch.testing.assert_close(net.features(x), chain[:-1](x))


def test_the_network_of_zenke_starts_like_the_convnet():
    """He et al. 2015: normal weights of variance 2 / inputs, biases 0; the head as torch makes it."""
    torch.manual_seed(0)
    net = nets.build("zenke", (3, 32, 32), 60)
    for layer in (*net.convs, net.dense):
        ratio = layer.weight.detach() / (2 / layer.weight[0].numel()) ** 0.5
        assert 0.9 < ratio.std() < 1.1 and not layer.bias.any()
        assert ratio.abs().max() > 2.5, "normal, not uniform"
    assert net.head.weight.abs().max() <= 512**-0.5 and net.head.bias.any()


@pytest.mark.parametrize("name", ["zenke", "zenke-wide"])
@pytest.mark.parametrize("side", [(7, 8), (8, 7), (2, 2)])
def test_images_too_small_for_the_network_of_zenke_are_refused(name, side):
    with pytest.raises(ClkitError, match=f"{side[0]}x{side[1]} pixels are too small.*8x8"):
        nets.build(name, (3, *side), 10)


# ---- features of both signs


@pytest.mark.parametrize("name", nets.NETS)
def test_without_the_last_relu_features_have_both_signs(name):
    """With it, they are those of the same network, cut off at 0 before the averaging."""
    side = 32 if name == "resnet18-large" else 16
    torch.manual_seed(0)
    net = nets.build(name, (3, side, side), 5, rectified=False).eval()
    x = images((3, side, side), 4)
    with torch.no_grad():
        signed = net.features(x)
        net.rectified = True
        rectified = net.features(x)
    assert (signed < 0).any() and (signed > 0).any() and (rectified >= 0).all()
    assert signed.shape == rectified.shape and (rectified >= signed - 1e-6).all()
    if name in ("mlp", "convnet") or name.startswith("zenke"):
        assert torch.equal(rectified, signed.relu())


def test_only_the_last_block_is_not_rectified():
    net = nets.build("resnet10", (3, 16, 16), 5, rectified=False)
    assert [block.rectified for block in net.blocks] == [True, True, True, False]
    assert nets.build("resnet10", (3, 16, 16), 5).rectified and not net.rectified
