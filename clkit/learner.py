"""Learner: the contract between a method and everything else, ``learn(task, trace)`` and ``learner(x)``."""

import copy
from abc import ABC, abstractmethod

import torch
from torch import nn


class LearnerError(ValueError):
    """A learner that was set up or restored in a way that cannot work; the message says why."""


class Learner(nn.Module, ABC):
    """A class-incremental learner. A method is one final subclass.

    The constructor takes ``(config, shape, classes)``: the method's frozen dataclass, the images' (C, H, W),
    the number of classes of the whole stream. It builds; it seeds, moves, loads and prints nothing.

    State that must outlive an epoch is a parameter or a buffer. A size that can change (a growing head, a
    memory) is read from a tensor's shape, never cached: growth means replacing a named tensor by a larger
    one, or registering a new tensor on a module that exists from the start; then `restore` can follow it.
    """

    keeps_data = False  # True for a method that stores images of past tasks (joint training, exemplars)
    joint = False               # True for a method that learns all classes in one stage, as an upper bound
    tables = {}  # trace table -> what its rows hold
    memory_kinds = {}  # beginning of a tensor's name -> what `kept` counts it as; else "weights"

    def __init__(self, config, shape, classes):
        super().__init__()
        self.config, self.shape, self.classes = config, tuple(shape), int(classes)

    @abstractmethod
    def learn(self, task, trace):
        """Learn the classes [task.first, task.seen) from task.train; then forward() covers task.seen."""

    @abstractmethod
    def forward(self, x):
        """Scores of the classes by arrival: x float (B, C, H, W) in [0, 1] -> (B, K), K >= classes seen."""

    def recall(self, n):
        """n remembered samples where a method can: images (n, C, H, W) or features (n, D); labels (n,)."""
        raise LearnerError(f"{type(self).__name__} remembers no samples")

    def kept(self):
        """Bytes kept when a task is over, by kind, e.g. {"weights": 1913640, "exemplars": 392000}."""
        sizes = {"weights": 0}
        for name, tensor in self.state_dict().items():
            kind = next((k for start, k in self.memory_kinds.items() if name.startswith(start)), "weights")
            sizes[kind] = sizes.get(kind, 0) + tensor.numel() * tensor.element_size()
        return sizes

    def snapshot(self):
        """A copy of the whole state on the CPU: tensors, frozen parameters, modules in eval mode."""
        tensors = self.state_dict(keep_vars=True)
        bad = [n for n, t in tensors.items() if not isinstance(t, torch.Tensor)]
        if bad:
            raise LearnerError(
                f"the state {bad[0]} is not a tensor: what must outlive an epoch is a parameter or buffer"
            )
        return {
            "parameters": {n: _copy(t) for n, t in tensors.items() if isinstance(t, nn.Parameter)},
            "buffers": {n: _copy(t) for n, t in tensors.items() if not isinstance(t, nn.Parameter)},
            "frozen": [n for n, t in tensors.items() if isinstance(t, nn.Parameter) and not t.requires_grad],
            "eval": [n for n, m in self.named_modules() if not m.training],
        }

    def restore(self, state):
        """Take over a `snapshot`: each named tensor gets its stored shape, then its values.

        Copies in place where shapes agree, and keeps the identity of parameters and buffers where they do
        not: an optimizer already points at them.
        """
        modules = dict(self.named_modules())
        device = next((t.device for t in self.state_dict().values()), torch.device("cpu"))
        for kind in ("parameters", "buffers"):
            for name, value in state[kind].items():
                _put(modules, name, value.to(device), kind == "parameters", type(self).__name__)
        stored = state["parameters"].keys() | state["buffers"].keys()
        for name in self.state_dict().keys() - stored:
            path, _, leaf = name.rpartition(".")
            if leaf not in modules[path]._buffers:
                raise LearnerError(
                    f"the saved state of {type(self).__name__} lacks {name}: another version made it"
                )
            modules[path]._buffers[leaf] = None  # a buffer that did not exist yet when the state was saved
        for name, parameter in self.named_parameters():
            parameter.requires_grad_(name not in state["frozen"])
        for name, module in self.named_modules():
            module.training = name not in state["eval"]


def _copy(tensor):
    return tensor.detach().to("cpu", copy=True)


@torch.no_grad()
def _put(modules, name, value, is_parameter, owner):
    path, _, leaf = name.rpartition(".")
    if path not in modules:
        raise LearnerError(f"the saved state of {owner} holds {name}, but there is no module '{path}': "
                           f"build all modules in the constructor and let their tensors grow")
    module = modules[path]
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


def frozen(module):
    """A copy of a network as it is now, in eval mode and without gradients: a teacher for distillation."""
    twin = copy.deepcopy(module).eval()
    for parameter in twin.parameters():
        parameter.requires_grad_(False)
        parameter.grad = None
    return twin
