"""Figures of the baselines: their numbers are those of the records."""

import numpy as np

from clkit import figures
from clkit.figures import baselines
from clkit.result import interval, load


def test_a_description_has_the_numbers_of_the_records(records):
    for name, stem, score in (
        ("averages-split-mnist", "er", lambda r: r.average()),
        ("scenarios-split-mnist", "lwf-multihead", lambda r: r.task_aware_average()),
        ("confusion-finetune-er", "finetune", lambda r: r.newest_share()),
    ):
        i = interval([score(r) for r in load(records / f"{stem}_split-mnist_paper")])
        spec = figures.FIGURES[name]()
        assert f"{100 * i.mean:.1f} % (± {100 * i.half:.1f}, 95 % t-interval, n = 2)" in spec.alt


def test_the_memory_sweep_draws_every_size(records):
    ax = baselines.memory_kept().figure.axes[0]
    drawn = ax.containers[0].lines[0]
    wanted = []
    for memory in baselines.MEMORIES:
        stem = "er_split-mnist_paper" + ("" if memory == 500 else f"_memory-{memory}")
        wanted.append(100 * np.mean([r.average() for r in load(records / stem)]))
    assert list(drawn.get_xdata()) == list(baselines.MEMORIES)
    np.testing.assert_allclose(np.asarray(drawn.get_ydata(), float), wanted)


def test_one_sample_of_every_shape_is_drawn(records):
    axes = baselines.shapes_samples().figure.axes
    assert [len(ax.texts) for ax in axes] == [10, 10]
    assert all(ax.images[0].get_array().shape[1] == 5 * 34 - 2 for ax in axes)
