"""An iteration of DGM beside the obvious implementation, in double precision, with the same draws."""

import pytest
import torch

from clkit.data.images import ImageSet
from clkit.data.stream import Task
from clkit.engine.seeding import seed_everything
from clkit.engine.trace import Trace
from clkit.methods.dgm.dgm import DGM, Config
from tests.reference.dgm import Reference

SHAPE, CLASSES, B = (1, 16, 16), 4, 6
SMALL = Config(nz=12, g_width=2, d_width=4, epochs=2, batch_size=B, s_max=1e4)


@pytest.fixture(autouse=True)
def double_precision():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def grown(tasks):
    """A learner after some tasks, in each of which half of the masks are on."""
    seed_everything(5, 0)
    learner = DGM(SMALL, SHAPE, CLASSES)
    images = ImageSet(torch.zeros(1, *SHAPE, dtype=torch.uint8), torch.zeros(1, dtype=torch.long), "abcd")
    for k in range(tasks):
        generator = learner.generator
        generator.begin()
        with torch.no_grad():
            for l, e in enumerate(generator.logits):
                e.normal_()
                getattr(generator, f"beta{l}").normal_()
                getattr(generator, f"mean{l}").normal_()
        trace = Trace(progress=False)
        trace.begin(learner, k)
        learner.finish(Task(k, k, k + 1, images), trace)
    return learner


def both(tasks):
    """A learner and the reference at the start of the next task, with equal values; their optimisers."""
    learner = grown(tasks)
    theirs = Reference(learner, tasks)
    trained = learner.generator.begin()
    learner.critic.grow(tasks + 1, anew=True)
    adam = {"lr": SMALL.lr, "betas": (0.5, 0.999)}
    with torch.no_grad():
        theirs.D.load_state_dict(learner.critic.state_dict())
        theirs.G.heads[tasks].copy_(learner.generator.head)
        for l, e in enumerate(learner.generator.logits):
            e.normal_(0, 0.1)
            theirs.G.tables[l].weight[tasks] = e.flatten()
    return (
        learner,
        theirs,
        torch.optim.Adam(trained, **adam),
        torch.optim.Adam(learner.critic.parameters(), **adam),
    )


def close(a, b):
    torch.testing.assert_close(a, b, rtol=1e-7, atol=1e-10)


@pytest.mark.parametrize("tasks", [0, 2])
def test_iterations_have_the_same_losses_gradients_and_statistics(tasks):
    learner, theirs, adam_g, adam_d = both(tasks)
    x, y = torch.rand(B, *SHAPE) * 2 - 1, torch.full((B,), tasks)
    old = [(torch.rand(B, *SHAPE) * 2 - 1, torch.full((B,), k)) for k in range(tasks)]
    for s, scale in ((0.5, 3.0), (2.0, 9.0)):
        seed_everything(7, 0)
        theirs.iteration(x, y, old, s, scale)
        seed_everything(7, 0)
        order = torch.randperm(B * (tasks + 1))
        pool = [torch.cat(part)[order] for part in zip((x, y), *old)]
        gates = learner.gates(s)
        loss = learner.classify(adam_d, *pool, B)
        found = [loss, *learner.criticise(adam_d, x, y, gates), *learner.generate(adam_g, y, gates, s, scale)]
        for value, (name, other) in zip(found, theirs.log[-1].items(), strict=False):
            assert value.item() == pytest.approx(other, rel=1e-8), name
    generator, other = learner.generator, theirs.G
    for l in range(3):
        close(generator.weights[l].grad, other.weights[l].grad)
        close(generator.logits[l].grad.flatten(), other.tables[l].weight.grad[tasks])
        close(generator.weights[l], other.weights[l])
        close(getattr(generator, f"mean{l}"), other.norms[tasks][l].running_mean)
        close(getattr(generator, f"gamma{l}").grad, other.norms[tasks][l].weight.grad)
    close(generator.head.grad, other.heads[tasks].grad)
    assert generator.weights[1].grad.abs().max() > 0 and theirs.log[0] != theirs.log[1]
    ours, others = learner.critic.state_dict(), theirs.D.state_dict()
    for name in ours.keys() - {"norms.0.num_batches_tracked", "norms.1.num_batches_tracked"}:
        close(ours[name], others[name])
    assert ours.keys() == others.keys()


def test_old_images_are_the_same_from_full_widths():
    learner = grown(3)
    theirs = Reference(learner, 3)
    for k in range(3):
        labels = torch.full((5,), k)
        seed_everything(2, 0)
        images, _ = theirs.replay(labels, k)
        seed_everything(2, 0)
        close(images, learner.generator.replay(learner.noise(labels), k))
        assert images.std() > 1e-3
    assert learner.generator.size[0] > learner.generator.size[1]


def test_another_draw_gives_other_losses():
    """The control of the first test."""
    _, theirs, *_ = both(1)
    x, y = torch.rand(B, *SHAPE) * 2 - 1, torch.ones(B, dtype=torch.long)
    theirs.iteration(x, y, [(x, y * 0)], 0.5, 3.0)
    _, again, *_ = both(1)
    again.iteration(x, y, [(x, y * 0)], 0.5, 3.0)
    values = zip(theirs.log[0].values(), again.log[0].values())
    assert not all(a == pytest.approx(b, rel=1e-8) for a, b in values)
