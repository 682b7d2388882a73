"""Exercises of notebook 10: how a generator grows, and the bytes of a mask."""

import math

import numpy as np

from clkit.book.exercises.functions import FunctionCheck
from clkit.book.exercises.verdict import AnswerError, checker, guesses

NEAR = 0.2  # relative error of a right prediction


@checker
def check_widening(prediction, result):
    """By what factors a generator's masked layers have grown from the start to the last task.

    prediction: {"units", "weights": factors}, right within a fifth; result: with the trace table "growth".
    """
    guess = guesses(prediction, ("units", "weights"), "a factor, such as 2.5,")
    rows, tasks = result.trace["growth"], result.tasks
    measured = {kind: float(rows[kind][-1]) / float(rows[kind][0]) for kind in ("units", "weights")}
    said = f"Measured: {measured['units']:.1f} times the units, {measured['weights']:.1f} times the weights."
    wrong = [kind for kind, factor in measured.items() if not abs(guess[kind] - factor) <= NEAR * factor]
    if not wrong:
        return (
            f"{said} A mask takes only a part of a layer, and later masks use again what earlier ones have "
            "reserved, so growth stays below the worst case. Weights join two layers, so they grow faster."
        )
    if min(guess.values()) < 1:
        why = "A layer never shrinks: factors are at least 1."
    elif guess["units"] == guess["weights"] == 1:
        why = (
            "That is a network of fixed size. This one is widened after each task by what its mask has taken."
        )
    elif guess["units"] >= tasks * (1 - NEAR / 2):
        why = f"{tasks} times the units is the worst case, in which every task takes a whole new network."
    elif "units" not in wrong and guess["weights"] <= guess["units"]:
        why = "A weight joins two units. What happens to their number if both of its layers become wider?"
    elif "units" not in wrong and abs(guess["weights"] - guess["units"] ** 2) <= NEAR * guess["units"] ** 2:
        why = "A square needs every layer to widen alike, the input too. Here the number of inputs is fixed."
    elif "units" not in wrong:
        why = "The units are right. Weights grow faster than units, but not with their square."
    elif guess["units"] < measured["units"]:
        why = "The masks take more than that: what share of the layers do the first tasks reserve?"
    else:
        why = "The masks take less than that: only what a task newly reserves is added."
    raise AnswerError(f"{said} {why}")


def mask_bytes_solution(mask):
    """Bytes of a mask (any shape, True = connection), as packed bits or as int32 indices: the fewer."""
    bits = math.ceil(mask.size / 8)
    indices = 4 * int(mask.sum())
    return min(bits, indices)


def _ones(mask):
    return int(mask.sum())


def _packed(mask):
    return -(-mask.size // 8)


def _mask(shape, count):
    """A mask with `count` places taken, spread evenly."""
    mask = np.zeros(shape, dtype=bool)
    mask.flat[np.linspace(0, mask.size - 1, count).astype(int)] = True
    return mask


check_mask_bytes = FunctionCheck(
    mask_bytes_solution,
    "An index of 32 bits pays for itself only where fewer than one place in 32 is taken: below a density of "
    "3.1 %. Above it, bits are smaller, whatever the mask looks like.",
    [(_mask((5, 9), 20),), (_mask((40, 50), 30),), (_mask((10, 10), 3),)],
    {
        "The last byte may be filled only in part, but it is a byte: round up, `math.ceil(mask.size / 8)`.":
            lambda mask: min(mask.size // 8, 4 * _ones(mask)),
        "A number of bytes is whole: round up, `math.ceil(mask.size / 8)`.":
            lambda mask: min(mask.size / 8, 4 * _ones(mask)),
        "That is the larger of the two: take the `min`.":
            lambda mask: max(_packed(mask), 4 * _ones(mask)),
        "That is the sum of both: only one of them is stored.":
            lambda mask: _packed(mask) + 4 * _ones(mask),
        "You count one for each place. Packed, eight places fit into one byte.":
            lambda mask: min(mask.size, 4 * _ones(mask)),
        "You count 8 bytes a connection. One index into the flattened mask is enough; an int32 has 4.":
            lambda mask: min(_packed(mask), 8 * _ones(mask)),
        "That is the number of connections. The index of each takes 4 bytes.":
            lambda mask: min(_packed(mask), _ones(mask)),
        "You pack the connections only. Bits are needed for every place, taken or free.":
            lambda mask: min(-(-_ones(mask) // 8), 4 * _ones(mask)),
        "You count the rows, `len(mask)`. A mask has `mask.size` places.":
            lambda mask: min(-(-len(mask) // 8), 4 * _ones(mask)),
        "You round each row up to whole bytes. Pack the mask as one list of bits.":
            lambda mask: min(len(mask) * -(-mask.shape[-1] // 8), 4 * _ones(mask)),
        "That is a ratio of the two. Return the bytes of the smaller one.":
            lambda mask: 4 * _ones(mask) / _packed(mask),
    },
    "Count on paper: the places divided by eight, rounded up, and four bytes a connection. Which is less?",
    "Return one number, the bytes of the whole mask.",
    extremes={
        "A mask without a connection needs no index: 0 bytes.": (np.zeros((5, 9), dtype=bool),),
        "A mask may have any number of dimensions: use `mask.size`.": (_mask((3, 4, 5, 5), 250),),
    },
)  # fmt: skip
