"""The arrows of the house: which file may import which, and what the methods may not say."""

import ast
import subprocess
import sys

import pytest

from tests.modes import FACTORIES, PACKAGE

ROOT = PACKAGE.parent
FILES = sorted(PACKAGE.rglob("*.py"))

# File -> the files of the package it may import. `folder/*`: each file of the folder but its __init__.
_BELOW_5 = "presets plots analysis analysis/* data stream run methods learner trace result published"
ARROWS = {name: set(allowed.split()) for name, allowed in {
    # floor 0
    "__init__": "", "shapes": "", "data": "shapes", "trace": "", "nets": "", "losses": "", "result": "",
    "published": "",
    # floor 1
    "stream": "data", "learner": "trace",
    # floor 2
    "methods/*": "learner trace nets losses", "methods": "methods/*",
    # floor 3
    "run": "result trace learner", "analysis/*": "result", "analysis": "analysis/*",
    # floor 4
    "presets": "data stream methods run result analysis/gradients", "plots": "result published",
    # floor 5
    "explore": _BELOW_5, "exercises": _BELOW_5, "doctor": "data presets", "picture": "presets plots result",
    # floor 6
    "figures/*": _BELOW_5 + " picture", "figures": "figures/* picture presets result",
    # the door
    "__main__": "presets figures data stream learner run result doctor",
}.items()}

# File -> other packages it may import at its top, and, behind the bar, in a function only. Others: anything.
PACKAGES = {name: [set(part.split()) for part in allowed.split("|")] for name, allowed in {
    "__init__": "|", "__main__": "|", "published": "|", "result": "numpy | scipy", "shapes": "numpy |",
    "plots": "numpy matplotlib seaborn |", "losses": "torch |", "nets": "torch |", "learner": "torch |",
    "methods/*": "torch numpy |", "methods": "|", "stream": "torch |", "trace": "torch numpy | tqdm",
    "run": "torch numpy |", "presets": "| joblib", "data": "torch numpy PIL tqdm | torchvision sklearn",
    "analysis/*": "torch numpy sklearn scipy |",
}.items()}


def name_of(path):
    """"data", "methods/er", "methods" for its __init__, "__init__" for the package's own."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return "/".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)


def row_of(name, table):
    folder, slash, _ = name.partition("/")
    return table.get(f"{folder}/*" if slash else name)


def imports(source, name):
    """[(dotted module, whether at the top of the file, line)] of all imports, relative ones made absolute."""
    folder = name in ("methods", "analysis", "figures")
    package = ["clkit", name] if folder else ["clkit", *name.split("/")[:-1]]
    tree, found = ast.parse(source), []
    functions = ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda
    inside = {id(n) for f in ast.walk(tree) if isinstance(f, functions) for n in ast.walk(f)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            modules = [a.name for a in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[:len(package) - node.level + 1] if node.level else []
            base = ".".join([*base, *([node.module] if node.module else [])])
            modules = [f"{base}.{a.name}" for a in node.names] if base.split(".")[0] == "clkit" else [base]
        else:
            continue
        found += [(module, id(node) not in inside, node.lineno) for module in modules]
    return found


def target(dotted):
    """The file that `clkit.a.b` leads to, such as "methods/er"; None for a name in clkit/__init__."""
    parts = dotted.split(".")[1:]
    for n in range(len(parts), 0, -1):
        path = PACKAGE.joinpath(*parts[:n])
        if path.with_suffix(".py").is_file() or (path / "__init__.py").is_file():
            return "/".join(parts[:n])
    return None


def crossings(source, name):
    """What a file imports against the arrows, as sentences."""
    allowed, others = row_of(name, ARROWS), row_of(name, PACKAGES)
    faults = []
    for dotted, at_top, line in imports(source, name):
        first = dotted.split(".")[0]
        if first == "clkit":
            there = target(dotted)
            if there is not None and there not in allowed and f"{there.partition('/')[0]}/*" not in allowed:
                faults.append(f"{name} line {line} imports {there}")
            if there and "/" in there and there.partition("/")[0] == name.partition("/")[0] != name:
                faults.append(f"{name} line {line} imports its neighbour {there}")
        elif first not in sys.stdlib_module_names and others is not None:
            if first not in others[0] and (at_top or first not in others[1]):
                faults.append(f"{name} line {line} imports {first}" +
                              (" at its top" if first in others[1] else ""))
    return faults


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_a_file_imports_only_what_the_arrows_allow(path):
    name = name_of(path)
    assert row_of(name, ARROWS) is not None, f"{name} has no row in ARROWS: say there what it may import"
    assert crossings(path.read_text(encoding="utf-8"), name) == []


@pytest.mark.parametrize("name, source, fault", [
    ("methods/er", "from clkit import stream", "methods/er line 1 imports stream"),
    ("methods/er", "def f():\n    from clkit.data import ImageSet", "methods/er line 2 imports data"),
    ("methods/er", "from clkit.methods import finetune", "methods/er line 1 imports methods/finetune"),
    ("methods/er", "from clkit.methods import METHODS", "methods/er line 1 imports methods"),
    ("methods/er", "from . import finetune", "methods/er line 1 imports methods/finetune"),
    ("methods/er", "from .finetune import fit", "methods/er line 1 imports methods/finetune"),
    ("methods/er", "from .. import run", "methods/er line 1 imports run"),
    ("methods/er", "import clkit.run", "methods/er line 1 imports run"),
    ("methods/er", "import torchvision", "methods/er line 1 imports torchvision"),
    ("result", "import torch", "result line 1 imports torch"),
    ("result", "import numpy\nfrom scipy import stats", "result line 2 imports scipy at its top"),
    ("result", "from clkit.trace import Trace", "result line 1 imports trace"),
    ("plots", "from torch import nn", "plots line 1 imports torch"),
    ("plots", "from clkit import presets", "plots line 1 imports presets"),
    ("stream", "from clkit import learner", "stream line 1 imports learner"),
    ("run", "from clkit.stream import Stream", "run line 1 imports stream"),
    ("data", "try:\n    import torchvision\nexcept ImportError:\n    pass",
     "data line 2 imports torchvision at its top"),
    ("__init__", "from clkit import data", "__init__ line 1 imports data")])
def test_a_crossing_is_found(name, source, fault):
    assert fault in crossings(source, name)


@pytest.mark.parametrize("name, source", [
    ("methods/er",
     "import math\nfrom clkit import nets, __version__\nfrom clkit.learner import Learner\nimport torch"),
    ("methods/er", "from ..nets import MLP\nfrom .. import losses"),
    ("methods", "from clkit.methods import er\nfrom . import lwf"),
    ("result", "def f():\n    from scipy.special import stdtrit"),
    ("stream", "from clkit.data import ImageSet"),
    ("run", "from clkit import __version__")])
def test_a_proper_import_is_none(name, source):
    assert crossings(source, name) == []


# ---- what is not said

FORBIDDEN = {"item", "cuda"}, {"print", "open"}         # attributes, names


def forbidden(source):
    """Words that a method may not use: values brought to the host, a device of its own, output, files."""
    nodes = list(ast.walk(ast.parse(source)))
    return [f".{n.attr} in line {n.lineno}" for n in nodes if isinstance(n, ast.Attribute)
            and n.attr in FORBIDDEN[0]] + \
        [f"{n.id} in line {n.lineno}" for n in nodes if isinstance(n, ast.Name) and n.id in FORBIDDEN[1]]


@pytest.mark.parametrize("path", sorted((PACKAGE / "methods").glob("*.py")), ids=name_of)
def test_methods_do_not_wait_print_or_open(path):
    assert forbidden(path.read_text(encoding="utf-8")) == []


def test_forbidden_words_are_found():
    bad = "x = loss.item()\nnet.cuda()\nprint(x)\nwith open('f'): pass\nlist(map(torch.Tensor.item, y))"
    assert forbidden(bad) == [
        ".item in line 1", ".cuda in line 2", ".item in line 5", "print in line 3", "open in line 4"]
    assert forbidden("'print(x.item())'  # open(\nprinted = items.opened()") == []


def factories(source):
    """Calls of torch.zeros and its like without device=, line by line."""
    faults = []
    for n in ast.walk(ast.parse(source)):
        if isinstance(n, ast.Call) and not {k.arg for k in n.keywords} & {"device", "out", None}:
            name = ast.unparse(n.func)
            if name.startswith("torch.") and name.removeprefix("torch.") in FACTORIES.values():
                faults.append(f"{name} in line {n.lineno}")
    return faults


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_every_tensor_is_made_on_a_device_that_is_named(path):
    assert factories(path.read_text(encoding="utf-8")) == []


def test_a_tensor_without_device_is_found():
    bad = "torch.zeros(2)\nx = torch.tensor([1], dtype=t) + torch.randperm(3, generator=g)\n" \
          "torch.fft.fftfreq(3)"
    assert sorted(factories(bad)) == ["torch.fft.fftfreq in line 3", "torch.randperm in line 2",
                                      "torch.tensor in line 2",
                                      "torch.zeros in line 1"]
    good = "torch.zeros(2, device=d)\ntorch.zeros_like(x)\nx.new_zeros(2)\ntorch.rand(2, out=x)\nnp.zeros(2)"
    assert factories(good) == []


# ---- shape

def long_functions(source, limit=60):
    """Functions of more lines than `limit`, docstring included."""
    return [f"{n.name}: {n.end_lineno - n.lineno + 1} lines" for n in ast.walk(ast.parse(source))
            if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef) and n.end_lineno - n.lineno >= limit]


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_a_function_fits_on_a_screen(path):
    assert long_functions(path.read_text(encoding="utf-8")) == []


def test_a_long_function_is_found():
    assert long_functions("def f():\n" + "    x = 1\n" * 59) == []
    assert long_functions("class A:\n  def f(self):\n" + "    x = 1\n" * 60) == ["f: 61 lines"]


def test_no_file_is_called_utils():
    folders = [ROOT / name for name in ("clkit", "tests", "tools") if (ROOT / name).is_dir()]
    assert [p for folder in folders for p in folder.rglob("*")
            if p.stem.lower() in ("utils", "util", "helpers", "misc")] == []


def test_importing_the_package_imports_nothing_else():
    code = "import sys\nbefore = set(sys.modules)\nimport clkit\n" \
           "print(*sorted(set(sys.modules) - before))\nprint(clkit.__version__)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    loaded, version = done.stdout.splitlines()
    assert loaded == "clkit" and version


def test_importing_the_plots_does_not_load_torch():
    code = "import sys\nimport clkit.plots\nprint('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
