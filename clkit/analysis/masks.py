"""Where a sparse network puts its connections, how sparse its activations are, and how many numbers it holds.

The functions read the trace tables "masks" and "network" of a Result (see clkit.methods.spacenet), or take
plain arrays. A mask is (n_out, n_in): row = target neuron, column = source neuron, True = connection.
Layer 0 leads from the input to the first hidden layer. NaN marks undefined values.
"""

import numpy as np

from clkit.errors import ClkitError


class MaskError(ClkitError):
    """A result without the requested connections; the message says what it has."""


# ---- what was recorded


def block(result, task, layer, epoch=-1):
    """Connections of one task in one layer: mask (n_out, n_in), targets (n_out,) and sources (n_in,).

    epoch: 0 at allocation, e after epoch e and its rewiring, -1 the last one recorded. targets and sources
    are the neuron numbers of the rows and columns.
    """
    table = _table(result)
    here = (table["task"] == task) & (table["layer"] == layer)
    wanted = table["epoch"][here].max() if epoch == -1 and here.any() else epoch
    found = np.flatnonzero(here & (table["epoch"] == wanted))
    if not len(found):
        has = ", ".join(f"{name} {_listed(table[name])}" for name in ("task", "layer", "epoch"))
        raise MaskError(
            f"no connections are recorded for task {task}, layer {layer}, epoch {epoch}: recorded are {has}"
        )
    mask, targets, sources = (np.asarray(table[c][found[-1]]) for c in ("mask", "targets", "sources"))
    return mask.astype(bool), targets.astype(int), sources.astype(int)


def epochs(result, task=None):
    """The epochs at which connections (of one task) are recorded; epoch 0 is the allocation."""
    table = _table(result)
    return sorted(set(table["epoch"][(table["task"] == task) | (task is None)].tolist()))


def layers(result):
    """The layers whose connections are recorded, from 0."""
    return sorted(set(_table(result)["layer"].tolist()))


def _table(result):
    if "masks" not in result.trace:
        raise MaskError(
            f"this result has no trace table 'masks' (it has {', '.join(result.trace) or 'none'}): take a"
            " sparse method and run it with record=('masks',)"
        )
    table = result.trace["masks"]
    return table | {name: np.asarray(table[name]).astype(int) for name in ("task", "layer", "epoch")}


def _listed(numbers):
    return "/".join(map(str, sorted(set(numbers.tolist()))))


def full(mask, targets, sources, shape):
    """Place a block in the whole layer: bool (n_out_all, n_in_all) = shape."""
    mask = np.asarray(mask)
    if mask.shape != (len(targets), len(sources)):
        raise MaskError(f"a mask {mask.shape} does not fit {len(targets)} targets and {len(sources)} sources")
    for name, numbers, size in (("target", targets, shape[0]), ("source", sources, shape[1])):
        if len(numbers) and not 0 <= min(numbers) <= max(numbers) < size:
            raise MaskError(f"{name} neurons {min(numbers)} to {max(numbers)} do not fit a layer of {size}")
    whole = np.zeros(shape, dtype=bool)
    whole[np.ix_(targets, sources)] = mask
    return whole


# ---- where the connections are


def input_map(result, task, shape, epoch=-1):
    """How many connections of a task leave each pixel: (H, W), summed over channels; shape: (C, H, W)."""
    mask, _, sources = block(result, task, 0, epoch)
    C, H, W = shape
    if len(sources) != C * H * W:
        raise MaskError(
            f"the first layer has {len(sources)} sources, but images of {C} x {H} x {W} have "
            f"{C * H * W} values: take a network whose inputs are the pixels of these images"
        )
    counts = np.zeros(C * H * W, dtype=int)
    counts[sources] = mask.sum(axis=0)
    return counts.reshape(C, H, W).sum(axis=0)


def map_correlation(counts, mean_image):
    """Pearson correlation of two maps over the pixels; NaN if one of them is constant.

    counts: (H, W).   mean_image: (H, W), or (C, H, W), which is averaged over the channels.
    """
    image = np.asarray(mean_image, dtype=float)
    image = image.mean(axis=0) if image.ndim == 3 else image
    counts = np.asarray(counts, dtype=float)
    if counts.shape != image.shape:
        raise MaskError(f"a map of {counts.shape} cannot be compared with an image of {image.shape}")
    if np.ptp(counts) == 0 or np.ptp(image) == 0:
        return float("nan")
    return _cosine((counts - counts.mean()).ravel(), (image - image.mean()).ravel())


def busiest_share(mask, n=20, axis=0):
    """Share of the connections that the n busiest neurons have; NaN if there are no connections.

    axis: 0 counts rows (target neurons), 1 columns (source neurons).
    """
    counts = np.sort(np.asarray(mask).astype(bool).sum(axis=1 - axis))[::-1]
    return float(counts[:n].sum() / counts.sum()) if counts.any() else float("nan")


def settled(result, task, layer):
    """Share of a task's last connections in a layer that are in place at each recorded epoch: (E,)."""
    last = block(result, task, layer)[0]
    there = [block(result, task, layer, epoch)[0] for epoch in epochs(result, task)]
    return np.array([(mask & last).sum() / last.sum() for mask in there])


def decided(result, task, layer):
    """Share of a task's learned mask values in a layer that are on the side of 1/2 where they end: (E,).

    Reads the table "masks" of methods that learn values in [0, 1], recorded as each epoch begins. A value of
    exactly 1/2 is on neither side.
    """
    table = result.trace.get("masks", {})
    if "values" not in table:
        raise MaskError(
            "this result's trace table 'masks' has no learned values: take a method that learns masks"
        )
    here = np.flatnonzero((np.asarray(table["task"]) == task) & (np.asarray(table["layer"]) == layer))
    if not len(here):
        raise MaskError(f"no mask values are recorded for task {task}, layer {layer}, both from 0")
    sides = np.sign(np.array([np.asarray(table["values"][i], dtype=float) for i in here]) - 0.5)  # (E, n)
    return (sides == sides[-1]).mean(axis=1)


def used(mask):
    """How many target neurons (rows) have any connection."""
    return int(np.asarray(mask).astype(bool).any(axis=1).sum())


# ---- activations


def sparsity(activations):
    """How sparse non-negative activations (N images, U units) are.

    {"columns": units active for at least one image, "active": mean share of units active per image, "strong":
    share of all values above a tenth of the largest}. Active means above 0.
    """
    a = np.asarray(activations, dtype=float)
    on = a > 0
    return {
        "columns": int(on.any(axis=0).sum()),
        "active": float(on.mean()),
        "strong": float((on & (a > 0.1 * a.max())).mean()),
    }


def class_cosine(a, b):
    """Cosine between the mean activations of two classes, (N, U) each; NaN if one of them is 0."""
    return _cosine(np.asarray(a, dtype=float).mean(axis=0), np.asarray(b, dtype=float).mean(axis=0))


def _cosine(x, y):
    size = np.linalg.norm(x) * np.linalg.norm(y)
    return float(x @ y / size) if size > 0 else float("nan")


# ---- what a method holds


def sizes(result):
    """Numbers (not bytes) held after the last task: {"parameters": int, "extra": int}.

    parameters: weights and biases as counted by the table "network" (a connection between feature maps has
    several weights), or all parameters without that table. extra: what else is kept, four bytes per number;
    in stored images each byte is a number (a pixel; their labels count likewise). Masks that testing does not
    need are left out.
    """
    network = result.trace.get("network", {})
    if "weights" in network:
        parameters = int(network["weights"][-1]) + int(network["biases"][-1])
    else:
        parameters = int(result.parameters[-1])
    sizes = {kind: int(size[-1]) for kind, size in result.memory_bytes.items()}
    left_out = {"weights", "generators"}
    if "masks_at_test" in network and not network["masks_at_test"][-1]:
        left_out.add("masks")
    extra = sum(n // (1 if kind == "exemplars" else 4) for kind, n in sizes.items() if kind not in left_out)
    return {"parameters": parameters, "extra": extra}
