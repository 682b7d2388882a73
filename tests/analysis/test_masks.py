"""Connections of sparse networks: blocks, maps, shares and sizes against loops and closed forms."""

import numpy as np
import pytest

from clkit.analysis import masks
from clkit.result import load, save
from tests.builders import made, sparse


def slow_full(mask, targets, sources, shape):
    whole = np.zeros(shape, dtype=bool)
    for i, target in enumerate(targets):
        for j, source in enumerate(sources):
            whole[target, source] = mask[i, j]
    return whole


# ---- what was recorded


def test_block_finds_the_row_of_task_layer_and_epoch():
    result = sparse()
    table = result.trace["masks"]
    for n in range(len(table["task"])):
        place = [int(table[c][n]) for c in ("task", "layer", "epoch")]
        mask, targets, sources = masks.block(result, *place)
        assert mask.dtype == bool and np.array_equal(mask, table["mask"][n])
        assert np.array_equal(targets, table["targets"][n]) and np.array_equal(sources, table["sources"][n])
    assert masks.epochs(result) == [0, 1, 2] and masks.layers(result) == [0, 1, 2]


def test_the_last_epoch_is_the_largest_of_that_task():
    result = sparse()
    table = result.trace["masks"]
    order = np.random.default_rng(0).permutation(len(table["task"]))  # in whatever order
    cut = [n for n in order if not (table["task"][n] == 1 and table["epoch"][n] == 2)]
    result.trace["masks"] = {c: [rows[n] for n in cut] for c, rows in table.items()}
    assert masks.epochs(result, 1) == [0, 1] and masks.epochs(result) == masks.epochs(result, 2) == [0, 1, 2]
    for task, last in ((0, 2), (1, 1), (2, 2)):
        wanted = masks.block(result, task, 1, last)
        assert all(np.array_equal(a, b) for a, b in zip(masks.block(result, task, 1), wanted, strict=True))
    assert not np.array_equal(masks.block(result, 0, 1)[0], masks.block(result, 0, 1, 0)[0])


def test_blocks_survive_a_record(tmp_path):
    result = sparse()
    again = load(save([result], tmp_path / "record"))[0]
    for task, layer, epoch in ((0, 0, 0), (2, 1, -1), (1, 2, 1)):
        for a, b in zip(
            masks.block(result, task, layer, epoch), masks.block(again, task, layer, epoch), strict=True
        ):
            assert np.array_equal(a, b) and a.dtype == b.dtype


@pytest.mark.parametrize(
    "call, says",
    [
        (
            lambda: masks.block(made(), 0, 0),
            r"no trace table 'masks' \(it has loss\): .* record=\('masks',\)",
        ),
        (lambda: masks.epochs(made()), "no trace table 'masks'"),
        (
            lambda: masks.block(sparse(), 3, 0),
            "task 3, layer 0, epoch -1: recorded are task 0/1/2, layer 0/1/2, epoch 0/1/2",
        ),
        (lambda: masks.block(sparse(), 0, 3), "for task 0, layer 3"),
        (lambda: masks.block(sparse(), 0, 0, 7), "epoch 7"),
        (lambda: masks.block(sparse(), 0, 0, -2), "epoch -2"),
        (
            lambda: masks.full(np.ones((2, 2)), [0, 1, 2], [0, 1], (4, 4)),
            r"\(2, 2\) does not fit 3 targets and 2 sources",
        ),
        (
            lambda: masks.full(np.ones((2, 2)), [0, 1], [0, 4], (4, 4)),
            "source neurons 0 to 4 do not fit a layer of 4",
        ),
        (lambda: masks.full(np.ones((2, 2)), [-1, 1], [0, 3], (4, 4)), "target neurons -1 to 1"),
        (
            lambda: masks.input_map(sparse(), 0, (1, 8, 8)),
            "has 36 sources, but images of 1 x 8 x 8 have 64 values",
        ),
        (lambda: masks.map_correlation(np.ones((2, 2)), np.ones((4, 4))), "cannot be compared"),
    ],
)
def test_refusals_are_one_clear_sentence(call, says):
    with pytest.raises(masks.MaskError, match=says):
        call()


# ---- where the connections are


def test_full_scatters_a_block_into_its_layer():
    mask = np.array([[1, 0, 0, 0], [0, 1, 1, 0], [1, 1, 0, 0]], dtype=bool)
    targets, sources = np.array([5, 0, 2]), np.array([6, 1, 3, 0])
    whole = masks.full(mask, targets, sources, (6, 7))
    assert whole.dtype == bool and np.array_equal(whole, slow_full(mask, targets, sources, (6, 7)))
    assert whole.sum() == mask.sum() and np.array_equal(whole[np.ix_(targets, sources)], mask)


@pytest.mark.parametrize("shape", [(1, 6, 6), (1, 4, 9), (4, 3, 3)])
def test_input_map_counts_what_leaves_each_pixel(shape):
    result = sparse()
    table = result.trace["masks"]
    turned = np.random.default_rng(2).permutation(36)  # sources in whatever order
    table["sources"] = [
        turned if layer == 0 else s for layer, s in zip(table["layer"], table["sources"], strict=True)
    ]
    for epoch in (0, -1):
        mask, _, sources = masks.block(result, 1, 0, epoch)
        _C, H, W = shape
        counts = np.zeros((H, W), dtype=int)
        for row in mask:
            for there, source in zip(row, sources, strict=True):
                counts[source // W % H, source % W] += there
        assert np.array_equal(masks.input_map(result, 1, shape, epoch), counts) and counts.sum() == mask.sum()


def test_map_correlation_is_pearsons():
    random = np.random.default_rng(3)
    counts, image = random.integers(0, 9, (5, 4)), random.random((3, 5, 4))
    wanted = np.corrcoef(counts.ravel(), image.mean(axis=0).ravel())[0, 1]
    assert masks.map_correlation(counts, image) == pytest.approx(wanted)
    assert masks.map_correlation(counts, image[0]) == pytest.approx(
        np.corrcoef(counts.ravel(), image[0].ravel())[0, 1]
    )
    assert masks.map_correlation(counts, 7 - 2 * counts) == pytest.approx(-1)
    assert np.isnan(masks.map_correlation(counts, np.full((5, 4), 0.1)))


def test_busiest_share_of_rows_and_columns():
    mask = np.array([[1, 1, 1, 0], [1, 0, 0, 0], [0, 0, 0, 0]])  # rows 3 1 0, columns 2 1 1 0
    assert [masks.busiest_share(mask, n) for n in (1, 2, 3, 9)] == [0.75, 1, 1, 1]
    assert [masks.busiest_share(mask, n, axis=1) for n in (1, 2, 3)] == [0.5, 0.75, 1]
    assert np.isnan(masks.busiest_share(np.zeros((2, 3))))
    assert masks.busiest_share(np.ones((80, 5), dtype=np.uint8)) == 0.25
    assert masks.used(mask) == 2 and masks.used(mask.T) == 3 and masks.used(np.zeros((2, 3))) == 0


# ---- activations


def test_sparsity_counts_units_and_values():
    a = np.array([[0, 10, 0.5, 0], [0, 0, 1.0, 0.25]], dtype=np.float16)  # 1.0 is not above a tenth
    assert masks.sparsity(a) == {"columns": 3, "active": 4 / 8, "strong": 1 / 8}
    assert masks.sparsity(np.zeros((3, 4))) == {"columns": 0, "active": 0, "strong": 0}


def test_class_cosine_compares_means():
    a, b = np.array([[2, 0], [0, 0]]), np.array([[1.0, 1.0]])
    assert masks.class_cosine(a, b) == pytest.approx(np.sqrt(0.5))
    assert masks.class_cosine(a, 3 * a) == pytest.approx(1)
    assert masks.class_cosine([[1, 0]], [[0, 1]]) == 0 and np.isnan(masks.class_cosine(a, 0 * b))


# ---- what a method holds


def test_sizes_of_a_dense_method_add_what_it_keeps():
    result = made("icarl")
    result.parameters[:] = 5, 6, 7
    result.memory_bytes = {
        "weights": np.array([4, 4, 4000]),
        "generators": np.array([4, 4, 400]),
        "teachers": np.array([0, 40, 80]),
        "importance": np.array([0, 8, 16]),
        "masks": np.array([4, 4, 12]),
        "exemplars": np.array([0, 500, 1000]),
    }
    assert masks.sizes(result) == {"parameters": 7, "extra": 20 + 4 + 3 + 1000}


def test_sizes_of_a_sparse_method_count_the_weights_of_its_connections():
    result = sparse()
    result.memory_bytes = {"weights": np.full(3, 4000), "masks": np.full(3, 4096), "teachers": np.full(3, 80)}
    result.trace["network"] = {
        "task": [0, 1, 2],
        "connections": [100, 200, 300],
        "weights": [800, 1700, 2600],
        "biases": [15, 15, 14],
        "masks_at_test": [0, 0, 0],
    }
    assert masks.sizes(result) == {"parameters": 2614, "extra": 20}
    result.trace["network"]["masks_at_test"] = [0, 0, 1]
    assert masks.sizes(result) == {"parameters": 2614, "extra": 20 + 1024}


# ---- in the course of a task


def test_settled_counts_the_last_connections_that_are_in_place():
    result = sparse()
    for layer in (0, 1):
        last = masks.block(result, 1, layer)[0]
        for share, epoch in zip(masks.settled(result, 1, layer), masks.epochs(result, 1), strict=True):
            there = masks.block(result, 1, layer, epoch)[0]
            places = [(i, j) for i, j in zip(*np.nonzero(last)) if there[i, j]]
            assert share == pytest.approx(len(places) / np.count_nonzero(last))
    assert masks.settled(result, 1, 0)[-1] == 1 and masks.settled(result, 1, 0)[0] < 1


def test_decided_counts_values_on_the_side_where_they_end():
    result = made()
    rows = [[0.5, 0.5, 0.5, 0.5], [0.6, 0.4, 0.4, 0.5], [0.7, 0.3, 0.6, 0.1], [1.0, 0.0, 0.9, 0.0]]
    table = {"task": [0] + [1] * 4 + [1], "layer": [0] * 5 + [1], "values": [[1.0] * 4, *rows, [1.0, 0.0]]}
    result.trace["masks"] = table
    assert masks.decided(result, 1, 0).tolist() == [0, 0.5, 1, 1]
    assert masks.decided(result, 0, 0).tolist() == masks.decided(result, 1, 1).tolist() == [1]
    with pytest.raises(masks.MaskError, match="no mask values are recorded for task 2, layer 0"):
        masks.decided(result, 2, 0)
    for other in (sparse(), made()):
        with pytest.raises(masks.MaskError, match="no learned values"):
            masks.decided(other, 0, 0)
