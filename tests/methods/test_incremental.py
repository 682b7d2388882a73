"""What the class-incremental methods have in common: they resume exactly and wait for no value in a step."""

import pytest
import torch

from clkit.engine.seeding import seed_everything
from clkit.engine.trace import Trace, copied
from clkit.methods.baselines import fecam, fetril, heads, icarl_ce, lucir
from tests.fakes import small_stream
from tests.modes import DeviceFactories, HostSyncs
from tests.reference.nets import small_nets  # noqa: F401  a fixture

SMALL = {"net": "norm", "mean": (0.0,), "std": (1.0,), "augment": "flip", "batch_size": 16, "epochs": 3}
METHODS = {
    "fetril": (fetril.FeTrIL, fetril.Config, {"head_epochs": 3}),
    "fecam": (fecam.FeCAM, fecam.Config, {}),
    "fecam-common": (fecam.FeCAM, fecam.Config, {"covariance": "common"}),
    "lucir": (lucir.LUCIR, lucir.Config, {"milestones": (1, 2), "per_class": 4}),
    "icarl-nme": (
        icarl_ce.ICaRLCE,
        icarl_ce.Config,
        {"milestones": (1, 2), "per_class": 4, "classifier": "mean"},
    ),
    "lwf-max": (heads.Heads, heads.Config, {"milestones": (1,)}),
    "ewc-max": (heads.Heads, heads.Config, {"hold": "fisher", "strength": 100.0}),
    "mas-max": (heads.Heads, heads.Config, {"hold": "mas"}),
}
LOOPS = {"fecam": 0, "fecam-common": 0}  # epochs of the second task, if not 3


def build(name, **settings):
    seed_everything(0)
    cls, config, own = METHODS[name]
    return cls(config(**SMALL | own | settings), (1, 6, 6), 6)


def learnt(name, task, state=None, start=None):
    """(learner after this task, states that its trace saved, state before the task)."""
    learner, stream, saved = build(name), small_stream(), []
    if start is None:
        for t in range(task):
            learner.learn(stream[t], Trace())
        start = learner.snapshot()
    else:
        learner.restore(start)
    trace = Trace(save=lambda s: saved.append(copied(s)), every=0.0, progress=False)
    trace.begin(learner, task, state=state)
    seed_everything(5)
    learner.learn(stream[task], trace)
    trace.end()
    return learner, saved, start


@pytest.mark.parametrize("task", [0, 1])
@pytest.mark.parametrize("name", METHODS)
def test_a_stopped_task_resumes_exactly(name, task):
    whole, saved, start = learnt(name, task)
    assert len(saved) == (LOOPS.get(name, 3) if task else 3)
    expected = whole.state_dict()
    for state in saved:
        again = learnt(name, task, state, start)[0].state_dict()
        assert again.keys() == expected.keys()
        assert all(torch.equal(v, expected[k]) for k, v in again.items())


@pytest.mark.parametrize("name", METHODS)
def test_steps_wait_for_no_value_and_make_tensors_on_their_device(name):
    """As many values are transferred to the host with one batch per epoch as with four."""
    counts = []
    for size in (12, 80):
        learner, stream = build(name, batch_size=size), small_stream()
        with HostSyncs() as syncs, DeviceFactories() as factories:
            for t in range(2):
                learner.learn(stream[t], Trace())
        counts.append(syncs.total)
        assert factories.found == []
    assert counts[0] == counts[1]
