"""Generate requirements.txt with `uv pip compile`, after a change in pyproject.toml or for newer versions.

    python tools/pins.py                             # keep every pin that still fits
    python tools/pins.py --upgrade                   # the newest version of every package
    python tools/pins.py --upgrade-package jupyterlab

Needs uv (`python -m pip install uv`) and the network; options are passed on to `uv pip compile`. One
resolution serves all Python versions and systems, with markers where they differ. The CUDA packages that
torch requires are left out: a CUDA build names them itself, and a CPU build needs none. They are in
requirements-hashes.txt, which is written with it: the same pins with the sha256 of every file, for
`pip install --require-hashes`. environment.yml repeats some pins; tests/test_packaging.py reports where it
disagrees.
"""

import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from packaging.requirements import Requirement

try:
    import tomllib
except ModuleNotFoundError:  # Python 3.10, where pytest brings the same module under this name
    import tomli as tomllib

ROOT = Path(__file__).resolve().parent.parent
PINS, PROJECT, HASHES = (ROOT / f for f in ("requirements.txt", "pyproject.toml", "requirements-hashes.txt"))
COMPILE = (
    "pip compile --universal --python-version 3.10 --extra dev --extra dask --no-annotate --no-header "
    "--quiet --generate-hashes"
).split()
HEAD = """\
# The pins of requirements.txt with the sha256 of every file, and the CUDA packages of PyTorch for Linux.
# Written by tools/pins.py, for `python -m pip install --require-hashes -r requirements-hashes.txt`.
"""
PYTHONS = [f"3.{minor}.{patch}" for minor in (10, 11, 12, 13) for patch in (0, 9)]
SYSTEMS = {"linux": "Linux", "darwin": "Darwin", "win32": "Windows"}
CUDA = re.compile(r"(nvidia|cuda)-|triton$")
TITLES = "# Declared in", "# The build backend", "# What those need"


def name_of(line):
    """The name of the package in a requirement such as "torch>=2.11 ; sys_platform == 'linux'"."""
    return re.match(r"[\w.-]+", line).group().lower().replace("_", "-")


def sections(text):
    """requirements.txt in parts: its head, and the comment and the pins of each of its three sections."""
    head, *blocks = text.strip("\n").split("\n\n")
    parts = [block.split("\n") for block in blocks]
    if not all(lines[0].startswith(title) for lines, title in zip(parts, TITLES, strict=True)):
        sys.exit(f"pins: the sections of {PINS.name} must be: {', '.join(TITLES)}")
    return head, [(lines[0], lines[1:]) for lines in parts]


def plain(line):
    """A pin in the form of requirements.txt: double quotes, and python_version if no patch level matters."""
    line = line.removesuffix(" \\").replace("'", '"')
    return re.sub(r'python_full_version (\S+) ("3\.\d+")(?!\.)', r"python_version \1 \2", line)


def where(line):
    """(name, version, whether it applies on each Python version and system) of a pin."""
    pin = Requirement(line)
    places = [
        {
            "python_full_version": python,
            "python_version": python.rpartition(".")[0],
            "sys_platform": system,
            "platform_system": name,
            "os_name": "nt" if system == "win32" else "posix",
            "implementation_name": "cpython",
            "platform_python_implementation": "CPython",
        }
        for python in PYTHONS
        for system, name in SYSTEMS.items()
    ]
    return pin.name, str(pin.specifier), tuple(not pin.marker or pin.marker.evaluate(p) for p in places)


def arranged(compiled, text):
    """The new requirements.txt: the pins that uv compiled, in the sections of the old text.

    An unchanged pin keeps its old line, because uv's markers cover more systems than clkit supports.
    """
    head, old = sections(text)
    written = {where(line): line for _, lines in old for line in lines}
    facts = project()
    extras = [line for lines in facts["project"]["optional-dependencies"].values() for line in lines]
    declared = {name_of(line) for line in facts["project"]["dependencies"] + extras}
    backend = {name_of(line) for line in facts["build-system"]["requires"]}
    pins = [plain(line) for line in compiled.splitlines() if line and line[0] not in "#- "]
    pins = [written.get(where(line), line) for line in pins if not CUDA.match(name_of(line))]
    kinds = [
        lambda name: name in declared,
        lambda name: name in backend - declared,
        lambda name: name not in declared | backend,
    ]
    blocks = [[title, *(p for p in pins if kind(name_of(p)))] for (title, _), kind in zip(old, kinds)]
    return "\n\n".join([head, *("\n".join(block) for block in blocks)]) + "\n"


def project():
    """pyproject.toml as dictionaries."""
    return tomllib.loads(PROJECT.read_text(encoding="utf-8"))


def main(options):
    uv = shutil.which("uv")
    if uv is None:
        sys.exit("pins: the command uv is missing: install it, for example with `python -m pip install uv`")
    text, backend = PINS.read_text(encoding="utf-8"), "\n".join(project()["build-system"]["requires"])
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / PINS.name
        out.write_text(text, encoding="utf-8")  # pins that still fit are kept
        command = [uv, *COMPILE, *options, str(PROJECT), "-", "--output-file", str(out)]
        if subprocess.run(command, input=backend, text=True, cwd=ROOT).returncode:
            sys.exit("pins: uv found no fitting versions (see above); requirements.txt is unchanged")
        hashed = out.read_text(encoding="utf-8")
    new = arranged(hashed, text)
    PINS.write_text(new, encoding="utf-8")
    HASHES.write_text(HEAD + hashed, encoding="utf-8")
    before, after = set(text.splitlines()), set(new.splitlines())
    for sign, lines in (("-", before - after), ("+", after - before)):
        for line in sorted(lines):
            print(sign, line)
    print("requirements.txt is unchanged" if new == text else "requirements.txt is new: run `make test`")


if __name__ == "__main__":
    main(sys.argv[1:])
