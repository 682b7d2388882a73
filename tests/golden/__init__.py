"""Golden digests of the results of a seed, which show that a refactoring changes no result.

``python -m tests.golden [WORD ...]`` runs every experiment at the smoke preset and the settings of every
committed record on the smoke stream. It compares a digest of each array (predictions, ranks, task-aware
predictions, trace tables) with the stored ones; WORDs select experiments whose names begin with them.
``--write`` stores the new digests: use it only for a reason, and add the reason to CHANGES.md.

Digests are valid for one kind of CPU and one version of torch, which `machine` in the files names. Elsewhere
the last bits differ, and only average accuracies are compared, within TOLERANCE.
"""

import hashlib
import json
from pathlib import Path

import numpy as np
import torch

from clkit import analysis, experiments
from clkit.engine.device import pick_device
from clkit.engine.provenance import cpu_model
from clkit.engine.run import run
from clkit.experiments import places
from clkit.result import pack_trace

HERE = Path(__file__).parent
KINDS = ("smoke", "records")
TOLERANCE = 0.15  # of an average accuracy, on another machine


def digest(values):
    """Twelve hex digits from an array's shape and values, whatever the width of its type."""
    a = np.asarray(values)
    if a.dtype.kind in "biu":
        a = a.astype("<i8")
    elif a.dtype.kind == "f":
        a = np.where(np.isnan(a), np.nan, a).astype("<f8")
    return hashlib.sha256(
        repr(a.shape).encode() + (a.tobytes() if a.dtype.kind in "if" else repr(a.tolist()).encode())
    ).hexdigest()[:12]


def digests(result):
    """{array: digest} of a Result; trace columns are table/column."""
    arrays = {
        name: getattr(result, name)
        for name in ("predictions", "predictions_task_aware", "rank", "n_samples", "parameters")
    }
    arrays |= {f"memory_bytes/{kind}": sizes for kind, sizes in result.memory_bytes.items()}
    return {name: digest(values) for name, values in (arrays | pack_trace(result.trace)).items()}


def read(kind):
    """{"machine": ..., "results": {name: {"average": number, "digests": {array: digest}}}}."""
    return json.loads((HERE / f"{kind}.json").read_text(encoding="utf-8"))


def jobs(kind):
    """[(name, Experiment)] of the smoke preset, or with the settings of the committed records."""
    if kind == "smoke":
        return [(name, experiments.experiment(name, "smoke")) for name in experiments.names()]
    found = []
    for path in sorted(places.RECORDS.glob("*.json")):
        about = json.loads(path.read_text(encoding="utf-8"))["about"]
        row = experiments.exact_experiment(about["experiment"], about["preset"])
        plain = json.loads(json.dumps(row.settings))
        changed = {k: about["config"][k] for k in about["settings"] if plain.get(k) != about["settings"][k]}
        found.append((path.stem, experiments.experiment(about["experiment"], about["preset"], changed)))
    return found


def result_of(found):
    """The Result of an Experiment on the smoke stream of its benchmark, seed 0, with all trace tables."""
    stream = experiments.stream(found.benchmark, "smoke", 0)
    small = experiments.exact_experiment(found.name, "smoke")
    tables = {name: table for name, table in found.paper.tables.items() if name in small.tables}
    probes = {
        name: columns
        for name, table in tables.items()
        if table.probe
        if (columns := analysis.PROBES[table.probe](found, stream, pick_device("cpu")))
    }
    studies = {name: analysis.STUDIES[table.study](small) for name, table in tables.items() if table.study}
    return run(
        found.learner,
        found.config,
        stream,
        seed=0,
        device="cpu",
        record="*",
        probes=probes,
        studies=studies,
        threads=1,
        progress=False,
    )[1]


def differences(kept, result, same_machine):
    """The names of the arrays that differ from a row of `read`, or of the score."""
    if not same_machine:
        return [] if abs(kept["average"] - result.average()) < TOLERANCE else ["average accuracy"]
    now = digests(result)
    return sorted(
        name for name in kept["digests"].keys() | now.keys() if kept["digests"].get(name) != now.get(name)
    )


def same_machine(kept, row):
    """Whether the digests of a row come from this kind of CPU and version of torch.

    A row names its machine if it is not that of the whole file, `kept`.
    """
    return row.get("machine", kept["machine"]) == machine_facts()


def machine_facts():
    """The facts that digests depend on."""
    instructions = torch.backends.cpu.get_cpu_capability()
    return {"cpu": cpu_model(), "instructions": instructions, "torch": torch.__version__}
