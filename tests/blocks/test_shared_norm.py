"""Batch norm with multiplicity against repeated images and against torch's batch norm."""

import copy

import pytest
import torch
from torch import nn

from clkit.blocks import nets
from clkit.blocks.shared_norm import SharedNorm, bn_loss, bn_mode, convert, input_gaps, norms


def doubles(*size, seed=0):
    draw = torch.Generator("cpu").manual_seed(seed)
    return torch.randn(*size, generator=draw, dtype=torch.float64, device="cpu")


def same(a, b, tolerance=1e-10):
    torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("mode", ["update", "batch"])
@pytest.mark.parametrize("momentum", [0.1, None])
def test_with_multiplicity_it_is_that_of_a_batch_with_copies(mode, momentum):
    counts = torch.tensor([3, 1, 0, 4], device="cpu")
    x, gradient = doubles(4, 3, 5, 2), doubles(8, 3, 5, 2, seed=1)
    whole = x.repeat_interleave(counts, 0).requires_grad_()
    few = x.clone().requires_grad_()
    both = [SharedNorm(3, momentum=momentum).double() for _ in range(2)]
    for norm in both:
        norm.weight.data, norm.bias.data = doubles(3, seed=2), doubles(3, seed=3)
    with bn_mode(both[0], mode=mode):
        expected = both[0](whole)
    with bn_mode(both[1], mode=mode, multiplicity=counts.double()):
        found = both[1](few)
    same(found.detach().repeat_interleave(counts, 0), expected.detach())
    expected.backward(gradient)
    origin = torch.arange(4, device="cpu").repeat_interleave(counts)
    found.backward(torch.zeros_like(x).index_add_(0, origin, gradient))
    same(few.grad, torch.zeros_like(x).index_add_(0, origin, whole.grad))
    for a, b in zip(both[0].parameters(), both[1].parameters(), strict=True):
        same(a.grad, b.grad)
    for a, b in zip(both[0].buffers(), both[1].buffers(), strict=True):
        same(a, b)
    assert int(both[1].num_batches_tracked) == (mode == "update")


def test_a_whole_network_with_multiplicity_is_that_with_copies():
    """Gradients of images and of all weights, through twenty norms and the shortcuts."""
    torch.manual_seed(0)
    net = convert(nets.ResNet18((1, 6, 6), 3, width=2).double(), stem_average=True).double()
    twin, counts = copy.deepcopy(net), torch.tensor([2, 5, 1], device="cpu")
    x, gradient = doubles(3, 1, 6, 6), doubles(3, 3, seed=1)
    few, whole = x.clone().requires_grad_(), x.repeat_interleave(counts, 0).requires_grad_()
    with bn_mode(net, mode="update", multiplicity=counts.double()):
        net(few).backward(gradient * counts[:, None])
    twin(whole).backward(gradient.repeat_interleave(counts, 0))
    same(few.grad / counts[:, None, None, None], whole.grad[[0, 2, 7]], 1e-8)
    for a, b in zip(net.parameters(), twin.parameters(), strict=True):
        same(a.grad, b.grad, 1e-8)
    for a, b in zip(net.buffers(), twin.buffers(), strict=True):
        same(a, b)


@pytest.mark.parametrize("momentum", [0.1, None])
def test_it_is_torchs_unless_told_otherwise(momentum):
    ours, torchs = (kind(3, momentum=momentum).double() for kind in (SharedNorm, nn.BatchNorm2d))
    for seed in range(4):
        x = doubles(4, 3, 5, 5, seed=seed) + seed
        same(ours(x), torchs(x))
        for a, b in zip(ours.buffers(), torchs.buffers(), strict=True):
            same(a, b)
    before = copy.deepcopy(ours.state_dict())
    with bn_mode(ours, mode="batch"):
        same(ours.eval()(x), torchs(x))
    torchs.load_state_dict(before)
    assert torch.equal(ours.running_mean, torchs.running_mean)
    with bn_mode(ours, mode="running"):
        same(ours.train()(x), torchs.eval()(x))


def test_modes_end_with_their_block_even_by_an_error():
    net = convert(nn.Sequential(nn.BatchNorm2d(2), nn.Sequential(nn.BatchNorm2d(2))))
    with pytest.raises(KeyError), bn_mode(net, mode="batch"):
        with bn_mode(net, mode="running", multiplicity=torch.ones(3, device="cpu")):
            assert [n.mode for n in norms(net)] == ["running"] * 2
        assert [(n.mode, n.multiplicity) for n in norms(net)] == [("batch", None)] * 2
        raise KeyError
    assert [n.mode for n in norms(net)] == [None] * 2


@pytest.mark.parametrize("average, first", [(True, None), (False, 0.1)])
def test_converted_networks_keep_their_values_but_for_the_stem(average, first):
    torch.manual_seed(0)
    net = nets.ResNet18((1, 8, 8), 3, width=2)
    twin = convert(copy.deepcopy(net), average)
    assert [n.momentum for n in norms(twin)] == [first, *[0.1] * 19]
    x = torch.rand(4, 1, 8, 8, device="cpu")
    assert torch.equal(net(x), twin(x)) and list(net.state_dict()) == list(twin.state_dict())


def test_gaps_are_distances_of_both_statistics():
    x = doubles(3, 2, 4, 5)
    mean, var = torch.tensor([0.5, -1], dtype=x.dtype), torch.tensor([1, 2], dtype=x.dtype)
    means = torch.stack([x[:, c].mean() for c in range(2)])
    variances = torch.stack([x[:, c].flatten().var(unbiased=True) for c in range(2)])
    expected = (means - mean).norm() + (variances - var).norm()
    same(bn_loss(x, mean, var), expected)
    norm = SharedNorm(2).double()
    norm.running_mean.copy_(mean), norm.running_var.copy_(var)
    with input_gaps(norm) as gaps:
        norm(x), norm(x)
    assert len(gaps) == 2 and not norm._forward_pre_hooks
    same(gaps[0], expected)
    assert float(gaps[1]) != float(gaps[0]), "against the statistics before each pass"
