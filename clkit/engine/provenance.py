"""The origin of a result: its key, and facts about the process that computed it. Needs no torch.

A key is a fingerprint of the learner's name, the REVISION in its file, the settings that differ from the
Config's defaults, and the facts of the stream. Source text is not part of it, so formatting, renaming and
moving code leave results valid; ``python -m tools.revise`` tells when a new REVISION is due. The user's own
code is part of it by its content: see `clkit.engine.own_code`. The seed, the device and the versions of
libraries are stored beside the key, not in it.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import platform
import subprocess
import sys
from collections.abc import Mapping
from datetime import date
from functools import lru_cache
from pathlib import Path
from typing import Any

from clkit import __version__
from clkit.engine import RunError
from clkit.engine.own_code import own_code
from clkit.engine.torchrun import process

Facts = dict[str, Any]
Revision = int | str | None
PROCESS = ("versions", "commit", "date", "cpu", "processes")  # they may differ where a run was continued


# ---- the key


def record_key(learner: str, revision: Revision, settings: Mapping, stream: Mapping) -> str | None:
    """16 hexadecimal digits that identify what a result depends on; None if the revision is unknown.

    learner: name of the class.   revision: see `revision_of`.   settings: see `settings_of`.   stream: from
    Stream.about().
    """
    if revision is None:
        return None
    parts = [learner, revision, plain(settings), plain(stream)]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def key_of(learner: type, config: Any, stream: Mapping) -> str | None:
    """The `record_key` of a Learner class, an instance of its Config and the facts of a stream."""
    return record_key(learner.__name__, revision_of(learner, config), settings_of(config), stream)


def settings_of(config: Any) -> Facts:
    """The settings of a Config that differ from its defaults, as plain JSON values."""
    settings, missing = {}, type(dataclasses.MISSING)  # in a copy from another process it is another object
    for field in dataclasses.fields(config):
        value, default, make = plain(getattr(config, field.name)), field.default, field.default_factory
        if not isinstance(make, missing):
            default = make()
        if isinstance(default, missing) or value != plain(default):
            settings[field.name] = value
    return settings


def revision_of(learner: type, config: Any = None) -> Revision:
    """The REVISION in the file of a Learner class, which is raised whenever a change to it changes results.

    For a learner outside clkit, the sha256 of all own code that it and its Config lead to; None if that
    cannot be known. For one of clkit that leads to own code too, such as a network that `config` names,
    "REVISION+" and the sha256. RunError if a file of clkit has no REVISION.
    """
    name, fields = learner.__module__, dataclasses.fields(config) if config is not None else ()
    roots = (learner,) if config is None else (learner, type(config))
    own = own_code(*roots, names=[getattr(config, f.name) for f in fields])
    if name.partition(".")[0] != "clkit":
        return own
    revision = getattr(sys.modules.get(name), "REVISION", None)
    if not isinstance(revision, int):
        raise RunError(f"{name} has no REVISION: write `REVISION = 1` below its imports")
    return own if own is None else f"{revision}+{own}" if own else revision


def plain(value: Any) -> Any:
    """A value as it comes back from JSON: tuples become lists."""
    return json.loads(json.dumps(value))


# ---- the process


def process_facts() -> Facts:
    """Facts about this process that the last digits may depend on: versions, commit, date, CPU model.

    Also how many processes compute the run together.
    """
    import numpy
    import torch

    versions = {"clkit": __version__, "python": platform.python_version()}
    versions |= {"torch": torch.__version__, "numpy": numpy.__version__}
    facts = {"versions": versions, "commit": commit(), "date": date.today().isoformat(), "cpu": cpu_model()}
    return facts | {"processes": process().size}


@lru_cache
def commit() -> str | None:
    """The commit of this checkout, followed by "+" if files differ from it; None outside a checkout."""
    here = Path(__file__).resolve().parents[2]

    def git(*words: str) -> str:
        done = subprocess.run(["git", "-C", str(here), *words], capture_output=True, text=True, check=True)
        return done.stdout.strip()

    try:
        if Path(git("rev-parse", "--show-toplevel")).resolve() != here:
            return None
        changed = git("status", "--porcelain", "--", "clkit")
        return git("rev-parse", "--short=12", "HEAD") + ("+" if changed else "")
    except (OSError, subprocess.CalledProcessError):
        return None


@lru_cache
def cpu_model() -> str | None:
    """The name of the CPU, such as "Intel(R) Xeon(R) Platinum 8481C CPU"; None if the system gives none."""
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:  # not Linux
        pass
    if sys.platform == "darwin":
        done = subprocess.run(["sysctl", "-n", "machdep.cpu.brand_string"], capture_output=True, text=True)
        if done.returncode == 0:
            return done.stdout.strip()
    return platform.processor() or None
