"""ARM against closed forms and the authors' code; its fast steps against the readable ones."""

import copy
import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from clkit.blocks import nets
from clkit.blocks.losses import soft_cross_entropy
from clkit.blocks.shared_norm import SharedNorm, norms
from clkit.data import ImageSet
from clkit.engine.learner import LearnerError
from clkit.engine.seeding import seed_everything
from clkit.engine.trace import Trace, copied
from clkit.methods.arm import arm, fast
from clkit.methods.arm.recalled import NonFiniteGuard
from tests.fakes import small_stream
from tests.modes import DeviceFactories, HostSyncs
from tests.reference.arm import Reference

LN2 = math.log(2)


class Normed(nn.Module):
    """Two convolutions with batch normalisation."""

    def __init__(self, shape, classes):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(shape[0], 3, 3, 2, 1, bias=False), nn.BatchNorm2d(3)
        self.conv2, self.bn2 = nn.Conv2d(3, 4, 3, 1, 1, bias=False), nn.BatchNorm2d(4)
        self.head = nn.Linear(4, classes)

    def forward(self, x):
        x = F.relu(self.bn1(self.conv1(x)))
        return self.head(F.relu(self.bn2(self.conv2(x))).mean((2, 3)))


@pytest.fixture(autouse=True)
def small_nets(monkeypatch):
    """Register networks of each kind that are small enough for loops, under separate names."""
    monkeypatch.setitem(nets.NETS, "tiny", lambda shape, classes: nets.MLP(shape, classes, (9, 7)))
    monkeypatch.setitem(nets.NETS, "small", lambda shape, classes: nets.MLP(shape, classes, (32,)))
    monkeypatch.setitem(nets.NETS, "conv", lambda shape, classes: nets.ConvNet(shape, classes, (2, 3, 3, 2)))
    monkeypatch.setitem(nets.NETS, "norm", Normed)
    monkeypatch.setitem(nets.NETS, "deep", lambda shape, classes: nets.ResNet18(shape, classes, width=2))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def doubles(*size, scale=1.0, seed=0):
    draw = torch.Generator("cpu").manual_seed(seed)
    return scale * torch.randn(*size, generator=draw, dtype=torch.float64, device="cpu")


def numbers(*values):
    return torch.tensor(values, dtype=torch.float64, device="cpu")


def apart(old, new, kind="ag"):
    """D of two scores (K,)."""
    return arm.divergence(old[None].log_softmax(1), new[None].log_softmax(1), kind)[0]


def same(a, b, tolerance=1e-10):
    torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)


# ---- the terms, by their exact values


@pytest.mark.parametrize("s, expected", [(1, 0.120114), (5, 1.813568), (10, 4.306898), (20, 9.306853)])
def test_the_divergence_has_no_upper_bound(s, expected):
    value = float(apart(numbers(s, 0), numbers(0, s)))
    assert value == pytest.approx(expected, abs=1e-6)
    assert value == pytest.approx(s / 2 + math.log1p(math.exp(-s)) - LN2, abs=1e-12)


def test_jensen_shannon_is_bounded():
    assert float(apart(numbers(5, 0), numbers(0, 5), "js")) == pytest.approx(0.652968, abs=1e-6)
    assert float(apart(numbers(50, 0), numbers(0, 50), "js")) == pytest.approx(LN2, abs=1e-12)
    for seed in range(20):
        a, b = doubles(2, 6, scale=4, seed=seed)
        assert 0 < apart(a, b, "js") <= min(LN2, float(apart(a, b)))


@pytest.mark.parametrize("kind", ["ag", "js"])
def test_the_divergence_is_symmetric_and_zero_for_equal_outputs(kind):
    a, b = doubles(2, 6, scale=3)
    same(apart(a, b, kind), apart(b, a, kind), 1e-14)
    logs = doubles(4, 6, scale=3).log_softmax(1)
    value = arm.divergence(logs, logs, kind)
    assert value.abs().max() < 1e-15
    p, q = a.softmax(0), b.softmax(0)
    m = (p + q) / 2
    slow = {
        "ag": (m * (m / p).log() + m * (m / q).log()) / 2,
        "js": (p * (p / m).log() + q * (q / m).log()) / 2,
    }
    same(apart(a, b, kind), slow[kind].sum())


def test_the_cross_entropy_as_divergence():
    a, b = doubles(2, 6, scale=3)
    same(apart(a, b, "ce"), -(a.softmax(0) * b.log_softmax(0)).sum())


def test_diversity_is_minus_the_entropy_of_the_mean_output():
    tenth = numbers(*[0.1] * 10)
    assert float(arm.diversity(torch.full((10, 10), 0.1, dtype=torch.float64), tenth)) == pytest.approx(
        -math.log(10), abs=1e-6
    )
    ones = torch.eye(10, dtype=torch.float64)
    assert float(arm.diversity(ones, tenth)) == pytest.approx(-math.log(10), abs=1e-6)
    assert float(arm.diversity(ones[:1].expand(10, 10), tenth)) == pytest.approx(0, abs=1e-6)
    p = torch.stack([numbers(10, 0), numbers(0, 2)]).softmax(1)
    assert float(arm.diversity(p, numbers(0.5, 0.5))) == pytest.approx(-0.686031, abs=1e-6)
    same(arm.diversity(p, numbers(0.75, 0.25)), arm.diversity(p[[0, 0, 0, 1]], numbers(*[0.25] * 4)))


def test_away_from_batch_classes_is_a_mean_over_them():
    uniform = torch.zeros(3, 10, dtype=torch.float64).log_softmax(1)
    one = torch.eye(10, dtype=torch.float64)
    same(arm.away_from_batch_classes(uniform, one[4]), torch.full((3,), -math.log(10), dtype=torch.float64))
    log_p = doubles(3, 10, scale=2).log_softmax(1)
    same(
        arm.away_from_batch_classes(log_p, (one[2] + one[7]) / 2),
        (arm.away_from_batch_classes(log_p, one[2]) + arm.away_from_batch_classes(log_p, one[7])) / 2,
    )
    expected = -F.nll_loss(log_p, torch.tensor([2, 2, 2]), reduction="none")
    same(arm.away_from_batch_classes(log_p, one[2]), expected)


def test_confidence_and_soft_cross_entropy():
    scores = doubles(4, 10, scale=3)
    same(arm.confidence(scores.log_softmax(1)), F.cross_entropy(scores, scores.argmax(1), reduction="none"))
    assert float(arm.confidence(torch.zeros(1, 10).log_softmax(1))) == pytest.approx(math.log(10), abs=1e-6)
    assert float(arm.confidence(torch.eye(10)[:1].mul(60).log_softmax(1))) == pytest.approx(0, abs=1e-6)
    target = doubles(4, 10, seed=1).softmax(1)
    same(
        soft_cross_entropy(torch.zeros_like(target), target),
        torch.full((4,), math.log(10), dtype=torch.float64),
    )
    scores.requires_grad_()
    (ours,) = torch.autograd.grad(soft_cross_entropy(scores, target).sum(), scores)
    (divergence,) = torch.autograd.grad(F.kl_div(scores.log_softmax(1), target, reduction="sum"), scores)
    same(ours, divergence)
    same(
        arm.wanted_class(scores.log_softmax(1), torch.tensor([1, 0, 9, 1])),
        F.cross_entropy(scores, torch.tensor([1, 0, 9, 1]), reduction="none"),
    )


def test_l2():
    ones = torch.ones(2, 3, 4, 4, dtype=torch.float64)
    assert arm.l2(ones).tolist() == pytest.approx([0.144338] * 2, abs=1e-6)
    same(arm.l2(2 * ones), 2 * arm.l2(ones))
    assert arm.l2(0 * ones).tolist() == [0, 0]


def test_tv():
    dot = torch.zeros(1, 1, 3, 3, dtype=torch.float64)
    assert float(arm.tv(dot + 7)) == 0
    dot[0, 0, 1, 1] = 1
    assert float(arm.tv(dot)) == pytest.approx(4 / 3, abs=1e-12)
    ramp = torch.arange(16, dtype=torch.float64).view(1, 1, 4, 4)
    assert float(arm.tv(ramp)) == pytest.approx(34, abs=1e-12)
    same(arm.tv(2 * ramp), 4 * arm.tv(ramp))
    x = doubles(2, 3, 5, 4)
    for image, value in zip(x.tolist(), arm.tv(x).tolist(), strict=True):
        down = [(plane[h + 1][w] - plane[h][w]) ** 2 for plane in image for h in range(4) for w in range(4)]
        across = [(plane[h][w + 1] - plane[h][w]) ** 2 for plane in image for h in range(5) for w in range(3)]
        assert value == pytest.approx(2 * sum(down) / (3 * 4 * 4) + 2 * sum(across) / (3 * 5 * 3))


# ---- gradients in closed form

SETTINGS = {
    "usual": {},
    "js": {"divergence": "js"},
    "ce": {"divergence": "ce", "divergence_weight": 3.0},
    "heavy": {
        "divergence_weight": 8.0,
        "local_old": 2.0,
        "local_new": 3.0,
        "diversity": 0.7,
        "confidence": 1.3,
        "l2": 20.0,
        "tv": 0.5,
    },
    "adi": {"recall": "adi", "target": 1.7},
    "adi-js": {"recall": "adi", "divergence": "js"},
    **{f"no {name}": {name: 0.0} for name in ("divergence_weight", *arm.TERMS[1:7])},
}


def recalled_batch(n=4, classes=5, shape=(2, 5, 4), adi=False, counts=None):
    x = doubles(n, *shape)
    weights = numbers(*[0.5 if k in (1, 3) else 0 for k in range(classes)])
    target = torch.arange(n, device="cpu") % classes if adi else None
    origins = torch.zeros(n, dtype=torch.int64, device="cpu")
    return arm.RecalledBatch(x, x, origins, weights, target=target, multiplicity=counts)


def objective(learner, logits, recalled):
    """The objective of recall without the statistics term, term by term."""
    weights = learner.weights()
    return sum(
        weights[name] * term for name, term in learner.terms(logits, recalled.images, recalled).items()
    )


def closed_form(config):
    return fast.ClosedForm(config, (2, 5, 4), "cpu")


@pytest.mark.parametrize("name", SETTINGS)
@pytest.mark.parametrize("counts", [None, (3.0, 1.0, 2.0, 4.0)])
def test_closed_forms_are_the_gradients_of_the_terms(name, counts):
    learner = arm.ARM(arm.Config(net="tiny", **SETTINGS[name], n_images=10 if counts else 4), (2, 5, 4), 5)
    counts = None if counts is None else numbers(*counts)
    recalled = recalled_batch(adi=learner.config.recall == "adi", counts=counts)
    logits = doubles(2, 4, 5, scale=3, seed=1).requires_grad_()
    recalled = recalled._replace(images=recalled.images.requires_grad_())
    by_logits, by_pixels = torch.autograd.grad(
        objective(learner, logits, recalled), (logits, recalled.images), allow_unused=True
    )
    by_pixels = torch.zeros_like(recalled.images) if by_pixels is None else by_pixels
    share = recalled.image_weights.detach()
    with torch.no_grad():
        form = closed_form(learner.config)
        form.begin(recalled)
        same(form.in_logits(logits.detach()) * share[:, None], by_logits)
        x, above = recalled.images.detach(), doubles(4, 2, 5, 4, seed=3)
        step = (x - form.step(x, above, 0.3)) / 0.3 - above
        same(step * share[:, None, None, None], by_pixels)


def test_a_gradient_through_the_softmax_is_its_jacobian():
    logits, gradient = doubles(2, 4, 5, scale=3), doubles(2, 4, 5, seed=1)
    p = logits.softmax(2)
    through = fast.ThroughSoftmax(gradient.shape, gradient.dtype, gradient.device)
    for probs in (p, p.flip(2)):
        same(through(gradient, probs), probs * (gradient - (probs * gradient).sum(2, keepdim=True)))


def test_gradients_stay_finite_where_a_probability_is_zero_in_both_networks():
    logits = torch.tensor([[[200.0, 0, -150]], [[0.0, 200, -150]]])
    for kind in ("ag", "js", "ce"):
        form = closed_form(arm.Config(divergence=kind))
        zeros = {"images": torch.zeros(1, 2, 5, 4), "class_weights": torch.zeros(3)}
        form.begin(recalled_batch(1, 3)._replace(**zeros))
        assert form.in_logits(logits).isfinite().all()
        leaf = logits.clone().requires_grad_()
        value = arm.divergence(*leaf.log_softmax(2), kind).sum()
        assert value.isfinite() and torch.autograd.grad(value, leaf)[0].isfinite().all()


def test_an_image_of_zeros_has_no_gradient():
    zeros = torch.zeros(3, 2, 5, 4, dtype=torch.float64)
    form = closed_form(arm.Config())
    form.begin(recalled_batch(3)._replace(images=zeros))
    assert torch.equal(form.step(zeros, zeros, 25.0), zeros)


# ---- one recall


def made(net="tiny", shape=(1, 6, 6), classes=6, seed=0, **settings):
    """A learner in double precision whose networks differ."""
    seed_everything(seed)
    learner = arm.ARM(
        arm.Config(net=net, batch_size=5, **{"n_images": 5, "n_steps": 3} | settings), shape, classes
    ).double()
    learner.update_teacher()
    with torch.no_grad():
        for p in learner.net.parameters():
            p += 0.3 * doubles(*p.shape, seed=p.numel())
    learner.seen.fill_(2)
    return learner


def optimizer(learner):
    return torch.optim.SGD(learner.net.parameters(), lr=learner.config.lr)


def batch(learner, n=5, classes=(2, 3), seed=0):
    draw = torch.Generator("cpu").manual_seed(seed)
    x = torch.rand(n, *learner.shape, generator=draw, dtype=torch.float64, device="cpu")
    return x, torch.tensor([classes[i % len(classes)] for i in range(n)], device="cpu")


@pytest.mark.parametrize("net", ["tiny", "norm", "conv"])
def test_recall_changes_no_weights(net):
    learner = made(net, norm="batch")
    before = copy.deepcopy(learner.state_dict())
    found = learner.recall_for(*batch(learner))
    assert not torch.equal(found.images, found.start)
    learner.recall(7)
    assert all(torch.equal(v, before[k]) for k, v in learner.state_dict().items())
    assert all(p.grad is None for p in learner.net.parameters())
    assert all(norm.mode is norm.multiplicity is None for norm in norms(learner))


@pytest.mark.parametrize("name", ["divergence_weight", *arm.TERMS[1:7]])
@pytest.mark.parametrize("net", ["tiny", "norm"])
def test_one_step_down_one_term(name, net):
    weights = dict.fromkeys(("divergence_weight", *arm.TERMS[1:7]), 0.0) | {name: 1.5}
    learner = made(net, n_steps=1, image_lr=3.0, **weights)
    x, y = batch(learner)
    found = learner.recall_for(x, y)
    networks = [copy.deepcopy(n).train() for n in (learner.old, learner.net)]
    leaf = x.clone().requires_grad_()
    logits = torch.stack([network(leaf) for network in networks])
    value = objective(learner, logits, found._replace(images=leaf))
    (step,) = torch.autograd.grad(value, leaf)
    assert step.abs().max() > 1e-9
    same(found.images, x - 3.0 * step)
    again = made(net, n_steps=1, image_lr=6.0, **weights).recall_for(x, y)
    same(again.images - x, 2 * (found.images - x), 1e-9)


@pytest.mark.parametrize("net", ["tiny", "norm"])
def test_equal_networks_do_not_diverge(net):
    learner = made(net, **dict.fromkeys(arm.TERMS[1:7], 0.0))
    learner.update_teacher()
    x, y = batch(learner)
    same(learner.recall_for(x, y).images, x, 1e-12)


def test_images_are_not_clamped():
    learner = made(image_lr=25.0)
    low, high = learner.recall_for(*batch(learner)).images.aminmax()
    assert low < 0 and high > 1


def test_twice_the_images_at_twice_the_rate_are_the_same_images():
    one, two = made(), made(n_images=10, image_lr=50.0)
    x, y = batch(one)
    a = one.recall_for(x, y)
    b = two.recall_for(torch.cat([x, x]), torch.cat([y, y]))
    same(torch.cat([a.images, a.images]), b.images, 1e-12)


# ---- batch normalisation


@pytest.mark.parametrize("distill", [1.0, 0.0])
@pytest.mark.parametrize("images", [5, 8])
def test_how_often_running_statistics_are_updated(distill, images):
    learner = made("norm", distill=distill, n_images=images)
    path, (x, y), sgd = learner.path(), batch(learner), optimizer(learner)

    def passes(net):
        return {int(m.num_batches_tracked) for m in net.modules() if isinstance(m, SharedNorm)}

    path.fit(sgd, x, y)
    assert passes(learner.net) == {1} and passes(learner.old) == {0}
    learner.rehearse(path, sgd, x, y, watch(), 0)
    extra = int(distill > 0)
    assert passes(learner.net) == {1 + 3 + 1 + extra} and passes(learner.old) == {3 + 1 + extra}


@pytest.mark.parametrize("norm", ["batch", "running"])
def test_recall_can_leave_running_statistics_alone(norm):
    learner = made("norm", norm=norm)
    path, (x, y), sgd = learner.path(), batch(learner), optimizer(learner)
    path.fit(sgd, x, y)
    before = [b.clone() for b in learner.buffers()]
    learner.rehearse(path, sgd, x, y, watch(), 0)
    assert all(torch.equal(a, b) for a, b in zip(before, learner.buffers(), strict=True))
    assert all(n.mode is n.multiplicity is None for n in norms(learner)), "for tests and the next real step"


# ---- whole tasks, beside the code of the authors and step by step beside the fast path


class InDouble(list):
    def __init__(self, batches):
        super().__init__((x.double(), y) for x, y in batches)


class Doubles(ImageSet):
    """Images in double precision."""

    def batches(self, size, **options):
        return InDouble(super().batches(size, **options))


def tasks_of(shape=(1, 6, 6), count=3, n=13):
    for t in range(count):
        draw = torch.Generator("cpu").manual_seed(t)
        images = torch.randint(0, 256, (n, *shape), generator=draw, dtype=torch.uint8, device="cpu")
        labels = torch.arange(n, device="cpu") % 2 + 2 * t
        yield SimpleNamespace(
            index=t,
            first=2 * t,
            seen=2 * t + 2,
            train=Doubles(images, labels, [str(k) for k in range(2 * count)]),
        )


RUNS = {
    "usual": {},
    "few": {"n_images": 3},
    "many": {"n_images": 9},
    "noise": {"start": "noise", "n_images": 4},
    "js": {"divergence": "js"},
    "ce": {"divergence": "ce"},
    "unit lag": {"lag": 1},
    "lag": {"lag": 2},
    "no distillation": {"distill": 0.0},
    "distillation": {"recall": "none"},
    "naive": {"recall": "none", "distill": 0.0},
    "union": {"reduction": "union", "distill": 2.0, "n_images": 9},
    "accumulate": {"repeats": 3},
    "zeroed": {"repeats": 3, "repeat": "zeroed"},
    "afresh": {"repeats": 2, "repeat": "afresh", "n_images": 3},
    "passes": {"epochs": 2},
    "adi": {"recall": "adi", "distill": 0.5},
    "adi many": {"recall": "adi", "n_images": 9},
}
CASES = (
    [("tiny", name, {}) for name in RUNS]
    + [("norm", name, {"lr": 0.01}) for name in ("usual", "many", "accumulate", "distillation", "unit lag")]
    + [
        ("norm", "usual", {"norm": "batch", "n_images": 9}),
        ("norm", "no distillation", {"norm": "running"}),
        ("norm", "no distillation", {"stem_average": False}),
        ("norm", "adi", {"bn_loss": 0.1}),
        ("conv", "many", {}),
        ("deep", "many", {"lr": 0.01}),
    ]
)


def of_case(net, name, more):
    """A learner in double precision, and its tasks."""
    count, n = (2, 8) if net == "deep" else (3, 13)
    settings = {"net": net, "batch_size": 5, "n_images": 5, "n_steps": 2, "image_lr": 2.0} | RUNS[name] | more
    seed_everything(3)
    return arm.ARM(arm.Config(**settings), (1, 6, 6), 2 * count).double(), tasks_of(count=count, n=n)


@pytest.mark.parametrize("net, name, more", CASES)
def test_tasks_are_learned_as_by_the_code_of_the_authors(net, name, more):
    """Images and labels come from the learner; everything else is recomputed."""
    learner, tasks = of_case(net, name, more)
    learner.readable = True
    theirs, seen, draws = Reference(learner), [], []
    fit, start = learner.fit, learner.start_images

    def noted(values, value):
        values.append(value)
        return value

    learner.fit = lambda sgd, x, y: fit(sgd, *noted(seen, (x, y)))
    learner.start_images = lambda x, y: noted(draws, start(x, y))
    for task in tasks:
        seen.clear()
        draws.clear()
        learner.learn(task, Trace())
        recalled, theirs.t = iter(draws), 0
        for x, y in seen:
            theirs.step(x, y, recalled, task.index == 0, learner.config.lag or len(seen))
        assert not list(recalled)
    expected = theirs.net.state_dict()
    for key, value in learner.net.state_dict().items():
        same(value, expected[key], 1e-7)


class Both:
    """The steps of fast.py, each against the readable step from the same state, in double precision."""

    def __init__(self, learner):
        self.learner, self.fast = learner, fast.Fast(learner, learner.old)
        self.twin = arm.ARM(learner.config, learner.shape, learner.classes).double()
        self.sgd, self.calls = optimizer(self.twin), 0

    def begin(self):
        self.twin.load_state_dict(self.learner.state_dict())
        for mine, theirs in zip(self.twin.old.buffers(), self.learner.old.buffers(), strict=True):
            mine.copy_(theirs)  # with unit lag they are no part of the state
        self.calls += 1

    def compare(self, *pairs):
        states = zip(self.learner.state_dict().values(), self.twin.state_dict().values(), strict=True)
        for a, b in [*pairs, *states]:
            same(torch.as_tensor(a), torch.as_tensor(b), 1e-10)

    def fit(self, sgd, x, y):
        self.begin()
        loss, other = self.fast.fit(sgd, x, y), self.twin.fit(self.sgd, x, y)
        self.compare((loss, other))
        return loss

    def start_images(self, x, y):
        self.begin()
        state = torch.get_rng_state()
        recalled = self.fast.start_images(x, y)
        torch.set_rng_state(state)
        self.recalled = self.twin.start_images(x, y)
        self.index = (
            self.recalled.index
            if recalled.multiplicity is not None
            else torch.arange(len(recalled.start), device="cpu")
        )  # which of the fast images each readable one is
        self.compare(
            (recalled.start[self.index], self.recalled.start),
            (recalled.origins[self.index], self.recalled.origins),
            (recalled.class_weights, self.recalled.class_weights),
        )
        return recalled

    def optimize_images(self, recalled, old, norm):
        self.begin()
        recalled = self.fast.optimize_images(recalled, old, norm)
        self.recalled = self.twin.optimize_images(self.recalled, self.twin.old, norm)
        self.compare(
            (recalled.steps[:, self.index], self.recalled.steps),
            (recalled.logits[:, :, self.index], self.recalled.logits),
            (recalled.values, self.recalled.values),
        )
        self.recalled = self.recalled._replace(images=recalled.images[self.index])
        return recalled

    def replay(self, sgd, recalled, x, fresh):
        self.begin()
        other = None if recalled is None else self.recalled
        recalled, losses = self.fast.replay(sgd, recalled, x, fresh)
        other, others = self.twin.replay(self.sgd, other, x, fresh)
        probs = [] if recalled is None else [(recalled.probs[self.index], other.probs)]
        self.compare(*zip(losses, others, strict=True), *probs)
        return recalled, losses


@pytest.mark.parametrize("net, name, more", CASES)
def test_each_fast_step_is_the_readable_one(net, name, more):
    learner, tasks = of_case(net, name, more)
    both = Both(learner)
    learner.path = lambda: both
    for task in tasks:
        before = both.calls
        learner.learn(task, Trace())
        assert both.calls > before


def test_the_fast_steps_are_taken_unless_the_readable_ones_are_asked_for():
    learner = made()
    assert isinstance(learner.path(), fast.Fast)
    learner.readable = True
    assert learner.path() is learner
    x, y = batch(learner)
    found = learner.recall_for(x, y)
    assert not any(part.requires_grad for part in (x, found.start, found.images, found.steps, found.values))


def by_hand(config, tasks, classes):
    """Weights after plain gradient descent on batches in the learner's order."""
    seed_everything(3)
    net = nets.build(config.net, (1, 6, 6), classes).double()
    for task in tasks:
        seed_everything(4)
        for x, y in task.train.batches(config.batch_size, epochs=config.epochs, reshuffle=False):
            gradients = torch.autograd.grad(F.cross_entropy(net(x), y), list(net.parameters()))
            with torch.no_grad():
                for p, gradient in zip(net.parameters(), gradients, strict=True):
                    p -= config.lr * gradient
    return net.state_dict()


def learned(tasks, classes=6, **settings):
    seed_everything(3)
    settings = {"net": "tiny", "batch_size": 5, "n_images": 5, "n_steps": 2} | settings
    learner = arm.ARM(arm.Config(**settings), (1, 6, 6), classes).double()
    for task in tasks:
        seed_everything(4)
        learner.learn(task, Trace())
    return learner


def test_without_replay_it_is_plain_gradient_descent():
    naive = learned(tasks_of(), recall="none", distill=0.0)
    expected = by_hand(naive.config, tasks_of(), 6)
    without_weight = learned(tasks_of(), replay=0.0, distill=0.0).net.state_dict()
    for key, value in naive.net.state_dict().items():
        same(value, expected[key])
        assert torch.equal(value, without_weight[key])


@pytest.mark.parametrize("settings", [{}, {"replay": 0.0}, {"distill": 0.0}, {"recall": "adi"}, {"lag": 1}])
def test_recall_and_distillation_begin_with_the_second_task(settings):
    nothing = {"recall": "none", "distill": 0.0}
    first, naive = (learned(list(tasks_of())[:1], **s) for s in (settings, nothing))
    assert all(torch.equal(v, naive.net.state_dict()[k]) for k, v in first.net.state_dict().items())
    second, naive = (learned(list(tasks_of())[:2], **s) for s in (settings, nothing))
    assert not any(torch.equal(v, naive.net.state_dict()[k]) for k, v in second.net.state_dict().items())


@pytest.mark.parametrize("lag, changes", [(None, [0]), (1, [0, 1, 2, 3]), (2, [0, 2]), (3, [0, 3])])
def test_the_teacher_is_renewed_before_the_real_step(lag, changes):
    learner, found = made(lag=lag), []
    learner.readable, fit = True, learner.fit

    def watched(sgd, x, y):
        pairs = zip(learner.old.buffers(), learner.net.parameters(), strict=True)
        found.append((all(torch.equal(a, b) for a, b in pairs), learner.old.head.weight.clone()))
        return fit(sgd, x, y)

    learner.fit = watched
    learner.learn(list(tasks_of(n=20))[1], Trace())
    assert [i for i, (equal, _) in enumerate(found) if equal] == changes
    olds = [old for _, old in found]
    assert [i for i in range(1, 4) if not torch.equal(olds[i], olds[i - 1])] == [i for i in changes if i]


def test_gradients_add_up_unless_they_are_zeroed():
    """Two recalls with a negligible image rate, so that both gradients are at the same images."""
    steps = {}
    for repeat in ("accumulate", "zeroed"):
        learner = made("conv", shape=(1, 8, 8), repeats=2, repeat=repeat, image_lr=1e-12, lr=1e-6)
        before = [p.detach().clone() for p in learner.net.parameters()]
        learner.rehearse(learner.path(), optimizer(learner), *batch(learner), watch(), 0)
        steps[repeat] = torch.cat(
            [(p - b).flatten() for p, b in zip(learner.net.parameters(), before, strict=True)]
        ).detach()
    same(steps["accumulate"] / 3e-6, steps["zeroed"] / 2e-6, 1e-3)


# ---- what is drawn


def test_where_images_begin():
    learner, seen = made(n_images=3), set()
    x, y = batch(learner, classes=(2, 3, 4))
    for _ in range(10):
        found = learner.start_images(x, y)
        assert len(set(found.index.tolist())) == 3 and torch.equal(found.start, x[found.index])
        assert torch.equal(found.origins, y[found.index])
        seen |= set(found.index.tolist())
    assert seen == set(range(5)) and found.multiplicity is None
    same(found.class_weights, numbers(0, 0, 1, 1, 1, 0) / 3)
    same(made().start_images(x, y).start, x)
    noise = made(start="noise", n_images=50).start_images(x, y)
    assert noise.start.shape == (50, 1, 6, 6) and noise.origins.tolist() == [-1] * 50
    assert 0 <= noise.start.min() < 0.01 and 0.99 < noise.start.max() < 1


def test_of_many_images_each_is_computed_once():
    learner = made(n_images=400)
    x, y = batch(learner)
    seed_everything(1)
    found = learner.start_images(x, y)
    assert found.start.shape == (400, 1, 6, 6) and found.multiplicity is None
    seed_everything(1)
    few = learner.path().start_images(x, y)
    assert torch.equal(few.start, x) and few.multiplicity.tolist() == torch.bincount(found.index).tolist()
    assert few.multiplicity.min() > 40
    same(few.image_weights, few.multiplicity / 400)


@pytest.mark.parametrize("images", [2, 3, 50])
def test_wanted_classes_are_old_ones(images):
    """Classes 0 to 3 are known, 2 is present: each wanted class occurs at most once if there are enough."""
    learner = made(recall="adi", n_images=images)
    learner.met[:4] = True
    counts = torch.zeros(6, device="cpu")
    for seed in range(40):
        seed_everything(seed)
        chosen = learner.start_images(*batch(learner, classes=(2,))).target
        counts += torch.bincount(chosen, minlength=6)
        assert len(chosen) == images and (images > 3 or len(set(chosen.tolist())) == images)
    assert counts[[2, 4, 5]].tolist() == [0, 0, 0] and counts[[0, 1, 3]].min() > 40 * images / 3 * 0.6


def test_classes_are_met_batch_by_batch():
    learner, found = made(recall="adi"), []
    learner.old_classes = lambda present: found.append(learner.met.clone()) or torch.zeros(5).long()
    learner.met[:2] = True
    task = list(tasks_of(n=10))[1]
    task.train = Doubles(task.train.images, torch.tensor([2] * 5 + [3] * 5), [str(k) for k in range(6)])
    task.train.batches = lambda size, **_: [
        (task.train.images[i : i + 5].double(), task.train.labels[i : i + 5]) for i in (0, 5)
    ]
    learner.learn(task, Trace())
    assert [m.tolist() for m in found] == [[True] * 2 + [False] * 4, [True] * 3 + [False] * 3]


def test_copies_of_an_image_stay_equal_and_are_counted():
    learner = made("norm", n_images=9)
    found = learner.recall_for(*batch(learner))
    assert found.images.shape == (5, 1, 6, 6) and int(found.multiplicity.sum()) == 9
    assert found.steps.shape == (4, 5, 1, 6, 6) and found.logits.shape == (3, 2, 5, 6)
    assert torch.equal(found.steps[0], found.start) and torch.equal(found.steps[-1], found.images)
    same(found.probs.sum(1), torch.ones(5, dtype=torch.float64))


# ---- settings, records, memory, resuming


@pytest.mark.parametrize(
    "wrong, word",
    [
        ({"epochs": 0}, "epochs"),
        ({"batch_size": 0}, "batch_size"),
        ({"lr": 0.0}, "lr"),
        ({"lr": math.nan}, "lr"),
        ({"n_images": 0}, "n_images"),
        ({"n_steps": 0}, "n_steps"),
        ({"lag": 0}, "lag"),
        ({"repeats": 0}, "repeats"),
        ({"divergence": "kl"}, "divergence"),
        ({"recall": "deep"}, "recall"),
        ({"start": "zero"}, "start"),
        ({"norm": "eval"}, "norm"),
        ({"repeat": "twice"}, "repeat"),
        ({"reduction": "sum"}, "reduction"),
        ({"image_lr": 0.0}, "image_lr"),
        ({"diversity": -1.0}, "diversity"),
        ({"replay": math.nan}, "replay"),
    ],
)
def test_settings_that_cannot_work_are_refused(wrong, word):
    with pytest.raises(LearnerError, match=word):
        arm.Config(**wrong)


def test_images_and_networks_that_do_not_fit_are_refused():
    with pytest.raises(LearnerError, match="batch normalisation"):
        made(recall="adi", bn_loss=0.1)
    with pytest.raises(LearnerError, match="shape"):
        arm.ARM(arm.Config(net="tiny"), (36,), 6)
    learner = made()
    for wrong in (
        lambda: learner(torch.zeros(2, 1, 5, 6)),
        lambda: learner.learn(next(tasks_of((1, 5, 5))), Trace()),
        lambda: learner.recall_for(torch.zeros(2, 1, 5, 6), torch.tensor([0, 1])),
    ):
        with pytest.raises(LearnerError, match="shape"):
            wrong()


def test_recall_before_any_task_is_refused():
    for learner, word in ((made(), "before the first task"), (made(recall="none"), "recall='none'")):
        learner.seen.zero_()
        for ask in (lambda one: one.recall(3), lambda one: one.recall_for(*batch(one))):
            with pytest.raises(LearnerError, match=word):
                ask(learner)


def test_recall_from_noise():
    learner = made(n_images=4, diversity=50.0)
    images, labels = learner.recall(10)
    assert images.shape == (10, 1, 6, 6) and labels.shape == (10,) and set(labels.tolist()) <= {0, 1}


def watch():
    return NonFiniteGuard(arm.ARM(arm.Config(net="tiny"), (1, 6, 6), 6).weights(), "cpu")


def test_a_recall_that_is_not_finite_is_noted_with_its_place():
    one, values = watch(), torch.ones(4, 9)
    one.look(1, values, torch.zeros(3))
    one.check()
    values[1, 2], values[1, 3] = 200, 10  # with their weights 20 and 160
    values[2, 6], values[3, 0] = float("inf"), float("nan")
    one.look(5, values, torch.zeros(3))
    one.look(6, values * float("nan"), torch.zeros(3))
    assert one.found.tolist() == [5, 1, 3]
    twin = watch()
    twin.load_state_dict(copied(one.state_dict()))
    with pytest.raises(LearnerError, match="batch 5 diverged in step 1 .* through the term 'diversity'"):
        twin.check()


def test_the_place_where_terms_say_nothing_before_or_after():
    only, values = watch(), torch.ones(4, 9)
    values[3, 0] = -70
    only.look(2, values, torch.tensor([1, float("nan")]))
    assert only.found.tolist() == [2, 3, 0]
    first, values = watch(), torch.ones(4, 9)
    values[:, 2:] = float("nan")
    first.look(3, values, torch.zeros(3))
    assert first.found.tolist() == [3, 0, 2]


def test_a_run_whose_recall_diverges_stops_with_a_sentence():
    """The total-variation step overshoots, so that images grow without bound."""
    with pytest.raises(LearnerError, match="diverged in step .* through the term 'tv'"):
        trained(n_steps=100, image_lr=1e3)


def trained(record=(), per_class=12, **settings):
    """A learner after three tasks, the stream and its trace tables."""
    seed_everything(0)
    settings = {"net": "tiny", "batch_size": 8, "n_images": 8, "n_steps": 2} | settings
    learner, stream = arm.ARM(arm.Config(**settings), (1, 6, 6), 6), small_stream(per_class=per_class)
    trace = Trace(record, progress=False)
    for task in stream:
        trace.begin(learner, task.index)
        seed_everything(1, task.index)
        learner.learn(task, trace)
        trace.end()
    rows = {
        table: {name: [row for part in parts for row in part] for name, parts in columns.items()}
        for table, columns in trace.tables.items()
    }
    return learner, stream, rows


@pytest.mark.parametrize(
    "settings", [{}, {"n_images": 12}, {"recall": "adi"}, {"recall": "none"}, {"start": "noise"}]
)
def test_tables(settings):
    """24 images per task make 3 batches; the first task recalls nothing."""
    rows = trained("*", **settings)[2]
    assert rows.keys() == arm.ARM.tables.keys()
    for table in rows:
        assert rows[table]["task"] == [0] * 3 + [1] * 3 + [2] * 3 and rows[table]["step"] == [0, 1, 2] * 3
    empty = 9 if settings.get("recall") == "none" else 3
    losses = {name: torch.tensor(rows["loss"][name]) for name in ("loss", "replay", "distill")}
    assert (losses["replay"] > 0).tolist() == [False] * empty + [True] * (9 - empty)
    assert (losses["distill"] > 0).tolist() == [False] * 3 + [True] * 6 and (losses["loss"] > 0).all()
    for table, columns in (("recall", {"output", "low", "high"}), ("objective", set(arm.TERMS))):
        assert rows[table].keys() == columns | {"task", "step"}
        for column in columns:
            values = torch.as_tensor(np.array(rows[table][column]))
            assert values[:empty].isnan().all() and values[empty:].isfinite().all(), column
    assert [len(images) for images in rows["images"]["recalled"]] == [0] * empty + [8] * (9 - empty)
    for row in range(9):
        start, recalled, origins, counts, probs = (
            rows["images"][name][row] for name in ("start", "recalled", "origins", "counts", "probs")
        )
        n, task = len(start), row // 3
        assert recalled.shape == start.shape == (n, 1, 6, 6) and probs.shape == (n, 6)
        if n:
            assert counts.sum() == settings.get("n_images", 8) and (abs(probs.sum(1) - 1) < 1e-5).all()
            own = {-1} if settings.get("start") else {2 * task, 2 * task + 1}
            assert set(origins.tolist()) <= own


def test_bytes_kept_and_parameters():
    big = arm.ARM(arm.Config(), (1, 28, 28), 10)
    assert sum(p.numel() for p in big.parameters()) == 478_410
    assert big.memory_bytes() == {"weights": 4 * 478_410 + 8, "teachers": 4 * 478_410}
    unit = arm.ARM(arm.Config(lag=1), (1, 28, 28), 10)
    assert unit.memory_bytes() == {"weights": 4 * 478_410 + 8}
    naive = arm.ARM(arm.Config(recall="none", distill=0.0), (1, 28, 28), 10)
    assert naive.memory_bytes() == unit.memory_bytes()
    for pool, side, classes, count in ((None, 32, 10, 1_094_750), (4, 84, 100, 1_157_240)):
        net = nets.ResNet18((3, side, side), classes, pool=pool)
        assert sum(p.numel() for p in net.parameters()) == count


def test_defaults_are_those_of_table_4():
    c = arm.Config()
    assert (c.lr, c.image_lr, c.replay, c.distill) == (0.05, 25, 1, 1)
    assert (c.local_old, c.local_new, c.diversity, c.confidence, c.l2, c.tv) == (1, 0.1, 16, 0.1, 1, 1)
    assert (c.n_steps, c.n_images, c.batch_size, c.epochs, c.lag, c.divergence) == (10, 10, 10, 1, None, "ag")


def halves(state=None, start=None, saved=None, **settings):
    """(learner after the second task, states that its trace saved, rows, state before the task)."""
    seed_everything(0)
    learner = arm.ARM(arm.Config(**{"batch_size": 8, "n_images": 8, "n_steps": 2} | settings), (1, 6, 6), 6)
    stream, saved = small_stream(per_class=12), [] if saved is None else saved
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
    "settings",
    [
        {"net": "tiny"},
        {"net": "tiny", "recall": "adi", "epochs": 2},
        {"net": "tiny", "lag": 2, "n_images": 5},
        {"net": "norm", "n_images": 10},
        {"net": "norm", "lag": 1, "recall": "adi", "bn_loss": 0.1},
    ],
)
def test_a_stopped_task_resumes_exactly(settings):
    whole, saved, rows, start = halves(**settings)
    assert len(saved) == 3 * settings.get("epochs", 1)
    for state in (saved[0], saved[-1]):
        again, _, more, _ = halves(state, start, **settings)
        expected = whole.state_dict()
        assert all(torch.equal(v, expected[k]) for k, v in again.state_dict().items())
        assert all(
            torch.equal(torch.as_tensor(v), torch.as_tensor(more["loss"][c])) for c, v in rows["loss"].items()
        )


def test_where_a_recall_diverged_is_known_after_a_stop():
    settings, saved = {"net": "tiny", "n_steps": 100, "image_lr": 1e3}, []
    for state in (None, 0):
        with pytest.raises(LearnerError, match="the recall of batch 0 diverged"):
            halves(None if state is None else saved[0], saved=saved, **settings)
    assert len(saved) == 1


@pytest.mark.parametrize(
    "settings",
    [
        {"net": "tiny"},
        {"net": "tiny", "recall": "adi", "n_images": 20},
        {"net": "norm", "n_images": 12},
        {"net": "norm", "recall": "adi", "bn_loss": 0.1},
    ],
)
def test_steps_wait_for_no_value_and_make_tensors_on_their_device(settings):
    """A task of ten batches transfers as many values to the host as a task of five."""
    counts = []
    for n in (10, 20):
        config = arm.Config(**{"batch_size": 2, "n_images": 2, "n_steps": 1} | settings)
        learner = arm.ARM(config, (1, 6, 6), 6)
        with HostSyncs() as syncs, DeviceFactories() as factories:
            for task in list(tasks_of(n=n))[:2]:
                task.train = ImageSet(task.train.images, task.train.labels, task.train.names)
                learner.learn(task, Trace(("recall", "objective")))
        counts.append(syncs.total)
        assert factories.found == []
    assert counts[0] == counts[1]


def test_a_stream_is_learned():
    """Better than plain training on the same batches, which forgets all but the last task."""
    right = []
    for settings in ({"image_lr": 5.0, "n_steps": 5}, {"recall": "none", "distill": 0.0}):
        settings = {"net": "small", "lr": 0.1, "batch_size": 10, "n_images": 10} | settings
        learner, stream, _ = trained(per_class=100, **settings)
        ((x, y),) = stream.test.batches(len(stream.test), shuffle=False)
        right.append(float((learner(x).argmax(1) == y).double().mean()))
    assert right[0] > 0.6 > 0.4 > right[1]
