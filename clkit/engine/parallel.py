"""One run computed by several processes of torchrun, each with a card or a core of its own.

    torchrun --nproc-per-node 2 -m clkit run gfr/imagenet100-50-5 --preset paper

All processes execute the same program with the same random numbers, so that weights, batches, augmentation
and replay are the same in each of them. Only the image network is divided: where a method writes

    u = spread(net.features, x)         instead of        u = net.features(x)

each process computes the features of its own rows of x and receives those of all rows. What follows, losses
over the whole batch included, is computed alike by all. Backward, each process computes the gradient of its
own rows, and these are summed. So the values and gradients are those of one process with the whole batch.
(DistributedDataParallel averages gradients of losses of parts; a norm over the batch is no such average.)

Batch normalisation that learns uses the mean and variance of all rows, forward and backward. Rounding differs
from one process, as it does between machines. Each process reads and augments whole batches, and needs memory
for all images that are in memory; the first process alone writes files, and any number of them resumes a run.

Outside of a run with several processes, `spread` only calls the function. A method that uses it says so by
``Learner.parallel``; for others a run with several processes is refused.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import re
import signal
import threading
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from clkit.engine import RunError
from clkit.engine.torchrun import ALONE, LostError, Process, is_first, process
from clkit.errors import ClkitError

PATIENCE = timedelta(minutes=30)  # for an answer of another process; the end of one is noticed at once
ALIKE = 1e-3  # on cards, weights may differ by this share of the largest: sums there have no fixed order
RESUME = "run the same command again to resume"
_here: Process = ALONE  # among the processes that share the work at present


# ---- the processes


@contextlib.contextmanager
def joined(device: torch.device) -> Iterator[None]:
    """Within the block, work is spread over the processes of torchrun; nothing changes without it.

    RunError if they cannot connect, and within the block if another one ends or does not answer.
    """
    global _here
    mine = process()
    if mine.size == 1:
        yield
        return
    if not dist.is_initialized():  # once: a second group would find the addresses of the first
        backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
        try:
            dist.init_process_group(backend, timeout=PATIENCE)
        except (RuntimeError, ValueError) as error:
            raise RunError(
                f"the {mine.size} processes of this run cannot connect ({_first(error)})"
            ) from error
        atexit.register(dist.destroy_process_group)
    try:
        _here = mine
        with _told_to_end():
            yield
    finally:
        _here = ALONE


@contextlib.contextmanager
def whole() -> Iterator[None]:
    """Within the block, each process computes everything, for code that looks into a network."""
    global _here
    before, _here = _here, ALONE
    try:
        yield
    finally:
        _here = before


@contextlib.contextmanager
def _told_to_end() -> Iterator[None]:
    """Torchrun ends the processes that are left by SIGTERM: say why, unless another error has said more."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def end(*_: object) -> None:  # an exception from here would be lost in a destructor, for instance
        fault = "torchrun ended this process, as another one has ended or it was told to"
        with contextlib.suppress(OSError):
            os.write(2, f"clkit: process {process().rank}: {fault}: {RESUME}\n".encode())
        os._exit(128 + signal.SIGTERM)

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    except BaseException as error:  # it has been said, or will be
        says = is_first() or isinstance(error, LostError)
        signal.signal(signal.SIGTERM, signal.SIG_IGN if says else before)
        raise
    signal.signal(signal.SIGTERM, before)


def from_first(make: Callable, *arguments: Any) -> Any:
    """make(*arguments), which the first process computes for all of them; a ClkitError is raised by all.

    torch.distributed sends it by pickle, between processes of one run, and never from a file.
    """
    if _here.size == 1:
        return make(*arguments)
    answer = [None, None]  # value, error
    if is_first():
        try:
            answer[0] = make(*arguments)
        except ClkitError as error:
            answer[1] = error
    with _answered():
        dist.broadcast_object_list(answer, 0, device=torch.device("cpu"))
    if answer[1] is not None:
        raise answer[1]
    return answer[0]


def agreed(wish: bool) -> bool:
    """Whether any process has this wish: the same answer in all of them."""
    if _here.size == 1:
        return wish
    return bool(_summed(torch.tensor(int(wish), device="cpu")))


@torch.no_grad()
def keep_alike(module: nn.Module) -> None:
    """Give the tensors of a module the values that they have in the first process.

    RunError if they differed by more than rounding on a card can explain; on a CPU they must not differ.
    """
    if _here.size == 1:
        return
    apart = False
    for tensor in module.state_dict().values():
        if not (tensor.is_floating_point() and tensor.numel()):
            continue
        first = tensor.clone(memory_format=torch.contiguous_format)
        with _answered():
            dist.broadcast(first, 0)
        gap, largest = (v.abs().nan_to_num(0.0).max() for v in (tensor - first, first))
        apart |= bool(gap > (ALIKE if tensor.is_cuda else 0.0) * largest)
        tensor.copy_(first)
    if agreed(apart):
        raise RunError(
            "the processes of this run have learned different weights: its method or network draws random "
            "numbers by process, or the cards differ; run it without torchrun"
        )


@contextlib.contextmanager
def _answered() -> Iterator[None]:
    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        fault = "another process of this run has ended, or does not answer"
        raise LostError(f"{fault} ({_first(error)}): {RESUME}") from error


def _first(error: BaseException) -> str:
    """The first sentence of what an error of torch.distributed says, without the place in its source."""
    return re.sub(r"^(\[\S*\] )?", "", str(error).strip()).partition("\n")[0].partition(". ")[0]


def _summed(tensor: Tensor) -> Tensor:
    """The sum of a tensor over the processes, in place; bit for bit the same in all of them."""
    with _answered():
        dist.all_reduce(tensor)
    return tensor


# ---- rows


def spread(function: Callable[..., Tensor], x: Tensor, *rest: Any) -> Tensor:
    """function(x, *rest), whose rows are computed by the processes of a run, a part of them by each.

    function: a module, or a method of one; row i of its value depends on row i of x, and on the others by
    batch normalisation only; the gradient reaches the parameters of the module. A batch that has fewer rows
    than there are processes is computed by each of them.

    RunError if the function draws random numbers, which would differ, or if x needs a gradient.
    """
    if _here.size == 1 or len(x) < _here.size:
        return function(x, *rest)
    if x.requires_grad:
        raise RunError("gradients in the images are not spread over processes: run it without torchrun")
    module = getattr(function, "__self__", function)
    parameters = [p for p in module.parameters() if p.requires_grad] if torch.is_grad_enabled() else []
    return _Spread.apply(function, x, rest, *parameters)


class _Spread(torch.autograd.Function):
    @staticmethod
    def forward(ctx, function, x, rest, *parameters):
        rank, size, _ = _here
        own = slice(len(x) * rank // size, len(x) * (rank + 1) // size)
        before = _random_state(x.device)
        with torch.set_grad_enabled(bool(parameters)), _JointStatistics(), whole():
            part = function(x[own], *rest)
        if not all(map(torch.equal, before, _random_state(x.device))):
            fault = "the network draws random numbers, as dropout does, which processes cannot share"
            raise RunError(f"{fault}: use another network, or run it without torchrun")
        ctx.part, ctx.own, ctx.parameters = part, own, parameters
        gathered = part.new_zeros(len(x), *part.shape[1:])
        gathered[own] = part.detach()
        return _summed(gathered)  # x + 0 is exact

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient):
        found = torch.autograd.grad(ctx.part, ctx.parameters, gradient[ctx.own], allow_unused=True)
        del ctx.part
        used = [g for g in found if g is not None]
        flat = _summed(torch.cat([g.flatten() for g in used]))
        parts = iter(flat.split([g.numel() for g in used]))
        return None, None, None, *(None if g is None else next(parts).view(g.shape) for g in found)


def _random_state(device):
    states = [torch.get_rng_state()]
    return [*states, torch.cuda.get_rng_state(device)] if device.type == "cuda" else states


# ---- batch normalisation


class _JointStatistics(TorchFunctionMode):
    """Within it, batch normalisation that learns uses the statistics of the rows of all processes.

    nn.SyncBatchNorm does the same, on cards only.
    """

    def __torch_function__(self, function, types, args=(), kwargs=None):
        if function is F.batch_norm:
            return _batch_norm(*args, **(kwargs or {}))
        return function(*args, **(kwargs or {}))


def _batch_norm(x, mean, var, weight=None, bias=None, training=False, momentum=0.1, eps=1e-5):
    """F.batch_norm; mean and var are the running ones (C,), or None."""
    if training:
        return _JointNorm.apply(x, weight, bias, mean, var, momentum, eps)
    return F.batch_norm(x, mean, var, weight, bias, False, momentum, eps)


class _JointNorm(torch.autograd.Function):
    """weight (x - m) / sqrt(v + eps) + bias, with m and v of the rows of all processes; x (B, C, ...)."""

    @staticmethod
    def forward(ctx, x, weight, bias, running_mean, running_var, momentum, eps):
        wide = x.float() if x.element_size() < 4 else x
        own_var, own_mean = torch.var_mean(wide, _all_but_channels(x), correction=0)  # (C,)
        own = torch.stack([torch.full_like(own_mean, x.numel() // x.shape[1]), own_mean, own_var])
        counts, means, variances = _of_all(own).unbind(1)  # (processes, C)
        n = counts.sum(0)
        mean = (counts * means).sum(0) / n
        var = (counts * (variances + (means - mean).square())).sum(0) / n
        if running_mean is not None:
            running_mean.lerp_(mean, momentum)
            running_var.lerp_(var * n / (n - 1), momentum)
        unit, scale = F.batch_norm(wide, mean, var, eps=eps), torch.rsqrt(var + eps)
        ctx.save_for_backward(unit, scale if weight is None else scale * weight, n)
        if weight is not None:
            unit = torch.addcmul(_by_channel(bias, x), unit, _by_channel(weight, x))
        return unit.to(x.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient):
        (unit, scale, n), kind = ctx.saved_tensors, gradient.dtype
        gradient, dims = gradient.to(unit.dtype), _all_but_channels(unit)
        own = torch.stack([gradient.sum(dims), (gradient * unit).sum(dims)])  # (2, C)
        level, slope = (_by_channel(total, unit) for total in _summed(own.clone()) / n)
        of_x = torch.addcmul(gradient - level, unit, slope, value=-1).mul_(_by_channel(scale, unit)).to(kind)
        of_bias, of_weight = own if ctx.needs_input_grad[1] else (None, None)
        return of_x, of_weight, of_bias, None, None, None, None


def _all_but_channels(x):
    return [0, *range(2, x.dim())]


def _by_channel(vector, x):
    """A vector (C,) in a shape that is broadcast to x (B, C, ...)."""
    return vector.view(-1, *[1] * (x.dim() - 2))


def _of_all(own: Tensor) -> Tensor:
    """The tensors that the processes have here, (processes, *shape)."""
    rows = own.new_zeros(dist.get_world_size(), *own.shape)
    rows[dist.get_rank()] = own
    return _summed(rows)
