"""CWR and CWR+: what is frozen, what is copied, and the mean-shift by hand."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from clkit.engine.learner import LearnerError
from clkit.engine.run import run
from clkit.engine.seeding import seed_everything
from clkit.engine.trace import Trace
from clkit.methods.baselines.cwr import CWR, Config
from clkit.methods.baselines.finetune import Config as FinetuneConfig
from clkit.methods.baselines.finetune import Finetune
from tests.fakes import small_stream

FEW = {"epochs": 2, "batch_size": 16}


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def stream():
    return small_stream(sizes=(2, 3, 1))


def teach(learner, config, stream, tasks, seed=4):
    """A learner after the first tasks, seeded as in `run`."""
    seed_everything(seed, 0)
    model = learner(config, stream.shape, stream.classes)
    for task in list(stream)[:tasks]:
        go_on(model, task, seed)
    return model


def go_on(model, task, seed=4):
    seed_everything(seed, 1 + task.index)
    model.train()
    model.learn(task, Trace())


def state(module):
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


def body(model):
    return {name: tensor for name, tensor in state(model.net).items() if not name.startswith("head.")}


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


# What equals Finetune, and what does not


@pytest.mark.parametrize("net", ["mlp", "resnet18"])
@pytest.mark.parametrize("softmax", ["task", "seen"])
def test_the_first_task_is_that_of_finetune(stream, net, softmax):
    ours = teach(CWR, Config(net=net, softmax=softmax, **FEW), stream, 1)
    plain = teach(Finetune, FinetuneConfig(net=net, **FEW), stream, 1)
    assert same(state(ours.net), state(plain.net))
    assert torch.equal(ours.cw[:2], plain.net.head.weight[:2])
    assert torch.equal(ours.cw_bias[:2], plain.net.head.bias[:2])
    x = stream.test.images[:9].float() / 255
    torch.testing.assert_close(ours.eval()(x)[:, :2], plain.eval()(x)[:, :2])


@pytest.mark.parametrize("other", [{"plus": True}, {"softmax": "all"}])
def test_the_first_task_differs_where_the_head_is_trained_otherwise(stream, other):
    plain = teach(Finetune, FinetuneConfig(**FEW), stream, 1)
    assert not same(body(teach(CWR, Config(**other, **FEW), stream, 1)), body(plain))


@pytest.mark.parametrize("plus", [False, True])
@pytest.mark.parametrize("net", ["mlp", "resnet18"])
def test_later_tasks_change_neither_the_body_nor_old_rows(stream, net, plus):
    """Bit for bit, including running statistics of batch normalisation; Finetune's body does change."""
    model = teach(CWR, Config(net=net, plus=plus, **FEW), stream, 1)
    still, rows = body(model), (model.cw.clone(), model.cw_bias.clone())
    assert rows[0][:2].all(1).any() and not rows[0][2:].any() and not rows[1][2:].any()
    go_on(model, stream[1])
    assert same(body(model), still)
    assert torch.equal(model.cw[:2], rows[0][:2]) and torch.equal(model.cw_bias[:2], rows[1][:2])
    assert all(row.any() for row in model.cw[2:5]) and not model.cw[5:].any()
    old = model.cw[:5].clone()
    go_on(model, stream[2])
    assert same(body(model), still) and torch.equal(model.cw[:5], old) and model.cw_bias[5:].any() != plus
    plain = teach(Finetune, FinetuneConfig(net=net, **FEW), stream, 1)
    before = body(plain)
    go_on(plain, stream[1])
    assert not same(body(plain), before)


def test_what_is_held_still_survives_a_snapshot(stream):
    model = teach(CWR, Config(net="resnet18", **FEW), stream, 2)
    learning = [name for name, p in model.net.named_parameters() if p.requires_grad]
    assert learning == ["head.weight", "head.bias"]
    assert not any(module.training for module in model.net.modules() if module is not model.net.head)
    twin = teach(CWR, Config(net="resnet18", **FEW), stream, 0)
    twin.restore(model.snapshot())
    assert [p.requires_grad for p in twin.parameters()] == [p.requires_grad for p in model.parameters()]
    assert same(state(twin), state(model))
    go_on(model, stream[2])
    go_on(twin, stream[2])
    assert same(state(twin), state(model))


# The second task against a linear classifier on features


@pytest.mark.parametrize(
    "softmax, outputs", [("task", slice(2, 5)), ("seen", slice(0, 5)), ("all", slice(0, 6))]
)
@pytest.mark.parametrize("plus", [False, True])
def test_the_second_task_trains_a_new_linear_classifier(stream, softmax, outputs, plus):
    config = Config(plus=plus, softmax=softmax, lr=0.01, **FEW)
    model, task = teach(CWR, config, stream, 1), stream[1]
    frozen = teach(CWR, config, stream, 1).eval()
    go_on(model, task)
    layer = nn.Linear(400, 6)
    seed_everything(4, 2)
    if plus:
        nn.init.zeros_(layer.weight), nn.init.zeros_(layer.bias)
    else:
        layer = nn.Linear(400, 6)
    optimizer = torch.optim.Adam(layer.parameters(), lr=0.01)
    for _ in range(config.epochs):
        for x, y in task.train.batches(config.batch_size):
            with torch.no_grad():
                features = frozen.net.features(x)
            loss = F.cross_entropy(layer(features)[:, outputs], y - outputs.start)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    weight, bias = layer.weight.detach()[2:5], layer.bias.detach()[2:5]
    if plus:
        weight, bias = weight - weight.sum() / (3 * 400), bias - bias.sum() / 3
    torch.testing.assert_close(model.cw[2:5], weight, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(model.cw_bias[2:5], bias, rtol=1e-4, atol=1e-5)


def test_the_start_of_the_temporary_weights(stream):
    for plus in (False, True):
        model = teach(CWR, Config(plus=plus, **FEW), stream, 1)
        for task in list(stream)[1:]:
            head = model.net.head
            assert head.weight.any() and head.bias.any()
            torch.manual_seed(7)
            model.begin(task)
            torch.manual_seed(7)
            fresh = nn.Linear(400, 6)
            weight, bias = (torch.zeros(6, 400), torch.zeros(6)) if plus else (fresh.weight, fresh.bias)
            assert torch.equal(head.weight, weight) and torch.equal(head.bias, bias)
            go_on(model, task)


# What is copied


def fill(model):
    """Set whole numbers as temporary weights, so that means by hand are exact."""
    head = model.net.head
    with torch.no_grad():
        head.weight.copy_(torch.arange(head.weight.numel()).view_as(head.weight) % 97 - 30)
        head.bias.copy_(torch.tensor([4.0, -2.0, 1.0, 7.0, 4.0, 9.0]))
    return head.weight.tolist(), head.bias.tolist()


def test_the_mean_shift_by_hand(stream):
    model = teach(CWR, Config(plus=True), stream, 0)
    weight, bias = fill(model)
    for task in stream:
        model.consolidate(task)
        total, count = 0.0, 0
        for j in range(task.first, task.seen):
            for value in weight[j]:
                total, count = total + value, count + 1
        mean = sum(bias[task.first : task.seen]) / (task.seen - task.first)
        for j in range(task.first, task.seen):
            expected = torch.tensor([value - total / count for value in weight[j]])
            torch.testing.assert_close(model.cw[j], expected)
            assert float(model.cw_bias[j]) == pytest.approx(bias[j] - mean)
        assert not model.cw[task.seen :].any() and not model.cw_bias[task.seen :].any()
    assert model.cw_bias.tolist() == [3.0, -3.0, -3.0, 3.0, 0.0, 0.0]


def test_the_first_task_has_a_weight_of_its_own(stream):
    model = teach(CWR, Config(first_weight=1.5), stream, 0)
    weight, bias = fill(model)
    for task in stream:
        model.consolidate(task)
    factors = [1.5, 1.5, 1, 1, 1, 1]
    assert model.cw.tolist() == [[f * value for value in row] for f, row in zip(factors, weight)]
    assert model.cw_bias.tolist() == [f * value for f, value in zip(factors, bias)]


def test_scores_are_those_of_the_consolidated_rows(stream):
    model = teach(CWR, Config(**FEW), stream, 2).eval()
    x = stream.test.images[:7].float() / 255
    with torch.no_grad():
        features, logits = model.net.features(x), model(x)
    for i in range(7):
        for j in range(6):
            expected = sum(a * b for a, b in zip(features[i].tolist(), model.cw[j].tolist()))
            assert float(logits[i, j]) == pytest.approx(expected + float(model.cw_bias[j]), abs=1e-4)
    assert logits[:, :5].any() and not logits[:, 5].any()


def test_the_shift_is_idle_among_two_classes_and_not_among_all():
    pairs, means = small_stream(sizes=(2, 2, 2)), {}
    for softmax in ("task", "all"):
        rows = teach(CWR, Config(plus=True, softmax=softmax, **FEW), pairs, 2).net.head.weight[2:4]
        means[softmax] = float(rows.detach().mean().abs() / rows.detach().abs().mean())
    assert means["task"] < 1e-4 and means["all"] > 0.01


def test_a_run_tells_the_classes_of_a_task_apart(stream):
    learner, result = run(CWR, Config(epochs=20, batch_size=16), stream, seed=1, record="*", progress=False)
    right = result.predictions_task_aware[-1] == result.labels
    assert right[result.labels < 5].mean() > 0.9
    assert np.asarray(result.trace["loss"]["epoch"]).tolist() == list(range(20)) * 3
    loss = np.asarray(result.trace["loss"]["loss"])
    assert loss[20] > loss[39] and not loss[40:].any(), "a task of one class has nothing to tell apart"
    head = learner.net.head
    assert learner.memory_bytes() == {
        "weights": 4
        * (sum(p.numel() for p in learner.net.parameters()) + head.weight.numel() + head.bias.numel())
    }


# Settings


@pytest.mark.parametrize(
    "wrong, word",
    [
        ({"epochs": 0}, "epochs"),
        ({"batch_size": 0}, "batch"),
        ({"lr": 0.0}, "lr"),
        ({"lr": float("nan")}, "lr"),
        ({"softmax": "both"}, "softmax"),
        ({"first_weight": 0.0}, "first_weight"),
        ({"first_weight": float("nan")}, "first_weight"),
        ({"plus": True, "first_weight": 1.25}, "plus"),
    ],
)
def test_settings_that_cannot_work_are_refused(wrong, word):
    with pytest.raises(LearnerError, match=word):
        Config(**wrong)


def test_an_unknown_network_is_refused():
    with pytest.raises(ValueError, match="network"):
        CWR(Config(net="lenet"), (1, 8, 8), 4)
