"""Grids of images."""

import numpy as np
import pytest

from clkit import plots


def test_images_are_laid_out_in_rows():
    images = np.arange(1, 7, dtype=np.uint8)[:, None, None, None] * np.full((1, 1, 4, 4), 40, np.uint8)
    ax = plots.plot_images(images, columns=4, titles=[f"t{n}" for n in range(6)])
    board = ax.images[0].get_array()
    assert board.shape == (2 * (4 + 1) + 1, 4 * 5 - 1, 3)
    np.testing.assert_allclose(board[1, [0, 5, 10, 15], 0], [40 / 255, 80 / 255, 120 / 255, 160 / 255])
    np.testing.assert_allclose(board[7, [0, 5, 10], 0], [200 / 255, 240 / 255, 1])
    assert [t.get_text() for t in ax.texts] == [f"t{n}" for n in range(6)]
    with pytest.raises(plots.PlotError, match=r"shape \(N, C, H, W\)"):
        plots.plot_images(images[0])
