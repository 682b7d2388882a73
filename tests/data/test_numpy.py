"""Numbers and arrays of numpy where Python's and torch's are expected: taken, or named in one sentence."""

import json
from dataclasses import dataclass

import numpy as np
import pytest
import torch

from clkit.data import DataError, ImageSet, Stream, StreamError, load
from clkit.engine import RunError
from clkit.engine.run import run
from clkit.experiments import PresetError, experiment, run_experiment
from clkit.experiments.experiment import typed_setting
from clkit.experiments.runner import _whole
from clkit.methods.baselines.finetune import Config, Finetune


@pytest.fixture(scope="module")
def digits():
    return load("digits")


def told(stream):
    """What a record stores of a stream, through JSON."""
    return json.loads(json.dumps(stream.about()))


@pytest.mark.parametrize(
    "plain, of_numpy",
    [
        ({"order": 3}, {"order": np.int64(3)}),
        ({"order": [9, 8, 7, 6, 5, 4, 3, 2, 1, 0]}, {"order": np.arange(10)[::-1]}),
        ({"order": list("9876543210")}, {"order": np.array(list("9876543210"))}),
        ({"val": 0.25, "seed": 2}, {"val": np.float32(0.25), "seed": np.uint8(2)}),
        ({"val": 0.1}, {"val": np.float64(0.1)}),
        (
            {"max_per_class": 5, "shuffle_images": 1},
            {"max_per_class": np.int16(5), "shuffle_images": np.int8(1)},
        ),
        ({"single_pass": True}, {"single_pass": np.bool_(True)}),
    ],
)
def test_streams_take_numbers_of_numpy(digits, plain, of_numpy):
    one = Stream(*digits, (2,) * 5, **plain)
    other = Stream(*digits, np.array([2] * 5), **of_numpy)
    assert told(one) == told(other) == one.about() == other.about()
    for a, b in zip(one, other):
        assert torch.equal(a.train.images, b.train.images) and torch.equal(a.train.labels, b.train.labels)


@pytest.mark.parametrize(
    "wrong",
    [
        {"order": np.float64(3)},
        {"order": np.array([0.5, 1.5])},
        {"order": np.array(3.5)},
        {"order": np.int64(-1)},
        {"order": np.bool_(True)},
        {"val": np.float32("nan")},
        {"seed": np.float64(1)},
        {"max_per_class": np.int64(0)},
        {"classes_per_task": np.array([2.0] * 5)},
        {"classes_per_task": np.int64(5)},
        {"classes_per_task": np.array([[2, 2], [2, 2]])},
    ],
)
def test_streams_name_what_they_cannot_take(digits, wrong):
    with pytest.raises(StreamError, match="must|adds up"):
        Stream(*digits, **{"classes_per_task": (2,) * 5, **wrong})


def test_sizes_and_shares_of_numpy(tmp_path, monkeypatch):
    from tests.data.test_layout import folders

    monkeypatch.setenv("CLKIT_DATA", str(tmp_path))
    folders(tmp_path / "set", [""], n=4)
    path = f"folder:{tmp_path / 'set'}"
    plain = load(path, side=2, test_share=0.5, split_seed=1)
    of_numpy = load(path, side=np.int32(2), test_share=np.float32(0.5), split_seed=np.int64(1))
    assert [a.checksum() for a in plain] == [b.checksum() for b in of_numpy]
    assert plain[0].name == of_numpy[0].name == "set(side=2, split_seed=1, test_share=0.5)"
    assert len(list((tmp_path / ".clkit-cache").iterdir())) == 1
    assert load("digits", side=np.int64(4))[0].shape == (1, 4, 4)
    few = {"families": 1, "siblings": 1, "train_per_class": 2, "test_per_class": 1}
    drawn = load("shapes", **{k: np.int64(v) for k, v in few.items()}, difficulty=np.float32(0.5))
    assert drawn[0].checksum() == load("shapes", **few, difficulty=0.5)[0].checksum()
    with pytest.raises(DataError, match="positive whole number, not np.float64"):
        load("digits", side=np.float64(4))


def test_batches_of_numpy(digits):
    train = digits[0].select(np.arange(7))
    assert [len(y) for _, y in train.batches(np.int64(3), epochs=np.int64(2))] == [3, 3, 1] * 2
    assert len(train.select(np.array([True] * 3 + [False] * 4))) == 3
    with pytest.raises(DataError, match="whole number"):
        train.batches(np.float32(3))


IMAGES = np.zeros((4, 3, 8, 8), np.uint8)


@pytest.mark.parametrize(
    "images, labels, words",
    [
        (IMAGES, np.arange(4), "must be torch tensors, not ndarray and ndarray: use torch.from_numpy"),
        (torch.from_numpy(IMAGES), np.arange(4), "not Tensor and ndarray: use torch.from_numpy"),
        (IMAGES.tolist(), [0, 1, 2, 3], "not list and list"),
        (torch.from_numpy(IMAGES / 255), torch.arange(4), r"not torch.float64 .*: \(255 \* x\).byte\(\)"),
        (torch.from_numpy(IMAGES[:, 0]), torch.arange(4), r"not torch.uint8 \(4, 8, 8\).*x\[:, None\]"),
        (torch.from_numpy(IMAGES), torch.arange(4).int(), "must be int64 of shape"),
    ],
)
def test_arrays_are_named(images, labels, words):
    with pytest.raises(DataError, match=words):
        ImageSet(images, labels, list("abcd"))


@pytest.mark.parametrize(
    "shape", [(4, 32, 32, 3), (4, 32, 32, 1), (4, 48, 32, 3), (4, 5, 5, 4), (1, 224, 224, 3)]
)
def test_channels_last_are_named(shape):
    images = torch.zeros(shape, dtype=torch.uint8)
    labels = torch.zeros(shape[0], dtype=torch.int64)
    with pytest.raises(
        DataError, match=r"have their channels last, not \(N, C, H, W\).*permute\(0, 3, 1, 2\)"
    ):
        ImageSet(images, labels, ["a"])
    assert ImageSet(images.permute(0, 3, 1, 2), labels, ["a"]).shape == (shape[3], *shape[1:3])


@pytest.mark.parametrize(
    "shape", [(1, 1, 3), (3, 8, 3), (1, 28, 1), (4, 5, 2), (512, 1, 1), (7, 4, 4), (3, 3, 3)]
)
def test_images_of_few_columns_are_images(shape):
    images = torch.zeros(2, *shape, dtype=torch.uint8)
    assert ImageSet(images, torch.zeros(2, dtype=torch.int64), ["a"]).shape == shape


# ---- seeds and settings


def test_a_run_takes_a_seed_of_numpy(digits, tmp_path):
    tasks = Stream(*digits, (2,) * 5, max_per_class=3)
    config = Config(epochs=1, batch_size=16)
    _, one = run(Finetune, config, tasks, seed=np.int64(3), folder=tmp_path / "a", progress=False)
    _, other = run(Finetune, config, tasks, seed=3, folder=tmp_path / "a", progress=False)
    assert one.about["seed"] == other.about["seed"] == 3 and type(one.about["seed"]) is int
    assert np.array_equal(one.predictions, other.predictions)


@pytest.mark.parametrize("seed", [-1, 1.0, np.float64(1), True, "1", None, np.array([1])])
def test_a_run_names_what_is_no_seed(digits, seed):
    tasks = Stream(*digits, (2,) * 5)
    with pytest.raises(RunError, match="seed must be a whole number of at least 0, not"):
        run(Finetune, Config(epochs=1), tasks, seed=seed, progress=False)


def test_lists_of_seeds():
    for seeds in (np.arange(2), np.array([0, 1], np.uint8), range(2), [np.int64(0), 1], torch.arange(2)):
        whole = _whole(seeds)
        assert whole == (0, 1) and {type(seed) for seed in whole} == {int}
    for wrong in (3, 0.5, np.array([0.5]), ["0"], "01", [True], [-1], np.array([[0, 1]])):
        with pytest.raises(PresetError, match="seeds must list whole numbers"):
            run_experiment("finetune/split-digits", "smoke", seeds=wrong)


@dataclass
class Wide:
    epochs: int = 1
    lr: float = 0.1
    hidden: tuple = (2,)


@pytest.mark.parametrize(
    "field, value, typed",
    [
        ("epochs", np.int64(3), 3),
        ("epochs", torch.tensor(3), 3),
        ("lr", np.float32(0.5), 0.5),
        ("lr", np.int64(1), 1.0),
        ("hidden", np.array([4, 5]), (4, 5)),
    ],
)
def test_settings_of_numpy_are_those_of_python(field, value, typed):
    found = typed_setting(Wide, field, value)
    assert found == typed and type(found) is type(typed)
    assert json.dumps(found) == json.dumps(typed)


def test_settings_of_numpy_give_the_same_experiment():
    one = experiment("finetune/split-digits", "smoke", {"epochs": np.int64(7)})
    assert one == experiment("finetune/split-digits", "smoke", {"epochs": 7})
    assert one.stem.endswith("_epochs-7")
    with pytest.raises(PresetError, match="epochs must be a whole number of at least 1, not 7.0"):
        experiment("finetune/split-digits", "smoke", {"epochs": np.float64(7)})


def test_own_data_take_tasks_and_orders_of_numpy(tmp_path, monkeypatch):
    from tests.data.test_layout import folders

    monkeypatch.setenv("CLKIT_DATA", str(tmp_path))
    name = f"finetune/folder:{folders(tmp_path / 'set')}"
    for order in ([3, 1, 0, 2], (3, 1, 0, 2), np.array([3, 1, 0, 2])):
        found = experiment(name, tasks=np.array([1, 3]), order=order)
        assert found == experiment(name, tasks=(1, 3), order=[3, 1, 0, 2])
    assert experiment(name, order=np.int64(5)) == experiment(name, order=5)
