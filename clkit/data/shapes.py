"""The `shapes` set: 32x32 RGB images drawn by code, 20 families of 5 look-alike classes.

A family is a figure that people recognise at a glance (a star, a key, a fish). Its five siblings differ in
one detail (the number of rays, teeth, stripes), so it is known by construction which classes are easy to
separate and which are fine-grained. Position, size, rotation, colours, background, noise and a bar across the
image vary from image to image and carry no information.

The bytes depend on the options alone: random numbers are whole numbers from PCG64, and pixels come from
single additions, multiplications, divisions and comparisons, which IEEE arithmetic rounds identically on
every machine. Sines and cosines are rounded to 1/4096, where all libraries agree.
"""

import math
import operator
from concurrent.futures import ThreadPoolExecutor
from functools import partial, reduce
from typing import NamedTuple

import numpy as np

from clkit.data.facts import DataError, check_memory, is_number, is_whole

SIDE = 32
SIBLINGS = 5
_FINE = 3  # each pixel is sampled _FINE x _FINE times
_CHUNK = 32  # images drawn at a time, so that their coordinates fit into a core's cache


class Drawn(NamedTuple):
    """What `draw` returns. train, test: (images uint8 (N, 3, 32, 32), labels int64 (N,))."""

    train: tuple
    test: tuple
    names: tuple
    groups: tuple


def draw(
    families: int = 20,
    siblings: int = 5,
    train_per_class: int = 100,
    test_per_class: int = 20,
    difficulty: float = 0.6,
    seed: int = 0,
) -> Drawn:
    """Draw the set. Class k is sibling k % siblings of family k // siblings, with a name like "star/5 rays".

    families, siblings: the number of each; the images of a class do not depend on it. difficulty: from 0 to
    1; makes the details that distinguish siblings smaller and paler, and the nuisance factors stronger.
    Training and test images use different random numbers. DataError if an option is out of range.
    """
    counts = {"train_per_class": (train_per_class, 10**6), "test_per_class": (test_per_class, 10**6)}
    counts |= {"families": (families, len(FAMILIES)), "siblings": (siblings, SIBLINGS)}
    for name, (value, top) in counts.items():
        if not is_whole(value, 1, top):
            raise DataError(f"shapes: {name} must be a whole number from 1 to {top}, not {value!r}")
    if not is_number(difficulty) or not 0 <= difficulty <= 1:
        raise DataError(f"shapes: difficulty must be a number from 0 to 1, not {difficulty!r}")
    if not is_whole(seed):
        raise DataError(f"shapes: seed must be a whole number of at least 0, not {seed!r}")
    number = int(families) * int(siblings) * (int(train_per_class) + int(test_per_class))
    check_memory(
        f"shapes: {number:,} images", number * 3 * SIDE**2, "lower train_per_class or test_per_class"
    )
    difficulty, seed = float(difficulty), int(seed)
    chosen = [(family, k) for family in list(FAMILIES)[:families] for k in range(siblings)]
    parts = []
    for part, count in enumerate((train_per_class, test_per_class)):
        job = partial(_draw_class, part=part, count=count, difficulty=difficulty, seed=seed)
        with ThreadPoolExecutor() as pool:  # each class has its own random numbers: the order does not matter
            images = np.concatenate(list(pool.map(job, *zip(*chosen))))
        parts.append((images, np.repeat(np.arange(len(chosen), dtype=np.int64), count)))
    names = tuple(f"{family}/{FAMILIES[family][0][sibling]}" for family, sibling in chosen)
    return Drawn(*parts, names, tuple(family for family, _ in chosen))


def _draw_class(family, sibling, part, count, difficulty, seed):
    """`count` images of one class for one part (0 training, 1 test), uint8 (count, 3, 32, 32)."""
    random = np.random.Generator(np.random.PCG64([seed, part, list(FAMILIES).index(family), sibling]))
    chunks = [min(_CHUNK, count - start) for start in range(0, count, _CHUNK)]
    return np.concatenate([_draw_images(family, sibling, n, difficulty, random) for n in chunks])


def _draw_images(family, sibling, n, difficulty, random):
    """n images of one class, uint8 (n, 3, 32, 32)."""
    u, v = _place(n, difficulty, random)
    body, mark = FAMILIES[family][1](u, v, sibling, 1 - 0.95 * difficulty)
    body = _coverage(body)[:, None]  # (n, 1, 32, 32), in 0.._FINE**2
    mark = np.minimum(_coverage(mark)[:, None], body) if mark is not None else 0
    dark, light = (random.integers(*reach, (n, 3, 1, 1), dtype=np.int16) for reach in ((25, 105), (150, 245)))
    swap = random.integers(0, 2, (n, 1, 1, 1), dtype=np.int16)
    behind, colour = np.where(swap, light, dark), np.where(swap, dark, light)
    strength = int(100 - 80 * difficulty)
    inner = colour + (behind[:, [1, 2, 0]] - colour) * strength // 100  # the mark's colour
    behind = behind + _texture(n, int(10 + 50 * difficulty), random)
    image = (behind * (_FINE**2 - body) + colour * (body - mark) + inner * mark) // _FINE**2
    hidden, cover = _bar(n, difficulty, random), random.integers(0, 256, (n, 3, 1, 1), dtype=np.int16)
    image = np.where(hidden, cover, image)
    reach = int(6 + 40 * difficulty)
    noise = random.integers(-reach, reach + 1, (2, n, 3, SIDE, SIDE), dtype=np.int16)
    return (image + noise[0] + noise[1]).clip(0, 255).astype(np.uint8)


def _place(n, difficulty, random):
    """Coordinates (u, v) of every sample in the figure's own frame [-1, 1]^2; float32 (n, S, S).

    u points right and v down. The rotation is rational: (1 - t^2, 2t) / (1 + t^2) lies on the unit circle.
    """
    S = SIDE * _FINE
    size = random.integers(int(820 - 250 * difficulty), 950, (n, 1, 1)) / 1000
    turn = random.integers(-1000, 1001, (n, 1, 1)) / 1000 * (0.04 + 0.14 * difficulty)  # tan(angle / 2)
    x, y = (random.integers(-1000, 1001, (n, 1, 1)) / 1000 * (1.03 - size) for _ in range(2))
    a, b = (1 - turn * turn) / (1 + turn * turn) / size, 2 * turn / (1 + turn * turn) / size
    across = ((2 * np.arange(S) + 1 - S) / S)[None, None, :] - x  # (n, 1, S)
    down = ((2 * np.arange(S) + 1 - S) / S)[None, :, None] - y  # (n, S, 1)
    u = (a * across).astype(np.float32) + (b * down).astype(np.float32)
    v = (a * down).astype(np.float32) - (b * across).astype(np.float32)
    return u, v


def _coverage(mask):
    """The number of samples of each pixel inside a bool mask (n, S, S): int16 (n, 32, 32)."""
    mask = mask.view(np.uint8)
    rows = sum(mask[:, i::_FINE] for i in range(_FINE))
    return sum(rows[:, :, i::_FINE] for i in range(_FINE)).astype(np.int16)


def _texture(n, reach, random):
    """A smooth random pattern of whole numbers within +-reach, (n, 3, 32, 32): 5x5 values, interpolated."""
    cells = 4
    step = SIDE // cells
    grid = random.integers(-reach, reach + 1, (n, 3, cells + 1, cells + 1), dtype=np.int16)
    near, weight = np.arange(SIDE) // step, (np.arange(SIDE) % step).astype(np.int16)
    rows = grid[:, :, near] * (step - weight)[:, None] + grid[:, :, near + 1] * weight[:, None]
    return (rows[..., near] * (step - weight) + rows[..., near + 1] * weight) // (step * step)


def _bar(n, difficulty, random):
    """Mask of a straight bar that hides part of the image: bool (n, 1, 32, 32). Not every image has one."""
    places = np.arange(SIDE) * 2 + 1 - SIDE
    a, b = (random.integers(-100, 101, (n, 1, 1, 1)) for _ in range(2))
    distance = a * places + b * places[:, None] - 40 * random.integers(-100, 101, (n, 1, 1, 1)) // 2
    width = random.integers(2, 5, (n, 1, 1, 1))
    present = random.integers(0, 100, (n, 1, 1, 1)) < int(60 * difficulty)
    return (distance * distance <= (a * a + b * b) * width * width) & present


# Figures. Each is a function (u, v, k, depth) -> (body, mark): bool masks (n, S, S) of the figure and of what
# is drawn on it (or None), for sibling k. depth, in (0, 1], says how clearly the detail that distinguishes
# the siblings shows.


def _turn(part, whole):
    """(cos, sin) of part / whole of a turn, clockwise from the top, because v points down."""
    angle = 2 * math.pi * part / whole
    return round(math.sin(angle) * 4096) / 4096, round(-math.cos(angle) * 4096) / 4096


def _disc(u, v, x, y, r):
    u, v = u - x, v - y
    return u * u + v * v <= r * r


def _box(u, v, x, y, w, h):
    return (abs(u - x) <= w) & (abs(v - y) <= h)


def _rays(u, v, count):
    """For each of `count` evenly spaced directions, from the top: coordinates along it and across it."""
    for i in range(count):
        c, s = _turn(i, count)
        yield u * c + v * s, v * c - u * s


def _any(masks):
    return reduce(operator.or_, masks)


_PIPS = (
    ((0, 0),),
    ((-0.4, -0.4), (0.4, 0.4)),
    ((-0.45, -0.45), (0, 0), (0.45, 0.45)),
    ((-0.4, -0.4), (0.4, -0.4), (-0.4, 0.4), (0.4, 0.4)),
    ((-0.45, -0.45), (0.45, -0.45), (-0.45, 0.45), (0.45, 0.45), (0, 0)),
)


def _pips(u, v, k, depth):
    return _disc(u, v, 0, 0, 0.92), _any(_disc(u, v, x, y, 0.1 + 0.12 * depth) for x, y in _PIPS[k])


def _ring(u, v, k, depth):
    body = _disc(u, v, 0, 0, 0.92) & ~_disc(u, v, 0, 0, 0.5)
    if k:
        c, s = _turn(k - 1, 4)
        body &= (u * c + v * s < 0) | (abs(v * c - u * s) > 0.06 + 0.22 * depth)
    return body, None


def _star(u, v, k, depth):
    core = _disc(u, v, 0, 0, 0.7 - 0.35 * depth)
    return core | _any((p >= 0) & (abs(q) <= 0.34 - 0.34 * p) for p, q in _rays(u, v, k + 4)), None


def _gear(u, v, k, depth):
    wheel = _disc(u, v, 0, 0, 0.82 - 0.24 * depth)
    teeth = _any((p >= 0) & (p <= 0.95) & (abs(q) <= 0.13) for p, q in _rays(u, v, k + 5))
    return wheel | teeth, _disc(u, v, 0, 0, 0.25)


def _polygon(u, v, k, depth):
    side = 0.95 * _turn(1, 2 * (k + 3))[1]
    body = ~_any(p < side for p, _ in _rays(u, v, k + 3))
    return body | _disc(u, v, 0, 0, 0.9 - 0.55 * depth), None


def _cross(u, v, k, depth):
    long = [0.6] * 4
    if k:
        long[k - 1] = 0.64 + 0.34 * depth
    arms = zip(_rays(u, v, 4), long)
    return _any((p >= -0.2) & (p <= reach) & (abs(q) <= 0.22) for (p, q), reach in arms), None


def _arrow(u, v, k, depth):
    shaft = _box(u, v, -0.1, 0, 0.8, 0.13)
    head = (u >= 0.25) & (abs(v) <= 0.62 * (0.95 - u) / 0.7)
    feathers = [_box(u, v, -0.84 + 0.22 * i, 0, 0.055, 0.15 + 0.3 * depth) for i in range(k)]
    return _any([shaft, head, *feathers]), None


def _stripes(u, v, k, depth):
    phase = (v + 0.92) * ((k + 2) / 1.84)
    return _disc(u, v, 0, 0, 0.92), abs(phase - np.floor(phase) - 0.5) <= 0.25


def _checker(u, v, k, depth):
    cells = (k + 2) / 1.6
    odd = (np.floor((u + 0.8) * cells) + np.floor((v + 0.8) * cells)) % 2 == 1
    return _box(u, v, 0, 0, 0.8, 0.8), odd


def _crescent(u, v, k, depth):
    return _disc(u, v, 0, 0, 0.92) & ~_disc(u, v, 0.45 + 0.17 * depth * (k - 2), 0, 0.8), None


def _comb(u, v, k, depth):
    count = k + 2
    back = _box(u, v, 0, -0.6, 0.85, 0.2)
    short, gap = 0.25 * (1 - depth), count - 1
    prongs = [_box(u, v, -0.75 + 1.5 * i / gap, 0.05 - short, 0.1, 0.7 - short) for i in range(count)]
    return _any([back, *prongs]), None


def _house(u, v, k, depth):
    body = _box(u, v, 0, 0.4, 0.72, 0.5) | ((v <= -0.1) & (abs(u) <= 1.1 * (v + 0.92)))
    size = 0.1 + 0.12 * depth
    if k < 3:
        return body, _box(u, v, 0.45 * (k - 1), 0.6, size, 0.3)
    if k == 3:
        return body, _box(u, v, -0.35, 0.35, size, size) | _box(u, v, 0.35, 0.35, size, size)
    return body, _disc(u, v, 0, 0.3, 1.3 * size)


def _face(u, v, k, depth):
    thick = 0.04 + 0.07 * depth
    left = _box(u, v, -0.35, -0.3, 0.18, thick * 0.7) if k == 4 else _disc(u, v, -0.35, -0.3, 0.14)
    smile = _disc(u, v, 0, 0, 0.5 + thick) & ~_disc(u, v, 0, 0, 0.5 - thick) & (v >= 0.2)
    frown = _disc(u, v, 0, 0.8, 0.5 + thick) & ~_disc(u, v, 0, 0.8, 0.5 - thick) & (v <= 0.6)
    mouths = (smile, frown, _box(u, v, 0, 0.4, 0.42, thick), _disc(u, v, 0, 0.42, 0.1 + 0.12 * depth), smile)
    return _disc(u, v, 0, 0, 0.92), _any([left, _disc(u, v, 0.35, -0.3, 0.14), mouths[k]])


def _key(u, v, k, depth):
    bow = _disc(u, v, -0.55, 0, 0.4) & ~_disc(u, v, -0.55, 0, 0.17)
    shaft = _box(u, v, 0.37, 0, 0.57, 0.12)
    teeth = [_box(u, v, 0.87 - 0.2 * i, 0.12, 0.055, 0.1 + 0.35 * depth) for i in range(k + 1)]
    return _any([bow, shaft, *teeth]), None


def _flower(u, v, k, depth):
    reach = 0.4 + 0.2 * depth
    petals = [_disc(p, q, reach, 0, 0.36 - 0.03 * k) for p, q in _rays(u, v, k + 4)]
    return _any([_disc(u, v, 0, 0, 0.35), *petals]), _disc(u, v, 0, 0, 0.24)


def _fish(u, v, k, depth):
    trunk = _disc(u, v * 1.7, 0.2, 0, 0.75)
    tail = (u >= -0.95) & (u <= -0.3) & (abs(v) <= 0.75 * (-0.2 - u))
    stripes = [_box(u, v, 0.35 - 0.22 * i, 0, 0.03 + 0.04 * depth, 0.6) for i in range(k)]
    return trunk | tail, _any([_disc(u, v, 0.65, -0.1, 0.1), *stripes])


def _zigzag(u, v, k, depth):
    phase = (u + 0.95) * ((k + 2) / 1.9)
    wave = abs(phase - 2 * np.floor(phase / 2) - 1) * 2 - 1  # a triangle wave between -1 and 1
    return (abs(v - (0.15 + 0.4 * depth) * wave) <= 0.26) & (abs(u) <= 0.95), None


def _target(u, v, k, depth):
    radius = np.sqrt(u * u + v * v)
    ring = np.floor(radius * ((2 * k + 3) / 0.92))
    return radius <= 0.92, ring % 2 == 1


def _tree(u, v, k, depth):
    t = (v + 0.95) / 1.5  # 0 at the top, 1 at the foot of the lowest tier
    tier = np.floor(t * (k + 1))
    within = t * (k + 1) - tier
    jagged = 0.45 * tier / (k + 1) + 0.55 * within * (0.5 + 0.5 * (tier + 1) / (k + 1))
    wide = 0.85 * ((1 - depth) * t + depth * jagged)
    crown = (t >= 0) & (t <= 1) & (abs(u) <= wide + 0.04)
    return crown | _box(u, v, 0, 0.75, 0.13, 0.2), None


def _ladder(u, v, k, depth):
    count = k + 2
    rails = _box(abs(u), v, 0.55, 0, 0.1, 0.92)
    rungs = [_box(u, v, 0, -0.7 + 1.4 * i / (count - 1), 0.5, 0.03 + 0.07 * depth) for i in range(count)]
    return _any([rails, *rungs]), None


def _count(start, one, many):
    return tuple(f"{n} {one if n == 1 else many}" for n in range(start, start + SIBLINGS))


FAMILIES = {  # family: (names of the siblings, figure)
    "star": (_count(4, "ray", "rays"), _star),
    "face": (("smile", "frown", "straight mouth", "open mouth", "wink"), _face),
    "key": (_count(1, "tooth", "teeth"), _key),
    "checker": (tuple(f"{n}x{n}" for n in range(2, 7)), _checker),
    "fish": (_count(0, "stripe", "stripes"), _fish),
    "ring": (("closed", "open above", "open right", "open below", "open left"), _ring),
    "tree": (_count(1, "tier", "tiers"), _tree),
    "arrow": (_count(0, "feather", "feathers"), _arrow),
    "gear": (_count(5, "tooth", "teeth"), _gear),
    "house": (("door left", "door in the middle", "door right", "two windows", "round window"), _house),
    "crescent": (("hair-thin", "thin", "half", "thick", "full"), _crescent),
    "comb": (_count(2, "prong", "prongs"), _comb),
    "disc": (_count(1, "pip", "pips"), _pips),
    "zigzag": (_count(2, "stroke", "strokes"), _zigzag),
    "flower": (_count(4, "petal", "petals"), _flower),
    "stripes": (_count(2, "stripe", "stripes"), _stripes),
    "cross": (("equal arms", "long above", "long right", "long below", "long left"), _cross),
    "ladder": (_count(2, "rung", "rungs"), _ladder),
    "target": (_count(1, "ring", "rings"), _target),
    "polygon": (_count(3, "side", "sides"), _polygon),
}
