"""What the memory of a generator with masks takes, in bytes by kind and format: table 4."""

import math

import torch


@torch.no_grad()
def footprint(generator, tasks):
    """{column: bytes} of a generator at its present widths, after so many tasks.

    weight_bytes: masked weights, float32.   task_bytes: heads and batch normalisations of all tasks.
    bit_bytes, index_bytes, coo_bytes: masks of all tasks in three formats, of which the first is in use:
    a bit for each place; an int32 for each place that is on; PyTorch's sparse tensors, which hold an int64
    for each coordinate and a float32 for the value.   logit_bytes: logits of the one mask that is trained,
    float32, gone after the task.
    """
    places, on, coordinates = 0, 0, 0                   # bytes of bits, places that are on, their coordinates
    for task in range(tasks):
        for l in range(len(generator.links)):
            mask = generator.mask_of(task, l)
            if mask is not None:
                held = (mask > 0.5).sum()
                places, on = places + math.ceil(mask.numel() / 8), on + held
                coordinates = coordinates + held * mask.dim()
    own = [t for name, t in generator.named_buffers()
           if name.rpartition("_")[2].isdecimal() and not name.startswith("mask")]
    return {
        "weight_bytes": 4 * sum(w.numel() for w in generator.weights),
        "task_bytes": sum(t.numel() * t.element_size() for t in own),
        "bit_bytes": places,
        "index_bytes": 4 * on,
        "coo_bytes": 8 * coordinates + 4 * on,
        "logit_bytes": 4 * sum(math.prod(generator.places(l)) for l in range(len(generator.links))),
    }
