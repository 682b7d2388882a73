"""Make the project's .venv, or mend it, or leave it alone: what every `make` target runs first.

Run by the system's Python with nothing installed, and perhaps by one that is too old: only the standard
library, and only syntax that an old Python 3 can read well enough to say so.
"""

import hashlib
import os
import shutil
import subprocess
import sys

OLDEST, TOO_NEW = (3, 10), (3, 14)
ROOT = os.path.dirname(os.path.dirname(os.path.realpath(__file__)))
VENV = os.path.join(ROOT, ".venv")
STAMP = os.path.join(VENV, "clkit-installed")

# Run inside .venv: every pinned package that applies here is installed, at its version, with its files.
# It imports none of the large ones, because this check precedes every command.
CHECK = """
import importlib.metadata as metadata, importlib.util as util, os, sys
from packaging.requirements import Requirement
wrong = []
for line in open(sys.argv[1], encoding="utf-8"):
    line = line.split("#")[0].strip()
    if not line:
        continue
    pin = Requirement(line)
    if pin.marker is not None and not pin.marker.evaluate():
        continue
    try:
        if not pin.specifier.contains(metadata.version(pin.name), prereleases=True):
            wrong.append(pin.name)
    except metadata.PackageNotFoundError:
        wrong.append(pin.name)
modules = "torch torchvision jupyterlab matplotlib seaborn sklearn ipywidgets nbval tqdm joblib".split()
wrong += [name for name in modules if util.find_spec(name) is None or util.find_spec(name).origin is None]
import clkit
if not os.path.realpath(clkit.__file__).startswith(sys.argv[2] + os.sep):
    wrong.append("clkit (another copy)")
sys.exit("missing or of another version: " + ", ".join(wrong) if wrong else 0)
"""


def python_in(venv):
    """Path of the interpreter inside `venv`."""
    return os.path.join(venv, *(("Scripts", "python.exe") if os.name == "nt" else ("bin", "python")))


def fingerprint():
    """Text that changes whenever what is installed would change: pins, declared packages, Python, place."""
    digest = hashlib.sha256()
    for name in ("requirements.txt", "pyproject.toml"):
        with open(os.path.join(ROOT, name), "rb") as file:
            digest.update(file.read())
    # A .venv that is moved or copied still points to its old place, hence the folder.
    return "{} python {} in {}\n".format(digest.hexdigest(), sys.version.split()[0], ROOT)


def stamp():
    """The fingerprint of the last complete installation, or an empty text."""
    try:
        with open(STAMP, encoding="utf-8") as file:
            return file.read()
    except (OSError, UnicodeDecodeError):
        return ""


def quiet(*command):
    """Whether `command` runs and succeeds."""
    try:
        return subprocess.call(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) == 0
    except OSError:
        return False


def complete():
    """Whether .venv holds the pinned packages and this clkit; takes a fraction of a second."""
    return quiet(python_in(VENV), "-I", "-c", CHECK, os.path.join(ROOT, "requirements.txt"), ROOT)


def usable():
    """Whether .venv has a working interpreter of this Python's version, and pip."""
    same = "import sys, pip; sys.exit(sys.version.split()[0] != {!r})".format(sys.version.split()[0])
    return not os.path.islink(VENV) and quiet(python_in(VENV), "-I", "-c", same)


def remove(path):
    """Delete what stands at `path`: a folder, a link (only the link goes) or a file."""
    if os.path.isdir(path) and not os.path.islink(path):
        shutil.rmtree(path)
    elif os.path.lexists(path):
        os.unlink(path)


def create():
    """Make an empty .venv; True if that succeeded."""
    print("setting up .venv with Python " + sys.version.split()[0], flush=True)
    return subprocess.call([sys.executable, "-m", "venv", VENV]) == 0


def install():
    """Install the pins and then clkit into .venv; True if both succeeded and everything is in place."""
    pip = [python_in(VENV), "-m", "pip", "--disable-pip-version-check", "--no-input", "install", "--quiet"]
    print("installing the packages of requirements.txt (a few minutes the first time)", flush=True)
    if subprocess.call(pip + ["-r", "requirements.txt"], cwd=ROOT) != 0:
        return False
    # The backend is among the pins, so that no second environment is filled to build one small package.
    own = ["--no-deps", "--no-build-isolation", "--editable", "."]
    return subprocess.call(pip + own, cwd=ROOT) == 0 and complete()


def renew():
    """Put a new .venv in the place of the present one; if that fails, undo it and exit with one sentence."""
    old = VENV + ".old"
    remove(old)
    # One that still works may serve a user who has no network now.
    if usable():
        os.rename(VENV, old)
    remove(VENV)
    if not create():
        problem = (
            "this Python could not make a virtual environment (see above); install its venv module "
            "(Debian and Ubuntu: python3-venv), or name another Python: make PYTHON=python3.12"
        )
    elif not install():
        problem = (
            "installing failed (see above); check the network and the free disk space, then run the "
            "same command again"
        )
    else:
        return
    if os.path.exists(old):
        remove(VENV)
        os.rename(old, VENV)
    sys.exit("setup: " + problem)


def main():
    """Bring .venv to the pinned state; exit with one sentence where that is impossible."""
    if not OLDEST <= sys.version_info[:2] < TOO_NEW:
        sys.exit(
            "setup: clkit needs Python 3.10 to 3.13, and this is {}; name another one: "
            "make PYTHON=python3.12".format(sys.version.split()[0])
        )
    if stamp() == fingerprint() and complete():
        return
    if os.path.exists(STAMP):
        os.unlink(STAMP)
    if not (usable() and install()):
        renew()
    remove(VENV + ".old")
    with open(STAMP, "w", encoding="utf-8") as file:
        file.write(fingerprint())


if __name__ == "__main__":
    main()
