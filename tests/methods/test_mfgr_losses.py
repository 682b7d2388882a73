"""MFGR's equations against closed forms: each loss, the statistics of batch normalisation, the generator."""

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from clkit.blocks import nets
from clkit.engine.learner import LearnerError, frozen
from clkit.methods.mfgr import losses
from clkit.methods.mfgr.generator import LARGE, LARGER, SMALL, Generator
from clkit.methods.mfgr.inheritance import Inheritance, shares
from clkit.methods.mfgr.statistics import Statistics

L3 = math.log(3)


def double(values):
    return torch.tensor(values, dtype=torch.float64)


def draw(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


# ---- stage 1


def test_l_oh_is_the_cross_entropy_with_the_largest_class():
    logits = double([[0, L3], [L3, 0]])
    assert losses.l_oh(logits).item() == pytest.approx(math.log(4 / 3), abs=1e-12)
    assert losses.l_oh(logits + double([[5.0], [-7.0]])).item() == pytest.approx(math.log(4 / 3), abs=1e-12)
    assert losses.l_oh(1e3 * torch.eye(3, dtype=torch.float64)).item() == 0
    free = logits.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(losses.l_oh(free), free)
    expected = (logits.softmax(1) - double([[0, 1], [1, 0]])) / 2
    torch.testing.assert_close(gradient, expected)  # the label is a constant


@pytest.mark.parametrize("classes", [2, 4, 20])
def test_l_cd_is_minus_the_decimal_entropy_of_the_mean_output(classes):
    least = -math.log10(classes)
    assert losses.l_cd(torch.zeros(3, classes, dtype=torch.float64)).item() == pytest.approx(least, abs=1e-12)
    sure = 50 * torch.eye(classes, dtype=torch.float64)
    assert losses.l_cd(sure).item() == pytest.approx(least, abs=1e-9), "confident and balanced"
    assert losses.l_cd(sure[:1]).item() == pytest.approx(0, abs=1e-9), "one class alone"
    assert least < losses.l_cd(draw(9, classes)).item() < 0


def test_l_cd_has_a_value_and_a_gradient_where_a_class_has_probability_0():
    logits = torch.tensor([[0.0, 0.0, -1e4]], requires_grad=True)
    value = losses.l_cd(logits)
    assert value.item() == pytest.approx(-math.log10(2), abs=1e-6)
    (gradient,) = torch.autograd.grad(value, logits)
    assert gradient.isfinite().all()
    q = logits.detach().softmax(1).mean(0).requires_grad_()
    (unsafe,) = torch.autograd.grad((q * q.log()).sum(), q)
    assert not unsafe.isfinite().all(), "the formula as it stands has none"


def test_l_div_is_minus_half_the_symmetric_divergence():
    a, b = double([[[[0, L3]]]]), double([[[[0, 0]]]])
    assert losses.l_div(a, b).item() == pytest.approx(-L3 / 8, abs=1e-12) == -0.13732653608351372
    p, q = double([0.25, 0.75]), double([0.5, 0.5])
    there, back = (p * (p / q).log()).sum(), (q * (q / p).log()).sum()
    assert (there.item(), back.item()) == pytest.approx((0.130812, 0.143841), abs=1e-6)
    assert losses.l_div(a, b).item() == pytest.approx(-(there + back).item() / 2, abs=1e-12)


def test_l_div_of_pairs():
    a, b = draw(5, 3, 4, 4), draw(5, 3, 4, 4, seed=1)
    log_a, log_b = (x.flatten(1).log_softmax(1) for x in (a, b))
    twice = [
        F.kl_div(u, v, reduction="batchmean", log_target=True) for u, v in ((log_a, log_b), (log_b, log_a))
    ]
    torch.testing.assert_close(losses.l_div(a, b), -sum(twice) / 2)
    torch.testing.assert_close(losses.l_div(a, b), losses.l_div(b, a))
    assert losses.l_div(a, b) < -0.5 and losses.l_div(a, a) == 0
    brighter = losses.l_div(a, b + draw(5, 1, 1, 1, seed=2))
    torch.testing.assert_close(brighter, losses.l_div(a, b))  # a shift of the brightness is no diversity
    assert not torch.isclose(losses.l_div(a, 2 * b), losses.l_div(a, b)), "the contrast is"
    a, b = a.requires_grad_(), b.requires_grad_()
    assert all(g.abs().sum() > 0 for g in torch.autograd.grad(losses.l_div(a, b), (a, b)))


def test_independent_normal_pixels_have_l_div_of_minus_one():
    assert losses.l_div(draw(200, 3, 16, 16), draw(200, 3, 16, 16, seed=1)).item() == pytest.approx(
        -1, abs=0.05
    )


@pytest.mark.parametrize("n, count", [(512, 200), (100, 50), (101, 50), (9, 200)])
def test_pairs_are_disjoint_and_without_repeats(n, count):
    torch.manual_seed(0)
    first, second = losses.pairs(n, count, "cpu")
    size = min(count, n // 2)
    assert len(set(first.tolist())) == len(first) == size and set(first.tolist()) <= set(range(n // 2))
    assert len(set(second.tolist())) == len(second) and set(second.tolist()) <= set(range(n // 2, n))
    assert len(second) in (size, min(count, n - n // 2))
    again = losses.pairs(n, count, "cpu")
    assert n < 100 or first.tolist() != again[0].tolist(), "drawn anew"
    assert n < 100 or first.tolist() != sorted(first.tolist())


def test_l_act_and_l_tv():
    features = double([[1, -3], [0, 4]])
    assert losses.l_act(features).item() == -2
    ramp = torch.arange(4.0).expand(1, 1, 3, 4)  # rises by 1 to the right
    assert losses.l_tv(ramp).item() == pytest.approx((0 + 1 + 1 + 1) / 4)
    assert losses.l_tv(draw(50, 3, 32, 32)).item() < 3e-3, "signs cancel: noise counts as smooth"
    x = draw(2, 3, 5, 5)
    down = (x[:, :, 1:] - x[:, :, :-1]).mean()
    border = (x[:, :, -1] - x[:, :, 0]).mean() / 4
    torch.testing.assert_close(down, border)  # the mean of the steps is that of the borders


# ---- batch normalisation


class OneNorm(nn.Module):
    """A batch normalisation of four channels, once or twice."""

    def __init__(self, times=1):
        super().__init__()
        self.norms = nn.ModuleList(nn.BatchNorm2d(4) for _ in range(times)).double().eval()

    def forward(self, x):
        for norm in self.norms:
            norm(x)

    def hold(self, x):
        for norm in self.norms:
            norm.running_mean.copy_(x.mean((0, 2, 3)))
            norm.running_var.copy_(x.var((0, 2, 3), correction=0))


def l_bn(net, x):
    with Statistics(net) as statistics:
        net(x)
        return losses.l_bn(statistics.gaps())


def test_l_bn_of_one_layer():
    net, x = OneNorm(), draw(6, 4, 3, 5)
    net.hold(x)
    assert l_bn(net, x).item() == pytest.approx(0, abs=1e-12), "biased variance"
    assert l_bn(net, x + 1).item() == pytest.approx(2, abs=1e-12), "sqrt(4), not 4"
    m, v = x.mean((0, 2, 3)), x.var((0, 2, 3), correction=0)
    torch.testing.assert_close(l_bn(net, 2 * x), (3 * v).norm() + m.norm())


def test_l_bn_is_a_mean_over_layers():
    x = draw(6, 4, 3, 5)
    one, two = OneNorm(), OneNorm(2)
    torch.testing.assert_close(l_bn(one, x), l_bn(two, x))
    with Statistics(two) as statistics:
        two(x)
        gaps = statistics.gaps()
    assert gaps.shape == (2,) and not torch.isclose(gaps.sum(), l_bn(two, x))
    torch.testing.assert_close(losses.l_bn(gaps, "sum"), 2 * losses.l_bn(gaps))


def test_statistics_see_what_goes_in_and_pass_the_gradient_on():
    net, x = nets.build("resnet8", (3, 8, 8), 5).eval(), draw(4, 3, 8, 8).float().requires_grad_()
    norms = [m for m in net.modules() if isinstance(m, nn.BatchNorm2d)]
    stored, hooks = [], []
    for norm in norms:
        hooks.append(norm.register_forward_pre_hook(lambda norm, inputs: stored.append(inputs[0])))
    with Statistics(net) as statistics:
        net(x)
        gaps = statistics.gaps()
    for hook in hooks:
        hook.remove()
    assert len(gaps) == len(norms) == len(stored) == 9
    for found, norm, a in zip(gaps, norms, stored):
        var = a.var((0, 2, 3), correction=0)
        gap = (var - norm.running_var).norm() + (a.mean((0, 2, 3)) - norm.running_mean).norm()
        torch.testing.assert_close(found, gap, rtol=1e-4, atol=1e-5)
    (gradient,) = torch.autograd.grad(gaps.mean(), x)
    assert gradient.abs().sum() > 0


def test_statistics_leave_the_network_and_no_hooks():
    net = frozen(nets.build("resnet8", (3, 8, 8), 5))
    before = {name: value.clone() for name, value in net.state_dict().items()}
    with pytest.raises(RuntimeError, match="stop"), Statistics(net):
        net(torch.rand(4, 3, 8, 8))
        raise RuntimeError("stop")
    assert all(not m._forward_pre_hooks for m in net.modules())
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    net.train()(torch.rand(4, 3, 8, 8))
    assert not torch.equal(net.bn.running_mean, before["bn.running_mean"]), "in training mode it would change"


# ---- stage 2


def test_kd_is_a_cross_entropy_of_softened_outputs():
    teacher, flat = double([[2, 0]]), double([[0, 0]])
    assert losses.l_kd(flat, teacher, 2.0).item() == pytest.approx(math.log(2), abs=1e-12)
    least = losses.l_kd(teacher, teacher, 2.0)
    assert least.item() == pytest.approx(0.582203, abs=1e-6), "the entropy of the teacher"
    torch.testing.assert_close(losses.l_kd(teacher + 3, teacher, 2.0), least)
    logits, teacher = draw(5, 7), draw(5, 4, seed=1)
    assert losses.l_kd(logits, teacher, 3.0) > losses.l_kd(teacher, teacher, 3.0)
    logits.requires_grad_()
    (gradient,) = torch.autograd.grad(losses.l_kd(logits, teacher, 3.0), logits)
    expected = ((logits[:, :4] / 3).softmax(1) - (teacher / 3).softmax(1)) / (3 * 5)
    torch.testing.assert_close(gradient[:, :4], expected)
    assert not gradient[:, 4:].any(), "new logits take no part"


def test_the_cross_entropy_sees_new_logits_alone():
    logits, y = draw(6, 5).requires_grad_(), torch.tensor([3, 4, 3, 4, 4, 3])
    value = losses.l_ce(logits, y, 3)
    rows = [-row[3:].log_softmax(0)[k - 3] for row, k in zip(logits, y)]
    torch.testing.assert_close(value, torch.stack(rows).mean())
    (gradient,) = torch.autograd.grad(value, logits)
    assert not gradient[:, :3].any() and gradient[:, 3:].any()
    with pytest.raises((IndexError, RuntimeError)):
        losses.l_ce(logits, torch.tensor([2, 3, 3, 3, 3, 3]), 3)  # an old label


def test_lambda_4_is_the_share_of_old_classes():
    equal = [losses.lambda_4(20 * k, 20 * (k + 1)) for k in range(5)]
    assert equal == [0, 1 / 2, 2 / 3, 3 / 4, 4 / 5]
    half = [losses.lambda_4(50 + 10 * k, 60 + 10 * k) for k in range(5)]
    assert half == [5 / 6, 6 / 7, 7 / 8, 8 / 9, 9 / 10]
    assert losses.l_ki(1.0, 2.0, 3.0, 0.5) == 3.0 and losses.l_ki(1.0, 2.0, 3.0, 0.0) == 1.0


class Task:
    def __init__(self, first, seen):
        self.first, self.seen = first, seen


def test_as_many_generated_images_of_a_class_as_new_ones():
    counts = [Inheritance().replayed(128, Task(20 * k, 20 * (k + 1))) for k in range(1, 5)]
    assert counts == [128, 256, 384, 512]
    assert Inheritance(ratio=5.0).replayed(128, Task(20, 40)) == 640
    assert Inheritance(generated=512).replayed(16, Task(20, 40)) == 512
    assert Inheritance().replayed(16, Task(2, 102)) == 2


def test_no_class_has_more_than_its_share():
    labels = torch.tensor([0, 1, 0, 0, 2, 1, 0])
    assert labels[shares(labels, 2)].tolist() == [0, 1, 0, 2, 1]
    assert shares(labels, 4).all() and not shares(labels, 0).any()


# ---- the generator


def test_the_generator_of_the_paper():
    made = Generator((3, 32, 32), 1000, SMALL)
    assert sum(p.numel() for p in made.parameters()) == 8_423_939 and made.start == 8
    norms = [m for m in made.modules() if isinstance(m, nn.BatchNorm2d)]
    assert [norm.eps for norm in norms] == [1e-5, 0.8, 0.8, 1e-5] and not norms[-1].affine
    assert {norm.momentum for norm in norms} == {0.1}


@pytest.mark.parametrize("maps, side, start", [(LARGE, 128, 4), (LARGER, 256, 4)])
def test_the_larger_generators(maps, side, start):
    with torch.device("meta"):
        made = Generator((3, side, side), 1000, maps)
        assert made(torch.zeros(2, 1000)).shape == (2, 3, side, side)
    assert made.start == start and 5.08e6 < sum(p.numel() for p in made.parameters()) < 5.09e6


def small(**options):
    torch.manual_seed(0)
    return Generator(**{"shape": (3, 16, 16), "noise": 10, "maps": (16, 16, 8), **options})


def test_a_batch_of_generated_images_is_standardised():
    made = small()
    x = made.draw(200)
    assert x.shape == (200, 3, 16, 16)
    var, mean = torch.var_mean(x, (0, 2, 3), correction=0)
    assert mean.abs().max() < 1e-5 and var.min() > 0.98 and var.max() <= 1 + 1e-5
    alone = made.eval().draw(200)
    assert abs(alone.var() - 1) > 0.1, "not so with running statistics of one batch"


def test_the_generator_computes_its_formula():
    made, z = small(), torch.randn(5, 10)
    x = made.norm((z @ made.first.weight.T + made.first.bias).reshape(5, 16, 4, 4))
    for conv in made.convs:
        x = x.repeat_interleave(2, 2).repeat_interleave(2, 3)
        x = F.conv2d(x, conv.weight, conv.bias, padding=1)
        var, mean = torch.var_mean(x, (0, 2, 3), correction=0, keepdim=True)
        x = (x - mean) / (var + 0.8).sqrt()
        x = torch.where(x > 0, x, 0.2 * x)  # scale and shift are 1 and 0 at the start
    x = F.conv2d(x, made.image.weight, made.image.bias, padding=1).tanh()
    x = (x - x.mean((0, 2, 3), keepdim=True)) / (x.var((0, 2, 3), correction=0, keepdim=True) + 1e-5).sqrt()
    torch.testing.assert_close(made(z), x, rtol=1e-4, atol=1e-5)


def test_images_of_another_side_are_resized():
    made = small(shape=(3, 12, 12), side=16)
    x, inner = made.draw(4), small(shape=(3, 16, 16))
    assert x.shape == (4, 3, 12, 12)
    made.load_state_dict(inner.state_dict())
    z = torch.randn(4, 10)
    torch.testing.assert_close(
        made(z), F.interpolate(inner(z), (12, 12), mode="bilinear", align_corners=False)
    )


@pytest.mark.parametrize("options", [{"shape": (3, 16, 12)}, {"shape": (3, 10, 10)}, {"side": 18}])
def test_images_that_cannot_be_drawn_are_refused(options):
    with pytest.raises(LearnerError, match="cannot draw .* pixels for images of"):
        small(**options)
