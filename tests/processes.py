"""Several processes with the variables of torchrun, which execute the same calls, for tests."""

import contextlib
import multiprocessing
import os
import socket

import torch

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["torch", "clkit.methods"])


class Together:
    """Processes that compute one run together on the CPU; a call is executed by each of them.

    together(function, *arguments) gives the list of their values; an exception is a value too. `ask` does
    not wait for them.
    """

    def __init__(self, size=2):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.pipes, self.members = [], []
        for rank in range(size):
            ours, theirs = CONTEXT.Pipe()
            says = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": size, "MASTER_PORT": port}
            member = CONTEXT.Process(target=_serve, args=(theirs, says), daemon=True)
            member.start()
            theirs.close()
            self.pipes.append(ours)
            self.members.append(member)

    def ask(self, function, *arguments):
        for pipe in self.pipes:
            pipe.send((function, arguments))

    def __call__(self, function, *arguments):
        self.ask(function, *arguments)
        return [pipe.recv() for pipe in self.pipes]

    def end(self):
        for member in self.members:
            member.kill()
            member.join()


def _serve(pipe, says):
    os.environ.update({name: str(value) for name, value in says.items()}, MASTER_ADDR="127.0.0.1")
    torch.set_num_threads(1)
    with contextlib.suppress(EOFError):
        while True:
            function, arguments = pipe.recv()
            try:
                value = function(*arguments)
            except (Exception, KeyboardInterrupt) as error:
                value = error
            pipe.send(value)
