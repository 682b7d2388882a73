"""How similar two representations of the same images are: SVCCA, CCA and linear CKA.

A representation is a matrix (n, p): a row for each datapoint, a column for each unit. Two networks are
compared on the same n datapoints in the same order; they may have different numbers of units.

    svcca(A, B).mean            Raghu et al. (2017): a number in [0, 1], or NaN if one side does not vary
    cka(A, B)                   Kornblith et al. (2019), linear kernel
    svcca(fold(a), fold(b))     maps (N, C, H, W): each position of each image is a datapoint

SVCCA keeps the directions of each side that hold 99 % of its variance, and averages the canonical
correlations between them. It is invariant to datapoint order (the same on both sides), shifts, one scale for
all units, and rotations of the units; with keep=1.0 (plain CCA) to every invertible map of them. So it does
not see a bias. For independent representations it is not 0: `floor` says how large chance makes it.
"""

from typing import NamedTuple

import numpy as np
import torch

from clkit.errors import ClkitError

NULL = 1e-10  # a singular value below this share of the largest is rounding


class SimilarityError(ClkitError):
    """Representations that cannot be compared; the message says why and what to give instead."""


class Similarity(NamedTuple):
    """What `svcca` found.

    mean: of the coefficients, the SVCCA similarity; NaN if one side does not vary.   coefficients: canonical
    correlations, descending, (min(kept),) in [0, 1].   kept: directions kept of A and of B.   floor: an upper
    bound on the expected mean for independent datapoints, at most 1.   n: number of datapoints.
    """

    mean: float
    coefficients: np.ndarray
    kept: tuple[int, int]
    floor: float
    n: int


def svcca(A, B, keep=0.99, *, allow_few=False):
    """Compare A (n, p) with B (n, q), arrays or tensors, in float64 on the device of A: a Similarity.

    keep: share of each side's variance, the sum of *squared* singular values, that the kept directions hold;
    1.0 keeps all that are not null (plain CCA).   allow_few: accept so few datapoints that some coefficients
    are 1 whatever the data, which happens if the kept directions of both sides are more than n - 1.
    SimilarityError for that, for different n, and for NaN.
    """
    if not 0 < keep <= 1:
        raise SimilarityError(f"keep is the share of the variance to keep, above 0 and at most 1, not {keep}")
    A, B = _pair(A, B)
    Qa, Qb = _directions(A, keep), _directions(B, keep)  # (n, ka), (n, kb)
    n, kept = len(A), (Qa.shape[1], Qb.shape[1])
    if sum(kept) > n - 1 and min(kept) and not allow_few:
        sure = min(sum(kept) - n + 1, *kept)
        raise SimilarityError(
            f"{n} datapoints are too few for {kept[0]} and {kept[1]} directions: {sure} of {min(kept)} "
            f"coefficients are 1 whatever the data; give {10 * max(kept)} or more, or allow_few=True"
        )
    rho = torch.linalg.svdvals(Qa.T @ Qb).clamp(0, 1).cpu().numpy()  # (min(ka, kb),)
    return Similarity(float(rho.mean()) if len(rho) else np.nan, rho, kept, floor(kept, n), n)


def floor(kept, n):
    """Bound on the expected SVCCA of independent datapoints: sqrt(max(kept) / (n - 1)), at most 1.

    The mean of the *squared* coefficients of two independent subspaces of R^(n-1) is max(kept) / (n - 1). The
    positions of one image are not independent of one another: for folded maps the true floor is higher.
    """
    return min(1.0, (max(kept) / max(n - 1, 1)) ** 0.5)


def cka(A, B):
    """Linear CKA of A (n, p) and B (n, q): a number in [0, 1], NaN if one side does not vary.

    Invariant to shifts, one scale for all units, and rotations; large directions count more than small ones.
    """
    A, B = _pair(A, B)
    if max(A.shape[1], B.shape[1]) > len(A):  # the same from products of datapoints, (n, n)
        K, L = A @ A.T, B @ B.T
        cross, sizes = (K * L).sum(), (K.norm(), L.norm())
    else:
        cross, sizes = (A.T @ B).square().sum(), ((A.T @ A).norm(), (B.T @ B).norm())
    return float(cross / (sizes[0] * sizes[1])) if min(sizes) > 0 else np.nan


def _pair(A, B):
    """Both matrices in float64 with the mean of each column removed, on the device of A."""
    place = {"dtype": torch.float64, "device": _device(A)}
    A, B = (torch.as_tensor(x, **place) for x in (A, B))
    if A.ndim != 2 or B.ndim != 2 or len(A) != len(B) or not len(A):
        raise SimilarityError(
            f"two matrices (datapoints, units) with the same datapoints are compared, not {tuple(A.shape)} "
            f"and {tuple(B.shape)}; fold() or pool() makes matrices of maps"
        )
    for name, x in (("first", A), ("second", B)):
        if not x.isfinite().all():
            raise SimilarityError(
                f"the {name} representation has values that are not finite: leave out these rows"
            )
    return _centred(A), _centred(B)


def _device(x):
    """Where an array or tensor is."""
    return x.device if isinstance(x, torch.Tensor) else "cpu"


def _centred(x):
    """x (n, p) without the means of its columns; columns that only differ by rounding become 0."""
    means = x.mean(0)
    x = x - means  # before any product: a one-pass covariance loses all digits for large means
    rounding = 4 * torch.finfo(x.dtype).eps * means.abs()
    return torch.where(x.abs().amax(0) > rounding, x, 0)


def _directions(x, keep):
    """An orthonormal basis (n, k) of those first directions of centred x (n, p) that hold a share of it."""
    n, p = x.shape
    least = (1 - keep) / p  # no kept square is a smaller share of the largest one
    if n > 2 * p and least > 1e-6:  # then x^T x is exact enough, and fast
        squares, V = torch.linalg.eigh(x.T @ x)
        squares, V = squares.flip(0).clamp(min=0), V.flip(1)
        k = _count(squares, keep)
        return x @ V[:, :k] / squares[:k].sqrt()
    U, s, _ = torch.linalg.svd(x, full_matrices=False)
    return U[:, : _count(s**2, keep)]


def _count(squares, keep):
    """The smallest number of squared singular values, descending, whose sum is the share `keep` of all."""
    there = int((squares > NULL**2 * squares[0]).sum()) if len(squares) else 0
    if keep == 1:
        return there
    return min(there, 1 + int((squares.cumsum(0) / squares.sum() < keep).sum()))


# ---- maps


def fold(maps, positions=None, seed=0):
    """Maps (N, C, H, W) as datapoints (N * H * W, C): each position is one. A matrix (N, D) stays as it is.

    positions: keep so many random positions of each image, the same whenever N, H, W and the seed are; None
    keeps all.
    """
    maps = torch.as_tensor(maps, device=_device(maps))
    if maps.ndim == 2:
        return maps
    N, C, H, W = maps.shape
    rows = maps.flatten(2).transpose(1, 2)  # (N, H*W, C): transposed before it is flattened
    if positions is not None and positions < H * W:
        draw = torch.Generator(device="cpu").manual_seed(seed)
        order = torch.rand(N, H * W, generator=draw, device="cpu").argsort(1)[:, :positions]
        rows = rows.gather(1, order.to(maps.device)[..., None].expand(-1, -1, C))
    return rows.reshape(-1, C)


def pool(maps):
    """Means over the positions of maps (N, C, H, W): (N, C). This is another measure than folding."""
    return torch.as_tensor(maps, device=_device(maps)).flatten(2).mean(2)
