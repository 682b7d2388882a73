"""Few and many classes: everything that counts them gives the same as a count by hand."""

from collections import Counter
from types import SimpleNamespace

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch

from clkit import plots
from clkit.analysis import confusion
from clkit.book import explore
from clkit.data import ImageSet, Stream
from clkit.engine.evaluate import evaluate, label_type
from clkit.engine.run import _collect
from clkit.plots import accuracy
from clkit.result import Result, load, save, summary
from tests.builders import made

MANY = (2, 180, 182, 200, 1000, 20_000)  # 182^2 is the first square above 2^15


def result(K, **options):
    """A Result of K classes in two tasks, with families of two neighbours."""
    groups = [f"family {k // 2}" for k in range(K)]
    options = {"per_class": 1 if K > 1000 else 3, "groups": groups, **options}
    return made(sizes=(K // 2, K // 2), **options)


def by_hand(r, of_class=None):
    """Counter of (true part, predicted part) of the test images of the last stage."""
    pairs = zip(r.labels.tolist(), r.predictions[-1].tolist())
    return Counter(pairs if of_class is None else ((of_class[a], of_class[b]) for a, b in pairs))


def as_counter(counts):
    rows, columns = counts.nonzero()
    return Counter(dict(zip(zip(rows.tolist(), columns.tolist()), counts[rows, columns].tolist())))


@pytest.mark.parametrize("K", [*MANY[:-1], 3000])  # the square of 20,000 takes 3 GB
def test_confusion_counts_every_pair(K):
    r = result(K)
    counts = r.confusion()
    assert counts.shape == (K, K) and as_counter(counts) == by_hand(r)
    families, names = confusion.families(r)
    assert len(names) == K // 2 and as_counter(families) == by_hand(r, [k // 2 for k in range(K)])


@pytest.mark.parametrize("K", MANY)
def test_parts_of_classes_are_counted_without_the_square(K, monkeypatch):
    square, counted = Result.confusion, []

    def watched(self, stage=-1, parts=None):
        counts = square(self, stage, parts)
        counted.append(len(counts))
        return counts

    monkeypatch.setattr(Result, "confusion", watched)
    r = result(K, groups=[f"family {k % 2}" for k in range(K)])
    assert as_counter(confusion.families(r)[0]) == by_hand(r, [k % 2 for k in range(K)])
    answers, blind = confusion.answers(r), confusion.answers_if_blind(r)
    assert sum(answers.values()) == pytest.approx(1) and answers["right"] == pytest.approx(blind["right"])
    right = np.bincount(r.labels[r.predictions[-1] == r.labels], minlength=K) / np.bincount(r.labels)
    assert np.array_equal(r.per_class(), right)
    assert np.isnan(r.per_class(0)).sum() == K - K // 2 and set(counted) == {2}


@pytest.mark.parametrize("K", MANY)
def test_records_keep_them(K, tmp_path):
    r = result(K)
    save([r], tmp_path / "r", level=1)
    (back,) = load(tmp_path / "r")
    for name in ("labels", "predictions", "predictions_task_aware", "rank"):
        assert np.array_equal(getattr(r, name), getattr(back, name)), name
    assert back.names == r.names
    assert summary([back])["average_accuracy"] == summary([r])["average_accuracy"]


@pytest.mark.parametrize("by_group", [False, True])
@pytest.mark.parametrize("K", [2, 182, 1000, 20_000])
def test_plots_draw_them(K, by_group, tmp_path):
    r = result(K)
    view = explore.confusion_view(r, by_group=by_group)
    assert f"of the images of {K} classes" in view.text
    ax = view.axes
    drawn = np.asarray(ax.collections[0].get_array()).reshape(min(K, accuracy.MOST_CELLS), -1)
    each = -(-K // accuracy.MOST_CELLS)
    order = np.arange(K)
    if by_group:
        order = sorted(range(K), key=lambda k: (k // 2, r.names[k]))
    cell = np.empty(K, dtype=int)
    cell[order] = np.arange(K) // each
    counts = np.zeros(drawn.shape)
    for (a, b), n in by_hand(r, cell).items():
        counts[a, b] = n
    np.testing.assert_allclose(drawn, 100 * counts / np.maximum(counts.sum(1, keepdims=True), 1))
    assert max(len(ax.get_xticklabels()), len(ax.lines)) <= 2 * accuracy.MOST_LINES
    assert ("20 a cell" in str([t.get_text() for t in ax.figure.findobj(plt.Text)])) == (each == 20)
    ax.figure.savefig(tmp_path / "a.png", dpi=30)
    plt.close("all")


def test_other_plots_draw_many_classes(tmp_path):
    r = result(1000)
    for plot in (plots.plot_accuracy_matrix, plots.plot_averages, plots.plot_tasks, plots.plot_forgetting):
        plot([r]).figure.savefig(tmp_path / "a.png", dpi=30)
    plots.plot_averages([r], x="classes").figure.savefig(tmp_path / "a.pdf")
    plt.close("all")


def test_a_matrix_beyond_all_memory_is_refused(monkeypatch):
    def full(*_, **__):
        raise MemoryError

    monkeypatch.setattr(np, "bincount", full)
    r = made()
    with pytest.raises(ValueError, match=r"a confusion matrix of 6 classes takes 0 GB of memory: give"):
        r.confusion()


@pytest.mark.parametrize("classes", [32_767, 32_768, 32_769, 70_000])
def test_labels_beyond_two_bytes_are_stored_whole(classes):
    labels = torch.tensor([0, 1, classes // 2, classes - 2, classes - 1])
    images = torch.zeros(5, 1, 2, 2, dtype=torch.uint8)

    class Answers(torch.nn.Module):
        def forward(self, x):
            logits = torch.zeros(len(x), classes)
            logits[torch.arange(len(x)), (labels + 1) % classes] = 1.0
            return logits

    test = ImageSet(images, labels, [""] * classes)
    sizes = (classes // 2, classes - classes // 2)
    found = evaluate(Answers(), test, sizes, classes)
    kind = np.int16 if classes <= 32_768 else np.int32
    assert found["predictions"].dtype == found["rank"].dtype == kind == label_type(classes)
    assert found["predictions"].tolist() == [1, 2, classes // 2 + 1, classes - 1, 0]
    assert found["rank"].tolist() == [1, 2, classes // 2 + 1, classes - 1, classes - 1]
    nothing = {"seen": classes, "learn_seconds": 0, "test_seconds": 0, "n_samples": 0, "parameters": 0}
    stream = SimpleNamespace(
        test=test, classes=classes, names=test.names, groups=None, test_classes_per_task=sizes
    )
    r = _collect([found, {**found, **nothing, "trace": {}}], stream, {"seed": 0})
    assert r.labels.tolist() == labels.tolist() and r.average("images") == 0
    assert r.top(3).tolist() == [0.4] and np.nansum(r.per_class()) == 0


def test_a_stream_of_many_classes_is_made_at_once():
    """Each class is looked up, not searched for: 20,000 classes, 40,000 images."""
    K = 20_000
    labels = torch.arange(K).repeat(2)
    names = [f"c{k}" for k in range(K)]
    train = ImageSet(torch.zeros(2 * K, 1, 1, 1, dtype=torch.uint8), labels, names)
    test = train.select(slice(0, K))
    stream = Stream(train, test, (K // 4,) * 4, order=names[::-1], val=0.5, max_per_class=1)
    assert [len(task.train) for task in stream] == [len(task.val) for task in stream] == [K // 4] * 4
    assert stream[3].train.labels.sort().values.tolist() == list(range(15_000, K))
    arriving = Stream(train, test, (K,), shuffle_images=0, max_per_class=1)
    assert arriving[0].train.labels.sort().values.tolist() == list(range(K))
