"""The report of ``python -m clkit doctor``: versions, device, data, disk space, problems and their cure."""

import importlib.metadata
import os
import platform
import shutil
import sys

from clkit import __version__

PACKAGES = (
    "torch torchvision jupyterlab matplotlib seaborn scikit-learn ipywidgets nbval tqdm joblib filelock"
).split()


def examine():
    """(report of several lines, whether clkit has everything that it needs)."""
    import torch

    from clkit import data, experiments

    python, problems = platform.python_version(), []
    lines = [f"clkit {__version__}, Python {python}, {platform.system()} {platform.machine()}"]
    for name in PACKAGES:
        try:
            lines.append(f"  {name:14} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            lines.append(f"  {name:14} missing")
            cure = "run `make workbook`, or `pip install -r requirements.txt`"
            problems.append(f"{name} is not installed: {cure}")
    if torch.cuda.is_available():
        lines.append(f"device: cuda, {torch.cuda.get_device_name()}")
    else:
        lines.append(f"device: cpu, {os.cpu_count()} cores")
        if torch.version.cuda and shutil.which("nvidia-smi"):
            problems.append(
                "there is an NVIDIA driver, but torch sees no GPU: update the driver, which may be too old"
            )
    try:
        data.torchvision()
    except data.DataError as error:
        problems.append(str(error))
    rows = data.catalogue()
    lines.append(f"data root: {data.root()}{data.state_of_root()}")
    lines.append("data sets present: " + ", ".join(row.name for row in rows if row.present))
    closed = [row.how_to_get for row in rows if "cannot be read" in row.how_to_get]
    lines += [f"passed over: {fault}" for fault in closed]
    runs = experiments.runs_root()
    near = next(p for p in (runs, *runs.parents) if os.path.isdir(p))
    free = shutil.disk_usage(near).free
    lines.append(f"run folders: {runs}, {free / 1e9:.1f} GB free")
    if free < 1e9:
        cure = "make room, or set CLKIT_RUNS"
        problems.append(f"less than 1 GB is free in {near}, which holds the run folders: {cure}")
    if not os.access(near, os.W_OK):
        problems.append(f"{near} is not writable: set CLKIT_RUNS to a folder that is")
    if not (3, 10) <= sys.version_info[:2] <= (3, 13):
        problems.append(f"clkit is tested with Python 3.10 to 3.13, not {python}: use one of these")
    lines += [f"problem: {p}" for p in problems] or ["no problems found"]
    return "\n".join(lines), not problems
