"""From the name of a benchmark to its Stream: those of the papers, and any data set of the user's."""

from functools import lru_cache

from clkit import papers
from clkit.errors import ClkitError, did_you_mean
from clkit.papers import Benchmark

OWN = "own"  # the size of an experiment on the user's own data
TASK_COUNTS = (5, 4, 3, 2)  # tried in this order where the user names no tasks


class PresetError(ClkitError):
    """A name, setting or record that cannot be used; one sentence says what to do."""


def stream(benchmark: str, preset: str = "teach", seed: int = 0):
    """The Stream of a paper's benchmark in one of its sizes. DataError if its data are not there.

    seed: of the run, which matters only where the benchmark has another order for each.
    """
    known = papers.benchmarks()
    if benchmark not in known:
        near = did_you_mean(benchmark, known)
        raise PresetError(f"there is no benchmark '{benchmark}'{near}; `python -m clkit list` shows all")
    return stream_of(papers.benchmark(benchmark, checked_preset(preset)), seed)


def checked_preset(preset: str) -> str:
    """The preset, if there is one of that name; PresetError otherwise."""
    if preset not in papers.PRESETS:
        raise PresetError(
            f"there is no preset '{preset}'{did_you_mean(preset, papers.PRESETS)}: "
            f"use {', '.join(papers.PRESETS[:-1])} or {papers.PRESETS[-1]}"
        )
    return preset


def stream_of(row: Benchmark, seed: int = 0):
    """The Stream of a Benchmark; the one built last is kept, because seeds of one experiment share it."""
    return _stream(_Hashed(row), seed if row.shuffle_classes or row.shuffle_images else None)


class _Hashed:
    """A Benchmark as a key: its dictionaries have no hash of their own."""

    def __init__(self, row):
        self.row, self.text = row, repr(row)

    def __hash__(self):
        return hash(self.text)

    def __eq__(self, other):
        return self.text == other.text


@lru_cache(maxsize=2)
def _stream(hashed, seed):
    from clkit.data import Stream, load, stratified_split

    row = hashed.row
    train, test = load(row.data, **row.options)
    if row.eval_on_val:
        train, test = (train.select(part) for part in stratified_split(train.labels, row.eval_on_val, 0))
    order = seed if row.shuffle_classes else row.order
    if row.interleave_families:  # siblings 0 of all families, then siblings 1, ...
        families = list(dict.fromkeys(train.groups))
        members = [[c for c, g in enumerate(train.groups) if g == f] for f in families]
        order = [m[i] for i in range(len(members[0])) for m in members]
    options = {"shuffle_images": seed} if row.shuffle_images else {}
    return Stream(train, test, row.classes_per_task, order=order, **row.stream, **options)


# ---- the user's own data


def own_benchmark(data: str, tasks=None, order=None, options=None) -> Benchmark:
    """The Benchmark of a data set that no paper has: a name that data.load knows, or folder:PATH.

    tasks: classes of each task; None: equal tasks, as many as divide the classes, five at most.   order: None
    for the classes' own, a seed, or a list of classes.   options: of data.load, such as {"side": 32}.
    """
    from clkit.data import load

    options = dict(options or {})
    train, _ = load(data, **options)
    if tasks is None:
        count = next((t for t in TASK_COUNTS if train.classes % t == 0 and train.classes // t > 1), None)
        if count is None:
            raise PresetError(
                f"{data} has {train.classes} classes, which do not make two to five equal tasks: say "
                f"how many come in each with --tasks, such as --tasks {train.classes - 1},1"
            )
        tasks = (train.classes // count,) * count
    return Benchmark(data, tuple(tasks), options, order=tuple(order) if isinstance(order, list) else order)


def sensible_net(data: str, options) -> str:
    """The network for images of a size: mlp for small grey ones, convnet up to 64 pixels, then resnet18."""
    from clkit.data import load

    channels, height, width = load(data, **options)[0].shape
    if channels == 1 and max(height, width) <= 32:
        return "mlp"
    return "convnet" if max(height, width) <= 64 else "resnet18"
