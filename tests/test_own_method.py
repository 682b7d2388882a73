"""A method written from CONTRIBUTING.md alone works everywhere: list, run, contract, report, plot."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
BLOCK = re.compile(r"^```python\n# ([\w./]+?)(?:, in (\w+))?\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LOOK = """
import matplotlib
matplotlib.use("Agg")
from clkit import papers, plots
from clkit.book import explore
from clkit.result import load
looks = [str({k: v for k, v in papers.style(m).items() if k != "label"}) for m in papers.methods()]
assert len(set(looks)) == len(looks), "a look that no other method has"
groups = {m: load(f"mine/{m}_split-digits_smoke") for m in ("finetune", "leash")}
ax = plots.plot_averages(groups)
assert "Leash" in {t.get_text() for t in ax.get_legend().get_texts()}
assert type(explore.matrix_explorer(groups).box).__module__.startswith("ipywidgets")
print("seen")
"""


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    """A copy of the code with the method of CONTRIBUTING.md in it."""
    tree = tmp_path_factory.mktemp("own") / "tree"
    for folder in ("clkit", "tests", "tools"):
        shutil.copytree(ROOT / folder, tree / folder, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tree)
    blocks = BLOCK.findall((ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8"))
    new = [path for path, registry, _ in blocks if not registry]
    assert len(new) == 3 and len(blocks) == 5, "three new files and two lines"
    for path, registry, text in blocks:
        (tree / path).parent.mkdir(exist_ok=True)
        if registry:
            source = (tree / path).read_text(encoding="utf-8")
            changed = re.sub(
                rf"^({registry} = [({{].*\n)", rf"\g<1>{text}", source, count=1, flags=re.MULTILINE
            )
            assert changed != source and len(text.splitlines()) == 1
            (tree / path).write_text(changed, encoding="utf-8")
        else:
            assert not (tree / path).exists()
            (tree / path).write_text(text, encoding="utf-8")
    return tree


def python(tree, *words):
    """The output of `python WORDS` in that tree."""
    done = subprocess.run(
        [sys.executable, *words],
        cwd=tree,
        capture_output=True,
        text=True,
        timeout=300,
        env={
            "PYTHONPATH": str(tree),
            "PATH": "/usr/bin:/bin",
            "HOME": str(tree),
            "CLKIT_RUNS": str(tree / "runs"),
            "OMP_NUM_THREADS": "1",
        },
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_it_is_listed(tree):
    out = python(tree, "-m", "clkit", "list", "leash")
    assert "leash/split-digits" in out and "leash/split-mnist" in out
    assert re.search(
        r"^  leash +Leash +split-digits split-mnist$", python(tree, "-m", "clkit", "list"), re.MULTILINE
    )


def test_it_keeps_the_contract(tree):
    out = python(
        tree,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "tests/contract",
        "tests/test_layers.py",
        "tests/methods/test_leash.py",
        "-k",
        "leash or arrows or architecture",
    )
    assert int(re.search(r"(\d+) passed", out)[1]) > 20


def test_it_is_run_reported_drawn_and_explored(tree):
    for method in ("finetune", "leash"):
        python(tree, "-m", "clkit", "run", f"{method}/split-digits", "--preset", "smoke", "--out", "mine")
    table = python(tree, "-m", "clkit", "report", "--records", "mine", "--format", "markdown")
    assert re.search(r"^\| Leash \|", table, re.MULTILINE) and "Finetune" in table
    figures = python(tree, "-m", "clkit", "figures", "--records", "mine", "--out", "drawn", "--format", "svg")
    assert "averages-split-digits-smoke.svg" in figures
    assert python(tree, "-c", LOOK).strip() == "seen"
