"""The generative baselines run in DGM's protocol."""

import pytest

from clkit.papers import PRESETS, dgm, generative

SHARED = {"nz", "d_width", "d_norm", "epochs", "batch_size", "lr", "steps"}


@pytest.mark.parametrize("method", generative.VARIANTS)
@pytest.mark.parametrize("benchmark", generative.BENCHMARKS)
def test_shared_settings_are_those_of_dgm(method, benchmark):
    for size in PRESETS:
        mine, theirs = (
            paper.settings_of(name, benchmark, size)
            for paper, name in ((generative.PAPER, method), (dgm.PAPER, "dgmw"))
        )
        shared = SHARED - {"nz"} if method == "joint-d" else SHARED
        assert {k: v for k, v in mine.items() if k in SHARED} == {
            k: v for k, v in theirs.items() if k in shared
        }, size
        assert mine.keys() - SHARED <= {"g_width", "replay"}
        assert method != "joint-d" or "g_width" not in mine
