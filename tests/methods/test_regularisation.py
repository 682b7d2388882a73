"""EWC, SI and MAS against loops with stored copies, closed forms, autograd and Finetune."""

from types import SimpleNamespace

import pytest
import torch
from torch.nn import functional as F
from torch.nn.utils import parameters_to_vector as vector

from clkit.blocks import nets
from clkit.blocks.functional import sum_over_images_mlp
from clkit.blocks.quadratic import QuadraticPenalty, split_like
from clkit.engine.learner import LearnerError
from clkit.engine.run import run
from clkit.engine.seeding import seed_everything
from clkit.engine.trace import Trace, copied
from clkit.methods.baselines import ewc, finetune, mas, si
from tests.fakes import small_stream
from tests.modes import DeviceFactories, HostSyncs
from tests.reference.nets import Doubles, gradient_of, small_nets  # noqa: F401  a fixture

VARIANTS = {
    "ewc": (ewc.EWC, ewc.Config, {"strength": 1e5}),
    "ewc-online": (ewc.EWC, ewc.Config, {"strength": 1e5, "online": True}),
    "si": (si.SI, si.Config, {"strength": 20.0}),
    "mas": (mas.MAS, mas.Config, {"strength": 20.0}),
    "mas-per-image": (mas.MAS, mas.Config, {"strength": 20.0, "per_image": True}),
}


def task_of(n=40, first=0, seen=3, classes=4, side=4, seed=0):
    """A task of noise images with the classes [first, seen), in double precision."""
    draw = torch.Generator("cpu").manual_seed(seed)
    images = torch.randint(0, 256, (n, 1, side, side), generator=draw, dtype=torch.uint8, device="cpu")
    labels = torch.randint(first, seen, (n,), generator=draw, device="cpu")
    return SimpleNamespace(
        index=min(first, 1),
        first=first,
        seen=seen,
        train=Doubles(images, labels, [str(k) for k in range(classes)]),
    )


def tasks_of():
    return [task_of(n=21, first=first, seen=first + 2, classes=6, seed=first) for first in (0, 2, 4)]


def made(name="ewc", net="tiny", classes=4, seed=0, **settings):
    """A learner in double precision. A network with batch norm has seen images, so its statistics count."""
    cls, config, usual = VARIANTS[name]
    seed_everything(seed)
    learner = cls(config(net=net, **usual | settings), (1, 4, 4), classes).double()
    for _ in range(3):
        learner.net(torch.rand(8, 1, 4, 4, dtype=torch.float64, device="cpu"))
    return learner


def every(task):
    return next(iter(task.train.batches(len(task.train), shuffle=False)))


# ---- EWC: the Fisher information


def slow_fisher(net, task, reading):
    """Image by image, by definition: squared gradients of the log-probability of a label."""
    total = 0.0
    mode = net.training
    net.eval()
    for x, y in zip(*every(task)):
        log_p = F.log_softmax(net(x[None])[0, : task.seen], 0)
        if reading == "expected":
            total += sum(
                log_p[k].exp().detach() * gradient_of(net, log_p[k]).square() for k in range(task.seen)
            )
        else:
            total += gradient_of(net, log_p[log_p.argmax() if reading == "predicted" else y]).square()
    net.train(mode)
    return total / len(task.train)


@pytest.mark.parametrize("reading", ["predicted", "expected", "label"])
@pytest.mark.parametrize("net", ["tiny", "linear", "conv", "norm"])
def test_fisher_is_the_mean_square_over_single_images(net, reading):
    learner, task = made(net=net, fisher=reading), task_of()
    expected = slow_fisher(learner.net, task, reading)
    assert expected.max() > 0
    torch.testing.assert_close(learner.fisher(task), expected, rtol=1e-9, atol=1e-15)


def test_the_readings_of_the_label_differ():
    task = task_of()
    a, b, c = (made(fisher=reading).fisher(task) for reading in ("predicted", "expected", "label"))
    assert not torch.allclose(a, b) and not torch.allclose(a, c) and not torch.allclose(b, c)


def test_expected_fisher_of_softmax_regression_in_closed_form():
    learner, task = made(net="linear", fisher="expected"), task_of(seen=4)
    x = every(task)[0]
    p = learner.net(x).softmax(1).detach()
    spread = p * (1 - p)
    expected = torch.cat([(spread.T @ x.flatten(1).square()).flatten(), spread.sum(0)]) / len(x)
    torch.testing.assert_close(learner.fisher(task), expected)


def test_expected_fisher_is_the_mean_over_labels_drawn_from_the_network():
    learner, task = made(fisher="expected"), task_of()
    (x, y), drawn = every(task), made(fisher="label")
    p = learner.net(x)[:, :3].softmax(1).detach()
    total = torch.zeros_like(learner.importance)
    for k in range(3):  # all labels of an image, each with its probability
        for i in range(len(x)):
            error = drawn.errors(learner.net(x[i : i + 1])[:, :3].detach(), torch.full_like(y[i : i + 1], k))[
                0
            ]
            total += p[i, k] * sum_over_images_mlp(
                torch.square, learner.net, x[i : i + 1], F.pad(error, (0, 1))
            )
    torch.testing.assert_close(learner.fisher(task), total / len(x))


@pytest.mark.parametrize("net", ["tiny", "norm"])
def test_measuring_importance_leaves_the_network_and_the_random_state_alone(net):
    task = task_of()
    for learner, measure in ((made(net=net), "fisher"), (made("mas-per-image", net=net), "sensitivity")):
        before = {k: v.clone() for k, v in learner.net.state_dict().items()}
        state = torch.get_rng_state()
        getattr(learner, measure)(task)
        assert torch.equal(torch.get_rng_state(), state)
        assert learner.training and all(m.training for m in learner.modules())
        assert all(torch.equal(v, before[k]) for k, v in learner.net.state_dict().items())


def test_fisher_of_some_images_is_that_of_a_random_part():
    learner, task = made(fisher_images=7).float(), task_of()
    part = task_of()
    torch.manual_seed(3)
    found = learner.fisher(task)
    torch.manual_seed(3)
    pick = torch.randperm(len(task.train), device="cpu")[:7]
    part.train = Doubles(task.train.images[pick], task.train.labels[pick], task.train.names)
    torch.testing.assert_close(found, made().fisher(part).float(), rtol=1e-3, atol=1e-9)
    assert task.train.n_samples == 7
    torch.testing.assert_close(
        made(fisher_images=99).float().fisher(task), made().fisher(task).float(), rtol=1e-3, atol=1e-9
    )


def test_labels_matter_to_the_empirical_fisher_only():
    task, other = task_of(), task_of()
    other.train.labels = (other.train.labels + 1) % 3
    for reading, same in (("predicted", True), ("expected", True), ("label", False)):
        learner = made(fisher=reading)
        assert torch.equal(learner.fisher(task), learner.fisher(other)) == same


# ---- EWC: the penalty of many tasks


def moved(learner, seed):
    """Give it random weights; returns them and importances of all sizes, some 0: (P,) each."""
    draw = torch.Generator("cpu").manual_seed(seed)
    size = len(learner.importance)
    theta = torch.randn(size, generator=draw, dtype=torch.float64, device="cpu").to(learner.importance)
    fisher = torch.rand(size, generator=draw, dtype=torch.float64, device="cpu").pow(12)
    torch.nn.utils.vector_to_parameters(theta, learner.net.parameters())
    fisher[seed::5] = 0  # zero in this task
    fisher[:3] = 0  # zero in all
    return theta, fisher


def penalty_of(learner):
    """The value that the penalty has and the gradient (P,) that it adds to one of ones."""
    for p in learner.net.parameters():
        p.grad = torch.ones_like(p)
    quadratic, factor = learner.penalty()
    return quadratic.add_gradient(factor), torch.cat([p.grad.flatten() for p in learner.net.parameters()]) - 1


def test_one_quadratic_is_the_sum_over_tasks():
    learner, pairs = made(strength=3.0), []
    for seed in range(4):
        theta, fisher = moved(learner, seed)
        learner.consolidate(fisher)
        pairs.append((theta, fisher))
    theta, _ = moved(learner, 9)
    value, gradient = penalty_of(learner)
    torch.testing.assert_close(value, 1.5 * sum(f @ (theta - old).square() for old, f in pairs))
    torch.testing.assert_close(
        gradient, 3.0 * sum(f * (theta - old) for old, f in pairs), rtol=1e-9, atol=1e-12
    )


def test_online_importance_and_penalty_by_hand():
    learner, gamma = made("ewc-online", strength=3.0, gamma=0.6), 0.6
    fishers = []
    for seed in range(3):
        theta, fisher = moved(learner, seed)
        learner.consolidate(fisher)
        fishers.append(fisher)
    importance = fishers[2] + gamma * (fishers[1] + gamma * fishers[0])
    torch.testing.assert_close(learner.importance, importance)
    quadratic, factor = learner.penalty()  # centre: the weights of the last task
    now, _ = moved(learner, 9)
    for p in learner.net.parameters():
        p.grad = torch.zeros_like(p)
    value = quadratic.add_gradient(factor)
    torch.testing.assert_close(value, 1.5 * gamma * (importance @ (now - theta).square()))
    torch.testing.assert_close(
        torch.cat([p.grad.flatten() for p in learner.net.parameters()]),
        3.0 * gamma * importance * (now - theta),
    )


def test_a_large_strength_does_not_lose_digits():
    """In single precision, near the minimum, at strength 1e8."""
    learner = made(strength=1e8).float()
    theta, fisher = moved(learner, 0)
    learner.consolidate(fisher.float())
    value, gradient = penalty_of(learner)
    assert value == 0 and not gradient.any(), "at the weights of the only task"
    for _ in range(2):
        learner.consolidate(fisher.float())
    assert learner.rest == 0 and torch.equal(learner.centre, vector(learner.net.parameters()))
    old = vector(learner.net.parameters()).double()
    step = 1e-3 * torch.randn(len(theta), dtype=torch.float64, device="cpu")
    torch.nn.utils.vector_to_parameters((old + step).float(), learner.net.parameters())
    now = vector(learner.net.parameters()).double()
    expected = 1e8 * 3 * fisher * (now - old)
    for p in learner.net.parameters():
        p.grad = torch.zeros_like(p)
    quadratic, factor = learner.penalty()
    quadratic.add_gradient(factor)
    found = torch.cat([p.grad.flatten() for p in learner.net.parameters()]).double()
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


# ---- MAS: the importance


def slow_size(net, x, seen):
    """Absolute gradients of the squared norm, summed over images one by one."""
    return sum(gradient_of(net, net(image[None])[0, :seen].square().sum()).abs() for image in x)


@pytest.mark.parametrize("net", ["tiny", "linear", "conv", "norm"])
def test_importance_per_image_is_the_mean_absolute_gradient(net):
    learner, task = made("mas-per-image", net=net), task_of()
    found = learner.sensitivity(task)
    expected = slow_size(learner.eval().net, every(task)[0], task.seen)
    torch.testing.assert_close(found, expected / len(task.train))


@pytest.mark.parametrize("net", ["tiny", "norm"])
def test_importance_of_batches_by_hand(net):
    learner, task = made("mas", net=net, batch_size=16), task_of()
    torch.manual_seed(4)
    found = learner.sensitivity(task)
    torch.manual_seed(4)
    parts = [x for x, _ in task.train.batches(16)]
    assert [len(x) for x in parts] == [16, 16, 8]
    learner.eval()
    total = 0.0
    for x in parts:
        total += gradient_of(learner.net, learner.net(x)[:, :3].pow(2).sum() / (len(x) * 3)).abs()
    torch.testing.assert_close(found, total / 3)


def test_batches_of_one_image_are_images_but_for_the_number_of_classes():
    task = task_of()
    torch.testing.assert_close(
        made("mas", batch_size=1).sensitivity(task) * 3, made("mas-per-image").sensitivity(task)
    )


def test_importance_of_a_linear_output_in_closed_form():
    """One image x, logits s = W x + b: the gradient of ||s||^2 is 2 s x^T for W and 2 s for b."""
    learner, task = made("mas-per-image", net="linear"), task_of(n=1, seen=4)
    x = every(task)[0]
    s = learner.net(x).detach()
    expected = torch.cat([(2 * s.abs().T @ x.flatten(1)).flatten(), 2 * s.abs()[0]])
    torch.testing.assert_close(learner.sensitivity(task), expected)


# ---- SI: the path integral


@pytest.mark.parametrize("rate, steps", [(1e-3, 2000), (0.1, 30)])
def test_path_integral_of_gradient_descent_on_a_parabola(rate, steps):
    """L = a/2 (w - b)^2: a step lowers the loss by rate g^2 (1 - rate a / 2), and is credited rate g^2."""
    learner, a, b = made("si"), 2.0, 1.5
    w = torch.nn.Parameter(torch.tensor([-1.0], dtype=torch.float64, device="cpu"))
    path = torch.zeros_like(w.detach())
    before = [(torch.empty_like(path), torch.empty_like(path))]
    optimizer = torch.optim.SGD([w], lr=rate)
    first = a / 2 * (w.detach() - b).square()
    for _ in range(steps):
        optimizer.zero_grad()
        (a / 2 * (w - b).square()).sum().backward()
        learner.note([w], before)
        optimizer.step()
        learner.follow([w], before, [path])
    decrease = first - a / 2 * (w.detach() - b).square()
    torch.testing.assert_close(path, decrease / (1 - rate * a / 2))
    if rate < 0.01:
        torch.testing.assert_close(path, decrease, rtol=2e-3, atol=0)


def test_the_path_integral_leaves_the_penalty_out():
    learner = made("si", strength=1e3)
    start, importance = moved(learner, 1)
    learner.path = torch.zeros_like(start)
    learner.importance.copy_(importance)
    parameters = list(learner.net.parameters())
    penalty, path = (
        QuadraticPenalty(learner.net, learner.importance, start),
        split_like(learner.path, parameters),
    )
    before = [(torch.empty_like(p), torch.empty_like(p)) for p in parameters]
    moved(learner, 2)
    learner.net(every(task_of())[0]).square().sum().backward()
    gradient = torch.cat([p.grad.flatten() for p in learner.net.parameters()])
    old = vector(learner.net.parameters()).detach()
    learner.note(parameters, before)
    penalty.add_gradient(1e3)
    torch.optim.SGD(learner.net.parameters(), lr=0.1).step()
    learner.follow(parameters, before, path)
    torch.testing.assert_close(learner.path, -gradient * (vector(learner.net.parameters()).detach() - old))


# ---- whole trainings against a slow loop


def slow(net, tasks, config, penalty, measure):
    """Training with the penalty in autograd and a stored (importance, weights) for each finished task."""
    pairs = []
    for task in tasks:
        optimizer = torch.optim.Adam(net.parameters(), lr=config.lr)
        start = vector(net.parameters()).detach()
        omega = torch.zeros_like(start)
        for _ in range(config.epochs):
            for x, y in task.train.batches(config.batch_size):
                loss = F.cross_entropy(net(x)[:, : task.seen], y)
                gradient = gradient_of(net, loss)
                old = vector(net.parameters()).detach()
                optimizer.zero_grad()
                (loss + (penalty(vector(net.parameters()), pairs) if pairs else 0)).backward()
                optimizer.step()
                omega = omega - gradient * (vector(net.parameters()).detach() - old)
        pairs.append((measure(net, task, omega, start), vector(net.parameters()).detach()))
    return pairs


def faded(pairs, gamma):
    total = 0.0
    for importance, _ in pairs:
        total = gamma * total + importance
    return total


def slow_batches(net, task, omega, start):
    outputs = [net(x)[:, : task.seen] for x, _ in task.train.batches(8)]
    return sum(gradient_of(net, logits.square().mean()).abs() for logits in outputs) / len(outputs)


def summed(pairs):
    return sum(importance for importance, _ in pairs)


SLOW = {  # penalty, measure, importance in the end
    "ewc": (
        lambda theta, pairs: 0.5e5 * sum((f * (theta - old).square()).sum() for f, old in pairs),
        lambda net, task, *_: slow_fisher(net, task, "predicted"),
        summed,
    ),
    "ewc-online": (
        lambda theta, pairs: 0.4e5 * (faded(pairs, 0.8) * (theta - pairs[-1][1]).square()).sum(),
        lambda net, task, *_: slow_fisher(net, task, "predicted"),
        lambda pairs: faded(pairs, 0.8),
    ),
    "si": (
        lambda theta, pairs: 20 * (summed(pairs) * (theta - pairs[-1][1]).square()).sum(),
        lambda net, task, omega, start: omega / ((vector(net.parameters()).detach() - start) ** 2 + 0.1),
        summed,
    ),
    "mas": (
        lambda theta, pairs: 20 * (summed(pairs) * (theta - pairs[-1][1]).square()).sum(),
        slow_batches,
        summed,
    ),
    "mas-per-image": (
        lambda theta, pairs: 20 * (summed(pairs) * (theta - pairs[-1][1]).square()).sum(),
        lambda net, task, *_: slow_size(net, every(task)[0], task.seen) / len(task.train),
        summed,
    ),
}


@pytest.mark.parametrize("name", VARIANTS)
def test_three_tasks_against_a_slow_loop(name):
    learner, twin = (made(name, classes=6, epochs=3, batch_size=8, lr=0.01) for _ in range(2))
    torch.manual_seed(7)
    for task in tasks_of():
        learner.learn(task, Trace())
    torch.manual_seed(7)
    penalty, measure, total = SLOW[name]
    pairs = slow(twin.net, tasks_of(), twin.config, penalty, measure)
    torch.testing.assert_close(
        vector(learner.net.parameters()), vector(twin.net.parameters()), rtol=1e-6, atol=1e-8
    )
    torch.testing.assert_close(learner.importance, total(pairs), rtol=1e-6, atol=1e-10)
    assert (learner.importance != 0).any()


# ---- what the strength does


def trained(cls, config, **options):
    options = {"threads": 1, "progress": False, "seed": 3, **options}
    return run(cls, config, small_stream(), **options)


def weights(learner):
    return learner.net.state_dict()


@pytest.mark.parametrize(
    "name, net",
    [*((name, "tiny") for name in VARIANTS), ("ewc", "norm"), ("mas", "norm"), ("mas-per-image", "norm")],
)
def test_with_a_strength_of_zero_it_is_finetune(name, net):
    cls, config, usual = VARIANTS[name]
    same = {"net": net, "epochs": 2, "batch_size": 16}
    learner, result = trained(cls, config(**usual | {"strength": 0.0} | same))
    plain, expected = trained(finetune.Finetune, finetune.Config(**same))
    assert all(torch.equal(v, weights(plain)[k]) for k, v in weights(learner).items())
    assert (result.predictions == expected.predictions).all() and (result.rank == expected.rank).all()
    assert (learner.importance != 0).any(), "importance is measured all the same"


def two_tasks(name, strength, epochs):
    """(P,) each: weights after task 1 and task 2, those of Finetune after task 2, importance."""
    cls, config, usual = VARIANTS[name]
    same = {"batch_size": 4, "epochs": epochs}
    learner = cls(config(**usual | same | {"strength": strength}), (1, 6, 6), 6)
    found = []
    for one in (learner, finetune.Finetune(finetune.Config(**same), (1, 6, 6), 6)):
        seed_everything(0)
        one.net = nets.build("mlp", (1, 6, 6), 6)
        stream = small_stream()
        for t in range(2):
            seed_everything(1, t)
            one.learn(stream[t], Trace())
            found.append(vector(one.net.parameters()).detach())
            if one is learner and t == 0:
                importance = learner.importance.clone()
    assert torch.equal(found[0], found[2]), "the first task knows no penalty"
    return found[0], found[1], found[3], importance


@pytest.mark.parametrize("name", VARIANTS)
def test_the_penalty_holds_important_weights_in_the_second_task(name):
    strength = {"ewc": 1e5, "ewc-online": 1e5, "si": 1e4}.get(name, 100.0)
    first, held, free, importance = two_tasks(name, strength, epochs=1)
    assert not torch.equal(held, free)
    assert importance.abs() @ (held - first).square() < 0.8 * importance.abs() @ (free - first).square()


@pytest.mark.parametrize("name", VARIANTS)
def test_a_huge_strength_freezes_important_weights(name):
    """Adam takes steps of the size of the rate at any strength, so weights jitter in place."""
    first, held, free, importance = two_tasks(name, strength=1e12, epochs=3)
    top = importance.topk(len(importance) // 20).indices
    assert (held - first)[top].square().mean() < 0.01 * (free - first)[top].square().mean()
    assert (held - first)[top].abs().max() < 4 * 1e-3


# ---- settings, records, memory, resuming


@pytest.mark.parametrize(
    "config, wrong, word",
    [
        (config, wrong, word)
        for config in (ewc.Config, si.Config, mas.Config)
        for wrong, word in (
            ({"epochs": 0}, "epochs"),
            ({"batch_size": 0}, "batch"),
            ({"lr": 0.0}, "lr"),
            ({"lr": float("nan")}, "lr"),
            ({"strength": -1.0}, "strength"),
            ({"strength": float("nan")}, "strength"),
        )
    ]
    + [
        (ewc.Config, {"fisher": "true"}, "fisher"),
        (ewc.Config, {"fisher_images": 0}, "fisher_images"),
        (ewc.Config, {"gamma": 1.1}, "gamma"),
        (ewc.Config, {"gamma": -0.1}, "gamma"),
        (si.Config, {"damping": 0.0}, "damping"),
    ],
)
def test_settings_that_cannot_work_are_refused(config, wrong, word):
    with pytest.raises(LearnerError, match=word):
        config(**wrong)


def test_defaults_are_those_of_the_protocols():
    assert (ewc.Config().strength, ewc.Config().gamma, ewc.Config().fisher) == (1e8, 0.8, "predicted")
    assert (si.Config().strength, si.Config().damping) == (0.5, 0.1)
    assert (mas.Config().strength, mas.Config().epochs, mas.Config().per_image) == (1.0, 4, False)
    assert all(c().batch_size == 128 and c().lr == 1e-3 for c in (ewc.Config, si.Config, mas.Config))


@pytest.mark.parametrize("name", VARIANTS)
def test_bytes_kept_by_kind(name):
    cls, config, usual = VARIANTS[name]
    learner, result = trained(cls, config(**usual, net="tiny", epochs=1))
    size = 4 * sum(p.numel() for p in learner.net.parameters())
    expected = {"weights": size, "importance": size}
    if cls is ewc.EWC:
        expected |= {"importance": size + 4, "teachers": 0 if learner.config.online else size}
    assert learner.memory_bytes() == expected
    assert all((column == column[0]).all() for column in result.memory_bytes.values()), (
        "it does not grow with tasks"
    )


@pytest.mark.parametrize("name", VARIANTS)
def test_the_table_of_losses(name):
    """With one batch per epoch, the first row of a task is measured at the previous task's weights."""
    cls, config, usual = VARIANTS[name]
    _, result = trained(cls, config(**usual, net="tiny", epochs=3, batch_size=48), record="*")
    rows = result.trace["loss"]
    assert set(rows) == {"task", "epoch", "loss", "new", "penalty"} and list(rows["epoch"]) == [0, 1, 2] * 3
    assert rows["loss"] == pytest.approx(rows["new"] + rows["penalty"], rel=1e-5)
    assert (rows["penalty"][:4] == 0).all(), "nothing to hold in the first task, nothing moved in the second"
    assert (rows["penalty"][4:6] != 0).all() and (rows["penalty"][7:] != 0).all()
    assert (rows["penalty"][6] > 0) == (name == "ewc"), "the weights are not at the minimum of several tasks"
    assert rows["new"][2] < rows["new"][0]


def learnt(name, state=None, start=None):
    """(learner after the second task, states that its trace saved, state before the task)."""
    cls, config, usual = VARIANTS[name]
    seed_everything(0)
    learner, stream, saved = cls(config(**usual, net="tiny", epochs=3), (1, 6, 6), 6), small_stream(), []
    if start is None:
        learner.learn(stream[0], Trace())
        start = learner.snapshot()
    else:
        learner.restore(start)
    trace = Trace(save=lambda s: saved.append(copied(s)), every=0.0, progress=False)
    trace.begin(learner, 1, state=state)
    seed_everything(5)
    learner.learn(stream[1], trace)
    trace.end()
    return learner, saved, start


@pytest.mark.parametrize("name", VARIANTS)
def test_a_stopped_task_resumes_exactly(name):
    whole, saved, start = learnt(name)
    assert len(saved) == 3
    for state in saved:
        again, _, _ = learnt(name, state, start)
        expected = whole.state_dict()
        assert all(torch.equal(v, expected[k]) for k, v in again.state_dict().items())


@pytest.mark.parametrize("name, net", [*((name, "tiny") for name in VARIANTS), ("ewc", "norm")])
def test_steps_wait_for_no_value_and_make_tensors_on_their_device(name, net):
    """Each epoch transfers as many values to the host as in Finetune, in the first and the second task."""
    cls, config, usual = VARIANTS[name]
    stream, counts = small_stream(per_class=8), []
    for kind, settings in ((config, {**usual, "net": net}), (finetune.Config, {"net": net})):
        for epochs in (1, 3):
            learner = (cls if kind is config else finetune.Finetune)(
                kind(**settings, epochs=epochs, batch_size=16), (1, 6, 6), 6
            )
            with HostSyncs() as syncs, DeviceFactories() as factories:
                for t in range(2):
                    learner.learn(stream[t], Trace())
            counts.append(syncs.total)
            assert factories.found == []
    assert counts[1] - counts[0] == counts[3] - counts[2]
