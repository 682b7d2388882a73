"""SVCCA, CCA and CKA: known numbers of two other libraries, closed forms, invariances, and refusals."""

import numpy as np
import pytest
import torch
from numpy.random import RandomState
from scipy.linalg import subspace_angles

from clkit.analysis.svcca import SimilarityError, cka, floor, fold, pool, svcca

# ---- cases: units x datapoints, from the legacy generator of numpy, whose numbers never change


def decaying(r, n, ratio):
    return r.randn(20, n) * ratio ** np.arange(20)[:, None]


def worked():
    r = RandomState(0)
    X, B, noise = r.randn(6, 200), r.randn(4, 6), r.randn(4, 200)
    return X, B @ X + 2 * noise


def same():
    X = decaying(RandomState(1), 300, 0.8)
    return X, X


def invertible():
    r = RandomState(2)
    X = decaying(r, 1000, 0.6)
    return X, r.randn(20, 20) @ X


def orthogonal():
    r = RandomState(3)
    X = decaying(r, 1000, 0.6)
    Q = np.linalg.qr(r.randn(20, 20))[0]
    return X, 3.7 * Q @ X + 10 * r.randn(20, 1)


def rank_deficient():
    r = RandomState(4)
    shared, own, other, A, B = (r.randn(*s) for s in ((3, 400), (2, 400), (5, 400), (20, 5), (24, 8)))
    return A @ np.vstack([shared, own]), B @ np.vstack([shared, other])


def few():
    r = RandomState(5)
    return r.randn(200, 64), r.randn(150, 64)


def independent():
    r = RandomState(6)
    return r.randn(50, 2000), r.randn(30, 2000)


def dead_units():
    r = RandomState(7)
    A, latent, B, noise = (r.randn(*s) for s in ((12, 8), (8, 500), (16, 12), (16, 500)))
    X = np.maximum(A @ latent, 0)
    Y = np.maximum(B @ X + 0.5 * noise, 0)
    return np.vstack([X, np.zeros((4, 500)), X[:3]]), np.vstack([Y, np.full((2, 500), 1.5)])


def both_maps():
    r = RandomState(8)
    noise, B, other, mean = (r.randn(*s) for s in ((60, 8, 5, 5), (8, 8), (60, 8, 5, 5), (60, 8, 1, 1)))
    a = noise + mean
    return a, np.einsum("dc,nchw->ndhw", B, a) + other


def folded():
    return tuple(fold(maps).numpy().T for maps in both_maps())


def pooled():
    return tuple(pool(maps).numpy().T for maps in both_maps())


def offset():
    r = RandomState(9)
    X, B, noise = r.randn(15, 600), r.randn(15, 15), r.randn(15, 600)
    return X + 1e4, B @ X + noise - 1e4


def wide():
    r = RandomState(10)
    latent, A, B, noise = (r.randn(*s) for s in ((40, 600), (128, 40), (128, 40), (128, 600)))
    return np.maximum(A @ latent, 0), np.maximum(B @ latent + 2 * noise, 0)


def reversed_spectrum():
    X = decaying(RandomState(11), 1000, 0.6)
    return X, 0.6 ** (19 - 2.0 * np.arange(20))[:, None] * X


# {case: (kept at 0.99, SVCCA, CCA)}. Computed with CCA of cca-zoo 4.0.1, on the first singular directions of
# the centred data; the first of these numbers agree to 3e-9 with cca_core.get_cca_similarity of google/svcca
# (epsilon = 1e-10), the mean of its "cca_coef1".
KNOWN = {
    worked: ((6, 4), 0.6326073674106729, 0.6326073674106729),
    same: ((11, 11), 1.0, 1.0),
    invertible: ((5, 5), 0.9973177454243356, 1.0),
    orthogonal: ((5, 5), 1.0, 1.0),
    rank_deficient: ((5, 8), 0.6290627433812551, 0.6290627433812551),
    few: ((61, 60), 0.9757560371642617, 1.0),
    independent: ((50, 30), 0.14283644590093905, 0.14283644590093905),
    dead_units: ((11, 11), 0.7378084907653532, 0.7205632354887123),
    folded: ((8, 8), 0.8252565690124265, 0.8252565690124265),
    pooled: ((8, 6), 0.9964922118283593, 0.9357488954916777),
    offset: ((15, 13), 0.9239261676284927, 0.8453598400904105),
    wide: ((114, 118), 0.5581236159536855, 0.547270548449911),
    reversed_spectrum: ((5, 5), 0.05334872678140018, 1.0),
}


def pair(case):
    return tuple(x.T for x in case())


@pytest.mark.parametrize("case", KNOWN, ids=lambda case: case.__name__)
def test_the_numbers_of_other_libraries(case):
    (A, B), (kept, wanted, plain) = pair(case), KNOWN[case]
    found = svcca(A, B, allow_few=case is few)
    assert found.kept == kept and found.n == len(A) and len(found.coefficients) == min(kept)
    assert found.mean == pytest.approx(wanted, abs=1e-8) and (np.diff(found.coefficients) <= 0).all()
    assert svcca(A, B, keep=1.0, allow_few=case is few).mean == pytest.approx(plain, abs=1e-8)
    swapped = svcca(torch.tensor(B), A, allow_few=case is few)
    assert swapped.mean == pytest.approx(wanted, abs=1e-8) and swapped.kept == kept[::-1]


def test_the_worked_example_has_these_coefficients():
    rho = svcca(*pair(worked)).coefficients
    np.testing.assert_allclose(rho, [0.85480109, 0.76158929, 0.73471272, 0.17932638], atol=1e-8)


@pytest.mark.parametrize("keep", [0.6, 0.9, 0.99, 1.0])
@pytest.mark.parametrize("n, p, q", [(300, 40, 25), (90, 40, 25), (60, 7, 20)])
def test_coefficients_are_cosines_of_angles_between_subspaces(n, p, q, keep):
    r = np.random.default_rng(p)
    A = r.normal(size=(n, p)) * 0.9 ** np.arange(p)
    B = np.tanh(A[:, :5] @ r.normal(size=(5, q))) + r.normal(size=(n, q)) * 0.8 ** np.arange(q)
    found = svcca(A, B, keep)

    def main(x):
        u, s, _ = np.linalg.svd(x - x.mean(0))
        return u[
            :, : next(k for k in range(1, len(s) + 1) if (s[:k] ** 2).sum() >= (keep - 1e-12) * (s**2).sum())
        ]

    np.testing.assert_allclose(found.coefficients, np.cos(subspace_angles(main(A), main(B)))[::-1], atol=1e-9)
    assert found.kept == (main(A).shape[1], main(B).shape[1])


def test_both_routes_to_the_directions_agree(monkeypatch):
    A, B = pair(wide)
    quick = svcca(A[:, :60], B[:, :60])
    monkeypatch.setattr(torch.linalg, "eigh", None)  # must not be used for wide data or for plain CCA
    slow = svcca(A[:110, :60], B[:110, :60], allow_few=True), svcca(A[:, :60], B[:, :60], keep=1.0)
    assert [len(s.coefficients) > 50 for s in slow] == [True, True]
    with pytest.raises(TypeError):
        svcca(A[:, :60], B[:, :60])
    monkeypatch.setattr("clkit.analysis.svcca._directions", directions_by_svd)
    np.testing.assert_allclose(svcca(A[:, :60], B[:, :60]).coefficients, quick.coefficients, atol=1e-12)


def directions_by_svd(x, keep):
    U, s, _ = torch.linalg.svd(x, full_matrices=False)
    share = (s**2).cumsum(0) / (s**2).sum()
    return U[:, : 1 + int((share < keep).sum())]


# ---- what it is invariant to


@pytest.mark.parametrize("keep", [0.99, 1.0])
def test_invariances(keep):
    A, B = pair(dead_units)
    r = np.random.default_rng(1)
    Q = np.linalg.qr(r.normal(size=(19, 19)))[0]
    order = r.permutation(len(A))
    wanted = svcca(A, B, keep).mean
    for changed in (A @ Q, A + r.normal(size=19), 1e3 * A, A[:, ::-1].copy(), -A):
        assert svcca(changed, B, keep).mean == pytest.approx(wanted, abs=1e-10)
        assert cka(changed, B) == pytest.approx(cka(A, B), abs=1e-10)
    assert svcca(A[order], B[order], keep).mean == pytest.approx(wanted, abs=1e-10)
    assert svcca(A[order], B, keep).mean < wanted - 0.3  # another order on one side only is another pairing
    assert svcca(A, A @ Q + 3, keep).mean == pytest.approx(1, abs=1e-10)


def test_an_invertible_map_changes_svcca_and_not_cca():
    A, B = pair(worked)
    r = np.random.default_rng(2)
    M = r.normal(size=(6, 6)) * 3.0 ** np.arange(6)
    assert svcca(A @ M, B, 1.0).mean == pytest.approx(svcca(A, B, 1.0).mean, abs=1e-9)
    assert abs(svcca(A @ M, B).mean - svcca(A, B).mean) > 0.01 and abs(cka(A @ M, B) - cka(A, B)) > 0.01


def test_a_bias_of_the_classes_is_not_seen():
    logits = np.random.default_rng(3).normal(size=(400, 6))
    biased = logits + np.array([0, 0, 0, 9, 9, 9])
    assert svcca(logits, biased).mean == pytest.approx(1) and cka(logits, biased) == pytest.approx(1)
    assert (biased.argmax(1) >= 3).mean() > 0.99 > 0.6 > (logits.argmax(1) >= 3).mean()


def test_dead_and_repeated_units_do_not_matter():
    A, B = pair(dead_units)
    assert svcca(A[:, :12], B[:, :16], keep=1.0).mean == pytest.approx(svcca(A, B, keep=1.0).mean, abs=1e-10)
    dull = np.full((500, 3), 0.1, dtype=np.float32)  # its mean is rounded
    for found in (svcca(dull, B), svcca(B, dull)):
        assert np.isnan(found.mean) and found.coefficients.size == 0 and min(found.kept) == 0
    assert np.isnan(cka(dull, B)) and np.isnan(cka(B, dull))


# ---- chance


def test_independent_data_come_near_the_floor():
    A, B = pair(independent)
    found = svcca(A, B)
    assert found.floor == pytest.approx((50 / 1999) ** 0.5) and 0.85 * found.floor < found.mean < found.floor
    assert (found.coefficients**2).mean() == pytest.approx(50 / 1999, rel=0.1)
    shuffled = svcca(A, A[np.random.default_rng(0).permutation(2000)])  # the same test for any data
    assert 0.8 * shuffled.floor < shuffled.mean < shuffled.floor
    assert floor((30, 40), 20) == 1 and floor((3, 4), 17) == 0.5


def test_too_few_datapoints_are_refused_and_score_high():
    A, B = pair(few)
    with pytest.raises(
        SimilarityError, match="64 datapoints are too few for 61 and 60 directions: 58 of 60 coef"
    ):
        svcca(A, B)
    found = svcca(A, B, allow_few=True)
    assert (found.coefficients > 1 - 1e-9).sum() >= 58 and found.floor > 0.98
    enough = svcca(A[:, :31], B[:, :32], keep=1.0)  # 63 directions of 63: no coefficient has to be 1
    assert enough.kept == (31, 32) and enough.coefficients[0] < 1 - 1e-6
    with pytest.raises(SimilarityError, match="1 of 32 coefficients"):
        svcca(A[:, :32], B[:, :32], keep=1.0)
    assert svcca(A[:, :32], B[:, :32], 1.0, allow_few=True).coefficients[0] == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize(
    "A, B, says",
    [
        (np.ones((4, 2)), np.ones((5, 2)), r"same datapoints are compared, not \(4, 2\) and \(5, 2\)"),
        (np.ones((4, 2)), np.ones(4), "two matrices"),
        (np.ones((4, 2, 2, 2)), np.ones((4, 2)), "fold"),
        (np.ones((0, 2)), np.ones((0, 2)), "two matrices"),
        (
            np.ones((4, 2)),
            np.full((4, 2), np.nan),
            "the second representation has values that are not finite",
        ),
        (torch.full((4, 2), torch.inf, device="cpu"), np.ones((4, 2)), "the first representation"),
    ],
)
def test_refusals_are_one_clear_sentence(A, B, says):
    for compare in (svcca, cka):
        with pytest.raises(SimilarityError, match=says):
            compare(A, B)


@pytest.mark.parametrize("keep", [0, 1.01, -1, float("nan")])
def test_keep_is_a_share(keep):
    with pytest.raises(SimilarityError, match="share of the variance"):
        svcca(*pair(worked), keep)


# ---- CKA


@pytest.mark.parametrize("n", [20, 400])
def test_cka_is_the_normalised_product_of_centred_kernels(n):
    r = np.random.default_rng(4)
    A = r.normal(size=(n, 30))
    B = A[:, :8] @ r.normal(size=(8, 12)) + 5 + r.normal(size=(n, 12))
    H = np.eye(n) - 1 / n
    K, L = H @ A @ A.T @ H, H @ B @ B.T @ H
    wanted = np.trace(K @ L) / np.sqrt(np.trace(K @ K) * np.trace(L @ L))
    assert cka(A, B) == pytest.approx(wanted, abs=1e-12) == pytest.approx(cka(B, torch.tensor(A)), abs=1e-12)
    assert cka(A, A) == pytest.approx(1) and 0.05 < wanted < 0.95


# ---- maps


def test_fold_makes_each_position_a_datapoint():
    maps, _ = both_maps()
    rows = fold(maps).numpy()
    for n, (i, y, x) in enumerate(np.ndindex(60, 5, 5)):
        np.testing.assert_array_equal(rows[n], maps[i, :, y, x])
    assert fold(rows) is not None and torch.equal(fold(rows), torch.tensor(rows))  # a matrix stays
    np.testing.assert_allclose(pool(maps).numpy(), maps.mean((2, 3)))


def test_thinning_takes_the_same_random_positions_of_maps_of_any_depth():
    places = torch.arange(25, dtype=torch.float64, device="cpu").view(1, 1, 5, 5)
    images = 100 * torch.arange(60, dtype=torch.float64, device="cpu").view(60, 1, 1, 1)
    rows = fold((places + images).expand(60, 3, 5, 5), 4)  # (240, 3)
    assert rows.shape == (240, 3) and torch.equal(rows, fold((places + images).expand(60, 3, 5, 5), 4))
    image, place = rows[:, 0].long().view(60, 4) // 100, rows[:, 0].long().view(60, 4) % 100
    assert torch.equal(image, torch.arange(60, device="cpu")[:, None].expand(60, 4))
    assert all(len(set(row.tolist())) == 4 for row in place) and len(set(place.flatten().tolist())) == 25
    one = fold((places + images).expand(60, 1, 5, 5), 4)
    assert torch.equal(one[:, 0], rows[:, 0])
    assert not torch.equal(fold(places + images, 4, seed=1), one)
    assert torch.equal(fold(places + images, 25), fold(places + images))
