"""The quadratic penalty against autograd; its views of parameters."""

import pytest
import torch
from torch.nn.utils import parameters_to_vector as vector

from clkit.blocks import nets
from clkit.blocks.quadratic import QuadraticPenalty, split_like
from tests.modes import HostSyncs
from tests.reference.nets import gradient_of, small_nets  # noqa: F401  a fixture

SHAPE = (1, 4, 4)


def made(net):
    """A network in double precision, and an importance and a centre for each weight."""
    torch.manual_seed(0)
    net = nets.build(net, SHAPE, 4).double()
    size = sum(p.numel() for p in net.parameters())
    return net, torch.rand(size, dtype=torch.float64, device="cpu").pow(8), torch.randn(size).double()


@pytest.mark.parametrize("net", ["tiny", "conv", "norm"])
@pytest.mark.parametrize("where, rest", [("given", 0.0), ("given", 2.5), ("now", 0.0)])
def test_value_and_gradient_are_those_of_autograd(net, where, rest):
    net, importance, centre = made(net)
    if where == "now":
        centre = vector(net.parameters()).detach().clone()
    penalty = QuadraticPenalty(net, importance, centre if where == "given" else None, rest)
    with torch.no_grad():
        for p in net.parameters():  # a step away from where it was made
            p += 0.1 * torch.randn_like(p)
    value = 3.0 * (rest + (importance * (vector(net.parameters()) - centre).square()).sum())
    for p in net.parameters():
        p.grad = torch.ones_like(p)
    torch.testing.assert_close(penalty.add_gradient(3.0), value.detach())
    torch.testing.assert_close(
        torch.cat([p.grad.flatten() for p in net.parameters()]) - 1, gradient_of(net, value)
    )


def test_tensors_that_are_given_are_looked_at():
    net, importance, centre = made("tiny")
    penalty = QuadraticPenalty(net, importance, centre)
    importance.zero_()
    for p in net.parameters():
        p.grad = torch.zeros_like(p)
    assert penalty.add_gradient(1.0) == 0 and not any(p.grad.any() for p in net.parameters())


def test_views_have_the_shapes_and_the_memory():
    net, importance, _ = made("conv")
    parts = split_like(importance, list(net.parameters()))
    assert [p.shape for p in parts] == [p.shape for p in net.parameters()]
    assert torch.equal(torch.cat([p.flatten() for p in parts]), importance)
    parts[0].fill_(7)
    assert (importance[: parts[0].numel()] == 7).all()


def test_a_large_strength_does_not_lose_digits():
    """In single precision, near the centre, at strength 1e8, the value equals that of double precision."""
    net, importance, _ = made("tiny")
    net = net.float()
    penalty = QuadraticPenalty(net, importance.float())
    with torch.no_grad():
        net.head.bias += 1e-4
    for p in net.parameters():
        p.grad = torch.zeros_like(p)
    expected = 1e8 * float(importance[-4:].sum()) * 1e-8
    assert float(penalty.add_gradient(1e8)) == pytest.approx(expected, rel=1e-2)


def test_it_waits_for_no_value():
    net, importance, centre = made("tiny")
    penalty = QuadraticPenalty(net, importance, centre)
    for p in net.parameters():
        p.grad = torch.zeros_like(p)
    with HostSyncs() as syncs:
        penalty.add_gradient(1.0)
    assert syncs.total == 0
