"""The methods beside MFGR, in its training: an oracle for each, and where each does nothing."""

import copy
import math
import random

import numpy as np
import pytest
import torch
from torch import nn

from clkit.blocks.growing import begin
from clkit.engine.learner import LearnerError, frozen
from clkit.engine.run import run
from clkit.engine.seeding import seed_everything
from clkit.engine.side import side_images
from clkit.engine.trace import Trace
from clkit.methods.baselines import lwf_local, lwm, muc, oracle
from clkit.methods.mfgr import deep_inversion, icarl_g
from clkit.methods.mfgr.statistics import Statistics
from tests.fakes import small_stream

SHAPE = (1, 8, 8)
CLASSIFIER = {
    "net": "resnet8",
    "mean": (0.5,),
    "std": (0.25,),
    "pad": 1,
    "base_epochs": 2,
    "epochs": 2,
    "batch_size": 8,
    "base_lr": 0.05,
    "lr": 0.05,
}
GENERATOR = {"noise": 8, "g_maps": (8, 8, 4), "g_steps": 3, "g_batch": 16, "n_pairs": 8}
SIDES = {"side_data": "digits", "side_epochs": 1}


def stream():
    return small_stream(per_class=12, side=8)


def go(learner, config, tasks=None):
    return run(learner, config, stream(), seed=1, threads=1, record="*", progress=False)


def learned(learner, config, tasks):
    """A learner after some tasks."""
    seed_everything(3, 0)
    made = learner(config, SHAPE, 6)
    for task in list(stream())[:tasks]:
        seed_everything(3, 1 + task.index)
        made.learn(task, Trace(progress=False))
    return made


def same(a, b):
    """Whether two networks have the same weights and buffers, bit for bit."""
    return all(
        torch.equal(p, q) for p, q in zip(a.state_dict().values(), b.state_dict().values(), strict=True)
    )


def batch(learner, task):
    torch.manual_seed(2)
    x, y = next(iter(task.train.batches(8)))
    return learner.standardise(x), y


LWF = lwf_local.Config(**CLASSIFIER)
FIRST = [
    (lwf_local.LocalLwF, LWF),
    (lwm.LwM, lwm.Config(**CLASSIFIER)),
    (muc.MUC, muc.Config(**CLASSIFIER, **SIDES)),
    (muc.MUC, muc.Config(**CLASSIFIER, **SIDES, keep="mas")),
    (oracle.Oracle, oracle.Config(**CLASSIFIER)),
    (oracle.FinetuneSGD, oracle.Config(**CLASSIFIER)),
    (deep_inversion.DeepInversion, deep_inversion.Config(**CLASSIFIER)),
]


def test_the_first_task_is_the_same_with_every_method():
    """But for MAS, which puts the rows of the head back: there are none yet."""
    nets = [learned(learner, config, 1).net for learner, config in FIRST]
    assert all(same(net, nets[0]) for net in nets[1:])


# ---- LwF, Finetune, Oracle


def test_lwf_by_hand():
    """The third task in one step, by plain gradient descent."""
    settings = {**CLASSIFIER, "batch_size": 24, "epochs": 1, "pad": 0, "flip": False, "momentum": 0.0}
    learner = learned(lwf_local.LocalLwF, lwf_local.Config(**settings), 2)
    task, old = stream()[2], frozen(learner.net)
    net = copy.deepcopy(learner.net)
    torch.manual_seed(7)
    begin(net, learner.config, task)
    x, y = next(iter(task.train.batches(24)))
    x = (x - 0.5) / 0.25
    logits, soft = net(x), old(x).detach()
    ce = -logits[:, 4:].log_softmax(1).gather(1, y[:, None] - 4).mean()
    kd = -((soft / 2).softmax(1) * (logits[:, :4] / 2).log_softmax(1)).sum(1).mean()
    parameters = list(net.parameters())
    gradients = torch.autograd.grad(ce / 3 + 2 * kd / 3, parameters)
    with torch.no_grad():
        for p, g in zip(parameters, gradients):
            p -= 0.05 * (g + 5e-4 * p)
    torch.manual_seed(7)
    learner.learn(task, Trace(progress=False))
    for found, expected in zip(learner.net.parameters(), parameters):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)


def test_finetune_forgets_at_once_and_the_oracle_does_not():
    found = {}
    for learner in (oracle.FinetuneSGD, oracle.Oracle):
        config = oracle.Config(**{**CLASSIFIER, "base_epochs": 8, "epochs": 8})
        made, result = go(learner, config)
        found[learner] = result.accuracy()[-1]
        assert set(result.memory_bytes) - {"weights"} == ({"exemplars"} if made.stores_images else set())
    assert found[oracle.FinetuneSGD][:2].max() < 0.02 and found[oracle.Oracle].min() > 0.6
    assert len(made.memory_labels) == 72


# ---- LwM


def test_attention_is_grad_cam():
    """The gradient of a logit in the maps, averaged over positions, weighs them."""
    learner = learned(lwm.LwM, lwm.Config(**CLASSIFIER), 1)
    net, x = learner.net.eval(), torch.randn(5, *SHAPE)
    maps, logits = learner.seen(net, x)
    torch.testing.assert_close(logits, net(x))
    label = torch.tensor([0, 1, 1, 0, 1])
    (gradient,) = torch.autograd.grad(logits.gather(1, label[:, None]).sum(), maps, retain_graph=True)
    weights = gradient.mean((2, 3), keepdim=True)
    cam = (weights * maps).sum(1).clamp(min=0).flatten(1)
    expected = cam / cam.norm(dim=1, keepdim=True).clamp(min=1e-12)
    found = lwm.attention(maps, net.head.weight[label])
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    assert found.norm(dim=1).max() <= 1 + 1e-5


def test_without_its_weight_lwm_is_lwf():
    one, result = go(lwm.LwM, lwm.Config(**CLASSIFIER, gamma=0.0))
    other, _ = go(lwf_local.LocalLwF, LWF)
    assert same(one.net, other.net)
    assert (result.trace["loss"]["attention"][2:] > 0).all() and not result.trace["loss"]["attention"][
        :2
    ].any()
    assert not same(go(lwm.LwM, lwm.Config(**CLASSIFIER))[0].net, other.net)


def test_the_attention_of_an_unchanged_network_is_unchanged():
    learner = learned(lwm.LwM, lwm.Config(**CLASSIFIER), 1)
    task, old = stream()[1], frozen(learner.net)
    begin(learner.net, learner.config, task)
    x, _ = batch(learner, task)
    sizes = {}
    for mode in (False, True):
        maps, logits = learner.seen(learner.net.train(mode), x)
        sizes[mode] = float(learner.old_losses(maps, logits, x, old)[1].detach())
    assert sizes[False] < 1e-5 < sizes[True]


def test_lwm_needs_maps_that_are_averaged():
    with pytest.raises(LearnerError, match="convnet does not average maps"):
        lwm.LwM(lwm.Config(**{**CLASSIFIER, "net": "convnet"}), SHAPE, 6)


# ---- MUC


def test_without_side_classifiers_muc_is_lwf():
    one, _ = go(muc.MUC, muc.Config(**CLASSIFIER, n_sides=0))
    other, _ = go(lwf_local.LocalLwF, LWF)
    assert same(one.net, other.net)
    assert not same(go(muc.MUC, muc.Config(**CLASSIFIER, **SIDES))[0].net, other.net)


def test_mas_keeps_important_weights_in_their_place():
    first, moved = learned(muc.MUC, muc.Config(**CLASSIFIER, n_sides=0, keep="mas"), 1), {}
    start = [p.detach().clone() for p in first.protected()]
    importance = first.importance
    for strength in (0.0, 1 / float(importance.max())):
        learner = copy.deepcopy(first)
        learner.config = muc.Config(**CLASSIFIER, n_sides=0, keep="mas", strength=strength)
        learner.learn(stream()[1], Trace(progress=False))
        gap = muc.flat(p.detach() - q for p, q in zip(learner.protected(), start))
        moved[strength] = float(importance @ gap.square())
    none, some = moved.values()
    assert some < 0.5 * none


def test_side_classifiers_add_their_importance():
    found = [learned(muc.MUC, muc.Config(**CLASSIFIER, **SIDES, keep="mas", n_sides=n), 1) for n in (0, 3)]
    assert (
        same(found[0].net, found[1].net) and (found[1].importance > found[0].importance).float().mean() > 0.8
    )


def test_the_importance_of_mas_by_hand():
    learner = learned(muc.MUC, muc.Config(**CLASSIFIER, **SIDES, keep="mas", n_sides=2), 1)
    task = stream()[0]
    torch.manual_seed(1)
    found = learner.sensitivity(task)
    torch.manual_seed(1)
    net, total = learner.net.eval(), 0.0
    parameters = [p for name, p in net.named_parameters() if not name.startswith("head.")]
    for x, _ in task.train.batches(8):
        features = net.features((x - 0.5) / 0.25)
        sizes = [(features @ h.weight.T + h.bias).square().sum() / len(x) for h in (net.head, *learner.sides)]
        parts = [
            torch.cat([g.abs().flatten() for g in torch.autograd.grad(s, parameters, retain_graph=True)])
            for s in sizes
        ]
        total = total + parts[0] + (parts[1] + parts[2]) / 2
    torch.testing.assert_close(found, total / 3, rtol=1e-3, atol=1e-6)
    assert len(found) == sum(p.numel() for p in parameters) == len(learner.importance)


def test_mas_puts_the_rows_of_old_classes_back():
    learner = learned(muc.MUC, muc.Config(**CLASSIFIER, n_sides=0, keep="mas"), 1)
    rows = learner.net.head.weight.detach().clone()
    learner.learn(stream()[1], Trace(progress=False))
    assert torch.equal(learner.net.head.weight[:2], rows) and len(learner.net.head.bias) == 4


def test_side_classifiers_disagree_on_other_images():
    assert muc.apart([torch.tensor([[100.0, 0.0]]), torch.tensor([[0.0, 100.0]])]).item() == pytest.approx(2)
    three = [
        torch.tensor([[0.0, 0.0]]),
        torch.tensor([[math.log(3), 0.0]]),
        torch.tensor([[0.0, math.log(3)]]),
    ]
    assert muc.apart(three).item() == pytest.approx((0.5 + 0.5 + 1.0) / 3)
    assert muc.apart(three[:1]) == 0
    gaps = {}
    for weight in (0.0, 20.0):
        config = muc.Config(**CLASSIFIER, side_data="digits", side_epochs=20, disagreement=weight)
        learner = learned(muc.MUC, config, 1)
        other = side_images("digits", SHAPE, "cpu")[:200]
        features = learner.net.eval().features(learner.standardise(other / 255))
        gaps[weight] = float(muc.apart([side(features) for side in learner.sides]).detach())
    assert gaps[20.0] > 2 * gaps[0.0]


def test_side_classifiers_learn_on_frozen_features_their_new_rows_alone():
    learner = learned(muc.MUC, muc.Config(**CLASSIFIER, **SIDES, keep="mas"), 1)
    net = copy.deepcopy(learner.net)
    rows = [side.weight.detach().clone() for side in learner.sides]
    task = stream()[1]
    plain = {**CLASSIFIER, "pad": 0, "flip": False}
    learner.config = muc.Config(**plain, side_epochs=20, side_lr=0.5, disagreement=0.0)
    learner.add_sides(task, side_images("digits", SHAPE, "cpu"), Trace(progress=False))
    assert same(learner.net, net) and learner.training
    x, y = batch(learner, task)
    for side, old in zip(learner.sides, rows):
        assert torch.equal(side.weight[:2], old) and side.weight.shape == (4, 64)
        answers = side(net.eval().features(x))[:, 2:].argmax(1) + 2
        assert (answers == y).float().mean() > 0.7


def test_images_of_another_set():
    grey, coloured = (side_images("digits", shape, "cpu") for shape in ((1, 8, 8), (3, 16, 16)))
    assert grey.shape == (1438, 1, 8, 8) and coloured.shape == (1438, 3, 16, 16)
    assert grey.dtype == coloured.dtype == torch.uint8 and torch.equal(coloured[:, 0], coloured[:, 2])


def test_side_images_that_are_not_here_are_named(monkeypatch, tmp_path):
    monkeypatch.setenv("CLKIT_DATA", str(tmp_path))
    with pytest.raises(LearnerError, match="no unlabelled images: svhn is not here.*side_data="):
        learned(muc.MUC, muc.Config(**CLASSIFIER), 1)
    learned(muc.MUC, muc.Config(**CLASSIFIER, n_sides=0), 1)


# ---- DeepInversion

INVERSION = {"per_class": 6, "i_steps": 40, "i_batch": 8, "jitter": 1}


def test_a_step_of_deep_inversion_by_hand(monkeypatch):
    """The gradient of the objective on the pixels, with the shift of that step."""
    config = deep_inversion.Config(**CLASSIFIER, **{**INVERSION, "i_steps": 1}, l2=0.01)
    learner = learned(deep_inversion.DeepInversion, config, 1)
    old, labels, kept = frozen(learner.net), torch.tensor([0, 1, 1, 0]), {}

    def noted(self, *args):
        (x,) = self.param_groups[0]["params"]
        kept["x"], kept["gradient"] = x.detach().clone(), x.grad.clone()

    monkeypatch.setattr(torch.optim.Adam, "step", noted)
    random.seed(3)
    with Statistics(old) as statistics:
        learner.found(labels, old, statistics)
    random.seed(3)
    down, right = random.randint(-1, 1), random.randint(-1, 1)
    mirrored = random.random() < 0.5
    x = kept["x"].requires_grad_()
    seen = torch.roll(torch.roll(x, down, 2), right, 3)
    seen = seen[:, :, :, range(7, -1, -1)] if mirrored else seen
    inputs, hooks = [], []
    norms = [m for m in old.modules() if isinstance(m, nn.BatchNorm2d)]
    for norm in norms:
        hooks.append(norm.register_forward_pre_hook(lambda norm, args: inputs.append(args[0])))
    loss = -old(seen).log_softmax(1)[range(4), labels].mean()
    for norm, a in zip(norms, inputs):
        loss = loss + 10 * (a.var((0, 2, 3), correction=0) - norm.running_var).norm()
        loss = loss + 10 * (a.mean((0, 2, 3)) - norm.running_mean).norm()
    for hook in hooks:
        hook.remove()
    steps = seen.diff(dim=2), seen.diff(dim=3), seen[..., 1:, 1:] - seen[..., :-1, :-1]
    steps = *steps, seen[..., 1:, :-1] - seen[..., :-1, 1:]
    loss = loss + 1e-3 * sum(s.square().sum().sqrt() for s in steps) + 0.01 * seen.norm()
    (gradient,) = torch.autograd.grad(loss, x)
    torch.testing.assert_close(kept["gradient"], gradient, rtol=1e-3, atol=1e-5)


def test_deep_inversion_finds_images_of_the_classes():
    settings = {**CLASSIFIER, **INVERSION, "statistics": 0.01, "base_epochs": 8, "epochs": 8}
    config = deep_inversion.Config(**settings)
    learner, result = go(deep_inversion.DeepInversion, config)
    rows = result.trace["inversion"]
    assert rows["task"].tolist() == [1, 1, 2, 2, 2] and rows["accuracy"].mean() > 0.8
    samples = result.trace["samples"]
    assert samples["counts"].sum(1).tolist() == [12, 24]
    assert result.trace["loss"]["counts"][-1].sum() == 48 and result.trace["loss"]["gkd"][-1] > 0
    head = 2 * (64 + 1) * 4 + 8  # rows of two classes, and their number
    assert set(result.memory_bytes) == {"weights"}
    assert set(np.diff(result.memory_bytes["weights"])) == {head}, "no image is kept"
    images, labels = learner.recall(6, label=3)
    assert images.shape == (6, *SHAPE) and set(labels.tolist()) == {3} and images.max() <= 1
    with pytest.raises(LearnerError, match="24 images can be recalled, fewer than 25"):
        learner.recall(25)
    with pytest.raises(LearnerError, match="no images to recall"):
        deep_inversion.DeepInversion(learner.config, SHAPE, 6).recall(1)


def test_the_images_move_and_not_the_network():
    learner = learned(deep_inversion.DeepInversion, deep_inversion.Config(**CLASSIFIER, **INVERSION), 1)
    old, before = frozen(learner.net), copy.deepcopy(learner.net)
    bank = deep_inversion.Bank(12, 2, SHAPE)
    learner.invert(bank, old, stream()[1], Trace(progress=False))
    assert same(old, before) and not any(m._forward_pre_hooks for m in old.modules())
    assert (
        bank.labels.tolist() == [0, 1] * 6 and len({tuple(i.flatten().tolist()) for i in bank.images}) == 12
    )


def test_shifts_go_around_the_edges():
    random.seed(0)
    x = torch.arange(16.0).view(1, 1, 4, 4)
    found = {tuple(deep_inversion.moved(x, 1).flatten().tolist()) for _ in range(200)}
    assert len(found) == 2 * 9 and all(sorted(f) == sorted(x.flatten().tolist()) for f in found)
    assert {tuple(deep_inversion.moved(x, 0).flatten().tolist()) for _ in range(20)} == {
        tuple(x.flatten().tolist()),
        tuple(x.flip(3).flatten().tolist()),
    }


# ---- iCaRL and generated images

ICARL = {**CLASSIFIER, **GENERATOR, "memory": 12, "generated": 8}


def test_icarl_by_hand():
    """Targets from labels for new classes, and from the old network for old ones, at temperature 1."""
    learner = learned(icarl_g.ICaRLSGD, icarl_g.Config(**ICARL), 1)
    task, old = stream()[1], frozen(learner.net)
    begin(learner.net, learner.config, task)
    x, y = batch(learner, task)
    logits, p_old = learner.net(x), old(x).sigmoid()
    targets = torch.stack([p_old[:, 0], p_old[:, 1], (y == 2).float(), (y == 3).float()], 1)
    p = logits.sigmoid()
    expected = -(targets * p.log() + (1 - targets) * (1 - p).log()).mean(0)
    learner.net.load_state_dict(learner.net.state_dict())
    torch.testing.assert_close(learner.real_losses(x, y, old, task), expected, rtol=1e-4, atol=1e-5)


def test_generated_images_without_weight_do_nothing():
    """Stage 1 draws random numbers, so the batches differ: the loss of a step is compared."""
    learner = learned(icarl_g.ICaRLG, icarl_g.Config(**ICARL, gkd=0.0), 2)
    plain = learned(icarl_g.ICaRLSGD, icarl_g.Config(**ICARL), 2)
    assert learner.net.head.weight.shape == plain.net.head.weight.shape
    nets = []
    for generator in (None, icarl_g.recording.Generator(SHAPE, 8, (8, 8, 4))):
        twin = copy.deepcopy(plain)
        twin.config = icarl_g.Config(**ICARL, gkd=0.0)
        old, task = frozen(plain.net), stream()[2]
        begin(twin.net, twin.config, task)
        twin.net.load_state_dict({**twin.net.state_dict(), "head.weight": torch.ones(6, 64)})
        with torch.no_grad():
            twin.net.head.bias.zero_()
        fake = None if generator is None else Repeating(generator)
        torch.manual_seed(4)
        twin.train_network(task, old, fake, Trace(progress=False))
        nets.append(twin.net)
    for (name, a), b in zip(nets[0].named_parameters(), nets[1].parameters()):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4, msg=name)


class Repeating(nn.Module):
    """A generator that draws the same images each time, so that it takes no random number."""

    def __init__(self, generator):
        super().__init__()
        state = torch.random.get_rng_state()
        with torch.no_grad():
            self.images = generator.draw(8)
        torch.random.set_rng_state(state)

    def draw(self, n):
        return self.images[:n]


def test_icarl_with_generated_images():
    learner, result = go(icarl_g.ICaRLG, icarl_g.Config(**ICARL))
    loss = result.trace["loss"]
    assert not loss["gkd"][loss["task"] == 0].any() and (loss["gkd"][loss["task"] > 0] > 0).all()
    assert result.trace["memory"]["counts"].tolist() == [
        [6, 6, 0, 0, 0, 0],
        [3, 3, 3, 3, 0, 0],
        [2, 2, 2, 2, 2, 2],
    ]
    assert set(result.memory_bytes) == {"weights", "exemplars", "features"}
    assert np.isfinite(result.trace["recording"]["loss"]).all()
    plain, _ = go(icarl_g.ICaRLSGD, icarl_g.Config(**ICARL))
    assert not same(plain.net, learner.net)


def test_the_nearest_mean_of_exemplars_answers():
    learner = learned(icarl_g.ICaRLSGD, icarl_g.Config(**ICARL), 2).eval()
    x = torch.rand(9, *SHAPE)
    with torch.no_grad():
        scores = learner(x)
        features = nn.functional.normalize(learner.net.features((x - 0.5) / 0.25))
    nearest = torch.cdist(features, learner.memory.means).argmin(1)
    assert torch.equal(scores.argmax(1), nearest) and scores.shape == (9, 4)
