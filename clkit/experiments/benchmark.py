"""From the name of a benchmark to its Stream: benchmarks of the papers, and the user's own data."""

from functools import lru_cache

from clkit import papers
from clkit.errors import ClkitError, did_you_mean
from clkit.papers import Benchmark

OWN = "own"  # the preset of an experiment on the user's own data
TASK_COUNTS = (5, 4, 3, 2)  # tried in this order if the user gives no tasks


class PresetError(ClkitError):
    """A name, setting or record that cannot be used; the message is one sentence that says what to do."""


def stream(benchmark: str, preset: str = "teach", seed: int = 0):
    """The Stream of a paper's benchmark at a preset. DataError if its data are not on this machine.

    seed: of the run; it matters only if the benchmark has a different order for each seed.
    """
    known = papers.benchmarks()
    if benchmark not in known:
        near = did_you_mean(benchmark, known)
        raise PresetError(f"there is no benchmark '{benchmark}'{near}; `python -m clkit list` shows all")
    return stream_of(papers.benchmark(benchmark, checked_preset(preset)), seed)


def checked_preset(preset: str) -> str:
    """The preset itself; PresetError if there is none of that name."""
    if preset not in papers.PRESETS:
        raise PresetError(
            f"there is no preset '{preset}'{did_you_mean(preset, papers.PRESETS)}: "
            f"use {', '.join(papers.PRESETS[:-1])} or {papers.PRESETS[-1]}"
        )
    return preset


def stream_of(row: Benchmark, seed: int = 0):
    """The Stream of a Benchmark; the latest ones are cached, because the seeds of an experiment share it.

    A cached stream whose images or labels somebody has written into is made anew.
    """
    key = _Hashed(row), seed if row.shuffle_classes or row.shuffle_images else None
    found, digest = _stream(*key)
    if found.digest() != digest:  # a tenth of a second for CIFAR; a copy for each caller would take memory
        _stream.cache_clear()
        found, _ = _stream(*key)
    return found


class _Hashed:
    """A Benchmark as a cache key: its dictionaries are not hashable."""

    def __init__(self, row):
        self.row, self.text = row, repr(row)

    def __hash__(self):
        return hash(self.text)

    def __eq__(self, other):
        return self.text == other.text


@lru_cache(maxsize=2)
def _stream(hashed, seed):
    """(Stream, its digest)."""
    from clkit.data import Stream, load, stratified_split

    row = hashed.row
    train, test = load(row.data, **row.options)
    if row.eval_on_val:
        train, test = (train.select(part) for part in stratified_split(train.labels, row.eval_on_val, 0))
    order = seed if row.shuffle_classes else row.order
    if row.interleave_families:  # sibling 0 of every family, then sibling 1, ...
        families = list(dict.fromkeys(train.groups))
        members = [[c for c, g in enumerate(train.groups) if g == f] for f in families]
        order = [m[i] for i in range(len(members[0])) for m in members]
    options = {"shuffle_images": seed} if row.shuffle_images else {}
    made = Stream(train, test, row.classes_per_task, order=order, **row.stream, **options)
    return made, made.digest()


# ---- the user's own data


def own_benchmark(data: str, tasks=None, order=None, options=None) -> Benchmark:
    """The Benchmark of the user's data: a name that data.load knows, or folder:PATH.

    tasks: number of classes in each task; they add up to the classes of the data, or to those that `order`
    lists. None: equal tasks, as many as divide the classes, at most five.   order: None for the data's own
    order, a seed, or a list of classes.   options: of data.load, such as {"side": 32}.
    """
    from clkit.data import load

    options = dict(options or {})
    tasks, order = (x.tolist() if hasattr(x, "tolist") else x for x in (tasks, order))  # of numpy
    order = list(order) if isinstance(order, tuple) else order
    train, _ = load(data, **options)
    if tasks is None:
        count = next((t for t in TASK_COUNTS if train.classes % t == 0 and train.classes // t > 1), None)
        if count is None:
            raise PresetError(
                f"{data} has {train.classes} classes, which cannot be split into two to five equal tasks: "
                f"give the number of classes in each task, such as --tasks {train.classes - 1},1"
            )
        tasks = (train.classes // count,) * count
    _check_total(data, tuple(tasks), len(order) if isinstance(order, list) else train.classes, order)
    return Benchmark(data, tuple(tasks), options, order=tuple(order) if isinstance(order, list) else order)


def _check_total(data, tasks, chosen, order) -> None:
    """PresetError if the tasks of own data have more or fewer classes than the data or the order."""

    def said(sizes):
        return f"--tasks {','.join(map(str, sizes))}"

    total = sum(tasks)
    if total == chosen:
        return
    whose = f"the order lists {chosen}" if isinstance(order, list) else f"{data} has {chosen}"
    cure = f"leave out {total - chosen}"
    if total < chosen:
        cure = f"add the missing {chosen - total}, such as {said((*tasks, chosen - total))}"
        if not isinstance(order, list):
            cure += f", or list the {total} to be learned in a file: --order FILE"
    raise PresetError(f"{said(tasks)} adds up to {total} classes, but {whose}: {cure}")


def sensible_net(data: str, options) -> str:
    """A network for these images: mlp for small grey ones, convnet up to 64 pixels, else resnet18."""
    from clkit.data import load

    channels, height, width = load(data, **options)[0].shape
    if channels == 1 and max(height, width) <= 32:
        return "mlp"
    return "convnet" if max(height, width) <= 64 else "resnet18"
