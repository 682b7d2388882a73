"""Runs spread over a Dask cluster: the seeds of several methods and settings at once.

A run is one task of the cluster: it is computed as without one, in its run folder, by one worker. A process
computes one run at a time, because runs use torch's own random state. If a worker dies, another one resumes
its run from the folder. Workers on other machines need the same clkit, and find the data and run folders
where this machine has them, or below their own CLKIT_DATA and CLKIT_RUNS.
"""

import contextlib
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError

from clkit.data.facts import reason, root
from clkit.engine.torchrun import process
from clkit.experiments.benchmark import PresetError
from clkit.experiments.places import runs_root

LOCAL = "dask"  # stands for a cluster of processes on this machine
SCHEMES = "", "tcp", "tls", "ws", "wss", "inproc", "ucx"
ANSWER = 10.0  # seconds that a scheduler has to answer
WORKERS = 60.0  # seconds to wait for the first worker, and for another one when none is left
_one_at_a_time = threading.Lock()


class Cluster:
    """A connection to a Dask cluster.

    client: of dask.distributed.   where: the address of its scheduler, for messages.
    """

    def __init__(self, client, where: str) -> None:
        self.client, self.where, self.begun = client, where, {}

    def begin(self, compute: Callable, calls: dict[str, tuple]) -> None:
        """Hand compute(*arguments), for {name: arguments}, to the workers; a name counts once."""
        places = {"CLKIT_DATA": str(root().absolute()), "CLKIT_RUNS": str(runs_root().absolute())}
        for name, arguments in calls.items():
            if name not in self.begun:
                call = compute, arguments, places
                self.begun[name] = self.client.submit(_computed, *call, key=f"clkit {name}", pure=False)

    def finish(self, compute: Callable, calls: dict[str, tuple]) -> list:
        """The values of these calls, in their order; those that have not begun do so.

        An exception of a run is raised here. PresetError if the scheduler stops answering, or if workers are
        gone, or die each time that they compute a run.
        """
        from distributed import KilledWorker
        from distributed.comm.core import CommClosedError

        again = "run the same command again to resume"
        try:
            self.begin(compute, calls)
            futures = [self.begun[name] for name in calls]
            self._wait(futures)
            return self.client.gather(futures)
        except KilledWorker as error:
            fault = f"each worker that computed {str(error.task).removeprefix('clkit ')} died"
            raise PresetError(f"{fault}, perhaps for lack of memory: {again}, with fewer jobs") from None
        except ModuleNotFoundError as error:
            fault = f"the workers of {self.where} lack a package ({error})"
            raise PresetError(f"{fault}: install the clkit of this machine there") from error
        except (CancelledError, CommClosedError) as error:
            raise PresetError(f"the scheduler {self.where} stopped answering: {again}") from error

    def _wait(self, futures: list) -> None:
        """Return when all futures are done or one has failed."""
        from distributed import TimeoutError, wait

        seen = time.monotonic()
        while any(f.status == "pending" for f in futures) and not any(f.status == "error" for f in futures):
            with contextlib.suppress(TimeoutError):
                waiting = [f for f in futures if f.status == "pending"]
                wait(waiting, timeout=min(1.0, WORKERS), return_when="FIRST_COMPLETED")
            if self.client.nthreads():
                seen = time.monotonic()
            elif time.monotonic() - seen > WORKERS:
                raise PresetError(
                    f"no worker of the scheduler {self.where} is left: start one with `dask worker "
                    f"{self.where} --nthreads 1`, and run the same command again to resume"
                )


@contextlib.contextmanager
def connected(scheduler: "str | Cluster", jobs: int) -> Iterator[Cluster]:
    """A Cluster, for the block: `jobs` new processes on this machine ("dask"), or that of an address.

    scheduler: also a Cluster, which stays connected.

    PresetError if dask.distributed is not installed, or if the scheduler or its workers do not answer.
    """
    if isinstance(scheduler, Cluster):
        yield scheduler
        return
    if process().size > 1:
        raise PresetError("torchrun already spreads each run over processes: leave out --scheduler")
    try:
        from distributed import LocalCluster, TimeoutError
    except ImportError:
        cure = "python -m pip install 'clkit[dask]'"
        raise PresetError(f"--scheduler needs dask.distributed, which is not installed: {cure}") from None
    quiet = {"dashboard_address": "127.0.0.1:0", "silence_logs": logging.CRITICAL}
    with contextlib.ExitStack() as opened:
        address = scheduler
        if scheduler == LOCAL:
            made = LocalCluster(n_workers=jobs, threads_per_worker=1, memory_limit=0, **quiet)
            address = opened.enter_context(made).scheduler_address
        try:
            if (scheme := address.rpartition("://")[0]) not in SCHEMES:
                raise ValueError(f"{scheme}:// is not one of its protocols")  # Client would wait for ever
            client = opened.enter_context(_client(address))
        except (OSError, ValueError, TimeoutError) as error:
            fault = f"the scheduler {scheduler!r} does not answer ({reason(error)})"
            cure = "start it with `dask scheduler` and give the address that it prints"
            raise PresetError(f"{fault}: {cure}, or use --scheduler dask for this machine alone") from None
        try:
            client.wait_for_workers(1, timeout=WORKERS)
        except TimeoutError:
            fault = f"the scheduler {address} has no workers"
            raise PresetError(f"{fault}: start some with `dask worker {address} --nthreads 1`") from None
        yield Cluster(client, address)


def _client(address: str):
    """A client of dask.distributed, connected to this scheduler."""
    from distributed import Client

    class Closing(Client):
        # A client that could not connect stays open, and its thread alive, until garbage collection closes
        # it; if that happens while another client starts its thread, both wait for the same lock for ever.
        def start(self, **options):
            try:
                return super().start(**options)
            except BaseException:
                self.close()
                self._loop_runner.stop()  # which close() leaves out if the scheduler refused
                raise

    return Closing(address, timeout=ANSWER)


def _computed(compute: Callable, arguments: tuple, places: dict[str, str]) -> object:
    """In a worker: the value of compute(*arguments), with these places unless the worker has its own."""
    with _one_at_a_time:
        new = {name: path for name, path in places.items() if not os.environ.get(name)}
        os.environ.update(new)
        try:
            return compute(*arguments)
        finally:
            for name in new:
                del os.environ[name]
