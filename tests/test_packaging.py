"""The dependency files agree with each other and the code; set-up repairs itself; nothing is private."""

import ast
import csv
import fnmatch
import importlib.metadata
import importlib.util
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

import clkit

try:
    import tomllib
except ModuleNotFoundError:  # Python 3.10, where pytest brings the same module under this name
    import tomli as tomllib

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
PYTHONS = ("3.10", "3.11", "3.12", "3.13")
SYSTEMS = ("linux", "darwin", "win32")
DOCUMENTS = ("README.md", "CONTRIBUTING.md", "COURSE.md", ".github/PULL_REQUEST_TEMPLATE.md")


def tool(name):
    """A script of tools/ as a module."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "tools" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


setup, making = tool("environment"), tool("pins")
CUDA = making.CUDA  # packages that torch itself asks for where it is built for CUDA
# Import name -> declared package that cannot be installed without it.
BROUGHT = {
    "numpy": "scikit-learn",
    "scipy": "scikit-learn",
    "PIL": "torchvision",
    "IPython": "ipywidgets",
    "pygments": "jupyterlab",
    "nbconvert": "jupyterlab",
    "nbformat": "jupyterlab",
    "jinja2": "jupyterlab",
    "bs4": "jupyterlab",
    "pandas": "seaborn",
    "pytest": "nbval",
}


def declared(*extras):
    """{name: Requirement} declared in pyproject.toml: those of clkit and of the given extras."""
    texts = [
        *PROJECT["dependencies"],
        *(text for e in extras for text in PROJECT["optional-dependencies"][e]),
    ]
    return {canonicalize_name(Requirement(text).name): Requirement(text) for text in texts}


def pins(text=None):
    """The requirements in requirements.txt (or in `text`), without comments."""
    text = (ROOT / "requirements.txt").read_text(encoding="utf-8") if text is None else text
    lines = (line.split("#")[0].strip() for line in text.splitlines())
    return [Requirement(line) for line in lines if line]


def pinned(python, system):
    """{name: version} that applies to one Python version and operating system; a name pinned twice fails."""
    where = {"python_version": python, "python_full_version": f"{python}.9", "sys_platform": system}
    found = [pin for pin in pins() if pin.marker is None or pin.marker.evaluate(where)]
    names = [canonicalize_name(pin.name) for pin in found]
    assert sorted(set(names)) == sorted(names), (python, system)
    return {name: next(iter(pin.specifier)).version for name, pin in zip(names, found)}


# --------------------------------------------------------------------------------------- the dependency files


def test_every_pin_is_exact():
    exact = re.compile(r"==\d[\w.]*")
    loose = [pin for pin in pins() if not exact.fullmatch(str(pin.specifier)) or pin.url or pin.extras]
    assert pins() and loose == []


@pytest.mark.parametrize("system", SYSTEMS)
@pytest.mark.parametrize("python", PYTHONS)
def test_pins_hold_what_is_declared_and_satisfy_its_bounds(python, system):
    versions = pinned(python, system)
    assert set(declared("dask", "dev")) <= set(versions)
    for name, requirement in declared("dask", "dev").items():
        assert len(requirement.specifier) == 1 and str(requirement.specifier).startswith(">="), name
        assert requirement.specifier.contains(versions[name]), (name, versions[name])
    assert [name for name in versions if CUDA.match(name)] == []


def test_conda_environment_agrees_with_the_pins():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))
    python, pip, nested = environment["dependencies"]
    assert pip == "pip" and set(nested) == {"pip"}
    python = python.removeprefix("python=")
    assert python in PYTHONS
    own = [line for line in nested["pip"] if not line.startswith("-")]
    assert [line for line in nested["pip"] if line.startswith("-")] == ["-r requirements.txt", "-e ."]
    wanted = {name: pinned(python, "linux")[name] for name in declared("dask", "dev")}
    assert {pin.name: next(iter(pin.specifier)).version for pin in pins("\n".join(own))} == wanted
    # Each package says what needs it.
    text = (ROOT / "environment.yml").read_text(encoding="utf-8")
    assert all(re.search(rf"- {re.escape(line)}\s+# \w", text) for line in own)


def test_everything_installed_is_pinned_and_installed_as_pinned():
    versions, wrong = pinned(f"{sys.version_info[0]}.{sys.version_info[1]}", sys.platform), []
    waiting, done = [(name, frozenset()) for name in declared("dask", "dev")], set()
    while waiting:
        name, extras = waiting.pop()
        if (name, extras) in done or CUDA.match(name):
            continue
        done.add((name, extras))
        installed = importlib.metadata.version(name)
        if name not in versions or not SpecifierSet(f"=={versions[name]}").contains(installed):
            wrong.append((name, installed, versions.get(name)))
        for text in importlib.metadata.requires(name) or []:
            need = Requirement(text)
            if need.marker is None or any(need.marker.evaluate({"extra": extra}) for extra in {"", *extras}):
                waiting.append((canonicalize_name(need.name), frozenset(need.extras)))
    assert wrong == []
    assert len(done) > 50  # the walk really went through the tree


def imported(source):
    """Top-level names that a piece of Python source imports, absolute imports only."""
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names.add(node.module.split(".")[0])
    return names


def undeclared(names):
    """The imported `names` that no requirement in pyproject.toml provides."""
    modules = {"scikit-learn": "sklearn"}
    allowed = {"clkit", *sys.stdlib_module_names, *(modules.get(name, name) for name in declared("dask"))}
    allowed |= {name for name, bringer in BROUGHT.items() if bringer in declared()}
    return names - allowed


def test_the_package_imports_only_what_is_declared():
    example = "import torch.nn, attrs\nfrom yaml import load\nfrom . import x"
    assert undeclared(imported(example)) == {"attrs", "yaml"}
    files = list((ROOT / "clkit").rglob("*.py"))
    found = {path.name: undeclared(imported(path.read_text(encoding="utf-8"))) for path in files}
    assert len(files) > 5 and {name: names for name, names in found.items() if names} == {}


def test_every_data_file_of_the_package_is_packaged():
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]
    patterns = settings["package-data"]["clkit"]
    files = [
        path.relative_to(ROOT / "clkit").as_posix()
        for path in (ROOT / "clkit").rglob("*")
        if path.is_file() and path.suffix not in (".py", ".pyc")
    ]
    assert "papers/published/spacenet.csv" in files
    assert [name for name in files if not any(fnmatch.fnmatch(name, pattern) for pattern in patterns)] == []


def test_versions_are_said_alike_everywhere():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert str(citation["version"]) == clkit.__version__
    assert citation["license"] == PROJECT["license"] == "MIT" and citation["cff-version"] == "1.2.0"
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text(encoding="utf-8"))
    job = workflow["jobs"]["test"]
    assert tuple(job["strategy"]["matrix"]["python"]) == PYTHONS
    assert job["steps"][-1]["run"] == "bash .ci/run"
    linting = " ".join(step.get("run", "") for step in workflow["jobs"]["lint"]["steps"])
    assert "ruff check" in linting and "ruff format --check" in linting and "requirements.txt" in linting
    assert PROJECT["requires-python"] == ">=3.10,<3.14"
    assert (setup.OLDEST, setup.TOO_NEW) == ((3, 10), (3, 14))


def cited(paper):
    """A reference of CITATION.cff: title in lower case, family names, year, arXiv number."""
    names = [f"{a.get('name-particle', '')} {a['family-names']}".strip() for a in paper["authors"]]
    [number] = [i["value"] for i in paper["identifiers"] if i["value"].startswith("arXiv:")]
    return paper["title"].lower(), names, paper["year"], number.removeprefix("arXiv:")


def listed(row):
    """The same for a row of the bibliography, which writes authors as "J. van de Weijer and X. Liu"."""
    people = re.split(r", | and ", row["authors"])
    names = [re.sub(r"^(?:\w\.[ -]?)+", "", name) for name in people]
    return row["title"].lower(), names, int(row["year"]), row["link"].removeprefix("https://arxiv.org/abs/")


def test_the_citation_agrees_with_the_bibliography():
    references = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))["references"]
    with (ROOT / "clkit/papers/references.csv").open(encoding="utf-8", newline="") as lines:
        rows = {row["key"]: row for row in csv.DictReader(lines)}
    methods = [re.search(r"in clkit: (\w+)\)", str(paper["identifiers"])).group(1) for paper in references]
    assert sorted(methods) == ["arm", "dgm", "gfr", "mfgr", "spacenet"]
    for method, paper in zip(methods, references):
        [key] = [key for key in rows if re.fullmatch(rf"[a-z]+\d{{4}}{method}", key)]
        assert cited(paper) == listed(rows[key]), method


@pytest.mark.parametrize(
    "change",
    [
        {"title": "x"},
        {"year": 1999},
        {"authors": [{"family-names": "Liu"}]},
        {"identifiers": [{"value": "arXiv:1"}]},
    ],
    ids=lambda change: next(iter(change)),
)
def test_a_citation_that_disagrees_is_noticed(change):
    paper = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))["references"][0]
    assert cited({**paper, **change}) != cited(paper)


# ------------------------------------------------------------------------------------------ how pins are made


def compiled(text):
    """The output of `uv pip compile` for a requirements.txt: one list, other quotes, also CUDA packages."""
    pins = [line for line in text.splitlines() if line and not line.startswith("#")]
    pins = [re.sub(r'python_version (\S+) "(\S+)"', r"python_full_version \1 '\2'", line) for line in pins]
    pins = [line.replace('"', "'") for line in pins] + ["nvidia-nvtx==1.0 ; sys_platform == 'linux'"]
    pins.sort(key=lambda line: making.name_of(line))
    return "\n".join(["--no-binary nothing", *pins, "    # via torch"]) + "\n"


def test_the_pins_with_hashes_are_the_same_pins():
    text = making.HASHES.read_text(encoding="utf-8")
    assert text.startswith(making.HEAD)
    blocks = [block.split() for block in re.split(r"\n(?=\S)", text.removeprefix(making.HEAD).strip())]
    hashed = {tuple(words[0].split("==")) for words in blocks}
    same = {name for name in hashed if not CUDA.match(name[0])}
    assert same == {(pin.name, str(pin.specifier).removeprefix("==")) for pin in pins()}
    assert {name for name, _ in hashed} >= {"triton", "nvidia-cublas", "torch"}
    sums = [word for words in blocks for word in words if word.startswith("--hash=")]
    assert all(any(word.startswith("--hash=") for word in words) for words in blocks)
    assert all(re.fullmatch(r"--hash=sha256:[0-9a-f]{64}", word) for word in sums) and len(sums) > 1000


def test_pins_made_anew_are_the_pins():
    text = (ROOT / "requirements.txt").read_text(encoding="utf-8")
    assert making.arranged(compiled(text), text) == text


def test_pins_made_anew_follow_uv():
    text = (ROOT / "requirements.txt").read_text(encoding="utf-8")
    lines = re.sub("^pexpect==.*\n", "", compiled(text).replace("tqdm==", "tqdm==9."), flags=re.M)
    lines += "zzz==1.0 ; python_full_version < '3.12' and sys_platform == 'linux'\nset-up==2\n"
    new = making.arranged(lines, text)
    gone, come = set(text.split("\n")) - set(new.split("\n")), set(new.split("\n")) - set(text.split("\n"))
    assert {line.partition("==")[0] for line in gone} == {"tqdm", "pexpect"}
    assert come == {
        f"tqdm==9.{pinned('3.11', 'linux')['tqdm']}",
        'zzz==1.0 ; python_version < "3.12" and sys_platform == "linux"',
        "set-up==2",
    }
    declared_part, _, rest = new.partition("# The build backend")
    assert "tqdm==9." in declared_part and "zzz==1.0" in rest


def test_a_marker_stays_as_written_only_where_it_says_the_same():
    text = (ROOT / "requirements.txt").read_text(encoding="utf-8")
    more = "; os_name != 'nt' and sys_platform != 'emscripten'"
    same = compiled(text).replace("; sys_platform != 'win32'", more)
    assert more in same
    assert making.arranged(same, text) == text
    other = compiled(text).replace("; sys_platform != 'win32'", "; sys_platform == 'linux'")
    assert 'pexpect==4.9.0 ; sys_platform == "linux"' in making.arranged(other, text)


# ----------------------------------------------------------------------------------------------- the commands


def make_targets():
    """Targets of the Makefile for users."""
    text = (ROOT / "Makefile").read_text(encoding="utf-8")
    return set(re.search(r"^\.PHONY: (.*)$", text, re.M).group(1).split())


def named_commands(markdown):
    """`make` targets that a text names as code: in backticks, or as a line of a code block."""
    blocks = re.findall(r"^```.*?^```", markdown, re.M | re.S)
    spans = re.findall(r"`([^`\n]+)`", re.sub(r"^```.*?^```", "", markdown, flags=re.M | re.S))
    lines = spans + [line for block in blocks for line in block.splitlines()]
    calls = [re.match(r"(?:\$ )?(?:[A-Z_]+=\S+ )*make((?: [^#|&;]*)?)", line.strip()) for line in lines]
    words = [word for call in calls if call for word in call.group(1).split() if "=" not in word]
    return {word for word in words if re.fullmatch(r"[a-z]+", word)}


def test_commands_named_in_the_documents_exist():
    example = (
        "`make workbook`, please make sure\n```\nCLKIT_DEVICE=cuda make test\n"
        "make PYTHON=python3.12 lab  # opens\n```\n"
    )
    assert named_commands(example) == {"workbook", "test", "lab"}
    for name in DOCUMENTS:
        commands = named_commands((ROOT / name).read_text(encoding="utf-8"))
        assert commands and commands <= make_targets(), (name, commands - make_targets())


def test_the_notebook_tests_without_make_are_those_of_make():
    """Each documented command that runs nbval has the options and the preset of the Makefile."""
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8").replace("\\\n", " ")
    options = re.search(r"^NBVAL_OPTIONS := (.*)$", makefile, re.M).group(1).split()
    preset = re.search(r"(CLKIT_PRESET=\w+).*\$\(NBVAL_OPTIONS\)", makefile).group(1)
    assert preset == "CLKIT_PRESET=smoke"
    commands = [
        line.split()
        for name in DOCUMENTS
        for block in re.findall(r"^```.*?\n(.*?)^```", (ROOT / name).read_text(encoding="utf-8"), re.M | re.S)
        for line in block.replace("\\\n", " ").splitlines()
        if "--nbval" in line
    ]
    assert commands and all(
        words[0] == preset and " ".join(options) in " ".join(words) for words in commands
    ), commands


def test_the_versions_of_torch_in_the_readme_are_the_pins():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    told = set(re.findall(r"\btorch(?:vision)?==[\d.]+\b", text))
    assert told == {f"{name}=={pinned('3.11', 'linux')[name]}" for name in ("torch", "torchvision")}


def test_help_tells_every_target():
    text = (ROOT / "Makefile").read_text(encoding="utf-8")
    told = set(re.findall(r'echo "make (\w+) ', text))
    assert told == make_targets() - {"help"}
    assert all(re.search(rf"^{target}:", text, re.M) for target in make_targets())


# ------------------------------------------------------------------------------------------------- the set-up


@pytest.fixture
def place(tmp_path, monkeypatch):
    """An empty place for .venv and a pip that only leaves a mark: (the place, the list of actions)."""
    venv, deeds = tmp_path / ".venv", []
    monkeypatch.setattr(setup, "VENV", str(venv))
    monkeypatch.setattr(setup, "STAMP", str(venv / "clkit-installed"))

    def create():
        deeds.append("create")
        interpreter = Path(setup.python_in(str(venv)))
        interpreter.parent.mkdir(parents=True)
        interpreter.symlink_to(sys.executable)
        return True

    def install():
        deeds.append("install")
        (venv / "packages").write_text("all")
        return True

    monkeypatch.setattr(setup, "create", create)
    monkeypatch.setattr(setup, "install", install)
    monkeypatch.setattr(setup, "complete", lambda: (venv / "packages").exists())
    monkeypatch.setattr(setup, "usable", lambda: Path(setup.python_in(str(venv))).exists())
    return venv, deeds


def test_setup_makes_an_environment_once(place):
    _venv, deeds = place
    setup.main()
    assert deeds == ["create", "install"]
    setup.main()
    assert deeds == ["create", "install"]


@pytest.mark.parametrize(
    "harm, cure",
    [
        (lambda venv: (venv / "packages").unlink(), ["install"]),
        (lambda venv: (venv / "clkit-installed").unlink(), ["install"]),
        (lambda venv: (venv / "clkit-installed").write_bytes(b"\xff\xfe"), ["install"]),
        (lambda venv: shutil.rmtree(venv / "bin") or (venv / "packages").unlink(), ["create", "install"]),
        (lambda venv: setup.remove(str(venv)) or venv.write_text("a file"), ["create", "install"]),
        (
            lambda venv: venv.rename(venv.parent / "other") and venv.symlink_to("nowhere"),
            ["create", "install"],
        ),
    ],
    ids=["package lost", "interrupted", "unreadable stamp", "no interpreter", "a file", "a dangling link"],
)
def test_setup_mends_a_broken_environment(place, harm, cure):
    venv, deeds = place
    setup.main()
    deeds.clear()
    harm(venv)
    setup.main()
    assert deeds == cure and setup.stamp() == setup.fingerprint() and setup.complete()


def test_setup_starts_anew_where_mending_fails_and_undoes_that_where_it_fails_too(place, monkeypatch):
    venv, deeds = place
    setup.main()
    deeds.clear()
    (venv / "packages").unlink()
    (venv / "mine").write_text("kept")
    monkeypatch.setattr(setup, "install", lambda: deeds.append("failed") or False)
    with pytest.raises(SystemExit, match="check the network and the free disk space"):
        setup.main()
    assert deeds == ["failed", "create", "failed"] and setup.stamp() == ""
    assert (venv / "mine").exists() and [path.name for path in venv.parent.iterdir()] == [".venv"]


def test_setup_says_what_to_do_where_python_cannot_make_environments(place, monkeypatch):
    monkeypatch.setattr(setup, "create", lambda: False)
    with pytest.raises(SystemExit, match="install its venv module"):
        setup.main()
    assert place[1] == [] and setup.stamp() == ""


def test_setup_follows_a_change_of_the_pins(place, monkeypatch):
    _, deeds = place
    setup.main()
    deeds.clear()
    monkeypatch.setattr(setup, "fingerprint", lambda: "other pins")
    setup.main()
    assert deeds == ["install"] and setup.stamp() == "other pins"


@pytest.fixture
def machine(monkeypatch):
    """A Linux machine without a GPU, and the commands of the set-up there; none of them runs."""
    commands = []

    def quiet(*command):
        commands.append(command)
        return "importlib" not in command[-1]  # torch is not installed yet

    monkeypatch.setattr(setup, "quiet", quiet)
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(setup.shutil, "which", lambda name: None)
    exists = setup.os.path.exists
    monkeypatch.setattr(setup.os.path, "exists", lambda path: path != "/dev/nvidiactl" and exists(path))
    monkeypatch.delenv("CLKIT_DEVICE", raising=False)
    return commands


def test_setup_takes_the_cpu_build_where_there_is_no_gpu(machine):
    assert setup.install_cpu_build(["pip", "install"])
    _, get_uv, get_torch = machine
    assert get_uv[:2] == ("pip", "install") and get_uv[-1] == "uv"
    assert "--torch-backend cpu torch==" in " ".join(get_torch)
    assert list(get_torch[-2:]) == [
        f"{name}=={pinned('3.11', 'linux')[name]}" for name in ("torch", "torchvision")
    ]
    assert not Path(get_torch[0]).parent.exists()  # nothing of uv stays


@pytest.mark.parametrize(
    "change",
    [
        lambda patch: patch.setattr(sys, "platform", "darwin"),
        lambda patch: patch.setattr(setup.shutil, "which", lambda name: "/usr/bin/" + name),
        lambda patch: patch.setenv("CLKIT_DEVICE", "cuda"),
        lambda patch: patch.setattr(
            setup, "quiet", lambda *command: "importlib" in command[-1] or pytest.fail("asked")
        ),
    ],
    ids=["macOS", "a GPU", "asked for", "there already"],
)
def test_setup_leaves_the_choice_to_pip_elsewhere(machine, monkeypatch, change):
    change(monkeypatch)
    assert setup.install_cpu_build(["pip", "install"])
    assert [command for command in machine if "importlib" not in command[-1]] == []


def test_setup_continues_where_the_cpu_build_is_out_of_reach(machine, monkeypatch, capsys):
    calls = []
    monkeypatch.setattr(setup, "quiet", lambda *command: False)
    monkeypatch.setattr(setup.subprocess, "call", lambda command, **options: calls.append(command) or 0)
    monkeypatch.setattr(setup, "complete", lambda: True)
    assert setup.install()
    assert "2.9 GB to download instead of 0.4 GB" in capsys.readouterr().out
    assert calls[0][-2:] == ["-r", "requirements.txt"] and calls[1][-1] == "."


@pytest.mark.parametrize("version", [(3, 9, 18), (3, 14, 0), (2, 7, 18)])
def test_setup_refuses_other_pythons_in_one_sentence(place, monkeypatch, version):
    monkeypatch.setattr(sys, "version_info", version)
    with pytest.raises(SystemExit, match="clkit needs Python 3.10 to 3.13, but this is .*; name another one"):
        setup.main()
    assert place[1] == []


def test_the_check_of_an_environment_sees_missing_packages(tmp_path):
    run = [sys.executable, "-I", "-c", setup.CHECK]
    assert subprocess.run([*run, str(ROOT / "requirements.txt"), str(ROOT)]).returncode == 0
    other = tmp_path / "requirements.txt"
    other.write_text("# comment\nno-such-package==1.0\ntqdm==0.1\nabsent==1 ; python_version < '3'\n")
    result = subprocess.run([*run, str(other), str(tmp_path)], capture_output=True, text=True)
    assert result.returncode == 1
    assert result.stderr.strip().endswith("no-such-package, tqdm, clkit (another copy)")


# ------------------------------------------------------------------------------------- nothing private inside

# Put together here, so that this file does not contain what it forbids.
FOLDERS = "|".join(("home", "Users", "root", "work", "opt", "mnt", "private"))
PRIVATE = re.compile(rf"(?<![\w./:<])/(?:{FOLDERS})/[\w.]|\b[A-Z]:\\Users")
REGISTRY = re.compile(
    "|".join(
        (
            "pypi" + r"\.org",
            "python" + "hosted",
            "index" + "-url",
            "find" + "-links",
            "anaconda" + r"\.org",
            r"download\.py" + "torch",
            "npm" + r"js\.org",
        )
    )
)


def published_files():
    """Files that git tracks or would add; without git, every file outside the ignored folders."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    try:
        listed = subprocess.run(command, cwd=ROOT, capture_output=True, check=True, text=True)
        names = listed.stdout.split("\0")
    except (OSError, subprocess.CalledProcessError):
        ignored = {
            ".git",
            ".venv",
            "build",
            "runs",
            "clkit.egg-info",
            "__pycache__",
            ".pytest_cache",
            ".ipynb_checkpoints",
        }
        names = [
            path.relative_to(ROOT).as_posix()
            for path in ROOT.rglob("*")
            if not ignored & set(path.relative_to(ROOT).parts)
        ]
    return [ROOT / name for name in names if name and (ROOT / name).is_file()]


@pytest.mark.parametrize(
    "text, bad",
    [
        ("see /" + "home/someone/data", True),
        ("C:" + r"\Users\me", True),
        ("pip --" + "index" + "-url x", True),
        ("from the web site of MNIST, in data/mnt/x", False),
        ("#!/usr/bin/env bash", False),
    ],
)
def test_private_text_is_noticed(text, bad):
    assert bool(PRIVATE.search(text) or REGISTRY.search(text)) == bad


def test_no_published_file_holds_a_private_path_or_a_registry_address():
    found, read = [], 0
    for path in published_files():
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:  # a picture or an array
            continue
        read += 1
        for pattern in (PRIVATE, REGISTRY):
            found += [(path.name, match.group()) for match in pattern.finditer(text)]
    assert read > 20 and found == []
