"""The run loop: seed, learn a task, test, store; it can be stopped at any instant and resumed.

    learner, result = run(Finetune, Config(epochs=2), stream, seed=0, folder="runs/example")

A run folder holds the files that `clkit.engine.checkpoint` describes and, at the end, ``result.json`` and
``result.npz``. Calling ``run`` again with the same folder resumes the run, or returns at once if it is
complete. On one machine and a CPU, predictions and traces are bit for bit those of an uninterrupted run.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from clkit.data import ImageSet
from clkit.data.facts import is_whole
from clkit.data.stream import Stream, Task
from clkit.engine import RunError, parallel
from clkit.engine.checkpoint import Folder
from clkit.engine.device import device_name, lacks_memory, pick_device, torch_set, wait
from clkit.engine.evaluate import eval_mode, evaluate, label_type, smallest_batch
from clkit.engine.learner import Learner, check_types
from clkit.engine.own_code import own_code
from clkit.engine.past import Past
from clkit.engine.provenance import PROCESS, Facts, plain, process_facts, record_key, revision_of, settings_of
from clkit.engine.seeding import seed_everything
from clkit.engine.shared import Shared
from clkit.engine.torchrun import is_first, process
from clkit.engine.trace import Stopped, Trace
from clkit.result import Result, checked

Probes = Mapping[str, Mapping[str, Callable[[Learner], Any]]]
Studies = Mapping[str, Callable[[Learner, Stream], Mapping[str, Any]]]
Histories = Mapping[str, Callable[[Sequence[Learner], Stream], Mapping[str, Any]]]
FACTS = {
    *PROCESS,
    *"learner revision settings config seed stream key device threads shared first_tasks".split(),
}


def run(
    learner: type[Learner],
    config: Any,
    stream: Stream,
    *,
    seed: int = 0,
    device: str | torch.device = "cpu",
    folder: str | Path | None = None,
    shared: str | Path | None = None,
    every: float = 60.0,
    record: str | Iterable[str] = (),
    probes: Probes | None = None,
    studies: Studies | None = None,
    histories: Histories | None = None,
    threads: int | None = None,
    about: Facts | None = None,
    progress: bool | None = None,
    first_tasks: int | None = None,
) -> tuple[Learner, Result]:
    """Train a learner on a stream, task by task; after each task test it on all classes seen.

    learner: a Learner class.   config: its Config.   stream: a Stream; a learner with ``joint = True`` gets
        all classes in one stage.   seed: of weights, batch order and all other random choices during learning
        (the class order belongs to the stream).   device: "cpu", "cuda", ... ("auto": cuda if there is one).
    folder: for checkpoints; None stores nothing on disk.   every: seconds between checkpoints within a task.
    shared: a folder in which runs that have a `folder` share loops that they train alike; about["shared"]
        names those that another run trained, whose seconds count here too (`clkit.engine.shared`).
    record, probes: see Trace.   studies: {table: function of the learner and the stream}; each is called
        after the last task, without affecting the run, and its columns become a table.   histories: the same,
        but functions of the learners after each task; the folder then keeps them.
    threads: CPU threads of torch, fixed because the last bits of sums depend on their number; None leaves it
        unchanged.   about: further facts for the result.   progress: show bars; None: as Trace does.
    first_tasks: end after so many tasks, without studies and histories. The Result has their stages; the same
        call without first_tasks goes on in the folder with the next task.

    Returns (the learner after the last task, Result). The result's commit, date, versions and CPU are those
    of the process that finished the last stage, whichever reads the folder; "earlier_processes" lists others.
    Raises RunError, Stopped (Ctrl-C; the same call resumes), or what the learner raises.
    """
    _check_call(learner, config, stream, seed, threads, about, every)
    seed = int(seed)  # JSON knows no numpy's numbers
    if learner.joint:
        stream = stream.merged()
    last, device = _last_task(stream, first_tasks), pick_device(device)
    with torch_set(device, threads):
        about = {**_facts(learner, config, stream, seed, device, last), **(about or {})}
        facts = {k: about[k] for k in PROCESS if k in about}
        identity = _identity(about, record, probes or {}, {**(studies or {}), **(histories or {})})
        kept = None if folder is None or not is_first() else Folder(folder, identity, facts)
        with kept or contextlib.nullcontext(), parallel.joined(device):
            shown = progress if is_first() else False
            trace = Trace(record, probes, save=kept and kept.save_checkpoint, every=every, progress=shown)
            trace.shared = _shared(shared, about)
            after = last, studies or {}, histories or {}
            with _stopping(trace) if folder is not None else contextlib.nullcontext():
                model, stages = _run(learner, config, stream.to(device), seed, trace, kept, *after)
            result = _collected(stages, stream, about | (_computed(kept) if kept else {}))
            if kept and last == len(stream):
                kept.save_result(result)
    return model, result


def _check_call(learner, config, stream, seed, threads, about, every) -> None:
    """RunError or LearnerError unless the arguments of `run` are what they should be."""
    if not every >= 0:
        raise RunError(f"every must be a number of seconds between checkpoints, 0 or more, not {every!r}")
    if not (isinstance(learner, type) and issubclass(learner, Learner)):
        raise RunError(f"learner must be a subclass of Learner, such as LEARNERS['er'], not {learner!r}")
    if not isinstance(stream, Stream):
        raise RunError(f"stream must be a Stream, such as experiments.stream('split-digits'), not {stream!r}")
    if not dataclasses.is_dataclass(config) or isinstance(config, type):
        raise RunError(f"config must be an instance of the Config of {learner.__name__}, not {config!r}")
    wanted, given = getattr(sys.modules.get(learner.__module__), "Config", None), type(config)
    if learner.__module__.startswith("clkit.") and wanted and not isinstance(config, wanted):
        raise RunError(
            f"{learner.__name__} takes a {wanted.__module__}.Config, not a {given.__module__}.Config"
        )
    check_types(config)
    if process().size > 1 and not learner.parallel:
        cure = "start it without torchrun, and spread its seeds with --jobs"
        raise RunError(f"{learner.__name__} is computed by one process, not by {process().size}: {cure}")
    if not is_whole(seed):
        raise RunError(f"seed must be a whole number of at least 0, not {seed!r}")
    if threads is not None and not is_whole(threads, 1):
        raise RunError(f"threads must be a whole number of at least 1, or None, not {threads!r}")
    if forged := sorted(FACTS & {*(about or {})}):
        raise RunError(f"about= cannot change what a run finds out itself, {', '.join(forged)}: leave it out")


def _last_task(stream: Stream, first_tasks: int | None) -> int:
    """How many tasks to learn; RunError if there are not so many."""
    if first_tasks is None:
        return len(stream)
    if not is_whole(first_tasks, 1) or first_tasks > len(stream):
        rule = f"first_tasks must be a whole number from 1 to {len(stream)}, the number of tasks"
        raise RunError(f"{rule}, not {first_tasks!r}")
    return int(first_tasks)


def _run(
    learner,
    config,
    stream,
    seed,
    trace,
    kept: Folder | None,
    last: int,
    studies: Studies,
    histories: Histories,
):
    """(the learner, measurements before any learning and after each task), both after `last` tasks.

    The learner is a later one if the folder has gone on further.
    """

    def build() -> Learner:
        return learner(config, stream.shape, stream.classes).to(stream.test.device)

    seed_everything(seed, 0)
    with _explained(f"{learner.__name__} cannot be built", ValueError):  # settings that do not fit together
        model = build()
    stages = _resume(kept, model)
    if not stages:
        untrained = evaluate(model, stream.test, stream.test_classes_per_task, 0)
        stages = [{"predictions_task_aware": untrained["predictions_task_aware"]}]
        if kept:
            kept.save_stage(0, stages[0], {}, model)
    smallest = smallest_batch(model, stream.test)
    past = Past(build, len(stream), kept and kept.path)
    for task in list(stream)[len(stages) - 1 : last]:
        state = parallel.from_first(lambda i: kept and kept.load_checkpoint(i), task.index)
        clock, task.train.smallest = _Clock(task.train), smallest
        label = f"task {task.index + 1}/{len(stream)} · "
        data = [stream.about(until=task.index), task.train.ordered, smallest]
        trace.begin(model, task.index, clock=clock, label=label, state=state, data=data)
        seed_everything(seed, 1 + task.index)
        model.train()
        with _explained(f"task {task.index} cannot be learned"):
            model.learn(task, trace)
            parallel.keep_alike(model)
        rows = trace.end()
        stage = {**clock.state_dict(), **_measure(model, stream, task)}
        stage |= {"shared": json.dumps(trace.taken)} if trace.taken else {}
        if histories and is_first():
            past.keep(task.index, model)
        if task.index + 1 == len(stream) and is_first():
            rows |= _studied(studies, model, model, stream, seed)
            rows |= _studied(histories, model, past, stream, seed)
        stages.append(stage | {"trace": rows})
        if kept:
            kept.save_stage(task.index + 1, stage, rows, model)
        if parallel.agreed(kept is not None and trace.stop) and task.index + 1 < last:
            raise Stopped(f"stopped after task {task.index}")
    return model, stages[: last + 1]


def _resume(kept: Folder | None, model: Learner) -> list[Facts]:
    """Measurements of the finished stages; the learner becomes what it was after the last one."""
    stages = parallel.from_first(lambda: kept.resume(model) if kept else [])
    if stages and process().size > 1:
        model.restore(parallel.from_first(model.snapshot))
    return stages


@contextlib.contextmanager
def _explained(fault: str, *kinds: type) -> Iterator[None]:
    """Turn errors of these kinds, and those about sizes that do not fit, into a RunError of one sentence."""
    try:
        yield
    except Exception as error:
        first = str(error).partition("\n")[0]
        if lacks_memory(error):
            first = f"there is not enough memory for it ({first}): use smaller sizes"
        elif "more than 1 value per channel" in first:
            first = "batch normalisation cannot learn from a single image: use larger batches and memories"
        elif not isinstance(error, kinds):
            raise
        raise RunError(f"{fault}: {first}") from error


def _studied(studies, model, subject, stream, seed) -> Facts:
    """The tables of studies of `subject`, each with its own random numbers; the model stays as it is."""
    found = {}
    for table, study in studies.items():
        with eval_mode(model), parallel.whole():
            seed_everything(seed, len(stream) + 1)
            found[table] = {c: np.asarray(rows) for c, rows in study(subject, stream).items()}
    return found


def _measure(model: Learner, stream: Stream, task: Task) -> Facts:
    """Test once after a stage: predictions, time, sizes."""
    wait(stream.test.device)
    begin = time.perf_counter()
    found = evaluate(model, stream.test, stream.test_classes_per_task, task.seen)
    found["test_seconds"] = time.perf_counter() - begin
    if not found.pop("finite"):
        past = f" (tasks 0 to {task.index - 1} are kept)" if task.index else ""
        raise RunError(
            f"the logits after task {task.index} are not finite: training diverged; try a smaller learning "
            f"rate{past}"
        )
    memory = {f"memory_bytes/{kind}": size for kind, size in model.memory_bytes().items()}
    return found | memory | {"seen": task.seen, "parameters": sum(p.numel() for p in model.parameters())}


def _collected(stages: list[Facts], stream: Stream, about: Facts) -> Result:
    """`_collect`; RunError if stages that were read from files cannot be right."""
    try:
        return checked(_collect(stages, stream, about))
    except (LookupError, TypeError, ValueError) as error:
        raise RunError(
            f"the stages of this run do not fit together ({error}): start it anew in another folder"
        ) from error


def _collect(stages: list[Facts], stream: Stream, about: Facts) -> Result:
    """One Result from the stages of a run."""
    done, trace = stages[1:], {}
    shared = [taken for stage in done for taken in json.loads(stage.get("shared", "[]"))]
    kinds = dict.fromkeys(k for s in done for k in s if k.startswith("memory_bytes/"))
    columns = "predictions rank seen learn_seconds test_seconds n_samples parameters".split()
    for stage in done:
        for table, rows in stage["trace"].items():
            for name, values in rows.items():
                trace.setdefault(table, {}).setdefault(name, []).append(values)
    return Result(
        about | ({"shared": shared} if shared else {}),
        tuple(stream.test_classes_per_task),
        list(stream.names),
        None if stream.groups is None else list(stream.groups),
        labels=stream.test.labels.cpu().numpy().astype(label_type(stream.classes)),
        predictions_task_aware=np.stack([s["predictions_task_aware"] for s in stages]),
        **{k: np.array([s[k] for s in done]) for k in columns},
        memory_bytes={k.partition("/")[2]: np.array([s.get(k, 0) for s in done]) for k in kinds},
        trace={t: {c: _joined(v) for c, v in rows.items()} for t, rows in trace.items()},
    )


def _joined(parts: list) -> np.ndarray | list:
    """Rows of several stages as one array, or as one list if shapes differ."""
    if all(isinstance(p, np.ndarray) for p in parts) and len({p.shape[1:] for p in parts}) == 1:
        return np.concatenate(parts)
    return [row for part in parts for row in part]


# ---- facts


def _facts(learner, config, stream, seed, device, last) -> Facts:
    """What is run, where, and by which process."""
    revision = revision_of(learner, config)
    return {
        "learner": learner.__name__,
        "revision": revision,
        "settings": settings_of(config),
        "config": plain(dataclasses.asdict(config)),
        "seed": seed,
        "stream": stream.about(),
        "key": record_key(learner.__name__, revision, settings_of(config), stream.about()),
        "device": device_name(device),
        "threads": torch.get_num_threads(),
        **({"first_tasks": last} if last < len(stream) else {}),
        **process_facts(),
    }


def _computed(kept: Folder) -> Facts:
    """Facts about the last process that computed, and any earlier ones."""
    *earlier, last = kept.computed_by
    return {"processes": 1} | last | ({"earlier_processes": earlier} if earlier else {})


def _shared(folder, about) -> Shared | None:
    """The folder of shared loops as a run sees it: what they depend on, and how others name this run."""
    if folder is None or about["revision"] is None:
        return None
    facts = {k: about[k] for k in ("revision", "device", "threads", "versions", "cpu", "processes")}
    size = f" at {about['preset']}" if "preset" in about else ""
    name = f"{about.get('experiment', about['learner'])}{size}, seed {about['seed']}"
    return Shared(folder, facts, {"from": name} | {k: about[k] for k in ("key", "commit", "date")})


def _identity(about, record, probes, studies) -> Facts:
    """The facts that must agree for a folder to be resumed; own probes and studies count by their code."""
    named = {f"{table}: {name}": f for table, columns in probes.items() for name, f in columns.items()}
    code = {name: own_code(f) for name, f in {**named, **studies}.items()}
    named = [f"{name} {code[name]}".rstrip() for name in named]
    return {k: about[k] for k in ("learner", "key", "seed", "device", "threads")} | {
        "torch": about["versions"]["torch"],
        "record": sorted([record] if isinstance(record, str) else record),
        "probes": sorted(named + [f"{table} {code[table]}" for table in studies if code[table]]),
        **({"key": None} if None in code.values() else {}),
    }


# ---- time and signals


class _Clock:
    """Seconds of learning and images drawn in a stage, over all processes that worked on it."""

    def __init__(self, images: ImageSet) -> None:
        self.images, self.before, self.begin = images, 0.0, time.perf_counter()
        images.n_samples = 0

    def state_dict(self) -> Facts:
        wait(self.images.device)
        seconds = self.before + time.perf_counter() - self.begin
        return {"learn_seconds": seconds, "n_samples": int(self.images.n_samples)}

    def load_state_dict(self, state: Facts) -> None:
        self.before, self.begin = state["learn_seconds"], time.perf_counter()
        self.images.n_samples = state["n_samples"]


@contextlib.contextmanager
def _stopping(trace: Trace) -> Iterator[None]:
    """The first Ctrl-C asks the trace to stop after the current epoch or step; the second stops at once."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before, at_once = signal.getsignal(signal.SIGINT), []

    def ask(number: int, frame: object) -> None:
        if trace.stop:
            at_once.append(number)
            raise KeyboardInterrupt
        trace.stop = True
        notice = "stopping at the end of this epoch or step (press Ctrl-C again to stop at once)"
        with contextlib.suppress(OSError, RuntimeError):  # closed, or in the middle of printing
            if is_first():
                print(notice, file=sys.stderr, flush=True)

    signal.signal(signal.SIGINT, ask)
    try:
        yield
    except Exception as error:
        if at_once:  # a library turned the interrupt into an error of its own
            raise KeyboardInterrupt from error
        raise
    finally:
        signal.signal(signal.SIGINT, before)
