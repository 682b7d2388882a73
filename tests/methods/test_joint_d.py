"""Joint training of D: steps by hand, and that each batch holds real images of all classes."""

import copy

import pytest
import torch

from clkit.engine.learner import LearnerError
from clkit.engine.run import run
from clkit.engine.seeding import seed_everything
from clkit.engine.trace import Trace
from clkit.errors import ClkitError
from clkit.methods.baselines import joint_d
from clkit.methods.baselines.joint_d import Config, JointD
from tests.fakes import small_stream
from tests.reference import generative

SHAPE, CLASSES, N = (1, 16, 16), 3, 8
SMALL = {"d_width": 2, "epochs": 2, "batch_size": 4}


def stream():
    return small_stream(classes=CLASSES, per_class=N, side=16, sizes=(1,) * CLASSES)


def learned(tasks=CLASSES, **settings):
    seed_everything(3, 0)
    learner = JointD(Config(**SMALL | settings), SHAPE, CLASSES)
    for task in list(stream())[:tasks]:
        seed_everything(3, 1 + task.index)
        learner.learn(task, Trace(progress=False))
    return learner


@pytest.mark.parametrize("steps", ["chunks", "pooled"])
def test_a_task_of_one_batch(monkeypatch, steps):
    learner, tasks = learned(2), list(stream())
    monkeypatch.setattr(joint_d, "adam", torch.optim.SGD)
    learner.config = Config(**SMALL | {"batch_size": N, "epochs": 1, "lr": 0.05, "steps": steps})
    D = copy.deepcopy(learner.critic)
    torch.manual_seed(7)
    D.grow(3, True)
    orders = [torch.randperm(N) for _ in range(3)]
    orders = [orders[2], *orders[:2]]  # old sets are shuffled before the new one
    sets = [tasks[2].train, tasks[0].train, tasks[1].train]
    x = torch.cat([s.images[o] for s, o in zip(sets, orders)]) / 127.5 - 1
    y = torch.cat([s.labels[o] for s, o in zip(sets, orders)])
    mixed = torch.randperm(3 * N)
    for part in mixed.split(N if steps == "chunks" else 3 * N):
        generative.descend(D, generative.entropy(generative.judged(D, x[part])[1], y[part]), 0.05)
    torch.manual_seed(7)
    learner.learn(tasks[2], Trace(progress=False))
    for (name, a), b in zip(learner.critic.named_parameters(), D.parameters()):
        torch.testing.assert_close(a, b, rtol=2e-4, atol=2e-5, msg=name)


def test_a_batch_holds_real_images_of_each_class(monkeypatch):
    seen, real = [], {bytes(x.numpy().tobytes()) for task in stream() for x in task.train.images}

    def note(critic, optimizer, x, y, size, classify=joint_d.classify):
        seen.append(torch.bincount(y, minlength=CLASSES).tolist())
        as_bytes = ((x + 1) * 127.5).round().to(torch.uint8)
        assert all(bytes(image.numpy().tobytes()) in real for image in as_bytes)
        return classify(critic, optimizer, x, y, size)

    monkeypatch.setattr(joint_d, "classify", note)
    learned()
    assert seen == [[4, 0, 0]] * 4 + [[4, 4, 0]] * 4 + [[4, 4, 4]] * 4


def test_it_learns_and_keeps_every_image():
    _, result = run(JointD, Config(**SMALL | {"epochs": 20}), stream(), threads=1, progress=False)
    assert result.average() > 0.9
    each = N * 256 + 8 * N + 8  # bytes of the images and labels of a task, and where it ends
    assert result.memory_bytes["exemplars"].tolist() == [each, 2 * each, 3 * each]


def test_the_critic_is_not_trained():
    learner = learned(1)
    seed_everything(3, 0)
    fresh = JointD(Config(**SMALL), SHAPE, CLASSES)
    seed_everything(3, 1)
    fresh.critic.grow(1, True)
    assert torch.equal(learner.critic.value.weight, fresh.critic.value.weight)


def test_images_and_settings_that_cannot_work():
    with pytest.raises(ClkitError, match="16, 24, 32"):
        JointD(Config(), (1, 28, 28), 10)
    with pytest.raises(LearnerError, match="steps"):
        Config(steps="all")
