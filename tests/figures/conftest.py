"""A folder of made-up records for all figures, each with its own skill and the facts of a record."""

import dataclasses

import matplotlib.pyplot as plt
import numpy as np
import pytest

from clkit import experiments, figures, papers
from clkit.engine.provenance import record_key, revision_of, settings_of
from clkit.experiments import places
from clkit.figures import arm, baselines, dgm, gfr, mfgr, spacenet
from clkit.result import save
from tests.builders import begun, by_epoch, cosines, fine_grained, generative, made, online, recalling, sparse

SHORT = {"train_per_class": 1, "test_per_class": 2}  # of each class of the shapes


def wanted():
    """[(experiment, preset, overrides)] that the figures read."""
    mnist = "finetune lwf lwf-multihead er cumulative joint ewc si mas dgr icarl rehearsal spacenet static"
    fashion = "ewc si lwf dgr icarl rehearsal static spacenet"
    found = [(f"{m}/split-mnist", "paper", None) for m in mnist.split()]
    found += [
        ("er/split-mnist", "paper", {"memory": m}) for m in baselines.MEMORIES if m != baselines.OWN_MEMORY
    ]
    found += [("joint/shapes-siblings", "paper", None), ("rehearsal/split-mnist", "paper", {"lr": 0.01})]
    found += [(f"{m}/split-fashion", "paper", None) for m in fashion.split()]
    found += [(name, "paper", o) for _, name, o in spacenet.ABLATIONS + spacenet.PIXELS]
    found += [(f"{m}/cifar10-100", "laptop", None) for m in spacenet.CIFAR["methods"]]
    tables = arm.tables.TABLE_1 + arm.tables.TABLE_6 + arm.tables.TABLE_7
    found += [(name, "paper", o) for _, _, name, o in tables]
    found += [(arm.SWEEP[0], "paper", arm.with_diversity(w)) for w in arm.SWEEP[1]]
    strengths = [{"strength": s} if s != baselines.OWN_STRENGTH else None for s in baselines.STRENGTHS]
    found += [("ewc/split-mnist", baselines.STRENGTHS_AT, o) for o in strengths]
    found += [*generated(), *recording(), *of_features()]
    return list({(n, p, str(o)): (n, p, o) for n, p, o in found}.values())


def generated():
    """Those of DGM and of the methods beside it."""
    found = [(f"{method}/{dgm.runs.MNIST}", dgm.runs.SIZE, None) for method in dgm.runs.SCORED["test"]]
    return found + [(name, dgm.runs.SIZE, overrides) for _, name, overrides in (*dgm.ABLATIONS, dgm.ALIKE)]


def recording():
    """Those of MFGR and of the methods beside it."""
    runs = mfgr.runs
    found = [(f"{method}/{runs.WARDROBE}", "laptop", None) for method in runs.WARDROBE_METHODS]
    found += [(f"mfgr/{runs.WARDROBE}", "laptop", overrides) for overrides in runs.RATIOS.values()]
    return found + [(f"{method}/{runs.BIRDS_ALONE}", "laptop", None) for method in runs.BOTH]


def of_features():
    """Those of GFR and of the methods beside it."""
    methods = dict.fromkeys((*gfr.runs.PRINTED, *gfr.runs.PARTS, *gfr.runs.FROZEN))
    found = [(f"{method}/{gfr.runs.SHAPES}", "teach", None) for method in methods]
    rows = [*gfr.runs.TABLE_2.values(), *gfr.runs.TABLE_3.values()]
    found += [(name, "teach", overrides) for _, name, overrides in rows]
    return found + [(f"{method}/{gfr.runs.FOUR}", "teach", None) for method in gfr.runs.COMPARED]


def put(folder, name, preset, overrides, skill, seeds=(0, 1), first_tasks=None):
    """Write a record of an experiment: random answers, right with probability `skill`. Returns its stem."""
    found = experiments.exact_experiment(name, preset, overrides, first_tasks)
    typed = experiments.experiment(name, preset, overrides)
    row, stream = found.stream_row, {"data": found.data, "checksum": "0f" * 32, **found.stream_row.stream}
    settings, revision = settings_of(typed.config), revision_of(typed.learner)
    results = []
    for seed in seeds:
        result = _made(found, seed, skill)
        result.about |= {
            "experiment": name,
            "method": found.method,
            "benchmark": found.benchmark,
            "preset": preset,
            "learner": typed.learner.__name__,
            "revision": revision,
            "settings": settings,
            "config": dataclasses.asdict(typed.config),
            "stream": stream,
            "key": record_key(typed.learner.__name__, revision, settings, stream),
        }
        results.append(begun(result, first_tasks) if first_tasks else result)
    assert row.classes_per_task == results[0].classes_per_task
    save(results, folder / found.stem, level=1)
    return found.stem


def _made(found, seed, skill):
    """A Result with the trace tables that figures of its method read."""
    sizes = found.stream_row.classes_per_task
    options = {"sizes": sizes, "skill": skill, "per_class": 30 + np.arange(sum(sizes)) % 4 * 13}
    if found.method in ("arm", "naive"):
        result = online(found.method, seed, batches=(6,) * len(sizes), **options)
        if found.benchmark == arm.CIFAR:
            result.trace["gradients"] = cosines(np.random.default_rng(seed), ("Conv1", "Conv2", "All"))
        return result
    if found.method in ("spacenet", "static"):
        result = sparse(found.method, seed, pixels=784, **options)
        active = np.random.default_rng(seed).normal(size=(2, 80, 800)).clip(0).astype(np.float16)
        counts = {"weights": np.array([500, 600 + seed]), "biases": np.array([30, 30])}
        result.trace["network"] = {"task": np.arange(2), "activations": active, **counts}
        return result
    if found.method in papers.PAPERS["mfgr"].variants:
        own = found.method.startswith("mfgr")
        return fine_grained(found.method, seed, generator=own, kept=seed == 0, **options)
    if found.method in gfr.runs.COMPARED or found.method in ("gfr-gaussian", "gfr-replay"):
        return recalling(found.method, seed, recalls="distill" not in found.method, each=8, **options)
    if found.benchmark == dgm.runs.MNIST and found.method != "joint-d":
        own = found.method.startswith("dgm")
        return generative(found.method, seed, fixed=own, grows=own, kept=seed == 0, **options)
    groups = [f"g{k // 5}" for k in range(sum(options["sizes"]))] if "shapes" in found.data else None
    result = made(
        found.method,
        seed,
        joint=found.method in ("joint", "stationary", "gfr-joint"),
        groups=groups,
        **options,
    )
    if found.method == "joint-d":
        result.trace["progress"] = by_epoch(result)
    return result


@pytest.fixture(scope="package")
def records(tmp_path_factory):
    """A folder with a record of every experiment that a figure reads, instead of the committed records."""
    folder, patch = tmp_path_factory.mktemp("records"), pytest.MonkeyPatch()
    rows = papers.PAPERS["baselines"].benchmarks
    short = dataclasses.replace(rows["shapes-families"]["paper"], options=SHORT)
    patch.setitem(rows, "shapes-families", rows["shapes-families"] | {"paper": short})
    patch.setattr(figures, "DPI", 50)  # few pixels show as well what is drawn, and from what
    for n, (name, preset, overrides) in enumerate(wanted()):
        single = name.endswith("/cifar10-100") or arm.CIFAR in name
        put(folder, name, preset, overrides, 0.3 + 0.618 * n % 0.6, seeds=(0,) if single else (0, 1))
    put(folder, f"dgmw/{dgm.runs.MNIST}", "paper", None, 0.95, seeds=(0,), first_tasks=5)
    yield folder
    patch.undo()


@pytest.fixture(autouse=True)
def _use(request, monkeypatch):
    if "records" in request.fixturenames:
        monkeypatch.setattr(places, "RECORDS", request.getfixturevalue("records"))
    yield
    plt.close("all")


SOME = ["averages-split-mnist", "accuracy-matrices", "arm-fig2-recalled"]
DRAWN = {*SOME, *list(figures.FIGURES)[1::3]}  # as images; of the others only what is said of them


@pytest.fixture(scope="package")
def built(records, tmp_path_factory):
    """(folder, paths) of all figures; DRAWN as PNG."""
    out, patch = tmp_path_factory.mktemp("figures"), pytest.MonkeyPatch()
    patch.setattr(places, "RECORDS", records)
    paths = [
        path
        for name in figures.FIGURES
        for path in figures.build([name], out, formats=("png",) if name in DRAWN else ())
    ]
    patch.undo()
    return out, paths
