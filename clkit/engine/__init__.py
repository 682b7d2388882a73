"""What every method stands on: the contract, the trace, the run loop, its checkpoints and its provenance."""

from clkit.errors import ClkitError


class RunError(ClkitError):
    """A run that cannot start or go on; the message says why and what to do. What was computed is kept."""
