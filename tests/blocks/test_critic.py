"""The critic's gradient with respect to images, written out layer by layer, against autograd."""

import pytest
import torch
from torch.nn import functional as F

from clkit.blocks.gan import Critic, TwoHeads, critic_losses
from clkit.engine.seeding import seed_everything


def critic_of(norm, shape=(2, 16, 16)):
    """A critic in double precision, with images that go with it."""
    seed_everything(1, 0)
    critic = Critic(shape, 3, norm)
    critic.grow(2, anew=False)
    with torch.no_grad():
        for layer in critic.norms if norm else ():
            layer.weight.uniform_(0.5, 2)
            layer.bias.uniform_(-1, 1)
    return critic.double(), torch.rand(5, *shape, dtype=torch.float64, device="cpu") * 2 - 1


def with_gradients(critic, gradient):
    """The gradient with respect to images, and that of its penalty with respect to every parameter."""
    penalty = (gradient.flatten(1).norm(dim=1) - 1).square().mean()
    parameters = list(critic.parameters())
    return gradient, *torch.autograd.grad(penalty, parameters, materialize_grads=True)


@pytest.mark.parametrize("norm", [True, False])
@pytest.mark.parametrize("side", [16, 24])
def test_the_gradient_written_out_is_that_of_autograd(norm, side):
    critic, x = critic_of(norm, (2, side, side))
    ours = with_gradients(critic, critic.gradient_of_value(x))
    theirs = with_gradients(critic, TwoHeads.gradient_of_value(critic, x))
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-12)
    assert all(p.abs().max() > 0 for p, (name, _) in zip(ours[1:], critic.named_parameters())
               if not name.startswith("classes") and "bias" not in name)  # fmt: skip


def test_batch_normalisation_is_part_of_the_gradient():
    """The control: with statistics taken as constants, the gradient is another one."""
    critic, x = critic_of(True)
    fixed = x.detach().requires_grad_()
    h = F.leaky_relu(critic.convs[0](fixed), 0.2)
    for conv, norm in zip(critic.convs[1:], critic.norms):
        h = conv(h)
        variance, mean = torch.var_mean(h.detach(), (0, 2, 3), correction=0)
        h = F.leaky_relu(F.batch_norm(h, mean, variance, norm.weight, norm.bias, eps=norm.eps), 0.2)
    (gradient,) = torch.autograd.grad(critic.value(h.flatten(1)).sum(), fixed)
    assert (gradient - critic.gradient_of_value(x)).abs().max() > 1e-3 * gradient.abs().max()


@pytest.mark.parametrize("norm", [True, False])
def test_the_losses_of_the_critic_leave_its_statistics_and_images_alone(norm):
    critic, x = critic_of(norm)
    before = {name: b.clone() for name, b in critic.named_buffers()}
    value, penalty = critic_losses(critic, x, x.flip(0))
    (value + penalty).backward()
    assert all(torch.equal(b, before[name]) for name, b in critic.named_buffers())
    assert x.grad is None and critic.convs[0].weight.grad.abs().max() > 0 and penalty > 0
