"""The GAN of features: sizes, the closed form of its gradient, alignment, Gaussian prototypes."""

import copy
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from clkit.engine.trace import Trace
from clkit.methods.gfr.features import (
    ClassGaussians,
    Critic,
    Generator,
    MapCritic,
    MapGenerator,
    alignment,
    critic_losses,
    factor,
    sides,
)
from clkit.methods.gfr.gfr import GFR, Config


def count(module):
    return sum(p.numel() for p in module.parameters())


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


# ---- networks


@pytest.mark.parametrize("classes, sizes", [(100, (679_424, 577_025)), (1000, (1_140_224, 1_037_825))])
def test_sizes_and_start_values_are_those_of_the_released_code(classes, sizes):
    G, D = Generator((512,), classes, 200, 512), Critic((512,), classes, 512)
    assert (count(G), count(D)) == sizes
    for linear in (m for part in (G, D) for m in part.modules() if isinstance(m, nn.Linear)):
        assert not linear.bias.any() and abs(linear.weight.std() - 0.02) < 0.002
        assert linear.weight.numel() < 1000 or linear.weight.abs().max() > 0.06, "normal, not uniform"
    bound = classes**-0.5
    assert (
        0.99 * bound < D.by_class.abs().max() <= bound and abs(D.by_class.std() * 3**0.5 / bound - 1) < 0.02
    )


def test_the_generator_and_the_critic_compute_their_formulas():
    G, D = Generator((5,), 3, 4, 6), Critic((5,), 3, 6)
    z, c = torch.randn(8, 4), torch.tensor([0, 1, 2, 0, 1, 2, 0, 0])
    u, v = G(z, c), []
    for i, k in enumerate(c.tolist()):
        one_hot = torch.zeros(3)
        one_hot[k] = 1
        h = torch.cat([z[i], one_hot])
        for layer in G.layers:
            h = layer.weight @ h + layer.bias
            h = torch.where(h > 0, h, 0.2 * h)
        torch.testing.assert_close(u[i], (G.out.weight @ h + G.out.bias).clamp(min=0))
        h = u[i]
        for layer in D.layers:
            h = layer.weight @ h + layer.bias
            h = torch.where(h > 0, h, 0.2 * h)
        v.append(D.value.weight[0] @ h + D.value.bias[0] + D.by_class[k] @ h)
    torch.testing.assert_close(D(u, c), torch.stack(v))
    assert u.min() == 0 < u.max()
    assert not torch.allclose(D(u, c), D(u, (c + 1) % 3)), "the class counts"


@pytest.mark.parametrize("side, expected", [(32, [4, 8, 16, 32]), (7, [4, 7]), (14, [4, 7, 14]), (2, [2])])
def test_maps_grow_from_four_pixels_or_fewer(side, expected):
    assert sides(side) == expected
    size, c = (6, side, side), torch.tensor([0, 2])
    G, D = MapGenerator(size, 3, 4, 16), MapCritic(size, 3, 16)
    u = G(G.noise(2), c)
    assert u.shape == (2, *size) and u.min() >= 0 and D(u, c).shape == (2,)
    assert len(D.convs) == len(G.convs) == len(expected) - 1


# ---- the gradient penalty


def doubled(critic, u, c):
    """The gradient of the values by autograd, with a graph."""
    u = u.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(critic(u, c).sum(), u, create_graph=True)
    return gradient


def test_the_closed_form_is_the_gradient_and_has_its_gradients():
    D = Critic((7,), 4, 9).double()
    for p in D.parameters():
        nn.init.normal_(p, std=0.5)
    u, c = torch.randn(12, 7, dtype=torch.float64), torch.randint(4, (12,))
    found = []
    for way in (D.gradient_of_value, lambda u, c: doubled(D, u, c)):
        gradient = way(u, c)
        penalty = (gradient.norm(dim=1) - 1).square().mean()
        D.zero_grad()
        penalty.backward()
        gradients = [torch.zeros_like(p) if p.grad is None else p.grad.clone() for p in D.parameters()]
        found.append((gradient.detach(), penalty.detach(), gradients))
    for a, b in zip(*found):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10)
    assert all(g.abs().max() > 1e-3 for g in found[0][2] if g.dim() == 2 and len(g) > 1)


def test_the_penalty_of_a_linear_critic_does_not_depend_on_the_images():
    """D(u) = (v + P[c]) u has the gradient v + P[c] everywhere."""
    D = Critic((5,), 3, 5, depth=0)
    c = torch.tensor([0, 1, 1, 2])
    wanted = ((D.value.weight + D.by_class[c]).norm(dim=1) - 1).square().mean()
    for _ in range(3):
        _, penalty = critic_losses(D, torch.rand(4, 5), torch.rand(4, 5), c)
        torch.testing.assert_close(penalty, wanted)
    assert not torch.allclose(critic_losses(D, *torch.rand(2, 4, 5), (c + 1) % 3)[1], wanted)


@pytest.mark.parametrize("size", [(3,), (3, 4, 4)])
def test_the_loss_of_the_critic_by_hand(size):
    """Equation 1, and one share of real and fake for each sample."""
    D = (Critic if len(size) == 1 else MapCritic)(size, 3, 6)
    real, fake, c = torch.rand(5, *size), torch.rand(5, *size), torch.randint(3, (5,))
    torch.manual_seed(4)
    value, penalty = critic_losses(D, real, fake, c)
    torch.manual_seed(4)
    share = torch.rand(5, *[1] * len(size))
    gradient = doubled(D, share * real + (1 - share) * fake, c).flatten(1)
    torch.testing.assert_close(penalty, ((gradient.norm(dim=1) - 1) ** 2).mean())
    torch.testing.assert_close(value, sum(D(fake, c) - D(real, c)) / 5)


# ---- replay alignment


class Shifted(nn.Module):
    """The features of another generator, with a difference."""

    def __init__(self, generator, by):
        super().__init__()
        self.generator, self.by = generator, by

    def forward(self, z, c):
        return self.generator(z, c) + self.by


def test_a_copy_is_aligned():
    G = Generator((3,), 2, 4, 6)
    old, z, c = copy.deepcopy(G), torch.randn(4, 4), torch.tensor([0, 1, 1, 0])
    loss = alignment(G, old, z, c)
    loss.backward()
    assert loss == 0 and not any(p.grad.any() for p in G.parameters())
    torch.testing.assert_close(alignment(Shifted(G, 1.0), old, z, c), torch.tensor(12.0))
    assert 0.001 * 3 * 12 == pytest.approx(0.012 * 3), "the code's weight at r = 3"

    class Other(nn.Module):
        def forward(self, z, c):
            return old(torch.randn_like(z), c)

    nn.init.constant_(G.out.bias, 1.0)
    nn.init.constant_(old.out.bias, 1.0)
    assert alignment(G, old, z, c) == 0 < alignment(G, Other(), z, c), "another z is not the same feature"


# ---- Gaussian prototypes


def measured(kind, D=3, n=400):
    """Prototypes of two classes with other means and covariances, and the features they come from."""
    labels = torch.arange(2).repeat_interleave(n)
    features = (
        torch.randn(2 * n, D) @ torch.tensor([[1.0, 0.5, 0], [0, 1, 0.3], [0, 0, 0.2]]) + labels[:, None]
    )
    g = ClassGaussians(kind, D)
    g.add(features, labels, range(2))
    return g, features, labels


def test_the_statistics_are_those_of_the_population():
    g, features, labels = measured("diag")
    for k in (0, 1):
        found = features[labels == k]
        torch.testing.assert_close(g.mean[k], found.mean(0))
        torch.testing.assert_close(g.spread[k], ((found - found.mean(0)) ** 2).mean(0).sqrt())
    before = g.mean.clone()
    g.add(features + 5, labels + 2, range(2, 4))
    assert g.mean.shape == g.spread.shape == (4, 3) and torch.equal(g.mean[:2], before)


def test_scalar_noise_moves_all_dimensions_alike():
    g = measured("scalar")[0]
    c = torch.randint(2, (1000,))
    s = (g.draw(c) - g.mean[c]) / g.spread[c]
    torch.testing.assert_close(s, s[:, :1].expand_as(s), rtol=1e-4, atol=1e-5)
    assert abs(s[:, 0].std() - 1) < 0.1
    other = measured("diag")[0]
    s = (other.draw(c) - other.mean[c]) / other.spread[c]
    assert not torch.allclose(s, s[:, :1].expand_as(s), atol=0.1)


@pytest.mark.parametrize("kind", ["diag", "full"])
def test_draws_have_the_moments_that_were_measured(kind):
    """Within four standard errors of 1e5 draws; negative values are not cut off."""
    (g, features, labels), n = measured(kind), 100_000
    drawn = g.draw(torch.ones(n, dtype=torch.int64))
    found = features[labels == 1]
    covariance = (found - found.mean(0)).T @ (found - found.mean(0)) / len(found)
    if kind == "diag":
        covariance = covariance.diagonal().diag()
    else:
        covariance += 1e-4 * torch.eye(3)
    error = covariance.diagonal().sqrt() / n**0.5
    assert ((drawn.mean(0) - found.mean(0)).abs() < 4 * error).all() and drawn.min() < 0
    gap = drawn - drawn.mean(0)
    spread = torch.outer(covariance.diagonal(), covariance.diagonal()) + covariance**2
    assert ((gap.T @ gap / n - covariance).abs() < 4 * (spread / n).sqrt()).all()


def test_a_full_covariance_of_few_features_has_a_factor():
    features = torch.randn(3, 6)
    L = factor(features)
    gap = features - features.mean(0)
    torch.testing.assert_close(L @ L.T, gap.T @ gap / 3 + 1e-4 * torch.eye(6), atol=1e-5, rtol=1e-4)


# ---- both together


DRAW = torch.Generator("cpu").manual_seed(2)
CENTRES = 2 * torch.rand(4, 96, generator=DRAW) * (torch.rand(4, 96, generator=DRAW) < 0.3)


def clusters(first, seen):
    """A pass over features of some classes, in place of those of images."""

    def passed(self, images, size):
        for _ in range(5):
            c = torch.randint(first, seen, (size,))
            yield (CENTRES[c] + 0.2 * torch.randn(size, 96)).clamp(min=0), c

    return passed


def recognised(learner, classes):
    """Share of recalled features that lie nearest the centre of their class."""
    c = torch.arange(300) % classes
    return float((torch.cdist(learner.replay(c), CENTRES).argmin(1) == c).float().mean())


def fitted(monkeypatch, learner, first, seen, **settings):
    """The learner after a generator's phase on the classes [first, seen)."""
    monkeypatch.setattr(GFR, "feature_batches", clusters(first, seen))
    learner.config = replace(learner.config, **settings)
    learner.fit_generator(
        SimpleNamespace(first=first, seen=seen, index=0, train=range(160)), Trace(progress=False)
    )
    return learner


def test_alignment_keeps_old_classes_while_new_ones_are_learned(monkeypatch):
    config = Config("resnet10", mean=(0.5,), std=(0.25,), batch_size=32, nz=8, hidden=32, gan_epochs=100,
                    gan_lr=0.01, gan_lr_step=10**6)  # fmt: skip
    base = fitted(monkeypatch, GFR(config, (1, 8, 8), 4), 0, 3)
    norms = base.replay(torch.arange(300) % 3).norm(dim=1).mean() / CENTRES[:3].norm(dim=1).mean()
    assert recognised(base, 3) > 0.95 and abs(norms - 1) < 0.25
    new = torch.full((100,), 3)
    for alignment_weight, lowest, highest in ((0.01, 0.95, 1.0), (0.0, 0.0, 0.8)):
        learner = fitted(monkeypatch, copy.deepcopy(base), 3, 4, alignment=alignment_weight, gan_epochs=60)
        assert lowest <= recognised(learner, 3) <= highest
        assert (torch.cdist(learner.replay(new), CENTRES).argmin(1) == 3).float().mean() > 0.95
