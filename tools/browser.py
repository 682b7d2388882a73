"""Install what the browser tests need into build/browser, and run them.

    python tools/browser.py [--if-present] [options of pytest]

Chromium comes from the system, playwright from PyPI, axe-core from npm; .venv does not change. If Chromium or
npm is missing, one line says so; with --if-present that is not a failure.
"""

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BUILD = ROOT / "build" / "browser"
PACKAGES = BUILD / "packages"  # on Python's path during these tests only
AXE = BUILD / "node_modules" / "axe-core" / "axe.min.js"
PLAYWRIGHT, AXE_CORE = "playwright==1.65.2", "axe-core@4.14.1"


def chromium():
    """Path of the system's Chromium, or None."""
    names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
    return next(filter(None, map(shutil.which, names)), None)


def missing():
    """What is missing to run the browser tests in this process, or an empty string."""
    if chromium() is None:
        return "no Chromium"
    return "" if importlib.util.find_spec("playwright") and AXE.is_file() else "no playwright or axe-core"


def bring():
    """Install the pinned versions of playwright and axe-core unless they are there; exit on failure."""
    stamp, wanted = BUILD / "installed", f"{PLAYWRIGHT} {AXE_CORE} python {sys.version.split()[0]}\n"
    if stamp.is_file() and stamp.read_text() == wanted:
        return
    print("installing playwright and axe-core into build/browser", flush=True)
    shutil.rmtree(BUILD, ignore_errors=True)
    BUILD.mkdir(parents=True)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input", "install", "--quiet"]
    npm = ["npm", "install", "--silent", "--no-audit", "--no-fund", "--prefix", str(BUILD), AXE_CORE]
    for command in ([*pip, "--target", str(PACKAGES), PLAYWRIGHT], npm):
        if subprocess.call(command, cwd=ROOT) != 0:
            sys.exit("browser: the installation failed (see above); check the network and try again")
    stamp.write_text(wanted)


def main(arguments):
    """Read the command line and do what it says."""
    optional = "--if-present" in arguments
    lacking = [name for name, found in (("Chromium", chromium()), ("npm", shutil.which("npm"))) if not found]
    if lacking:
        said = f"browser tests not run: install {' and '.join(lacking)} (on Debian: chromium, npm)"
        if not optional:
            sys.exit(said)
        print(said)
        return
    bring()
    paths = os.pathsep.join(filter(None, [str(PACKAGES), os.environ.get("PYTHONPATH")]))
    command = [
        sys.executable,
        "-m",
        "pytest",
        *(a for a in arguments if a != "--if-present"),
        "tests/browser",
    ]
    sys.exit(subprocess.call(command, cwd=ROOT, env={**os.environ, "PYTHONPATH": paths}))


if __name__ == "__main__":
    main(sys.argv[1:])
