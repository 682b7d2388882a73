"""Standardisation and random views of images, against loops over pixels and closed forms."""

import pytest
import torch
from torch.nn import functional as F

from clkit.blocks.pixels import Standardise, centre, crop_and_flip, zoom_and_flip
from clkit.errors import ClkitError


def test_standardised_pixels_have_mean_0_and_deviation_1():
    x = torch.rand(50, 3, 4, 4) * torch.tensor([1.0, 0.5, 0.2])[:, None, None]
    mean, std = (tuple(getattr(x, of)((0, 2, 3)).tolist()) for of in ("mean", "std"))
    y = Standardise(mean, std, 3)(x)
    torch.testing.assert_close(y.mean((0, 2, 3)), torch.zeros(3), atol=1e-5, rtol=0)
    torch.testing.assert_close(y.std((0, 2, 3)), torch.ones(3), atol=1e-5, rtol=0)
    assert Standardise(mean, std, 3).state_dict() == {}, "settings are no state"
    torch.testing.assert_close(Standardise((0.5,), (2.0,), 3)(x), (x - 0.5) / 2)


@pytest.mark.parametrize(
    "mean, std", [((0.5, 0.5), (1.0, 1.0)), ((0.5,), (0.0,)), ((0.5,), (1.0,) * 3), ((), ())]
)
def test_constants_that_do_not_fit_the_images_are_refused(mean, std):
    with pytest.raises(ClkitError, match=r"mean and std must have one number.*\(3\)"):
        Standardise(mean, std, 3)


# ---- crops


def slow_crop_and_flip(x, pad, flip):
    B, _C, H, W = x.shape
    down, right = torch.randint(0, 2 * pad + 1, (B, 1)), torch.randint(0, 2 * pad + 1, (B, 1))
    mirrored = torch.randint(0, 2, (B, 1)) if flip else torch.zeros(B, 1)
    out = torch.zeros_like(x)
    for b in range(B):
        for i in range(H):
            for j in range(W):
                row, column = i + int(down[b]) - pad, (W - 1 - j if mirrored[b] else j) + int(right[b]) - pad
                if 0 <= row < H and 0 <= column < W:
                    out[b, :, i, j] = x[b, :, row, column]
    return out


@pytest.mark.parametrize("pad, flip", [(4, True), (2, False), (0, True), (1, True)])
def test_crop_and_flip_equals_a_loop_over_pixels(pad, flip):
    x = torch.rand(12, 3, 6, 5)
    torch.manual_seed(3)
    expected = slow_crop_and_flip(x, pad, flip)
    torch.manual_seed(3)
    assert torch.equal(crop_and_flip(pad, flip)(x), expected)
    after = _after(3, 12, pad, flip)
    assert torch.equal(torch.rand(1), torch.rand(1, generator=after)), "it draws B of each, no more"


def _after(seed, B, pad, flip):
    generator = torch.Generator().manual_seed(seed)
    for _ in range(2):
        torch.randint(0, 2 * pad + 1, (B, 1), generator=generator)
    if flip:
        torch.randint(0, 2, (B, 1), generator=generator)
    return generator


def test_each_image_has_its_own_draw():
    torch.manual_seed(0)
    x = torch.rand(1, 1, 8, 8).expand(64, 1, 8, 8)
    out = crop_and_flip(2)(x)
    assert len({image.numpy().tobytes() for image in out}) > 20


def test_no_shift_and_no_flip_changes_nothing():
    x = torch.rand(3, 1, 4, 4)
    assert torch.equal(crop_and_flip(0, False)(x), x)
    for wrong in (-1, 1.5, True):
        with pytest.raises(ClkitError, match=f"pad must be .* not {wrong}"):
            crop_and_flip(wrong)


def test_bytes_are_shifted_as_floats_are():
    x = torch.randint(0, 256, (9, 3, 6, 6), dtype=torch.uint8)
    found = []
    for images in (x, x.float()):
        torch.manual_seed(0)
        found.append(crop_and_flip(2)(images))
    assert found[0].dtype == torch.uint8 and torch.equal(found[0].float(), found[1])


# ---- parts of another size


def test_the_whole_image_is_its_usual_resizing():
    """A part with all the area and the shape of the image: bilinear resizing, or its mirror image."""
    torch.manual_seed(0)
    x = torch.rand(40, 3, 8, 8)
    y = zoom_and_flip(16, area=(1.0, 1.0), aspect=(1.0, 1.0))(x)
    plain = F.interpolate(x, (16, 16), mode="bilinear")
    same = [torch.allclose(a, b, atol=1e-5) for a, b in zip(y, plain)]
    mirrored = [torch.allclose(a, b, atol=1e-5) for a, b in zip(y, plain.flip(3))]
    assert all(s != m for s, m in zip(same, mirrored)) and 8 < sum(same) < 32


def test_parts_have_the_areas_and_ratios_asked_for_and_lie_inside():
    """Images of a linear ramp: the values of a part tell where it lies."""
    torch.manual_seed(0)
    ramp = (torch.arange(64) + 0.5) / 64
    x = torch.stack([ramp.expand(64, 64), ramp[:, None].expand(64, 64)]).expand(2000, 2, 64, 64)
    y = zoom_and_flip(4)(x)
    across = (y[:, 0, 0, -1] - y[:, 0, 0, 0]) * 4 / 3  # width of the part, negative if mirrored
    down = (y[:, 1, -1, 0] - y[:, 1, 0, 0]) * 4 / 3
    area, ratio = across.abs() * down, across.abs() / down
    inside = (across.abs() < 0.95) & (down < 0.95)  # the others were cut to the image
    assert 0.079 < area.min() and area.max() < 1.001 and abs((across < 0).float().mean() - 0.5) < 0.05
    assert 0.74 < ratio[inside].min() and ratio[inside].max() < 1.34
    assert abs(ratio[area < 0.5].log().mean()) < 0.02 and y.min() >= 0 and y.max() <= 1
    middle = (y[:, 0].mean((1, 2)) - 0.5).abs() + across.abs() / 2
    assert middle.max() < 0.502


def test_the_centre():
    x = torch.arange(36.0).view(1, 1, 6, 6)
    assert centre(x, 2).flatten().tolist() == [14, 15, 20, 21] and torch.equal(centre(x, 6), x)
