"""Bring records of format 1 into format 2, with new names and new keys. Used once.

    python tools/migrate_records.py OLD_TREE OUT [--streams]

OLD_TREE is a checkout of the code that made the records in its figures/results. Each record is first checked
by its old key with that code, in a process of its own; then it is written to OUT with the names of today, and
every array is compared with the old one after reading it back. --streams also builds each stream anew from
the data and compares its facts (for experiments that this tree has).
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np

from clkit.engine.provenance import key_of, plain, revision_of, settings_of
from clkit.experiments import config_class
from clkit.methods import LEARNERS
from clkit.result import Result, load, pack_trace, save, unpack_trace

# ---- what is called otherwise now

EXPERIMENTS = {("cifar10-100-500", "paper"): ("cifar10-100", "laptop")}  # (benchmark, preset)
STREAM = {"sizes": "classes_per_task", "cap": "max_per_class", "arrival": "shuffle_images"}
ARRAYS = {"within": "predictions_task_aware", "drawn": "n_samples"}
MEMORY = {"old copies": "teachers"}
COLUMNS = {
    ("objective", "sharpness"): "confidence",
    ("objective", "size"): "l2",
    ("objective", "variation"): "tv",
    ("objective", "statistics"): "bn_loss",
    ("images", "answers"): "probs",
}
_EVERY = {"batch": "batch_size"}
_STORED = _EVERY | {"replay": "replay_size", "candidates": "n_candidates"}
_MADE = _EVERY | {"images": "n_images", "descent": "n_steps"}
_ARM = _MADE | {"sharpness": "confidence", "size": "l2", "variation": "tv", "statistics": "bn_loss"}
SETTINGS = {  # class of the learner -> field of its Config
    "ER": _STORED,
    "MIR": _STORED,
    "OnlineICaRL": _STORED,
    "DGR": _STORED,
    "GEN": _MADE,
    "ARM": _ARM,
    "Stationary": _ARM,
}

# Run by the old code: {stem: settings that differ from the row of its experiment}, each record's key checked.
OLD = """
import dataclasses, json, sys
from clkit import presets
from clkit.result import load
found = {}
for path in sorted(presets.RECORDS.glob("*.json")):
    results = load(path)
    about = results[0].about
    config = presets.experiment(about["experiment"], about["preset"]).config
    row = json.loads(json.dumps(dataclasses.asdict(config)))
    changed = {k: v for k, v in about["config"].items() if v != row[k]}
    chosen = presets.experiment(about["experiment"], about["preset"], changed)
    presets.check_record(chosen, results)
    assert chosen.stem == path.stem, path.stem
    found[path.stem] = changed
json.dump(found, sys.stdout)
"""


def checked(old_tree: Path) -> dict[str, dict]:
    """Stem -> overrides of all old records, after the old code has found each of their keys right."""
    environment = os.environ | {"PYTHONPATH": str(old_tree)}
    done = subprocess.run(
        [sys.executable, "-c", OLD], cwd=old_tree, env=environment, capture_output=True, text=True
    )
    if done.returncode:
        raise SystemExit(f"the old code refuses a record:\n{done.stderr}")
    return json.loads(done.stdout)


def old_arrays(stem: Path, n: int) -> dict[str, np.ndarray]:
    """The arrays of seed number n of a record of format 1, by their new names."""
    found = {}
    with np.load(stem.with_name(stem.name + ".npz"), allow_pickle=False) as arrays:
        for key in arrays.files:
            seed, _, name = key.partition("/")
            if seed == str(n):
                found[_renamed(name)] = arrays[key]
    return found


def _renamed(name: str) -> str:
    kind, _, rest = name.partition("/")
    if kind == "kept":
        return f"memory_bytes/{MEMORY.get(rest, rest)}"
    if kind == "trace":
        table, _, column = rest.rpartition("/")
        column, mark, part = column.partition("#")
        return f"trace/{table}/{COLUMNS.get((table, column), column)}{mark}{part}"
    return ARRAYS.get(name, name)


def new_stem(about: dict, overrides: dict) -> str:
    """METHOD_BENCHMARK_PRESET, then the overrides in the order of their names."""
    names = SETTINGS.get(about["learner"], _EVERY)
    values = {names.get(k, k): v for k, v in overrides.items()}
    said = {k: "-".join(map(str, v)) if isinstance(v, list) else v for k, v in values.items()}
    extra = "".join(f"_{k}-{said[k]}" for k in sorted(said))
    return f"{about['method']}_{about['benchmark']}_{about['preset']}{extra}".replace(" ", "").replace(
        "/", "-"
    )


def new_about(old: dict) -> dict:
    """What is said about a result, as a run says it now."""
    learner = LEARNERS[old["method"]]
    made = config_class(learner)
    names = SETTINGS.get(learner.__name__, _EVERY)
    fields = {f.name for f in dataclasses.fields(made)}
    values = {names.get(k, k): tuple(v) if isinstance(v, list) else v for k, v in old["config"].items()}
    if values.keys() - fields:
        raise SystemExit(f"{learner.__name__} has no setting {', '.join(sorted(values.keys() - fields))}")
    config = made(**values)
    stream = {STREAM.get(k, k): v for k, v in old["stream"].items()}
    benchmark, preset = EXPERIMENTS.get((old["benchmark"], old["preset"]), (old["benchmark"], old["preset"]))
    return {
        "experiment": f"{old['method']}/{benchmark}",
        "benchmark": benchmark,
        "preset": preset,
        "method": old["method"],
        "learner": learner.__name__,
        "revision": revision_of(learner),
        "settings": settings_of(config),
        "config": plain(dataclasses.asdict(config)),
        "seed": old["seed"],
        "stream": stream,
        "key": key_of(learner, config, stream),
        "device": old["device"],
        "threads": old["threads"],
        "versions": old["versions"],
        "commit": old["commit"],
        "date": old["date"],
        "cpu": None,  # was not written down
    }


def migrate(stem: Path, overrides: dict, out: Path) -> Path:
    """Write one record anew and compare every array with the old one; the new stem."""
    heads = json.loads(stem.with_name(stem.name + ".json").read_text(encoding="utf-8"))["results"]
    results, arrays = [], []
    for n, head in enumerate(heads):
        flat = old_arrays(stem, n)
        arrays.append(flat)
        plain_names = {k: v for k, v in flat.items() if "/" not in k}
        memory = {k.partition("/")[2]: v for k, v in flat.items() if k.startswith("memory_bytes/")}
        trace = unpack_trace({k.partition("/")[2]: v for k, v in flat.items() if k.startswith("trace/")})
        results.append(
            Result(
                new_about(head["about"]),
                tuple(head["sizes"]),
                head["names"],
                head["groups"],
                **plain_names,
                memory_bytes=memory,
                trace=trace,
            )
        )
    target = out / new_stem(results[0].about, overrides)
    save(results, target, replace=True)
    compare(arrays, results, load(target))
    return target


def compare(arrays: list[dict], before: list[Result], after: list[Result]) -> None:
    """Raise SystemExit unless a record read back holds the old arrays, bit for bit and of the same types."""
    for flat, old, new in zip(arrays, before, after, strict=True):
        found = {k: v for k, v in vars(new).items() if isinstance(v, np.ndarray)}
        found |= {f"memory_bytes/{k}": v for k, v in new.memory_bytes.items()}
        found |= {f"trace/{k}": v for k, v in pack_trace(new.trace).items()}
        same = flat.keys() == found.keys() and all(
            flat[k].dtype == found[k].dtype
            and flat[k].shape == found[k].shape
            and flat[k].tobytes() == found[k].tobytes()
            for k in flat
        )
        if not same or new.about != old.about or (new.names, new.groups) != (old.names, old.groups):
            raise SystemExit(
                f"{old.about['experiment']} seed {old.about['seed']} does not come back as it was"
            )


def check_stream(stem: Path) -> bool:
    """Whether the stream facts of a record are those that its experiment's stream tells now."""
    from clkit import experiments

    found = load(stem)
    about = found[0].about
    if about["preset"] not in experiments.PRESETS:
        return False
    for r in found:
        about = r.about
        stream = experiments.stream(about["benchmark"], about["preset"], about["seed"])
        if LEARNERS[about["method"]].joint:
            stream = stream.merged()
        if stream.about() != about["stream"]:
            raise SystemExit(f"{stem.name}: its stream says {stream.about()}, the record {about['stream']}")
    return True


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("old_tree", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--streams", action="store_true")
    options = parser.parse_args()
    sizes, renamed, streams = {}, 0, 0
    for stem, overrides in checked(options.old_tree).items():
        target = migrate(options.old_tree / "figures" / "results" / stem, overrides, options.out)
        sizes[target.name] = sum(
            target.with_name(target.name + end).stat().st_size for end in (".json", ".npz")
        )
        renamed += target.name != stem
        streams += options.streams and check_stream(target)
    print(
        f"{len(sizes)} records, {renamed} with another name, {sum(sizes.values()) / 1e6:.2f} MB; arrays equal"
        + (f"; {streams} streams built anew and equal" if options.streams else "")
    )
    for name, size in sorted(sizes.items(), key=lambda item: -item[1]):
        if size > 400_000:
            print(f"  {name} {size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
