"""Own code counts by its content, wherever a learner reaches it; clkit's own code does not."""

import contextlib
import copy
import functools
import importlib
import json
import pickle
import subprocess
import sys
import textwrap
import types
from pathlib import Path

import cloudpickle
import pytest

from clkit.blocks import nets
from clkit.engine import RunError
from clkit.engine.own_code import own_code
from clkit.engine.provenance import key_of, revision_of
from clkit.engine.run import run
from clkit.methods.baselines import finetune
from tests.fakes import small_stream

ROOT = Path(__file__).resolve().parents[2]


def cells(*texts, **names):
    """A notebook's namespace after these cells."""
    space = {"__name__": "__main__", **names}
    for text in texts:
        exec(compile(textwrap.dedent(text), "<cell>", "exec"), space)
    return space


def code_of(*texts, name="Mine", **names):
    found = own_code(cells(*texts, **names)[name])
    assert found is None or len(found) == 64
    return found


HEAD = "import functools, torch\nfrom torch import nn\nfrom clkit.engine.learner import Learner\n"
MINE = """
class Mine(Learner):
    def learn(self, task, trace):
        return {reads}
"""
# What a learner may read: (the cell that defines it, how it is read). 7 is what changes.
READ = {
    "a global number": ("RATE = 7", "RATE"),
    "a global text": ("KIND = 'of 7'", "KIND"),
    "a list": ("SIZES = [1, [2, (7, 3)]]", "SIZES[1]"),
    "a dictionary": ("OPTIONS = {'a': {'b': 7}}", "OPTIONS['a']"),
    "a set": ("CHOSEN = {'x', 'y', 7}", "CHOSEN"),
    "an array": ("import numpy\nWEIGHTS = numpy.array([1.0, 7.0])", "WEIGHTS"),
    "a tensor": ("START = torch.tensor([1.0, 7.0], dtype=torch.bfloat16)", "START"),
    "a number without dimensions": ("START = torch.tensor(7)", "START"),
    "a function": ("def loss(x):\n    return 7 * x", "loss(task)"),
    "a lambda": ("loss = lambda x: 7 * x", "loss(task)"),
    "a function of a function": ("def a(x):\n    return 7\ndef b(x):\n    return a(x)", "b(task)"),
    "functions that call each other": (
        "def a(x):\n    return b(x) if x else 7\ndef b(x):\n    return a(x)",
        "b(1)",
    ),
    "a default": ("def loss(x, rate=7):\n    return x", "loss(task)"),
    "a default by name": ("def loss(x, *, rate=7):\n    return x", "loss(task)"),
    "a closure": ("def make(n):\n    return lambda x: n * x\nloss = make(7)", "loss(task)"),
    "a decorated function": (
        "def twice(f):\n    @functools.wraps(f)\n    def g(x):\n        return f(f(x))\n    return g\n"
        "@twice\ndef loss(x):\n    return 7 * x",
        "loss(task)",
    ),
    "a decorator": (
        "def times(f):\n    def g(x):\n        return 7 * f(x)\n    return g\n"
        "@times\ndef loss(x):\n    return x",
        "loss(task)",
    ),
    "torch's decorator": ("@torch.no_grad()\ndef loss(x):\n    return 7 * x", "loss(task)"),
    "a cached function": ("@functools.cache\ndef loss(x):\n    return 7 * x", "loss(task)"),
    "a partial": ("def f(x, n):\n    return x\nloss = functools.partial(f, n=7)", "loss(task)"),
    "functions by name": ("def f(x):\n    return 7\nLOSSES = {'mine': f}", "LOSSES['mine'](task)"),
    "a function in a list": ("LOSSES = [abs, lambda x: 7]", "LOSSES[1](task)"),
    "a function's attribute": ("def loss(x):\n    return loss.rate\nloss.rate = 7", "loss(task)"),
    "an inner function": (
        "def loss(x):\n    def inner():\n        return 7\n    return inner()",
        "loss(task)",
    ),
    "a comprehension": ("def loss(x):\n    return [7 for _ in x]", "loss(task)"),
    "what it calls by keyword": ("def f(**k):\n    return k\ndef loss(x):\n    return f(a=7)", "loss(task)"),
    "a network": (
        "class Net(nn.Module):\n    def __init__(self):\n        super().__init__()\n"
        "        self.l = nn.Linear(2, 7)",
        "Net()",
    ),
    "a network's base": (
        "class A(nn.Module):\n    def forward(self, x):\n        return 7 * x\nclass Net(A):\n    pass",
        "Net()",
    ),
    "a mixin": (
        "class Mixed:\n    def loss(self):\n        return 7\nclass Net(Mixed, nn.Module):\n    pass",
        "Net()",
    ),
    "a class attribute": ("class Net(nn.Module):\n    width = 7", "Net()"),
    "a static method": ("class Net:\n    @staticmethod\n    def f():\n        return 7", "Net.f()"),
    "a class method": ("class Net:\n    @classmethod\n    def f(cls):\n        return 7", "Net.f()"),
    "a property": ("class Net:\n    @property\n    def f(self):\n        return 7", "Net().f"),
    "a cached property": (
        "class Net:\n    @functools.cached_property\n    def f(self):\n        return 7",
        "Net().f",
    ),
    "an inner class": (
        "class Net:\n    class Inner:\n        def f(self):\n            return 7",
        "Net.Inner()",
    ),
    "an object": ("class Lab:\n    def __init__(self):\n        self.rate = 7\nlab = Lab()", "lab.rate"),
    "an object with slots": (
        "class Lab:\n    __slots__ = ('rate',)\n    def __init__(self):\n        self.rate = 7\nlab = Lab()",
        "lab.rate",
    ),
    "an object that holds itself": (
        "class Lab:\n    pass\nlab = Lab()\nlab.me, lab.rate = lab, 7",
        "lab.me.rate",
    ),
    "an object's method": ("class Lab:\n    def f(self):\n        return 7\nf = Lab().f", "f()"),
    "a callable object": ("class Lab:\n    def __call__(self):\n        return 7\nf = Lab()", "f()"),
    "a trained network": (
        "net = nn.Linear(1, 1)\nnn.init.constant_(net.weight, 7)\nnn.init.zeros_(net.bias)",
        "net(task)",
    ),
    "a dataclass": (
        "from dataclasses import dataclass\n@dataclass\nclass Options:\n    rate: int = 7",
        "Options().rate",
    ),
    "a factory": (
        "from dataclasses import dataclass, field\n@dataclass\nclass Options:\n"
        "    rates: list = field(default_factory=lambda: [7])",
        "Options().rates",
    ),
    "a named tuple": ("from typing import NamedTuple\nclass P(NamedTuple):\n    x: int = 7\np = P()", "p.x"),
    "a word of an enum": ("import enum\nclass Kind(enum.Enum):\n    A = 7", "Kind.A.value"),
    "a vectorised function": ("import numpy\nloss = numpy.vectorize(lambda x: 7)", "loss(task)"),
    "clkit's Config": (
        "from clkit.methods.baselines import finetune\nconfig = finetune.Config(epochs=7)",
        "config.epochs",
    ),
}


@pytest.mark.parametrize("kind", READ)
def test_what_a_learner_reads_counts_by_its_content(kind):
    defined, reads = READ[kind]
    mine = MINE.format(reads=reads)
    first, again = code_of(HEAD, defined, mine), code_of(HEAD, "other = 1", defined, "unused = 7", mine)
    assert first == again, "not where or when it was defined"
    assert "7" in defined and code_of(HEAD, defined.replace("7", "8"), mine) not in (first, None)


def test_a_learner_itself_counts():
    texts = [
        MINE.format(reads="1"),
        MINE.format(reads="2"),
        MINE.format(reads="1") + "    rate = 1\n",
        MINE.format(reads="1") + "    rate = 2\n",
        MINE.format(reads="1") + "    def forward(self, x):\n        return x\n",
        MINE.format(reads="1").replace("Learner)", "Learner, Mixed)"),
        MINE.format(reads="1").replace("task, trace", "task, trace, more=1"),
        MINE.format(reads="1 if task else 2"),
        "from clkit.methods.baselines.er import ER as Learner\n" + MINE.format(reads="1"),
    ]
    found = [code_of(HEAD + "class Mixed:\n    pass\n", text) for text in texts]
    assert len(set(found)) == len(texts) and None not in found


@pytest.mark.parametrize(
    "text",
    [
        MINE.format(reads="f(task)  # a comment"),
        MINE.format(reads="(\n            f(task)\n        )"),
        MINE.format(reads="f(task)").replace("class", "# above\n\n\nclass"),
        MINE.format(reads="f(task)").replace("task, trace", "task: 'Task', trace: 'Trace'"),
    ],
)
def test_comments_and_layout_do_not_count(text):
    helper = "def f(x):\n    return {'b', 'a', x}\n"
    assert code_of(HEAD, helper, text) == code_of(HEAD, helper, MINE.format(reads="f(task)"))


@pytest.mark.parametrize(
    "reads",
    ["eval('1')", "exec('1')", "globals()", "__import__('my')", "compile('1', '', 'eval')", "name()", "f()"],
)
def test_code_that_may_lead_anywhere_is_unknown(reads):
    before = "from importlib import import_module as name\ndef f():\n    return eval('2')\n"
    assert code_of(HEAD, before, MINE.format(reads=reads)) is None
    harmless = MINE.format(reads="(torch.compile, self.eval(), self.exec, 'eval')")
    assert code_of(HEAD, before, harmless) is not None


# ---- files


FILES = {
    "losses.py": "RATE = {n}\ndef loss(x):\n    return RATE * x\n",
    "package/__init__.py": "from .inner import f\n",
    "package/inner.py": "from . import deep\ndef f(x):\n    return deep.g(x)\n",
    "package/deep.py": "def g(x):\n    return {n}\n",
}


@pytest.fixture
def files(tmp_path, monkeypatch):
    """write(n): the own files, which are then imported anew."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    before = set(sys.modules)

    def write(n):
        for name, text in FILES.items():
            (tmp_path / name).parent.mkdir(exist_ok=True)
            (tmp_path / name).write_text(text.replace("{n}", str(n)))
        forget()

    def forget():
        for name in set(sys.modules) - before:
            if name.partition(".")[0] in ("losses", "package", "mine"):
                del sys.modules[name]
        importlib.invalidate_caches()

    yield write
    forget()


@pytest.mark.parametrize(
    "before, reads",
    [
        ("from losses import loss", "loss(task)"),
        ("import losses", "losses.loss(task)"),
        ("import losses as l", "l.RATE"),
        ("import losses", "getattr(losses, 'loss')(task)"),
        ("from package import f", "f(task)"),
        ("import package.inner", "package.inner.f(task)"),
        ("import package.deep as d", "d.g(task)"),
        ("def f():\n    from losses import loss\n    return loss", "f()"),
        ("def f():\n    import losses\n    return losses.loss", "f()"),
        ("def f():\n    import package.deep\n    return package.deep.g", "f()"),
        ("def f():\n    from package import deep\n    return deep.g", "f()"),
        ("def f():\n    import losses as l, scipy\n    return l", "f()"),
    ],
)
def test_own_files_count_by_what_is_imported(files, before, reads):
    found = []
    for n in (1, 1, 2):
        files(n)
        found.append(code_of(HEAD, before, MINE.format(reads=reads)))
    assert found[0] == found[1] != found[2] and None not in found
    assert "scipy.stats" not in before and found[0] != ""


def test_an_edited_file_counts_once_it_is_imported_again(files, tmp_path):
    files(1)
    mine = cells(HEAD, "import losses", MINE.format(reads="losses.loss(task)"))["Mine"]
    first = own_code(mine)
    (tmp_path / "losses.py").write_text(FILES["losses.py"].replace("{n}", "23"))
    assert own_code(mine) == first, "the old code would run"
    importlib.reload(sys.modules["losses"])
    assert own_code(mine) != first


def test_a_compiled_own_module_is_unknown(tmp_path, monkeypatch):
    fast = types.ModuleType("fast")
    fast.__file__ = str(tmp_path / f"fast{importlib.machinery.EXTENSION_SUFFIXES[0]}")
    fast.f = functools.partial(abs)
    fast.Loss = type("Loss", (), {"__module__": "fast"})
    monkeypatch.setitem(sys.modules, "fast", fast)
    for reads in ("fast", "fast.Loss"):
        assert code_of(HEAD, MINE.format(reads=reads), fast=fast) is None


# ---- clkit


def test_what_is_entered_in_clkit_counts_where_a_setting_names_it(monkeypatch):
    net = "class Net(nn.Module):\n    def __init__(self, shape, classes):\n        self.n = {n}"
    plain, about = finetune.Config(), small_stream().about()
    for make in (
        lambda n: cells(HEAD, net.replace("{n}", str(n)))["Net"],
        lambda n: functools.partial(nets.MLP, hidden=(n,)),
        lambda n: lambda shape, classes: nets.MLP(shape, classes, (n,)),
    ):
        found = []
        for n in (1, 1, 2):
            monkeypatch.setitem(nets.NETS, "mine", make(n))
            found.append(revision_of(finetune.Finetune, finetune.Config(net="mine")))
            assert revision_of(finetune.Finetune, plain) == finetune.REVISION, "it is not used"
        assert found[0] == found[1] != found[2] and found[0].startswith(f"{finetune.REVISION}+")
    monkeypatch.delitem(nets.NETS, "mine")
    before = key_of(finetune.Finetune, plain, about)
    monkeypatch.setattr(finetune, "fit", cells("def fit(*a):\n    pass")["fit"])
    assert key_of(finetune.Finetune, plain, about) != before, "a function that was put into its module"


def test_own_learners_count_the_revisions_of_clkit_that_they_build_on(monkeypatch):
    texts = [
        MINE.format(reads="1").replace("(Learner)", "(finetune.Finetune)"),
        MINE.format(reads="finetune.fit(self, task, 2, self.config, trace)"),
    ]
    before = [code_of(HEAD, text, finetune=finetune) for text in texts]
    monkeypatch.setattr(finetune, "REVISION", finetune.REVISION + 1)
    after = [code_of(HEAD, text, finetune=finetune) for text in texts]
    assert not set(before) & set(after)


def test_the_config_of_an_own_learner_counts():
    text = "from dataclasses import dataclass\n@dataclass(frozen=True)\nclass Config:\n    lr: float = {n}\n"
    found = []
    for n in (0.1, 0.1, 0.2):
        space = cells(HEAD, text.replace("{n}", str(n)), MINE.format(reads="1"))
        found.append(key_of(space["Mine"], space["Config"](), {}))
    assert found[0] == found[1] != found[2], "a default that is not among the settings"


# ---- runs

LEARNS = """
import torch
from dataclasses import dataclass
from torch import nn
from clkit.engine.learner import Learner
@dataclass(frozen=True)
class Config:
    epochs: int = 1
class Mine(Learner):
    def __init__(self, config, shape, classes):
        super().__init__(config, shape, classes)
        self.net = nn.Linear(36, classes)
    def forward(self, x):
        return self.net(x.flatten(1))
    def learn(self, task, trace):
        step(self)
"""
STEP = "def step(net):\n    torch.nn.init.constant_(net.net.bias, 2.0)\n"


def test_a_changed_cell_is_another_run_and_an_unchanged_one_is_read_back(tmp_path):
    def go(*texts):
        space = cells(*texts)
        return run(space["Mine"], space["Config"](), small_stream(), folder=tmp_path, progress=False)

    go(LEARNS, STEP)
    before = (tmp_path / "state.pt").stat().st_mtime_ns
    go(LEARNS, STEP)
    assert (tmp_path / "state.pt").stat().st_mtime_ns == before
    for changed in ((LEARNS, STEP.replace("2.0", "3.0")), (LEARNS.replace("step(self)", "pass"), STEP)):
        with pytest.raises(RunError, match=r"another run \(its code, settings or data differ\): choose"):
            go(*changed)


def test_own_probes_and_studies_count_too(tmp_path):
    def go(probe="1", study="2"):
        space = cells(LEARNS, STEP, f"probe = lambda m: {probe}\ndef study(m, s): return {{'x': [{study}]}}")
        return run(
            space["Mine"],
            space["Config"](),
            small_stream(),
            folder=tmp_path,
            probes={"p": {"n": space["probe"]}},
            studies={"s": space["study"]},
            progress=False,
        )

    go()
    go()
    for changed in ({"probe": "3"}, {"study": "3"}, {"study": "len(dir())"}):
        with pytest.raises(RunError, match="holds another run"):
            go(**changed)


def test_code_stays_the_same_when_it_is_used_copied_and_sent():
    defined = [text for text, _ in READ.values()]
    space = cells(HEAD, *defined, LEARNS, STEP)
    before = own_code(space["Mine"], space["Config"])
    model, _ = run(space["Mine"], space["Config"](), small_stream(), progress=False)
    copy.deepcopy(model)
    repr(cloudpickle.loads(cloudpickle.dumps((space["Config"](), model))))
    assert own_code(space["Mine"], space["Config"]) == before


def test_a_worker_process_finds_the_same_code():
    """A class of a notebook arrives there as a copy, and hashes of text have another seed."""
    mine = [cells(HEAD, defined, MINE.format(reads=reads))["Mine"] for defined, reads in READ.values()]
    code = (
        "import sys, pickle, json\nfrom clkit.engine.own_code import own_code\n"
        "print(json.dumps({k: own_code(pickle.loads(p)) for k, p in pickle.load(sys.stdin.buffer).items()}))"
    )
    sent = {}
    for kind, one in zip(READ, mine, strict=True):
        with contextlib.suppress(pickle.PicklingError, TypeError):  # what is cached in a cell
            sent[kind] = cloudpickle.dumps(one)
    done = subprocess.run(
        [sys.executable, "-c", code], input=pickle.dumps(sent), cwd=ROOT, capture_output=True
    )
    assert done.returncode == 0, done.stderr.decode()
    there, here = json.loads(done.stdout), dict(zip(READ, map(own_code, mine)))
    assert len(there) >= len(here) - 2 and [kind for kind in there if there[kind] != here[kind]] == []
