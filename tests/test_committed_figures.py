"""The committed figures are those that the code draws from the committed records.

Outside tests/figures, whose records and resolution are made up.
"""

import json

import numpy as np
import pytest
from PIL import Image

from clkit import figures

# Of 255 levels: another build of the drawing library may round colours, a changed letter differs by more.
LEVELS = 48
# Figures with t-SNE, which amplifies rounding; rounding differs between processors.
MAPS = ("gfr-fig7-features", "mfgr-fig3-maps")
CURE = "{0} is older than its code or records: python -m clkit figures {0}"


def test_each_committed_image_belongs_to_a_figure():
    files = {path.name for end in ("png", "json") for path in figures.OUT.glob(f"*.{end}")}
    assert files == {f"{name}.{end}" for name in figures.FIGURES for end in ("png", "json")}


@pytest.mark.parametrize("name", figures.FIGURES)
def test_what_is_said_of_a_committed_figure_is_what_its_records_give(name, tmp_path):
    """Its caption, the numbers in its description, its stamp and its records: without drawing it."""
    [said] = figures.build([name], tmp_path, formats=())
    old, new = (json.loads(path.read_text("utf-8")) for path in (figures.OUT / said.name, said))
    assert old == new, CURE.format(name)


# Each sixth, because drawing takes most of the time.
@pytest.mark.parametrize("name", [name for name in list(figures.FIGURES)[::6] if name not in MAPS])
def test_a_committed_image_is_drawn_again_alike(name, tmp_path):
    drawn = figures.build([name], tmp_path)[0]
    old, new = map(pixels, (figures.OUT / drawn.name, drawn))
    assert old.shape == new.shape and np.abs(old - new).max() <= LEVELS, CURE.format(name)


def pixels(path):
    with Image.open(path) as png:
        return np.asarray(png.convert("RGB"), dtype=int)
