"""The random class orders of the protocols, against numpy's own generator."""

import numpy as np
import pytest

from clkit import papers
from clkit.papers import class_orders


@pytest.mark.parametrize("seed", [0, 1993, 2**32 - 1])
@pytest.mark.parametrize("n", [1, 2, 10, 100, 1000])
def test_a_permutation_is_that_of_numpy(n, seed):
    assert class_orders.permutation(n, seed) == np.random.RandomState(seed).permutation(n).tolist()


def test_the_two_orders_of_a_hundred_classes_are_inverse():
    gfr, icarl = class_orders.gfr(100), class_orders.icarl(100)
    assert gfr[:5] == (69, 23, 57, 12, 89) and gfr[-3:] == (56, 55, 68)
    assert icarl[:5] == (68, 56, 78, 8, 23) and icarl[-3:] == (49, 57, 33)
    assert [gfr[k] for k in icarl] == [icarl[k] for k in gfr] == list(range(100))
    assert len({*gfr[:50]} & {*icarl[:50]}) == 24


def test_the_order_of_a_thousand_classes():
    assert class_orders.gfr(1000)[:6] == (342, 778, 443, 256, 601, 104)
    assert class_orders.icarl(1000)[:6] == (54, 7, 894, 512, 126, 337)
    assert len({*class_orders.gfr(1000)[:100]} & {*class_orders.icarl(1000)[:100]}) == 9


HALF = [name for name, sizes in papers.PAPERS["gfr"].benchmarks.items() if name != "cifar100-4"]


@pytest.mark.parametrize("name", HALF)
def test_half_of_the_classes_come_first(name):
    for size in ("teach", "laptop", "paper"):
        row = papers.benchmark(name, size)
        first, *later = row.classes_per_task
        assert len({*later}) == 1 and first == sum(later), (size, row.classes_per_task)
    if name != "split-shapes":
        classes, tasks = map(int, name.rsplit("-", 2)[1:])
        assert row.classes_per_task == (classes, *(classes // tasks,) * tasks)
        assert row.order[:2] == ((342, 778) if classes == 500 else (68, 56) if "image" in name else (69, 23))
