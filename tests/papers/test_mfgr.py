"""What the paper file of MFGR says about its benchmarks fits them."""

import pytest

from clkit import data, experiments, papers
from clkit.papers import mfgr


@pytest.mark.parametrize("name", mfgr.GROUPS)
def test_groups_are_the_classes_of_the_first_task(name):
    benchmark, _, size = name.partition("/")
    sizes = (
        [size] if size else [s for s in ("teach", "laptop", "paper") if f"{benchmark}/{s}" not in mfgr.GROUPS]
    )
    for preset in sizes:
        first = papers.benchmark(benchmark, preset).classes_per_task[0]
        assert sum(mfgr.GROUPS[name].values()) == first, (benchmark, preset)


@pytest.mark.parametrize("name", ["wardrobe", "wardrobe-8-2", "cub-caltech"])
def test_the_first_classes_of_teach_are_of_one_family(name):
    stream = experiments.stream(name, "teach")
    groups = mfgr.GROUPS.get(f"{name}/teach", mfgr.GROUPS[name])
    alike, easy = groups.values()
    families = stream.groups[: alike + easy]
    assert len(set(families[:alike])) == 1 and len(set(families[alike:])) == easy
    assert not set(families[:alike]) & set(families[alike:])


def test_every_fifth_class_of_birds_and_of_objects():
    row = papers.benchmark("cub-caltech", "paper")
    birds, objects = [c for c in row.order if c < 200], [c for c in row.order if c >= 200]
    assert (len(birds), len(objects), row.classes_per_task) == (40, 20, (50, 10))
    assert max(objects) < 200 + 101 and list(row.order) == sorted(row.order)


def test_the_clothes_are_named_as_in_the_data_set():
    for name in ("wardrobe", "wardrobe-8-2"):
        order = papers.benchmark(name, "laptop").order
        assert sorted(order) == sorted(data.facts.PUBLISHED["fashion_mnist"].names)


def test_the_paper_settings_are_those_of_the_paper():
    for method, expected in {
        "mfgr": (0.01, 0, 0.1, 0.0, 0.0),
        "mfgr-code": (0.1, 512, 0.0, 0.1, 10.0),
        "mfgr-bn": (0.01, 0, 0.0, 0.0, 0.0),
    }.items():
        config = experiments.experiment(f"{method}/cifar100-5", "paper").config
        assert (config.lr, config.generated, config.diversity, config.activation, config.tv) == expected
        assert (config.net, config.epochs, config.batch_size, config.base_lr) == ("resnet34", 150, 128, 0.1)
        assert (config.g_steps, config.g_batch, config.g_lr, config.n_pairs) == (60_000, 512, 0.01, 200)
        assert (config.class_diversity, config.statistics, config.temperature, config.noise) == (
            5,
            20,
            2,
            1000,
        )
