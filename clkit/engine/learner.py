"""Learner: the contract between a method and the rest of clkit, ``learn(task, trace)`` and ``learner(x)``."""

from __future__ import annotations

import copy
import dataclasses
import math
import sys
from abc import ABC, abstractmethod
from types import UnionType
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import numpy as np
import torch
from torch import nn

from clkit.errors import ClkitError

if TYPE_CHECKING:
    from clkit.data.stream import Task
    from clkit.engine.trace import Trace

_Module = TypeVar("_Module", bound=nn.Module)


class LearnerError(ClkitError):
    """A learner was set up or restored in a way that cannot work; the message says why."""


class Learner(nn.Module, ABC):
    """A class-incremental learner. A method is one final subclass.

    The constructor takes ``(config, shape, classes)``: the method's frozen dataclass, the images' (C, H, W),
    and the number of classes in the whole stream. It only builds: it does not seed, move, load or print.

    State that must outlive an epoch is a parameter or a buffer. A size that can change (a growing head, a
    memory) is read from a tensor's shape, never cached. To grow, replace a named tensor by a larger one, or
    register a new tensor on a module that exists from the start, so that `restore` can follow.
    """

    stores_images: bool = False  # stores images of past tasks (joint training, exemplars)
    joint: bool = False  # learns all classes in one stage, as an upper bound
    parallel: bool = False  # spreads its image network over several processes (clkit.engine.parallel)
    tables: ClassVar[dict[str, str]] = {}  # trace table -> description of its rows
    memory_kinds: ClassVar[dict[str, str]] = {}  # beginning of a tensor's name -> its kind in `memory_bytes`

    def __init__(self, config: Any, shape: tuple[int, int, int], classes: int) -> None:
        super().__init__()
        self.config, self.shape, self.classes = config, tuple(shape), int(classes)

    @abstractmethod
    def learn(self, task: Task, trace: Trace) -> None:
        """Learn the classes [task.first, task.seen) from task.train; then forward() covers task.seen."""

    @abstractmethod
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits of the classes by arrival: x float (B, C, H, W) in [0, 1] -> (B, K), K >= classes seen."""

    def recall(self, n: int) -> tuple[torch.Tensor, torch.Tensor]:
        """n remembered samples, if the method can: images (n, C, H, W) or features (n, D); labels (n,)."""
        raise LearnerError(f"{type(self).__name__} remembers no samples")

    def recall_for(self, x: torch.Tensor, y: torch.Tensor) -> Any:
        """What a method recalls for a batch x (B, C, H, W), y (B,), if it recalls for each batch.

        An object with start and images (n, C, H, W), the n images before and after recall; origins (n,), the
        class that each started as, -1 for noise; probs (n, K), the learner's class probabilities for them;
        and multiplicity (n,), the number of copies that each stands for (0: none), or None. Nothing is
        learned.
        """
        raise LearnerError(f"{type(self).__name__} recalls nothing for a batch")

    def memory_bytes(self) -> dict[str, int]:
        """Bytes kept after a task, by kind, e.g. {"weights": 1913640, "exemplars": 392000}.

        `memory_kinds` gives the kind of a tensor by the beginning of its name; all others are "weights".
        """
        sizes = {"weights": 0}
        for name, tensor in self.state_dict().items():
            kind = next((k for start, k in self.memory_kinds.items() if name.startswith(start)), "weights")
            sizes[kind] = sizes.get(kind, 0) + tensor.numel() * tensor.element_size()
        return sizes

    def snapshot(self) -> dict[str, Any]:
        """A copy of the whole state on the CPU: tensors, frozen parameters, modules in eval mode."""
        state = {"parameters": {}, "buffers": {}, "frozen": []}
        for name, t in self.state_dict(keep_vars=True).items():
            if not isinstance(t, torch.Tensor):
                raise LearnerError(f"the state {name} is not a tensor: store it in a parameter or a buffer")
            trained = isinstance(t, nn.Parameter)
            state["parameters" if trained else "buffers"][name] = t.detach().to("cpu", copy=True)
            if trained and not t.requires_grad:
                state["frozen"].append(name)
        return state | {"eval": [name for name, m in self.named_modules() if not m.training]}

    def restore(self, state: dict[str, Any]) -> None:
        """Load a `snapshot`: give each named tensor its stored shape and values.

        Parameters and buffers keep their identity, because an optimizer already points at them: values are
        copied in place if shapes agree, and the data are replaced if they do not.
        """
        modules, saved = dict(self.named_modules()), f"the saved state of {type(self).__name__}"
        device = next((t.device for t in self.state_dict().values()), torch.device("cpu"))
        for kind in ("parameters", "buffers"):
            for name, value in state[kind].items():
                path, _, leaf = name.rpartition(".")
                if path not in modules:
                    raise LearnerError(
                        f"{saved} holds {name}, but there is no module '{path}': "
                        f"build all modules in the constructor and let their tensors grow"
                    )
                _put(modules[path], leaf, value.to(device), kind == "parameters")
        for name in self.state_dict().keys() - state["parameters"].keys() - state["buffers"].keys():
            path, _, leaf = name.rpartition(".")
            if leaf not in modules[path]._buffers:
                raise LearnerError(f"{saved} lacks {name}: it comes from another version; start the run anew")
            modules[path]._buffers[leaf] = None  # a buffer that did not exist when the state was saved
        for name, parameter in self.named_parameters():
            parameter.requires_grad_(name not in state["frozen"])
        for name, module in self.named_modules():
            module.training = name not in state["eval"]


@torch.no_grad()
def _put(module: nn.Module, leaf: str, value: torch.Tensor, is_parameter: bool):
    """Set the tensor of this name in a module to a value."""
    there = (module._parameters if is_parameter else module._buffers).get(leaf)
    if there is None or there.dtype != value.dtype:
        if is_parameter:
            module.register_parameter(leaf, nn.Parameter(value.clone()))
        else:
            module.register_buffer(leaf, value.clone())
    elif there.shape == value.shape:
        there.copy_(value)
    else:
        there.data, there.grad = value.clone(), None


def frozen(module: _Module) -> _Module:
    """A copy of a network as it is now, in eval mode and without gradients: a teacher for one task."""
    twin = copy.deepcopy(module).eval()
    for parameter in twin.parameters():
        parameter.requires_grad_(False)
        parameter.grad = None
    return twin


def teacher(module: _Module, persistent: bool = True) -> _Module:
    """A copy of a network that a learner keeps from task to task: its parameters are buffers, never trained.

    persistent: whether the copy is part of the learner's state, and so of its memory and its checkpoints;
    False suits a copy that `learn` can make again from other state. Training modes are those of the module.
    """
    twin = copy.deepcopy(module)
    for part in twin.modules():
        for name, parameter in list(part.named_parameters(recurse=False, remove_duplicate=False)):
            delattr(part, name)
            part.register_buffer(name, parameter.detach(), persistent=persistent)
        if not persistent:
            for name, buffer in list(part._buffers.items()):
                part.register_buffer(name, buffer, persistent=False)
    return twin


# ---- settings

MOST = 10**9  # no whole number among the settings of a method comes near it
LARGEST = sys.float_info.max


def check_config(config, *, above_0="", from_0="", up_to_1="", signed="", own=""):
    """Raise LearnerError for settings that cannot work: for the ``__post_init__`` of a Config.

    The type of a field decides which values it may have: one of the words of a Literal; a whole number (int)
    from 1; a finite number (float) from 0; a tuple of such numbers, of whole ones unless it says otherwise
    (tuple[float, ...]); a bool or a str; None or another type if the field allows several. numpy's numbers
    become Python's. The arguments list exceptions, each as one string of field names separated by spaces:
    above_0, numbers that must not be 0; from_0, whole numbers that may be 0; up_to_1, numbers of at most 1;
    signed, numbers that may be negative; own, fields whose range the Config checks itself.
    """
    for name, kind in _types(type(config)).items():
        value = _of_python(getattr(config, name))
        if value is not getattr(config, name):
            object.__setattr__(config, name, value)  # a Config is frozen
        rules = [
            _rule(k, *(name in n.split() for n in (above_0, from_0, up_to_1, signed, own)))
            for k in (get_args(kind) if get_origin(kind) in (Union, UnionType) else (kind,))
        ]
        default = getattr(type(config), name, dataclasses.MISSING)  # may be of another type in an own Config
        if value is not default and not any(fits(value) for fits, _ in rules):
            if any(type(v) is int and abs(v) > MOST for v in (value if type(value) is tuple else (value,))):
                raise LearnerError(f"{name} must be at most {MOST:,} in absolute value")
            words = " or ".join(words for _, words in rules)
            raise LearnerError(f"{name} must be {words}, not {value!r}")


def _is_number(value):
    """Whether this is a float, or an int that torch can take for one."""
    return type(value) is float or (type(value) is int and abs(value) <= MOST)


def check_types(config):
    """`check_config` for a Config that may not check itself: only types, and whether numbers are finite."""
    check_config(config, own=" ".join(_types(type(config))))


def _types(config: type) -> dict[str, Any]:
    """{field: its type}; an own Config may name types that cannot be found, which are not checked then."""
    names = [field.name for field in dataclasses.fields(config)]
    try:
        hints = get_type_hints(config)
    except Exception:
        return {}
    return {name: hints[name] for name in names if name in hints}


def _of_python(value):
    """The same value without numpy's types."""
    if isinstance(value, np.generic):
        return value.item()
    if type(value) is tuple and any(isinstance(v, np.generic) for v in value):
        return tuple(map(_of_python, value))
    return value


def _rule(kind, above_0, from_0, up_to_1, signed, own):
    """(test of a value of this type, description of the values that pass it)."""
    if get_origin(kind) is Literal:
        *others, last = map(repr, get_args(kind))
        return get_args(kind).__contains__, f"{', '.join(others)} or {last}" if others else last
    if kind is int:
        least = -MOST if own or signed else 0 if from_0 else 1
        words = "a whole number" if least < 0 else f"a whole number of at least {least}"
        return lambda v: type(v) is int and least <= v <= MOST, words
    if kind is float:
        least = -LARGEST if own or signed else math.ulp(0.0) if above_0 else 0.0
        most = 1.0 if up_to_1 else LARGEST
        words = "" if least < 0 else " above 0" if above_0 else " of at least 0"
        words = f"a finite number{words}{' and at most 1' if up_to_1 else ''}"
        return lambda v: _is_number(v) and least <= v <= most, words
    if kind is tuple or get_origin(kind) is tuple:
        inner, *_ = get_args(kind) or (int,)
        fits, words = _rule(inner, above_0, from_0, up_to_1, signed, own)
        words = words.replace("a whole number", "whole numbers").replace("a finite number", "finite numbers")
        return lambda v: type(v) is tuple and all(map(fits, v)), f"a tuple of {words}"
    if kind in (None, type(None)):
        return lambda v: v is None, "None"
    if kind in (bool, str):
        return lambda v: type(v) is kind, "True or False" if kind is bool else "a text"
    kind = get_origin(kind) or kind  # list[int] -> list
    known = isinstance(kind, type)
    return lambda v: not known or isinstance(v, kind), f"of the type {getattr(kind, '__name__', kind)}"
