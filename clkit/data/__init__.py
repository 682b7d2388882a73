"""Image sets and the streams made of them. Each public name is loaded from its file on first use.

`import clkit.data` alone loads none of the files below, and `present` and `root` need no torch, so commands
that only list data answer at once.
"""

import importlib

_FILES = {
    "facts": ("DataError", "root"),
    "layout": ("present", "state_of_root"),
    "images": ("Batches", "ImageSet", "stratified_split"),
    "sets": ("Entry", "catalogue", "load"),
    "torchvision_sets": ("get", "torchvision"),
    "stream": ("Stream", "StreamError", "Task", "read_order"),
}
_FILE_OF = {name: file for file, names in _FILES.items() for name in names}
__all__ = sorted(_FILE_OF)


def __getattr__(name: str) -> object:
    if name not in _FILE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_FILE_OF[name]}"), name)


def __dir__() -> list[str]:
    return [*globals(), *__all__]
