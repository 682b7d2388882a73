"""Views of results and their explorers: pictures, texts, and the effect of a slider."""

import base64
import re
import types

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch

from clkit import plots
from clkit.analysis import masks
from clkit.book import explore, show
from clkit.book.explore.growth import budgets
from clkit.data import load
from clkit.engine.learner import LearnerError
from clkit.methods.arm import arm
from clkit.result import interval
from tests.builders import compared, fine_grained, made, recalling, seeds, several, sparse
from tools import notebooks as tools

# ---- views


def test_confusion_view_counts_right():
    results = seeds()
    view = explore.confusion_view(results, 1)
    right = 100 * np.mean([r.averages("images")[1] for r in results])
    newest = 100 * np.mean([r.newest_share(1) for r in results])
    assert f"after task 2 of 3, 3 seeds together: {right:.1f} % of the images of 4 classes" in view.text
    assert f"and {newest:.1f} % of all predictions" in view.text
    one = explore.confusion_view(results, 1, seed=2)
    counts = results[2].confusion(1)
    np.testing.assert_allclose(
        one.axes.collections[0].get_array().reshape(4, 4), 100 * counts / counts.sum(1, keepdims=True)
    )
    with pytest.raises(explore.ExploreError, match="no seed 7: these results have the seeds 0, 1, 2"):
        explore.confusion_view(results, seed=7)
    with pytest.raises(explore.ExploreError, match="shows one method, not 3"):
        explore.confusion_view(several())
    plt.close("all")


def test_matrix_view_scores_the_run_as_it_was():
    results = seeds()
    text = explore.matrix_view(results, 1).text
    a = [r.accuracy() for r in results]
    average = interval([x[1, :2].mean() for x in a])
    forgetting = interval([x[0, 0] - x[1, 0] for x in a])
    assert f"is {100 * average.mean:.1f} % (± {100 * average.half:.1f}, 95 % t-interval, n = 3)" in text
    assert f"is {100 * forgetting.mean:.1f} percentage points (± " in text
    assert "forgetting" not in explore.matrix_view(results, 0).text
    last = explore.matrix_view(results).text
    assert f"is {100 * np.mean([r.average() for r in results]):.1f} %" in last
    assert f"is {100 * np.mean([r.forgetting() for r in results]):.1f} percentage points" in last
    plt.close("all")


def test_forgetting_view_says_best_and_end():
    groups = several()
    text = explore.forgetting_view(groups, 0).text
    column = 100 * np.mean([r.accuracy()[:, 0] for r in groups["er"]], axis=0)
    assert f"ER {column.max():.1f} at best, {column[-1]:.1f} at the end" in text
    plt.close("all")


def test_images_view_shows_a_family_or_ten_classes():
    shapes = load("shapes", families=2, train_per_class=3, test_per_class=3)[1]
    view = explore.images_view(shapes, 1, columns=2)
    assert view.text.startswith("10 sample images of the set shapes") and shapes.groups[5] in view.text
    picked = np.asarray(shapes.images)[np.flatnonzero(np.asarray(shapes.labels) == 5)[0]]
    np.testing.assert_allclose(view.axes.images[0].get_array()[:32, :32], np.moveaxis(picked, 0, 2) / 255)
    digits = load("digits")[1]
    assert "classes 0 to 9" in explore.images_view(digits).text
    plt.close("all")


def test_connections_view_counts_connections():
    results = [sparse(seed=n, pixels=25, chosen=24, hidden=30) for n in range(2)]
    for mask in results[1].trace["masks"]["mask"]:
        mask[1:4] = False
    view = explore.connections_view(results, 1, 0, 1, seed=1)
    mask = masks.block(results[1], 1, 1, 0)[0]  # three of 24 rows are empty
    assert np.array_equal(view.axes.images[0].get_array(), mask)
    assert view.axes.get_title() == "SpaceNet, task 2, at allocation\nhidden layer 1 to hidden layer 2"
    share = 100 * np.sort(mask.sum(axis=1))[-20:].sum() / mask.sum()
    assert view.text == (
        "Connection matrix of SpaceNet, seed 1, task 2, hidden layer 1 to hidden layer 2, at allocation:"
        f" {mask.sum()} of 576 places between 24 source and 24 target neurons are taken; target neurons with"
        f" any connection: 21 of 24; the 20 busiest hold {share:.0f} % of the connections."
    )
    results[1].trace["masks"]["mask"][0][:4] = False
    assert "any connection: 20 of 24." in explore.connections_view(results, 0, 0, 0, seed=1).text
    last = explore.connections_view(results, 2, layer=2).text
    assert "seed 0, task 3, hidden layer 2 to output, after epoch 2" in last and "busiest" not in last
    assert "input to hidden layer 1" in explore.connections_view(results).text
    plt.close("all")


def test_a_view_of_connections_takes_a_seed_that_has_them():
    results = [made("spacenet"), sparse(seed=1)]
    view = explore.connections_view(results)
    assert ", seed 1, " in view.text
    assert any("seed 1 " in t.get_text() for t in view.axes.figure.texts)  # the stamp
    with pytest.raises(masks.MaskError, match="no trace table 'masks'"):
        explore.connections_view(results, seed=0)
    with pytest.raises(explore.ExploreError, match="no seed 7"):
        explore.input_map_view(results, seed=7)
    with pytest.raises(explore.ExploreError, match="shows one method, not 3"):
        explore.connections_view(several())
    plt.close("all")


@pytest.mark.parametrize(
    "pixels, shape, given",
    [(36, (1, 6, 6), None), (48, (3, 4, 4), None), (40, (1, 5, 8), (1, 5, 8)), (36, (4, 3, 3), (4, 3, 3))],
)
def test_input_map_view_finds_the_pixels(pixels, shape, given):
    result = sparse(pixels=pixels)
    view = explore.input_map_view(result, 1, shape=given)
    counts = masks.input_map(result, 1, shape)
    assert np.array_equal(view.axes.images[0].get_array(), counts)
    most = max(masks.input_map(result, 1, shape, e).max() for e in range(3))
    assert view.axes.images[0].get_clim() == (0, most)  # one scale for all epochs
    row, column = divmod(int(counts.argmax()), shape[2])
    assert view.text == (
        "Map of the first-layer connections of SpaceNet, seed 0, task 2 (classes c2, c3), after epoch 2:"
        f" {counts.sum()} connections, {counts.mean():.1f} a pixel on average; the busiest pixel, in row"
        f" {row + 1} and column {column + 1}, has {counts.max()}."
    )
    plt.close("all")


def test_input_map_view_takes_names_and_refuses_what_is_no_image():
    view = explore.input_map_view(sparse(), 0, names=["trouser", "pullover"])
    assert "task 1 (classes trouser, pullover)" in view.text
    long = explore.input_map_view(sparse(), 0, names=["a" * 20, "b" * 20])
    assert long.axes.get_title().endswith("input, 2 classes") and "b" * 20 in long.text
    for pixels in (40, 3, 1):  # 3 and 1: maps of a convolution
        with pytest.raises(explore.ExploreError, match=f"has {pixels} sources, which are no square image"):
            explore.input_map_view(sparse(pixels=pixels))
    plt.close("all")


def test_sparse_view_shows_both_or_the_matrix_alone():
    result = sparse()
    view = explore.sparse_view(result, 1, 1, 2)
    pictures = [ax for ax in view.axes.figure.axes if ax.images and ax.get_title()]
    one, other = explore.connections_view(result, 1, 1, 2), explore.input_map_view(result, 1, 1)
    assert view.text == f"{one.text} {other.text}"
    for mine, alone in zip(pictures, (one, other), strict=True):
        assert np.array_equal(mine.images[0].get_array(), alone.axes.images[0].get_array())
    maps = explore.sparse_view(sparse(pixels=3), 1, 1, 2)
    assert len(maps.axes.figure.axes) == 1 and "Map" not in maps.text
    plt.close("all")


def recaller(n_images=4, **options):
    """A trained ARM whose two networks differ, and a batch of five: (learner, x, y)."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        learner = arm.ARM(arm.Config(n_images=n_images, n_steps=3, **options), (1, 8, 8), 6)
        with torch.no_grad():
            learner.net.head.weight.add_(torch.randn(6, 400, device="cpu"), alpha=0.1)
        learner.seen.fill_(4)
        return learner, torch.rand(5, 1, 8, 8, device="cpu"), torch.tensor([4, 5, 4, 4, 5], device="cpu")


def probabilities(logits):
    return torch.as_tensor(logits).softmax(-1).numpy()


def test_recall_view_shows_the_images_of_a_step_and_what_both_networks_say():
    learner, x, y = recaller(n_images=5)  # as many as the batch has: no draw
    found = learner.recall_for(x, y)
    view = explore.recall_view(learner, x, y, 2, 3, names=list("abcdef"))
    above, bars, terms = view.axes.figure.axes
    image, outputs = found.steps[2, 3, 0].numpy(), probabilities(found.logits[2, :, 3])  # (8, 8), (2, 6)
    stretched, board = (image - image.min()) / np.ptp(image), above.images[0].get_array()
    assert any(np.allclose(board[top : top + 8, 27:35, 0], stretched, atol=1e-6) for top in range(8))
    np.testing.assert_allclose([b.get_height() for b in bars.patches], 100 * outputs.ravel(), rtol=1e-4)
    assert [t.get_text() for t in bars.get_legend().get_texts()] == ["old network", "new network"]
    assert bars.get_xlabel() == "class of image 4" and bars.get_xticklabels()[5].get_text() == "f"
    assert [t.get_weight() for t in above.texts[:5]] == ["normal"] * 3 + ["bold", "normal"]
    sums = next(one for one in terms.get_lines() if one.get_label().endswith("sum (minimised)")).get_ydata()
    cursor = next(one for one in terms.get_lines() if one.get_linestyle() == ":")
    config, values = learner.config, dict(zip(arm.TERMS, found.values.T.numpy()))
    total = sum(getattr(config, t) * values[t] for t in arm.TERMS[1:]) - values["divergence"]
    np.testing.assert_allclose(sums, total - total[0], rtol=1e-3, atol=1e-5)
    assert list(cursor.get_xdata()) == [2, 2] and above.get_title() == "ARM, 2 of 3 steps done"
    old, new = ("abcdef"[p.argmax()] for p in outputs)
    assert view.text == (
        f"Recall of ARM after 2 of 3 steps, 5 images: image 4, which began as e, is {old} to the old network"
        f" ({100 * outputs[0].max():.0f} %) and {new} to the new network ({100 * outputs[1].max():.0f} %);"
        f" its pixels range from {image.min():.1f} to {image.max():.1f}. The objective was {total[0]:.2f} at"
        f" the start and is {total[2]:.2f} now."
    )
    plt.close("all")


def test_recall_view_ends_with_the_answers_that_are_replayed():
    learner, x, y = recaller(n_images=5)
    found, view = learner.recall_for(x, y), explore.recall_view(learner, x, y)
    bars = view.axes.figure.axes[1]
    np.testing.assert_allclose([b.get_height() for b in bars.patches], 100 * found.probs[0], rtol=1e-4)
    assert "new network" not in view.text and "after 3 of 3 steps" in view.text and " now" not in view.text
    first = explore.recall_view(learner, x, y, 0)
    board = first.axes.images[0].get_array()  # at first each image stands above itself
    low, high = float(x[0].min()), float(x[0].max())
    np.testing.assert_allclose(board[-8:, :8, 0], x[0, 0], atol=1e-6)
    assert f"range from {low:.1f} to {high:.1f}" in first.text and "now" not in first.text
    plt.close("all")


def test_recall_view_of_noise_and_of_adaptive_deepinversion():
    learner, x, y = recaller(start="noise")
    assert "which began as noise" in explore.recall_view(learner, x, y).text
    learner, x, y = recaller(recall="adi")
    learner.met[:4] = True
    view = explore.recall_view(learner, x, y, 1)
    labels = [one.get_label() for one in view.axes.figure.axes[2].get_lines()]
    assert view.text.startswith("Recall of ADI") and any(label.endswith("target class") for label in labels)
    plt.close("all")


def test_looking_at_recall_draws_the_same_images_and_touches_nothing():
    learner, x, y = recaller()  # four of five images: drawn at random
    before, random = {k: v.clone() for k, v in learner.state_dict().items()}, torch.get_rng_state()
    texts = {explore.recall_view(learner, x, y, 1, 2).text for _ in range(3)}
    assert len(texts) == 1 and torch.equal(torch.get_rng_state(), random)
    assert all(torch.equal(v, before[k]) for k, v in learner.state_dict().items())
    plt.close("all")


@pytest.mark.parametrize(
    "step, image, says",
    [
        (4, 0, "the recall has 3 steps: there is no step 4"),
        (-5, 0, "no step -5"),
        (0, 4, "4 images are recalled, numbered from 0: there is no image 4"),
        (0, -1, "no image -1"),
    ],
)
def test_recall_view_refuses_places_that_are_not_there(step, image, says):
    with pytest.raises(explore.ExploreError, match=says):
        explore.recall_view(*recaller(), step, image)


def test_recall_view_leaves_it_to_the_learner_to_say_that_it_has_learned_nothing():
    learner, x, y = recaller()
    learner.seen.fill_(0)
    with pytest.raises(LearnerError, match="call learn"):
        explore.recall_view(learner, x, y)


def masked(method="dgma", seed=0, epochs=4, widths=(5, 4, 3)):
    """A Result with the trace table "masks" of DGM: random values that begin at a half."""
    result, random = made(method, seed), np.random.default_rng([seed, 3])
    result.about["config"] = {"unit": "channel" if method == "dgma" else "weight"}
    rows = [
        (t, l, e, np.full(n + t, 0.5) if e == 0 else random.random(n + t).round(e))
        for t in range(result.tasks)
        for e in range(epochs)
        for l, n in enumerate(widths)
    ]
    columns = dict(zip(("task", "layer", "epoch", "values"), zip(*rows)))
    result.trace["masks"] = {c: list(v) if c == "values" else np.array(v) for c, v in columns.items()}
    return result


def test_mask_view_shows_the_values_of_an_epoch_and_their_course():
    result = masked()
    table = result.trace["masks"]
    values = np.array([v for v, *at in zip(*(table[c] for c in ("values", "task", "layer"))) if at == [1, 2]])
    values[2, :3] = table["values"][3 * 4 + 2 * 3 + 2][:3] = [0.001, 0.999, 0.4]
    view = explore.mask_view(result, 1, 2, 2)
    left, right = view.axes.figure.axes
    dots = np.concatenate([line.get_xydata() for line in left.get_lines()])
    np.testing.assert_array_equal(dots[np.argsort(dots[:, 0]), 1], np.sort(values[2]))
    assert [len(line.get_xdata()) for line in left.get_lines()] == [
        (values[-1] <= 0.5).sum(),
        (values[-1] > 0.5).sum(),
    ]
    cursor = next(line for line in right.get_lines() if line.get_linestyle() == ":")
    assert list(cursor.get_xdata()) == [2, 2]
    assert view.axes.figure.get_suptitle() == "DGMa, task 2, layer 3, as epoch 3 of 4 begins"
    on = (values[2] > 0.99).sum()
    off = (values[2] < 0.01).sum()
    assert view.text == (
        f"Mask of DGMa, task 2, layer 3, seed 0, as epoch 3 of 4 begins: of 4 channels, {on} are on (above"
        f" 0.99), {off} off (below 0.01), {4 - on - off} between; their mean is {values[2].mean():.2f}. At"
        f" the last recorded epoch {(values[-1] > 0.5).sum()} are above a half."
    )
    first = explore.mask_view(result, 0, 0, 0).text
    assert "of 5 channels, 0 are on (above 0.99), 0 off (below 0.01), 5 between; their mean is 0.50" in first
    assert "recorded weights" in explore.mask_view(masked("dgmw")).text
    plt.close("all")


def test_mask_view_takes_a_seed_that_has_masks_and_refuses_places_that_are_not_there():
    results = [made("dgma"), masked(seed=1)]
    assert ", seed 1, " in explore.mask_view(results).text
    for place, says in (
        ((0, 0, 4), "4 epochs are recorded, numbered from 0: there is no epoch 4"),
        ((0, 0, -5), "-5"),
    ):
        with pytest.raises(explore.ExploreError, match=says):
            explore.mask_view(results, *place)
    with pytest.raises(plots.PlotError, match="no mask was recorded for task 3"):
        explore.mask_view(results, 3)
    with pytest.raises(explore.ExploreError, match="shows one method, not 3"):
        explore.mask_view(several())
    plt.close("all")


def learner_of_channels(unit="channel"):
    """A learner after two tasks that use the channels 0, 1, and 1, 2, of three, then five."""
    used = ([True, True, False], [False, True, True, False, False])
    generator = types.SimpleNamespace(unit=unit, mask_of=lambda task, layer: torch.tensor(used[task]))
    return types.SimpleNamespace(generator=generator, ends=torch.tensor([1, 2]))


def test_units_view_tells_new_channels_from_reused_ones():
    view = explore.units_view(learner_of_channels(), layer=1)
    np.testing.assert_array_equal(view.axes.images[0].get_array(), [[2, 2, 1, 0, 0], [1, 3, 2, 1, 1]])
    assert view.text == (
        "A map of 2 tasks by 5 channels of layer 2. Channels newly reserved and reused, task 1: 2 and 0;"
        " task 2: 1 and 1. 2 are free for the next task."
    )
    with pytest.raises(explore.ExploreError, match="needs masks of channels"):
        explore.units_view(learner_of_channels("weight"))
    new = learner_of_channels()
    new.ends = new.ends[:0]
    with pytest.raises(explore.ExploreError, match="no task has been learned"):
        explore.units_view(new)
    plt.close("all")


# ---- inside the networks


def inside(method="er", seed=0, n=8, layers=("Conv1", "Conv2", "logits")):
    """(Result, planes, labels) of made-up features: three tasks of two classes, n images of each class."""
    labels, random = np.repeat(np.arange(6), n), np.random.default_rng(seed)
    return compared(method, seed), {l: random.normal(size=(3, 6 * n, 2)) for l in layers}, labels


def test_layer_view_shows_the_classes_learned_and_the_similarity_of_a_layer():
    result, planes, labels = inside()
    view = explore.layer_view(result, planes, labels, "Conv2", 1, marked=2)
    left, right = view.axes.figure.axes
    drawn = np.concatenate([dots.get_offsets() for dots in left.collections])
    np.testing.assert_array_equal(np.sort(drawn, 0), np.sort(planes["Conv2"][1][labels < 4], 0))
    table = result.trace["similarity"]
    np.testing.assert_allclose(right.get_lines()[0].get_ydata(), table["svcca"][1, 1, 1:])
    dashed = next(one for one in right.get_lines() if one.get_linestyle() == "--")
    assert list(dashed.get_xdata()) == [2, 2] and view.axes.figure.get_figwidth() <= 7.5
    mine = result.labels == 2
    share = 100 * (result.predictions[1][mine] == 2).mean()
    assert view.text == (
        "Layer Conv2 of ER, seed 0, after task 2 of 3. Left: test images of the 4 classes learned, on the"
        f" plane of the first two principal components. Class c2 of task 2 is marked; {share:.0f} % of its"
        " test images are answered so. Right: on images of task 2, SVCCA of this layer with the network after"
        f" that task is 1.00 (chance floor {table['floor'][1, 1, 1]:.2f}); linear CKA is 1.00."
    )
    assert [t.get_text() for t in left.get_legend().get_texts()] == ["c2"]
    colors = {tuple(dots.get_edgecolors()[0][:3]) for dots in left.collections}
    assert len(colors) == 2  # the marked class, and grey
    early = explore.layer_view(result, planes, labels, "Conv2", 0, marked=5)
    assert early.text.endswith("Class c5 of task 3 is not learned yet.") and len(early.axes.collections) == 2
    everything = explore.layer_view(result, planes, labels, "logits")
    assert f"after that task is {table['svcca'][2, 0, 2]:.2f}" in everything.text
    assert "marked" not in everything.text and len(everything.axes.collections) == 6
    plt.close("all")


@pytest.mark.parametrize(
    "place, says",
    [
        (("FC1",), "no layer 'FC1': use one of Conv1, Conv2, logits"),
        (("Conv1", 3), "3 tasks are learned, numbered from 0: there is no task 3"),
        (("Conv1", -4), "no task -4"),
        (("Conv1", 0, 6), "6 classes are learned, numbered from 0: there is no class 6"),
        (("Conv1", 0, -1), "no class -1"),
    ],
)
def test_layer_view_refuses_places_that_are_not_there(place, says):
    with pytest.raises(explore.ExploreError, match=says):
        explore.layer_view(*inside(), *place)
    assert not plt.get_fignums()


# ---- replay of features


def features(method="gfr", **options):
    """(Result, maps) of made-up features: three tasks of two classes."""
    result = recalling(method, **options)
    table = result.trace["features"]
    trio = zip(table["labels"], table["real"], table["generated"])
    return result, [(k[: len(g)], r[: len(g), :2], g[:, :2]) for k, r, g in trio]


def test_similarity_view_shows_all_methods_by_layer_and_over_tasks():
    groups = {m: [compared(m, s) for s in range(2)] for m in ("gfr", "gfr-finetune")}
    layers = plots.similarity(groups["gfr"][0])[0]
    view = explore.similarity_view(groups, layers[1], 1)
    left, right = view.axes.figure.axes
    mean = np.mean([r.trace["similarity"]["svcca"] for r in groups["gfr"]], axis=0)
    np.testing.assert_allclose(left.get_lines()[0].get_ydata(), mean[:, 0, 1])
    np.testing.assert_allclose(right.get_lines()[0].get_ydata(), mean[1, 0])
    kept = 100 * np.mean([r.accuracy()[1, 0] for r in groups["gfr"]])
    assert f"GFR {mean[1, 0, 1]:.2f} ({kept:.0f} %); Finetune" in view.text
    assert f"{layers[1]} between the networks after task 1 and after task 2" in view.text
    for place, says in (
        (("FC9",), "no layer 'FC9'"),
        ((layers[0], 0), "with a later one"),
        ((layers[0], 3), "with a later one"),
        ((layers[0], -3), "with a later one"),
    ):
        with pytest.raises(explore.ExploreError, match=says):
            explore.similarity_view(groups, *place)
    plt.close("all")


def test_feature_maps_hold_both_sets_of_what_is_recalled():
    result, table = recalling(each=8), recalling(each=8).trace["features"]
    maps = explore.feature_maps(result, perplexity=5)
    assert len(maps) == 3
    for (labels, real, drawn), wanted in zip(maps, table["generated"], strict=True):
        assert real.shape == drawn.shape == (len(wanted), 2) and len(labels) == len(wanted)
    assert maps[-1][0].max() == 3  # the last task's classes are not recalled
    with pytest.raises(explore.ExploreError, match="recalls no features"):
        explore.feature_maps(recalling("gfr-distill", recalls=False))
    with pytest.raises(explore.ExploreError, match="no features are recorded"):
        explore.feature_maps(compared("gfr"))


def test_features_view_gives_the_numbers_of_the_features():
    result, maps = features()
    view, table = explore.features_view(result, maps, 1), result.trace["features"]
    drawn = np.concatenate([dots.get_offsets() for dots in view.axes.collections])
    np.testing.assert_array_equal(np.sort(drawn, 0), np.sort(np.concatenate(maps[1][1:]), 0))
    known = np.asarray(table["recognised"][1])[:4]
    right = 100 * (result.predictions[1] == result.labels)[result.labels < 4].mean()
    assert f"Of all 4 classes, {right:.0f} % of the test images and {100 * known.mean():.0f} %" in view.text
    assert "perfect mixture" in view.text and view.axes.figure.get_figwidth() <= 7.5
    one = explore.features_view(result, maps, 1, 2)
    assert "Of class c2, " in one.text and f"{100 * known[2]:.0f} % of the generated" in one.text
    assert "mixture" not in one.text
    for place, says in (
        ((3,), "no task 3"),
        ((0, 5), "no class 5 on this map: use one of the classes 0 to 1"),
    ):
        with pytest.raises(explore.ExploreError, match=says):
            explore.features_view(result, maps, *place)
    plt.close("all")


# ---- explorers


def test_generator_view_shows_the_nearest_recorded_step():
    result = fine_grained(sizes=(4, 2))
    table, recorded = result.trace["images"], result.trace["recording"]
    view = explore.generator_view(result, 90)
    assert " at step 100, seed 0" in view.text and f"l_bn {recorded['bn'][2]:.2f}" in view.text
    names = {result.names[k] for k in table["labels"][2]}
    assert all(f"{name}" in view.text for name in names)
    [pixels] = view.axes.images
    top = np.asarray(pixels.get_array())[:, : table["images"].shape[-1]].min(-1)
    first = table["images"][2, 0, 0] / 255
    rows = [np.allclose(top[y : y + len(first)], first) for y in range(len(top) - len(first))]
    assert any(rows), "the first image stands in the first column"
    assert " at step 0, seed 0" in explore.generator_view([fine_grained(kept=False), result], -5).text
    with pytest.raises(explore.ExploreError, match="no images of a generator are recorded"):
        explore.generator_view(fine_grained(kept=False))
    with pytest.raises(plots.PlotError, match="no images were recorded for task 2"):
        explore.generator_view(result, task=2)
    plt.close("all")


def test_classes_view_names_the_worst_and_the_best_old_class():
    groups = {"mfgr": [fine_grained(seed=n, sizes=(4, 2)) for n in range(3)]}
    groups["lwf-sgd"] = [fine_grained("lwf-sgd", n, generator=False, sizes=(4, 2)) for n in range(3)]
    for among in ("accuracy", "within"):
        text = explore.classes_view(groups, among).text
        for runs in groups.values():
            tables = [r.trace["fine"] for r in runs]
            change = np.array([t[among][1, :4] - t["accuracy"][0, :4] for t in tables])
            mean = change.mean(0)
            for k in (mean.argmin(), mean.argmax()):
                assert f"{runs[0].names[k]} by {100 * mean[k]:.1f}" in text
            assert f"old classes change by {100 * mean.mean():.1f} points (± " in text
    with pytest.raises(explore.ExploreError, match="among must be accuracy or within"):
        explore.classes_view(groups, "new")
    with pytest.raises(explore.ExploreError, match="before the second one"):
        explore.classes_view(groups, stage=0)
    plt.close("all")


def test_explorers_of_mfgr_show_each_choice():
    groups = {"mfgr": [fine_grained()], "mfgr-base": [fine_grained("mfgr-base")]}
    (step, method), screen = parts(explore.generator_explorer(groups))
    assert [label for label, _ in step.options] == ["0", "50", "100", "199"] and step.value == 0
    pages = {screen.value}
    step.value, method.value = 100, "mfgr-base"
    assert screen.value == show.as_html(explore.generator_view(groups["mfgr-base"], 100))
    assert screen.value not in pages
    (among, stage), screen = parts(explore.classes_explorer(groups))
    among.value, stage.value = "within", 2
    assert screen.value == show.as_html(explore.classes_view(groups, "within", 1))
    assert not plt.get_fignums()


def parts(explorer):
    controls, screen = explorer.box.children
    return list(controls.children), screen


EXPLORERS = {
    "confusion": lambda: explore.confusion_explorer(several()),
    "matrix": lambda: explore.matrix_explorer(several()),
    "forgetting": lambda: explore.forgetting_explorer(several()),
    "images": lambda: explore.images_explorer(
        load("shapes", families=2, train_per_class=2, test_per_class=2)[1], 2
    ),
    "sparse": lambda: explore.sparse_explorer(sparse()),
    "recall": lambda: explore.recall_explorer(*recaller()),
    "mask": lambda: explore.mask_explorer(masked()),
    "layer": lambda: explore.layer_explorer({"er": inside()[:2]}, inside()[2]),
    "similarity": lambda: explore.similarity_explorer({"gfr": compared("gfr")}),
    "features": lambda: explore.features_explorer({"gfr": features()}),
}


@pytest.mark.parametrize("name", EXPLORERS)
def test_moving_a_slider_changes_picture_and_text(name):
    controls, screen = parts(EXPLORERS[name]())
    slider = controls[0]
    start = {"recall": 0, "similarity": 2}.get(name, 1)  # steps done from 0; similarity is to task 1
    assert slider.min == start and slider.value == start and screen.value.startswith('<img alt="')
    first, pages = screen.value, {screen.value}
    for value in range(start + 1, slider.max + 1):
        slider.value = value
        pages.add(screen.value)
    assert len(pages) == slider.max - start + 1 and not plt.get_fignums()
    slider.value = start
    assert screen.value == first
    alt, image, text = re.fullmatch(
        r'<img alt="([^"]*)".*base64,([^"]*)"><p[^>]*>(.*)</p>', first, re.S
    ).groups()
    assert alt == text and len(alt) >= 40 and base64.b64decode(image).startswith(b"\x89PNG")


def test_an_explorer_shows_what_its_view_shows():
    controls, screen = parts(explore.confusion_explorer(several()))
    stage, method, seed = controls
    stage.value, method.value, seed.value = 2, "er", 1
    view = explore.confusion_view(several()["er"], 1, 1)
    assert screen.value == show.as_html(view)
    method.value, seed.value = "joint", None  # one stage: the slider's place does not matter
    assert "after all tasks at once" in screen.value


def test_an_explorer_brings_its_picture_to_places_without_widgets():
    explorer = explore.matrix_explorer(seeds())
    explorer.controls["stage"].value = 2
    data, metadata = explorer._repr_mimebundle_()
    text = explore.matrix_view(seeds(), 1).text
    assert metadata["image/png"]["alt"] == text and data["image/png"] in explorer.screen.value
    assert data["text/plain"] == repr(explorer) == f"{text}\n{tools.HINT}"
    assert data[tools.WIDGET]["model_id"] == explorer.box.model_id
    plt.close("all")


def test_a_choice_of_one_is_not_offered():
    controls, _ = parts(explore.matrix_explorer(seeds()))
    assert [type(c).__name__ for c in controls] == ["IntSlider"]
    assert all(not c.continuous_update for c in controls)


def test_nothing_is_drawn_twice(monkeypatch):
    calls, draw = [], plots.plot_task
    monkeypatch.setattr(plots, "plot_task", lambda *a, **k: calls.append(1) or draw(*a, **k))
    slider = parts(explore.forgetting_explorer(several()))[0][0]
    for value in (2, 1, 2, 3):
        slider.value = value
    assert len(calls) == 3


def sparse_pair():
    return {m: [sparse(m, seed) for seed in (0, 1)] for m in ("spacenet", "static")}


def test_sparse_explorer_moves_over_tasks_epochs_and_layers():
    groups = sparse_pair()
    controls, screen = parts(explore.sparse_explorer(groups))
    task, epoch, layer, method, seed = controls
    assert [label for label, _ in epoch.options] == ["at allocation", "1", "2"] and epoch.value == 2
    assert [label for label, _ in layer.options] == [
        "input to hidden layer 1",
        "hidden layer 1 to hidden layer 2",
        "hidden layer 2 to output",
    ]
    assert [type(c).__name__ for c in controls[:2]] == ["IntSlider", "SelectionSlider"]
    assert not task.continuous_update and not epoch.continuous_update
    task.value, epoch.value, layer.value, method.value, seed.value = 3, 0, 1, "static", 1
    assert screen.value == show.as_html(explore.sparse_view(groups["static"], 2, 0, 1, 1))
    assert "SpaceNet (static), seed 1, task 3" in screen.value and not plt.get_fignums()


def test_sparse_explorer_offers_what_is_recorded():
    mixed = [made("spacenet"), sparse(seed=1)]
    controls, screen = parts(explore.sparse_explorer(mixed))
    assert len(controls) == 3 and "seed 1" in screen.value  # one method and one seed to choose from
    with pytest.raises(explore.ExploreError, match="no connections are recorded for er"):
        explore.sparse_explorer({"spacenet": mixed, "er": seeds()})


def test_recall_explorer_recalls_once_and_shows_what_its_view_shows(monkeypatch):
    calls, recall_for = [], arm.ARM.recall_for
    monkeypatch.setattr(arm.ARM, "recall_for", lambda *a: calls.append(1) or recall_for(*a))
    learner, x, y = recaller()
    controls, screen = parts(explore.recall_explorer(learner, x, y, names=list("abcdef")))
    step, image = controls
    assert (step.min, step.max, image.min, image.max) == (0, 3, 1, 4)
    assert not step.continuous_update and not image.continuous_update
    for step.value, image.value in ((1, 1), (3, 2), (2, 4)):
        pass
    assert len(calls) == 1 and not plt.get_fignums()
    assert screen.value == show.as_html(explore.recall_view(learner, x, y, 2, 3, names=list("abcdef")))


def test_mask_explorer_moves_over_tasks_epochs_layers_and_methods():
    groups = {"dgma": [masked()], "dgmw": [made("dgmw"), masked("dgmw", seed=1)]}
    controls, screen = parts(explore.mask_explorer(groups))
    task, epoch, layer, method = controls
    assert (task.max, epoch.max) == (3, 4) and not epoch.continuous_update
    assert [label for label, _ in layer.options] == ["layer 1", "layer 2", "layer 3"]
    task.value, epoch.value, layer.value, method.value = 3, 2, 1, "dgmw"
    assert screen.value == show.as_html(explore.mask_view(groups["dgmw"], 2, 1, 1))
    assert "DGMw, task 3, layer 2, seed 1, as epoch 2 of 4" in screen.value and not plt.get_fignums()
    with pytest.raises(explore.ExploreError, match="no masks are recorded for dgmw"):
        explore.mask_explorer({"dgma": masked(), "dgmw": made("dgmw")})


def test_layer_explorer_moves_over_tasks_layers_classes_and_methods():
    cases, labels = {m: inside(m)[:2] for m in ("finetune", "er")}, inside()[2]
    controls, screen = parts(explore.layer_explorer(cases, labels))
    task, layer, marked, method = controls
    assert (task.min, task.max) == (1, 3) and layer.value == "Conv2"
    assert marked.value is None and [label for label, _ in marked.options][:2] == ["all", "c0"]
    task.value, layer.value, marked.value, method.value = 3, "logits", 3, "er"
    assert screen.value == show.as_html(explore.layer_view(*cases["er"], labels, "logits", 2, 3))
    assert not plt.get_fignums()
    with pytest.raises(explore.ExploreError, match="nothing to explore"):
        explore.layer_explorer({}, labels)


def test_features_explorer_moves_over_tasks_classes_and_methods():
    cases = {m: features(m) for m in ("gfr", "gfr-gaussian")}
    controls, screen = parts(explore.features_explorer(cases))
    task, marked, method = controls
    assert (task.min, task.max) == (1, 3) and [label for label, _ in marked.options] == ["all", "c0", "c1"]
    task.value, marked.value, method.value = 3, 1, "gfr-gaussian"
    assert screen.value == show.as_html(explore.features_view(*cases["gfr-gaussian"], 2, 1))
    assert not plt.get_fignums()
    with pytest.raises(explore.ExploreError, match="nothing to explore"):
        explore.features_explorer({})


# ---- a budget of bytes


def keeping(skill, kept, method="er"):
    found = seeds(method, 2, skill=skill)
    for r in found:
        r.memory_bytes = {"weights": np.full(3, 1000), **({"exemplars": np.full(3, kept)} if kept else {})}
    return found


KEEPING = {"A": keeping(0.2, 0, "lwf"), "B": keeping(0.9, 30_000), "C": keeping(0.6, 450)}


def test_budget_view_names_the_best_that_fit():
    accuracy = {label: 100 * np.mean([r.average() for r in found]) for label, found in KEEPING.items()}
    view = explore.budget_view(KEEPING, 1000, 10)
    assert view.text.endswith(
        "A budget of 1.00 kB, as much as 100 raw images, admits 2 of 3 methods and memory sizes. The most "
        f"accurate: C {accuracy['C']:.1f} % with 450 bytes, A {accuracy['A']:.1f} % with 0 bytes."
    )
    assert view.axes.get_legend().get_texts()[0].get_text() == f"C: {accuracy['C']:.1f}"
    assert "without a limit admits 3 of 3" in explore.budget_view(KEEPING).text
    assert "of 0 bytes admits 1 of 3" in explore.budget_view(KEEPING, 0, 10).text
    assert "admits 0 of 1 methods and memory sizes. The most accurate: none." in (
        explore.budget_view({"B": KEEPING["B"]}, 5).text
    )
    with pytest.raises(explore.ExploreError, match="at least 0, not -1"):
        explore.budget_view(KEEPING, -1)
    plt.close("all")


def test_budgets_reach_from_the_smallest_to_the_largest():
    assert budgets(KEEPING) == [0, 200, 500, 1000, 2000, 5000, 10_000, 20_000, 50_000]
    assert budgets({"C": keeping(0.5, 500)}) == [0, 500]
    with pytest.raises(explore.ExploreError, match="keep nothing"):
        budgets({"A": KEEPING["A"]})


def test_budget_explorer_shows_what_its_view_shows():
    cases = {
        "one": (KEEPING, 10, None),
        "two": ({"B": KEEPING["B"]}, 5, {"Joint": seeds("joint", joint=True)}),
    }
    controls, screen = parts(explore.budget_explorer(cases))
    budget, benchmark = controls
    middle = budget.options[len(budget.options) // 2][1]
    assert 0 < budget.value == middle < 50_000 and benchmark.options == (("one", "one"), ("two", "two"))
    assert screen.value == show.as_html(explore.budget_view(KEEPING, middle, 10))
    budget.value, benchmark.value = 1000, "two"
    assert screen.value == show.as_html(explore.budget_view(cases["two"][0], 1000, *cases["two"][1:]))
    assert not plt.get_fignums()
