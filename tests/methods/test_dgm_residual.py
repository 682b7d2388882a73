"""DGM with the residual networks of ImageNet-50: growth by hand, shortcuts, heads by class, old images."""

import contextlib
import math
from itertools import pairwise

import pytest
import torch

from clkit.blocks.gan import ResidualCritic
from clkit.data.images import ImageSet
from clkit.data.stream import Stream
from clkit.engine.learner import LearnerError
from clkit.engine.run import run
from clkit.engine.seeding import seed_everything
from clkit.engine.trace import Stopped, Trace, copied
from clkit.methods.dgm import masks
from clkit.methods.dgm.dgm import DGM, Config
from clkit.methods.dgm.residual import DEPTH, ResidualGenerator, _convolution
from tests.modes import DeviceFactories

SHAPE, CLASSES = (3, 16, 16), 4
SMALL = {"network": "residual", "nz": 12, "g_width": 3, "d_width": 2, "epochs": 3, "batch_size": 8,
         "s_max": 400.0, "anew": False, "auxiliary": 1.0, "sparsity": 0.01}  # fmt: skip
CHANNELS = {"unit": "channel"}
LINKS = (*pairwise(range(DEPTH + 1)), (1, 3), (3, 5), (5, 7))
KERNELS = (2, *(3,) * 6, *(1,) * 3)


def stream(per_class=8):
    """Four classes of bright squares in different places, two a task."""
    draw = torch.Generator("cpu").manual_seed(1)
    size, options = (CLASSES * per_class, *SHAPE), {"generator": draw, "dtype": torch.uint8, "device": "cpu"}
    images = torch.randint(0, 60, size, **options)
    labels = torch.arange(CLASSES, device="cpu").repeat_interleave(per_class)
    for label in range(CLASSES):
        images[labels == label, :, 4 * label : 4 * label + 4, 4:12] = 250
    found = ImageSet(images, labels, "abcd")
    return Stream(found, found, (2,) * 2)


def learner_of(**settings):
    seed_everything(3, 0)
    return DGM(Config(**SMALL | settings), SHAPE, CLASSES)


def learned(tasks=1, **settings):
    learner = learner_of(**settings)
    for task in list(stream())[:tasks]:
        seed_everything(3, task.index)
        learner.learn(task, Trace(progress=False))
    return learner


def generator_of(unit="weight", width=3, nz=12, shape=SHAPE):
    seed_everything(0)
    return ResidualGenerator(shape, nz, width, unit)


def images(generator, task, n=6):
    """The same images of a finished task on every call."""
    z = torch.randn(n, 12, generator=torch.Generator("cpu").manual_seed(5), device="cpu")
    return generator.replay(z, task, torch.arange(n, device="cpu") % 2)


def finished(unit, share=0.5, **options):
    """A generator after a task whose masks hold about a share of all places, with batch norms of its own."""
    generator = generator_of(unit, **options)
    generator.begin(2, 0)
    with torch.no_grad():
        for e in generator.logits:
            e.uniform_(share - 1, share)
        for n in range(DEPTH):
            getattr(generator, f"beta{n}").uniform_(-1, 1)
            getattr(generator, f"mean{n}").uniform_(-1, 1)
    generator.keep(0, generator.hard_masks())
    return generator


# ---- sizes


def test_the_networks_have_the_papers_sizes():
    generator = ResidualGenerator((3, 32, 32), 128, 64, "weight")
    assert sum(w.numel() for w in generator.weights) == 364_544 == generator.size[1]
    assert generator.units == (7 * 64, 7 * 64)
    critic = ResidualCritic((3, 32, 32), 64)
    critic.grow(50, anew=False)
    assert critic.wide.weight.shape == (2048, 512) and critic.norm.momentum == 0.01
    assert critic.value.weight.shape == (1, 2048) and critic.classes.weight.shape == (50, 2048)
    assert round(sum(p.numel() for p in critic.parameters()) / 1e5) == 123


@pytest.mark.parametrize("unit", ["weight", "channel"])
def test_images_are_drawn_with_the_head_of_their_class(unit):
    generator = generator_of(unit)
    trained = generator.begin(2, 0)
    gates, z, index = generator.soft_masks(1.0), torch.randn(5, 12), torch.tensor([0, 1, 1, 0, 1])
    generator.eval()
    drawn = generator(z, gates, index)
    assert drawn.shape == (5, *SHAPE) and drawn.abs().max() < 1 and generator.head.shape == (2, 3, 3, 3, 3)
    with torch.no_grad():
        generator.head[1] += 0.5
    changed = (generator(z, gates, index) != drawn).flatten(1).any(1)
    assert changed.tolist() == [False, True, True, False, True]
    assert len(trained) == 2 * 10 + 2 * DEPTH + 1


def test_a_convolution_is_one_with_inputs_first_in_its_weights():
    """A channel that only passes one input on, shifted by a pixel, shifts it where the kernel says."""
    generator = generator_of(width=1)
    weight = torch.zeros(1, 1, 3, 3)
    weight[0, 0, 1, 2] = 1.0
    x = torch.randn(2, 1, 8, 8)
    y = generator.convolved(_convolution, x, weight, torch.ones(1, 1, 3, 3), padding=1)
    assert torch.equal(y[..., :-1], x[..., 1:]) and (y[..., -1] == 0).all()


def test_logits_start_at_zero_and_later_a_little_above():
    generator = generator_of()
    generator.begin(2, 0)
    assert all((e == 0).all() for e in generator.logits)
    assert all((m == 0.5).all() for m in generator.soft_masks(1e4)[:DEPTH])
    generator.begin(2, 1)
    assert all((e == 0.006).all() for e in generator.logits)


# ---- growth and shortcuts


def test_growth_of_a_block_by_hand():
    """Widths of 3: the linear layer has 12 x 4 weights a channel, a 3x3 convolution 27, a shortcut 3."""
    widths, areas = [12, *(3,) * DEPTH], [k**2 for k in KERNELS]
    rule = (widths, areas, LINKS, "weight", "released")
    nothing = [0] * 10
    assert masks.growth(nothing, *rule) == [0] * DEPTH
    assert masks.growth([49, *nothing[1:]], *rule)[:2] == [2, 0]  # units in whole maps; 27 gained for nothing
    assert masks.growth([0, 27, *nothing[2:]], *rule)[:3] == [0, 1, 0]
    assert masks.growth([*nothing[:2], 28, *nothing[3:]], *rule)[:4] == [0, 0, 2, 0]
    assert masks.growth([*nothing[:7], 4, 0, 0], *rule) == [
        0,
        0,
        2,
        0,
        0,
        0,
        0,
    ]  # the shortcut's need decides
    assert masks.growth([*nothing[:2], 60, *nothing[3:7], 4, 0, 0], *rule)[2] == 3  # the convolution's does
    # the shortcut gains 2 * 3 weights by the growth of its inputs, which are enough for the 6 that it lost
    assert masks.growth([49, *nothing[1:7], 6, 0, 0], *rule)[2] == 0
    assert masks.growth([49, *nothing[1:7], 6, 0, 0], *rule[:4], "paper")[2] == 2
    channels = masks.growth([1, 2, 0, 0, 0, 0, 0, 3, 0, 1], *rule[:3], "channel", "released")
    assert channels == [1, 2, 3, 0, 0, 0, 1]


@pytest.mark.parametrize("unit", ["weight", "channel"])
def test_each_layer_keeps_its_free_places_and_old_values(unit):
    generator = finished(unit)
    total = [math.prod(generator.places(l)) for l in range(10)]
    taken = [int(r.sum()) for r in generator.reserved]
    old = [w.detach().clone() for w in generator.weights]
    held = [p.clone() for p in generator.protections()]
    areas = [k**2 for k in generator.kernels]
    added = masks.growth(taken, generator.widths, areas, generator.links, unit, "released")
    generator.grow(added)
    assert generator.widths == [12, *(3 + a for a in added)] and max(added) > 0
    for l, (i, j) in enumerate(generator.links):
        weight, n = generator.weights[l], old[l].shape[:2]
        assert weight.shape == (generator.widths[i], generator.widths[j], KERNELS[l], KERNELS[l])
        assert torch.equal(weight[: n[0], : n[1]], old[l]) and weight.abs().min() > 0
        now = generator.protections()[l]
        assert torch.equal(now[: n[0], : n[1]], held[l])
        assert not now[n[0] :].any() and not now[:, n[1] :].any()
        assert int((~generator.reserved[l]).sum()) >= total[l]  # at least as free as at the start


def test_a_shortcut_appears_where_widths_differ_and_only_from_then_on():
    generator = finished("weight")
    assert not any(generator.in_use(l, generator.widths) for l in (7, 8, 9))
    assert not any(hasattr(generator, f"mask{l}_0") for l in (7, 8, 9))
    assert not any(generator.reserved[l].any() for l in (7, 8, 9))
    first = images(generator, 0)
    generator.grow([1, 0, 0, 0, 0, 2, 2])  # widths 4 3 3 3 3 5 5: the first and the last block
    assert [generator.in_use(l, generator.widths) for l in (7, 8, 9)] == [True, False, True]
    with torch.no_grad():
        for l in (7, 8, 9):
            generator.weights[l].fill_(math.nan)
    assert torch.equal(images(generator, 0), first)  # the old task keeps the identity
    generator.begin(2, 1)
    soft = generator.soft_masks(1.0)
    assert (soft[7] > 0).all() and (soft[8] == 0).all() and (soft[9] > 0).all()
    hard = generator.hard_masks()
    assert hard[7].all() and not hard[8].any() and hard[9].all()  # 0.006 counts where it is in use only
    index = torch.zeros(6, dtype=torch.long)
    assert generator(torch.randn(6, 12), soft, index).isnan().any()  # the new task takes the shortcut


# ---- what is protected, and replayed


@pytest.mark.parametrize("settings", [{}, CHANNELS])
def test_old_images_stay_the_same_bit_for_bit_while_the_generator_learns_and_grows(settings):
    learner = learned(1, **settings)
    generator = learner.generator
    first, widths = images(generator, 0), generator.widths
    kept = {k: v.clone() for k, v in learner.state_dict().items() if k.endswith("_0")}
    held = [(p.clone(), w.detach().clone()) for p, w in zip(generator.protections(), generator.weights)]
    assert any(p.any() for p, _ in held[:DEPTH]) and widths > [12, *(3,) * DEPTH]
    learner.learn(stream()[1], Trace(progress=False))
    assert generator.widths != widths and torch.equal(images(generator, 0), first)
    moved = False
    for (protected, before), weight in zip(held, generator.weights):
        now, where = weight[: before.shape[0], : before.shape[1]], protected.expand_as(before)
        assert torch.equal(now[where], before[where])
        moved = moved or not torch.equal(now, before)
    assert moved
    now = learner.state_dict()
    assert len(kept) == DEPTH * 5 + 1 and all(torch.equal(now[k], v) for k, v in kept.items())


def test_without_masks_old_images_change():
    learner = learned(1, masked=False)
    first = images(learner.generator, 0)
    learner.learn(stream()[1], Trace(progress=False))
    assert (images(learner.generator, 0) - first).abs().max() > 1e-3
    assert learner.generator.widths == [12, *(3,) * DEPTH]


@pytest.mark.parametrize("unit", ["weight", "channel"])
def test_old_images_do_not_see_weights_that_are_free_or_were_added_later(unit):
    generator = finished(unit)
    first = images(generator, 0)
    generator.grow([2, 1, 3, 0, 1, 2, 1])
    with torch.no_grad():
        for l, weight in enumerate(generator.weights):
            i, _ = generator.links[l]
            weight[(12, *(3,) * DEPTH)[i] :] = math.nan
            weight[:, 3:] = math.nan
            free = ~generator.protections()[l].expand_as(weight)[: weight.shape[0], :3]
            weight[:, :3][free & ~weight[:, :3].isnan()] += 1.0
    assert torch.equal(images(generator, 0), first)
    with torch.no_grad():  # the control: a weight that is held
        weight, held = generator.weights[2], generator.protections()[2].expand_as(generator.weights[2])
        weight[held] += 1.0
    assert not torch.equal(images(generator, 0), first)


def test_replay_with_statistics_of_the_batch_would_differ():
    generator = finished("weight")
    first, draw = images(generator, 0), generator.draw
    generator.draw = lambda *arguments: draw(*arguments, training=True)
    assert not torch.equal(images(generator, 0), first)


# ---- the learner


def test_a_run_grows_and_its_table_adds_up():
    config = Config(**SMALL)
    learner, result = run(DGM, config, stream(), seed=1, record="*", threads=1, progress=False)
    rows, growth = result.trace["capacity"], result.trace["growth"]
    assert len(rows["layer"]) == 2 * 10
    for task in (0, 1):
        of = {l: k for k, (t, l) in enumerate(zip(rows["task"], rows["layer"])) if t == task}
        widths = [12, *(int(rows["width"][of[l]]) for l in range(DEPTH))]
        for l, (i, j) in enumerate(LINKS):
            places = widths[i] * widths[j] * KERNELS[l] ** 2
            assert sum(rows[k][of[l]] for k in ("new", "reused", "unused")) == places
            assert rows["grown"][of[l]] == rows["grown"][of[j - 1]]
        assert sum(widths[1:]) == growth["units"][task]
    assert growth["weights_after"][0] == growth["weights"][1] > growth["weights"][0]
    x, y = learner.recall(8, label=3)
    assert x.shape == (8, *SHAPE) and set(y.tolist()) == {3}


@pytest.mark.parametrize("settings", [
    {"expand": "none"}, {"sparsity": 0.0}, {"hard": False, "s_max": 20.0}, {"expand": "paper"},
    {"replay": False},
])  # fmt: skip
def test_ablations_run_and_do_what_they_say(settings):
    learner = learned(2, **settings)
    generator, start = learner.generator, [12, *(3,) * DEPTH]
    assert (generator.widths == start) == (settings.get("expand") == "none")
    assert (generator.mask_of(1, 0).dtype == torch.bool) == settings.get("hard", True)
    assert images(generator, 1).isfinite().all()
    assert len(learner.replayed(8)) == 2 * settings.get("replay", True)


def test_tensors_are_made_on_the_device_that_is_named():
    with DeviceFactories() as mode:
        learned(2, real_share=0.5)
    assert mode.found == []


def test_the_critic_is_kept_and_its_value_drawn_anew():
    learner = learned(1)
    critic = learner.critic
    kept = critic.trunk.stem.weight.detach().clone(), critic.classes.weight.detach().clone()
    value = critic.value.weight.detach().clone()
    critic.grow(4, anew=False)
    assert torch.equal(critic.trunk.stem.weight, kept[0]) and torch.equal(critic.classes.weight[:2], kept[1])
    assert not torch.equal(critic.value.weight, value)
    critic.grow(4, anew=True)
    assert not torch.equal(critic.trunk.stem.weight, kept[0])


@pytest.mark.parametrize("settings", [{}, CHANNELS])
def test_a_run_that_is_stopped_with_a_grown_generator_resumes_bit_for_bit(settings):
    second = list(stream())[1]

    def learn(learner, state=None, stop=False):
        seed_everything(3, 1)
        saved = []
        trace = Trace(progress=False, save=lambda s: saved.append(copied(s)), every=0.0)
        trace.begin(learner, 1, state=state)
        trace.stop = stop
        with pytest.raises(Stopped) if stop else contextlib.nullcontext():
            learner.learn(second, trace)
        return saved[-1]

    begun = learned(1, **settings).snapshot()
    whole, stopped, resumed = (learner_of(**settings) for _ in range(3))
    for learner in (whole, stopped, resumed):
        learner.restore(begun)
    learn(whole)
    learn(resumed, state=learn(stopped, stop=True))
    assert resumed.generator.widths == whole.generator.widths > resumed.generator.widths_of(1)
    now, wanted = resumed.snapshot(), whole.snapshot()
    for kind in ("parameters", "buffers"):
        assert now[kind].keys() == wanted[kind].keys()
        assert all(torch.equal(now[kind][k], v) for k, v in wanted[kind].items())
    assert torch.equal(images(resumed.generator, 0), images(whole.generator, 0))


@pytest.mark.parametrize("settings", [{"gate": "after", "unit": "channel"}, {"d_norm": False}])
def test_what_the_residual_networks_cannot_do_is_refused(settings):
    with pytest.raises(LearnerError, match="gate='before' and d_norm=True"):
        Config(**SMALL | settings)


def test_a_batch_of_one_image_is_refused():
    learner = learner_of(batch_size=5)
    with pytest.raises(LearnerError, match="batches of 5 leave one of 16 images alone"):
        learner.learn(stream()[0], Trace(progress=False))
