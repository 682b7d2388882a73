"""Deep generative replay: the autoencoder against closed forms, a step by hand, the frozen copies."""

import copy

import numpy as np
import pytest
import torch

from clkit.blocks.nets import MLP
from clkit.engine.learner import LearnerError
from clkit.engine.run import run
from clkit.engine.seeding import seed_everything
from clkit.engine.trace import Trace
from clkit.methods.baselines import dgr, finetune
from clkit.methods.baselines.dgr import DGR, Config
from tests.fakes import small_stream
from tests.reference.nets import same
from tests.reference.vae import vae_terms

SHAPE, CLASSES = (1, 6, 6), 6
SMALL = {"latent": 3, "hidden": (12, 8), "replay_size": 10, "batch_size": 16, "epochs": 2}


def go(learner=DGR, seed=4, **settings):
    config = Config(**SMALL | settings) if learner is not finetune.Finetune else finetune.Config(**settings)
    return run(learner, config, small_stream(), seed=seed, record="*", threads=1, progress=False)


def images(n, shape=SHAPE, seed=0):
    return torch.rand(n, *shape, generator=torch.Generator("cpu").manual_seed(seed), device="cpu")


def plain_sgd(monkeypatch):
    """Adam's first step is the sign of the gradient: it hides the size and depends on the last digit."""
    monkeypatch.setattr(torch.optim, "Adam", lambda p, lr, fused: torch.optim.SGD(p, lr))


# ---- the autoencoder


def test_the_size_of_the_usual_generator():
    """The protocol's code has 1,073,694 parameters: it counts an untrained output layer for classes."""
    learner = DGR(Config(), (1, 28, 28), 10)
    size = sum(p.numel() for p in learner.generator.parameters())
    assert size == 1_069_684 == 1_073_694 - (400 * 10 + 10)
    assert sum(p.numel() for p in learner.parameters()) == 478_410 + size


# ---- a step


def test_a_step_against_two_passes_and_two_optimizers(monkeypatch):
    """The third task in one step: new and replayed images weigh 1/3 and 2/3, in both networks."""
    plain_sgd(monkeypatch)
    task = small_stream()[2]
    seed_everything(0)
    learner = DGR(Config(**SMALL | {"batch_size": 64, "epochs": 1, "lr": 0.5}), SHAPE, CLASSES)
    solver, vae = copy.deepcopy(learner.net), copy.deepcopy(learner.generator)

    torch.manual_seed(7)
    order = torch.randperm(48, device="cpu")
    x, y = task.train.images[order] / 255, task.train.labels[order]
    x_old = vae.sample(10).detach()
    y_old = solver(x_old)[:, :4].argmax(1)
    noise = torch.randn(58, 3, device="cpu")
    new, old = (
        -torch.log_softmax(solver(a)[:, :6], 1)[range(len(b)), b].mean() for a, b in ((x, y), (x_old, y_old))
    )
    both = [sum(vae_terms(vae, a, n)).mean() / 36 for a, n in ((x, noise[:48]), (x_old, noise[48:]))]
    for net, loss in ((solver, new / 3 + old * 2 / 3), (vae, both[0] / 3 + both[1] * 2 / 3)):
        optimizer = torch.optim.SGD(net.parameters(), 0.5)
        loss.backward()
        optimizer.step()

    trace = Trace(record="*")
    trace.begin(learner, 2)
    torch.manual_seed(7)
    learner.learn(task, trace)
    for mine, theirs in ((learner.net, solver), (learner.generator, vae)):
        torch.testing.assert_close(mine.state_dict(), theirs.state_dict())
    row = {name: rows[0] for name, rows in trace.end()["loss"].items()}
    expected = {
        "loss": new / 3 + old * 2 / 3,
        "new": new,
        "replayed": old,
        "generator": both[0] / 3 + both[1] * 2 / 3,
    }
    expected = {name: value.item() for name, value in expected.items()} | {"task": 2, "epoch": 0}
    assert row == pytest.approx(expected, rel=1e-5)


def test_the_first_task_has_only_new_images(monkeypatch):
    monkeypatch.setattr(DGR, "replayed", None)
    _, result = run(DGR, Config(**SMALL), small_stream(sizes=(6,)), record="*", threads=1, progress=False)
    rows = result.trace["loss"]
    assert np.array_equal(rows["loss"], rows["new"]) and not rows["replayed"].any()
    assert (rows["generator"] > 0).all()


def test_labels_are_the_old_solver_s_best_among_old_classes():
    learner = DGR(Config(**SMALL), SHAPE, CLASSES)
    logits = torch.zeros(10, CLASSES, device="cpu")
    logits[:, 5] = 9  # a new class, which is not asked
    logits[range(10), [0, 1, 2, 3, 0, 1, 2, 3, 3, 3]] = 1

    class Still:
        def sample(self, n):
            return images(n)

    x, y = learner.replayed(Still(), lambda x: logits, 4)
    assert torch.equal(x, images(10)) and y.tolist() == [0, 1, 2, 3, 0, 1, 2, 3, 3, 3]


def test_images_and_labels_come_from_before_the_task():
    """Every step replays with the generator and solver from the start of the task, while the learner's own
    change."""

    class Spy(DGR):
        def learn(self, task, trace):
            self.start, self.calls = [copy.deepcopy(self.generator), copy.deepcopy(self.net)], 0
            super().learn(task, trace)
            assert self.calls == (6 if task.first else 0)  # 48 images, 3 steps an epoch

        def replayed(self, generator, solver, known):
            assert all(same(a, b) for a, b in zip((generator, solver), self.start, strict=True))
            assert not any(p.requires_grad for p in (*generator.parameters(), *solver.parameters()))
            moved = not (same(self.generator, self.start[0]) or same(self.net, self.start[1]))
            assert moved == (self.calls > 0)
            self.calls += 1
            return super().replayed(generator, solver, known)

    go(Spy)


# ---- beside finetuning


def test_without_replay_it_is_finetuning():
    mine, a = go(replay_size=0)
    plain, b = go(finetune.Finetune, batch_size=16, epochs=2)
    assert np.array_equal(a.predictions, b.predictions) and np.array_equal(a.rank, b.rank)
    assert same(mine, plain), "the same weights, and no generator among them"
    assert not a.trace["loss"]["generator"].any() and "generators" not in a.memory_bytes


def test_the_generator_does_not_touch_the_solver_but_replay_does():
    """In the first epoch of the first task, the order of images does not depend on the generator."""
    stream, settings = small_stream(), {"batch_size": 16, "epochs": 1}
    seed_everything(1)
    mine = DGR(Config(**SMALL | settings), SHAPE, CLASSES)
    plain = finetune.Finetune(finetune.Config(**settings), SHAPE, CLASSES)
    plain.load_state_dict({k: v for k, v in mine.state_dict().items() if k.startswith("net.")})
    for task, expected in ((stream[0], True), (stream[1], False)):
        for learner in (mine, plain):
            seed_everything(1, task.index)
            learner.learn(task, Trace())
        assert same(mine.net, plain.net) == expected


def test_replay_keeps_old_classes():
    replayed, forgotten = (
        go(epochs=40, **settings)[1]
        for settings in ({"hidden": (100,), "latent": 4, "replay_size": 48}, {"replay_size": 0})
    )
    old = np.isin(replayed.labels, [0, 1, 2, 3])
    score = [(r.predictions[-1] == r.labels)[old].mean() for r in (replayed, forgotten)]
    assert score[0] > score[1] + 0.3


# ---- recall and memory


@pytest.fixture(scope="module")
def learned():
    return go()


def test_recall(learned):
    learner, _ = learned
    state = copy.deepcopy(learner.state_dict())
    torch.manual_seed(3)
    x, y = learner.recall(9)
    assert x.shape == (9, *SHAPE) and 0 <= x.min() and x.max() <= 1 and y.shape == (9,)
    assert not x.requires_grad and torch.equal(y, learner(x)[:, :6].argmax(1))
    assert not torch.equal(x, learner.recall(9)[0]), "each call draws anew"
    torch.manual_seed(3)
    assert torch.equal(x, learner.recall(9)[0])
    assert all(torch.equal(v, state[k]) for k, v in learner.state_dict().items())


def test_recalled_labels_are_of_classes_seen():
    learner = DGR(Config(**SMALL), SHAPE, CLASSES)
    learner.learn(small_stream()[0], Trace())
    with torch.no_grad():
        learner.net.head.bias[5] = 100
    assert learner.recall(20)[1].max() < 2


def test_recall_leaves_batch_normalisation_alone():
    learner = DGR(Config(**SMALL | {"net": "resnet18"}), SHAPE, CLASSES)
    learner.seen.fill_(2)
    before = learner.net.bn.running_mean.clone()
    learner.recall(4)
    assert learner.net.training and torch.equal(learner.net.bn.running_mean, before)


def test_nothing_to_recall():
    with pytest.raises(LearnerError, match="recall"):
        DGR(Config(**SMALL), SHAPE, CLASSES).recall(3)
    learner, _ = go(replay_size=0, epochs=1)
    with pytest.raises(LearnerError, match="replay_size=0"):
        learner.recall(3)


def test_what_it_keeps(learned):
    learner, result = learned
    assert set(result.trace["loss"]) == {"task", "epoch", "loss", "new", "replayed", "generator"}
    size = 4 * sum(p.numel() for p in learner.generator.parameters())
    solver = 4 * sum(p.numel() for p in MLP(SHAPE, CLASSES).parameters())
    assert learner.memory_bytes() == {"weights": solver + 8, "generators": size} and not learner.stores_images


@pytest.mark.parametrize(
    "wrong",
    [{"epochs": 0}, {"batch_size": 0}, {"lr": 0.0}, {"replay_size": -1}, {"latent": 0}, {"hidden": (400, 0)}],
)
def test_settings_that_cannot_work(wrong):
    with pytest.raises(LearnerError, match=next(iter(wrong))):
        dgr.Config(**wrong)
