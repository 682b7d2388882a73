"""Records: several seeds of one experiment as two small files, without weights and images.

STEM.json is for readers: it holds the headline scores, what was run, and for each seed only what differs
between seeds. STEM.npz holds the arrays, readable by np.load: each array of a Result under its name, with the
seeds stacked along axis 0, and likewise memory_bytes/KIND and trace/TABLE/COLUMN; `labels` (N,) is stored
once if all seeds have the same. The labels are in the order of the test images; predictions,
predictions_task_aware and rank hold these images sorted by class (stably), which halves the file:
``a["predictions"] == np.sort(a["labels"])`` shows which are correct. Arrays that only some seeds have, or
have in another shape, are stored as seed-SEED/NAME. Whole numbers are stored in the smallest type that holds
them; the JSON names the type to restore. Rows of different shapes are stored end to end in #values, with
their #shapes.

The JSON is written last and holds the sha256 of the npz, so `load` notices if writing stopped between the two
files or if the files of two records were mixed.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import io
import json
import math
import os
import zipfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np

from clkit.errors import file_error
from clkit.result.interval import interval
from clkit.result.result import Result, ResultError, checked

FORMAT = 2
PART = ".part"  # ends the name of a file that is being written
Arrays = dict[str, np.ndarray]
Trace = dict[str, dict[str, Any]]  # table -> column -> rows
_BY_IMAGE = "predictions predictions_task_aware rank".split()
_ARRAYS = ["labels", "seen", *_BY_IMAGE, *"learn_seconds test_seconds n_samples parameters".split()]
_INTEGERS = (np.uint8, np.int8, np.uint16, np.int16, np.uint32, np.int32)


# ---- the headline scores


def _spread(values):
    """Mean, interval and single values as JSON values."""
    i = interval(values)
    ends = None if math.isnan(i.half) else [i.mean - i.half, i.mean + i.half]
    per_seed = [_json(v) for v in values]
    return {"mean": _json(i.mean), "interval": ends, "kind": i.kind, "n": i.n, "per_seed": per_seed}


def _json(number):
    """A number as JSON: NaN, which JSON lacks, becomes null."""
    return None if math.isnan(number) else float(number)


def summary(results: Sequence[Result]) -> dict[str, Any]:
    """Several seeds of one experiment as plain values: what ``python -m clkit run --json`` prints."""
    if not results:
        raise ResultError("there are no results to summarise: give at least one")
    about, matrix = results[0].about, np.mean([r.accuracy() for r in results], axis=0)
    seconds = [(float(r.learn_seconds.sum()), float(r.test_seconds.sum())) for r in results]
    speeds = [r.samples_per_second() for r in results]
    return {
        **{k: about.get(k) for k in ("experiment", "preset", "config", "stream")},
        "seeds": [r.about["seed"] for r in results],
        "average_accuracy": _spread([r.average() for r in results]),
        "average_accuracy_over_images": _spread([r.average("images") for r in results]),
        "average_accuracy_class_means": _spread([r.average(task_mean="classes") for r in results]),
        "forgetting": _spread([r.forgetting() for r in results]),
        "task_aware_accuracy": _spread([r.task_aware_average() for r in results]),
        "backward_transfer": _spread([r.backward_transfer() for r in results]),
        "forward_transfer": _spread([r.forward_transfer() for r in results]),
        "accuracy_matrix": [[_json(v) for v in row] for row in matrix],
        "memory_bytes": {kind: int(v[-1]) for kind, v in results[0].memory_bytes.items()},
        "parameters": int(results[0].parameters[-1]),
        "seconds": {
            "learn": sum(learn for learn, _ in seconds),
            "test": sum(test for _, test in seconds),
            "per_seed": [learn + test for learn, test in seconds],
        },
        "samples_per_second": {what: float(np.mean([s[what] for s in speeds])) for what in ("learn", "test")},
        **{k: about.get(k) for k in ("device", "cpu", "versions", "key", "commit", "date")},
    }


# ---- files


def write_atomically(path: str | Path, write: Callable[[IO[bytes]], Any]) -> None:
    """Call write(binary file) on a temporary file and rename it, so that `path` is never incomplete.

    A failure leaves `path` unchanged and no temporary file; FileError if the system refuses, as a full disk
    does. The umask decides who may read the file.
    """
    write_together({Path(path): write})


def write_together(files: Mapping[Path, Callable[[IO[bytes]], Any]]) -> None:
    """`write_atomically` for several files: none is renamed before all are written."""
    parts = {path: path.with_name(f".{path.name}.{os.urandom(4).hex()}{PART}") for path in files}
    try:
        for path, part in parts.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            with open(part, "xb") as file:
                files[path](file)
                file.flush()
                _sync(file)
        for path, part in parts.items():
            os.replace(part, path)
    except OSError as error:
        raise file_error(path, "written", error) from error
    finally:
        for part in parts.values():
            with contextlib.suppress(OSError):  # after success it has been renamed
                part.unlink()


def _sync(file):
    """Bring a file to the disk, where its file system can be asked to."""
    try:
        os.fsync(file.fileno())
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP):
            raise


def pack_trace(trace: Trace) -> Arrays:
    """Tables as flat arrays for an npz: rows of equal shape are stacked, others stored end to end."""
    flat: Arrays = {}
    for table, columns in trace.items():
        for column, rows in columns.items():
            rows = rows if isinstance(rows, np.ndarray) else [np.asarray(r) for r in rows]
            if isinstance(rows, np.ndarray) or len({(r.shape, r.dtype) for r in rows}) == 1:
                flat[f"{table}/{column}"] = np.asarray(rows)
            else:
                flat[f"{table}/{column}#values"] = np.concatenate([r.ravel() for r in rows])
                flat[f"{table}/{column}#shapes"] = np.array([" ".join(map(str, r.shape)) for r in rows])
    return flat


def unpack_trace(flat: Arrays) -> Trace:
    """The inverse of `pack_trace`: table -> column -> array (rows, ...) or list of arrays."""
    trace: Trace = {}
    for key, values in flat.items():
        table, column = key.rsplit("/", 1)
        column, _, part = column.partition("#")
        if part == "shapes":
            continue
        if part == "values":
            shapes = [tuple(map(int, s.split())) for s in flat[f"{table}/{column}#shapes"].tolist()]
            ends = np.cumsum([math.prod(s) for s in shapes])[:-1]
            values = [v.reshape(s) for v, s in zip(np.split(values, ends), shapes)]
        trace.setdefault(table, {})[column] = values
    return trace


# ---- the record


def save(results: Sequence[Result], stem: str | Path, replace: bool = False, level: int = 9) -> Path:
    """Write seeds of one experiment as the record stem.json + stem.npz. Returns the JSON's path.

    level: of zlib, 1 to 9; 9 suits files that are kept in a repository, and takes seconds.
    ResultError if a seed occurs twice, or if an existing record would lose a seed, unless replace=True.
    """
    stem = Path(stem)
    seeds = [r.about["seed"] for r in results]
    if len(set(seeds)) < len(seeds):
        raise ResultError(f"the seeds {seeds} of {stem.name} are not distinct: a record holds each seed once")
    if not replace:
        check_replaces(stem, seeds)
    arrays, types = _shrunk(_stacked(dict(zip(seeds, map(_flat, results)))))
    packed = _packed(arrays, level)
    told = ("config", "stream", "versions", "key", "cpu")  # in full under "about"
    common, own = _factored([_head(r) for r in results])
    head = {
        "format": FORMAT,
        "summary": {k: v for k, v in summary(results).items() if k not in told},
        **common,
        "seeds": [{"seed": seed, **rest} for seed, rest in zip(seeds, own)],
        "types": types,
        "npz_sha256": hashlib.sha256(packed).hexdigest(),
    }
    json_path, npz_path = _paths(stem)
    text = (_pretty(head) + "\n").encode()
    write_together({npz_path: lambda file: file.write(packed), json_path: lambda file: file.write(text)})
    return json_path


def check_replaces(stem: str | Path, seeds: Iterable[int]) -> None:
    """ResultError if a new record of `seeds` would lose seeds of the existing record at `stem`.

    To be called before hours of computing. A record that cannot be read counts as absent.
    """
    try:
        lost = sorted({r.about["seed"] for r in load(stem)} - set(seeds))
    except ResultError:
        return
    if lost:
        lost = ", ".join(map(str, lost))
        raise ResultError(
            f"the record {stem} has the seeds {lost}, which would be lost: run these seeds too, add "
            f"yours to them (--add), write to another folder, or delete the record"
        )


def load(stem: str | Path, trace: bool = True) -> list[Result]:
    """Read a record: a list of Results, one per seed. ResultError if it is absent or damaged.

    trace: whether to read the trace tables as well, which takes most of the time.
    """
    json_path, npz_path = _paths(stem)
    for path in (json_path, npz_path):
        if not path.is_file():
            raise ResultError(
                f"there is no result at {path}: a record is a .json and an .npz file of the same name"
            )
    try:
        head = json.loads(json_path.read_text(encoding="utf-8"))
        if head["format"] != FORMAT:
            raise ResultError(
                f"{json_path} has record format {head['format']}, but this clkit reads {FORMAT}: run it again"
            )
        packed = npz_path.read_bytes()
        if hashlib.sha256(packed).hexdigest() != head["npz_sha256"]:
            raise ResultError(
                f"{npz_path} is not the file that {json_path.name} was written with (it is damaged, writing "
                f"was interrupted, or two records are mixed): delete both files and run it again"
            )
        results = _unpacked(head, packed, trace)
    except ResultError:
        raise
    except OSError as error:
        raise file_error(json_path.with_suffix(""), "read", error) from error
    except MemoryError:
        raise ResultError(f"there is not enough memory to read {json_path}: close other programs") from None
    except Exception as error:  # json, zip and numpy raise different kinds
        raise ResultError(_damaged(json_path, type(error).__name__)) from None
    try:
        if not results:
            raise ResultError("it holds no seed")
        return [checked(r) for r in results]
    except (ResultError, AttributeError, TypeError, ValueError) as error:
        raise ResultError(_damaged(json_path, error)) from None


def _damaged(json_path, fault):
    return f"the result at {json_path.with_suffix('')} is damaged ({fault}): delete it and run it again"


def _unpacked(head, packed, trace):
    """The Results in a record: its JSON, and the bytes of its npz."""
    with np.load(io.BytesIO(packed), allow_pickle=False) as arrays:
        types = {name: kind for kind, names in head["types"].items() for name in names}
        names = [k for k in arrays.files if trace or "trace/" not in k]
        stored = {k: (a := arrays[k]).astype(types.get(k, a.dtype)) for k in names}
    common = {k: head[k] for k in ("about", "classes_per_task", "names", "groups") if k in head}
    return [_read(_merged(common, own), i, stored) for i, own in enumerate(head["seeds"])]


def check_summary(stem: str | Path, results: Sequence[Result]) -> None:
    """ResultError if a number in the JSON of a record is not that of its arrays, as after an edit by hand."""
    path = _paths(stem)[0]
    told, now = (
        json.loads(path.read_text(encoding="utf-8")).get("summary") or {"seeds": None},
        summary(results),
    )
    wrong = [k for k in told if k in now and not _agree(told[k], json.loads(json.dumps(now[k])))]
    if wrong:
        raise ResultError(
            f"{path} says another {wrong[0]} than its arrays: it was edited; restore it, or run it again"
        )


def _agree(a: Any, b: Any) -> bool:
    """Whether two JSON values are equal, numbers up to the rounding of other versions of numpy and scipy."""
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(_agree(a[k], b[k]) for k in a)
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(map(_agree, a, b))
    if isinstance(a, float) and isinstance(b, float):
        return math.isclose(a, b, rel_tol=1e-6, abs_tol=1e-9)
    return a == b


def _paths(stem):
    """The two files of a record; the stem may contain dots and end in .json or .npz."""
    stem = Path(stem)
    stem = stem.with_suffix("") if stem.suffix in (".json", ".npz") else stem
    return stem.with_name(stem.name + ".json"), stem.with_name(stem.name + ".npz")


# ---- the JSON


def _head(r: Result):
    about = {k: v for k, v in r.about.items() if k != "seed"}
    head = {"about": about, "classes_per_task": r.classes_per_task, "names": r.names, "groups": r.groups}
    return json.loads(json.dumps(head))


def _factored(dicts: list[dict]) -> tuple[dict, list[dict]]:
    """(what all dictionaries have in common, at any depth; the rest of each); see `_merged`."""
    common, own = {}, [dict(d) for d in dicts]
    for key in dicts[0]:
        if not all(key in d for d in dicts):
            continue
        values = [d[key] for d in dicts]
        if all(v == values[0] for v in values):
            common[key] = values[0]
            rests = [None] * len(dicts)
        elif all(isinstance(v, dict) for v in values):
            common[key], rests = _factored(values)
        else:
            continue
        for d, rest in zip(own, rests):
            if rest:
                d[key] = rest
            else:
                del d[key]
    return common, own


def _merged(common: dict, own: dict) -> dict:
    """The inverse of `_factored`, for one of the dictionaries."""
    both = dict(common)
    for key, value in own.items():
        deeper = isinstance(value, dict) and isinstance(common.get(key), dict)
        both[key] = _merged(common[key], value) if deeper else value
    return both


def _pretty(value: Any, depth: int = 0) -> str:
    """JSON with what fits on a line, and every list of plain values, on one line."""
    line = json.dumps(value, ensure_ascii=False)
    plain = isinstance(value, list) and not any(isinstance(v, dict | list) for v in value)
    if plain or not isinstance(value, dict | list) or len(line) + depth <= 100:
        return line
    inner, named = "\n" + " " * (depth + 1), isinstance(value, dict)
    items = [_pretty(v, depth + 1) for v in (value.values() if named else value)]
    if named:
        items = [f"{json.dumps(k, ensure_ascii=False)}: {item}" for k, item in zip(value, items)]
    begin, end = "{}" if named else "[]"
    return begin + inner + f",{inner}".join(items) + inner[:-1] + end


# ---- the arrays


def _packed(arrays: Arrays, level: int) -> bytes:
    """The bytes that np.savez_compressed writes, at this level of zlib."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED, compresslevel=level) as file:
        for name, a in arrays.items():
            with file.open(f"{name}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, np.ascontiguousarray(a), allow_pickle=False)
    return packed.getvalue()


def _flat(r: Result) -> Arrays:
    """All arrays of one seed by name; those over test images are sorted by class."""
    by_class = np.argsort(r.labels, kind="stable")
    return {
        **{a: getattr(r, a)[..., by_class] if a in _BY_IMAGE else getattr(r, a) for a in _ARRAYS},
        **{f"memory_bytes/{k}": v for k, v in r.memory_bytes.items()},
        **{f"trace/{k}": v for k, v in pack_trace(r.trace).items()},
    }


def _stacked(by_seed: dict[int, Arrays]) -> Arrays:
    """Arrays of several seeds in one dictionary, as described at the top of this file."""
    stored: Arrays = {}
    for name in dict.fromkeys(name for flat in by_seed.values() for name in flat):
        having = {seed: np.asarray(flat[name]) for seed, flat in by_seed.items() if name in flat}
        rows = list(having.values())
        if len(rows) < len(by_seed) or len({(a.shape, a.dtype) for a in rows}) > 1:
            stored |= {f"seed-{seed}/{name}": a for seed, a in having.items()}
            continue
        stored[name] = np.stack(rows)
        if name == "labels" and (stored[name] == rows[0]).all():
            stored[name] = rows[0]
    return stored


def _shrunk(arrays: Arrays) -> tuple[Arrays, dict[str, list[str]]]:
    """(the arrays with whole numbers in the smallest type that holds them, {original type: names})."""
    small, types = dict(arrays), {}
    for name, a in arrays.items():
        if a.dtype.kind not in "iu" or not a.size:
            continue
        low, high = int(a.min()), int(a.max())
        fits = (np.dtype(t) for t in _INTEGERS if np.iinfo(t).min <= low and high <= np.iinfo(t).max)
        best = next(fits, a.dtype)
        if best.itemsize < a.dtype.itemsize:
            small[name] = a.astype(best)
            types.setdefault(str(a.dtype), []).append(name)
    return small, types


def _read(head: dict[str, Any], i: int, stored: Arrays) -> Result:
    """Seed number i of a record, from the arrays that `_stacked` made."""

    def under(prefix, arrays):
        return {k[len(prefix) :]: a for k, a in arrays.items() if k.startswith(prefix)}

    shared = {k: a for k, a in stored.items() if not k.startswith("seed-")}
    flat = {k: a if k == "labels" and a.ndim == 1 else a[i] for k, a in shared.items()}
    flat |= under(f"seed-{head['seed']}/", stored)
    as_tested = np.argsort(np.argsort(flat["labels"], kind="stable"), kind="stable")
    flat |= {name: np.ascontiguousarray(flat[name][..., as_tested]) for name in _BY_IMAGE}
    return Result(
        {**head["about"], "seed": head["seed"]},
        tuple(head["classes_per_task"]),
        head["names"],
        head["groups"],
        **{a: flat[a] for a in _ARRAYS},
        memory_bytes=under("memory_bytes/", flat),
        trace=unpack_trace(under("trace/", flat)),
    )
