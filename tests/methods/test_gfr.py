"""GFR: the rules of its two phases by hand, with controls that must fail; what a step changes; resuming."""

import contextlib
import copy
import math

import pytest
import torch
from torch.nn import functional as F

from clkit.blocks.gan import GanError
from clkit.data.stream import Task
from clkit.engine.learner import LearnerError
from clkit.engine.run import run
from clkit.engine.seeding import seed_everything
from clkit.engine.trace import Stopped, Trace, copied
from clkit.errors import ClkitError
from clkit.methods.gfr import gfr
from clkit.methods.gfr.gfr import GFR, Config, JointGFR, balanced, distance
from tests.fakes import small_stream

SHAPE, CLASSES = (1, 8, 8), 4
EXACT = "donot_use_mm_for_euclid_dist"
SMALL = {"net": "resnet10", "mean": (0.5,), "std": (0.25,), "augment": "flip", "epochs": 2, "batch_size": 8,
         "nz": 4, "hidden": 8, "gan_epochs": 2}  # fmt: skip


def stream():
    return small_stream(classes=CLASSES, per_class=12, side=8, sizes=(2, 1, 1))


def learner_of(learner=GFR, **settings):
    seed_everything(3, 0)
    return learner(Config(**SMALL | settings), SHAPE, CLASSES)


def learned(tasks=2, **settings):
    """A learner after some tasks."""
    learner = learner_of(**settings)
    for task in list(stream())[:tasks]:
        seed_everything(3, 1 + task.index)
        learner.learn(task, Trace(progress=False))
    return learner


def first_task():
    return stream()[0]


def state(module):
    return copy.deepcopy(module.state_dict())


def unchanged(module, before):
    return all(torch.equal(v, before[k]) for k, v in module.state_dict().items())


# ---- the weights of the terms


@pytest.mark.parametrize(
    "first, tasks, size, expected",
    [
        (50, 5, 10, range(5, 10)),
        (50, 10, 5, range(10, 20)),
        (50, 25, 2, range(25, 50)),
        (25, 3, 25, range(1, 4)),
    ],
)
def test_r_is_the_integer_of_the_code(first, tasks, size, expected):
    """n_base // n_new + t - 1 for half of the classes and equal tasks."""
    seen = [(first + t * size, first + (t + 1) * size) for t in range(tasks)]
    found = [gfr.times(Task(1 + t, old, now, None)) for t, (old, now) in enumerate(seen)]
    assert found == list(expected) == [first // size + t for t in range(tasks)]


def test_each_class_counts_the_same():
    """With two new and six old classes, r = 3: the cross-entropy of a batch of eight, one image of each."""
    logits, y = torch.randn(8, 8), torch.arange(8)
    new, old = F.cross_entropy(logits[6:], y[6:]), F.cross_entropy(logits[:6], y[:6])
    whole = F.cross_entropy(logits, y)
    torch.testing.assert_close(balanced(new, old, 3.0), whole)
    assert not torch.allclose(balanced(new, old, 2.0), whole) and balanced(1.0, 1.0, 7.0) == 1


def test_distances_of_features():
    u, before = torch.randn(16, 5), torch.randn(16, 5)
    unit = F.normalize(torch.randn(16, 5))
    torch.testing.assert_close(distance(before + 0.5 * unit, before, "frob"), torch.tensor(0.5 * 4))
    torch.testing.assert_close(distance(before + 0.5 * unit, before, "mean_l2"), torch.tensor(0.5))
    order = torch.randperm(16)
    torch.testing.assert_close(distance(u[order], before[order], "frob"), distance(u, before, "frob"))
    assert not torch.allclose(distance(u[order], before, "frob"), distance(u, before, "frob"))
    for kind in ("frob", "mean_l2"):
        same = u.clone().requires_grad_()
        loss = distance(same, u, kind)
        loss.backward()
        assert loss == 0 and not same.grad.any(), "finite, and 0"
    maps = torch.randn(3, 2, 4, 4)
    torch.testing.assert_close(distance(maps, 0 * maps, "frob"), maps.square().sum().sqrt())


# ---- replay


def test_old_labels_are_uniform_and_old(monkeypatch):
    """The labels that a step replays; chi-square of 1e5 of them, whose 99.9th percentile is 16.3 for 3."""
    learner, seen = learned(2), []
    monkeypatch.setattr(GFR, "replay", lambda self, c: seen.append(c) or torch.zeros(len(c), 96))
    monkeypatch.setattr(GFR, "until", lambda self, net, x: torch.zeros(len(x), 96))
    optimizer = torch.optim.SGD(learner.net.parameters(), 0.0)
    past = gfr.Past(4, 2.0, None, None)
    learner.net.eval()
    for _ in range(4):
        learner.classify(
            optimizer, torch.zeros(25_000, 1, 1, 1), torch.zeros(25_000, dtype=torch.int64), past
        )
    counts = torch.cat(seen).bincount()
    assert len(counts) == 4 and ((counts - 25_000) ** 2 / 25_000).sum() < 16.3
    seen.clear()
    learner.fit(stream()[2], Trace(progress=False))
    assert set(torch.cat(seen).tolist()) == {0, 1, 2}, "never the class of the task"


def test_what_is_replayed_carries_no_gradient_and_teaches_the_head_alone():
    learner = learned(1)
    learner.zero_grad()
    u = learner.replay(torch.tensor([0, 1, 1]))
    assert not u.requires_grad and u.shape == (3, 96) and u.min() >= 0
    F.cross_entropy(learner.after(u), torch.tensor([0, 1, 1])).backward()
    moved = {name for name, p in learner.net.named_parameters() if p.grad is not None and p.grad.any()}
    assert moved == {"head.weight", "head.bias"}
    x, y = torch.rand(3, *SHAPE), torch.tensor([0, 1, 1])
    F.cross_entropy(learner(x), y).backward()
    assert learner.net.stem.weight.grad.any(), "real images teach F"


def test_a_phase_leaves_the_other_networks_alone(monkeypatch):
    learner, task = learned(1), stream()[1]
    before = {part: state(getattr(learner, part)) for part in ("net", "generator", "critic")}
    learner.fit(task, Trace(progress=False))
    assert not unchanged(learner.net, before["net"])
    assert unchanged(learner.generator, before["generator"]) and unchanged(learner.critic, before["critic"])
    before["net"] = state(learner.net)
    learner.remember(task, Trace(progress=False))
    assert unchanged(learner.net, before["net"])
    assert not unchanged(learner.generator, before["generator"])
    assert not unchanged(learner.critic, before["critic"])


@pytest.mark.parametrize("norm", ["frozen", "batch"])
def test_statistics_of_batch_normalisation_are_those_of_the_first_task(norm):
    learner = learned(1, norm=norm)
    before, start = state(learner.net), list(stream())
    for task in start[1:]:
        learner.train()
        learner.learn(task, Trace(progress=False))
    now = learner.net.state_dict()
    names = [k for k in before if "running" in k or "tracked" in k]
    assert len(names) == 3 * 12 and before["bn.num_batches_tracked"] == 2 * (24 // 8)
    assert all(torch.equal(now[k], before[k]) == (norm == "frozen") for k in names)
    assert all(not torch.equal(now[k], before[k]) for k in before if k.startswith("bn.") and k not in names)


# ---- a step by hand


def test_a_step_of_the_classifier(monkeypatch):
    """Gradient descent instead of Adam, whose first step hides the size of the gradient."""
    learner, task = learned(2, strength=0.7), stream()[2]
    x, y = learner.standardise(torch.rand(8, *SHAPE)), torch.full((8,), 3)
    for p in learner.net.parameters():  # F is no longer F*
        p.data.add_(0.01 * torch.randn_like(p))
    learner.net.eval()
    twin = copy.deepcopy(learner)
    past = learner.past(task)
    for p in past.teacher.parameters():
        p.data.add_(0.01 * torch.randn_like(p))
    assert past.times == 3

    torch.manual_seed(5)
    terms = learner.classify(torch.optim.SGD(learner.net.parameters(), 0.1), x, y, past)

    torch.manual_seed(5)
    c = torch.randint(3, (8,))
    fake = twin.generator(torch.randn(8, 4), c).detach()
    u = twin.net.features(x)
    gap = (u - past.teacher.features(x).detach()).square().sum().sqrt()
    ce = [-F.log_softmax(twin.net.head(v), 1)[range(8), t].mean() for v, t in ((u, y), (fake, c))]
    loss = ce[0] / 4 + 3 * ce[1] / 4 + 0.7 * 3 * gap
    gradients = torch.autograd.grad(loss, list(twin.net.parameters()))
    torch.testing.assert_close(terms, torch.stack([loss, *ce, 0.7 * 3 * gap]).detach())
    for a, b, g in zip(learner.net.parameters(), twin.net.parameters(), gradients):
        torch.testing.assert_close(a, b - 0.1 * g, rtol=1e-4, atol=1e-6)


def test_a_step_of_the_generator():
    learner = learned(2)
    old = copy.deepcopy(learner.generator)
    for p in old.parameters():
        p.data.add_(0.05 * torch.randn_like(p))
    twin, critic = copy.deepcopy(learner.generator), state(learner.critic)
    z, y, weight = torch.randn(8, 4), torch.full((8,), 2), 0.3
    torch.manual_seed(5)
    terms = learner.generate(torch.optim.SGD(learner.generator.parameters(), 0.1), z, y, old, 2, weight)
    torch.manual_seed(5)
    c = torch.randint(2, (8,))
    held = weight * ((twin(z, c) - old(z, c).detach()) ** 2).sum()
    value = -learner.critic(twin(z, y), y).mean()
    gradients = torch.autograd.grad(value + held, list(twin.parameters()))
    torch.testing.assert_close(terms, torch.stack([value, held]).detach())
    for a, b, g in zip(learner.generator.parameters(), twin.parameters(), gradients):
        torch.testing.assert_close(a, b - 0.1 * g, rtol=1e-4, atol=1e-6)
    assert unchanged(learner.critic, critic) and held > 0


# ---- schedules


def spied(monkeypatch, learner, task, *names):
    """Calls of methods while a task is learned: [(name, rate, size of the optimizer's state, arguments)]."""
    calls = []

    def note(name):
        original = getattr(GFR, name)

        def noted(self, optimizer, *args):
            calls.append((name, optimizer.param_groups[0]["lr"], len(optimizer.state), args))
            return original(self, optimizer, *args)

        monkeypatch.setattr(GFR, name, noted)

    for name in names:
        note(name)
    learner.learn(task, Trace(progress=False))
    return calls


@pytest.mark.parametrize("every, wanted", [(5, 1), (2, 2), (1, 3)])
def test_the_generator_makes_a_step_at_the_first_of_some_batches(monkeypatch, every, wanted):
    """24 images in batches of 8: ceil(3 / every) steps an epoch, on the batch's own noise and labels."""
    learner = learner_of(critic_steps=every)
    calls = spied(monkeypatch, learner, first_task(), "criticise", "generate", "classify")
    names = [name for name, *_ in calls]
    assert names.count("classify") == names.count("criticise") == 2 * 3
    assert names.count("generate") == 2 * wanted
    start = names.index("criticise")
    assert names[start : start + 2] == ["criticise", "generate"]
    (_, z, y), (z2, y2, *_) = calls[start][3], calls[start + 1][3]
    assert z is z2 and y is y2
    first = {name: next(size for n, _, size, _ in calls if n == name) for name in set(names)}
    assert set(first.values()) == {0}, "an optimizer begins without state"
    again = spied(monkeypatch, learner, stream()[1], "criticise", "generate", "classify")
    assert {next(size for n, _, size, _ in again if n == name) for name in set(names)} == {0}


def test_learning_rates_fall_one_epoch_early(monkeypatch):
    """Of 201 epochs the last two are at a tenth; of 501, two falls by 0.3 for G and D."""
    parameter = torch.nn.Parameter(torch.zeros(1))
    rates = {}
    for name, lr, factor, epochs in (("F", 1e-3, 0.1, 201), ("G", 1e-4, 0.3, 501)):
        optimizer = torch.optim.SGD([parameter], lr)
        for epoch in range(epochs):
            gfr.decay(optimizer, lr, factor, 200, epoch)
            rates.setdefault(name, []).append(optimizer.param_groups[0]["lr"])
    assert rates["F"][198:] == pytest.approx([1e-3, 1e-4, 1e-4], rel=1e-12)
    assert [rates["G"][e] for e in (0, 198, 199, 398, 399, 500)] == pytest.approx(
        [1e-4, 1e-4, 3e-5, 3e-5, 9e-6, 9e-6], rel=1e-12
    )
    calls = spied(monkeypatch, learner_of(lr_step=2, gan_lr_step=1, gan_lr=0.01), first_task(),
                  "classify", "criticise", "generate")  # fmt: skip
    found = {n: [lr for name, lr, *_ in calls if name == n] for n in ("classify", "criticise", "generate")}
    assert found["classify"] == pytest.approx([1e-3] * 3 + [1e-4] * 3)
    assert found["criticise"] == pytest.approx([0.003] * 3 + [0.0009] * 3)
    assert found["generate"] == pytest.approx([0.003, 0.0009])


# ---- the first steps of a task


def test_at_the_first_step_nothing_has_moved(monkeypatch):
    """Distillation and alignment are 0 at the first step of their phases, and not later."""
    rows, task = {"classify": [], "generate": []}, stream()[1]
    for name in rows:
        original = getattr(GFR, name)
        monkeypatch.setattr(
            GFR, name, lambda self, *a, o=original, n=name: rows[n].append(o(self, *a)) or rows[n][-1]
        )
    learner = learner_of(gan_lr=0.01)
    learner.learn(first_task(), Trace(progress=False))
    assert not any(r[3].any() for r in rows["classify"]) and not any(r[1].any() for r in rows["generate"])
    for found in rows.values():
        found.clear()
    learner.learn(task, Trace(progress=False))
    held = [float(r[3]) for r in rows["classify"]]
    apart = [float(r[1]) for r in rows["generate"]]
    assert held[0] == apart[0] == 0 and min(held[1:]) > 0 and min(apart[1:]) > 0


def test_batch_statistics_move_the_features_at_once(monkeypatch):
    rows, original = [], GFR.classify
    monkeypatch.setattr(GFR, "classify", lambda self, *a: rows.append(original(self, *a)) or rows[-1])
    learner = learner_of(norm="batch")
    for task in list(stream())[:2]:
        rows.clear()
        learner.learn(task, Trace(progress=False))
    assert rows[0][3] > 0


# ---- features for the GAN


@pytest.mark.parametrize("pushed, size", [(4096, 8), (8, 8), (20, 8), (1, 24)])
def test_a_pass_has_each_image_once_in_whole_batches(monkeypatch, pushed, size):
    monkeypatch.setitem(gfr.PUSHED, "cpu", pushed)
    learner, images = learned(1, augment="none"), first_task().train
    learner.eval()
    u, y = zip(*learner.feature_batches(images, size))
    assert [len(part) for part in y] == [size] * (24 // size)
    with torch.no_grad():
        wanted = learner.net.features(learner.standardise(images.images.float() / 255))
    apart = torch.cdist(torch.cat(u), wanted, compute_mode=EXACT)  # (24, 24)
    assert apart.min(1).values.max() < 1e-4 and len(set(apart.argmin(1).tolist())) == 24
    assert torch.equal(images.labels[apart.argmin(1)], torch.cat(y)) and not u[0].requires_grad
    assert len(list(learner.feature_batches(images, 9))) == 2, "the rest is left out"


def test_features_are_those_of_new_views():
    """Mirrored or not: over some passes both features of each image, and no others."""
    learner, images = learned(1), first_task().train
    learner.eval()
    x = learner.standardise(images.images.float() / 255)
    with torch.no_grad():
        both = torch.stack([learner.net.features(x), learner.net.features(x.flip(3))])  # (2, 24, D)
    seen = set()
    for _ in range(8):
        u = torch.cat([u for u, _ in learner.feature_batches(images, 8)])
        apart = torch.cdist(u, both.flatten(0, 1), compute_mode=EXACT)
        assert apart.min(1).values.max() < 1e-4
        seen |= set(apart.argmin(1).tolist())
    assert len(seen) > 40


# ---- the head, stages, what holds F


def test_a_head_that_expands_keeps_its_rows():
    learner = learned(1, head="expand")
    assert learner.net.head.weight.shape == (2, 96) and learner(torch.rand(3, *SHAPE)).shape == (3, 2)
    before = [p.detach().clone() for p in learner.net.head.parameters()]
    learner.grow(3)
    assert learner.net.head.weight.shape == (3, 96) and learner.net.head.bias.grad is None
    assert all(torch.equal(p[:2], b) for p, b in zip(learner.net.head.parameters(), before))
    assert learner_of().net.head.weight.shape == (4, 96)
    assert learner.generator.classes == CLASSES, "one-hot classes have their size from the start"


@pytest.mark.parametrize("stage, size", [(1, (12, 8, 8)), (2, (24, 4, 4)), (3, (48, 2, 2)), (4, (96,))])
def test_replay_after_each_stage(stage, size):
    learner = learner_of(stage=stage)
    task, after = first_task(), stream()[1]
    learner.learn(task, Trace(progress=False))
    learner.zero_grad()
    u, y = learner.recall(3)
    assert u.shape == (3, *size) and y.tolist() == [0, 1, 0] and u.min() >= 0
    F.cross_entropy(learner.after(u), y).backward()
    taught = {id(p) for p in learner.net.parameters() if p.grad is not None and p.grad.any()}
    held = {id(p) for p in learner.extractor().parameters()}
    assert taught == {id(p) for p in learner.net.parameters()} - held, "H is what follows F"
    learner.learn(after, Trace(progress=False))
    assert learner(torch.rand(2, *SHAPE)).isfinite().all()


@pytest.mark.parametrize("regulariser", ["ewc", "mas"])
def test_importance_is_the_mean_over_images(regulariser):
    learner = learned(1, regulariser=regulariser)
    images = first_task().train
    parameters = list(learner.extractor().parameters())
    total = 0.0
    learner.net.eval()
    for image in images.images.float() / 255:
        logits = learner(image[None])[0, :2]
        goal = logits.norm() if regulariser == "mas" else -F.log_softmax(logits, 0)[logits.argmax()]
        g = torch.cat([g.reshape(-1) for g in torch.autograd.grad(goal, parameters)])
        total = total + (g.abs() if regulariser == "mas" else g**2)
    wanted = total / len(images)
    torch.testing.assert_close(learner.importance, wanted, rtol=1e-3, atol=1e-3 * wanted.max().item())
    assert learner.memory_bytes()["importance"] == 4 * sum(p.numel() for p in parameters)
    learner.learn(stream()[1], Trace(progress=False))
    again = learner_of(regulariser=regulariser)
    again.restore(learner.snapshot())
    assert torch.equal(again.importance, learner.importance)


def test_importance_is_averaged_and_pulls(monkeypatch):
    learner, tasks = learned(1, regulariser="ewc", strength=4.0), list(stream())
    before = learner.importance.clone()
    learner.weigh(tasks[0])
    assert torch.equal(before, learner.importance), "that of the first task is taken as it is"
    monkeypatch.setattr(gfr, "importance", lambda net, images, seen, kind: torch.ones(10**6))
    learner.weigh(tasks[1])
    torch.testing.assert_close(learner.importance, (before + 1) / 2)
    past = learner.past(tasks[1])
    assert past.teacher is None and past.times == 2
    first = next(learner.extractor().parameters())
    for p in learner.net.parameters():
        p.grad = torch.zeros_like(p)
    first.data += 0.5
    value = past.pull.add_gradient(learner.config.strength / 2)
    A = past.pull.terms[0][1]
    torch.testing.assert_close(first.grad, 4.0 * A * 0.5)
    torch.testing.assert_close(value, 2.0 * (A * 0.25).sum())


# ---- resuming


@pytest.mark.parametrize("settings", [{}, {"head": "expand", "stage": 3}, {"regulariser": "mas"}])
def test_a_task_stopped_among_generators_resumes_bit_for_bit(settings):
    task = stream()[1]
    settings = {"gan_epochs": 3, "gan_lr": 0.01, **settings}

    def learn(learner, state=None, stop_at=None):
        seed_everything(3, 2)
        saved, trace = [], Trace("*", progress=False, every=0.0)

        def save(found):
            saved.append(copied(found))
            if len(saved) == stop_at:
                trace.stop = True

        trace._save = save
        trace.begin(learner, 1, state=state)
        with pytest.raises(Stopped) if stop_at else contextlib.nullcontext():
            learner.learn(task, trace)
        return saved[-1], None if stop_at else trace.end()

    begun = learned(1, **settings).snapshot()
    whole, stopped, resumed = (learner_of(**settings) for _ in range(3))
    for learner in (whole, stopped, resumed):
        learner.restore(begun)
    _, rows = learn(whole)
    kept, _ = learn(stopped, stop_at=2 + 1)
    assert kept["unfinished"]["phase"] == "generator" and kept["unfinished"]["done"] == 1
    _, again = learn(resumed, state=kept)
    now, wanted = resumed.snapshot(), whole.snapshot()
    for kind in ("parameters", "buffers"):
        assert all(torch.equal(now[kind][k], v) for k, v in wanted[kind].items())
    for table, columns in rows.items():
        for name, values in columns.items():
            assert str(values) == str(again[table][name]), (table, name)


# ---- runs


def test_what_a_run_keeps_and_reports():
    _, result = run(GFR, Config(**SMALL), stream(), record="*", threads=1, progress=False)
    assert len(set(result.memory_bytes["generators"].tolist())) == 1
    loss = result.trace["loss"]
    phases = list(zip(loss["task"].tolist(), loss["phase"].tolist()))
    assert phases.count((0, "generator")) == phases.count((1, "generator")) == 2
    assert phases.count((2, "generator")) == 0, "the last task needs no generator"
    own = {
        "classifier": {"new", "old", "regulariser"},
        "generator": {"critic", "penalty", "generator", "alignment"},
    }
    for phase, columns in own.items():
        of_phase = loss["phase"] == phase
        for name in own["classifier"] | own["generator"]:
            assert (~(loss[name] != loss[name]))[of_phase].all() == (name in columns)
    drift = result.trace["drift"]
    assert (
        set(drift["task"].tolist()) == {1, 2}
        and (drift["cosine"] > 0.5).all()
        and (drift["cosine"] < 1).all()
    )


@pytest.mark.parametrize("kind, sizes", [("diag", (4, 2)), ("scalar", (4, 2)), ("full", (4, 97))])
def test_gaussians_keep_a_mean_and_a_spread(kind, sizes):
    learner, result = run(GFR, Config(**SMALL, gauss=kind), stream(), threads=1, progress=False)
    each = 4 * 96 * (1 + (96 if kind == "full" else 1))
    assert result.memory_bytes["features"].tolist() == [2 * each, 3 * each, 3 * each]
    assert learner.generator is None and learner.recall(5)[0].shape == (5, 96)


def test_joint_training_is_one_task():
    learner, result = run(JointGFR, Config(**SMALL, replay=False, regulariser="none", norm="batch"), stream(),
                          record="*", threads=1, progress=False)  # fmt: skip
    assert result.seen.tolist() == [4] and learner.joint and "drift" not in result.trace
    assert "drift" not in JointGFR.tables and JointGFR.tables.items() <= GFR.tables.items()


def test_half_precision_is_of_the_image_network_alone():
    learner = learner_of(precision="bf16")
    plain = learner_of()
    learner.eval(), plain.eval()
    x = torch.rand(4, *SHAPE)
    with torch.no_grad():
        a, b = learner(x), plain(x)
    assert a.dtype == torch.float32 and not torch.equal(a, b)
    torch.testing.assert_close(a, b, rtol=0.1, atol=0.05)
    learner.learn(first_task(), Trace(progress=False))
    assert {p.dtype for p in learner.parameters()} == {torch.float32} and learner.recall(2)[
        0
    ].dtype == a.dtype


def test_training_views_are_parts_and_tests_see_the_centre():
    learner = learner_of(augment="zoom", view=6)
    learner.learn(first_task(), Trace(progress=False))
    learner.eval()
    x = torch.rand(3, *SHAPE)
    changed = x.clone()
    changed[:, :, 0], changed[:, :, :, -1] = 0, 1
    with torch.no_grad():
        assert torch.equal(learner(x), learner(changed))
        assert not torch.equal(learner(x), learner(x.flip(3)))


# ---- recall, faults


def test_recall():
    learner = learned(3)
    before = state(learner)
    u, y = learner.recall(7)
    assert u.shape == (7, 96) and y.tolist() == [0, 1, 2, 0, 1, 2, 0] and not u.requires_grad
    assert learner.recall(4, label=2)[1].tolist() == [2] * 4 and unchanged(learner, before)
    with pytest.raises(LearnerError, match="class 3 is not remembered: recall one of the classes 0 to 2"):
        learner.recall(4, label=3)
    with pytest.raises(LearnerError, match="no class is remembered yet"):
        learner_of().recall(1)
    with pytest.raises(LearnerError, match="GFR remembers no samples"):
        learned(2, replay=False).recall(1)


@pytest.mark.parametrize(
    "settings, term", [({"lr": 1e30}, "new"), ({"gan_lr": 1e30, "gan_epochs": 4}, "critic|generator")]
)
def test_training_that_diverges_says_where(settings, term):
    with pytest.raises(GanError, match=rf"diverged in epoch \d+ of task 1 \(.*({term}).* not finite\)"):
        learned(1, **settings)


@pytest.mark.parametrize(
    "wrong, says",
    [
        ({"critic_steps": 0}, "critic_steps must be a whole number of at least 1"),
        ({"net": "mlp"}, r"net must be a network with stages \(.*resnet10.*\), not 'mlp'"),
        ({"gauss": "diag", "replay": False}, "gauss='diag' is a way to replay"),
        ({"augment": "zoom"}, "give their side"),
        ({"head": "multi"}, "head must be"),
        ({"fd": "l1"}, "fd must be"),
        ({"regulariser": "si"}, "regulariser must be"),
        ({"alignment": -1.0}, "alignment must be"),
        ({"stage": 0}, "stage must be a whole number of at least 1"),
    ],
)
def test_settings_that_cannot_work(wrong, says):
    with pytest.raises(LearnerError, match=says):
        Config(**SMALL | wrong)


@pytest.mark.parametrize(
    "wrong, says",
    [
        ({"stage": 5}, "stage=5 does not exist: the network resnet10 has the stages 1 to 4"),
        ({"stage": 3, "gauss": "full"}, "describes features, not maps: use stage=4"),
        ({"mean": (0.5, 0.5), "std": (1.0, 1.0)}, "mean and std must have one number"),
        ({"augment": "zoom", "view": 9}, "view=9 is larger than the images of 8x8 pixels"),
    ],
)
def test_settings_that_do_not_fit_the_images(wrong, says):
    with pytest.raises(ClkitError, match=says):
        learner_of(**wrong)


def test_batches_that_no_task_fills_are_refused():
    with pytest.raises(ClkitError, match="drop_last with batches of 25 would leave out all 24 images"):
        learned(1, batch_size=25)


def test_the_check_values_of_the_two_means():
    """Accuracies 80; 60, 70; 50, 40, 90 of tasks with 50, 10 and 10 classes."""
    a, sizes = [[80], [60, 70], [50, 40, 90]], [50, 10, 10]
    assert sum(a[2]) / 3 == 60
    assert math.isclose(sum(n * x for n, x in zip(sizes, a[2])) / 70, 54.2857, abs_tol=1e-4)
