"""The device of a run, and torch's settings during it."""

import contextlib
from collections.abc import Iterator

import torch

from clkit.engine import RunError
from clkit.engine.torchrun import process


def pick_device(wish: str | torch.device = "auto") -> torch.device:
    """A torch.device; "auto" is cuda if there is one, else cpu. RunError if the device is not available.

    Each process of torchrun gets a card of its own.
    """
    if wish == "auto":
        wish = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(wish)
    except RuntimeError:
        device = None
    if device is None or device.type not in ("cpu", "cuda"):
        raise RunError(f"there is no device '{wish}': use auto, cpu or cuda")
    if device.type == "cuda" and not torch.cuda.is_available():
        raise RunError("this torch sees no CUDA device: use --device cpu, or see `python -m clkit doctor`")
    return _own_card(device) if device.type == "cuda" and process().size > 1 else device


def _own_card(device: torch.device) -> torch.device:
    """The card whose number is that of this process on its machine."""
    local, cards = process().local, torch.cuda.device_count()
    if local >= cards:
        cure = f"start at most {cards} with --nproc-per-node, or use --device cpu"
        raise RunError(f"this machine has {cards} cards for at least {local + 1} processes: {cure}")
    if device.index not in (None, local):
        raise RunError(f"each process of torchrun has a card of its own: use --device cuda, not '{device}'")
    torch.cuda.set_device(local)
    return torch.device("cuda", local)


def device_name(device: torch.device) -> str:
    """ "cpu", or the name of the GPU."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def wait(device: torch.device | str) -> None:
    """Wait until the device has finished its work, so that a clock can be read."""
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize()


@contextlib.contextmanager
def torch_set(device: torch.device, threads: int | None) -> Iterator[None]:
    """Within the block: this number of CPU threads (None: unchanged), and TF32 matrix products on a GPU."""
    before, precision = torch.get_num_threads(), torch.get_float32_matmul_precision()
    try:
        if threads is not None:
            torch.set_num_threads(threads)
        if device.type == "cuda":
            torch.set_float32_matmul_precision("high")
        yield
    finally:
        torch.set_num_threads(before)
        torch.set_float32_matmul_precision(precision)


def lacks_memory(error: BaseException) -> bool:
    """Whether an error says that there is not enough memory; torch has a type of its own for GPUs only."""
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or "allocate memory" in str(error)
