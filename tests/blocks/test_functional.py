"""Virtual steps against real ones; sums over images against a loop."""

import copy

import pytest
import torch
from torch.func import functional_call
from torch.nn import functional as F

from clkit.blocks import nets
from clkit.blocks.functional import step_down, sum_over_images, sum_over_images_mlp, tensors_of
from tests.reference.nets import gradient_of, small_nets  # noqa: F401  a fixture

SHAPE = (1, 6, 6)


def made(net):
    """A network in double precision after some images, and a batch (x, y)."""
    torch.manual_seed(0)
    net = nets.build(net, SHAPE, 4).double()
    x = torch.rand(7, *SHAPE, dtype=torch.float64, device="cpu")
    net(x)
    return net, x, torch.arange(7, device="cpu") % 4


@pytest.mark.parametrize("net", ["tiny", "conv", "norm"])
def test_a_virtual_step_is_one_of_gradient_descent_and_leaves_no_mark(net):
    net, x, y = made(net)
    before, twin = copy.deepcopy(net.state_dict()), copy.deepcopy(net)
    tensors = tensors_of(net)
    loss = F.cross_entropy(functional_call(net, tensors, (x,)), y)
    after = step_down(net, torch.autograd.grad(loss, list(net.parameters())), 0.5, tensors)
    F.cross_entropy(twin(x), y).backward()
    torch.optim.SGD(twin.parameters(), 0.5).step()
    assert after.keys() == before.keys() and not any(t.requires_grad for t in after.values())
    torch.testing.assert_close(after, dict(twin.state_dict()))
    assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items())
    functional_call(net, after, (x,))  # its buffers are copies
    assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items())


def test_a_virtual_step_by_default_begins_with_the_tensors_of_now():
    net, x, y = made("norm")
    F.cross_entropy(net(x), y).backward()
    after = step_down(net, [p.grad for p in net.parameters()], 0.5)
    for name, p in net.named_parameters():
        torch.testing.assert_close(after[name], p.detach() - 0.5 * p.grad)
    for name, b in net.named_buffers():
        assert torch.equal(after[name], b) and after[name] is not b


@pytest.mark.parametrize("of", [torch.square, torch.abs])
@pytest.mark.parametrize("net", ["tiny", "linear", "conv", "norm"])
def test_sums_over_images_against_a_loop(of, net):
    net, x, _ = made(net)
    net.eval()
    error = torch.randn(7, 4, dtype=torch.float64, device="cpu")
    expected = sum(of(gradient_of(net, net(image[None])[0] @ e)) for image, e in zip(x, error))
    assert expected.max() > 0
    torch.testing.assert_close(sum_over_images(of, net, x, error), expected, rtol=1e-9, atol=1e-15)
    if isinstance(net, nets.MLP):
        with torch.no_grad():
            found = sum_over_images_mlp(of, net, x, error)
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-15)
