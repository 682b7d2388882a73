"""Exercises of notebook 08: how far layers grow, the sparsity term, and what a hard mask reserves."""

import numpy as np

from clkit.book.exercises.functions import FunctionCheck
from clkit.book.exercises.verdict import AnswerError, checker, guesses

LAYERS = ("layer 1", "layer 2", "layer 3")


@checker
def check_gained(prediction, result):
    """How many channels each masked layer of DGMw gains at the end of task 1.

    prediction: {"layer 1": channels, ...};   result: of DGMw, with the trace table "capacity".
    """
    guess = guesses(prediction, LAYERS, "a whole number")
    new, widths, areas, right = _first_growth(result)
    given = [guess[name] for name in LAYERS]
    said = f"The layers gain {', '.join(map(str, right[:-1]))} and {right[-1]} channels."
    if given == right:
        return (
            f"{said} Each channel that a layer gains gives the next one new inputs for all of its channels, "
            "and these count against what it has reserved. So later layers grow little."
        )
    if given[0] != right[0]:
        why = (
            "Layer 1 gains no inputs. Divide what it has reserved by the weights of one of its channels, "
            "inputs times kernel area, and round *up*."
        )
        if given[0] == new[0]:
            why = (
                "These are the reserved *weights*. A channel of layer 1 has inputs times kernel area of them."
            )
        elif given[0] == np.floor(new[0] / (widths[0] * areas[0])):
            why = "Round *up*: a part of a channel does not exist, and free capacity must not shrink."
        elif given[0] == np.ceil(new[0] / widths[0]):
            why = "The kernel area is missing: each input of a channel has that many weights."
    elif given[1:] == _without_discount(new, widths, areas)[1:]:
        why = "That is the rule of the text. Subtract what the layer gains because the one before it grows."
    elif given[1:] == _old_inputs(new, widths, areas, right)[1:]:
        why = "After the layer before it has grown, a channel also has more inputs: divide by those."
    else:
        why = "Layer 1 is right. First subtract the weights that layer 2 gains from it, then divide."
    raise AnswerError(f"{said} {why}")


def _first_growth(result):
    """(places reserved, widths with that of the input, kernel areas, channels gained) of task 1, lists."""
    rows = result.trace.get("capacity")
    if not rows or not np.any(np.asarray(rows["task"]) == 0):
        raise AnswerError("This run did not keep the table `capacity`.")
    mine = np.flatnonzero(np.asarray(rows["task"]) == 0)
    new, width, grown = (np.asarray(rows[c])[mine].astype(int).tolist() for c in ("new", "width", "grown"))
    widths = [int(result.about["config"]["nz"]), *width]
    places = sum(np.asarray(rows[c])[mine].astype(int) for c in ("new", "reused", "unused")).tolist()
    return new, widths, [n // (a * b) for n, a, b in zip(places, widths, width)], grown


def _without_discount(new, widths, areas):
    return [-(-n // (inputs * area)) for n, inputs, area in zip(new, widths, areas)]


def _old_inputs(new, widths, areas, gained):
    """The discount, divided by the inputs before growth."""
    before = [0, *gained]
    less = [n - b * area * width for n, b, area, width in zip(new, before, areas, widths[1:])]
    return [max(0, -(-n // (inputs * area))) for n, inputs, area in zip(less, widths, areas)]


# ---- the sparsity term


def sparsity_solution(masks, reserved):
    """R of equation 6, a number: what the masks take of what is free, over all layers; 0 if nothing is free.

    masks: (L, N) in [0, 1], a row a layer.   reserved: (L, N) bool, what earlier tasks hold.
    """
    free = ~reserved
    return float((masks * free).sum() / max(free.sum(), 1))


def _ratio(above, below):
    """The ratio of two sums, as a function of masks and of what is reserved."""
    return lambda masks, reserved: above(masks, reserved).sum() / below(masks, reserved).sum()


_MASKS = (np.array([[1, 0.5, 0, 1], [0.3, 0.1, 0.9, 0.4]]), np.array([[1, 0, 0, 0], [1, 1, 0, 0]]) > 0)
_VALUES, _DRAWN = np.random.default_rng(8).random((2, 3, 40))
_RANDOM = (_VALUES, _DRAWN < [[0.2], [0.5], [0.9]])

check_sparsity = FunctionCheck(
    sparsity_solution,
    "Its derivative with respect to a free place is one over the number of free places, and 0 for a reserved "
    "one: reuse costs nothing.",
    [_MASKS, _RANDOM],
    {
        "That is the mean of the layers' ratios. Equation 6 has *one* ratio, with sums over all layers.":
            lambda masks, reserved: ((masks * ~reserved).sum(1) / (~reserved).sum(1)).mean(),
        "That is the sum of the layers' ratios. Equation 6 has *one* ratio, with sums over all layers.":
            lambda masks, reserved: ((masks * ~reserved).sum(1) / (~reserved).sum(1)).sum(),
        "You divide by all places. Divide by the free ones.":
            _ratio(lambda m, r: m * ~r, lambda m, r: np.ones_like(m)),
        "Reserved places are in the upper sum, too. What earlier tasks hold costs nothing.":
            _ratio(lambda m, r: m, lambda m, r: ~r),
        "That is the mean of the masks. What is reserved must not count, above or below.":
            _ratio(lambda m, r: m, lambda m, r: np.ones_like(m)),
        "You charge for *reserved* places. Charge for the free ones, where `reserved` is False.":
            _ratio(lambda m, r: m * r, lambda m, r: r),
        "You divide what is taken of the free places by the number of *reserved* ones.":
            _ratio(lambda m, r: m * ~r, lambda m, r: r),
        "You count places above a half. The term needs the soft values: a count has no gradient.":
            _ratio(lambda m, r: (m > 0.5) & ~r, lambda m, r: ~r),
        "That is the share that stays free. Add up `masks`, not `1 - masks`.":
            _ratio(lambda m, r: (1 - m) * ~r, lambda m, r: ~r),
        "You divide by the sum of the masks. Divide by the number of free places.":
            _ratio(lambda m, r: m * ~r, lambda m, r: m),
        "You did not divide by the number of free places.":
            lambda masks, reserved: (masks * ~reserved).sum(),
        "You left out the last layer: sum over all rows.":
            lambda masks, reserved: sparsity_solution(masks[:-1], reserved[:-1]),
    },
    "Write both sums out on paper: `masks * (1 - reserved)` above, `1 - reserved` below.",
    "Sum over all places of all layers.",
    extremes={
        "Here nothing is free, and 0 divided by 0 is `nan`: return 0, for example by dividing by at least 1.":
            (np.ones((2, 3)), np.ones((2, 3), dtype=bool)),
    },
)  # fmt: skip


# ---- what a hard mask reserves


def reserve_solution(logits, reserved):
    """[newly reserved, reused, unused] places, (3,), of the hard mask of a task: section 3.2.

    logits: (N,), e of its mask at the end.   reserved: (N,) bool, what earlier tasks hold.
    """
    mask = logits > 0
    return np.array([(mask & ~reserved).sum(), (mask & reserved).sum(), (~mask).sum()])


def _counts(mask=lambda e: e > 0, new=lambda m, r: m & ~r, reused=lambda m, r: m & r, unused=lambda m, r: ~m):
    """The counts of a mask, by these rules."""
    return lambda e, r: np.array([rule(mask(e), r).sum() for rule in (new, reused, unused)])


_E = np.array([0.3, -0.2, 0.0, 2.0, 0.7, -3.0, 1e-4, 0.0, -1e-4, 6.0, 0.9])
_R = np.array([0, 1, 0, 1, 1, 0, 0, 1, 0, 0, 0]) > 0

check_reserve = FunctionCheck(
    reserve_solution,
    "The first two add up to the places in use. The first is also what the layer must get back by growing.",
    [(_E, _R), (10 * _VALUES[0] // 1 - 4, _DRAWN[0] < 0.4)],
    {
        "A logit of exactly 0 never had a gradient and counts as unused: `logits > 0`, not `>= 0`.":
            _counts(lambda e: e >= 0),
        "Your mask is on where logits are negative: $\\sigma(se)$ is above a half where $e > 0$.":
            _counts(lambda e: e < 0),
        "You compared the *logits* with a half. A half is the threshold of the mask, 0 that of its logits.":
            _counts(lambda e: e > 0.5),
        "You swapped newly reserved and reused.":
            lambda e, r: reserve_solution(e, r)[[1, 0, 2]],
        "*Newly reserved* counts all places in use. Leave out those that earlier tasks hold.":
            _counts(new=lambda m, r: m),
        "*Newly reserved* counts all that is not held by earlier tasks, in use or not.":
            _counts(new=lambda m, r: ~r),
        "*Reused* counts all that earlier tasks hold. It is what *this* mask uses of it.":
            _counts(reused=lambda m, r: r),
        "*Unused* leaves out what earlier tasks hold. It is all that this mask does not use.":
            _counts(unused=lambda m, r: ~m & ~r),
        "*Unused* counts all places that were free before the task.":
            _counts(unused=lambda m, r: ~r),
        "You updated `reserved` first, so nothing is new any more. Count first.":
            _counts(new=lambda m, r: m & ~(m | r), reused=lambda m, r: m & (m | r)),
        "Every value is divided by the number of places. Return counts.":
            lambda e, r: reserve_solution(e, r) / len(e),
    },
    "Sort the places of the example into three groups on paper: every place belongs to exactly one.",
    "Return the three counts newly reserved, reused and unused, in this order.",
)  # fmt: skip
