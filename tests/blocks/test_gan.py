"""A generator of fixed size and the steps that several methods take with it, against definitions."""

import copy

import pytest
import torch

from clkit.blocks import gan
from clkit.blocks.gan import ConditionalGenerator, ConditionalNorm, Critic, GanError, Replay
from clkit.data.stream import Task
from tests.reference import generative

SHAPE = (1, 16, 16)


@pytest.fixture
def nets():
    """A small generator and critic of three classes, with statistics and class parameters of their own."""
    torch.manual_seed(0)
    generator, critic = ConditionalGenerator(SHAPE, 5, 3, 2), Critic(SHAPE, 2)
    critic.grow(3, anew=True)
    with torch.no_grad():
        for norm in generator.norms:
            for t in (norm.scale, norm.shift, norm.mean):
                t.normal_()
            norm.var.uniform_(0.5, 2)
    return generator, critic


def labels(*values):
    return torch.tensor(values, device="cpu")


def same(a, b):
    return all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values()))


# ---- the generator


def test_the_generator_has_the_size_of_the_paper():
    generator = ConditionalGenerator((3, 32, 32), 128, 10, 32)
    assert sum(w.numel() for w in generator.weights) == 518_144
    assert [len(norm.scale[0]) for norm in generator.norms] == [128, 64, 32]
    assert generator(generator.noise(2), labels(0, 9)).shape == (2, 3, 32, 32)


@pytest.mark.parametrize("side", [16, 24, 32])
def test_images_have_the_side_that_is_asked_for(side):
    generator = ConditionalGenerator((1, side, side), 5, 2, 2)
    assert generator.draw(labels(0, 1, 1)).shape == (3, 1, side, side)


@pytest.mark.parametrize("shape", [(1, 28, 28), (1, 8, 8), (1, 16, 24)])
def test_other_sides_are_refused(shape):
    with pytest.raises(GanError, match="16, 24, 32"):
        ConditionalGenerator(shape, 5, 2, 2)


@pytest.mark.parametrize("running", [False, True])
def test_images_are_those_of_the_definition(nets, running):
    generator, z, y = nets[0].train(not running), torch.randn(4, 5), labels(0, 2, 2, 1)
    expected = generative.image(generator, z, y, running)
    torch.testing.assert_close(generator(z, y), expected, rtol=1e-4, atol=1e-5)
    other = generative.image(generator, z, labels(1, 2, 2, 1), running)
    assert (expected - other).abs().max() > 0.01, "the class counts"


def test_a_drawn_image_does_not_depend_on_the_others_and_changes_nothing(nets):
    generator = nets[0].train()
    before = copy.deepcopy(generator)
    torch.manual_seed(1)
    first = generator.draw(labels(2))
    torch.manual_seed(1)
    assert torch.allclose(generator.draw(labels(2, 0, 0))[:1], first, atol=1e-6)
    assert same(generator, before) and generator.training and not first.requires_grad


def test_many_images_are_drawn_in_parts():
    generator = ConditionalGenerator(SHAPE, 5, 1, 1)
    assert generator.draw(torch.zeros(1001, dtype=torch.int64)).shape == (1001, *SHAPE)


def test_running_statistics_follow_the_batch_for_its_classes_only():
    norm, x = ConditionalNorm(2, 3), torch.randn(4, 2, 3, 3)
    norm(x, labels(1, 1, 0, 1))
    mean, var = x.mean((0, 2, 3)), x.var((0, 2, 3))
    torch.testing.assert_close(norm.mean, torch.stack([0.1 * mean, 0.1 * mean, torch.zeros(2)]))
    torch.testing.assert_close(norm.var, torch.stack([0.9 + 0.1 * var, 0.9 + 0.1 * var, torch.ones(2)]))


def test_a_class_that_is_not_drawn_has_no_gradient(nets):
    generator = nets[0]
    generator(torch.randn(4, 5), labels(0, 2, 2, 0)).square().sum().backward()
    for norm in generator.norms:
        assert (norm.scale.grad[1] == 0).all() and (norm.scale.grad[0] != 0).any()


# ---- steps


@pytest.mark.parametrize("auxiliary", [0.0, 2.0])
def test_the_loss_of_the_generator(nets, auxiliary):
    _, critic = nets
    before, y = copy.deepcopy(critic), labels(0, 2, 2, 1)
    fake = torch.rand(4, *SHAPE)
    value, logits = generative.judged(critic, fake)
    expected = -value.mean() + auxiliary * generative.entropy(logits, y)
    torch.testing.assert_close(gan.generator_loss(critic, fake, y, auxiliary), expected)
    assert same(critic, before), "nor do its statistics move"


def test_gradients_reach_the_generator_alone(nets):
    generator, critic = nets
    y = labels(0, 2)
    optimizer = gan.adam(generator.parameters(), 0.01)
    gan.own_gradients(optimizer, gan.generator_loss(critic, generator(torch.randn(2, 5), y), y, 1.0))
    assert all(p.grad is not None for p in generator.parameters())
    assert all(p.grad is None for p in critic.parameters())
    assert optimizer.defaults["betas"] == (0.5, 0.999) and optimizer.defaults["weight_decay"] == 0


@pytest.mark.parametrize("weight", [0.0, 3.0])
def test_a_step_of_the_critic(nets, weight):
    critic, by_hand = nets[1], copy.deepcopy(nets[1])
    real, fake = torch.rand(4, *SHAPE), torch.rand(4, *SHAPE)
    torch.manual_seed(2)
    value, penalty = gan.criticise(critic, torch.optim.SGD(critic.parameters(), 0.1), real, fake, weight)
    torch.manual_seed(2)
    expected = generative.wasserstein(by_hand, real, fake, torch.rand(4, 1, 1, 1))
    torch.testing.assert_close((value, penalty), tuple(t.detach() for t in expected), rtol=1e-4, atol=1e-5)
    generative.descend(by_hand, expected[0] + weight * expected[1], 0.1)
    torch.testing.assert_close(critic.state_dict(), by_hand.state_dict(), rtol=1e-4, atol=1e-5)
    assert not torch.equal(critic.convs[0].weight, nets[0].image.weight)


# ---- old images


def test_some_old_images_come_in_equal_numbers_from_each_set():
    sets = [(torch.full((6, 1, 1, 1), float(k)), torch.full((6,), k)) for k in range(3)]
    old = Replay(sets)
    old.shuffle()
    x, y = old.some(4, 8)
    assert torch.bincount(y).tolist() == [3, 3, 2] and torch.equal(x[:, 0, 0, 0], y.float())
    counted = Replay([(torch.arange(6.0).reshape(6, 1, 1, 1), torch.arange(6))])
    counted.shuffle()
    parts = torch.cat([counted.some(start, 3)[1] for start in (0, 3)])
    assert sorted(parts.tolist()) == list(range(6)), "an epoch uses each once"


def test_old_images_by_task(nets):
    generator = nets[0]
    torch.manual_seed(3)
    found = gan.old_images(generator, labels(2, 3), 4)
    assert [y.tolist() for _, y in found] == [[0] * 4 + [1] * 4, [2] * 4]
    torch.manual_seed(3)
    expected = generative.image(generator, torch.randn(8, 5), found[0][1], running=True)
    torch.testing.assert_close(found[0][0], expected.detach(), rtol=1e-4, atol=1e-5)
    assert gan.old_images(generator, labels()[:0].long(), 4) == []


def test_classes_to_recall():
    ends = labels(2, 3)
    assert gan.labels_to_recall(5, None, ends).tolist() == [0, 1, 2, 0, 1]
    assert gan.labels_to_recall(3, 1, ends).tolist() == [1, 1, 1]
    with pytest.raises(GanError, match="class 3 has not been learned yet: recall one of the classes 0 to 2"):
        gan.labels_to_recall(3, 3, ends)
    with pytest.raises(GanError, match="after the first task"):
        gan.labels_to_recall(3, None, ends[:0])


def test_terms_that_are_not_finite_are_named():
    task = Task(2, 2, 3, None)
    good = {"loss": torch.tensor(1.0), "critic": torch.tensor(2.0)}
    assert gan.finite(good, task, 4) is good
    with pytest.raises(GanError, match=r"epoch 5 of task 3 \(critic not finite\)"):
        gan.finite(good | {"critic": torch.tensor(float("nan"))}, task, 4)
