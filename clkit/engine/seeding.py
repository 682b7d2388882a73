"""Random numbers: seed every generator in use, read their states, restore them."""

import random
from typing import Any

import numpy as np
import torch

from clkit.engine.torchrun import process


def seed_everything(*numbers: int) -> None:
    """Seed torch (all devices), numpy and Python's random from whole numbers, such as a seed and a task."""
    a, b, c = np.random.SeedSequence(numbers).generate_state(3, np.uint64)
    torch.manual_seed(int(a >> np.uint64(1)))
    np.random.seed(int(b % np.uint64(2**32)))
    random.seed(int(c))


def random_state() -> dict[str, Any]:
    """The state of the generators that `seed_everything` seeds, made of plain values and tensors."""
    name, keys, index, has_gauss, gauss = np.random.get_state()
    version, words, gauss_next = random.getstate()
    return {
        "torch": torch.get_rng_state(),
        "python": [version, torch.tensor(words, device="cpu"), gauss_next],
        "numpy": [name, torch.from_numpy(keys.astype(np.int64)), index, has_gauss, gauss],
        "cuda": [torch.cuda.get_rng_state(c) for c in _cards()] if torch.cuda.is_initialized() else [],
    }


def set_random_state(state: dict[str, Any]) -> None:
    """Restore a state from `random_state`."""
    version, words, gauss_next = state["python"]
    random.setstate((version, tuple(words.tolist()), gauss_next))
    name, keys, *rest = state["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), *rest))
    if state["cuda"]:
        for card, s in zip(_cards(), state["cuda"]):
            torch.cuda.set_rng_state(s.cpu(), card)
    torch.set_rng_state(state["torch"].cpu())


def _cards():
    """The cards whose states count: all, or that of this process, whose state all processes of a run have."""
    return [torch.cuda.current_device()] if process().size > 1 else range(torch.cuda.device_count())
