"""Create the project's .venv, repair it, or leave it alone; every `make` target runs this first.

The system's Python runs this file with nothing installed, and may be too old: it uses only the standard
library, and only syntax that an old Python 3 can parse well enough to report its version.
"""

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile

OLDEST, TOO_NEW = (3, 10), (3, 14)
ROOT = os.path.dirname(os.path.dirname(os.path.realpath(__file__)))
VENV = os.path.join(ROOT, ".venv")
STAMP = os.path.join(VENV, "clkit-installed")

# Run inside .venv: checks that every pinned package that applies here is installed, at its version, with its
# files. It imports none of the large packages, because this check precedes every command.
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
modules = "torch torchvision jupyterlab matplotlib seaborn sklearn ipywidgets nbval tqdm joblib"
modules = [*modules.split(), "filelock"]
wrong += [name for name in modules if util.find_spec(name) is None or util.find_spec(name).origin is None]
import clkit
if not os.path.realpath(clkit.__file__).startswith(sys.argv[2] + os.sep):
    wrong.append("clkit (another copy)")
sys.exit("missing, or in another version: " + ", ".join(wrong) if wrong else 0)
"""


def python_in(venv):
    """Path of the interpreter in `venv`."""
    return os.path.join(venv, *(("Scripts", "python.exe") if os.name == "nt" else ("bin", "python")))


def fingerprint():
    """Text that changes with anything that an installation depends on: pins, packages, Python, folder."""
    digest = hashlib.sha256()
    for name in ("requirements.txt", "pyproject.toml"):
        with open(os.path.join(ROOT, name), "rb") as file:
            digest.update(file.read())
    # The folder is part of it because a .venv that was moved or copied still points to its old place.
    return "{} python {} in {}\n".format(digest.hexdigest(), sys.version.split()[0], ROOT)


def stamp():
    """The fingerprint of the last complete installation, or an empty string."""
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
    """Delete a folder, a link (not its target) or a file."""
    if os.path.isdir(path) and not os.path.islink(path):
        shutil.rmtree(path)
    elif os.path.lexists(path):
        os.unlink(path)


def create():
    """Create an empty .venv; True if that succeeded."""
    print("setting up .venv with Python " + sys.version.split()[0], flush=True)
    return subprocess.call([sys.executable, "-m", "venv", VENV]) == 0


def wants_cpu_build():
    """Whether to install PyTorch's smaller CPU build: on Linux, pip alone installs the CUDA build.

    CLKIT_DEVICE=cuda asks for the CUDA build, for instance for a .venv that will be used elsewhere.
    """
    asked = os.environ.get("CLKIT_DEVICE", "auto")
    nvidia = os.path.exists("/dev/nvidiactl") or shutil.which("nvidia-smi") is not None
    return sys.platform.startswith("linux") and not nvidia and not asked.startswith("cuda")


def torch_pins():
    """The lines of requirements.txt that pin torch and torchvision; both must come from the same build."""
    with open(os.path.join(ROOT, "requirements.txt"), encoding="utf-8") as file:
        lines = [line.split("#")[0].strip() for line in file]
    return [line for line in lines if line.startswith(("torch==", "torchvision=="))]


def install_cpu_build(pip):
    """Install PyTorch's CPU build if it is the right one; False if that failed.

    uv knows where these builds are, and pip does not. uv is installed into a temporary folder.
    """
    held = "import importlib.metadata as m; [m.version(name) for name in ('torch', 'torchvision')]"
    if not wants_cpu_build() or quiet(python_in(VENV), "-I", "-c", held):
        return True
    print("no NVIDIA GPU found: installing PyTorch's CPU build", flush=True)
    folder = tempfile.mkdtemp()
    try:
        uv = os.path.join(folder, "bin", "uv")
        where = ["--python", python_in(VENV), "--no-cache", "--no-deps", "--torch-backend", "cpu"]
        got_uv = quiet(*(pip + ["--target", folder, "uv"]))
        return got_uv and quiet(*([uv, "pip", "install"] + where + torch_pins()))
    finally:
        remove(folder)


def install():
    """Install the pins and then clkit into .venv; True if both succeeded and everything is in place."""
    pip = [python_in(VENV), "-m", "pip", "--disable-pip-version-check", "--no-input", "install", "--quiet"]
    if not install_cpu_build(pip):
        print(
            "that build could not be installed: pip now takes the build that it finds, on Linux usually the "
            "one for CUDA, which also works without a GPU (2.9 GB to download instead of 0.4 GB)",
            flush=True,
        )
    print("installing the packages of requirements.txt (a few minutes the first time)", flush=True)
    if subprocess.call(pip + ["-r", "requirements.txt"], cwd=ROOT) != 0:
        return False
    # The build backend is among the pins, so no second environment is needed to build one small package.
    own = ["--no-deps", "--no-build-isolation", "--editable", "."]
    return subprocess.call(pip + own, cwd=ROOT) == 0 and complete()


def renew():
    """Replace .venv by a new one; if that fails, restore the old one and exit with one sentence."""
    old = VENV + ".old"
    remove(old)
    # A .venv that still works is of use to a user without a network.
    if usable():
        os.rename(VENV, old)
    remove(VENV)
    if not create():
        problem = (
            "this Python could not create a virtual environment (see above); install its venv module "
            "(on Debian and Ubuntu: python3-venv), or name another Python: make PYTHON=python3.12"
        )
    elif not install():
        problem = (
            "the installation failed (see above); check the network and the free disk space, then run the "
            "same command again"
        )
    else:
        return
    if os.path.exists(old):
        remove(VENV)
        os.rename(old, VENV)
    sys.exit("setup: " + problem)


def main():
    """Bring .venv to the pinned state; exit with one sentence if that is impossible."""
    if not OLDEST <= sys.version_info[:2] < TOO_NEW:
        sys.exit(
            "setup: clkit needs Python 3.10 to 3.13, but this is {}; name another one: "
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
