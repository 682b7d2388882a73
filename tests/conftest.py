"""For all tests: the shapes are drawn once in each process, which shortens runs at the smoke size."""

import functools

import pytest

from clkit.data import shapes


@pytest.fixture(scope="session", autouse=True)
def each_set_of_shapes_is_drawn_once():
    """`shapes.draw` gives copies of what it drew before for the same options, so a test may change them."""
    draw, kept = shapes.draw, {}

    @functools.wraps(draw)  # its signature says which options there are
    def again(**options):
        key = repr(sorted(options.items()))
        if key not in kept:
            drawn = draw(**options)
            if drawn.train[0].nbytes > 10_000_000:
                return drawn
            kept[key] = drawn
        drawn = kept[key]
        return drawn._replace(
            train=tuple(part.copy() for part in drawn.train), test=tuple(part.copy() for part in drawn.test)
        )

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shapes, "draw", again)
        yield
