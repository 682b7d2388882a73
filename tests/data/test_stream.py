"""Streams: tasks, relabelling, validation, caps, isolation, and all error messages of stream.py."""

import functools
import gc
import itertools
import json
import operator

import numpy as np
import pytest
import torch

from clkit.data import ImageSet, Stream, StreamError, Task, read_order


def numbered(n=120, classes=10, start=0, groups=True):
    """Images that hold their own index in their first pixels, with labels in mixed order."""
    random = np.random.default_rng(start)
    images = torch.zeros(n, 1, 2, 2, dtype=torch.uint8)
    number = torch.arange(start, start + n)
    images[:, 0, 0, 0], images[:, 0, 0, 1] = (number // 256).byte(), (number % 256).byte()
    labels = torch.from_numpy(random.permutation(np.arange(n) % classes))
    groups = [f"g{k // 2}" for k in range(classes)] if groups else None
    return ImageSet(images, labels, [f"class {k}" for k in range(classes)], groups, name="numbered")


def numbers(images):
    return (images.images[:, 0, 0, 0].long() * 256 + images.images[:, 0, 0, 1].long()).tolist()


@pytest.fixture
def sets():
    return numbered(), numbered(50, start=1000)


def says(*words):
    return pytest.raises(StreamError, match="^" + "".join(f"(?=.*{word})" for word in words) + ".*$")


# Tasks


def test_tasks_hold_their_classes_and_all_their_images(sets):
    stream = Stream(*sets, (2,) * 5)
    assert (len(stream), stream.classes_per_task, stream.classes) == (5, (2,) * 5, 10)
    assert stream.seen == (2, 4, 6, 8, 10)
    everything = []
    for t, task in enumerate(stream):
        assert isinstance(task, Task) and (task.index, task.first, task.seen) == (t, 2 * t, 2 * t + 2)
        assert task.val is None and set(task.train.labels.tolist()) == {2 * t, 2 * t + 1}
        everything += numbers(task.train)
    assert sorted(everything) == list(range(120)) and stream.shape == (1, 2, 2)


def test_uneven_tasks(sets):
    stream = Stream(*sets, (5, 1, 4))
    assert [(task.first, task.seen) for task in stream] == [(0, 5), (5, 6), (6, 10)]
    assert [set(task.train.labels.tolist()) for task in stream] == [{0, 1, 2, 3, 4}, {5}, {6, 7, 8, 9}]


@pytest.mark.parametrize(
    "order", [None, 7, [3, 1, 4, 0, 5, 9, 2, 6, 8, 7], np.arange(10)[::-1], torch.arange(10)]
)
def test_relabelling_leads_back_to_the_original(sets, order):
    train, test = sets
    stream = Stream(train, test, (4, 3, 3), order=order)
    assert sorted(stream.order) == list(range(10))
    parts = [task.train for task in stream]
    for part in [*parts, stream.test]:
        source = train if part is not stream.test else test
        for number, arrived in zip(numbers(part), part.labels.tolist()):
            assert stream.order[arrived] == int(source.labels[number - (1000 if part is stream.test else 0)])
            assert part.names[arrived] == source.names[stream.order[arrived]]
    assert stream.names == tuple(train.names[k] for k in stream.order)
    assert stream.groups == tuple(train.groups[k] for k in stream.order)


def test_order_from_a_seed_is_its_own(sets):
    torch.manual_seed(0)
    before = torch.random.get_rng_state()
    first, again, other = (Stream(*sets, (2,) * 5, order=seed).order for seed in (1, 1, 2))
    assert first == again != other and first != tuple(range(10))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert Stream(*sets, (2,) * 5, order=1, seed=99).order == first


def test_a_list_may_leave_classes_out(sets):
    stream = Stream(*sets, (2, 1), order=[7, 2, 5])
    assert stream.names == ("class 7", "class 2", "class 5") and stream.classes == 3
    kept = [i for i, label in enumerate(sets[0].labels.tolist()) if label in (7, 2, 5)]
    assert sorted(numbers(stream[0].train) + numbers(stream[1].train)) == kept
    assert set(stream.test.labels.tolist()) == {0, 1, 2} and len(stream.test) == 15


def test_an_order_may_be_given_by_name(sets):
    by_number, by_name = (
        Stream(*sets, (2, 1), order=order)
        for order in ([7, 2, 5], ["class 7", np.str_("class 2"), "class 5"])
    )
    assert by_name.about() == by_number.about() and by_name.names == ("class 7", "class 2", "class 5")
    assert numbers(by_name[0].train) == numbers(by_number[0].train)
    twins = [ImageSet(part.images, part.labels, ["twin"] * 2 + list(part.names[2:])) for part in sets]
    with says("'twin', the name of 2 classes", "numbers"):
        Stream(*twins, (1, 1), order=["class 3", "twin"])
    assert Stream(*twins, (1, 1), order=[1, "class 3"]).order == (1, 3)


def test_an_order_is_read_from_a_file(sets, tmp_path):
    path = tmp_path / "order.txt"
    path.write_bytes("\ufeff# as in the paper\nclass 7\r\n\n  class 2 \n# the rest\nclass 5".encode())
    assert read_order(path) == read_order(str(path)) == ["class 7", "class 2", "class 5"]
    assert Stream(*sets, (2, 1), order=read_order(path)).order == (7, 2, 5)
    path.write_text("C#\ncrème brûlée\n", encoding="utf-8")
    assert read_order(path) == ["C#", "crème brûlée"]


@pytest.mark.parametrize(
    "content, words",
    [
        (b"\xff\xfea\x00", ["order.txt is not UTF-8", "one class name per line"]),
        (b"\n# nothing\n", ["order.txt names no class"]),
        (None, ["order.txt cannot be read", "No such file"]),
    ],
)
def test_wrong_files_of_an_order(tmp_path, content, words):
    if content is not None:
        (tmp_path / "order.txt").write_bytes(content)
    with says(*words):
        read_order(tmp_path / "order.txt")


def test_within_a_task_images_keep_their_order(sets):
    for task in Stream(*sets, (2,) * 5, order=3):
        assert numbers(task.train) == sorted(numbers(task.train))


def test_test_images_of_seen_classes_come_first(sets):
    stream = Stream(*sets, (2, 3, 5), order=4)
    for seen in stream.seen:
        count = int((stream.test.labels < seen).sum())
        assert (stream.test.labels[:count] < seen).all() and (stream.test.labels[count:] >= seen).all()
    assert sorted(numbers(stream.test)) == list(range(1000, 1050))


def test_names_stop_at_what_has_been_seen(sets):
    stream = Stream(*sets, (2,) * 5)
    assert stream[1].train.names == ("class 0", "class 1", "class 2", "class 3")
    assert stream[1].train.groups == ("g0", "g0", "g1", "g1")
    assert Stream(numbered(groups=False), numbered(50, groups=False), (10,)).groups is None


def test_tasks_by_number(sets):
    stream = Stream(*sets, (2,) * 5)
    assert stream[-1].index == 4
    with pytest.raises(IndexError, match="5 tasks, numbered from 0: there is no task 5"):
        stream[5]


# Isolation and memory


def reachable(thing, depth=6, seen=None):
    """All objects reachable through attributes, items and closures, except modules and classes."""
    seen = {} if seen is None else seen
    if id(thing) in seen or depth == 0 or isinstance(thing, type | type(gc)):
        return seen
    seen[id(thing)] = thing
    for name in dir(thing):
        if name.startswith("__") or (
            isinstance(thing, torch.Tensor) and name not in ("_base", "grad", "data")
        ):
            continue
        try:
            value = getattr(thing, name)
        except (RuntimeError, AttributeError):
            continue
        reachable(getattr(value, "__self__", value), depth - 1, seen)
    return seen


def test_a_task_leads_to_no_other_images(sets):
    stream = Stream(*sets, (2,) * 5, val=0.2)
    task = stream[2]
    tensors = [thing for thing in reachable(task).values() if isinstance(thing, torch.Tensor)]
    own = {tuple(numbers(part)) for part in (task.train, task.val)}
    images = [tensor for tensor in tensors if tensor.dim() == 4]
    assert len(images) >= 2
    for tensor in tensors:
        assert tensor._base is None
        assert tensor.untyped_storage().nbytes() == tensor.numel() * tensor.element_size()
    found = {tuple(numbers(ImageSet(tensor, torch.zeros(len(tensor)).long(), ["x"]))) for tensor in images}
    assert found == own
    assert not any(isinstance(thing, Stream) for thing in reachable(task).values())


def test_the_search_finds_what_a_slice_would_give_away(sets):
    whole, _ = sets
    task = Task(0, 0, 2, whole.select(slice(10, 20)))
    assert any(thing is whole.images for thing in reachable(task).values())


def test_tasks_are_windows_and_not_copies(sets):
    stream = Stream(*sets, (2,) * 5)
    starts = [task.train.images.data_ptr() for task in stream]
    sizes = [task.train.images.numel() for task in stream]
    assert [b - a for a, b in itertools.pairwise(starts)] == sizes[:-1]
    assert stream[3].train.images.data_ptr() == stream[3].train.images.data_ptr() == starts[3]
    stream[1].train.images.zero_()
    assert not stream[1].train.images.any() and stream[2].train.images.any()
    assert all(task.train.images.is_contiguous() for task in stream)


def test_given_sets_are_left_alone_and_can_be_dropped(sets):
    before = [part.checksum() for part in sets]
    stream = Stream(*sets, (2,) * 5, order=1)
    stream[0].train.images.zero_(), stream.test.images.zero_()
    for part, checksum in zip(sets, before):
        part._checksum = None
        assert part.checksum() == checksum
    held = {tensor.untyped_storage().data_ptr() for tensor in (stream._train.images, stream.test.images)}
    assert held.isdisjoint(part.images.untyped_storage().data_ptr() for part in sets)


def test_windows_outlive_their_stream():
    stream = Stream(numbered(), numbered(50, start=1000), (2,) * 5)
    task, expected = stream[1], numbers(stream[1].train)
    del stream
    gc.collect()
    torch.full((100000,), 9, dtype=torch.uint8)
    assert numbers(task.train) == expected


def test_merged_is_one_task_on_the_same_memory(sets):
    stream = Stream(*sets, (2,) * 5, order=2, val=0.1)
    merged = stream.merged()
    assert len(merged) == 1 and merged.classes_per_task == merged.seen == (10,) and len(stream) == 5
    (task,) = merged
    assert (task.index, task.first, task.seen) == (0, 0, 10)
    assert numbers(task.train) == [number for part in stream for number in numbers(part.train)]
    assert numbers(task.val) == [number for part in stream for number in numbers(part.val)]
    assert task.train.images.data_ptr() == stream[0].train.images.data_ptr()
    assert merged.test is stream.test and merged.names == stream.names
    assert merged.about()["classes_per_task"] == [10]
    assert merged.about()["checksum"] == stream.about()["checksum"]


def test_to_moves_everything(sets):
    stream = Stream(*sets, (5, 5), val=0.2)
    moved = stream.to("meta")
    assert moved.test.device.type == moved._train.device.type == moved._val.device.type == "meta"
    assert stream.test.device.type == "cpu"
    same = stream.to("cpu")
    assert numbers(same[1].train) == numbers(stream[1].train) and same.about() == stream.about()


# Validation, cap, single pass


def test_validation_is_disjoint_per_class_and_leaves_nothing_out(sets):
    stream = Stream(*sets, (2,) * 5, val=0.25, seed=3)
    for task in stream:
        train, val = set(numbers(task.train)), set(numbers(task.val))
        assert not train & val and len(train) + len(val) == 24
        assert task.val.labels.bincount()[task.first :].tolist() == [3, 3]
        assert task.train.labels.bincount()[task.first :].tolist() == [9, 9]
    parts = [part for task in stream for part in (task.train, task.val)]
    assert sorted(number for part in parts for number in numbers(part)) == list(range(120))


def test_validation_has_its_own_generator(sets):
    def held(**options):
        stream = Stream(*sets, (2,) * 5, val=0.25, **options)
        return sorted(number for task in stream for number in numbers(task.val))

    before = torch.random.get_rng_state()
    base = held(seed=1)
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.manual_seed(77)
    assert held(seed=1) == base != held(seed=2)
    assert held(seed=1, max_per_class=3) == base, "the cap does not touch the validation images"


def test_validation_can_be_the_last_images_of_each_class(sets):
    stream = Stream(*sets, (2,) * 5, order=4, val=0.25, val_from="last", max_per_class=8)
    for task in stream:
        for label in (task.first, task.first + 1):
            members = [i for i, k in enumerate(sets[0].labels.tolist()) if k == stream.order[label]]
            assert numbers(task.val.select(task.val.labels == label)) == members[-3:]
            kept = numbers(task.train.select(task.train.labels == label))
            assert len(kept) == 8 and set(kept) <= set(members[:-3])
    assert stream.about()["val_from"] == "last"
    random = Stream(*sets, (2,) * 5, val=0.25)
    assert "val_from" not in random.about(), "records made before there was a choice keep their facts"
    assert [numbers(task.val) for task in random] != [numbers(task.val) for task in stream]


def test_cap_is_exact(sets):
    for order in (None, 3):
        stream = Stream(*sets, (2,) * 5, max_per_class=5, order=order)
        assert all(task.train.labels.bincount()[task.first :].tolist() == [5, 5] for task in stream)
        assert len(stream.test) == 50
    assert [len(task.train) for task in Stream(*sets, (2,) * 5, max_per_class=1000)] == [24] * 5
    both = Stream(*sets, (2,) * 5, max_per_class=10, val=0.25)[0]
    assert len(both.train) == 18 and len(both.val) == 6


def test_cap_chooses_at_random_from_its_seed(sets):
    def kept(**options):
        stream = Stream(*sets, (2,) * 5, max_per_class=4, **options)
        return sorted(number for task in stream for number in numbers(task.train))

    assert kept(seed=1) == kept(seed=1) != kept(seed=2)
    first = [[i for i, label in enumerate(sets[0].labels.tolist()) if label == k][:4] for k in range(10)]
    assert kept(seed=1) != sorted(functools.reduce(operator.iadd, first, [])), (
        "not the first ones: folders are sorted by file name"
    )


def test_single_pass_holds_per_task(sets):
    stream = Stream(*sets, (5, 5), single_pass=True, val=0.2)
    for task in stream:
        assert sum(len(y) for _, y in task.train.batches(7)) == len(task.train)
        with pytest.raises(RuntimeError, match="once only"):
            iter(task.train.batches(7))
        list(task.val.batches(7)), list(task.val.batches(7))
    list(stream[0].train.batches(7))
    list(stream.test.batches(7)), list(stream.test.batches(7))


def test_about_says_what_the_stream_is(sets):
    order = list(range(9, -1, -1))
    about = Stream(*sets, (4, 6), order=order, val=0.2, max_per_class=3, seed=5, single_pass=True).about()
    assert json.loads(json.dumps(about)) == about
    assert {key: about[key] for key in about if key != "checksum"} == {
        "data": "numbered",
        "classes_per_task": [4, 6],
        "order": order,
        "val": 0.2,
        "max_per_class": 3,
        "seed": 5,
        "single_pass": True,
    }
    other = Stream(numbered(start=1), sets[1], (10,)).about()
    assert Stream(*sets, (10,)).about()["checksum"] == about["checksum"] != other["checksum"]
    stream = Stream(*sets, (10,))
    stream[0].train.images.zero_()
    assert stream.about()["checksum"] == about["checksum"], "it is that of the data as given"


# Bad input


@pytest.mark.parametrize(
    "classes_per_task, words",
    [
        ((2, 2), [r"\(2, 2\) adds up to 4", "there are 10", "add up to 10", "an order that lists 4"]),
        ((2, 3), [r"add up to 10, such as \(2, 3, 5\), or give an order that lists 5$"]),
        ((5, 5, 5), [r"adds up to 15 classes, but there are 10: make it add up to 10$"]),
        ((), ["adds up to 0"]),
        ((5, 0, 5), ["positive whole numbers", "not 0"]),
        ((12, -2), ["positive whole numbers", "not -2"]),
        ((5.0, 5), ["positive whole numbers", "not 5.0"]),
        ((True, 9), ["not True"]),
        (10, ["classes_per_task", "not 10"]),
        ("ab", ["positive whole numbers", "'a'"]),
    ],
)
def test_wrong_classes_per_task(sets, classes_per_task, words):
    with says(*words):
        Stream(*sets, classes_per_task)


@pytest.mark.parametrize(
    "order, words",
    [
        ([0, 1, 1, 2], ["class 1 2 times", "list it once"]),
        ([0, 1, 2, 10], ["class 10", "0 to 9"]),
        ([0, 1, 2, -1], ["class -1"]),
        ("abc", ["order must be None, a seed, or a list"]),
        (-3, ["-3"]),
        ([0, 1, 2.5, 3], ["list of class numbers or names"]),
        (0.5, ["list of class numbers"]),
        ([0, 1, 2], ["adds up to 4", "the order lists 3", "add up to 3"]),
        ([], ["lists no class"]),
        (
            ["class 1", "class 11", 0, 2],
            ["'class 11', which is not one of the 10 classes; did you mean .*class 1"],
        ),
        (["class 1", "zzz", 0, 2], ["'zzz'", "they are class 0, class 1, .*class 4, ..., class 9$"]),
        (["class 1", 0, "class 1", 2], ["class 'class 1' 2 times"]),
        (["class 1", 1, 2, 3], ["class 1.* 2 times"]),
    ],
)
def test_wrong_orders(sets, order, words):
    with says(*words):
        Stream(*sets, (2, 2), order=order)


@pytest.mark.parametrize(
    "option, words",
    [
        ({"val": 1.0}, ["val", "not 1.0"]),
        ({"val": -0.1}, ["val", "-0.1"]),
        ({"val": "x"}, ["val", "'x'"]),
        ({"max_per_class": 0}, ["max_per_class", "not 0"]),
        ({"max_per_class": 2.5}, ["max_per_class", "2.5"]),
        ({"seed": -1}, ["seed", "-1"]),
        ({"val_from": "first"}, ["val_from", "'random' or 'last'", "'first'"]),
        ({"seed": 1.5}, ["seed", "1.5"]),
        ({"val": 0.99}, ["val=0.99", "no training image", "12"]),
    ],
)
def test_wrong_options(sets, option, words):
    with says(*words):
        Stream(*sets, (2,) * 5, **option)


def test_sets_that_do_not_belong_together(sets):
    train, test = sets
    with says("do not belong together", "10 classes", "5 classes"):
        Stream(train, numbered(50, classes=5), (10,))
    with says("meta", "cpu", "to()"):
        Stream(train, test.to("meta"), (10,))
    with says("labels", "10", "12"):
        Stream(ImageSet(train.images, train.labels + 3, train.names, train.groups), test, (10,))


def test_class_without_images(sets):
    train, test = sets
    with says("'class 3'", "no training images"):
        Stream(train.select(train.labels != 3), test, (10,))
    with says("'class 4'", "no test images"):
        Stream(train, test.select(test.labels != 4), (10,))
    Stream(train.select(train.labels != 3), test, (9,), order=[0, 1, 2, 4, 5, 6, 7, 8, 9])


# Arrival


def test_images_arrive_in_an_order_of_their_own_for_each_seed(sets):
    a, again, b = (Stream(*sets, (2,) * 5, shuffle_images=seed) for seed in (0, 0, 1))
    for t in range(5):
        first, second = (numbers(s[t].train) for s in (a, b))
        assert first == numbers(again[t].train) and first != second and sorted(first) == sorted(second)
        passes = [torch.cat([y for _, y in a[t].train.batches(4)]).tolist() for _ in range(2)]
        assert passes[0] == passes[1] == a[t].train.labels.tolist(), "an ordered set is not shuffled"
    assert not a.merged()[0].train.ordered and a.about()["shuffle_images"] == 0
    assert "shuffle_images" not in Stream(*sets, (2,) * 5).about()


def test_a_class_that_has_had_its_cap_comes_no_more(sets):
    """The order without a cap, minus the images beyond the cap."""
    whole, capped = (Stream(*sets, (2,) * 5, shuffle_images=3, max_per_class=cap) for cap in (None, 7))
    for t in range(5):
        counts, expected = {2 * t: 0, 2 * t + 1: 0}, []
        for number, label in zip(numbers(whole[t].train), whole[t].train.labels.tolist()):
            counts[label] += 1
            expected += [number] if counts[label] <= 7 else []
        assert numbers(capped[t].train) == expected and len(expected) == 14


@pytest.mark.parametrize("shuffle_images", [-1, 0.5, True])
def test_an_order_of_arrival_has_a_whole_seed(sets, shuffle_images):
    with says("shuffle_images must be a whole number of at least 0, not"):
        Stream(*sets, (2,) * 5, shuffle_images=shuffle_images)
