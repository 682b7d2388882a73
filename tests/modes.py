"""Two checks on torch calls of the package: calls that would fail on a GPU, and calls that wait for it.

Both are TorchFunctionModes, which intercept every call of a torch function from Python on any device, so
neither check needs a GPU. They do not see calls inside torch's own functions.
"""

import sys
from collections import Counter
from pathlib import Path

import torch
from torch.overrides import TorchFunctionMode

PACKAGE = Path(__file__).resolve().parents[1] / "clkit"
_TORCH = str(Path(torch.__file__).parent)


def _caller(beyond):
    """The frame that called a torch function, skipping files whose path begins with `beyond`."""
    frame = sys._getframe(2)
    while frame.f_back is not None and frame.f_code.co_filename.startswith(beyond):
        frame = frame.f_back
    return frame


# ---- factories

_NAMES = """arange as_tensor asarray bartlett_window blackman_window empty empty_permuted empty_strided eye
full hamming_window hann_window kaiser_window linspace logspace normal ones rand randint randn randperm
scalar_tensor sparse_bsc_tensor sparse_bsr_tensor sparse_compressed_tensor sparse_coo_tensor sparse_csc_tensor
sparse_csr_tensor tensor tril_indices triu_indices zeros"""
FACTORIES = {getattr(torch, name): name for name in _NAMES.split()}
FACTORIES |= {torch.fft.fftfreq: "fft.fftfreq", torch.fft.rfftfreq: "fft.rfftfreq"}


class DeviceFactories(TorchFunctionMode):
    """Fails if a file below `where` makes a tensor without naming its device.

    Such a tensor is on the CPU, and the next operation with a GPU tensor raises: a fault that no other test
    on a CPU shows. Calls by torch and other packages are ignored, and so are `*_like` and `new_*`, which use
    the device of their tensor. `found` lists the faults as "file:line torch.name".
    """

    def __init__(self, where=PACKAGE):
        super().__init__()
        self.where, self.found = Path(where).resolve(), []

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func in FACTORIES and kwargs.get("device") is None and not self._follows(func, args, kwargs):
            frame = _caller(torch.overrides.__file__)
            file = Path(frame.f_code.co_filename)
            if self.where in file.resolve().parents:
                self.found.append(f"{file.name}:{frame.f_lineno} torch.{FACTORIES[func]}")
                raise AssertionError(
                    f"{self.found[-1]}(...) without device=: its result would stay on the "
                    f"CPU when everything else is on a GPU"
                )
        return func(*args, **kwargs)

    @staticmethod
    def _follows(func, args, kwargs):
        """Whether the device comes from a tensor among the arguments."""
        if kwargs.get("out") is not None:
            return True
        return func is torch.normal and any(isinstance(a, torch.Tensor) for a in (*args, *kwargs.values()))


# ---- synchronisations

_WAITS = frozenset(
    """item tolist cpu numpy __array__ __bool__ __float__ __int__ __index__ __complex__
__contains__ __repr__ __format__ nonzero argwhere masked_select is_nonzero equal allclose unique
unique_consecutive bincount multinomial""".split()
)
_INDEXING = frozenset("__getitem__ __setitem__ index_put index_put_".split())


class HostSyncs(TorchFunctionMode):
    """Counts the calls for which the host must wait until the GPU has computed a value.

    `counts`: {name of the call: number}; `places`: {"file:line name": number}; `total`: the sum. It counts
    values transferred to the host (item, tolist, cpu, numpy, conversions to bool, int and float, printing)
    and shapes that depend on values (nonzero, masked_select, indexing with a boolean tensor or with a single
    number on the device). It does not count copies from the host to the device, which look like factories.
    """

    def __init__(self):
        super().__init__()
        self.counts, self.places = Counter(), Counter()

    @property
    def total(self):
        return self.counts.total()

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        if _waits(name, args, kwargs):
            frame = _caller(_TORCH)
            self.counts[name] += 1
            self.places[f"{Path(frame.f_code.co_filename).name}:{frame.f_lineno} {name}"] += 1
        return func(*args, **kwargs)


def _waits(name, args, kwargs):
    if name in _WAITS:
        return True
    if name in _INDEXING:
        return _index_waits(args[1] if len(args) > 1 else kwargs.get("indices"))
    if name == "where":  # where(condition) alone is nonzero
        return len(args) + len(kwargs) == 1
    if name == "repeat_interleave":
        repeats = args[1] if len(args) > 1 else kwargs.get("repeats")
        return isinstance(repeats, torch.Tensor) and kwargs.get("output_size") is None
    if name == "one_hot":
        return (args[1] if len(args) > 1 else kwargs.get("num_classes", -1)) == -1
    if name in ("to", "copy_"):
        return _to_host(name, args, kwargs)
    return False


def _index_waits(index):
    parts = index if isinstance(index, tuple | list) else (index,)
    for part in parts:
        if isinstance(part, slice):  # each end that is a tensor is turned into a number
            if any(isinstance(end, torch.Tensor) for end in (part.start, part.stop, part.step)):
                return True
        elif isinstance(part, torch.Tensor):
            if part.dtype in (torch.bool, torch.uint8) or part.dim() == 0:
                return True
        elif isinstance(part, list) and any(isinstance(p, bool) for p in part):
            return True
    return isinstance(index, list) and any(isinstance(p, bool) for p in index)


def _to_host(name, args, kwargs):
    """A copy to the host: a literal to("cpu"). On a CPU, a device passed as a variable proves nothing."""
    if kwargs.get("non_blocking"):
        return False
    if name == "to":
        return "cpu" in [a for a in (*args[1:], *kwargs.values()) if isinstance(a, str)]
    into, source = args[0], args[1] if len(args) > 1 else kwargs.get("src")
    return isinstance(source, torch.Tensor) and into.device.type == "cpu" != source.device.type
