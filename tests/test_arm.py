"""ARM against closed forms, autograd on the terms, and a slow run with copies of networks and images."""

import copy
import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from clkit import nets
from clkit.data import ImageSet
from clkit.learner import LearnerError
from clkit.methods import arm
from clkit.trace import Trace, copied, seed_everything
from tests.fakes import small_stream
from tests.modes import DeviceFactories, HostSyncs

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
    """Networks of each kind that are small enough for loops, under names of their own."""
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
    return arm.divergence(torch.stack([old, new])[:, None].log_softmax(2), kind)[0]


def same(a, b, tolerance=1e-10):
    torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)


# ---- the terms, by their exact values

@pytest.mark.parametrize("s, expected", [(1, .120114), (5, 1.813568), (10, 4.306898), (20, 9.306853)])
def test_the_divergence_has_no_upper_bound(s, expected):
    value = float(apart(numbers(s, 0), numbers(0, s)))
    assert value == pytest.approx(expected, abs=1e-6)
    assert value == pytest.approx(s / 2 + math.log1p(math.exp(-s)) - LN2, abs=1e-12)


def test_jensen_shannon_is_bounded():
    assert float(apart(numbers(5, 0), numbers(0, 5), "js")) == pytest.approx(.652968, abs=1e-6)
    assert float(apart(numbers(50, 0), numbers(0, 50), "js")) == pytest.approx(LN2, abs=1e-12)
    for seed in range(20):
        a, b = doubles(2, 6, scale=4, seed=seed)
        assert 0 < apart(a, b, "js") <= min(LN2, float(apart(a, b)))


@pytest.mark.parametrize("kind", ["ag", "js"])
def test_the_divergence_is_symmetric_and_zero_for_equal_outputs(kind):
    a, b = doubles(2, 6, scale=3)
    same(apart(a, b, kind), apart(b, a, kind), 1e-14)
    logs = doubles(1, 4, 6, scale=3).expand(2, 4, 6).log_softmax(2).requires_grad_()
    value = arm.divergence(logs, kind)
    assert value.abs().max() < 1e-15
    p, q = a.softmax(0), b.softmax(0)
    m = (p + q) / 2
    slow = {"ag": (m * (m / p).log() + m * (m / q).log()) / 2,
            "js": (p * (p / m).log() + q * (q / m).log()) / 2}
    same(apart(a, b, kind), slow[kind].sum())


def test_the_cross_entropy_as_divergence():
    a, b = doubles(2, 6, scale=3)
    same(apart(a, b, "ce"), -(a.softmax(0) * b.log_softmax(0)).sum())


def test_diversity_is_minus_the_entropy_of_the_mean_output():
    tenth = numbers(*[.1] * 10)
    assert float(arm.diversity(torch.full((10, 10), .1, dtype=torch.float64), tenth)) == \
        pytest.approx(-math.log(10), abs=1e-6)
    ones = torch.eye(10, dtype=torch.float64)
    assert float(arm.diversity(ones, tenth)) == pytest.approx(-math.log(10), abs=1e-6)
    assert float(arm.diversity(ones[:1].expand(10, 10), tenth)) == pytest.approx(0, abs=1e-6)
    p = torch.stack([numbers(10, 0), numbers(0, 2)]).softmax(1)
    assert float(arm.diversity(p, numbers(.5, .5))) == pytest.approx(-.686031, abs=1e-6)
    same(arm.diversity(p, numbers(.75, .25)), arm.diversity(p[[0, 0, 0, 1]], numbers(*[.25] * 4)))


def test_not_local_is_a_mean_over_the_classes_at_hand():
    uniform = torch.zeros(3, 10, dtype=torch.float64).log_softmax(1)
    one = torch.eye(10, dtype=torch.float64)
    same(arm.not_local(uniform, one[4]), torch.full((3,), -math.log(10), dtype=torch.float64))
    log_p = doubles(3, 10, scale=2).log_softmax(1)
    same(arm.not_local(log_p, (one[2] + one[7]) / 2),
         (arm.not_local(log_p, one[2]) + arm.not_local(log_p, one[7])) / 2)
    same(arm.not_local(log_p, one[2]), -F.nll_loss(log_p, torch.tensor([2, 2, 2]), reduction="none"))


def test_sharpness_and_soft_cross_entropy():
    scores = doubles(4, 10, scale=3)
    same(arm.sharpness(scores.log_softmax(1)), F.cross_entropy(scores, scores.argmax(1), reduction="none"))
    assert float(arm.sharpness(torch.zeros(1, 10).log_softmax(1))) == pytest.approx(math.log(10), abs=1e-6)
    assert float(arm.sharpness(torch.eye(10)[:1].mul(60).log_softmax(1))) == pytest.approx(0, abs=1e-6)
    target = doubles(4, 10, seed=1).softmax(1)
    same(arm.soft_cross_entropy(torch.zeros_like(target), target),
         torch.full((4,), math.log(10), dtype=torch.float64))
    scores.requires_grad_()
    ours, = torch.autograd.grad(arm.soft_cross_entropy(scores, target).sum(), scores)
    divergence, = torch.autograd.grad(F.kl_div(scores.log_softmax(1), target, reduction="sum"), scores)
    same(ours, divergence)
    same(arm.wanted_class(scores.log_softmax(1), torch.tensor([1, 0, 9, 1])),
         F.cross_entropy(scores, torch.tensor([1, 0, 9, 1]), reduction="none"))


def test_size():
    ones = torch.ones(2, 3, 4, 4, dtype=torch.float64)
    assert arm.size(ones).tolist() == pytest.approx([.144338] * 2, abs=1e-6)
    same(arm.size(2 * ones), 2 * arm.size(ones))
    assert arm.size(0 * ones).tolist() == [0, 0]


def test_variation():
    dot = torch.zeros(1, 1, 3, 3, dtype=torch.float64)
    assert float(arm.variation(dot + 7)) == 0
    dot[0, 0, 1, 1] = 1
    assert float(arm.variation(dot)) == pytest.approx(4 / 3, abs=1e-12)
    ramp = torch.arange(16, dtype=torch.float64).view(1, 1, 4, 4)
    assert float(arm.variation(ramp)) == pytest.approx(34, abs=1e-12)
    same(arm.variation(2 * ramp), 4 * arm.variation(ramp))
    x = doubles(2, 3, 5, 4)
    for image, value in zip(x.tolist(), arm.variation(x).tolist(), strict=True):
        down = [(plane[h + 1][w] - plane[h][w])**2 for plane in image for h in range(4) for w in range(4)]
        across = [(plane[h][w + 1] - plane[h][w])**2 for plane in image for h in range(5) for w in range(3)]
        assert value == pytest.approx(2 * sum(down) / (3 * 4 * 4) + 2 * sum(across) / (3 * 5 * 3))


def test_the_gap_of_statistics():
    x = doubles(3, 2, 4, 5)
    mean, var = numbers(.5, -1), numbers(1, 2)
    means = torch.stack([x[:, c].mean() for c in range(2)])
    variances = torch.stack([x[:, c].flatten().var(unbiased=True) for c in range(2)])
    same(arm.statistics_gap(x, mean, var), (means - mean).norm() + (variances - var).norm())


# ---- slopes in closed form

SETTINGS = {
    "usual": {}, "js": {"divergence": "js"}, "ce": {"divergence": "ce", "divergence_weight": 3.0},
    "heavy": {"divergence_weight": 8.0, "local_old": 2.0, "local_new": 3.0, "diversity": 0.7,
              "sharpness": 1.3, "size": 20.0, "variation": 0.5},
    "adi": {"recall": "adi", "target": 1.7}, "adi-js": {"recall": "adi", "divergence": "js"},
    **{f"no {name}": {name: 0.0} for name in ("divergence_weight", *arm.TERMS[1:7])}}


def recollection(n=4, classes=5, shape=(2, 5, 4), adi=False, counts=None):
    x = doubles(n, *shape)
    present = numbers(*[0.5 if k in (1, 3) else 0 for k in range(classes)])
    target = torch.arange(n, device="cpu") % classes if adi else None
    return arm.Recollection(x, x, torch.zeros(n, dtype=torch.int64, device="cpu"), present, counts, target)


def objective(config, scores, found):
    """What a recall minimises but for the statistics, by the terms."""
    values = arm.values_of_terms(config, scores[None], found.images[None], found.share, found.present,
                                 found.target)[0]
    weights = [-config.divergence_weight, *(getattr(config, name) for name in arm.TERMS[1:8])]
    return values @ numbers(*weights)


@pytest.mark.parametrize("name", SETTINGS)
@pytest.mark.parametrize("counts", [None, (3., 1., 2., 4.)])
def test_slopes_are_those_of_the_terms(name, counts):
    config = arm.Config(**SETTINGS[name], images=10 if counts else 4)
    found = recollection(adi=config.recall == "adi", counts=None if counts is None else numbers(*counts))
    scores = doubles(2, 4, 5, scale=3, seed=1).requires_grad_()
    found = found._replace(images=found.images.requires_grad_())
    by_scores, by_pixels = torch.autograd.grad(objective(config, scores, found), (scores, found.images),
                                               allow_unused=True)
    by_pixels = torch.zeros_like(found.images) if by_pixels is None else by_pixels
    share = found.share
    with torch.no_grad():
        slopes = arm.Slopes(config, (2, 5, 4))
        slopes.begin(found)
        same(slopes.of_scores(scores) * share[:, None], by_scores)
        x, above = found.images.detach(), doubles(4, 2, 5, 4, seed=3)
        step = (x - slopes.step(x, above, 0.3)) / 0.3 - above
        same(step * share[:, None, None, None], by_pixels)


def test_slopes_stay_finite_where_a_probability_is_zero_in_both_networks():
    scores = torch.tensor([[[200., 0, -150]], [[0., 200, -150]]])
    for kind in ("ag", "js", "ce"):
        slopes = arm.Slopes(arm.Config(divergence=kind), (2, 5, 4))
        slopes.begin(recollection(1, 3)._replace(images=torch.zeros(1, 2, 5, 4), present=torch.zeros(3)))
        assert slopes.of_scores(scores).isfinite().all()
        assert arm.divergence(scores.log_softmax(2), kind).isfinite().all()


def test_an_image_of_zeros_has_no_slope():
    slopes, zeros = arm.Slopes(arm.Config(), (2, 5, 4)), torch.zeros(3, 2, 5, 4, dtype=torch.float64)
    slopes.begin(recollection(3)._replace(images=zeros))
    assert torch.equal(slopes.step(zeros, zeros, 25.0), zeros)


# ---- both networks at once

def made(net="tiny", shape=(1, 6, 6), classes=6, seed=0, **settings):
    """A learner in double precision whose networks differ."""
    seed_everything(seed)
    learner = arm.ARM(arm.Config(net=net, batch=5, **{"images": 5, "descent": 3} | settings), shape,
                      classes).double()
    learner.renew()
    with torch.no_grad():
        for p in learner.net.parameters():
            p += 0.3 * doubles(*p.shape, seed=p.numel())
    learner.seen.fill_(2)
    return learner


def batch(learner, n=5, classes=(2, 3), seed=0):
    draw = torch.Generator("cpu").manual_seed(seed)
    x = torch.rand(n, *learner.shape, generator=draw, dtype=torch.float64, device="cpu")
    return x, torch.tensor([classes[i % len(classes)] for i in range(n)], device="cpu")


def test_the_two_ways_to_compute_agree():
    learner, twin = made(), made()
    x, _ = batch(learner)
    hand, auto = arm.ByHand(learner, learner.old), arm.ByAutograd(twin, twin.old)
    scores = hand.scores(x)
    same(scores, auto.scores(x))
    same(scores, torch.stack([learner.old(x), learner.net(x)]).detach())
    slope = doubles(2, 5, 6)
    same(hand.pull(slope), auto.pull(slope))
    leaf = x.clone().requires_grad_()
    total = (torch.stack([learner.old(leaf), learner.net(leaf)]) * slope).sum()
    same(hand.pull(slope), torch.autograd.grad(total, leaf)[0])
    parts = [(x, None), (x[:2] / 2, None)]
    for a, b in zip(hand.answers(parts, "update"), auto.answers(parts, "update"), strict=True):
        same(a, b)
    steps = [arm.Part(v, doubles(len(v), 6, seed=7).softmax(1), doubles(len(v)).abs()) for v, _ in parts]
    for _ in range(2):
        for a, b in zip(hand.train(steps), auto.train(steps), strict=True):
            same(a, b)
    for a, b in zip(learner.net.parameters(), twin.net.parameters(), strict=True):
        same(a, b)


@pytest.mark.parametrize("net", ["tiny", "norm", "conv"])
def test_recall_changes_no_weights(net):
    learner = made(net, norm="batch")
    before = copy.deepcopy(learner.state_dict())
    found = learner.remember(*batch(learner))
    assert not torch.equal(found.images, found.start)
    learner.recall(7)
    assert all(torch.equal(v, before[k]) for k, v in learner.state_dict().items())
    assert all(p.grad is None for p in learner.net.parameters())
    assert all(norm.mode is norm.counts is norm.gaps is None for norm in learner.norms)


@pytest.mark.parametrize("name", ("divergence_weight", *arm.TERMS[1:7]))
@pytest.mark.parametrize("net", ["tiny", "norm"])
def test_one_step_down_one_term(name, net):
    weights = dict.fromkeys(("divergence_weight", *arm.TERMS[1:7]), 0.0) | {name: 1.5}
    learner = made(net, descent=1, image_lr=3.0, **weights)
    x, y = batch(learner)
    found = learner.remember(x, y)
    networks = [copy.deepcopy(n).train() for n in (learner.old, learner.net)]
    leaf = x.clone().requires_grad_()
    scores = torch.stack([network(leaf) for network in networks])
    value = objective(learner.config, scores, found._replace(images=leaf))
    step, = torch.autograd.grad(value, leaf)
    assert step.abs().max() > 1e-9
    same(found.images, x - 3.0 * step)
    again = made(net, descent=1, image_lr=6.0, **weights).remember(x, y)
    same(again.images - x, 2 * (found.images - x), 1e-9)


@pytest.mark.parametrize("net", ["tiny", "norm"])
def test_equal_networks_do_not_diverge(net):
    learner = made(net, **dict.fromkeys(arm.TERMS[1:7], 0.0))
    learner.renew()
    x, y = batch(learner)
    same(learner.remember(x, y).images, x, 1e-12)


def test_images_are_not_clamped():
    learner = made(image_lr=25.0)
    low, high = learner.remember(*batch(learner)).images.aminmax()
    assert low < 0 and high > 1


def test_twice_the_images_at_twice_the_rate_are_the_same_images():
    one, two = made(), made(images=10, image_lr=50.0)
    x, y = batch(one)
    a = one.remember(x, y)
    b = two.remember(torch.cat([x, x]), torch.cat([y, y]))
    same(torch.cat([a.images, a.images]), b.images, 1e-12)


# ---- batch normalisation

def test_batch_norm_with_counts_is_that_of_a_batch_with_copies():
    counts = torch.tensor([3, 1, 0, 4], device="cpu")
    x, slope = doubles(4, 3, 5, 2), doubles(8, 3, 5, 2, seed=1)
    whole = x.repeat_interleave(counts, 0).requires_grad_()
    few = x.clone().requires_grad_()
    norms = [arm.Norm(3).double() for _ in range(2)]
    for norm in norms:
        norm.weight.data, norm.bias.data = numbers(1.5, -2, .3), numbers(.1, .2, .3)
    arm.tell(norms[1:], counts=counts.double())
    expected, found = norms[0](whole), norms[1](few)
    same(found.detach().repeat_interleave(counts, 0), expected.detach())
    expected.backward(slope)
    origin = torch.arange(4, device="cpu").repeat_interleave(counts)
    found.backward(torch.zeros_like(x).index_add_(0, origin, slope))
    same(few.grad, torch.zeros_like(x).index_add_(0, origin, whole.grad))
    for a, b in zip(norms[0].parameters(), norms[1].parameters(), strict=True):
        same(a.grad, b.grad)
    for name in ("running_mean", "running_var"):
        same(getattr(norms[0], name), getattr(norms[1], name))
    assert int(norms[1].num_batches_tracked) == 1


@pytest.mark.parametrize("momentum", [0.1, None])
def test_a_norm_is_that_of_torch_unless_told_otherwise(momentum):
    ours, torchs = (kind(3, momentum=momentum).double() for kind in (arm.Norm, nn.BatchNorm2d))
    for seed in range(4):
        x = doubles(4, 3, 5, 5, seed=seed) + seed
        same(ours(x), torchs(x))
        for a, b in zip(ours.buffers(), torchs.buffers(), strict=True):
            same(a, b)
    before = copy.deepcopy(ours.state_dict())
    arm.tell([ours], mode="batch")
    same(ours.eval()(x), torchs(x))
    torchs.load_state_dict(before)
    assert torch.equal(ours.running_mean, torchs.running_mean)
    arm.tell([ours], mode="running")
    same(ours.train()(x), torchs.eval()(x))


@pytest.mark.parametrize("distill", [1.0, 0.0])
@pytest.mark.parametrize("images", [5, 8])
def test_how_often_running_statistics_are_updated(distill, images):
    learner = made("norm", distill=distill, images=images)
    engine, (x, y) = learner.engine(), batch(learner)

    def passes(net):
        return {int(m.num_batches_tracked) for m in net.modules() if isinstance(m, arm.Norm)}
    learner.fit(engine, x, y)
    assert passes(learner.net) == {1} and passes(learner.old) == {0}
    learner.rehearse(engine, x, y, watch(), 0)
    extra = int(distill > 0)
    assert passes(learner.net) == {1 + 3 + 1 + extra} and passes(learner.old) == {3 + 1 + extra}


@pytest.mark.parametrize("norm", ["batch", "running"])
def test_recall_can_leave_running_statistics_alone(norm):
    learner = made("norm", norm=norm)
    engine, (x, y) = learner.engine(), batch(learner)
    learner.fit(engine, x, y)
    before = [b.clone() for b in learner.buffers()]
    learner.rehearse(engine, x, y, watch(), 0)
    assert all(torch.equal(a, b) for a, b in zip(before, learner.buffers(), strict=True))
    assert all(n.mode is n.counts is None for n in learner.norms), "for tests and for the next real step"


def test_the_first_batch_norm_averages_over_all_passes():
    for average, first in ((True, None), (False, 0.1)):
        norms = [m for m in made("deep", stem_average=average).net.modules() if isinstance(m, arm.Norm)]
        assert [m.momentum for m in norms] == [first, *[0.1] * 19]


# ---- whole tasks against a slow run

class Doubles(ImageSet):
    """Images that come in double precision."""

    def batches(self, size, **options):
        return [(x.double(), y) for x, y in super().batches(size, **options)]


def tasks_of(shape=(1, 6, 6), count=3, n=13):
    for t in range(count):
        draw = torch.Generator("cpu").manual_seed(t)
        images = torch.randint(0, 256, (n, *shape), generator=draw, dtype=torch.uint8, device="cpu")
        labels = torch.arange(n, device="cpu") % 2 + 2 * t
        yield SimpleNamespace(index=t, first=2 * t, seen=2 * t + 2,
                              train=Doubles(images, labels, [str(k) for k in range(2 * count)]))


class Slow:
    """The algorithm as it stands in the code of its authors: copies, autograd over everything, M images."""

    def __init__(self, learner):
        self.config, self.net, self.gaps = learner.config, copy.deepcopy(learner.net), []
        for norm in [m for m in self.net.modules() if isinstance(m, arm.Norm)]:
            norm.__class__ = nn.BatchNorm2d       # torch's own
        self.old, self.t = None, 0
        self.sgd = torch.optim.SGD(self.net.parameters(), lr=self.config.lr)

    def answer(self, net, x):
        config = self.config
        norms = [m for m in net.modules() if isinstance(m, nn.BatchNorm2d)]
        kept = [copy.deepcopy(m._buffers) for m in norms]
        if config.norm == "running":
            net.eval()
        gaps = []
        hooks = [m.register_forward_pre_hook(lambda m, i: gaps.append(
            (i[0].mean((0, 2, 3)) - m.running_mean.clone()).norm()
            + (i[0].var((0, 2, 3), unbiased=True) - m.running_var.clone()).norm())) for m in norms]
        scores = net(x)
        [hook.remove() for hook in hooks]
        net.train()
        if config.norm != "update":
            [m._buffers.update(buffers) for m, buffers in zip(norms, kept, strict=True)]
        return scores, (sum(gaps) / len(gaps) if gaps else 0)

    def objective(self, x, found, y):
        config = self.config
        (o, gap), (n, _) = self.answer(self.old, x), self.answer(self.net, x)
        p, q = o.softmax(1), n.softmax(1)
        m = (p + q) / 2
        D = {"ag": (F.kl_div(o.log_softmax(1), m, reduction="batchmean")
                    + F.kl_div(n.log_softmax(1), m, reduction="batchmean")) / 2,
             "js": (F.kl_div(m.log(), p, reduction="batchmean")
                    + F.kl_div(m.log(), q, reduction="batchmean")) / 2,
             "ce": -(p * n.log_softmax(1)).sum(1).mean()}[config.divergence]
        J = config.divergence_weight * (1 - D)
        if config.recall == "adi":
            J = J + config.target * F.cross_entropy(o, found.target) + config.statistics * gap
        else:
            present = sorted(set(y.tolist()))
            for k in present:
                label = torch.full((len(x),), k, device="cpu")
                J = J - config.local_old / len(present) * F.cross_entropy(o, label)
                J = J - config.local_new / len(present) * F.cross_entropy(n, label)
            J = J + config.diversity * (p.mean(0) * p.mean(0).log()).sum()
            J = J + config.sharpness * F.cross_entropy(o, o.argmax(1))
        J = J + config.size * x.flatten(1).norm(dim=1).mean() / x[0].numel()
        return J + config.variation * 2 * (x.diff(dim=2).square().mean() + x.diff(dim=3).square().mean())

    def step(self, x, y, draws, first_task, lag):
        """One iteration; draws: the Recollections that the learner began with."""
        config = self.config
        if self.t % lag == 0:
            self.old = copy.deepcopy(self.net)
        self.t += 1
        self.sgd.zero_grad()
        F.cross_entropy(self.net(x), y).backward()
        self.sgd.step()
        self.sgd.zero_grad()
        if first_task:
            return
        for turn in range(config.repeats):
            if turn == 0 or config.repeat == "afresh":
                found = next(draws)
                images = found.start
                if found.counts is not None:
                    images = images.repeat_interleave(found.counts.long(), 0)
            if turn and config.repeat != "accumulate":
                self.sgd.zero_grad()
            for _ in range(config.descent if len(images) else 0):
                images = images.detach().requires_grad_()
                slope, = torch.autograd.grad(self.objective(images, found, y), images)
                images = images - config.image_lr * slope
            self.replay(images.detach(), x)

    def replay(self, images, x):
        config, losses = self.config, []
        parts = [part for part in ((images, config.replay), (x, config.distill)) if len(part[0]) and part[1]]
        with torch.no_grad():
            targets = [self.answer(self.old, part)[0].softmax(1) for part, _ in parts]
        for (part, weight), target in zip(parts, targets, strict=True):
            each = -(target * self.answer(self.net, part)[0].log_softmax(1)).sum(1)
            whole = sum(len(p) for p, _ in parts) if config.reduction == "union" else len(part)
            losses.append(weight * each.sum() / whole)
        if losses:
            sum(losses).backward()
            self.sgd.step()


RUNS = {
    "usual": {}, "few": {"images": 3}, "many": {"images": 9}, "noise": {"start": "noise", "images": 4},
    "js": {"divergence": "js"}, "ce": {"divergence": "ce"}, "unit lag": {"lag": 1}, "lag": {"lag": 2},
    "no distillation": {"distill": 0.0}, "distillation": {"recall": "none"},
    "naive": {"recall": "none", "distill": 0.0}, "union": {"reduction": "union", "distill": 2.0, "images": 9},
    "accumulate": {"repeats": 3}, "zeroed": {"repeats": 3, "repeat": "zeroed"},
    "afresh": {"repeats": 2, "repeat": "afresh", "images": 3}, "passes": {"epochs": 2},
    "adi": {"recall": "adi", "distill": 0.5}, "adi many": {"recall": "adi", "images": 9}}
CASES = [("tiny", name, {}) for name in RUNS] + [
    ("norm", name, {"lr": 0.01}) for name in ("usual", "many", "accumulate", "distillation", "unit lag")] + [
    ("norm", "usual", {"norm": "batch", "images": 9}), ("norm", "no distillation", {"norm": "running"}),
    ("norm", "no distillation", {"stem_average": False}), ("norm", "adi", {"statistics": 0.1}),
    ("conv", "many", {}), ("deep", "many", {"lr": 0.01})]


@pytest.mark.parametrize("net, name, more", CASES)
def test_tasks_are_learned_as_by_the_slow_run(net, name, more):
    """All images and labels are those of the learner; all that follows from them is computed again."""
    count, n = (2, 8) if net == "deep" else (3, 13)
    settings = {"net": net, "batch": 5, "images": 5, "descent": 2, "image_lr": 2.0} | RUNS[name] | more
    seed_everything(3)
    learner = arm.ARM(arm.Config(**settings), (1, 6, 6), 2 * count).double()
    slow, seen, draws = Slow(learner), [], []
    fit, draw = learner.fit, learner.draw

    def watched(*args):
        draws.append(draw(*args))
        return draws[-1]
    learner.fit = lambda engine, x, y: seen.append((x, y)) or fit(engine, x, y)
    learner.draw = watched
    for task in tasks_of(count=count, n=n):
        seen.clear(), draws.clear()
        learner.learn(task, Trace())
        recalled = iter([d for d in draws if len(d.start)] if learner.config.recall != "none" else
                        draws[:1] * len(seen))
        slow.t = 0
        for x, y in seen:
            slow.step(x, y, recalled, task.index == 0, learner.config.lag or len(seen))
        assert not list(recalled) or learner.config.recall == "none"
    ours, theirs = learner.net.state_dict(), slow.net.state_dict()
    for key, value in ours.items():
        same(value, theirs[key], 1e-7)


def by_hand(config, tasks, classes):
    """Weights after plain gradient descent on batches in the order that the learner draws."""
    seed_everything(3)
    net = nets.build(config.net, (1, 6, 6), classes).double()
    for task in tasks:
        seed_everything(4)
        for _, x, y in arm.Passes(task.train, config.batch, config.epochs):
            slopes = torch.autograd.grad(F.cross_entropy(net(x), y), list(net.parameters()))
            with torch.no_grad():
                for p, slope in zip(net.parameters(), slopes, strict=True):
                    p -= config.lr * slope
    return net.state_dict()


def learned(tasks, classes=6, **settings):
    seed_everything(3)
    settings = {"net": "tiny", "batch": 5, "images": 5, "descent": 2} | settings
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
def test_the_old_network_is_renewed_before_the_real_step(lag, changes):
    learner, found = made(lag=lag), []
    fit = learner.fit

    def watched(engine, x, y):
        pairs = zip(learner.old.buffers(), learner.net.parameters(), strict=True)
        found.append((all(torch.equal(a, b) for a, b in pairs), learner.old.head.weight.clone()))
        return fit(engine, x, y)
    learner.fit = watched
    learner.learn(list(tasks_of(n=20))[1], Trace())
    assert [i for i, (equal, _) in enumerate(found) if equal] == changes
    olds = [old for _, old in found]
    assert [i for i in range(1, 4) if not torch.equal(olds[i], olds[i - 1])] == [i for i in changes if i]


def test_gradients_add_up_unless_they_are_zeroed():
    """Two recalls with one image rate of almost nothing, so that both gradients are at the same images."""
    steps = {}
    for repeat in ("accumulate", "zeroed"):
        learner = made("conv", shape=(1, 8, 8), repeats=2, repeat=repeat, image_lr=1e-12, lr=1e-6)
        before = [p.detach().clone() for p in learner.net.parameters()]
        learner.rehearse(learner.engine(), *batch(learner), watch(), 0)
        steps[repeat] = torch.cat([(p - b).flatten() for p, b in zip(learner.net.parameters(), before,
                                                                     strict=True)]).detach()
    same(steps["accumulate"] / 3e-6, steps["zeroed"] / 2e-6, 1e-3)


# ---- what is drawn

def test_where_images_begin():
    learner, all_places = made(images=3), set()
    x, y = batch(learner, classes=(2, 3, 4))
    for _ in range(10):
        found = learner.draw(x, y, 3)
        places = [next(i for i in range(5) if torch.equal(x[i], image)) for image in found.start]
        assert len(set(places)) == 3 and found.origins.tolist() == y[places].tolist()
        all_places |= set(places)
    assert all_places == set(range(5)) and found.counts is None
    same(found.present, numbers(0, 0, 1, 1, 1, 0) / 3)
    same(learner.draw(x, y, 5).start, x)
    many = learner.draw(x, y, 400)
    assert int(many.counts.sum()) == 400 and many.counts.min() > 40 and torch.equal(many.start, x)
    same(many.share, many.counts / 400)
    noise = made(start="noise").draw(x, y, 50)
    assert noise.start.shape == (50, 1, 6, 6) and noise.origins.tolist() == [-1] * 50
    assert 0 <= noise.start.min() < 0.01 and 0.99 < noise.start.max() < 1


@pytest.mark.parametrize("images", [2, 3, 50])
def test_wanted_classes_are_old_ones(images):
    """Classes 0 to 3 are met, 2 is at hand: each wanted class at most once where there are enough."""
    learner = made(recall="adi", images=images)
    learner.met[:4] = True
    counts = torch.zeros(6, device="cpu")
    for seed in range(40):
        seed_everything(seed)
        chosen = learner.draw(*batch(learner, classes=(2,)), images).target
        counts += torch.bincount(chosen, minlength=6)
        assert len(chosen) == images and (images > 3 or len(set(chosen.tolist())) == images)
    assert counts[[2, 4, 5]].tolist() == [0, 0, 0] and counts[[0, 1, 3]].min() > 40 * images / 3 * 0.6


def test_classes_are_met_batch_by_batch():
    learner, found = made(recall="adi"), []
    learner.wanted = lambda images, present: found.append(learner.met.clone()) or torch.zeros(images).long()
    learner.met[:2] = True
    task = list(tasks_of(n=10))[1]
    task.train = Doubles(task.train.images, torch.tensor([2] * 5 + [3] * 5), [str(k) for k in range(6)])
    task.train.batches = lambda size, **_: [(task.train.images[i:i + 5].double(), task.train.labels[i:i + 5])
                                            for i in (0, 5)]
    learner.learn(task, Trace())
    assert [m.tolist() for m in found] == [[True] * 2 + [False] * 4, [True] * 3 + [False] * 3]


def test_copies_of_an_image_stay_equal_and_are_counted():
    learner = made("norm", images=9)
    found = learner.remember(*batch(learner))
    assert found.images.shape == (5, 1, 6, 6) and int(found.counts.sum()) == 9
    assert found.steps.shape == (4, 5, 1, 6, 6) and found.scores.shape == (3, 2, 5, 6)
    assert torch.equal(found.steps[0], found.start) and torch.equal(found.steps[-1], found.images)
    same(found.answers.sum(1), torch.ones(5, dtype=torch.float64))


def test_passes_over_a_task_are_in_the_same_order():
    images = next(tasks_of()).train
    passes = arm.Passes(images, 5, 3)
    steps = list(passes)
    assert len(steps) == len(passes) == 9 and [step for step, _, _ in steps] == list(range(9))
    for i in range(6):
        assert torch.equal(steps[i][1], steps[i + 3][1]) and torch.equal(steps[i][2], steps[i + 3][2])
    assert not torch.equal(steps[0][1], list(arm.Passes(images, 5, 1))[0][1])


# ---- settings, records, memory, going on

@pytest.mark.parametrize("wrong, word", [
    ({"epochs": 0}, "epochs"), ({"batch": 0}, "batch"), ({"lr": 0.0}, "lr"), ({"lr": float("nan")}, "lr"),
    ({"images": 0}, "images"), ({"descent": 0}, "descent"), ({"lag": 0}, "lag"), ({"repeats": 0}, "repeats"),
    ({"divergence": "kl"}, "divergence"), ({"recall": "deep"}, "recall"), ({"start": "zero"}, "start"),
    ({"norm": "eval"}, "norm"), ({"repeat": "twice"}, "repeat"), ({"reduction": "sum"}, "reduction"),
    ({"image_lr": 0.0}, "image_lr"), ({"diversity": -1.0}, "diversity"), ({"replay": math.nan}, "replay")])
def test_settings_that_cannot_work_are_refused(wrong, word):
    with pytest.raises(LearnerError, match=word):
        arm.Config(**wrong)


def test_images_and_networks_that_do_not_fit_are_refused():
    with pytest.raises(LearnerError, match="batch normalisation"):
        made(recall="adi", statistics=0.1)
    with pytest.raises(LearnerError, match="shape"):
        arm.ARM(arm.Config(net="tiny"), (36,), 6)
    learner = made()
    for wrong in (lambda: learner(torch.zeros(2, 1, 5, 6)),
                  lambda: learner.learn(next(tasks_of((1, 5, 5))), Trace()),
                  lambda: learner.remember(torch.zeros(2, 1, 5, 6), torch.tensor([0, 1]))):
        with pytest.raises(LearnerError, match="shape"):
            wrong()


def test_recall_before_any_task_is_refused():
    for learner, word in ((made(), "before the first task"), (made(recall="none"), "recall='none'")):
        learner.seen.zero_()
        for ask in (lambda one: one.recall(3), lambda one: one.remember(*batch(one))):
            with pytest.raises(LearnerError, match=word):
                ask(learner)


def test_recall_from_noise():
    learner = made(images=4, diversity=50.0)
    images, labels = learner.recall(10)
    assert images.shape == (10, 1, 6, 6) and labels.shape == (10,) and set(labels.tolist()) <= {0, 1}


def watch():
    return arm.Watch(arm.Config(), "cpu")


def test_a_recall_that_is_not_finite_is_noted_with_its_place():
    one, values = watch(), torch.ones(4, 9)
    one.look(1, values, torch.zeros(3))
    one.check()
    values[1, 2], values[1, 3] = 200, 10                # with their weights 20 and 160
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
    """The step of the variation is larger than what it corrects, so that images grow without end."""
    with pytest.raises(LearnerError, match="diverged in step .* through the term 'variation'"):
        trained(descent=100, image_lr=1e3)


def trained(keep=(), per_class=12, **settings):
    """A learner after three tasks, the stream and its trace tables."""
    seed_everything(0)
    settings = {"net": "tiny", "batch": 8, "images": 8, "descent": 2} | settings
    learner, stream = arm.ARM(arm.Config(**settings), (1, 6, 6), 6), small_stream(per_class=per_class)
    trace = Trace(keep, progress=False)
    for task in stream:
        trace.begin(learner, task.index)
        seed_everything(1, task.index)
        learner.learn(task, trace)
        trace.end()
    rows = {table: {name: [row for part in parts for row in part] for name, parts in columns.items()}
            for table, columns in trace.tables.items()}
    return learner, stream, rows


@pytest.mark.parametrize("settings", [{}, {"images": 12}, {"recall": "adi"}, {"recall": "none"},
                                      {"start": "noise"}])
def test_tables(settings):
    """24 images a task are 3 batches; nothing is recalled in the first task."""
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
        start, recalled, origins, counts, answers = (
            rows["images"][name][row] for name in ("start", "recalled", "origins", "counts", "answers"))
        n, task = len(start), row // 3
        assert recalled.shape == start.shape == (n, 1, 6, 6) and answers.shape == (n, 6)
        if n:
            assert counts.sum() == settings.get("images", 8) and (abs(answers.sum(1) - 1) < 1e-5).all()
            own = {-1} if settings.get("start") else {2 * task, 2 * task + 1}
            assert set(origins.tolist()) <= own


def test_bytes_kept_and_parameters():
    big = arm.ARM(arm.Config(), (1, 28, 28), 10)
    assert sum(p.numel() for p in big.parameters()) == 478_410
    assert big.kept() == {"weights": 4 * 478_410 + 8, "old copies": 4 * 478_410}
    unit = arm.ARM(arm.Config(lag=1), (1, 28, 28), 10)
    assert unit.kept() == {"weights": 4 * 478_410 + 8}
    naive = arm.ARM(arm.Config(recall="none", distill=0.0), (1, 28, 28), 10)
    assert naive.kept() == unit.kept()
    for pool, side, classes, count in ((1, 32, 10, 1_094_750), (2, 84, 100, 1_157_240)):
        net = nets.ResNet18((3, side, side), classes, pool=pool)
        assert sum(p.numel() for p in net.parameters()) == count


def test_defaults_are_those_of_table_4():
    c = arm.Config()
    assert (c.lr, c.image_lr, c.replay, c.distill) == (.05, 25, 1, 1)
    assert (c.local_old, c.local_new, c.diversity, c.sharpness, c.size, c.variation) == (1, .1, 16, .1, 1, 1)
    assert (c.descent, c.images, c.batch, c.epochs, c.lag, c.divergence) == (10, 10, 10, 1, None, "ag")


def halves(state=None, start=None, saved=None, **settings):
    """A learner at the end of the second task, what its trace saved there, its rows and its state before."""
    seed_everything(0)
    learner = arm.ARM(arm.Config(**{"batch": 8, "images": 8, "descent": 2} | settings), (1, 6, 6), 6)
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


@pytest.mark.parametrize("settings", [
    {"net": "tiny"}, {"net": "tiny", "recall": "adi", "epochs": 2}, {"net": "tiny", "lag": 2, "images": 5},
    {"net": "norm", "images": 10}, {"net": "norm", "lag": 1, "recall": "adi", "statistics": 0.1}])
def test_a_task_that_was_stopped_goes_on_as_if_not(settings):
    whole, saved, rows, start = halves(**settings)
    assert len(saved) == 3 * settings.get("epochs", 1)
    for state in (saved[0], saved[-1]):
        again, _, more, _ = halves(state, start, **settings)
        expected = whole.state_dict()
        assert all(torch.equal(v, expected[k]) for k, v in again.state_dict().items())
        assert all(torch.equal(torch.as_tensor(v), torch.as_tensor(more["loss"][c]))
                   for c, v in rows["loss"].items())


def test_where_a_recall_diverged_is_known_after_a_stop():
    settings, saved = {"net": "tiny", "descent": 100, "image_lr": 1e3}, []
    for state in (None, 0):
        with pytest.raises(LearnerError, match="the recall of batch 0 diverged"):
            halves(None if state is None else saved[0], saved=saved, **settings)
    assert len(saved) == 1


@pytest.mark.parametrize("settings", [
    {"net": "tiny"}, {"net": "tiny", "recall": "adi", "images": 20}, {"net": "norm", "images": 12},
    {"net": "norm", "recall": "adi", "statistics": 0.1}])
def test_steps_wait_for_no_value_and_make_tensors_on_their_device(settings):
    """A task of ten batches brings as many values to the host as one of five."""
    counts = []
    for n in (10, 20):
        learner = arm.ARM(arm.Config(**{"batch": 2, "images": 2, "descent": 1} | settings), (1, 6, 6), 6)
        with HostSyncs() as syncs, DeviceFactories() as factories:
            for task in list(tasks_of(n=n))[:2]:
                task.train = ImageSet(task.train.images, task.train.labels, task.train.names)
                learner.learn(task, Trace(("recall", "objective")))
        counts.append(syncs.total)
        assert factories.found == []
    assert counts[0] == counts[1]


def test_a_stream_is_learned():
    """Better than training alone on the same batches, where all but the last task is forgotten."""
    right = []
    for settings in ({"image_lr": 5.0, "descent": 5}, {"recall": "none", "distill": 0.0}):
        learner, stream, _ = trained(per_class=100, net="small", lr=0.1, batch=10, images=10, **settings)
        (x, y), = stream.test.batches(len(stream.test), shuffle=False)
        right.append(float((learner(x).argmax(1) == y).double().mean()))
    assert right[0] > 0.6 > 0.4 > right[1]
