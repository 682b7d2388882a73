"""The bench gives well-formed numbers at small size; the two checks on torch calls find what they should."""

import json
import math

import numpy as np
import pytest
import torch

from clkit.methods import LEARNERS
from clkit.methods.baselines.finetune import Finetune
from tests.bench import __main__ as bench
from tests.bench.measure import Line, interleaved, line, paired
from tests.bench.rows import COUNTED, ROWS, _count
from tests.modes import FACTORIES, PACKAGE, DeviceFactories, HostSyncs

SMALL = (40, 20)


@pytest.fixture
def report(capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("CLKIT_DATA", str(tmp_path / "nothing here"))

    def run(*words):
        assert bench.main([*words, "--repeats", "1", "--data", "made"], SMALL) == 0
        return capsys.readouterr().out

    return run


# ---- the rows

LINES = {
    "batches": ["ImageSet.batches", "DataLoader(TensorDataset)", "DataLoader(torchvision MNIST)"],
    "finetune": ["hand-written loop (floor)", "Finetune.learn"],
    "imports": ["import torch", "import clkit, clkit.result", "torch modules that clkit, clkit.result load"],
    "memory": [
        "import torch",
        "finetune/split-mnist",
        "beyond torch, against 60 float32 images",
        "beyond torch, against 40 float32 images",
    ],
    "syncs": COUNTED,
    "spacenet": [
        "SpaceNet.learn",
        "readable: whole matrices, masks, autograd",
        "bare products of the compact blocks",
        "a task, stream of 5 tasks",
        "a task, stream of 10 tasks",
        "a task, stream of 20 tasks",
    ],
    "arm": [
        "fast: MLP, M = 10, five tasks",
        "readable: MLP, M = 10, five tasks",
        "bare products: MLP, M = 10, five tasks",
        "fast: ResNet-18, M = 100, one batch",
        "readable: ResNet-18, M = 100, one batch",
    ],
    "dgm": [
        "an iteration with four old classes",
        "reference: full widths, double backward",
        "bare products",
        "critic and generator, 0 old classes",
        "critic and generator, 4 old classes",
        "critic and generator, 9 old classes",
        "classifier for each class, 0 old classes",
        "classifier for each class, 4 old classes",
        "classifier for each class, 9 old classes",
        "peak beyond torch: reference",
        "peak beyond torch",
    ],
    "mfgr": [f"stage {n}, {which}" for n in (1, 2) for which in ("reference", "bf16", "fp32")],
    "gfr": [
        "classifier",
        "classifier, reference",
        "classifier, bare networks",
        "generator",
        "generator, reference",
        "generator, features alone",
        *(
            f"{phase}, paper's network, {how}"
            for phase in ("classifier", "generator")
            for how in ("reference", "bf16", "fp32")
        ),
    ],
    "large": [
        "resized once",
        "loaded again",
        "read in random order",
        "images as bytes",
        "resident after a tenth of the reading",
        "resident at the end, against that",
        "peak beyond the loaded program, against the images",
    ],
}


@pytest.mark.parametrize("name", ROWS)
def test_a_row_gives_well_formed_numbers(name, report):
    found = json.loads(report(name, "--json"))
    assert [one["label"] for one in found["lines"]] == LINES[name]
    assert found["machine"]["torch"] == torch.__version__ and found["machine"]["threads"] == 1
    assert found["machine"]["images"] == list(SMALL)
    for one in found["lines"]:
        assert one["row"] == name and one["n"] >= 1 and one["unit"]
        assert 0 <= one["low"] <= one["median"] <= one["high"] < math.inf
        assert isinstance(one["reached"], bool) == bool(one["target"])
        if one["ratio"]:
            assert 0 < one["ratio"]["low"] <= one["ratio"]["median"] <= one["ratio"]["high"] < math.inf
    assert any(one["target"] for one in found["lines"])
    if name in ("imports", "syncs"):  # these are exact: the same on any machine
        assert all(one["reached"] for one in found["lines"] if one["target"])


def test_the_table_has_a_line_each(report):
    head, titles, *lines, last = report("syncs").splitlines()
    assert "cores" in head and "torch" in head and "median" in titles
    assert [text.split()[:2] for text in lines] == [["syncs", label] for label in LINES["syncs"]]
    assert all("reached" in text for text in lines)
    assert last == f"{len(COUNTED)} of {len(COUNTED)} targets reached"


def test_bad_names_and_absent_data_are_said(capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("CLKIT_DATA", str(tmp_path))
    assert bench.main(["batch"]) == 2
    assert "did you mean batches?" in capsys.readouterr().err
    assert bench.main(["syncs", "--data", "mnist"]) == 2
    assert "there is no MNIST in" in capsys.readouterr().err
    with pytest.raises(SystemExit) as stop:
        bench.main(["--repeats", "0"])
    assert stop.value.code == 2


def test_threads_are_put_back(report):
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        report("syncs")
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


# ---- the arithmetic


def test_a_line_takes_the_median_and_compares_it():
    one = line("row", "label", [3.0, 1.0, 2.0], "s", [6.0, 4.0, 5.0], ">= 5")
    assert (one.median, one.low, one.high, one.n) == (2.0, 1.0, 3.0, 3)
    assert one.ratio == (5.0, 4.0, 6.0) and one.reached
    assert not Line("r", "l", 9, 9, 9, 1, "s", (4.9, 4, 6), ">= 5").reached
    assert not Line("r", "l", 0, 0, 0, 1, "s", (1.2, 1, 2), "<= 1.15").reached
    assert not Line("r", "l", 1, 1, 1, 1, "per step", None, "<= 0").reached
    assert Line("r", "l", 1, 1, 1, 1, "s").reached is None
    assert paired([6.0, 9.0], [2.0, 3.0]) == [3.0, 3.0]


def test_repeats_are_interleaved_and_the_first_turn_is_not_counted():
    calls = []
    parts = {
        name: lambda name=name: calls.append(("prepare", name)) or (lambda: calls.append(name))
        for name in "ab"
    }
    seconds = interleaved(parts, 3)
    assert [c for c in calls if isinstance(c, str)] == list("abbaabba")
    assert all(calls[i] == ("prepare", calls[i + 1]) for i in range(0, len(calls), 2))
    assert {name: len(values) for name, values in seconds.items()} == {"a": 3, "b": 3}


# ---- calls without device


def _as_if_in(path, code):
    """Run code as if it were in a file."""
    exec(compile(code, str(path), "exec"), {"torch": torch, "x": torch.zeros(3, device="cpu")})


# What a factory needs to be called at all, where it is not one whole number.
NEEDS = {
    "empty_permuted": "(2, 3), (0, 1)",
    "empty_strided": "(2, 3), (3, 1)",
    "full": "(3,), 1.0",
    "linspace": "0, 1, 3",
    "logspace": "0, 1, 3",
    "normal": "0.0, 1.0, (3,)",
    "randint": "9, (3,)",
    "tril_indices": "3, 3",
    "triu_indices": "3, 3",
}
SPARSE = {name for name in FACTORIES.values() if name.startswith("sparse_")}


@pytest.mark.parametrize("name", sorted(set(FACTORIES.values()) - SPARSE))
def test_a_factory_without_device_is_caught_in_the_package_only(name):
    call = f"{name}({NEEDS.get(name, 3)})"
    says = rf"example.py:2 torch.{name}\(...\) without device="
    with DeviceFactories() as mode, pytest.raises(AssertionError, match=says):
        _as_if_in(PACKAGE / "methods" / "example.py", f"\ntorch.{call}")
    assert mode.found == [f"example.py:2 torch.{name}"]
    with DeviceFactories() as mode:
        _as_if_in(PACKAGE.parent / "elsewhere.py", f"torch.{call}")
    assert mode.found == []


def test_every_factory_that_torch_itself_knows_is_watched():
    from torch.utils._device import _device_constructors

    unwatched = {f.__name__ for f in _device_constructors()} - {f.__name__ for f in FACTORIES}
    assert unwatched == {"empty_quantized", "nested_tensor", "range"}  # not dispatched, or nothing for us


@pytest.mark.parametrize(
    "code",
    [
        "torch.zeros(2, 3, device='cpu')",
        "torch.zeros(2, device=x.device)",
        "torch.zeros_like(x)",
        "x.new_zeros(2)",
        "torch.tensor([1], device=x.device)",
        "torch.randperm(3, out=torch.empty(3, dtype=torch.int64, device='cpu'))",
        "torch.normal(x, x + 1)",
        "torch.nn.Linear(2, 2)",
        "torch.optim.Adam([x.requires_grad_()], fused=True)",
        "torch.nn.functional.dropout(x)",
        "torch.nn.BatchNorm2d(3)(torch.ones(1, 3, 2, 2, device='cpu'))",
        "[torch.ones(1, device='cpu') for _ in range(2)]",
        "torch.cat([x, x]).cumsum(0).topk(1)",
    ],
)
def test_good_calls_and_those_that_torch_makes_are_left_alone(code):
    with DeviceFactories() as mode:
        _as_if_in(PACKAGE / "methods" / "example.py", code)
    assert mode.found == []


def test_no_device_at_all_and_none_are_the_same():
    with DeviceFactories(), pytest.raises(AssertionError, match="without device="):
        _as_if_in(PACKAGE / "example.py", "torch.zeros(2, device=None)")


def test_a_call_from_an_optimizer_step_of_the_package_is_torch_s_own():
    code = (
        "layer = torch.nn.Linear(3, 1)\no = torch.optim.Adam(layer.parameters(), fused=True)\n"
        "layer(x).backward()\no.step()"
    )
    with DeviceFactories() as mode:
        _as_if_in(PACKAGE / "example.py", code)
    assert mode.found == []


# ---- synchronisations

T = torch.arange(6.0, device="cpu")
ONE = torch.ones((), dtype=torch.int64, device="cpu")


@pytest.mark.parametrize(
    "name, wait",
    [
        ("item", lambda: ONE.item()),
        ("tolist", lambda: T.tolist()),
        ("cpu", lambda: T.cpu()),
        ("numpy", lambda: T.numpy()),
        ("__array__", lambda: np.asarray(T)),
        ("__bool__", lambda: bool(ONE)),
        ("__bool__", lambda: 1 if ONE > 0 else 0),
        ("__bool__", lambda: max(ONE, ONE)),
        ("__float__", lambda: float(ONE)),
        ("__int__", lambda: int(ONE)),
        ("__index__", lambda: [0, 1][ONE]),
        ("__index__", lambda: range(ONE)),
        ("__contains__", lambda: 1.0 in T),
        ("__repr__", lambda: repr(T)),
        ("__format__", lambda: f"{ONE}"),
        ("nonzero", lambda: T.nonzero()),
        ("nonzero", lambda: torch.nonzero(T)),
        ("where", lambda: torch.where(T > 2)),
        ("argwhere", lambda: torch.argwhere(T)),
        ("masked_select", lambda: T.masked_select(T > 2)),
        ("unique", lambda: T.unique()),
        ("equal", lambda: torch.equal(T, T)),
        ("__getitem__", lambda: T[T > 2]),
        ("__getitem__", lambda: T[None][:, T > 2]),
        ("__getitem__", lambda: T[ONE]),
        ("__getitem__", lambda: T[:ONE]),
        ("__getitem__", lambda: T[[True] * 6]),
        ("__setitem__", lambda: T.clone().__setitem__(T > 2, T[:3].clone())),
        ("to", lambda: T.to("cpu")),
        ("index_put", lambda: T.index_put((T > 9,), T[0])),
        ("one_hot", lambda: torch.nn.functional.one_hot(ONE[None])),
        ("repeat_interleave", lambda: T.repeat_interleave(T.long())),
        ("multinomial", lambda: torch.multinomial(T, 2)),
    ],
)
def test_what_makes_the_host_wait_is_counted_once(name, wait):
    with HostSyncs() as counter:
        wait()
    assert counter.counts == {name: 1} and counter.total == 1
    ((place, times),) = counter.places.items()
    assert place.startswith("test_bench.py:") and place.endswith(f" {name}") and times == 1


def test_what_the_device_does_alone_is_not_counted():
    with HostSyncs() as counter:
        assert T.shape == (6,) and len(T) == 6 and T.dim() == 1 and T.is_floating_point() and T.numel() == 6
        T[2], T[1:3], T[None, ..., 0], T[T.long()], T.index_select(0, T.long()), torch.where(T > 2, T, 0)
        T.to(torch.float64), T.to(T.device), T.masked_fill(T > 2, 0), T.clone().copy_(T), T.detach().long()
        torch.nn.functional.one_hot(T.long(), 6), T.repeat_interleave(2), T.topk(2), (T > 2).sum(), T.argmax()
        T.clone()[T.long()] = T
        layer = torch.nn.Linear(6, 1)
        optimizer = torch.optim.Adam(layer.parameters(), fused=True)
        layer(T).backward()
        optimizer.step()
        optimizer.zero_grad()
    assert counter.total == 0, counter.places


def test_counts_add_up_over_several_entries():
    counter = HostSyncs()
    for _ in range(3):
        with counter:
            T.tolist(), ONE.item()
    assert counter.counts == {"tolist": 3, "item": 3} and counter.total == 6
    assert sum(counter.places.values()) == 6


def test_the_bench_counts_per_step_and_leaves_out_what_an_epoch_costs(monkeypatch):
    class Waiting(Finetune):
        """Three waits per step, and two more per epoch."""

        def learn(self, task, trace):
            for x, y in task.train.batches(self.config.batch_size):
                scores = self(x)
                scores.detach().sum().item(), scores[y > 0], float(scores.detach().max())
            y.tolist(), y.numpy()

    monkeypatch.setattr(Waiting, "__module__", Finetune.__module__)  # where its Config is
    monkeypatch.setitem(LEARNERS, "finetune", Waiting)
    few, many = _count("finetune", 4), _count("finetune", 8)
    assert (few, many, (many - few) / 4) == (4 * 3 + 2, 8 * 3 + 2, 3)
