"""Class folders that stay on disk: the same images, batches and streams as in memory, and their cache."""

import dataclasses
import errno
import json
import os
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from clkit import experiments
from clkit.data import DataError, Stream, facts, folders, large, load
from clkit.data.on_disk import OnDisk
from clkit.engine.run import run

SIDE = 6
COUNTS = {"train": 7, "test": 3}


@pytest.fixture
def pets(tmp_path, monkeypatch):
    """A data set called pets: three classes of 7 + 3 images of random colours, 9x8."""
    monkeypatch.setenv("CLKIT_DATA", str(tmp_path / "data"))
    draw, root = np.random.default_rng(0), tmp_path / "data" / "pets"
    for part, count in COUNTS.items():
        for name in ("cat", "dog", "eel"):
            (root / part / name).mkdir(parents=True)
            for i in range(count):
                pixels = draw.integers(0, 256, (8, 9, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(root / part / name / f"{i}.png")
    return root


@pytest.fixture
def small(monkeypatch):
    """Everything that is resized stays on disk, four images in a block."""
    monkeypatch.setattr(large, "IN_MEMORY", 0)
    monkeypatch.setattr(large, "_BLOCK", 4 * 3 * SIDE**2 + 50)


@pytest.fixture
def both(pets, monkeypatch):
    """The two sets in memory, and the same on disk."""
    in_memory = load("pets", side=SIDE)
    monkeypatch.setattr(large, "IN_MEMORY", 0)
    monkeypatch.setattr(large, "_BLOCK", 4 * 3 * SIDE**2 + 50)
    return in_memory, load("pets", side=SIDE)


def blocks_of(root):
    (folder,) = (root.parent / ".clkit-cache").glob("*.blocks")
    return sorted(folder.glob("*.npy"))


def decoded(monkeypatch):
    """The list of files that are decoded to colour images from now on."""
    found, decode = [], folders.decode_file

    def note(path, side, channels):
        found.extend([path] * (channels == 3))
        return decode(path, side, channels)

    monkeypatch.setattr(folders, "decode_file", note)
    return found


def same_batches(a, b, **options):
    torch.manual_seed(5)
    first = list(a.batches(4, **options))
    torch.manual_seed(5)
    second = list(b.batches(4, **options))
    return len(first) == len(second) and all(
        torch.equal(x, u) and torch.equal(y, v) for (x, y), (u, v) in zip(first, second)
    )


# ---- the same as in memory


def test_images_on_disk_are_those_in_memory(both):
    for held, read in zip(*both):
        assert torch.is_tensor(held.images) and isinstance(read.images, OnDisk)
        assert torch.equal(read.images[:], held.images) and torch.equal(read.labels, held.labels)
        assert (read.names, read.name, read.shape, len(read)) == (
            held.names,
            held.name,
            held.shape,
            len(held),
        )
        assert read.checksum() == held.checksum() == read._sha256(read.images.split(2))


@pytest.mark.parametrize(
    "options", [{}, {"shuffle": False}, {"drop_last": True}, {"epochs": 3}, {"epochs": 2, "reshuffle": False}]
)
def test_batches_are_equal_bit_for_bit(both, options):
    (held, _), (read, _) = both
    assert same_batches(held, read, **options)
    assert not same_batches(held.select(slice(1, None)), read, **options), "other images give other batches"


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"order": 3, "val": 0.3},
        {"order": ("eel", "cat"), "max_per_class": 4, "seed": 2},
        {"shuffle_images": 1, "max_per_class": 5},
    ],
    ids=["all", "validation", "fewer", "shuffled"],
)
def test_streams_are_equal_and_read_nothing_when_made(both, options, monkeypatch):
    sizes = (1, 1) if options.get("max_per_class") == 4 else (2, 1)
    held = Stream(*both[0], sizes, **options)
    with monkeypatch.context() as patch:
        patch.setattr(OnDisk, "_read", lambda *_: pytest.fail("images were read"))
        read = Stream(*both[1], sizes, **options)
        assert read.digest() == Stream(*both[1], sizes, **options).digest() != held.digest()
    assert read.about() == held.about()
    for one, other in ((held, read), (held.merged(), read.merged())):
        assert same_batches(one.test, other.test)
        for a, b in zip(one, other):
            assert same_batches(a.train, b.train) and isinstance(b.train.images, OnDisk)
            assert a.val is None or same_batches(a.val, b.val)


INDICES = [3, -1, slice(2, 9), slice(None, None, 5), torch.tensor([20, 0, 0, 7]), torch.arange(21) % 3 == 1]


@pytest.mark.parametrize("index", INDICES, ids=str)
def test_an_index_reads_as_that_of_a_tensor(both, index):
    (held, _), (read, _) = both
    assert torch.equal(read.images[index], held.images[index])
    if not isinstance(index, int):
        few = read.select(index).images
        assert isinstance(few, OnDisk) and torch.equal(few[:], held.images[index])


def test_images_of_a_memory_follow_those_on_disk(both):
    more = torch.arange(2 * 3 * SIDE**2).to(torch.uint8).view(2, 3, SIDE, SIDE)
    held, read = (sets[0].followed_by(more, torch.tensor([1, 0])) for sets in both)
    assert isinstance(read.images, OnDisk) and len(read) == 23
    assert torch.equal(read.images[:], held.images) and torch.equal(read.labels, held.labels)
    assert same_batches(held, read) and both[1][0].n_samples == both[0][0].n_samples == 23


def test_what_needs_a_tensor_reads_all_images_if_there_is_memory(both, monkeypatch):
    (held, _), (read, _) = both
    assert torch.equal(torch.cat([read.images, held.images]), torch.cat([held.images] * 2))
    assert torch.equal(read.images.flatten(1), held.images.flatten(1))
    assert torch.equal(read.resized(3).images, held.resized(3).images)
    monkeypatch.setattr(facts.Path, "read_text", lambda self: "1000")
    with pytest.raises(DataError, match="21 images of .3, 6, 6. would take .* GB of memory.*use fewer"):
        torch.cat([read.images, held.images])


@pytest.mark.parametrize("method", ["gfr", "lucir", "fetril", "icarl-cnn"])
def test_methods_cannot_tell(both, method):
    chosen = experiments.experiment(f"{method}/cifar100-50-5", "smoke")
    config = dataclasses.replace(chosen.config, batch_size=7)  # no batch of a single image is left
    ends = [run(chosen.learner, config, Stream(*sets, (2, 1)), record="loss", threads=1)[1] for sets in both]
    assert np.array_equal(ends[0].predictions, ends[1].predictions)
    np.testing.assert_equal(ends[0].trace, ends[1].trace)


def test_the_images_of_imagenet_stay_on_disk(tmp_path, monkeypatch):
    monkeypatch.setenv("CLKIT_DATA", str(tmp_path))
    monkeypatch.setattr(large, "IN_MEMORY", 99 * 2 * 3 * 256**2)
    for part in ("train", "test"):
        for k in range(100):
            folder = tmp_path / "imagenet100" / part / f"n{k:03}"
            folder.mkdir(parents=True)
            Image.new("RGB", (4, 4), (k, 0, 0)).save(folder / "a.png")
    stream = experiments.stream("imagenet100-50-5", "paper")
    assert stream.shape == (3, 256, 256) and [len(task.train) for task in stream] == [50, *[10] * 5]
    for task in stream:
        assert isinstance(task.train.images, OnDisk)
        reds = {int(y): int(255 * x[0, 0, 0, 0] + 0.5) for x, y in task.train.batches(1, shuffle=False)}
        assert reds == {k: stream.order[k] for k in range(task.first, task.seen)}


# ---- the cache


def test_second_load_decodes_nothing(pets, small, monkeypatch, capsys):
    first = [part.checksum() for part in load("pets", side=SIDE)]
    files = decoded(monkeypatch)
    assert [part.checksum() for part in load("pets", side=SIDE)] == first
    assert files == [] and capsys.readouterr().err == ""
    assert len(blocks_of(pets)) == 3 * (2 + 1), "a block is of one class and one part"


def test_small_and_unresized_folders_stay_in_memory(pets, monkeypatch):
    monkeypatch.setattr(large, "IN_MEMORY", 3 * SIDE**2 * 30)
    assert torch.is_tensor(load("pets", side=SIDE)[0].images)
    monkeypatch.setattr(large, "IN_MEMORY", 3 * SIDE**2 * 30 - 1)
    assert isinstance(load("pets", side=SIDE)[0].images, OnDisk)
    assert torch.is_tensor(load("pets")[0].images)


def test_an_interrupted_cache_is_continued(pets, small, monkeypatch):
    with monkeypatch.context() as patch:
        seen, write = [], large.written

        def stop(path):
            seen.append(path)
            if len(seen) == 4:
                raise KeyboardInterrupt
            return write(path)

        patch.setattr(large, "written", stop)
        with pytest.raises(KeyboardInterrupt):
            load("pets", side=SIDE)
    before = blocks_of(pets)
    assert len(before) == 3
    files = decoded(monkeypatch)
    found = [part.checksum() for part in load("pets", side=SIDE)]
    assert len(files) == 30 - (4 + 3 + 4) and set(before) < set(blocks_of(pets))
    monkeypatch.undo()
    monkeypatch.setenv("CLKIT_DATA", str(pets.parent))
    assert [part.checksum() for part in load("pets", side=SIDE)] == found


def test_a_killed_process_leaves_what_is_continued_and_cleared(pets, small, monkeypatch):
    code = (
        "import os\nfrom clkit.data import large, load\n"
        f"large.IN_MEMORY, large._BLOCK = 0, {large._BLOCK}\n"
        "replace, done = os.replace, []\n"
        "os.replace = lambda *a: os._exit(9) if len(done) == 2 else (done.append(1), replace(*a))\n"
        f"load('pets', side={SIDE})"
    )
    assert subprocess.run([sys.executable, "-c", code], env=os.environ).returncode == 9
    (folder,) = (pets.parent / ".clkit-cache").iterdir()
    assert len(blocks_of(pets)) == 2 and len(list(folder.glob("*.part"))) == 1
    files = decoded(monkeypatch)
    load("pets", side=SIDE)
    assert len(files) == 30 - (4 + 3) and list(folder.glob("*.part")) == []


@pytest.mark.parametrize("change", ["replace", "touch", "remove", "add"])
def test_only_blocks_of_changed_pictures_are_made_anew(pets, small, monkeypatch, capsys, change):
    load("pets", side=SIDE)
    before = set(blocks_of(pets))
    path = pets / "train" / "dog" / "5.png"
    if change in ("replace", "add"):
        Image.new("RGB", (8, 8), (9, 9, 200)).save(path if change == "replace" else path.with_name("9.png"))
    elif change == "touch":
        os.utime(path, ns=(1, 1))
    else:
        path.unlink()
    files = decoded(monkeypatch)
    train, _ = load("pets", side=SIDE)
    assert "pets: the files in " in (said := capsys.readouterr().err) and "have changed" in said
    after = set(blocks_of(pets))
    assert len(before - after) == len(after - before) == 1 and len(files) == len(train) - 21 + 3
    assert {os.path.basename(os.path.dirname(file)) for file in files} == {"dog"}
    monkeypatch.setattr(large, "IN_MEMORY", 10**9)
    assert load("pets", side=SIDE)[0].checksum() == train.checksum()


@pytest.mark.parametrize("damage", ["cut", "pixel", "gone"])
def test_a_damaged_block_is_made_anew(pets, small, monkeypatch, capsys, damage):
    first = [part.checksum() for part in load("pets", side=SIDE)]
    path = blocks_of(pets)[0]
    whole = bytearray(path.read_bytes())
    whole[-1] ^= 1
    path.write_bytes(whole[:-7] if damage == "cut" else whole)
    os.utime(path, ns=(1, 1))
    if damage == "gone":
        path.unlink()
    files = decoded(monkeypatch)
    sets = load("pets", side=SIDE)
    assert [part._sha256(part.images.split(9)) for part in sets] == first
    assert 1 <= len(files) <= 4
    assert f"is damaged; reading {len(files)} images again" in capsys.readouterr().err
    load("pets", side=SIDE)
    assert capsys.readouterr().err == ""


def test_a_damaged_summary_costs_no_decoding(pets, small, monkeypatch):
    first = [part.checksum() for part in load("pets", side=SIDE)]
    files = decoded(monkeypatch)
    for text in ("", "{}", "[1, 2]", '{"fingerprint": 3}'):
        (blocks_of(pets)[0].parent / "whole.json").write_text(text)
        assert [part.checksum() for part in load("pets", side=SIDE)] == first
    assert files == []


def test_a_full_disk_is_one_sentence_and_loses_nothing(pets, small, monkeypatch):
    saved, save = [], np.save

    def full(file, array, **options):
        if len(saved) == 2:
            raise OSError(errno.ENOSPC, "No space left on device")
        saved.append(file.name)
        save(file, array, **options)

    with monkeypatch.context() as patch:
        patch.setattr(large.np, "save", full)
        with pytest.raises(
            DataError, match="^pets: .* cannot be written to .*No space left.*CLKIT_DATA.*kept$"
        ):
            load("pets", side=SIDE)
    assert len(blocks_of(pets)) == 2
    files = decoded(monkeypatch)
    load("pets", side=SIDE)
    assert len(files) == 30 - 7


def test_a_disk_that_is_too_small_is_refused_before_the_work(pets, small, monkeypatch):
    monkeypatch.setattr(large.shutil, "disk_usage", lambda folder: SimpleNamespace(free=4000))
    files = decoded(monkeypatch)
    with pytest.raises(
        DataError, match=r"would take 0.0 GB on disk, but 0.0 GB are free in .*smaller side=N"
    ):
        load("pets", side=SIDE)
    assert files == [] and blocks_of(pets) == []


def test_a_block_that_vanishes_during_a_run_is_named(pets, small):
    train, _ = load("pets", side=SIDE)
    path = train.images.blocks[0]
    os.unlink(path)
    with pytest.raises(DataError, match=f"{path} cannot be read .*: the next load reads its images again"):
        list(train.batches(5))


@pytest.mark.parametrize("coloured", [False, True])
def test_grey_pictures_have_one_channel_unless_one_has_colours(pets, monkeypatch, coloured):
    for k, path in enumerate(sorted(pets.rglob("*.png"))):
        if not coloured or k < 29:
            Image.open(path).convert("L").save(path)
    held = load("pets", side=SIDE)
    monkeypatch.setattr(large, "IN_MEMORY", 0)
    for _ in range(2):
        for a, b in zip(held, load("pets", side=SIDE)):
            assert a.shape[0] == 1 + 2 * coloured and torch.equal(b.images[:], a.images)
    assert len(blocks_of(pets)) == 6, "blocks of one channel are cleared"


def test_cache_is_no_pickle(pets, small):
    load("pets", side=SIDE)
    for path in blocks_of(pets):
        assert np.load(path, allow_pickle=False).dtype == np.uint8
    known = json.loads((path.parent / "whole.json").read_text())
    assert set(known) == {"fingerprint", "shape", "checksums", "blocks"} and len(known["blocks"]) == 9


@pytest.mark.skipif(not os.path.exists("/proc/self/maps"), reason="needs Linux's list of mappings")
def test_files_are_mapped_only_while_they_are_read(pets, small):
    def mapped():
        with open("/proc/self/maps") as lines:
            return sum(".npy" in text for text in lines)

    train, _ = load("pets", side=SIDE)
    for x, _ in train.batches(5):
        assert len(x) and mapped() == 0
    held = np.load(train.images.blocks[0], mmap_mode="r")
    assert len(held) and mapped() == 1, "a mapping that is kept would be seen"
