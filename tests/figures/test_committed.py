"""The committed figures are those that the code draws from the committed records."""

import json

import numpy as np
import pytest
from PIL import Image

from clkit import figures

# Of 255 levels: another build of the drawing library may round colours, a changed letter differs by more.
LEVELS = 48
# Figures with t-SNE, which amplifies rounding; rounding differs between processors.
MAPS = ("gfr-fig7-features", "mfgr-fig3-maps")


def test_each_committed_image_belongs_to_a_figure():
    files = {path.name for end in ("png", "json") for path in figures.OUT.glob(f"*.{end}")}
    assert files == {f"{name}.{end}" for name in figures.FIGURES for end in ("png", "json")}


@pytest.mark.parametrize("name", figures.FIGURES)
def test_a_committed_figure_is_drawn_again_alike(name, tmp_path):
    drawn = figures.build([name], tmp_path)
    (old, old_facts), (new, new_facts) = map(contents, ([figures.OUT / path.name for path in drawn], drawn))
    cure = f"{name} is older than its code or records: python -m clkit figures {name}"
    assert old_facts == new_facts and old.shape == new.shape, cure
    assert name in MAPS or np.abs(old - new).max() <= LEVELS, cure


def contents(paths):
    """The pixels and the facts of a figure: its PNG and its JSON."""
    image, facts = paths
    with Image.open(image) as png:
        return np.asarray(png.convert("RGB"), dtype=int), json.loads(facts.read_text("utf-8"))
