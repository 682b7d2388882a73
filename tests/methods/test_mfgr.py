"""MFGR: what each stage may touch, a step by hand, LwF as its special case, stopping inside both stages."""

import copy
import math

import numpy as np
import pytest
import torch
from torch import nn

from clkit.blocks.growing import begin, classifier, grow
from clkit.engine.learner import LearnerError, frozen
from clkit.engine.run import run
from clkit.engine.seeding import seed_everything
from clkit.engine.trace import Stopped, Trace
from clkit.errors import ClkitError
from clkit.methods.baselines import lwf_local
from clkit.methods.mfgr import inheritance, mfgr, recording
from clkit.methods.mfgr.generator import Generator
from clkit.methods.mfgr.inheritance import losses, replay
from clkit.methods.mfgr.mfgr import MFGR, Config
from clkit.methods.mfgr.recording import record
from clkit.methods.mfgr.statistics import Statistics
from tests.fakes import small_stream

SHAPE, PER_CLASS = (1, 8, 8), 12
CLASSIFIER = {
    "net": "resnet8",
    "mean": (0.5,),
    "std": (0.25,),
    "pad": 1,
    "base_epochs": 3,
    "epochs": 2,
    "batch_size": 8,
    "base_lr": 0.05,
    "lr": 0.05,
}
GENERATOR = {"noise": 8, "g_maps": (8, 8, 4), "g_steps": 6, "g_batch": 16, "n_pairs": 8}


def config(**settings):
    return Config(**{**CLASSIFIER, **GENERATOR, **settings})


def stream(**options):
    return small_stream(per_class=PER_CLASS, side=8, **options)


def learned(tasks=2, **settings):
    """A learner after some tasks."""
    seed_everything(3, 0)
    learner = MFGR(config(**settings), SHAPE, 6)
    for task in list(stream())[:tasks]:
        seed_everything(3, 1 + task.index)
        learner.learn(task, Trace(progress=False))
    return learner


@pytest.fixture(scope="module")
def first_task():
    return learned(1)


def state_of(module):
    return {name: value.clone() for name, value in module.state_dict().items()}


def same(module, state):
    return all(torch.equal(value, state[name]) for name, value in module.state_dict().items())


# ---- the head


def test_a_head_grows_by_rows_and_keeps_the_old_ones():
    torch.manual_seed(0)
    net = classifier("resnet8", SHAPE)
    x = torch.rand(5, *SHAPE)
    assert net.eval()(x).shape == (5, 0)
    grow(net.head, 3)
    state, before = state_of(net), net(x)
    grow(net.head, 2)
    assert net.head.weight.shape == (5, 64) and net.head.bias.shape == (5,)
    assert torch.equal(net.head.weight[:3], state["head.weight"])
    assert torch.equal(net.head.bias[:3], state["head.bias"])
    torch.testing.assert_close(net(x)[:, :3], before, rtol=0, atol=1e-6)
    assert all(torch.equal(v, state[n]) for n, v in net.state_dict().items() if not n.startswith("head"))
    fresh = nn.Linear(64, 1000).weight.std()
    assert 0.5 < net.head.weight[3:].std() / fresh < 1.5, "new rows are drawn as usual"


def test_weights_of_a_file_are_taken_before_the_first_task_only(tmp_path):
    torch.manual_seed(0)
    donor = classifier("resnet8", SHAPE)
    torch.save(donor.state_dict(), tmp_path / "weights.pt")
    settings = config(weights=str(tmp_path / "weights.pt"))
    net = classifier("resnet8", SHAPE)
    tasks = list(stream())
    begin(net, settings, tasks[0])
    assert torch.equal(net.stem.weight, donor.stem.weight) and len(net.head.bias) == 2
    with torch.no_grad():
        net.stem.weight.zero_()
    begin(net, settings, tasks[1])
    assert not net.stem.weight.any() and len(net.head.bias) == 4


# ---- stage 1


def recorded(learner, steps=6, trace=None, **settings):
    """(generator, old network) of a second task."""
    old = frozen(learner.net)
    task = stream()[1]
    trace = trace or Trace(progress=False)
    trace.begin(learner, 1)
    torch.manual_seed(5)
    return record(config(g_steps=steps, **settings), old, SHAPE, task, trace, 6), old


def recording_of(learner, steps, **settings):
    """The table "recording" of a second task."""
    trace = Trace("recording", progress=False)
    recorded(learner, steps, trace, **settings)
    return trace.end()["recording"]


def test_stage_1_leaves_the_old_network_as_it_was(first_task):
    before = state_of(first_task.net)
    _, old = recorded(first_task)
    assert same(old, before) and same(first_task.net, before)
    assert not any(p.requires_grad or p.grad is not None for p in old.parameters())
    assert not any(m.training for m in old.modules())
    assert not any(m._forward_pre_hooks for m in old.modules())


def test_stage_1_takes_no_data(first_task, monkeypatch):
    def refuse(*args, **options):
        raise AssertionError("an image was asked for")

    task = stream()[1]
    monkeypatch.setattr(type(task.train), "batches", refuse)
    record(config(), frozen(first_task.net), SHAPE, task, Trace(progress=False), 6)
    with pytest.raises(AssertionError, match="an image was asked for"):
        copy.deepcopy(first_task).learn(task, Trace(progress=False))


def test_stage_1_matches_the_statistics_and_draws_all_classes():
    learner = learned(1, base_epochs=12)
    rows = recording_of(learner, 120, g_batch=64, n_pairs=32)
    assert rows["bn"][-5:].mean() < 0.5 * rows["bn"][0] and rows["bn"][0] > 0.3
    assert rows["cd"][-1] < -math.log10(2) + 0.05 and rows["counts"][-1][:2].min() >= 0.5 * 64 / 2
    assert rows["gaps"].shape == (120, 9)
    np.testing.assert_allclose(rows["gaps"].mean(1), rows["bn"], rtol=1e-5)
    base = recording_of(learner, 120, g_batch=64, n_pairs=32, statistics=0.0)["bn"]
    assert base[-5:].mean() > 2 * rows["bn"][-5:].mean(), "without l_bn they are not matched"


def test_a_term_without_weight_takes_no_part(first_task):
    terms = {"oh": torch.tensor(1.0), "cd": torch.tensor(2.0), "bn": torch.tensor(3.0)}
    terms |= {"div": torch.tensor(4.0), "act": torch.tensor(float("nan")), "tv": torch.tensor(float("inf"))}
    assert recording.l_kr(config(), terms) == 1 + 5 * 2 + 20 * 3 + 0.1 * 4
    code = config(diversity=0.0, activation=0.1, tv=10.0)
    terms |= {"act": torch.tensor(5.0), "tv": torch.tensor(6.0)}
    assert recording.l_kr(code, terms) == 1 + 5 * 2 + 20 * 3 + 0.1 * 5 + 10 * 6


def test_a_generator_that_diverges_says_at_which_step(first_task):
    with pytest.raises(LearnerError, match=r"diverged by step [1-9]\d? of task 2 \(.*not finite\).*g_lr"):
        recorded(first_task, 40, g_lr=1e38)


def test_what_is_recorded_of_the_images(first_task):
    trace = Trace("samples", progress=False)
    generator, old = recorded(first_task, trace=trace)
    row = {name: torch.as_tensor(values)[0] for name, values in trace.end()["samples"].items()}
    assert row["images"].shape == (6, 8, *SHAPE) and row["images"].dtype == torch.uint8
    assert row["counts"].sum() == 64 and not row["counts"][2:].any()
    assert row["confidence"][2:].isnan().all()
    shown = row["counts"].clamp(max=8).tolist()
    whole = [int(row["images"][k].flatten(1).amax(1).eq(255).sum()) for k in range(6)]
    assert whole == shown, "each from its least to its largest value, then black"
    torch.manual_seed(1)
    x, features, logits = recording.drawn(config(), generator, old, 40)
    found = recording.summary(x, features, logits, 6)
    for k in set(logits.argmax(1).tolist()):
        own = logits.argmax(1) == k
        torch.testing.assert_close(found["confidence"][k], logits.softmax(1)[own].amax(1).mean())
        spread = features[own].var(0, correction=0).mean()
        torch.testing.assert_close(found["spread"][k], spread, rtol=1e-3, atol=1e-5)


# ---- stage 2


def batch(learner, task):
    torch.manual_seed(2)
    x, y = next(iter(task.train.batches(8)))
    return learner.standardise(x), y


def test_a_step_of_stage_2_by_hand(first_task):
    """Two passes through the student, generated images first; the old network in eval mode."""
    learner, task = copy.deepcopy(first_task), stream()[1]
    old = frozen(learner.net)
    torch.manual_seed(4)
    begin(learner.net, learner.config, task)
    generator = Generator(SHAPE, 8, (8, 8, 4))
    x, y = batch(learner, task)
    twin = copy.deepcopy((learner.net, generator))
    torch.manual_seed(9)
    made, soft = replay(learner.config, task, x, old, generator.draw)
    found = losses(learner.config, learner.net, task, x, y, made, soft)
    net, g = twin
    torch.manual_seed(9)
    with torch.no_grad():
        fake = g(torch.randn(8, 8))
        t_fake, t_new = old(fake), old(x)
    gkd = -((t_fake / 2).softmax(1) * (net(fake)[:, :2] / 2).log_softmax(1)).sum(1).mean()
    logits = net(x)
    nkd = -((t_new / 2).softmax(1) * (logits[:, :2] / 2).log_softmax(1)).sum(1).mean()
    ce = -logits[:, 2:].log_softmax(1).gather(1, y[:, None] - 2).mean()
    expected = [0.5 * ce + 0.5 * (gkd + nkd), ce, gkd, nkd]
    torch.testing.assert_close(torch.stack(found), torch.stack(expected), rtol=1e-5, atol=1e-6)
    running = zip(learner.net.buffers(), net.buffers())
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in running), "both passes move the statistics"
    together = copy.deepcopy(first_task.net)
    grow(together.head, 2)
    torch.manual_seed(9)
    together(torch.cat([fake, x]))
    assert not torch.allclose(together.bn.running_mean, net.bn.running_mean, atol=1e-6), "one pass is another"
    assert not made.requires_grad and made.grad_fn is None


def test_new_and_old_logits_are_not_coupled(first_task):
    learner, task = copy.deepcopy(first_task), stream()[1]
    old = frozen(learner.net)
    begin(learner.net, learner.config, task)
    x, y = batch(learner, task)
    made, soft = replay(learner.config, task, x, old, Generator(SHAPE, 8, (8, 8, 4)).draw)
    _, ce, gkd, nkd = losses(learner.config, learner.net, task, x, y, made, soft)
    weight = learner.net.head.weight
    (of_new,) = torch.autograd.grad(ce, weight, retain_graph=True)
    (of_old,) = torch.autograd.grad(gkd + nkd, weight)
    assert not of_new[:2].any() and of_new[2:].any() and of_old[:2].any() and not of_old[2:].any()


def test_at_the_start_there_is_nothing_to_distil_in_eval_mode(first_task):
    """Teacher and student are the same; in training mode batch normalisation tells them apart."""
    learner, task, sizes = copy.deepcopy(first_task), stream()[1], {}
    old = frozen(learner.net)
    begin(learner.net, learner.config, task)
    x, y = batch(learner, task)
    for mode in (False, True):
        net = copy.deepcopy(learner.net).train(mode)
        made, soft = replay(learner.config, task, x, old, Generator(SHAPE, 8, (8, 8, 4)).draw)
        _, _, gkd, nkd = losses(learner.config, net, task, x, y, made, soft)
        gradients = torch.autograd.grad(gkd + nkd, list(net.parameters()))
        sizes[mode] = max(float(g.abs().max()) for g in gradients)
    assert sizes[False] < 1e-5 < 1e-3 < sizes[True]


def test_stage_2_changes_the_student_alone(first_task, monkeypatch):
    learner, kept = copy.deepcopy(first_task), {}
    original = inheritance.inherit

    def watched(learner, task, trace, old, draw, objects):
        kept["before"] = state_of(old), [p.clone() for p in objects[0].parameters()]
        kept["mode"] = objects[0].training, objects[0].norm.running_mean.clone()
        original(learner, task, trace, old, draw, objects)
        kept["after"] = old, objects[0]

    monkeypatch.setattr(mfgr, "inherit", watched)
    learner.learn(stream()[1], Trace(progress=False))
    (old_state, weights), (old, generator) = kept["before"], kept["after"]
    assert same(old, old_state) and not old.training
    assert all(torch.equal(a, b) for a, b in zip(generator.parameters(), weights))
    assert kept["mode"][0] and generator.training, "G stays in training mode"
    assert not torch.equal(generator.norm.running_mean, kept["mode"][1]), "so its statistics move"
    assert not same(learner.net, old_state | {"head.weight": learner.net.head.weight})


def test_how_many_images_are_replayed(first_task):
    task, x = stream()[1], torch.zeros(8, *SHAPE)
    old, draw = frozen(first_task.net), Generator(SHAPE, 8, (8, 8, 4)).draw
    assert len(replay(config(), task, x, old, draw)[0]) == 8
    assert len(replay(config(ratio=3.0), task, x, old, draw)[0]) == 24
    assert len(replay(config(generated=5), task, x, old, draw)[0]) == 5
    made, soft = replay(config(nkd=False), task, x, old, draw)
    assert len(soft) == len(made) == 8
    made, soft = replay(config(balance=True), task, x, old, draw)
    counts = torch.bincount(soft[: len(made)].argmax(1), minlength=2)
    assert counts.max() <= 4 and len(soft) == len(made) + 8
    assert torch.allclose(soft[: len(made)], old(made), atol=1e-5)


def test_the_rate_falls_as_a_cosine(monkeypatch):
    rates, step = [], torch.optim.SGD.step

    def noted(self, *args):
        rates.append(self.param_groups[0]["lr"])
        return step(self, *args)

    monkeypatch.setattr(torch.optim.SGD, "step", noted)
    learned(2, base_lr=0.1, base_epochs=4, lr=0.02, epochs=40, g_steps=1)
    base, later = rates[:12], rates[12:]
    assert len(later) == 40 * 3 and base[0] == 0.1 and later[0] == 0.02
    assert base[6] == pytest.approx(0.05) and later[60] == pytest.approx(0.01) and later[-1] < 1e-5
    assert later == sorted(later, reverse=True)


# ---- LwF is what is left without generated images


def go(learner, settings, **options):
    return run(learner, settings, stream(), seed=1, threads=1, progress=False, **options)


def test_without_generated_images_it_is_lwf():
    one, result = go(MFGR, config(gkd=False), record="loss")
    other, expected = go(lwf_local.LocalLwF, lwf_local.Config(**CLASSIFIER), record="loss")
    assert all(
        torch.equal(a, b) for a, b in zip(one.net.state_dict().values(), other.net.state_dict().values())
    )
    assert np.array_equal(result.predictions, expected.predictions)
    assert np.array_equal(result.trace["loss"]["nkd"], expected.trace["loss"]["nkd"])
    assert result.trace["loss"]["nkd"][-1] > 0
    third, _ = go(MFGR, config())
    assert not torch.equal(third.net.stem.weight, other.net.stem.weight), "generated images make a difference"


def test_the_first_task_is_the_same_with_every_setting():
    first = [learned(1, **s).net for s in ({}, {"gkd": False}, {"nkd": False, "statistics": 0.0, "lr": 0.2})]
    assert all(same(net, first[0].state_dict()) for net in first[1:])
    assert not same(learned(1, base_lr=0.01).net, first[0].state_dict())


# ---- a whole run


def test_a_run_and_its_tables():
    learner, result = go(MFGR, config(), record="*")
    assert result.trace.keys() == learner.tables.keys()
    recording_, loss = result.trace["recording"], result.trace["loss"]
    assert sorted(set(recording_["task"])) == [1, 2] and recording_["step"].tolist() == list(range(6)) * 2
    assert (recording_["counts"].sum(1) == 16).all() and (recording_["loss"] > 0).any()
    first = loss["task"] == 0
    assert not loss["counts"][first].any() and not loss["gkd"][first].any()
    drawn = {1: (24, 2), 2: (48, 4)}  # images an epoch, old classes: 1:1 for each class
    for task, (n, old) in drawn.items():
        counts = loss["counts"][loss["task"] == task]
        assert (counts.sum(1) == n).all() and not counts[:, old:].any()
    head = 2 * (64 + 1) * 4 + 8  # rows of two classes, and their number
    assert set(result.memory_bytes) == {"weights"}
    assert set(np.diff(result.memory_bytes["weights"])) == {head}, "neither images nor generators are kept"
    assert learner.net.head.weight.shape == (6, 64) and learner.ends.tolist() == [2, 4, 6]


def test_at_most_some_rows_are_recorded(first_task, monkeypatch):
    monkeypatch.setattr(recording, "ROWS", 4)
    monkeypatch.setattr(recording, "GRIDS", 2)
    trace = Trace(("recording", "images"), progress=False)
    recorded(first_task, 21, trace)
    steps = {table: rows["step"].tolist() for table, rows in trace.end().items()}
    assert steps == {"recording": [0, 5, 10, 15, 20], "images": [0, 10, 20]}


@pytest.mark.parametrize("phase, done", [("knowledge recording", 3), ("knowledge inheritance", 1)])
def test_a_run_that_is_killed_inside_a_stage_goes_on(phase, done, tmp_path, monkeypatch):
    """In the third task; resumed, it equals a run that was not disturbed, traces included."""
    whole, expected = go(MFGR, config(), record="*", folder=tmp_path / "whole")
    boundary = Trace._boundary

    def stopping(self, where, n, objects):
        if (self.task, where, n) == (2, phase, done):
            self.stop = True
        return boundary(self, where, n, objects)

    with monkeypatch.context() as patch:
        patch.setattr(Trace, "_boundary", stopping)
        with pytest.raises(Stopped, match=phase):
            go(MFGR, config(), record="*", folder=tmp_path / "killed")
    learner, result = go(MFGR, config(), record="*", folder=tmp_path / "killed")
    assert same(learner, whole.state_dict())
    assert np.array_equal(result.predictions, expected.predictions)
    for table, columns in expected.trace.items():
        for name, values in columns.items():
            found = result.trace[table][name]
            pairs = zip(values, found) if isinstance(values, list) else [(values, found)]
            assert all(np.array_equal(a, b, equal_nan=a.dtype.kind == "f") for a, b in pairs), (table, name)


def test_bf16_is_close_and_statistics_stay_in_fp32(first_task):
    old = frozen(first_task.net)
    torch.manual_seed(0)
    generator, found = Generator(SHAPE, 8, (8, 8, 4)), {}
    for precision in ("fp32", "bf16"):
        torch.manual_seed(1)
        with Statistics(old) as statistics:
            x, features, logits = recording.drawn(config(precision=precision), generator, old, 32)
            found[precision] = statistics.gaps()
        assert x.dtype == features.dtype == logits.dtype == found[precision].dtype == torch.float32
    torch.testing.assert_close(found["bf16"], found["fp32"], rtol=0.1, atol=0.05)
    assert not torch.equal(found["bf16"], found["fp32"])
    learned(2, g_steps=2, precision="bf16")


# ---- recall


def test_recall_gives_images_and_the_class_that_the_old_network_sees():
    learner = learned(2)
    x, y = learner.recall(40)
    assert x.shape == (40, *SHAPE) and 0 <= x.min() and x.max() <= 1 and not x.requires_grad
    assert set(y.tolist()) <= {0, 1}
    most = int(torch.bincount(y).argmax())
    assert set(learner.recall(5, most)[1].tolist()) == {most}
    twin = MFGR(config(), SHAPE, 6)
    twin.restore(learner.snapshot())
    with pytest.raises(LearnerError, match="no generator to recall images from"):
        twin.recall(3)
    with pytest.raises(LearnerError, match="0 are of class 5, fewer than 3"):
        learner.recall(3, 5)


def test_before_there_are_old_classes_nothing_can_be_recalled(first_task):
    with pytest.raises(LearnerError, match="trained before each task but the first"):
        first_task.recall(3)


# ---- settings that cannot work


@pytest.mark.parametrize(
    "wrong, says",
    [
        ({"temperature": 0.0}, "temperature must be a finite number above 0"),
        ({"ratio": 0.0}, "ratio must be a finite number above 0"),
        ({"ratio": -1.0}, "ratio must be"),
        ({"g_batch": 100, "n_pairs": 51}, "no two halves for 51 pairs: use n_pairs=50 or fewer"),
        ({"g_batch": 100, "n_pairs": 200}, "no two halves for 200 pairs"),
        ({"precision": "fp16"}, "precision must be 'fp32' or 'bf16'"),
        ({"g_steps": 0}, "g_steps"),
        ({"g_maps": ()}, "g_maps"),
        ({"g_maps": (8, 8, 8, 8, 8)}, "4 doublings cannot draw 8x8 pixels"),
    ],
)
def test_settings_that_cannot_work(wrong, says):
    with pytest.raises(LearnerError, match=says):
        MFGR(config(**wrong), SHAPE, 6)


def test_pairs_are_no_matter_without_l_div():
    MFGR(config(g_batch=100, n_pairs=200, diversity=0.0), SHAPE, 6)


def test_a_network_without_batch_normalisation_is_refused():
    with pytest.raises(LearnerError, match="convnet has no batch normalisation.*such as resnet18"):
        MFGR(config(net="convnet"), SHAPE, 6)
    MFGR(config(net="convnet", gkd=False), SHAPE, 6)


def test_images_that_do_not_fit_are_refused():
    with pytest.raises(LearnerError, match="2 doublings cannot draw 6x6 pixels"):
        MFGR(config(), (1, 6, 6), 6)
    with pytest.raises(ClkitError, match="mean and std must have one number, or one for each channel"):
        MFGR(config(mean=(0.5, 0.5), std=(1.0, 1.0)), (3, 8, 8), 6)


def test_a_generator_without_any_loss_is_refused():
    nothing = {"one_hot": 0.0, "class_diversity": 0.0, "statistics": 0.0, "diversity": 0.0}
    assert config(**{**nothing, "diversity": 0.1})
    with pytest.raises(LearnerError, match="all losses of the generator have weight 0.*one_hot=1"):
        config(**nothing)
