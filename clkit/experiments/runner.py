"""Running an experiment: one seed in its folder, all seeds in one or more processes, and their record."""

import dataclasses
import operator
import os
import pickle
import threading
import time
from concurrent.futures.process import BrokenProcessPool
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path

from clkit import papers
from clkit.engine.own_code import own_code
from clkit.engine.provenance import key_of
from clkit.errors import did_you_mean
from clkit.experiments import places
from clkit.experiments.benchmark import PresetError, stream_of
from clkit.experiments.experiment import Experiment, experiment
from clkit.experiments.load import record_to_extend
from clkit.experiments.places import runs_root

THREADS = 1  # CPU threads in every run, on every machine: the last bits of sums depend on their number


def checked_tables(found: Experiment, record) -> tuple:
    """The trace tables asked for, or those of the experiment; PresetError if the method has no such table."""
    if record is None:
        return found.tables
    patterns = (record,) if isinstance(record, str) else tuple(record)
    known = dict.fromkeys((*found.learner.tables, *found.paper.tables, *papers.ON_REQUEST))
    for pattern in patterns:
        if not any(fnmatchcase(table, pattern) for table in known):
            raise PresetError(
                f"{found.method} records no table '{pattern}'{did_you_mean(pattern, known)}; it records "
                f"{', '.join(known)}"
            )
    return patterns


def _asked_for(found, patterns) -> dict:
    """{name: Table} of the tables that these patterns record; those on request only by their own name."""
    tables = {n: t for n, t in papers.ON_REQUEST.items() if n in patterns}
    known = found.known_tables
    return tables | {n: t for n, t in known.items() if any(fnmatchcase(n, p) for p in patterns)}


def run_folder(found: Experiment, seed: int, record=None) -> Path:
    """The folder of the run of one seed; it depends on settings, data and revision.

    A run that ends after its first tasks has the folder of the whole run, which goes on there.
    """
    record, tasks = checked_tables(found, record), stream_of(found.stream_row, seed)
    learned = tasks.merged() if found.learner.joint else tasks
    key = key_of(found.learner, found.config, learned.about()) or "unknown"
    tables = "".join(f"+{table}" for table in sorted(record)).replace("*", "all")
    stem = dataclasses.replace(found, first_tasks=None).stem
    return runs_root() / places.short(f"{stem}-{key[:8]}{tables}", 240) / f"seed-{seed}"


def run_seed(name, preset="teach", seed=0, device="auto", overrides=None, record=None, progress=None):
    """(learner, Result) of one seed of an experiment: a new run, a resumed one, or read from its folder."""
    return run_seed_of(experiment(name, preset, overrides), seed, device, record, progress)


def run_seed_of(found: Experiment, seed, device="auto", record=None, progress=None, every=60.0):
    """`run_seed` for an Experiment."""
    from clkit.analysis import HISTORIES, PROBES, STUDIES
    from clkit.engine.device import pick_device
    from clkit.engine.run import run

    record, tasks = checked_tables(found, record), stream_of(found.stream_row, seed)
    device, probes, studies, histories = pick_device(device), {}, {}, {}
    for name, table in _asked_for(found, record).items():
        if table.probe and (columns := PROBES[table.probe](found, tasks, device)):
            probes[name] = columns
        if table.study:
            studies[name] = STUDIES[table.study](found)
        if table.history:
            histories[name] = HISTORIES[table.history](found)
    about = {k: getattr(found, k) for k in ("benchmark", "preset", "method")}
    return run(
        found.learner,
        found.config,
        tasks,
        seed=seed,
        device=device,
        folder=run_folder(found, seed, record),
        shared=runs_root() / "shared",
        record=record,
        probes=probes,
        studies=studies,
        histories=histories,
        threads=THREADS,
        about={"experiment": found.name, **about},
        progress=progress,
        every=every,
        first_tasks=found.first_tasks,
    )


def past_of(name, preset="teach", seed=0, device="auto", overrides=None, record=None):
    """The learners after each task of a run that recorded a history: a Past. Arguments as in `run_seed`."""
    from clkit.engine.device import pick_device
    from clkit.engine.past import Past

    found, device = experiment(name, preset, overrides), pick_device(device)
    tasks = stream_of(found.stream_row, seed)
    tasks = tasks.merged() if found.learner.joint else tasks

    def build():
        return found.learner(found.config, tasks.shape, tasks.classes).to(device)

    return Past(build, len(tasks), run_folder(found, seed, record))


def run_experiment(
    name,
    preset="teach",
    seeds=None,
    device="auto",
    jobs=1,
    overrides=None,
    out=None,
    record=None,
    progress=None,
    *,
    every=60.0,
    replace=False,
    add=False,
    tasks=None,
    order=None,
    scheduler=None,
    first_tasks=None,
):
    """Run all seeds of an experiment; list of Results in the order of `seeds`.

    jobs: processes to spread the seeds over; results do not depend on it.   out: folder to write the record
    to; with replace, over a record there, even of other seeds; with add, beside the seeds of a record there.
    record: trace tables to record, by default those of the experiment.   progress: show bars; None means in a
    terminal or notebook, and never with several jobs.   every: seconds between checkpoints.   tasks, order:
    of own data.   scheduler: "dask", for a Dask cluster of `jobs` processes, the address of one, or a Cluster
    that is connected.   first_tasks: learn only so many tasks; without it, the same call goes on where these
    end.
    """
    from clkit.engine.torchrun import process
    from clkit.result import save

    found = experiment(name, preset, overrides, tasks=tasks, order=order, first_tasks=first_tasks)
    seeds = found.seeds if seeds is None else _whole(seeds)
    if type(jobs) is not int or jobs < 1 or not seeds:
        raise PresetError(f"there must be at least one seed and one job, not {len(seeds)} and {jobs!r}")
    if process().size > 1 and jobs > 1:
        raise PresetError("torchrun already spreads each run over processes: leave out --jobs")
    checked_tables(found, record)
    out = _opened(found, out, seeds, replace, add)
    if scheduler is not None:
        from clkit.experiments.cluster import connected

        with connected(scheduler, jobs) as cluster:
            results = cluster.finish(_seed_result, _calls(found, seeds, device, record, every))
    elif (jobs := min(jobs, len(seeds))) == 1:
        results = [run_seed_of(found, s, device, record, progress, every)[1] for s in seeds]
    else:
        results = _in_processes(found, seeds, jobs, device, record, every)
    if out is not None:
        before = record_to_extend(found, out, seeds) if add else []
        kept = [_kept(r, found, record, first=r is results[0] and not before) for r in results]
        save(sorted(before + kept, key=lambda r: r.about["seed"]), out / found.stem, replace=replace)
    return results


def _whole(seeds) -> tuple:
    """Seeds as a tuple of Python's whole numbers; PresetError if they are none, or if one comes twice."""
    try:
        listed = tuple(seeds)
        whole = tuple(map(operator.index, listed))
    except TypeError:
        raise PresetError(f"seeds must list whole numbers, such as (0, 1, 2), not {seeds!r}") from None
    if min(whole, default=0) < 0 or any(isinstance(seed, bool) for seed in listed):
        raise PresetError(f"seeds must list whole numbers of at least 0, not {seeds!r}")
    if len(set(whole)) < len(whole):
        raise PresetError(f"{whole} names a seed twice: name each seed once")
    return whole


def _opened(found: Experiment, out, seeds, replace: bool, add: bool) -> Path | None:
    """The folder of the record that this process is to write, or None; checked before hours of work."""
    from clkit.engine.torchrun import is_first
    from clkit.result import check_replaces

    if (replace or add) and (out is None or (replace and add)):
        raise PresetError("replace and add belong to out, the folder of a record, and exclude each other")
    if out is None or not is_first():
        return None
    out = places.folder(out)
    _check_writable(out)
    if add:
        record_to_extend(found, out, seeds)
    elif not replace:
        check_replaces(out / found.stem, seeds)
    return out


def _check_writable(out: Path) -> None:
    """Make the folder; FileError if a record could not be written there."""
    from clkit.result import write_atomically

    write_atomically(out / ".clkit", lambda file: None)
    (out / ".clkit").unlink(missing_ok=True)


# ---- several processes


def begin(cluster, found: Experiment, seeds, device="auto", record=None, every=60.0):
    """Hand the seeds of an experiment to a Cluster, so that `run_experiment` finds them under way."""
    cluster.begin(_seed_result, _calls(found, found.seeds if seeds is None else seeds, device, record, every))


def _calls(found, seeds, *options) -> dict:
    """{run folder: arguments of `_seed_result`}."""
    found.learner, found.config  # noqa: B018, they travel with it: another process may not find them
    entered = _entered(found)
    return {str(run_folder(found, seed, options[1])): (entered, found, seed, *options) for seed in seeds}


def _in_processes(found, seeds, jobs, *options):
    """The Results of the seeds, computed by `jobs` processes, which end when this one does."""
    stream_of(found.stream_row, seeds[0])  # report faults in the data once, here
    from joblib import Parallel, delayed

    work = (delayed(_seed_result)(*call) for call in _calls(found, seeds, *options).values())
    try:
        return Parallel(n_jobs=jobs, initializer=_end_with, initargs=(os.getpid(),))(work)
    except BrokenProcessPool:
        fault = "a process that computed a seed was ended from outside, or for lack of memory"
        raise PresetError(f"{fault}: run the same command again to resume, perhaps with fewer jobs") from None
    except (pickle.PicklingError, TypeError) as error:
        if "pickle" not in str(error):
            raise
        what = f"{found.method} holds what cannot be sent to another process ({error})"
        raise PresetError(f"{what}: run it with one job, or write it into a file") from error


def _seed_result(entered, found, seed, device, record, every):
    for registry, entries in zip(_registries(), entered):
        registry.update(entries)
    return run_seed_of(found, seed, device, record, progress=False, every=every)[1]


def _registries():
    """What a user may enter methods, networks, probes and studies in, in a notebook for instance."""
    from clkit.analysis import HISTORIES, PROBES, STUDIES
    from clkit.blocks.nets import NETS
    from clkit.methods import LEARNERS

    return papers.PAPERS, LEARNERS, NETS, PROBES, STUDIES, HISTORIES


def _entered(found):
    """The entries of each registry that another process may lack: the method's paper, and all own code."""
    paper = {name: paper for name, paper in papers.PAPERS.items() if paper is found.paper}
    return paper, *({k: v for k, v in registry.items() if _is_own(v)} for registry in _registries()[1:])


def _is_own(entry):
    return isinstance(entry, partial) or own_code(entry) != ""


def _end_with(parent: int) -> None:
    """Let this process end when its parent does, however that ends: nobody would take its result.

    The parent may have ended already, while this process began.
    """

    def watch():
        while os.getppid() == parent:
            time.sleep(0.2)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _kept(result, found, record, first):
    """A result as its record stores it: with the trace tables that the paper keeps, or those asked for."""
    if record is not None:
        return result
    large, trace = first and not found.overrides, {}
    for name, columns in result.trace.items():
        table = found.paper.tables[name]
        here = large and (table.kept_by is None or not {found.method, found.name}.isdisjoint(table.kept_by))
        if table.keep == "first seed" and not here:
            continue
        trace[name] = {c: rows for c, rows in columns.items() if here or c not in table.first_seed_columns}
    return dataclasses.replace(result, trace=trace)
