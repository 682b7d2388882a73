"""How image files become pixels: transparency, orientation, several formats and modes."""

import numpy as np
import pytest
import torch
from PIL import Image

from clkit.data import DataError, folders, load

SIZE = 8
LINE = np.eye(SIZE, dtype=bool)  # the shape of a drawing: True where there is ink


def drawing(mode, ink=0, ground=None):
    """A drawing whose shape is in the alpha channel alone: ink of one grey value, nothing elsewhere."""
    grey = np.full((SIZE, SIZE), ink, dtype=np.uint8)
    alpha = np.where(LINE, 255, 0).astype(np.uint8)
    if mode == "LA":
        return Image.merge("LA", [Image.fromarray(grey), Image.fromarray(alpha)]), {}
    if mode == "RGBA":
        return Image.merge("RGBA", [Image.fromarray(grey)] * 3 + [Image.fromarray(alpha)]), {}
    # all other ways: one value is declared transparent, and has the colour of the ink where it has one
    marked = Image.fromarray(np.where(LINE, 1, 0).astype(np.uint8))
    if mode == "P":
        marked = marked.convert("P")
        marked.putpalette([ink] * 6)
        return marked, {"transparency": 0}
    values = np.where(LINE, ink, ink + 1).astype(np.uint8)
    if mode == "L":
        return Image.fromarray(values), {"transparency": ink + 1}
    return Image.fromarray(np.stack([values] * 3, 2)), {"transparency": (ink + 1,) * 3}


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(
    "mode, ending",
    [
        ("RGBA", "png"),
        ("LA", "png"),
        ("P", "png"),
        ("L", "png"),
        ("RGB", "png"),
        ("P", "gif"),
        ("RGBA", "webp"),
        ("RGBA", "tif"),
        ("LA", "tif"),
    ],
)
def test_a_shape_that_only_alpha_has_is_drawn_on_white(tmp_path, mode, ending, channels):
    image, options = drawing(mode)
    path = tmp_path / f"a.{ending}"
    image.save(path, **options, **({"lossless": True, "exact": True} if ending == "webp" else {}))
    assert Image.open(path).has_transparency_data
    if channels == 1 and Image.open(path).mode not in ("L", "LA"):
        with pytest.raises(folders._Coloured):
            folders.decode_file(str(path), None, 1)
        return
    found = folders.decode_file(str(path), None, channels)
    assert found.shape == (channels, SIZE, SIZE)
    assert (found == np.where(LINE, 0, 255)).all()


def test_what_is_half_transparent_is_half_white(tmp_path):
    alpha = np.arange(256, dtype=np.uint8).reshape(16, 16)
    pixels = np.zeros((16, 16, 4), dtype=np.uint8)
    pixels[..., 0], pixels[..., 3] = 200, alpha
    Image.fromarray(pixels).save(tmp_path / "a.png")
    found = folders.decode_file(str(tmp_path / "a.png"), None, 3).astype(float)
    share = alpha / 255
    for channel, value in zip(found, (200, 0, 0)):
        assert np.abs(channel - (value * share + 255 * (1 - share))).max() <= 1


@pytest.mark.parametrize("mode", ["RGBA", "LA", "RGB", "L", "P", "1", "CMYK"])
def test_opaque_images_keep_their_pixels(tmp_path, mode):
    grey = np.random.default_rng(0).integers(0, 2, (SIZE, SIZE), dtype=np.uint8) * 255
    path = tmp_path / ("a.tif" if mode == "CMYK" else "a.png")
    Image.fromarray(grey).convert(mode).save(path)
    assert (folders.decode_file(str(path), None, 3) == grey).all()


def test_white_ink_on_nothing_is_refused_and_an_empty_image_is_not(tmp_path):
    for name, ink in (("white", 255), ("grey", 254)):
        drawing("RGBA", ink)[0].save(tmp_path / f"{name}.png")
    Image.new("RGBA", (SIZE, SIZE)).save(tmp_path / "empty.png")
    with pytest.raises(DataError, match=r"white\.png is white on a transparent ground.*: give it a ground"):
        folders.decode_file(str(tmp_path / "white.png"), None, 3)
    assert (folders.decode_file(str(tmp_path / "empty.png"), None, 3) == 255).all()
    assert (folders.decode_file(str(tmp_path / "grey.png"), None, 3) == np.where(LINE, 254, 255)).all()


def test_a_set_of_transparent_drawings_shows_them(tmp_path):
    for k, mode in enumerate(("RGBA", "LA", "L")):
        (tmp_path / mode).mkdir()
        image, options = drawing(mode)
        for n in range(3):
            image.rotate(90 * n).save(tmp_path / mode / f"{k}{n}.png", **options)
    for part in load(f"folder:{tmp_path}"):
        assert (part.images.float().flatten(1).std(1) > 0).all() and part.shape == (3, SIZE, SIZE)


# Where the stored row 0 and column 0 are seen, for each value of the tag Orientation (EXIF 2.32, table 4)
SEEN = {
    1: ("top", "left"),
    2: ("top", "right"),
    3: ("bottom", "right"),
    4: ("bottom", "left"),
    5: ("left", "top"),
    6: ("right", "top"),
    7: ("right", "bottom"),
    8: ("left", "bottom"),
}


def stored(upright, orientation):
    """The pixels (H, W, 3) that a camera stores with this orientation."""
    row, column = SEEN[orientation]
    turned = row in ("left", "right")
    pixels = upright.transpose(1, 0, 2) if turned else upright
    pixels = pixels[::-1] if row in ("bottom", "right") else pixels
    return np.ascontiguousarray(pixels[:, ::-1] if column in ("bottom", "right") else pixels)


@pytest.mark.parametrize("ending", ["png", "webp", "tif", "jpg"])
@pytest.mark.parametrize("orientation", SEEN)
def test_photographs_are_upright(tmp_path, orientation, ending):
    upright = np.kron(np.arange(24).reshape(4, 6) * 10, np.ones((8, 8)))[..., None] * np.ones(3)
    upright = upright.astype(np.uint8)
    exif = Image.Exif()
    exif[0x0112] = orientation
    look = {"jpg": {"quality": 95}, "webp": {"lossless": True}}.get(ending, {})
    path = tmp_path / f"a.{ending}"
    Image.fromarray(stored(upright, orientation)).save(path, exif=exif, **look)
    found = folders.decode_file(str(path), None, 3).transpose(1, 2, 0)
    assert found.shape == (32, 48, 3)
    assert np.abs(found.astype(int) - upright).max() <= (4 if ending == "jpg" else 0)
    small = folders.decode_file(str(path), 32, 3).transpose(1, 2, 0)  # the middle of the upright picture
    assert np.abs(small.astype(int) - upright[:, 8:40]).max() <= (4 if ending == "jpg" else 0)


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
@pytest.mark.parametrize(
    "exif", [b"Exif\0\0garbage", b"Exif\0\0II*\0\xff\xff\xff\xff", b"MM\0*\0\0\0\x08\0\x09"]
)
def test_damaged_exif_data_do_no_harm(tmp_path, exif):
    pixels = np.random.default_rng(0).integers(0, 256, (4, 6, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png", exif=exif)
    assert (folders.decode_file(str(tmp_path / "a.png"), None, 3).transpose(1, 2, 0) == pixels).all()


def test_of_several_frames_the_first_counts(tmp_path):
    frames = [Image.new("L", (SIZE, SIZE), value) for value in (10, 200)]
    for ending in ("gif", "webp", "png", "tif"):
        path = tmp_path / f"a.{ending}"
        frames[0].save(path, save_all=True, append_images=frames[1:])
        assert np.abs(folders.decode_file(str(path), None, 3).astype(int) - 10).max() <= 2, ending


def test_turned_and_plain_photographs_are_of_one_size(tmp_path):
    for k, name in enumerate("ab"):
        for n in range(3):
            pixels = np.full((4, 6, 3), 50 * k + n, dtype=np.uint8)
            exif = Image.Exif()
            exif[0x0112] = 6 if n else 1
            (tmp_path / name).mkdir(exist_ok=True)
            Image.fromarray(stored(pixels, exif[0x0112])).save(tmp_path / name / f"{n}.png", exif=exif)
    train, _ = load(f"folder:{tmp_path}")
    assert train.shape == (3, 4, 6) and torch.equal(train.images[:, 0, 0, 0] // 50, train.labels.byte())
