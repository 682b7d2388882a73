"""Representations of layers, and their similarity after each task: by hand, and for learners made for it."""

import errno
import os
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from clkit import experiments
from clkit.analysis import inside
from clkit.analysis.embedding import plane
from clkit.analysis.svcca import cka, fold, svcca
from clkit.blocks import nets
from clkit.blocks.gan import Critic
from clkit.engine import RunError
from clkit.engine import run as engine
from clkit.engine.learner import Learner
from clkit.engine.past import Past
from clkit.engine.run import run
from clkit.errors import ClkitError
from clkit.experiments.runner import _asked_for
from clkit.result import load, save
from tests.fakes import Config as Epochs
from tests.fakes import Growing, small_stream


@pytest.fixture(scope="module")
def stream():
    return small_stream(side=8)


def images(n=20, shape=(1, 8, 8)):
    return torch.rand(n, *shape, generator=torch.Generator(device="cpu").manual_seed(0), device="cpu")


# ---- layers


def test_layers_of_a_fully_connected_network():
    net, x = nets.MLP((1, 8, 8), 6, hidden=(12, 9)), images()
    found = inside.layers(net, x)
    first = net.hidden[0](x.flatten(1)).relu()
    wanted = {"FC1": first, "FC2": net.hidden[1](first).relu(), "logits": net(x)}
    assert list(found) == list(wanted) and all(torch.equal(found[k], v) for k, v in wanted.items())


def test_layers_of_convolutions_are_maps_before_pooling():
    net, x = nets.ConvNet((1, 8, 8), 6, widths=(3, 4, 5, 6)), images()
    found = inside.layers(net, x)
    assert {k: tuple(v.shape[1:]) for k, v in found.items()} == {
        "Conv1": (3, 8, 8), "Conv2": (4, 8, 8), "Conv3": (5, 4, 4), "Conv4": (6, 4, 4), "logits": (6,)
    }  # fmt: skip
    assert torch.equal(found["Conv4"], net.convs[3](found["Conv3"]).relu())


def test_layers_of_a_residual_network_are_the_ends_of_its_stages():
    net, x = nets.ResNet18((1, 8, 8), 6, width=2).train(), images()
    found = inside.layers(net, x)
    net.eval()
    y = net.bn(net.stem(x)).relu()
    assert list(found) == ["Conv1", "Conv2", "Conv3", "Conv4", "Conv5", "logits"]
    assert torch.equal(found["Conv1"], y)
    for stage in range(4):
        y = net.blocks[2 * stage + 1](net.blocks[2 * stage](y))
        assert torch.equal(found[f"Conv{2 + stage}"], y)


def test_an_activation_counts_as_it_is_and_for_the_layer_before_it():
    net, x = Critic((1, 16, 16), 2).eval(), images(shape=(1, 16, 16))
    first = F.leaky_relu(net.convs[0](x), 0.2)
    second = F.leaky_relu(net.norms[0](net.convs[1](first)), 0.2)
    model = nn.ModuleDict({"critic": net})
    model.forward = lambda x: net(x)[1]
    found = inside.layers(model, x)
    assert list(found) == ["Conv1", "Conv2", "Conv3", "logits"] and (found["Conv1"] < 0).any()
    assert torch.equal(found["Conv1"], first) and torch.equal(found["Conv2"], second)


class Fails(nets.MLP):
    def forward(self, x):
        self.features(x)
        raise ValueError("on purpose")


def test_looking_changes_nothing(stream):
    net = nets.ResNet18((1, 8, 8), 6, width=2).train()
    net.blocks[3].eval()
    modes = [m.training for m in net.modules()]
    before, random = {k: v.clone() for k, v in net.state_dict().items()}, torch.get_rng_state()
    inside.representations(net, stream.test)
    assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items())
    assert [m.training for m in net.modules()] == modes and torch.equal(torch.get_rng_state(), random)
    broken = Fails((1, 8, 8), 6)
    with pytest.raises(ValueError, match="on purpose"):
        inside.layers(broken, images())
    assert not any(m._forward_hooks for model in (net, broken) for m in model.modules())
    assert broken.training and torch.relu(net.stem.weight).requires_grad


def test_representations_fold_maps_in_batches(stream, monkeypatch):
    net = nets.ConvNet((1, 8, 8), 6, widths=(3, 4, 5, 6))
    found = inside.representations(net, stream.test, positions=7)
    n = len(stream.test)
    assert {k: tuple(v.shape) for k, v in found.items()} == {
        "Conv1": (7 * n, 3), "Conv2": (7 * n, 4), "Conv3": (7 * n, 5), "Conv4": (7 * n, 6), "logits": (n, 6)
    }  # fmt: skip
    whole = inside.layers(net, stream.test.images / 255)
    torch.testing.assert_close(found["Conv3"], fold(whole["Conv3"], 7))
    every = inside.representations(net, stream.test, positions=None)
    torch.testing.assert_close(every["Conv3"], fold(whole["Conv3"]))


# ---- two networks


def test_compare_is_svcca_and_cka_of_each_layer(stream):
    one, other = nets.MLP((1, 8, 8), 6, hidden=(12, 9)), nets.MLP((1, 8, 8), 4, hidden=(7, 9, 5))
    found = inside.compare(one, other, stream.test, classes=(2, 4), keep=0.9)
    assert list(found) == ["FC1", "FC2", "logits"]  # the layers of both
    x = stream.test.images / 255
    for layer, (similarity, linear) in found.items():
        A, B = (inside.layers(net, x)[layer] for net in (one, other))
        A, B = (A[:, 2:4], B[:, 2:4]) if layer == "logits" else (A, B)
        assert similarity.mean == pytest.approx(svcca(A, B, 0.9).mean) and linear == pytest.approx(cka(A, B))
        assert similarity.n == len(x) and 0 < similarity.floor < 1
    assert all(s.mean == pytest.approx(1) for s, _ in inside.compare(one, one, stream.test).values())


# ---- over the tasks


@dataclass(frozen=True)
class Config:
    """redrawn: a module of the network that each task draws anew, or "", which leaves it as it is."""

    redrawn: str = ""


class Still(Learner):
    """Learns nothing; each task may draw one layer anew, or move the logits of its classes."""

    def __init__(self, config, shape, classes):
        super().__init__(config, shape, classes)
        self.net = nets.MLP(shape, classes, hidden=(12, 9))

    def learn(self, task, trace):
        with torch.no_grad():
            self.net.head.bias[task.first : task.seen] += 5  # a bias, which is not seen
        if self.config.redrawn:
            self.net.get_submodule(self.config.redrawn).reset_parameters()

    def forward(self, x):
        return self.net(x)


def table(stream, redrawn="", **options):
    histories = {"similarity": lambda learners, stream: inside.rows(learners, stream, **options)}
    return run(Still, Config(redrawn), stream, histories=histories, progress=False)[1].trace["similarity"]


UPPER = np.triu(np.ones((3, 3), dtype=bool))


def test_a_network_that_stays_is_similar_to_itself_everywhere(stream):
    found = table(stream)
    assert list(found["layer"]) == ["FC1", "FC2", "logits"]
    for name in ("svcca", "cka"):
        assert found[name].shape == (3, 3, 3)
        np.testing.assert_allclose(found[name][:, UPPER], 1, atol=1e-6)
        assert np.isnan(found[name][:, ~UPPER]).all()
    assert (found["n"] == 16).all() and found["kept"].shape == (3, 3, 3, 2)
    assert (found["kept"][2, UPPER] == 2).all() and not found["kept"][
        :, ~UPPER
    ].any()  # logits of two classes
    floors = np.sqrt(found["kept"].max(axis=-1) / 15)
    np.testing.assert_allclose(found["floor"][:, UPPER], floors[:, UPPER])
    assert (table(stream, images=6)["n"] == 6).all() and (table(stream, images=5)["n"] == 6).all()


@pytest.mark.parametrize("redrawn, changed", [("hidden.1", (1, 2)), ("head", (2,)), ("hidden.0", (0, 1, 2))])
def test_a_layer_that_is_drawn_anew_is_not(stream, redrawn, changed):
    found, later = table(stream, redrawn), np.triu(UPPER, 1)
    for layer in range(3):
        for name in ("svcca", "cka"):
            np.testing.assert_allclose(np.diagonal(found[name][layer]), 1, atol=1e-6)
            same = np.isclose(found[name][layer][later], 1, atol=1e-6)
            assert same.all() if layer not in changed else not same.any(), (layer, name)


def test_each_entry_is_of_two_networks_and_images_of_the_earlier_task(stream):
    kept = {}

    def history(learners, stream):
        kept["states"] = [learner.snapshot() for learner in learners]
        return inside.rows(learners, stream, images=10)

    learner, result = run(Growing, Epochs(epochs=2), stream, histories={"own": history}, progress=False)
    found, models = result.trace["own"], [Growing(Epochs(), stream.shape, stream.classes) for _ in range(3)]
    for model, state in zip(models, kept["states"]):
        model.restore(state)
    assert all(torch.equal(v, learner.state_dict()[k]) for k, v in models[-1].state_dict().items())
    for t, u in ((0, 1), (0, 2), (1, 2)):
        own = stream[t].first, stream[t].seen
        index = [(stream.test.labels == k).nonzero()[:5, 0] for k in range(*own)]
        pairs = inside.compare(models[t], models[u], stream.test.select(torch.cat(index)), classes=own)
        for layer, (similarity, linear) in pairs.items():
            n = list(found["layer"]).index(layer)
            assert found["svcca"][n, t, u] == pytest.approx(similarity.mean)
            assert found["cka"][n, t, u] == pytest.approx(linear)
            assert tuple(found["kept"][n, t, u]) == similarity.kept and found["n"][n, t] == similarity.n == 10


def test_a_history_affects_nothing_and_a_run_that_was_stopped_has_the_same(stream, tmp_path, monkeypatch):
    def go(folder=None, histories=None):
        return run(Growing, Epochs(epochs=2), stream, folder=folder, histories=histories, progress=False)[1]

    histories = {"similarity": inside.rows}
    plain, watched = go(), go(histories=histories)
    np.testing.assert_array_equal(plain.predictions, watched.predictions)
    measure = engine._measure

    def stops(model, stream, task):
        if task.index == 2:
            raise KeyboardInterrupt
        return measure(model, stream, task)

    monkeypatch.setattr(engine, "_measure", stops)
    with pytest.raises(KeyboardInterrupt):
        go(tmp_path, histories)
    monkeypatch.setattr(engine, "_measure", measure)
    again = go(tmp_path, histories)
    for column, values in watched.trace["similarity"].items():
        np.testing.assert_array_equal(values, again.trace["similarity"][column])
    assert sorted(p.name for p in tmp_path.glob("learner-*")) == [f"learner-{t}.pt" for t in range(3)]
    go(tmp_path / "without")
    assert not list((tmp_path / "without").glob("learner-*"))
    again = load(save([watched], tmp_path / "record"))[0].trace["similarity"]
    assert list(again["layer"]) == list(watched.trace["similarity"]["layer"])
    np.testing.assert_array_equal(again["svcca"], watched.trace["similarity"]["svcca"])


def test_planes_turn_towards_each_other_and_show_the_same_images(stream):
    learner = Still(Config("hidden.1"), stream.shape, stream.classes)
    past = Past(lambda: Still(Config(), stream.shape, stream.classes), 3)
    for task in stream:
        learner.learn(task, None)
        past.keep(task.index, learner)
    found = inside.planes(past, stream.test)
    assert {layer: points.shape for layer, points in found.items()} == dict.fromkeys(
        ("FC1", "FC2", "logits"), (3, len(stream.test), 2)
    )
    np.testing.assert_allclose(found["FC1"][0], found["FC1"][2], atol=1e-9)  # it stays
    assert not np.allclose(found["FC2"][0], found["FC2"][1], atol=0.1)
    net = nets.ConvNet((1, 8, 8), 6, widths=(3, 4, 5, 6))
    maps = inside.layers(net, stream.test.images / 255)["Conv2"].flatten(1)
    np.testing.assert_allclose(inside.planes([net], stream.test)["Conv2"][0], plane(maps), atol=1e-6)


# ---- the learners of a run


def test_past_learners_are_those_after_each_task_and_need_their_files(stream, tmp_path, monkeypatch):
    def build():
        return Still(Config(), stream.shape, stream.classes)

    for folder in (None, tmp_path):
        past, learner, biases = Past(build, 3, folder), build(), []
        for task in stream:
            learner.learn(task, None)
            past.keep(task.index, learner)
            biases.append(learner.net.head.bias.detach().clone())
        assert len(past) == 3 and not past[0].training and past[0] is not past[0]
        assert [torch.equal(one.net.head.bias, bias) for one, bias in zip(past, biases)] == [True] * 3
        assert torch.equal(past[-1].net.head.bias, biases[-1]) and not torch.equal(biases[0], biases[-1])
        with pytest.raises(IndexError):
            past[3]
    (tmp_path / "learner-1.pt").write_bytes(b"other")
    with pytest.raises(RunError, match="learner-1.pt is damaged: delete the folder"):
        past[1]
    (tmp_path / "learner-2.pt").unlink()
    with pytest.raises(RunError, match="learner-2.pt is missing: .* with a history"):
        past[2]
    monkeypatch.setattr("pathlib.Path.read_bytes", _refuse)
    with pytest.raises(ClkitError, match="learner-0.pt could not be read .Permission denied.") as error:
        past[0]
    assert "delete" not in str(error.value)


def _refuse(path):
    raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))


@pytest.mark.parametrize("name", ["er/split-digits", "joint/split-digits", "dgma/digits-10"])
def test_any_method_records_it_when_asked_by_name(name, tmp_path, monkeypatch):
    monkeypatch.setenv("CLKIT_RUNS", str(tmp_path))
    learner, result = experiments.run_seed(name, "smoke", 0, record=("similarity",), progress=False)
    found, T = result.trace["similarity"], len(result.seen)
    assert found["svcca"].shape == (len(found["layer"]), T, T) and found["layer"][-1] == "logits"
    assert (np.nan_to_num(found["svcca"], nan=0.5) <= 1).all() and found["svcca"][0, 0, 0] == pytest.approx(1)
    past = experiments.past_of(name, "smoke", 0, record=("similarity",))
    assert len(past) == T
    assert all(torch.equal(v, learner.state_dict()[k]) for k, v in past[-1].state_dict().items())
    usual = experiments.experiment(name, "smoke")
    assert "similarity" not in usual.tables
    assert "similarity" not in _asked_for(usual, ("*", "sim*")) and "loss" in _asked_for(usual, ("*",))
    assert "similarity" in _asked_for(usual, ("loss", "similarity"))
