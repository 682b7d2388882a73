"""Image sets, batches, class folders, the cache, and all error messages of the data modules."""

import dataclasses
import errno
import json
import os
import pickle
import re
import subprocess
import sys
import types
from itertools import chain
from pathlib import Path
from urllib.error import URLError

import numpy as np
import pytest
import torch
from PIL import Image

from clkit import data
from clkit.data import DataError, ImageSet, cache, embedded, facts, folders, load, torchvision_sets
from clkit.errors import ClkitError, did_you_mean

PACKAGE_ROOT = str(Path(data.__file__).parents[2])


def random_set(n=50, shape=(3, 6, 5), classes=4, seed=0, **options):
    random = np.random.default_rng(seed)
    images = torch.from_numpy(random.integers(0, 256, (n, *shape), dtype=np.uint8))
    labels = torch.from_numpy(random.integers(0, classes, n))
    return ImageSet(images, labels, [f"c{k}" for k in range(classes)], **options)


def says(*words):
    """A pytest.raises for a one-line DataError that contains all the words."""
    return pytest.raises(DataError, match="^" + "".join(f"(?=.*{word})" for word in words) + ".*$")


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    """Each test has an empty data root and an empty home."""
    (tmp_path / "root").mkdir()
    monkeypatch.setenv("CLKIT_DATA", str(tmp_path / "root"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "root"


# ImageSet


def test_set_knows_its_size_and_names():
    images = random_set(name="some", groups=["a", "a", "b", "b"])
    assert len(images) == 50 and images.shape == (3, 6, 5) and images.classes == 4
    assert images.names == ("c0", "c1", "c2", "c3") and images.groups == ("a", "a", "b", "b")
    assert images.device == torch.device("cpu") and "some" in repr(images)


TWO = torch.zeros(2, 1, 3, 3, dtype=torch.uint8)


@pytest.mark.parametrize(
    "images, labels, groups, words",
    [
        (TWO.numpy(), torch.zeros(2).long(), None, ["torch tensors", "ndarray and Tensor", "from_numpy"]),
        (TWO.float(), torch.zeros(2).long(), None, ["uint8", "float32"]),
        (TWO[0], torch.zeros(1).long(), None, ["N, C, H, W"]),
        (TWO, torch.zeros(3).long(), None, ["int64", "3"]),
        (TWO, torch.zeros(2).int(), None, ["int64", "int32"]),
        (TWO, torch.zeros(2).long(), ["g"], ["1 groups", "2 classes"]),
    ],
)
def test_wrong_tensors_are_refused(images, labels, groups, words):
    with says(*words):
        ImageSet(images, labels, ["a", "b"], groups)


def test_select_takes_lists_masks_and_slices():
    images = random_set(groups="wxyz", name="n")
    wanted = [3, 1, 4, 1]
    for index in (wanted, torch.tensor(wanted)):
        chosen = images.select(index)
        assert torch.equal(chosen.images, torch.stack([images.images[i] for i in wanted]))
        assert chosen.labels.tolist() == [int(images.labels[i]) for i in wanted]
        assert (chosen.names, chosen.groups, chosen.name) == (images.names, images.groups, images.name)
    mask = images.labels == 2
    assert torch.equal(images.select(mask).images, images.images[mask])
    assert images.select(slice(5, 9)).images.data_ptr() == images.images[5].data_ptr()


def test_checksum_tells_pixels_labels_and_shapes_apart():
    images = random_set()
    same = random_set()
    assert images.checksum() == same.checksum() == images.to("cpu").checksum()
    assert len(images.checksum()) == 64
    same.images[3, 0, 0, 0] ^= 1
    turned = ImageSet(images.images.view(50, 3, 5, 6), images.labels, images.names)
    other = ImageSet(images.images, images.labels.flip(0), images.names)
    changed = ImageSet(same.images, same.labels, same.names)
    assert len({images.checksum(), changed.checksum(), turned.checksum(), other.checksum()}) == 4


# Batches


def test_batches_equal_a_loop_over_images():
    images = random_set(n=300)
    torch.manual_seed(5)
    order = torch.randperm(300).tolist()
    torch.manual_seed(5)
    seen = []
    for x, y in images.batches(64):
        for image, label in zip(x, y):
            i = order[len(seen)]
            expected = images.images[i].numpy().astype(np.float32) / np.float32(255)
            assert image.numpy().tobytes() == expected.tobytes() and int(label) == int(images.labels[i])
            seen.append(i)
    assert sorted(seen) == list(range(300)) and x.dtype == torch.float32 and y.dtype == torch.int64


def test_every_byte_is_scaled_as_totensor_does():
    every = ImageSet(torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16), torch.zeros(1).long(), ["a"])
    ((x, _),) = every.batches(1)
    assert torch.equal(x.flatten(), torch.arange(256).float() / 255)
    assert not torch.equal(x.flatten(), torch.arange(256).float() * (1 / 255)), "so the test can fail"


def test_batches_in_order_and_the_rest():
    images = random_set(n=10)
    sizes = [len(y) for _, y in images.batches(4, shuffle=False)]
    assert sizes == [4, 4, 2] and len(images.batches(4)) == 3
    full = images.batches(4, drop_last=True)
    assert [len(y) for _, y in full] == [4, 4] and len(full) == 2
    assert len(images.batches(5)) == len(images.batches(5, drop_last=True)) == 2
    ys = torch.cat([y for _, y in images.batches(4, shuffle=False)])
    assert torch.equal(ys, images.labels)


def test_a_batch_can_be_written_into():
    images = random_set(n=10)
    before = images.checksum()
    for shuffle in (True, False):
        for x, y in images.batches(4, shuffle=shuffle):
            x.zero_(), y.zero_()
    images._checksum = None
    assert images.checksum() == before


@pytest.mark.parametrize("reshuffle", [True, False])
def test_several_passes_depend_on_one_number(reshuffle):
    """The number is drawn when iteration begins, so other draws in the loop do not matter."""
    images = random_set(13)
    batches = images.batches(5, epochs=3, reshuffle=reshuffle)
    torch.manual_seed(1)
    found = []
    for x, y in batches:
        found.append((x, y))
        torch.rand(7, device="cpu")
    assert len(found) == len(batches) == 9 and images.n_samples == 39
    torch.manual_seed(1)
    order = torch.Generator("cpu").manual_seed(seed := int(torch.randint(2**62, (), device="cpu")))
    expected = []
    for _ in range(3):
        expected += images.batches(5, generator=order)
        order = order if reshuffle else order.manual_seed(seed)
    for (x, y), (other, label) in zip(found, expected, strict=True):
        assert torch.equal(x, other) and torch.equal(y, label)
    assert torch.equal(found[0][0], found[3][0]) != reshuffle
    assert not torch.equal(next(iter(batches))[0], found[0][0])


@pytest.mark.parametrize("wrong", [{"epochs": 0}, {"epochs": 2, "generator": torch.Generator("cpu")}])
def test_passes_that_cannot_be_made_are_refused(wrong):
    with says("epochs", "passes"):
        random_set().batches(5, **wrong)


def test_batches_can_be_iterated_again_with_another_order():
    torch.manual_seed(0)
    batches = random_set(n=40).batches(40)
    (first, _), (second, _) = next(iter(batches)), next(iter(batches))
    assert not torch.equal(first, second)
    assert torch.equal(first.flatten().sort().values, second.flatten().sort().values)


def test_n_samples_counts_the_images_given_out():
    images = random_set(n=10)
    iterator = iter(images.batches(4))
    next(iterator), next(iterator)
    assert images.n_samples == 8
    list(images.batches(4))
    assert images.n_samples == 18


def test_own_generator_leaves_the_global_state_alone():
    images = random_set(n=40)
    before = torch.random.get_rng_state()
    first = [y for _, y in images.batches(16, generator=torch.Generator().manual_seed(1))]
    again = [y for _, y in images.batches(16, generator=torch.Generator().manual_seed(1))]
    assert all(torch.equal(a, b) for a, b in zip(first, again))
    assert torch.equal(torch.random.get_rng_state(), before)


def test_order_draws_nothing_without_shuffle():
    before = torch.random.get_rng_state()
    list(random_set().batches(7, shuffle=False))
    assert torch.equal(torch.random.get_rng_state(), before)


@pytest.mark.parametrize("options", [{}, {"shuffle": False}, {"drop_last": True}])
def test_indices_are_those_of_the_batches(options):
    images = random_set()
    torch.manual_seed(3)
    expected = [(x, y) for x, y in images.batches(4, **options)]
    torch.manual_seed(3)
    before, batches = images.n_samples, images.batches(4, **options)
    found = list(batches.indices())
    assert len(found) == len(expected) == len(batches) and images.n_samples - before == sum(map(len, found))
    for index, (x, y) in zip(found, expected):
        assert index.dtype == torch.int64 and torch.equal(images.labels[index], y)
        assert torch.equal(images.images[index].float() / 255, x)


def test_indices_use_up_a_single_pass():
    images = random_set(single_pass=True)
    list(images.batches(4).indices())
    with pytest.raises(RuntimeError, match="once only"):
        next(iter(images.batches(4)))


def test_single_pass_gives_its_images_once():
    images = random_set(single_pass=True)
    batches = images.batches(8)
    assert sum(len(y) for _, y in batches) == 50
    for again in (batches, images.batches(8)):
        with pytest.raises(RuntimeError, match="once only .*single_pass=True"):
            iter(again)


@pytest.mark.parametrize("size", [0, -3, 2.0, True, "8"])
def test_batch_size_is_a_positive_whole_number(size):
    with says("positive whole number", repr(size)):
        random_set().batches(size)


@pytest.mark.parametrize("n", range(2, 14))
@pytest.mark.parametrize("size", [2, 3, 4, 12])
@pytest.mark.parametrize("epochs", [None, 2])
def test_a_last_batch_that_is_too_small_joins_the_one_before(n, size, epochs):
    images = random_set(n)
    plain = [y.tolist() for _, y in images.batches(size, shuffle=False, epochs=epochs)]
    images.smallest = 2
    for made in (
        images,
        images.select(range(n)),
        images.to("cpu"),
        images.like(images.images, images.labels),
    ):
        batches = made.batches(size, shuffle=False, epochs=epochs)
        found = [y.tolist() for _, y in batches]
        assert len(found) == len(batches) and [*chain(*found)] == [*chain(*plain)]
        single = n % size == 1 and n > 1
        assert (
            found == plain if not single else min(map(len, found)) >= 2 and max(map(len, found)) == size + 1
        )
        if n >= size:
            whole = [len(y) for _, y in made.batches(size, drop_last=True, epochs=epochs)]
            assert whole == [size] * (n // size * (epochs or 1))


@pytest.mark.parametrize("n, size", [(9, 1), (1, 4), (1, 1)])
def test_batches_that_are_too_small_are_refused(n, size):
    images = random_set(n)
    images.smallest = 2
    with says("cannot learn from batches of 1", "at least 2 images"):
        images.batches(size)


def test_drop_last_that_drops_everything_is_refused():
    with says("drop_last", "51", "50 images"):
        random_set().batches(51, drop_last=True)


def test_batches_augment_every_batch():
    images = random_set(n=20)
    torch.manual_seed(1)
    plain = [x for x, _ in images.batches(8, shuffle=False, augment=lambda x: x + 1)]
    assert torch.equal(torch.cat(plain), images.images.float() / 255 + 1)


# The digits


def test_digits_are_the_same_everywhere():
    train, test = load("digits")
    assert train.shape == (1, 8, 8) and len(train) + len(test) == 1797 and train.names == tuple("0123456789")
    assert train.images.max() == 255 and train.images.min() == 0
    assert train.checksum() == "87104a4ebbcaf530cfca77c85abf11c5e7b5ab7f7657455cffec3ab1200b41cd"
    assert test.checksum() == "37aaa104533e8c4161c04ac9fc11a469f7db69205809d9dd67178fcb9a62540a"


def test_digits_split_keeps_the_shares_of_the_classes():
    train, test = load("digits")
    for k in range(10):
        n, held = int((train.labels == k).sum()), int((test.labels == k).sum())
        assert abs(held - 0.2 * (n + held)) <= 0.5


def test_digits28_are_digits_laid_out_as_mnist():
    (small, _), (train, test) = load("digits"), load("digits28")
    assert train.shape == (1, 28, 28) and torch.equal(train.labels, small.labels)
    inside = train.images[:, :, 4:24, 4:24]
    assert int(train.images.long().sum()) == int(inside.long().sum()) and inside.float().std() > 50
    again = torch.nn.functional.interpolate(small.images.float(), size=(20, 20), mode="bicubic").clamp(0, 255)
    assert (again - inside.float()).abs().mean() < 6, "torch's cubic has a = -3/4, so it is only close"
    assert test.checksum() == "fb054fc12f634cf125a637e4c2654cfa05a67f4f9c76e4fd2a0caa10255c3251"


def test_enlarging_matches_pillow():
    images, _ = embedded._digits()
    weights = embedded._enlarge(8, 20)
    assert (weights.sum(1) == 2000).all()
    for image in images[:20]:
        ours = (weights @ image @ weights.T) / 4e6
        pillow = Image.fromarray(image.astype(np.float32)).resize((20, 20), Image.Resampling.BICUBIC)
        edge = slice(4, -4)  # Pillow renormalises the weights at the border instead of repeating the pixel
        assert np.abs(ours - np.asarray(pillow))[edge, edge].max() < 1e-4


def test_digits_come_through_sklearn_where_its_file_moved(monkeypatch):
    images, labels = embedded._digits()
    moved = types.SimpleNamespace(origin="/no/x.py")
    monkeypatch.setattr(embedded.importlib.util, "find_spec", lambda name: moved)
    again = embedded._digits()
    assert np.array_equal(images, again[0]) and np.array_equal(labels, again[1])
    monkeypatch.setattr(embedded.importlib.util, "find_spec", lambda name: None)
    with says("scikit-learn", "pip install"):
        load("digits")


def test_stratified_split_is_disjoint_complete_and_fixed():
    labels = torch.tensor([0] * 10 + [1] * 5 + [2] * 2)
    first, second = data.stratified_split(labels, 0.2, 7)
    assert sorted(first.tolist() + second.tolist()) == list(range(17))
    assert labels[second].bincount().tolist() == [2, 1, 1]
    before = torch.random.get_rng_state()
    again = data.stratified_split(labels, 0.2, 7)
    assert torch.equal(second, again[1]) and torch.equal(before, torch.random.get_rng_state())
    assert any(not torch.equal(second, data.stratified_split(labels, 0.2, seed)[1]) for seed in range(8, 14))


# Published sets


def write_idx(folder, images=(6, 4), side=28, part="train", cut=0):
    folder.mkdir(parents=True, exist_ok=True)
    n = images[0] if part == "train" else images[1]
    random = np.random.default_rng(len(part))
    pixels = random.integers(0, 256, (n, side, side), dtype=np.uint8)
    labels = np.arange(n, dtype=np.uint8) % 10
    head = np.array([2051, n, side, side], dtype=">i4").tobytes()
    body = head + pixels.tobytes()
    (folder / f"{part}-images-idx3-ubyte").write_bytes(body[: len(body) - cut])
    head = np.array([2049, n], dtype=">i4").tobytes()
    (folder / f"{part}-labels-idx1-ubyte").write_bytes(head + labels.tobytes())
    return pixels, labels


@pytest.fixture
def small_mnist(home, monkeypatch):
    """A made-up MNIST of 6 + 4 images in torchvision's layout."""
    parts = {part: write_idx(home / "MNIST" / "raw", part=part) for part in ("train", "t10k")}
    small = dataclasses.replace(facts.PUBLISHED["mnist"], train=6, test=4, checksums=None)
    monkeypatch.setitem(facts.PUBLISHED, "mnist", small)
    return parts


def test_mnist_is_read_through_torchvision(small_mnist):
    train, test = load("mnist")
    for loaded, part in ((train, "train"), (test, "t10k")):
        pixels, labels = small_mnist[part]
        assert np.array_equal(loaded.images[:, 0].numpy(), pixels)
        assert loaded.labels.tolist() == labels.tolist()
    assert (train.name, train.names) == ("mnist", tuple("0123456789"))


def forbid_torchvision(monkeypatch):
    monkeypatch.setattr(torchvision_sets, "torchvision", lambda: pytest.fail("torchvision was asked again"))


def test_published_files_are_read_through_torchvision_once(small_mnist, home, monkeypatch, capsys):
    first = load("mnist")
    assert [path.name.partition("-")[0] for path in cached(home)] == ["mnist"]
    forbid_torchvision(monkeypatch)
    for a, b in zip(first, load("mnist")):
        assert torch.equal(a.images, b.images) and torch.equal(a.labels, b.labels)
        assert (a.name, a.names, a.checksum()) == (b.name, b.names, b.checksum())
    assert capsys.readouterr().err == ""


def test_cached_set_needs_no_torchvision_installed(home, monkeypatch):
    """In separate processes; importing torchvision fails in the second one."""
    for part in ("train", "t10k"):
        write_idx(home / "MNIST" / "raw", part=part)
    code = """
import dataclasses, sys
from clkit import data
from clkit.data import facts
facts.PUBLISHED["mnist"] = dataclasses.replace(facts.PUBLISHED["mnist"], train=6, test=4, checksums=None)
print([loaded.checksum() for loaded in data.load("mnist")], "torchvision" in sys.modules)
"""
    without = "import sys; sys.modules['torchvision'] = None\n"
    once, again = run_python(code, ""), run_python(without + code, "")
    assert once.stdout.endswith("True\n"), once
    assert again.stdout.partition("]")[0] == once.stdout.partition("]")[0] and again.stderr == ""


@pytest.mark.parametrize("change", ["pixels", "touch", "expected"])
def test_cache_of_published_files_follows_them(small_mnist, home, monkeypatch, capsys, change):
    first = load("mnist")
    image = home / "MNIST" / "raw" / "train-images-idx3-ubyte"
    if change == "pixels":
        image.write_bytes(image.read_bytes()[:-1] + b"\0")
    elif change == "touch":
        os.utime(image, ns=(1, 1))
    else:
        expected = tuple(loaded.checksum() for loaded in first)
        monkeypatch.setitem(
            facts.PUBLISHED, "mnist", dataclasses.replace(facts.PUBLISHED["mnist"], checksums=expected)
        )
    train, _ = load("mnist")
    said = capsys.readouterr().err
    assert said.startswith("mnist: the files in ") and "have changed since they were cached" in said
    assert (train.checksum() == first[0].checksum()) == (change != "pixels")
    forbid_torchvision(monkeypatch)
    load("mnist")
    assert capsys.readouterr().err == ""


def test_damaged_cache_of_published_files_is_said_and_read_again(small_mnist, home, capsys):
    first = load("mnist")
    (path,) = cached(home)
    whole = bytearray(path.read_bytes())
    whole[len(whole) // 2] ^= 1
    path.write_bytes(whole)
    assert load("mnist")[0].checksum() == first[0].checksum()
    assert "damaged (its checksum does not match)" in capsys.readouterr().err
    load("mnist")
    assert capsys.readouterr().err == ""


def test_what_cannot_be_read_is_not_cached(small_mnist, home):
    write_idx(home / "MNIST" / "raw", images=(5, 4))
    for _ in range(2):
        with says("5 training images"):
            load("mnist")
    assert cached(home) == []


def test_truncated_file_is_refused(small_mnist, home):
    write_idx(home / "MNIST" / "raw", cut=100)
    with says("mnist", "MNIST/raw", "truncated or corrupt", "data get mnist"):
        load("mnist")


@pytest.mark.parametrize("name", ["train-images-idx3-ubyte", "t10k-labels-idx1-ubyte"])
@pytest.mark.parametrize("content", [b"", b"abc", b"not an idx file at all", b"\0\0\x08\x03\xff\xff\xff\xff"])
def test_corrupt_file_is_refused(small_mnist, home, name, content):
    (home / "MNIST" / "raw" / name).write_bytes(content)
    with says("mnist", "MNIST/raw", "corrupt|hold", "data get mnist"):
        load("mnist")


def test_wrong_number_of_images_is_refused(small_mnist, home):
    write_idx(home / "MNIST" / "raw", images=(5, 4))
    with says("5 training images", "instead of 6"):
        load("mnist")


def test_changed_pixels_are_refused(small_mnist, monkeypatch):
    true = tuple(loaded.checksum() for loaded in load("mnist"))
    whole = dataclasses.replace(facts.PUBLISHED["mnist"], checksums=true)
    monkeypatch.setitem(facts.PUBLISHED, "mnist", whole)
    load("mnist")
    whole = dataclasses.replace(whole, checksums=(true[0], true[0]))
    monkeypatch.setitem(facts.PUBLISHED, "mnist", whole)
    with says("test files", "MNIST/raw", "corrupt", "checksum", "data get mnist"):
        load("mnist")


def test_incomplete_set_is_refused(small_mnist, home):
    (home / "MNIST" / "raw" / "t10k-labels-idx1-ubyte").unlink()
    with says("incomplete", "t10k-labels-idx1-ubyte", "data get mnist"):
        load("mnist")


def test_absent_set_says_where_and_how(home):
    for name in facts.PUBLISHED:
        with says(f"{name} is not here", str(home), f"data get {name}", "CLKIT_DATA"):
            load(name)


def test_side_resizes_published_files(small_mnist):
    plain, small = load("mnist"), load("mnist", side=14)
    assert small[0].shape == (1, 14, 14) and small[0].name == "mnist(side=14)"
    assert torch.equal(small[0].labels, plain[0].labels) and len(small[1]) == len(plain[1])
    means = plain[0].images.float().view(-1, 14, 2, 14, 2).mean((2, 4))  # near the means of 2x2 squares
    found = torch.stack([small[0].images[:, 0].float().flatten(), means.flatten()])
    assert torch.corrcoef(found)[0, 1] > 0.8
    with says("side=", "positive whole number"):
        load("mnist", side=0)


def test_svhn_is_read_through_torchvision(home, monkeypatch):
    from scipy.io import savemat

    random = np.random.default_rng(0)
    pixels = random.integers(0, 256, (32, 32, 3, 5), dtype=np.uint8)
    labels = np.array([[10], [1], [2], [10], [9]])
    for part in ("train", "test"):
        savemat(home / f"{part}_32x32.mat", {"X": pixels, "y": labels})
    small = dataclasses.replace(facts.PUBLISHED["svhn"], train=5, test=5)
    monkeypatch.setitem(facts.PUBLISHED, "svhn", small)
    with says("svhn", str(home), "corrupt"):
        load("svhn")  # not the published files, as their checksums tell
    monkeypatch.setattr(data.torchvision().datasets.SVHN, "_check_integrity", lambda self: True)
    train, _ = load("svhn")
    assert train.labels.tolist() == [0, 1, 2, 0, 9] and train.images.is_contiguous()
    assert np.array_equal(train.images.numpy(), pixels.transpose(3, 2, 0, 1))


@pytest.fixture
def any_integrity(monkeypatch):
    """Files that are not the published ones pass for them."""
    monkeypatch.setattr(data.torchvision().datasets.utils, "check_integrity", lambda *arguments: True)


def write_cifar100(folder, pixels, labels):
    """Made-up files of CIFAR-100. labels: {part: list}."""
    folder.mkdir()
    for part, numbers in labels.items():
        (folder / part).write_bytes(pickle.dumps({"data": pixels, "fine_labels": numbers}))
    (folder / "meta").write_bytes(b"never read")


def test_cifar100_is_read_with_its_superclasses(home, monkeypatch, request):
    pixels = np.random.default_rng(0).integers(0, 256, (4, 3072), dtype=np.uint8)
    write_cifar100(home / "cifar-100-python", pixels, {part: [0, 1, 99, 5] for part in ("train", "test")})
    small = dataclasses.replace(facts.PUBLISHED["cifar100"], train=4, test=4)
    monkeypatch.setitem(facts.PUBLISHED, "cifar100", small)
    with says("cifar100", "cifar-100-python", "train differs from the published one"):
        load("cifar100")
    request.getfixturevalue("any_integrity")
    train, _ = load("cifar100")
    assert np.array_equal(train.images.numpy().reshape(4, -1), pixels)
    assert train.labels.tolist() == [0, 1, 99, 5]
    assert (train.names[0], train.groups[0]) == ("apple", "fruit_and_vegetables")
    assert (train.names[99], train.groups[99]) == ("worm", "non-insect_invertebrates")
    assert len(set(train.names)) == 100
    assert [train.groups.count(group) for group in set(train.groups)] == [5] * 20


def fake_torchvision(monkeypatch, kind, dataset):
    module = types.SimpleNamespace(datasets=types.SimpleNamespace(**{kind: dataset}))
    monkeypatch.setattr(torchvision_sets, "torchvision", lambda: module)


def test_get_downloads_then_reads(home, monkeypatch):
    calls = []

    def dataset(root, train, download=False):
        calls.append((Path(root), train, download))
        pixels = torch.zeros(2, 28, 28, dtype=torch.uint8)
        return types.SimpleNamespace(data=pixels, targets=torch.zeros(2).long())

    small = dataclasses.replace(facts.PUBLISHED["mnist"], train=2, test=2, checksums=None)
    monkeypatch.setitem(facts.PUBLISHED, "mnist", small)
    fake_torchvision(monkeypatch, "MNIST", dataset)
    assert data.get("mnist") == home / "MNIST/raw"
    assert calls[:2] == [(home, True, True), (home, False, True)] and not any(call[2] for call in calls[2:])


def test_get_says_what_failed(monkeypatch):
    def dataset(root, train, download):
        raise URLError("no route to host")

    fake_torchvision(monkeypatch, "CIFAR10", dataset)
    with says("cifar10", "could not be downloaded", "no route to host", "network"):
        data.get("cifar10")
    with says("digits", "no download"):
        data.get("digits")
    with says("minst", "did you mean mnist"):
        data.get("minst")


def run_python(code, path):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(path), PACKAGE_ROOT])}
    return subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)


def test_torchvision_beside_a_torch_without_its_operators(tmp_path):
    """A made-up torchvision that fails at import as the GPU build does beside a CPU-only torch."""
    package = tmp_path / "torchvision"
    package.mkdir()
    (package / "__init__.py").write_text(
        "from . import half\nimport torch\n"
        "torch.library.register_fake('torchvision::nms')(lambda *a: None)\n"
        "torch.library.register_fake('torchvision::qnms')(lambda *a: None)\n"
        "value = half.made\n"
    )
    (package / "half.py").write_text("made = []\n")
    done = run_python(
        "import sys\nfrom clkit import data\n"
        "try:\n    import torchvision\nexcept RuntimeError as error:\n    print(error)\n"
        "old = sys.modules.get('torchvision.half')\n"
        "module = data.torchvision()\n"
        "print(module.value, module.half is not old, data.torchvision() is module)\n"
        "import gc, torch; gc.collect(); print(torch.ops.torchvision.nms)",
        tmp_path,
    )
    assert done.stdout.splitlines() == [
        "operator torchvision::nms does not exist",
        "[] True True",
        "torchvision.nms",
    ], done


@pytest.mark.parametrize(
    "source, answer",
    [
        ("value = 1", "1 []"),
        ("raise RuntimeError('boom')", "DataError .*boom.*torch "),
        ("raise ImportError('nothing here')", "DataError .*nothing here.*pip install torchvision"),
    ],
)
def test_any_other_torchvision_is_left_alone(tmp_path, monkeypatch, source, answer):
    for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(torchvision_sets, "_OPERATORS", [])
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "torchvision.py").write_text(source)
    try:
        said = f"{data.torchvision().value} {torchvision_sets._OPERATORS}"
    except DataError as error:
        said = f"DataError {error}"
    finally:
        sys.modules.pop("torchvision", None)
    assert re.fullmatch(answer.replace("[]", r"\[\]") + ".*", said), said


# Class folders


def write_image(path, colour=(200, 30, 30), size=(8, 8), mode="RGB"):
    path.parent.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(list(str(path).encode()))
    pixels = random.integers(0, 20, (size[1], size[0], 3)) + np.array(colour)
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).convert(mode).save(path)


@pytest.fixture
def animals(home):
    """A data set called animals: 2 classes, 3 + 2 images each, 8x8 RGB."""
    for part, count in (("train", 3), ("test", 2)):
        for name in ("cat", "dog"):
            for i in range(count):
                write_image(home / "animals" / part / name / f"{i}.png")
    return home / "animals"


def test_class_folders_are_read_by_name_and_by_path(animals):
    train, test = load("animals")
    assert (len(train), len(test), train.shape, train.names) == (6, 4, (3, 8, 8), ("cat", "dog"))
    assert train.labels.tolist() == [0, 0, 0, 1, 1, 1] and test.labels.tolist() == [0, 0, 1, 1]
    expected = np.asarray(Image.open(animals / "train" / "dog" / "1.png")).transpose(2, 0, 1)
    assert np.array_equal(train.images[4].numpy(), expected)
    other, _ = load(f"folder:{animals}")
    assert other.checksum() == train.checksum() and other.name == train.name == "animals"


def test_more_files_than_one_chunk_keep_their_places(home):
    for i in range(2 * folders._CHUNK + 3):
        write_image(home / "many" / "train" / "ab"[i % 2] / f"{i:04}.png", (i, i, i))
    for name in "ab":
        write_image(home / "many" / "test" / name / "x.png")
    train, _ = load("many")
    files = [path for name in "ab" for path in sorted((home / "many" / "train" / name).iterdir())]
    for image, path in zip(train.images, files):
        assert np.array_equal(image.numpy(), np.asarray(Image.open(path)).transpose(2, 0, 1))


def test_published_names_take_class_folders_too(animals):
    animals.rename(animals.parent / "cifar10")
    train, _ = load("cifar10")
    assert train.name == "cifar10" and train.names == ("cat", "dog")


def test_folder_without_parts_is_split_in_a_fixed_way(home):
    for name in ("cat", "dog"):
        for i in range(10):
            write_image(home / "whole" / name / f"{i}.png")
    train, test = load("whole")
    assert train.labels.bincount().tolist() == [8, 8] and test.labels.bincount().tolist() == [2, 2]
    together = {image.numpy().tobytes() for part in (train, test) for image in part.images}
    assert len(together) == 20 and load(f"folder:{home}/whole")[1].checksum() == test.checksum()
    assert train.name == test.name == "whole(split_seed=0, test_share=0.2)"  # whoever reads a record is told


def test_share_and_seed_of_an_undivided_folder(home):
    for name in ("cat", "dog"):
        for i in range(10):
            write_image(home / "whole" / name / f"{i}.png")
    usual = load("whole")[1]
    train, test = load("whole", test_share=0.4, side=4)
    assert train.labels.bincount().tolist() == [6, 6] and test.shape == (3, 4, 4)
    assert test.name == "whole(side=4, split_seed=0, test_share=0.4)"
    other = load("whole", split_seed=1)[1]
    assert len(other) == len(usual) and other.checksum() != usual.checksum()
    assert load("whole", split_seed=0, test_share=0.2)[1].checksum() == usual.checksum()


@pytest.mark.parametrize(
    "options, words",
    [
        ({"test_share": 0}, "between 0 and 1, .* such as 0.2, not 0"),
        ({"test_share": 1.0}, "between 0 and 1"),
        ({"test_share": "half"}, "not 'half'"),
        ({"test_share": 0.9}, "no training image of .*whole/cat, which has 3"),
        ({"split_seed": -1}, "whole number of at least 0, not -1"),
        ({"split_seed": 0.5}, "not 0.5"),
    ],
)
def test_divisions_that_cannot_be(home, options, words):
    for path in [home / "whole" / name / f"{i}.png" for name in ("cat", "dog") for i in range(3)]:
        write_image(path)
    with says(words):
        load("whole", **options)


def test_a_divided_folder_is_not_divided_again(animals):
    with says("animals is divided into train/ and test/", "leave them out"):
        load("animals", test_share=0.2)


@pytest.mark.parametrize("name", ["folder:", "folder: "])
def test_the_current_folder_is_not_taken_unasked(animals, monkeypatch, name):
    monkeypatch.chdir(animals)
    with says("names no folder", "folder:PATH"):
        load(name)
    assert not data.present(name)
    assert load("folder:.")[0].names == ("cat", "dog") and data.present("folder:.")


def test_grey_images_have_one_channel_until_a_colour_turns_up(animals):
    for path in animals.rglob("*.png"):
        write_image(path, mode="L")
    assert load("animals")[0].shape == (1, 8, 8)
    write_image(animals / "test" / "dog" / "1.png", mode="RGBA")
    train, test = load("animals")
    assert train.shape == test.shape == (3, 8, 8) and torch.equal(train.images[:, 0], train.images[:, 2])
    write_image(animals / "test" / "dog" / "0.png", mode="P")
    assert load("animals")[0].checksum() == train.checksum()


def test_nested_and_hidden_files(animals):
    (animals / "train" / "cat" / "images").mkdir()
    (animals / "train" / "cat" / "0.png").rename(animals / "train" / "cat" / "images" / "0.png")
    (animals / "train" / "cat" / ".DS_Store").write_bytes(b"x")
    (animals / "train" / ".hidden").mkdir()
    assert load("animals")[0].labels.tolist() == [0, 0, 0, 1, 1, 1]


def test_side_crops_the_middle_and_resizes(home):
    bands = np.zeros((10, 30, 3), dtype=np.uint8)
    bands[:, :10, 0], bands[:, 10:20, 1], bands[:, 20:, 2] = 255, 255, 255
    for part in ("train", "test"):
        for name in "ab":
            folder = home / "wide" / part / name
            folder.mkdir(parents=True)
            Image.fromarray(bands).save(folder / "0.png")
            Image.fromarray(bands.transpose(1, 0, 2)).save(folder / "1.png")
    train, _ = load("wide", side=6)
    assert train.shape == (3, 6, 6) and train.name == "wide(side=6)"
    green, rest = train.images[:, 1].float(), train.images[:, [0, 2]].float()
    assert green.min() > 230 and rest.max() < 25, "only the green middle is left"


def test_side_is_antialiased(home):
    fine = np.zeros((64, 64), dtype=np.uint8)
    fine[::2] = 255
    for part in ("train", "test"):
        for name in "ab":
            (home / "fine" / part / name).mkdir(parents=True)
            Image.fromarray(fine).save(home / "fine" / part / name / "0.png")
    train, _ = load("fine", side=8)
    assert (train.images.float() - 127.5).abs().max() < 20


@pytest.mark.parametrize("side", [0, -1, 2.5, "8", True])
def test_side_is_a_positive_whole_number(animals, side):
    with says("side=", "positive whole number"):
        load("animals", side=side)


def test_display_names_and_superclasses(animals):
    table = animals / "classes.csv"
    table.write_text("folder,name,group\ndog,Dog,canine\ncat,House cat,feline\nfox,Fox,canine\n")
    train, _ = load("animals")
    assert train.names == ("House cat", "Dog") and train.groups == ("feline", "canine")
    table.write_text("fine_index,fine_name,coarse_index,coarse_name\n0,cat,0,pet\n1,dog,0,pet\n")
    train, _ = load("animals")
    assert train.names == ("cat", "dog") and train.groups == ("pet", "pet")
    table.write_text("index,name\n0,cat\n1,dog\n")
    assert load("animals")[0].groups is None


@pytest.mark.parametrize(
    "text, words",
    [
        ("a,b\n1,2\n", ["classes.csv", "no column"]),
        ("", ["classes.csv", "no column"]),
        ("folder,name\ncat,Cat\n", ["classes.csv", "'dog'"]),
        ("folder,name,group\ncat,Cat,x\ndog,Dog,\n", ["classes.csv", "'dog'"]),
    ],
)
def test_bad_classes_csv_is_refused(animals, text, words):
    (animals / "classes.csv").write_text(text)
    with says(*words):
        load("animals")


def test_classes_csv_that_is_no_text(animals):
    (animals / "classes.csv").write_bytes(b"folder,name\n\xff\xfe,x\n")
    with says("classes.csv", "UTF-8"):
        load("animals")


def remove(folder):
    for path in sorted(folder.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    folder.rmdir()


def test_missing_folder(tmp_path):
    with says("no folder", "nowhere", "train/<class>"):
        load(f"folder:{tmp_path}/nowhere")


def test_folder_with_one_class(animals):
    remove(animals / "train" / "dog")
    with says("animals/train", "1 class folder,", "at least two"):
        load("animals")


def test_folder_with_no_class(tmp_path):
    with says("no class folders", "at least two"):
        load(f"folder:{tmp_path / 'root'}")


def test_empty_class(animals):
    for path in (animals / "test" / "cat").iterdir():
        path.unlink()
    with says("animals/test/cat", "empty"):
        load("animals")


@pytest.mark.parametrize("have, lack", [("train", "test"), ("test", "train")])
def test_folder_with_one_part(animals, have, lack):
    remove(animals / lack)
    with says(f"class folders in {have}/", f"none in {lack}/", "80 % training"):
        load("animals")


@pytest.mark.parametrize("have, lack", [("train", "test"), ("test", "train")])
def test_parts_with_different_classes(animals, have, lack):
    write_image(animals / have / "fox" / "0.png")
    with says("'fox'", f"in .*animals/{have} but not in .*animals/{lack}", "same class folders"):
        load("animals")


def test_class_too_small_to_split(home):
    for name, count in (("cat", 3), ("dog", 1)):
        for i in range(count):
            write_image(home / "whole" / name / f"{i}.png")
    with says("whole/dog", "one image", "too few"):
        load("whole")


def test_file_that_is_no_image_is_named(animals):
    (animals / "train" / "dog" / "notes.txt").write_text("not an image")
    with says("train/dog/notes.txt", "not an image file", "remove"):
        load("animals")


def test_truncated_image_is_named(animals):
    path = animals / "test" / "dog" / "1.png"
    path.write_bytes(path.read_bytes()[:-60])
    with says("test/dog/1.png", "cannot be read as an image", "replace"):
        load("animals")


def test_unreadable_file_is_named(animals, monkeypatch):
    opened = Image.open

    def refuse(path, *rest):
        if str(path).endswith("cat/2.png"):
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return opened(path, *rest)

    monkeypatch.setattr(folders.Image, "open", refuse)
    with says("train/cat/2.png", "cannot be read", "Permission denied"):
        load("animals")


def test_link_that_leads_nowhere_is_named(animals):
    (animals / "train" / "cat" / "9.png").symlink_to(animals / "gone.png")
    with says("train/cat/9.png", "No such file", "remove"):
        load("animals")


def test_sixteen_bit_image_is_named(animals):
    Image.fromarray(np.full((8, 8), 40000, dtype=np.uint16)).save(animals / "train" / "cat" / "0.png")
    with says("train/cat/0.png", "more than 8 bits", "convert"):
        load("animals")


def test_images_of_different_sizes(animals):
    write_image(animals / "train" / "dog" / "1.png", size=(9, 8))
    with says("differ in size", "train/dog/1.png is 9x8", "8x8", "side=N"):
        load("animals")
    assert load("animals", side=8)[0].shape == (3, 8, 8)


# The cache


def cached(home):
    return sorted((home / ".clkit-cache").iterdir()) if (home / ".clkit-cache").is_dir() else []


def forbid_decoding(monkeypatch):
    monkeypatch.setattr(folders, "_decode", lambda *arguments: pytest.fail("the images were decoded again"))


def test_second_load_reads_the_cache(animals, home, monkeypatch, capsys):
    first = load("animals")
    assert len(cached(home)) == 1 and capsys.readouterr().err == ""
    forbid_decoding(monkeypatch)
    for a, b in zip(first, load("animals")):
        assert torch.equal(a.images, b.images) and torch.equal(a.labels, b.labels) and a.names == b.names


def test_each_side_has_its_own_cache(animals, home):
    for side in (None, 4, 6):
        load("animals", **({} if side is None else {"side": side}))
    assert len(cached(home)) == 3 and load("animals", side=4)[0].shape == (3, 4, 4)


@pytest.mark.parametrize("change", ["add", "replace", "remove", "touch"])
def test_cache_follows_its_source(animals, capsys, change):
    load("animals")
    path = animals / "train" / "cat" / "1.png"
    if change == "add":
        write_image(path.with_name("9.png"))
    elif change == "replace":
        write_image(path, (0, 0, 250))
    elif change == "remove":
        path.unlink()
    else:
        os.utime(path, ns=(1, 1))
    train, _ = load("animals")
    assert "have changed since they were cached" in capsys.readouterr().err
    assert len(train) == 6 + (change == "add") - (change == "remove")
    last = np.asarray(Image.open(animals / "train" / "dog" / "2.png"))
    assert np.array_equal(train.images[-1].numpy().transpose(1, 2, 0), last)
    load("animals")
    assert capsys.readouterr().err == "", "it was cached again"


@pytest.mark.parametrize("damage", ["pixel", "cut", "empty", "text", "header"])
def test_damaged_cache_is_rebuilt(animals, home, capsys, damage):
    first = load("animals")
    (path,) = cached(home)
    whole = bytearray(path.read_bytes())
    if damage == "pixel":
        whole[len(whole) // 2] ^= 1
    instead = {"cut": whole[:-7], "empty": b"", "text": b"hello\n", "header": b'{"fingerprint": 3}\n'}
    path.write_bytes(instead.get(damage, whole))
    again = load("animals")
    assert [a.checksum() for a in again] == [a.checksum() for a in first]
    assert ("have changed" if damage == "header" else "damaged") in capsys.readouterr().err
    load("animals")
    assert capsys.readouterr().err == ""


def test_full_disk_while_caching(animals, home, monkeypatch, capsys):
    written = []

    def full(file, array, **options):
        file.write(b"x" * 100)
        written.append(file.name)
        if len(written) == 2:
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(cache.np, "save", full)
    train, _ = load("animals")
    said = capsys.readouterr().err
    assert len(train) == 6 and said.count("\n") == 1
    assert "could not be cached" in said and "No space left" in said and "CLKIT_DATA" in said
    assert cached(home) == []
    monkeypatch.undo()
    monkeypatch.setenv("CLKIT_DATA", str(home))
    assert load("animals")[0].checksum() == train.checksum() and len(cached(home)) == 1


def test_interrupt_while_caching_leaves_nothing(animals, home, monkeypatch):
    def interrupt(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(cache.os, "replace", interrupt)
    with pytest.raises(KeyboardInterrupt):
        load("animals")
    assert cached(home) == []


def test_kill_before_the_rename_is_harmless_and_cleared(animals, home, capsys):
    done = run_python(
        "import os\nfrom clkit import data\nos.replace = lambda *a: os._exit(9)\ndata.load('animals')", ""
    )
    assert done.returncode == 9
    (leftover,) = cached(home)
    assert leftover.name.endswith(".part")
    leftover.write_bytes(leftover.read_bytes()[:100])
    assert len(load("animals")[0]) == 6 and capsys.readouterr().err == ""
    assert len(cached(home)) == 1 and not leftover.exists()


@pytest.mark.parametrize(
    "writer, old, kept",
    [
        (str(os.getpid()), False, True),  # which is still writing
        ("1", False, True),
        (str(2**22 + 1), False, False),  # more than Linux gives to a process
        (str(10**30), False, True),
        ("someone", False, True),
        ("1", True, False),
    ],
    ids=["this process", "another", "ended", "no number", "a name", "old"],
)
def test_only_what_ended_processes_left_is_cleared(animals, home, writer, old, kept):
    load("animals", side=4)
    other = home / ".clkit-cache" / f"other-0123.images.{writer}-ab12.part"
    other.write_bytes(b"x")
    if old:
        os.utime(other, (1, 1))
    load("animals", side=6)
    assert other.exists() == kept


def test_cache_goes_home_where_the_root_is_read_only(animals, home, tmp_path, monkeypatch):
    access = os.access
    monkeypatch.setattr(cache.os, "access", lambda path, mode: Path(path) != home and access(path, mode))
    load("animals")
    assert cached(home) == [] and len(cached(tmp_path / "cache" / "clkit")) == 1


def test_cache_is_no_pickle(animals, home):
    load("animals")
    (path,) = cached(home)
    with path.open("rb") as file:
        assert set(json.loads(file.readline())) == {"fingerprint", "checksums"}
        arrays = [np.load(file, allow_pickle=False) for _ in range(4)]
    assert [array.dtype for array in arrays] == [np.uint8, np.int64] * 2


def test_progress_is_quiet_when_not_a_terminal(animals, capsys):
    load("animals")
    assert capsys.readouterr() == ("", "")


# Names


def test_what_is_present_is_listed_without_torch(animals, home):
    write_classes(home / "cifar10", facts.PUBLISHED["cifar10"].names)
    for part in ("train", "t10k"):
        write_idx(home / "MNIST" / "raw", part=part)
    (home / "notes").mkdir()
    names = [
        "digits",
        "mnist",
        "svhn",
        "cifar10",
        "cifar10-100",
        "animals",
        f"folder:{animals}",
        "notes",
        f"folder:{home}/nowhere",
        "nosuch",
        "",
        "..",
        f"{home.name}/../{home.name}",
    ]
    done = run_python(
        f"import sys; from clkit import data; print(*(data.present(n) for n in {names}))\n"
        "print({'torch', 'numpy', 'PIL'} & set(sys.modules), data.root())",
        "",
    )
    assert done.stdout.splitlines() == [
        "True True False True False True True" + " False" * 6,
        f"set() {home}",
    ], done


def test_presence_agrees_with_the_catalogue(cifars, animals):
    def agree():
        rows = data.catalogue()
        assert {row.name: row.present for row in rows} == {row.name: data.present(row.name) for row in rows}
        return {row.name for row in rows if row.present}

    assert agree() == {"digits", "digits28", "shapes", "cifar10", "cifar100", "cifar10-100", "animals"}
    remove(cifars / "cifar100")
    remove(animals / "test")
    assert agree() == {"digits", "digits28", "shapes", "cifar10"}


def test_public_names_come_when_they_are_asked_for():
    assert all(hasattr(data, name) for name in data.__all__) and set(data.__all__) <= set(dir(data))
    assert {
        "load",
        "get",
        "catalogue",
        "root",
        "ImageSet",
        "DataError",
        "Stream",
        "Task",
        "StreamError",
        "stratified_split",
        "torchvision",
        "present",
        "read_order",
    } <= set(data.__all__)
    assert data.load is data.sets.load and data.shapes.SIDE == 32
    with pytest.raises(AttributeError, match="'clkit.data' has no attribute 'lead'"):
        _ = data.lead


def test_folder_that_may_not_be_entered_stops_nothing_else(animals, home, monkeypatch):
    (home / "lost+found").mkdir()
    opened = os.scandir

    def refuse(path):
        if str(path).startswith(str(home / "lost+found")):
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return opened(path)

    monkeypatch.setattr(os, "scandir", refuse)
    monkeypatch.setattr(
        Path, "is_dir", lambda self: bool(refuse(self) if "lost" in str(self) else os.path.isdir(self))
    )
    assert len(load("digits")[0]) == 1438 and len(load("animals")[0]) == 6
    (row,) = [row for row in data.catalogue() if row.name == "lost+found"]
    assert not row.present and not data.present("lost+found")
    assert f"{home}/lost+found" in row.how_to_get and "cannot be read (Permission denied)" in row.how_to_get
    with says("lost.found cannot be read", "Permission denied", "choose another folder"):
        load(f"folder:{home}/lost+found")


def test_errors_have_one_base():
    assert issubclass(DataError, ClkitError) and issubclass(data.StreamError, ClkitError)
    assert issubclass(ClkitError, ValueError)
    assert did_you_mean("minst", ["mnist", "svhn"]) == "; did you mean mnist?"
    assert did_you_mean("digit", ["digits", "digits28", "svhn"]) == "; did you mean digits or digits28?"
    assert did_you_mean("qqqq", ["mnist"]) == ""


@pytest.mark.parametrize("name", [3, None, Path("animals")])
def test_name_that_is_no_text(name):
    with says("name must be a string", "folder:PATH"):
        load(name)


@pytest.mark.parametrize(
    "name, near",
    [
        ("minst", "mnist"),
        ("CIFAR-10", "cifar10"),
        ("digit", "digits"),
        ("fashionmnist", "fashion_mnist"),
        ("animal", "animals"),
    ],
)
def test_unknown_name_offers_the_nearest(animals, name, near):
    with says(f"no data set '{name}'", "folder:PATH", rf"; did you mean .*{near}.*\?$"):
        load(name)


def test_unknown_name_without_a_neighbour_lists_all():
    with says("'qqqq'", "digits28", "cifar100", "folder:PATH"):
        load("qqqq")
    with says("no data set"):
        load("../etc")


@pytest.mark.parametrize(
    "name, option, words",
    [
        ("digits", "sides", ["digits has no option 'sides'", "did you mean side"]),
        ("shapes", "dificulty", ["shapes has no option 'dificulty'", "did you mean difficulty"]),
        ("animals", "sides", ["animals has no option 'sides'", "did you mean side"]),
    ],
)
def test_unknown_option_offers_the_nearest(animals, name, option, words):
    with says(*words):
        load(name, **{option: 3})


def test_root_is_the_variable_or_a_cache_folder(monkeypatch, tmp_path):
    assert data.root() == tmp_path / "root"
    monkeypatch.setenv("CLKIT_DATA", "~/here")
    assert data.root() == Path.home() / "here"
    monkeypatch.setenv("CLKIT_DATA", "")
    assert data.root() == tmp_path / "cache" / "clkit"


def test_catalogue_lists_what_is_there_and_what_is_not(animals, small_mnist, home):
    rows = {row.name: row for row in data.catalogue()}
    assert list(rows) == ["digits", "digits28", "shapes", *facts.PUBLISHED, *facts.COMBINED, "animals"]
    for name in ("digits", "digits28"):
        train, test = load(name)
        assert (rows[name].train, rows[name].test, rows[name].shape) == (len(train), len(test), train.shape)
    assert rows["mnist"].present and rows["mnist"].where == str((home / "MNIST/raw").resolve())
    assert not rows["svhn"].present and rows["svhn"].how_to_get == "python -m clkit data get svhn"
    assert rows["animals"] == data.Entry("animals", True, str(animals), 6, 4, 2, (3, 8, 8), "already here")


def test_catalogue_says_what_is_wrong_with_a_folder(animals):
    remove(animals / "test")
    (row,) = [row for row in data.catalogue() if row.name == "animals"]
    assert not row.present and "none in test/" in row.how_to_get


def test_what_is_drawn_from_a_set_made_like_another_counts_for_both():
    train, _ = data.load("digits")
    more = train.like(train.images[:7], train.labels[:7])
    for _ in more.batches(3):
        pass
    assert more.n_samples == train.n_samples == 7 and more.names == train.names and not more.single_pass


# CIFAR-10 and half of CIFAR-100


def write_classes(folder, names, side=32):
    """Class folders with one image per class and part; red is the class number, green the part number."""
    for green, part in enumerate(("train", "test")):
        for k, name in enumerate(names):
            (folder / part / name).mkdir(parents=True)
            Image.new("RGB", (side, side), (k, green, 7)).save(folder / part / name / "0.png")


@pytest.fixture
def cifars(home):
    """Both sets as class folders under their names, with one image per class and part."""
    for name in ("cifar10", "cifar100"):
        write_classes(home / name, facts.PUBLISHED[name].names)
    return home


def test_cifar10_100_is_cifar10_and_behind_it_half_of_cifar100(cifars):
    for green, loaded in enumerate(load("cifar10-100")):
        assert (loaded.name, loaded.shape, loaded.groups) == ("cifar10-100", (3, 32, 32), None)
        assert loaded.labels.tolist() == list(range(60))
        assert loaded.images[:, 0].float().mean((1, 2)).tolist() == [*range(10), *range(50)]
        assert (loaded.images[:, 1] == green).all()
        assert loaded.names == load("cifar10")[0].names + load("cifar100")[0].names[:50]
        assert (loaded.names[9], loaded.names[10], loaded.names[59]) == ("truck", "apple", "mountain")
        assert loaded.classes == len(set(loaded.names)) == 60


def test_cifar10_100_takes_class_folders_beside_published_files(home, monkeypatch, any_integrity):
    write_classes(home / "cifar10", facts.PUBLISHED["cifar10"].names)
    pixels = np.random.default_rng(0).integers(0, 256, (6, 3072), dtype=np.uint8)
    labels = {"train": [70, 49, 0, 50, 0, 99], "test": [49, 1, 2, 3, 4, 50]}
    write_cifar100(home / "cifar-100-python", pixels, labels)
    small = dataclasses.replace(facts.PUBLISHED["cifar100"], train=6, test=6)
    monkeypatch.setitem(facts.PUBLISHED, "cifar100", small)
    train, test = load("cifar10-100")
    assert train.labels.tolist() == [*range(10), 59, 10, 10]
    assert np.array_equal(train.images[10:].numpy().reshape(3, -1), pixels[[1, 2, 4]])
    assert test.labels.tolist() == [*range(10), 59, 11, 12, 13, 14]


@pytest.mark.parametrize(
    "there, missing, fetch",
    [
        ((), "cifar10 and cifar100", "cifar10-100"),
        (["cifar10"], "cifar100", "cifar100"),
        (["cifar100"], "cifar10", "cifar10"),
    ],
)
def test_cifar10_100_says_which_of_the_two_is_missing(home, monkeypatch, there, missing, fetch):
    for name in there:
        write_classes(home / name, facts.PUBLISHED[name].names)
    monkeypatch.setattr(
        torchvision_sets, "load_published", lambda *_: pytest.fail("one was read for nothing")
    )
    with says(
        "cifar10-100 is made of cifar10 and cifar100",
        f"but {missing} cannot be found in {home}",
        f"`python -m clkit data get {fetch}`",
        "CLKIT_DATA",
    ):
        load("cifar10-100")


def test_cifar10_100_of_an_incomplete_set_is_refused(cifars):
    remove(cifars / "cifar10")
    (cifars / "cifar-10-batches-py").mkdir()
    (cifars / "cifar-10-batches-py" / "test_batch").write_bytes(b"")
    with says("cifar10 is incomplete", "data_batch_1", "data get cifar10"):
        load("cifar10-100")


@pytest.mark.parametrize("names, side", [(("cat", "dog"), 32), (None, 8)])
def test_cifar10_100_of_other_class_folders_is_refused(cifars, names, side):
    remove(cifars / "cifar10")
    write_classes(cifars / "cifar10", names or facts.PUBLISHED["cifar10"].names, side)
    assert len(load("cifar10")[0]) == (2 if names else 10)
    with says("cifar10-100 cannot be made", str(cifars / "cifar10"), "airplane to truck", "32x32"):
        load("cifar10-100")
    (row,) = [row for row in data.catalogue() if row.name == "cifar10-100"]
    assert not row.present and row.how_to_get == "python -m clkit data get cifar10-100"


def test_cifar10_100_has_one_option(cifars):
    with says("cifar10-100 has no option 'families'", "it has side"):
        load("cifar10-100", families=8)


def test_cifar10_100_stands_once_in_the_catalogue(cifars):
    write_classes(cifars / "cifar10-100", ("cat", "dog"))
    (row,) = [row for row in data.catalogue() if row.name == "cifar10-100"]
    assert row == data.Entry(
        "cifar10-100",
        True,
        f"{cifars / 'cifar10'} and {cifars / 'cifar100'}",
        60,
        60,
        60,
        (3, 32, 32),
        "already here",
    )
    assert load("cifar10-100")[0].classes == 60
    remove(cifars / "cifar100")
    (row,) = [row for row in data.catalogue() if row.name == "cifar10-100"]
    assert (row.present, row.how_to_get) == (False, "python -m clkit data get cifar10-100")
    assert (row.train, row.test, row.classes, row.shape) == (75000, 15000, 60, (3, 32, 32))


def test_get_of_cifar10_100_fetches_both_and_executes_neither(home, monkeypatch, any_integrity):
    datasets, fetched = data.torchvision().datasets, []

    def fetch(url, folder, filename, md5):
        fetched.append((url, Path(folder), md5))
        folder = Path(folder) / ("cifar-10-batches-py" if "cifar-10-" in url else "cifar-100-python")
        folder.mkdir()
        for file in facts.PUBLISHED["cifar10" if "cifar-10-" in url else "cifar100"].files:
            entry = {"data": np.zeros((1, 3072), dtype=np.uint8), "labels": [3]}
            (folder / file).write_bytes(pickle.dumps(entry))

    monkeypatch.setattr(datasets.utils, "download_and_extract_archive", fetch)
    for name, train in (("cifar10", 5), ("cifar100", 1)):
        monkeypatch.setattr(getattr(datasets, facts.PUBLISHED[name].kind), "__init__", None)
        small = dataclasses.replace(facts.PUBLISHED[name], train=train, test=1)
        monkeypatch.setitem(facts.PUBLISHED, name, small)
    for _ in range(2):  # once only
        assert data.get("cifar10-100") == home
    kinds = datasets.CIFAR10, datasets.CIFAR100
    assert fetched == [(kind.url, home, kind.tgz_md5) for kind in kinds]


def test_an_unknown_name_offers_cifar10_100():
    with says("'cifar10_100'", "did you mean .*cifar10-100"):
        load("cifar10_100")


# Joined sets


def test_joined_sets_follow_one_another(home):
    write_classes(home / "birds", ("crow", "wren"))
    write_classes(home / "tools", ("axe", "bow", "saw"), side=16)
    for green, loaded in enumerate(load("birds+tools", side=8)):
        assert loaded.name == "birds+tools(side=8)" and loaded.shape == (3, 8, 8)
        assert loaded.names == ("crow", "wren", "axe", "bow", "saw")
        assert loaded.groups == ("birds",) * 2 + ("tools",) * 3
        assert loaded.labels.tolist() == [0, 1, 2, 3, 4]
        assert loaded.images[:, 0, 0, 0].tolist() == [0, 1, 0, 1, 2]
        assert (loaded.images[:, 1] == green).all()
    assert data.present("birds+tools") and not data.present("birds+planes")
    with says("parts of birds.tools differ", r"birds \(3, 32, 32\), tools \(3, 16, 16\)", "give side=N"):
        load("birds+tools")
    with says("no data set 'tool'", "did you mean tools"):
        load("birds+tool")
    with says("no option 'families'", "it has side"):
        load("birds+tools", families=2)


def test_an_embedded_set_can_be_joined():
    train, _ = load("digits+digits28", side=8)
    assert train.classes == 20 and train.labels.max() == 19 and len(train) == 2 * 1438
