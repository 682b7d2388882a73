"""The base of every method: the Learner contract, the trace, the run loop, checkpoints and provenance."""

from clkit.errors import ClkitError


class RunError(ClkitError):
    """A run that cannot start or continue; the message says why and what to do. Finished work is kept."""
