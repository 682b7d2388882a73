"""DGM: masks by hand, growth by counting, replay bit for bit; each with a control that must fail."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from clkit.blocks.gan import Critic, GanError, Replay, TwoHeads, critic_losses, signed
from clkit.data.images import ImageSet
from clkit.data.stream import Stream
from clkit.engine.learner import LearnerError
from clkit.engine.run import run
from clkit.engine.seeding import seed_everything
from clkit.engine.trace import Trace
from clkit.methods.dgm import masks
from clkit.methods.dgm.dgm import DGM, Config
from clkit.methods.dgm.generator import GrowingGenerator

SHAPE, CLASSES = (1, 16, 16), 3
SMALL = {"nz": 12, "g_width": 2, "d_width": 4, "epochs": 4, "batch_size": 8, "s_max": 400.0}
UNITS = ("weight", "channel")
CHAIN = ((0, 1), (1, 2), (2, 3))
CHANNELS = {"unit": "channel", "sparsity": 0.0}


def stream(per_class=16):
    """Three classes of bright squares in different places, a task each."""
    draw = torch.Generator("cpu").manual_seed(1)
    size, options = (CLASSES * per_class, *SHAPE), {"generator": draw, "dtype": torch.uint8, "device": "cpu"}
    images = torch.randint(0, 60, size, **options)
    labels = torch.arange(CLASSES, device="cpu").repeat_interleave(per_class)
    for label in range(CLASSES):
        images[labels == label, :, 5 * label : 5 * label + 5, 4:12] = 250
    found = ImageSet(images, labels, ("a", "b", "c"))
    return Stream(found, found, (1,) * CLASSES)


def learner_of(**settings):
    seed_everything(3, 0)
    return DGM(Config(**SMALL | settings), SHAPE, CLASSES)


def learned(tasks=CLASSES, **settings):
    """A learner after some tasks."""
    learner = learner_of(**settings)
    for task in list(stream())[:tasks]:
        seed_everything(3, task.index)
        learner.learn(task, Trace(progress=False))
    return learner


# ---- masks


def test_a_new_mask_is_a_half_at_any_scale():
    generator = GrowingGenerator(SHAPE, 12, 2, "weight", "before")
    generator.begin()
    for s in (1e-4, 1.0, 1e4):
        assert all((m == 0.5).all() for m in generator.soft_masks(s))


def test_the_schedules_of_the_paper_and_of_the_code():
    s_max, epochs = 1e4, 20
    paper = [masks.global_scale(i, epochs, s_max, "paper") for i in range(1, epochs + 1)]
    assert paper[0] == 1 / s_max and paper[-1] == s_max
    released = [masks.global_scale(i, epochs, s_max, "released") for i in range(1, epochs + 1)]
    assert released[0] > 1 and released[-1] == pytest.approx(s_max)
    for scale in released:
        ramp = [masks.local_scale(b, 30, scale) for b in range(1, 31)]
        assert ramp == sorted(ramp) and ramp[0] == 1 / scale and ramp[-1] == pytest.approx(scale)
    inverted = [masks.local_scale(b, 30, paper[0]) for b in range(1, 31)]
    assert inverted == sorted(inverted, reverse=True) and inverted[0] == s_max


def test_compensated_gradients_do_not_depend_on_the_scale_until_masks_saturate():
    e, scale = torch.linspace(-2, 2, 41), 300.0
    slope = scale * torch.sigmoid(e) * (1 - torch.sigmoid(e))
    for s in (0.5, 2.0, 5.0):
        leaf = e.clone().requires_grad_()
        torch.sigmoid(s * leaf).sum().backward()
        torch.testing.assert_close(leaf.grad * masks.compensation(e, s, scale), slope, rtol=1e-3, atol=0)
    leaf = torch.tensor([1.0, 1.5], requires_grad=True)
    torch.sigmoid(20 * leaf).sum().backward()
    assert (leaf.grad * masks.compensation(leaf.detach(), 20.0, scale) == 0).all()


def test_the_sparsity_term_by_hand():
    m, reserved = torch.tensor([1, 0.5, 0, 1]), torch.tensor([True, False, False, False])
    assert masks.sparsity([m], [reserved]) == 0.5
    assert masks.sparsity([m], [torch.zeros(4, dtype=torch.bool)]) == 0.625
    two = [torch.tensor([1.0, 1.0]), torch.full((4,), 0.2)]
    pooled = masks.sparsity(two, [torch.tensor([False, True]), torch.zeros(4, dtype=torch.bool)])
    assert pooled == pytest.approx(0.36)  # a mean over layers would be 0.6
    m = m.clone().requires_grad_()
    masks.sparsity([m], [reserved]).backward()
    torch.testing.assert_close(m.grad, torch.tensor([0, 1 / 3, 1 / 3, 1 / 3]))
    assert masks.sparsity([m], [torch.ones(4, dtype=torch.bool)]) == 0


def test_packed_masks_come_back():
    draw = torch.Generator("cpu").manual_seed(0)
    for shape in ((5,), (3, 4, 2, 2), (8,), (1,)):
        mask = torch.rand(shape, generator=draw) > 0.5
        places = masks.packed(mask)
        assert len(places) == math.ceil(mask.numel() / 8) and places.dtype == torch.uint8
        assert torch.equal(masks.unpacked(places, shape), mask)


# ---- growth


def free_after(delta, inputs, outputs, grown):
    return inputs * (outputs + grown) - delta


def test_a_single_layer_keeps_at_least_its_free_weights():
    n, p = 10, 5
    for delta in range(n * p + 1):
        (grown,) = masks.growth([delta], [n, p], [1], [(0, 1)], "weight", "paper")
        assert n * p <= free_after(delta, n, p, grown) <= n * p + n - 1
        assert (free_after(delta, n, p, grown) == n * p) == (delta % n == 0)
    assert free_after(3, n, p, 1) == 57  # neither np nor np + p


def test_released_growth_counts_what_a_layer_gains_from_the_one_before():
    draw = np.random.default_rng(0)
    for _ in range(200):
        widths, areas = [int(v) for v in draw.integers(2, 12, 4)], [4, 16, 16]
        totals = [a * b * k for a, b, k in zip(widths, widths[1:], areas)]
        taken = [int(draw.integers(0, total + 1)) for total in totals]
        released = masks.growth(taken, widths, areas, CHAIN, "weight", "released")
        paper = masks.growth(taken, widths, areas, CHAIN, "weight", "paper")
        assert all(r <= p for r, p in zip(released, paper)) and released[0] == paper[0]
        before = 0
        for delta, a, b, k, grown in zip(taken, widths, widths[1:], areas, released):
            free = (a + before) * (b + grown) * k - delta
            assert free >= a * b * k and (not grown or free < a * b * k + (a + before) * k)
            before = grown


def test_channels_grow_by_what_was_reserved():
    assert masks.growth([3, 0, 2], [8, 4, 4, 2], [4, 16, 16], CHAIN, "channel", "released") == [3, 0, 2]
    learner = learned(gate="before", unit="channel")
    free = [int((~r).sum()) for r in learner.generator.reserved]
    assert free == list(learner.generator.start[1:])


def test_growing_copies_old_weights_and_pads_with_free_places():
    for unit in UNITS:
        generator = GrowingGenerator(SHAPE, 12, 2, unit, "before")
        generator.begin()
        with torch.no_grad():
            for e in generator.logits:
                e.uniform_(-1, 1)
        generator.keep(0, generator.hard_masks())
        old = [w.detach().clone() for w in generator.weights]
        held = [p.clone() for p in generator.protections()]
        generator.grow([2, 0, 1])
        assert generator.widths == [12, 10, 4, 3] and generator.size == (17, 14)
        for before, protected, weight, now in zip(old, held, generator.weights, generator.protections()):
            a, b = before.shape[:2]
            assert torch.equal(weight[:a, :b], before) and torch.equal(now[:a, :b], protected)
            assert not now[a:].any() and not now[:, b:].any() and weight.abs().min() > 0


# ---- what is protected, and replayed


@pytest.mark.parametrize("settings", [{}, CHANNELS, CHANNELS | {"gate": "after"}])
def test_old_images_stay_the_same_bit_for_bit_while_the_generator_learns_and_grows(settings):
    learner = learned(1, **settings)
    generator, z = learner.generator, torch.randn(6, 12)
    first = generator.replay(z, 0)
    kept = {k: v.clone() for k, v in learner.state_dict().items() if k.endswith("_0")}
    held = [(p.clone(), w.detach().clone()) for p, w in zip(generator.protections(), generator.weights)]
    assert any(p.any() for p, _ in held) and any(not p.all() for p, _ in held)
    for task in list(stream())[1:]:
        learner.learn(task, Trace(progress=False))
        assert torch.equal(generator.replay(z, 0), first)
    for (protected, before), weight in zip(held, generator.weights):
        now = weight[: before.shape[0], : before.shape[1]]
        where = protected.expand_as(before)
        assert torch.equal(now[where], before[where]) and not torch.equal(now, before)
    now = learner.state_dict()
    assert len(kept) == 16 and all(torch.equal(now[k], v) for k, v in kept.items())


def test_without_masks_old_images_change():
    learner = learned(1, masked=False)
    z = torch.randn(6, 12)
    first = learner.generator.replay(z, 0)
    learner.learn(list(stream())[1], Trace(progress=False))
    assert (learner.generator.replay(z, 0) - first).abs().max() > 0.01
    assert learner.generator.size == (14, 14)


def test_soft_masks_in_replay_drift():
    learner = learned(1, hard=False, s_max=20.0)
    z = torch.randn(6, 12)
    first = learner.generator.replay(z, 0)
    learner.learn(list(stream())[1], Trace(progress=False))
    assert not torch.equal(learner.generator.replay(z, 0), first)


def test_used_channels_alone_would_leak_where_the_gate_is_before_the_normalisation():
    """The released rule: a weight from an unused row to a used channel is free, and old images hang on it."""
    learner = learned(1, **CHANNELS)
    generator, z = learner.generator, torch.randn(6, 12)
    with torch.no_grad():
        for l, row in enumerate((254, 15, 3)):  # all but the first channel of the first layer are used
            getattr(generator, f"mask{l}_0").fill_(row)
        generator.beta0_0.fill_(0.5)
        first = generator.replay(z, 0)
        generator.weight1[0] += 0.5
    assert (generator.replay(z, 0) - first).abs().max() > 1e-3


def test_old_images_do_not_see_weights_that_were_added_later():
    learner = learned(1)
    generator, z = learner.generator, torch.randn(4, 12)
    first, sizes = generator.replay(z, 0), [w.shape[:2] for w in generator.weights]
    grown = [len(getattr(generator, f"gamma{l}_0")) for l in range(3)]
    with torch.no_grad():
        for l, weight in enumerate(generator.weights):
            weight[:, grown[l] :] = math.nan
            weight[(12, *grown)[l] :] = math.nan
    assert any(out > n for (_, out), n in zip(sizes, grown))
    assert torch.equal(generator.replay(z, 0), first)


def test_an_old_optimizer_or_weight_decay_would_move_protected_weights():
    """Zero gradients are not enough: momentum and decay move weights too. So Adam is new for each task."""
    for options, moves in (({}, False), ({"weight_decay": 0.1}, True)):
        weight = nn.Parameter(torch.ones(3))
        optimizer = torch.optim.Adam([weight], **options)
        weight.grad = torch.zeros(3)
        optimizer.step()
        assert (not torch.equal(weight, torch.ones(3))) == moves
    weight = nn.Parameter(torch.ones(3))
    optimizer = torch.optim.Adam([weight])
    for gradient in (torch.ones(3), torch.zeros(3)):
        weight.grad, before = gradient, weight.detach().clone()
        optimizer.step()
    assert not torch.equal(weight, before)


def test_counts_of_a_task_add_up():
    result = run(DGM, Config(**SMALL), stream(), seed=1, record="*", threads=1, progress=False)[1]
    rows = result.trace["capacity"]
    for new, reused, unused, layer, width, task in zip(
        *(rows[k] for k in ("new", "reused", "unused", "layer", "width", "task"))
    ):
        before = 12 if layer == 0 else rows["width"][(rows["task"] == task) & (rows["layer"] == layer - 1)][0]
        assert new + reused + unused == before * width * (4 if layer == 0 else 16)
        assert task or reused == 0
    growth = result.trace["growth"]
    assert (growth["units_after"][:-1] == growth["units"][1:]).all() and (np.diff(growth["units"]) >= 0).all()
    assert growth["weights_after"][-1] > growth["weights"][0]


# ---- noise, critic, balance


def test_the_class_is_one_hot_in_z():
    learner = learner_of()
    z = learner.noise(torch.tensor([2, 0]))
    assert z[:, :3].tolist() == [[0, 0, 1], [1, 0, 0]]
    many = learner.noise(torch.zeros(4000, dtype=torch.long))[:, 3:]
    assert abs(many.mean()) < 0.05 and abs(many.std() - 1) < 0.05


def test_rows_of_other_classes_get_no_gradient_from_data():
    learner = learner_of(sparsity=0.0)
    trained, y = learner.generator.begin(), torch.ones(8, dtype=torch.long)
    learner.critic.grow(3, True)
    learner.generate(torch.optim.SGD(trained, 0.0), y, learner.gates(2.0), 2.0, 2.0)
    gradient = learner.generator.weight0.grad
    assert (gradient[[0, 2]] == 0).all() and (gradient[1] != 0).any()


def test_the_gradient_penalty_of_a_linear_critic():
    class Linear(nn.Module):
        def __init__(self, w):
            super().__init__()
            self.w = nn.Parameter(w)

        def forward(self, x):
            return x.flatten(1) @ self.w, None

        still, gradient_of_value = Critic((1, 16, 16), 2).still, TwoHeads.gradient_of_value

    w = torch.randn(256)
    for scale in (1.0, 3.0):
        critic = Linear(scale * w / w.norm())
        value, penalty = critic_losses(critic, torch.randn(4, 1, 16, 16), torch.randn(4, 1, 16, 16))
        torch.testing.assert_close(penalty, torch.tensor((scale - 1) ** 2), atol=1e-5, rtol=1e-5)
        penalty.backward()
        assert critic.w.grad is not None and value.requires_grad


def test_the_pool_holds_as_many_of_each_task():
    learner = learned(2)
    task = list(stream())[2]
    old = Replay(learner.replayed(16))
    assert [len(labels) for _, labels in old.sets] == [16, 16]
    assert all(x.abs().max() <= 1 for x, _ in old.sets)
    old.shuffle()
    x, y = signed(task.train.images[8:]), task.train.labels[8:]
    assert -1 <= x.min() and x.max() <= 1 and y.tolist() == [2] * 8
    pool_x, pool_y = old.pool(x, y, 8)
    assert torch.bincount(pool_y).tolist() == [8, 8, 8] and len(pool_x) == 24
    first = old.pool(x, y, 0)[0]
    assert not torch.equal(first.flatten(1).sum(1).sort().values, pool_x.flatten(1).sum(1).sort().values)


def test_the_head_grows_and_keeps_its_rows_unless_drawn_anew():
    critic = Critic(SHAPE, 4)
    critic.grow(2, anew=False)
    before = critic.classes.weight.detach().clone()
    critic.grow(5, anew=False)
    assert critic(torch.zeros(1, *SHAPE))[1].shape == (1, 5)
    assert torch.equal(critic.classes.weight[:2], before)
    critic.grow(6, anew=True)
    assert not torch.equal(critic.classes.weight[:2], before)


def test_only_the_classifier_moves_the_statistics_of_the_critic():
    critic = Critic(SHAPE, 4)
    critic.grow(2, anew=True)
    before = critic.norms[0].running_mean.clone()
    with critic.still():
        critic(torch.randn(4, *SHAPE))
    assert torch.equal(critic.norms[0].running_mean, before)
    critic(torch.randn(4, *SHAPE))
    assert not torch.equal(critic.norms[0].running_mean, before)


# ---- sizes, settings, recall


def test_the_networks_have_the_papers_sizes():
    for unit, width, size in (("weight", 6, 54_912), ("channel", 20, 227_840)):
        generator = GrowingGenerator((1, 32, 32), 128, width, unit, "before")
        assert sum(w.numel() for w in generator.weights) == size
        generator.begin()
        assert generator(torch.randn(2, 128), generator.soft_masks(1.0)).shape == (2, 1, 32, 32)
    critic = Critic((1, 32, 32), 32)
    critic.grow(10, anew=True)
    assert sum(p.numel() for p in critic.parameters()) == 279_723


@pytest.mark.parametrize("settings, said", [
    ({"s_max": 1.0}, "above 1"),
    ({"unit": "row"}, "unit must be 'weight' or 'channel'"),
    ({"lr": 0.0}, "lr must be a finite number above 0"),
])  # fmt: skip
def test_settings_that_cannot_work_are_refused(settings, said):
    with pytest.raises(LearnerError, match=said):
        Config(**settings)


def test_images_and_classes_that_do_not_fit_are_refused():
    with pytest.raises(GanError, match="16, 24, 32"):
        DGM(Config(), (1, 28, 28), 10)
    with pytest.raises(LearnerError, match="nz=12 entries"):
        DGM(Config(nz=12), (1, 16, 16), 13)


def test_recall_draws_old_classes_only():
    learner = learned(2)
    x, y = learner.recall(9)
    assert x.shape == (9, *SHAPE) and 0 <= x.min() and x.max() <= 1 and set(y.tolist()) == {0, 1}
    assert set(learner.recall(4, label=1)[1].tolist()) == {1}
    with pytest.raises(GanError, match="class 2 has not been learned yet"):
        learner.recall(4, label=2)
    with pytest.raises(GanError, match="after the first task"):
        learner_of().recall(1)


def test_a_run_that_diverges_says_where():
    with pytest.raises(GanError, match=r"diverged in epoch \d+ of task 1 \(.*critic"):
        learned(1, lr=1e30)


def test_without_replay_nothing_old_is_drawn():
    learner = learned(2, replay=False)
    assert learner.replayed(16) == []
    assert len(learned(2).replayed(16)) == 2
