"""What a run leaves behind: predictions in, every score derived.

A ``Result`` is one seed of one experiment. It stores what the learner predicted for each test image after
each learning stage; accuracy, forgetting, transfer, confusion and the rest are computed from that, so a new
metric never needs a new run. Several seeds are a plain list of results, saved together as one *record*: a
JSON file that a human can read and an npz file of arrays. Nothing here imports torch.

Notation: T tasks, R learning stages (R = T, except for joint training, which has one stage), K classes, N
test images. Classes are numbered by order of arrival. All scores are fractions in [0, 1]; NaN marks what is
undefined.
"""

# ruff: noqa: F401
from clkit.result.interval import Interval, interval
from clkit.result.record import (
    FORMAT,
    check_replaces,
    load,
    pack_trace,
    save,
    summary,
    unpack_trace,
    write_atomically,
)
from clkit.result.result import Result, ResultError
