"""Results for tests, with random answers and trace tables of the right shapes; helpers that inspect plots."""

import dataclasses

import matplotlib
import numpy as np

from clkit.plots import TERMS
from clkit.result import Result

SIZES, PER_CLASS = (2, 2, 2), 10


def made(
    method="er",
    seed=0,
    *,
    benchmark="split-digits",
    data="digits",
    preset="teach",
    sizes=SIZES,
    joint=False,
    groups=None,
    memory=100,
    skill=0.6,
    per_class=PER_CLASS,
):
    """A Result of random answers: right with probability `skill`, otherwise among the seen classes.

    per_class: number of test images of each class, or a list of numbers.
    """
    random = np.random.default_rng([seed, sum(map(ord, method)), memory])
    K = sum(sizes)
    labels = np.repeat(np.arange(K), per_class).astype(np.int16)
    seen = np.array([K]) if joint else np.cumsum(sizes)
    own = np.searchsorted(np.cumsum(sizes), labels, side="right")
    first = (np.cumsum(sizes) - sizes)[own]
    predictions = np.array(
        [
            np.where(random.random(len(labels)) < skill, labels, random.integers(0, s, len(labels)))
            for s in seen
        ]
    )
    predictions = np.where(labels < seen[:, None], predictions, -1).astype(np.int16)
    task_aware = np.array([first + random.integers(0, np.array(sizes)[own]) for _ in range(len(seen) + 1)])
    R = len(seen)
    about = {
        "experiment": f"{method}/{benchmark}",
        "method": method,
        "benchmark": benchmark,
        "preset": preset,
        "seed": seed,
        "config": {"memory": memory},
        "stream": {"data": data, "checksum": "0f" * 32},
        "key": "abc",
        "commit": "1234567",
        "date": "2024-02-03",
        "device": "cpu",
        "threads": 1,
        "versions": {"clkit": "0.1.0", "torch": "2.13.0"},
    }
    losses = {
        "task": np.repeat(np.arange(R), 4),
        "epoch": np.tile(np.arange(4), R),
        "loss": random.random(4 * R),
    }
    return Result(
        about,
        sizes,
        [f"c{k}" for k in range(K)],
        groups,
        seen,
        labels,
        predictions,
        task_aware,
        np.where(predictions == labels, 0, 1),
        np.ones(R),
        np.ones(R),
        np.full(R, 100),
        np.full(R, 5),
        memory_bytes={"weights": np.full(R, 2_000_000), "exemplars": np.arange(1, R + 1) * 500_000},
        trace={"loss": losses},
    )


def seeds(method="er", n=3, **options):
    """`made` for the seeds from 0 to n - 1."""
    return [made(method, seed, **options) for seed in range(n)]


def several():
    """{method: three seeds} for two methods and joint training."""
    return {"finetune": seeds("finetune"), "er": seeds("er"), "joint": seeds("joint", joint=True)}


def sparse(method="spacenet", seed=0, *, pixels=36, chosen=8, hidden=12, epochs=2, **options):
    """A Result with the trace table "masks": random connections of a network with two hidden layers."""
    result = made(method, seed, **options)
    random = np.random.default_rng([seed, sum(map(ord, method)), pixels])
    rows = []
    for task, classes in enumerate(result.classes_per_task):
        first = sum(result.classes_per_task[:task])
        layers = [
            np.arange(pixels),
            *(random.permutation(hidden)[:chosen] for _ in range(2)),
            np.arange(first, first + classes),
        ]
        rows += [
            (
                task,
                layer,
                epoch,
                layers[layer + 1],
                layers[layer],
                random.random((len(layers[layer + 1]), len(layers[layer]))) < 0.3,
            )
            for epoch in range(epochs + 1)
            for layer in range(3)
        ]
    columns = zip(*rows, strict=True)
    names = ("task", "layer", "epoch", "targets", "sources", "mask")
    result.trace["masks"] = dict(zip(names, map(list, columns), strict=True))
    return result


# ---- learning online, and recall

BATCHES, STEPS, RECALLED = (4, 4, 3), 3, 5  # batches a task, steps on the images, images a batch


def online(method="arm", seed=0, *, lag=None, batches=BATCHES, side=8, counts=None, **options):
    """A Result with the trace tables of ARM: random numbers of the right shapes."""
    result = made(method, seed, **options)
    random, K, T = np.random.default_rng([seed, 7]), sum(result.classes_per_task), result.tasks
    task = np.repeat(np.arange(T), batches)
    step = np.concatenate([np.arange(b) for b in batches])
    rows = np.flatnonzero(step % 2 == 0)
    output = random.dirichlet(np.ones(K), len(task)).astype(np.float32)
    output[task == 0] = np.nan
    result.about["config"] = {
        "lag": lag,
        "recall": "arm",
        "divergence_weight": 2.0,
        "local_old": 1.0,
        "local_new": 0.1,
        "diversity": 16.0,
        "confidence": 0.0,
        "l2": 1.0,
        "tv": 1.0,
        "target": 1.0,
        "bn_loss": 0.0,
    }
    terms = {t: random.random((len(task), STEPS)).astype(np.float32) for t in TERMS}
    terms["target"][:] = terms["bn_loss"][:] = 0
    for values in terms.values():
        values[task == 0] = np.nan
    n = [0 if t == 0 else RECALLED for t in task[rows]]
    result.trace = {
        "loss": {"task": task, "step": step, "loss": random.random(len(task))},
        "progress": {"task": task[rows], "step": step[rows], "accuracy": random.random((len(rows), T))},
        "recall": {"task": task, "step": step, "output": output},
        "objective": {"task": task, "step": step, **terms},
        "images": {
            "task": task[rows],
            "step": step[rows],
            "start": [random.random((k, 1, side, side)) for k in n],
            "recalled": [random.normal(size=(k, 1, side, side)) for k in n],
            "origins": [random.integers(0, K, k) for k in n],
            "counts": [np.ones(k) if counts is None else np.array(counts[:k]) for k in n],
            "probs": [random.dirichlet(np.ones(K), k) for k in n],
        },
        "gradients": cosines(random),
    }
    return result


CONDITIONS = ("hard", "soft", "control hard", "control soft")


def cosines(random, groups=("FC1", "FC2", "All")):
    """A trace table "gradients" of random numbers."""
    rows = [
        (condition, which, group)
        for condition in CONDITIONS
        for which in ("class 1", "class 2")
        for group in groups
    ]
    columns = {name: np.array(column) for name, column in zip(("condition", "which", "group"), zip(*rows))}
    return columns | {
        "mean": random.random(len(rows)),
        "deviation": random.random(len(rows)),
        "values": np.array([600 if g == "All" else 200 for *_, g in rows]),
        "left_out": np.zeros(len(rows), int),
    }


def several_online(n=3, **options):
    """`online` for the seeds from 0 to n - 1."""
    return [online(seed=seed, **options) for seed in range(n)]


# ---- generative memories

SHOWN, UNITS, EPOCHS = 8, (8, 6, 4), 5  # images of each class, channels of three masked layers, epochs a task


def generative(method="dgmw", seed=0, *, fixed=True, grows=True, kept=True, side=16, **options):
    """A Result with the trace tables of a generator: random numbers of the right shapes.

    fixed: the images of a class stay what they were when it was learned.   grows: with the tables of masks
    and growth.   kept: with images and masks, as the first seed has them.
    """
    result = made(method, seed, **options)
    random = np.random.default_rng([seed, 11, sum(map(ord, method))])
    K, R = sum(result.classes_per_task), len(result.seen)
    unseen = np.arange(K) >= result.seen[:, None]
    accuracy = np.tile(random.uniform(0.6, 1, K), (R, 1))
    images = np.tile(random.integers(0, 256, (K, SHOWN, 1, side, side), dtype=np.uint8), (R, 1, 1, 1, 1, 1))
    if not fixed:
        accuracy = accuracy * np.linspace(1, 0.5, R)[:, None]
        images = images + np.arange(R, dtype=np.uint8)[:, None, None, None, None, None]
    accuracy[unseen], images[unseen] = np.nan, 0
    result.trace["generated"] = {"task": np.arange(R), "accuracy": accuracy, "judge": np.full(R, 0.98)}
    if kept:
        result.trace["generated"]["images"] = images
    if grows:
        result.trace |= _growing(random, R, kept)
    result.memory_bytes["generators"] = np.full(R, 400_000)
    result.about["config"]["epochs"] = EPOCHS
    result.trace["progress"] = by_epoch(result)
    return result


def begun(result, tasks):
    """The Result of a run that ended after so many tasks."""

    def first(rows, which):
        return rows[which] if isinstance(rows, np.ndarray) else [rows[i] for i in which]

    rows = "seen predictions rank learn_seconds test_seconds n_samples parameters".split()
    parts = {name: getattr(result, name)[:tasks] for name in rows}
    trace = {}
    for table, columns in result.trace.items():
        which = np.flatnonzero(np.asarray(columns["task"]) < tasks)
        trace[table] = {name: first(values, which) for name, values in columns.items()}
    return dataclasses.replace(
        result,
        about=result.about | {"first_tasks": tasks},
        predictions_task_aware=result.predictions_task_aware[: tasks + 1],
        memory_bytes={kind: sizes[:tasks] for kind, sizes in result.memory_bytes.items()},
        trace=trace,
        **parts,
    )


def by_epoch(result):
    """A trace table "progress" of accuracy by epoch; in the last epoch of a task it is that of the result."""
    random, final, R = np.random.default_rng([result.about["seed"], 13]), result.accuracy(), len(result.seen)
    test = np.repeat(final, EPOCHS, axis=0)  # (R E, T)
    earlier = np.tile(np.arange(EPOCHS) < EPOCHS - 1, R)
    test[earlier] *= random.uniform(0.7, 1, (earlier.sum(), 1))
    validation = np.where(np.isnan(test), np.nan, random.uniform(0.3, 1, test.shape))
    task, epoch = np.repeat(np.arange(R), EPOCHS), np.tile(np.arange(EPOCHS), R)
    return {"task": task, "epoch": epoch, "validation": validation, "test": test}


def _growing(random, tasks, kept):
    """The trace tables "capacity", "growth" and "masks" of random masks of channels."""
    widths, capacity, growth, masks = np.array(UNITS), [], [], []
    reserved = np.zeros(3, dtype=int)
    for t in range(tasks):
        new = np.array([random.integers(1, 4) for _ in UNITS])
        reused = np.array([random.integers(0, r + 1) for r in reserved])
        for l in range(3):
            unused = widths[l] - new[l] - reused[l]
            capacity.append((t, l, new[l], reused[l], unused, widths[l], new[l]))
            for epoch in range(EPOCHS):
                ends = np.where(np.arange(widths[l]) < new[l] + reused[l], 1.0, 0.0)
                values = 0.5 + (ends - 0.5) * epoch / (EPOCHS - 1)
                masks.append((t, l, epoch, 1.0 + epoch, values, values.mean()))
        after = widths + new
        row = [widths.sum(), 100 * widths.sum(), after.sum(), 100 * after.sum(), sum(UNITS)]
        growth.append((t, *row, *(1000 * (t + 1) * k for k in (9, 1, 2, 4, 7, 3))))
        reserved, widths = reserved + new, after
    columns = {
        "capacity": (capacity, "task layer new reused unused width grown"),
        "growth": (
            growth,
            "task units weights units_after weights_after start "
            "weight_bytes task_bytes bit_bytes index_bytes coo_bytes logit_bytes",
        ),
        "masks": (masks, "task layer epoch scale values mean"),
    }
    found = {
        table: {name: list(column) for name, column in zip(names.split(), zip(*rows), strict=True)}
        for table, (rows, names) in columns.items()
        if kept or table != "masks"
    }
    return {t: {c: v if c == "values" else np.array(v) for c, v in cs.items()} for t, cs in found.items()}


# ---- the fine-grained report, and a generator made from a network

STEPS_OF_G, LAYERS_OF_G = (0, 50, 100, 199), 5  # recorded steps of a generator, batch normalisations


def fine_grained(method="mfgr", seed=0, *, generator=True, each=14, kept=True, side=8, **options):
    """A Result with the trace table "fine", and with a generator those of MFGR: random numbers.

    each: features of each of the first classes.   kept: with features and images, as the first seed has them.
    """
    result = made(method, seed, **options)
    random = np.random.default_rng([seed, 17, sum(map(ord, method))])
    K, R, seen = len(result.names), len(result.seen), result.seen
    unseen = np.arange(K) >= seen[:, None]
    fine = {name: random.uniform(0.3, 1, (R, K)) for name in ("accuracy", "within", "projected")}
    for values in fine.values():
        values[unseen] = np.nan
    fine["projected"] /= np.nansum(fine["projected"], axis=1, keepdims=True)
    fine["projected"][-1] = np.nan
    fine |= {name: np.r_[np.nan, random.uniform(0, 1, R - 1)] for name in ("old_to_new", "new_to_old")}
    if kept:
        shown = np.repeat(np.arange(min(int(seen[0]), 10)), each)
        fine["apart"] = random.uniform(0, 0.1, (R, K, K))
        fine["labels"] = [shown if stage < 2 else shown[:0] for stage in range(R)]
        fine["features"] = [random.normal(size=(len(y), 4)) + y[:, None] for y in fine["labels"]]
        pictures = random.integers(0, 256, (len(shown) // each * 8, 1, side, side), dtype=np.uint8)
        fine["pictures"] = [pictures, *(pictures[:0] for _ in range(R - 1))]
    result.trace["fine"] = {"task": np.arange(R), **fine}
    if generator:
        result.trace |= _generator(random, K, R, kept, side)
    return result


def _generator(random, K, R, kept, side):
    """The trace tables of stage 1 of MFGR, of each task but the first."""
    task, step = np.repeat(np.arange(1, R), len(STEPS_OF_G)), np.tile(STEPS_OF_G, R - 1)
    terms = {name: random.uniform(0, 4, len(task)) for name in "loss oh cd bn div act tv".split()}
    found = {
        "recording": {"task": task, "step": step, **terms, "confidence": random.uniform(0, 1, len(task))}
    }
    if kept:
        found["recording"]["gaps"] = random.uniform(0, 3, (len(task), LAYERS_OF_G))
        images = random.integers(0, 256, (len(task), 16, 1, side, side), dtype=np.uint8)
        labels = random.integers(0, K, (len(task), 16))
        found["images"] = {"task": task, "step": step, "images": images, "labels": labels}
    samples = {name: random.uniform(0.1, 1, (R - 1, K)) for name in ("confidence", "spread", "divergence")}
    samples |= {"task": np.arange(1, R), "counts": random.integers(20, 40, (R - 1, K))}
    if kept:
        samples["images"] = random.integers(0, 256, (R - 1, K, 8, 1, side, side), dtype=np.uint8)
    return found | {"samples": samples}


# ---- representations

LAYERS = ("Conv1", "Conv2", "logits")


def compared(method="er", seed=0, layers=LAYERS, **options):
    """A Result with the trace table "similarity": random numbers above the diagonal of tasks."""
    result = made(method, seed, **options)
    random, T = np.random.default_rng([seed, 13, sum(map(ord, method))]), len(result.seen)
    above = np.tril(np.full((T, T), np.nan), -1)
    values = {name: random.uniform(0.2, 0.9, (len(layers), T, T)) + above for name in ("svcca", "cka")}
    for square in values.values():
        square[:, range(T), range(T)] = 1
    values["floor"] = 0.2 * values["svcca"] ** 0.1
    kept = np.full((len(layers), T, T, 2), 4)
    columns = {"layer": np.array(layers), "kept": kept, "n": np.full((len(layers), T), 90)}
    result.trace["similarity"] = columns | values
    return result


def recalling(method="gfr", seed=0, *, each=4, width=3, recalls=True, **options):
    """A `compared` Result with the trace table "features" of clkit.analysis.features."""
    result = compared(method, seed, **options)
    random, classes = np.random.default_rng([seed, 29]), len(result.names)
    rows, stages = {}, len(result.seen)
    for stage, seen in enumerate(result.seen.tolist()):
        known = seen if stage < stages - 1 else int(result.seen[-2])
        labels = np.repeat(np.arange(min(10, seen)), each)
        real = random.normal(size=(len(labels), width)) + 3 * labels[:, None]
        means = np.full((classes, width), np.nan)
        means[:seen] = 3.0 * np.arange(1, seen + 1)[:, None] + random.normal(size=(seen, width)) * stage
        recognised = np.full(classes, np.nan)
        if recalls:
            recognised[:known] = random.uniform(0.5, 1, known)
        drawn = real[labels < known] + 0.5 if recalls else np.zeros((0, width))
        row = {"labels": labels, "real": real, "generated": drawn, "means": means, "recognised": recognised}
        for name, value in (row | {"future": np.array(0.0)}).items():
            rows.setdefault(name, []).append(value)
    result.trace["features"] = {"task": np.arange(stages), **rows}
    return result


# ---- parts of a drawing


def line(ax, label):
    """The line with this label on the axes."""
    return next(one for one in ax.get_lines() if one.get_label() == label)


def stamp_of(figure):
    """The Text that `plots.stamp` added to a figure, or None."""
    return next((t for t in figure.findobj(matplotlib.text.Text) if t.get_gid() == "stamp"), None)


def class_folders(folder):
    """A folder of six classes of uniform 12x12 colour images: 8 for training and 4 for testing."""
    from PIL import Image

    for part, n in (("train", 8), ("test", 4)):
        for k, name in enumerate(("aster", "bluebell", "crocus", "daisy", "erica", "foxglove")):
            (folder / part / name).mkdir(parents=True)
            for i in range(n):
                image = Image.fromarray(np.full((12, 12, 3), 40 * k + i, np.uint8))
                image.save(folder / part / name / f"{i}.png")
    return folder
