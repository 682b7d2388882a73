"""GEN and GEN-MIR: terms and gradients against slow versions, tasks against a run with plain copies."""

import copy
import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from clkit.blocks import nets
from clkit.blocks.losses import soft_cross_entropy
from clkit.data import ImageSet
from clkit.engine.learner import LearnerError
from clkit.engine.seeding import seed_everything
from clkit.engine.trace import Trace, copied
from clkit.methods.online import gen
from clkit.methods.online.gen import GEN, Config
from tests.fakes import small_stream
from tests.modes import DeviceFactories, HostSyncs
from tests.reference.nets import Doubles, small_nets  # noqa: F401  a fixture
from tests.reference.vae import vae_terms

SHAPE, CLASSES = (1, 6, 6), 6
SMALL = {
    "net": "tiny",
    "latent": 3,
    "hidden": (8, 7),
    "n_images": 6,
    "updates": 2,
    "batch_size": 8,
    "warmup": 20,
    "n_steps": 2,
}
MIR = {"choose": "interfered"}


def doubles(*size, scale=1.0, seed=0):
    draw = torch.Generator("cpu").manual_seed(seed)
    return scale * torch.randn(*size, generator=draw, dtype=torch.float64, device="cpu")


def pixels(n, shape=SHAPE, seed=0):
    draw = torch.Generator("cpu").manual_seed(seed)
    return torch.rand(n, *shape, generator=draw, dtype=torch.float64, device="cpu")


def same(a, b, tolerance=1e-10):
    torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)


def made(seed=0, **settings):
    """A learner in double precision whose old networks differ from the present ones, as within a task."""
    seed_everything(seed)
    learner = GEN(Config(**SMALL | settings), SHAPE, CLASSES).double()
    with torch.no_grad():
        for p in [*learner.net.parameters(), *learner.vae.parameters()]:
            p += 0.3 * doubles(*p.shape, seed=p.numel())
    learner.old_net.eval(), learner.old_vae.eval()
    return learner


# ---- the generator


def test_sizes_are_those_of_the_authors_generators():
    """Two generators plus their classifier give the published 1.14M and 1.08M; ours is smaller."""
    for hidden, count, published in (((128, 128), 254_068, 1.14), ((128,), 221_044, 1.08)):
        learner = GEN(Config(hidden=hidden), (1, 28, 28), 10)
        assert sum(p.numel() for p in learner.vae.parameters()) == count
        gated = 2 * (784 * 400 + 400 + 400 * 10 + 10)
        assert round((2 * count + gated) / 1e6, 2) == published
        assert learner.memory_bytes() == {
            "weights": 4 * 478_410 + 8,
            "generators": 4 * count,
            "teachers": 4 * (count + 478_410),
        }
        assert not learner.stores_images


def losses_by_hand(vae, x, noise, beta):
    error, divergence = vae_terms(vae, x, noise)
    return error + beta * divergence


@pytest.mark.parametrize("beta", [1.0, 0.3, 0.0])
def test_losses_of_the_generator(beta):
    learner, x = made(), pixels(5)
    torch.manual_seed(2)
    found = gen.vae_losses(learner.vae, x, beta)
    torch.manual_seed(2)
    same(found, losses_by_hand(learner.vae, x, torch.randn(5, 3, dtype=torch.float64, device="cpu"), beta))


# ---- terms


def test_codes_are_pushed_from_all_others():
    z = doubles(5, 3)
    for i in range(5):
        own = z[i].clone().requires_grad_()
        pairs = [(own - z[j]).square().mean() for j in range(5) if j != i]
        (expected,) = torch.autograd.grad(sum(pairs) / 4, own)
        leaf = z.clone().requires_grad_()
        (found,) = torch.autograd.grad(gen.apart(leaf)[i], leaf)
        same(found[i], expected)
        assert not found[[j for j in range(5) if j != i]].any(), "the others stay where they are"
    assert gen.apart(z[:1]).tolist() == [0]


# ---- the virtual step and the ascent


@pytest.mark.parametrize("net", ["tiny", "norm"])
def test_a_virtual_step_is_one_of_gradient_descent_and_leaves_no_mark(net):
    learner, x, y = made(net=net, lr=0.5), pixels(8), torch.tensor([2, 3] * 4, device="cpu")
    before = copy.deepcopy(learner.state_dict())
    twin = copy.deepcopy(learner.net)
    F.cross_entropy(twin(x), y).backward()
    torch.optim.SGD(twin.parameters(), 0.5).step()
    probs = doubles(5, CLASSES).softmax(1)
    old = pixels(5, seed=3)
    found = learner.harm_to_net(x, y)(old, probs)
    same(found, -(probs * twin(old).log_softmax(1)).sum(1))
    assert not torch.allclose(found, soft_cross_entropy(learner.net(old), probs))
    before["net.norm.num_batches_tracked"] = learner.state_dict().get("net.norm.num_batches_tracked")
    changed = [k for k, v in learner.state_dict().items() if not torch.equal(v, before[k])]
    assert all("running" in k for k in changed), "those of the line above alone"
    assert all(p.grad is None for p in learner.parameters())


def test_harm_to_the_generator_is_what_a_step_adds_to_the_kl():
    learner, x = made(lr=0.01), pixels(8)
    twin, normal = copy.deepcopy(learner.vae), torch.distributions.Normal
    torch.manual_seed(4)
    gen.vae_losses(twin, x, 0.7).mean().backward()
    torch.optim.SGD(twin.parameters(), 0.01).step()
    torch.manual_seed(4)
    old = pixels(5, seed=3)
    found = learner.harm_to_vae(x, 0.7)(old, None)
    kls = [
        torch.distributions.kl_divergence(normal(mean, (log_variance / 2).exp()), normal(0.0, 1.0)).sum(1)
        for mean, log_variance in (twin(old), learner.old_vae(old))
    ]
    same(found, kls[0] - kls[1])
    assert found.abs().min() > 1e-9


@pytest.mark.parametrize("which", ["net", "vae"])
@pytest.mark.parametrize("weights", [(0.1, 1.0, 1.0), (2.0, 0.0, 0.0), (0.0, 3.0, 0.0), (0.0, 0.0, 5.0)])
def test_codes_climb_the_gain(which, weights):
    """One code at a time, with the gain written out and the other codes as before the step."""
    names = ("interference", "entropy", "diversity")
    learner = made(
        n_steps=3, batch_size=4, n_images=5, lr=0.01, **MIR, **dict(zip(names, weights, strict=True))
    )
    x, y, start = pixels(4), torch.tensor([2, 3] * 2, device="cpu"), doubles(5, 3)
    torch.manual_seed(4)
    harm = learner.harm_to_net(x, y) if which == "net" else learner.harm_to_vae(x, 1.0)
    torch.manual_seed(4)
    after = copy.deepcopy(learner.net if which == "net" else learner.vae)
    loss = F.cross_entropy(after(x), y) if which == "net" else gen.vae_losses(after, x, 1.0).mean()
    loss.backward()
    torch.optim.SGD(after.parameters(), 0.01).step()

    def gain(own, others):
        image = learner.old_vae.decode(own[None])
        p = learner.old_net(image).softmax(1)[0]
        if which == "net":
            harmed = -(p * after(image).softmax(1)[0].log()).sum()
        else:
            harmed = (gen.divergence(*after(image)) - gen.divergence(*learner.old_vae(image)))[0]
        spread = sum((own - other).square().sum() / 3 for other in others) / len(others)
        return weights[0] * harmed + weights[1] * (p * p.log()).sum() + weights[2] * spread

    expected = start
    for _ in range(3):
        moved = []
        for i in range(5):
            own = expected[i].clone().requires_grad_()
            (gradient,) = torch.autograd.grad(gain(own, [expected[j] for j in range(5) if j != i]), own)
            moved.append(expected[i] + gradient / 4)
        expected = torch.stack(moved)
    found = learner.ascend(start, harm)
    same(found, expected)
    assert not torch.allclose(found, start) and not found.requires_grad


def test_codes_that_are_not_finite_are_replaced():
    learner, start = made(**MIR), doubles(6, 3)
    for bad in (math.nan, math.inf):
        assert torch.equal(learner.ascend(start, lambda old, probs: bad * old.sum((1, 2, 3))), start)


def test_random_images_come_from_the_old_generator_without_a_virtual_step():
    learner = made()
    torch.manual_seed(5)
    found = learner.images(None, "no batch")
    torch.manual_seed(5)
    z = torch.randn(6, 3, dtype=torch.float64, device="cpu")
    same(found, learner.old_vae.decode(z))
    assert not found.requires_grad and not torch.allclose(found, learner.vae.decode(z))
    chosen = made(**MIR)
    x, y = pixels(8), torch.tensor([2, 3] * 4, device="cpu")
    torch.manual_seed(5)
    assert not torch.allclose(chosen.images(chosen.harm_to_net, x, y), found)


# ---- whole tasks against a slow run


def tasks_of(count=3, n=20, kind=Doubles):
    for t in range(count):
        draw = torch.Generator("cpu").manual_seed(t)
        images = torch.randint(0, 256, (n, *SHAPE), generator=draw, dtype=torch.uint8, device="cpu")
        labels = torch.arange(n, device="cpu") % 2 + 2 * t
        yield SimpleNamespace(
            index=t, first=2 * t, seen=2 * t + 2, train=kind(images, labels, [str(k) for k in range(CLASSES)])
        )


def go(tasks, dtype=torch.float64, record=(), **settings):
    """A learner after these tasks, and its trace tables."""
    seed_everything(3)
    learner, trace = GEN(Config(**SMALL | settings), SHAPE, CLASSES).to(dtype), Trace(record, progress=False)
    for task in tasks:
        trace.begin(learner, task.index)
        seed_everything(4, task.index)
        learner.train()
        learner.learn(task, trace)
        trace.end()
    return learner, {
        t: {c: np.concatenate(v) for c, v in columns.items()} for t, columns in trace.tables.items()
    }


class Slow:
    """The algorithm with copies of both networks; random numbers are drawn in the same order as in GEN."""

    def __init__(self, config):
        seed_everything(3)
        twin = GEN(config, SHAPE, CLASSES).double()
        self.config, self.net, self.vae, self.old = config, twin.net, twin.vae, None

    def learn(self, task):
        c, losses = self.config, []
        seed_everything(4, task.index)
        sgd = torch.optim.SGD(self.net.parameters(), c.lr)
        adam = torch.optim.Adam(self.vae.parameters(), c.vae_lr)
        for step, (x, y) in enumerate(task.train.batches(c.batch_size, epochs=c.epochs, reshuffle=False)):
            beta = min(c.beta, (step + 1) * c.batch_size / c.warmup)
            x_old = self.images(lambda: self.vae_after(x, beta))
            row = [0.0, 0.0, 0.0]
            for _ in range(c.updates):
                each = torch.cat([x, x_old]) if self.old else x
                each = losses_by_hand(self.vae, each, torch.randn(len(each), c.latent, dtype=x.dtype), beta)
                loss = each[: len(x)].mean() + (c.replay * each[len(x) :].mean() if self.old else 0)
                row[2] += self.step(adam, loss)
            x_old = self.images(lambda: self.net_after(x, y))
            for _ in range(c.updates):
                loss, replay = -self.net(x).log_softmax(1)[range(len(y)), y].mean(), torch.zeros(())
                if self.old:
                    target = self.old[0](x_old).softmax(1).detach()
                    replay = c.replay * -(target * self.net(x_old).log_softmax(1)).sum() / len(x_old)
                self.step(sgd, loss + replay)
                row[0], row[1] = row[0] + float(loss.detach()), row[1] + float(replay.detach())
            losses.append([value / c.updates for value in row])
        self.old = [copy.deepcopy(part).eval() for part in (self.net, self.vae)]
        return losses

    def step(self, optimizer, loss):
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return float(loss.detach())

    def images(self, virtual):
        if not self.old:
            return None
        c, (net, vae) = self.config, self.old
        z = torch.randn(c.n_images, c.latent, dtype=torch.float64)
        harmed = virtual() if c.choose == "interfered" else None
        for _ in range(c.n_steps if harmed else 0):
            z = z.detach().requires_grad_()
            image = vae.decode(z)
            p = net(image).softmax(1)
            others = torch.stack([z.detach()[[j for j in range(len(z)) if j != i]] for i in range(len(z))])
            spread = (z[:, None] - others).square().mean((1, 2))
            gain = c.interference * harmed(image, p) + c.entropy * (p * p.log()).sum(1) + c.diversity * spread
            z = z + torch.autograd.grad(gain.sum(), z)[0] / c.batch_size
        return vae.decode(z).detach()

    def net_after(self, x, y):
        twin = copy.deepcopy(self.net)
        self.step(torch.optim.SGD(twin.parameters(), self.config.lr), F.cross_entropy(twin(x), y))
        return lambda image, p: -(p * twin(image).log_softmax(1)).sum(1)

    def vae_after(self, x, beta):
        twin, noise = copy.deepcopy(self.vae), torch.randn(len(x), self.config.latent, dtype=x.dtype)
        self.step(
            torch.optim.SGD(twin.parameters(), self.config.lr), losses_by_hand(twin, x, noise, beta).mean()
        )

        def kl(vae, image):
            mean, log_variance = vae(image)
            return (mean**2 + log_variance.exp() - 1 - log_variance).sum(1) / 2

        return lambda image, p: kl(twin, image) - kl(self.old[1], image)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"epochs": 2, "replay": 0.5},
        {"net": "norm"},
        MIR,
        {"net": "norm", **MIR},
        {"beta": 0.3, "updates": 1, **MIR},
    ],
)
def test_tasks_are_learned_as_by_the_slow_run(settings):
    learner, rows = go(tasks_of(), record="loss", **settings)
    slow = Slow(learner.config)
    found = np.array([row for task in tasks_of() for row in slow.learn(task)])
    for mine, theirs in ((learner.net, slow.net), (learner.vae, slow.vae)):
        for key, value in mine.state_dict().items():
            same(value, theirs.state_dict()[key], 1e-7)
    columns = np.stack([rows["loss"][name] for name in ("loss", "replay", "vae")], 1)
    np.testing.assert_allclose(columns, found, rtol=1e-5)


@pytest.mark.parametrize("net", ["tiny", "norm"])
def test_without_replay_it_is_plain_training(net):
    """Bit for bit; in the first task, the generator does not affect the classifier."""
    for count, settings in ((3, {"replay": 0.0}), (1, {}), (1, MIR)):
        learner, _ = go(tasks_of(count, kind=ImageSet), torch.float32, net=net, **settings)
        seed_everything(3)
        twin = nets.build(net, SHAPE, CLASSES)
        for task in tasks_of(count, kind=ImageSet):
            seed_everything(4, task.index)
            sgd = torch.optim.SGD(twin.parameters(), 0.01)
            for x, y in task.train.batches(8, epochs=1, reshuffle=False):
                for _ in range(2):
                    sgd.zero_grad()
                    F.cross_entropy(twin(x), y).backward()
                    sgd.step()
        assert all(torch.equal(v, twin.state_dict()[k]) for k, v in learner.net.state_dict().items())


def test_replay_and_its_choice_matter_from_the_second_task_on():
    """A task of one batch and two updates: before the first update both classifiers are equal, so replayed
    images have no effect yet."""
    for count, updates, equal in ((1, 2, True), (2, 1, True), (2, 2, False)):
        found = [
            go(tasks_of(count, n=8), updates=updates, **kind)[0].net.head.weight
            for kind in ({}, {"replay": 0.0}, MIR)
        ]
        for a, b in ((0, 1), (0, 2), (1, 2)):
            assert torch.allclose(found[a], found[b], rtol=0, atol=1e-14) == equal


def test_old_networks_are_those_of_the_end_of_the_last_task():
    learner, _ = go(tasks_of(1), net="norm")
    for old, new in ((learner.old_net, learner.net), (learner.old_vae, learner.vae)):
        assert all(torch.equal(v, old.state_dict()[k]) for k, v in new.state_dict().items())
        assert not list(old.parameters())
    before, calls = copy.deepcopy(learner.state_dict()), []
    images = learner.images

    def watched(*args):
        calls.append(learner.old_net.training or learner.old_vae.training)
        assert all(torch.equal(v, before[k]) for k, v in learner.state_dict().items() if k.startswith("old"))
        return images(*args)

    learner.images = watched
    learner.learn(list(tasks_of())[1], Trace())
    assert calls == [False] * 6, "three batches, for each network, in evaluation mode"
    assert not torch.equal(learner.old_net.head.weight, before["old_net.head.weight"])


@pytest.mark.parametrize("settings", [{}, MIR])
def test_running_statistics_are_those_of_the_updates(settings):
    """Three batches per task, two updates: one pass each, two with replay; a virtual step leaves no trace."""
    learner, _ = go(tasks_of(2), net="norm", **settings)
    assert int(learner.net.norm.num_batches_tracked) == 6 + 12


def test_passes_over_a_task_are_in_the_same_order():
    images = small_stream()[0].train
    steps = list(images.batches(10, epochs=3, reshuffle=False))
    assert len(steps) == 15 and len(steps[4][1]) == 8
    for i in range(10):
        assert all(torch.equal(a, b) for a, b in zip(steps[i], steps[i + 5], strict=True))
    x, _ = next(iter(images.batches(10, epochs=1, reshuffle=False)))
    assert not torch.equal(steps[0][0], x), "another order each time"


def test_beta_grows_with_the_images_of_a_task():
    seen = []

    class Watched(GEN):
        def fit_vae(self, optimizer, x, beta, replays):
            seen.append((beta, replays))
            return super().fit_vae(optimizer, x, beta, replays)

    seed_everything(3)
    learner = Watched(Config(**SMALL | {"beta": 0.9}), SHAPE, CLASSES).double()
    for task in tasks_of(2):
        learner.learn(task, Trace())
    assert seen == [(beta, replays) for replays in (False, True) for beta in (0.4, 0.8, 0.9)]


# ---- settings, records, recall, resuming


@pytest.mark.parametrize(
    "wrong",
    [
        {"choose": "best"},
        {"n_images": 0},
        {"updates": 0},
        {"latent": 0},
        {"hidden": (4, 0)},
        {"dropout": 1.0},
        {"dropout": -0.1},
        {"warmup": 0},
        {"n_steps": 0},
        {"epochs": 0},
        {"batch_size": 0},
        {"lr": 0.0},
        {"lr": math.nan},
        {"vae_lr": 0.0},
        {"replay": -1.0},
        {"replay": math.inf},
        {"beta": -1.0},
        {"interference": -1.0},
        {"entropy": math.nan},
        {"diversity": -0.5},
    ],
)
def test_settings_that_cannot_work_are_refused(wrong):
    with pytest.raises(LearnerError, match=next(iter(wrong))):
        Config(**wrong)


def test_defaults_are_those_of_the_authors_script():
    c = Config()
    assert (c.choose, c.n_images, c.replay, c.updates, c.lr, c.batch_size) == ("random", 40, 3, 15, 0.01, 10)
    assert (c.latent, c.hidden, c.dropout, c.beta, c.warmup) == (50, (128, 128), 0, 1, 1000)
    assert (c.n_steps, c.interference, c.entropy, c.diversity) == (10, 0.1, 1, 1)


@pytest.mark.parametrize("settings", [{}, MIR, {"replay": 0.0}])
def test_tables(settings):
    _, rows = go(tasks_of(), record="*", **settings)
    assert rows.keys() == GEN.tables.keys()
    empty = 9 if settings.get("replay") == 0 else 3
    for table in rows.values():
        assert table["task"].tolist() == [0] * 3 + [1] * 3 + [2] * 3
        assert table["step"].tolist() == [0, 1, 2] * 3
    losses = rows["loss"]
    assert ((losses["replay"] > 0) == (np.arange(9) >= empty)).all() and (losses["loss"] > 0).all()
    assert ((losses["vae"] > 0) == ("replay" not in settings)).all()
    classes = rows["replay"]["classes"]
    assert classes.shape == (9, CLASSES) and np.isnan(classes[:empty]).all()
    np.testing.assert_allclose(classes[empty:].sum(1), 1)


def test_recall():
    learner, _ = go(tasks_of(2), net="norm", dropout=0.5)
    state = copy.deepcopy(learner.state_dict())
    learner.net.head.bias.data[5] += 100  # a class to come, which is not asked
    torch.manual_seed(3)
    x, y = learner.recall(9)
    assert x.shape == (9, *SHAPE) and 0 <= x.min() and x.max() <= 1 and y.shape == (9,) and y.max() < 4
    assert not x.requires_grad and learner.training and learner.vae.training
    assert not torch.equal(x, learner.recall(9)[0]), "each call draws anew"
    torch.manual_seed(3)
    assert torch.equal(x, learner.recall(9)[0])
    assert all(torch.equal(v, state[k]) for k, v in learner.state_dict().items() if k != "net.head.bias")


def test_nothing_to_recall():
    for learner in (made(), go(tasks_of(1), replay=0.0)[0]):
        with pytest.raises(LearnerError, match="before the first task .*, or with replay=0"):
            learner.recall(3)
    assert go(tasks_of(1), replay=0.0)[0].memory_bytes().keys() == {"weights"}


def halves(state=None, start=None, **settings):
    """(learner after the second task, states that its trace saved, rows, state before the task)."""
    seed_everything(0)
    learner, saved = GEN(Config(**SMALL | settings), SHAPE, CLASSES), []
    stream = small_stream(per_class=12)
    if start is None:
        learner.learn(stream[0], Trace())
        start = learner.snapshot()
    else:
        learner.restore(start)
    trace = Trace("*", save=lambda s: saved.append(copied(s)), every=0.0, progress=False)
    trace.begin(learner, 1, state=state)
    seed_everything(5)
    learner.learn(stream[1], trace)
    return learner, saved, trace.end(), start


@pytest.mark.parametrize(
    "settings", [{}, MIR, {"net": "norm", "epochs": 2, "dropout": 0.3, **MIR}, {"replay": 0.0}]
)
def test_a_stopped_task_resumes_exactly(settings):
    whole, saved, rows, start = halves(**settings)
    assert len(saved) == 3 * settings.get("epochs", 1)
    for state in (saved[0], saved[1], saved[-1]):
        again, _, more, _ = halves(state, start, **settings)
        expected = whole.state_dict()
        assert all(torch.equal(v, expected[k]) for k, v in again.state_dict().items())
        assert all(
            np.array_equal(more[table][c], v, equal_nan=True)
            for table, columns in rows.items()
            for c, v in columns.items()
        )


@pytest.mark.parametrize("settings", [{}, {"net": "norm", "dropout": 0.3, **MIR}])
def test_steps_wait_for_no_value_and_make_tensors_on_their_device(settings):
    """A task of ten batches transfers as many values to the host as a task of five."""
    counts = []
    for n in (10, 20):
        learner = GEN(Config(**SMALL | settings | {"batch_size": 2}), SHAPE, CLASSES)
        with HostSyncs() as syncs, DeviceFactories() as factories:
            for task in tasks_of(2, n, ImageSet):
                learner.learn(task, Trace("*"))
        counts.append(syncs.total)
        assert factories.found == []
    assert counts[0] == counts[1]


def test_a_stream_is_remembered():
    """Better than plain training on the same batches, which forgets all but the last task."""
    right, stream = [], small_stream(per_class=60)
    ((x, y),) = stream.test.batches(len(stream.test), shuffle=False)
    usual = {
        "net": "small",
        "n_images": 20,
        "hidden": (32,),
        "lr": 0.1,
        "updates": 8,
        "warmup": 100,
        "vae_lr": 0.01,
    }
    for settings in ({}, MIR, {"replay": 0.0}):
        learner, _ = go(stream, torch.float32, **usual | settings)
        right.append(float((learner(x).argmax(1) == y).double().mean()))
    assert min(right[:2]) > 0.8 > 0.4 > right[2]
