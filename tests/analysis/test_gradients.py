"""Gradient correlation against per-image loops and closed forms; the study of recalled images."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from clkit import papers
from clkit.analysis import gradients
from clkit.analysis.gradients import GradientError, correlation, groups, study, table
from clkit.blocks import nets
from clkit.engine.seeding import seed_everything
from clkit.engine.trace import Trace
from clkit.experiments import config_class
from clkit.methods import LEARNERS
from clkit.methods.arm import arm
from tests.fakes import small_stream


@pytest.fixture(autouse=True)
def one_thread(monkeypatch):
    monkeypatch.setitem(nets.NETS, "tiny", lambda shape, classes: nets.MLP(shape, classes, (9, 7)))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def images(n=7, shape=(1, 6, 6), seed=0):
    draw = torch.Generator("cpu").manual_seed(seed)
    return torch.rand(n, *shape, generator=draw, dtype=torch.float64, device="cpu")


def labels(n=7, classes=4, seed=0):
    draw = torch.Generator("cpu").manual_seed(seed)
    return torch.randint(classes, (n,), generator=draw, device="cpu")


def network(kind="mlp", classes=4):
    """A network in double precision after some images, so that running statistics are not trivial."""
    seed_everything(0)
    net = {
        "mlp": lambda: nets.MLP((1, 6, 6), classes, (9, 7)),
        "resnet": lambda: nets.ResNet18((1, 6, 6), classes, width=2),
        "conv": lambda: nets.ConvNet((1, 6, 6), classes, (2, 3, 3, 2)),
    }[kind]().double()
    net(3 * images(8, seed=9))
    return net


def slow(net, x, target):
    """Normalised gradients of one image for each parameter, by definition."""
    logits = net(x[None])[0]
    probability = F.one_hot(target, len(logits)).double() if target.ndim == 0 else target
    loss = -(probability * logits.log_softmax(0)).sum()
    found = torch.autograd.grad(loss, list(net.parameters()))
    return {
        name: gradient.flatten() / gradient.norm() if gradient.norm() else gradient.flatten()
        for (name, _), gradient in zip(net.named_parameters(), found, strict=True)
    }


@pytest.mark.parametrize("kind", ["mlp", "resnet", "conv"])
@pytest.mark.parametrize("held", [1, 2**27])
def test_cosines_are_those_of_single_images(kind, held, monkeypatch):
    """Even if memory allows the gradients of only one image at a time."""
    monkeypatch.setattr(gradients, "_BYTES", held)
    net, y = network(kind), labels(5)
    x, others, soft = images(5), images(5, seed=1), torch.rand(5, 4, dtype=torch.float64).softmax(1)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    found = correlation(net, (x, soft), (others, y))
    assert net.training and all(torch.equal(v, before[k]) for k, v in net.state_dict().items())
    net.eval()
    assert list(found) == [name for name, _ in net.named_parameters()]
    for i in range(5):
        a, b = slow(net, x[i], soft[i]), slow(net, others[i], y[i])
        for name, values in found.items():
            assert values.shape == (5,) and values[i] == pytest.approx(float(a[name] @ b[name]), abs=1e-9)


def test_a_linear_layer_has_the_product_of_two_cosines():
    """The gradient of its weight is the outer product of error and input."""
    net, x, others = nn.Sequential(nn.Flatten(), nn.Linear(36, 4)).double(), images(), images(seed=1)
    y, z = labels(), labels(seed=1)
    found = correlation(net, (x, y), (others, z))

    def error(x, y):
        return net(x).softmax(1).detach() - F.one_hot(y, 4)

    errors = F.cosine_similarity(error(x, y), error(others, z))
    inputs = F.cosine_similarity(x.flatten(1), others.flatten(1))
    assert found["1.bias"] == pytest.approx(errors.numpy(), abs=1e-10)
    assert found["1.weight"] == pytest.approx((errors * inputs).numpy(), abs=1e-10)


def test_an_image_agrees_with_itself_and_a_gradient_of_zero_with_nothing():
    net, x, y = network(), images(), labels()
    assert all(values == pytest.approx(1) for values in correlation(net, (x, y), (x, y)).values())
    one_hot = F.one_hot(y, 4).double()
    assert all(values == pytest.approx(1) for values in correlation(net, (x, y), (x, one_hot)).values())
    own = net(x).softmax(1).detach()  # what the network says: nothing to correct
    for value in correlation(net, (x, own), (x, y)).values():
        assert np.isfinite(value).all()
    with torch.no_grad():
        net.hidden[1].weight.zero_(), net.hidden[1].bias.fill_(-1)  # nothing passes
    found = correlation(net, (x, y), (x, y))
    assert (found["hidden.0.weight"] == 0).all() and found["head.bias"] == pytest.approx(1)
    assert (found["head.weight"] == 0).all()


def test_fewer_classes_in_the_softmax():
    net, x, y = network(), images(), labels(classes=2)
    smaller = nets.MLP((1, 6, 6), 2, (9, 7)).double()
    state = net.state_dict()
    smaller.load_state_dict({k: v[:2] if k.startswith("head") else v for k, v in state.items()})
    found, expected = (
        correlation(net, (x, y), (x[:1].expand_as(x), y), classes=2),
        correlation(smaller, (x, y), (x[:1].expand_as(x), y)),
    )
    for name in found:
        assert found[name] == pytest.approx(expected[name], abs=1e-10)


class Twice(nn.Module):
    """A layer used twice, one whose weight is used elsewhere, and one on sequences."""

    def __init__(self):
        super().__init__()
        self.twice, self.tied, self.last = (nn.Linear(36, n).double() for n in (36, 36, 4))
        self.wide = nn.Linear(6, 6).double()

    def forward(self, x):
        x = self.wide(x).tanh().flatten(1)
        x = self.twice(self.twice(x).tanh()).tanh()
        return self.last(self.tied(x).tanh() @ self.tied.weight)


def test_layers_that_are_not_simply_gone_through_once():
    seed_everything(0)
    net, x, others, y, z = Twice(), images(), images(seed=1), labels(), labels(seed=1)
    found = correlation(net, (x, y), (others, z))
    for i in range(7):
        a, b = slow(net, x[i], y[i]), slow(net, others[i], z[i])
        for name, values in found.items():
            assert values[i] == pytest.approx(float(a[name] @ b[name]), abs=1e-9), name


def test_no_gradient_of_a_fully_connected_layer_is_formed(monkeypatch):
    monkeypatch.setattr(gradients, "vmap", None)
    assert len(correlation(network(), (images(), labels()), (images(), labels()))) == 6


def test_parameters_that_play_no_part_are_left_out():
    net = network()
    net.spare = nn.Linear(3, 2).double()
    assert "spare.weight" not in correlation(net, (images(), labels()), (images(), labels()))


@pytest.mark.parametrize(
    "wrong, word",
    [
        (((images(3), labels(4)), (images(3), labels(3))), "targets"),
        (((images(3), labels(3)), (images(2), labels(2))), "image by image"),
        (((images(2), torch.tensor([0, 4])), (images(2), labels(2))), "softmax"),
        (((images(2), torch.rand(2, 3)), (images(2), labels(2))), "3 probabilities"),
    ],
)
def test_sets_that_do_not_fit_are_refused(wrong, word):
    with pytest.raises(GradientError, match=word):
        correlation(network(), *wrong)


def test_a_network_without_gradients_is_refused():
    with pytest.raises(GradientError, match="no gradient"):
        correlation(nn.Flatten(), (images(2), labels(2)), (images(2), labels(2)))


# ---- layer groups


def test_groups_of_the_networks_of_the_package():
    def found(net):
        return list(dict.fromkeys(groups(net).values()))

    assert found(nets.MLP((1, 6, 6), 4)) == ["FC1", "FC2", "FC3"]
    deep = groups(nets.ResNet18((3, 8, 8), 4, width=2))
    assert list(dict.fromkeys(deep.values())) == ["Conv1", "Conv2", "Conv3", "Conv4", "Conv5", "FC"]
    counts = {group: sum(g == group for g in deep.values()) for group in deep.values()}
    assert counts == {"Conv1": 3, "Conv2": 12, "Conv3": 15, "Conv4": 15, "Conv5": 15, "FC": 2}
    assert deep["blocks.2.shortcut.0.weight"] == "Conv3" and deep["bn.weight"] == "Conv1"
    assert found(nets.ConvNet((1, 6, 6), 4)) == ["Conv1", "Conv2", "Conv3", "Conv4", "FC"]
    assert found(nets.ZenkeNet((1, 8, 8), 4)) == ["Conv1", "Conv2", "Conv3", "Conv4", "FC1", "FC2"]
    learner = arm.ARM(arm.Config(), (1, 6, 6), 4)
    assert found(learner) == ["FC1", "FC2", "FC3"] and "net.head.weight" in groups(learner)
    assert found(nn.Sequential(nn.Flatten(), nn.Linear(36, 4))) == ["1"]


def test_a_table_pools_images_and_parameters():
    values = {"a.weight": np.array([1.0, 0]), "a.bias": np.array([0.0, 0]), "b.weight": np.array([-1.0, 1])}
    found = table(values, {"a.weight": "A", "a.bias": "A", "b.weight": "B", "unused": "C"})
    assert found == {
        "A": (0.25, pytest.approx(np.sqrt(3) / 4), 4),
        "B": (0, 1, 2),
        "All": (pytest.approx(1 / 6), pytest.approx(np.std([1, 0, 0, 0, -1, 1])), 6),
    }


# ---- any learner, and the study of recalled images


@pytest.mark.parametrize("name", ["finetune", "lwf", "dgr", "spacenet", "cwr"])
def test_learners_of_other_methods(name):
    kind = LEARNERS[name]
    learner = kind(config_class(kind)(**papers.methods()[name].settings), (1, 28, 28), 10)
    x, y = images(3, (1, 28, 28)).float(), labels(3)
    found = correlation(learner, (x, y), (x, y))
    assert found
    for values in found.values():
        assert np.isfinite(values).all() and (values <= 1 + 1e-5).all()


def recalled(n=9):
    """As returned by `gather`: images 0 and 4 are recalled as their starting class."""
    x = images(n)
    origins, target = torch.tensor([1] * n), torch.tensor([1, 0, 2, 3, 1, 0, 0, 2, 3][:n])
    probs = (3 * F.one_hot(target, 4) + images(n, (4,), seed=3)).softmax(1)
    return SimpleNamespace(start=x, images=x + 0.3 * images(n, seed=5), origins=origins, probs=probs)


def test_the_study_compares_with_real_images_of_both_classes():
    """One real image of each class leaves nothing to chance."""
    net, found, real = network(), recalled(), (images(4, seed=7), torch.tensor([2, 0, 3, 1]))
    pairs, skipped = study(net, found, real)
    assert skipped == 2 and tuple(pairs) == gradients.CONDITIONS
    kept = [1, 2, 3, 5, 6, 7, 8]
    target = found.probs.argmax(1)[kept]
    first, second = (
        real[0][[real[1].tolist().index(k) for k in which]]
        for which in (found.origins[kept].tolist(), target.tolist())
    )
    for condition, x, label in (
        ("hard", found.images, target),
        ("soft", found.images, found.probs[kept]),
        ("control hard", found.start, target),
        ("control soft", found.start, found.probs[kept]),
    ):
        for which, other, own in (("class 1", first, found.origins[kept]), ("class 2", second, target)):
            expected = correlation(net, (x[kept], label), (other, own))
            for name, values in pairs[condition][which].items():
                assert values == pytest.approx(expected[name], abs=1e-12), (condition, which)
    assert table(pairs["hard"]["class 2"], groups(net))["FC3"][2] == 14


def test_the_study_draws_by_its_seed():
    net, found, real = network(), recalled(), (images(40, seed=7), torch.arange(40, device="cpu") % 4)
    a, b, c = (study(net, found, real, seed=seed)[0]["hard"]["class 1"]["head.bias"] for seed in (0, 0, 1))
    assert (a == b).all() and not (a == c).all()
    draw = torch.Generator("cpu").manual_seed(0)
    wanted = torch.tensor([3, 0, 2] * 20)
    indices = gradients._of_class(real[1], wanted, draw)
    assert (real[1][indices] == wanted).all() and len(set(indices.tolist())) > 20


def test_a_study_that_cannot_be_made_is_refused():
    net, found = network(), recalled()
    with pytest.raises(GradientError, match="no real image of class"):
        study(net, found, (images(2), torch.tensor([1, 0])))
    found.origins = found.probs.argmax(1)
    with pytest.raises(GradientError, match="no two classes"):
        study(net, found, (images(2), torch.tensor([1, 0])))


@pytest.mark.parametrize("M", [5, 6])
def test_recalled_images_are_gathered_from_a_learner(M):
    """With M larger than the batch of 5, images that were not drawn are omitted."""
    seed_everything(0)
    learner = arm.ARM(arm.Config(net="tiny", n_images=M, batch_size=5, n_steps=2), (1, 6, 6), 6)
    stream = small_stream(per_class=10)
    for t in range(2):
        learner.learn(stream[t], Trace())
    recall_for, kept = learner.recall_for, []

    def watched(x, y):
        result = recall_for(x, y)
        kept.extend([1] * len(x) if result.multiplicity is None else (result.multiplicity > 0).tolist())
        return result

    learner.recall_for = watched
    found = gradients.gather(learner, stream[1].train.batches(5), 12)
    n = len(found.images)
    assert n == len(found.start) == len(found.origins) == min(12, sum(kept))
    assert (sum(kept) < len(kept)) == (M == 6)
    assert found.probs.shape == (n, 6) and set(found.origins.tolist()) == {2, 3}
    assert not torch.equal(found.images, found.start)
    everything = [
        torch.cat([getattr(task.train, part) for task in (stream[0], stream[1])])
        for part in ("images", "labels")
    ]
    found.probs[:, 4:] = 0  # there are no real images of classes to come
    pairs, _ = study(learner, found, (everything[0].float() / 255, everything[1]))
    assert {group: v[2] > 0 for group, v in table(pairs["soft"]["class 2"], groups(learner)).items()} == {
        "FC1": True,
        "FC2": True,
        "FC3": True,
        "All": True,
    }
    with pytest.raises(GradientError, match="no batch"):
        gradients.gather(learner, [])


def test_the_rows_of_a_study_are_its_tables():
    """The table of a run equals the result of `study` on the same recalled images."""
    stream = small_stream()
    seed_everything(0)
    config = arm.Config(net="tiny", batch_size=8, n_images=8, n_steps=2)
    learner = arm.ARM(config, stream.shape, stream.classes)
    for task in stream:
        learner.learn(task, Trace())
    seed_everything(3)
    columns = gradients.rows(learner, stream, images=12, batch_size=8)
    assert {len(values) for values in columns.values()} == {4 * 2 * 4}
    seed_everything(3)
    found = gradients.gather(learner, stream[2].train.batches(8), 12)
    whole = stream.merged()[0].train
    pairs, left_out = study(learner, found, (whole.images.float() / 255, whole.labels))
    wanted = table(pairs["soft"]["class 2"], groups(learner))["FC2"]
    [row] = [
        i
        for i in range(32)
        if (columns["condition"][i], columns["which"][i], columns["group"][i]) == ("soft", "class 2", "FC2")
    ]
    assert (columns["mean"][row], columns["deviation"][row], columns["values"][row]) == wanted
    assert set(columns["left_out"]) == {left_out} and len(found.images) == 12
