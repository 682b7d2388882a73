"""Tests of the architecture: allowed imports, contents and lengths of files."""

import ast
import subprocess
import sys

import pytest

from clkit import papers
from tests.modes import FACTORIES, PACKAGE

ROOT = PACKAGE.parent
FILES = sorted(PACKAGE.rglob("*.py"))

# From the top down: a folder may import those below it, and itself; `markup` and `errors` are the ground.
FLOORS = (
    "__main__",
    "doctor",
    "book",
    "figures",
    "experiments",
    "plots",
    "methods",
    "analysis",
    "papers",
    "engine",
    "result",
    "data",
    "blocks",
    "markup",
    "errors",
    "__init__",
)
# Further than that, a floor may not import:
FORBIDDEN_FLOORS = {
    "methods": {"analysis", "papers", "result", "data"},
    "plots": {"methods", "analysis", "engine", "data", "blocks"},
    "papers": {"engine", "result", "data", "blocks"},
    "engine": {"blocks"},
    "result": {"data", "blocks"},
    "data": {"blocks"},
}
# Packages from outside that a floor may import at its top, and, behind the bar, in a function only; a floor
# without a row may import any.
PACKAGES = {
    floor: [set(part.split()) for part in allowed.split("|")]
    for floor, allowed in {
        "__init__": "|",
        "__main__": "|",
        "errors": "|",
        "markup": "|",
        "papers": "|",
        "result": "numpy | scipy",
        "plots": "numpy matplotlib seaborn |",
        "blocks": "torch |",
        "methods": "torch numpy |",
        "engine": "torch numpy | tqdm filelock",
        "data": "torch numpy PIL tqdm | torchvision sklearn",
        "analysis": "torch numpy | sklearn scipy",
        "experiments": "| joblib distributed",
    }.items()
}


def name_of(path):
    """ "data/images", "methods/arm/arm", "methods" for its __init__, "__init__" for the package's own."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return "/".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)


def floor_of(name):
    return name.partition("/")[0]


def imports(source, name):
    """[(dotted module, whether at the top of the file, line)] of all imports, relative ones made absolute."""
    folder = (PACKAGE / name).is_dir()
    package = ["clkit", *(name.split("/") if folder else name.split("/")[:-1])]
    tree, found = ast.parse(source), []
    functions = ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda
    inside = {id(n) for f in ast.walk(tree) if isinstance(f, functions) for n in ast.walk(f)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            modules = [a.name for a in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            base = ".".join([*base, *([node.module] if node.module else [])])
            modules = [f"{base}.{a.name}" for a in node.names] if base.split(".")[0] == "clkit" else [base]
        else:
            continue
        found += [(module, id(node) not in inside, node.lineno) for module in modules]
    return found


def target(dotted):
    """The file that `clkit.a.b` leads to, such as "methods/baselines/er"; None for a name of the package."""
    parts = dotted.split(".")[1:]
    for n in range(len(parts), 0, -1):
        path = PACKAGE.joinpath(*parts[:n])
        if path.with_suffix(".py").is_file() or (path / "__init__.py").is_file():
            return "/".join(parts[:n])
    return None


def family(name):
    """The unit of a file in methods: its folder if the folder is one method, else the file."""
    parts = name.split("/")
    return name if parts[1:2] in (["baselines"], ["online"]) else "/".join(parts[:2])


def crossings(source, name):
    """The imports of a file that violate the layers, as sentences."""
    floor, faults = floor_of(name), []
    for dotted, at_top, line in imports(source, name):
        first = dotted.split(".")[0]
        if first == "clkit":
            there = target(dotted)
            if there is None:
                continue
            other = floor_of(there)
            if FLOORS.index(other) < FLOORS.index(floor) or other in FORBIDDEN_FLOORS.get(floor, ()):
                faults.append(f"{name} line {line} imports {there}")
            if floor == other == "methods" and "/" in name and family(name) != family(there):
                faults.append(f"{name} line {line} imports its neighbour {there}")
        elif first not in sys.stdlib_module_names and floor in PACKAGES:
            top, late = PACKAGES[floor]
            if first not in top and (at_top or first not in late):
                faults.append(
                    f"{name} line {line} imports {first}" + (" at its top" if first in late else "")
                )
    return faults


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_imports_run_down_only(path):
    name = name_of(path)
    assert floor_of(name) in FLOORS, f"{name}: say in FLOORS where this folder stands"
    assert crossings(path.read_text(encoding="utf-8"), name) == []


@pytest.mark.parametrize(
    "name, source, fault",
    [
        (
            "methods/baselines/er",
            "from clkit.data import stream",
            "methods/baselines/er line 1 imports data/stream",
        ),
        (
            "methods/baselines/er",
            "def f():\n    from clkit.data import ImageSet",
            "methods/baselines/er line 2 imports data",
        ),
        (
            "methods/baselines/er",
            "from clkit.methods.baselines import finetune",
            "methods/baselines/er line 1 imports its neighbour methods/baselines/finetune",
        ),
        (
            "methods/baselines/er",
            "from . import finetune",
            "methods/baselines/er line 1 imports its neighbour methods/baselines/finetune",
        ),
        (
            "methods/arm/arm",
            "from clkit.methods.spacenet.compact import CompactMLP",
            "methods/arm/arm line 1 imports its neighbour methods/spacenet/compact",
        ),
        (
            "methods/baselines/er",
            "from ...experiments import runner",
            "methods/baselines/er line 1 imports experiments/runner",
        ),
        ("methods/baselines/er", "import torchvision", "methods/baselines/er line 1 imports torchvision"),
        ("result/record", "import torch", "result/record line 1 imports torch"),
        ("result/interval", "from scipy import stats", "result/interval line 1 imports scipy at its top"),
        (
            "result/record",
            "from clkit.engine.trace import Trace",
            "result/record line 1 imports engine/trace",
        ),
        ("plots/frame", "from torch import nn", "plots/frame line 1 imports torch"),
        ("plots/frame", "from clkit.blocks import nets", "plots/frame line 1 imports blocks/nets"),
        ("papers/arm", "from clkit.result import Result", "papers/arm line 1 imports result"),
        ("data/stream", "from clkit.engine import learner", "data/stream line 1 imports engine/learner"),
        (
            "data/sets",
            "try:\n    import torchvision\nexcept ImportError:\n    pass",
            "data/sets line 2 imports torchvision at its top",
        ),
        ("errors", "from clkit import data", "errors line 1 imports data"),
    ],
)
def test_a_crossing_is_found(name, source, fault):
    assert fault in crossings(source, name)


@pytest.mark.parametrize(
    "name, source",
    [
        (
            "methods/baselines/er",
            "import math\nfrom clkit.blocks import nets\nfrom clkit import __version__\nimport torch",
        ),
        ("methods/arm/arm", "from clkit.methods.arm.fast import Fast"),
        ("methods", "from clkit.methods.baselines import er\nfrom .online import gem"),
        ("result/interval", "def f():\n    from scipy.special import stdtrit"),
        (
            "experiments/load",
            "from clkit.papers import Benchmark\nfrom clkit.experiments.runner import run_seed",
        ),
    ],
)
def test_a_proper_import_is_none(name, source):
    assert crossings(source, name) == []


# ---- general code knows no method


def speaks_of(source, words):
    """String literals other than docstrings that are one of these words, or METHOD/BENCHMARK with one."""
    tree = ast.parse(source)
    prose = {
        id(n.body[0].value)
        for n in ast.walk(tree)
        if isinstance(n, ast.Module | ast.ClassDef | ast.FunctionDef)
        and n.body
        and isinstance(n.body[0], ast.Expr)
    }
    return [
        f"{n.value!r} in line {n.lineno}"
        for n in ast.walk(tree)
        if isinstance(n, ast.Constant)
        and isinstance(n.value, str)
        and id(n) not in prose
        and n.value.lower().partition("/")[0] in words
    ]


def is_general(name):
    """Whether a file belongs to no paper and no notebook."""
    parts = name.split("/")
    return (
        parts[0] not in ("papers", "methods")
        and not {*papers.PAPERS, "doctor"} & set(parts)
        and "exercises" not in parts
    )


@pytest.mark.parametrize("path", [p for p in FILES if is_general(name_of(p))], ids=name_of)
def test_general_code_names_no_method(path):
    words = {name for name, variant in papers.methods().items()} | {
        v.label.lower() for v in papers.methods().values()
    }
    words -= {"joint"}  # an attribute of Learner as well
    assert speaks_of(path.read_text(encoding="utf-8"), words) == []


def test_the_name_of_a_method_is_found():
    assert speaks_of('"""arm"""\nif method == "arm":\n    run("ER/split-mnist", "army")', {"arm", "er"}) == [
        "'arm' in line 2",
        "'ER/split-mnist' in line 3",
    ]


# ---- what code must not contain

FORBIDDEN = {"item", "cuda"}, {"print", "open"}  # attributes, names


def forbidden(source):
    """Names that a method may not use: transfers to the host, explicit devices, output, files."""
    nodes = list(ast.walk(ast.parse(source)))
    return [
        f".{n.attr} in line {n.lineno}"
        for n in nodes
        if isinstance(n, ast.Attribute) and n.attr in FORBIDDEN[0]
    ] + [f"{n.id} in line {n.lineno}" for n in nodes if isinstance(n, ast.Name) and n.id in FORBIDDEN[1]]


@pytest.mark.parametrize("path", sorted((PACKAGE / "methods").rglob("*.py")), ids=name_of)
def test_methods_do_not_wait_print_or_open(path):
    assert forbidden(path.read_text(encoding="utf-8")) == []


def test_forbidden_words_are_found():
    bad = "x = loss.item()\nnet.cuda()\nprint(x)\nwith open('f'): pass\nlist(map(torch.Tensor.item, y))"
    assert forbidden(bad) == [
        ".item in line 1",
        ".cuda in line 2",
        ".item in line 5",
        "print in line 3",
        "open in line 4",
    ]
    assert forbidden("'print(x.item())'  # open(\nprinted = items.opened()") == []


def private_torch(source):
    """Uses of undocumented parts of torch."""
    found = [
        f"{ast.unparse(n)} in line {n.lineno}"
        for n in ast.walk(ast.parse(source))
        if isinstance(n, ast.Attribute)
    ]
    return [
        use
        for use in found
        if (use.startswith(("torch._", "torch.ops.")) and "torch.__version__" not in use)
        or "_non_persistent_buffers_set" in use
    ]


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_only_public_operators_of_torch(path):
    assert private_torch(path.read_text(encoding="utf-8")) == []


def test_a_private_operator_is_found():
    assert private_torch("torch._softmax_backward_data(g, p)\ntorch.where(a, b, c)") == [
        "torch._softmax_backward_data in line 1"
    ]


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
    bad = (
        "torch.zeros(2)\nx = torch.tensor([1], dtype=t) + torch.randperm(3, generator=g)\n"
        "torch.fft.fftfreq(3)"
    )
    assert sorted(factories(bad)) == [
        "torch.fft.fftfreq in line 3",
        "torch.randperm in line 2",
        "torch.tensor in line 2",
        "torch.zeros in line 1",
    ]
    good = "torch.zeros(2, device=d)\ntorch.zeros_like(x)\nx.new_zeros(2)\ntorch.rand(2, out=x)\nnp.zeros(2)"
    assert factories(good) == []


# ---- shape


def long_functions(source, limit=60):
    """Functions with more than `limit` lines, docstrings included."""
    return [
        f"{n.name}: {n.end_lineno - n.lineno + 1} lines"
        for n in ast.walk(ast.parse(source))
        if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef) and n.end_lineno - n.lineno >= limit
    ]


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_files_and_functions_stay_short(path):
    source = path.read_text(encoding="utf-8")
    assert long_functions(source) == []
    assert len(source.splitlines()) <= 450


def test_a_long_function_is_found():
    assert long_functions("def f():\n" + "    x = 1\n" * 59) == []
    assert long_functions("class A:\n  def f(self):\n" + "    x = 1\n" * 60) == ["f: 61 lines"]


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_a_file_opens_with_a_sentence(path):
    source = path.read_text(encoding="utf-8")
    said = ast.get_docstring(ast.parse(source)) if source.strip() else "an empty file of a folder"
    assert said and said.splitlines()[0].rstrip().endswith((".", ":", "``.")), "say what lives in the file"


def test_no_file_is_called_utils():
    folders = [ROOT / name for name in ("clkit", "tests", "tools") if (ROOT / name).is_dir()]
    assert [
        p
        for folder in folders
        for p in folder.rglob("*")
        if p.stem.lower() in ("utils", "util", "helpers", "misc")
    ] == []


# ---- what an import costs


def loaded_by(code):
    """The modules that a fresh interpreter has loaded after running this code."""
    code = f"import sys\nbefore = set(sys.modules)\n{code}\nprint(*sorted(set(sys.modules) - before))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    return done.stdout.split()


def test_importing_the_package_imports_nothing_else():
    assert loaded_by("import clkit") == ["clkit"]


@pytest.mark.parametrize(
    "code",
    [
        "import clkit.papers",
        "import clkit.plots",
        "import clkit.experiments",
        "import clkit.figures",
        "from clkit.__main__ import main; main(['list', 'joint'])",
    ],
)
def test_looking_at_results_does_not_load_torch(code):
    assert "torch" not in loaded_by(code)
