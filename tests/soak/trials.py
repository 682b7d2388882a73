"""Trials of the command line: signals, several processes, a disk that fills, damaged files.

In each trial a command is disturbed at a random moment or in a random way. It must end with a known status
and without a traceback; the processes it started must end with it; and the same command, with the cure that
it names where there is one, must end bit for bit as the command that was never disturbed.
"""

import contextlib
import multiprocessing
import os
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

from clkit.__main__ import _leave, main
from tests.soak import compare

ROOT = Path(__file__).resolve().parents[2]
COMMAND = ["run", "er/split-digits", "--preset", "smoke", "--every", "0", "--keep", "*"]
PATIENCE = 600  # seconds after which a process counts as hanging, on a busy machine too
BLOCK = 8192  # the smallest limit of a file's size: the messages must fit


def _hear_hangups():
    """Undo nohup, under which this may run."""
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


def _child(words, runs, log, limit, ready):
    """Run a command as its own process group does, with its output in a file."""
    os.setsid()
    os.environ["CLKIT_RUNS"] = str(runs)
    with open(log, "wb") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    if limit:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    signal.signal(signal.SIGINT, _leave)
    _hear_hangups()
    ready.set()
    sys.exit(main(words))


def _group(leader):
    """The processes of a group that still run."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            _, _, fields = path.read_text().rpartition(")")
        except OSError:  # it has just ended
            continue
        state, parent, group, *_ = fields.split()
        if int(group) == leader and state not in "ZX":
            found.append((int(path.parent.name), int(parent)))
    return found


def _stages(runs):
    return list(runs.glob("*/seed-*/stage-*.npz"))


def _is_worker(pid):
    """Whether a process computes; another one keeps account of shared memory."""
    try:
        return b"popen_loky" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False


class _New:
    """A command in a new interpreter, which several processes need; used like a multiprocessing.Process."""

    def __init__(self, words, runs, log):
        with open(log, "wb") as file:
            self.popen = subprocess.Popen(
                [sys.executable, "-m", "clkit", *words],
                cwd=ROOT,
                env={**os.environ, "CLKIT_RUNS": str(runs)},
                stdout=file,
                stderr=file,
                start_new_session=True,
                preexec_fn=_hear_hangups,
            )
        self.pid = self.popen.pid

    def join(self, seconds):
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.popen.wait(seconds)

    def is_alive(self):
        return self.popen.poll() is None

    @property
    def exitcode(self):
        return self.popen.poll()


class Trials:
    """Commands that are started from one warm process, as they need not import torch, and disturbed."""

    def __init__(self, folder, seed):
        self.context = multiprocessing.get_context("forkserver")
        self.context.set_forkserver_preload(["tests.soak.trials"])
        self.draw, self.folder, self.wholes, self.n = random.Random(seed), Path(folder), {}, 0

    def start(self, words, runs, limit=None):
        ready, self.log = self.context.Event(), self.folder / "log"
        if "--jobs" in words:
            return _New(words, runs, self.log)
        process = self.context.Process(target=_child, args=(words, runs, str(self.log), limit, ready))
        process.start()
        ready.wait()
        return process

    def end(self, process, *statuses):
        """Wait for the end, of its group too; returns the output. AssertionError for a hang or traceback."""
        process.join(PATIENCE)
        said = self.log.read_text(errors="replace")
        end = time.monotonic() + 10
        while (left := _group(process.pid)) and time.monotonic() < end:
            time.sleep(0.05)
        for pid, _ in left:
            os.kill(pid, signal.SIGKILL)
        assert process.exitcode is not None, f"it hangs: {said}"
        assert not left, f"{len(left)} processes outlive it"
        assert process.exitcode in statuses and "Traceback" not in said, f"status {process.exitcode}: {said}"
        return said

    def whole(self, words):
        """The runs of an undisturbed command."""
        if (key := " ".join(words)) not in self.wholes:
            self.wholes[key] = self.folder / f"whole-{len(self.wholes)}"
            self.end(self.start(words, self.wholes[key]), 0)
        return self.wholes[key]

    def trial(self, kind):
        """One trial of a kind; returns what happened, in a word."""
        self.n += 1
        runs = self.folder / f"trial-{self.n}"
        words = [*COMMAND, "--seeds", "0"]
        if kind.startswith("jobs"):
            words = [*COMMAND, "--seeds", "0-3", "--jobs", "2"]
        happened = getattr(self, kind.replace("-", "_"))(words, runs)
        self.end(self.start(words, runs), 0)
        for folder in self.whole(words).glob("*/seed-*"):
            compare(folder, runs / folder.relative_to(self.whole(words)), kind)
        assert not [*runs.rglob("*.part")], "files of killed processes are left"
        shutil.rmtree(runs)
        return happened

    def disturbed(self, words, runs, disturb, *statuses):
        """Start a command and call disturb(process) soon after a random stage; whether it came in time."""
        wanted = self.draw.randrange(len(_stages(self.whole(words))))
        process = self.start(words, runs)
        while process.is_alive() and len(_stages(runs)) < wanted:
            process.join(0.002)
        process.join(self.draw.uniform(0, 0.1))
        if alive := process.is_alive():
            disturb(process)
        self.end(process, 0, *statuses)
        return "stopped" if alive and process.exitcode else "ended before"

    def signalled(self, words, runs, *numbers, statuses):
        def send(process):
            for number in numbers:
                if process.is_alive():
                    os.kill(process.pid, number)
                    process.join(self.draw.choice((0, 0.001, 0.02)))

        return self.disturbed(words, runs, send, *statuses)

    def kill(self, words, runs):
        return self.signalled(words, runs, signal.SIGKILL, statuses=[-signal.SIGKILL])

    def sigterm(self, words, runs):
        return self.signalled(words, runs, signal.SIGTERM, statuses=[-signal.SIGTERM])

    def sighup(self, words, runs):
        return self.signalled(words, runs, signal.SIGHUP, statuses=[-signal.SIGHUP])

    def sigint(self, words, runs):
        return self.signalled(words, runs, signal.SIGINT, statuses=[130])

    def sigint_twice(self, words, runs):
        return self.signalled(words, runs, signal.SIGINT, signal.SIGINT, statuses=[130])

    def jobs_parent(self, words, runs):
        number = self.draw.choice((signal.SIGTERM, signal.SIGKILL, signal.SIGINT, signal.SIGHUP))
        return self.signalled(words, runs, number, statuses=[-number, 130])

    def jobs_group(self, words, runs):
        """Ctrl-C in a terminal, or its window closed: a signal for every process of the group."""
        number = self.draw.choice((signal.SIGINT, signal.SIGHUP, signal.SIGTERM))
        return self.disturbed(words, runs, lambda p: os.killpg(p.pid, number), -number, 130, 2)

    def jobs_worker(self, words, runs):
        def kill_one(process):
            workers = [
                pid for pid, parent in _group(process.pid) if parent == process.pid and _is_worker(pid)
            ]
            if workers:
                os.kill(self.draw.choice(workers), signal.SIGKILL)

        return self.disturbed(words, runs, kill_one, 2)

    def disk(self, words, runs):
        """A limit on the size of files, between that of the smallest and of the largest one."""
        sizes = [f.stat().st_size for f in self.whole(words).rglob("*") if f.is_file()]
        process = self.start(words, runs, self.draw.randrange(BLOCK, max(BLOCK + 1, max(sizes) + 1000)))
        said = self.end(process, 0, 2)
        assert process.exitcode == 0 or re.search(
            r"^clkit: \S+ could not be written \(File too large\)", said, re.M
        )
        return "full" if process.exitcode else "it fitted"

    def damage(self, words, runs):
        """A run that was killed, one of whose files is then damaged; its cures are followed."""
        while not (
            files := [f for f in runs.rglob("*") if f.is_file() and f.name != "lock" and f.stat().st_size]
        ):
            self.kill(words, runs)
        path = self.draw.choice(sorted(files))
        data = bytearray(path.read_bytes())
        kind = self.draw.choice(("a bit", "cut short", "empty", "foreign", "zeros"))
        if kind == "a bit":
            data[self.draw.randrange(len(data))] ^= 1 << self.draw.randrange(8)
        new = {
            "a bit": data,
            "cut short": data[: len(data) // 2],
            "foreign": b"{}",
            "zeros": bytes(len(data)),
        }
        path.write_bytes(new.get(kind, b""))
        for cures in range(4):
            process = self.start(words, runs)
            said = self.end(process, 0, 2)
            if process.exitcode == 0:
                return f"{kind}: {'mended' if cures else 'no harm'}"
            [line] = [line for line in said.splitlines() if line.startswith("clkit: ")]
            named, what = re.search(
                r"clkit: (\S+) .*: delete (?:the folder )?(.*?) and run again", line
            ).groups()
            wanted = Path(named if what == "this file" else what)
            shutil.rmtree(wanted) if wanted.is_dir() else wanted.unlink()
        raise AssertionError(f"four cures did not help: {line}")


KINDS = "kill sigterm sighup sigint sigint-twice jobs-parent jobs-group jobs-worker disk damage".split()
