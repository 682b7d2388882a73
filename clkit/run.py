"""The run loop: seed, learn a task, test, store, and be able to stop at any instant and go on.

    learner, result = run(Finetune, Config(epochs=2), stream, seed=0, folder="runs/example")

A run folder holds ``run.json`` (what is run), ``state.pt`` (the learner after the last finished stage),
``stage-<t>.npz`` (what was measured after stage t, and its trace), ``within.pt`` (a checkpoint inside the
stage under way) and, at the end, ``result.json`` + ``result.npz``. Each file is written whole or not at all.
Calling ``run`` again with the same folder goes on, or returns at once if the run is complete; on one machine
and a CPU its predictions and traces are bit for bit those of a run that was never stopped.
"""

import ast
import contextlib
import dataclasses
import hashlib
import inspect
import io
import json
import os
import platform
import signal
import subprocess
import sys
import threading
import time
import tokenize
import types
from datetime import date
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch

from clkit import __version__
from clkit.result import Result, pack_trace, save, unpack_trace, write_atomically
from clkit.trace import Stopped, Trace, looking, seed_everything

# Raise when a change to data, stream, trace, learner or run changes what a seed gives: saved results then
# count as stale.
LOOP = 1
TEST_PIXELS = 3_000_000  # of one test batch: bounds memory, whatever the image size


class RunError(RuntimeError):
    """A run that cannot start or go on; the message says why and what to do. What was computed is kept."""


# ---- one run

def run(
    learner,
    config,
    stream,
    *,
    seed=0,
    device="cpu",
    folder=None,
    every=60.0,
    keep=(),
    probes=None,
    studies=None,
    threads=None,
    about=None,
    progress=None,
):
    """Let a learner go through a stream of tasks, testing it on all classes seen after each.

    learner: a Learner class.   config: its Config.   stream: a Stream; a learner with ``joint = True`` gets
        all classes in one stage.   seed: of weights, batch order and everything else drawn while learning
        (the class order belongs to the stream).   device: "cpu", "cuda", ... ("auto": cuda if there is one).
    folder: where checkpoints live; None keeps nothing on disk.   every: seconds between those in a task.
    keep, probes: see Trace.   studies: {table: function of the learner and the stream}; each is called when the
        last task is over, without disturbing anything, and its columns become a table.   threads: CPU threads of torch, fixed because sums differ in their last bits
        with another number; None leaves it as it is.   about: further facts to store in the result.
    progress: show bars; None means in a terminal or a notebook only.

    Returns (the learner as it is at the end, Result). Raises RunError, Stopped (Ctrl-C; the same call goes
    on), or what the learner raises.
    """
    if getattr(learner, "joint", False):
        stream = stream.merged()
    device = pick_device(device)
    with _threads(threads), _quick_matmul(device):
        about = {**_facts(learner, config, stream, seed, device), **(about or {})}
        store = _Store(folder, about, keep, probes) if folder is not None else None
        with store or contextlib.nullcontext():
            trace = Trace(keep, probes, save=store and store.save_within, every=every, progress=progress)
            with _stopping(trace) if store else contextlib.nullcontext():
                return _run(learner, config, stream.to(device), seed, device, trace, store, about, studies)


def _run(learner, config, stream, seed, device, trace, store, about, studies):
    seed_everything(seed, 0)
    try:
        model = learner(config, stream.shape, stream.classes).to(device)
    except ValueError as error:  # settings that do not fit one another or the images
        raise RunError(f"{learner.__name__} cannot be built: {error}") from error
    stages = store.resume(model) if store else []
    if not stages:                                      # before any learning
        stages.append({"within": evaluate(model, stream.test, stream.test_sizes, 0)["within"]})
        if store:
            store.save_stage(0, stages[0], {}, model)
    for task in list(stream)[len(stages) - 1:]:
        within = store.load_within(task.index) if store else None
        clock = _Clock(task.train)
        label = f"task {task.index + 1}/{len(stream)} · "
        trace.begin(model, task.index, clock=clock, label=label, state=within)
        seed_everything(seed, 1 + task.index)
        model.train()
        model.learn(task, trace)
        rows = trace.end()
        stage = {**clock.state_dict(), **_measure(model, stream, task, device)}
        if task.index + 1 == len(stream):
            rows |= _studied(studies or {}, model, stream, seed)
        stages.append(stage | {"trace": rows})
        if store:
            store.save_stage(task.index + 1, stage, rows, model)
            if trace.stop and task.index + 1 < len(stream):
                raise Stopped(f"stopped after task {task.index}")
    result = _collect(stages, stream, about)
    if store:
        save([result], store.folder / "result")
    return model, result


def _studied(studies, model, stream, seed):
    """The tables of studies, each with random numbers of its own."""
    found = {}
    for table, study in studies.items():
        with looking(model):
            seed_everything(seed, len(stream) + 1)
            found[table] = {c: np.asarray(rows) for c, rows in study(model, stream).items()}
    return found


def _measure(model, stream, task, device):
    """Test once, after a stage: predictions, time, sizes."""
    _wait(device)
    begin = time.perf_counter()
    found = evaluate(model, stream.test, stream.test_sizes, task.seen)
    found["test_seconds"] = time.perf_counter() - begin
    if not found.pop("finite"):
        raise RunError(
            f"the scores after task {task.index} are not finite: training diverged; try a smaller rate "
            f"(tasks 0 to {task.index - 1} are kept)"
            if task.index
            else "the scores after task 0 are not finite: training diverged; try a smaller learning rate"
        )
    kept = {f"kept/{kind}": size for kind, size in model.kept().items()}
    return found | kept | {"seen": task.seen, "parameters": sum(p.numel() for p in model.parameters())}


def _collect(stages, stream, about):
    """One Result out of the stages of a run."""
    start, *done = stages
    kinds = dict.fromkeys(k for s in done for k in s if k.startswith("kept/"))
    column = {
        k: np.array([s[k] for s in done])
        for k in ("seen", "learn_seconds", "test_seconds", "drawn", "parameters")
    }
    trace = {}
    for stage in done:
        for table, columns in stage["trace"].items():
            for name, rows in columns.items():
                trace.setdefault(table, {}).setdefault(name, []).append(rows)
    groups = None if stream.groups is None else list(stream.groups)
    return Result(
        about,
        tuple(stream.test_sizes),
        list(stream.names),
        groups,
        labels=stream.test.labels.cpu().numpy().astype(np.int16),
        predictions=np.stack([s["predictions"] for s in done]),
        rank=np.stack([s["rank"] for s in done]),
        within=np.stack([s["within"] for s in stages]),
        **column,
        kept={k[5:]: np.array([s.get(k, 0) for s in done]) for k in kinds},
        trace={t: {c: _joined(v) for c, v in columns.items()} for t, columns in trace.items()},
    )


def _joined(parts):
    """Rows of several stages as one array, or one list where shapes differ."""
    if all(isinstance(p, np.ndarray) for p in parts) and len({p.shape[1:] for p in parts}) == 1:
        return np.concatenate(parts)
    return [row for part in parts for row in part]


# ---- the test

@torch.no_grad()
def evaluate(learner, test, sizes, seen):
    """Score all test images once: the only place where test data meets a learner.

    test: ImageSet relabelled by arrival, (N, C, H, W).   sizes: classes per task, (T,).   seen: classes
    learned so far. Returns int16 arrays (N,): predictions, within, rank (see Result), and whether all scores
    of seen classes are finite.
    """
    size = max(50, min(1000, TEST_PIXELS // max(1, int(np.prod(test.shape)))))
    ends = torch.cumsum(torch.tensor(sizes, device=test.device), 0)
    found, finite = [], torch.ones((), dtype=torch.bool, device=test.device)
    with looking(learner):
        for x, y in test.batches(size, shuffle=False):
            scores = learner(x).float()                                         # (B, K)
            if scores.ndim != 2 or len(scores) != len(x) or scores.shape[1] < seen:
                raise RunError(
                    f"forward() gave scores {tuple(scores.shape)} for {len(x)} images and {seen} classes "
                    f"seen; expected ({len(x)}, at least {seen})"
                )
            finite &= scores[:, :seen].isfinite().all()
            found.append(_answers(scores, y, ends, sizes, seen))
    names = ("predictions", "within", "rank")
    arrays = {n: torch.cat(v).to(torch.int16).cpu().numpy() for n, v in zip(names, zip(*found))}
    return arrays | {"finite": bool(finite)}


def accuracy_by_task(test, sizes, learner):
    """Share of right answers among all classes, for each task: (T,).

    test: ImageSet relabelled by arrival, ordered by task.   sizes: classes per task, (T,). A probe: the
    learner is in eval mode and without gradients when a Trace calls it.
    """
    right = torch.cat([learner(x).argmax(1) == y for x, y in test.batches(500, shuffle=False)])  # (N,)
    ends = torch.cumsum(torch.tensor(sizes, device=test.device), 0)
    tasks = torch.bucketize(test.labels, ends, right=True)                      # (N,)
    counts = torch.zeros(2, len(sizes), device=test.device)
    counts.index_add_(1, tasks, torch.stack([right, torch.ones_like(right)]).float())
    return counts[0] / counts[1]


def _answers(scores, y, ends, sizes, seen):
    """Predictions, task-aware predictions and ranks of one batch, each (B,)."""
    nothing = torch.full_like(y, -1)
    within, first = nothing.clone(), 0
    for size in sizes:
        if first + size <= scores.shape[1]:
            own = (y >= first) & (y < first + size)
            within = torch.where(own, first + scores[:, first:first + size].argmax(1), within)
        first += size
    if seen == 0:
        return nothing, within, nothing
    known = y < seen
    true = scores.gather(1, y.clamp(max=seen - 1)[:, None])                     # (B, 1)
    rank = (scores[:, :seen] > true).sum(1)
    return torch.where(known, scores[:, :seen].argmax(1), nothing), within, torch.where(known, rank, nothing)


# ---- time

class _Clock:
    """Seconds spent learning and images drawn in a stage, over all the processes that worked on it."""

    def __init__(self, images):
        self.images, self.before, self.begin = images, 0.0, time.perf_counter()
        images.drawn = 0

    def state_dict(self):
        _wait(self.images.device)
        return {
            "learn_seconds": self.before + time.perf_counter() - self.begin,
            "drawn": int(self.images.drawn),
        }

    def load_state_dict(self, state):
        self.before, self.begin = state["learn_seconds"], time.perf_counter()
        self.images.drawn = state["drawn"]


def _wait(device):
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize()


# ---- the folder

class _Store:
    """The files of one run. Entering takes the folder's lock, so that two processes cannot write into it."""

    def __init__(self, folder, about, keep, probes):
        self.folder = Path(folder)
        self.identity = {k: about[k] for k in ("key", "seed", "device", "threads")}
        self.identity |= {
            "torch": about["versions"]["torch"],
            "keep": sorted([keep] if isinstance(keep, str) else keep),
            "probes": sorted(f"{table}: {name}" for table, p in (probes or {}).items() for name in p),
        }
        self.about = about

    def __enter__(self):
        self.folder.mkdir(parents=True, exist_ok=True)
        self.lock = _lock(self.folder)
        try:
            self._check_identity()
        except BaseException:
            self.lock.close()
            raise
        return self

    def __exit__(self, *error):
        self.lock.close()

    def _check_identity(self):
        path = self.folder / "run.json"
        if not path.exists():
            text = (
                json.dumps({"identity": self.identity, "about": self.about}, indent=1, ensure_ascii=False)
                + "\n"
            )
            write_atomically(path, lambda f: f.write(text.encode()))
            return
        try:
            there = json.loads(path.read_text(encoding="utf-8"))["identity"]
        except (ValueError, KeyError):
            raise RunError(f"{path} is damaged: delete the folder {self.folder} and run again") from None
        differs = [k for k in self.identity if there.get(k) != self.identity[k]]
        if differs:
            what = ", ".join(f"{k} {there.get(k)!r} there, {self.identity[k]!r} now" for k in differs)
            raise RunError(
                f"the folder {self.folder} holds another run ({what}): choose another folder or delete it"
            )

    def resume(self, model):
        """Load the learner after the last finished stage, and what was measured until then."""
        path = self.folder / "state.pt"
        if not path.exists():
            return []
        state = _torch_load(path)
        model.restore(state["learner"])
        return [self._load_stage(i) for i in range(state["stages"])]

    def save_stage(self, i, stage, rows, model):
        arrays = {k: np.asarray(v) for k, v in stage.items()} | {
            f"trace/{k}": v for k, v in pack_trace(rows).items()
        }
        write_atomically(self.folder / f"stage-{i}.npz", lambda f: np.savez_compressed(f, **arrays))
        write_atomically(
            self.folder / "state.pt", lambda f: torch.save({"stages": i + 1, "learner": model.snapshot()}, f)
        )
        (self.folder / "within.pt").unlink(missing_ok=True)
        self.next = i

    def _load_stage(self, i):
        try:
            with np.load(self.folder / f"stage-{i}.npz", allow_pickle=False) as a:
                stage = {k: a[k] if a[k].ndim else a[k].item() for k in a.files if not k.startswith("trace/")}
                rows = unpack_trace({k[6:]: a[k] for k in a.files if k.startswith("trace/")})
        except Exception as error:  # zip and numpy each raise their own
            raise RunError(
                f"{self.folder / f'stage-{i}.npz'} is missing or damaged ({type(error).__name__}): "
                f"delete the folder {self.folder} and run again"
            ) from None
        self.next = i
        return stage | {"trace": rows}

    def save_within(self, state):
        write_atomically(self.folder / "within.pt", lambda f: torch.save({"task": self.next, **state}, f))

    def load_within(self, task):
        path = self.folder / "within.pt"
        state = _torch_load(path) if path.exists() else {"task": None}
        return (
            state if state["task"] == task else None
        )  # one that was left by the stage before counts no more


def _torch_load(path):
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # zip, pickle and torch each raise their own
        raise RunError(
            f"{path} is damaged ({type(error).__name__}): delete the folder {path.parent} and run again"
        ) from None


def _lock(folder):
    """An open file that holds the folder's lock; the system frees it however the process ends."""
    file = open(folder / "lock", "a+", encoding="utf-8")
    try:
        if os.name == "nt":
            import msvcrt
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        else:
            import fcntl
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        file.close()
        raise RunError(
            f"another process is working in {folder}: wait until it is done, or choose another folder"
        ) from None
    return file


# ---- what makes a result what it is

def _facts(learner, config, stream, seed, device):
    settings = _plain(dataclasses.asdict(config))
    return {
        "method": learner.__name__,
        "config": settings,
        "seed": seed,
        "stream": stream.about(),
        "key": result_key(learner, config, stream.about()),
        "device": _device_name(device),
        "threads": torch.get_num_threads(),
        "versions": versions(),
        "commit": _commit(),
        "date": date.today().isoformat(),
    }


def _plain(value):
    return json.loads(json.dumps(value))                # tuples become lists, as they will be when read back


def result_key(learner, config, stream):
    """A fingerprint of what a result depends on: settings, data and the source of the method.

    learner: a Learner class.   config: its Config.   stream: what Stream.about() says. The seed, the device
    and the versions of the libraries are stored beside it, not in it.
    """
    settings = _plain(dataclasses.asdict(config))
    choices = tuple(sorted({v for v in settings.values() if isinstance(v, str)}))
    parts = [LOOP, learner.__qualname__, settings, _plain(stream), source_key(learner, choices)]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


@lru_cache
def source_key(learner, choices=()):
    """Fingerprint of the source of a class and of all of clkit's nets, losses and methods that it names.

    choices: settings that are text; of a dictionary such as NETS only the entries so named count. Comments,
    docstrings and blank lines do not count; neither does what the class has no use for, so that a network
    added for one method leaves the results of the others valid.
    """
    wanted, seen = [learner], {}
    while wanted:
        thing = wanted.pop()
        mark = f"{thing.__module__}.{thing.__qualname__}"
        if mark in seen:
            continue
        try:
            code = _bare(inspect.getsource(thing))
        except (OSError, TypeError):                    # typed into a prompt: it has no file
            code = mark
        seen[mark] = code
        for name, value in _named(_words(thing), vars(sys.modules[thing.__module__]), choices):
            if callable(value) and hasattr(value, "__qualname__"):
                wanted += [value] if _counts(value, thing) else []
            elif isinstance(value, bool | int | float | str) and not name.startswith("__"):
                seen[f"{thing.__module__}.{name}"] = repr(value)
    return hashlib.sha256("\n".join(f"{k}\n{v}" for k, v in sorted(seen.items())).encode()).hexdigest()


def _named(words, space, choices):
    """(name, value) of what these words may mean in a module's namespace, also through a module of clkit."""
    for name in sorted(words & space.keys()):
        value = space[name]
        if isinstance(value, types.ModuleType):
            if value.__name__.startswith(_METHODS):
                yield from _named(
                    words,
                    {k: v for k, v in vars(value).items() if not isinstance(v, types.ModuleType)},
                    choices,
                )
        elif isinstance(value, dict):
            yield from ((f"{name}[{k}]", v) for k, v in value.items() if k in choices)
        else:
            yield name, value


_METHODS = ("clkit.nets", "clkit.losses", "clkit.methods")


def _counts(value, thing):
    home = getattr(value, "__module__", "") or ""
    return home == thing.__module__ or home.startswith(_METHODS)


def _words(thing):
    """The names that the source of a class or function uses."""
    try:
        tree = ast.parse(inspect.cleandoc("\n" + inspect.getsource(thing)))
    except (OSError, TypeError):
        return set()
    return {n.id for n in ast.walk(tree) if isinstance(n, ast.Name)} | {
        n.attr for n in ast.walk(tree) if isinstance(n, ast.Attribute)
    }


def _bare(code):
    """Source without comments, docstrings and layout: a line a statement with its depth, on every Python."""
    lines = inspect.cleandoc("\n" + code).split("\n")
    for node in ast.walk(ast.parse("\n".join(lines))):
        body = getattr(node, "body", None)
        first = body[0] if isinstance(body, list) and body else None
        if (
            isinstance(first, ast.Expr)
            and isinstance(first.value, ast.Constant)
            and isinstance(first.value.value, str)
        ):
            lines[first.lineno - 1:first.end_lineno] = [""] * (first.end_lineno - first.lineno + 1)
            lines[first.lineno - 1] = " " * first.col_offset + "pass"
    bare, depth, begin = [], 0, None
    for token in tokenize.generate_tokens(io.StringIO("\n".join(lines)).readline):
        if token.type == tokenize.COMMENT:
            lines[token.start[0] - 1] = lines[token.start[0] - 1][:token.start[1]]
        elif token.type in (tokenize.INDENT, tokenize.DEDENT):
            depth += 1 if token.type == tokenize.INDENT else -1
        elif token.type == tokenize.NEWLINE:
            bare.append(" " * depth + "".join("".join(lines[begin - 1:token.start[0]]).split()))
            begin = None
        elif token.type != tokenize.NL and begin is None:
            begin = token.start[0]
    return "\n".join(line for line in bare if line.strip() != "pass")


def versions():
    """Versions that the last digits of a result depend on."""
    return {
        "clkit": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
    }


@lru_cache
def _commit():
    """The commit of the checkout in use, with "+" where files differ from it; None outside a checkout."""
    here = Path(__file__).resolve().parents[1]

    def git(*words):
        return subprocess.run(
            ["git", "-C", str(here), *words], capture_output=True, text=True, check=True
        ).stdout.strip()

    try:
        if Path(git("rev-parse", "--show-toplevel")).resolve() != here:
            return None
        return git("rev-parse", "--short=12", "HEAD") + (
            "+" if git("status", "--porcelain", "--", "clkit") else ""
        )
    except (OSError, subprocess.CalledProcessError):
        return None


# ---- the machine

def pick_device(wish="auto"):
    """A torch.device: "auto" is cuda if there is one, else cpu. RunError if the wish cannot be had."""
    if wish == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(wish)
    except RuntimeError:
        device = None
    if device is None or device.type not in ("cpu", "cuda"):
        raise RunError(f"there is no device '{wish}': use auto, cpu or cuda")
    if device.type == "cuda" and not torch.cuda.is_available():
        raise RunError("this torch sees no CUDA device: use --device cpu, or see `python -m clkit doctor`")
    return device


def _device_name(device):
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


@contextlib.contextmanager
def _threads(n):
    before = torch.get_num_threads()
    if n is not None:
        torch.set_num_threads(n)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextlib.contextmanager
def _quick_matmul(device):
    """TF32 for matrix products on a GPU."""
    before = torch.get_float32_matmul_precision()
    if device.type == "cuda":
        torch.set_float32_matmul_precision("high")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


@contextlib.contextmanager
def _stopping(trace):
    """The first Ctrl-C asks the trace to stop at the end of the epoch or step, the second stops at once."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGINT)

    def ask(number, frame):
        if trace.stop:
            raise KeyboardInterrupt
        trace.stop = True
        print(
            "stopping at the end of this epoch or step (Ctrl-C again: at once)", file=sys.stderr, flush=True
        )

    signal.signal(signal.SIGINT, ask)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


__all__ = [
    "LOOP",
    "RunError",
    "Stopped",
    "accuracy_by_task",
    "evaluate",
    "pick_device",
    "result_key",
    "run",
    "source_key",
    "versions",
]
