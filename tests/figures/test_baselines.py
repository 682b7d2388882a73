"""Figures of the baselines: their numbers agree with the records."""

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


def test_the_strengths_of_ewc_are_those_of_the_records(records):
    spec = baselines.ewc_strengths()
    ax = spec.figure.axes[0]
    for (what, score), drawn in zip(baselines.STRENGTH_SCORES.items(), ax.containers, strict=True):
        wanted = []
        for strength in baselines.STRENGTHS:
            stem = "ewc_split-mnist_teach" + ("" if strength == 1e8 else f"_strength-{strength}")
            wanted.append(interval([score(r) for r in load(records / stem)]))
        np.testing.assert_allclose(drawn.lines[0].get_ydata(), [100 * i.mean for i in wanted])
        assert f"{what}: strength 0 {100 * wanted[0].mean:.1f} ± {100 * wanted[0].half:.1f}; " in spec.alt
    assert "95 % t-interval, n = 2" in spec.caption


def test_every_figure_of_the_baselines_has_a_title_of_its_own(records):
    titles = [make().title for make in baselines.FIGURES.values()]
    assert all(titles) and len(set(titles)) == len(titles)


def test_a_schematic_has_no_records_and_names_its_methods():
    for make, methods in (
        (baselines.penalties_schematic, "EWC SI MAS LwF"),
        (baselines.replay_schematic, "ER iCaRL DGR"),
    ):
        spec = make()
        assert not spec.records
        drawn = " ".join(text.get_text() for text in spec.figure.axes[0].texts)
        for method in methods.split():
            assert method in drawn and method in spec.alt


def test_one_sample_of_every_shape_is_drawn(records):
    axes = baselines.shapes_samples().figure.axes
    assert [len(ax.texts) for ax in axes] == [10, 10]
    assert all(ax.images[0].get_array().shape[1] == 5 * 34 - 2 for ax in axes)


def test_the_protocol_has_a_column_for_each_task_with_its_row_of_the_matrix():
    texts = [t.get_text() for t in baselines.protocol_schematic().figure.axes[0].texts]
    assert [t for t in texts if t.startswith("$a_")][1] == "$a_{2,1}$  $a_{2,2}$"
    assert texts.count("learn") == texts.count("answers") == 4


def test_only_one_of_four_methods_has_a_memory_and_one_a_teacher():
    texts = [t.get_text() for t in baselines.learners_schematic().figure.axes[0].texts]
    assert (
        texts.count("memory\nof images") == texts.count("teacher $f^*$") == texts.count("distillation") == 1
    )
    assert texts.count("network $f$") == texts.count("cross-entropy") == 4
