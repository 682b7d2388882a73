"""Results for notebooks and figures: from a committed record, from run folders, or computed.

Reading a record does not load torch. A record is valid only if the present experiment would make it: same
revision of the method, same settings, same stream.
"""

import json
import shlex
from functools import lru_cache
from pathlib import Path

from clkit.engine.provenance import plain, record_key, revision_of
from clkit.experiments import places
from clkit.experiments.benchmark import OWN, PresetError
from clkit.experiments.experiment import Experiment, exact_experiment, experiment, names
from clkit.result import check_summary, load

REVISIONS = Path(__file__).resolve().parents[1] / "methods" / "revisions.json"


@lru_cache
def revisions() -> dict:
    """{name of a Learner class: its revision}, as committed."""
    return {name: row["revision"] for name, row in json.loads(REVISIONS.read_text(encoding="utf-8")).items()}


def load_or_run(name, preset="teach", seeds=None, overrides=None, compute=None, say=print):
    """The results of an experiment: from its record, from run folders, or computed; `say` reports which.

    A record of another revision, other settings or other data is refused. Without a record, the laptop and
    paper presets start only with compute=True, because they may take hours: the PresetError gives the command
    and the time.
    """
    from clkit.experiments.runner import run_experiment, run_folder

    found = experiment(name, preset, overrides)
    if places.record_of(found.stem).is_file() and not compute:
        results = load_record_of(found)
        date, commit = results[0].about["date"], results[0].about["commit"] or "unknown"
        say(" ".join(f"loaded {found.stem} ({date}, commit {commit}, n = {len(results)} seeds)".split()))
        return results
    if found.preset in ("laptop", "paper") and not compute:
        minutes = (found.minutes or 0) * len(found.seeds)
        said = f" (about {minutes:.0f} minutes on one core)" if minutes else ""
        raise PresetError(
            f"there is no record of {name} at the {found.preset} preset: make it with "
            f"`{found.command}`{said}, or call load_or_run(..., compute=True)"
        )
    seeds = found.seeds if seeds is None else tuple(seeds)
    known = all((run_folder(found, s) / "result.json").is_file() for s in seeds)
    known = known and revision_of(found.learner, found.config) is not None  # else it starts anew
    results = run_experiment(name, preset, seeds, overrides=overrides)
    say(f"{'read back' if known else 'computed'} {found.stem} (n = {len(seeds)} seeds)")
    return results


def load_record(name, preset="paper", overrides=None, trace=True, first_tasks=None):
    """The checked results of a record; trace as in `load`, the others as in `exact_experiment`."""
    return load_record_of(exact_experiment(name, preset, overrides, first_tasks), trace)


def load_record_of(found: Experiment, trace=True):
    """The results in the record of an Experiment. PresetError or ResultError if they are not valid."""
    path = places.record_of(found.stem)
    results = load(path, trace)
    check_record(found, results)
    check_summary(path, results)
    return results


def record_to_extend(found: Experiment, folder: Path, seeds) -> list:
    """The results of the record in a folder to which an experiment adds `seeds`; [] if there is none yet.

    PresetError if it holds one of them, or if the present version of the experiment did not make it.
    """
    path = folder / found.stem
    if not folder.joinpath(f"{found.stem}.json").is_file():
        return []
    results = load(path)
    cure = "use --replace, or name another folder"
    for fault in filter(None, (_fault(found, result) for result in results)):
        raise PresetError(f"seeds cannot be added to the record {path} ({fault}): {cure}")
    if both := sorted({r.about["seed"] for r in results}.intersection(seeds)):
        raise PresetError(f"the record {path} already has the seed {both[0]}: add only other seeds")
    return results


def on_record(name, preset="paper", overrides=None, first_tasks=None) -> bool:
    """Whether an experiment has a record, valid or stale."""
    return places.record_of(exact_experiment(name, preset, overrides, first_tasks).stem).is_file()


def check_record(found: Experiment, results) -> None:
    """Raise PresetError unless the present version of this experiment made the results."""
    for fault in filter(None, (*(_fault(found, result) for result in results), _chosen(found, results))):
        raise PresetError(f"the record {found.stem} is stale ({fault}): renew it with `{found.command}`")


def _chosen(found, results):
    """Why these results are not those of all seeds of an experiment, or of the first ones; "" if they are."""
    seeds = sorted(r.about["seed"] for r in results)
    usual = seeds in (sorted(found.seeds), list(range(len(seeds))))
    return "" if usual or found.preset == OWN else f"its seeds {', '.join(map(str, seeds))} are a selection"


def _fault(found, result):
    """Why this experiment did not make a result, in a few words; "" if it did."""
    facts = "experiment preset revision learner key".split()
    about = {**dict.fromkeys(facts), "settings": {}, "config": {}, "stream": {}, **result.about}
    row, settings = found.stream_row, plain(found.settings)
    if (about["experiment"], about["preset"]) != (found.name, found.preset):
        return "it belongs to another experiment"
    if found.preset != OWN and about["revision"] != _revision(found, about["learner"]):
        return "another revision of the method made it"
    if about["key"] != record_key(about["learner"], about["revision"], about["settings"], about["stream"]):
        return "its key does not match its settings and stream"
    if about.get("first_tasks") != found.first_tasks:
        return f"it has the first {len(result.seen)} tasks"
    changed = {k for k in settings if about["config"].get(k) != settings[k]}
    if changed := changed | (about["settings"].keys() - settings.keys()):
        return f"it has other settings: {', '.join(sorted(changed))}"
    same = (
        str(about["stream"].get("data")).partition("(")[0] == row.data.removeprefix("folder:")
        and all(about["stream"].get(k) == v for k, v in row.stream.items())
        and tuple(result.classes_per_task) == tuple(row.classes_per_task)
    )
    return "" if same else "it has other data"


def _revision(found, learner):
    """The present revision of a method; only one that is not clkit's loads torch for it."""
    return revisions()[learner] if learner in revisions() else revision_of(found.learner, found.config)


# ---- all records in a folder


def records_in(folder, benchmark=None, preset=None) -> dict:
    """{(benchmark, preset): {label: results}} of the records in a folder, of any experiment.

    A label is the method, followed by those of its settings that not all records of the group share.
    PresetError if there is no record, or none of the benchmark or preset asked for.
    """
    folder, found, wishes = places.folder(folder), {}, {"benchmark": benchmark, "preset": preset}
    for path in sorted(folder.glob("*.json")):
        if not path.with_suffix(".npz").is_file():  # no record
            continue
        if any(wish not in (None, _said(path, fact)) for fact, wish in wishes.items()):
            continue
        results = load(path)
        about = results[0].about
        if not {"experiment", "method", "benchmark", "preset"} <= about.keys():
            raise PresetError(f"{path} names no experiment: make it with `python -m clkit run`, or delete it")
        row = (about["method"], _beside_row(about), results)
        found.setdefault((about["benchmark"], about["preset"]), []).append(row)
    if not found:
        wanted = " ".join(word for word in (benchmark, preset) if word)
        raise PresetError(
            f"there is no record{f' of {wanted}' if wanted else ''} in {folder}: make one with "
            f"`python -m clkit run METHOD/BENCHMARK --out {shlex.quote(str(folder))}`"
        )
    return {key: _labelled(rows) for key, rows in found.items()}


def _said(path, fact):
    """A fact in the head of a record; None if there is no such fact, or no record."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))["about"].get(fact)
    except (OSError, ValueError, LookupError, AttributeError, TypeError):
        return None


def _beside_row(about):
    """The settings of a result that differ from its experiment's row, each as KEY=VALUE."""
    known = about["experiment"] in names() and about["preset"] != OWN
    row = plain(exact_experiment(about["experiment"], about["preset"]).settings) if known else {}
    named = row.keys() | about.get("settings", {}).keys()
    words = [f"{k}={v}" for k, v in about.get("config", {}).items() if k in named and row.get(k) != v]
    first = about.get("first_tasks")
    return [*words, f"first {first} tasks"] if first else words


def _labelled(rows):
    """{label: results} of [(method, settings as words, results)]."""
    shared, labelled = set.intersection(*(set(words) for _, words, _ in rows)) if rows[1:] else set(), {}
    for method, words, results in rows:
        said = ", ".join(word for word in words if word not in shared)
        labelled[f"{method} ({said})" if said else method] = results
    return dict(sorted(labelled.items()))
